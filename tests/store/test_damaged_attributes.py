"""Stores whose metadata say something of another kind than livesr writes.

Whatever reads them understands, or refuses in a sentence; a repair has them again from the copy
that the run made, and raw stays as it is.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import LiveSRError
from livesr.check.store import check_store
from livesr.formats import layout
from livesr.formats.store import RecordedStore, read_json
from livesr.napari.store_layers import store_layers
from livesr.simulation.blinking_rig import BlinkingBank
from livesr.store.backfill import backfill
from livesr.store.exports.export import export
from livesr.store.exports.part import Part
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from livesr.store.repair import repair
from livesr.viewer.browser.messages import ChannelDisplay, View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.frame_pairs import Selection
from livesr.viewer.store_source import StoreSource
from recorded_runs import RIGS, SIZE, Live, keeping_rig, mixing_engine, moving_groups, sim_rig

GONE = object()
OTHERS: dict[str, Any] = {
    "a string": "x",
    "a number": 7,
    "a negative": -1,
    "a list": ["x"],
    "null": None,
    "a mapping": {"x": 1},
    "gone": GONE,
}
Place = tuple[str | int, ...]
OWN = ("attributes", "livesr")
VIEWS = (
    View(histogram=True),
    View(mode="measurement", widefield=ChannelDisplay(), depth=False),
    View(error=True, raw=True),
    View(uncertainty=True),
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Path]]:
    """Stores of three time points: one with every kind of image that a network makes, one with
    pictures of groups under way, and one with a film and the depth of what was localised in it.
    """
    home, folder = (tmp_path_factory.mktemp(name) for name in ("home", "whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVESR_HOME", str(home))
        mixing_engine(home / "engines" / "mixing")
        networks = Live(
            sim_rig("mixing"),
            folder / "networks.ome.zarr",
            uncertainty="flips",
            ensemble="flips",
            error_map="planes",
        )
        rolling = Live(keeping_rig(folder), folder / "rolling.ome.zarr")
        for live in (networks, rolling):
            live.record(moving_groups(3, 9))
        localising = localising_rig(folder)
        depth = Live(localising, folder / "depth.ome.zarr")
        bank = BlinkingBank(localising, SIZE, 18, fluorophores=200, lit=4)
        depth.record(bank.frames.reshape(3, 6, SIZE, SIZE))
        lives = {"networks": networks, "rolling": rolling, "depth": depth}
        yield {name: live.sink.path for name, live in lives.items()}


@pytest.fixture(scope="module")
def whole(stores: Mapping[str, Path]) -> Path:
    return stores["networks"]


def localising_rig(folder: Path) -> RigConfig:
    """virtual_storm_3d with groups of six."""
    rig = shutil.copytree(RIGS / "virtual_storm_3d", folder / "localising")
    text = (rig / "rig.yaml").read_text(encoding="utf-8")
    (rig / "rig.yaml").write_text(text.replace("frames: 100\n", "frames: 6\n"), encoding="utf-8")
    return load_rig(rig)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something of another kind at a place of a JSON file."""

    file: str
    place: Place
    other: str

    def __str__(self) -> str:
        return f"{self.file}: {'.'.join(map(str, self.place))} is {self.other}"

    def do(self, store: Path) -> None:
        file = store / self.file
        about = value = json.loads(file.read_text(encoding="utf-8"))
        *path, last = self.place
        for step in path:
            value = value[step]
        if OTHERS[self.other] is GONE:
            del value[last]
        else:
            value[last] = copy.deepcopy(OTHERS[self.other])
        file.write_text(json.dumps(about), encoding="utf-8")


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damages(store: Path, files: Iterable[str] = ()) -> list[Damage]:
    """Every damage to what livesr wrote into the groups of a store, or some, and to its report."""
    files = files or sorted(
        file.relative_to(store).as_posix() for file in store.glob("*/zarr.json")
    )
    found = [
        Damage(file, ("attributes", *place), other)
        for file in ["zarr.json", *files]
        for place in places(read_json(store / file)["attributes"])
        for other in OTHERS
    ]
    report = read_json(store / layout.REPORT)
    found += [Damage(layout.REPORT, (key,), other) for key in report for other in OTHERS]
    return found


