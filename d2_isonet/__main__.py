"""`d2-isonet COMMAND ...` and `python -m d2_isonet COMMAND ...`: every command of the package."""

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from d2_isonet.utils.messages import nearest, quiet_interrupt

COMMANDS = (
    "train",
    "pretrain",
    "train-lazy",
    "check-data",
    "show-data",
    "report",
    "demo",
    "export",
    "isometry",
    "robustness",
    "convert",
    "make-shards",
)


def main() -> int:
    """Run the command that the first argument names; the others are its own."""
    with quiet_interrupt():
        if sys.argv[1:2] == ["--help"] and sys.argv[2:3] and sys.argv[2] in COMMANDS:
            sys.argv[1:] = [sys.argv[2], "--help"]
        command, *arguments = sys.argv[1:] or ["--help"]
        if command in ("-h", "--help"):
            print(overview())
        elif command == "--version":
            print("\n".join(map(version, ("d2_isonet", "detectron2", "torch"))))
        elif command in COMMANDS:
            return module_of(command).main(arguments)
        else:
            hint = nearest(command, COMMANDS, "; d2-isonet alone lists the commands")
            what = "name a command before" if command.startswith("-") else "unknown command"
            print(f"d2-isonet: error: {what} {command!r}{hint}", file=sys.stderr)
            return 2
        return 0


def run_script(command: str) -> None:
    """What a script of a command does: run it with the arguments in sys.argv."""
    with quiet_interrupt():
        sys.exit(module_of(command).main())


def module_of(command: str) -> ModuleType:
    """The module of a command: its docstring, argument_parser(program) and main(arguments)."""
    return importlib.import_module(f"d2_isonet.commands.{command.replace('-', '_')}")


def overview() -> str:
    """The commands with a line each; none of their modules imports torch for that."""
    lines = [f"  {name:12} {(module_of(name).__doc__ or '').splitlines()[0]}" for name in COMMANDS]
    return "\n".join((
        "usage: d2-isonet COMMAND [options]",
        "",
        *lines,
        "",
        "d2-isonet COMMAND --help lists the options of a command and shows examples.",
        "d2-isonet --version prints the versions of d2_isonet, detectron2 and torch.",
    ))  # fmt: skip


def version(package: str) -> str:
    """The name and version of a package, which is not imported: torch takes seconds."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return f"{package} is not installed"
    for name in ("__init__.py", "version.py"):
        file = Path(spec.origin).parent / name
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        found = re.search(r"^__version__ = ['\"](.+)['\"]", text, re.MULTILINE)
        if found:
            return f"{package} {found[1]}"
    return f"{package} {importlib.metadata.version(package)}"


if __name__ == "__main__":
    sys.exit(main())
