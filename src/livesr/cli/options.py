"""Flags that several commands share, written once.

Owns their names, help and checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

MAX_FRAMES = 10_000_000  # a day at 100 frames/s
MAX_THREADS = 4096
MAX_EXPOSURE_MS = 3.6e6  # an hour
MAX_SECONDS = 1e9  # 30 years
MAX_WAIT_S = 1e6  # what every system can wait for at once


def finite(value: Any) -> Any:
    """Refuse what is no number, which no range refuses.

    To a computer nan is neither too small nor too large.
    """
    for number in value if isinstance(value, tuple) else () if value is None else (value,):
        if not abs(number) <= MAX_SECONDS:
            raise typer.BadParameter(f"{number} is no number that can be used here.")
    return value


Engine = Annotated[
    str | None,
    typer.Option(
        help=(
            "Engine that separates, instead of rig.yaml's: a name, a folder, or none; 488=NAME for"
            " one channel of several."
        )
    ),
]
Upscale = Annotated[
    str | None,
    typer.Option(
        help=(
            "Engine that enlarges before, instead of rig.yaml's: a name, a folder, or none;"
            " 488=NAME for one channel."
        )
    ),
]
Store = Annotated[
    Path | None, typer.Option(help="OME-Zarr to write; a path that exists gets the next number.")
]
SpareDisk = Annotated[
    Path | None,
    typer.Option(
        help="Folder on another disk, where the store goes on when its own disk is full or fails."
    ),
]
Flush = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=86_400.0,
        callback=finite,
        metavar="SECONDS",
        help=(
            "Write all that was recorded through to the disk so often, for what a power cut must"
            " not take; costs speed."
        ),
    ),
]
Publish = Annotated[
    str | None, typer.Option(help="ZeroMQ address to publish on, such as tcp://127.0.0.1:5555.")
]
Keys = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Folder made by 'livesr keys': the stream is encrypted, and only its viewers"
            " receive it."
        )
    ),
]
ViewerKeysFolder = Annotated[
    Path | None,
    typer.Option("--keys", help="Folder that 'livesr keys' made for this viewer at the rig."),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Publish unencrypted on an address that other computers can reach."
    ),
]
Frames = Annotated[
    int | None, typer.Option(min=1, max=MAX_FRAMES, help="Super-resolution frames to acquire.")
]
Duration = Annotated[
    float | None,
    typer.Option(
        min=0.1, max=MAX_SECONDS, callback=finite, help="Seconds to acquire, instead of --frames."
    ),
]
Policy = Annotated[
    Literal["latest", "complete"],
    typer.Option(
        help="latest: skip centre frames when the network is slow; complete: skip nothing."
    ),
]
Provisional = Annotated[
    Literal["auto", "off"],
    typer.Option(
        help=(
            "auto: with --policy latest, show frames before their successor came when there is"
            " time; or off."
        )
    ),
]
OnFinish = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help=(
            "Command to run when the run is over, also after a failure or Ctrl-C; the report comes"
            " on its stdin. {store}, {report} and {exit_code} are filled in."
        ),
    ),
]
OnFinishTimeout = Annotated[
    float,
    typer.Option(
        min=0,
        max=MAX_WAIT_S,
        callback=finite,
        help="Seconds after which the command of --on-finish is ended; 0: never.",
    ),
]
Uncertainty = Annotated[
    Literal["flips", "d4", "turns"] | None,
    typer.Option(
        help=(
            "Estimate how uncertain every prediction is, from 4 (flips) or 8 sides (d4; square"
            " frames) of its input: the network takes as many times as long. turns is the old name"
            " of d4."
        )
    ),
]
NoRaw = Annotated[bool, typer.Option("--no-raw", help="Do not record raw frames.")]
NoRecon = Annotated[bool, typer.Option("--no-recon", help="Do not record reconstructions.")]
Seed = Annotated[
    int | None, typer.Option(min=0, max=(1 << 63) - 1, help="Seed of a virtual rig's specimen.")
]
View = Annotated[bool, typer.Option("--view", help="Open the preview in the browser.")]
Backend = Annotated[str, typer.Option(help="Runtime: auto, tensorrt, openvino or torch.")]
Precision = Annotated[
    str, typer.Option(help="Arithmetic of the engines: auto, int8, f8, bf16, f16 or f32.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(
        help="Where SIM frames are computed: auto takes an NVIDIA GPU if there is one, and CuPy."
    ),
]
Exposure = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=MAX_EXPOSURE_MS,
        callback=finite,
        help="Exposure of one raw frame in ms, instead of rig.yaml's.",
    ),
]
Interval = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1e6,
        callback=finite,
        help=(
            "Seconds from one super-resolution frame to the next, instead of rig.yaml's; 0: no"
            " pause."
        ),
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        help=(
            "Recording: its axes where it does not name them, as in tcyx or t,raw,y,x; raw counts"
            " raw frames."
        )
    ),
]
Channel = Annotated[
    str | None, typer.Option(help="Recording: its channel, if rig.yaml has several.")
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        max=1e6,
        callback=finite,
        help="Recording: camera pixel in the sample in nm, instead of rig.yaml's.",
    ),
]
Origin = Annotated[
    tuple[float, float] | None,
    typer.Option(
        callback=finite, help="Recording: y and x of its corner on the chip.", show_default=False
    ),
]
