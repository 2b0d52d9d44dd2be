"""A whole cell: several structures that share an outline, a clock and one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.specimens.actin import Actin
from livesr.simulation.specimens.lysosomes import Lysosomes
from livesr.simulation.specimens.microtubules import Microtubules
from livesr.simulation.specimens.mitochondria import Mitochondria
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.pits import CoatedPits
from livesr.simulation.specimens.reticulum import EndoplasmicReticulum
from livesr.simulation.specimens.structure import (
    Structure,
    StructureParameters,
    check_grid,
    require,
)

Image = NDArray[np.float32]

STRUCTURES: dict[str, type[Structure]] = {
    "microtubules": Microtubules,
    "er": EndoplasmicReticulum,
    "lysosomes": Lysosomes,
    "ccps": CoatedPits,
    "mitochondria": Mitochondria,
    "actin": Actin,
}
"""Every structure that can be simulated.

Add new ones at the end, so that the seeds of the others stay the same.
"""

DEFAULT_STRUCTURES = ("microtubules", "er", "lysosomes")


def simulated(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the names in `STRUCTURES` of an engine's channels; () unless all can be simulated."""
    names = tuple(label.casefold() for label in labels)
    return names if STRUCTURES.keys() >= set(names) else ()


class Cell:
    """A moving cell, seen through one field.

    Parameters
    ----------
    shape : (int, int)
        Grid (y, x) in pixels.
    pixel_size_um : float
        Pixel size of the grid.
    seed : int or numpy.random.SeedSequence
        The same seed gives the same pixels, now and after the same calls of `advance`. A structure
        looks the same whichever others are there (lysosomes need the microtubules to run on).
    structures : iterable of str
        Names from `STRUCTURES`.
    parameters : mapping of str to StructureParameters, optional
        By name; the defaults make a handsome, typical cell.
    outline : CellOutline, "typical" or None
        The cell's shape; None for a cell larger than the field.

    Attributes
    ----------
    structures : dict of str to Structure
    outline : CellOutline or None

    Raises
    ------
    ValueError
        For an unknown structure, parameters of the wrong kind, or a senseless grid.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        seed: int | np.random.SeedSequence = 0,
        structures: Iterable[str] = DEFAULT_STRUCTURES,
        parameters: Mapping[str, StructureParameters] | None = None,
        outline: CellOutline | str | None = "typical",
    ) -> None:
        names, given = tuple(structures), dict(parameters or {})
        _check_names(names, given)
        check_grid(shape, pixel_size_um)
        if isinstance(outline, str):
            require(
                outline == "typical",
                f"outline must be a CellOutline, 'typical' or None, got {outline!r}",
            )
            outline = CellOutline.typical((shape[0] * pixel_size_um, shape[1] * pixel_size_um))
        self.outline = outline
        self.structures: dict[str, Structure] = {}
        root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        # One child for every structure there is, wanted or not.
        for name, child in zip(STRUCTURES, _children(root, len(STRUCTURES)), strict=True):
            if name in names:
                extra: dict[str, Any] = {"parameters": given[name]} if name in given else {}
                if name == "lysosomes":
                    extra["microtubules"] = self.structures.get("microtubules")
                build: Callable[..., Structure] = STRUCTURES[name]
                self.structures[name] = build(
                    shape, pixel_size_um, np.random.default_rng(child), outline=outline, **extra
                )

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        shape: tuple[int, int],
        pixel_size_um: float,
        structures: Iterable[str] = DEFAULT_STRUCTURES,
    ) -> Self:
        """Draw a cell for training.

        Sparse or dense, straight or bent, sharp or hazy, with or without an edge.
        """
        names = tuple(structures)
        _check_names(names, {})
        seed = np.random.SeedSequence(int(rng.integers(2**63)))
        parameters = {name: STRUCTURES[name].Parameters.random(rng) for name in names}
        outline = None
        if rng.random() < 0.7:
            outline = CellOutline.random(rng, (shape[0] * pixel_size_um, shape[1] * pixel_size_um))
        return cls(shape, pixel_size_um, seed, names, parameters, outline)

    def advance(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass for every structure; tracks move before what runs on them."""
        for structure in self.structures.values():
            structure.advance(dt_s)

    def render(self) -> dict[str, Image]:
        """Return the fluorophore density in focus of each structure, float32 (y, x).

        The caller owns them.
        """
        return {name: structure.render() for name, structure in self.structures.items()}

    def render_haze(self) -> dict[str, Image]:
        """Return the light from far out of focus of each structure, float32 (y, x), on the scale of
        `render`.
        """
        return {name: structure.render_haze() for name, structure in self.structures.items()}


def _children(root: np.random.SeedSequence, count: int) -> list[np.random.SeedSequence]:
    """Spawn without counting, so that a SeedSequence used twice gives the same cell twice."""
    fresh = np.random.SeedSequence(root.entropy, spawn_key=root.spawn_key, pool_size=root.pool_size)
    return fresh.spawn(count)


def _check_names(names: tuple[str, ...], parameters: dict[str, StructureParameters]) -> None:
    require(
        len(names) > 0, f"a cell needs at least one structure; known are {', '.join(STRUCTURES)}"
    )
    for name in (*names, *parameters):
        require(
            name in STRUCTURES, f"unknown structure {name!r}; known are {', '.join(STRUCTURES)}"
        )
    for name, given in parameters.items():
        kind = STRUCTURES[name].Parameters
        require(
            isinstance(given, kind), f"{name} takes {kind.__name__}, got {type(given).__name__}"
        )
