from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livesr.formats.wire import (
    FRAME,
    INPUT,
    STATUS,
    WireChannel,
    WireError,
    WireHeader,
    decode,
    encode,
)

PIXELS = np.arange(24, dtype="<u2").reshape(2, 3, 4)


def header(**changes: object) -> WireHeader:
    known = {
        "v": 1,
        "type": "frame",
        "stream": "a",
        "seq": 7,
        "t_pub_ns": 2,
        "t_acq_ns": 1,
        "dtype": "<u2",
        "shape": PIXELS.shape,
        "axes": "cyx",
        "channels": (
            WireChannel(label="ER", color="FF00FF", window=(0, 9)),
            WireChannel(label="MT"),
        ),
    }
    return WireHeader(**{**known, **changes})


def wire(**changes: object) -> list[bytes]:
    """A message whose header has been changed after it was valid; None takes a key away."""
    topic, head, pixels = encode(FRAME, header(), PIXELS)
    fields = json.loads(head) | changes
    return [
        topic,
        json.dumps({k: v for k, v in fields.items() if v is not None}).encode(),
        pixels.tobytes(),
    ]


def test_what_is_encoded_comes_back() -> None:
    message = decode(
        [bytes(p) for p in encode(FRAME, header(residual=0.25, warnings=("dim",)), PIXELS)]
    )
    assert message.header == header(residual=0.25, warnings=("dim",))
    assert message.topic == "sr/frame"
    assert np.array_equal(message.pixels, PIXELS)
    assert not message.pixels.flags.writeable


def test_pixels_are_not_copied() -> None:
    assert np.shares_memory(encode(FRAME, header(), PIXELS)[2], PIXELS)
    data = PIXELS.tobytes()
    message = decode([FRAME, encode(FRAME, header(), PIXELS)[1], memoryview(data)])
    assert np.shares_memory(message.pixels, np.frombuffer(data, np.uint8))


def test_status_carries_no_pixels() -> None:
    status = WireHeader(v=1, type="status", stream="a", seq=0, t_pub_ns=0, status={"sr_fps": 25.0})
    message = decode(encode(STATUS, status))
    assert message.pixels is None
    assert message.header.status == {"sr_fps": 25.0}


def test_numbers_that_are_none_become_null() -> None:
    head = encode(FRAME, header(residual=float("nan")), PIXELS)[1]
    assert json.loads(head)["residual"] is None


def test_later_fields_of_version_one_are_ignored() -> None:
    assert decode(wire(a_later_field={"x": 1})).header.seq == 7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": 2}, "header.v"),
        ({"v": None, "stream": None}, "header.stream"),
        ({"dtype": "|O"}, "header.dtype"),
        ({"dtype": "<f8"}, "header.dtype"),
        ({"shape": [2, 3, 5]}, "48 bytes of pixels came"),
        ({"shape": [2, 3, -4]}, "header.shape"),
        ({"shape": [65536, 65536, 65536, 65536]}, "bytes of pixels came"),
        ({"shape": [1, 1, 1, 2, 3, 4]}, "header.shape"),
        ({"axes": "yx"}, "axis letter"),
        ({"axes": "drop table"}, "header.axes"),
        ({"encoding": "pickle"}, "header.encoding"),
        ({"type": "status"}, "type 'frame'"),
        ({"t_acq_ns": None}, "t_acq_ns"),
        ({"channels": []}, "0 channels"),
        ({"channels": [{"label": "x", "color": "<script>"}] * 2}, "color"),
        ({"seq": -1}, "header.seq"),
        ({"pixel_size_um": 0}, "header.pixel_size_um"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode(wire(**changes))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"sr/frame"],
        [*wire(), b"more"],
        [b"sr/other", *wire()[1:]],
        [b"sr/frame", b"", b""],
        [b"sr/frame", b"\xff\xfe", b""],
        [b"sr/frame", b"[]", b""],
        [b"sr/frame", b"[" * 100_000, b""],
        [b"sr/frame", b" " * (1 << 21), b""],
        [wire()[0], wire()[1], wire()[2] + b"x"],
        [wire()[0], wire()[1], b""],
    ],
)
def test_what_is_no_message_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(parts)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_no_bytes_raise_anything_else(parts: list[bytes]) -> None:
    for candidate in (parts, [FRAME, *parts], [INPUT, wire()[1], *parts]):
        try:
            decode(candidate)
        except WireError:
            continue


def test_pixels_that_are_not_as_described_are_not_sent() -> None:
    with pytest.raises(WireError, match="the header says"):
        encode(FRAME, header(), PIXELS.astype(np.float32))
    with pytest.raises(WireError, match="the header says"):
        encode(FRAME, header(), PIXELS[:1])


def test_strided_pixels_are_sent_in_c_order() -> None:
    turned = PIXELS.transpose(0, 2, 1)
    message = decode(
        [
            bytes(p) if i < 2 else p.tobytes()
            for i, p in enumerate(encode(FRAME, header(shape=(2, 4, 3)), turned))
        ]
    )
    assert np.array_equal(message.pixels, turned)
