"""Whether every test ran: a pytest plugin, for `.ci/again`.

pytest-xdist ends a run early when too many of its processes crashed, with the exit code of failed
tests. Then there is more to repeat than what failed.
"""

from __future__ import annotations

import pytest

_asked: set[str] = set()
_finished: set[str] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: list[str]) -> None:
    _asked.update(ids)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        _finished.add(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End with "interrupted" where tests are left over."""
    if _asked - _finished and session.exitstatus == pytest.ExitCode.TESTS_FAILED:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
