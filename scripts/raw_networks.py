#!/usr/bin/env python
"""Scores an engine that makes SIM frames of raw frames, beside what is measured of them.

    python scripts/raw_networks.py ENGINE ../shared/data --picture raw-networks.png

On simulated groups that no training saw, against the specimen at the passband of ideal SIM; on real
raw frames, which are not part of the repository, against classical SIM of all nine of them and
against the published reconstruction. With `--light 0.1` both see a tenth of the real frames' light,
and the references all of it. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom

from livesr.base.compute import ComputeConfig
from livesr.evaluation.metrics import bootstrap_interval, pcc
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_session
from livesr.live.normalise import background_and_scale
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.sim import calibrate
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.simulation.domain import CALIBRATED, Domain
from livesr.simulation.sequence import EVALUATION, sequences_of
from livesr.training.raw_groups import covering, raw_and_truth

Picture = NDArray[np.float32]
LABELS = tuple(f"angle {a} phase {p}" for a in range(3) for p in range(3))
LIGHTS = {"100 to 1000": (100.0, 1000.0), "10 to 100": (10.0, 100.0)}
STRUCTURES = ("microtubules", "er", "lysosomes")
STACKS = {
    "ER": ("er_t3_9x112x512.tif", Optics(0.065, 1.49, 0.525)),
    "beads": ("beads_9x512x512.tif", Optics(0.0867, 1.49, 0.515)),
}
PUBLISHED = "er_reference_sim_224x1024.tif"  # of the second time point of the ER
SIZE, EDGE, OFFSET_ADU = 256, 0.1, np.float32(100)
WIENER = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
ELECTRONS, READ_E = 0.5, 1.6  # of an ADU, assumed of the real cameras, and of their readout


class Seen(NamedTuple):
    """Pictures of one group, all on the pixels of the network."""

    mean: Picture
    network: Picture
    classical: Picture


def look(engine: Engine, raw: Picture, reconstructor: SIMReconstructor) -> Seen:
    """Return what is made of nine raw frames (n, y, x) above the camera's offset."""
    chosen = raw[list(engine.raw_order(LABELS))]
    background, scale = background_and_scale(chosen.mean(0))
    shape = (int(raw.shape[1]), int(raw.shape[2]))
    with open_session(engine, shape, ComputeConfig(precision="f32")) as session:
        session.input[:] = (chosen - background) / scale
        network = session.infer()[0] * scale
    mean = zoom(chosen.mean(0), 2, order=3, mode="reflect", grid_mode=True)
    classical = covering(reconstructor.reconstruct(list(raw + OFFSET_ADU)))
    return Seen(mean, np.asarray(network), classical)


def score(picture: Picture, truth: Picture) -> float:
    """PCC inside, where nothing fades."""
    y, x = (int(EDGE * n) for n in truth.shape)
    return pcc(np.maximum(picture, 0)[y:-y, x:-x], truth[y:-y, x:-x].astype(float))


def simulated(engine: Engine, n: int) -> Iterator[str]:
    """Yield a row for each level of light."""
    for light, photons in LIGHTS.items():
        domain = CALIBRATED.model_copy(update={"structures": STRUCTURES, "photons": photons})
        rows = []
        for i in range(n):
            seen = sequences_of(["sim"]).draw((EVALUATION, 7, i), 1, SIZE, domain)
            raw, truth = raw_and_truth(seen, "sim")
            scores = [score(picture, truth) for picture in look(engine, raw, seen.reconstructor)]
            rows.append([*scores, best_of_classical((EVALUATION, 7, i), domain)])
        cells = [str(bootstrap_interval(column)) for column in zip(*rows, strict=True)]
        yield f"| {light} | {' | '.join(cells)} |"


def best_of_classical(entropy: tuple[int, ...], domain: Domain) -> float:
    """Return the score of classical SIM with the Wiener parameter that suits the frame best."""
    scores = []
    for wiener in WIENER:
        tuned = domain.model_copy(update={"wiener": (wiener, wiener)})
        seen = sequences_of(["sim"]).draw(entropy, 1, SIZE, tuned)
        raw, truth = raw_and_truth(seen, "sim")
        picture = seen.reconstructor.reconstruct(list(raw + OFFSET_ADU))
        scores.append(score(covering(picture), truth))
    return max(scores)


