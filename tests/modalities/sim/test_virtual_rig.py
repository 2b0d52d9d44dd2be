"""The virtual rig and the demo rig in real cores.

Which raw frame arrives where, and what it shows.
"""

from pathlib import Path

import numpy as np
import pymmcore
import pytest
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import UniMMCore

from livesr.base.config import load_rig
from livesr.base.errors import ConfigError
from livesr.live.plugin import LiveSR
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.rig import (
    RawBank,
    VirtualSIMCamera,
    _Playback,
    find_sim_camera,
)
from livesr.optics.illumination import Pattern
from livesr.optics.similarity import pcc
from livesr.simulation.camera import prepare_virtual_camera
from waiting import until

RIGS = Path(__file__).parents[3] / "hardware_configs"
SIZE, TIME_POINTS, RAW = 96, 4, 9


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    cfg = (RIGS / "virtual_sim" / "rig.cfg").read_text()
    for name, value in (
        ("SensorSize", SIZE),
        ("TimePoints", TIME_POINTS),
        ("Rig", RIGS / "virtual_sim" / "rig.yaml"),
    ):
        (line,) = [
            line for line in cfg.splitlines() if line.startswith(f"#py Property,Camera,{name},")
        ]
        cfg = cfg.replace(line, f"#py Property,Camera,{name},{value}")
    path = tmp_path_factory.mktemp("rig") / "rig.cfg"
    path.write_text(cfg)
    return path


@pytest.fixture(scope="module")
def core(cfg):
    core = UniMMCore()
    core.loadSystemConfiguration(cfg)
    yield core
    close(core)


@pytest.fixture
def fresh(cfg):
    """A core whose camera has shown nothing, and what that computed so far."""
    core = UniMMCore()
    core.loadSystemConfiguration(cfg)
    yield core, lambda: find_sim_camera(core).bank.computed
    close(core)


@pytest.fixture
def camera(core):
    camera = find_sim_camera(core)
    core.clearROI()
    core.setExposure(1)
    core.setProperty("Camera", "Stamp", 0)
    core.setProperty("Camera", "TimePoint", 0)
    return camera


def close(core):
    core.unloadAllDevices()
    pymmcore.CMMCore.registerCallback(core, None)


def acquire(core, sequence, triggered=True):
    """Return (index, pixels, hardware_triggered) of every frame."""
    frames = []

    def keep(image, event, meta):
        frames.append((dict(event.index), image, bool(meta.get("hardware_triggered"))))

    core.mda.engine.use_hardware_sequencing = triggered
    core.mda.events.frameReady.connect(keep)
    try:
        core.mda.run(sequence)
    finally:
        core.mda.events.frameReady.disconnect(keep)
    return frames


def assert_shows_bank(camera, frames, first=0):
    """Every frame is the bank's frame of its own index, but for the stamped pixel."""
    for index, pixels, _ in frames:
        expected = camera.bank.frames[camera.shown[first + index["t"]], index["sim"]].copy()
        expected[0, 0] = pixels[0, 0]
        np.testing.assert_array_equal(pixels, expected)


def test_configuration_and_rig_agree(core, camera):
    rig = load_rig(RIGS / "virtual_sim")
    assert rig.core == "unicore"
    assert core.getPixelSizeUm() * 1000 == rig.optics.pixel_size_nm
    assert set(core.getAvailableConfigs(rig.channel_group)) == set(rig.channels)
    assert core.getExposure() == 1
    assert camera.bank.frames.shape == (TIME_POINTS, RAW, SIZE, SIZE)
    assert camera.bank.frames.dtype == np.uint16


def test_triggered_time_lapse_arrives_in_order(core, camera):
    core.setProperty("Camera", "Stamp", 1)
    frames = acquire(core, sim_sequence(3, ["488"], interval_s=0.03))
    assert [f[0] for f in frames] == [
        {"t": t, "c": 0, "sim": s} for t in range(3) for s in range(RAW)
    ]
    assert all(triggered for *_, triggered in frames)
    stamps = [int(pixels[0, 0]) for _, pixels, _ in frames]
    assert stamps == list(range(stamps[0], stamps[0] + 27))
    assert list(camera.shown) == [0, 1, 2]
    assert_shows_bank(camera, frames)


def test_groups_merged_into_one_sequence_keep_their_order(core, camera):
    frames = acquire(core, sim_sequence(6, ["488"]))
    assert len(frames) == 54
    assert list(camera.shown) == [0, 1, 2, 3, 2, 1]  # there and back
    assert_shows_bank(camera, frames)


