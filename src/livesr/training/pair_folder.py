"""A folder of training pairs: made once, in parallel, continued where it was interrupted.

Owns the files while they are incomplete and the processes that fill them. What a pair is made of is
a `PairMaker`'s (`simulated.py`, `composites.py`); the finished format is described in `sources.py`.

Everything about pair i comes from a generator seeded with (seed, i): it does not depend on the
number of workers, on the number of pairs or on what was made before.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.documents import read_json
from livesr.base.files import replace_file
from livesr.base.npy import open_npy
from livesr.base.version import __version__
from livesr.simulation.domain import Domain
from livesr.store.cluster import computed_on, connected
from livesr.store.parts import refuse_other_version

Image = NDArray[np.float32]
Shape = tuple[int, int, int]

_CHUNK = 4
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class PairMaker(Protocol):
    """Makes pairs; small enough to be sent to a worker process."""

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """Shapes of the frames (f, y, x) and the targets (c, sy, sx) of one pair."""

    def meta(self) -> dict[str, Any]:
        """Return all that pairs depend on besides seed and number, JSON-able, with `channels` and
        `pixel_size_nm`.
        """

    def make(self, entropy: tuple[int, int]) -> tuple[Image, Image]:
        """Return normalised frames and targets, determined by `entropy` alone."""


def write_pairs(
    folder: Path,
    maker: PairMaker,
    n: int,
    *,
    seed: int,
    workers: int = 1,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Make a folder of training pairs, or finish one, or find that nothing is left to do.

    Parameters
    ----------
    folder : created if needed. An interrupted run of the same parameters continues there
    maker : what the pairs are
    n : pairs
    seed : training and validation pairs need different ones
    workers : processes; 1 works in this one. More need a script that can be imported (``if __name__
        == "__main__"``)
    cluster : scheduler of a Dask cluster, whose workers make the pairs instead; they come back by
        the network, and only this process writes. Files that `maker` reads must be seen by all
    progress : called with (pairs done, `n`)
    say : told where the cluster's dashboard is

    Returns
    -------
    Path
        `folder`; 2 bytes a pixel.

    Raises
    ------
    ValueError
        If the folder holds pairs made with other parameters.
    LiveSRError
        If the cluster cannot be reached, or could not make a pair.
    """
    store = _PairStore(folder, maker, n, seed)
    if store.is_complete():
        return folder
    todo = store.open()
    report = progress or (lambda done, total: None)
    report(n - len(todo), n)
    making = _on_cluster(store, todo, cluster, say) if cluster else _here(store, todo, workers)
    for count, _ in enumerate(making, start=n - len(todo) + 1):
        report(count, n)
    store.complete()
    return folder


