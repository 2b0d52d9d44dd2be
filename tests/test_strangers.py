"""What a stranger's file, stream, page or name does to those who read it.

Refused or shown, and nothing else.
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livesr.base.array_limits import check_array, check_planes
from livesr.base.errors import ConfigError, StoreError
from livesr.cli import _log_to_stderr, _run
from livesr.cli.listen import _line
from livesr.cli.output import _Terminal, print_json
from livesr.formats.keys import PublisherKeys, ViewerKeys, make_keys
from livesr.formats.store import RecordedStore
from livesr.formats.wire import FRAME, STATUS, WireError, WireHeader, decode, encode
from livesr.live.inference.identity import identity_engine
from livesr.live.sources.recordings.recording import open_recording
from livesr.store.raw_input import _started_ns
from livesr.viewer import subscriber
from livesr.viewer.subscriber import Subscriber
from recordings import write_ome_zarr

# -- engines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "manifest",
    [
        "date: 2025-02-30",
        "a: &a [x, x]\n"
        + "\n".join(
            f"a{i}: &a{i} [{', '.join(['*a' if i == 0 else f'*a{i - 1}'] * 9)}]" for i in range(9)
        ),
        "[" * 100_000,
        "\0",
        "é".encode("latin-1"),
        "",
    ],
)
def test_one_bad_engine_hides_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    manifest: str | bytes,
) -> None:
    engines = tmp_path / "engines"
    identity_engine(engines / "good")
    (engines / "bad").mkdir()
    data = manifest if isinstance(manifest, bytes) else manifest.encode()
    (engines / "bad" / "manifest.yaml").write_bytes(data)
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    assert _run(["info", "--json"]) == 0
    found = {engine["id"]: engine for engine in json.loads(capsys.readouterr().out)["engines"]}
    assert "manifest.yaml" in found["bad"]["note"]
    assert len(found["bad"]["note"]) < 1000
    assert len(found) > 2
    assert not found["imcsr-mt-er-lyso-light"]["note"]


# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((10, 10**10, 64), (1, 64, 64), None),
        ((10, 10**6, 64), (1, 64, 64), None),
        ((10, 64, 64), (1, 100_000, 100_000), None),
        ((10, 64, 64), (1, 64), None),
        ((10, 64, 64), (0, 64, 64), None),
        ((-1, 64, 64), (1, 64, 64), None),
        ((10, 64.0, 64), (1, 64, 64), None),
        ((True, 64, 64), (1, 64, 64), None),
        (("10", 64, 64), (1, 64, 64), None),
        ((2**30, 64, 64), (1, 1, 1), (2**30, 64, 64)),
    ],
)
def test_arrays_that_promise_the_absurd_are_refused(shape: Any, chunk: Any, shard: Any) -> None:
    with pytest.raises(StoreError, match=r"x\.zarr"):
        check_array("x.zarr", shape, chunk, shard)


def test_arrays_of_people_are_taken() -> None:
    check_array("x", (100_000, 9, 2048, 2048), (1, 1, 2048, 2048), (16, 9, 2048, 2048))
    check_array("x", (0, 1, 512, 512), (1, 1, 512, 512))
    check_planes("x", 10**6, 16, 10**6 // 16)
    with pytest.raises(
        StoreError, match="promises 1,000,000,000 planes; its 10 files can hold 160"
    ):
        check_planes("x", 10**9, 16, 10)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_small_ome_zarr_that_promises_the_absurd_is_refused(tmp_path: Path, number: int) -> None:
    frames = np.random.default_rng(0).integers(0, 100, (4, 32, 32)).astype(np.uint16)
    write_ome_zarr(tmp_path / "x.ome.zarr", frames, "tyx")
    for file in (tmp_path / "x.ome.zarr").rglob("zarr.json"):
        about = json.loads(file.read_text(encoding="utf-8"))
        if about["node_type"] == "array":
            about["shape"][number] = 10**9
            file.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"planes|pixels a side"):
        open_recording(tmp_path / "x.ome.zarr")


# -- stores ----------------------------------------------------------------------------------------


def test_a_store_opens_with_what_can_be_known_and_says_what_cannot(tmp_path: Path) -> None:
    about = {"positions": ["0"], "channels": ["488"], "started": "2025-02-30"}
    line = {
        "series": "raw",
        "state": "raw",
        "t": 1,
        "position": 0,
        "channel": "488",
        "z": 0,
        "stored": True,
    }
    (tmp_path / "OME").mkdir()
    (tmp_path / "OME" / "zarr.json").write_text(
        json.dumps({"attributes": {"ome": {"series": ["raw"]}}})
    )
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"livesr": about}}))
    assert "frames.jsonl is missing" in RecordedStore(tmp_path).problems[0]
    (tmp_path / "livesr").mkdir()
    (tmp_path / "livesr" / "frames.jsonl").write_text(
        f"{json.dumps(line)}\n{json.dumps({**line, 't': -5})}\n"
    )
    store = RecordedStore(tmp_path)
    assert store.events == [line]
    assert "line 2" in store.problems[0]
    assert _started_ns(about["started"]) == 0
    assert _started_ns("1970-01-01T00:00:01+00:00") == 10**9


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("office/viewer.key_secret", (r'public-key = ".*"', 'public-key = "short"')),
        ("office/viewer.key_secret", (r'secret-key = ".*"', 'secret-key = "' + "é" * 40 + '"')),
        ("office/viewer.key_secret", (r'secret-key = ".*"', 'secret-key = "' + "~" * 40 + '"')),
        ("office/viewer.key_secret", (r"(?s).*", "\0" * 1000)),
        ("office/viewer.key_secret", (r"(?s).*", "x" * 1_000_000)),
        ("office/publisher.key", (r'public-key = ".*"', 'public-key = "' + "0" * 41 + '"')),
        ("publisher.key_secret", (r'secret-key = ".*"', 'secret-key = "' + "0" * 39 + '"')),
    ],
)
def test_keys_that_are_none_are_refused(tmp_path: Path, file: str, change: tuple[str, str]) -> None:
    folder = tmp_path / "keys"
    make_keys(folder, ["office"])
    ViewerKeys.read(folder / "office")
    text = (folder / file).read_text(encoding="utf-8")
    (folder / file).write_text(re.sub(*change, text, count=1), encoding="utf-8")
    with pytest.raises(ConfigError, match="no key file"):
        (ViewerKeys.read(folder / "office") if "office" in file else PublisherKeys.read(folder))


# -- a publisher -----------------------------------------------------------------------------------


def status(**said: Any) -> list[memoryview]:
    header = WireHeader(type="status", stream="a", seq=0, t_pub_ns=0, **said)
    return [memoryview(part) for part in encode(STATUS, header)]


def test_a_publisher_of_ever_new_names_takes_no_more_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriber, "_MAX_KEYS", 10)
    heard = Subscriber("tcp://127.0.0.1:5555")
    for i in range(100):
        heard._take(status(channel=f"{i}" * 100, status={"warnings": ["x"]}))
    assert heard.received == 100
    assert len(heard._newest) <= 10


@pytest.mark.parametrize("key", ["seq", "position", "z", "t", "t_pub_ns", "offset_adu"])
def test_numbers_that_no_page_can_count_are_no_message(key: str) -> None:
    header = {"v": 1, "type": "status", "stream": "a", "seq": 0, "t_pub_ns": 0, key: 10**30}
    with pytest.raises(WireError, match=key):
        decode([STATUS, json.dumps(header).encode(), b""])


@pytest.mark.parametrize("name", ["channel", "position_name", "stream"])
def test_names_without_an_end_are_no_message(name: str) -> None:
    header = {"v": 1, "type": "status", "stream": "a", "seq": 0, "t_pub_ns": 0, name: "x" * 2000}
    with pytest.raises(WireError, match=name):
        decode([STATUS, json.dumps(header).encode(), b""])


@pytest.mark.parametrize(
    "label", ["[/]", "[red]x", "\x1b]0;title\x07", "[link=file:///etc/passwd]x[/link]", "x" * 1000]
)
@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 4)])
def test_a_line_of_listen_is_one_line_of_text(label: str, shape: tuple[int, ...]) -> None:
    axes = "cyx"[-len(shape) :]
    header = WireHeader(
        type="frame",
        stream="a",
        seq=0,
        t_pub_ns=0,
        t_acq_ns=0,
        shape=shape,
        axes=axes,
        dtype="|u1",
        channels=[{"label": label}],
    )
    decoded = decode([bytes(part) for part in encode(FRAME, header, np.zeros(shape, np.uint8))])
    out = io.StringIO()
    _Terminal(file=out, width=4000, highlight=False).print(_line(decoded.header, 1.0))
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()
    assert label[:100].replace("\x1b", "\ufffd").replace("\x07", "\ufffd") in out.getvalue()


# -- the terminal, scripts and the environment -----------------------------------------------------


def test_names_from_files_cannot_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = tmp_path / "rig"
    shutil.copytree(Path(__file__).parents[1] / "hardware_configs" / "demo", rig)
    text = (rig / "rig.yaml").read_text(encoding="utf-8")
    (rig / "rig.yaml").write_text(text + '\n"\\e]0;owned\\a\\e[2J": 1\n', encoding="utf-8")
    assert _run(["check", str(rig)]) != 0
    captured = capsys.readouterr()
    assert "\x1b]" not in captured.out + captured.err
    assert "\x1b[2J" not in captured.out + captured.err


def test_json_for_scripts_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        {"fps": float("nan"), "most": np.float32("inf"), "path": Path("a"), "counts": np.arange(2)}
    )
    said = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert said == {"fps": None, "most": None, "path": "a", "counts": [0, 1]}


def test_an_unknown_log_level_ends_nothing() -> None:
    before = list(logging.getLogger().handlers)
    try:
        _log_to_stderr("NONSENSE")
        (added,) = set(logging.getLogger().handlers) - set(before)
        assert added.level == logging.getLogger("livesr").level == logging.WARNING
    finally:
        for handler in set(logging.getLogger().handlers) - set(before):
            logging.getLogger().removeHandler(handler)
        logging.getLogger("livesr").setLevel(logging.NOTSET)
