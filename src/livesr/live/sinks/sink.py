"""What a sink is.

Owns the base class, the registry, the facts that store and stream share and the rule by which a
reconstruction becomes uint16. Knows no format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.base.files import not_expected
from livesr.base.frames import FrameErrors, MulticolorFrame, RawStack, SRFrame, Stream
from livesr.base.registry import Registry
from livesr.base.run_description import RunDescription
from livesr.formats.layout import DEPTH_OFFSET_NM

_DATED_NS = 10**18  # since 1970: in 2001

SINKS = Registry(
    "sink",
    {
        "ome-zarr": "livesr.live.sinks.ome_zarr:OMEZarrSink",
        "zeromq": "livesr.live.sinks.zeromq:ZeroMQSink",
        "picasso": "livesr.live.sinks.picasso:PicassoSink",
        "pairs": "livesr.live.sinks.pairs:PairsSink",
        "signals": "livesr.live.sinks.signals:SignalSink",
    },
    entry_points="livesr.sinks",
)
"""Sinks by name; other packages announce theirs as classes that are made without arguments."""


class Sink:
    """Receives what a run makes. Derive from it and override what is of interest.

    Every method here does nothing. All of them are called in one thread, which belongs to this
    sink alone; only `check`, and `open` of an `essential` sink, are called in the thread that
    starts the run. An object can serve one run after the other: `open` ... `close`, `open` ...
    `close`.

    Records, and the arrays in them, are handed over by reference: a sink may keep them for as long
    as it likes. It cannot write into them: the store and the network hold the same ones.

    Attributes
    ----------
    name : what the sink is called in messages and in the report; no two of a run are called alike
    lossless : whether it gets everything, in order, and raw exposures too. What waits for it takes
        memory of the run. A sink that is not lossless gets measurements, predictions and states,
        and loses the oldest of them when more than a few wait; the report counts what it lost
        (`sink_dropped`)
    essential : whether the run is recorded for its sake, so that its first error ends the run, and
        the end of the run waits for it however long it takes. Any other sink is left behind, with
        a warning, when it raises, does not come back, or lets too much wait for it; the recording
        goes on
    endures : whether it goes on getting everything after its first error
    keeps_raw : whether it records raw exposures: those that it loses count as `raw_lost`
    raw_kept : of a sink that keeps raw exposures, how many it has; None until `finish` knows
    notes : what people should know, in sentences; they become warnings of the run
    free_bytes : of an essential sink, what is left where it records; None where nobody knows
    watches_exposures : of a sink that is not lossless, whether `exposed` is to be called; asked for
        every group, in the thread that reconstructs
    """

    name: str = "sink"
    lossless: bool = False
    essential: bool = False
    endures: bool = False
    keeps_raw: bool = False
    raw_kept: int | None = None
    notes: Sequence[str] = ()
    free_bytes: int | None = None
    watches_exposures: bool = False

    @property
    def accounts(self) -> Mapping[str, Any]:
        """What the sink adds to the report; {} without anything.

        An essential one at its top, any other by its name under `sinks`.
        """
        return {}

    def check(self) -> None:
        """Refuse what `open` would, as far as a look without a run tells; leave nothing behind.

        Called before engines are compiled and a camera starts, which takes up to minutes.

        Raises
        ------
        UsageError
            If it could not start: an address that is taken, a folder that takes no files.
        """

    def open(self, run: RunDescription) -> None:
        """Get ready: allocate, validate, bind. Nothing may be left behind by a start that fails.

        Parameters
        ----------
        run : channels, positions, planes, pixel sizes in um, offsets in ADU

        Raises
        ------
        UsageError
            If it cannot start: the run does not start either, and nothing was acquired.
        """

    def raw(self, stack: RawStack) -> None:
        """Take the exposures of one time point, complete or not. Lossless sinks only.

        Parameters
        ----------
        stack : `frames` are uint8 or uint16 (y, x) in ADU, None where one never came
        """

    def unplaced(self, stack: RawStack) -> None:
        """Take exposures that have no place in the run. Lossless sinks only.

        Parameters
        ----------
        stack : exposures of another size, pixel type or channel than those of the run
        """

    def recon(self, frame: SRFrame) -> None:
        """Take a reconstructed frame: a measurement.

        Parameters
        ----------
        frame : `image` is float32 (y, x), in ADU above the camera's offset or, where molecules are
            localised, in hundredths of a localisation (`ChannelDescription.recon_unit`)
        """

    def updated(self, frame: SRFrame) -> None:
        """Take a picture of a group under way: a measurement, which the whole group's replaces.

        Comes only where a rig asks for it. A lossless sink gets those that are to be stored
        (`ChannelDescription.kept_updates`), each before its whole group.

        Parameters
        ----------
        frame : as of `recon`; `newest` of its exposures are of the time point, the others of the
            one before
        """

    def exposed(self, stack: RawStack) -> None:
        """Take the exposures of a measurement, after it, where `watches_exposures` says so.

        Parameters
        ----------
        stack : as of `raw`, complete or not
        """

    def separated(self, frame: MulticolorFrame) -> None:
        """Take a separated frame: a prediction, never a measurement.

        Parameters
        ----------
        frame : `channels` are uint16 (c, y, x) in ADU plus `frame.offset_adu`. A `provisional`
            frame is replaced by a later one of the same time point, and comes only to sinks that
            are not lossless
        """

    def errors(self, frame: FrameErrors) -> None:
        """Take what a comparison with widefield says, after the pictures that it is about.

        Parameters
        ----------
        frame : `planes` are float32 (n, y, x) in ADU of the exposures. Only as many frames as there
            is time for have one; those of a stream come in order
        """

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Take note that a time point has no prediction.

        Parameters
        ----------
        stream : position, channel and plane
        t : time point, counted from 0
        reason : part of a sentence
        """

    def status(self, status: Mapping[str, Any]) -> None:
        """Take the state of the run, about once a second, also while no frame comes.

        Parameters
        ----------
        status : counts, rates in frames/s, latencies in ms; plain values that JSON can hold
        """

    def finish(self) -> None:
        """See to it that everything taken is where it stays. Lossless sinks only, before `close`.

        `raw_kept`, `accounts` and `notes` are true afterwards.

        Raises
        ------
        RunError
            If something is lost.
        """

    def close(self, report: Mapping[str, Any]) -> None:
        """Finish and release everything; also after an error, or after an `open` that failed.

        Parameters
        ----------
        report : that of the run, as `LiveSR.report`; only `{"error": ...}` where it did not start

        Raises
        ------
        RunError
            If something is lost.
        """


