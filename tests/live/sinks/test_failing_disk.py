"""Every kind of call on every kind of file of a store, failing once and for good.

What is counted is what can be read.
"""

from __future__ import annotations

import errno
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import zarr

from contracts import RAW, START_NS, describe, multicolor_frame, sr_frame
from failing_disk import failing, failures, preloaded
from livesr.base.errors import LiveSRError
from livesr.base.frames import RawStack, Stream
from livesr.formats import layout
from livesr.formats.frames_log import read_log
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.thread import SinkThread

STREAM = Stream(0, "488")
TIME_POINTS = 36  # two shards and a part of one

CALLS = ("write", "short", "open", "rename", "fsync", "mkdir", "truncate")
FILES = (
    "/raw/0/c/",
    "/recon/0/c/",
    "/sr/0/c/",
    "/raw/0/",
    "/raw/",
    "zarr.json",
    "/livesr/frames.jsonl",
    "report.json",
    "/livesr/",
    "run.ome.zarr/",
)


class Case(NamedTuple):
    call: str
    part: str
    first: int
    for_good: bool
    number: int = errno.EIO
    spare: bool = False
    flush_s: float = 1.0


def cases() -> list[Case]:
    made = [
        Case(call, part, first, for_good, flush_s=0.0 if first > 1 else 1.0)
        for call, part, first, for_good in itertools.product(CALLS, FILES, (1, 3), (False, True))
    ]
    made += [
        Case("write", "/raw/0/c/", 2, True, errno.ENOSPC),
        Case("open", "run.ome.zarr/", 5, True, errno.EMFILE),
    ]
    made += [
        Case(call, "/home/", first, True, spare=True) for call in CALLS[:5] for first in (1, 4)
    ]
    return made


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_counted_is_what_can_be_read(tmp_path: Path, every: int) -> None:
    done = preloaded(tmp_path, [__file__, str(tmp_path / "stores"), str(every)], timeout_s=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["cases"] == len(cases()[::every])
    assert result["failed"] > 0.5 * result["cases"]  # the others have no such call on such a file
    assert not result["problems"], "\n".join(result["problems"])


_PROGRAM = """
import errno, sys
from failing_disk import failing
from livesr.cli import main

with failing("write", "/{part}", {first}, for_good=True, number=errno.ENOSPC):
    main()
"""


@pytest.mark.parametrize(
    ("part", "first"),
    [("run.ome.zarr/raw/0/c/", 2), pytest.param("run.ome.zarr/", 60, marks=pytest.mark.slow)],
)
def test_the_program_says_what_is_there(tmp_path: Path, part: str, first: int) -> None:
    """Report, exit code and the command of --on-finish say what a reader finds."""
    seen, store = tmp_path / "seen.json", tmp_path / "run.ome.zarr"
    run = [
        "run",
        "virtual_sim",
        "--engine",
        "none",
        "--frames",
        "40",
        "--json",
        "--store",
        str(store),
    ]
    command = (
        f"{sys.executable} -c 'import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])'"
        f" {{report}} {seen}"
    )
    done = preloaded(
        tmp_path,
        ["-c", _PROGRAM.format(part=part, first=first), *run, "--on-finish", command],
        timeout_s=280,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, report["exit_code"]) == (1, 1), done.stderr
    assert "No space left" in report["error"]
    raw = zarr.open_array(store / "raw" / "0", mode="r")[:]
    tiffs = [tifffile.imread(f) for f in (store / layout.STRAYS).glob("raw_t*.tif")]
    counted = [
        int(sum(plane.any() for block in blocks for plane in block)) for blocks in (raw, tiffs)
    ]
    behind = (
        sum(
            "elsewhere" in e
            for e in read_log(store / layout.FRAMES_LOG).events
            if e["series"] == "raw"
        )
        * RAW
    )
    assert counted[0] == report["raw_stored"]
    assert counted[1] + behind == report["raw_elsewhere"]
    assert (
        report["raw_frames"]
        == report["raw_stored"] + report["raw_elsewhere"] + report["raw_lost"]
        > 0
    )
    told = json.loads(seen.read_text())
    assert {k: told[k] for k in ("raw_stored", "raw_lost", "lost", "error")} == {
        k: report[k] for k in ("raw_stored", "raw_lost", "lost", "error")
    }


class Found(NamedTuple):
    planes: dict[tuple[int, int], str]  # where each exposure (t, i) is
    wrong: list[str]


def run(case: Case, folder: Path) -> list[str]:
    """Record with a failing disk; return what is not as it must be, in sentences."""
    home, errors = folder / "home" / "run.ome.zarr", list[LiveSRError]()
    sink = OMEZarrSink(home, spare=folder / "spare" if case.spare else None)
    thread = SinkThread(sink, on_error=lambda _, e: errors.append(e))
    thread.open(describe())
    sink._workers.flush_s = case.flush_s
    frames = np.random.default_rng(0).integers(
        1, 65536, (TIME_POINTS, RAW, 16, 16), dtype=np.uint16
    )
    with failing(case.call, case.part, case.first, for_good=case.for_good, number=case.number):
        for t, block in enumerate(frames):
            thread.raw(RawStack(tuple(block), STREAM, t, START_NS + t, START_NS + t))
            thread.recon(sr_frame(t))
            thread.separated(multicolor_frame(t))
            if t % 10 == 9:
                thread.status({})
        thread.drain()
        report = {
            "raw_lost": thread.raw_lost,
            **thread.accounts,
            "error": str(errors[0]) if errors else None,
        }
        thread.close(report)
        happened = failures()
    problems = check(
        case, sink, frames, {**report, "error": str(errors[0]) if errors else None}, happened
    )
    return [f"{case}: {problem}" for problem in problems]


def check(
    case: Case, sink: OMEZarrSink, frames: Any, report: dict[str, Any], happened: int
) -> list[str]:
    found = look(sink, frames)
    # What lies behind the array's length is not lost, and not there for a reader before `livesr
    # repair`.
    for (t, i), plane in lengthened(sink, found).items():
        put(found.planes, found.wrong, (t, i), "behind", plane, frames)
    counts = {
        where: list(found.planes.values()).count(where)
        for where in ("store", "spare", "tiff", "behind")
    }
    problems = list(found.wrong)
    elsewhere = counts["spare"] + counts["tiff"] + counts["behind"]
    if case.call == "open" and case.part == "run.ome.zarr/" and case.for_good:
        # No file can be opened, so nothing can be looked at: more may be there than is said, never
        # less.
        there = counts["store"] + elsewhere
        is_more = report["raw_stored"] + report["raw_elsewhere"] > there
        return problems + (
            [f"{counts} can be read, the report says {report}"]
            if is_more or not report["error"]
            else []
        )
    if (counts["store"], elsewhere) != (report["raw_stored"], report["raw_elsewhere"]):
        problems.append(f"{counts} can be read, the report says {report}")
    if report["raw_lost"] != frames.shape[0] * frames.shape[1] - counts["store"] - elsewhere:
        problems.append(f"{counts} can be read, {report['raw_lost']} are said to be lost")
    if bool(report["raw_lost"]) != ("raw" in report["lost"]):
        problems.append(f"{report['raw_lost']} are lost and the places are {report['lost']}")
    if (report["raw_lost"] or report["lost"]) and not report["error"]:
        problems.append("something is lost and no error says so")
    if (
        happened
        and not case.for_good
        and (report["error"] or report["raw_stored"] != frames.shape[0] * RAW)
    ):
        problems.append(f"a disk that failed once: {report}")
    if case.part not in ("/livesr/frames.jsonl", "/livesr/", "run.ome.zarr/", "/home/"):
        problems += check_log(sink, found)
    return problems


def look(sink: OMEZarrSink, frames: Any) -> Found:
    """Find every exposure, with zarr-python and tifffile."""
    planes: dict[tuple[int, int], str] = {}
    wrong: list[str] = []
    for where, root in (("store", sink.path), ("spare", sink._spare)):
        if root is None or not (root / "raw" / "0" / "zarr.json").is_file():
            continue
        raw = zarr.open_array(root / "raw" / "0", mode="r")
        for t in range(raw.shape[0]):
            try:
                block = raw[t]
            except Exception as e:
                wrong.append(f"raw[{t}] of {where} cannot be read: {e}")
                continue
            for i, plane in enumerate(block):
                if plane.any():
                    put(planes, wrong, (t, i), where, plane, frames)
    for file in (
        f
        for root in (sink.path, sink._spare)
        if root
        for f in (root / layout.STRAYS).glob("raw_t*.tif")
    ):
        for i, plane in enumerate(tifffile.imread(file)):
            if plane.any():
                put(planes, wrong, (int(file.name[5:11]), i), "tiff", plane, frames)
    return Found(planes, wrong)


def lengthened(sink: OMEZarrSink, found: Found) -> dict[tuple[int, int], Any]:
    """Return the planes that come to light when the array gets its whole length."""
    file = sink.path / "raw" / "0" / "zarr.json"
    about = json.loads(file.read_text())
    before = about["shape"][0]
    file.write_text(json.dumps({**about, "shape": [TIME_POINTS, *about["shape"][1:]]}))
    raw = zarr.open_array(file.parent, mode="r")[before:]
    return {
        (before + t, i): plane
        for t, block in enumerate(raw)
        for i, plane in enumerate(block)
        if plane.any() and (before + t, i) not in found.planes
    }


def put(
    planes: dict, wrong: list[str], place: tuple[int, int], where: str, plane: Any, frames: Any
) -> None:
    if not np.array_equal(plane, frames[place]):
        wrong.append(f"{place} in {where} is not what was taken")
    else:  # what a disk refused to confirm may still be there, beside its copy elsewhere
        planes[place] = where


def check_log(sink: OMEZarrSink, found: Found) -> list[str]:
    """The last line about a picture says whether the array holds it."""
    last = {
        (e["series"], e["t"]): e["stored"] for e in read_log(sink.path / layout.FRAMES_LOG).events
    }
    said = {t for (series, t), stored in last.items() if series == "raw" and stored}
    there = {t for (t, _), where in found.planes.items() if where == "store"}
    problems = [] if said <= there else [f"frames.jsonl says {sorted(said - there)} are in raw"]
    for name in ("recon", "sr"):
        array = zarr.open_array(sink.path / name / "0", mode="r")
        empty = [t for t in range(TIME_POINTS) if t >= array.shape[0] or not array[t].any()]
        problems += [
            f"frames.jsonl says that {name}[{t}] is there" for t in empty if last.get((name, t))
        ]
    return problems


def main(folder: Path, every: int) -> None:
    import logging

    logging.getLogger("livesr").setLevel(logging.CRITICAL)
    problems, failed = [], 0
    for number, case in enumerate(cases()[::every]):
        here = folder / str(number)
        here.mkdir(parents=True)
        try:
            problems += run(case, here)
        except Exception as e:
            problems.append(f"{case}: {type(e).__name__}: {e}")
        failed += failures() > 0
        shutil.rmtree(here)
    print(json.dumps({"cases": number + 1, "failed": failed, "problems": problems}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
