"""Frames enlarged by an engine, or made by it of raw frames, each once.

What a separation behind an upscale step sees.

Owns the last enlarged frames of a run. Knows no queue, sink or thread; what decides which windows
are worth it is in `stages/reconstruct.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import SRFrame, Stream, Window
from livesr.live.arrays import HOST, Array, Arrays
from livesr.live.inference.session import InferenceSession
from livesr.live.restore import RestoredSession

WINDOW = 3
_MAX_BYTES = 1 << 30


class Upscaler:
    """Enlarges the frames of a window, and remembers them for the windows that follow.

    Consecutive windows share two of their three frames, so each is enlarged once as long as it is
    remembered: the last three of every stream, or fewer where those of all streams would not fit
    into 1 GiB; then some are enlarged again.

    Parameters
    ----------
    session : of an engine that makes one frame of one frame, or of its raw frames; stays open
    shape : (y, x) of an enlarged frame
    streams : how many streams take turns
    """

    __slots__ = ("_buffers", "_known", "_session")

    def __init__(self, session: InferenceSession, shape: tuple[int, int], streams: int = 1) -> None:
        self._session = session
        self._buffers = np.empty((_remembered(shape, streams), *shape), np.float32)
        # Which buffer holds which frame, the one used longest ago first.
        self._known: OrderedDict[tuple[Stream, int], NDArray[np.float32]] = OrderedDict()

    def enlarge(self, window: Window) -> Window:
        """Return the window with its frames enlarged, in ADU of the reconstruction.

        Valid until the next call.
        """
        before, centre, after = (
            self._enlarged(frame) for frame in (window.before, window.centre, window.after)
        )
        return replace(window, before=before, centre=centre, after=after)

    def enlarge_centre(self, window: Window) -> Window:
        """Return the window with its centre enlarged, thrice.

        For a separation that looks at single frames.
        """
        centre = self._enlarged(window.centre)
        return replace(window, before=centre, centre=centre, after=centre)

    def _enlarged(self, frame: SRFrame) -> SRFrame:
        key = frame.stream, frame.t
        if key in self._known:
            self._known.move_to_end(key)
        else:
            full = len(self._known) == len(self._buffers)
            buffer = self._known.popitem(last=False)[1] if full else self._buffers[len(self._known)]
            self._infer(frame, buffer)
            self._known[key] = buffer
        return replace(frame, image=self._known[key], resident=None, group=None, beside=None)

    def _infer(self, frame: SRFrame, out: NDArray[np.float32]) -> None:
        """Write y^ s + b, ADU with the background.

        What a reconstruction of finer pixels would be.
        """
        b, s = frame.normalisation
        feed(self._session, frame)
        np.multiply(self._session.infer()[0], np.float32(s), out=out)
        out += np.float32(b)


def feed(session: InferenceSession, frame: SRFrame) -> None:
    """Write what a network sees of a single frame: its raw frames if it has some, else itself, and
    what is beside it.
    """
    planes = frame.image[None] if frame.group is None else frame.group
    seen = [(image, frame.normalisation) for image in planes]
    if other := frame.beside:
        seen.append((other.image, other.normalisation))
    if isinstance(session, RestoredSession):
        session.levels = frame.normalisation
    for plane, (image, normalisation) in zip(session.input, seen, strict=True):
        normalise_into(plane, image, *normalisation)


def memory_bytes(shape: tuple[int, int], streams: int) -> int:
    """Return what an `Upscaler` holds for enlarged frames of `shape` (y, x)."""
    return _remembered(shape, streams) * shape[0] * shape[1] * 4


def normalise_into(
    plane: Array, image: Array, background: float, scale: float, arrays: Arrays = HOST
) -> None:
    """Write x = (X - b) / s into one plane of a network's input."""
    arrays.subtract(image, background, out=plane)
    arrays.multiply(plane, 1 / scale, out=plane)


def _remembered(shape: tuple[int, int], streams: int) -> int:
    fit = _MAX_BYTES // (shape[0] * shape[1] * 4)
    return max(WINDOW, min(WINDOW * streams, fit))
