"""A real tritonserver for tests, as `livesr serve --start` starts it; skipped where none is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from livesr.base.errors import BackendError
from livesr.export.triton_server import find_triton

_READY_S = 60.0


def needs_triton() -> None:
    """Skip a module where no server, or no client, is installed."""
    pytest.importorskip("tritonclient.grpc", reason="the kserve backend needs tritonclient")
    try:
        find_triton()
    except BackendError as e:
        pytest.skip(str(e), allow_module_level=True)


class TritonServer:
    """A server of engines in a process of its own.

    Parameters
    ----------
    to : folder that is written
    engines : names or folders
    flags : of `livesr serve` beside
    environment : of its process, beside this one's
    """

    def __init__(
        self,
        to: Path,
        engines: Sequence[str],
        *flags: str,
        environment: dict[str, str] | None = None,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint = f"grpc://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "livesr", "serve", *engines, "--to", str(to)]
        self._command += ["--start", "--port", str(self.port), *flags]
        self._environment = {**os.environ, **(environment or {})}
        self._log = to.with_name(f"{to.name}.log")
        self._process: Any = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + _READY_S
        while "Started GRPCInferenceService" not in self.said:
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                pytest.fail(f"tritonserver did not start: {self.said[-3000:]}")
            time.sleep(0.1)

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it and all of its processes at once, as a crash does."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def interrupt(self) -> int:
        """End it as Ctrl-C does; return its exit code."""
        self._process.send_signal(signal.SIGINT)
        return int(self._process.wait(60))
