"""The manifest is one that napari takes, and what it names is there."""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MANIFEST = REPOSITORY / "src" / "livesr" / "napari" / "napari.yaml"

with warnings.catch_warnings():  # what its version of pydantic says of it
    warnings.simplefilter("ignore")
    npe2 = pytest.importorskip("npe2", reason="npe2 is not installed: pip install npe2")


def test_the_package_announces_it() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["napari.manifest"] == {"livesr": "livesr.napari:napari.yaml"}


def test_it_is_valid_and_names_what_is_there() -> None:
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    assert manifest.name == "livesr"
    offered = manifest.contributions
    commands = {command.id: command for command in offered.commands}
    assert {
        *(reader.command for reader in offered.readers),
        *(widget.command for widget in offered.widgets),
        *(sample.command for sample in offered.sample_data),
    } == set(commands)
    for command in commands.values():
        module, _, name = command.python_name.partition(":")
        source = REPOSITORY.joinpath("src", *module.split(".")).with_suffix(".py").read_text()
        assert f"class {name}" in source or f"def {name}" in source
    manifest.validate_imports()
