"""A server of a page that shows the objects in an image; it writes no files."""

import argparse
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import waitress
from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge

from d2_isonet.utils.messages import UserError

from .answers import answer_of, classes_of
from .detector import Detector
from .guard import guard, is_loopback, require_own_page
from .streams import NoPicture, decode

PAGE = Path(__file__).resolve().parent / "page"
FILES = ("index.html", "style.css", "page.js", "paint.js", "ask.js")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
MOST_PIXELS = 64_000_000  # of an uploaded image, before it is reduced
LONGEST = 2048  # pixels; detectors use smaller images, and 100 masks of this size fit in memory
MOST_WAITING = 4  # images in the queue
THREADS = 8  # more than can wait, so that the page itself always loads
LEAST_SCORE = 0.05  # lower end of the slider on the page


def open_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens at the address.

    Raises:
        UserError: the port is taken or forbidden, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port} cannot be opened ({error.strerror or error})",
            "give another --port, or 0 for any that is free",
        ) from error


def create_app(detector: Detector, args: argparse.Namespace) -> Flask:
    """The application; `args` are the arguments of the demo command."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = most_bytes(args)
    guard(app, args.host)
    for name in FILES:
        app.add_url_rule("/" if name == "index.html" else f"/{name}", name, _file(PAGE / name))
    settings = {
        "classes": classes_of(detector.categories),
        "named": bool(detector.categories.source),
        "threshold": args.threshold,
        "least_score": min(args.threshold, LEAST_SCORE),
        "max_bytes": most_bytes(args),
        "weights": Path(args.weights).name,
    }
    app.add_url_rule("/settings", "settings", lambda: jsonify(settings))
    turns = Turns()
    app.add_url_rule("/detect", "detect", lambda: _detect(detector, turns), methods=["POST"])
    return app


def most_bytes(args: argparse.Namespace) -> int:
    return int(args.max_upload * 1e6)


def _file(path: Path):
    text, kind = path.read_text(encoding="utf-8"), TYPES[path.suffix]
    return lambda: Response(text, mimetype=kind)


class Turns:
    """Lets one image in at a time. A few wait; others are refused with status 503."""

    def __init__(self):
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(1 + MOST_WAITING)

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            abort(503, f"{MOST_WAITING} images are waiting already; try again in a moment")
        try:
            with self._lock:
                yield
        finally:
            self._places.release()


def _detect(detector: Detector, turns: Turns) -> Response:
    require_own_page()
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        limit = request.max_content_length or 0
        abort(413, f"the file has more than {limit / 1e6:g} MB (--max-upload)")
    with turns.take():
        try:
            pixels = decode(data, MOST_PIXELS, LONGEST)
        except NoPicture as error:
            abort(422, f"this file cannot be shown: {error}")
        start = time.perf_counter()
        found = detector.instances([pixels.bgr])[0]
        seconds = time.perf_counter() - start
    if isinstance(found, ValueError):
        abort(422, str(found))
    return jsonify(answer_of(pixels, found, detector.categories, seconds))


def create_server(app: Flask, listening: socket.socket, args: argparse.Namespace):
    """A waitress server of `app` that keeps uploads in memory."""
    most = most_bytes(args)
    return waitress.create_server(
        app,
        sockets=[listening],
        threads=THREADS,
        connection_limit=32,
        max_request_body_size=most,
        inbuf_overflow=most + 1,  # otherwise large uploads go to a temporary file
        outbuf_overflow=1 << 28,
        ident=None,
    )


def serve(detector: Detector, listening: socket.socket, args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, return the exit code."""
    host, port = listening.getsockname()[:2]
    if not is_loopback(host):
        print(
            f"warning: with --host {args.host}, everyone who can reach this machine can send "
            "images; there is no password and no encryption",
            file=sys.stderr,
        )
    name = f"[{host}]" if ":" in host else host
    print(f"The page is at http://{name}:{port}/ (Ctrl-C ends the server)", flush=True)
    create_server(create_app(detector, args), listening, args).run()
    print("\nended")
    return 0
