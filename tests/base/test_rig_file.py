"""Values are changed, and nothing else in the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from livesr.base.config import load_rig
from livesr.base.errors import ConfigError
from livesr.base.rig_file import with_values, write_values

RIGS = Path(__file__).parents[2] / "hardware_configs"
TEXT = """# A rig.
name: x  # its name

camera:
  # Level.
  offset_adu: 100  # of a dark frame
  bit_depth: 16

flow: {a: 1, "b": [1, 2]}
empty:
nested:
  flat:
    "488": old.tif  # measured
  # a comment at the end
last: 1
"""


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({"camera.offset_adu": 101.5}, ("offset_adu: 100 ", "offset_adu: 101.5 ")),
        (
            {"camera.gain_e_per_adu": 0.5},
            ("bit_depth: 16\n", "bit_depth: 16\n  gain_e_per_adu: 0.5\n"),
        ),
        ({"flow.a": {"c": 2}}, ("a: 1", "a: {c: 2}")),
        ({"flow.d": "e"}, ("[1, 2]", "[1, 2], d: e")),
        ({"nested.flat": {"488": "new.tif"}}, ('"488": old.tif', "{'488': new.tif}")),
        (
            {"nested.flat.561": "new.tif"},
            ("old.tif  # measured\n", "old.tif  # measured\n    '561': new.tif\n"),
        ),
        ({"new.a": 1, "new.b": {"x": 2}}, ("last: 1\n", "last: 1\n\nnew:\n  a: 1\n  b: {x: 2}\n")),
        ({"name": "a: b"}, ("name: x", "name: 'a: b'")),
        ({"empty.k": 3}, ("empty:", "empty:\n  k: 3")),
    ],
)
def test_one_value(values: dict[str, Any], change: tuple[str, str]) -> None:
    assert with_values(TEXT, values) == TEXT.replace(*change)


def test_a_second_time_changes_nothing() -> None:
    values = {
        "camera.offset_adu": 1,
        "corrections.flat": {"488": "flat.tif"},
        "corrections.offset": "offset.tif",
    }
    once = with_values(TEXT, values)
    assert with_values(once, values) == once


@pytest.mark.parametrize("rig", ["demo", "virtual_sim", "_template"])
def test_the_shipped_rigs_keep_their_comments(rig: str, tmp_path: Path) -> None:
    text = (RIGS / rig / "rig.yaml").read_text(encoding="utf-8")
    path = tmp_path / "rig.yaml"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "rig.cfg").touch()
    (tmp_path / "o.tif").touch()
    write_values(path, {"camera.read_noise_e": 1.5, "corrections.offset": "o.tif"})
    after = path.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line not in after.splitlines()] == []
    assert load_rig(path).camera.read_noise_e == 1.5
    assert load_rig(path).corrections.offset == "o.tif"


def test_what_cannot_be_changed_safely_stays(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text("a: &x {b: 1}\nc: *x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Write it yourself: c\.b: 2"):
        write_values(path, {"c.b": 2})
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"a": {"b": 1}, "c": {"b": 1}}
    assert [p.name for p in tmp_path.iterdir()] == ["rig.yaml"]
