"""Linear SIM of one plane.

The raw frames of one time point become one picture of twice the resolution and twice the pixels.

Owns the order of the steps, and which drift of the patterns the present frame is corrected by. Does
not estimate patterns. Touches no camera, queue or configuration file. Three objects do the work:

=================  =================================================================================
`SIMPlan`          what is done to every frame: worked out once, never changes
`Workspace`        the buffers, and the arithmetic in them
`QualityMeter`     whether a frame shows the patterns
=================  =================================================================================

A frame goes through the steps of `Workspace`, in this order::

    raw (n, y, x) --separate--> band 0 (y, x) real, one band per wave (y, x) complex
                  --transform-> their spectra, only inside the OTF's support
                  --picture---> weighted, moved to where they belong, added up: half a spectrum (2y,
                  x + 1), and back: picture (2y, 2x)

Method: Gustafsson 2000, J. Microscopy 198, 82; generalised Wiener weights as in Gustafsson et al.
2008, Biophysical J. 94, 4957; attenuation of the centre as in fairSIM (Mueller et al. 2016, Nature
Communications 7, 10980), of band 0 for optical sections as in O'Holleran & Shaw 2014, Biomedical
Optics Express 5, 2580. A wave is one sinus of the illumination: one per angle in 2D-SIM and
TIRF-SIM, two (k and 2 k) where three beams interfere. What makes it fast: band -1 is the conjugate
of band +1 and never computed; sub-pixel shift, phase, modulation and taper are one precomputed
ramp; moving by whole frequencies is slicing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import FrameShapeError
from livesr.base.frames import FrameQuality, PatternQuality, Pixels
from livesr.live.arrays import HOST, Array, Arrays
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError, NewerFrames, RawFrames
from livesr.modalities.sim.directions import OneDirection
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.pattern_drift import Correction, PatternDrift
from livesr.modalities.sim.plan import SIMPlan
from livesr.modalities.sim.quality import QualityLimits, QualityMeter
from livesr.modalities.sim.rolling import Exchange, Kept
from livesr.modalities.sim.tear import Tear, TearCheck
from livesr.modalities.sim.workspace import Workspace
from livesr.optics.exposure import Exposures, examine
from livesr.optics.illumination import Pattern
from livesr.optics.raw_quality import Doubt, group_doubt

log = logging.getLogger(__name__)

Float = NDArray[np.float32]


class SIMReconstructor:
    """Linear SIM with known patterns; one instance per stream and thread.

    Parameters
    ----------
    parameters : camera, optics, raw order and filter
    patterns : one per angle, with its phase at the chip's origin, and its overtones if three beams
        or more interfere
    quality_limits : when a frame is doubtful and what then happens; None reconstructs every frame
        and measures nothing
    follow : with `quality_limits`: correct phases that drift, between frames (see
        `pattern_drift.py`). Vectors are corrected by what `drift` says
    drift : what the phases are corrected by, if several instances reconstruct the frames of one
        channel in turn; its own if None
    arrays : what to compute with. Frames and the result are arrays of that namespace

    Attributes
    ----------
    plan : what is done to every frame
    quality : of the last frame, None without `quality_limits`
    drift : what the phases are corrected by

    Raises
    ------
    ConfigError
        If the patterns, phases or order cannot be reconstructed.

    Notes
    -----
    Linear in the frames (unless `equalise`), and the gain at zero frequency is 1 (unless
    `sectioning`): away from the tapered edges the mean of the result is the mean of the raw frames
    above the offset.
    """

    def __init__(
        self,
        parameters: SIMParameters,
        patterns: Sequence[Pattern],
        quality_limits: QualityLimits | None = None,
        *,
        follow: bool = False,
        drift: PatternDrift | None = None,
        arrays: Arrays = HOST,
    ) -> None:
        self.plan = SIMPlan.of(parameters, patterns, motion=quality_limits is not None)
        self._arrays, self._work = arrays, Workspace(self.plan, arrays)
        self._meter = QualityMeter(self.plan, quality_limits, arrays) if quality_limits else None
        self._tears = TearCheck(parameters, patterns, arrays) if quality_limits else None
        alone = quality_limits is not None and len(patterns) == 1 and not patterns[0].directions_um
        self._alone = OneDirection(parameters, patterns[0]) if alone else None
        self._exposures: Exposures | None = None
        self.quality: FrameQuality | None = None
        waves, angles = len(self.plan.waves), self.plan.angles
        self._follow, self.drift = follow, drift or PatternDrift(waves, angles)
        self._corrected = Correction.none(waves, angles)
        # of the next frame; others may use the same `PatternDrift` meanwhile
        self._recorded: Correction | None = None
        self._exchange = Exchange(self.plan, self._work, arrays)
        self._coming: Sequence[Pixels | None] | None = None
        self._kept: Kept | None = None  # what the bands are made of

    @property
    def scale(self) -> float:
        """Pixels of the result per camera pixel, along each side."""
        return float(self.plan.parameters.scale)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (2y, 2x) of the result; of nonlinear SIM larger."""
        return self.plan.shape

    @property
    def fade(self) -> tuple[Float, Float]:
        """How bright rows and columns of the result are, 1 away from the tapered edges."""
        return self.plan.fade()

    @property
    def memory_bytes(self) -> int:
        """Bytes held by the instance plus what one call needs for a moment, the result included."""
        return self._work.memory_bytes

    @property
    def transfer(self) -> Float:
        """What the reconstruction does to the object.

        Float32 (2y, 2x), FFT order, 1 at zero frequency, less in a sectioned picture.

        Away from the tapered edges, the reconstruction of a noise-free raw stack is
        ``ifft2(transfer * fft2(object))``, with the object sampled on the grid of the result.
        Computed on every access.
        """
        return self.plan.transfer()

    def reconstruct(self, frames: RawFrames | Array) -> Array:
        """Reconstruct one time point.

        Parameters
        ----------
        frames : raw frames in raw-index order, uint8, uint16 or corrected float32 (y, x); only read

        Returns
        -------
        NDArray[np.float32]
            A new picture (2y, 2x) in ADU above the offset, per raw pixel; slightly negative beside
            bright structures.

        Raises
        ------
        FrameShapeError
            If the number of frames or the shape of one is not what the constructor was told.
        DoubtfulFrameError
            If `quality_limits` says to refuse doubtful frames and this is one.
        """
        self._check(frames)
        self._take_over_drift()
        exposures = self._seen_exposures(frames)
        empty = _without_picture(exposures)
        self._fill(frames, empty)
        tear = self._tears.look(frames) if self._tears else None
        foreign = self._alone.doubt(frames, self._arrays) if self._alone else Doubt()
        if self._meter and (doubt := self._measure(self._meter, exposures, tear, foreign)):
            if self._kept:
                self._kept.doubt = doubt
            if self._meter.limits.then == "refuse":
                raise DoubtfulFrameError(*doubt)
            if self._meter.limits.then == "widefield":
                return self.widefield(frames, without=[*empty, *([tear.raw] if tear else [])])
        return self._work.picture()

    def remember(self, frames: Sequence[Pixels | None]) -> None:
        """Take note of what the next group is, as the camera gave it, for `update`."""
        self._coming = frames

    def update(self, newer: NewerFrames) -> Array:
        """Reconstruct the newest exposures of all patterns while a group is under way.

        What the bands are made of already is not computed again. The picture is that of
        `reconstruct` for the same frames, but for rounding; motion is measured between the
        exposures that are new and those that they replace. What only a whole group tells, torn and
        repeated frames, is told when the group is complete. Nothing is followed.

        Raises
        ------
        DoubtfulFrameError
            If anything is wrong with the frames, or with the group before; whatever
            `quality_limits` says, unless it says to reconstruct doubtful frames.
        """
        kept = self._kept
        if kept is None or not kept.precedes(newer):
            self._coming = newer.before
            self._fill(newer.correct(newer.upload(newer.before)))
            kept = self._kept
            assert kept is not None
        self._refuse(kept.doubt, "the group before is doubtful: ")
        changed = kept.changed(newer)
        self._look_at_exposures(newer, changed)
        moved: tuple[Array, Array] | None = None
        for _, raws in self._exchange.angles(changed):
            frames = [newer.frames[raw] for raw in raws] + [kept.frames[raw] for raw in raws]
            moved = self._exchange.exchange(kept, newer, raws, newer.upload(frames))
            moved = moved[0], moved[1] * (len(raws) / len({*raws} & {*changed}))
        if self._meter and moved:
            patterns, _ = self._meter.measure(self._work, moved)
            doubt = self._meter.limits.doubt(patterns)
            self._refuse(doubt)
            self.quality = self._quality(patterns, doubt, resolved=True)
        picture = self._work.picture()
        brightness = self._exchange.brightness(kept)
        return self._arrays.multiply(picture, brightness, out=picture)

    def widefield(self, frames: RawFrames | Array, without: Sequence[int] = ()) -> Array:
        """Average the raw frames and upsample them to the grid of the result, without gain in
        resolution.

        The patterns of an angle add up to uniform light. Interpolated in Fourier space, cut at the
        OTF's support; for comparison, and when the pattern cannot be trusted. Parameters and errors
        as in `reconstruct`; the angles of the frames `without`, which hold no picture, are left out
        as long as another is whole.
        """
        self._check(frames)
        return self._work.average(frames, self._whole(without), self.plan.parameters.offset_adu)

    def look_at(self, exposures: Exposures) -> None:
        """Judge the next frame by what its raw frames were before they were corrected.

        Without, by what is given.
        """
        self._exposures = exposures

    def correct_drift(self, drift_rad: Sequence[float], vectors_um: Sequence[float] = ()) -> None:
        """Reconstruct the frames that follow as their `FrameQuality` says that they were.

        Parameters
        ----------
        drift_rad : `pattern_drift_rad`, of every wave; empty is no drift
        vectors_um : `vector_drift_um`, ky and kx of every angle in turn; empty is no drift
        """
        phases, vectors = Correction.none(len(self.plan.waves), self.plan.angles)
        if len(drift_rad):
            phases = np.asarray(drift_rad, np.float64) * self.plan.signs
        if len(vectors_um):
            vectors = np.reshape(vectors_um, (-1, 2))
        self._recorded = Correction(phases, vectors)
        self.drift.set(self._recorded)

    # -- one frame ---------------------------------------------------------------------------------

    def _fill(self, frames: RawFrames | Array, empty: Sequence[int] = ()) -> None:
        """Fill the buffers with the spectra of a group's bands."""
        coming, self._coming, self._kept = self._coming, None, None
        weights, levels, factors = self._frame_weights(frames, empty)
        if coming is not None:
            self._kept = Kept(list(coming), weights, levels, factors)
        scaled = weights * factors
        offsets = -self.plan.parameters.offset_adu * scaled.sum(axis=1)
        columns = np.column_stack([scaled, offsets]).astype(np.float32)
        self._work.separate(frames, self._arrays.array(columns))
        self._work.transform()

    def _refuse(self, doubt: Doubt, of: str = "") -> None:
        """Refuse an update that is doubtful.

        Raises
        ------
        DoubtfulFrameError
            If it is, and `quality_limits` do not say to reconstruct all the same.
        """
        if doubt and not (self._meter and self._meter.limits.then == "reconstruct"):
            raise DoubtfulFrameError(f"{of}{doubt.sentence}", doubt.cause)

    def _look_at_exposures(self, newer: NewerFrames, changed: Sequence[int]) -> None:
        """Refuse an update one of whose new frames holds no picture, or is saturated."""
        if self._meter is None:
            return
        came = [frame if raw in changed else None for raw, frame in enumerate(newer.frames)]
        exposures = newer.examine(newer.upload([newer.frames[raw] for raw in changed]))
        limit = self._meter.limits.max_saturated
        self._refuse(group_doubt(exposures, came, max_saturated=limit))

    def _check(self, frames: RawFrames) -> None:
        expected, shape = len(self.plan.order), self.plan.parameters.shape
        if len(frames) != expected:
            raise FrameShapeError(
                f"{len(frames)} raw frames came for one time point, the SIM order has {expected}"
            )
        for i in range(expected):
            if frames[i].shape != shape:
                raise FrameShapeError(
                    f"raw frame is {frames[i].shape}, this reconstruction expects {shape}"
                )

    def _take_over_drift(self) -> None:
        """Choose what the patterns of the next frame are corrected by."""
        now, before = self._recorded or self.drift.correction, self._corrected
        self._recorded, self._corrected = None, now
        if np.any(now.phases_rad != before.phases_rad):
            shown = np.round(now.phases_rad * self.plan.signs, 3)
            log.info("pattern phases are corrected by %s rad", shown)
        if np.any(now.vectors_um != before.vectors_um):
            log.info("pattern vectors are corrected by %s cycles/um", now.vectors_um.tolist())
            self._work.move_bands(now.vectors_um)

    def _seen_exposures(self, frames: RawFrames | Array) -> Exposures | None:
        """Return what is known of the raw frames, None without `quality_limits`."""
        seen, self._exposures = self._exposures, None
        if self._meter is None or seen is not None:
            return seen
        offset_adu, arrays = self.plan.parameters.offset_adu, self._arrays
        return examine(frames, offset_adu, xp=arrays.xp, numbers=arrays.numbers)

    def _frame_weights(
        self, frames: RawFrames, empty: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Weights (bands, n) of this time point, the level of each frame above the offset, and what
        it is scaled by, (n,) each.
        """
        given, weights = self.plan.parameters, self.plan.weights
        pixels = given.shape[0] * given.shape[1]
        level = self._arrays.totals(frames) / pixels - given.offset_adu
        lit, factors = np.setdiff1d(np.arange(len(level)), empty), np.ones(len(level))
        if given.equalise and lit.size and level[lit].min() > 0:
            factors[lit] = level[lit].mean() / level[lit]
        if np.any(self._corrected.phases_rad):
            weights = _turned(weights, self._corrected.phases_rad)
        return weights, level, factors

    def _measure(
        self,
        meter: QualityMeter,
        exposures: Exposures | None,
        tear: Tear | None,
        foreign: Doubt,
    ) -> Doubt:
        """Measure the frame whose bands were just transformed; return what is doubtful about it."""
        patterns, errors_rad = meter.measure(self._work)
        doubt = foreign or meter.limits.doubt(patterns, exposures, tear)
        resolved = not doubt or meter.limits.then == "reconstruct"
        self.quality = self._quality(patterns, doubt, resolved=resolved)
        if self._follow and not doubt:
            phases_rad = self._corrected.phases_rad
            self.drift.add(phases_rad + errors_rad, patterns.contrast_to_noise)
        return doubt

    def _quality(self, patterns: PatternQuality, doubt: Doubt, *, resolved: bool) -> FrameQuality:
        """Return what is said of a frame."""
        phases_rad, vectors_um = self._corrected
        return FrameQuality(
            patterns,
            doubt.sentence,
            resolved,
            tuple(round(float(d), 6) for d in phases_rad * self.plan.signs),
            tuple(float(d) for d in vectors_um.ravel()),
            doubt.cause,
        )

    def _whole(self, without: Sequence[int]) -> list[int]:
        """Return the raw frames of the angles that have all their frames.

        All frames if no angle has.
        """
        order = self.plan.order
        incomplete = {order[raw][0] for raw in without}
        whole = [raw for raw, (angle, _) in enumerate(order) if angle not in incomplete]
        return whole or list(range(len(order)))


def _without_picture(exposures: Exposures | None) -> list[int]:
    """Return which raw frames hold no picture."""
    faults = exposures.faults() if exposures else []
    return [fault.raw for fault in faults if fault.kind != "saturated"]


def _turned(weights: NDArray[np.float64], by_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the separation weights (bands, n) that give every wave's band with its phase less by
    `by_rad` (waves,).
    """
    turned, waves = weights.copy(), len(by_rad)
    real, imag = weights[1 : 1 + 2 * waves : 2], weights[2 : 2 + 2 * waves : 2]
    c, s = np.cos(by_rad)[:, None], np.sin(by_rad)[:, None]
    turned[1 : 1 + 2 * waves : 2], turned[2 : 2 + 2 * waves : 2] = (
        c * real + s * imag,
        c * imag - s * real,
    )
    return turned
