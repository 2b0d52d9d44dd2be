"""Simulated time lapses with truth, for training and for evaluation: what each modality draws.

Owns what a time lapse answers to and the choice of the modality that draws it. Image formation is
the modality's own; the ranges are `livesr.simulation.domain`'s, cells those of `specimens`.

Training and evaluation draw from the same ranges and never the same cells: an evaluation's entropy
begins with `EVALUATION`, which is the seed of no recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.live.reconstruct.reconstructor import Reconstructor
from livesr.modalities.registry import installed, modality
from livesr.simulation.domain import Domain

Image = NDArray[np.float32]
EVALUATION = 0x6C697665_5372
"""First number of an evaluation's seeds: sets them apart from all others."""

MARGIN_PX = 16
"""Camera pixels simulated beyond each edge: a cell does not end where the camera does."""


class SimulatedSequence(Protocol):
    """One moving cell under one drawn rig.

    Raw frames of all or some of its structures, and the truth of each.

    Attributes
    ----------
    n_t : time points
    structures : what the cell may have, in the order of the domain
    pixel_size_um : of the camera
    photons : photo-electrons of the bright parts in one raw frame
    offset_adu : level of the camera's dark frame
    """

    n_t: int
    structures: tuple[str, ...]
    pixel_size_um: float
    photons: float

    @property
    def offset_adu(self) -> float:
        """As above."""

    def relit(self, entropy: Sequence[int], domain: Domain | None = None) -> SimulatedSequence:
        """Return the same cell under another rig and light, on the same pixels."""

    @property
    def reconstructor(self) -> Reconstructor:
        """For these raw frames, with a calibration that is as wrong as the domain allows."""

    @property
    def present(self) -> tuple[str, ...]:
        """Structures that the cell was drawn with."""

    @property
    def brightness(self) -> dict[str, float]:
        """Each structure's staining relative to the brightest one's; 0 for one that is missing."""

    def raw(
        self, visible: Iterable[str] | None = None, n_t: int | None = None
    ) -> NDArray[np.uint16]:
        """Return noisy raw frames (t, n, y, x) in ADU of the structures in `visible`, all if None.

        `n_t` shortens the time lapse.
        """

    def truth(self, t: int) -> dict[str, Image]:
        """Return the noise-free reconstruction of each structure alone, ADU, not negative."""

    def passband(self, t: int) -> dict[str, Image]:
        """Return each structure alone at the passband of the ideal method, ADU."""


class DrawSequence(Protocol):
    """What draws a time lapse: a class, or a function."""

    def __call__(
        self,
        entropy: Sequence[int],
        n_t: int,
        size: int,
        domain: Domain | None = None,
        *,
        margin_px: int = MARGIN_PX,
    ) -> SimulatedSequence:
        """Draw `n_t` time points with reconstructions of `size` pixels a side.

        `entropy` are the numbers that determine everything.
        """


DrawImage = Callable[[Sequence[int], int, Domain], Image]
"""(entropy, side in pixels, domain) to one picture of a static cell, ADU, float32 (y, x)."""


class Sequences(NamedTuple):
    """What draws the time lapses of a modality, and what its name is in a sentence."""

    modality: str
    title: str
    draw: DrawSequence


def sequences_of(modalities: Iterable[str] = ()) -> Sequences:
    """Return what draws time lapses: the first of `modalities` that can, the first of all without.

    An engine's manifest names its modalities; the cells are the same for all of them.

    Raises
    ------
    ConfigError
        If no modality that is installed can.
    """
    able = {
        way.name: Sequences(way.name, way.title, draw)
        for way in installed()
        if (draw := way.draw_sequence) is not None
    }
    if not able:
        raise ConfigError("None of the modalities that are installed can simulate a time lapse.")
    return next((able[name] for name in modalities if name in able), next(iter(able.values())))


def default_modality() -> str:
    """Return the modality that simulated data are of where nobody says."""
    return sequences_of().modality


def simulating_rig(modality_name: str = "") -> str:
    """Return the rig, by its name in hardware_configs, that simulates a modality.

    The default one's where that modality has none.
    """
    named = modality(modality_name or default_modality()).virtual_rig
    return named or modality(default_modality()).virtual_rig


def drawable() -> list[str]:
    """Return the modalities of which single pictures can be drawn."""
    return [m.name for m in installed() if m.draw_image or m.draw_sequence]


def image_drawing_of(name: str) -> DrawImage | None:
    """Return what draws single pictures of a modality.

    None where they are frames of its time lapses.

    Raises
    ------
    ConfigError
        If there is no such modality.
    """
    draw: DrawImage | None = modality(name).draw_image
    return draw
