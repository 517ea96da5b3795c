"""One self-contained HTML page of tables, figures and images: no network, no other file.

Page("Title").section("Results").table(rows).figure(figure, "caption").images(pictures).write(path)
"""

from .inline import plain_text
from .page import Page, Picture
from .tables import Cell

__all__ = ["Cell", "Page", "Picture", "plain_text"]
