"""SIM beside napari-sim-processor: the same nine frames, and the structure that they show.

The frames are those of the virtual rig, whose cell is known. napari-sim-processor (Imperial College
London, BSD-3; the engine of hexSIM, Gong et al. 2021, Phil. Trans. R. Soc. A 379, 20200162)
measures its patterns in these frames; livesr knows them from rig.yaml. Its reconstruction on the
CPU, by real transforms, is timed in the same process. Both have the same optics and their own
Wiener parameter.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift

from livesr.base.config import RigConfig, load_rig
from livesr.base.geometry import Geometry
from livesr.base.threads import one_blas_thread
from livesr.bench.result import LeftOut, Result, compared, peer_version
from livesr.bench.timing import Summary, calls_ms, interleave
from livesr.modalities.sim.modality import parameters_of
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.optics.similarity import pcc

_PACKAGE = "napari-sim-processor"
_MARGIN = 32  # pixels of the image, where reconstructions fade
_COMPARED = 384  # of the image's sides: laying all of it onto the truth takes minutes
_PHOTONS = 300.0

Image = NDArray[np.floating[Any]]


def measure(quick: bool) -> list[Result | LeftOut]:
    """Return time and agreement with the truth, of livesr alone where the other is missing."""
    size, calls, blocks = (128, 2, 2) if quick else (512, 3, 8)
    rig = load_rig("virtual_sim")
    bank = RawBank(rig, size, 1, seed=0, photons=_PHOTONS, bleaching=0.0, interval_s=0.5)
    raw, truth = bank.frames[0], np.sum(list(bank.truth(0).values()), axis=0)
    with one_blas_thread():
        ours = _ours(rig, size)
        subject, found = partial(ours, raw), _agreement(ours(raw), truth)
        theirs = _theirs(rig, raw)
        note = f"9 x {size}^2 of the virtual rig, {_PHOTONS:g} photo-electrons"
        if theirs is None:
            samples = Summary.of(calls_ms(subject, calls * blocks))
            missing = f"{_PACKAGE} is not installed: pip install {_PACKAGE} 'napari[pyqt6]'"
            return [
                Result("sim.peers.time", samples.median, "ms", samples=samples, note=note),
                Result("sim.peers.pcc", found, "of 1", note=note),
                LeftOut("sim.peers.napari", missing),
            ]
        version, single = peer_version(_PACKAGE), np.asarray(raw, np.float32)
        comparison = interleave(
            lambda: calls_ms(subject, calls),
            lambda: calls_ms(partial(theirs, single), calls),
            blocks,
        )
        reference = _agreement(theirs(single), truth)
    return [
        compared("sim.peers.time", comparison, "ms", version, note=note),
        Result(
            "sim.peers.pcc",
            found,
            "of 1",
            reference,
            version,
            note=f"{note}; with the structure up to SIM's cutoff, laid onto each other, without"
            f" the outer {_MARGIN} of {_COMPARED} pixels",
        ),
    ]


def _ours(rig: RigConfig, size: int) -> Callable[[NDArray[np.uint16]], Image]:
    assert rig.optics.pixel_size_nm is not None
    camera = Geometry((size, size), "uint16", rig.optics.pixel_size_nm / 1e3)
    return SIMReconstructor(*parameters_of(rig, next(iter(rig.channels)), camera)).reconstruct


def _theirs(
    rig: RigConfig, raw: NDArray[np.uint16]
) -> Callable[[NDArray[np.float32]], Image] | None:
    """Return its reconstruction, calibrated by these frames; None where it is not installed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says what it has found
            from napari_sim_processor.processors.convSimProcessor import ConvSimProcessor
    except ImportError:
        return None
    assert rig.optics.pixel_size_nm is not None
    emission_um = rig.emission_nm(next(iter(rig.channels))) / 1e3
    engine = ConvSimProcessor(3, 3)
    engine.debug, engine.magnification = False, 1
    engine.pixelsize, engine.wavelength = rig.optics.pixel_size_nm / 1e3, emission_um
    engine.NA, engine.n = rig.optics.na, 1.518
    engine.Ny, engine.Nx = raw.shape[1:]
    engine._allocate_arrays()  # noqa: SLF001 - else it does so only if both sides are new
    frames = np.asarray(raw, np.float32) - np.float32(rig.camera.offset_adu)
    with contextlib.redirect_stdout(io.StringIO()):
        engine.calibrate(frames)
    return lambda single: np.asarray(engine.reconstruct_rfftw(single))


def _agreement(image: Image, truth: Image) -> float:
    """Return PCC where the two lie best on each other, to a tenth of a pixel within one and a half.

    Programs place pixels differently; that is no error of the image.
    """
    inside = (slice(_MARGIN, -_MARGIN),) * 2
    image, truth = image[:_COMPARED, :_COMPARED], truth[:_COMPARED, :_COMPARED]
    at, best = (0.0, 0.0), -1.0
    for step in (0.5, 0.1):
        tried = [(at[0] + i * step, at[1] + j * step) for i in range(-3, 4) for j in range(-3, 4)]
        scores = [pcc(shift(image, t, order=3)[inside], truth[inside]) for t in tried]
        best, at = max(zip(scores, tried, strict=True))
    return best
