"""What frames must have in common for numbers that were measured on some to hold for others.

Owns the record, which stands in the files beside a rig, and the sentence about what differs. What a
run, or a recording, is taken with is `livesr.live.taken_with`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from livesr.base.config import Model, Positive

SILENT = (
    "It is of an earlier version and does not say how its frames were reconstructed: measured"
    " again, it is held against that as well."
)
_ALIKE = 1e-3  # relative: a rig's calibration is rarely better


class MadeWith(Model):
    """What decides the numbers of a prediction, beside the light."""

    engines: Annotated[list[str], Field(max_length=8)]
    """Id, version and the first digits of the hash of every one that a frame goes through."""
    pixel_size_nm: Positive | None = None
    """Of the predictions; None where nobody knows."""
    settings: dict[str, str] | None = None
    """Of the reconstruction, by their place in rig.yaml; None in files of earlier versions. What is
    in one of two alone is of another version, and not compared.
    """

    def differs(self, other: MadeWith) -> str:
        """Return the first thing that differs, of this one and of the other; "" if they agree."""
        if self.engines != other.engines:
            ours, theirs = (" and ".join(of.engines) or "no engine" for of in (self, other))
            return f"{ours}, not {theirs}"
        theirs_of = other.settings or {}
        for key, value in (self.settings or {}).items():
            if theirs_of.get(key, value) != value:
                return f"{key} {value}, not {theirs_of[key]}"
        ours_nm, theirs_nm = self.pixel_size_nm, other.pixel_size_nm
        if ours_nm and theirs_nm and not math.isclose(ours_nm, theirs_nm, rel_tol=_ALIKE):
            return f"pixels of {ours_nm:.4g} nm, not {theirs_nm:.4g} nm"
        return ""


class TakenWith(MadeWith):
    """The same, and what decides the light."""

    pixel_size_nm: Positive
    """Of the predictions."""
    resolution_nm: Positive
    """What the objective resolves: wavelength / (2 NA)."""
    mixed: Annotated[list[Positive], Field(max_length=64, default_factory=list)]
    """Share of each channel in the sum of channels that is predicted; none where one is exposed."""

    def differs(self, other: MadeWith) -> str:
        """Return the first thing that differs, of this one and of the other; "" if they agree."""
        if (made := super().differs(other)) or not isinstance(other, TakenWith):
            return made
        if not math.isclose(self.resolution_nm, other.resolution_nm, rel_tol=_ALIKE):
            return (
                f"optics that resolve {self.resolution_nm:.4g} nm (wavelength / 2 NA), not"
                f" {other.resolution_nm:.4g} nm"
            )
        if len(self.mixed) != len(other.mixed) or not all(
            math.isclose(a, b, rel_tol=_ALIKE) for a, b in zip(self.mixed, other.mixed, strict=True)
        ):
            return f"{_sum(self.mixed)}, not {_sum(other.mixed)}"
        return ""


def shares(weights: Sequence[float]) -> list[float]:
    """Return the share of each channel in a sum; what counts is how they go together."""
    return [float(f"{weight / sum(weights):.6g}") for weight in weights]


def _sum(mixed: Sequence[float]) -> str:
    return f"a sum of {' + '.join(f'{share:.3g}' for share in mixed)}" if mixed else "no sum"
