"""`livesr gui`: pymmcore-gui with livesr in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from livesr.base.errors import ConfigError
from livesr.cli import options
from livesr.cli.output import console

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(gui)


def gui(
    rig: Annotated[
        str | None,
        typer.Option(
            help=(
                "Rig whose hardware is loaded: a name, a folder or a rig.yaml. Without it,"
                " pymmcore-gui loads what it used last."
            )
        ),
    ] = None,
    store: options.Store = None,
    exposure: options.Exposure = None,
) -> None:
    """Open pymmcore-gui with livesr in it: its MDA and its live view are recorded and separated.

    [dim]Example:[/] livesr gui --rig virtual_sim
    """
    from livesr.base.config import load_rig
    from livesr.gui.mmgui import open_window
    from livesr.gui.qt import require_screen

    chosen = load_rig(rig) if rig else None
    require_screen()

    def make_core() -> CMMCorePlus:
        from livesr.cli.experiment import Experiment
        from livesr.cli.session import Request, load_core

        assert chosen is not None
        with console().status("Loading the rig"):
            core = load_core(
                Request(rig=chosen, experiment=Experiment(frames=1), exposure_ms=exposure)
            )
            if chosen.core == "unicore":
                from livesr.simulation.camera import prepare_virtual_camera

                prepare_virtual_camera(core, None)  # or the window would, where live mode starts
            return core

    if exposure is not None and chosen is None:
        raise ConfigError("--exposure is for the hardware of a rig: add --rig.")
    open_window(make_core if chosen else None, rig=rig, store=store)
