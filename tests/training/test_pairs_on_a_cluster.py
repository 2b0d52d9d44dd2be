"""Training pairs that the workers of a real Dask cluster make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed", reason="--cluster needs Dask's distributed")

from dask_cluster import Cluster
from livesr.simulation.domain import Domain
from livesr.training.pair_folder import write_pairs
from livesr.training.simulated import SimulatedPairs

# Dask warns of itself: of files that a killed worker leaves open, of ports, of memory.
pytestmark = pytest.mark.filterwarnings("ignore")
MAKER = SimulatedPairs(64, Domain())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    made = Cluster(tmp_path / "cluster", workers=2)
    yield made
    made.close()


def test_they_are_those_of_this_computer_also_when_a_worker_dies_or_the_command_is_ended(
    tmp_path: Path, cluster: Cluster
) -> None:
    here = write_pairs(tmp_path / "here", MAKER, 18, seed=5)
    said: list[str] = []

    def kill_and_end(done: int, total: int) -> None:
        assert total == 18
        if done == 1:
            cluster.kill_one()
        if done == 9:
            raise KeyboardInterrupt

    there, how = tmp_path / "there", {"seed": 5, "cluster": cluster.address, "say": said.append}
    with pytest.raises(KeyboardInterrupt):
        write_pairs(there, MAKER, 18, progress=kill_and_end, **how)
    assert not (there / "meta.json").exists()
    shown: list[int] = []
    write_pairs(there, MAKER, 18, progress=lambda done, total: shown.append(done), **how)
    assert 8 <= shown[0] < 18
    assert said[0].startswith("Dashboard: http://")
    for name in ("frames.npy", "targets.npy"):
        np.testing.assert_array_equal(np.load(there / name), np.load(here / name))
    assert (there / "meta.json").read_text() == (here / "meta.json").read_text()
