"""One self-contained HTML page. May import utils."""
