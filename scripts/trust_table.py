#!/usr/bin/env python
"""How often each word is right on composites of real images; the tables of docs/reliability.md.

    python scripts/trust_table.py imcsr-mt-er-lyso-light ../shared/data

In order are three known structures in different mixtures. Intruders take a structure's place, or
come beside them. The images are not part of the repository, and nothing is fitted to them. Four
scores of "unlike" are compared by their areas under the curve. The text between the markers of
docs/reliability.md is replaced.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from livesr.base.compute import ComputeConfig
from livesr.base.frames import MulticolorFrame, Normalisation, SRFrame, Stream, Window
from livesr.base.quality import Quality
from livesr.evaluation.limits import distance
from livesr.live.arrays import HOST
from livesr.live.compose import Composer, noise_threshold
from livesr.live.inference.engine import load_engine
from livesr.live.inference.runner import open_session
from livesr.live.normalise import background_and_scale
from livesr.live.out_of_distribution import features as frame_features
from livesr.live.unlike import Unlike, described
from livesr.optics.similarity import pcc

Picture = NDArray[np.float32]
DOCS = Path(__file__).parents[1] / "docs" / "reliability.md"
_PX = 224
_GOOD_PCC, _POOR_PCC = 0.7, 0.5
FILES = {
    "Microtubules": ("organelles/microtubules_1004.tif", "more/organelles/mt_tmpE_1004.tif"),
    "ER": ("organelles/er_224x1024.tif",),
    "Lysosomes": ("organelles/lysosomes_1024.tif", "more/organelles/lamp1_crop_512.png"),
    "ER of an N-SIM": ("more/er_nsim/*.tif",),
    "mitochondria": (
        "more/organelles/tomm20_crop_360.png",
        "more/mixtures/mt_mito_samecell_1000_rgb.png",
    ),
    "actin": ("organelles/actin_512x1024.tif", "more/organelles/actin2_512x1024.tif"),
    "coated pits": ("organelles/ccps_1004.tif", "more/organelles/ccp_exE_1004.tif"),
}
INTRUDERS = ("mitochondria", "actin", "coated pits")
SCORES = (
    "network's features",
    "the frame itself",
    "features, Mahalanobis",
    "features, 5th nearest",
)


class Looked(NamedTuple):
    """One composite: what it is, what was said, the truth, and its scores of being unlike."""

    case: str
    frame: MulticolorFrame
    pcc: NDArray[np.float64]
    scores: tuple[float, ...]
    residual: float


class Eye:
    """One engine in front of composites."""

    def __init__(self, name: str, reference: NDArray[np.float64] | None, threads: int) -> None:
        self.engine = load_engine(name)
        manifest = self.engine.manifest
        known = manifest.limits.familiarity
        assert known is not None
        assert manifest.limits.training_distribution is not None
        self.names, self._frame_known = manifest.channel_names, manifest.limits
        self._unlike, self._known = Unlike(known, len(self.names)), known
        self._density = _Density(reference) if reference is not None else None
        self.session = open_session(
            self.engine, (_PX, _PX), ComputeConfig(threads=threads, tile="off")
        )

    def look(self, case: str, parts: Mapping[str, Picture]) -> Looked:
        """Separate a sum of pictures, the same still frame three times."""
        image = np.asarray(sum(parts.values()), np.float32) * np.float32(1000)
        frame = SRFrame(image, Stream(), 0, 0, 0, Normalisation(*background_and_scale(image)))
        background, scale = frame.normalisation
        self.session.input[...] = (image - np.float32(background)) / np.float32(scale)
        output = self.session.infer()
        composer = Composer(self.engine.manifest, (_PX, _PX))
        told = self.session.features
        assert told is not None
        made = composer.arithmetic(HOST).compose(output, image, frame.normalisation, features=told)
        found = composer.frame(made, Window(frame, frame, frame))
        truth = [parts.get(name) for name in self.names]
        scores = np.array(
            [
                np.nan if t is None else pcc(c.astype(np.float32), t)
                for c, t in zip(found.channels, truth, strict=True)
            ]
        )
        return Looked(case, found, scores, self._scores(frame, told), found.residual)

    def _scores(self, frame: SRFrame, told: NDArray[np.float32]) -> tuple[float, ...]:
        of_frame = frame_features(frame, noise_threshold(frame.image))
        distribution = self._frame_known.training_distribution
        assert distribution is not None
        own = self._unlike.score(told)
        rest: tuple[float, ...] = ()
        if self._density:
            rest = self._density.scores(described(told, len(self.names), self._known.last))
        return (own or 0.0, distance(distribution, of_frame), *rest)


class _Density:
    """Where frames of training lie, in the first principal axes of the network's features."""

    AXES, NEIGHBOUR = 24, 5

    def __init__(self, known: NDArray[np.float64]) -> None:
        self._mean, self._scale = known.mean(0), known.std(0) + 1e-6
        whole = (known - self._mean) / self._scale
        _, spread, axes = np.linalg.svd(whole, full_matrices=False)
        self._axes = axes[: self.AXES].T / (spread[: self.AXES] / np.sqrt(len(known)))
        self._points = whole @ self._axes

    def scores(self, told: NDArray[np.float64]) -> tuple[float, float]:
        """Return Mahalanobis distance and distance to the fifth nearest frame of training."""
        point = (told - self._mean) / self._scale @ self._axes
        near = np.sort(np.linalg.norm(self._points - point, axis=1))
        return float(np.linalg.norm(point)), float(near[self.NEIGHBOUR - 1])


