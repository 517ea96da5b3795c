"""The package as others install it: an sdist, its wheel, and every step of a project with it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from config_files import CONFIGS, LEAVES
from document_stage import write_split
from repository import REPOSITORY
from script_arguments import DETECT

from d2_isonet.utils.command_line import is_installed

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


def test_the_wheel_holds_pages_types_and_what_an_index_shows(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.namelist()
        info = next(name for name in packed if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(info).decode()
        script = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
    pages = [x for x in (REPOSITORY / "d2_isonet").rglob("page/*") if x.suffix != ".py"]
    assets = {str(x.relative_to(REPOSITORY)) for x in pages if x.is_file()}
    assert assets and assets | {"d2_isonet/py.typed"} <= set(packed)
    assert "d2-isonet = d2_isonet.__main__:main" in script
    assert "Project-URL: Issues" in metadata and "Classifier: Typing :: Typed" in metadata
    assert (REPOSITORY / "README.md").read_text("utf-8").strip() in metadata
    lines = [x for x in metadata.splitlines() if x.startswith("Requires-Dist: ")]
    always = " ".join(line for line in lines if "extra ==" not in line)
    assert "torch>=" in always and not re.search("jinja2|matplotlib|opencv|flask", always)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of the installed wheel."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", target, wheel], check=True, timeout=120)
    return target


def run(command: list[str], installed: Path, folder: Path) -> subprocess.CompletedProcess:
    """Run it in `folder`, where only the installed wheel is found, not the repository."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-3000:]
    return process


@pytest.mark.slow
def test_every_config_loads_from_an_installed_wheel(installed, tmp_path):
    process = run(
        [sys.executable, "-W", "ignore", "-c", LOAD_ALL, str(installed)], installed, tmp_path
    )
    networks = json.loads(process.stdout)
    assert list(networks) == sorted(networks) and set(networks) == set(NAMES)
    assert networks["risonet50_fpn"] == "build_isonet_fpn_backbone"


@pytest.mark.slow
def test_a_project_needs_nothing_but_the_wheel(installed, tmp_path):
    write_split(tmp_path / "images", tmp_path / "train.json", 6)
    console, module = [str(installed / "bin" / "d2-isonet")], [sys.executable, "-m", "d2_isonet"]
    data = ["--train-annotations", "train.json", "--train-images", "images"]
    data += [word.replace("--train-", "--val-") for word in data]
    trained = ["--config-file", "out/config.yaml", "--weights", "out/model_final.pth"]
    files = ["--input", "images", "--output", "demo", "--score-threshold", "0"]

    run(
        [*console, "check-data", "--annotations", "train.json", "--images", "images"],
        installed,
        tmp_path,
    )
    config = ["--config-file", "quickstart/small_risonet18_dc5"]
    pairs = [*DETECT, "MODEL.WEIGHTS", "", "OUTPUT_DIR", "out"]
    run([*module, "train", *config, *data, *pairs], installed, tmp_path)
    run([*console, "report", "out"], installed, tmp_path)
    if is_installed("onnx"):
        few = ["--images", "images", "--num-images", "1", "--repetitions", "1"]
        run([*module, "export", *trained, *few], installed, tmp_path)
        assert (tmp_path / "output" / "export" / "detector.onnx").is_file()
    run([*console, "demo", *trained, *files], installed, tmp_path)

    (record,) = json.loads((tmp_path / "out" / "runs.json").read_text())
    assert record["command"].startswith("python -m d2_isonet train --config-file quickstart/")
    assert "train.json" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "demo").rglob("*.jpg"))) == 6