def test_a_sequence_computes_what_it_shows_before_its_first_exposure(fresh):
    core, computed = fresh
    core.setExposure(1)
    assert computed() == 1
    core.startSequenceAcquisition(3 * RAW, 0, True)
    assert computed() == 3  # at once: the call returned with them
    until(lambda: not core.isSequenceRunning())
    core.setProperty("Camera", "TimePoint", 1)
    core.startSequenceAcquisition(2 * RAW, 0, True)
    until(lambda: not core.isSequenceRunning())
    assert computed() == 3
    core.startContinuousSequenceAcquisition(0)
    assert computed() == TIME_POINTS
    core.stopSequenceAcquisition()


def test_snaps_pause_once_where_they_leave_the_first_time_point(fresh):
    core, computed = fresh
    core.setExposure(1)
    for exposure in range(2 * RAW):
        core.snapImage()
        assert computed() == (1 if exposure < RAW else TIME_POINTS)


def test_a_run_that_is_announced_computes_nothing_later(fresh):
    core, computed = fresh
    prepare_virtual_camera(core, 2 * RAW + 1)
    assert computed() == 3
    prepare_virtual_camera(core, None)
    assert computed() == TIME_POINTS


@pytest.mark.parametrize(
    ("n", "first", "patterns", "needed"),
    [
        (1, 0, None, 1),
        (RAW, 0, None, 1),
        (RAW + 1, 0, None, 2),
        (2, RAW - 1, None, 2),
        (1, 2 * RAW, None, 3),
        (9 * RAW, 0, None, 4),
        (2 * RAW, 4 * RAW, None, 3),  # on the way back: time points 2 and 1
        (None, 0, None, 4),
        (3, 0, [0], 3),
        (3, 0, [0, 4, 8], 1),
        (4, 0, [0, 4, 8], 2),
    ],
)
def test_what_the_next_exposures_need(n, first, patterns, needed):
    playback = _Playback(TIME_POINTS, RAW)
    for _ in range(first):
        playback.expose()
    assert playback.reached(n, patterns) == needed
    seen = set()
    for i in range(n or 99 * RAW):
        if patterns:
            playback.select(patterns[i % len(patterns)])
        seen.add(playback.expose()[0])
    assert max(seen) + 1 == needed


def test_untriggered_snaps_advance_the_pattern(core, camera):
    frames = acquire(core, sim_sequence(2, ["488"]), triggered=False)
    assert not any(triggered for *_, triggered in frames)
    assert [f[0]["sim"] for f in frames] == [*range(RAW), *range(RAW)]
    assert_shows_bank(camera, frames)


@pytest.mark.parametrize("triggered", [True, False])
def test_pattern_property_recovers_from_a_broken_group(core, camera, triggered):
    for _ in range(4):
        core.snapImage()
    assert int(core.getProperty("Camera", "PatternIndex")) == 4
    plan = sim_sequence(2, ["488"], pattern_property=("Camera", "PatternIndex"))
    frames = acquire(core, plan, triggered)
    assert all(hardware == triggered for *_, hardware in frames)
    assert_shows_bank(camera, frames, first=1)
    # Sequencing of the property ended with the plan.
    core.snapImage()
    assert int(core.getProperty("Camera", "PatternIndex")) == 1


def test_triggered_sequence_starts_a_group_after_a_snap(core, camera):
    core.snapImage()
    frames = acquire(core, sim_sequence(1, ["488"]))
    assert list(camera.shown) == [0, 1]
    assert_shows_bank(camera, frames, first=1)


def test_several_channels_take_turns(core, camera):
    frames = acquire(core, sim_sequence(2, ["488", "488"], interval_s=0.03))
    assert [(f[0]["t"], f[0]["c"], f[0]["sim"]) for f in frames] == [
        (t, c, s) for t in range(2) for c in range(2) for s in range(RAW)
    ]
    assert list(camera.shown) == [0, 1, 2, 3]


def test_live_mode_numbers_its_frames(core, camera):
    core.startContinuousSequenceAcquisition(0)
    until(lambda: core.getRemainingImageCount() >= 20)
    core.stopSequenceAcquisition()
    for number in range(20):
        pixels, metadata = core.popNextImageAndMD()
        assert int(metadata["ImageNumber"]) == number
        assert int(metadata["SIM-Index"]) == number % RAW
        expected = camera.bank.frames[int(metadata["SIM-TimePoint"]), number % RAW]
        np.testing.assert_array_equal(pixels, expected)


def test_region_of_interest_is_a_part_of_the_chip(core, camera):
    core.setROI(16, 8, 40, 24)
    core.snapImage()
    np.testing.assert_array_equal(core.getImage(), camera.bank.frames[0, 0, 8:32, 16:56])
    with pytest.raises(ValueError, match="not on a chip"):
        core.setROI(80, 0, 40, 24)
    core.clearROI()
    assert core.getROI() == [0, 0, SIZE, SIZE]


