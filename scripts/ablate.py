"""What each part of the light network's objective is worth: one change at a time, equal budgets.

    python scripts/ablate.py runs/light --start scripts/light-next.pt --out runs/ablation

`runs/light` holds the pairs of a training run of the recipe (pairs-train, pairs-validation). Every
variant begins with the same weights, sees the same batches for as many steps and is compared with
the first one on the same held-out crops, crop by crop. What is finished is kept; the same command
goes on where it was interrupted. Small budgets say what pays at this point, not what it would give
in the end.

Variants
--------
recipe : the recipe as it is, with AdamW or what --optimiser says
balance 0, balance 1 : dim structures count by their light alone; every structure counts alike
context : lateral context (Ashesh et al. 2023, "uSplit"): features of the image 4 and 16 times
    coarser than those of the network are added to its own
variance : three heads more, the log-variance of each image, under a Gaussian likelihood whose
    gradients are weighed by the variance (Seitzer et al. 2022, beta-NLL, beta 0.5)
mixing : the share of the light of each image, from the means of the features, as an output of its
    own (what scSplit conditions on)
correlation 0, correlation 0.01, ... : without, and with so much of 1 - PCC of each structure that
    is there, and of the light invented as others; only where they are named
muon : the optimiser; only where it is named
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr, wilcoxon
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from livesr.evaluation.metrics import bootstrap_interval
from livesr.training import networks
from livesr.training.losses import CombinationLoss, LossTerms
from livesr.training.networks.imcsr import IMCSR
from livesr.training.networks.layers import conv3x3, spatial_mean
from livesr.training.recipes import Recipe, load_recipe
from livesr.training.recombine import RecombinedPairs, as_told
from livesr.training.settings import TrainConfig
from livesr.training.sources import CachedPairs
from livesr.training.trainer import Trainer

MEASURES = {
    "pcc": "PCC",
    "weak": "PCC of weak structures",
    "invented": "light invented",
    "share": "shares off, dB",
}
WEAK = 0.5  # of the brightest structure's light: a structure below it is called weak
ABSENT = 1e-4  # mean light of a structure that is not there
CROPS, CROP_PX, SEED = 160, 192, 20261129
_MORE = 1e-3  # weight of what is told besides, beside the combination loss

Image = NDArray[np.float32]


class Context(nn.Module):  # type: ignore[misc]
    """Add features of the image 4 and 16 times coarser; nothing, before it is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.coarse = nn.ModuleList(
            nn.Sequential(conv3x3(width, width), nn.GELU(), conv3x3(width, width), nn.GELU())
            for _ in range(2)
        )
        self.join = nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (n, width, y, x) and what surrounds each pixel."""
        size, wide, coarse = x.shape[-2:], [], x
        for branch in self.coarse:
            coarse = branch(F.avg_pool2d(coarse, 4, ceil_mode=True))
            wide.append(F.interpolate(coarse, size=size, mode="bilinear"))
        added: Tensor = x + self.join(torch.cat(wide, 1))
        return added


class WithContext(IMCSR):
    """IMC-SR whose first features know what surrounds them."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.head.append(Context(parameters["width"]))


class WithMore(IMCSR):
    """IMC-SR that also tells something else of its last features, while it is trained."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.more = self._more(parameters["width"])
        self.tail.register_forward_hook(lambda _, __, features: self._keep(features))

    def _keep(self, features: Tensor) -> None:
        self._features = features

    def _more(self, width: int) -> nn.Module:
        raise NotImplementedError

    def told(self) -> Tensor:
        """Return it, for the frames that went through last."""
        raise NotImplementedError


class WithVariance(WithMore):
    """The log-variance of every image, (n, channels, y, x)."""

    def _more(self, width: int) -> nn.Module:
        last = nn.Conv2d(width, self.channels * self.unshuffle**2, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, -6.0)
        return last

    def told(self) -> Tensor:
        """Return it."""
        return self._enlarged(self.more(self._features)).clamp(-12, 2)


class WithMixing(WithMore):
    """The logarithms of the images' shares of the light, (n, channels)."""

    def _more(self, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(width, width, 1), nn.GELU(), nn.Conv2d(width, self.channels, 1)
        )

    def told(self) -> Tensor:
        """Return it."""
        logits: Tensor = self.more(spatial_mean(self._features))[:, :, 0, 0].float()
        return torch.log_softmax(logits, 1)


