"""Whether two networks differ, tested over cells that both saw.

Owns the test and its table. Evaluates nothing: it reads what `evaluate_engine` and
`evaluate_pairs` keep of every cell.

Two means with overlapping intervals may still differ, because a hard cell is hard for both: what is
tested is the difference on each cell (Wilcoxon's signed-rank test), and p is corrected for the
number of tests (Benjamini and Hochberg 1995). Pairs of `evaluate_pairs` are each taken for a cell:
where several are patches of one image, p is too small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control, wilcoxon

from livesr.evaluation.metrics import Interval, bootstrap_interval

MEASURES = {
    "pcc": "PCC",
    "ssim": "SSIM",
    "nrmse": "NRMSE",
    "false_positive": "light where its truth is dark",
}
"""What is tested, with the words of tables."""

SIGNIFICANT = 0.05
_FEWEST = 6  # cells: fewer reach no p below 0.03, whatever they show


@dataclass(frozen=True, slots=True)
class PairedTest:
    """One measure of one structure.

    Attributes
    ----------
    structure, measure : of `MEASURES`
    difference : second minus first, mean over cells with its interval
    cells : that have both
    p : two-sided, corrected for all tests made together; 1 where fewer than six cells differ
    """

    structure: str
    measure: str
    difference: Interval
    cells: int
    p: float

    def to_json(self) -> dict[str, Any]:
        """Return what a table's numbers keep."""
        return asdict(self) | {"difference": self.difference.to_json()}


def paired_tests(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[PairedTest]:
    """Test two results on the same cells, in the same order, for every structure and measure.

    A measure that no cell has in both is left out.

    Parameters
    ----------
    first, second : what `evaluate_engine` or `evaluate_pairs` returned

    Raises
    ------
    ValueError
        If they are of other structures or of another number of cells.
    """
    if list(first["structures"]) != list(second["structures"]):
        raise ValueError("the results are of different structures, and cannot be paired")
    if len(first["sequences"]) != len(second["sequences"]):
        raise ValueError(
            f"{len(first['sequences'])} and {len(second['sequences'])} cells cannot be paired"
        )
    found = [
        test
        for i, structure in enumerate(first["structures"])
        for measure in MEASURES
        if (
            test := _test(
                structure, measure, _values(first, i, measure), _values(second, i, measure)
            )
        ).cells
    ]
    if not found:
        return []
    corrected = false_discovery_control([test.p for test in found])
    return [replace(test, p=float(p)) for test, p in zip(found, corrected, strict=True)]


def paired_table(tests: Mapping[str, Sequence[PairedTest]]) -> str:
    """Return the Markdown of `tests`, by the words for what is compared."""
    lines = [
        "| difference | structure | measure | mean over cells | cells | p | |",
        "|---" * 7 + "|",
    ]
    for label, several in tests.items():
        for test in several:
            low, high = test.difference.low, test.difference.high
            cells = f"{test.difference.mean:+.4f} ({low:+.4f} to {high:+.4f})"
            verdict = "differs" if test.p < SIGNIFICANT else "no difference shown"
            lines.append(
                f"| {label} | {test.structure} | {MEASURES[test.measure]} | {cells} |"
                f" {test.cells} | {test.p:.3g} | {verdict} |"
            )
    return "\n".join(lines) + "\n"


def _test(structure: str, measure: str, first: list[float], second: list[float]) -> PairedTest:
    differences = np.subtract(second, first)
    differences = differences[np.isfinite(differences)]
    changed = np.count_nonzero(differences)
    p = float(wilcoxon(differences).pvalue) if changed >= _FEWEST else 1.0
    return PairedTest(
        structure, measure, bootstrap_interval(differences.tolist()), len(differences), p
    )


def _values(result: Mapping[str, Any], index: int, measure: str) -> list[float]:
    """Return one number a cell, NaN where the structure was not there."""
    found = []
    for cell in result["sequences"]:
        # Results of before hold no false-positive light of each cell.
        of_all = cell.get("false_positive" if measure == "false_positive" else "network", {})
        value = list(of_all.values())[index] if of_all else None
        value = value[measure] if isinstance(value, dict) else value
        found.append(np.nan if value is None else float(value))
    return found
