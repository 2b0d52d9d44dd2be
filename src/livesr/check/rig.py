"""rig.yaml beside its rig.cfg: schema, optics, patterns, corrections, engines.

Owns what is plausible. Loads no device; an engine that did not come with livesr is tried out in a
process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from livesr.base import error_bars
from livesr.base.config import RigConfig, load_yaml, parse
from livesr.base.error_bars import load_error_bars
from livesr.base.errors import BackendError, ConfigError, EngineError, suggestion
from livesr.base.rig_limits import FILE, load_rig_limits
from livesr.base.taken_with import SILENT
from livesr.check.finding import Finding, Found, Level, Lines
from livesr.check.micromanager import Configuration, check_configuration, external_trigger
from livesr.modalities.registry import modalities_of, modality
from livesr.simulation.sequence import simulating_rig

if TYPE_CHECKING:
    from livesr.live.inference.engine import Task

_AGAIN = "Measure them again with 'livesr {}' when optics, cells or stains change."
_NOT_REFUSED = "no recording is refused for it."
_TRIED_PX = 32  # half a side of what an engine is tried out with


def check_rig(path: Path) -> list[Finding]:
    """Check a rig.yaml and everything that it names; errors first, then in the order of the files.

    Raises
    ------
    ConfigError
        If there is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"There is no {path}: give a rig.yaml, its folder, or the name of a rig.")
    lines = Lines(path)

    def found(level: Level, code: str, place: str, says: str, advice: str) -> Finding:
        return Finding(level, code, says, advice, path, lines.of(place))

    try:
        rig = parse(RigConfig, {**load_yaml(path), "folder": path.resolve().parent}, path.name)
    except ConfigError as e:
        return [_schema(e, path, lines)]
    findings = [
        *_modality(rig, found),
        *_optics(rig, found),
        *(each for kind, _ in modalities_of(rig) for each in kind.check(rig, found)),
        *_corrections(rig, found),
        *_engines(rig, found),
        *_limits(rig, found),
        *_error_bars(rig),
    ]
    if rig.cfg_path.is_file():
        cfg = Configuration(rig.cfg_path)
        findings += [
            *_beside(rig, cfg, found),
            *_pixel_size(rig, cfg, found),
            *_cameras(rig, cfg, found),
        ]
        findings += [
            *_timing(rig, cfg, found),
            *check_configuration(cfg, unicore=rig.core == "unicore"),
        ]
    else:
        findings.append(
            found(
                "error",
                "no-cfg",
                "micromanager",
                f"{rig.micromanager!r} is not beside rig.yaml.",
                "Put Micro-Manager's configuration there.",
            )
        )
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda f: (order.index(f.level), f.file.name, f.line))


def _schema(error: ConfigError, path: Path, lines: Lines) -> Finding:
    """Where a rig.yaml leaves its schema."""
    says = re.sub(rf"^{re.escape(path.name)}: ", "", str(error)).removeprefix(f"{path}: ")
    line = 0
    if isinstance(error.__cause__, ValidationError):
        problem = min(error.__cause__.errors(), key=lambda p: p["type"] != "extra_forbidden")
        line = lines.of([part for part in problem["loc"]])
    elif found := re.search(r", line (\d+) is not valid", says):
        line = int(found[1])
    return Finding(
        "error",
        "schema",
        says,
        "docs/rig.md has every key; hardware_configs/_template/rig.yaml is one to begin with.",
        path,
        line,
    )


def _modality(rig: RigConfig, found: Found) -> Iterator[Finding]:
    if rig.modality not in {rig.modality_of(name) for name in rig.channels or [""]}:
        yield found(
            "warning",
            "modality-unused",
            "modality",
            f"modality is {rig.modality!r}, and no channel is reconstructed with it.",
            f"Set channels.NAME.reconstruct: {rig.modality}, or name the modality that is used.",
        )


