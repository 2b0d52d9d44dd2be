"""The last three reconstructed frames of one stream.

Owns references to the frames, no pixels. Touches no clock, queue, config or backend.
"""

from __future__ import annotations

from livesr.base.frames import SRFrame, Window


class FrameWindow:
    """Consecutive frames as the network expects them (Wang et al. 2021, IMC-SR, temporal
    continuity).

    The network predicts the middle frame, so output trails input by one frame. The first and the
    last frame of a series stand in for the neighbour that they lack. A missing time point, or
    another exposure, ends one stretch and begins the next: no window ever spans a gap, nor frames
    that do not compare.

    Parameters
    ----------
    size : 3, or 1 for an engine that looks at single frames

    Raises
    ------
    ValueError
        If `size` is neither 1 nor 3.
    """

    __slots__ = ("_after_gap", "_before", "_last", "_size")

    def __init__(self, size: int = 3) -> None:
        if size not in (1, 3):
            raise ValueError(f"a window of {size} frames was asked for; engines take 1 or 3")
        self._size = size
        self._before: SRFrame | None = None
        self._last: SRFrame | None = None
        self._after_gap = False

    def push(self, frame: SRFrame) -> list[Window]:
        """Add the next frame; return the windows that it completes (none, one, or two after a gap).

        Raises
        ------
        ValueError
            If time does not advance.
        """
        if self._size == 1:
            return [Window(frame, frame, frame)]
        last = self._last
        if last is None:
            self._last = frame
            return []
        if frame.t <= last.t:
            raise ValueError(
                f"time point {frame.t} came after {last.t}; the window needs them in order"
            )
        if frame.t > last.t + 1 or _exposed_differently(frame, last):
            done = self._end(at_gap=True)
            self._last, self._after_gap = frame, True
            return done
        window = self._window(last, frame)
        self._before, self._last, self._after_gap = last, frame, False
        return [window]

    def provisional(self) -> Window | None:
        """Return the newest frame with itself for a successor.

        None if there is no frame, or its window needs none.
        """
        last, before = self._last, self._before
        if last is None:
            return None
        gap = before is None and self._after_gap
        edge = before is None and not gap
        return Window(
            before or last, last, last, edge=edge, true_neighbours=not gap, provisional=True
        )

    def flush(self) -> list[Window]:
        """End the series.

        Return the window of its last frame. The next frame begins a new series.
        """
        done = self._end(at_gap=False)
        self._after_gap = False
        return done

    def _window(self, centre: SRFrame, after: SRFrame) -> Window:
        if self._before is not None:
            return Window(self._before, centre, after)
        return Window(
            centre, centre, after, edge=not self._after_gap, true_neighbours=not self._after_gap
        )

    def _end(self, *, at_gap: bool) -> list[Window]:
        last, before = self._last, self._before
        self._last = self._before = None
        if last is None:
            return []
        lone_after_gap = before is None and self._after_gap
        gap = at_gap or lone_after_gap
        return [Window(before or last, last, last, edge=not gap, true_neighbours=not gap)]


def _exposed_differently(frame: SRFrame, last: SRFrame) -> bool:
    known = frame.exposure_ms is not None and last.exposure_ms is not None
    return known and frame.exposure_ms != last.exposure_ms
