"""The array operations of the live path, once for every library that computes them.

Owns the words in which correction, reconstruction, normalisation and composition are written. Knows
nothing of frames.

=============  ============================================  ===============================
class          computes with                                 for
=============  ============================================  ===============================
`Arrays`       any namespace of the Python array API         showing that nothing else is
               standard                                      needed (array-api-strict)
`NumpyArrays`  NumPy, transforms by scipy.fft                the CPU: `HOST`; in place,
                                                             buffers of the caller
`CupyArrays`   CuPy, which has NumPy's names                 a GPU: `cupy_arrays()`
=============  ============================================  ===============================

The standard has no ``out=``, so every operation here that fills an array is given it, and says so
by its name or by `out`. A slice must be a view, as it is in all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.special
from numpy.typing import NDArray

Array = Any
"""An array of the namespace in use; for `HOST` a NumPy array."""


class Arrays:
    """Operations on the arrays of one namespace, in words of the array API standard (2024.12, with
    its fft extension).

    Parameters
    ----------
    xp : the namespace

    Notes
    -----
    Numbers that Python decides by come to the host through `numbers`, which on a GPU waits for
    them; nothing else waits.

    Attributes
    ----------
    pieces : whether large arrays are best worked on in pieces that fit the cache
    """

    pieces = False

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    # -- to and from the host ----------------------------------------------------------------------

    def array(self, host: NDArray[Any]) -> Array:
        """Return a copy of a NumPy array in this namespace.

        The array itself if it is one of NumPy's own already.
        """
        return self.xp.asarray(host)

    def numbers(self, values: Sequence[Array] | Array) -> NDArray[np.float64]:
        """Return 0-d arrays, or the elements of one array, as float64 on the host."""
        if isinstance(values, Sequence):
            values = self.xp.stack([self.float64(v) for v in values])
        return self.on_host(values).astype(np.float64)

    def on_host(self, array: Array) -> NDArray[Any]:
        """Return an array's elements as a NumPy array."""
        return np.asarray(array)

    def float64(self, a: Array) -> Array:
        """Return `a` in double precision."""
        return self.xp.astype(a, self.xp.float64)

    # -- element by element ------------------------------------------------------------------------

    def copy(self, source: Array, out: Array) -> None:
        """Write `source` into `out`, converted.

        Numbers lose their fraction in an array of whole numbers.
        """
        out[...] = self.xp.astype(source, out.dtype)

    def add(self, a: Array, b: Array, out: Array) -> Array:
        """Fill `out` with a + b and return it; it may be `a`."""
        out[...] = a + b
        return out

    def subtract(self, a: Array, b: Array | float, out: Array) -> Array:
        """Fill `out` with a - b and return it."""
        out[...] = a - b
        return out

    def multiply(self, a: Array, b: Array | float, out: Array) -> Array:
        """Fill `out` with a b and return it; it may be `a`."""
        out[...] = a * b
        return out

    def maximum(self, a: Array, b: Array, out: Array) -> Array:
        """Fill `out` with the larger of a and b and return it."""
        out[...] = self.xp.maximum(a, b)
        return out

    def greater(self, a: Array, b: float, out: Array) -> Array:
        """Fill `out` with 1 where a > b, else 0, and return it."""
        out[...] = self.xp.astype(a > b, out.dtype)
        return out

    def absolute(self, a: Array, out: Array) -> Array:
        """Fill `out` with |a| and return it; it may be `a`."""
        out[...] = self.xp.abs(a)
        return out

    def clip(self, a: Array, low: float, high: float, out: Array) -> Array:
        """Fill `out` with a, but for what is below `low` or above `high`, and return it.

        It may be `a`.
        """
        out[...] = self.xp.clip(a, low, high)
        return out

    def erf(self, a: Array) -> Array:
        """Return the error function of each element, within 1.5e-7.

        Notes
        -----
        Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
        """
        xp = self.xp
        t = 1.0 / (1.0 + 0.3275911 * xp.abs(a))
        series = 1.061405429 * t
        for term in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            series = (series + term) * t
        return xp.sign(a) * (1.0 - series * xp.exp(-(a * a)))

    def finite(self, a: Array) -> Array:
        """Return a copy with 0 where there is no finite number."""
        return self.xp.where(self.xp.isfinite(a), a, self.xp.zeros_like(a))

    # -- complex numbers ---------------------------------------------------------------------------

    def fill_complex(self, real: Array, imag: Array, out: Array) -> None:
        """Fill a complex array from its parts."""
        xp = self.xp
        out[...] = xp.astype(real, out.dtype) + xp.astype(imag, out.dtype) * 1j

    def add_weighted(self, target: Array, source: Array, weight: Array, scratch: Array) -> None:
        """Add `source`, part by part weighted, to `target`.

        Parameters
        ----------
        target, source : complex64 (y, x)
        weight : float32 (y, 2x): the factor of the real part, then that of the imaginary one, of
            every element
        scratch : float32 (y, 2x), overwritten where that makes it faster
        """
        xp = self.xp
        real, imag = xp.real(source) * weight[:, ::2], xp.imag(source) * weight[:, 1::2]
        target[...] = target + (xp.astype(real, target.dtype) + xp.astype(imag, target.dtype) * 1j)

    # -- sums and order ----------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """Fill `out` with the matrix product and return it."""
        out[...] = self.xp.matmul(a, b)
        return out

    def dot(self, a: Array, b: Array) -> Array:
        """Return the sum of a b over all elements, 0-d."""
        return self.xp.sum(a * b)

    def totals(self, frames: Sequence[Array] | Array) -> NDArray[np.float64]:
        """Return the sum of every frame (y, x), on the host.

        Whole numbers are added row by row in 32 bit, which is several times as fast.
        """
        xp = self.xp
        sums = []
        for i in range(len(frames)):
            frame = frames[i]
            if frame.dtype == xp.float32:
                sums.append(xp.sum(frame, dtype=xp.float64))
            else:
                sums.append(xp.sum(xp.sum(frame, axis=1, dtype=xp.uint32), dtype=xp.uint64))
        return self.numbers(sums)

    def column_sums(self, a: Array, b: Array | None = None) -> Array:
        """Return the sum of each column of a, or of a b; both (k, n)."""
        return self.xp.sum(a if b is None else a * b, axis=0)

    def summed(self, places: Array, values: Array, size: int) -> Array:
        """Return float32 (size,): the sum of the `values` at each of `places`, both (k,)."""
        on_host = np.bincount(self.on_host(places), self.on_host(values), size)
        return self.array(on_host.astype(np.float32))

    def percentile(self, a: Array, percent: float) -> Array:
        """Return a percentile of all elements, interpolated linearly, 0-d."""
        flat = self.xp.sort(self.xp.reshape(a, (-1,)))
        place = (flat.shape[0] - 1) * percent / 100
        low = int(place)
        high = min(low + 1, flat.shape[0] - 1)
        return flat[low] + (flat[high] - flat[low]) * (place - low)

    def sort(self, a: Array) -> Array:
        """Return `a` with its last axis in rising order; `a` itself may be what is sorted."""
        return self.xp.sort(a, axis=-1)

    def take(self, a: Array, places: Array, out: Array, axis: int = 1) -> Array:
        """Fill `out` (n, ...) with the elements of a (n, pixels) at `places` (...) and return it.

        Along the axis 0, `out` (..., k) with the rows of a (n, k).
        """
        out[...] = self.xp.reshape(
            self.xp.take(a, self.xp.reshape(places, (-1,)), axis=axis), out.shape
        )
        return out

    def put(self, a: Array, places: Array, values: Array) -> None:
        """Write `values` (n, k) into a (n, pixels) at `places` (k,)."""
        for i in range(places.shape[0]):
            a[:, int(places[i])] = values[:, i]

    # -- transforms --------------------------------------------------------------------------------

    def fft(self, a: Array, axis: int) -> None:
        """Fourier transform a complex array along an axis, in place."""
        a[...] = self.xp.fft.fft(a, axis=axis)

    def ifft(self, a: Array, axis: int) -> None:
        """Transform back in place, without the factor 1 / n."""
        a[...] = self.xp.fft.ifft(a, axis=axis, norm="forward")

    def rfft(self, a: Array) -> Array:
        """Return the half spectrum of a real array along its last axis."""
        return self.xp.fft.rfft(a, axis=-1)

    def irfft(self, a: Array, n: int) -> Array:
        """Return the real array of length `n` whose half spectrum is `a`, without the factor 1 / n.

        `a` is used up.
        """
        return self.xp.fft.irfft(a, n=n, axis=-1, norm="forward")


