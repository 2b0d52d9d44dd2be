"""Files that are given where another kind of file is expected.

Owns what a file is called by its first bytes or its name, and what can be done with it instead.
Knows no format: what is inside is said by what reads it.
"""

from __future__ import annotations

from pathlib import Path

from livesr.base.documents import read_yaml
from livesr.base.errors import DocumentError

RIG = "a rig (its rig.yaml, the folder that holds one, or a name that 'livesr info' lists)"
STORE = "a store (an OME-Zarr folder that livesr has written)"

_RECORDING = (
    " Raw frames of such a file are computed by 'livesr process {name} --rig RIG', into a store."
)
_FOREIGN = " Save its frames as OME-TIFF, which 'livesr process FILE --rig RIG' reads."
_BEGINS: tuple[tuple[bytes, str, str], ...] = (
    *((begin, "a TIFF", _RECORDING) for begin in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"ZISRAWFILE", "a CZI of Zeiss", _FOREIGN),
    (b"\xda\xce\xbe\n", "an ND2 of Nikon", _FOREIGN),
    (b"\x70\0\0\0", "a LIF of Leica", _FOREIGN),
    (b"\xd0\xcf\x11\xe0", "an OIB, ZVI or other compound file", _FOREIGN),
    (b"\x89HDF", "an HDF5 file", ""),
    (b"\x89PNG", "a PNG picture", ""),
    (b"\xff\xd8\xff", "a JPEG picture", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"PK\x03\x04", "a ZIP archive", " Unpack it first."),
)
_CALLED = {
    ".mrc": ("an MRC", _RECORDING),
    ".dv": ("an MRC", _RECORDING),
    ".cfg": (
        "a configuration of Micro-Manager",
        " The rig.yaml beside it names it; 'livesr new' makes one.",
    ),
}
_YAML = {".yaml", ".yml"}


def other_than_yaml(path: Path, expected: str) -> str:
    """Return why the file at `path` cannot be `expected`, which is written in YAML, and what to do;
    "" if it may be.

    A file that is named .yaml is taken for one whatever is in it: its first fault says more.
    """
    if path.suffix.lower() in _YAML or not path.is_file():
        return ""
    kind, advice = _kind(path)
    if not kind:
        try:
            if isinstance(read_yaml(path), dict):
                return ""
        except DocumentError:
            pass
        kind = "no YAML file"
    return f"{path} is {kind}; expected {expected}.{advice}"


def no_folder(path: Path, expected: str) -> str:
    """Return why what is at `path` cannot be `expected`, which is a folder, and what to do; "" if
    it is no file.
    """
    if not path.is_file():
        return ""
    kind, advice = _kind(path)
    return f"{path} is {kind or 'a file'}; expected {expected}.{advice}"


def _kind(path: Path) -> tuple[str, str]:
    """Return what a file is called, and what to do with it; "", "" where nobody knows."""
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError:  # said, with its reason, by what reads it
        return "", ""
    found = next(
        ((kind, advice) for magic, kind, advice in _BEGINS if begin.startswith(magic)), None
    )
    kind, advice = found or _CALLED.get(path.suffix.lower(), ("", ""))
    return kind, advice.format(name=path)
