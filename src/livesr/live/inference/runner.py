"""Which runtime runs an engine.

Owns the choice: the one that was named, or the first that can. Knows no runtime by itself.
"""

from __future__ import annotations

import logging

from livesr.base.errors import BackendError, suggestion
from livesr.live.inference.backend import BACKENDS, PRECISIONS, Backend
from livesr.live.inference.engine import Engine

log = logging.getLogger(__name__)


def open_backend(
    engine: Engine, shape: tuple[int, int], backend: str = "auto", precision: str = "auto", threads: int = 0
) -> Backend:
    """Open `engine` for frames of `shape` (y, x) on the named runtime, or on the first that can ("auto").

    Raises
    ------
    BackendError
        If the named one, or none at all, can run it here: with the reasons and the pip extra.
    EngineError
        If the engine cannot take such frames.
    """
    if backend != "auto":
        return _open(backend, engine, shape, precision, threads)
    reasons = []
    for name in BACKENDS.names:
        try:
            return _open(name, engine, shape, precision, threads)
        except BackendError as e:
            log.info("Backend %s is skipped: %s", name, e)
            reasons.append(f"{name}: {e}")
    raise BackendError(f"No backend can run engine {engine.manifest.id!r} here. {' '.join(reasons)}")


def _open(name: str, engine: Engine, shape: tuple[int, int], precision: str, threads: int) -> Backend:
    if name not in BACKENDS.names:
        raise BackendError(f"There is no backend {name!r}.{suggestion(name, ['auto', *BACKENDS.names])}")
    if precision != "auto" and precision not in PRECISIONS:
        raise BackendError(f"There is no precision {precision!r}.{suggestion(precision, ['auto', *PRECISIONS])}")
    backend: Backend = BACKENDS.load(name)()
    if reason := backend.is_unavailable():
        raise BackendError(reason)
    backend.open(engine, shape, precision=precision, threads=threads)
    log.info("%s runs on %s, %s, %s", engine, name, backend.precision, backend.device)
    return backend
