"""The tables of the "Decoupled Networks" slides (CVPR 2018) with the figures printed there."""

from dataclasses import replace

from . import isonet_tables, small
from .cells import CLASSIFICATION, ROBUSTNESS, Cell
from .table import Row, Table

SLIDES = "Decoupled Networks (CVPR 2018, slides)"
CIFAR10, CIFAR100 = "cifar10", "cifar100"
_ANGLES = {"linear": "linear", "cosine": "cosine", "sq. cosine": "square_cosine"}

# CIFAR-100 error without BN, by angular function; "" where the slides have no figure
_WITHOUT_BN = {
    "CNN baseline": ("", "35.30", ""),
    "LinearConv": ("33.39", "31.76", "N/C"),
    "TanhConv": ("32.88", "31.88", "34.26"),
    "SegConv": ("34.69", "30.34", "N/C"),
}
# CIFAR-100 error with BN: cosine and sq. cosine without ReLU, the same with ReLU
_WITHOUT_RELU = {
    "CNN baseline": ("58.24", "", "26.01", ""),
    "SphereConv": ("33.31", "25.90", "26.00", "26.97"),
    "BallConv": ("31.81", "25.43", "25.18", "26.48"),
    "TanhConv": ("32.27", "25.27", "25.15", "26.94"),
    "LinearConv": ("36.49", "24.36", "24.81", "25.14"),
    "SegConv": ("33.57", "24.29", "24.96", "25.04"),
    "LogConv": ("33.62", "24.91", "25.17", "25.85"),
    "MixConv": ("33.46", "24.93", "25.27", "25.77"),
}
# ImageNet top-5 error: standard ResNet-18 with BN, modified with BN, modified without
_IMAGENET = {
    "Baseline": ("12.63", "12.10", "N/C"),
    "SphereConv": ("12.68*", "11.55", "13.30"),
    "LinearConv": ("11.99*", "11.50", "N/C"),
    "TanhConv": ("12.47*", "11.10", "12.79"),
}
# CIFAR-10 accuracy under white-box attacks: none, FGSM, BIM
_ROBUSTNESS = {
    "Baseline": ("85.35", "18.82", "8.67"),
    "SphereConv": ("88.58", "43.64", "8.89"),
    "BallConv": ("91.13", "50.47", "7.74"),
    "TanhConv": ("91.45", "52.60", "10.18"),
    "Baseline, adversarial training": ("83.70", "78.96", "7.96"),
    "SphereConv, adversarial training": ("87.41", "85.98", "35.07"),
    "BallConv, adversarial training": ("87.47", "82.20", "17.38"),
    "TanhConv, adversarial training": ("87.54", "81.46", "19.86"),
    # not in the slides
    "Baseline, no BN": ("", "", ""),
    "SegConv, no BN": ("", "", ""),
    "TanhConv, no BN": ("", "", ""),
    "Baseline, no BN, adversarial training": ("", "", ""),
    "SegConv, no BN, adversarial training": ("", "", ""),
    "TanhConv, no BN, adversarial training": ("", "", ""),
}


def _leaf(network: str, label: str, without: str = "") -> str:
    """cnn9_tanh_no_bn of cnn9, TanhConv and bn."""
    operator = label.split(",")[0].removesuffix("Conv").split()[-1].lower()
    return f"{network}_{operator}" + (f"_no_{without}" if without else "")


def _cnn9(scale: str, label: str, angle: str, without: str, data: str = CIFAR100) -> Cell:
    """CNN-9 on CIFAR or, small, on Fashion-MNIST."""
    leaf = _leaf("cnn9", label, without)
    opts = () if "baseline" in leaf else (f"MODEL.DECOUPLED.ANGULAR={_ANGLES[angle]}",)
    name = "-".join([leaf, *(_ANGLES[angle] for _ in opts)])
    if scale == "small":
        return small.fashion_mnist_cnn9(name, leaf, opts)
    config = f"configs/cifar/{leaf}.yaml"
    return Cell(f"{data}/{name}", CLASSIFICATION, config, data, opts)


