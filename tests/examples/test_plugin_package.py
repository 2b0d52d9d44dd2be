"""The example of a package that adds to livesr is installed as a user does it, and used by name."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from contracts import SinkContract
from livesr.formats.store import RecordedStore
from livesr.formats.zarr_files import open_array
from livesr.live.sinks.sink import Sink
from own_process import livesr, report_of
from rig_copies import RIGS

PACKAGE = Path(__file__).parents[2] / "examples" / "plugin_package"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has installed the package; a folder keeps it from ours."""
    place = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package")
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", place, source],
        check=True,
    )
    path = os.pathsep.join((str(place), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Micro-Manager's demo camera, whose frames are medians of three exposures."""
    folder = tmp_path_factory.mktemp("rig") / "median"
    shutil.copytree(RIGS / "demo", folder)
    file = folder / "rig.yaml"
    text = file.read_text(encoding="utf-8")
    assert "modality: widefield" in text
    text = text.replace("modality: widefield", "modality: median\nmedian: {frames: 3}")
    text = text.replace("reconstruct: widefield", "reconstruct: median")
    file.write_text(text.replace("imcsr-mt-er-lyso-light", "identity"), encoding="utf-8")
    return folder


class TestIntensityTable(SinkContract):
    """The sink does what every sink must."""

    @pytest.fixture(autouse=True)
    def _importable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(PACKAGE / "src")

    def sink(self, tmp_path: Path) -> Sink:
        from livesr_example.intensity_table import IntensityTable

        return IntensityTable(tmp_path / "intensity.csv")

    def broken(self, tmp_path: Path) -> Sink:
        from livesr_example.intensity_table import IntensityTable

        return IntensityTable(tmp_path / "no folder" / "intensity.csv")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "intensity.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_takes_fewer_than_60_lines() -> None:
    for name in ("median.py", "intensity_table.py"):
        file = PACKAGE / "src" / "livesr_example" / name
        assert len(file.read_text(encoding="utf-8").splitlines()) < 60


def test_what_it_adds_is_listed(environment: dict[str, str], tmp_path: Path) -> None:
    assert report_of("info", cwd=tmp_path, env=environment)["extensions"] == [
        {"kind": "modalities", "name": "median", "package": "livesr-example 1.0"},
        {"kind": "sinks", "name": "intensity-table", "package": "livesr-example 1.0"},
    ]


def test_a_live_demo_feeds_its_sink(environment: dict[str, str], tmp_path: Path) -> None:
    how = ("--size", 64, "--store", "demo.ome.zarr", "--sink", "intensity-table")
    report = report_of(
        "demo", "--frames", 4, "--policy", "complete", *how, cwd=tmp_path, env=environment
    )
    table = rows(tmp_path)
    assert len(table) == 3 * report["sr_frames"] == 12
    assert {row["structure"] for row in table} == {"Microtubules", "ER", "Lysosomes"}
    store = RecordedStore(tmp_path / "demo.ome.zarr")
    sr = open_array(store.images["sr", 0, table[0]["channel"]].array)
    first = [float(row["mean_adu"]) for row in table if row["t"] == "0"]
    offset = store.images["sr", 0, table[0]["channel"]].attributes["livesr"]["intensity"]["offset"]
    assert first == pytest.approx(np.asarray(sr[0]).mean(axis=(1, 2)) - offset, abs=1e-2)


def test_a_live_run_goes_through_both(
    environment: dict[str, str], rig: Path, tmp_path: Path
) -> None:
    how = ("--frames", 3, "--channels", "488", "--policy", "complete")
    used = ("--sink", "intensity-table", "--store", "run.ome.zarr")
    report = report_of("run", rig, *how, *used, cwd=tmp_path, env=environment)
    assert report["raw_frames"] == 9
    assert report["raw_lost"] == 0
    assert len({row["t"] for row in rows(tmp_path)}) == report["sr_frames"] == 3
    _is_the_median(RecordedStore(tmp_path / "run.ome.zarr"))


def test_a_recording_goes_through_both(
    environment: dict[str, str], rig: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "raw.tif", rng.integers(100, 900, (12, 64, 64), np.uint16))
    what = ("--replay", "raw.tif", "--channel", "488", "--rate", "max", "--policy", "complete")
    used = ("--sink", "intensity-table", "--store", "run.ome.zarr")
    report = report_of("run", rig, *what, *used, cwd=tmp_path, env=environment)
    assert report["sr_frames"] == 4
    assert len({row["t"] for row in rows(tmp_path)}) == 4
    _is_the_median(RecordedStore(tmp_path / "run.ome.zarr"))


def test_a_typo_is_a_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    code, _, err = livesr("demo", "--sink", "intensity-tabel", cwd=tmp_path, env=environment)
    assert code == 2
    assert "Did you mean 'intensity-table'?" in " ".join(err.split())


def _is_the_median(store: RecordedStore) -> None:
    raw = np.asarray(open_array(store.images["raw", 0, "488"].array)[:])
    image = store.images["recon", 0, "488"]
    recon = np.asarray(open_array(image.array)[:])
    own = image.attributes["livesr"]
    assert own["method"] == "median"
    expected = np.median(raw, axis=1) - 100 + own["intensity"]["offset"]
    assert raw.shape[1] == 3
    assert np.array_equal(recon, np.rint(expected).astype(np.uint16))
