"""`livesr characterise` on Micro-Manager's demo camera, whose noise is known, and on stacks of a
simulated one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from livesr.base.config import load_rig
from livesr.cli import _run
from livesr.live.correct import build_correction
from livesr.optics.noise import SCMOSNoise
from rig_copies import RIGS

NOISY_DEMO = {
    "Camera,OnCameraCCDXSize,512": "Camera,OnCameraCCDXSize,96",
    "Camera,OnCameraCCDYSize,512": "Camera,OnCameraCCDYSize,64",
    "ConfigGroup,Channel,488,Emission,Label,525/50": (
        "ConfigGroup,Channel,488,Camera,Photon Flux,80\n"
        "ConfigGroup,Channel,dark,Camera,Photon Flux,2\nConfigGroup,Channel,none,Camera,Gain,0"
    ),
    "ConfigGroup,Channel,561,Emission,Label,605/70": (
        "ConfigGroup,Channel,561,Camera,Photon Flux,20"
    ),
    "ConfigGroup,System,Startup,Camera,Exposure,10": (
        "ConfigGroup,System,Startup,Camera,Mode,Noise\nConfigGroup,System,Startup,Camera,Photon"
        " Conversion Factor,2\nConfigGroup,System,Startup,Camera,Exposure,1"
    ),
}


def copied(folder: Path, rig: str = "demo", changes: dict[str, str] | None = None) -> Path:
    target = folder / rig
    shutil.copytree(RIGS / rig, target)
    text = (target / "rig.cfg").read_text(encoding="utf-8")
    for before, after in (changes or {}).items():
        assert before in text
        text = text.replace(before, after)
    (target / "rig.cfg").write_text(text, encoding="utf-8")
    return target


def livesr(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = _run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_demo_camera_s_gain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = copied(tmp_path, changes=NOISY_DEMO)
    before = (rig / "rig.yaml").read_text(encoding="utf-8")
    arguments = ("--acquire", "60", "--yes", "--dark-preset", "dark", "--exposure", "10")
    code, report = livesr(capsys, "characterise", str(rig), *arguments, "--channel", "488")
    assert code == 0, report
    assert report["gain_e_per_adu"] == pytest.approx(2.0, rel=0.03)
    config = load_rig(rig)
    assert config.camera.gain_e_per_adu == report["gain_e_per_adu"]
    assert config.corrections.flat == {"488": "flat-488.tif"}
    assert [line for line in before.splitlines() if "#" in line] == [
        line for line in (rig / "rig.yaml").read_text(encoding="utf-8").splitlines() if "#" in line
    ]
    assert (rig / "characterisation.png").stat().st_size > 10_000
    code, _ = livesr(capsys, "characterise", str(rig), *arguments, "--channel", "561")
    assert load_rig(rig).corrections.flat == {"488": "flat-488.tif", "561": "flat-561.tif"}
    code, report = livesr(capsys, "run", str(rig), "--frames", "2", "--exposure", "1")
    assert (code, report["raw_frames"]) == (0, 4)


def test_the_virtual_rig_s_camera_gives_whole_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"SensorSize,256": "SensorSize,64", "TimePoints,40": "TimePoints,2"}
    rig = copied(tmp_path, "virtual_sim", changes)
    dark = np.random.default_rng(0).normal(100, 3.2, (40, 64, 64)).round().astype(np.uint16)
    tifffile.imwrite(tmp_path / "dark.tif", dark, photometric="minisblack")
    code, report = livesr(
        capsys,
        "characterise",
        str(rig),
        "--dark",
        str(tmp_path / "dark.tif"),
        "--acquire",
        "20",
        "--yes",
        "--exposure",
        "1",
        "--dry-run",
    )
    assert (code, report["files"], report["picture"]) == (0, [], None)
    assert report["gain_e_per_adu"] > 0  # a moving cell is no even layer: the number means nothing
    assert not list(rig.glob("*.tif"))


def test_stacks_from_a_disk_end_in_corrected_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, rng = copied(tmp_path), np.random.default_rng(0)
    shape = (64, 80)
    fixed = np.rint(rng.normal(0, 4, shape))
    noise = SCMOSNoise(100.0, 2.0)
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[1]
    flat = np.exp(-((y - 0.3) ** 2 + (x - 0.5) ** 2)).astype(np.float32)

    def take(name: str, electrons: float, n: int) -> str:
        frames = [noise.expose(electrons * flat, rng) + fixed for _ in range(n)]
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(
            path, np.array(frames).astype(np.uint16), photometric="minisblack", compression="zlib"
        )
        return str(path)

    stacks = (
        "--dark",
        take("dark", 0, 120),
        "--flat",
        take("flat", 600, 80),
        "--light",
        take("light", 100, 40),
    )
    code, report = livesr(
        capsys,
        "characterise",
        str(rig),
        *stacks,
        "--channel",
        "488",
        "--picture",
        str(tmp_path / "p.png"),
    )
    assert code == 0, report
    assert report["gain_e_per_adu"] == pytest.approx(0.5, rel=0.02)
    assert report["read_noise_e"] == pytest.approx(1.6, rel=0.03)
    assert (tmp_path / "p.png").is_file()
    correction, _ = build_correction(load_rig(rig), "488", shape)
    assert correction is not None
    even = correction.apply([np.rint(400 * flat + 100 + fixed).astype(np.uint16)])[0]
    assert even.std() / even.mean() < 0.01


def test_what_cannot_work_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = copied(tmp_path)
    (tmp_path / "text.tif").write_text("no TIFF", encoding="utf-8")
    tifffile.imwrite(tmp_path / "one.tif", np.zeros((8, 8), np.uint16))
    cases = {
        (): "give --dark FILE, or --acquire 200",
        ("--dark", "nothing.tif"): "There is no nothing.tif",
        ("--dark", str(tmp_path / "text.tif")): "as TIFF",
        ("--dark", str(tmp_path / "one.tif")): "expected raw frames (n, y, x)",
        ("--acquire", "2"): "say with --channel to which: 488, 561",
        ("--acquire", "2", "--channel", "48"): "Did you mean '488'",
        (
            "--acquire",
            "2",
            "--channel",
            "488",
            "--yes",
            "--dark-preset",
            "off",
        ): "has no preset 'off'",
        (
            "--dark",
            str(tmp_path / "one.tif"),
            "--dark-preset",
            "dark",
        ): "add --acquire 200, and give no --dark FILE",
    }
    for arguments, words in cases.items():
        code, error = livesr(capsys, "characterise", str(rig), *arguments)
        assert code == 2, (arguments, error)
        assert words in error["error"], (arguments, error)
