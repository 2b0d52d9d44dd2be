"""A store of livesr as layers of napari: everything that was measured, predicted and estimated.

Owns names, order, colours, contrast and places of the layers. Pixels stay on the disk until napari
shows them; nothing is written.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import LiveSRError, StoreError
from livesr.formats import object_store
from livesr.formats.frames_log import SeriesName
from livesr.formats.layout import localisations_name
from livesr.formats.localisations import read_localisations
from livesr.formats.store import Image, RecordedStore, array_shape, is_store
from livesr.formats.zarr_files import open_array
from livesr.store.places import place_um
from livesr.store.recorded import true_channels

if TYPE_CHECKING:
    from dask.array import Array

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]

MEASUREMENT, PREDICTION, ESTIMATE = "measurement", "prediction", "estimate"
_ORDER: tuple[SeriesName, ...] = (  # the last lies on top
    "raw",
    "rolling",
    "recon",
    "depth",
    "error",
    "limits",
    "uncertainty",
    "sr",
)
_UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
_EXPOSURE = "exposure"
_POINT_UM = 0.05
_POINT_COLOR = "#56b4e9"


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return what reads `path`, None if it is no store of livesr; napari calls this."""
    if not isinstance(path, str):
        return None
    try:
        return _opened if is_store(object_store.local(path)) else None
    except LiveSRError:  # nothing is there, or what others read
        return None


def _opened(path: str) -> list[LayerData]:
    """Return the layers of a store, and let the window begin where there is a picture."""
    layers = store_layers(path)
    images = [(about, kind) for _, about, kind in layers if kind == "image"]
    if (start_s := _first_s(path)) is not None and images:
        _begin_at(start_s, images[-1][0]["name"])
    return layers


def _first_s(path: str) -> float | None:
    """Return the time of the first picture of what is seen first, s; None where there is none."""
    store = RecordedStore(object_store.local(path))
    for kind in ("sr", "recon", "raw"):
        shown = [image for image in store.images.values() if image.kind == kind]
        if any(_holds(store, image) for image in shown):
            first = min((t for _, t in store.pictures(kind)), default=0)
            return first * shown[0].exposures * shown[0].scale["t"]
    return None


def _begin_at(seconds: float, last: str) -> None:
    """Move the slider of time there, as soon as the layer called `last` is in an empty window."""
    napari = sys.modules.get("napari")  # whoever reads without it has no window
    viewer = napari.current_viewer() if napari else None
    if viewer is None or len(viewer.layers):
        return

    def move(event: Any) -> None:
        layer = event.value
        if layer.name != last:
            return
        viewer.layers.events.inserted.disconnect(move)
        axis = list(layer.axis_labels).index("t") + viewer.dims.ndim - layer.ndim
        viewer.dims.set_point(axis, seconds)

    viewer.layers.events.inserted.connect(move)


def store_layers(path: str | Path) -> list[LayerData]:
    """Describe the layers of a store as napari takes them: (data, settings, type of layer).

    Measurements, predictions and estimates are in ADU, float32 without the store's offset, NaN
    where there is no picture; raw exposures are as the camera gave them. The last axes are (t, [z],
    y, x) in s and um; raw exposures have one more in front, which counts them. A plane that cannot
    be read is black, and a warning says so when it is shown.

    Raises
    ------
    StoreError
        If the store is damaged, or holds no frame.
    """
    store = RecordedStore(object_store.local(path))
    images = sorted(
        (i for i in store.images.values() if array_shape(i.array, i.exposures).length["t"]),
        key=lambda i: (_ORDER.index(i.kind), i.position, i.channel),
    )
    if not images:
        raise StoreError(
            f"{path} holds no frame yet: nothing was recorded, or nothing is finished."
        )
    true = true_channels(store)
    layers = [layer for image in images for layer in _image_layers(store, image, true)]
    return layers + list(_point_layers(store))


def layer_name(what: str, kind: str, *places: str) -> str:
    """Return what a layer is called: where it was taken, what it shows, and what kind it is of."""
    return " · ".join([*filter(None, places), what, kind])


def _image_layers(store: RecordedStore, image: Image, true: Set[str]) -> Iterator[LayerData]:
    data = _pixels(store, image)
    about = {**_place(store, image), "metadata": {"livesr": image.attributes["livesr"]}}
    channels = image.attributes["ome"]["omero"]["channels"]
    if image.kind == "raw":
        yield data, {**about, **_raw_look(store, image, channels[0])}, "image"
        return
    planes = [data[:, c] for c in range(len(channels))] if "c" in image.scale else [data]
    for plane, channel in zip(planes, channels, strict=True):
        look = _look(store, image, channel)
        look["visible"] &= image.channel not in true  # beneath the predictions it would be one
        yield plane, {**about, **look}, "image"


