"""`livesr new`: a rig of one's own, from one that is there."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.padding import Padding

from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.base.config import RigConfig

_PORTS = re.compile(r"^Device,([^,]+),SerialManager,", re.MULTILINE)
_CARDS = re.compile(r"^Property,[^,]+,Device,(\S+)$", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z0-9_.:/-]+")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(new)


def new(
    rig: Annotated[
        str,
        typer.Argument(help="Name of the rig, in hardware_configs of this folder; or a path."),
    ],
    source: Annotated[
        str,
        typer.Option("--from", metavar="RIG", help="Rig to copy: the one most like yours."),
    ] = "virtual_sim",
    cfg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Your Micro-Manager configuration, in place of the copied one."
        ),
    ] = None,
    na: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=2.0,
            callback=options.finite,
            metavar="NA",
            help="Numerical aperture of the objective.",
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            max=1e5,
            callback=options.finite,
            metavar="NM",
            help="Camera pixel in the sample.",
        ),
    ] = None,
    exposure: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=options.MAX_EXPOSURE_MS,
            callback=options.finite,
            metavar="MS",
            help="Exposure of one raw frame.",
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help=(
                "Serial port or card in rig.cfg that is another one here, as COM6=COM3 or"
                " Dev1=Dev2; may be given several times."
            ),
        ),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What stands on the table.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: what is not given stays as it was.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Copy a rig and ask for the few values that differ.

    Nothing is asked where an option says it, where no terminal answers, or with --yes. Enter keeps
    what stands in brackets.

    [dim]Example:[/] livesr new my_rig --from tirf_sim

    [dim]Example:[/] livesr new my_rig --from tirf_sim --na 1.45 --pixel-size 81 --rename COM6=COM3
    --yes
    """
    from livesr.base.config import load_rig
    from livesr.base.errors import ConfigError

    out = console(quiet=as_json)
    template = load_rig(source)
    target = Path(rig) if len(Path(rig).parts) > 1 else Path("hardware_configs") / rig
    if target.exists():
        raise ConfigError(f"{target} is there already: choose another name, or remove it.")
    options.to_make(target)
    if cfg is not None and not cfg.is_file():
        raise ConfigError(f"There is no file {cfg}: name the .cfg that Micro-Manager saved.")
    asks = not yes and not as_json and sys.stdin.isatty()
    values = _values(template, asks, na=na, pixel_size=pixel_size, exposure=exposure)
    if description is None:
        description = _asked("What stands on the table", template.description, str, asks)
    own_cfg = cfg or _asked_cfg(asks)
    names = dict(map(_renamed, rename or ()))
    if own_cfg is None and template.cfg_path.is_file():
        names |= {n: _asked(f"Name of {n} here", n, str, asks) for n in _ports(template, names)}
    values |= {"name": target.name.replace("_", " "), "description": description}
    _write(template, target, values, own_cfg, {old: to for old, to in names.items() if old != to})
    made = load_rig(target)
    findings = _say(made, target, out)
    if as_json:
        print_json({"rig": str(target), "from": str(template.folder), "findings": findings})


def _values(rig: RigConfig, asks: bool, **given: float | None) -> dict[str, Any]:
    """Return the numbers to write into rig.yaml, by their place there."""
    optics = rig.optics
    places: dict[str, tuple[str, str, Any]] = {
        "na": ("optics.na", "Numerical aperture of the objective", optics.na),
        "pixel_size": ("optics.pixel_size_nm", "Camera pixel in the sample in nm", None),
        "exposure": ("exposure_ms", "Exposure of one raw frame in ms", rig.exposure_ms),
    }
    values = {}
    for name, (place, question, before) in places.items():
        was = optics.pixel_size_nm if name == "pixel_size" else before
        if (value := given[name]) is None and was is not None:
            value = _asked(question, was, float, asks)
        if value is not None and value != was:
            values[place] = value
    return values


def _asked(question: str, default: Any, kind: type, asks: bool) -> Any:
    if not asks:
        return default
    return typer.prompt(question, default=default, type=kind)


def _asked_cfg(asks: bool) -> Path | None:
    """Ask for a Micro-Manager configuration until there is one, or none is wanted."""
    while asks:
        said = typer.prompt(
            "Your Micro-Manager configuration (Enter: copy the rig's)",
            default="",
            show_default=False,
        )
        if not said:
            return None
        if Path(said).is_file():
            return Path(said)
        typer.echo(f"There is no file {said}.")
    return None


