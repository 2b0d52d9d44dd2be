"""What a recipe says about its pairs, and the makers of them.

Owns the `data` section's fields and the choice of the maker.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from livesr.base.config import Model
from livesr.simulation.domain import Domain
from livesr.simulation.sequence import default_modality, drawable, sequences_of
from livesr.training.composites import CoarsePairs, CompositePairs
from livesr.training.degradation import Degradation
from livesr.training.emitters import EmitterPairs
from livesr.training.images import OwnImages
from livesr.training.pair_folder import PairMaker
from livesr.training.paired import PairedPairs
from livesr.training.raw_groups import RawGroupPairs
from livesr.training.simulated import SimulatedPairs, UpscalePairs
from livesr.training.sparse import SparsePairs


class DataConfig(Model):
    """How many pairs, how large, drawn from what.

    Training and validation never share a seed or a file.
    """

    kind: Literal["separate", "upscale", "reconstruct", "paired", "localise", "sparse"] = "separate"
    """"paired" takes own images of two kinds, `noisy/` and `clean/`, see
    `livesr.training.paired`; "localise" are frames of single emitters and their density map;
    "sparse" are few localisations with widefield, and all of them."""
    scale: Literal[1, 2, 3, 4] = 1
    """For "upscale": how much coarser the input is sampled. That of pairs follows from their
    sizes."""
    degradation: Degradation | None = None
    """For "upscale": noise that the coarse image gets as well, PSSR's."""
    frames: tuple[int, ...] = ()
    """For "reconstruct": which raw frames of a group the network sees, by their place in it."""
    modality: str = Field(default_factory=default_modality)
    """Of simulated images for upscaling, and of raw frames."""
    train: Annotated[int, Field(ge=1)]
    validation: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=64)] = 256
    seed: int
    validation_seed: int
    domain: Domain = Domain()
    recombined: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training crops of a separation that are composed anew, see `RecombinedPairs`."""
    plain: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the composed crops as one microscope gives them; the others are sharper, softer,
    magnified, denoised, each structure in its own way."""
    unknown: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the composed crops with a structure that the network is not to know, see
    `RecombinedPairs`. Networks with `unknown: true` in their parameters leave its light to none of
    their structures."""
    images: OwnImages | None = None
    """Own images instead of simulated ones."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "upscale") != (self.scale > 1):
            raise ValueError(
                f"kind {self.kind!r} with scale {self.scale}: give 'upscale' a scale of 2, 3 or 4"
            )
        if (self.kind == "reconstruct") != bool(self.frames):
            raise ValueError(
                f"kind {self.kind!r} with frames {list(self.frames)}: 'reconstruct' names the raw"
                " frames of a group, as [0, 3, 6], and no other kind does"
            )
        if self.kind == "paired" and self.images is None:
            raise ValueError("'paired' takes own images: name their folders in 'images'")
        if self.kind in {"localise", "sparse"} and self.images is not None:
            raise ValueError(f"pairs of kind {self.kind!r} are simulated: leave out 'images'")
        if self.degradation and self.kind != "upscale":
            raise ValueError(f"kind {self.kind!r} has no degradation; 'upscale' has")
        if self.size % (2 * self.scale):
            raise ValueError(f"size {self.size} is no multiple of twice the scale {self.scale}")
        if self.recombined and self.kind != "separate":
            raise ValueError(
                f"recombined is {self.recombined}, but only pairs of kind 'separate' can be"
                " composed anew"
            )
        if self.domain.haze_in_truth and self.kind != "separate":
            raise ValueError(
                f"haze_in_truth is for pairs of kind 'separate', whose truth are structures; those"
                f" of kind {self.kind!r} are the same with and without: leave it out"
            )
        if self.unknown and not self.recombined:
            raise ValueError(
                f"unknown is {self.unknown} of the crops that are composed anew, and recombined is"
                " 0: set it too"
            )
        if self.kind == "upscale" and self.images is None and self.modality not in drawable():
            raise ValueError(
                f"modality is {self.modality!r}; images can be simulated of {', '.join(drawable())}"
            )
        if self.seed == self.validation_seed:
            raise ValueError(
                "training and validation have the same seed, and would be the same pairs;"
                " change one"
            )
        return self

    @property
    def whole_groups(self) -> bool:
        """Whether a network sees all that a pair holds, instead of a window of frames in time."""
        return self.kind not in {"separate", "upscale"}

    @property
    def haze_in_truth(self) -> bool:
        """Whether a structure is to be found with its haze; images of one structure hold theirs."""
        return self.domain.haze_in_truth or (self.kind == "separate" and self.images is not None)

    def maker(self, part: Literal["train", "validation"]) -> PairMaker:
        """Return what makes the pairs of `part`; raises ConfigError if own images cannot serve."""
        bad = self.degradation
        if self.images is None:
            if self.kind == "separate":
                return SimulatedPairs(self.size, self.domain)
            if self.kind == "localise":
                return EmitterPairs(self.size, self.domain)
            if self.kind == "sparse":
                return SparsePairs(self.size, self.modality, self.domain)
            if self.kind == "reconstruct":
                return RawGroupPairs(self.size, self.frames, self.modality, self.domain)
            return UpscalePairs(self.size, self.scale, self.modality, self.domain, bad)
        if self.kind == "separate":
            return CompositePairs.find(self.images, self.size, part)
        if self.kind == "upscale":
            return CoarsePairs.find(self.images, self.size, self.scale, part, bad)
        return PairedPairs.find(self.images, self.size, self.frames, part)

    def describe(self) -> str:
        """Say what the pairs are, for the model card."""
        if self.images is not None:
            names = ", ".join(self.images.folders)
            if self.kind in {"paired", "reconstruct"}:
                given = "own raw groups" if self.frames else "own images"
                return f"{self.train} crops of {given} of {names}, and of their clean partners"
            return f"{self.train} pairs mixed from own images of {names}"
        names = ", ".join(self.domain.structures)
        if self.kind == "reconstruct":
            return (
                f"{self.train} groups of {len(self.frames)} simulated {self.modality.upper()} raw"
                f" frames of {names}, with the specimen at the passband of the ideal method"
            )
        if self.kind == "sparse":
            return (
                f"{self.train} simulated {self.modality.upper()} images of {names}: few of their"
                " localisations with widefield, and all of them"
            )
        if self.kind == "localise":
            return (
                f"{self.train} simulated frames of 0.2 to 8 emitters/um^2, with their density map"
            )
        if self.kind == "upscale":
            return (
                f"{self.train} simulated {self.modality.upper()} images of {names}, sampled"
                f" {self.scale} times more coarsely{', with noise' if self.degradation else ''}"
            )
        return (
            f"{self.train} sequences of simulated {names}, through livesr's own raw"
            f" {sequences_of().title} formation and reconstruction"
        )

    def settings(self) -> dict[str, Any]:
        """Return what the engine's manifest keeps."""
        shares = {"recombined": self.recombined, "unknown": self.unknown}
        told = {name: share for name, share in shares.items() if share}
        return {"data": self.describe(), "pairs": self.train, "data_seed": self.seed, **told}
