"""Units of length and time as files write them: OME's symbols, ImageJ's words, OME-Zarr's names.

Owns the tables. A unit that is not in them is unknown, and what is given in it is not believed.
"""

from __future__ import annotations

_SYMBOLS = {
    "Y": 1e24,
    "Z": 1e21,
    "E": 1e18,
    "P": 1e15,
    "T": 1e12,
    "G": 1e9,
    "M": 1e6,
    "k": 1e3,
    "h": 1e2,
    "da": 1e1,
    "": 1.0,
    "d": 1e-1,
    "c": 1e-2,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
    "a": 1e-18,
    "z": 1e-21,
    "y": 1e-24,
}
_NAMES = {
    "yotta": 1e24,
    "zetta": 1e21,
    "exa": 1e18,
    "peta": 1e15,
    "tera": 1e12,
    "giga": 1e9,
    "mega": 1e6,
    "kilo": 1e3,
    "hecto": 1e2,
    "deca": 1e1,
    "": 1.0,
    "deci": 1e-1,
    "centi": 1e-2,
    "milli": 1e-3,
    "micro": 1e-6,
    "nano": 1e-9,
    "pico": 1e-12,
    "femto": 1e-15,
    "atto": 1e-18,
    "zepto": 1e-21,
    "yocto": 1e-24,
}
_UM = {
    **{f"{prefix}m": factor * 1e6 for prefix, factor in _SYMBOLS.items()},
    **{
        f"{prefix}{m}": factor * 1e6
        for prefix, factor in _NAMES.items()
        for m in ("meter", "metre")
    },
    "micron": 1.0,
    "Å": 1e-4,
    "A": 1e-4,
    "angstrom": 1e-4,
    "in": 25400.0,
    "inch": 25400.0,
    "thou": 25.4,
    "mil": 25.4,
    "pt": 25400 / 72,
    "ft": 304800.0,
    "foot": 304800.0,
}
_S = {
    **{f"{prefix}s": factor for prefix, factor in _SYMBOLS.items()},
    **{f"{prefix}second": factor for prefix, factor in _NAMES.items()},
    "sec": 1.0,
    "msec": 1e-3,
    "usec": 1e-6,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}


def um_per(unit: str) -> float | None:
    """Return how many um one `unit` is, None if it is no known unit of length."""
    return _factor(_UM, unit)


def s_per(unit: str) -> float | None:
    """Return how many seconds one `unit` is, None if it is no known unit of time."""
    return _factor(_S, unit)


def _factor(table: dict[str, float], unit: str) -> float | None:
    """Look a unit up.

    With either letter for micro, in the plural, and with ImageJ's escape for micro.
    """
    text = (
        unit.strip()
        .replace("\\u00B5", "u")
        .replace("\\u00b5", "u")
        .replace("\u00b5", "u")
        .replace("\u03bc", "u")
    )
    text = text.replace("\u212b", "Å")  # the sign of the angstrom, for the letter
    return next(
        (table[t] for t in (text, text.lower(), text.lower().removesuffix("s")) if t in table), None
    )
