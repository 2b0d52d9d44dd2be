"""Fixtures that every test uses.

Nothing may be left running, and where the real microscope data lies.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from livesr.live.inference.cuda import why_no_gpu

with suppress(ImportError):  # where only networks are tested, as on a rented GPU
    import pymmcore_plus  # noqa: F401

# Beside another process of tests, OpenMP's threads spin at barriers for threads that do not run;
# before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Importing pymmcore-plus sets the root logger to DEBUG; pytest would then keep every record of
# every library.
logging.getLogger().setLevel(logging.WARNING)

pytest_plugins = ("whole_run",)

REPOSITORY = Path(__file__).parents[1]
MICROSCOPE_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where none answers, with the reason."""
    if reason := why_no_gpu():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def microscope_data() -> Path:
    """Folder with real microscope data, which is not part of the repository."""
    if not MICROSCOPE_DATA.is_dir():
        pytest.skip("the real microscope data is not on this machine")
    return MICROSCOPE_DATA


@pytest.fixture(autouse=True)
def engines_of_tests_are_known(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines that tests make take no seconds to be tried out, but where that is what is tested."""
    if not request.node.get_closest_marker("tries_engines"):
        monkeypatch.setattr("livesr.live.inference.trial.is_known", lambda facts: True)


@pytest.fixture(autouse=True)
def curves_are_drawn_where_they_are_looked_at(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training of a second would spend two on pictures of it that nobody opens."""
    trainer = sys.modules.get("livesr.training.trainer")
    if trainer and not request.node.get_closest_marker("draws"):
        monkeypatch.setattr(trainer, "draw_curves", lambda *_: None)


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Fail a test that leaves a livesr thread behind."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while left := [
        t for t in threading.enumerate() if t not in before and t.name.startswith("livesr")
    ]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left running: {[t.name for t in left]}")
        gc.collect()
        time.sleep(0.01)
