"""Weights that a network begins with instead of random ones: those of a run or of an engine.

Owns where they come from and which of them fit. EDSR trains x3 and x4 from the weights of x2 (Lim
et al. 2017): what stands before the upsampling is the same.

A tensor fits by its name and shape. Those that draw the images fit image by image, by what is
drawn: the same structure, light of none, unknown light, the correction of the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from livesr.base.documents import read_json
from livesr.live.inference.engine import load_engine, sha256_of
from livesr.training import networks
from livesr.training.networks.imcsr import (
    CORRECTION,
    IMCSR,
    NO_STRUCTURE,
    RCAB,
    UNKNOWN_LIGHT,
    IMCSRSingle,
)

START_NAME = "start.json"
"""File of a run's folder: its `Start`."""

RECIPE_NAME = "recipe.json"
"""File of a run's folder: its recipe."""

_IN_KNOWN_LIGHT = "network."  # before it where the export wrapped the network in `KnownLight`
_LITTLE_UNKNOWN = -2.0  # logit of unknown light beside those of the structures, at first
_AS_FP16 = ".fp16"  # what the export appends to the name of a kernel that it stores so
_SEPARATE = (IMCSR, IMCSRSingle, networks.RCAN, networks.UNet, networks.DFCAN)
_LAST = ("out.weight", "out.bias")  # of IMC-SR, RCAN, U-Net and DFCAN: a stretch of rows an image
_OF_HAZE = "haze.factors.weight"  # of IMC-SR: a row an image among which light is shared out
_NOT_LIT = (CORRECTION, NO_STRUCTURE)  # no light goes to them
_ONE_EACH = "networks."  # of IMC-SR-Single: before the number of the structure

_IN_ITS_ORDER = (
    "The weights do not say which structures they draw: taken to be those of this network, in its"
    " order."
)
_NOT_BUILT = (
    "livesr cannot build the network of these weights, so that nobody knows what its outputs draw:"
    " taken by their shapes."
)
_NOT_SAID = (
    "The weights do not say which structures they draw, and draw another number of them: the"
    " structures' outputs begin from chance."
)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a network's first weights come from.

    Attributes
    ----------
    name : of the engine, or of the run that made them
    sha256 : of the file with the weights
    tensors, of : how many of the network's tensors begin with them, whole or in part, and how many
        it has
    patches : that they had seen, as far as was written down
    outputs : by image that the network draws, the image of the start whose output it begins with;
        None from chance. {} of a network that draws no structures
    note : what had to be assumed
    """

    name: str
    sha256: str
    tensors: int
    of: int
    patches: int = 0
    outputs: dict[str, str | None] = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what the engine's manifest keeps."""
        return asdict(self)

    def words(self) -> str:
        """Return it as sentences."""
        told = f"Begins with {self.tensors} of {self.of} tensors of {self.name}"
        return " ".join(filter(None, (f"{told}{outputs_in_words(self.outputs)}.", self.note)))


def outputs_in_words(outputs: Mapping[str, str | None]) -> str:
    """Return which outputs were taken over and which were not, to end a sentence; "" for none."""
    said = {
        "outputs taken over": [
            own if own.casefold() == theirs.casefold() else f"{own} (as {theirs})"
            for own, theirs in outputs.items()
            if theirs
        ],
        "from chance": [own for own, theirs in outputs.items() if not theirs],
    }
    return "".join(f"; {what}: {', '.join(names)}" for what, names in said.items() if names)


class _Given(NamedTuple):
    """What a start holds; `structures` is empty where it does not say."""

    name: str
    path: Path
    tensors: dict[str, Tensor]
    patches: int
    architecture: str
    parameters: Mapping[str, Any]
    structures: tuple[str, ...]


