import tracemalloc
from typing import Any

import numpy as np
import pytest

from livesr.base.frames import MulticolorFrame, Normalisation, SRFrame, Stream, Window
from livesr.base.quality import Quality
from livesr.base.rig_limits import ChannelLimits
from livesr.base.taken_with import TakenWith
from livesr.base.timing import now_ns
from livesr.evaluation.limits import fit_training_distribution
from livesr.live.arrays import HOST
from livesr.live.compose import (
    MAX_RESIDUAL,
    Composer,
    highest,
    noise_threshold,
)
from livesr.live.inference.engine import Manifest
from livesr.live.out_of_distribution import features
from plain_residual import summation_residual

SHAPE = (70, 101)  # no multiple of a band
BACKGROUND, SCALE, NOISE = 100.0, 900.0, 5.0


class OnHost(Composer):
    """A composer together with what computes its pixels on the CPU."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.pixels = self.arithmetic(HOST)
        self.features: np.ndarray | None = None

    def compose(
        self, output: np.ndarray, window: Window, measured: SRFrame | None = None
    ) -> MulticolorFrame:
        centre = window.centre
        made = self.pixels.compose(
            output, centre.image, centre.normalisation, features=self.features
        )
        return self.frame(made, window, measured)


ANY_RESIDUAL = {"min": 0.0, "max": MAX_RESIDUAL}


def manifest(
    scale: int = 1,
    residual: dict[str, float] | None = ANY_RESIDUAL,
    names: tuple[str, ...] = ("MT", "ER"),
    limits: dict[str, Any] | None = None,
    features: int = 0,
) -> Manifest:
    return Manifest.model_validate(
        {
            "id": "test",
            "version": "1",
            "description": "for tests",
            "task": "separate",
            "trained": True,
            "scale": scale,
            "channels": [{"name": name, "color": "00FF00"} for name in names],
            "architecture": "none",
            "metrics": {"residual": residual},
            "limits": limits or {},
            "weights": {"onnx": {"sha256": "0" * 64}, "features": features},
            "license": "BSD-3-Clause",
        }
    )


def specimen(shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Two structures, normalised, without noise: (2, y, x)."""
    rng = np.random.default_rng(seed)
    structures = np.zeros((2, *shape), np.float32)
    structures[0, 5:60:11] = rng.uniform(0.3, 0.6, shape[1])
    structures[1, :, 3:90:17] = rng.uniform(0.3, 0.6, (shape[0], 1))
    return structures


def frame(structures: np.ndarray, noise: float = NOISE, seed: int = 1, **fields: Any) -> SRFrame:
    rng = np.random.default_rng(seed)
    image = structures.sum(0) * SCALE + BACKGROUND + rng.normal(0, noise, structures.shape[1:])
    defaults = {"stream": Stream(), "t": 0, "t_acq_ns": now_ns(), "t_last_ns": now_ns()}
    return SRFrame(
        image.astype(np.float32),
        normalisation=Normalisation(BACKGROUND, SCALE),
        **(defaults | fields),
    )


def window(centre: SRFrame, **flags: bool) -> Window:
    return Window(centre, centre, centre, **flags)


class TestIntensity:
    def test_output_times_scale_rounded_and_held(self) -> None:
        output = np.array([[[0.0, 0.1, -0.2], [1.0, 80.0, 0.0006]]], np.float32)
        made = OnHost(manifest(names=("MT",)), (2, 3)).compose(output, window(frame(output * 0)))
        assert made.channels.dtype == np.uint16
        np.testing.assert_array_equal(made.channels[0], [[0, 90, 0], [900, 65535, 1]])
        assert made.offset_adu == 0

    def test_channels_sum_to_the_frame_above_background(self) -> None:
        truth = specimen()
        centre = frame(truth, noise=0)
        made = OnHost(manifest(), SHAPE).compose(truth, window(centre))
        total = made.channels.sum(0, dtype=np.float64)
        np.testing.assert_allclose(
            total, centre.image - BACKGROUND, atol=1.01
        )  # two roundings to whole ADU

    def test_a_cropped_view_is_as_good_as_an_array(self) -> None:
        truth = specimen()
        wide = np.pad(truth, [(0, 0), (0, 2), (0, 3)])[:, : SHAPE[0], : SHAPE[1]]
        composer, centre = OnHost(manifest(), SHAPE), window(frame(truth))
        np.testing.assert_array_equal(
            composer.compose(wide, centre).channels, composer.compose(truth, centre).channels
        )

    def test_what_it_hands_away_is_not_touched_again(self) -> None:
        composer = OnHost(manifest(), SHAPE, residual_plane=True)
        first = composer.compose(specimen(), window(frame(specimen())))
        assert first.residual_plane is not None
        kept = first.channels.copy(), first.residual_plane.copy()
        composer.compose(specimen(seed=5) * 2, window(frame(specimen(seed=5))))
        np.testing.assert_array_equal(first.channels, kept[0])
        np.testing.assert_array_equal(first.residual_plane, kept[1])

    def test_the_record_says_where_it_comes_from(self) -> None:
        centre = frame(specimen(), t=7)
        flags = {"edge": True, "true_neighbours": False, "provisional": True}
        made = OnHost(manifest(), SHAPE).compose(specimen(), window(centre, **flags))
        assert made.source is centre
        assert (made.t, made.edge, made.true_neighbours, made.provisional) == (7, True, False, True)
        assert 0 < made.latency_ms < 60_000


