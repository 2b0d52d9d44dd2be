"""SIM reconstruction against simulated truth, against its own laws, and on real data where it is at
hand."""

import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livesr.base.errors import ConfigError, FrameShapeError
from livesr.live.reconstruct.reconstructor import Reconstructor
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.sim import calibrate
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.widefield.reconstructor import Passthrough
from livesr.optics.illumination import Pattern
from livesr.optics.noise import SCMOSNoise
from livesr.optics.otf import otf
from pattern_light import illumination

PIXEL_UM, NA, EMISSION_UM = 0.065, 1.49, 0.525
K_UM = 5.3
ANGLES_RAD = (0.2, 0.2 + np.pi / 3, 0.2 + 2 * np.pi / 3)  # the last one points to negative x
PATTERNS = [Pattern((K_UM * np.sin(a), K_UM * np.cos(a)), 0.5 + a, 0.7) for a in ANGLES_RAD]
ORDER = list(product(range(3), range(3)))


def reconstructor(shape, patterns=PATTERNS, **options):
    options = {"offset_adu": 0.0, "equalise": False, **options}
    return SIMReconstructor(SIMParameters(shape, PIXEL_UM, NA, EMISSION_UM, **options), patterns)


def specimen(shape, seed=0):
    """Bright points and lines on a dim ground, on the grid of the result."""
    rng = np.random.default_rng(seed)
    y, x = 2 * shape[0], 2 * shape[1]
    image = np.full((y, x), 20.0)
    image[rng.integers(0, y, 300), rng.integers(0, x, 300)] += rng.uniform(1e3, 2e4, 300)
    image[rng.integers(0, y, 12)] += 300
    image[:, rng.integers(0, x, 12)] += 300
    return image


def expose(image, patterns=PATTERNS, steps=(0, 2 * np.pi / 3, 4 * np.pi / 3), order=None):
    """Noise-free raw frames of `image`, float (n, y, x)."""
    response = otf(image.shape, PIXEL_UM / 2, NA, EMISSION_UM)
    order = list(product(range(len(patterns)), range(len(steps)))) if order is None else order
    frames = []
    for angle, phase in order:
        light = illumination(image.shape, PIXEL_UM / 2, patterns[angle], steps[phase])
        frames.append(np.fft.ifft2(np.fft.fft2(image * light) * response).real[::2, ::2])
    return np.stack(frames)


def digitise(frames, factor=10.0):
    return np.rint(np.clip(frames * factor, 0, 65535)).astype(np.uint16)


def inside(image, margin=0.16):
    y, x = (int(margin * n) for n in image.shape)
    return image[y:-y, x:-x]


def pcc(a, b):
    return float(np.corrcoef(inside(a).ravel(), inside(b).ravel())[0, 1])


def error(a, b):
    """Root mean square difference, relative to the spread of b."""
    return float(np.std(inside(a) - inside(b)) / np.std(inside(b)))


# -- what it does to the object --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(128, 128), (96, 150), (111, 97)])
def test_transfer_is_what_happens_to_the_object(shape):
    truth = specimen(shape)
    sim = reconstructor(shape)
    picture = sim.reconstruct(digitise(expose(truth))) / 10
    expected = np.fft.ifft2(sim.transfer * np.fft.fft2(truth)).real
    assert pcc(picture, expected) > 0.9999
    assert error(picture, expected) < 5e-3
    assert inside(picture).mean() == pytest.approx(inside(expected).mean(), rel=0.02)


def test_transfer_has_unit_gain_at_zero_and_twice_the_support():
    sim = reconstructor((128, 128))
    transfer = sim.transfer
    assert transfer.shape == sim.shape == (256, 256)
    assert transfer.dtype == np.float32
    assert transfer[0, 0] == pytest.approx(1, abs=1e-6)
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256, PIXEL_UM / 2)] * 2))
    cutoff = 2 * NA / EMISSION_UM
    assert k[transfer > 1e-4].max() > 1.8 * cutoff
    assert np.all(transfer[k > cutoff + K_UM] == 0)


