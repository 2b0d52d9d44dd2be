"""Emitters that a network finds, in the place of those that are fitted.

Owns what the output of a network means: a density map (one channel, as Deep-STORM gives it), which
is summed into the running image, or a table (channels `probability`, `y` and `x`, as DECODE gives
it), from which emitters are read. Either way what is drawn is a prediction.

References
----------
Nehme et al. 2018, Optica 5, 458 (Deep-STORM). Speiser et al. 2021, Nature Methods 18, 1082
(DECODE).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, maximum_filter, uniform_filter

from livesr.base.compute import ComputeConfig
from livesr.base.errors import ConfigError
from livesr.base.frames import LOCALISATION
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_session
from livesr.live.normalise import background_and_scale
from livesr.live.reconstruct.reconstructor import RawFrames
from livesr.modalities.storm.localise import Localiser, PhotonScale

Floats = NDArray[np.float32]

PEAK = 0.3
"""Height of a density map above which its peaks are listed as emitters; a lone one's is 1."""

FLOOR = 0.1
"""Density below which a map is empty: thousands of frames would add the rest up to a grid."""

PROBABLE = 0.5
"""Probability from which on a pixel of a table holds an emitter (Speiser et al. 2021)."""

LIGHT_OF_ONE = 2 * np.pi
"""Sum of a density map over one emitter: a Gaussian of one pixel and peak 1."""

_TABLE = ("probability", "y", "x")
_APART_PX = 2
_SMALLEST_SCALE = 1.0


