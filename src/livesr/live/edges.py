"""The edges of a reconstruction, evenly lit for a network.

A reconstruction in Fourier space fades at its edges. A network with channel attention looks at the
whole picture, and was trained on what lies inside one: of a small region the dark frame spoils what
it says everywhere. So it is shown the picture as bright at its edges as inside, and what it makes
of it fades as the measurement does.

Owns what is multiplied and mirrored. Knows no runtime and no window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from livesr.base.frames import SRFrame
from livesr.live.arrays import HOST, Array, Arrays
from livesr.live.reconstruct.reconstructor import Fade

DARKEST = 0.25
"""Darker rows and columns are not brightened: neighbours from outside the picture are missing in
them. The network sees their mirror image from inside."""


def fades(frame: SRFrame) -> bool:
    """Whether a frame of a reconstruction that fades is one, and not the widefield picture in its
    place.
    """
    return frame.quality is None or frame.quality.resolved


class EvenEdges:
    """Brightens the edges of a network's input, and darkens those of its output likewise.

    Keeps nothing between calls; any thread may use it.

    Parameters
    ----------
    fade : of the network's input
    scale : pixels of the output per pixel of the input, along each side
    arrays : what input and output are arrays of
    """

    def __init__(self, fade: Fade, scale: int = 1, arrays: Arrays = HOST) -> None:
        self._arrays = arrays
        self._input = _edges(fade, arrays)
        self._output = _edges((np.repeat(fade[0], scale), np.repeat(fade[1], scale)), arrays)

    def brighten(self, plane: Array, background: float) -> None:
        """Make x = (X - b) / s of a picture that fades as if it did not.

        Parameters
        ----------
        plane : float32 (y, x), changed in place
        background : what x fades to 0 from: b, and what was subtracted from X before, over s
        """
        arrays = self._arrays
        for view, edge in zip(_from_each_edge(plane), self._input, strict=True):
            lit = view[edge.rim : edge.rim + edge.factor.shape[0], :]
            arrays.multiply(lit, edge.factor, out=lit)
            arrays.add(lit, (edge.factor - 1) * background, out=lit)
        for view, edge in zip(_from_each_edge(plane), self._input, strict=True):
            if n := edge.mirrored:
                inside = view[edge.rim + n - 1 : edge.rim - 1 : -1, :]
                view[edge.rim - n : edge.rim, :] = inside

    def darken(self, output: Array) -> None:
        """Let channels (c, y, x) fade as the measurement does; in place."""
        for channel in range(output.shape[0]):
            views = _from_each_edge(output[channel, :, :])
            for view, edge in zip(views, self._output, strict=True):
                faded = view[: edge.brightness.shape[0], :]
                self._arrays.multiply(faded, edge.brightness, out=faded)


class _Edge(NamedTuple):
    """One edge of a picture, whose first rows are those nearest to it.

    Attributes
    ----------
    brightness : (n, 1), of the rows that fade
    factor : (m, 1), 1 / brightness of those of them that are bright enough
    rim : how many are too dark
    mirrored : how many of these have a mirror image
    """

    brightness: Array
    factor: Array
    rim: int
    mirrored: int


def _edges(fade: Fade, arrays: Arrays) -> list[_Edge]:
    """Return the edges in the order of `_from_each_edge`."""
    edges = []
    for side in fade:
        middle = len(side) // 2
        for half in (side[:middle], side[::-1][:middle]):
            faded = half[half < 1]
            rim = int(np.sum(faded < DARKEST))
            column = np.ascontiguousarray(faded[:, None], np.float32)
            edges.append(
                _Edge(
                    arrays.array(column),
                    arrays.array(1 / column[rim:]),
                    rim,
                    min(rim, middle - rim),
                )
            )
    return edges


def _from_each_edge(picture: Array) -> tuple[Array, Array, Array, Array]:
    """Return views of a picture whose first rows are its top, bottom, left and right edge."""
    turned = picture.T
    return picture, picture[::-1, :], turned, turned[::-1, :]
