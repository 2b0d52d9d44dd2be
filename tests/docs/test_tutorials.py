"""Tutorials and the notebook are run as a reader would; commands in pages exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import livesr
from livesr.cli import app
from own_process import said_by

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("tutorials/*.md"))]


def test_the_script_of_the_tutorial_runs(tmp_path: Path) -> None:
    page = (DOCS / "tutorials" / "script.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    said = said_by("-c", code, cwd=tmp_path)
    assert said.count("residual") == 5
    assert "5 separated, 0 raw frames lost" in said


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    notebook = json.loads((DOCS / "notebooks" / "read-a-run.ipynb").read_text(encoding="utf-8"))
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c["outputs"] for c in cells), "kept without outputs"
    code = "\n".join("".join(c["source"]) for c in cells)
    said = said_by("-c", f"import matplotlib; matplotlib.use('agg')\n{code}", cwd=tmp_path)
    assert "4 frames separated, 0 raw frames lost" in said
    assert "sr (4, 3, 512, 512)" in said
    assert said.count("residual") == 4


def _commands() -> list[tuple[str, str]]:
    """Every `livesr ...` that a page shows in a block of commands."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```(\S*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
        for block in (content for language, content in blocks if not language):
            found += [
                (page.name, line.strip())
                for line in block.splitlines()
                if line.strip().startswith("livesr ") and not line.strip().startswith("livesr -")
            ]
    return found


def test_commands_in_pages_exist_with_their_options() -> None:
    group = typer.main.get_command(app)
    shown = _commands()
    assert len(shown) > 25
    for page, line in shown:
        line = re.split(r" #| {3,}|\s[|>&]", line)[0]
        words = shlex.split(line.replace("\\", "/"))[1:]
        command = group.commands.get(words[0])
        assert command is not None, (page, line)
        if hasattr(command, "commands"):
            command = command.commands[words[1]]
        known = {name for p in command.params for name in p.opts} | {"--help"}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= known, (page, line)


OF_OTHERS = {
    "--help",
    "--nthreads",
    "--nworkers",
    "--pixelsize",
    "--plugin",
}  # Dask, Picasso, napari


def test_options_that_pages_name_exist() -> None:
    known = OF_OTHERS | _options(typer.main.get_command(app))
    for script in (DOCS.parent / "scripts").glob("*.py"):
        known |= set(re.findall(r'"(--[a-z][a-z0-9-]+)"', script.read_text(encoding="utf-8")))
    pages = [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"), *DOCS.parent.glob("*/*/README.md")]
    for page in pages:
        if page.name == "CHANGELOG.md":  # of former versions too
            continue
        named = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page.read_text(encoding="utf-8"))
        assert set(named) <= known, page


@pytest.mark.parametrize(
    ("commands", "sources"),
    [
        ("export process", ["store/exports"]),  # a file says how it is read again
        ("backfill", ["store/backfill.py"]),
        ("process", ["store/process.py", "store/raw_input.py", "live/sources/recordings"]),
        ("repair", ["store/repair.py"]),
    ],
)
def test_options_that_messages_name_are_those_of_the_command_that_says_them(
    commands: str, sources: list[str]
) -> None:
    group = typer.main.get_command(app)
    known = set().union(*(_options(group.commands[name]) for name in commands.split()))
    for source in sources:
        place = Path(livesr.__file__).parent / source
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            words = re.sub(r'"\s+f?"', "", file.read_text(encoding="utf-8"))
            of_others = re.findall(r"livesr [a-z]+[^'\"]*'", words)
            named = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", words)
            named_of_others = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", " ".join(of_others))
            assert set(named) - set(named_of_others) <= known, file.name


def _options(command: Any) -> set[str]:
    own = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    return own.union(*map(_options, getattr(command, "commands", {}).values()))


def test_files_that_pages_name_in_a_store_are_where_its_layout_has_them() -> None:
    layout = (DOCS / "store-layout.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```text\n(run\.ome\.zarr/.*?)^```", layout, re.MULTILINE | re.DOTALL)
    top, _, inner = tree.partition("└── livesr/")
    named = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named += [
            (page.name, folder, name)
            for folder, name in re.findall(
                r"\w+\.ome\.zarr/(livesr/)?([\w-]+\.(?:csv|jsonl?|yaml|cfg))", text
            )
        ]
    assert named
    for page, folder, name in named:
        assert name in (inner if folder else top), (page, folder + name)
