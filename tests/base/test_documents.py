"""YAML, JSON, .npy and zip from strangers: refused in a sentence, and soon.

Nothing reads them any other way.
"""

from __future__ import annotations

import ast
import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import livesr
from fuzzing import examples
from livesr.base import archives, documents
from livesr.base.archives import unpack
from livesr.base.documents import (
    compose_yaml,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    read_yaml,
    to_json,
)
from livesr.base.errors import DocumentError
from livesr.base.npy import open_npy

SOURCES = sorted(Path(livesr.__file__).parent.rglob("*.py"))


def in_a_sentence(error: DocumentError) -> None:
    assert 5 < len(str(error)) < 500


def bomb(levels: int = 12, fan: int = 9) -> str:
    """9^12 values behind aliases, in 500 bytes."""
    lines = [
        "a0: &a0 [x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * fan)}]" for i in range(1, levels)),
    ]
    return "\n".join(lines)


def merges(levels: int = 40) -> str:
    """2^40 entries by merging."""
    return "\n".join(
        [
            "a0: &a0 {x: 1}",
            *(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]" for i in range(1, levels)),
        ]
    )


TOO_MUCH_YAML = {
    "aliases": bomb(),
    "merges": merges(),
    "a long text behind many aliases": "a: &a " + "x" * 1_000_000 + "\nb: [" + "*a, " * 1000 + "]",
    "a chain of aliases": "\n".join(
        ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 400))]
    ),
    "itself": "a: &a {b: *a}",
    "brackets": "[" * 1_000_000,
    "braces": "{a: " * 1_000_000,
    "dashes": "- " * 1_000_000,
    "digits": "a: " + "9" * 1_000_000,
    "minutes": "a: !!int 1" + ":1" * 100_000,
}


@pytest.mark.parametrize("name", TOO_MUCH_YAML)
@pytest.mark.parametrize("how", [parse_yaml, compose_yaml])
def test_yaml_that_grows_is_refused_before_it_does(
    name: str, how: Callable[[str, str], Any]
) -> None:
    text = TOO_MUCH_YAML[name]
    tracemalloc.start()
    with pytest.raises(
        DocumentError, match=r"rig.yaml, line \d+ holds (more than|a number of|a value that)"
    ):
        how(text, "rig.yaml")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * len(text) + 20_000_000


@pytest.mark.parametrize(
    "text",
    [
        "date: 2025-02-30",
        "a: !!int x",
        "a: !!int ''",
        "a: !!timestamp x",
        "a: !!bool x",
        "a: !!float x",
        "a: !!python/object/apply:os.system [ls]",
        "? [a]\n: b",
        "<<: 3",
        "a: *nobody",
        "a: b: c",
        "\0",
        "--- 1\n--- 2",
        "%YAML 9.9\n---\na",
    ],
)
def test_yaml_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match=r"rig\.yaml"):
        parse_yaml(text, "rig.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nsim: {}\nname: b", "line 3 .*the key 'name' is given twice"),
        ("sim:\n  wiener: 0.1\n  wiener: 0.2", "the key 'wiener' is given twice"),
        ("{488: {}, 488: {}}", "the key '488' is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        parse_yaml(text, "rig.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"), ("08", "08"), ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("0", 0), ("-3", -3),
        ("1_000", 1000), ("0x1F", 31), ("12.", 12.0), ("-.5", "-.5"), (".5", 0.5),
        ("1.5e3", "1.5e3"), ("1.5e+3", 1500.0),
    ],
)  # fmt: skip
def test_numbers_of_base_8_and_60_are_text(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}", "x") == {"a": value}


@given(st.text(alphabet="0123456789.:_+-eEoOxXbB", max_size=8))
def test_what_is_written_as_text_is_read_as_text(text: str) -> None:
    assert parse_yaml(yaml.safe_dump({"a": text}), "x") == {"a": text}


def test_yaml_of_more_values_than_any_plan_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 1000)
    assert len(parse_yaml("[" + "1, " * 998 + "]", "x")) == 998
    with pytest.raises(DocumentError, match="more than 1,000 values"):
        parse_yaml("[" + "1, " * 1000 + "]", "x")


