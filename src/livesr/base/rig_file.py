"""Values in a YAML file, changed in its text.

Comments, order and everything else stay as a person wrote them.

Owns the change of single values, and how a file beside a rig is read and replaced. Knows no rig.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from livesr.base.config import M, load_yaml, parse
from livesr.base.documents import compose_yaml, parse_yaml, read_text
from livesr.base.errors import ConfigError, DocumentError
from livesr.base.files import remove, replace_file

_ENDS = "# The last line is '...': without it the file was cut short.\n"
_END = "..."


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Set values of a YAML file by their place, such as ``{"camera.gain_e_per_adu".

    0.46}``, at once.

    Raises
    ------
    ConfigError
        If the file cannot be read or written, or is written in a way that cannot be changed safely;
        it stays as it was.
    """
    try:
        text = with_values(read_text(path), values, str(path))
    except DocumentError as e:
        raise ConfigError(str(e)) from e
    write(path, text)


def write(path: Path, text: str) -> None:
    """Write a file beside a rig, over what is there, at once.

    Raises
    ------
    ConfigError
        If it cannot be written; it stays as it was.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        replace_file(new, path)
    except OSError as e:
        remove(new)
        raise ConfigError(
            f"Cannot write {path}: {e.strerror or e}. Make its folder writable, or take a copy of"
            " the rig that is yours."
        ) from e


def write_measured(path: Path, head: str, values: Mapping[str, Any]) -> None:
    """Write what was measured of a rig, below the comment `head`, such that a cut is seen.

    Raises
    ------
    ConfigError
        If it cannot be written; what was there stays.
    """
    body = yaml.safe_dump(values, sort_keys=False, width=100)
    write(path, f"# {head}\n{_ENDS}{body}{_END}\n")


def read(kind: type[M], path: Path, command: str) -> M:
    """Read a file that 'livesr `command`' has written beside a rig.

    Raises
    ------
    ConfigError
        If it is none, or was cut short, with the first thing that is wrong. Files of earlier
        versions do not say where they end, and are read as far as they go.
    """
    try:
        found = parse(kind, load_yaml(path), str(path))
        text = read_text(path)
        if _ENDS in text and text.splitlines()[-1].rstrip() != _END:
            raise ConfigError(f"{path} was cut short: its last line is not '{_END}'.")
        return found
    except (ConfigError, DocumentError) as e:
        raise ConfigError(f"{e} Mend it, or remove it and run 'livesr {command}' again.") from e


def with_values(text: str, values: Mapping[str, Any], source: str = "rig.yaml") -> str:
    """Return `text` with values set; sections that are not there are appended.

    Raises
    ------
    ConfigError
        If `text` is no mapping, or cannot be changed safely.
    DocumentError
        If `text` is no YAML.
    """
    wanted = _unshared(parse_yaml(text, source)) or {}
    for place, value in values.items():
        _set(wanted, place.split("."), value)
        text = _with_value(text, place.split("."), value)
    try:
        safe = parse_yaml(text, source) == wanted
    except DocumentError:
        safe = False
    if not safe:
        shown = ", ".join(f"{place}: {_flow(value)}" for place, value in values.items())
        raise ConfigError(
            f"{source} cannot be changed without harm to what is there. Write it yourself: {shown}."
        )
    return text


def _unshared(value: Any) -> Any:
    """Copy what aliases share: a change must reach one place only."""
    if isinstance(value, dict):
        return {k: _unshared(v) for k, v in value.items()}
    return [_unshared(v) for v in value] if isinstance(value, list) else value


def _set(data: dict[str, Any], place: list[str], value: Any) -> None:
    for part in place[:-1]:
        data[part] = data.get(part) or {}
        data = data[part]
    data[place[-1]] = value


def _with_value(text: str, place: list[str], value: Any) -> str:
    node, found = compose_yaml(text, "it"), []
    for part in place:
        entry = _entry(node, part)
        if entry is None:
            break
        found.append(part)
        node = entry
    missing = place[len(found) :]
    if not missing and node is not None:
        start, end = node.start_mark.index, _end(node)
        return (
            text[:start]
            + ("" if text[start - 1 : start].isspace() else " ")
            + _flow(value)
            + text[end:]
        )
    for part in reversed(missing[1:]):
        value = {part: value}
    if isinstance(node, yaml.MappingNode) and node.value:
        return _inserted(text, node, missing[0], value)
    if found:  # a section without a value
        start, end = (
            (node.start_mark.index, node.end_mark.index)
            if node is not None
            else (len(text), len(text))
        )
        return f"{text[:start]}\n  {missing[0]}: {_flow(value)}{text[end:]}"
    return text + _block(missing[0], value)


def _inserted(text: str, node: yaml.MappingNode, key: str, value: Any) -> str:
    """Add a key behind the last one of a mapping."""
    end = _end(node.value[-1][1])
    if node.flow_style:
        return f"{text[:end]}, {_flow(key)}: {_flow(value)}{text[end:]}"
    column = node.value[0][0].start_mark.column
    line_end = text.find("\n", end)
    head, tail = (text, "") if line_end < 0 else (text[:line_end], text[line_end:])
    if column == 0:
        return text.rstrip("\n") + "\n" + _block(key, value)
    return f"{head}\n{' ' * column}{_flow(key)}: {_flow(value)}{tail}"


def _block(key: str, value: Any) -> str:
    """Return a new section, one line for each of its values."""
    if not isinstance(value, dict):
        return f"\n{_flow(key)}: {_flow(value)}\n"
    lines = "".join(f"  {_flow(k)}: {_flow(v)}\n" for k, v in value.items())
    return f"\n{_flow(key)}:\n{lines}"


def _entry(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _end(node: yaml.Node) -> int:
    """Index behind a value; PyYAML lets block collections end where the next thing begins."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return int(node.end_mark.index)


def _flow(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )
