"""What TensorRT for RTX makes of every shipped engine, by its builder's own figures: a table.

Needs no GPU. The full network is compiled with random weights, which changes none of the figures.

    python scripts/plan_sizes.py --card ada
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from livesr.live.inference.cards import capability_of
from livesr.live.inference.engine import engine_folders, load_engine
from livesr.live.inference.tensorrt_build import RTX, build, figures

SIDES = (512, 1024)


class Network(NamedTuple):
    """An ONNX file, and what it is computed in."""

    name: str
    inputs: int
    precision: str
    model: bytes


def shipped() -> Iterator[Network]:
    """Yield every engine that comes with livesr, in FP16 and in INT8 where it has codes."""
    for name, folder in engine_folders().items():
        engine = load_engine(folder)
        yield Network(name, engine.manifest.inputs, "f16", engine.read())
        if engine.int8_path:
            yield Network(name, engine.manifest.inputs, "int8", engine.read_int8())


def published() -> Iterator[Network]:
    """Yield the full IMC-SR, with random weights, and DFCAN as published."""
    from livesr.export.onnx import export_onnx
    from livesr.training.networks import build as made

    for name, architecture in (("IMC-SR 5x10x64", "imcsr"), ("DFCAN 4x4x64", "dfcan")):
        network = made(architecture)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            export_onnx(network, path, 3, multiple_of=network.multiple_of)
            yield Network(name, 3, "f16", path.read_bytes())


def row(network: Network, capability: int) -> str:
    """Return a line of the table: plan and memory at each size."""
    cells = []
    for side in SIDES:
        shape = (1, network.inputs, side, side)
        plan, _ = build(network.model, network.precision, shape, RTX, capability=capability)
        said = figures(RTX)
        cells += [f"{len(plan) / 1e6:.1f}", f"{said['frame_bytes'] / 1e6:.0f}"]
    weights = f"{said['weight_bytes'] / 1e6:.1f}"
    return " | ".join([network.name, network.precision, str(said["layers"]), weights, *cells])


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", default="ada")
    capability = capability_of(parser.parse_args().card)
    print(f"{RTX.said_version}, sm_{capability}\n")
    heads = [text for n in SIDES for text in (f"plan, {n}²", f"memory, {n}²")]
    print("| " + " | ".join(["network", "precision", "layers", "weights", *heads]) + " |")
    print("|" + "---|" * (4 + len(heads)))
    for network in (*shipped(), *published()):
        print(f"| {row(network, capability)} |", flush=True)


if __name__ == "__main__":
    main()
