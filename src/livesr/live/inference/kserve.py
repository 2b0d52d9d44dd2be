"""KServe v2 over gRPC: the network is computed by a server, on another computer or on this one.

Triton speaks it; `livesr serve` writes what it serves. Owns the connection, what is compared before
a frame is sent, and what an answer must be. `tritonclient` is imported where it is asked or opened.
What a server says is data from outside: its answer is compared with what was asked, never trusted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np

from livesr.base.compute import ComputeConfig
from livesr.base.config import endpoint_of
from livesr.base.errors import BackendError, EngineError
from livesr.base.hosts import is_loopback
from livesr.live.inference.engine import FEATURES_OUTPUT, Engine, Manifest
from livesr.live.inference.kserve_memory import SharedFrames, can_be_shared
from livesr.live.inference.padding import PaddedBlock, PaddedSession
from livesr.live.inference.runtime import PRECISIONS, Precision, Runtime
from livesr.live.inference.session import InferenceSession

log = logging.getLogger(__name__)

ENDPOINT, TOKEN, CA = "LIVESR_ENDPOINT", "LIVESR_ENDPOINT_TOKEN", "LIVESR_ENDPOINT_CA"
"""Environment: the server; what it lets in; the certificate of whoever signed its own (PEM)."""

TOKEN_HEADER = "livesr-token"  # noqa: S105 a name
"""Key under which `livesr serve` has Triton ask for the token."""

IN_FLIGHT = 4
"""Frames on their way: one each is sent, computed, brought back and composed."""

_ASK_S, _FIRST_FRAME_S, _FRAME_S = 10.0, 600.0, 60.0  # a server may compile for the first frame
_TIMES_S = 0.5  # whoever shows them does not wait for long
_TYPES = {"FP32": np.float32, "FP16": np.float16}
_MAX_SAID_BYTES = 1 << 20  # what comes beside the pixels
_MAX_SENTENCE = 300
_MAX_F16 = float(np.finfo(np.float16).max)
_CHANNEL = {
    "grpc.use_local_subchannel_pool": 1,  # else a new connection waits as long as a failed one
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2000,
    "grpc.max_send_message_length": -1,
    "grpc.enable_http_proxy": 0,  # frames go where they were sent, and the token too
}

T = TypeVar("T")


class KServeRuntime(Runtime):
    """A server that speaks KServe v2: NVIDIA Triton.

    Notes
    -----
    The precision is the server's: naming another one than it computes in is refused.
    """

    name = "kserve"
    title = "KServe"
    remote = True

    def unavailable(self) -> str | None:
        """Return None if a client is installed, else what to install."""
        if find_spec("tritonclient") is None or find_spec("grpc") is None:
            return "The kserve backend needs tritonclient: pip install 'livesr[remote]'"
        return None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """All: the server decides."""
        return PRECISIONS

    @property
    def devices(self) -> tuple[str, ...]:
        """What the server has, which it does not say."""
        return ("a server",)

    @property
    def max_in_flight(self) -> int:
        """Enough that the way there and back is hidden behind the network."""
        return IN_FLIGHT

    def open(
        self, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
    ) -> InferenceSession:
        """Compare the server's model with the engine, and infer once; errors as of
        `Runtime.open`.
        """
        if reason := self.unavailable():
            raise BackendError(reason)
        session = KServeSession(engine, shape, _named(compute))
        try:
            session.start(compute.precision)
        except BaseException:
            session.close()
            raise
        return session


class Served(NamedTuple):
    """A model as a server describes it.

    Attributes
    ----------
    name, input, output : in the server's words
    datatype : of the pixels both ways, as KServe calls it
    precision : what it computes in, as far as it says
    """

    name: str
    input: str
    output: str
    datatype: str
    precision: str


class KServeSession(PaddedSession):
    """An engine that a server computes for one frame size.

    Parameters
    ----------
    engine, shape : as of `Runtime.open`
    endpoint : grpc://HOST:PORT, or grpcs:// for TLS

    Notes
    -----
    Pixels go as FP16 where the model takes it, else as FP32. A server on this computer reads and
    writes them in memory that both share, if it can.
    """

    name = KServeRuntime.name

    def __init__(self, engine: Engine, shape: tuple[int, int], endpoint: str) -> None:
        super().__init__(engine, shape)
        self._engine, self._endpoint = engine, endpoint
        self._headers = _headers(endpoint)
        self._client: Any = _connected(endpoint, self._output.nbytes + _MAX_SAID_BYTES)
        self._served: Served | None = None
        self._shared: SharedFrames | None = None
        self._deadline_s = _FIRST_FRAME_S

    def start(self, precision: str) -> None:
        """Compare the server's model with the engine, and infer once.

        Raises
        ------
        BackendError
            If the server cannot be reached, or computes in another `precision` than asked for.
        EngineError
            If it has another network than the engine.
        """
        self._served = served = self._asked()
        if precision not in ("auto", served.precision):
            raise BackendError(
                f"The server at {self._endpoint} computes in {served.precision}, not in"
                f" {precision!r}. Use --precision auto, or write its model anew with livesr serve."
            )
        if served.datatype == "FP16" and self._engine.manifest.normalisation == "none":
            raise BackendError(
                f"The server at {self._endpoint} takes FP16, and engine"
                f" {self._engine.manifest.id!r} takes ADU, which FP16 does not hold: write its"
                " model with livesr serve --wire f32."
            )
        self.precision = served.precision
        self.device = self._endpoint
        self._shared = self._share(_TYPES[served.datatype])
        self.shares_memory = self._shared is not None
        self.infer()
        self._deadline_s = _FRAME_S

    def set_deadline(self, seconds: float) -> None:
        """Have frames fail that take longer than `seconds`."""
        self._deadline_s = seconds

    def served(self) -> tuple[int, float] | None:
        """Return how many requests the server has computed, and the seconds that it took for them.

        Of all its clients; None where it does not say.
        """
        if self._served is None:
            return None
        try:
            told = self._call(
                self._client.get_inference_statistics, self._served.name, client_timeout=_TIMES_S
            )
            done = [model.inference_stats.success for model in told.model_stats]
        except (BackendError, AttributeError):
            return None
        return sum(d.count for d in done), sum(d.ns for d in done) / 1e9

    def verify(self) -> None:
        """Compare what the server says of its model now with the engine; errors as of `start`."""
        if self._served is not None:
            name, _ = self._found(self._engine.manifest)
            self._call(self._client.get_model_metadata, name, client_timeout=_TIMES_S)

    def close(self) -> None:
        """Close the connection, and release the buffers."""
        if self._shared is not None and self._client is not None:
            with suppress(BackendError):  # a server that is gone has given it back
                self._call(
                    self._client.unregister_system_shared_memory,
                    self._shared.name,
                    client_timeout=_TIMES_S,
                )
        client, self._client = self._client, None
        if client is not None:
            client.close()
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()
        super().close()

    def _share(self, dtype: Any) -> SharedFrames | None:
        """Return memory that the server has taken to share; None where it, or this computer, does
        not.
        """
        if not (can_be_shared() and is_loopback(urlsplit(self._endpoint).hostname or "")):
            return None
        padded = self._opened()
        try:
            shared = SharedFrames(padded.block.shape, padded.output_shape, dtype)
        except OSError as e:
            log.info("No memory is shared with %s: %s", self._endpoint, e)
            return None
        try:
            self._call(
                self._client.register_system_shared_memory,
                shared.name,
                shared.key,
                shared.nbytes,
                client_timeout=_ASK_S,
            )
        except BackendError as e:  # in a container, behind a tunnel, or of another make
            log.info("Frames go through the connection: %s", e)
            shared.close()
            return None
        shared.forget()
        return shared

    def _asked(self) -> Served:
        """Return what the server says of the engine's model, compared with the engine."""
        manifest = self._engine.manifest
        name, said = self._found(manifest)
        told = self._call(self._client.get_model_metadata, name, client_timeout=_ASK_S)
        outputs = [end for end in told.outputs if end.name != FEATURES_OUTPUT]
        ends = [*told.inputs, *outputs]
        if len(outputs) == len(told.outputs):
            self._features = None  # of a repository of before: its frames are judged without
        if (len(told.inputs), len(outputs)) != (1, 1) or not (
            ends[0].datatype == ends[1].datatype in _TYPES
        ):
            what = ", ".join(f"{end.name} {end.datatype}" for end in ends)
            raise EngineError(
                f"Model {manifest.id!r} of the server at {self._endpoint} has {_short(what)};"
                " expected one input and one output, both FP32 or FP16. livesr serve writes one."
            )
        self._check_size(list(ends[0].shape))
        datatype = ends[0].datatype
        precision = said.get("precision") or ("f16" if datatype == "FP16" else "f32")
        if precision not in PRECISIONS:
            raise EngineError(
                f"Model {manifest.id!r} of the server at {self._endpoint} says that it computes in"
                f" {_short(precision)}; expected one of {', '.join(PRECISIONS)}."
            )
        return Served(name, ends[0].name, ends[1].name, datatype, precision)

    def _found(self, manifest: Manifest) -> tuple[str, Mapping[str, str]]:
        """Return the model's name at the server, and what its configuration says.

        OpenVINO Model Server knows no such configuration: a model's name says there what it is.
        """
        try:
            config = self._call(self._client.get_model_config, manifest.id, client_timeout=_ASK_S)
        except BackendError as e:
            if not _is_unknown(e.__cause__):
                raise
            return name_that_says_it(manifest), {}
        said = {k: v.string_value for k, v in config.config.parameters.items()}
        self._check_identity(said)
        return manifest.id, said

    def _check_identity(self, said: Mapping[str, str]) -> None:
        manifest = self._engine.manifest
        expected = {"sha256": manifest.sha256, "version": str(manifest.version)}
        for key, value in expected.items():
            if said.get(key) == value:
                continue
            came = f"has {key} {_short(said[key])}" if key in said else f"does not say its {key}"
            raise EngineError(
                f"Model {manifest.id!r} of the server at {self._endpoint} {came}, and the engine"
                f" here has {value}: another network is not taken. Write its repository anew with"
                f" 'livesr serve {manifest.id}', or use the engine that it has."
            )

    def _check_size(self, takes: list[int]) -> None:
        """Refuse a model for frames of another size, as a plan of TensorRT is."""
        sent = list(self._opened().block.shape)
        if len(takes) == len(sent) and any(0 < n != m for n, m in zip(takes, sent, strict=True)):
            raise BackendError(
                f"The server at {self._endpoint} takes {takes} (1, frames, y, x), and these are"
                f" {sent}: write its model anew with 'livesr serve --plan"
                f" {sent[-2]}x{sent[-1]}', or without --plan for frames of any size."
            )

    def _run(self, padded: PaddedBlock) -> None:
        from tritonclient.grpc import InferInput, InferRequestedOutput

        if self._served is None or self._client is None:
            raise BackendError("The kserve session is closed.")
        _, name, output, datatype, _ = self._served
        block = padded.block
        if datatype == "FP16":
            block = np.clip(block, -_MAX_F16, _MAX_F16).astype(np.float16)
        sent, wanted = InferInput(name, list(block.shape), datatype), InferRequestedOutput(output)
        if self._shared is None:
            sent.set_data_from_numpy(block)
        else:
            self._shared.sent[...] = block
            self._shared.came[...] = np.nan  # what is not written is no picture of before
            sent.set_shared_memory(self._shared.name, self._shared.sent.nbytes)
            wanted.set_shared_memory(
                self._shared.name, self._shared.came.nbytes, self._shared.sent.nbytes
            )
        features = [InferRequestedOutput(FEATURES_OUTPUT)] if self._features is not None else []
        came = self._call(
            self._client.infer,
            self._served.name,
            [sent],
            outputs=[wanted, *features],
            client_timeout=self._deadline_s,
        )
        pixels = self._pixels(came, output) if self._shared is None else self._written(came, output)
        self._take(pixels, padded)
        if self._features is not None:
            self._take_features(self._pixels(came, FEATURES_OUTPUT))

    def _written(self, came: Any, output: str) -> Any:
        """Return what the server wrote into the memory that it shares, if it says so."""
        assert self._shared is not None
        told, expected = came.get_output(output), list(self._shared.came.shape)
        found = None if told is None else list(told.shape)
        if found != expected:
            raise BackendError(
                f"The server at {self._endpoint} wrote {found}; expected {expected}"
                " (1, channels, y, x)."
            )
        return self._shared.came

    def _pixels(self, came: Any, output: str) -> Any:
        try:
            return came.as_numpy(output)
        except Exception as e:  # bytes that are not as many as their shape says
            raise BackendError(
                f"The server at {self._endpoint} returned what is no picture: {_short(e)}"
            ) from e

    def _take(self, pixels: Any, padded: PaddedBlock) -> None:
        """Copy an answer that is what was asked for.

        Raises
        ------
        BackendError
            If it is not.
        """
        shape = getattr(pixels, "shape", None)
        dtype = getattr(pixels, "dtype", None)
        if shape != padded.output_shape or dtype not in (np.float32, np.float16):
            raise BackendError(
                f"The server at {self._endpoint} returned {dtype} of shape {shape}; expected"
                f" {padded.output_shape} (1, channels, y, x)."
            )
        np.copyto(self._output, pixels)
        if not np.isfinite(self._output).all() and np.isfinite(padded.block).all():
            raise BackendError(
                f"The server at {self._endpoint} returned pixels that are no numbers."
            )

    def _take_features(self, features: Any) -> None:
        """Copy the features of an answer; raises BackendError if they are not what was asked."""
        assert self._features is not None
        if getattr(features, "size", None) != self._features.size:
            raise BackendError(
                f"The server at {self._endpoint} returned features of shape"
                f" {getattr(features, 'shape', None)}; expected {self._features.size}."
            )
        self._features[...] = features.reshape(-1)

    def _call(self, ask: Callable[..., T], *args: Any, **how: Any) -> T:
        """Ask the server; whatever goes wrong becomes a sentence."""
        if self._client is None:
            raise BackendError("The kserve session is closed.")
        try:
            return ask(*args, headers=self._headers, **how)
        except Exception as e:  # grpc raises errors of its own, and ValueError once it is closed
            raise BackendError(f"The server at {self._endpoint} {_trouble(e)}") from e


