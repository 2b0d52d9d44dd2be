"""Raw is sacred: every exposure is on disk whatever becomes of the pictures, for as long as a run
lasts.

The camera writes its frame number into pixel (0, 0), so that what is on disk says by itself whether
anything is missing. `LIVESR_RECORDING_S=30 pytest tests/live/test_recording.py` makes the runs as
long as the promise.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.live.sources.plan import sim_sequence
from rigs import virtual_sim

SECONDS = float(os.environ.get("LIVESR_RECORDING_S", "1"))
RATE_HZ = 200
GROUPS = max(round(SECONDS * RATE_HZ / 9), 3)


@pytest.fixture(scope="module")
def fast_core() -> Iterator[CMMCorePlus]:
    """512 x 512 pixels, 200 frames/s."""
    with virtual_sim(exposure_ms=1e3 / RATE_HZ, time_points=1, size=512) as core:
        yield core


def broken(session: LiveSR, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the super-resolution side as bad as `trouble` says."""
    path = session._paths["488"]
    assert path.networks.session is not None
    infer = path.networks.session.infer

    def slow() -> Any:
        time.sleep(0.4)  # nine groups come meanwhile
        return infer()

    def failing(frames: Any) -> Any:
        raise RuntimeError("no such pattern")

    def stuck(frames: Any) -> Any:
        time.sleep(0.4)
        return np.zeros(path.reconstructor.shape, np.float32)

    if trouble == "slow network":
        monkeypatch.setattr(path.networks.session, "infer", slow)
    elif trouble == "failing reconstruction":
        monkeypatch.setattr(path.reconstructor, "reconstruct", failing)
    elif trouble == "slow reconstruction":
        monkeypatch.setattr(path.reconstructor, "reconstruct", stuck)


@pytest.mark.parametrize(
    "trouble", ["no trouble", "slow network", "slow reconstruction", "failing reconstruction"]
)
def test_every_frame_number_is_in_the_store(
    fast_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    plan = sim_sequence(GROUPS, ["488"])
    with LiveSR(
        fast_core,
        rig="virtual_sim",
        plan=plan,
        engine="identity",
        threads=1,
        store=tmp_path / "raw.ome.zarr",
    ) as session:
        broken(session, trouble, monkeypatch)
        start_s = time.perf_counter()
        fast_core.mda.run(plan)
        rate_hz = 9 * GROUPS / (time.perf_counter() - start_s)
    report = session.report
    store = zarr.open_group(report["store"], mode="r")
    raw = store["raw/0"]
    numbers = np.concatenate([raw[t, :, 0, 0] for t in range(raw.shape[0])]).astype(np.int64)
    numbers = np.unwrap(numbers, period=65536)
    np.testing.assert_array_equal(numbers, numbers[0] + np.arange(9 * GROUPS))
    assert (report["raw_frames"], report["raw_lost"], report["raw_missing"]) == (9 * GROUPS, 0, 0)
    assert report["error"] is None
    if trouble == "failing reconstruction":
        assert (report["recon_frames"], report["recon_failed"]) == (
            0,
            GROUPS - report["groups_dropped"],
        )
        assert any("no such pattern" in w for w in report["warnings"])
    elif trouble == "slow reconstruction":
        assert report["groups_dropped"] > 0
    elif trouble == "slow network":
        assert report["sr_skipped"] > 0
    shutil.rmtree(report["store"])
    print(f"{trouble}: {len(numbers)} frames at {rate_hz:.0f}/s, {report['sr_frames']} separated")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_flat_over_ten_thousand_frames() -> None:
    script = Path(__file__).parents[1] / "support" / "flat_memory.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["sr_frames"], found["raw_lost"]) == (10_000, 0)
    assert found["seen"] > 1000  # the publisher did publish
    after_1000, later = found["rss"][1], found["rss"][2:]
    # A kilobyte kept of each frame would be 9 MiB; the allocator takes a step of 5 MiB at times.
    assert max(later) <= after_1000 + 8 * 2**20, [f"{size / 2**20:.1f}" for size in found["rss"]]
    print(
        f"{after_1000 / 2**20:.1f} MiB after 1,000 frames, {max(later) / after_1000 - 1:+.2%} at"
        " most until 10,000"
    )
