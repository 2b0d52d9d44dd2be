"""The documentation site: sphinx-build -W -b html -c docs . build/site.

The source is the repository, so that a link in a page leads to the same file here and on the site;
a file that is no page (a script, a rig.yaml) becomes a download.
"""

import logging
import os
import sys
from pathlib import Path

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
    "engines/**/*.md",
    "examples/**/*.md",
    "hardware_configs/**/*.md",
]
exclude_patterns = ["docs/conf.py"]

myst_heading_anchors = 4  # a link to a heading is the one that the repository's host makes
suppress_warnings = [
    "myst.xref_missing",  # names of files in code
    "myst.header",
]

autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_google_docstring = False

# The notebook is run here, with its pictures, where asked for; the tests run it in any case.
nb_execution_mode = "force" if os.environ.get("LIVESR_RUN_NOTEBOOKS") else "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True

html_theme = "furo"
html_title = f"livesr {__version__}"
