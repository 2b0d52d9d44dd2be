"""A virtual SIM rig.

A camera in Python for `UniMMCore` that shows a living cell through structured illumination.

Owns the bank of raw frames and their playback. Image formation is `microscope.py`, the patterns are
read from the rig's own rig.yaml, so that camera and reconstruction cannot disagree.

Which raw frame an exposure is
------------------------------
As on a rig whose pattern display advances with the camera's trigger, every exposure shows the next
raw frame, and after the last one of a group the specimen has moved on by one time point.

- A sequence of any length but one (triggered MDA, live mode) starts at raw index 0 of the next
  group.
- A snap, as each event of an untriggered MDA, goes on where the last exposure stopped. Nine snaps
  are a group. After an acquisition that was broken off inside a group, write `PatternIndex` = 0, or
  let the plan write it before every exposure:
  ``sim_sequence(..., pattern_property=("Camera", "PatternIndex"))``.
- `PatternIndex` selects the raw index of the next exposure: ahead in the same group, or in the next
  one. It is sequenceable, so such plans are still triggered.
- `TimePoint` = t starts a new group at time point t of the bank and empties
  `VirtualSIMCamera.shown`.

Time points are played forwards and backwards in turn, so that nothing ever jumps. Noise and
bleaching are part of the bank: on the way back the same noise returns and the brightness recovers.

Computing one takes about as long as nine exposures of 10 ms. A sequence computes those that it is
going to show before its first exposure, the first snap that leaves the first time point all others,
and `livesr.simulation.camera.prepare_virtual_camera` those of a run before it begins.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import pymm_property

from livesr.base.config import ChannelConfig, RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.modalities.sim.config import SIMConfig, patterns_of
from livesr.modalities.sim.modality import pattern_of
from livesr.modalities.sim.simulation.microscope import (
    Components,
    Light,
    SIMMicroscope,
    without_background,
)
from livesr.optics.noise import SCMOSNoise, read_variance_map
from livesr.simulation.camera import KnowsTruth, find_virtual_camera
from livesr.simulation.film import Film
from livesr.simulation.specimens import DEFAULT_STRUCTURES, STRUCTURES, Cell

log = logging.getLogger(__name__)

Image = NDArray[np.float32]

_MARGIN_PX = 16


def find_sim_camera(core: CMMCorePlus) -> VirtualSIMCamera | None:
    """Return the virtual camera that `core` uses, to ask it for the truth.

    None if it uses another one.
    """
    return find_virtual_camera(core, VirtualSIMCamera)


class RawBank:
    """Noisy raw groups of one cell at consecutive time points, each computed once: the first at
    once, the others when they are first asked for, with all before them.

    What they show is the same whoever asks, in any order; threads may share a bank.

    Parameters
    ----------
    rig : optics, patterns, raw order and camera levels
    size : side of the camera's chip in pixels
    n_t : time points
    seed : determines cell and noise
    photons : photo-electrons of bright parts in one raw frame
    bleaching : part of the brightness lost from one time point to the next
    interval_s : specimen time between two time points
    channel : of the rig, whose optics and patterns it is seen with; "" for the only one
    visible : structures that shine; all without

    Attributes
    ----------
    shape : (t, raw, y, x) of all raw frames that the channel exposes
    """

    DUTY = 0.2
    BACKGROUND = 0.03

    def __init__(
        self,
        rig: RigConfig,
        size: int,
        n_t: int,
        *,
        seed: int,
        photons: float,
        bleaching: float,
        interval_s: float,
        channel: str = "",
        visible: Sequence[str] = DEFAULT_STRUCTURES,
    ) -> None:
        sim = _sim_section(rig)
        order = [sim.raw_order()[raw] for raw in rig.exposed(channel)]
        self._seed, self._interval_s, self._visible = seed, interval_s, tuple(visible)
        self._microscope = _microscope(rig, sim, size, channel, order)
        self._noise = SCMOSNoise(
            offset_adu=rig.camera.offset_adu,
            bit_depth=rig.camera.bit_depth,
            read_variance_e2=read_variance_map((size, size), 1.6, np.random.default_rng((seed, 1))),
        )
        self._light = Light(
            background_e=self.BACKGROUND * photons,
            bleaching=bleaching,
            jitter=0.01,
            phase_error_rad=0.03,
            duty=self.DUTY,
        )
        self._photons = photons
        self._film = Film((n_t, len(order), size, size), self._expose)
        self.shape = self._film.shape
        self._truth_of, self._truth_lock = _Ageing(self._new_cell, interval_s), threading.Lock()
        self.until(1)

    @property
    def frames(self) -> NDArray[np.uint16]:
        """All raw frames, uint16 (t, raw, y, x), ADU; computes those that nobody asked for yet."""
        return self.until(self.shape[0])

    def until(self, n_t: int) -> NDArray[np.uint16]:
        """Return the first `n_t` time points, at most all, as `frames`, and compute no others."""
        return self._film.first(n_t)

    @property
    def computed(self) -> int:
        """How many time points are computed, from the first."""
        return self._film.exposed

    def group(self, t: int) -> NDArray[np.uint16]:
        """Return the raw frames of time point `t`, uint16 (raw, y, x), ADU."""
        return self._film.frame(t)

    def truth(
        self, t: int, transfer: Image | None = None, *, haze: bool = False
    ) -> dict[str, Image]:
        """Return each structure alone at time point `t`, noise-free, in ADU of the reconstruction.

        Parameters
        ----------
        t : time point of the bank; asking in ascending order is fast, going back starts the cell
            anew
        transfer : a reconstructor's effective transfer function for frames of the whole chip: then
            the truth is what that reconstruction can reach. Without it, the ideal passband of SIM
            (see `SIMMicroscope.truth`)
        haze : add what each sends from far out of focus, without its background

        Returns
        -------
        dict of str to float32 (2 y, 2 x)
            The whole chip: crop it yourself to twice the region of interest.

        Raises
        ------
        ValueError
            If the bank has no such time point.
        """
        if not 0 <= t < self.shape[0]:
            raise ValueError(f"time point {t} was asked for, the bank has 0 to {self.shape[0] - 1}")
        adu = self._light.electrons * self._light.remaining(t + 0.5) * self._noise.gain_adu_per_e
        with self._truth_lock:
            cell = self._truth_of.at(t)
            density, hazes = cell.render(), cell.render_haze() if haze else {}
        truth = {
            name: self._microscope.truth(image, adu)
            if transfer is None
            else self._microscope.reconstruction_truth(image, transfer, adu)
            for name, image in density.items()
        }
        if haze:
            for name, smooth in hazes.items():
                seen = without_background(self._microscope.within(smooth))
                truth[name] += np.float32(adu) * seen
        return truth

    def _expose(self, groups: NDArray[np.uint16]) -> Iterator[None]:
        rng = np.random.default_rng((self._seed, 2))
        ageing = _Ageing(self._new_cell, self._interval_s)
        before, now = self._components(ageing.at(-1)), self._components(ageing.at(0))
        self._light = replace(self._light, electrons=self._photons / max(now.peak(), 1e-6))
        for t, group in enumerate(groups):
            after = self._components(ageing.at(t + 1))
            for frame, expected in zip(
                group, self._microscope.raw((before, now, after), self._light, rng, t), strict=True
            ):
                self._noise.expose(expected, rng, out=frame)
            before, now = now, after
            yield

    def _components(self, cell: Cell) -> Components:
        density, haze = cell.render(), cell.render_haze()
        return self._microscope.components(
            np.sum([density[name] for name in self._visible], axis=0),
            np.sum([haze[name] for name in self._visible], axis=0),
        )

    def _new_cell(self) -> Cell:
        return Cell(
            self._microscope.object_shape,
            self._microscope.object_pixel_um,
            self._seed,
            {*DEFAULT_STRUCTURES, *self._visible},
        )


class _Ageing:
    """A cell that is asked for at time points, best in ascending order; for one thread.

    Parameters
    ----------
    new : returns the cell as it is at time point -1: the bank needs one before its first
    interval_s : specimen time between two time points
    """

    def __init__(self, new: Callable[[], Cell], interval_s: float) -> None:
        self._new, self._interval_s = new, interval_s
        self._cell: Cell | None = None
        self._t = -1

    def at(self, t: int) -> Cell:
        """Return the cell at time point `t` >= -1; going back starts it anew."""
        if self._cell is None or t < self._t:
            self._cell, self._t = self._new(), -1
        while self._t < t:
            self._cell.advance(self._interval_s)
            self._t += 1
        return self._cell


class VirtualSIMCamera(KnowsTruth):
    """Plays raw SIM frames of a simulated living cell, one per exposure.

    Properties before initialisation: Rig (name or path of the rig.yaml whose patterns it shows),
    SensorSize (pixels), Seed, TimePoints (length of the bank), Photons (photo-electrons of bright
    parts per raw frame), Bleaching (part lost per time point), SpecimenInterval_s, Dyes
    ("488:microtubules 561:er" for a dye that each channel of the rig excites alone,
    "all:er+lysosomes" for one that excites several, "mitochondria+er" for what every channel shows;
    without, microtubules, er and lysosomes).
    Later: PatternIndex, TimePoint (see the module), Channel (whose
    light is on, where there are dyes), and those of `VirtualCamera`.

    Attributes
    ----------
    shown : bank time point of each group exposed since `TimePoint` was last written; two bytes a
        group
    """

    def __init__(self) -> None:
        super().__init__()
        self._banks: dict[str, RawBank] = {}
        self._channel = ""
        self._playback = _Playback(1, 1)
        self._pattern_sequence: list[int] | None = None
        self._loaded_sequence: list[int] = []
        for name, default in (
            ("Rig", "virtual_sim"),
            ("SensorSize", 256),
            ("Seed", 0),
            ("TimePoints", 40),
            ("Photons", 300.0),
            ("Bleaching", 0.002),
            ("SpecimenInterval_s", 0.5),
            ("Dyes", ""),
        ):
            self.register_property(name, default_value=default, is_pre_init=True)

    def initialize(self) -> None:
        """Compute the first time point; `UniMMCore` logs an exception and marks the device as
        failed.
        """
        start = time.perf_counter()
        rig = load_rig(str(self.get_property_value("Rig")))
        size, n_t = int(self._number("SensorSize")), int(self._number("TimePoints"))
        for channel, visible in dyes_of(str(self.get_property_value("Dyes"))).items():
            self._banks[channel] = RawBank(
                rig,
                size,
                n_t,
                seed=int(self._number("Seed")),
                photons=self._number("Photons"),
                bleaching=self._number("Bleaching"),
                interval_s=self._number("SpecimenInterval_s"),
                channel=channel,
                visible=visible,
            )
        self._channel = next(iter(self._banks))
        self._playback = _Playback(*self.bank.shape[:2])
        log.info(
            "simulated the first of %d time points in %.1f s",
            self.bank.shape[0],
            time.perf_counter() - start,
        )

    @property
    def bank(self) -> RawBank:
        """The raw frames and their truth, of the channel whose light is on.

        Raises
        ------
        RuntimeError
            Before initialisation, or if it failed.
        """
        if not self._banks:
            raise RuntimeError(
                "the virtual camera has no frames: it was not initialised, or its initialisation"
                " failed"
            )
        return self._banks[self._channel]

    @property
    def shown(self) -> Sequence[int]:
        """Bank time point of each group, in order of exposure."""
        return self._playback.shown

    def truth(
        self, t: int, transfer: Image | None = None, *, haze: bool = False
    ) -> dict[str, Image]:
        """See `RawBank.truth`; `t` is a time point of the bank, as in `shown`."""
        return self.bank.truth(t, transfer, haze=haze)

    # -- what the base class asks ------------------------------------------------------------------

    def prepare(self, n: int | None) -> None:
        """Compute the time points of the next `n` exposures for every dye, all if None."""
        for bank in self._banks.values():
            bank.until(self._playback.reached(n))

    def start_playing(self, n: int | None) -> None:
        """Begin a group, unless it is a snap, and compute what the sequence shows: while it runs,
        processor and interpreter are the pipeline's.
        """
        if n != 1:
            self._playback.start_group()
        needed = self._playback.reached(n, self._pattern_sequence)
        if n == 1 and needed > self.bank.computed:
            # Snaps of another group are a run without a trigger, and how long, no snap says: one
            # pause, or each group of the first round would come late.
            needed = self.bank.shape[0]
        self.bank.until(needed)

    def next_frame(self, i: int) -> tuple[NDArray[np.uint16], Mapping[str, str]]:
        """Return the next raw frame of the bank."""
        if self._pattern_sequence:
            self._playback.select(self._pattern_sequence[i % len(self._pattern_sequence)])
        t, raw = self._playback.expose()
        return self.bank.group(t)[raw], {"SIM-Index": str(raw), "SIM-TimePoint": str(t)}

    # -- properties --------------------------------------------------------------------------------

    @pymm_property(
        name="PatternIndex", limits=(0, 255), sequence_max_length=65536, property_type=int
    )
    def pattern_index(self) -> int:
        """Raw index of the next exposure."""
        return self._playback.raw

    @pattern_index.setter
    def _set_pattern_index(self, value: float) -> None:
        self._playback.select(int(value))

    @pattern_index.sequence_loader
    def _load_pattern_sequence(self, values: Sequence[float]) -> None:
        self._loaded_sequence = [int(value) for value in values]

    @pattern_index.sequence_starter
    def _start_pattern_sequence(self) -> None:
        self._pattern_sequence = self._loaded_sequence

    @pattern_index.sequence_stopper
    def _stop_pattern_sequence(self) -> None:
        self._pattern_sequence = None

    @pymm_property(name="Channel", property_type=str)
    def channel(self) -> str:
        """Whose light is on."""
        return self._channel

    @channel.setter
    def _set_channel(self, value: str) -> None:
        if str(value) not in self._banks:
            raise ValueError(
                f"channel {value!r} was selected; the dyes are those of {', '.join(self._banks)}"
            )
        self._channel = str(value)

    @pymm_property(name="TimePoint", limits=(0, 65535), property_type=int)
    def time_point(self) -> int:
        """Bank time point of the next exposure."""
        return self._playback.time_point

    @time_point.setter
    def _set_time_point(self, value: float) -> None:
        self._playback.restart(int(value))


class _Playback:
    """Which time point and raw frame the next exposure shows.

    Parameters
    ----------
    n_t, n_raw : size of the bank
    """

    def __init__(self, n_t: int, n_raw: int) -> None:
        self._n_t, self._n_raw = n_t, n_raw
        self._next = 0
        self._group: int | None = None
        self.shown = array("H")

    @property
    def raw(self) -> int:
        return self._next % self._n_raw

    @property
    def time_point(self) -> int:
        return self._there_and_back(self._next // self._n_raw)

    def expose(self) -> tuple[int, int]:
        """Return (time point, raw index) and go on to the next exposure."""
        group, raw = divmod(self._next, self._n_raw)
        t = self._there_and_back(group)
        if group != self._group:
            self._group = group
            self.shown.append(t)
        self._next += 1
        return t, raw

    def reached(self, n: int | None, patterns: Sequence[int] | None = None) -> int:
        """Return how many time points are needed, from the first, for the next `n` exposures, all
        if None; of `patterns` each exposure shows the next.
        """
        if n is None:
            return self._n_t
        ahead = _Playback(self._n_t, self._n_raw)
        ahead._next, needed = self._next, 1
        for i in range(n):
            if patterns:
                ahead.select(patterns[i % len(patterns)])
            needed = max(needed, 1 + ahead.time_point)
            if needed == self._n_t:
                break
            ahead._next += 1
        return needed

    def start_group(self) -> None:
        """Go on to raw index 0, unless there already."""
        self.select(0)

    def select(self, raw: int) -> None:
        """Go on to raw index `raw`, in this group if it lies ahead."""
        if raw >= self._n_raw:
            raise ValueError(f"raw index {raw} was selected, a group has 0 to {self._n_raw - 1}")
        self._next += (raw - self._next) % self._n_raw

    def restart(self, t: int) -> None:
        """Begin a group at time point `t` and forget what was shown."""
        if t >= self._n_t:
            raise ValueError(f"time point {t} was selected, the bank has 0 to {self._n_t - 1}")
        self._next, self._group = t * self._n_raw, None
        self.shown = array("H")

    def _there_and_back(self, group: int) -> int:
        """0, 1, ... n-1, n-2, ... 1, 0, 1, ..."""
        if self._n_t == 1:
            return 0
        phase = group % (2 * self._n_t - 2)
        return min(phase, 2 * self._n_t - 2 - phase)


def _sim_section(rig: RigConfig) -> SIMConfig:
    if "sim" not in rig.sections or rig.optics.pixel_size_nm is None:
        raise ConfigError(
            f"rig {rig.name!r} needs 'sim' and 'optics.pixel_size_nm' to be simulated; see"
            " virtual_sim"
        )
    return SIMConfig.of(rig)


def dyes_of(text: str) -> dict[str, tuple[str, ...]]:
    """Return the structures that each channel shows.

    "488:microtubules 561:er", "mixed:microtubules+er" for several, "mitochondria+er" for a rig of
    one channel, or nothing.

    Raises
    ------
    ConfigError
        If a structure is none that can be simulated.
    """
    if not text:
        return {"": DEFAULT_STRUCTURES}
    named = (dye.rpartition(":") for dye in text.split())
    dyes: dict[str, tuple[str, ...]] = {
        channel: tuple(structures.split("+")) for channel, _, structures in named
    }
    if unknown := {name for names in dyes.values() for name in names} - STRUCTURES.keys():
        raise ConfigError(
            f"Dyes {text!r} stain {', '.join(sorted(unknown))}; there are {', '.join(STRUCTURES)}."
        )
    return dyes


def _microscope(
    rig: RigConfig, sim: SIMConfig, size: int, channel: str, order: Sequence[tuple[int, int]]
) -> SIMMicroscope:
    assert rig.optics.pixel_size_nm is not None
    of_channel = rig.channel(channel) if channel else ChannelConfig()
    patterns = patterns_of(rig, channel) if channel else sim.patterns
    steps = sim.phase_steps_rad or [2 * np.pi * p / sim.phases for p in range(sim.phases)]
    return SIMMicroscope(
        (size, size),
        rig.optics.pixel_size_nm / 1e3,
        rig.optics.na,
        (of_channel.emission_nm or rig.optics.emission_nm) / 1e3,
        [pattern_of(p) for p in patterns],
        phase_steps_rad=steps,
        order=order,
        damping=0.7,
        margin_px=_MARGIN_PX,
    )