def pixels(store: Path) -> dict[Path, bytes]:
    files = (store / "raw" / "0" / "c").rglob("*")
    return {file.relative_to(store): file.read_bytes() for file in files if file.is_file()}


def in_a_sentence(work: Callable[[], object]) -> bool:
    """Whether it worked; where it did not, it said why."""
    try:
        work()
    except LiveSRError as e:
        said = str(e)
    else:
        return True
    assert 10 < len(said) < 3000
    return False


def look(store: Path) -> None:
    """Draw every moment as the page does, and every layer of napari."""
    for data, _, _ in store_layers(store):
        np.asarray(data)
    source = StoreSource(store)
    maker = PictureMaker(source)
    for index in range(source.length):
        for view in VIEWS[: 1 if index else None]:
            assert maker.make(view, index), maker.status()
    json.dumps(maker.status(), allow_nan=False)


def assert_handled(whole: Path, folder: Path, damage: Damage, *, in_full: bool) -> None:
    store = folder / "run.ome.zarr"
    shutil.copytree(whole, store)
    damage.do(store)
    read = in_a_sentence(lambda: RecordedStore(store))
    in_a_sentence(lambda: raw_input(store))
    in_a_sentence(lambda: look(store))
    found = check_store(store).findings
    if in_full:
        in_a_sentence(lambda: backfill(store))
        in_a_sentence(lambda: process(raw_input(store), folder / "again.ome.zarr"))
        for form in ("tiff", "imagej", "csv", "ome-zarr-0.4"):
            in_a_sentence(lambda form=form: export(store, form, folder / form, Part()))
    if not read:
        assert any(f.level == "error" for f in found), "refused, and livesr check finds nothing"
        repair(store, still_growing_s=0.0)
        RecordedStore(store)
        was, now = (read_json(at / damage.file)["attributes"] for at in (whole, store))
        assert now.get("livesr") == was.get("livesr")
    assert pixels(store) == pixels(whole)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "damage",
    [
        Damage("sr/zarr.json", ("attributes", "livesr", "runtime"), "a string"),
        Damage("sr/zarr.json", ("attributes", "livesr", "runtime"), "null"),
        Damage("sr/zarr.json", ("attributes", "livesr", "engines", 0, "model"), "a list"),
        Damage("sr/zarr.json", ("attributes", "livesr", "kind"), "a string"),
        Damage("sr/zarr.json", ("attributes", "ome", "omero", "channels", 1), "gone"),
        Damage("raw/zarr.json", ("attributes", "livesr", "position"), "a number"),
        Damage("raw/zarr.json", ("attributes", "livesr", "origin_px"), "a mapping"),
        Damage("recon/zarr.json", ("attributes", "livesr", "intensity", "offset"), "a string"),
        Damage("zarr.json", ("attributes", "livesr", "channels", 0), "a string"),
    ],
    ids=str,
)
def test_what_is_of_another_kind_is_refused_in_a_sentence_and_repaired(
    whole: Path, tmp_path: Path, damage: Damage
) -> None:
    store = tmp_path / "refused.ome.zarr"
    shutil.copytree(whole, store)
    damage.do(store)
    with pytest.raises(LiveSRError, match=r"zarr\.json.*'livesr repair .*refused\.ome\.zarr'"):
        RecordedStore(store)
    assert_handled(whole, tmp_path / "handled", damage, in_full=damage.other == "a list")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("rolling", Damage("rolling/zarr.json", (*OWN, "newest"), "gone")),
        ("rolling", Damage("rolling/zarr.json", (*OWN, "newest", 1), "gone")),
        ("rolling", Damage("rolling/zarr.json", (*OWN, "exposures"), "gone")),
        ("rolling", Damage("rolling/zarr.json", (*OWN, "exposures"), "a number")),
        ("depth", Damage("depth/zarr.json", (*OWN, "range_nm"), "gone")),
        ("depth", Damage("depth/zarr.json", (*OWN, "range_nm", 1), "a string")),
        ("depth", Damage("raw/zarr.json", (*OWN, "exposures"), "gone")),
        ("depth", Damage("raw/zarr.json", (*OWN, "exposures"), "a number")),
    ],
    ids=str,
)
def test_what_films_and_depth_say_is_refused_in_a_sentence_and_repaired(
    stores: Mapping[str, Path], tmp_path: Path, name: str, damage: Damage
) -> None:
    """Without it, time points would be other ones, and z other nm."""
    store = tmp_path / "refused.ome.zarr"
    shutil.copytree(stores[name], store)
    damage.do(store)
    with pytest.raises(LiveSRError, match=r"zarr\.json.*'livesr repair .*refused\.ome\.zarr'"):
        RecordedStore(store)
    (store / layout.IMAGES).unlink()  # then rig.yaml says it
    repair(store, still_growing_s=0.0)
    assert in_a_sentence(lambda: look(store))
    was, now = (read_json(at / damage.file)["attributes"]["livesr"] for at in (stores[name], store))
    assert (now.get("newest"), now.get("range_nm"), now.get("exposures")) == (
        was.get("newest"),
        was.get("range_nm"),
        was.get("exposures"),
    )
    assert_handled(stores[name], tmp_path / "handled", damage, in_full=False)


