"""Every frame lands at its place.

Plans in any order through a real core whose exposures say where they were made.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import useq.v2 as v2
import zarr
import zmq
from useq import MDAEvent, MDASequence

from coordinates import (
    CHANNELS,
    RAW_FRAMES,
    CoordinateCore,
    CoordinateReconstructor,
    Stamp,
    coordinate_rig,
    read,
    window_engine,
)
from livesr import LiveSR
from livesr.base.errors import ConfigError
from livesr.cli.experiment import Experiment, plan_of
from livesr.formats.store import RecordedStore
from livesr.live.inference.openvino import OpenVINOSession
from livesr.live.sources.plan import SIMAxis

OFFSET_ADU = 100.0
POSITIONS = [useq.Position(x=5.0 * i, y=0, z=10 * i, name=f"P{i}") for i in range(2)]
V1_ORDERS = ["".join(order) for order in itertools.permutations("tpcz")]
# Every axis outermost and innermost, and every two in both orders; the others run nightly.
OFTEN = ("tpcz", "ptcz", "ctpz", "cptz", "tzpc", "tzcp", "zctp", "zptc", "pzct", "cpzt", "czpt")


def orders(of: Callable[[str], bool]) -> list[Any]:
    return [
        pytest.param(order, marks=() if order in OFTEN else pytest.mark.slow)
        for order in V1_ORDERS
        if of(order)
    ]


@pytest.fixture(scope="module")
def core() -> Iterator[CoordinateCore]:
    with CoordinateCore.loaded() as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(
        "livesr.modalities.sim.modality.SIM.build",
        lambda *_: CoordinateReconstructor(),
    )
    return str(window_engine(tmp_path / "window").folder)


def plain(order: str, n_t: int = 3) -> MDASequence:
    return MDASequence(
        axis_order=order,
        time_plan=useq.TIntervalLoops(interval=0, loops=n_t),
        stage_positions=POSITIONS,
        channels=["488", "561"],
        z_plan=useq.ZRangeAround(range=1, step=0.5),
    )


def with_raw(order: tuple[str, ...], n_t: int = 3) -> v2.MDASequence:
    axes = {
        "t": v2.TIntervalLoops(interval=0, loops=n_t),
        "p": v2.StagePositions(values=[v2.Position(x=p.x, y=0, name=p.name) for p in POSITIONS]),
        "c": v2.ChannelsPlan(values=[useq.Channel(config=c) for c in ("488", "561")]),
        "z": v2.ZRangeAround(range=1, step=0.5),
        "sim": SIMAxis(values=list(range(RAW_FRAMES)), raw_frames={"488": RAW_FRAMES, "561": 1}),
    }
    return v2.MDASequence(axes=tuple(axes[key] for key in order), axis_order=order)


def rig(engine: str, *, sim: bool = False) -> Any:
    sim_channel = {"reconstruct": "sim"} if sim else {}
    return coordinate_rig(
        {"488": {**sim_channel, "separate": engine}, "561": {"separate": engine}, "640": {}}
    )


class Run:
    """A plan acquired into a store, and published.

    And what the devices must have written into every exposure.
    """

    def __init__(
        self,
        core: CoordinateCore,
        rig: Any,
        plan: Any,
        store: Path,
        *,
        events: Any = None,
        publish: bool = False,
        **settings: Any,
    ) -> None:
        core.start_over()
        self.store = store
        self.truth = truth(plan if events is None else events, rig)
        self.messages: list[tuple[str, dict[str, Any], np.ndarray]] = []
        self.published = publish
        self.array = cache(self._array)
        about = {"policy": "complete", "threads": 1, "precision": "f32", **settings}
        about["publish"] = "tcp://127.0.0.1:*" if publish else None
        with (
            ThreadPoolExecutor(1) as pool,
            LiveSR(core, rig=rig, plan=plan, store=store, **about) as session,
        ):
            listening = pool.submit(self._listen, session.endpoint) if session.endpoint else None
            core.mda.run(plan if events is None else events)
        if listening:
            listening.result()
        self.report = session.report

    def _listen(self, endpoint: str) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.set(zmq.RCVHWM, 10_000)
            socket.subscribe(b"")
            socket.connect(endpoint)
            while socket.poll(60_000):
                topic, header, pixels = socket.recv_multipart()
                if topic == b"end":
                    return
                if topic in (b"sr/frame", b"sr/input"):
                    about = json.loads(header)
                    image = np.frombuffer(pixels, about["dtype"]).reshape(about["shape"])
                    self.messages.append((topic.decode(), about, image))

    def _array(self, kind: str, position: str, channel: str) -> np.ndarray:
        return np.asarray(
            zarr.open_array(self.store / f"{kind}_{position}_{channel}" / "0", mode="r")[:]
        )


def truth(events: Any, rig: Any) -> dict[tuple[int, str, int, int, int], Stamp]:
    """(p, channel, z, t, raw) -> what is written into the exposure, told by counting the plan's
    events at every place."""
    made: Counter[tuple[int, int, int]] = Counter()
    stamps = {}
    x = z_um = 0.0
    for event in events:
        x = event.x_pos if event.x_pos is not None else x
        z_um = event.z_pos if event.z_pos is not None else z_um
        channel = event.channel.config
        where = round(2 * x), CHANNELS.index(channel), round(2 * z_um)
        i = event.index
        stamps[i.get("p", 0), channel, i.get("z", 0), i.get("t", 0), i.get("sim", 0)] = Stamp(
            *where, made[where]
        )
        made[where] += 1
    return stamps


def assert_every_frame_is_at_its_place(run: Run, names: tuple[str, ...] = ("P0", "P1")) -> None:
    store, stamps = RecordedStore(run.store), run.truth
    assert run.report["error"] is None
    assert (run.report["raw_frames"], run.report["raw_lost"], run.report["raw_repeated"]) == (
        len(stamps),
        0,
        0,
    )
    streams = sorted({key[:3] for key in stamps})
    measured: dict[tuple[int, str, int, int], Stamp] = {
        k[:4]: s for k, s in stamps.items() if k[4] == 0
    }
    for p, channel in sorted({key[:2] for key in stamps}):
        raw, recon = run.array("raw", names[p], channel), run.array("recon", names[p], channel)
        raw = raw if raw.ndim == 5 else raw[:, :, None]
        recon = recon if recon.ndim == 4 else recon[:, None]
        here = {key[2:]: stamp for key, stamp in stamps.items() if key[:2] == (p, channel)}
        for t, sim, z in np.ndindex(raw.shape[:3]):
            if (z, t, sim) in here:
                assert read(raw[t, sim, z]) == here[z, t, sim], (p, channel, t, sim, z)
            else:
                assert not raw[t, sim, z].any(), (p, channel, t, sim, z)
        for t, z in np.ndindex(recon.shape[:2]):
            if (z, t, 0) in here:
                assert read(recon[t, z], OFFSET_ADU - 1000) == here[z, t, 0]
    assert {(s.position, s.channel, s.z, t) for s, t in store.pictures("raw")} == measured.keys()
    assert {(s.position, s.channel, s.z, t) for s, t in store.pictures("recon")} == measured.keys()
    predicted = {
        (s.position, s.channel, s.z, t): line for (s, t), line in store.pictures("sr").items()
    }
    separated = {(p, c, z) for p, c, z in streams if ("sr", p, c) in store.images}
    assert predicted.keys() == {key for key in measured if key[:3] in separated}
    for (p, channel, z, t), line in predicted.items():
        sr = run.array("sr", names[p], channel)
        planes = sr[t, :, z] if sr.ndim == 5 else sr[t]
        assert_is_the_window_of(planes, (p, channel, z, t), line["normalisation"], measured)
    for topic, header, image in run.messages:
        key = header["position"], header["channel"], header["z"], header["t"]
        assert header["position_name"] == names[header["position"]]
        if topic == "sr/frame":
            assert_is_the_window_of(image, key, header["normalisation"], measured)
        else:
            assert read(image, OFFSET_ADU - header["offset_adu"]) == measured[key]
            per_group = max(k[4] for k in stamps if k[1] == key[1]) + 1
            assert header["raw_seq"] == [key[3] * per_group, (key[3] + 1) * per_group - 1]
    assert {topic for topic, _, _ in run.messages} == (
        {"sr/input", "sr/frame"} if run.published else set()
    )


def assert_is_the_window_of(
    planes: np.ndarray,
    key: tuple[int, str, int, int],
    normalisation: dict[str, float],
    measured: dict[Any, Stamp],
) -> None:
    """The engine's channels are the frames that it saw.

    They must be the neighbours in time of the same stream.
    """
    *stream, t = key
    for step, plane in zip((-1, 0, 1), planes, strict=True):
        neighbour = measured.get((*stream, t + step), measured[key])
        assert read(plane, normalisation["background"] + OFFSET_ADU) == neighbour, (key, step)


@pytest.mark.parametrize("order", orders(lambda o: o.index("t") < o.index("z")))
def test_every_order_of_a_plain_plan(
    core: CoordinateCore, tmp_path: Path, engine: str, order: str
) -> None:
    run = Run(core, rig(engine), plain(order), tmp_path / "r.ome.zarr", publish=order == "ptcz")
    assert_every_frame_is_at_its_place(run)


@pytest.mark.parametrize("order", orders(lambda o: o.index("z") < o.index("t")))
def test_time_inside_z_makes_an_image_of_every_plane(
    core: CoordinateCore, tmp_path: Path, engine: str, order: str
) -> None:
    assert_planes_are_images(
        Run(core, rig(engine), plain(order), tmp_path / "r.ome.zarr", publish=order == "zctp")
    )


def test_time_inside_z_with_a_raw_axis(core: CoordinateCore, tmp_path: Path, engine: str) -> None:
    plan = with_raw(("z", "c", "t", "sim", "p"))
    assert_planes_are_images(Run(core, rig(engine, sim=True), plan, tmp_path / "r.ome.zarr"))


def assert_planes_are_images(run: Run) -> None:
    planes = {(p, z): 3 * p + z for p in range(2) for z in range(3)}
    run.truth = {
        (planes[p, z], c, 0, t, raw): stamp for (p, c, z, t, raw), stamp in run.truth.items()
    }
    assert len({key[0] for key in run.truth}) == len(planes)
    assert_every_frame_is_at_its_place(run, tuple(f"P{p}-z{z}" for p, z in planes))


# The raw axis at every place after t, beside every order of the others relative to t and to each
# other at least once; all sixty orders with t before sim were run by hand.
SIM_ORDERS = [
    ("t", "sim", "p", "c", "z"),
    ("t", "c", "sim", "z", "p"),
    ("p", "t", "z", "sim", "c"),
    ("c", "t", "p", "z", "sim"),
    ("c", "p", "t", "sim", "z"),
    ("p", "c", "t", "z", "sim"),
]


@pytest.mark.parametrize("order", SIM_ORDERS, ids="-".join)
def test_the_raw_axis_at_every_place(
    core: CoordinateCore, tmp_path: Path, engine: str, order: tuple[str, ...]
) -> None:
    plan = with_raw(order)
    run = Run(core, rig(engine, sim=True), plan, tmp_path / "r.ome.zarr", publish=order[0] == "t")
    assert_every_frame_is_at_its_place(run)


def test_a_rig_whose_channels_need_different_numbers_of_raw_frames(
    core: CoordinateCore, tmp_path: Path, engine: str
) -> None:
    described = coordinate_rig(
        {"488": {"reconstruct": "sim", "separate": engine}, "561": {"separate": engine}}
    )
    plan = plan_of(Experiment(frames=4), described, exposure_ms=1.0)
    triggered: Counter[tuple[str, bool]] = Counter()

    def note(image: Any, event: MDAEvent, meta: Any) -> None:
        triggered[event.channel.config, bool(meta.get("hardware_triggered"))] += 1

    core.mda.events.frameReady.connect(note)
    run = Run(core, described, plan, tmp_path / "r.ome.zarr")
    core.mda.events.frameReady.disconnect(note)
    assert triggered == {("488", True): 4 * RAW_FRAMES, ("561", False): 4}
    assert_every_frame_is_at_its_place(run, ("0",))


def test_positions_with_their_own_planes_and_channels(
    core: CoordinateCore, tmp_path: Path, engine: str
) -> None:
    """Fewer planes than another position: zeros, without a line, where there are none."""
    stack = MDASequence(z_plan=useq.ZRangeAround(range=0.5, step=0.5))
    both = MDASequence(channels=["561", "640"], z_plan=useq.ZRangeAround(range=1.5, step=0.5))
    plan = MDASequence(
        time_plan=useq.TIntervalLoops(interval=0, loops=3),
        channels=["488"],
        stage_positions=[
            useq.Position(x=0, y=0, z=0, name="A", sequence=stack),
            useq.Position(x=5, y=0, z=0, name="B", sequence=both),
            useq.Position(x=9, y=0, z=3, name="C"),
        ],
    )
    run = Run(core, rig(engine), plan, tmp_path / "r.ome.zarr")
    assert_every_frame_is_at_its_place(run, ("A", "B", "C"))
    assert run.array("raw", "B", "640").shape[2] == 4


def test_a_channel_at_some_time_points_only(
    core: CoordinateCore, tmp_path: Path, engine: str
) -> None:
    channels = [
        useq.Channel(config="488"),
        useq.Channel(config="640", acquire_every=2, do_stack=False),
    ]
    plan = MDASequence(
        axis_order="tpcz",
        time_plan=[{"interval": 0, "loops": 2}, {"interval": 0.01, "loops": 3}],
        stage_positions=POSITIONS,
        channels=channels,
        z_plan=useq.ZRangeAround(range=1, step=0.5),
        keep_shutter_open_across="z",
    )
    core.shutter.opened = 0
    run = Run(core, rig(engine), plan, tmp_path / "r.ome.zarr")
    assert_every_frame_is_at_its_place(run)
    assert 0 < core.shutter.opened < run.report["raw_frames"]
    lone = coordinate_rig({"488": {}, "640": {"separate": engine}})
    with pytest.raises(
        ConfigError, match="never acquires channel '640' at two time points in a row"
    ):
        Run(core, lone, plan, tmp_path / "lone.ome.zarr")


def test_missing_exposures_and_missing_time_points(
    core: CoordinateCore, tmp_path: Path, engine: str
) -> None:
    plan = with_raw(("t", "p", "c", "z", "sim"), n_t=7)
    lost = {(2, 0, "488", 1): {1}, (4, 1, "561", 0): {0}, (5, 1, "488", 2): {0, 1, 2}}

    def comes(event: MDAEvent) -> bool:
        i = event.index
        return i["sim"] not in lost.get((i["t"], i["p"], event.channel.config, i["z"]), ())

    run = Run(
        core,
        rig(engine, sim=True),
        plan,
        tmp_path / "r.ome.zarr",
        events=[e for e in plan if comes(e)],
    )
    store = RecordedStore(run.store)
    measured = {(s.position, s.channel, s.z, t) for s, t in store.pictures("recon")}
    assert {(t, p, c, z) for p, c, z in {k[:3] for k in run.truth} for t in range(7)} - {
        (t, p, c, z) for p, c, z, t in measured
    } == lost.keys()
    centres = {k[:4]: s for k, s in run.truth.items() if k[:4] in measured and k[4] == 0}
    for (stream, t), line in store.pictures("sr").items():
        key = (stream.position, stream.channel, stream.z, t)
        planes = run.array("sr", f"P{key[0]}", key[1])[t, :, key[2]]
        assert_is_the_window_of(planes, key, line["normalisation"], centres)
        beside = {(t + step, *key[:3]) for step in (-1, 1)}
        assert line["true_neighbours"] == (not beside & lost.keys())
    raw = run.array("raw", "P0", "488")
    assert [read(raw[2, i, 1])[3] if i != 1 else raw[2, i, 1].any() for i in range(3)] == [
        6,
        False,
        7,
    ]


def test_a_run_that_is_cancelled(core: CoordinateCore, tmp_path: Path, engine: str) -> None:
    plan, seen = with_raw(("t", "p", "c", "z", "sim"), n_t=50), Counter[str]()

    def cancel(image: Any, event: MDAEvent, meta: Any) -> None:
        seen["frames"] += 1
        if seen["frames"] == 59:
            core.mda.cancel()

    core.mda.events.frameReady.connect(cancel)
    run = Run(core, rig(engine, sim=True), plan, tmp_path / "r.ome.zarr")
    core.mda.events.frameReady.disconnect(cancel)
    came = dict(itertools.islice(run.truth.items(), run.report["raw_frames"]))
    assert 59 <= len(came) < 120
    whole = Counter(k[:4] for k in came)
    centres = {
        k[:4]: s
        for k, s in came.items()
        if k[4] == 0 and whole[k[:4]] == (3 if k[1] == "488" else 1)
    }
    pictures = RecordedStore(run.store).pictures("sr")
    assert {(s.position, s.channel, s.z, t) for s, t in pictures} == centres.keys()
    for (stream, t), line in pictures.items():
        key = (stream.position, stream.channel, stream.z, t)
        planes = run.array("sr", f"P{key[0]}", key[1])[t, :, key[2]]
        assert_is_the_window_of(planes, key, line["normalisation"], centres)


def test_skipped_centres_of_a_stack_keep_its_order(
    core: CoordinateCore, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow network leaves out whole stacks.

    No plane comes after a plane of a later time point.
    """
    infer = OpenVINOSession.infer

    def slow(self: OpenVINOSession) -> Any:
        time.sleep(0.05)
        return infer(self)

    monkeypatch.setattr(OpenVINOSession, "infer", slow)
    plan = plain("tpcz", n_t=12)
    run = Run(core, rig(engine), plan, tmp_path / "r.ome.zarr", policy="latest", publish=True)
    assert run.report["sr_skipped"] + run.report["groups_dropped"] > 5
    store = RecordedStore(run.store)
    assert not [e for e in store.events if e["state"] == "stray"]
    centres = {k[:4]: s for k, s in run.truth.items()}
    pictures = store.pictures("sr")
    for (stream, t), line in pictures.items():
        key = (stream.position, stream.channel, stream.z, t)
        planes = run.array("sr", f"P{key[0]}", key[1])[t, :, key[2]]
        assert_is_the_window_of(planes, key, line["normalisation"], centres)
    for topic, header, image in run.messages:
        key = header["position"], header["channel"], header["z"], header["t"]
        if topic == "sr/frame" and not header["provisional"]:  # whose neighbour has not come yet
            assert_is_the_window_of(image, key, header["normalisation"], centres)
