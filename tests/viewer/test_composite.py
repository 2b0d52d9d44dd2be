"""Known values in, known colours out."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from livesr.viewer.composite import (
    DEFAULT_COLORS,
    ChannelView,
    Compositor,
    PanelLabel,
    auto_window,
    composite,
    encode_jpeg,
    grayscale,
    length_text,
    panel,
    rgb_of,
    scale_bar_um,
)

GREEN, MAGENTA, YELLOW = (ChannelView(color, (0, 1000)) for color in DEFAULT_COLORS.values())


def pixel(*values: int) -> np.ndarray:
    return np.array(values, np.uint16).reshape(-1, 1, 1)


def color_of(values: tuple[int, ...], *views: ChannelView) -> tuple[int, int, int]:
    red, green, blue = composite(pixel(*values), views)[0, 0]
    return int(red), int(green), int(blue)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1000, 0, 0), (0, 255, 0)),
        ((0, 1000, 0), (255, 0, 255)),
        ((0, 0, 1000), (255, 255, 0)),
        ((1000, 1000, 0), (255, 255, 255)),
        ((400, 400, 0), (102, 102, 102)),
        ((400, 0, 400), (102, 204, 0)),
        ((1000, 1000, 1000), (255, 255, 255)),
        ((65535, 65535, 65535), (255, 255, 255)),
    ],
)
def test_colours_add_and_clip_at_white(values, expected):
    assert color_of(values, GREEN, MAGENTA, YELLOW) == expected


@pytest.mark.parametrize(
    ("value", "level"), [(0, 0), (100, 0), (600, 128), (1100, 255), (1101, 255), (65535, 255)]
)
def test_window_maps_low_to_black_and_high_to_the_full_colour(value, level):
    assert color_of((value,), ChannelView("FFFFFF", (100, 1100))) == (level,) * 3


def test_gamma_lifts_the_faint_and_invisible_channels_add_nothing():
    assert color_of((250,), ChannelView("FF0000", (0, 1000), gamma=0.5)) == (128, 0, 0)
    hidden = ChannelView("FF0000", (0, 1000), visible=False)
    assert color_of((1000,), hidden) == (0, 0, 0)
    assert color_of((1000, 1000), hidden, GREEN) == (0, 255, 0)


def test_window_without_width_is_a_threshold():
    view = ChannelView("FFFFFF", (500, 500))
    assert color_of((500,), view) == (0, 0, 0)
    assert color_of((501,), view) == (255, 255, 255)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 7, 12])
def test_any_number_of_channels_saturates_instead_of_overflowing(count):
    view = ChannelView("FF8001", (0, 255))
    for value in (1, 40, 255):
        expected = tuple(min(255, count * round(part * value / 255)) for part in rgb_of("FF8001"))
        assert color_of((value,) * count, *[view] * count) == expected


def test_every_pixel_of_a_large_frame_agrees_with_plain_arithmetic():
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 1300, (3, 301, 417), np.uint16)  # neither size divides a band
    views = [
        ChannelView("00FF00", (50, 900)),
        ChannelView("FF00FF", (0, 1200)),
        ChannelView("FFFF00", (10, 500)),
    ]
    levels = [
        np.rint(
            np.clip((p - np.float32(v.window[0])) / np.float32(v.window[1] - v.window[0]), 0, 1)
            * 255
        )
        for p, v in zip(frame.astype(np.float32), views, strict=True)
    ]
    green, magenta, yellow = levels
    expected = np.stack([magenta + yellow, green + yellow, magenta], axis=-1).clip(0, 255)
    np.testing.assert_array_equal(composite(frame, views), expected)


def test_render_fills_the_given_picture_and_allocates_nothing_that_stays():
    frame = np.zeros((3, 256, 256), np.uint16)
    compositor, out = Compositor((256, 256)), np.empty((256, 256, 3), np.uint8)
    views = (GREEN, MAGENTA, YELLOW)
    assert compositor.render(frame, views, out) is out
    tracemalloc.start()
    for _ in range(5):
        compositor.render(frame, views, out)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 4096


def test_reads_a_view_that_is_not_contiguous():
    block = np.arange(2 * 8 * 8, dtype=np.uint16).reshape(2, 8, 8) * 10
    part = block[:, ::2, 1::3]
    np.testing.assert_array_equal(
        composite(part, (GREEN, MAGENTA)), composite(part.copy(), (GREEN, MAGENTA))
    )


def test_what_does_not_fit_is_refused_with_what_came():
    with pytest.raises(ValueError, match=r"float32 .*expected uint16"):
        composite(np.zeros((1, 2, 2), np.float32), (GREEN,))
    with pytest.raises(ValueError, match="one plane per view"):
        composite(np.zeros((2, 2, 2), np.uint16), (GREEN,))
    with pytest.raises(ValueError, match="'green', expected six"):
        color_of((1,), ChannelView("green", (0, 1)))
    with pytest.raises(ValueError, match="gamma is 0"):
        color_of((1,), ChannelView("00FF00", (0, 1), gamma=0))
    for window in ((float("nan"), 1), (0, float("inf")), (0, 1e300)):
        with pytest.raises(ValueError, match="expected two finite"):
            color_of((1,), ChannelView("00FF00", window))
    with pytest.raises(ValueError, match="JPEG holds at most"):
        encode_jpeg(np.zeros((1, 70_000), np.uint8))
    with pytest.raises(ValueError, match="expected uint16"):
        grayscale(np.zeros((2, 2)), (0, 1))


def test_measurement_is_grey():
    picture = grayscale(np.array([[0, 500, 2000]], np.uint16), (0, 1000))
    assert picture.tolist() == [[0, 128, 255]]


def test_auto_window_holds_nearly_all_of_a_frame():
    image = np.tile(np.arange(1000, dtype=np.uint16), (1000, 1))
    low, high = auto_window(image)
    assert 0 <= low <= 20
    assert 985 <= high <= 1000
    assert auto_window(np.zeros((4, 4), np.uint16))[1] > 0


def test_pictures_survive_encoding():
    picture = composite(np.full((1, 32, 48), 1000, np.uint16), (MAGENTA,))
    with Image.open(io.BytesIO(encode_jpeg(picture))) as jpeg:
        assert jpeg.size == (48, 32)
        assert np.abs(np.asarray(jpeg).astype(int) - picture).max() <= 3
    with Image.open(io.BytesIO(encode_jpeg(picture[..., 0]))) as grey:
        assert grey.mode == "L"


@pytest.mark.parametrize(
    ("width_um", "bar_um"),
    [(4, 1), (7.9, 1), (8, 2), (20, 5), (33.3, 5), (40, 10), (0.4, 0.1), (3000, 500)],
)
def test_scale_bar_is_a_round_length_of_at_most_a_quarter(width_um, bar_um):
    assert scale_bar_um(width_um) == pytest.approx(bar_um)


def test_lengths_and_widths_for_people():
    assert [length_text(um) for um in (0.5, 1, 20)] == ["500 nm", "1 µm", "20 µm"]
    with pytest.raises(ValueError, match="expected a positive"):
        scale_bar_um(float("nan"))


def test_panel_shows_every_picture_with_a_scale_bar_of_the_right_length():
    grey = np.full((64, 64), 90, np.uint8)
    green = composite(np.full((1, 128, 128), 1000, np.uint16), (GREEN,))
    labels = [
        PanelLabel("Reconstruction", "measurement"),
        PanelLabel("Microtubules", "prediction", "00FF00"),
    ]
    drawn = np.asarray(panel([grey, green], labels, pixel_size_um=0.1, tile=320))
    assert (drawn == (0, 255, 0)).all(axis=2).sum() >= 320 * 320
    assert (drawn == (90, 90, 90)).all(axis=2).sum() > 0.9 * 320 * 320
    white = (drawn == 255).all(axis=2)
    # 12.8 um across 320 pixels: a bar of 2 um is 50 pixels, 4 high
    assert sum(int(row.sum()) in {50, 51} for row in white[-60:]) >= 3


def test_panel_spreads_many_pictures_over_two_rows_and_refuses_missing_labels():
    tile = np.zeros((10, 20), np.uint8)
    label = PanelLabel("Channel", "ground truth")
    wide, tall = panel([tile] * 4, [label] * 4, 0.1), panel([tile] * 6, [label] * 6, 0.1)
    assert wide.width > tall.width
    assert wide.height < tall.height
    with pytest.raises(ValueError, match="2 images came with 1 labels"):
        panel([tile] * 2, [label], 0.1)


def test_panel_leaves_a_place_empty():
    tile, label = np.full((10, 20), 255, np.uint8), PanelLabel("Channel", "ground truth")
    full = np.asarray(panel([tile] * 4, [label] * 4, 0.1, columns=2))
    gap = np.asarray(panel([tile, None, tile, tile], [label, None, label, label], 0.1, columns=2))
    assert gap.shape == full.shape
    half = full.shape[0] // 2, full.shape[1] // 2
    assert len(np.unique(gap[: half[0], half[1] + 20 :])) <= 3, "background alone"
    assert np.array_equal(gap[half[0] :], full[half[0] :])
