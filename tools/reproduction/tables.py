"""Every table of the papers by name: scale -> Table."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from . import papers, small
from .cells import CLASSIFICATION, DETECTION, ROBUSTNESS, Cell, Row, Table
from .papers import DEPTHS, ISONET, SLIDES, cnn9, imagenet_network

# "For other baselines without normalization or skip connections, we choose the largest learning
# rate that makes them converge" (ISONet section 3.1), which the paper does not print.
_SEARCHED = ("vanilla", "r_vanilla", "isonet34_relu", "isonet34_msra")


def imagenet(network: str) -> Cell:
    """The real run on eight processes."""
    config, opts = imagenet_network(network)
    rates = small.LEARNING_RATES if network.startswith(_SEARCHED) else ()
    return Cell(f"imagenet/{network}", CLASSIFICATION, config, "", opts, rates, processes=8)


def coco(leaf: str, opts: tuple[str, ...] = ()) -> Cell:
    """The real run: configs/{leaf}.yaml on eight processes, from our own pretraining."""
    name = "-".join(["coco/" + leaf, *(opt.split(".")[-1].lower() for opt in opts)])
    weights = imagenet(leaf.replace("_dc5", ""))
    return Cell(name, DETECTION, f"configs/{leaf}.yaml", opts=opts, weights=weights, processes=8)


def depth_at(scale: str, depth: int) -> int:
    """The depth that stands for `depth` of the paper."""
    return small.DEPTHS[depth] if scale == "small" else depth


def classifier(scale: str, network: str, depth: int) -> Cell:
    """A network on ImageNet or, at small scale, on Fashion-MNIST at the corresponding depth."""
    depth = depth_at(scale, depth)
    return small.fashion_mnist(network, depth) if scale == "small" else imagenet(network)


def _classifiers(number: int, title: str, rows: dict, depths: Sequence[int], scale: str) -> Table:
    """A table of the ISONet paper with a column for each depth, {d} in the networks' names."""
    columns = tuple(f"depth {depth_at(scale, d)}" for d in depths)
    made = tuple(
        Row(label, tuple(classifier(scale, network.format(d=d), d) for d in depths), figures)
        for label, (network, figures) in rows.items()
    )
    title = f"{ISONET}, table {number}: {title}"
    return Table(f"table{number}", title, columns, ("top-1",) * len(columns), made)


def _table6(scale: str) -> Table:
    if scale == "small":
        printed = {"R-ISONet": ("36.2, 37.3", "33.0, 34.4"),
                   "ResNet, FrozenBN": ("35.0, 37.0", "32.2, 33.9")}  # fmt: skip
        there = " (there: COCO, with 34 and with 50 layers)"
        detectors = small.detectors()
        rows = [Row(x, (cell, cell), printed.get(x, ("", ""))) for x, cell in detectors.items()]
    else:
        there = ""
        rows = [
            Row(label, (coco(leaf, opts),) * 2, tuple(figures))
            for label, (leaf, opts, *figures) in papers.TABLE6.items()
        ]
    title = f"{ISONET}, table 6: transfer to Mask R-CNN with dilated conv5{there}"
    return Table("table6", title, ("box AP", "mask AP"), ("box AP", "mask AP"), tuple(rows))


_ANGLES = {"linear": "linear", "cosine": "cosine", "sq. cosine": "square_cosine"}
# column -> its angle, and the part that is left out of CNN-9
_NO_BN = {angle: (angle, "bn") for angle in _ANGLES}
_NO_RELU = {
    f"{angle}, {'no' if without else 'with'} ReLU": (angle, without)
    for without in ("relu", "")
    for angle in ("cosine", "sq. cosine")
}


def _network(network: str, label: str, without: str = "") -> str:
    """cnn9_tanh_no_bn of cnn9, TanhConv and bn."""
    operator = label.split(",")[0].removesuffix("Conv").split()[-1].lower()
    return f"{network}_{operator}" + (f"_no_{without}" if without else "")


