"""`livesr`, or a script, as a user starts it: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Environment = dict[str, str] | None


def python(
    *arguments: object, cwd: Path | None = None, env: Environment = None
) -> tuple[int, str, str]:
    """Return its exit code, and what it said on stdout and stderr."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def said_by(*arguments: object, cwd: Path | None = None, env: Environment = None) -> str:
    """Return what it said on stdout; it must succeed."""
    code, out, err = python(*arguments, cwd=cwd, env=env)
    assert code == 0, err + out
    return out


def livesr(*arguments: object, cwd: Path, env: Environment = None) -> tuple[int, str, str]:
    """Return its exit code, and what it said on stdout and stderr."""
    return python("-m", "livesr", *arguments, cwd=cwd, env=env)


def report_of(*arguments: object, cwd: Path, env: Environment = None) -> dict[str, Any]:
    """Return its JSON; it must succeed."""
    report: dict[str, Any] = json.loads(
        said_by("-m", "livesr", *arguments, "--json", cwd=cwd, env=env)
    )
    return report
