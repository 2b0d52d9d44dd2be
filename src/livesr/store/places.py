"""Where the pixels of a store's images lie beside those of the camera.

Owns what stores of before do not say of it. Writes nothing.
"""

from __future__ import annotations

from livesr.formats.store import Image, RecordedStore
from livesr.modalities.registry import installed


def first_pixel_um(store: RecordedStore, image: Image) -> float:
    """Return how far the middle of pixel (0, 0) is from that of the camera's, in um along y and x.

    A store of before does not say it: it follows from the sizes of pixels, and from how the
    channel was reconstructed. Where such a store has no raw frames, it is how far from that of the
    reconstruction.
    """
    said = image.attributes["livesr"].get("first_pixel_um")
    if said is not None:
        return float(said)
    sizes = {
        kind: other.scale["x"]
        for kind in ("raw", "recon")
        for other in _same_place(store, image, kind)
    }
    if image.kind == "raw":
        return 0.0
    size_um = image.scale["x"]
    enlarged = float(image.attributes["livesr"].get("upscaling", 1.0))
    measured_um = float(sizes.get("recon", size_um * enlarged))
    camera_um = sizes.get("raw", measured_um)
    if _centred(store, image):
        camera_um = measured_um
    return round((size_um - camera_um) / 2, 9)


def place_um(store: RecordedStore, image: Image) -> dict[str, float]:
    """Return where the middle of pixel (0, 0) is in um by axis, of stores of any time.

    That is the stages' place, and beside it that of the pixel; 0 along an axis of which no stage
    said anything.
    """
    inside_um = first_pixel_um(store, image)
    stage_um = image.stage_um
    return {
        axis: stage_um.get(axis, 0.0) + (inside_um if axis in "yx" else 0.0)
        for axis in image.scale
        if axis in "zyx"
    }


def _same_place(store: RecordedStore, image: Image, kind: str) -> list[Image]:
    """Return the images of a kind that show what `image` shows: of a sum, those of its parts."""
    parts = store.superposed.get(image.channel, {}).get("channels", ()) if kind == "raw" else ()
    names = (*parts, image.channel)
    return [
        i
        for i in store.images.values()
        if (i.kind, i.position) == (kind, image.position) and i.channel in names
    ]


def _centred(store: RecordedStore, image: Image) -> bool:
    """Whether the reconstruction has the middle of its first pixel on that of the camera's."""
    recon = _same_place(store, image, "recon")
    about = (recon[0] if recon else image).attributes["livesr"]
    method = str(about.get("method") or about.get("input", {}).get("method", ""))
    method = method.removeprefix("sum of ")
    return any(
        method == way.method or method.startswith((f"{way.method} ", f"{way.method},"))
        for way in installed()
        if way.centred
    )
