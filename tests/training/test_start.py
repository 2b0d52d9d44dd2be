"""Weights of another network: what draws the same is taken over, whatever place it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from livesr.training import networks
from livesr.training.recipes import load_recipe
from livesr.training.settings import TrainConfig
from livesr.training.start import Start, begin_with

TINY = {"width": 8, "groups": 1, "blocks": 1, "reduction": 4, "unshuffle": 2}
CHANCE = None
MORE = {"correction of the frame": "correction of the frame", "no structure": "no structure"}
LIGHT = ("Microtubules", "ER", "Lysosomes")


def made(structures: int, seed: int, architecture: str = "imcsr", **more: Any) -> nn.Module:
    torch.manual_seed(seed)
    sizes = TINY if architecture.startswith("imcsr") else {}
    return networks.build(architecture, channels=structures, **sizes, **more)


def stored(
    folder: Path, names: tuple[str, ...], *, said: bool = True, **more: Any
) -> dict[str, torch.Tensor]:
    """Write a network that draws `names` into `folder`; return its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    network = made(len(names), 1, **more)
    architecture = more.pop("architecture", "imcsr")
    sizes = TINY if architecture.startswith("imcsr") else {}
    parameters = {"channels": len(names), **sizes, **more}
    networks.save(
        folder / "best.pt", network, architecture, parameters, structures=names if said else ()
    )
    return dict(network.state_dict())