def begin_with(
    network: nn.Module,
    start: str,
    structures: Sequence[str] = (),
    begin_as: Mapping[str, str] | None = None,
) -> Start:
    """Copy the tensors of `start` that `network` has by the same name and shape.

    The others stay as they are. Of those that draw the images, what draws the same image is copied:
    a structure by its name, wherever it stands; IMC-SR that draws unknown light begins with next to
    none of it where `start` draws none.

    Residual blocks of IMC-SR of which `start` has nothing add nothing at first, so that a deeper
    network begins as the shallower one.

    Parameters
    ----------
    start : a finished run's folder, its best.pt or final.pt, or an engine that livesr exported (its
        name or folder)
    structures : that `network` draws, in its order; none if nobody knows
    begin_as : structure of `network` to the structure of `start` whose output it begins with, where
        `start` has none of its name

    Raises
    ------
    ValueError
        If nothing of it fits, or `begin_as` names a structure that `network` or `start` does not
        draw.
    EngineError
        If it is neither weights nor an engine.
    """
    given, own = _read(start), network.state_dict()
    outputs, tensors, note = _outputs(network, given, tuple(structures), begin_as or {})
    fitting = {
        key: tensors[key]
        for key in own.keys() & tensors.keys()
        if tensors[key].shape == own[key].shape
    }
    if not fitting:
        raise ValueError(
            f"none of the {len(own)} tensors of this network is in {start}; begin with a network of"
            " its kind"
        )
    network.load_state_dict(fitting, strict=False)
    for block, module in network.named_modules():
        if isinstance(module, RCAB) and not any(key.startswith(f"{block}.") for key in fitting):
            module.silence()
    return Start(
        given.name, sha256_of(given.path), len(fitting), len(own), given.patches, outputs, note
    )


def _outputs(
    network: nn.Module, given: _Given, structures: tuple[str, ...], begin_as: Mapping[str, str]
) -> tuple[dict[str, str | None], dict[str, Tensor], str]:
    """Return which image begins with which, the tensors with those images where `network` has them,
    and what had to be assumed.
    """
    if not isinstance(network, _SEPARATE):
        return {}, given.tensors, ""
    try:
        with torch.device("meta"):
            former = networks.build(given.architecture, **given.parameters)
    except ValueError:  # another package's, or another version's
        return {}, given.tensors, _NOT_BUILT
    ours, theirs, note = _names(network, former, structures, given.structures)
    pairs = _pairs(ours, theirs, begin_as) if _alike(network, former) else dict.fromkeys(ours)
    if isinstance(network, IMCSRSingle):
        return pairs, _moved(given.tensors, ours, theirs, pairs), note
    ours, theirs = _images(network, ours), _images(former, theirs)
    pairs = {image: pairs.get(image, image if image in theirs else None) for image in ours}
    own, tensors = network.state_dict(), dict(given.tensors)
    made = {name: _rows(own[name], tensors.pop(name, None), ours, theirs, pairs) for name in _LAST}
    hazes = tensors.pop(_OF_HAZE, None)
    if not _alike(network, former) or any(rows is None for rows in made.values()):
        return dict.fromkeys(ours), tensors, note
    if _OF_HAZE in own:
        lit, also = ([one for one in of if one not in _NOT_LIT] for of in (ours, theirs))
        # How hazy a structure is follows from what it is, not from what it looks like.
        same = {
            one: of if (of := pairs[one]) and of.casefold() == one.casefold() else None
            for one in lit
        }
        made[_OF_HAZE] = _rows(own[_OF_HAZE], hazes, lit, also, same)
    return pairs, {**tensors, **{name: of for name, of in made.items() if of is not None}}, note


