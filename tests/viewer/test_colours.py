"""Colours that must be told apart, seen by eyes that lack one kind of cone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, xyz2lab

from livesr.viewer.composite import DEFAULT_COLORS, SAFE_COLORS, rgb_of
from livesr.viewer.overlay import INVENTED, MISSING

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "all cones": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}
_XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.072175],
    [0.0193339, 0.119192, 0.9503041],
]
SAFE = [SAFE_COLORS.get(color, color) for color in DEFAULT_COLORS.values()]


def difference(
    one: tuple[int, int, int], other: tuple[int, int, int], eye: str, light: float = 1.0
) -> float:
    """CIEDE2000; 1 is just visible side by side, 10 at a glance."""

    def lab(color: tuple[int, int, int]) -> np.ndarray:
        share = np.array(color) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) * light
        return xyz2lab((_XYZ @ np.clip(np.array(EYES[eye]) @ linear, 0, 1))[None, None])[0, 0]

    return float(deltaE_ciede2000(lab(one), lab(other)))


@pytest.mark.parametrize("eye", EYES)
def test_safe_colours_are_told_apart_at_a_glance(eye: str) -> None:
    for one, other in combinations(map(rgb_of, SAFE), 2):
        assert difference(one, other, eye) > 20, (one, other)
        assert difference(one, other, eye, light=0.3) > 15, (one, other)


@pytest.mark.parametrize("eye", EYES)
def test_the_two_sides_of_the_residual_are_told_apart_at_a_glance(eye: str) -> None:
    assert difference(INVENTED, MISSING, eye) > 40


def test_why_the_colours_of_the_paper_need_a_substitute() -> None:
    green, yellow = rgb_of(DEFAULT_COLORS["microtubules"]), rgb_of(DEFAULT_COLORS["lysosomes"])
    assert difference(green, yellow, "all cones") > 20
    assert difference(green, yellow, "protan") < 10
    assert difference(green, yellow, "deutan") < 10
