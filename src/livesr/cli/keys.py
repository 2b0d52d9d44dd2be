"""`livesr keys FOLDER`: keys for a stream that other computers may see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(keys)


def keys(
    folder: Annotated[
        Path,
        typer.Argument(
            callback=options.to_fill, help="Where the publisher's keys are, or will be."
        ),
    ] = Path("livesr-keys"),
    viewer: Annotated[
        list[str] | None, typer.Option(help="Name of a viewer; may be given several times.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Make CURVE keys, with which a stream can leave this computer encrypted and only to named
    viewers.

    [dim]Example:[/] livesr keys rig-keys --viewer office
    """
    from livesr.formats.keys import make_keys

    made = make_keys(folder, viewer or ["viewer"])
    out = console(quiet=as_json)
    out.print(
        f"Publish with: livesr run RIG --publish tcp://0.0.0.0:5555 --keys {folder}",
        soft_wrap=True,
        markup=False,
    )
    for path in made:
        out.print(
            f"Carry {path} to the viewing computer, delete it here, and view there with:",
            soft_wrap=True,
            markup=False,
        )
        out.print(
            f"  livesr view tcp://THIS_COMPUTER:5555 --keys {path.name}",
            soft_wrap=True,
            markup=False,
        )
    if as_json:
        print_json({"publisher": folder, "viewers": made})
