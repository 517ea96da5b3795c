"""What the demo's server lets in, and what it tells a browser to keep out."""

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException

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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guard(app: Flask, host: str) -> None:
    """Let `app` answer in plain words, with headers that keep a page to itself.

    Where it listens for this machine alone, it must be asked by a name of this machine: another
    site's name that was made to lead here (DNS rebinding) is refused.
    """

    @app.before_request
    def require_own_name() -> None:
        # not Flask's TRUSTED_HOSTS, which takes no IPv6 address
        if is_loopback(host) and not is_loopback(_name_in(request.headers.get("Host", ""))):
            abort(403, "this server is asked as 127.0.0.1 or localhost, and by no other name")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def say(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description), error.code or 500

    @app.errorhandler(Exception)
    def say_nothing(error: Exception) -> tuple[Response, int]:
        app.logger.exception("an image could not be looked at")
        return jsonify(error="the server failed on this; its terminal says why"), 500


def _name_in(host_header: str) -> str:
    """The name in "name:port"; "" where there is none."""
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""


def require_own_page() -> None:
    """Refuse an upload that another site's page has a browser send (CSRF)."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in ("same-origin", "none") or (origin and urlsplit(origin).netloc != request.host):
        abort(403, "only the page of this server may send images to it")
    if request.mimetype != UPLOAD_TYPE:  # a type that no other site's form can send
        abort(415, f"send the bytes of the image with Content-Type: {UPLOAD_TYPE}")
