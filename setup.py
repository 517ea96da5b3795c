"""Installation of d2_isonet: lower bounds; constraints.txt has the versions it is tested with."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
HOME = "https://github.com/OWNER/d2_isonet"  # a placeholder, until the repository has a home


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
    "PyYAML>=5.1",
    "omegaconf>=2.1",
    "pycocotools>=2.0.6",
    "hotcoco>=1.1",
    'simplejpeg>=1.9; python_version >= "3.11"',  # Pillow decodes where there is none
    "tabulate>=0.8.9",
    "tqdm>=4.60",
    "filelock>=3.12",
    "tensorboard>=2.10",
]

# What some commands and options need. A message names what is missing and the `pip install`.
EXTRAS = {
    "demo": ["opencv-python-headless>=4.5"],  # d2-isonet demo
    "export": ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18"],  # d2-isonet export, to ONNX
    "report": [  # pages and pictures: d2-isonet report, show-data, isometry, robustness
        "jinja2>=3.1",
        "matplotlib>=3.6",
        "opencv-python-headless>=4.5",
    ],
    "safetensors": ["safetensors>=0.4.5"],  # weights as .safetensors
    "serve": ["flask>=3.0", "waitress>=3.0"],  # d2-isonet demo --serve
    "shards": ["webdataset>=1.0"],  # images in tar shards, local or by URL
    "timm": ["timm>=1.0.20"],  # d2_isonet.hub.timm_models, d2-isonet isometry --timm
}

setup(
    name="d2_isonet",
    version=read_version(),
    description="Norm-free isometric backbones (ISONet, R-ISONet) for Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    url=HOME,
    project_urls={
        "Documentation": f"{HOME}/tree/main/docs",
        "Changelog": f"{HOME}/blob/main/CHANGELOG.md",
        "Issues": f"{HOME}/issues",
    },
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=["d2_isonet", "d2_isonet.*"]), *config_packages()],
    package_dir={"d2_isonet.configs": "configs"},
    package_data={
        **{name: ["*.yaml"] for name in config_packages()},
        "d2_isonet": ["py.typed"],
        "d2_isonet.demo": ["page/*"],
        "d2_isonet.reporting.page": ["*.css", "*.html", "*.js"],
    },
    include_package_data=False,  # else an sdist would lack them
    install_requires=REQUIREMENTS,
    entry_points={"console_scripts": ["d2-isonet = d2_isonet.__main__:main"]},
    extras_require={
        **EXTRAS,
        "wandb": ["wandb>=0.19"],  # WANDB.ENABLED True; too heavy for dev, one test skips
        "dev": [
            *sorted({requirement for extra in EXTRAS.values() for requirement in extra}),
            "pytest>=7.4",
            "ruff>=0.6",
            "foolbox>=3.3.4",
            "hypothesis>=6.100",
            "playwright>=1.40",  # tests of HTML pages, on a Chromium that is already there
            "mypy>=1.11",
            "types-PyYAML>=6.0",
            "types-tabulate>=0.9",
            "types-tqdm>=4.66",
            "pytest-cov>=7.0",
            "pytest-xdist>=3.6",  # `make test` on all cores
            "coverage>=7.10",  # which measures subprocesses
            "markdown-it-py>=3.0",  # tools/check_documents.py
            "pre-commit>=3.8",
        ],
    },
)
