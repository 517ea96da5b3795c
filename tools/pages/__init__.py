"""One self-contained HTML page of tables, figures and images: no network, no other file.

Page("Title").section("Results").table(rows).figure(figure, "caption").images(pictures).write(path)
"""

from pages.inline import plain_text
from pages.page import Page, Picture
from pages.tables import Cell

__all__ = ["Cell", "Page", "Picture", "plain_text"]
