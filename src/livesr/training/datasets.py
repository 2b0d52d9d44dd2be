"""Training pairs for IMC-SR: virtual cells, imaged and reconstructed by the same code as live frames.

Owns what is randomised, how one sequence becomes normalised frames and targets, and the folder that `CachedPairs`
reads (format in `sources.py`). Specimens, image formation and reconstruction are their own modules.

A pair is three consecutive reconstructions, X at t-1, t, t+1 with their noise and artefacts, and the reconstruction of
each structure alone at t, noise-free. Both are divided by the same headroom, so the targets sum to x = (X - b) / s without
its noise, haze and background, which belong to no structure.

Everything about pair i comes from a generator seeded with (seed, i): it does not depend on the number of workers, on the
number of pairs or on what was made before.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.live.normalise import background_and_headroom
from livesr.live.reconstruct.sim import SIMReconstructor
from livesr.optics.noise import SCMOSNoise
from livesr.optics.otf import cutoff_um
from livesr.simulation.domain import Domain, Draw, draw_brightness, draw_light, draw_patterns
from livesr.simulation.microscope import Components, Light, SIMMicroscope
from livesr.simulation.specimens import Cell

Image = NDArray[np.float32]
Range = tuple[float, float]

WINDOW = 3
_MARGIN_PX = 32
_CHUNK = 4
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


@dataclass(frozen=True, slots=True)
class Series:
    """A simulated time lapse and what it should separate into.

    Attributes
    ----------
    frames : float32 (t, y, x), reconstructions in ADU
    truths : float32 (t, c, y, x), noise-free reconstruction of each structure alone in ADU, not negative
    normalisation : (background, headroom) of every frame in ADU
    pixel_size_um : of the reconstructions
    """

    frames: Image
    truths: Image
    normalisation: tuple[Range, ...]
    pixel_size_um: float

    def __len__(self) -> int:
        """Return the number of time points."""
        return len(self.frames)

    def pair(self, t: int, headroom_factor: float = 1.0) -> tuple[Image, Image]:
        """Return the network's input (3, y, x) and targets (c, y, x) of time point `t`; edge frames are repeated."""
        background, headroom = self.normalisation[t]
        headroom *= headroom_factor
        window = np.clip(np.arange(t - 1, t + 2), 0, len(self) - 1)
        return (self.frames[window] - np.float32(background)) / np.float32(headroom), self.truths[t] / np.float32(
            headroom
        )


@dataclass(frozen=True, slots=True)
class _Rig:
    """One draw of microscope, reconstruction, light and camera."""

    microscope: SIMMicroscope
    reconstructor: SIMReconstructor
    light: Light
    noise: SCMOSNoise


def sequence_pairs(seed: int | tuple[int, ...], n_t: int, *, size: int = 512, domain: Domain | None = None) -> Series:
    """Simulate a time lapse with its truth.

    Parameters
    ----------
    seed
        Determines everything. `write_pairs` uses (seed, index): any single integer is an unseen cell.
    n_t
        Time points.
    size
        Side of the reconstructions in their own pixels, even.
    domain
        What cell, rig and light are drawn from; narrow its ranges to look at one condition.
    """
    rng = np.random.default_rng(seed)
    return _simulate(Draw(rng), n_t, size, domain or Domain())


