"""A run that is computed in parts is the run that is computed as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.documents import read_json
from livesr.base.errors import ConfigError, StoreError
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.store import parts
from livesr.store.parts import (
    DONE,
    Job,
    Part,
    close_idle,
    followed,
    merged,
    on_worker,
    parts_of,
    put_together,
    unmeasured,
)
from livesr.store.process import process
from livesr.store.raw_input import ReadAs, raw_input
from recorded_runs import SIZE, Live, array, moving_groups, sim_rig

COMPUTE = ComputeConfig(backend="openvino", precision="f32", device="cpu", threads=1)
OF_A_STRETCH = {"latency_ms", "warnings", "judgement", "mixing"}
"""Keys of a line that look back over more than the frames beside it, or at the clock."""


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    close_idle()


def job_of(source: Path, rig: RigConfig | None = None, **changes: Any) -> Job:
    about: dict[str, Any] = {
        "engine": None,
        "upscale": None,
        "how": ReadAs(),
        "compute": COMPUTE,
        "record_raw": True,
        "record_recon": True,
        "folder": source.with_name("parts"),
    }
    return Job(source=source, rig=rig, **{**about, **changes})


def in_parts(job: Job, time_points: int = 16, order: Sequence[int] = ()) -> Path:
    """Compute a job in parts, in one process, and put them together."""
    job.folder.mkdir(exist_ok=True)
    opened = job.open()
    try:
        all_parts = parts_of(opened, job, time_points)
        levels: dict[Any, Any] = {}
        if unmeasured(opened.raw):
            for part in all_parts:
                levels |= on_worker(job, part, None)[0] or {}
            levels = followed(opened.raw, levels)
    finally:
        opened.close()
    reports = {i: on_worker(job, all_parts[i], levels)[1] for i in order or range(len(all_parts))}
    whole = job.folder / "whole"
    report = merged([reports[i] for i in sorted(reports)], 1.0)
    put_together(job, all_parts, whole, report)
    return whole


def assert_same(one: Path, other: Path) -> None:
    """Every picture bit for bit, every shard, every line."""
    a, b = RecordedStore(one), RecordedStore(other)
    assert [i.name for i in a.images.values()] == [i.name for i in b.images.values()]
    for image in a.images.values():
        np.testing.assert_array_equal(array(one, image.name), array(other, image.name), image.name)
        files = sorted(f.relative_to(one) for f in (one / image.name / "0" / "c").rglob("*"))
        assert files == sorted(
            f.relative_to(other) for f in (other / image.name / "0" / "c").rglob("*")
        )
    for kind in ("raw", "recon", "rolling", "sr", "uncertainty", "error"):
        before, after = ([e for e in s.events if e["series"] == kind] for s in (a, b))
        plain = [[_plain(e) for e in events] for events in (before, after)]
        assert sorted(plain[0], key=str) == sorted(plain[1], key=str)


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in OF_A_STRETCH}


def whole_run(job: Job, to: Path) -> tuple[Path, dict[str, Any]]:
    raw = raw_input(job.source, job.rig, job.engine, job.upscale, job.how)
    report = process(raw, to, compute=job.compute)
    return Path(report["store"]), dict(report)


def test_a_store_with_gaps_positions_and_planes(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr", positions=("A", "B"))
    gaps = [(15, 3), (16, 0), (17, 1), *((31, raw) for raw in range(9))]
    live.record(moving_groups(34), missing=gaps)
    job = job_of(live.sink.path)
    expected, report = whole_run(job, tmp_path / "process.ome.zarr")
    whole = in_parts(job, order=(2, 0, 1))
    assert_same(whole, expected)
    yaozarrs.validate_zarr_store(str(whole))
    told = read_json(whole / "livesr" / "report.json")
    for count in ("raw_frames", "raw_missing", "groups", "groups_incomplete", "recon_frames"):
        assert told[count] == report[count], count
    for count in ("sr_frames", "sr_skipped", "sr_failed", "raw_lost", "raw_stored", "tc_complete"):
        assert told[count] == pytest.approx(report[count], abs=1e-3), count
    assert told["parts"] == 3


def test_pictures_of_groups_under_way_go_over_the_borders_of_parts(tmp_path: Path) -> None:
    plain, folder = sim_rig("none"), tmp_path / "rig"
    shutil.copytree(plain.folder, folder)
    text = (folder / "rig.yaml").read_text(encoding="utf-8")
    text = text.replace("\nsim:\n", "\nsim:\n  update: angle\n") + "\nstore: {rolling: true}\n"
    (folder / "rig.yaml").write_text(text, encoding="utf-8")
    live = Live(load_rig(folder).with_engine("none"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(20))
    job = job_of(live.sink.path)
    expected, _ = whole_run(job, tmp_path / "process.ome.zarr")
    assert len(array(expected, "rolling")) == 60
    assert_same(in_parts(job), expected)
    for name in ("recon", "rolling"):
        np.testing.assert_array_equal(array(live.sink.path, name), array(expected, name))


def test_a_recording_is_normalised_as_from_its_first_frame(tmp_path: Path, engine: Engine) -> None:
    stack = moving_groups(20).reshape(-1, SIZE, SIZE)
    tifffile.imwrite(tmp_path / "raw.tif", stack, photometric="minisblack")
    job = job_of(tmp_path / "raw.tif", sim_rig("mixing"))
    expected, _ = whole_run(job, tmp_path / "process.ome.zarr")
    assert_same(in_parts(job), expected)


def test_groups_that_the_run_dropped_are_measured_first(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(20))
    log = live.sink.path / "livesr" / "frames.jsonl"
    kept = [
        line
        for line in log.read_text().splitlines()
        if not ('"recon"' in line and any(f'"t": {t},' in line for t in (7, 16, 17)))
    ]
    assert len(kept) == len(log.read_text().splitlines()) - 3
    log.write_text("\n".join(kept) + "\n")
    job = job_of(live.sink.path)
    assert len(unmeasured(raw_input(live.sink.path))) == 3
    expected, _ = whole_run(job, tmp_path / "process.ome.zarr")
    assert_same(in_parts(job), expected)


def test_frames_that_are_refused_are_looked_past(tmp_path: Path, engine: Engine) -> None:
    """The neighbour of a part's first frame is the one before those that were refused."""
    groups = moving_groups(20)
    groups[13:16] = 7  # nothing to see in them
    stack = groups.reshape(-1, SIZE, SIZE)
    tifffile.imwrite(tmp_path / "raw.tif", stack, photometric="minisblack")
    rig = load_rig("virtual_sim").with_engine("mixing")
    job = job_of(tmp_path / "raw.tif", rig)
    expected, report = whole_run(job, tmp_path / "process.ome.zarr")
    assert_same(in_parts(job), expected)
    assert report["recon_refused"] + report["recon_doubtful"] > 0


