"""The documentation site: it can be built, and no link in it leads nowhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL))
    listed = {line.strip() for line in trees.splitlines() if line.strip()}
    pages = {
        str(p.relative_to(DOCS).with_suffix("").as_posix())
        for folder in ("", "tutorials", "notebooks", "release-notes")
        for p in (DOCS / folder).iterdir()
        if p.suffix in (".md", ".ipynb")
    }
    assert pages - {"index"} <= listed


def test_every_decision_is_listed() -> None:
    page = (DOCS / "decisions.md").read_text(encoding="utf-8")
    for decision in sorted((DOCS / "adr").glob("0*.md")):
        title = decision.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert f"- [{title}](adr/{decision.name})" in page


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_nb", "furo"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'livesr[docs]'")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", DOCS]
    done = subprocess.run(
        [sys.executable, *command, REPOSITORY, tmp_path],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "docs" / "python.html").read_text(encoding="utf-8")
    assert 'id="livesr.LiveSR"' in page
    assert (tmp_path / "docs" / "notebooks" / "read-a-run.html").is_file()
