"""What a page calls by a name of Python is public, is there, and takes what it is given."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import livesr

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "docs" / "tutorials").glob("*.md")),
    *sorted((REPOSITORY / "engines").glob("**/*.md")),
    *sorted((REPOSITORY / "hardware_configs").glob("**/*.md")),
    *sorted((REPOSITORY / "examples").glob("**/*.md")),
]
INTERNAL = {"architecture.md"}  # of the inside, for who changes it
GROUPS = {"modalities", "sinks", "backends", "engines"}  # of entry points
ELSEWHERE = {  # presets, devices and structures, and NanoPyx's class
    "Activation",
    "Channel",
    "ErrorMap",
    "Lysosomes",
    "Trigger",
}
OBJECTS = {
    "sr": ("LiveSR",),
    "frame": ("MulticolorFrame", "SRFrame", "CameraFrame"),
    "subscriber": ("Subscriber",),
    "message": ("Message",),
    "sink": ("Sink",),
    "rig": ("RigConfig",),
}
ENDINGS = {"json", "yaml", "cfg", "py"}
QT = {"LiveSRWidget", "SRPreview"}


@cache
def classes() -> frozenset[str]:
    """The names of all classes of livesr."""
    files = (REPOSITORY / "src" / "livesr").rglob("*.py")
    bodies = (ast.parse(file.read_text("utf-8")).body for file in files)
    return frozenset(n.name for body in bodies for n in body if isinstance(n, ast.ClassDef))


@cache
def functions() -> frozenset[str]:
    """The names of all functions of livesr that are no plain words."""
    files = (REPOSITORY / "src" / "livesr").rglob("*.py")
    bodies = (ast.parse(file.read_text("utf-8")).body for file in files)
    named = {n.name for body in bodies for n in body if isinstance(n, ast.FunctionDef)}
    return frozenset(name for name in named if "_" in name.strip("_"))


@cache
def keys() -> frozenset[str]:
    """The words that what reads and writes stores has."""
    text = "".join(f.read_text("utf-8") for f in (REPOSITORY / "src/livesr/formats").glob("*.py"))
    return frozenset(re.findall(r'"(\w+)"', text))


def spans(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def has(name: str, attribute: str) -> bool:
    kind = getattr(livesr, name)
    fields = {f for c in getattr(kind, "__mro__", ()) for f in getattr(c, "__annotations__", {})}
    said = re.search(rf"^\s*(?:\w+, )*{attribute}(?:, \w+)* :", kind.__doc__ or "", re.M)
    return hasattr(kind, attribute) or attribute in fields or said is not None


def wrong_of(code: str, page: str) -> Iterator[str]:
    """Yield what is wrong with one piece of code that a page names."""
    for name in re.findall(r"\blivesr\.([A-Za-z_]\w*)(?!\w*[-/])", code):
        known = {*livesr.__all__, *GROUPS, *(keys() if page == "store-layout.md" else ())}
        if name not in known and not re.search(rf"livesr\.{name}\b\.?(?:yaml|py|toml)", code):
            yield f"livesr.{name} is not public"
    if found := re.fullmatch(r"([A-Z]\w+)(?:\.(\w+))?(\(.*\))?", code):
        name, attribute, _ = found.groups()
        if name in classes() and name not in {*livesr.__all__, *ELSEWHERE}:
            yield f"{name} is not public"
        if attribute and name in livesr.__all__ and not has(name, attribute):
            yield f"{name} has no {attribute}"
    if found := re.fullmatch(r"(\w+)\.(\w+)\b.*", code):
        of, attribute = found.groups()
        kinds = () if attribute in ENDINGS else OBJECTS.get(of, ())
        if kinds and not any(has(name, attribute) for name in kinds):
            yield f"{' and '.join(kinds)} have no {attribute}"
    for name in re.findall(r"(?<![\w.])(\w+)\(", code):
        if name in functions() and name not in livesr.__all__:
            yield f"{name} is not public"
    yield from wrong_calls(code)


def wrong_calls(code: str) -> Iterator[str]:
    try:
        tree = ast.parse(code, mode="eval")
    except SyntaxError:
        return
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name not in livesr.__all__ or name in QT:
            continue
        takes = inspect.signature(getattr(livesr, name)).parameters
        if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            continue
        for keyword in call.keywords:
            if keyword.arg not in takes:
                yield f"{name} takes no {keyword.arg}"
        if len(call.args) > len(takes):
            yield f"{name} takes {len(takes)} arguments"


@pytest.mark.parametrize(
    "page", [str(p.relative_to(REPOSITORY)) for p in PAGES if p.name not in INTERNAL]
)
def test_python_names_of_a_page_are_public(page: str) -> None:
    path = REPOSITORY / page
    assert [wrong for code in spans(path) for wrong in wrong_of(code, path.name)] == []


def test_pages_name_enough_to_be_looked_at() -> None:
    named = {code for page in PAGES for code in spans(page)}
    assert {"Message.quality", "frame.unknown_light", "livesr.decode"} <= named
    assert any(code.startswith("AuditPlan(") for code in named)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("livesr.formats.wire.decode", "livesr.formats is not public"),
        ("AuditSchedule", "AuditSchedule is not public"),
        ("find_virtual_camera(core)", "find_virtual_camera is not public"),
        ("Pipeline(run)", "Pipeline is not public"),
        ("Sink.recieve", "Sink has no recieve"),
        (
            "frame.colours_of_all",
            "MulticolorFrame and SRFrame and CameraFrame have no colours_of_all",
        ),
        ('LiveSR(core, stor="x")', "LiveSR takes no stor"),
    ],
)
def test_a_name_that_is_not_there_is_found(code: str, wrong: str) -> None:
    assert list(wrong_of(code, "guide.md")) == [wrong]
