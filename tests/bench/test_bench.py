"""Every suite runs and says what it measured.

No number is judged here: a busy machine is no bug.
"""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from livesr.base.errors import ConfigError, UsageError
from livesr.bench import run
from livesr.bench.compare import compare
from livesr.bench.picture import draw
from livesr.bench.report import notes, read_json, table, to_json, write_json
from livesr.bench.result import Environment, LeftOut, Measured, Result, Target
from livesr.bench.runner import SuiteUnavailableError, suites, with_peers
from livesr.bench.timing import Summary, in_turns, interleave
from livesr.cli import app
from livesr.modalities.fluctuation import peers

OFTEN = {"correct", "engine", "sim", "store"}
"""Suites that run in every run of the tests, the others once a night."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "suite",
    [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in suites()],
)
def test_a_suite_runs_and_its_results_are_whole(suite: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    try:
        known = run([suite], path, quick=True, quiet=True)
    except SuiteUnavailableError as e:
        pytest.skip(str(e))
    results = known.results
    assert results
    assert not known.wrong
    for result in results:
        assert result.name.startswith(f"{suite}.")
        assert math.isfinite(result.value)
        assert result.unit
        assert result.note, "a number without its meaning"
        assert (result.reference is None) == (not result.reference_name)
        assert result.environment is not None
        assert result.environment.cores == suites()[suite].cores or not result.environment.pinned
        if result.ratio_interval is not None:
            assert result.ratio is not None
            assert result.ratio_interval[0] <= result.ratio <= result.ratio_interval[1]
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [r["name"] for r in written["results"]] == [r.name for r in results]
    assert written == json.loads(json.dumps(to_json(known)))
    assert read_json(path) == known


def test_an_unknown_suite_is_named_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="Did you mean 'sim'"):
        run(["sim", "simm"], quiet=True)


def test_peers_are_asked_for_by_the_suite_that_they_are_compared_with() -> None:
    assert with_peers(["storm", "sim"]) == ["storm.peers", "sim.peers"]
    assert set(with_peers([])) == {name for name in suites() if name.endswith(".peers")}
    with pytest.raises(UsageError, match="'hook' is compared with no other program; these are"):
        with_peers(["hook"])


def test_a_peer_that_is_missing_is_a_line_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nanopyx.core.transform", None)
    found = peers.measure(quick=True)
    (left_out,) = (entry for entry in found if isinstance(entry, LeftOut))
    assert left_out.name == "fluctuation.peers.nanopyx"
    assert "pip install nanopyx" in left_out.reason
    assert not left_out.fault
    assert [r.name for r in found if isinstance(r, Result)] == [
        "fluctuation.peers.speed",
        "fluctuation.peers.truth",
    ]


def test_who_goes_first_alternates() -> None:
    order: list[str] = []

    def block(name: str, value: float) -> list[float]:
        order.append(name)
        return [value, value]

    found = interleave(lambda: block("a", 3.0), lambda: block("b", 2.0), 3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert found.ratio == pytest.approx(1.5)
    assert found.ratio_interval == pytest.approx((1.5, 1.5))
    assert (found.subject.n, found.reference.n) == (6, 6)


def test_every_way_has_its_turn_forwards_and_backwards() -> None:
    order: list[str] = []

    def way(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = in_turns({name: partial(way, name) for name in "abc"}, 3)
    assert "".join(order) == "abc" + "cba" + "abc"
    assert found[1] == {"c": 4.0, "b": 5.0, "a": 6.0}


def test_a_drift_that_slows_both_leaves_the_ratio_alone() -> None:
    slow = iter(range(1, 100))
    found = interleave(lambda: [2.0 * next(slow)], lambda: [1.0 * next(slow)], 9, warm_up=False)
    assert found.ratio_interval[0] <= 2.0 <= found.ratio_interval[1]


def test_a_summary_is_median_and_spread() -> None:
    summary = Summary.of([float(v) for v in range(101)])
    assert (summary.n, summary.median, summary.p99) == (101, 50.0, 99.0)
    assert summary.spread == pytest.approx(1.0)


def test_targets_are_of_the_value_or_the_ratio() -> None:
    at_most = Target(1.3, "most", "ratio")
    assert str(at_most) == "ratio <= 1.3"
    assert at_most.met(99.0, 1.2)
    assert not at_most.met(0.1, 1.4)
    assert not at_most.met(0.1, None), "a ratio that was not measured is not reached"
    assert Target(8, "least").met(8.0, None)
    assert Result("x.y", 1.0, "ms").met is None


def test_the_table_shows_what_was_missed() -> None:
    results = [
        Result(
            "a.met",
            7.0,
            "ms",
            3.5,
            "plain",
            2.0,
            (1.9, 2.1),
            (Target(30, "most"), Target(3, "most", "ratio")),
        ),
        Result("a.missed", 7.0, "SR frames/s", targets=(Target(8, "least"),), note="why"),
    ]
    shown = io.StringIO()
    Console(width=160, file=shown).print(*table(results, 160), *notes(results), sep="\n")
    text = shown.getvalue()
    assert "2.00" in text
    assert "a.met: ratio (1.90 to 2.10) to plain, 3.5 ms" in text
    assert "not met" in text
    assert "why" in text
    assert to_json(Measured(results))["met"] is False


HERE = Environment("a CPU", 2, True, 1.0, "an OS", "3.11", {"numpy": "2"})


def figure(name: str, ratio: float, unit: str = "ms", environment: Environment = HERE) -> Result:
    summary = Summary(20, ratio, ratio, 0.1)
    interval = (ratio * 0.98, ratio * 1.02)
    return Result(
        name,
        ratio,
        unit,
        1.0,
        "plain",
        ratio,
        interval,
        (),
        summary,
        summary,
        "n",
        None,
        environment,
    )


def test_only_what_moved_beyond_noise_is_worse() -> None:
    old = [
        figure("a.same", 1.0),
        figure("a.slower", 1.0),
        figure("a.faster", 1.0),
        figure("a.rate", 1.0, "frames/s"),
    ]
    new = [
        figure("a.same", 1.03),
        figure("a.slower", 1.3),
        figure("a.faster", 0.7),
        figure("a.rate", 0.7, "frames/s"),
    ]
    found = compare(old, new)
    assert {c.name for c in found.changes if c.moved} == {"a.slower", "a.faster", "a.rate"}
    assert {c.name for c in found.losses_beyond(10)} == {"a.slower", "a.rate"}
    assert [c.name for c in found.losses_beyond(35)] == ["a.rate"], (
        "0.7 of the frames take 43 % more time each"
    )


def test_another_machine_is_refused_unless_allowed() -> None:
    elsewhere = replace(HERE, cpu="another CPU", versions={"numpy": "3"})
    old, new = [figure("a.x", 1.0)], [figure("a.x", 1.0, environment=elsewhere)]
    with pytest.raises(UsageError, match="another CPU"):
        compare(old, new)
    assert compare(old, new, other_machine=True).versions == ("numpy 2 then, 3 now",)
    with pytest.raises(UsageError, match="not alike"):
        compare([figure("a.x", 1.0, environment=replace(HERE, quick=True))], old)


def test_a_comparison_that_fails_exits_with_one(tmp_path: Path) -> None:
    old, now = tmp_path / "old.json", tmp_path / "now.json"
    run(["correct"], now, quick=True, quiet=True)
    written = read_json(now).results
    faster = [
        replace(r, ratio=r.ratio / 1e6, ratio_interval=tuple(v / 1e6 for v in r.ratio_interval))
        for r in written
    ]
    write_json(Measured(faster), old)
    arguments = ["bench", "correct", "--quick", "--compare", str(old), "--json"]
    assert CliRunner().invoke(app, arguments).exit_code == 0, "to compare is not yet to judge"
    judged = CliRunner().invoke(app, [*arguments, "--compare-fail", "50"])
    assert judged.exit_code == 1
    assert json.loads(judged.stdout)["worse"] == ["correct.apply"]


def test_a_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    own = [name for name in suites() if not name.endswith(".peers")]
    done = [figure(f"{name}.x", 1.0) for name in own if name != "correct"]
    write_json(Measured(done), out)
    results = run(["all"], out, quick=True, resume=True, quiet=True).results
    assert {r.suite for r in results} == set(own)
    assert [r for r in results if r.suite != "correct"] == sorted(
        done, key=lambda r: list(suites()).index(r.suite)
    )


def test_ratios_and_curves_are_drawn(tmp_path: Path) -> None:
    curve = [
        replace(figure(f"scaling.size.{q}.{n}", float(n)), at=n)
        for q in ("cpu", "memory", "latency")
        for n in (1, 2)
    ]
    files = draw([figure("a.x", 1.0), *curve], tmp_path / "bench.png")
    assert [file.name for file in files] == ["bench.png", "bench-scaling.png"]
    assert all(file.stat().st_size > 5000 for file in files)


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot write .*bench\.none: .*not supported"):
        draw([figure("a.x", 1.0)], tmp_path / "bench.none")
