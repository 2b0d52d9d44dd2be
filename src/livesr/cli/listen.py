"""`livesr listen ENDPOINT`: show what a stream carries, or save it."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(listen)


def listen(
    endpoint: Annotated[
        str, typer.Argument(help="Where a run publishes.")
    ] = "tcp://127.0.0.1:5555",
    keys: options.ViewerKeysFolder = None,
    frames: Annotated[
        int | None,
        typer.Option(min=1, max=options.MAX_FRAMES, help="Stop after so many predicted frames."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=options.MAX_WAIT_S,
            callback=options.finite,
            help="Seconds without any message before giving up.",
        ),
    ] = 10.0,
    save: Annotated[
        Path | None,
        typer.Option(callback=options.to_fill, help="Folder for one TIFF per predicted frame."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Print a line for every predicted frame of a stream until it ends.

    [dim]Example:[/] livesr listen tcp://127.0.0.1:5555 --frames 10
    """
    from livesr.viewer.subscriber import Subscriber

    out = console(quiet=as_json)
    seen, latencies = 0, []
    with Subscriber(endpoint, keys=keys) as subscriber, contextlib.suppress(KeyboardInterrupt):
        deadline = time.monotonic() + timeout
        while (
            (frames is None or seen < frames)
            and time.monotonic() < deadline
            and not subscriber.ended
        ):
            message = subscriber.next_frame("sr/frame", timeout_s=0.25)
            if message is None:
                continue
            deadline, header = time.monotonic() + timeout, message.header
            age_ms = (time.time_ns() - (header.t_acq_ns or header.t_pub_ns)) / 1e6
            out.print(_line(header, age_ms))
            if header.provisional:  # shown, but only what stays is counted and saved
                continue
            seen += 1
            latencies.append(age_ms)
            if save:
                _save(save, message)
    if not seen:
        hint = f"Is a run publishing there? Try livesr demo --publish {endpoint}."
        out.print(f"Nothing came from {endpoint} in {timeout:g} s. {hint}", markup=False)
    summary = {
        "endpoint": endpoint,
        "frames": seen,
        "age_ms": sorted(latencies)[len(latencies) // 2] if latencies else None,
    }
    if as_json:
        print_json(summary)
    raise typer.Exit(0 if seen else 1)


def _line(header: Any, age_ms: float) -> str:
    channels = escape(", ".join(c.label for c in header.channels)[:200])  # it came over the wire
    flag = "[yellow]provisional[/] " if header.provisional else ""
    size = f"{header.shape[-2]}x{header.shape[-1]}" if len(header.shape) > 1 else "no picture"
    residual = "unknown" if header.residual is None else f"{header.residual:.3f}"
    return (
        f"t {header.t}  {channels}  {size}  {flag}prediction, residual {residual}, {age_ms:.0f}"
        " ms old"
    )


def _save(folder: Path, message: Any) -> None:
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    header = message.header
    channel = (
        re.sub(r"[^\w.-]", "_", header.channel)[:100] or "default"
    )  # it came over the wire: it must not name a folder
    name = f"p{header.position}_{channel}_z{header.z}_t{header.t:06d}.ome.tif"
    tifffile.imwrite(
        folder / name,
        message.pixels,
        metadata={"axes": "CYX", "Channel": {"Name": [c.label for c in header.channels]}},
    )
