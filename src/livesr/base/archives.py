"""Zip archives of any origin.

Unpacked within limits, or refused in a sentence before anything is written.

Owns the limits on number, size and ratio. A name that leads out of the folder loses what leads out,
as `zipfile` does it; links become plain files.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from livesr.base.errors import DocumentError

MAX_FILES: Final = 2000
MAX_BYTES: Final = 4 << 30
"""Of all files together, unpacked; an ONNX file has at most 2 GiB."""

MAX_RATIO: Final = 100
"""Of unpacked to packed bytes; weights and images shrink two or three times, text ten times."""

_ALWAYS_FINE: Final = 64 << 20


def unpack(source: Path, folder: Path) -> None:
    """Unpack `source` into `folder`.

    Raises
    ------
    DocumentError
        If it is no zip archive, is damaged or encrypted, or would unpack to more than the limits.
    """
    try:
        with zipfile.ZipFile(source) as package:
            _check(package.infolist(), source)
            # No file grows beyond the size that its entry says, and that is what was added up.
            package.extractall(folder)
    except DocumentError:
        raise
    except Exception as e:  # zipfile and its decompressors raise whatever they stumble over
        raise DocumentError(f"{source} cannot be unpacked: {e}.") from e


def _check(entries: list[zipfile.ZipInfo], source: Path) -> None:
    files, unpacked = len(entries), sum(entry.file_size for entry in entries)
    packed = min(sum(entry.compress_size for entry in entries), source.stat().st_size)
    if files > MAX_FILES:
        raise DocumentError(f"{source} holds {files:,} files; at most {MAX_FILES:,} are unpacked.")
    most = min(MAX_BYTES, max(_ALWAYS_FINE, MAX_RATIO * packed))
    if unpacked > most:
        raise DocumentError(
            f"{source} has {source.stat().st_size / 1e6:.3g} MB and would unpack to"
            f" {unpacked / 1e6:,.0f} MB; at most {most / 1e6:,.0f} MB are unpacked of it. If you"
            " trust it, unpack it yourself and give the folder."
        )
