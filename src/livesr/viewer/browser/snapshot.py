"""What a page shows, as one PNG for the lab book.

Full pixels, each picture named, scale bar, what it is and when it was taken.

Owns the arrangement and the caption. The pictures are drawn in `pictures.py`, the labelled panel in
`composite.py`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from livesr.base.version import __version__
from livesr.formats.layout import MEAN_METHOD
from livesr.modalities.registry import installed
from livesr.viewer.browser.messages import TakeSnapshot, View
from livesr.viewer.browser.pictures import PictureMaker, channel_views, channels_of, overlay_of
from livesr.viewer.composite import PanelLabel, Picture, panel
from livesr.viewer.frame_pairs import FramePair

_MIN_TILE = 480  # pixels: below, the labels would not fit
_BACKGROUND, _INK = "#0d1117", "#98a2ae"


def take_snapshot(
    maker: PictureMaker,
    pair: FramePair,
    view: View,
    wanted: TakeSnapshot,
    status: Mapping[str, Any],
) -> tuple[str, bytes]:
    """Return a file name and the PNG of what a page shows.

    Raises
    ------
    ValueError
        If the pair cannot be drawn.
    """
    picture, pixel_size_um = arranged(maker, pair, view, wanted)
    caption = _caption(pair, status)
    return _file_name(pair), _png(with_caption(picture, caption), caption, pixel_size_um)


def arranged(
    maker: PictureMaker,
    pair: FramePair,
    view: View,
    wanted: TakeSnapshot,
    widest: int | None = None,
) -> tuple[Image.Image, float]:
    """Return the pictures of a view side by side, each named, with a scale bar; and um a pixel.

    Parameters
    ----------
    widest : of one picture, in pixels; None leaves every pixel

    Raises
    ------
    ValueError
        If the pair cannot be drawn.
    """
    drawn = {name: _cut(picture, wanted.field) for name, _, picture in maker.pictures(pair, view)}
    if view.mode == "split" and {"measurement", "composite"} <= set(drawn):
        left, _, right, _ = wanted.field
        share = (wanted.split - left) / max(right - left, 1e-6)
        both = _split(drawn.pop("measurement"), drawn.pop("composite"), min(max(share, 0), 1))
        drawn = {**drawn, "split": both}
    pixel_size_um = _finest_um(pair, tuple(drawn))
    across = max(picture.shape[1] for picture in drawn.values())
    tile = max(_MIN_TILE, across if widest is None else min(across, widest))
    labels = [_label(name, pair, view) for name in drawn]
    return panel(list(drawn.values()), labels, pixel_size_um, tile=tile), pixel_size_um


def _cut(picture: Picture, field: tuple[float, ...]) -> Picture:
    height, width = picture.shape[:2]
    left, right = sorted((round(field[0] * width), round(field[2] * width)))
    top, bottom = sorted((round(field[1] * height), round(field[3] * height)))
    left, top = min(left, width - 1), min(top, height - 1)
    return picture[top : max(bottom, top + 1), left : max(right, left + 1)].copy()


def _split(measured: Picture, predicted: Picture, share: float) -> Picture:
    """Measurement left of the line, prediction right of it, on the prediction's pixels."""
    grey = Image.fromarray(measured).resize(
        (predicted.shape[1], predicted.shape[0]), Image.Resampling.NEAREST
    )
    both, column = predicted.copy(), round(share * predicted.shape[1])
    both[:, :column] = np.asarray(grey)[:, :column, None]
    both[:, max(column - 1, 0) : column + 1] = 255
    return both


def _finest_um(pair: FramePair, names: tuple[str, ...]) -> float:
    """Pixel size of the picture with the most pixels; 1 where the run does not say."""
    measured = set(names) <= {"measurement", "widefield"}
    message = pair.measurement if measured else pair.prediction or pair.measurement
    return (message.header.pixel_size_um if message else None) or 1.0


def _label(name: str, pair: FramePair, view: View) -> PanelLabel:
    if name == "measurement":
        return PanelLabel(_measurement(pair), "measurement")
    if name == "widefield":
        return PanelLabel("Widefield", "measurement")
    if name == "split":
        return PanelLabel("Measurement | prediction", "prediction")
    if name == "composite":
        return PanelLabel((overlay_of(pair, view) or "composite").capitalize(), "prediction")
    label = name.partition(":")[2]
    colors = {
        v.label: c.color for v, c in zip(channels_of(pair), channel_views(pair, view), strict=True)
    }
    return PanelLabel(label, "prediction", colors.get(label))


def _measurement(pair: FramePair) -> str:
    """Return what a measurement is called, by the method that its channel's label names."""
    labels = [c.label for c in pair.measurement.header.channels] if pair.measurement else []
    if labels == [MEAN_METHOD]:
        return MEAN_METHOD.capitalize()
    made = next((m for m in installed() if [m.method] == labels), None)
    return made.picture if made else "Input"


def _caption(pair: FramePair, status: Mapping[str, Any]) -> str:
    header = pair.shown.header
    place = [
        f"position {header.position_name}" if header.position_name else "",
        header.channel,
        f"t {header.t}",
    ]
    taken = ""  # nobody knows, of a group that a repair found
    if header.t_acq_ns:
        moment = datetime.fromtimestamp(header.t_acq_ns / 1e9).astimezone()
        taken = moment.strftime("%Y-%m-%d %H:%M:%S")
    said = []
    if pair.prediction is not None:
        engine = " on ".join(w for w in (status.get("engine"), status.get("backend")) if w)
        said = [f"predicted by {engine or 'a neural network'}, not measured"]
        if header.residual is not None:
            said.append(f"residual {100 * header.residual:.1f} %")
        if header.provisional:
            said.append("provisional")
    return "   ".join([*filter(None, (*place, taken)), *said, f"livesr {__version__}"])


def with_caption(picture: Image.Image, caption: str) -> Image.Image:
    """Return a picture with a line of text below."""
    size = max(11, min(18, picture.width // 70))
    font = ImageFont.load_default(size=size)
    height = round(2.2 * size)
    canvas = Image.new("RGB", (picture.width, picture.height + height), _BACKGROUND)
    canvas.paste(picture, (0, 0))
    ImageDraw.Draw(canvas).text(
        (size, picture.height + height * 0.3), caption, font=font, fill=_INK, anchor="lm"
    )
    return canvas


def _png(picture: Image.Image, caption: str, pixel_size_um: float) -> bytes:
    about = PngInfo()
    about.add_itxt("Description", caption)
    about.add_text("PixelSizeUm", f"{pixel_size_um:g}")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def _file_name(pair: FramePair) -> str:
    header = pair.shown.header
    parts = [
        "livesr",
        header.position_name if header.position else "",
        header.channel,
        f"t{header.t:04d}",
    ]
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts if part) + ".png"
