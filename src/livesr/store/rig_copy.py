"""The rig.yaml that lies in a store, and what the run kept of it beside its copies of the metadata.

Owns whether it ends before the run's own did: half a rig.yaml may well be one, of another
microscope. One that somebody changed, or put in its place, is no matter of this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from livesr.base import contained
from livesr.base.documents import read_text
from livesr.base.errors import DocumentError, StoreError
from livesr.formats import layout
from livesr.formats.store import read_json


class CutOff(NamedTuple):
    """A rig.yaml that ends early, or is gone.

    Attributes
    ----------
    whole : what the run wrote
    says : what is wrong, in a sentence
    """

    whole: str
    says: str


def cut_off(store: Path) -> CutOff | None:
    """Return what the store's rig.yaml lacks at its end; None where nothing does, where it is
    another, and of stores whose run kept none of it.
    """
    file = contained.beneath(store, layout.RIG)
    try:
        whole = read_json(store / layout.IMAGES).get("rig")
    except StoreError:
        return None
    if not isinstance(whole, str):
        return None
    try:
        # A letter of several bytes may be cut in its middle.
        there = read_text(file, errors="ignore") if file.is_file() else ""
    except DocumentError:  # whoever reads it says why
        return None
    if there.rstrip() == whole.rstrip() or not whole.startswith(there):
        return None
    end = f"ends after {len(there)} of {len(whole)} characters" if there else "is gone or empty"
    return CutOff(whole, f"{file} {end}, and the run kept a copy.")
