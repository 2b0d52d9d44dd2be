"""A store in viewers that are not ours: what napari, Fiji and others read from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contracts import code, describe, feed
from livesr.base.frames import Stream
from livesr.live.sinks.ome_zarr import OMEZarrSink

pytest.importorskip("ome_zarr", reason="ome-zarr is not installed: pip install ome-zarr")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(interval_s=0.5))
    for t in range(4):
        feed(sink, t)
    sink.close({})
    return sink.path


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
