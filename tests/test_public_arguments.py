"""What a script gives of another kind is refused with a sentence, not with an error from inside."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus

import livesr
from livesr import ConfigError, LiveSR, Replay, load_rig, sim_sequence, with_raw_frames
from rigs import SIZE, core_of, virtual_sim

NO_PATHS = [5, None, 2.5, {"a": 1}, [1], b"x", object()]


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=1, demo_px=32) as core:
        yield core


@pytest.fixture(scope="module")
def recorded(core: CMMCorePlus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = useq.MDASequence(time_plan={"interval": 0, "loops": 3}, channels=["488"])
    folder = tmp_path_factory.mktemp("recorded")
    with LiveSR(core, rig="demo", engine="none", store=folder / "r.ome.zarr") as session:
        core.mda.run(plan)
    assert session.store is not None
    return session.store


@pytest.mark.parametrize("given", NO_PATHS, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize(
    "call",
    [
        livesr.load_rig,
        livesr.raw_input,
        livesr.backfill,
        livesr.complete,
        livesr.Replay,
        livesr.Subscriber,
        lambda given: livesr.process(given, Path("run.ome.zarr")),
    ],
    ids=["load_rig", "raw_input", "backfill", "complete", "Replay", "Subscriber", "process"],
)
def test_what_is_no_path(call: Callable[[Any], Any], given: object) -> None:
    with pytest.raises(ConfigError, match=r" is (None|.* \(\w+\)); expected "):
        call(given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("rig", {"modality": "sim"}),
        ("plan", 5),
        ("plan", "plan.yaml"),
        ("plan", {"channels": ["488"]}),
        ("plan", useq.MDAEvent()),
        ("sinks", 5),
        ("sinks", "picasso"),
    ],
)
def test_what_live_sr_cannot_take(core: CMMCorePlus, name: str, given: object) -> None:
    with pytest.raises(ConfigError, match=f"(?i)^(the )?{name} is .*; expected "):
        LiveSR(core, **{"rig": "demo", name: given})


def test_what_is_no_event(core: CMMCorePlus) -> None:
    with pytest.raises(ConfigError, match=r"plan yields is 5 \(int\); expected a useq\.MDAEvent"):
        LiveSR(core, rig="demo", engine="none", plan=[5]).__enter__()


@pytest.mark.parametrize(
    ("name", "given"),
    [("rate", "fast"), ("rate", None), ("frames", 0), ("frames", "all"), ("how", 5)],
)
def test_what_replay_cannot_take(recorded: Path, name: str, given: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*(expected|must be)"):
        Replay(recorded, **{name: given})
    with Replay(recorded, rate=np.int64(500), frames=np.int64(2)) as replay:
        replay.run()
    assert replay.report["raw_frames"] == 2


def test_a_replay_runs_once(recorded: Path, caplog: pytest.LogCaptureFixture) -> None:
    replay = Replay(recorded, rate="max")
    with replay:
        replay.run()
        with pytest.raises(ConfigError, match="once"):
            replay.run()
    assert (replay.report["raw_frames"], replay.report["raw_repeated"]) == (3, 0)
    with pytest.raises(ConfigError, match="once"), replay:
        pass
    with caplog.at_level(logging.WARNING), Replay(recorded):
        pass
    assert "Nothing was replayed" in caplog.text


def test_a_replay_that_is_left_while_it_plays_says_so(recorded: Path) -> None:
    with Replay(recorded, rate=2.0) as replay:
        thread = threading.Thread(target=replay.run)
        thread.start()
        while not replay.status()["raw_frames"]:
            threading.Event().wait(0.01)
    thread.join()
    assert any("still being played" in w for w in replay.report["warnings"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("n_t", (0,)),
        ("n_t", (2.5,)),
        ("n_t", ("3",)),
        ("channels", (3, "488")),
        ("channels", (3, [488])),
        ("raw", (3, ["488"], 0)),
        ("raw", (3, ["488"], {})),
        ("raw", (3, ["488"], "9")),
        ("interval_s", (3, ["488"], 9, -1.0)),
        ("interval_s", (3, ["488"], 9, float("nan"))),
    ],
)
def test_what_is_no_time_lapse(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is .*; expected "):
        sim_sequence(*arguments)
    assert len(list(sim_sequence(np.int64(2), ("488",), np.int64(3)))) == 6


def test_raw_frames_are_put_into_plans_with_places(tmp_path: Path) -> None:
    rig = load_rig("virtual_sim")
    with pytest.raises(ConfigError, match=r"plan is .*; expected a useq\.MDASequence"):
        with_raw_frames(sim_sequence(3), rig)
    places = useq.MDASequence(
        channels=["488"],
        stage_positions=[(0, 0, 0)],
        grid_plan=useq.GridRowsColumns(rows=1, columns=2),
        z_plan=useq.ZRangeAround(range=1, step=1),
        time_plan={"interval": 0, "loops": 2},
    )
    with virtual_sim() as core, pytest.raises(ConfigError, match=r"livesr\.with_raw_frames"):
        LiveSR(core, rig=rig, engine="none", plan=places).__enter__()
    plan = with_raw_frames(places, rig)
    given: list[np.ndarray] = []
    with virtual_sim() as core:
        core.mda.events.frameReady.connect(lambda image, *_: given.append(image.copy()))
        store = tmp_path / "r.ome.zarr"
        with LiveSR(core, rig=rig, engine="none", plan=plan, store=store) as session:
            core.mda.run(plan)
        core.mda.events.frameReady.disconnect()
        field_um = SIZE * core.getPixelSizeUm()
    assert session.report["raw_stored"] == len(given) == 2 * 2 * 2 * 9
    images = [zarr.open_group(store, mode="r")[f"raw_g{g}_488"] for g in range(2)]
    assert [image["0"].shape for image in images] == [(2, 9, 2, SIZE, SIZE)] * 2
    kept = np.stack([image["0"][:] for image in images])  # g, t, raw, z
    assert np.array_equal(kept.transpose(1, 0, 3, 2, 4, 5).reshape(-1, SIZE, SIZE), given)
    x_um = [
        image.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][1][
            "translation"
        ][-1]
        for image in images
    ]
    assert x_um[1] - x_um[0] == pytest.approx(field_um, abs=0.05)
