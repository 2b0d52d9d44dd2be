"""What the metadata of a chunked array may promise, before anything is allocated or counted for it.

Owns the limits. Opens nothing; knows no codec.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from livesr.base.errors import StoreError

MAX_ALONG_AN_AXIS: Final = 1 << 31
MAX_PIXELS_A_SIDE: Final = 1 << 17
MAX_CHUNK_BYTES: Final = 1 << 30
"""Of what is decoded at once."""

MAX_CHUNKS_IN_A_SHARD: Final = 1 << 20
"""Their index is read as a whole, 16 bytes each."""

FEW_PLANES: Final = 100_000
"""Not worth counting the files for."""

MAX_PLANES_PER_STORED: Final = 1000
"""How many planes an array may promise for each that its files could hold.

One stopped early leaves the rest empty.
"""


def check_array(
    name: str,
    shape: Sequence[int],
    chunk: Sequence[int],
    shard: Sequence[int] | None = None,
    itemsize: int = 2,
) -> None:
    """Refuse an array that would need more than there is before its first pixel is seen.

    Parameters
    ----------
    name : for the sentence
    shape : of the whole; the last two axes are y and x
    chunk : what is decoded at once
    shard : what is in one file, None where that is a chunk
    itemsize : bytes of a value

    Raises
    ------
    StoreError
        With the number that is too large, negative or no number.
    """
    for what, numbers, least in (
        ("shape", shape, 0),
        ("chunk", chunk, 1),
        ("shard", shard or chunk, 1),
    ):
        if len(numbers) != len(shape) or not all(_is_whole(n, least) for n in numbers):
            raise StoreError(
                f"{name} has the {what} {_shown(numbers)}; expected {len(shape)} whole numbers from"
                f" {least} to {MAX_ALONG_AN_AXIS:,}."
            )
    if max(shape[-2:], default=0) > MAX_PIXELS_A_SIDE:
        raise StoreError(
            f"{name} says that its images are {_shown(shape[-2:])}; at most {MAX_PIXELS_A_SIDE}"
            " pixels a side are read."
        )
    if math.prod(chunk) * itemsize > MAX_CHUNK_BYTES:
        raise StoreError(
            f"{name} has chunks of {_shown(chunk)}, {math.prod(chunk) * itemsize:.3g} bytes; at"
            f" most {MAX_CHUNK_BYTES:,} are decoded at once."
        )
    inner = math.prod(-(-s // c) for s, c in zip(shard or chunk, chunk, strict=True))
    if inner > MAX_CHUNKS_IN_A_SHARD:
        raise StoreError(
            f"{name} has {inner:.3g} chunks in a shard; at most {MAX_CHUNKS_IN_A_SHARD:,} are"
            " looked up."
        )


def check_planes(name: str, planes: int, in_a_file: int, files: int) -> None:
    """Refuse an array that promises far more planes than its files can hold.

    To look for them all would take for ever.

    Raises
    ------
    StoreError
        With both numbers.
    """
    could = in_a_file * files
    if planes > max(FEW_PLANES, MAX_PLANES_PER_STORED * could):
        raise StoreError(
            f"{name} promises {planes:,} planes; its {files:,} files can hold {could:,}."
        )


def _is_whole(number: object, least: int) -> bool:
    return (
        isinstance(number, int)
        and not isinstance(number, bool)
        and least <= number <= MAX_ALONG_AN_AXIS
    )


def _shown(numbers: Sequence[object]) -> str:
    return " x ".join(str(n)[:30] for n in numbers)[:200]
