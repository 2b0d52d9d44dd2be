"""Frames that are exposed when they are asked for: which, how many, by whom, and after a fault."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.base.config import load_rig
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.simulation.blinking_rig import BlinkingBank
from livesr.simulation.film import Film

N, SIZE = 5, 48
THREADS = 4


def sim() -> RawBank:
    rig = load_rig("virtual_sim")
    return RawBank(rig, SIZE, N, seed=3, photons=300.0, bleaching=0.01, interval_s=0.5)


def blinking() -> BlinkingBank:
    return BlinkingBank(load_rig("virtual_storm"), SIZE, N, fluorophores=200, lit=4)


@pytest.fixture(params=[sim, blinking])
def new(request):
    return request.param


def one(bank, i):
    return bank.group(i) if isinstance(bank, RawBank) else bank.frame(i)


@pytest.fixture
def exposed(monkeypatch):
    """How often a frame of a film was exposed, of all films."""
    count = []
    go_on = Film._continue_to

    def counted(self, n):
        before = self.exposed
        go_on(self, n)
        count.append(self.exposed - before)

    monkeypatch.setattr(Film, "_continue_to", counted)
    return count


def test_the_first_frame_needs_one_time_point_only(new, exposed):
    bank = new()
    one(bank, 0)
    assert sum(exposed) == 1
    one(bank, 2)
    assert sum(exposed) == 3
    assert len(bank.frames) == N
    assert sum(exposed) == N


def test_the_order_of_asking_decides_no_pixel(new):
    in_order = new()
    expected = np.array([one(in_order, i) for i in range(N)])
    assert len({frame.tobytes() for frame in expected}) == N
    np.testing.assert_array_equal(new().frames, expected)
    backwards = new()
    for i in (3, 1, 4, 0, 2):
        np.testing.assert_array_equal(one(backwards, i), expected[i])


def test_a_truth_in_between_decides_no_pixel(new):
    expected, bank = new().frames, new()
    for i, other in enumerate((4, 0, 3, 1, 2)):
        bank.truth(other)
        np.testing.assert_array_equal(one(bank, i), expected[i])


def test_frames_do_not_decide_the_truth():
    alone, bank = sim(), sim()
    for t in (2, 0, 4):
        _ = bank.group(t)
        told, expected = bank.truth(t), alone.truth(t)
        for name, image in expected.items():
            np.testing.assert_array_equal(told[name], image)


def test_threads_that_ask_at_once_see_the_same(new):
    expected, bank, together = new().frames, new(), Barrier(THREADS)

    def ask(seed: int) -> list[tuple[int, NDArray[np.uint16]]]:
        order = np.random.default_rng(seed).permutation(N)
        together.wait()
        return [(i, one(bank, i).copy()) for i in order if bank.truth(i) is not None]

    with ThreadPoolExecutor(THREADS) as threads:
        for seen in threads.map(ask, range(THREADS)):
            for i, frame in seen:
                np.testing.assert_array_equal(frame, expected[i])


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_after_a_fault_the_next_to_ask_gets_the_frame(fault):
    faults = [fault("in frame 2")]

    def expose(frames: NDArray[np.uint16]) -> Iterator[None]:
        rng = np.random.default_rng(1)
        for i, frame in enumerate(frames):
            frame[:] = rng.integers(1000, size=frame.shape)
            if i == 2 and faults:
                raise faults.pop()
            yield

    film = Film((N, 4, 4), expose)
    with pytest.raises(fault, match="in frame 2"):
        film.frame(3)
    expected = np.random.default_rng(1).integers(1000, size=(N, 4, 4))
    np.testing.assert_array_equal(film.first(N), expected)
    with pytest.raises(IndexError):
        film.frame(N)
