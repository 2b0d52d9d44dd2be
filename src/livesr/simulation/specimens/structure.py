"""What all structures share: the grid, the clock, brightness, focus and haze.

A structure paints fluorophores as unblurred splats (`_paint`) and moves (`_step`); this class does
the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.simulation.specimens.noise import AreaNoise
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.raster import bin_blocks, enlarge

Floats = NDArray[np.floating]
Image = NDArray[np.float32]

MIN_SIGMA_PX = 0.8
"""Narrower Gaussians alias on the grid."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def check_grid(shape: tuple[int, int], pixel_size_um: float) -> None:
    """Raise ValueError unless `shape` is (y, x) and both it and the pixel size are usable."""
    require(
        len(shape) == 2 and min(shape) >= 8,
        f"shape must be (y, x) of at least 8 pixels each, got {shape}",
    )
    require(pixel_size_um > 0, f"pixel_size_um must be positive, got {pixel_size_um}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureParameters:
    """How any structure looks; each structure adds its own.

    Parameters
    ----------
    thickness_nm : float
        Gaussian sigma of what is in focus; at least 0.8 pixels are drawn.
    defocus_nm : float
        Gaussian sigma of the parts that lie slightly above or below the focus.
    out_of_focus : float
        Share of the light that lies slightly out of focus, 0-1.
    haze : float
        Light from far out of focus relative to the light in focus.
    """

    thickness_nm: float = 35.0
    defocus_nm: float = 110.0
    out_of_focus: float = 0.2
    haze: float = 0.5

    def __post_init__(self) -> None:
        self._check_positive("thickness_nm", "defocus_nm")
        self._check_shares("out_of_focus")
        self._check_not_negative("haze")

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """Draw parameters over the wide range that training should see."""
        raise NotImplementedError(f"{cls.__name__} has no random parameters")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            require(
                getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}"
            )

    def _check_shares(self, *names: str) -> None:
        for name in names:
            require(
                0 <= getattr(self, name) <= 1,
                f"{name} is a share and must lie in 0-1, got {getattr(self, name)}",
            )


