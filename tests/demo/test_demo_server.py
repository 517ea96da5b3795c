"""The demo's server: its answers, and the requests that it refuses."""

import argparse
import contextlib
import http.client
import io
import json
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("flask", reason="Flask is not installed (the extra 'serve')")
pytest.importorskip("waitress", reason="waitress is not installed (the extra 'serve')")

import demo_detector
from PIL import Image

from d2_isonet.demo import server
from d2_isonet.demo import streams as pictures
from d2_isonet.engine.drawing import class_colour

BYTES = {"Content-Type": "application/octet-stream"}


def arguments(**changes) -> argparse.Namespace:
    values = {"host": "127.0.0.1", "max_upload": 0.1, "threshold": 0.5, "weights": "out/final.pth"}
    return argparse.Namespace(**{**values, **changes})


def client_of(detector=None, **changes):
    return server.create_app(
        detector or demo_detector.BrightDetector(), arguments(**changes)
    ).test_client()


def png(pixels: np.ndarray, kind: str = "png", **options) -> bytes:
    """An image file of pixels (H, W, 3), BGR."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(file, kind, **options)
    return file.getvalue()


IMAGE = png(demo_detector.picture((10, 20, 30, 15), (50, 5, 20, 10)))


def detect(client, data: bytes = IMAGE, headers: dict = BYTES, **options):
    return client.post("/detect", data=data, headers=headers, **options)


def test_it_finds_what_is_in_an_image():
    answer = detect(client_of()).json
    assert (answer["width"], answer["height"], answer["note"]) == (80, 60, "")
    red, blue = answer["objects"]
    assert (red["class"], red["box"]) == (0, [10, 20, 40, 35])
    assert red["outlines"] == [[10, 20, 10, 34, 39, 34, 39, 20]]
    assert (blue["class"], blue["box"]) == (2, [50, 5, 70, 15])
    assert answer["picture"].startswith("data:image/jpeg;base64,")
    assert answer["seconds"] >= 0


def test_its_json_is_read_by_pycocotools(tmp_path):
    from pycocotools.coco import COCO

    (tmp_path / "found.json").write_text(json.dumps(detect(client_of()).json["coco"]))
    coco = COCO(str(tmp_path / "found.json"))
    red, blue = coco.loadAnns(coco.getAnnIds())
    assert (red["category_id"], blue["category_id"]) == (3, 9)
    assert red["bbox"] == [10, 20, 30, 15] and coco.annToMask(red).sum() == 30 * 15
    assert red["score"] == pytest.approx(0.9) and coco.cats[9]["name"] == "blue"


def test_the_page_is_told_the_classes_and_the_limits():
    settings = client_of().get("/settings").json
    assert [x["name"] for x in settings["classes"]] == demo_detector.CATEGORIES.names
    assert settings["classes"][1]["colour"] == "#{:02x}{:02x}{:02x}".format(*class_colour(1))
    assert (settings["max_bytes"], settings["least_score"]) == (100_000, 0.05)
    assert settings["weights"] == "final.pth" and settings["named"] is True


def test_the_page_asks_for_nothing_from_elsewhere():
    for name in ("index.html", "style.css", "page.js", "paint.js", "ask.js"):
        text = (server.PAGE / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text
        answer = client_of().get("/" if name == "index.html" else f"/{name}")
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


NO_IMAGES = {
    "0 bytes": b"",
    "no image of a kind that is read": b"<script>alert(1)</script>",
    "image file is truncated": png(np.zeros((200, 200, 3), np.uint8), "jpeg")[:700],
}


@pytest.mark.parametrize("reason", NO_IMAGES)
def test_what_is_no_image_is_refused_in_words(reason):
    answer = detect(client_of(), NO_IMAGES[reason])
    assert answer.status_code == 422
    assert f"this file cannot be shown: {reason}" in answer.json["error"]


def test_an_image_is_known_by_its_content_whatever_it_is_called():
    assert (
        detect(client_of(), png(demo_detector.picture(), "webp", lossless=True)).status_code == 200
    )


def test_a_decompression_bomb_is_not_unpacked(monkeypatch):
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "png")  # 81 million pixels in 10 kB
    assert len(file.getvalue()) < 50_000
    monkeypatch.setattr(pictures, "_upright", lambda *args: pytest.fail("it was decoded"))
    answer = detect(client_of(), file.getvalue())
    assert answer.status_code == 422
    assert "it is 9000 x 9000 and has more than 64 million pixels" in answer.json["error"]


def test_a_file_over_the_limit_is_refused():
    answer = detect(client_of(), bytes(100_001))
    assert answer.status_code == 413
    assert answer.json["error"] == "the file has more than 0.1 MB (--max-upload)"


def test_a_large_image_is_reduced_and_the_page_is_told():
    answer = detect(client_of(), png(np.zeros((10, 3000, 3), np.uint8))).json
    assert (answer["width"], answer["note"]) == (
        2048,
        "reduced from 3000 to 2048 pixels on the long side",
    )


@pytest.mark.parametrize(
    "host, expected",
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("192.168.1.5:8000", 403),
        ("[::1", 403),
    ],
)
def test_it_answers_to_names_of_this_machine_alone(host, expected):
    for path in ("/", "/settings", "/nowhere"):
        status = client_of().get(path, headers={"Host": host}).status_code
        assert status == (404 if expected == 200 and path == "/nowhere" else expected)


def test_on_an_open_address_any_name_will_do():
    headers = {"Host": "workstation.example:8000"}
    assert client_of(host="0.0.0.0").get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ],
)
def test_other_sites_pages_cannot_send_images(headers, expected):
    headers = {"Host": "127.0.0.1:8000", **BYTES, **headers}
    answer = detect(client_of(), headers=headers)
    assert answer.status_code == expected
    assert "Access-Control-Allow-Origin" not in answer.headers


class Failing(demo_detector.BrightDetector):
    def instances(self, images):
        raise RuntimeError("a secret of /home/somebody")


class Refusing(demo_detector.BrightDetector):
    def instances(self, images):
        return [ValueError("the image is 4000 x 1")]


def test_an_error_of_the_server_is_not_told_to_the_browser():
    answer = detect(client_of(Failing()))
    assert answer.status_code == 500
    assert answer.json == {
        "error": "the server failed on this image; its terminal shows the reason"
    }


def test_an_image_that_the_detector_refuses_is_refused_in_its_words():
    answer = detect(client_of(Refusing()))
    assert (answer.status_code, answer.json["error"]) == (422, "the image is 4000 x 1")


class Slow(demo_detector.BrightDetector):
    """Holds every image until `may_go_on`; `most` is the largest number held at the same time."""

    def __init__(self):
        self.entered, self.may_go_on = threading.Semaphore(0), threading.Event()
        self.inside = self.most = 0

    def instances(self, images):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.release()
        assert self.may_go_on.wait(30)
        self.inside -= 1
        return super().instances(images)


def in_threads(app, number: int) -> tuple[list, list]:
    """Threads that send one image each, and the list of their status codes."""
    answers = []
    send = lambda: answers.append(detect(app.test_client()).status_code)  # noqa: E731
    threads = [threading.Thread(target=send) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_one_image_is_looked_at_at_a_time():
    detector = Slow()
    threads, answers = in_threads(server.create_app(detector, arguments()), 3)
    assert detector.entered.acquire(timeout=30)
    detector.may_go_on.set()
    for thread in threads:
        thread.join(30)
    assert answers == [200] * 3 and detector.most == 1


def test_more_than_may_wait_are_told_to_come_again(monkeypatch):
    monkeypatch.setattr(server, "MOST_WAITING", 0)
    detector = Slow()
    app = server.create_app(detector, arguments())
    (thread,), answers = in_threads(app, 1)
    assert detector.entered.acquire(timeout=30)
    refused = detect(app.test_client())
    detector.may_go_on.set()
    thread.join(30)
    assert refused.status_code == 503 and "images are waiting already" in refused.json["error"]
    assert answers == [200] and detect(app.test_client()).status_code == 200


@contextlib.contextmanager
def served(**changes):
    """The address of a running server."""
    args = arguments(**changes)
    with server.open_socket(args.host, 0) as listening:
        app = server.create_app(demo_detector.BrightDetector(), args)
        serving = server.create_server(app, listening, args)
        thread = threading.Thread(target=serving.run, daemon=True)
        thread.start()
        yield listening.getsockname()
        serving.close()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("number", [32, 100])
@pytest.mark.parametrize("rest", [b"X-Slow: ", b"Content-Length: 10000\r\n\r\nabc"])
def test_slow_connections_do_not_keep_out_the_page(number, rest):
    begun = (
        b"POST /detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
    )
    with served() as address, contextlib.ExitStack() as stack:
        for _ in range(number):
            slow = stack.enter_context(socket.create_connection(address))
            slow.sendall(begun + rest)
        begin = time.monotonic()
        for path in ("/", "/page.js", "/settings"):
            connection = http.client.HTTPConnection(*address, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status == 200
            connection.close()
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize("size", [(1_000_000, 1), (1, 1_000_000)])
@pytest.mark.parametrize("mode, kind", [("L", "png"), ("F", "tiff")])
def test_an_image_that_would_be_thinner_than_a_pixel_is_not_decoded(size, mode, kind, monkeypatch):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **({"compression": "tiff_lzw"} if mode == "F" else {}))
    monkeypatch.setattr(pictures, "_upright", lambda *args: pytest.fail("it was decoded"))
    answer = detect(client_of(max_upload=20), file.getvalue())
    said = f"it is {size[0]} x {size[1]}: reduced to 2048 pixels on the long side, it would be thin"
    assert answer.status_code == 422 and said in answer.json["error"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback(host):
    assert server.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_no_loopback(host):
    assert not server.is_loopback(host)


def test_a_port_that_is_taken_is_named():
    with server.open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--host 127.0.0.1 --port {port} cannot .*another"):
            server.open_socket("127.0.0.1", port)


def test_an_address_that_is_not_here_is_named():
    with pytest.raises(ValueError, match="--host 203.0.113.7 --port 0 cannot be opened"):
        server.open_socket("203.0.113.7", 0)


@pytest.mark.parametrize("host, is_warned", [("127.0.0.1", False), ("0.0.0.0", True)])
def test_an_open_address_is_warned_of(host, is_warned, monkeypatch, capsys):
    monkeypatch.setattr(server, "create_server", lambda *a: argparse.Namespace(run=lambda: None))
    with server.open_socket(host, 0) as listening:
        port = listening.getsockname()[1]
        server.serve(demo_detector.BrightDetector(), listening, arguments(host=host))
    told = capsys.readouterr()
    assert ("everyone who can reach this machine can send images" in told.err) == is_warned
    assert f"The page is at http://{host}:{port}/" in told.out


def test_an_upload_is_kept_in_memory(monkeypatch):
    from waitress.buffers import TempfileBasedBuffer

    monkeypatch.setattr(TempfileBasedBuffer, "newfile", lambda self: pytest.fail("a file"))
    noise = np.random.RandomState(0).randint(0, 100, (500, 500, 3), dtype=np.uint8)
    data = png(noise, compress_level=0)  # more than waitress keeps by itself
    with served(max_upload=2) as address:
        connection = http.client.HTTPConnection(*address, timeout=30)
        connection.request("POST", "/detect", data, BYTES)
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["width"] == 500
        assert "Server" not in answer.headers
        connection.close()
