"""The settings of one run.

Owns the fields, their bounds and defaults. Opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from livesr.base.compute import ComputeConfig
from livesr.base.config import Model

AnyPath = str | os.PathLike[str]


class RunConfig(ComputeConfig):
    """One run: how it is computed (the fields of `ComputeConfig`), what is kept and shown."""

    store: Path | None = None
    """OME-Zarr to write; a path that exists gets the next number. None keeps nothing."""
    spare: Path | None = None
    """Folder on another disk, where the store goes on when its own disk is full or fails."""
    flush_s: Annotated[float | None, Field(ge=0, le=86400, allow_inf_nan=False)] = None
    """Write everything that was recorded through to the disk so often, for what a power cut must
    not take; None leaves it to the operating system.
    """
    publish: str | None = None
    """ZeroMQ address to publish on, such as tcp://127.0.0.1:5555."""
    publish_raw: str | None = None
    """ZeroMQ address on which another computer may ask for the raw groups, such as
    tcp://127.0.0.1:5556: `livesr run --replay` computes the run there.
    """
    policy: Literal["latest", "complete"] = "latest"
    """latest skips the inference of centre frames when the network is slower than the camera;
    complete never skips and lets latency grow.
    """
    provisional: Literal["auto", "off"] = "auto"
    """auto shows, under policy latest, a frame before its successor was acquired, while the network
    has nothing else to do; the final frame replaces it.
    """
    record_raw: bool = True
    """Keep raw frames in the store."""
    record_recon: bool = True
    """Keep reconstructions in the store."""
    raw_queue_bytes: Annotated[int | None, Field(gt=0, le=1 << 50)] = None
    """Memory for frames that wait; None takes a quarter of what is free."""
    pairs: Path | None = None
    """Folder that keeps the true channels of a superposition as livesr train reads them."""
    insecure: bool = False
    """Publish unencrypted on an address that other computers can reach."""
    keys: Path | None = None
    """Folder made by livesr keys, with which the stream is encrypted."""

    @model_validator(mode="after")
    def _check_used(self) -> Self:
        if (self.spare or self.flush_s is not None) and not self.store:
            raise ValueError(
                "a spare disk and flushing are for a store, and this run has none: add store, or"
                " leave out spare and flush"
            )
        if (self.keys or self.insecure) and not (self.publish or self.publish_raw):
            raise ValueError(
                "keys and insecure say how a run is published, and nothing says where: add publish,"
                " or leave them out"
            )
        return self

    @property
    def compute(self) -> ComputeConfig:
        """How it is computed, to be passed on whole."""
        return ComputeConfig.model_construct(
            **{name: getattr(self, name) for name in ComputeConfig.model_fields}
        )


class LiveConfig(RunConfig):
    """One run on a core: beside what every run is told, what is taken from the core."""

    live: Literal["off", "own", "peek"] = "off"
    """What happens to sequence acquisitions outside an MDA: own takes every frame out of
    Micro-Manager's buffer, where previews then find none; peek copies the newest and may miss some.
    """


def named_in(model: type[Model], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a function's `parameters` (its ``locals()``) that are fields of `model`."""
    return {name: parameters[name] for name in model.model_fields}
