"""Sample data: a simulated cell, measured by the virtual microscope and separated as in a run.

Owns the run and where its store is kept: in livesr's cache, so that it is made once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from livesr.base.config import load_rig
from livesr.base.errors import RunError
from livesr.base.run_config import RunConfig
from livesr.base.version import __version__
from livesr.cli.experiment import Experiment
from livesr.cli.session import Request, acquire, load_core
from livesr.formats.store import is_store
from livesr.live.inference.plans import cache_folder
from livesr.napari.store_layers import LayerData, store_layers
from livesr.simulation.sequence import simulating_rig

_FRAMES, _SIZE = 12, 256


def demo() -> list[LayerData]:
    """Return the layers of a run of the virtual microscope, which is made the first time.

    Raises
    ------
    LiveSRError
        If the run fails.
    """
    store = cache_folder() / f"sample-{__version__}.ome.zarr"
    if not is_store(store):
        _record(store)
    return store_layers(store)


def _record(store: Path) -> None:
    """Make the run beside the store's place, and put it there when it is whole."""
    request = Request(
        rig=load_rig(simulating_rig()),
        experiment=Experiment(frames=_FRAMES),
        properties={"Seed": "7", "SensorSize": str(_SIZE), "TimePoints": str(_FRAMES)},
    )
    store.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="sample-", dir=store.parent) as folder:
        settings = RunConfig(store=Path(folder) / store.name, policy="complete", provisional="off")
        request = replace(request, settings=settings)
        report = acquire(request, load_core(request), Console(quiet=True))
        if report["exit_code"]:
            raise RunError(f"The sample could not be made: {report['error']}")
        Path(report["store"]).rename(store)
