"""From blocks to HTML: the template, and a policy under which nothing but its script runs."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).resolve().parent


def render(**content) -> str:
    """The page as text; all of `content` is escaped.

    The script's digest stands in the page's Content-Security-Policy: no other script runs.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script, style = ((FOLDER / name).read_text("utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("page.html")
    return template.render(**content, style=style, script=script, script_digest=digest)
