"""Damage to valid bytes, for every reader: refused in a sentence or understood.

`LIVESR_EXAMPLES=5000 pytest tests/fuzz -m "slow or not slow"` tries as many of each, as every
night; the suite tries a few, always the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from fuzz.readers import READERS
from fuzzing import examples

IMAGES = {"tiff", "mrc", "ndtiff"}  # whose libraries take seconds with some of what they refuse
WORDS = (
    b"\0",
    b"\xff",
    b"\n",
    b"-1",
    b"1e308",
    b"NaN",
    b"9" * 30,
    b"[" * 80,
    b"&a [*a]",
    b"../",
    b"\xe2\x80\xa8",
    b"{}",
    b"''",
)


@st.composite
def damaged_bytes(draw: Any, valid: bytes) -> bytes:
    """`valid` with up to three bytes changed, cut out, repeated, or replaced by a word that readers
    stumble over."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 8))
        how = draw(st.sampled_from(["byte", "word", "cut", "again", "end"]))
        if how == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "word":
            data[at : at + draw(st.sampled_from([0, length]))] = draw(st.sampled_from(WORDS))
        elif how == "cut":
            del data[at : at + length]
        elif how == "again":
            data[at:at] = data[at : at + length] * draw(st.sampled_from([1, 100]))
        else:
            del data[at:]
    return bytes(data)


def test_what_the_readers_are_given_is_valid(tmp_path: Path) -> None:
    """Else nothing but the first line of each would ever be reached."""
    for name, reader in READERS.items():
        folder = tmp_path / name
        folder.mkdir()
        for valid in reader.seeds(folder):
            reader.read(valid, folder)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in IMAGES else ()) for n in READERS]
)
def test_damaged_bytes_are_refused_in_a_sentence_or_understood(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    seeds = reader.seeds(tmp_path)

    @seed(0)  # the same every time; a nightly run asks for many
    @examples(12, shrink=False)
    @given(st.sampled_from(seeds).flatmap(damaged_bytes))
    def damaged(data: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries warn of what they are about to refuse
            try:
                reader.read(data, tmp_path)
            except reader.refusals as e:
                _in_a_sentence(e)

    run: Callable[[], None] = damaged
    run()


def _in_a_sentence(error: Exception) -> None:
    said = str(error)
    assert 5 < len(said) < 3000
    assert "Traceback" not in said
