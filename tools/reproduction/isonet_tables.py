"""Tables 1 to 7 of "Deep Isometric Learning" with the figures printed there."""

from dataclasses import replace

from . import small
from .cells import CLASSIFICATION, DETECTION, Cell
from .table import Row, Table

ISONET = "Deep Isometric Learning (ICML 2020)"

# label -> (leaf, figure); one column, depth 34
_TABLE1 = {
    "(a) ResNet": ("resnet34", "73.29"),
    "(b) Vanilla": ("vanilla34", "63.09"),
    "(c) delta, penalty": ("isonet34_relu", "46.83"),
    "(d) SReLU": ("vanilla34_srelu", "67.35"),
    "(e) SReLU, penalty": ("isonet34_msra", "68.50"),
    "(f) SReLU, delta": ("isonet34_no_penalty", "68.55"),
    "(g) ISONet": ("isonet34_no_dropout", "70.45"),
}
_TABLE2 = {
    "0": ("isonet34_no_penalty", "68.55"),
    "1e-5": ("isonet34_penalty_1e-5", "70.08"),
    "3e-5": ("isonet34_penalty_3e-5", "70.44"),
    "1e-4": ("isonet34_no_dropout", "70.45"),
    "3e-4": ("isonet34_penalty_3e-4", "69.32"),
    "1e-4, official form": ("isonet34_official", ""),
    "1e-4, flattened form (eq. 16)": ("isonet34_flattened", ""),
}
_TABLE3 = {
    "(a) ReLU": ("isonet34_relu", "46.83"),
    "(b) SReLU, b = -1 fixed": ("isonet34_fixed_shift", "70.27"),
    "(c) SReLU, b from -1": ("isonet34_no_dropout", "70.45"),
    "(d) SReLU, b from -2": ("isonet34_shift_-2", "70.04"),
}
_TABLE7 = {
    "(a) ResNet": ("resnet34", "73.29"),
    "(b) SReLU": ("resnet34_srelu", "72.92"),
    "(c) delta": ("resnet34_delta", "71.80"),
    "(d) penalty": ("resnet34_penalty", "73.60"),
    "(e) all three": ("resnet34_isometric", "71.53"),
}
# label -> (leaf with {d} for the depth, figures at 18, 34, 50, 101)
_TABLE4 = {
    "(a) ResNet": ("resnet{d}", ("69.67", "73.29", "76.60", "77.37")),
    "(b) ResNet, dropout": ("resnet{d}_dropout", ("68.91", "73.35", "76.40", "77.99")),
    "(c) Vanilla": ("vanilla{d}", ("65.67", "63.09", "N/A", "N/A")),
    "(d) Vanilla+BN": ("vanilla_bn{d}", ("68.98", "69.43", "70.00", "N/A")),
    "(e) ISONet": ("isonet{d}_no_dropout", ("67.94", "70.45", "70.73", "70.38")),
    "(f) ISONet, dropout": ("isonet{d}", ("68.10", "70.90", "71.20", "71.01")),
}
_TABLE5 = {
    "(a) ResNet": ("resnet{d}", ("69.67", "73.29", "76.60", "77.37")),
    "(b) ResNet, dropout": ("resnet{d}_dropout", ("68.91", "73.35", "76.40", "77.99")),
    "(c) R-Vanilla": ("r_vanilla{d}", ("65.66", "N/A", "N/A", "N/A")),
    "(d) Fixup": ("fixup{d}", ("68.63", "71.28", "72.40", "73.18")),
    "(e) Fixup++": ("fixup{d}_mixup", ("67.37", "72.56", "76.00", "76.17")),
    "(f) R-ISONet": ("risonet{d}_no_dropout", ("69.06", "72.17", "74.20", "75.44")),
    "(g) R-ISONet, dropout": ("risonet{d}", ("69.17", "73.43", "76.18", "77.08")),
}


# "For other baselines without normalization or skip connections, we choose the largest learning
# rate that makes them converge" (ISONet section 3.1), which the paper does not print.
_SEARCHED = ("vanilla", "r_vanilla", "isonet34_relu", "isonet34_msra")


def imagenet(leaf: str) -> Cell:
    """The real run: configs/imagenet/{leaf}.yaml on eight processes."""
    return Cell(
        name=f"imagenet/{leaf}",
        script=CLASSIFICATION,
        config=f"configs/imagenet/{leaf}.yaml",
        learning_rates=small.LEARNING_RATES if leaf.startswith(_SEARCHED) else (),
        processes=8,
    )


def classifier(scale: str, leaf: str, depth: int) -> Cell:
    """A network on ImageNet, or small on Fashion-MNIST at the depth that stands for it."""
    if scale == "small":
        return small.fashion_mnist(leaf, small.DEPTHS[depth])
    return imagenet(leaf)


def _at_depth_34(name: str, title: str, rows: dict, scale: str) -> Table:
    made = tuple(
        Row(label, (classifier(scale, leaf, 34),), (figure,))
        for label, (leaf, figure) in rows.items()
    )
    depth = small.DEPTHS[34] if scale == "small" else 34
    return Table(name, f"{ISONET}, {title}", (f"depth {depth}",), ("top-1",), made)


def _by_depth(name: str, title: str, rows: dict, scale: str) -> Table:
    made = []
    for label, (leaf, figures) in rows.items():
        cells = [classifier(scale, leaf.format(d=d), d) for d in small.DEPTHS]
        made.append(Row(label, tuple(cells), figures))
    shown = small.DEPTHS.values() if scale == "small" else small.DEPTHS
    columns = tuple(f"depth {d}" for d in shown)
    return Table(name, f"{ISONET}, {title}", columns, ("top-1",), tuple(made))


