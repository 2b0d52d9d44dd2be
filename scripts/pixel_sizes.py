#!/usr/bin/env python
"""What it is worth to bring frames to an engine's own pixel size: the table of docs/real-images.md.

    python scripts/pixel_sizes.py imcsr-mt-er-lyso-light -n 24

The same simulated cells of a rig in good order, seen by cameras of other pixels, separated as they
come and brought to the engine's own pixels and back: mean PCC of the structures, and the difference
scene by scene.
"""

from __future__ import annotations

import argparse
import logging

import numpy as np
from scipy.stats import wilcoxon

from livesr.base.compute import ComputeConfig
from livesr.evaluation.live_path import separate
from livesr.evaluation.metrics import bootstrap_interval
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.resampling import ResampledSession, middle_nm, resampled_shape
from livesr.live.inference.runner import open_session
from livesr.live.inference.session import InferenceSession
from livesr.optics.similarity import pcc
from livesr.simulation.domain import CALIBRATED
from livesr.simulation.sequence import EVALUATION, sequences_of

SIDE, N_T, FIRST = 256, 4, 70_000
CAMERA_NM = (46.0, 50.0, 56.0, 65.0, 74.0, 80.0, 84.0)  # 90 nm sample too coarsely for SIM


def main() -> None:
    """Read the arguments, separate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("-n", type=int, default=24, help="scenes of each pixel size")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    engine = load_engine(given.engine)
    trained = engine.manifest.pixel_size_nm
    if trained is None:
        parser.error(f"{engine.manifest.id} was trained for pixels of any size")
    own_nm = middle_nm(trained)
    print("| pixels, nm | as they come | brought to the engine's own | difference | p |")
    print("|---" * 5 + "|")
    compute = ComputeConfig(threads=given.threads, tile="off")
    for camera_nm in CAMERA_NM:
        nm = camera_nm / 2
        sessions = opened(engine, compute, nm, own_nm)
        as_it_is, brought = (scores(engine, camera_nm, one, given.n) for one in sessions)
        apart = brought - as_it_is
        between = bootstrap_interval(apart.tolist())
        print(
            f"| {nm:g} | {as_it_is.mean():.3f} | {brought.mean():.3f} | {apart.mean():+.3f}"
            f" ({between.low:+.3f} to {between.high:+.3f}) | {wilcoxon(apart).pvalue:.2g} |",
            flush=True,
        )


def opened(
    engine: Engine, compute: ComputeConfig, nm: float, own_nm: float
) -> tuple[InferenceSession, InferenceSession]:
    """Return the engine for frames as they come, and with frames brought to its own pixels."""
    shape, seen = (SIDE, SIDE), resampled_shape((SIDE, SIDE), nm / own_nm)
    inner = open_session(engine, seen, compute)
    brought = ResampledSession(inner, engine, shape, seen, own_nm)
    return open_session(engine, shape, compute), brought


def scores(engine: Engine, camera_nm: float, session: InferenceSession, n: int) -> np.ndarray:
    """Return the mean PCC of the structures in each scene."""
    draw = sequences_of(engine.manifest.modality).draw
    size = {"pixel_size_um": camera_nm / 1e3, "pixel_size_spread": 0.0}
    domain = CALIBRATED.model_copy(update=size)
    inside, found = np.s_[SIDE // 10 : -SIDE // 10, SIDE // 10 : -SIDE // 10], []
    with session:
        for number in range(FIRST, FIRST + n):
            scene = draw((EVALUATION, number), N_T, SIDE, domain)
            frames = separate(
                scene.raw(), scene.reconstructor, scene.pixel_size_um, engine, session
            )
            frame = frames[N_T // 2]
            pairs = zip(frame.channels, scene.truth(frame.t).values(), strict=True)
            found.append(np.mean([pcc(c[inside].astype(np.float32), t[inside]) for c, t in pairs]))
    return np.array(found)


if __name__ == "__main__":
    main()
