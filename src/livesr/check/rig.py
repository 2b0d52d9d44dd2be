"""rig.yaml beside its rig.cfg: schema, optics, patterns, corrections, engines.

Owns what is plausible. Loads no device; an engine that did not come with livesr is tried out in a
process of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from livesr.base.config import PatternConfig, RigConfig, load_yaml, parse
from livesr.base.errors import BackendError, ConfigError, EngineError, suggestion
from livesr.check.finding import Finding, Level, Lines
from livesr.check.micromanager import Configuration, check_configuration, external_trigger
from livesr.optics.otf import cutoff_um

Found = Callable[[Level, str, str, str, str], Finding]

# The period of the light may be shorter than the finest detail that its fluorescence shows:
# excitation is.
_LONGEST_USUAL = 1.12
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
        *_optics(rig, found),
        *_patterns(rig, found),
        *_corrections(rig, found),
        *_engines(rig, found),
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
        "hardware_configs/_template/rig.yaml explains every key.",
        path,
        line,
    )


def _optics(rig: RigConfig, found: Found) -> Iterator[Finding]:
    na = rig.optics.na
    for name, channel in rig.channels.items() or {"": rig.channel("")}.items():
        emission_nm = channel.emission_nm or rig.optics.emission_nm
        place = f"channels.{name}.emission_nm" if channel.emission_nm else "optics.emission_nm"
        method = channel.reconstruct or rig.modality
        # A single emitter is found best with pixels of about its image's sigma, 0.21 wavelength /
        # NA (Thompson et al. 2002), and well up to twice that; pictures need two pixels per
        # resolved period.
        pixel_nm, needed_nm = (
            rig.optics.pixel_size_nm,
            emission_nm / ((2.4 if method == "storm" else 4) * na),
        )
        sim = method == "sim"
        if pixel_nm and pixel_nm > 1.02 * needed_nm:
            yield found(
                "warning",
                "undersampled",
                "optics.pixel_size_nm",
                f"Pixels of {pixel_nm:g} nm undersample {emission_nm:g} nm at NA {na:g}, which"
                f" needs {needed_nm:.0f} nm{': the reconstruction will alias' if sim else ''}.",
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


def _patterns(rig: RigConfig, found: Found) -> Iterator[Finding]:
    if rig.sim is None:
        return
    bare = [
        n
        for n in rig.channels or [""]
        if rig.channel(n).reconstruct == "sim" and not rig.channel(n).patterns
    ]
    if bare and not rig.sim.patterns:
        yield found(
            "error",
            "uncalibrated",
            "sim",
            f"There are no patterns for {', '.join(f'channel {n!r}' for n in bare)}: nothing can be"
            " reconstructed.",
            f"Run livesr calibrate {rig.folder.name}.",
        )
    own = {
        f"channels.{n}.patterns": (c.patterns, c.emission_nm)
        for n, c in rig.channels.items()
        if c.patterns
    }
    for place, (patterns, emission_nm) in {"sim.patterns": (rig.sim.patterns, None), **own}.items():
        if patterns:
            yield from _vectors(
                rig, patterns, place, (emission_nm or rig.optics.emission_nm) / 1e3, found
            )
    steps = rig.sim.phase_steps_rad
    turned = sorted(s % (2 * math.pi) for s in steps or [])
    if steps:
        gaps = np.diff([*turned, turned[0] + 2 * math.pi])
        off = np.degrees(np.abs(gaps - 2 * math.pi / len(steps)).max())
        mixing = np.exp(1j * np.outer(steps, (0, 1, -1)))
        if np.linalg.cond(mixing) > 100:
            yield found(
                "error",
                "phase-steps",
                "sim.phase_steps_rad",
                "The phase steps do not tell the bands apart.",
                f"Give {len(steps)} different phases, such as equal parts of 6.2832 rad.",
            )
        elif off > 20:
            yield found(
                "warning",
                "phase-steps",
                "sim.phase_steps_rad",
                f"The phase steps are {off:.0f} degrees from equal ones.",
                "Are they rad, and not degrees? Equal steps amplify noise least.",
            )


def _vectors(
    rig: RigConfig, patterns: list[PatternConfig], place: str, emission_um: float, found: Found
) -> Iterator[Finding]:
    cutoff = cutoff_um(rig.optics.na, emission_um)
    lengths = [math.hypot(*p.k_um) * (1 + len(p.overtones)) for p in patterns]  # of the finest wave
    for i, (pattern, k) in enumerate(zip(patterns, lengths, strict=True)):
        share = k / cutoff
        if share > 1.25 or share < 0.2:
            yield found(
                "error",
                "pattern-length",
                f"{place}.{i}",
                f"|k| is {k:.2f} cycles/um, {share:.2f} of the cutoff 2 NA / wavelength "
                f"= {cutoff:.2f}: no objective makes that pattern, or it gains nothing.",
                "k_um is (ky, kx) in cycles/um in the sample: 1 / period.",
            )
        elif share > _LONGEST_USUAL or share < 0.5:
            yield found(
                "warning",
                "pattern-length",
                f"{place}.{i}",
                f"|k| is {share:.2f} of the cutoff {cutoff:.2f} cycles/um; 0.7 to 1.0 is usual.",
                "Check k_um, NA and emission; calibrate the patterns.",
            )
        if pattern.modulation < 0.2:
            yield found(
                "warning",
                "modulation",
                f"{place}.{i}",
                f"Modulation {pattern.modulation:g} leaves little to reconstruct from.",
                "Below 0.2 noise wins: check polarisation and alignment.",
            )
    if len(patterns) > 1 and max(lengths) > 1.1 * min(lengths):
        yield found(
            "warning",
            "pattern-lengths",
            place,
            "The patterns' periods differ by more than 10 %.",
            "Calibrate them again.",
        )
    angles = [math.degrees(math.atan2(*p.k_um)) % 180 for p in patterns]
    apart, wanted = (
        [abs((a - b + 90) % 180 - 90) for a, b in combinations(angles, 2)],
        180 / len(patterns),
    )
    if apart and min(apart) < wanted / 3:
        yield found(
            "error",
            "angles",
            place,
            f"Two patterns are {min(apart):.0f} degrees apart; {wanted:.0f} were expected.",
            "Is one pattern written twice? Directions count without their sign.",
        )
    elif apart and min(apart) < wanted - 12:
        yield found(
            "warning",
            "angles",
            place,
            f"Two patterns are {min(apart):.0f} degrees apart; {wanted:.0f} spread resolution"
            " evenly.",
            "Calibrate the patterns.",
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
    from livesr.base.compute import ComputeConfig
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.runtime import BACKENDS, why_unavailable
    from livesr.live.inference.trial import try_out

    used = False
    scale = {"sim": 2, "storm": 0}
    for name, channel in rig.channels.items():
        method = channel.reconstruct or rig.modality
        pixel_nm = (
            (rig.optics.pixel_size_nm or 0) / scale.get(method, 1) if scale.get(method, 1) else 0
        )
        for task, engine_name in (("upscale", channel.upscale), ("separate", channel.separate)):
            if engine_name is None:
                continue
            used, place = True, f"channels.{name}.{task}"
            try:
                engine = load_engine(engine_name)
                told: Any = engine.check_fits(
                    task,  # type: ignore[arg-type]
                    pixel_size_nm=pixel_nm or None,
                    modality=method,
                    resolution_nm=rig.resolution_nm(name),
                )
                pixel_nm /= engine.manifest.scale
                side = -(-_TRIED_PX // engine.manifest.multiple_of) * engine.manifest.multiple_of
                try_out(engine, (2 * side, 2 * side), ComputeConfig(tile="off"))
            except (EngineError, BackendError) as e:
                yield found(
                    "error",
                    "engine",
                    place,
                    str(e),
                    "'livesr info' lists the engines that are here.",
                )
                continue
            for sentence in told:
                yield found(
                    "warning",
                    "engine-fit",
                    place,
                    sentence,
                    "Use an engine that was trained for this, or distrust it.",
                )
    missing = {name: why_unavailable(name) for name in BACKENDS.names}
    if used and all(missing.values()):
        yield found(
            "error",
            "backend",
            "channels",
            f"No runtime for the engines is here: {'; '.join(map(str, missing.values()))}",
            "Install one of them.",
        )


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
    sim = rig.sim
    named = {"pattern_property": sim.pattern_property} if sim and sim.pattern_property else {}
    if sim and sim.trigger:
        named["trigger"] = sim.trigger.device, sim.trigger.property
    for key, (device, name) in named.items():
        known = cfg.known_names(device)
        if device not in cfg.devices:
            yield found(
                "error",
                "pattern-device",
                f"sim.{key}",
                f"rig.cfg has no device {device!r}.{suggestion(device, list(cfg.devices))}",
                "Name the device that shows the patterns, or lets them run.",
            )
        elif known and name not in known:
            yield found(
                "warning",
                "pattern-name",
                f"sim.{key}",
                f"{device!r} is not known for a property {name!r}.{suggestion(name, known)}",
                "Name the property that chooses the pattern, or lets the patterns run.",
            )
    if (
        sim
        and not named
        and not any(s.name.startswith("OUTPUT TRIGGER") for s in cfg.settings)
        and "SLM" not in cfg.roles
    ):
        yield found(
            "note",
            "pattern-start",
            "sim",
            "Nothing says what advances the patterns, nor sets the first before a run.",
            "Set sim.trigger if an output starts the display, sim.pattern_property if software"
            " chooses the pattern.",
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
            "It shows that every step works; virtual_sim has a specimen.",
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
    display_leads = rig.sim and rig.sim.trigger and rig.sim.trigger.when == "armed"
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
