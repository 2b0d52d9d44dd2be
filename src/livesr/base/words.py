"""Numbers as sentences have them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby


def counted(n: int, what: str) -> str:
    """Return how many of something: "1 plane", "3 planes"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def spans(numbers: Iterable[int]) -> list[str]:
    """Return whole numbers as "0-15" or "31", in their order."""
    ordered = sorted(set(numbers))
    runs = (list(run) for _, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0]))
    return [f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs]
