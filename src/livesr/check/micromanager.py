"""Whether everything exists that a rig.cfg names, read without a device.

Owns the syntax of Micro-Manager's configuration as far as names go. Loads no adapter and starts
nothing.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from livesr.base.documents import parse_yaml, read_text
from livesr.base.errors import suggestion
from livesr.check.finding import Finding, Level

_PY = "#py "
_BITS = re.compile(r"(\d{1,2})(?:\s*-?\s*bit)?$", re.IGNORECASE)
# Arguments of every command that livesr's rigs have; the first may be a device's label.
_ARGUMENTS = {
    "Device": {3},
    "pyDevice": {3},
    "Property": {2, 3},
    "Label": {3},
    "Parent": {2},
    "Delay": {2},
    "FocusDirection": {2},
    "ConfigGroup": {1, 4, 5},
    "ConfigPixelSize": {4},
    "PixelSize_um": {2},
    "PixelSizeAffine": {7},
    "Equipment": {3},
    "ImageSynchro": {1},
    "PixelSize_dxdz": {2},
    "PixelSize_dydz": {2},
    "PixelSize_OptimalZUm": {2},
}
_ROLES = ("Camera", "Shutter", "Focus", "XYStage", "AutoFocus", "SLM", "Galvo", "ImageProcessor")


@dataclass(frozen=True, slots=True)
class Line:
    """One command of a configuration."""

    number: int
    command: str
    args: tuple[str, ...]
    python: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that a preset, or a line, gives to a property."""

    line: int
    device: str
    name: str
    value: str


class Configuration:
    """What a rig.cfg declares."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = read_text(path, errors="replace")
        self.lines = list(_lines(text))
        valid = [line for line in self.lines if len(line.args) in _ARGUMENTS.get(line.command, ())]
        self.valid = valid
        self.devices = {
            each.args[0]: (each.args[1], each.args[2])
            for each in valid
            if each.command in ("Device", "pyDevice")
        }
        self.labels: dict[str, set[str]] = {}
        for line in valid:
            if line.command == "Label":
                self.labels.setdefault(line.args[0], set()).add(line.args[2])
        self.parents = {each.args[0]: each.args[1] for each in valid if each.command == "Parent"}
        self.groups: dict[str, dict[str, list[Setting]]] = {}
        for line in valid:
            if line.command == "ConfigGroup":
                group = self.groups.setdefault(line.args[0], {})
                if len(line.args) > 1:
                    group.setdefault(line.args[1], []).append(
                        Setting(line.number, *_three(line.args[2:]))
                    )
        self.pixel_sizes_um = {
            each.args[0]: (each.number, _number(each.args[1]))
            for each in valid
            if each.command == "PixelSize_um"
        }
        self.properties = [
            Setting(each.number, *_three(each.args)) for each in valid if each.command == "Property"
        ]
        self.roles = {s.name: s for s in self.properties if s.device == "Core" and s.name in _ROLES}

    @property
    def settings(self) -> list[Setting]:
        """Every value that is given to a property, by lines, presets and pixel sizes."""
        presets = [s for group in self.groups.values() for preset in group.values() for s in preset]
        sizes = [
            Setting(each.number, *_three(each.args[1:]))
            for each in self.valid
            if each.command == "ConfigPixelSize"
        ]
        return [*self.properties, *presets, *sizes]

    @property
    def startup(self) -> list[Setting]:
        """What is set once the file is read."""
        return [*self.properties, *self.groups.get("System", {}).get("Startup", [])]

    def camera_of(self, preset: Sequence[Setting]) -> str:
        """Return the camera that is used after `preset`, "" where none is chosen."""
        chosen = [
            s.value for s in (*self.startup, *preset) if (s.device, s.name) == ("Core", "Camera")
        ]
        return chosen[-1] if chosen else ""

    def bit_depth(self, camera: str, preset: Sequence[Setting]) -> int | None:
        """Return how many bits a camera is set to by the file and `preset`, None where neither
        says.
        """
        bits = {
            s.name: int(found[1])
            for s in (*self.startup, *preset)
            if s.device == camera
            and s.name in ("BitDepth", "PixelType")
            and (found := _BITS.match(s.value))
        }
        return min(bits.values(), default=None)

    def pixel_size_nm(self, preset: Sequence[Setting]) -> float | None:
        """Return the pixel size that holds after `preset`, None where the file gives none, or it
        cannot be told.
        """
        now = {(s.device, s.name): s.value for s in (*self.startup, *preset)}
        needed: dict[str, list[Setting]] = {}
        for line in self.valid:
            if line.command == "ConfigPixelSize":
                needed.setdefault(line.args[0], []).append(
                    Setting(line.number, *_three(line.args[1:]))
                )
        for name, settings in sorted(needed.items()):  # Micro-Manager asks them in this order, too
            if name in self.pixel_sizes_um and all(
                now.get((s.device, s.name)) == s.value for s in settings
            ):
                return 1e3 * self.pixel_sizes_um[name][1]
        return None

    def known_names(self, device: str) -> list[str]:
        """Names of a device's properties, [] where they are not known."""
        return list(_about(*self.devices.get(device, ("", ""))).get("properties", ()))


