"""Every network has the numbers of its row in the papers, and every row has a network."""

from config_files import (
    CIFAR,
    DECOUPLED_RECIPE,
    DEPTHS,
    ISONET_RECIPE,
    OPERATORS,
    config,
    name_and_depth,
    named,
)

# ---------------------------------------------------- the tables of Deep Isometric Learning

# name without depth: NORM, ACTIVATION, SHORTCUT, RESIDUAL_SCALE, INIT, ORTHO_COEFF, DROPOUT,
# then what else sets the row apart
TABLES = {
    "resnet": ("BN", "ReLU", True, None, "msra", 0, 0),
    "resnet_dropout": ("BN", "ReLU", True, None, "msra", 0, 0.4),
    "resnet_gn": ("GN", "ReLU", True, None, "msra", 0, 0),
    "resnet_syncbn": ("SyncBN", "ReLU", True, None, "msra", 0, 0),
    "resnet_srelu": ("BN", "SReLU", True, None, "msra", 0, 0),
    "resnet_delta": ("BN", "ReLU", True, None, "delta", 0, 0),
    "resnet_penalty": ("BN", "ReLU", True, None, "msra", 1e-4, 0),
    "resnet_isometric": ("BN", "SReLU", True, None, "delta", 1e-4, 0),
    "vanilla": ("", "ReLU", False, None, "msra", 0, 0),
    "vanilla_srelu": ("", "SReLU", False, None, "msra", 0, 0),
    "vanilla_bn": ("BN", "ReLU", False, None, "msra", 0, 0),
    "r_vanilla": ("", "ReLU", True, None, "msra", 0, 0),
    "fixup": ("", "ReLU", True, 1.0, "fixup", 0, 0),
    "fixup_mixup": ("", "ReLU", True, 1.0, "fixup", 0, 0, {"MIXUP_ALPHA": 0.7}),
    "isonet": ("", "SReLU", False, None, "delta", 1e-4, 0.1),
    "isonet_no_dropout": ("", "SReLU", False, None, "delta", 1e-4, 0),
    "isonet_relu": ("", "ReLU", False, None, "delta", 1e-4, 0),
    "isonet_msra": ("", "SReLU", False, None, "msra", 1e-4, 0),
    "isonet_no_penalty": ("", "SReLU", False, None, "delta", 0, 0),
    "isonet_penalty_1e-5": ("", "SReLU", False, None, "delta", 1e-5, 0),
    "isonet_penalty_3e-5": ("", "SReLU", False, None, "delta", 3e-5, 0),
    "isonet_penalty_3e-4": ("", "SReLU", False, None, "delta", 3e-4, 0),
    "isonet_official": ("", "SReLU", False, None, "delta", 1e-4, 0, {"ORTHO_FORM": "official"}),
    "isonet_flattened": ("", "SReLU", False, None, "delta", 1e-4, 0, {"ORTHO_FORM": "flattened"}),
    "isonet_fixed_shift": ("", "SReLU", False, None, "delta", 1e-4, 0, {"SHIFT_LEARNED": False}),
    "isonet_shift_-2": ("", "SReLU", False, None, "delta", 1e-4, 0, {"SHIFT_INIT": -2.0}),
    "risonet": ("", "SReLU", True, 0.0, "delta", 1e-4, 0.4),
    "risonet_no_dropout": ("", "SReLU", True, 0.0, "delta", 1e-4, 0),
}
USUAL = {"MIXUP_ALPHA": 0, "ORTHO_FORM": "exact", "SHIFT_LEARNED": True, "SHIFT_INIT": -1.0}


@named(ISONET_RECIPE)
def test_a_row_has_its_options(path):
    cfg, (name, depth) = config(path), name_and_depth(path)
    isonet = cfg.MODEL.ISONET
    expected, usual = list(TABLES[name][:7]), USUAL | dict(*TABLES[name][7:])
    if name in ("isonet", "isonet_no_dropout") and depth == 101:
        expected[5] = 3e-4  # section 3.1
    found = [cfg.MODEL.RESNETS.NORM, isonet.ACTIVATION, isonet.SHORTCUT, isonet.RESIDUAL_SCALE]
    assert [*found, isonet.INIT, cfg.SOLVER.ORTHO_COEFF, cfg.MODEL.CLASSIFIER.DROPOUT] == expected
    assert usual == {
        "MIXUP_ALPHA": cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA,
        "ORTHO_FORM": cfg.SOLVER.ORTHO_FORM,
        "SHIFT_LEARNED": isonet.SHIFT_LEARNED,
        "SHIFT_INIT": isonet.SHIFT_INIT,
    }
    assert isonet.BLOCK == ("fixup" if name.startswith("fixup") else "residual")
    assert cfg.MODEL.CLASSIFIER.ZERO_INIT == name.startswith("fixup")
    assert isonet.ZERO_INIT_LAST_NORM == name.startswith("resnet")


@named(ISONET_RECIPE)
def test_pretraining_follows_section_3_1(path):
    solver, name = config(path).SOLVER, name_and_depth(path)[0]
    rates = {"isonet": 0.02, "vanilla": 0.01, "vanilla_srelu": 0.02, "r_vanilla": 0.01}
    rate = rates.get(name, 0.02 if name.startswith("isonet") else 0.1)
    assert (solver.BASE_LR, solver.IMS_PER_BATCH) == (rate, 256)
    assert (solver.MAX_EPOCHS, tuple(solver.EPOCH_STEPS)) == (100, (30, 60, 90))
    assert (solver.WARMUP_EPOCHS, solver.WARMUP_METHOD) == (5, "linear")
    assert (solver.MOMENTUM, solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM) == (0.9, 1e-4, 1e-4)


