"""`livesr export STORE`: what a run left, as files of other programs, or as a film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.markup import escape

from livesr.base.errors import ConfigError
from livesr.cli.output import console, print_json, progress

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.formats.frames_log import SeriesName
    from livesr.store.exports.export import Format
    from livesr.store.exports.part import Part, Region

MOVIE = "mp4"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the flags say of the export of a store.

    Attributes
    ----------
    to : formats, and perhaps a number: the last time point
    series, channels, positions : names, parted by commas
    first, until : time points
    lines : progress as JSON, for scripts
    """

    to: Sequence[str] = ()
    out: Path | None = None
    movie: Path | None = None
    series: str | None = None
    channels: str | None = None
    positions: str | None = None
    first: int = 0
    until: int | None = None
    region: str | None = None
    speed: float | None = None
    show: str = "beside"
    lines: bool = False

    @property
    def formats(self) -> list[str]:
        """The formats that are asked for."""
        return [name for name in self.to if not name.isdecimal()]

    @property
    def last(self) -> int | None:
        """The last time point, by either flag."""
        numbers = [int(name) for name in self.to if name.isdecimal()]
        return self.until if self.until is not None else (numbers or [None])[-1]  # type: ignore[list-item]


def export_store(store: Path, wanted: Wanted, *, as_json: bool) -> None:
    """Write what is asked for, one after the other, and say where it is.

    Raises
    ------
    LiveSRError
        As `livesr.store.exports.export.export` and `livesr.viewer.movie.write_movie`.
    """
    from livesr.formats.object_store import local
    from livesr.store.exports.export import FORMATS

    known = (*FORMATS, MOVIE)
    unknown = [name for name in wanted.formats if name not in known]
    if unknown or not (wanted.formats or wanted.movie):
        came = f"There is no format {unknown[0]!r}." if unknown else "No format is named."
        raise ConfigError(f"{came} --to takes {', '.join(known)}; --movie takes a file.")
    files = [name for name in wanted.formats if name != MOVIE]
    films = wanted.movie or MOVIE in wanted.formats
    if wanted.out and len(files) + bool(films and not wanted.movie) > 1:
        raise ConfigError("--out names one place, and several formats are asked for: leave it out.")
    store = local(store)
    out = console(quiet=as_json)
    written = [_write(store, cast("Format", name), wanted, out) for name in files]
    if films:
        written.append(_film(store, wanted, out))
    if as_json:
        print_json({"store": str(store), "exported": written})


def _write(store: Path, to: Format, wanted: Wanted, out: Console) -> dict[str, Any]:
    from livesr.store.exports.export import export

    with progress(out, "planes", lines=wanted.lines) as show:
        done = export(store, to, wanted.out, part_of(wanted), show)
    out.print(f"{to}: [bold]{escape(str(done.path))}[/] ({escape(', '.join(done.files))})")
    return {"format": to, "path": str(done.path), "files": list(done.files)}


def _film(store: Path, wanted: Wanted, out: Console) -> dict[str, Any]:
    from livesr.formats.object_store import is_remote
    from livesr.store.exports.part import name_of
    from livesr.viewer.movie import write_movie

    beside = Path.cwd() / store.name if is_remote(store) else store
    place = wanted.movie or wanted.out or beside.with_name(f"{name_of(store)}.mp4")
    with progress(out, "frames", lines=wanted.lines) as show:
        path = write_movie(store, place, _movie_settings(store, wanted), show)
    out.print(f"{MOVIE}: [bold]{escape(str(path))}[/]")
    return {"format": MOVIE, "path": str(path), "files": [path.name]}


def _movie_settings(store: Path, wanted: Wanted) -> Any:
    from livesr.formats.store import RecordedStore
    from livesr.viewer.browser.messages import TakeSnapshot, View
    from livesr.viewer.movie import MovieSettings

    if wanted.show not in {"beside", "split", "channels", "prediction", "measurement"}:
        raise ConfigError(
            f"--show is {wanted.show!r}; it takes beside, split, channels, prediction, measurement."
        )
    recorded = RecordedStore(store)
    channel = _only(wanted.channels, recorded.channels, "channel")
    name = _only(wanted.positions, recorded.positions, "position")
    view = View(
        mode=cast("Any", wanted.show),
        channel=channel,
        position=None if name is None else recorded.positions.index(name),
    )
    region = _region(wanted.region)
    field = recorded_field(recorded, region) if region else (0.0, 0.0, 1.0, 1.0)
    return MovieSettings(
        view=view,
        part=TakeSnapshot(type="snapshot", field=field),
        first=wanted.first,
        last=wanted.last,
        speed=wanted.speed,
    )


def recorded_field(store: Any, region: Region) -> tuple[float, float, float, float]:
    """Return a region as shares of the picture's width and height: left, top, right, bottom."""
    from livesr.formats.store import array_shape

    image = next(i for (kind, *_), i in store.images.items() if kind in {"sr", "recon"})
    length, size = array_shape(image.array).length, image.scale["x"]
    width, height = length["x"] * size, length["y"] * size
    right, bottom = region.x + region.width, region.y + region.height
    if min(region) < 0 or right > width * 1.0001 or bottom > height * 1.0001:
        raise ConfigError(
            f"The region ends at {right:g}, {bottom:g} um, and the picture at {width:g},"
            f" {height:g} um: choose one inside it."
        )
    return region.x / width, region.y / height, min(right / width, 1), min(bottom / height, 1)


def part_of(wanted: Wanted) -> Part:
    """Return what is asked for as a part of a store."""
    from livesr.store.exports.part import Part

    return Part(
        images=cast("Sequence[SeriesName] | None", _names(wanted.series)),
        channels=_names(wanted.channels),
        positions=_names(wanted.positions),
        first=wanted.first,
        last=wanted.last,
        region=_region(wanted.region),
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(n for name in text.split(",") if (n := name.strip()))


def _only(text: str | None, there: Sequence[str], what: str) -> str | None:
    """Return the one name that a film can follow."""
    names = _names(text)
    if names is None:
        return None
    if len(names) != 1 or names[0] not in there:
        raise ConfigError(
            f"A film shows one {what}, and {text!r} was asked for; there are {', '.join(there)}."
        )
    return names[0]


def _region(text: str | None) -> Region | None:
    from livesr.store.exports.part import Region

    if text is None:
        return None
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise ConfigError(
            f"The region is {text!r}; expected x,y,width,height in um from the upper left corner,"
            " as 2,2,10,10."
        ) from None
    return Region(x, y, width, height)
