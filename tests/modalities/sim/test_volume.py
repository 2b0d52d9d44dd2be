"""Three-beam stacks: what is recovered of simulated beads, and what is refused."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import tifffile
from numpy.typing import NDArray
from typer.testing import CliRunner

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError, FrameShapeError
from livesr.base.geometry import Geometry
from livesr.check.store import check_store
from livesr.cli import app
from livesr.formats.store import RecordedStore
from livesr.modalities.registry import modality
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.stack import three_beam_stack
from livesr.modalities.sim.volume import Axial, ThreeBeamVolume
from livesr.optics.illumination import Pattern
from livesr.store import volumes
from livesr.store.raw_input import ReadAs, raw_input
from livesr.store.volumes import process_volumes
from recorded_runs import array, lines

RIG = Path(__file__).parents[3] / "hardware_configs" / "virtual_sim"
PLANES, SIDE, OFFSET = 16, 80, 100.0
AXIAL = Axial(0.125, 1.515, 0.488)
ORDER = [(angle, phase) for angle in range(3) for phase in range(5)]
OPTICS = SIMParameters((SIDE, SIDE), 0.08, 1.42, 0.528, order=ORDER, wiener=0.05)
K_UM = 2.457
BEADS = [(8, 60, 62), (5, 66, 100), (10, 90, 70), (8, 98, 96), (6, 80, 80)]
Float = NDArray[np.float32]


def patterns(turned_deg: float = 0.0, overtones: bool = True) -> list[Pattern]:
    angles = np.radians(np.array([46.1, 106.3, -13.7]) + turned_deg)
    extra = ((0.0, 1.0),) if overtones else ()
    return [Pattern((K_UM * np.sin(a), K_UM * np.cos(a)), 0.4 + a, 1.0, extra) for a in angles]


def beads() -> NDArray[np.float64]:
    density = np.zeros((PLANES, 2 * SIDE, 2 * SIDE))
    for place in BEADS:
        density[place] = 1e5
    return density


@pytest.fixture(scope="module")
def raw() -> NDArray[np.uint16]:
    expected = three_beam_stack(beads(), OPTICS, AXIAL, patterns())
    counted = np.random.default_rng(0).poisson(np.maximum(expected, 0) + 10)
    return (counted - 10 + OFFSET).clip(0).astype(np.uint16)


@pytest.fixture(scope="module")
def volume(raw: NDArray[np.uint16]) -> tuple[ThreeBeamVolume, Float]:
    made = ThreeBeamVolume(OPTICS, patterns(0.1), AXIAL, PLANES)
    return made, made.reconstruct(raw)


def fwhm(profile: NDArray[np.floating], step: float) -> float:
    """Width at half of the highest value, by straight lines between samples."""
    top = int(profile.argmax())
    ends = []
    for way in (profile[top::-1], profile[top:]):
        below = int(np.argmax(way < profile[top] / 2))
        high, low = way[below - 1], way[below]
        ends.append(below - 1 + (high - profile[top] / 2) / (high - low))
    return float(sum(ends) * step)


def test_beads_are_narrower_along_all_axes(
    raw: NDArray[np.uint16], volume: tuple[ThreeBeamVolume, Float]
) -> None:
    _, made = volume
    widefield = raw.mean(1) - OFFSET
    for z, y, x in BEADS:
        near = made[z - 1 : z + 2, y - 2 : y + 3, x - 2 : x + 3]
        assert near.max() == made[z - 3 : z + 4, y - 6 : y + 7, x - 6 : x + 7].max()
        axial = fwhm(made[:, y, x], 125), fwhm(widefield[:, y // 2, x // 2], 125)
        lateral = fwhm(made[z, y], 40), fwhm(widefield[z, y // 2], 80)
        assert axial[0] < 0.75 * axial[1]
        assert axial[0] < 390
        assert lateral[0] < 0.62 * lateral[1]


def crowd() -> NDArray[np.float64]:
    """Many beads, so that no pair of them decides."""
    rng, density = np.random.default_rng(3), np.zeros((PLANES, 2 * SIDE, 2 * SIDE))
    places = rng.integers((4, 45, 45), (PLANES - 4, 2 * SIDE - 45, 2 * SIDE - 45), (150, 3))
    density[tuple(places.T)] = 2e3
    return density


def test_a_stack_as_a_whole_is_nearer_to_the_truth_than_its_planes() -> None:
    optics = replace(OPTICS, offset_adu=5.0, wiener=0.1)
    raw = np.random.default_rng(0).poisson(
        np.maximum(three_beam_stack(crowd(), OPTICS, AXIAL, patterns()), 0) + 5
    )
    made = ThreeBeamVolume(optics, patterns(), AXIAL, PLANES)
    whole = made.reconstruct(raw)
    measured = [
        replace(
            pattern,
            phase_rad=float(np.angle(first.strength)),
            modulation=1.0,
            overtones=((float(np.angle(second.strength)), 2 * abs(second.strength)),),
        )
        for pattern, (first, second) in zip(patterns(), made.orders, strict=True)
    ]
    one = SIMReconstructor(optics, measured)
    planes = np.stack([np.array(one.reconstruct(plane)) for plane in raw])
    truth = scipy.ndimage.gaussian_filter(crowd(), (1.12, 1.17, 1.17))  # 330 nm and 110 nm wide
    inside = (slice(1, -1), slice(40, -40), slice(40, -40))
    likeness = [
        np.corrcoef(found[inside].ravel(), truth[inside].ravel())[0, 1] for found in (whole, planes)
    ]
    assert likeness[0] > 0.94
    assert likeness[0] > likeness[1] + 0.02


def test_the_patterns_are_measured_in_the_stack() -> None:
    expected = three_beam_stack(crowd(), OPTICS, AXIAL, patterns())
    made = ThreeBeamVolume(replace(OPTICS, offset_adu=0.0), patterns(0.1), AXIAL, PLANES)
    made.reconstruct(expected)
    assert not made.doubt
    assert len(made.found) == 6
    for (first, second), pattern in zip(made.orders, patterns(), strict=True):
        assert abs(first.strength) == pytest.approx(2 / 3, rel=0.06)
        assert abs(second.strength) == pytest.approx(1 / 3, rel=0.06)
        assert first.shift_um == 0
        assert first.k_um == pytest.approx(pattern.k_um, abs=0.005)
        turned = np.angle(second.strength * np.exp(-2j * pattern.phase_rad))
        assert abs(turned) < 0.25
        assert min(first.likeness, second.likeness) > 0.98


@pytest.fixture(scope="module")
def thick() -> dict[float, Float]:
    """Raw frames of one angle, cut out of a larger specimen along all axes, by the amplitude of the
    outer beams.
    """
    rng, density = np.random.default_rng(5), np.zeros((22, 192, 192))
    np.add.at(density, tuple(rng.integers(0, density.shape, (6000, 3)).T), 100.0)
    field = replace(OPTICS, shape=(96, 96), order=ORDER[:5])
    inside = (slice(4, -4), slice(None), slice(16, -16), slice(16, -16))
    return {
        outer: three_beam_stack(density, field, AXIAL, patterns()[:1], outer=outer)[inside]
        for outer in (1.0, 0.6)
    }


@pytest.mark.parametrize(
    ("outer", "background"),
    [
        pytest.param(1.0, 0.0, id="equal beams"),
        pytest.param(0.6, 0.0, id="a bright middle beam"),
        pytest.param(1.0, 2.0, id="light without pattern, as bright as twice the specimen"),
    ],
)
def test_modulations_are_those_of_a_specimen_that_goes_on_beyond_its_stack(
    thick: dict[float, Float], outer: float, background: float
) -> None:
    raw = thick[outer] + background * thick[outer].mean()
    optics = replace(OPTICS, shape=(64, 64), offset_adu=0.0, order=ORDER[:5])
    made = ThreeBeamVolume(optics, patterns(0.1)[:1], AXIAL, len(raw))
    made.reconstruct(raw)
    ((first, second),) = made.orders
    mean = 1 + 2 * outer**2
    assert 2 * abs(first.strength) == pytest.approx(4 * outer / mean, rel=0.07)
    assert 2 * abs(second.strength) == pytest.approx(2 * outer**2 / mean, rel=0.04)
    assert first.k_um == pytest.approx(patterns()[0].k_um, abs=0.003)
    assert min(first.likeness, second.likeness) > 0.8


def test_light_beside_the_focus_is_found() -> None:
    expected = three_beam_stack(crowd(), OPTICS, AXIAL, patterns(), shift_um=0.1)
    made = ThreeBeamVolume(replace(OPTICS, offset_adu=0.0), patterns(), AXIAL, PLANES)
    made.reconstruct(expected)
    assert all(first.shift_um == pytest.approx(0.1, abs=0.04) for first, _ in made.orders)


def test_frames_without_patterns_are_doubtful() -> None:
    noise = np.random.default_rng(1).poisson(400, (PLANES, 15, SIDE, SIDE)).astype(np.uint16)
    made = ThreeBeamVolume(OPTICS, patterns(), AXIAL, PLANES)
    made.reconstruct(noise)
    assert "likeness" in made.doubt


@pytest.mark.parametrize("file_order", ["angle,z,phase", "z,phase,angle", "phase,z,angle"])
def test_frames_in_another_order_are_refused_by_its_name(
    raw: NDArray[np.uint16], file_order: str
) -> None:
    names = ("z", "angle", "phase")
    frames = raw.reshape(PLANES, 3, 5, SIDE, SIDE)
    turned = frames.transpose(*(names.index(name) for name in file_order.split(",")), 3, 4)
    made = ThreeBeamVolume(OPTICS, patterns(), AXIAL, PLANES)
    with pytest.raises(ConfigError, match=f"--axes {file_order},y,x"):
        made.reconstruct(turned.reshape(raw.shape))


def test_frames_that_were_taken_for_another_order_are_refused(raw: NDArray[np.uint16]) -> None:
    """A recording with all frames of a plane in a row, read as angle,z,phase."""
    frames = raw.reshape(3, PLANES, 5, SIDE, SIDE).swapaxes(0, 1)
    made = ThreeBeamVolume(OPTICS, patterns(), AXIAL, PLANES)
    with pytest.raises(ConfigError, match="--axes z,raw,y,x"):
        made.reconstruct(frames.reshape(raw.shape))


def test_memory_is_what_was_announced(raw: NDArray[np.uint16]) -> None:
    made = ThreeBeamVolume(OPTICS, patterns(), AXIAL, PLANES)
    made.reconstruct(raw)  # once before, for what is loaded and kept
    stack = raw.astype(np.float32)
    tracemalloc.start()
    try:
        made.reconstruct(stack)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + stack.nbytes <= made.memory_bytes
    assert made.memory_bytes < 3 * (peak + stack.nbytes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patterns": patterns(overtones=False)}, "harmonics: 2"),
        ({"planes": 3}, "3 planes"),
        ({"axial": Axial(0.125, 1.515, 0.7)}, "excitation"),
        ({"axial": Axial(1.0, 1.515, 0.488)}, "1000 nm apart .* 16. nm at most"),
    ],
)
def test_what_is_no_three_beam_stack_is_refused(changes: dict[str, Any], says: str) -> None:
    about: dict[str, Any] = {"patterns": patterns(), "axial": AXIAL, "planes": PLANES} | changes
    with pytest.raises(ConfigError, match=says):
        ThreeBeamVolume(OPTICS, **about)


def test_a_stack_of_another_shape_is_refused(raw: NDArray[np.uint16]) -> None:
    with pytest.raises(FrameShapeError, match=r"expected \(16, 15"):
        ThreeBeamVolume(OPTICS, patterns(), AXIAL, PLANES).reconstruct(raw[:5])


# -- a store ---------------------------------------------------------------------------------------


@pytest.fixture
def rig(tmp_path: Path) -> RigConfig:
    folder = tmp_path / "rig"
    shutil.copytree(RIG, folder)
    listed = ", ".join(
        f"{{k_um: [{p.k_um[0]}, {p.k_um[1]}], overtones: [{{phase_rad: 0, modulation: 0.6}}]}}"
        for p in patterns()
    )
    (folder / "rig.yaml").write_text(
        f"""
