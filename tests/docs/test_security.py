"""The threat model: every line of it names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from fuzz.readers import READERS

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [
    line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what |")
]


def named(row: str) -> list[str]:
    """The tests in the last column."""
    return re.findall(r"`(tests/[^`]+)`", row.rstrip(" |").rpartition(" | ")[2])


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_is_a_threat_model() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_line_is_shown_by_a_test(row: str) -> None:
    assert named(row)
    for name in named(row):
        path, _, function = name.partition("::")
        assert (REPOSITORY / path).is_file()
        if function:
            assert function in functions(REPOSITORY / path)


def test_every_reader_is_tried_every_night() -> None:
    nightly = yaml.safe_load(
        (REPOSITORY / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    )
    (tried,) = (
        job["strategy"]["matrix"]["reader"]
        for job in nightly["jobs"].values()
        if "reader" in job.get("strategy", {}).get("matrix", {})
    )
    assert sorted(tried) == sorted(READERS)


def test_the_limits_are_those_of_the_code() -> None:
    from livesr.base import archives, array_limits, documents

    for said in (
        f"at most {documents.MAX_BYTES >> 20} MB, {documents.MAX_DEPTH} levels",
        f"{documents.MAX_VALUES:,} values",
        f"unpacks to {archives.MAX_BYTES >> 30} GiB and to {archives.MAX_RATIO} times",
        f"2^{array_limits.MAX_ALONG_AN_AXIS.bit_length() - 1} places",
        f"2^{array_limits.MAX_PIXELS_A_SIDE.bit_length() - 1} pixels",
        f"{array_limits.MAX_CHUNK_BYTES >> 30} GiB in a chunk",
    ):
        assert said in " ".join(PAGE.split())
