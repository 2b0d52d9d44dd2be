"""What a sink may do to a run.

A sink of others that raises or hangs is left behind, a store is not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from contracts import describe, multicolor_frame, raw_stack, sr_frame
from livesr.base.errors import ConfigError, LiveSRError, RunError, UsageError
from livesr.base.frames import MulticolorFrame, RawStack, SRFrame, Stream
from livesr.base.run_description import RunDescription
from livesr.live.sinks import sink as sinks
from livesr.live.sinks import thread
from livesr.live.sinks.sink import SINKS, Sink, made, named_apart
from livesr.live.sinks.thread import SinkThread
from waiting import until

CALLS = ("open", "raw", "unplaced", "recon", "separated", "skipped", "status", "finish", "close")


class Script(Sink):
    """Notes every call; in the one called `bad` it does `what`."""

    def __init__(self, bad: str = "", what: Any = None, **needs: bool) -> None:
        self.name = "script"
        self.bad, self.what = bad, what
        self.called: list[str] = []
        self.threads: set[str] = set()
        self.values: list[Any] = []
        for need, value in needs.items():
            setattr(self, need, value)

    def _did(self, call: str, value: Any = None) -> None:
        self.called.append(call)
        self.threads.add(threading.current_thread().name)
        self.values.append(value)
        if call == self.bad:
            self.what()

    def open(self, run: RunDescription) -> None:
        self._did("open", run)

    def raw(self, stack: RawStack) -> None:
        self._did("raw", stack)

    def unplaced(self, stack: RawStack) -> None:
        self._did("unplaced", stack)

    def recon(self, frame: SRFrame) -> None:
        self._did("recon", frame)

    def separated(self, frame: MulticolorFrame) -> None:
        self._did("separated", frame)

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        self._did("skipped", (stream, t, reason))

    def status(self, status: Mapping[str, Any]) -> None:
        self._did("status", status)

    def finish(self) -> None:
        self._did("finish")

    def close(self, report: Mapping[str, Any]) -> None:
        self._did("close", report)


def failing(error: BaseException) -> Any:
    def fail() -> None:
        raise error

    return fail


@pytest.fixture
def gate():
    """Something to hang on, which is let go when the test is over."""
    event = threading.Event()
    yield event
    event.set()
    until(lambda: all(t.name != "livesr-script" for t in threading.enumerate()))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(thread, "_LOSSLESS_PATIENCE_S", 0.3)


def run(sink: Sink, times: int = 3, **settings: Any) -> tuple[SinkThread, list[str]]:
    """One run, as the pipeline makes it; returns what it was told of errors."""
    errors: list[LiveSRError] = []
    runs = SinkThread(sink, on_error=lambda _, e: errors.append(e), **settings)
    runs.open(describe())
    for t in range(times):
        if sink.lossless:
            runs.raw(raw_stack(t))
            runs.unplaced(raw_stack(t))
        runs.recon(sr_frame(t))
        runs.separated(multicolor_frame(t))
        runs.skipped(Stream(0, "488"), t, "because")
        runs.status({"sr_fps": 1.0})
    if sink.lossless:
        runs.drain()
    runs.close({"sr_frames": times})
    return runs, [str(e) for e in errors]


def test_a_sink_that_overrides_nothing_takes_a_whole_run() -> None:
    _, errors = run(Sink())
    assert errors == []


def test_a_lossless_sink_gets_everything_in_order_in_one_thread() -> None:
    sink = Script(lossless=True)
    runs, errors = run(sink, times=50)
    each = ["raw", "unplaced", "recon", "separated", "skipped", "status"]
    assert sink.called == ["open", *each * 50, "finish", "close"]
    assert sink.threads == {"livesr-script"}
    assert [f.t for f in sink.values if isinstance(f, MulticolorFrame)] == list(range(50))
    assert errors == []
    assert runs.raw_lost == 0


def test_a_sink_that_may_lose_frames_loses_the_oldest_and_they_are_counted(
    gate: threading.Event,
) -> None:
    sink = Script("recon", gate.wait)
    runs = SinkThread(sink, on_error=lambda *_: None)
    runs.open(describe())
    for t in range(30):
        runs.recon(sr_frame(t))
    gate.set()
    runs.close({})
    seen = [f.t for f in sink.values if isinstance(f, SRFrame)]
    assert seen[-1] == 29
    assert runs.dropped == 30 - len(seen) > 0


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_whatever_it_raises_it_is_left_out_with_a_sentence(call: str, lossless: bool) -> None:
    sink = Script(call, failing(ZeroDivisionError("mine")), lossless=lossless)
    runs, errors = run(sink)
    if call in ("raw", "unplaced", "finish") and not lossless:
        assert errors == []
        return
    (sentence,) = errors
    assert sentence == f"Sink 'script' failed in {call}: ZeroDivisionError: mine."
    assert sink.called[-1] == "close"
    assert runs.raw_lost == 0


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError("x")])
def test_it_cannot_end_the_process(error: BaseException) -> None:
    _, errors = run(Script("separated", failing(error)))
    assert len(errors) == 1


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("call", ["open", "recon", "separated", "status", "close"])
@pytest.mark.usefixtures("impatient")
def test_one_that_hangs_is_left_behind(call: str, lossless: bool, gate: threading.Event) -> None:
    began_s = time.monotonic()
    runs, errors = run(Script(call, gate.wait, lossless=lossless))
    assert time.monotonic() - began_s < 20
    (sentence,) = errors
    assert sentence.startswith("Sink 'script' does not come back from ")
    assert runs.weight == 0


@pytest.mark.usefixtures("impatient")
def test_one_that_is_slow_but_lossless_is_waited_for(gate: threading.Event) -> None:
    sink = Script("recon", lambda: time.sleep(0.1), lossless=True)
    _, errors = run(sink, times=20)  # longer, in all, than the patience with one call
    assert errors == []
    assert sink.called.count("recon") == 20


def test_a_lossless_one_cannot_fill_the_memory_of_the_run(gate: threading.Event) -> None:
    sink = Script("raw", gate.wait, lossless=True)
    errors: list[LiveSRError] = []
    runs = SinkThread(sink, on_error=lambda _, e: errors.append(e), max_bytes=100_000)
    runs.open(describe())
    for t in range(1000):
        runs.raw(raw_stack(t))
        assert runs.weight <= 100_000 + 9 * 16 * 16 * 2
    (error,) = errors
    assert "is slower than the camera: 0 MB wait for it" in str(error)
    assert runs.weight == 0
    runs.drain()
    gate.set()
    runs.close({})


def test_a_start_that_it_refuses_is_refused() -> None:
    sink = Script("open", failing(ConfigError("No room.")))
    with pytest.raises(UsageError, match="No room"):
        run(sink)
    assert sink.called == ["open", "close"]
    assert sink.values[-1] == {"error": "No room."}


def test_an_essential_one_is_opened_by_who_starts_the_run_and_closed_when_it_cannot() -> None:
    sink = Script("open", failing(ConfigError("No room.")), essential=True, lossless=True)
    with pytest.raises(ConfigError):
        run(sink)
    assert sink.called == ["open", "close"]
    assert sink.threads == {threading.current_thread().name}


def test_an_essential_one_that_fails_to_open_and_to_close_is_named() -> None:
    class Broken(Sink):
        name, essential = "broken", True

        def open(self, run: RunDescription) -> None:
            raise ZeroDivisionError("opened")

        def close(self, report: Mapping[str, Any]) -> None:
            raise ValueError("closed")

    with pytest.raises(RunError, match="'broken' failed in open: ZeroDivisionError: opened"):
        SinkThread(Broken(), on_error=lambda *_: None).open(describe())


def test_an_account_that_cannot_be_told_keeps_no_report_from_being_made() -> None:
    class Mute(Sink):
        name, essential, lossless = "mute", True, True
        raw_kept = accounts = property(lambda self: 1 / 0)

    sink = SinkThread(Mute(), on_error=lambda *_: None)
    assert (sink.accounts, sink.raw_lost) == ({}, 0)


def test_notes_and_accounts_are_those_of_the_end() -> None:
    class Keeper(Script):
        notes = ()

        @property
        def accounts(self) -> dict[str, Any]:
            return {"raw_stored": self.called.count("raw")}

        def finish(self) -> None:
            super().finish()
            self.notes = ("One disk is slow.",)

    runs, _ = run(Keeper(lossless=True, essential=True))
    assert runs.notes == ["One disk is slow."]
    assert runs.accounts == {"raw_stored": 3}
    other, _ = run(Keeper(lossless=True))
    # What the report says of the recording is not theirs.
    assert other.accounts == {"sinks": {"script": {"raw_stored": 3}}}


def test_notes_of_a_call_that_failed_are_told() -> None:
    class Keeper(Script):
        notes = ()

        def finish(self) -> None:
            self.notes = ("Half of it is on the other disk.",)
            raise RunError("One frame is lost.")

    runs, errors = run(Keeper(lossless=True, essential=True))
    assert runs.notes == ["Half of it is on the other disk."]
    assert errors == ["One frame is lost."]


def test_what_is_no_sink_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"is no sink: expected an object of a class derived"):
        made(object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Unknown sink 'ome-zar'\. Did you mean 'ome-zarr'"):
        made("ome-zar")
    with pytest.raises(ConfigError, match=r"'ome-zarr' of livesr cannot be made from its name"):
        made("ome-zarr")


def test_sinks_of_one_run_have_names_of_their_own() -> None:
    one, other = Script(), Script()
    with pytest.raises(ConfigError, match="Two sinks are called 'script'"):
        named_apart([one, other])
    other.name = "another"
    assert named_apart([one, other]) == [one, other]


def test_every_name_of_livesr_is_a_sink_of_that_name() -> None:
    for name in ("ome-zarr", "zeromq", "pairs", "signals"):
        kind = SINKS.load(name)
        assert issubclass(kind, Sink)
        assert kind.name == name
    assert sinks.SINKS.package("pairs") == "livesr"
