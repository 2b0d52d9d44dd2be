"""`livesr demo`: a virtual SIM rig, separated live; no microscope, no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, run_table, score_table

if TYPE_CHECKING:
    from livesr.base.compute import ComputeConfig


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(options.with_compute(demo))


def demo(
    frames: Annotated[
        int, typer.Option(min=3, max=options.MAX_FRAMES, help="Super-resolution frames to acquire.")
    ] = 60,
    size: Annotated[
        int,
        typer.Option(
            min=64, max=1024, help="Camera pixels a side, 64 to 1024; SR frames have twice as many."
        ),
    ] = 256,
    engine: options.Engine = None,
    store: options.StoreOfRun = Path("livesr-demo.ome.zarr"),
    publish: options.Publish = "tcp://127.0.0.1:*",
    sink: options.Sinks = None,
    policy: options.Policy = "latest",
    provisional: options.Provisional = "auto",
    *,
    compute: ComputeConfig,
    exposure: options.Exposure = None,
    no_raw: options.NoRaw = False,
    no_recon: options.NoRecon = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=(1 << 63) - 1, rich_help_panel=options.ACQUIRED, help="Seed of the cell."
        ),
    ] = 7,
    picture: Annotated[
        Path | None,
        typer.Option(
            callback=options.to_write, help="PNG of input, channels, composite and truth to write."
        ),
    ] = None,
    view: options.View = False,
    complete: options.Complete = "auto",
    on_finish: options.OnFinish = None,
    on_finish_timeout: options.OnFinishTimeout = None,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Watch a simulated cell being separated into microtubules, ER and lysosomes.

    Another engine gets a cell with what it separates: pits, mitochondria.

    [dim]Example:[/] livesr demo --view
    """
    from livesr.base.config import load_rig
    from livesr.cli.completion import completed, seconds_of
    from livesr.cli.experiment import Experiment
    from livesr.cli.on_finish import command_of
    from livesr.cli.score import TruthScore, haze_shown, require_truth, stained_for
    from livesr.cli.session import Request, acquire, load_core, settings_of
    from livesr.cli.view import RunPreview
    from livesr.modalities.registry import modality
    from livesr.simulation.camera import prepare_virtual_camera
    from livesr.simulation.sequence import simulating_rig
    from livesr.simulation.specimens import DEFAULT_STRUCTURES

    after, complete_s = command_of(on_finish, on_finish_timeout), seconds_of(complete)
    out = console(quiet=as_json)
    rig = load_rig(simulating_rig())
    chosen = rig.with_engine(engine) if engine else rig
    stained = stained_for(chosen) or DEFAULT_STRUCTURES
    kind = modality(rig.modality)
    score = TruthScore(frames, kind.picture, haze=haze_shown(chosen))
    page = RunPreview(view, out)
    request = Request(
        rig=rig,
        experiment=Experiment(frames=frames),
        engine=engine,
        sinks=tuple(sink or ()),
        settings=settings_of(
            compute,
            view=view,
            store=store,
            publish=publish,
            policy=policy,
            provisional=provisional,
            record_raw=not no_raw,
            record_recon=not no_recon,
        ),
        exposure_ms=exposure,
        page=page,
        progress_lines=lines,
        on_frame=score.keep,
        properties={
            "Seed": str(seed),
            "SensorSize": str(size),
            "TimePoints": str(min(frames, 40)),
            "Dyes": "+".join(stained),
        },
    )
    if picture:
        require_truth(chosen)
    with page:
        with after.also_of_a_failed_start(out):
            with out.status(f"Simulating a living cell under a {kind.title} microscope"):
                core = load_core(request)
                prepare_virtual_camera(core, None)
            report = acquire(request, core, out)
        report = completed(report, complete_s, out, compute=compute, engine=engine, lines=lines)
        with out.status("Comparing with the simulated truth, validating the store"):
            (channel,) = report["channels"].values()
            report["score"] = score.compute(core, channel["labels"])
            report["store_valid"] = _validate(Path(report["store"]))
            if picture:
                score.picture(core, channel, picture)
        out.print(run_table(report))
        if report["score"]:
            out.print(score_table(report["score"]))
        out.print(
            f"The store is valid OME-Zarr 0.5. Look at it: livesr view {report['store']}",
            markup=False,
            soft_wrap=True,
        )
        report = after.run(report, out)
        if as_json:
            print_json(report)
        page.linger(report)
    raise typer.Exit(report["exit_code"])


def _validate(store: Path) -> bool:
    """Check the store against the specification; an invalid one is an error of this program."""
    import yaozarrs

    yaozarrs.validate_zarr_store(str(store))
    return True