class Structure(ABC):
    """One kind of labelled structure in a moving cell.

    Parameters
    ----------
    shape : (int, int)
        Output grid (y, x) in pixels.
    pixel_size_um : float
        Pixel size of the output grid, the same in y and x.
    rng : numpy.random.Generator
        All chance, at construction and later, comes from here; the structure keeps it.
    parameters : StructureParameters
        Thickness, focus and haze; the structure's own class of them.
    outline : CellOutline, optional
        The cell; without it, the cell is larger than the field.

    Raises
    ------
    ValueError
        If the grid makes no sense.
    """

    Parameters: ClassVar[type[Any]] = StructureParameters

    MARGIN_UM = 3.0
    """Structures live this far beyond the field, so that they enter and leave it."""
    MAX_STEP_S = 0.5
    _BLOCK = 8
    _MARGIN_PX = 16

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        rng: np.random.Generator,
        parameters: StructureParameters,
        *,
        outline: CellOutline | None = None,
    ) -> None:
        check_grid(shape, pixel_size_um)
        self.shape = (int(shape[0]), int(shape[1]))
        self.pixel_size_um = float(pixel_size_um)
        self.outline = outline
        self.haze = parameters.haze
        self._rng = rng
        rows, columns = (
            -(-(size + 2 * self._MARGIN_PX) // self._BLOCK) * self._BLOCK for size in self.shape
        )
        self._canvas_shape = (rows, columns)
        self._sigma_px = max(parameters.thickness_nm / 1000 / pixel_size_um, MIN_SIGMA_PX)
        self._defocus_px = max(parameters.defocus_nm / 1000 / pixel_size_um, self._sigma_px)
        self._low_um = np.full(2, -self.MARGIN_UM, np.float32)
        self._high_um = np.asarray(self.shape, np.float32) * np.float32(pixel_size_um) + np.float32(
            self.MARGIN_UM
        )
        self._scale = np.float32(1)
        self._painted: Image | None = None

    @property
    def field_um(self) -> tuple[float, float]:
        """Height and width of the output grid."""
        return self.shape[0] * self.pixel_size_um, self.shape[1] * self.pixel_size_um

    def advance(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass. Long times are cut into steps.

        0 changes nothing, negative raises ValueError.
        """
        require(
            np.isfinite(dt_s) and dt_s >= 0,
            f"time runs forwards: dt_s must be >= 0 and finite, got {dt_s}",
        )
        if dt_s == 0:
            return
        steps = int(np.ceil(dt_s / self.MAX_STEP_S))
        for _ in range(steps):
            self._step(dt_s / steps)
        self._painted = None

    def render(self, out: Image | None = None) -> Image:
        """Return the fluorophore density in and near the focus, float32 (y, x), >= 0.

        A bright part is about 1.

        Writes into `out` and returns it when given; raises ValueError if it does not fit.
        """
        focused, defocused = self._canvas()
        # A splat is already as wide as a Gaussian of variance 1/6.
        sharp, soft = (np.sqrt(sigma**2 - 1 / 6) for sigma in (self._sigma_px, self._defocus_px))
        image = gaussian_filter(focused, sharp, truncate=3.5, mode="constant")
        if defocused.any():
            image += gaussian_filter(defocused, soft, truncate=3, mode="constant")
        return self._crop(image, out)

    def render_haze(self, out: Image | None = None) -> Image:
        """Return the smooth light from far out of focus, float32 (y, x), on the scale of
        `render`.
        """
        small = bin_blocks(self._canvas().sum(axis=0), self._BLOCK)
        near, far = (sigma / (self.pixel_size_um * self._BLOCK) for sigma in (0.35, 1.1))
        small = np.float32(0.3) * gaussian_filter(small, near) + np.float32(0.7) * gaussian_filter(
            small, far
        )
        small *= self._haze_pattern
        return self._crop(enlarge(small, self._BLOCK), out)

    @abstractmethod
    def _step(self, dt_s: float) -> None:
        """Advance by one step of at most `MAX_STEP_S`."""

    @abstractmethod
    def _paint(self) -> Image:
        """Return the unblurred fluorophores as (2, y, x) on the canvas.

        In focus, and slightly out of focus.
        """

    def _settle(self) -> None:
        """Fix brightness and haze for good.

        Each structure calls it once, at the end of its construction. A typical line has one
        fluorophore per pixel, which keeps a nearly empty field from being amplified.
        """
        floor = 0.6 / (np.sqrt(2 * np.pi) * self._sigma_px)
        grain = self._rng.uniform(1.5, 4)
        blocks = [
            np.arange(size // self._BLOCK) * self._BLOCK * self.pixel_size_um
            for size in self._canvas_shape
        ]
        centres = np.stack(np.meshgrid(*blocks, indexing="ij"), axis=-1).astype(np.float32)
        pattern = AreaNoise(self._low_um, self._high_um + 2, grain, self._rng)(centres)
        self._haze_pattern = np.float32(self.haze) * (np.float32(0.4) + np.float32(1.2) * pattern)
        self._scale = np.float32(1 / max(float(np.percentile(self.render(), 99.8)), floor))

    def _canvas(self) -> Image:
        if self._painted is None:
            self._painted = self._paint()
        return self._painted

    def _to_pixels(self, points_um: Floats) -> Floats:
        return points_um * np.float32(1 / self.pixel_size_um) + np.float32(self._MARGIN_PX)

    def _random_points(self, count: int) -> Image:
        """Draw `count` points (y, x) in um inside the cell, in the field and its margin."""
        tries = self._rng.uniform(self._low_um, self._high_um, (8 * count, 2)).astype(np.float32)
        if self.outline is not None:
            inside = tries[self.outline.depth_um(tries) > 0]
            tries = inside if len(inside) else tries
        return np.resize(tries, (count, 2)) if len(tries) < count else tries[:count]

    def _crop(self, canvas: Image, out: Image | None) -> Image:
        rows, columns = (slice(self._MARGIN_PX, self._MARGIN_PX + size) for size in self.shape)
        if out is None:
            out = np.empty(self.shape, np.float32)
        require(
            out.shape == self.shape and out.dtype == np.float32,
            f"out must be float32 of shape {self.shape}, got {out.dtype} of shape {out.shape}",
        )
        return np.multiply(canvas[rows, columns], self._scale, out=out)
