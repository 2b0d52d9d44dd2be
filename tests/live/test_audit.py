"""Audit frames: when they are due, what they find, and what follows from it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from useq import MDASequence, TIntervalLoops

from livesr import LiveSR
from livesr.base.compute import ComputeConfig
from livesr.base.config import AuditConfig, RigConfig, load_rig, parse
from livesr.base.error_bars import FILE, ErrorBars
from livesr.base.errors import ConfigError
from livesr.cli.calibrate_errors import _rig_and_engines
from livesr.cli.experiment import Experiment, extent, plan_of
from livesr.cli.output import run_table
from livesr.formats.store import RecordedStore
from livesr.live.audit import Audits, AuditSchedule
from livesr.live.inference.engine import load_engine
from livesr.live.inference.identity import identity_engine
from livesr.live.separation import Separation
from livesr.live.sources.plan import AuditPlan
from livesr.modalities.sim.simulation.rig import RawBank, VirtualSIMCamera
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from rig_copies import RIGS
from rigs import core_of

LABELS = ("Microtubules", "ER", "Lysosomes")
TRUE = ("488", "561", "640")
N_T, CHANGE, SIZE = 14, 6, 64


def audited_rig(folder: Path, **audit: Any) -> RigConfig:
    """The rig virtual_audit with other settings of its audits."""
    target = folder / "audited"
    shutil.copytree(RIGS / "virtual_audit", target)
    said = yaml.safe_load((target / "rig.yaml").read_text(encoding="utf-8"))
    said["audit"] = audit
    (target / "rig.yaml").write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    cfg = (target / "rig.cfg").read_text(encoding="utf-8")
    cfg = cfg.replace("Camera,Rig,virtual_audit", f"Camera,Rig,{target}")
    (target / "rig.cfg").write_text(cfg, encoding="utf-8")
    return load_rig(target)


# -- when ------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.01, 5), st.booleans()), min_size=1, max_size=60))
def test_an_audit_is_due_first_then_by_time_or_by_doubt(steps: list[tuple[float, bool]]) -> None:
    now_s, last_s, doubted = 0.0, None, False
    schedule = AuditSchedule(AuditConfig(every_s=10), clock=lambda: now_s)
    for t, (passed_s, doubt) in enumerate(steps):
        now_s += passed_s
        if doubt:
            schedule.doubt()
            doubted = True
        due = schedule.due(t)
        assert schedule.due(t) == due
        if last_s is None or now_s - last_s >= 10:
            assert due
        elif due:
            assert doubted
            assert now_s - last_s >= 1
        else:
            assert not doubted or now_s - last_s < 1
        if due:
            last_s, doubted = now_s, False


def test_doubts_count_only_where_they_are_asked_for() -> None:
    now_s = 0.0
    schedule = AuditSchedule(AuditConfig(every_s=10, when_doubtful=False), clock=lambda: now_s)
    assert schedule.due(0)
    now_s = 5.0
    schedule.doubt()
    assert not schedule.due(1)


def test_a_plan_leaves_true_channels_out_where_none_is_due(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    plan = plan_of(Experiment(frames=3, interval_s=1), rig, 1.0)
    taken = [(e.index["t"], e.channel.config) for e in plan if e.index["sim"] == 0]
    assert taken == [(0, "488"), (0, "561"), (0, "640"), (0, "dyes"), (1, "dyes"), (2, "dyes")]
    said = extent(plan, rig, 1.0).sentence()
    assert "up to 108 exposures" in said  # 45 if no other is due


def test_true_channels_that_are_left_out_where_a_plan_has_exceptions_are_counted(
    tmp_path: Path,
) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    plan = plan_of(Experiment(frames=4, interval_s=1), rig, 1.0)
    channels = [c.replace(acquire_every=2) if c.config == "dyes" else c for c in plan.channels]
    rare = plan.replace(channels=channels)
    assert extent(rare, rig, 1.0).exposures == 9 * (3 * 4 + 2)


def test_one_channel_after_the_other_leaves_nothing_to_score(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    plan = plan_of(Experiment(frames=3, interval_s=1), rig, 1.0)
    with pytest.raises(ConfigError, match="axis_order"):
        plan.replace(axis_order="pctz")


def test_without_an_interval_no_audit_could_depend_on_what_was_seen(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    with pytest.raises(ConfigError, match="interval"):
        plan_of(Experiment(frames=3, interval_s=0), rig, 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"superpose": None}, "superpose"), ({"channels": None}, "shows all structures")],
)
def test_a_rig_that_has_nothing_to_audit_with_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    text = yaml.safe_load((rig.folder / "rig.yaml").read_text(encoding="utf-8"))
    if "channels" in change:
        del text["channels"]["dyes"]
    else:
        del text["superpose"]
    with pytest.raises(ConfigError, match=said):
        parse(RigConfig, text, "rig.yaml")


def test_an_engine_of_the_command_line_is_for_the_channel_that_is_separated(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    for said in ("imcsr-mt-mito", "dyes=imcsr-mt-mito"):
        assert rig.with_engine(said).channel("dyes").separate == "imcsr-mt-mito"
    assert rig.with_engine("edsr-x2", "upscale").channel("dyes").upscale == "edsr-x2"
    with pytest.raises(ConfigError, match=r"truth of audits.*give dyes=imcsr-mt-mito"):
        rig.with_engine("488=imcsr-mt-mito")
    with pytest.raises(ConfigError, match="does not describe"):
        rig.with_engine("488+561+640=imcsr-mt-mito")


def test_true_channels_that_are_added_are_no_audit(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300).superposing(list(TRUE))
    assert rig.sums == ("488+561+640",)
    assert rig.superposed.separate == "imcsr-mt-er-lyso-light"  # what audits would have scored
    assert not isinstance(plan_of(Experiment(frames=3), rig, 1.0), AuditPlan)


def test_error_bars_of_a_rig_with_audits_are_of_its_engine(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    _, channels, (engine,) = _rig_and_engines(str(rig.folder))
    assert (channels, engine.manifest.id) == (["dyes"], "imcsr-mt-er-lyso-light")


# -- a run in which the specimen changes -----------------------------------------------------------


class Paced(AuditSchedule):
    """Decides only when the network has seen what it can have: the clock counts time points."""

    def __init__(self, settings: AuditConfig) -> None:
        super().__init__(settings, clock=lambda: float(self.t))
        self.t, self.seen = 0, 0
        self.waits = False
        self.change: Callable[[], Any] = lambda: None

    def due(self, t: int) -> bool:
        deadline = time.monotonic() + 100
        while self.waits and self.seen < t - 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        self.t = t
        if t >= CHANGE:  # here, in the acquisition thread, so that it is the same every time
            self.change()
        return super().due(t)


def test_the_specimen_changes_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Microtubules vanish: a warning rises, an audit follows, and trust falls where it should."""
    rig = audited_rig(tmp_path, every_s=90)  # a doubt waits for nine time points
    engine = load_engine("imcsr-mt-er-lyso-light").manifest
    ErrorBars(
        engine=engine.id,
        sha256=engine.sha256,
        coverage=0.9,
        source="simulation",
        units=20,
        structures={
            label: {"from": [0.0], "below": [0.01], "above": [0.01]}  # type: ignore[dict-item]
            for label in LABELS
        },
    ).save(rig.folder / FILE)
    cameras: list[VirtualSIMCamera] = []
    initialize = VirtualSIMCamera.initialize
    monkeypatch.setattr(
        VirtualSIMCamera, "initialize", lambda self: (cameras.append(self), initialize(self))[1]
    )
    n_shown = 4
    with core_of(rig.folder, exposure_ms=1, SensorSize=SIZE, TimePoints=n_shown) as core:
        without = RawBank(
            rig, SIZE, n_shown, seed=0, photons=300.0, bleaching=0.002, interval_s=0.5,
            channel="dyes", visible=("lysosomes",),
        )  # fmt: skip
        banks = cameras[0]._banks
        schedule = Paced(rig.audit or AuditConfig())
        sequence = MDASequence(
            channels=[{"config": name, "group": "Channel"} for name in ("dyes", *TRUE)],
            time_plan=TIntervalLoops(interval=0.05, loops=N_T),
        )
        plan = AuditPlan(sequence, rig.raw_frames, TRUE, schedule)
        session = LiveSR(
            core, rig=rig, plan=plan, store=tmp_path / "run.ome.zarr", policy="complete", threads=1
        )
        frames: list[Any] = []

        def seen(frame: Any) -> None:
            frames.append(frame)
            schedule.seen = frame.t + 1

        with session:
            session.frame_ready.connect(seen)
            schedule.waits, schedule.change = True, lambda: banks.update(dyes=without)
            core.mda.run(plan)
    audits = session.report["audits"]
    assert session.report["error"] is None
    assert session.report["sr_frames"] == N_T
    assert [audit["reason"] for audit in audits[:2]] == ["first", "doubt"]
    assert CHANGE + 3 <= audits[1]["t"] < N_T
    assert audits[0]["pcc"]["Microtubules"] > audits[1]["pcc"]["Microtubules"] + 0.1
    scored = {frame.t for frame in frames if frame.score}
    assert scored == {audit["t"] for audit in audits}
    # Bars of 0.01 are too narrow for anything; after the first audit they are not.
    assert min(audits[0]["covered"].values()) < 0.9
    assert max(audits[0]["widened"].values()) > 1
    before, after = frames[0].limits, frames[2].limits
    assert (after[1] - frames[2].channels).max() > 1.5 * (before[1] - frames[0].channels).max()
    # The true channels were exposed at the audits only, and the store says the same.
    store = RecordedStore(Path(session.report["store"]))
    taken = {t for (stream, t) in store.pictures("recon") if stream.channel == "488"}
    assert taken == {audit["t"] for audit in audits}
    lines = {t: line for (_, t), line in store.pictures("sr").items()}
    assert all(("score" in lines[t]) == (t in scored) for t in lines)
    assert session.report["dose"]["channels"]["488"]["exposures"] == 9 * len(audits)
    table = run_table(session.report)
    assert "audits" in list(table.columns[0].cells)