class NumpyArrays(Arrays):
    """The same with NumPy's names: in place, without temporary arrays where NumPy has a way.

    Parameters
    ----------
    xp : numpy, or what has its names
    transforms : scipy.fft, or what has its names
    """

    pieces = True

    def __init__(self, xp: Any = np, transforms: Any = scipy.fft) -> None:
        super().__init__(xp)
        self._transforms = transforms

    def numbers(self, values: Sequence[Array] | Array) -> NDArray[np.float64]:
        """Return 0-d arrays, or the elements of one array, as float64 on the host."""
        return np.asarray(values, np.float64)

    def float64(self, a: Array) -> Array:
        """Return `a` in double precision."""
        return a.astype(np.float64)

    def copy(self, source: Array, out: Array) -> None:
        """Write `source` into `out`, converted.

        Numbers lose their fraction in an array of whole numbers.
        """
        self.xp.copyto(out, source, casting="unsafe")

    def add(self, a: Array, b: Array, out: Array) -> Array:
        """Fill `out` with a + b and return it; it may be `a`."""
        return self.xp.add(a, b, out=out)

    def subtract(self, a: Array, b: Array | float, out: Array) -> Array:
        """Fill `out` with a - b and return it."""
        return self.xp.subtract(a, b, out=out)

    def multiply(self, a: Array, b: Array | float, out: Array) -> Array:
        """Fill `out` with a b and return it; it may be `a`."""
        return self.xp.multiply(a, b, out=out)

    def maximum(self, a: Array, b: Array, out: Array) -> Array:
        """Fill `out` with the larger of a and b and return it."""
        return self.xp.maximum(a, b, out=out)

    def greater(self, a: Array, b: float, out: Array) -> Array:
        """Fill `out` with 1 where a > b, else 0, and return it."""
        return self.xp.greater(a, b, out=out)

    def absolute(self, a: Array, out: Array) -> Array:
        """Fill `out` with |a| and return it; it may be `a`."""
        return self.xp.abs(a, out=out)

    def clip(self, a: Array, low: float, high: float, out: Array) -> Array:
        """Fill `out` with a, but for what is below `low` or above `high`, and return it.

        It may be `a`.
        """
        return self.xp.clip(a, low, high, out=out)

    def fill_complex(self, real: Array, imag: Array, out: Array) -> None:
        """Fill a complex array from its parts."""
        out.real, out.imag = real, imag

    def add_weighted(self, target: Array, source: Array, weight: Array, scratch: Array) -> None:
        """Add `source`, part by part weighted, to `target`; see `Arrays.add_weighted`.

        A float32 product is several times as fast as complex times real: complex numbers are seen
        as pairs.
        """
        self.xp.multiply(source.view(np.float32), weight, out=scratch)
        self.xp.add(target, scratch.view(np.complex64), out=target)

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """Fill `out` with the matrix product and return it."""
        return self.xp.matmul(a, b, out=out)

    def erf(self, a: Array) -> Array:
        """Return the error function of each element."""
        return scipy.special.erf(a)

    def column_sums(self, a: Array, b: Array | None = None) -> Array:
        """Return the sum of each column of a, or of a b; both (k, n)."""
        # One pass, where a product would be written and read again.
        return self.xp.sum(a, axis=0) if b is None else self.xp.einsum("kn,kn->n", a, b)

    def dot(self, a: Array, b: Array) -> Array:
        """Return the sum of a b over all elements, 0-d."""
        return self.xp.vdot(a, b)

    def percentile(self, a: Array, percent: float) -> Array:
        """Return a percentile of all elements, interpolated linearly, 0-d.

        No number if one of them is none.

        One partition and the least of what is above it take a seventh of the time of
        `numpy.percentile`, which splits at four places.
        """
        flat = a.flatten()
        place = (flat.size - 1) * percent / 100
        low = int(place)
        flat.partition(low)
        above = flat[low + 1 :]  # with all that is no number
        return flat[low] + (above.min() - flat[low]) * (place - low) if above.size else flat[low]

    def sort(self, a: Array) -> Array:
        """Sort `a` along its last axis in place, and return it."""
        a.sort(axis=-1)
        return a

    def take(self, a: Array, places: Array, out: Array, axis: int = 1) -> Array:
        """Fill `out` (n, ...) with the elements of a (n, pixels) at `places` (...) and return it.

        Along the axis 0, `out` (..., k) with the rows of a (n, k).
        """
        return self.xp.take(a, places, axis=axis, out=out, mode="clip")

    def put(self, a: Array, places: Array, values: Array) -> None:
        """Write `values` (n, k) into a (n, pixels) at `places` (k,)."""
        a[:, places] = values

    def fft(self, a: Array, axis: int) -> None:
        """Fourier transform a complex array along an axis, in place."""
        self._transforms.fft(a, axis=axis, overwrite_x=True)

    def ifft(self, a: Array, axis: int) -> None:
        """Transform back in place, without the factor 1 / n."""
        self._transforms.ifft(a, axis=axis, norm="forward", overwrite_x=True)

    def rfft(self, a: Array) -> Array:
        """Return the half spectrum of a real array along its last axis."""
        return self._transforms.rfft(a, axis=-1)

    def irfft(self, a: Array, n: int) -> Array:
        """Return the real array of length `n` whose half spectrum is `a`, without the factor 1 / n.

        `a` is used up.
        """
        return self._transforms.irfft(a, n=n, axis=-1, norm="forward", overwrite_x=True)


