"""Plans of every kind run, what accompanies them stops nothing, and a store lists what was
acquired, where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus
from yaozarrs import validate_zarr_store

from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.base.errors import FrameShapeError
from livesr.base.frames import RawStack
from livesr.formats.layout import folder_names
from livesr.formats.store import RecordedStore
from livesr.live.camera import stage_position
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sources.plan import RawFramesPlan, plan_text, with_field_of_view
from livesr.store.backfill import backfill
from livesr.store.exports.export import export
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from recorded_runs import Live, moving_groups, sim_rig
from rigs import core_of

TWICE = useq.TIntervalLoops(interval=0, loops=2)
GRID = useq.GridRowsColumns(rows=1, columns=2)
FIELD_UM = 32 * 0.065


@pytest.fixture(scope="module")
def loaded() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=1, demo_px=32) as core:
        yield core


@pytest.fixture
def core(loaded: CMMCorePlus) -> CMMCorePlus:
    loaded.clearROI()
    loaded.setXYPosition(0, 0)
    loaded.setZPosition(0)
    loaded.waitForSystem()
    return loaded


def acquired(
    core: CMMCorePlus, plan: Any, store: Path, *, given: bool = True, one: bool = False
) -> dict[str, Any]:
    """Acquire `plan` on the demo rig, of `one` channel or both; return the report."""
    rig = load_rig("demo").with_engine("none")
    if one:
        rig = rig.model_copy(update={"channels": {"488": rig.channels["488"]}})
    with LiveSR(core, rig=rig, store=store, **({"plan": plan} if given else {})) as session:
        core.mda.run(plan)
    assert session.report["error"] is None
    validate_zarr_store(session.report["store"])
    return session.report


def images(report: dict[str, Any], kind: str = "raw") -> dict[str, zarr.Group]:
    """Return what the store lists, in its order."""
    store = zarr.open_group(report["store"], mode="r")
    return {n: store[n] for n in store["OME"].attrs["ome"]["series"] if n.startswith(kind)}


def lines(report: dict[str, Any]) -> list[dict[str, Any]]:
    text = Path(report["store"], "livesr", "frames.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def placed(image: zarr.Group) -> list[float]:
    """Return an image's translation (z, y, x or y, x)."""
    transformations = image.attrs["ome"]["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ]
    return transformations[1]["translation"][2:]


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("says nothing of itself")


ODD = {
    "array": np.arange(3),
    "large": np.zeros((99, 99)),
    "path": Path("a/b"),
    "object": object(),
    "silent": Silent(),
}


@pytest.mark.parametrize("given", [True, False])
def test_metadata_of_any_kind_stops_nothing(core: CMMCorePlus, tmp_path: Path, given: bool) -> None:
    plan = useq.MDASequence(channels=["488"], time_plan=TWICE, metadata=ODD)
    report = acquired(core, plan, tmp_path / "r.ome.zarr", given=given)
    assert report["raw_frames"] == 2
    kept = useq.MDASequence.from_file(Path(report["store"], "livesr", "plan.yaml"))
    assert kept.channels[0].config == "488"
    assert (kept.metadata["array"], kept.metadata["path"]) == ([0, 1, 2], "a/b")
    assert kept.metadata["large"] == "array float64 (99, 99)"


def test_an_slm_image_and_metadata_of_events(core: CMMCorePlus, tmp_path: Path) -> None:
    picture = useq.SLMImage(data=np.zeros((64, 64), np.uint8))
    plan = [
        useq.MDAEvent(index={"t": t}, channel="488", slm_image=picture, metadata=ODD)
        for t in range(2)
    ]
    report = acquired(core, plan, tmp_path / "r.ome.zarr")
    assert report["raw_frames"] == 2
    assert "array uint8 (64, 64)" in Path(report["store"], "livesr", "plan.yaml").read_text()


def test_what_cannot_be_written_down_at_all() -> None:
    class Broken(list):  # type: ignore[type-arg]
        def __getitem__(self, i: Any) -> Any:
            raise RuntimeError("no")

    assert plan_text(Broken([1])) == "# The plan could not be written down (RuntimeError).\n"


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["cell", "cell", "cell-1"], ["cell-0", "cell-1-2", "cell-1"]),
        (["cell-1", "cell", "cell"], ["cell-1", "cell-1-2", "cell-2"]),
        (["a", "A", "b"], ["a-0", "A-1", "b"]),
        (["", "0", "ä"], ["0-2", "0", "-"]),
        (["a" * 99, "a" * 98], ["a" * 60 + "-0", "a" * 60 + "-1"]),
    ],
)
def test_names_become_folders_that_nothing_else_has(names: list[str], folders: list[str]) -> None:
    assert list(folder_names(tuple(names))) == folders


