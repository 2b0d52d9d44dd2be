"""frames.jsonl as crashes, disks and strangers leave it.

What can be known is, and what cannot is said.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import damaged, examples
from livesr.base.documents import to_json
from livesr.base.errors import StoreError
from livesr.base.frames import Stream
from livesr.formats.frames_log import read_log
from livesr.live.sinks.frames_log import FramesLog

LINE: dict[str, Any] = {
    "series": "recon",
    "state": "recon",
    "t": 3,
    "position": 1,
    "channel": "488",
    "z": 0,
    "stored": True,
    "t_acq_ns": 1_700_000_000_000_000_000,
    "t_camera_ms": 12.5,
    "normalisation": {"background": 12.5, "headroom": 800.0},
    "quality": {"contrast_to_noise": 7.0, "motion_nm": None},
    "missing": [2, 5],
    "of a later version": {"a": [1]},
}


def written(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    file = path / "frames.jsonl"
    file.write_bytes(
        b"".join(i if isinstance(i, bytes) else to_json(i).encode() + b"\n" for i in lines)
    )
    return file


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = FramesLog(tmp_path / "frames.jsonl")
    log.write(
        "raw", "raw", Stream(0, "a\u2028b\x85c", 2), 7, stored=True, t_acq_ns=5, exposure_ms=10.0
    )
    log.close()
    (event,) = read_log(tmp_path / "frames.jsonl").events
    assert (event["channel"], event["t"], event["z"], event["exposure_ms"]) == (
        "a\u2028b\x85c",
        7,
        2,
        10.0,
    )
    found = read_log(written(tmp_path, LINE))
    assert found.events == [LINE]
    assert (found.unknown, found.torn, found.problem) == ((), False, "")


@pytest.mark.parametrize(
    "facts",
    [
        {"elsewhere": "/spare/run.ome.zarr/raw/0/c/0/0/0/0"},
        {"file": "strays/raw_t000003.tif"},
        {"lost": True},
    ],
)
def test_where_a_picture_is_that_a_disk_refused_is_read(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    log = FramesLog(tmp_path / "frames.jsonl")
    log.write("raw", "raw", Stream(0, "488", 0), 3, reason="No space left on device", **facts)
    log.close()
    found = read_log(tmp_path / "frames.jsonl")
    assert found.unknown == ()
    assert {**found.events[0], **facts} == found.events[0]
    (key,) = facts
    wrong = read_log(written(tmp_path, {**LINE, key: 5}))
    assert (wrong.events, [line.keys for line in wrong.unknown]) == ([LINE], [(key,)])


@pytest.mark.parametrize(
    "end",
    [
        b'{"series": "raw", "t',
        to_json(LINE).encode()[:-1],
        '{"channel": "é'.encode()[:-1],
        b"\0\0\0",
    ],
)
def test_a_last_line_that_a_killed_process_left_is_no_damage(tmp_path: Path, end: bytes) -> None:
    found = read_log(written(tmp_path, LINE, end))
    assert (found.events, found.unknown, found.torn, found.problem) == ([LINE], (), True, "")


def test_a_last_line_without_an_end_is_read_if_it_is_whole(tmp_path: Path) -> None:
    found = read_log(written(tmp_path, to_json(LINE).encode()))
    assert (found.events, found.torn) == ([LINE], False)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"t": -5}, "t: "),
        ({"t": True}, "t: "),
        ({"t": 1.5}, "t: "),
        ({"t": 10**400}, ""),
        ({"t": 2**40}, "t: "),
        ({"position": "0"}, "position: "),
        ({"channel": 488}, "channel: "),
        ({"channel": "x" * 2000}, "channel: "),
        ({"z": None}, "z: "),
        ({"stored": 1}, "stored: "),
        ({"series": "raws"}, "series: "),
        ({"state": []}, "state: "),
    ],
)
def test_a_line_about_no_picture_is_counted_and_named(
    tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    wrong = {**LINE, **changed}
    found = read_log(written(tmp_path, LINE, wrong, LINE))
    assert found.events == [LINE, LINE]
    (unknown,) = found.unknown
    assert (unknown.number, unknown.keys, json.loads(unknown.text)) == (
        2,
        (),
        json.loads(to_json(wrong)),
    )
    assert unknown.why.startswith(why)
    assert "1 lines of frames.jsonl are damaged, the first is line 2" in found.problem


@pytest.mark.parametrize(
    "line",
    [
        b"{\n",
        b"[]\n",
        b"null\n",
        b"\xff\xfe\n",
        b"\0" * 4096 + b"\n",
        b"[" * 100_000 + b"\n",
        b'{"a":' * 100_000 + b"\n",
        b'"' + b"x" * 3_000_000 + b'"\n',
        b'{"channel": "\\ud800"}\n',
        to_json(LINE).replace("488", "é").encode().replace("é".encode(), "é".encode()[:1]) + b"\n",
    ],
)
def test_a_line_that_is_no_object_hides_no_other(tmp_path: Path, line: bytes) -> None:
    found = read_log(written(tmp_path, LINE, line, LINE))
    assert found.events == [LINE, LINE]
    assert [u.number for u in found.unknown] == [2]
    assert len(found.unknown[0].text) <= 1 << 20
    assert "line 2" in found.problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("t_acq_ns", "yesterday"),
        ("t_acq_ns", 2**70),
        ("t_camera_ms", [1]),
        ("normalisation", {"background": 1.0, "headroom": 0.0}),
        ("normalisation", {"background": None, "headroom": 5.0}),
        ("missing", [-1]),
        ("missing", "all"),
        ("quality", {"motion_nm": "far"}),
        ("unknown_light", -0.1),
        ("unknown_light", 1.5),
    ],
)
def test_what_a_line_says_wrongly_of_a_picture_is_left_out_of_it(
    tmp_path: Path, key: str, value: object
) -> None:
    found = read_log(written(tmp_path, {**LINE, key: value}))
    assert found.events == [{k: v for k, v in LINE.items() if k != key}]
    assert found.unknown[0].keys == (key,)
    assert "parts of the others" in found.problem


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    line = (
        json.dumps({**LINE, "t_camera_ms": float("nan"), "residual": float("inf")}).encode() + b"\n"
    )
    (event,) = read_log(written(tmp_path, line)).events
    assert not {"t_camera_ms", "residual"} & event.keys()


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no file"):
        read_log(tmp_path)


@examples(100)
@given(data=st.binary(max_size=200) | damaged(LINE).map(lambda line: json.dumps(line).encode()))
def test_anything_is_read_or_counted(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = Path(tmp_path_factory.getbasetemp())
    found = read_log(written(folder, LINE, data + b"\n", LINE))
    assert found.events[0] == found.events[-1] == LINE
    lines = sum(bool(line.strip()) for line in data.split(b"\n"))
    whole = len(found.events) + sum(not u.keys for u in found.unknown)
    assert whole == 2 + lines
    for event in found.events:
        assert 0 <= event["t"] < 2**31
        assert isinstance(event["stored"], bool)
