"""What an engine knows, told from random textures by the network's own features.

Owns the pictures that the score of `livesr.live.unlike` is fitted on, and the fit. In order are
training pairs as they are, and composites of their structures as bright as one likes, blurred,
enlarged and with other contrast, as other microscopes have them. Not in order are the same with a
texture in the place of a structure, beside all of them, or alone: thresholded, ridged or
exponentiated Gaussian random fields of any grain and direction, and known structures at twice their
size or half. Nothing in it is drawn to look like a structure that the engine does not know.

References
----------
Hendrycks, Mazeika and Dietterich 2019, "Deep anomaly detection with outlier exposure", ICLR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from livesr.base.compute import ComputeConfig
from livesr.live.inference.engine import Engine, Familiarity
from livesr.live.inference.runner import open_session
from livesr.live.normalise import background_and_scale
from livesr.live.unlike import FARTHEST, described

Image = NDArray[np.float32]
Pairs = tuple[NDArray[Any], NDArray[Any]]

_ADU = np.float32(1000)
_PERCENTILES = (1.0, 99.8)
_FAINT = 0.03  # of x: less is no structure to compose with
_BRIGHTNESS = (0.08, 1.0)  # of the structures of a composite
_TEXTURE = (0.5, 1.5)  # brightness beside them
_HAZE = (0.0, 0.1, 0.3, 0.6)
_NOISE = (0.0, 0.0, 0.01, 0.03, 0.08)
_RIDGE = 300.0  # ridge regression, for some hundred features
_USUAL = 0.96


class Pictures:
    """Draws frames, normalised as live ones are, from training pairs.

    Parameters
    ----------
    pairs : frames (n, window, y, x) and targets (n, c, y, x), y and x alike; they may be mapped
    rng : what is drawn depends on it alone
    """

    def __init__(self, pairs: Pairs, rng: np.random.Generator) -> None:
        self._frames, self._targets = pairs
        self._rng, self._side = rng, self._targets.shape[-1]
        self._shown: list[list[int]] = [[] for _ in range(self._targets.shape[1])]
        for i, target in enumerate(self._targets[:, :, ::2, ::2]):
            for c, image in enumerate(target):
                if np.percentile(np.asarray(image, np.float32), _PERCENTILES[1]) > _FAINT:
                    self._shown[c].append(i)

    def known(self, n: int) -> Iterator[Image]:
        """Yield `n` frames (window, y, x) in order: every other one a pair as it is."""
        for i in range(n):
            if i % 2:
                yield self._composite(None)
            else:
                which = self._rng.integers(len(self._frames))
                yield np.asarray(self._frames[which], np.float32)

    def unknown(self, n: int) -> Iterator[Image]:
        """Yield `n` frames (window, y, x) with a texture."""
        for _ in range(n):
            yield self._composite(_scaled(self._altered(self._texture())))

    def _composite(self, texture: Image | None) -> Image:
        rng = self._rng
        parts = [_scaled(self._altered(self._structure(c))) for c in range(len(self._shown))]
        low, high = np.log(_BRIGHTNESS)
        bright = np.exp(rng.uniform(low, high, len(parts)))
        bright[rng.random(len(parts)) < 0.15] = 0
        if texture is not None:
            place = rng.integers(4)
            if place < 2:
                bright[rng.integers(len(parts))] = 0
            elif place == 2:
                bright[:] = 0
            low, high = np.log(_TEXTURE)
            texture = texture * np.float32(np.exp(rng.uniform(low, high)))
        bright /= max(bright.max(), 1e-3)
        image = np.tensordot(bright.astype(np.float32), np.stack(parts), 1)
        image += self._haze() + (0 if texture is None else texture)
        return self._taken(image * _ADU)

    def _taken(self, image: Image) -> Image:
        """Return the still image in every frame of the window, each with noise of its own."""
        noise = self._rng.choice(_NOISE) * _ADU
        window, shape = self._frames.shape[1], image.shape
        background, scale = background_and_scale(image)
        return np.stack(
            [
                (image + noise * 3 * gaussian_filter(self._normal(shape), 1) - background) / scale
                for _ in range(window)
            ]
        ).astype(np.float32)

    def _normal(self, shape: tuple[int, ...]) -> Image:
        return np.asarray(self._rng.standard_normal(shape, np.float32))

    def _haze(self) -> Image:
        smooth = gaussian_filter(self._normal((self._side, self._side)), self._rng.uniform(15, 40))
        span = float(np.ptp(smooth)) or 1.0
        return np.asarray((smooth - smooth.min()) * np.float32(self._rng.choice(_HAZE) / span))

    def _structure(self, c: int) -> Image:
        image = np.asarray(self._targets[self._rng.choice(self._shown[c]), c], np.float32)
        return np.rot90(image, int(self._rng.integers(4))).copy()

    def _altered(self, image: Image) -> Image:
        """Return an image a little larger or smaller, blurred, and of another contrast."""
        rng, image = self._rng, np.maximum(image, 0)
        if rng.random() < 0.6:
            image = _resized(image, float(np.exp(rng.uniform(-0.18, 0.18))))
        if rng.random() < 0.6:
            image = gaussian_filter(image, rng.uniform(0.2, 1.6))
        if rng.random() < 0.7:
            bright = np.float32(np.percentile(image[::2, ::2], _PERCENTILES[1]) + 1e-6)
            image = bright * (image / bright) ** np.float32(np.exp(rng.uniform(-0.5, 0.4)))
        return image

    def _texture(self) -> Image:
        rng = self._rng
        if rng.random() < 0.3:
            factor = float(np.exp(rng.choice((-1, 1)) * rng.uniform(0.55, 1.1)))
            return _resized(self._structure(int(rng.integers(len(self._shown)))), factor)
        field, level, kind = self._field(), rng.uniform(-0.5, 1.8), rng.integers(3)
        if kind == 0:
            image = np.clip((field - level) * rng.uniform(1, 6), 0, 1)
        elif kind == 1:
            image = np.exp(-(((field - level / 2) / rng.uniform(0.08, 0.35)) ** 2))
        else:
            image = np.exp(field * rng.uniform(0.6, 2))
        if rng.random() < 0.4:
            smooth = gaussian_filter(self._normal(field.shape), rng.uniform(20, 50))
            image = image / (1 + np.exp(-4 * (smooth - smooth.mean()) / smooth.std()))
        return np.asarray(image, np.float32)

    def _field(self) -> NDArray[np.float64]:
        """Return a Gaussian random field, of a low-pass or a band, of mean 0 and deviation 1."""
        rng, n = self._rng, self._side
        grain = np.exp(rng.uniform(np.log(1.5), np.log(16)))
        stretch = np.exp(rng.uniform(0, np.log(8)))
        angle = rng.uniform(0, np.pi)
        ky, kx = np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij")
        along = np.cos(angle) * kx + np.sin(angle) * ky
        across = np.cos(angle) * ky - np.sin(angle) * kx
        if rng.random() < 0.5:
            passed = np.exp(-2 * (np.pi * grain) ** 2 * (along**2 * stretch + across**2 / stretch))
        else:
            k = np.sqrt(along**2 * stretch + across**2 / stretch)
            passed = np.exp(-(((k - 1 / (6 * grain)) * 12 * grain) ** 2) / 2)
        field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n))) * passed).real
        return np.asarray((field - field.mean()) / field.std())


def fit_unlike(
    known: NDArray[np.float64], unknown: NDArray[np.float64], folds: int = 4
) -> dict[str, Any]:
    """Fit the score of `livesr.live.unlike`.

    Parameters
    ----------
    known, unknown : (n, features) as of `livesr.live.unlike.described`
    folds : parts that are left out in turn, for the limit and the area

    Returns
    -------
    dict
        mean, scale, weights, bias, as `Familiarity` has them, and `area` under the curve of known
        frames against textures that were left out of the fit.
    """
    mean, scale = known.mean(0), known.std(0) + 1e-6
    inside, outside = (
        np.clip((one - mean) / scale, -FARTHEST, FARTHEST) for one in (known, unknown)
    )
    left_in, left_out = np.empty(len(inside)), np.empty(len(outside))
    for fold in range(folds):
        a, b = np.arange(len(inside)) % folds == fold, np.arange(len(outside)) % folds == fold
        weights, bias = _discriminant(inside[~a], outside[~b])
        left_in[a], left_out[b] = inside[a] @ weights + bias, outside[b] @ weights + bias
    weights, bias = _discriminant(inside, outside)
    middle, limit = np.quantile(left_in, (0.5, _USUAL))
    slope = 1 / max(float(limit - middle), 1e-9)
    return {
        "mean": mean,
        "scale": scale,
        "weights": weights * slope,
        "bias": float(bias - middle) * slope,
        "area": float((left_out[:, None] > left_in).mean()),
    }


def _discriminant(
    inside: NDArray[np.float64], outside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Ridge regression to -1 and 1, both sides with the same weight; weights and bias."""
    points = np.concatenate([inside, outside])
    points = np.column_stack([points, np.ones(len(points))])
    share = np.concatenate(
        [np.full(len(inside), 0.5 / len(inside)), np.full(len(outside), 0.5 / len(outside))]
    )
    wanted = np.concatenate([-np.ones(len(inside)), np.ones(len(outside))])
    gram = (points * share[:, None]).T @ points
    gram += _RIDGE / len(points) * np.eye(points.shape[1])
    found = np.linalg.solve(gram, (points * share[:, None]).T @ wanted)
    return found[:-1], float(found[-1])


