"""A recipe for one microscope: what rig.yaml narrows, what it begins with, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.live.inference.engine import Manifest, load_engine, write_manifest
from livesr.modalities.registry import modality
from livesr.optics.otf import cutoff_um
from livesr.simulation.domain import CALIBRATED, Domain, calibrated_like, usual_like
from livesr.training.for_rig import DEFAULT_RECIPE, channel_for, recipe_for
from livesr.training.recipes import FOLDER, load_recipe, names

PATTERNS = [
    {"k_um": [0.0, 4.0], "modulation": 0.5},
    {"k_um": [3.5, 2.0], "modulation": 0.6},
    {"k_um": [3.5, -2.1], "modulation": 0.7},
]
RIG: dict[str, Any] = {
    "name": "My Scope",
    "micromanager": "rig.cfg",
    "modality": "sim",
    "camera": {"offset_adu": 100, "gain_e_per_adu": 0.5, "read_noise_e": 1.5},
    "optics": {"na": 1.2, "emission_nm": 600, "pixel_size_nm": 80, "damping": 0.5},
    "sim": {
        "wiener": 0.2,
        "attenuation": 0.8,
        "attenuation_fwhm_um": 1.5,
        "apodisation": 0.5,
        "sectioning": True,
        "patterns": PATTERNS,
    },
}


def rig(folder: Path, **changed: Any) -> RigConfig:
    """`RIG` with some keys of its sections changed."""
    said = {**RIG, **{k: {**RIG[k], **v} if k in RIG else v for k, v in changed.items()}}
    (folder / "rig.yaml").write_text(yaml.safe_dump(said))
    return load_rig(folder)


def narrowed(folder: Path, **changed: Any) -> Domain:
    config = rig(folder, **changed)
    return modality("sim").domain_of(config, channel_for(config), Domain())


def test_optics_patterns_camera_and_filter_are_the_rigs(tmp_path: Path) -> None:
    domain = narrowed(tmp_path)
    assert domain.pixel_size_um == 0.08
    assert domain.na[0] < 1.2 < domain.na[1]
    assert domain.emission_um[0] < 0.6 < domain.emission_um[1]
    k = np.array([4.0, np.hypot(3.5, 2.0), np.hypot(3.5, 2.1)]) / cutoff_um(1.2, 0.6)
    assert domain.k_over_cutoff[0] < k.min() < k.max() < domain.k_over_cutoff[1]
    assert domain.modulation[0] < 0.6 < domain.modulation[1] < 0.7
    assert domain.damping[0] < 0.5 < domain.damping[1]
    assert domain.gain_adu_per_e[0] < 1 / 0.5 < domain.gain_adu_per_e[1]
    assert domain.read_noise_e[0] < 1.5 < domain.read_noise_e[1]
    filters = (domain.wiener, domain.attenuation, domain.apodisation)
    assert filters == ((0.2, 0.2), (0.8, 0.8), (0.5, 0.5))
    assert (domain.attenuation_fwhm_um, domain.sectioning) == (1.5, True)
    kept = ("structures", "photons", "haze", "bleaching", "background", "interval_s")
    assert all(getattr(domain, name) == getattr(Domain(), name) for name in kept)


def test_what_nobody_measured_keeps_its_range(tmp_path: Path) -> None:
    domain = narrowed(
        tmp_path,
        sim={"patterns": []},
        optics={"damping": 1.0},
        camera={"em_gain": 100.0},
    )
    wide = ("k_over_cutoff", "modulation", "damping", "gain_adu_per_e", "read_noise_e")
    assert all(getattr(domain, name) == getattr(Domain(), name) for name in wide)
    bare = rig(tmp_path, sim={"patterns": []}, optics={"damping": 1.0})
    all_measured = rig(tmp_path)
    told = [recipe_for(config, "").rig for config in (bare, all_measured)]
    assert [of and of.unmeasured for of in told] == [("patterns", "damping"), ()]


def test_a_channel_has_its_own_colour_pixels_filter_and_patterns(tmp_path: Path) -> None:
    own = {
        "emission_nm": 700,
        "pixel_size_nm": 90,
        "wiener": 0.3,
        "damping": 0.7,
        "patterns": [{**p, "modulation": 0.3} for p in PATTERNS],
    }
    channels = {"640": {"separate": DEFAULT_RECIPE, **own}, "488": {}}
    domain = narrowed(tmp_path, channels=channels)
    assert domain.emission_um[0] < 0.7 < domain.emission_um[1]
    assert (domain.pixel_size_um, domain.wiener, domain.damping_assumed) == (0.09, (0.3, 0.3), 0.7)
    assert domain.modulation[1] < 0.4


def test_cells_are_reconstructed_as_the_rig_does(tmp_path: Path) -> None:
    domain = narrowed(tmp_path)
    draw = modality("sim").draw_sequence
    assert draw is not None
    drawn = draw((1, 2), 1, 64, domain)
    other = draw((1, 2), 1, 64, domain.model_copy(update={"sectioning": False}))
    assert drawn.pixel_size_um == pytest.approx(0.08, rel=0.02)
    assert drawn.raw().shape == (1, 9, 32, 32)
    pictures = [one.reconstructor.reconstruct(list(one.raw()[0])) for one in (drawn, other)]
    assert not np.allclose(*pictures)


def test_the_rig_in_good_order_stays_this_rig(tmp_path: Path) -> None:
    domain = narrowed(tmp_path)
    good = calibrated_like(domain)
    same = ("pixel_size_um", "na", "emission_um", "wiener", "sectioning", "damping_assumed")
    assert all(getattr(good, name) == getattr(domain, name) for name in same)
    assert (good.photons, good.phase_error_deg) == (CALIBRATED.photons, CALIBRATED.phase_error_deg)
    assert good.modulation == (CALIBRATED.modulation[0], domain.modulation[1])
    assert calibrated_like(Domain()) == CALIBRATED


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optics": {"pixel_size_nm": None}}, "does not say how large its pixels are"),
        ({"sim": {"patterns": [], "harmonics": 2, "phases": 5}}, "harmonics: 2"),
        ({"sim": {"patterns": PATTERNS[:2], "angles": 2}}, "angles: 2"),
        ({"channels": {"a": {}, "b": {}}}, "for which: a, b"),
        ({"channels": {"a": {"separate": "mine"}}}, "say with --recipe which"),
        ({"channels": {"a": {"reconstruct": "widefield"}}}, "reconstructed as widefield"),
        ({"optics": {"pixel_size_nm": 126}}, "126 nm sample up to 3.97: such raw frames alias"),
        ({"sim": {"patterns": [{**p, "k_um": [0.0, 20.0]} for p in PATTERNS]}}, "k is 5.00"),
        ({"channels": {"a": {"upscale": "edsr-x2"}}}, "an engine in upscale"),
        ({"channels": {"a": {"reconstruct": {"frames": 3}}}}, "an engine in reconstruct"),
    ],
)
def test_rigs_that_cannot_be_simulated_are_refused(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    config = rig(tmp_path, **changed)
    with pytest.raises(ConfigError, match=re.escape(said)):
        recipe_for(config, channel_for(config))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [("edsr-x2", "pairs of kind 'upscale'"), ("sim-lowlight-9", "'reconstruct'")],
)
def test_recipes_that_separate_nothing_are_refused(tmp_path: Path, recipe: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe_for(rig(tmp_path), "", recipe)


def test_nothing_aliases_that_a_rig_could_be(tmp_path: Path) -> None:
    domain = narrowed(tmp_path, optics={"pixel_size_nm": 123.5})  # 125 would
    most = cutoff_um(domain.na[1], domain.emission_um[0])
    assert cutoff_um(1.2, 0.6) < most
    assert most * domain.pixel_size_um * (1 + domain.pixel_size_spread) < 0.5
    # next to no margin is left
    config = rig(tmp_path, optics={"emission_nm": 525.53, "pixel_size_nm": 109.476})
    resolution = Manifest(
        **{**load_engine(DEFAULT_RECIPE).manifest.model_dump(), **recipe_for(config, "").engine}
    ).resolution_nm
    assert resolution is not None
    assert config.resolution_nm("") in resolution
    usual = narrowed(tmp_path)
    assert (usual.na, usual.pixel_size_spread) == (pytest.approx((1.19, 1.21)), 0.01)


@pytest.mark.parametrize("camera", [(12, 0.24), (16, 0.01)])
def test_cells_are_no_brighter_than_the_camera_can_show(
    tmp_path: Path, camera: tuple[int, float]
) -> None:
    bits, gain = camera
    domain = narrowed(tmp_path, camera={"bit_depth": bits, "gain_e_per_adu": gain})
    most = domain.photons[1]
    assert domain.photons[0] < most < Domain().photons[1]
    brightest = domain.model_copy(update={"photons": (most, most), "background": (0.01, 0.01)})
    draw = modality("sim").draw_sequence
    assert draw is not None
    raw = draw((1, 2), 1, 64, brightest).raw()
    assert (raw >= 2**bits - 1).mean() < 0.01
    assert raw.max() > 0.2 * 2**bits


def test_light_that_the_camera_does_not_hold_is_refused(tmp_path: Path) -> None:
    config = rig(tmp_path, camera={"bit_depth": 12, "gain_e_per_adu": 0.5})
    with pytest.raises(ConfigError, match="5000 photo-electrons saturate this camera, which holds"):
        recipe_for(config, "", photons=(100, 5000))
    assert recipe_for(config, "", photons=(100, 500)).data.domain.photons == (100, 500)


def test_light_that_is_no_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the least first"):
        recipe_for(rig(tmp_path), "", photons=(300, 50))
    assert recipe_for(rig(tmp_path), "", photons=(50, 300)).data.domain.photons == (50, 300)


def test_training_begins_with_the_engine_and_the_engine_is_the_rigs(tmp_path: Path) -> None:
    config = rig(tmp_path, channels={"488 nm": {"separate": "imcsr-mt-mito"}})
    made, usual = recipe_for(config, "488 nm"), load_recipe("imcsr-mt-mito")
    assert (made.train.start, made.train.begin_as) == ("imcsr-mt-mito", {})
    assert made.train.loss.correlation > 0
    assert made.train.loss.balance == usual.train.loss.balance
    assert made.train.parameters == usual.train.parameters
    assert made.data.domain.structures == ("microtubules", "mitochondria")
    assert made.data.train < usual.data.train
    assert made.engine["id"] == "imcsr-mt-mito-my-scope-488-nm"
    engine = load_engine("imcsr-mt-mito").manifest.model_dump()
    manifest = Manifest(**{**engine, **made.engine})
    assert manifest.pixel_size_nm is not None
    assert manifest.resolution_nm is not None
    assert 40 in manifest.pixel_size_nm
    assert 600 / 2.4 in manifest.resolution_nm
    assert 525 / 2.4 not in manifest.resolution_nm
    assert made.rig is not None
    assert (made.rig.name, made.rig.channel, made.rig.recipe) == (
        "My Scope",
        "488 nm",
        "imcsr-mt-mito",
    )


@pytest.mark.parametrize(
    ("name", "channel", "end"),
    [
        ("Zürich 2", "488", "-zurich-2-488"),
        ("顕微鏡", "", "-own-rig"),
        ("???", "a/b", "-own-rig-a-b"),
        ("_" * 30 + "x" * 300, "y" * 300, "-" + "x" * 50),
    ],
)
def test_engines_have_names_of_their_own(tmp_path: Path, name: str, channel: str, end: str) -> None:
    (tmp_path / "rig.yaml").write_text(
        yaml.safe_dump({**RIG, "name": name, "channels": {channel: {}} if channel else {}})
    )
    made = recipe_for(load_rig(tmp_path), channel).engine
    assert made["id"] == DEFAULT_RECIPE + end
    Manifest(**{**load_engine(DEFAULT_RECIPE).manifest.model_dump(), **made})


def test_a_channel_without_a_name_is_the_only_one(tmp_path: Path) -> None:
    assert channel_for(rig(tmp_path, channels={"488": {}}), "") == "488"


def test_the_successor_of_a_rigs_engine_is_trained_alike(tmp_path: Path) -> None:
    shutil.copytree(load_engine("imcsr-mt-mito").folder, tmp_path / "mine")
    before = load_engine(tmp_path / "mine").manifest
    said = {"channels": {"488": {"separate": str(tmp_path / "mine")}}}
    for recipe in ("imcsr-mt-mito", "somebody-elses"):
        training = {**before.training, "recipe": recipe}
        of = before.model_copy(update={"id": "mine", "training": training})
        write_manifest(tmp_path / "mine", of)
        config = rig(tmp_path, **said)
        if recipe in names():
            made = recipe_for(config, "488")
            assert (made.rig and made.rig.recipe, made.train.start) == (recipe, recipe)
        else:
            with pytest.raises(ConfigError, match="say with --recipe which"):
                recipe_for(config, "488")


def test_a_channel_of_a_sum_is_trained_for_by_the_sums_recipe(tmp_path: Path) -> None:
    superposed = {"channels": ["a", "b"], "separate": "imcsr-mt-mito"}
    config = rig(tmp_path, channels={"a": {}, "b": {}}, superpose=superposed)
    made = recipe_for(config, channel_for(config, "b"))
    assert made.rig is not None
    assert made.rig.recipe == "imcsr-mt-mito"


def test_a_recipe_for_one_microscope_is_for_no_other(tmp_path: Path) -> None:
    config = rig(tmp_path)
    own = tmp_path / "recipe.json"
    own.write_text(recipe_for(config, "").model_dump_json())
    with pytest.raises(ConfigError, match=f"My Scope: give the one .* made of, {DEFAULT_RECIPE}"):
        recipe_for(config, "", str(own))


def test_there_are_no_more_pairs_than_the_recipe_says(tmp_path: Path) -> None:
    said = yaml.safe_load((FOLDER / f"{DEFAULT_RECIPE}.yaml").read_text())
    said["data"] |= {"train": 8, "validation": 4}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(said))
    data = recipe_for(rig(tmp_path), "", str(tmp_path / "own.yaml")).data
    assert (data.train, data.validation) == (8, 4)


@pytest.mark.parametrize(
    "recipe", [name for name in names() if load_recipe(name).data.kind == "separate"]
)
def test_shipped_engines_are_judged_as_ever(recipe: str) -> None:
    domain = load_recipe(recipe).data.domain
    same = {"structures": domain.structures, "haze_in_truth": domain.haze_in_truth}
    assert calibrated_like(domain) == CALIBRATED.model_copy(update=same)
    assert usual_like(domain) == Domain(**same)


def test_the_usual_range_of_a_rig_stays_the_rigs(tmp_path: Path) -> None:
    domain = narrowed(tmp_path).model_copy(update={"brightness_ratio": 10.0, "haze": (0.0, 9.0)})
    usual = usual_like(domain)
    assert (usual.pixel_size_um, usual.wiener, usual.na) == (0.08, (0.2, 0.2), domain.na)
    assert (usual.brightness_ratio, usual.haze) == (5.0, (0.0, 2.0))


def test_what_the_caller_says_of_the_training_holds(tmp_path: Path) -> None:
    made = recipe_for(rig(tmp_path), "", steps=7, minutes=None, lr=1e-5, start="somewhere")
    assert (made.train.steps, made.train.minutes) == (7, None)
    assert (made.train.lr, made.train.start) == (1e-5, "somewhere")


def test_without_weights_to_begin_with_the_recipes_training_stays(tmp_path: Path) -> None:
    made, usual = (
        recipe_for(rig(tmp_path), "", "imcsr-mt-er-lyso-paper"),
        load_recipe("imcsr-mt-er-lyso-paper"),
    )
    assert made.train == usual.train
    assert made.data.train == usual.data.train
    assert made.data.domain.wiener == (0.2, 0.2)
