"""The simulated cell: repeatable, alive, smooth in time, and true to its own physics."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from livesr.simulation.specimens import (
    DEFAULT_STRUCTURES,
    STRUCTURES,
    Actin,
    ActinParameters,
    Cell,
    CellOutline,
    CoatedPits,
    EndoplasmicReticulum,
    LysosomeParameters,
    Lysosomes,
    MicrotubuleParameters,
    Microtubules,
    Mitochondria,
    MitochondriaParameters,
    PitParameters,
    ReticulumParameters,
)
from livesr.simulation.specimens.noise import mean_reverting
from livesr.simulation.specimens.raster import bin_blocks, enlarge, splat, splat_polylines

SHAPE, PIXEL_UM = (96, 160), 0.0325


def cell(seed=3, **kwargs):
    return Cell(SHAPE, PIXEL_UM, seed, **{"outline": None, **kwargs})


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.fixture(params=STRUCTURES)
def name(request):
    return request.param


class TestPixels:
    def test_float32_finite_non_negative_and_not_square(self):
        for images in (cell().render(), cell().render_haze()):
            assert tuple(images) == DEFAULT_STRUCTURES
            for image in images.values():
                assert image.shape == SHAPE
                assert image.dtype == np.float32
                assert np.isfinite(image).all()
                assert image.min() >= 0
                assert image.max() > 0

    def test_the_bright_part_is_about_one(self, name):
        typical = Cell((256, 256), PIXEL_UM, 1, [name], outline=None).render()[name]
        assert np.percentile(typical, 99.8) == pytest.approx(1, abs=0.01)

    def test_a_given_array_is_filled(self, name):
        structure = cell(structures=[name]).structures[name]
        out = np.full(SHAPE, np.nan, np.float32)
        assert structure.render(out) is out
        np.testing.assert_array_equal(out, structure.render())
        assert structure.render_haze(out) is out
        assert np.isfinite(out).all()

    def test_haze_is_smooth_and_follows_its_parameter(self):
        weak, strong = (
            Cell(
                SHAPE, PIXEL_UM, 1, ["er"], {"er": ReticulumParameters(haze=haze)}, None
            ).render_haze()["er"]
            for haze in (0.5, 1.0)
        )
        np.testing.assert_allclose(strong, 2 * weak, rtol=1e-5)
        assert np.abs(np.diff(strong, axis=0)).max() < 0.05 * strong.max()

    def test_without_haze_there_is_none(self):
        assert (
            not Cell(SHAPE, PIXEL_UM, 1, ["er"], {"er": ReticulumParameters(haze=0)})
            .render_haze()["er"]
            .any()
        )

    def test_nothing_lies_outside_the_cell(self):
        middle = (SHAPE[0] * PIXEL_UM / 2, SHAPE[1] * PIXEL_UM / 2)
        outline = CellOutline(middle, 1.0, middle, 0.2, middle)
        outside = outline.mask(SHAPE, PIXEL_UM) == 0
        far = outline.depth_um(np.moveaxis(np.indices(SHAPE), 0, -1) * PIXEL_UM) < -1.0
        assert far.any()
        assert outside[far].all()
        for image in cell(outline=outline).render().values():
            assert image[far].max() < 0.02 * max(image.max(), 1e-6)

    @pytest.mark.parametrize("shape", [(8, 8), (8, 200), (33, 17)])
    def test_small_grids_work(self, shape):
        for seed in range(3):
            for image in Cell(shape, 0.1, seed).render().values():
                assert image.shape == shape


class TestRepeatable:
    def test_same_seed_same_pixels(self):
        one, two = cell(), cell()
        for _ in range(3):
            for a, b in zip(one.render().values(), two.render().values(), strict=True):
                np.testing.assert_array_equal(a, b)
            one.advance(0.7)
            two.advance(0.7)

    def test_a_seed_sequence_is_not_used_up(self):
        root = np.random.SeedSequence(5)
        np.testing.assert_array_equal(cell(root).render()["er"], cell(root).render()["er"])

    def test_another_seed_another_cell(self, name):
        assert correlation(*(cell(seed, structures=[name]).render()[name] for seed in (1, 2))) < 0.5

    def test_a_structure_does_not_depend_on_the_others(self):
        alone = cell(structures=["er"]).render()
        assert list(alone) == ["er"]
        np.testing.assert_array_equal(alone["er"], cell().render()["er"])

    def test_random_cells_repeat(self):
        one, two = (Cell.random(np.random.default_rng(4), SHAPE, PIXEL_UM) for _ in range(2))
        for a, b in zip(one.render().values(), two.render().values(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_random_cells_are_sound(self):
        rng = np.random.default_rng(0)
        for _ in range(12):
            random = Cell.random(rng, SHAPE, PIXEL_UM)
            random.advance(2)
            for image in (*random.render().values(), *random.render_haze().values()):
                assert np.isfinite(image).all()
                assert image.min() >= 0


class TestMotion:
    def test_no_time_no_change(self, name):
        still = cell(structures=[name])
        before = still.render()[name], still.render_haze()[name]
        still.advance(0)
        np.testing.assert_array_equal(still.render()[name], before[0])
        np.testing.assert_array_equal(still.render_haze()[name], before[1])

    def test_close_in_time_close_in_space(self, name):
        moving = Cell((192, 192), PIXEL_UM, 2, [name], outline=None)
        frames = [moving.render()[name]]
        for dt_s in (0.1, 1.9):
            moving.advance(dt_s)
            frames.append(moving.render()[name])
        # In 0.1 s diffusion takes a lysosome 30 nm and a run 80 nm: as much as its wall is thick.
        assert correlation(frames[0], frames[1]) > (0.8 if name == "lysosomes" else 0.9)
        assert correlation(frames[0], frames[2]) < correlation(frames[0], frames[1])
        assert 0.2 < correlation(frames[0], frames[2]) < 0.995

    def test_brightness_does_not_flicker(self, name):
        moving = Cell((192, 192), PIXEL_UM, 2, [name], outline=None)
        light = []
        for _ in range(10):
            light.append(moving.render()[name].sum())
            moving.advance(0.1)
        steps = np.abs(np.diff(light)) / np.mean(light)
        assert steps.max() < 0.03

    def test_one_step_or_many_the_same_spread(self):
        rng, time_s, spread = np.random.default_rng(0), 3.0, 0.5
        once, often = np.zeros((2, 20_000), np.float32)
        mean_reverting(once, 2.0, time_s, spread, rng)
        for _ in range(20):
            mean_reverting(often, 0.1, time_s, spread, rng)
        expected = spread * np.sqrt(1 - np.exp(-4 / time_s))
        assert once.std() == pytest.approx(expected, rel=0.03)
        assert often.std() == pytest.approx(expected, rel=0.03)

    @pytest.mark.parametrize("dt_s", [-0.1, np.nan, np.inf])
    def test_time_runs_forwards(self, dt_s):
        with pytest.raises(ValueError, match="dt_s"):
            cell().advance(dt_s)


class TestMicrotubules:
    def build(self, **parameters):
        return Microtubules(
            SHAPE, PIXEL_UM, np.random.default_rng(0), MicrotubuleParameters(**parameters)
        )

    def test_they_grow_at_the_stated_speed(self):
        filaments = self.build(
            dynamic_fraction=1,
            catastrophe_per_s=0,
            rescue_per_s=1e3,
            growth_um_per_min=12,
            density_um_per_um2=5,
        )
        filaments.advance(0.5)  # now all of them grow
        before = filaments.length_um.copy()
        filaments.advance(2)
        grown = filaments.length_um - before
        assert np.all(grown >= 0)
        assert np.median(grown[grown > 0]) == pytest.approx(12 / 60 * 2, rel=0.2)

    def test_curled_ones_turn_further_and_the_others_look_as_before(self):
        def turning(**parameters):
            steps = np.diff(self.build(**parameters)._tracks, axis=1)
            angle = np.unwrap(np.arctan2(steps[..., 0], steps[..., 1]), axis=1)
            return np.abs(np.diff(angle, axis=1)).mean()

        assert turning(curled_fraction=1, curl_per_um=2) > 2 * turning()
        assert turning(curled_fraction=0, curl_per_um=2) == turning()

    def test_they_shrink_and_start_anew(self):
        filaments = self.build(
            dynamic_fraction=1, catastrophe_per_s=1e3, rescue_per_s=0, mean_length_um=3
        )
        filaments.advance(0.5)
        before = filaments.length_um.copy()
        filaments.advance(1)
        assert np.median(filaments.length_um - before) == pytest.approx(-20 / 60, rel=0.2)
        filaments.advance(60)
        assert np.all((filaments.length_um > 0) & (filaments.length_um < 3))

    def test_stable_ones_keep_their_length(self):
        filaments = self.build(dynamic_fraction=0)
        before = filaments.length_um.copy()
        filaments.advance(10)
        np.testing.assert_array_equal(filaments.length_um, before)

    def test_a_stiffer_chain_is_straighter(self):
        def straightness(persistence_um):
            nodes = self.build(
                persistence_um=persistence_um, curvature_per_um=0, wiggle_nm=0
            ).nodes_um
            contour = np.linalg.norm(np.diff(nodes, axis=1), axis=2).sum(axis=1)
            return np.mean(np.linalg.norm(nodes[:, -1] - nodes[:, 0], axis=1) / contour)

        assert straightness(2) < straightness(20) < straightness(200)

    def test_they_wiggle_as_far_as_stated(self):
        filaments = self.build(wiggle_nm=80, dynamic_fraction=0, density_um_per_um2=20)
        before = filaments.nodes_um.copy()
        filaments.advance(1000)
        moved = filaments.nodes_um - before
        # Two independent draws of the lateral wiggle and of the sliding.
        assert np.sqrt((moved**2).sum(axis=2).mean()) == pytest.approx(0.08 * 2, rel=0.2)


class TestLysosomes:
    def build(self, **parameters):
        tracks = Microtubules((256, 256), PIXEL_UM, np.random.default_rng(0))
        parameters = LysosomeParameters(density_per_100_um2=80, **parameters)
        riders = Lysosomes(
            (256, 256), PIXEL_UM, np.random.default_rng(1), parameters, microtubules=tracks
        )
        return tracks, riders

    def test_grain_makes_the_inside_uneven(self):
        def roughness(grain):
            image = self.build(grain=grain, filled=1, spot_fraction=0, out_of_focus=0)[1].render()
            return np.abs(image - gaussian_filter(image, 3)).mean() / image.mean()

        assert roughness(1) > 1.2 * roughness(0)

    def test_vacuoles_are_larger_than_lysosomes_and_even(self):
        def radii(largest_um):
            return self.build(diameter_um=1.2, largest_um=largest_um, spot_fraction=0)[1].radius_um

        assert radii(1.0).max() == pytest.approx(0.5)
        assert 0.6 < radii(2.6).max() <= 1.3

    def test_the_running_ones_stay_on_microtubules(self):
        tracks, riders = self.build(mobile_fraction=0.5)
        for _ in range(20):
            tracks.advance(0.25)
            riders.advance(0.25)
            _, _, distance = tracks.nearest(riders.positions_um[riders.running])
            assert np.median(distance) < 0.1
            # Nodes lie 0.2 um apart, and one that has just bound is still drawn in from up to 0.4
            # um.
            assert distance.max() < 0.5
        assert riders.running.any()

    def test_without_any_microtubule_in_the_cell_they_stay_where_they_are(self):
        tracks = Microtubules((96, 96), PIXEL_UM, np.random.default_rng(0))
        tracks._light[:] = 0  # as where a cell's outline leaves none
        riders = Lysosomes((96, 96), PIXEL_UM, np.random.default_rng(1), microtubules=tracks)
        riders.advance(0.5)
        assert np.isfinite(riders.positions_um).all()
        assert np.all(riders._filament == -1)

    def test_they_run_at_the_stated_speed(self):
        _, riders = self.build(mobile_fraction=1, speed_um_per_s=1.0, run_um=1e6)
        before, running = riders.positions_um.copy(), riders.running.copy()
        riders.advance(0.4)
        way = np.linalg.norm(riders.positions_um - before, axis=1)[running & riders.running]
        assert np.median(way) == pytest.approx(0.4, rel=0.2)

    def test_the_confined_ones_stay_in_their_cages(self):
        _, riders = self.build(mobile_fraction=0, confinement_um=0.1)
        before = riders.positions_um.copy()
        riders.advance(60)
        moved = np.linalg.norm(riders.positions_um - before, axis=1)
        assert 0.05 < np.median(moved) < 0.4
        assert moved.max() < 1

    def test_none_jumps_when_its_microtubule_vanishes(self):
        fast = MicrotubuleParameters(
            dynamic_fraction=1, catastrophe_per_s=5, rescue_per_s=0, mean_length_um=3
        )
        tracks = Microtubules(SHAPE, PIXEL_UM, np.random.default_rng(0), fast)
        riders = Lysosomes(SHAPE, PIXEL_UM, np.random.default_rng(1), microtubules=tracks)
        for _ in range(150):
            before = riders.positions_um.copy()
            tracks.advance(0.1)
            riders.advance(0.1)
            assert np.linalg.norm(riders.positions_um - before, axis=1).max() < 0.6

    def test_without_microtubules_they_run_too(self):
        riders = cell(structures=["lysosomes"]).structures["lysosomes"]
        before = riders.positions_um.copy()
        riders.advance(10)
        assert np.linalg.norm(riders.positions_um - before, axis=1).max() > 1


class TestPits:
    def build(self, **parameters):
        return CoatedPits(
            (256, 256), PIXEL_UM, np.random.default_rng(0), PitParameters(**parameters)
        )

    def test_they_are_rings_of_the_stated_size(self):
        pits = self.build(
            diameter_nm=150,
            diameter_spread=0,
            plaque_fraction=0,
            density_per_um2=0.05,
            thickness_nm=10,
        )
        pits.age[:] = 0.6
        fine = CoatedPits((400, 400), 0.01, np.random.default_rng(1), pits.parameters)
        fine.age[:] = 0.6
        image = fine.render()
        y, x = (
            (fine.positions_um[np.argmin(np.abs(fine.positions_um - 2).max(1))] / 0.01)
            .round()
            .astype(int)
        )
        ring, centre = image[y, x + 6 : x + 10].max(), image[y, x]
        assert ring > 2 * centre

    def test_they_live_as_long_as_stated_and_come_back_elsewhere(self):
        pits = self.build(lifetime_s=20, plaque_fraction=0, diffusion_um2_per_s=0)
        before = pits.positions_um.copy()
        pits.advance(20)
        renewed = np.any(pits.positions_um != before, axis=1).mean()
        assert 0.5 < renewed < 0.99
        assert pits.age.max() < 1

    def test_plaques_stay(self):
        pits = self.build(lifetime_s=20, plaque_fraction=1, diffusion_um2_per_s=0)
        before = pits.positions_um.copy()
        pits.advance(20)
        assert np.any(pits.positions_um != before, axis=1).mean() < 0.3


class TestMitochondria:
    def profile(self, **parameters):
        """Median light at distances from the axis of a tube, in radii."""
        given = MitochondriaParameters(
            diameter_nm=400,
            filled=0.1,
            density_per_100_um2=4,
            length_um=5,
            length_spread=0,
            thickness_nm=20,
            out_of_focus=0,
            **parameters,
        )
        tubes = Mitochondria((400, 400), 0.02, np.random.default_rng(2), given)
        image = tubes.render()
        nodes, normals = tubes._lines.nodes_um, tubes._lines.normals
        middle = nodes.shape[1] // 2

        def light(across):
            points = (
                nodes[:, middle] + across * tubes.radius_um[:, None] * normals[:, middle]
            ) / 0.02
            inside = ((points > 2) & (points < 397)).all(1)
            return np.median([image[tuple(p)] for p in points[inside].round().astype(int)])

        return light

    def test_they_are_hollow_and_as_wide_as_stated(self):
        light = self.profile()
        assert light(1) > 2 * light(0.0)
        assert light(1) > 5 * light(1.8)

    def test_labelled_inside_they_are_brightest_on_their_axis(self):
        light = self.profile(matrix=1)
        assert light(0.0) > light(0.6) > 1.5 * light(1)
        assert light(0.0) > 5 * light(1.8)

    def test_clumped_ones_lie_nearer_to_each_other_and_swollen_ones_differ_in_width(self):
        def drawn(density=3, **parameters):
            given = MitochondriaParameters(density_per_100_um2=density, **parameters)
            return Mitochondria((1024, 1024), 0.03, np.random.default_rng(1), given)

        def nearest_um(tubes):
            middle = tubes._lines.nodes_um[:, tubes._lines.nodes_um.shape[1] // 2]
            return np.median(cKDTree(middle).query(middle, 2)[0][:, 1])

        assert nearest_um(drawn(clumped=0.9)) < 0.7 * nearest_um(drawn())
        assert np.log(drawn(30, diameter_spread=0.35).radius_um).std() == pytest.approx(
            0.35, rel=0.2
        )

    def test_longer_ones_give_more_light_and_end_rounded(self):
        tubes = Mitochondria((256, 256), PIXEL_UM, np.random.default_rng(0))
        assert np.all(tubes._width <= tubes.radius_um[:, None] + 1e-6)
        assert np.all(tubes._width[:, [0, -1]] == 0), "closed at both ends"
        assert np.median(tubes.length_um) == pytest.approx(3.0, rel=0.4)


class TestActin:
    def test_fibres_follow_the_axis_and_the_mesh_does_not(self):
        actin = Actin(
            (256, 256),
            PIXEL_UM,
            np.random.default_rng(0),
            ActinParameters(spread_rad=0.1, fibres_um_per_um2=2),
        )

        def order(lines):
            chord = lines.nodes_um[:, -1] - lines.nodes_um[:, 0]
            return np.abs(np.exp(2j * np.arctan2(chord[:, 0], chord[:, 1])).mean())

        assert order(actin._fibres) > 0.8
        assert order(actin._mesh) < 0.3

    def test_the_mesh_turns_over(self):
        def similar(turnover_s):
            actin = Actin(
                SHAPE,
                PIXEL_UM,
                np.random.default_rng(0),
                ActinParameters(turnover_s=turnover_s, sway_nm=1),
            )
            before = actin.render()
            actin.advance(5)
            return correlation(before, actin.render())

        assert similar(2) < similar(20) < similar(500)


class TestReticulum:
    def test_junctions_jitter_as_far_as_stated(self):
        def moved(jitter_nm):
            parameters = ReticulumParameters(jitter_nm=jitter_nm)
            network = EndoplasmicReticulum(SHAPE, PIXEL_UM, np.random.default_rng(0), parameters)
            before = network.render()
            network.advance(2)
            return correlation(before, network.render())

        assert moved(150) < moved(60) < moved(5)

    def test_sheets_add_light_between_the_tubules(self):
        def filled(sheet_fraction):
            parameters = ReticulumParameters(sheet_fraction=sheet_fraction)
            network = EndoplasmicReticulum(
                (256, 256), PIXEL_UM, np.random.default_rng(0), parameters
            )
            return np.mean(network.render() > 0.15)

        assert filled(0.5) > 1.5 * filled(0)

    def test_holes_open_the_sheets_and_clouds_blur_them(self):
        def rendered(**more):
            parameters = ReticulumParameters(
                mesh_um=2.5, sheet_fraction=1, sheet_grain_um=0.5, shading=0, **more
            )
            return EndoplasmicReticulum(
                (256, 256), PIXEL_UM, np.random.default_rng(0), parameters
            ).render()

        whole, open_, cloudy = rendered(), rendered(holes=0.5), rendered(cloud=1.0)
        assert np.mean(open_ < 0.1) > 2 * np.mean(whole < 0.1)
        assert np.abs(np.diff(cloudy)).mean() < 0.9 * np.abs(np.diff(whole)).mean()

    def test_an_even_mesh_has_polygons_alike(self):
        def spread(even):
            parameters = ReticulumParameters(
                mesh_um=0.6, even=even, uneven=0, long_per_100_um2=0, missing_fraction=0
            )
            network = EndoplasmicReticulum(
                (256, 256), PIXEL_UM, np.random.default_rng(0), parameters
            )
            seeds = network._seeds()
            distance = cKDTree(seeds).query(seeds, 2)[0][:, 1]
            return distance.std() / distance.mean()

        assert spread(1) < 0.8 * spread(0)

    def test_a_fine_mesh_costs_no_more_nodes_than_it_needs(self):
        def nodes(mesh_um):
            return EndoplasmicReticulum(
                (96, 96), PIXEL_UM, np.random.default_rng(0), ReticulumParameters(mesh_um=mesh_um)
            )._tubule_nodes().shape[1]  # fmt: skip

        assert (nodes(0.3), nodes(1.5), nodes(2.8)) == (11, 33, 33)

    def test_loops_are_as_large_as_stated(self):
        def largest(loop_um):
            parameters = ReticulumParameters(loop_um=loop_um, loops_per_tubule=2)
            network = EndoplasmicReticulum((96, 96), PIXEL_UM, np.random.default_rng(0), parameters)
            return np.ptp(network._loop_shape, axis=1).max()

        assert largest(0.4) == pytest.approx(0.4, rel=0.05)
        assert largest(0.8) == pytest.approx(0.8, rel=0.05)

    def test_tension_evens_out_the_mesh(self):
        def unevenness(tension):
            parameters = ReticulumParameters(tension=tension, long_per_100_um2=0)
            network = EndoplasmicReticulum(
                (256, 256), PIXEL_UM, np.random.default_rng(0), parameters
            )
            start, stop = network._junctions[network._tubules.T]
            lengths = np.linalg.norm(stop - start, axis=1)
            return lengths.std() / lengths.mean()

        assert unevenness(1) < 0.85 * unevenness(0)

    def test_thinning_enlarges_polygons_and_leaves_no_dead_ends(self):
        def tubules(missing_fraction):
            parameters = ReticulumParameters(missing_fraction=missing_fraction, long_per_100_um2=0)
            network = EndoplasmicReticulum(
                (256, 256), PIXEL_UM, np.random.default_rng(0), parameters
            )
            return network._tubules

        everything, thinned = tubules(0), tubules(1)
        assert 0.6 < len(thinned) / len(everything) < 0.85
        before, after = (
            np.bincount(everything.ravel()),
            np.bincount(thinned.ravel(), minlength=everything.max() + 1),
        )
        assert after[before >= 2].min() >= 2


class TestRaster:
    def test_a_splat_keeps_weight_and_place(self):
        image = splat(np.array([[3.25, 5.5]]), np.array([[2.0]]), (8, 10))[0]
        assert image.sum() == pytest.approx(2)
        rows, columns = np.indices(image.shape)
        assert (image * rows).sum() / 2 == pytest.approx(3.25)
        assert (image * columns).sum() / 2 == pytest.approx(5.5)

    def test_a_line_weighs_its_length(self):
        line = np.array([[[5.0, 5.0], [5.0, 9.0], [20.0, 9.0]]])
        weights = np.ones((1, 1, 3))
        assert splat_polylines(line, weights, (30, 30)).sum() == pytest.approx(19, rel=1e-5)
        half = splat_polylines(line, weights, (30, 30), visible=np.array([0.5]))
        assert half.sum() == pytest.approx(2, rel=1e-5)

    def test_a_smooth_image_survives_binning(self):
        y, x = np.indices((64, 96))
        smooth = (np.cos(y / 30) + np.sin(x / 40)).astype(np.float32)
        np.testing.assert_allclose(
            enlarge(bin_blocks(smooth, 8), 8)[8:-8, 8:-8], smooth[8:-8, 8:-8], atol=0.02
        )


class TestBadArguments:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"shape": (4, 100)}, "at least 8 pixels"),
            ({"shape": (64,)}, "shape must be"),
            ({"pixel_size_um": 0}, "pixel_size_um must be positive"),
            ({"structures": []}, "at least one structure"),
            (
                {"structures": ["er", "flagella"]},
                "unknown structure 'flagella'; known are microtubules, er",
            ),
            (
                {"parameters": {"er": LysosomeParameters()}},
                "er takes ReticulumParameters, got LysosomeParameters",
            ),
            ({"outline": "round"}, "outline must be"),
        ],
    )
    def test_a_cell_explains_what_is_wrong(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            Cell(**{"shape": SHAPE, "pixel_size_um": PIXEL_UM, **kwargs})

    @pytest.mark.parametrize(
        ("kind", "change"),
        [
            (MicrotubuleParameters, {"density_um_per_um2": 0}),
            (MicrotubuleParameters, {"radial_fraction": 1.1}),
            (MicrotubuleParameters, {"haze": -0.1}),
            (ReticulumParameters, {"mesh_um": -1}),
            (ReticulumParameters, {"holes": 1.5}),
            (MicrotubuleParameters, {"curled_fraction": -1}),
            (LysosomeParameters, {"largest_um": 0.1}),
            (ReticulumParameters, {"sheet_fraction": 2}),
            (LysosomeParameters, {"clusters": 0}),
            (LysosomeParameters, {"mobile_fraction": -0.5}),
            (LysosomeParameters, {"thickness_nm": 0}),
        ],
    )
    def test_parameters_name_the_culprit(self, kind, change):
        (name,) = change
        with pytest.raises(ValueError, match=name):
            replace(kind(), **change)

    def test_an_array_of_the_wrong_kind_is_refused(self):
        structure = cell().structures["er"]
        for wrong in (np.zeros(SHAPE), np.zeros(SHAPE[::-1], np.float32)):
            with pytest.raises(ValueError, match="out must be float32"):
                structure.render(wrong)

    def test_the_registry_holds_every_default(self):
        assert set(DEFAULT_STRUCTURES) <= set(STRUCTURES)