class WithTold(nn.Module):  # type: ignore[misc]
    """The combination loss, and what the network tells besides compared with the truth."""

    sees_input = False

    def __init__(self, loss: CombinationLoss, network: WithMore) -> None:
        super().__init__()
        self.loss, self._network = loss, [network]  # in a list: its parameters are not the loss's

    def forward(self, prediction: Tensor, target: Tensor) -> LossTerms:
        """Compare; the parts are those of the loss, and `told`."""
        terms = self.loss(prediction, target)
        told, network = self._network[0].told(), self._network[0]
        more = (
            likelihood(prediction, target, told)
            if isinstance(network, WithVariance)
            else cross_entropy(target, told)
        )
        return LossTerms(terms.total + _MORE * more, {**terms.parts, "told": more})


def likelihood(prediction: Tensor, target: Tensor, log_variance: Tensor) -> Tensor:
    """Return the mean negative log-likelihood, weighed by the standard deviation."""
    variance = log_variance.exp()
    each = 0.5 * ((prediction - target) ** 2 / variance + log_variance)
    return (each * variance.detach().sqrt()).mean() / variance.detach().sqrt().mean()


def cross_entropy(target: Tensor, log_shares: Tensor) -> Tensor:
    """Return the mean divergence of the shares told from those of the targets."""
    light = target.clamp(min=0).mean((2, 3))
    shares = light / light.sum(1, keepdim=True).clamp(min=ABSENT)
    return -(shares * log_shares).sum(1).mean()


networks.NETWORKS |= {
    "imcsr-context": WithContext,
    "imcsr-variance": WithVariance,
    "imcsr-mixing": WithMixing,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "context": {"architecture": "imcsr-context"},
    "variance": {"architecture": "imcsr-variance"},
    "mixing": {"architecture": "imcsr-mixing"},
    "balance 0": {"balance": 0.0},
    "balance 1": {"balance": 1.0},
    "correlation 0": {"correlation": 0.0},
    "correlation 0.01": {"correlation": 0.01},
    "correlation 0.03": {"correlation": 0.03},
    "correlation 0.03, invented 0.03": {"correlation": 0.03, "invented": 0.03},
    "correlation 0.1, invented 0.1": {"correlation": 0.1, "invented": 0.1},
    "muon": {"optimiser": "muon"},
}


class OneTrainer(Trainer):
    """A trainer whose loss also reads what the network tells besides."""

    def _make_loss(self) -> nn.Module:
        loss = super()._make_loss()
        return WithTold(loss, self.network) if isinstance(self.network, WithMore) else loss


