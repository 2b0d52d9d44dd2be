#!/usr/bin/env python
"""How much light out of focus `sim.sectioning` takes out, beside plain SIM and Neil's method.

Prints the table of docs/guide.md and draws its picture::

    python scripts/sectioning.py [PICTURE.png] [pixels a side, 256]

Filaments in focus, and ten planes of three times as bright ones 1 to 3 um above and below, each
imaged by the scalar point spread function of its defocus under two-beam patterns, which are the
same in every plane; shot noise. Reconstruction is linear, so that what it makes of the planes out
of focus alone is what it leaves of them in the picture of all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.optics.illumination import Pattern, equal_steps

NA, EMISSION_UM, IMMERSION, PIXEL_UM = 1.49, 0.525, 1.515, 0.065
DEFOCUS_UM = (-3, -2.5, -2, -1.5, -1, 1, 1.5, 2, 2.5, 3)
FILAMENTS, OUT_OF_FOCUS, ELECTRONS, SHOWN = 25, 3.0, 150.0, 160
Float = NDArray[np.float32]


def filaments(size: int, seed: int) -> NDArray[np.float64]:
    """Return curved lines on a grid of `size`."""
    rng, drawn = np.random.default_rng(seed), np.zeros((size, size))
    for _ in range(FILAMENTS):
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.02, 1200))
        way = rng.uniform(0, size, 2) + 0.5 * np.cumsum(
            np.stack([np.sin(turns), np.cos(turns)], -1), 0
        )
        places = np.round(way).astype(int)
        inside = ((places >= 0) & (places < size)).all(1)
        np.add.at(drawn, tuple(places[inside].T), 1)
    return drawn


class Microscope:
    """Two-beam patterns of `part` of the cutoff, and a point spread function at every depth."""

    def __init__(self, size: int, part: float) -> None:
        self._n, fine_um = 2 * size, PIXEL_UM / 2
        f = np.fft.fftfreq(self._n, fine_um)
        radial = np.hypot(f[:, None], f)
        self._pupil = radial <= NA / EMISSION_UM
        self._axial = np.sqrt(np.maximum((IMMERSION / EMISSION_UM) ** 2 - radial**2, 0))
        self._y, self._x = (np.arange(self._n) * fine_um)[:, None], np.arange(self._n) * fine_um
        k = part * 2 * NA / EMISSION_UM
        turns = np.radians((14.0, 74.0, 134.0))
        self.patterns = [Pattern((k * np.sin(a), k * np.cos(a)), 0.3 + a, 0.7) for a in turns]

    def frames(self, planes: dict[float, NDArray[np.float64]]) -> Float:
        """Return expected raw frames (9, y, x) in electrons of planes by their defocus in um."""
        transfer = {z: self._transfer(z) for z in planes}
        made = []
        for pattern in self.patterns:
            for step in equal_steps(3):
                turns = pattern.k_um[0] * self._y + pattern.k_um[1] * self._x
                light = 1 + pattern.modulation * np.cos(
                    2 * np.pi * turns + pattern.phase_rad + step
                )
                seen = sum(scipy.fft.rfft2(o * light) * transfer[z] for z, o in planes.items())
                made.append(scipy.fft.irfft2(seen)[::2, ::2])
        return np.asarray(ELECTRONS * np.stack(made), np.float32)

    def _transfer(self, z_um: float) -> NDArray[np.complex128]:
        field = scipy.fft.ifft2(self._pupil * np.exp(2j * np.pi * self._axial * z_um))
        spread = np.abs(field) ** 2
        return np.asarray(scipy.fft.rfft2(spread / spread.sum()))


def neil(frames: Float) -> Float:
    """Neil, Juskaitis & Wilson 1997, eq. 2: root of the squared differences, averaged over angles.

    Scaled to the amplitude of the modulated light.
    """
    a, b, c = frames.reshape(3, 3, *frames.shape[1:]).transpose(1, 0, 2, 3)
    squares = (a - b) ** 2 + (b - c) ** 2 + (a - c) ** 2
    return np.asarray(np.sqrt(2 * squares).mean(0) / 3)


def pcc(one: Float, other: Float) -> float:
    """Pearson's correlation."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def main() -> None:
    """Print the table, and draw the pictures of the middle pattern."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    focus = {0.0: filaments(2 * size, 1)}
    haze = {float(z): OUT_OF_FOCUS * filaments(2 * size, 10 + i) for i, z in enumerate(DEFOCUS_UM)}
    print("| pattern, of the cutoff | picture | haze left | haze / focus, rms | noise | PCC |")
    print("|---|---|---|---|---|---|")
    for part in (0.5, 0.7, 0.9):
        scope = Microscope(size, part)
        light = [scope.frames(planes) for planes in (focus, haze)]
        taken = np.random.default_rng(0).poisson(np.maximum(sum(light), 0)).astype(np.float32)
        panels = {"widefield": taken.mean(0).repeat(2, 0).repeat(2, 1)}
        truth: Float | None = None
        for name, sectioned in (("plain", False), ("sectioning", True)):
            made = SIMReconstructor(
                SIMParameters(
                    (size, size), PIXEL_UM, NA, EMISSION_UM,
                    offset_adu=0.0, equalise=False, taper=0.0, sectioning=sectioned,
                ),
                scope.patterns,
            )  # fmt: skip
            sharp, blurred, shown = (np.array(made.reconstruct(f)) for f in (*light, taken))
            truth = sharp if truth is None else truth
            left, ratio = blurred.mean() / light[1].mean(), blurred.std() / sharp.std()
            noise = (shown - sharp - blurred).std()
            print(
                f"| {part} | {name} | {left:.2f} | {ratio:.2f} | {noise:.1f}"
                f" | {pcc(shown, truth):.3f} |"
            )
            panels[name] = shown
        assert truth is not None
        section, coarse = neil(taken), truth[::2, ::2]
        print(f"| {part} | Neil 1997 | | | | {pcc(section, coarse):.3f} |")
        panels |= {"Neil 1997": section.repeat(2, 0).repeat(2, 1), "in focus alone": truth}
        if file and part == 0.7:
            draw(panels, size, file)


def draw(panels: dict[str, Float], size: int, file: Path) -> None:
    """Draw parts of pictures side by side, each from its 1st to its 99.7th percentile."""
    strip = Image.new("L", (SHOWN * 2 * len(panels), 2 * SHOWN + 18), 0)
    pen = ImageDraw.Draw(strip)
    for i, (name, picture) in enumerate(panels.items()):
        part = picture[size : size + SHOWN, size - SHOWN : size]
        low, high = np.percentile(part, (1, 99.7))
        grey = np.clip((part - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        strip.paste(Image.fromarray(grey).resize((2 * SHOWN - 4, 2 * SHOWN)), (2 * SHOWN * i, 18))
        pen.text((2 * SHOWN * i + 4, 3), name, fill=255)
    strip.save(file, optimize=True)


if __name__ == "__main__":
    main()
