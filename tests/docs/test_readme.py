"""The README keeps its word.

Its commands are those that CI runs, its snippet runs, its links lead somewhere.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from own_process import said_by

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    p
    for p in REPOSITORY.rglob("*.md")
    if not {".venv", "node_modules", ".hypothesis"} & set(p.parts)
]


def blocks(language: str) -> list[str]:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def test_ci_runs_the_test_command() -> None:
    commands = [line for block in blocks("") for line in block.splitlines()]
    assert 'pip install ".[demo]" && livesr demo' in commands
    (command,) = [c for c in commands if c.endswith("&& pytest")]
    install = command.removesuffix(" && pytest").removeprefix("pip install ")
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert f"pip install -q {install}\npytest || .ci/again $?\n" in script


def test_the_public_host_runs_what_ci_runs() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    workflow = yaml.safe_load(
        (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    )
    steps = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    for command in (
        'pip install -c constraints.txt -e ".[dev]"',
        "pytest || .ci/again $?",
        ".ci/audit",
    ):
        assert command in steps
        assert command.replace("install", "install -q") in script
    linters = script.rstrip().rpartition("\n\n")[2].splitlines()
    assert len(linters) >= 4
    assert set(linters) <= set(steps)


def test_the_snippet_runs(tmp_path: Path) -> None:
    (snippet,) = blocks("python")
    script = snippet.replace(":5555", ":*").replace("run.ome.zarr", str(tmp_path / "run.ome.zarr"))
    *frames, last = said_by("-c", script, cwd=tmp_path).splitlines()
    assert last.endswith("frames separated")
    assert len(frames) == int(last.split()[0]) > 0, "it emits frames"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (page.parent / target).exists(), target
