"""Whether a run does what it was asked for.

Owns the sentences that refuse a setting which nothing in the run can follow. Computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, ConfigError
from livesr.live.paths import ChannelPath


def check_honoured(paths: Mapping[str, ChannelPath], compute: ComputeConfig) -> tuple[str, ...]:
    """Refuse what no channel of a run can do.

    What concerns networks alone (backend, endpoint, precision, threads, tiles) holds where there is
    none.

    Returns
    -------
    Sentences about channels that cannot, where others can.

    Raises
    ------
    ConfigError
        If predictions are to have what only a network gives, and there is none.
    BackendError
        If a GPU is named and no channel can be reconstructed on one.
    """
    _check_predictions(paths, compute)
    return _check_device(paths, compute)


def _check_predictions(paths: Mapping[str, ChannelPath], compute: ComputeConfig) -> None:
    if any(path.networks.engine for path in paths.values()):
        return
    for asked, what in (
        (compute.compared, "uncertainty"),
        (compute.averaged, "ensemble"),
        (compute.residual_plane, "residual_plane"),
    ):
        if asked:
            raise ConfigError(
                f"{what} is {asked!r}, and nothing is predicted: no channel has an engine. Name one"
                f" in rig.yaml or for the run, or leave out {what}."
            )


def _check_device(paths: Mapping[str, ChannelPath], compute: ComputeConfig) -> tuple[str, ...]:
    if compute.device != "cuda":
        return ()
    acquired = {name: path for name, path in paths.items() if not path.parts}
    on_cpu = [name for name, path in acquired.items() if path.device.name == "cpu"]
    if not on_cpu:
        return ()
    said = (
        f"Channel {', '.join(map(repr, on_cpu))} is reconstructed on the CPU: what"
        f" {acquired[on_cpu[0]].description.recon_method!r} computes has no code for a GPU"
    )
    if len(on_cpu) == len(acquired):
        raise BackendError(
            f"{said}, and device 'cuda' was named. Use 'auto' or 'cpu'; where the network runs"
            " is the backend's matter."
        )
    return (f"{said}.",)
