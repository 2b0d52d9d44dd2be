"""The limits of an engine.

What follows from frames of which it is known, and the command that measures them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from livesr.base.errors import ConfigError, EngineError, LiveSRError
from livesr.cli import app
from livesr.evaluation.limits import (
    Seen,
    distance,
    domain_of,
    fit_mixing,
    fit_training_distribution,
    fit_uncertainty,
    measure_on_pairs,
    usual_by_frame,
    usual_unknown_light,
    weak_share,
)
from livesr.live.inference.engine import CONFUSED, Limits, load_engine
from livesr.live.out_of_distribution import FEATURES
from livesr.live.unknown_light import usual
from livesr.simulation.domain import Domain
from livesr.training.recipes import FOLDER as RECIPES
from livesr.training.recipes import domain_of_engine, load_recipe
from recorded_runs import mixing_engine

LIGHT = "imcsr-mt-er-lyso-light"


def seen(
    share: float = 0.3,
    true: float = 0.3,
    pcc: float = 0.9,
    errors: NDArray[np.float32] | None = None,
) -> Seen:
    spread = None if errors is None else np.abs(errors) / 4
    shares, true_shares = np.array([share, 1 - share]), np.array([true, 1 - true])
    return Seen(
        np.zeros(len(FEATURES)), 0.1, (), shares, true_shares, np.array([pcc, 0.9]), errors, spread
    )


def test_frames_like_those_of_training_score_low_and_others_high() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(len(FEATURES), len(FEATURES)))
    known = rng.normal(size=(400, len(FEATURES))) @ mixed + 5
    training_distribution = fit_training_distribution(list(known[:200]))
    far = [distance(training_distribution, point) for point in known[200:]]
    assert np.mean(np.array(far) > 1) < 0.1
    assert np.median(far) > 0.4
    assert distance(training_distribution, known[0] + 10 * mixed[3]) > 2


def test_the_share_that_makes_a_structure_weak_lies_between_lost_ones_and_those_in_order() -> None:
    lost = [seen(share, 0.02, 0.1) for share in (0.01, 0.03, 0.05)]
    dark = [seen(0.5, 0.5, 0.1)]  # not found for another reason
    in_order = [seen(share, share, 0.9) for share in np.linspace(0.1, 0.5, 20)]
    assert 0.05 < weak_share([*lost, *dark, *in_order], 0) < 0.15
    assert weak_share(in_order, 0) == 0
    assert (
        np.mean([f.shares[0] < weak_share([*in_order, seen(0.4, 0.01, 0)], 0) for f in in_order])
        <= 0.1
    )


def test_frames_in_which_nothing_was_drawn_tell_nothing_of_mixing() -> None:
    rng, ratios = np.random.default_rng(0), [1.0] * 10 + [0.25] * 10 + [np.nan] * 10
    told = [
        replace(
            seen(0.4, 0.4, 0.9),
            true=np.array([ratio, 1.0]),
            found=np.array([0.1 if np.isnan(ratio) else ratio, 1.0]) * rng.uniform(0.9, 1.1),
        )
        for ratio in ratios
    ]
    dark = [
        replace(told[i], found=np.full(2, np.nan), true=np.array([true, 1.0]))
        for i, true in enumerate((1.0, 0.25, np.nan))
    ]
    assert fit_mixing(told, 0) is not None
    assert fit_mixing([*told, *dark], 0) == fit_mixing(told, 0)


def test_unknown_light_is_unusual_above_what_1_in_40_known_frames_have() -> None:
    known = [replace(seen(), unknown_share=light) for light in np.linspace(0, 0.1, 401)]
    assert usual_unknown_light(known) == pytest.approx(0.0975, abs=1e-4)
    assert usual_unknown_light([seen()] * 40) is None
    dark = [replace(seen(), unknown_share=0.0)] * 40
    assert usual_unknown_light(dark) == pytest.approx(0.001)  # a limit of 0 would always warn


def of_any_noise(count: int, seed: int) -> list[Seen]:
    """Return frames whose unknown light grows with their noise and falls with their details."""
    rng, known = np.random.default_rng(seed), []
    for detail, noise, other in rng.normal((-6, -3, 0), (1, 1, 0.2), (count, 3)):
        numbers = np.zeros(len(FEATURES))
        numbers[FEATURES.index("detail 8")], numbers[FEATURES.index("noise")] = detail, noise
        light = np.exp(-4 + 0.4 * noise - 0.3 * detail + other)
        known.append(replace(seen(), features=numbers, unknown_share=float(light)))
    return known


def test_what_is_usual_of_unknown_light_goes_by_the_frame() -> None:
    known = of_any_noise(800, 1)
    limits = Limits(
        unknown_light=usual_unknown_light(known), usual_unknown_light=usual_by_frame(known)
    )

    def named(frames: list[Seen], limits: Limits) -> float:
        told = [(f.unknown_share, usual(limits, f.features)) for f in frames]
        return float(np.mean([light is not None and light > (limit or 0) for light, limit in told]))

    others = of_any_noise(4000, 2)
    noise = [f.features[FEATURES.index("noise")] for f in others]
    quiet, noisy = (
        [f for f, one in zip(others, noise, strict=True) if (one < -3) == below]
        for below in (True, False)
    )
    assert named(others, limits) == pytest.approx(0.025, abs=0.01)
    assert named(quiet, limits) == pytest.approx(0.025, abs=0.012)
    assert named(noisy, limits) == pytest.approx(0.025, abs=0.012)
    assert named(quiet, Limits(unknown_light=limits.unknown_light)) < 0.01, "one for all misses"
    strange = [replace(f, unknown_share=1.7 * (f.unknown_share or 0)) for f in quiet]
    assert named(strange, limits) > 0.5
    assert named(strange, Limits(unknown_light=limits.unknown_light)) < 0.1


def test_what_is_usual_of_a_frame_needs_frames_and_stays_within_them() -> None:
    known = of_any_noise(100, 3)
    found = usual_by_frame(known)
    assert found is not None
    assert usual_by_frame(known[:35]) is None
    assert usual_by_frame([seen()] * 100) is None
    limits = Limits(unknown_light=0.2, usual_unknown_light=found)
    for far, expected in ((-50, found.least), (50, found.most)):
        numbers = np.zeros(len(FEATURES))
        numbers[FEATURES.index("noise")] = far
        assert usual(limits, numbers) == expected
    at_the_least = [usual(limits, f.features) == found.least for f in known]
    assert np.mean(at_the_least) == pytest.approx(0.25, abs=0.02), "the quietest share one limit"
    assert usual(limits, None) == 0.2
    assert usual(Limits(), np.zeros(len(FEATURES))) is None


def test_the_uncertainty_is_scaled_to_the_error() -> None:
    errors = np.random.default_rng(1).normal(0, 2, (2, 64, 64)).astype(np.float32)
    found = fit_uncertainty([seen(errors=errors)], "flips")
    assert found is not None
    assert found.scale == pytest.approx(4, rel=1e-3)
    assert found.correlation == pytest.approx(1, abs=1e-3)
    assert fit_uncertainty([seen(errors=errors * 0)], "flips") is None


def test_the_optics_of_training() -> None:
    finest, coarsest = Domain(na=(1.4, 1.49), emission_um=(0.505, 0.56)).resolution_nm
    assert (finest, coarsest) == pytest.approx((169.5, 200.0), abs=0.1)
    assert finest < 525 / (2 * 1.49) < coarsest
    assert coarsest < 640 / (2 * 1.2)


def test_only_structures_that_can_be_simulated_are_measured(tmp_path: Path) -> None:
    manifest = load_engine(LIGHT).manifest
    with pytest.raises(EngineError, match="simulated"):
        domain_of(manifest.model_copy(update={"task": "upscale"}))


def test_limits_are_of_what_the_engine_was_trained_on(tmp_path: Path) -> None:
    mito = load_recipe("imcsr-mt-mito").data.domain
    names = ["Microtubules", "Mitochondria"]
    assert domain_of_engine("imcsr-mt-mito", names) == mito != Domain(structures=mito.structures)
    assert domain_of_engine("somebody-elses", names) is None
    assert domain_of_engine("imcsr-mt-mito", ["Actin", "Nuclei"]) is None, "a name that is taken"
    own = tmp_path / "own.yaml"
    shutil.copy(RECIPES / "imcsr-mt-mito.yaml", own)
    assert domain_of_engine("somebody-elses", names, str(own)) == mito
    with pytest.raises(ConfigError, match="makes Microtubules, Mitochondria"):
        domain_of_engine("imcsr-ccp-mt-er", ["Microtubules", "ER", "CCPs"], str(own))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([LIGHT, "--recipe", "imcsr-ccp-mt-er"], "give the recipe that it was trained with"),
        ([LIGHT, "--recipe", LIGHT, "--pairs", "."], "give one of them"),
        (["edsr-x2"], "measured on simulated cells"),
        (["deep-storm"], "measured on simulated cells"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_begins(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    name, *options = arguments
    folder = tmp_path / "engine"
    shutil.copytree(load_engine(name).folder, folder)
    result = CliRunner().invoke(app, ["limits", str(folder), "--sequences", "1", *options])
    assert isinstance(result.exception, LiveSRError)
    assert sentence in str(result.exception)


def test_the_command_writes_what_it_measured_and_the_engine_warns_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(load_engine(LIGHT).folder, folder)
    result = CliRunner().invoke(
        app, ["limits", str(folder), "--sequences", "1", "--threads", "1", "--json"]
    )
    assert result.exit_code == 0, result.output
    written = load_engine(folder).manifest
    assert Limits.model_validate_json(result.stdout) == written.limits
    assert written.limits.training_distribution is None  # one frame says nothing of all
    assert written.limits.uncertainty is not None
    assert written.limits.uncertainty.scale > 0
    assert set(written.limits.weak) == set(written.channel_names)
    assert written.resolution_nm is not None
    assert any(
        "267 nm" in told for told in load_engine(folder).check_fits("separate", resolution_nm=267)
    )


def test_pairs_give_an_engine_the_residual_that_its_validation_lacks(tmp_path: Path) -> None:
    """Of a network whose channels add up to 1.65 times a still frame it is 0.65."""
    rng = np.random.default_rng(0)
    still = np.zeros((12, 64, 64), np.float32)
    still[..., 8:56:6] = rng.uniform(0.2, 0.6, (12, 1, 1))
    pairs = [(np.stack([x] * 3), np.stack([x] * 3) / np.float32(3)) for x in still]
    engine = mixing_engine(tmp_path / "engine")
    assert engine.manifest.metrics.residual is None
    found = measure_on_pairs(engine.folder, pairs, threads=1)["metrics"].residual
    assert (found.min, found.max) == pytest.approx((0.65, 0.65), abs=0.01)
    validated = load_engine(LIGHT).manifest.metrics
    assert measure_on_pairs(LIGHT, pairs[:2], threads=1)["metrics"] == validated


def test_structures_that_an_engine_confuses_are_said() -> None:
    engine = load_engine(LIGHT)
    limits = Limits(confusion={"ER": {"Microtubules": CONFUSED + 0.1, "Lysosomes": 0.01}})
    confused = type(engine)(
        engine.folder, engine.manifest.model_copy(update={"limits": limits}), engine.onnx_path
    )
    (told,) = confused.check_fits("separate")
    assert "ER and Microtubules are too alike" in told


def test_what_measures_limits_asks_for_no_package_of_training() -> None:
    call = (
        "import sys; from livesr import cli; cli._run(['limits', 'edsr-x2']);"
        " print({'torch', 'onnx', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, timeout=120, check=False
    )
    assert "measured on simulated cells" in done.stderr, done.stderr
    assert done.stdout.strip() == "set()"
