"""A frame in tiles, for a network whose frame does not fit the memory at once.

Owns where tiles lie, how their edges are blended and what memory a frame is estimated to take. Runs
any session of a tile, and is a session itself.

Tiles are not exact: channel attention weighs features by their means over the whole image, and a
tile has other means. How near they come is measured per engine and stands in its card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import EngineError
from livesr.live.inference.engine import Engine
from livesr.live.inference.padding import PaddedBlock, PaddedSession
from livesr.live.inference.session import InferenceSession

_BLEND_PX = 32
# Measured on the light engine at 1024^2 and 2048^2: 6 to 7 times its widest features with OpenVINO,
# 7 to 14 with torch.
_LIVE_FEATURES = 8
_SHARE_OF_FREE = 0.5
_SMALLEST_TILE_PX = 128


class _Tile(NamedTuple):
    """Corner of a tile in the padded frame, and the weight of each of its output pixels."""

    y: int
    x: int
    weight: NDArray[np.float32]


class TiledSession(PaddedSession):
    """A session that sees a frame in overlapping tiles of one size.

    Neighbours overlap by twice the engine's halo and a strip of 32 pixels in between, over which
    they are blended linearly; what lies within the halo of a tile's inner edge is cut off. Input,
    output and one tile of scratch are allocated once, nothing per frame.

    Parameters
    ----------
    engine, shape : as of `Runtime.open`
    tile : side of a tile in input pixels; rounded down to what the engine takes, and to the frame
    open_tile : opens the engine for one tile (y, x), as `of_tiles` returns it

    Raises
    ------
    BackendError, EngineError
        As `open_tile`, or if a tile is too small for the engine's halo.
    """

    def __init__(
        self,
        engine: Engine,
        shape: tuple[int, int],
        tile: int,
        open_tile: Callable[[tuple[int, int]], InferenceSession],
    ) -> None:
        super().__init__(engine, shape)
        height, width = self._opened().block.shape[2:]
        side = _whole(tile, engine)
        size = min(side, height), min(side, width)
        self._tiles = list(_layout((height, width), size, engine))
        self._scratch = np.empty(engine.output_shape(size), np.float32)
        self.inner = inner = open_tile(size)  # of an engine that standardises no frame
        self.like(inner)
        self.tile = max(size)
        if inner.features is None:
            self._features = None

    def close(self) -> None:
        """Release the session of a tile, and the buffers."""
        self.inner.close()
        self._tiles = []
        self._scratch = np.empty((0, 0, 0), np.float32)
        super().close()

    def _run(self, padded: PaddedBlock) -> None:
        """Infer tile by tile, and add each to the output with its weights.

        Features are means over a frame: those of the tiles, by the area that each one fills.
        """
        self._output.fill(0)
        if self._features is not None:
            self._features.fill(0)
        area = self._output.shape[2] * self._output.shape[3]
        height, width = self.inner.input.shape[1:]
        scale = self._scratch.shape[1] // height
        for y, x, weight in self._tiles:
            self.inner.input[...] = padded.block[0, :, y : y + height, x : x + width]
            np.multiply(self.inner.infer(), weight, out=self._scratch)
            rows = slice(y * scale, (y + height) * scale)
            self._output[0, :, rows, x * scale : (x + width) * scale] += self._scratch
            if self._features is not None and (of_tile := self.inner.features) is not None:
                self._features += of_tile * np.float32(weight.sum() / area)


def of_tiles(engine: Engine) -> Engine:
    """Return an engine as its tiles see it.

    What is normalised by a whole frame is not normalised again by a tile of it.
    """
    plain = engine.manifest.model_copy(update={"normalisation": "background-scale"})
    return replace(engine, manifest=plain)


def needed_bytes(engine: Engine, shape: tuple[int, int]) -> int:
    """Estimate what a frame of `shape` (y, x) takes while it is inferred.

    Eight of the network's widest feature maps in float32, as measured, and its input and output
    twice. A network that enlarges has its widest ones at the output's size. Half precision takes
    less: the estimate is on the safe side.
    """
    manifest, pixels = engine.manifest, shape[0] * shape[1]
    width = int(manifest.parameters.get("width", len(manifest.channels) + manifest.inputs))
    unshuffle = int(manifest.parameters.get("unshuffle", 1))
    features = width * pixels * manifest.scale**2 // unshuffle**2
    ends = manifest.inputs * pixels + len(manifest.channels) * pixels * manifest.scale**2
    return 4 * (_LIVE_FEATURES * features + 2 * ends)


def tile_that_fits(engine: Engine, shape: tuple[int, int], free_bytes: int) -> int | None:
    """Return None if a frame of `shape` fits into half of `free_bytes`, else the side of the
    largest tile that does.
    """
    if needed_bytes(engine, shape) <= _SHARE_OF_FREE * free_bytes:
        return None
    tile = max(shape)
    while (smaller := smaller_tile(engine, tile)) is not None:
        tile = smaller
        if needed_bytes(engine, (tile, tile)) <= _SHARE_OF_FREE * free_bytes:
            break
    return tile


def smaller_tile(engine: Engine, tile: int) -> int | None:
    """Return three quarters of `tile`, or None if that would be more halo than picture.

    Not half: the larger the tile, the nearer its means to those of the whole.
    """
    smaller = _whole(tile * 3 // 4, engine)
    return smaller if smaller >= max(_SMALLEST_TILE_PX, 2 * _overlap(engine)) else None


def _overlap(engine: Engine) -> int:
    """Pixels that neighbours share.

    A halo each, and the strip in between over which they are blended.
    """
    step = engine.manifest.multiple_of
    return math.ceil((2 * engine.manifest.halo + _BLEND_PX) / step) * step


def _whole(tile: int, engine: Engine) -> int:
    step = engine.manifest.multiple_of
    return tile // step * step


def _layout(frame: tuple[int, int], tile: tuple[int, int], engine: Engine) -> Iterator[_Tile]:
    overlap, scale = _overlap(engine), engine.manifest.scale
    if any(t < n and t <= overlap for t, n in zip(tile, frame, strict=True)):
        raise EngineError(
            f"Tiles of {min(tile)} pixels are too small for engine {engine.manifest.id!r}, whose"
            f" neighbours share {overlap}: use tiles of {2 * overlap} or more."
        )
    step = engine.manifest.multiple_of
    rows = _with_weights(
        _starts(frame[0], tile[0], overlap, step), tile[0], engine.manifest.halo, scale
    )
    columns = _with_weights(
        _starts(frame[1], tile[1], overlap, step), tile[1], engine.manifest.halo, scale
    )
    for y, wy in rows:
        for x, wx in columns:
            yield _Tile(y, x, wy[:, None] * wx[None, :])


def _starts(frame: int, tile: int, overlap: int, step: int) -> list[int]:
    """Where tiles begin: evenly, on the network's grid, neighbours sharing `overlap` or more."""
    count = 1 + math.ceil((frame - tile) / (tile - overlap)) if frame > tile else 1
    return [round(i * (frame - tile) / max(count - 1, 1) / step) * step for i in range(count)]


