#!/usr/bin/env python
"""Measures how large the classes and functions of Python packages are.

    python scripts/house_metrics.py                        # src/livesr
    python scripts/house_metrics.py ../ome_writers src/livesr/live

For each folder: the ten classes with most fields, those with most methods and the largest records,
the length of functions, and the functions with more than six parameters. For livesr also how many
files one frame visits. `docs/architecture.md` shows the numbers; `tests/docs/test_house.py` holds
the limits.

How it counts, from the syntax alone:

fields
    Names that any method assigns to its first argument (``self.x = ...``, ``self.x: int``), and
    names that the class body annotates (fields of dataclasses, named tuples and models), `ClassVar`
    aside. What a base class has is counted there.

Methods
-------
    Functions of the class body, properties and special methods included; `@overload` aside.
lines of a function
    From ``def`` to its last line, without its docstring, and without what is in functions inside
    it, which count for themselves. One that has nothing but a docstring, or ``...``, is left out.
parameters
    All but the first of a method (`self`, `cls`); ``*args`` and ``**kwargs`` count one each.
files that one frame visits
    Different files that CONTRIBUTING names in its section "The way of one frame": those of the
    classes that take a frame and hand it on. What such a class asks, and has an answer of, is its
    own affair.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LARGEST = 10
MAX_PARAMETERS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class ClassSize:
    """A class, as `module.py:Name`, and how much it has.

    A record declares its fields and assigns none: a row of a file, a message, settings.
    """

    name: str
    fields: int
    methods: int
    record: bool


@dataclass(frozen=True, slots=True)
class FunctionSize:
    """A function, as `module.py:Class.name`, its lines and its parameters."""

    name: str
    lines: int
    parameters: int


@dataclass(frozen=True, slots=True)
class House:
    """The classes and functions of one folder."""

    classes: list[ClassSize]
    functions: list[FunctionSize]

    def most(self, of: str, *, records: bool = False) -> list[ClassSize]:
        """Return the classes, or the records, that have most `fields` or `methods`."""
        found = [c for c in self.classes if c.record == records]
        return sorted(found, key=lambda c: (-getattr(c, of), c.name))[:LARGEST]

    @property
    def crowded(self) -> list[FunctionSize]:
        """Functions with more than six parameters, those with most first."""
        found = [f for f in self.functions if f.parameters > MAX_PARAMETERS]
        return sorted(found, key=lambda f: (-f.parameters, f.name))

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Median, 95th percentile and largest number of lines of a function; 0 without any."""
        lines = sorted(f.lines for f in self.functions)
        if not lines:
            return 0, 0, 0
        return round(statistics.median(lines)), lines[int(0.95 * (len(lines) - 1))], lines[-1]


def measure(folder: Path) -> House:
    """Measure every Python file below `folder`, tests aside."""
    house = House([], [])
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder)
        if "tests" not in place.parts:
            _measure_body(ast.parse(path.read_text(encoding="utf-8")), f"{place}:", False, house)
    return house


def _measure_body(parent: ast.AST, name: str, in_class: bool, house: House) -> None:
    """Note the classes and functions inside `parent`, whose own name is `name`."""
    for node in _definitions(parent):
        if isinstance(node, ast.ClassDef):
            house.classes.append(_class_size(f"{name}{node.name}", node))
        elif lines := lines_of(node):
            static = any(_named(d) == "staticmethod" for d in node.decorator_list)
            parameters = parameters_of(node) - (in_class and not static)
            house.functions.append(FunctionSize(f"{name}{node.name}", lines, parameters))
        _measure_body(node, f"{name}{node.name}.", isinstance(node, ast.ClassDef), house)


def _class_size(name: str, node: ast.ClassDef) -> ClassSize:
    assigned, methods = assigned_by(node), len(methods_of(node))
    return ClassSize(name, len(assigned | declared_by(node)), methods, not assigned)


