"""What is published: the packages as others install them, and what they say of themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def run(command: list[str | Path], cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST_", "COV"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "LIVESR_HOME": str(cwd / "home"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_pythons_are_those_that_are_tested() -> None:
    said = [
        c.rpartition(" :: ")[2]
        for c in PROJECT["classifiers"]
        if c.startswith("Programming Language :: Python :: 3.")
    ]
    assert said == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert jobs["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = (REPOSITORY / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(recipe)
    asked = {r.partition(" ")[0]: r.partition(" ")[2] for r in written["requirements"]["run"]}
    assert asked.pop("python") == PROJECT["requires-python"]
    of_package = {r.name: str(r.specifier) for r in map(Requirement, PROJECT["dependencies"])}
    assert asked == of_package


def _members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as inside:
        return {name for name in inside.namelist() if "dist-info" not in name}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_wheel_and_sdist_work_outside_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("build", reason="build is not installed: pip install build")
    out = tmp_path / "dist"
    subprocess.run(  # the sdist, and the wheel from the sdist
        [sys.executable, "-m", "build", "--outdir", out, REPOSITORY],
        cwd=tmp_path,
        capture_output=True,
        timeout=1200,
        check=True,
    )
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist) as inside:
        names = {name.partition("/")[2] for name in inside.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"} <= names
    assert not {n for n in names if n.startswith((".git/", ".hypothesis", ".venv"))}

    python = _clean_environment(tmp_path / "venv")
    pins = REPOSITORY / "constraints.txt"
    run([python, "-m", "pip", "install", "-q", "-c", pins, f"{wheel}[demo]"], tmp_path)
    livesr = python.with_name("livesr" + python.suffix)
    place = Path(run([python, "-c", "import livesr; print(livesr.__file__)"], tmp_path).strip())
    assert tmp_path in place.parents, "the package that was built, not the repository"
    _has_engines_and_rigs(livesr, tmp_path, _members(wheel))
    report = _json(livesr, tmp_path, "demo", "--size", "64", "--frames", "5")
    assert (report["raw_frames"], report["raw_lost"], report["store_valid"]) == (45, 0, True)
    assert report["engine"] == {"488": "imcsr-mt-er-lyso-light"}


def _clean_environment(folder: Path) -> Path:
    run([sys.executable, "-m", "venv", folder], folder.parent)
    windows = sys.platform == "win32"
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def _json(livesr: Path, cwd: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run([livesr, *arguments, "--json"], cwd))
    return found


def _has_engines_and_rigs(livesr: Path, cwd: Path, members: set[str]) -> None:
    for kind, wanted in (("engines", "model.onnx"), ("hardware_configs", "rig.yaml")):
        of_tree = {p.parent.name for p in (REPOSITORY / kind).glob(f"*/{wanted}")}
        inside = {n.split("/")[3] for n in members if n.startswith(f"livesr/_data/{kind}/")}
        assert of_tree <= inside, kind
    assert {n for n in members if n.startswith("livesr/training/recipes/")} >= {
        f"livesr/training/recipes/{p.name}"
        for p in (REPOSITORY / "src/livesr/training/recipes").glob("*.yaml")
    }
    assert "livesr/py.typed" in members
    found = _json(livesr, cwd, "info")
    assert {"imcsr-mt-er-lyso-light", "edsr-x2"} <= {e["id"] for e in found["engines"]}
    assert {"virtual_sim", "tirf_sim"} <= {r["name"] for r in found["rigs"]}
    assert run([livesr, "check", "tirf_sim"], cwd)
