"""Raw frames through the live path, everything kept.

What is scored is what a run would have stored and shown.

Owns the feeding of a `Pipeline` from memory and the sink that collects. Grouping, reconstruction,
normalisation, window, inference and composition are the pipeline's own; nothing of them is repeated
here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from useq import MDAEvent

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.errors import RunError
from livesr.base.frames import MulticolorFrame
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.base.timing import now_ns
from livesr.live.inference.engine import Engine
from livesr.live.inference.resampling import ResampledSession, own_pixel_nm, resampled_shape
from livesr.live.inference.runner import open_session
from livesr.live.inference.session import InferenceSession
from livesr.live.inference.test_time_augmentation import EnsembleSession
from livesr.live.keeping_up import COMPLETE
from livesr.live.networks import Network, Networks, check_square
from livesr.live.paths import ChannelPath
from livesr.live.pipeline import Pipeline
from livesr.live.reconstruct.reconstructor import Reconstructor
from livesr.live.sinks.sink import Sink
from livesr.live.sources.mda import RAW_AXIS


@dataclass(slots=True)
class Collected(Sink):
    """What one run made, in time order; itself the sink that collects it."""

    separated_frames: list[MulticolorFrame] = field(default_factory=list)
    name: str = "collect"
    lossless = essential = True

    @property
    def counts(self) -> Mapping[str, int]:
        """What was collected."""
        return {"separated": len(self.separated_frames)}

    def separated(self, frame: MulticolorFrame) -> None:
        """Keep a prediction."""
        self.separated_frames.append(frame)


def open_views(
    engine: Engine,
    shape: tuple[int, int],
    compute: ComputeConfig,
    pixel_size_nm: float | None = None,
) -> InferenceSession:
    """Open an engine for frames of `shape` (y, x), seen in the views of `compute.averaged`.

    Where its network sees other pixels than `pixel_size_nm`, frames are brought to them, as live.
    Errors as of `open_session`.

    Raises
    ------
    ConfigError
        If frames that are no squares are to be turned.
    """
    if compute.averaged is not None:
        check_square(f"engine {engine.manifest.id!r}", shape, compute.averaged)
    own_nm = own_pixel_nm(engine, pixel_size_nm) if pixel_size_nm else None
    if pixel_size_nm and own_nm:
        seen = resampled_shape(shape, pixel_size_nm / own_nm)
        brought = open_session(engine, seen, compute)
        session: InferenceSession = ResampledSession(brought, engine, shape, seen, own_nm)
    else:
        session = open_session(engine, shape, compute)
    if compute.averaged is None:
        return session
    inputs, made = engine.manifest.inputs, engine.output_shape(shape)
    return EnsembleSession(session, compute.averaged, inputs, shape, made)


def separate(
    raw: NDArray[np.unsignedinteger[Any]],
    reconstructor: Reconstructor,
    pixel_size_um: float,
    engine: Engine,
    session: InferenceSession,
    uncertainty: Augmentation | None = None,
) -> list[MulticolorFrame]:
    """Run a time lapse through the live path with nothing skipped.

    Return one prediction per time point.

    Parameters
    ----------
    raw : uint8 or uint16 (t, n, y, x), ADU
    reconstructor : for these raw frames
    pixel_size_um : of the camera, in the sample
    engine, session : the network, opened for frames of ``reconstructor.shape``; stays open
    uncertainty : augmentation to estimate that of the predictions by; the frames bear the bare
        spread

    Raises
    ------
    RunError
        If a step failed or a time point has no prediction.
    """
    network = Network(engine, session, reconstructor.shape)
    path = _path(raw, reconstructor, pixel_size_um, Networks((network,), uncertainty))
    run = RunDescription(uuid.uuid4().hex, now_ns(), (path.description,))
    collected = Collected()
    pipeline = Pipeline({path.name: path}, run, [collected], COMPLETE)
    pipeline.open()
    try:
        for t, group in enumerate(raw):
            for i, pixels in enumerate(group):
                pipeline.hook.frame_ready(pixels, MDAEvent(index={"t": t, RAW_AXIS: i}), {})
    finally:
        pipeline.end()
        report = pipeline.join()
    if pipeline.error:
        raise pipeline.error
    if [frame.t for frame in collected.separated_frames] != list(range(len(raw))):
        reasons = " ".join(report["warnings"]) or "No reason was given."
        raise RunError(
            f"{len(collected.separated_frames)} of {len(raw)} time points were separated. {reasons}"
        )
    return collected.separated_frames


def _path(
    raw: NDArray[np.unsignedinteger[Any]],
    reconstructor: Reconstructor,
    pixel_size_um: float,
    networks: Networks,
) -> ChannelPath:
    n_raw = raw.shape[1]
    description = ChannelDescription(
        name="",
        raw_labels=tuple(f"raw {i}" for i in range(n_raw)),
        raw_shape=(raw.shape[2], raw.shape[3]),
        raw_dtype=raw.dtype.name,
        raw_pixel_size_um=pixel_size_um,
        recon_shape=reconstructor.shape,
        recon_pixel_size_um=pixel_size_um / reconstructor.scale,
        recon_method="simulated",
    )
    return ChannelPath(
        name="",
        n_raw=n_raw,
        reconstructor=reconstructor,
        description=replace(networks.described(description), uncertainty={}),  # the bare spread
        ceiling=int(np.iinfo(raw.dtype).max),
        networks=networks,
    )