def _renamed(text: str) -> tuple[str, str]:
    old, equals, to = text.partition("=")
    if not equals or not _WORD.fullmatch(old) or not _WORD.fullmatch(to):
        raise typer.BadParameter(f"--rename is {text!r}; expected OLD=NEW, as COM6=COM3.")
    return old, to


def _ports(rig: RigConfig, known: dict[str, str]) -> Iterator[str]:
    """Yield the serial ports and cards of a rig.cfg whose names are those of one computer."""
    from livesr.base.documents import read_text

    text = read_text(rig.cfg_path, errors="surrogateescape")
    for name in dict.fromkeys((*_PORTS.findall(text), *_CARDS.findall(text))):
        if name not in known:
            yield name


def _write(
    rig: RigConfig, target: Path, values: dict[str, Any], cfg: Path | None, names: dict[str, str]
) -> None:
    """Make the folder, whole or not at all."""
    from livesr.base.documents import read_text
    from livesr.base.errors import ConfigError
    from livesr.base.rig_file import write_values

    as_it_is = "surrogateescape"  # Micro-Manager writes labels in the encoding of its computer
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as place:
        made = Path(place) / target.name
        shutil.copytree(rig.folder, made, ignore=shutil.ignore_patterns("*.md", "*.png"))
        written = made / rig.micromanager
        if cfg is not None:
            shutil.copyfile(cfg, written)
        text = read_text(written, errors=as_it_is) if written.is_file() else ""
        if size_nm := values.get("optics.pixel_size_nm"):
            text = _with_pixel_size(text, rig.optics.pixel_size_nm, size_nm)
        text = _with_own_rig(text, rig.folder.name, target)
        for old in names:
            if not re.search(_whole(old), text):
                raise ConfigError(f"{rig.cfg_path} has no {old!r}, which --rename names.")
        if names:
            each = re.compile("|".join(map(_whole, names)))
            text = each.sub(lambda found: names[found.group()], text)
        if text:
            written.write_text(text, encoding="utf-8", errors=as_it_is, newline="\n")
        write_values(made / "rig.yaml", values)
        made.rename(target)


def _with_own_rig(cfg: str, copied: str, target: Path) -> str:
    """Return a rig.cfg whose virtual camera shows the new rig, where it showed the copied one."""
    line = rf"^(#py Property,[^,\n]+,Rig,){re.escape(copied)}[ \t]*$"
    own = target.resolve().as_posix()
    return re.sub(line, lambda found: found[1] + own, cfg, flags=re.MULTILINE)


def _with_pixel_size(cfg: str, old_nm: float | None, new_nm: float) -> str:
    """Return a rig.cfg whose pixel size, where it was that of rig.yaml, is so again."""

    def changed(found: re.Match[str]) -> str:
        same = old_nm is not None and abs(float(found[2]) * 1000 - old_nm) < 1e-6 * old_nm
        return f"{found[1]}{new_nm / 1000:g}" if same else found[0]

    return re.sub(r"^(PixelSize_um,[^,\n]+,)([0-9.]+)", changed, cfg, flags=re.MULTILINE)


def _whole(name: str) -> str:
    return rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])"


def _say(rig: RigConfig, target: Path, out: Console) -> list[dict[str, str]]:
    """Print what a check finds in the new rig, and what comes next; return the findings."""
    from livesr.check.rig import check_rig
    from livesr.modalities.registry import modality

    findings = check_rig(target / "rig.yaml")
    out.print(f"Wrote {escape(str(target))}: rig.cfg for Micro-Manager, rig.yaml for livesr.")
    for f in findings:
        out.print(
            Padding(f"{f.level} {f.place}: {escape(f.says)} {escape(f.advice)}", (0, 0, 0, 2))
        )
    calibrator = modality(rig.modality).calibrator(rig)
    calibrate = (f"livesr calibrate {target}", "what the reconstruction needs")
    if calibrator and calibrator.needs_stack:
        beads = f"{calibrate[0]} --beads STACK.tif --z-step 25"
        calibrate = beads, "a z stack of beads; only where the rig measures z"
    steps = [
        (f"livesr check {target}", "files and names, no device moves"),
        (f"livesr check {target} --hardware", "a few frames"),
        (f"livesr characterise {target} --acquire 200", "offset, gain, flat field"),
        *([calibrate] if calibrator else []),
        (f"livesr run {target} --frames 20 --store first.ome.zarr --view", "the first run"),
    ]
    out.print("Next:")
    for command, what in steps:
        out.print(f"  {escape(command)}\n      [dim]{what}[/]", soft_wrap=True)
    return [
        {"level": f.level, "place": f.place, "says": f.says, "advice": f.advice} for f in findings
    ]
