"""The virtual STORM rig in a real core: its film, its truth, its configuration."""

import numpy as np
import pytest

from livesr.base.config import CameraConfig, load_rig
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.sim.simulation.rig import find_sim_camera
from livesr.modalities.storm.simulation.rig import VirtualSTORMCamera, find_storm_camera
from livesr.optics.noise import EMCCDNoise, SCMOSNoise
from livesr.simulation.blinking_rig import camera_noise
from livesr.simulation.camera import prepare_virtual_camera
from rigs import core_of
from waiting import until

SIZE, FRAMES = 48, 20


@pytest.fixture(scope="module")
def core():
    with core_of(
        "virtual_storm", 1.0, SensorSize=SIZE, Frames=FRAMES, Fluorophores=500, Lit=6
    ) as core:
        yield core


@pytest.fixture
def camera(core):
    core.clearROI()
    core.setProperty("Camera", "Frame", 0)
    return find_storm_camera(core)


def acquire(core, sequence):
    frames = []

    def keep(image, event, meta):
        frames.append((dict(event.index), image))

    core.mda.events.frameReady.connect(keep)
    try:
        core.mda.run(sequence)
    finally:
        core.mda.events.frameReady.disconnect(keep)
    return frames


def test_configuration_and_rig_agree(core, camera):
    rig = load_rig("virtual_storm")
    assert core.getPixelSizeUm() * 1000 == rig.optics.pixel_size_nm
    assert set(core.getAvailableConfigs(rig.channel_group)) == set(rig.channels)
    assert (rig.modality, rig.raw_frames("647"), rig.max_raw_frames) == ("storm", 100, 100)
    assert camera.bank.frames.shape == (FRAMES, SIZE, SIZE)
    assert find_sim_camera(core) is None  # that would be the SIM camera


def test_the_film_is_shown_in_order_and_begins_again(core, camera):
    frames = acquire(core, sim_sequence(3, ["647"], raw=10))
    assert [index["t"] * 10 + index["sim"] for index, _ in frames] == list(range(30))
    assert list(camera.shown) == [k % FRAMES for k in range(30)]
    for k, (_, pixels) in enumerate(frames):
        np.testing.assert_array_equal(pixels, camera.bank.frames[k % FRAMES])


def test_a_sequence_computes_what_it_shows_before_its_first_exposure():
    settings = {"SensorSize": SIZE, "Frames": FRAMES, "Fluorophores": 50, "Lit": 2}
    with core_of("virtual_storm", 1.0, **settings) as core:
        bank = find_storm_camera(core).bank
        assert bank.computed == 1
        core.startSequenceAcquisition(7, 0, True)
        assert bank.computed == 7
        until(lambda: not core.isSequenceRunning())
        prepare_virtual_camera(core, 4)
        assert bank.computed == 11
        core.startContinuousSequenceAcquisition(0)
        assert bank.computed == FRAMES
        core.stopSequenceAcquisition()


def test_nothing_is_computed_that_the_laser_makes_anew():
    settings = {"SensorSize": SIZE, "Frames": FRAMES, "Fluorophores": 50, "Lit": 2}
    with core_of("virtual_storm", 1.0, **settings) as core:
        camera = find_storm_camera(core)
        core.setProperty("Activation", "Power", 10)
        core.startSequenceAcquisition(7, 0, True)
        until(lambda: not core.isSequenceRunning())
        assert len(camera.lit) == 7
        assert camera.bank.computed == 1


def test_a_region_and_another_start(core, camera):
    core.setProperty("Camera", "Frame", 7)
    core.setROI(8, 4, 24, 16)
    core.snapImage()
    np.testing.assert_array_equal(core.getImage(), camera.bank.frames[7, 4:20, 8:32])
    assert list(camera.shown) == [7]
    with pytest.raises(ValueError, match="the bank has 0 to 19"):
        core.setProperty("Camera", "Frame", FRAMES)


def test_light_is_where_the_truth_says(camera):
    rig, pixel_um = load_rig("virtual_storm"), camera.bank.pixel_size_um
    photons_per_adu = rig.camera.gain_e_per_adu / rig.camera.em_gain
    found = expected = 0.0
    for k in range(FRAMES):
        photons = (
            camera.bank.frames[k].astype(float) - rig.camera.offset_adu
        ) * photons_per_adu - 10
        for y_um, x_um, light in camera.bank.truth(k):
            y, x = round(y_um / pixel_um), round(x_um / pixel_um)
            if 4 <= y < SIZE - 4 and 4 <= x < SIZE - 4:
                found += photons[y - 1 : y + 2, x - 1 : x + 2].sum()
                expected += light
    assert expected > 20_000
    assert 0.4 < found / expected < 1.1  # nine pixels hold most of a spot


def test_the_camera_is_the_one_that_rig_yaml_describes():
    emccd, scmos = (
        camera_noise(CameraConfig(em_gain=50, gain_e_per_adu=5)),
        camera_noise(CameraConfig(gain_e_per_adu=0.5)),
    )
    assert isinstance(emccd, EMCCDNoise)
    assert (emccd.em_gain, emccd.gain_e_per_adu) == (50, 5)
    assert isinstance(scmos, SCMOSNoise)
    assert scmos.gain_adu_per_e == 2
    with pytest.raises(RuntimeError, match="not initialised"):
        _ = VirtualSTORMCamera().bank