def _cnn9(scale: str, label: str, angle: str, without: str, data: str = "cifar100") -> Cell:
    """CNN-9 on CIFAR or, at small scale, on Fashion-MNIST."""
    name = _network("cnn9", label, without)
    config, opts = cnn9(name)
    if "baseline" not in name:
        name = f"{name}-{_ANGLES[angle]}"
        opts = (*opts, f"MODEL.DECOUPLED.ANGULAR={_ANGLES[angle]}")
    if scale == "small":
        return small.fashion_mnist_cnn9(name, config, opts)
    return Cell(f"{data}/{name}", CLASSIFICATION, config, data, opts)


def _decoupled(name: str, title: str, columns: dict, errors: dict, scale: str) -> Table:
    """CNN-9 with the operators of the slides, which print errors; our tables show accuracies."""
    rows = []
    for label, printed in errors.items():
        settings = zip(columns.values(), printed, strict=True)
        cells = tuple(_cnn9(scale, label, *setting) if e else None for setting, e in settings)
        figures = (f"{100 - float(e):.2f}" if e[:1].isdigit() else e for e in printed)
        rows.append(Row(label, cells, tuple(figures)))
    measures = ("top-1",) * len(columns)
    return Table(f"decoupled_{name}", f"{SLIDES}: {title}", tuple(columns), measures, tuple(rows))


def _decoupled_imagenet(scale: str) -> Table:
    networks = {
        "standard ResNet-18, BN": ("decoupled18", ""),
        "modified, BN": ("modified18", ""),
        "modified, no BN": ("modified18", "bn"),
    }
    make = small.cutouts_network if scale == "small" else imagenet
    # Seven classes have no top-5 error: the slides' figure is printed with its name.
    measure, unit = ("top-1", " top-5 error") if scale == "small" else ("top-5 error", "")
    rows = []
    for label, errors in papers.SLIDES_IMAGENET.items():
        cells = (make(_network(name, label, without)) for name, without in networks.values())
        rows.append(Row(label, tuple(cells), tuple(f"{error}{unit}" for error in errors)))
    title = f"{SLIDES}: ImageNet (* there: from the weights of an ordinary CNN)"
    return Table("decoupled_imagenet", title, tuple(networks), (measure,) * 3, tuple(rows))


def _decoupled_robustness(scale: str) -> Table:
    rows = []
    for label, figures in papers.SLIDES_ROBUSTNESS.items():
        trained = _cnn9(scale, label, "cosine", "bn" if "no BN" in label else "", "cifar10")
        opts = trained.opts
        if "adversarial" in label:
            adversarial = ("SOLVER.ADVERSARIAL.ATTACK=FGSM", *opts)
            trained = replace(trained, name=f"{trained.name}-adversarial", opts=adversarial)
        name = f"robustness/{trained.name}"
        cell = Cell(name, ROBUSTNESS, trained.config, trained.data, opts, weights=trained)
        rows.append(Row(label, (cell,) * 4, (*figures, "")))
    # The slides show the effort as a picture and name no network, eps or steps: those are ours.
    columns = ("none", "FGSM", "BIM", "L2 effort")
    title = f"{SLIDES}: accuracy of CNN-9, cosine, under white-box attacks of 8 of 255"
    return Table("decoupled_robustness", title, columns, columns, tuple(rows))


TABLES: dict[str, Callable[[str], Table]] = {
    "table1": partial(_classifiers, 1, "isometric components", papers.TABLE1, [34]),
    "table2": partial(_classifiers, 2, "coefficient and form", papers.TABLE2, [34]),
    "table3": partial(_classifiers, 3, "the shift of SReLU", papers.TABLE3, [34]),
    "table4": partial(_classifiers, 4, "ISONet by depth", papers.TABLE4, DEPTHS),
    "table5": partial(_classifiers, 5, "R-ISONet by depth", papers.TABLE5, DEPTHS),
    "table6": _table6,
    "table7": partial(_classifiers, 7, "components on ResNet", papers.TABLE7, [34]),
    "decoupled_no_bn": partial(_decoupled, "no_bn", "CNN-9 without BN", _NO_BN, papers.WITHOUT_BN),
    "decoupled_no_relu": partial(
        _decoupled, "no_relu", "CNN-9 with BN, with and without ReLU", _NO_RELU, papers.WITHOUT_RELU
    ),
    "decoupled_imagenet": _decoupled_imagenet,
    "decoupled_robustness": _decoupled_robustness,
}