AT_34 = """resnet34_srelu resnet34_delta resnet34_penalty resnet34_isometric vanilla34_srelu
    isonet34_relu isonet34_msra isonet34_no_penalty isonet34_penalty_1e-5 isonet34_penalty_3e-5
    isonet34_penalty_3e-4 isonet34_official isonet34_flattened isonet34_fixed_shift
    isonet34_shift_-2"""
BY_DEPTH = """resnet{} resnet{}_dropout vanilla{} vanilla_bn{} r_vanilla{} fixup{} fixup{}_mixup
    isonet{} isonet{}_no_dropout risonet{} risonet{}_no_dropout"""


def test_every_row_of_the_tables_is_there():
    promised = {*AT_34.split(), "resnet50_gn", "resnet50_syncbn"}
    promised |= {row.format(depth) for row in BY_DEPTH.split() for depth in DEPTHS}
    assert promised == {p.stem for p in ISONET_RECIPE}


# ------------------------------------------------------------------------- images of 32 pixels

# learning rate, epochs, steps
CIFAR_RECIPES = {
    "resnet": (0.1, 164, (82, 123)),
    "vanilla_bn": (0.1, 164, (82, 123)),
    "vanilla": (0.01, 164, (82, 123)),
    "r_vanilla": (0.01, 164, (82, 123)),
    "fixup": (0.1, 200, (100, 150)),
    "isonet": (0.005, 300, (120, 240)),
    "risonet": (0.025, 300, (120, 240)),
}
CIFAR_RESNETS = [p for p in CIFAR if name_and_depth(p)[0] in CIFAR_RECIPES]


@named(CIFAR)
def test_a_network_for_small_images_crops_padded_ones(path):
    cfg = config(path)
    sizes = cfg.INPUT.CLASSIFICATION
    assert (sizes.CROP_SIZE, sizes.RESIZE, sizes.PADDING) == (32, 32, 4)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == ((), ())
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.ISONET.SMALL_IMAGES) == (128, True)


@named(CIFAR_RESNETS)
def test_a_network_for_small_images_has_the_options_and_recipe_of_its_name(path):
    cfg, (name, depth) = config(path), name_and_depth(path)
    isonet, solver = cfg.MODEL.ISONET, cfg.SOLVER
    found = (cfg.MODEL.RESNETS.NORM, isonet.ACTIVATION, isonet.SHORTCUT, isonet.RESIDUAL_SCALE)
    assert (*found, isonet.INIT, solver.ORTHO_COEFF) == TABLES[name][:6]
    recipe = (solver.BASE_LR, solver.MAX_EPOCHS, tuple(solver.EPOCH_STEPS))
    assert recipe == CIFAR_RECIPES[name]
    assert depth == cfg.MODEL.RESNETS.DEPTH


def test_every_network_for_small_images_is_there():
    promised = {f"{name}{depth}" for name in CIFAR_RECIPES for depth in (20, 56, 110)}
    promised |= {f"decoupled32_{o}" for o in OPERATORS}
    promised |= {f"cnn9_{o}{x}" for o in OPERATORS for x in ("", "_no_bn", "_no_relu")}
    assert promised == {p.stem for p in CIFAR}


# ----------------------------------------------------------- the tables of Decoupled Networks

DECOUPLED = [*DECOUPLED_RECIPE, *(p for p in CIFAR if p not in CIFAR_RESNETS)]


@named(DECOUPLED)
def test_a_decoupled_row_has_the_options_of_its_name(path):
    cfg, (network, operator, *without) = config(path), path.stem.split("_")
    assert operator in OPERATORS
    if operator != "baseline":
        found = (cfg.MODEL.DECOUPLED.MAGNITUDE, cfg.MODEL.DECOUPLED.ANGULAR)
        assert found == (operator.capitalize(), "cosine")
    assert cfg.MODEL.DECOUPLED.RADIUS_SCALE == "batch"  # as released
    activation = "PReLU" if network == "modified18" else "ReLU"
    assert cfg.MODEL.RESNETS.NORM == ("" if without == ["no", "bn"] else "BN")
    assert cfg.MODEL.ISONET.ACTIVATION == ("Identity" if without == ["no", "relu"] else activation)
    assert (cfg.SOLVER.ORTHO_COEFF, cfg.MODEL.ISONET.RESIDUAL_SCALE) == (0, None)


@named(DECOUPLED)
def test_a_decoupled_row_follows_the_released_recipe(path):
    solver, small = config(path).SOLVER, path in CIFAR
    found = (solver.OPTIMIZER, solver.BASE_LR, solver.IMS_PER_BATCH, solver.MAX_ITER)
    assert found == (("Adam", 0.001, 128, 42500) if small else ("SGD", 0.1, 40, 700000))
    steps = (20000, 30000, 37500) if small else (200000, 375000, 550000)
    assert tuple(solver.STEPS) == steps
    assert (solver.MAX_EPOCHS, solver.WARMUP_ITERS) == (0, 0)
    decay = 5e-4 if small else 1e-4
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM) == (decay, decay)


def test_every_row_of_the_slides_imagenet_table_is_there():
    operators = ("baseline", "sphere", "linear", "tanh")
    names = ("decoupled18_{}", "decoupled18_{}_no_bn", "modified18_{}", "modified18_{}_no_bn")
    assert {n.format(o) for n in names for o in operators} == {p.stem for p in DECOUPLED_RECIPE}
