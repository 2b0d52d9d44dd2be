"""The fluctuation modality: its section, windows, drift, the virtual rig and what is asked of
it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.base.errors import FrameShapeError
from livesr.base.frames import RawStack, Stream
from livesr.base.geometry import Geometry
from livesr.check.hardware import look
from livesr.check.rig import check_rig
from livesr.formats.zarr_files import open_group
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.fluctuation.bench import structure
from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.modalities.fluctuation.drift import MeanFrameDrift
from livesr.modalities.fluctuation.hardware import shared_variance
from livesr.modalities.fluctuation.modality import UNITS_PER_ADU, Fluctuation, sigma_px
from livesr.modalities.fluctuation.reconstructor import FluctuationReconstructor
from livesr.modalities.fluctuation.simulation import fluctuating_bank
from livesr.simulation.blinking_rig import BlinkingBank
from rigs import core_of

RIG = load_rig("virtual_fluctuation")
SIZE, EVERY = 48, 20
SMALL = {"SensorSize": SIZE, "Frames": 60, "Fluorophores": 700, "Lit": 35}


def reconstructor(size: int = SIZE, **settings: Any) -> FluctuationReconstructor:
    section = FluctuationConfig(**{"every": EVERY, "drift_correction": False, **settings})
    camera = Geometry((size, size), "uint16", 0.108)
    return Fluctuation().build(RIG.with_section(section), "647", camera)


def stacks(frames: np.ndarray, every: int = EVERY) -> list[RawStack]:
    return [
        RawStack(tuple(frames[i : i + every]), Stream(), i // every, 0, 0)
        for i in range(0, len(frames) - every + 1, every)
    ]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return fluctuating_bank(RIG, SIZE, 200, on_frames=1.5).frames


@pytest.fixture(scope="module")
def bank() -> BlinkingBank:
    return fluctuating_bank(RIG, 64, 300)


KINDS: list[dict[str, Any]] = [
    {},
    {"temporal": "variance"},
    {"temporal": "autocorrelation"},
    {"method": "sofi", "order": 2},
    {"method": "sofi", "order": 3, "deconvolution": 0},
]


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_window_shows_its_own_groups_only(settings: dict[str, Any], frames: np.ndarray) -> None:
    """After nine groups a window of three is what a new stream makes of the last three."""
    rec = reconstructor(window=3 * EVERY, **settings)
    running, groups = rec.running(), stacks(frames)
    for stack in groups[:9]:
        image = running.add(stack)
    fresh = rec.running()
    for stack in groups[6:9]:
        expected = fresh.add(stack)
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-3)
    assert image.shape == rec.shape
    assert not np.allclose(image, rec.running().add(groups[8]))


def test_without_a_window_everything_counts(frames: np.ndarray) -> None:
    rec = reconstructor()
    running = rec.running()
    for stack in stacks(frames)[:4]:
        image = running.add(stack)
    single = [rec.fold(list(s.frames)) for s in stacks(frames)[:4]]
    expected = rec.method.picture(np.mean(single, axis=0)) * UNITS_PER_ADU
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({}, 0.1),
        ({"temporal": "variance"}, 0.1),
        ({"method": "sofi", "order": 2}, 0.0),
        ({"method": "sofi", "order": 3}, 0.0),
    ],
    ids=str,
)
def test_an_image_is_nearer_to_the_structure_than_the_mean(
    settings: dict[str, Any], least: float, bank: BlinkingBank
) -> None:
    rec = reconstructor(64, every=100, **settings)
    running = rec.running()
    for stack in stacks(bank.frames, 100):
        image = running.add(stack)
    truth = structure(bank.positions_um / bank.pixel_size_um, 64, rec.scale, 0.28)
    mean = np.kron(bank.frames.mean(axis=0), np.ones((rec.scale, rec.scale)))
    inside = (slice(8 * rec.scale, -8 * rec.scale),) * 2

    def agreement(picture: np.ndarray) -> float:
        return float(np.corrcoef(picture[inside].ravel(), truth[inside].ravel())[0, 1])

    assert agreement(image) > agreement(mean) + least


def test_bleaching_within_a_run_is_no_fluctuation() -> None:
    """Light that falls slowly leaves a hundredth of the variance that it has in all."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    steady = 3000 * np.exp(-((y - 16) ** 2 + (x - 16) ** 2) / 2)
    fading = np.linspace(1, 0.3, 400)[:, None, None]
    frames = rng.poisson(100 + fading * steady).astype(np.uint16)
    by_groups = reconstructor(32, temporal="variance").running()
    for stack in stacks(frames):
        image = by_groups.add(stack)
    every_frame = reconstructor(32, temporal="variance", every=400).running()
    at_once = every_frame.add(stacks(frames, 400)[0])
    spot = (slice(56, 72),) * 2
    assert image[spot].max() < 0.35 * at_once[spot].max()


def test_drift_is_followed_to_a_fraction_of_a_pixel(bank: BlinkingBank) -> None:
    mean = bank.frames.mean(axis=0)
    shifts = [(0.0, 0.0), (0.4, -0.3), (1.1, -0.8), (2.3, -1.4)]
    ky, kx = np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)
    tracker = MeanFrameDrift((64, 64))
    for y, x in shifts:
        ramp = np.exp(-2j * np.pi * (ky * y + kx * x))
        found = tracker.update(np.fft.ifft2(np.fft.fft2(mean) * ramp).real)
        assert np.allclose(found, (y, x), atol=0.1)


