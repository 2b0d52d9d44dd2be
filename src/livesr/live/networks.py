"""The engines that the frames of one channel go through, opened.

An upscaling, a separation, or one behind the other.

Owns their sessions, what is allocated for them in each run, and what a prediction must say of
itself. Moves no frame: `pipeline.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from livesr.base.compute import ComputeConfig
from livesr.base.config import ChannelConfig
from livesr.base.errors import ConfigError
from livesr.live.inference.engine import Engine, Task, Uncertain, load_engine
from livesr.live.inference.fallback import FallbackSession
from livesr.live.inference.session import Resident, Session
from livesr.live.inference.test_time_augmentation import Augmentation, TestTimeAugmentation
from livesr.live.inference.test_time_augmentation import memory_bytes as augmented_bytes
from livesr.live.inference.trial import try_out
from livesr.live.upscale import Upscaler
from livesr.live.upscale import memory_bytes as upscaled_bytes

_UNMEASURED = (
    "What the uncertainty of engine {engine!r} by {sides} is worth was not measured: it is the bare"
    " spread. 'livesr limits' measures it."
)


class Reconstructed(NamedTuple):
    """Frames as an engine sees them.

    Attributes
    ----------
    shape : (y, x)
    pixel_size_um : in the sample
    modality : what reconstructed them
    resolution_nm : of the reconstruction, None where nobody knows
    """

    shape: tuple[int, int]
    pixel_size_um: float
    modality: str
    resolution_nm: float | None

    def through(self, engine: Engine) -> Reconstructed:
        """Return what `engine` makes of them."""
        return self._replace(
            shape=engine.output_shape(self.shape)[1:],
            pixel_size_um=self.pixel_size_um / engine.manifest.scale,
        )


class Network(NamedTuple):
    """An engine, its session, and the shape (y, x) of the frames that it sees."""

    engine: Engine
    session: Session
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Networks:
    """What a frame goes through once it is reconstructed; none, one or two networks.

    One object serves several runs; what a run accumulates is made anew by `upscaler` and `views`.

    Attributes
    ----------
    steps : in the order in which a frame goes through. The last makes what is stored as `sr`; one
        before it enlarges what the last one sees
    uncertainty : from which sides the last one's input is seen to estimate how sure it is
    about : what `ChannelDescription` says of the prediction
    warnings : sentences that belong to every frame
    notes : sentences that belong to the run
    """

    steps: tuple[Network, ...] = ()
    uncertainty: Augmentation | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every engine that a frame goes through, in order."""
        return tuple(step.engine for step in self.steps)

    @property
    def engine(self) -> Engine | None:
        """The one that makes what is stored, None without."""
        return self.steps[-1].engine if self.steps else None

    @property
    def session(self) -> Session:
        """That of `engine`; there must be one."""
        return self.steps[-1].session

    @property
    def window(self) -> int:
        """How many consecutive frames the last one sees."""
        return self.engine.manifest.window if self.engine else WINDOW

    @property
    def resident(self) -> Resident | None:
        """The way in for frames that are on a GPU, None if a step needs them on the host."""
        if len(self.steps) != 1 or self.uncertainty is not None:
            return None
        return self.session.resident

    @property
    def replacements(self) -> tuple[str, ...]:
        """What took the place of runtimes that failed, in sentences."""
        return tuple(sentence for step in self.steps for sentence in step.session.replacements)

    def views(self) -> TestTimeAugmentation | None:
        """Return a fresh step that predicts with uncertainty, None without one."""
        if self.uncertainty is None:
            return None
        return TestTimeAugmentation(self.uncertainty, self.window, *self._shapes)

    def upscaler(self, streams: int) -> Upscaler | None:
        """Return a fresh step that enlarges what the last one sees, None without one."""
        if len(self.steps) < 2:
            return None
        return Upscaler(self.steps[0].session, self.steps[-1].shape, streams)

    def memory_bytes(self, streams: int) -> int:
        """Return what the steps hold while `streams` take turns, the runtimes' own memory aside."""
        upscaled = upscaled_bytes(self.steps[-1].shape, streams) if len(self.steps) > 1 else 0
        return upscaled + (
            augmented_bytes(self.window, *self._shapes) if self.uncertainty else 0
        )

    def close(self) -> None:
        """Release the sessions."""
        for step in self.steps:
            step.session.close()

    @property
    def _shapes(self) -> tuple[tuple[int, int], tuple[int, int, int]]:
        """(y, x) in and (c, y, x) out of the last one."""
        engine, _, shape = self.steps[-1]
        return shape, engine.output_shape(shape)
