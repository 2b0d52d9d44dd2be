"""The buffers of a linear SIM reconstruction, and what is done in them to every frame.

Owns every array that the frame loop writes, and the views on them. Decides nothing: weights come
from outside, places from the plan.

The loop is written in the words of `livesr.live.arrays`, so that it is the same on a CPU and on a
GPU; what is prepared once is computed with NumPy and then moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.live.arrays import Array, Arrays
from livesr.live.reconstruct.reconstructor import RawFrames
from livesr.modalities.sim.plan import BIN, Piece, SIMPlan

# Rows a power of two apart share cache sets: transforms along y run 1.8 times as fast with this
# many more elements.
_PAD = 8
# Small enough for the L2 cache, and below the size at which BLAS starts threads of its own.
_STRIP_PX = 8192


@dataclass(frozen=True, slots=True)
class _Placed:
    """A `Piece` as views of the buffers: source, scratch and target; and its weight."""

    source: Array
    weight: Array
    scratch: Array
    target: Array


@dataclass(frozen=True, slots=True)
class _Strip:
    """Some rows of the raw frames, worked on together, as views of the buffers.

    `raw` and `planes` have pixels in a row (n, pixels); `frames` are the rows of `raw`, `parts`
    those of `planes`, as (y, x). `mean` and `bands` are what the strip fills, `window` and
    `ramps` what it is multiplied with.
    """

    rows: slice
    frames: list[Array]
    raw: Array
    planes: Array
    parts: Array
    mean: Array
    bands: Array
    window: Array
    ramps: Array


class Workspace:
    """The buffers of one reconstruction; of one thread.

    Everything is allocated here. Per frame, scipy.fft has no output argument for real transforms,
    so two arrays are allocated and freed or handed away: the spectrum of band 0 along x, and the
    result itself.

    Parameters
    ----------
    plan : what is done
    arrays : what to compute with

    Attributes
    ----------
    mean : band 0, float32 (y, x), after `separate` or `average`
    zero : half spectrum of band 0, complex64 (y, columns of kx >= 0), after `transform`
    bands : spectra of the waves' bands, complex64 (waves, y, x), only inside the OTF's support
    ends : mean, and change from the first to the last raw frame, summed over squares of `BIN`
        pixels, float32 (2, y, x); the change only where the plan knows it
    """

    def __init__(self, plan: SIMPlan, arrays: Arrays) -> None:
        self._plan, self._arrays, self._allocated_bytes = plan, arrays, 0
        height, width = plan.parameters.shape
        self.mean = self._zeros((height, width))
        self.ends = self._zeros((2, height // BIN, width // BIN))
        self._added = self._zeros((1, height // BIN, width // BIN))
        # Rows have more elements than are used, which only the views leave out.
        self.bands = self._complex((len(plan.waves), height, width))
        self.zero = self._complex((height, plan.parameters.support[1] + 1))
        self._sum = self._complex((plan.shape[0], plan.shape[1] // 2 + 1))
        scratch = self._zeros((2 * height * width,))
        self._frame = arrays.xp.reshape(scratch[: height * width], (height, width))
        taper = plan.taper()
        self._ramps = self._moved(np.stack([plan.ramp(i, taper) for i in range(len(plan.waves))]))
        self._strips = self._cut(self._moved(taper))
        pieces = list(plan.pieces())
        self._columns = max(_end(piece.target[1]) for piece in pieces)
        self._pieces = [self._placed(piece, scratch) for piece in pieces]

    @property
    def memory_bytes(self) -> int:
        """Bytes held, plus what one frame needs for a moment, the result included."""
        height, width = self._plan.parameters.shape
        result = 4 * self._plan.shape[0] * self._plan.shape[1]
        return self._allocated_bytes + result + 8 * height * width

    # -- the frame loop ----------------------------------------------------------------------------

    def separate(self, frames: RawFrames | Array, weights: Array) -> None:
        """Frames -> tapered band 0 and ramped bands +1, strip by strip so that a strip stays in the
        cache.

        `weights` are float32 (rows of the plan's weights, n + 1); the last column is for 1.
        """
        arrays, parts = self._arrays, 1 + 2 * len(self._plan.waves)
        for strip in self._strips:
            for i in range(len(frames)):
                arrays.copy(frames[i][strip.rows, :], strip.frames[i])
            arrays.matmul(weights, strip.raw, out=strip.planes)
            arrays.multiply(strip.parts[0, :, :], strip.window, out=strip.mean)
            arrays.fill_complex(
                strip.parts[1:parts:2, :, :], strip.parts[2:parts:2, :, :], out=strip.bands
            )
            arrays.multiply(strip.bands, strip.ramps, out=strip.bands)
            if self._plan.motion:
                self._bin(strip, strip.parts[:: strip.parts.shape[0] - 1, :, :], self.ends)

    def _bin(self, strip: _Strip, planes: Array, out: Array) -> None:
        """Sum planes (n, y, x) of a strip over squares of `BIN` pixels.

        What does not fill a square is left out.
        """
        xp, (n, height, width) = self._arrays.xp, planes.shape
        rows, columns, top = height // BIN, width // BIN, strip.rows.start // BIN
        if rows:
            whole = planes[:, : rows * BIN, : columns * BIN]
            along_y = xp.sum(xp.reshape(whole, (n, rows, BIN, columns * BIN)), axis=2)
            squares = xp.sum(xp.reshape(along_y, (n, rows, columns, BIN)), axis=3)
            out[:, top : top + rows, :] = squares

    def exchange(self, frames: RawFrames | Array, weights: Array, waves: slice | None) -> Array:
        """Add what frames of one angle give to band 0, and put their bands where those of the
        angle were.

        Parameters
        ----------
        frames : of the angle (phases, y, x)
        weights : float32 (1, phases + 1) or (1 + 2 waves, phases + 1), as of `separate`
        waves : of the angle, whose bands are exchanged; None leaves them. `transform` takes them

        Returns
        -------
        NDArray[np.float32]
            What was added to band 0, without taper, summed over squares of `BIN` pixels, (y, x).
        """
        arrays, m, rows = self._arrays, len(frames), weights.shape[0]
        for strip in self._strips:
            first = strip.raw.shape[0] - 1 - m  # the row of ones stays the last
            for i in range(m):
                arrays.copy(frames[i][strip.rows, :], strip.frames[first + i])
            arrays.matmul(weights, strip.raw[first:, :], out=strip.planes[:rows, :])
            self._bin(strip, strip.parts[:1, :, :], self._added)
            arrays.multiply(strip.parts[0, :, :], strip.window, out=strip.parts[0, :, :])
            arrays.add(strip.mean, strip.parts[0, :, :], out=strip.mean)
            if waves is not None:
                bands = strip.bands[waves, :, :]
                real, imag = strip.parts[1:rows:2, :, :], strip.parts[2:rows:2, :, :]
                arrays.fill_complex(real, imag, out=bands)
                arrays.multiply(bands, strip.ramps[waves, :, :], out=bands)
        return self._added[0, :, :]

    def transform(self, waves: slice = slice(None)) -> None:
        """Bands -> spectra in place, of all waves or some; along y only the columns that the OTF
        passes.
        """
        self._transform_mean()
        x = self._plan.parameters.support[1]
        bands = self.bands[waves, :, :]
        self._arrays.fft(bands, axis=2)
        for columns in (bands[:, :, : x + 1], bands[:, :, -x:]):
            self._arrays.fft(columns, axis=1)

    def _transform_mean(self) -> None:
        self.zero[...] = self._arrays.rfft(self.mean)[:, : self.zero.shape[1]]
        self._arrays.fft(self.zero, axis=0)

    def picture(self) -> Array:
        """Spectra -> weighted, moved to where they belong, added up: a new picture (2y, 2x)."""
        self._sum[...] = 0
        for piece in self._pieces:
            self._arrays.add_weighted(piece.target, piece.source, piece.weight, piece.scratch)
        return self._invert()

    def average(self, frames: RawFrames | Array, used: Sequence[int], offset_adu: float) -> Array:
        """Return the mean of the frames `used`, interpolated in Fourier space: a new picture."""
        arrays, given = self._arrays, self._plan.parameters
        self.mean[...] = -offset_adu * len(used)
        for i in used:
            arrays.copy(frames[i], self._frame)
            arrays.add(self.mean, self._frame, out=self.mean)
        self._transform_mean()
        y, x = given.support
        self._sum[...] = 0
        scale = 1 / (len(used) * given.shape[0] * given.shape[1])
        arrays.multiply(self.zero[: y + 1, :], scale, out=self._sum[: y + 1, : x + 1])
        arrays.multiply(self.zero[-y:, :], scale, out=self._sum[-y:, : x + 1])
        return self._invert()

    def _invert(self) -> Array:
        """Half spectrum -> picture; along y only the columns that can be filled."""
        self._arrays.ifft(self._sum[:, : self._columns], axis=0)
        return self._arrays.irfft(self._sum, self._plan.shape[1])

    def move_bands(self, vectors_um: NDArray[np.float64]) -> None:
        """Add `vectors_um` (angles, 2) to the patterns' vectors from the next frame on.

        The OTF's weights stay: it hardly changes over such distances.
        """
        taper = self._plan.taper()
        for i in range(len(self._plan.waves)):
            ramp = self._arrays.array(self._plan.ramp(i, taper, vectors_um))
            self._arrays.copy(ramp, self._ramps[i, :, :])

    # -- what is allocated once --------------------------------------------------------------------

    def _moved(self, host: NDArray[Any]) -> Array:
        """Return what is prepared on the host where it is used."""
        self._allocated_bytes += host.nbytes
        return self._arrays.array(host)

    def _zeros(self, shape: tuple[int, ...]) -> Array:
        return self._moved(np.zeros(shape, np.float32))

    def _complex(self, shape: tuple[int, ...]) -> Array:
        """Return zeros whose rows lie `_PAD` elements further apart than they are long."""
        padded = self._moved(np.zeros((*shape[:-1], shape[-1] + _PAD), np.complex64))
        return padded[..., : shape[-1]]

    def _cut(self, window: Array) -> list[_Strip]:
        """Return the strips in which frames are separated."""
        height, width = self._plan.parameters.shape
        rows = (
            min(height, max(1, _STRIP_PX // width // BIN) * BIN) if self._arrays.pieces else height
        )
        planes, raws = self._plan.weights.shape
        raw = self._moved(np.ones((raws + 1, rows * width), np.float32))
        mixed = self._zeros((planes, rows * width))
        tops = range(0, height, rows)
        return [
            self._strip(slice(top, min(top + rows, height)), raw, mixed, window) for top in tops
        ]

    def _strip(self, rows: slice, raw: Array, planes: Array, window: Array) -> _Strip:
        """Return the views of the buffers that a strip needs."""
        xp, width = self._arrays.xp, self._plan.parameters.shape[1]
        height = rows.stop - rows.start
        raw, planes = raw[:, : height * width], planes[:, : height * width]
        return _Strip(
            rows,
            [xp.reshape(raw[i, :], (height, width)) for i in range(raw.shape[0] - 1)],
            raw,
            planes,
            xp.reshape(planes, (planes.shape[0], height, width)),
            self.mean[rows, :],
            self.bands[:, rows, :],
            window[rows, :],
            self._ramps[:, rows, :],
        )

    def _placed(self, piece: Piece, scratch: Array) -> _Placed:
        """Return the views of the buffers that a piece needs."""
        band = self.zero if piece.wave is None else self.bands[piece.wave, :, :]
        size, shape = piece.weight.size, piece.weight.shape
        return _Placed(
            band[piece.source],
            self._moved(piece.weight),
            self._arrays.xp.reshape(scratch[:size], shape),
            self._sum[piece.target],
        )


def _end(columns: slice) -> int:
    """First column after those of a slice that runs either way."""
    return int(columns.stop if columns.step == 1 else columns.start + 1)
