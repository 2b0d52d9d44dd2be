"""Write the table of docs/networks.md: every network of the registry on the same pairs.

Each is trained for the same CPU time, then scored, exported, timed and compiled. What is measured
is kept in the folder, so that an interrupted call goes on and a new network adds a row:

    python scripts/networks_page.py runs/networks --seconds 60
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import zoom

from livesr.export.onnx import ExportError, export_onnx
from livesr.simulation.domain import CALIBRATED
from livesr.training import networks
from livesr.training.networks.layers import Enlarge
from livesr.training.pair_folder import write_pairs
from livesr.training.raw_groups import RawGroupPairs
from livesr.training.settings import LossConfig, TrainConfig
from livesr.training.sources import CachedPairs, Pairs
from livesr.training.trainer import Trainer

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
SIDE = 256  # of the clean images; the widefield ones have half of it
SEED = 20261401
RTX_CAPABILITY = 89

# Light, so that all come to some hundred steps; depths are the published ones where time allows.
PARAMETERS: dict[str, dict[str, Any]] = {
    "imcsr": {"frames": 1, "channels": 1, "width": 32, "groups": 2, "blocks": 4, "unshuffle": 2},
    "imcsr-single": {
        "frames": 1,
        "channels": 1,
        "width": 32,
        "groups": 2,
        "blocks": 4,
        "unshuffle": 2,
    },
    "edsr": {"scale": 2, "blocks": 8, "width": 32},
    "rcan": {"frames": 1, "channels": 1, "scale": 2, "width": 32, "groups": 2, "blocks": 4},
    "unet": {"frames": 1, "channels": 1, "scale": 2, "width": 32, "depth": 3},
    "raw-unet": {"frames": 1, "scale": 2, "width": 32},
    "dfcan": {"frames": 1, "channels": 1, "scale": 2, "width": 32, "groups": 2, "blocks": 4},
    "srcnn": {"scale": 2},
    "fsrcnn": {"scale": 2},
    "espcn": {"scale": 2},
    "vdsr": {"scale": 2, "width": 32},
    "drcn": {"scale": 2, "width": 32},
    "drrn": {"scale": 2, "width": 32, "units": 9},
    "srresnet": {"scale": 2, "width": 32, "blocks": 8},
    "srdensenet": {"scale": 2, "blocks": 4, "layers": 4, "growth": 8, "width": 64},
    "memnet": {"scale": 2, "width": 32, "blocks": 3, "recursions": 3},
    "lapsrn": {"scale": 2, "width": 32},
    "mdsr": {"scale": 2, "width": 32, "blocks": 8},
    "rdn": {"scale": 2, "width": 32, "growth": 16, "blocks": 4, "layers": 4},
}
_ENLARGED = {"imcsr", "imcsr-single"}  # they keep the size: they are given the enlarged image


class Row(NamedTuple):
    """What is said of one network; None where it was not measured."""

    network: str
    parameters: int
    steps: int
    psnr_db: float
    pcc: float
    ms: float | None
    compiled_kb: float | None
    why_not: str = ""


class Widefield:
    """The mean of each group instead of its exposures, enlarged for those that keep the size."""

    def __init__(self, pairs: CachedPairs, enlarged: bool) -> None:
        self._pairs, self._enlarge = pairs, Enlarge(2) if enlarged else None

    def _given(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        mean = frames.mean(1, keepdims=True)
        if self._enlarge is None:
            return mean
        with torch.no_grad():
            return self._enlarge(torch.from_numpy(mean)).numpy()

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        """See `TrainSource`."""
        frames, targets = self._pairs.batch(rng, size, patch)
        return self._given(frames), targets

    def validation(self, n: int) -> Pairs:
        """See `ValidationSource`."""
        frames, targets = self._pairs.validation(n)
        return self._given(frames), targets


class _BudgetOver(Exception):  # noqa: N818 - no error
    """The CPU time is used up."""


def main() -> None:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="keeps pairs and results")
    parser.add_argument("--seconds", type=float, default=60, help="CPU time of each training")
    parser.add_argument("--pairs", type=int, default=96, help="training pairs")
    parser.add_argument("--only", nargs="*", default=list(PARAMETERS), help="networks to measure")
    options = parser.parse_args()
    if missing := set(networks.NETWORKS) - PARAMETERS.keys():
        raise SystemExit(f"{', '.join(sorted(missing))} lacks parameters in PARAMETERS")
    torch.set_num_threads(1)
    train, validation = _pairs(options.folder, options.pairs)
    for name in options.only:
        path = options.folder / f"{name}-{options.seconds:g}s.json"
        if not path.exists():
            row = _measure(name, train, validation, options.seconds)
            path.write_text(json.dumps(row._asdict()), encoding="utf-8")
            print(row, flush=True)
    rows = [
        Row(**json.loads(path.read_text(encoding="utf-8")))
        for path in options.folder.glob(f"*-{options.seconds:g}s.json")
    ]
    _write(rows, _spline(validation), options.seconds, len(train))


def _pairs(folder: Path, n: int) -> tuple[CachedPairs, CachedPairs]:
    structures = ("microtubules", "er", "lysosomes")
    domain = CALIBRATED.model_copy(update={"structures": structures, "photons": (100.0, 1000.0)})
    maker = RawGroupPairs(SIDE, tuple(range(9)), "sim", domain)
    return (
        CachedPairs(write_pairs(folder / "pairs-train", maker, n, seed=SEED)),
        CachedPairs(write_pairs(folder / "pairs-validation", maker, 8, seed=SEED + 1)),
    )


def _measure(name: str, train: CachedPairs, validation: CachedPairs, seconds: float) -> Row:
    enlarged, parameters = name in _ENLARGED, PARAMETERS[name]
    config = TrainConfig(
        architecture=name, parameters=parameters, steps=10**6, batch=4,
        patch=64 if enlarged else 32, schedule="constant", warmup_steps=20, ema_decay=0.98,
        precision="fp32", loss=LossConfig(kind="l1"), seed=1, device="cpu", threads=1, loaders=1,
        read_ahead=2, log_every=2, validate_every=10**9, checkpoint_every=10**9,
    )  # fmt: skip
    sources = Widefield(train, enlarged), Widefield(validation, enlarged)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, *sources, Path(folder))
        start, steps = time.process_time(), 0

        def watch(progress: Any) -> None:
            nonlocal steps
            steps = progress.step
            if time.process_time() - start > seconds:
                raise _BudgetOver

        with contextlib.suppress(_BudgetOver):
            trainer.run(watch)
        network = trainer.average.eval().to(memory_format=torch.contiguous_format)
        frames, targets = sources[1].validation(8)
        with torch.inference_mode():
            predicted = np.concatenate(
                [network(torch.from_numpy(frame[None])).numpy() for frame in frames]
            )
        size = sum(p.numel() for p in network.parameters() if p.requires_grad)
        scores = _scores(predicted, targets)
        return Row(name, size, steps, *scores, *_exported(network, frames[:1], Path(folder)))


def _scores(predicted: NDArray[np.float32], targets: NDArray[np.float32]) -> tuple[float, float]:
    """Return means over the pairs: PSNR, whose peak is the truth's brightest pixel, and PCC."""
    psnr, pcc = [], []
    for p, t in zip(predicted, targets, strict=True):
        psnr.append(10 * np.log10(float(t.max()) ** 2 / float(np.mean((p - t) ** 2))))
        pcc.append(np.corrcoef(p.ravel(), t.ravel())[0, 1])
    return float(np.mean(psnr)), float(np.mean(pcc))