def test_uniform_light_keeps_its_intensity():
    frames = expose(np.full((192, 192), 400.0))
    picture = reconstructor((96, 96)).reconstruct(digitise(frames, 1))
    np.testing.assert_allclose(inside(picture, 0.3), 400, rtol=0.01)


def test_lines_closer_than_the_widefield_limit_are_resolved():
    truth = np.full((256, 256), 50.0)
    truth[:, 126] = truth[:, 130] = 4000  # 130 nm apart; widefield ends at 176 nm
    rng = np.random.default_rng(0)
    camera = SCMOSNoise(offset_adu=100, gain_adu_per_e=1.0)
    frames = [camera.expose(f.astype(np.float32), rng) for f in expose(truth)]
    sim = reconstructor((128, 128), offset_adu=100.0)
    profile, blurred = (
        inside(image).mean(axis=0) for image in (sim.reconstruct(frames), sim.widefield(frames))
    )
    left = 126 - int(0.16 * 256)
    assert profile[left + 2] < 0.7 * min(profile[left], profile[left + 4])
    assert blurred[left + 2] > 0.95 * max(blurred[left], blurred[left + 4])


def test_widefield_is_the_mean_on_the_grid_of_the_result():
    frames = digitise(expose(specimen((80, 96))), 1)
    sim = reconstructor((80, 96), offset_adu=3.0)
    picture = sim.widefield(frames)
    assert picture.shape == (160, 192)
    np.testing.assert_allclose(inside(picture[::2, ::2]), inside(frames.mean(axis=0) - 3), atol=2)


# -- its laws --------------------------------------------------------------------------------------

SMALL = (40, 56)
SMALL_SIM = reconstructor(SMALL, offset_adu=100.0)


@given(seed=st.integers(0, 2**32 - 1), top=st.integers(1, 30000))
@settings(max_examples=25, deadline=None)
def test_reconstruction_of_a_sum_is_the_sum_of_reconstructions(seed, top):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, top + 1, (2, 9, *SMALL), dtype=np.uint16)
    both = SMALL_SIM.reconstruct(a + b + np.uint16(100))
    parts = SMALL_SIM.reconstruct(a + np.uint16(100)) + SMALL_SIM.reconstruct(b + np.uint16(100))
    np.testing.assert_allclose(both, parts, atol=2e-5 * np.abs(both).max() + 1e-2)


def test_dark_stack_gives_a_dark_picture():
    picture = SMALL_SIM.reconstruct(np.full((9, *SMALL), 100, np.uint16))
    np.testing.assert_allclose(picture, 0, atol=1e-3)


def test_repeated_calls_give_the_same_picture():
    frames = digitise(expose(specimen(SMALL)))
    first = SMALL_SIM.reconstruct(frames)
    SMALL_SIM.widefield(frames)
    np.testing.assert_array_equal(SMALL_SIM.reconstruct(frames), first)


