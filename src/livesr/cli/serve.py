"""`livesr serve ENGINE...`: engines for a server on another computer."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from livesr.base.errors import BackendError
from livesr.cli import options
from livesr.cli.output import JSON, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.export.serving import Door, ServedPlan
    from livesr.export.triton_server import Triton
    from livesr.live.inference.engine import Engine

_STOP_S = 30.0


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(serve)


def serve(
    engines: Annotated[
        list[str], typer.Argument(metavar="ENGINE...", help="Engines: names or folders.")
    ],
    to: Annotated[
        Path, typer.Option(callback=options.to_fill, help="Folder to write; made if need be.")
    ],
    wire: Annotated[
        Literal["f32", "f16"],
        typer.Option(help="Pixels on the way: f32, or f16 for half of the bytes."),
    ] = "f32",
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="YxX",
            help="Serve a plan of TensorRT for the GPU of this computer, which takes frames of"
            " this size only, such as 1024x1024; built if need be.",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the plan: auto (f16), f32, f16, int8, or f8.")
    ] = "auto",
    start: Annotated[
        bool,
        typer.Option("--start", help="Start the tritonserver that is installed, until Ctrl-C."),
    ] = False,
    tritonserver: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Server for --start: its file, or a Python that has nvidia-pytriton.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address that the server listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of gRPC.")] = 8001,
    cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), for grpcs://.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Let other computers in without encryption, or without a token."
        ),
    ] = False,
    as_json: JSON = False,
) -> None:
    """Write a model repository of NVIDIA Triton, and the command and compose file that start it.

    With LIVESR_ENDPOINT_TOKEN set, the server lets in only who has that token.

    [dim]Example:[/] livesr serve imcsr-mt-er-lyso-light --to served
    """
    from livesr.base.errors import ConfigError
    from livesr.export.serving import Door, write_repository
    from livesr.export.triton_server import find_triton
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.kserve import TOKEN

    if precision != "auto" and not plan:
        raise ConfigError("--precision is that of a plan: add --plan, or leave it out.")
    if tritonserver and not start:
        raise ConfigError("--tritonserver is for --start: add it, or leave it out.")
    loaded = [load_engine(name) for name in engines]
    token = os.environ.get(TOKEN, "").strip() or None
    door = Door(host, port, cert, key, token, insecure)
    triton = find_triton(tritonserver) if start else None
    by = triton.by if triton else "onnxruntime"
    out = console(quiet=as_json)
    plans = {e.manifest.id: _plan(e, plan, precision, out) for e in loaded} if plan else {}
    served = write_repository(loaded, to, door, wire=wire, by=by, plans=plans)
    for model in served:
        out.print(
            f"{escape(model['id'])} {escape(model['version'])} ({model['sha256'][:12]}),"
            f" {model['wire']} on the wire"
        )
    for version in sorted({made.built_by for made in plans.values()}):
        out.print(
            f"The plan is of {version}: only a Triton with this very version, on a card like this"
            " one, takes it. Its release notes say which it has; name the image with TRITON_IMAGE."
        )
    scheme = "grpcs" if cert else "grpc"
    shown = {"0.0.0.0": "HOST", "::": "HOST"}.get(host, host)  # noqa: S104 compared with
    out.print(
        f"Written to {escape(str(to))}: start it there with ./start.sh or docker compose up, and"
        f" run with --backend kserve --endpoint {scheme}://{escape(shown)}:{port}."
    )
    if as_json:
        print_json({"to": str(to), "models": served, "endpoint": f"{scheme}://{shown}:{port}"})
    if triton:
        raise typer.Exit(_run(triton, to, door))


def _plan(engine: Engine, size: str, precision: str, out: Console) -> ServedPlan:
    """Return the plan of an engine for the GPU that is here.

    Raises
    ------
    BackendError
        If there is none, or no TensorRT.
    """
    from livesr.cli.build import compiled, precision_of, size_of
    from livesr.export.serving import ServedPlan
    from livesr.live.inference.plans import PlanCache
    from livesr.live.inference.tensorrt import Card, plan_key
    from livesr.live.inference.tensorrt_build import TENSORRT

    shape, chosen = size_of(size, "--plan"), precision_of(precision)
    _require_tensorrt()
    cache, card = PlanCache(), Card.here()
    compiled(engine, shape, chosen, TENSORRT, card, cache, False, out, False)
    key = plan_key(engine, shape, chosen, TENSORRT, card)
    if (data := cache.load(key)) is None:
        raise BackendError(f"The plan {cache.path(key)} cannot be read: look after the disk.")
    return ServedPlan(data, key.shape, chosen, key.runtime, key.device)


def _require_tensorrt() -> None:
    """Refuse where a plan that Triton takes cannot be built."""
    from livesr.live.inference.tensorrt import TensorRTRTXRuntime, TensorRTRuntime

    if (reason := TensorRTRuntime().unavailable()) is None:
        return
    other = TensorRTRTXRuntime().unavailable() is None
    raise BackendError(
        f"{reason.removesuffix('.')}."
        + (" TensorRT for RTX is here, whose plans Triton does not take." if other else "")
        + " Run this on the server, or leave out --plan: Triton compiles the ONNX file itself."
    )


def _run(triton: Triton, to: Path, door: Door) -> int:
    """Run the server until it ends, or Ctrl-C; return its exit code, or 130."""
    from livesr.export.serving import MODELS
    from livesr.export.triton_server import start as start_server

    with tempfile.TemporaryDirectory(prefix="livesr-serve-") as scratch:
        server = start_server(triton, door.here((to / MODELS).resolve()), Path(scratch))
        try:
            return server.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            if server.poll() is None:
                server.terminate()
                try:
                    server.wait(_STOP_S)
                except BaseException:
                    server.kill()
                    server.wait()
