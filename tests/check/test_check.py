"""The shipped rigs pass; a copy with one thing broken is told so, in the right line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from livesr.base.errors import ConfigError
from livesr.check import micromanager
from livesr.check.finding import Finding
from livesr.check.rig import check_rig
from livesr.cli import _run
from rig_copies import RIGS

CFG, YAML = "rig.cfg", "rig.yaml"
SHIPPED = sorted(path.parent.name for path in RIGS.glob("[!_]*/rig.yaml"))


@pytest.mark.parametrize("rig", SHIPPED)
def test_the_shipped_rigs_have_nothing_to_say(rig: str) -> None:
    # The demo camera shows nothing that an engine knows, which is to be said wherever it can be.
    expected = ["engine-fit", "engine-fit", "demo-camera"] if rig == "demo" else []
    assert sorted(f.code for f in check_rig(RIGS / rig / YAML)) == sorted(expected)


def broken(folder: Path, rig: str, file: str, before: str, after: str) -> Path:
    target = folder / rig
    shutil.copytree(RIGS / rig, target)
    text = (target / file).read_text(encoding="utf-8")
    assert before in text, f"{before!r} is not in {rig}/{file}"
    (target / file).write_text(text.replace(before, after, 1), encoding="utf-8")
    return target / YAML


def only(findings: list[Finding], code: str) -> Finding:
    (finding,) = [f for f in findings if f.code == code] or [None]
    assert finding is not None, f"{code} is not among {[f.code for f in findings]}"
    return finding


CHOICE = "Property,Core,ChannelGroup,Channel\n"
CAMERA_OF_488 = CHOICE + "ConfigGroup,Channel,488,Core,Camera,Camera\n"
CAMERAS = (
    CAMERA_OF_488
    + "ConfigGroup,Channel,561,Core,Camera,Second\n"
    + "Device,Second,DemoCamera,DCam\nParent,Second,DHub\n"
)
SIZES = "ConfigPixelSize,Far,Core,Camera,Second\nPixelSize_um,Far,0.13\n"
SHUTTER = "Property,Core,Shutter,Shutter"
PIXEL = "PixelSize_um,Res100x,0.065"
K0 = "- {k_um: [1.2338, 4.9485], phase_rad: 0.4, modulation: 0.75}"
STEPS = "phase_steps_rad: [0.0, 2.0943951, 4.1887902]"
PATTERN = "pattern_property: [Camera, PatternIndex]"
SEPARATE = "separate: imcsr-mt-er-lyso-light"

CASES = [
    # rig, file, what stands there, what is put there, code, level, where the finding points, a word
    # of it
    (
        "demo",
        CFG,
        SHUTTER,
        "Properti,Core,Shutter,Shutter",
        "command",
        "error",
        "Properti,",
        "Did you mean 'Property'",
    ),
    (
        "demo",
        CFG,
        "Label,Emission,0,525/50",
        "Label,Emission,525/50",
        "arguments",
        "error",
        "Label,Emission,525",
        "2 values",
    ),
    (
        "demo",
        CFG,
        "Device,Z,DemoCamera,DStage",
        "Device,Z,DemoCamera, DStage",
        "space",
        "warning",
        ", DStage",
        "comma",
    ),
    (
        "demo",
        CFG,
        "Device,XY,",
        "Device,Z,",
        "duplicate-device",
        "error",
        "Device,Z,DemoCamera,DStage",
        "second time",
    ),
    (
        "demo",
        CFG,
        "Parent,XY,DHub",
        "Parent,XZ,DHub",
        "dangling-device",
        "error",
        "Parent,XZ",
        "'XZ' is not declared",
    ),
    (
        "demo",
        CFG,
        "488,Emission,Label,525/50",
        "488,Emision,Label,525/50",
        "dangling-device",
        "error",
        "Emision",
        "'Emission'",
    ),
    (
        "demo",
        CFG,
        "488,Emission,Label,525/50",
        "488,Emission,Label,525/5",
        "dangling-label",
        "error",
        "525/5\n",
        "'525/50'",
    ),
    (
        "demo",
        CFG,
        "Camera,PixelType,",
        "Camera,Pixeltype,",
        "property-name",
        "warning",
        "Pixeltype",
        "'PixelType'",
    ),
    ("demo", CFG, "Property,Core,Camera,Camera", "", "no-camera", "error", "", "No camera"),
    (
        "demo",
        CFG,
        "Property,Core,Camera,Camera",
        "Property,Core,Camera,Cam",
        "dangling-device",
        "error",
        "Camera,Cam\n",
        "Cam",
    ),
    ("demo", CFG, SHUTTER, "", "no-shutter", "warning", "", "No Shutter"),
    ("demo", CFG, "Property,Core,Focus,Z", "", "no-focus", "note", "", "No Focus"),
    (
        "demo",
        CFG,
        "Parent,Camera,DHub",
        "",
        "no-parent",
        "warning",
        "Device,Camera,",
        "child of DHub",
    ),
    ("demo", CFG, PIXEL, "", "pixel-size-value", "error", "ConfigPixelSize", "no PixelSize_um"),
    (
        "demo",
        CFG,
        PIXEL,
        "PixelSize_um,Res100x,0",
        "pixel-size",
        "error",
        "PixelSize_um,Res100x,0",
        "0 um",
    ),
    (
        "demo",
        CFG,
        PIXEL,
        "PixelSize_um,Res100x,0.65",
        "magnification",
        "warning",
        "ConfigPixelSize",
        "65.0 um",
    ),
    (
        "demo",
        CFG,
        PIXEL,
        "PixelSize_um,Res100x,0.1",
        "pixel-size-differs",
        "warning",
        "pixel_size_nm: 65",
        "100 nm",
    ),
    (
        "demo",
        CFG,
        "FocusDirection,Z,0",
        "FocusDirection,Z,up",
        "parse",
        "warning",
        "",
        "FocusDirection",
    ),
    (
        "virtual_sim",
        CFG,
        "livesr.modalities.sim.simulation.rig,",
        "livesr.modalities.sim.simulation.rigg,",
        "python-module",
        "error",
        "rigg",
        "installed",
    ),
    (
        "virtual_sim",
        YAML,
        "core: unicore",
        "core: mmcore",
        "python-device",
        "error",
        "",
        "core: mmcore",
    ),
    (
        "demo",
        YAML,
        "micromanager: rig.cfg",
        "micromanager: other.cfg",
        "no-cfg",
        "error",
        "micromanager:",
        "other.cfg",
    ),
    ("demo", YAML, "optics:", "optiks:", "schema", "error", "optiks:", "Did you mean 'optics'"),
    (
        "demo",
        YAML,
        "exposure_ms: 10",
        "exposure_ms: -1",
        "schema",
        "error",
        "exposure_ms: -1",
        "greater than 0",
    ),
    ("demo", YAML, "exposure_ms: 10", "exposure_ms: [1", "schema", "error", None, "not valid YAML"),
    (
        "demo",
        YAML,
        "channel_group: Channel",
        "channel_group: Chanel",
        "channel-group",
        "error",
        "channel_group:",
        "'Channel'",
    ),
    (
        "demo",
        YAML,
        '"488": {',
        '"4888": {',
        "channel-preset",
        "error",
        '"4888"',
        "no preset '4888'",
    ),
    (
        "demo",
        YAML,
        "emission_nm: 605",
        "emission_nm: 540",
        "emission",
        "warning",
        '"561"',
        "emits at 540",
    ),
    (
        "demo",
        YAML,
        "exposure_ms: 10",
        "exposure_ms: 20",
        "exposure",
        "note",
        "exposure_ms: 20",
        "sets 10 ms",
    ),
    (
        "demo",
        YAML,
        "interval_ms: 0",
        "interval_ms: 5",
        "interval",
        "warning",
        "interval_ms: 5",
        "20 ms",
    ),
    (
        "virtual_sim",
        YAML,
        "pixel_size_nm: 65",
        "pixel_size_nm: 100",
        "undersampled",
        "warning",
        "pixel_size_nm",
        "88 nm",
    ),
    (
        "virtual_storm",
        YAML,
        "reconstruct: storm",
        "reconstruct: widefield",
        "modality-unused",
        "warning",
        "modality: storm",
        "reconstruct: storm",
    ),
    (
        "virtual_sim",
        YAML,
        "pixel_size_nm: 65",
        "pixel_size_nm: 6.5",
        "oversampled",
        "warning",
        "pixel_size_nm",
        "a third",
    ),
    (
        "virtual_sim",
        YAML,
        K0,
        K0.replace("[1.2338, 4.9485]", "[4.9, 9.9]"),
        "pattern-length",
        "error",
        "[4.9, 9.9]",
        "cutoff",
    ),
    (
        "virtual_sim",
        YAML,
        K0,
        K0.replace("[1.2338, 4.9485]", "[0.6, 2.4]"),
        "pattern-length",
        "warning",
        "[0.6, 2.4]",
        "usual",
    ),
    (
        "virtual_sim",
        YAML,
        K0,
        K0.replace("[1.2338, 4.9485]", "[1.1, 4.4]"),
        "pattern-lengths",
        "warning",
        "patterns:",
        "10 %",
    ),
    (
        "virtual_sim",
        YAML,
        K0,
        K0.replace("[1.2338, 4.9485]", "[4.9, 1.4]"),
        "angles",
        "error",
        "patterns:",
        "0 degrees",
    ),
    (
        "virtual_sim",
        YAML,
        K0,
        K0.replace("[1.2338, 4.9485]", "[3.0, 4.1]"),
        "angles",
        "warning",
        "patterns:",
        "evenly",
    ),
    (
        "virtual_sim",
        YAML,
        K0,
        K0.replace("0.75}", "0.1}"),
        "modulation",
        "warning",
        "modulation: 0.1}",
        "0.1",
    ),
    (
        "virtual_sim",
        YAML,
        STEPS,
        "phase_steps_rad: [0, 6.2831853, 2]",
        "phase-steps",
        "error",
        "phase_steps",
        "apart",
    ),
    (
        "virtual_sim",
        YAML,
        STEPS,
        "phase_steps_rad: [0, 120, 240]",
        "phase-steps",
        "warning",
        "phase_steps",
        "degrees",
    ),
    (
        "virtual_sim",
        YAML,
        PATTERN,
        "pattern_property: [SLM, X]",
        "pattern-device",
        "error",
        "pattern_property:",
        "'SLM'",
    ),
    (
        "virtual_sim",
        YAML,
        PATTERN,
        PATTERN.replace("Index", ""),
        "pattern-name",
        "warning",
        "pattern_property",
        "PatternIndex",
    ),
    (
        "virtual_sim",
        YAML,
        PATTERN,
        "trigger: {device: Gate, property: S}",
        "pattern-device",
        "error",
        "trigger:",
        "'Gate'",
    ),
    (
        "virtual_sim",
        YAML,
        PATTERN,
        "trigger: {device: Camera, property: S}",
        "pattern-name",
        "warning",
        "trigger:",
        "'S'",
    ),
    ("virtual_sim", YAML, PATTERN, "", "pattern-start", "note", "sim:", "advances"),
    (
        "virtual_sim",
        YAML,
        SEPARATE,
        "separate: imcsr",
        "engine",
        "error",
        "separate: imcsr",
        "No engine 'imcsr'",
    ),
    (
        "virtual_sim",
        YAML,
        "pixel_size_nm: 65",
        "pixel_size_nm: 95",
        "engine-fit",
        "warning",
        "separate:",
        "47.5 nm",
    ),
    (
        "virtual_sim",
        YAML,
        "pixel_size_nm: 65",
        "pixel_size_nm: 80",
        "resampled",
        "note",
        "separate:",
        "brought to 32.19 nm",
    ),
    (
        "demo",
        YAML,
        "optics:",
        "corrections: {offset: no.tif}\noptics:",
        "corrections",
        "error",
        "corrections:",
        "no.tif",
    ),
    (
        "demo",
        YAML,
        "optics:",
        "corrections: {flat: {'5': a.tif}}\noptics:",
        "schema",
        "error",
        None,
        "channel '5'",
    ),
    (
        "demo",
        CFG,
        CHOICE,
        CAMERA_OF_488,
        "camera-not-set",
        "error",
        '"561":',
        "whichever was used last",
    ),
    ("demo", CFG, CHOICE, CAMERAS, "cameras", "note", "channels:", "488 by Camera, 561 by Second"),
    (
        "demo",
        CFG,
        CHOICE,
        CAMERAS.replace("Camera,Second", "Camera,Secnd"),
        "dangling-device",
        "error",
        "Secnd",
        "Secnd",
    ),
    (
        "demo",
        CFG,
        CHOICE,
        CAMERAS + SIZES,
        "pixel-size-channel",
        "warning",
        '"561":',
        "pixels of 130 nm",
    ),
    (
        "demo",
        CFG,
        "Camera,BitDepth,16",
        "Camera,BitDepth,12",
        "bit-depth",
        "warning",
        "bit_depth: 16",
        "set to 12",
    ),
    ("demo", CFG, "", "", "demo-camera", "warning", "separate: imcsr", "no specimen"),
    (
        "virtual_sim",
        CFG,
        "Dyes,microtubules+er+lysosomes",
        "Dyes,nonsense",
        "dyes",
        "error",
        "Dyes,nonsense",
        "there are microtubules",
    ),
    (
        "tirf_sim",
        CFG,
        "Lasers,Blanking,On",
        "Lasers,Blankin,On",
        "property-name",
        "warning",
        "Blankin,",
        "'Blanking'",
    ),
    (
        "tirf_sim",
        CFG,
        "Parent,DisplayGate,DAQ",
        "",
        "no-parent",
        "warning",
        "Device,DisplayGate",
        "NIDAQHub",
    ),
    ("tirf_sim", CFG, "Piezo,Axis,1", "Piezo,Axes,1", "property-name", "warning", "Axes", "'Axis'"),
    (
        "storm_ti",
        CFG,
        "Camera,EMSwitch,On",
        "Camera,EMswitch,On",
        "property-name",
        "warning",
        "EMswitch",
        "'EMSwitch'",
    ),
    (
        "storm_ti",
        CFG,
        "Parent,TIPFSOffset,TIScope",
        "",
        "no-parent",
        "warning",
        "Device,TIPFSOffset",
        "TIScope",
    ),
    (
        "storm_ti",
        YAML,
        "pixel_size_nm: 107",
        "pixel_size_nm: 267",
        "pixel-size-differs",
        "warning",
        "pixel_size_nm",
        "267",
    ),
    (
        "virtual_storm",
        YAML,
        "  # activation: {device: Activation, property: Power",
        "  activation: {device: Laser405, property: Power",
        "activation-device",
        "error",
        "activation:",
        "'Laser405'",
    ),
    (
        "virtual_storm",
        YAML,
        "  # activation: {device: Activation, property: Power",
        "  activation: {device: Shutter, property: Power",
        "activation-name",
        "warning",
        "activation:",
        "'Power'",
    ),
    (
        "virtual_storm",
        YAML,
        "gain_e_per_adu:",
        "# gain_e_per_adu:",
        "schema",
        "error",
        None,
        "gain_e_per_adu",
    ),
    (
        "virtual_fluctuation",
        YAML,
        "radius: 1.5",
        "radius: 4.5",
        "fluctuation-radius",
        "warning",
        "radius: 4.5",
        "wide",
    ),
    (
        "virtual_fluctuation",
        YAML,
        "method: esrrf",
        "method: sofi\n  order: 4",
        "fluctuation-frames",
        "note",
        "every:",
        "order 4",
    ),
]


@pytest.mark.parametrize(
    ("rig", "file", "before", "after", "code", "level", "where", "word"),
    CASES,
    ids=lambda v: str(v)[:24],
)
def test_what_is_broken_is_told(
    tmp_path: Path,
    rig: str,
    file: str,
    before: str,
    after: str,
    code: str,
    level: str,
    where: str | None,
    word: str,
) -> None:
    finding = only(check_rig(broken(tmp_path, rig, file, before, after)), code)
    assert finding.level == level
    assert word in finding.says + finding.advice
    assert finding.advice.endswith(".")
    if where:
        line = finding.file.read_text(encoding="utf-8").splitlines(keepends=True)[finding.line - 1]
        assert where in line


def test_every_finding_has_a_test() -> None:
    package = Path(micromanager.__file__).parents[1]
    sources = [
        *package.glob("check/[!s]*.py"),  # stores have test_check_store.py
        *package.glob("modalities/*/check.py"),
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    codes = set(re.findall(r'(?:found|Finding)\(\s*(?:level|"\w+"),\s*"([a-z-]+)"', text))
    tested = {case[4] for case in CASES} | {
        "no-pixel-size",
        "no-flat",
        "trigger",
        "backend",
        "uncalibrated",
        "one-direction",
        "limits",  # test_rig_limits.py
        "error-bars",  # test_beside_the_rig.py
    }
    tested |= {"corrections-cameras"}
    assert codes <= tested
    assert {"dangling-device", "engine", "magnification"} <= codes


def test_a_sim_rig_that_was_not_calibrated(tmp_path: Path) -> None:
    path = broken(tmp_path, "virtual_sim", YAML, "  patterns:\n", "  not_yet:\n")
    lines = [
        x
        for x in path.read_text(encoding="utf-8").splitlines()
        if not x.startswith(("  not_yet", "    - {k_um"))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    finding = only(check_rig(path), "uncalibrated")
    assert finding.level == "error"
    assert "livesr calibrate" in finding.advice


def test_several_phases_of_one_angle(tmp_path: Path) -> None:
    path = broken(tmp_path, "virtual_sim", YAML, "angles: 3", "angles: 1")
    text = re.sub(r"    - \{k_um: \[(4|3).*\n", "", path.read_text(encoding="utf-8"))
    text = text.replace("phases: 3", "phases: 7").replace(STEPS + "\n", "\n")
    path.write_text(text, encoding="utf-8")
    finding = only(check_rig(path), "one-direction")
    assert finding.level == "warning"
    assert "several directions" in finding.advice


def test_a_rig_without_any_pixel_size(tmp_path: Path) -> None:
    path = broken(
        tmp_path, "demo", CFG, "ConfigPixelSize,Res100x,Objective,Label,100x\n" + PIXEL, ""
    )
    assert only(check_rig(path), "no-pixel-size").level == "note"
    path.write_text(
        path.read_text(encoding="utf-8").replace("  pixel_size_nm: 65\n", ""), encoding="utf-8"
    )
    assert only(check_rig(path), "no-pixel-size").level == "error"


def test_maps_that_differ_in_size_and_a_flat_field_that_is_missing(tmp_path: Path) -> None:
    corrections = "corrections: {offset: o.tif, flat: {'488': f.tif}}\noptics:"
    path = broken(tmp_path, "demo", YAML, "optics:", corrections)
    for name, side in (("o.tif", 8), ("f.tif", 9)):
        tifffile.imwrite(path.with_name(name), np.ones((side, side), np.float32))
    findings = check_rig(path)
    assert "f.tif is 9x9, and o.tif is 8x8" in only(findings, "corrections").says
    assert "'561'" in only(findings, "no-flat").says


def test_maps_of_one_chip_and_two_cameras(tmp_path: Path) -> None:
    path = broken(tmp_path, "demo", CFG, CHOICE, CAMERAS)
    text = path.read_text(encoding="utf-8").replace(
        "optics:", "corrections: {bad_pixels: [[1, 1]]}\noptics:", 1
    )
    path.write_text(text, encoding="utf-8")
    assert "map of one chip" in only(check_rig(path), "corrections-cameras").says


def test_a_camera_that_waits_for_triggers(tmp_path: Path) -> None:
    path = broken(
        tmp_path,
        "demo",
        CFG,
        "Device,Camera,DemoCamera,DCam",
        "Device,Camera,HamamatsuHam,HamamatsuHam_DCAM",
    )
    cfg = path.with_name(CFG)
    startup = "".join(
        f"ConfigGroup,System,Startup,Camera,{setting}\n"
        for setting in ("TRIGGER SOURCE,EXTERNAL", "OUTPUT TRIGGER KIND[2],EXPOSURE")
    )
    cfg.write_text(cfg.read_text(encoding="utf-8") + startup, encoding="utf-8")
    findings = check_rig(path)
    assert only(findings, "trigger").level == "note"
    names = [f.says for f in findings if f.code == "property-name"]
    assert not [
        says for says in names if says.startswith("'OUTPUT") or says.startswith("'TRIGGER")
    ]  # [2] is as good as [0]
    assert [says for says in names if "OnCameraCCDXSize" in says]


def test_no_runtime_for_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    from livesr.live.inference.runtime import BACKENDS

    for name in BACKENDS.names:
        monkeypatch.setattr(BACKENDS.load(name), "unavailable", lambda self: "not installed")
    assert only(check_rig(RIGS / "virtual_sim" / YAML), "backend").level == "error"


def test_the_weights_of_an_engine_are_compared_with_its_manifest(tmp_path: Path) -> None:
    engine = tmp_path / "forged"
    shutil.copytree(RIGS.parent / "engines" / "identity", engine)
    with (engine / "model.onnx").open("ab") as model:
        model.write(b"\0")
    path = broken(tmp_path, "virtual_sim", YAML, SEPARATE, f"separate: {engine.as_posix()}")
    assert "SHA-256" in only(check_rig(path), "engine").says


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["check", "demo", "--json"]) == 0
    assert {f["level"] for f in json.loads(capsys.readouterr().out)["findings"]} == {"warning"}
    path = broken(tmp_path, "demo", CFG, "Parent,XY,DHub", "Parent,XZ,DHub")
    assert _run(["check", str(path.parent), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["error"], report["exit_code"]) == (1, 1)
    (finding,) = (f for f in report["findings"] if f["level"] == "error")
    number = (
        path.with_name(CFG).read_text(encoding="utf-8").splitlines().index("Parent,XZ,DHub") + 1
    )
    assert (finding["place"], finding["level"]) == (f"rig.cfg:{number}", "error")
    assert _run(["check", str(path.parent)]) == 1
    assert "1 error" in " ".join(capsys.readouterr().out.split())
    assert _run(["check", "demoo", "--json"]) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no .*rig\.yaml"):
        check_rig(tmp_path / YAML)
