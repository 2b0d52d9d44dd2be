"""Two networks on the same cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from livesr.evaluation.paired import paired_table, paired_tests

HARD = np.random.default_rng(2).uniform(-0.3, 0.3, 24)  # how hard a cell is, for both
NOISE = np.random.default_rng(3).normal(0, 0.004, 24)


def result(gain: float, cells: int = 24, noise: float = 0.0) -> dict[str, Any]:
    def scores(i: int) -> dict[str, float | None]:
        pcc = 0.6 + HARD[i] + gain + noise * NOISE[i]
        return {"pcc": pcc, "ssim": pcc / 2, "nrmse": None}

    return {
        "structures": {"ER": {}},
        "sequences": [
            {"network": {"er": scores(i)}, "false_positive": {"er": 0.1}} for i in range(cells)
        ],
    }


def test_a_small_difference_on_every_cell_shows_although_the_cells_differ_more() -> None:
    tests = paired_tests(result(0), result(0.01, noise=1))
    assert [test.measure for test in tests] == ["pcc", "ssim", "false_positive"], "no NRMSE known"
    pcc, _, false = tests
    differences = 0.01 + NOISE
    assert pcc.difference.mean == pytest.approx(differences.mean())
    alone = wilcoxon(differences).pvalue
    assert alone < pcc.p < 0.01, "corrected for three tests"
    assert pcc.cells == 24
    assert (false.difference.mean, false.p) == (0, 1)
    table = paired_table({"b minus a": tests})
    assert table.count("| differs |") == 2
    assert table.count("| no difference shown |") == 1


def test_what_is_as_often_better_as_worse_shows_nothing() -> None:
    (pcc, *_) = paired_tests(result(0), result(-float(NOISE.mean()), noise=1))
    assert pcc.p > 0.2


def test_few_cells_decide_nothing() -> None:
    (pcc, *_) = paired_tests(result(0, 5), result(0.2, 5, noise=1))
    assert pcc.p == 1


def test_other_cells_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="24 and 23 cells"):
        paired_tests(result(0), result(0, 23))
    other = result(0) | {"structures": {"CCPs": {}}}
    with pytest.raises(ValueError, match="of different structures"):
        paired_tests(result(0), other)


def test_results_of_before_there_were_false_positives_of_each_cell_are_tested_too() -> None:
    old = result(0)
    for cell in old["sequences"]:
        del cell["false_positive"]
    assert [test.measure for test in paired_tests(old, result(0.1))] == ["pcc", "ssim"]
    old["sequences"] = [{"network": {"er": dict.fromkeys(("pcc", "ssim", "nrmse"))}}] * 24
    assert paired_tests(old, old) == []
