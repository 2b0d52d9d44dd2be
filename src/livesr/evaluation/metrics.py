"""How alike a predicted structure and its truth are.

PCC, SSIM, NRMSE and others, and how sure a mean over sequences is.

Owns the scores and what is made of many; the formulas that a running run needs as well are in
`livesr.optics.similarity`. Draws nothing, knows no engine.

Preparation (Wang et al. 2021, Biophysics Reports, IMC-SR; the same in Qiao et al. 2021, Nature
Methods 18, 194): the truth is scaled so that its 0.1st and 99.9th percentiles become 0 and 1, the
prediction is then brought onto it by the linear transform with the least squared error. Brightness
is thus judged apart from structure. Scaling the prediction by its own percentiles first, as the
papers write, changes nothing: the linear transform takes it out again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.evaluation.resolution import frc_resolution
from livesr.optics.similarity import (
    linear_fit,
    nrmse,
    pcc,
    percentile_normalised,
    similarity_maps,
    ssim,
)

Image = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

PAPER_CONSTANTS = (0.01, 0.03)
"""What IMC-SR prints (c1 = 0.01, c2 = 0.03), taken literally.

They decide whether a network takes off. Most of a target is dark and without noise; with the
standard constants SSIM punishes a luminance of 0.02 there as much as a wrong structure, so the
quickest descent is to darken everything, where a sigmoid stays.
"""
MS_SSIM_SMALLEST_PX = 161

_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_RESAMPLES = 10_000


class Score(NamedTuple):
    """One structure in one frame. PCC and SSIM are at most 1, NRMSE is at least 0.

    NaN where the truth is even.

    Attributes
    ----------
    ssim_paper : SSIM with the constants that IMC-SR prints, c1 = 0.01 and c2 = 0.03, neither
        squared nor scaled: much larger than those of `ssim`, so that dark regions always agree and
        numbers are higher
    ms_ssim : over five scales; NaN for images of less than 161 pixels
    psnr : in dB, of images prepared as for the others
    gradient : mean gradient over that of the truth, both prepared: above 1 is sharper, or noisier,
        than the truth
    frc_px : the distance in pixels down to which prediction and truth agree ring by ring
    """

    pcc: float
    ssim: float
    nrmse: float
    ssim_paper: float = math.nan
    ms_ssim: float = math.nan
    psnr: float = math.nan
    gradient: float = math.nan
    frc_px: float = math.nan


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` sequences and its bootstrap interval; NaN where there is too little to
    tell.
    """

    mean: float
    low: float
    high: float
    n: int

    def above(self, other: Interval) -> bool:
        """Whether the whole interval lies above `other`'s."""
        return self.low > other.high

    def to_json(self) -> dict[str, float | int | None]:
        """Return the fields with NaN as None, which JSON can say."""
        return {
            k: v if isinstance(v, int) or math.isfinite(v) else None
            for k, v in asdict(self).items()
        }

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def score(prediction: Image, truth: Image) -> Score:
    """Compare one predicted structure with its truth, both (y, x), in any unit, after the papers'
    preparation.

    A truth without any contrast has no score: all NaN. A prediction without contrast has a PCC of
    0, not NaN: a network that collapsed must not drop out of a mean.

    Raises
    ------
    ValueError
        If the shapes differ or a pixel is not finite.
    """
    _check(prediction, truth)
    reference = percentile_normalised(truth)
    if reference is None:
        return Score(math.nan, math.nan, math.nan)
    fitted = linear_fit(prediction, reference)
    error = nrmse(fitted, reference)
    return Score(
        pcc=pcc(prediction, truth),
        ssim=ssim(fitted, reference, data_range=1.0),
        nrmse=error,
        ssim_paper=ssim(fitted, reference, constants=PAPER_CONSTANTS),
        ms_ssim=ms_ssim(fitted, reference) if min(truth.shape) >= MS_SSIM_SMALLEST_PX else math.nan,
        psnr=-20 * math.log10(max(error, 1e-9)),
        gradient=mean_gradient(fitted) / mean_gradient(reference),
        frc_px=frc_resolution(fitted, reference, 1.0),
    )


