"""Fluorophores whose switching on depends on how much activation light there is.

Owns which of them are lit, from frame to frame. Where they are, and what optics and camera make of
them, is the bank's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.simulation.blinking_rig import BlinkingBank

_BY_ITSELF = 0.02  # share that switches on without activation


class ActivatedFluorophores:
    """The fluorophores of a bank, exposed one frame after the other.

    Parameters
    ----------
    bank : whose fluorophores, optics and camera they are; nothing bleaches
    """

    def __init__(self, bank: BlinkingBank) -> None:
        self._bank = bank
        self._rng = np.random.default_rng((bank.seed, 5))
        self._lit = np.zeros(len(bank.positions_um), bool)

    def expose(self, activation: float) -> tuple[NDArray[np.uint16], int]:
        """Return a frame, uint16 (y, x), and how many are lit in it.

        `activation` is the light in units of what the bank was made with.
        """
        switching, rng = self._bank.switching, self._rng
        rate = (activation + _BY_ITSELF) / switching.off_frames
        was = self._lit
        on = rng.random(len(was)) < -np.expm1(-rate)
        off = rng.random(len(was)) < -np.expm1(-1 / switching.on_frames)
        self._lit = (was & ~off) | (~was & on)
        seen = np.flatnonzero(self._lit | was)
        # what switches within the frame gives a part of its light
        share = np.where((self._lit & was)[seen], 1.0, rng.random(len(seen)))
        spread = switching.photons_spread
        light = switching.photons * share * rng.lognormal(-(spread**2) / 2, spread, len(seen))
        return self._bank.exposed(seen, light, rng), int(self._lit.sum())
