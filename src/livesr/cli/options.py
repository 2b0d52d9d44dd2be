"""Flags that several commands share, written once.

Owns their names, help and checks.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from livesr.base.files import check_folder, check_place

MAX_FRAMES = 10_000_000  # a day at 100 frames/s
MAX_THREADS = 4096
MAX_EXPOSURE_MS = 3.6e6  # an hour
MAX_SECONDS = 1e9  # 30 years
MAX_WAIT_S = 1e6  # what every system can wait for at once

# Panels of the help texts: what has none is common, and comes first.
ACQUIRED = "What is acquired"
KEPT = "What is kept"
SENT = "Who receives it"
COMPUTED = "How it is computed"
RECORDING = "How a recording is read"
AFTER = "When it is over"
PANELS = ("Options", ACQUIRED, RECORDING, KEPT, SENT, COMPUTED, AFTER)
"""In the order in which they are shown."""


def finite(value: Any) -> Any:
    """Refuse what is no number, which no range refuses.

    To a computer nan is neither too small nor too large.

    Raises
    ------
    BadParameter
        If one is nan, infinite or beyond every limit.
    """
    for number in value if isinstance(value, tuple) else () if value is None else (value,):
        if not abs(number) <= MAX_SECONDS:
            raise typer.BadParameter(f"{number} is no number that can be used here.")
    return value


def to_fill(folder: Path | None) -> Path | None:
    """Refuse a folder that takes no files, before what is to go there was computed.

    Raises
    ------
    BadParameter
        With the reason.
    """
    return _writable(folder, check_folder)


def to_write(file: Path | None) -> Path | None:
    """Refuse a file that cannot be written; likewise.

    Raises
    ------
    BadParameter
        With the reason.
    """
    return _writable(file, check_place)


def to_make(path: Path | None) -> Path | None:
    """Refuse a place for a file or folder whose own folder takes none; likewise.

    Raises
    ------
    BadParameter
        With the reason.
    """
    return _writable(path, lambda path: check_folder(path.parent))


def _writable(path: Path | None, check: Callable[[Path], None]) -> Path | None:
    if path is None:
        return None
    try:
        check(path)
    except OSError as e:
        raise typer.BadParameter(cannot_write(path, e)) from e
    return path


def cannot_write(path: Path, error: OSError) -> str:
    """Return why nothing can be written there, and what to try."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{path} cannot be written: {error.strerror or error}{where}. Choose a place that you can"
        " write to."
    )