def composites(data: Path, n: int, seed: int) -> Iterator[tuple[str, dict[str, Picture]]]:
    """Yield `n` composites of every case: its name, and its pictures by their structure."""
    tiles = {name: [_tiles(data, one) for one in files] for name, files in FILES.items()}
    rng, names = np.random.default_rng(seed), ("Microtubules", "ER", "Lysosomes")

    def draw(name: str, i: int) -> Picture:
        source = tiles[name][i % len(tiles[name])]
        return source[rng.integers(len(source))]

    for i in range(n):
        known = {name: draw(name, i) for name in names}
        yield "1:1:1", known
        for name in names:
            weaker = known[name] * np.float32(0.25)
            yield f"{name} at a quarter", {**known, name: weaker}
            yield f"{name} at half", {**known, name: known[name] * np.float32(0.5)}
            yield f"{name} missing", {k: v for k, v in known.items() if k != name}
        yield "ER of an N-SIM", {**known, "ER": draw("ER of an N-SIM", i)}
        for intruder in INTRUDERS:
            other = draw(intruder, i)
            yield f"{intruder} beside them", {**known, intruder: other}
            for name in names:
                rest = {k: v for k, v in known.items() if k != name}
                yield f"{intruder} for {name}", {**rest, intruder: other}
            yield f"{intruder} alone", {intruder: other}


def _tiles(data: Path, pattern: str) -> list[Picture]:
    found = []
    for path in sorted(data.glob(pattern)):
        image = tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Pillow.open(path))
        image = np.squeeze(image)
        image = np.asarray(image[..., 0] if image.shape[-1] == 3 else image, np.float32)
        if image.shape[0] < _PX:
            image = np.pad(image, ((0, _PX - image.shape[0]), (0, 0)), mode="reflect")
        for y in range(0, image.shape[0] - _PX + 1, _PX):
            for x in range(0, image.shape[1] - _PX + 1, _PX):
                low, high = np.percentile(tile := image[y : y + _PX, x : x + _PX], (1, 99.8))
                if high > low:
                    found.append(np.asarray((tile - low) / (high - low), np.float32))
    return found


def area(should: Sequence[float], should_not: Sequence[float]) -> float:
    """Return the area under the curve."""
    return float((np.array(should)[:, None] > np.array(should_not)).mean())


def _share(rows: Sequence[Looked], word: str) -> float:
    return float(np.mean([any(word in w for w in row.frame.warnings) for row in rows]))


def unlike_table(rows: Sequence[Looked]) -> list[str]:
    """Markdown: areas of the scores against mixtures in order, and what is said."""
    order = [row for row in rows if row.case == "1:1:1" or row.case.endswith("at half")]
    count = len(order[0].scores)
    heads = [*SCORES[:count], "residual"]
    lines = [
        f"| in front of the camera | frames | {' | '.join(heads)} | said to be unlike |",
        "|---" * (len(heads) + 3) + "|",
        f"| known structures, 1:1:1 or one at half | {len(order)} |{' |' * len(heads)}"
        f" {_share(order, 'unlike'):.0%} |",
    ]
    cases = list(dict.fromkeys(row.case for row in rows))
    groups = {case: [case] for case in cases if " for " in case or "beside" in case}
    groups |= {case: [case] for case in cases if "alone" in case or "N-SIM" in case}
    groups |= {
        f"**{one}, in the place of a structure**": [c for c in cases if c.startswith(f"{one} for")]
        for one in INTRUDERS
    }
    for title, members in groups.items():
        chosen = [row for row in rows if row.case in members]
        areas = [
            area([r.scores[i] for r in chosen], [r.scores[i] for r in order]) for i in range(count)
        ]
        areas.append(area([r.residual for r in chosen], [r.residual for r in order]))
        cells = " | ".join(f"{value:.2f}" for value in areas)
        lines.append(f"| {title} | {len(chosen)} | {cells} | {_share(chosen, 'unlike'):.0%} |")
    return lines


