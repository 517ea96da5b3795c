"""The networks of the tables: a yaml of configs/ and, for most rows, options on top of it."""

DEPTHS = (18, 34, 50, 101)

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
