"""Every table of the papers by name: scale -> Table."""

from collections.abc import Callable

from . import decoupled_tables, isonet_tables
from .table import Table

TABLES: dict[str, Callable[[str], Table]] = {**isonet_tables.TABLES, **decoupled_tables.TABLES}
