#!/usr/bin/env python
"""Measures calibration and reconstruction on real and simulated raw frames, and writes
docs/validation.md with its picture.

    python scripts/validate_sim.py ../shared/data

Beside livesr it needs the real data, which is not part of the repository, and for the comparison
napari-sim-processor (with matplotlib), which is left out where it is not installed. One core:
taskset -c 3, OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter

from livesr.base.config import load_rig
from livesr.bench.timing import calls_ms, interleave
from livesr.evaluation.metrics import pcc
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.sim import Calibration, calibrate
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.rig import RawBank

REPOSITORY = Path(__file__).parents[1]
ER, BEADS = Optics(0.065, 1.49, 0.525), Optics(0.0867, 1.49, 0.515)
MICROTUBULES = Optics(0.03, 1.3, 2 * 1.3 / 4.5)
Picture = NDArray[Any]


def _stack(data: Path, name: str, n: int) -> Picture:
    raw = tifffile.imread(data / "sim_raw" / name)
    return raw.reshape(-1, n, *raw.shape[-2:])


def _method(
    raw: Picture,
    found: Calibration,
    offset_adu: float = 100.0,
    quality_limits: QualityLimits | None = None,
    **options: Any,
) -> SIMReconstructor:
    o = found.optics
    options = {"damping": o.damping, "order": found.order, "offset_adu": offset_adu, **options}
    parameters = SIMParameters(raw.shape[-2:], o.pixel_size_um, o.na, o.emission_um, **options)
    return SIMReconstructor(parameters, found.patterns, quality_limits)


def _inner(picture: Picture) -> Picture:
    y, x = (int(0.16 * n) for n in picture.shape)
    return picture[y:-y, x:-x]


def _scored(picture: Picture, reference: Picture) -> float:
    return pcc(_inner(np.maximum(picture, 0)), _inner(reference.astype(float)))


# -- beads -----------------------------------------------------------------------------------------


def _lone_beads(picture: Picture, reach: int = 14, border: int = 60) -> Picture:
    """Return (y, x) of bright local maxima without another one near."""
    top = (maximum_filter(picture, 5) == picture) & (picture > np.percentile(picture, 98))
    places = np.argwhere(top)
    places = places[
        np.all((places >= border) & (places < np.array(picture.shape) - border), axis=1)
    ]
    distance = np.abs(places[:, None] - places[None]).max(axis=-1)
    np.fill_diagonal(distance, 10 * reach)
    return places[distance.min(axis=1) > reach]


def _width_nm(picture: Picture, places: Picture, pixel_nm: float, reach: int = 12) -> float:
    """Return the median full width at half maximum along y and x."""
    widths = []
    for y, x in places:
        patch = picture[y - reach : y + reach + 1, x - reach : x + reach + 1]
        patch = patch - np.median(patch)
        for profile in (patch[reach], patch[:, reach]):
            below = np.flatnonzero(profile < profile[reach] / 2)
            left, right = below[below < reach], below[below > reach]
            if left.size and right.size:
                a, b, half = left[-1], right[0], profile[reach] / 2
                rise = (half - profile[a]) / (profile[a + 1] - profile[a])
                fall = (half - profile[b]) / (profile[b - 1] - profile[b])
                widths.append(((b - fall) - (a + rise)) * pixel_nm)
    return float(np.median(widths))


def _other_program(raw: Picture, optics: Optics, w: float) -> Callable[[], Picture] | None:
    """Return napari-sim-processor's reconstruction, calibrated on the same frames.

    None where it is not installed.
    """
    found = importlib.util.find_spec("napari_sim_processor")
    if found is None or found.submodule_search_locations is None:
        return None
    # Its package imports the whole of napari; the processors need nothing of it.
    package = types.ModuleType("napari_sim_processor")
    package.__path__, package.__spec__ = list(found.submodule_search_locations), found
    sys.modules["napari_sim_processor"] = package
    from napari_sim_processor.processors.convSimProcessor import ConvSimProcessor

    processor = ConvSimProcessor()
    processor.NA, processor.wavelength = optics.na, optics.emission_um
    processor.pixelsize, processor.magnification = optics.pixel_size_um, 1.0
    processor.n, processor.w, processor.debug = 1.515, w, 0
    frames = raw.astype(np.float32) - 100
    processor.calibrate(frames)
    return lambda: np.array(processor.reconstruct_rfftw(raw.astype(np.float32) - 100))


# -- sections --------------------------------------------------------------------------------------


def _angles_table(found: Calibration) -> list[str]:
    lines = [
        "| angle | period nm | direction | modulation | peak / noise | contrast / noise |",
        "|---|---|---|---|---|---|",
    ]
    for i, f in enumerate(found.found):
        modulation = ", ".join(f"{w.modulation:.2f}" for w in f.pattern.waves)
        row = (
            f"| {i} | {f.period_nm:.1f} | {f.direction_deg:.1f} | {modulation} | {f.peak:.0f} |"
            f" {f.contrast_to_noise:.0f} |"
        )
        lines.append(row)
    error = f" (times or divided by {np.exp(found.damping.log_error):.2f})" if found.damping else ""
    return [*lines, "", f"OTF damping, from the bands: {found.optics.damping:.2f}{error}.", ""]


def _er(data: Path) -> list[str]:
    raw, reference = (
        _stack(data, "er_t3_9x112x512.tif", 9),
        tifffile.imread(data / "sim_raw/er_reference_sim_224x1024.tif"),
    )
    found = calibrate(raw, ER)
    ideal = calibrate(raw, ER, fit_damping=False)
    rows = [("widefield", [_method(raw, found).widefield(g) for g in raw])]
    for name, c, options in (
        ("SIM, ideal OTF, w 0.2, apodisation 1", ideal, {"wiener": 0.2}),
        ("SIM, calibrated OTF, w 0.1, apodisation 1.5", found, {"wiener": 0.1, "apodisation": 1.5}),
    ):
        sim = _method(raw, c, **options)
        rows.append((name, [sim.reconstruct(g) for g in raw]))
    lines = [
        "## ER, TIRF-SIM, three time points, against the published reconstruction",
        "",
        *_angles_table(found),
    ]
    lines += [
        (
            "One calibration for all three time points; PCC without the outer 16 %, negative values"
            " set to 0 as in the reference."
        ),
        "",
    ]
    lines += ["| | t = 0 | t = 1 | t = 2 |", "|---|---|---|---|"]
    lines += [
        f"| {name} | " + " | ".join(f"{_scored(p, reference):.3f}" for p in pictures) + " |"
        for name, pictures in rows
    ]
    return [*lines, ""]


def _beads(data: Path) -> list[str]:
    raw = _stack(data, "beads_9x512x512.tif", 9)
    found = calibrate(raw, BEADS)
    ideal = calibrate(raw, BEADS, fit_damping=False)
    pixel_nm = 1e3 * BEADS.pixel_size_um / 2
    pictures = {"widefield": _method(raw[0], ideal).widefield(raw[0])}
    for w in (0.05, 0.1):
        pictures[f"SIM, ideal OTF, w {w}"] = _method(raw[0], ideal, wiener=w).reconstruct(raw[0])
    pictures["SIM, calibrated OTF, w 0.05"] = _method(raw[0], found, wiener=0.05).reconstruct(
        raw[0]
    )
    times = []
    sim = _method(raw[0], ideal, quality_limits=QualityLimits(then="reconstruct"))
    for w in (0.05, 0.1, 0.3):
        other = _other_program(raw[0], BEADS, w)
        if other is None:
            break
        pictures[f"napari-sim-processor, w {w}"] = other()
        if not times:
            times = _timed(lambda: sim.reconstruct(raw[0]), other)
    places = _lone_beads(pictures["SIM, ideal OTF, w 0.05"])
    lines = [
        "## Beads",
        "",
        *_angles_table(found),
        f"Median width of {len(places)} lone beads, along y and x:",
        "",
    ]
    lines += ["| | FWHM nm |", "|---|---|"]
    lines += [f"| {name} | {_width_nm(p, places, pixel_nm):.0f} |" for name, p in pictures.items()]
    return [*lines, "", *times]


def _timed(subject: Callable[[], Any], reference: Callable[[], Any]) -> list[str]:
    c = interleave(lambda: calls_ms(subject, 3), lambda: calls_ms(reference, 3), 7)
    low, high = c.ratio_interval
    return [
        (
            "Time of one frame of 9 x 512 x 512 on one core, quality measured, in turns:"
            f" {c.subject.median:.1f} ms; napari-sim-processor (`reconstruct_rfftw`)"
            f" {c.reference.median:.0f} ms; ratio {c.ratio:.2f} (95 %: {low:.2f} to {high:.2f})."
        ),
        "",
    ]


def _microtubules(data: Path, picture: Path) -> list[str]:
    raw, dim = (
        _stack(data, "mt_highlight_15x256x256.tif", 15)[0],
        _stack(data, "mt_lowlight_15x256x256.tif", 15)[0],
    )
    reference = tifffile.imread(data / "sim_raw/mt_highlight_reference_sim_256x256.tif").astype(
        float
    )
    found = calibrate(raw[None], MICROTUBULES, harmonics=2, offset_adu=90.0)
    sim = _method(raw, found, 90.0, attenuation=0.95, quality_limits=QualityLimits())
    # The reference is on the grid of the frames, one pixel further along x.
    shown = [np.roll(p[::2, ::2], -1, 1) for p in (sim.widefield(raw), sim.reconstruct(raw))]
    bright = sim.quality
    sim.reconstruct(dim)
    assert bright is not None
    assert sim.quality is not None
    Image.fromarray(np.hstack([_grey(p) for p in (*shown, reference)])).save(picture)
    return [
        "## Microtubules, three-beam SIM (3 x 5), against the authors' reconstruction",
        "",
        *_angles_table(found),
        (
            f"PCC {_scored(shown[1], reference):.3f}, widefield {_scored(shown[0], reference):.3f}."
            f" At high light the pattern's contrast is {bright.quality.contrast_to_noise:.1f} times"
            f" its noise. At low light it is {sim.quality.patterns.contrast_to_noise:.1f}:"
            f" {sim.quality.doubt.partition(' (')[0]}, and widefield is shown."
        ),
        "",
        f"![Widefield, livesr, the authors' reconstruction](images/{picture.name})",
        "",
        (
            "Widefield, livesr, the authors' reconstruction. The data (MIT licence) does not name"
            " its optics: the cutoff was read"
        ),
        (
            "off the spectrum at 0.135 cycles/pixel, and a pixel of 30 nm assumed; lengths in the"
            " table are in proportion to that."
        ),
        "",
    ]


def _grey(picture: Picture) -> NDArray[np.uint8]:
    return np.clip(picture * (255 / np.percentile(picture, 99.7)), 0, 255).astype(np.uint8)


def _light() -> list[str]:
    rig = load_rig("virtual_sim")
    optics = Optics(0.065, rig.optics.na, rig.optics.emission_nm / 1e3, 0.7)
    lines = [
        "## How little light",
        "",
        "The virtual rig (128 x 128), five cells; the truth is the noise-free object through the",
        "reconstruction's own transfer function.",
        "",
    ]
    lines += [
        "| photo-electrons | contrast / noise | patterns seen | PCC of SIM | PCC of widefield |",
        "|---|---|---|---|---|",
    ]
    good = RawBank(rig, 128, 3, seed=0, photons=1000, bleaching=0, interval_s=0.5)
    found = calibrate(good.frames, optics, fit_damping=False)
    for photons in (3, 5, 10, 20, 50, 100, 300, 1000):
        contrast, seen, sr, wide = [], [], [], []
        for seed in range(5):
            bank = RawBank(rig, 128, 1, seed=seed, photons=photons, bleaching=0, interval_s=0.5)
            sim = _method(bank.frames, found, quality_limits=QualityLimits(then="reconstruct"))
            picture, widefield = sim.reconstruct(bank.frames[0]), sim.widefield(bank.frames[0])
            truth = np.sum(list(bank.truth(0, sim.transfer).values()), axis=0)
            assert sim.quality is not None
            contrast.append(sim.quality.patterns.contrast_to_noise)
            seen.append(not sim.quality.doubt)
            sr.append(pcc(_inner(picture), _inner(truth)))
            wide.append(pcc(_inner(widefield), _inner(truth)))
        lines.append(
            f"| {photons} | {np.median(contrast):.1f} | {sum(seen)} of 5 | {np.median(sr):.3f} |"
            f" {np.median(wide):.3f} |"
        )
    return [
        *lines,
        "",
        (
            "That the patterns are seen means that each is where it should be, not that the"
            " picture is free of noise: below about 50"
        ),
        (
            "photo-electrons the reconstruction at w = 0.1 is noisier than widefield, and"
            " `sim.wiener` should be raised."
        ),
        "",
    ]


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    docs = REPOSITORY / "docs"
    start = time.perf_counter()
    sections = [
        *_er(data),
        *_beads(data),
        *_microtubules(data, docs / "images" / "validation-microtubules.png"),
        *_light(),
    ]
    head = [
        "# SIM on real frames",
        "",
        (
            "Written by `python scripts/validate_sim.py ../shared/data`. Patterns, order and OTF"
            " are estimated from the frames"
        ),
        (
            "themselves by what `livesr calibrate` uses. Tests hold bounds of these numbers. The"
            " real data is not part of the"
        ),
        "repository, and pictures of it are shown only where its licence allows.",
        "",
    ]
    (docs / "validation.md").write_text(
        "\n".join([*head, *sections]).rstrip() + "\n", encoding="utf-8", newline="\n"
    )
    print(f"{docs / 'validation.md'} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
