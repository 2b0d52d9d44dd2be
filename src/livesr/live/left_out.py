"""What of a run is in none of its images, in sentences.

Announced and not delivered, or taken and not placed.

Owns the words, which are the same wherever a run's frames come from. Counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from livesr.base.words import counted

_BESIDE = "where a store is written they are kept beside its images, in livesr/strays"


def left_out(missing: int, repeated: int, unplaced: int, *, running: bool = False) -> Iterator[str]:
    """Say what is left out.

    Parameters
    ----------
    missing : exposures that were announced, numbered or begun as a group, and never came
    repeated : exposures that came twice for one place, or after its group was closed
    unplaced : exposures that have no place in the run
    running : whether the pictures of all channels are made of whatever came, as running images are
    """
    if missing:
        made = (
            "running images are made of those that did"
            if running
            else "groups that lack one are not reconstructed"
        )
        yield (
            f"{counted(missing, 'exposure')} never came: {made}, zeros stand in their place in raw,"
            " and frames.jsonl says where."
        )
    if repeated:
        yield (
            f"{counted(repeated, 'exposure')} came twice for one place, or too late, and are in no"
            f" image: {_BESIDE}. Do several events of the plan have the same index?"
        )
    if unplaced:
        yield (
            f"{counted(unplaced, 'exposure')} had no place in this run (another size, channel,"
            f" position, plane or camera setting): {_BESIDE}."
        )