def _with_weights(
    starts: list[int], tile: int, halo: int, scale: int
) -> list[tuple[int, NDArray[np.float32]]]:
    """Give each tile its weights along one axis: linear to 0 towards a neighbour.

    Those of all tiles add up to 1.
    """
    place = (np.arange(tile * scale) + 0.5) / scale
    weights = []
    for i, start in enumerate(starts):
        weight = np.ones(tile * scale, np.float32)
        if i > 0:
            weight *= _ramp(place, start, starts[i - 1] + tile, halo, start)
        if i + 1 < len(starts):
            weight *= 1 - _ramp(place, starts[i + 1], start + tile, halo, start)
        weights.append(weight)
    total = np.zeros((starts[-1] + tile) * scale, np.float32)  # where three tiles meet, more than 1
    for start, weight in zip(starts, weights, strict=True):
        total[start * scale :][: len(weight)] += weight
    return [
        (start, w / total[start * scale :][: len(w)])
        for start, w in zip(starts, weights, strict=True)
    ]


def _ramp(
    place: NDArray[np.float64], first: int, last: int, halo: int, origin: int
) -> NDArray[np.float32]:
    """0 to 1 over what two neighbours share, `first` to `last`, but for a halo at either end."""
    low, high = first + halo - origin, last - halo - origin
    return np.asarray(np.clip((place - low) / max(high - low, 1), 0, 1), np.float32)
