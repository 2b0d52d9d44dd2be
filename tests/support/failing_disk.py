"""A disk that fails at one kind of call on one kind of file, by a library that is preloaded
(`failing_disk.c`)."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


def preloaded(
    folder: Path, arguments: list[str], *, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run Python with a disk that can fail.

    Skip the test where there is no compiler or no preloading.
    """
    compiler = shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and gcc")
    library = folder / "failing_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@contextmanager
def failing(
    call: str, part: str, first: int, *, for_good: bool, number: int = errno.EIO
) -> Iterator[None]:
    """Let `call` fail on paths that contain `part`, from the `first` time on or at it alone.

    In a preloaded process.
    """
    library = ctypes.CDLL(None)
    library.fail(call.encode(), part.encode(), first, int(for_good), number)
    try:
        yield
    finally:
        library.fail(b"", b"", 0, 0, 0)


def failures() -> int:
    """How often the disk has failed since it was told to."""
    return int(ctypes.CDLL(None).failed())


def calls() -> int:
    """How many calls could have failed since it was told to."""
    return int(ctypes.CDLL(None).seen())
