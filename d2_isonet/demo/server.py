"""A server of a page that shows the objects in an image; it writes no files.

It refuses what pages of other sites send, and its headers restrict the browser.
"""

import argparse
import contextlib
import ctypes
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import waitress
from flask import Flask, Response, abort, jsonify, request
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from d2_isonet.data.image_file import UnreadableImage
from d2_isonet.engine.drawing import class_colour
from d2_isonet.utils.messages import UserError

from .answers import answer_of
from .detector import Detector
from .streams import decode

PAGE = Path(__file__).resolve().parent / "page"
MOST_PIXELS = 64_000_000  # of an uploaded image, before it is reduced
LONGEST = 2048  # pixels; detectors use smaller images, and 100 masks of this size fit in memory
MOST_WAITING = 4  # images in the queue
MOST_CONNECTIONS = 32  # each may hold an upload in memory
THREADS = 8  # more than can wait, so that the page itself always loads
LEAST_SCORE = 0.05  # lower end of the slider on the page
UPLOAD_TYPE = "application/octet-stream"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def open_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens at the address.

    Raises:
        UserError: the port is taken or forbidden, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        what = f"--host {host} --port {port} cannot be opened ({error.strerror or error})"
        raise UserError(what, "give another --port, or 0 for any that is free") from error


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guard(app: Flask, host: str) -> None:
    """Give `app` readable errors and headers that isolate its page.

    If it listens on a loopback address, it refuses requests by any name that is not a name of this
    machine. Another site could point its own name here (DNS rebinding).
    """

    @app.before_request
    def require_own_name() -> None:
        # Flask's TRUSTED_HOSTS accepts no IPv6 address
        if is_loopback(host) and not is_loopback(_name_in(request.headers.get("Host", ""))):
            abort(403, "this server answers to the names 127.0.0.1 and localhost only")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description), error.code or 500

    @app.errorhandler(Exception)
    def hide(error: Exception) -> tuple[Response, int]:
        app.logger.exception("an image could not be processed")
        return jsonify(error="the server failed on this image; its terminal shows the reason"), 500


def _name_in(host_header: str) -> str:
    """The name in "name:port"; "" if there is none."""
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""


def require_own_page() -> None:
    """Refuse an upload that a page of another site sends through the browser (CSRF)."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in ("same-origin", "none") or (origin and urlsplit(origin).netloc != request.host):
        abort(403, "only the page of this server may send images to it")
    if request.mimetype != UPLOAD_TYPE:  # no form of another site can send this type
        abort(415, f"send the bytes of the image with Content-Type: {UPLOAD_TYPE}")


def create_app(detector: Detector, args: argparse.Namespace) -> Flask:
    """The application; `args` are the arguments of the demo command."""
    app = Flask(__name__, static_folder=PAGE, static_url_path="")
    app.config["MAX_CONTENT_LENGTH"] = most_bytes(args)
    guard(app, args.host)
    app.add_url_rule("/", "index", lambda: app.send_static_file("index.html"))
    settings = {
        "classes": [
            {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*class_colour(index))}
            for index, name in enumerate(detector.categories.names)
        ],
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


@contextlib.contextmanager
def _memory_returned() -> Iterator[None]:
    """Give the memory of an image back to the system, of which glibc would keep hundreds of MB."""
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError, OSError, TypeError):  # where there is no glibc
            ctypes.CDLL(None).malloc_trim(0)


def _detect(detector: Detector, turns: Turns) -> Response:
    require_own_page()
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        limit = request.max_content_length or 0
        abort(413, f"the file has more than {limit / 1e6:g} MB (--max-upload)")
    with turns.take(), _memory_returned():
        try:
            pixels = decode(data, MOST_PIXELS, LONGEST)
        except UnreadableImage as error:
            abort(422, f"this file cannot be shown: {error.reason}")
        start = time.perf_counter()
        found = detector.instances([pixels.bgr])[0]
        seconds = time.perf_counter() - start
    if isinstance(found, ValueError):
        abort(422, str(found))
    return jsonify(answer_of(pixels, found, detector.categories, seconds))


class Connection(HTTPChannel):
    """A connection that, if there are too many, closes the oldest one without a whole request.

    So slow senders, who cannot be told from a slow network, never keep out the page.
    """

    def __init__(self, server: TcpWSGIServer, *args, **options):
        others = list(server.active_channels.values())
        unasked = [other for other in others if not (other.requests or other.total_outbufs_len)]
        if len(others) >= MOST_CONNECTIONS and unasked:
            min(unasked, key=lambda other: other.creation_time).handle_close()
        super().__init__(server, *args, **options)


def create_server(app: Flask, listening: socket.socket, args: argparse.Namespace) -> TcpWSGIServer:
    """A waitress server of `app` that keeps uploads in memory."""
    most = most_bytes(args)
    memory = {"inbuf_overflow": most + 1, "outbuf_overflow": 1 << 28}  # no temporary files
    server = waitress.create_server(
        app, sockets=[listening], threads=THREADS, connection_limit=4 * MOST_CONNECTIONS,
        ident=None, max_request_body_size=most, **memory,
    )  # fmt: skip
    server.channel_class = Connection
    return server


def serve(detector: Detector, listening: socket.socket, args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, return the exit code."""
    host, port = listening.getsockname()[:2]
    if not is_loopback(host):
        print(
            f"warning: with --host {args.host}, everyone who can reach this machine can send "
            "images; there is no password and no encryption", file=sys.stderr,
        )  # fmt: skip
    name = f"[{host}]" if ":" in host else host
    print(f"The page is at http://{name}:{port}/ (Ctrl-C ends the server)", flush=True)
    create_server(create_app(detector, args), listening, args).run()
    print("\nended")
    return 0
