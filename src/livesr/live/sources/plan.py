"""Describes a SIM time lapse to pymmcore-plus: which raw frame every exposure is.

Owns the raw axis of a plan. Drives no hardware. `useq.MDASequence` knows the axes t, p, g, c and z only; `useq.v2` takes
any, and `MDAEvent.index` carries it to the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import useq.v2 as v2
from useq import Channel, MDAEvent

from livesr.live.sources.mda import RAW_AXIS


class SIMAxis(v2.SimpleValueAxis[int]):
    """The raw frames of one super-resolution frame, fastest axis.

    Attributes
    ----------
    pattern_property : (device, property) that selects the pattern of an exposure, for rigs on which software does
    """

    axis_key: str = RAW_AXIS
    pattern_property: tuple[str, str] | None = None

    def contribute_to_mda_event(self, value: int, index: Mapping[str, int]) -> MDAEvent.Kwargs:
        """Put the raw index into the event's metadata, and the pattern into its properties."""
        kwargs: MDAEvent.Kwargs = {"metadata": {"sim_raw": value}}
        if self.pattern_property is not None:
            # pymmcore-plus sequences property values only as text.
            kwargs["properties"] = [(*self.pattern_property, str(value))]
        return kwargs


def sim_sequence(
    n_t: int,
    channels: Sequence[str] = (),
    raw: int = 9,
    interval_s: float = 0.0,
    *,
    group: str = "Channel",
    pattern_property: tuple[str, str] | None = None,
) -> v2.MDASequence:
    """Return a time lapse with axes t, c and sim.

    Parameters
    ----------
    n_t
        Super-resolution frames per channel.
    channels, group
        Presets of the rig's channel group, and its name; no channel axis if empty.
    raw
        Exposures per super-resolution frame.
    interval_s
        Time between the starts of two super-resolution frames. At 0 pymmcore-plus merges the whole time lapse of one
        channel into a single triggered sequence: group frames by `event.index`, never by sequence.
    pattern_property
        (device, property) to set to the raw index before each exposure. Leave it out where the pattern display follows
        the camera's trigger by itself; give it where software selects the pattern. A sequenceable property is still
        triggered in hardware.

    Notes
    -----
    The sequence can be iterated again and again, which pymmcore-plus needs to merge events. For a `useq.v2` sequence it
    announces an empty plan in `sequenceStarted`: give this one to the plugin.
    """
    axes: list[v2.AxisIterable[object]] = [v2.TIntervalLoops(interval=interval_s, loops=n_t)]
    if channels:
        axes.append(v2.ChannelsPlan(values=[Channel(config=name, group=group) for name in channels]))
    axes.append(SIMAxis(values=list(range(raw)), pattern_property=pattern_property))
    return v2.MDASequence(axes=tuple(axes), axis_order=tuple(axis.axis_key for axis in axes))
