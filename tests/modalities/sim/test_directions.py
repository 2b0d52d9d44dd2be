"""Frames that show several directions at once are never trusted as those of one angle."""

from __future__ import annotations

import numpy as np
import pytest

from livesr.modalities.sim.directions import SEVERAL
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.optics.illumination import Pattern
from livesr.optics.otf import otf

SHAPE, PIXEL_UM, NA, EMISSION_UM = (128, 128), 0.065, 1.49, 0.525
DIRECTIONS = (0.2, 0.2 + np.pi / 3, 0.2 + 2 * np.pi / 3)


def frames(directions: int) -> np.ndarray:
    """Seven frames under one to three waves at once, each with its own phase step."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * PIXEL_UM
    cell = 5000.0 * (rng.random(SHAPE) > 0.97)
    seen = []
    for i in range(7):
        light = np.ones(SHAPE)
        for turns, a in zip((1, 2, 4), DIRECTIONS[:directions], strict=False):
            k = 2 * np.pi * 4.2 * (y * np.sin(a) + x * np.cos(a))
            light += 0.8 / directions * np.cos(k + 2 * np.pi * turns * i / 7)
        response = otf(SHAPE, PIXEL_UM, NA, EMISSION_UM)
        blurred = np.fft.ifft2(np.fft.fft2(cell * light) * response).real
        seen.append(rng.poisson(np.maximum(blurred, 0) + 20) + 100)
    return np.asarray(seen, np.uint16)


@pytest.mark.parametrize(("directions", "cause"), [(1, ""), (3, SEVERAL)])
def test_only_frames_of_one_direction_are_trusted_as_one_angle(directions, cause) -> None:
    pattern = Pattern(
        (4.2 * np.sin(DIRECTIONS[0]), 4.2 * np.cos(DIRECTIONS[0])), 0.0, 0.8 / directions
    )
    order = [(0, phase) for phase in range(7)]
    given = SIMParameters(SHAPE, PIXEL_UM, NA, EMISSION_UM, order=order)
    sim = SIMReconstructor(given, [pattern], QualityLimits())
    raw = frames(directions)
    for _ in range(2):  # every frame, not the first alone
        sim.reconstruct(raw)
        assert sim.quality is not None
        assert sim.quality.cause == cause
        assert sim.quality.resolved is not bool(cause)
