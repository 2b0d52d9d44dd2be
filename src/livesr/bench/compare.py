"""What moved between two runs of the benchmarks, beyond noise.

Compared are ratios, because a busy machine slows subject and reference alike. Each carries the
bootstrap 95 % interval of its own run; on a logarithmic scale the two widths give the standard
error of old against new. A figure has moved if its change is larger than what all the figures
together would show by chance once in a hundred comparisons (Bonferroni), and by at least
`MIN_CHANGE`: blocks of one run know nothing of what differs from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from livesr.base.errors import UsageError
from livesr.bench.report import columns
from livesr.bench.result import Environment, Result

MIN_CHANGE = 0.05
_FALSE_ALARM = 0.01  # of a whole comparison
_WIDTH = 2 * 1.96  # standard errors in a 95 % interval
_SAME = ("cpu", "cores", "pinned", "system", "quick", "gpu")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both runs.

    Its `ratio` then and now, and `noise`, the relative change that chance may make.
    """

    name: str
    old: float
    new: float
    noise: float
    more_is_better: bool

    @property
    def relative(self) -> float:
        """New against old, less one."""
        return self.new / self.old - 1

    @property
    def moved(self) -> bool:
        """Whether it changed beyond noise."""
        return abs(math.log(self.new / self.old)) > math.log1p(max(self.noise, MIN_CHANGE))

    @property
    def worse(self) -> bool:
        """Whether it moved the wrong way."""
        return self.moved and (self.relative < 0) == self.more_is_better

    @property
    def loss(self) -> float:
        """By how much it is worse: 0.1 takes 10 % more time, or gives as much less.

        0 where it did not move or is better.
        """
        if not self.worse:
            return 0.0
        return (self.old / self.new if self.more_is_better else self.new / self.old) - 1


@dataclass(frozen=True, slots=True)
class Compared:
    """What could be compared, what could not and why, and the versions that differ."""

    changes: tuple[Change, ...]
    left_out: tuple[str, ...]
    versions: tuple[str, ...]

    def losses_beyond(self, percent: float) -> list[Change]:
        """Return what is worse by more than `percent`, beyond noise."""
        return [change for change in self.changes if 100 * change.loss > percent]


def compare(
    old: Sequence[Result], new: Sequence[Result], *, other_machine: bool = False
) -> Compared:
    """Compare figure by figure.

    Raises
    ------
    UsageError
        If nothing is in both, or they were measured on different machines or with different
        settings and `other_machine` does not allow it.
    """
    before = {r.name: r for r in old}
    pairs = [(before[r.name], r) for r in new if r.name in before]
    if not pairs:
        raise UsageError(
            "The two runs have no measurement in common: compare runs of the same suites."
        )
    if not other_machine and (differences := _differences(pairs)):
        raise UsageError(
            f"The two runs are not alike: {'; '.join(differences)}. Measure both on one machine in"
            " the same way, or allow it with --other-machine."
        )
    reasons = [f"{b.name}: {reason}" for a, b in pairs if (reason := _incomparable(a, b))]
    comparable = [(a, b) for a, b in pairs if not _incomparable(a, b)]
    changes = tuple(_change(a, b, len(comparable)) for a, b in comparable)
    missing = {r.name for r in old}.symmetric_difference(r.name for r in new)
    return Compared(
        changes,
        (*reasons, *(f"{name}: in one run only" for name in sorted(missing))),
        _versions(pairs),
    )


def change_table(compared: Compared, width: int = 80) -> Iterator[str]:
    """Yield the lines of a table, one per figure, those that moved first, as rich's markup."""
    rows = []
    for c in sorted(compared.changes, key=lambda c: not c.moved):
        verdict = ("[red]worse[/red]" if c.worse else "[green]better[/green]") if c.moved else ""
        noise = f"{max(c.noise, MIN_CHANGE):.1%}" if math.isfinite(c.noise) else "any"
        change = f"{c.relative:+.1%}"
        rows.append((c.name, f"{c.old:.3g}", f"{c.new:.3g}", change, noise, verdict))
    yield "[bold]Ratios then and now[/bold]"
    yield from columns(("measurement", "then", "now", "change", "noise", ""), rows, width)


def _change(old: Result, new: Result, figures: int) -> Change:
    assert old.ratio
    assert new.ratio
    error = math.hypot(_standard_error(old), _standard_error(new))
    bound = NormalDist().inv_cdf(1 - _FALSE_ALARM / 2 / figures) * error
    return Change(new.name, old.ratio, new.ratio, math.expm1(min(bound, 700)), new.more_is_better)


def _standard_error(result: Result) -> float:
    """Return that of the logarithm of the ratio."""
    assert result.ratio_interval
    low, high = result.ratio_interval
    return math.log(high / low) / _WIDTH


def _incomparable(old: Result, new: Result) -> str:
    """Return why two figures of one name cannot be compared; "" if they can."""
    if not (old.ratio and new.ratio and old.ratio_interval and new.ratio_interval):
        return "no reference beside it, or no interval"
    if old.reference_name != new.reference_name or old.unit != new.unit:
        return f"another reference or unit ({old.reference_name}, {old.unit} then)"
    blocks = min(
        s.n for s in (old.samples, new.samples, old.reference_samples, new.reference_samples) if s
    )
    if blocks < 2 or min(old.ratio_interval) <= 0 or min(new.ratio_interval) <= 0:
        return "too few samples to know its noise"
    return ""


def _differences(pairs: Sequence[tuple[Result, Result]]) -> list[str]:
    """Return in what the machines or settings differ, each once."""
    found = {
        f"{key} {getattr(a, key)!r} then, {getattr(b, key)!r} now"
        for a, b in _environments(pairs)
        for key in _SAME
        if getattr(a, key) != getattr(b, key)
    }
    return sorted(found)


def _versions(pairs: Sequence[tuple[Result, Result]]) -> tuple[str, ...]:
    found = {
        f"{name} {a.versions.get(name, 'none')} then, {b.versions.get(name, 'none')} now"
        for a, b in _environments(pairs)
        for name in {*a.versions, *b.versions}
        if a.versions.get(name) != b.versions.get(name)
    }
    return tuple(sorted(found))


def _environments(pairs: Sequence[tuple[Result, Result]]) -> list[tuple[Environment, Environment]]:
    return [(a.environment, b.environment) for a, b in pairs if a.environment and b.environment]