def _exported(
    network: torch.nn.Module, frames: NDArray[np.float32], folder: Path
) -> tuple[float | None, float | None, str]:
    """Return CPU time of one frame in ms, size compiled in kB, and why there is none."""
    path = folder / "model.onnx"
    try:
        export_onnx(network, path, 1, multiple_of=network.multiple_of)
    except ExportError as e:
        return None, None, str(e)
    ms = _milliseconds(path, frames)
    try:
        from livesr.live.inference.tensorrt_build import RTX, build

        plan, _ = build(path.read_bytes(), "f16", frames.shape, RTX, capability=RTX_CAPABILITY)
    except Exception as e:  # what does not compile is a row, not the end of the page
        return ms, None, str(e)
    return ms, len(plan) / 1e3, ""


def _milliseconds(path: Path, frames: NDArray[np.float32]) -> float:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    times = []
    for _ in range(6):
        start = time.process_time()
        compiled(frames)
        times.append(1e3 * (time.process_time() - start))
    return float(np.median(times[1:]))


def _spline(validation: CachedPairs) -> tuple[float, float]:
    frames, targets = validation.validation(8)
    enlarged = np.stack(
        [zoom(f.mean(0), 2, order=3, grid_mode=True, mode="nearest")[None] for f in frames]
    )
    return _scores(enlarged, targets)


def _write(rows: list[Row], spline: tuple[float, float], seconds: float, pairs: int) -> None:
    lines = [
        f"{pairs} training pairs and 8 for validation; {seconds:g} s of CPU time of one core for"
        " each training.",
        "",
        "| network | parameters | steps | PSNR, dB | PCC | CPU, ms | compiled, kB | TensorRT for"
        " RTX |",
        "|---|---|---|---|---|---|---|---|",
        f"| cubic spline | | | {spline[0]:.1f} | {spline[1]:.3f} | | | |",
    ]
    for row in sorted(rows, key=lambda row: -row.pcc):
        ms = "" if row.ms is None else f"{row.ms:.0f}"
        compiled = "" if row.compiled_kb is None else f"{row.compiled_kb:,.0f}"
        yes = "yes" if row.compiled_kb else f"no: {row.why_not}"
        lines.append(
            f"| `{row.network}` | {row.parameters:,} | {row.steps} | {row.psnr_db:.1f} |"
            f" {row.pcc:.3f} | {ms} | {compiled} | {yes} |"
        )
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
