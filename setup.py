"""Installation of d2_isonet: lower bounds; constraints.txt has the versions it is tested with."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The __version__ of d2_isonet, without importing it (that would need torch)."""
    lines = (ROOT / "d2_isonet" / "__init__.py").read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("__version__"))


def config_packages() -> list[str]:
    """configs/ and its folders, as they are called below d2_isonet in a wheel."""
    files = (path for path in (ROOT / "configs").rglob("*") if path.suffix in (".yaml", ".py"))
    folders = {path.parent.relative_to(ROOT) for path in files}
    return sorted(".".join(("d2_isonet", *folder.parts)) for folder in folders)


# detectron2 is not named here, because no package index has it: `make` builds and installs it, or
# `pip install ./third_party/detectron2` does; an official one serves as well.
REQUIREMENTS = [
    "torch>=2.6",
    "torchvision>=0.21",
    "numpy>=1.23",
    "Pillow>=9.1",
    "fvcore>=0.1.5.post20220512",
    "iopath>=0.1.9",
    "yacs>=0.1.8",
    "omegaconf>=2.1",
    "pycocotools>=2.0.6",
    "hotcoco>=1.1",
    "opencv-python-headless>=4.5",
    'simplejpeg>=1.9; python_version >= "3.11"',  # Pillow decodes where there is none
    "matplotlib>=3.6",
    "tabulate>=0.8.9",
    "tqdm>=4.60",
    "filelock>=3.12",
    "tensorboard>=2.10",
    "jinja2>=3.1",
]

# what torch.onnx writes with, and what runs it
EXPORT = ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18"]

setup(
    name="d2_isonet",
    version=read_version(),
    description="Norm-free isometric backbones (ISONet, R-ISONet) for Detectron2",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["d2_isonet", "d2_isonet.*"]), *config_packages()],
    package_dir={"d2_isonet.configs": "configs"},
    package_data={
        **{name: ["*.yaml"] for name in config_packages()},
        "d2_isonet.demo": ["page/*"],
        "d2_isonet.reporting.page": ["*.css", "*.html", "*.js"],
    },
    include_package_data=False,  # else an sdist would lack them
    install_requires=REQUIREMENTS,
    extras_require={
        "dev": [
            "pytest>=7.4",
            "ruff>=0.6",
            "foolbox>=3.3.4",
            "hypothesis>=6.100",
            "playwright>=1.40",  # tests of HTML pages, on a Chromium that is already there
            "webdataset>=1.0",
            "flask>=3.0",
            "waitress>=3.0",
            "mypy>=1.11",
            "types-PyYAML>=6.0",
            "types-tabulate>=0.9",
            "types-tqdm>=4.66",
            "pytest-cov>=7.0",
            "pytest-xdist>=3.6",  # `make test` on all cores
            "coverage>=7.10",  # which measures subprocesses
            "markdown-it-py>=3.0",  # tools/check_documents.py
            "pre-commit>=3.8",
            "safetensors>=0.4.5",
            "timm>=1.0.20",
            *EXPORT,
        ],
        "safetensors": ["safetensors>=0.4.5"],  # weights as .safetensors
        "timm": ["timm>=1.0.20"],  # import d2_isonet.timm_models
        "wandb": ["wandb>=0.19"],  # WANDB.ENABLED True; too heavy for dev, one test skips
        "shards": ["webdataset>=1.0"],  # images in tar shards, local or by URL
        "serve": ["flask>=3.0", "waitress>=3.0"],  # the page of tools/demo.py
        "export": [*EXPORT],
    },
)
