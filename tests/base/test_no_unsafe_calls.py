"""Nothing that livesr reads can run code.

The source is searched for the calls with which it could.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import livesr

SOURCES = sorted(Path(livesr.__file__).parent.rglob("*.py"))
UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
EXECUTE = {"eval", "exec", "compile", "__import__"}
LOADERS = {"load", "load_all", "full_load", "unsafe_load"}


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            if found := {n.partition(".")[0] for n in names} & UNPICKLE:
                yield node.lineno, f"imports {found}"
        elif isinstance(node, ast.Call):
            yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[tuple[int, str]]:
    name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    owner, _, last = name.rpartition(".")
    if not owner and last in EXECUTE:
        yield node.lineno, f"calls {name}"
    if owner == "yaml" and last in LOADERS:
        yield node.lineno, f"calls {name}"
    if owner == "torch" and last == "load" and given.get("weights_only") != "True":
        yield node.lineno, "torch.load without weights_only=True"
    if given.get("allow_pickle", "False") != "False":
        yield node.lineno, f"{name} may unpickle"
    if given.get("shell", "False") != "False" or name == "os.system":
        yield node.lineno, f"{name} through a shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_no_unsafe_call(path: Path) -> None:
    assert not list(unsafe(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "yaml.load(file)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert list(unsafe(ast.parse(line)))
