"""How fast it is, always beside a reference measured in the same run.

One file per suite, `run` runs them.

A suite is a module with ``measure(quick) -> list[Result]``; `runner.suites` names them and their
number of cores, those of the modalities included.
"""

from livesr.bench.runner import run

__all__ = ["run"]