def dimmer(raw: Picture, light: float, rng: np.random.Generator) -> Picture:
    """Return raw frames as a part of their light would have left them."""
    if light == 1:
        return raw
    electrons = np.rint(np.maximum(raw, 0) * ELECTRONS).astype(np.int64)
    kept = rng.binomial(electrons, light) + rng.normal(0, READ_E, raw.shape)
    return np.asarray(kept / ELECTRONS, np.float32)


def real(engine: Engine, data: Path, pictures: list[Seen], light: float) -> Iterator[str]:
    """Yield a row for each real group."""
    rng = np.random.default_rng(EVALUATION)
    published = tifffile.imread(data / "sim_raw" / PUBLISHED)
    for name, (file, optics) in STACKS.items():
        stack = tifffile.imread(data / "sim_raw" / file)
        groups = stack.reshape(-1, 9, *stack.shape[-2:])
        found = calibrate(groups, optics)
        parameters = SIMParameters(
            groups.shape[-2:],
            optics.pixel_size_um,
            optics.na,
            optics.emission_um,
            damping=found.optics.damping,
            order=found.order,
            offset_adu=float(OFFSET_ADU),
        )
        for t, group in enumerate(groups):
            raw = group.astype(np.float32) - OFFSET_ADU
            reconstructor = SIMReconstructor(parameters, found.patterns)
            whole = covering(reconstructor.reconstruct(list(group)))
            dim = dimmer(raw, light, rng)
            seen = look(engine, dim, reconstructor)
            pictures.append(seen)
            tuned = [replace(parameters, wiener=wiener) for wiener in WIENER]
            at_its_best = [
                covering(SIMReconstructor(p, found.patterns).reconstruct(list(dim + OFFSET_ADU)))
                for p in tuned
            ]
            cells = []
            known = name == "ER" and t == 1
            for truth in (whole, covering(published.astype(np.float32)) if known else None):
                if truth is not None:
                    scores = [score(picture, truth) for picture in seen]
                    scores.append(max(score(picture, truth) for picture in at_its_best))
                    cells += [f"{value:.3f}" for value in scores]
            yield f"| {name} {t} | {' | '.join(cells)} |"


def draw(pictures: list[Seen], path: Path) -> None:
    """Write mean, network and classical SIM of each group beside each other."""
    rows = [np.concatenate([_grey(p[:224, :512]) for p in seen], 1) for seen in pictures]
    Image.fromarray(np.concatenate(rows)).save(path)


def _grey(picture: Picture) -> NDArray[np.uint8]:
    low, high = np.percentile(picture, (1, 99.8))
    return np.asarray(255 * np.clip((picture - low) / max(high - low, 1e-6), 0, 1), np.uint8)


def main() -> None:
    """Score an engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("data", type=Path, nargs="?", help="folder with sim_raw/")
    parser.add_argument("--sequences", type=int, default=24)
    parser.add_argument("--light", type=float, default=1.0, help="part of the real frames'")
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    engine = load_engine(asked.engine)
    engine.check_fits("reconstruct", raw_labels=LABELS)
    print("PCC with the specimen at the passband of ideal SIM, mean and 95 % interval\n")
    print(
        "| photo-electrons | mean of its raw frames | network | classical SIM of all nine |", end=""
    )
    print(" at its best |")
    print("|---|---|---|---|---|", *simulated(engine, asked.sequences), sep="\n")
    if asked.data is None:
        return
    pictures: list[Seen] = []
    print("\nReal raw frames: PCC with classical SIM of all nine, then with what was published\n")
    columns = "mean | network | classical | at its best"
    print(f"| group | {columns} | {columns} |")
    rows = real(engine, asked.data, pictures, asked.light)
    print("|---" * 9 + "|", *rows, sep="\n")
    if asked.picture:
        draw(pictures, asked.picture)


if __name__ == "__main__":
    main()
