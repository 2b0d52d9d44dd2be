"""`livesr calibrate RIG|RAW`: find the patterns of a SIM rig in raw frames, and write them into
rig.yaml.
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from livesr.base.config import RigConfig
    from livesr.live.paths import Geometry


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(calibrate)


def calibrate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RIG|RAW",
            help="Rig to acquire on, or raw frames: a store, TIFF, MRC, NDTiff ...",
        ),
    ],
    rig: Annotated[
        str | None,
        typer.Option(help="RAW: rig.yaml, its folder or a name; a store brings its own."),
    ] = None,
    channel: options.Channel = None,
    groups: Annotated[
        int, typer.Option(min=1, max=10_000, help="Time points to pool; more find dimmer patterns.")
    ] = 5,
    exposure: options.Exposure = None,
    axes: options.Axes = None,
    pixel_size: options.PixelSize = None,
    origin: options.Origin = None,
    keep_order: Annotated[
        bool, typer.Option("--keep-order", help="Do not look for another order of raw frames.")
    ] = False,
    keep_otf: Annotated[
        bool, typer.Option("--keep-otf", help="Do not estimate the OTF's damping.")
    ] = False,
    beads: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1e5,
            callback=options.finite,
            metavar="NM",
            help="The sample is beads of this diameter: take the OTF from them.",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG to write, instead of calibration.png beside rig.yaml.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and print; change no file.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Find order, vectors, phases and modulation of the SIM patterns and the OTF.

    Write them into rig.yaml.

    Use a bright, thin, still sample with detail everywhere, on the whole chip. Comments in rig.yaml
    stay.

    [dim]Example:[/] livesr calibrate my_rig --channel 488
    """
    from livesr.modalities.sim.calibration.channel import PICTURE, calibrate_channel

    out = console(quiet=as_json)
    plane = (0, 1)
    if _is_rig(source):
        config, name, camera, raw, state = _acquired(source, channel, groups, exposure)
        notes: tuple[str, ...] = ()
    else:
        config, name, camera, raw, plane, notes = _read(
            Path(source), rig, channel, groups, axes, pixel_size, origin
        )
        state = []
    with out.status("measuring") if not as_json else nullcontext():
        found = calibrate_channel(
            config,
            name,
            camera,
            raw,
            keep_order=keep_order,
            keep_otf=keep_otf,
            beads_nm=beads,
            state=state,
            plane=plane,
        )
    report = {**found.report(), "files": []}
    report["warnings"] = [*notes, *report["warnings"]]
    file = _rig_file(source if _is_rig(source) else rig, config)
    if not dry_run and file:
        found.save(file)
        report["files"].append(str(file))
    target = picture or (file.with_name(PICTURE) if file and not dry_run else None)
    if target:
        found.draw(target)
        report["files"].append(str(target))
    _print(out, report)
    if as_json:
        print_json(report)


def _is_rig(source: str) -> bool:
    path = Path(source)
    if path.is_dir():
        return (path / "rig.yaml").is_file()
    return not path.exists() or path.suffix in {".yaml", ".yml"}


def _rig_file(rig: str | None, config: RigConfig) -> Path | None:
    """Return the file to change; a store's own copy of it is a record and stays."""
    if rig is None:
        return None
    return Path(rig) if Path(rig).is_file() else config.folder / "rig.yaml"


def _channel(config: RigConfig, channel: str | None) -> str:
    """Return the SIM channel that is meant."""
    from livesr.base.errors import ConfigError

    names = [n for n in config.channels or [""] if config.channel(n).reconstruct == "sim"]
    if channel is not None:
        if config.channel(channel).reconstruct != "sim":
            raise ConfigError(
                f"Channel {channel!r} is not reconstructed by SIM: there is nothing to calibrate."
            )
        return channel
    if len(names) != 1:
        raise ConfigError(
            "Each channel has patterns of its own; say with --channel which to calibrate:"
            f" {', '.join(names) or 'no SIM'}."
        )
    return names[0]


