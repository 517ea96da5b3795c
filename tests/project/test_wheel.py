"""The package as others install it: an sdist, the wheel built from it, its configs inside."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from config_files import CONFIGS, LEAVES
from repository import REPOSITORY

BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])('dist')"
NAMES = [str(path.relative_to(CONFIGS))[:-5] for path in LEAVES]

# Neither the repository nor its folder is on the path of this one.
LOAD_ALL = """
import json, sys
from pathlib import Path
import d2_isonet
assert Path(d2_isonet.__file__).is_relative_to(sys.argv[1]), d2_isonet.__file__
from d2_isonet.config.model_zoo import config_names
names = config_names()
networks = {name: d2_isonet.get_config(name).MODEL.BACKBONE.NAME for name in names}
assert all(d2_isonet.get_config_file(name).startswith(sys.argv[1]) for name in names)
print(json.dumps(networks))
"""


def build(kind: str, source: Path) -> Path:
    """What setuptools builds from the folder `source`, by itself and without a network."""
    command = [sys.executable, "-W", "ignore", "-c", BUILD, kind]
    process = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return next((source / "dist").iterdir())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The sdist of a copy of what a build reads."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("d2_isonet", "configs"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=lambda *_: ["__pycache__"])
    return build("build_sdist", source)


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """The wheel built from nothing but the sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("build_wheel", next(folder.iterdir()))


def test_the_wheel_holds_every_file_of_configs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("d2_isonet/configs/")}
    files = [p for p in CONFIGS.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert packed == {f"d2_isonet/configs/{path.relative_to(CONFIGS)}" for path in files}


@pytest.mark.slow
def test_every_config_loads_from_an_installed_wheel(wheel, tmp_path):
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", target, wheel], check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD_ALL, str(target)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    networks = json.loads(process.stdout)
    assert list(networks) == sorted(networks) and set(networks) == set(NAMES)
    assert networks["risonet50_fpn"] == "build_isonet_fpn_backbone"
