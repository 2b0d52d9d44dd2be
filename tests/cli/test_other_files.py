"""A file of another kind than a command takes is called what it is, and what to give is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from livesr import cli
from livesr.base.config import load_rig
from livesr.base.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
CFG = REPOSITORY / "hardware_configs" / "demo" / "rig.cfg"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in, with files that are no rig and no store."""
    tifffile.imwrite(tmp_path / "raw.tif", np.zeros((9, 32, 32), np.uint16))
    tifffile.imwrite(tmp_path / "big.tif", np.zeros((9, 32, 32), np.uint16), bigtiff=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "look.png")
    np.save(tmp_path / "pixels.npy", np.zeros(3))
    (tmp_path / "cell.czi").write_bytes(b"ZISRAWFILE" + bytes(64))
    (tmp_path / "notes.txt").write_text("bring the 561 laser\nask for beads\n")
    (tmp_path / "rig.cfg").write_bytes(CFG.read_bytes())
    (tmp_path / "frames").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that cannot work; return its sentence."""
    code = cli._run(list(arguments))
    sentence = " ".join(capsys.readouterr().err.split())
    assert code == 2, sentence
    assert len(sentence) < 600
    return sentence


@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("raw.tif", "a TIFF", "'livesr process raw.tif --rig RIG'"),
        ("big.tif", "a TIFF", "'livesr process big.tif --rig RIG'"),
        ("look.png", "a PNG picture", ""),
        ("pixels.npy", "a NumPy array", ""),
        ("cell.czi", "a CZI of Zeiss", "as OME-TIFF"),
        ("notes.txt", "no YAML file", ""),
        ("rig.cfg", "a configuration of Micro-Manager", "rig.yaml beside it"),
        ("frames", "a folder without rig.yaml", "'livesr process' reads recordings"),
    ],
)
def test_check_says_what_it_was_given_and_what_it_takes(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str, advice: str
) -> None:
    sentence = refused(capsys, "check", name)
    assert f"{name} is {kind}" in sentence
    assert "its rig.yaml" in sentence
    assert "a store (an OME-Zarr folder" in sentence
    assert advice in sentence


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "raw.tif", "--frames", "1"), "expected a rig"),
        (("characterise", "raw.tif"), "expected a rig"),
        (("new", "mine", "--from", "raw.tif"), "expected a rig"),
        (("calibrate-errors", "raw.tif"), "expected a rig"),
        (("calibrate-limits", "raw.tif", "--rig", "demo"), "expected a store"),
        (("backfill", "raw.tif"), "expected a store"),
        (("repair", "raw.tif"), "expected a store"),
        (("view", "raw.tif"), "expected a store"),
        (("export", "raw.tif", "--to", "tiff"), "expected a store"),
        (("evaluate", "identity", "--data", "raw.tif"), "expected a folder of pairs"),
        (("train", "--data", "raw.tif", "--steps", "1"), "expected the folder of --data"),
        (("train", "--out", "raw.tif", "--steps", "1"), "expected the folder of --out"),
    ],
)
def test_every_command_that_takes_a_rig_a_store_or_pairs_names_a_tiff(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    if arguments[0] == "train":
        pytest.importorskip("torch")
    sentence = refused(capsys, *arguments)
    assert "raw.tif is a TIFF" in sentence
    assert expected in sentence


@pytest.mark.parametrize("given", ["raw.tif", "frames"])
@pytest.mark.parametrize("command", ["limits", "quantise"])
def test_what_holds_no_pairs_is_refused_with_words(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, given: str
) -> None:
    sentence = refused(capsys, command, "imcsr-mt-er-lyso-light", "--pairs", given)
    assert f"{given} is no folder of pairs" in sentence
    assert "Expected a folder of pairs" in sentence


def test_pairs_without_a_rig_ask_for_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say with --rig" in refused(capsys, "calibrate-errors", "frames")


def test_a_rig_may_have_another_name(folder: Path) -> None:
    text = (CFG.parent / "rig.yaml").read_text(encoding="utf-8")
    (folder / "rig.txt").write_text(text, encoding="utf-8")
    assert load_rig(folder / "rig.txt").name == load_rig("demo").name
    with pytest.raises(ConfigError, match="is a TIFF; expected a rig"):
        load_rig(folder / "raw.tif")


def test_a_rig_yaml_that_is_damaged_still_says_where(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "frames" / "rig.yaml").write_text("name: x\nsim: [\n", encoding="utf-8")
    assert cli._run(["check", "frames"]) == 1
    assert "is not valid YAML" in " ".join(capsys.readouterr().out.split())
