#!/usr/bin/env python
"""What the RSP of a reconstruction tells; the table of docs/reliability.md.

    python scripts/error_map_table.py

Simulated SIM frames and STORM films, in order and not, are reconstructed and compared with the
widefield mean of their exposures. The text between the markers of docs/reliability.md is replaced.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import RawStack, Stream
from livesr.base.geometry import Geometry
from livesr.evaluation.limits import SIZE
from livesr.modalities.sim.simulation.sequence import SIMSequence
from livesr.modalities.storm.config import STORMConfig
from livesr.modalities.storm.modality import STORM
from livesr.optics.error_map import error_map
from livesr.optics.similarity import pcc
from livesr.simulation.blinking_rig import BlinkingBank
from livesr.simulation.domain import CALIBRATED, Domain
from livesr.simulation.sequence import EVALUATION

Image = NDArray[np.floating[Any]]
DOCS = Path(__file__).parents[1] / "docs" / "reliability.md"
STRUCTURES = ("microtubules", "er", "lysosomes")
_SEEDS_FROM, _LOWEST = 30_000, 0.85
_EDGE = 1 / 16  # of each side: there a SIM reconstruction fades
_CHIP_PX, _GROUPS, _FRAMES, _LIT = 96, 8, 50, 30
_TRUTH_NM = 30.0


class Compared(NamedTuple):
    """One picture: its RSP, and its PCC with the truth; NaN where there is none."""

    rsp: float
    pcc: float


def sim_domains() -> dict[str, Domain]:
    """Return what SIM frames are drawn from."""
    calibrated = CALIBRATED.model_copy(update={"structures": STRUCTURES})
    wide = Domain(structures=STRUCTURES)

    def but(**changes: Any) -> Domain:
        return wide.model_copy(update=changes)

    return {
        "a rig in good order": calibrated,
        "the whole range of training": wide,
        "2 to 6 photo-electrons": but(photons=(2.0, 6.0)),
        "haze 4 to 8 times": but(haze=(4.0, 8.0)),
        "phases off by up to 60 degrees": but(phase_offset_error_deg=60.0),
    }


def sim_frame(name: str, domain: Domain, number: int) -> Compared:
    """Reconstruct a simulated frame and compare it."""
    entropy = (EVALUATION, _SEEDS_FROM + number, zlib.crc32(name.encode()))
    sequence = SIMSequence(entropy, 1, SIZE, domain)
    raw = sequence.raw(None)[0]
    picture = sequence.reconstructor.reconstruct(raw)
    truth = np.sum(list(sequence.truth(0).values()), axis=0)
    edge = int(raw.shape[-1] * _EDGE)
    wide, fine = (slice(n, -n) for n in (edge, edge * picture.shape[0] // raw.shape[-1]))
    found = error_map(raw.mean(0)[wide, wide], picture[fine, fine], centred=True)
    return Compared(found.rsp if found else np.nan, pcc(picture[fine, fine], truth[fine, fine]))


def storm_films() -> dict[str, tuple[dict[str, Any], float]]:
    """Return what is said of STORM in rig.yaml, and how many emitters are lit at once."""
    return {
        "STORM in order": ({}, _LIT),
        "a quarter of the emitters at once": ({}, _LIT / 4),
        "15 times as many emitters at once": ({}, 15 * _LIT),
        "spots taken for 1.7 times as wide": ({"psf_sigma_nm": 160.0}, _LIT),
        "a threshold of 20 instead of 5": ({"threshold": 20.0}, _LIT),
    }


def storm_film(settings: dict[str, Any], lit: float, seed: int) -> Compared:
    """Localise a film and compare the image that all of its groups give."""
    rig = load_rig("virtual_storm")
    bank = BlinkingBank(rig, _CHIP_PX, _GROUPS * _FRAMES, lit=lit, seed=seed)
    asked = {"frames": _FRAMES, "drift_correction": False, **settings}
    picture = _localised(rig, asked, bank.frames)
    pixel_nm = rig.optics.pixel_size_nm
    places = np.concatenate([bank.truth(k)[:, :2] for k in range(bank.shape[0])])
    field_um = _CHIP_PX * pixel_nm / 1e3
    truth, _, _ = np.histogram2d(*places.T, bins=picture.shape, range=[[0, field_um]] * 2)
    blur_px = _TRUTH_NM / (1e3 * field_um / picture.shape[0])
    found = error_map(bank.frames.mean(0), picture)
    score = pcc(gaussian_filter(picture, blur_px), gaussian_filter(truth, blur_px))
    return Compared(found.rsp if found else np.nan, score)


def _localised(rig: RigConfig, asked: dict[str, Any], frames: NDArray[Any]) -> Image:
    section = STORMConfig.of(rig).model_copy(update=asked)
    camera = Geometry((_CHIP_PX, _CHIP_PX), "uint16", rig.optics.pixel_size_nm / 1e3)
    running = STORM().build(rig.with_section(section), "647", camera).running()
    groups = frames.reshape(_GROUPS, _FRAMES, _CHIP_PX, _CHIP_PX)
    stacks = [RawStack(tuple(group), Stream(), t, 0, 0) for t, group in enumerate(groups)]
    return [running.add(stack) for stack in stacks][-1]


def measured(n: int) -> Iterator[tuple[str, list[Compared]]]:
    """Yield what is in front of the camera, and its pictures."""
    for name, domain in sim_domains().items():
        yield name, [sim_frame(name, domain, i) for i in range(4 * n)]
    for name, (settings, lit) in storm_films().items():
        yield name, [storm_film(settings, lit, seed) for seed in range(n)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "-n", type=int, default=4, help="films of a kind; four times as many frames"
    )
    parser.add_argument("--dry-run", action="store_true", help="print, change no page")
    given = parser.parse_args()
    lines = [
        "Written by `python scripts/error_map_table.py`.",
        "",
        f"| in front of the camera | pictures | RSP, median | least | below {_LOWEST} |"
        " PCC with the truth, median |",
        "|---" * 6 + "|",
    ]
    for name, pictures in measured(given.n):
        rsp, score = (np.array(values) for values in zip(*pictures, strict=True))
        lines.append(
            f"| {name} | {len(pictures)} | {np.median(rsp):.3f} | {rsp.min():.3f} |"
            f" {(rsp < _LOWEST).mean():.0%} | {np.nanmedian(score):.2f} |"
        )
    text = "\n".join(lines)
    print(text)
    if not given.dry_run:
        begin, end = "<!-- error_map_table.py begins -->", "<!-- error_map_table.py ends -->"
        page = DOCS.read_text(encoding="utf-8")
        page = re.sub(
            f"{begin}.*{end}", lambda _: f"{begin}\n\n{text}\n\n{end}", page, flags=re.DOTALL
        )
        DOCS.write_text(page, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
