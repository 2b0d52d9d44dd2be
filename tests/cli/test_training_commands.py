"""From a recipe to an engine that runs live: train, resume, export, demo."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from livesr.base.config import data_folders
from livesr.base.errors import ConfigError, EngineError, UsageError
from livesr.cli import app
from livesr.evaluation.limits import domain_of
from livesr.export.quantise import simulated_pairs
from livesr.live.inference.engine import load_engine
from livesr.simulation.domain import CALIBRATED
from livesr.training import networks
from livesr.training.journal import read_log
from livesr.training.recipes import load_recipe, names
from livesr.training.simulated import SimulatedPairs
from own_process import report_of

pytestmark = pytest.mark.timeout(900)  # several trainings each

RECIPE = {
    "description": "A network of almost no size, for this test.",
    "data": {"train": 8, "validation": 4, "size": 64, "seed": 5, "validation_seed": 6},
    "train": {
        "parameters": {
            "width": 8,
            "groups": 1,
            "blocks": 1,
            "reduction": 4,
            "unshuffle": 2,
            "head": "partition",
        },
        "steps": 6,
        "patch": 48,
        "batch": 2,
        "precision": "fp32",
        "log_every": 3,
        "validate_every": 3,
        "checkpoint_every": 3,
        "validation_pairs": 2,
        "threads": 1,
    },
    "engine": {
        "id": "tiny",
        "version": "0",
        "task": "separate",
        "channels": [
            {"name": n, "color": c}
            for n, c in (("Microtubules", "00FF00"), ("ER", "FF00FF"), ("Lysosomes", "FFFF00"))
        ],
        "window": 3,
        "modality": ["sim"],
    },
}


@pytest.mark.slow
def test_a_recipe_becomes_an_engine_that_runs(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    report_of("train", "--recipe", "tiny.yaml", "--out", "run", "--workers", "1", cwd=tmp_path)
    assert {p.name for p in (tmp_path / "run").glob("*.png")} == {"curves.png", "validation.png"}
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    report_of(
        "train",
        "--recipe",
        "tiny.yaml",
        "--out",
        "run",
        "--workers",
        "1",
        "--steps",
        "9",
        cwd=tmp_path,
    )
    assert (tmp_path / "run" / "log.csv").read_text().splitlines()[
        : len(rows)
    ] == rows  # it went on, it did not begin anew
    result = report_of(
        "export",
        "run",
        "--out",
        "tiny",
        "--weights",
        "final",
        "--sequences",
        "2",
        "--time-points",
        "3",
        cwd=tmp_path,
    )
    engine = load_engine(tmp_path / "tiny")
    assert engine.manifest.sha256 == result["sha256"]
    assert engine.manifest.trained
    assert set(engine.manifest.metrics.channels) == {"Microtubules", "ER", "Lysosomes"}
    assert engine.manifest.metrics.residual is not None
    card = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert "9 steps of 2 patches of 48 x 48" in " ".join(card.split())
    report = report_of(
        "demo",
        "--engine",
        "tiny",
        "--size",
        "64",
        "--frames",
        "4",
        "--policy",
        "complete",
        cwd=tmp_path,
    )
    assert report["sr_frames"] == 4
    assert set(report["score"]) == {"Microtubules", "ER", "Lysosomes"}


@pytest.mark.slow
def test_slices_come_to_an_end_and_runs_share_their_pairs(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))

    def train(out: str, *more: str) -> dict[str, Any]:
        arguments = [
            "--recipe",
            recipe,
            "--data",
            tmp_path / "pairs",
            "--out",
            tmp_path / out,
            "--workers",
            1,
            *more,
        ]
        result = CliRunner().invoke(
            app, ["train", *map(str, arguments), "--json"], catch_exceptions=False
        )
        return json.loads(result.stdout)

    for _ in range(100):
        if train("run", "--slice", "0.01")["finished"]:
            break
    assert (tmp_path / "run" / "final.pt").exists()
    made = (tmp_path / "pairs" / "pairs-train" / "frames.npy").stat().st_mtime_ns
    assert train("student", "--teacher", str(tmp_path / "run"), "--steps", "2")["finished"]
    assert "teacher" in read_log(tmp_path / "student" / "log.csv")[0]
    assert (tmp_path / "pairs" / "pairs-train" / "frames.npy").stat().st_mtime_ns == made
    invoke("export", tmp_path / "run", "--out", tmp_path / "engine", "--sequences", 0)
    assert train("second", "--start", str(tmp_path / "engine"), "--steps", "2")["finished"]
    invoke("export", tmp_path / "second", "--out", tmp_path / "second-engine", "--sequences", 0)
    begun = load_engine(tmp_path / "second-engine").manifest.training["start"]
    assert begun["name"] == load_engine(tmp_path / "engine").manifest.id
    assert begun["tensors"] == begun["of"]
    assert begun["outputs"]["Microtubules"] == "Microtubules"
    card = (tmp_path / "second-engine" / "README.md").read_text()
    assert "It began with" in card
    assert "; outputs taken over: " in card


def test_a_network_for_one_microscope_says_so_and_what_it_gained(tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "of-any"
    recipe.write_text(yaml.safe_dump(RECIPE))
    common = ("--workers", 1, "--recipe", recipe)
    invoke("train", *common, "--out", tmp_path / "first", "--steps", 2)
    invoke("export", tmp_path / "first", "--out", out, "--sequences", 0)
    rig = yaml.safe_load((data_folders("hardware_configs")[0] / "virtual_sim/rig.yaml").read_text())
    rig |= {"channels": {"488 nm": {"separate": "imcsr-mt-er-lyso-light"}}}
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(rig))
    own = ("--rig", tmp_path, "--photons", 20, 60, "--start", out, "--pairs", 4, "--validation", 2)
    done = invoke("train", *common, *own, "--out", tmp_path / "run", "--steps", 3)
    before, *_, last = read_log(tmp_path / "run" / "log.csv")
    assert (before["step"], last["step"]) == ("0", "3")
    assert done["validation"]["pcc"] == pytest.approx(float(last["val_pcc"]), abs=1e-5)
    short = ("--sequences", 1, "--time-points", 3)
    found = invoke("export", tmp_path / "run", "--out", tmp_path / "mine", *short)
    manifest = load_engine(tmp_path / "mine").manifest
    assert manifest.id == "tiny-virtual-sim-488-nm"
    told = {"name": "virtual SIM", "channel": "488 nm", "photons": [20.0, 60.0]}
    missing = ["damping", "gain_e_per_adu", "read_noise_e"]
    assert manifest.training["rig"] == {**told, "unmeasured": missing}
    assert manifest.training["recipe"] == "tiny"
    assert manifest.pixel_size_nm is not None
    assert 32.5 in manifest.pixel_size_nm
    start = found["metrics"]["calibrated"]["start"]
    assert start["engine"]["id"] == "tiny"
    assert found["metrics"]["calibrated"]["mean_pcc"]["network"]["mean"] == pytest.approx(
        start["mean_pcc"]["mean"] + start["gain"]["mean"], abs=1e-4
    )
    card = " ".join((tmp_path / "mine" / "README.md").read_text(encoding="utf-8").split())
    assert "For one microscope: virtual SIM, channel 488 nm: resolution " in card
    assert f"Its rig.yaml did not say {', '.join(missing)}: any usual." in card
    assert "Patterns as calibrated, 20 to 60 photo-electrons" in card
    assert "The engine that it began with, tiny, on the same sequences: " in card
    again = "livesr train --rig RIG --channel '488 nm' --recipe tiny --photons 20 60 --start"
    assert f"{again} {out}" in card


def test_an_engine_of_one_microscope_is_judged_under_it(tmp_path: Path) -> None:
    recipe, run, out = tmp_path / "tiny.yaml", tmp_path / "run", tmp_path / "mine"
    recipe.write_text(yaml.safe_dump(RECIPE))
    small = ("--workers", 1, "--pairs", 1, "--validation", 1, "--steps", 1)
    invoke("train", "--rig", "tirf_sim", "--channel", 640, "--recipe", recipe, *small, "--out", run)
    invoke("export", run, "--out", out, "--sequences", 0)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "livesr train --rig RIG --channel 640 --recipe tiny --out" in card
    exported, domain = load_engine(out).manifest, load_recipe(run / "recipe.json").data.domain
    assert (domain_of(exported), domain.na) == (domain, (1.48, 1.5))
    pairs, _ = simulated_pairs(load_engine(out), 1, 3, size=64)
    expected = SimulatedPairs(64, domain).make((3, 0))
    np.testing.assert_array_equal(pairs[0][0], expected[0])
    scored = invoke(
        "evaluate", out, "--out", tmp_path / "scores", "--n", 1, "--size", 128, "--no-null-tests"
    )
    assert scored["settings"]["conditions"]["emission_um"] == list(domain.emission_um)
    assert scored["settings"]["conditions"]["photons"] == list(CALIBRATED.photons)
    invoke("limits", out, "--sequences", 1)
    assert load_engine(out).manifest.resolution_nm == exported.resolution_nm
    spoiled = exported.model_copy(update={"training": {"domain": {"na": "high"}}})
    with pytest.raises(EngineError, match="'training: domain' of engine 'tiny-tirf-sim-640': na"):
        domain_of(spoiled)


@pytest.mark.parametrize("there", [True, False])
def test_a_refused_call_leaves_the_recipe_of_the_run(tmp_path: Path, there: bool) -> None:
    recipe, run = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(RECIPE))
    small = ("--recipe", recipe, "--workers", 1, "--pairs", 1, "--validation", 1, "--steps", 1)
    invoke("train", *small, "--out", run)
    before = (run / "recipe.json").read_bytes()
    other = run if there else tmp_path / "other"
    with pytest.raises(ConfigError, match=r"differ in domain \(.*na, .*wiener"):
        invoke("train", "--rig", "virtual_sim", *small, "--out", other, "--data", run)
    assert (run / "recipe.json").read_bytes() == before
    assert there or not (other / "recipe.json").exists()


def test_the_shortest_slice_makes_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    hours = itertools.count(step=3600)
    clock = types.SimpleNamespace(monotonic=lambda: float(next(hours)))
    monkeypatch.setattr("livesr.cli.train.time", clock)
    for made in (1, 2):
        call = ("--recipe", recipe, "--workers", 1, "--slice", 1, "--out", tmp_path / "run")
        assert not invoke("train", *call)["finished"]
        assert np.load(tmp_path / "run" / "pairs-train" / "done.npy").sum() == made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": None}, "engine.id: "),
        ({"id": "Mine"}, "engine.id: "),
        ({"window": None}, "engine.window: "),
        ({"channels": None}, "engine.channels: "),
        ({"channels": [{"name": "ER", "color": "red"}]}, "engine.channels.0.color: "),
        ({"chanels": 3}, "engine.chanels: "),
        ({"license": "MIT", "haze": True}, "engine: haze, license is said by 'livesr export'"),
    ],
)
def test_an_engine_that_could_not_be_written_is_refused_before_it_is_trained(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    engine = {k: v for k, v in {**RECIPE["engine"], **change}.items() if v is not None}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**RECIPE, "engine": engine}))
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_recipe(tmp_path / "own.yaml")


@pytest.mark.parametrize("option", [("--channel", "488"), ("--photons", "50", "300")])
def test_what_is_of_a_rig_needs_one(tmp_path: Path, option: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"{option[0]} is of a rig: give --rig too"):
        invoke("train", *option, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": "nowhere"}, "No engine 'nowhere'"),
        ({"start": "identity"}, "begin with a network of its kind"),
        ({"parameters": {"depth": 3}}, "'imcsr' has no parameter 'depth'; it has frames, channels"),
        ({"parameters": {"width": "8"}}, "'imcsr' cannot be built with {'width': '8'}"),
        ({"parameters": {"width": -8}}, "'imcsr' cannot be built with {'width': -8}"),
    ],
)
def test_a_network_that_cannot_begin_is_refused_before_pairs_are_made(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "train": {**RECIPE["train"], **change}}))
    with pytest.raises(UsageError, match=re.escape(said)):
        invoke("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "pairs-train").exists()


def test_an_optimiser_that_this_torch_lacks_is_refused_before_pairs_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("torch.optim.Muon")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "train": {**RECIPE["train"], "optimiser": "muon"}}))
    with pytest.raises(UsageError, match=r"'muon' needs torch 2\.9"):
        invoke("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "pairs-train").exists()


@pytest.mark.parametrize(
    ("device", "said"),
    [("foo", "'foo' is not known; choose auto, cpu, cuda"), ("cuda:64", r"torch sees \d+ GPUs")],
)
def test_a_device_that_is_not_there_is_refused_before_pairs_are_made(
    tmp_path: Path, device: str, said: str
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(ConfigError, match=said):
        invoke("train", "--recipe", recipe, "--out", tmp_path / "run", "--device", device)
    assert not (tmp_path / "run" / "pairs-train").exists()


def test_a_recipe_is_looked_at_with_what_the_command_gives(tmp_path: Path) -> None:
    """Views of a teacher, and a start's structures, need what only the command may name."""
    recipe, best = tmp_path / "tiny.yaml", tmp_path / "finished" / "best.pt"
    best.parent.mkdir()
    best.write_bytes(b"")
    views = {**RECIPE["train"], "teacher_views": 2}
    recipe.write_text(yaml.safe_dump({**RECIPE, "train": views}))
    assert load_recipe(recipe, teacher=str(best)).train.teacher == str(best)
    with pytest.raises(ConfigError, match="teacher_views are of a teacher"):
        load_recipe(recipe)
    sharper = {**RECIPE["train"], "loss": {"kind": "adversarial"}}
    recipe.write_text(yaml.safe_dump({**RECIPE, "train": sharper}))
    with pytest.raises(ConfigError, match="a discriminator and a teacher cannot both"):
        invoke("train", "--recipe", recipe, "--out", tmp_path / "run", "--teacher", best.parent)


