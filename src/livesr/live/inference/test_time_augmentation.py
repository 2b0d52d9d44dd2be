"""Test-time augmentation: the same frames in several views.

How far a network's predictions differ when its input is turned over, and what they have in common.

Owns the views and the arithmetic. A network that was sure would draw the same of every view;
where it guesses, it guesses differently (test-time augmentation, Wang et al. 2019, Neurocomputing
338, 34), and the mean of its guesses is better than one (geometric self-ensemble, Lim et al. 2017,
EDSR+). What the spread is worth is measured per engine by `livesr limits`. Knows no runtime and no
stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import Augmentation
from livesr.base.errors import StoreError
from livesr.live.inference.session import AroundSession, InferenceSession

_HALF_TURN = ((1, 1), (-1, -1))
_FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
_VIEWS: Mapping[Augmentation, Sequence[tuple[bool, tuple[int, int]]]] = {
    "half-turn": [(False, step) for step in _HALF_TURN],
    "flips": [(False, step) for step in _FLIPS],
    "d4": [(turn, step) for turn in (False, True) for step in _FLIPS],
}
"""Whether y and x change places, and in which direction each is read; the upright one first."""


def stored_name(augmentation: Augmentation) -> str:
    """Return what stores and the wire call a mode; "d4" was "turns" when they were laid out."""
    return "turns" if augmentation == "d4" else augmentation


def count_of(augmentation: Augmentation | None) -> int:
    """Return how often a network sees a frame."""
    return len(_VIEWS[augmentation]) if augmentation else 1


def mean_of(augmentation: Augmentation) -> str:
    """Return in words what an ensemble predicts."""
    return f"mean of {count_of(augmentation)} views"


def most_within(ms: float, alone_ms: float, *, square: bool) -> Augmentation | None:
    """Return the most views that a network sees within `ms`, if a frame alone takes it `alone_ms`.

    A quarter of the time is left to chance. None if not even two fit; d4 needs a square frame.
    """
    fit = [a for a in _VIEWS if (square or a != "d4") and count_of(a) * alone_ms <= 0.75 * ms]
    return max(fit, key=count_of, default=None)


def from_store(name: object) -> Augmentation:
    """Return the mode that a store names.

    Raises
    ------
    StoreError
        If there is none of that name.
    """
    known = "d4" if name == "turns" else name
    if known not in list(_VIEWS):
        raise StoreError(
            f"The store says that its frames were seen in views {name!r}; expected"
            f" {', '.join(_VIEWS)}. A later livesr made it, or it is damaged."
        )
    return known


class TestTimeAugmentation:
    """Runs a session on every view of a frame; all its memory is allocated once.

    Parameters
    ----------
    augmentation : "half-turn", the frame and it turned by 180 degrees; "flips", these and the
        mirror images along y and x; or "d4", these and their transposes: the eight symmetries of
        the square (the dihedral group D4)
    window : frames of the network's input
    shape : (y, x) of its input; d4 needs a square
    output_shape : (c, y, x)
    averaged : whether the mean of the views is what is predicted, or the upright one
    compared : whether it is told how far they differ

    Attributes
    ----------
    spread : float32 (c, y, x), standard deviation over the views of what `infer` last predicted;
        its own memory. None if they are not compared
    features : `InferenceSession.features` of the upright frame

    Raises
    ------
    ValueError
        If frames are to be turned that are no squares.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        window: int,
        shape: tuple[int, int],
        output_shape: tuple[int, int, int],
        *,
        averaged: bool = False,
        compared: bool = True,
    ) -> None:
        if augmentation == "d4" and shape[0] != shape[1]:
            raise ValueError(f"frames of {shape[0]} x {shape[1]} cannot be turned, only flipped")
        self._views = _VIEWS[augmentation][1:]
        self._averaged, self._count = averaged, np.float32(count_of(augmentation))
        self.features: NDArray[np.float32] | None = None
        self._frames = np.empty((window, *shape), np.float32)
        self._upright, self._mean = (np.empty(output_shape, np.float32) for _ in range(2))
        self.spread = np.empty(output_shape, np.float32) if compared else None

    def infer(self, session: InferenceSession) -> NDArray[np.float32]:
        """Return what the session predicts of its `input`: the mean of the views, or what it
        predicts without them.

        Valid until the next call.
        """
        self._frames[...] = session.input
        self._upright[...] = session.infer()
        features = session.features
        self.features = None if features is None else features.copy()
        if self.spread is not None:
            self.spread.fill(0)
        self._mean.fill(0)
        for turn, step in self._views:
            session.input[...] = _seen(self._frames, turn, step)
            # Differences from the upright prediction: their squares do not lose the digits that the
            # prediction takes.
            difference = _back(session.infer(), turn, step) - self._upright
            self._mean += difference
            if self.spread is not None:
                difference *= difference
                self.spread += difference
        self._mean /= self._count
        if self._averaged:
            self._upright += self._mean
        if self.spread is not None:
            self._mean *= self._mean
            self._mean *= self._count
            self.spread -= self._mean
            np.maximum(self.spread, 0, out=self.spread)
            self.spread /= self._count - 1
            np.sqrt(self.spread, out=self.spread)
        return self._upright


class EnsembleSession(AroundSession):
    """A session that predicts the mean of several views of its input; closes the one within.

    Parameters
    ----------
    inner : open for frames of `shape`
    augmentation, window, shape, output_shape : as of `TestTimeAugmentation`

    Attributes
    ----------
    augmentation : which views there are
    """

    def __init__(
        self,
        inner: InferenceSession,
        augmentation: Augmentation,
        window: int,
        shape: tuple[int, int],
        output_shape: tuple[int, int, int],
    ) -> None:
        super().__init__(inner)
        self.augmentation = augmentation
        self._views = TestTimeAugmentation(
            augmentation, window, shape, output_shape, averaged=True, compared=False
        )

    @property
    def input(self) -> NDArray[np.float32]:
        """That of the session within."""
        return self._inner.input

    def infer(self) -> NDArray[np.float32]:
        """Return the mean of what the session within predicts of the views."""
        predicted = self._views.infer(self._inner)
        self.like(self._inner)  # another runtime may have taken over
        return predicted

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Those of the upright frame."""
        return self._views.features

    def described(self) -> str:
        """Return in one line what computes, and from how many views."""
        return f"{self._inner.described()}, {mean_of(self.augmentation)}"


def memory_bytes(window: int, shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """Return what `TestTimeAugmentation` holds, and one prediction's size more while they work."""
    return 4 * (
        window * shape[0] * shape[1] + 4 * output_shape[0] * output_shape[1] * output_shape[2]
    )


def _seen(planes: NDArray[Any], turn: bool, step: tuple[int, int]) -> NDArray[Any]:
    """Return a view of planes (n, y, x) from a side."""
    turned = planes.swapaxes(1, 2) if turn else planes
    return turned[:, :: step[0], :: step[1]]


def _back(planes: NDArray[Any], turn: bool, step: tuple[int, int]) -> NDArray[Any]:
    """Return planes that were made from a side as they lie upright."""
    flipped = planes[:, :: step[0], :: step[1]]
    return flipped.swapaxes(1, 2) if turn else flipped
