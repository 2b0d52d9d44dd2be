"""How many connections a socket takes that other computers may reach.

Every one takes a file descriptor of the process that records. Whoever connects and says nothing is
hung up on; when there are too many all are, and those that belong here come back by themselves.
Knows nothing of what is sent.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from livesr.base.files import open_files_limit

log = logging.getLogger(__name__)

_AGAIN_S, _HANDSHAKE_MS = 1.0, 2000
_SHARE_OF_FILES = 4
_BACKLOG = 32  # connections that the system accepts before they are counted


def be_bounded(socket: zmq.Socket[Any]) -> None:
    """Have a socket hang up on whoever says nothing, and accept few that are not counted yet.

    Before it is bound.
    """
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)


class Doorway:
    """Counts the connections of a bound socket, and closes the door for a second when they are too
    many.

    Belongs to the thread of its socket. ZeroMQ itself has no bound: it accepts until the process
    can open no file any more.

    Parameters
    ----------
    socket : bound, and `be_bounded` before
    most : connections; fewer where the process may open few files

    Attributes
    ----------
    monitor : socket on which ZeroMQ tells who comes and goes
    """

    def __init__(self, socket: zmq.Socket[Any], most: int) -> None:
        self._socket, self._address = socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.monitor = socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._connected: set[int] = set()
        self._most = min(most, open_files_limit() // _SHARE_OF_FILES)
        self._opens_s = math.inf

    @property
    def closed_for_ms(self) -> int | None:
        """Milliseconds until the door is to be opened, None while it is open."""
        return (
            None
            if self._opens_s == math.inf
            else max(0, math.ceil(1e3 * (self._opens_s - time.monotonic())))
        )

    def look(self) -> bool:
        """Count who came and went; close the door, or open it again; whether it was closed now."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            change = (
                self._connected.add
                if event["event"] == zmq.EVENT_ACCEPTED
                else self._connected.discard
            )
            change(event["value"])  # its file descriptor
        if self._opens_s <= time.monotonic():
            self._open()
        elif self._opens_s == math.inf and len(self._connected) > self._most:
            log.warning(
                "%d connections to %s: all are closed for a second",
                len(self._connected),
                self._address,
            )
            self._socket.unbind(self._address)
            self._connected.clear()
            self._opens_s = time.monotonic() + _AGAIN_S
            return True
        return False

    def _open(self) -> None:
        try:
            self._socket.bind(self._address)
            self._opens_s = math.inf
        except zmq.ZMQError as e:  # another program took the port in that second
            log.warning("%s cannot be opened again: %s", self._address, e)
            self._opens_s = time.monotonic() + _AGAIN_S

    def close(self) -> None:
        """Count no more."""
        self._socket.disable_monitor()
        self.monitor.close(0)
