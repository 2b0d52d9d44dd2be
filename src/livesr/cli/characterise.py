"""`livesr characterise RIG`: measure camera and illumination from stacks of frames, and write the
corrections into rig.yaml.
"""

from __future__ import annotations

from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.base.config import RigConfig


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(characterise)


def characterise(
    rig: Annotated[
        str, typer.Argument(help="rig.yaml, its folder, or a name in hardware_configs.")
    ],
    dark: Annotated[Path | None, typer.Option(metavar="FILE", help="Frames without light.")] = None,
    flat: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Frames of an even fluorescent layer.")
    ] = None,
    light: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="More still frames at other levels; may be repeated."),
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Channel of the flat field, if rig.yaml has several.")
    ] = None,
    acquire: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100_000,
            help="Take that many frames with the camera where no stack is given.",
        ),
    ] = None,
    dark_preset: Annotated[
        str | None,
        typer.Option(
            help="Preset of the channel group without light, instead of a closed shutter."
        ),
    ] = None,
    exposure: options.Exposure = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before frames are taken.")] = False,
    smooth: Annotated[
        float,
        typer.Option(
            min=0,
            max=1e4,
            callback=options.finite,
            help="Smoothing of the flat field, pixels; 0: none.",
        ),
    ] = 10.0,
    threshold: Annotated[
        float,
        typer.Option(
            min=3,
            max=1e4,
            callback=options.finite,
            help="Robust deviations beyond which a pixel is bad.",
        ),
    ] = 6.0,
    gain_map: Annotated[
        bool, typer.Option("--gain-map", help="The gain of every pixel; takes 1000 frames.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            callback=options.to_write, help="PNG to write, instead of one beside rig.yaml."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and print; change no file.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Measure offset, read noise, gain, bad pixels and flat field.

    Write them as corrections into rig.yaml.

    Values are EMVA 1288's, from a dark stack and light stacks (photon transfer). Comments in
    rig.yaml stay.

    [dim]Example:[/] livesr characterise my_rig --dark dark.tif --flat layer.tif --light dim.tif
    --channel 488
    """
    from livesr.base.config import load_rig, rig_file
    from livesr.base.errors import ConfigError
    from livesr.evaluation import camera_files
    from livesr.evaluation.camera_frames import RecordedFrames, patterned_frames
    from livesr.evaluation.characterise import characterise as measure

    out = console(quiet=as_json)
    config = load_rig(rig)
    name = _channel(config, channel, flat is not None or acquire is not None)
    if dark is None and acquire is None:
        raise ConfigError(
            "Nothing says what the camera shows without light: give --dark FILE, or --acquire 200."
        )
    if dark_preset is not None and (dark is not None or acquire is None):
        raise ConfigError(
            f"--dark-preset {dark_preset!r} says how the camera takes dark frames: add --acquire"
            " 200, and give no --dark FILE."
        )
    if not dry_run:
        options.check_beside(config.folder)
    notes: list[str] = []
    with ExitStack() as files:

        def opened(path: Path) -> RecordedFrames:
            frames = files.enter_context(closing(RecordedFrames(path)))
            notes.extend(frames.notes)
            return frames

        stacks: dict[str, Any] = {
            key: opened(path) for key, path in (("dark", dark), ("flat", flat)) if path
        }
        n_raw = patterned_frames(config, name)
        if acquire:
            wanted = [key for key in ("dark", "flat") if key not in stacks]
            stacks |= _acquire(
                config, name, wanted, acquire, exposure, dark_preset, None if yes else out
            )
        with out.status("measuring") if not as_json else nullcontext():
            found = measure(
                stacks["dark"],
                stacks.get("flat"),
                [opened(path) for path in light or []],
                n_raw=n_raw,
                ceiling=min(2**config.camera.bit_depth, 2 ** (8 * stacks["dark"].dtype.itemsize))
                - 1,
                smooth_px=smooth,
                threshold=threshold,
                gain_map=gain_map,
                em_gain=config.camera.em_gain,
            )
    report = {**camera_files.summary(found), "files": []}
    report["warnings"] = [*notes, *report["warnings"]]
    if not dry_run:
        report["files"] = [
            str(path) for path in camera_files.save(found, config, rig_file(rig), name)
        ]
    report["picture"] = _draw(
        found,
        picture,
        None if dry_run else config.folder,
        f"{config.name}, {name or 'camera'}",
        report,
    )
    out.print(_table(report))
    if as_json:
        print_json(report)


def _channel(config: RigConfig, channel: str | None, needed: bool) -> str:
    from livesr.base.errors import ConfigError

    names = list(config.channels) or [""]
    if channel is not None:
        config.channel(channel)
        return channel
    if needed and len(names) > 1:
        raise ConfigError(
            f"A flat field belongs to one channel; say with --channel to which: {', '.join(names)}."
        )
    return names[0]


def _acquire(
    config: RigConfig,
    channel: str,
    wanted: list[str],
    n: int,
    exposure_ms: float | None,
    dark_preset: str | None,
    ask: Console | None,
) -> dict[str, Any]:
    """Take the stacks that are wanted with the rig's camera, whole chip."""
    from livesr.base.config import CorrectionsConfig
    from livesr.cli.experiment import Experiment
    from livesr.cli.session import Request, load_core
    from livesr.evaluation.camera_frames import CameraFrames

    # The camera as it is: what was measured before must not stand in the way.
    config = config.with_engine("none").model_copy(update={"corrections": CorrectionsConfig()})
    camera = CameraFrames(
        load_core(Request(rig=config, experiment=Experiment(frames=1), exposure_ms=exposure_ms)),
        config,
        channel,
    )
    taken: dict[str, Any] = {}
    try:
        for what in wanted:
            if ask:
                need = (
                    "no light on the camera"
                    if what == "dark"
                    else f"an even fluorescent layer, channel {channel!r}"
                )
                _ask(ask, f"{what}: {need}? Enter takes {n} frames. ")
            taken[what] = (
                camera.dark(n, dark_preset) if what == "dark" else camera.light(n, channel)
            )
    finally:
        camera.close()
    return taken


def _ask(console: Console, question: str) -> None:
    from livesr.base.errors import ConfigError

    try:
        console.input(question)
    except EOFError:
        raise ConfigError(
            "Nobody is there to answer: run it in a terminal, or with --yes when all is ready."
        ) from None


def _draw(
    found: Any, picture: Path | None, folder: Path | None, title: str, report: dict[str, Any]
) -> str | None:
    from livesr.base.errors import ConfigError
    from livesr.evaluation import camera_files

    path = picture or (folder / camera_files.PICTURE if folder else None)
    if path is None:
        return None
    try:
        camera_files.draw(found, path, title)
    except ConfigError as e:
        if picture:
            raise
        report["warnings"].append(str(e))
        return None
    return str(path)


def _table(report: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "offset",
        f"{report['offset_adu']:.2f} ADU, differs by {report['offset_spread_adu']:.2f} ADU from"
        " pixel to pixel",
    )
    if "gain_e_per_adu" in report:
        table.add_row(
            "gain",
            f"{report['gain_e_per_adu']:.4f} e/ADU, points within {report['gain_deviation']:.1%} of"
            " the line",
        )
        table.add_row(
            "read noise",
            f"{report['read_noise_e']:.2f} e median, {report['read_noise_rms_e']:.2f} e rms",
        )
    else:
        table.add_row(
            "read noise",
            f"{report['read_noise_adu']:.2f} ADU median; light stacks would give electrons",
        )
    reasons = ", ".join(f"{n} {reason}" for reason, n in report["bad_by_reason"].items())
    table.add_row("bad pixels", f"{report['bad_pixels']} ({reasons})")
    if "flat" in report:
        table.add_row(
            "flat field", f"{report['flat'][0]:.2f} to {report['flat'][1]:.2f} of its mean"
        )
    for path in [*report["files"], *([report["picture"]] if report["picture"] else [])]:
        table.add_row("written", escape(path))
    for warning in report["warnings"]:
        table.add_row("warning", f"[yellow]{escape(warning)}[/]")
    return table
