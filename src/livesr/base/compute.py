"""How frames are computed, as one frozen object that goes from the command line to the runtime.

Owns the settings. Knows no runtime and no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """What computes the frames of a run.

    Attributes
    ----------
    backend : name of the runtime that runs the engines; "auto" takes the first that can
    precision : what an engine computes in; "auto" leaves it to the runtime
    device : where frames are reconstructed
    threads : of the runtime; 0 leaves the choice to it
    tile : side of the tiles in which an engine sees larger frames, pixels; "auto" takes tiles where
        a frame does not fit the memory
    uncertainty : from which sides of its input that of a prediction is estimated
    residual_plane : whether every frame carries the summation residual as a plane
    """

    backend: str = "auto"
    precision: str = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    tile: int | Literal["auto", "off"] = "auto"
    uncertainty: Literal["flips", "turns"] | None = None
    residual_plane: bool = False