def weak_table(rows: Sequence[Looked], names: Sequence[str]) -> list[str]:
    """Markdown: what is said of weak and absent structures."""
    lines = [
        (
            "| structure | at 1:1:1, weak | at half, weak | at a quarter, weak or absent | missing,"
            " weak or absent | missing, absent | at a quarter, absent | truth in the interval |"
        ),
        "|---" * 8 + "|",
    ]
    for c, name in enumerate(names):
        cases = {
            word: [row for row in rows if row.case == (f"{name} {word}" if word else "1:1:1")]
            for word in ("", "at half", "at a quarter", "missing")
        }
        weak = {word: _share(of, f"{name} is ") for word, of in cases.items()}
        absent = {word: _share(of, f"{name} is absent") for word, of in cases.items()}
        true = {"": 1.0, "at half": 0.5, "at a quarter": 0.25}
        inside = [
            row.frame.mixing[c].low <= ratio <= row.frame.mixing[c].high
            for word, ratio in true.items()
            for row in cases[word]
        ]
        cells = [weak[""], weak["at half"], weak["at a quarter"], weak["missing"]]
        cells += [absent["missing"], absent["at a quarter"], float(np.mean(inside))]
        lines.append(f"| {name} | {' | '.join(f'{v:.0%}' for v in cells)} |")
    return lines


def word_table(rows: Sequence[Looked], names: Sequence[str]) -> list[str]:
    """Markdown: each word against what the channels are, all frames together."""
    told: dict[str, list[Any]] = {}
    for row in rows:
        for c, name in enumerate(names):
            told.setdefault(str(row.frame[name].quality), []).append(row.pcc[c])
    kinds = (
        (f"PCC from {_GOOD_PCC}", lambda v: v >= _GOOD_PCC),
        (f"{_POOR_PCC} to {_GOOD_PCC}", lambda v: (v >= _POOR_PCC) & (v < _GOOD_PCC)),
        (f"below {_POOR_PCC}", lambda v: v < _POOR_PCC),
        ("structure not there", np.isnan),
    )
    lines = [
        f"| said of a channel | channels | {' | '.join(name for name, _ in kinds)} |",
        "|---" * (2 + len(kinds)) + "|",
    ]
    for word in Quality:
        values = np.array(told.get(str(word), []))
        cells = [f"{kind(values).mean():.0%}" if len(values) else "" for _, kind in kinds]
        lines.append(f"| *{word}* | {len(values)} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Read the arguments, look, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("-n", type=int, default=16, help="composites of every case")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--known", type=Path, help="features of known frames, to compare densities")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="print, change no page")
    given = parser.parse_args()
    reference = np.load(given.known) if given.known else None
    eye = Eye(given.engine, reference, given.threads)
    rows = [eye.look(case, parts) for case, parts in composites(given.data, given.n, given.seed)]
    manifest = eye.engine.manifest
    text = "\n".join(
        [
            f"Engine {manifest.id} {manifest.version}, {len(rows)} composites of {_PX} x {_PX}"
            f" pixels. Written by `python scripts/trust_table.py {manifest.id} ../shared/data`.",
            "",
            *unlike_table(rows),
            "",
            "Areas under the curve against the first row: 0.5 tells nothing apart, 1 everything.",
            "",
            *weak_table(rows, eye.names),
            "",
            *word_table(rows, eye.names),
        ]
    )
    print(text)
    if not given.dry_run:
        page = DOCS.read_text(encoding="utf-8")
        page = re.sub(
            r"(<!-- trust_table.py begins -->\n).*(\n<!-- trust_table.py ends -->)",
            lambda found: f"{found[1]}\n{text}\n{found[2]}",
            page,
            flags=re.DOTALL,
        )
        DOCS.write_text(page, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
