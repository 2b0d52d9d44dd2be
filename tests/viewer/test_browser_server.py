"""A real server on a real port, asked by a real client."""

import contextlib
import http.client
import io
import json
import os
import socket
import threading
import time
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from livesr.base.errors import BindError
from livesr.formats.wire import WireChannel
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.page import IN_FLIGHT
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.browser.server import PreviewServer
from memory import held, held_falls_below
from preview_source import CHANNELS, MemorySource, flat, measurement, prediction, widefield

GREY = np.full((64, 64), 500, np.uint16)


PATIENCE_S = 60  # of a computer that does much else; nothing here waits for it to be over


@pytest.fixture
def source():
    return MemorySource()


@pytest.fixture
def server(source):
    with PreviewServer(source.pairs) as server:
        yield server


def get(server, path, **headers):
    with closing(
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    ) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()


def join(server, path="/stream", origin=None, **options) -> ClientConnection:
    origin = origin or f"http://127.0.0.1:{server.port}"
    return connect(
        f"ws://127.0.0.1:{server.port}{path}",
        origin=origin,
        max_size=None,
        compression=None,
        **options,
    )


def next_text(page, kind):
    while True:
        message = page.recv(timeout=PATIENCE_S)
        if isinstance(message, str) and (content := json.loads(message))["type"] == kind:
            return content


def next_frame(page, acknowledge=True):
    """Header and decoded pictures of the next frame."""
    header = next_text(page, "frame")
    pictures = []
    while len(pictures) < len(header["pictures"]):
        if isinstance(message := page.recv(timeout=PATIENCE_S), bytes):
            pictures.append(np.asarray(Image.open(io.BytesIO(message))).astype(int))
    if acknowledge:
        page.send(json.dumps({"type": "ack", "id": header["id"]}))
    return header, pictures


def closing_code(page):
    """Read until the server closes; return its code."""
    try:
        while True:
            page.recv(timeout=PATIENCE_S)
    except ConnectionClosed as closed:
        return closed.rcvd.code


