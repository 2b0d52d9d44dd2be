"""docs/reliability.md names a test for every fault, as `pytest` takes it; each is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
NODE = r"`(tests/[\w/]+\.py)::((?:Test\w+::)?test_\w+)`"
NAMED = re.findall(NODE, PAGE)


def node_names(tree: ast.Module) -> Iterator[str]:
    """Names of the tests of a file as in a node id: those of a class after its name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef)
            )


def test_every_row_names_one() -> None:
    faults = PAGE.partition("\n## ")[0]
    rows = [line for line in faults.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert all(re.search(NODE + r" \|$", row) for row in rows)


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_it_exists(file: str) -> None:
    known = set(node_names(ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))))
    assert {test for named, test in NAMED if named == file} <= known
