"""The changelog and the decisions keep their form: effect by kind, date and status."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from livesr.base.version import __version__

REPOSITORY = Path(__file__).parents[2]
DECISIONS = sorted((REPOSITORY / "docs" / "adr").glob("*.md"))
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
STATUS = r"accepted|proposed|superseded by \[(\d+)\]\((\d{4}-[a-z0-9-]+\.md)\)"


def releases() -> dict[str, str]:
    _, *parts = re.split(r"(?m)^## ", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"))
    return {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1] for part in parts}


def test_the_changelog_has_releases_in_order() -> None:
    names = list(releases())
    assert names[0] == "Unreleased"
    versions = [name.partition(" — ")[0] for name in names[1:]]
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(numbers, reverse=True)
    dates = [date.fromisoformat(name.partition(" — ")[2]) for name in names[1:] if " — " in name]
    assert dates == sorted(dates, reverse=True)


def test_this_version_has_its_changes_and_its_notes() -> None:
    assert any(name.split(" ")[0] == __version__ for name in releases())
    notes = REPOSITORY / "docs" / "release-notes" / f"{__version__}.md"
    assert notes.read_text(encoding="utf-8").startswith(f"# livesr {__version__}\n")


@pytest.mark.parametrize("name", releases())
def test_every_change_stands_under_what_kind_it_is(name: str) -> None:
    before, *parts = re.split(r"(?m)^### ", releases()[name])
    assert not before.strip(), "a change before the first heading"
    kinds = [part.split("\n", 1)[0].strip() for part in parts]
    assert kinds == [kind for kind in KINDS if kind in kinds], "each once, in this order"
    for part in parts:
        entries = part.split("\n", 1)[1].strip().split("\n")
        assert entries[0].startswith("- ")
        assert all(re.match(r"- \S|  \S", line) for line in entries)


@pytest.mark.parametrize("path", DECISIONS, ids=lambda p: p.stem[:4])
def test_a_decision_has_number_date_and_status(path: Path) -> None:
    title, empty, about, *_ = path.read_text(encoding="utf-8").split("\n")
    assert title.startswith(f"# {int(path.name[:4])}. ")
    assert not empty
    found = re.fullmatch(rf"Date: (\d{{4}}-\d\d-\d\d)\. Status: (?:{STATUS})\.", about)
    assert found, f"{about!r} is not 'Date: 2026-01-31. Status: accepted.'"
    assert date.fromisoformat(found[1]) >= date(2026, 11, 1)
    if found[2]:
        later = path.parent / found[3]
        assert later.name.startswith(f"{int(found[2]):04}")
        assert later.is_file()


def test_no_two_decisions_have_a_number() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert len(set(numbers)) == len(numbers) >= 14
