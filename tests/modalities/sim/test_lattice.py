"""All directions in every raw frame: hexagonal SIM of seven frames, a square lattice of five; and
two directions one after the other.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.base.config import load_rig
from livesr.base.errors import CalibrationError, ConfigError
from livesr.base.geometry import Geometry
from livesr.check.rig import check_rig
from livesr.modalities.calibrator import CalibrationSettings
from livesr.modalities.sim.calibration.channel import SIMCalibrator
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.sim import calibrate
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.modality import SIM
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.optics.illumination import Pattern
from livesr.optics.otf import otf
from livesr.optics.similarity import pcc
from pattern_light import illumination

SHAPE, PIXEL_UM, NA, EMISSION_UM = (160, 160), 0.065, 1.49, 0.525
K_UM, DAMPING = 4.6, 0.7
OPTICS = Optics(PIXEL_UM, NA, EMISSION_UM)
KINDS = {"hexagonal": (14.0, 134.0, 254.0), "square": (71.0, -19.0)}


def directions(kind: str) -> list[tuple[float, float]]:
    radians = np.radians(KINDS[kind])
    return [(float(K_UM * np.sin(a)), float(K_UM * np.cos(a))) for a in radians]


def lattice(kind: str) -> Pattern:
    first, *others = directions(kind)
    parts = tuple((0.7 * h - 1.0, 0.45 - 0.04 * h) for h in range(len(others)))
    return Pattern(first, 0.4, 0.5, parts, tuple(others))


def specimen() -> NDArray[np.float64]:
    """Points and crossing lines, on the grid of the result; their light is on average 1."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: 2 * SHAPE[0], : 2 * SHAPE[1]]
    image = 40.0 * (rng.random(y.shape) > 0.997)
    for _ in range(40):
        a, where = rng.uniform(0, np.pi), rng.uniform(-1, 1) * SHAPE[0]
        line = (y - SHAPE[0]) * np.cos(a) + (x - SHAPE[1]) * np.sin(a) - where
        image += np.exp(-(line**2) / 2)
    return np.asarray(image / image.mean())


def exposed(kind: str, photons: float = 300.0, times: int = 1) -> NDArray[np.uint16]:
    """Raw groups (t, n, y, x): the light by its formula, not by livesr's separation."""
    rng, n = np.random.default_rng(1), 2 * len(KINDS[kind]) + 1
    y, x = np.mgrid[: 2 * SHAPE[0], : 2 * SHAPE[1]] * (PIXEL_UM / 2)
    response = otf((2 * SHAPE[0], 2 * SHAPE[1]), PIXEL_UM / 2, NA, EMISSION_UM, damping=DAMPING)
    seen = []
    for i in range(n):
        light = np.ones(y.shape)
        for h, wave in enumerate(lattice(kind).waves, start=1):
            turn = 2 * np.pi * (wave.k_um[0] * y + wave.k_um[1] * x) + wave.phase_rad
            light += wave.modulation * np.cos(turn + h * 2 * np.pi * i / n)
        blurred = np.fft.ifft2(np.fft.fft2(specimen() * light) * response).real
        seen.append(blurred[::2, ::2])
    expected = np.maximum(np.asarray(seen), 0) * photons
    return np.asarray(rng.poisson(np.stack([expected] * times)) + 100, np.uint16)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def raw(kind: str) -> NDArray[np.uint16]:
    return exposed(kind)


def reconstructor(kind: str, **settings: object) -> SIMReconstructor:
    n = 2 * len(KINDS[kind]) + 1
    given = SIMParameters(
        SHAPE, PIXEL_UM, NA, EMISSION_UM, order=[(0, i) for i in range(n)], damping=DAMPING
    )
    return SIMReconstructor(given, [lattice(kind)], QualityLimits(), **settings)


