"""What a network sees at the edges of a reconstruction that fades there."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest

from livesr.base.compute import ComputeConfig
from livesr.evaluation.engines import EVALUATION, Domain, sequences_of
from livesr.evaluation.live_path import separate
from livesr.live.arrays import Arrays
from livesr.live.edges import DARKEST, EvenEdges
from livesr.live.inference.engine import load_engine
from livesr.live.inference.runner import open_session
from livesr.live.paths import ChannelPath
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.plan import SIMPlan
from livesr.optics.illumination import Pattern
from livesr.optics.similarity import pcc

SHAPE = (48, 64)


@pytest.fixture(scope="module")
def fade() -> tuple[np.ndarray, np.ndarray]:
    patterns = [Pattern((4.9, 1.2), 0.1, 0.7)]
    return SIMPlan.of(SIMParameters((24, 32), 0.065, 1.49, 0.525, taper=0.2), patterns).fade()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def lit(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 1000, SHAPE).astype(np.float32)


def test_a_picture_that_fades_is_seen_as_if_it_did_not(fade, rng) -> None:
    even, (rows, columns) = lit(rng), fade
    background, scale = 120.0, 800.0
    faded = even * np.outer(rows, columns)
    plane = ((faded - background) / scale).astype(np.float32)
    EvenEdges(fade).brighten(plane, background / scale)
    bright = np.ix_(rows >= DARKEST, columns >= DARKEST)
    np.testing.assert_allclose(plane[bright], ((even - background) / scale)[bright], atol=1e-5)


def test_what_is_too_dark_is_the_mirror_image_of_what_lies_beside_it(fade, rng) -> None:
    plane = lit(rng)
    EvenEdges(fade).brighten(plane, 0.0)
    for side, picture in zip(fade, (plane, plane.T), strict=True):
        for brightness, view in ((side, picture), (side[::-1], picture[::-1])):
            rim = int(np.sum(brightness[: len(side) // 2] < DARKEST))
            assert rim
            np.testing.assert_array_equal(view[:rim], view[rim : 2 * rim][::-1])


@pytest.mark.parametrize("scale", [1, 2])
def test_what_is_made_of_it_fades_as_the_measurement(fade, scale: int) -> None:
    output = np.ones((2, SHAPE[0] * scale, SHAPE[1] * scale), np.float32)
    EvenEdges(fade, scale).darken(output)
    expected = np.kron(np.outer(*fade), np.ones((scale, scale)))
    np.testing.assert_allclose(output, np.stack([expected] * 2), rtol=1e-6)


def test_any_array_library_does_the_same(fade, rng) -> None:
    plane, strict = lit(rng), Arrays(array_api_strict)
    other = array_api_strict.asarray(plane.copy())
    EvenEdges(fade).brighten(plane, 0.3)
    EvenEdges(fade, arrays=strict).brighten(other, 0.3)
    np.testing.assert_allclose(np.asarray(other), plane, rtol=1e-5)


def test_an_even_picture_stays_as_it_is(rng) -> None:
    plane = lit(rng)
    kept = plane.copy()
    EvenEdges((np.ones(SHAPE[0], np.float32), np.ones(SHAPE[1], np.float32))).brighten(plane, 0.3)
    np.testing.assert_array_equal(plane, kept)


def test_a_small_region_is_separated_as_well_as_a_part_of_a_large_one(monkeypatch) -> None:
    """A faded frame of 5 camera pixels around 96 spoiled what a network with channel attention
    says inside it: 0.60, 0.63 and 0.79 instead of 0.71, 0.65 and 0.84.
    """
    engine, size = load_engine("imcsr-mt-er-lyso-light"), 192
    scene = sequences_of("sim").draw((EVALUATION, 902), 3, size, Domain())
    raw, truth = scene.raw(), list(scene.truth(1).values())
    inside = (slice(size // 12, -size // 12),) * 2

    def score() -> float:
        with open_session(engine, (size, size), ComputeConfig(threads=1, tile="off")) as session:
            made = separate(raw, scene.reconstructor, scene.pixel_size_um, engine, session)[1]
        pairs = zip(made.channels, truth, strict=True)
        return float(np.mean([pcc(a[inside].astype(np.float32), b[inside]) for a, b in pairs]))

    even = score()
    monkeypatch.setattr(ChannelPath, "even_edges", lambda path, arrays: None)
    assert even > score() + 0.01