def _acquired(
    rig: str, channel: str | None, groups: int, exposure_ms: float | None
) -> tuple[RigConfig, str, Geometry, NDArray[Any], list[tuple[str, str, str]]]:
    """Acquire groups on the rig: they are kept in memory, nothing is stored."""
    from livesr.base.config import load_rig
    from livesr.cli.experiment import Experiment
    from livesr.cli.session import Request, load_core
    from livesr.evaluation.camera_frames import take_groups
    from livesr.modalities.sim.calibration.channel import groups_of
    from livesr.live.camera import camera_geometry, channel_settings
    from livesr.live.optical_state import of_other_cameras, optical_state

    config = load_rig(rig).with_engine("none")
    name = _channel(config, channel)
    n_raw = config.raw_frames(name)
    core = load_core(Request(rig=config, experiment=Experiment(frames=1), exposure_ms=exposure_ms))
    try:
        uncalibrated = config.sim.model_copy(update={"calibrated_with": []}) if config.sim else None
        camera = camera_geometry(core, config.model_copy(update={"sim": uncalibrated}), name)
        state = optical_state(core, channel_settings(core, config, name), camera.camera)
        state += of_other_cameras(
            core, config.sim.calibrated_with if config.sim else (), camera.camera
        )
        frames = take_groups(core, config, name, groups)
    finally:
        core.unloadAllDevices()
    return config, name, camera, groups_of(frames, name, n_raw, groups), state


def _read(
    path: Path,
    rig: str | None,
    channel: str | None,
    groups: int,
    axes: str | None,
    pixel_size_nm: float | None,
    origin: Any,
) -> tuple[RigConfig, str, Geometry, NDArray[Any], tuple[int, int], tuple[str, ...]]:
    """Read groups of a recording, of the plane in focus.

    Returns
    -------
    The rig, the channel, its camera, its frames, (plane, number of planes), and what a user should
    know of the recording.
    """
    from livesr.base.config import load_rig
    from livesr.modalities.sim.calibration.channel import groups_of, plane_in_focus
    from livesr.store.raw_input import ReadAs, raw_input

    config = load_rig(rig) if rig else None
    raw = raw_input(path, config, how=ReadAs(axes, channel, pixel_size_nm, origin))
    with closing(raw):
        name = _channel(raw.rig, channel)
        camera, planes = raw.cameras[name], int(raw.run.get("z_planes", 1))
        z = plane_in_focus(raw.frames(), raw.rig, name, camera, planes) if planes > 1 else None
        frames = groups_of(raw.frames(), name, raw.rig.raw_frames(name), groups, z)
        notes = (*raw.notes, *raw.remarks())
        return raw.rig if config is None else config, name, camera, frames, (z or 0, planes), notes


def _print(out: Any, report: dict[str, Any]) -> None:
    table = Table(
        title=f"Channel {report['channel'] or 'default'}, {report['time_points']} time points",
        title_justify="left",
    )
    for title in (
        "angle",
        "period nm",
        "direction",
        "modulation",
        "phase rad",
        "peak",
        "contrast / noise",
    ):
        table.add_column(title, justify="right")
    for i, a in enumerate(report["angles"]):
        waves = [a, *a.get("overtones", [])]
        table.add_row(
            str(i),
            f"{a['period_nm']:.1f}",
            f"{a['direction_deg']:.1f}°",
            ", ".join(f"{w['modulation']:.2f}" for w in waves),
            ", ".join(f"{w['phase_rad']:.2f}" for w in waves),
            f"{a['peak']:.0f}",
            f"{a['contrast_to_noise']:.0f}",
        )
    out.print(table)
    changed = " [yellow](rig.yaml said otherwise)[/]" if report["order_changed"] else ""
    out.print(f"order {escape(str(report['order']))}{changed}, OTF damping {report['damping']:.2f}")
    for path in report["files"]:
        out.print(f"written: [bold]{escape(path)}[/]")
    for warning in report["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")
