"""The page in a real browser.

The right pixels in the right colours, controls that act, and honest words.
"""

import io
import re
import time

import numpy as np
import pytest
from PIL import Image

from contracts import describe, feed
from livesr.base.frames import Stream
from livesr.formats.wire import WireChannel, WireCounts, WireLocalised
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.chromium import FLAGS, find_chromium
from livesr.viewer.store_source import StoreSource
from livesr.viewer.successive import SuccessiveSource
from preview_source import CHANNELS, MemorySource, flat, measurement, prediction, widefield

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)
PATIENCE_MS = 60_000  # of a browser beside everything else that the computer does


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if (chromium := find_chromium()) is None:
        pytest.skip("no Chromium on this machine")
    profile = tmp_path_factory.mktemp("profile")
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            args=FLAGS,
            viewport={"width": 1200, "height": 860},
            has_touch=True,
        )
        yield context
        context.close()


@pytest.fixture
def source():
    return MemorySource()


@pytest.fixture
def server(source):
    with PreviewServer(source.pairs) as server:
        yield server


@pytest.fixture
def open_page(browser):
    """Open pages; the test fails if one complained or asked for anything that is not the
    server's."""
    pages, complaints, asked = [], [], []

    def open_one(url):
        page = browser.new_page()
        page.on(
            "console",
            lambda m: complaints.append(m.text) if m.type in {"error", "warning"} else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.evaluate("localStorage.clear()")
        pages.append((page, url.partition("?")[0]))
        return page

    yield open_one
    for page, _ in pages:
        page.close()
    assert [c for c in complaints if "ERR_CONNECTION_REFUSED" not in c] == []
    ours = tuple(url for _, url in pages)
    assert [url for url in asked if not url.startswith((*ours, "data:", "blob:"))] == []


@pytest.fixture
def page(open_page, server):
    return open_page(server.url)


def wait_for_text(page, selector, text):
    sync_api.expect(page.locator(selector).first).to_contain_text(text)


def words_of(page, selector):
    """The words of each element, read at once: it may be written anew with every picture."""
    told = page.locator(selector).evaluate_all(
        "all => all.map(e => { const texts = document.createTreeWalker(e, NodeFilter.SHOW_TEXT);"
        " let said = ''; while (texts.nextNode()) said += ' ' + texts.currentNode.data;"
        " return said })"
    )
    return [words.split() for words in told]


def pane(shows):
    return f'.pane[data-shows="{shows}"]'


def box_of(page, selector):
    """Where an element stands once the page's layout has come to rest."""
    before = None
    while before != (box := page.locator(selector).bounding_box()):
        before = box
        page.wait_for_timeout(100)
    return box


def screenshot(page, shows) -> np.ndarray:
    canvas = page.locator(pane(shows) + " canvas")
    sync_api.expect(canvas).to_have_css(
        "opacity", re.compile(r"^(0\.42|0\.85|1)$")
    )  # the fade is over
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)


def color_at(picture, y, x):
    """Mean colour around a place given in shares of height and width."""
    row, column = int(y * picture.shape[0]), int(x * picture.shape[1])
    return picture[row - 3 : row + 4, column - 3 : column + 4].mean(axis=(0, 1))