_FROZEN_BN, _FREEZE_2 = "MODEL.RESNETS.NORM=FrozenBN", "MODEL.BACKBONE.FREEZE_AT=2"
_DETECTORS_SMALL = {
    "R-ISONet": small.cutouts_detection("risonet18", "risonet18"),
    "R-ISONet, no penalty in fine-tuning": small.cutouts_detection(
        "risonet18_no_penalty", "risonet18", "SOLVER.ORTHO_COEFF=0"
    ),
    "R-ISONet, stem and res2 frozen": small.cutouts_detection(
        "risonet18_freeze2", "risonet18", _FREEZE_2
    ),
    "ResNet, FrozenBN": small.cutouts_detection("resnet18_frozenbn", "resnet18_bn", _FROZEN_BN),
    "ResNet, FrozenBN, stem and res2 frozen": small.cutouts_detection(
        "resnet18_frozenbn_freeze2", "resnet18_bn", _FROZEN_BN, _FREEZE_2
    ),
    "ResNet, BN (SyncBN of two processes with one image)": small.cutouts_detection(
        "resnet18_bn", "resnet18_bn"
    ),
    "ResNet, GN": small.cutouts_detection("resnet18_gn", "resnet18_gn"),
    "R-ISONet, random": small.cutouts_detection("risonet18_random", "risonet18", pretrained=False),
    "ResNet, BN, random": small.cutouts_detection(
        "resnet18_bn_random", "resnet18_bn", pretrained=False
    ),
    "ResNet, GN, random": small.cutouts_detection(
        "resnet18_gn_random", "resnet18_gn", pretrained=False
    ),
}
# label -> (leaf, options, box AP, mask AP)
_DETECTORS_FULL = {
    "ResNet-34": ("resnet34_dc5", (), "35.0", "32.2"),
    "R-ISONet-34": ("risonet34_dc5", (), "36.2", "33.0"),
    "ResNet-50": ("resnet50_dc5", (), "37.0", "33.9"),
    "R-ISONet-50": ("risonet50_dc5", (), "37.3", "34.4"),
    "R-ISONet-50, no penalty": ("risonet50_dc5", ("SOLVER.ORTHO_COEFF=0",), "", ""),
    "R-ISONet-50, nothing frozen": ("risonet50_dc5", ("MODEL.BACKBONE.FREEZE_AT=0",), "", ""),
    "ResNet-50, GN": ("resnet50_dc5_gn", (), "", ""),
    "ResNet-50, SyncBN": ("resnet50_dc5_syncbn", (), "", ""),
}


def coco(leaf: str, opts: tuple[str, ...] = ()) -> Cell:
    """The real run: configs/{leaf}.yaml on eight processes, from our own pretraining."""
    name = "-".join(["coco/" + leaf, *(opt.split(".")[-1].lower() for opt in opts)])
    return Cell(
        name=name,
        script=DETECTION,
        config=f"configs/{leaf}.yaml",
        opts=opts,
        weights=imagenet(leaf.replace("_dc5", "")),
        processes=8,
    )


def _at_other_rates() -> dict[str, Cell]:
    """The rows at twice the quick start's learning rate, and on as long as that is better; where
    it is not, and for the two that are compared first, at half.
    """
    rates = {
        "R-ISONet": ("0.0025", "0.01"),
        "ResNet, FrozenBN": ("0.0025", "0.01", "0.02"),
        "ResNet, BN (SyncBN of two processes with one image)": ("0.01", "0.02"),
        "ResNet, GN": ("0.0025", "0.01"),
        "R-ISONet, random": ("0.01", "0.02"),
        "ResNet, BN, random": ("0.0025", "0.01"),
        "ResNet, GN, random": ("0.0025", "0.01"),
    }
    cells = {}
    for label, tried in rates.items():
        cell = _DETECTORS_SMALL[label]
        for rate in tried:
            opts = (*cell.opts, f"SOLVER.BASE_LR={rate}")
            name = f"{cell.name}_rate{rate}"
            row = f"{label.partition(' (')[0]}, learning rate {rate}"
            cells[row] = replace(cell, name=name, opts=opts)
    return cells


def _table6(scale: str) -> Table:
    title = f"{ISONET}, table 6: transfer to Mask R-CNN with dilated conv5"
    columns = ("box AP", "mask AP")
    if scale == "small":
        detectors = {**_DETECTORS_SMALL, **_at_other_rates()}
        printed = {"R-ISONet": ("36.2, 37.3", "33.0, 34.4"),
                   "ResNet, FrozenBN": ("35.0, 37.0", "32.2, 33.9")}  # fmt: skip
        rows = tuple(Row(n, (cell,), printed.get(n, ("", ""))) for n, cell in detectors.items())
        title = f"{title} (there: COCO, with 34 and with 50 layers)"
        return Table("table6", title, columns, columns, rows)
    rows = tuple(
        Row(label, (coco(leaf, opts),), (box, mask))
        for label, (leaf, opts, box, mask) in _DETECTORS_FULL.items()
    )
    return Table("table6", title, columns, columns, rows)


TABLES = {
    "table1": lambda s: _at_depth_34("table1", "table 1: isometric components", _TABLE1, s),
    "table2": lambda s: _at_depth_34("table2", "table 2: coefficient and form", _TABLE2, s),
    "table3": lambda s: _at_depth_34("table3", "table 3: the shift of SReLU", _TABLE3, s),
    "table4": lambda s: _by_depth("table4", "table 4: ISONet by depth", _TABLE4, s),
    "table5": lambda s: _by_depth("table5", "table 5: R-ISONet by depth", _TABLE5, s),
    "table6": _table6,
    "table7": lambda s: _at_depth_34("table7", "table 7: components on ResNet", _TABLE7, s),
}
