"""The table of error bars: its file, and the images that follow from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from livesr.base.error_bars import ErrorBars, load_error_bars
from livesr.base.errors import ConfigError


def bars(**changes: object) -> ErrorBars:
    given_ = {
        "engine": "e",
        "coverage": 0.9,
        "source": "pairs",
        "units": 20,
        "structures": {
            "ER": {"from": [0.0, 0.5], "below": [0.1, 0.2], "above": [0.3, 0.4]},
        },
    }
    return ErrorBars.model_validate({**given_, **changes})


def test_the_bounds_are_those_of_the_intensity() -> None:
    channels = np.array([[[100, 499, 500, 900]]], np.uint16)
    low, high = bars().limits(channels, ["ER"], 1000.0)
    np.testing.assert_array_equal(low, [[[0, 399, 300, 700]]])
    np.testing.assert_array_equal(high, [[[400, 799, 900, 1300]]])


@given(
    npst.arrays(np.uint16, (2, 3, 4)),
    st.floats(1, 5e4),
    st.integers(0, 2000),
)
def test_the_prediction_is_between_them(channels: np.ndarray, scale: float, offset: int) -> None:
    channels = np.maximum(channels, offset).astype(np.uint16)
    low, high = bars().limits(channels, ["ER", "unknown"], scale, offset)
    assert (low <= channels).all()
    assert (channels <= high).all()
    assert (low >= offset).all()
    assert (low[1] == offset).all()
    assert (high[1] == 65535).all()


def test_the_file_says_what_they_are_worth_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "error_bars.yaml"
    bars().save(path)
    assert path.read_text(encoding="utf-8").startswith("# Error bars from true channels")
    assert load_error_bars(path) == bars()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "simulation"}, "not from this microscope"),
        ({"of": "frames"}, "of one field"),
        ({}, "of fields like the 20"),
    ],
)
def test_what_they_come_from_is_said(changes: dict[str, object], said: str) -> None:
    assert said in bars(**changes).sentence


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": [0.5, 0.0], "below": [0, 0], "above": [0, 0]},
        {"from": [0.0], "below": [0, 0], "above": [0]},
        {"from": [0.0], "below": [-1], "above": [0]},
    ],
)
def test_a_table_that_cannot_be_is_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "error_bars.yaml"
    good = bars().model_dump(mode="json", by_alias=True)
    import yaml

    path.write_text(yaml.safe_dump({**good, "structures": {"ER": wrong}}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"error_bars\.yaml"):
        load_error_bars(path)


def test_a_file_cut_anywhere_is_refused_and_never_gives_other_bars(tmp_path: Path) -> None:
    path = tmp_path / "error_bars.yaml"
    bars().save(path)
    whole = path.read_bytes()
    for n in range(len(whole) - 1):  # the last newline says nothing
        path.write_bytes(whole[:n])
        with pytest.raises(ConfigError, match=r"error_bars\.yaml"):
            load_error_bars(path)


def test_a_file_of_an_earlier_version_does_not_say_where_it_ends_and_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "error_bars.yaml"
    bars().save(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines[2:-1]]), encoding="utf-8")
    assert load_error_bars(path) == bars()
