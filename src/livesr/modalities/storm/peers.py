"""Localisation beside Picasso: time and quality on the same frames.

Picasso (Schnitzbauer et al. 2017, Nature Protocols 12, 1198) finds spots and fits Gaussians by
least squares, with the detection threshold that serves it best; livesr with its default. Both are
timed in the same process, each with the threads that it takes by itself.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from livesr.base.config import load_rig
from livesr.bench.result import LeftOut, Result, compared, peer_version
from livesr.bench.timing import interleave, per_second
from livesr.modalities.storm.bench import Known, Picasso, reconstructor_of, scored

_PACKAGE = "picassosr"
_LIT = (50, 150)


def measure(quick: bool) -> list[Result | LeftOut]:
    """Return speed and quality at two densities, of livesr alone where Picasso is missing."""
    found: list[Result | LeftOut] = []
    for lit in _LIT[:1] if quick else _LIT:
        found += _measured(lit, *((5, 1) if quick else (40, 3)))
    if not Picasso.installed():
        reason = f"{_PACKAGE} is not installed: pip install 'livesr[storm]'"
        found.append(LeftOut("storm.peers.picasso", reason))
    return found


def _measured(lit: int, frames: int, blocks: int) -> list[Result]:
    rig = load_rig("virtual_storm")
    known = Known.blinking(rig, lit, frames)
    reconstructor = reconstructor_of(rig, known.frames.shape[1])
    localise = partial(reconstructor.localise, known.frames, range(frames))
    rows = localise()
    ours = known.score(rows["frame"], np.stack([rows["y_nm"], rows["x_nm"]], axis=1))
    density = f"{known.density_per_um2:.1f}"
    note = (
        f"{frames} frames of {known.frames.shape[1]}^2, {density} emitters/um^2 and frame: recall"
        f" {ours.recall:.3f}, precision {ours.precision:.3f}"
    )
    name, peer = f"storm.peers.{{}}_{density}", peer_version(_PACKAGE)
    if not Picasso.installed():
        speed = Result(name.format("speed"), per_second(frames, localise), "frames/s", note=note)
        return [speed, *scored(name, ours, None, peer, note)]
    with Picasso(rig, known) as picasso:
        theirs, threshold = picasso.best()
        note += f"; Picasso recall {theirs.recall:.3f}, precision {theirs.precision:.3f}"
        comparison = interleave(
            lambda: [per_second(frames, localise)],
            lambda: [per_second(frames, lambda: picasso.localise(threshold))],
            blocks,
        )
    speed = compared(name.format("speed"), comparison, "frames/s", peer, note=note)
    return [speed, *scored(name, ours, theirs, peer, note)]
