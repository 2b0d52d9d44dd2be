"""How time, memory and latency go with the side of a raw frame, from 256 to 2048 pixels."""

from __future__ import annotations

from livesr.bench.result import Result
from livesr.bench.scaling.point import point

_SIDES = {256: 30, 512: 16, 1024: 8, 2048: 6}
"""Time points of each side."""


def measure(quick: bool) -> list[Result]:
    """Return processor time, latency and memory of a SIM run at each side."""
    sides = {64: 4, 96: 4} if quick else _SIDES
    return [
        result for side, n in sides.items() for result in point("scaling.size", side, side, 1, n)
    ]
