"""Drawing fluorophores on the pixel grid, without aliasing and without loops.

Points are (y, x) in pixels; pixel (0, 0) is centred on the origin. Touches no physics and no random
numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Image = NDArray[np.float32]

SAMPLE_SPACING_PX = 0.7
"""Distance of the samples along a line. Smooth to 1 % after a blur of 0.8 pixels."""


def splat(points_px: Floats, weights: Floats, shape: tuple[int, int]) -> Image:
    """Share the weight of every point among its four neighbouring pixels (bilinear).

    Parameters
    ----------
    points_px : (n, 2) float
        Points as (y, x). Those outside the grid are left out.
    weights : (k, n) float
        One row for each image to draw.
    shape : (int, int)
        Grid (y, x).

    Returns
    -------
    (k, y, x) float32
        The caller owns it. Each image sums to the weights of the points inside the grid.
    """
    rows, columns = shape
    y, x = points_px[:, 0], points_px[:, 1]
    inside = np.flatnonzero((y >= 0) & (x >= 0) & (y < rows - 1) & (x < columns - 1))
    y, x, weights = y[inside], x[inside], weights[:, inside]
    top, left = y.astype(np.intp), x.astype(np.intp)
    down, right = y - top, x - left
    corner = top * columns + left
    index = np.concatenate([corner, corner + 1, corner + columns, corner + columns + 1])
    share = np.concatenate(
        [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    )
    images = np.empty((len(weights), rows * columns), np.float32)
    for image, weight in zip(images, weights, strict=True):
        # np.bincount sums an order of magnitude faster than np.add.at.
        image[:] = np.bincount(index, share * np.tile(weight, 4), rows * columns)
    return images.reshape(-1, rows, columns)


def sample_segments(
    start_px: Floats,
    stop_px: Floats,
    start_weights: Floats,
    stop_weights: Floats,
    shape: tuple[int, int],
) -> tuple[Floats, Floats]:
    """Turn straight segments into evenly spaced points, ready for `splat`.

    Parameters
    ----------
    start_px, stop_px : (n, 2) float
        Ends of the segments as (y, x).
    start_weights, stop_weights : (k, n) float
        Fluorophores per pixel of length at both ends, linear in between, for k images.
    shape : (int, int)
        Segments that lie wholly outside this grid (y, x) are left out, dark ones too.

    Returns
    -------
    points_px : (m, 2) float
    weights : (k, m) float
    """
    size = np.asarray(shape, np.float32)
    seen = np.all(
        (np.maximum(start_px, stop_px) > 0) & (np.minimum(start_px, stop_px) < size), axis=1
    )
    kept = np.flatnonzero(seen & (np.maximum(start_weights, stop_weights).max(axis=0) > 0))
    start, step = start_px[kept], (stop_px - start_px)[kept]
    length = np.hypot(step[:, 0], step[:, 1])
    count = np.ceil(length / SAMPLE_SPACING_PX).astype(np.intp)
    segment = np.repeat(np.arange(len(kept)), count)
    first = np.cumsum(count) - count
    fraction = ((np.arange(len(segment)) - first[segment] + 0.5) / count[segment]).astype(
        np.float32
    )
    points = start[segment] + fraction[:, None] * step[segment]
    first_weight, last_weight = (
        start_weights[:, kept][:, segment],
        stop_weights[:, kept][:, segment],
    )
    weights = first_weight + fraction * (last_weight - first_weight)
    return points, weights * (length / np.maximum(count, 1))[segment]


def splat_polylines(
    nodes_px: Floats, weights: Floats, shape: tuple[int, int], visible: Floats | None = None
) -> Image:
    """Draw many lines at once.

    Parameters
    ----------
    nodes_px : (n, m, 2) float
        n lines of m nodes as (y, x).
    weights : (k, n, m) float
        Fluorophores per pixel of length at each node, for k images.
    shape : (int, int)
        Grid (y, x).
    visible : (n,) float, optional
        How many segments of each line to draw, from its first node; the last one in part, so that
        growth is smooth.

    Returns
    -------
    (k, y, x) float32
    """
    layers = len(weights)
    start, stop = nodes_px[:, :-1], nodes_px[:, 1:]
    start_weights, stop_weights = weights[:, :, :-1], weights[:, :, 1:]
    if visible is not None:
        part: Floats = np.clip(visible[:, None] - np.arange(start.shape[1], dtype=np.float32), 0, 1)
        stop = start + (stop - start) * part[..., None]
        start_weights, stop_weights = start_weights * (part > 0), stop_weights * (part > 0)
    points, point_weights = sample_segments(
        start.reshape(-1, 2),
        stop.reshape(-1, 2),
        start_weights.reshape(layers, -1),
        stop_weights.reshape(layers, -1),
        shape,
    )
    return splat(points, point_weights, shape)


def bin_blocks(image: Image, block: int) -> Image:
    """Average blocks of `block` x `block` pixels.

    The image's sides must be multiples of `block`.
    """
    rows, columns = image.shape
    binned: Image = image.reshape(rows // block, block, columns // block, block).mean(
        axis=(1, 3), dtype=np.float32
    )
    return binned


def enlarge(image: Image, block: int) -> Image:
    """Undo `bin_blocks` for a smooth image.

    Bilinear interpolation between the blocks' centres, edge values held.
    """
    return _stretch(_stretch(image, block).T, block).T


def _stretch(image: Image, block: int) -> Image:
    """Interpolate linearly along the first axis to `block` times as many rows."""
    size = len(image)
    position = np.clip((np.arange(size * block) + 0.5) / block - 0.5, 0, size - 1)
    left = np.minimum(position.astype(np.intp), max(size - 2, 0))
    share = (position - left).astype(np.float32)[:, None]
    above = image[left]
    return np.asarray(above + share * (image[np.minimum(left + 1, size - 1)] - above), np.float32)
