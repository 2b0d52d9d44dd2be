"""`livesr calibrate RIG|RAW`: measure what a rig's modality needs to know of its optics in raw
frames, and write it into rig.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
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
    from livesr.base.geometry import Geometry
    from livesr.modalities.calibrator import CalibrationTable, Calibrator
    from livesr.store.raw_input import ReadAs

_PICTURE = "calibration.png"
_LARGEST_BEAD_NM = 1e5
_LEAST_STEP_NM = 0.1


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(calibrate)


def _step(nm: float | None) -> float | None:
    """Refuse planes that are not apart."""
    if options.finite(nm) is not None and abs(nm or 0.0) < _LEAST_STEP_NM:
        raise typer.BadParameter(f"{nm:g} came; planes are at least {_LEAST_STEP_NM} nm apart.")
    return nm


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
        str | None,
        typer.Option(
            metavar="NM|STACK",
            help="SIM: the sample is beads of this diameter, take the OTF from them. STORM: a stack"
            " of beads behind the cylindrical lens, with --z-step.",
        ),
    ] = None,
    z_step: Annotated[
        float | None,
        typer.Option(
            min=-1e4,
            max=1e4,
            callback=_step,
            metavar="NM",
            help="Between the planes of a stack of beads; negative where focus rises from one to"
            " the next.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            callback=options.to_write,
            help="PNG to write, instead of calibration.png beside rig.yaml.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and print; change no file.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Measure what rig.yaml says of the optics, and write it there; comments stay.

    SIM: order, vectors, phases and modulation of the patterns, and the OTF; use a bright, thin,
    still sample with detail everywhere, on the whole chip. STORM: the cylindrical lens, from a
    stack of beads. Fluctuations: radius and sensitivity of eSRRF.

    [dim]Example:[/] livesr calibrate my_rig --channel 488
    """
    from livesr.base.config import load_rig
    from livesr.base.errors import ConfigError
    from livesr.modalities.calibrator import CalibrationSettings
    from livesr.store.raw_input import ReadAs

    out = console(quiet=as_json)
    if not dry_run and (beside := source if _is_rig(source) else rig) is not None:
        options.check_beside(load_rig(beside).folder)
    diameter_nm, stack = _beads(beads)
    how = ReadAs(axes, channel, pixel_size, origin)
    if z_step is not None:
        stack = stack or (None if _is_rig(source) else Path(source))
        rig = source if _is_rig(source) else rig
        if stack is None or rig is None:
            raise ConfigError(
                "--z-step is of a stack of beads: livesr calibrate RIG --beads STACK.tif --z-step"
                " 25."
            )
        taken = _read_stack(stack, rig, channel, how)
    elif stack is not None:
        raise ConfigError(
            f"--beads {beads} names a stack: give --z-step, the nm between its planes."
        )
    elif _is_rig(source):
        taken = _acquired(source, channel, groups, exposure)
    else:
        taken = _read(Path(source), rig, channel, groups, how)
    settings = CalibrationSettings(
        keep_order, keep_otf, diameter_nm, z_step, taken.state, taken.plane
    )
    with out.status("measuring") if not as_json else nullcontext():
        found = taken.calibrator.calibrate(taken.channel, taken.camera, taken.raw, settings)
    report = {**found.report(), "files": []}
    report["warnings"] = [*taken.notes, *report["warnings"]]
    file = _rig_file(source if _is_rig(source) else rig, taken.rig)
    if not dry_run and file:
        found.save(file)
        report["files"].append(str(file))
    target = picture or (file.with_name(_PICTURE) if file and not dry_run else None)
    if target:
        found.draw(target)
        report["files"].append(str(target))
    _print(out, found.table(), report)
    if as_json:
        print_json(report)


def _beads(given: str | None) -> tuple[float | None, Path | None]:
    """Return diameter in nm or a stack, whichever `given` is."""
    from livesr.base.errors import ConfigError

    if given is None:
        return None, None
    try:
        diameter_nm = float(given)
    except ValueError:
        if not Path(given).exists():
            raise ConfigError(
                f"--beads {given} is neither a diameter in nm nor a stack of beads that is there."
            ) from None
        return None, Path(given)
    if not 0 <= diameter_nm <= _LARGEST_BEAD_NM:
        raise ConfigError(
            f"--beads {given}: expected a diameter from 0 to {_LARGEST_BEAD_NM:g} nm."
        )
    return diameter_nm, None


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


@dataclass(frozen=True, slots=True)
class _Taken:
    """Raw groups and what they are calibrated with.

    Attributes
    ----------
    rig, channel, camera : whose they are
    calibrator : of the modality that reconstructs the channel
    raw : (t, n, y, x) as the camera gave them
    state : (device, property, value) of the optics, where they were acquired
    plane : which plane they are of, and how many there are
    notes : what a user should know of the recording
    """

    rig: RigConfig
    channel: str
    camera: Geometry
    calibrator: Calibrator
    raw: NDArray[Any]
    state: Sequence[tuple[str, str, str]] = ()
    plane: tuple[int, int] = (0, 1)
    notes: tuple[str, ...] = ()