def test_every_direction_is_resolved(kind: str, raw: NDArray[np.uint16]) -> None:
    sim = reconstructor(kind)
    image, inside = sim.reconstruct(raw[0]), slice(40, -40)
    assert sim.quality is not None
    assert sim.quality.doubt == ""
    truth = np.fft.ifft2(np.fft.fft2(specimen()) * sim.transfer).real[inside, inside]
    assert pcc(image[inside, inside], truth) > 0.97
    assert pcc(sim.widefield(raw[0])[inside, inside], truth) < 0.9


def test_a_pattern_that_moved_is_seen(kind: str, raw: NDArray[np.uint16]) -> None:
    sim = reconstructor(kind)
    sim.reconstruct(np.roll(raw[0], 2, axis=0))
    assert sim.quality is not None
    assert "rad from where rig.yaml says" in sim.quality.doubt


def test_directions_phases_and_modulation_are_found(kind: str, raw: NDArray[np.uint16]) -> None:
    n, true = len(raw[0]), lattice(kind).waves
    order = [(0, i) for i in range(n)]
    found = calibrate(raw, OPTICS, angles=1, harmonics=len(true), order=order, lattice=True)
    (pattern,) = found.patterns
    for wave, known in zip(pattern.waves, true, strict=True):
        sign = 1 if np.dot(wave.k_um, known.k_um) > 0 else -1
        np.testing.assert_allclose(sign * np.array(wave.k_um), known.k_um, atol=0.006)
        off = np.exp(1j * (sign * wave.phase_rad - known.phase_rad))
        assert abs(np.angle(off)) < 0.25
        assert wave.modulation == pytest.approx(known.modulation, abs=0.07)
    assert found.optics.damping == pytest.approx(DAMPING, abs=0.1)


def test_frames_of_another_kind_are_refused(kind: str) -> None:
    rng = np.random.default_rng(0)
    n = 2 * len(KINDS[kind]) + 1
    even = rng.poisson(300 * np.ones((1, n, *SHAPE))) + 100
    with pytest.raises(CalibrationError):
        calibrate(
            even.astype(np.uint16),
            OPTICS,
            angles=1,
            harmonics=len(KINDS[kind]),
            order=[(0, i) for i in range(n)],
            lattice=True,
        )


def rig_of(kind: str, folder: Path) -> Path:
    source = Path(__file__).parents[3] / "hardware_configs" / "virtual_sim"
    shutil.copytree(source, folder)
    text = (source / "rig.yaml").read_text(encoding="utf-8")
    start, end = text.index("\nsim:\n"), text.index("# Exposure of one raw frame")
    n = len(KINDS[kind])
    section = f"\nsim: {{angles: 1, phases: {2 * n + 1}, harmonics: {n}, waves: lattice}}\n\n"
    text = text[:start] + section + text[end:]
    (folder / "rig.yaml").write_text(
        "\n".join(line for line in text.splitlines() if "separate:" not in line), encoding="utf-8"
    )
    return folder