def check_beside(folder: Path) -> None:
    """Refuse a folder of a rig or an engine that takes no files; likewise.

    Raises
    ------
    ConfigError
        With the reason.
    """
    from livesr.base.errors import ConfigError

    try:
        check_folder(folder)
    except OSError as e:
        where = f" ({e.filename})" if e.filename else ""
        raise ConfigError(
            f"{folder} cannot be written to, and what is measured goes there:"
            f" {e.strerror or e}{where}. Copy the folder to a place that you can write to, and name"
            " the copy."
        ) from e


Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=(
            "Engine that separates, instead of rig.yaml's: a name, a folder, or none; 488=NAME for"
            " one channel of several."
        ),
    ),
]
Upscale = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=COMPUTED,
        help=(
            "Engine that enlarges before, instead of rig.yaml's: a name, a folder, or none;"
            " 488=NAME for one channel."
        ),
    ),
]
Reconstruct = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=COMPUTED,
        help=(
            "Engine in the place of the reconstruction, instead of rig.yaml's: a name, a folder, or"
            " none for the modality's own; 488=NAME for one channel."
        ),
    ),
]
Restore = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=COMPUTED,
        help=(
            "Engine that takes noise out of raw frames, instead of rig.yaml's: a name, a folder, or"
            " none; 488=NAME for one channel."
        ),
    ),
]
Localiser = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=COMPUTED,
        help=(
            "Engine that finds single emitters, instead of rig.yaml's: a name, a folder, or none"
            " for fits. What it draws is a prediction."
        ),
    ),
]
_STORE = "OME-Zarr to write; a path that exists gets the next number."
Store = Annotated[Path | None, typer.Option(callback=to_make, help=_STORE)]
StoreOfRun = Annotated[Path | None, typer.Option(help=_STORE)]
"""Of a run, which looks at it with its other places: the command of --on-finish hears of it."""
Complete = Annotated[
    str,
    typer.Option(
        metavar="auto|off|SECONDS",
        rich_help_panel=AFTER,
        help=(
            "What was skipped is computed when the run is over: auto (5 minutes at most; Ctrl-C"
            " ends it), so many seconds at most, or off."
        ),
    ),
]
Sinks = Annotated[
    list[str] | None,
    typer.Option(
        "--sink",
        metavar="NAME",
        rich_help_panel=SENT,
        help=(
            "Where frames go as well: a sink that an installed package brings ('livesr info' lists"
            " them); may be given several times."
        ),
    ),
]
SpareDisk = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=KEPT,
        help="Folder on another disk, where the store goes on when its own disk is full or fails.",
    ),
]
Flush = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=86_400.0,
        callback=finite,
        metavar="SECONDS",
        rich_help_panel=KEPT,
        help=(
            "Write all that was recorded through to the disk so often, for what a power cut must"
            " not take; costs speed."
        ),
    ),
]
Publish = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=SENT,
        help="ZeroMQ address to publish on, such as tcp://127.0.0.1:5555.",
    ),
]
PublishRaw = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=SENT,
        help=(
            "Address on which another computer may ask for the raw groups, as"
            " tcp://127.0.0.1:5556: 'livesr run RIG --replay ADDRESS' computes the run there."
        ),
    ),
]
Keys = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=SENT,
        help=(
            "Folder made by 'livesr keys': the stream is encrypted, and only its viewers"
            " receive it."
        ),
    ),
]
ViewerKeysFolder = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="FOLDER",
        help="Folder that 'livesr keys' made for this viewer at the rig.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        rich_help_panel=SENT,
        help="Publish unencrypted on an address that other computers can reach.",
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_FRAMES, metavar="N", help="Super-resolution frames to acquire."),
]
Duration = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=MAX_SECONDS,
        callback=finite,
        metavar="SECONDS",
        help="Seconds to acquire, instead of --frames.",
    ),
]
Policy = Annotated[
    Literal["latest", "complete"],
    typer.Option(
        rich_help_panel=COMPUTED,
        help="latest: skip centre frames when the network is slow; complete: skip nothing.",
    ),
]
Provisional = Annotated[
    Literal["auto", "off"],
    typer.Option(
        rich_help_panel=COMPUTED,
        help=(
            "auto: with --policy latest, show frames before their successor came when there is"
            " time; or off."
        ),
    ),
]
OnFinish = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        rich_help_panel=AFTER,
        help=(
            "Command to run when the run is over, also after a failure or Ctrl-C; the report comes"
            " on its stdin. {store}, {report} and {exit_code} are filled in."
        ),
    ),
]
OnFinishTimeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=MAX_WAIT_S,
        callback=finite,
        metavar="SECONDS",
        rich_help_panel=AFTER,
        help="Seconds after which the command of --on-finish is ended; 0: never; 3600 without.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=COMPUTED,
        help=(
            "Compute on the workers of a Dask cluster: its scheduler, tcp://HOST:8786; they must"
            " see the files under the same paths."
        ),
    ),
]
NoRaw = Annotated[
    bool, typer.Option("--no-raw", rich_help_panel=KEPT, help="Do not record raw frames.")
]
NoRecon = Annotated[
    bool, typer.Option("--no-recon", rich_help_panel=KEPT, help="Do not record reconstructions.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, max=(1 << 63) - 1, rich_help_panel=ACQUIRED, help="Seed of a virtual rig's specimen."
    ),
]
View = Annotated[bool, typer.Option("--view", help="Open the preview in the browser.")]
Exposure = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=MAX_EXPOSURE_MS,
        callback=finite,
        metavar="MS",
        rich_help_panel=ACQUIRED,
        help="Exposure of one raw frame in ms, instead of rig.yaml's.",
    ),
]
Interval = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1e6,
        callback=finite,
        metavar="SECONDS",
        rich_help_panel=ACQUIRED,
        help=(
            "Seconds from one super-resolution frame to the next, instead of rig.yaml's; 0: no"
            " pause."
        ),
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="AXES",
        rich_help_panel=RECORDING,
        help=(
            "Recording: its axes where it does not name them, as in tcyx or t,raw,y,x; raw counts"
            " raw frames, angle and phase those of patterns: angle,z,phase,y,x."
        ),
    ),
]
Channel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=RECORDING,
        help="Recording: its channel, if rig.yaml has several.",
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        max=1e6,
        callback=finite,
        metavar="NM",
        rich_help_panel=RECORDING,
        help="Recording: camera pixel in the sample in nm, instead of rig.yaml's.",
    ),
]
Origin = Annotated[
    tuple[float, float] | None,
    typer.Option(
        callback=finite,
        metavar="Y X",
        rich_help_panel=RECORDING,
        help="Recording: y and x of its corner on the chip.",
        show_default=False,
    ),
]


def said(flags: Mapping[str, object]) -> str:
    """Return which of `flags` have a value, as --a, --b; empty if none has."""
    return ", ".join(name for name, value in flags.items() if value is not None)


