"""The true channels of a superposition as training images.

A folder for each structure, and the recipe that reads them. A run without superposition has its
reconstructions beside their exposures instead (`group_pairs.py`).

Owns the folder that `livesr train --recipe FOLDER/recipe.yaml` takes. What is made of the images is
`livesr.training`'s: patches of each structure are added at random brightness, so that one recording
gives many pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from livesr.base.config import load_yaml
from livesr.base.errors import ConfigError
from livesr.base.files import check_folder
from livesr.base.frames import RawStack, SRFrame, Stream
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.formats.layout import folder_names
from livesr.live.sinks.group_pairs import BORDER, GroupPairs, PlanesFile, grouped, prefix_of
from livesr.live.sinks.sink import Sink, to_uint16

_PATCH, _SMALLEST_PATCH = 128, 64
_COLORS = ("00FF00", "FF00FF", "FFFF00", "00FFFF", "FF8000", "FFFFFF")
_PAIRS, _VALIDATION_PAIRS = 2400, 96


class PairsSink(Sink):
    """Writes the reconstructions of the true channels as TIFF (t, y, x), uint16 with the run's
    offset.

    Consecutive time points of one stream share a file; a gap, or a frame that does not show its
    patterns, begins another. Files of former runs stay, and so does a recipe that is there.

    Parameters
    ----------
    folder : created if needed
    """

    name = "pairs"
    lossless = essential = True

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._folders: dict[str, str] = {}
        self._files: dict[Stream, PlanesFile] = {}
        self._run: RunDescription | None = None
        self._prefix = ""
        self._groups: GroupPairs | None = None

    def check(self) -> None:
        """Look whether the folder takes files.

        Raises
        ------
        ConfigError
            If it does not.
        """
        try:
            check_folder(self.folder)
        except OSError as e:
            raise ConfigError(
                f"Cannot write pairs into {self.folder}: {e.strerror or e}. Choose a folder that"
                " you can write to."
            ) from e

    def open(self, run: RunDescription) -> None:
        """Make the folders and the recipe.

        Raises
        ------
        ConfigError
            If the run superposes nothing and makes no picture of several exposures, its pictures
            are too small to train on, or the folder is that of other structures.
        """
        summed = next((c for c in run.channels if c.parts), None)
        if summed is None:
            if not grouped(run):
                raise ConfigError(
                    "Pairs are the true channels of a superposition, or pictures beside the"
                    " exposures that they are made of: say with --superpose which channels they"
                    " are, or use a rig that makes a finer picture of several exposures."
                )
            self._groups = GroupPairs(self.folder, run)
            return
        side = min(n - 2 * int(n * BORDER) for n in summed.recon_shape) // 8 * 8
        if side < _SMALLEST_PATCH:
            raise ConfigError(
                f"Reconstructions of {summed.recon_shape[0]}x{summed.recon_shape[1]} pixels are too"
                f" small to train on: without their edges they need {_SMALLEST_PATCH} on each side."
                " Use a larger region."
            )
        labels = summed.labels if len(summed.labels) == len(summed.parts) else summed.parts
        recipe = self.folder / "recipe.yaml"
        if (
            recipe.exists()
            and (known := tuple(load_yaml(recipe)["data"]["images"]["folders"])) != labels
        ):
            raise ConfigError(
                f"{self.folder} holds pairs of {', '.join(known)}, and this run shows"
                f" {', '.join(labels)}: give another folder."
            )
        folders = folder_names(tuple(labels))
        self._folders = dict(zip(summed.parts, folders, strict=True))
        for folder in folders:
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        if not recipe.exists():
            text = yaml.safe_dump(_recipe(self.folder, labels, summed, side), sort_keys=False)
            recipe.write_text(text, encoding="utf-8")
        self._run = run
        self._prefix = prefix_of(run)

    def raw(self, stack: RawStack) -> None:
        """Keep exposures that a picture is made of."""
        if self._groups:
            self._groups.raw(stack)

    def recon(self, frame: SRFrame) -> None:
        """Keep a picture that shows its patterns: of a true channel, or beside its exposures."""
        if self._groups:
            self._groups.recon(frame)
            return
        if frame.stream.channel not in self._folders:
            return
        if frame.quality and not frame.quality.resolved:
            self._end(frame.stream)
            return
        file = self._files.get(frame.stream)
        if file and not file.continues(frame.t):
            self._end(frame.stream)
        if frame.stream not in self._files:
            self._files[frame.stream] = PlanesFile(self._path(frame), frame.t)
        assert self._run is not None
        y, x = (int(n * BORDER) for n in frame.image.shape)
        inside = frame.image[y : frame.image.shape[0] - y, x : frame.image.shape[1] - x]
        self._files[frame.stream].write(to_uint16(inside, self._run.recon_offset_adu))

    def close(self, report: Mapping[str, Any]) -> None:
        """Finish the files."""
        if self._groups:
            self._groups.close()
            self._groups = None
        for stream in list(self._files):
            self._end(stream)

    def _path(self, frame: SRFrame) -> Path:
        position, channel, z = frame.stream
        name = f"{self._prefix}_p{position:03d}_z{z:03d}_t{frame.t:06d}.tif"
        return self.folder / self._folders[channel] / name

    def _end(self, stream: Stream) -> None:
        if file := self._files.pop(stream, None):
            file.close()


def _recipe(
    folder: Path,
    labels: tuple[str, ...],
    summed: ChannelDescription,
    side: int,
) -> dict[str, Any]:
    """Return the recipe of a light engine for these structures.

    The fields are those of `livesr.training.recipes`.
    """
    nm = round(1e3 * summed.recon_pixel_size_um, 3)
    modality = summed.recon_method.removeprefix("sum of ")
    colors = summed.colors if len(summed.colors) == len(labels) else _COLORS
    size = min(side, _PATCH)
    return {
        "description": (
            f"{', '.join(labels)}: an engine trained on the true channels of a superposition."
        ),
        "data": {
            "train": _PAIRS,
            "validation": _VALIDATION_PAIRS,
            "size": size,
            "seed": 1,
            "validation_seed": 2,
            "images": {
                "folders": {
                    label: str((folder / name).absolute())
                    for label, name in zip(labels, folder_names(tuple(labels)), strict=True)
                },
                "pixel_size_nm": nm,
                "modality": modality,
                "on_bad_file": "skip",  # the last file of a killed run
            },
        },
        "train": {
            "architecture": "imcsr",
            "parameters": {
                "frames": 3,
                "channels": len(labels),
                "width": 64,
                "groups": 2,
                "blocks": 4,
                "reduction": 16,
                "unshuffle": 4,
                "head": "partition",
            },
            "minutes": 70,
            "batch": 8,
            "patch": size,
            "warmup_steps": 500,
            "restarts": 2,
        },
        "engine": {
            "id": "own-" + "-".join(_safe(label).lower() for label in labels),
            "version": "0.1",
            "task": "separate",
            "window": 3,
            "channels": [
                {"name": label, "color": colors[i % len(colors)]} for i, label in enumerate(labels)
            ],
            "pixel_size_nm": {"min": round(0.87 * nm, 2), "max": round(1.13 * nm, 2)},
            "modality": [modality],
        },
    }


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip(".-") or "structure"
