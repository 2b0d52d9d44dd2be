"""Qt, whichever binding the program has.

Owns the sentence for where there is none.
"""

from __future__ import annotations

from livesr.base.errors import ConfigError

try:
    from qtpy import QtCore, QtGui, QtWidgets
except ImportError as e:  # qtpy says of a missing binding that it is not found: an ImportError too
    raise ConfigError(
        f"There is no Qt for a window ({e}): pip install 'livesr[gui]', or use the binding that"
        " your program has, with qtpy."
    ) from e

__all__ = ["QtCore", "QtGui", "QtWidgets"]
