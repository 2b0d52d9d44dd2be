"""Localisation: how fast on 256 x 256 frames with 50 emitters lit, and how well at four densities,
beside Picasso.

Quality is measured on simulated frames whose emitters are known: an ideal objective's Airy pattern,
an EMCCD, about 600 photo-electrons an emitter and frame, emitters on microtubules. Picasso
(Schnitzbauer et al. 2017, Nature Protocols 12, 1198) localises the same frames in the same process
where it is installed (``pip install "livesr[storm]"``), with the best of several detection
thresholds; livesr with its default.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.base.config import RigConfig, load_rig
from livesr.base.frames import RawStack, Stream
from livesr.base.geometry import Geometry
from livesr.bench.pipeline import acquired_per_second, virtual_rig
from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import interleave, per_second
from livesr.modalities.storm import bench_3d, bench_drift
from livesr.modalities.storm.config import STORMConfig
from livesr.modalities.storm.modality import STORM
from livesr.modalities.storm.reconstructor import STORMReconstructor
from livesr.modalities.storm.score import LocalisationScore, score_localisations
from livesr.modalities.storm.simulation.rig import find_storm_camera
from livesr.simulation.blinking_rig import BlinkingBank

_FAST = Target(100, "least")
_LIT = (10, 50, 150, 400)
_THRESHOLDS = (1000, 1500, 2000, 3000, 5000)
_FAINT = 100  # photo-electrons: what gives less in a frame need not be found
_BOX = 7


def measure(quick: bool) -> list[Result]:
    """Return speed and quality.

    The target of the project is 100 camera frames a second on two cores.
    """
    rig = load_rig("virtual_storm")
    results = [_localise(rig, quick), _live(quick)]
    for lit in _LIT[:1] if quick else _LIT:
        results += _quality(rig, lit, 5 if quick else 40)
    return results + bench_drift.measure(quick) + bench_3d.measure(quick)


def _localise(rig: RigConfig, quick: bool) -> Result:
    """Return frames/s of detection and fit, beside one Gaussian filter of each frame."""
    size, frames, blocks = (64, 10, 2) if quick else (256, 100, 8)
    bank = BlinkingBank(rig, size, frames, lit=50)
    reconstructor = reconstructor_of(rig, size)

    def filtered() -> None:
        for frame in bank.frames:
            gaussian_filter(frame, 1.0, output=np.float32)

    comparison = interleave(
        lambda: [per_second(frames, lambda: reconstructor.localise(bank.frames, range(frames)))],
        lambda: [per_second(frames, filtered)],
        blocks,
    )
    note = (
        f"{size}^2 EMCCD, 50 emitters lit at a time: detection and joint fits, in"
        f" blocks of {frames}"
    )
    return compared(
        "storm.localise",
        comparison,
        "frames/s",
        "one scipy.ndimage.gaussian_filter a frame",
        (_FAST,),
        note,
    )


def _live(quick: bool) -> Result:
    """Return camera frames/s that a whole run keeps up with.

    Camera, grouping, localisation, drift, drawing, store.
    """
    size, frames, groups, n = (64, 20, 3, 10) if quick else (256, 300, 20, 100)
    with virtual_rig("virtual_storm", SensorSize=size, Frames=frames) as (core, rig):
        rig = rig.with_section(STORMConfig.of(rig).model_copy(update={"frames": n}))
        camera = find_storm_camera(core)
        assert camera is not None
        alone = reconstructor_of(rig, size)
        bank = camera.bank.frames

        def bare() -> list[float]:
            running = alone.running()
            stacks = [
                RawStack(tuple(bank[i : i + n]), Stream(), i // n, 0, 0)
                for i in range(0, frames - n + 1, n)
            ]
            return [per_second(n * len(stacks), lambda: [running.add(stack) for stack in stacks])]

        core.setExposure(1e3 / (1.3 * bare()[0]))
        comparison = interleave(
            lambda: [acquired_per_second(core, rig, groups, n)],
            bare,
            1 if quick else 3,
            warm_up=False,
        )
    note = (
        f"{size}^2, groups of {n}, running image of {alone.shape[0]}^2; virtual camera and store"
        " with raw on the same cores"
    )
    return compared(
        "storm.live",
        comparison,
        "frames/s",
        "localisation, drift and drawing in a bare loop",
        (_FAST,),
        note,
    )


@dataclass(frozen=True, slots=True)
class Known:
    """Frames whose emitters are known.

    Positions (y, x) in nm from the corner of the first pixel.
    """

    frames: NDArray[np.uint16]
    frame: NDArray[np.int64]
    places_nm: NDArray[np.float64]
    pixel_nm: float

    @classmethod
    def blinking(cls, rig: RigConfig, lit: int, frames: int) -> Known:
        """Simulate frames of 128 x 128 in which `lit` emitters are lit at a time."""
        bank = BlinkingBank(rig, 128, frames, lit=lit)
        truth = [bank.truth(k) for k in range(frames)]
        rows = np.concatenate(
            [np.column_stack([np.full(len(t), k), t]) for k, t in enumerate(truth)]
        )
        rows = rows[rows[:, 3] > _FAINT]
        pixel_nm = bank.pixel_size_um * 1e3
        return cls(
            bank.frames, rows[:, 0].astype(np.int64), rows[:, 1:3] * 1e3 + pixel_nm / 2, pixel_nm
        )

    def score(self, frame: NDArray[Any], places_nm: NDArray[Any]) -> LocalisationScore:
        """Compare localisations with the emitters."""
        return score_localisations(
            np.asarray(frame, np.int64), places_nm, self.frame, self.places_nm
        )

    @property
    def density_per_um2(self) -> float:
        """Emitters that are lit in a frame."""
        side_um = self.frames.shape[1] * self.pixel_nm / 1e3
        return float(len(self.frame) / len(self.frames) / side_um**2)


def _quality(rig: RigConfig, lit: int, frames: int) -> list[Result]:
    """Return Jaccard index and RMSE at one density."""
    known = Known.blinking(rig, lit, frames)
    found = reconstructor_of(rig, known.frames.shape[1]).localise(known.frames, range(frames))
    ours = known.score(found["frame"], np.stack([found["y_nm"], found["x_nm"]], axis=1))
    theirs = None
    if Picasso.installed():
        with Picasso(rig, known) as picasso:
            theirs, _ = picasso.best()
    density = f"{known.density_per_um2:.1f}"
    note = (
        f"{density} emitters/um^2 and frame, {ours.true} true: recall {ours.recall:.3f}, precision"
        f" {ours.precision:.3f}"
    )
    if theirs:
        note += f"; Picasso: recall {theirs.recall:.3f}, precision {theirs.precision:.3f}"
    return scored(f"storm.{{}}_{density}", ours, theirs, "Picasso", note)


def scored(
    name: str, ours: LocalisationScore, theirs: LocalisationScore | None, peer: str, note: str
) -> list[Result]:
    """Return Jaccard index and RMSE as results; `name` has a place for which of both it is."""
    beside = peer if theirs else ""
    jaccard, rmse_nm = (theirs.jaccard, theirs.rmse_nm) if theirs else (None, None)
    return [
        Result(name.format("jaccard"), ours.jaccard, "of 1", jaccard, beside, note=note),
        Result(name.format("rmse"), ours.rmse_nm, "nm", rmse_nm, beside, note=note),
    ]


class Picasso:
    """Picasso's localisation of frames whose emitters are known; a context.

    Parameters
    ----------
    rig : its camera
    known : the frames
    """

    def __init__(self, rig: RigConfig, known: Known) -> None:
        self._known = known
        self._camera = {
            "Baseline": rig.camera.offset_adu,
            "Sensitivity": rig.camera.gain_e_per_adu,
            "Gain": rig.camera.em_gain,
            "Pixelsize": known.pixel_nm,
        }
        # It keeps the file open.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

    @staticmethod
    def installed() -> bool:
        """Whether there is one that can be imported."""
        try:
            from picasso import io, localize  # noqa: F401
        except ImportError:
            return False
        return True

    def __enter__(self) -> Picasso:
        import tifffile
        from picasso import io

        path = Path(self._folder.name, "known.ome.tif")
        frames = self._known.frames
        tifffile.imwrite(path, frames, photometric="minisblack", ome=True, metadata={"axes": "TYX"})
        self._movie, _ = io.load_movie(str(path))
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def localise(self, threshold: int) -> Any:
        """Return its table; None where nothing is found."""
        from picasso import localize

        spots = localize.identify(self._movie, threshold, _BOX, threaded=False, return_info=False)
        if not len(spots):
            return None
        table, _ = localize.fit(
            self._movie,
            camera_info=self._camera,
            identifications=spots,
            box=_BOX,
            fitting_method="gausslq",
            multiprocess=False,
        )
        return table[np.isfinite(table["x"]) & np.isfinite(table["y"])]

    def best(self) -> tuple[LocalisationScore, int]:
        """Return what it reaches with the best of its thresholds, and that one."""
        scores = []
        for threshold in _THRESHOLDS:
            table = self.localise(threshold)
            if table is not None:
                places = (np.stack([table["y"], table["x"]], axis=1) + 0.5) * self._known.pixel_nm
                scores.append((self._known.score(table["frame"].to_numpy(), places), threshold))
        return max(scores, key=lambda found: found[0].jaccard)


def reconstructor_of(rig: RigConfig, size: int) -> STORMReconstructor:
    """Return what localises on a camera of `size` pixels a side."""
    assert rig.optics.pixel_size_nm is not None
    camera = Geometry((size, size), "uint16", rig.optics.pixel_size_nm / 1e3)
    found = STORM().build(rig, next(iter(rig.channels)), camera)
    assert isinstance(found, STORMReconstructor)
    return found
