"""A process that is killed, at random and at every system call of closing.

What was written is there, and is what was taken.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr

from contracts import RAW, START_NS, describe, multicolor_frame, sr_frame
from failing_disk import calls, failing, preloaded
from livesr.base.frames import RawStack, Stream
from livesr.formats.shard_file import ShardError, present, read_index, shard_form, whole_length
from livesr.live.sinks.ome_zarr import OMEZarrSink

STREAM = Stream(0, "488")
FLUSH_S = 0.1
PER_SHARD = 16


@pytest.mark.parametrize(
    ("closing", "at_random"), [(8, 5), pytest.param(10_000, 200, marks=pytest.mark.slow)]
)
def test_nothing_that_was_flushed_is_lost(tmp_path: Path, closing: int, at_random: int) -> None:
    """`closing` kills are spread over the system calls of closing, 10,000 are all of them."""
    done = preloaded(
        tmp_path, [__file__, str(tmp_path / "stores"), str(closing), str(at_random)], timeout_s=3600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folders = sorted((tmp_path / "stores").iterdir())
    assert len(folders) >= min(closing, 8) + at_random
    lost = [beyond_the_promise(folder) for folder in folders]
    print(f"{len(folders)} kills; most time points lost of those that were taken: {max(lost)}")


def beyond_the_promise(folder: Path) -> int:
    """Check a store whose process was killed; return how many of its last time points are gone."""
    taken = [
        json.loads(line)
        for line in (folder / "taken.jsonl").read_text().splitlines(keepends=True)
        if line[-1] == "\n"
    ]
    store = folder / "run.ome.zarr"
    for name in ("raw", "recon", "sr"):
        # Whole at every moment, and what every reader takes for an image.
        about = json.loads((store / name / "zarr.json").read_text())["attributes"]
        assert about["livesr"]["stream"] == "a-stream"
        assert about["ome"]["multiscales"]
        mend(store / name / "0", RAW if name == "raw" else 3 if name == "sr" else 1)
    yaozarrs.validate_zarr_store(store)
    raw = zarr.open_array(store / "raw" / "0", mode="r")[:]
    there = {t for t, block in enumerate(raw) if block.any()}
    for t in there:
        assert np.array_equal(raw[t], pixels(t))
    if not taken:
        return 0
    due = {e["t"] for e in taken if e["s"] <= taken[-1]["s"] - FLUSH_S}
    closed = (folder / "closed").exists()
    missing = ({e["t"] for e in taken} if closed else due) - there
    assert not missing, (
        f"{folder.name}: {sorted(missing)} were taken over {FLUSH_S} s before and are missing"
    )
    return len({e["t"] for e in taken} - there)


def mend(array: Path, planes: int) -> None:
    """Cut off what a kill left in the middle, and give the array the length of what is there."""
    about = json.loads((array / "zarr.json").read_text())
    chunks, length = PER_SHARD * planes, 0
    for file in (
        f for f in (array / "c").rglob("*") if f.is_file() and not f.name.endswith(".new")
    ):
        try:
            index = read_index(file, chunks)
        except ShardError:
            if not (whole := whole_length(file, shard_form(about))):
                file.unlink()
                continue
            os.truncate(file, whole)
            index = read_index(file, chunks)
        t_shard = int(file.relative_to(array / "c").parts[0])
        length = max(
            length, t_shard * PER_SHARD + int(np.flatnonzero(present(index)).max()) // planes + 1
        )
    assert about["shape"][0] <= length or not length
    about["shape"][0] = length
    (array / "zarr.json").write_text(json.dumps(about))


def pixels(t: int) -> np.ndarray:
    return np.random.default_rng(t).integers(1, 65536, (RAW, 16, 16), dtype=np.uint16)


def record(folder: Path, time_points: int, step_s: float) -> OMEZarrSink:
    """Record as the store's thread does, noting when each time point was taken."""
    sink = OMEZarrSink(folder / "run.ome.zarr", reserve_bytes=0)
    sink.open(describe())
    sink._workers.flush_s = FLUSH_S
    with (folder / "taken.jsonl").open("w", buffering=1) as taken:
        for t in range(time_points):
            sink.raw(RawStack(tuple(pixels(t)), STREAM, t, START_NS + t, START_NS + t))
            sink.recon(sr_frame(t))
            sink.separated(multicolor_frame(t))
            sink.status({})
            taken.write(json.dumps({"t": t, "s": time.monotonic()}) + "\n")
            time.sleep(step_s)
    return sink


def close_and_die_at(folder: Path, call: int) -> None:
    """Record, then close; die at the `call`-th system call of that."""
    sink = record(folder, 20, 0.0)
    with failing("any", "run.ome.zarr/", call, for_good=False, number=-1):
        sink.close({})


def record_until_killed(folder: Path) -> None:
    sink = record(folder, 600, 0.003)
    sink.close({})
    (folder / "closed").touch()


def killed(work, folder: Path, after_s: float | None) -> bool:
    """Do `work` in a process of its own, which is killed after some time, or kills itself.

    Return whether it was.
    """
    folder.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    if after_s is not None:
        while not (folder / "taken.jsonl").exists():
            time.sleep(0.01)
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(folder: Path, closing: int, at_random: int) -> None:
    whole = folder.parent / "whole"
    whole.mkdir()
    there_are = count_calls(whole)
    for call in range(1, there_are + 1, max(1, there_are // closing)):
        here = folder / f"closing-{call:04d}"
        killed(lambda here=here, call=call: close_and_die_at(here, call), here, None)
    dice = random.Random(1)
    for number in range(at_random):
        here = folder / f"random-{number:04d}"
        killed(lambda here=here: record_until_killed(here), here, dice.uniform(0.0, 2.0))


def count_calls(folder: Path) -> int:
    """Return how many system calls on the store's files closing makes."""
    child = os.fork()
    if child == 0:
        sink = record(folder, 20, 0.0)
        with failing("any", "run.ome.zarr/", 1 << 30, for_good=False):
            sink.close({})
            seen = calls()
        (folder / "calls").write_text(str(seen))
        os._exit(0)
    os.waitpid(child, 0)
    return int((folder / "calls").read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
