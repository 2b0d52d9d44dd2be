"""Files of folders that came from anywhere are opened by `livesr.base.contained`, zarr by
`zarr_files`, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import livesr

ROOT = Path(livesr.__file__).parent

FOREIGN = sorted(
    str(path.relative_to(ROOT))
    for place in (
        "store/*.py",
        "check/store.py",
        "viewer/store_source.py",
        "live/sources/recordings/*.py",
        "formats/*.py",
        "live/sinks/frames_log.py",
        "live/sinks/localisations.py",
        "live/inference/engine.py",
        "live/inference/trial*.py",
        "export/imported.py",
        "export/rdf.py",
        "cli/engine.py",
        "cli/repair.py",
        "cli/backfill.py",
        "cli/process.py",
    )
    for path in ROOT.glob(place)
)
"""Modules that read or write what a stranger may have laid out."""

ALLOWED = {
    "formats/picasso.py": {"file.write_text": "beside the file that the user named"},
    "store/cluster.py": {"job.open": "a run, not a file"},
    "store/parts.py": {
        "job.open": "a run, not a file",
        "super().open": "a sink, not a file",
        "shutil.copyfile": "of a store that this program has just made",
    },
    "store/volumes.py": {"self._sink.open": "a sink, not a file"},
    "formats/keys.py": {"shutil.copy": "inside a folder of keys that this program has made"},
    "live/sources/recordings/pixels.py": {"path.open": "the file that the user named"},
    "live/sources/recordings/tiff_pages.py": {"tifffile.TiffFile": "an open file"},
    "export/imported.py": {
        "package.extractall": (
            "into a folder that was just made; zipfile takes '..' and links out of names"
        )
    },
    "formats/zarr_files.py": {"zarr.open_array": "here", "zarr.open_group": "here"},
    "store/shards.py": {
        "zarr.open_array": "a folder that was just made; `open_array` has looked at the metadata",
        "new.open": "likewise",
    },
    "store/levels.py": {
        "zarr.open_array": "a folder that was just made; `open_array` has looked at the metadata",
        "file.open": "likewise",
    },
}
"""What may stand there nevertheless, and why."""

OPENING = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "TiffFile",
    "imread",
    "imwrite",
    "memmap",
    "open_memmap",
    "fromfile",
    "tofile",
    "genfromtxt",
    "copyfile",
    "copy2",
    "copytree",
    "symlink_to",
    "extractall",
    "open_array",
    "open_group",
    "open_consolidated",
}
OWN = {"contained", "zarr_files", "self", "pipeline", "runtime", "sink", "store", "backend", "os"}


def openings(tree: ast.AST) -> Iterator[str]:
    """Yield the calls that open a file by its path, by any name."""
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").endswith(("zarr_files", "base", "documents"))
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            owner, _, last = name.rpartition(".")
            opens = last in OPENING or (owner == "shutil" and last in {"copy", "move"})
            if opens and owner.rpartition(".")[2] not in OWN and name not in ours:
                yield name


@pytest.mark.parametrize("module", FOREIGN)
def test_only_contained_opens(module: str) -> None:
    found = set(openings(ast.parse((ROOT / module).read_text(encoding="utf-8"))))
    assert found <= set(ALLOWED.get(module, {})), "open it with livesr.base.contained"


def test_nothing_else_opens_zarr() -> None:
    own = {
        "formats/zarr_files.py",
        "store/levels.py",
        "store/shards.py",
        "bench/store.py",
    }  # the last two what they have just written
    for path in sorted(ROOT.rglob("*.py")):
        calls = {
            name
            for name in openings(ast.parse(path.read_text(encoding="utf-8")))
            if name.startswith("zarr.")
        }
        assert not calls or str(path.relative_to(ROOT)) in own, (
            f"{path}: use livesr.formats.zarr_files"
        )


@pytest.mark.parametrize(
    "line",
    [
        "path.read_text()",
        "open(path)",
        "(folder / name).open()",
        "zarr.open_array(folder)",
        "shutil.copy(a, b)",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert list(openings(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["contained.open_to_read(folder, name)", "file.read()", "self.open()"]
)
def test_the_search_passes(line: str) -> None:
    assert not list(openings(ast.parse(line)))