def _optics(rig: RigConfig, found: Found) -> Iterator[Finding]:
    na = rig.optics.na
    for name, channel in rig.channels.items() or {"": rig.channel("")}.items():
        emission_nm = rig.emission_nm(name)
        place = f"channels.{name}.emission_nm" if channel.emission_nm else "optics.emission_nm"
        kind, pixel_nm = modality(rig.modality_of(name)), rig.optics.pixel_size_nm
        needed_nm = kind.largest_pixel_nm(na, emission_nm)
        if pixel_nm and pixel_nm > 1.02 * needed_nm:
            yield found(
                "warning",
                "undersampled",
                "optics.pixel_size_nm",
                f"Pixels of {pixel_nm:g} nm undersample {emission_nm:g} nm at NA {na:g}, which"
                f" needs {needed_nm:.0f} nm"
                f"{': the reconstruction will alias' if kind.needs_sampling else ''}.",
                "Check pixel size, NA and magnification.",
            )
        if pixel_nm and pixel_nm < 0.3 * needed_nm:
            yield found(
                "warning",
                "oversampled",
                "optics.pixel_size_nm",
                f"Pixels of {pixel_nm:g} nm are a third of the {needed_nm:.0f} nm that are needed,"
                " or less.",
                "Give the pixel size in the sample, in nm.",
            )
        if (
            name.isdigit()
            and 300 < int(name) < 1200
            and not int(name) < emission_nm < int(name) + 200
        ):
            yield found(
                "warning",
                "emission",
                place,
                f"Channel {name!r} emits at {emission_nm:g} nm: expected more than its "
                f"excitation and less than {int(name) + 200} nm.",
                f"Set channels.{name}.emission_nm.",
            )


def _corrections(rig: RigConfig, found: Found) -> Iterator[Finding]:
    from livesr.live.correct import check_maps

    try:
        check_maps(rig)
    except ConfigError as e:
        place = re.match(r"corrections\.[a-z_]+(\.\w+)?", str(e))
        yield found(
            "error",
            "corrections",
            place[0] if place else "corrections",
            str(e),
            "'livesr characterise' measures maps.",
        )
    flat = rig.corrections.flat
    for name in rig.channels if flat and "" not in flat else ():
        if name not in flat:
            yield found(
                "warning",
                "no-flat",
                "corrections.flat",
                f"Channel {name!r} has no flat field, and others have.",
                f"'livesr characterise ... --channel {name}' measures it.",
            )


def _engines(rig: RigConfig, found: Found) -> Iterator[Finding]:
    from livesr.live.inference.runtime import BACKENDS, is_remote, why_unavailable

    for name in rig.channels:
        yield from _engines_of(rig, name, found)
    used = any(channel.engines for channel in rig.channels.values())
    here = [name for name in BACKENDS.names if not is_remote(name)]
    missing = {name: why_unavailable(name) for name in here}
    if used and all(missing.values()):
        yield found(
            "error",
            "backend",
            "channels",
            f"No runtime for the engines is here: {'; '.join(map(str, missing.values()))}",
            "Install one of them.",
        )


def _engines_of(rig: RigConfig, name: str, found: Found) -> Iterator[Finding]:
    """Try the engines of a channel, in the order in which a frame goes through them."""
    channel, scale = rig.channels[name], modality(rig.modality_of(name)).scale(rig)
    raw_nm = rig.optics.pixel_size_nm or 0
    made_nm = raw_nm / scale if scale else 0
    pixel_nm = raw_nm if channel.learned else made_nm
    for task, engine in channel.engines.items():
        place = f"channels.{name}.{task}"
        try:
            seen_nm = raw_nm if task == "restore" else pixel_nm
            told, enlarges, brought_to = _tried(rig, name, task, engine, seen_nm)
        except (EngineError, BackendError) as e:
            advice = "'livesr info' lists the engines that are here."
            yield found("error", "engine", place, str(e), advice)
            continue
        pixel_nm /= enlarges
        if brought_to:
            says = (
                f"Pixels of {seen_nm:.4g} nm are none that engine {engine!r} was trained for: it"
                f" sees frames brought to {brought_to:.4g} nm."
            )
            advice = "--resample off leaves them as they are."
            yield found("note", "resampled", place, says, advice)
        advice = "Use an engine that was trained for this, or distrust it."
        for sentence in told:
            yield found("warning", "engine-fit", place, sentence, advice)