@pytest.mark.slow
def test_stacks(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr", z_planes=3)
    live.record(moving_groups(20), missing=[(15, 3)])
    job = job_of(live.sink.path)
    expected, _ = whole_run(job, tmp_path / "process.ome.zarr")
    assert_same(in_parts(job), expected)


@pytest.mark.slow
def test_maps_and_uncertainty_come_along(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(20))
    compute = COMPUTE.model_copy(update={"uncertainty": "flips", "error_map": "planes"})
    job = job_of(live.sink.path, compute=compute)
    expected, _ = whole_run(job, tmp_path / "process.ome.zarr")
    assert_same(in_parts(job), expected)


def test_what_looks_back_to_the_beginning_is_one_part(tmp_path: Path) -> None:
    rig = load_rig("virtual_storm").with_engine("none")
    job = job_of(tmp_path / "film.tif", rig)
    n_raw = rig.raw_frames(next(iter(rig.channels), ""))
    film = np.random.default_rng(0).poisson(100, (3 * n_raw, 32, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "film.tif", film, photometric="minisblack")
    opened = job.open()
    try:
        assert parts_of(opened, job) == [Part(0, 3, 0)]
    finally:
        opened.close()


def test_a_part_that_another_finished_meanwhile_is_left(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(4))
    job = job_of(live.sink.path)
    job.folder.mkdir()
    part = Part(0, 4)
    on_worker(job, part, {})
    first = (job.place(part) / DONE).stat().st_ino
    is_dir = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda p: p != job.place(part) and is_dir(p))
    monkeypatch.setattr(parts.Path, "rename", _refused)
    with pytest.raises(OSError, match="there already"):
        on_worker(job, part, {})
    monkeypatch.setattr(Path, "is_dir", is_dir)
    on_worker(job, part, {})
    assert (job.place(part) / DONE).stat().st_ino == first
    assert [p.name for p in job.folder.iterdir()] == [part.name]


def _refused(self: Path, target: Path) -> None:
    raise OSError(f"{target} is there already")


def test_another_version_or_a_path_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"This worker has livesr .* and the run is of 0\.0\.0"):
        on_worker(job_of(tmp_path / "run.ome.zarr", livesr="0.0.0"), Part(0, 1), {})
    with pytest.raises(StoreError, match="every worker must see"):
        on_worker(job_of(tmp_path / "run.ome.zarr"), Part(0, 1), {})


@pytest.mark.slow
def test_putting_together_goes_on_where_it_was_interrupted(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(40))
    job = job_of(live.sink.path)
    expected, _ = whole_run(job, tmp_path / "process.ome.zarr")
    rename, left = Path.rename, [4]

    def interrupted(self: Path, target: Path) -> Path:
        if self.parent.name == "c":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_parts(job)
    monkeypatch.setattr(Path, "rename", rename)
    assert_same(in_parts(job), expected)
    shutil.rmtree(job.folder)