def test_reconstructed_frames_show_the_truth(camera):
    rig = load_rig(RIGS / "virtual_sim")
    parameters = SIMParameters(
        (SIZE, SIZE),
        rig.optics.pixel_size_nm / 1000,
        rig.optics.na,
        rig.optics.emission_nm / 1000,
        offset_adu=rig.camera.offset_adu,
    )
    patterns = [Pattern(p.k_um, p.phase_rad, p.modulation) for p in SIMConfig.of(rig).patterns]
    reconstructor = SIMReconstructor(parameters, patterns)
    inner = (slice(20, -20), slice(20, -20))
    for t in (2, 0):  # backwards: the truth starts its cell anew
        picture = reconstructor.reconstruct(camera.bank.frames[t])[inner]
        scores = []
        for transfer in (None, reconstructor.transfer):
            truth = camera.truth(t, transfer)
            assert set(truth) == {"microtubules", "er", "lysosomes"}
            total = sum(truth.values())[inner]
            scores.append(np.corrcoef(picture.ravel(), total.ravel())[0, 1])
        assert scores[0] > 0.85
        assert scores[1] > 0.9
        hazy = sum(camera.truth(t, haze=True).values())[inner]
        assert np.corrcoef(picture.ravel(), hazy.ravel())[0, 1] > scores[0] + 0.01
    moved = [camera.truth(t)["lysosomes"] for t in (0, 2)]
    assert not np.allclose(*moved)


def test_what_the_bank_does_not_hold_is_refused(core, camera):
    with pytest.raises(ValueError, match="the bank has 0 to 3"):
        camera.truth(TIME_POINTS)
    with pytest.raises(ValueError, match="the bank has 0 to 3"):
        core.setProperty("Camera", "TimePoint", TIME_POINTS)
    with pytest.raises(ValueError, match="a group has 0 to 8"):
        core.setProperty("Camera", "PatternIndex", RAW)
    with pytest.raises(RuntimeError, match="not initialised"):
        _ = VirtualSIMCamera().bank


def test_what_is_stained_is_what_shines():
    rig = load_rig(RIGS / "virtual_sim")

    def bank(**stained):
        camera = dict(seed=4, photons=300, bleaching=0, interval_s=1, **stained)
        return RawBank(rig, SIZE, 1, **camera)

    usual = bank()
    np.testing.assert_array_equal(
        bank(visible=("microtubules", "er", "lysosomes")).frames, usual.frames
    )
    foreign = bank(visible=("mitochondria", "er", "lysosomes"))
    truth = foreign.truth(0)
    np.testing.assert_array_equal(truth["er"] > 0, usual.truth(0)["er"] > 0)  # the same cell
    wide = foreign.frames[0].mean(0)
    shown = sum(truth[name] for name in ("mitochondria", "er", "lysosomes"))
    hidden = sum(usual.truth(0).values())
    assert pcc(wide, shown[::2, ::2]) > pcc(wide, hidden[::2, ::2]) + 0.05


def test_demo_rig_delivers_frames():
    rig = load_rig(RIGS / "demo")
    core = CMMCorePlus()
    try:
        core.loadSystemConfiguration(rig.cfg_path)
        assert set(core.getAvailableConfigs(rig.channel_group)) == set(rig.channels)
        assert core.getPixelSizeUm() * 1000 == rig.optics.pixel_size_nm
        assert core.getExposure() == rig.exposure_ms
        assert find_sim_camera(core) is None
        frames = acquire(core, sim_sequence(2, list(rig.channels), raw=1))
        assert [(f[0]["t"], f[0]["c"]) for f in frames] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert {(f[1].shape, f[1].dtype) for f in frames} == {((512, 512), np.dtype(np.uint16))}
    finally:
        close(core)


def test_a_copy_of_the_rig_of_version_0_1_still_loads(tmp_path, caplog):
    cfg = (RIGS / "virtual_sim" / "rig.cfg").read_text()
    before, now = "livesr.simulation.rig", "livesr.modalities.sim.simulation.rig"
    assert now in cfg
    small = cfg.replace("SensorSize,256", "SensorSize,64").replace("TimePoints,40", "TimePoints,1")
    (tmp_path / "rig.cfg").write_text(small.replace(now, before))
    core = UniMMCore()
    core.loadSystemConfiguration(tmp_path / "rig.cfg")
    assert core.getCameraDevice() == "Camera"
    assert f"{before}, which is now {now}" in caplog.text
    close(core)


def test_a_pattern_property_that_no_device_has_is_one_sentence(core, camera, caplog):
    rig = load_rig("virtual_sim")
    section = rig.section("488").model_copy(update={"pattern_property": ("SLM", "Pattern")})
    plan = sim_sequence(1, ["488"])
    with (
        pytest.raises(ConfigError, match=r"sim\.pattern_property is \[SLM, Pattern\], which") as e,
        LiveSR(core, rig=rig.with_section(section), plan=plan, engine="identity"),
    ):
        core.mda.run(plan)
    assert '"SLM"' in str(e.value)
    assert [record.exc_info for record in caplog.records if record.levelname == "ERROR"] == [None]
