"""The command line as a user meets it.

In its own process, with exit codes, JSON on stdout and one clear sentence on error.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
import zarr
from rich.console import Console

from livesr import cli
from livesr.base.config import load_rig
from livesr.base.errors import ConfigError
from livesr.base.version import __version__
from livesr.cli import session
from livesr.cli.experiment import Experiment
from livesr.cli.output import run_table
from livesr.live.inference.engine import load_engine
from waiting import until

REPOSITORY = Path(__file__).parents[2]
SMALL = ["--size", "64", "--frames", "5", "--engine", "identity", "--exposure", "2"]
COMMANDS = [
    "demo",
    "run",
    "view",
    "process",
    "backfill",
    "repair",
    "listen",
    "keys",
    "info",
    "calibrate",
    "characterise",
    "check",
    "train",
    "export",
    "build",
    "engine",
    "quantise",
    "serve",
    "bench",
]


def start(arguments: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "livesr", *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def livesr(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    process = start(arguments, cwd)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def small_rig(tmp_path: Path) -> str:
    """The virtual SIM rig with a small field: to simulate the large one takes seconds."""
    folder = tmp_path / "small"
    shutil.copytree(REPOSITORY / "hardware_configs" / "virtual_sim", folder)
    cfg = (folder / "rig.cfg").read_text(encoding="utf-8")
    for line, smaller in (("SensorSize,256", "SensorSize,64"), ("TimePoints,40", "TimePoints,3")):
        assert line in cfg
        cfg = cfg.replace(line, smaller)
    (folder / "rig.cfg").write_text(cfg, encoding="utf-8")
    return str(folder)


def as_json(*arguments: str, cwd: Path) -> tuple[int, dict[str, Any]]:
    code, out, err = livesr(*arguments, "--json", cwd=cwd)
    assert out.count("\n") == 1, f"--json must print one object and nothing else: {out!r} {err!r}"
    return code, json.loads(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._run([command, "--help"]) == 0
    assert f"livesr {command}" in capsys.readouterr().out


def test_demo_reports_stores_and_scores(tmp_path: Path) -> None:
    code, report = as_json("demo", *SMALL, "--policy", "complete", cwd=tmp_path)
    assert code == 0
    wanted = {
        "raw_frames",
        "raw_lost",
        "sr_frames",
        "sr_skipped",
        "sr_fps",
        "groups_dropped",
        "tc_complete",
        "latency_ms",
        "steps_ms",
        "engine",
        "backend",
        "store",
        "publish",
        "warnings",
        "score",
    }
    assert wanted <= report.keys()
    assert (report["raw_frames"], report["sr_frames"], report["raw_lost"]) == (45, 5, 0)
    assert zarr.open_group(report["store"], mode="r")["sr/0"].shape == (5, 3, 128, 128)
    assert {p.name for p in (Path(report["store"]) / "livesr").iterdir()} >= {
        "frames.jsonl", "report.json", "rig.yaml", "rig.cfg", "manifest-identity.yaml",
    }  # fmt: skip


def test_demo_speaks_to_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli._run(["demo", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "45 received, 0 lost" in out
    assert "livesr view" in " ".join(out.split()[-4:])


def test_a_stream_leaves_the_computer_with_keys_only(tmp_path: Path, small_rig: str) -> None:
    code, made = as_json("keys", "rig-keys", "--viewer", "office", cwd=tmp_path)
    assert (code, made["viewers"]) == (0, ["rig-keys/office"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    publish = ["--publish", f"tcp://0.0.0.0:{port}"]
    code, _, err = livesr("run", "demo", *publish, "--frames", "3", cwd=tmp_path)
    assert code == 2
    assert "--keys" in err
    running = start(
        ["run", small_rig, *publish, "--keys", "rig-keys", "--engine", "identity"], tmp_path
    )
    try:
        listen = ["listen", f"tcp://127.0.0.1:{port}", "--frames", "2", "--timeout"]
        code, heard = as_json(*listen, "60", "--keys", "rig-keys/office", cwd=tmp_path)
        assert (code, heard["frames"]) == (0, 2)
        code, heard = as_json(*listen, "1", cwd=tmp_path)
        assert (code, heard["frames"]) == (1, 0)
    finally:
        running.terminate()
        running.communicate(timeout=120)


def test_a_store_that_exists_gets_the_next_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ome.zarr").mkdir()
    assert cli._run(["demo", *SMALL, "--store", "x.ome.zarr", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert Path(report["store"]).name == "x_2.ome.zarr"
    assert not list((tmp_path / "x.ome.zarr").iterdir())


def test_run_on_the_demo_camera(tmp_path: Path) -> None:
    """The whole way: camera, separated frames, store, stream.

    And that nothing of it is a specimen is said everywhere.
    """
    folder = str(REPOSITORY / "hardware_configs" / "demo")
    address = "tcp://127.0.0.1:*"
    code, report = as_json(
        "run",
        folder,
        "--frames",
        "4",
        "--policy",
        "complete",
        "--store",
        "d.ome.zarr",
        "--publish",
        address,
        cwd=tmp_path,
    )
    assert code == 0
    assert report["raw_frames"] == 8  # two channels
    assert report["sr_frames"] == 4
    assert report["engine"] == {"488": "imcsr-mt-er-lyso-light"}
    assert report["publish"].startswith("tcp://127.0.0.1:")
    (said,) = (w for w in report["warnings"] if "Micro-Manager's demo camera" in w)
    store = tmp_path / "d.ome.zarr"
    assert {p.name for p in store.glob("raw*")} == {"raw_0_488", "raw_0_561"}
    about = json.loads((store / "sr_0_488" / "zarr.json").read_text(encoding="utf-8"))[
        "attributes"
    ]["livesr"]
    assert said in about["warnings"]
    lines = [
        json.loads(line)
        for line in (store / "livesr" / "frames.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    separated = [line for line in lines if line["state"] == "separated"]
    assert len(separated) == 4
    assert all(said in line["warnings"] for line in separated)


@pytest.mark.parametrize(
    "flags", [("--channels", "561", "--engine", "identity"), ("--engine", "561=identity")]
)
def test_an_engine_for_one_of_several_channels(
    tmp_path: Path,
    flags: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli._run(["run", "demo", "--frames", "2", "--policy", "complete", *flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engine"]["561"] == "identity"
    assert set(report["engine"]) == ({"561"} if "--channels" in flags else {"488", "561"})


def test_listen_receives_what_demo_publishes(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    listener = start(
        ["listen", endpoint, "--frames", "2", "--timeout", "60", "--save", "frames", "--json"],
        tmp_path,
    )
    code, _ = as_json(
        "demo",
        "--size",
        "64",
        "--frames",
        "60",
        "--engine",
        "identity",
        "--publish",
        endpoint,
        cwd=tmp_path,
    )
    out, err = listener.communicate(timeout=120)
    assert (code, listener.returncode) == (0, 0), err
    assert json.loads(out)["frames"] == 2
    assert len(list((tmp_path / "frames").glob("*.ome.tif"))) == 2


def test_info_lists_engines_backends_and_rigs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, facts = as_json("info", cwd=tmp_path)
    assert code == 0
    ids = [e["id"] for e in facts["engines"]]
    assert "identity" in ids
    assert cli._run(["info"]) == 0
    shown = capsys.readouterr().out
    assert not [name for name in ids if name not in shown]  # what is typed is not cut
    assert Path(facts["plans"]).name == "plans"
    assert (facts["device"] == "CPU") == bool(facts["no_gpu"])
    assert {"openvino", "torch"} <= {b["name"] for b in facts["backends"]}
    ready = [b for b in facts["backends"] if not b["unavailable"]]
    taken = facts["auto"]
    assert taken["backend"] in {b["name"] for b in ready}
    assert re.match(rf"{taken['backend']} \d+\.\d+ (FP32|BF16|FP16) on ", taken["computes"])
    left = [b for b in facts["backends"][: len(taken["skipped"])] if b["unavailable"]]
    assert taken["skipped"] == [f"{b['name']}: {b['unavailable']}" for b in left]
    assert all("f32" in b["precisions"] and b["devices"] for b in ready)
    assert {b["name"] for b in ready if b["remote"]} <= {"kserve"}
    assert [r["name"] for r in facts["rigs"]] == [
        "demo",
        "storm_ti",
        "tirf_sim",
        "virtual_audit",
        "virtual_dyes",
        "virtual_fluctuation",
        "virtual_sim",
        "virtual_sim_3",
        "virtual_storm",
        "virtual_storm_3d",
    ]


@pytest.mark.parametrize(
    ("measured_with", "said"),
    [(None, "do not say which network"), ("0" * 64, "were measured with another network")],
)
def test_info_says_what_of_an_engine_was_measured_with_no_known_network(
    tmp_path: Path, measured_with: str | None, said: str
) -> None:
    folder = tmp_path / "engines" / "mine"
    shutil.copytree(load_engine("imcsr-mt-mito").folder, folder)
    about = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    for part in ("limits", "metrics"):
        about[part]["measured_with"] = measured_with
    (folder / "manifest.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    code, facts = as_json("info", cwd=tmp_path)
    assert code == 0
    notes = {engine["id"]: engine["note"] for engine in facts["engines"]}
    assert notes["mine"].count(said) == 2
    assert "livesr limits" in notes["mine"]
    assert notes["imcsr-mt-mito"] == ""


def taken_port() -> tuple[socket.socket, str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener, f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_bad_input_is_one_clear_sentence_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    listener, address = taken_port()
    typo = tmp_path / "typo"
    shutil.copytree(REPOSITORY / "hardware_configs" / "virtual_sim", typo)
    rig = yaml.safe_load((typo / "rig.yaml").read_text(encoding="utf-8"))
    (typo / "rig.yaml").write_text(
        yaml.safe_dump({**rig, "optiks": rig["optics"]}), encoding="utf-8"
    )
    forged = tmp_path / "forged"
    shutil.copytree(REPOSITORY / "engines" / "identity", forged)
    with (forged / "model.onnx").open("ab") as model:
        model.write(b"\0")
    unmapped = tmp_path / "unmapped"
    shutil.copytree(REPOSITORY / "hardware_configs" / "demo", unmapped)
    with (unmapped / "rig.yaml").open("a", encoding="utf-8") as file:
        file.write("corrections: {offset: offset.tif}\n")
    (unmapped / "offset.tif").write_bytes(b"no TIFF")
    (tmp_path / "a-file").touch()
    cases = {
        ("run", str(unmapped)): "corrections.offset: cannot read",
        ("run", "virtual_sim", "--engine", "identiti"): "Did you mean 'identity'?",
        ("run", str(typo)): "unknown key 'optiks'. Did you mean 'optics'?",
        ("run", "demo", "--publish", address): address,
        ("run", "virtual_sim", "--engine", str(forged)): "SHA-256",
        ("run", "demo", "--store", str(tmp_path / "a-file" / "x.ome.zarr")): "a-file",
        (
            "run",
            "virtual_sim",
            "--engine",
            "identity",
            "--backend",
            "openvina",
        ): "Did you mean 'openvino'?",
        ("run", "virtual_sim", "--frames", "0"): "frames",
        ("view", "nothing.ome.zarr"): "nothing.ome.zarr",
        ("process", "nothing.tif"): "There is no nothing.tif",
        ("process", "typo/rig.yaml"): "Cannot read typo/rig.yaml as TIFF",
        ("backfill", "nothing.ome.zarr"): "There is no store nothing.ome.zarr",
        ("repair", "nothing.ome.zarr"): "nothing.ome.zarr: expected an OME-Zarr folder",
        ("view", "tcp:/x"): "tcp:/x",
        ("train", "--recipe", "imcsr-mt-er-lyso-ligt"): "Did you mean 'imcsr-mt-er-lyso-light'?",
        ("export", "nothing", "--out", "e"): "livesr train makes one",
        ("demonstrate",): "demonstrate",
    }
    for arguments, words in cases.items():
        code = cli._run(list(arguments))
        sentence = " ".join(capsys.readouterr().err.split())
        assert code == 2, (arguments, sentence)
        assert words in sentence, (arguments, sentence)
        assert len(sentence) < 600, (arguments, sentence)
    listener.close()
    assert not list(tmp_path.glob("*.ome.zarr"))


def test_an_error_is_json_too(tmp_path: Path) -> None:
    code, error = as_json("run", "nowhere", cwd=tmp_path)
    assert code == error["exit_code"] == 2
    assert "nowhere" in error["error"]


def test_an_interrupted_start_is_json_too_and_calls_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(request: session.Request) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "load_core", interrupted)
    note = tmp_path / "it's over"
    command = shlex.join([sys.executable, "-c", f"open({str(note)!r}, 'w').write('{{exit_code}}')"])
    assert cli._run(["run", "demo", "--json", "--on-finish", command]) == 130
    assert json.loads(capfd.readouterr().out)["exit_code"] == 130
    assert note.read_text() == "130"


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run(["--version"]) == 0
    assert capsys.readouterr().out == f"livesr {__version__}\n"


def test_keys_that_encrypt_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._run(["run", "demo", "--keys", str(tmp_path), "--json"]) == 2
    assert "add publish" in json.loads(capsys.readouterr().out)["error"]


def test_a_device_that_does_not_start_is_named() -> None:
    request = session.Request(
        rig=load_rig("virtual_sim"), experiment=Experiment(), properties={"Seed": "-1"}
    )
    with pytest.raises(ConfigError, match="Camera could not be started"):
        session.load_core(request)


def test_the_table_has_no_number_for_what_was_not_made() -> None:
    none, some = {"p50": None, "p99": None}, {"p50": 8.0, "p99": 9.0}
    report = {
        "raw_frames": 9,
        "raw_lost": 0,
        "recon_frames": 1,
        "groups_dropped": 0,
        "sr_frames": 0,
        "sr_skipped": 0,
    }
    report |= {
        "sr_fps": 0.0,
        "tc_complete": 1.0,
        "latency_ms": none,
        "steps_ms": {},
        "warnings": [],
        "sr_provisional": 0,
    }

    def shown(**more: Any) -> str:
        out = Console(file=io.StringIO(), width=120)
        out.print(run_table({**report, **more}))
        return out.file.getvalue()

    measured = shown(engine={}, backend={})
    assert "1 measured" in measured
    assert not {"latency", "neighbours", "separated"} & set(measured.split())
    assert "latency" not in shown(engine={"488": "e"}, backend={"488": "torch"})
    assert "latency" in shown(
        engine={"488": "e"}, backend={"488": "torch"}, sr_frames=1, latency_ms=some
    )


def test_a_memory_limit_ends_in_a_sentence(tmp_path: Path) -> None:
    script = """