# -- a network that does not keep up ---------------------------------------------------------------


def run_of(rig: RigConfig, plan: Any, exposure_ms: float = 1.0, **settings: Any) -> dict[str, Any]:
    with core_of(rig.folder, exposure_ms=exposure_ms, SensorSize=SIZE, TimePoints=2) as core:
        session = LiveSR(core, rig=rig, plan=plan, threads=1, **settings)
        with session:
            core.mda.run(plan)
    assert session.report["error"] is None
    return dict(session.report)


def planned(rig: RigConfig, n_t: int, channels: Sequence[str] = ("dyes", *TRUE)) -> AuditPlan:
    sequence = MDASequence(
        channels=[{"config": name, "group": "Channel"} for name in channels],
        time_plan=TIntervalLoops(interval=0.05, loops=n_t),
    )
    return AuditPlan(sequence, rig.raw_frames, TRUE, Counted(rig.audit or AuditConfig()))


class Counted(AuditSchedule):
    """Due by the number of the time point."""

    def __init__(self, settings: AuditConfig) -> None:
        super().__init__(settings, clock=lambda: float(self.t))
        self.t = 0

    def due(self, t: int) -> bool:
        self.t = t
        return super().due(t)


def test_what_true_channels_were_exposed_for_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is busy from the first window to the last: of what waits, only what is to be
    scored is kept, the newest of it."""
    n_t, every = 11, 4
    rig = audited_rig(tmp_path, every_s=every, when_doubtful=False)
    measured, may = [], threading.Event()
    predict, hand_on = Separation.predict, Audits.measured

    def slow(self: Separation, slot: int, window: Any) -> Any:
        assert may.wait(100)
        return predict(self, slot, window)

    def counting(self: Audits, frame: Any) -> None:
        hand_on(self, frame)
        measured.append(frame.stream.channel)
        if measured.count("dyes") == n_t:
            may.set()

    monkeypatch.setattr(Separation, "predict", slow)
    monkeypatch.setattr(Audits, "measured", counting)
    report = run_of(rig, planned(rig, n_t), policy="latest", provisional="off")
    assert [audit["t"] for audit in report["audits"]] == [0, 8]
    assert report["audits_missed"] == 1  # of t=4
    line = dict(zip(*(column.cells for column in run_table(report).columns), strict=True))["audits"]
    assert "2 frames beside" in line
    assert "1 more could not be scored" in line


def test_audits_are_no_part_of_what_dyes_one_after_the_other_would_cost(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300, when_doubtful=False)
    dose = run_of(rig, planned(rig, 3), policy="complete")["dose"]
    assert dose["spent"]["exposures"] == 9 * 3 + 27
    assert dose["one_after_the_other"]["exposures"] == 27 * 3


def test_a_run_without_the_true_channels_says_that_nothing_is_scored(tmp_path: Path) -> None:
    rig = audited_rig(tmp_path, every_s=300)
    report = run_of(rig, planned(rig, 3, ["dyes", "488"]), policy="complete")
    assert [w for w in report["warnings"] if "does not acquire 561, 640" in w]
    assert "audits" not in report


def test_an_engine_that_waits_for_no_later_frame_is_scored_as_well(tmp_path: Path) -> None:
    """The prediction of a time point may come before the next: its truth is there by then."""
    rig = audited_rig(tmp_path, every_s=2, when_doubtful=False)
    identity_engine(tmp_path / "single", window=1)
    rig = rig.with_engine(str(tmp_path / "single"))
    report = run_of(rig, planned(rig, 5), exposure_ms=20.0, policy="complete")
    assert [audit["t"] for audit in report["audits"]] == [0, 2, 4]


def test_what_is_computed_again_is_scored_again(tmp_path: Path) -> None:
    """By the true channels that the store holds: with another engine, the scores are its own."""
    rig = audited_rig(tmp_path, every_s=4, when_doubtful=False)
    live = run_of(rig, planned(rig, 6), policy="complete", store=tmp_path / "run.ome.zarr")
    scores = [(audit["t"], audit["pcc"]) for audit in live["audits"]]
    assert [t for t, _ in scores] == [0, 4]
    recorded = Path(live["store"])
    again = process(
        raw_input(recorded), tmp_path / "again.ome.zarr", compute=ComputeConfig(threads=1)
    )
    assert [t for t, _ in scores] == [audit["t"] for audit in again["audits"]]
    for (_, before), audit in zip(scores, again["audits"], strict=True):
        assert audit["pcc"] == pytest.approx(before, abs=1e-3)
    for spent in ("spent", "one_after_the_other"):
        assert again["dose"][spent] == live["dose"][spent]
    # The levels that a run repeats lag behind the specimen: by them nothing is said of its signal.
    assert all("signal_left" in channel for channel in live["dose"]["channels"].values())
    assert not any("signal_left" in channel for channel in again["dose"]["channels"].values())
    nothing = identity_engine(tmp_path / "nothing")
    raw = raw_input(recorded, engine=str(nothing.folder))
    other = process(raw, tmp_path / "other.ome.zarr", compute=ComputeConfig(threads=1))
    assert [audit["t"] for audit in other["audits"]] == [0, 4]
    assert other["audits"][0]["pcc"].keys() == {"Structure 1", "Structure 2", "Structure 3"}
