"""Stores that a stranger laid out.

Nothing that they name, and no link in them, reaches what is not their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livesr.base.config import load_rig
from livesr.base.errors import LiveSRError, StoreError
from livesr.base.lock import Lock
from livesr.check.store import check_store
from livesr.formats import layout
from livesr.live.sources.recordings.recording import open_recording
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from livesr.store.repair import repair
from livesr.viewer.store_source import StoreSource
from recorded_runs import Live, mixing_engine, moving_groups, sim_rig

pytestmark = pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVESR_HOME", str(home))
        mixing_engine(home / "engines" / "mixing")
        yield home


@pytest.fixture(scope="module")
def recorded(home: Path) -> Path:
    """A run that lacks a prediction and whose log ends within a line.

    Backfill and repair have something to do.
    """
    live = Live(sim_rig("mixing"), home / "live.ome.zarr")
    live.record(moving_groups(3))
    log = live.sink.path / layout.FRAMES_LOG
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [line for line in lines if not (line["series"] == "sr" and line["t"] == 1)]
    log.write_text("".join(json.dumps(line) + "\n" for line in kept) + '{"series": "sr", "t"')
    (live.sink.path / "localisations.csv").write_text("unfinished row")
    return live.sink.path


@pytest.fixture
def store(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "given.ome.zarr"))


@pytest.fixture
def victim(recorded: Path, tmp_path: Path) -> Path:
    """Another store, of somebody else."""
    return Path(shutil.copytree(recorded, tmp_path / "theirs" / "victim.ome.zarr"))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


COMMANDS: dict[str, Callable[[Path], Any]] = {
    "backfill": backfill,
    "repair": lambda path: repair(path, still_growing_s=0),
    "process": lambda path: process(raw_input(path), path.parent / "out.ome.zarr"),
    "view": StoreSource,
}
WRITING = ("backfill", "repair")
LINKS = [
    "sr",
    "sr/0",
    "sr/0/c",
    "sr/zarr.json",
    "sr/0/zarr.json",
    "raw",
    "raw/0/c",
    "recon/0",
    "OME",
    "OME/zarr.json",
    "zarr.json",
    "livesr",
    "livesr/frames.jsonl",
    "livesr/rig.cfg",
    "livesr/rig.yaml",
    "livesr/report.json",
    "localisations.csv",
]


def link(store: Path, name: str, target: Path) -> None:
    place = store / name
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_is_refused(
    name: str, command: str, store: Path, victim: Path
) -> None:
    before = content(victim)
    link(store, name, victim / name)
    with pytest.raises(LiveSRError, match=r"leads out of|is a link"):
        COMMANDS[command](store)
    assert content(victim) == before
    assert not (store.parent / "out.ome.zarr").exists()


@pytest.mark.parametrize("command", ["backfill", "repair"])
@pytest.mark.parametrize("folder", ["torn", "backfill"])
def test_nothing_is_put_where_a_link_leads(
    folder: str, command: str, store: Path, victim: Path
) -> None:
    (store / "livesr" / folder).symlink_to(victim)
    before = content(victim)
    with pytest.raises(StoreError, match=r"is a link|leads out of"):
        COMMANDS[command](store)
    assert content(victim) == before


@pytest.mark.parametrize(
    "name",
    ["../theirs/victim.ome.zarr/sr", "{victim}/sr", "..", "sr/../../x", "C:\\x", "", 3, None],
)
@pytest.mark.parametrize("command", ["backfill", "process", "view"])
def test_a_series_elsewhere_is_refused(name: Any, command: str, store: Path, victim: Path) -> None:
    about = json.loads((store / "OME" / "zarr.json").read_text())
    series = about["attributes"]["ome"]["series"]
    about["attributes"]["ome"]["series"] = [
        str(name).format(victim=victim) if isinstance(name, str) else name if s == "sr" else s
        for s in series
    ]
    (store / "OME" / "zarr.json").write_text(json.dumps(about))
    before = content(victim)
    with pytest.raises(LiveSRError, match="names"):
        COMMANDS[command](store)
    assert content(victim) == before


@pytest.mark.parametrize("command", ["process", "view", "backfill"])
@pytest.mark.parametrize("place", ["c", "a/0/c"])
def test_no_image_hides_among_chunks(place: str, command: str, store: Path, victim: Path) -> None:
    """Folders of chunks are not searched for links when a store is opened."""
    about = (store / "OME" / "zarr.json").read_text()
    for name in ("raw", "recon", "sr"):
        (store / place).mkdir(parents=True, exist_ok=True)
        shutil.move(store / name, store / place / name)
        about = about.replace(f'"{name}"', f'"{place}/{name}"')
        link(store, f"{place}/{name}/0", victim / name / "0")
    (store / "OME" / "zarr.json").write_text(about)
    with pytest.raises(LiveSRError, match=r"leads out of|is a link|folders of the store itself"):
        COMMANDS[command](store)


@pytest.mark.parametrize("command", WRITING)
def test_nothing_is_written_through_a_link_that_stays_inside(command: str, store: Path) -> None:
    """Else predictions would take the place of exposures."""
    link(store, "sr", store / "raw")
    before = content(store / "raw")
    with pytest.raises(StoreError, match="is a link"):
        COMMANDS[command](store)
    assert content(store / "raw") == before


def test_a_chunk_that_is_a_link_is_not_read(store: Path, victim: Path) -> None:
    shard = next(p for p in (store / "raw" / "0" / "c").rglob("*") if p.is_file())
    link(store, str(shard.relative_to(store)), victim / shard.relative_to(store))
    with pytest.raises(LiveSRError, match="leads out of"):
        process(raw_input(store), store.parent / "out.ome.zarr")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_that_is_itself_a_link_works(command: str, store: Path) -> None:
    place = store.parent / "elsewhere" / "another-disk.ome.zarr"
    place.parent.mkdir()
    shutil.move(store, place)
    store.symlink_to(place)
    COMMANDS[command](store)


def test_no_file_of_the_rig_is_taken_from_elsewhere(store: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("what is not its own")
    rig = store / "livesr" / "rig.yaml"
    text = re.sub("^micromanager: .*$", "micromanager: ../../secret", rig.read_text(), flags=re.M)
    assert "secret" in text
    rig.write_text(text)
    raw = raw_input(store)
    assert {name: path.parent for name, path in raw.run["sidecars"].items()} == dict.fromkeys(
        raw.run["sidecars"], store / "livesr"
    )


def test_the_file_beside_the_log_is_no_way_out(store: Path, victim: Path) -> None:
    """Files are replaced by way of one beside them, whose name can be guessed."""
    for name in ("livesr/.frames.jsonl.new", "raw/0/.zarr.json.new"):
        (store / name).symlink_to(victim / "zarr.json")
    before = content(victim)
    with pytest.raises(StoreError, match="is a link"):
        repair(store, still_growing_s=0)
    assert content(victim) == before


def test_an_image_is_opened_as_a_recording_only_beneath_it(store: Path, victim: Path) -> None:
    link(store, "raw", victim / "raw")
    with pytest.raises(LiveSRError, match="leads out of"):
        open_recording(store)
    assert load_rig("virtual_sim")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "change",
    [
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"data_type": "string"},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "../"}}},
        {"chunk_key_encoding": {"name": "another"}},
    ],
    ids=str,
)
def test_shards_stay_where_they_are_if_their_array_cannot_be_read(
    change: dict[str, Any], command: str, store: Path
) -> None:
    """An array that livesr will not read is not a torn one.

    Nothing is moved, and nothing is a traceback.
    """
    for name in ("raw", "recon", "sr"):
        file = store / name / "0" / "zarr.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    shards = {name: bytes_ for name, bytes_ in content(store).items() if "/0/c/" in name}
    with pytest.raises(LiveSRError):
        COMMANDS[command](store)
    assert {name: bytes_ for name, bytes_ in content(store).items() if "/0/c/" in name} == shards


@pytest.mark.parametrize("name", LINKS)
def test_a_check_follows_no_link_that_leads_out(name: str, store: Path, victim: Path) -> None:
    before = content(victim)
    link(store, name, victim / name)
    with pytest.raises(LiveSRError, match="leads out of"):
        check_store(store)
    assert content(victim) == before


@pytest.mark.parametrize(
    "codecs",
    [
        [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 3}},
        ],
        [{"name": "numcodecs.pickle"}],
    ],
    ids=lambda codecs: codecs[-1]["name"],
)
@pytest.mark.parametrize("copies", [True, False])
def test_an_array_that_other_software_encoded_anew_keeps_its_shards(
    codecs: list[dict[str, Any]], copies: bool, store: Path
) -> None:
    """The images beside it are repaired, and the sentence says why it is not."""
    file = store / "sr" / "0" / "zarr.json"
    about = json.loads(file.read_text())
    about["codecs"][0]["configuration"]["codecs"] = codecs
    file.write_text(json.dumps(about))
    if not copies:
        (store / layout.IMAGES).unlink()
    before = content(store / "sr")
    report = repair(store, still_growing_s=0)
    assert (sorted(report.images), "sr" in report.problems[0]) == (["raw", "recon"], True)
    assert content(store / "sr") == before
    assert "metadata" in {f.code for f in check_store(store).findings if f.level == "error"}


@pytest.mark.parametrize("command", WRITING)
def test_no_lock_is_made_where_a_link_leads(
    command: str, store: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Lock, "acquire", lambda lock: pytest.fail("the lock is taken before links are looked for")
    )
    link(store, "livesr", victim / "livesr")
    with pytest.raises(StoreError, match="is a link"):
        COMMANDS[command](store)


def test_lines_that_are_not_understood_are_kept_in_front(store: Path) -> None:
    """A later version may have written them.

    A repair copies the file before, and a second one has nothing to do.
    """
    log = store / layout.FRAMES_LOG
    strange = b'{"series": "raw", "state": "of a later version", "t": 0}\n\xff\xfe\n'
    whole = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([whole[0], strange, *whole[1:]]))
    damaged = log.read_bytes()
    assert ("log", "error") in {(f.code, f.level) for f in check_store(store).findings}
    report = repair(store, still_growing_s=0)
    assert log.read_bytes().startswith(strange)
    assert [(store / name).read_bytes() for name in report.torn] == [damaged]
    assert ("log", "note") in {(f.code, f.level) for f in check_store(store).findings}
    assert not repair(store, still_growing_s=0).changed