import sys
import livesr.base.config
from livesr.cli import main

def load_rig(name):
    raise MemoryError("Unable to allocate 1.00 GiB")

livesr.base.config.load_rig = load_rig
sys.argv = ["livesr", "run", "virtual_sim"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert said.startswith(
        "livesr: The memory does not suffice (Unable to allocate 1.00 GiB): raise the limit"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("ending", [("SIGINT",), ("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGHUP")])
def test_a_signal_ends_a_run_cleanly_and_a_second_too(
    tmp_path: Path, small_rig: str, ending: tuple[str, ...]
) -> None:
    process = start(
        [
            "run",
            small_rig,
            "--engine",
            "identity",
            "--frames",
            "2000",
            "--store",
            "c.ome.zarr",
            "--json",
            "--progress",
        ],
        tmp_path,
    )
    log = tmp_path / "c.ome.zarr" / "livesr" / "frames.jsonl"
    until(lambda: log.is_file() and log.stat().st_size, 200)
    for n, each in enumerate(ending):
        time.sleep(0.05 * n)  # while the first is answered: with this rig, for 0.15 s
        process.send_signal(getattr(signal, each))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "pymmcore-plus" not in err, "a cancelled acquisition is told by the report"
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines, "progress comes at least once"
    assert {line["progress"] for line in lines} == {"SR frames"}
    assert {line["total"] for line in lines} == {2000}
    report = json.loads(out)
    assert report["interrupted"]
    stored = zarr.open_group(tmp_path / "c.ome.zarr", mode="r")["raw/0"]
    assert 0 < stored.shape[0] < 2000
    assert report["raw_lost"] == 0