def test_positions_of_the_same_name(core: CMMCorePlus, tmp_path: Path) -> None:
    places = [
        useq.Position(x=10 * i, y=0, name=name) for i, name in enumerate(("cell", "cell", "cell-1"))
    ]
    report = acquired(
        core, useq.MDASequence(channels=["488"], stage_positions=places), tmp_path / "r.ome.zarr"
    )
    found = images(report)
    assert len(found) == 3
    assert [image.attrs["livesr"]["position_name"] for image in found.values()] == [
        "cell",
        "cell",
        "cell-1",
    ]
    assert [placed(image)[-1] for image in found.values()] == pytest.approx([0, 10, 20], abs=0.02)


@pytest.mark.parametrize("given", [True, False])
def test_positions_with_their_own_channels_and_stacks(
    core: CMMCorePlus, tmp_path: Path, given: bool
) -> None:
    """Only what was taken is in the store, and it is computed again as it was."""
    own = useq.MDASequence(channels=["561"], z_plan=useq.ZRangeAround(range=2, step=1))
    places = [
        useq.Position(x=0, y=0, z=0, sequence=useq.MDASequence(channels=["488"])),
        useq.Position(x=5, y=7, z=9, sequence=own),
    ]
    plan = useq.MDASequence(time_plan=TWICE, stage_positions=places)
    report = acquired(core, plan, tmp_path / "r.ome.zarr", given=given)
    found = images(report)
    assert {n: image["0"].shape for n, image in found.items()} == {
        "raw_0_488": (2, 1, 32, 32),
        "raw_1_561": (2, 1, 3, 32, 32),
    }
    assert not (Path(report["store"]) / "raw_0_561").exists()
    assert placed(found["raw_1_561"]) == pytest.approx([8, 7, 5], abs=0.02)
    backfill(Path(report["store"]))
    again = process(raw_input(Path(report["store"])), tmp_path / "again.ome.zarr")
    for name, image in images(report, "recon").items():
        np.testing.assert_array_equal(images(again, "recon")[name]["0"][:], image["0"][:])
    assert placed(images(again)["raw_1_561"]) == placed(found["raw_1_561"])


def test_positions_of_different_length(core: CMMCorePlus, tmp_path: Path) -> None:
    def position(x: int, loops: int) -> useq.Position:
        own = useq.MDASequence(
            channels=["488"], time_plan=useq.TIntervalLoops(interval=0, loops=loops)
        )
        return useq.Position(x=x, y=0, sequence=own)

    report = acquired(
        core,
        useq.MDASequence(stage_positions=[position(0, 3), position(1, 2)]),
        tmp_path / "r.ome.zarr",
    )
    assert [image["0"].shape[0] for image in images(report).values()] == [3, 2]
    assert (report["raw_frames"], report["raw_missing"]) == (5, 0)


