"""Fluctuations: how fast on 256 x 256 frames, and how near the image comes to the structure at
three densities.

Quality is measured on simulated frames whose fluorophores are known, those of the virtual rig: an
ideal objective's Airy pattern, an sCMOS, 150 photo-electrons a fluorophore and frame, on
microtubules. `peers.py` compares with NanoPyx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import RawStack, Stream
from livesr.base.geometry import Geometry
from livesr.base.threads import one_blas_thread
from livesr.bench.pipeline import acquired_per_second, virtual_rig
from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import interleave, per_second
from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.modalities.fluctuation.modality import Fluctuation
from livesr.modalities.fluctuation.reconstructor import FluctuationReconstructor
from livesr.modalities.fluctuation.simulation import fluctuating_bank
from livesr.optics.similarity import pcc
from livesr.simulation.blinking_rig import VirtualBlinkingCamera
from livesr.simulation.camera import find_virtual_camera

_FAST = Target(100, "least")
_LIT = (0.01, 0.05, 0.2)  # share of the fluorophores
_KINDS: dict[str, dict[str, Any]] = {
    "esrrf": {},
    "esrrf_variance": {"temporal": "variance"},
    "sofi2": {"method": "sofi", "order": 2},
    "sofi3": {"method": "sofi", "order": 3},
    "sofi4": {"method": "sofi", "order": 4},
}
TRUTH_NM = 30.0  # blur of the structure that images are compared with


def measure(quick: bool) -> list[Result]:
    """Return speed, agreement and quality.

    The target of the project is 100 camera frames a second on two cores.
    """
    rig = load_rig("virtual_fluctuation")
    with one_blas_thread():  # as a run has it
        results = _folded(rig, quick)
        for lit in _LIT[:1] if quick else _LIT:
            results += _quality(rig, lit, quick)
    return [*results, _live(quick)]


def _folded(rig: RigConfig, quick: bool) -> list[Result]:
    """Return frames/s of eSRRF and of SOFI, beside one Gaussian filter of the enlarged frame."""
    size, frames, blocks = (64, 10, 2) if quick else (256, 50, 6)
    raw = fluctuating_bank(rig, size, frames).frames
    return [_folded_by(kind, rig, raw, blocks) for kind in _KINDS]


def _folded_by(kind: str, rig: RigConfig, raw: NDArray[np.uint16], blocks: int) -> Result:
    reconstructor, frames = reconstructor_of(rig, raw.shape[1], _KINDS[kind]), len(raw)
    scale = reconstructor.scale
    enlarged = np.kron(raw[0], np.ones((scale, scale), np.float32))

    def filtered() -> None:
        for _ in range(frames):
            gaussian_filter(enlarged, 1.0, output=np.float32)

    comparison = interleave(
        lambda: [per_second(frames, lambda: reconstructor.fold(list(raw)))],
        lambda: [per_second(frames, filtered)],
        blocks,
    )
    return compared(
        f"fluctuation.{kind}",
        comparison,
        "frames/s",
        "one scipy.ndimage.gaussian_filter of the image a frame",
        (_FAST,) if kind == "esrrf" else (),
        f"{raw.shape[1]}^2 frames, {scale} pixels of the image per camera pixel",
    )


def _live(quick: bool) -> Result:
    """Return camera frames/s that a whole run keeps up with.

    Camera, grouping, eSRRF, drift, store.
    """
    size, frames, groups, every = (64, 20, 3, 10) if quick else (256, 200, 20, 50)
    with virtual_rig("virtual_fluctuation", SensorSize=size, Frames=frames) as (core, rig):
        section = FluctuationConfig.of(rig).model_copy(update={"every": every, "window": None})
        rig = rig.with_section(section)
        camera = find_virtual_camera(core, VirtualBlinkingCamera)
        assert camera is not None
        bank, alone = camera.bank.frames, reconstructor_of(rig, size, {})

        def bare() -> list[float]:
            running = alone.running()
            stacks = _stacks(bank, every)
            with one_blas_thread():
                n = every * len(stacks)
                return [per_second(n, lambda: [running.add(stack) for stack in stacks])]

        core.setExposure(1e3 / (1.3 * bare()[0]))
        comparison = interleave(
            lambda: [acquired_per_second(core, rig, groups, every)],
            bare,
            1 if quick else 3,
            warm_up=False,
        )
    return compared(
        "fluctuation.live",
        comparison,
        "frames/s",
        "eSRRF and drift in a bare loop",
        (_FAST,),
        f"{size}^2, groups of {every}, image of {alone.shape[0]}^2; virtual camera and store with"
        " raw on the same cores",
    )


def _quality(rig: RigConfig, lit: float, quick: bool) -> list[Result]:
    """Return the correlation of every kind of image with the structure, at one density."""
    size, frames = (64, 100) if quick else (128, 1000)
    bank = fluctuating_bank(rig, size, frames, lit)
    pixel_um = bank.pixel_size_um
    density = f"{len(bank.positions_um) * lit / (size * pixel_um) ** 2:.1f}"
    found = []
    for kind, settings in _KINDS.items():
        reconstructor = reconstructor_of(rig, size, {**settings, "every": 100, "window": None})
        running, scale = reconstructor.running(), reconstructor.scale
        image = [running.add(stack) for stack in _stacks(bank.frames, 100)][-1]
        margin = (slice(8 * scale, -8 * scale),) * 2
        truth = structure(bank.positions_um / pixel_um, size, scale, TRUTH_NM / pixel_um / 1e3)
        mean = zoom(bank.frames.mean(axis=0), scale, order=3, mode="nearest", grid_mode=True)
        found.append(
            Result(
                f"fluctuation.pcc_{kind}_{density}",
                pcc(image[margin], truth[margin]),
                "of 1",
                pcc(mean[margin], truth[margin]),
                "the mean frame, enlarged",
                note=f"{density} fluorophores/um^2 and frame, {frames} frames",
            )
        )
    return found


def structure(
    places_px: NDArray[np.float64], size: int, scale: int, sigma_px: float
) -> NDArray[np.float64]:
    """Return the fluorophores at (y, x), camera pixels, as a picture with `scale` pixels each."""
    edges = np.arange(size * scale + 1) / scale - 0.5
    counts, _, _ = np.histogram2d(places_px[:, 0], places_px[:, 1], bins=(edges, edges))
    return np.asarray(gaussian_filter(counts, sigma_px * scale), np.float64)


def _stacks(frames: NDArray[np.uint16], every: int) -> Sequence[RawStack]:
    return [
        RawStack(tuple(frames[first : first + every]), Stream(), first // every, 0, 0)
        for first in range(0, len(frames) - every + 1, every)
    ]


def reconstructor_of(
    rig: RigConfig, size: int, settings: dict[str, Any]
) -> FluctuationReconstructor:
    """Return what folds frames of `size` pixels a side in."""
    assert rig.optics.pixel_size_nm is not None
    section = FluctuationConfig.of(rig).model_copy(update=settings)
    camera = Geometry((size, size), "uint16", rig.optics.pixel_size_nm / 1e3)
    return Fluctuation().build(rig.with_section(section), next(iter(rig.channels)), camera)
