"""Which plan is taken, and which is not: no GPU needed."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from livesr.live.inference.plans import PlanCache, PlanKey, cache_folder

KEY = PlanKey(
    "imcsr-light", "ab" * 32, "tensorrt 10.13.3.9", "NVIDIA H200, sm_90", (512, 640), "f16"
)
OTHERS = {
    "sha256": "cd" * 32,
    "runtime": "tensorrt 11.4.0.106",
    "device": "NVIDIA RTX A4000, sm_86",
    "shape": (640, 512),
    "precision": "int8",
    "format": KEY.format + 1,
}
PLAN = bytes(range(256)) * 8


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "not" / "yet")


def test_what_was_stored_is_found(cache: PlanCache) -> None:
    assert cache.load(KEY) is None
    path = cache.store(KEY, PLAN)
    assert cache.load(KEY) == PLAN
    assert path.name.startswith("imcsr-light-512x640-f16-")
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".json", ".plan"]


@pytest.mark.parametrize("field", OTHERS)
def test_another_of_anything_is_another_plan(cache: PlanCache, field: str) -> None:
    cache.store(KEY, PLAN)
    other = replace(KEY, **{field: OTHERS[field]})
    assert cache.load(other) is None
    cache.store(other, b"another")
    assert cache.load(KEY) == PLAN


def test_a_key_says_all_that_it_has_in_the_file_beside_the_plan(cache: PlanCache) -> None:
    about = json.loads(cache.store(KEY, PLAN).with_suffix(".json").read_text())
    assert about["key"] == KEY.facts()
    assert set(KEY.facts()) == {"engine", *OTHERS}


@pytest.mark.parametrize(
    "damage", ["flipped", "short", "empty", "no plan", "no json", "not json", "a list", "other key"]
)
def test_what_is_damaged_is_not_taken(
    cache: PlanCache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.store(KEY, PLAN)
    about = path.with_suffix(".json")
    if damage in {"flipped", "short", "empty"}:
        path.write_bytes({"flipped": PLAN[:-1] + b"\0", "short": PLAN[:100], "empty": b""}[damage])
    elif damage == "no plan":
        path.unlink()
    elif damage == "no json":
        about.unlink()
    elif damage == "other key":
        about.write_text(about.read_text().replace("H200", "H100"))
    else:
        about.write_text({"not json": "{", "a list": "[]"}[damage])
    with caplog.at_level(logging.WARNING):
        assert cache.load(KEY) is None
    assert ("built anew" in caplog.text) == (damage not in {"no plan", "no json"})
    cache.store(KEY, PLAN)
    assert cache.load(KEY) == PLAN


def test_a_forgotten_plan_is_gone(cache: PlanCache) -> None:
    cache.store(KEY, PLAN)
    cache.forget(KEY)
    cache.forget(KEY)
    assert cache.load(KEY) is None


def test_when_a_plan_was_compiled_is_known_wherever_it_is_carried(cache: PlanCache) -> None:
    assert cache.compiled(KEY) is None
    before = time.time()
    path = cache.store(KEY, PLAN)
    assert before <= (cache.compiled(KEY) or 0) <= time.time()
    os.utime(path, (0, 0))
    assert before <= (cache.compiled(KEY) or 0)


def test_what_the_builder_said_is_kept_with_the_plan(cache: PlanCache) -> None:
    assert cache.figures(KEY) == {}
    path = cache.store(KEY, PLAN, {"figures": {"layers": 255, "frame_bytes": 22_872_576}})
    assert cache.figures(KEY) == {"layers": 255, "frame_bytes": 22_872_576}
    path.with_suffix(".json").write_text('{"figures": {"layers": "many"}}')
    assert cache.figures(KEY) == {}


@pytest.mark.parametrize("said", ['{"compiled": "today"}', '{"compiled": 1e999}', "[]", "{"])
def test_a_time_that_is_none_is_not_known(cache: PlanCache, said: str) -> None:
    cache.store(KEY, PLAN).with_suffix(".json").write_text(said)
    assert cache.compiled(KEY) is None


def test_timings_are_those_of_a_version_and_a_device(cache: PlanCache) -> None:
    assert cache.timings(KEY) == b""
    cache.store_timings(KEY, b"measured")
    assert (
        cache.timings(replace(KEY, shape=(64, 64), precision="f32", sha256="0" * 64)) == b"measured"
    )
    assert cache.timings(replace(KEY, device=OTHERS["device"])) == b""
    assert cache.timings(replace(KEY, runtime=OTHERS["runtime"])) == b""


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVESR_CACHE", str(tmp_path))
    assert PlanCache().folder == tmp_path / "plans"
    monkeypatch.delenv("LIVESR_CACHE")
    assert cache_folder().is_absolute()
    assert "livesr" in cache_folder().parts
