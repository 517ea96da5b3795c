"""The small scale: the same configs on Fashion-MNIST and composed photographs, and their data."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from . import papers
from .cells import CLASSIFICATION, DETECTION, Cell
from .papers import imagenet_network
from .training_run import REPOSITORY, data_of_detection

# The papers' depths and the ones that stand for them (6n + 2).
DEPTHS = dict(zip(papers.DEPTHS, (20, 56, 110, 218), strict=True))


def _keys(section: str, **values: object) -> tuple[str, ...]:
    """The KEY=VALUE pairs of a section of the config."""
    return tuple(f"{section}.{key}={value}" for key, value in values.items())


# Fashion-MNIST at half its size: depth 110 takes minutes on one CPU core.
_FASHION_MNIST = (
    "MODEL.ISONET.SMALL_IMAGES=True",
    *_keys("MODEL.RESNETS", STEM_OUT_CHANNELS=16, RES2_OUT_CHANNELS=16, OUT_FEATURES=["res4"]),
    *_keys("MODEL", PIXEL_MEAN="[72.9,72.9,72.9]", PIXEL_STD="[90.0,90.0,90.0]"),
    *_keys("INPUT.CLASSIFICATION", CROP_SIZE=14, RESIZE=14, PADDING=2),
    *_keys("TEST", CLASSIFICATION_BATCH_SIZE=500, EVAL_PERIOD=0),
    "DATALOADER.NUM_WORKERS=0",
    *_keys("SOLVER", REFERENCE_WORLD_SIZE=0, IMS_PER_BATCH=64, MAX_EPOCHS=0, MAX_ITER=600,
           STEPS="(400,520)", WARMUP_ITERS=60, CHECKPOINT_PERIOD=100000),
)  # fmt: skip
# The paper's protocol for networks without a recipe: "the largest learning rate that makes them
# converge". The first is ResNet's and R-ISONet's.
LEARNING_RATES = (0.1, 0.03, 0.01, 0.003)
# CNN-9 trains with Adam; its recipe's is 1e-3.
_ADAM_RATES = (1e-2, 3e-3, 1e-3, 2e-4)
# The slides' ResNet-18 trains with SGD; its recipe's is 0.1 for 40 images, 0.16 for 64.
_SGD_RATES = (0.2, 0.05, 0.01, 0.002)

# The quick start's pretraining, for networks whose yaml has its own recipe.
_CUTOUTS = (
    *_keys("INPUT.CLASSIFICATION", CROP_SIZE=64, RESIZE=72, MIN_AREA=0.35),
    "DATALOADER.NUM_WORKERS=0",
    *_keys("SOLVER", REFERENCE_WORLD_SIZE=0, IMS_PER_BATCH=64, MAX_EPOCHS=5, EPOCH_STEPS="(3,4)",
           WARMUP_EPOCHS=1),
)  # fmt: skip
# Two images a batch, 1,200 iterations.
_TWO_IMAGES = _keys("SOLVER", IMS_PER_BATCH=2, BASE_LR=0.005, MAX_ITER=1200, STEPS="(900,1080)",
                    WARMUP_ITERS=150)  # fmt: skip
_RESNET = (
    *_keys("MODEL.ISONET", ACTIVATION="ReLU", RESIDUAL_SCALE=None, INIT="msra"),
    "SOLVER.ORTHO_COEFF=0",
)
NETWORKS = {
    "risonet18": (),
    "resnet18_bn": (*_RESNET, "MODEL.RESNETS.NORM=BN"),
    "resnet18_gn": (*_RESNET, "MODEL.RESNETS.NORM=GN", "MODEL.ISONET.NORM_GROUPS=8"),
}


def fashion_mnist(network: str, depth: int) -> Cell:
    """A network of the ImageNet tables in the shape for small images."""
    config, opts = imagenet_network(network)
    kept = (opt for opt in opts if not opt.startswith("MODEL.RESNETS.DEPTH="))
    # Minutes are too short for scales that start at 0 and learn at a tenth; Fixup's start at 1.
    scales = () if network.startswith("fixup") else ("SOLVER.RESIDUAL_SCALE_LR_FACTOR=1.0",)
    opts = (f"MODEL.RESNETS.DEPTH={depth}", *kept, *_FASHION_MNIST, *scales)
    name = f"fashion_mnist/{network}/depth{depth}"
    return Cell(name, CLASSIFICATION, config, "fashion_mnist", opts, LEARNING_RATES)


def fashion_mnist_cnn9(name: str, config: str, opts: tuple[str, ...]) -> Cell:
    """A CNN-9 a quarter as wide, on Fashion-MNIST."""
    name, opts = f"fashion_mnist/{name}", (*opts, *_FASHION_MNIST)
    return Cell(name, CLASSIFICATION, config, "fashion_mnist", opts, _ADAM_RATES)


def cutouts_network(network: str) -> Cell:
    """A network of the ImageNet tables, narrow, on the quick start's single objects."""
    width = 16 if network.startswith("decoupled") else 32  # as their 64 and 128 on ImageNet
    config, opts = imagenet_network(network)
    widths = (f"MODEL.RESNETS.{stage}_OUT_CHANNELS={width}" for stage in ("STEM", "RES2"))
    opts = (*opts, *widths, *_CUTOUTS)
    name, data = f"cutouts/{network}", "cutouts/classification"
    lowest = 25.0  # of seven classes
    return Cell(name, CLASSIFICATION, config, data, opts, _SGD_RATES, converges_at=lowest)


