"""Fluorophores that blink: where they sit on a specimen, and how much light each gives in every
frame.

Owns photoswitching. Makes no image: `livesr.optics.psf` spreads the light, `livesr.optics.noise`
counts it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Photoswitching:
    """How every fluorophore switches: off -> on -> off or bleached, all times exponential.

    Attributes
    ----------
    on_frames : mean length of a blink, in camera frames
    off_frames : mean time between two blinks, in camera frames
    bleached_share : probability that a blink is the fluorophore's last
    photons : mean photo-electrons of a fluorophore that is on for a whole frame
    photons_spread : standard deviation of the logarithm of that, from blink to blink

    Notes
    -----
    Continuous-time Markov chain of three states; Dempsey et al. 2011, Nature Methods 8, 1027, for
    the numbers: dyes such as Alexa 647 give some thousand photons a blink at a duty cycle of 0.001
    and less.
    """

    on_frames: float = 1.5
    off_frames: float = 1000.0
    bleached_share: float = 0.0
    photons: float = 1000.0
    photons_spread: float = 0.3

    def __post_init__(self) -> None:
        for name in ("on_frames", "off_frames", "photons"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected above 0")
        if not 0 <= self.bleached_share <= 1:
            raise ValueError(f"bleached_share is {self.bleached_share}, expected 0 to 1")

    @classmethod
    def with_density(
        cls, fluorophores: int, lit: float, on_frames: float = 1.5, **others: float
    ) -> Photoswitching:
        """Return the kinetics under which `lit` of the `fluorophores` are on at a time, until they
        bleach.

        Raises
        ------
        ValueError
            If not fewer are lit than there are.
        """
        if not 0 < lit < fluorophores:
            raise ValueError(
                f"{lit} of {fluorophores} fluorophores cannot be lit at a time; give more"
                " fluorophores"
            )
        return cls(on_frames=on_frames, off_frames=on_frames * (fluorophores - lit) / lit, **others)


@dataclass(frozen=True, slots=True)
class Blinks:
    """Light of every lit fluorophore in every frame, ordered by frame.

    One entry per fluorophore and frame.

    Attributes
    ----------
    frame : int64, counted from 0
    fluorophore : int64, which one
    photons : float64, expected photo-electrons in this frame
    """

    frame: NDArray[np.int64]
    fluorophore: NDArray[np.int64]
    photons: Floats

    def of_frame(self, frame: int) -> slice:
        """Return where the entries of `frame` lie."""
        first, last = np.searchsorted(self.frame, (frame, frame + 1))
        return slice(int(first), int(last))


def blink(
    fluorophores: int, frames: int, switching: Photoswitching, rng: np.random.Generator
) -> Blinks:
    """Let `fluorophores` switch for `frames` frames, from the steady state on.

    A blink that fills a part of a frame only gives that part of its light there.
    """
    which, start, end = _intervals(fluorophores, float(frames), switching, rng)
    rate = switching.photons * np.exp(
        switching.photons_spread * rng.standard_normal(len(which)) - switching.photons_spread**2 / 2
    )
    first = np.floor(start).astype(np.int64)
    spans = np.minimum(np.ceil(end).astype(np.int64), frames) - first
    entry = np.repeat(np.arange(len(which)), spans)
    frame = first[entry] + np.arange(len(entry)) - np.repeat(np.cumsum(spans) - spans, spans)
    share = np.minimum(end[entry], frame + 1) - np.maximum(start[entry], frame)
    order = np.argsort(frame, kind="stable")
    return Blinks(frame[order], which[entry][order], (rate[entry] * share)[order])


def place_on(
    density: NDArray[np.float32], pixel_size_um: float, fluorophores: int, rng: np.random.Generator
) -> Floats:
    """Draw the positions of `fluorophores`, float64 (n, 2) as (y, x) in um, from a density on a
    grid.

    The centre of the grid's pixel (0, 0) lies at (0, 0). Within a pixel all places are equally
    likely.
    """
    weight = np.maximum(density, 0).ravel().astype(np.float64)
    pixel = rng.choice(weight.size, fluorophores, p=weight / weight.sum())
    corner = np.stack(np.unravel_index(pixel, density.shape), axis=1)
    return (corner + rng.uniform(-0.5, 0.5, (fluorophores, 2))) * pixel_size_um


def _intervals(
    fluorophores: int, length: float, switching: Photoswitching, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return fluorophore, start and end of every blink within (0, length), in frames."""
    on, off = switching.on_frames, switching.off_frames
    alive, now = np.arange(fluorophores), np.zeros(fluorophores)
    lit = rng.random(fluorophores) < on / (on + off)
    found: list[tuple[NDArray[np.int64], Floats, Floats]] = []
    while len(alive):
        # Exponential times have no memory: what is lit at the start stays lit as long as if it had
        # just been switched on.
        start = now + np.where(lit, 0.0, rng.exponential(off, len(alive)))
        seen = start < length
        alive, start = alive[seen], start[seen]
        now = start + rng.exponential(on, len(alive))
        found.append((alive, start, np.minimum(now, length)))
        lasts = (rng.random(len(alive)) >= switching.bleached_share) & (now < length)
        alive, now = alive[lasts], now[lasts]
        lit = np.zeros(len(alive), bool)
    which, start, end = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return which, start, end
