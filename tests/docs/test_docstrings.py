"""Docstrings have one style: numpy's sections, an entry as ``name : what it is``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "livesr"
SECTIONS = r"Examples|Parameters|Attributes|Returns|Yields|Raises|Notes|Warns|See Also|References"
ENTRY = r"\*{0,2}\w+(, \*{0,2}\w+)* : \S"


def docstrings() -> Iterator[tuple[str, str]]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                name = getattr(node, "name", "module")
                yield f"{path.relative_to(SOURCE)}: {name}", text


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the headings of a docstring with what is below each."""
    parts = re.split(rf"(?m)^({SECTIONS})\n-{{3,}}\n", text)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        yield heading, body.rstrip().split("\n")


def test_parameters_and_attributes_are_entries() -> None:
    wrong = [
        f"{where}: {line}"
        for where, text in docstrings()
        for heading, body in sections(text)
        if heading in ("Parameters", "Attributes")
        for line in body
        if line.strip() and not line.startswith(" ") and not re.match(ENTRY, line)
    ]
    assert not wrong


def test_what_is_raised_is_named_above_its_reason() -> None:
    wrong = [
        f"{where}: {line}"
        for where, text in docstrings()
        for heading, body in sections(text)
        if heading == "Raises"
        for line in body
        if line.strip() and not line.startswith(" ") and not re.fullmatch(r"\w+(, \w+)*", line)
    ]
    assert not wrong


def test_underlines_are_as_long_as_their_headings() -> None:
    wrong = [
        f"{where}: {heading}"
        for where, text in docstrings()
        for heading, line in re.findall(r"(?m)^(\w[\w ]*)\n(-{3,})$", text)
        if len(heading) != len(line)
    ]
    assert not wrong
