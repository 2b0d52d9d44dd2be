"""What cannot work is refused before what takes time: a camera, an engine, a measurement."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
import zmq

from livesr import LiveSR, Replay
from livesr.base.errors import BindError, EngineError, StoreError, UsageError
from livesr.cli import _run, app, options
from rigs import core_of

REPOSITORY = Path(__file__).parents[2]
RIGS = REPOSITORY / "hardware_configs"

_READ = {
    "new cfg",
    "characterise dark",
    "characterise flat",
    "characterise light",
    "calibrate-limits stores",
    "run keys",
    "run plan",
    "run replay",
    "view keys",
    "gui keys",
    "listen keys",
    "process sources",
    "backfill store",
    "backfill engine",
    "backfill upscale",
    "repair store",
    "export source",
    "export data",
    "export images",
    "train teacher",
    "limits pairs",
    "quantise pairs",
    "serve cert",
    "serve key",
    "bench compare",
    "engine import model",
}
_LATER = {
    "check picture",  # only with --hardware
    "run spare_disk",  # by the sink that writes there, as the store
    "run store",
    "demo store",
    "run pairs",
}


def _paths(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for sub, inner in getattr(command, "commands", {}).items():
        yield from _paths(inner, (*name, sub))
    for parameter in command.params if name else ():
        described = str(getattr(parameter, "type_descriptor", ""))
        if "Path" in described:
            yield f"{' '.join(name)} {parameter.name}", parameter


def test_every_path_of_the_command_line_is_read_or_looked_at_first() -> None:
    written = {
        name
        for name, parameter in _paths(typer.main.get_command(app))
        if name not in _READ | _LATER and not _looks_first(parameter)
    }
    assert not written, "options.to_fill, to_write or to_make for what is written, or add it here"
    known = {name for name, _ in _paths(typer.main.get_command(app))}
    assert known >= _LATER
    assert len(known & _READ) > 20


def _looks_first(parameter: Any) -> bool:
    callback = parameter.callback
    named = getattr(callback, "__wrapped__", callback)
    return named in (options.to_fill, options.to_write, options.to_make)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file where a folder would have to be: nobody can write below it, not even root."""
    path = tmp_path / "file"
    path.write_text("", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "imcsr-mt-er-lyso-light", "--out", "{}"],
        ["train", "--out", "{}"],
        ["train", "--data", "{}"],
        ["bench", "hook", "--out", "{}"],
        ["bench", "hook", "--markdown", "{}"],
        ["bench", "hook", "--png", "{}"],
        ["check", "virtual_sim", "--hardware", "--picture", "{}"],
        ["calibrate", "virtual_sim", "--dry-run", "--picture", "{}"],
        ["characterise", "demo", "--acquire", "5", "--yes", "--picture", "{}"],
        ["demo", "--frames", "3", "--picture", "{}"],
        ["demo", "--frames", "3", "--store", "{}"],
        ["run", "virtual_sim", "--store", "{}"],
        ["run", "virtual_sim", "--pairs", "{}"],
        ["run", "virtual_sim", "--store", "run.ome.zarr", "--spare-disk", "{}"],
        ["process", "raw.tif", "--store", "{}"],
        ["export", "run.ome.zarr", "--out", "{}"],
        ["export", "run.ome.zarr", "--movie", "{}.mp4"],
        ["listen", "--save", "{}"],
        ["build", "identity", "--to", "{}"],
        ["serve", "identity", "--to", "{}"],
        ["engine", "export-rdf", "identity", "--out", "{}"],
        ["engine", "import", "net.onnx", "--out", "{}"],
        ["keys", "{}"],
        ["new", "{}"],
    ],
)
def test_a_place_that_takes_no_files_is_refused(
    command: list[str],
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(file.parent)
    place = file / "there" / "it"
    assert _run([part.format(place) for part in command]) == 2
    out = capsys.readouterr()
    said = " ".join(out.err.split())
    assert "file" in said
    assert "Choose a" in said
    assert "Not a directory" in said or "No such file" in said  # as Windows says
    assert not out.out
    assert list(file.parent.iterdir()) == [file]


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that another program has."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.bind("tcp://127.0.0.1:*")
        yield socket.getsockopt_string(zmq.LAST_ENDPOINT)


@pytest.mark.parametrize("option", ["--publish", "--publish-raw"])
def test_an_address_in_use_is_said_before_a_device_is_loaded(
    option: str, taken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = shutil.copytree(RIGS / "virtual_sim", tmp_path / "rig")
    cfg = (rig / "rig.cfg").read_text(encoding="utf-8")
    (rig / "rig.cfg").write_text(cfg.replace("DemoCamera,DHub", "NoSuch,Hub"), encoding="utf-8")
    assert _run(["run", str(rig), "--frames", "3"]) == 2
    assert "NoSuch" in capsys.readouterr().err  # what is said of a device, when its turn comes
    assert _run(["run", str(rig), "--frames", "3", option, taken]) == 2
    said = capsys.readouterr().err
    assert "is already in use" in " ".join(said.split())
    assert "NoSuch" not in said


@pytest.fixture
def no_network(tmp_path: Path) -> str:
    """An engine whose network no runtime opens."""
    folder = shutil.copytree(REPOSITORY / "engines" / "identity", tmp_path / "broken")
    before = (folder / "model.onnx").read_bytes()
    damaged = b"\x08\x08" + bytes(64)
    (folder / "model.onnx").write_bytes(damaged)
    manifest = (folder / "manifest.yaml").read_text(encoding="utf-8")
    was, now = (hashlib.sha256(data).hexdigest() for data in (before, damaged))
    assert was in manifest
    (folder / "manifest.yaml").write_text(manifest.replace(was, now), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("asked", ["publish", "publish_raw", "store", "spare"])
def test_what_cannot_work_is_said_before_an_engine_is_opened(
    asked: str, taken: str, file: Path, no_network: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "publish": {"publish": taken},
        "publish_raw": {"publish_raw": taken},
        "store": {"store": file / "run.ome.zarr"},
        "spare": {"store": tmp_path / "run.ome.zarr", "spare": file / "spare"},
    }[asked]
    kind: type[UsageError] = BindError if "publish" in asked else StoreError
    raw = tmp_path / "raw.tif"
    tifffile.imwrite(raw, np.ones((9, 64, 64), np.uint16))
    with core_of("virtual_sim", SensorSize=64, TimePoints=1) as core:
        with pytest.raises(EngineError), LiveSR(core, rig="virtual_sim", engine=no_network):
            pass
        with (
            pytest.raises(kind),
            LiveSR(core, rig="virtual_sim", engine=no_network, **settings),
        ):
            pass
    with pytest.raises(kind), Replay(raw, rig="virtual_sim", engine=no_network, **settings):
        pass
    assert not (tmp_path / "run.ome.zarr").exists()


def test_what_the_system_refuses_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rdf.yaml").mkdir()  # where a file is to be
    assert _run(["engine", "export-rdf", "identity", "--out", str(tmp_path)]) == 1
    said = "".join(capsys.readouterr().err.split())
    assert f"{tmp_path / 'rdf.yaml'}:" in said
    assert "mayyoureadandwritethere" in said
    assert "Traceback" not in said
