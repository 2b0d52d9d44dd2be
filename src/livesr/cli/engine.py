"""`livesr engine`: engines to and from bioimage.io."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from livesr.base.errors import ConfigError
from livesr.cli import options
from livesr.cli.help import Application, Commands
from livesr.cli.output import JSON, console, print_json

_TASKS = ("separate", "upscale", "reconstruct", "restore")
_EXPECTS = ("background-scale", "mean-deviation")


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
        Path | None,
        typer.Option(
            callback=options.to_fill, help="Folder of the model; bioimageio/ENGINE without."
        ),
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
        Path,
        typer.Argument(
            help="rdf.yaml, the folder that holds one, a package (.zip), or a network (.onnx)."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(callback=options.to_fill, help="Folder of the engine; engines/NAME without."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Of a network alone: separate, upscale, reconstruct or restore.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(min=1, max=8, help="Of a network alone: how many times it enlarges."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Of a network alone: names of what it gives, in its order: ER,MT."),
    ] = None,
    raw_frames: Annotated[
        str | None,
        typer.Option(
            help="Of a network alone that sees raw frames: what each is, as 'angle 0 phase 0,...'."
        ),
    ] = None,
    normalisation: Annotated[
        str,
        typer.Option(
            help=(
                "Of a network alone, what it expects: background-scale (background 0, bright parts"
                " 0.55) or mean-deviation (mean 0, standard deviation 1)."
            )
        ),
    ] = "background-scale",
    as_json: JSON = False,
) -> None:
    """Make an engine of a model of bioimage.io, or of a network alone, if livesr can run it live.

    [dim]Example:[/] livesr engine import denoiser.zip --out engines/denoiser

    [dim]Example:[/] livesr engine import sim3.onnx --task reconstruct --scale 2
    """
    from livesr.export.imported import import_model

    target = out or Path("engines") / model.stem
    said = (task, scale, channels, raw_frames)
    if model.suffix == ".onnx":
        _import_alone(model, target, (*said, normalisation), as_json)
        return
    if any(value is not None for value in said) or normalisation != "background-scale":
        raise ConfigError(
            f"{model.name} describes its network itself: --task, --scale, --channels, --raw-frames"
            " and --normalisation are for a network alone (.onnx)."
        )

    found = import_model(model, target)
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


def _import_alone(model: Path, out: Path, said: tuple[Any, ...], as_json: bool) -> None:
    """Import a network that nothing describes but its file and the flags."""
    from livesr.export.bare import Said, described, import_network

    task, scale, channels, raw_frames, normalisation = said
    if task not in _TASKS:
        raise ConfigError(
            f"{model.name} is a network without a description: say what it does with --task, one of"
            f" {', '.join(_TASKS)}."
        )
    if normalisation not in _EXPECTS:
        raise ConfigError(
            f"--normalisation is {normalisation!r}; there are {' and '.join(_EXPECTS)}."
        )
    names = _list(channels), _list(raw_frames)
    engine = import_network(model, out, Said(task, scale, *names, normalisation))
    found = described(engine)
    console(quiet=as_json).print(
        f"{found['id']}: {task}, {found['planes']} planes in, {', '.join(found['channels'])} out,"
        f" {found['scale']} times as many pixels along each axis; sides in steps of"
        f" {found['multiple_of']}. Add its pixel sizes to {engine.folder}"
    )
    if as_json:
        print_json(found)


def _list(said: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in said.split(",")) if said else ()
