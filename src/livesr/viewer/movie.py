"""A store as a film for a talk: measurement and prediction side by side, as the page shows them.

Owns what a frame of the film shows, and its pace. Encoding is ffmpeg's, by imageio-ffmpeg.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from PIL import Image

from livesr.base.errors import BackendError, ConfigError, RunError, StoreError
from livesr.base.files import NewPlace
from livesr.base.progress import Progress
from livesr.base.version import __version__
from livesr.formats.attributes import model_name
from livesr.viewer.browser.messages import TakeMovie, TakeSnapshot, View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.browser.snapshot import arranged, with_caption
from livesr.viewer.store_source import StoreSource

if TYPE_CHECKING:
    from livesr.viewer.frame_pairs import FramePair

_PAGE_FPS = 10.0  # at which the page plays a store
_MOST_FPS, _LEAST_FPS = 60.0, 0.5
_WIDTH = 1920  # of the film; players of many computers end at 4096
_QUALITY = 8.0
_AGES_NS = 10**18  # a date after none
_LARGEST = 1 << 30  # bytes that are sent to a page
_PAGE, _WHOLE = View(), TakeSnapshot(type="snapshot")


@dataclass(frozen=True, slots=True)
class MovieSettings:
    """What a film shows.

    Attributes
    ----------
    view : which stream, pictures, colours and contrast
    part : the visible field and the place of a split line
    first, last : time points, both shown
    speed : how many times faster than it was; None shows 10 moments a second, as the page does
    """

    view: View = _PAGE
    part: TakeSnapshot = _WHOLE
    first: int = 0
    last: int | None = None
    speed: float | None = None


AS_THE_PAGE = MovieSettings()


def write_movie(
    store: str | Path,
    out: str | Path,
    settings: MovieSettings = AS_THE_PAGE,
    on_progress: Progress = lambda done, total: None,
) -> Path:
    """Write one stream of a store as MP4 (H.264); return its path.

    What is at `out` stays: the next free number is taken. Interrupted, it leaves nothing. One
    frame at a time is held in memory. Every frame names its pictures measurement or prediction,
    and has a scale bar and the time.

    Parameters
    ----------
    on_progress : called with frames written and in all; what it raises ends the film

    Raises
    ------
    StoreError
        If there is nothing to show in the store, or in that part of it.
    BackendError
        If imageio-ffmpeg is missing.
    RunError
        If it cannot be written.
    """
    source = StoreSource(store)
    moments = list(_moments(source, settings))
    if not moments:
        raise StoreError(
            f"{store} has no picture at t {settings.first} to {settings.last}, in a stream as it is"
            f" chosen; it has {source.length} moments."
        )
    fps, shown = _pace([at for _, at in moments], settings.speed)
    place = NewPlace(_with_ending(Path(out)))
    with place as part:
        frames = _frames(source, [moments[n][0] for n in shown], settings)
        _encode(frames, len(shown), part, fps, on_progress)
    return place.path


def film_of(store: str, view: View, wanted: TakeMovie, on_progress: Progress) -> tuple[str, bytes]:
    """Return a file name and the MP4 of a store, as a page shows it.

    Raises
    ------
    LiveSRError
        As `write_movie`.
    """
    part = TakeSnapshot(type="snapshot", field=wanted.field, split=wanted.split)
    with TemporaryDirectory(prefix="livesr-") as folder:
        out = Path(folder) / f"{Path(store).name.partition('.')[0] or 'livesr'}.mp4"
        path = write_movie(store, out, MovieSettings(view, part), on_progress)
        if path.stat().st_size > _LARGEST:
            raise RunError(f"The film is too large for a page: livesr export {store} --to mp4")
        return path.name, path.read_bytes()


def _with_ending(path: Path) -> Path:
    return path if path.suffix.lower() == ".mp4" else path.with_name(f"{path.name}.mp4")


def _moments(source: StoreSource, settings: MovieSettings) -> Iterator[tuple[int, int]]:
    """Yield index and time in ns of what is shown."""
    for index, t, at_ns in source.times(settings.view.selection):
        if settings.first <= t and (settings.last is None or t <= settings.last):
            yield index, at_ns


def _pace(times_ns: Sequence[int], speed: float | None) -> tuple[float, list[int]]:
    """Return frames a second, and which moment each frame of the film shows.

    With a speed, time passes evenly: a moment is held until the next one was taken, and what is
    too quick for 60 frames a second is left out.

    Raises
    ------
    ConfigError
        If the store does not say when its pictures were taken.
    """
    if speed is None or len(times_ns) < 2:
        return _PAGE_FPS, list(range(len(times_ns)))
    steps = [b - a for a, b in pairwise(times_ns)]
    if min(steps) <= 0 or max(steps) > _AGES_NS:
        raise ConfigError(
            "A speed needs the times of the pictures, and this store has none that grow: leave"
            " --speed out."
        )
    fps = min(max(1e9 * speed / min(steps), _LEAST_FPS), _MOST_FPS)
    seconds = [(at - times_ns[0]) / 1e9 / speed for at in times_ns]
    count = round(seconds[-1] * fps) + 1
    half = 0.5 / fps
    return fps, [bisect_right(seconds, n / fps + half) - 1 for n in range(count)]


def _frames(
    source: StoreSource, indices: Sequence[int], settings: MovieSettings
) -> Iterator[Image.Image]:
    maker = PictureMaker(source)
    start_ns: int | None = None
    across = 2 if settings.view.mode in {"beside", "channels"} else 1
    across += settings.view.widefield is not None
    for index in indices:
        view = settings.view
        pair = source.pair(view.selection, index, widefield=view.widefield is not None)
        if pair is None:
            raise StoreError(f"No film can be made of it: {source.problem}")
        at_ns = pair.shown.header.t_acq_ns  # None where a repair found the picture alone
        start_ns = at_ns if start_ns is None else start_ns
        seconds = None if at_ns is None or start_ns is None else (at_ns - start_ns) / 1e9
        picture, _ = arranged(maker, pair, view, settings.part, _WIDTH // across - 60)
        yield _even(with_caption(picture, _caption(pair, seconds, source.status)))


def _caption(pair: FramePair, seconds: float | None, status: Any) -> str:
    header = pair.shown.header
    place = f"position {header.position_name}" if header.position else ""
    said = ""
    if pair.prediction is not None:
        engine = (pair.prediction.header.ai or {}).get("model") or {}
        name = model_name(engine) if isinstance(engine, dict) else engine
        said = f"predicted by {name or 'a neural network'}, not measured"
    time = "" if seconds is None else f"{seconds:.2f} s"
    words = [f"t {header.t}", time, place, header.channel, said]
    return "   ".join([*filter(None, words), f"livesr {__version__}"])


def _even(picture: Image.Image) -> Image.Image:
    """Cut the last row or column where H.264's halved colours need an even number."""
    width, height = picture.width & ~1, picture.height & ~1
    return picture.crop((0, 0, width, height))


