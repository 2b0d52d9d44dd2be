"""A film of a store, decoded again; from the command line and from the page."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from contracts import INTERVAL_NS, describe, multicolor_frame, sr_frame
from livesr.base.errors import ConfigError, StoreError
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.store.repair import repair
from livesr.viewer.browser.messages import TakeSnapshot, View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.browser.snapshot import take_snapshot, with_caption
from livesr.viewer.movie import MovieSettings, _pace, write_movie
from livesr.viewer.store_source import StoreSource

imageio_ffmpeg = pytest.importorskip(
    "imageio_ffmpeg", reason="imageio-ffmpeg is not installed: pip install 'livesr[export]'"
)
SECOND = 1_000_000_000
# imageio-ffmpeg leaves the pipes of ffmpeg to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six moments, of which the network skipped one."""
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(size=32, interval_s=0.5))
    for t in range(6):
        sink.recon(sr_frame(t, size=32))
        if t != 2:
            sink.separated(multicolor_frame(t, size=32))
    sink.close({})
    return sink.path


def decoded(path: Path) -> tuple[dict, list[np.ndarray]]:
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return about, frames


def test_a_film_shows_measurement_and_prediction_beside_each_other(store: Path) -> None:
    steps: list[tuple[int, int]] = []
    path = write_movie(store, store.parent / "talk", on_progress=lambda *at: steps.append(at))
    assert path.name == "talk.mp4"
    assert steps[-1] == (5, 5)
    about, frames = decoded(path)
    assert (about["codec"], about["fps"], len(frames)) == ("h264", 10, 5)
    height, width = frames[0].shape[:2]
    assert width > 1.5 * height
    grey, coloured = frames[0][:, : width // 2], frames[0][60:-60, width // 2 :]
    spread = lambda part: np.ptp(part[80:-80].astype(int), axis=-1).mean()  # noqa: E731
    assert spread(coloured) > 4 * spread(grey[60:-60]) + 1


def test_speed_and_part_are_kept(store: Path) -> None:
    settings = MovieSettings(View(mode="prediction"), first=1, last=4, speed=1)
    moments = StoreSource(store).times(settings.view.selection)
    times = [at for _, t, at in moments if 1 <= t <= 4]
    path = write_movie(store, store.parent / "part.mp4", settings)
    about, frames = decoded(path)
    assert len(frames) == 1 + round((times[-1] - times[0]) / SECOND * about["fps"])
    with pytest.raises(StoreError, match="no picture at t 7"):
        write_movie(store, store.parent / "none.mp4", MovieSettings(first=7))


def test_time_passes_evenly_over_a_gap() -> None:
    times = [at * SECOND for at in (0, 1, 2, 5, 6)]
    assert _pace(times, 2) == (2, [0, 1, 2, 2, 2, 3, 4])
    fps, shown = _pace(times, 1000)
    assert (fps, len(shown)) == (60, 1)


def test_no_time_is_said_of_a_picture_that_a_repair_found(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store / "livesr" / "frames.jsonl"
    kept = [line for line in log.read_text().splitlines(True) if '"t": 0' not in line]
    log.write_text("".join(kept), encoding="utf-8")
    repair(store)
    said: list[str] = []

    def noted(picture: Image.Image, caption: str) -> Image.Image:
        said.append(caption)
        return with_caption(picture, caption)

    monkeypatch.setattr("livesr.viewer.movie.with_caption", noted)
    write_movie(store, store.parent / "talk.mp4")
    assert [caption.split("   ")[:2] for caption in said[1:]] == [
        [f"t {t}", f"{(t - 1) * INTERVAL_NS / SECOND:.2f} s"] for t in (1, 3, 4, 5)
    ]
    assert " s " not in said[0]
    with pytest.raises(ConfigError, match="needs the times"):
        write_movie(store, store.parent / "quick.mp4", MovieSettings(speed=1))
    source = StoreSource(store)
    pair = source.pair(View().selection)
    _, png = take_snapshot(PictureMaker(source), pair, View(), TakeSnapshot(type="snapshot"), {})
    assert "1970" not in Image.open(io.BytesIO(png)).text["Description"]


def test_nothing_is_written_over_and_interrupted_it_leaves_nothing(store: Path) -> None:
    first = write_movie(store, store.parent / "a.mp4")
    assert write_movie(store, store.parent / "a.mp4").name == "a_2.mp4"
    before = sorted(first.parent.iterdir())

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_movie(store, store.parent / "b.mp4", on_progress=stop)
    assert sorted(first.parent.iterdir()) == before


def test_the_page_has_a_film_made(store: Path, tmp_path: Path) -> None:
    with (
        PreviewServer(StoreSource(store)) as server,
        connect(
            f"ws://127.0.0.1:{server.port}/stream",
            origin=f"http://127.0.0.1:{server.port}",
            max_size=None,
        ) as page,
    ):
        page.send(json.dumps({"type": "movie"}))
        said: dict = {}
        while "name" not in said:
            message = page.recv(timeout=60)
            said = json.loads(message) if isinstance(message, str) else {}
            assert "problem" not in said
        film = page.recv(timeout=60)
    assert said == {"type": "movie", "name": "run.mp4"}
    (tmp_path / "got.mp4").write_bytes(film)
    assert len(decoded(tmp_path / "got.mp4")[1]) == 5