def test_every_picture_is_the_callers_own():
    frames = digitise(expose(specimen(SMALL)))
    first = SMALL_SIM.reconstruct(list(frames))
    kept = first.copy()
    assert not np.shares_memory(first, SMALL_SIM.reconstruct(frames // 2))
    np.testing.assert_array_equal(first, kept)


def test_region_of_interest_gives_the_same_picture():
    frames = digitise(expose(specimen((192, 192))))
    whole = reconstructor((192, 192)).reconstruct(frames)
    roi = frames[:, 33:161, 24:152]
    expected = whole[66:322, 48:304]
    assert pcc(reconstructor((128, 128), origin_px=(33, 24)).reconstruct(roi), expected) > 0.999
    assert pcc(reconstructor((128, 128)).reconstruct(roi), expected) < 0.98


def test_order_is_followed_and_a_wrong_one_shows():
    truth = specimen((96, 96))
    sim = reconstructor((96, 96))
    target = np.fft.ifft2(sim.transfer * np.fft.fft2(truth)).real
    phase_major = [(angle, phase) for phase in range(3) for angle in range(3)]
    frames = digitise(expose(truth, order=phase_major))
    right = reconstructor((96, 96), order=phase_major).reconstruct(frames)
    wrong = sim.reconstruct(frames)
    rotated = sim.reconstruct(np.roll(digitise(expose(truth)), 1, axis=0))
    assert pcc(right, target) > 0.9999
    assert pcc(wrong, target) < 0.9
    assert pcc(rotated, target) < 0.9


@pytest.mark.parametrize(
    "steps", [tuple(2 * np.pi * j / 5 for j in range(5)), (0.0, 1.3, 3.0, 4.4), (0.1, 2.0, 4.5)]
)
def test_any_three_or_more_phases_serve(steps):
    truth = specimen((96, 96))
    options = {"order": list(product(range(3), range(len(steps))))}
    frames = digitise(expose(truth, steps=steps))
    for given_steps in (steps, [steps] * 3):
        sim = reconstructor((96, 96), phase_steps_rad=given_steps, **options)
        target = np.fft.ifft2(sim.transfer * np.fft.fft2(truth)).real
        assert pcc(sim.reconstruct(frames), target) > 0.9999


def test_sign_of_a_pattern_does_not_matter():
    frames = digitise(expose(specimen((96, 96))))
    turned = [Pattern((-p.k_um[0], -p.k_um[1]), -p.phase_rad, p.modulation) for p in PATTERNS]
    # Turned round, the pattern also steps the other way.
    steps = [0, -2 * np.pi / 3, -4 * np.pi / 3]
    picture = reconstructor((96, 96), turned, phase_steps_rad=steps).reconstruct(frames)
    np.testing.assert_allclose(picture, reconstructor((96, 96)).reconstruct(frames), atol=0.5)


def test_three_beams_reconstruct_with_both_waves():
    truth = specimen((96, 96))
    half = [
        Pattern((p.k_um[0] / 2, p.k_um[1] / 2), p.phase_rad, 0.6, ((1.0, 0.4),)) for p in PATTERNS
    ]
    steps = tuple(2 * np.pi * j / 5 for j in range(5))
    order = list(product(range(3), range(5)))
    frames = digitise(expose(truth, half, steps))
    sim = reconstructor((96, 96), half, order=order)
    target = np.fft.ifft2(sim.transfer * np.fft.fft2(truth)).real
    assert pcc(sim.reconstruct(frames), target) > 0.9999
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(192, PIXEL_UM / 2)] * 2))
    assert k[sim.transfer > 1e-4].max() > 1.8 * 2 * NA / EMISSION_UM


def test_two_angles_reconstruct_too():
    truth = specimen((96, 96))
    sim = reconstructor((96, 96), PATTERNS[:2])
    target = np.fft.ifft2(sim.transfer * np.fft.fft2(truth)).real
    assert pcc(sim.reconstruct(digitise(expose(truth, PATTERNS[:2]))), target) > 0.9999


def test_equalising_takes_out_flicker():
    frames = expose(specimen((96, 96)))
    frames *= frames.mean() / frames.mean(axis=(1, 2), keepdims=True)
    flicker = np.linspace(1.0, 0.7, 9)[:, None, None]
    steady = reconstructor((96, 96)).reconstruct(digitise(frames))
    bleached = digitise(frames * flicker) + np.uint16(100)
    equalised = reconstructor((96, 96), equalise=True, offset_adu=100.0).reconstruct(bleached)
    plain = reconstructor((96, 96), offset_adu=100.0).reconstruct(bleached)
    np.testing.assert_allclose(equalised, steady * flicker.mean(), atol=2e-3 * steady.max())
    assert error(plain, steady * flicker.mean()) > 5 * error(equalised, steady * flicker.mean())


def test_eight_bit_frames_are_welcome():
    frames = digitise(expose(specimen(SMALL)), 0.05)
    np.testing.assert_array_equal(
        SMALL_SIM.reconstruct(frames.astype(np.uint8)),
        SMALL_SIM.reconstruct(frames.astype(np.uint8).astype(np.uint16)),
    )


