"""Validation during training: quick scores on whole pairs, and the watch for collapse.

Owns what a run reports of itself. The scores of a finished engine, through the live path, are
`livesr.evaluation`'s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import RunError

Images = NDArray[np.float32]

_NOTHING = 1e-6  # standard deviation of a target with nothing in it


class TrainingCollapsedError(RunError):
    """The network's output no longer depends on the structures in its input, or its loss is not
    finite.
    """


def validation_scores(predictions: Images, targets: Images) -> dict[str, float]:
    """Return `nrmse`, `pcc_0`, `pcc_1` ... of each channel that is in any of the pairs, and `pcc`,
    their mean.

    Of (n, c, y, x) predictions.
    """
    rmse = float(np.sqrt(np.mean((predictions - targets) ** 2)))
    pccs = {
        f"pcc_{c}": _mean_pcc(predictions[:, c], targets[:, c])
        for c in range(targets.shape[1])
        if (np.std(targets[:, c], axis=(1, 2)) > _NOTHING).any()
    }
    return {
        "nrmse": rmse / max(float(np.ptp(targets)), 1e-6),
        **pccs,
        "pcc": float(np.mean(list(pccs.values()))) if pccs else 0.0,
    }


def _mean_pcc(predictions: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Mean over images of Pearson's correlation.

    Images whose target is empty have none and are left out.
    """
    values = [_pcc(p, t) for p, t in zip(predictions, targets, strict=True) if np.std(t) > _NOTHING]
    return float(np.mean(values)) if values else 0.0


def _pcc(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson's correlation; 0 when either is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.vdot(a, b)) / norm if norm > 1e-12 else 0.0


def check_collapse(
    frames: NDArray[np.float32],
    predictions: NDArray[np.float32],
    targets: NDArray[np.float32],
    step: int,
) -> None:
    """Raise TrainingCollapsedError when every channel is constant, darkened or the input times a
    constant.

    A sigmoid head collapses to a constant; a partition head to the input times a constant, or to
    "none" everywhere. The input itself is the yardstick: a network that has begun to learn follows
    the structures better than it does, and a target that is the input (as in restoration) may be
    copied.
    """
    contrast = predictions.std((0, 2, 3)) / (targets.std((0, 2, 3)) + 1e-6)
    middle = frames[:, frames.shape[1] // 2]
    what = ""
    if np.all(contrast < 1e-3):
        what = "constant"
    elif middle.shape == predictions[:, 0].shape:
        channels = range(targets.shape[1])
        learned = np.array([_mean_pcc(predictions[:, c], targets[:, c]) for c in channels])
        given = np.array([_mean_pcc(middle, targets[:, c]) for c in channels])
        copied = np.array([_mean_pcc(predictions[:, c], middle) for c in channels])
        if np.all((copied > 0.9999) & (given < 0.999)):
            what = "its input times a constant in every channel"
        elif np.all(learned < 0.2 * given):
            what = "less like the structures than its input is"
    if what:
        raise TrainingCollapsedError(
            f"at step {step} the network's output is {what}; lower lr or lengthen the warm-up"
        )