def made(given: Sink | str) -> Sink:
    """Return a sink; a name of `SINKS` becomes a new object of its class.

    Raises
    ------
    ConfigError
        If the name is unknown, its package is broken, or what came is no sink.
    """
    made = _of_name(given) if isinstance(given, str) else given
    if not isinstance(made, Sink):
        raise ConfigError(
            f"{given!r} is no sink: expected an object of a class derived from livesr.Sink, or one"
            f" of the names {', '.join(SINKS.names)}."
        )
    return made


def checked(given: Sequence[Sink | str]) -> tuple[Sink | str, ...]:
    """Return what was given once all of it is known to be a sink, or the name of one.

    Raises
    ------
    ConfigError
        As `made`.
    """
    if isinstance(given, str | Sink) or not isinstance(given, Iterable):
        raise not_expected(given, "sinks", "a list of livesr.Sink objects or of their names")
    given = tuple(given)
    for sink in given:
        made(sink)
    return given


def named_apart(sinks: list[Sink]) -> list[Sink]:
    """Return the sinks of a run, none of which is called as another is.

    Raises
    ------
    ConfigError
        With the name that two of them have.
    """
    names = [sink.name for sink in sinks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"Two sinks are called {twice[0]!r}, and the report tells them apart by their names:"
            " give each a `name` of its own."
        )
    return sinks


def _of_name(name: str) -> object:
    kind = SINKS.load(name)
    try:
        return kind()
    except ConfigError:
        raise
    except Exception as e:  # a package of others can fail in any way
        raise ConfigError(
            f"The sink {name!r} of {SINKS.package(name)} cannot be made from its name alone:"
            f" {type(e).__name__}: {e}. In Python an object can be given: sinks=[...]."
        ) from e


def measured_facts(frame: SRFrame) -> dict[str, Any]:
    """Return what frames.jsonl says of a measurement, whenever it was computed."""
    return {
        **_taken(frame),
        "saturated": frame.saturated or None,
        **quality_facts(frame),
        "localisations": None if frame.localisations is None else len(frame.localisations),
        "emitters_per_um2": frame.emitters_per_um2,
        "drift_nm": frame.drift_nm,
        "drift_jump_nm": frame.jump_nm,
        "time_shift_ms": time_shift_ms(frame.parts),
        "span_ms": None if frame.span_ms is None else round(frame.span_ms, 3),
    }


def predicted_facts(frame: MulticolorFrame) -> dict[str, Any]:
    """Return what frames.jsonl says of a prediction, whenever it was computed."""
    return {
        **_taken(frame.source),
        "residual": frame.residual,
        "edge": frame.edge,
        "true_neighbours": frame.true_neighbours,
        "novelty": _rounded(frame.ood_score),
        "unknown_light": _rounded(frame.unknown_light),
        "warnings": frame.warnings,
        "judgement": frame.judgement.written(),
        "mixing": mixing_facts(frame) or None,
        "beside": _beside(frame.source),
        "score": score_facts(frame) or None,
    }