def cutouts_pretraining(network: str) -> Cell:
    """The quick start's pretraining of one of NETWORKS."""
    name, data = f"cutouts/{network}", "cutouts/classification"
    config = "configs/quickstart/small_risonet18.yaml"
    return Cell(name, CLASSIFICATION, config, data, NETWORKS[network], converges_at=0.0)


def cutouts_detection(name: str, network: str, *opts: str) -> Cell:
    """The quick start's Mask R-CNN on one of NETWORKS, two images a batch; "_random": untrained."""
    weights = None if name.endswith("_random") else cutouts_pretraining(network)
    config, data = "configs/quickstart/small_risonet18_dc5.yaml", "cutouts/detection"
    opts = (*NETWORKS[network], *opts, *_TWO_IMAGES)
    return Cell(f"detection/{name}", DETECTION, config, data, opts, weights=weights)


_FROZEN_BN, _FREEZE_2 = "MODEL.RESNETS.NORM=FrozenBN", "MODEL.BACKBONE.FREEZE_AT=2"
# label -> other learning rates; name, network and options. The rates: twice the quick start's, and
# further doublings while that helps; half of it too for the rows that it does not help, and for
# the two that are compared first.
_DETECTORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "R-ISONet": (("0.0025", "0.01"), ("risonet18", "risonet18")),
    "R-ISONet, no penalty in fine-tuning": (
        (), ("risonet18_no_penalty", "risonet18", "SOLVER.ORTHO_COEFF=0")),
    "R-ISONet, stem and res2 frozen": ((), ("risonet18_freeze2", "risonet18", _FREEZE_2)),
    "ResNet, FrozenBN": (
        ("0.0025", "0.01", "0.02"), ("resnet18_frozenbn", "resnet18_bn", _FROZEN_BN)),
    "ResNet, FrozenBN, stem and res2 frozen": (
        (), ("resnet18_frozenbn_freeze2", "resnet18_bn", _FROZEN_BN, _FREEZE_2)),
    "ResNet, BN (SyncBN of two processes with one image)": (
        ("0.01", "0.02"), ("resnet18_bn", "resnet18_bn")),
    "ResNet, GN": (("0.0025", "0.01"), ("resnet18_gn", "resnet18_gn")),
    "R-ISONet, random": (("0.01", "0.02"), ("risonet18_random", "risonet18")),
    "ResNet, BN, random": (("0.0025", "0.01"), ("resnet18_bn_random", "resnet18_bn")),
    "ResNet, GN, random": (("0.0025", "0.01"), ("resnet18_gn_random", "resnet18_gn")),
}  # fmt: skip


def detectors() -> dict[str, Cell]:
    """The rows of table 6: the detectors, then those with other learning rates."""
    cells = {label: cutouts_detection(*detector) for label, (_, detector) in _DETECTORS.items()}
    for label, (rates, _) in _DETECTORS.items():
        cell = cells[label]
        for rate in rates:
            opts = (*cell.opts, f"SOLVER.BASE_LR={rate}")
            row = f"{label.partition(' (')[0]}, learning rate {rate}"
            cells[row] = replace(cell, name=f"{cell.name}_rate{rate}", opts=opts)
    return cells


def prepare(name: str, folder: Path) -> None:
    """Make the data unless it is there; a failure ends the program with the tool's message."""
    if name in ("fashion_mnist", "cutouts"):
        script = str(REPOSITORY / "tools" / f"prepare_{name}.py")
        if subprocess.call([sys.executable, script, "--output", str(folder / name)]):
            sys.exit(f"{name}: the data could not be prepared, see above")
    elif name and not (folder / name / "train").is_dir():
        sys.exit(
            f"{name}: cannot be fetched from here; put its images into "
            f"{folder / name}/{{train,val}}/<class>/, or name another folder with --data"
        )


def data_arguments(cell: Cell, folder: Path) -> list[str]:
    """The arguments that tell a script where the data of this cell is."""
    if cell.data == "cutouts/detection":
        return data_of_detection(folder / cell.data)
    return ["--data-root", str(folder / cell.data)] if cell.data else []
