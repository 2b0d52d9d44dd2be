"""A virtual rig of blinking fluorophores.

A camera in Python for `UniMMCore` that shows fluorophores that switch on and off on a simulated
cell.

Owns the bank of frames and its playback; the truth of every frame is known. Photoswitching is
`blinking.py`, optics and camera levels are read from the rig's own rig.yaml, so that camera and
reconstruction cannot disagree.

The bank is played from its first frame to its last, over and over, one frame per exposure. `Frame`
= k goes on from frame k and empties `VirtualBlinkingCamera.shown`. Nothing happens between two
exposures: the exposure changes the speed of the film, not what is on it.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import pymm_property

from livesr.base.config import CameraConfig, RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.optics.noise import EMCCDNoise, SCMOSNoise
from livesr.optics.psf import PointSpread
from livesr.optics.vectorial import VectorialSpread
from livesr.simulation.blinking import Photoswitching, blink, place_on
from livesr.simulation.camera import VirtualCamera, find_virtual_camera
from livesr.simulation.film import Film
from livesr.simulation.specimens import Cell

log = logging.getLogger(__name__)

_OBJECT_PIXEL_UM = 0.02
_WAVE_UM = 12.0  # of the surface on which fluorophores lie


def find_blinking_camera(core: CMMCorePlus) -> VirtualBlinkingCamera | None:
    """Return the virtual camera that `core` uses, to ask it for the truth.

    None if it uses another one.
    """
    return find_virtual_camera(core, VirtualBlinkingCamera)


class BlinkingBank:
    """Noisy frames of blinking fluorophores on one structure of a cell, each computed once, when it
    is first asked for, with all before it.

    What they show is the same whoever asks, in any order; threads may share a bank.

    Parameters
    ----------
    rig : optics and camera levels: an EMCCD if it has an EM gain, else an sCMOS
    size : side of the camera's chip in pixels
    frames : length of the bank
    seed : determines cell, fluorophores, blinking and noise
    structure : name in `livesr.simulation.specimens`: "microtubules", "er", "lysosomes"
    fluorophores : on the structure, in the field
    lit : fluorophores that are on at a time
    photons, background : photo-electrons of a fluorophore in a full frame, and of the background
        per pixel and frame
    on_frames, bleached_share : see `Photoswitching`. Without bleaching the density holds, and the
        end of the bank joins its beginning
    astigmatism : of a cylindrical lens, wavelengths root mean square; 0 without
    depth_um : between the lowest and the highest fluorophore; above 0 only with astigmatism

    Attributes
    ----------
    shape : (frame, y, x) of all frames
    positions_um : float64 (fluorophore, 2), (y, x); the centre of the chip's pixel (0, 0) is (0, 0)
    heights_um : float64 (fluorophore,), z from the plane in focus
    switching : how they blink
    seed : as given
    """

    def __init__(
        self,
        rig: RigConfig,
        size: int,
        frames: int,
        *,
        seed: int = 0,
        structure: str = "microtubules",
        fluorophores: int = 20_000,
        lit: float = 50.0,
        photons: float = 1000.0,
        background: float = 10.0,
        on_frames: float = 1.5,
        bleached_share: float = 0.0,
        astigmatism: float = 0.0,
        depth_um: float = 0.0,
    ) -> None:
        if rig.optics.pixel_size_nm is None:
            raise ConfigError(
                f"rig {rig.name!r} needs 'optics.pixel_size_nm' to be simulated; see virtual_storm"
            )
        self.pixel_size_um = rig.optics.pixel_size_nm / 1e3
        rng = np.random.default_rng((seed, 3))
        self.positions_um = self._place(size, structure, fluorophores, seed, rng)
        self.heights_um = self._heights(size, depth_um, seed)
        switching = Photoswitching.with_density(
            fluorophores, lit, on_frames, bleached_share=bleached_share, photons=photons
        )
        self.switching, self.seed, self._background = switching, seed, background
        self._blinks = blink(fluorophores, frames, switching, rng)
        self._rng = rng
        optics = self.pixel_size_um, rig.optics.na, rig.optics.emission_nm / 1e3
        self._deep = VectorialSpread(*optics, astigmatism=astigmatism) if astigmatism else None
        self._flat = None if astigmatism else PointSpread(*optics)
        self._noise = camera_noise(rig.camera)
        self._film = Film((frames, size, size), self._expose_all)
        self.shape = self._film.shape
        self.until(1)

    @property
    def frames(self) -> NDArray[np.uint16]:
        """All frames, uint16 (frame, y, x), ADU; computes those that nobody asked for yet."""
        return self.until(self.shape[0])

    def until(self, n: int) -> NDArray[np.uint16]:
        """Return the first `n` frames, at most all, as `frames`, and compute no others."""
        return self._film.first(n)

    @property
    def computed(self) -> int:
        """How many frames are computed, from the first."""
        return self._film.exposed

    def frame(self, number: int) -> NDArray[np.uint16]:
        """Return frame `number`, uint16 (y, x), ADU."""
        return self._film.frame(number)

    def heights_of(self, frame: int) -> NDArray[np.float64]:
        """Return z in um of what `truth` tells of a frame, (n,)."""
        return self.heights_um[self._blinks.fluorophore[self._blinks.of_frame(frame)]]

    def truth(self, frame: int) -> NDArray[np.float64]:
        """Return what was lit in frame `frame` of the bank.

        (n, 3), y and x in um and expected photo-electrons.
        """
        here = self._blinks.of_frame(frame)
        return np.column_stack(
            [self.positions_um[self._blinks.fluorophore[here]], self._blinks.photons[here]]
        )

    def _place(
        self, size: int, structure: str, fluorophores: int, seed: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        side = round(size * self.pixel_size_um / _OBJECT_PIXEL_UM)
        wanted = ("microtubules", structure) if structure == "lysosomes" else (structure,)
        density = Cell((side, side), _OBJECT_PIXEL_UM, seed, wanted).render()[structure]
        # The grid's first pixel begins at the chip's edge, half a camera pixel before the centre of
        # pixel (0, 0).
        corner_um = (_OBJECT_PIXEL_UM - self.pixel_size_um) / 2
        return place_on(density, _OBJECT_PIXEL_UM, fluorophores, rng) + corner_um

    def _heights(self, size: int, depth_um: float, seed: int) -> NDArray[np.float64]:
        """Lay the fluorophores on a surface that rises and falls over a few um."""
        if not depth_um:
            return np.zeros(len(self.positions_um))
        rng = np.random.default_rng((seed, 4))
        waves = rng.normal(0, 1 / _WAVE_UM, (6, 2))
        phases = 2 * np.pi * (self.positions_um @ waves.T + rng.random(6))
        surface = np.sin(phases).sum(axis=1)
        span = np.ptp(surface) or 1.0
        return np.asarray((surface - surface.min()) / span - 0.5) * depth_um

    def exposed(
        self, fluorophores: NDArray[np.intp], photons: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.uint16]:
        """Return a frame, uint16 (y, x), in which some give so many photo-electrons."""
        lit = np.column_stack([self.positions_um[fluorophores], photons])
        frame = np.empty(self.shape[1:], np.uint16)
        self._expose(lit, self.heights_um[fluorophores], rng, frame)
        return frame

    def _expose_all(self, frames: NDArray[np.uint16]) -> Iterator[None]:
        rng = deepcopy(self._rng)
        for number, frame in enumerate(frames):
            self._expose(self.truth(number), self.heights_of(number), rng, frame)
            yield

    def _expose(
        self,
        lit: NDArray[np.float64],
        heights_um: NDArray[np.float64],
        rng: np.random.Generator,
        out: NDArray[np.uint16],
    ) -> None:
        expected = np.full(out.shape, self._background, np.float32)
        places = lit[:, 0] / self.pixel_size_um, lit[:, 1] / self.pixel_size_um, lit[:, 2]
        if self._deep:
            self._deep.add(expected, *places, heights_um)
        elif self._flat:
            self._flat.add(expected, *places)
        self._noise.expose(expected, rng, out=out)


def camera_noise(camera: CameraConfig) -> EMCCDNoise | SCMOSNoise:
    """Return the noise of the camera that rig.yaml describes."""
    gain, read = camera.gain_e_per_adu or 1.0, camera.read_noise_e
    if camera.em_gain is None:
        return SCMOSNoise(
            camera.offset_adu, 1 / gain, 1.6 if read is None else read, camera.bit_depth
        )
    return EMCCDNoise(
        camera.offset_adu,
        camera.em_gain,
        gain,
        60.0 if read is None else read,
        bit_depth=camera.bit_depth,
    )


class VirtualBlinkingCamera(VirtualCamera):
    """Plays frames of blinking fluorophores, one per exposure.

    Properties before initialisation: Rig (name or path of the rig.yaml whose optics and camera it
    has), SensorSize (pixels), Seed, Frames (length of the bank), Structure, Fluorophores, Lit (on
    at a time), Photons (of a fluorophore in a full frame), Background (per pixel), OnFrames (mean
    length of a blink), Bleached (share of blinks that are the last), Astigmatism (of a
    cylindrical lens, wavelengths root mean square), Depth (um between the lowest and the highest
    fluorophore). Later: Frame (see the module), AllLit (above 0 an exposure shows no blinking but
    every fluorophore, each with so many photo-electrons), and those of `VirtualCamera`.

    Attributes
    ----------
    shown : bank frame of each exposure since `Frame` was last written; four bytes an exposure
    """

    def __init__(self) -> None:
        super().__init__()
        self._bank: BlinkingBank | None = None
        self._next = 0
        self._all_lit_e = 0.0
        self._shown = array("I")
        for name, default in (
            ("Rig", "virtual_storm"),
            ("SensorSize", 256),
            ("Seed", 0),
            ("Frames", 1000),
            ("Structure", "microtubules"),
            ("Fluorophores", 20_000),
            ("Lit", 50.0),
            ("Photons", 1000.0),
            ("Background", 10.0),
            ("OnFrames", 1.5),
            ("Bleached", 0.0),
            ("Astigmatism", 0.0),
            ("Depth", 0.0),
        ):
            self.register_property(name, default_value=default, is_pre_init=True)

    def initialize(self) -> None:
        """Lay out the fluorophores and compute the first frame; `UniMMCore` logs an exception and
        marks the device as failed.
        """
        start = time.perf_counter()
        self._bank = BlinkingBank(
            load_rig(str(self.get_property_value("Rig"))),
            int(self._number("SensorSize")),
            int(self._number("Frames")),
            seed=int(self._number("Seed")),
            structure=str(self.get_property_value("Structure")),
            fluorophores=int(self._number("Fluorophores")),
            lit=self._number("Lit"),
            photons=self._number("Photons"),
            background=self._number("Background"),
            on_frames=self._number("OnFrames"),
            bleached_share=self._number("Bleached"),
            astigmatism=self._number("Astigmatism"),
            depth_um=self._number("Depth"),
        )
        log.info(
            "simulated the first of %d blinking frames in %.1f s",
            self._bank.shape[0],
            time.perf_counter() - start,
        )

    @property
    def bank(self) -> BlinkingBank:
        """The frames and their truth.

        Raises
        ------
        RuntimeError
            Before initialisation, or if it failed.
        """
        if self._bank is None:
            raise RuntimeError(
                "the virtual camera has no frames: it was not initialised, or its initialisation"
                " failed"
            )
        return self._bank

    @property
    def shown(self) -> Sequence[int]:
        """Bank frame of each exposure."""
        return self._shown

    def prepare(self, n: int | None) -> None:
        """Compute the frames of the next `n` exposures, all if None."""
        if not self._all_lit_e:
            self.bank.until(self.bank.shape[0] if n is None else self._next + n)

    def start_playing(self, n: int | None) -> None:
        """Compute what the sequence shows: while it runs, processor and interpreter are the
        pipeline's.
        """
        self.prepare(n)

    def next_frame(self, i: int) -> tuple[NDArray[np.uint16], Mapping[str, str]]:
        """Return the next frame of the bank, or one in which all are lit."""
        if self._all_lit_e:
            n = len(self.bank.positions_um)
            rng = np.random.default_rng((self.bank.seed, 5, self._exposures))
            return self.bank.exposed(np.arange(n), np.full(n, self._all_lit_e), rng), {}
        frame, self._next = self._next, (self._next + 1) % self.bank.shape[0]
        self._shown.append(frame)
        return self.bank.frame(frame), {"Blinking-Frame": str(frame)}

    @pymm_property(name="AllLit", limits=(0.0, 1e6), property_type=float)
    def all_lit(self) -> float:
        """Photo-electrons of each fluorophore where all are lit; 0: they blink."""
        return self._all_lit_e

    @all_lit.setter
    def _set_all_lit(self, value: float) -> None:
        self._all_lit_e = float(value)

    @pymm_property(name="Frame", limits=(0, 1_000_000), property_type=int)
    def frame(self) -> int:
        """Bank frame of the next exposure."""
        return self._next

    @frame.setter
    def _set_frame(self, value: float) -> None:
        if not 0 <= int(value) < self.bank.shape[0]:
            raise ValueError(
                f"frame {int(value)} was selected, the bank has 0 to {self.bank.shape[0] - 1}"
            )
        self._next, self._shown = int(value), array("I")