def _names(
    network: nn.Module, former: nn.Module, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return the structures of both, and what had to be assumed of them."""
    n, m = (int(getattr(of, "structures", of.channels)) for of in (network, former))
    known = len(ours) == n, len(theirs) == m
    if all(known):
        return ours, theirs, ""
    numbered = tuple(f"structure {i + 1}" for i in range(n))
    if n == m:
        names = ours if known[0] else theirs if known[1] else numbered
        return names, names, _IN_ITS_ORDER
    return ours if known[0] else numbered, ("",) * m, _NOT_SAID


def _alike(network: nn.Module, former: nn.Module) -> bool:
    """Return whether an output of one means to the other what it means to itself.

    A sigmoid's is an image, that of a head which shares out light a logit.
    """
    if not isinstance(network, type(former)):
        return False
    if isinstance(network, IMCSRSingle):
        network, former = network.networks[0], former.networks[0]
    kinds = [
        (of.head_kind == "sigmoid", of.unshuffle) if isinstance(of, IMCSR) else ()
        for of in (network, former)
    ]
    return kinds[0] == kinds[1]


def _pairs(
    ours: Sequence[str], theirs: Sequence[str], begin_as: Mapping[str, str]
) -> dict[str, str | None]:
    """Return the structure of the start that each of ours begins with, None for chance."""
    by_name = {name.casefold(): name for name in theirs}
    also = {name.casefold(): other.casefold() for name, other in begin_as.items()}
    _check_drawn(begin_as, ours, "this network")
    if any(theirs):
        _check_drawn(begin_as.values(), theirs, "the start")
    return {
        name: by_name.get(name.casefold()) or by_name.get(also.get(name.casefold(), "")) or None
        for name in ours
    }


def _check_drawn(named: Iterable[str], drawn: Sequence[str], whose: str) -> None:
    known = {name.casefold() for name in drawn}
    if strange := [name for name in named if name.casefold() not in known]:
        raise ValueError(
            f"begin_as names {', '.join(strange)}, and {whose} draws {', '.join(drawn)}"
        )


def _images(network: nn.Module, structures: tuple[str, ...]) -> tuple[str, ...]:
    return network.images(structures) if isinstance(network, IMCSR) else structures


def _rows(
    own: Tensor,
    given: Tensor | None,
    ours: Sequence[str],
    theirs: Sequence[str],
    pairs: Mapping[str, str | None],
) -> Tensor | None:
    """Return `own` with the rows of `given` for every image that both draw.

    None if they do not fit, or no image is drawn by both.
    """
    rows = len(own) // len(ours)
    fits = given is not None and given.shape == (rows * len(theirs), *own.shape[1:])
    if given is None or not fits or not any(pairs.values()):
        return None
    made = own.clone()
    for image, part in zip(ours, made.split(rows), strict=True):
        if (other := pairs[image]) is not None:
            part.copy_(given.split(rows)[theirs.index(other)])
        elif image == UNKNOWN_LIGHT and own.ndim == 1:  # the bias
            part.fill_(_LITTLE_UNKNOWN)
    return made


def _moved(
    given: Mapping[str, Tensor],
    ours: Sequence[str],
    theirs: Sequence[str],
    pairs: Mapping[str, str | None],
) -> dict[str, Tensor]:
    """Return the tensors of one network a structure, each at the number that is its now."""
    moved: dict[str, Tensor] = {}
    for i, name in enumerate(ours):
        if (other := pairs[name]) is not None:
            before = f"{_ONE_EACH}{theirs.index(other)}."
            moved |= {
                f"{_ONE_EACH}{i}.{key.removeprefix(before)}": tensor
                for key, tensor in given.items()
                if key.startswith(before)
            }
    return moved


def _read(start: str) -> _Given:
    path = Path(start)
    if (path / "best.pt").is_file():
        path /= "best.pt"
    if path.is_file() and path.suffix == ".pt":
        stored = _stored(path)
        return _Given(
            f"run {path.resolve().parent.name}",
            path,
            stored["state"],
            stored.get("patches", 0),
            stored["architecture"],
            stored["parameters"],
            tuple(stored.get("structures") or _structures_of_recipe(path.parent / RECIPE_NAME)),
        )
    engine = load_engine(start)
    return _Given(
        engine.manifest.id,
        engine.onnx_path,
        _initialisers(engine.read()),
        engine.manifest.training.get("patches", 0),
        engine.manifest.architecture,
        engine.manifest.parameters,
        tuple(engine.manifest.channel_names),
    )


def _stored(path: Path) -> dict[str, Any]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # whatever pickle and zip raise of other bytes
        raise ValueError(f"{path} cannot be read as weights ({type(e).__name__})") from e
    if not isinstance(stored, dict) or not {"architecture", "parameters", "state"} <= stored.keys():
        raise ValueError(
            f"{path} holds no weights that livesr train wrote; give the best.pt or final.pt of a"
            " run, its folder, or an engine"
        )
    return stored


def _structures_of_recipe(path: Path) -> list[str]:
    """Return the structures of a run that was made before weights said them, [] without."""
    if not path.is_file():
        return []
    return [channel["name"] for channel in read_json(path)["engine"]["channels"]]


def _initialisers(model: bytes) -> dict[str, Tensor]:
    import onnx

    tensors = onnx.load_model_from_string(model).graph.initializer
    return {
        tensor.name.removeprefix(_IN_KNOWN_LIGHT).removesuffix(_AS_FP16): torch.from_numpy(
            onnx.numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in tensors
    }
