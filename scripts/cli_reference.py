#!/usr/bin/env python
"""Write docs/cli.md: every command, argument and option.

    python scripts/cli_reference.py

Made of the commands themselves, as ``--help`` shows them. Owns the layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from livesr.cli import app
from livesr.cli.help import commands, panels, paragraphs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Reference of the command line

Made by `python scripts/cli_reference.py` from the commands; edit their help texts there.
`livesr COMMAND --help` prints the same.

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted. With `--json` a command prints
one object on stdout and nothing else. With `--progress` it prints one object a line on stderr while
it works, at most one a second:

```json
{"progress": "SR frames", "done": 12, "total": 100, "sr_fps": 8.1, "latency_ms": 159.0}
```

`progress` says what is counted, `done` and `total` how far it is (`null`: not known); other fields
depend on the command. The last word is the report.
"""


def page() -> str:
    """Return the page."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("livesr", ["info"])
    lines = [HEAD]
    listed = commands(group, context)
    for title, rows in listed.items():
        lines += [f"**{title}**", ""]
        lines += [f"- [`livesr {name}`](#livesr-{name}): {text(said)}" for name, said in rows]
        lines.append("")
    for rows in listed.values():
        for name, _ in rows:
            lines += command(f"livesr {name}", group.get_command(context, name), context)
    return "\n".join(lines).rstrip() + "\n"


def command(path: str, found: Any, context: Any, level: int = 2) -> Iterator[str]:
    """Yield a command's section; those of a group have sections below its own."""
    yield from (f"{'#' * level} {path}", "")
    for paragraph in paragraphs(found.help or ""):
        yield from (shown(paragraph), "")
    if hasattr(found, "commands"):
        for name, inner in found.commands.items():
            yield from command(f"{path} {name}", inner, context, level + 1)
        return
    for title, rows in panels(found, context).items():
        yield from (f"| {title} | |", "|---|---|")
        for name, sentence in rows:
            if not name.startswith("-h"):
                yield f"| `{name.replace('|', BAR)}` | {text(sentence).replace('|', BAR)} |"
        yield ""


def shown(paragraph: str) -> str:
    """Return a paragraph as Markdown; what is an example as code."""
    first, colon, rest = paragraph.partition(":[/] ")
    if colon and first.startswith("[dim]Example"):
        return f"```\n{rest}\n```"
    said, *examples = paragraph.split("\n")
    if said.startswith("[dim]"):
        return "```\n" + "\n".join(line.strip() for line in examples) + "\n```"
    return text(paragraph)


def text(said: str) -> str:
    """Return rich's markup as Markdown."""
    said = re.sub(r"\[/?(?:dim|bold|yellow|red|green)?\]", "", said).replace("\\[", "[")
    return re.sub(r"\[default: ([^\]]*)\]", r"(default: `\1`)", said).replace("[required]", "")


BAR = "\\|"

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
