"""The icons that ndv's buttons show, so that a window opens at once where there is no network.

ndv looks every icon up on a server and waits for it, about ten seconds in all behind a firewall.
Here are drawings of our own under the names that pyconify gives its cache. A program that already
uses pyconify keeps its own icons.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE = Path(__file__).parent


def use_own_icons() -> None:
    """Let pyconify find every icon of ndv here. Has to come before ndv is imported."""
    ours = str(CACHE)  # also what a program that livesr started inherits
    if "pyconify" in sys.modules or os.environ.get("PYCONIFY_CACHE", ours) != ours:
        return
    os.environ["PYCONIFY_CACHE"] = ours
    import pyconify.api

    # It asks a server whether an icon has changed before it looks into its cache.
    pyconify.api.last_modified = lambda *prefixes: {}
