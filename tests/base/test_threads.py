"""Waiting for a thread: Ctrl-C gets through, and the thread is not taken for dead. One for BLAS."""

from __future__ import annotations

import signal
import threading

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from livesr.base.threads import one_blas_thread, wait_for


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


def _blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_whoever_wants_one_blas_thread_has_it_until_the_last_has_left() -> None:
    with threadpool_limits(2, "blas"):
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        assert _blas_threads() == {1}
        first.__exit__(None, None, None)
        assert _blas_threads() == {1}
        second.__exit__(None, None, None)
        assert _blas_threads() == {2}
        with pytest.raises(KeyError), one_blas_thread():
            raise KeyError
        assert _blas_threads() == {2}
