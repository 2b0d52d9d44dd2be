"""Make one comparison of the papers again, with equal budgets on livesr's own data.

A table and a figure.

    python scripts/reproduce.py loss --budget 20000 --out runs/reproduction
    python scripts/reproduce.py figures --biosr BioSR --recipe imcsr-ccp-mt-er-paper

The second makes the comparisons of IMC-SR's figures 2 to 4 on BioSR's real images (or any folder
with a folder of images of each structure) instead of simulated ones.

Trains every variant of the comparison on the same pairs for the same number of steps from the same
seed, none from the weights of another network, exports it, evaluates it as `livesr evaluate` does,
tests the differences on the same cells, and writes OUT/COMPARISON/table.md, table.json and
figure.png. What is finished is kept, and shared by the comparisons that need it: the same command
goes on where it was interrupted; with --slice it stops after so many minutes by itself and ends
with 75.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from livesr.base.errors import ConfigError, LiveSRError
from livesr.evaluation.engines import SEEDS, diagnose_engine, evaluate_engine
from livesr.evaluation.paired import PairedTest, paired_table, paired_tests
from livesr.evaluation.pairs import evaluate_pairs, upscale_table
from livesr.evaluation.summary import interval_text
from livesr.export.engine import export_engine
from livesr.simulation.domain import CALIBRATED, SNR, Domain
from livesr.training.composites import CoarsePairs, CompositePairs
from livesr.training.images import OwnImages
from livesr.training.pair_folder import write_pairs
from livesr.training.recipes import Recipe, load_recipe
from livesr.training.scores import TrainingCollapsedError
from livesr.training.sources import CachedPairs
from livesr.training.trainer import Trainer

GO_ON = 75  # what a call ends with that has to be made again
FIGURES = ("all-single", "loss", "snr")  # of IMC-SR that still images can show
BIOSR_FOLDERS = {"Microtubules": ("Microtubules", "MTs"), "CCPs": ("CCPs",), "ER": ("ER",)}
BIOSR_PIXEL_NM = 31.3
TRAINED_PHOTONS = (50.0, 2000.0)  # of bright parts, for images that are clean: all three levels

Variants = dict[str, Callable[[Recipe], Recipe]]


def network(**parameters: Any) -> Callable[[Recipe], Recipe]:
    """Change parameters of the network; `architecture` and `window` go where they belong."""

    def changed(recipe: Recipe) -> Recipe:
        given = dict(parameters)
        architecture = given.pop("architecture", recipe.train.architecture)
        merged = recipe.train.parameters | given
        engine = recipe.engine | {"window": merged.get("frames", recipe.engine["window"])}
        train = recipe.train.model_copy(update={"architecture": architecture, "parameters": merged})
        return recipe.model_copy(update={"train": train, "engine": engine})

    return changed


def loss(**weights: float) -> Callable[[Recipe], Recipe]:
    """Change weights of the loss."""

    def changed(recipe: Recipe) -> Recipe:
        merged = recipe.train.loss.model_copy(update=weights)
        return recipe.model_copy(update={"train": recipe.train.model_copy(update={"loss": merged})})

    return changed


def single(recipe: Recipe) -> Recipe:
    """One network per structure; nothing sums, so the loss has no summation term."""
    return loss(summation=0.0)(network(architecture="imcsr-single")(recipe))


COMPARISONS: dict[str, tuple[str, Variants]] = {
    "all-single": (
        "IMC-SR-All against IMC-SR-Single (Wang et al. 2021)",
        {"All": network(), "Single": single},
    ),
    "loss": (
        "With and without the combination loss's summation term (Wang et al. 2021)",
        {"with": loss(summation=0.02), "without": loss(summation=0.0)},
    ),
    "continuity": (
        "With and without temporal continuity (Wang et al. 2021)",
        {"three frames": network(frames=3), "one frame": network(frames=1)},
    ),
    "snr": ("One network at three levels of light (Wang et al. 2021)", {"network": network()}),
    "heads": (
        "Heads: the paper's sigmoid, sharing out the frame, sharing out a restored image",
        {head: network(head=head) for head in ("sigmoid", "partition", "restore")},
    ),
    "networks": (
        "IMC-SR beside networks of about its cost a pixel",
        {
            "IMC-SR": network(),
            "RCAN": lambda r: replaced(r, "rcan", width=16, groups=2, blocks=2),
            "U-Net": lambda r: replaced(r, "unet", width=12, depth=3),
        },
    ),
    "upscale": ("EDSR against cubic spline interpolation (Hu et al. 2020)", {}),
}


def replaced(recipe: Recipe, architecture: str, **parameters: Any) -> Recipe:
    """Another network altogether, with the same frames and channels."""
    kept = {name: recipe.train.parameters[name] for name in ("frames", "channels")}
    train = recipe.train.model_copy(
        update={"architecture": architecture, "parameters": {**kept, **parameters}}
    )
    return recipe.model_copy(update={"train": train})


class Reproduction:
    """One comparison: its folder, its budget and its deadline."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._given = arguments
        self._folder: Path = arguments.out / arguments.comparison
        self._until = time.monotonic() + 60 * arguments.slice if arguments.slice else None

    def run(self) -> int:
        """Train and evaluate what is missing, write table and figure; return the exit code."""
        title, variants = COMPARISONS[self._given.comparison]
        if self._given.comparison == "upscale":
            found = {f"x{scale}": self._upscaled(scale) for scale in (2, 3, 4)}
        else:
            recipe = self._budgeted(self._with_data(load_recipe(self._given.recipe)))
            found = {
                name: self._separated(name, change(recipe)) for name, change in variants.items()
            }
        if any(result is None for result in found.values()):
            print("Call again to go on.")
            return GO_ON
        self._folder.mkdir(parents=True, exist_ok=True)
        upscaling = self._given.comparison == "upscale"
        table = upscale_table(_by_data(found)) if upscaling else _table(found)
        settings = {
            "budget": self._given.budget,
            "pairs": self._given.pairs,
            "sequences": self._given.sequences,
        }
        tests = {} if upscaling else _tests(found)
        text = f"# {title}\n\n{table}\n{self._settings()}\n"
        if tests:
            text += f"\nOn the same cells:\n\n{paired_table(tests)}"
        (self._folder / "table.md").write_text(text, encoding="utf-8")
        (self._folder / "table.json").write_text(
            json.dumps(
                {"settings": settings, "paired": _as_json(tests), **found}, separators=(",", ":")
            ),
            encoding="utf-8",
        )
        (_draw_upscale if upscaling else _draw)(title, found, self._folder / "figure.png")
        print(text)
        return 0

    def _settings(self) -> str:
        if self._given.comparison == "upscale" and not self._given.budget:
            views = f", ensemble {self._given.ensemble}" if self._given.ensemble else ""
            return f"The shipped engines{views}, on {self._given.sequences} images of each kind."
        budget = f"{self._given.budget} steps" if self._given.budget else "the recipe's budget"
        pairs, cells = ("BioSR", "images") if self._given.biosr else ("simulated", "sequences")
        data = (
            f"the same {self._given.pairs} {pairs} pairs, seed 1; {self._given.sequences} unseen"
            f" {cells}"
        )
        return f"Each variant: {budget} on {data}."

    def _with_data(self, recipe: Recipe) -> Recipe:
        """Learn from the images of `--biosr`, if they are given."""
        if not self._given.biosr:
            return recipe
        names = [channel["name"] for channel in recipe.engine["channels"]]
        images = OwnImages(
            folders={name: str(_biosr(self._given.biosr, name)) for name in names},
            pixel_size_nm=BIOSR_PIXEL_NM,
            modality="sim",
            photons=TRAINED_PHOTONS,
        )
        data = recipe.data.model_copy(update={"images": images, "recombined": 0.0})
        return recipe.model_copy(update={"data": data})

    def _budgeted(self, recipe: Recipe) -> Recipe:
        # All variants begin with chance: one that began elsewhere would be ahead of the others.
        changes: dict[str, Any] = {"seed": 1, "start": None}
        if self._given.budget:
            changes |= {"steps": self._given.budget, "minutes": None}
            changes["warmup_steps"] = min(recipe.train.warmup_steps, self._given.budget // 10)
        if self._given.threads:
            changes["threads"] = self._given.threads
        validation = max(2, min(recipe.data.validation, self._given.pairs // 4))
        data = recipe.data.model_copy(update={"train": self._given.pairs, "validation": validation})
        return recipe.model_copy(
            update={"data": data, "train": recipe.train.model_copy(update=changes)}
        )

    def _engine(self, name: str, recipe: Recipe, data: Path) -> Path | None:
        """Train and export one variant; None if the slice was over before."""
        # Two comparisons may have a variant in common: it is trained once.
        digest = _digest(recipe, exclude={"train": {"threads"}})
        run = self._given.out / "trained" / f"{recipe.train.architecture}-{digest}"
        engine = run / "engine"
        if (engine / "manifest.yaml").exists():
            return engine
        sources = []
        for part, seed in (
            ("train", recipe.data.seed),
            ("validation", recipe.data.validation_seed),
        ):
            n = getattr(recipe.data, part)
            folder = write_pairs(
                data / part, recipe.data.maker(part), n, seed=seed, workers=self._given.workers
            )
            sources.append(CachedPairs(folder, window=recipe.engine["window"]))
        left = None if self._until is None else (self._until - time.monotonic()) / 60
        if left is not None and left <= 0:
            return None
        trainer = Trainer(recipe.train, *sources, run, sources[1].meta["channels"])
        trainer.run(
            lambda p: print(f"{name}: step {p.step}, {p.minutes_left:.0f} min left", flush=True),
            minutes=left,
        )
        if not trainer.finished:
            return None
        export_engine(recipe, run / "final.pt", engine)
        return engine

    def _separated(self, name: str, recipe: Recipe) -> dict[str, Any] | None:
        try:
            engine = self._engine(name, recipe, self._given.out / f"pairs-{_digest(recipe.data)}")
        except TrainingCollapsedError as e:
            return {"collapsed": str(e)}
        if engine is None:
            return None
        conditions = SNR if self._given.comparison == "snr" else {"calibrated": CALIBRATED}
        return {
            level: self._evaluated(engine, level, domain, recipe)
            for level, domain in conditions.items()
        }

    def _evaluated(
        self, engine: Path, level: str, domain: Domain, recipe: Recipe
    ) -> dict[str, Any]:
        path = engine.parent / f"evaluation-{level.replace(' ', '-')}.json"
        if not path.exists():
            images = recipe.data.images
            result = (
                self._on_cells(engine, domain, recipe)
                if images is None
                else self._on_images(engine, images, domain.photons)
            )
            path.write_text(json.dumps(result), encoding="utf-8")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _on_cells(self, engine: Path, domain: Domain, recipe: Recipe) -> dict[str, Any]:
        """Evaluate on simulated cells that hold the structures of the recipe."""
        seeds = range(SEEDS.start, SEEDS.start + self._given.sequences)
        common: dict[str, Any] = {
            "size": self._given.size,
            "conditions": domain.model_copy(update={"structures": recipe.data.domain.structures}),
            "threads": self._given.threads or 0,
        }
        result = evaluate_engine(engine, seeds=seeds, **common)
        scenes = seeds[: self._given.diagnosed]
        return result | {"diagnostics": diagnose_engine(engine, seeds=scenes, **common)}

    def _on_images(
        self, engine: Path, images: OwnImages, photons: tuple[float, float]
    ) -> dict[str, Any]:
        """Evaluate on composites of the images that validate, with the noise of one level."""
        lit = images.model_copy(update={"photons": photons})
        maker = CompositePairs.find(lit, self._given.size, "validation")
        pairs = (maker.make((SEEDS.start, i)) for i in range(self._given.sequences))
        threads = self._given.threads or 0
        return evaluate_pairs(engine, pairs, list(images.folders), "real images", threads=threads)

    def _upscaled(self, scale: int) -> dict[str, Any] | None:
        """Evaluate the shipped engine or, with a budget, one that is trained from chance for as
        many steps as the others.
        """
        recipe, engine = load_recipe(f"edsr-x{scale}"), f"edsr-x{scale}"
        if self._given.budget:
            recipe = self._budgeted(recipe)
            chance = recipe.train.model_copy(update={"start": None})
            trained = self._engine(
                engine,
                recipe.model_copy(update={"train": chance}),
                self._given.out / f"pairs-x{scale}",
            )
            if trained is None:
                return None
            engine = str(trained)
        makers: dict[str, Any] = {"simulated": recipe.data.maker("validation")}
        if self._given.images:
            makers["real"] = CoarsePairs.of(
                self._given.images, recipe.data.size * 2, scale, "storm"
            )
        found = {}
        for what, maker in makers.items():
            pairs = (maker.make((SEEDS.start, i)) for i in range(self._given.sequences))
            found[what] = evaluate_pairs(
                engine,
                pairs,
                ["storm"],
                f"{what} STORM images",
                threads=self._given.threads or 0,
                ensemble=self._given.ensemble,
            )
        return found


def _biosr(folder: Path, structure: str) -> Path:
    """Return the folder of a structure, as BioSR names it or as the engine does."""
    here = {path.name.casefold(): path for path in folder.iterdir() if path.is_dir()}
    for name in (*BIOSR_FOLDERS.get(structure, ()), structure):
        if name.casefold() in here:
            return here[name.casefold()]
    raise ConfigError(
        f"{folder} has no folder of {structure}, only {', '.join(sorted(here)) or 'nothing'}. BioSR"
        " has CCPs, ER, F-actin and Microtubules: take --recipe imcsr-ccp-mt-er or"
        " imcsr-ccp-mt-er-paper, or add the folder."
    )


def _digest(model: Any, **options: Any) -> str:
    return hashlib.sha256(model.model_dump_json(**options).encode()).hexdigest()[:12]


# -- tests, tables and figures --------------------------------------------------------------------


def _tests(found: Mapping[str, Mapping[str, Any]]) -> dict[str, list[PairedTest]]:
    """Test every variant, or level of light, against the first, on the cells that both saw."""
    results = {
        name if len(levels) == 1 else level: result
        for name, levels in found.items()
        if "collapsed" not in levels
        for level, result in levels.items()
    }
    (first, base), *others = results.items() if results else [("", {})]
    return {f"{name} minus {first}": paired_tests(base, result) for name, result in others}


def _as_json(tests: Mapping[str, list[PairedTest]]) -> dict[str, Any]:
    return {label: [test.to_json() for test in several] for label, several in tests.items()}


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    head = (
        "| variant | light | structure | PCC | SSIM | NRMSE | light where its truth is dark |"
        " flicker of a still scene |"
    )
    lines = [head, "|---" * 8 + "|"]
    for name, levels in found.items():
        if "collapsed" in levels:
            lines.append(f"| {name} | | collapsed | | | | | |")
            continue
        for level, result in levels.items():
            for structure, entry in result["structures"].items():
                cells = [
                    interval_text(entry["network"][metric]) for metric in ("pcc", "ssim", "nrmse")
                ]
                cells.append(interval_text(result["false_positive"][structure]))
                still = result.get("diagnostics", {}).get("flicker")  # no real image is a series
                cells.append(interval_text(still[structure]) if still else "")
                lines.append(f"| {name} | {level} | {structure} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _draw(title: str, found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw Tukey's box plots of the PCC of every structure, variants side by side."""
    columns: dict[str, dict[str, list[float]]] = {}
    for name, levels in found.items():
        for level, result in levels.items() if "collapsed" not in levels else ():
            label = name if len(levels) == 1 else level
            for structure, under in zip(
                result["structures"], result["sequences"][0]["network"], strict=True
            ):
                values = [s["network"][under]["pcc"] for s in result["sequences"]]
                columns.setdefault(structure, {})[label] = [v for v in values if v is not None]
    figure = Figure(figsize=(3.2 * max(len(columns), 1), 4), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for axes, (structure, values) in zip(
        figure.subplots(1, max(len(columns), 1), squeeze=False).flat, columns.items(), strict=False
    ):
        axes.boxplot(list(values.values()), tick_labels=list(values))
        axes.set_title(structure, fontsize=9)
        axes.set_ylabel("PCC")
    figure.savefig(path, dpi=120)


def _by_data(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{name}, {what}": result
        for name, results in found.items()
        for what, result in results.items()
    }


def _draw_upscale(title: str, found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw Tukey's box plots of the PSNR that EDSR gains over the cubic spline, by scale and kind
    of image.
    """
    kinds = list(next(iter(found.values())))
    figure = Figure(figsize=(3.2 * len(kinds), 4), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False).flat, kinds, strict=True):
        gains = {}
        for name, results in found.items():
            scores = [
                next(iter(s[who].values()))["psnr"]
                for s in results[kind]["sequences"]
                for who in ("network", "input")
            ]
            both = zip(scores[::2], scores[1::2], strict=True)
            gains[name] = [
                network - spline for network, spline in both if None not in (network, spline)
            ]
        axes.boxplot(list(gains.values()), tick_labels=list(gains))
        axes.axhline(0, color="gray", linewidth=0.5)
        axes.set_title(f"{kind} STORM images", fontsize=9)
        axes.set_ylabel("PSNR of EDSR above the cubic spline, dB")
    figure.savefig(path, dpi=120)


def main() -> int:
    """Run the comparison that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", choices=[*COMPARISONS, "figures"])
    parser.add_argument("--out", type=Path, default=Path("runs/reproduction"))
    parser.add_argument(
        "--recipe",
        default=Path(__file__).with_name("reproduction.yaml"),
        help="of the network that is varied",
    )
    parser.add_argument(
        "--biosr", type=Path, help="folder with BioSR's CCPs, ER and Microtubules, instead of cells"
    )
    parser.add_argument("--budget", type=int, help="steps of each variant; without, the recipe's")
    parser.add_argument(
        "--images", type=Path, help="for upscale: real STORM images that nothing learned from"
    )
    parser.add_argument(
        "--ensemble",
        choices=("half-turn", "flips", "d4"),
        help="for upscale: the mean of several views",
    )
    parser.add_argument(
        "--pairs", type=int, default=600, help="training pairs, the same for every variant"
    )
    parser.add_argument("--sequences", type=int, default=24, help="unseen sequences to evaluate on")
    parser.add_argument(
        "--diagnosed", type=int, default=8, help="of them, whose first frame also stands still"
    )
    parser.add_argument("--size", type=int, default=512, help="side of their frames")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate")
    parser.add_argument("--threads", type=int, help="threads that train and evaluate")
    parser.add_argument(
        "--slice", type=float, help="minutes after which training stops, to be called again"
    )
    given = parser.parse_args()
    names = FIGURES if given.comparison == "figures" else (given.comparison,)
    if given.biosr and (unable := {"continuity", "upscale"} & set(names)):
        parser.error(f"BioSR's images are stills of SIM: they show no {unable.pop()}")
    try:
        codes = [
            Reproduction(argparse.Namespace(**vars(given) | {"comparison": n})).run() for n in names
        ]
    except LiveSRError as e:
        print(e, file=sys.stderr)
        return 2
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
