"""docs/cli.md is what the commands say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from livesr import cli

REPOSITORY = Path(__file__).parents[2]
REFERENCE = runpy.run_path(str(REPOSITORY / "scripts" / "cli_reference.py"))


def test_the_page_is_up_to_date() -> None:
    written = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == REFERENCE["page"](), "run python scripts/cli_reference.py"


def test_every_command_of_the_help_has_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    cli._run(["--help"])
    page = REFERENCE["page"]()
    listed = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:3].strip(" ")
        and line.startswith("  ") and not line.startswith("  -")
    ]  # fmt: skip
    assert {"demo", "run", "engine", "new"} <= set(listed)
    for name in {"demo", "run", "engine", "new", "bench"}:
        assert f"## livesr {name}\n" in page
    for markup in ("[dim]", "[/]", "\\["):
        assert markup not in page
