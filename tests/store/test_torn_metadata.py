"""A file of a store's metadata that a power cut left torn: said with what mends it, and mended."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from livesr.base.errors import LiveSRError, StoreError
from livesr.base.lock import Lock
from livesr.cli import _run
from livesr.formats.store import RecordedStore, advice
from livesr.store.raw_input import raw_input
from livesr.store.repair import repair
from livesr.viewer.store_source import StoreSource
from recorded_runs import Live, mixing_engine, moving_groups, sim_rig

METADATA = (
    "zarr.json",
    "OME/zarr.json",
    "raw/zarr.json",
    "raw/0/zarr.json",
    "recon/0/zarr.json",
    "sr/zarr.json",
    "sr/0/zarr.json",
)
TEARS = {
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "a byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "all but a byte": lambda data: data.rstrip()[:-1],
    "zeros": lambda data: bytes(len(data)),
    "zeros behind": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
}


# Every file in two ways; every way in a file that readers need, and in one that they do not.
OFTEN = [
    pytest.param(
        name,
        tear,
        marks=()
        if tear in ("gone", "half") or name in ("raw/0/zarr.json", "sr/0/zarr.json")
        else pytest.mark.slow,
    )
    for name in METADATA
    for tear in TEARS
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a run has closed."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LIVESR_HOME", str(home))
        mixing_engine(home / "engines" / "mixing")
        live = Live(sim_rig("mixing"), tmp_path_factory.mktemp("whole") / "run.ome.zarr")
        live.record(moving_groups(3))
    return live.sink.path


def torn(whole: Path, tmp_path: Path, name: str, tear: str) -> Path:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(whole, store)
    left = TEARS[tear]((store / name).read_bytes())
    (store / name).unlink()
    if left is not None:
        (store / name).write_bytes(left)
    return store


def said(read: Any, store: Path) -> str:
    """What a reader says of a store, "" where it does without the file."""
    try:
        read(store)
    except LiveSRError as e:
        return str(e)
    return ""


@pytest.mark.parametrize(("name", "tear"), OFTEN)
def test_torn_metadata_are_named_with_what_mends_them(
    whole: Path, tmp_path: Path, name: str, tear: str
) -> None:
    store = torn(whole, tmp_path, name, tear)
    refusals = {
        reader.__name__: sentence
        for reader in (StoreSource, _raw_frames)
        if (sentence := said(reader, store))
    }
    assert refusals or name in ("recon/0/zarr.json", "sr/0/zarr.json")
    for sentence in refusals.values():
        assert str(store / name) in sentence
        assert f"'livesr repair {store}'" in sentence
    assert _run(["check", str(store), "--json"]) == 1
    repair(store)
    assert said(StoreSource, store) == said(_raw_frames, store) == ""
    assert _run(["check", str(store), "--json"]) == 0
    for image in ("raw/0", "recon/0", "sr/0"):
        before, after = (zarr.open_array(s / image, mode="r")[:] for s in (whole, store))
        np.testing.assert_array_equal(before, after)


def _raw_frames(store: Path) -> None:
    with closing(raw_input(store, engine="none")) as source:
        assert sum(1 for _ in source.frames())


def test_whoever_holds_the_lock_is_not_told_to_wait_for_itself(whole: Path, tmp_path: Path) -> None:
    store = torn(whole, tmp_path, "OME/zarr.json", "half")
    with Lock(store / "livesr", "backfill"):
        assert "livesr repair" in advice(store)
        with pytest.raises(StoreError, match="livesr repair"):
            RecordedStore(store)


def test_without_its_log_a_store_is_not_completed_but_told_how(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = torn(whole, tmp_path, "livesr/frames.jsonl", "gone")
    assert _run(["backfill", str(store)]) == 2
    assert "frames.jsonl" in (err := "".join(capsys.readouterr().err.split()))
    assert "livesrrepair" in err
    assert "'livesr repair" in said(StoreSource, store)


@pytest.mark.parametrize("tear", ["gone", "empty", "a byte", "zeros"])
def test_a_copy_of_the_rig_that_is_torn_is_replaced(whole: Path, tmp_path: Path, tear: str) -> None:
    store = torn(whole, tmp_path, "livesr/rig.yaml", tear)
    sentence = said(_raw_frames, store)
    assert str(store / "livesr" / "rig.yaml") in sentence
    assert "--rig" in sentence
    shutil.copyfile(whole / "livesr" / "rig.yaml", store / "livesr" / "rig.yaml")
    _raw_frames(store)


def test_raw_frames_are_read_past_all_that_is_torn_around_them(whole: Path, tmp_path: Path) -> None:
    """From a disk that nobody may write to, say: `livesr process STORE/raw --rig RIG`."""
    store = torn(whole, tmp_path, "sr/zarr.json", "half")
    for name in ("zarr.json", "OME/zarr.json", "recon/zarr.json"):
        (store / name).write_bytes(b"{")
    with closing(raw_input(store / "raw", sim_rig("mixing"), "none")) as source:
        frames = [frame.pixels for frame in source.frames()]
    raw = zarr.open_array(whole / "raw" / "0", mode="r")[:]
    np.testing.assert_array_equal(np.stack(frames), raw.reshape(-1, *raw.shape[-2:]))