def main() -> None:
    """Train what is not trained yet, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--recipe", default="imcsr-mt-er-lyso-light")
    parser.add_argument("--start", help="weights that every variant begins with; without, chance")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--optimiser", choices=("adam", "adamw", "muon"), default="adamw")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS)[:6])
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    folders = given.pairs / "pairs-train", given.pairs / "pairs-validation"
    learned, held_out = (composed(recipe, folder) for folder in folders)
    found = {}
    for name in given.variants:
        path = given.out / name.replace(" ", "-")
        if not (path / "final.pt").exists():
            config = configured(recipe, given, **VARIANTS[name])
            trainer = OneTrainer(config, learned, held_out, path)
            trainer.run(lambda p, name=name: print(f"{name}: step {p.step}", flush=True))
        found[name] = judged(networks.load(path / "final.pt"), held_out, given.threads)
    (given.out / "scores.json").write_text(json.dumps(found), encoding="utf-8")
    text = table(found)
    (given.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def composed(recipe: Recipe, folder: Path) -> RecombinedPairs:
    """Return the pairs of a folder, some composed anew, as the recipe says."""
    return as_told(CachedPairs(folder), recipe.data)


def configured(recipe: Recipe, given: argparse.Namespace, **change: Any) -> TrainConfig:
    """Return the recipe's training with the budget that is given, and one change."""
    own = {key: change[key] for key in ("balance", "correlation", "invented") if key in change}
    loss = recipe.train.loss.model_copy(update=own)
    return recipe.train.model_copy(
        update={
            "architecture": change.get("architecture", "imcsr"),
            "loss": loss,
            "optimiser": change.get("optimiser", given.optimiser),
            "start": given.start,
            "steps": given.steps,
            "minutes": None,
            "lr": given.lr,
            "warmup_steps": min(100, given.steps // 10),
            "schedule": "cosine",
            "seed": 1,
            "threads": given.threads,
            "loaders": 1,
            "validate_every": 1000,
        }
    )


def judged(network: nn.Module, pairs: RecombinedPairs, threads: int) -> dict[str, Any]:
    """Return scores of each held-out crop, NaN where one has none."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(SEED)
    scores: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    told: list[float] = []
    for _ in range(CROPS):
        frames, targets = pairs.batch(rng, 1, CROP_PX)
        with torch.inference_mode():
            predicted = network(torch.from_numpy(frames))
            if isinstance(network, WithMore):
                told.append(told_right(network, predicted, torch.from_numpy(targets)))
        for name, value in scored(predicted.numpy()[0, :-1], targets[0, :-1]).items():
            scores[name].append(value)
    return {**scores, "told": told}


def scored(predicted: Image, truth: Image) -> dict[str, float]:
    """Return the mean PCC of the structures, of the weak ones, and the light of absent ones."""
    light = truth.mean((1, 2))
    there, weak = light > ABSENT, (light > ABSENT) & (light < WEAK * light.max())
    pcc = [
        float(np.corrcoef(p.ravel(), t.ravel())[0, 1]) if here and p.std() > 0 else 0.0
        for p, t, here in zip(predicted, truth, there, strict=True)
    ]
    total = float(predicted.sum())
    invented = float(predicted[~there].sum()) / total if total > 0 else 0.0
    shown = predicted.mean((1, 2)) / max(float(predicted.mean((1, 2)).sum()), ABSENT)
    return {
        "share": decibels(shown, light),
        "pcc": float(np.mean([p for p, here in zip(pcc, there, strict=True) if here] or [np.nan])),
        "weak": float(np.mean([p for p, dim in zip(pcc, weak, strict=True) if dim] or [np.nan])),
        "invented": invented if 0 < there.sum() < len(there) else float("nan"),
    }


def told_right(network: WithMore, predicted: Tensor, target: Tensor) -> float:
    """Return how well the variance ranks errors (Spearman), or by how many dB shares are off."""
    told = network.told()
    if isinstance(network, WithVariance):
        error = (predicted - target).abs()[:, :-1, ::4, ::4]
        return float(spearmanr(told[:, :-1, ::4, ::4].ravel(), error.ravel()).statistic)
    shares = told.exp()[0, :-1].numpy()
    return decibels(shares / shares.sum(), target[0, :-1].numpy().mean((1, 2)))


def decibels(shares: NDArray[Any], light: NDArray[Any]) -> float:
    """Return by how many dB shares of the light are off, the mean of what is there."""
    there = light > ABSENT
    if not there.any():
        return float("nan")
    right = light[there] / light.sum()
    return float(np.abs(10 * np.log10(np.maximum(shares[there], 1e-3) / right)).mean())


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown: each variant's means, and what it differs by from the first."""
    lines = [f"| variant | {' | '.join(MEASURES.values())} | told |", "|---" * 6 + "|"]
    first = next(iter(found.values()))
    for name, scores in found.items():
        cells = [difference(np.array(first[m]), np.array(scores[m])) for m in MEASURES]
        told = f"{np.nanmean(scores['told']):.2f}" if scores["told"] else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines) + "\n"


def difference(first: NDArray[Any], second: NDArray[Any]) -> str:
    """Return the mean of the second, and by how much it differs crop by crop."""
    mean, apart = f"{np.nanmean(second):.4f}", second - first
    apart = apart[np.isfinite(apart)]
    if not apart.any():
        return mean
    between = bootstrap_interval(apart.tolist())
    p = wilcoxon(apart).pvalue
    return f"{mean} ({between.low:+.4f} to {between.high:+.4f}, p {p:.2g})"


if __name__ == "__main__":
    main()
