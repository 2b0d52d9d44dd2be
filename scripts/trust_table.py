#!/usr/bin/env python
"""How often each word is right, on simulation and on composites of real images.

The tables of docs/reliability.md:

    python scripts/trust_table.py imcsr-mt-er-lyso-light ../shared/data

In order are three known structures in different mixtures. Intruders take a structure's place, or
come beside them. Simulated sequences are none that training, `livesr limits` or
`scripts/warnings_roc.py` saw. The images are not part of the repository, and nothing is fitted to
them. The scores of "unlike" that the engine has are compared by their areas under the curve. The
text between the markers of docs/reliability.md is replaced.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from real_images import Picture, images

from livesr.base.compute import ComputeConfig
from livesr.base.frames import MulticolorFrame, Normalisation, SRFrame, Stream, Window
from livesr.base.quality import Judgement, Quality
from livesr.evaluation.limits import N_T, SIZE, Observer, Seen, distance, domain_of
from livesr.live.arrays import HOST
from livesr.live.compose import Composer, noise_threshold
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_session
from livesr.live.normalise import background_and_scale
from livesr.live.out_of_distribution import features as frame_features
from livesr.live.unknown_light import unknown_light
from livesr.modalities.sim.simulation.sequence import SIMSequence
from livesr.optics.similarity import pcc
from livesr.simulation.domain import Domain, calibrated_like
from livesr.simulation.sequence import EVALUATION

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
        "more/mixtures/mt_mito_samecell_1000_rgb.png#0",
    ),
    "actin": ("organelles/actin_512x1024.tif", "more/organelles/actin2_512x1024.tif"),
    "coated pits": ("organelles/ccps_1004.tif", "more/organelles/ccp_exE_1004.tif"),
}
INTRUDERS = ("mitochondria", "actin", "coated pits")
SIMULATED = {"mitochondria": "mitochondria", "actin": "actin", "coated pits": "ccps"}
_SEEDS_FROM = 30_000
_UNLIKE = ("unlike", "does not know")  # in what is said of the input, and of unknown light


class Looked(NamedTuple):
    """One composite: what it is, what was said, the truth, and its scores of being unlike."""

    case: str
    frame: MulticolorFrame
    pcc: NDArray[np.float64]
    scores: dict[str, float]
    residual: float


class Eye:
    """One engine in front of composites."""

    def __init__(self, name: str, threads: int) -> None:
        self.engine = load_engine(name)
        manifest = self.engine.manifest
        self.names, self._limits = manifest.channel_names, manifest.limits
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

    def _scores(self, frame: SRFrame, told: NDArray[np.float32] | None) -> dict[str, float]:
        distribution = self._limits.training_distribution
        of_frame = frame_features(frame, noise_threshold(frame.image))
        found = {"the frame itself": distance(distribution, of_frame)} if distribution else {}
        unknown = unknown_light(told)
        return found if unknown is None else found | {"light of no known structure": unknown.told}


class Case(NamedTuple):
    """Simulated sequences of one kind.

    Attributes
    ----------
    name : what is in front of the camera
    domain : that sequences are drawn from
    without : a structure that is not shown
    share : of the sequences that are looked at
    """

    name: str
    domain: Domain
    without: str = ""
    share: int = 1


def cases(domain: Domain) -> list[Case]:
    """Return what the words are tried on: what training had, and what it had nothing of."""
    calibrated = calibrated_like(domain)

    def but(base: Domain, **changes: Any) -> Domain:
        return base.model_copy(update=changes)

    found = [
        Case("a rig in good order", calibrated, share=4),
        Case("the whole range of training", domain, share=4),
        Case("structures up to 1:40", but(domain, brightness_ratio=40.0, absent=0.0), share=2),
        Case("2 to 6 photo-electrons", but(domain, photons=(2.0, 6.0))),
        Case("haze 4 to 8 times", but(domain, haze=(4.0, 8.0))),
        Case("phases off by up to 60 degrees", but(domain, phase_offset_error_deg=60.0)),
        *(Case(f"{name} missing", calibrated, name) for name in domain.structures),
    ]
    for title, intruder in SIMULATED.items():
        if intruder in domain.structures:
            continue
        beside = but(calibrated, structures=(*domain.structures, intruder))
        found.append(Case(f"{title} beside them", beside))
        for name in domain.structures:
            instead = tuple(intruder if one == name else one for one in domain.structures)
            found.append(Case(f"{title} for {name}", but(calibrated, structures=instead)))
    return found


def simulated(engine: Engine, n: int, threads: int) -> Iterator[tuple[str, Seen]]:
    """Look at `n` sequences of every case, and more of those in order."""
    names = domain_of(engine.manifest).structures
    compute = ComputeConfig(threads=threads, tile="off")
    with open_session(engine, (SIZE, SIZE), compute) as session:
        observer = Observer(engine, session)
        for case in cases(domain_of(engine.manifest)):
            for i in range(n * case.share):
                entropy = (EVALUATION, _SEEDS_FROM + i, zlib.crc32(case.name.encode()))
                sequence = SIMSequence(entropy, N_T, SIZE, case.domain)
                shown = [name for name in sequence.structures if name != case.without]
                yield case.name, observer.look(sequence, shown, channels=names)


def composites(data: Path, n: int, seed: int) -> Iterator[tuple[str, dict[str, Picture]]]:
    """Yield `n` composites of every case: its name, and its pictures by their structure."""
    tiles = {name: [tiles_of(data, one) for one in files] for name, files in FILES.items()}
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


def tiles_of(data: Path, pattern: str) -> list[Picture]:
    """Cut images into tiles, each scaled to its percentiles."""
    found = []
    for image in images(data, (pattern,)).values():
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


def _says(warnings: Sequence[str], words: Sequence[str]) -> bool:
    return any(word in said for said in warnings for word in words)


def _share(rows: Sequence[Looked], *words: str) -> float:
    return float(np.mean([_says(row.frame.warnings, words) for row in rows]))


def says_unlike(rows: Sequence[Looked]) -> float:
    """Return of how many frames it is said that they are unlike, or hold unknown light."""
    return _share(rows, *_UNLIKE)


def unlike_table(rows: Sequence[Looked]) -> list[str]:
    """Markdown: areas of the scores against mixtures in order, and what is said."""
    order = [row for row in rows if row.case == "1:1:1" or row.case.endswith("at half")]
    names = list(order[0].scores)
    heads = [*names, "residual"]
    lines = [
        f"| in front of the camera | frames | {' | '.join(heads)} | unlike or unknown, said |",
        "|---" * (len(heads) + 3) + "|",
        f"| known structures, 1:1:1 or one at half | {len(order)} |{' |' * len(heads)}"
        f" {says_unlike(order):.0%} |",
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
            area([r.scores[name] for r in chosen], [r.scores[name] for r in order])
            for name in names
        ]
        areas.append(area([r.residual for r in chosen], [r.residual for r in order]))
        cells = " | ".join(f"{value:.2f}" for value in areas)
        lines.append(f"| {title} | {len(chosen)} | {cells} | {says_unlike(chosen):.0%} |")
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


class Told(NamedTuple):
    """What was said of one channel of one frame, and what it is: NaN where nothing is there."""

    case: str
    label: str
    word: Quality
    pcc: float

    @property
    def lost(self) -> bool:
        """Whether nothing is to be seen in it of what it should show."""
        return not self.pcc >= _POOR_PCC


def told(case: str, judgement: Judgement, pccs: Sequence[float]) -> list[Told]:
    """Return what was said of each channel of a frame."""
    return [
        Told(case, label, verdict.word, float(value))
        for (label, verdict), value in zip(judgement.channels.items(), pccs, strict=True)
    ]


def word_table(rows: Sequence[Told]) -> list[str]:
    """Markdown: each word against what the channels are, all frames together."""
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
        values = np.array([row.pcc for row in rows if row.word is word])
        cells = [f"{kind(values).mean():.0%}" if len(values) else "" for _, kind in kinds]
        lines.append(f"| *{word}* | {len(values)} | {' | '.join(cells)} |")
    return lines


def roc_table(rows: Sequence[Told]) -> list[str]:
    """Markdown: how often a word speaks against a channel that is lost, and against one that is
    not, by structure; the words in their order are the score.
    """
    lines = [
        (
            f"| structure | lost | not *good* | *do not use* | PCC from {_GOOD_PCC} | not *good* |"
            " *do not use* | area |"
        ),
        "|---" * 8 + "|",
    ]
    for label in (*dict.fromkeys(row.label for row in rows), "all"):
        chosen = [row for row in rows if label in (row.label, "all")]
        sides = [[r for r in chosen if r.lost], [r for r in chosen if r.pcc >= _GOOD_PCC]]
        cells = [label]
        for side in sides:
            ranks = np.array([row.word.rank for row in side])
            cells += [f"{len(side)}", f"{(ranks > 0).mean():.0%}", f"{(ranks > 1).mean():.0%}"]
        lost, found = ([row.word.rank for row in side] for side in sides)
        cells.append(f"{(area(lost, found) + 1 - area(found, lost)) / 2:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def case_table(rows: Sequence[Told]) -> list[str]:
    """Markdown: the words by what is in front of the camera."""
    heads = [f"*{word}*" for word in Quality]
    lines = [
        (
            f"| in front of the camera | channels | {' | '.join(heads)} | lost | of these *good* |"
            f" PCC from {_GOOD_PCC} | of these *good* |"
        ),
        "|---" * (6 + len(heads)) + "|",
    ]
    for case in dict.fromkeys(row.case for row in rows):
        chosen = [row for row in rows if row.case == case]
        cells = [f"{np.mean([row.word is word for row in chosen]):.0%}" for word in Quality]
        for side in ([r for r in chosen if r.lost], [r for r in chosen if r.pcc >= _GOOD_PCC]):
            good = np.mean([r.word is Quality.GOOD for r in side]) if side else np.nan
            cells += [str(len(side)), "" if np.isnan(good) else f"{good:.0%}"]
        lines.append(f"| {case} | {len(chosen)} | {' | '.join(cells)} |")
    return lines


def simulated_tables(rows: Sequence[tuple[str, Seen]]) -> list[str]:
    """Markdown: the words on simulation, and how often frames in order are called unlike."""
    of_channels = [one for case, seen in rows for one in told(case, seen.judgement, seen.pcc)]
    order = [seen for case, seen in rows if case == "the whole range of training"]
    unlike = np.mean([_says(seen.warnings, _UNLIKE) for seen in order])
    return [
        f"**On simulation**, {len(rows)} sequences of {SIZE} x {SIZE} pixels that nothing was"
        " fitted to, the middle frame of three. *Lost* is a channel with a PCC with the truth below"
        f" {_POOR_PCC}, or whose structure is not there. Of {len(order)} frames of the whole range"
        f" of training {unlike:.0%} are said to be unlike, or to hold an unknown structure.",
        "",
        *word_table(of_channels),
        "",
        *roc_table(of_channels),
        "",
        *case_table(of_channels),
    ]


def main() -> None:
    """Read the arguments, look, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("-n", type=int, default=8, help="composites of every case")
    parser.add_argument(
        "--simulated", type=int, default=12, help="simulated sequences of every case"
    )
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="print, change no page")
    given = parser.parse_args()
    eye = Eye(given.engine, given.threads)
    rows = [eye.look(case, parts) for case, parts in composites(given.data, given.n, given.seed)]
    of_channels = [one for row in rows for one in told(row.case, row.frame.judgement, row.pcc)]
    on_simulation = list(simulated(eye.engine, given.simulated, given.threads))
    manifest = eye.engine.manifest
    text = "\n".join(
        [
            f"Engine {manifest.id} {manifest.version}. Written by `python scripts/trust_table.py"
            f" {manifest.id} ../shared/data -n {given.n}`.",
            "",
            *simulated_tables(on_simulation),
            "",
            f"**On {len(rows)} composites of real images**, {_PX} x {_PX} pixels:",
            "",
            *word_table(of_channels),
            "",
            *roc_table(of_channels),
            "",
            *unlike_table(rows),
            "",
            "Areas under the curve against the first row: 0.5 tells nothing apart, 1 everything.",
            "",
            *weak_table(rows, eye.names),
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
