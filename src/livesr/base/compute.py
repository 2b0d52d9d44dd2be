"""What everything that computes is told: on which runtime, in which arithmetic, where.

Owns the one object that goes whole from the command line or Python down to what opens a runtime or
a device. Opens neither.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from livesr.base.config import Endpoint, Model

Augmentation = Literal["half-turn", "flips", "d4"]
"""Sides from which a network sees its input: 2, upright and turned by 180 degrees; 4, with both
mirror images; or of square frames the eight symmetries of the square.
"""
Views = Literal[Augmentation, "off"]
"""What may be asked for: views, or none where a run that is computed again had some."""
ErrorMaps = Literal["numbers", "planes"]
"""What is kept of the comparison with widefield."""
DeviceChoice = Literal["auto", "cpu", "cuda"]
Tile = Literal["auto", "off"] | Annotated[int, Field(ge=64, le=1 << 16)]


class ComputeConfig(Model):
    """How frames are computed: live, replayed, offline or afterwards.

    Frozen: what differs for one channel is a copy (`model_copy(update=...)`).
    """

    backend: str = "auto"
    """Runtime of the engines: auto (the first that can run them here), tensorrt, tensorrt-rtx,
    openvino or torch; kserve for a server.
    """
    endpoint: Endpoint = None
    """Server that computes the engines with backend kserve: grpc://HOST:8001, or grpcs:// for TLS.
    None takes that of rig.yaml, then LIVESR_ENDPOINT.
    """
    precision: str = "auto"
    """Arithmetic of the engines: auto, int8, f8, bf16, f16 or f32."""
    device: DeviceChoice = "auto"
    """Where frames are reconstructed: auto takes an NVIDIA GPU if there is one, and CuPy. What has
    no code for a GPU is computed on the CPU.
    """
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    """Threads of a runtime on the CPU; 0 leaves the choice to the runtime."""
    tile: Tile = "auto"
    """Side in pixels of the tiles in which a network sees larger frames; auto takes tiles where a
    frame does not fit the memory, off takes none.
    """
    resample: Literal["auto", "off"] | None = None
    """Bring frames whose pixels an engine that separates was not trained for to its own pixel size,
    up to 1.45 times finer or coarser, and what it predicts back: auto does, off does not. None does
    as the run that is computed again, else as auto.
    """
    uncertainty: Views | None = None
    """Estimate how uncertain every prediction is, from 2 (half-turn), 4 (flips) or, of square
    frames, 8 (d4) views of its input: the network then takes as many times as long. None does as
    the run that is computed again, else does not; off does not.
    """
    ensemble: Views | None = None
    """Predict the mean of what the network makes of 2 (half-turn), 4 (flips) or, of square frames,
    8 (d4) views of its input (geometric self-ensemble): better, and as many times slower. With
    uncertainty the same views serve both. None does as the run that is computed again, else sees
    the frame alone, as off does.
    """
    error_map: ErrorMaps | None = None
    """Compare every picture with the widefield mean of its exposures, as time allows: numbers for
    frames.jsonl and report, or an image of the store as well (planes).
    """
    error_bars: bool = False
    """Store lower and upper images of every prediction, by the error bars that lie beside the rig
    (`livesr calibrate-errors`).
    """
    residual_plane: bool = False
    """Keep what the predicted channels leave unexplained of the measurement as one more plane."""

    @property
    def views(self) -> Augmentation | None:
        """The views of every frame that the network sees, None where it sees the frame alone."""
        return self.averaged or self.compared

    @property
    def averaged(self) -> Augmentation | None:
        """The views of which a prediction is the mean, None where it is of the frame alone."""
        return None if self.ensemble == "off" else self.ensemble

    @property
    def compared(self) -> Augmentation | None:
        """The views by which an uncertainty is estimated, None where it is not."""
        return None if self.uncertainty == "off" else self.uncertainty

    @model_validator(mode="after")
    def _views_agree(self) -> Self:
        if None not in (self.averaged, self.compared) and self.averaged != self.compared:
            raise ValueError(
                f"ensemble is {self.ensemble!r} and uncertainty {self.uncertainty!r}: the same"
                " views serve both, name one of them twice"
            )
        return self


ON_CPU = ComputeConfig(device="cpu")
"""livesr's choices, on this computer's processor."""

AUTO = ComputeConfig()
"""livesr's choices: what is computed again takes those of the live run."""
