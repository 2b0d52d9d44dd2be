"""`livesr engine`: engines to and from bioimage.io."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from livesr.cli.help import Application, Commands
from livesr.cli.output import JSON, console, print_json


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = Application(
        cls=Commands,
        help="Engines to and from bioimage.io.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    group.command("export-rdf")(export_rdf)
    group.command("import")(import_)
    app.add_typer(group, name="engine", rich_help_panel=getattr(app, "panel", None))


def export_rdf(
    engine: Annotated[str, typer.Argument(help="Engine: a name or a folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the model; bioimageio/ENGINE without.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write an engine as a model of bioimage.io: rdf.yaml, network, card and test images.

    [dim]Example:[/] livesr engine export-rdf edsr-x2 --out bioimageio/edsr-x2
    """
    from livesr.export.rdf import export_rdf as export
    from livesr.live.inference.engine import load_engine

    loaded = load_engine(engine)
    path = export(loaded, out or Path("bioimageio") / loaded.manifest.id)
    console(quiet=as_json).print(
        f"Wrote {path}. Check it: bioimageio test {path} (pip install bioimageio.core)."
    )
    if as_json:
        print_json({"engine": loaded.manifest.id, "rdf": str(path)})


def import_(
    model: Annotated[
        Path, typer.Argument(help="rdf.yaml, the folder that holds one, or a package (.zip).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the engine; engines/NAME without.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Make an engine of an image-to-image model of bioimage.io, if livesr can run it live.

    [dim]Example:[/] livesr engine import denoiser.zip --out engines/denoiser
    """
    from livesr.export.imported import import_model

    found = import_model(model, out or Path("engines") / model.stem)
    manifest = found.engine.manifest
    proof = (
        "came without a test image"
        if found.pcc is None
        else f"PCC {found.pcc:.4f} with its own test answer"
    )
    result: dict[str, Any] = {
        "engine": str(found.engine.folder),
        "id": manifest.id,
        "task": manifest.task,
        "pcc": found.pcc,
    }
    console(quiet=as_json).print(
        f"{manifest.id}: {manifest.task}, {proof}. Name it in rig.yaml under '{manifest.task}':"
        f" {found.engine.folder}"
    )
    if as_json:
        print_json(result)
