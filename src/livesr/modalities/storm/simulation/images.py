"""Drawn STORM images of static cells, to train upscaling on.

Owns how localisations are scattered and drawn. Image formation by a camera is `rig.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, gaussian_filter

from livesr.simulation.domain import Domain, Draw, draw_brightness
from livesr.simulation.specimens import Cell

Image = NDArray[np.float32]

_ADU = 1000.0


def draw_image(entropy: Sequence[int], size: int, domain: Domain) -> Image:
    """Draw a STORM image (size, size) that `entropy` determines, see `localisation_image`."""
    return localisation_image(np.random.default_rng(tuple(entropy)), size, domain)


def localisation_image(rng: np.random.Generator, size: int, domain: Domain) -> Image:
    """Draw a STORM image (size, size).

    Fluorophores that blink several times, found scattered, and drawn.

    From single grains, as at a run's beginning, to filled filaments, as dense labelling and long
    acquisitions leave them: 3 to 300 localisations a bright pixel, 1 to 10 of each fluorophore,
    with a precision of 0.4 to 1.5 pixels of 0.4 to 1.2 of the domain's. They are drawn as Gaussians
    of their precision or as an averaged shifted histogram, and one image in three is cut below a
    black level and has 8 bits, as images that were made to be looked at. Structures are as bright,
    or missing, as `domain` says. ADU like those of a camera, background 0.
    """
    draw = Draw(rng)
    pixel_um = domain.pixel_size_um / 2 * draw.log_uniform((0.4, 1.2))
    parts = Cell.random(rng, (size, size), pixel_um, structures=domain.structures).render()
    brightness = draw_brightness(draw, domain)
    density = np.sum([brightness[name] * part for name, part in parts.items()], axis=0)
    grains, blinks, sigma_px = (
        draw.log_uniform((0.2, 10.0)),
        draw.log_uniform((1.0, 10.0)),
        draw.uniform((0.4, 1.5)),
    )
    fluorophores = rng.poisson(np.maximum(density, 0) * grains / blinks) * blinks
    found = rng.poisson(gaussian_filter(fluorophores, sigma_px)).astype(np.float32)
    smooth = rng.random() < 0.5
    image = (
        gaussian_filter(found, sigma_px)
        if smooth
        else shifted_histogram(found, int(rng.integers(2, 5)))
    )
    image *= np.float32(_ADU / grains)
    return _for_display(draw, image) if rng.random() < 1 / 3 else image


def shifted_histogram(found: Image, shifts: int) -> Image:
    """Return the average of `shifts` x `shifts` histograms with pixels as many times larger.

    A triangle along each axis.
    """
    line = np.minimum(np.arange(1, 2 * shifts), np.arange(2 * shifts - 1, 0, -1)) / shifts**2
    return np.asarray(
        convolve1d(convolve1d(found, line, 0, mode="constant"), line, 1, mode="constant"),
        np.float32,
    )


def _for_display(draw: Draw, image: Image) -> Image:
    """Return (y, x) with 8 bits, nothing below a black level and the brightest pixels saturated."""
    white = max(float(np.percentile(image, draw.uniform((99.5, 100.0)))), 1e-6)
    levels = np.round(np.minimum(image / white, 1) * 255)
    levels[levels < draw.log_uniform((1.0, 12.0))] = 0
    return np.asarray(levels * (white / 255), np.float32)