def check_configuration(cfg: Configuration, *, unicore: bool) -> Iterator[Finding]:
    """Look for what is misspelt, missing or dangling in a rig.cfg.

    Parameters
    ----------
    unicore : whether the rig's core reads lines for Python devices
    """

    def found(level: Level, code: str, line: int, says: str, advice: str) -> Finding:
        return Finding(level, code, says, advice, cfg.path, line)

    broken = [*_syntax(cfg, found), *_dangling(cfg, found)]
    yield from broken
    yield from _values(cfg, found)
    yield from _roles(cfg, found)
    yield from _hubs(cfg, found)
    python = [line for line in cfg.lines if line.python]
    if python and not unicore:
        yield found(
            "error",
            "python-device",
            python[0].number,
            "Lines for Python devices are here, and rig.yaml says core: mmcore.",
            "Write 'core: unicore' in rig.yaml, or take the lines out.",
        )
    if not broken:
        yield from _second_opinion(cfg, found)


Found = Callable[[Level, str, int, str, str], Finding]


def _syntax(cfg: Configuration, found: Found) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for line in cfg.lines:
        if line.command not in _ARGUMENTS:
            yield found(
                "error",
                "command",
                line.number,
                f"{line.command!r} is no command of"
                f" Micro-Manager.{suggestion(line.command, list(_ARGUMENTS))}",
                "Correct it, or put a # before the line.",
            )
        elif len(line.args) not in _ARGUMENTS[line.command]:
            expected = " or ".join(map(str, sorted(_ARGUMENTS[line.command])))
            yield found(
                "error",
                "arguments",
                line.number,
                f"{line.command} came with {len(line.args)} values; it takes {expected}.",
                "Look for a comma too many or too few.",
            )
        elif any(a != a.strip() for a in line.args):
            yield found(
                "warning",
                "space",
                line.number,
                "A space beside a comma belongs to the name that it touches.",
                "Take it out, unless the name begins with one.",
            )
        if line.command in ("Device", "pyDevice") and line.args:
            if line.args[0] in seen:
                yield found(
                    "error",
                    "duplicate-device",
                    line.number,
                    f"Device {line.args[0]!r} is declared a second time, first in line"
                    f" {seen[line.args[0]]}.",
                    "Give one of them another label.",
                )
            seen.setdefault(line.args[0], line.number)
        if line.command == "pyDevice" and len(line.args) == 3 and not _importable(line.args[1]):
            yield found(
                "error",
                "python-module",
                line.number,
                f"Python module {line.args[1]!r} is not installed here.",
                "Install it, or correct its name.",
            )


def _dangling(cfg: Configuration, found: Found) -> Iterator[Finding]:
    named = [(s.line, s.device) for s in cfg.settings]
    named += [
        (each.number, each.args[0])
        for each in cfg.valid
        if each.command in ("Label", "Parent", "Delay", "FocusDirection")
    ]
    named += [(each.number, each.args[1]) for each in cfg.valid if each.command == "Parent"]
    chosen = [s for s in cfg.settings if s.device == "Core" and s.name in _ROLES]
    named += [(role.line, role.value) for role in chosen if role.value]
    for number, device in sorted(set(named)):
        if device not in cfg.devices and device != "Core":
            yield found(
                "error",
                "dangling-device",
                number,
                f"Device {device!r} is not declared.{suggestion(device, list(cfg.devices))}",
                "Correct the label, or declare the device.",
            )
    for line in cfg.valid:
        sized = line.command == "ConfigPixelSize"
        if sized and line.args[0] not in cfg.pixel_sizes_um:
            yield found(
                "error",
                "pixel-size-value",
                line.number,
                f"Pixel size {line.args[0]!r} has no PixelSize_um line.",
                f"Add PixelSize_um,{line.args[0]},0.065 with the right number.",
            )
    resolutions = {each.args[0] for each in cfg.valid if each.command == "ConfigPixelSize"}
    for name, (number, size) in cfg.pixel_sizes_um.items():
        if name not in resolutions or not size > 0:
            yield found(
                "error",
                "pixel-size",
                number,
                f"Pixel size {name!r} is {size:g} um"
                f"{'' if name in resolutions else ' and has no ConfigPixelSize line'}.",
                "Say with ConfigPixelSize when it holds, and give um above 0.",
            )