def test_a_calibration_is_written_and_read(
    kind: str, raw: NDArray[np.uint16], tmp_path: Path
) -> None:
    folder = rig_of(kind, tmp_path / "rig")
    rig, camera = load_rig(folder), Geometry(SHAPE, "uint16", PIXEL_UM)
    made = SIMCalibrator(rig).calibrate("488", camera, raw, CalibrationSettings())
    made.draw(tmp_path / "calibration.png")
    assert len(made.table().rows) == len(KINDS[kind])
    made.save(folder / "rig.yaml")
    again = load_rig(folder)
    sim = SIM().build(again, "488", camera)
    image, inside = sim.reconstruct(list(raw[0])), slice(40, -40)
    truth = np.fft.ifft2(np.fft.fft2(specimen()) * sim.transfer).real[inside, inside]
    assert sim.quality is not None
    assert sim.quality.resolved
    assert pcc(image[inside, inside], truth) > 0.96


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"angles": 3, "phases": 7}, "angles is 1"),
        ({"phases": 5}, "do not separate 3 waves"),
        ({"waves": "overtones"}, "no other has one"),
    ],
)
def test_what_is_no_lattice_is_refused(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    folder = rig_of("hexagonal", tmp_path / "rig")
    first, *others = directions("hexagonal")
    waves = [{"k_um": k, "phase_rad": 0.0, "modulation": 0.5} for k in others]
    pattern = {"k_um": first, "phase_rad": 0.0, "modulation": 0.5, "overtones": waves}
    known = {"angles": 1, "phases": 7, "harmonics": 3, "waves": "lattice", "patterns": [pattern]}
    SIMConfig.model_validate(known)
    with pytest.raises(ValueError, match=said):
        SIMConfig.model_validate({**known, **changes})
    text = (folder / "rig.yaml").read_text(encoding="utf-8")
    (folder / "rig.yaml").write_text(text.replace("harmonics: 3", "harmonics: 1"), encoding="utf-8")
    with pytest.raises(ConfigError, match="harmonics counts them"):
        load_rig(folder)


def test_a_lattice_is_the_same_light_from_every_origin_and_side(kind: str) -> None:
    pattern, origin = lattice(kind), (11.0, 7.0)
    whole = illumination(SHAPE, PIXEL_UM, pattern, 0.9)
    part = illumination((40, 50), PIXEL_UM, pattern, 0.9, origin)
    np.testing.assert_allclose(part, whole[11:51, 7:57], atol=1e-5)
    turned = illumination(SHAPE, PIXEL_UM, pattern.reversed(), -0.9)
    np.testing.assert_allclose(turned, whole, atol=1e-5)
    flipped = illumination(SHAPE, PIXEL_UM, pattern.mirrored((True, False)), 0.9, (-159.0, 0.0))
    np.testing.assert_allclose(flipped, whole[::-1], atol=1e-4)


def test_two_directions_are_calibrated_and_resolved() -> None:
    radians, order = np.radians((20.0, 110.0)), [(a, p) for a in range(2) for p in range(3)]
    patterns = [Pattern((K_UM * np.sin(a), K_UM * np.cos(a)), 0.3 + a, 0.7) for a in radians]
    fine = (2 * SHAPE[0], 2 * SHAPE[1])
    response = otf(fine, PIXEL_UM / 2, NA, EMISSION_UM, damping=DAMPING)
    rng, seen = np.random.default_rng(2), []
    for a, p in order:
        light = illumination(fine, PIXEL_UM / 2, patterns[a], 2 * np.pi * p / 3)
        seen.append(np.fft.ifft2(np.fft.fft2(specimen() * light) * response).real[::2, ::2])
    raw = (rng.poisson(np.maximum(np.asarray(seen)[None], 0) * 300) + 100).astype(np.uint16)
    found = calibrate(raw, OPTICS, angles=2)
    assert found.order == order
    assert {round(f.direction_deg % 180) for f in found.found} == {20, 110}
    given = SIMParameters(SHAPE, PIXEL_UM, NA, EMISSION_UM, order=order, damping=DAMPING)
    sim, inside = SIMReconstructor(given, found.patterns, QualityLimits()), slice(40, -40)
    image = sim.reconstruct(raw[0])
    assert sim.quality is not None
    assert sim.quality.doubt == ""
    truth = np.fft.ifft2(np.fft.fft2(specimen()) * sim.transfer).real[inside, inside]
    assert pcc(image[inside, inside], truth) > 0.97


def test_a_calibrated_lattice_is_plausible(
    kind: str, raw: NDArray[np.uint16], tmp_path: Path
) -> None:
    folder = rig_of(kind, tmp_path / "rig")
    rig, camera = load_rig(folder), Geometry(SHAPE, "uint16", PIXEL_UM)
    SIMCalibrator(rig).calibrate("488", camera, raw, CalibrationSettings()).save(
        folder / "rig.yaml"
    )
    findings = check_rig(folder / "rig.yaml")
    assert not [f for f in findings if f.level in ("error", "warning")]
