"""FramePairs: a prediction with the measurement it was made from, of a running stream or of a
store.

Owns what the viewers ask for (`Selection`), what they get (`FramePair`) and the choice of it in a
stream; `store_source.py` has the same for a store. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from livesr.formats.wire import Message
from livesr.viewer.subscriber import StreamName, Subscriber


class Selection(NamedTuple):
    """Which stream to show.

    None follows the newest in a running stream, and is the first in a store.

    `channel` None is the first acquisition channel that is separated: to follow the newest of
    several would make the picture flicker between them.
    """

    channel: str | None = None
    position: int | None = None
    z: int | None = None


@dataclass(frozen=True, slots=True)
class FramePair:
    """One moment to show; at least one of both is there.

    `index` is its place in a store, None in a running stream. `uncertainty` is that of the
    prediction, where it was estimated. `separated` says of a measurement that is asked for by
    itself that there are predictions of its stream. `error` is the comparison with widefield: of a
    running stream the newest, which may be of an earlier moment. `widefield` is the mean of the
    exposures, where it was asked for. `depth` is how high lies what the measurement draws, nm.
    """

    prediction: Message | None
    measurement: Message | None
    index: int | None = None
    uncertainty: Message | None = None
    separated: bool = False
    error: Message | None = None
    widefield: Message | None = None
    depth: Message | None = None

    @property
    def shown(self) -> Message:
        """The message that the numbers beside the pictures are about."""
        message = self.prediction or self.measurement
        assert message is not None
        return message

    @property
    def messages(self) -> tuple[Message, ...]:
        """Prediction and measurement, as far as they are there."""
        return tuple(m for m in (self.prediction, self.measurement) if m is not None)

    @property
    def matches(self) -> bool:
        """Whether prediction and measurement are of the same moment."""
        return bool(
            self.prediction
            and self.measurement
            and self.prediction.header.t == self.measurement.header.t
        )


class FramePairSource(Protocol):
    """Where a viewer gets its pairs from."""

    @property
    def endpoint(self) -> str:
        """The address it listens to, or the path of a store."""

    @property
    def version(self) -> int:
        """Grows when there may be a newer pair."""

    @property
    def length(self) -> int | None:
        """FramePairs of a store; None for a running stream."""

    @property
    def state(self) -> str:
        """One of waiting, starting, live, silent, ended, recorded."""

    @property
    def status(self) -> Mapping[str, Any]:
        """What the run last said of itself."""

    @property
    def problem(self) -> str:
        """A sentence about what came and could not be understood, if that is all that came."""

    def streams(self) -> tuple[StreamName, ...]:
        """Return what can be selected."""

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` called, in any thread, when there may be a newer pair; return what ends that.

        A source that changes by itself may leave it to whoever looks at `version` now and then.
        """

    def pair(
        self,
        selection: Selection,
        index: int = 0,
        *,
        measured: bool = False,
        widefield: bool = False,
    ) -> FramePair | None:
        """Return the newest pair of a running stream, the one at `index` of a store.

        None if there is none.

        With `measured` only the measurement matters: a running stream then gives the newest one,
        which no prediction is made from yet. With `widefield` it comes with the mean of its
        exposures, as soon as there is one.
        """


