"""A store played back as if it were a stream, for the preview.

Owns the reading of one series of an OME-Zarr that a run left, and the clock that plays it. Writes nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from livesr.base.errors import StoreError
from livesr.live.sinks.wire import Message, WireChannel, WireHeader

_FRAMES_PER_S = 10.0


class StoreSource:
    """Plays the first position, channel and plane of a store, over and over; a context manager.

    What a `livesr.viewer.subscriber.Subscriber` is for a running stream, this is for a finished one: the preview asks
    either for the newest message. Time points that the network skipped are passed over.

    Parameters
    ----------
    path : the store's root folder
    frames_per_s : playback speed

    Raises
    ------
    StoreError
        If `path` holds no store of livesr.
    """

    def __init__(self, path: str | Path, frames_per_s: float = _FRAMES_PER_S) -> None:
        import zarr

        self._path, self._frames_per_s = Path(path), frames_per_s
        names = _series(self._path)
        self._arrays: dict[str, Any] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        shown: tuple[int, str] | None = None
        for kind, topic in (
            ("sr", "sr/frame"),
            ("recon", "sr/input"),
        ):  # the first channel that is separated, if any is
            for name in (n for n in names if n == kind or n.startswith(f"{kind}_")):
                group = zarr.open_group(self._path / name, mode="r")
                attributes: dict[str, Any] = group.attrs.asdict()
                place = (attributes["livesr"]["position"], attributes["livesr"]["channel"])
                if shown in (None, place):
                    shown = place
                    self._arrays[topic], self._attributes[topic] = group["0"], attributes
                    break
        if not self._arrays:
            raise StoreError(
                f"{self._path} holds neither reconstructions nor predictions to show, only {', '.join(names)}."
            )
        self._log = _log_by_time(self._path, shown)
        longest = max(a.shape[0] for a in self._arrays.values())
        separated = {t for (series, t), line in self._log.items() if series == "sr" and line["state"] == "separated"}
        self._times = sorted(separated) or list(range(longest))
        if not self._times:
            raise StoreError(f"{self._path} holds no frame yet: nothing was recorded, or nothing is finished.")
        self._started_s = time.monotonic()
        self._cached: dict[str, Message] = {}
        self._lock = threading.Lock()
        self.last_rejection = ""
        self.heard, self.ended = True, False

    def __enter__(self) -> StoreSource:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    @property
    def endpoint(self) -> str:
        """The store, in place of an address."""
        return str(self._path)

    @property
    def status(self) -> Mapping[str, Any]:
        """What the run said of itself at its end."""
        report = self._path / "livesr" / "report.json"
        return json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}

    def newest(
        self, topic: str = "sr/frame", *, channel: str | None = None, position: int | None = None, z: int | None = None
    ) -> Message | None:
        """Return the message of the time point that is being played; None for a topic that the store has not."""
        if topic not in self._arrays:
            return None
        step = int((time.monotonic() - self._started_s) * self._frames_per_s)
        with self._lock:
            if (cached := self._cached.get(topic)) is None or cached.header.seq != step:
                cached = self._cached[topic] = self._message(topic, step)
            return cached

    def _message(self, topic: str, step: int) -> Message:
        t = self._times[step % len(self._times)]
        array, attributes = self._arrays[topic], self._attributes[topic]
        pixels = np.asarray(array[t])
        while pixels.ndim > (3 if topic == "sr/frame" else 2):  # the first plane of a z-stack
            pixels = pixels[..., 0, :, :]
        own, ome = attributes["livesr"], attributes["ome"]
        line = self._log.get(("sr" if topic == "sr/frame" else "recon", t), {})
        header = WireHeader(
            type="frame",
            stream=own["stream"],
            seq=step,
            t_pub_ns=time.time_ns(),
            t_acq_ns=line.get("t_acq_ns"),
            channel=own["channel"],
            t=t,
            shape=pixels.shape,
            axes="cyx" if topic == "sr/frame" else "yx",
            offset_adu=own["intensity"]["offset"],
            pixel_size_um=ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"][-1],
            channels=tuple(_channel(c) for c in ome.get("omero", {}).get("channels", ())),
            ai={k: own[k] for k in ("prediction", "warning", "model", "runtime") if k in own},
            residual=line.get("residual"),
            warnings=tuple(line.get("warnings", ())),
        )
        return Message(topic, header, pixels)


def _series(path: Path) -> list[str]:
    listing = path / "OME" / "zarr.json"
    try:
        return list(json.loads(listing.read_text(encoding="utf-8"))["attributes"]["ome"]["series"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StoreError(
            f"{path} is no store of livesr ({e}): expected an OME-Zarr folder that a run has written."
        ) from e


def _log_by_time(path: Path, shown: tuple[int, str] | None) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the last line about each (series, t) of the position and channel that are shown, first plane."""
    from livesr.live.sinks.frames_log import read_frames_log

    log = path / "livesr" / "frames.jsonl"
    lines = read_frames_log(log) if log.is_file() else []
    mine = (e for e in lines if (e["position"], e["channel"]) == shown and e["z"] == 0 and e["state"] != "stray")
    return {(e["series"], e["t"]): e for e in mine}


def _channel(omero: Mapping[str, Any]) -> WireChannel:
    window = omero["window"]
    return WireChannel(label=omero["label"], color=omero["color"], window=(window["start"], window["end"]))
