"""Topology, size and start of the networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from livesr.training import networks
from livesr.training.networks import EDSR, IMCSR, RCAB, ResidualGroup

LIGHT = {"width": 8, "groups": 2, "blocks": 1, "unshuffle": 2}


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.3 + 0.2


def test_the_published_network_has_3_76_million_parameters() -> None:
    assert sum(p.numel() for p in IMCSR().parameters()) == 3_762_251


@pytest.mark.parametrize("head", ["sigmoid", "partition"])
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_output_has_one_image_of_the_input_size_per_structure(head: str, unshuffle: int) -> None:
    network = networks.build("imcsr", frames=3, channels=2, head=head, **{**LIGHT, "unshuffle": unshuffle})
    assert network(image(2, 3, 20, 28)).shape == (2, 2, 20, 28)


def test_partition_never_gives_out_more_light_than_the_middle_frame_has() -> None:
    frames = image(1, 3, 16, 16)
    assert frames.min() < 0  # a Wiener filter rings
    channels = IMCSR(head="partition", **LIGHT)(frames)
    assert channels.min() >= 0
    assert torch.all(channels.sum(1) <= frames[:, 1].clamp(min=0) + 1e-6)


def test_the_strided_first_convolution_is_the_3x3_one_on_unshuffled_input() -> None:
    network, frames = IMCSR(**LIGHT), image(1, 3, 12, 16)
    strided = network.head[0]
    width, inputs, r = LIGHT["width"], 3, 2
    kernel = strided.weight.reshape(width, inputs, 3, r, 3, r).permute(0, 1, 3, 5, 2, 4).reshape(width, -1, 3, 3)
    expected = F.conv2d(F.pixel_unshuffle(frames, r), kernel, strided.bias, padding=1)
    torch.testing.assert_close(strided(frames), expected, atol=1e-5, rtol=1e-5)


def test_a_group_skips_from_its_input_to_the_output_of_its_last_block() -> None:
    group, x = ResidualGroup(8, 2, 4, "gelu_erf"), image(1, 8, 6, 6)
    assert [type(block) for block in group.blocks] == [RCAB, RCAB]
    torch.testing.assert_close(group(x), (x + group.blocks[1](group.blocks[0](x))) / 2)


@pytest.mark.parametrize("head", ["sigmoid", "partition"])
def test_the_start_is_neither_saturated_nor_loud(head: str) -> None:
    torch.manual_seed(0)
    network = IMCSR(groups=5, blocks=3, width=16, head=head)
    logits = network.out(network.tail(network.body(network.head(image(1, 3, 32, 32)))))
    assert logits.std() < 1.5
    assert logits.abs().max() < 6


def test_output_stays_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert IMCSR(head="partition", **LIGHT)(image(1, 3, 16, 16)).dtype == torch.float32


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_upscales(scale: int) -> None:
    network = EDSR(scale, blocks=1, width=8, residual_scaling=0.1)
    assert network(image(1, 1, 9, 7)).shape == (1, 1, 9 * scale, 7 * scale)
    assert len(network.upsample) == (4 if scale == 4 else 2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"frames": 2}, "odd"), ({"head": "softmax"}, "partition"), ({"activation": "swish"}, "gelu_erf")],
)
def test_what_cannot_be_built_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.build("imcsr", **{**LIGHT, **parameters})


def test_unknown_names_and_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="imcsr, edsr"):
        networks.build("unet")
    with pytest.raises(ValueError, match="2, 3 or 4"):
        EDSR(5)


def test_a_saved_network_comes_back_the_same(tmp_path: Path) -> None:
    network = IMCSR(head="partition", **LIGHT)
    networks.save(tmp_path / "weights.pt", network, "imcsr", {"head": "partition", **LIGHT})
    frames = image(1, 3, 16, 16)
    torch.testing.assert_close(networks.load(tmp_path / "weights.pt")(frames), network(frames), rtol=0, atol=0)
