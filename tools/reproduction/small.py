"""The small scale: the same configs on Fashion-MNIST and composed photographs, and their data."""

import subprocess
import sys
from pathlib import Path

from .cells import CLASSIFICATION, DETECTION, Cell
from .networks import DEPTHS as PAPER_DEPTHS
from .networks import imagenet_network
from .training_run import REPOSITORY

# The papers' depths and the ones that stand for them (6n + 2).
DEPTHS = dict(zip(PAPER_DEPTHS, (20, 56, 110, 218), strict=True))

# Fashion-MNIST at half its size: depth 110 takes minutes on one CPU core.
_FASHION_MNIST = (
    "MODEL.ISONET.SMALL_IMAGES=True",
    "MODEL.RESNETS.STEM_OUT_CHANNELS=16",
    "MODEL.RESNETS.RES2_OUT_CHANNELS=16",
    "MODEL.RESNETS.OUT_FEATURES=['res4']",
    "MODEL.PIXEL_MEAN=[72.9,72.9,72.9]",
    "MODEL.PIXEL_STD=[90.0,90.0,90.0]",
    "INPUT.CLASSIFICATION.CROP_SIZE=14",
    "INPUT.CLASSIFICATION.RESIZE=14",
    "INPUT.CLASSIFICATION.PADDING=2",
    "TEST.CLASSIFICATION_BATCH_SIZE=500",
    "TEST.EVAL_PERIOD=0",
    "DATALOADER.NUM_WORKERS=0",
    "SOLVER.REFERENCE_WORLD_SIZE=0",
    "SOLVER.IMS_PER_BATCH=64",
    "SOLVER.MAX_EPOCHS=0",
    "SOLVER.MAX_ITER=600",
    "SOLVER.STEPS=(400,520)",
    "SOLVER.WARMUP_ITERS=60",
    "SOLVER.CHECKPOINT_PERIOD=100000",
)
# A run of minutes is too short for scales that start at 0 and learn at a tenth; Fixup's start at 1.
_FAST_SCALES = ("SOLVER.RESIDUAL_SCALE_LR_FACTOR=1.0",)
# The paper's protocol for networks without a recipe: "the largest learning rate that makes them
# converge". The first is ResNet's and R-ISONet's.
LEARNING_RATES = (0.1, 0.03, 0.01, 0.003)
# CNN-9 trains with Adam; its recipe's is 1e-3.
_ADAM_RATES = (1e-2, 3e-3, 1e-3, 2e-4)
# The slides' ResNet-18 trains with SGD; its recipe's is 0.1 for 40 images, 0.16 for 64.
_SGD_RATES = (0.2, 0.05, 0.01, 0.002)