# -- how it is computed ----------------------------------------------------------------------------

Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=COMPUTED,
        help="Runtime: auto, tensorrt, openvino or torch; kserve for a server.",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        metavar="GRPC://HOST:PORT",
        rich_help_panel=COMPUTED,
        help=(
            "Server of --backend kserve, instead of rig.yaml's or LIVESR_ENDPOINT; grpcs:// for"
            " TLS."
        ),
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=COMPUTED,
        help=(
            "Arithmetic of the engines: int8, f8, bf16, f16, f32, or auto, which offline is that of"
            " the live run."
        ),
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(
        rich_help_panel=COMPUTED,
        help="Where SIM frames are computed: auto takes an NVIDIA GPU if there is one, and CuPy.",
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_THREADS,
        rich_help_panel=COMPUTED,
        help="Threads of the runtime; 0 leaves it the choice.",
    ),
]
Tile = Annotated[
    str,
    typer.Option(
        metavar="PIXELS",
        rich_help_panel=COMPUTED,
        help=(
            "Side of the tiles in which a network sees larger frames; auto takes tiles where a"
            " frame does not fit the memory, off takes none."
        ),
    ),
]
Resample = Annotated[
    Literal["auto", "off"] | None,
    typer.Option(
        rich_help_panel=COMPUTED,
        help=(
            "Whether frames whose pixels an engine was not trained for are brought to its own pixel"
            " size, and what it predicts back; without, as the run that is computed again, else as"
            " auto."
        ),
    ),
]
Uncertainty = Annotated[
    Literal["half-turn", "flips", "d4", "off"] | None,
    typer.Option(
        metavar="half-turn|flips|d4|off",
        rich_help_panel=COMPUTED,
        help=(
            "Estimate how uncertain every prediction is, from 2 (half-turn), 4 (flips) or 8 views"
            " (d4; square frames) of its input: the network takes as many times as long. off does"
            " not, where the run that is computed again did."
        ),
    ),
]
_ENSEMBLE = (
    "Predict the mean of what the network makes of 2 (half-turn), 4 (flips) or 8 views (d4; square"
    " frames) of every frame: better, and as many times slower."
)
Ensemble = Annotated[
    Literal["half-turn", "flips", "d4"] | None,
    typer.Option(metavar="half-turn|flips|d4", rich_help_panel=COMPUTED, help=_ENSEMBLE),
]
EnsembleOrOff = Annotated[
    Literal["half-turn", "flips", "d4", "off"] | None,
    typer.Option(
        metavar="half-turn|flips|d4|off",
        rich_help_panel=COMPUTED,
        help=(
            f"{_ENSEMBLE} With --uncertainty the same views serve both. off sees the frame alone,"
            " where the run that is computed again saw several views."
        ),
    ),
]
ErrorMap = Annotated[
    Literal["numbers", "planes"] | None,
    typer.Option(
        rich_help_panel=COMPUTED,
        help=(
            "Compare pictures with the widefield mean of their exposures: numbers for frames.jsonl"
            " and report, or an image of the store as well (planes)."
        ),
    ),
]
ErrorBarImages = Annotated[
    bool,
    typer.Option(
        "--error-bars",
        rich_help_panel=COMPUTED,
        help=(
            "Store lower and upper images of every prediction, by the error bars beside the rig"
            " (livesr calibrate-errors)."
        ),
    ),
]
_COMPUTE: dict[str, tuple[Any, Any]] = {
    "backend": (Backend, "auto"),
    "endpoint": (Endpoint, None),
    "precision": (Precision, "auto"),
    "device": (Device, "auto"),
    "threads": (Threads, 0),
    "tile": (Tile, "auto"),
    "resample": (Resample, None),
    "uncertainty": (Uncertainty, None),
    "ensemble": (EnsembleOrOff, None),
    "error_map": (ErrorMap, None),
    "error_bars": (ErrorBarImages, False),
}
"""Fields of `ComputeConfig`; the residual plane is for scripts, which receive it."""


def with_compute(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of `ComputeConfig` in place of its parameter `compute`."""
    own = inspect.signature(command, eval_str=True, locals={"ComputeConfig": None})
    keyword = inspect.Parameter.KEYWORD_ONLY
    flags = [
        inspect.Parameter(name, keyword, default=default, annotation=kind)
        for name, (kind, default) in _COMPUTE.items()
    ]
    parameters = []
    for parameter in own.parameters.values():
        parameters += flags if parameter.name == "compute" else [parameter.replace(kind=keyword)]

    @functools.wraps(command)
    def with_flags(**given: Any) -> None:
        from livesr.base.compute import ComputeConfig
        from livesr.base.config import parse

        said = {name: given.pop(name) for name in _COMPUTE}
        said["tile"] = _tile(said["tile"])
        command(compute=parse(ComputeConfig, said, "The command line"), **given)

    vars(with_flags)["__signature__"] = own.replace(parameters=parameters)
    with_flags.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_flags


def _tile(text: str) -> str | int:
    if text in ("auto", "off"):
        return text
    if text.isascii() and text.isdigit() and 64 <= int(text[:9]) <= 1 << 16:
        return int(text[:9])
    raise typer.BadParameter(
        f"--tile is {text!r}; expected auto, off, or pixels a side, from 64 to {1 << 16}."
    )
