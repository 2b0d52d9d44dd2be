"""Stores that were damaged by hand, in one place or two.

Repair keeps every exposure that can be read, and says the rest.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from livesr.base.errors import DamagedFileError, StoreError
from livesr.check.store import check_store
from livesr.formats import layout
from livesr.formats.frames_log import read_log
from livesr.formats.shard_file import read_index, shard_form
from livesr.formats.store import RecordedStore, read_json
from livesr.live.inference.engine import Engine
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import raw_input, store_input
from livesr.store.repair import repair
from recorded_runs import Live, array, lines, mixing_engine, moving_groups, sim_rig

FRAMES, RAW, SHARD = 40, 9, 16
GROUPS = moving_groups(FRAMES, RAW)
KINDS = ("raw", "recon", "sr")
Frames = set[tuple[int, int]]
NOTHING: Frames = set()


@dataclass(frozen=True)
class Damage:
    """What was done to a store; `cost` are the exposures (t, raw) that may be gone after it."""

    name: str
    do: Callable[[Path, random.Random], Frames]
    log: bool = False


def metadata(file: str, how: str) -> Damage:
    def do(store: Path, rng: random.Random) -> Frames:
        path = store / file
        content = path.read_bytes() if path.is_file() else b""
        if how == "deleted":
            path.unlink(missing_ok=True)
        elif how == "without attributes":
            try:
                about = json.loads(content or b"{}")
            except ValueError:  # the other damage
                return set(NOTHING)
            about.get("attributes", {}).pop("livesr", None)
            path.write_text(json.dumps(about))
        elif how == "of another program":
            path.write_text(
                '{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version":'
                ' "0.5"}}}'
            )
        else:
            path.write_bytes(
                {"empty": b"", "cut": content[: rng.randrange(1, max(len(content), 2))]}[how]
            )
        return set(NOTHING)

    return Damage(f"{file} {how}", do)


def shard(kind: str, how: str) -> Damage:
    def do(store: Path, rng: random.Random) -> Frames:
        files = sorted(p for p in (store / kind / "0" / "c").rglob("*") if p.is_file())
        if not files:
            return set(NOTHING)
        file = rng.choice(files)
        number = int(file.relative_to(store / kind / "0" / "c").parts[0])
        every = {(t, i) for t in range(number * SHARD, (number + 1) * SHARD) for i in range(RAW)}
        if how == "deleted":
            file.unlink()
        elif how == "cut":
            file.write_bytes(file.read_bytes()[: -rng.randrange(1, 200)])
        elif how == "empty":
            file.write_bytes(b"")
        elif how == "index":
            flip(file, file.stat().st_size - rng.randrange(1, 100))
        else:
            every = flip_chunk(store / kind / "0", file, number, rng)
        return every if kind == "raw" else set(NOTHING)

    return Damage(f"a shard of {kind} {how}", do)


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[max(at, 0) % len(content)] ^= 0x55
    file.write_bytes(content)


def flip_chunk(folder: Path, file: Path, number: int, rng: random.Random) -> Frames:
    """Flip bits inside one chunk.

    Anywhere where there are checksums, else where Blosc says how long it is.
    """
    try:
        form = shard_form(read_json(folder / "zarr.json"))
        index = read_index(file, form.chunks)
    except ValueError:
        return set(NOTHING)
    except Exception:  # the other damage took the metadata
        return set(NOTHING)
    chunk = rng.choice(np.flatnonzero(index[:, 0] < 2**63))
    offset, length = map(int, index[chunk])
    flip(file, offset + (rng.randrange(length) if form.has_checksums else 5))
    t, i = divmod(int(chunk), RAW)
    return {(number * SHARD + t, i)}


def log(how: str) -> Damage:
    def do(store: Path, rng: random.Random) -> Frames:
        path = store / layout.FRAMES_LOG
        whole = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        middle = rng.randrange(len(whole)) if whole else 0
        if how == "deleted":
            path.unlink(missing_ok=True)
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "cut":
            path.write_bytes(b"".join(whole)[: rng.randrange(max(sum(map(len, whole)), 1))])
        elif how == "a line less":
            path.write_bytes(b"".join(whole[:middle] + whole[middle + 1 :]))
        else:
            path.write_bytes(
                b"".join([*whole[:middle], b'{"series": \xff\xfe\n', *whole[middle + 1 :]])
            )
        return set(NOTHING)

    return Damage(f"frames.jsonl {how}", do, log=True)


METADATA = [
    metadata(file, how)
    for file in (
        "zarr.json",
        "OME/zarr.json",
        "livesr/zarr.json",
        *(f"{kind}/zarr.json" for kind in KINDS),
        *(f"{kind}/0/zarr.json" for kind in KINDS),
        "livesr/images.json",
    )
    for how in ("empty", "cut", "deleted", "without attributes", "of another program")
    if not (how == "without attributes" and ("/0/" in file or file.startswith(("OME", "livesr"))))
]
SHARDS = [
    shard(kind, how) for kind in KINDS for how in ("deleted", "cut", "empty", "index", "data")
]
LOGS = [log(how) for how in ("deleted", "empty", "cut", "a line less", "a line damaged")]
REPORT = [metadata(layout.REPORT, how) for how in ("empty", "deleted")]
RIG = [metadata(layout.RIG, how) for how in ("empty", "cut", "deleted")]
DAMAGES = [*METADATA, *SHARDS, *LOGS, *REPORT, *RIG]
OFTEN = [
    pytest.param(
        d,
        marks=(
            ()
            if d.name.endswith(("attributes", "raw data", "raw index", "less", "log empty"))
            or d.name in {"zarr.json empty", "raw/0/zarr.json empty", "a shard of sr empty"}
            or d in RIG
            else pytest.mark.slow
        ),
    )
    for d in DAMAGES
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a run has closed."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LIVESR_HOME", str(home))
        folder = mixing_engine(home / "engines" / "mixing").folder
        live = Live(sim_rig("mixing"), tmp_path_factory.mktemp("whole") / "run.ome.zarr")
        live.record(GROUPS)
        shutil.copyfile(
            folder / "manifest.yaml", live.sink.path / layout.SIDECARS / "manifest-mixing.yaml"
        )
    return live.sink.path


def damaged(whole: Path, tmp_path: Path, *damages: Damage, seed: int = 0) -> tuple[Path, Frames]:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(whole, store)
    rng, cost = random.Random(seed), set(NOTHING)
    for damage in damages:
        cost |= damage.do(store, rng)
    return store, cost


def assert_repaired(store: Path, cost: Frames) -> None:
    """Every exposure that is not among the `cost` is at its place, nothing else is anywhere, and
    what is said is true."""
    report = repair(store, still_growing_s=0.0)
    yaozarrs.validate_zarr_store(str(store))
    raw = array(store, "raw")
    told = {
        t: set(range(RAW)) - set(e.get("missing", ())) for (_, t), e in lines(store, "raw").items()
    }
    for t, i in itertools.product(range(FRAMES), range(RAW)):
        if (t, i) not in cost:
            assert i in told.get(t, ()), (t, i)
        if i in told.get(t, ()):
            np.testing.assert_array_equal(raw[t, i], GROUPS[t, i])
        elif t < len(raw):
            assert not raw[t, i].any(), (t, i)
    assert len({len(array(store, kind)) for kind in KINDS}) == 1
    read_log(store / layout.FRAMES_LOG)
    lost = {
        (t, i) for t, i in itertools.product(range(FRAMES), range(RAW)) if i not in told.get(t, ())
    }
    again = repair(store, still_growing_s=0.0)
    assert not again.changed
    assert again.lacking == report.lacking
    if lost:
        assert again.lacking or again.damage
        assert [f for f in check_store(store).findings if f.level == "error"]


@pytest.mark.parametrize("damage", OFTEN, ids=lambda d: d.name)
def test_one_damage(whole: Path, tmp_path: Path, damage: Damage) -> None:
    store, cost = damaged(whole, tmp_path, damage)
    before = check_store(store)
    assert_repaired(store, cost)
    if damage.name.startswith("a shard"):
        assert [f for f in before.findings if f.level == "error"], "nobody noticed"
    if not cost and not damage.name.startswith("a shard"):
        state = check_store(store)
        assert all(i.readable == i.told == FRAMES for i in state.images), state.images


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400))
def test_two_damages(whole: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    two = rng.sample(DAMAGES, 2)
    print(" + ".join(d.name for d in two))
    store, cost = damaged(whole, tmp_path, *two, seed=seed)
    assert_repaired(store, cost)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 40))]
)
def test_a_repair_that_is_killed_is_repeated(whole: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    several = [rng.choice(SHARDS), rng.choice(METADATA), rng.choice(LOGS)]
    print(" + ".join(d.name for d in several))
    store, cost = damaged(whole, tmp_path, *several, seed=seed)
    script = (
        "import sys\nfrom pathlib import Path\nfrom livesr.store.repair import repair\n"
        "print('go', flush=True)\nrepair(Path(sys.argv[1]), still_growing_s=0.0)\n"
    )
    repairing = subprocess.Popen(
        [sys.executable, "-c", script, str(store)], stdout=subprocess.PIPE, text=True
    )
    assert repairing.stdout is not None
    repairing.stdout.readline()
    time.sleep(rng.uniform(0, 0.2))
    repairing.kill()
    repairing.communicate()
    assert_repaired(store, cost)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["", "0/"])
def test_metadata_are_what_they_were(whole: Path, tmp_path: Path, kind: str, part: str) -> None:
    """With the copy that the run made, and for stores of older versions without."""
    for copy in (True, False):
        store, _ = damaged(
            whole, tmp_path / str(copy), metadata(f"{kind}/{part}zarr.json", "empty")
        )
        if not copy:
            (store / layout.IMAGES).unlink()
        repair(store, still_growing_s=0.0)
        was, now = (read_json(folder / f"{kind}/{part}zarr.json") for folder in (whole, store))
        if part:
            assert now == was
        else:
            assert_same_image(was["attributes"], now["attributes"], copy)


def assert_same_image(was: dict[str, Any], now: dict[str, Any], copy: bool) -> None:
    for attributes in (was, now):
        for channel in attributes["ome"]["omero"]["channels"]:
            channel.pop("window")  # follows the pictures
        scale = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0][
            "scale"
        ]
        scale[0] = round(scale[0], 3)
        if not copy:  # where it was computed is not known any more
            attributes["livesr"].pop("warning", None)  # one of two sentences
            warnings = attributes["livesr"].pop("warnings", ())
            assert attributes is was or not warnings or "no longer known" in warnings[-1]
            for engine in (attributes["livesr"], *attributes["livesr"].get("engines", ())):
                engine.pop("runtime", None)
    assert now == was


def test_a_store_that_ome_writers_closed_once_more(
    whole: Path, tmp_path: Path, engine: Engine
) -> None:
    """pymmcore-gui's closing: raw has only what its writer knew, the array counts whole shards,
    there is no report."""
    store, _ = damaged(whole, tmp_path)
    file = store / "raw" / "zarr.json"
    about = json.loads(file.read_text())
    del about["attributes"]["livesr"]
    file.write_text(json.dumps(about))
    (store / layout.REPORT).unlink()
    repair(store, still_growing_s=0.0)
    assert RecordedStore(store).images["raw", 0, "488"].attributes["livesr"]["origin_px"] == [
        0.0,
        0.0,
    ]
    report = process(raw_input(store), tmp_path / "again.ome.zarr")
    assert (report["raw_frames"], report["sr_frames"]) == (FRAMES * RAW, FRAMES)
    np.testing.assert_array_equal(array(tmp_path / "again.ome.zarr", "sr"), array(whole, "sr"))


@pytest.mark.parametrize("how", ["deleted", "empty", "cut", "a line damaged"])
def test_without_its_log_a_store_is_computed_again(
    whole: Path, tmp_path: Path, engine: Engine, how: str
) -> None:
    store, _ = damaged(whole, tmp_path, log(how))
    repair(store, still_growing_s=0.0)
    report = process(raw_input(store), tmp_path / "again.ome.zarr")
    assert (report["raw_frames"], report["sr_frames"]) == (FRAMES * RAW, FRAMES)
    backfill(store)
    assert not [f for f in check_store(store).findings if f.level != "note"]


def test_a_middle_shard_that_is_gone_is_never_fine(
    whole: Path, tmp_path: Path, engine: Engine
) -> None:
    store, _ = damaged(whole, tmp_path)
    (store / "raw/0/c/1/0/0/0").unlink()
    with pytest.raises(DamagedFileError, match=r"t=16 \(its file is gone\)"):
        process(raw_input(store), tmp_path / "again.ome.zarr")
    for _ in range(2):
        report = repair(store, still_growing_s=0.0)
        assert report.lacking == {"raw": SHARD}
        assert report.holes == {"raw": list(range(SHARD, 2 * SHARD))}
        assert "t = 16-31" in report.damage[0]
    assert (report.lost, report.changed) == ({}, False)


def test_what_was_predicted_beside_a_loss_is_computed_again(
    whole: Path, tmp_path: Path, engine: Engine
) -> None:
    """The prediction of t = 15 saw the frame 16, and that of 32 the frame 31: both are lost."""
    store, _ = damaged(whole, tmp_path)
    (store / "raw/0/c/1/0/0/0").unlink()
    repair(store, still_growing_s=0.0)
    reference = process(store_input(RecordedStore(store)), tmp_path / "again.ome.zarr")
    there = [t for t in range(FRAMES) if t // SHARD != 1]
    sr, offline = array(store, "sr").astype(int), array(Path(reference["store"]), "sr").astype(int)
    assert np.abs(sr[[15, 32]] - offline[[15, 32]]).max() > 1
    report = backfill(store)
    assert report["predicted"] == 2
    assert np.abs(array(store, "sr")[there].astype(int) - offline[there]).max() <= 1
    assert backfill(store)["predicted"] == 0


def test_a_rig_that_was_cut_where_it_still_parses_is_none(
    whole: Path, tmp_path: Path, engine: Engine
) -> None:
    """Half of it is another microscope: without its channels, nothing is separated."""
    text = (whole / layout.RIG).read_text(encoding="utf-8")
    places = [text.index(key) for key in ("\nsim:", "\nchannels:")] + [len(text) // 2]
    for number, place in enumerate(places):
        store, _ = damaged(whole, tmp_path / str(number))
        (store / layout.RIG).write_text(text[:place], encoding="utf-8")
        for work in (lambda s: process(raw_input(s), tmp_path / "again.ome.zarr"), backfill):
            with pytest.raises(StoreError, match=r"ends after .* 'livesr repair .*run\.ome\.zarr'"):
                work(store)
        assert [f.code for f in check_store(store).findings if f.level == "error"] == ["rig"]
        assert layout.RIG in repair(store, still_growing_s=0.0).metadata
        assert (store / layout.RIG).read_text(encoding="utf-8") == text
        assert not repair(store, still_growing_s=0.0).changed
    assert process(raw_input(store), tmp_path / "again.ome.zarr")["sr_frames"] == FRAMES


@pytest.mark.parametrize("how", ["changed", "without its last line end", "of an older store"])
def test_a_rig_that_somebody_put_there_is_taken(
    whole: Path, tmp_path: Path, engine: Engine, how: str
) -> None:
    store, _ = damaged(whole, tmp_path)
    file = store / layout.RIG
    text = file.read_text(encoding="utf-8")
    if how == "changed":
        file.write_text(text.replace("wiener: 0.1", "wiener: 0.2"), encoding="utf-8")
        assert file.read_text(encoding="utf-8") != text
    elif how == "without its last line end":
        file.write_text(text.rstrip(), encoding="utf-8")
    else:
        about = read_json(store / layout.IMAGES)
        del about["rig"]
        (store / layout.IMAGES).write_text(json.dumps(about), encoding="utf-8")
    now = file.read_text(encoding="utf-8")
    assert not repair(store, still_growing_s=0.0).changed
    assert not [f for f in check_store(store).findings if f.level == "error"]
    raw_input(store)
    assert file.read_text(encoding="utf-8") == now


def test_pictures_that_are_still_there_are_read_by_zarr(whole: Path, tmp_path: Path) -> None:
    store, cost = damaged(whole, tmp_path, shard("raw", "data"), shard("sr", "data"), seed=3)
    repair(store, still_growing_s=0.0)
    for kind in KINDS:
        zarr.open_array(store / kind / "0", mode="r")[:]
    ((t, i),) = cost
    line = lines(store, "raw")[next(s for s, _ in lines(store, "raw")), t]
    assert (line["state"], line["missing"], line["damaged"]) == ("raw_incomplete", [i], [i])