def test_yaml_of_people_is_understood() -> None:
    text = "base: &base {a: 1, b: [1.5, 'x']}\nother:\n  <<: *base\n  b: é\nthird: *base\nempty:\n"
    assert parse_yaml(text, "x") == yaml.safe_load(text)
    places = "{x: 1.25, y: -3, z: 0, name: place, sequence: null, row: 1, col: 2, group: 3}"
    plan = "stage_positions:\n" + f"- {places}\n" * 10_000
    assert len(parse_yaml(plan, "x")["stage_positions"]) == 10_000


def test_places_in_a_yaml_text_are_those_of_pyyaml() -> None:
    text = "a: é\nb:\n  - {c: [1, 2]}\n  - 'x'\n"

    def marks(node: Any) -> list[tuple[int, ...]]:
        inner = (
            [n for pair in node.value for n in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
        )
        own = (
            node.start_mark.index,
            node.end_mark.index,
            node.start_mark.line,
            node.start_mark.column,
        )
        return [own, *(m for n in inner if isinstance(n, yaml.Node) for m in marks(n))]

    assert marks(compose_yaml(text, "x")) == marks(yaml.compose(text, Loader=yaml.SafeLoader))


@examples(60)
@given(st.text(max_size=60) | st.text("[]{}&*:-?!<>|'\"# \n0ab", max_size=40))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    try:
        found = parse_yaml(text, "x")
    except DocumentError as e:
        in_a_sentence(e)
        return
    assert len(repr(found)) < 100 * (len(text) + 1)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 1_000_000,
        "[" * 500 + "]" * 500,
        "9" * 1_000_000,
        '"\\ud800"',
        b"\xff",
        "{",
        "",
    ],
)
def test_json_that_is_none_or_too_deep_is_refused(text: str | bytes) -> None:
    with pytest.raises(DocumentError, match=r"meta\.json"):
        parse_json(text, "meta.json")


def test_minus_zero_is_written_as_zero() -> None:
    assert to_json({"x_um": -0.0, "all": [np.float32(-0.0), -1.5]}) == (
        '{"x_um": 0.0, "all": [0.0, -1.5]}'
    )


def test_json_of_programs_is_understood() -> None:
    for value in ({"a": [1, 2.5, None, True]}, "\U0001f52c", [[[]]] * 200, 10**30):
        assert parse_json(json.dumps(value), "x") == value
        assert parse_json(json.dumps(value).encode(), "x") == value


@examples(60)
@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        parse_json(data, "x")
    except DocumentError as e:
        in_a_sentence(e)


def test_what_is_no_file_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(documents.MAX_BYTES + 1)
    for name, words in {
        "latin": "UTF-8",
        "large": "at most 17 MB",
        "none": "No such file",
        ".": "no file",
    }.items():
        for read in (read_text, read_yaml, read_json):
            with pytest.raises(DocumentError, match=words):
                read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.yaml")
    with pytest.raises(DocumentError, match="is no file"):
        read_yaml(tmp_path / "manifest.yaml")


# -- arrays ----------------------------------------------------------------------------------------


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        header("(100000, 100000)"),
        header("(-1, 4)") + bytes(16),
        header(f"({10**30},)"),
        header("(1,)", "'|O'") + bytes(8),
        header("(4,)", "[('a', '|O')]") + bytes(32),
        header("(4,)") + bytes(15),
        header("(4,)") + bytes(17),
        header("'x'"),
        header("(__import__('os'),)"),
        b"\x80\x04\x95",
        b"PK\x03\x04",
        b"",
    ],
)
def test_arrays_that_are_not_what_they_say_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    for mode in (None, "r"):
        with pytest.raises(DocumentError, match=r"x\.npy"):
            open_npy(tmp_path / "x.npy", mode)


def test_arrays_of_numbers_are_read(tmp_path: Path) -> None:
    for array in (
        np.arange(6.0).reshape(2, 3),
        np.zeros((0, 4), np.uint8),
        np.asfortranarray(np.ones((2, 3), ">u2")),
    ):
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(open_npy(tmp_path / "x.npy"), array)


# -- archives --------------------------------------------------------------------------------------


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in files.items():
            package.writestr(name, data)
    return path


