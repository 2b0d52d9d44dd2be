"""Training pairs: the same whoever makes them, complete or not there, and what they claim to be."""

import json
import shutil

import numpy as np
import pytest

from livesr.live.normalise import background_and_scale
from livesr.simulation.domain import Domain
from livesr.training.pair_folder import write_pairs as write
from livesr.training.simulated import SimulatedPairs, simulate
from livesr.training.sources import CachedPairs

SIZE = 64
CLEAN = Domain(
    absent=0.0,
    haze=(0, 0),
    background=(0, 0),
    photons=(1e5, 1e5),
    gain_adu_per_e=(0.3, 0.3),
    interval_s=(0.05, 0.06),
    jitter=(0, 0),
    bleaching=(0, 0),
    duty=(0.1, 0.11),
    phase_error_deg=(0, 0),
    phase_offset_error_deg=0,
    modulation_error=0,
    damping_error=0,
)


def write_pairs(folder, n, *, size, domain=None, **options):
    return write(folder, SimulatedPairs(size, domain or Domain()), n, **options)


def arrays(folder):
    return np.load(folder / "frames.npy"), np.load(folder / "targets.npy")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "train", 3, seed=7, size=SIZE)


def test_folder_is_what_the_trainer_reads(pairs):
    source = CachedPairs(pairs)
    assert source.meta["channels"] == ["microtubules", "er", "lysosomes"]
    assert source.meta["pixel_size_nm"] == 32.5
    frames, targets = source.batch(np.random.default_rng(0), 2, 32)
    assert frames.shape == (2, 3, 32, 32)
    assert targets.shape == (2, 3, 32, 32)
    stored = arrays(pairs)
    assert [a.dtype for a in stored] == [np.float16, np.float16]
    assert all(np.isfinite(a).all() for a in stored)
    assert stored[1].min() >= 0
    assert 0.3 < np.percentile(stored[0][:, 1], 99.9) < 1.2


def test_pair_does_not_depend_on_workers_or_number(pairs, tmp_path):
    more = write_pairs(tmp_path, 5, seed=7, size=SIZE, workers=2)
    for few, many in zip(arrays(pairs), arrays(more), strict=True):
        np.testing.assert_array_equal(few, many[:3])


def test_seeds_differ(pairs, tmp_path):
    frames, _ = arrays(write_pairs(tmp_path, 1, seed=8, size=SIZE))
    assert not np.array_equal(frames[0], arrays(pairs)[0][0])


def test_finished_folder_is_left_alone(pairs):
    before = [
        (pairs / name).stat().st_mtime_ns for name in ("frames.npy", "targets.npy", "meta.json")
    ]
    calls = []
    write_pairs(pairs, 3, seed=7, size=SIZE, progress=lambda done, total: calls.append(done))
    assert calls == []
    assert before == [
        (pairs / name).stat().st_mtime_ns for name in ("frames.npy", "targets.npy", "meta.json")
    ]
    assert not (pairs / "done.npy").exists()


