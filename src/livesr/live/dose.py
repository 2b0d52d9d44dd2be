"""What a run spends of the specimen: exposures, light, and the signal that is left.

Owns the ledger. Looks at no pixel: exposures are counted as their groups close, the signal is that
of the reconstructions.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any, TypedDict

from livesr.base.frames import RawStack, Stream
from livesr.live.paths import ChannelPath


class Dose(TypedDict, total=False):
    """What exposures cost.

    `exposure_s` is of those whose time is known, `untimed` of how many it is not, where there
    are such; `energy_mj` needs the time of all, and the power. Of a channel `signal_left` is
    the brightness of the last frames over that of the first, which bleaching and changes of the
    specimen lower alike, and `dyes` how many structures its picture is separated into.
    """

    exposures: int
    exposure_s: float
    untimed: int
    energy_mj: float
    signal_left: float
    dyes: int


class DoseReport(TypedDict, total=False):
    """`spent`, by all channels and by each, and what the same structures would have cost as dyes
    that are taken one after the other.
    """

    spent: Dose
    one_after_the_other: Dose
    channels: dict[str, Dose]


class DoseLedger:
    """Counts for all threads of a run; locked.

    Parameters
    ----------
    paths : of every channel, by name
    audits : channels that are exposed to score others; dyes one after the other need none
    """

    def __init__(self, paths: Mapping[str, ChannelPath], audits: Collection[str] = ()) -> None:
        self._audits = audits
        self._lock = threading.Lock()
        self._dyes = {
            name: max(len(path.description.labels), 1)
            for name, path in paths.items()
            if not path.parts
        }
        self._power_mw = {name: path.description.power_mw for name, path in paths.items()}
        self._exposures = dict.fromkeys(self._dyes, 0)
        self._untimed = dict.fromkeys(self._dyes, 0)
        self._exposure_ms = dict.fromkeys(self._dyes, 0.0)
        self._signal: dict[Stream, tuple[float, float]] = {}  # first, last

    def exposed(self, stack: RawStack) -> None:
        """Take a raw group, complete or not."""
        name, n = stack.stream.channel, len(stack.came)
        if name in self._exposures:
            with self._lock:
                self._exposures[name] += n
                if stack.exposure_ms is None:
                    self._untimed[name] += n
                else:
                    self._exposure_ms[name] += n * stack.exposure_ms

    def measured(self, stream: Stream, signal: float) -> None:
        """Take the brightness of a reconstruction that is made of its own group alone."""
        with self._lock:
            first, _ = self._signal.get(stream, (signal, signal))
            self._signal[stream] = first, signal

    def report(self) -> DoseReport:
        """Return the ledger as it is now; {} before the first exposure."""
        with self._lock:
            channels = {name: self._of(name) for name, n in self._exposures.items() if n}
            dyes = self._dyes
        if not channels:
            return DoseReport()
        return DoseReport(
            spent=_sum([(dose, 1) for dose in channels.values()]),
            one_after_the_other=_sum(
                [(dose, dyes[name]) for name, dose in channels.items() if name not in self._audits]
            ),
            channels=channels,
        )

    def _of(self, name: str) -> Dose:
        ms, power_mw = self._exposure_ms[name], self._power_mw[name]
        dose = Dose(
            exposures=self._exposures[name],
            exposure_s=round(ms / 1e3, 4),
            dyes=self._dyes[name],
        )
        if untimed := self._untimed[name]:
            dose["untimed"] = untimed
        elif power_mw is not None:  # light of unknown time is no light of none
            dose["energy_mj"] = round(ms / 1e3 * power_mw, 4)
        levels = [both for stream, both in self._signal.items() if stream.channel == name]
        if levels and (first := sum(level for level, _ in levels)) > 0:
            dose["signal_left"] = round(sum(level for _, level in levels) / first, 4)
        return dose


def _sum(doses: list[tuple[Dose, int]]) -> Dose:
    """Add up doses, each as often as its number; energy only where all of it is known."""
    total = Dose(
        exposures=sum(dose["exposures"] * n for dose, n in doses),
        exposure_s=round(sum(dose["exposure_s"] * n for dose, n in doses), 4),
    )
    if untimed := sum(dose.get("untimed", 0) * n for dose, n in doses):
        total["untimed"] = untimed
    if all("energy_mj" in dose for dose, _ in doses):
        total["energy_mj"] = round(sum(dose["energy_mj"] * n for dose, n in doses), 4)
    return total


def said(report: Mapping[str, Any]) -> str:
    """Return the ledger in one line, "" where nothing was exposed."""
    if not (spent := report.get("spent")):
        return ""
    line = f"{spent['exposures']} exposures"
    line += f", {_light(spent)} of light" if spent["exposure_s"] else ""
    line += f", {spent['energy_mj']:.3g} mJ" if "energy_mj" in spent else ""
    other = report["one_after_the_other"]
    if other["exposures"] > spent["exposures"]:
        line += f"; dye after dye {other['exposures']} exposures"
        line += f", {_light(other)}" if other["exposure_s"] else ""
    left = [
        f"{name or 'default'} {_left(dose['signal_left'])}"
        for name, dose in report["channels"].items()
        if "signal_left" in dose
    ]
    return line + (f"; signal left: {', '.join(left)}" if left else "")


def _light(dose: Mapping[str, Any]) -> str:
    """Say how long exposures were; of some it may be unknown."""
    return f"{'more than ' if dose.get('untimed') else ''}{dose['exposure_s']:.3g} s"


def _left(share: float) -> str:
    """Say how much of the signal is left; what moved or came into focus makes it more than all."""
    percent = round(100 * share)
    if percent == 100:
        return "all"
    return f"{percent}%" if percent < 100 else f"all ({percent - 100}% brighter than at first)"
