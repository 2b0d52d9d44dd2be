"""Three measurements of one channel become a prediction.

Owns what the network of a channel needs through one run: its turns, enlarged frames, augmented
views and arithmetic. When a window is separated, and what becomes of it, is decided in
`livesr.live.stages.separate`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from livesr.base.error_bars import ErrorBars
from livesr.base.frames import ChannelScore, MulticolorFrame, Normalisation, SRFrame, Window
from livesr.base.quality import Quality
from livesr.live.arrays import HOST, Array
from livesr.live.compose import Arithmetic, Composer, Composition
from livesr.live.device import Slot, StreamLock
from livesr.live.edges import EvenEdges, fades
from livesr.live.inference.session import InferenceSession, Resident
from livesr.live.networks import Network
from livesr.live.paths import ChannelPath
from livesr.live.run_state import RunState
from livesr.live.upscale import WINDOW, feed, normalise_into


class Prediction(NamedTuple):
    """What is made of a window.

    `seen` is the window that the network saw, enlarged if the channel is.
    """

    window: Window
    seen: Window
    made: Composition


class _Lane:
    """A way through the network for frames on the host, and what composes behind it.

    `lock` is held by whoever uses it.
    """

    def __init__(self, session: InferenceSession, composer: Composer) -> None:
        self.session, self.arithmetic = session, composer.arithmetic(HOST)
        self.lock = threading.Lock()


class Separation:
    """Separates the windows of one channel through one run.

    `predict` is called from the threads of the slots: the network takes them in turn, or as many at
    once as it has lanes, and each slot has its own arithmetic. `composed` is called in one thread,
    in the order of the windows, `warn` in any.

    Parameters
    ----------
    path : of the channel
    network, composer : the one that makes what is stored, and what makes frames of its output
    streams : how many streams of the channel there are
    state : of the run
    """

    def __init__(
        self,
        path: ChannelPath,
        network: Network,
        composer: Composer,
        streams: int,
        state: RunState,
    ) -> None:
        self._path, self._session, self._composer, self._state = (
            path,
            network.session,
            composer,
            state,
        )
        self._upscaler = path.networks.upscaler(streams)
        self._augmentation = path.networks.augmentation()
        self._lanes = [_Lane(session, composer) for session in path.networks.lanes]
        self._turn = StreamLock()
        self._arithmetics: dict[int, Arithmetic] = {}  # of each slot of a device
        self._edges = path.even_edges(HOST)
        self._edges_on_device = path.even_edges(path.device.arrays) if path.resident else None

    def warn(self, sentence: str, word: Quality = Quality.CHECK) -> None:
        """Add a sentence to every prediction from now on; `word` is what follows from it."""
        self._composer.warn(sentence, word)

    def recalibrate(
        self,
        wider: Callable[[ErrorBars | None], ErrorBars | None],
        score: Sequence[ChannelScore],
    ) -> None:
        """Let every prediction from now on know what an audit has found.

        Its error bars widen; those beside the rig stay. A channel that is not like its true one is
        not to be used (`livesr.live.quality`).
        """
        self._composer.error_bars = wider(self._path.description.error_bars)
        self._composer.audited = {one.label: one.pcc for one in score if not math.isnan(one.pcc)}

    def predict(self, slot: int, window: Window) -> Prediction:
        """Separate a window, on the device that its frames are on if the network can."""
        resident = self._path.resident
        if resident and all(frame.resident is not None for frame in self._seen(window)):
            try:
                return Prediction(window, window, self._on_device(slot, resident, window))
            except Exception as e:  # a driver may raise anything
                with self._lanes[0].lock, self._turn.alone():
                    self._session.give_up(resident, e)
        lane = self._lanes[slot % len(self._lanes)]
        with lane.lock:
            seen = self._enlarged(window)
            # Windows before it may be on the device still. Lanes share nothing with one.
            with nullcontext() if len(self._lanes) > 1 else self._turn.on_host():
                return Prediction(window, seen, self._on_host(lane, seen))

    def composed(self, prediction: Prediction) -> MulticolorFrame:
        """Add to a prediction what follows from the frames before it."""
        for sentence in self._path.networks.replacements:
            self._state.warn(sentence)
            self.warn(sentence, Quality.GOOD)
        return self._composer.frame(prediction.made, prediction.seen, prediction.window.centre)

    def _on_host(self, lane: _Lane, seen: Window) -> Composition:
        centre, session = seen.centre, lane.session
        augmentation = None if seen.provisional else self._augmentation
        with self._state.steps.measure("infer"):
            if centre.group is not None or centre.beside is not None:
                feed(session, centre)
            else:
                for plane, frame in zip(session.input, self._seen(seen), strict=True):
                    normalise_into(plane, frame.image, *centre.normalisation)
                    self._brighten(self._edges, plane, frame, centre.normalisation)
            output = augmentation.infer(session) if augmentation else session.infer()
        with self._state.steps.measure("compose"):
            spread = augmentation.spread if augmentation else None
            if self._edges and fades(centre):
                output = np.require(output, requirements="W")
                for made in (output,) if spread is None else (output, spread):
                    self._edges.darken(made)
            features = augmentation.features if augmentation else session.features
            return lane.arithmetic.compose(
                output, centre.image, centre.normalisation, spread, features
            )

    def _on_device(self, slot: int, resident: Resident, window: Window) -> Composition:
        """Separate frames that are on the device; only what is shown and stored comes down."""
        device, centre = self._path.device, window.centre
        arrays = device.arrays
        with device.network_slots[slot] as place:
            with self._state.steps.measure("infer"), self._turn.of(place):
                block = arrays.xp.asarray(resident.device_input)
                for i, frame in enumerate(self._seen(window)):
                    plane = block[i, :, :]
                    normalise_into(plane, frame.resident, *centre.normalisation, arrays)
                    self._brighten(self._edges_on_device, plane, frame, centre.normalisation)
                # A copy: the network's memory is the next slot's as soon as this turn is over.
                output = arrays.xp.asarray(resident.enqueue(place.stream)) + 0
                features = getattr(resident, "device_features", None)
                if features is not None:
                    features = arrays.xp.asarray(features) + 0
            with self._state.steps.measure("compose"):
                if self._edges_on_device and fades(centre):
                    self._edges_on_device.darken(output)
                made = self._arithmetic(slot).compose(
                    output, centre.resident, centre.normalisation, features=features
                )
                return _downloaded(made, place)

    def _brighten(
        self, edges: EvenEdges | None, plane: Array, frame: SRFrame, normalisation: Normalisation
    ) -> None:
        """Make a plane of the input as bright at its edges as inside, where its frame fades."""
        if edges and fades(frame):
            background, scale = normalisation
            edges.brighten(plane, (background + self._path.subtracted(frame)) / scale)

    def _arithmetic(self, slot: int) -> Arithmetic:
        """Return what composes in a slot of the device."""
        if slot not in self._arithmetics:
            self._arithmetics[slot] = self._composer.arithmetic(self._path.device.arrays)
        return self._arithmetics[slot]

    def _enlarged(self, window: Window) -> Window:
        """Return what the network sees.

        Enlarged here, not before the window, so that a skipped centre costs nothing.
        """
        if (upscaler := self._upscaler) is None:
            return window
        with self._state.steps.measure("upscale"):
            return (
                upscaler.enlarge(window)
                if self._path.networks.window == WINDOW
                else upscaler.enlarge_centre(window)
            )

    def _seen(self, window: Window) -> tuple[SRFrame, ...]:
        """Return the frames that the network sees.

        The centre's normalisation is used for all, so that none stands out.
        """
        if self._path.networks.window == 1:
            return (window.centre,)
        return window.before, window.centre, window.after


def _downloaded(made: Composition, slot: Slot) -> Composition:
    plane = None if made.plane is None else slot.download(made.plane)
    return made._replace(channels=slot.download(made.channels), plane=plane)
