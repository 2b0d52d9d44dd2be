"""Numbers from outside that become a duration, a size or a count.

Bounded, finite, and refused in a sentence.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel

from livesr.base.config import RigConfig, load_rig, parse
from livesr.base.errors import ConfigError, LiveSRError
from livesr.base.run_config import RunConfig
from livesr.cli import _run, app
from livesr.cli.experiment import Experiment, plan_of
from livesr.cli.plan_file import read_plan
from livesr.export.imported import _Description
from livesr.live.inference.engine import Manifest

RIG = load_rig("virtual_sim")
PLAN: dict[str, Any] = {
    "axis_order": "tpcz",
    "time_plan": {"interval": 0.5, "loops": 4},
    "stage_positions": [
        {"x": 1.0, "y": 2.0, "z": 3.0, "sequence": {"z_plan": {"range": 2.0, "step": 0.5}}}
    ],
    "channels": [
        {"config": next(iter(RIG.channels)), "exposure": 5.0, "acquire_every": 1, "z_offset": 0.5}
    ],
    "metadata": {"a": [1.0]},
}
NONSENSE = [1e308, -1e308, math.inf, -math.inf, math.nan, 10**400]


# -- the command line ------------------------------------------------------------------------------


def functions(application: typer.Typer) -> Iterator[Callable[..., Any]]:
    yield from (command.callback for command in application.registered_commands if command.callback)
    for group in application.registered_groups:
        assert group.typer_instance
        yield from functions(group.typer_instance)


def options() -> Iterator[tuple[str, set[Any], Any]]:
    """Every option that takes numbers: its name, its types and what typer is told of it."""
    for function in functions(app):
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            if get_origin(parameter.annotation) is Annotated:
                kind, *about = get_args(parameter.annotation)
                kinds = {kind, *get_args(kind)}
                kinds |= {inner for outer in list(kinds) for inner in get_args(outer)}
                if found := kinds & {int, float}:
                    yield (
                        f"{function.__name__} {name}",
                        found | ({tuple} & {get_origin(k) for k in kinds}),
                        about[0],
                    )


@pytest.mark.parametrize(
    ("name", "kinds", "about"), list(options()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_every_number_of_the_command_line_has_bounds(
    name: str, kinds: set[Any], about: Any
) -> None:
    if tuple not in kinds:  # of which typer bounds nothing
        assert about.min is not None
        assert about.max is not None
    if float in kinds:
        for nonsense in NONSENSE:
            with pytest.raises(typer.BadParameter):
                about.callback((nonsense, 0.0) if tuple in kinds else nonsense)
        assert about.callback(None) is None
        assert about.callback(1.5) == 1.5


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", "1e308", "1e400"])
@pytest.mark.parametrize(
    "option", ["--exposure", "--duration", "--interval", "--on-finish-timeout"]
)
def test_they_are_refused_before_anything_starts(
    option: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["run", "virtual_sim", option, given, "--json"]) == 2
    assert option in json.loads(capsys.readouterr().out)["error"]


# -- files -----------------------------------------------------------------------------------------

JUDGED_ONLY = {  # shown to people, used for nothing
    "Manifest/$defs/Metrics/properties/channels",
    "Manifest/$defs/Metrics/properties/other",
}


def unbounded(schema: Any, place: str) -> Iterator[str]:
    if isinstance(schema, dict):
        if schema.get("type") in ("number", "integer") and "enum" not in schema:
            above = {"maximum", "exclusiveMaximum"} & schema.keys()
            below = {"minimum", "exclusiveMinimum"} & schema.keys()
            if not (above and below):
                yield place
        for key, value in schema.items():
            yield from unbounded(value, f"{place}/{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from unbounded(value, f"{place}/{number}")


@pytest.mark.parametrize("model", [RigConfig, RunConfig, Manifest, _Description])
def test_every_number_of_a_file_has_bounds(model: type[BaseModel]) -> None:
    found = unbounded(model.model_json_schema(), model.__name__)
    assert not [place for place in found if not place.startswith(tuple(JUDGED_ONLY))]


def numbers(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)
        yield from numbers(value, (*path, key))


def with_value(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = yaml.safe_load(yaml.safe_dump(data))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


RIG_DATA = yaml.safe_load((RIG.folder / "rig.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", list(numbers(RIG_DATA)), ids=lambda p: ".".join(map(str, p)))
def test_nonsense_in_a_rig_is_refused(path: tuple[Any, ...]) -> None:
    for nonsense in NONSENSE:
        with pytest.raises(ConfigError) as refused:
            parse(RigConfig, with_value(RIG_DATA, path, nonsense), "rig.yaml")
        assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "path", [p for p in numbers(PLAN) if "metadata" not in p], ids=lambda p: ".".join(map(str, p))
)
def test_nonsense_in_a_plan_is_refused(path: tuple[Any, ...], tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    for nonsense in (*NONSENSE, 1e12):
        file.write_text(yaml.safe_dump(with_value(PLAN, path, nonsense)), encoding="utf-8")
        with pytest.raises(ConfigError) as refused:
            plan_of(Experiment(plan=file), RIG, 5.0)
        assert len(str(refused.value)) < 1000


def test_numbers_of_metadata_ask_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    metadata = {"began_ns": 1_764_348_000_000_000_000, "dose": float("nan"), "far": [1e300]}
    file.write_text(yaml.safe_dump({**PLAN, "metadata": metadata}), encoding="utf-8")
    assert read_plan(file).metadata["began_ns"] == metadata["began_ns"]
    assert list(plan_of(Experiment(plan=file), RIG, 5.0))


@pytest.mark.parametrize(
    "time_plan",
    [
        {"interval": 1e-6, "duration": 1e8},
        {"interval": 0, "duration": 10},
        {"interval": "P9999D", "loops": 3},
        {"interval": {"days": 1e5}, "loops": 3},
        {"duration": {"days": 1e8}, "loops": 3},
        {"duration": -5, "loops": 3},
        {"interval": -1, "loops": 3},
        [{"interval": 1, "loops": 9_000_000}, {"interval": 1, "loops": 9_000_000}],
        {"interval": 1, "loops": 10**9},
    ],
)
def test_a_plan_that_would_never_end_is_refused(time_plan: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    for plan in (
        {"time_plan": time_plan},
        {"stage_positions": [{"x": 0, "y": 0, "sequence": {"time_plan": time_plan}}]},
    ):
        file.write_text(yaml.safe_dump(plan), encoding="utf-8")
        with pytest.raises(LiveSRError, match=r"plan\.yaml"):
            plan_of(Experiment(plan=file), RIG, 5.0)


def test_plans_of_people_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    for time_plan in (
        {"interval": 10, "loops": 1},
        {"duration": 0, "loops": 1},
        {"interval": 5, "duration": {"hours": 72}},
    ):
        file.write_text(yaml.safe_dump({**PLAN, "time_plan": time_plan}), encoding="utf-8")
        plan_of(Experiment(plan=file), RIG, 5.0)
    for name in ("plan.json", "plan.yaml"):
        (tmp_path / name).write_text(json.dumps(PLAN), encoding="utf-8")
        assert len(plan_of(Experiment(plan=tmp_path / name), RIG, 5.0).plan.stage_positions) == 1
