"""Who is at work in a folder is known, also after kill -9, and of several who want it one gets
it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from livesr.base import lock as lock_module
from livesr.base.lock import LOCK, STALE_S, Lock, LockedError, held, holder
from waiting import until

HOLD = """
import sys, time
from pathlib import Path
from livesr.base.lock import Lock
Lock(Path(sys.argv[1]), "run").acquire()
print("held", flush=True)
time.sleep(600)
"""
RACE = """
import sys
from pathlib import Path
from livesr.base.lock import Lock, LockedError
print("ready", flush=True)
sys.stdin.readline()
try:
    Lock(Path(sys.argv[1]), "backfill").acquire()
    print("mine", flush=True)
    sys.stdin.readline()
except LockedError as e:
    print("theirs", flush=True)
"""


def started(script: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def changed(folder: Path, **facts: object) -> None:
    """Make the lock somebody else's."""
    path = folder / LOCK
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def aged(folder: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(folder / LOCK, (moment, moment))


def test_it_says_who_and_is_gone_afterwards(tmp_path: Path) -> None:
    with Lock(tmp_path, "repair"):
        at_work = holder(tmp_path)
        assert at_work is not None
        assert (at_work.what, at_work.does, at_work.pid) == ("repair", "repaired", os.getpid())
        assert f"process {os.getpid()}" in str(at_work)
        with pytest.raises(
            LockedError, match=rf"being repaired by .* \(process {os.getpid()}\) since .* Wait"
        ):
            Lock(tmp_path, "backfill").acquire()
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owner_is_recognised_at_once(tmp_path: Path) -> None:
    process = started(HOLD, tmp_path)
    try:
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            Lock(tmp_path, "repair").acquire()
    finally:
        ended(process)
    assert holder(tmp_path) is None
    with Lock(tmp_path, "repair"):
        assert holder(tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_stopped_still_holds_it(tmp_path: Path) -> None:
    with Lock(tmp_path, "run"):
        aged(tmp_path, 10 * STALE_S)
        assert holder(tmp_path) is not None


def test_the_number_of_a_dead_process_may_be_somebody_elses_now(tmp_path: Path) -> None:
    lock = Lock(tmp_path, "run")
    lock.acquire()
    try:
        changed(tmp_path, started=1.0)
        assert holder(tmp_path) is not None  # the clock may have been set
        aged(tmp_path, 2 * STALE_S)
        assert holder(tmp_path) is None
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("age_s", "beat", "there"),
    [
        (0, None, True),
        (STALE_S / 2, None, True),
        (2 * STALE_S, None, False),
        (0, "2020-01-01T00:00:00+00:00", False),  # a copy of a folder whose run died
    ],
)
def test_another_computer_is_judged_by_its_heartbeat(
    tmp_path: Path, age_s: float, beat: str | None, there: bool
) -> None:
    with Lock(tmp_path, "run"):
        content = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(content)
    changed(tmp_path, machine="another", host="scope2", pid=1, **({"beat": beat} if beat else {}))
    aged(tmp_path, age_s)
    assert (holder(tmp_path) is not None) == there
    if there:
        with pytest.raises(LockedError, match=r"on scope2 .* If that computer is off"):
            Lock(tmp_path, "repair").acquire()
    else:
        with Lock(tmp_path, "repair"):
            pass
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "facts", [{"token": "../../x"}, {"pid": "1"}, {"pid": -1}, {"started": "x"}, {"beat": 3}]
)
def test_a_file_of_a_stranger(tmp_path: Path, facts: dict[str, object]) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with Lock(folder, "run"):
        content = (folder / LOCK).read_text()
    (folder / LOCK).write_text(content)
    changed(folder, **facts)
    with pytest.raises(LockedError, match="has just begun"):
        Lock(folder, "repair").acquire()
    aged(folder, 2 * STALE_S)
    with Lock(folder, "repair"):
        pass
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 3}', b"\xff\xfe"])
def test_a_file_that_was_never_filled_ends_by_its_age(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(LockedError, match="has just begun"):
        Lock(tmp_path, "repair").acquire()
    aged(tmp_path, 2 * STALE_S)
    with Lock(tmp_path, "repair"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_one_gets_it(tmp_path: Path, stale: bool) -> None:
    if stale:
        ended(started(HOLD, tmp_path))
    racers = [started(RACE, tmp_path) for _ in range(4)]
    try:
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.stdout.readline().strip() for racer in racers]
        assert sorted(said) == ["mine"] + ["theirs"] * 3
        at_work = holder(tmp_path)
        assert at_work is not None
        assert at_work.pid == racers[said.index("mine")].pid
    finally:
        for racer in racers:
            ended(racer)


def test_a_file_that_was_taken_over_while_it_was_looked_at_is_not_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(started(HOLD, tmp_path))
    looked, faster = lock_module._is_stale, Lock(tmp_path, "repair")

    def overtaken(*about: Any) -> bool:
        monkeypatch.setattr(lock_module, "_is_stale", looked)
        stale = looked(*about)
        faster.acquire()
        return stale

    monkeypatch.setattr(lock_module, "_is_stale", overtaken)
    with pytest.raises(LockedError, match="is being repaired by"):
        Lock(tmp_path, "backfill").acquire()
    faster.release()
    assert list(tmp_path.iterdir()) == []


def test_a_takeover_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    ended(started(HOLD, tmp_path))
    token = json.loads((tmp_path / LOCK).read_text())["token"]
    (tmp_path / f"lock-{token}.json").write_text((tmp_path / LOCK).read_text())
    with Lock(tmp_path, "repair"):
        assert holder(tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


def test_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "BEAT_S", 0.01)
    with Lock(tmp_path, "run"):
        aged(tmp_path, 1000)
        until(lambda: time.time() - (tmp_path / LOCK).stat().st_mtime < 500)
        assert holder(tmp_path) is not None


def test_who_lost_it_leaves_it_to_the_new_owner(tmp_path: Path) -> None:
    lock = Lock(tmp_path, "run")
    lock.acquire()
    changed(tmp_path, token="abc")
    lock.release()
    assert (tmp_path / LOCK).is_file()
    lock.release()


def test_a_measurement_goes_on_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert held(tmp_path / "nowhere", "run") is None
    assert "do not repair" in caplog.text


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    got: list[Lock] = []

    def take() -> None:
        lock = Lock(tmp_path, "repair")
        try:
            lock.acquire()
        except LockedError:
            return
        got.append(lock)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].release()