class NetworkLocaliser(Localiser):
    """Finds emitters with an engine of task `localise`.

    Parameters
    ----------
    engine : a folder or a name. Its input is one camera frame, or three consecutive ones of which
        the middle one is localised: x = (X - b) / s with the background of each frame and the scale
        of the frames that are localised together
    shape, pixel_size_nm, sigma_nm, scale : as of `Localiser`

    Notes
    -----
    A density map says nothing of brightness, and neither does a table without `photons`:
    `photons`, `background` and `sigma_nm` are 0 then. `uncertainty_nm` is what the table's
    `uncertainty` says, in nm, or one pixel of the network's output.

    Raises
    ------
    ConfigError, EngineError, BackendError
        If the engine does something else, or does not fit these frames.
    """

    def __init__(
        self,
        engine: str,
        shape: tuple[int, int],
        pixel_size_nm: float,
        sigma_nm: float,
        scale: PhotonScale,
        compute: ComputeConfig | None = None,
    ) -> None:
        super().__init__(shape, pixel_size_nm, sigma_nm, scale)
        self.engine: Engine = load_engine(engine)
        manifest = self.engine.manifest
        names = manifest.channel_names
        self.density = len(names) == 1
        if not self.density and not set(_TABLE) <= set(names):
            raise ConfigError(
                f"Engine {manifest.id!r} gives {', '.join(names)}. To localise, one gives a density"
                f" map, or at least {', '.join(_TABLE)}."
            )
        self.warnings = self.engine.check_fits("localise", shape=shape, pixel_size_nm=pixel_size_nm)
        self._compute = compute or ComputeConfig(tile="off")
        self._session = open_session(self.engine, shape, self._compute)
        self._one_at_a_time = threading.Lock()

    @property
    def predicted_by(self) -> str:
        """Engine, version and hash, as everything that it draws is marked."""
        return str(self.engine)

    def of_shape(self, shape: tuple[int, int]) -> NetworkLocaliser:
        """Return one for frames of another shape (y, x), from the same camera."""
        return NetworkLocaliser(
            str(self.engine.folder),
            shape,
            self.pixel_size_nm,
            self._sigma_nm,
            self.scale,
            self._compute,
        )

    def localise(self, frames: RawFrames, numbers: Sequence[int]) -> NDArray[np.void]:
        """As `Localiser.localise`."""
        return self.see(frames, numbers)[0]

    def see(
        self, frames: RawFrames, numbers: Sequence[int]
    ) -> tuple[NDArray[np.void], Floats | None]:
        """Return the emitters of `frames`, and the sum of their density maps.

        Returns
        -------
        emitters : records of `LOCALISATION`, ordered by frame
        density : float32 (scale y, scale x), emitters per pixel; None where the engine gives a
            table
        """
        found: list[NDArray[np.void]] = [np.empty(0, LOCALISATION)]
        total: Floats | None = None
        for number, output in zip(numbers, self._outputs(np.asarray(frames)), strict=True):
            found.append(self._maxima(output[0]) if self.density else self._table(output))
            found[-1]["frame"] = number
            if self.density:
                light = output[0] * (output[0] > FLOOR) / np.float32(LIGHT_OF_ONE)
                total = light if total is None else total + light
        return np.concatenate(found), total

    def resampled(
        self, density: Floats, shape: tuple[int, int], pixel_nm: float, drift_nm: Sequence[float]
    ) -> Floats:
        """Return a sum of density maps on the pixels of a picture, moved back by a drift.

        Parameters
        ----------
        density : as `see` gives it
        shape, pixel_nm : of the picture
        drift_nm : (y, x)

        Returns
        -------
        float32 of `shape`, emitters per pixel
        """
        fine_nm = self.pixel_size_nm / self.engine.manifest.scale
        step = pixel_nm / fine_nm
        # Coarser pixels than the network's take the mean of what they cover.
        box = max(round(step), 1)
        even = uniform_filter(density, box) if box > 1 else density
        # The mean over an even number of pixels lies half a pixel before the one that it is put in.
        beside = 0.5 * (1 - box % 2)
        start = [(0.5 * pixel_nm + shift) / fine_nm - 0.5 + beside for shift in drift_nm[:2]]
        picture = np.empty(shape, np.float32)
        affine_transform(even, [step, step], start, output=picture, order=1)
        picture *= np.float32(step**2)
        return picture

    def _outputs(self, frames: NDArray[Any]) -> list[Floats]:
        photons = frames.astype(np.float32)
        levels = [background_and_scale(frame) for frame in photons]
        scale = max(float(np.median([s for _, s in levels])), _SMALLEST_SCALE)
        photons -= np.asarray([b for b, _ in levels], np.float32)[:, None, None]
        photons /= np.float32(scale)
        window, outputs = self.engine.manifest.window, []
        with self._one_at_a_time:
            for i in range(len(photons)):
                around = np.clip(
                    np.arange(i - window // 2, i + window // 2 + 1), 0, len(photons) - 1
                )
                self._session.input[:] = photons[around].reshape(self._session.input.shape)
                outputs.append(np.array(self._session.infer(), np.float32))
        return outputs

    def _maxima(self, density: Floats) -> NDArray[np.void]:
        """Return the maxima of a density map, at the centre of what is around each."""
        highest = maximum_filter(density, 2 * _APART_PX + 1)
        y, x = np.nonzero((density >= highest) & (density > PEAK))
        around = np.arange(-1, 2)
        rows = np.clip(y[:, None] + around, 0, density.shape[0] - 1)
        columns = np.clip(x[:, None] + around, 0, density.shape[1] - 1)
        light = np.maximum(density[rows[:, :, None], columns[:, None, :]], 0)
        total = light.sum((1, 2))
        dy = (light * around[:, None]).sum((1, 2)) / total
        dx = (light * around).sum((1, 2)) / total
        fine_nm = self.pixel_size_nm / self.engine.manifest.scale
        return self._listed((y + dy + 0.5) * fine_nm, (x + dx + 0.5) * fine_nm, fine_nm)

    def _table(self, output: Floats) -> NDArray[np.void]:
        """Return the pixels that hold an emitter; of neighbours the most probable one.

        `y` and `x` are its distance from the middle of that pixel, in pixels of the output.
        """
        of = dict(zip(self.engine.manifest.channel_names, output, strict=True))
        probable = of["probability"]
        y, x = np.nonzero((probable >= maximum_filter(probable, 3)) & (probable > PROBABLE))
        fine_nm = self.pixel_size_nm / self.engine.manifest.scale
        sure = of["uncertainty"][y, x] if "uncertainty" in of else fine_nm
        found = self._listed(
            (y + of["y"][y, x] + 0.5) * fine_nm, (x + of["x"][y, x] + 0.5) * fine_nm, sure
        )
        for name in ("photons", "background"):
            if name in of:
                found[name] = of[name][y, x]
        return found

    @staticmethod
    def _listed(y_nm: Any, x_nm: Any, uncertainty_nm: Any) -> NDArray[np.void]:
        found = np.zeros(len(y_nm), LOCALISATION)
        found["y_nm"], found["x_nm"], found["uncertainty_nm"] = y_nm, x_nm, uncertainty_nm
        return found
