"""Live multicolour super-resolution for Micro-Manager microscopes.

`LiveSR` is the whole public surface for a script; everything else is reached through its module.
Importing this package loads no runtime, no camera core and no network library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from livesr.base.version import __version__

if TYPE_CHECKING:
    from livesr.live.plugin import LiveSR

__all__ = ["LiveSR", "__version__"]


def __getattr__(name: str) -> object:
    if name == "LiveSR":
        from livesr.live.plugin import LiveSR

        return LiveSR
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
