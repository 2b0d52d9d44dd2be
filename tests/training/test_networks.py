"""Topology, size and start of the networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from livesr.training import networks
from livesr.training.networks import DFCAN, EDSR, IMCSR, RCAN, IMCSRSingle, UNet, classic
from livesr.training.networks.dfcan import FourierAttention
from livesr.training.networks.imcsr import RCAB, ResidualGroup
from livesr.training.networks.layers import Enlarge
from livesr.training.networks.rcan import RCAGroup

LIGHT = {"width": 8, "groups": 2, "blocks": 1, "unshuffle": 2}


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.3 + 0.2


def size(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# The authors' code of EDSR and RCAN has 3 colours in and out: one colour costs 9 weights a feature
# at the first convolution, and as many at the last, with its bias. RCAN's 15.59 million and EDSR's
# 1.37 and 40.7 to 43.7 million are the papers'.
PUBLISHED = {
    "IMC-SR 5 x 10 x 64": (lambda: IMCSR(), 3_762_251),
    "IMC-SR without TC": (lambda: IMCSR(frames=1), 3_762_251 - 2 * 9 * 64),
    "EDSR baseline x2": (lambda: EDSR(2), 1_369_859 - 2 * 9 * 64 - 2 * (9 * 64 + 1)),
    "EDSR full x2": (lambda: EDSR(2, 32, 256, 0.1), 40_729_603 - 2 * 9 * 256 - 2 * (9 * 256 + 1)),
    "EDSR full x3": (lambda: EDSR(3, 32, 256, 0.1), 43_680_003 - 2 * 9 * 256 - 2 * (9 * 256 + 1)),
    "EDSR full x4": (lambda: EDSR(4, 32, 256, 0.1), 43_089_923 - 2 * 9 * 256 - 2 * (9 * 256 + 1)),
    "RCAN x4": (lambda: RCAN(3, 3, scale=4), 15_592_355),
    "U-Net": (lambda: UNet(1, 1), 31_030_593),
    "DFCAN x2": (lambda: DFCAN(1, 1, scale=2), 1_930_753),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_as_many_parameters_as_the_published_one(name: str) -> None:
    make, expected = PUBLISHED[name]
    with torch.device("meta"):
        network = make()
    assert size(network) == expected


# Kernels without biases, as these papers count: SRCNN's 8,032 and 57,184 (of its journal version),
# FSRCNN's 12,464, DRCN's 1,774 K, DRRN's 297 K, MemNet's 677 K and LapSRN's 812 K are the papers'
# (of LapSRN without the enlarging of images), VDSR's 665 K is what others state of it. ESPCN's is
# computed from its widths.
KERNELS = {
    "SRCNN 9-1-5": (lambda: classic.SRCNN(), 8_032),
    "SRCNN 9-5-5": (lambda: classic.SRCNN(sides=(9, 5, 5)), 57_184),
    "FSRCNN (56, 12, 4)": (lambda: classic.FSRCNN(), 12_464),
    "ESPCN x3": (lambda: classic.ESPCN(3), 25 * 64 + 9 * 64 * 32 + 9 * 32 * 9),
    "VDSR": (lambda: classic.VDSR(), 664_704),
    "DRCN": (lambda: classic.DRCN(), 1_774_080 + 16),
    "DRRN B1 U25": (lambda: classic.DRRN(), 297_216),
    "MemNet M6 R6": (lambda: classic.MemNet(), 676_992 + 6),
    "LapSRN x4": (lambda: classic.LapSRN(4), 812_736 + 2 * 16),
}

# With biases. The authors' RDN has 3 colours; SRResNet's 1.5 and MDSR's 8.0 million are those of
# EDSR's table 1, in 3 colours.
ALL = {
    "RDN x2": (lambda: classic.RDN(), 22_123_395 - 2 * 9 * 64 - 2 * (9 * 64 + 1), 0),
    "SRResNet x4": (lambda: classic.SRResNet(4), 1_500_000, 50_000),
    "MDSR": (lambda: classic.MDSR(), 8_000_000, 50_000),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_classic_network_has_the_kernels_of_its_paper(name: str) -> None:
    make, expected = KERNELS[name]
    with torch.device("meta"):
        trained = [p for p in make().parameters() if p.requires_grad and p.ndim == 4]
    assert sum(p.numel() for p in trained) == expected


@pytest.mark.parametrize("name", ALL)
def test_a_classic_network_is_as_large_as_its_paper_says(name: str) -> None:
    make, expected, rounding = ALL[name]
    with torch.device("meta"):
        assert abs(size(make()) - expected) <= rounding


def test_srdensenet_has_69_layers_with_weights() -> None:
    with torch.device("meta"):
        layers = [m for m in classic.SRDenseNet(4).modules() if hasattr(m, "kernel_size")]
    assert len(layers) == 69


CLASSIC: dict[str, dict[str, object]] = {
    "srcnn": {"width": 8},
    "fsrcnn": {"width": 8, "shrunk": 4, "mappings": 2},
    "espcn": {"widths": (8, 4)},
    "vdsr": {"width": 8, "depth": 4},
    "drcn": {"width": 8, "recursions": 3},
    "drrn": {"width": 8, "units": 2},
    "srresnet": {"width": 8, "blocks": 1},
    "srdensenet": {"blocks": 2, "layers": 2, "growth": 4, "width": 8},
    "memnet": {"blocks": 2, "recursions": 2, "width": 8},
    "lapsrn": {"depth": 2, "width": 8},
    "mdsr": {"blocks": 1, "width": 8},
    "rdn": {"blocks": 2, "layers": 2, "growth": 8, "width": 8},
}


@pytest.mark.parametrize("architecture", CLASSIC)
def test_a_classic_network_enlarges_by_each_of_its_scales(architecture: str) -> None:
    for scale in networks.NETWORKS[architecture].scales:
        network = networks.build(architecture, scale=scale, **CLASSIC[architecture])
        assert network(image(1, 1, 9, 7)).shape == (1, 1, 9 * scale, 7 * scale)
    with pytest.raises(ValueError, match="scale must be"):
        networks.build(architecture, scale=5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_is_the_cubic_convolution_of_pillow(scale: int) -> None:
    picture = image(1, 1, 12, 14)
    expected = Image.fromarray(picture[0, 0].numpy()).resize(
        (14 * scale, 12 * scale), Image.Resampling.BICUBIC
    )
    inside = (slice(3 * scale, -3 * scale),) * 2  # Pillow has weights of its own at the edges
    enlarged = Enlarge(scale)(picture)[0, 0].numpy()
    np.testing.assert_allclose(enlarged[inside], np.asarray(expected)[inside], atol=1e-5)


def test_imcsr_single_is_one_network_per_structure() -> None:
    torch.manual_seed(1)
    single, frames = IMCSRSingle(3, 2, **LIGHT), image(1, 3, 8, 8)
    assert size(single) == 2 * size(IMCSR(3, 1, **LIGHT))
    channels = single(frames)
    channels[:, 0].sum().backward()
    assert not any(p.grad.any() for p in single.networks[1].parameters()), (
        "the structures share nothing"
    )
    torch.testing.assert_close(channels[:, 1:], single.networks[1](frames))


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("imcsr", LIGHT),
        ("imcsr", {**LIGHT, "head": "restore"}),
        ("edsr", {"blocks": 2, "width": 8}),
        ("rcan", {"width": 8, "groups": 2, "blocks": 1}),
        ("unet", {"width": 4, "depth": 2}),
        ("unet", {"frames": 9, "channels": 1, "width": 4, "depth": 2, "scale": 2}),
        *((name, {"scale": 2, **few}) for name, few in CLASSIC.items()),
    ],
)
def test_nothing_beyond_the_halo_is_seen(architecture: str, parameters: dict[str, object]) -> None:
    network = networks.build(architecture, **parameters).eval()
    for name, module in network.named_modules():
        if name.endswith("squeeze"):  # the means of channel attention see the whole image
            torch.nn.init.zeros_(module.weight)
    side = 2 * network.halo + 4 * network.multiple_of
    side += -side % network.multiple_of
    frames = image(1, network.frames, side, side)
    changed = frames.clone()
    changed[..., -1] += 1
    difference = (network(changed) - network(frames)).abs().amax((0, 1, 2))
    seen = int(torch.nonzero(difference > 0)[0])
    reach = side * network.scale - 1 - seen
    assert reach <= (network.halo + network.multiple_of) * network.scale
    assert reach >= network.halo * network.scale / 2, "far too large a halo makes tiles slow"


def test_the_rcan_group_ends_with_a_convolution_inside_its_skip() -> None:
    group, x = RCAGroup(8, 2, 4), image(1, 8, 6, 6)
    assert isinstance(group.branch[-1], torch.nn.Conv2d)
    torch.testing.assert_close(group(x), x + group.branch(x))


def test_the_unet_has_23_convolutions_and_skips_on_every_level() -> None:
    network = UNet(1, 1, width=4)
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    assert sum(isinstance(m, kinds) for m in network.modules()) == 23
    assert [block[0].in_channels for block in network.up] == [64, 32, 16, 8]
    assert network(image(1, 1, 32, 48)).shape == (1, 1, 32, 48)


def test_fourier_attention_sees_the_spectrum_and_not_where_things_are() -> None:
    attention, x = FourierAttention(8, 4), image(1, 8, 16, 16)
    moved = torch.roll(x, (3, 5), (2, 3))
    torch.testing.assert_close(
        attention(moved), torch.roll(attention(x), (3, 5), (2, 3)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("raw", [3, 9, 15])
def test_raw_frames_go_in_and_one_frame_of_twice_the_sampling_comes_out(raw: int) -> None:
    for network in (
        UNet(raw, 1, width=4, depth=2, scale=2),
        RCAN(raw, 1, width=4, groups=1, blocks=1, reduction=2, scale=2),
        DFCAN(raw, 1, width=4, groups=1, blocks=1, reduction=2, scale=2),
    ):
        assert network(image(1, raw, 12, 16)).shape == (1, 1, 24, 32)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("make", [RCAN, DFCAN])
def test_comparators_separate_or_upscale(make: type[torch.nn.Module], scale: int) -> None:
    network = make(3, 2, width=8, groups=1, blocks=1, reduction=4, scale=scale)
    assert network(image(1, 3, 10, 14)).shape == (1, 2, 10 * scale, 14 * scale)


def test_the_restoring_head_can_remove_noise_and_shares_out_what_it_predicts() -> None:
    network, frames = IMCSR(head="restore", channels=2, **LIGHT), image(1, 3, 16, 16)
    correction = network.out.bias[: network.unshuffle**2]
    with torch.no_grad():
        network.out.weight.zero_()
        before = network(frames).sum(1)
        correction.add_(0.5)
        after = network(frames).sum(1)
    shares = 2 / (2 + torch.e)  # two structures at 0, "none" at 1
    torch.testing.assert_close(before, shares * frames[:, 1].relu())
    torch.testing.assert_close(after, shares * (frames[:, 1] + 0.5).relu())


@pytest.mark.parametrize("head", ["sigmoid", "partition", "restore"])
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_output_has_one_image_of_the_input_size_per_structure(head: str, unshuffle: int) -> None:
    network = networks.build(
        "imcsr", frames=3, channels=2, head=head, **{**LIGHT, "unshuffle": unshuffle}
    )
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
    kernel = (
        strided.weight.reshape(width, inputs, 3, r, 3, r)
        .permute(0, 1, 3, 5, 2, 4)
        .reshape(width, -1, 3, 3)
    )
    expected = F.conv2d(F.pixel_unshuffle(frames, r), kernel, strided.bias, padding=1)
    torch.testing.assert_close(strided(frames), expected, atol=1e-5, rtol=1e-5)


def test_a_group_skips_from_its_input_to_the_output_of_its_last_block() -> None:
    group, x = ResidualGroup(8, 2, 4, "gelu_erf"), image(1, 8, 6, 6)
    assert [type(block) for block in group.blocks] == [RCAB, RCAB]
    torch.testing.assert_close(group(x), (x + group.blocks[1](group.blocks[0](x))) / 2)


@pytest.mark.parametrize("head", ["sigmoid", "partition", "restore"])
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
    [
        ({"frames": 2}, "odd"),
        ({"head": "softmax"}, "partition"),
        ({"activation": "swish"}, "gelu_erf"),
        ({"head": "sigmoid", "unknown": True}, "left to 'unknown'"),
        ({"head": "sigmoid", "haze": True}, "left to 'haze'"),
    ],
)
def test_what_cannot_be_built_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.build("imcsr", **{**LIGHT, **parameters})


def test_unknown_names_and_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="imcsr, imcsr-single, edsr, rcan"):
        networks.build("resnet")
    with pytest.raises(ValueError, match="1, 2, 3 or 4"):
        RCAN(scale=5)
    with pytest.raises(ValueError, match="2, 3 or 4"):
        EDSR(5)


def test_a_saved_network_comes_back_the_same(tmp_path: Path) -> None:
    network = IMCSR(head="partition", **LIGHT)
    networks.save(tmp_path / "weights.pt", network, "imcsr", {"head": "partition", **LIGHT})
    frames = image(1, 3, 16, 16)
    torch.testing.assert_close(
        networks.load(tmp_path / "weights.pt")(frames), network(frames), rtol=0, atol=0
    )
