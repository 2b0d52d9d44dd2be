"""Runs computed on a Dask cluster: who computes which part, and what if it dies.

Owns the connection, the order of the parts and what is tried again. What a part is, is said in
`livesr.store.parts`. `distributed` is imported where it is used.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

from livesr.base.documents import read_json
from livesr.base.errors import ConfigError, LiveSRError, RunError, StoreError
from livesr.base.files import next_free_path
from livesr.base.lock import Lock
from livesr.base.progress import Progress
from livesr.live.run_state import Report
from livesr.live.sinks.series import write_json
from livesr.store.parts import (
    DONE,
    Job,
    Levels,
    Part,
    followed,
    merged,
    on_worker,
    parts_of,
    put_together,
    unmeasured,
)
from livesr.store.process import refuse_residual_plane

log = logging.getLogger(__name__)

_PLAN, _WHOLE, _OVER = "plan.json", "whole", "over.json"
_CONNECT_S = 30.0
_DEATHS = 3
"""Times that a part is handed out again after the cluster gave it up, because workers that had it
died: so a part that kills whoever computes it ends the run.
"""

Say = Callable[[str], None]
PartT = TypeVar("PartT", bound="Named")
ResultT = TypeVar("ResultT")


def process_on(
    address: str,
    job: Job,
    store: Path,
    *,
    on_progress: Progress = lambda done, total: None,
    say: Say = lambda sentence: None,
) -> Report:
    """Compute what `livesr.store.process.process` computes on the workers of a cluster.

    Every worker must see the recording and the folder of the store under the same paths, on one
    file system. Parts are written beside the store; whatever ends the run, the same call goes on
    with those that are missing.

    Parameters
    ----------
    address : of the scheduler, "tcp://HOST:8786" or "tls://HOST:8786"
    store : OME-Zarr to write; a path that exists gets the next number
    on_progress : told how many time points are done, and of how many
    say : told where the dashboard is, and what is gone on with

    Raises
    ------
    UsageError
        If the cluster cannot be reached, or the recording, the rig or the engine cannot work.
    RunError
        If a part could not be computed; the others are done.
    """
    refuse_residual_plane(job.compute)
    began_s = time.monotonic()
    job.folder.mkdir(parents=True, exist_ok=True)
    with Lock(job.folder, "process"):
        target, job = _planned(job, store, say)
        for left in job.folder.glob("try-*"):
            shutil.rmtree(left, ignore_errors=True)
        opened = job.open()
        try:
            parts = parts_of(opened, job)
            lacking = unmeasured(opened.raw)
            with connected(address, say) as client:
                levels: Levels = {}
                if lacking:
                    work = {
                        p: partial(on_worker, job, p, None)
                        for p in parts
                        if any(p.has(*key) for key in lacking)
                    }
                    for _, (found, _) in computed_on(client, work, "measuring", say):
                        levels |= found or {}
                    levels = followed(opened.raw, levels)
                _compute_parts(client, job, parts, levels, on_progress, say)
        finally:
            opened.close()
        reports = [read_json(job.place(part) / DONE)["report"] for part in parts]
        report = merged(reports, time.monotonic() - began_s)
        report["store"] = str(target)
        put_together(job, parts, job.folder / _WHOLE, report)
        write_json(job.folder / _OVER, {"store": str(target)})
        (job.folder / _WHOLE).rename(target)
    shutil.rmtree(job.folder, ignore_errors=True)
    return report


def folder_of(store: Path) -> Path:
    """Return the folder in which the parts of a store are written."""
    return store.absolute().with_name(f"{store.name}.parts")


def _compute_parts(
    client: Any,
    job: Job,
    parts: Sequence[Part],
    levels: Levels,
    on_progress: Progress,
    say: Say,
) -> None:
    total = sum(part.end - part.first for part in parts)
    there = [part for part in parts if job.place(part).is_dir()]
    done = sum(part.end - part.first for part in there)
    if there:
        say(f"{len(there)} of {len(parts)} parts are there: it goes on with the others.")
    on_progress(done, total)
    work = {
        part: partial(
            on_worker, job, part, {key: value for key, value in levels.items() if part.has(*key)}
        )
        for part in parts
        if part not in there
    }
    for part, _ in computed_on(client, work, "computing", say):
        done += part.end - part.first
        on_progress(done, total)


def _planned(job: Job, store: Path, say: Say) -> tuple[Path, Job]:
    """Return where the whole goes, and the job as it was begun, if it was.

    Raises
    ------
    StoreError
        If the folder holds parts of another run.
    """
    plan = job.folder / _PLAN
    over = job.folder / _OVER
    if over.exists() and not (job.folder / _WHOLE).exists():  # killed just before it was gone
        for left in job.folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            elif left.name in (_PLAN, _OVER):
                left.unlink()
    if not plan.exists():
        target = next_free_path(store.absolute())
        about = {"digest": job.digest, "store": str(target), "stream_id": job.stream_id}
        write_json(plan, about)
        return target, job
    about = read_json(plan)
    if about["digest"] != job.digest:
        raise StoreError(
            f"{job.folder} holds parts of another run: another recording, rig, engine, setting or"
            " version of livesr. Delete that folder, or name another --store."
        )
    return Path(about["store"]), replace(job, stream_id=str(about["stream_id"]))


# -- the cluster -----------------------------------------------------------------------------------


@contextmanager
def connected(address: str, say: Say) -> Iterator[Any]:
    """Connect to a cluster, which must have a worker; say where its dashboard is.

    Raises
    ------
    ConfigError
        If the address is none, nobody answers, or Dask is not installed.
    """
    if find_spec("distributed") is None:
        raise ConfigError("--cluster needs Dask: pip install 'livesr[cluster]'.")
    if not address.startswith(("tcp://", "tls://")):
        raise ConfigError(
            f"{address!r} is no scheduler's address; expected tcp://HOST:8786, or tls:// with the"
            " certificates of Dask's configuration."
        )
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except Exception as e:  # as many kinds as there are ways to fail
        raise ConfigError(
            f"No scheduler answers at {address} ({type(e).__name__}: {e}). Start one with 'dask"
            " scheduler', workers with 'dask worker', and look at the address that it prints."
        ) from e
    try:
        say(f"Dashboard: {client.dashboard_link}")
        if not client.scheduler_info(n_workers=-1)["workers"]:
            say("The cluster has no worker yet: it begins with the first.")
        yield client
    finally:
        client.close()


class Named(Hashable, Protocol):
    """A part of some work; `str` says it in a sentence."""

    @property
    def name(self) -> str:
        """Tells it from the others."""


def computed_on(
    client: Any, work: Mapping[PartT, Callable[[], ResultT]], what: str, say: Say
) -> Iterator[tuple[PartT, ResultT]]:
    """Yield each part when it is done, with what its function returned on a worker.

    Raises
    ------
    RunError
        When all others are done, if some failed: with the reason of the first.
    """
    from distributed import KilledWorker, as_completed

    call = uuid.uuid4().hex[:8]

    def handed_out(part: PartT, tries: int) -> Any:
        key = f"livesr-{what}-{part.name}-{call}-{tries}"
        return client.submit(work[part], key=key, pure=False)

    under_way = {handed_out(part, 0): (part, 0) for part in work}
    failed: dict[PartT, str] = {}
    waiting = as_completed(list(under_way), loop=client.loop)
    for future in waiting:
        part, tries = under_way.pop(future)
        error = future.exception() if future.status != "finished" else None
        if error is None:
            yield part, future.result()
        elif isinstance(error, KilledWorker) and tries < _DEATHS:
            log.warning("Workers died that had %s: it is handed out again.", part)
            again = handed_out(part, tries + 1)
            under_way[again] = part, tries + 1
            waiting.add(again)
        else:
            failed[part] = _said(error)
            say(f"{str(part).capitalize()}: {failed[part]}")
        future.release()
    if failed:
        part, why = next(iter(failed.items()))
        raise RunError(
            f"{len(failed)} parts could not be computed, the first is {part}: {why} The others are"
            " done; the same command goes on with what is missing."
        )


def _said(error: BaseException) -> str:
    if isinstance(error, LiveSRError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"A worker lacks what livesr needs ({error}): install livesr on every worker."
    return f"{type(error).__name__}: {error}."