def _pixels(store: RecordedStore, image: Image) -> Array:
    """Return the image as it is shown, a plane at a time and only when it is asked for.

    Raw exposures come with their index in front, so that the last axes of all layers are the same.
    """
    import dask.array as da

    planes = _Planes(store, image)
    plane = (*(1,) * (planes.ndim - 2), *planes.shape[-2:])
    data = da.from_array(planes, chunks=plane, name=False, inline_array=True)
    if image.kind == "raw":
        return da.moveaxis(data, 1, 0) if "c" in image.scale else data
    return da.where(_held(store, image).reshape(_beside(image, planes.shape)), data, np.nan)


class _Planes:
    """The pixels of an image as they are shown; what cannot be read is no picture."""

    def __init__(self, store: RecordedStore, image: Image) -> None:
        self._image, self._path = image, store.path
        self._stored = open_array(image.array)
        self._told = False
        self.shape, self.ndim = self._stored.shape, self._stored.ndim
        self.dtype = self._stored.dtype if image.kind == "raw" else np.dtype(np.float32)

    def __getitem__(self, place: Any) -> NDArray[Any]:
        try:
            stored = np.asarray(self._stored[place])
        except Exception as e:  # a damaged chunk raises whatever its codecs raise
            self._tell(e)
            nothing = np.array(0 if self._image.kind == "raw" else np.nan, self.dtype)
            black: NDArray[Any] = np.broadcast_to(nothing, self.shape)[place].copy()
            return black
        if self._image.kind == "raw":
            return stored
        values = stored.astype(np.float32) - np.float32(_offset(self._image))
        return np.where(stored > 0, values, np.nan) if self._image.kind == "depth" else values

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                "Black here is no measurement of darkness: a part of"
                f" {self._image.array} cannot be read ({type(error).__name__}: {error})."
                f" 'livesr check {self._path}' says what is damaged.",
                stacklevel=2,
            )


