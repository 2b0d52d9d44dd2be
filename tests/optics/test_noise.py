import numpy as np
import pytest

from livesr.optics.noise import EMCCDNoise, SCMOSNoise, read_variance_map

SHAPE = (256, 256)


def exposure(model, electrons, seed=0):
    return model.expose(np.full(SHAPE, electrons, np.float32), np.random.default_rng(seed))


@pytest.mark.parametrize("electrons", [0.0, 3.0, 49.0, 51.0, 800.0])
def test_mean_and_variance_follow_the_model(electrons):
    model = SCMOSNoise(offset_adu=100, gain_adu_per_e=2.0, read_noise_e=1.6)
    frame = exposure(model, electrons).astype(float)
    variance = 4 * (electrons + 1.6**2) + 1 / 12  # quantisation adds a twelfth
    assert frame.mean() == pytest.approx(
        100 + 2 * electrons, abs=5 * np.sqrt(variance / frame.size)
    )
    assert frame.var() == pytest.approx(variance, rel=0.03)


def test_dim_pixels_have_poisson_skewness():
    # Gain well above 1, so that quantisation does not hide the distribution.
    frame = exposure(SCMOSNoise(gain_adu_per_e=20, read_noise_e=0.01), 4.0).astype(float)
    deviation = (frame - frame.mean()) / frame.std()
    assert np.mean(deviation**3) == pytest.approx(0.5, abs=0.05)  # 1 / sqrt(4)


def test_saturates_at_the_bit_depth_and_never_wraps():
    model = SCMOSNoise(bit_depth=12, gain_adu_per_e=2.0)
    assert model.saturation_adu == 4095
    assert np.all(exposure(model, 1e6) == 4095)
    dark = SCMOSNoise(offset_adu=0, read_noise_e=5.0)
    assert exposure(dark, 0.0).max() < 100


def test_same_seed_same_frame_and_out_is_used():
    model, light = SCMOSNoise(), np.linspace(0, 200, 256 * 256, dtype=np.float32).reshape(SHAPE)
    before = light.copy()
    out = np.empty(SHAPE, np.uint16)
    first = model.expose(light, np.random.default_rng(3))
    assert model.expose(light, np.random.default_rng(3), out) is out
    np.testing.assert_array_equal(first, out)
    assert first.dtype == np.uint16
    np.testing.assert_array_equal(light, before)


def test_negative_light_counts_as_dark():
    frame = exposure(SCMOSNoise(offset_adu=50, read_noise_e=0.0), -3.0)
    assert np.all(frame == 50)


def test_read_noise_map_replaces_the_scalar():
    variance = np.zeros(SHAPE, np.float32)
    variance[:, 128:] = 25.0
    frame = exposure(SCMOSNoise(read_variance_e2=variance), 0.0).astype(float)
    assert frame[:, :128].std() == 0
    assert frame[:, 128:].std() == pytest.approx(10, rel=0.05)


def test_read_variance_map_has_the_median_and_a_tail():
    noise = np.sqrt(read_variance_map(SHAPE, 1.6, np.random.default_rng(0)))
    assert noise.dtype == np.float32
    assert np.median(noise) == pytest.approx(1.6, rel=0.02)
    assert 1e-3 < np.mean(noise > 3.2) < 1e-2


def test_more_than_16_bits_are_refused():
    with pytest.raises(ValueError, match="bit_depth"):
        SCMOSNoise(bit_depth=18)


@pytest.mark.parametrize("electrons", [0.5, 20.0, 300.0])
def test_an_emccd_has_twice_the_variance_of_its_photons(electrons):
    model = EMCCDNoise(offset_adu=100, em_gain=100, gain_e_per_adu=10, read_noise_e=50, cic_e=0.0)
    frame = exposure(model, electrons).astype(float)
    variance = 2 * electrons * 10**2 + 5**2  # ADU: 10 per photo-electron, read noise 5
    assert frame.mean() == pytest.approx(
        100 + 10 * electrons, abs=5 * np.sqrt(variance / frame.size)
    )
    assert frame.var() == pytest.approx(variance, rel=0.04)


def test_clock_induced_charge_is_rare_and_multiplied():
    frame = (
        exposure(
            EMCCDNoise(cic_e=0.01, read_noise_e=0.0, em_gain=300, gain_e_per_adu=1.0), 0.0
        ).astype(float)
        - 100
    )
    assert np.mean(frame > 0) == pytest.approx(0.01, rel=0.15)
    assert frame[frame > 0].mean() == pytest.approx(300, rel=0.15)


def test_an_emccd_saturates_and_repeats():
    model, out = EMCCDNoise(bit_depth=14), np.empty(SHAPE, np.uint16)
    assert np.all(exposure(model, 1e6) == 2**14 - 1)
    light = np.full(SHAPE, 7, np.float32)
    first = model.expose(light, np.random.default_rng(3))
    assert model.expose(light, np.random.default_rng(3), out) is out
    np.testing.assert_array_equal(first, out)
    with pytest.raises(ValueError, match=r"em_gain is 0\.5"):
        EMCCDNoise(em_gain=0.5)