def wait_for_colors(page, shows, colors, atol=5) -> np.ndarray:
    """Return the picture that has these colours at (y, x), as soon as what was asked of the page is
    drawn."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while True:
        picture = screenshot(page, shows)
        found = {place: color_at(picture, *place) for place in colors}
        if all(np.abs(found[place] - colors[place]).max() <= atol for place in colors):
            return picture
        assert time.monotonic() < deadline, (found, colors)
        page.wait_for_timeout(50)


def quadrants():
    """Microtubules, ER / lysosomes, half of the first two, which makes grey.

    The measurement is grey on the right.
    """
    frame = np.zeros((3, 128, 128), np.uint16)
    frame[0, :64, :64] = 1000
    frame[1, :64, 64:] = 1000
    frame[2, 64:, :64] = 1000
    frame[:2, 64:, 64:] = 500
    grey = np.zeros((64, 64), np.uint16)
    grey[:, 32:] = 500
    return measurement(4, grey, pixel_size_um=0.1), prediction(4, frame)


PLACES = {
    (0.4, 0.25): (0, 255, 0),
    (0.4, 0.75): (255, 0, 255),
    (0.6, 0.25): (255, 255, 0),
    (0.6, 0.75): (128,) * 3,
}


# ---- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True], ids=["jpeg", "16 bit"])
def test_shows_the_right_pixels_in_the_right_colours(page, source, raw):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    if raw:
        page.keyboard.press("b")
    wait_for_colors(page, "composite", PLACES, atol=1 if raw else 5)
    wait_for_colors(page, "measurement", {(0.5, 0.25): (0, 0, 0), (0.5, 0.75): (128, 128, 128)})


def test_raw_mode_composes_as_the_server_does(page, source):
    frame = np.random.default_rng(0).integers(0, 1500, (3, 96, 96), np.uint16)
    source.give(prediction(0, frame))
    wait_for_text(page, ".time", "t 0")
    page.locator('[data-label="ER"] input[type=range]').fill("0.5")
    page.keyboard.press("b")
    page.wait_for_timeout(300)
    from livesr.viewer.composite import ChannelView, composite

    gamma = float(page.inner_text('[data-label="ER"] output'))
    views = [
        ChannelView(c.color, c.window, g)
        for c, g in zip(CHANNELS, (1, round(2**-0.5, 3), 1), strict=True)
    ]
    assert gamma == pytest.approx(2**-0.5, abs=0.01)
    script = """async () => {
      const {compose} = await import('./planes.js');
      const canvas = new OffscreenCanvas(96, 96);
      canvas.getContext('2d').drawImage(await compose(window.shown, 96, 96), 0, 0);
      return [...canvas.getContext('2d').getImageData(0, 0, 96, 96).data];
    }"""
    page.evaluate(
        "([planes, views]) => { window.shown = views.map((v, n) => ({...v, plane:"
        " Uint16Array.from(planes[n])})); }",
        [
            frame.reshape(3, -1).tolist(),
            [{"color": v.color, "window": v.window, "gamma": v.gamma} for v in views],
        ],
    )
    drawn = np.array(page.evaluate(script)).reshape(96, 96, 4)[..., :3]
    assert np.abs(drawn - composite(frame, views)).max() <= 1


def test_channels_side_by_side(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    page.keyboard.press("4")
    expected = {(0.4, 0.75): (255, 0, 255), (0.4, 0.25): (0, 0, 0), (0.6, 0.75): (128, 0, 128)}
    wait_for_colors(page, "channel:ER", expected)
    assert page.locator(".pane").count() == 4
    assert page.locator(".pane .title").all_inner_texts() == ["", "Microtubules", "ER", "Lysosomes"]


def test_split_line_is_dragged_over_measurement_and_prediction(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    page.keyboard.press("2")
    wait_for_colors(
        page, "composite measurement", {(0.4, 0.25): (0, 0, 0), (0.4, 0.75): (255, 0, 255)}
    )
    box = box_of(page, ".pane canvas")
    line = box_of(page, ".line")
    page.mouse.move(line["x"] + line["width"] / 2, line["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], line["y"] + 210, steps=4)
    page.mouse.up()
    wait_for_colors(
        page, "composite measurement", {(0.4, 0.75): (128, 128, 128), (0.4, 0.96): (255, 0, 255)}
    )


def test_zoom_goes_to_the_pixel_and_the_scale_bar_with_it(page, source):
    frame = np.zeros((3, 64, 64), np.uint16)
    frame[0, 32, 32] = 1000
    source.give(prediction(0, frame, pixel_size_um=0.1))
    wait_for_text(page, ".length", "1 µm")
    box = box_of(page, ".pane canvas")
    center = box["x"] + box["width"] * 32.5 / 64, box["y"] + box["height"] * 32.5 / 64
    page.mouse.move(*center)
    page.mouse.wheel(0, -3000)
    wait_for_text(page, ".length", "200 nm")
    picture = wait_for_colors(page, "composite", {(0.5, 0.5): (0, 255, 0)})
    green = (picture - [0, 255, 0] < 5).all(axis=2) & (picture[..., 1] > 250)
    side = 64  # CSS pixels that the most enlarged pixel takes
    assert green.sum() == pytest.approx(side**2, rel=0.05)
    assert page.locator(".rule").bounding_box()["width"] == pytest.approx(2 * side, rel=0.01)
    page.mouse.dblclick(*center)
    wait_for_text(page, ".length", "1 µm")


def test_fingers_zoom_pan_and_ask(browser, page, source):
    frame = np.full((3, 64, 64), 321, np.uint16)
    source.give(prediction(0, frame, pixel_size_um=0.1))
    wait_for_text(page, ".length", "1 µm")
    box = box_of(page, ".pane canvas")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    screen = browser.new_cdp_session(page)

    def touch(kind, *places):
        points = [{"x": px, "y": py, "id": n} for n, (px, py) in enumerate(places)]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x - 30, y), (x + 30, y))
    for spread in (60, 120, 200):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    wait_for_text(page, ".length", "200 nm")
    touch("touchStart", (x, y))
    touch("touchEnd")
    wait_for_text(page, "#probe", "ER 321")


def test_colours_for_red_green_blind_eyes(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    page.keyboard.press("c")
    wait_for_colors(page, "composite", {(0.4, 0.25): (0, 255, 255)})
    wait_for_colors(page, "composite", {(0.6, 0.25): (255, 255, 0)})


def test_intensity_under_the_cursor(page, source):
    frame = np.zeros((3, 64, 64), np.uint16)
    frame[:, 16, 48] = 5, 812, 77
    source.give(prediction(0, frame))
    wait_for_text(page, ".time", "t 0")
    box = box_of(page, ".pane canvas")
    page.mouse.move(box["x"] + box["width"] * 48.5 / 64, box["y"] + box["height"] * 16.5 / 64)
    wait_for_text(page, "#probe", "x 48  y 16")
    wait_for_text(page, "#probe", "ER 812")
    page.mouse.move(5, 5)
    sync_api.expect(page.locator("#probe")).to_be_hidden()


@pytest.mark.parametrize("raw", [False, True], ids=["jpeg", "16 bit"])
def test_intensities_have_no_offset_wherever_they_are_told(page, source, raw):
    """What the pointer says, the histogram's scale, its window and the colours on the screen are
    of one convention, whatever offset the pixels have."""
    grey = np.full((64, 64), 1000, np.uint16)
    grey[:, 32:] = 1500
    window = (WireChannel(label="sim", window=(1000, 2000)),)
    source.give(measurement(0, grey, channels=window, offset_adu=1000))
    wait_for_text(page, ".time", "t 0")
    if raw:
        page.keyboard.press("b")
    sync_api.expect(page.locator("#channels .range")).to_have_text("0 – 1000")
    wait_for_colors(page, "measurement", {(0.5, 0.25): (0,) * 3, (0.5, 0.75): (128,) * 3})
    box = box_of(page, ".pane canvas")
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5)
    wait_for_text(page, "#probe", "measured 500")
    histogram = box_of(page, "canvas.histogram:not([aria-busy])")
    page.mouse.move(histogram["x"] + histogram["width"] * 0.87, histogram["y"] + 20)
    page.mouse.down()
    page.mouse.move(histogram["x"] + histogram["width"] * 0.5, histogram["y"] + 20, steps=8)
    page.mouse.up()
    page.wait_for_function(
        "() => Number(document.querySelector('#channels .range').textContent.split(' – ')[1]) < 700"
    )
    drawn = page.locator("#channels .range").inner_text().split(" – ")
    level = 255 * 500 / float(drawn[1])
    wait_for_colors(page, "measurement", {(0.5, 0.75): (min(level, 255),) * 3}, atol=6)


def test_residual_replaces_the_colours(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    page.keyboard.press("r")
    wait_for_text(page, pane("composite") + " .badges", "residual")
    wait_for_colors(
        page, "composite", {(0.4, 0.25): (230, 159, 0)}, atol=8
    )  # nothing was measured there


# ---- controls ------------------------------------------------------------------------------------


def test_colour_visibility_and_contrast_of_a_channel(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    green = page.locator('[data-label="Microtubules"]')
    green.locator(".head .chip").click()
    green.locator(".swatches .chip").nth(3).click()
    wait_for_colors(page, "composite", {(0.4, 0.25): (0, 255, 255)})
    page.keyboard.press("Shift+Digit1")
    wait_for_colors(page, "composite", {(0.4, 0.25): (0, 0, 0)})
    sync_api.expect(green.locator("input[type=checkbox]")).not_to_be_checked()

    histogram = box_of(page, '[data-label="ER"] .histogram')
    y = histogram["y"] + 20
    page.mouse.move(histogram["x"] + histogram["width"] * 0.87, y)  # the upper end
    page.mouse.down()
    page.mouse.move(histogram["x"] + histogram["width"] * 0.435, y, steps=5)
    page.mouse.up()
    assert 450 < float(page.inner_text('[data-label="ER"] .range').split(" – ")[1]) < 550
    wait_for_colors(page, "composite", {(0.6, 0.75): (255, 0, 255)}, atol=8)
    page.keyboard.press("a")
    wait_for_colors(page, "composite", {(0.6, 0.75): (128, 0, 128)}, atol=8)


def test_shortcuts_are_listed_by_a_question_mark(page):
    page.keyboard.press("?")
    wait_for_text(page, "#help", "Automatic contrast")
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#help")).to_be_hidden()


def test_snapshot_is_saved(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    with page.expect_download() as saved:
        page.keyboard.press("s")
    assert saved.value.suggested_filename == "livesr-t0004.png"
    picture = np.asarray(Image.open(saved.value.path()).convert("RGB")).astype(int)
    assert (np.abs(picture - [255, 0, 255]).max(axis=2) < 3).sum() > 0.2 * 480**2


def test_dark_and_light(page):
    colors = set()
    wait_for_text(page, "#theme", "Theme: system")
    for theme in ("dark", "light"):
        while page.get_attribute("html", "data-theme") != theme:
            page.keyboard.press("d")
        wait_for_text(page, "#theme", f"Theme: {theme}")
        colors.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colors == {"rgb(9, 11, 14)", "rgb(241, 243, 245)"}


def test_streams_can_be_chosen(page, source):
    for position in (0, 1):
        level = 1000 * position
        source.give(
            prediction(
                0,
                np.full((3, 8, 8), level, np.uint16),
                position=position,
                position_name=f"well {position}",
                stage_um=(40.0 + position, -2.5, None),
            )
        )
    wait_for_text(page, ".place output", "well 1 · 2 of 2 · 41.0, -2.5 µm")
    newest = page.locator(".newest")
    sync_api.expect(newest).to_have_attribute("aria-pressed", "true")
    page.locator("[name=position]").fill("0")
    wait_for_colors(page, "composite", {(0.5, 0.5): (0, 0, 0)})
    wait_for_text(page, ".place output", "well 0 · 1 of 2 · 40.0, -2.5 µm")
    sync_api.expect(newest).to_have_attribute("aria-pressed", "false")
    # what there is only one of is not asked for
    assert page.locator("#streams :is(select, input)").count() == 1
    newest.click()  # follows again
    wait_for_colors(page, "composite", {(0.5, 0.5): (255, 255, 255)})
    wait_for_text(page, ".place output", "well 1")


def test_planes_have_a_slider_that_says_how_deep(page, source):
    for z in range(3):
        level = np.full((3, 8, 8), 500 * z, np.uint16)
        source.give(prediction(0, level, z=z, z_um=0.25 * z))
    wait_for_text(page, ".place output", "3 of 3 · 500 nm")
    page.locator("[name=z]").fill("1")
    wait_for_colors(page, "composite", {(0.5, 0.5): (255, 255, 255)}, atol=140)
    wait_for_text(page, ".place output", "2 of 3 · 250 nm")
    source.give(prediction(1, np.zeros((3, 8, 8), np.uint16), z=2, z_um=0.5))
    source.give(prediction(1, np.full((3, 8, 8), 400, np.uint16), z=1, z_um=0.25))
    wait_for_text(page, ".time", "t 1")
    wait_for_text(page, ".place output", "2 of 3 · 250 nm")  # the plane that was chosen


def test_widefield_is_beside_the_measurement_in_every_mode(page, source):
    source.give(measurement(4, np.full((64, 64), 500, np.uint16), raw_seq=(36, 44)))
    wait_for_text(page, ".time", "t 4")
    button = page.locator("#widefield-on")
    button.click()
    sync_api.expect(button).to_have_attribute("aria-pressed", "true")
    source.give(widefield(4, np.full((32, 32), 250, np.uint16)))
    wait_for_colors(page, "widefield", {(0.5, 0.5): (64,) * 3})
    wait_for_text(page, pane("widefield"), "Widefield (measured)")
    for raw in (False, True):
        if raw:
            page.keyboard.press("b")
        page.locator('[aria-label="Colour table of the widefield"]').select_option("inverted")
        wait_for_colors(page, "widefield", {(0.5, 0.5): (191,) * 3})
        wait_for_colors(page, "measurement", {(0.5, 0.5): (128,) * 3})
    source.give(*quadrants())
    wait_for_text(page, pane("composite") + " .time", "t 4")
    assert page.locator(".pane").count() == 3
    page.reload()  # it is remembered
    page.locator(pane("widefield")).wait_for()
    button.click()
    sync_api.expect(page.locator(pane("widefield"))).to_have_count(0)


def drag(page, shows, start, end):
    box = box_of(page, pane(shows) + " canvas")
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()


def test_a_line_is_drawn_and_its_profile_shown_and_saved(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    page.click("#line-tool")
    wait_for_text(page, "#measure-hint", "Drag over a picture")
    drag(page, "composite", (0.25, 0.25), (0.75, 0.25))
    wait_for_text(page, "#measured-size", "3.2 µm · t 4")  # half of 128 pixels of 50 nm
    assert words_of(page, ".legend li") == [
        ["Measurement", "measured"],
        ["Microtubules", "predicted", "(AI)"],
        ["ER", "predicted", "(AI)"],
        ["Lysosomes", "predicted", "(AI)"],
    ]
    assert page.locator(".pane .drawn line.over").count() == 2  # over every picture
    with page.expect_download() as saved:
        page.click("#measured-save")
    assert saved.value.suggested_filename == "livesr-line-t4.csv"
    with open(saved.value.path(), encoding="utf-8") as file:
        head, *rows = (line.strip().split(",") for line in file)
    assert head == ["picture", "is", "t", "unit", "um", "intensity"]
    er = [(float(um), float(v)) for name, _, _, _, um, v in rows if name == '"ER"']
    assert (er[0], er[-1][1]) == ((0.0, 0.0), 1000.0)
    assert er[-1][0] == pytest.approx(3.2)
    page.keyboard.press("l")
    sync_api.expect(page.locator("#measured")).to_be_hidden()
    assert (
        page.locator(".pane .drawn line").count() == 0
        or page.locator(".pane .drawn[hidden]").count() == page.locator(".pane").count()
    )


def test_the_mean_of_a_region_is_told_of_every_picture(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    page.keyboard.press("m")
    drag(page, "measurement", (0.6, 0.1), (0.9, 0.4))
    wait_for_text(page, ".measure table", "mean ± SD, ADU")
    assert words_of(page, ".measure table tr")[1:] == [
        ["Measurement", "500", "±", "0", "measured"],
        ["Microtubules", "0", "±", "0", "predicted", "(AI)"],
        ["ER", "1000", "±", "0", "predicted", "(AI)"],
        ["Lysosomes", "0", "±", "0", "predicted", "(AI)"],
    ]
    page.keyboard.press("m")  # put away: a drag moves the picture again
    sync_api.expect(page.locator("#measured")).to_be_hidden()


# ---- words ---------------------------------------------------------------------------------------


def test_says_what_is_predicted_and_what_is_measured(page, source):
    source.say(
        sr_fps=11.07,
        sr_skipped=3,
        engine={"": "imcsr-light"},
        backend={"": "openvino"},
        disk_free_bytes=42e9,
    )
    source.give(measurement(0, np.zeros((64, 64), np.uint16)), flat(0, 1, 2, 3))
    for selector, text in {
        "#state-text": "Live",
        pane("composite"): "Prediction (AI)",
        pane("measurement"): "Measurement",
        "#channels": "Microtubules",
        "#fps": "11.1",
        "#latency": "62 ms",
        "#age": "s",
        "#skipped": "3",
        "#residual": "3.4 %",
        "#disk": "42 GB",
        "#engine": "imcsr-light",
        "#backend": "openvino",
        "#source": "tcp://127.0.0.1:5555",
    }.items():
        wait_for_text(page, selector, text)
    chips = page.eval_on_selector_all(
        "#channels .head .chip", "c => c.map(e => getComputedStyle(e).backgroundColor)"
    )
    assert chips[:3] == ["rgb(0, 255, 0)", "rgb(255, 0, 255)", "rgb(255, 255, 0)"]


def test_provisional_pictures_say_so_until_the_final_one_comes(page, source):
    source.give(prediction(2, np.zeros((3, 8, 8), np.uint16), provisional=True))
    wait_for_text(page, ".badges", "Provisional")
    source.give(prediction(2, np.zeros((3, 8, 8), np.uint16), seq=3))
    sync_api.expect(page.locator(".badge.provisional")).to_have_count(0)


def test_run_without_an_engine_shows_the_measurement(page, source):
    source.say(sr_fps=0.0, engine={}, backend={})
    source.give(measurement(0, np.full((64, 64), 500, np.uint16)))
    wait_for_colors(page, "measurement", {(0.5, 0.5): (128,) * 3})
    assert page.locator(".pane").count() == 1
    assert page.locator(".badge.prediction").count() == 0
    assert page.locator("#modes button:enabled").all_inner_texts() == ["Measurement"]
    assert page.locator('#modes [aria-pressed="true"]').all_inner_texts() == ["Measurement"]
    wait_for_text(page, "#fps", "measured, not separated")
    wait_for_text(page, "#fps-name", "Pictures/s")
    source.give(*quadrants())  # a network that begins later: what was chosen is shown again
    sync_api.expect(page.locator("#modes button:disabled")).to_have_count(0)
    assert page.locator('#modes [aria-pressed="true"]').all_inner_texts() == ["Side by side"]
    wait_for_text(page, "#fps-name", "SR frames/s")


def test_a_finger_finds_its_way_out_of_the_measurement_also_after_a_reload(page, source):
    source.give(*quadrants())
    wait_for_text(page, ".time", "t 4")
    page.get_by_role("button", name="Measurement", exact=True).tap()
    sync_api.expect(page.locator(".pane")).to_have_count(1)
    source.give(measurement(5, np.zeros((64, 64), np.uint16)))
    wait_for_text(page, ".time", "t 5")
    for _ in range(2):
        assert page.locator("#modes button:enabled").count() == 5
        assert page.locator('#modes [aria-pressed="true"]').all_inner_texts() == ["Measurement"]
        wait_for_text(page, "#fps-name", "SR frames/s")
        page.reload()
        wait_for_text(page, ".time", "t 5")
    page.get_by_role("button", name="Split").tap()
    sync_api.expect(page.locator(pane("composite measurement"))).to_have_count(1)


def test_one_predicted_channel_is_a_picture_like_any_other(page, source):
    fine = np.full((1, 128, 128), 500, np.uint16)
    white = (CHANNELS[0].model_copy(update={"label": "upscaled", "color": "FFFFFF"}),)
    source.give(
        measurement(0, np.full((64, 64), 500, np.uint16), pixel_size_um=0.1),
        prediction(0, fine, channels=white),
    )
    wait_for_colors(page, "composite", {(0.5, 0.5): (128,) * 3})
    assert page.locator("#channels .name").all_inner_texts() == ["upscaled", "Measurement"]


def test_notices_tell_waiting_live_and_ended_apart(page, source):
    wait_for_text(page, "#notice", "Waiting for a stream at tcp://127.0.0.1:5555")
    source.give(flat(0, 500, 0, 0))
    wait_for_text(page, "#state-text", "Live")
    sync_api.expect(page.locator("#notice")).to_be_hidden()
    source.end()
    wait_for_text(page, "#notice", "Stream ended")
    assert page.title() == "Ended · livesr"
    page.locator(
        '[data-label="Microtubules"] input[type=checkbox]'
    ).uncheck()  # the last picture still obeys
    wait_for_colors(page, "composite", {(0.5, 0.5): (0, 0, 0)})
    source.give(prediction(0, np.zeros((3, 8, 8), np.uint16), stream="another run"))
    wait_for_text(page, "#state-text", "Live")


def test_what_a_prediction_is_worth_is_said_where_the_eye_is(page, source):
    judged = {
        "word": "check",
        "reasons": ["ER is too weak."],
        "channels": {
            "Microtubules": {"word": "good"},
            "ER": {"word": "do not use", "reasons": ["ER is too weak."]},
        },
    }
    named = [one.label for one in CHANNELS]
    judged["channels"] = dict(zip(named, judged["channels"].values(), strict=False))
    source.give(prediction(0, np.zeros((3, 8, 8), np.uint16), judgement=judged))
    wait_for_text(page, pane("composite"), "check")
    assert page.get_attribute(".badge.quality", "title") == "ER is too weak."
    wait_for_text(page, "#channels", "do not use")
    assert page.locator("#channels .word:visible").count() == 1  # good ones need no word


def test_warnings_are_shown_as_text_whatever_they_hold(page, source):
    attack = "<img src=x onerror=\"document.title='owned'\">"
    named = (CHANNELS[0].model_copy(update={"label": attack}), *CHANNELS[1:])
    source.say(warnings=[attack])
    source.give(
        prediction(
            0, np.zeros((3, 8, 8), np.uint16), warnings=("Residual is high.",), channels=named
        )
    )
    wait_for_text(page, "#warnings", "Residual is high.")
    wait_for_text(page, "#warnings", attack)
    wait_for_text(page, "#channels", attack)
    assert page.locator("img").count() == 0
    assert page.title() == "livesr"


def test_many_warnings_fold(page, source):
    source.say(warnings=[f"Warning {n}." for n in range(6)])
    source.give(flat(0, 0, 0, 0))
    wait_for_text(page, "#warnings .more", "4 more")
    assert page.locator("#warnings li:not(.more)").count() == 2
    page.locator("#warnings button").click()
    assert page.locator("#warnings li:not(.more)").count() == 6
    page.locator("#warnings button").click()
    wait_for_text(page, "#warnings", "6 warnings")
    assert page.locator("#warnings li:not(.more)").count() == 0
    source.say(warnings=["A new one."])
    wait_for_text(page, "#warnings", "A new one.")


# ---- streams that come and go --------------------------------------------------------------------


def test_comes_back_by_itself_when_the_server_does(page, source, server):
    source.give(*quadrants())
    wait_for_text(page, "#state-text", "Live")
    page.keyboard.press("3")
    page.locator('[data-label="Microtubules"] input[type=checkbox]').uncheck()
    server.stop()
    wait_for_text(page, "#notice", "Reconnecting")
    server.start()
    wait_for_text(page, "#state-text", "Live")
    wait_for_colors(page, "composite", {(0.4, 0.25): (0, 0, 0)})  # as it was set
    source.give(flat(9, 500, 0, 0, size=128))
    wait_for_text(page, ".time", "t 9")


def test_malformed_message_is_named_and_survived(page, source):
    source.give(prediction(0, np.zeros((3, 4, 4), np.uint16), axes="czy"))
    wait_for_text(page, "#warnings", "expected 'cyx'")
    source.give(flat(1, 1000, 0, 0))
    wait_for_text(page, ".time", "t 1")
    sync_api.expect(page.locator("#warnings")).to_be_hidden()


def test_a_wrong_link_opens_nothing_and_the_right_one_everything(browser, open_page, source):
    with PreviewServer(source.pairs, host="0.0.0.0") as server:
        link = server.invite("127.0.0.1")
        wrong = browser.new_page()
        answer = wrong.goto(link + "x")
        assert answer.status == 403
        assert wrong.inner_text("body").startswith("This link has been used")
        assert wrong.goto(link.partition("?")[0]).status == 403
        assert wrong.inner_text("body").startswith("Open the link that livesr printed")
        wrong.goto(link)
        wrong.wait_for_url(link.partition("?")[0], timeout=PATIENCE_MS)
        wrong.close()
        source.give(flat(0, 0, 0, 0))
        wait_for_text(
            open_page(link.partition("?")[0]), "#state-text", "Live"
        )  # the browser has been let in


def test_keeps_up_with_a_stream_and_skips_what_it_cannot_show(page, source):
    for t in range(40):
        source.give(flat(t, 25 * t, 0, 0, size=256))
        time.sleep(0.01)
    wait_for_text(page, ".time", "t 39")


def test_two_pages_look_at_the_same_stream_each_in_its_own_way(page, open_page, server, source):
    source.give(*quadrants())
    other = open_page(server.url)
    wait_for_text(other, ".time", "t 4")
    other.keyboard.press("5")
    assert other.locator(".pane").count() == 1
    wait_for_colors(page, "composite", {(0.4, 0.25): (0, 255, 0)})


@pytest.mark.parametrize("width", [390, 820, 1024, 1180, 1920])
def test_nothing_is_wider_than_the_window(page, source, width):
    source.give(measurement(0, np.zeros((64, 64), np.uint16)), flat(0, 0, 0, 0))
    page.set_viewport_size({"width": width, "height": 768})
    wait_for_text(page, ".time", "t 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for pane_box in page.locator(".pane").all():
        box = pane_box.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    page.set_viewport_size({"width": 1200, "height": 860})


# ---- stores --------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(positions=("A", "B")))
    for t in range(6):
        for position in (0, 1):
            feed(sink, t, Stream(position, "488"))
    sink.close({"sr_fps": 12.5})
    return sink.path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its pipes
def test_the_film_of_a_store_is_saved(open_page, store):
    pytest.importorskip("imageio_ffmpeg", reason="pip install 'livesr[export]'")
    with PreviewServer(StoreSource(store)) as server:
        page = open_page(server.url)
        wait_for_text(page, "#moment", "of 5")
        with page.expect_download(timeout=PATIENCE_MS) as saved:
            page.click("#movie")
        assert saved.value.suggested_filename.endswith(".mp4")
        with open(saved.value.path(), "rb") as film:
            assert film.read(8)[4:] == b"ftyp"
        sync_api.expect(page.locator("#movie")).to_be_enabled()


def test_a_store_plays_pauses_and_is_scrubbed(open_page, store):
    with PreviewServer(StoreSource(store)) as server:
        page = open_page(server.url)
        wait_for_text(page, "#state-text", "Recorded")
        # it plays: any picture after the first, for each is shown for a tenth of a second only
        sync_api.expect(page.locator("#moment")).to_contain_text(re.compile("[2-5] of 5"))
        page.keyboard.press("Space")
        page.wait_for_function("""async () => {
              const moment = () => document.querySelector("#moment").innerText, stopped = moment();
              await new Promise(later => setTimeout(later, 400));
              return moment() === stopped;
            }""")  # five times as long as a picture is shown
        page.locator("#scrub").fill("4")
        wait_for_text(page, "#moment", "t 4 · 5 of 5")
        wait_for_text(page, ".time", "t 4")
        page.locator("#scrub").blur()
        page.keyboard.press("ArrowLeft")
        wait_for_text(page, "#moment", "t 3 · 4 of 5")
        wait_for_text(page, "#fps", "12.5")
        page.locator("[name=position]").fill("1")
        wait_for_text(page, ".place output", "B · 2 of 2")
        page.locator("[name=position]").blur()
        wait_for_text(page, "#moment", "t 3 · 4 of 5")
        page.keyboard.press("Space")
        wait_for_text(page, "#moment", "1 of 5")


def test_a_run_that_ends_becomes_its_recording(open_page, source, store):
    both = SuccessiveSource(source.pairs)
    with PreviewServer(both) as server:
        page = open_page(server.url)
        source.give(*quadrants())
        wait_for_text(page, "#state-text", "Live")
        sync_api.expect(page.locator("#scrub")).to_be_hidden()
        source.end()
        wait_for_text(page, "#state-text", "Ended")
        both.follow_with(StoreSource(store))
        wait_for_text(page, "#state-text", "Recorded")
        for moment in ("1 of 5", "3 of 5", "5 of 5", "1 of 5"):  # it plays, round and round
            page.wait_for_function(
                "moment => document.querySelector('#moment').innerText.includes(moment)", arg=moment
            )
        page.keyboard.press("Space")
        page.locator("#scrub").fill("4")
        wait_for_text(page, ".time", "t 4")


def level(page, y=0.5, x=0.5):
    """Brightness of the measurement."""
    return int(color_at(screenshot(page, "measurement"), y, x)[1])


def show_measured(source, page, t, value):
    source.give(measurement(t, np.full((64, 64), value, np.uint16)))
    wait_for_text(page, ".time", f"t {t} ·")


def test_space_freezes_a_live_picture_and_one_looks_back(page, source):
    for t in range(4):
        show_measured(source, page, t, 200 * t)
    page.keyboard.press("Space")
    wait_for_text(page, "#state-text", "Frozen")
    wait_for_text(page, "#moment", "t 3 · 4 of 4")
    source.give(measurement(9, np.full((64, 64), 1000, np.uint16)))
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait_for_text(page, "#moment", "t 1 · 2 of 4")
    wait_for_text(page, ".time", "t 1 ·")
    assert abs(level(page) - 51) < 4
    page.select_option(".lut", "inverted")  # what is frozen is drawn anew
    page.wait_for_function("() => document.querySelector('.lut').value === 'inverted'")
    page.locator(".lut").blur()
    page.locator("#play").click()  # a tablet has no keys
    wait_for_text(page, "#state-text", "Live")
    wait_for_text(page, ".time", "t 9 ·")
    sync_api.expect(page.locator("#scrub")).to_be_hidden()


@pytest.mark.parametrize("kind", ["jpeg", "16 bit"])
def test_the_measurement_takes_a_colour_table(page, source, kind):
    if kind == "16 bit":
        page.locator("#raw-on").check()
    show_measured(source, page, 1, 1000)
    page.select_option(".lut", "viridis")
    page.locator(".lut").blur()
    page.wait_for_function(  # the colour of the brightest is yellow
        """() => {
          const canvas = document.querySelector('.pane canvas');
          const one = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
          one.drawImage(canvas, canvas.width >> 1, canvas.height >> 1, 1, 1, 0, 0, 1, 1);
          const [r, g, b] = one.getImageData(0, 0, 1, 1).data;
          return Math.abs(r - 253) < 6 && Math.abs(g - 231) < 6 && Math.abs(b - 37) < 12;
        }"""
    )


def test_what_is_bad_looks_bad(page, source):
    source.say(sr_fps=10.0, sr_skipped=1, sr_frames=99)
    source.give(*quadrants())
    wait_for_text(page, "#skipped", "1")
    bad = page.locator(".strip .bad")
    sync_api.expect(bad).to_have_count(0)
    source.say(sr_fps=10.0, sr_skipped=20, sr_frames=80)
    source.give(prediction(2, np.full((3, 8, 8), 100, np.uint16), latency_ms=5000))
    sync_api.expect(bad).to_have_count(2)
    assert bad.locator("dt").all_inner_texts() == ["Latency", "Skipped"]
    wait_for_text(page, "#skipped", "20 %")


def test_an_overlay_says_what_its_colours_mean(page, source):
    source.give(*quadrants())
    page.keyboard.press("r")
    wait_for_text(page, "#residual-scale", "50 … 350 ADU")  # shares of the window, 0 to 1000
    page.keyboard.press("r")
    sync_api.expect(page.locator("#residual-scale")).to_be_hidden()


def test_the_clock_stands_beside_the_time_point(page, source):
    at = 1_700_000_000_250_000_000
    source.give(measurement(3, np.zeros((8, 8), np.uint16), t_acq_ns=at))
    local = page.evaluate("ms => new Date(ms).toTimeString().slice(0, 8)", at // 1_000_000)
    wait_for_text(page, ".time", f"t 3 · {local}.2")


def test_an_upright_tablet_stacks_the_pictures(page, source):
    page.set_viewport_size({"width": 820, "height": 1180})
    try:
        source.give(*quadrants())
        panes = page.locator(".pane")
        sync_api.expect(panes).to_have_count(2)
        page.wait_for_function(
            """() => {
              const [a, b] = [...document.querySelectorAll('.pane')]
                .map((p) => p.getBoundingClientRect());
              return b.top >= a.bottom && Math.abs(a.left - b.left) < 1 && b.bottom <= innerHeight;
            }"""
        )
    finally:
        page.set_viewport_size({"width": 1200, "height": 860})


def test_what_was_localised_is_shown_group_by_group(page, source):
    card = page.locator("#localised")
    source.give(measurement(0, np.full((64, 64), 300, np.uint16)))
    sync_api.expect(page.locator("#panes canvas").first).to_be_visible()
    sync_api.expect(card).to_be_hidden()
    for t in range(1, 11):
        hist = {"frame": WireCounts(low=t * 100, high=t * 100 + 100, counts=(t,) * 50)}
        hist["photons"] = WireCounts(low=200, high=3000, counts=tuple(range(64)))
        hist["uncertainty_nm"] = WireCounts(low=5.0, high=25.5, counts=(1, 5, 3))
        said = WireLocalised(
            count=1000 + 10 * t,
            per_um2=0.25,
            median={"photons": 912.4, "uncertainty_nm": 11.26},
            histograms=hist,
        )
        source.give(measurement(t, np.full((64, 64), 300 + t, np.uint16), localised=said))
        sync_api.expect(card.locator("tbody tr").first.locator("td").first).to_have_text(str(t))
    sync_api.expect(card.locator("tbody tr")).to_have_count(8)
    sync_api.expect(card.locator("tbody tr").first).to_have_text("1011.00.2591211.3")
    sync_api.expect(card.locator("figure")).to_have_count(3)
    caption = card.locator("figure[data-of=uncertainty_nm] span")
    sync_api.expect(caption).to_have_text(["5", "Uncertainty, nm", "26"])