def _named(compute: ComputeConfig) -> str:
    """Return the server that is named: for the run, else by the environment.

    Raises
    ------
    BackendError
        If none is.
    """
    if compute.endpoint:
        return compute.endpoint
    try:
        endpoint = endpoint_of(os.environ.get(ENDPOINT))
    except ValueError as e:
        raise BackendError(f"{ENDPOINT}: {e}.") from e
    if endpoint:
        return endpoint
    raise BackendError(
        "Backend kserve needs a server, and none is named: use --endpoint grpc://HOST:8001,"
        f" 'endpoint' in rig.yaml, or {ENDPOINT}."
    )


def _headers(endpoint: str) -> dict[str, str]:
    """Return what lets a client in.

    Raises
    ------
    BackendError
        If there is a token that everybody on the way could read.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        return {}
    at = urlsplit(endpoint)
    if at.scheme != "grpcs" and not is_loopback(at.hostname or ""):
        raise BackendError(
            f"{TOKEN} is set, and {endpoint} is not encrypted: everybody on the way could read the"
            " token. Use grpcs://, or a tunnel to this computer, or unset it."
        )
    return {"authorization": f"Bearer {token}", f"triton-grpc-protocol-{TOKEN_HEADER}": token}


def name_that_says_it(manifest: Manifest) -> str:
    """Return a model's name where nothing but the name can say which network it is."""
    return f"{manifest.id}-{manifest.version}-{manifest.sha256[:16]}"