class LiveFramePairs:
    """The pairs of a running stream: always the newest."""

    length = None

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    @property
    def endpoint(self) -> str:
        """The address it listens to."""
        return self._subscriber.endpoint

    @property
    def version(self) -> int:
        """Messages received."""
        return self._subscriber.received

    @property
    def state(self) -> str:
        """What is to be said of the stream."""
        subscriber = self._subscriber
        if not subscriber.heard:
            return "waiting"
        if subscriber.newest("end") is not None:
            return "ended"
        if subscriber.ended:
            return "silent"
        return "live" if subscriber.streams() else "starting"

    @property
    def status(self) -> Mapping[str, Any]:
        """What the run last said of itself."""
        return self._subscriber.status

    @property
    def problem(self) -> str:
        """Why messages are refused, as long as no other came."""
        if self._subscriber.heard or not self._subscriber.last_rejection:
            return ""
        return f"Messages come that are no livesr stream: {self._subscriber.last_rejection}."

    def streams(self) -> tuple[StreamName, ...]:
        """Return every stream that was heard."""
        return self._subscriber.streams()

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` called, in the subscriber's thread, with every message."""
        return self._subscriber.listen(call)

    def pair(
        self,
        selection: Selection,
        index: int = 0,
        *,
        measured: bool = False,
        widefield: bool = False,
    ) -> FramePair | None:
        """Return the newest pair; `index` means nothing here."""
        pair = self._newest(selection, measured=measured)
        if pair is None or not widefield:
            return pair
        return replace(pair, widefield=self._subscriber.widefield_of(pair.shown))

    def _newest(self, selection: Selection, *, measured: bool) -> FramePair | None:
        channel = selection.channel if selection.channel is not None else self._first_separated()
        _, position, z = selection
        measurement = self._subscriber.newest("sr/input", channel=channel, position=position, z=z)
        prediction = self._subscriber.newest("sr/frame", channel=channel, position=position, z=z)
        if prediction is not None and not (measured and measurement is not None):
            subscriber = self._subscriber
            measured_of_it = subscriber.measurement_of(prediction)
            return FramePair(
                prediction,
                measured_of_it,
                uncertainty=subscriber.uncertainty_of(prediction),
                error=self._error_of(prediction),
                depth=subscriber.depth_of(measured_of_it) if measured_of_it else None,
            )
        if measurement is None:
            return None
        return FramePair(
            None,
            measurement,
            separated=prediction is not None,
            error=self._error_of(measurement),
            depth=self._subscriber.depth_of(measurement),
        )

    def _error_of(self, message: Message) -> Message | None:
        _, channel, position, z = message.key
        return self._subscriber.newest("sr/error", channel=channel, position=position, z=z)

    def _first_separated(self) -> str | None:
        """Return the first channel that has a prediction; None while there is none."""
        names = dict.fromkeys(stream.channel for stream in self._subscriber.streams())
        return next(
            (n for n in names if self._subscriber.newest("sr/frame", channel=n) is not None), None
        )


def intensity(message: Message) -> NDArray[np.float32]:
    """Pixels in ADU, offset taken off, float32 of the message's shape; newly allocated."""
    assert message.pixels is not None
    values = message.pixels.astype(np.float32)
    values -= np.float32(message.header.offset_adu)
    return values


def uncertainty_plane(pair: FramePair) -> NDArray[np.float32] | None:
    """Return the standard deviation of all channels together in ADU, float32 (y, x).

    None without an estimate.

    Root of the sum of the channels' variances: what one channel gains by mistake another loses, and
    both are uncertain.
    """
    if pair.uncertainty is None:
        return None
    planes = intensity(pair.uncertainty)
    planes *= planes
    total: NDArray[np.float32] = np.sqrt(planes.sum(0))
    return total


def error_plane(pair: FramePair) -> tuple[NDArray[np.float32], float] | None:
    """Return the error map of what is shown, float32 (y, x), and the span of the widefield picture.

    That of the prediction, of a measurement by itself its own; both in ADU of the exposures. None
    where nothing was compared.
    """
    if pair.error is None or pair.error.pixels is None:
        return None
    header = pair.error.header
    labels = [channel.label for channel in header.channels]
    label = "prediction" if pair.prediction and "prediction" in labels else "reconstruction"
    span = header.compared.get(label, {}).get("span")
    if label not in labels or not span:
        return None
    plane: NDArray[np.float32] = pair.error.pixels[labels.index(label)].astype(np.float32)
    return plane, float(span)


def residual_plane(pair: FramePair) -> NDArray[np.float32] | None:
    """Return sum of channels - x in ADU on the measurement's pixels, float32 (y, x).

    What the residual sums up, as a plane.

    Positive where the prediction shows light that was not measured, negative where measured light
    is in no channel. x is the measurement less the background that belongs to no channel, at least
    0: the dark rim of a reconstruction is no light that the network invented. Where the network
    enlarges, its pixels are averaged.

    Returns
    -------
    None
        Without both pictures of the same moment, or where their sizes are no multiple of each
        other.
    """
    if not pair.matches or pair.prediction is None or pair.measurement is None:
        return None
    summed, x = intensity(pair.prediction).sum(0), intensity(pair.measurement)
    factor = summed.shape[0] // x.shape[0]
    if factor < 1 or (x.shape[0] * factor, x.shape[1] * factor) != summed.shape:
        return None
    if factor > 1:
        summed = summed.reshape(x.shape[0], factor, x.shape[1], factor).mean((1, 3))
    x -= np.float32((pair.prediction.header.normalisation or {}).get("background") or 0.0)
    residual: NDArray[np.float32] = summed - np.maximum(x, 0)
    return residual
