"""Evaluation on pairs, null tests and the report: known engines give known answers."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from livesr.base.errors import EngineError
from livesr.cli import app
from livesr.evaluation.engines import diagnose_engine
from livesr.evaluation.metrics import mean_gradient
from livesr.evaluation.pairs import evaluate_pairs
from livesr.evaluation.pictures import PictureRow
from livesr.evaluation.report import box_plot, tukey, write_report

ENGINE = Path(__file__).parents[2] / "engines" / "identity"
NAMES = ["Structure 1", "Structure 2", "Structure 3"]
REAL = Path(__file__).parents[3] / "shared" / "data" / "organelles"


def pairs(
    n: int, side: int = 64, scale: int = 1
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    return [
        (
            rng.random((3, side, side)).astype(np.float32),
            rng.random((3, side * scale, side * scale)).astype(np.float32) ** 4,
        )
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return evaluate_pairs(
        ENGINE, pairs(5), NAMES, "random", backend="openvino", precision="f32", threads=1
    )


# -- pairs -----------------------------------------------------------------------------------------


def test_an_engine_that_does_nothing_gains_nothing_on_pairs(result: dict[str, Any]) -> None:
    assert list(result["structures"]) == NAMES
    for entry in result["structures"].values():
        assert entry["gain"]["pcc"]["mean"] == pytest.approx(0, abs=1e-3)
        assert entry["network"]["pcc"]["n"] == 5
        assert entry["network"]["gradient"]["mean"] == pytest.approx(
            entry["input"]["gradient"]["mean"], rel=0.01
        )
        assert entry["network"]["frc_px"]["mean"] >= 2
    assert result["data"] == "5 pairs: random"
    assert "mean_gradient" not in result
    assert list(result["decorrelation_px"][NAMES[0]]) == ["network", "input", "truth"]


def test_null_tests_on_pairs_of_an_engine_that_does_nothing(result: dict[str, Any]) -> None:
    for entry in result["leakage"].values():
        assert entry["total"]["mean"] == pytest.approx(2 / 3, abs=0.01), (
            "each structure is given as all three alike"
        )
        assert len(entry["into"]) == 2
    assert result["blank"]["n"] == 5
    clean = [(np.repeat(targets.sum(0)[None], 3, 0), targets) for _, targets in pairs(2)]
    found = evaluate_pairs(ENGINE, clean, NAMES, "", backend="openvino", precision="f32", threads=1)
    assert found["blank"]["mean"] is None, "a sum of clean images holds nothing besides them"


def test_targets_are_matched_by_name() -> None:
    def mean_pcc(names: list[str]) -> list[float]:
        found = evaluate_pairs(
            ENGINE, pairs(2), names, "", backend="openvino", precision="f32", threads=1
        )
        return [entry["network"]["pcc"]["mean"] for entry in found["structures"].values()]

    straight = mean_pcc(NAMES)
    assert mean_pcc(["x", "y", "z"]) == straight, "no name fits: by order"
    assert mean_pcc(["structure 3", "structure 1", "structure 2"]) == [
        straight[1],
        straight[2],
        straight[0],
    ]
    with pytest.raises(EngineError, match="Name the structures alike"):
        mean_pcc(["Structure 1", "er", "actin"])


def test_pairs_of_another_size_and_no_pairs_are_refused() -> None:
    with pytest.raises(EngineError, match="targets are"):
        evaluate_pairs(ENGINE, pairs(1, scale=2), NAMES, "", backend="openvino")
    with pytest.raises(EngineError, match="no pair"):
        evaluate_pairs(ENGINE, [], NAMES, "")


def test_an_upscaling_engine_is_compared_with_the_cubic_spline(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from livesr.export.onnx import export_onnx
    from livesr.live.inference.engine import Manifest, load_engine, sha256_of, write_manifest
    from livesr.training import networks
    from livesr.training.simulated import UpscalePairs

    torch.manual_seed(0)
    network = networks.build("edsr", scale=2, blocks=1, width=4)
    export_onnx(network, tmp_path / "model.onnx", 1)
    manifest = load_engine(ENGINE).manifest.model_dump() | {
        "id": "tiny",
        "task": "upscale",
        "scale": 2,
        "window": 1,
        "channels": [{"name": "Fine", "color": "FFFFFF"}],
        "weights": {"onnx": {"sha256": sha256_of(tmp_path / "model.onnx")}},
    }
    write_manifest(tmp_path, Manifest.model_validate(manifest))
    maker = UpscalePairs(64, 2, "storm")
    made = [maker.make((1, i)) for i in range(2)]
    found = evaluate_pairs(tmp_path, made, ["storm"], "", backend="openvino", threads=1)
    entry = found["structures"]["Fine"]
    assert entry["input"]["pcc"]["mean"] > 0.6, (
        "the spline of the coarse image resembles the fine one"
    )
    assert found["mean_gradient"]["truth"]["mean"] == pytest.approx(
        1000 * np.mean([mean_gradient(m[1][0]) for m in made])
    )
    assert found["mean_gradient"]["spline"]["mean"] < found["mean_gradient"]["input"]["mean"]
    assert found["mean_gradient"]["mosaic"]["mean"] < 0.7 * found["mean_gradient"]["input"]["mean"]


# -- null tests ------------------------------------------------------------------------------------


def test_null_tests_of_an_engine_that_does_nothing() -> None:
    found = diagnose_engine(
        ENGINE, seeds=[6], size=96, backend="openvino", precision="f32", threads=1
    )
    assert set(found) == {"shuffled_pcc_loss", "flicker", "frc_nm", "decorrelation_nm"}
    for name in NAMES:
        assert found["shuffled_pcc_loss"][name]["mean"] == pytest.approx(0, abs=0.01), (
            "it looks at one frame"
        )
        assert found["frc_nm"][name]["mean"] == pytest.approx(
            found["frc_nm"]["input"]["mean"], rel=0.05
        )
        assert found["flicker"][name]["mean"] > 0, "the camera's noise goes through"
        (value,) = found["flicker"][name]["values"]
        assert value == pytest.approx(found["flicker"][name]["mean"], abs=1e-4)


# -- the page --------------------------------------------------------------------------------------


def test_boxes_are_tukeys() -> None:
    quartiles, whiskers, outliers = tukey([1, 2, 3, 4, 5, 6, 7, 8, 9, 40])
    assert quartiles == pytest.approx((3.25, 5.5, 7.75))
    assert whiskers == (1, 9)
    assert outliers == [40]
    assert tukey([2.0]) == ((2, 2, 2), (2, 2), [])


def test_a_plot_draws_every_box_and_outlier() -> None:
    values = [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 40]
    plot = box_plot(
        "a < b", {"A": {"network": values, "input": values}, "B": {"network": values, "input": []}}
    )
    assert plot.count("<rect") == 3
    assert plot.count("<circle") == 3
    assert "a &lt; b" in plot
    assert "<svg" in box_plot("nothing", {"A": {"network": []}})


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_report_is_one_page_that_loads_nothing(result: dict[str, Any], tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    row = PictureRow("", image[0], image, image, tuple(NAMES), ("00FF00", "FF00FF", "FFFF00"))
    diagnostics: dict[str, Any] = {
        "flicker": {"input": {"mean": 0.1, "low": None, "high": None, "n": 1}}
    }
    text = write_report(tmp_path, {**result, "diagnostics": diagnostics}, [row]).read_text(
        encoding="utf-8"
    )
    page = Page()
    page.feed(text)
    assert page.tags.count("svg") == 3
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "untrained" in text
    assert "Flicker in a scene that stands still" in text
    assert "intervals over pairs" in text, "pairs may be of one cell"
    assert "intervals over sequences" not in text
    assert "too narrow, and covers" not in text, "one scene has no interval"
    diagnostics["flicker"]["input"] |= {"low": 0.05, "high": 0.15, "n": 4}
    text = write_report(tmp_path, {**result, "diagnostics": diagnostics}).read_text("utf-8")
    assert "Of 4 scenes: such an interval is too narrow" in text
    assert (
        json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["engine"]["id"]
        == "identity"
    )


# -- the command -----------------------------------------------------------------------------------


def evaluate(*arguments: object) -> tuple[dict[str, Any], list[str]]:
    """Return what the command says, and its lines of progress."""
    command = [
        "evaluate",
        str(ENGINE),
        "--threads",
        "1",
        "--backend",
        "openvino",
        *map(str, arguments),
        "--json",
        "--progress",
    ]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return json.loads(done.stdout), [line["progress"] for line in lines]


def test_the_command_evaluates_on_simulated_cells(tmp_path: Path) -> None:
    found, lines = evaluate("--n", 1, "--size", 96, "--out", tmp_path, "--conditions", "very high")
    assert lines == ["sequences scored", "null tests"]
    assert found["settings"]["conditions"]["photons"] == [500, 2000]
    assert found["diagnostics"]["flicker"]["input"]["n"] == 1
    assert (tmp_path / "report.html").exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not part of the repository")
def test_the_command_evaluates_on_real_images(tmp_path: Path) -> None:
    files = {
        "Microtubules": "microtubules_1004",
        "ER": "er_224x1024",
        "Lysosomes": "lysosomes_1024",
    }
    lines = [f"    {name}: {REAL / file}.tif" for name, file in files.items()]
    (tmp_path / "own.yaml").write_text(
        "\n".join(["images:", "  pixel_size_nm: 32", "  folders:", *lines])
    )
    command = [
        "evaluate",
        "imcsr-mt-er-lyso-light",
        "--data",
        tmp_path / "own.yaml",
        "--n",
        4,
        "--size",
        208,
    ]
    output = CliRunner().invoke(
        app, [*map(str, command), "--out", str(tmp_path), "--json"], catch_exceptions=False
    )
    found = json.loads(output.stdout)
    for entry in found["structures"].values():
        assert entry["gain"]["pcc"]["mean"] > 0.05, "it separates what it was never trained on"
