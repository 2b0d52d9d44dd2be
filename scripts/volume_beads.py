#!/usr/bin/env python
"""What `livesr process --volume` gains, on simulated stacks whose truth is known.

Prints the table of docs/guide.md and draws its picture::

    python scripts/volume_beads.py [PICTURE.png]

Lone beads for their widths, and a thick crowd of beads for Pearson's correlation with the truth,
blurred to 110 nm and 330 nm. Three beams at 3 x 5 patterns, computed plane by plane
(`livesr.modalities.sim.simulation.stack`), shot noise. Slices are reconstructed with the patterns
that the stack as a whole has.

A second table has what is measured of the patterns in stacks that end within the specimen, along
all axes.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.stack import three_beam_stack
from livesr.modalities.sim.volume import Axial, ThreeBeamVolume
from livesr.optics.illumination import Pattern

PLANES, SIDE, RIM = 20, 96, 45
Z_STEP_UM, PIXEL_UM, K_UM, BACKGROUND = 0.125, 0.08, 2.457, 5.0
AXIAL = Axial(Z_STEP_UM, 1.515, 0.488)
OPTICS = SIMParameters(
    (SIDE, SIDE), PIXEL_UM, 1.42, 0.528, offset_adu=BACKGROUND,
    order=[(angle, phase) for angle in range(3) for phase in range(5)],
)  # fmt: skip
LONE = ((10, 64, 70), (6, 76, 120), (13, 110, 78), (10, 124, 118), (8, 96, 96))
Volume = NDArray[np.float64]


def patterns() -> list[Pattern]:
    """Return three directions of three beams."""
    turns = np.radians((46.1, 106.3, -13.7))
    waves = ((K_UM * np.sin(a), K_UM * np.cos(a)) for a in turns)
    return [Pattern(k, 0.4, 1.0, ((0.8, 1.0),)) for k in waves]


def reconstructed(density: Volume) -> dict[str, NDArray[np.float32]]:
    """Return a specimen as widefield, slice by slice and as a whole, (z, 2y, 2x)."""
    expected = three_beam_stack(density, OPTICS, AXIAL, patterns())
    raw = np.random.default_rng(0).poisson(np.maximum(expected, 0) + BACKGROUND)
    volume = ThreeBeamVolume(OPTICS, patterns(), AXIAL, PLANES)
    begun_s = time.perf_counter()
    whole = volume.reconstruct(raw)
    took_s, about = time.perf_counter() - begun_s, volume.memory_bytes / 1e6
    print(f"{PLANES} x 15 x {SIDE}^2: {took_s:.1f} s, {about:.0f} MB", file=sys.stderr)
    measured = [
        replace(
            pattern,
            phase_rad=float(np.angle(first.strength)),
            modulation=min(1.0, 2 * abs(first.strength)),
            overtones=((float(np.angle(second.strength)), 2 * abs(second.strength)),),
        )
        for pattern, (first, second) in zip(patterns(), volume.orders, strict=True)
    ]
    one = SIMReconstructor(OPTICS, measured)
    slices = np.stack([np.array(one.reconstruct(plane)) for plane in raw])
    blurred = scipy.ndimage.zoom(raw.mean(1) - BACKGROUND, (1, 2, 2), order=1, grid_mode=False)
    return {"widefield": blurred.astype(np.float32), "slices": slices, "volume": whole}


def width(profile: NDArray[np.floating], step: float) -> float:
    """Return the width at half of the highest value."""
    fine = np.linspace(0, len(profile) - 1, 100 * len(profile))
    values = np.interp(fine, np.arange(len(profile)), profile)
    top, half = int(values.argmax()), values.max() / 2
    left = top - int(np.argmax(values[top::-1] < half))
    right = top + int(np.argmax(values[top:] < half))
    return float((fine[right] - fine[left]) * step)


def main() -> None:
    """Print the table, and draw the crowd."""
    shape = PLANES, 2 * SIDE, 2 * SIDE
    lone, crowd = np.zeros(shape), np.zeros(shape)
    lone[tuple(np.transpose(LONE))] = 5e4
    ends = (PLANES - 2, 2 * SIDE - RIM, 2 * SIDE - RIM)
    places = np.random.default_rng(3).integers((2, RIM, RIM), ends, (3000, 3))
    np.add.at(crowd, tuple(places.T), 600.0)
    sharp = scipy.ndimage.gaussian_filter(crowd, (1.12, 1.17, 1.17))
    inside = (slice(1, -1), slice(RIM, -RIM), slice(RIM, -RIM))
    alone, together = reconstructed(lone), reconstructed(crowd)
    print("| picture | bead along x, nm | along z, nm | PCC of a thick specimen |")
    print("|---|---|---|---|")
    for name, made in alone.items():
        across = [width(made[z, y], 1e3 * PIXEL_UM / 2) for z, y, _ in LONE]
        along = [width(made[:, y, x], 1e3 * Z_STEP_UM) for _, y, x in LONE]
        found = np.corrcoef(together[name][inside].ravel(), sharp[inside].ravel())[0, 1]
        print(f"| {name} | {np.mean(across):.0f} | {np.mean(along):.0f} | {found:.3f} |")
    cut_out()
    if len(sys.argv) > 1:
        draw({**together, "truth": sharp}, Path(sys.argv[1]))


def cut_out() -> None:
    """Print the patterns that stacks out of a specimen without an end along y and x show."""
    field, part, planes = 112, slice(24, 88), 30
    density = np.zeros((planes, 2 * field, 2 * field))
    places = np.random.default_rng(3).integers((4, 0, 0), (26, *density.shape[1:]), (20000, 3))
    np.add.at(density, tuple(places.T), 50.0)
    optics = replace(OPTICS, shape=(field, field))
    seen = three_beam_stack(density, optics, AXIAL, patterns())[:, :, part, part]
    sharp = scipy.ndimage.gaussian_filter(density, (1.12, 1.17, 1.17))[:, 48:176, 48:176]
    raw = np.random.default_rng(0).poisson(np.maximum(300 / seen.mean() * seen, 0) + BACKGROUND)
    print("\n| stack | periods, nm | first order | second order | PCC |\n|---|---|---|---|---|")
    print(f"| truth | {500 / K_UM:.1f} | {4 / 3:.2f} | {2 / 3:.2f} | |")
    for name, along in (
        ("all planes", slice(0, 30)),
        ("20 of 30", slice(5, 25)),
        ("9 of 30", slice(10, 19)),
    ):
        volume = ThreeBeamVolume(
            replace(OPTICS, shape=(64, 64)), patterns(), AXIAL, len(raw[along])
        )
        made = volume.reconstruct(raw[along])
        periods = [500 / np.hypot(*first.k_um) for first, _ in volume.orders]
        both = 2 * np.abs([[order.strength for order in orders] for orders in volume.orders])
        inside = (slice(2, -2), slice(12, -12), slice(12, -12))
        found = np.corrcoef(made[inside].ravel(), sharp[along][inside].ravel())[0, 1]
        print(
            f"| {name} | {min(periods):.1f} to {max(periods):.1f} |"
            f" {' | '.join(f'{m:.2f}' for m in both.mean(0))} | {found:.3f} |"
        )


def draw(panels: dict[str, NDArray[np.floating]], file: Path) -> None:
    """Draw a plane of each above a section along z."""
    side, scale = 2 * SIDE - 2 * RIM, 3
    deep = round(PLANES * Z_STEP_UM / (PIXEL_UM / 2)) * scale
    strip = Image.new("L", ((side * scale + 6) * len(panels), 20 + side * scale + 6 + deep))
    pen = ImageDraw.Draw(strip)
    for i, (name, made) in enumerate(panels.items()):
        part = made[:, RIM:-RIM, RIM:-RIM]
        low, high = np.percentile(part, (1, 99.8))
        grey = (np.clip((part - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        left, size = i * (side * scale + 6), (side * scale, side * scale)
        strip.paste(Image.fromarray(grey[PLANES // 2]).resize(size), (left, 20))
        section = Image.fromarray(grey[:, side // 2]).resize((side * scale, deep))
        strip.paste(section, (left, 26 + side * scale))
        pen.text((left + 4, 4), name, fill=255)
    strip.save(file, optimize=True)


if __name__ == "__main__":
    main()
