"""What travels from the camera to the sinks, one class per stage.

Owns the records and their meaning. Touches no queue, clock or file.

=================  ==========================  ===================================================
stage              record                      is
=================  ==========================  ===================================================
source             `CameraFrame`               one exposure
grouping           `RawStack`                  the exposures that become one super-resolution frame
reconstruct        `SRFrame`                   a measurement
separate, compose  `MulticolorFrame`           a prediction
=================  ==========================  ===================================================

All times named ``t_*_ns`` are nanoseconds since the Unix epoch on a clock that never jumps
(`livesr.base.timing.now_ns`). Arrays are handed over with the record: whoever receives a record may
keep it, nobody writes into its arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from livesr.base.quality import UNJUDGED, ChannelPixels, Judgement, Quality

if TYPE_CHECKING:  # it imports the models of files
    from livesr.base.error_bars import ErrorBars

Pixels = NDArray[np.unsignedinteger[Any]]
_Array = TypeVar("_Array", bound=NDArray[Any])

LOCALISATION = np.dtype(
    [
        ("frame", np.int64),  # camera frame of the stream, counted from 0
        ("y_nm", np.float32),  # from the outer corner of the region's pixel (0, 0), in the sample
        ("x_nm", np.float32),
        ("photons", np.float32),  # of the emitter
        ("background", np.float32),  # photons per pixel
        ("sigma_nm", np.float32),  # width of the spot
        ("uncertainty_nm", np.float32),  # lateral standard deviation
    ]
)
"""One emitter in one frame, as a record of `SRFrame.localisations`."""

LOCALISATION_3D = np.dtype(
    [
        *((name, LOCALISATION[name]) for name in LOCALISATION.names or ()),
        ("sigma_y_nm", np.float32),  # width along y; `sigma_nm` is that along x
        ("z_nm", np.float32),  # in the specimen, from where its calibration counts
        ("z_uncertainty_nm", np.float32),  # axial standard deviation
    ]
)
"""The same, where the optics show how high an emitter is."""


class Stream(NamedTuple):
    """One series of consecutive time points.

    It has its own window and its own place in the store.
    """

    position: int = 0
    channel: str = ""
    z: int = 0

    def __str__(self) -> str:
        return f"p{self.position} {self.channel or 'default'} z{self.z}"


class StagePosition(NamedTuple):
    """Where the stages were, in um of their own coordinates; None where nobody said."""

    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None


NO_STAGE = StagePosition()


def _size(pixels: NDArray[Any]) -> str:
    """Return the shape and type of an array, never its pixels."""
    return f"{' x '.join(map(str, pixels.shape))} {pixels.dtype}"


@overload
def read_only(pixels: None) -> None: ...


@overload
def read_only(pixels: _Array) -> _Array: ...


def read_only(pixels: _Array | None) -> _Array | None:
    """Return a view that nobody can write into; None of None."""
    if pixels is None:
        return None
    view = pixels.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, repr=False)
class CameraFrame:
    """One exposure.

    Attributes
    ----------
    pixels : uint8 or uint16 (y, x), ADU
    stream : which series it belongs to
    t : time point, counted from 0
    raw : place in its group, 0 .. n-1 (the order that rig.yaml declares)
    t_host_ns : arrival in the acquisition thread
    t_camera_ms : the camera's own clock, None if it gave none
    exposure_ms : how long it was exposed, None if nobody said
    stage : where the stages were
    """

    pixels: Pixels
    stream: Stream
    t: int
    raw: int
    t_host_ns: int
    t_camera_ms: float | None = None
    exposure_ms: float | None = None
    stage: StagePosition = NO_STAGE

    def __repr__(self) -> str:
        return f"<CameraFrame {self.stream} t={self.t} raw={self.raw}: {_size(self.pixels)}>"


@dataclass(frozen=True, slots=True, repr=False)
class RawStack:
    """The exposures of one time point, by raw index; None where one never came.

    `t_acq_ns` is the middle of the group, `t_last_ns` the arrival of its last frame, `exposure_ms`
    the mean, `stage` where the stages were at its first frame. An `unplaced` stack holds an
    exposure that came twice or too late: it is kept, and nothing is computed from it. An update of
    a group under way, of which `newest` exposures have come, has those of the group before in the
    place of the others, and `before` is that group; it is shown, and stored where a rig asks for
    it.
    """

    frames: tuple[Pixels | None, ...]
    stream: Stream
    t: int
    t_acq_ns: int
    t_last_ns: int
    t_camera_ms: float | None = None
    unplaced: bool = False
    exposure_ms: float | None = None
    stage: StagePosition = NO_STAGE
    newest: int = 0
    before: tuple[Pixels | None, ...] = ()

    @property
    def span_ms(self) -> float:
        """Time from the arrival of the oldest to that of the newest exposure."""
        return 2e-6 * (self.t_last_ns - self.t_acq_ns)

    @property
    def came(self) -> list[Pixels]:
        """The exposures that arrived, in their order."""
        return [f for f in self.frames if f is not None]

    @property
    def complete(self) -> bool:
        """Whether every exposure of the group arrived."""
        return all(f is not None for f in self.frames)

    @property
    def nbytes(self) -> int:
        """Bytes of the exposures."""
        return sum(f.nbytes for f in self.came)

    def read_only(self) -> RawStack:
        """Return it with exposures that nobody can write into; they are views."""
        return replace(self, frames=tuple(map(read_only, self.frames)))

    def mean(self) -> NDArray[np.float32]:
        """Return the mean of the exposures that came, float32 (y, x), ADU; one came at least."""
        came = self.came
        total = np.zeros(came[0].shape, np.float32)
        for frame in came:
            total += frame
        total /= np.float32(len(came))
        return total

    def __repr__(self) -> str:
        size = f" of {_size(self.came[0])}" if self.came else ""
        place = ", unplaced" if self.unplaced else ""
        return (
            f"<RawStack {self.stream} t={self.t}: {len(self.came)} of {len(self.frames)}"
            f" exposures{size}{place}>"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Widefield:
    """The mean of the exposures of one time point: a measurement without any reconstruction.

    Attributes
    ----------
    image : float32 (y, x), ADU as the camera gave them, on the camera's pixels
    stream, t, t_acq_ns, t_camera_ms, stage : of the raw group
    """

    image: NDArray[np.float32]
    stream: Stream
    t: int
    t_acq_ns: int
    t_camera_ms: float | None = None
    stage: StagePosition = NO_STAGE

    @classmethod
    def of(cls, stack: RawStack) -> Self:
        """Return the mean of a raw group."""
        about = stack.stream, stack.t, stack.t_acq_ns, stack.t_camera_ms, stack.stage
        return cls(stack.mean(), *about)

    def __repr__(self) -> str:
        return f"<Widefield {self.stream} t={self.t}: {_size(self.image)}>"


class Normalisation(NamedTuple):
    """x = (X - background) / scale, both in ADU of the reconstruction."""

    background: float
    scale: float

    def written(self) -> dict[str, float]:
        """Return what store and stream say; there the scale has its first name, `headroom`."""
        return {"background": self.background, "headroom": self.scale}

    @classmethod
    def read(cls, written: Mapping[str, float]) -> Self:
        """Return what `written` was made of."""
        return cls(written["background"], written["headroom"])


class PatternQuality(NamedTuple):
    """How well a frame's raw frames show the patterns that it is reconstructed with (SIM).

    Attributes
    ----------
    contrast_to_noise : modulation of the weakest wave over its uncertainty in this frame
    modulation : of the weakest wave, relative to the calibrated one
    phase_error_rad : largest distance of a wave from its calibrated phase
    motion_nm : how far the sample moved between the first and the last raw frame; None where the
        order does not tell
    motion_error_nm : standard error of that
    """

    contrast_to_noise: float
    modulation: float
    phase_error_rad: float
    motion_nm: float | None = None
    motion_error_nm: float | None = None


class FrameQuality(NamedTuple):
    """What a reconstruction says of the frame that it has just made.

    `doubt` is empty if there is none.

    `patterns` is None where there are none. `cause` is the doubt without the numbers of this frame,
    so that frames with the same fault can be counted. `resolved` is False where the frame is the
    mean of its raw frames, without gain in resolution. `pattern_drift_rad` is what the calibrated
    phases were corrected by, wave by wave, `vector_drift_um` what was added to (ky, kx) of every
    angle in cycles/um; empty where nothing is followed.
    """

    patterns: PatternQuality | None
    doubt: str = ""
    resolved: bool = True
    pattern_drift_rad: tuple[float, ...] = ()
    vector_drift_um: tuple[float, ...] = ()
    cause: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class SRFrame:
    """A reconstructed frame: a measurement, or the sum of several.

    Attributes
    ----------
    image : float32 (y, x), ADU above the camera's offset, or hundredths of a localisation; a Wiener
        reconstruction may be slightly negative
    normalisation : what the network's input is made with; follows the frames up to this one only
    saturated : raw pixels of the group at the camera's ceiling
    localisations : records of `LOCALISATION` or `LOCALISATION_3D`, what this group added, as
        measured; None where no emitters are looked for
    drift_nm : (y, x), or (y, x, z), that the group was moved back by before it was drawn
    jump_nm : (y, x) by which the specimen jumped between the group before and this one; else None
    emitters_per_um2 : localised in a frame of this group, per square micrometre of the field; None
        where no emitters are looked for
    depth_nm : mean z of what is drawn in each pixel, float32 (y, x), NaN where nothing is; None
        where z is not measured
    quality : whether the raw frames showed their patterns; None where there are none
    resident : the image as it lies on the GPU that it was computed on, where the network is there
        too; None elsewhere
    parts : of a superposition the true channels' frames that were added, in the order of the
        structures; else ()
    exposure_ms : of the raw frames, None if nobody said; of a superposition the sum
    group : float32 (n, y, x), its raw frames, corrected, in ADU above the camera's offset and in
        the order of the network that sees them; None where none does
    beside : the newest frame of another channel, on its pixels, for a network that sees both; None
        where none does
    newest : of an update of a group under way, how many of its exposures are in it; the others are
        of the group before. 0 of a frame of a whole group
    span_ms : time that it shows, from the oldest to the newest exposure; None where nothing is
        updated
    stage : where the stages were at the first of them
    """

    image: NDArray[np.float32]
    stream: Stream
    t: int
    t_acq_ns: int
    t_last_ns: int
    normalisation: Normalisation
    saturated: int = 0
    t_camera_ms: float | None = None
    localisations: NDArray[np.void] | None = None
    drift_nm: tuple[float, ...] | None = None
    jump_nm: tuple[float, float] | None = None
    quality: FrameQuality | None = None
    resident: Any = field(default=None, compare=False)
    parts: tuple[SRFrame, ...] = ()
    exposure_ms: float | None = None
    emitters_per_um2: float | None = None
    depth_nm: NDArray[np.float32] | None = field(default=None, compare=False)
    group: NDArray[np.float32] | None = field(default=None, compare=False)
    beside: SRFrame | None = field(default=None, compare=False)
    newest: int = 0
    span_ms: float | None = None
    stage: StagePosition = NO_STAGE

    def __repr__(self) -> str:
        what = f"sum of {len(self.parts)} measurements" if self.parts else "measurement"
        if self.newest:
            what += f" of the newest {self.newest} exposures and of those before"
        found = "" if self.localisations is None else f", {len(self.localisations)} localisations"
        doubt = f", doubtful: {self.quality.doubt}" if self.quality and self.quality.doubt else ""
        return f"<SRFrame {self.stream} t={self.t}: {_size(self.image)}, {what}{found}{doubt}>"

    def read_only(self) -> SRFrame:
        """Return it with images that nobody can write into; they are views."""
        return replace(
            self,
            image=read_only(self.image),
            localisations=read_only(self.localisations),
            depth_nm=read_only(self.depth_nm),
            group=read_only(self.group),
            parts=tuple(part.read_only() for part in self.parts),
            beside=self.beside.read_only() if self.beside else None,
        )


class Discrepancy(NamedTuple):
    """How far a picture is from the widefield picture of its exposures (SQUIRREL).

    Attributes
    ----------
    rsp : resolution-scaled Pearson correlation, 1 at best
    rse : resolution-scaled error, root mean square, in ADU of the exposures
    rsf_nm : standard deviation of the blur between the two
    span : of the widefield picture, from its 1st to its 99.8th percentile, ADU
    groups : raw groups that the widefield picture is the mean of
    """

    rsp: float
    rse: float
    rsf_nm: float
    span: float
    groups: int = 1


@dataclass(frozen=True, slots=True, repr=False)
class FrameErrors:
    """Where the pictures of one time point contradict the widefield mean of its exposures.

    Attributes
    ----------
    planes : float32 (n, y, x), ADU of the exposures, on the pixels of the reconstruction; 0 at the
        edges, which are not compared
    labels : what each plane is the error of: "reconstruction", then "prediction" (the sum of its
        channels)
    numbers : of each label that could be compared
    source : the measurement
    """

    planes: NDArray[np.float32]
    labels: tuple[str, ...]
    numbers: Mapping[str, Discrepancy]
    source: SRFrame

    def read_only(self) -> FrameErrors:
        """Return it with planes that nobody can write into; they are views."""
        return replace(self, planes=read_only(self.planes), source=self.source.read_only())

    def __repr__(self) -> str:
        said = ", ".join(f"{label} RSP {n.rsp:.3f}" for label, n in self.numbers.items())
        return f"<FrameErrors {self.source.stream} t={self.source.t}: {said or 'no contrast'}>"


class ChannelScore(NamedTuple):
    """How near one separated structure is to its true channel.

    `input_pcc` is what the sum itself would score as it.

    After the preparation of the IMC-SR paper; NaN where the true channel shows nothing.
    """

    label: str
    pcc: float
    ssim: float
    nrmse: float
    input_pcc: float


class MixingRatio(NamedTuple):
    """How bright a structure is: its bright parts over those of the brightest other one.

    `low` and `high` are the limits of the 90 % interval.
    """

    label: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Window:
    """Three consecutive frames of one stream.

    The network separates the middle one (IMC-SR, temporal continuity).

    `edge` marks the first and last frame of a series, whose missing neighbour is the frame itself.
    `true_neighbours` is False where a neighbour should exist and does not (a gap in the series). A
    `provisional` window does not wait for the frame after its centre, which stands in for it.
    """

    before: SRFrame
    centre: SRFrame
    after: SRFrame
    edge: bool = False
    true_neighbours: bool = True
    provisional: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class MulticolorFrame:
    """A separated frame: a prediction, never a measurement.

    ``frame["ER"]`` is the channel of that name, uint16 (y, x).

    Attributes
    ----------
    channels : uint16 (c, y, x), ADU of the reconstruction plus `offset_adu`; background belongs to
        no channel
    labels : what each channel shows, as the engine calls it
    residual : ``sum |sum of channels - x| / sum |x|`` over pixels above noise (IMC-SR's summation
        constraint as a live check)
    residual_plane : float32 (y, x), sum of channels - x in ADU; only when asked for
    display : (low, high) in stored ADU for each channel
    source : the measurement that it was predicted from
    latency_ms : age of what it shows when it was composed
    provisional : made before the frame after it came; the final one replaces it and is the one that
        is stored
    uncertainty : uint16 (c, y, x), ADU; an estimate of each channel's standard deviation; only when
        asked for
    ood_score : distance of its input from those that the engine was trained on, over the largest
        that is usual there; None where the engine does not say
    unknown_light : light of no structure that the engine knows, 0 to 1 beside all that is predicted
        (`livesr.live.unknown_light`); None where it does not say
    unknown_share : the same by what the network gives to none of its structures alone, which the
        engine's limit for any rig is of
    warnings : sentences that a viewer must show with it
    score : against the true channels of a superposition, structure by structure; else ()
    error_bars : what `limits` follows from; None where nothing was calibrated
    judgement : what the frame and each channel is worth, and why
    mixing : how bright each structure is beside the others, over the stream so far; () where the
        engine does not say
    """

    channels: NDArray[np.uint16]
    source: SRFrame
    residual: float
    display: tuple[tuple[float, float], ...]
    latency_ms: float
    edge: bool = False
    true_neighbours: bool = True
    provisional: bool = False
    offset_adu: int = 0
    residual_plane: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.uint16] | None = None
    ood_score: float | None = None
    unknown_light: float | None = None
    unknown_share: float | None = None
    warnings: tuple[str, ...] = field(default=())
    score: tuple[ChannelScore, ...] = ()
    labels: tuple[str, ...] = ()
    judgement: Judgement = UNJUDGED
    mixing: tuple[MixingRatio, ...] = ()
    error_bars: ErrorBars | None = None

    @property
    def limits(self) -> tuple[NDArray[np.uint16], NDArray[np.uint16]] | None:
        """Lower and upper image of every channel, uint16 (c, y, x) in the unit of `channels`.

        Computed each time that they are asked for. The true light is between them in as many pixels
        as `error_bars` says; None where nothing was calibrated (`livesr calibrate-errors`).
        """
        if self.error_bars is None:
            return None
        scale = self.source.normalisation.scale
        return self.error_bars.limits(self.channels, self.labels, scale, self.offset_adu)

    def read_only(self) -> MulticolorFrame:
        """Return it with channels that nobody can write into; they are views."""
        return replace(
            self,
            channels=read_only(self.channels),
            source=self.source.read_only(),
            residual_plane=read_only(self.residual_plane),
            uncertainty=read_only(self.uncertainty),
        )

    @property
    def quality(self) -> Quality:
        """One word for the frame; `judgement` has the reasons."""
        return self.judgement.word

    def __getitem__(self, label: str) -> ChannelPixels:
        """Return the channel called `label`, uint16 (y, x) in ADU: a view of `channels`.

        It says what it is worth: ``frame["ER"].quality``, and why: ``frame["ER"].reasons``.

        Raises
        ------
        KeyError
            If the frame has no such channel, with the names that it has.
        """
        try:
            channel: ChannelPixels = self.channels[self.labels.index(label)].view(ChannelPixels)
        except ValueError:
            known = ", ".join(map(repr, self.labels)) or "channels without names"
            raise KeyError(
                f"The frame has no channel {label!r}, it has {known}: use one of them, or channels"
                " by index."
            ) from None
        if verdict := self.judgement.channels.get(label):
            channel.quality, channel.reasons = verdict
        return channel

    def __repr__(self) -> str:
        names = ", ".join(self.labels) or "channels without names"
        said = ["provisional prediction" if self.provisional else "prediction"]
        said += ["edge of a series"] if self.edge else []
        said += [str(self.quality)] if self.quality is not Quality.GOOD else []
        said += [f"{len(self.warnings)} warnings"] if self.warnings else []
        return (
            f"<MulticolorFrame {self.stream} t={self.t}: {_size(self.channels)} ({names}),"
            f" {', '.join(said)}, {self.latency_ms:.0f} ms after the camera>"
        )

    @property
    def stream(self) -> Stream:
        """Series of the frame."""
        return self.source.stream

    @property
    def t(self) -> int:
        """Time point of the frame."""
        return self.source.t
