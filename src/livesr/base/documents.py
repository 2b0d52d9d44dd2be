"""YAML and JSON of any origin.

Understood, or refused in a sentence before they take time or memory.

Owns the limits on size, depth, aliases and numbers, and every call of a YAML or JSON parser. Knows
no key: what a document must hold is said by the models that are given its data.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from livesr.base.errors import DocumentError

if TYPE_CHECKING:
    from yaml._yaml import CParser as _Parser
else:
    try:
        from yaml.cyaml import CParser as _Parser
    except ImportError:  # PyYAML without libyaml: the same, six times slower
        from yaml.parser import Parser
        from yaml.reader import Reader
        from yaml.scanner import Scanner

        class _Parser(Reader, Scanner, Parser):
            def __init__(self, text: str) -> None:
                Reader.__init__(self, text)
                Scanner.__init__(self)
                Parser.__init__(self)


MAX_BYTES: Final = 16 << 20
"""Of a document; a plan of 10,000 positions has 2 MB."""

MAX_DEPTH: Final = 64
"""Levels of lists and mappings inside each other; an engine's manifest has 6."""

MAX_VALUES: Final = 250_000
"""Of a YAML document.

Those behind an alias count as often as it is used, and 100 characters of text as one.
"""

MAX_DIGITS: Final = 100
"""Characters of a number."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


class _Resolver(Resolver):
    """What plain text means: 1:30 and 010 are text.

    YAML 1.1, PyYAML's own, reads them as 90 and 8, which nobody means who names a channel so. What
    PyYAML writes as text stays text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        letter: [(tag, form) for tag, form in forms if tag not in _NUMBERS]
        for letter, forms in Resolver.yaml_implicit_resolvers.items()
    }


