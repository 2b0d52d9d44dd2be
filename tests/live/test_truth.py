"""Random plans, random losses, a network that is sometimes too slow.

What is in the store is what the camera exposed.

`LIVESR_EXAMPLES=200 pytest tests/live/test_truth.py` tries many more.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import useq
import useq.v2 as v2
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_coordinates import truth
from useq import MDAEvent

from coordinates import (
    RAW_FRAMES,
    CoordinateCore,
    CoordinateReconstructor,
    Stamp,
    coordinate_rig,
    read,
    window_engine,
)
from fuzzing import examples
from livesr import LiveSR
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.formats.store import RecordedStore
from livesr.live.inference.openvino import OpenVINOSession
from livesr.live.sources.plan import SIMAxis
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import store_input
from recorded_runs import Live, array, assert_equal, mixing_engine, moving_groups, sim_rig

TICK_NS = 1_000_000
ENGINE = "small"
ORDERS = [
    o
    for o in itertools.permutations("tpczs")
    if o.index("t") < o.index("z") and o.index("t") < o.index("s")
]


@dataclass(frozen=True)
class Case:
    """A plan, what of it never comes, and how the run keeps up."""

    order: tuple[str, ...]
    time_points: int
    positions: int
    planes: int
    channels: tuple[str, ...]
    sim: bool
    policy: str
    slow_every: int
    restarted: bool
    lost: frozenset[int]
    twice: frozenset[int]

    def plan(self) -> v2.MDASequence:
        raw = {"488": RAW_FRAMES if self.sim else 1, "561": 1}
        axes: dict[str, Any] = {
            "t": v2.TIntervalLoops(interval=0, loops=self.time_points),
            "p": v2.StagePositions(
                values=[v2.Position(x=5.0 * i, y=0, name=f"P{i}") for i in range(self.positions)]
            ),
            "c": v2.ChannelsPlan(values=[useq.Channel(config=c) for c in self.channels]),
            "z": v2.ZRangeAround(range=0.5 * (self.planes - 1), step=0.5),
            "s": SIMAxis(values=list(range(RAW_FRAMES if self.sim else 1)), raw_frames=raw),
        }
        keys = {"s": "sim"}
        return v2.MDASequence(
            axes=tuple(axes[key] for key in self.order),
            axis_order=tuple(keys.get(key, key) for key in self.order),
        )

    def events(self) -> list[MDAEvent]:
        """What is really acquired."""
        events = []
        for i, event in enumerate(self.plan()):
            if i not in self.lost:
                events += [event, event] if i in self.twice else [event]
        return events


CASES = st.builds(
    Case,
    order=st.sampled_from(ORDERS),
    time_points=st.integers(2, 7),
    positions=st.integers(1, 2),
    planes=st.integers(1, 2),
    channels=st.sampled_from([("488",), ("561",), ("488", "561")]),
    sim=st.booleans(),
    policy=st.sampled_from(["latest", "complete"]),
    slow_every=st.sampled_from([0, 0, 2, 5]),
    restarted=st.booleans(),
    lost=st.frozensets(st.integers(0, 80), max_size=6),
    twice=st.frozensets(st.integers(0, 80), max_size=2),
)


@pytest.fixture(scope="module")
def core() -> Iterator[CoordinateCore]:
    with CoordinateCore.loaded() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engine is found again after the run, by its name."""
    home = tmp_path_factory.mktemp("home")
    window_engine(home / "engines" / ENGINE)
    return home


