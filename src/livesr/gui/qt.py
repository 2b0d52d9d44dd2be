"""Qt, whichever binding the program has.

Owns the sentences for where there is none, or no screen, and how Ctrl-C closes a window.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from livesr.base.errors import ConfigError

try:
    from qtpy import QtCore, QtGui, QtWidgets
except ImportError as e:  # qtpy says of a missing binding that it is not found: an ImportError too
    raise ConfigError(
        f"There is no Qt for a window ({e}): pip install 'livesr[gui]', or use the binding that"
        " your program has, with qtpy."
    ) from e

__all__ = ["QtCore", "QtGui", "QtWidgets", "require_screen", "run_until_closed"]


def require_screen() -> None:
    """Refuse to open a window where there is no screen; Qt would abort the process.

    Raises
    ------
    ConfigError
        If there is none.
    """
    named = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in named):
        raise ConfigError(
            "There is no screen to open a window on: 'livesr run --view' acquires and shows the"
            " preview in a browser."
        )


def run_until_closed(application: Any, close: Callable[[], Any]) -> None:
    """Run Qt's events until the last window is closed; Ctrl-C calls `close`.

    Qt ends the process if an exception leaves a slot, so Ctrl-C must not be one. A timer has to run
    in the program, for Python notices a signal only between its own lines.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C closed it.
    """
    interrupted: list[int] = []

    def answer(number: int, _: object) -> None:
        interrupted.append(number)
        close()

    previous = signal.signal(signal.SIGINT, answer)
    try:
        application.exec()
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupted:
        raise KeyboardInterrupt
