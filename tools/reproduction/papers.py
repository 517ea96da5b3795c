"""The papers' tables: each row's network and printed figures, then the networks themselves."""

DEPTHS = (18, 34, 50, 101)
ISONET = "Deep Isometric Learning (ICML 2020)"
SLIDES = "Decoupled Networks (CVPR 2018, slides)"

# label -> (network, with {d} for the depth, and a figure for each depth); depth 34
TABLE1 = {
    "(a) ResNet": ("resnet34", ("73.29",)),
    "(b) Vanilla": ("vanilla34", ("63.09",)),
    "(c) delta, penalty": ("isonet34_relu", ("46.83",)),
    "(d) SReLU": ("vanilla34_srelu", ("67.35",)),
    "(e) SReLU, penalty": ("isonet34_msra", ("68.50",)),
    "(f) SReLU, delta": ("isonet34_no_penalty", ("68.55",)),
    "(g) ISONet": ("isonet34_no_dropout", ("70.45",)),
}
TABLE2 = {
    "0": ("isonet34_no_penalty", ("68.55",)),
    "1e-5": ("isonet34_penalty_1e-5", ("70.08",)),
    "3e-5": ("isonet34_penalty_3e-5", ("70.44",)),
    "1e-4": ("isonet34_no_dropout", ("70.45",)),
    "3e-4": ("isonet34_penalty_3e-4", ("69.32",)),
    "1e-4, official form": ("isonet34_official", ("",)),
    "1e-4, flattened form (eq. 16)": ("isonet34_flattened", ("",)),
}
TABLE3 = {
    "(a) ReLU": ("isonet34_relu", ("46.83",)),
    "(b) SReLU, b = -1 fixed": ("isonet34_fixed_shift", ("70.27",)),
    "(c) SReLU, b from -1": ("isonet34_no_dropout", ("70.45",)),
    "(d) SReLU, b from -2": ("isonet34_shift_-2", ("70.04",)),
}
TABLE7 = {
    "(a) ResNet": ("resnet34", ("73.29",)),
    "(b) SReLU": ("resnet34_srelu", ("72.92",)),
    "(c) delta": ("resnet34_delta", ("71.80",)),
    "(d) penalty": ("resnet34_penalty", ("73.60",)),
    "(e) all three": ("resnet34_isometric", ("71.53",)),
}
# the same at depths 18, 34, 50 and 101
TABLE4 = {
    "(a) ResNet": ("resnet{d}", ("69.67", "73.29", "76.60", "77.37")),
    "(b) ResNet, dropout": ("resnet{d}_dropout", ("68.91", "73.35", "76.40", "77.99")),
    "(c) Vanilla": ("vanilla{d}", ("65.67", "63.09", "N/A", "N/A")),
    "(d) Vanilla+BN": ("vanilla_bn{d}", ("68.98", "69.43", "70.00", "N/A")),
    "(e) ISONet": ("isonet{d}_no_dropout", ("67.94", "70.45", "70.73", "70.38")),
    "(f) ISONet, dropout": ("isonet{d}", ("68.10", "70.90", "71.20", "71.01")),
}
TABLE5 = {
    "(a) ResNet": ("resnet{d}", ("69.67", "73.29", "76.60", "77.37")),
    "(b) ResNet, dropout": ("resnet{d}_dropout", ("68.91", "73.35", "76.40", "77.99")),
    "(c) R-Vanilla": ("r_vanilla{d}", ("65.66", "N/A", "N/A", "N/A")),
    "(d) Fixup": ("fixup{d}", ("68.63", "71.28", "72.40", "73.18")),
    "(e) Fixup++": ("fixup{d}_mixup", ("67.37", "72.56", "76.00", "76.17")),
    "(f) R-ISONet": ("risonet{d}_no_dropout", ("69.06", "72.17", "74.20", "75.44")),
    "(g) R-ISONet, dropout": ("risonet{d}", ("69.17", "73.43", "76.18", "77.08")),
}
# label -> (yaml of configs/, options, box AP, mask AP)
TABLE6 = {
    "ResNet-34": ("resnet34_dc5", (), "35.0", "32.2"),
    "R-ISONet-34": ("risonet34_dc5", (), "36.2", "33.0"),
    "ResNet-50": ("resnet50_dc5", (), "37.0", "33.9"),
    "R-ISONet-50": ("risonet50_dc5", (), "37.3", "34.4"),
    "R-ISONet-50, no penalty": ("risonet50_dc5", ("SOLVER.ORTHO_COEFF=0",), "", ""),
    "R-ISONet-50, nothing frozen": ("risonet50_dc5", ("MODEL.BACKBONE.FREEZE_AT=0",), "", ""),
    "ResNet-50, GN": ("resnet50_dc5_gn", (), "", ""),
    "ResNet-50, SyncBN": ("resnet50_dc5_syncbn", (), "", ""),
}

