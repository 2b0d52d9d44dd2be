"""Waiting for a thread: Ctrl-C gets through, and the thread is not taken for dead."""

from __future__ import annotations

import signal
import threading

import pytest

from livesr.base.threads import wait_for


def test_an_interrupted_wait_can_be_taken_up_again() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, args=(60,))
    thread.start()
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # whatever tests before this one have left
    interruption = threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,))
    interruption.start()
    with pytest.raises(KeyboardInterrupt):
        wait_for(thread)
    signal.signal(signal.SIGINT, before)
    assert thread.is_alive()  # after an interrupted `join` it is not, before Python 3.13
    over.set()
    wait_for(thread)
    wait_for(interruption)
    assert not thread.is_alive()
