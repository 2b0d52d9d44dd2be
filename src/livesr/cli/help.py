"""Help texts that a terminal of 80 columns holds.

Owns their layout: common options first, the others in panels by what they are about, each with most
of the line for its sentence. typer gives a column to types and ranges, which leaves 24 characters.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from livesr.cli.options import PANELS
from livesr.cli.output import console

_WIDEST = 24  # of what stands left of the sentences; what is longer has a line to itself
_VALUES: dict[type, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH", bool: ""}


class Application(typer.Typer):
    """Commands with these help texts; `panel` is that of the commands which are added next."""

    panel: str | None = None

    def command(self, name: str | None = None, **how: Any) -> Any:
        """Return the decorator that adds a command."""
        how.setdefault("cls", Command)
        how.setdefault("rich_help_panel", self.panel)
        return super().command(name, **how)


class Command(TyperCommand):
    """A command whose help is rendered here."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print usage, what it does, and every option in its panel."""
        terminal = console()
        arguments = " ".join(name for name, _ in panels(self, ctx).get("Arguments", ()))
        _say(terminal, f"{ctx.command_path} {arguments}".rstrip() + " [OPTIONS]", self.help)
        for title, rows in panels(self, ctx).items():
            terminal.print(_panel(title, rows))


class Commands(TyperGroup):
    """A group of commands whose help is rendered here."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print usage, the commands by panel, each with its first sentence, and the options."""
        terminal = console()
        _say(terminal, f"{ctx.command_path} COMMAND ...", self.help)
        for title, rows in commands(self, ctx).items():
            terminal.print(_panel(title, rows))
        for title, rows in panels(self, ctx).items():
            terminal.print(_panel(title, rows))


def commands(group: TyperGroup, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return name and first sentence of each command, by panel."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        title = getattr(command, "rich_help_panel", None) or "Commands"
        first = next(paragraphs(command.help or ""), "")
        found.setdefault(title, []).append((name, first))
    return found


def panels(command: TyperCommand | TyperGroup, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return arguments and options with their sentences, by panel; the common ones come first."""
    values = _values(command)
    found: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *PANELS)}
    for p in command.get_params(ctx):
        if getattr(p, "hidden", False):
            continue
        option = p.param_type_name == "option"
        title = getattr(p, "rich_help_panel", None) or ("Options" if option else "Arguments")
        value = p.metavar or values.get(p.name or "", "")
        name = ", ".join(sorted(p.opts, key=len)) if option else str(p.name).upper()
        name = "/".join((name, *p.secondary_opts))
        named = f"{name} {value}".rstrip() if option else p.metavar or name
        if not option and not p.required:
            named = f"[{named}]"
        found.setdefault(title, []).append((named, _sentence(p)))
    return {title: rows for title, rows in found.items() if rows}


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring as lines that a terminal wraps itself.

    Indented lines, which are commands, stay apart.
    """
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        yield re.sub(r"\n(?! )", " ", paragraph)


def _sentence(p: Any) -> str:
    """Return what a parameter is for, and its default."""
    said = getattr(p, "help", None) or ""
    if p.required:
        return f"{said} [dim]\\[required][/]"
    is_no_default = p.default in (None, False, "") or (p.default is True and not p.secondary_opts)
    shown = getattr(p, "show_default", False) and not is_no_default
    if not shown or callable(p.default) or p.default in ((), []):
        return said
    if p.default is True:
        default = p.opts[0]
    elif isinstance(p.default, list | tuple):
        default = " ".join(map(str, p.default))
    else:
        default = str(p.default)
    return f"{said} [dim]\\[default: {default}][/]"


def _values(command: TyperCommand | TyperGroup) -> dict[str, str]:
    """Return a word for the value of every parameter that brings none, from its annotation."""
    if command.callback is None:
        return {}
    own = inspect.signature(command.callback, eval_str=True).parameters
    return {name: _value(p.annotation) for name, p in own.items()}


def _value(kind: Any) -> str:
    if hasattr(kind, "__metadata__"):  # Annotated
        return _value(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) in (list, tuple):
        return " ".join(_value(k) for k in get_args(kind))
    if inside := [k for k in get_args(kind) if k is not NoneType]:
        return _value(inside[0])
    return _VALUES.get(kind, "TEXT")


def _say(terminal: Console, usage: str, text: str | None) -> None:
    terminal.print(f"Usage: {usage}", markup=False, highlight=False)
    for paragraph in paragraphs(text or ""):
        terminal.print()
        for line in paragraph.split("\n"):
            terminal.print(Padding(Text.from_markup(line.strip()), (0, 0, 0, 2)))


def _panel(title: str, rows: Iterable[tuple[str, str]]) -> RenderableType:
    """Return a heading and its rows; what stands left is never wrapped."""
    rows = list(rows)
    wide = max((len(name) for name, _ in rows if len(name) <= _WIDEST), default=_WIDEST)
    shown: list[RenderableType] = [Text(), Text(title, style="bold")]
    for name, sentence in rows:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=wide, no_wrap=True)
        table.add_column(ratio=1)
        said = Text.from_markup(sentence)
        if len(name) > wide:
            shown.append(Text(f"  {name}", style="cyan"))
            table.add_row("", said)
        else:
            table.add_row(Text(name, style="cyan"), said)
        shown.append(Padding(table, (0, 0, 0, 2)))
    return Group(*shown)