class InOrder(CoordinateReconstructor):
    """Keeps the first raw frame, if all are of one place and in the order of their exposure.

    Some are exposed twice.
    """

    def reconstruct(self, frames: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        stamps = [Stamp(*read(frame)) for frame in frames]
        assert len({stamp[:3] for stamp in stamps}) == 1, stamps
        assert stamps == sorted(set(stamps)), stamps
        return frames[0].astype(np.float32) - self._offset_adu


class Clock:
    """Arrival n is at n ticks, so that a time in the store is the number of the exposure."""

    def __init__(self) -> None:
        self.ticks = 0

    def __call__(self) -> int:
        self.ticks += 1
        return self.ticks * TICK_NS


@examples(6, shrink=False)
@given(case=CASES)
def test_the_store_is_what_the_camera_exposed(core: CoordinateCore, home: Path, case: Case) -> None:
    folder = Path(tempfile.mkdtemp(prefix="livesr-truth-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVESR_HOME", str(home))
        rig = rig_of(case, folder)
        patch.setattr("livesr.modalities.sim.modality.SIM.build", lambda *_: InOrder())
        report = record(core, rig, case, folder / "run.ome.zarr", patch)
        store, exposed = Path(report["store"]), Exposed(case, rig)
        check_the_counts(report, exposed, RecordedStore(store))
        check_every_exposure(exposed, store)
        if case.channels != ("561",):
            check_that_an_offline_run_agrees(store)
    shutil.rmtree(folder)


def test_no_frame_is_predicted_beside_one_that_was_given_up(tmp_path: Path) -> None:
    """Many streams, and a reconstruction so slow that the first and the last of some are
    dropped."""
    rig = sim_rig(str(mixing_engine(tmp_path / "engine").folder))
    live = Live(
        rig,
        tmp_path / "run",
        policy="latest",
        positions=("a", "b"),
        z_planes=3,
        slow={"reconstruct": 0.1},
    )
    report = live.record(moving_groups(4))
    store = RecordedStore(live.sink.path)
    measured, predicted = store.measured(), store.pictures("sr")
    assert report["groups_dropped"] > 0
    assert len(measured) == report["recon_frames"] == report["sr_frames"] + report["sr_skipped"]
    for stream, t in predicted:
        neighbours = {(stream, beside) for beside in (t - 1, t + 1) if 0 <= beside < 4}
        assert neighbours <= measured.keys(), (stream, t)


def rig_of(case: Case, folder: Path) -> RigConfig:
    """A rig on disk, so that the store keeps it."""
    channels = {
        "488": {"separate": ENGINE, **({"reconstruct": "sim"} if case.sim else {})},
        "561": {},
    }
    rig = coordinate_rig({name: channels[name] for name in case.channels})
    text = yaml.safe_dump(
        rig.model_dump(mode="json", exclude={"folder"}, exclude_none=True, exclude_defaults=True)
    )
    (folder / "rig.yaml").write_text(text, encoding="utf-8")
    (folder / "rig.cfg").touch()
    return load_rig(folder)


def record(
    core: CoordinateCore, rig: Any, case: Case, store: Path, patch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Acquire what comes of the plan, with a network that every so often takes its time.

    Perhaps after a run cut short.
    """
    infer, calls = OpenVINOSession.infer, Counter[str]()

    def slow(self: OpenVINOSession) -> Any:
        calls["infer"] += 1
        time.sleep(0.03 if case.slow_every and calls["infer"] % case.slow_every == 0 else 0)
        return infer(self)

    plan, events = case.plan(), case.events()
    with LiveSR(
        core, rig=rig, plan=plan, store=store, policy=case.policy, threads=1, precision="f32"
    ) as session:
        patch.setattr(OpenVINOSession, "infer", slow)
        for acquired in [events[: len(events) // 2], events] if case.restarted else [events]:
            session.wait()
            core.start_over()
            patch.setattr("livesr.live.sources.mda.now_ns", Clock())
            core.mda.run(acquired)
    patch.setattr(OpenVINOSession, "infer", infer)
    return session.report


class Exposed:
    """What the camera exposed, and when: counted along the events, apart from livesr."""

    def __init__(self, case: Case, rig: Any) -> None:
        events = case.events()
        self.n_raw = {name: rig.raw_frames(name) for name in case.channels}
        where = truth(events, rig)
        self.made: list[Stamp] = []
        self.stamps: dict[
            tuple[int, str, int, int, int], Stamp
        ] = {}  # the first of two at the same place
        self.arrivals: dict[tuple[int, str, int, int], dict[int, int]] = defaultdict(dict)
        counts: Counter[tuple[int, ...]] = Counter()
        for number, event in enumerate(events, start=1):
            i = event.index
            group, raw = (
                (i.get("p", 0), event.channel.config, i.get("z", 0), i.get("t", 0)),
                i.get("sim", 0),
            )
            bench = where[(*group, raw)][:3]
            self.made.append(Stamp(*bench, counts[bench]))
            counts[bench] += 1
            self.stamps.setdefault((*group, raw), self.made[-1])
            self.arrivals[group].setdefault(raw, number * TICK_NS)


def check_the_counts(report: dict[str, Any], exposed: Exposed, store: RecordedStore) -> None:
    """Every frame that was received is somewhere, and every group became something."""
    raw = [e for e in store.events if e["series"] == "raw"]
    kept = sum(
        exposed.n_raw[e["channel"]] - len(e.get("missing") or ()) for e in raw
    )  # in an array, or aside
    assert report["error"] is None
    assert report["raw_frames"] == len(exposed.made) == kept + report["raw_lost"]
    assert report["groups"] == sum(
        report[name] for name in ("recon_frames", "recon_failed", "recon_refused", "groups_dropped")
    )
    # A plane that is delayed by a gap of its own may come after its place in the array was passed:
    # it is kept aside.
    made = Counter(
        (e["series"], e["channel"])
        for e in store.events
        if e["state"] in ("recon", "separated", "stray")
    )
    assert report["recon_frames"] == sum(made["recon", name] for name in exposed.n_raw)
    assert report["sr_frames"] == made["sr", "488"]
    assert made["recon", "488"] == report["sr_frames"] + report["sr_skipped"] + report["sr_failed"]


def check_every_exposure(exposed: Exposed, path: Path) -> None:
    """Each is kept once, at its place or aside; pixels, places and times are the camera's."""
    store, kept = RecordedStore(path), []
    for image in (i for i in store.images.values() if i.kind == "raw"):
        pixels = array(path, image.name)
        pixels = pixels if pixels.ndim == 5 else pixels[:, :, None]
        for t, raw, z in np.ndindex(pixels.shape[:3]):
            if pixels[t, raw, z].any():
                kept.append(read(pixels[t, raw, z]))
                assert kept[-1] == exposed.stamps[image.position, image.channel, z, t, raw], (
                    image.name,
                    t,
                    raw,
                    z,
                )
    for event in store.events:
        if (
            event["series"] == "raw" and event["state"] == "stray"
        ):  # twice, or after its place in the array was passed
            block = tifffile.imread(path / "livesr" / event["file"])
            frames = block.reshape(-1, *block.shape[-2:])
            kept += [read(frame) for frame in frames if frame.any()]
    assert sorted(kept) == sorted(exposed.made)
    for kind in ("raw", "recon", "sr"):
        for (stream, t), line in store.pictures(kind).items():
            came = exposed.arrivals[stream.position, stream.channel, stream.z, t].values()
            assert line["t_acq_ns"] == (min(came) + max(came)) // 2, (kind, stream, t)


def check_that_an_offline_run_agrees(live: Path) -> None:
    """What was separated live is what `process` gives; once backfilled, the whole store is."""
    whole = Path(
        process(
            store_input(RecordedStore(live)),
            live.with_name("offline.ome.zarr"),
            compute=ComputeConfig(threads=1),
        )["store"]
    )
    pictures = RecordedStore(live).pictures("sr")
    for image in (i for i in RecordedStore(live).images.values() if i.kind == "sr"):
        mine, theirs = array(live, image.name).astype(int), array(whole, image.name).astype(int)
        for stream, t in (
            k for k in pictures if (k[0].position, k[0].channel) == (image.position, image.channel)
        ):
            place = (t, slice(None), stream.z) if mine.ndim == 5 else t
            assert np.abs(mine[place] - theirs[place]).max() <= 1, (stream, t)
    backfill(live, compute=ComputeConfig(threads=1))
    assert_equal(live, whole)
