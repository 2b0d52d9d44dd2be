#!/usr/bin/env python
"""The development benchmark: separation engines on composites of real SIM images, as tables, and
into their model cards.

    python scripts/real_composites.py ../shared/data engines/imcsr-mt-er-lyso-light
    python scripts/real_composites.py ../shared/data engines/imcsr-mt-er-lyso-light --fast --dry-run
    python scripts/real_composites.py ../shared/data engines/imcsr-mt-er-lyso-light --fast --dry-run
        --pairs runs/light/pairs-validation

Sets of images: the fields that the simulation was first compared with, other fields of the same
kind, ER of another microscope (a Nikon N-SIM, dense and soft), noisy images as they were before
their authors denoised them, with the denoised ones as truth, and two colours of one cell (lattice
light-sheet SIM). Each engine is measured on those that hold all of its structures. What is composed
and measured is `livesr.evaluation.composites`; `--fast` leaves out all but the PCC and takes at
most eight fields of a set. `--pairs` adds a set of held-out simulated images, composed alike: what
is lost there is lost to the mixture, and what real images lose beyond it to their being unlike. The
images are not part of the repository and no engine learns from them. `--picture FOLDER` draws what
was found; the images' licences keep such pictures out of the repository.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from real_images import images

from livesr.base.compute import Augmentation
from livesr.evaluation.composites import (
    StructureImages,
    composites_table,
    evaluate_composites,
    summary,
)
from livesr.evaluation.pictures import PictureRow, montage
from livesr.live.inference.engine import load_engine
from livesr.training.sources import CachedPairs

HEADING = "## On composites of real images"
FAST_FIELDS, FIELDS, SIMULATED_FIELDS = 8, 18, 24
SIMULATED = "simulated cells"
_BRIGHT, _COVER = 0.15, 0.01  # simulated images below hold too little of their structure


class Files(NamedTuple):
    """Of one structure in one set; patterns below the folder of the data.

    What follows a # is the colour of the pictures: 0 is red.
    """

    clean: tuple[str, ...]
    noisy: tuple[str, ...] = ()


_MT, _MT_OTHER = "organelles/microtubules_1004.tif", "more/organelles/mt_tmpE_1004.tif"
_ER, _ER_NSIM = "organelles/er_224x1024.tif", "more/er_nsim/*.tif"
_LYSO, _LYSO_OTHER = "organelles/lysosomes_1024.tif", "more/organelles/lamp1_crop_512.png"
_MITO = "more/organelles/tomm20_crop_360.png"
_TWO_COLOURS = "more/mixtures/mt_mito_samecell_1000_rgb.png"
_CCP, _CCP_OTHER = "organelles/ccps_1004.tif", "more/organelles/ccp_exE_1004.tif"

SETS: dict[str, dict[str, Files]] = {
    "known fields": {
        "Microtubules": Files((_MT,)),
        "ER": Files((_ER,)),
        "Lysosomes": Files((_LYSO,)),
        "CCPs": Files((_CCP,)),
        "Mitochondria": Files((_MITO,)),
    },
    "other fields": {
        "Microtubules": Files((_MT_OTHER,)),
        "ER": Files((_ER,)),
        "Lysosomes": Files((_LYSO_OTHER,)),
        "CCPs": Files((_CCP_OTHER,)),
        "Mitochondria": Files((_MITO,)),
    },
    "ER of an N-SIM": {
        "Microtubules": Files((_MT, _MT_OTHER)),
        "ER": Files((_ER_NSIM,)),
        "Lysosomes": Files((_LYSO, _LYSO_OTHER)),
        "CCPs": Files((_CCP, _CCP_OTHER)),
    },
    "noisy": {
        "Microtubules": Files(
            (_MT, _MT_OTHER),
            ("organelles/microtubules_noisy_1004.tif", "more/organelles/mt_tmpE_noisy_1004.tif"),
        ),
        "ER": Files((_ER,)),
        "Lysosomes": Files((_LYSO,)),
        "CCPs": Files((_CCP_OTHER,), ("more/organelles/ccp_exE_noisy_1004.tif",)),
        "Mitochondria": Files((_MITO,)),
    },
    "two colours of one cell": {
        "Microtubules": Files((f"{_TWO_COLOURS}#1",)),
        "Mitochondria": Files((f"{_TWO_COLOURS}#0",)),
    },
}


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("engines", type=Path, nargs="+", help="engine folders")
    parser.add_argument("--fast", action="store_true", help="PCC alone, fewer fields: to decide by")
    parser.add_argument("--pairs", type=Path, help="folder of simulated pairs: one set more")
    parser.add_argument("--picture", type=Path, help="folder for pictures")
    parser.add_argument("--dry-run", action="store_true", help="print, change no card")
    parser.add_argument("--ensemble", choices=("half-turn", "flips"), help="mean of several views")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if (given.fast or given.ensemble or given.pairs) and not given.dry_run:
        parser.error("a card speaks of all fields of real images and of single views; --dry-run")
    for folder in given.engines:
        found = measure(
            folder,
            given.data,
            fast=given.fast,
            threads=given.threads,
            pictures=given.picture,
            ensemble=given.ensemble,
        )
        if given.pairs:
            found[SIMULATED] = evaluate_composites(
                folder,
                simulated(given.pairs),
                n=SIMULATED_FIELDS,
                measures="pcc",
                threads=given.threads,
                ensemble=given.ensemble,
            )
        print(f"{folder.name}\n\n{tables(found, details=not given.fast)}")
        if not given.dry_run:
            text = json.dumps(found, indent=1) + "\n"
            (folder / "real-composites.json").write_text(text, encoding="utf-8", newline="\n")
            _into_card(folder / "README.md", tables(found))


def measure(
    folder: Path,
    data: Path,
    *,
    fast: bool,
    threads: int = 0,
    pictures: Path | None = None,
    ensemble: Augmentation | None = None,
) -> dict[str, Any]:
    """Return what `evaluate_composites` found on every set of images."""
    engine, found = load_engine(folder), {}
    for label, files in SETS.items():
        if not files.keys() >= set(engine.manifest.channel_names):
            continue
        shown = {name: read(data, files[name]) for name in engine.manifest.channel_names}
        rows: list[PictureRow] = []
        found[label] = evaluate_composites(
            engine,
            shown,
            n=FAST_FIELDS if fast else FIELDS,
            measures="pcc" if fast else "equal",
            threads=threads,
            ensemble=ensemble,
            show=rows.append if pictures else None,
        )
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            montage(rows[:6], 256).save(pictures / f"{engine.manifest.id} {label}.png")
    return found


def read(data: Path, files: Files) -> StructureImages:
    """Return the images of one structure in one set."""
    clean, noisy = (list(images(data, patterns).values()) for patterns in files)
    return StructureImages(clean, noisy or None)


def simulated(folder: Path) -> dict[str, StructureImages]:
    """Return the true images of simulated pairs, of each structure those that hold it."""
    pairs = CachedPairs(folder)
    found = {}
    for channel, name in enumerate(pairs.meta["channels"]):
        several = [np.asarray(image, np.float32) for image in pairs.targets[:, channel]]
        bright = [float(np.percentile(image, 99.8)) for image in several]
        found[name] = StructureImages(
            [
                image
                for image, level in zip(several, bright, strict=True)
                if level > _BRIGHT and (image > 0.3 * level).mean() > _COVER
            ]
        )
    return found


def tables(found: dict[str, Any], *, details: bool = True) -> str:
    """Return the Markdown of one engine.

    The means to decide by, then every set if there are `details`.
    """
    columns = ("equal", "half", "quarter", "alone", "mean", "worst", "invented")
    sums = {label: summary(result) for label, result in found.items()}
    real = [one for label, one in sums.items() if label != SIMULATED]
    sums["mean of all sets"] = {k: float(np.mean([one[k] for one in real])) for k in columns}
    heads = (
        "1:1:1",
        "at half",
        "at a quarter",
        "alone",
        "all mixtures",
        "worst PCC",
        "most light invented",
    )
    lines = [f"| set | fields | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for label, means in sums.items():
        fields = found[label]["fields"] if label in found else ""
        lines.append(f"| {label} | {fields} | {' | '.join(f'{means[k]:.3f}' for k in columns)} |")
    text = "\n".join(lines) + "\n\n" + _by_structure(found)
    if details:
        text += "".join(
            f"\n### {label.capitalize()}\n\n{composites_table(result)}"
            for label, result in found.items()
        )
    return text


def _by_structure(found: dict[str, Any]) -> str:
    """Return a short table: PCC of each structure, all alike, and with itself weaker.

    The composite's own beside the first.
    """
    lines = [
        (
            "| set | structure | 1:1:1 (input) | at half | at a quarter | alone | invented when"
            " missing |"
        ),
        "|---" * 7 + "|",
    ]
    for label, result in found.items():
        mixed = result["mixtures"]
        equal = next(iter(mixed.values()))
        for name, at_par in equal.items():
            weaker = [
                mixed[f"{name} {word}"][name]["pcc"]
                for word in ("at half", "at a quarter", "alone")
            ]
            missing = mixed[f"{name} missing"][name]["invented"]
            cells = " | ".join(f"{value:.3f}" for value in weaker)
            lines.append(
                f"| {label} | {name} | {at_par['pcc']:.3f} ({at_par['pcc_input']:.2f}) | {cells} |"
                f" {missing:.1%} |"
            )
    return "\n".join(lines) + "\n"


def _into_card(path: Path, rows: str) -> None:
    card = path.read_text(encoding="utf-8")
    section = f"""{HEADING}

Real SIM images of single structures, of different cells, scaled to equal percentiles and added; the same still frame three
times (`scripts/real_composites.py`, which says what the sets are). The images are not part of this repository, and no engine
learned from them. *Input* is the composite itself, taken as the prediction. Real images hold light from far out of focus, of
which nobody can tell whose it is: *less background* compares with the true image less its smooth background, and *best without
haze* is what that image itself scores against the true one.

{rows}
"""
    card = re.sub(rf"{HEADING}\n.*?(?=^## )", "", card, flags=re.DOTALL | re.MULTILINE)
    path.write_text(
        card.replace("## Limits\n", f"{section}## Limits\n", 1), encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
