"""Which runtime runs an engine.

Owns the choice: the one that was named, or the first that can, and whether it sees frames in tiles.
Knows no runtime by itself.
"""

from __future__ import annotations

import logging
from typing import Literal, cast

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, suggestion
from livesr.live.inference.backend import BACKENDS, PRECISIONS, Backend
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine
from livesr.live.inference.tiling import TiledBackend, smaller_tile, tile_that_fits

log = logging.getLogger(__name__)

_OUT_OF_MEMORY = (
    "out of memory",
    "out_of_memory",
    "bad_alloc",
    "bad allocation",
    "can't allocate",
    "failed to allocate",
)


def open_backend(
    engine: Engine,
    shape: tuple[int, int],
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    tile: int | Literal["auto", "off"] = "off",
) -> Backend:
    """Open `engine` for frames of `shape` (y, x) on the named runtime, or on the first that can
    ("auto").

    Parameters
    ----------
    tile : side of the tiles that larger frames are taken apart into; "auto" does so if a frame is
        estimated to take more than half of the free memory, or if the runtime runs out of it

    Raises
    ------
    BackendError
        If the named one, or none at all, can run it here: with the reasons and the pip extra.
    EngineError
        If the engine cannot take such frames.
    """
    if backend != "auto":
        return open_named(backend, engine, shape, precision, threads, tile)
    reasons = []
    for name in in_order():
        try:
            return open_named(name, engine, shape, precision, threads, tile)
        except BackendError as e:
            log.info("Backend %s is skipped: %s", name, e)
            reasons.append(f"{name}: {e}")
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


def in_order() -> list[str]:
    """Return the backends as "auto" tries them.

    Torch before OpenVINO where torch computes on a GPU.
    """
    names = list(BACKENDS.names)
    if why_no_gpu() is None and BACKENDS.load("torch").on_gpu():
        names.remove("torch")
        names.insert(names.index("openvino"), "torch")
    return names


def tile_of(backend: Backend) -> int | None:
    """Return the side of a backend's tiles, None if it takes frames as a whole."""
    return getattr(backend, "tile", None)


def open_named(
    name: str, engine: Engine, shape: tuple[int, int], precision: str, threads: int, tile: int | str
) -> Backend:
    """Open `engine` on the runtime `name`; parameters and errors as in `open_backend`."""
    check_named(ComputeConfig(backend=name, precision=precision))
    runtime = BACKENDS.load(name)
    if reason := runtime.is_unavailable():
        raise BackendError(reason)
    side = tile if isinstance(tile, int) else None
    if tile == "auto":
        side = tile_that_fits(engine, shape, runtime.free_bytes())
    while True:
        whole: Backend = runtime()
        backend = (
            whole
            if side is None or side >= max(shape)
            else cast("Backend", TiledBackend(whole, side))
        )
        try:
            backend.open(engine, shape, precision=precision, threads=threads)
        except Exception as e:
            backend.close()
            smaller = (
                smaller_tile(engine, side or max(shape))
                if tile == "auto" and out_of_memory(e)
                else None
            )
            if smaller is None:
                raise
            log.warning(
                "%s has too little memory for engine %s: trying tiles of %d pixels",
                name,
                engine,
                smaller,
            )
            side = smaller
            continue
        log.info("%s runs on %s, %s, %s", engine, name, backend.precision, backend.device)
        return backend


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