def test_a_teacher_that_was_never_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no best"):
        invoke("train", "--out", tmp_path / "run", "--teacher", tmp_path)


@pytest.mark.parametrize(
    ("shown", "drawn", "said"),
    [(0.3, False, "set 'unknown: true'"), (0.0, True, "set 'data: unknown', to 0.3 say")],
)
def test_unknown_structures_need_a_network_that_draws_them_and_the_reverse(
    shown: float, drawn: bool, said: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.yaml"
    data = {**RECIPE["data"], "recombined": 0.5, "unknown": shown}
    parameters = {**RECIPE["train"]["parameters"], "head": "restore", "unknown": drawn}
    train = {**RECIPE["train"], "parameters": parameters}
    recipe.write_text(yaml.safe_dump({**RECIPE, "data": data, "train": train}))
    with pytest.raises(ConfigError, match=said):
        invoke("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()  # before pairs are made


def test_a_network_that_shares_out_haze_needs_truth_with_haze(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    parameters = {**RECIPE["train"]["parameters"], "head": "restore", "haze": True}
    recipe.write_text(
        yaml.safe_dump({**RECIPE, "train": {**RECIPE["train"], "parameters": parameters}})
    )
    with pytest.raises(ConfigError, match="set 'haze_in_truth: true'"):
        invoke("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("haze", "patch", "step"), [(False, 49, 2), (True, 50, 4)])
def test_patches_that_a_network_does_not_take_are_refused(
    tmp_path: Path, haze: bool, patch: int, step: int
) -> None:
    recipe = tmp_path / "tiny.yaml"
    parameters = {**RECIPE["train"]["parameters"], "head": "restore", "haze": haze}
    train = {**RECIPE["train"], "patch": patch, "parameters": parameters}
    data = {**RECIPE["data"], "domain": {"haze_in_truth": haze}}
    recipe.write_text(yaml.safe_dump({**RECIPE, "data": data, "train": train}))
    with pytest.raises(ConfigError, match=f"patch is {patch}, .* multiples of {step}: choose 48"):
        invoke("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "pairs-train").exists()  # before pairs are made


def test_a_teacher_that_learned_truth_of_another_kind_is_refused(tmp_path: Path) -> None:
    teacher, recipe = tmp_path / "teacher", tmp_path / "hazy.yaml"
    teacher.mkdir()
    (teacher / "best.pt").touch()
    (teacher / "recipe.json").write_text(json.dumps(RECIPE))
    data = {**RECIPE["data"], "domain": {"haze_in_truth": True}}
    recipe.write_text(yaml.safe_dump({**RECIPE, "data": data}))
    with pytest.raises(ConfigError, match="learned truth without haze, and that of this recipe is"):
        invoke("train", "--recipe", recipe, "--teacher", teacher, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def invoke(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    return json.loads(result.stdout)


def own_images(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for name, sigma in (("spots", 1), ("blobs", 4)):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            points = (rng.random((80, 80)) < 0.02).astype(np.float32)
            tifffile.imwrite(folder / name / f"{i}.tif", 1000 * gaussian_filter(points, sigma))
    return {"folders": {n: str(folder / n) for n in ("spots", "blobs")}, "pixel_size_nm": 30}


def test_own_structures_leave_light_to_none_of_them(tmp_path: Path) -> None:
    shares = {"recombined": 1.0, "unknown": 0.5}
    parameters = {**RECIPE["train"]["parameters"], "channels": 2, "head": "restore"}
    engine = [{"name": n, "color": "00FF00"} for n in ("spots", "blobs")]
    recipe = {
        **RECIPE,
        "data": {
            **RECIPE["data"],
            **shares,
            "validation": 8,
            "images": own_images(tmp_path / "images"),
        },
        "train": {
            **RECIPE["train"],
            "parameters": {**parameters, "unknown": True},
            "validation_pairs": 8,
        },
        "engine": {**RECIPE["engine"], "channels": engine},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe))
    run, pairs = tmp_path / "run", tmp_path / "run" / "pairs-train"
    found = invoke("train", "--recipe", tmp_path / "own.yaml", "--out", run, "--workers", 1)
    assert "pcc_2" in found["validation"]
    weights = ("--weights", "final", "--sequences", 2, "--threads", 1)
    invoke("export", run, "--out", tmp_path / "engine", *weights)
    invoke("limits", tmp_path / "engine", "--pairs", pairs, "--sequences", 2, "--threads", 1)
    manifest = load_engine(tmp_path / "engine").manifest
    assert manifest.channel_names == ("spots", "blobs")
    assert shares.items() <= manifest.training.items()
    assert set(manifest.metrics.channels) == {"spots", "blobs"}
    assert manifest.limits.unknown_light is not None
    card = (tmp_path / "engine" / "README.md").read_text(encoding="utf-8")
    assert "light that looks like none of them goes to no channel" in card


@pytest.mark.parametrize("kind", ["separate", pytest.param("upscale", marks=pytest.mark.slow)])
def test_own_images_become_an_engine_with_card_and_metrics(tmp_path: Path, kind: str) -> None:
    data = {**RECIPE["data"], "images": own_images(tmp_path / "images")}
    names = ["spots", "blobs"]
    parameters: dict[str, Any] = {**RECIPE["train"]["parameters"], "channels": 2}
    engine = {**RECIPE["engine"], "task": kind}
    train = RECIPE["train"]
    if kind == "upscale":
        data, names = {**data, "kind": kind, "scale": 2}, ["Fine"]
        parameters, engine["window"] = {"scale": 2, "blocks": 1, "width": 4}, 1
        train = {**train, "architecture": "edsr", "loss": {"kind": "l1"}, "patch": 24}
    engine["channels"] = [{"name": n, "color": "00FF00"} for n in names]
    recipe = {
        **RECIPE,
        "data": data,
        "train": {**train, "parameters": parameters},
        "engine": engine,
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    (tmp_path / "own-images.yaml").write_text(yaml.safe_dump({"images": data["images"]}))
    assert invoke(
        "train", "--recipe", tmp_path / "own.yaml", "--out", tmp_path / "run", "--workers", 1
    )["finished"]
    weights = ("--weights", "final", "--sequences", 2, "--threads", 1)
    invoke("export", tmp_path / "run", "--out", tmp_path / "engine", *weights)
    manifest = load_engine(tmp_path / "engine").manifest
    assert manifest.scale == (2 if kind == "upscale" else 1)
    assert manifest.halo > 0
    assert set(manifest.metrics.channels) == set(names)
    report = ("--out", tmp_path / "report", "--threads", 1)
    found = invoke(
        "evaluate",
        tmp_path / "engine",
        "--data",
        tmp_path / "run" / "pairs-validation",
        "--n",
        2,
        *report,
    )
    assert set(found["structures"]) == set(names)
    if kind == "upscale":
        with pytest.raises(UsageError, match="Give --data"):
            invoke("evaluate", tmp_path / "engine", *report)
        image = 1000 * gaussian_filter(np.random.default_rng(1).random((400, 400)), 1).astype(
            np.float32
        )
        tifffile.imwrite(tmp_path / "real.tif", image)
        invoke(
            "export",
            tmp_path / "run",
            "--out",
            tmp_path / "engine",
            *weights,
            "--images",
            tmp_path / "real.tif",
        )
        own = invoke(
            "evaluate",
            tmp_path / "engine",
            "--data",
            tmp_path / "own-images.yaml",
            "--n",
            2,
            "--size",
            64,
            *report,
        )
        assert own["mean_gradient"]["truth"]["mean"] > 0
    card = (tmp_path / "engine" / "README.md").read_text(encoding="utf-8")
    assert "own images of spots, blobs" in card
    assert "No real image" not in card
    assert ("| real | down-sampled |" if kind == "upscale" else "| network |") in card


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="a shell script")
def test_a_training_survives_the_loss_of_its_machine(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    script = Path(__file__).parents[2] / "scripts" / "gpu_train.sh"

    def call(run: str, minutes: float) -> int:
        command = ["bash", str(script), "tiny.yaml", run, str(minutes), "kept"]
        environment = {**os.environ, "PYTHON": sys.executable, "TRAIN_ARGUMENTS": "--workers 1"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, timeout=240, check=False
        ).returncode

    assert call("first", 0.01) == 75
    assert call("first", 9) == 0
    shutil.rmtree(tmp_path / "first")
    assert call("second", 9) == 0
    assert {"log.csv", "checkpoint.pt", "final.pt"} <= {
        p.name for p in (tmp_path / "second").iterdir()
    }
    assert [row["step"] for row in read_log(tmp_path / "second" / "log.csv")] == ["3", "6"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("bash") is None, reason="a shell script")
def test_a_quarter_of_an_hour_checks_and_then_trains(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    script = Path(__file__).parents[2] / "scripts" / "gpu_quarter_hour.sh"
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "TMPDIR": str(tmp_path),
        "BENCH_ARGUMENTS": "--quick",
        "TRAIN_ARGUMENTS": "--workers 1",
    }
    command = ["bash", str(script), "out", "25", "tiny.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, timeout=1700, check=False)
    assert done.returncode == 0
    assert "wrong or failed: nothing" in (tmp_path / "out" / "gpu.txt").read_text(encoding="utf-8")
    assert list((tmp_path / "out" / "training").glob("run.tar.*"))


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_parses(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.engine["id"] == name
    network = networks.build(recipe.train.architecture, **recipe.train.parameters)
    assert len(recipe.engine["channels"]) == getattr(network, "structures", network.channels)
    assert bool(recipe.data.unknown) == bool(recipe.train.parameters.get("unknown"))
    assert recipe.data.haze_in_truth >= bool(recipe.train.parameters.get("haze"))
    seen = len(recipe.engine.get("raw_frames", ())) or recipe.engine["window"]
    assert network.frames == seen + len(recipe.engine.get("beside", ()))
    if recipe.data.kind in ("separate", "upscale", "paired"):  # others draw their own finer pixels
        assert network.scale == recipe.data.scale


@pytest.mark.parametrize(
    ("recipe", "code", "said"),
    [("no-such-recipe", 2, "No recipe"), ("edsr-x2", 2, "Training needs matplotlib")],
)
def test_a_typo_is_named_before_a_package_is_asked_for(
    recipe: str, code: int, said: str, tmp_path: Path
) -> None:
    without = "import sys; sys.modules.update(torch=None, matplotlib=None)\n"
    call = f"from livesr import cli; sys.exit(cli._run(['train', '--recipe', {recipe!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", without + call],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
