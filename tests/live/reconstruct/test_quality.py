"""A frame is trusted where its patterns are seen, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from livesr.base.config import ChannelConfig, RigConfig, load_rig, parse
from livesr.base.geometry import Geometry
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.modality import SIM
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import (
    FAINT,
    MOVED,
    OFF_PHASE,
    UNSEEN,
    QualityLimits,
    motion_px,
    spikes_of,
)
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.microscope import Light, SIMMicroscope
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.optics.exposure import examine
from livesr.optics.illumination import Pattern, angle_major, equal_steps
from livesr.optics.noise import SCMOSNoise
from livesr.optics.raw_quality import NO_PICTURE, SATURATED

SHAPE, PIXEL_UM, NA, EMISSION_UM = (128, 128), 0.065, 1.49, 0.525
PATTERNS = [
    Pattern((5.1 * np.sin(a), 5.1 * np.cos(a)), 0.5 + a, 0.7)
    for a in (0.2, 0.2 + np.pi / 3, 0.2 + 2 * np.pi / 3)
]
BEAMS = [replace(p, k_um=(p.k_um[0] / 2, p.k_um[1] / 2), overtones=((1.0, 0.4),)) for p in PATTERNS]


def scope(patterns=PATTERNS, phases=3):
    steps = equal_steps(phases)
    return SIMMicroscope(
        SHAPE, PIXEL_UM, NA, EMISSION_UM, patterns, phase_steps_rad=steps, margin_px=16
    )


def density(shift=0.0):
    y, x = np.mgrid[: 2 * (SHAPE[0] + 32), : 2 * (SHAPE[1] + 32)]
    image = np.full(y.shape, 0.05)
    for i, angle in enumerate(np.linspace(0, np.pi, 25, endpoint=False)):
        line = (y - 160 - shift) * np.cos(angle) + (x - 160) * np.sin(angle) + 13 * (i % 11) - 65
        image += np.exp(-0.5 * (line / 1.5) ** 2)
    return image.astype(np.float32)


def raw_stack(electrons=300.0, *, patterns=PATTERNS, phases=3, motion_px=0.0, seed=0):
    """One noisy group (n, y, x), uint16.

    The object moves by `motion_px` camera pixels from first to last frame.
    """
    microscope = scope(patterns, phases)
    now = microscope.components(density())
    light = Light(electrons=electrons / now.peak(), background_e=0.02 * electrons)
    rng, camera = np.random.default_rng(seed), SCMOSNoise()
    n = 3 * phases
    if not motion_px:
        frames = microscope.raw(now, light, rng)
    else:
        places = [
            microscope.components(density(2 * motion_px * (i / (n - 1) - 0.5))) for i in range(n)
        ]
        frames = np.stack([microscope.raw(place, light, rng)[i] for i, place in enumerate(places)])
    return np.stack([camera.expose(frame, rng) for frame in frames])


def parameters(phases=3):
    return SIMParameters(SHAPE, PIXEL_UM, NA, EMISSION_UM, order=angle_major(3, phases))


def sim(quality_limits=None, patterns=PATTERNS, phases=3):
    return SIMReconstructor(parameters(phases), patterns, quality_limits or QualityLimits())


@pytest.mark.parametrize(("patterns", "phases"), [(PATTERNS, 3), (BEAMS, 5)])
def test_right_frames_are_trusted(patterns, phases):
    method = sim(patterns=patterns, phases=phases)
    frames = raw_stack(1000, patterns=patterns, phases=phases)
    picture = method.reconstruct(frames)
    quality, doubt, resolved, *_ = method.quality
    assert (doubt, resolved) == ("", True)
    assert quality.contrast_to_noise > 6
    assert quality.modulation == pytest.approx(1, abs=0.15)
    assert quality.phase_error_rad < 0.15
    assert quality.motion_nm < 20
    plain = SIMReconstructor(parameters(phases), patterns)
    np.testing.assert_allclose(picture, plain.reconstruct(frames), atol=1e-3 * picture.max())
    assert plain.quality is None


@pytest.mark.parametrize("shift", range(1, 9))
def test_every_rotated_order_is_doubtful(shift):
    method = sim()
    picture = method.reconstruct(np.roll(raw_stack(), shift, axis=0))
    assert method.quality.doubt
    assert not method.quality.resolved
    np.testing.assert_array_equal(picture, method.widefield(np.roll(raw_stack(), shift, axis=0)))


def test_a_transposed_order_is_doubtful():
    method = sim()
    method.reconstruct(raw_stack().reshape(3, 3, *SHAPE).swapaxes(0, 1).reshape(9, *SHAPE))
    assert "modulation" in method.quality.doubt


def test_too_little_light_is_doubtful_and_more_is_not():
    method = sim()
    verdicts = []
    for electrons in (2.0, 5.0, 50.0, 200.0):
        method.reconstruct(raw_stack(electrons))
        verdicts.append(method.quality.doubt)
    assert "no pattern is seen" in verdicts[0]
    assert verdicts[2:] == ["", ""]


def test_no_pattern_at_all_is_not_invented():
    method = sim()
    even = [replace(p, modulation=0.0) for p in PATTERNS]
    for seed in range(20):
        method.reconstruct(raw_stack(patterns=even, seed=seed))
        assert method.quality.doubt


def test_motion_is_measured_in_nm():
    method = sim(QualityLimits(then="reconstruct", max_motion_nm=100.0))
    for px in (0.5, 1.0, 2.0):
        method.reconstruct(raw_stack(motion_px=px))
        assert method.quality.patterns.motion_nm == pytest.approx(65 * px, rel=0.2)
    assert "moved" in method.quality.doubt
    assert method.quality.resolved  # it was asked to reconstruct all the same


def test_motion_is_not_claimed_where_the_order_hides_it():
    phase_major = [(a, p) for p in range(3) for a in range(3)]
    ordered = replace(parameters(), order=phase_major)
    method = SIMReconstructor(ordered, PATTERNS, QualityLimits())
    method.reconstruct(raw_stack()[[3 * a + p for p in range(3) for a in range(3)]])
    assert method.quality.patterns.motion_nm is None
    assert method.quality.doubt == ""


def test_brightness_is_no_motion():
    rng = np.random.default_rng(0)
    mean = rng.normal(100, 20, (40, 40)).astype(np.float32)
    assert motion_px(mean, 0.2 * mean).px < 1e-3
    assert motion_px(np.zeros_like(mean), np.zeros_like(mean)).px == 0.0


def test_drift_of_the_pattern_is_told_from_lack_of_light():
    turned = [p.stepped(1.2) for p in PATTERNS]
    method = sim()
    method.reconstruct(raw_stack(patterns=turned))
    assert method.quality.patterns.phase_error_rad == pytest.approx(1.2, abs=0.15)
    assert "drifted" in method.quality.doubt


def test_doubtful_frames_are_refused_if_asked_to():
    with pytest.raises(DoubtfulFrameError, match="no pattern"):
        sim(QualityLimits(then="refuse")).reconstruct(raw_stack(2.0))


def test_every_channel_has_its_own_optics_and_patterns():
    rig = load_rig("virtual_sim").with_engine("none")
    shorter = [
        {"k_um": [1.3 * k for k in p.k_um], "phase_rad": 0.0, "modulation": 0.5}
        for p in SIMConfig.of(rig).patterns
    ]
    own = {
        "reconstruct": "sim",
        "emission_nm": 450,
        "damping": 0.5,
        "section": {"wiener": 0.3, "patterns": shorter},
    }
    rig = parse(RigConfig, rig.model_dump() | {"channels": {**rig.channels, "405": own}}, "rig")
    camera = Geometry(SHAPE, "uint16", PIXEL_UM)
    green, blue = (SIM().build(rig, name, camera).transfer for name in ("488", "405"))
    k = np.hypot(
        *np.meshgrid(*[np.fft.fftfreq(n, PIXEL_UM / 2) for n in green.shape], indexing="ij")
    )
    reach = [k[transfer > 1e-3].max() for transfer in (green, blue)]
    assert reach[1] > 1.1 * reach[0]
    alike = rig.model_copy(update={"channels": {"561": ChannelConfig(reconstruct="sim")}})
    same = SIM().build(alike, "561", camera).transfer
    np.testing.assert_array_equal(same, green)


@pytest.mark.parametrize("size", [48, 64, 96])
def test_small_regions_are_judged_like_large_ones(size):
    # The faded edges of a small frame spread its low frequencies far: they must not pass for a lack
    # of modulation.
    rig = load_rig("virtual_sim").with_engine("none")
    bank = RawBank(rig, size, 3, seed=0, photons=300, bleaching=0.0, interval_s=0.5)
    method = SIM().build(rig, "488", Geometry((size, size), "uint16", PIXEL_UM))
    for group in bank.frames:
        method.reconstruct(group)
        assert method.quality.doubt == ""
        assert method.quality.patterns.modulation > 0.6
        method.reconstruct(np.roll(group, 2, axis=0))
        assert method.quality.doubt


@pytest.mark.parametrize("raw", [0, 4, 8])
def test_a_blank_frame_is_named_and_leaves_no_stripes(raw):
    method, frames = sim(), raw_stack(300)
    whole = method.widefield(frames)
    frames[raw] = 0
    picture = method.reconstruct(frames)
    assert method.quality.doubt == f"raw frame {raw} is blank (every pixel is 0)"
    assert not method.quality.resolved
    # The widefield picture is that of the other angles, as bright as ever.
    inner = np.s_[32:-32, 32:-32]
    np.testing.assert_allclose(picture[inner], whole[inner], atol=0.25 * whole.max())
    assert picture[inner].mean() == pytest.approx(whole[inner].mean(), rel=0.03)
    method.reconstruct(raw_stack(300))
    assert method.quality.doubt == ""  # the next frame is judged by itself


def test_a_frame_that_was_corrected_is_judged_as_the_camera_gave_it():
    method, frames = sim(), raw_stack(300)
    frames[3] = 0
    method.look_at(examine(frames, 100.0))
    method.reconstruct(
        frames.astype(np.float32)
        + np.random.default_rng(0).normal(0, 1, frames.shape).astype(np.float32)
    )
    assert method.quality.doubt.startswith("raw frame 3 is blank")


def test_saturated_frames_are_doubtful_from_the_given_share_on():
    frames = np.minimum(raw_stack(2000), 800)
    share = np.mean(frames == 800, axis=(1, 2)).max()
    assert share > 0.02
    method = sim()
    method.reconstruct(frames)
    assert f"{share:.1%} of its pixels are at 800" in method.quality.doubt
    method = sim(QualityLimits(max_saturated=1.0))
    method.reconstruct(frames)
    assert "saturated" not in method.quality.doubt


def test_every_doubt_is_given_for_its_own_cause():
    dim, still = raw_stack(4.0, seed=3), raw_stack(300)
    cases = {
        NO_PICTURE: np.concatenate([still[:8], np.zeros_like(still[:1])]),
        SATURATED: np.minimum(raw_stack(2000), 800),
        MOVED: raw_stack(motion_px=4.0),
        UNSEEN: dim,
        OFF_PHASE: raw_stack(patterns=[p.stepped(1.2) for p in PATTERNS]),
        FAINT: raw_stack(3000, patterns=[replace(p, modulation=0.2) for p in PATTERNS]),
    }
    for cause, frames in cases.items():
        method = sim()
        method.reconstruct(frames)
        assert method.quality.cause == cause, (cause, method.quality)


@pytest.mark.parametrize("electrons", [1.0, 2.0, 4.0])
def test_too_little_light_is_not_taken_for_motion(electrons):
    method = sim(QualityLimits(max_motion_nm=20.0))
    for seed in range(4):
        method.reconstruct(raw_stack(electrons, seed=seed))
        assert method.quality.cause == UNSEEN


@pytest.mark.parametrize(("pixels", "value"), [(1, 4095), (8, 4095), (1, 65535), (8, 65535)])
def test_hot_pixels_do_not_make_a_frame_doubtful(pixels, value):
    method, frames = sim(), raw_stack(300)
    method.reconstruct(frames)
    before = method.quality.patterns
    for i in range(pixels):
        frames[:, (37 * i + 40) % 100 + 10, (53 * i + 50) % 100 + 10] = value
    method.reconstruct(frames)
    assert method.quality.doubt == ""
    assert method.quality.patterns.modulation == pytest.approx(before.modulation, abs=0.05)
    assert method.quality.patterns.contrast_to_noise > 0.6 * before.contrast_to_noise


def test_what_optics_have_drawn_is_no_hot_pixel():
    assert len(spikes_of(raw_stack(3000).mean(axis=0, dtype=np.float32))) == 0
    y, x = np.mgrid[:64, :64]
    bead = np.exp(-((y - 30.3) ** 2 + (x - 20.4) ** 2) / 3.0).astype(np.float32)
    assert len(spikes_of(bead)) == 0
    bead[50, 40] = 9
    np.testing.assert_allclose(spikes_of(bead), [[50, 40, 9]], atol=1e-6)
