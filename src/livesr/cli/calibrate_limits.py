"""`livesr calibrate-limits STORE ... --rig RIG`: what is usual in a rig's own recordings becomes
its limits, beside the rig.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

_SHOWN = 3  # fields


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("calibrate-limits")(calibrate_limits)


def calibrate_limits(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE ...",
            help="Recordings of specimens that are known to be in order, separated by the engine.",
        ),
    ],
    rig: Annotated[str, typer.Option(help="Rig to write limits.yaml beside.")],
    false_alarms: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            callback=options.finite,
            help=(
                "Share of fields in order that may be warned of; 0.05 takes 19 fields, 0.1 takes 9."
            ),
        ),
    ] = 0.05,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and print; change no file.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Find how much light of no known structure is usual on this rig, and write it beside the rig.

    From then on a frame with more is to be checked, instead of one with more than simulated frames
    of any rig have: the limit is lower as a rule, and tells far more of the structures that the
    engine does not know. Record what holds the labelled structures alone, each cell once.

    [dim]Example:[/] livesr calibrate-limits cell-*.ome.zarr --rig my_rig
    """
    from livesr.base.config import load_rig
    from livesr.base.rig_limits import FILE, RigLimits, load_rig_limits
    from livesr.evaluation.rig_limits import fields_of, rig_limits
    from livesr.formats.store import RecordedStore

    out = console(quiet=as_json)
    config = load_rig(rig)
    file = config.folder / FILE
    if not dry_run:
        options.check_beside(config.folder)
    before = load_rig_limits(file).channels if file.exists() else {}
    fields = [field for store in stores for field in fields_of(RecordedStore(store))]
    found = rig_limits(fields, config, false_alarms)
    for name, limits in found.items():
        out.print(escape(f"{name or 'default'}: {limits.rule}"))
        of = sorted((f for f in fields if f.channel == name), key=lambda f: -f.unknown_light)
        highest = ", ".join(f"{f.unknown_light:.2%} {f.store} p{f.position}" for f in of[:_SHOWN])
        out.print(escape(f"Highest: {highest}. Look whether these are in order: they set it."))
    if not dry_run:
        RigLimits(channels={**before, **found}).save(file)
        out.print(f"Written into {escape(str(file))}.", soft_wrap=True)
    if as_json:
        print_json(RigLimits(channels=found).model_dump(mode="json"))
