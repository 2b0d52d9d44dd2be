"""The spread of a network's predictions over flips and turns of its input, against what it is by
definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.base.compute import Augmentation
from livesr.base.errors import StoreError
from livesr.live.inference import test_time_augmentation as tta

SHAPE = (6, 6)


class Slanted:
    """A network that sees what lies to the right: another thing from every side."""

    features = None
    name, version, precision, device, compiled, skipped, tile = "", "", "", "", None, (), None
    replacements, shares_memory = (), False

    def described(self) -> str:
        return "slanted"

    def __init__(self, shape: tuple[int, int] = SHAPE, slant: float = 1.0) -> None:
        self.input = np.zeros((3, *shape), np.float32)
        self.calls, self._slant = 0, np.float32(slant)
        self._output = np.zeros((2, *shape), np.float32)

    def infer(self) -> NDArray[np.float32]:
        self.calls += 1
        centre = self.input[1]
        self._output[0] = centre + self._slant * np.roll(centre, -1, axis=1)
        self._output[1] = 2 * centre
        return self._output


def frames(shape: tuple[int, int] = SHAPE) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(5, 1, (3, *shape)).astype(np.float32)


@pytest.mark.parametrize(("sides", "count"), [("half-turn", 2), ("flips", 4), ("d4", 8)])
def test_the_spread_is_the_standard_deviation_over_the_sides(
    sides: Augmentation, count: int
) -> None:
    network, seen = Slanted(), frames()
    views = tta.TestTimeAugmentation(sides, 3, SHAPE, (2, *SHAPE))
    network.input[...] = seen
    upright = views.infer(network).copy()
    centre = seen[1]
    neighbours = [np.roll(centre, -1, 1), np.roll(centre, 1, 1)] * (1 + (sides != "half-turn"))
    if sides == "d4":
        neighbours += [np.roll(centre, -1, 0), np.roll(centre, 1, 0)] * 2
    expected = np.std([centre + n for n in neighbours], axis=0, ddof=1)
    np.testing.assert_allclose(upright[0], centre + neighbours[0], rtol=1e-6)
    np.testing.assert_allclose(views.spread[0], expected, rtol=1e-4, atol=1e-5)
    assert network.calls == count


@pytest.mark.parametrize(("sides", "count"), [("half-turn", 2), ("flips", 4), ("d4", 8)])
def test_an_ensemble_is_the_mean_over_the_sides(sides: Augmentation, count: int) -> None:
    network, seen = Slanted(), frames()
    session = tta.EnsembleSession(network, sides, 3, SHAPE, (2, *SHAPE))  # type: ignore[arg-type]
    session.input[...] = seen
    centre = seen[1]
    neighbours = [np.roll(centre, -1, 1), np.roll(centre, 1, 1)] * (1 + (sides != "half-turn"))
    if sides == "d4":
        neighbours += [np.roll(centre, -1, 0), np.roll(centre, 1, 0)] * 2
    made = session.infer()
    np.testing.assert_allclose(made[0], centre + np.mean(neighbours, 0), rtol=1e-6)
    np.testing.assert_allclose(made[1], 2 * centre, rtol=1e-6)
    assert network.calls == count
    assert session.described() == f"slanted, mean of {count} views"


def test_what_is_not_compared_has_no_spread() -> None:
    network = Slanted()
    network.input[...] = frames()
    views = tta.TestTimeAugmentation("d4", 3, SHAPE, (2, *SHAPE), averaged=True, compared=False)
    views.infer(network)  # type: ignore[arg-type]
    assert views.spread is None


def test_the_spread_is_the_same_whatever_is_predicted() -> None:
    alone, averaged = (
        tta.TestTimeAugmentation("d4", 3, SHAPE, (2, *SHAPE), averaged=averaged)
        for averaged in (False, True)
    )
    for views in (alone, averaged):
        network = Slanted()
        network.input[...] = frames()
        views.infer(network)  # type: ignore[arg-type]
    np.testing.assert_array_equal(alone.spread, averaged.spread)


def test_a_network_that_sees_the_same_from_every_side_is_sure() -> None:
    network = Slanted((5, 8), slant=0)
    network.input[...] = frames((5, 8))
    views = tta.TestTimeAugmentation("flips", 3, (5, 8), (2, 5, 8))
    views.infer(network)
    np.testing.assert_allclose(views.spread, 0, atol=1e-6)


def test_frames_that_are_no_squares_cannot_be_turned() -> None:
    with pytest.raises(ValueError, match="5 x 8"):
        tta.TestTimeAugmentation("d4", 3, (5, 8), (2, 5, 8))


@pytest.mark.parametrize("name", ["d5", ["d4"], 8])
def test_views_that_a_store_names_and_nobody_knows_are_refused(name: object) -> None:
    assert [tta.from_store(known) for known in ("turns", "d4", "half-turn")] == [
        "d4",
        "d4",
        "half-turn",
    ]
    with pytest.raises(StoreError, match="expected half-turn, flips, d4"):
        tta.from_store(name)