def test_a_group_that_drifted_is_laid_onto_the_others(frames: np.ndarray) -> None:
    rec = reconstructor(drift_correction=True)
    running = rec.running()
    still = running.add(stacks(frames)[0])
    moved = np.roll(frames[:EVERY], (2, 1), (1, 2))
    again = running.add(RawStack(tuple(moved), Stream(), 1, 0, 0))
    assert running.drift_nm == pytest.approx((216, 108), abs=11)
    inside = (slice(40, -40),) * 2
    assert np.corrcoef(again[inside].ravel(), still[inside].ravel())[0, 1] > 0.999


def test_missing_exposures_cost_themselves_only(frames: np.ndarray) -> None:
    rec = reconstructor(method="sofi", order=3, every=EVERY)
    whole = stacks(frames)[0]
    gaps = RawStack((None, *whole.frames[1:]), Stream(), 0, 0, 0)
    running = rec.running()
    first = running.add(gaps)
    assert first.any()
    lost = RawStack((None,) * (EVERY - 2) + tuple(frames[:2]), Stream(), 1, 0, 0)
    np.testing.assert_array_equal(running.add(lost), first)


def test_frames_that_cannot_be_folded_in_are_refused() -> None:
    with pytest.raises(FrameShapeError, match="expects"):
        reconstructor().reconstruct([np.zeros((8, 8), np.uint16)])
    with pytest.raises(FrameShapeError, match="at least 3"):
        reconstructor(method="sofi").reconstruct([np.zeros((SIZE, SIZE), np.uint16)])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"every": 30, "window": 100}, "multiple of every"),
        ({"method": "sofi", "every": 5}, "at least 8"),
        ({"temporal": "variance", "every": 1}, "at least 2"),
        ({"magnification": 5}, "magnification"),
        ({"order": 5}, "order"),
        ({"radius": 0.1}, "radius"),
    ],
    ids=str,
)
def test_a_section_that_cannot_work_says_why(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FluctuationConfig(**settings)


def test_memory_holds_the_window() -> None:
    short, long = (reconstructor(window=n * EVERY).memory_bytes for n in (2, 12))
    assert long - short == 10 * 4 * (4 * SIZE) ** 2


def test_what_blinks_is_told_from_noise(frames: np.ndarray) -> None:
    noise = np.random.default_rng(0).poisson(200, (50, 32, 32)).astype(np.uint16)
    assert shared_variance(RawStack(tuple(noise), Stream(), 0, 0, 0)) < 0.02
    assert shared_variance(RawStack(tuple(frames[:50]), Stream(), 0, 0, 0)) > 0.1


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ("radius: 4.5", "fluctuation-radius"),
        ("method: sofi\n  order: 4", "fluctuation-frames"),
    ],
)
def test_check_says_what_is_not_plausible(tmp_path: Path, section: str, code: str) -> None:
    text = (RIG.cfg_path.parent / "rig.yaml").read_text()
    text = text.replace("  method: esrrf\n", f"  {section}\n")
    text = text.replace("  radius: 1.5\n", "") if "radius" in section else text
    (tmp_path / "rig.yaml").write_text(text)
    (tmp_path / "rig.cfg").write_text(RIG.cfg_path.read_text())
    assert code in {finding.code for finding in check_rig(tmp_path / "rig.yaml")}


def test_the_shipped_rig_has_nothing_to_say() -> None:
    found = check_rig(RIG.cfg_path.parent / "rig.yaml")
    assert not [f for f in found if f.code.startswith("fluctuation")]


def test_the_virtual_rig_runs_and_is_stored(tmp_path: Path) -> None:
    """Raw is a film, and images are what is made of it afterwards, in tenths of an ADU."""
    rig = RIG.with_section(FluctuationConfig(every=EVERY, window=2 * EVERY))
    plan = sim_sequence(4, channels=["647"], raw=EVERY)
    store = tmp_path / "run.ome.zarr"
    with (
        core_of("virtual_fluctuation", 2.0, **SMALL) as core,
        LiveSR(core, rig=rig, store=store, plan=plan, policy="complete") as session,
    ):
        core.mda.run(plan)
    assert session.report["recon_frames"] == 4
    group = open_group(store)
    raw, images = np.asarray(group["raw/0"]), np.asarray(group["recon/0"]).astype(np.float32)
    assert raw.shape == (4 * EVERY, SIZE, SIZE)
    assert not (store / "localisations.csv").exists()
    settings, sigma = FluctuationConfig.of(rig), sigma_px(rig, "647", 108.0)
    running = FluctuationReconstructor((SIZE, SIZE), settings, sigma, 108.0, 100.0).running()
    offset = float(np.median(images[0] - running.add(stacks(raw)[0])))
    for image, stack in zip(images[1:], stacks(raw)[1:], strict=True):
        assert np.abs(image - round(offset) - running.add(stack)).max() <= 0.51


def test_hardware_is_asked_whether_it_blinks() -> None:
    with core_of("virtual_fluctuation", 2.0, **SMALL) as core:
        rig = RIG.with_section(FluctuationConfig(every=30))
        said = {m.name: m for m in look(core, rig, "647").measured}
    assert said["fluctuations"].verdict == "ok"


def test_simulated_groups_are_those_of_the_section() -> None:
    rig = RIG.with_section(FluctuationConfig(every=5))
    assert Fluctuation().simulate(rig, 32, 2).shape == (2, 5, 32, 32)
