"""docs/rig.md is what the models say, and they say something of every key."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from pydantic import BaseModel

from livesr.base.config import RigConfig
from livesr.base.run_config import LiveConfig
from livesr.modalities.registry import MODALITIES, modality

REPOSITORY = Path(__file__).parents[2]
REFERENCE = runpy.run_path(str(REPOSITORY / "scripts" / "rig_reference.py"))


def models() -> set[type[BaseModel]]:
    """Everything that stands in rig.yaml, and the settings of a run."""
    ways = [modality(name) for name in MODALITIES.names]
    sections = [model for way in ways for model in (way.Section, way.ChannelSection)]
    found = {RigConfig, LiveConfig, *sections}
    for model in (RigConfig, *sections):
        found |= {inner for _, inner in REFERENCE["_within"]("", model)}
    return found


def test_the_page_is_up_to_date() -> None:
    written = (REPOSITORY / "docs" / "rig.md").read_text(encoding="utf-8")
    assert written == REFERENCE["page"](), "run python scripts/rig_reference.py"


@pytest.mark.parametrize("model", sorted(models(), key=lambda m: m.__name__))
def test_every_field_is_described(model: type[BaseModel]) -> None:
    silent = [n for n, f in model.model_fields.items() if not f.description and n != "modality"]
    assert not silent


def test_what_a_field_takes_is_said_in_words() -> None:
    page = (REPOSITORY / "docs" / "rig.md").read_text(encoding="utf-8")
    assert "| `bit_depth` | whole number ≥ 8, ≤ 16 | `16` |" in page
    assert "| `when` | `before`, `armed` | `before` |" in page
    assert "| `k_um` | [number ≥ -50, ≤ 50, number ≥ -50, ≤ 50] | **needed** |" in page
    assert "## channels.NAME.patterns[], sim.patterns[]" in page
    for word in ("typing.", "Annotated", "<class", "None |"):
        assert word not in page