def _definitions(parent: ast.AST) -> Iterator[ast.ClassDef | Function]:
    """Classes and functions directly inside `parent`, in whatever statement they stand."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            yield from _definitions(node)


def methods_of(node: ast.ClassDef) -> list[Function]:
    """Return the methods of a class; further signatures of one are no methods."""
    functions = [f for f in node.body if isinstance(f, _FUNCTIONS)]
    return [f for f in functions if not any(_named(d) == "overload" for d in f.decorator_list)]


def declared_by(node: ast.ClassDef) -> set[str]:
    """Return the fields that the body of a class annotates."""
    return {
        line.target.id
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and "ClassVar" not in ast.unparse(line.annotation)
        and line.target.id != "_"  # dataclasses.KW_ONLY
    }


def assigned_by(node: ast.ClassDef) -> set[str]:
    """Return the fields that the methods of a class assign."""
    found: set[str] = set()
    for method in methods_of(node):
        arguments = [*method.args.posonlyargs, *method.args.args]
        if arguments:
            found |= _assigned_to(arguments[0].arg, method)
    return found


def _assigned_to(name: str, method: Function) -> set[str]:
    """Return the attributes of `name` that a method assigns."""
    return {
        n.attr
        for n in ast.walk(method)
        if isinstance(n, ast.Attribute)
        and isinstance(n.ctx, ast.Store)
        and isinstance(n.value, ast.Name)
        and n.value.id == name
    }


def lines_of(node: Function) -> int:
    """Return a function's lines without its docstring and what is defined inside; 0 for a stub."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if not body or all(_is_ellipsis(line) for line in body):
        return 0
    docstring = node.body[0] if body is not node.body else None
    lines = _span(node) - (_span(docstring) if docstring else 0)
    return lines - sum(_span(inner) for line in body for inner in _outermost(line))


def _span(node: ast.AST) -> int:
    """Lines from the first to the last of a statement, decorators aside."""
    assert isinstance(node, ast.stmt)
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _outermost(node: ast.AST) -> Iterator[ast.ClassDef | Function]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    else:
        yield from _definitions(node)


def _is_ellipsis(line: ast.stmt) -> bool:
    value = getattr(line, "value", None)
    return isinstance(value, ast.Constant) and value.value is Ellipsis


def parameters_of(node: Function) -> int:
    """Return how many parameters a function has, the first of a method included."""
    given = node.args
    plain = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    return plain + (given.vararg is not None) + (given.kwarg is not None)


def _named(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).rpartition(".")[2]


def files_of_a_frame(contributing: str) -> list[str]:
    """Return the files that a frame visits, in the order in which CONTRIBUTING names them first."""
    title, _, told = contributing.partition("way of one frame")
    section = re.split(r"\n(?:#|\*\*)", told, maxsplit=1)[0] if title != contributing else ""
    return list(dict.fromkeys(re.findall(r"`([\w/]+\.py)`", section)))


def show(folder: Path) -> None:
    """Print what was measured in a folder."""
    house = measure(folder)
    median, p95, longest = house.lengths
    print(f"{folder}: {len(house.classes)} classes, {len(house.functions)} functions\n")
    print(f"lines of a function: median {median}, 95th percentile {p95}, most {longest}")
    for title, of, records in (
        ("most fields", "fields", False),
        ("most methods", "methods", False),
        ("largest records, by fields", "fields", True),
    ):
        print(f"{title}:")
        for size in house.most(of, records=records):
            print(f"  {getattr(size, of):4} {size.name}")
    print(f"functions with more than {MAX_PARAMETERS} parameters: {len(house.crowded)}")
    for function in house.crowded[:LARGEST]:
        print(f"  {function.parameters:4} {function.name}")
    print()


def main() -> None:
    """Print the metrics of the folders that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[REPOSITORY / "src" / "livesr"])
    for folder in parser.parse_args().folders:
        show(folder)
    told = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    print(f"files that one frame visits: {len(files_of_a_frame(told)) or 'not told'}")


if __name__ == "__main__":
    main()