def _beside(image: Image, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in which one value for each (t, z) lies beside an image."""
    return tuple(n if a in "tz" else 1 for a, n in zip(image.scale, shape, strict=True))


def _held(store: RecordedStore, image: Image) -> NDArray[np.bool_]:
    """Return which (t, z) hold a picture, in a film every one of its planes along t; all, where the
    log is lost that would say.
    """
    shape = array_shape(image.array, image.exposures)
    length = shape.length
    z_planes = length.get("z", 1)
    if not store.events:
        return np.ones((length["t"] * image.exposures, z_planes), bool)
    told = store.pictures(image.kind)

    @cache
    def there(shard: tuple[int, int]) -> bool:
        return object_store.exists(image.array, shape.shard_key(*shard))

    held = np.zeros((length["t"], image.exposures, z_planes), bool)
    whole = image.kind == "raw" and image.exposures == 1  # its exposures have an axis of their own
    for (stream, t), line in told.items():
        if stream[:2] != (image.position, image.channel) or t >= len(held):
            continue
        if there(shape.shard_of(t, stream.z)):
            held[t, :, stream.z] = True
            held[t, [] if whole else line.get("missing", []), stream.z] = False
    return held.reshape(-1, z_planes)


def _holds(store: RecordedStore, image: Image | None) -> bool:
    return image is not None and bool(_held(store, image).any())


def _look(store: RecordedStore, image: Image, channel: Mapping[str, Any]) -> dict[str, Any]:
    """Return name, colour and contrast of a measurement, a prediction or an estimate."""
    measured = {"recon": "", "rolling": "rolling ", "depth": "depth "}
    kind = {**dict.fromkeys(measured, MEASUREMENT), "sr": PREDICTION}.get(image.kind, ESTIMATE)
    method = image.attributes["livesr"].get("method", "reconstruction")
    what = channel["label"].removeprefix("SR ")
    if image.kind in measured:
        what = f"{measured[image.kind]}{method}"
    window, offset = channel["window"], _offset(image)
    predicted = _holds(store, store.images.get(("sr", image.position, image.channel)))
    if image.kind == "depth":  # multiplied with the running image below it: its z in colour
        return {
            "name": layer_name("depth, nm", kind, *_places(store, image)),
            "colormap": depth_colormap(image.depth_colors),
            "contrast_limits": tuple(image.attributes["livesr"]["range_nm"]),
            "blending": "multiplicative",
            "visible": not predicted,
        }
    return {
        "name": layer_name(what, kind, *_places(store, image)),
        "colormap": f"#{channel['color']}",
        "contrast_limits": (window["start"] - offset, window["end"] - offset),
        "blending": "translucent" if image.kind in measured else "additive",
        # one that holds nothing would be a black picture over what there is
        "visible": image.kind == "sr"
        or (image.kind == "recon" and not predicted and _holds(store, image)),
    }


def depth_colormap(colors: Sequence[str]) -> dict[str, Any]:
    """Return colours (RRGGBB) from the lowest z to the highest as napari takes them."""
    stops = [[int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)] for color in colors]
    return {"name": "depth", "colors": stops}


def _raw_look(store: RecordedStore, image: Image, channel: Mapping[str, Any]) -> dict[str, Any]:
    window = channel["window"]
    others = (i for i in store.images.values() if i.kind in ("recon", "sr"))
    alone = not any(_holds(store, other) for other in others)
    return {
        "name": layer_name("raw exposures", MEASUREMENT, *_places(store, image)),
        "contrast_limits": (window["start"], window["end"]),
        "visible": alone,
    }


def _places(store: RecordedStore, image: Image) -> tuple[str, ...]:
    """Return what tells an image from those of other positions and channels."""
    position = store.positions[image.position] if len(store.positions) > 1 else ""
    return position, image.channel if len(store.channels) > 1 else ""


def _offset(image: Image) -> float:
    return float(image.attributes["livesr"]["intensity"]["offset"])


def _place(store: RecordedStore, image: Image) -> dict[str, Any]:
    """Return scale, units and place of an image, without its channel axis."""
    scale = {axis: s for axis, s in image.scale.items() if axis != "c"}
    moved = dict.fromkeys(scale, 0.0) | _moved_um(store, image)
    if image.kind == "rolling":  # the last of a time point's pictures is that of the whole group
        moved["t"] -= (image.exposures - 1) * scale["t"]
    if _localisations(store, image.position, image.channel):
        moved["t"] += (scale["t"] - _film_step_s(store, image)) / 2
    axes = [_EXPOSURE] if image.kind == "raw" and "c" in image.scale else []
    return {
        "scale": [*(1.0 for _ in axes), *scale.values()],
        "translate": [*(0.0 for _ in axes), *moved.values()],
        "axis_labels": [*axes, *scale],
        "units": [*("pixel" for _ in axes), *(_UNITS[axis] for axis in scale)],
    }


def _moved_um(store: RecordedStore, image: Image) -> dict[str, float]:
    """Return where the middle of an image's pixel (0, 0) lies, in um by axis.

    That of the camera's pixel (0, 0) at the first position is the origin.
    """
    here, first = place_um(store, image), _first_position(store, image).stage_um
    return {axis: um - first.get(axis, 0.0) for axis, um in here.items()}


def _first_position(store: RecordedStore, image: Image) -> Image:
    """Return the image of the same kind and channel whose place is the origin."""
    same = [i for i in store.images.values() if (i.kind, i.channel) == (image.kind, image.channel)]
    return min(same, key=lambda i: i.position)


# -- localisations ---------------------------------------------------------------------------------


def _point_layers(store: RecordedStore) -> Iterator[LayerData]:
    for image in store.images.values():
        file = _localisations(store, image.position, image.channel)
        if image.kind == "recon" and file:
            yield _points(store, image, read_localisations(file))


def _points(store: RecordedStore, image: Image, found: NDArray[np.void]) -> LayerData:
    """Return emitters where they were found: in the frame of the film, if that was recorded.

    They count from the outer corner of the field, which is that of their image as well.
    """
    where = np.column_stack([found["frame"], found["y_nm"] / 1e3, found["x_nm"] / 1e3])
    axes = ("t", "y", "x") if _film(store, image) else ("y", "x")
    moved = _moved_um(store, image)
    corner = {axis: moved[axis] - image.scale[axis] / 2 for axis in "yx"}
    settings = {
        "name": layer_name("localisations", MEASUREMENT, *_places(store, image)),
        "features": {name: found[name] for name in found.dtype.names or ()},
        "size": _POINT_UM,
        "border_color": _POINT_COLOR,
        "face_color": _POINT_COLOR,
        "scale": [_film_step_s(store, image) if axis == "t" else 1.0 for axis in axes],
        "translate": [corner.get(axis, 0.0) for axis in axes],
        "axis_labels": axes,
        "units": [_UNITS[axis] for axis in axes],
    }
    return where[:, -len(axes) :], settings, "points"


def _film(store: RecordedStore, image: Image) -> Image | None:
    """Return the raw film of the same position and channel, if it was recorded."""
    raw = store.images.get(("raw", image.position, image.channel))
    return raw if raw and raw.exposures > 1 else None


def _film_step_s(store: RecordedStore, image: Image) -> float:
    film = _film(store, image)
    return film.scale["t"] if film else image.scale["t"]


def _localisations(store: RecordedStore, position: int, channel: str) -> Path | None:
    for (kind, *where), image in store.images.items():
        if where == [position, channel] and kind in ("raw", "recon"):
            file = store.path / localisations_name(image.name.replace(kind, "raw", 1))
            if file.is_file():
                return file
    return None