def test_interrupted_folder_is_continued(pairs, tmp_path):
    class Interrupted(Exception):
        pass

    def stop_after_one(done, total):
        if done == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        write_pairs(tmp_path, 3, seed=7, size=SIZE, progress=stop_after_one)
    assert not (tmp_path / "meta.json").exists()
    with pytest.raises(FileNotFoundError):
        CachedPairs(tmp_path)
    calls = []
    write_pairs(
        tmp_path, 3, seed=7, size=SIZE, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    for whole, continued in zip(arrays(pairs), arrays(tmp_path), strict=True):
        np.testing.assert_array_equal(whole, continued)


def test_folder_of_other_parameters_is_refused(pairs):
    with pytest.raises(ValueError, match="differ in n, seed"):
        write_pairs(pairs, 4, seed=9, size=SIZE)
    with pytest.raises(ValueError, match="differ in domain"):
        write_pairs(pairs, 3, seed=7, size=SIZE, domain=Domain(absent=0.5))
    with pytest.raises(ValueError, match=r"differ in domain \(absent, na\), n;"):
        write_pairs(pairs, 4, seed=7, size=SIZE, domain=Domain(absent=0.5, na=(1.2, 1.3)))
    assert json.loads((pairs / "meta.json").read_text())["seed"] == 7


def test_pairs_of_before_are_of_the_values_of_before(pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / "old")
    path = tmp_path / "old" / "meta.json"
    meta = json.loads(path.read_text())
    for name in ("sectioning", "attenuation_fwhm_um", "damping_assumed", "haze_in_truth"):
        del meta["domain"][name]
    path.write_text(json.dumps(meta))
    write_pairs(tmp_path / "old", 3, seed=7, size=SIZE)
    with pytest.raises(ValueError, match=r"differ in domain \(sectioning\);"):
        write_pairs(tmp_path / "old", 3, seed=7, size=SIZE, domain=Domain(sectioning=True))


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_targets_sum_to_the_clean_input(seed):
    series = simulate((seed,), 1, size=128, domain=CLEAN)
    total = series.truths[0].sum(0)
    assert np.corrcoef(series.frames[0].ravel(), total.ravel())[0, 1] > 0.995
    # Clipping at 0 takes the negative rims of the parts, so the sum is a little brighter than the
    # measurement.
    assert total.mean() == pytest.approx(series.frames[0].mean(), rel=0.1)


def test_time_lapse_moves_coherently_and_repeats():
    domain = CLEAN.model_copy(update={"interval_s": (0.1, 0.1), "still": 0.0})
    series = simulate((11,), 4, size=96, domain=domain)
    assert len(series) == 4
    assert series.truths.shape == (4, 3, 96, 96)
    sums = series.truths.sum(1).reshape(4, -1)
    near, far = np.corrcoef(sums[0], sums[1])[0, 1], np.corrcoef(sums[0], sums[3])[0, 1]
    assert 0.5 < near < 0.9999
    assert near > far
    np.testing.assert_array_equal(series.frames, simulate((11,), 4, size=96, domain=domain).frames)


def test_edges_of_a_time_lapse_are_repeated():
    series = simulate((2,), 3, size=SIZE)
    frames, targets = series.pair(0)
    background, scale = series.normalisation[0]
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_allclose(
        frames[1] * scale + background, series.frames[0], rtol=1e-4, atol=1e-2
    )
    np.testing.assert_allclose(targets * scale, series.truths[0], rtol=1e-4, atol=1e-3)
    last, _ = series.pair(2)
    np.testing.assert_array_equal(last[1], last[2])


def test_missing_structures_have_empty_targets():
    series = simulate((0,), 1, size=SIZE, domain=Domain(absent=1.0))
    assert series.truths.max() > 0  # never all of them: an empty cell teaches nothing
    few = [
        simulate((i,), 1, size=SIZE, domain=Domain(absent=0.9)).truths.max((0, 2, 3))
        for i in range(6)
    ]
    assert any((peaks < 1e-3).any() for peaks in few)


def test_odd_size_is_refused():
    with pytest.raises(ValueError, match="even"):
        simulate((0,), 1, size=63)


def test_normalisation_follows_the_dark_parts_not_the_noise_nor_the_faded_border():
    rng = np.random.default_rng(0)
    image = np.full((256, 256), 50, np.float32)
    image[100:110] = 600
    quiet = background_and_scale(image)
    assert quiet == pytest.approx((50, 1000))
    noisy = background_and_scale(image + rng.normal(0, 30, image.shape).astype(np.float32))
    assert noisy[0] == pytest.approx(
        50, abs=26
    )  # the 5th percentile of pixels lies 49 below, of block means half of it
    image[:16], image[-16:], image[:, :16], image[:, -16:] = 0, 0, 0, 0
    assert background_and_scale(image)[0] == 0
    assert background_and_scale(image, border=0.07) == pytest.approx((50, 1000))
    assert background_and_scale(np.zeros((64, 64), np.float32)) == (0, 1)
