"""Blinking frames to a running super-resolution image.

Owns what a stream has localised so far and its drawing. The arithmetic of localisation is in
`localise.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from livesr.base.errors import FrameShapeError
from livesr.base.frames import LOCALISATION, Pixels, RawStack
from livesr.live.reconstruct.reconstructor import RawFrames
from livesr.modalities.storm.aim import drift_of
from livesr.modalities.storm.depth import DepthTracker
from livesr.modalities.storm.drift import DriftTracker
from livesr.modalities.storm.localise import Localiser
from livesr.modalities.storm.modality import FRAMES_AT_ONCE, UNITS_PER_LOCALISATION
from livesr.modalities.storm.network import NetworkLocaliser
from livesr.optics.psf import flat_places

Image = NDArray[np.float32]
Floats = NDArray[np.float32]
Render = Literal["histogram", "gaussian"]
Correct = Callable[[list[Pixels]], Image]

_REACHES_PX = (1, 2, 4, 8, 16, 32)
_NARROWEST_PX = 0.05


class STORMReconstructor:
    """Localises groups of frames and draws what was found.

    Parameters
    ----------
    localiser : for the camera's frames
    pixel_size_nm : of the camera, in the sample
    image_pixel_size_nm : of the running image
    frames : exposures of a group
    sliding_groups : groups that the running image shows; None for all since the run began
    max_uncertainty_nm : emitters that are known less well are not drawn
    render : "gaussian" draws each emitter as wide as it is uncertain, "histogram" as one pixel
    drift_correction : whether a running image lays every group onto what it has shown before
    """

    def __init__(
        self,
        localiser: Localiser,
        pixel_size_nm: float,
        image_pixel_size_nm: float,
        frames: int,
        *,
        sliding_groups: int | None = None,
        max_uncertainty_nm: float = math.inf,
        render: Render = "gaussian",
        drift_correction: bool = False,
    ) -> None:
        self.localiser, self.frames, self.sliding_groups = localiser, frames, sliding_groups
        self.scale = pixel_size_nm / image_pixel_size_nm
        height, width = (max(round(n * self.scale), 1) for n in localiser.shape)
        self.shape = (height, width)
        self.drift_correction = drift_correction
        self.field_nm = (localiser.shape[0] * pixel_size_nm, localiser.shape[1] * pixel_size_nm)
        self._pixel_size_nm, self._max_uncertainty_nm, self._render = (
            image_pixel_size_nm,
            max_uncertainty_nm,
            render,
        )

    @property
    def history(self) -> float:
        """Groups before its own that a running image shows; all of them where drift is corrected,
        which is counted from the first.
        """
        return math.inf if self.drift_correction else self.shown

    @property
    def shown(self) -> float:
        """Groups before its own whose emitters a running image shows."""
        return (self.sliding_groups or math.inf) - 1

    @property
    def predicted_by(self) -> str:
        """The engine that finds the emitters; "" where they are fitted, and so measured."""
        localiser = self.localiser
        return localiser.predicted_by if isinstance(localiser, NetworkLocaliser) else ""

    @property
    def depth_range_nm(self) -> tuple[float, float] | None:
        """Lowest and highest z that is measured; None without a cylindrical lens."""
        lens = self.localiser.astigmatism
        return (lens.z_nm[0] * lens.z_factor, lens.z_nm[-1] * lens.z_factor) if lens else None

    @property
    def memory_bytes(self) -> int:
        """The running image and what a group needs while it is localised."""
        block = 4 * min(self.frames, FRAMES_AT_ONCE) * math.prod(self.localiser.shape) * 4
        drift = self._trackers_bytes() if self.drift_correction else 0
        planes = 1 if self.depth_range_nm is None else 2
        drawn = 4 * math.prod(self.shape) * planes
        return block + drift + drawn * (3 + (self.sliding_groups or 0))

    def _trackers_bytes(self) -> int:
        deep = DepthTracker(self.field_nm).memory_bytes if self.localiser.astigmatism else 0
        return DriftTracker(self.field_nm).memory_bytes + deep

    def reconstruct(self, frames: RawFrames) -> Image:
        """Draw what these frames alone show, in hundredths of a localisation.

        Raises
        ------
        FrameShapeError
            If there is no frame or a frame has another shape.
        """
        found, density = self.see(list(frames), range(len(frames)))
        return self.draw(found) if density is None else self.summed(density, (0.0, 0.0))

    def see(
        self, frames: RawFrames, numbers: range | list[int]
    ) -> tuple[NDArray[np.void], Image | None]:
        """As `localise`, and of a network that gives density maps their sum, else None."""
        if isinstance(self.localiser, NetworkLocaliser) and len(frames):
            return self.localiser.see(frames, numbers)
        return self.localise(frames, numbers), None

    def summed(self, density: Image, drift_nm: Sequence[float]) -> Image:
        """Draw a sum of density maps, moved back by `drift_nm`, in hundredths of a localisation."""
        assert isinstance(self.localiser, NetworkLocaliser)
        pixel_nm = self._pixel_size_nm
        picture = self.localiser.resampled(density, self.shape, pixel_nm, drift_nm)
        return picture * np.float32(UNITS_PER_LOCALISATION)

    def localise(self, frames: RawFrames, numbers: range | list[int]) -> NDArray[np.void]:
        """Return the emitters of `frames` as records; as `Localiser.localise`."""
        if len(frames) == 0:
            raise FrameShapeError("a group without frames cannot be localised")
        if wrong := [f.shape for f in frames if f.shape != self.localiser.shape]:
            raise FrameShapeError(
                f"a frame of {wrong[0]} came, this stream expects {self.localiser.shape}"
            )
        return self.localiser.localise(frames, numbers)

    def draw(self, localisations: NDArray[np.void], times: str | None = None) -> Image:
        """Draw `localisations`, float32 of `shape`, hundredths of a localisation.

        Parameters
        ----------
        times : name of what each of them is multiplied by
        """
        seen = localisations[localisations["uncertainty_nm"] <= self._max_uncertainty_nm]
        light = seen[times] if times else np.ones(len(seen), np.float32)
        nm: dict[str, Floats] = {name: seen[name] for name in ("y_nm", "x_nm", "uncertainty_nm")}
        y, x, sigma = (values / np.float32(self._pixel_size_nm) for values in nm.values())
        picture = np.zeros(self.shape, np.float32)
        if self._render == "histogram":
            _add_squares(picture, y, x, np.full_like(sigma, _NARROWEST_PX), light, 0)
            return picture
        # Squares of few sizes, so that an emitter that is known well costs little.
        reach = np.searchsorted(_REACHES_PX[:-1], 3 * sigma)
        for i, radius in enumerate(_REACHES_PX):
            this = reach == i
            width = np.maximum(sigma[this], _NARROWEST_PX)
            _add_squares(picture, y[this], x[this], width, light[this], radius)
        return picture

    def drift_of(self, localisations: NDArray[np.void], exposures: int) -> NDArray[np.float64]:
        """Return the drift of every exposure, (exposures, axes), by all localisations at once."""
        return drift_of(localisations, self.field_nm, exposures)

    def running(self, correct: Correct | None = None) -> RunningImage:
        """Return what one stream of one run accumulates.

        Parameters
        ----------
        correct : applied to at most `FRAMES_AT_ONCE` frames before they are localised
        """
        return RunningImage(self, correct)


def _add_squares(
    picture: Image, y: Floats, x: Floats, sigma: Floats, light: Floats, radius: int
) -> None:
    """Add a Gaussian of `light` localisations at every (y, x), integrated over the pixels up to
    `radius` from it.
    """
    row, column = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    around = np.arange(-radius, radius + 1)
    rows, columns = row[:, None] + around, column[:, None] + around
    weights = _shares(rows, y, sigma)[:, :, None] * _shares(columns, x, sigma)[:, None, :]
    weights *= light[:, None, None]
    flat, inside = flat_places(picture.shape, rows, columns)
    np.add.at(picture.reshape(-1), flat, weights[inside])


def _shares(pixels: NDArray[np.intp], centre: Floats, sigma: Floats) -> Floats:
    """Return how much of each Gaussian falls on each of its pixels, in units of the image.

    All of it on these.
    """
    edges = np.concatenate([pixels, pixels[:, -1:] + 1], axis=1) - centre[:, None]
    shares = np.diff(erf(edges / (np.sqrt(2) * sigma[:, None])))
    return np.asarray(
        math.sqrt(UNITS_PER_LOCALISATION) * shares / shares.sum(axis=1, keepdims=True), np.float32
    )


def _mean_depth(count: Image, times_z: Image) -> Image:
    """Return the mean z of a pixel; NaN where less than half a hundredth of a localisation is
    drawn, which the store rounds to none.
    """
    mean = np.full_like(count, np.nan)
    return np.asarray(np.divide(times_z, count, out=mean, where=count >= 0.5), np.float32)


class RunningImage:
    """What one stream has localised so far.

    Attributes
    ----------
    localisations : what the last group added, as measured
    drift_nm : (y, x), or with z (y, x, z), that the last group was moved back by; None without
        correction
    jump_nm : (y, x) by which the specimen jumped before the last group, None if it did not
    emitters_per_um2 : found in a frame of the last group
    depth_nm : mean z of what is drawn in each pixel, float32 (y, x), NaN where nothing is; None
        where z is not measured
    """

    def __init__(self, reconstructor: STORMReconstructor, correct: Correct | None = None) -> None:
        self._reconstructor, self._correct = reconstructor, correct
        # What is drawn, and where z is measured the same times z: (planes, y, x).
        planes = 1 if reconstructor.depth_range_nm is None else 2
        self._image = np.zeros((planes, *reconstructor.shape), np.float32)
        self._groups: deque[tuple[int, Image]] = deque()
        self._tracker = (
            DriftTracker(reconstructor.field_nm) if reconstructor.drift_correction else None
        )
        deep = self._tracker is not None and reconstructor.localiser.astigmatism is not None
        self._depth = DepthTracker(reconstructor.field_nm) if deep else None
        self.drift_nm: tuple[float, ...] | None = None
        self.jump_nm: tuple[float, float] | None = None
        self.given_drift_nm: NDArray[np.float64] | None = None
        self.emitters_per_um2: float | None = None
        self.depth_nm: Image | None = None
        self.localisations: NDArray[np.void] = np.empty(0, LOCALISATION)
        self._density: Image | None = None

    def add(self, stack: RawStack) -> Image:
        """Localise a group, whose exposures may be incomplete.

        Return the image with it, which the caller owns.

        Groups come in order of time; what was never given leaves no gap but in the image.
        """
        this = self._reconstructor
        came = [raw for raw, frame in enumerate(stack.frames) if frame is not None]
        blocks = [
            came[first : first + FRAMES_AT_ONCE] for first in range(0, len(came), FRAMES_AT_ONCE)
        ]
        self._density = None
        self.localisations = np.concatenate([self._localise(stack, block) for block in blocks])
        field_um2 = math.prod(this.field_nm) / 1e6
        self.emitters_per_um2 = round(len(self.localisations) / (len(came) * field_um2), 4)
        image = self._with(stack.t, self._drawn(self._where_they_were(self.localisations)))
        if len(image) > 1:
            self.depth_nm = _mean_depth(*image)
        return np.array(image[0])

    def _with(self, t: int, drawn: Image) -> Image:
        """Return what is shown with a group."""
        sliding = self._reconstructor.sliding_groups
        if sliding is None:
            self._image += drawn
            return self._image
        self._groups.append((t, drawn))
        while self._groups[0][0] <= t - sliding:
            self._groups.popleft()
        # Summed anew: adding and subtracting would leave the rounding of everything that ever was
        # in it.
        self._image[:] = 0
        for _, group in self._groups:
            self._image += group
        return self._image

    def _localise(self, stack: RawStack, block: list[int]) -> NDArray[np.void]:
        frames = [frame for raw in block if (frame := stack.frames[raw]) is not None]
        numbers = [stack.t * self._reconstructor.frames + raw for raw in block]
        found, density = self._reconstructor.see(
            self._correct(frames) if self._correct else frames, numbers
        )
        if density is not None:
            self._density = density if self._density is None else self._density + density
        return found

    def _drawn(self, localisations: NDArray[np.void]) -> Image:
        this = self._reconstructor
        if self._density is not None:
            return this.summed(self._density, self.drift_nm or (0.0, 0.0))[None]
        planes = [this.draw(localisations)]
        if this.depth_range_nm is not None:
            planes.append(this.draw(localisations, "z_nm"))
        return np.stack(planes)

    def _where_they_were(self, localisations: NDArray[np.void]) -> NDArray[np.void]:
        """Return the localisations without the drift since the first group."""
        if self.given_drift_nm is not None:
            return self._moved_back(localisations, self.given_drift_nm)
        if self._tracker is None:
            return localisations
        here = localisations.copy()
        drift_nm = self._tracker.update(here["y_nm"], here["x_nm"])
        here["y_nm"] -= np.float32(drift_nm[0])
        here["x_nm"] -= np.float32(drift_nm[1])
        self.drift_nm, self.jump_nm = drift_nm, self._tracker.jump_nm
        if self._depth is not None:
            drift_z_nm = self._depth.update(here["y_nm"], here["x_nm"], here["z_nm"])
            self.drift_nm = *drift_nm, drift_z_nm
            here["z_nm"] -= np.float32(drift_z_nm)
        return here

    def _moved_back(
        self, localisations: NDArray[np.void], drift_nm: NDArray[np.float64]
    ) -> NDArray[np.void]:
        """Return the localisations without the drift of their exposures."""
        here = localisations.copy()
        of_each = drift_nm[np.minimum(here["frame"], len(drift_nm) - 1)].astype(np.float32)
        for name, shift_nm in zip(("y_nm", "x_nm", "z_nm"), of_each.T, strict=False):
            here[name] -= shift_nm
        self.drift_nm = tuple(of_each.mean(axis=0).tolist()) if len(here) else None
        return here