def silent(page, seconds=0.3):
    """Whether no frame comes for a while."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = page.recv(timeout=left)
        except TimeoutError:
            return True
        if isinstance(message, bytes) or json.loads(message)["type"] == "frame":
            return False
    return True


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/", "text/html", b"<!doctype html>"),
        ("/index.html", "text/html", b"Measurement"),
        ("/connection.js", "text/javascript", b"WebSocket"),
        ("/app.js", "text/javascript", b"import"),
        ("/style.css", "text/css", b"prefers-color-scheme"),
        ("/?anything=1", "text/html", b"<!doctype html>"),
    ],
)
def test_serves_its_page_with_a_policy_that_lets_nothing_else_in(server, path, kind, part):
    response, body = get(server, path)
    assert response.status == 200
    assert response.headers["Content-Type"].startswith(kind)
    assert part in body
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_page_needs_nothing_from_outside(server):
    for path in ("/", "/app.js", "/style.css"):
        body = get(server, path)[1].decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in body
        assert "https://" not in body
        assert "//cdn" not in body


@pytest.mark.parametrize(
    "path",
    [
        "/server.py",
        "/../server.py",
        "/%2e%2e/pyproject.toml",
        "//etc/passwd",
        "/app.js/",
        "/..%2f..%2fetc/passwd",
        "//[x",
    ],
)
def test_serves_nothing_else_of_this_machine(server, path):
    assert get(server, path)[0].status == 404


def test_a_name_that_foreign_dns_points_here_is_refused(server):
    assert get(server, "/", Host="evil.example:80")[0].status == 421
    assert get(server, "/", Host="127.0.0.1.evil.example")[0].status == 421
    assert get(server, "/", Host=f"localhost:{server.port}")[0].status == 200


def test_nonsense_instead_of_http_harms_nobody(server, source):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw:
        raw.sendall(b"\x16\x03\x01" + os.urandom(300) + b"\r\n\r\n")
        raw.recv(100)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no Host
        assert b"421" in raw.recv(100)
    assert get(server, "/")[0].status == 200


# ---- who may join --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "http://localhost"]
)
def test_page_of_another_site_is_refused(server, origin):
    with pytest.raises(InvalidStatus) as refused:
        join(server, origin=origin)
    assert refused.value.response.status_code == 403


def test_client_without_origin_is_refused(server):
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{server.port}/stream")


def cookie_of(response):
    return response.headers["Set-Cookie"].partition(";")[0]


def test_beyond_loopback_a_browser_needs_an_invitation(source):
    with PreviewServer(source.pairs, host="0.0.0.0") as server:
        assert server.url == f"http://0.0.0.0:{server.port}/"
        code = server.invite().partition("?")[2]
        assert len(code) > 30
        for path in (
            "/",
            "/index.html",
            "/?code=",
            "/?code=wrong",
            "/?code=%F0%9F",
            "/stream",
            f"/stream?{code}",
        ):
            assert get(server, path)[0].status == 403
        response, welcome = get(server, f"/?{code}")
        assert response.status == 200
        assert b"Measurement" not in welcome
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {
            p.strip() for p in response.headers["Set-Cookie"].split(";")
        }
        cookie = cookie_of(response)
        for _ in range(2):  # a page is opened anew as often as one likes
            assert b"Measurement" in get(server, "/", Cookie=f"other=1; {cookie}")[1]
        with join(server, additional_headers={"Cookie": cookie}) as page:
            assert next_text(page, "status")["state"] == "waiting"
        for headers in (
            {},
            {"Cookie": cookie + "x"},
            {"Cookie": "livesr-00000000=" + cookie.partition("=")[2]},
        ):
            with pytest.raises(InvalidStatus):
                join(server, additional_headers=headers)
        with pytest.raises(InvalidStatus):
            join(server, origin="http://evil.example", additional_headers={"Cookie": cookie})
        assert get(server, "/style.css")[0].status == 200


def test_an_invitation_is_used_once_and_the_second_use_says_what_to_do(source):
    with PreviewServer(source.pairs, host="0.0.0.0") as server:
        joined = []
        server.on_joined(lambda code, address: joined.append((code, address)))
        link = server.invite()
        path = "/?" + link.partition("?")[2]
        assert get(server, path)[0].status == 200
        refused, said = get(server, path)
        assert refused.status == 403
        assert "Set-Cookie" not in refused.headers
        assert b"This link has been used" in said
        assert b"shows the next one" in said
        assert joined == [(link.partition("code=")[2], "127.0.0.1")]


def test_invitations_are_few_and_a_server_knows_its_own_only(source):
    with (
        PreviewServer(source.pairs, host="0.0.0.0") as one,
        PreviewServer(source.pairs, host="0.0.0.0") as other,
    ):
        first, *links = [one.invite() for _ in range(101)]
        assert len(set(links)) == 100
        assert get(one, "/?" + first.partition("?")[2])[0].status == 403
        assert get(other, "/?" + links[0].partition("?")[2])[0].status == 403
        passed = get(one, "/?" + links[0].partition("?")[2])[0]
        assert get(other, "/", Cookie=cookie_of(passed))[0].status == 403


def test_loopback_needs_no_invitation(source):
    for host in ("127.0.0.1", "localhost", "::1"):
        server = PreviewServer(source.pairs, host=host)
        assert not server.needs_invitation
        assert server.invite() == server.url
        assert "code" not in server.url


# ---- frames --------------------------------------------------------------------------------------


def test_newest_frame_arrives_in_its_colours_with_its_measurement(server, source):
    source.give(measurement(7, GREY, pixel_size_um=0.1), flat(7, 1000, 0, 0))
    with join(server) as page:
        header, (grey, composite) = next_frame(page)
    assert [(p["name"], p["t"], p["pixel_size_um"]) for p in header["pictures"]] == [
        ("measurement", 7, 0.1),
        ("composite", 7, 0.05),
    ]
    assert [c["label"] for c in header["channels"]] == ["Microtubules", "ER", "Lysosomes"]
    assert header["channels"][1] == {
        "label": "ER", "color": "FF00FF", "window": [0, 1000], "gamma": 1.0, "visible": True,
        "unit": "ADU",
    }  # fmt: skip
    assert header["latency_ms"] == 61.5
    assert header["residual"] == 0.034
    assert 0 <= header["age_ms"] < 5000
    assert np.abs(composite - [0, 255, 0]).max() <= 3
    assert np.abs(grey - 128).max() <= 2


def test_measurement_beside_is_the_one_it_was_predicted_from(source):
    maker = PictureMaker(source.pairs)
    for t in range(3):
        source.give(measurement(t, GREY + 10 * t))
    source.give(flat(1, 0, 0, 0))
    frame = maker.make(View())
    assert [p["t"] for p in frame.content["pictures"]] == [1, 1]
    assert maker.make(View()) is frame
    # Alone, the measurement need not wait for the network.
    assert [p["t"] for p in maker.make(View(mode="measurement")).content["pictures"]] == [2]


def test_only_a_new_frame_is_sent_and_only_the_newest(server, source):
    with join(server) as page:
        assert silent(page)
        for t in range(5):
            source.give(flat(t, 100 * t, 0, 0))
        seen = [next_frame(page)[0]["pictures"][0]["t"]]
        while seen[-1] < 4:  # the server may have looked between two of them
            seen.append(next_frame(page)[0]["pictures"][0]["t"])
        assert seen == sorted(set(seen))
        assert silent(page)


def test_page_that_does_not_acknowledge_gets_no_more_and_then_the_newest(server, source):
    with join(server) as page:
        seen = []
        for t in range(IN_FLIGHT):
            source.give(flat(t, 0, 0, 0))
            seen.append(next_frame(page, acknowledge=False)[0]["id"])
        for t in range(10, 15):
            source.give(flat(t, 0, 0, 0))
            time.sleep(0.02)
        assert silent(page)
        page.send(json.dumps({"type": "ack", "id": seen[0]}))
        assert next_frame(page)[0]["pictures"][0]["t"] == 14


def test_stalled_page_does_not_hold_up_another(server, source):
    noise = np.random.default_rng(0).integers(
        0, 1000, (3, 1024, 1024), np.uint16
    )  # fills every socket buffer
    with join(server, max_queue=1) as stalled, join(server) as page:
        arrived = []
        for t in range(6):
            source.give(prediction(t, noise))
            arrived.append(next_frame(page)[0]["pictures"][0]["t"])
        assert arrived == list(range(6))
        stalled.close_timeout = 0.1


@pytest.mark.parametrize(
    "message",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"type": "ack"}',
        '{"type": "ack", "id": 99}',
        '{"type": "ack", "id": [1]}',
        b"\xff\xfe",
        '{"type": "open", "id": 1}',
        "[" * 4000,
        '{"type": "ack", "id": null}',
        '{"type": "seek", "index": -1}',
        '{"type": "view", "view": {"mode": "../x"}}',
        '{"type": "view", "view": {"channels": [{"gamma": 0}]}}',
        '{"type": "view", "view": {"measurement": {"window": [0, NaN]}}}',
        '{"type": "probe", "at": [0.5, 2]}',
        '{"type": "view", "view": {"measurement": {"color": "red"}}}',
        '{"type": "view", "view": {}, "path": "/etc"}',
    ],
)
def test_malformed_message_ends_that_page_only(server, source, message):
    with join(server) as bad, join(server) as good:
        bad.send(message)
        assert closing_code(bad) == 1008
        source.give(flat(0, 0, 0, 0))
        next_frame(good)


def test_acknowledging_twice_or_at_length_is_refused(server, source):
    source.give(flat(0, 0, 0, 0))
    with join(server) as page:
        header, _ = next_frame(page)
        page.send(json.dumps({"type": "ack", "id": header["id"]}))
        with pytest.raises(ConnectionClosed):
            next_frame(page)
    with join(server) as page:
        page.send("x" * 100_000)
        assert closing_code(page) == 1009


def test_frames_that_cannot_be_shown_are_named_and_the_next_one_comes(server, source):
    with join(server) as page:
        source.give(prediction(0, np.zeros((3, 4, 4), np.uint16), axes="czy"))
        while not (warnings := next_text(page, "status")["warnings"]):
            pass
        assert "expected 'cyx'" in warnings[0]
        source.give(flat(1, 0, 0, 0))
        assert next_frame(page)[0]["pictures"][0]["t"] == 1
        source.give(
            prediction(
                2, np.full((3, 8, 8), np.nan, np.float32), dtype="<f4", residual=float("nan")
            )
        )
        assert next_frame(page)[0]["residual"] is None


def test_stream_without_prediction_shows_the_measurement(server, source):
    source.give(measurement(3, GREY))
    with join(server) as page:
        header, pictures = next_frame(page)
    assert [p["name"] for p in header["pictures"]] == ["measurement"]
    assert header["channels"] == []
    assert len(pictures) == 1


def test_status_says_what_runs_and_when_it_is_over(source):
    maker = PictureMaker(source.pairs)
    assert maker.status()["state"] == "waiting"
    source.last_rejection = "3 parts"
    assert "no livesr stream: 3 parts" in maker.status()["warnings"][0]
    source.say(
        sr_fps=11.2,
        sr_skipped=3,
        sr_frames=9,
        engine={"488": "light", "": "heavy"},
        backend={"488": "openvino"},
        computes={"488": "openvino 2026.4 BF16 on a CPU, compiled 2 s ago"},
        warnings=["Look!"],
        disk_free_bytes=5e9,
    )
    assert maker.status()["state"] == "starting"
    source.give(flat(0, 0, 0, 0))
    status = maker.status()
    assert status == {
        "state": "live",
        "source": "tcp://127.0.0.1:5555",
        "fps": 11.2,
        "skipped": 3,
        "skipped_share": 0.25,
        "engine": "heavy",
        "backend": "openvino",
        "audits": [],
        "dose": "",
        "computes": "openvino 2026.4 BF16 on a CPU, compiled 2 s ago",
        "warnings": ["Look!"],
        "disk_free_bytes": 5e9,
        "length": None,
        "streams": [
            {"channel": "", "position": 0, "position_name": "", "z": 0}
            | dict.fromkeys(("z_um", "x_um", "y_um"))
        ],
    }
    source.ended = True
    assert maker.status()["state"] == "silent"
    source.end()
    assert maker.status()["state"] == "ended"


def test_the_page_says_how_long_the_way_to_a_server_takes(source):
    way = {"backend": "kserve", "latency_ms": {"p50": 41.2, "p99": 60.4}, "network_share": 0.23}
    source._status = {"backend": {"488": "kserve"}, "remote": {"488": [way]}}
    maker = PictureMaker(source.pairs)
    shown = "kserve, 41 ms there and back (p99 60), 23% of it network"
    assert maker.status("488")["backend"] == maker.status()["backend"] == shown
    source._status["backend"] = {"488": "openvino"}  # the server is left at the moment
    assert maker.status("488")["backend"] == "openvino"


@pytest.mark.parametrize(
    "remote",
    [
        None,
        3,
        [],
        {"488": "x"},
        {"488": [1]},
        {"488": [{"backend": "kserve"}]},
        {"488": [{"backend": "kserve", "latency_ms": {"p50": float("nan"), "p99": "<b>"}}]},
    ],
)
def test_what_a_hostile_stream_says_of_a_server_is_not_shown(source, remote):
    source._status = {"backend": {"488": "kserve"}, "remote": remote}
    assert PictureMaker(source.pairs).status("488")["backend"] == "kserve"


def test_source_that_fails_is_reported_on_the_page(server, source, caplog):
    def broken(*_, **__):
        raise OSError("disk gone")

    with join(server) as page:
        source.pairs.pair = broken
        source.say()
        while not (warnings := next_text(page, "status")["warnings"]):
            pass
    assert warnings == ["The preview has stopped: OSError: disk gone."]
    assert "the source of the preview failed" in caplog.text


def test_status_of_a_hostile_stream_is_still_plain_json(source):
    source._status = {
        "sr_fps": "<b>",
        "sr_skipped": float("nan"),
        "engine": ["x"],
        "warnings": "no",
        "backend": None,
    }
    status = PictureMaker(source.pairs).status()
    assert (status["fps"], status["skipped"], status["warnings"]) == (None, None, [])
    json.dumps(status, allow_nan=False)


# ---- what a page asks for ------------------------------------------------------------------------


def show(page, **view):
    page.send(json.dumps({"type": "view", "view": view}))


def test_colour_contrast_gamma_and_visibility_are_the_pages_own(server, source):
    source.give(flat(0, 250, 500, 0))
    with join(server) as page, join(server) as other:
        next_frame(page)
        _, (plain,) = next_frame(other)
        red = {"label": "Microtubules", "color": "FF0000", "window": [0, 500], "gamma": 0.5}
        show(page, channels=[red, {"label": "ER", "visible": False}])
        header, (shown,) = next_frame(page)
        assert np.abs(shown - [180, 0, 0]).max() <= 3
        assert header["channels"][0] == {**red, "visible": True, "unit": "ADU"}
        assert silent(other, 0.2)
    assert np.abs(plain - [128, 64, 128]).max() <= 3


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("prediction", ["composite"]),
        ("measurement", ["measurement"]),
        ("split", ["measurement", "composite"]),
        ("channels", ["measurement", "channel:Microtubules", "channel:ER", "channel:Lysosomes"]),
    ],
)
def test_only_the_pictures_of_the_mode_are_drawn(server, source, mode, names):
    source.give(measurement(0, GREY), flat(0, 1, 2, 3))
    with join(server) as page:
        next_frame(page)
        show(page, mode=mode)
        assert [p["name"] for p in next_frame(page)[0]["pictures"]] == names


def test_raw_planes_are_the_frame(server, source):
    planes = np.random.default_rng(0).integers(0, 65535, (3, 32, 48), np.uint16)
    grey = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48)
    source.give(measurement(0, grey), prediction(0, planes))
    with join(server) as page:
        next_frame(page)
        show(page, raw=True)
        header = next_text(page, "frame")
        sent = [np.frombuffer(page.recv(timeout=PATIENCE_S), "<u2") for _ in header["pictures"]]
    assert [(p["name"], p["planes"]) for p in header["pictures"]] == [
        ("planes", 3),
        ("measurement", 1),
    ]
    np.testing.assert_array_equal(sent[0].reshape(3, 32, 48), planes)
    np.testing.assert_array_equal(sent[1].reshape(32, 48), grey)


def test_residual_is_painted_where_the_channels_do_not_add_up(server, source):
    # Background 100 ADU, offset 1000: x is 0 but for two squares; one the channels miss, one they
    # invent.
    measured = np.full((64, 64), 1100, np.uint16)
    measured[8:24, 8:24] += 900
    planes = np.zeros((3, 64, 64), np.uint16)
    planes[1, 40:56, 40:56] = 900
    grey = measurement(
        0,
        measured,
        offset_adu=1000,
        channels=(CHANNELS[0].model_copy(update={"window": (1000, 2000)}),),
    )
    source.give(grey, prediction(0, planes, normalisation={"background": 100.0, "headroom": 900.0}))
    with join(server) as page:
        next_frame(page)
        show(page, mode="prediction", residual=True)
        header, (picture,) = next_frame(page)
    assert header["overlay"] == "residual"
    assert np.abs(picture[16, 16] - [86, 180, 233]).max() <= 6
    assert np.abs(picture[48, 48] - [230, 159, 0]).max() <= 6
    assert np.abs(picture[16, 48] - picture[16, 48].mean()).max() <= 3  # elsewhere it is grey


def test_probe_reads_intensities_not_grey_levels(server, source):
    planes = np.zeros((3, 64, 64), np.uint16)
    planes[:, 10, 20] = 11, 4000, 33
    grey = np.zeros((32, 32), np.uint16)
    grey[5, 10] = 1044
    source.give(measurement(0, grey, offset_adu=1000), prediction(0, planes))
    with join(server) as page:
        next_frame(page)
        page.send(json.dumps({"type": "probe", "at": [20.5 / 64, 10.5 / 64]}))
        said = next_text(page, "probe")
        assert (said["x"], said["y"], said["um"]) == (20, 10, [1.0, 0.5])
        assert said["channels"] == {"Microtubules": 11, "ER": 4000, "Lysosomes": 33}
        assert said["measurement"] == 44
        source.give(flat(1, 7, 8, 9))  # it goes on with the next frame
        assert next_frame(page)[0]["t"] == 1
        assert next_text(page, "probe")["channels"]["ER"] == 8


def test_widefield_beside_is_of_the_same_moment_and_has_its_own_look(server, source):
    for t in (3, 4):
        source.give(measurement(t, GREY, raw_seq=(9 * t, 9 * t + 8)))
        source.give(
            widefield(t, np.full((32, 32), 1000 + 250 * (t - 2), np.uint16), offset_adu=1000)
        )
    source.give(flat(3, 1, 2, 3))
    with join(server) as page:
        header, _ = next_frame(page)
        assert header["widefield"] is None  # nobody asked for it
        show(page, widefield={})
        header, pictures = next_frame(page)
        assert [(p["name"], p["t"]) for p in header["pictures"]] == [
            ("widefield", 3),
            ("measurement", 3),
            ("composite", 3),
        ]
        assert pictures[0].shape[:2] == (32, 32)  # on the camera's own pixels
        show(page, widefield={"window": [0, 500], "lut": "gray"}, mode="measurement")
        header, pictures = next_frame(page)
        assert [p["name"] for p in header["pictures"]] == ["widefield", "measurement"]
        assert header["widefield"]["window"] == [0, 500]
        page.send(json.dumps({"type": "probe", "at": [0.5, 0.5]}))
        assert next_text(page, "probe")["widefield"] == 500  # the newest: t 4


def test_numbers_are_in_the_unit_of_the_picture(server, source):
    """A run that counts localisations, a hundred for each: the page says localisations."""
    grey = np.full((32, 32), 1050, np.uint16)
    unit = {"unit": "localisation", "unit_scale": 0.01, "offset_adu": 1000}
    window = (WireChannel(label="x", window=(1000, 1200)),)
    source.give(measurement(0, grey, channels=window, **unit))
    with join(server) as page:
        header, (shown,) = next_frame(page)
        assert header["measurement"]["window"] == [0, 2]
        assert (header["unit"], header["measurement"]["unit"]) == ("localisation",) * 2
        page.send(json.dumps({"type": "probe", "at": [0.5, 0.5]}))
        assert next_text(page, "probe")["measurement"] == 0.5
        show(page, histogram=True, measurement={"window": [0, 1]})
        header, (brighter,) = next_frame(page)
        (counted,) = next_text(page, "histograms")["histograms"]
    assert (counted["of"], round(counted["low"], 6)) == ("measurement", 0)
    assert np.abs(shown - 64).max() <= 2
    assert np.abs(brighter - 128).max() <= 2


def ask(page, shape, at):
    page.send(json.dumps({"type": "measure", "shape": shape, "at": at}))
    return next_text(page, "measured")


def test_a_line_is_read_in_every_picture_and_says_what_was_measured(server, source):
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 10, (64, 1))
    source.give(
        measurement(7, ramp[:32, :32] * 2 + 1000, offset_adu=1000, pixel_size_um=0.1),
        prediction(7, np.stack([ramp, ramp * 2, ramp * 0]), pixel_size_um=0.05),
    )
    with join(server) as page:
        next_frame(page)
        # from the middle of pixel 8 to that of pixel 40, along row 20
        said = ask(page, "line", [8.5 / 64, 20.5 / 64, 40.5 / 64, 20.5 / 64])
        assert said["um"] == [pytest.approx(32 * 0.05)]
        about = [(s["label"], s["of"], s["unit"], s["t"]) for s in said["series"]]
        assert about == [
            ("measurement", "measurement", "ADU", 7),
            ("Microtubules", "prediction", "ADU", 7),
            ("ER", "prediction", "ADU", 7),
            ("Lysosomes", "prediction", "ADU", 7),
        ]
        measured, microtubules, er, _ = (s["values"] for s in said["series"])
        assert microtubules == pytest.approx([80 + 10 * n for n in range(33)])
        assert er == pytest.approx([2 * v for v in microtubules])
        # half as many pixels, whose middles are half a fine pixel further
        assert measured[0] == pytest.approx(20 * (8.5 / 2 - 0.5))
        assert len(measured) == 17
        source.give(flat(8, 5, 6, 7))  # it goes on with the next frame
        assert next_frame(page)[0]["t"] == 8
        assert set(next_text(page, "measured")["series"][1]["values"]) == {5}


def test_the_mean_of_a_region_is_that_of_its_pixels(server, source):
    plane = np.random.default_rng(1).integers(0, 900, (3, 64, 64), np.uint16)
    source.give(measurement(0, plane[0] + 100, offset_adu=100), prediction(0, plane))
    with join(server) as page:
        next_frame(page)
        said = ask(page, "region", [30 / 64, 26 / 64, 10 / 64, 20 / 64])  # drawn backwards
        assert said["um"] == [pytest.approx(1.0), pytest.approx(0.3)]
        for found, of in zip(said["series"], [plane[0], *plane], strict=True):
            inside = of[20:26, 10:30].astype(float)
            assert found["pixels"] == 6 * 20
            assert (found["mean"], found["sd"]) == pytest.approx((inside.mean(), inside.std()))
        assert ask(page, "region", [0.5, 0.5, 0.5, 0.5])["series"][0]["pixels"] == 1
        ask(page, "line", [1, 1, 1, 1])
        page.send(json.dumps({"type": "measure", "at": None}))
        source.give(flat(1, 5, 6, 7))
        next_frame(page)
        assert silent(page)  # neither line nor region any more


def test_histograms_count_the_pixels(server, source):
    source.give(measurement(0, GREY), flat(0, 10, 500, 900))
    with join(server) as page:
        next_frame(page)
        show(page, histogram=True)
        next_frame(page)
        found = {h["label"]: h for h in next_text(page, "histograms")["histograms"]}
    assert set(found) == {"Microtubules", "ER", "Lysosomes", None}
    er = found["ER"]
    where = int(np.argmax(er["counts"]))
    step = (er["high"] - er["low"]) / len(er["counts"])
    assert sum(er["counts"]) == 64 * 64
    assert er["low"] + where * step <= 500 <= er["low"] + (where + 1) * step


def test_streams_are_listed_and_selected(server, source):
    for channel in ("488", "561"):
        for position in (0, 1):
            for z in (0, 1):
                place = {
                    "channel": channel,
                    "position": position,
                    "position_name": f"well {position}",
                    "z": z,
                }
                source.give(
                    prediction(0, np.full((3, 8, 8), 100 * position + 50 * z, np.uint16), **place)
                )
    assert len(PictureMaker(source.pairs).status()["streams"]) == 8
    with join(server) as page:
        assert next_frame(page)[0]["stream"] == {
            "channel": "488",
            "position": 1,
            "z": 1,
        }  # the newest of the first channel
        show(page, channel="561", position=0, z=1)
        header, _ = next_frame(page)
        assert header["stream"] == {"channel": "561", "position": 0, "z": 1}
        source.give(prediction(1, np.zeros((3, 8, 8), np.uint16), channel="488", position=1))
        assert silent(page)
        show(page, channel="561")
        assert next_frame(page)[0]["stream"]["position"] == 1


def test_provisional_picture_is_marked_and_replaced(server, source):
    source.give(prediction(3, np.zeros((3, 8, 8), np.uint16), provisional=True, seq=1))
    with join(server) as page:
        assert next_frame(page)[0]["provisional"]
        source.give(prediction(3, np.zeros((3, 8, 8), np.uint16), seq=2))
        header, _ = next_frame(page)
    assert (header["t"], header["provisional"]) == (3, False)


@pytest.mark.parametrize("mode", ["beside", "split", "prediction", "channels", "measurement"])
def test_snapshot_is_a_png_of_what_is_shown(server, source, mode):
    source.say(engine={"": "light"}, backend={"": "openvino"})
    source.give(measurement(2, GREY), flat(2, 1000, 0, 0))
    with join(server) as page:
        next_frame(page)
        if mode != "beside":
            show(page, mode=mode)
            next_frame(page)
        page.send(json.dumps({"type": "snapshot", "field": [0.25, 0.25, 0.75, 0.75], "split": 0.5}))
        assert next_text(page, "snapshot")["name"] == "livesr-t0002.png"
        image = Image.open(io.BytesIO(page.recv(timeout=PATIENCE_S)))
    pixels = np.asarray(image.convert("RGB")).astype(int)
    green, grey = (np.abs(pixels - c).max(axis=2) < 3 for c in ([0, 255, 0], [128, 128, 128]))
    halves = 0.5 if mode == "split" else 1.0
    assert (green.sum() > 0.9 * halves * 480**2) == (mode != "measurement")
    assert (grey.sum() > 0.85 * halves * 480**2) == (mode != "prediction")
    caption = image.text["Description"]
    assert "t 2" in caption
    assert ("predicted by light on openvino, not measured" in caption) == (mode != "measurement")
    assert image.text["PixelSizeUm"] == "0.05"


# ---- beginning and end ---------------------------------------------------------------------------


def test_connections_are_bounded_and_make_room_when_they_end(server, source, monkeypatch):
    monkeypatch.setattr("livesr.viewer.browser.server._MAX_CONNECTIONS", 10)
    source.give(flat(0, 0, 0, 0))
    idle = [
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) for _ in range(10)
    ]
    one_more = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
    with one_more, contextlib.suppress(ConnectionResetError):
        assert one_more.recv(1) == b""
    for connection in idle:
        connection.close()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with join(server) as page:
                next_frame(page)
            return
        except (OSError, EOFError, InvalidHandshake):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_stop_closes_pages_and_leaves_nothing(source):
    server = PreviewServer(source.pairs)
    server.start()
    source.give(flat(0, 0, 0, 0))
    with join(server) as page:
        next_frame(page, acknowledge=False)
        server.stop()
        server.stop()
        assert closing_code(page) == 1001
    assert not [t.name for t in threading.enumerate() if t.name.startswith("livesr-preview")]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def test_stop_does_not_wait_for_a_page_that_has_frozen(source):
    server = PreviewServer(source.pairs)
    server.start()
    noise = np.random.default_rng(0).integers(0, 1000, (3, 1024, 1024), np.uint16)
    source.give(prediction(0, noise))
    key = (
        "GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\nOrigin: http://127.0.0.1:{0}\r\nUpgrade:"
        " websocket\r\n"
    )
    key += (
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key:"
        " dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as frozen:
        frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        frozen.sendall(key.format(server.port).encode())
        assert b"101" in frozen.recv(200)
        time.sleep(0.3)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < PATIENCE_S


def test_starts_again_on_the_same_port(source):
    server = PreviewServer(source.pairs)
    server.start()
    port = server.port
    server.stop()
    with server:
        assert server.port == port
        assert get(server, "/")[0].status == 200


def test_address_that_is_taken_is_named(server, source):
    with pytest.raises(BindError, match=str(server.port)):
        PreviewServer(source.pairs, port=server.port).start()
    with pytest.raises(BindError):
        PreviewServer(source.pairs, host="192.0.2.1").start()


def test_starts_inside_a_running_loop(source):
    import asyncio

    async def notebook_cell():
        with PreviewServer(source.pairs) as server:
            return (await asyncio.to_thread(get, server, "/"))[0].status

    assert asyncio.run(notebook_cell()) == 200


def test_memory_does_not_grow_with_frames_or_pages(server, source):
    def run(frames):
        with join(server) as page:
            for t in range(frames):
                source.give(measurement(t, GREY), flat(t, 0, 0, 0))
                next_frame(page)

    run(20)
    tracemalloc.start()
    run(20)
    allowed = held() + 300_000
    run(40)
    assert held_falls_below(allowed) < allowed
    tracemalloc.stop()


def test_end_to_end_over_zeromq_without_looking(monkeypatch):
    """A page has what came because it came, not because somebody looks now and then."""
    monkeypatch.setattr("livesr.viewer.browser.feed._LOOK_S", 3600)
    from livesr.formats.wire import FRAME, encode
    from livesr.viewer.frame_pairs import LiveFramePairs
    from livesr.viewer.subscriber import Subscriber

    zmq = pytest.importorskip("zmq")
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        message = flat(5, 0, 1000, 0)
        with (
            Subscriber(f"tcp://127.0.0.1:{port}") as source,
            PreviewServer(LiveFramePairs(source)) as server,
            join(server) as page,
        ):
            assert publisher.poll(60_000)
            time.sleep(0.1)
            publisher.send_multipart(encode(FRAME, message.header, message.pixels))
            header, (composite,) = next_frame(page)
    assert header["pictures"][0]["t"] == 5
    assert np.abs(composite - [255, 0, 255]).max() <= 3
