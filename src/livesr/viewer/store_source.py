"""A store to look at: the pairs of an OME-Zarr that a run left, by index.

Owns the reading of its pictures and how they are said to be. Writes nothing and keeps no clock:
whoever looks decides which moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import StoreError
from livesr.base.frames import Stream
from livesr.base.timing import now_ns
from livesr.formats import object_store
from livesr.formats.attributes import model_name
from livesr.formats.frames_log import Event, SeriesName
from livesr.formats.layout import REPORT
from livesr.formats.store import ArrayShape, Image, RecordedStore, array_shape, read_json
from livesr.formats.wire import Message, WireChannel, WireHeader
from livesr.viewer.frame_pairs import FramePair, Selection
from livesr.viewer.subscriber import StreamName

_SHOWN: tuple[SeriesName, ...] = ("sr", "recon")
_TOPICS: dict[SeriesName, str] = {
    "sr": "sr/frame",
    "recon": "sr/input",
    "rolling": "sr/input",
    "uncertainty": "sr/uncertainty",
    "error": "sr/error",
    "depth": "sr/depth",
}
_SCENES_KEPT = 8  # a paused pair is drawn anew for every change of contrast


class _Moment(NamedTuple):
    """What is shown at once: a time point, or a picture of its group from before it was whole."""

    t: int
    picture: int | None = None


class _Opened(NamedTuple):
    """An image whose pixels can be read."""

    image: Image
    shape: ArrayShape
    array: Any


class StoreSource:
    """The pairs of a store.

    Those of a stream that was separated are its separated moments, in their order; of another the
    measurements, with those of groups under way where the store has them.

    Parameters
    ----------
    path : the store's root folder, or its address on object storage

    Attributes
    ----------
    status : what the run said of itself at its end; before it, what its pictures say

    Raises
    ------
    StoreError
        If `path` holds no store of livesr, or nothing to look at.
    """

    state, version = "recorded", 0

    def __init__(self, path: str | Path) -> None:
        store = RecordedStore(object_store.local(path))
        self.endpoint = str(path)
        self._names = store.positions
        said, unread = _report(store.path / REPORT)
        self.status = {**_computed_by(store), **said}
        opened, damaged = _opened(store)
        self._problems = (*store.problems, *unread, *damaged)
        self._unreadable: dict[str, str] = {}
        self._units: dict[tuple[int, str], Mapping[str, Any]] = {
            key[1:]: image.attributes["livesr"].get("intensity", {})
            for key, image in store.images.items()
            if key[0] == "recon"
        }
        self._raw = {key[1:]: of for key, of in opened.items() if key[0] == "raw"}
        self._pictures = {key: of for key, of in opened.items() if key[0] != "raw"}
        if not self._pictures:
            raise StoreError(
                " ".join(damaged)
                or f"{path} holds neither reconstructions nor predictions to show, only raw"
                " exposures."
            )
        self._lines = {kind: store.pictures(kind) for kind in _TOPICS}
        self._raw_lines = store.pictures("raw")
        self._normalisations = store.normalisations()
        self._there: dict[tuple[Any, tuple[int, int]], bool] = {}
        self._times = {stream: self._moments(stream) for stream in self._all_streams()}
        if not any(self._times.values()):
            gone = f" {self.problem} 'livesr repair {path}' finds them again."
            raise StoreError(
                f"{path} holds no frame yet: nothing was recorded, or nothing is finished."
                f"{gone if self.problem else ''}"
            )
        self._read = lru_cache(_SCENES_KEPT)(self._read_pair)
        self._read_widefield = lru_cache(_SCENES_KEPT)(self._widefield)

    @property
    def problem(self) -> str:
        """What the store cannot say or show, as far as it was asked for, in sentences."""
        return " ".join((*self._problems, *self._unreadable.values()))

    @property
    def length(self) -> int:
        """Moments of the longest stream."""
        return max(map(len, self._times.values()))

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call nothing: a store does not change."""
        return lambda: None

    def streams(self) -> tuple[StreamName, ...]:
        """Return every stream of the store that has a picture."""
        return tuple(self._named(s) for s, t in self._times.items() if t)

    def pair(
        self,
        selection: Selection,
        index: int = 0,
        *,
        measured: bool = False,
        widefield: bool = False,
    ) -> FramePair | None:
        """Return the moment at `index` of a stream, its last one beyond its end.

        None if the store has no such stream, or nothing of the moment can be read.
        """
        stream = self._selected(selection)
        if stream is None:
            return None
        times = self._times[stream]
        index = min(max(index, 0), len(times) - 1)
        pair = self._read(stream, times[index], index)
        if pair is None or not widefield:
            return pair
        return replace(pair, widefield=self._read_widefield(stream, times[index].t))

    def times(self, selection: Selection) -> tuple[tuple[int, int, int], ...]:
        """Return index, time point, and when it was taken in ns (0: unknown) of every moment."""
        stream = self._selected(selection)
        if stream is None:
            return ()
        return tuple(
            (index, moment.t, self._taken_ns(stream, moment))
            for index, moment in enumerate(self._times[stream])
        )

    def _taken_ns(self, stream: Stream, moment: _Moment) -> int:
        """Return when it was taken, 0 where that is not known."""
        t, picture = moment
        if picture is not None:
            return int(self._lines["rolling"][stream, t]["pictures"][picture]["t_acq_ns"])
        lines = (self._lines[kind].get((stream, t), {}) for kind in _SHOWN)
        return next((n for line in lines if (n := line.get("t_acq_ns"))), 0)

    def _named(self, stream: Stream) -> StreamName:
        """Return what a stream is called, and where it was taken."""
        where = stream.position, stream.channel
        image = next(of.image for key, of in self._pictures.items() if key[1:] == where)
        stage, step_um = image.stage_um, image.scale.get("z", 0.0)
        place = stream.channel, stream.position, self._names[stream.position], stream.z
        return StreamName(*place, stream.z * step_um, stage.get("x"), stage.get("y"))

    def _selected(self, selection: Selection) -> Stream | None:
        """Return the stream that is meant, one that is separated before another."""
        fits = [s for s, times in self._times.items() if times and _selects(selection, s)]
        separated = (s for s in fits if ("sr", s.position, s.channel) in self._pictures)
        return next(separated, fits[0] if fits else None)

    def _all_streams(self) -> list[Stream]:
        streams = [
            Stream(position, channel, z)
            for (kind, position, channel), of in self._pictures.items()
            for z in range(of.shape.z_planes)
        ]
        return sorted(set(streams), key=lambda s: (s.position, s.channel, s.z))

    def _moments(self, stream: Stream) -> list[_Moment]:
        """Moments to show.

        What was separated, of a stream that is not separated what was reconstructed.
        """
        if separated := sorted(self._told("sr", stream)):
            return [_Moment(t) for t in separated]
        whole = [_Moment(t) for t in self._told("recon", stream)]
        rolling = [
            _Moment(t, i)
            for (s, t), line in self._lines["rolling"].items()
            if s == stream and self._is_there("rolling", s, t)
            for i, made in enumerate(line.get("pictures", ())[:-1])
            if made and i not in line.get("missing", ())
        ]
        return sorted([*whole, *rolling], key=lambda m: (m.t, math.inf if m[1] is None else m[1]))

    def _told(self, kind: SeriesName, stream: Stream) -> Iterator[int]:
        """Yield the time points of which there is a picture; those whose file is gone are none."""
        return (t for s, t in self._lines[kind] if s == stream and self._is_there(kind, stream, t))

    def _is_there(self, kind: SeriesName, stream: Stream, t: int) -> bool:
        key = kind, stream.position, stream.channel
        if (of := self._pictures.get(key)) is None:
            return False
        shard = of.shape.shard_of(t, stream.z)
        if (key, shard) not in self._there:
            self._there[key, shard] = of.shape.is_there(of.image.array, t, stream.z)
        return self._there[key, shard]

    def _read_pair(self, stream: Stream, moment: _Moment, index: int) -> FramePair | None:
        t, picture = moment
        if picture is not None:
            under_way = self._under_way(stream, t, picture)
            return FramePair(None, under_way, index) if under_way else None
        prediction, measurement = self._message("sr", stream, t), self._message("recon", stream, t)
        if prediction is None and measurement is None:
            return None
        return FramePair(
            prediction,
            measurement,
            index,
            self._message("uncertainty", stream, t),
            error=self._message("error", stream, t),
            depth=self._message("depth", stream, t),
        )

    def _widefield(self, stream: Stream, t: int) -> Message | None:
        """Return the mean of the exposures of a moment.

        None where they were not recorded, some are missing, or there is one alone.
        """
        of = self._raw.get((stream.position, stream.channel))
        line = self._raw_lines.get((stream, t))
        if of is None or line is None or line.get("missing"):
            return None
        if not of.shape.is_there(of.image.array, t, stream.z):
            return None
        planes = self._pixels(of, t, of.shape.index(t, stream.z))
        if planes is None or planes.ndim < 3 or len(planes) < 2:
            return None
        pixels = np.rint(planes.mean(0, dtype=np.float32)).astype(np.uint16)
        header = self._header(of.image, stream, t, line, pixels.shape).model_copy(
            update={
                "axes": "yx",
                "offset_adu": round(of.image.attributes["livesr"].get("dark_adu", 0)),
                "channels": (WireChannel(label="widefield"),),
            }
        )
        return Message("sr/widefield", header, pixels)

    def _message(self, kind: SeriesName, stream: Stream, t: int) -> Message | None:
        key = (kind, stream.position, stream.channel)
        line = self._lines[kind].get((stream, t))
        if line is None or not self._is_there(kind, stream, t):
            return None
        of = self._pictures[key]
        if (pixels := self._pixels(of, t, of.shape.index(t, stream.z))) is None:
            return None
        if kind == "error":
            scale = of.image.attributes["livesr"]["intensity"]["scale"]
            pixels = pixels * np.float32(scale)
        header = self._header(of.image, stream, t, line, pixels.shape)
        if kind == "depth":
            above = pixels.astype(np.float32) - np.float32(header.offset_adu)
            pixels = np.where(pixels > 0, above, np.float32(np.nan))
            low_high = of.image.attributes["livesr"]["range_nm"]
            channels = (WireChannel(label="depth", window=tuple(low_high)),)
            about = {"offset_adu": 0, "unit": "nm", "channels": channels}
            header = header.model_copy(update=about)
        return Message(_TOPICS[kind], header, pixels)

    def _pixels(self, of: _Opened, t: int, index: Any) -> NDArray[Any] | None:
        """Read pixels of a picture; None where they cannot be read, which `problem` then says."""
        try:
            return np.asarray(of.array[index])
        except OSError:  # a disk that is gone may come back
            raise
        except Exception as e:  # a torn shard raises whatever its codecs raise
            self._unreadable.setdefault(
                of.image.name,
                f"{of.image.name} cannot be read at t={t} ({str(e).partition('.')[0]}): 'livesr"
                f" check {self.endpoint}' names all that is damaged.",
            )
            return None

    def _under_way(self, stream: Stream, t: int, picture: int) -> Message | None:
        """Return a picture of a group from before it was whole."""
        key: tuple[SeriesName, int, str] = ("rolling", stream.position, stream.channel)
        line, of = self._lines["rolling"][stream, t], self._pictures[key]
        image, made = of.image, line["pictures"][picture]
        if (pixels := self._pixels(of, t, t * image.exposures + picture)) is None:
            return None
        header = self._header(image, stream, t, {**line, **made}, pixels.shape)
        newest = image.attributes["livesr"]["newest"][picture]
        about = header.model_copy(update={"provisional": True, "newest_raw": newest})
        return Message(_TOPICS["rolling"], about, pixels)

    def _unit_of(self, image: Image) -> Mapping[str, Any]:
        """Return unit and scale of an image; a prediction has those of what it was made from."""
        if image.kind not in ("recon", "rolling", "sr"):
            return {}
        return self._units.get((image.position, image.channel), {})

    def _exposures_of(self, stream: Stream, t: int) -> tuple[int, int] | None:
        """Return which exposures a moment was made from, first and last, if they were recorded."""
        of = self._raw.get((stream.position, stream.channel))
        if of is None:
            return None
        n = of.image.exposures * of.shape.length.get("c", 1)
        return t * n, (t + 1) * n - 1

    def _header(
        self, image: Image, stream: Stream, t: int, line: Event, shape: tuple[int, ...]
    ) -> WireHeader:
        own = image.attributes["livesr"]
        intensity = own.get("intensity", {})
        unit = self._unit_of(image)
        normalisation = self._normalisations.get((stream, t))
        return WireHeader(
            type="frame",
            stream=own.get("stream", ""),
            seq=t,
            t_pub_ns=now_ns(),
            t_acq_ns=line.get("t_acq_ns"),
            position=stream.position,
            position_name=own.get("position_name", ""),
            channel=stream.channel,
            z=stream.z,
            t=t,
            shape=shape,
            axes="yx" if image.kind in ("recon", "rolling", "depth") else "cyx",
            offset_adu=intensity.get("offset", 0),
            unit=unit.get("unit", "ADU"),
            unit_scale=unit.get("scale", 1.0),
            raw_seq=self._exposures_of(stream, t),
            pixel_size_um=image.scale["x"],
            channels=_channels(image),
            ai={k: own[k] for k in ("prediction", "warning", "model", "runtime") if k in own},
            normalisation=normalisation.written() if normalisation else None,
            residual=line.get("residual"),
            novelty=line.get("novelty"),
            unknown_light=line.get("unknown_light"),
            latency_ms=line.get("latency_ms"),
            warnings=tuple(line.get("warnings", ())),
            judgement=line.get("judgement"),
            mixing=line.get("mixing", {}),
            score=line.get("score", {}),
            compared=line.get("compared", {}),
            time_shift_ms=line.get("time_shift_ms"),
            span_ms=line.get("span_ms"),
        )