def _taken(frame: SRFrame) -> dict[str, Any]:
    return {
        "t_acq_ns": frame.t_acq_ns,
        "t_camera_ms": frame.t_camera_ms,
        "normalisation": frame.normalisation.written(),
    }


def quality_facts(frame: SRFrame) -> dict[str, Any]:
    """Return what the store and the stream say of a frame's patterns, under the same names.

    Nothing where there are none.
    """
    if frame.quality is None:
        return {}
    quality = frame.quality.patterns
    rounded = (
        {k: round(v, 3) for k, v in quality._asdict().items() if v is not None} if quality else None
    )
    phases, vectors = frame.quality.pattern_drift_rad, frame.quality.vector_drift_um
    return {
        "quality": rounded,
        "doubt": frame.quality.doubt or None,
        "resolved": frame.quality.resolved,
        "pattern_drift_rad": phases if any(phases) else None,
        "vector_drift_per_um": vectors if any(vectors) else None,
    }


def score_facts(frame: MulticolorFrame) -> dict[str, dict[str, float]]:
    """Return what the store and the stream say of a frame's score against the true channels.

    {} without one.
    """
    return {
        s.label: {k: round(v, 4) for k, v in s._asdict().items() if k != "label"}
        for s in frame.score
    }


def error_facts(frame: FrameErrors) -> dict[str, dict[str, float]]:
    """Return what the store and the stream say of a comparison with widefield."""
    return {
        label: {k: float(f"{v:.4g}") for k, v in numbers._asdict().items()}
        for label, numbers in frame.numbers.items()
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def mixing_facts(frame: MulticolorFrame) -> dict[str, list[float]]:
    """Return what the store and the stream say of how bright structures are beside each other.

    ``{label: [ratio, low, high]}``, {} where it is not known.
    """
    return {one.label: [round(v, 4) for v in one[1:]] for one in frame.mixing}


def _beside(frame: SRFrame) -> dict[str, Any] | None:
    """Return which frame of another channel the network saw as well; None where it saw none."""
    other = frame.beside
    return None if other is None else {"channel": other.stream.channel, "t": other.t}


def moments_ns(parts: Sequence[SRFrame]) -> list[int]:
    """Return when frames were exposed, of those of which it is known.

    After a repair it may not be: 0 beside times of a computer's clock. Recordings without a date
    begin at 0.
    """
    times = [part.t_acq_ns for part in parts]
    dated = max(times, default=0) > _DATED_NS
    return [ns for ns in times if ns or not dated]


def time_shift_ms(parts: Sequence[SRFrame]) -> float | None:
    """Return the time from the first to the last of the moments that a sum is made of, as far as
    they are known.

    None for a frame that is no sum.
    """
    times = moments_ns(parts)
    return (max(times) - min(times)) / 1e6 if times else None


def depth_to_uint16(depth_nm: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return z as a store has it: whole nm above `DEPTH_OFFSET_NM` below focus, 0 where there is
    none.
    """
    raised = np.clip(np.rint(depth_nm) + DEPTH_OFFSET_NM, 1, np.iinfo(np.uint16).max)
    return np.asarray(np.nan_to_num(raised, nan=0.0), np.uint16)


def clipped_pixels(image: NDArray[np.float32], offset_adu: int) -> int:
    """Return how many pixels of a reconstruction `to_uint16` cannot keep."""
    low, high = -offset_adu, np.iinfo(np.uint16).max - offset_adu
    if low <= float(image.min()) and float(image.max()) <= high:
        return 0
    return int(np.count_nonzero((image < low) | (image > high)))


def to_uint16(
    image: NDArray[np.float32],
    offset_adu: int,
    out: NDArray[np.uint16] | None = None,
    scratch: NDArray[np.float32] | None = None,
) -> NDArray[np.uint16]:
    """Round a reconstruction (y, x) to whole ADU above `-offset_adu`, as the store and the wire
    hold it.

    Values that do not fit become 0 or 65535. Returns `out`, or a new array that the caller owns;
    with `out` and `scratch`, both of the image's shape, nothing is allocated.
    """
    shifted = np.add(image, np.float32(offset_adu), out=scratch)
    np.rint(shifted, out=shifted)
    np.clip(shifted, 0, np.iinfo(np.uint16).max, out=shifted)
    if out is None:
        return shifted.astype(np.uint16)
    np.copyto(out, shifted, casting="unsafe")
    return out
