"""How near a run on a virtual rig came to the truth that only a simulation knows.

Owns the frames kept for it and the picture of them. Runs after the acquisition, never during.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, RunError
from livesr.base.frames import MulticolorFrame

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

    from livesr.live.inference.engine import Manifest

_KEPT = 8
_COLUMNS = 3  # of the picture
_MARGIN = 1 / 12  # a reconstruction fades towards the edges: score what lies inside


def stained_for(rig: RigConfig) -> tuple[str, ...]:
    """Return the structures that the rig's engines separate, as the virtual rig calls them.

    () if there is none, or one that the virtual rig cannot show.
    """
    from livesr.simulation.specimens import simulated

    return simulated(name for manifest in _separating(rig) for name in manifest.channel_names)


def haze_shown(rig: RigConfig) -> bool:
    """Return whether an engine of the rig draws structures with their haze."""
    return any(manifest.haze for manifest in _separating(rig))


def _separating(rig: RigConfig) -> list[Manifest]:
    from livesr.live.inference.engine import load_engine

    engines = [channel.separate for channel in rig.channels.values() if channel.separate]
    return [load_engine(engine).manifest for engine in engines]


def require_truth(rig: RigConfig) -> None:
    """Raise ConfigError unless the virtual rig knows the truth of everything that the rig's engines
    separate.
    """
    from livesr.simulation.specimens import STRUCTURES

    if not stained_for(rig):
        engines = [channel.separate for channel in rig.channels.values() if channel.separate]
        raise ConfigError(
            f"The virtual rig has no truth for {', '.join(engines) or 'a run without engine'}; it"
            f" knows {', '.join(STRUCTURES)}. Leave --picture out, or choose another engine."
        )


class TruthScore:
    """Keeps a few separated frames of a run and compares them with the truth afterwards.

    Parameters
    ----------
    frames : length of the run; the kept ones are spread over it
    measurement : what a picture of a measurement is called
    haze : whether the engine is to find the structures' light from far out of focus
    """

    def __init__(self, frames: int, measurement: str, *, haze: bool = False) -> None:
        self._measurement, self._haze = measurement, haze
        self._every = max(frames // _KEPT, 1)
        self._kept: list[MulticolorFrame] = []

    def keep(self, frame: MulticolorFrame) -> None:
        """Take a frame; connect this to `LiveSR.frame_ready`."""
        if frame.t % self._every == self._every // 2 and not frame.provisional:
            self._kept.append(frame)

    def compute(self, core: CMMCorePlus, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return ``{channel: {pcc, ssim, nrmse, input_pcc}}``, means over the kept frames.

        {} on a rig without a truth.

        The truth is the structure alone, noise-free, at the SIM passband, with its haze if the
        engine is to find that. `input_pcc` is what the measurement itself would score as that
        channel.
        """
        from livesr.evaluation.metrics import score

        scores: dict[str, list[tuple[float, ...]]] = {}
        for frame, truths in self._with_truth(core):
            for label, prediction in zip(labels, frame.channels, strict=True):
                if (truth := truths.get(label.casefold())) is None:
                    continue
                s = score(_inner(prediction), _inner(truth))
                as_input = score(_inner(frame.source.image), _inner(truth))
                scores.setdefault(label, []).append((s.pcc, s.ssim, s.nrmse, as_input.pcc))
        names = ("pcc", "ssim", "nrmse", "input_pcc")
        return {
            label: {
                n: round(float(v), 4) for n, v in zip(names, np.mean(values, axis=0), strict=True)
            }
            for label, values in scores.items()
        }

    def picture(
        self, core: CMMCorePlus, channel: Mapping[str, Any], path: Path, crop: int = 320
    ) -> None:
        """Write a PNG: measurement, composite, the channels, and the truth of each.

        The middle frame of those kept.

        Raises
        ------
        RunError
            If no frame was kept.
        ConfigError
            If the picture cannot be written.
        """
        from livesr.evaluation.contact_sheet import save
        from livesr.viewer.composite import ChannelView, PanelLabel, composite, grayscale, panel

        if not self._kept:
            raise RunError(
                "No separated frame came that could be drawn: the network skipped them all. Try"
                " --policy complete."
            )
        frame, truths = list(self._with_truth(core))[len(self._kept) // 2]
        colors = dict(zip(channel["labels"], channel["colors"], strict=True))
        cut = _centre(frame.channels.shape[1:], crop)
        truth = np.stack([np.clip(truths[n.casefold()], 0, 65535) for n in colors]).astype(
            np.uint16
        )
        views = [
            ChannelView(c, w, 0.8) for c, w in zip(colors.values(), frame.display, strict=True)
        ]
        highs = [float(np.percentile(t, 99.8)) for t in truth]
        true_views = [
            ChannelView(c, (0, high), 0.8) for c, high in zip(colors.values(), highs, strict=True)
        ]
        measured = np.clip(frame.source.image + 1000, 0, 65535).astype(np.uint16)
        low, high = np.percentile(measured[cut], (1, 99.8))
        images: list[NDArray[np.uint8] | None] = [
            grayscale(measured[cut], (low, high)),
            composite(np.ascontiguousarray(frame.channels[:, *cut]), views),
        ]
        labels: list[PanelLabel | None] = [
            PanelLabel(self._measurement, "measurement"),
            PanelLabel("Separated", "prediction"),
        ]
        images.append(composite(np.ascontiguousarray(truth[:, *cut]), true_views))
        labels.append(PanelLabel("Simulated truth", "ground truth"))
        for kind, stack, shown in (
            ("prediction", frame.channels, views),
            ("ground truth", truth, true_views),
        ):
            for i, (name, color) in enumerate(colors.items()):
                images.append(composite(np.ascontiguousarray(stack[i : i + 1, *cut]), [shown[i]]))
                labels.append(PanelLabel(name, kind, color))  # type: ignore[arg-type]
            images += [None] * (-len(colors) % _COLUMNS)
            labels += [None] * (-len(colors) % _COLUMNS)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = panel(images, labels, channel["pixel_size_um"], columns=_COLUMNS, tile=320)
        save(drawn, path)

    def _with_truth(
        self, core: CMMCorePlus
    ) -> Iterator[tuple[MulticolorFrame, dict[str, NDArray[np.float32]]]]:
        """Yield the kept frames in order of time, each with the truth at the time that it shows."""
        from livesr.simulation.camera import KnowsTruth, find_virtual_camera

        camera = find_virtual_camera(core, KnowsTruth)
        if camera is None:
            return
        for frame in sorted(self._kept, key=lambda f: camera.shown[f.t]):
            yield frame, camera.truth(camera.shown[frame.t], haze=self._haze)


def _inner(image: NDArray[Any]) -> NDArray[np.float32]:
    y, x = (int(n * _MARGIN) for n in image.shape)
    return np.asarray(image[y : image.shape[0] - y, x : image.shape[1] - x], np.float32)


def _centre(shape: tuple[int, ...], crop: int) -> tuple[slice, slice]:
    y, x = (max((n - crop) // 2, 0) for n in shape)
    return slice(y, y + min(crop, shape[0])), slice(x, x + min(crop, shape[1]))