def _values(cfg: Configuration, found: Found) -> Iterator[Finding]:
    for s in cfg.settings:
        if s.name == "Label" and s.device in cfg.labels and s.value not in cfg.labels[s.device]:
            yield found(
                "error",
                "dangling-label",
                s.line,
                f"{s.device!r} has no position"
                f" {s.value!r}.{suggestion(s.value, list(cfg.labels[s.device]))}",
                "Declare it with a Label line, or correct it.",
            )
        known = cfg.known_names(s.device)
        if known and re.sub(r"\[\d+\]", "[0]", s.name) not in known:
            yield found(
                "warning",
                "property-name",
                s.line,
                f"{s.name!r} is not among the properties that {','.join(cfg.devices[s.device])} is"
                f" known for.{_near(s.name, known)}",
                "Compare with the device's property browser; capitals count.",
            )


def _roles(cfg: Configuration, found: Found) -> Iterator[Finding]:
    if "Camera" not in cfg.roles:
        yield found(
            "error",
            "no-camera",
            0,
            "No camera is chosen.",
            "Add Property,Core,Camera,<label of the camera>.",
        )
    for role, level, why in (
        ("Shutter", "warning", "the light stays as it is between exposures"),
        ("Focus", "note", "z stacks cannot be planned"),
    ):
        if role not in cfg.roles:
            yield found(
                "warning" if level == "warning" else "note",
                f"no-{role.lower()}",
                0,
                f"No {role} is chosen: {why}.",
                f"Add Property,Core,{role},<label> if the rig has one.",
            )


def _hubs(cfg: Configuration, found: Found) -> Iterator[Finding]:
    for line in cfg.valid:
        if line.command != "Device":
            continue
        hub = _about(*line.args[1:3]).get("parent")
        if hub and line.args[0] not in cfg.parents:
            yield found(
                "warning",
                "no-parent",
                line.number,
                f"{line.args[0]!r} is a child of {hub} and has no Parent line.",
                f"Add Parent,{line.args[0]},<label of the {hub}>.",
            )


def _second_opinion(cfg: Configuration, found: Found) -> Iterator[Finding]:
    """Say what pymmcore-plus says of the same file."""
    from pymmcore_plus.model import Microscope

    kept = (
        ",".join(["Device" if each.command == "pyDevice" else each.command, *each.args])
        for each in cfg.valid
    )
    with (
        tempfile.TemporaryDirectory(prefix="livesr-") as folder,
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        copy = Path(folder) / "rig.cfg"
        copy.write_text("\n".join(kept) + "\n", encoding="utf-8")
        try:
            Microscope.create_from_config(copy)
        except Exception as e:  # a parser raises whatever it stumbles over
            yield found(
                "error",
                "parse",
                0,
                f"pymmcore-plus cannot read it: {e}.",
                "Correct the line that it names.",
            )
    for warning in said:
        text = str(warning.message)
        if (
            issubclass(warning.category, RuntimeWarning)
            and "not implemented" not in text
            and "not found" not in text
        ):
            yield found(
                "warning",
                "parse",
                0,
                f"pymmcore-plus says: {text}.",
                "Correct the line that it names.",
            )


def _lines(text: str) -> Iterator[Line]:
    for number, raw in enumerate(text.splitlines(), 1):
        python = raw.startswith(_PY)
        line = raw.removeprefix(_PY).strip()
        if line and (python or not line.startswith("#")):
            command, *args = line.split(",")
            yield Line(number, command, tuple(args), python)


def _near(given: str, known: list[str]) -> str:
    """Return the nearest of `known`, as a question; a camera's whole list would say less."""
    said = suggestion(given, known)
    return said if said.endswith("?") else ""


def _three(values: tuple[str, ...]) -> tuple[str, str, str]:
    """Return device, property and value; an empty value may be left out."""
    device, name, value = (*values, "")[:3]
    return device, name, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _about(library: str, device: str) -> dict[str, Any]:
    """Return what is known of an adapter's device.

    A port in its name, as in NIDAQDO-Dev1/port0 or COM6, does not count.
    """
    kind = re.sub(r"^COM\d+$", "COM", device.partition("-")[0])
    return _known().get(f"{library},{device}") or _known().get(f"{library},{kind}") or {}


@cache
def _known() -> dict[str, dict[str, Any]]:
    names = resources.files("livesr.check") / "property_names.yaml"
    known: dict[str, dict[str, Any]] = parse_yaml(names.read_text(encoding="utf-8"), names.name)
    return known


def external_trigger(cfg: Configuration) -> Setting | None:
    """Return the setting that makes the camera wait for triggers once the file is read, None if
    there is none.
    """
    for s in cfg.startup:
        name, value = _about(*cfg.devices.get(s.device, ("", ""))).get("trigger", ("", ""))
        if s.name == name and s.value.upper() == value.upper():
            return s
    return None
