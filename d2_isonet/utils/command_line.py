"""What a message tells the user to type: this program's name, the packages that are missing."""

import importlib.util
import sys
from pathlib import Path

from .messages import UserError

_PIP_NAMES = {"cv2": "opencv-python-headless"}  # of packages that pip calls by another name


def typed_command() -> list[str]:
    """The words that started this process: ["python", "train_net.py", "--num-gpus", "8"]."""
    return [*_starter(), *sys.argv[1:]]


def typed_program() -> list[str]:
    """Those words without the arguments: ["d2-isonet", "train"] or ["python", "train_net.py"]."""
    starter = _starter()
    return [*starter, *sys.argv[1:2]] if starter[-1] in ("d2-isonet", "d2_isonet") else starter


def _starter() -> list[str]:
    program = Path(sys.argv[0])
    if program.stem == "d2-isonet":
        return ["d2-isonet"]
    if program.parts[-2:] == ("d2_isonet", "__main__.py"):
        return ["python", "-m", "d2_isonet"]
    return ["python", sys.argv[0]]


def require_packages(*names: str, needed_by: str) -> None:
    """Check that optional packages are installed; nothing is imported.

    Args:
        names: as they are imported.
        needed_by: what cannot be done without them, the subject of the message.

    Raises:
        UserError: some are missing; the message has the `pip install` that brings them.
    """
    missing = [name for name in names if not is_installed(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        what = f"{needed_by} needs {' and '.join(missing)}, which {verb} not installed"
        packages = " ".join(_PIP_NAMES.get(name, name) for name in missing)
        raise UserError(what, f"pip install {packages}")


def is_installed(name: str) -> bool:
    """Whether a top-level package can be imported; a folder without code is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None
