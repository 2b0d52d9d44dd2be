"""One picture of a store is damaged: the others are shown, and it is said which one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.sync.client import connect

from contracts import describe, feed
from livesr.base.errors import StoreError
from livesr.base.frames import Stream
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.frame_pairs import Selection
from livesr.viewer.movie import write_movie
from livesr.viewer.store_source import StoreSource

MOMENTS = 12


@pytest.fixture
def store(tmp_path: Path) -> Path:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    run = describe()
    counted = replace(run.channels[0], recon_unit="photons", recon_unit_scale=0.25)
    sink.open(replace(run, channels=(counted,)))
    for t in range(MOMENTS):
        feed(sink, t, Stream(0, "488"))
    sink.close({})
    return sink.path


def cut(file: Path) -> None:
    """Leave the first half, as a disk that was full does."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def scramble(image: Path) -> None:
    """Change bytes in the midst of the pixels of every file of an image."""
    for file in (image / "0" / "c").rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            middle = slice(2 * len(content) // 5, len(content) // 2)
            content[middle] = bytes(byte ^ 0x5A for byte in content[middle])
            file.write_bytes(content)


def there(store: Path) -> tuple[StoreSource, set[tuple[bool, bool]]]:
    """Return the source, and whether prediction and measurement are shown, of all moments."""
    source = StoreSource(store)
    pairs = [source.pair(Selection(), t) for t in range(source.length)]
    return source, {(p.prediction is not None, p.measurement is not None) for p in pairs if p}


def played(server: PreviewServer, pictures: int) -> set[int]:
    """Be a page for so many pictures of a recording that plays; return which t they are of."""
    shown: list[int] = []
    with connect(
        f"{server.url.replace('http', 'ws')}stream",
        origin=f"http://127.0.0.1:{server.port}",
        max_size=None,
        compression=None,
    ) as page:
        while len(shown) < pictures:
            message = page.recv(timeout=60)
            if isinstance(message, str) and (said := json.loads(message))["type"] == "frame":
                shown.append(said["t"])
                page.send(json.dumps({"type": "ack", "id": said["id"]}))
    return set(shown)


@pytest.mark.parametrize(("name", "shown"), [("sr", (False, True)), ("recon", (True, False))])
def test_an_array_that_says_nothing_leaves_the_other(
    store: Path, name: str, shown: tuple[bool, bool]
) -> None:
    before = StoreSource(store).pair(Selection(), 1)
    cut(store / name / "0" / "zarr.json")
    source, found = there(store)
    assert found == {shown}
    assert f"{name} is not shown: " in source.problem
    assert f"'livesr repair {store}'" in source.problem
    after = source.pair(Selection(), 1)
    for pair in (before, after):
        assert pair is not None
    assert (after.shown.header.unit, after.shown.header.unit_scale) == ("photons", 0.25)
    assert (
        after.shown.header.offset_adu
        == (before.prediction if shown[0] else before.measurement).header.offset_adu
    )


@pytest.mark.parametrize(("name", "shown"), [("sr", (False, True)), ("recon", (True, False))])
def test_pixels_that_cannot_be_read_leave_the_others(
    store: Path, name: str, shown: tuple[bool, bool]
) -> None:
    scramble(store / name)
    source, found = there(store)
    assert shown in found
    assert (False, False) not in found
    assert f"{name} cannot be read at t=" in source.problem
    assert f"'livesr check {store}'" in source.problem
    assert source.problem.count(f"{name} cannot be read") == 1, "once for an image"


def test_a_moment_of_which_nothing_can_be_read_is_passed_over_and_said(store: Path) -> None:
    for name in ("sr", "recon"):
        scramble(store / name)
    source = StoreSource(store)
    gone = {t for t in range(MOMENTS) if source.pair(Selection(), t) is None}
    assert 0 < len(gone) < source.length - 2
    maker = PictureMaker(source)
    assert maker.make(View(), min(gone)) is None
    warnings = maker.status()["warnings"]
    assert any("sr cannot be read" in w and "recon cannot be read" in w for w in warnings)
    with PreviewServer(source) as server:
        shown = played(server, 2 * MOMENTS)
    assert shown == set(range(source.length)) - gone, "the others are played, round and round"


def test_a_store_whose_every_array_says_nothing_is_refused_with_what_mends_it(store: Path) -> None:
    for name in ("sr", "recon", "raw"):
        cut(store / name / "0" / "zarr.json")
    with pytest.raises(StoreError, match="livesr repair"):
        StoreSource(store)


def test_exposures_that_cannot_be_read_cost_the_widefield_picture_alone(store: Path) -> None:
    scramble(store / "raw")
    source = StoreSource(store)
    pairs = [source.pair(Selection(), t, widefield=True) for t in range(source.length)]
    assert all(pair and pair.prediction and pair.measurement for pair in pairs)
    assert {pair.widefield is None for pair in pairs if pair} == {True, False}
    assert "raw cannot be read at t=" in source.problem


def test_no_film_is_made_of_a_part_with_a_moment_that_cannot_be_read(store: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="pip install 'livesr[export]'")
    for name in ("sr", "recon"):
        scramble(store / name)
    with pytest.raises(StoreError, match=r"No film can be made of it: .*cannot be read at t="):
        write_movie(store, store.parent / "talk")
    assert not (store.parent / "talk.mp4").exists()
