"""What `livesr check` asks of a SIM rig: patterns, their phases, and what shows them.

Owns what is plausible of them. Loads no device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.check.finding import Finding, Found
from livesr.check.micromanager import Configuration
from livesr.check.rig import check_named
from livesr.modalities.sim.config import (
    PatternConfig,
    SIMChannelConfig,
    SIMConfig,
    patterns_of,
)
from livesr.modalities.sim.modality import pattern_of
from livesr.optics.otf import cutoff_um

# The period of the light may be shorter than the finest detail that its fluorescence shows:
# excitation is.
_LONGEST_USUAL = 1.12


def check(rig: RigConfig, found: Found) -> Iterator[Finding]:
    """Yield what is not plausible of patterns and phase steps."""
    yield from _calibrated(rig, found)
    section = SIMConfig.of(rig)
    single = section.angles == 1 and not section.lattice
    if single and section.raw_frames > 3 * section.harmonics:
        yield found(
            "warning",
            "one-direction",
            "sim.angles",
            f"1 angle x {section.raw_frames} phases gain resolution along one direction only.",
            "Frames that show several directions at once (7 of hexagonal SIM, 5 of lattice SIM)"
            " need waves: lattice and as many harmonics as directions, 3 or 2.",
        )
    own = {
        f"channels.{n}.patterns": (patterns, c.emission_nm)
        for n, c in rig.channels.items()
        if (patterns := SIMChannelConfig.of(rig, n).patterns)
    }
    for place, (patterns, emission_nm) in {"sim.patterns": (section.patterns, None), **own}.items():
        if patterns:
            emission_um = (emission_nm or rig.optics.emission_nm) / 1e3
            yield from _vectors(rig, patterns, place, emission_um, found)
    if section.phase_steps_rad:
        yield from _phase_steps(section.phase_steps_rad, found)


def check_beside(rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
    """Look for what shows the patterns in Micro-Manager's configuration."""
    section = SIMConfig.of(rig)
    if section.pattern_property:
        yield from check_named(cfg, "sim.pattern_property", section.pattern_property, found)
    elif (
        not section.trigger
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
    yield from _stained(cfg)


def _stained(cfg: Configuration) -> Iterator[Finding]:
    """Look at what the cell of a virtual camera is stained for."""
    for s in cfg.properties:
        if s.name == "Dyes" and cfg.devices.get(s.device, ("", ""))[1] == "VirtualSIMCamera":
            from livesr.modalities.sim.simulation.rig import dyes_of

            try:
                dyes_of(s.value)
            except ConfigError as e:
                advice = "The camera cannot be started with it."
                yield Finding("error", "dyes", str(e), advice, cfg.path, s.line)


def _calibrated(rig: RigConfig, found: Found) -> Iterator[Finding]:
    of_patterns = [n for n in rig.channels_of("sim") if not rig.channel(n).learned]
    bare = [n for n in of_patterns if not patterns_of(rig, n)]
    if bare:
        yield found(
            "error",
            "uncalibrated",
            "sim",
            f"There are no patterns for {', '.join(f'channel {n!r}' for n in bare)}: nothing can be"
            " reconstructed.",
            f"Run livesr calibrate {rig.folder.name}.",
        )


def _phase_steps(steps: list[float], found: Found) -> Iterator[Finding]:
    turned = sorted(s % (2 * math.pi) for s in steps)
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
    if SIMConfig.of(rig).lattice:  # every wave is a direction
        patterns = [
            PatternConfig(k_um=wave.k_um, phase_rad=wave.phase_rad, modulation=wave.modulation)
            for pattern in patterns
            for wave in pattern_of(pattern).waves
        ]
    nonlinear = SIMConfig.of(rig).nonlinear  # whose overtones reach beyond the optics
    times = [1 if nonlinear else 1 + len(p.overtones) for p in patterns]
    lengths = [math.hypot(*p.k_um) * n for p, n in zip(patterns, times, strict=True)]  # finest wave
    for i, (pattern, k) in enumerate(zip(patterns, lengths, strict=True)):
        yield from _length(k, cutoff, f"{place}.{i}", found)
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
    yield from _directions(patterns, place, found)


def _length(k: float, cutoff: float, place: str, found: Found) -> Iterator[Finding]:
    """Hold the finest wave of a pattern, cycles/um, against what the objective passes."""
    share = k / cutoff
    if share > 1.25 or share < 0.2:
        yield found(
            "error",
            "pattern-length",
            place,
            f"|k| is {k:.2f} cycles/um, {share:.2f} of the cutoff 2 NA / wavelength "
            f"= {cutoff:.2f}: no objective makes that pattern, or it gains nothing.",
            "k_um is (ky, kx) in cycles/um in the sample: 1 / period.",
        )
    elif share > _LONGEST_USUAL or share < 0.5:
        yield found(
            "warning",
            "pattern-length",
            place,
            f"|k| is {share:.2f} of the cutoff {cutoff:.2f} cycles/um; 0.7 to 1.0 is usual.",
            "Check k_um, NA and emission; calibrate the patterns.",
        )


def _directions(patterns: list[PatternConfig], place: str, found: Found) -> Iterator[Finding]:
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