def test_a_small_zip_that_unpacks_to_gigabytes_writes_nothing(tmp_path: Path) -> None:
    source = zipped(tmp_path / "bomb.zip", {f"{i}.bin": bytes(8 << 20) for i in range(12)})
    with pytest.raises(DocumentError, match="would unpack to 101 MB"):
        unpack(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_zip_that_says_less_than_it_holds_grows_no_further(tmp_path: Path) -> None:
    source = zipped(tmp_path / "liar.zip", {"x.bin": bytes(1 << 20)})
    data = source.read_bytes().replace(
        (1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    )
    source.write_bytes(data)
    with pytest.raises(DocumentError, match="cannot be unpacked"):
        unpack(source, tmp_path / "out")
    assert sum(f.stat().st_size for f in (tmp_path / "out").rglob("*") if f.is_file()) <= 1000


def test_too_many_files_names_that_lead_out_and_what_is_no_zip(tmp_path: Path) -> None:
    many = zipped(tmp_path / "many.zip", {str(i): b"" for i in range(archives.MAX_FILES + 1)})
    with pytest.raises(DocumentError, match="holds 2,001 files"):
        unpack(many, tmp_path / "out")
    (tmp_path / "none.zip").write_bytes(b"PK\x05\x06 no zip")
    with pytest.raises(DocumentError, match="cannot be unpacked"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
    (tmp_path / "inner").mkdir()
    unpack(
        zipped(tmp_path / "out.zip", {"../escaped": b"x", "/absolute": b"x", "a": b"x"}),
        tmp_path / "inner",
    )
    assert not (tmp_path / "escaped").exists()
    assert (tmp_path / "inner" / "a").read_bytes() == b"x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@examples(25)
@given(seed=st.integers(0, 2**31), damages=st.integers(1, 6))
def test_any_damage_to_a_zip_is_refused_or_read(folder: Path, seed: int, damages: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("rdf.yaml", "a: 1\n" * 20)
    data, rng = bytearray(buffer.getvalue()), np.random.default_rng(seed)
    for _ in range(damages):
        data[rng.integers(len(data))] = rng.integers(256)
    (folder / "x.zip").write_bytes(bytes(data))
    try:
        unpack(folder / "x.zip", folder / "out")
    except DocumentError as e:
        in_a_sentence(e)


# -- one place -------------------------------------------------------------------------------------

READERS = {
    **dict.fromkeys(
        ("yaml.safe_load", "yaml.load", "yaml.compose", "yaml.parse", "yaml.scan"), "documents.py"
    ),
    **dict.fromkeys(("json.load", "json.loads", "json.JSONDecoder"), "documents.py"),
    **dict.fromkeys(("np.load", "numpy.load"), "npy.py"),
    **dict.fromkeys(("zipfile.ZipFile", "shutil.unpack_archive", "tarfile.open"), "archives.py"),
}
SAID_BY_OWN_PROCESSES = {"chromium.py", "start.py", "point.py", "trial.py", "triton_model.py"}
"""They parse what a process that they started, or that started them, says; none reads a file so."""


def elsewhere(path: Path, tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name not in READERS or path.name == READERS[name]:
            continue
        given = ast.unparse(node.args[0]) if node.args else ""
        own = given.startswith(("json.dumps(", "to_json("))  # a plain copy of own values
        if not own and not (path.name in SAID_BY_OWN_PROCESSES and name == "json.loads"):
            found.append(f"{path.name}:{node.lineno} calls {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_nothing_else_reads_these_formats(path: Path) -> None:
    assert not elsewhere(path, ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "line",
    ["yaml.safe_load(text)", "json.loads(path.read_text())", "np.load(path)", "zipfile.ZipFile(p)"],
)
def test_the_search_finds(line: str) -> None:
    assert elsewhere(Path("x.py"), ast.parse(line))


def test_a_path_that_is_no_unicode_is_written() -> None:
    """A folder that an old disk names in Latin-1 ended the writing of reports."""
    text = to_json({"store": Path("M\udcfcller/run.ome.zarr"), "\udcff": ["\ud800", "µ"]})
    assert json.loads(text.encode()) == {"store": "M?ller/run.ome.zarr", "?": ["?", "µ"]}
