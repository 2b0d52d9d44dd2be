"""Thread "livesr-separate": windows become predictions.

Owns the order in which predictions are handed over, and what happens to a network that fails or
does not answer. What is done to the pixels is in `livesr.live.separation`.
"""

from __future__ import annotations

import threading
import time

from livesr.base.frames import MulticolorFrame, Window
from livesr.live.channel_scores import scored
from livesr.live.ordered_workers import OrderedWorkers
from livesr.live.run import Run
from livesr.live.separation import Prediction


class Separate:
    """Takes windows from their queue, gives predictions to the sinks.

    The windows are separated in slots, `_predict`, and land here in their order; with one slot that
    is the same thread. `leave_network` is for whoever waits for the end of the run: its flag and
    the landing of a prediction exclude each other by a lock.

    Parameters
    ----------
    run : what the stages share

    Attributes
    ----------
    network_left : whether the network was left behind, still in a call that does not return
    """

    def __init__(self, run: Run) -> None:
        self._run, self._state = run, run.state
        self._separations = {
            name: channel.separation for name, channel in run.channels.items() if channel.separation
        }
        paths = [channel.path for channel in run.channels.values()]
        slots = max(len(path.on_device) for path in paths)
        if not any(path.resident for path in paths):
            slots = max(slots, *(len(path.networks.lanes) for path in paths))
        self._workers = OrderedWorkers(self._predict, max(slots, 1), "separate", self._wanted)
        self._landing, self.network_left = threading.Lock(), False

    def work(self) -> None:
        """Separate windows until there are no more, or the network was left behind."""
        for window, result in self._workers.over(self._run.queues.windows):
            prediction: Prediction | None = None
            error: BaseException | None = None
            try:
                prediction = result()
            except BaseException as e:  # measurement and recording go on whatever it raises
                error = e
            with self._landing:
                if self.network_left:
                    return
                if window.provisional:
                    self._show_provisional(prediction, error)
                else:
                    self._land(window, prediction, error)

    def leave_network(self) -> None:
        """End the run without a network that does not answer.

        What it may still give comes too late.
        """
        with self._landing:
            self.network_left = True
        if not self._state.ended("separate"):
            self._state.end_step("separate", "the network did not answer")
        waiting = []
        while (window := self._run.queues.windows.get()) is not None:
            waiting.append(window)
        left = [w for w in (*self._workers.under_way(), *waiting) if not w.provisional]
        for window in sorted(left, key=lambda window: window.centre.t):
            self._no_prediction(window)
        self._state.warn(
            f"The network did not answer: {len(left)} predictions are missing at the end. 'livesr"
            " backfill' computes them."
        )

    def _wanted(self, window: Window) -> bool:
        """Whether a window is to be separated: no provisional one that keeps others waiting."""
        return not window.provisional or self._run.provisional.fit()

    def _predict(self, slot: int, window: Window) -> Prediction | None:
        """Separate a window in a slot; None if nothing is to be separated any more."""
        if self._state.ended("separate"):
            return None
        with self._run.watchdog.call():
            start_s = time.perf_counter()
            prediction = self._separations[window.centre.stream.channel].predict(slot, window)
            self._run.provisional.separated(time.perf_counter() - start_s)
        return prediction

    def _land(
        self, window: Window, prediction: Prediction | None, error: BaseException | None
    ) -> None:
        """Hand on what the network made of a window, or say that it has nothing."""
        try:
            if error:
                raise error
            if prediction:
                self._hand_over(prediction)
                return
        except BaseException as e:  # likewise of a composer
            self._state.step_failed("separate", e)
        self._no_prediction(window)

    def _no_prediction(self, window: Window) -> None:
        self._state.count("sr_failed")
        self._run.skip(window.centre.stream, window.centre.t, self._state.ended("separate"))

    def _hand_over(self, prediction: Prediction) -> None:
        """Hand over a prediction; in the order of the windows."""
        window, frame = prediction.window, self._composed(prediction)
        if window.centre.parts:
            with self._state.steps.measure("score"):
                description = self._run.description.channel(window.centre.stream.channel)
                frame = scored(frame, description.labels)
                self._state.scored(frame)
        frame = self._audited(frame)
        with self._state.steps.measure("hand_over"):
            self._state.separated(frame, window)
            self._run.sinks.separated(frame)
            self._run.errors.predicted(frame)

    def _audited(self, frame: MulticolorFrame) -> MulticolorFrame:
        """Return a prediction with its score, if its true channels were taken."""
        before = frame
        with self._state.survived("An audit"):
            frame = self._run.audits.predicted(frame)
            if frame is not before and (separation := self._separations[frame.stream.channel]):
                separation.recalibrate(self._run.audits.bars, frame.score)
        return frame

    def _show_provisional(self, prediction: Prediction | None, error: BaseException | None) -> None:
        """Show a frame that its successor may still change."""
        if error:  # what is only a courtesy must not end the predictions that count
            self._run.provisional.end()
            self._state.warn(
                f"A provisional frame failed ({type(error).__name__}: {error}); only final frames"
                " are shown from here on."
            )
        if prediction is None:
            return
        frame = self._composed(prediction)
        self._state.shown(frame)
        self._run.sinks.separated(frame)

    def _composed(self, prediction: Prediction) -> MulticolorFrame:
        return self._separations[prediction.window.centre.stream.channel].composed(prediction)
