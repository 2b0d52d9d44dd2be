"""Engines as a server takes them: a model repository of Triton, and of OpenVINO Model Server.

Owns the folder that is written, and what a client compares: the engine's version and the SHA-256 of
its network stand in every model's configuration, and in its name where a server hands out no
configuration. Starts nothing.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from livesr.base import contained
from livesr.base.documents import to_json
from livesr.base.errors import BackendError, ConfigError
from livesr.base.version import __version__
from livesr.live.inference.engine import FEATURES_OUTPUT, Engine, Manifest
from livesr.live.inference.kserve import TOKEN, TOKEN_HEADER, name_that_says_it

Wire = Literal["f32", "f16"]
By = Literal["onnxruntime", "python"]

MODELS, COMPOSE, COMMAND, SERVED = "models", "compose.yaml", "start.sh", "served.json"
OVMS = "openvino.json"

IMAGE = "nvcr.io/nvidia/tritonserver:25.06-py3"
OVMS_IMAGE = "openvino/model_server:latest"

_PROTOCOLS = (
    "health,metadata,inference,shared-memory,model-config,model-repository,statistics,trace,logging"
)
_CONFIG = """# Written by livesr {livesr}. Clients compare sha256 and version with their engine.
name: "{name}"
{by}
max_batch_size: 0
input [ {{ name: "{input}" data_type: {type} dims: [ 1, {window}, {size} ] }} ]
output [ {{ name: "{output}" data_type: {type} dims: [ 1, {channels}, {made} ] }}{features} ]
instance_group [ {{ count: 1 kind: {kind} }} ]
{parameters}"""
_FEATURES = """,
  {{ name: "{name}" data_type: TYPE_FP32 dims: [ 1, {n}, 1, 1 ] }}"""
_COMPOSE = """# Written by livesr {livesr}. Start it here with: docker compose up
services:
  triton:
    image: ${{TRITON_IMAGE:-{image}}}
    ports: ["{host}:{port}:8001"]
    volumes: {volumes}
    command: {command}
    restart: unless-stopped
    deploy: # leave it out where there is no GPU
      resources: {{reservations: {{devices: [{{capabilities: [gpu]}}]}}}}
"""
_OVMS_SERVICE = """  openvino: # OpenVINO Model Server instead: docker compose up openvino
    profiles: [openvino]
    image: ${{OVMS_IMAGE:-{image}}}
    ports: ["{host}:{port}:8001"]
    volumes: ["./models:/models:ro", "./{config}:/{config}:ro"]
    command: ["--config_path", "/{config}", "--port", "8001"]
    restart: unless-stopped
