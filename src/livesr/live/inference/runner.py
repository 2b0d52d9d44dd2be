"""Which runtime runs an engine.

Owns the choice: the one that was named, or the first that can, and whether it sees frames in tiles.
Knows no runtime by itself.
"""

from __future__ import annotations

import logging
from functools import partial

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, suggestion
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine
from livesr.live.inference.runtime import (
    BACKENDS,
    PRECISIONS,
    Runtime,
    is_remote,
    runtime_named,
    why_unavailable,
)
from livesr.live.inference.session import InferenceSession
from livesr.live.inference.tiling import TiledSession, of_tiles, smaller_tile, tile_that_fits

log = logging.getLogger(__name__)

_OUT_OF_MEMORY = (
    "out of memory",
    "out_of_memory",
    "bad_alloc",
    "bad allocation",
    "can't allocate",
    "failed to allocate",
)


def open_session(
    engine: Engine, shape: tuple[int, int], compute: ComputeConfig
) -> InferenceSession:
    """Open `engine` for frames of `shape` (y, x) on the runtime that `compute` names, or on the
    first that can ("auto").

    With "auto" tiles, a frame is taken apart if it is estimated to take more than half of the free
    memory, or if the runtime runs out of it.

    Raises
    ------
    BackendError
        If the named one, or none at all, can run it here: with the reasons and the pip extra.
    EngineError
        If the engine cannot take such frames.
    """
    check_named(compute)
    if compute.backend != "auto":
        return open_on(compute.backend, engine, shape, compute)
    reasons: list[str] = []
    for name in in_order():
        try:
            session = open_on(name, engine, shape, compute)
        except BackendError as e:
            log.info("Backend %s is skipped: %s", name, e)
            reasons.append(f"{name}: {e}")
            continue
        session.skipped = tuple(reasons)
        return session
    raise BackendError(
        f"No backend can run engine {engine.manifest.id!r} here. {' '.join(reasons)}"
    )


def check_named(compute: ComputeConfig) -> None:
    """Refuse names of a runtime or an arithmetic that nobody knows, whether they are used or not.

    Raises
    ------
    BackendError
        With the nearest that is known.
    """
    for what, name, known in (
        ("backend", compute.backend, BACKENDS.names),
        ("precision", compute.precision, PRECISIONS),
    ):
        if name not in ("auto", *known):
            raise BackendError(f"There is no {what} {name!r}.{suggestion(name, ['auto', *known])}")
    if compute.endpoint and not is_remote(compute.backend):
        raise BackendError(
            f"The server {compute.endpoint} is named, and backend {compute.backend!r} asks none:"
            " use --backend kserve, or leave out the endpoint."
        )


def in_order() -> list[str]:
    """Return the names of the runtimes as "auto" tries them.

    Those that compute on a GPU first, if one is here; none that is remote.
    """
    names, on_gpu = [], set()
    for name in BACKENDS.names:
        try:
            runtime = runtime_named(name)
        except BackendError as e:  # of another package
            log.warning("%s", e)
            continue
        if not runtime.remote:
            names.append(name)
            if why_no_gpu() is None and runtime.resident:
                on_gpu.add(name)
    return sorted(names, key=lambda name: name not in on_gpu)


def open_on(
    name: str, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
) -> InferenceSession:
    """Open `engine` on the runtime `name`, whatever `compute` names.

    Errors as of `open_session`.
    """
    check_named(compute.model_copy(update={"backend": name}))
    runtime = runtime_named(name)
    if reason := why_unavailable(name):
        raise BackendError(reason)
    with BACKENDS.blamed(name, f"cannot open engine {engine.manifest.id!r}", BackendError):
        session = _in_tiles(runtime, engine, shape, compute)
    log.info("%s runs on %s", engine, session.described())
    return session


def _in_tiles(
    runtime: Runtime, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
) -> InferenceSession:
    """Open for the whole frame or for tiles, for ever smaller ones where that is livesr's choice
    and memory is short.
    """
    side: int | None = compute.tile if isinstance(compute.tile, int) else None
    if compute.tile == "auto" and (free := runtime.free_bytes()) is not None:
        side = tile_that_fits(engine, shape, free)
    while True:
        try:
            if side is None or side >= max(shape):
                return runtime.open(engine, shape, compute)
            open_tile = partial(runtime.open, of_tiles(engine), compute=compute)
            return TiledSession(engine, shape, side, open_tile)
        except Exception as e:
            if compute.tile != "auto" or not out_of_memory(e):
                raise
            if (side := smaller_tile(engine, side or max(shape))) is None:
                raise
            log.warning(
                "%s has too little memory for engine %s: trying tiles of %d pixels",
                runtime.name,
                engine,
                side,
            )


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that memory was short.

    Every runtime has its own words.
    """
    if error is None:
        return False
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or any(w in said for w in _OUT_OF_MEMORY)
        or out_of_memory(error.__cause__)
    )
