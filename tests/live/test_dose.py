"""The ledger counts every exposure, and says what dyes one after the other would have cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livesr.base.frames import RawStack, Stream
from livesr.cli.output import run_table
from livesr.live.dose import DoseLedger, said
from recorded_runs import Live, moving_groups, sim_rig


def ledger(
    power_mw: float | None, labels: tuple[str, ...], parts: tuple[str, ...] = ()
) -> DoseLedger:
    about = SimpleNamespace(labels=labels, power_mw=power_mw)
    return DoseLedger({"488": SimpleNamespace(description=about, parts=parts)})  # type: ignore[dict-item]


def stack(n: int, missing: int = 0, exposure_ms: float | None = 20.0) -> RawStack:
    frame = np.zeros((2, 2), np.uint16)
    frames = (frame,) * (n - missing) + (None,) * missing
    return RawStack(frames, Stream(0, "488"), 0, 0, 0, exposure_ms=exposure_ms)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1), st.integers(1, 5))
def test_it_adds_up(groups: list[tuple[int, int]], dyes: int) -> None:
    of = ledger(2.0, ("a",) * dyes)
    for n, missing in groups:
        of.exposed(stack(n, min(missing, n)))
    came = sum(n - min(missing, n) for n, missing in groups)
    report = of.report()
    assert report["spent"]["exposures"] == came if came else not report
    if came:
        assert report["spent"]["exposure_s"] == pytest.approx(came * 0.02, abs=1e-4)
        assert report["spent"]["energy_mj"] == pytest.approx(came * 0.04, abs=1e-4)
        assert report["one_after_the_other"]["exposures"] == dyes * came


def test_without_power_no_energy_is_made_up() -> None:
    of = ledger(None, ())
    of.exposed(stack(9))
    assert "energy_mj" not in of.report()["spent"]
    assert "mJ" not in said(of.report())


def test_light_of_unknown_time_is_not_said_to_be_none() -> None:
    """A TIFF says no exposure time: 36 exposures at 2 mW were 0 mJ."""
    of = ledger(2.0, ("a", "b"))
    of.exposed(stack(9, exposure_ms=None))
    report = of.report()
    assert report["spent"] == {"exposures": 9, "exposure_s": 0.0, "untimed": 9}
    assert "energy_mj" not in report["channels"]["488"]
    assert said(report) == "9 exposures; dye after dye 18 exposures"
    of.exposed(stack(9))
    assert of.report()["one_after_the_other"] == {
        "exposures": 36,
        "exposure_s": 0.36,
        "untimed": 18,
    }
    assert said(of.report()) == (
        "18 exposures, more than 0.18 s of light; dye after dye 36 exposures, more than 0.36 s"
    )


def test_what_bleaches_is_said() -> None:
    of = ledger(None, ("MT", "ER", "Lyso"))
    of.exposed(stack(9))
    for level in (800.0, 700.0, 600.0):
        of.measured(Stream(0, "488"), level)
    assert of.report()["channels"]["488"]["signal_left"] == 0.75
    assert said(of.report()) == (
        "9 exposures, 0.18 s of light; dye after dye 27 exposures, 0.54 s; signal left: 488 75%"
    )


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (790.0, "488 99%"),
        (799.9, "488 all"),
        (803.0, "488 all"),
        (804.0, "488 all"),  # 0.5 %: it was "0% brighter"
        (808.0, "488 all (1% brighter than at first)"),
        (840.0, "488 all (5% brighter than at first)"),
    ],
)
def test_what_does_not_bleach_is_not_said_to_be_more_than_all(last: float, says: str) -> None:
    of = ledger(None, ())
    of.exposed(stack(9))
    for level in (800.0, last):
        of.measured(Stream(0, "488"), level)
    assert said(of.report()).endswith(f"; signal left: {says}")


def test_before_the_first_exposure_there_is_nothing_to_say() -> None:
    assert ledger(None, ()).report() == {}
    assert said({}) == ""


def test_a_run_reports_it(tmp_path: Path) -> None:
    rig = sim_rig("identity")
    report = Live(rig, tmp_path / "run").record(moving_groups(4), missing=[(1, 3)])
    dose = report["dose"]
    assert dose["spent"]["exposures"] == report["raw_frames"] == 35
    assert dose["one_after_the_other"]["exposures"] == 35 * len(report["channels"]["488"]["labels"])
    # moving_groups grows brighter with every time point
    assert dose["channels"]["488"]["signal_left"] > 1
    cells = [cell for column in run_table(report).columns for cell in column.cells]
    assert report["dose_line"] in cells
