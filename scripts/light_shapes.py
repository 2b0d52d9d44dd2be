"""Which shape a light network should have.

Trains each at one small budget, and draws PCC against the time of a frame.

    livesr bench shapes --out shapes.json
    python scripts/light_shapes.py runs/light shapes.json --out runs/shapes --picture
    docs/images/light-shapes.png

`runs/light` holds the pairs of a training run (pairs-train, pairs-validation). Each shape sees the
same batches; a run that was interrupted goes on. Small budgets say what learns and how the shapes
compare, not what a finished engine reaches.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from livesr.bench.shapes import SHAPES, SHIPPED, name_of
from livesr.training.settings import TrainConfig
from livesr.training.sources import CachedPairs
from livesr.training.trainer import Trainer

COLORS = {"bf16": "tab:blue", "int8": "tab:orange"}


def main() -> None:
    """Train what is not trained yet, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("times", type=Path, help="JSON of livesr bench shapes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="*", help="names, such as 64-2x4-u4-relu; all without")
    arguments = parser.parse_args()
    times = {
        r["name"]: r for r in json.loads(arguments.times.read_text(encoding="utf-8"))["results"]
    }
    wanted = [s for s in SHAPES if not arguments.shapes or name_of(s) in arguments.shapes]
    for shape in wanted:
        train(shape, arguments)
    rows = [row(shape, arguments.out / name_of(shape) / "log.csv", times) for shape in SHAPES]
    print("| shape | parameters | bf16, ms | int8, ms | validation PCC |\n|---|---|---|---|---|")
    for name, parameters, bf16, int8, pcc in rows:
        print(
            f"| {name} | {parameters / 1e6:.2f} M | {bf16:.1f} | {int8:.1f} |"
            f" {f'{pcc:.3f}' if pcc else 'not trained'} |"
        )
    if arguments.picture:
        draw(rows, arguments.picture)


def train(shape: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Train one shape in its own folder."""
    folder = arguments.out / name_of(shape)
    if (folder / "final.pt").exists():
        return
    config = TrainConfig(
        parameters={
            "frames": 3,
            "channels": 3,
            "reduction": 16,
            "head": "restore",
            **SHIPPED,
            **shape,
        },
        steps=arguments.steps,
        patch=96,
        warmup_steps=300,
        seed=1,
        threads=arguments.threads,
        loaders=1,
        validation_pairs=48,
        collapse_check_from=10**6,
    )
    parts = [
        CachedPairs(arguments.pairs / f"pairs-{part}", window=3) for part in ("train", "validation")
    ]
    Trainer(config, parts[0], parts[1], folder).run(
        lambda progress: print(name_of(shape), progress.step, flush=True)
    )


def row(
    shape: dict[str, Any], log: Path, times: dict[str, Any]
) -> tuple[str, int, float, float, float | None]:
    """Return name, parameters, milliseconds in bf16 and int8, and the PCC of the last validation,
    None without.
    """
    from livesr.training.networks import build

    torch.manual_seed(0)
    network = build(
        "imcsr", frames=3, channels=3, reduction=16, head="restore", **(SHIPPED | shape)
    )
    pcc = None
    if log.is_file() and (log.parent / "final.pt").exists():
        with log.open(encoding="utf-8") as file:
            pcc = [float(line["pcc"]) for line in csv.DictReader(file) if line.get("pcc")][-1]
    bf16, int8 = (times[f"shapes.{name_of(shape)}.{precision}"]["value"] for precision in COLORS)
    return name_of(shape), sum(p.numel() for p in network.parameters()), bf16, int8, pcc


def draw(rows: list[tuple[str, int, float, float, float | None]], path: Path) -> None:
    """Draw PCC against milliseconds; a line joins the two precisions of one shape."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, _, bf16, int8, pcc in rows:
        if pcc is None:
            continue
        axes.plot([int8, bf16], [pcc, pcc], color="0.8", zorder=0)
        for precision, ms in (("bf16", bf16), ("int8", int8)):
            axes.plot(ms, pcc, "o", color=COLORS[precision])
        axes.annotate(name, (int8, pcc), xytext=(4, 5), textcoords="offset points", fontsize=8)
    for precision, color in COLORS.items():
        axes.plot([], [], "o", color=color, label=precision)
    axes.set(
        xlabel="CPU time of one frame of 512 x 512 on one core, ms",
        ylabel="validation PCC after equal steps",
    )
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