def _channel(config: RigConfig, channel: str | None) -> tuple[str, Calibrator]:
    """Return the channel that is meant, and what calibrates it."""
    from livesr.base.errors import ConfigError
    from livesr.modalities.registry import modality

    ways = {n: modality(config.modality_of(n)) for n in config.channels or [""]}
    if channel is not None:
        _whole_groups(config, channel)
        way = modality(config.modality_of(channel))
        if (calibrator := way.calibrator(config)) is None:
            raise ConfigError(
                f"Channel {channel!r} is reconstructed as {way.title}: there is nothing to"
                " calibrate."
            )
        return channel, calibrator
    found = {n: c for n, way in ways.items() if (c := way.calibrator(config)) is not None}
    if not found:
        titles = ", ".join(dict.fromkeys(way.title for way in ways.values()))
        raise ConfigError(
            f"Rig {config.name!r} reconstructs {titles}: there is nothing to calibrate."
        )
    if len(found) > 1:
        raise ConfigError(
            "Each channel is calibrated by itself; say with --channel which to calibrate:"
            f" {', '.join(found)}."
        )
    name, calibrator = next(iter(found.items()))
    _whole_groups(config, name)
    return name, calibrator


def _whole_groups(config: RigConfig, channel: str) -> None:
    """Refuse a channel that exposes too little to be measured.

    Raises
    ------
    ConfigError
        With what to change for a calibration.
    """
    from livesr.base.errors import ConfigError

    if not config.exposes_all(channel):
        raise ConfigError(
            f"Channel {channel or 'default'} exposes {', '.join(config.raw_labels(channel))}, and"
            " patterns are measured in whole groups: for the calibration leave out"
            " 'reconstruct.frames', and let the display show all patterns."
        )


def _acquired(rig: str, channel: str | None, groups: int, exposure_ms: float | None) -> _Taken:
    """Acquire groups on the rig: they are kept in memory, nothing is stored."""
    from livesr.base.config import load_rig
    from livesr.base.errors import ConfigError
    from livesr.cli.experiment import Experiment
    from livesr.cli.session import Request, load_core
    from livesr.evaluation.camera_frames import groups_of, take_groups
    from livesr.live.camera import camera_geometry, channel_settings
    from livesr.live.optical_state import of_other_cameras, optical_state
    from livesr.modalities.registry import modality

    config = load_rig(rig).with_engine("none")
    name, calibrator = _channel(config, channel)
    if calibrator.needs_stack:
        raise ConfigError(
            f"Rig {config.name!r} is calibrated with a stack of beads: livesr calibrate {rig}"
            " --beads STACK.tif --z-step 25 (nm between its planes)."
        )
    known = modality(config.modality_of(name)).calibrated_with(config.section(name))
    core = load_core(Request(rig=config, experiment=Experiment(frames=1), exposure_ms=exposure_ms))
    try:
        camera = camera_geometry(core, calibrator.uncalibrated(), name)
        state = optical_state(core, channel_settings(core, config, name), camera.camera)
        state += of_other_cameras(core, known, camera.camera)
        frames = take_groups(core, config, name, groups)
    finally:
        core.unloadAllDevices()
    raw = groups_of(frames, name, config.raw_frames(name), groups)
    return _Taken(config, name, camera, calibrator, raw, state)


def _read(path: Path, rig: str | None, channel: str | None, groups: int, how: ReadAs) -> _Taken:
    """Read groups of a recording, of the plane in focus."""
    from livesr.base.config import load_rig
    from livesr.evaluation.camera_frames import groups_of
    from livesr.store.raw_input import raw_input

    config = load_rig(rig) if rig else None
    source = raw_input(path, config, how=how)
    with closing(source):
        name, calibrator = _channel(source.rig, channel)
        camera, planes = source.cameras[name], int(source.run.get("z_planes", 1))
        z = calibrator.plane_in_focus(source.frames(), name, camera, planes) if planes > 1 else None
        raw = groups_of(source.frames(), name, source.rig.raw_frames(name), groups, z)
        notes = (*source.notes, *source.remarks())
        if config is not None:
            name, calibrator = _channel(config, name)
        return _Taken(
            config or source.rig,
            name,
            camera,
            calibrator,
            raw,
            plane=(z or 0, planes),
            notes=notes,
        )


def _read_stack(path: Path, rig: str, channel: str | None, how: ReadAs) -> _Taken:
    """Read every plane of a recording, in order."""
    import numpy as np

    from livesr.base.config import load_rig
    from livesr.base.errors import CalibrationError
    from livesr.store.raw_input import raw_input

    config = load_rig(rig)
    name, calibrator = _channel(config, channel)
    with closing(raw_input(path, calibrator.uncalibrated(), how=how)) as source:
        frames = [frame for frame in source.frames() if frame.stream.channel == name]
        if not frames:
            raise CalibrationError(f"{path} has no frame of channel {name!r}.")
        frames.sort(key=lambda frame: (frame.t, frame.stream.z, frame.raw))
        raw = np.stack([frame.pixels for frame in frames])[:, None]
        camera = source.cameras[name]
        return _Taken(config, name, camera, calibrator, raw, notes=tuple(source.notes))


def _print(out: Any, shown: CalibrationTable, report: dict[str, Any]) -> None:
    table = Table(
        title=f"Channel {report['channel'] or 'default'}, {report['time_points']} time points",
        title_justify="left",
    )
    for title in shown.columns:
        table.add_column(title, justify="right")
    for row in shown.rows:
        table.add_row(*map(escape, row))
    out.print(table)
    out.print(escape(shown.summary))
    for path in report["files"]:
        out.print(f"written: [bold]{escape(path)}[/]")
    for warning in report["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")
