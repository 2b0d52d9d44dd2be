#!/usr/bin/env python
"""Compare what fluctuations show with the true structure, at three densities of lit fluorophores.

Beside it the mean frame, and STORM's localisation of the same frames. Prints the table of
docs/guide.md::

    python scripts/fluctuation_quality.py [pixels a side, 96] [frames, 1000]

PCC is with the fluorophores, blurred by 30 nm, on each image's own grid. FRC is between images of
the even and the odd groups of 100 frames (threshold 1/7); what both have from the camera's pixels
correlates as well, so that it flatters eSRRF.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from threadpoolctl import threadpool_limits

from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import RawStack, Stream
from livesr.base.geometry import Geometry
from livesr.evaluation.resolution import frc_resolution
from livesr.modalities.fluctuation.bench import structure
from livesr.modalities.fluctuation.simulation import fluctuating_bank
from livesr.modalities.registry import modality
from livesr.optics.similarity import pcc

EVERY, TRUTH_NM, MARGIN_PX = 100, 30.0, 8
LIT = (0.01, 0.05, 0.2)
ESRRF: dict[str, Any] = {"every": EVERY, "window": None, "drift_correction": False}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "eSRRF, average": ("fluctuation", ESRRF),
    "eSRRF, variance": ("fluctuation", {**ESRRF, "temporal": "variance"}),
    "SOFI 2": ("fluctuation", {**ESRRF, "method": "sofi", "order": 2}),
    "SOFI 3": ("fluctuation", {**ESRRF, "method": "sofi", "order": 3}),
    "SOFI 4": ("fluctuation", {**ESRRF, "method": "sofi", "order": 4}),
    "STORM": ("storm", {"frames": EVERY, "pixel_size_nm": 27.0, "drift_correction": False}),
}
Image = NDArray[np.floating[Any]]


def images(rig: RigConfig, name: str, settings: dict[str, Any], frames: Image) -> list[Image]:
    """Return the image of all groups, of the even, and of the odd ones."""
    way = modality(name)
    used = rig.with_section(way.Section(modality=name, **settings))
    size, pixel_um = frames.shape[1], rig.optics.pixel_size_nm / 1e3
    made = way.build(used, next(iter(rig.channels)), Geometry((size, size), "uint16", pixel_um))
    found = []
    for part in (slice(None), slice(0, None, 2), slice(1, None, 2)):
        running = made.running()
        groups = frames.reshape(-1, EVERY, size, size)[part]
        for t, group in enumerate(groups):
            image = running.add(RawStack(tuple(group), Stream(), t, 0, 0))
        found.append(image)
    return found


def scored(found: list[Image], places_px: Image, size: int, pixel_nm: float) -> tuple[float, float]:
    """Return PCC with the structure, and FRC in nm."""
    scale = round(found[0].shape[0] / size)
    inside = (slice(MARGIN_PX * scale, -MARGIN_PX * scale),) * 2
    truth = structure(places_px, size, scale, TRUTH_NM / pixel_nm)
    return (
        pcc(found[0][inside], truth[inside]),
        frc_resolution(found[1][inside], found[2][inside], pixel_nm / scale),
    )


def enlarged(frames: Image) -> Image:
    """Return the mean frame with four pixels per camera pixel, by splines."""
    return zoom(frames.mean(axis=0), 4, order=3, mode="nearest", grid_mode=True)


def main(size: int = 96, frames: int = 1000) -> None:
    """Print the table."""
    rig = load_rig("virtual_fluctuation")
    pixel_nm = rig.optics.pixel_size_nm
    print("| lit at a time, per um^2 | " + " | ".join(["mean frame", *METHODS]) + " |")
    print("|---" * (len(METHODS) + 2) + "|")
    for lit in LIT:
        bank = fluctuating_bank(rig, size, frames, lit)
        places = bank.positions_um / bank.pixel_size_um
        groups = bank.frames.reshape(-1, EVERY, size, size)
        halves = [bank.frames, np.concatenate(groups[::2]), np.concatenate(groups[1::2])]
        every = [[enlarged(part) for part in halves]]
        every += [images(rig, name, settings, bank.frames) for name, settings in METHODS.values()]
        scores = [scored(found, places, size, pixel_nm) for found in every]
        density = len(places) * lit / (size * pixel_nm / 1e3) ** 2
        cells = [f"{agreement:.2f}, {frc:.0f} nm" for agreement, frc in scores]
        print(f"| {density:.1f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1, "blas"):
        main(*(int(argument) for argument in sys.argv[1:3]))