# The quick start's pretraining, for networks whose yaml has its own recipe.
_CUTOUTS = (
    "INPUT.CLASSIFICATION.CROP_SIZE=64",
    "INPUT.CLASSIFICATION.RESIZE=72",
    "INPUT.CLASSIFICATION.MIN_AREA=0.35",
    "DATALOADER.NUM_WORKERS=0",
    "SOLVER.REFERENCE_WORLD_SIZE=0",
    "SOLVER.IMS_PER_BATCH=64",
    "SOLVER.MAX_EPOCHS=5",
    "SOLVER.EPOCH_STEPS=(3,4)",
    "SOLVER.WARMUP_EPOCHS=1",
)
_CUTOUTS_PRETRAINING = "configs/quickstart/small_risonet18.yaml"
_CUTOUTS_DETECTION = "configs/quickstart/small_risonet18_dc5.yaml"
# Two images a batch, 1,200 iterations.
_TWO_IMAGES = (
    "SOLVER.IMS_PER_BATCH=2",
    "SOLVER.BASE_LR=0.005",
    "SOLVER.MAX_ITER=1200",
    "SOLVER.STEPS=(900,1080)",
    "SOLVER.WARMUP_ITERS=150",
)
_RESNET = (
    "MODEL.ISONET.ACTIVATION=ReLU",
    "MODEL.ISONET.RESIDUAL_SCALE=None",
    "MODEL.ISONET.INIT=msra",
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
    return Cell(
        name=f"fashion_mnist/{network}/depth{depth}",
        script=CLASSIFICATION,
        config=config,
        data="fashion_mnist",
        opts=(
            f"MODEL.RESNETS.DEPTH={depth}",
            *(opt for opt in opts if not opt.startswith("MODEL.RESNETS.DEPTH=")),
            *_FASHION_MNIST,
            *(() if network.startswith("fixup") else _FAST_SCALES),
        ),
        learning_rates=LEARNING_RATES,
    )


def cutouts_pretraining(network: str) -> Cell:
    """The quick start's pretraining of one of NETWORKS."""
    return Cell(
        name=f"cutouts/{network}",
        script=CLASSIFICATION,
        config=_CUTOUTS_PRETRAINING,
        data="cutouts/classification",
        opts=NETWORKS[network],
        converges_at=0.0,
    )


def cutouts_detection(name: str, network: str, *opts: str, pretrained: bool = True) -> Cell:
    """The quick start's Mask R-CNN on one of NETWORKS, two images a batch."""
    return Cell(
        name=f"detection/{name}",
        script=DETECTION,
        config=_CUTOUTS_DETECTION,
        data="cutouts/detection",
        opts=(*NETWORKS[network], *opts, *_TWO_IMAGES),
        weights=cutouts_pretraining(network) if pretrained else None,
    )


def fashion_mnist_cnn9(name: str, config: str, opts: tuple[str, ...]) -> Cell:
    """A CNN-9 a quarter as wide, on Fashion-MNIST."""
    return Cell(
        name=f"fashion_mnist/{name}",
        script=CLASSIFICATION,
        config=config,
        data="fashion_mnist",
        opts=(*opts, *_FASHION_MNIST),
        learning_rates=_ADAM_RATES,
    )


def cutouts_network(network: str) -> Cell:
    """A network of the ImageNet tables, narrow, on the quick start's single objects."""
    width = 16 if network.startswith("decoupled") else 32  # as their 64 and 128 on ImageNet
    config, opts = imagenet_network(network)
    return Cell(
        name=f"cutouts/{network}",
        script=CLASSIFICATION,
        config=config,
        data="cutouts/classification",
        opts=(
            *opts,
            f"MODEL.RESNETS.STEM_OUT_CHANNELS={width}",
            f"MODEL.RESNETS.RES2_OUT_CHANNELS={width}",
            *_CUTOUTS,
        ),
        learning_rates=_SGD_RATES,
        converges_at=25.0,  # of seven classes
    )


_PREPARE = {
    "fashion_mnist": ["tools/prepare_fashion_mnist.py"],
    "cutouts": ["tools/prepare_cutouts.py", "--scale", "small"],
}


def prepare(name: str, folder: Path) -> None:
    """Make the data unless it is there; a failure ends the program with the tool's message.

    "cutouts/classification" and "cutouts/detection" are parts of the data "cutouts".
    """
    name = name.split("/")[0]
    if name in _PREPARE:
        script, *options = _PREPARE[name]
        words = [sys.executable, REPOSITORY / script, "--output", folder / name, *options]
        if subprocess.call([str(w) for w in words]):
            sys.exit(f"{name}: the data could not be prepared, see above")
    elif name and not (folder / name / "train").is_dir():
        sys.exit(
            f"{name}: cannot be fetched from here; put its images into "
            f"{folder / name}/{{train,val}}/<class>/, or name another folder with --data"
        )


def data_arguments(cell: Cell, folder: Path) -> list[str]:
    """The arguments that tell a script where the data of this cell is."""
    if cell.data == "":
        return []
    root = folder / cell.data
    if cell.data != "cutouts/detection":
        return ["--data-root", str(root)]
    words = []
    for split in ("train", "val"):
        words += [f"--{split}-json", str(root / f"instances_{split}.json")]
        words += [f"--{split}-images", str(root / split)]
    return words
