"""The widget that runs livesr inside a Qt program on a Micro-Manager core.

Needs the extra `gui`. All of Qt is imported in `livesr.gui.qt`; `livesr.gui.control`, which opens
and leaves runs, and `livesr.gui.newest`, which receives their frames, know nothing of it.
"""
