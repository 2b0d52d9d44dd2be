from pathlib import Path
from typing import Any, ClassVar

import pytest

from backend_contract import (
    RuntimeContract,
    SessionContract,
    make_engine,
    session_on,
    small_network,
)
from livesr.base.errors import BackendError

openvino = pytest.importorskip("openvino")
CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class TestOpenVINO(SessionContract):
    name = "openvino"
    needs: ClassVar = ("openvino",)


class TestOpenVINORuntime(RuntimeContract):
    name = "openvino"
    needs: ClassVar = ("openvino",)


def opened(folder: Path, precision: str) -> Any:
    engine = make_engine(folder / "small", small_network())
    return session_on(engine, (64, 64), "openvino", precision, 1)


def test_auto_is_bf16_only_where_the_cpu_has_it(tmp_path: Path) -> None:
    assert opened(tmp_path, "auto").precision == ("bf16" if "BF16" in CAPABILITIES else "f32")


def test_a_precision_that_the_cpu_lacks_is_refused(tmp_path: Path) -> None:
    lacking = [
        name
        for name, capability in (("bf16", "BF16"), ("f16", "FP16"))
        if capability not in CAPABILITIES
    ]
    if not lacking:
        pytest.skip("this CPU has them all")
    with pytest.raises(BackendError, match=r"computes in f32.* here, not in"):
        opened(tmp_path, lacking[0])


@pytest.mark.skipif("BF16" not in CAPABILITIES, reason="this CPU does not multiply bf16")
def test_only_the_last_convolution_stays_f32(tmp_path: Path) -> None:
    compiled = opened(tmp_path, "bf16")._request.get_compiled_model()
    layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    convolutions = [
        r["runtimePrecision"].astype(str)
        for r in layers
        if r["layerType"].astype(str) == "Convolution"
    ]
    assert convolutions[0] == "bf16"
    assert convolutions[-1] == "f32"


def test_threads_are_limited(tmp_path: Path) -> None:
    compiled = opened(tmp_path, "f32")._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_threads_are_pinned_to_no_core(tmp_path: Path) -> None:
    compiled = opened(tmp_path, "f32")._request.get_compiled_model()
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
