"""Listeners and sinks of others see the pixels of the run, and cannot change what it stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from livesr import LiveSR, MulticolorFrame, RawStack, Sink, SRFrame, sim_sequence
from rigs import SIZE, virtual_sim


class Overwriting(Sink):
    """Subtracts a background in place, as a script may."""

    name = "overwriting"
    lossless = True

    def __init__(self) -> None:
        self.refused = 0

    def raw(self, stack: RawStack) -> None:
        for frame in stack.frames:
            self._clear(frame)

    def recon(self, frame: SRFrame) -> None:
        self._clear(frame.image)

    def separated(self, frame: MulticolorFrame) -> None:
        self._clear(frame.channels)
        self._clear(frame.source.image)

    def _clear(self, pixels: Any) -> None:
        try:
            pixels[:] = 0
        except ValueError:
            self.refused += 1


def test_who_writes_into_a_frame_changes_no_run(tmp_path: Path) -> None:
    given: list[np.ndarray] = []
    measured: list[np.ndarray] = []
    predicted: list[np.ndarray] = []

    def clear_measurement(frame: SRFrame) -> None:
        measured.append(frame.image.copy())
        frame.image[:] = 0

    def clear_prediction(frame: MulticolorFrame) -> None:
        predicted.append(frame.channels.copy())
        frame[frame.labels[0]][:] = 0

    sink, plan = Overwriting(), sim_sequence(3, ["488"])
    store = tmp_path / "r.ome.zarr"
    with virtual_sim() as core:
        core.mda.events.frameReady.connect(lambda image, *_: given.append(image.copy()))
        settings: dict[str, Any] = {"plan": plan, "store": store, "sinks": [sink]}
        with LiveSR(
            core, rig="virtual_sim", engine="identity", policy="complete", **settings
        ) as session:
            session.input_ready.connect(clear_measurement)
            session.frame_ready.connect(clear_prediction)
            assert session.camera_pixels is None
            core.mda.run(plan)
        core.mda.events.frameReady.disconnect()
    images = zarr.open_group(store, mode="r")
    assert np.array_equal(images["raw/0"][:].reshape(-1, SIZE, SIZE), given)
    assert np.array_equal(images["sr/0"][:], predicted)
    assert np.allclose(images["recon/0"][:].std((1, 2)), [m.std() for m in measured], rtol=0.01)
    assert session.report["listener_errors"] == len(measured) + len(predicted) == 6
    assert sink.refused == 3 * (9 + 1 + 2)


@pytest.mark.parametrize("before", [True, False])
def test_what_listeners_of_the_core_write_in_place_is_not_recorded(
    tmp_path: Path, before: bool
) -> None:
    """As a script that subtracts the background of what it shows, connected before or behind."""
    given: list[np.ndarray] = []
    refused: list[ValueError] = []

    def show(image: np.ndarray, *_: Any) -> None:
        given.append(image.copy())
        try:
            image -= image.min()
        except ValueError as e:
            refused.append(e)

    plan, store = sim_sequence(2, ["488"]), tmp_path / "r.ome.zarr"
    with virtual_sim() as core:
        frames = core.mda.events.frameReady
        if before:
            frames.connect(show)
        with LiveSR(core, rig="virtual_sim", engine="none", plan=plan, store=store):
            if not before:
                frames.connect(show)
            core.mda.run(plan)
        frames.disconnect(show)
    raw = zarr.open_group(store, mode="r")["raw/0"][:]
    assert np.array_equal(raw.reshape(-1, SIZE, SIZE), given)
    assert len(refused) == len(given) == 2 * 9


@pytest.mark.parametrize("signal", ["frameReady", "sequenceFinished"])
def test_a_listener_of_the_core_that_raises_costs_no_frame(signal: str) -> None:
    """psygnal calls nobody behind it: the camera had passed for one that delivers nothing."""

    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake in somebody's script")

    plan = sim_sequence(2, ["488"])
    with virtual_sim() as core:
        getattr(core.mda.events, signal).connect(fail)
        with LiveSR(core, rig="virtual_sim", engine="none", plan=plan) as session:
            core.mda.run(plan)
        getattr(core.mda.events, signal).disconnect(fail)
    assert session.report["raw_frames"] == 2 * 9
    assert not session.report.get("error")
    assert not any("broken off" in warning for warning in session.report["warnings"])
