"""Requests that the demo's server refuses, and headers that restrict the browser."""

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
