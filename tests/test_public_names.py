"""The public boundary: what livesr exports, and that nothing shown to users goes past it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import livesr

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "livesr" / "__init__.py"
QT = {"LiveSRWidget", "SRPreview"}  # need the extras `gui` and `viewer`


def imported(code: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every import from livesr in some Python."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "livesr":
            yield from ((node.module or "", alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.startswith("livesr."))


def snippets(text: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in blocks if language in ("", "python")]


def shown() -> dict[str, list[str]]:
    """Code that users read, by file: examples, and blocks of the documents that import livesr."""
    found = {path.name: [path.read_text("utf-8")] for path in REPOSITORY.glob("examples/**/*.py")}
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))):
        blocks = snippets(path.read_text("utf-8"))
        found[path.name] = [b for b in blocks if re.search(r"^(from|import) livesr", b, re.M)]
    return {name: code for name, code in found.items() if code}


@pytest.mark.parametrize("file", sorted(shown()))
def test_what_users_read_imports_public_names_alone(file: str) -> None:
    for code in shown()[file]:
        for module, name in imported(code):
            assert module == "livesr", f"{file} imports {name or 'all'} from {module}"
            assert name in livesr.__all__


def test_examples_and_documents_are_looked_at() -> None:
    assert {"headless_sim.py", "median.py", "README.md", "guide.md"} <= shown().keys()


@pytest.mark.parametrize("name", livesr.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    if name in QT:
        pytest.importorskip("ndv")
        pytest.importorskip("qtpy")
    value = getattr(livesr, name)
    assert name in dir(livesr)
    if isinstance(value, type) or callable(value):
        assert len(value.__doc__ or "") > 10


def test_type_checkers_see_what_python_sees() -> None:
    (checking,) = (
        node
        for node in ast.parse(SOURCE.read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname: node.module
        for node in checking.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == livesr._MODULE_OF


def test_the_page_lists_what_is_public() -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(livesr.__all__)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="livse"):
        livesr.livse  # noqa: B018


def test_importing_livesr_loads_nothing_heavy() -> None:
    heavy = ["numpy", "pydantic", "pymmcore", "zarr", "zmq", "openvino", "torch", "scipy"]
    code = f"import sys, livesr; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MISTAKES = {
    "LiveSR(core, rig='x', polcy='latest')": 'did you mean "policy"',
    "LiveSR(None, rig='x')": 'expected "CMMCorePlus"',
    "LiveSR(core, rig='x', policy='newest')": 'expected "Literal[',
    "Replay('x', live='own')": 'Unexpected keyword argument "live"',
    "frame[3]": 'expected type "str"',
}


@pytest.mark.slow
def test_mistakes_are_seen_by_a_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(
        "from pymmcore_plus import CMMCorePlus\n"
        "from livesr import LiveSR, MulticolorFrame, Replay\n"
        "def do(core: CMMCorePlus, frame: MulticolorFrame) -> None:\n    "
        + "\n    ".join(MISTAKES),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    errors = dict(found.groups() for found in re.finditer(r":(\d+): error: (.*)", done.stdout))
    assert len(errors) == len(MISTAKES), done.stdout
    for line, sentence in enumerate(MISTAKES.values(), 4):
        assert sentence in errors[str(line)]
