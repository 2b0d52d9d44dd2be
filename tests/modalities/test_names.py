"""Nothing outside its folder names a modality: a new one is added without touching what exists.

What is looked at are tokens: identifiers, and keys and values in string constants. Docstrings and
comments may say what they like, and sentences for users may say SIM.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import livesr

PACKAGE = Path(livesr.__file__).parent
NAMES = (
    "sim",
    "storm",
    "fluctuation",
    "passthrough",
)  # widefield is also a word of microscopy: what a mean shows

ALLOWED = {
    "__init__.py": "where what users import stands",
    "modalities/registry.py": "the one line that lists each",
    "live/sources/mda.py": "RAW_AXIS, the axis of raw frames in users' plans, of every modality",
    "simulation/rig.py": "copies of a virtual rig name it in their rig.cfg",
    "training/images.py": "the names that files of BioSR have",
}
"""Files that may, and why."""

PUBLIC = re.compile(r"\b(sim_sequence|SIMAxis|sim_raw|virtual_(sim|storm|fluctuation))\b")
"""What users write, whatever the modality; and rigs by their names."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def words_of(text: str) -> set[str]:
    """Words of a token, in small letters: of SIMConfig and of "sim.trigger" too.

    Of a sentence those that are written in small letters, as keys and values are.
    """
    words = _WORDS.findall(PUBLIC.sub("", text))
    return {word if " " in text else word.lower() for word in words}


def tokens(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Identifiers and string constants of a file, docstrings aside, with their lines."""
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documents:
                yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.alias):
            yield node.lineno, node.name
            if node.asname:
                yield node.lineno, node.asname
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def named_in(file: Path) -> list[str]:
    """Places of a file that name a modality whose folder it is not in."""
    place = file.relative_to(PACKAGE).as_posix()
    foreign = {name for name in NAMES if not place.startswith(f"modalities/{name}/")}
    if place.startswith("modalities/widefield/"):
        foreign.discard("passthrough")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return sorted(
        {
            f"{place}:{line}: {text[:60]!r}"
            for line, text in tokens(tree)
            if words_of(text) & foreign
        }
    )


def test_no_file_outside_its_folder_names_a_modality() -> None:
    found = {
        file.relative_to(PACKAGE).as_posix(): places
        for file in sorted(PACKAGE.rglob("*.py"))
        if (places := named_in(file))
    }
    unexpected = [
        place for file, places in found.items() if file not in ALLOWED for place in places
    ]
    assert not unexpected, "\n" + "\n".join(unexpected)
    settled = sorted(ALLOWED.keys() - found.keys())
    assert not settled, f"these name none any more: take them off the list: {settled}"


def test_it_sees_identifiers_and_constants_and_no_prose(tmp_path: Path) -> None:
    source = (
        '"""SIM and STORM."""\n'
        "import livesr.modalities.sim.quality as q\n"
        "SIMReconstructor = rig.sim  # sim\n"
        'place = "sim.trigger"\n'
        'other = f"{x} storm_rig"\n'
        'fine = "similar simulation", "frames of SIM", sim_sequence\n'
    )
    lines = {line for line, text in tokens(ast.parse(source)) if words_of(text) & set(NAMES)}
    assert lines == {2, 3, 4, 5}