"""
_START = """#!/bin/sh
# Written by livesr {livesr}. Starts the tritonserver that is installed here.
cd "$(dirname "$0")" || exit 1
exec tritonserver {arguments}
"""


@dataclass(frozen=True, slots=True)
class ServedPlan:
    """A plan of TensorRT, which Triton runs instead of the ONNX file.

    Attributes
    ----------
    data : as TensorRT wrote it
    shape : (y, x) of the only frames that it takes, padded
    precision : that it computes in
    built_by : "tensorrt 10.13.3.9"; a Triton with another version refuses it
    device : the card that it was built on, "NVIDIA H200, sm_90"
    """

    data: bytes
    shape: tuple[int, int]
    precision: str
    built_by: str
    device: str


@dataclass(frozen=True, slots=True)
class Door:
    """Where a server listens, and whom it lets in.

    Attributes
    ----------
    host, port : of gRPC; nothing else is opened
    certificate, key : PEM files, both or none; with them the way is encrypted
    token : what clients must know; None lets everybody in who reaches the port
    insecure : whether other computers may reach it without certificate and token
    """

    host: str = "127.0.0.1"
    port: int = 8001
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Refuse a door that is open wider than was said.

        Raises
        ------
        ConfigError
            If other computers reach it unencrypted or without a token, or a file is missing.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("A certificate and its key go together: give --cert and --key.")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise ConfigError(f"{path} is not there; expected a PEM file.")
        if self.token is not None and not _plain(self.token):
            raise ConfigError(
                f"{TOKEN} holds other signs than letters, digits, - and _, which Triton cannot be"
                " told; take 20 of them or more."
            )
        closed = self.certificate is not None and self.token is not None
        if self.host not in ("127.0.0.1", "::1", "localhost") and not (closed or self.insecure):
            raise ConfigError(
                f"On {self.host} other computers can reach the server: give --cert and --key, and"
                f" set {TOKEN}; or say --insecure in a network that you trust."
            )

    def arguments(self, files: tuple[str, str] | None, token: str | None) -> list[str]:
        """Return what tritonserver is told.

        Parameters
        ----------
        files : certificate and key as the server sees them
        token : as it shall stand there; it is seen by whoever lists the server's processes
        """
        told = ["--allow-http=false", "--allow-metrics=false", "--disable-auto-complete-config"]
        if files:
            told += ["--grpc-use-ssl=true", f"--grpc-server-cert={files[0]}"]
            told += [f"--grpc-server-key={files[1]}"]
        if token:
            told += [f"--grpc-restricted-protocol={_PROTOCOLS}:{TOKEN_HEADER}={token}"]
        return told

    def here(self, models: Path) -> list[str]:
        """Return what a tritonserver of this computer is told that serves `models`."""
        files = (str(self.certificate), str(self.key)) if self.certificate else None
        return [
            f"--model-repository={models}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.port}",
            *self.arguments(files, self.token),
        ]


def write_repository(
    engines: Sequence[Engine],
    to: Path,
    door: Door,
    *,
    wire: Wire = "f32",
    by: By = "onnxruntime",
    plans: Mapping[str, ServedPlan] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Write what a server needs: the models, the command and the compose file that start it.

    Parameters
    ----------
    engines : each becomes a model of its id; frames of any size, no batches
    to : folder, made if need be; models that are there already stay unless they have such an id
    door : where the server listens
    wire : pixels on the way: f32, or f16 for half of the bytes
    by : Triton's backend: onnxruntime, or python for servers that have only that
    plans : by an engine's id; those take frames of one size, in f32

    Returns
    -------
    What was written of each, as in served.json.

    Raises
    ------
    EngineError
        If a network is damaged.
    BackendError
        If f16 is asked for and cannot be had.
    ConfigError
        If two engines have the same id, or a folder cannot be written.
    """
    if len({e.manifest.id for e in engines}) < len(engines):
        raise ConfigError("Two of the engines have the same id; a server can serve one of them.")
    try:
        to.mkdir(parents=True, exist_ok=True)
        served = [
            _write_model(engine, to, wire, by, plans.get(engine.manifest.id)) for engine in engines
        ]
        for_openvino = [engine for engine in engines if engine.manifest.id not in plans]
        contained.replace_text(to, OVMS, _for_openvino(for_openvino), error=ConfigError)
        contained.replace_text(to, SERVED, to_json(served, indent=2) + "\n", error=ConfigError)
        contained.replace_text(to, COMPOSE, _compose(door, ovms=not plans), error=ConfigError)
        contained.replace_text(to, COMMAND, _start(door), error=ConfigError)
        (to / COMMAND).chmod(0o755)
    except OSError as e:
        raise ConfigError(f"{to} cannot be written: {e}.") from e
    return served


def _write_model(
    engine: Engine, to: Path, wire: Wire, by: By, plan: ServedPlan | None
) -> dict[str, Any]:
    """Write one model; the configuration last, without which a server takes none."""
    manifest, network = engine.manifest, engine.read()
    if wire == "f16" and manifest.normalisation == "none":
        raise BackendError(
            f"Engine {manifest.id!r} takes ADU, which f16 does not hold: use --wire f32."
        )
    if wire == "f16" and plan:
        raise BackendError("A plan takes its pixels in f32: leave out --wire f16, or --plan.")
    ends, scale = _ends(network), manifest.scale
    if plan:
        file, network = "model.plan", plan.data
    else:
        file = "model.onnx"
        if wire == "f16" and by == "onnxruntime":
            network = _with_halves(network)
    said = {
        "sha256": manifest.sha256,
        "version": str(manifest.version),
        "file_sha256": hashlib.sha256(network).hexdigest(),
        "precision": plan.precision if plan else "f32",
        "livesr": __version__,
        **({"plan": f"{plan.built_by}, {plan.device}"} if plan else {}),
    }
    config = _CONFIG.format(
        livesr=__version__,
        name=manifest.id,
        by='platform: "tensorrt_plan"' if plan else f'backend: "{by}"',
        size="{}, {}".format(*plan.shape) if plan else "-1, -1",
        made="{}, {}".format(*(scale * n for n in plan.shape)) if plan else "-1, -1",
        type={"f32": "TYPE_FP32", "f16": "TYPE_FP16"}[wire],
        kind="KIND_GPU" if plan else "KIND_CPU" if by == "python" else "KIND_AUTO",
        input=_quoted(ends[0]),
        output=_quoted(ends[1]),
        window=manifest.inputs,
        channels=len(manifest.channels),
        features=_features(manifest),
        parameters="".join(
            f'parameters {{ key: "{k}" value {{ string_value: "{_quoted(v)}" }} }}\n'
            for k, v in said.items()
        ),
    )
    place = f"{MODELS}/{manifest.id}"
    (to / place / "1").mkdir(parents=True, exist_ok=True)
    contained.replace_bytes(to, f"{place}/1/{file}", network, error=ConfigError)
    for other in {"model.onnx", "model.plan", "model.py"} - {file}:  # of what was there before
        contained.beneath_to_write(to, f"{place}/1/{other}", error=ConfigError).unlink(
            missing_ok=True
        )
    if by == "python" and not plan:
        code = files("livesr.export").joinpath("triton_model.py").read_text(encoding="utf-8")
        contained.replace_text(to, f"{place}/1/model.py", code, error=ConfigError)
    contained.replace_text(to, f"{place}/config.pbtxt", config, error=ConfigError)
    return {"id": manifest.id, "wire": wire, "by": "tensorrt" if plan else by, **said}


