"""Pixels to pictures: a separated frame as one colour picture, a measurement in grey, both side by
side for print.

Owns look-up tables, encoding and the labelled panel. Knows no stream, no page and no clock. What it
shows is 8 bit, for the eye only: no measure is taken from it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from livesr.base.frames import Pixels

Picture = NDArray[np.uint8]

DEFAULT_COLORS = {"microtubules": "00FF00", "er": "FF00FF", "lysosomes": "FFFF00"}
"""As in the IMC-SR paper.

A red-green blind eye tells green from magenta, but hardly green from yellow.
"""

SAFE_COLORS = {"00FF00": "00FFFF"}
"""What takes the place of a colour for a red-green blind eye.

Cyan, magenta and yellow stay apart (tests/viewer).
"""

Lut = Literal["gray", "inverted", "fire", "viridis"]
"""Colour tables for a measurement."""

# Evenly spaced colours, between which a table runs straight: ImageJ's Fire, and viridis of
# matplotlib (van der Walt and Smith), whose brightness grows evenly for every eye.
_ANCHORS: dict[Lut, str] = {
    "gray": "000000 FFFFFF",
    "inverted": "FFFFFF 000000",
    "fire": "00003D 0000A0 3C00DC 7A00E3 B10098 D92A3F F6550A FF8000 FFA700 FFD000 FFF645 FFFFFF",
    "viridis": "440154 482878 3E4989 31688E 26828E 1F9E89 35B779 6ECE58 B5DE2B FDE725",
}

_LEVELS = 1 << 16
_LARGEST = 1e30  # ADU; false for NaN and infinity, and leaves float32 room for a difference
_JPEG_MAX_PIXELS = 65500  # across, a limit of the format
# Rows worked on at once: the scratch of a band stays in the cache, which halves the time of a
# frame.
_BAND_PIXELS = 1 << 16
# Red, green and blue share one word of 10-bit fields: four full channels add up before a field
# could overflow.
_FIELD_BITS = 10
_FIELD_ONES = np.uint32(sum(1 << (_FIELD_BITS * k) for k in range(3)))
_FIELD_BYTES = _FIELD_ONES * np.uint32(255)


@dataclass(frozen=True, slots=True)
class ChannelView:
    """How one channel is shown.

    Attributes
    ----------
    color : "RRGGBB"
    window : (low, high) in stored ADU; low is black, high is the full colour
    gamma : exponent on the windowed value; below 1 lifts the faint
    visible : whether it takes part in the composite
    """

    color: str
    window: tuple[float, float]
    gamma: float = 1.0
    visible: bool = True


@lru_cache(maxsize=16)
def _levels(low: float, high: float, gamma: float) -> NDArray[np.uint8]:
    """Brightness 0..255 of every 16-bit value; shared, so read-only."""
    if gamma <= 0 or not math.isfinite(gamma):
        raise ValueError(f"gamma is {gamma}, expected a positive number")
    if not (abs(low) < _LARGEST and abs(high) < _LARGEST):
        raise ValueError(f"display window is {low} to {high}, expected two finite numbers")
    ramp = np.arange(_LEVELS, dtype=np.float32)
    ramp -= np.float32(low)
    # A window without width is a threshold, not a division by zero.
    ramp /= np.float32(max(high - low, 1e-3))
    np.clip(ramp, 0, 1, out=ramp)
    if gamma != 1:
        np.power(ramp, np.float32(gamma), out=ramp)
    levels = np.rint(ramp * 255).astype(np.uint8)
    levels.setflags(write=False)
    return levels


@lru_cache(maxsize=16)
def _packed_lut(color: str, window: tuple[float, float], gamma: float) -> NDArray[np.uint32]:
    """Red, green and blue of every 16-bit value, 10 bits each in one word; shared, so read-only."""
    brightness = np.arange(256, dtype=np.uint32)
    packed = np.zeros(256, np.uint32)
    for k, part in enumerate(rgb_of(color)):
        packed |= ((brightness * np.uint32(part) + np.uint32(127)) // np.uint32(255)) << np.uint32(
            _FIELD_BITS * k
        )
    lut = packed[_levels(*window, gamma)]
    lut.setflags(write=False)
    return lut


def rgb_of(color: str) -> tuple[int, int, int]:
    """(red, green, blue), 0..255, of "RRGGBB", with or without "#".

    Raises
    ------
    ValueError
        If it is no such text.
    """
    digits = color.removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(
            f"colour is {color!r}, expected six hexadecimal digits such as '00FF00'"
        ) from None
    return red, green, blue


class Compositor:
    """Adds the colours of the visible channels, clipped at white.

    Scratch is allocated once; a change of window, gamma or colour costs one new table, about 1 ms.

    Parameters
    ----------
    shape : frame (y, x)
    """

    __slots__ = ("_part", "_rows", "_sum", "shape")

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._rows = max(1, min(shape[0], _BAND_PIXELS // max(shape[1], 1)))
        self._sum = np.empty((self._rows, shape[1]), np.uint32)
        self._part = np.empty_like(self._sum)

    def render(
        self, channels: NDArray[np.uint16], views: Sequence[ChannelView], out: Picture | None = None
    ) -> Picture:
        """Colour picture of one frame.

        Parameters
        ----------
        channels : uint16 (c, y, x), ADU; only read
        views : one per channel
        out : uint8 (y, x, 3) to fill; a new one is allocated and handed away if None

        Raises
        ------
        ValueError
            If the shapes, the pixel type or the number of views do not fit.
        """
        self._check(channels, views)
        picture = np.empty((*self.shape, 3), np.uint8) if out is None else out
        shown = [
            (plane, self._lut(view))
            for plane, view in zip(channels, views, strict=True)
            if view.visible
        ]
        for top in range(0, self.shape[0], self._rows):
            rows = slice(top, min(top + self._rows, self.shape[0]))
            self._render_rows([(plane[rows], lut) for plane, lut in shown], picture[rows])
        return picture

    @staticmethod
    def _lut(view: ChannelView) -> NDArray[np.uint32]:
        return _packed_lut(view.color, view.window, view.gamma)

    def _check(self, channels: NDArray[np.uint16], views: Sequence[ChannelView]) -> None:
        if channels.dtype != np.uint16 or channels.shape != (len(views), *self.shape):
            raise ValueError(
                f"frame is {channels.dtype} {channels.shape}, expected uint16"
                f" {(len(views), *self.shape)}: one plane per view"
            )

    def _render_rows(
        self, shown: Sequence[tuple[NDArray[np.uint16], NDArray[np.uint32]]], picture: Picture
    ) -> None:
        total, part = self._sum[: len(picture)], self._part[: len(picture)]
        total.fill(0)
        for n, (plane, lut) in enumerate(shown):
            # mode="wrap": the default checks every index through a buffer; 16 bits cannot leave the
            # table anyhow.
            np.take(lut, plane, out=part, mode="wrap")
            np.add(total, part, out=total)
            if n % 3 == 2 or n == len(shown) - 1:
                _saturate(total, part)
        for k in range(3):
            np.right_shift(total, np.uint32(_FIELD_BITS * k), out=part)
            np.copyto(
                picture[..., k], part, casting="unsafe"
            )  # keeps the low byte, which is the field's value


def _saturate(total: NDArray[np.uint32], scratch: NDArray[np.uint32]) -> None:
    """Clip every field of `total` at 255, in place.

    All eight low bits set where one of its two high bits is.
    """
    np.right_shift(total, np.uint32(1), out=scratch)
    np.bitwise_or(scratch, total, out=scratch)
    np.right_shift(scratch, np.uint32(8), out=scratch)
    np.bitwise_and(scratch, _FIELD_ONES, out=scratch)
    np.multiply(scratch, np.uint32(255), out=scratch)
    np.bitwise_or(total, scratch, out=total)
    np.bitwise_and(total, _FIELD_BYTES, out=total)


def composite(channels: NDArray[np.uint16], views: Sequence[ChannelView]) -> Picture:
    """Colour picture, uint8 (y, x, 3), of one frame, uint16 (c, y, x): a `Compositor` used once."""
    return Compositor((channels.shape[1], channels.shape[2])).render(channels, views)


def grayscale(
    image: NDArray[np.uint16],
    window: tuple[float, float],
    gamma: float = 1.0,
    out: Picture | None = None,
) -> Picture:
    """Grey picture, uint8 (y, x), of a measurement, uint16 (y, x).

    Allocated and handed away if `out` is None.

    Raises
    ------
    ValueError
        If `image` is something else.
    """
    if image.dtype != np.uint16 or image.ndim != 2:
        raise ValueError(f"measurement is {image.dtype} {image.shape}, expected uint16 (y, x)")
    picture = np.empty(image.shape, np.uint8) if out is None else out
    return np.take(_levels(*window, gamma), image, out=picture, mode="wrap")


def palette(lut: Lut) -> Picture:
    """Red, green and blue of every level, uint8 (256, 3); shared, so read-only."""
    return ramp(tuple(_ANCHORS[lut].split()))


@lru_cache
def ramp(colors: tuple[str, ...]) -> Picture:
    """Return 256 colours that run straight between some, uint8 (256, 3); shared, so read-only."""
    anchors = np.array([rgb_of(color) for color in colors], float)
    at, levels = np.linspace(0, 255, len(anchors)), np.arange(256)
    table = np.stack([np.interp(levels, at, part) for part in anchors.T], axis=1)
    levelled: Picture = np.rint(table).astype(np.uint8)
    levelled.setflags(write=False)
    return levelled


def colored(grey: Picture, lut: Lut) -> Picture:
    """Give a grey picture, uint8 (y, x), the colours of a table, uint8 (y, x, 3).

    Grey stays as it is.
    """
    return grey if lut == "gray" else palette(lut)[grey]


def auto_window(image: Pixels) -> tuple[float, float]:
    """(low, high) in the image's own units, percentiles of at most about 65 000 of its pixels."""
    step = max(1, math.isqrt(image.size // _BAND_PIXELS))
    low, high = np.percentile(image[::step, ::step], (1, 99.8))
    return float(low), float(max(high, low + 1e-6))


def encode_jpeg(picture: Picture) -> bytes:
    """JPEG of uint8 (y, x) or (y, x, 3), colour at full resolution.

    Subsampling would smear one-pixel filaments.

    Raises
    ------
    ValueError
        If it is larger than the format allows.
    """
    if max(picture.shape[:2]) > _JPEG_MAX_PIXELS:
        raise ValueError(
            f"picture is {picture.shape}, JPEG holds at most {_JPEG_MAX_PIXELS} pixels across"
        )
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def scale_bar_um(width_um: float) -> float:
    """Length of a scale bar for a picture `width_um` wide.

    1, 2 or 5 times a power of ten, at most a quarter of it.

    Raises
    ------
    ValueError
        If `width_um` is not above 0, or not finite.
    """
    if not width_um > 0 or not math.isfinite(width_um):
        raise ValueError(f"width is {width_um} um, expected a positive number")
    decade = 10.0 ** math.floor(math.log10(width_um / 4))
    return decade * next(n for n in (5, 2, 1) if n * decade <= width_um / 4)


def length_text(length_um: float) -> str:
    """Write a length for people: "5 µm", "500 nm"."""
    return f"{length_um:g} µm" if length_um >= 1 else f"{length_um * 1000:g} nm"


class PanelLabel(NamedTuple):
    """Title above one picture of a panel and what kind of picture it is.

    `color` "RRGGBB" draws a chip beside it.
    """

    title: str
    kind: Literal["measurement", "prediction", "ground truth"]
    color: str | None = None


_BACKGROUND, _INK, _FAINT, _EDGE = "#0d1117", "#e9edf2", "#98a2ae", "#2a313a"
# Okabe and Ito's orange and sky blue stay apart for every common colour blindness; the words say it
# as well.
_KIND_COLORS = {"measurement": "#56b4e9", "prediction": "#f0a830", "ground truth": "#98a2ae"}


def panel(
    images: Sequence[Picture | None],
    labels: Sequence[PanelLabel | None],
    pixel_size_um: float,
    *,
    columns: int | None = None,
    tile: int = 400,
) -> Image.Image:
    """Draw pictures of one field of view side by side, each named and marked as measurement or
    prediction.

    Parameters
    ----------
    images : uint8 (y, x) or (y, x, 3); all show the same field, their pixel counts may differ; None
        leaves a place empty
    labels : one per image
    pixel_size_um : of the image with the most pixels across; gives the scale bar in the first
        picture
    columns : pictures in a row; by default up to four, more are spread over two rows
    tile : width of one picture in the panel, pixels

    Raises
    ------
    ValueError
        If there is nothing to draw or the labels do not fit.
    """
    shown = [image for image in images if image is not None]
    if not shown or len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images came with {len(labels)} labels, expected one label per image"
        )
    per_row = columns or (len(images) if len(images) <= 4 else math.ceil(len(images) / 2))
    layout = _PanelLayout.of(shown, len(images), per_row, tile)
    canvas = Image.new("RGB", layout.size, _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        if image is None or label is None:
            continue
        left, top = layout.corner(n)
        canvas.paste(_fit(image, (layout.tile, layout.height)), (left, top + layout.header))
        draw.rectangle(
            (
                left - 1,
                top + layout.header - 1,
                left + layout.tile,
                top + layout.header + layout.height,
            ),
            outline=_EDGE,
        )
        _draw_label(draw, label, layout, (left, top))
    width_um = max(image.shape[1] for image in shown) * pixel_size_um
    _draw_scale_bar(canvas, layout, width_um)
    return canvas


class _PanelLayout(NamedTuple):
    """Sizes of a panel in pixels; `header` is the strip above each picture."""

    tile: int
    height: int
    header: int
    gap: int
    per_row: int
    rows: int

    @classmethod
    def of(cls, images: Sequence[Picture], places: int, per_row: int, tile: int) -> _PanelLayout:
        widest = max(images, key=lambda image: image.shape[1])
        height = max(1, round(tile * widest.shape[0] / widest.shape[1]))
        return cls(
            tile,
            height,
            round(tile * 0.105),
            round(tile * 0.05),
            per_row,
            math.ceil(places / per_row),
        )

    @property
    def size(self) -> tuple[int, int]:
        step_x, step_y = self.tile + self.gap, self.height + self.header + self.gap
        return self.per_row * step_x + self.gap, self.rows * step_y + self.gap // 2

    def corner(self, n: int) -> tuple[int, int]:
        row, column = divmod(n, self.per_row)
        return (
            self.gap + column * (self.tile + self.gap),
            self.gap // 4 + row * (self.height + self.header + self.gap),
        )


def _fit(image: Picture, size: tuple[int, int]) -> Image.Image:
    source = Image.fromarray(image).convert("RGB")
    # Enlarged pixels stay pixels: smoothing would draw detail that was not recorded.
    enlarges = size[0] > source.width
    return source.resize(size, Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS)


def _font(tile: int, share: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(9.0, tile * share))


def _draw_label(
    draw: ImageDraw.ImageDraw, label: PanelLabel, layout: _PanelLayout, corner: tuple[int, int]
) -> None:
    left, baseline = corner[0], corner[1] + round(layout.header * 0.72)
    if label.color is not None:
        side = round(layout.tile * 0.034)
        draw.rounded_rectangle(
            (left, baseline - side, left + side, baseline),
            radius=side // 4,
            fill=rgb_of(label.color),
        )
        left += round(side * 1.5)
    draw.text((left, baseline), label.title, font=_font(layout.tile, 0.047), fill=_INK, anchor="ls")
    right = corner[0] + layout.tile
    color = _KIND_COLORS[label.kind]
    draw.text(
        (right, baseline), label.kind, font=_font(layout.tile, 0.038), fill=color, anchor="rs"
    )


def _draw_scale_bar(canvas: Image.Image, layout: _PanelLayout, width_um: float) -> None:
    """Put a white bar with its length at the lower right of the first picture, on a shade that
    keeps it legible.
    """
    draw = ImageDraw.Draw(canvas, "RGBA")
    length_um = scale_bar_um(width_um)
    length, thickness = (
        round(layout.tile * length_um / width_um),
        max(3, round(layout.tile * 0.0125)),
    )
    left, top = layout.corner(0)
    margin = round(layout.tile * 0.04)
    right, bottom = left + layout.tile - margin, top + layout.header + layout.height - margin
    font = _font(layout.tile, 0.042)
    middle, baseline = right - length // 2, bottom - round(2.6 * thickness)
    text = draw.textbbox((middle, baseline), length_text(length_um), font=font, anchor="ms")
    pad = margin // 2
    shade = (
        min(right - length, text[0]) - pad,
        text[1] - pad,
        max(right, text[2]) + pad,
        bottom + pad,
    )
    draw.rounded_rectangle(shade, radius=pad, fill=(0, 0, 0, 150))
    draw.rectangle((right - length, bottom - thickness + 1, right, bottom), fill="white")
    _draw_length(draw, (middle, baseline), length_text(length_um), font)


def _draw_length(
    draw: ImageDraw.ImageDraw,
    anchor: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write `text`, centred on its baseline.

    Pillow's built-in font has no micro sign: a "u" with a tail stands in.
    """
    plain = text.replace("µ", "u")
    draw.text(anchor, plain, font=font, fill="white", anchor="ms")
    if "µ" not in text:
        return
    left, top, right, _ = font.getbbox("u", anchor="ls")
    stem = max(1, round((right - left) * 0.16))
    x = round(anchor[0] - font.getlength(plain) / 2 + font.getlength(text.split("µ")[0]) + left)
    draw.rectangle(
        (x, anchor[1] - 2 * stem, x + stem - 1, anchor[1] - round(0.4 * top)), fill="white"
    )
