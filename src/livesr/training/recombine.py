"""Cached pairs composed anew while training.

Structures of different cells, from microscopes of their own, in one still image; some with what is
no structure that the network is to know.

Owns the mixture and what a microscope or a program may have done to an image: sharpness,
magnification, a black level, noise or none, haze, 8 bits. Data are simulated once; all of this
costs a few milliseconds a crop. Reads no file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from livesr.live.normalise import background_and_scale
from livesr.training.data import DataConfig
from livesr.training.sources import CachedPairs, Pairs
from livesr.training.textures import texture

Image = NDArray[np.float32]

_ADU = 1000.0  # of the bright parts: what normalisation takes for a camera's
_DARK_PERCENTILE, _BRIGHT_PERCENTILE = 1.0, 99.8
_PLAIN_SHARPER, _PLAIN_NOISE = (0.0, 2.0), 1.5  # of what one microscope gives: how much sharper,
# and how noisy
_BLANK = 0.08  # of the composed crops: noise alone, in which nothing is to be found
_MAGNIFIED, _MAGNIFICATION = (
    0.5,
    1.4,
)  # share, and the largest factor either way: 45 to 25 nm a pixel as 32
_SHARPENED, _BLURRED = 0.5, 0.35  # shares of the structures; the others stay as they are
_SHARPER, _BLUR_PX = (0.0, 3.0), (0.3, 2.2)  # how much sharper, and how much softer in pixels
_CUT = 0.25  # share of the structures whose background was subtracted, and of the images
_DENOISED = 0.15  # share of the images without noise
_GLOWING, _GLOW, _GLOW_PX = (
    0.4,
    0.5,
    (3.0, 25.0),
)  # share of the structures with out-of-focus light, how much, how wide
_HAZY, _EIGHT_BITS = 0.2, 0.2
_GRAIN = (
    0.15,
    1.0,
)  # standard deviation of strong noise, where a structure of mean brightness is 1
_STEEPER, _WHITE = (0.5, 4.0), 0.4  # exponent of the frequency that its spectrum grows with beside
# that of a crop's; how much of it is white at most
_RESIZED, _FACTOR = 0.2, (0.55, 1.0)  # share of unknown structures that are known ones of a size
# that no microscope gives them, and by how much, logarithms
_NOT_FAINT = 0.3  # of the brightest structure: an unknown one has at least that


class RecombinedPairs:
    """Cached pairs, of which a share is composed anew.

    Parameters
    ----------
    pairs : of a separation
    share : part of the crops that are composed anew
    brightness_ratio : largest ratio between two structures; each one's brightness is log-uniform
    absent : probability that a structure is missing, each for itself: all may be
    unknown : share of the composites with a structure that the network is not to know, in the place
        of a known one, beside all of them or alone. Above 0, targets have one image more, its light
    plain : share of the composites as one good microscope gives them
    noisy : share of the composites with strong fine noise, as images of little light have it
    haze : the pairs' targets hold the structures' haze; that of a composite is then its
        structures' too

    Notes
    -----
    A composite is what users make to judge an engine on real images: one image of each structure,
    scaled to equal bright parts or not quite, added, the same frame three times. Here each
    structure comes from a crop of its own; what a frame holds besides its structures (noise, haze,
    background, artefacts) comes from one more. Such images were taken and reconstructed
    differently, so each has a sharpness, a magnification, a glow and a black level of its own; what
    is to be found is the structure as it was added, its own light from out of focus included. Of
    the crops composed anew, one in twelve is noise alone: a network that removes noise must also
    learn to find nothing.

    Raises
    ------
    ValueError
        If `pairs` are finer than their input: of an upscaling.
    """

    def __init__(
        self,
        pairs: CachedPairs,
        share: float,
        brightness_ratio: float = 5.0,
        absent: float = 0.0,
        unknown: float = 0.0,
        *,
        plain: float = 0.5,
        noisy: float = 0.25,
        haze: bool = False,
    ) -> None:
        if pairs.scale != 1:
            raise ValueError(
                f"only pairs of a separation can be composed anew; these are {pairs.scale} times"
                " finer"
            )
        self._pairs, self._share, self._absent, self._unknown = pairs, share, absent, unknown
        self._side, self._plain = float(np.sqrt(brightness_ratio)), plain
        self._noisy, self._haze = noisy, haze

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        """Return crops as `CachedPairs.batch` does, some of them composed anew."""
        frames, targets = self._with_unknown(*self._pairs.batch(rng, size, patch))
        for i in np.flatnonzero(rng.random(size) < self._share):
            make = self._blank if rng.random() < _BLANK else self._composite
            frames[i], targets[i] = make(rng, patch)
        return frames, targets

    def validation(self, n: int) -> Pairs:
        """Return whole pairs as `CachedPairs.validation` does, every other one composed anew."""
        frames, targets = self._with_unknown(*self._pairs.validation(n))
        rng = np.random.default_rng(len(frames))
        for i in range(1, len(frames), 2):
            frames[i], targets[i] = self._composite(rng, frames.shape[-1])
        return frames, targets

    def _with_unknown(self, frames: Image, targets: Image) -> Pairs:
        """Append an image of unknown light: there is none."""
        if not self._unknown:
            return frames, targets
        return frames, np.concatenate([targets, np.zeros_like(targets[:, :1])], 1)

    def _blank(self, rng: np.random.Generator, patch: int) -> Pairs:
        """Noise alone, stretched as a live frame would be."""
        frames, targets = self._pairs.batch(rng, 1, patch)
        noise = np.float32(_ADU) * noise_like(rng, frames[0], targets[0])
        background, scale = background_and_scale(noise[len(noise) // 2])
        nothing = np.zeros_like(self._with_unknown(frames, targets)[1][0])
        return (noise - np.float32(background)) / np.float32(scale), nothing

    def _composite(self, rng: np.random.Generator, patch: int) -> Pairs:
        channels = self._pairs.targets.shape[1]
        plainly = rng.random() < self._plain
        images = [self.structure(rng, patch, c, plainly=plainly) for c in range(channels)]
        foreign = bool(self._unknown) and rng.random() < self._unknown
        if self._unknown:
            images.append(
                self.unknown(rng, patch) if foreign else np.zeros((patch, patch), np.float32)
            )
        structures = np.stack(images)
        if self._haze:  # which none of them has everywhere: that is background
            darkest = np.percentile(structures[:, ::2, ::2], _DARK_PERCENTILE, axis=(1, 2))
            structures = np.maximum(structures - darkest[:, None, None].astype(np.float32), 0)
        bright = np.percentile(structures[:, ::2, ::2], _BRIGHT_PERCENTILE, axis=(1, 2))
        wanted = 0.3 * _ADU * np.exp(rng.uniform(-1, 1, len(images)) * np.log(self._side))
        wanted[:channels] *= rng.random(channels) >= self._absent
        if foreign:
            _make_room(rng, wanted)
        # A structure that is hardly there is not amplified.
        structures *= (wanted / np.maximum(bright, 0.05))[:, None, None].astype(np.float32)
        frames, targets = self._pairs.batch(rng, 1, patch, [channels])
        besides = frames[0, frames.shape[1] // 2] - targets[0].sum(0)
        hazy = not plainly and rng.random() < _HAZY
        if hazy and self._haze:
            structures += haze_of(rng, structures)
        image = structures.sum(0)
        if hazy and not self._haze:
            image = image + haze_of(rng, image)
        if plainly:
            image = image + besides * np.float32(_ADU * rng.uniform(0, _PLAIN_NOISE))
        else:
            image = degraded(rng, image, besides * np.float32(_ADU))
        still = np.repeat(image[None], frames.shape[1], 0)
        if rng.random() < self._noisy:
            still += grain(rng, noise_like(rng, frames[0], targets[0]))
        background, scale = background_and_scale(still[len(still) // 2])
        scale *= rng.uniform(0.75, 1.25)
        still = (still - np.float32(background)) / np.float32(scale)
        return still.astype(np.float32), (structures / scale).astype(np.float32)

    def structure(
        self, rng: np.random.Generator, patch: int, channel: int, *, plainly: bool = False
    ) -> Image:
        """Draw one structure as some microscope shows it, (patch, patch), not negative.

        Plainly: as a crop has it, more or less sharp.
        """
        if plainly:
            _, targets = self._pairs.batch(rng, 1, patch, [channel])
            return sharpened(targets[0, channel], rng.uniform(*_PLAIN_SHARPER))
        side, largest = patch, min(self._pairs.targets.shape[-2:])
        if rng.random() < _MAGNIFIED:
            factor = np.exp(rng.uniform(-1, 1) * np.log(_MAGNIFICATION))
            side = int(np.clip(round(patch / factor), 16, largest))
        _, targets = self._pairs.batch(rng, 1, side, [channel])
        image: Image = targets[0, channel]
        if side != patch:
            image = np.asarray(
                zoom(image, patch / side, order=1, grid_mode=True, mode="nearest"), np.float32
            )
        return _without_background(rng, _glowing(rng, _refocused(rng, image)))

    def unknown(self, rng: np.random.Generator, patch: int) -> Image:
        """Draw what is no known structure, (patch, patch), as some microscope shows it."""
        image = self._resized(rng, patch) if rng.random() < _RESIZED else texture(rng, patch)
        return _without_background(rng, _glowing(rng, _refocused(rng, image)))

    def _resized(self, rng: np.random.Generator, patch: int) -> Image:
        """Return a known structure 1.7 to 2.7 times as large or small as it is."""
        channel = int(rng.integers(self._pairs.targets.shape[1]))
        factor = float(np.exp(rng.choice((-1, 1)) * rng.uniform(*_FACTOR)))
        side = int(np.clip(round(patch / factor), 16, min(self._pairs.targets.shape[-2:])))
        _, targets = self._pairs.batch(rng, 1, side, [channel])
        image = zoom(targets[0, channel], factor, order=1, grid_mode=True, mode="nearest")
        image = image[:patch, :patch]
        missing = [(0, patch - n) for n in image.shape]
        return np.asarray(np.pad(image, missing, mode="reflect"), np.float32)


def as_told(pairs: CachedPairs, data: DataConfig) -> RecombinedPairs:
    """Return pairs of which a share is composed anew, as a recipe's `data` says."""
    domain = data.domain
    return RecombinedPairs(
        pairs,
        data.recombined,
        domain.brightness_ratio,
        domain.absent,
        data.unknown,
        plain=data.plain,
        haze=data.haze_in_truth,
    )


