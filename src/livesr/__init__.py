"""Live multicolour super-resolution for Micro-Manager microscopes.

What is named here is what livesr promises to keep; it is listed in docs/api.md. Everything else may
change with any version. Importing this package loads no runtime, no camera core and no network
library: a name is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from livesr.base.version import __version__

if TYPE_CHECKING:  # for type checkers and completion; below, for Python
    from livesr.base.compute import ComputeConfig as ComputeConfig
    from livesr.base.config import ChannelSection as ChannelSection
    from livesr.base.config import RigConfig as RigConfig
    from livesr.base.config import Section as Section
    from livesr.base.config import TriggerConfig as TriggerConfig
    from livesr.base.config import load_rig as load_rig
    from livesr.base.error_bars import ErrorBars as ErrorBars
    from livesr.base.errors import BackendError as BackendError
    from livesr.base.errors import BacklogError as BacklogError
    from livesr.base.errors import BindError as BindError
    from livesr.base.errors import CalibrationError as CalibrationError
    from livesr.base.errors import ConfigError as ConfigError
    from livesr.base.errors import DamagedFileError as DamagedFileError
    from livesr.base.errors import DocumentError as DocumentError
    from livesr.base.errors import EngineError as EngineError
    from livesr.base.errors import FrameShapeError as FrameShapeError
    from livesr.base.errors import LiveSRError as LiveSRError
    from livesr.base.errors import RecordingError as RecordingError
    from livesr.base.errors import RunError as RunError
    from livesr.base.errors import StoreError as StoreError
    from livesr.base.errors import UsageError as UsageError
    from livesr.base.frames import CameraFrame as CameraFrame
    from livesr.base.frames import FrameErrors as FrameErrors
    from livesr.base.frames import FrameQuality as FrameQuality
    from livesr.base.frames import MulticolorFrame as MulticolorFrame
    from livesr.base.frames import RawStack as RawStack
    from livesr.base.frames import SRFrame as SRFrame
    from livesr.base.frames import Stream as Stream
    from livesr.base.geometry import Geometry as Geometry
    from livesr.base.quality import Judgement as Judgement
    from livesr.base.quality import Quality as Quality
    from livesr.base.quality import Verdict as Verdict
    from livesr.base.run_config import RunConfig as RunConfig
    from livesr.base.run_description import ChannelDescription as ChannelDescription
    from livesr.base.run_description import RunDescription as RunDescription
    from livesr.formats.wire import Message as Message
    from livesr.formats.wire import WireError as WireError
    from livesr.formats.wire import WireHeader as WireHeader
    from livesr.formats.wire import decode as decode
    from livesr.gui.widget import LiveSRWidget as LiveSRWidget
    from livesr.live.inference.runtime import Runtime as Runtime
    from livesr.live.inference.session import InferenceSession as InferenceSession
    from livesr.live.plugin import LiveSR as LiveSR
    from livesr.live.reconstruct.monitor import Monitor as Monitor
    from livesr.live.reconstruct.monitor import Observation as Observation
    from livesr.live.reconstruct.reconstructor import Reconstructor as Reconstructor
    from livesr.live.run_state import Report as Report
    from livesr.live.run_state import Status as Status
    from livesr.live.sinks.sink import Sink as Sink
    from livesr.live.sources.mda import RAW_AXIS as RAW_AXIS
    from livesr.live.sources.plan import AuditPlan as AuditPlan
    from livesr.live.sources.plan import sim_sequence as sim_sequence
    from livesr.live.sources.plan import with_raw_frames as with_raw_frames
    from livesr.live.sources.triggered import TriggeredEngine as TriggeredEngine
    from livesr.modalities.modality import Modality as Modality
    from livesr.modalities.sim.simulation.rig import find_sim_camera as find_sim_camera
    from livesr.modalities.storm.score import score_localisations as score_localisations
    from livesr.modalities.storm.simulation.rig import find_storm_camera as find_storm_camera
    from livesr.napari.live_layers import LiveLayers as LiveLayers
    from livesr.simulation.blinking_rig import find_blinking_camera as find_blinking_camera
    from livesr.store.backfill import backfill as backfill
    from livesr.store.completion import complete as complete
    from livesr.store.process import process as process
    from livesr.store.raw_input import RawInput as RawInput
    from livesr.store.raw_input import ReadAs as ReadAs
    from livesr.store.raw_input import raw_input as raw_input
    from livesr.store.replay import Replay as Replay
    from livesr.viewer.subscriber import Subscriber as Subscriber
    from livesr.viewer.window import SRPreview as SRPreview

_PUBLIC = {
    "livesr.base.compute": ("ComputeConfig",),
    "livesr.base.config": ("ChannelSection", "RigConfig", "Section", "TriggerConfig", "load_rig"),
    "livesr.base.error_bars": ("ErrorBars",),
    "livesr.base.errors": (
        "BackendError",
        "BacklogError",
        "BindError",
        "CalibrationError",
        "ConfigError",
        "DamagedFileError",
        "DocumentError",
        "EngineError",
        "FrameShapeError",
        "LiveSRError",
        "RecordingError",
        "RunError",
        "StoreError",
        "UsageError",
    ),
    "livesr.base.frames": (
        "CameraFrame",
        "FrameErrors",
        "FrameQuality",
        "MulticolorFrame",
        "RawStack",
        "SRFrame",
        "Stream",
    ),
    "livesr.base.geometry": ("Geometry",),
    "livesr.base.quality": ("Judgement", "Quality", "Verdict"),
    "livesr.base.run_config": ("RunConfig",),
    "livesr.base.run_description": ("ChannelDescription", "RunDescription"),
    "livesr.formats.wire": ("Message", "WireError", "WireHeader", "decode"),
    "livesr.gui.widget": ("LiveSRWidget",),
    "livesr.live.inference.runtime": ("Runtime",),
    "livesr.live.inference.session": ("InferenceSession",),
    "livesr.live.plugin": ("LiveSR",),
    "livesr.live.reconstruct.monitor": ("Monitor", "Observation"),
    "livesr.live.reconstruct.reconstructor": ("Reconstructor",),
    "livesr.live.run_state": ("Report", "Status"),
    "livesr.live.sinks.sink": ("Sink",),
    "livesr.live.sources.mda": ("RAW_AXIS",),
    "livesr.live.sources.plan": ("AuditPlan", "sim_sequence", "with_raw_frames"),
    "livesr.live.sources.triggered": ("TriggeredEngine",),
    "livesr.modalities.modality": ("Modality",),
    "livesr.modalities.sim.simulation.rig": ("find_sim_camera",),
    "livesr.modalities.storm.score": ("score_localisations",),
    "livesr.modalities.storm.simulation.rig": ("find_storm_camera",),
    "livesr.napari.live_layers": ("LiveLayers",),
    "livesr.simulation.blinking_rig": ("find_blinking_camera",),
    "livesr.store.backfill": ("backfill",),
    "livesr.store.completion": ("complete",),
    "livesr.store.process": ("process",),
    "livesr.store.raw_input": ("RawInput", "ReadAs", "raw_input"),
    "livesr.store.replay": ("Replay",),
    "livesr.viewer.subscriber": ("Subscriber",),
    "livesr.viewer.window": ("SRPreview",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