def test_the_colours_of_depth_may_be_gone(stores: Mapping[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(stores["depth"], store)
    Damage("depth/zarr.json", (*OWN, "colors"), "gone").do(store)
    look(store)
    colormaps = [
        {about["name"]: about.get("colormap") for _, about, _ in store_layers(each)}
        for each in (stores["depth"], store)
    ]
    assert colormaps[0] == colormaps[1]
    tables = []
    for each in (stores["depth"], store):
        done = export(each, "imagej", tmp_path / each.name, Part(images=["depth"]))
        (file,) = done.files
        with tifffile.TiffFile(done.path / file) as tiff:
            tables.append(np.array((tiff.imagej_metadata or {})["LUTs"]))
    np.testing.assert_array_equal(*tables)


def test_an_image_that_the_store_does_not_name_is_not_shown(
    stores: Mapping[str, Path], tmp_path: Path
) -> None:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(stores["rolling"], store)
    file = store / "OME" / "zarr.json"
    about = read_json(file)
    about["attributes"]["ome"]["series"].remove("rolling")
    file.write_text(json.dumps(about), encoding="utf-8")
    look(store)
    assert StoreSource(store).length == 3
    repair(store, still_growing_s=0.0)
    assert StoreSource(store).length == StoreSource(stores["rolling"]).length > 3


def test_raw_that_the_store_does_not_name_was_recorded(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(whole, store)
    file = store / "OME" / "zarr.json"
    about = read_json(file)
    about["attributes"]["ome"]["series"].remove("raw")
    file.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(LiveSRError, match=r"zarr\.json does not name raw, .*'livesr repair "):
        raw_input(store)
    repair(store, still_growing_s=0.0)
    raw_input(store)


@pytest.mark.parametrize("key", ["intensity.unit", "stream", "position_name"])
def test_what_nothing_needs_may_be_gone(whole: Path, tmp_path: Path, key: str) -> None:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(whole, store)
    for kind in ("recon", "sr", "uncertainty"):
        Damage(f"{kind}/zarr.json", ("attributes", "livesr", *key.split(".")), "gone").do(store)
    export(store, "tiff", tmp_path / "tiff", Part())
    pair = StoreSource(store).pair(Selection(), 0, widefield=True)
    assert pair is not None
    assert pair.prediction is not None


def every_damage(stores: Mapping[str, Path]) -> list[tuple[Path, Damage]]:
    """Damages to everything in the first store, and to what the others have that it has not."""
    more = {"rolling": ["rolling/zarr.json"], "depth": ["depth/zarr.json", "raw/zarr.json"]}
    return [
        (store, damage)
        for name, store in stores.items()
        for damage in damages(store, more.get(name, ()))
    ]


def test_some_damages(stores: Mapping[str, Path], tmp_path: Path) -> None:
    some = random.Random(0).sample(every_damage(stores), 16)
    for number, (whole, damage) in enumerate(some):
        print(whole.name, damage)
        assert_handled(whole, tmp_path / str(number), damage, in_full=number == 0)


def assert_copy_handled(whole: Path, folder: Path, damage: Damage) -> None:
    """Of two damages, one of them to the copy, no more than an image is lost, and no raw frame."""
    store = folder / "run.ome.zarr"
    shutil.copytree(whole, store)
    damage.do(store)
    for file in ("sr/zarr.json", "raw/zarr.json", "zarr.json"):
        (store / file).write_text("", encoding="utf-8")
    in_a_sentence(lambda: check_store(store))
    if in_a_sentence(lambda: repair(store, still_growing_s=0.0)):
        in_a_sentence(lambda: RecordedStore(store))
        in_a_sentence(lambda: check_store(store))
    assert pixels(store) == pixels(whole)
    shutil.rmtree(folder)


def damages_of_the_copy(store: Path) -> list[Damage]:
    about = read_json(store / layout.IMAGES)
    return [Damage(layout.IMAGES, place, other) for place in places(about) for other in OTHERS]


@pytest.mark.parametrize(
    "damage",
    [
        Damage(layout.IMAGES, ("images",), "a list"),
        Damage(layout.IMAGES, ("images", "sr"), "a string"),
        Damage(layout.IMAGES, ("images", "sr", "group"), "null"),
        Damage(layout.IMAGES, ("images", "raw", "array", "codecs"), "a number"),
        Damage(layout.IMAGES, ("root",), "a list"),
    ],
    ids=str,
)
def test_a_copy_that_is_damaged_as_well(whole: Path, tmp_path: Path, damage: Damage) -> None:
    assert_copy_handled(whole, tmp_path / "handled", damage)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_damages_of_the_copy(whole: Path, tmp_path: Path, seed: int) -> None:
    many = random.Random(seed).sample(damages_of_the_copy(whole), 75)
    for number, damage in enumerate(many):
        print(damage)
        assert_copy_handled(whole, tmp_path / str(number), damage)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(40))
def test_every_damage(stores: Mapping[str, Path], tmp_path: Path, share: int) -> None:
    every = every_damage(stores)
    random.Random(0).shuffle(every)
    for number, (whole, damage) in enumerate(every[share::40]):
        print(whole.name, damage)
        assert_handled(whole, tmp_path / str(number), damage, in_full=number == 0)


def test_keys_of_others_are_left_alone(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(whole, store)
    about = read_json(store / "sr" / "zarr.json")
    about["attributes"]["livesr"]["of_a_later_version"] = {"x": 1}
    about["attributes"]["another"] = "program"
    (store / "sr" / "zarr.json").write_text(json.dumps(about), encoding="utf-8")
    assert RecordedStore(store).provenance("488")["of_a_later_version"] == {"x": 1}
    assert not check_store(store).findings


def test_an_image_whose_files_were_deleted_is_none(whole: Path, tmp_path: Path) -> None:
    """Whoever makes room leaves folders behind; what was measured is read as before."""
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(whole, store)
    for file in (store / "sr").rglob("*"):
        if file.is_file():
            file.unlink()
    (store / "sr" / ".DS_Store").write_text("of a desktop", encoding="utf-8")
    assert {kind for kind, _, _ in RecordedStore(store).images} >= {"raw", "recon", "uncertainty"}
    assert ("sr", 0, "488") not in RecordedStore(store).images
    made = process(raw_input(store), tmp_path / "again.ome.zarr")
    assert ("recon", 0, "488") in RecordedStore(Path(made["store"])).images


def test_a_root_that_is_lost_with_what_nobody_needs(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(whole, store)
    for image in RecordedStore(store).images.values():
        about = read_json(image.folder / "zarr.json")
        del about["attributes"]["livesr"]["position_name"]
        (image.folder / "zarr.json").write_text(json.dumps(about), encoding="utf-8")
    for lost in (store / "zarr.json", store / layout.IMAGES):
        lost.unlink()
    repair(store, still_growing_s=0.0)
    assert RecordedStore(store).positions == ("0",)
