"""What a runtime is, and which ones there are.

Owns the base class and the registry. Imports no runtime: each lives in its own file, and imports
its library when it opens an engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from livesr.base.errors import BackendError, ConfigError, suggestion
from livesr.base.registry import Registry

if TYPE_CHECKING:
    from livesr.base.compute import ComputeConfig
    from livesr.live.inference.engine import Engine
    from livesr.live.inference.session import InferenceSession

# In the order in which "auto" tries them.
BACKENDS = Registry(
    "backend",
    {
        "tensorrt": "livesr.live.inference.tensorrt:TensorRTRuntime",
        "tensorrt-rtx": "livesr.live.inference.tensorrt:TensorRTRTXRuntime",
        "openvino": "livesr.live.inference.openvino:OpenVINORuntime",
        "torch": "livesr.live.inference.torch:TorchRuntime",
        "kserve": "livesr.live.inference.kserve:KServeRuntime",
    },
    "livesr.backends",
)

Precision = Literal["f32", "bf16", "f16", "int8", "f8"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "f16", "int8", "f8")


class Runtime(ABC):
    """A library, or a server, that executes engines.

    Made without arguments, and cheap to make: nothing is imported before a question needs it.

    Attributes
    ----------
    name : as in `BACKENDS`
    title : as it is written in sentences
    remote : whether frames leave this computer. Such a runtime is taken only where it is named, and
        its engines are not tried out in a process beforehand
    """

    name: ClassVar[str]
    title: ClassVar[str]
    remote: ClassVar[bool] = False

    @abstractmethod
    def unavailable(self) -> str | None:
        """Return None if it can run here, else a sentence with the reason and the pip extra to
        install.
        """

    @property
    @abstractmethod
    def precisions(self) -> tuple[Precision, ...]:
        """What it computes in here, where it is available; the first is taken by default."""

    @property
    @abstractmethod
    def devices(self) -> tuple[str, ...]:
        """What it can compute on here, where it is available, in words; the first is taken."""

    @property
    def resident(self) -> bool:
        """Whether its sessions take frames that are on a GPU without a copy through the host."""
        return False

    @property
    def max_in_flight(self) -> int:
        """Frames that may be on their way at once: where nothing is copied through the host, one is
        made ready while another is computed. Of a remote runtime, as many sessions are opened.
        """
        return 2 if self.resident else 1

    def free_bytes(self) -> int | None:
        """Return the memory that is free where it computes, None where nobody knows.

        Raises
        ------
        BackendError
            If the device does not answer.
        """
        return None

    def facts(self) -> dict[str, Any]:
        """Return what it can do here, JSON-able.

        Raises
        ------
        BackendError
            If the device does not answer.
        """
        return {
            "precisions": list(self.precisions),
            "devices": list(self.devices),
            "resident": self.resident,
            "remote": self.remote,
            "max_in_flight": self.max_in_flight,
            "free_bytes": self.free_bytes(),
        }

    @abstractmethod
    def open(
        self, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
    ) -> InferenceSession:
        """Load, compile and warm up for frames of `shape` (y, x), which are seen as a whole.

        Of `compute`, a runtime heeds precision and threads.

        Raises
        ------
        BackendError
            If the runtime is missing, refuses the engine or has no such precision here.
        EngineError
            If the engine cannot take frames of `shape`, or its network is not what its manifest
            says.
        """

    def choose_precision(self, asked: str, engine: Engine | None = None) -> Precision:
        """Return what is computed in where `asked` is wanted; "auto" is what suits `engine`.

        Raises
        ------
        BackendError
            If it has no such precision here.
        """
        if asked == "auto":
            return self.preferred(engine)
        for precision in self.precisions:
            if precision == asked:
                return precision
        raise BackendError(
            f"{self.title} computes in {', '.join(self.precisions)} here, not in {asked!r}. Use"
            " --precision auto."
        )

    def preferred(self, engine: Engine | None) -> Precision:
        """Return the precision that "auto" takes for `engine`."""
        return self.precisions[0]


def runtime_named(name: str) -> Runtime:
    """Return the runtime that is called `name`; imports its file, and not its library.

    Raises
    ------
    BackendError
        If there is none, with the names that come near, or it cannot be loaded.
    """
    if name not in BACKENDS.names:
        raise BackendError(
            f"There is no backend {name!r}.{suggestion(name, ['auto', *BACKENDS.names])}"
        )
    try:
        return BACKENDS.make(name, Runtime)  # type: ignore[type-abstract]
    except ConfigError as e:  # a package of others that announces it, and cannot be loaded
        raise BackendError(str(e)) from e


def why_unavailable(name: str) -> str | None:
    """Return None if the runtime that is called `name` can run here, else the reason."""
    try:
        runtime = runtime_named(name)
        with BACKENDS.blamed(name, "cannot say whether it runs here", BackendError):
            return runtime.unavailable()
    except BackendError as e:
        return str(e)


def is_remote(name: str) -> bool:
    """Return whether `name`, which may be "auto" or unknown, is of a runtime that frames leave this
    computer for.
    """
    return name in BACKENDS.names and runtime_named(name).remote