def _accuracies(errors: tuple[str, ...]) -> tuple[str, ...]:
    """The slides print errors; our tables accuracies."""
    return tuple(f"{100 - float(e):.2f}" if e and e[0].isdigit() else e for e in errors)


def _table(name: str, title: str, columns: dict, figures: dict, scale: str) -> Table:
    """columns: title -> (angle, what CNN-9 is without)."""
    rows = []
    for label, errors in figures.items():
        cells = [
            _cnn9(scale, label, *setting) if error else None
            for setting, error in zip(columns.values(), errors, strict=True)
        ]
        rows.append(Row(label, tuple(cells), _accuracies(errors)))
    return Table(name, f"{SLIDES}: {title}", tuple(columns), ("top-1",), tuple(rows))


def _without_bn(scale: str) -> Table:
    columns = {angle: (angle, "bn") for angle in _ANGLES}
    return _table("decoupled_no_bn", "CNN-9 without BN", columns, _WITHOUT_BN, scale)


def _without_relu(scale: str) -> Table:
    columns = {
        f"{angle}, {'no' if without else 'with'} ReLU": (angle, without)
        for without in ("relu", "")
        for angle in ("cosine", "sq. cosine")
    }
    title = "CNN-9 with BN, with and without ReLU"
    return _table("decoupled_no_relu", title, columns, _WITHOUT_RELU, scale)


def _imagenet(scale: str) -> Table:
    leaves = {
        "standard ResNet-18, BN": ("decoupled18", ""),
        "modified, BN": ("modified18", ""),
        "modified, no BN": ("modified18", "bn"),
    }
    make = small.cutouts_leaf if scale == "small" else isonet_tables.imagenet
    # Seven classes have no top-5 error; the slides' figure then stands there under its name.
    measure, unit = ("top-1", " top-5 error") if scale == "small" else ("top-5 error", "")
    rows = [
        Row(
            label,
            tuple(make(_leaf(network, label, without)) for network, without in leaves.values()),
            tuple(f"{error}{unit}" for error in errors),
        )
        for label, errors in _IMAGENET.items()
    ]
    title = f"{SLIDES}: ImageNet (* there: from the weights of an ordinary CNN)"
    return Table("decoupled_imagenet", title, tuple(leaves), (measure,), tuple(rows))


def _robustness(scale: str) -> Table:
    rows = []
    for label, figures in _ROBUSTNESS.items():
        without = "bn" if "no BN" in label else ""
        trained = _cnn9(scale, label, "cosine", without, CIFAR10)
        if "adversarial" in label:
            adversarial = ("SOLVER.ADVERSARIAL.ATTACK=FGSM",)
            name = f"{trained.name}-adversarial"
            trained = replace(trained, name=name, opts=(*adversarial, *trained.opts))
        rows.append(Row(label, (_attacked(trained),), (*figures, "")))
    # The effort is a picture on the slides. The network, eps and steps are ours: they name none.
    columns = ("none", "FGSM", "BIM", "L2 effort")
    title = f"{SLIDES}: accuracy of CNN-9, cosine, under white-box attacks of 8 of 255"
    return Table("decoupled_robustness", title, columns, columns, tuple(rows))


def _attacked(trained: Cell) -> Cell:
    """White-box attacks on what `trained` has left behind."""
    return Cell(
        f"robustness/{trained.name}",
        ROBUSTNESS,
        trained.config,
        trained.data,
        tuple(opt for opt in trained.opts if "ADVERSARIAL" not in opt),
        weights=trained,
    )


TABLES = {
    "decoupled_no_bn": _without_bn,
    "decoupled_no_relu": _without_relu,
    "decoupled_imagenet": _imagenet,
    "decoupled_robustness": _robustness,
}
