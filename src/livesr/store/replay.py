"""`Replay`: a recording run as if a camera were exposing it now.

Owns the run's life and where its frames come from. Sinks, signals and report are those of every run
(`livesr.live.session`), the way of a frame is in `livesr.live.pipeline`. No core is loaded and no
device opened.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import takewhile
from numbers import Integral, Real
from types import TracebackType
from typing import Literal, Self

from livesr.base.compute import DeviceChoice, ErrorMaps, Views
from livesr.base.config import RigConfig, load_rig, parse
from livesr.base.errors import ConfigError, DamagedFileError
from livesr.base.files import not_expected
from livesr.base.frames import CameraFrame
from livesr.base.run_config import AnyPath, RunConfig, named_in
from livesr.base.timing import starts_ns
from livesr.live.session import Session, check_places
from livesr.live.sinks.sink import Sink, checked
from livesr.live.sources.replay import Rate, play
from livesr.store.process import build_paths, manifests
from livesr.store.raw_input import RawInput, ReadAs, description, raw_input
from livesr.store.wire_input import is_address, raw_on_wire

log = logging.getLogger(__name__)

_ONCE = "This replay has run, or was not entered: use 'with Replay(...) as replay', once."
_NOTHING = "Nothing was replayed before the block was left: call replay.run() inside of it."
_LEFT = (
    "Replay was left while the recording was still being played, and ended there: wait for the"
    " thread of replay.run() inside of the block."
)


class Replay(Session):
    """Runs a recording through the live pipeline.

    A context manager as `LiveSR`: on entering, the engine is compiled and store and address are
    opened; on leaving, everything handed over is processed and stored. Frames bear the time at
    which they are replayed, and the camera's clock of then.

    Parameters
    ----------
    recording : a store that a run left, TIFF, OME-Zarr, MRC or NDTiff (see the guide), a
        `RawInput`, or the address on which a run hands out its raw groups ("tcp://rig:5556")
    rig : a rig.yaml, its folder, a name in hardware_configs, or a `RigConfig`; a store of livesr
        brings its own
    engine : separates the only channel that is separated, instead of rig.yaml's
    upscale : likewise, for the step before
    rate : exposures a second; "recorded": as they were recorded; "max": as fast as the pipeline
        takes them
    frames : super-resolution frames of each stream after which it ends; None plays the whole
        recording
    how : what the file does not say of itself
    sinks : as for `LiveSR`
    store, spare, flush_s : OME-Zarr to write, None keeps nothing (a path that exists gets the next
        number); a folder on another disk, where it goes on when its own disk is full or fails;
        every how many seconds all of it is written through to the disk
    publish_raw : ZeroMQ address on which another computer may ask for the raw groups
    publish, insecure, keys : ZeroMQ address to publish on, such as "tcp://127.0.0.1:5555"; whether
        one that other computers reach may be unencrypted; the folder of the keys that encrypt
    policy, provisional : "latest" skips predictions when the network is slow and, with "auto",
        shows a frame before its successor came; "complete" skips nothing and lets latency grow
    record_raw, record_recon : whether raw frames and reconstructions are stored
    pairs : folder for the true channels of a superposition, to train on
    raw_queue_bytes : memory for frames that wait, None takes a quarter of what is free
    backend, endpoint, precision, device, threads, tile, resample : how it is computed, as in
        `ComputeConfig`
    ensemble, uncertainty : views of every frame that are averaged and compared, likewise
    error_map, error_bars, residual_plane : what is told of its pictures, likewise

    Raises
    ------
    UsageError
        If the recording, the rig, the engine, the store or the address cannot work; nothing is
        started.

    Examples
    --------
    >>> with Replay("raw.tif", rig="virtual_sim", rate="max", policy="complete",
    store="run.ome.zarr") as replay:
    ...     replay.frame_ready.connect(react)
    ...     replay.run()
    >>> print(replay.report)
    """

    def __init__(
        self,
        recording: AnyPath | RawInput,
        *,
        rig: AnyPath | RigConfig | None = None,
        engine: str | None = None,
        upscale: str | None = None,
        rate: Rate = "recorded",
        frames: int | None = None,
        how: ReadAs | None = None,
        sinks: Sequence[Sink | str] = (),
        store: AnyPath | None = None,
        spare: AnyPath | None = None,
        flush_s: float | None = None,
        publish: str | None = None,
        publish_raw: str | None = None,
        insecure: bool = False,
        keys: AnyPath | None = None,
        policy: Literal["latest", "complete"] = "latest",
        provisional: Literal["auto", "off"] = "auto",
        record_raw: bool = True,
        record_recon: bool = True,
        pairs: AnyPath | None = None,
        raw_queue_bytes: int | None = None,
        backend: str = "auto",
        endpoint: str | None = None,
        precision: str = "auto",
        device: DeviceChoice = "auto",
        threads: int = 0,
        tile: int | Literal["auto", "off"] = "auto",
        resample: Literal["auto", "off"] | None = None,
        uncertainty: Views | None = None,
        ensemble: Views | None = None,
        error_map: ErrorMaps | None = None,
        error_bars: bool = False,
        residual_plane: bool = False,
    ) -> None:
        settings = parse(RunConfig, named_in(RunConfig, locals()), "Replay")
        if not (rate in ("recorded", "max") or (isinstance(rate, Real) and rate > 0)):
            raise ConfigError(
                f"The rate is {rate!r} exposures a second; it must be above 0, 'recorded' or 'max'."
            )
        if not (frames is None or (isinstance(frames, Integral) and frames > 0)):
            raise not_expected(
                frames, "frames", "a number of super-resolution frames above 0, or None for all"
            )
        sinks = checked(sinks)  # before a file is open
        if not isinstance(recording, RawInput):
            config = rig if isinstance(rig, RigConfig) or rig is None else load_rig(rig)
            if is_address(recording):
                rate = "max"  # they come when they were exposed
                recording = raw_on_wire(str(recording), config, engine, upscale, keys=settings.keys)
            else:
                recording = raw_input(recording, config, engine, upscale, how)
        super().__init__(recording.rig, settings, sinks)
        self._input, self._frames = recording, frames
        self._rate: Rate = rate if isinstance(rate, str) else float(rate)
        self._stopped = threading.Event()
        self._entered = self._played = self._playing = False
        self._about = {"replay": {"recording": recording.name, "rate": rate}}
        if recording.account is not None:
            self._about["replay"]["wire"] = recording.account

    @property
    def frames(self) -> int:
        """Super-resolution frames that there will be at most, over all streams; 0 where nobody
        knows how long the run goes on.
        """
        if self._frames is None or self._input.account is not None:
            return self._input.groups or (self._frames or 0) * self._input.streams
        return min(self._input.groups, self._frames * self._input.streams)

    def __enter__(self) -> Self:
        if self._entered:
            raise ConfigError(_ONCE)
        raw, settings = self._input, self.settings
        try:
            check_places(settings, self._own_sinks)
            self._paths, notes = build_paths(raw, settings.compute)
            run = description(
                raw,
                [path.description for path in self._paths.values()],
                started_ns=starts_ns(),
                record_raw=settings.record_raw,
                record_recon=settings.record_recon,
                sidecars={**raw.run.get("sidecars", {}), **manifests(self._paths)},
            )
            pipeline = self._open_run(run, self._stopped.set)
        except BaseException:
            self._release_pipeline()
            self.wait()
            self._close()
            raise
        self._entered = True
        for note in (*raw.notes, *notes):
            pipeline.warn(note)
        atexit.register(
            self.__exit__, SystemExit, None, None
        )  # for a script that never leaves the block
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._forked:
            return
        atexit.unregister(self.__exit__)
        if self._playing and self._pipeline:
            self._pipeline.warn(_LEFT)
        elif kind is None and self._pipeline and not self._played:
            log.warning("%s", _NOTHING)
        self.stop()
        self._release_pipeline()
        self.wait()
        self._close()
        if kind is None and self.error is not None:
            raise self.error

    def run(self) -> None:
        """Play the recording; returns when its last frame was handed over, or after `stop`.

        A file that cannot be read to its end ends the run with `error`; what could be read is
        processed.
        """
        pipeline = self._pipeline
        if pipeline is None or self._played:
            raise ConfigError(_ONCE)
        self._played = self._playing = True
        try:
            play(
                pipeline.hook,
                self._chosen(),
                self._stopped,
                self._rate,
                self._input.spacing_s,
            )
        except DamagedFileError as e:
            pipeline.stop(e)
        finally:
            self._playing = False
        for remark in self._input.remarks():
            pipeline.warn(remark)

    def stop(self) -> None:
        """End the replay; what was handed over is processed."""
        self._stopped.set()
        self._input.cancel()
        if self._pipeline:
            self._pipeline.hook.release()

    def _chosen(self) -> Iterator[CameraFrame]:
        limit = self._frames
        frames = iter(self._input.frames())
        return frames if limit is None else takewhile(lambda frame: frame.t < limit, frames)

    def _close(self) -> None:
        self._close_paths()
        self._input.close()
