"""Every error that livesr raises on purpose.

Owns the tree below and the exit code of each branch. Touches nothing else.

::

    LiveSRError              exit 1
    +-- UsageError           exit 2   what the user gave cannot work; nothing was started
    |   +-- ConfigError               a rig, plan or run setting
    |   +-- DocumentError             a text, YAML or JSON file, or an array, beyond its limits
    |   +-- EngineError               an engine folder, its manifest or its weights
    |   +-- StoreError                a store path
    |   +-- BindError                 an address to publish on
    |   +-- BackendError              a runtime that is absent or refuses the engine
    +-- CalibrationError     exit 1   raw frames lack what calibration needs; nothing was changed
    +-- RunError             exit 1   a run had to end early; what was received is on disk
        +-- FrameShapeError           a frame of another size, pixel type or setting than the run's
        +-- BacklogError              the raw queue is full and the camera cannot wait
        +-- RecordingError            the disk no longer takes frames
        +-- TrainingCollapsedError    a network that learns nothing any more
        +-- DamagedFileError          a recording that is replayed cannot be read further

A message says what came, what was expected and what to try, in that order.
"""

from __future__ import annotations


class LiveSRError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(LiveSRError):
    """The request cannot be carried out as given; nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A rig, plan or run setting is wrong."""


class DocumentError(UsageError):
    """A file is not what it should be, or larger or deeper than such a file has reason to be."""


class EngineError(UsageError):
    """An engine is unknown, damaged or does not fit the run."""


class StoreError(UsageError):
    """A store cannot be created or read."""


class BindError(UsageError):
    """An address cannot be published on."""


class BackendError(UsageError):
    """A runtime is missing or refuses the engine."""


class CalibrationError(LiveSRError):
    """Raw frames do not show what a calibration needs; nothing was changed."""


class RunError(LiveSRError):
    """A run ended early; everything received until then is kept."""


class FrameShapeError(RunError):
    """A frame differs in size or pixel type from the run it arrived in."""


class BacklogError(RunError):
    """The raw queue is full and the camera cannot be made to wait."""


class RecordingError(RunError):
    """The store no longer takes frames."""


class DamagedFileError(RunError):
    """A recording that is read as a camera cannot be read, or not to its end."""


def suggestion(given: str, known: list[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of `known`, else a list of them, else an empty
    string.
    """
    import difflib

    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(sorted(known))}." if known else ""