def _make_room(rng: np.random.Generator, wanted: NDArray[np.float64]) -> None:
    """Give an unknown structure, the last, the place of a known one, of all, or one of its own."""
    place = rng.integers(4)
    if place < 2:
        wanted[rng.integers(len(wanted) - 1)] = 0
    elif place == 2:
        wanted[:-1] = 0
    wanted[-1] = max(wanted[-1], _NOT_FAINT * wanted.max())


def noise_like(rng: np.random.Generator, frames: Image, targets: Image) -> Image:
    """Return noise (frames, y, x) with the spectrum of what the middle one of `frames` holds
    besides `targets` (structures, y, x), the frames equally bright.
    """
    besides = frames[len(frames) // 2] - targets.sum(0)
    spectrum = np.abs(np.fft.rfft2(besides))
    phases = rng.uniform(0, 2 * np.pi, (len(frames), *spectrum.shape))
    phases[:, 0, 0] = 0
    noise = np.fft.irfft2(spectrum * np.exp(1j * phases), besides.shape)
    return np.asarray(noise, np.float32)


def grain(rng: np.random.Generator, noise: Image) -> Image:
    """Return `noise` (frames, y, x) as strong as images of little light have it.

    More of it lies near the limit of the resolution, where the filter amplifies it, and some is
    white, as what a program adds behind the filter.

    Half of the time that of the first frame for all, as of one image that is shown as three.
    """
    y, x = noise.shape[1:]
    frequencies = np.hypot(np.fft.fftfreq(y)[:, None], np.fft.rfftfreq(x))
    steeper = frequencies ** rng.uniform(*_STEEPER)
    fine = np.asarray(np.fft.irfft2(np.fft.rfft2(noise) * steeper, (y, x)), np.float32)
    fine /= np.float32(max(float(fine.std()), 1e-6))
    fine += np.float32(rng.uniform(0, _WHITE)) * rng.standard_normal(fine.shape, np.float32)
    level = np.float32(0.3 * _ADU * np.exp(rng.uniform(*np.log(_GRAIN))))
    return level * (fine if rng.random() < 0.5 else np.repeat(fine[:1], len(fine), 0))


def degraded(rng: np.random.Generator, image: Image, besides: Image) -> Image:
    """Return a frame (y, x) of `image`.

    With `besides` (noise, background, and haze that is no structure's) or none, cut off, in 8 bits,
    by chance.
    """
    frame: Image = image
    if rng.random() >= _DENOISED:
        frame = frame + besides * np.float32(rng.uniform(0, 2.5))
    if rng.random() < _CUT:
        level = np.float32(np.percentile(frame[::2, ::2], rng.uniform(0, 30)))
        frame = np.asarray(np.maximum(frame - level, 0), np.float32)
    if rng.random() < _EIGHT_BITS:
        low, high = float(frame.min()), float(frame.max())
        step = max((high - low) / 255, 1e-6)
        frame = np.asarray(low + np.round((frame - low) / step) * step, np.float32)
    return np.asarray(frame, np.float32)


def haze_of(rng: np.random.Generator, images: Image) -> Image:
    """Draw the light from far out of focus of images (..., y, x), each its own."""
    wide = (0.0,) * (images.ndim - 2) + (rng.uniform(8, 30),) * 2
    return np.asarray(np.float32(rng.uniform(0, 0.6)) * gaussian_filter(images, wide), np.float32)


def _refocused(rng: np.random.Generator, image: Image) -> Image:
    """Return `image` sharper, softer or as it is."""
    chance = rng.random()
    if chance < _SHARPENED:
        return sharpened(image, rng.uniform(*_SHARPER))
    if chance < _SHARPENED + _BLURRED:
        return np.asarray(gaussian_filter(image, rng.uniform(*_BLUR_PX)), np.float32)
    return image


def _glowing(rng: np.random.Generator, image: Image) -> Image:
    """Add the structure's own light from out of focus, now and then.

    Real images hold it, and it is the structure's.
    """
    if rng.random() >= _GLOWING:
        return image
    width = np.exp(rng.uniform(*np.log(_GLOW_PX)))
    glow = gaussian_filter(image[::2, ::2], width / 2)
    brightest, wanted = (
        float(glow.max()),
        rng.uniform(0, _GLOW) * np.percentile(image[::2, ::2], _BRIGHT_PERCENTILE),
    )
    if brightest <= 0:
        return image
    glow = zoom(glow, 2, order=1, grid_mode=True, mode="nearest")[
        : image.shape[0], : image.shape[1]
    ]
    return np.asarray(image + glow * np.float32(wanted / brightest), np.float32)


def _without_background(rng: np.random.Generator, image: Image) -> Image:
    """Cut off what is fainter than a black level, now and then."""
    if rng.random() >= _CUT:
        return image
    level = rng.uniform(0, 0.2) * np.percentile(image[::2, ::2], _BRIGHT_PERCENTILE)
    return np.asarray(np.maximum(image - np.float32(level), 0), np.float32)


def sharpened(image: Image, amount: float) -> Image:
    """Add `amount` times what a Gaussian of 1.3 pixels takes away.

    What falls below 0 is cut off.
    """
    return np.asarray(
        np.maximum(image + amount * (image - gaussian_filter(image, 1.3)), 0), np.float32
    )
