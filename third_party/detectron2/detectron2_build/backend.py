"""The PEP 517 hooks: fetch the sdist, check it, edit it, and let setuptools build the wheel."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from .edits import apply_edits
from .sdist import obtain_sdist

FOLDER = Path(__file__).resolve().parent.parent

# Small projects that detectron2 installs as detectron2.projects.<name>.
PROJECTS = {
    "point_rend": "projects/PointRend/point_rend",
    "deeplab": "projects/DeepLab/deeplab",
    "panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}


def build_wheel(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """Write detectron2-0.6-py3-none-any.whl into wheel_directory; return its file name."""
    from setuptools import build_meta

    with tempfile.TemporaryDirectory(prefix="detectron2-") as workspace:
        tree = stage(obtain_sdist(Path(workspace)), Path(workspace))
        with _working_directory(tree):
            return build_meta.build_wheel(str(Path(wheel_directory).resolve()))


def build_sdist(sdist_directory: str, config_settings: dict | None = None) -> str:
    """Refuse: this folder is itself the source, and what it builds is not ours to re-publish."""
    raise NotImplementedError("only a wheel can be built here: pip wheel ./third_party/detectron2")


def stage(archive: Path, workspace: Path) -> Path:
    """Unpack the sdist under workspace, edited and ready for setuptools; return that folder."""
    shutil.unpack_archive(archive, workspace / "sdist", format="gztar")
    source, tree = next((workspace / "sdist").iterdir()), workspace / "tree"
    shutil.copytree(source / "detectron2", tree / "detectron2")
    for name, folder in PROJECTS.items():
        shutil.copytree(source / folder, tree / "detectron2" / "projects" / name)
    shutil.copy(source / "LICENSE", tree)
    shutil.copy(FOLDER / "wheel" / "pyproject.toml", tree)
    apply_edits(tree)
    shutil.copytree(FOLDER / "added", tree, dirs_exist_ok=True)
    return tree


@contextlib.contextmanager
def _working_directory(folder: Path):
    """Run the block in folder (contextlib.chdir needs Python 3.11)."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
