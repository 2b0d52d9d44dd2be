"""How time, memory and latency go with the number of acquisition channels, from 1 to 4.

Each is a SIM stream of its own.
"""

from __future__ import annotations

from livesr.bench.result import Result
from livesr.bench.scaling.point import point

_MAX_CHANNELS = 4


def measure(quick: bool) -> list[Result]:
    """Return processor time, latency and memory of a SIM run with each number of channels."""
    side, time_points = (64, 4) if quick else (256, 30)
    numbers = (1, 2) if quick else range(1, _MAX_CHANNELS + 1)
    return [
        result for n in numbers for result in point("scaling.channels", n, side, n, time_points)
    ]