def _encode(
    frames: Iterator[Image.Image], count: int, file: Path, fps: float, on_progress: Progress
) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as e:
        raise BackendError(
            "A film needs ffmpeg, which imageio-ffmpeg brings: pip install 'livesr[export]'."
        ) from e
    on_progress(0, count)
    first = next(frames)
    writer = imageio_ffmpeg.write_frames(
        str(file),
        first.size,
        fps=fps,
        quality=_QUALITY,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-f", "mp4", "-movflags", "+faststart"],
    )
    try:
        with closing(writer):
            writer.send(None)
            for n, frame in enumerate(_after(first, frames), start=1):
                fitting = frame if frame.size == first.size else frame.resize(first.size)
                writer.send(fitting.tobytes())
                on_progress(n, count)
        written, _ = imageio_ffmpeg.count_frames_and_secs(str(file))
    except (OSError, RuntimeError) as e:
        raise RunError(
            f"The film cannot be written: {str(e).splitlines()[0]}. Is the disk full?"
        ) from e
    if written != count:
        raise RunError(
            f"The film has {written} of {count} frames: ffmpeg stopped. Is the disk full?"
        )


def _after(first: Image.Image, frames: Iterator[Image.Image]) -> Iterator[Image.Image]:
    yield first
    yield from frames
