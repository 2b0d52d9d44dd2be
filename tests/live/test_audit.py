"""Audit frames: when they are due, what they find, and what follows from it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from useq import MDASequence, TIntervalLoops

from livesr import LiveSR
from livesr.base.config import AuditConfig, RigConfig, load_rig, parse
from livesr.base.error_bars import FILE, ErrorBars
from livesr.base.errors import ConfigError
from livesr.cli.experiment import Experiment, plan_of
from livesr.cli.output import run_table
from livesr.formats.store import RecordedStore
from livesr.live.audit import AuditSchedule
from livesr.live.inference.engine import load_engine
from livesr.live.sources.plan import AuditPlan
from livesr.modalities.sim.simulation.rig import RawBank, VirtualSIMCamera
from rig_copies import RIGS
from rigs import core_of

LABELS = ("Microtubules", "ER", "Lysosomes")
TRUE = ("488", "561", "640")
N_T, CHANGE, SIZE = 14, 6, 64


def audited_rig(folder: Path, **audit: Any) -> RigConfig:
    """The rig with three dyes, and a channel that excites all of them."""
    target = folder / "audited"
    shutil.copytree(RIGS / "virtual_dyes", target)
    said = yaml.safe_load((target / "rig.yaml").read_text(encoding="utf-8"))
    engine = said["superpose"]["separate"]
    said["channels"] = {
        "all": {"reconstruct": "sim", "emission_nm": 525, "separate": engine},
        **said["channels"],
    }
    said["audit"] = audit
    (target / "rig.yaml").write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    cfg = (target / "rig.cfg").read_text(encoding="utf-8")
    cfg = cfg.replace("Camera,Rig,virtual_dyes", f"Camera,Rig,{target}")
    cfg = cfg.replace("640:lysosomes", "640:lysosomes all:microtubules+er+lysosomes")
    cfg = cfg.replace("Label,Laser,2,640", "Label,Laser,2,640\nLabel,Laser,3,all")
    cfg += (
        "\nConfigGroup,Channel,all,Laser,Label,all\n#py ConfigGroup,Channel,all,Camera,Channel,all"
    )
    cfg += "\nConfigPixelSize,ResAll,Laser,Label,all\nPixelSize_um,ResAll,0.065\n"
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
    assert taken == [(0, "all"), (0, "488"), (0, "561"), (0, "640"), (1, "all"), (2, "all")]


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
        del text["channels"]["all"]
    else:
        del text["superpose"]
    with pytest.raises(ConfigError, match=said):
        parse(RigConfig, text, "rig.yaml")


# -- a run in which the specimen changes -----------------------------------------------------------


class Paced(AuditSchedule):
    """Decides only when the network has seen what it can have: the clock counts time points."""

    def __init__(self, settings: AuditConfig) -> None:
        super().__init__(settings, clock=lambda: float(self.t))
        self.t, self.seen = 0, 0
        self.waits = False

    def due(self, t: int) -> bool:
        deadline = time.monotonic() + 100
        while self.waits and self.seen < t - 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        self.t = t
        return super().due(t)


def test_the_specimen_changes_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Microtubules vanish: a warning rises, an audit follows, and trust falls where it should."""
    rig = audited_rig(tmp_path, every_s=60)
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
            channel="all", visible=("lysosomes",),
        )  # fmt: skip
        banks = cameras[0]._banks
        schedule = Paced(rig.audit or AuditConfig())
        sequence = MDASequence(
            channels=[{"config": name, "group": "Channel"} for name in ("all", *TRUE)],
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
            if frame.t + 3 >= CHANGE:
                banks["all"] = without

        with session:
            session.frame_ready.connect(seen)
            schedule.waits = True
            core.mda.run(plan)
    audits = session.report["audits"]
    assert session.report["error"] is None
    assert session.report["sr_frames"] == N_T
    assert [audit["reason"] for audit in audits[:2]] == ["first", "doubt"]
    assert CHANGE - 3 <= audits[1]["t"] < N_T
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
