"""What flags and plan files acquire.

Every exposure at its place, counted before it starts, and refused in one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import useq
import yaml
import zarr
from pymmcore_plus import CMMCorePlus
from rich.console import Console

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.base.run_config import RunConfig
from livesr.cli.experiment import Experiment, check_stages, extent, plan_of, positions_of, z_plan_of
from livesr.cli.plan_file import read_plan
from livesr.cli.session import Request, acquire
from livesr.live.sources.plan import plan_text, sim_sequence
from rigs import SIZE, core_of, virtual_sim

RIG = load_rig("virtual_sim")
DEMO = load_rig("demo")


def mixed_rig() -> RigConfig:
    """Channel 488 takes nine exposures, channel 561 one."""
    data = RIG.model_dump() | {
        "channels": {"488": {"reconstruct": "sim"}, "561": {"reconstruct": "widefield"}}
    }
    return RigConfig.model_validate(data)


def test_raw_frames_are_innermost_and_each_channel_has_its_own() -> None:
    plan = plan_of(
        Experiment(frames=2, positions="0,0;10,5", z="2:1", interval_s=1.5), mixed_rig(), 10
    )
    events = list(plan)
    assert len(events) == 2 * 2 * 3 * (9 + 1)
    assert [e.index.get("sim") for e in events[:30]] == [*range(9)] * 3 + [None] * 3
    assert [e.z_pos for e in events[:27:9]] == [-1, 0, 1]
    assert [(e.x_pos, e.y_pos) for e in (events[0], events[30])] == [(0, 0), (10, 5)]
    assert {e.min_start_time for e in events[60:]} == {1.5}
    assert [e.reset_event_timer for e in events[:3]] == [True, False, False]
    assert list(plan) == events  # again and again
    measured = extent(plan, mixed_rig(), 10)
    assert (measured.exposures, measured.groups, measured.exact) == (120, 24, True)
    assert measured.seconds == pytest.approx(1.5 + 0.6)
    assert (
        measured.sentence(62_000_000_000)
        == "2 positions x 3 planes x 2 channels x 2 time points, 1 or 9 raw frames each: 120"
        " exposures, at least 2.1 s, up to 62 GB before compression."
    )


def test_what_a_channel_leaves_out_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    channels: list[Any] = [
        {"config": "488", "acquire_every": 2},
        {"config": "561", "do_stack": False},
    ]
    fields = {
        "channels": channels,
        "time_plan": {"interval": 0, "loops": 4},
        "z_plan": {"range": 2, "step": 1},
    }
    file.write_text(yaml.safe_dump(fields))
    rig = mixed_rig()
    plan = plan_of(Experiment(plan=file), rig, 10)
    events = list(plan)
    assert sum(e.channel.config == "488" for e in events) == 2 * 3 * 9
    assert sum(e.channel.config == "561" for e in events) == 4
    assert extent(plan, rig, 10).exposures == len(events)
    json_file = tmp_path / "plan.json"
    json_file.write_text(json.dumps(fields))
    assert list(plan_of(Experiment(plan=json_file), rig, 10)) == events


def test_a_duration_becomes_as_many_time_points_as_fit() -> None:
    def frames(**said: Any) -> int:
        return plan_of(Experiment(**said), RIG, 10).plan.sizes["t"]

    assert frames(duration_s=9) == 100  # 90 ms each
    assert frames(duration_s=9, positions="0,0;1,1", z="4:1") == 10
    assert frames(duration_s=0.9) == 10
    assert frames(duration_s=9, interval_s=2) == 5  # at 0, 2, 4, 6 and 8 s
    assert frames(duration_s=8.09, interval_s=2) == 5
    assert frames(duration_s=8.08, interval_s=2) == 4  # the last exposures would come too late
    assert frames(duration_s=10, interval_s=7) == 2
    assert frames(duration_s=0.1, interval_s=2) == 1
    assert frames() == 100


@pytest.mark.parametrize(
    "said",
    [
        {"frames": 10**20},
        {"duration_s": 1e9},
        {"duration_s": 1e300},
        {"z": "1e9:1e-9"},
        {"z": "0..1e6:0.1"},
    ],
)
def test_what_no_computer_can_plan_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="can be planned"):
        plan_of(Experiment(**said), RIG, 10)


def test_a_long_plan_is_measured_without_walking_through_it(tmp_path: Path) -> None:
    plan = plan_of(Experiment(frames=1_000_000, interval_s=60), RIG, 10)
    assert extent(plan, RIG, 10).seconds == pytest.approx(60 * 999_999 + 0.09)
    file = tmp_path / "plan.yaml"
    file.write_text(
        yaml.safe_dump({"time_plan": [{"interval": 1, "loops": 3}, {"interval": 2, "loops": 2}]})
    )
    assert extent(plan_of(Experiment(plan=file), RIG, 10), RIG, 10).seconds == pytest.approx(4.09)


def test_planes_are_around_the_focus_where_positions_do_not_say(tmp_path: Path) -> None:
    with core_of("demo") as core:
        core.setZPosition(50)
        core.waitForSystem()
        zs = [
            e.z_pos for e in plan_of(Experiment(frames=1, z="2:1", channels="488"), DEMO, 10, core)
        ]
        assert zs == [49, 50, 51]
        said = Experiment(frames=1, z="2:1", channels="488", positions="0,0;1,1,7")
        assert [e.z_pos for e in plan_of(said, DEMO, 10, core)] == [49, 50, 51, 6, 7, 8]
        absolute = Experiment(frames=1, z="12..10:1", channels="488")
        assert [e.z_pos for e in plan_of(absolute, DEMO, 10, core)] == [12, 11, 10]


def test_positions_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "cells.csv"
    file.write_text("# stage\n0, 0\n\n10.5,-3,7   # the dividing one\n1,2,3,late\n")
    places = [
        {"x": 0, "y": 0},
        {"x": 10.5, "y": -3, "z": 7},
        {"x": 1, "y": 2, "z": 3, "name": "late"},
    ]
    assert positions_of(str(file)) == places
    assert positions_of("0,0; 10.5,-3,7 ;1,2,3,late;") == places


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"positions": "0"}, "is not x,y or x,y,z"),
        ({"positions": "0,a"}, "Position '0,a'"),
        ({"positions": "0,inf"}, "numbers in um"),
        ({"positions": ";"}, "names no position"),
        ({"positions": "nowhere.csv"}, "Cannot read nowhere.csv"),
        ({"z": "5"}, "range:step"),
        ({"z": "5:0"}, "above 0"),
        ({"z": "1:5"}, "must be above 0 and fit in"),
        ({"z": "10..15"}, "first..last:step"),
        ({"channels": "489"}, "describes no channel '489'. Did you mean '488'?"),
        ({"channels": "488,488"}, "one twice"),
        ({"channels": ","}, "names no channel"),
        ({"plan": Path("plan.yaml"), "frames": 3, "z": "5:1"}, "leave out --frames, --z"),
        ({"plan": Path("nowhere.yaml")}, "Cannot read nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(Experiment(**said), RIG, 10)
    assert words in str(caught.value)
    assert str(caught.value).endswith((".", "?"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("z_plan: {range: -1, step: 0.5}\n", "makes no stack of 1 to 10000 planes"),
        ("z_plan: {range: 1.0e+9, step: 0.5}\n", "makes no stack of 1 to 10000 planes"),
        ("time_plan: {interval: {'': 1}, loops: 2}\n", "is no plan"),
        (
            "time_plna: {interval: 1, loops: 3}",
            "unknown key 'time_plna'. Did you mean 'time_plan'?",
        ),
        (
            "channels: [{config: '488', expossure: 40}]",
            "unknown key 'channels.0.expossure'. Did you mean 'exposure'?",
        ),
        (
            "stage_positions: [{x: 0}, {x: 1, sequence: {z_plan: {range: 1, stepp: 1, step: 1}}}]",
            "unknown key 'stage_positions.1.sequence.z_plan.stepp'. Did you mean 'step'?",
        ),
        (
            "time_plan: [{interval: 1, loops: 2}, {interval: 1, loops: 2, loop: 3}]",
            "unknown key 'time_plan.1.loop'. Did you mean 'loops'?",
        ),
        ("channels: ['640']", "describes no channel '640'"),
        ("time_plan: {interval: 1, loops: 0}", "is no useq plan: time_plan"),
        ("channels: ['488'\n", "is no plan"),
        ("- 1", "is no"),
    ],
)
def test_a_plan_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        plan_of(Experiment(plan=file), RIG, 10)
    assert words in str(caught.value)
    other = tmp_path / "plan.txt"
    other.write_text(text)
    with pytest.raises(ConfigError, match="is no plan"):
        plan_of(Experiment(plan=other), RIG, 10)


def test_what_useq_writes_itself_is_read(tmp_path: Path) -> None:
    plan = useq.MDASequence(
        channels=["488", {"config": "488", "exposure": 5, "do_stack": False}],
        stage_positions=[
            (0, 0),
            useq.Position(x=1, y=2, sequence={"z_plan": {"range": 2, "step": 1}}),
        ],
        time_plan=[{"interval": 1, "loops": 2}, {"interval": 2, "duration": 4}],
        grid_plan={"rows": 1, "columns": 2},
        autofocus_plan={"autofocus_device_name": "Z", "autofocus_motor_offset": 2, "axes": ("p",)},
        metadata={"mine": {"of any": "kind"}},
    )
    for name, text in (
        ("a.yaml", plan.yaml()),
        ("b.json", plan.model_dump_json()),
        ("c.json", plan.model_dump_json(exclude_unset=True)),
    ):
        (tmp_path / name).write_text(text)
        assert list(read_plan(tmp_path / name)) == list(plan)


def test_a_stage_that_is_not_there_is_missed_before_the_run() -> None:
    with core_of("demo") as core:
        core.setXYStageDevice("")
        core.setFocusDevice("")
        for said, words in (
            ({"positions": "0,0;1,1"}, "no XY stage"),
            ({"z": "1..2:1"}, "no focus drive"),
        ):
            with pytest.raises(ConfigError, match=words):
                check_stages(plan_of(Experiment(**said), DEMO, 10, core), core)
        check_stages(plan_of(Experiment(), DEMO, 10, core), core)


@pytest.fixture(scope="module")
def sim_core() -> Iterator[CMMCorePlus]:
    with virtual_sim() as core:
        yield core


def test_every_exposure_of_such_a_run_is_in_the_store(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    said = Experiment(frames=3, positions="0,0;100,0,5,cell", z="1:0.5")
    request = Request(
        rig=RIG,
        experiment=said,
        engine="none",
        settings=RunConfig(store=tmp_path / "r.ome.zarr", policy="complete"),
        exposure_ms=1,
    )
    console = Console(record=True, quiet=False, width=200, file=(tmp_path / "out.txt").open("w"))
    wanted = plan_of(said, RIG, 1, sim_core).plan
    first = int(sim_core.snap()[0, 0])
    report = acquire(request, sim_core, console)
    console.file.close()
    assert (report["exit_code"], report["raw_frames"], report["raw_lost"]) == (0, 162, 0)
    printed = console.export_text()
    assert "2 positions x 3 planes x 3 time points, 9 raw frames each: 162 exposures" in printed
    store = zarr.open_group(report["store"], mode="r")
    stamps = [[store[f"raw_{p}_488/0"][t, :, :, 0, 0] for p in ("0", "cell")] for t in range(3)]
    expected = iter(range(first + 1, first + 163))
    for t in range(3):
        for p in range(2):
            for z in range(3):
                assert [int(v) for v in stamps[t][p][:, z]] == [next(expected) for _ in range(9)]
    assert store["raw_0_488/0"].shape == (3, 9, 3, SIZE, SIZE)
    kept = useq.MDASequence.from_file(Path(report["store"]) / "livesr" / "plan.yaml")
    assert kept == wanted


def test_every_store_keeps_what_made_it(sim_core: CMMCorePlus, tmp_path: Path) -> None:
    request = Request(
        rig=RIG,
        experiment=Experiment(frames=3),
        engine="identity",
        settings=RunConfig(store=tmp_path / "r.ome.zarr"),
        exposure_ms=1,
    )
    stores = [Path(acquire(request, sim_core, Console(quiet=True))["store"]) for _ in range(2)]
    assert [s.name for s in stores] == ["r.ome.zarr", "r_2.ome.zarr"]
    for store in stores:
        kept = {p.name for p in (store / "livesr").iterdir()}
        assert kept >= {
            "rig.yaml",
            "rig.cfg",
            "plan.yaml",
            "manifest-identity.yaml",
            "report.json",
            "frames.jsonl",
        }
        assert (store / "livesr" / "rig.yaml").read_bytes() == (
            RIG.folder / "rig.yaml"
        ).read_bytes()
        assert (store / "livesr" / "rig.cfg").read_bytes() == RIG.cfg_path.read_bytes()


def test_plans_of_scripts_are_written_down_too() -> None:
    assert plan_text(sim_sequence(3, ["488"])) is not None
    text = plan_text(sim_sequence(3, ["488"], interval_s=2))
    assert text is not None
    kept = yaml.safe_load(text)
    assert kept["axis_order"] == ["t", "c", "sim"]
    assert kept["axes"][0]["loops"] == 3
    events = plan_text([useq.MDAEvent(index={"t": t}, channel="488") for t in range(1002)])
    assert events is not None
    assert events.startswith("# The first 1000 of 1002 events.")
    assert yaml.safe_load(events)[999]["index"] == {"t": 999}
    assert plan_text(iter([])) is None
    assert plan_text(useq.MDASequence()) is None


def test_z_flag() -> None:
    assert z_plan_of("5:0.5") == {"range": 5, "step": 0.5}
    assert z_plan_of("-3..4:1") == {"top": 4, "bottom": -3, "step": 1, "go_up": True}
