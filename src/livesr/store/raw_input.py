"""Raw frames on disk as a run would have received them: from a store of livesr or from a TIFF stack.

Owns the reading of raw groups, in the order in which a pipeline needs them, and what is known about the run that made them.
Computes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from useq import MDAEvent

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, StoreError
from livesr.base.frames import Normalisation, Pixels, RawStack, Stream
from livesr.live.paths import Geometry
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.sink import RunDescription
from livesr.live.sources.mda import RAW_AXIS, Received
from livesr.store.recorded import Event, Image, RecordedStore, array_shape, stream_of


@dataclass(frozen=True, slots=True)
class RawInput:
    """Raw groups and what is known about their run.

    Attributes
    ----------
    cameras : what the camera delivered, by acquisition channel
    groups : how many there are
    stacks : reads them, each stream in order of time
    normalisations : what the run normalised its frames with
    run : fields of `RunDescription` that the run had
    runtimes : (backend, precision) that the predictions were made with, by channel
    """

    rig: RigConfig
    cameras: Mapping[str, Geometry]
    groups: int
    stacks: Callable[[], Iterable[RawStack]]
    normalisations: Mapping[tuple[Stream, int], Normalisation] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    runtimes: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def store_input(
    store: RecordedStore, rig: RigConfig | None = None, engine: str | None = None, upscale: str | None = None
) -> RawInput:
    """Describe the raw frames of a store.

    Parameters
    ----------
    rig : instead of the store's copy: the frames are measured anew, and the stored normalisation does not hold for them
    engine, upscale : instead of those that the store was predicted with

    Raises
    ------
    StoreError
        If it holds no raw frames, or no copy of its rig.
    EngineError
        If the engine that it was predicted with is not here.
    """
    images = {channel: raw_image(store, 0, channel) for channel in store.channels}
    recon = next((i for i in store.images.values() if i.kind == "recon"), None)
    first = next(iter(images.values()))
    run: dict[str, Any] = {
        "positions": store.positions,
        "z_planes": array_shape(first.array, first.exposures).z_planes,
        "z_step_um": first.scale.get("z", 1.0),
        "started_ns": int(datetime.fromisoformat(store.about["started"]).timestamp() * 1e9)
        if "started" in store.about
        else 0,
    }
    as_it_was = rig or store.rig(engine, upscale)
    run["sidecars"] = as_it_was.files()
    if recon:
        run["recon_offset_adu"] = recon.attributes["livesr"]["intensity"]["offset"]
    return RawInput(
        rig=as_it_was,
        cameras={channel: camera_of(image) for channel, image in images.items()},
        groups=len(store.pictures("raw")),
        stacks=lambda: read_stacks(store, sorted(store.pictures("raw"), key=lambda key: (key[1], key[0]))),
        normalisations={} if rig else store.normalisations(),
        run=run,
        runtimes={c: (r["backend"], r["precision"]) for c in images if (r := store.provenance(c).get("runtime"))},
    )


def tiff_input(
    path: Path,
    rig: RigConfig,
    *,
    channel: str | None = None,
    pixel_size_nm: float | None = None,
    origin_px: tuple[float, float] = (0.0, 0.0),
    interval_s: float | None = None,
) -> RawInput:
    """Describe a TIFF stack of n x raw frames, or (t, raw, y, x).

    Parameters
    ----------
    channel : which channel of `rig` it is; needed if the rig describes several
    pixel_size_nm : of the camera in the sample; needed if `rig` does not say
    origin_px : (y, x) where the camera's region began on its chip
    interval_s : between time points, instead of rig.yaml's; counted from the file's date

    Raises
    ------
    ConfigError
        If the stack's shape, channel or pixel size do not fit or are not known.
    """
    names = list(rig.channels) or [""]
    if channel is None and len(names) > 1:
        raise ConfigError(f"{path.name} holds one channel; say with --channel which it is: {', '.join(names)}.")
    name = names[0] if channel is None else channel
    rig = rig.model_copy(update={"channels": {name: rig.channel(name)}})
    n_raw = rig.raw_frames(name)
    frames = _tiff_frames(path, n_raw)
    size_nm = pixel_size_nm or rig.optics.pixel_size_nm
    if not size_nm:
        raise ConfigError(f"Rig {rig.name!r} does not say how large a pixel is: give --pixel-size in nm.")
    period_s = interval_s or max(rig.interval_ms, n_raw * rig.exposure_ms) / 1e3
    stream, started_ns = Stream(0, name, 0), path.stat().st_mtime_ns

    def stacks() -> Iterator[RawStack]:
        for t in range(-(-len(frames) // n_raw)):
            block = [np.asarray(frames[i]) for i in range(t * n_raw, min((t + 1) * n_raw, len(frames)))]
            t_ns = started_ns + int(t * period_s * 1e9)
            yield RawStack((*block, *[None] * (n_raw - len(block))), stream, t, t_ns, t_ns)

    camera = Geometry(frames.shape[1:], str(frames.dtype), size_nm / 1e3, origin_px)
    run = {"interval_s": period_s, "started_ns": started_ns, "sidecars": rig.files()}
    return RawInput(rig, {name: camera}, -(-len(frames) // n_raw), stacks, run=run)


def read_stacks(store: RecordedStore, keys: Iterable[tuple[Stream, int]]) -> Iterator[RawStack]:
    """Read raw groups of a store.

    Raises
    ------
    StoreError
        If a time point cannot be read.
    """
    import zarr

    lines = store.pictures("raw")
    arrays: dict[tuple[int, str], Any] = {}
    for stream, t in keys:
        place = stream.position, stream.channel
        image = raw_image(store, *place)
        if place not in arrays:
            arrays[place] = array_shape(image.array, image.exposures), zarr.open_array(image.array, mode="r")
        shape, array = arrays[place]
        if t >= shape.length["t"]:
            raise _damaged(store, image, t, "the array is shorter")
        try:
            block = np.asarray(array[shape.index(t, stream.z)])
        except Exception as e:  # a torn shard raises whatever its codecs raise
            raise _damaged(store, image, t, str(e)) from e
        yield _stack(lines[stream, t], block)


def raw_image(store: RecordedStore, position: int, channel: str) -> Image:
    """Return the raw image of a position and channel.

    Raises
    ------
    StoreError
        If the run did not record it.
    """
    try:
        return store.images["raw", position, channel]
    except KeyError:
        raise StoreError(
            f"{store.path} holds no raw frames of channel {channel!r}: they were not recorded, so nothing can be computed."
        ) from None


def camera_of(raw: Image) -> Geometry:
    """Return what the camera delivered for a raw image."""
    shape = array_shape(raw.array, raw.exposures)
    origin = raw.attributes["livesr"].get("origin_px", (0.0, 0.0))
    y, x = shape.length["y"], shape.length["x"]
    return Geometry((y, x), shape.dtype, raw.scale["x"], (float(origin[0]), float(origin[1])))


def feed(pipeline: Pipeline, stacks: Iterable[RawStack], stopped: threading.Event) -> None:
    """Hand raw groups to a pipeline as the hook of an acquisition does; waits where the pipeline is behind."""
    for stack in stacks:
        stream, camera = stack.stream, {"ElapsedTime-ms": stack.t_camera_ms}
        metadata = {"camera_metadata": camera} if stack.t_camera_ms is not None else {}
        for raw, pixels in enumerate(stack.frames):
            if stopped.is_set():
                return
            if pixels is not None:
                index = {"t": stack.t, "p": stream.position, "z": stream.z, RAW_AXIS: raw}
                event = MDAEvent(index=index, channel=stream.channel or None)
                pipeline.hook.replay(Received(pixels, event, metadata, stack.t_acq_ns))


def description(raw: RawInput, channels: Iterable[Any], **changes: Any) -> RunDescription:
    """Return what sinks are told about a run of these frames."""
    import uuid

    about = {"stream_id": uuid.uuid4().hex, "started_ns": 0, **raw.run, **changes}
    return RunDescription(channels=tuple(channels), **about)


def _stack(line: Event, block: NDArray[Any]) -> RawStack:
    missing = set(line.get("missing", ()))
    frames: tuple[Pixels | None, ...] = tuple(None if i in missing else plane for i, plane in enumerate(block))
    # A line that a repair has written knows no time.
    t_ns = line.get("t_acq_ns") or 0
    return RawStack(frames, stream_of(line), line["t"], t_ns, t_ns, line.get("t_camera_ms"))


def _damaged(store: RecordedStore, image: Image, t: int, reason: str) -> StoreError:
    return StoreError(f"{image.name} cannot be read at t={t} ({reason}): 'livesr repair {store.path}' may help.")


class _TiffPages:
    """Frames of a TIFF that cannot be mapped into memory, read one by one."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self._path, self.shape, self.dtype = path, shape, dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> NDArray[Any]:
        import tifffile

        return np.asarray(tifffile.imread(self._path, key=i))


def _tiff_frames(path: Path, n_raw: int) -> Any:
    """Return (frame, y, x), read as it is asked for."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            shape, dtype, pages = tuple(series.shape), np.dtype(series.dtype), len(series.pages)
            mappable = series.dataoffset is not None
    except (OSError, ValueError, IndexError) as e:
        raise ConfigError(f"Cannot read {path} as TIFF: {e}.") from e
    _check_tiff(path, shape, dtype, n_raw)
    frames = (int(np.prod(shape[:-2])), *shape[-2:])
    if mappable:
        return tifffile.memmap(path, mode="r").reshape(frames)
    return _TiffPages(path, frames, dtype) if pages == frames[0] else tifffile.imread(path).reshape(frames)


def _check_tiff(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], n_raw: int) -> None:
    if dtype.name not in ("uint8", "uint16"):
        raise ConfigError(f"{path.name} holds {dtype.name}; expected the camera's uint8 or uint16.")
    if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[1] != n_raw):
        raise ConfigError(
            f"{path.name} is {' x '.join(map(str, shape))}; this rig needs n x {n_raw} frames (frame, y, x), "
            f"or (t, {n_raw}, y, x)."
        )
