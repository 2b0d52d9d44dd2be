"""The Python in docs/wire-format.md and docs/store-layout.md, run as a reader would."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from contracts import describe, feed, multicolor_frame
from livesr.base.frames import Stream
from livesr.formats.frames_log import read_log
from livesr.formats.wire import WireHeader
from livesr.live.run_state import Report
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.zeromq import ZeroMQSink
from own_process import said_by

DOCS = Path(__file__).parents[2] / "docs"


def snippets(page: str) -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```",
        (DOCS / page).read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )


def columns(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under `heading`."""
    section = (
        (DOCS / page)
        .read_text(encoding="utf-8")
        .split(f"## {heading}\n", 1)[1]
        .split("\n## ", 1)[0]
    )
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("|")
    ]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe())
    for t in range(4):
        feed(sink, t)
    sink.skipped(Stream(0, "488"), 3, "the network is slower than the camera")
    sink.close({})
    return sink.path


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A stream that goes on for as long as the test does."""
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(describe())
    over = threading.Event()

    def publish() -> None:
        t = 0
        while not over.wait(0.02) and sink.counts["sent"] < 5:
            sink.separated(multicolor_frame(t))
            t += 1
        sink.close({})

    publisher = threading.Thread(target=publish, name="livesr-test-publisher")
    publisher.start()
    yield sink.endpoint
    over.set()
    publisher.join()


def test_the_subscriber(endpoint: str) -> None:
    (code,) = snippets("wire-format.md")
    lines = said_by("-c", code, endpoint).splitlines()
    assert len(lines) >= 3
    assert "['Microtubules', 'ER', 'Lysosomes']" in lines[0]
    assert lines[0].endswith("0.0625")


def test_reading_a_store(store: Path) -> None:
    reading, log = snippets("store-layout.md")
    lines = said_by("-c", reading, str(store)).splitlines()
    assert lines[:3] == [
        "raw (4, 9, 16, 16) measurement",
        "recon (4, 32, 32) measurement",
        "sr (4, 3, 32, 32) prediction",
    ]
    assert lines[3].endswith("ADU")
    assert said_by("-c", log, str(store)).splitlines() == ["11 pictures; 1 predictions to backfill"]
    line = {"series": "sr", "state": "separated", "stored": True, "backfilled": True}
    with (store / "livesr" / "frames.jsonl").open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line | {"t": 3, "position": 0, "channel": "488", "z": 0}) + "\n")
    assert said_by("-c", log, str(store)).splitlines() == ["12 pictures; 0 predictions to backfill"]


def test_every_header_field_is_documented() -> None:
    documented = {
        name
        for row in columns("wire-format.md", "The header")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert documented == set(WireHeader.model_fields)


def test_every_key_of_the_frames_log_is_documented(store: Path) -> None:
    documented = {
        name
        for row in columns("store-layout.md", "frames.jsonl")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    written = {key for event in read_log(store / "livesr" / "frames.jsonl").events for key in event}
    assert written <= documented


def test_every_key_of_the_report_is_documented() -> None:
    documented = {
        name
        for row in columns("store-layout.md", "report.json")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert documented == set(get_type_hints(Report))