def test_a_run_that_ends_before_its_second_position_lists_what_it_has(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    # Its first position takes seconds: the core emits frames while it takes the next ones.
    plan = useq.MDASequence(
        axis_order="ptc",
        channels=["488"],
        stage_positions=[(0, 0), (5, 5)],
        time_plan={"interval": 0.1, "loops": 50},
    )
    rig = load_rig("demo").with_engine("none")
    with LiveSR(core, rig=rig, plan=plan, store=tmp_path / "r.ome.zarr") as session:
        stop = core.mda.cancel

        def watch(image: Any, event: useq.MDAEvent, metadata: Any) -> None:
            if event.index["t"] == 1:
                stop()

        core.mda.events.frameReady.connect(watch)
        core.mda.run(plan)
        core.mda.events.frameReady.disconnect(watch)
    assert list(images(session.report)) == ["raw_0_488"]
    validate_zarr_store(session.report["store"])


@pytest.mark.parametrize("given", [True, False])
def test_fields_of_a_grid(core: CMMCorePlus, tmp_path: Path, given: bool) -> None:
    plan = useq.MDASequence(channels=["488"], grid_plan=GRID, time_plan=TWICE)
    report = acquired(core, plan, tmp_path / "r.ome.zarr", given=given)
    found = images(report)
    assert list(found) == ["raw_g0_488", "raw_g1_488"]
    left, right = (placed(image)[-1] for image in found.values())
    assert right - left == pytest.approx(FIELD_UM, abs=0.02)
    assert all(image["0"][:].any() for image in found.values())


def test_a_grid_over_an_area_and_one_inside_a_position(core: CMMCorePlus, tmp_path: Path) -> None:
    area = useq.MDASequence(
        channels=["488"], grid_plan=useq.GridFromEdges(top=4, left=0, bottom=0, right=4)
    )
    report = acquired(core, area, tmp_path / "area.ome.zarr")
    assert report["raw_frames"] == len(images(report)) == len(list(area)) > 1
    places = [useq.Position(x=50, y=0, name="A", sequence=useq.MDASequence(grid_plan=GRID)), (9, 9)]
    inside = useq.MDASequence(channels=["488"], stage_positions=places)
    assert list(images(acquired(core, inside, tmp_path / "inside.ome.zarr"))) == [
        "raw_A-g0_488",
        "raw_A-g1_488",
        "raw_1-g0_488",
    ]


def test_wells_of_a_plate(core: CMMCorePlus, tmp_path: Path) -> None:
    plate = useq.WellPlatePlan(
        plate=96, a1_center_xy=(0, 0), selected_wells=([0, 1], [0, 1]), well_points_plan=GRID
    )
    plan = with_field_of_view(
        useq.MDASequence(channels=["488"], stage_positions=plate), FIELD_UM, FIELD_UM
    )
    report = acquired(core, RawFramesPlan(plan, lambda channel: 1), tmp_path / "r.ome.zarr")
    found = images(report)
    assert list(found) == [f"raw_{well}-000{i}_488" for well in ("A1", "B2") for i in range(2)]
    x = [placed(image)[-1] for image in found.values()]
    assert np.diff(x) == pytest.approx([FIELD_UM, 9000 - FIELD_UM, FIELD_UM], abs=0.05)


def test_planes_that_are_not_even(core: CMMCorePlus, tmp_path: Path) -> None:
    z_plan = useq.ZRelativePositions(relative=[0, 1, 3])
    plan = useq.MDASequence(channels=["488"], stage_positions=[(0, 0, 2)], z_plan=z_plan)
    report = acquired(core, plan, tmp_path / "r.ome.zarr")
    assert "1 and 2 um apart" in report["warnings"][0]
    assert [line["z_um"] for line in lines(report) if line["series"] == "raw"] == [2, 3, 5]


def test_planes_in_one_place(core: CMMCorePlus, tmp_path: Path) -> None:
    """A plane that is taken three times: its store is read, and made again, as any other."""
    z_plan = useq.ZRelativePositions(relative=[0, 0, 0])
    plan = useq.MDASequence(channels=["488"], stage_positions=[(0, 0, 2)], z_plan=z_plan)
    report = acquired(core, plan, tmp_path / "r.ome.zarr")
    assert RecordedStore(Path(report["store"])).images["raw", 0, "488"].scale["z"] == 0
    made = process(raw_input(Path(report["store"])), tmp_path / "again.ome.zarr")
    assert RecordedStore(Path(made["store"])).images["recon", 0, "488"].scale["z"] == 0


def test_a_stage_that_says_no_number(tmp_path: Path) -> None:
    live = Live(sim_rig("none"), tmp_path / "r.ome.zarr")
    live.pipeline.open()
    try:
        for raw, frame in enumerate(moving_groups(1)[0]):
            event = useq.MDAEvent(index={"t": 0, "sim": raw}, channel="488")
            where = {"x": float("nan"), "y": 2.0, "z": float("inf")}
            live.pipeline.hook.frame_ready(frame, event, {"position": where})
    finally:
        live.pipeline.end()
        live.pipeline.join()
    raw = RecordedStore(live.sink.path).images["raw", 0, "488"]
    assert raw.stage_um == {"y": 2.0}
    file = raw.folder / "zarr.json"  # as it was written when what was no number became null
    about = json.loads(file.read_text(encoding="utf-8"))
    (dataset,) = about["attributes"]["ome"]["multiscales"][0]["datasets"]
    dataset["coordinateTransformations"][1]["translation"][-1] = None
    for key in ("first_pixel_um", "placed"):
        del about["attributes"]["livesr"][key]
    file.write_text(json.dumps(about), encoding="utf-8")
    assert RecordedStore(live.sink.path).images["raw", 0, "488"].stage_um == {"y": 2.0}


def test_a_channel_that_leaves_planes_out_lies_in_the_stack(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    middle = useq.Channel(config="561", do_stack=False)
    z_plan = useq.ZRangeAround(range=2, step=1)
    plan = useq.MDASequence(channels=["488", middle], stage_positions=[(0, 0, 5)], z_plan=z_plan)
    found = images(acquired(core, plan, tmp_path / "r.ome.zarr"))
    assert [placed(image)[0] for image in found.values()] == [4, 4]
    assert [bool(plane.any()) for plane in found["raw_0_561"]["0"][0, 0]] == [False, True, False]


@pytest.mark.parametrize("loops", [1, 3])
def test_every_channel_says_where_its_own_planes_are(
    core: CMMCorePlus, tmp_path: Path, loops: int
) -> None:
    """Also one that is focused elsewhere, leaves planes out and comes first, at once."""
    low = useq.Channel(config="561", do_stack=False, z_offset=-3)
    plan = useq.MDASequence(
        channels=[low, "488"],
        stage_positions=[(0, 0, 7)],
        z_plan=useq.ZRangeAround(range=2, step=0.5),
        time_plan=useq.TIntervalLoops(interval=0, loops=loops),
    )
    report = acquired(core, plan, tmp_path / "r.ome.zarr")
    found = images(report)
    where = {
        line["z"]: line["z_um"]
        for line in lines(report)
        if (line["series"], line["channel"]) == ("raw", "561")
    }
    assert [placed(found[name])[0] for name in ("raw_0_488", "raw_0_561")] == [6, 3]
    assert where[2] == placed(found["raw_0_561"])[0] + 2 * 0.5


def test_a_channel_without_the_first_plane_has_its_own_time_step(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    """It was a second a frame, whatever the camera did."""
    middle = useq.Channel(config="561", do_stack=False)
    plan = useq.MDASequence(
        channels=["488", middle],
        stage_positions=[(0, 0, 5)],
        z_plan=useq.ZRangeAround(range=2, step=1),
        time_plan=useq.TIntervalLoops(interval=0, loops=5),
    )
    report = acquired(core, plan, tmp_path / "r.ome.zarr")
    taken = [
        line["t_acq_ns"]
        for line in lines(report)
        if (line["series"], line["channel"], line["z"]) == ("raw", "561", 1)
    ]
    image = RecordedStore(Path(report["store"])).images["raw", 0, "561"]
    assert image.scale["t"] == pytest.approx(float(np.median(np.diff(taken))) / 1e9)


@pytest.mark.parametrize("left_out", [{"do_stack": False}, {"acquire_every": 3}])
def test_what_a_plan_leaves_out_holds_up_nothing(
    core: CMMCorePlus, tmp_path: Path, left_out: dict[str, Any]
) -> None:
    """Frames behind it waited in memory for eight stacks, and a killed process lost them."""
    other = useq.Channel(config="561", **left_out)
    plan = useq.MDASequence(
        channels=["488", other],
        stage_positions=[(0, 0, 5)],
        z_plan=useq.ZRangeAround(range=2, step=1),
        time_plan=useq.TIntervalLoops(interval=0, loops=7),
    )
    waiting: list[int] = []

    class Watched(OMEZarrSink):
        def raw(self, stack: RawStack) -> None:
            super().raw(stack)
            here = self._places[stack.stream.position, stack.stream.channel]
            waiting.append(len(here.held["raw"]))

    rig = load_rig("demo").with_engine("none")
    with LiveSR(core, rig=rig, plan=plan, sinks=[Watched(tmp_path / "r.ome.zarr")]) as session:
        core.mda.run(plan)
    assert session.report["raw_stored"] == session.report["raw_frames"] == len(waiting)
    assert set(waiting) == {0}


def test_planes_that_go_down_are_said(core: CMMCorePlus, tmp_path: Path) -> None:
    z_plan = useq.ZRangeAround(range=2, step=1, go_up=False)
    plan = useq.MDASequence(channels=["488"], stage_positions=[(0, 0, 5)], z_plan=z_plan)
    report = acquired(core, plan, tmp_path / "r.ome.zarr", one=True)
    assert any(w.startswith("The planes of a stack go down") for w in report["warnings"])
    assert placed(images(report)["raw"])[0] == 6
    up = plan.replace(z_plan=z_plan.replace(go_up=True))
    report = acquired(core, up, tmp_path / "r.ome.zarr", one=True)
    assert not any("go down" in w for w in report["warnings"])


def test_where_the_stages_were_is_said_of_every_frame(core: CMMCorePlus, tmp_path: Path) -> None:
    """Also of triggered sequences, whose events do not say it: the stages are where they were."""
    core.setXYPosition(3, 4)
    core.waitForSystem()
    plan = useq.MDASequence(channels=["488"], time_plan=useq.TIntervalLoops(interval=0, loops=5))
    report = acquired(core, plan, tmp_path / "r.ome.zarr")
    stages = [
        (line["x_um"], line["y_um"], line["z_um"])
        for line in lines(report)
        if line["series"] == "raw"
    ]
    assert stages == [pytest.approx((3, 4, 0), abs=0.02)] * 5
    (raw,) = images(report).values()
    (recon,) = images(report, "recon").values()
    assert placed(raw) == pytest.approx([4, 3], abs=0.02)
    transformations = recon.attrs["ome"]["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ]
    assert transformations[1]["translation"][1:] == placed(raw)


def test_a_stage_at_zero_is_at_zero(core: CMMCorePlus, tmp_path: Path) -> None:
    """Micro-Manager's demo stage, sent back to 0, says -0.0."""
    core.setXYPosition(0, 0)
    core.waitForSystem()
    assert "-0.0" in str(core.getXYPosition())
    assert "-0.0" not in str(stage_position(core))
    for timing in ({"interval": 0}, {"interval": 0.01}):  # in one sequence, one by one
        plan = useq.MDASequence(channels=["488"], time_plan={**timing, "loops": 2})
        report = acquired(core, plan, tmp_path / "r.ome.zarr")
        folder = Path(report["store"])
        for file in [*folder.glob("livesr/*.json*"), *folder.glob("*/zarr.json")]:
            assert "-0.0" not in file.read_text(encoding="utf-8"), file
        table = export(folder, "csv").path / "frames.csv"
        assert "-0.0" not in table.read_text(encoding="utf-8")


@pytest.mark.parametrize("given", [True, False])
def test_events_without_an_index_are_a_time_lapse(
    core: CMMCorePlus, tmp_path: Path, given: bool
) -> None:
    report = acquired(
        core, [useq.MDAEvent() for _ in range(4)], tmp_path / "r.ome.zarr", given=given, one=True
    )
    assert (report["raw_frames"], report["raw_repeated"], report["warnings"]) == (4, 0, [])
    assert images(report)["raw"]["0"].shape[0] == 4


def test_events_with_the_same_index_are_counted_and_said(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = [useq.MDAEvent(index={"t": 0}, channel="488") for _ in range(3)]
    report = acquired(core, plan, tmp_path / "r.ome.zarr", given=False)
    assert report["raw_repeated"] == 2
    assert [w for w in report["warnings"] if w.startswith("2 exposures came twice for one place")]
    assert len(list(Path(report["store"], "livesr", "strays").iterdir())) == 2


def test_regions_that_a_plan_sets(core: CMMCorePlus, tmp_path: Path) -> None:
    events = [useq.MDAEvent(index={"t": t}, channel="488", roi=(4, 8, 16, 12)) for t in range(2)]
    found = images(acquired(core, events, tmp_path / "events.ome.zarr"))["raw"]
    assert (found["0"].shape[-2:], found.attrs["livesr"]["origin_px"]) == ((12, 16), [8, 4])
    core.clearROI()
    first = useq.MDASequence(
        channels=["488"], time_plan=TWICE, setup=useq.MDAEvent(roi=(2, 4, 20, 10))
    )
    for i, plan in enumerate((first, RawFramesPlan(first, lambda channel: 1))):
        core.clearROI()
        found = images(acquired(core, plan, tmp_path / f"setup{i}.ome.zarr"))["raw"]
        assert (found["0"].shape[-2:], found.attrs["livesr"]["origin_px"]) == ((10, 20), [4, 2])


def test_an_interval_that_cannot_be_kept_is_said(core: CMMCorePlus, tmp_path: Path) -> None:
    """A store's time axis is what was measured, and no wish."""
    plan = useq.MDASequence(
        channels=[{"config": "488", "exposure": 30}],
        time_plan=useq.TIntervalLoops(interval=0.005, loops=6),
    )
    report = acquired(core, plan, tmp_path / "run.ome.zarr")
    assert report["raw_frames"] == 6
    (said,) = (w for w in report["warnings"] if w.startswith("Time points come every"))
    assert "asks for one every 0.005 s" in said
    (image, *_) = RecordedStore(Path(report["store"])).images.values()
    lines = RecordedStore(Path(report["store"])).pictures("raw").values()
    times = [line["t_acq_ns"] / 1e9 for line in lines]
    assert image.scale["t"] == pytest.approx(np.median(np.diff(times)), rel=0.01)


def test_a_grid_behind_a_position_without(core: CMMCorePlus, tmp_path: Path) -> None:
    stack = useq.MDASequence(z_plan=useq.ZRangeAround(range=2, step=1))
    places = [
        useq.Position(x=0, y=0, z=0, name="A"),
        useq.Position(x=9, y=0, z=0, name="B", sequence=stack),
        useq.Position(x=50, y=0, z=0, name="C", sequence=useq.MDASequence(grid_plan=GRID)),
    ]
    for loops in (1, 2):
        plan = useq.MDASequence(
            channels=["488"],
            stage_positions=places,
            time_plan=useq.TIntervalLoops(interval=0, loops=loops),
        )
        given: list[np.ndarray] = []
        core.mda.events.frameReady.connect(lambda image, *_, into=given: into.append(image.copy()))
        report = acquired(core, plan, tmp_path / f"{loops}.ome.zarr", given=False)
        core.mda.events.frameReady.disconnect()
        found = {name: image["0"] for name, image in images(report).items()}
        assert {name: image.shape[:-2] for name, image in found.items()} == {
            "raw_A-g0_488": (loops, 1),
            "raw_B-g0_488": (loops, 1, 3),
            "raw_C-g0_488": (loops, 1),
            "raw_C-g1_488": (loops, 1),
        }
        each = np.concatenate([image[0].reshape(-1, 32, 32) for image in found.values()])
        assert np.array_equal(each, given[:6])
        assert report["raw_unplaced"] == report["raw_missing"] == 0


def test_events_without_a_channel_on_a_rig_of_several(core: CMMCorePlus, tmp_path: Path) -> None:
    with (
        pytest.raises(FrameShapeError, match=r"names no channel.*'488', '561': name one of them"),
        LiveSR(core, rig="demo", engine="none", store=tmp_path / "r.ome.zarr"),
    ):
        core.mda.run([useq.MDAEvent()])
