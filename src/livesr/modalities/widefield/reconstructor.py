"""The mean of raw frames, under the name by which packages with a modality import it."""

from __future__ import annotations

from livesr.live.reconstruct.mean import GroupMean as Passthrough

__all__ = ["Passthrough"]
