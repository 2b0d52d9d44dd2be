"""A store in viewers that are not ours: what napari, Fiji and others read from it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from contracts import code, describe, feed, multicolor_frame, small_store
from livesr.base.frames import Stream
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.store.levels import build_levels

pytest.importorskip("ome_zarr", reason="ome-zarr is not installed: pip install ome-zarr")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "run.ome.zarr", 4, interval_s=0.5)


def opened(image: Path):
    """The image as ome-zarr-py reads it, which is what viewers use."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = Reader(parse_url(str(image)))()
    return node


def test_predictions_have_names_colours_scale_and_contrast(store: Path) -> None:
    node = opened(store / "sr")
    about = node.metadata
    assert about["name"] == "SR prediction (AI) - not raw data"
    assert about["channel_names"] == ["SR Microtubules", "SR ER", "SR Lysosomes"]
    assert [colors[-1] for colors in about["colormap"]] == [[0, 1, 0], [1, 0, 1], [1, 1, 0]]
    assert about["contrast_limits"] == [[10, 200], [20, 300], [30, 400]]
    assert [axis["name"] for axis in about["axes"]] == ["t", "c", "y", "x"]
    assert [axis["unit"] for axis in about["axes"] if axis["type"] == "space"] == ["micrometer"] * 2
    (transformation,) = about["coordinateTransformations"][0]
    np.testing.assert_allclose(transformation["scale"], [0.5, 1, 0.0325, 0.0325])
    pixels = node.data[0][2].compute()
    assert [int(plane[0, 0]) for plane in pixels] == [
        code(Stream(0, "488"), 2, c) for c in range(3)
    ]


def test_the_measurement_is_grey_and_on_the_same_scale(store: Path) -> None:
    about = opened(store / "recon").metadata
    assert "prediction" not in about["name"]
    assert about["colormap"][0][-1] == [1, 1, 1]
    np.testing.assert_allclose(
        about["coordinateTransformations"][0][0]["scale"], [0.5, 0.0325, 0.0325]
    )


def test_the_whole_store_is_described_as_ome_xml(tmp_path: Path) -> None:
    """As Bio-Formats' companion: every image with its size, names, colours and scale, under an ID
    that is its path."""
    ome_types = pytest.importorskip("ome_types", reason="ome-types is not installed")
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(interval_s=0.5, positions=("A & <B>", "C"), z_planes=2))
    file = sink.path / "OME" / "METADATA.ome.xml"
    while_it_is_recorded = file.read_text()
    for t in range(3):
        for position in (0, 1):
            for z in (0, 1):
                feed(sink, t, Stream(position, "488", z))
    sink.close({})
    # against the schema where a validator is installed, else by the types of ome-types
    strict = any(map(importlib.util.find_spec, ("lxml", "xmlschema")))
    assert len(ome_types.from_xml(while_it_is_recorded, validate=strict).images) == 6
    ome = ome_types.from_xml(file.read_text(encoding="utf-8"), validate=strict)
    series = json.loads((sink.path / "OME" / "zarr.json").read_text())["attributes"]["ome"][
        "series"
    ]
    assert [image.id for image in ome.images] == [f"Image:{name}" for name in series]
    for image, name in zip(ome.images, series, strict=True):
        pixels, node = image.pixels, opened(sink.path / name)
        size = dict(
            zip([a["name"] for a in node.metadata["axes"]], node.data[0].shape, strict=True)
        )
        assert (pixels.size_t, pixels.size_z) == (3, 2)
        assert (pixels.size_x, pixels.size_y) == (size["x"], size["y"])
        assert pixels.size_c == size.get("c", 1) == len(pixels.channels)
        assert image.name == node.metadata["name"]
        assert pixels.time_increment == 0.5
        assert pixels.physical_size_x_unit.value == "µm"
    predicted = next(i.pixels for i in ome.images if i.id.startswith("Image:sr"))
    assert [c.name for c in predicted.channels] == ["SR Microtubules", "SR ER", "SR Lysosomes"]
    assert [c.color.as_rgb_tuple()[:3] for c in predicted.channels] == [
        (0, 255, 0),
        (255, 0, 255),
        (255, 255, 0),
    ]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A store of pictures that have a smaller level."""
    sink = OMEZarrSink(tmp_path / "large.ome.zarr")
    sink.open(describe(interval_s=0.5, size=150))
    for t in range(2):
        sink.separated(multicolor_frame(t, size=150))
    sink.close({})
    assert build_levels(sink.path)[-1] == "sr"
    return sink.path


def test_bioio_reads_names_scale_and_levels(large: Path) -> None:
    bioio_ome_zarr = pytest.importorskip(
        "bioio_ome_zarr", reason="bioio-ome-zarr is not installed: pip install bioio-ome-zarr"
    )
    reader = bioio_ome_zarr.Reader(str(large / "sr"))
    assert reader.channel_names == ["SR Microtubules", "SR ER", "SR Lysosomes"]
    assert reader.physical_pixel_sizes.X == 0.0325
    assert reader.resolution_levels == (0, 1)
    reader.set_resolution_level(1)
    assert reader.shape[-2:] == (150, 150)


def test_ome_zarr_models_knows_the_levels(large: Path) -> None:
    pytest.importorskip("ome_zarr_models", reason="ome-zarr-models is not installed")
    import zarr
    from ome_zarr_models.v05.image import Image
    from pydantic.errors import PydanticUserError

    try:
        image = Image.from_zarr(zarr.open_group(large / "sr", mode="r"))
    except PydanticUserError:
        pytest.skip("this version of ome-zarr-models does not work with this pydantic")
    assert len(image.attributes.ome.multiscales[0].datasets) == 2


def test_ndv_takes_a_level(large: Path) -> None:
    models = pytest.importorskip("ndv.models", reason="ndv is not installed: pip install ndv")
    import zarr

    wrapper = models.DataWrapper.create(zarr.open_array(large / "sr" / "1", mode="r"))
    assert tuple(wrapper.sizes().values()) == (2, 3, 150, 150)


def test_napari_opens_the_whole_store(store: Path) -> None:
    reader = pytest.importorskip(
        "napari_ome_zarr", reason="napari-ome-zarr is not installed: pip install napari-ome-zarr"
    )
    layers = reader.napari_get_reader(str(store))(str(store))
    names = [name for _, about, *_ in layers for name in np.atleast_1d(about["name"])]
    # since 0.10 the image's name stands before it: "SR prediction (AI) - not raw data: SR ER"
    assert {"SR Microtubules", "SR ER", "SR Lysosomes"} <= {str(n).split(": ")[-1] for n in names}
