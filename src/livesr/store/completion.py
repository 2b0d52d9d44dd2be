"""What a run left undone, done behind it: skipped frames, smaller levels, where a viewer begins.

Owns the order, the time that it may take, and that nothing of it harms what the run stored: what
cannot be done is a sentence, and the store stays as it was before that step.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from livesr.base.compute import AUTO, ComputeConfig
from livesr.base.errors import LiveSRError
from livesr.base.files import path_of
from livesr.base.progress import Progress, Stop
from livesr.formats.frames_log import SeriesName
from livesr.formats.store import Image, RecordedStore, array_shape, read_json
from livesr.live.sinks.series import write_json
from livesr.store.backfill import backfill
from livesr.store.levels import build_levels

_NICENESS = 10
_BEGUN: tuple[SeriesName, ...] = ("sr", "recon", "uncertainty")


@dataclass(frozen=True, slots=True)
class Completion:
    """What was done behind a run.

    Attributes
    ----------
    predicted, reconstructed : pictures that were computed
    left : pictures that could be computed and are not yet
    impossible : predictions whose exposures are not complete
    levels : images that have smaller levels now
    seconds : that it took
    problems : what could not be done, in sentences
    """

    predicted: int = 0
    reconstructed: int = 0
    left: int = 0
    impossible: int = 0
    levels: tuple[str, ...] = ()
    seconds: float = 0.0
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        return asdict(self)


def complete(
    path: str | Path,
    *,
    within_s: float | None = None,
    engine: str | None = None,
    upscale: str | None = None,
    compute: ComputeConfig = AUTO,
    stopped: threading.Event | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Completion:
    """Finish the store of a run that is over.

    Skipped predictions and dropped reconstructions are computed as `backfill` does, large images
    get smaller levels, and viewers are told a time point at which there is a picture. Each of
    these is done or left: a failure is among ``problems``, and is never raised.

    Parameters
    ----------
    within_s : seconds that it may take; what is under way when they are over is finished, so that
        nothing is torn. None takes as long as it needs
    engine, upscale : folders of the engines of the run, if not found by name
    stopped : ends it as soon when it is set
    on_progress : called with pictures computed and in all

    Raises
    ------
    ConfigError
        If `path` is none.
    """
    path = path_of(path, "The store")
    start = time.monotonic()
    stop = Stop(stopped, None if within_s is None else start + within_s)
    problems: list[str] = []
    done: dict[str, Any] = {}
    try:
        if may_lack_pictures(RecordedStore(Path(path))):
            done = backfill(
                Path(path),
                engine=engine,
                upscale=upscale,
                compute=compute.model_copy(update={"residual_plane": False}),  # is for who looks
                stopped=stop,
                on_progress=on_progress,
            )
    except LiveSRError as e:
        problems.append(str(e))
    levels: list[str] = []
    try:
        levels = build_levels(Path(path), stop=stop.is_set)
    except LiveSRError as e:
        problems.append(str(e))
    try:
        tell_where_pictures_are(Path(path))
    except (LiveSRError, OSError) as e:
        problems.append(f"Viewers are not told where the first picture is: {e}")
    counts = {name: int(done.get(name, 0)) for name in ("predicted", "reconstructed", "left")}
    return Completion(
        **counts,
        impossible=int(done.get("impossible", 0)),
        levels=tuple(levels),
        seconds=round(time.monotonic() - start, 1),
        problems=tuple(problems),
    )


def may_lack_pictures(store: RecordedStore) -> bool:
    """Whether raw may have more to give: true wherever that is not plain without an engine.

    False without raw, of which nothing can be computed.
    """
    taken = {key for key, line in store.pictures("raw").items() if line["state"] == "raw"}
    if not taken or store.superposed:
        return bool(taken)
    measured, predicted = store.measured(), store.pictures("sr")
    kept = store.pictures("recon")
    for key in taken:
        place = key[0].position, key[0].channel
        line = predicted.get(key, {})
        if key not in measured or (("recon", *place) in store.images and key not in kept):
            return True
        whole = line.get("edge") or line.get("true_neighbours")
        if ("sr", *place) in store.images and not whole:
            return True
    return False


def complete_behind(path: Path, **how: Any) -> Completion:
    """Do it with a low priority, in a thread: Ctrl-C ends it, and what is done stays."""
    stopped, over = threading.Event(), threading.Event()
    made: list[Completion] = []

    def work() -> None:
        try:
            _stand_back()
            made.append(complete(path, stopped=stopped, **how))
        finally:
            over.set()

    thread = threading.Thread(target=work, name="livesr-completion")
    thread.start()
    while not over.is_set():
        try:
            over.wait(0.2)
        except KeyboardInterrupt:
            stopped.set()
    thread.join()
    return made[0] if made else Completion(problems=("It ended with an error of its own.",))


def tell_where_pictures_are(path: Path) -> None:
    """Let viewers begin at the first time point at which every plane has a picture.

    What is missing reads as zeros, and NGFF has no word for it. What viewers do understand is
    OMERO's ``rdefs.defaultT``, the time point to begin with.

    Raises
    ------
    StoreError
        If it is no store.
    OSError
        If the disk refuses.
    """
    store = RecordedStore(path)
    for kind in _BEGUN:
        stored = store.pictures(kind)
        for image in (i for i in store.images.values() if i.kind == kind):
            here = {(t, s.z) for s, t in stored if (s.position, s.channel) == _place_of(image)}
            _begin_at(image, _first(image, here))


def _place_of(image: Image) -> tuple[int, str]:
    return image.position, image.channel


def _first(image: Image, stored: set[tuple[int, int]]) -> int | None:
    planes = range(array_shape(image.array, image.exposures).z_planes)
    for t in sorted({t for t, _ in stored}):
        if all((t, z) in stored for z in planes):
            return t
    return None


def _begin_at(image: Image, t: int | None) -> None:
    place = image.folder / "zarr.json"
    about = read_json(place)
    omero = about["attributes"]["ome"].setdefault("omero", {})
    defaults = omero.get("rdefs", {})
    if t is None or defaults.get("defaultT", 0) == t:
        return
    omero["rdefs"] = {**defaults, "defaultT": t}
    write_json(place, about)


def _stand_back() -> None:
    """Let every other program have the processor first; threads that are begun here inherit it."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
