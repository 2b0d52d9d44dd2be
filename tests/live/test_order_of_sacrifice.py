"""A network that does not keep up costs predictions, and no measurement, in every modality and
with every combination of steps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.live.sinks.sink import Sink
from livesr.modalities.registry import MODALITIES
from livesr.modalities.storm.config import STORMConfig
from recorded_runs import Live, mixing_engine, moving_groups, sim_rig
from upscaling import edsr_engine

GROUPS, PATIENCE_S = 12, 60.0
STEPS = [("linear-x2", "none"), ("none", "mixing"), ("linear-x2", "mixing")]


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path / "home"))
    edsr_engine(tmp_path / "home" / "engines" / "linear-x2")
    mixing_engine(tmp_path / "home" / "engines" / "mixing")


def rig_of(modality: str) -> RigConfig:
    if modality == "sim":
        return sim_rig("none")
    if modality == "storm":
        rig = load_rig("virtual_storm")
        return rig.with_section(STORMConfig.of(rig).model_copy(update={"frames": 3}))
    rig = load_rig("demo")
    return rig.model_copy(update={"channels": {"488": rig.channels["488"]}, "modality": modality})


class Measured(Sink):
    """Counts measurements, and keeps the time points of predictions."""

    name = "measured"
    lossless = True

    def __init__(self) -> None:
        self.measured, self.predicted = threading.Semaphore(0), list[int]()

    def recon(self, frame: SRFrame) -> None:
        self.measured.release()

    def separated(self, frame: MulticolorFrame) -> None:
        self.predicted.append(frame.t)


class Gated:
    """A network that answers when it may, whenever that is."""

    def __init__(self, session: Any, may: threading.Event) -> None:
        self._session, self._may = session, may

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def infer(self) -> Any:
        assert self._may.wait(PATIENCE_S), "nobody let the network answer"
        return self._session.infer()


@pytest.mark.parametrize(("upscale", "separate"), STEPS)
@pytest.mark.parametrize("modality", MODALITIES.names)
def test_a_network_that_does_not_answer_costs_no_measurement(
    modality: str, upscale: str, separate: str, tmp_path: Path
) -> None:
    """Every group is measured while the network is still busy with its first window."""
    rig = rig_of(modality).with_engine(separate).with_engine(upscale, "upscale")
    sink, may = Measured(), threading.Event()
    live = Live(
        rig,
        tmp_path / "run.ome.zarr",
        policy="latest",
        sinks=[sink],
        network=lambda session: Gated(session, may),
    )
    missed: list[int] = []

    def measured(t: int) -> float:
        if not sink.measured.acquire(timeout=PATIENCE_S):
            missed.append(t)
        if t == GROUPS - 1 or missed:
            may.set()
        return 0.0

    n_raw = max(path.n_raw for path in live.paths.values())
    report = live.record(moving_groups(GROUPS, n_raw), pace_s=measured)
    assert not missed
    assert (report["recon_frames"], report["groups_dropped"]) == (GROUPS, 0)
    assert report["raw_lost"] == 0
    # The network saw what it had in hand, and the newest of what waited.
    assert sink.predicted[-1] == GROUPS - 1
    assert len(sink.predicted) <= 4
    assert report["sr_frames"] + report["sr_skipped"] == GROUPS