def write_pairs(
    folder: Path,
    n: int,
    *,
    seed: int,
    workers: int = 1,
    size: int = 256,
    domain: Domain | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a folder of training pairs, or finish one, or find that nothing is left to do.

    Parameters
    ----------
    folder
        Created if needed. An interrupted run of the same parameters continues there.
    n, size
        Pairs, and the side of their images in pixels of the reconstruction.
    seed
        Training and validation pairs need different ones.
    workers
        Processes; 1 works in this one. More need a script that can be imported (``if __name__ == "__main__"``).
    domain
        What the sequences are drawn from.
    progress
        Called with (pairs done, `n`).

    Returns
    -------
    Path
        `folder`; n x 7 x size^2 x 2 bytes with three structures.

    Raises
    ------
    ValueError
        If the folder holds pairs made with other parameters.
    """
    domain = domain or Domain()
    store = _PairStore(folder, n, size, seed, domain)
    if store.is_complete():
        return folder
    todo = store.open()
    report = progress or (lambda done, total: None)
    report(n - len(todo), n)
    for count, _ in enumerate(_in_processes(store, todo, workers), start=n - len(todo) + 1):
        report(count, n)
    store.complete()
    return folder


# -- one sequence --------------------------------------------------------------------------------------------------


def _simulate(draw: Draw, n_t: int, size: int, domain: Domain) -> Series:
    if size % 2:
        raise ValueError(f"size is {size}; a reconstruction has an even number of pixels")
    side = size // 2 + _MARGIN_PX
    pixel_um = draw.near(domain.pixel_size_um, domain.pixel_size_spread)
    rig = _draw_rig(draw, (side, side), pixel_um, domain)
    cell = _BrightCell(draw, rig.microscope, domain)
    structures, components = cell.watch(n_t + 2, draw.log_uniform(domain.interval_s))
    peak = max(components[1].peak(), 1e-6)
    photons = draw.log_uniform(domain.photons)
    light = replace(rig.light, electrons=photons / peak, background_e=photons * draw.uniform(domain.background))
    inside = (slice(_MARGIN_PX, _MARGIN_PX + size),) * 2
    transfer = rig.reconstructor.transfer
    frames, truths = [], []
    for t in range(n_t):
        expected = rig.microscope.raw((components[t], components[t + 1], components[t + 2]), light, draw.rng, t)
        raw = [rig.noise.expose(frame, draw.rng) for frame in expected]
        frames.append(rig.reconstructor.reconstruct(raw)[inside])
        adu = light.electrons * light.remaining(t + 0.5) * rig.noise.gain_adu_per_e
        alone = [rig.microscope.reconstruction_truth(s, transfer, adu)[inside] for s in structures[t + 1]]
        truths.append(np.maximum(np.stack(alone), 0))
    stack = np.stack(frames)
    normalisation = tuple(background_and_headroom(frame) for frame in stack)
    return Series(stack, np.stack(truths), normalisation, pixel_um / 2)


class _BrightCell:
    """A random cell whose structures are stained differently brightly."""

    def __init__(self, draw: Draw, microscope: SIMMicroscope, domain: Domain) -> None:
        self._microscope = microscope
        self._cell = Cell.random(
            draw.rng, microscope.object_shape, microscope.object_pixel_um, structures=domain.structures
        )
        self._brightness = draw_brightness(draw, domain)
        self._haze = np.float32(draw.uniform(domain.haze))

    def watch(self, n: int, interval_s: float) -> tuple[list[list[Image]], list[Components]]:
        """Return the structures and their sum's components at `n` time points."""
        structures, components = [], []
        for t in range(n):
            if t:
                self._cell.advance(interval_s)
            bright = self._stain(self._cell.render())
            structures.append(bright)
            haze = self._haze * np.sum(self._stain(self._cell.render_haze()), axis=0)
            components.append(self._microscope.components(np.sum(bright, axis=0), haze))
        return structures, components

    def _stain(self, images: dict[str, Image]) -> list[Image]:
        """Return the images in the domain's order, each as bright as its structure."""
        return [brightness * images[name] for name, brightness in self._brightness.items()]


def _draw_rig(draw: Draw, shape: tuple[int, int], pixel_um: float, domain: Domain) -> _Rig:
    na, emission_um = draw.uniform(domain.na), draw.uniform(domain.emission_um)
    true, assumed = draw_patterns(draw, cutoff_um(na, emission_um), domain)
    damping = draw.uniform(domain.damping)
    microscope = SIMMicroscope(shape, pixel_um, na, emission_um, true, damping=damping)
    noise = SCMOSNoise(
        offset_adu=100.0,
        gain_adu_per_e=draw.uniform(domain.gain_adu_per_e),
        read_noise_e=draw.uniform(domain.read_noise_e),
    )
    reconstructor = SIMReconstructor(
        shape,
        pixel_um,
        na,
        emission_um,
        assumed,
        offset_adu=noise.offset_adu,
        wiener=draw.log_uniform(domain.wiener),
        attenuation=draw.uniform(domain.attenuation),
        apodisation=draw.uniform(domain.apodisation),
        damping=min(draw.near(damping, domain.damping_error), 1.0),
    )
    return _Rig(microscope, reconstructor, draw_light(draw, domain), noise)


# -- the folder ----------------------------------------------------------------------------------------------------


class _PairStore:
    """The files of one folder of pairs; small enough to be sent to a worker.

    While pairs are missing the parameters lie in `unfinished.json` and one flag per pair in `done.npy`; `meta.json`
    appears with the last pair, so that nobody trains on zeros.
    """

    def __init__(self, folder: Path, n: int, size: int, seed: int, domain: Domain) -> None:
        self.folder, self.n, self.size, self.seed, self.domain = folder, n, size, seed, domain

    def is_complete(self) -> bool:
        return self._matches(self.folder / "meta.json")

    def open(self) -> list[int]:
        """Create the files, or find them, and return the indices of the pairs that are missing."""
        if not self._matches(self.folder / "unfinished.json"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._create("frames", np.float16, (self.n, WINDOW, self.size, self.size))
            self._create("targets", np.float16, (self.n, len(self.domain.structures), self.size, self.size))
            self._create("done", np.bool_, (self.n,))
            (self.folder / "unfinished.json").write_text(json.dumps(self._meta(), indent=2) + "\n", encoding="utf-8")
        return [int(i) for i in np.flatnonzero(~np.load(self.folder / "done.npy"))]

    def make(self, indices: list[int]) -> int:
        """Simulate and write pairs `indices`; return how many."""
        frames, targets, done = (
            np.load(self.folder / f"{name}.npy", mmap_mode="r+") for name in ("frames", "targets", "done")
        )
        for i in indices:
            draw = Draw(np.random.default_rng((self.seed, i)))
            series = _simulate(draw, WINDOW, self.size, self.domain)
            factor = 1 + self.domain.headroom_spread * draw.uniform((-1, 1))
            frames[i], targets[i] = series.pair(WINDOW // 2, factor)
            done[i] = True
        return len(indices)

    def complete(self) -> None:
        os.replace(self.folder / "unfinished.json", self.folder / "meta.json")
        (self.folder / "done.npy").unlink()

    def _create(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", dtype, shape)

    def _matches(self, path: Path) -> bool:
        if not path.is_file():
            return False
        found = json.loads(path.read_text(encoding="utf-8"))
        wanted = self._meta()
        if found == wanted:
            return True
        differ = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        raise ValueError(
            f"{self.folder} holds pairs that differ in {', '.join(differ)}; use another folder or delete it"
        )

    def _meta(self) -> dict[str, Any]:
        own = {
            "n": self.n,
            "size": self.size,
            "seed": self.seed,
            "channels": list(self.domain.structures),
            "pixel_size_nm": self.domain.pixel_size_um * 500,
            "modality": "sim",
        }
        return {**own, "domain": self.domain.model_dump(mode="json")}


def _in_processes(store: _PairStore, todo: list[int], workers: int) -> Iterator[None]:
    """Make pairs `todo`; yield once per pair."""
    if workers <= 1:
        for i in todo:
            store.make([i])
            yield None
        return
    with (
        _environment(_ONE_THREAD),
        ProcessPoolExecutor(min(workers, max(len(todo), 1)), multiprocessing.get_context("spawn")) as pool,
    ):
        chunks = [todo[i : i + _CHUNK] for i in range(0, len(todo), _CHUNK)]
        for count in pool.map(store.make, chunks):
            yield from (None for _ in range(count))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes started meanwhile: a library reads its thread count when it is imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