def _is_unknown(error: BaseException | None) -> bool:
    """Whether a server says that it has no such question."""
    return str(getattr(error, "status", lambda: "")()).endswith("UNIMPLEMENTED")


def _connected(endpoint: str, max_bytes: int) -> Any:
    """Return a client; nothing is sent yet.

    Raises
    ------
    BackendError
        If the certificate that is named cannot be read.
    """
    # Else gRPC writes to the terminal whenever another process is started.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from tritonclient.grpc import InferenceServerClient

    at = urlsplit(endpoint)
    ca = os.environ.get(CA) or None
    if ca and not Path(ca).is_file():
        raise BackendError(f"{CA} names {ca!r}, which is not there.")
    options = [*_CHANNEL.items(), ("grpc.max_receive_message_length", max_bytes)]
    try:
        return InferenceServerClient(
            at.netloc,
            ssl=at.scheme == "grpcs",
            root_certificates=ca if at.scheme == "grpcs" else None,
            channel_args=options,
        )
    except Exception as e:
        raise BackendError(f"There is no way to {endpoint}: {_short(e)}") from e


def _trouble(error: Exception) -> str:
    """Return what went wrong, as the end of a sentence."""
    status = str(getattr(error, "status", lambda: "")() or "").removeprefix("StatusCode.")
    said = _short(getattr(error, "message", lambda: "")() or error)
    known = {
        "DEADLINE_EXCEEDED": "did not answer in time.",
        "UNAVAILABLE": f"cannot be reached ({said}).",
        "NOT_FOUND": f"does not have this model ({said}).",
        "UNAUTHENTICATED": f"lets nobody in with this token ({said}).",
    }
    return known.get(status, f"refuses: {said}")


def _short(said: object) -> str:
    """Return what somebody else said as a sentence can hold it: one line, and no commands to the
    terminal.
    """
    text = " ".join(str(said).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _MAX_SENTENCE else f"{text[:_MAX_SENTENCE]}..."
