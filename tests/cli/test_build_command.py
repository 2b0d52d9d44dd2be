"""`livesr build` where there is nothing to build for.

What was asked is checked, and the reason is a sentence.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livesr.live.inference.cuda import why_no_gpu
from own_process import livesr


@pytest.mark.skipif(why_no_gpu() is None, reason="a GPU is here")
def test_without_a_gpu_the_reason_is_said(tmp_path: Path) -> None:
    code, out, err = livesr("build", "identity", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "needs an NVIDIA GPU" in err
    code, out, _ = livesr("build", "identity", "--json", cwd=tmp_path)
    assert (code, json.loads(out)["exit_code"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("identity", "--shape", "512"), "such as 1024x1024"),
        (("identity", "--precision", "bf16"), "not in 'bf16'"),
        (("no-such-engine",), "No engine 'no-such-engine'"),
    ],
)
def test_what_cannot_be_built_is_said_first(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = livesr("build", *arguments, cwd=tmp_path)
    assert code == 2
    assert said in err


@pytest.mark.gpu
def test_a_plan_is_built_once_and_a_run_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tensorrt", "cupy", "typer"):
        pytest.importorskip(package, exc_type=ImportError)
    monkeypatch.setenv("LIVESR_CACHE", str(tmp_path))
    reports = []
    for _ in range(2):
        code, out, _ = livesr("build", "identity", "--shape", "64x96", "--json", cwd=tmp_path)
        assert code == 0
        reports.append(json.loads(out)["plans"][0])
    assert [r["built"] for r in reports] == [True, False]
    assert Path(reports[0]["plan"]).stat().st_size == reports[0]["bytes"]
