"""A tritonserver that is installed: NVIDIA's own, or the one in the package `nvidia-pytriton`.

Owns how it is found and started. What it serves is written by `livesr.export.serving`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from livesr.base.documents import parse_json
from livesr.base.errors import BackendError, DocumentError
from livesr.export.serving import By

BACKENDS: tuple[By, ...] = ("onnxruntime", "python")
"""Of Triton, that run an ONNX file; the first that a server has is taken."""

SERVER = "LIVESR_TRITONSERVER"
"""Environment: the server's file, or a Python that has `nvidia-pytriton`."""

_ASK = (
    "import importlib.util as u, json, sys;"
    "print(json.dumps([u.find_spec('pytriton').submodule_search_locations[0],"
    "f'{sys.version_info[0]}.{sys.version_info[1]}']))"
)


class Triton(NamedTuple):
    """A server that can be started.

    Attributes
    ----------
    binary : its file
    backends : folder of what it runs models with
    libraries : folder of what it is linked with, None where the system knows
    python : whose packages its python backend uses, None for the system's
    stub : what runs Python models, where it must be put beside the backend first
    """

    binary: Path
    backends: Path
    libraries: Path | None = None
    python: Path | None = None
    stub: Path | None = None

    @property
    def by(self) -> By:
        """How it can run an ONNX file.

        Raises
        ------
        BackendError
            If it cannot.
        """
        for by in BACKENDS:
            if (self.backends / by).is_dir():
                return by
        raise BackendError(
            f"{self.binary} has neither the onnxruntime nor the python backend (looked in"
            f" {self.backends}): install one of them."
        )


def find_triton(named: str | None = None) -> Triton:
    """Return the server that is named, or in the environment, or installed.

    Raises
    ------
    BackendError
        If there is none.
    """
    named = named or os.environ.get(SERVER)
    if named:
        found = shutil.which(named)
        if found is None:
            raise BackendError(f"{named} is not there, or is no program.")
        path = Path(found).absolute()
        return _of_python(path) if path.name.startswith("python") else _of_binary(path)
    for place in ("tritonserver", "/opt/tritonserver/bin/tritonserver"):
        if found := shutil.which(place):
            return _of_binary(Path(found).resolve())
    if find_spec("pytriton") is not None:
        return _of_python(Path(sys.executable))
    raise BackendError(
        "No tritonserver is installed here: start it with compose.yaml, install NVIDIA Triton, or"
        f" name its file, or a Python that has nvidia-pytriton, with --tritonserver or {SERVER}."
    )


def start(triton: Triton, arguments: list[str], scratch: Path) -> subprocess.Popen[bytes]:
    """Start a server; it writes to this process's output.

    Parameters
    ----------
    arguments : as of `Door.here`
    scratch : folder for what must be put together first; in use as long as the server runs

    Raises
    ------
    BackendError
        If it cannot be started.
    """
    backends, environment = triton.backends, dict(os.environ)
    try:
        if triton.stub:
            backends = scratch / "backends"
            shutil.copytree(triton.backends, backends, dirs_exist_ok=True)
            shutil.copy(triton.stub, backends / "python" / "triton_python_backend_stub")
        if triton.libraries:
            _before(environment, "LD_LIBRARY_PATH", triton.libraries)
        if triton.python:
            _before(environment, "PATH", triton.python.parent)
            environment.pop("PYTHONPATH", None)
        return subprocess.Popen(  # noqa: S603 - the server that was named
            [str(triton.binary), f"--backend-directory={backends}", *arguments], env=environment
        )
    except OSError as e:
        raise BackendError(f"{triton.binary} cannot be started: {e}.") from e


def _before(environment: dict[str, str], name: str, folder: Path) -> None:
    rest = environment.get(name)
    environment[name] = f"{folder}{os.pathsep}{rest}" if rest else str(folder)


def _of_binary(binary: Path) -> Triton:
    return Triton(binary, binary.parent.parent / "backends")


def _of_python(python: Path) -> Triton:
    """Return the server that `nvidia-pytriton` of a Python brings."""
    try:
        told = subprocess.run(  # noqa: S603 - the Python that was named
            [str(python), "-c", _ASK], capture_output=True, timeout=60, check=True
        )
        where, version = parse_json(told.stdout, str(python))
    except (OSError, ValueError, DocumentError, subprocess.SubprocessError) as e:
        raise BackendError(f"{python} has no nvidia-pytriton: install it there.") from e
    package = Path(where)
    server = package / "tritonserver"
    return Triton(
        server / "bin" / "tritonserver",
        server / "backends",
        package.parent / "nvidia_pytriton.libs",
        python,
        server / "python_backend_stubs" / version / "triton_python_backend_stub",
    )
