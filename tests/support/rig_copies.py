"""Copies of shipped rigs with something changed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tifffile
import yaml

from livesr.base.config import RigConfig, load_rig

RIGS = Path(__file__).parents[2] / "hardware_configs"


def rig_with(
    folder: Path,
    name: str = "demo",
    maps: Mapping[str, np.ndarray] = MappingProxyType({}),
    **corrections: Any,
) -> RigConfig:
    """A copy of a shipped rig with corrections; `maps` are written beside it."""
    target = folder / name
    shutil.copytree(RIGS / name, target)
    for file, pixels in maps.items():
        tifffile.imwrite(target / f"{file}.tif", pixels, photometric="minisblack")
    text = yaml.safe_load((target / "rig.yaml").read_text(encoding="utf-8"))
    (target / "rig.yaml").write_text(
        yaml.safe_dump({**text, "corrections": corrections}), encoding="utf-8"
    )
    return load_rig(target)


def corrected_sim_rig(folder: Path, chip: int = 40) -> RigConfig:
    """The virtual SIM rig with an uneven offset, an uneven field and bad pixels."""
    rng = np.random.default_rng(5)
    bad = np.zeros((chip, chip), np.uint8)
    bad[9::7, 4::9] = 1
    maps = {
        "offset": rng.normal(100, 8, bad.shape).astype(np.float32),
        "flat": rng.uniform(0.7, 1.3, bad.shape).astype(np.float32),
        "bad": bad,
    }
    return rig_with(
        folder,
        "virtual_sim",
        maps,
        offset="offset.tif",
        flat={"488": "flat.tif"},
        bad_pixels="bad.tif",
    )
