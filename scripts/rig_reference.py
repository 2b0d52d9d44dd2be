#!/usr/bin/env python
"""Write docs/rig.md: every key of rig.yaml and every setting of a run.

    python scripts/rig_reference.py           # writes it
    python scripts/rig_reference.py --check   # ends with 1 if it is not up to date

Made of the models that check them: names, types, bounds, defaults and descriptions. Owns the words
for types, and the layout.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from livesr.base.config import RigConfig, Section
from livesr.base.run_config import LiveConfig
from livesr.modalities.registry import MODALITIES, modality

PAGE = Path(__file__).resolve().parents[1] / "docs" / "rig.md"
HEAD = """# Reference of rig.yaml and of a run

Made by `python scripts/rig_reference.py` from the models that check these files; edit descriptions
there. A key that is not listed is refused, with the nearest one that is. How a rig is set up is
told in the [guide](guide.md), and [a template](../hardware_configs/_template/rig.yaml) is there to
begin with. Old names that are still read are in the [glossary](glossary.md#old-names).
"""
RUN = """## Settings of a run

Of `LiveSR(...)` in Python; `livesr run --help` has those that a run on a rig needs, as options.
"""
NO_KEYS = {"sections", "section", "folder"}  # fields that are no keys of rig.yaml
NO_LIMIT = 1e9
BAR = "\\|"
SIGNS = {Gt: ("gt", ">"), Ge: ("ge", "≥"), Lt: ("lt", "<"), Le: ("le", "≤")}
PLAIN = {
    float: "number",
    int: "whole number",
    str: "text",
    bool: "true or false",
    Path: "path",
    type(None): "nothing",
}


def page() -> str:
    """Return the page."""
    return "\n".join((HEAD, *_rig(), RUN, *_table(LiveConfig)))


def _rig() -> Iterator[str]:
    yield from ("## rig.yaml", "", *_table(RigConfig))
    places: dict[type[BaseModel], list[str]] = {}
    for place, model in _within("", RigConfig):
        places.setdefault(model, []).append(place)
    for name in MODALITIES.names:
        section, of_channel = modality(name).Section, modality(name).ChannelSection
        if of_channel.model_fields:
            places[of_channel] = [f"channels.NAME with {name}"]
            for place, model in _within("channels.NAME.", of_channel):
                places.setdefault(model, []).append(place)
        if set(section.model_fields) - {"modality"}:
            places[section] = [name]
            for place, model in _within(f"{name}.", section):
                places.setdefault(model, []).append(place)
    for model, named in places.items():
        yield from (f"## {', '.join(named)}", "", *_about(model), *_table(model))


def _within(before: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the models inside of one, and what their keys are called."""
    for name, field in model.model_fields.items():
        if name not in NO_KEYS and (inner := _model(field.annotation)):
            place = before + name + _suffix(field.annotation)
            yield place, inner
            yield from _within(f"{place}.", inner)


def _suffix(annotation: Any) -> str:
    """Return how an entry of a list or a mapping is named behind its key."""
    if get_origin(annotation) is list:
        return "[]"
    if get_origin(annotation) is dict:
        return ".NAME"
    return next((s for inner in get_args(annotation) if (s := _suffix(inner))), "")


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, or has inside."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for inner in get_args(annotation) if (m := _model(inner))), None)


def _about(model: type[BaseModel]) -> Iterator[str]:
    """Yield the docstring, its block of code as one."""
    code = False
    for line in (model.__doc__ or "").strip().split("\n"):
        text = line.removeprefix("    ").rstrip()
        if code and text and not text.startswith("    "):
            code = False
        yield text[:-1] if text.endswith("::") else text
        code = code or text.endswith("::")
    yield ""


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield from ("| key | is | default | |", "|---|---|---|---|")
    for name, field in model.model_fields.items():
        if name not in NO_KEYS and not (name == "modality" and issubclass(model, Section)):
            said = " ".join((field.description or "").split())
            cells = (
                f"`{name}`",
                _of(field.annotation, tuple(field.metadata)),
                _default(field),
                said,
            )
            yield f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
    yield ""


def _of(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Return what a field takes, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of(inner[0], (*inner[1:], *metadata))
    if origin in (Union, types.UnionType):
        return " or ".join(_of(a, metadata) for a in inner if a is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list{_bounds(metadata)} of {_of(inner[0])}".replace(" of see", ", see")
    if origin is tuple:
        return "[" + ", ".join(_of(a) for a in inner if a is not ...) + "]"
    if origin is dict:  # one with a validator takes a single value for all
        return f"{_of(inner[1])}, by name{' or one for all' if metadata else ''}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "see below"
    return PLAIN.get(annotation, str(annotation)) + _bounds(metadata)


def _bounds(metadata: tuple[Any, ...]) -> str:
    """Return the limits of a number, or of how many there are.

    Without those that only keep arithmetic in float32.
    """
    found = []
    for entry in _flat(metadata):
        for kind, (attribute, sign) in SIGNS.items():
            if isinstance(entry, kind) and abs(limit := getattr(entry, attribute)) < NO_LIMIT:
                found.append(f"{sign} {limit:.10g}")
        if isinstance(entry, MinLen):
            found.append(f"(at least {entry.min_length})")
    return f" {', '.join(found)}" if found else ""


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            yield from _flat(tuple(entry.metadata))
        else:
            yield entry


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return (
        f"`{value:g}`"
        if isinstance(value, float)
        else ""
        if value in ("", [], {})
        else f"`{value}`"
    )


def main() -> int:
    """Write the page, or compare it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    made = page()
    if parser.parse_args().check:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != made)
    PAGE.write_text(made, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