def measure_familiarity(
    engine: Engine,
    pairs: Pairs,
    n: int,
    *,
    seed: int = 1,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Familiarity | None:
    """Fit what an engine knows on frames made of training pairs.

    Parameters
    ----------
    pairs : as of `Pictures`
    n : frames of what it knows, and as many with textures
    progress : called with (frames done, all)

    Returns
    -------
    None where the engine's network returns no features.
    """
    if not engine.manifest.features:
        return None
    channels, shape = len(engine.manifest.channels), pairs[0].shape[2:]
    last = engine.manifest.weights.features_drawn
    drawn, told = Pictures(pairs, np.random.default_rng(seed)), []
    compute = ComputeConfig(threads=threads, tile="off")
    with open_session(engine, (shape[0], shape[1]), compute) as session:
        for done, frames in enumerate(chain(drawn.known(n), drawn.unknown(n)), start=1):
            session.input[...] = frames
            session.infer()
            if session.features is None:
                return None
            told.append(
                described(session.features, channels, engine.manifest.weights.features_drawn)
            )
            if progress:
                progress(done, 2 * n)
    found = fit_unlike(np.stack(told[:n]), np.stack(told[n:]))
    return Familiarity(
        data=f"{n} frames of training pairs and composites of them, {n} with random textures",
        last=last,
        **{name: found[name] for name in ("mean", "scale", "weights")},
        bias=round(found["bias"], 5),
        area=round(found["area"], 4),
    )


def _scaled(image: Image) -> Image:
    low, high = np.percentile(image[::2, ::2], _PERCENTILES)
    return np.asarray((image - low) / max(high - low, 1e-3), np.float32)


def _resized(image: Image, factor: float) -> Image:
    """Return an image enlarged by `factor` on as many pixels: cut, or repeated by reflection."""
    side = image.shape[0]
    if factor > 1:
        keep = max(int(np.ceil(side / factor)), 2)
        image = image[:keep, :keep]
    resized = zoom(image, factor, order=1)
    margins = [(0, max(side - n, 0)) for n in resized.shape]
    return np.asarray(np.pad(resized, margins, mode="reflect")[:side, :side], np.float32)
