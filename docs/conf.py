"""The documentation site: sphinx-build -W -b html -c docs . build/site.

The source is the repository, so that a link in a page leads to the same file here and on the site;
a file that is no page (a script, a rig.yaml) becomes a download.
"""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import pymmcore_plus  # noqa: F401 - here, because importing it sets the root logger to DEBUG

from livesr.base.version import __version__

logging.getLogger().setLevel(logging.WARNING)

project = "livesr"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**",
    "engines/README.md",
    "engines/*/README.md",
    "examples/README.md",
    "examples/*/README.md",
    "hardware_configs/README.md",
    "hardware_configs/*/README.md",
]
exclude_patterns = ["docs/conf.py"]

myst_heading_anchors = 4  # a link to a heading is the one that the repository's host makes
suppress_warnings = ["ref.python"]  # a word in backticks that several classes have

autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_ivar = True  # an attribute is described once, in its class

# The notebook is run here, with its pictures, where asked for; the tests run it in any case.
nb_execution_mode = "force" if os.environ.get("LIVESR_RUN_NOTEBOOKS") else "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True

html_theme = "furo"
html_title = f"livesr {__version__}"

_ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\(([^)#:\s]+)\)")


def _to_readme(app: Any, page: str, source: list[str]) -> None:
    """Lead a link to a folder, which the repository's host shows, to the README in it."""

    def changed(found: re.Match[str]) -> str:
        readme = _ROOT / Path(page).parent / found[1] / "README.md"
        return f"]({found[1]}/README.md)" if readme.is_file() else found[0]

    source[0] = _LINK.sub(changed, source[0])


def _what_it_is(app: Any, kind: str, name: str, it: Any, options: Any, lines: list[str]) -> None:
    """Read ``name : what``, as the house writes it, as a name and its description, not its type."""
    for i in reversed(range(len(lines))):
        if found := re.fullmatch(r"(\w[\w, ]*) : (.+)", lines[i]):
            lines[i : i + 1] = [found[1], f"    {found[2]}"]


def setup(app: Any) -> None:
    """Connect what reads pages and docstrings."""
    app.connect("source-read", _to_readme)
    app.connect("autodoc-process-docstring", _what_it_is, priority=100)  # before napoleon
