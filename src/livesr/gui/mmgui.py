"""livesr in pymmcore-gui: an action with a dock, and a preview that takes nothing from the buffer.

Owns what is known of pymmcore-gui. Its preview empties the core's circular buffer on a timer, in
live mode and in triggered acquisitions; what it takes is in no image of livesr. While livesr takes
frames, that timer is kept from the preview, and the preview draws what livesr took instead.

Needs pymmcore-gui from its repository: what PyPI has (0.0.1rc0) asks for zarr < 3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livesr.base.errors import ConfigError
from livesr.gui.control import Control
from livesr.gui.qt import QtCore, QtWidgets, run_until_closed
from livesr.gui.widget import LiveSRWidget

try:
    from pymmcore_gui import create_mmgui
    from pymmcore_gui._app import MMQApplication  # noqa: PLC2701 - nothing public is these
    from pymmcore_gui._ndv_viewers import NDVViewersManager  # noqa: PLC2701
    from pymmcore_gui._qt.QtAds import CDockWidget  # noqa: PLC2701
    from pymmcore_gui.actions import WidgetActionInfo
    from pymmcore_gui.widgets.image_preview._preview_base import (  # noqa: PLC2701
        ImagePreviewBase,
    )
except ImportError as e:
    raise ConfigError(
        f"pymmcore-gui cannot be opened ({e}): pip install 'livesr[gui]' 'pymmcore-gui @"
        " git+https://github.com/pymmcore-plus/pymmcore-gui'. What PyPI has asks for an older zarr,"
        " and cannot be installed beside livesr."
    ) from e

if TYPE_CHECKING:
    from pymmcore_gui import MicroManagerGUI
    from pymmcore_plus import CMMCorePlus

ACTION = "livesr.widget"
_OUR_SHARE, _VIEWERS_SHARE = 0.34, 0.26  # of the window's width


class PreviewFeed(QtCore.QObject):
    """Keeps the previews of a window from the core's buffer, and feeds them.

    Parameters
    ----------
    window : whose previews, those there are and those that are opened later
    control : says when livesr takes the frames
    """

    def __init__(self, window: QtWidgets.QWidget, control: Control) -> None:
        super().__init__(window)
        self._window, self._control = window, control
        for preview in self._previews():
            preview.installEventFilter(self)
        for viewers in window.findChildren(NDVViewersManager):
            # emitted when a preview is made, before its timer is started
            viewers.previewViewerCreated.connect(self._opened)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:  # noqa: N802
        """Hold back the timer of a preview while livesr takes the frames."""
        return event.type() == QtCore.QEvent.Type.Timer and self._control.takes_frames

    def show_frame(self, pixels: Any) -> None:
        """Let the previews draw what livesr took."""
        for preview in self._previews():
            if preview.isVisible() and _holds(preview, pixels):
                preview.append(pixels)

    def _previews(self) -> list[Any]:
        return list(self._window.findChildren(ImagePreviewBase))

    def _opened(self, dock: Any) -> None:
        dock.widget().installEventFilter(self)


def _holds(preview: Any, pixels: Any) -> bool:
    """Return whether a preview can draw the frame.

    One is made for a size and a type of pixel, and stays there when the camera is set otherwise;
    it raises an error at another size, and wraps the numbers of another type.
    """
    made_for = getattr(preview, "dtype_shape", None)
    return made_for is None or made_for == (pixels.dtype.name, pixels.shape)


def add_action() -> None:
    """Announce livesr's dock; before the window is made, for its menus are made with it."""
    WidgetActionInfo(
        key=ACTION,
        text="livesr",
        icon="mdi:microscope",
        tooltip="Super-resolution, live",
        create_widget=_create,
        scroll_mode=CDockWidget.eInsertMode.ForceNoScrollArea,  # it scrolls by itself
    )


def _create(parent: QtWidgets.QWidget) -> LiveSRWidget:
    core = getattr(parent, "mmcore", None)
    widget = LiveSRWidget(core, parent)
    feed = PreviewFeed(parent, widget.control)
    widget.camera_frame.connect(feed.show_frame)
    return widget


def open_window(
    make_core: Callable[[], CMMCorePlus] | None = None,
    *,
    rig: str | None = None,
    store: Path | None = None,
    opened: Callable[[MicroManagerGUI, LiveSRWidget], None] | None = None,
) -> None:
    """Open pymmcore-gui with livesr's dock; returns when it is closed and every store is.

    Parameters
    ----------
    make_core : makes the core, with its configuration; None lets pymmcore-gui load the one that it
        used last
    rig, store : what the form begins with
    opened : called with the window and the widget when both are there

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C closed it.
    """
    # Before the core: pymmcore-plus takes Qt's signals where there is an application.
    application = QtWidgets.QApplication.instance() or MMQApplication(sys.argv[:1])
    core = make_core() if make_core else None
    add_action()
    window = create_mmgui(
        mmcore=core,
        mm_config=None if core is None else False,
        install_sentry=False,
        exec_app=False,
    )

    def show() -> None:
        widget, dock = window.get_widget(ACTION), window.get_dock_widget(ACTION)
        dock.toggleView(True)
        _make_room(window, dock)
        widget.form.choose(rig=rig, store=store)
        if opened is not None:
            opened(window, widget)

    # When events run, pymmcore-gui takes back the docks of the last time and closes those that are
    # new.
    QtCore.QTimer.singleShot(0, show)
    run_until_closed(application, window.close)
    if isinstance(widget := window.get_widget(ACTION), LiveSRWidget):
        widget.control.close()


def _make_room(window: MicroManagerGUI, dock: Any) -> None:
    """Give the dock, and the viewers beside it, the width that pictures need.

    Nothing where both have half of it, as in a window that somebody arranged.
    """
    area = dock.dockAreaWidget()
    sizes = list(window.dock_manager.splitterSizes(area))
    total = sum(sizes)
    ours = next((n for n, size in enumerate(sizes) if size == area.width()), None)
    if ours is None or len(sizes) < 3:
        return
    others = [n for n in range(len(sizes)) if n != ours]
    viewers = min(others, key=sizes.__getitem__)  # what the docks leave to them
    if sizes[ours] > _OUR_SHARE / 2 * total and sizes[viewers] > _VIEWERS_SHARE / 2 * total:
        return
    rest = (1 - _OUR_SHARE - _VIEWERS_SHARE) * total / (len(sizes) - 2)
    shares = {ours: _OUR_SHARE * total, viewers: _VIEWERS_SHARE * total}
    window.dock_manager.setSplitterSizes(
        area, [int(shares.get(n, rest)) for n in range(len(sizes))]
    )