# CIFAR-100 error without BN, by angular function; "" where the slides have no figure
WITHOUT_BN = {
    "CNN baseline": ("", "35.30", ""),
    "LinearConv": ("33.39", "31.76", "N/C"),
    "TanhConv": ("32.88", "31.88", "34.26"),
    "SegConv": ("34.69", "30.34", "N/C"),
}
# CIFAR-100 error with BN: cosine and sq. cosine without ReLU, the same with ReLU
WITHOUT_RELU = {
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
SLIDES_IMAGENET = {
    "Baseline": ("12.63", "12.10", "N/C"),
    "SphereConv": ("12.68*", "11.55", "13.30"),
    "LinearConv": ("11.99*", "11.50", "N/C"),
    "TanhConv": ("12.47*", "11.10", "12.79"),
}
# CIFAR-10 accuracy under white-box attacks: none, FGSM, BIM
SLIDES_ROBUSTNESS = {
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

# The networks: a yaml of configs/ and, for most rows, options on top of it.
_NO_DROPOUT = "MODEL.CLASSIFIER.DROPOUT=0.0"
_RELU, _SRELU = "MODEL.ISONET.ACTIVATION=ReLU", "MODEL.ISONET.ACTIVATION=SReLU"
_DELTA, _MSRA = "MODEL.ISONET.INIT=delta", "MODEL.ISONET.INIT=msra"
_PENALTY, _NO_PENALTY = "SOLVER.ORTHO_COEFF=0.0001", "SOLVER.ORTHO_COEFF=0.0"
_NO_BN, _NO_RELU = "MODEL.RESNETS.NORM=", "MODEL.ISONET.ACTIVATION=Identity"
_SPHERE, _LINEAR = "MODEL.DECOUPLED.MAGNITUDE=Sphere", "MODEL.DECOUPLED.MAGNITUDE=Linear"

# Tables 1 to 3: ISONet-34 without dropout and without one component, or with another number. The
# paper does not print the learning rates of these rows: all start from ISONet's.
_ISONET34 = {
    "isonet34_relu": (_RELU,),
    "isonet34_msra": (_MSRA,),
    "vanilla34_srelu": (_MSRA, _NO_PENALTY),
    "isonet34_no_penalty": (_NO_PENALTY,),
    "isonet34_penalty_1e-5": ("SOLVER.ORTHO_COEFF=0.00001",),
    "isonet34_penalty_3e-5": ("SOLVER.ORTHO_COEFF=0.00003",),
    "isonet34_penalty_3e-4": ("SOLVER.ORTHO_COEFF=0.0003",),
    "isonet34_official": ("SOLVER.ORTHO_FORM=official",),
    "isonet34_flattened": ("SOLVER.ORTHO_FORM=flattened",),
    "isonet34_fixed_shift": ("MODEL.ISONET.SHIFT_LEARNED=False",),
    "isonet34_shift_-2": ("MODEL.ISONET.SHIFT_INIT=-2.0",),
}
# Tables 4, 5 and 7, and the slides. network -> yaml of configs/imagenet, options
IMAGENET: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: ("isonet34", (_NO_DROPOUT, *opts)) for name, opts in _ISONET34.items()},
    "resnet34_srelu": ("resnet34", (_SRELU,)),
    "resnet34_delta": ("resnet34", (_DELTA,)),
    "resnet34_penalty": ("resnet34", (_PENALTY,)),
    "resnet34_isometric": ("resnet34", (_SRELU, _DELTA, _PENALTY)),
    **{f"isonet{d}_no_dropout": (f"isonet{d}", (_NO_DROPOUT,)) for d in DEPTHS},
    **{f"risonet{d}_no_dropout": (f"risonet{d}", (_NO_DROPOUT,)) for d in DEPTHS},
    # the paper gives no probability for ResNet: this is R-ISONet's
    **{f"resnet{d}_dropout": (f"resnet{d}", ("MODEL.CLASSIFIER.DROPOUT=0.4",)) for d in DEPTHS},
    # the alpha of Fixup's code
    **{f"fixup{d}_mixup": (f"fixup{d}", ("INPUT.CLASSIFICATION.MIXUP_ALPHA=0.7",)) for d in DEPTHS},
    **{f"vanilla{d}": ("vanilla34", (f"MODEL.RESNETS.DEPTH={d}",)) for d in (18, 50, 101)},
    **{f"vanilla_bn{d}": ("vanilla_bn34", (f"MODEL.RESNETS.DEPTH={d}",)) for d in (18, 50, 101)},
    **{f"r_vanilla{d}": ("r_vanilla50", (f"MODEL.RESNETS.DEPTH={d}",)) for d in (18, 34, 101)},
    "decoupled18_sphere": ("decoupled18_tanh", (_SPHERE,)),
    "decoupled18_linear": ("decoupled18_tanh", (_LINEAR,)),
    "modified18_sphere": ("modified18_tanh", (_SPHERE,)),
    "modified18_linear": ("modified18_tanh", (_LINEAR,)),
    "modified18_baseline_no_bn": ("modified18_baseline", (_NO_BN,)),
    "modified18_sphere_no_bn": ("modified18_tanh_no_bn", (_SPHERE,)),
    "modified18_linear_no_bn": ("modified18_tanh_no_bn", (_LINEAR,)),
}


def imagenet_network(name: str) -> tuple[str, tuple[str, ...]]:
    """The config file and the options of "isonet34_relu"; a name without options is its yaml's."""
    leaf, opts = IMAGENET.get(name, (name, ()))
    return f"configs/imagenet/{leaf}.yaml", opts


def cnn9(name: str) -> tuple[str, tuple[str, ...]]:
    """The config file and the options of "cnn9_ball_no_bn": the operator, and what is left out."""
    _, operator, *without = name.split("_")
    leaf = "cnn9_baseline" if operator == "baseline" else "cnn9_tanh"
    has_own_yaml = operator in ("baseline", "tanh")
    opts = () if has_own_yaml else (f"MODEL.DECOUPLED.MAGNITUDE={operator.capitalize()}",)
    if without:
        opts += (_NO_BN if without == ["no", "bn"] else _NO_RELU,)
    return f"configs/cifar/{leaf}.yaml", opts
