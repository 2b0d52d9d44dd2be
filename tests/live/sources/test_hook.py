"""The hook keeps what it was given."""

from __future__ import annotations

import numpy as np
import pytest
from useq import MDAEvent

from livesr.live.sources.mda import MDAHook


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_frame_that_waits_when_its_acquisition_is_torn_out_is_kept(
    error: type[BaseException],
) -> None:
    hook = MDAHook(lambda: 0, lambda: None)
    pixels = np.ones((2, 2), np.uint16)

    def torn_out() -> bool:
        raise error("while it waited")

    with pytest.raises(error, match="while it waited"):
        hook.take(pixels, MDAEvent(), {}, may_wait=torn_out)
    assert hook.received == hook.waiting == 1
    assert (received := hook.get()) is not None
    assert received.pixels is pixels