class TestResidual:
    def test_nothing_is_left_of_a_perfect_separation(self) -> None:
        truth = specimen()
        assert (
            OnHost(manifest(), SHAPE).compose(truth, window(frame(truth, noise=0))).residual < 1e-5
        )

    def test_noise_of_the_background_hardly_counts(self) -> None:
        truth = specimen()
        assert OnHost(manifest(), SHAPE).compose(truth, window(frame(truth))).residual < 0.03

    def test_light_that_no_channel_takes(self) -> None:
        truth = specimen()
        made = OnHost(manifest(), SHAPE).compose(truth * 0.75, window(frame(truth, noise=0)))
        assert made.residual == pytest.approx(0.25, abs=0.001)

    def test_structures_painted_into_an_empty_frame(self) -> None:
        made = OnHost(manifest(), SHAPE).compose(specimen(), window(frame(specimen() * 0)))
        assert made.residual > 10

    def test_nothing_above_noise_is_no_residual(self) -> None:
        empty = specimen() * 0
        assert OnHost(manifest(), SHAPE).compose(empty, window(frame(empty, noise=0))).residual == 0

    @pytest.mark.parametrize("scale", [1, 2])
    def test_the_plain_form_agrees(self, scale: int) -> None:
        truth = specimen()
        centre = frame(truth)
        predicted = (truth * 0.9 + 0.01).astype(np.float32)
        output = predicted.repeat(scale, 1).repeat(scale, 2)
        made = OnHost(manifest(scale), output.shape[1:], residual_plane=True).compose(
            output, window(centre)
        )
        x = centre.image - np.float32(BACKGROUND)
        assert made.residual == pytest.approx(
            summation_residual(predicted * np.float32(SCALE), x), rel=1e-4
        )
        assert made.residual_plane is not None
        np.testing.assert_allclose(made.residual_plane, predicted.sum(0) * SCALE - x, atol=1e-2)
        assert made.channels.shape == (2, SHAPE[0] * scale, SHAPE[1] * scale)

    def test_no_plane_unless_asked(self) -> None:
        assert (
            OnHost(manifest(), SHAPE).compose(specimen(), window(frame(specimen()))).residual_plane
            is None
        )

    @pytest.mark.parametrize(
        ("covered", "sigmas"), [(0.0, 3.0), (0.2, 3.2), (0.4, 3.6), (0.7, 6.0)]
    )
    def test_threshold_is_about_three_sigma_whatever_the_structures(
        self, covered: float, sigmas: float
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(0, 2.0, (400, 400)).astype(np.float32)
        x[rng.random(x.shape) < covered] += 500
        assert noise_threshold(x) == pytest.approx(sigmas * 2.0, rel=0.1)


class TestDisplay:
    def test_each_channel_has_its_window(self) -> None:
        truth = specimen() * np.array([1.0, 0.2], np.float32)[:, None, None]
        display = OnHost(manifest(), SHAPE).compose(truth, window(frame(truth))).display
        assert len(display) == 2
        assert all(low < high for low, high in display)
        assert display[0][1] > 3 * display[1][1]

    def test_it_follows_slowly_and_arrives(self) -> None:
        composer = OnHost(manifest(), SHAPE)
        highs = [
            composer.compose(specimen() * b, window(frame(specimen()))).display[0][1]
            for b in [1.0] + [2.0] * 60
        ]
        steps = np.diff(highs)
        assert (steps >= 0).all()
        assert steps.max() <= 0.11 * highs[0]
        assert highs[-1] == pytest.approx(2 * highs[0], rel=0.01)

    def test_streams_do_not_share_it(self) -> None:
        composer = OnHost(manifest(), SHAPE)
        dim = composer.compose(
            specimen() * 0.1, window(frame(specimen(), stream=Stream(1)))
        ).display
        bright = composer.compose(specimen(), window(frame(specimen(), stream=Stream(2)))).display
        assert bright[0][1] == pytest.approx(10 * dim[0][1], rel=0.05)

    def test_provisional_frames_do_not_move_it(self) -> None:
        composer, centre = OnHost(manifest(), SHAPE), frame(specimen())
        settled = composer.compose(specimen(), window(centre)).display
        assert composer.compose(specimen() * 3, window(centre, provisional=True)).display == settled
        assert composer.compose(specimen() * 3, window(centre)).display != settled

    def test_an_empty_channel_has_a_window_too(self) -> None:
        empty = specimen() * 0
        display = OnHost(manifest(), SHAPE).compose(empty, window(frame(empty))).display
        assert all(low < high for low, high in display)


def limits_of_a_rig(unknown_light: float) -> ChannelLimits:
    return ChannelLimits(
        unknown_light=unknown_light,
        false_alarms=0.05,
        fields=19,
        frames=190,
        stores=["a", "b", "c"],
        taken_with=TakenWith(engines=["test 1"], pixel_size_nm=30, resolution_nm=176),
    )


class TestWarnings:
    def test_none_when_all_is_well(self) -> None:
        composer = OnHost(manifest(residual={"min": 0.0, "max": 0.1}), SHAPE)
        assert composer.compose(specimen(), window(frame(specimen()))).warnings == ()

    def test_a_residual_above_its_range_and_none_below(self) -> None:
        composer = OnHost(manifest(residual={"min": 0.05, "max": 0.1}), SHAPE)
        centre = window(frame(specimen()))
        (warning,) = composer.compose(specimen() * 0.5, centre).warnings
        assert "above the 0.1 of validation" in warning
        assert composer.compose(specimen(), centre).warnings == ()

    def test_an_empty_frame_is_not_outside(self) -> None:
        composer = OnHost(manifest(residual={"min": 0.1, "max": 0.2}), SHAPE)
        empty = specimen() * 0
        assert composer.compose(empty, window(frame(empty, noise=0))).warnings == ()

    def test_a_weak_structure_is_said_at_once_and_until_it_is_back(self) -> None:
        composer, centre = OnHost(manifest(), SHAPE), window(frame(specimen()))
        weak = specimen() * np.array([1.0, 0.01], np.float32)[:, None, None]

        def said(output: np.ndarray) -> bool:
            return any("ER is too weak" in w for w in composer.compose(output, centre).warnings)

        assert said(weak)
        assert not any("MT" in w for w in composer.compose(weak, centre).warnings)
        assert [said(specimen()) for _ in range(3)] == [False] * 3

    def test_one_frame_does_not_decide(self) -> None:
        composer, centre = OnHost(manifest(), SHAPE), window(frame(specimen()))
        weak = specimen() * np.array([1.0, 0.0], np.float32)[:, None, None]
        for _ in range(5):
            assert composer.compose(specimen(), centre).warnings == ()
            assert composer.compose(weak, centre).warnings == ()

    def test_the_share_of_light_that_makes_a_structure_weak_is_the_engines(self) -> None:
        half = specimen() * np.array([1.0, 0.3], np.float32)[:, None, None]
        limits = {"weak": {"ER": 0.4}}
        (warning,) = (
            OnHost(manifest(limits=limits), SHAPE).compose(half, window(frame(half))).warnings
        )
        assert "ER is too weak" in warning

    def test_input_unlike_the_training_data(self) -> None:
        shape = (256, 256)
        known = [frame(specimen(shape, seed=i), seed=i) for i in range(40)]
        training_distribution = fit_training_distribution(
            [features(f, noise_threshold(f.image)) for f in known]
        ).model_dump()
        composer = OnHost(manifest(limits={"training_distribution": training_distribution}), shape)

        def made(centre: SRFrame) -> MulticolorFrame:
            return composer.compose(specimen(shape), window(centre))

        usual = made(frame(specimen(shape, seed=50), seed=50))
        assert usual.ood_score is not None
        assert usual.ood_score < 1
        assert not any("unlike" in warning for warning in usual.warnings)
        grey = frame(specimen(shape) * 0, noise=300, stream=Stream(1))
        strange = made(grey)
        assert strange.ood_score is not None
        assert strange.ood_score > 1
        assert any("unlike" in warning for warning in strange.warnings)

    def test_light_of_no_known_structure(self) -> None:
        composer = OnHost(manifest(limits={"unknown_light": 0.1}, features=2), SHAPE)

        def made(unknown: float, stream: int) -> MulticolorFrame:
            composer.features = np.array([unknown**2, 1], np.float32)
            centre = frame(specimen(), stream=Stream(stream))
            return composer.compose(specimen(), window(centre))

        usual, strange = made(0.05, 0), made(0.2, 1)
        assert usual.unknown_light == pytest.approx(0.05)
        assert strange.unknown_light == pytest.approx(0.2)
        assert not usual.warnings
        assert "a structure that the engine does not know" in strange.warnings[0]
        assert strange.quality is Quality.CHECK

    def test_unknown_light_is_held_against_what_is_usual_for_such_a_frame(self) -> None:
        shape = (256, 256)
        numbers = [
            features(f, noise_threshold(f.image))
            for f in (frame(specimen(shape, seed=i), seed=i) for i in range(40))
        ]
        limits = {
            "training_distribution": fit_training_distribution(numbers).model_dump(),
            "unknown_light": 0.5,
            "usual_unknown_light": {
                "offset": 0.0,
                "slopes": {"noise": 1.0},
                "least": 0.01,
                "most": 0.2,
            },
        }
        composer = OnHost(manifest(limits=limits, features=2), shape)
        composer.features = np.array([0.1**2, 1], np.float32)

        def named(noise: float, stream: int) -> bool:
            centre = frame(specimen(shape), noise=noise, stream=Stream(stream))
            made = composer.compose(specimen(shape), window(centre))
            return any("does not know" in warning for warning in made.warnings)

        assert named(1, 0)
        assert not named(300, 1), "noise as strong as the structures"

    def test_what_is_left_of_a_frame_counts_on_its_own_rig_alone(self) -> None:
        """Rigs differ in it, so that the engine's limit, of any rig, is of the share."""
        own = limits_of_a_rig(0.1)
        engine = manifest(limits={"unknown_light": 0.1}, features=4)

        def named(limits: ChannelLimits | None, share: float, left: float) -> bool:
            composer = OnHost(engine, SHAPE, rig_limits=limits)
            composer.features = np.array([share**2, 1, left**2, 1], np.float32)
            made = composer.compose(specimen(), window(frame(specimen())))
            assert made.unknown_light == pytest.approx((share * left) ** 0.5)
            assert made.unknown_share == pytest.approx(share)
            return any("does not know" in warning for warning in made.warnings)

        assert [named(None, 0.05, left) for left in (0.1, 0.5)] == [False, False]
        assert [named(own, 0.05, left) for left in (0.1, 0.5)] == [False, True]
        assert [named(None, 0.2, left) for left in (0.01, 0.5)] == [True, True]
        assert [named(own, 0.2, left) for left in (0.01, 0.5)] == [False, True]

    @pytest.mark.parametrize("seed", range(3))
    def test_unknown_light_is_held_against_what_is_usual_on_the_rig(self, seed: int) -> None:
        """A limit at the highest of a recording says nothing of it, a lower one does."""
        values = np.random.default_rng(seed).uniform(0.01, 0.1, 12)

        def named(limit: float) -> list[str]:
            engine = manifest(limits={"unknown_light": 0.5}, features=2)
            composer, found = OnHost(engine, SHAPE, rig_limits=limits_of_a_rig(limit)), []
            for value in values:
                composer.features = np.array([value**2, 1], np.float32)
                found += composer.compose(specimen(), window(frame(specimen()))).warnings
            return found

        assert not named(highest(values) * 1.0001)
        said = named(highest(values) * 0.9999)
        assert "on this rig (its own recordings: 19 fields, 190 frames, a and 2 more)" in said[0]

    def test_saturation(self) -> None:
        (warning,) = (
            OnHost(manifest(), SHAPE)
            .compose(specimen(), window(frame(specimen(), saturated=3)))
            .warnings
        )
        assert "saturates" in warning

    def test_those_of_the_run_come_first(self) -> None:
        composer = OnHost(manifest(), SHAPE, warnings=["Untrained."])
        assert composer.compose(specimen(), window(frame(specimen()))).warnings == ("Untrained.",)

    def test_what_was_not_validated_is_to_be_checked(self) -> None:
        """Whatever else speaks for it: without a residual of validation nothing was measured."""
        composer, centre = OnHost(manifest(residual=None), SHAPE), window(frame(specimen()))
        made = composer.compose(specimen(), centre)
        assert made.quality is Quality.CHECK
        assert made["ER"].quality is Quality.CHECK
        (reason,) = made.warnings
        assert "not validated" in reason
        validated = OnHost(manifest(), SHAPE).compose(specimen(), centre)
        assert validated.quality is Quality.GOOD

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_no_numbers(self, value: float) -> None:
        output = specimen()
        output[0, 5, 10] = value
        made = OnHost(manifest(), SHAPE).compose(output, window(frame(specimen())))
        assert made.residual == MAX_RESIDUAL
        assert made.channels[0, 5, 10] == 0
        assert "no numbers" in made.warnings[0]


def test_allocates_nothing_but_the_pixels_it_hands_away() -> None:
    shape = (512, 512)
    truth = specimen(shape)
    composer, centre = OnHost(manifest(), shape), window(frame(truth))
    composer.compose(truth, centre)
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        made = composer.compose(truth, centre)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - start - made.channels.nbytes < 32 * 1024