def _opened(store: RecordedStore) -> tuple[dict[tuple[SeriesName, int, str], _Opened], list[str]]:
    """Return the images that can be read, and what is to be said of the others."""
    from livesr.formats.zarr_files import open_array

    opened, damaged = {}, []
    for key, image in store.images.items():
        try:  # first the shape: what is damaged is said with what mends it
            shape = array_shape(image.array, image.exposures)
            opened[key] = _Opened(image, shape, open_array(image.array))
        except StoreError as e:
            damaged.append(f"{image.name} is not shown: {e}")
    return opened, damaged


def _report(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return what a run said at its end, {} where it said nothing; and why that cannot be read."""
    try:
        return (read_json(path) if path.is_file() else {}), ()
    except StoreError as e:
        return {}, (f"What the run reported is not known: {e}",)


def _computed_by(store: RecordedStore) -> dict[str, Mapping[str, Any]]:
    """Return networks and backend of each channel, as a report has them, of its pictures."""
    models = {name: list(store.models(name).values()) for name in store.channels}
    runtimes = {name: store.provenance(name).get("runtime", {}) for name in store.channels}
    return {
        "engine": {name: found[-1].get("id") for name, found in models.items() if found},
        "networks": {name: list(map(model_name, found)) for name, found in models.items() if found},
        "backend": {name: at["backend"] for name, at in runtimes.items() if "backend" in at},
    }


def _selects(selection: Selection, stream: Stream) -> bool:
    wanted = (selection.position, selection.channel, selection.z)
    return all(w is None or w == s for w, s in zip(wanted, stream, strict=True))


def _channels(image: Image) -> tuple[WireChannel, ...]:
    """Return names, colours and windows as they are on the wire.

    Without the word that keeps other viewers from mistakes.
    """
    return tuple(
        WireChannel(
            label=c["label"].removeprefix("SR ").removeprefix("error of "),
            color=c["color"],
            window=(c["window"]["start"], c["window"]["end"]),
        )
        for c in image.attributes["ome"].get("omero", {}).get("channels", ())
    )
