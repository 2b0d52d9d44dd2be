"""The steps of the live path on other arrays than NumPy's.

What they need is what a GPU's library has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.fft

from livesr.base.config import load_rig
from livesr.base.frames import Normalisation
from livesr.live.arrays import HOST, Arrays, CupyArrays, cupy_arrays
from livesr.live.compose import Arithmetic
from livesr.live.correct import Correction
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.normalise import background_and_scale
from livesr.modalities.fluctuation.convergence import Convergence
from livesr.modalities.fluctuation.cumulants import Cumulants
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.storm.config import STORMConfig
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.optics.exposure import examine
from livesr.optics.illumination import Pattern, angle_major, equal_steps
from livesr.optics.richardson_lucy import GaussianBlur, richardson_lucy
from livesr.simulation.blinking_rig import BlinkingBank

SHAPE = (72, 90)
ANGLES_RAD = (0.2, 0.2 + np.pi / 3, 0.2 + 2 * np.pi / 3)
PATTERNS = [Pattern((5.1 * np.sin(a), 5.1 * np.cos(a)), 0.5 + a, 0.7) for a in ANGLES_RAD]
CUPY = {
    "abs": {"out"},
    "add": {"out"},
    "arctan2": set(),
    "asarray": set(),
    "asnumpy": set(),
    "clip": {"out"},
    "conj": set(),
    "copyto": {"casting"},
    "count_nonzero": set(),
    "empty": {"dtype"},
    "greater": {"out"},
    "imag": set(),
    "isfinite": set(),
    "matmul": {"out"},
    "max": set(),
    "maximum": {"out"},
    "min": set(),
    "multiply": {"out"},
    "percentile": set(),
    "real": set(),
    "reshape": set(),
    "sort": {"axis"},
    "stack": set(),
    "subtract": {"out"},
    "sum": {"axis", "dtype"},
    "take": {"axis", "out"},
    "where": set(),
    "zeros": {"dtype"},
    "zeros_like": set(),
}
"""What CuPy documents (14.2, https://docs.cupy.dev/en/stable/reference) of what is called here,
with the keywords used."""

CUPYX_FFT = {
    "fft": {"axis"},
    "ifft": {"axis", "norm"},
    "rfft": {"axis"},
    "irfft": {"n", "axis", "norm", "overwrite_x"},
}


def raw_group() -> np.ndarray:
    """Nine raw frames (9, y, x) uint16 of points under the patterns, each brighter than the
    last."""
    rng = np.random.default_rng(0)
    points = np.zeros(SHAPE)
    points[rng.integers(0, SHAPE[0], 60), rng.integers(0, SHAPE[1], 60)] = rng.uniform(500, 5e3, 60)
    y, x = (np.arange(n) * 0.065 for n in SHAPE)
    frames = []
    for i, (angle, phase) in enumerate(angle_major(3, 3)):
        p = PATTERNS[angle]
        turn = (
            2 * np.pi * (p.k_um[0] * y[:, None] + p.k_um[1] * x)
            + p.phase_rad
            + equal_steps(3)[phase]
        )
        light = (1 + p.modulation * np.cos(turn)) * (1 + 0.02 * i)
        k = np.fft.fftfreq(SHAPE[0], 0.065)[:, None] ** 2 + np.fft.fftfreq(SHAPE[1], 0.065) ** 2
        frames.append(np.fft.ifft2(np.fft.fft2(points * light + 20) * np.exp(-k / 12)).real + 100)
    return rng.poisson(np.maximum(frames, 0)).astype(np.uint16)


class Steps:
    """Everything that is done to the pixels of a frame, but for the network."""

    def __init__(self, arrays: Arrays, quality_limits: QualityLimits) -> None:
        self.arrays = arrays
        rng = np.random.default_rng(1)
        scale = rng.uniform(0.9, 1.1, SHAPE).astype(np.float32)
        bad = rng.random(SHAPE) < 0.01
        bad[10:13, 10:13] = True  # with neighbours that are bad
        self.correction = Correction(SHAPE, scale, -100 * scale, bad, 9, arrays)
        parameters = SIMParameters(SHAPE, 0.065, 1.49, 0.525, offset_adu=0.0)
        self.sim = SIMReconstructor(
            parameters, PATTERNS, quality_limits, follow=True, arrays=arrays
        )
        self.convergence = Convergence(SHAPE, 2, 1.0, 2, "variance", arrays=arrays)
        self.cumulants = Cumulants(SHAPE, 2, 1.2, arrays=arrays)
        self.blur = GaussianBlur(SHAPE, 1.5, arrays)
        self.composing = Arithmetic(3, 1, self.sim.shape, residual_plane=True, arrays=arrays)

    def run(self, drift_rad: tuple[float, ...] = ()) -> dict[str, np.ndarray]:
        """What comes out of each step, as NumPy arrays."""
        arrays, xp = self.arrays, self.arrays.xp
        raw = arrays.array(raw_group())
        frames = [raw[i, :, :] for i in range(9)]
        self.sim.correct_drift(drift_rad)
        corrected = self.correction.apply(frames)
        planes = [corrected[i, :, :] for i in range(9)]
        image = self.sim.reconstruct(planes)
        background, scale = background_and_scale(image, border=0.06, arrays=arrays)
        x = arrays.subtract(image, background, out=xp.empty(image.shape, dtype=xp.float32))
        x = arrays.multiply(x, 1 / scale, out=x)
        output = xp.stack([xp.abs(x) * share for share in (0.5, 0.3, 0.1)])
        made = self.composing.compose(output, image, Normalisation(background, scale))
        assert self.sim.quality is not None
        quality = self.sim.quality.patterns
        return {
            "corrected": arrays.on_host(corrected),
            "image": arrays.on_host(image),
            "widefield": arrays.on_host(self.sim.widefield(planes)),
            "fluctuations": arrays.on_host(self.convergence.group(frames)),
            "cumulants": arrays.on_host(self.cumulants.group(frames)),
            "sharper": arrays.on_host(richardson_lucy(corrected[0, :, :], self.blur, 2, arrays)),
            "normalisation": np.array([background, scale]),
            "quality": np.array(quality, float),
            "channels": arrays.on_host(made.channels),
            "light": np.array([made.light.difference, made.light.total, *made.light.channels]),
            "limits": made.limits,
            "plane": arrays.on_host(made.plane),
            "raw": arrays.totals(frames),
            "saturated": examine(frames, 100.0, 400, arrays.xp, arrays.numbers).at_ceiling,
        }


def check_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        if name == "channels":
            assert np.abs(found[name].astype(int) - value).max() <= 1, name
        else:
            np.testing.assert_allclose(
                found[name], value, rtol=2e-4, atol=2e-4 * np.abs(value).max(), err_msg=name
            )


@pytest.mark.parametrize("drift_rad", [(), (0.4, -0.3, 0.2)])
@pytest.mark.parametrize("then", ["reconstruct", "widefield"])
def test_the_array_api_standard_is_enough(then: Any, drift_rad: tuple[float, ...]) -> None:
    quality_limits = QualityLimits(
        then, min_contrast_to_noise=1e6
    )  # every frame is doubtful, so that "widefield" shows widefield
    expected = Steps(HOST, quality_limits).run(drift_rad)
    assert np.isfinite(expected["quality"]).all()
    assert expected["image"].std() > 1
    check_equal(Steps(Arrays(array_api_strict), quality_limits).run(drift_rad), expected)
    assert np.array_equal(expected["image"], expected["widefield"]) == (then == "widefield")


def test_values_that_are_no_numbers_are_replaced_on_any_arrays() -> None:
    xp = array_api_strict
    image = np.random.default_rng(0).normal(100, 5, (20, 24)).astype(np.float32)
    output = np.repeat(image[None] / 300, 3, 0)
    output[1, 3, 4] = np.nan
    made = [
        Arithmetic(3, 1, (20, 24), residual_plane=False, arrays=arrays).compose(
            arrays.array(output), arrays.array(image), Normalisation(0.0, 100.0)
        )
        for arrays in (HOST, Arrays(xp))
    ]
    np.testing.assert_array_equal(np.asarray(made[1].channels), made[0].channels)
    assert made[0].channels[1, 3, 4] == 0
    assert not np.isfinite(made[1].light.difference)


class Recorded:
    """A module that notes which of its functions are called, with which keywords."""

    def __init__(self, module: ModuleType, calls: dict[str, set[str]]) -> None:
        self._module, self._calls = module, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not callable(found) or isinstance(found, type):  # a dtype
            return found

        def noted(*args: Any, **keywords: Any) -> Any:
            self._calls.setdefault(name, set()).update(keywords)
            return found(*args, **keywords)

        return noted


def cupy_calls() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Functions of CuPy and of cupyx.scipy.fft that the steps call, with their keywords."""
    numpy_with_asnumpy = ModuleType("numpy_with_asnumpy")
    numpy_with_asnumpy.__dict__.update({**vars(np), "asnumpy": np.asarray})
    calls, transforms = {}, {}
    arrays = CupyArrays(Recorded(numpy_with_asnumpy, calls), Recorded(scipy.fft, transforms))
    quality_limits, drift_rad = QualityLimits("reconstruct"), (0.4, -0.3, 0.2)
    check_equal(
        Steps(arrays, quality_limits).run(drift_rad), Steps(HOST, quality_limits).run(drift_rad)
    )
    arrays.finite(arrays.array(np.zeros(3)))
    return calls, transforms


def test_only_documented_functions_of_cupy_are_called() -> None:
    calls, transforms = cupy_calls()
    for called, known in ((calls, CUPY), (transforms, CUPYX_FFT)):
        assert set(called) <= set(known)
        assert {
            name: extra for name, keywords in called.items() if (extra := keywords - known[name])
        } == {}
    assert set(CUPYX_FFT) == set(transforms)


def test_the_installed_cupy_has_them() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    import cupyx.scipy.fft

    for module, known in ((cupy, CUPY), (cupyx.scipy.fft, CUPYX_FFT)):
        for name, keywords in known.items():
            assert keywords <= parameters(getattr(module, name)), name


@pytest.mark.gpu
@pytest.mark.parametrize("then", ["reconstruct", "widefield"])
def test_cupy_gives_what_numpy_gives(then: Any) -> None:
    if reason := why_no_gpu():
        pytest.skip(reason)
    pytest.importorskip("cupy", reason="CuPy is not installed")
    quality_limits, drift_rad = QualityLimits(then, min_contrast_to_noise=1e6), (0.4, -0.3, 0.2)
    check_equal(
        Steps(cupy_arrays(), quality_limits).run(drift_rad),
        Steps(HOST, quality_limits).run(drift_rad),
    )


def parameters(function: Callable[..., Any]) -> set[str]:
    """Names of a function's keywords; those of a ufunc are in its documentation only."""
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {
            word.partition("=")[0].strip()
            for word in str(function.__doc__).splitlines()[0].split(",")
        }


@pytest.mark.parametrize("lens", [None, "astigmatic"])
def test_localisation_needs_the_standard_alone(lens):
    rig = load_rig("virtual_storm_3d" if lens else "virtual_storm")
    depth = {"astigmatism": 0.06, "depth_um": 0.5} if lens else {}
    frames = BlinkingBank(rig, 48, 6, fluorophores=500, lit=8, photons=2000, **depth).frames
    optics = rig.optics
    table = STORMConfig.of(rig).astigmatism if lens else None
    found = [
        Localiser(
            (48, 48),
            optics.pixel_size_nm,
            94.0,
            PhotonScale(100.0, 15 / 200, 2.0),
            astigmatism=table,
            arrays=arrays,
        ).localise(frames, range(6))
        for arrays in (HOST, Arrays(array_api_strict))
    ]
    assert len(found[0]) == len(found[1]) > 20
    for name in found[0].dtype.names:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-3, atol=0.01)