def _limits(rig: RigConfig, found: Found) -> Iterator[Finding]:
    """Look at the limits beside the rig."""
    from livesr.live.networks import engines_of
    from livesr.live.taken_with import taken_with

    file = rig.folder / FILE
    if not file.is_file():
        return
    try:
        channels = load_rig_limits(file).channels
    except ConfigError as e:
        yield Finding("error", "limits", str(e), f"Runs go on without it: {_NOT_REFUSED}", file, 0)
        return
    for name, limits in channels.items():
        place = f"channels.{name}"
        try:
            # Which pixels a run has is known when it begins.
            pixel_nm = limits.taken_with.pixel_size_nm
            now = taken_with(rig, name, engines_of(rig, name), pixel_nm)
        except (ConfigError, EngineError) as e:
            says = f"limits.yaml has limits of channel {name!r}: {e}"
            advice = "Remove the channel from limits.yaml, or mend rig.yaml."
            yield found("warning", "limits", place, says, advice)
            continue
        if why_not := limits.why_not(name, now):
            advice = "Recordings of before: 'livesr process' them with --rig first."
            yield found("warning", "limits", place, why_not, advice)
        else:
            says = limits.rule if limits.taken_with.settings else f"{limits.rule} {SILENT}"
            yield found("note", "limits", place, says, _AGAIN.format("calibrate-limits"))


def _error_bars(rig: RigConfig) -> Iterator[Finding]:
    """Look at the error bars beside the rig."""
    from livesr.live.networks import engines_of
    from livesr.live.taken_with import made_with

    file = rig.folder / error_bars.FILE
    if not file.is_file():
        return
    try:
        bars = load_error_bars(file)
    except ConfigError as e:
        advice = f"Runs go on without it: {_NOT_REFUSED}"
        yield Finding("error", "error-bars", str(e), advice, file, 0)
        return
    channels = {name: [name] for name in rig.channels}
    if rig.superpose:
        channels[rig.superpose.name] = list(rig.superpose.channels)
    last: list[str] = []
    whys: list[str] = []
    for name, parts in channels.items():
        with suppress(ConfigError, EngineError):  # said of the engines
            if engines := engines_of(rig, name):
                last.append(str(engines[-1]))
                manifest = engines[-1].manifest
                if (bars.engine, bars.sha256) == (manifest.id, manifest.sha256):
                    whys.append(bars.why_not(name, made_with(rig, parts, engines)))
    if "" in whys:
        silent = bars.made_with is None and bars.source == "pairs"
        says = f"{bars.sentence} {SILENT}" if silent else bars.sentence
        yield Finding("note", "error-bars", says, _AGAIN.format("calibrate-errors"), file, 0)
    elif last:
        now = " and ".join(dict.fromkeys(last))
        other = (
            f"{error_bars.FILE} is of {bars.engine} ({bars.sha256[:12] or 'of unknown weights'}),"
            f" not of {now}, and is not used: predictions have no error bars."
        )
        advice = "Run 'livesr calibrate-errors' again."
        yield Finding("warning", "error-bars", whys[0] if whys else other, advice, file, 0)


