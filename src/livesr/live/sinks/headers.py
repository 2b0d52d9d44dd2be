"""What a header says of a frame: of a prediction, of its uncertainty, of a measurement.

Owns the way from the records of a run to wire format v1 (`livesr.formats.wire`). Sends nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.documents import to_json
from livesr.base.frames import FrameErrors, MulticolorFrame, Pixels, SRFrame, Stream, Widefield
from livesr.base.run_description import RunDescription
from livesr.base.timing import now_ns
from livesr.formats.layout import ERROR_WARNING, UNCERTAINTY_WARNING
from livesr.formats.wire import (
    INPUT,
    MAX_NAME,
    WIDEFIELD,
    WireChannel,
    WireCounts,
    WireHeader,
    WireLocalised,
)
from livesr.live.sinks.series import DisplayWindow
from livesr.live.sinks.sink import (
    error_facts,
    mixing_facts,
    quality_facts,
    score_facts,
    time_shift_ms,
)

_WINDOW_UPDATE_S = 0.1
_BINS = 64  # of a histogram of localisations
_QUANTITIES = ("photons", "uncertainty_nm", "z_nm", "z_uncertainty_nm")


class PictureHeaders:
    """Headers of the pictures of a run; of one thread.

    Parameters
    ----------
    run : whose frames they are
    """

    def __init__(self, run: RunDescription) -> None:
        self._run = run
        # Not the normalisation of the network's input: its scale would leave the picture dark.
        self._windows: dict[tuple[bytes, Stream], DisplayWindow] = {}
        self._ai = {c.name: {"prediction": True, **jsonable(c.ai)} for c in run.channels}

    def prediction(self, frame: MulticolorFrame, seq: int) -> WireHeader:
        """Describe `frame.channels`."""
        channel = self._run.channel(frame.stream.channel)
        ai = self._ai[channel.name]
        if frame.provisional:  # there is time for one view
            ai = {key: said for key, said in ai.items() if key != "ensemble"}
        return WireHeader(
            **self._common(frame.source, seq),
            shape=frame.channels.shape,
            axes="cyx",
            offset_adu=frame.offset_adu,
            unit=channel.recon_unit,
            unit_scale=channel.recon_unit_scale,
            pixel_size_um=channel.sr_pixel_size_um,
            channels=tuple(
                WireChannel(label=label, color=color, window=_finite(window))
                for label, color, window in zip(
                    channel.labels, channel.colors, frame.display, strict=True
                )
            ),
            ai=ai,
            provisional=frame.provisional,
            edge=frame.edge,
            true_neighbours=frame.true_neighbours,
            residual=frame.residual,
            novelty=frame.ood_score,
            unknown_light=frame.unknown_light,
            judgement=frame.judgement.written(),
            mixing=mixing_facts(frame),
            latency_ms=frame.latency_ms,
            warnings=frame.warnings,
            score=jsonable(score_facts(frame)),
        )

    def uncertainty(self, frame: MulticolorFrame, seq: int) -> WireHeader:
        """Describe `frame.uncertainty`."""
        channel = self._run.channel(frame.stream.channel)
        about = {
            **self._ai[channel.name],
            "prediction": False,
            "measurement": False,
            "warning": UNCERTAINTY_WARNING,
        }
        return self.prediction(frame, seq).model_copy(
            update={
                "offset_adu": 0,
                "channels": tuple(
                    WireChannel(label=label, color=color)
                    for label, color in zip(channel.labels, channel.colors, strict=True)
                ),
                "ai": {**about, "uncertainty": jsonable(channel.uncertainty)},
            }
        )

    def limits(self, frame: MulticolorFrame, seq: int) -> WireHeader:
        """Describe `frame.limits`, the lower ones first."""
        channel, bars = self._run.channel(frame.stream.channel), frame.error_bars
        assert bars is not None
        sides = [
            WireChannel(label=f"{side} limit of {label}", color=color)
            for side in ("lower", "upper")
            for label, color in zip(channel.labels, channel.colors, strict=True)
        ]
        about = bars.model_dump(mode="json", by_alias=True, exclude={"structures"})
        ai = {**self._ai[channel.name], "warning": bars.sentence, "error_bars": about}
        n, *sides_px = frame.channels.shape
        return self.prediction(frame, seq).model_copy(
            update={"shape": (2 * n, *sides_px), "channels": tuple(sides), "ai": ai}
        )

    def errors(self, frame: FrameErrors, seq: int) -> WireHeader:
        """Describe the planes of a comparison with widefield."""
        channel = self._run.channel(frame.source.stream.channel)
        return WireHeader(
            **{**self._common(frame.source, seq), "dtype": "<f4"},
            shape=frame.planes.shape,
            axes="cyx",
            pixel_size_um=channel.recon_pixel_size_um,
            channels=tuple(WireChannel(label=label) for label in frame.labels),
            ai={"prediction": False, "measurement": False, "warning": ERROR_WARNING},
            compared=jsonable(error_facts(frame)),
        )

    def measurement(self, frame: SRFrame, seq: int, pixels: Pixels) -> WireHeader:
        """Describe `pixels`, which are `frame.image` with the offset of the run, as uint16."""
        channel = self._run.channel(frame.stream.channel)
        offset = self._run.recon_offset_adu
        judged = quality_facts(frame)
        doubt = judged.pop("doubt", None)
        for stored_only in ("pattern_drift_rad", "vector_drift_per_um"):
            judged.pop(stored_only, None)
        resolved = judged.get("resolved", True)
        return WireHeader(
            **self._common(frame, seq),
            **judged,
            warnings=(f"Doubtful: {doubt}.",) if doubt else (),
            provisional=frame.newest > 0,
            newest_raw=frame.newest or None,
            span_ms=frame.span_ms,
            shape=frame.image.shape,
            axes="yx",
            offset_adu=offset,
            pixel_size_um=channel.recon_pixel_size_um,
            channels=(
                WireChannel(
                    label=channel.recon_method if resolved else "widefield",
                    window=self._window(INPUT, frame.stream, pixels),
                ),
            ),
            unit=channel.recon_unit,
            unit_scale=channel.recon_unit_scale,
            ai={"prediction": False},
            latency_ms=(now_ns() - frame.t_acq_ns) / 1e6,
            localised=_localised(frame, len(channel.raw_labels)),
        )

    def depth(self, frame: SRFrame, seq: int) -> WireHeader:
        """Describe `frame.depth_nm`."""
        channel = self._run.channel(frame.stream.channel)
        return WireHeader(
            **{**self._common(frame, seq), "dtype": "<f4"},
            shape=frame.image.shape,
            axes="yx",
            pixel_size_um=channel.recon_pixel_size_um,
            channels=(WireChannel(label="depth", window=channel.depth_range_nm),),
            unit="nm",
            ai={"prediction": False},
        )

    def widefield(self, frame: Widefield, seq: int, pixels: Pixels) -> WireHeader:
        """Describe `pixels`, which are `frame.image` as uint16."""
        channel = self._run.channel(frame.stream.channel)
        window = self._window(WIDEFIELD, frame.stream, pixels)
        return WireHeader(
            **self._place(frame, seq),
            shape=pixels.shape,
            axes="yx",
            offset_adu=round(channel.raw_dark_adu),
            pixel_size_um=channel.raw_pixel_size_um,
            channels=(WireChannel(label="widefield", window=window),),
            ai={"prediction": False},
            latency_ms=(now_ns() - frame.t_acq_ns) / 1e6,
        )

    def _window(self, topic: bytes, stream: Stream, pixels: Pixels) -> tuple[float, float]:
        """Return the window to show a measurement with, which follows slowly."""
        follows = self._windows.setdefault((topic, stream), DisplayWindow(_WINDOW_UPDATE_S))
        return follows.update(pixels)

    def _common(self, frame: SRFrame, seq: int) -> dict[str, Any]:
        """Fields of every picture that was reconstructed, or made of one."""
        return {
            **self._place(frame, seq),
            "time_shift_ms": time_shift_ms(frame.parts),
            "normalisation": frame.normalisation.written(),
        }

    def _place(self, frame: SRFrame | Widefield, seq: int) -> dict[str, Any]:
        """Fields of every picture."""
        stream = frame.stream
        per_frame = len(self._run.channel(stream.channel).raw_labels)
        return {
            "v": 1,
            "type": "frame",
            "stream": self._run.stream_id,
            "seq": seq,
            "t_pub_ns": now_ns(),
            "t_acq_ns": frame.t_acq_ns,
            "t_camera_ms": frame.t_camera_ms,
            "position": stream.position,
            "position_name": self._run.positions[stream.position][:MAX_NAME],
            "channel": stream.channel,
            "z": stream.z,
            "t": frame.t,
            "z_um": stream.z * self._run.stack(stream.position, stream.channel).z_step_um,
            "stage_um": tuple(frame.stage),
            "raw_seq": (frame.t * per_frame, (frame.t + 1) * per_frame - 1) if per_frame else None,
            "dtype": "<u2",
            "encoding": "raw",
        }


def plain_header(run: RunDescription, kind: Any, seq: int, status: Mapping[str, Any]) -> WireHeader:
    """Return a header without a picture: what is said of a run."""
    return WireHeader(
        type=kind,
        stream=run.stream_id,
        seq=seq,
        t_pub_ns=now_ns(),
        status=jsonable(status),
    )


def _localised(frame: SRFrame, exposures: int) -> WireLocalised | None:
    """Sum up what a group of `exposures` added to a running image."""
    found = frame.localisations
    if found is None:
        return None
    first, bins = frame.t * exposures, min(exposures, _BINS)
    ranges = {"frame": (first, first + exposures)} if bins else {}
    counted = {"frame": _counts(found["frame"], bins, ranges["frame"])} if ranges else {}
    quantities = [n for n in _QUANTITIES if n in (found.dtype.names or ())]
    for name in quantities if len(found) else ():
        low, high = (float(v) for v in np.percentile(found[name], (0.5, 99.5)))
        counted[name] = _counts(found[name], _BINS, (low, max(high, low + 1e-3)))
    return WireLocalised(
        count=len(found),
        per_um2=frame.emitters_per_um2,
        median={n: round(float(np.median(found[n])), 3) for n in quantities if len(found)},
        histograms=counted,
    )


def _counts(values: NDArray[Any], bins: int, between: tuple[float, float]) -> WireCounts:
    counts, _ = np.histogram(values, bins, between)
    return WireCounts(low=between[0], high=between[1], counts=tuple(counts.tolist()))


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that holds what JSON knows, and nothing else."""
    plain: dict[str, Any] = json.loads(to_json(values))
    return plain


def _finite(window: tuple[float, float]) -> tuple[float, float] | None:
    return window if all(map(math.isfinite, window)) else None
