"""One acquisition from the command line: core, plan, live separation, progress, Ctrl-C, report.

Owns what `livesr run` and `livesr demo` share. Decides nothing about rigs or engines.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, parse
from livesr.base.documents import read_text
from livesr.base.errors import ConfigError, LiveSRError, RunError
from livesr.base.frames import MulticolorFrame
from livesr.base.run_config import RunConfig
from livesr.cli.experiment import Experiment, Extent, check_stages, extent, plan_of
from livesr.cli.output import Lines
from livesr.live.run_state import Status
from livesr.live.sinks.capacity import free_bytes

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

    from livesr.cli.view import RunPreview
    from livesr.live.plugin import LiveSR
    from livesr.live.sources.replay import Rate
    from livesr.store.raw_input import ReadAs
    from livesr.store.replay import Replay


@dataclass(frozen=True, slots=True)
class Request:
    """What the flags of a run say.

    Attributes
    ----------
    settings : how it is computed, what is kept and shown
    engine, upscale : instead of rig.yaml's
    sinks : names of sinks of other packages
    exposure_ms : of one raw frame, instead of rig.yaml's
    page : the preview, which outlives the run; None without one
    progress_lines : whether progress is JSON on stderr instead of a bar
    on_frame : called with every final frame
    properties : of devices, set before they are initialised
    """

    rig: RigConfig
    experiment: Experiment
    settings: RunConfig = field(default_factory=RunConfig)
    engine: str | None = None
    upscale: str | None = None
    sinks: tuple[str, ...] = ()
    exposure_ms: float | None = None
    page: RunPreview | None = None
    progress_lines: bool = False
    on_frame: Callable[[MulticolorFrame], None] | None = None
    properties: dict[str, str] = field(default_factory=dict)


def settings_of(compute: ComputeConfig, *, view: bool, **said: Any) -> RunConfig:
    """Return the settings of a run; a preview needs an address whether one is asked for or not.

    Raises
    ------
    ConfigError
        If they contradict each other.
    """
    said["publish"] = said["publish"] or ("tcp://127.0.0.1:*" if view else None)
    return parse(RunConfig, {**vars(compute), **said}, "The command line")


def load_core(request: Request) -> CMMCorePlus:
    """Load the rig's Micro-Manager configuration into a core of the kind it needs.

    Raises
    ------
    UsageError
        If Micro-Manager refuses the configuration, or, before any device moves, if it, an engine or
        a correction map is not there.
    """
    from livesr.live.core_end import detach_at_exit
    from livesr.live.sources.patience import wait_for_exposures
    from livesr.live.sources.triggered import follow_trigger

    if not request.rig.cfg_path.is_file():
        raise ConfigError(
            f"{request.rig.folder / 'rig.yaml'} names {request.rig.micromanager!r}, which is not"
            " beside it: put Micro-Manager's configuration there. Only recordings do without."
        )
    _check_files(request)
    if request.rig.core == "unicore":
        from pymmcore_plus.experimental.unicore import UniMMCore as Core
    else:
        from pymmcore_plus import CMMCorePlus as Core  # type: ignore[assignment]
    # Importing pymmcore-plus sets the root logger to DEBUG: every library would then build records
    # that nobody reads.
    logging.getLogger().setLevel(logging.WARNING)
    _leave_out_what_is_said_here()
    try:
        core = detach_at_exit(Core())
        _check_adapters(core, request.rig.cfg_path)
        with _configuration(request) as cfg, _why_devices_fail() as why:
            core.loadSystemConfiguration(cfg)
        core.setExposure(request.exposure_ms or request.rig.exposure_ms)
        follow_trigger(core, request.rig)
        wait_for_exposures(core, core.getExposure())
    except (LiveSRError, MemoryError):
        raise
    except Exception as e:  # whatever a device adapter raises while it starts
        reason = " ".join(str(e).split()) or type(e).__name__
        raise ConfigError(
            f"Micro-Manager cannot load {request.rig.cfg_path}: {reason} Check that the device it"
            " names is on and connected, its maker's driver installed, and that no other program"
            " has it."
        ) from e
    _check_devices(core, why)
    return core


def _leave_out_what_is_said_here() -> None:
    """Keep pymmcore-plus's line about a cancelled acquisition, which the report tells, out of the
    terminal; its log file keeps it.
    """
    for handler in logging.getLogger("pymmcore-plus").handlers:
        if not isinstance(handler, logging.FileHandler) and not handler.filters:
            handler.addFilter(lambda record: not str(record.msg).startswith("MDA Canceled"))


def _check_adapters(core: CMMCorePlus, cfg: Path) -> None:
    """Refuse a rig.cfg that names libraries which this Micro-Manager does not have.

    Raises
    ------
    ConfigError
        With every such library, the devices that need it, where it was looked for, and what to do.
    """
    here = set(core.getDeviceAdapterNames())
    wanted: dict[str, list[str]] = {}
    for line in read_text(cfg, errors="surrogateescape").splitlines():
        command, *parts = (part.strip() for part in line.split(","))
        if command == "Device" and len(parts) == 3 and parts[1] not in here:
            wanted.setdefault(parts[1], []).append(f"{parts[0]} ({parts[2]})")
    if not wanted:
        return
    folders = ", ".join(core.getDeviceAdapterSearchPaths()) or "no folder"
    named = "; ".join(f"{name!r}, for {', '.join(devices)}" for name, devices in wanted.items())
    plural = len(wanted) > 1
    raise ConfigError(
        f"{cfg} needs {'libraries' if plural else 'a library'} that"
        f" {'are' if plural else 'is'} not in this Micro-Manager: {named}."
        f" Looked in {folders}, which has {len(here)}; {core.getAPIVersionInfo()}."
        f" {_where_adapters_come_from()} 'mmcore list' shows what is here, 'mmcore use' chooses."
        f"{_test_adapters(wanted)}"
    )


def _where_adapters_come_from() -> str:
    import platform

    if platform.system() == "Windows" or (platform.system(), platform.machine()) == (
        "Darwin",
        "x86_64",
    ):
        return "'mmcore install' fetches what Micro-Manager publishes for this system."
    return (
        "Micro-Manager publishes adapters for Windows and Intel Macs alone, where 'mmcore install'"
        " fetches them; here 'mmcore build-dev' compiles those whose source is open."
    )


def _test_adapters(wanted: Mapping[str, object]) -> str:
    demo = {"DemoCamera", "Utilities", "SequenceTester", "NotificationTester"}
    if not demo & wanted.keys():
        return ""
    return " The demo devices come with pip install 'livesr[demo]'."


@contextmanager
def _why_devices_fail() -> Iterator[list[str]]:
    """Collect, in sentences, why devices in Python fail to start: only a log record says so."""
    reasons: list[str] = []

    class Reasons(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and (error := record.exc_info[1]):
                reason = " ".join(str(error).split()) or type(error).__name__
                reasons.append(f"{reason.rstrip('.')}.")

    host, listening = logging.getLogger("pymmcore_plus"), Reasons(logging.ERROR)
    host.addHandler(listening)
    try:
        yield reasons
    finally:
        host.removeHandler(listening)


def _check_devices(core: CMMCorePlus, why: Sequence[str]) -> None:
    """Refuse a core with a device that failed to start; `why` is what was said of it."""
    from pymmcore_plus import DeviceInitializationState, Keyword

    failed = [
        device
        for device in core.getLoadedDevices()
        if device != str(Keyword.CoreDevice)
        and core.getDeviceInitializationState(device)
        == DeviceInitializationState.InitializationFailed
    ]
    if failed:
        reasons = " ".join(why) or "no reason was given."
        raise ConfigError(
            f"{', '.join(failed)} could not be started: {reasons} Check the device's properties in"
            " rig.cfg, and that it is on."
        )


def _check_files(request: Request) -> None:
    """Read engines and correction maps, look for the backend, for addresses and folders.

    A typo must not cost the start of a microscope.
    """
    from livesr.live.correct import check_maps
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.runner import check_named
    from livesr.live.session import check_places

    rig = request.rig.with_engines({"separate": request.engine, "upscale": request.upscale})
    check_maps(rig)
    used = [rig.channel(name) for name in rig.channels] + ([rig.superposed] if rig.sums else [])
    for channel in used:
        for engine in channel.engines.values():
            load_engine(engine)
    check_named(request.settings)
    check_places(request.settings, request.sinks)


@contextmanager
def _configuration(request: Request) -> Iterator[Path]:
    """Give the configuration to load.

    The rig's own, or a passing copy in which pre-init properties are replaced.
    """
    if not request.properties:
        yield request.rig.cfg_path
        return
    import tempfile

    as_it_is = "surrogateescape"  # Micro-Manager writes labels in the encoding of its computer
    there: set[str] = set()
    lines = read_text(request.rig.cfg_path, errors=as_it_is).split("\n")
    for i, line in enumerate(lines):
        parts = line.removeprefix("#py ").split(",")
        if parts[0] == "Property" and len(parts) == 4 and parts[2] in request.properties:
            lines[i] = line.rpartition(",")[0] + "," + request.properties[parts[2]]
            there.add(parts[2])
    if lacking := sorted(request.properties.keys() - there):
        raise ConfigError(
            f"{request.rig.cfg_path} sets no property {', '.join(lacking)}, which the run is to"
            " have otherwise: only the cameras of virtual rigs have it."
        )
    with tempfile.TemporaryDirectory(prefix="livesr-") as folder:
        copy = Path(folder) / request.rig.cfg_path.name
        copy.write_text("\n".join(lines), encoding="utf-8", errors=as_it_is)
        yield copy


def acquire(request: Request, core: CMMCorePlus, console: Console) -> dict[str, Any]:
    """Run the acquisition and return its report.

    The first Ctrl-C ends it cleanly, the second at once.

    Raises
    ------
    LiveSRError
        If it cannot start. A run that had to end early returns its report, with ``error`` and
        ``exit_code`` in it.
    """
    from livesr.live.plugin import LiveSR
    from livesr.live.sources.patience import wait_for_exposures

    exposure_ms = request.exposure_ms or request.rig.exposure_ms
    plan = plan_of(request.experiment, request.rig, exposure_ms, core)
    check_stages(plan, core)
    wait_for_exposures(core, max([exposure_ms, *(c.exposure or 0 for c in plan.plan.channels)]))
    planned = extent(plan, request.rig, exposure_ms)
    if request.rig.core == "unicore":
        from livesr.simulation.camera import prepare_virtual_camera

        prepare_virtual_camera(core, planned.exposures)
    session = LiveSR(
        core,
        rig=request.rig,
        engine=request.engine,
        upscale=request.upscale,
        sinks=request.sinks,
        plan=plan,
        **vars(request.settings),
    )
    work = _Work(
        lambda: core.mda.run(plan),
        core.mda.cancel,
        lambda: _announce(planned, session, console),
        planned.groups // planned.channels if request.rig.sums else planned.groups,
    )
    return _conduct(session, request, console, work)


def replay(
    request: Request, recording: Path, how: ReadAs, rate: Rate, console: Console
) -> dict[str, Any]:
    """Run a recording as `acquire` runs a camera; no core is loaded.

    Raises
    ------
    LiveSRError
        As `acquire`.
    """
    from livesr.store.replay import Replay

    _check_files(request)
    session = Replay(
        recording,
        rig=request.rig,
        engine=request.engine,
        upscale=request.upscale,
        sinks=request.sinks,
        rate=rate,
        frames=request.experiment.frames,
        how=how,
        **vars(request.settings),
    )

    def announce() -> None:
        per_s = rate / session.rig.max_raw_frames if isinstance(rate, float) else None
        console.print(*session.promises(per_s), sep="\n")

    work = _Work(session.run, session.stop, announce, session.frames)
    return _conduct(session, request, console, work)


class _Work(NamedTuple):
    """What is done inside a session: how it begins, what ends it early, what is said before, and
    how many frames there will be.
    """

    run: Callable[[], object]
    cancel: Callable[[], object]
    announce: Callable[[], None]
    frames: int


def _conduct(
    session: LiveSR | Replay, request: Request, console: Console, work: _Work
) -> dict[str, Any]:
    """Do the work inside the session; return the report."""
    if request.on_frame:
        session.frame_ready.connect(request.on_frame)
    interrupted = False
    try:
        with session:
            if request.page:
                request.page.begin(session.endpoint, request.settings.keys)
            work.announce()
            interrupted = _work_and_watch(work, session, console, request.progress_lines)
    except RunError as e:
        console.print(escape(str(e)), style="red")
    except KeyboardInterrupt:  # the second: what came is stored, and said
        if not session.report:
            raise
        interrupted = True
    _hand_out(session, console)
    interrupted = interrupted or session.interrupted
    code = session.error.exit_code if session.error else 130 if interrupted else 0
    error = str(session.error) if session.error else None
    return {**session.report, "error": error, "interrupted": interrupted, "exit_code": code}


def _hand_out(session: LiveSR | Replay, console: Console) -> None:
    """Wait while another computer fetches raw groups of the run that has ended."""
    if session.handed_out():
        return
    console.print(
        "The run has ended, and another computer still fetches raw frames of it. Ctrl-C leaves"
        " them to the store."
    )
    with suppress(KeyboardInterrupt):
        while not session.handed_out(0.2):
            pass


def _announce(planned: Extent, session: LiveSR, console: Console) -> None:
    """Say what is about to happen, and what it takes."""
    nbytes = session.store_bytes(planned.time_points)
    console.print(planned.sentence(nbytes))
    for line in session.promises(planned.groups / planned.seconds):
        console.print(line)
    for warning in session.status().get("warnings", ()):
        console.print(escape(warning), style="yellow")
    if nbytes and session.store and nbytes > (free := free_bytes(session.store)):
        console.print(
            f"The disk has {free / 1e9:.3g} GB: unless compression makes up for the rest, the run"
            " ends when it is full.",
            style="yellow",
        )


def _work_and_watch(work: _Work, session: LiveSR | Replay, console: Console, lines: bool) -> bool:
    """Work in a thread, show progress here; return whether Ctrl-C ended it."""
    failure: list[Exception] = []
    over = threading.Event()
    from livesr.live.sources.patience import ended_by_itself

    def guarded() -> None:
        try:
            work.run()
        except Exception as e:  # an acquisition engine raises whatever a driver raises
            failure.append(e)
        finally:
            over.set()

    acquisition = threading.Thread(target=guarded, name="acquisition", daemon=True)
    acquisition.start()
    interrupted = False
    with _lines(work.frames) if lines else _bar(console, work.frames) as show:
        while not over.is_set():
            try:
                over.wait(0.2)
                if status := session.status():
                    show(status)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                console.print(
                    "Stopping: what was acquired is being finished. Ctrl-C again abandons it."
                )
                work.cancel()
    if failure and session.error is None:  # before the session is left: the report must say it
        session.fail(ended_by_itself(failure[0]))
    return interrupted


@contextmanager
def _lines(frames: int) -> Iterator[Callable[[Status], None]]:
    """Give what writes a status as JSON on stderr."""
    lines = Lines("SR frames")
    lines.show(0, frames)  # before the first status, that a script knows it has begun
    facts = ("raw_frames", "sr_frames", "sr_skipped", "groups_dropped", "sr_fps")
    yield lambda status: lines.show(
        _done(status),
        frames,
        latency_ms=status["latency_ms"]["p50"],
        **{name: status[name] for name in facts},  # type: ignore[literal-required]
    )


@contextmanager
def _bar(console: Console, frames: int) -> Iterator[Callable[[Status], None]]:
    """Give what moves a bar."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.completed:.0f}{task.fields[of]} SR frames"),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        of = f" of {frames}" if frames else ""  # of a run elsewhere nobody knows
        task = progress.add_task("", total=frames or None, pace="", of=of)
        yield lambda status: progress.update(task, completed=_done(status), pace=_pace(status))


def _done(status: Status) -> int:
    return (
        status["sr_frames"] + status["sr_skipped"] if status["engine"] else status["recon_frames"]
    )


def _pace(status: Status) -> str:
    if not status["engine"]:
        return "measured, not separated"
    latency_ms = status["latency_ms"]["p50"]
    age = "" if latency_ms is None else f", latency {latency_ms:.0f} ms"
    return f"{status['sr_fps']:.1f} frames/s{age}"