def _tried(
    rig: RigConfig, name: str, task: Task, engine_name: str, pixel_nm: float
) -> tuple[Sequence[str], int, float | None]:
    """Return why an engine may not fit what it sees, how many times it enlarges, and the pixel size
    in nm to which its frames are brought, None where they stay.

    Raises
    ------
    EngineError, BackendError
        If it cannot be used.
    """
    from livesr.base.compute import ComputeConfig
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.resampling import own_pixel_nm
    from livesr.live.inference.trial import try_out
    from livesr.live.own_engine import changed_since_training

    engine = load_engine(engine_name)
    brought_to = own_pixel_nm(engine, pixel_nm) if pixel_nm else None
    told = engine.check_fits(
        task,
        pixel_size_nm=brought_to or pixel_nm or None,
        modality=modality(rig.modality_of(name)).method,
        resolution_nm=rig.resolution_nm(name),
        raw_labels=rig.raw_labels(name),
    )
    side = -(-_TRIED_PX // engine.manifest.multiple_of) * engine.manifest.multiple_of
    try_out(engine, (2 * side, 2 * side), ComputeConfig(tile="off"))
    told += changed_since_training(engine.manifest, rig, name)
    return told, engine.manifest.scale, brought_to


def _beside(rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
    """Look for what rig.yaml names in rig.cfg."""
    group = cfg.groups.get(rig.channel_group)
    if group is None and rig.channels:
        yield found(
            "error",
            "channel-group",
            "channel_group",
            "rig.cfg has no group"
            f" {rig.channel_group!r}.{suggestion(rig.channel_group, list(cfg.groups))}",
            "Add ConfigGroup lines, or name the group that is there.",
        )
    for name in rig.channels if group is not None else ():
        if group is not None and name not in group:
            yield found(
                "error",
                "channel-preset",
                f"channels.{name}",
                f"Group {rig.channel_group!r} has no preset"
                f" {name!r}.{suggestion(name, list(group))}",
                "Channels are named as Micro-Manager's presets.",
            )
    for kind, section in modalities_of(rig):
        if trigger := kind.trigger(section):
            place = f"{kind.name}.trigger"
            yield from check_named(cfg, place, (trigger.device, trigger.property), found)
        yield from kind.check_beside(rig, cfg, found)


def check_named(
    cfg: Configuration,
    place: str,
    named: tuple[str, str],
    found: Found,
    code: str = "pattern",
    does: tuple[str, str] = (
        "shows the patterns, or lets them run",
        "chooses the pattern, or lets the patterns run",
    ),
) -> Iterator[Finding]:
    """Look for a (device, property) that a modality names at `place` of rig.yaml in rig.cfg.

    `code` begins what the findings are called; `does` says what device and property are for.
    """
    device, name = named
    known = cfg.known_names(device)
    if device not in cfg.devices:
        yield found(
            "error",
            f"{code}-device",
            place,
            f"rig.cfg has no device {device!r}.{suggestion(device, list(cfg.devices))}",
            f"Name the device that {does[0]}.",
        )
    elif known and name not in known:
        yield found(
            "warning",
            f"{code}-name",
            place,
            f"{device!r} is not known for a property {name!r}.{suggestion(name, known)}",
            f"Name the property that {does[1]}.",
        )


def _cameras(rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
    """Look at which camera takes each channel, and what the files say of it."""
    presets = cfg.groups.get(rig.channel_group, {})
    taken = {name: cfg.camera_of(presets[name]) for name in rig.channels if name in presets}
    chosen = {
        name: s for name in taken for s in presets[name] if (s.device, s.name) == ("Core", "Camera")
    }
    if chosen and (unset := [name for name in taken if name not in chosen]):
        yield found(
            "error",
            "camera-not-set",
            f"channels.{unset[0]}",
            f"The preset of channel {unset[0]!r} chooses no camera, and that of"
            f" {next(iter(chosen))!r} chooses {next(iter(chosen.values())).value!r}: it is taken by"
            " whichever was used last.",
            f"Add ConfigGroup,{rig.channel_group},{unset[0]},Core,Camera,<label>.",
        )
    if len(set(taken.values())) > 1:
        listed = ", ".join(f"{name} by {camera}" for name, camera in taken.items())
        yield found(
            "note",
            "cameras",
            "channels",
            f"Channels are taken by different cameras ({listed}): each has its own region, binning,"
            " size and bit depth, and images of its own in the store. camera.offset_adu and"
            " camera.bit_depth of rig.yaml are used for all of them.",
            "'livesr check --hardware' says what each delivers.",
        )
        if maps := rig.corrections.of_every_channel():
            yield found(
                "error",
                "corrections-cameras",
                f"corrections.{maps[0]}",
                f"corrections.{maps[0]} is a map of one chip, and channels are taken by different"
                f" cameras ({listed}).",
                "Use a rig.yaml for each camera, or leave the maps out.",
            )
    yield from _bit_depths(rig, cfg, taken, found)
    for name, camera in taken.items():
        yield from _camera(rig, cfg, name, camera, found)


def _bit_depths(
    rig: RigConfig, cfg: Configuration, taken: Mapping[str, str], found: Found
) -> Iterator[Finding]:
    """Compare what cameras are set to with what rig.yaml says of them; one finding for a camera."""
    told: set[str] = set()
    for name, camera in taken.items():
        bits = cfg.bit_depth(camera, cfg.groups[rig.channel_group][name])
        if bits is None or bits >= rig.camera.bit_depth or camera in told:
            continue
        told.add(camera)
        yield found(
            "warning",
            "bit-depth",
            "camera.bit_depth",
            f"rig.yaml says {rig.camera.bit_depth} bits, and {camera!r}, which takes channel"
            f" {name!r}, is set to {bits}.",
            f"Pixels at 2^{bits} - 1 are counted as saturated: set bit_depth to {bits}, or the"
            " camera to more.",
        )


def _camera(
    rig: RigConfig, cfg: Configuration, name: str, camera: str, found: Found
) -> Iterator[Finding]:
    """Compare the pixel size of a channel's camera; say that a demo camera shows nothing."""
    preset, place = cfg.groups[rig.channel_group][name], f"channels.{name}"
    if (channel := rig.channels[name]).separate and cfg.devices.get(camera, ("",))[
        0
    ] == "DemoCamera":
        yield found(
            "warning",
            "demo-camera",
            f"{place}.separate",
            f"{camera!r} is Micro-Manager's demo camera, which shows no specimen: nothing that"
            f" {channel.separate} separates from it is there.",
            f"It shows that every step works; {simulating_rig()} has a specimen.",
        )
    own_nm, said_nm = cfg.pixel_size_nm(preset), channel.pixel_size_nm or rig.optics.pixel_size_nm
    others = {
        cfg.pixel_size_nm(cfg.groups[rig.channel_group][n])
        for n in rig.channels
        if n in cfg.groups[rig.channel_group]
    }
    if own_nm and said_nm and len(others) > 1 and abs(own_nm - said_nm) > 0.01 * said_nm:
        yield found(
            "warning",
            "pixel-size-channel",
            f"{place}.pixel_size_nm",
            f"rig.cfg gives channel {name!r} pixels of {own_nm:g} nm, rig.yaml says"
            f" {said_nm:g} nm.",
            f"Set channels.{name}.pixel_size_nm; a run takes rig.cfg's where rig.yaml says nothing"
            " of this channel.",
        )


def _timing(rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
    """Compare exposures, intervals and triggers."""
    camera = cfg.roles["Camera"].value if "Camera" in cfg.roles else None
    for s in cfg.settings:
        if (s.device, s.name) == (camera, "Exposure") and s.value != f"{rig.exposure_ms:g}":
            yield found(
                "note",
                "exposure",
                "exposure_ms",
                f"rig.cfg sets {s.value} ms in line {s.line}; livesr sets {rig.exposure_ms:g} ms"
                " before a run.",
                "Make them equal if that surprises you.",
            )
    triggers = [kind.trigger(section) for kind, section in modalities_of(rig)]
    display_leads = any(t is not None and t.when == "armed" for t in triggers)
    if (trigger := external_trigger(cfg)) and not display_leads:
        yield found(
            "note",
            "trigger",
            "exposure_ms",
            f"The camera waits for triggers ({trigger.name} = {trigger.value}, line "
            f"{trigger.line} of rig.cfg): exposures come when something outside sends them.",
            "Start what triggers after the run is armed; examples/ has a script.",
        )
    exposures_ms = rig.exposure_ms * rig.max_raw_frames * max(len(rig.channels), 1)
    if 0 < rig.interval_ms < exposures_ms:
        yield found(
            "warning",
            "interval",
            "interval_ms",
            f"The exposures of one time point take {exposures_ms:g} ms, the interval is"
            f" {rig.interval_ms:g} ms.",
            "Lengthen it, or set 0 for as fast as possible.",
        )


def _pixel_size(rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
    said_nm, sizes = (
        rig.optics.pixel_size_nm,
        {n: 1e3 * size for n, (_, size) in cfg.pixel_sizes_um.items() if size > 0},
    )
    if not sizes:
        level: Level = "note" if said_nm else "error"
        yield found(
            level,
            "no-pixel-size",
            "optics.pixel_size_nm",
            "rig.cfg has no pixel size"
            + (
                ": other programs that read it will not know it."
                if said_nm
                else ", and rig.yaml has none either."
            ),
            "Add ConfigPixelSize and PixelSize_um lines.",
        )
    elif said_nm and not any(abs(size - said_nm) < 0.01 * said_nm for size in sizes.values()):
        listed = ", ".join(f"{size:g} nm ({name})" for name, size in sizes.items())
        yield found(
            "warning",
            "pixel-size-differs",
            "optics.pixel_size_nm",
            f"rig.yaml says {said_nm:g} nm, rig.cfg {listed}.",
            "One of them is wrong; livesr takes rig.yaml's.",
        )
    for line in cfg.valid:
        power = (
            re.search(r"(\d+)\s*x\b", line.args[3], re.IGNORECASE)
            if line.command == "ConfigPixelSize"
            else None
        )
        size_nm = sizes.get(line.args[0]) if power else None
        if power and size_nm and not 2 <= size_nm * int(power[1]) / 1e3 <= 30:
            yield Finding(
                "warning",
                "magnification",
                f"{size_nm:g} nm at {line.args[3]} would be a camera pixel of "
                f"{size_nm * int(power[1]) / 1e3:.1f} um; cameras have 3 to 16.",
                "Check pixel size and objective.",
                cfg.path,
                line.number,
            )
