"""What a network for one microscope is worth there, beside the one that it began with.

    livesr train --rig my_rig --out runs/mine
    livesr export runs/mine --out engines/mine --limits
    python scripts/own_rig.py runs/mine/recipe.json engines/mine imcsr-mt-er-lyso-light

Cells that neither saw, as the rig shows them: PCC, paired by cell; how well the light that goes to
no structure tells cells with one that the engines do not know; and how many cells each would have
somebody check. Frames of other pixels than an engine's are brought to them, as live.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np

from livesr.base.compute import ComputeConfig
from livesr.base.quality import Quality
from livesr.evaluation.limits import N_T, SIZE, Observer, Seen
from livesr.evaluation.live_path import open_views
from livesr.evaluation.metrics import bootstrap_interval
from livesr.live.inference.engine import load_engine
from livesr.simulation.domain import Domain, calibrated_like
from livesr.simulation.sequence import EVALUATION, sequences_of
from livesr.training.recipes import load_recipe

FIRST = 60_000  # seed: beyond those of all other evaluations
GOOD, WHOLE = "a rig in good order", "the whole range"
INTRUDERS = ("actin", "mitochondria", "ccps")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("recipe", type=Path, help="recipe.json of the run")
    parser.add_argument("engines", nargs=2, metavar="ENGINE", help="the rig's, and the other")
    parser.add_argument("-n", type=int, default=30, help="cells of each kind")
    args = parser.parse_args()
    domain = load_recipe(args.recipe).data.domain
    seen = [looked(engine, domain, args.n) for engine in args.engines]
    own, other = args.engines
    print(f"| cells | PCC of {own} | of {other} | gained | better in | to be checked | {other} |")
    print("|---|---|---|---|---|---|---|")
    for name in (GOOD, WHOLE):
        scores = [np.array([np.nanmean(s.pcc) for s in kinds[name]]) for kinds in seen]
        gain = scores[0] - scores[1]
        interval = bootstrap_interval(gain.tolist())
        pccs = " | ".join(f"{s.mean():.3f}" for s in scores)
        gained = f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
        print(f"| {name} | {pccs} | {gained} | {np.mean(gain > 0):.0%} | {checked(seen, name)} |")
    for name in list(seen[0])[2:]:
        areas = " | ".join(f"area {area(kinds[name], kinds[GOOD]):.2f}" for kinds in seen)
        print(f"| {name} | {areas} | | | {checked(seen, name)} |")


def looked(name: str, domain: Domain, n: int) -> dict[str, list[Seen]]:
    """Return what an engine makes of cells of each kind."""
    good, engine = calibrated_like(domain), load_engine(name)
    kinds = {GOOD: good, WHOLE: domain}
    for i, intruder in enumerate(x for x in INTRUDERS if x not in domain.structures):
        place = i % len(domain.structures)
        structures = [intruder if k == place else s for k, s in enumerate(domain.structures)]
        kinds[f"{intruder} for {domain.structures[place]}"] = good.model_copy(
            update={"structures": tuple(structures)}
        )
    draw = sequences_of(engine.manifest.modality).draw
    compute = ComputeConfig(threads=1, tile="off")
    with open_views(engine, (SIZE, SIZE), compute, 500 * domain.pixel_size_um) as session:
        observer = Observer(engine, session)
        return {
            kind: [
                observer.look(
                    draw((EVALUATION, FIRST + i, zlib.crc32(kind.encode())), N_T, SIZE, of)
                )
                for i in range(n)
            ]
            for kind, of in kinds.items()
        }


def area(intruded: list[Seen], known: list[Seen]) -> float:
    """Return how often an intruded cell has more light of no structure than a known one."""
    more, usual = (np.array([s.unknown_light or 0.0 for s in of]) for of in (intruded, known))
    return float((more[:, None] > usual).mean())


def checked(seen: list[dict[str, list[Seen]]], kind: str) -> str:
    """Return the shares of cells that somebody is asked to check, for both engines."""
    shares = [np.mean([s.judgement.word != Quality.GOOD for s in kinds[kind]]) for kinds in seen]
    return " | ".join(f"{share:.0%}" for share in shares)


if __name__ == "__main__":
    main()
