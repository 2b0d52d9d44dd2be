"""Emitters are found where they are, known as well as they say, and drawn into an image that
grows."""

import dataclasses

import numpy as np
import pytest
from scipy.special import ndtr

from livesr.base.errors import FrameShapeError
from livesr.base.frames import LOCALISATION, RawStack, Stream
from livesr.modalities.storm import localise
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.modalities.storm.reconstructor import (
    FRAMES_AT_ONCE,
    UNITS_PER_LOCALISATION,
    STORMReconstructor,
)
from livesr.modalities.storm.score import score_localisations
from livesr.optics.noise import EMCCDNoise, SCMOSNoise
from livesr.optics.psf import PointSpread, gaussian_sigma

PIXEL_NM, NA, EMISSION_NM, SIZE = 107.0, 1.49, 670.0, 64
SIGMA_NM = gaussian_sigma(NA, EMISSION_NM)
EMCCD, SCMOS = EMCCDNoise(), SCMOSNoise(gain_adu_per_e=2.0)
SCALES = {
    "emccd": PhotonScale.of(100, 15, 200, 60),
    "scmos": PhotonScale.of(100, 0.5, None, 1.6),
}


def exposed(
    camera: str, frames: int, *, photons: float = 800.0, background: float = 8.0, seed: int = 0
):
    """Frames with 16 emitters each, far apart, at random places within their cells.

    Their positions in px (n, 3).
    """
    rng, spread = np.random.default_rng(seed), PointSpread(PIXEL_NM / 1e3, NA, EMISSION_NM / 1e3)
    noise = EMCCD if camera == "emccd" else SCMOS
    grid = np.stack(np.meshgrid(*[np.arange(8, SIZE, 16)] * 2, indexing="ij"), -1).reshape(-1, 2)
    stack, truth = [], []
    for k in range(frames):
        places = grid + rng.uniform(-3, 3, grid.shape)
        image = np.full((SIZE, SIZE), background, np.float32)
        spread.add(image, places[:, 0], places[:, 1], np.full(len(places), photons))
        stack.append(noise.expose(image, rng))
        truth += [(k, y, x) for y, x in places]
    return stack, np.array(truth)


def localiser(camera: str = "emccd", **changes) -> Localiser:
    return Localiser((SIZE, SIZE), PIXEL_NM, SIGMA_NM, SCALES[camera], **changes)


def matched(found, truth):
    """Differences (n, 2) in nm of what lies within 200 nm of an emitter, and which records those
    are."""
    differences, records = [], []
    for i, record in enumerate(found):
        here = truth[truth[:, 0] == record["frame"]]
        d = np.array([record["y_nm"], record["x_nm"]]) - (here[:, 1:] + 0.5) * PIXEL_NM
        best = np.hypot(*d.T).argmin()
        if np.hypot(*d[best]) < 200:
            differences.append(d[best])
            records.append(i)
    return np.array(differences), records


@pytest.mark.parametrize("camera", ["emccd", "scmos"])
def test_emitters_are_found_and_their_error_is_what_is_said(camera):
    frames, truth = exposed(camera, 40)
    found = localiser(camera).localise(frames, range(40))
    differences, records = matched(found, truth)
    assert len(records) >= 0.99 * len(truth)
    assert len(found) - len(records) <= 0.03 * len(truth)
    assert np.abs(differences.mean(axis=0)).max() < 1.0  # no half-pixel, no axis swapped
    said = np.sqrt(np.mean(found["uncertainty_nm"][records] ** 2))
    assert differences.std() == pytest.approx(said, rel=0.15)
    assert np.median(found["photons"][records]) == pytest.approx(800, rel=0.15)
    assert np.median(found["background"][records]) == pytest.approx(8, rel=0.3)
    assert list(found["frame"]) == sorted(found["frame"])


def test_more_photons_are_known_better_and_an_emccd_pays_for_its_gain():
    said = {
        (camera, photons): np.median(
            localiser(camera).localise(exposed(camera, 5, photons=photons)[0], range(5))[
                "uncertainty_nm"
            ]
        )
        for camera in SCALES
        for photons in (500.0, 2000.0)
    }
    assert said["scmos", 2000.0] < said["scmos", 500.0] / 1.9
    assert said["emccd", 2000.0] == pytest.approx(said["scmos", 2000.0] * np.sqrt(2), rel=0.1)