_Resolver.add_implicit_resolver(
    _NUMBERS[0],
    re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"),
    list("-+0123456789"),
)
_Resolver.add_implicit_resolver(
    _NUMBERS[1],
    re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


class _Loader(Composer, _Parser, SafeConstructor, _Resolver):
    """PyYAML's safe loader with limits, and without numbers of base 8 and 60."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        _Resolver.__init__(self)
        self._level = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # (values, levels) of every finished node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        mark = getattr(self.peek_event(), "start_mark", None)
        self._level += 1
        if self._level > MAX_DEPTH:
            raise _TooMuch(f"more than {MAX_DEPTH} levels inside each other", mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        if is_alias and id(node) not in self._sizes:
            raise _TooMuch("a value that contains itself", mark)
        if node is not None and not is_alias:
            self._sizes[id(node)] = self._measure(node, mark)
        return node

    def _measure(self, node: yaml.Node, mark: Any) -> tuple[int, int]:
        """Return how many values and levels are in `node`, aliases followed."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
                raise _TooMuch(f"a number of {len(node.value)} characters", mark)
            return 1 + len(node.value) // 100, 1
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(node)
        inside = [self._sizes[id(child)] for child in _children(node)]
        values, levels = 1 + sum(n for n, _ in inside), 1 + max((n for _, n in inside), default=0)
        if values > MAX_VALUES:
            raise _TooMuch(f"more than {MAX_VALUES:,} values, those behind aliases counted", mark)
        if levels > MAX_DEPTH:
            raise _TooMuch(f"more than {MAX_DEPTH} levels inside each other", mark)
        return values, levels


def _refuse_twice(node: yaml.MappingNode) -> None:
    """Refuse a key that is given twice: only the last of its values would count."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add((key.tag, key.value))


class _TooMuch(yaml.MarkedYAMLError):
    """A limit is exceeded."""

    def __init__(self, what: str, mark: Any) -> None:
        super().__init__(None, None, what, mark)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    else:
        yield from node.value


def read_text(path: Path, max_bytes: int = MAX_BYTES, errors: str = "strict") -> str:
    """Read a text file in UTF-8, whatever its line ends.

    `errors` is for bytes that are none, as `open` takes it.

    Raises
    ------
    DocumentError
        If it is no file, cannot be read, is larger than `max_bytes`, or is not UTF-8.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # reading a pipe or a device may never end
            raise DocumentError(f"{path} is no file, expected a text file.")
        if about.st_size <= max_bytes:
            with path.open(encoding="utf-8", errors=errors) as file:
                text = file.read(max_bytes + 1)
            if len(text) <= max_bytes:
                return text
    except OSError as e:
        raise DocumentError(f"Cannot read {path}: {e.strerror or e}.") from e
    except UnicodeDecodeError as e:
        raise DocumentError(f"{path} is not text in UTF-8: byte {e.start} cannot be.") from e
    raise DocumentError(
        f"{path} has {about.st_size / 1e6:.0f} MB; at most {max_bytes / 1e6:.0f} MB are read as"
        " text."
    )


def read_yaml(path: Path) -> Any:
    """Read a YAML file: plain values only, as of `parse_yaml`.

    Raises
    ------
    DocumentError
        As of `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return the plain values (dict, list, str, int, float, bool, None, dates) of a YAML text.

    Raises
    ------
    DocumentError
        If it is no YAML, names a Python object, or is larger or deeper than the limits. `source`
        names it in the sentence.
    """
    return _loaded(text, source, lambda loader: loader.get_single_data())


def compose_yaml(text: str, source: str) -> yaml.Node | None:
    """Return the nodes of a YAML text, with their places in it; None if it is empty.

    Raises
    ------
    DocumentError
        As of `parse_yaml`.
    """
    node: yaml.Node | None = _loaded(text, source, lambda loader: loader.get_single_node())
    return node


def _loaded(text: str, source: str, how: Any) -> Any:
    try:
        return how(_Loader(text))
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        # What ends too early does so, to libyaml, behind the last line.
        line = f", line {min(mark.line, text.rstrip().count(chr(10))) + 1}" if mark else ""
        problem = getattr(e, "problem", None) or getattr(e, "reason", None) or str(e)
        said = "holds" if isinstance(e, _TooMuch) else "is not valid YAML:"
        raise DocumentError(f"{source}{line} {said} {problem}.") from e
    except (
        Exception
    ) as e:  # what PyYAML's constructors stumble over: 2025-02-30 is no date, "!!int x" no number
        raise DocumentError(
            f"{source} holds a value that cannot be what it looks like: {e}. Quote text."
        ) from e


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    DocumentError
        As of `read_text` and `parse_json`.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str | bytes, source: str, max_bytes: int = MAX_BYTES) -> Any:
    """Return what a JSON text says.

    Raises
    ------
    DocumentError
        If it is no JSON, or larger or deeper than the limits. `source` names it in the sentence.
    """
    if len(text) > max_bytes:
        raise DocumentError(
            f"{source} has {len(text) / 1e6:.0f} MB; at most {max_bytes / 1e6:.0f} MB are read as"
            " JSON."
        )
    try:
        value = json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as e:
        raise DocumentError(f"{source}, line {e.lineno} is not JSON: {e.msg}.") from e
    except RecursionError as e:
        raise DocumentError(
            f"{source} holds more than {MAX_DEPTH} levels inside each other."
        ) from e
    except ValueError as e:  # not UTF-8, a number of a thousand digits
        raise DocumentError(f"{source} is not JSON: {e}.") from e
    # Nothing nests deeper than it has brackets: what is short needs no walk.
    brackets = (b"[", b"{") if isinstance(text, bytes) else ("[", "{")
    if sum(map(text.count, brackets)) > MAX_DEPTH and _depth(value) > MAX_DEPTH:  # type: ignore[arg-type]
        raise DocumentError(f"{source} holds more than {MAX_DEPTH} levels inside each other.")
    if (b"\\ud" if isinstance(text, bytes) else "\\ud") in text.lower():  # type: ignore[operator]
        _refuse_half_letters(value, source)
    return value


def _refuse_half_letters(value: Any, source: str) -> None:
    r"""Refuse text that is none.

    Half of a letter, as "\ud800", could be neither printed nor written.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        raise DocumentError(
            f"{source} holds half of a letter, {e.object[e.start]!r}, which is no text."
        ) from e


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that every reader accepts.

    NaN and infinity become null, -0.0 becomes 0.0, paths and arrays of numbers their plain form.
    What is no Unicode in a name, as in the paths of old disks, becomes a question mark.
    """
    text = json.dumps(
        _plain(value), indent=indent, ensure_ascii=False, allow_nan=False, default=str
    )
    return text.encode("utf-8", "replace").decode()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return float(value) + 0.0 if math.isfinite(value) else None  # -0.0 is 0.0
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    # numpy scalars and arrays
    return _plain(value.tolist()) if hasattr(value, "tolist") else value
