"""The user's own browser, opened at an address that other users of this computer must not learn.

Owns the file by way of which it is opened. A browser that is started with an address shows it to
everybody who lists the processes; a file that only its owner reads takes the browser there instead.
"""

from __future__ import annotations

import os
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

_PAGE = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}"><title>livesr</title>
<p><a href="{address}">To the preview</a></p>
"""


@contextmanager
def opened(address: str) -> Iterator[None]:
    """Open the browser at `address`.

    The file that leads there, if `address` holds a secret, is gone after the block.

    A browser that may not read the file (snap and flatpak confine some) says so: the link that was
    printed is for it.
    """
    if "?" not in address:
        webbrowser.open(address)
        yield
        return
    with tempfile.TemporaryDirectory(
        prefix="livesr-", dir=_folder_of_the_user(), ignore_cleanup_errors=True
    ) as folder:
        page = Path(folder) / "preview.html"
        with os.fdopen(
            os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(_PAGE.format(address=escape(address)))
        webbrowser.open(page.as_uri())
        yield


def _folder_of_the_user() -> str | None:
    """Return the folder in memory that is the user's alone while logged in, None where there is
    none.
    """
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return folder if os.path.isabs(folder) and os.access(folder, os.W_OK) else None
