"""How fast it is, always beside a reference measured in the same run: one file per suite, `runner.run` runs them.

A suite is a module with ``CORES`` (how many it is pinned to) and ``measure(quick) -> list[Result]``.
"""
