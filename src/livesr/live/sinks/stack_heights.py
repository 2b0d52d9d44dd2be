"""How high the first plane of every stack is, also of those that leave it out.

Owns what stages said of planes. Writes nothing.
"""

from __future__ import annotations

from livesr.base.frames import StagePosition, Stream


class StackHeights:
    """Takes the height of every plane as it came first, one thread."""

    def __init__(self) -> None:
        self._z_um: dict[tuple[int, str], dict[int, float]] = {}  # by plane

    def note(self, stream: Stream, z_um: float | None) -> None:
        """Take where the focus drive was for a plane, in um; what is known already stays."""
        if z_um is not None:
            self._z_um.setdefault((stream.position, stream.channel), {}).setdefault(stream.z, z_um)

    def noted(self, stream: Stream, stage: StagePosition) -> StagePosition:
        """Take where the stages were for a plane; return where they are for plane 0, if known."""
        self.note(stream, stage.z_um)
        return stage._replace(z_um=self.first_plane_um(stream.position, stream.channel))

    def first_plane_um(self, position: int, channel: str) -> float | None:
        """Return where plane 0 of a stack is, None where nobody said.

        Of a channel that leaves plane 0 out it is where that would have been: as far from a plane
        that it takes as in the stack of another channel of the position.
        """
        own = self._z_um.get((position, channel), {})
        if 0 in own:
            return own[0]
        for (where, _), other in self._z_um.items():
            both = sorted(own.keys() & other.keys()) if where == position and 0 in other else []
            if both:
                return own[both[0]] - other[both[0]] + other[0]
        return None
