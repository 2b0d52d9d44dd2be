"""Raw frames on disk as a run would have received them.

From a store of livesr, or from a recording of any program.

Owns what a recording is on a rig: which frame belongs to which channel, time point and raw index,
when it was exposed, and what is known about the run that made it. Formats are read in
`livesr.live.sources.recordings`. Computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.compute import Augmentation
from livesr.base.config import RigConfig, Step, load_rig
from livesr.base.errors import ConfigError, DamagedFileError, StoreError
from livesr.base.files import not_expected, path_of
from livesr.base.frames import CameraFrame, Normalisation, Pixels, RawStack, StagePosition, Stream
from livesr.base.geometry import Geometry
from livesr.base.run_config import AnyPath
from livesr.base.run_description import RunDescription, Stack
from livesr.formats import layout, object_store
from livesr.formats.frames_log import Event, interval_s, stream_of
from livesr.formats.series_spec import UNKNOWN_STEPS_S
from livesr.formats.store import (
    Image,
    RecordedStore,
    advice,
    array_shape,
    is_store,
    read_json,
    refuse_in_use,
)
from livesr.live.inference.engine import load_engine
from livesr.live.inference.test_time_augmentation import from_store
from livesr.live.sources.recordings.placed import missing_note, spelt
from livesr.live.sources.recordings.recording import (
    Plane,
    Recording,
    as_given,
    chosen,
    open_recording,
    places,
    split_tiles,
    with_axes,
    with_sections,
)
from livesr.store.recorded import recorded_rig

_SAME_SIZE = 0.01  # pixel sizes that differ by less are the same
_SAME_NM = 10  # wavelengths that differ by less are of the same channel


@dataclass(frozen=True, slots=True)
class RawInput:
    """Raw groups and what is known about their run.

    Attributes
    ----------
    path : of the recording
    cameras : what the camera delivered, by acquisition channel
    groups : how many there are
    frames : reads them, each stream in order of time; raises DamagedFileError after what could be
        read
    between : reads those of time points from the first on and before the second, likewise
    there : which groups there are, as far as that is known without reading: whether each is
        complete
    normalisations : what the run normalised its frames with
    pattern_drifts : what it corrected phases and vectors of SIM patterns by
    localised : tables of what was localised in it, by stream
    run : fields of `RunDescription` that the run had
    uncertainty : by which augmentation that of the predictions was estimated, by channel
    ensemble : of which augmentation they are the mean, by channel
    runtimes, tiles : (backend, precision) and tiles that the predictions were made with, by channel
    as_they_came : channels whose predictions were made of frames on their own pixels, by the engine
        and with the rig that they have now
    devices : where the reconstructions were made, "cpu" or "cuda", by channel
    spacing_s : from one exposure of a group to the next where frames bear the time of their group,
        else 0
    notes : what a user should know of it, in sentences
    remarks : likewise, what only reading showed; to be asked for after the frames were read
    close : closes its files
    cancel : has `frames` end, if it waits for a run that goes on
    account : of frames that come from another computer, how they came; grows while they do
    """

    path: Path
    rig: RigConfig
    cameras: Mapping[str, Geometry]
    groups: int
    frames: Callable[[], Iterable[CameraFrame]]
    between: Callable[[int, int], Iterable[CameraFrame]]
    there: Callable[[], Mapping[tuple[Stream, int], bool]]
    normalisations: Mapping[tuple[Stream, int], Normalisation] = field(default_factory=dict)
    pattern_drifts: Mapping[tuple[Stream, int], tuple[tuple[float, ...], tuple[float, ...]]] = (
        field(default_factory=dict)
    )
    localised: Mapping[Stream, Path] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    runtimes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    tiles: Mapping[str, int] = field(default_factory=dict)
    as_they_came: frozenset[str] = frozenset()
    devices: Mapping[str, str] = field(default_factory=dict)
    uncertainty: Mapping[str, Augmentation] = field(default_factory=dict)
    ensemble: Mapping[str, Augmentation] = field(default_factory=dict)
    spacing_s: float = 0.0
    notes: tuple[str, ...] = ()
    remarks: Callable[[], tuple[str, ...]] = field(default=tuple)
    close: Callable[[], None] = field(default=lambda: None)
    cancel: Callable[[], None] = field(default=lambda: None)
    account: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """What it is called in a report."""
        return str(self.account["endpoint"]) if self.account else str(self.path)

    @property
    def streams(self) -> int:
        """Series of consecutive time points: positions x channels x planes."""
        return (
            len(self.run.get("positions", "0"))
            * len(self.cameras)
            * int(self.run.get("z_planes", 1))
        )


def store_input(
    store: RecordedStore,
    rig: RigConfig | None = None,
    engine: str | None = None,
    upscale: str | None = None,
    raw: Mapping[Step, str | None] = MappingProxyType({}),
    localiser: str | None = None,
) -> RawInput:
    """Describe the raw frames of a store.

    Parameters
    ----------
    rig : instead of the store's copy: the frames are measured anew, and the stored normalisation
        does not hold for them
    engine, upscale : instead of those that the store was predicted with
    raw : instead of those that saw raw frames, by step; the frames are measured anew
    localiser : instead of what found its emitters, "none" for fits; likewise

    Raises
    ------
    StoreError
        If it holds no raw frames, or no copy of its rig.
    EngineError
        If the engine that it was predicted with is not here.
    """
    raws = {(i.position, i.channel): i for i in store.images.values() if i.kind == "raw"}
    acquired = {channel for _, channel in raws} or set(store.camera_channels)
    images = {
        channel: _first_image(store, channel)
        for channel in store.camera_channels
        if channel in acquired
    }
    stacks = {
        place: Stack(array_shape(i.array, i.exposures).z_planes, i.scale.get("z", 1.0))
        for place, i in raws.items()
    }
    recon = next((i for i in store.images.values() if i.kind == "recon"), None)
    first = next(iter(images.values()))
    run: dict[str, Any] = {
        "positions": store.positions,
        "z_planes": max(stack.z_planes for stack in stacks.values()),
        "z_step_um": first.scale.get("z", 1.0),
        "stacks": stacks if _differ(store, stacks) else {},
        "started_ns": _started_ns(store.about.get("started")),
        "recorded_interval_s": _interval_s(store, first),
    }
    if rig and rig.audit and store.superposed:  # it would score its engine with them otherwise
        about = next(iter(store.superposed.values()))
        rig = rig.superposing(list(about["channels"]), list(about["weights"]))
    as_it_was = rig or recorded_rig(store, engine, upscale, raw, localiser)
    anew = rig is not None or raw.get("reconstruct") is not None or localiser is not None
    anew |= recon is not None and recon.attributes["livesr"]["method"].endswith(f" {layout.VOLUME}")
    run["sidecars"] = as_it_was.files()
    if recon:
        run["recon_offset_adu"] = recon.attributes["livesr"]["intensity"]["offset"]
    return RawInput(
        path=store.path,
        rig=as_it_was,
        spacing_s=as_it_was.exposure_ms / 1e3,
        cameras={channel: camera_of(image) for channel, image in images.items()},
        groups=len(store.pictures("raw")),
        frames=lambda: frames_of(read_stacks(store, _in_order(store))),
        between=lambda first, end: frames_of(
            read_stacks(store, (key for key in _in_order(store) if first <= key[1] < end))
        ),
        there=lambda: {k: e["state"] == "raw" for k, e in store.pictures("raw").items()},
        normalisations={} if anew else store.normalisations(),
        pattern_drifts={} if anew else store.pattern_drifts(),
        localised=_localised(store),
        run=run,
        notes=store.problems,
        uncertainty={
            c: from_store(views) for c in store.channels if (views := store.uncertainty(c))
        },
        ensemble={
            c: from_store(views)
            for c in store.channels
            if (views := store.provenance(c).get("ensemble"))
        },
        tiles={
            c: t
            for c in store.channels
            if (t := store.provenance(c).get("runtime", {}).get("tile"))
        },
        runtimes={
            c: (r["backend"], r["precision"])
            for c in store.channels
            if (r := store.provenance(c).get("runtime"))
        },
        as_they_came=frozenset() if rig else _as_they_came(store, as_it_was),
        devices=_devices(store),
    )


def _as_they_came(store: RecordedStore, rig: RigConfig) -> frozenset[str]:
    """Return the channels that were predicted on their own pixels; none whose engine is another
    now, which may have been trained for others.
    """
    kept = set()
    for channel in store.channels:
        about = store.provenance(channel)
        config = rig.superposed if channel in rig.sums else rig.channel(channel)
        if config.separate in (None, "none") or not about:
            continue
        if "pixel_size_nm" in about.get("runtime", {}):
            continue
        model = store.models(channel).get("separate", {})
        if model.get("sha256") == load_engine(config.separate).manifest.sha256:
            kept.add(channel)
    return frozenset(kept)


def _in_order(store: RecordedStore) -> list[tuple[Stream, int]]:
    """Return its groups by time point, those of one in the order of their exposures.

    Their lines are in the order in which the disk had taken them. One that a repair has written
    knows no time: at its time point streams take turns as where most times are known.
    """
    taken = {key: line.get("t_acq_ns") for key, line in store.pictures("raw").items()}
    together: dict[int, list[tuple[Stream, int]]] = {}
    for key in taken:
        together.setdefault(key[1], []).append(key)
    known = [sorted((n, key[0]) for key in keys if (n := taken[key])) for keys in together.values()]
    fullest = max(known, key=len) if known else []
    turns = {stream: turn for turn, (_, stream) in enumerate(fullest)}

    def ordered(keys: list[tuple[Stream, int]]) -> list[tuple[Stream, int]]:
        if all(taken[key] for key in keys):
            return sorted(keys, key=lambda key: taken[key] or 0)
        return sorted(keys, key=lambda key: turns.get(key[0], len(turns)))

    return [key for t in sorted(together) for key in ordered(together[t])]


def _localised(store: RecordedStore) -> dict[Stream, Path]:
    """Return the tables of localisations that there are."""
    raws = (image for image in store.images.values() if image.kind == "raw")
    tables = {
        Stream(raw.position, raw.channel): layout.localisations_name(raw.name) for raw in raws
    }
    there = {s: n for s, n in tables.items() if contained.is_file(store.path, n)}
    return {stream: store.path / name for stream, name in there.items()}


def _devices(store: RecordedStore) -> dict[str, str]:
    """Return where the run reconstructed each channel, as far as its report says it."""
    try:
        said = read_json(store.path / layout.REPORT).get("device")
    except StoreError:
        return {}
    if not isinstance(said, dict):
        return {}
    return {str(name): str(device) for name, device in said.items()}


def _started_ns(said: object) -> int:
    """Return when a run began, ns since the Unix epoch.

    0 where its store says no date that there is.
    """
    try:
        return max(int(datetime.fromisoformat(str(said)).timestamp() * 1e9), 0)
    except (ValueError, OverflowError, OSError):
        return 0


@dataclass(frozen=True, slots=True)
class ReadAs:
    """What a user says of a recording, where the file does not say it or is not to be believed.

    Attributes
    ----------
    axes : "tcyx", or names with commas as in "t,raw,y,x"; of SIM also "angle,z,phase,y,x"
    channel : which channel of the rig it is
    pixel_size_nm : of the camera in the sample
    origin_px : (y, x) where the camera's region began on its chip
    interval_s : from one super-resolution frame to the next
    """

    axes: str | None = None
    channel: str | None = None
    pixel_size_nm: float | None = None
    origin_px: tuple[float, float] | None = None
    interval_s: float | None = None


def raw_input(
    path: AnyPath,
    rig: AnyPath | RigConfig | None = None,
    engine: str | None = None,
    upscale: str | None = None,
    how: ReadAs | None = None,
    raw: Mapping[Step, str | None] = MappingProxyType({}),
    localiser: str | None = None,
) -> RawInput:
    """Describe the raw frames at `path`.

    A store that a run left, on a disk or on object storage (``s3://BUCKET/run.ome.zarr``), or any
    recording that livesr reads.

    Parameters
    ----------
    rig : what they were acquired on: a rig.yaml, its folder, a name in hardware_configs, or a
        `RigConfig`; a store brings its own
    engine, upscale : instead of rig.yaml's, or of those that the store was predicted with
    raw : likewise those that see raw frames, by step; "none" leaves one out
    localiser : likewise what finds single emitters; "none" for fits

    Raises
    ------
    UsageError
        If the recording cannot be read, or does not fit the rig.
    """
    path = object_store.local(path_of(path, "The recording"))
    if rig is not None and not isinstance(rig, RigConfig):
        rig = load_rig(rig)
    if not (how is None or isinstance(how, ReadAs)):
        raise not_expected(how, "how", "a livesr.ReadAs, as ReadAs(axes='t,raw,y,x')")
    if is_store(path):
        refuse_in_use(path)
        _refuse_read_as(path, how)
        found = store_input(RecordedStore(path), rig, engine, upscale, raw, localiser)
    elif rig is None:
        open_recording(path).close()  # what is no recording at all is said first
        raise ConfigError(
            f"{path.name} does not say on what it was acquired: give its rig (rig=, or --rig)."
        )
    else:
        found = recording_input(path, rig, how or ReadAs())
    named: dict[Step, str | None] = {**raw, "upscale": upscale, "separate": engine}
    rig = found.rig if localiser is None else found.rig.with_localiser(localiser)
    return replace(found, rig=rig.with_engines(named))


def _refuse_read_as(path: Path, how: ReadAs | None) -> None:
    """Refuse to be told of a store of livesr what it says itself."""
    said = [name for name, value in asdict(how).items() if value is not None] if how else []
    if said:
        raise ConfigError(
            f"{path.name} is a store of livesr, which says itself how it was recorded: leave out"
            f" {', '.join(said)}."
        )


def recording_input(path: Path, rig: RigConfig, how: ReadAs | None = None) -> RawInput:
    """Describe a recording of any program: TIFF, OME-Zarr, MRC, NDTiff.

    Raises
    ------
    ConfigError
        If its shape, channels or pixel size do not fit the rig or are not known.
    """
    how = how or ReadAs()
    found = open_recording(path)
    try:
        name = how.channel or next(iter(rig.channels), "")
        if tiles := rig.section(name).tiles:
            found = split_tiles(found, *tiles)
        return _Recorded(found, rig, how).input()
    except BaseException:
        found.close()
        raise


class _Recorded:
    """A recording on a rig."""

    def __init__(self, found: Recording, rig: RigConfig, how: ReadAs) -> None:
        self._how = how
        shown = found
        first = how.channel or next(iter(rig.channels), "")
        parts = rig.section(first).raw_axes
        if how.axes is not None:
            shown = as_given(found, how.axes, rig.raw_frames(first), parts)
        names, shown, self._channel_notes = _rig_channels(shown, rig, how.channel)
        self._rig = rig.model_copy(update={"channels": {name: rig.channel(name) for name in names}})
        self._n_raw = _same_n_raw(found, self._rig, names)
        shown = with_sections(shown, self._n_raw, parts)
        self._file = with_axes(shown, None, self._n_raw, parts)
        self._length = dict(zip(self._file.axes, self._file.lengths, strict=True))
        if self._length.get("c", 1) != len(names):
            raise ConfigError(
                f"{found.path.name} is {self._file.size}, which are not the channels"
                f" {', '.join(names)}: say with --channel which to read, or with --axes what its"
                " axes are."
            )
        self._names = names
        self._along_t = "raw" not in self._length and self._n_raw > 1
        places_s = self._file.interval_s and self._file.interval_s * (
            self._n_raw if self._along_t else 1
        )
        # A file whose frames have times may say the interval that was asked for.
        self._period_known = bool(how.interval_s or (places_s and not self._file.timed))
        self._period_s = (
            how.interval_s or places_s or max(rig.interval_ms, self._n_raw * rig.exposure_ms) / 1e3
        )
        self._absent: list[Mapping[str, int]] = []

    def input(self) -> RawInput:
        """Describe it."""
        file, length = self._file, self._length
        n_t = -(-length.get("t", 1) // self._n_raw) if self._along_t else length.get("t", 1)
        positions = length.get("p", 1)
        size_um, notes = self._pixel_size_um()
        notes = (*file.notes, *self._channel_notes, *notes)
        if not file.timed and file.interval_s is None and self._how.interval_s is None:
            notes += (
                f"{file.path.name} holds no times: those of the frames follow from rig.yaml.",
            )
        if self._along_t and (left := length.get("t", 1) % self._n_raw):
            notes += (
                (
                    f"{file.path.name}: the last group has {left} of the {self._n_raw} raw frames"
                    " that rig.yaml expects."
                ),
            )
        origin_px = self._how.origin_px or file.origin_px or (0.0, 0.0)
        camera = Geometry(file.shape, file.dtype, size_um, origin_px, file.mirrored)
        run = {
            "interval_s": self._period_s,
            "recorded_interval_s": self._period_s if self._period_known else None,
            "started_ns": file.started_ns,
            "positions": (
                file.positions
                if len(file.positions) == positions
                else tuple(map(str, range(positions)))
            ),
            "z_planes": length.get("z", 1),
            "z_step_um": file.z_step_um or 1.0,
            "sidecars": self._rig.files(),
        }
        return RawInput(
            file.path,
            self._rig,
            dict.fromkeys(self._names, camera),
            n_t * positions * len(self._names) * length.get("z", 1),
            self._frames,
            self._frames,
            self._there,
            run=run,
            notes=notes,
            remarks=self._remarks,
            close=file.close,
        )

    def _remarks(self) -> tuple[str, ...]:
        """Say how many frames turned out not to be there, where the file could not tell before."""
        if self._file.counted or not self._absent:
            return ()
        first = self._file.place(self._absent[0])
        where = f"the first is {spelt(self._file.axes, first)}; they were left out, or are black"
        return (
            missing_note(self._file.path, len(self._absent), math.prod(self._file.lengths), where),
        )

    def _there(self) -> dict[tuple[Stream, int], bool]:
        """Take every group for complete: more is known when it is read."""
        streams = {key: n for key, n in self._length.items() if key in "pcz"}
        n_t = self._length.get("t", 1)
        times = range(-(-n_t // self._n_raw) if self._along_t else n_t)
        return {(self._stream(at), t): True for t in times for at in places(streams)}

    def _frames(self, first: int = 0, end: int | None = None) -> Iterator[CameraFrame]:
        self._absent.clear()
        for place in places(self._length):
            t, _ = self._time(place)
            if t < first:
                continue
            if end is not None and t >= end:
                break
            plane = self._file.read(self._file.place(place))
            if plane is not None:
                yield self._frame(place, plane)
            else:
                self._absent.append(place)
        if self._file.damage:
            raise DamagedFileError(self._file.damage)

    def _frame(self, place: Mapping[str, int], plane: Plane) -> CameraFrame:
        t, raw = self._time(place)
        since_ms = plane.t_camera_ms
        if since_ms is None:
            since_ms = t * self._period_s * 1e3 + raw * min(
                self._rig.exposure_ms, self._period_s * 1e3 / self._n_raw
            )
        t_ns = self._file.started_ns + int(since_ms * 1e6)
        return CameraFrame(plane.pixels, self._stream(place), t, raw, t_ns, plane.t_camera_ms)

    def _time(self, place: Mapping[str, int]) -> tuple[int, int]:
        """Return time point and raw index of a place."""
        if self._along_t:
            return divmod(place.get("t", 0), self._n_raw)
        return place.get("t", 0), place.get("raw", 0)

    def _stream(self, place: Mapping[str, int]) -> Stream:
        return Stream(place.get("p", 0), self._names[place.get("c", 0)], place.get("z", 0))

    def _pixel_size_um(self) -> tuple[float, tuple[str, ...]]:
        rig_um = (self._rig.optics.pixel_size_nm or 0) / 1e3
        file_um, name = self._file.pixel_size_um, self._file.path.name
        if self._how.pixel_size_nm:
            return self._how.pixel_size_nm / 1e3, ()
        self._check_square()
        if not (rig_um or file_um):
            raise ConfigError(
                f"Neither {name} nor rig {self._rig.name!r} says how large a pixel is: give"
                " --pixel-size in nm."
            )
        if rig_um and file_um and abs(rig_um / file_um - 1) > _SAME_SIZE:
            said = f"{name} says {file_um * 1e3:.1f} nm a pixel, rig.yaml {rig_um * 1e3:.1f} nm"
            return rig_um, (f"{said}: rig.yaml's is used. --pixel-size says which is right.",)
        return rig_um or file_um or 0.0, ()

    def _check_square(self) -> None:
        if self._file.pixel_um is None:
            return
        y, x = (size * 1e3 for size in self._file.pixel_um)
        if abs(y / x - 1) > _SAME_SIZE:
            raise ConfigError(
                f"{self._file.path.name} says that a pixel is {y:.1f} nm high and {x:.1f} nm wide;"
                " livesr needs square pixels. If the file is wrong, say with --pixel-size what is"
                " right."
            )


def _rig_channels(
    found: Recording, rig: RigConfig, given: str | None
) -> tuple[tuple[str, ...], Recording, tuple[str, ...]]:
    """Return which channels of the rig are read, the recording of them alone, and what is taken for
    granted.
    """
    known, count = (
        tuple(rig.channels) or ("",),
        dict(zip(found.axes, found.lengths, strict=True)).get("c", 1),
    )
    if given is not None:
        rig.channel(given)  # a typo
        if count == 1:
            return (given,), found, ()
        at = _place_of(found, rig, given, count)
        note = () if given in found.channels else (_as_said(found, at, given),)
        return (given,), chosen(found, "c", at), note
    if found.channels and len(found.channels) == count and set(found.channels) <= set(known):
        return found.channels, found, ()
    if len(known) == 1 == count:
        return known, found, ()
    if count == len(known) > 1 and (names := _by_emission(found, rig)):
        return names, found, _taken(found, names, "by their emission")
    if count == len(known) > 1 and not set(found.channels) & set(known):
        return known, found, _taken(found, known, "in its order")
    if count > 1:  # if those are not channels, the axes are what is to be said first
        with_axes(with_sections(found, rig.raw_frames(known[0])), None, rig.raw_frames(known[0]))
    theirs = f"it has {count} channels" if count > 1 else "it does not name one of them"
    if found.channels:
        theirs = (
            f"its {'channel is' if len(found.channels) == 1 else 'channels are'}"
            f" {', '.join(map(repr, found.channels))}"
        )
    raise ConfigError(
        f"Rig {rig.name!r} has the channels {', '.join(known)}, and of {found.path.name} {theirs}:"
        " say with --channel which it is."
    )


def _as_said(found: Recording, at: int, given: str) -> str:
    name = repr(found.channels[at]) if len(found.channels) > at else f"number {at + 1}"
    how = (
        "by its emission"
        if found.channels and found.channels[at].isdigit()
        else "by the order of rig.yaml"
    )
    return (
        f"{found.path.name} names no channel {given!r}: its channel {name} is taken for it, {how}."
    )


def _place_of(found: Recording, rig: RigConfig, given: str, count: int) -> int:
    """Return which of several channels of a file is meant."""
    if given in found.channels:
        return found.channels.index(given)
    known = tuple(rig.channels)
    if names := _by_emission(found, rig):
        return names.index(given)
    if count == len(known) and not set(found.channels) & set(known):
        return known.index(given)
    theirs = ", ".join(map(repr, found.channels)) or f"{count} without names"
    raise ConfigError(
        f"{found.path.name} has the channels {theirs}, and rig {rig.name!r} has {', '.join(known)}:"
        f" which of them is {given!r} is not known. Name the channels of rig.yaml as the file does,"
        " or save that channel as a file."
    )


def _by_emission(found: Recording, rig: RigConfig) -> tuple[str, ...]:
    """Return the rig's channels in the order of a file that names each by the wavelength of its
    emission, else nothing.
    """
    names: list[str] = []
    for wave in found.channels:
        near = [
            name
            for name in rig.channels
            if wave.isdigit() and abs(rig.emission_nm(name) - int(wave)) <= _SAME_NM
        ]
        names += near if len(near) == 1 else []
    same = len(set(names)) == len(found.channels) == len(rig.channels)
    return tuple(names) if same else ()


def _taken(found: Recording, names: tuple[str, ...], how: str) -> tuple[str, ...]:
    theirs = (
        found.channels if len(found.channels) == len(names) else tuple(map(str, range(len(names))))
    )
    pairs = ", ".join(f"{one!r} is {other!r}" for one, other in zip(theirs, names, strict=True))
    return (f"{found.path.name} names no channel as rig.yaml does: they are taken {how}, {pairs}.",)


def _same_n_raw(found: Recording, rig: RigConfig, names: tuple[str, ...]) -> int:
    counts = {name: rig.raw_frames(name) for name in names}
    if len(set(counts.values())) > 1:
        raise ConfigError(
            f"{found.path.name} holds channels that need different numbers of raw frames, {counts}:"
            " replay one."
        )
    return counts[names[0]]


def read_stacks(store: RecordedStore, keys: Iterable[tuple[Stream, int]]) -> Iterator[RawStack]:
    """Read raw groups of a store.

    Raises
    ------
    DamagedFileError
        If a time point cannot be read.
    """
    from livesr.formats.zarr_files import open_array

    lines = store.pictures("raw")
    arrays: dict[tuple[int, str], Any] = {}
    for stream, t in keys:
        place = stream.position, stream.channel
        image = raw_image(store, *place)
        if place not in arrays:
            arrays[place] = array_shape(image.array, image.exposures), open_array(image.array)
        shape, array = arrays[place]
        if t >= shape.length["t"]:
            raise _damaged(store, image, t, "the array is shorter")
        if not shape.is_there(image.array, t, stream.z):
            raise _damaged(store, image, t, "its file is gone")
        try:
            block = np.asarray(array[shape.index(t, stream.z)])
        except Exception as e:  # a torn shard raises whatever its codecs raise
            raise _damaged(store, image, t, str(e)) from e
        yield _stack(lines[stream, t], block)


def _first_image(store: RecordedStore, channel: str) -> Image:
    """Return the raw image of a channel at the first position that has one."""
    own = [p for kind, p, name in store.images if (kind, name) == ("raw", channel)]
    return raw_image(store, min(own, default=0), channel)


def _interval_s(store: RecordedStore, raw: Image) -> float | None:
    """Return how far time points of a raw image are apart, None where its store does not tell."""
    step_s = raw.scale["t"]
    if step_s in UNKNOWN_STEPS_S:
        return interval_s(
            (e for e in store.events if e["series"] == "raw"), raw.position, raw.channel
        )
    return step_s * raw.exposures


def _differ(store: RecordedStore, stacks: Mapping[tuple[int, str], Stack]) -> bool:
    """Whether a run acquired some channels at some positions only, or stacks of different depth."""
    return len(set(stacks.values())) > 1 or len(stacks) < len(store.positions) * len(
        store.camera_channels
    )


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
        named = {image.name for image in store.images.values()}
        there = {file.parent.name for file in store.path.glob("raw*/zarr.json")}
        if unnamed := ", ".join(sorted(there - named)):
            raise StoreError(
                f"{store.path / 'OME' / 'zarr.json'} does not name {unnamed}, and raw frames of"
                f" channel {channel!r} are in no other image: 'livesr repair {store.path}' writes"
                " the list again."
            ) from None
        raise StoreError(
            f"{store.path} holds no raw frames of channel {channel!r}: they were not recorded, so"
            " nothing can be computed."
        ) from None


def camera_of(raw: Image) -> Geometry:
    """Return what the camera delivered for a raw image."""
    shape = array_shape(raw.array, raw.exposures)
    origin = raw.attributes["livesr"].get("origin_px", (0.0, 0.0))
    along_y, along_x = raw.attributes["livesr"].get("mirrored", (False, False))
    y, x = shape.length["y"], shape.length["x"]
    mirrored = bool(along_y), bool(along_x)
    said = raw.attributes["livesr"]
    bit_depth, camera = int(said.get("bit_depth", 16)), str(said.get("camera", ""))
    origin_px, drawn = (float(origin[0]), float(origin[1])), bool(said.get("drawn", False))
    return Geometry(
        (y, x), shape.dtype, raw.scale["x"], origin_px, mirrored, bit_depth, camera, drawn
    )


def frames_of(stacks: Iterable[RawStack]) -> Iterator[CameraFrame]:
    """Take raw groups apart; a frame has the time of its group."""
    for stack in stacks:
        for raw, pixels in enumerate(stack.frames):
            if pixels is not None:
                about = stack.t_acq_ns, stack.t_camera_ms, stack.exposure_ms, stack.stage
                yield CameraFrame(pixels, stack.stream, stack.t, raw, *about)


def description(raw: RawInput, channels: Iterable[Any], **changes: Any) -> RunDescription:
    """Return what sinks are told about a run of these frames."""
    import uuid

    about = {"stream_id": uuid.uuid4().hex, "started_ns": 0, **raw.run, **changes}
    return RunDescription(channels=tuple(channels), **about)


def _stack(line: Event, block: NDArray[Any]) -> RawStack:
    missing = set(line.get("missing", ()))
    frames: tuple[Pixels | None, ...] = tuple(
        None if i in missing else plane for i, plane in enumerate(block)
    )
    # A line that a repair has written knows no time.
    t_ns = line.get("t_acq_ns") or 0
    return RawStack(
        frames,
        stream_of(line),
        line["t"],
        t_ns,
        t_ns,
        line.get("t_camera_ms"),
        exposure_ms=line.get("exposure_ms"),
        stage=StagePosition(*(line.get(axis) for axis in StagePosition._fields)),
    )


def _damaged(store: RecordedStore, image: Image, t: int, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{image.name} cannot be read at t={t} ({reason}). {advice(store.path)}"
    )