# -- memory and refusals ---------------------------------------------------------------------------


def test_the_frame_loop_keeps_nothing_and_stays_inside_the_estimate():
    shape = (128, 160)
    frames = list(np.random.default_rng(0).integers(0, 4000, (9, *shape), dtype=np.uint16))
    tracemalloc.start()
    try:
        sim = reconstructor(shape, equalise=True)
        held = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            sim.reconstruct(frames)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(30):
            sim.reconstruct(frames)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096
    result_bytes = 4 * sim.shape[0] * sim.shape[1]
    transient = result_bytes + 2 * 4 * shape[0] * shape[1]
    assert peak - before < transient + 65536
    assert held + transient < 1.05 * sim.memory_bytes + 65536
    assert sim.memory_bytes < 1.2 * (held + transient)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": ORDER[:6]}, "order"),
        ({"order": [*ORDER[:8], (0, 0)]}, "order"),
        ({"phase_steps_rad": [0.0, 1.0]}, "phase_steps_rad"),
        ({"phase_steps_rad": [0.0, 2.0, 0.0]}, "3 bands"),
        ({"patterns": []}, "pattern"),
        ({"patterns": [Pattern((K_UM, 0.0), 0.0, 0.0)] * 3}, "modulation"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        reconstructor((64, 64), **options)


def test_tiny_region_is_refused():
    with pytest.raises(ConfigError, match="ROI"):
        reconstructor((2, 64))


def test_wrong_frames_are_refused():
    with pytest.raises(FrameShapeError, match="8 raw frames"):
        SMALL_SIM.reconstruct(np.zeros((8, *SMALL), np.uint16))
    with pytest.raises(FrameShapeError, match="expects"):
        SMALL_SIM.reconstruct(np.zeros((9, 40, 40), np.uint16))


def test_undersampled_camera_is_told(caplog):
    SIMReconstructor(
        SIMParameters((64, 64), 0.11, NA, EMISSION_UM), [Pattern((4.0, 0.0), 0.0, 0.7)]
    )
    assert "undersample" in caplog.text


def test_passthrough_is_the_mean_above_the_offset():
    frames = np.random.default_rng(0).integers(100, 4000, (4, 20, 30), dtype=np.uint16)
    plain = Passthrough((20, 30), offset_adu=100)
    picture = plain.reconstruct(frames)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture, frames.mean(axis=0) - 100, rtol=1e-5, atol=1e-3)
    with pytest.raises(FrameShapeError, match="expects"):
        plain.reconstruct([np.zeros((5, 5), np.uint16)])
    with pytest.raises(FrameShapeError, match="without frames"):
        plain.reconstruct([])


@pytest.mark.parametrize(("method", "scale"), [(SMALL_SIM, 2), (Passthrough(SMALL), 1)])
def test_methods_are_alike(method: Reconstructor, scale):
    picture = method.reconstruct(np.zeros((9, *SMALL), np.uint16))
    assert method.scale == scale
    assert picture.shape == method.shape == (scale * SMALL[0], scale * SMALL[1])
    assert method.memory_bytes >= 0


# -- real data -------------------------------------------------------------------------------------

DATA = Path(__file__).parents[4] / "shared" / "data" / "sim_raw"


def real(name):
    if not (DATA / name).exists():
        pytest.skip(f"real raw data {name} is not part of the repository and not at {DATA}")
    import tifffile

    return tifffile.imread(DATA / name)