class CupyArrays(NumpyArrays):
    """The same with CuPy: NumPy's names, but for what CuPy leaves out of them.

    Everything is enqueued on the calling thread's current stream. cuFFT works on contiguous copies,
    from CuPy's memory pool: what NumPy does in place is written back here.
    """

    pieces = False
    numbers, dot, column_sums = Arrays.numbers, Arrays.dot, Arrays.column_sums

    def on_host(self, array: Array) -> NDArray[Any]:
        """Return an array's elements as a NumPy array; waits for the current stream."""
        host: NDArray[Any] = self.xp.asnumpy(array)
        return host

    def erf(self, a: Array) -> Array:
        """Return the error function of each element."""
        import cupyx.scipy.special

        return cupyx.scipy.special.erf(a)

    def summed(self, places: Array, values: Array, size: int) -> Array:
        """Return float32 (size,): the sum of the `values` at each of `places`, both (k,)."""
        return self.xp.bincount(places, values, size).astype(self.xp.float32)

    def percentile(self, a: Array, percent: float) -> Array:
        """Return a percentile of all elements, interpolated linearly, 0-d."""
        return self.xp.percentile(a, percent)

    def take(self, a: Array, places: Array, out: Array, axis: int = 1) -> Array:
        """Fill `out` (n, ...) with the elements of a (n, pixels) at `places` (...) and return it.

        Along the axis 0, `out` (..., k) with the rows of a (n, k).
        """
        return self.xp.take(a, places, axis=axis, out=out)

    def fft(self, a: Array, axis: int) -> None:
        """Fourier transform a complex array along an axis, in place."""
        a[...] = self._transforms.fft(a, axis=axis)

    def ifft(self, a: Array, axis: int) -> None:
        """Transform back in place, without the factor 1 / n."""
        a[...] = self._transforms.ifft(a, axis=axis, norm="forward")


HOST = NumpyArrays()
"""The CPU, which every step uses unless it is told otherwise."""


def cupy_arrays() -> CupyArrays:
    """Return CuPy's operations.

    Raises
    ------
    ImportError
        If CuPy is not installed.
    """
    import cupy
    import cupyx.scipy.fft

    return CupyArrays(cupy, cupyx.scipy.fft)