def images(tensors: dict[str, torch.Tensor], number: int) -> list[torch.Tensor]:
    """Return the rows of each image of the last convolution."""
    return list(tensors["out.weight"].split(len(tensors["out.weight"]) // number))


def test_a_structure_begins_with_its_own_output_wherever_it_stands(tmp_path: Path) -> None:
    """Of three structures and none, five images; of two, unknown light and none, five as well."""
    light = images(stored(tmp_path, LIGHT, head="restore"), 5)
    network = made(2, seed=2, head="restore", unknown=True)
    chance = images({k: v.clone() for k, v in network.state_dict().items()}, 5)
    start = begin_with(network, str(tmp_path), ("Mitochondria", "microtubules"))
    correction, mitochondria, microtubules, unknown, none = images(network.state_dict(), 5)
    assert torch.equal(correction, light[0])
    assert torch.equal(mitochondria, chance[1])
    assert torch.equal(microtubules, light[1])
    assert torch.equal(unknown, chance[3])
    assert torch.equal(none, light[4])
    assert start.outputs == {
        **MORE,
        "Mitochondria": CHANCE,
        "microtubules": "Microtubules",
        "unknown light": CHANCE,
    }
    assert start.note == ""
    assert network.out.bias.split(4)[3].tolist() == [-2.0] * 4  # little unknown light at first


def test_a_structure_begins_with_its_own_haze_wherever_it_stands(tmp_path: Path) -> None:
    hazy = {"head": "restore", "unknown": True, "haze": True}
    stored(tmp_path, LIGHT, **hazy)
    weights = torch.load(tmp_path / "best.pt", weights_only=True)
    weights["state"]["haze.factors.weight"] = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(4, 1, 1, 1)
    torch.save(weights, tmp_path / "best.pt")
    for names, factors in (
        (("ER", "Mitochondria", "Microtubules"), [0.2, 1.0, 0.1, 0.4]),
        (("Lysosomes", "ER"), [0.3, 0.2, 0.4]),
    ):
        network = made(len(names), seed=2, **hazy)
        begin_with(network, str(tmp_path), names)
        assert network.haze.factors.weight.flatten().tolist() == pytest.approx(factors)
    pits = made(1, seed=2, head="restore", unknown=True, haze=[0.7, 0.5])
    begin_with(pits, str(tmp_path), ("CCPs",), {"CCPs": "Lysosomes"})  # they look alike, no more
    assert pits.haze.factors.weight.flatten().tolist() == pytest.approx([0.7, 0.4])
    stored(tmp_path, LIGHT, head="restore")  # shares out none
    begin_with(network, str(tmp_path), names)
    assert network.haze.factors.weight.flatten().tolist() == pytest.approx([0.3, 0.2, 0.4])


def test_it_is_told_in_words_and_kept(tmp_path: Path) -> None:
    stored(tmp_path, LIGHT, head="restore")
    start = begin_with(
        made(2, 2, head="restore"),
        str(tmp_path),
        ("CCPs", "Mitochondria"),
        {"ccps": "LYSOSOMES"},
    )
    assert start.words().endswith(
        "; outputs taken over: correction of the frame, CCPs (as Lysosomes), no structure;"
        " from chance: Mitochondria."
    )
    assert Start(**json.loads(json.dumps(start.to_json()))) == start


def test_a_structure_of_the_same_name_comes_before_another(tmp_path: Path) -> None:
    stored(tmp_path, ("CCPs", "Lysosomes"), head="restore")
    network = made(1, 2, head="restore")
    start = begin_with(network, str(tmp_path), ("CCPs",), {"CCPs": "Lysosomes"})
    assert start.outputs["CCPs"] == "CCPs"


@pytest.mark.parametrize(
    ("head", "other", "taken"),
    [
        ("partition", "restore", {"Microtubules", "no structure"}),
        ("restore", "partition", {"Microtubules", "no structure"}),
        ("sigmoid", "restore", set()),  # an image there, a logit here
        ("sigmoid", "sigmoid", {"Microtubules"}),
    ],
)
def test_what_heads_have_in_common(tmp_path: Path, head: str, other: str, taken: set[str]) -> None:
    stored(tmp_path, LIGHT, head=head)
    start = begin_with(made(2, 2, head=other), str(tmp_path), ("Microtubules", "Mitochondria"))
    assert {image for image, of in start.outputs.items() if of} == taken
    assert start.tensors == start.of - 2 * (not taken)


@pytest.mark.parametrize("architecture", ["rcan", "unet", "dfcan"])
def test_other_networks_likewise(tmp_path: Path, architecture: str) -> None:
    former = stored(tmp_path, ("ER", "Microtubules"), architecture=architecture)
    network = made(2, 2, architecture)
    begin_with(network, str(tmp_path), ("Microtubules", "ER"))
    ours, theirs = images(network.state_dict(), 2), images(former, 2)
    assert torch.equal(ours[0], theirs[1])
    assert torch.equal(ours[1], theirs[0])


def test_a_network_of_each_structure_is_taken_whole(tmp_path: Path) -> None:
    former = stored(tmp_path, ("ER", "Lysosomes"), architecture="imcsr-single")
    network = made(2, 2, "imcsr-single")
    start = begin_with(network, str(tmp_path), ("Microtubules", "ER"))
    own = network.state_dict()
    for name, tensor in former.items():
        if name.startswith("networks.0."):
            assert torch.equal(own[f"networks.1.{name.removeprefix('networks.0.')}"], tensor)
    assert not torch.equal(own["networks.0.out.weight"], former["networks.0.out.weight"])
    assert start.outputs == {"Microtubules": CHANCE, "ER": "ER"}
    assert start.tensors == start.of // 2


def test_weights_that_say_nothing_are_taken_in_their_order_and_that_is_said(tmp_path: Path) -> None:
    light = images(stored(tmp_path, LIGHT, said=False, head="restore"), 5)
    network = made(3, 2, head="restore", unknown=True)
    start = begin_with(network, str(tmp_path), LIGHT)
    for ours, theirs in zip([0, 1, 2, 3, 5], range(5), strict=True):
        assert torch.equal(images(network.state_dict(), 6)[ours], light[theirs])
    assert "do not say which structures" in start.words()


def test_of_another_number_of_structures_that_say_nothing_none_is_taken(tmp_path: Path) -> None:
    stored(tmp_path, LIGHT, said=False, head="restore")
    start = begin_with(made(2, 2, head="restore"), str(tmp_path), ("Microtubules", "ER"))
    assert start.outputs == {**MORE, "Microtubules": CHANCE, "ER": CHANCE}
    assert "begin from chance" in start.words()


def test_a_run_that_was_made_before_weights_said_it_has_its_recipe(tmp_path: Path) -> None:
    stored(tmp_path, LIGHT, said=False, head="restore")
    recipe = load_recipe("imcsr-mt-er-lyso-light")
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(), encoding="utf-8")
    start = begin_with(made(1, 2, head="restore"), str(tmp_path / "best.pt"), ("ER",))
    assert (start.outputs["ER"], start.note) == ("ER", "")


def test_weights_of_a_network_that_nobody_can_build_fit_by_shape(tmp_path: Path) -> None:
    network = made(2, 1, head="restore")
    networks.save(tmp_path / "best.pt", network, "ours", {})
    start = begin_with(made(2, 2, head="restore"), str(tmp_path), ("Microtubules", "ER"))
    assert start.tensors == start.of
    assert "taken by their shapes" in start.words()


@pytest.mark.parametrize(
    ("recipe", "chance"),
    [
        ("imcsr-ccp-mt-er", set()),
        ("imcsr-mt-mito", {"Mitochondria"}),
        ("imcsr-mt-er-lyso", set()),
    ],
)
def test_the_recipes_begin_with_the_light_engine(recipe: str, chance: set[str]) -> None:
    chosen = load_recipe(recipe)
    names = tuple(channel["name"] for channel in chosen.engine["channels"])
    network = networks.build(chosen.train.architecture, **chosen.train.parameters)
    start = begin_with(network, chosen.train.start, names, chosen.train.begin_as)
    assert {image for image, of in start.outputs.items() if not of} == chance
    assert start.note == ""
    if recipe == "imcsr-ccp-mt-er":
        assert start.outputs["CCPs"] == "Lysosomes"


def test_a_network_that_draws_no_structures_has_no_outputs_to_tell() -> None:
    chosen = load_recipe("edsr-x3")
    network = networks.build(chosen.train.architecture, **chosen.train.parameters)
    start = begin_with(network, "edsr-x2", ("Upscaled",))
    assert start.outputs == {}
    assert start.words().endswith("tensors of edsr-x2.")
    assert 0 < start.tensors < start.of


def test_a_name_that_network_or_start_does_not_have_is_refused(tmp_path: Path) -> None:
    stored(tmp_path, LIGHT, head="restore")
    network = made(1, 2, head="restore")
    with pytest.raises(ValueError, match="begin_as names Pits, and this network draws CCPs"):
        begin_with(network, str(tmp_path), ("CCPs",), {"Pits": "Lysosomes"})
    with pytest.raises(ValueError, match="names Lysosmes, and the start draws Microtubules, ER"):
        begin_with(network, str(tmp_path), ("CCPs",), {"CCPs": "Lysosmes"})


def test_a_recipe_without_a_start_has_nothing_to_begin_as() -> None:
    with pytest.raises(ValueError, match="give start, or leave it out"):
        TrainConfig(steps=1, begin_as={"CCPs": "Lysosomes"})


def test_a_checkpoint_of_before_goes_on() -> None:
    kept = TrainConfig(steps=1, start="edsr-x2").identity()
    assert "begin_as" not in kept
    assert "begin_as" in TrainConfig(steps=1, start="a", begin_as={"A": "B"}).identity()


def test_what_is_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    torch.save({"model": {}}, tmp_path / "other.pt")
    network = made(1, 2, head="restore")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        begin_with(network, str(tmp_path / "junk.pt"))
    with pytest.raises(ValueError, match="holds no weights that livesr train wrote"):
        begin_with(network, str(tmp_path / "other.pt"))
