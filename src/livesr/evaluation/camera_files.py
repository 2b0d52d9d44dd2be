"""What a characterisation leaves behind.

Maps beside rig.yaml, values in it, and a picture to judge them by.

Owns names, units and layout. Measures nothing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.base.rig_file import write_values
from livesr.base.version import __version__
from livesr.evaluation.characterise import Characterisation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = "characterisation.png"


def summary(found: Characterisation) -> dict[str, Any]:
    """Return the numbers that people and scripts ask for."""
    good = ~found.bad
    offset, noise = found.offset[good], found.read_noise_adu[good]
    about: dict[str, Any] = {
        "offset_adu": round(float(np.median(offset)), 3),
        "offset_spread_adu": round(float(offset.std()), 3),
        "read_noise_adu": round(float(np.median(noise)), 3),
        "bad_pixels": int(found.bad.sum()),
        "bad_by_reason": found.counts,
        "warnings": list(found.warnings),
    }
    if found.transfer:
        gain = found.transfer.gain_e_per_adu
        about |= {
            "gain_e_per_adu": round(gain, 5),
            "gain_deviation": round(found.transfer.deviation, 4),
            "read_noise_e": round(float(np.median(noise)) * gain, 3),
            "read_noise_rms_e": round(float(np.sqrt(np.mean(noise**2))) * gain, 3),
        }
    if found.flat is not None:
        about["flat"] = [
            round(float(v), 4) for v in (found.flat[good].min(), found.flat[good].max())
        ]
    return about


def save(found: Characterisation, rig: RigConfig, rig_file: Path, channel: str) -> list[Path]:
    """Write the maps beside `rig_file` and name them in it.

    Return the files. Everything else in it stays.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or rig.yaml cannot be changed safely.
    """
    about, folder = summary(found), rig_file.parent
    gain = found.transfer.gain_e_per_adu if found.transfer else None
    unit = "electrons" if gain else "ADU"
    maps: dict[str, tuple[NDArray[Any], str]] = {
        "offset.tif": (found.offset.astype(np.float32), "offset in ADU"),
        "read_noise.tif": (
            (found.read_noise_adu * (gain or 1)).astype(np.float32),
            f"read noise in {unit}",
        ),
        "bad_pixels.tif": (found.bad.astype(np.uint8) * np.uint8(255), "bad pixels"),
    }
    values: dict[str, Any] = {
        "camera.offset_adu": about["offset_adu"],
        "corrections.offset": "offset.tif",
        "corrections.bad_pixels": "bad_pixels.tif",
    }
    if rig.corrections.dark:
        values["corrections.dark"] = 0.0  # the dark stack had it, so the offset map has it
    if gain:
        values |= {f"camera.{name}": about[name] for name in ("gain_e_per_adu", "read_noise_e")}
    if found.gain_e_per_adu is not None:
        maps["gain.tif"] = found.gain_e_per_adu.astype(np.float32), "gain in electrons per ADU"
        values["corrections.gain"] = "gain.tif"
    if found.flat is not None:
        name = f"flat-{re.sub(r'[^A-Za-z0-9.-]+', '-', channel)}.tif" if channel else "flat.tif"
        maps[name] = found.flat.astype(np.float32), f"flat field of channel {channel!r}, mean 1"
        values["corrections.flat"] = {**rig.corrections.flat, channel: name}
    _write_maps(folder, maps)
    write_values(rig_file, values)
    return [rig_file, *(folder / name for name in maps)]


def _write_maps(folder: Path, maps: dict[str, tuple[NDArray[Any], str]]) -> None:
    import tifffile

    said = f"livesr {__version__} characterise, {datetime.now(UTC).isoformat(timespec='seconds')}"
    for name, (pixels, what) in maps.items():
        try:
            tifffile.imwrite(
                folder / name,
                pixels,
                photometric="minisblack",
                description=f"{what}; {said}",
                metadata=None,
            )
        except OSError as e:
            raise ConfigError(
                f"Cannot write {folder / name}: {e.strerror or e}. Copy the rig to a folder of"
                " yours."
            ) from e


def draw(found: Characterisation, path: Path, title: str) -> None:
    """Draw maps, histograms and the photon-transfer curve as PNG.

    Raises
    ------
    ConfigError
        If matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ConfigError("The picture needs matplotlib: pip install 'livesr[plots]'.") from e
    figure = Figure(figsize=(13, 7), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    gain = found.transfer.gain_e_per_adu if found.transfer else 1.0
    unit = "e" if found.transfer else "ADU"
    noise = found.read_noise_adu * gain
    _map(top[0], found.offset, "offset, ADU")
    _map(top[1], noise, f"read noise, {unit}")
    if found.flat is not None:
        _map(top[2], found.flat, "flat field")
    else:
        top[2].axis("off")
    y, x = np.nonzero(found.bad)
    top[0].plot(x, y, "r.", markersize=2, label=f"{len(y)} bad pixels")
    top[0].legend(fontsize=8, loc="lower right")
    _histogram(bottom[0], found.offset, "offset, ADU")
    _histogram(bottom[1], noise, f"read noise, {unit}")
    _transfer(bottom[2], found)
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as e:  # ValueError: no format is called so
        raise ConfigError(f"Cannot write {path}: {getattr(e, 'strerror', None) or e}.") from e


def _map(axes: Axes, values: NDArray[np.float64], title: str) -> None:
    low, high = np.percentile(values, (1, 99))
    shown = axes.imshow(values, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    axes.figure.colorbar(shown, ax=axes)
    axes.set_title(title, fontsize=10)


def _histogram(axes: Axes, values: NDArray[np.float64], title: str) -> None:
    low, high = np.percentile(values, (0.01, 99.99))
    margin = max(high - low, 1e-3)
    axes.hist(values.ravel(), bins=200, range=(low - margin / 2, high + margin / 2), color="0.4")
    axes.set_yscale("log")
    axes.set_xlabel(title)
    axes.set_ylabel("pixels")


def _transfer(axes: Axes, found: Characterisation) -> None:
    if found.transfer is None:
        axes.axis("off")
        return
    signal = np.sort(found.transfer.signal)
    axes.loglog(found.transfer.signal, found.transfer.variance, ".", color="0.3", label="measured")
    axes.loglog(signal, found.transfer.slope * signal, "r-", label="fit")
    axes.tick_params(which="minor", labelbottom=False, labelleft=False)
    axes.set_xlabel("signal above dark, ADU")
    axes.set_ylabel("variance above dark, ADU²")
    axes.set_title(f"photon transfer: {found.transfer.gain_e_per_adu:.3f} e/ADU", fontsize=10)
    axes.legend(fontsize=8)
