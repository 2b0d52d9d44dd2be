"""Make the pictures of the preview in docs/images: ``python scripts/make_screenshots.py``.

Needs Chromium; takes a minute.

Runs `livesr demo`, opens the preview of its stream in a browser without a screen, and photographs
it; the animation is the store that the demo left, under a moving split line.
"""

from __future__ import annotations

import io
import math
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from livesr.cli.view import pairs_of
from livesr.viewer.browser.server import PreviewServer
from livesr.viewer.chromium import Browser, Page, chromium

IMAGES = Path(__file__).parents[1] / "docs" / "images"
_FRAMES, _STEP_MS = 30, 130
_QUALITY = 80


def main() -> None:
    """Make all of them and say how large they are."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        store = Path(folder) / "demo.ome.zarr"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "livesr", "demo", "--frames", "300", "--size", "256"]
        demo = subprocess.Popen([*command, "--store", str(store), "--publish", address])
        with pairs_of(address) as pairs, PreviewServer(pairs) as server:
            photograph_stream(browser, server.url)
        demo.wait()
        with pairs_of(str(store)) as pairs, PreviewServer(pairs) as server:
            animate(browser, server.url)
    for path in sorted(IMAGES.glob("preview*")):
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def photograph_stream(browser: Browser, url: str) -> None:
    """Photograph the running stream, in dark and light and as on a tablet."""
    for name, mode, scheme, width, height, touch in (
        ("preview", "1", "dark", 1440, 780, False),
        ("preview-split", "2", "light", 1180, 780, False),
        ("preview-channels", "4", "dark", 1024, 768, True),
    ):
        page = browser.open(url, width, height, scheme=scheme, touch=touch)
        page.wait_for(
            "() => document.querySelector('.pane') &&"
            " Number.parseFloat(document.getElementById('fps').textContent) > 0"
        )
        page.press(mode)
        page.wait(2.5)  # the rate that is shown is of two seconds
        left, top, right, bottom = _box(page)
        page.mouse("mouseMoved", 0.7 * left + 0.3 * right, 0.6 * top + 0.4 * bottom)
        page.wait(0.4)
        _image(page).save(IMAGES / f"{name}.webp", quality=_QUALITY, method=6)
        page.close()


def animate(browser: Browser, url: str) -> None:
    """Play the store while the split line goes there and back."""
    page = browser.open(url, 396, 640)
    page.wait_for("() => document.querySelector('.pane')")
    page.press("p")
    page.press("2")
    page.press(" ")
    page.wait(0.5)
    left, top, right, bottom = _box(page)
    height = (top + bottom) / 2
    page.mouse("mousePressed", (left + right) / 2, height, button="left", clickCount=1)
    frames = []
    for n in range(_FRAMES):
        page.run(
            "index => { const s = document.getElementById('scrub'); s.value = index; s.oninput() }",
            n,
        )
        share = 0.5 - 0.4 * math.sin(2 * math.pi * n / _FRAMES)
        page.mouse("mouseMoved", left + share * (right - left), height, button="left")
        page.wait(0.15)
        frames.append(_image(page).crop((left, top, right, bottom)))
    first, *others = frames
    first.save(
        IMAGES / "preview-animation.webp",
        save_all=True,
        append_images=others,
        duration=_STEP_MS,
        loop=0,
        quality=48,
        method=6,
    )
    page.close()


def _image(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def _box(page: Page) -> tuple[int, int, int, int]:
    """Where the first picture is: left, top, right, bottom."""
    script = """() => {
      const box = document.querySelector('.pane').getBoundingClientRect();
      return [box.left, box.top, box.right, box.bottom];
    }"""
    left, top, right, bottom = (round(v) for v in page.run(script))
    return left, top, right, bottom


if __name__ == "__main__":
    main()