def test_noise_alone_is_hardly_ever_an_emitter():
    rng, dark = np.random.default_rng(5), np.full((SIZE, SIZE), 10, np.float32)
    frames = [EMCCD.expose(dark, rng) for _ in range(50)]
    assert len(localiser().localise(frames, range(50))) < 50  # one in a frame
    assert len(localiser(threshold=7.0).localise(frames, range(50))) == 0


def test_frames_without_anything_give_no_records():
    empty = localiser().localise([np.full((SIZE, SIZE), 100, np.uint16)] * 3, range(3))
    assert (len(empty), empty.dtype) == (0, LOCALISATION)


@pytest.mark.parametrize(
    "kind", ["saturated", "black", "hot pixels", "random", "an edge", "single photons"]
)
def test_whatever_a_camera_delivers_gives_numbers(kind):
    rng, shape = np.random.default_rng(7), (3, SIZE, SIZE)
    frames = {
        "saturated": np.full(shape, 65535),
        "black": np.zeros(shape),
        "hot pixels": np.where(rng.random(shape) < 0.02, 65535, 0),
        "random": rng.integers(0, 65536, shape),
        "an edge": np.where(np.arange(SIZE) < SIZE // 2, 100, 4000) * np.ones(shape),
        "single photons": 100 + 13 * rng.poisson(0.02, shape),
    }[kind].astype(np.uint16)
    for camera in SCALES:
        found = localiser(camera, threshold=1.0).localise(frames, range(3))
        for name in found.dtype.names:
            assert np.isfinite(found[name]).all()


def test_a_frame_too_small_for_one_fit_is_refused():
    with pytest.raises(ValueError, match="smaller than the 7x7 pixels of one fit"):
        Localiser((6, 64), 100, 94, PhotonScale())


def records(*rows) -> np.ndarray:
    """(frame, y_nm, x_nm, uncertainty_nm) of each."""
    found = np.zeros(len(rows), LOCALISATION)
    for name, column in zip(
        ("frame", "y_nm", "x_nm", "uncertainty_nm"), zip(*rows, strict=True), strict=True
    ):
        found[name] = column
    return found


def reconstructor(**changes) -> STORMReconstructor:
    return STORMReconstructor(
        localiser(), PIXEL_NM, 20.0, 10, **{"max_uncertainty_nm": 50.0, **changes}
    )


def test_an_emitter_is_drawn_where_it_is_as_wide_as_it_is_uncertain():
    this = reconstructor()
    assert this.shape == (round(SIZE * PIXEL_NM / 20),) * 2
    image = this.draw(records((0, 2010.0, 4010.0, 20.0), (0, 3000.0, 3000.0, 60.0)))
    assert np.unravel_index(image.argmax(), image.shape) == (100, 200)
    assert image.sum() == pytest.approx(
        UNITS_PER_LOCALISATION, rel=1e-4
    )  # the second is not known well enough
    assert image[100, 201] / image[100, 200] == pytest.approx(np.exp(-0.5), rel=0.05)
    plain = reconstructor(render="histogram").draw(
        records((0, 2010.0, 4010.0, 20.0), (3, 2019.0, 4001.0, 5.0))
    )
    assert plain[100, 200] == plain.sum() == 2 * UNITS_PER_LOCALISATION
    assert not reconstructor().draw(records((0, -100.0, 10.0, 5.0), (0, 1e5, 10.0, 5.0))).any()


def stack(t: int, frames, missing=()) -> RawStack:
    return RawStack(
        tuple(None if i in missing else f for i, f in enumerate(frames)), Stream(), t, 0, 0
    )


def test_the_image_grows_and_frames_keep_their_numbers():
    frames, _ = exposed("emccd", 30)
    this = reconstructor()
    running, images, found = this.running(), [], []
    for t in range(3):
        images.append(
            running.add(stack(t, frames[10 * t : 10 * t + 10], missing=(4,) if t == 1 else ()))
        )
        found.append(running.localisations)
    assert [image.sum() for image in images] == sorted(image.sum() for image in images)
    assert set(np.concatenate(found)["frame"]) == set(range(30)) - {14}
    np.testing.assert_allclose(images[0], this.reconstruct(frames[:10]))
    alone = [this.draw(f) for f in found]
    np.testing.assert_allclose(images[2], sum(alone), atol=1e-3)
    assert images[0].base is None
    images[2][:] = 0  # the caller's own
    assert running.add(stack(3, frames[:10])).sum() > images[1].sum()


def test_a_sliding_image_forgets_also_over_a_gap():
    frames, _ = exposed("emccd", 10)
    running = reconstructor(sliding_groups=2).running()
    sums = [running.add(stack(t, frames)).sum() for t in (0, 1, 2, 5)]
    one = sums[0]
    assert sums == pytest.approx([one, 2 * one, 2 * one, one], rel=1e-4)


def test_a_long_group_is_localised_in_blocks_after_the_correction():
    frames, _ = exposed("emccd", 5)
    long, seen = STORMReconstructor(localiser(), PIXEL_NM, 20.0, 2 * FRAMES_AT_ONCE + 5), []

    def correct(block):
        seen.append(len(block))
        return np.array(block, np.float32)

    running = long.running(correct)
    running.add(stack(1, [frames[k % 5] for k in range(2 * FRAMES_AT_ONCE + 5)]))
    assert seen == [FRAMES_AT_ONCE, FRAMES_AT_ONCE, 5]
    numbers = running.localisations["frame"]
    assert (numbers.min(), numbers.max()) == (205, 409)
    assert np.all(np.diff(numbers) >= 0)


def test_a_drifting_film_is_drawn_as_if_it_stood_still():
    """The same frames moved by whole camera pixels: 107 nm a group."""
    rng = np.random.default_rng(2)
    grid = rng.uniform(8, SIZE - 16, (300, 2))
    still = []
    for _ in range(20):
        image = np.full((SIZE, SIZE), 8, np.float32)
        here = grid[rng.random(len(grid)) < 0.1]
        PointSpread(PIXEL_NM / 1e3, NA, EMISSION_NM / 1e3).add(
            image, here[:, 0], here[:, 1], np.full(len(here), 3000.0)
        )
        still.append(EMCCD.expose(image, rng))
    running = reconstructor(drift_correction=True).running()
    first = running.add(stack(0, still))
    moved = running.add(stack(1, [np.roll(frame, (1, 2), axis=(0, 1)) for frame in still]))
    assert running.drift_nm == pytest.approx((107, 214), abs=5)
    assert np.corrcoef(first.ravel(), (moved - first).ravel())[0, 1] > 0.8
    measured = running.localisations["y_nm"].mean()
    assert measured == pytest.approx(
        reconstructor().localise(still, range(20))["y_nm"].mean() + 107, abs=40
    )  # as measured


def test_neighbours_are_fitted_beside_each_other(monkeypatch):
    """Two emitters four sigma apart: alone, each fit is drawn towards the other."""
    rng, spread = np.random.default_rng(6), PointSpread(PIXEL_NM / 1e3, NA, EMISSION_NM / 1e3)
    apart = 4 * SIGMA_NM / PIXEL_NM
    frames = []
    for _ in range(60):
        image = np.full((SIZE, SIZE), 5, np.float32)
        spread.add(
            image,
            np.array([30.0, 30.0]),
            np.array([30.0, 30.0 + apart]),
            np.array([3000.0, 3000.0]),
        )
        frames.append(EMCCD.expose(image, rng))

    def too_near_px() -> float:
        x = np.sort(localiser().localise(frames, range(60))["x_nm"] / PIXEL_NM - 0.5)
        assert 115 <= len(x) <= 125
        return apart - (np.median(x[len(x) // 2 :]) - np.median(x[: len(x) // 2]))

    together = too_near_px()
    monkeypatch.setattr(localise, "_ROUNDS", 0)
    assert abs(together) < 0.08
    assert too_near_px() > 2 * abs(together)


def gaussian(y: float, x: float, photons: float) -> np.ndarray:
    """One spot of the fit's own shape, whose place counts from the frame's corner, in pixels."""
    edges, sigma = np.arange(SIZE + 1), SIGMA_NM / PIXEL_NM
    rows, columns = (np.diff(ndtr((edges - at) / sigma)) for at in (y, x))
    return photons * np.outer(rows, columns)


def least_error_nm(apart_px: float, photons: float, background: float) -> float:
    """Cramer-Rao bound of one axis of two emitters, all of which is unknown: by differences."""
    at = np.array([32.2, 30.3, photons, 32.2, 30.3 + apart_px, photons, background])
    steps = np.diag([0.01, 0.01, 1.0, 0.01, 0.01, 1.0, 0.1])

    def light(p: np.ndarray) -> np.ndarray:
        return p[6] + gaussian(*p[:3]) + gaussian(*p[3:6])

    slopes = [(light(at + h) - light(at - h)) / (2 * h.sum()) for h in steps]
    fisher = [[(a * b / light(at)).sum() for a in slopes] for b in slopes]
    return float(np.sqrt(np.linalg.inv(fisher).diagonal()[:2].mean())) * PIXEL_NM


@pytest.mark.parametrize("sigmas", [3.25, 3.5, 4.0, 6.0])
def test_neighbours_are_known_as_well_as_their_light_lets_them(sigmas):
    rng, photons, background, apart = np.random.default_rng(7), 1000.0, 20.0, sigmas * SIGMA_NM
    frames, truth = [], []
    for k in range(10):
        expected = np.full((SIZE, SIZE), background)
        for corner in np.ndindex(4, 4):
            middle = 16 * np.array(corner) + 8 + rng.uniform(-1, 1, 2)
            turn = rng.uniform(0, np.pi)
            half = np.array([np.sin(turn), np.cos(turn)]) * apart / PIXEL_NM / 2
            for y, x in (middle - half, middle + half):
                expected += gaussian(y, x, photons)
                truth.append((k, y - 0.5, x - 0.5))
        frames.append((rng.poisson(expected) + 100).astype(np.uint16))
    shape = (SIZE, SIZE)
    found = Localiser(shape, PIXEL_NM, SIGMA_NM, PhotonScale(100.0)).localise(frames, range(10))
    differences, records = matched(found, np.array(truth))
    assert len(records) > 0.94 * len(truth)
    # Robust: two that are seen as one lie far from either.
    error_nm = 1.4826 * np.median(np.abs(differences))
    assert error_nm < 1.15 * least_error_nm(apart / PIXEL_NM, photons, background)
    assert error_nm == pytest.approx(np.median(found["uncertainty_nm"][records]), rel=0.15)


def test_simulated_data_with_known_positions(microscope_data):
    """ThunderSTORM's simulation, 6 emitters/um^2 and frame, far beyond what single fits are made
    for."""
    import tifffile

    folder = microscope_data / "storm"
    frames = tifffile.imread(folder / "simulated_mt_20x64x64.tif")
    true = np.genfromtxt(folder / "simulated_mt_20x64x64_positions.csv", delimiter=",", names=True)
    found = Localiser((64, 64), 100.0, 110.0, PhotonScale(100.0)).localise(frames, range(1, 21))
    score = score_localisations(
        found["frame"],
        np.stack([found["y_nm"], found["x_nm"]], axis=1),
        true["frame"].astype(int),
        np.stack([true["y_nm"], true["x_nm"]], axis=1),
    )
    assert score.jaccard > 0.27
    assert score.precision > 0.98
    assert score.rmse_nm < 75
    assert np.hypot(*score.bias_nm) < 5


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(FrameShapeError, match="without frames"):
        reconstructor().reconstruct([])
    with pytest.raises(FrameShapeError, match=r"\(8, 8\) came, this stream expects \(64, 64\)"):
        reconstructor().reconstruct([np.zeros((8, 8), np.uint16)])


def test_the_scale_of_a_camera():
    assert PhotonScale.of(100, None).photons_per_adu == 1
    emccd = PhotonScale.of(100, 15, 200, 60)
    assert (emccd.photons_per_adu, emccd.read_variance) == pytest.approx((0.075, 0.09))
    assert emccd.excess == pytest.approx(2, rel=0.01)
    assert dataclasses.astuple(PhotonScale.of(90, 0.5, None, 2.0)) == (90, 0.5, 1.0, 4.0)