class _PairStore:
    """The files of one folder of pairs; small enough to be sent to a worker.

    While pairs are missing the parameters lie in `unfinished.json` and one flag per pair in
    `done.npy`; `meta.json` appears with the last pair, so that nobody trains on zeros.
    """

    def __init__(self, folder: Path, maker: PairMaker, n: int, seed: int) -> None:
        self.folder, self.maker, self.n, self.seed = folder, maker, n, seed

    def is_complete(self) -> bool:
        return self._matches(self.folder / "meta.json")

    def open(self) -> list[int]:
        """Create the files, or find them, and return the indices of the pairs that are missing."""
        if not self._matches(self.folder / "unfinished.json"):
            self.folder.mkdir(parents=True, exist_ok=True)
            contained.refuse_links(self.folder, writing=True)
            frames, targets = self.maker.shapes
            self._create("frames", np.float16, (self.n, *frames))
            self._create("targets", np.float16, (self.n, *targets))
            self._create("done", np.bool_, (self.n,))
            (self.folder / "unfinished.json").write_text(
                json.dumps(self._meta(), indent=2) + "\n", encoding="utf-8"
            )
        return [int(i) for i in np.flatnonzero(~open_npy(self.folder / "done.npy"))]

    def make(self, indices: list[int]) -> int:
        """Make and write pairs `indices`; return how many."""
        return self.write((i, *self.maker.make((self.seed, i))) for i in indices)

    def write(self, pairs: Iterable[tuple[int, NDArray[Any], NDArray[Any]]]) -> int:
        """Write pairs by their index; return how many."""
        contained.refuse_links(self.folder, writing=True)
        frames, targets, done = (
            open_npy(self.folder / f"{name}.npy", "r+") for name in ("frames", "targets", "done")
        )
        count = 0
        for i, frame, target in pairs:
            frames[i], targets[i] = frame, target
            done[i] = True
            count += 1
        return count

    def complete(self) -> None:
        replace_file(self.folder / "unfinished.json", self.folder / "meta.json")
        (self.folder / "done.npy").unlink()

    def _create(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", dtype, shape)

    def _matches(self, path: Path) -> bool:
        if not path.is_file():
            return False
        found, wanted = _of_today(read_json(path)), self._meta()
        if found == wanted:
            return True
        differ = _differing(found, wanted)
        raise ValueError(
            f"{self.folder} holds pairs that differ in {', '.join(differ)}; use another folder or"
            " delete it"
        )

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads(
            json.dumps({"n": self.n, "seed": self.seed, **self.maker.meta()})
        )
        return meta


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the keys that differ, with those inside of the domain."""
    keys = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    there, asked = found.get("domain"), wanted.get("domain")
    if "domain" in keys and isinstance(there, dict) and isinstance(asked, dict):
        keys[keys.index("domain")] += f" ({', '.join(_differing(there, asked))})"
    return keys


def _of_today(meta: dict[str, Any]) -> dict[str, Any]:
    """Return what older versions wrote, with the names of today and what has been added since."""
    if "headroom_spread" in (domain := meta.get("domain", {})):
        domain["scale_spread"] = domain.pop("headroom_spread")
    if "domain" in meta:  # what a domain has got since has the value that it had before
        meta["domain"] = {**Domain().model_dump(mode="json"), **meta["domain"]}
    return meta


def _here(store: _PairStore, todo: list[int], workers: int) -> Iterator[None]:
    """Make pairs `todo`; yield once per pair."""
    if workers <= 1:
        for i in todo:
            store.make([i])
            yield None
        return
    with (
        _environment(_ONE_THREAD),
        ProcessPoolExecutor(
            min(workers, max(len(todo), 1)), multiprocessing.get_context("spawn")
        ) as pool,
    ):
        for count in pool.map(store.make, _chunks(todo)):
            yield from (None for _ in range(count))


class _Batch(tuple[int, ...]):
    """Indices of pairs that a worker of a cluster makes at once."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return f"{self[0]:08d}"

    def __str__(self) -> str:
        return f"pairs {self[0]} to {self[-1]}"


def _on_cluster(
    store: _PairStore, todo: list[int], address: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Have pairs `todo` made by a cluster; yield once per pair."""
    work = {
        batch: partial(made_on_worker, store.maker, store.seed, tuple(batch), __version__)
        for batch in map(_Batch, _chunks(todo))
    }
    with connected(address, say) as client:
        for batch, made in computed_on(client, work, "pairs", say):
            store.write((i, *pair) for i, pair in zip(batch, made, strict=True))
            yield from (None for _ in batch)


def made_on_worker(
    maker: PairMaker, seed: int, indices: Sequence[int], livesr: str
) -> list[tuple[NDArray[np.float16], NDArray[np.float16]]]:
    """Return pairs as they are stored; raises ConfigError if `livesr` is another version."""
    refuse_other_version(livesr)
    pairs = (maker.make((seed, i)) for i in indices)
    return [(frames.astype(np.float16), targets.astype(np.float16)) for frames, targets in pairs]


def _chunks(todo: list[int]) -> list[list[int]]:
    return [todo[i : i + _CHUNK] for i in range(0, len(todo), _CHUNK)]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes started meanwhile.

    A library reads its thread count when it is imported.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
