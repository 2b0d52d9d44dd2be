"""The page in a real browser: the right pixels in the right colours, and honest words."""

import io
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from preview_source import CHANNELS, MemorySource, flat, measurement, prediction

from livesr.viewer.browser.server import PreviewServer

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    profile = tmp_path_factory.mktemp("profile")
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=FLAGS, viewport={"width": 1200, "height": 900}
        )
        yield context
        context.close()


@pytest.fixture
def source():
    return MemorySource()


@pytest.fixture
def server(source):
    with PreviewServer(source) as server:
        yield server


@pytest.fixture
def page(browser, server):
    """The page, opened; the test fails if it complained or asked for anything that is not the server's."""
    page = browser.new_page()
    complaints, asked = [], []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(10_000)
    page.goto(server.url)
    yield page
    page.close()
    assert [c for c in complaints if "ERR_CONNECTION_REFUSED" not in c] == []
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []


def wait_for_text(page, selector, text):
    sync_api.expect(page.locator(selector)).to_contain_text(text, timeout=10_000)


def screenshot(page, selector) -> np.ndarray:
    wait_for_text(page, "#state-text", "Live")
    page.wait_for_timeout(400)  # the fade when a stream comes alive
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")).astype(int)


def color_at(picture, y, x):
    """Mean colour around a place given in shares of height and width."""
    row, column = int(y * picture.shape[0]), int(x * picture.shape[1])
    return picture[row - 3 : row + 4, column - 3 : column + 4].mean(axis=(0, 1))


def test_shows_the_right_pixels_in_the_right_colours(page, source):
    frame = np.zeros((3, 128, 128), np.uint16)
    frame[0, :64, :64] = 1000  # microtubules: upper left
    frame[1, :64, 64:] = 1000  # ER: upper right
    frame[2, 64:, :64] = 1000  # lysosomes: lower left
    frame[:2, 64:, 64:] = 500  # half of both, which makes grey: lower right
    grey = np.zeros((64, 64), np.uint16)
    grey[:, 32:] = 500
    source.say(sr_fps=11.07, sr_skipped=3, engine={"": "light"}, backend={"": "openvino"})
    source.give(measurement(4, grey), prediction(4, frame))
    wait_for_text(page, "#composite .time", "t 4")

    composite = screenshot(page, "#composite canvas")
    for (y, x), expected in {
        (0.4, 0.25): (0, 255, 0),
        (0.4, 0.75): (255, 0, 255),
        (0.6, 0.25): (255, 255, 0),
        (0.6, 0.75): (128, 128, 128),
    }.items():
        np.testing.assert_allclose(color_at(composite, y, x), expected, atol=5)
    measured = screenshot(page, "#measurement canvas")
    np.testing.assert_allclose(color_at(measured, 0.5, 0.25), (0, 0, 0), atol=5)
    np.testing.assert_allclose(color_at(measured, 0.5, 0.75), (128, 128, 128), atol=5)


def test_says_what_is_predicted_and_what_is_measured(page, source):
    source.say(sr_fps=11.07, sr_skipped=3, engine={"": "imcsr-light"}, backend={"": "openvino"})
    source.give(measurement(0, np.zeros((64, 64), np.uint16)), flat(0, 1, 2, 3))
    wait_for_text(page, "#state-text", "Live")
    wait_for_text(page, "#composite .badge", "Prediction (AI)")
    wait_for_text(page, "#measurement .badge", "Measurement")
    for selector, text in {
        "#legend": "Microtubules", "#fps": "11.1", "#latency": "62 ms", "#age": "s", "#skipped": "3", "#residual": "3.4 %",
        "#engine": "imcsr-light", "#backend": "openvino", "#stream": "tcp://127.0.0.1:5555",
    }.items():  # fmt: skip
        wait_for_text(page, selector, text)
    chips = page.eval_on_selector_all("#legend .chip", "chips => chips.map(c => getComputedStyle(c).backgroundColor)")
    assert chips == ["rgb(0, 255, 0)", "rgb(255, 0, 255)", "rgb(255, 255, 0)"]


def test_scale_bar_has_the_length_that_it_names(page, source):
    source.give(flat(0, 0, 0, 0, size=256))  # 12.8 um across
    wait_for_text(page, "#composite .length", "2 µm")
    bar = page.locator("#composite .rule").bounding_box()
    canvas = page.locator("#composite canvas").bounding_box()
    assert bar["width"] / canvas["width"] == pytest.approx(2 / 12.8, rel=0.01)


def test_notices_tell_waiting_live_and_ended_apart(page, source):
    wait_for_text(page, "#notice", "Waiting for a stream at tcp://127.0.0.1:5555")
    source.give(flat(0, 500, 0, 0))
    wait_for_text(page, "#state-text", "Live")
    sync_api.expect(page.locator("#notice")).to_be_hidden()
    source.end()
    wait_for_text(page, "#notice", "Stream ended")
    sync_api.expect(page.locator("#notice")).to_be_visible()
    assert page.title() == "Ended · livesr"


def test_warnings_are_shown_as_text_whatever_they_hold(page, source):
    attack = "<img src=x onerror=\"document.title='owned'\">"
    named = (CHANNELS[0].model_copy(update={"label": attack}), *CHANNELS[1:])
    source.say(warnings=[attack])
    source.give(prediction(0, np.zeros((3, 8, 8), np.uint16), warnings=("Residual is high.",), channels=named))
    wait_for_text(page, "#warnings", "Residual is high.")
    wait_for_text(page, "#warnings", attack)
    wait_for_text(page, "#legend", attack)
    assert page.locator("img").count() == 0
    assert page.title() == "livesr"


def test_comes_back_by_itself_when_the_server_does(page, source, server):
    source.give(flat(0, 500, 0, 0))
    wait_for_text(page, "#state-text", "Live")
    server.stop()
    wait_for_text(page, "#notice", "Reconnecting")
    server.start()
    wait_for_text(page, "#state-text", "Live")
    source.give(flat(9, 500, 0, 0))
    wait_for_text(page, "#composite .time", "t 9")


def test_keeps_up_with_a_stream_and_skips_what_it_cannot_show(page, source):
    for t in range(40):
        source.give(flat(t, 25 * t, 0, 0, size=256))
        time.sleep(0.01)
    wait_for_text(page, "#composite .time", "t 39")
    assert float(page.inner_text("#age").split()[0]) < 1000


@pytest.mark.parametrize("width", [390, 820, 1180, 1920])
def test_nothing_is_wider_than_the_window(page, source, width):
    source.give(measurement(0, np.zeros((64, 64), np.uint16)), flat(0, 0, 0, 0))
    page.set_viewport_size({"width": width, "height": 820})
    wait_for_text(page, "#composite .time", "t 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