def ms_ssim(a: Image, b: Image) -> float:
    """Mean structural similarity over five scales, each half as fine (Wang, Simoncelli and Bovik
    2003), of images whose range is 1.

    Means of contrast and structure at the finer scales and of SSIM at the coarsest, weighed by the
    paper's exponents; negative means count as 0. Equals torchmetrics'
    ``multiscale_structural_similarity_index_measure``.

    Raises
    ------
    ValueError
        If the images are smaller than 161 pixels: the window must fit at the coarsest scale.
    """
    if min(a.shape) < MS_SSIM_SMALLEST_PX:
        raise ValueError(
            f"images are {a.shape}; MS-SSIM needs at least {MS_SSIM_SMALLEST_PX} pixels on each"
            " side"
        )
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    constants = 0.01**2, 0.03**2
    product = 1.0
    for scale, weight in enumerate(_MS_SSIM_WEIGHTS, start=1):
        luminance, structure = similarity_maps(x, y, constants)
        last = scale == len(_MS_SSIM_WEIGHTS)
        product *= max(float((luminance * structure if last else structure).mean()), 0.0) ** weight
        x, y = _halved(x), _halved(y)
    return product


def mean_gradient(image: Image) -> float:
    """Return the mean of sqrt((dx^2 + dy^2) / 2) over differences to the next pixels (Hu et al.
    2020, Acta Optica Sinica).

    In the image's unit. Says how much the image varies, not whether that is right: noise and
    aliasing raise it. Give PSNR, SSIM and FRC beside it.
    """
    x = np.asarray(image, np.float64)
    dy, dx = x[1:, :-1] - x[:-1, :-1], x[:-1, 1:] - x[:-1, :-1]
    return float(np.sqrt((dy * dy + dx * dx) / 2).mean())


def false_positive_energy(prediction: Image, truth: Image) -> float:
    """Return the predicted light where the truth stays below 2 % of its maximum.

    All of it if the truth is dark.

    In the prediction's unit; only positive light counts.
    """
    peak = float(truth.max())
    dark = truth < 0.02 * peak if peak > 0 else np.ones(truth.shape, bool)
    return float(np.maximum(prediction, 0)[dark].sum(dtype=np.float64))


def flicker(frames: Image, where: NDArray[np.bool_]) -> float:
    """Return the temporal standard deviation over the mean of the pixels `where` (y, x) of (t, y,
    x), on average.

    In a scene in which nothing moves this is what noise, or an unsteady network, adds along time.
    """
    values = np.asarray(frames, np.float64)[:, where]
    mean = float(values.mean()) if values.size else 0.0
    return float(values.std(0).mean()) / mean if mean > 0 else math.nan


def bootstrap_interval(values: Sequence[float], seed: int = 0, level: float = 0.95) -> Interval:
    """Return the mean of `values`, one per sequence, and its percentile-bootstrap interval (Efron
    1979).

    Sequences are what is drawn independently. Frames of a sequence and pixels of a frame are not:
    an interval over those would be far too narrow. NaN (a structure that was not there) is left out
    and not counted.

    Parameters
    ----------
    values : one number per sequence
    seed : of the resampling; the same seed gives the same interval
    level : coverage, between 0 and 1

    Notes
    -----
    The percentile interval of a small sample is too narrow: of normal values a nominal 95 % covers
    the true mean in 90 % of the samples of 10, 80 % of those of 4, and in half of those of 2.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share between 0 and 1")
    given = np.asarray(values, np.float64)
    given = given[~np.isnan(given)]
    n = given.size
    if n < 2:
        return Interval(float(given[0]) if n else math.nan, math.nan, math.nan, n)
    means = np.random.default_rng(seed).choice(given, (_RESAMPLES, n)).mean(axis=1)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(given.mean()), float(low), float(high), n)


def _halved(image: Doubles) -> Doubles:
    y, x = (n // 2 for n in image.shape)
    halved: Doubles = image[: 2 * y, : 2 * x].reshape(y, 2, x, 2).mean((1, 3))
    return halved


def _check(prediction: Image, truth: Image) -> None:
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise ValueError(
            f"prediction is {prediction.shape} and truth {truth.shape}; both must be (y, x) of one"
            " shape"
        )
    for name, image in (("prediction", prediction), ("truth", truth)):
        if not np.isfinite(image).all():
            raise ValueError(f"the {name} has pixels that are not finite")
