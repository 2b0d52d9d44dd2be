"""Where Chromium is and how it runs without a screen: for the bench, the screenshots of the documents and the tests.

Owns the list of names and flags. Starts nothing; the preview itself opens whatever browser the user has.
"""

from __future__ import annotations

import shutil

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""Software rendering, no calls home; the sandbox needs rights that a container has not."""


def find_chromium() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
