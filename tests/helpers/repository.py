"""Where this repository stands."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / "tools"
HELPERS = REPOSITORY / "tests" / "helpers"