name: three beams
modality: sim
camera: {{offset_adu: 100}}
optics: {{na: 1.42, emission_nm: 528, pixel_size_nm: 80, immersion_index: 1.515}}
channels: {{"488": {{reconstruct: sim, excitation_nm: 488}}}}
sim: {{angles: 3, phases: 5, harmonics: 2, wiener: 0.05,
  patterns: [{listed}]}}
"""
    )
    return load_rig(folder)


@pytest.fixture
def recording(tmp_path: Path, raw: NDArray[np.uint16]) -> Path:
    file = tmp_path / "stack.tif"
    tifffile.imwrite(file, raw, photometric="minisblack")
    return file


def test_a_stack_becomes_a_store(
    rig: RigConfig, recording: Path, raw: NDArray[np.uint16], tmp_path: Path
) -> None:
    command = ["process", str(recording), "--rig", str(rig.folder), "--axes", "z,raw", "--volume"]
    target = tmp_path / "out.ome.zarr"
    ran = CliRunner().invoke(app, [*command, "--z-step", "125", "--store", str(target)])
    assert ran.exit_code == 0, ran.output
    assert "GB of memory" in ran.output
    expected = ThreeBeamVolume(OPTICS, patterns(), AXIAL, PLANES).reconstruct(raw)
    stored = array(target, "recon")[0].astype(np.float64) - volumes.OFFSET_ADU
    np.testing.assert_allclose(stored, np.rint(expected), atol=2 + 0.002 * expected.max())
    np.testing.assert_array_equal(array(target, "raw")[0].swapaxes(0, 1), raw)
    image = RecordedStore(target).images["recon", 0, "488"]
    assert image.scale["z"] == pytest.approx(0.125)
    assert image.scale["x"] == pytest.approx(0.04)
    assert image.attributes["livesr"]["method"] == "sim stack"
    assert image.attributes["livesr"]["prediction"] is False
    report = json.loads((target / "livesr/report.json").read_text())
    assert report["recon_frames"] == PLANES
    assert len(report["volumes"][0]["orders"]) == 6
    assert not [f for f in check_store(target).findings if f.level == "error"]
    assert not raw_input(target).normalisations


def test_all_planes_of_an_angle_in_a_row_are_read_or_refused(
    rig: RigConfig, raw: NDArray[np.uint16], tmp_path: Path
) -> None:
    turned = raw.reshape(PLANES, 3, 5, SIDE, SIDE).swapaxes(0, 1).reshape(-1, SIDE, SIDE)
    tifffile.imwrite(tmp_path / "omx.tif", turned, photometric="minisblack")
    command = ["process", str(tmp_path / "omx.tif"), "--rig", str(rig.folder), "--volume"]
    command += ["--z-step", "125", "--store", str(tmp_path / "out.ome.zarr"), "--axes"]
    right = CliRunner().invoke(app, [*command, "angle,z,phase"])
    assert right.exit_code == 0, right.output
    np.testing.assert_array_equal(array(tmp_path / "out.ome.zarr", "raw")[0].swapaxes(0, 1), raw)
    wrong = CliRunner().invoke(app, [*command, "z,raw"])
    assert isinstance(wrong.exception, ConfigError)
    assert "--axes angle,z,phase,y,x" in str(wrong.exception)
    assert not array(tmp_path / "out_2.ome.zarr", "recon")[...].any()


def test_a_stack_that_lacks_an_exposure_is_kept_and_left_out(
    rig: RigConfig, recording: Path, tmp_path: Path
) -> None:
    source = raw_input(recording, rig, "none", "none", ReadAs(axes="z,raw"))
    lacking = replace(
        source,
        frames=lambda: (f for f in source.frames() if (f.stream.z, f.raw) != (3, 7)),
    )
    report = process_volumes(lacking, tmp_path / "out.ome.zarr", z_step_um=0.125)
    assert report["recon_frames"] == 0
    assert any("planes [3]" in warning for warning in report["warnings"])
    assert len(lines(tmp_path / "out.ome.zarr", "raw")) == PLANES


@pytest.mark.parametrize(
    ("without", "says"),
    [(", immersion_index: 1.515", "immersion_index"), (", excitation_nm: 488", "excitation_nm")],
)
def test_a_rig_that_does_not_say_enough_is_refused(
    rig: RigConfig, recording: Path, tmp_path: Path, without: str, says: str
) -> None:
    file = rig.folder / "rig.yaml"
    file.write_text(file.read_text().replace(without, ""))
    source = raw_input(recording, load_rig(file), "none", "none", ReadAs(axes="z,raw"))
    with pytest.raises(ConfigError, match=says):
        process_volumes(source, tmp_path / "out.ome.zarr", z_step_um=0.125)
    assert not (tmp_path / "out.ome.zarr").exists()


def test_too_little_memory_is_said_before_anything_is_written(
    rig: RigConfig, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = raw_input(recording, rig, "none", "none", ReadAs(axes="z,raw"))
    monkeypatch.setattr(ThreeBeamVolume, "memory_bytes", 1 << 60)
    with pytest.raises(ConfigError, match="crop the recording"):
        process_volumes(source, tmp_path / "out.ome.zarr", z_step_um=0.125)
    assert not (tmp_path / "out.ome.zarr").exists()


def test_single_planes_are_no_stack(rig: RigConfig, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plane.tif", np.ones((15, 32, 32), np.uint16))
    source = raw_input(tmp_path / "plane.tif", rig, "none", "none")
    with pytest.raises(ConfigError, match="single planes"):
        process_volumes(source, tmp_path / "out.ome.zarr")


def test_another_modality_has_no_volumes() -> None:
    rig = load_rig(RIG.parent / "virtual_storm")
    with pytest.raises(ConfigError, match="plane by plane"):
        modality("storm").volume(rig, "", Geometry((32, 32), "uint16", 0.1), 9, 0.2)