def _features(manifest: Manifest) -> str:
    """Return the second output as the configuration has it, "" without one."""
    n = manifest.weights.features
    return _FEATURES.format(name=FEATURES_OUTPUT, n=n) if n else ""


def _ends(network: bytes) -> tuple[str, str]:
    """Return the names of a network's input and output."""
    import openvino

    model = openvino.Core().read_model(network)
    return str(model.inputs[0].any_name), str(model.outputs[0].any_name)


def _with_halves(network: bytes) -> bytes:
    """Return a network that takes and returns FP16, and computes as before in between."""
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as e:
        raise BackendError("Pixels in f16 need onnx to write: pip install onnx.") from e
    model = onnx.load_from_string(network)
    graph, inner = model.graph, "livesr_f32_"
    taken, given = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name in (taken, given):
                    names[i] = inner + name
    first = helper.make_node("Cast", [taken], [inner + taken], to=TensorProto.FLOAT)
    graph.node.insert(0, first)
    graph.node.append(helper.make_node("Cast", [inner + given], [given], to=TensorProto.FLOAT16))
    for end in (graph.input[0], graph.output[0]):
        end.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _for_openvino(engines: Sequence[Engine]) -> str:
    """Return the configuration of OpenVINO Model Server, which takes the same folders."""
    models = [
        {
            "config": {
                "name": name_that_says_it(engine.manifest),
                "base_path": f"/{MODELS}/{engine.manifest.id}",
            }
        }
        for engine in engines
    ]
    return to_json({"model_config_list": models}, indent=2) + "\n"


def _compose(door: Door, *, ovms: bool) -> str:
    told = ["tritonserver", "--model-repository=/models", "--grpc-port=8001"]
    volumes = [f"./{MODELS}:/models:ro"]
    files = None
    if door.certificate and door.key:
        files = ("/tls/cert.pem", "/tls/key.pem")
        volumes += [f"{door.certificate.resolve()}:{files[0]}:ro"]
        volumes += [f"{door.key.resolve()}:{files[1]}:ro"]
    token = f"${{{TOKEN}:?}}" if door.token else None
    at = {"host": f"[{door.host}]" if ":" in door.host else door.host, "port": door.port}
    text = _COMPOSE.format(
        livesr=__version__,
        image=IMAGE,
        volumes=json.dumps(volumes),
        command=json.dumps([*told, *door.arguments(files, token)]),
        **at,
    )
    if files or token or not ovms:  # which it can neither encrypt with nor ask for; nor runs plans
        return text
    return text + _OVMS_SERVICE.format(image=OVMS_IMAGE, config=OVMS, **at)


def _start(door: Door) -> str:
    files = None
    if door.certificate and door.key:
        files = (str(door.certificate.resolve()), str(door.key.resolve()))
    told = [
        f"--model-repository={MODELS}",
        f"--grpc-address={door.host}",
        f"--grpc-port={door.port}",
        *door.arguments(files, None),
    ]
    arguments = " ".join(shlex.quote(argument) for argument in told)
    if door.token:  # not the token itself: it comes from the environment
        protected = f"--grpc-restricted-protocol={_PROTOCOLS}:{TOKEN_HEADER}"
        arguments += f' "{protected}=${{{TOKEN}:?}}"'
    return _START.format(livesr=__version__, arguments=arguments)


def _plain(token: str) -> bool:
    return token.isascii() and token.replace("-", "").replace("_", "").isalnum()


def _quoted(text: str) -> str:
    """Return a text as a protocol buffer in text form has it between quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
