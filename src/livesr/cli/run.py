"""`livesr run RIG`: acquire on a real or virtual rig and separate live."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from livesr.cli import options
from livesr.cli.output import JSON, ProgressLines, console, print_json, run_table, score_table

if TYPE_CHECKING:
    from livesr.base.compute import ComputeConfig
    from livesr.cli.experiment import Experiment
    from livesr.store.raw_input import ReadAs

Positions = Annotated[
    str | None,
    typer.Option(
        metavar="PLACES",
        rich_help_panel=options.ACQUIRED,
        help='Stage positions "x,y[,z[,name]];..." in um, or a text file with one a line.',
    ),
]
Z = Annotated[
    str | None,
    typer.Option(
        "--z",
        metavar="PLANES",
        rich_help_panel=options.ACQUIRED,
        help=(
            "Planes in um: range:step around each position, or first..last:step of the focus drive."
        ),
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        rich_help_panel=options.ACQUIRED,
        help="Channels of rig.yaml to acquire, as 488,561; all without.",
    ),
]
Superpose = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        rich_help_panel=options.ACQUIRED,
        help=(
            "Channels to acquire one after the other, add, separate again and score, as 488,561,640"
            " or 488=1,561=0.5,640=1 (brightness in the sum); in the order of the engine's"
            " structures."
        ),
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=options.KEPT,
        help=(
            "Folder that keeps the superposed channels, or pictures beside their exposures, as"
            " livesr train reads them."
        ),
    ),
]
Plan = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=options.ACQUIRED,
        help="A useq plan (YAML or JSON) instead; livesr adds the raw frames of SIM.",
    ),
]
Replay = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        rich_help_panel=options.RECORDING,
        help=(
            "Store, TIFF, OME-Zarr, MRC or NDTiff whose raw frames are run as if RIG's camera"
            " exposed them now; or the address of a run that hands them out (--publish-raw)."
        ),
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        rich_help_panel=options.RECORDING,
        help=(
            "Of a replay: recorded (as without it), max (as fast as frames can be taken), or"
            " exposures a second."
        ),
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(options.with_compute(run))


def run(
    rig: Annotated[
        str, typer.Argument(help="rig.yaml, its folder, or a name in hardware_configs.")
    ],
    frames: options.Frames = None,
    duration: options.Duration = None,
    engine: options.Engine = None,
    upscale: options.Upscale = None,
    reconstruct: options.Reconstruct = None,
    restore: options.Restore = None,
    localiser: options.Localiser = None,
    store: options.StoreOfRun = None,
    spare_disk: options.SpareDisk = None,
    flush: options.Flush = None,
    publish: options.Publish = None,
    publish_raw: options.PublishRaw = None,
    sink: options.Sinks = None,
    keys: options.Keys = None,
    insecure: options.Insecure = False,
    policy: options.Policy = "latest",
    provisional: options.Provisional = "auto",
    *,
    compute: ComputeConfig,
    exposure: options.Exposure = None,
    interval: options.Interval = None,
    no_raw: options.NoRaw = False,
    no_recon: options.NoRecon = False,
    positions: Positions = None,
    z: Z = None,
    channels: Channels = None,
    plan: Plan = None,
    superpose: Superpose = None,
    pairs: Pairs = None,
    seed: options.Seed = None,
    view: options.View = False,
    complete: options.Complete = "auto",
    on_finish: options.OnFinish = None,
    on_finish_timeout: options.OnFinishTimeout = None,
    replay: Replay = None,
    rate: Rate = None,
    axes: options.Axes = None,
    channel: options.Channel = None,
    pixel_size: options.PixelSize = None,
    origin: options.Origin = None,
    lines: ProgressLines = False,
    as_json: JSON = False,
) -> None:
    """Acquire on a rig: reconstruct, separate, store and publish live.

    With --replay, a recording takes the camera's place.

    [dim]Example:[/] livesr run virtual_sim --frames 100 --store run.ome.zarr --publish
    tcp://127.0.0.1:5555

    [dim]Example:[/] livesr run my_rig --positions "0,0;250,80" --z 3:0.5 --duration 3600 --interval
    60 --store night.ome.zarr

    [dim]Example:[/] livesr run my_rig --replay raw.tif --rate recorded --view

    [dim]Example:[/] livesr run virtual_sim --reconstruct unet-sim-3 --engine none --view
    """
    from livesr.base.config import load_rig
    from livesr.cli import session
    from livesr.cli.completion import completed, seconds_of
    from livesr.cli.experiment import Experiment, plan_of
    from livesr.cli.on_finish import command_of
    from livesr.cli.view import RunPreview
    from livesr.store.raw_input import ReadAs

    after, complete_s = command_of(on_finish, on_finish_timeout), seconds_of(complete)
    config = load_rig(rig)
    if superpose is not None:
        config = config.superposing(*_superposed(superpose))
    if localiser is not None:
        config = config.with_localiser(localiser)
    exposure_ms = exposure or config.exposure_ms
    experiment = Experiment(frames, duration, interval, positions, z, channels, plan)
    how = ReadAs(axes, channel, pixel_size, origin, interval if replay else None)
    _check_replay(replay, experiment, how, {"--exposure": exposure, "--seed": seed, "--rate": rate})
    if not replay:
        planned = plan_of(
            experiment, config, exposure_ms
        )  # a typo must not cost the start of a microscope
        acquired = [c.config for c in planned.channels]
        engine, upscale, reconstruct, restore = (
            config.for_channel(name, acquired) for name in (engine, upscale, reconstruct, restore)
        )
    config = config.with_engines({"restore": restore, "reconstruct": reconstruct})
    out = console(quiet=as_json)
    page = RunPreview(view, out)
    request = session.Request(
        rig=config,
        experiment=experiment,
        engine=engine,
        upscale=upscale,
        sinks=tuple(sink or ()),
        settings=session.settings_of(
            compute,
            view=view,
            store=store,
            spare=spare_disk,
            flush_s=flush,
            pairs=pairs,
            publish=publish,
            publish_raw=publish_raw,
            keys=keys,
            insecure=insecure,
            policy=policy,
            provisional=provisional,
            record_raw=not no_raw,
            record_recon=not no_recon,
        ),
        exposure_ms=exposure_ms,
        page=page,
        progress_lines=lines,
        properties={} if seed is None else {"Seed": str(seed)},
    )
    with page:
        with after.also_of_a_failed_start(out):
            if replay:
                report = session.replay(request, replay, how, _rate(rate or "recorded"), out)
            else:
                report = session.acquire(request, session.load_core(request), out)
        out.print(run_table(report))
        if report.get("score"):
            out.print(score_table(report["score"], "Against the true channels"))
        report = completed(
            report, complete_s, out, compute=compute, engine=engine, upscale=upscale, lines=lines
        )
        report = after.run(report, out)
        if as_json:
            print_json(report)
        page.linger(report)
    raise typer.Exit(report["exit_code"])


def _check_replay(
    replay: Path | None, experiment: Experiment, how: ReadAs, others: Mapping[str, object]
) -> None:
    """Refuse flags of an acquisition with a recording, and those of a recording without one."""
    acquisition = {
        "--duration": experiment.duration_s,
        "--positions": experiment.positions,
        "--z": experiment.z,
        "--channels": experiment.channels,
        "--plan": experiment.plan,
        "--exposure": others["--exposure"],
        "--seed": others["--seed"],
    }
    recording = {
        "--rate": others["--rate"],
        "--axes": how.axes,
        "--channel": how.channel,
        "--pixel-size": how.pixel_size_nm,
        "--origin": how.origin_px,
    }
    if replay and (said := options.said(acquisition)):
        raise typer.BadParameter(
            f"{said} describes an acquisition, and a recording has its own: leave it out; --frames"
            " ends a replay early."
        )
    if not replay and (said := options.said(recording)):
        raise typer.BadParameter(
            f"{said} says how a recording is read, and none is replayed: add --replay, or leave it"
            " out."
        )


def _superposed(text: str) -> tuple[list[str], list[float]]:
    """Read channels and weights from ``488,561=0.5,640``."""
    parts = [part.partition("=") for part in text.split(",")]
    try:
        return [name.strip() for name, _, _ in parts], [
            float(weight) if weight else 1.0 for _, _, weight in parts
        ]
    except ValueError:
        raise typer.BadParameter(
            f"--superpose is {text!r}; expected channels, as 488,561,640 or 488=1,561=0.5."
        ) from None


def _rate(text: str) -> float | Literal["recorded", "max"]:
    if text == "recorded":
        return "recorded"
    if text == "max":
        return "max"
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"--rate is {text!r}; expected recorded, max, or exposures a second."
        ) from None