@pytest.mark.parametrize(
    ("damping", "wiener", "apodisation", "least"),
    [pytest.param(None, 0.1, 1.5, 0.92, marks=pytest.mark.slow), (1.0, 0.2, 1.0, 0.91)],
)
def test_real_er_is_closer_to_the_published_reconstruction_than_widefield(
    damping, wiener, apodisation, least
):
    stacks = real("er_t3_9x112x512.tif").reshape(3, 9, 112, 512)
    reference = real("er_reference_sim_224x1024.tif")
    found = calibrate(stacks, Optics(0.065, NA, EMISSION_UM), fit_damping=damping is None)
    settings = {"offset_adu": 100.0, "equalise": True, "wiener": wiener, "apodisation": apodisation}
    sim = reconstructor((112, 512), found.patterns, damping=found.optics.damping, **settings)
    # The published picture holds no negative values.
    scores = [pcc(np.maximum(sim.reconstruct(stack), 0), reference) for stack in stacks]
    blurred = [pcc(np.maximum(sim.widefield(stack), 0), reference) for stack in stacks]
    assert min(scores) > least
    assert max(blurred) < 0.83
    assert np.argmax(scores) == 2  # the reference was made from the third


def test_real_microtubules_of_three_beams_match_the_authors_reconstruction():
    frames = real("mt_highlight_15x256x256.tif")
    reference = real("mt_highlight_reference_sim_256x256.tif")
    emission_um = (
        2 * 1.3 / 4.5
    )  # no optics are known: the cutoff is read off the spectrum, at 0.135 cycles/pixel
    found = calibrate(frames[None], Optics(0.03, 1.3, emission_um), harmonics=2, offset_adu=90.0)
    parameters = SIMParameters(
        (256, 256),
        0.03,
        1.3,
        emission_um,
        order=found.order,
        offset_adu=90.0,
        damping=found.optics.damping,
        attenuation=0.95,
    )
    sim = SIMReconstructor(parameters, found.patterns, QualityLimits())
    # The reference is on the grid of the frames, one pixel further along x.
    picture, widefield = (
        np.roll(p[::2, ::2], -1, 1) for p in (sim.reconstruct(frames), sim.widefield(frames))
    )
    assert sim.quality.doubt == ""
    assert pcc(picture, reference) > 0.94
    assert pcc(widefield, reference) < 0.7
    sim.reconstruct(real("mt_lowlight_15x256x256.tif"))
    assert "no pattern" in sim.quality.doubt


def lone_beads(picture, reach=14, border=60):
    """(y, x) of bright local maxima without another one within `reach` pixels."""
    from scipy.ndimage import maximum_filter

    top = (maximum_filter(picture, 5) == picture) & (picture > np.percentile(picture, 98))
    places = np.argwhere(top)
    places = places[
        np.all((places >= border) & (places < np.array(picture.shape) - border), axis=1)
    ]
    distance = np.abs(places[:, None] - places[None]).max(axis=-1)
    np.fill_diagonal(distance, 10 * reach)
    return places[distance.min(axis=1) > reach]


def width_px(profile):
    """Full width at half maximum of a profile that peaks in its middle.

    Nan where it never falls to half.
    """
    middle, half = len(profile) // 2, profile[len(profile) // 2] / 2
    below = np.flatnonzero(profile < half)
    left, right = below[below < middle], below[below > middle]
    if not (left.size and right.size):
        return np.nan
    a, b = left[-1], right[0]
    rise = (half - profile[a]) / (profile[a + 1] - profile[a])
    fall = (half - profile[b]) / (profile[b - 1] - profile[b])
    return (b - fall) - (a + rise)


def bead_width_nm(picture, places, pixel_nm, reach=12):
    widths = []
    for y, x in places:
        patch = picture[y - reach : y + reach + 1, x - reach : x + reach + 1]
        patch = patch - np.median(patch)
        widths += [width_px(patch[reach]), width_px(patch[:, reach])]
    return float(np.nanmedian(widths)) * pixel_nm


def test_real_beads_shrink_to_half_their_width():
    frames = real("beads_9x512x512.tif")
    patterns = calibrate(
        frames[None], Optics(0.0867, 1.49, 0.515), order=ORDER, fit_damping=False
    ).patterns
    sim = SIMReconstructor(SIMParameters((512, 512), 0.0867, 1.49, 0.515), patterns)
    picture = sim.reconstruct(frames)
    places = lone_beads(picture)
    assert len(places) > 30
    assert bead_width_nm(sim.widefield(frames), places, 43.35) > 200
    assert bead_width_nm(picture, places, 43.35) < 110
