"""Every row of options trains, and every impossible combination is refused with its keys."""

import math

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from d2_isonet import add_isonet_config
from d2_isonet.layers.activation import ACTIVATIONS
from d2_isonet.layers.weight_init import FILLS
from d2_isonet.modeling.backbone.checks import check_architecture
from d2_isonet.modeling.roi_heads import ISONetRes5ROIHeads
from d2_isonet.preflight.network import keys_without_effect, outline

ISONET, RESNETS, DECOUPLED = "MODEL.ISONET.", "MODEL.RESNETS.", "MODEL.DECOUPLED."


def options(prefix: str, **values) -> dict:
    return {prefix + key: value for key, value in values.items()}


def resnet(norm: str, **isonet) -> dict:
    values = {"ACTIVATION": "ReLU", "RESIDUAL_SCALE": None, "INIT": "msra", **isonet}
    return options(RESNETS, NORM=norm) | options(ISONET, **values)


def decoupled(magnitude: str, angular: str, **values) -> dict:
    operator = options(DECOUPLED, MAGNITUDE=magnitude, ANGULAR=angular, **values)
    return resnet("", CONV="Decoupled") | operator


# The option table of design.md, and what its rows vary.
NETWORKS = {
    "risonet": {},
    "risonet_channel": options(ISONET, RESIDUAL_SCALE_SHAPE="channel"),
    "isonet": options(ISONET, SHORTCUT=False, RESIDUAL_SCALE=None),
    "resnet_bn": resnet("BN", ZERO_INIT_LAST_NORM=True),
    "resnet_sync_bn": resnet("naiveSyncBN"),
    "resnet_frozen_bn": resnet("FrozenBN"),
    "resnet_gn": resnet("GN"),
    "resnet_gn_4": resnet("GN", NORM_GROUPS=4),
    "r_vanilla": resnet(""),
    "vanilla": resnet("", SHORTCUT=False),
    "vanilla_bn": resnet("BN", SHORTCUT=False),
    "fixup": resnet("", BLOCK="fixup", INIT="fixup", RESIDUAL_SCALE=1.0),
    "decoupled": decoupled("Tanh", "cosine"),
    "decoupled_bn": decoupled("Ball", "linear") | options(RESNETS, NORM="BN"),
    "risonet_decoupled": options(ISONET, CONV="Decoupled"),
}
MODIFIED = resnet("BN", BLOCK="modified", ACTIVATION="PReLU") | options(RESNETS, DEPTH=18)
# One block a stage, 32 channels so that GN has its groups.
SMALL = options(ISONET, SMALL_IMAGES=True) | options(
    RESNETS, DEPTH=8, STEM_OUT_CHANNELS=32, RES2_OUT_CHANNELS=32, OUT_FEATURES=["res4"]
)
LARGE = options(
    RESNETS,
    DEPTH=18,
    STEM_OUT_CHANNELS=32,
    RES2_OUT_CHANNELS=32,
    OUT_FEATURES=["res5"],
    WIDTH_PER_GROUP=32,
)


def config(*rows: dict) -> CfgNode:
    cfg = get_cfg()
    add_isonet_config(cfg)
    base = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.NAME": "build_isonet_backbone",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        RESNETS + "NORM": "",
        RESNETS + "STRIDE_IN_1X1": False,
    }
    for row in (base, *rows):
        cfg.merge_from_list([item for pair in row.items() for item in pair])
    return cfg


def train_once(*rows: dict, size: int = 8) -> torch.nn.Module:
    """The backbone after a forward and a backward pass."""
    cfg = config(*rows)
    backbone = build_backbone(cfg, ShapeSpec(channels=3)).train()
    features = backbone(torch.randn(2, 3, size, size))[cfg.MODEL.RESNETS.OUT_FEATURES[-1]]
    (features * torch.randn_like(features)).sum().backward()
    return backbone


def untrained(*rows: dict, size: int = 8) -> list[str]:
    """The parameters that a backward pass leaves without a finite gradient."""
    trained = [
        (n, p) for n, p in train_once(*rows, size=size).named_parameters() if p.requires_grad
    ]
    assert trained
    return [n for n, p in trained if p.grad is None or not p.grad.isfinite().all()]


def ids(values) -> list[str]:
    return ["-".join(map(str, value)) if isinstance(value, tuple) else value for value in values]


def legal(network: str, activation: str = "ReLU", init: str = "msra") -> bool:
    if network == "fixup":
        return activation != "SReLU" and init == "fixup"
    return init != "fixup" or network == "r_vanilla"


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_with_every_activation(network):
    init = "fixup" if network == "fixup" else "msra"
    for activation in (name for name in ACTIVATIONS if legal(network, name, init)):
        row = options(ISONET, ACTIVATION=activation, INIT=init)
        assert untrained(SMALL, NETWORKS[network], row) == []


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_with_every_initializer(network):
    for init in (name for name in FILLS if legal(network, init=name)):
        assert untrained(SMALL, NETWORKS[network], options(ISONET, INIT=init)) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("init", FILLS)
def test_every_activation_trains_with_every_initializer(activation, init):
    row = options(ISONET, ACTIVATION=activation, INIT=init)
    assert untrained(SMALL, NETWORKS["r_vanilla"], row) == []


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_of_four_stages_trains(network):
    assert untrained(LARGE, NETWORKS[network], size=64) == []


@pytest.mark.parametrize("network", ["risonet", "resnet_bn", "fixup", "decoupled"])
def test_bottlenecks_train(network):
    bottleneck = options(RESNETS, DEPTH=50, RES2_OUT_CHANNELS=64)
    assert untrained(LARGE, bottleneck, NETWORKS[network], size=64) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_modified_resnet_trains_with_every_activation(activation):
    assert untrained(LARGE, MODIFIED, options(ISONET, ACTIVATION=activation), size=64) == []


@pytest.mark.parametrize("norm", ["", "BN", "GN", "FrozenBN"])
@pytest.mark.parametrize("conv", ["Conv2d", "Decoupled"])
def test_the_modified_resnet_trains_with_every_norm_and_convolution(norm, conv):
    row = options(ISONET, CONV=conv) | options(RESNETS, NORM=norm)
    assert untrained(LARGE, MODIFIED, row, size=64) == []


@pytest.mark.parametrize("magnitude", ["Sphere", "Ball", "Tanh", "Linear", "Seg", "Log", "Mix"])
@pytest.mark.parametrize("angular", ["cosine", "linear", "square_cosine", "sigmoid"])
def test_every_decoupled_operator_trains(magnitude, angular):
    for scale in ("batch", "running", "frozen", "none"):
        row = decoupled(magnitude, angular, RADIUS_SCALE=scale, SIGMOID_K_LEARNED=True)
        assert untrained(SMALL, row) == []


@pytest.mark.parametrize("learned", [True, False])
def test_a_shift_has_a_gradient_only_where_it_is_learned(learned):
    backbone = train_once(SMALL, options(ISONET, SHIFT_LEARNED=learned))
    shifts = [p.grad for n, p in backbone.named_parameters() if n.endswith(".shift")]
    assert shifts and all((grad is not None) == learned for grad in shifts)


def test_gn_has_the_groups_that_are_asked_for():
    norms = [m for m in train_once(SMALL, NETWORKS["resnet_gn_4"]).modules()
             if isinstance(m, torch.nn.GroupNorm)]  # fmt: skip
    assert norms and {norm.num_groups for norm in norms} == {4}


def test_a_zeroed_branch_has_gradients_of_zero_but_its_norm_wakes_it():
    block = train_once(SMALL, NETWORKS["resnet_bn"]).res2[0]
    assert not block.conv1.weight.grad.count_nonzero()
    assert block.conv2.norm.weight.grad.count_nonzero()


def test_delta_below_a_norm_and_srelu_starts_with_gradients_a_million_times_too_large():
    def norm_of_gradients(init: str, zero: bool) -> float:
        torch.manual_seed(0)
        row = resnet("BN", ACTIVATION="SReLU", INIT=init, ZERO_INIT_LAST_NORM=zero)
        backbone = train_once(LARGE, options(RESNETS, DEPTH=34), row, size=64)
        return sum(p.grad.square().sum() for p in backbone.parameters()).sqrt().item()

    assert norm_of_gradients("delta", True) > 1e5 * norm_of_gradients("msra", True)
    assert not math.isfinite(norm_of_gradients("delta", False))  # docs/options.md


FIXUP = NETWORKS["fixup"]
FOR_ZERO_NORM = resnet("BN", ZERO_INIT_LAST_NORM=True)
INIT_FIXUP = resnet("", INIT="fixup")
# rows of options, then what the error must name, in order
IMPOSSIBLE = [
    ([FIXUP, options(RESNETS, NORM="BN")], "BLOCK is 'fixup' with .*NORM 'BN'.*''"),
    ([FIXUP, options(ISONET, SHORTCUT=False)], "BLOCK is 'fixup' with .*SHORTCUT False.*True"),
    ([FIXUP, options(ISONET, RESIDUAL_SCALE=None)], "'fixup' with .*RESIDUAL_SCALE None.*1.0"),
    ([FIXUP, options(ISONET, RESIDUAL_SCALE=0.0)], "'fixup' with .*RESIDUAL_SCALE 0.0.*1.0"),
    ([FIXUP, options(ISONET, RESIDUAL_SCALE_SHAPE="channel")], "'fixup' .*'channel'.*'block'"),
    ([FIXUP, options(ISONET, ACTIVATION="SReLU")], "'fixup' with .*ACTIVATION 'SReLU'.*'PReLU'"),
    ([FIXUP, options(ISONET, CONV="Decoupled")], "'fixup' with .*CONV 'Decoupled'.*'Conv2d'"),
    ([FIXUP, options(ISONET, INIT="delta")], "'fixup' with .*INIT 'delta'.*'fixup'"),
    ([MODIFIED, options(RESNETS, DEPTH=34)], "BLOCK is 'modified' with .*DEPTH 34.*18"),
    ([MODIFIED, SMALL, options(RESNETS, DEPTH=18)], "'modified' with .*SMALL_IMAGES True"),
    ([MODIFIED, options(ISONET, SHORTCUT=False)], "'modified' with .*SHORTCUT False.*True"),
    ([MODIFIED, options(ISONET, RESIDUAL_SCALE=0.0)], "'modified' .*RESIDUAL_SCALE 0.0.*null"),
    ([MODIFIED, options(ISONET, ZERO_INIT_LAST_NORM=True)], "'modified' .*LAST_NORM True.*False"),
    ([MODIFIED, options(ISONET, INIT="fixup")], "'modified' with .*INIT 'fixup'"),
    ([MODIFIED, options(ISONET, INIT="delta")], "'modified' with .*INIT 'delta'.*own.*'msra'"),
    (
        [MODIFIED, options(RESNETS, RES2_OUT_CHANNELS=32)],
        "CHANNELS is 64 .*32; .*'modified'.*equal",
    ),
    ([LARGE, options(RESNETS, STEM_OUT_CHANNELS=0)], "STEM_OUT_CHANNELS is 0; .*at least 1"),
    ([LARGE, options(RESNETS, RES2_OUT_CHANNELS=-4)], "RES2_OUT_CHANNELS is -4; .*at least 1"),
    ([options(RESNETS, WIDTH_PER_GROUP=0)], "WIDTH_PER_GROUP is 0; .*at least 1"),
    ([options(RESNETS, NUM_GROUPS=0)], "NUM_GROUPS is 0; .*at least 1"),
    ([options(DECOUPLED, FROM_CONV2D=True)], "FROM_CONV2D is True with .*CONV 'Conv2d'"),
    ([INIT_FIXUP, options(RESNETS, NORM="GN")], "INIT is 'fixup' with .*NORM 'GN'.*''"),
    ([INIT_FIXUP, options(ISONET, SHORTCUT=False)], "INIT is 'fixup' with .*SHORTCUT False.*True"),
    ([INIT_FIXUP, options(ISONET, RESIDUAL_SCALE=0.0)], "INIT is 'fixup' with .*SCALE 0.0.*null"),
    ([INIT_FIXUP, options(ISONET, CONV="Decoupled")], "INIT is 'fixup' with .*CONV 'Decoupled'"),
    ([FOR_ZERO_NORM, options(RESNETS, NORM="")], "LAST_NORM is True with .*NORM ''.*'BN'.*'GN'"),
    ([FOR_ZERO_NORM, options(ISONET, SHORTCUT=False)], "LAST_NORM is True with .*SHORTCUT False"),
    ([FOR_ZERO_NORM, options(ISONET, RESIDUAL_SCALE=0.0)], "LAST_NORM is True .*SCALE 0.0.*null"),
    ([options(ISONET, SHORTCUT=False)], "RESIDUAL_SCALE is 0.0 with .*SHORTCUT False.*null"),
    ([SMALL, resnet("GN", NORM_GROUPS=5)], r"NORM_GROUPS is 5 with .*NORM 'GN'.*divide .*\[32\]"),
    ([SMALL, options(RESNETS, DEPTH=18)], "SMALL_IMAGES is True with .*DEPTH 18.*6n.*14 or 20"),
    ([SMALL, options(RESNETS, DEPTH=2)], "SMALL_IMAGES is True with .*DEPTH 2.*use 8"),
    ([SMALL, options(RESNETS, DEPTH=-7)], "SMALL_IMAGES is True with .*DEPTH -7.*use 8"),
    ([SMALL, options(RESNETS, NUM_GROUPS=2)], "SMALL_IMAGES is True with .*NUM_GROUPS 2.*1"),
    ([SMALL, options(RESNETS, RES5_DILATION=2)], "SMALL_IMAGES is True with .*DILATION 2.*1"),
    ([SMALL, options(RESNETS, OUT_FEATURES=["res5"])], r"FEATURES is \['res5'\].*True.*'res4'\]"),
    ([LARGE, options(RESNETS, OUT_FEATURES=["p5"])], r"FEATURES is \['p5'\].*False.*'res5'\]"),
    ([LARGE, options(RESNETS, OUT_FEATURES=[])], r"OUT_FEATURES is \[\].*'res5'\]"),
    ([SMALL, options(RESNETS, STEM_OUT_CHANNELS=16)], "STEM_OUT_CHANNELS is 16 .*CHANNELS 32"),
    ([LARGE, options(RESNETS, DEPTH=20)], r"DEPTH is 20.*18, 34.*6n \+ 2 with .*SMALL_IMAGES"),
    ([options(ISONET, BLOCK="Fixup")], r"BLOCK is 'Fixup'.*'residual', 'fixup'.*mean fixup"),
    ([options(ISONET, CONV="decoupled")], r"CONV is 'decoupled'.*mean Decoupled"),
    ([options(ISONET, INIT="phase_delta")], "INIT is 'phase_delta'.*'phase_shifted_delta'"),
    ([options(RESNETS, NORM="bn")], r"NORM is 'bn'.*'FrozenBN'.*\('' is none\)"),
    ([decoupled("", "square_cosine")], "ANGULAR is 'square_cosine' with .*MAGNITUDE ''.*'Tanh'"),
    # with Conv2d, too, and without telling of the '' that only Conv2d may have
    ([options(DECOUPLED, MAGNITUDE="Bal")], r"MAGNITUDE is 'Bal'; .*\['Sphere'.*mean Ball"),
    ([options(ISONET, ACTIVATION="srelu")], "ACTIVATION is 'srelu'.*mean SReLU"),
    (
        [decoupled("Seg", "cosine"), options("MODEL.BACKBONE.", CHECKPOINTING=True)],
        "CHECKPOINTING is True with .*RADIUS_SCALE 'batch'.*'frozen' or 'none'",
    ),
    (
        [resnet(""), options(ISONET, RESIDUAL_SCALE=False)],
        "RESIDUAL_SCALE is False; .*a number.*or null",
    ),
    ([resnet(""), options(ISONET, RESIDUAL_SCALE="none")], "RESIDUAL_SCALE is 'none'; .*a number"),
    ([resnet(""), options(ISONET, RESIDUAL_SCALE=[1])], r"RESIDUAL_SCALE is \[1\]; .*a number"),
    ([options(ISONET, RESIDUAL_SCALE=float("nan"))], "RESIDUAL_SCALE is nan; .*a number"),
    ([LARGE, options("MODEL.BACKBONE.", FREEZE_AT=6)], "FREEZE_AT is 6; .*0 .*to 5"),
    ([SMALL, options("MODEL.BACKBONE.", FREEZE_AT=5)], "FREEZE_AT is 5; .*0 .*to 4"),
    ([LARGE, options("MODEL.BACKBONE.", FREEZE_AT=-1)], "FREEZE_AT is -1; .*0 .*to 5"),
]


@pytest.mark.parametrize(("rows", "message"), IMPOSSIBLE, ids=ids([m for _, m in IMPOSSIBLE]))
def test_an_impossible_combination_is_refused_with_both_names_and_the_legal_choices(rows, message):
    with pytest.raises(ValueError, match=f"MODEL.*{message}"):
        check_architecture(config(*rows))


def test_an_operator_without_a_radius_may_be_recomputed():
    row = options("MODEL.BACKBONE.", CHECKPOINTING=True)
    check_architecture(config(decoupled("Linear", "cosine"), row))


def test_a_feature_that_only_a_detector_names_is_refused_with_both_keys():
    cfg = config(options(RESNETS, OUT_FEATURES=["res5"], DEPTH=18))
    with pytest.raises(ValueError, match=r"RPN.IN_FEATURES is .*OUT_FEATURES .*gives no 'res4'"):
        outline(cfg)
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_isonet_fpn_backbone"])
    cfg.merge_from_list(["MODEL.FPN.IN_FEATURES", ["res3", "res5"]])
    with pytest.raises(ValueError, match=r"FPN.IN_FEATURES is .*\['res5'\] gives no 'res3'"):
        outline(cfg)


def test_the_modified_resnet_may_leave_the_width_of_res2_at_its_default():
    check_architecture(config(MODIFIED, options(RESNETS, STEM_OUT_CHANNELS=128)))


@pytest.mark.parametrize(
    "values",
    [
        {"MAGNITUDE": "tanh"},
        {"ANGULAR": "square cosine"},
        {"RADIUS_SCALE": "mean"},
        {"MAGNITUDE": "Mix", "BETA": float("nan")},
        {"RADIUS": 0.0},
        {"RADIUS": float("inf")},
        {"ANGULAR": "sigmoid", "SIGMOID_K": 0.0},
        {"ALPHA": float("nan")},
    ],
    ids=str,
)
def test_an_impossible_decoupled_operator_is_refused(values):
    key = list(values)[-1]
    with pytest.raises(ValueError, match=f"MODEL.DECOUPLED.{key} is "):
        train_once(SMALL, decoupled("Tanh", "cosine"), options(DECOUPLED, **values))


def test_decoupled_options_mean_nothing_to_ordinary_convolutions():
    check_architecture(config(LARGE, options(DECOUPLED, MAGNITUDE="", ANGULAR="square_cosine")))


WITHOUT_EFFECT = [
    ([resnet("BN"), options(ISONET, SHIFT_INIT=-2.0)], "SHIFT_INIT", "ACTIVATION is 'ReLU'"),
    ([resnet("BN"), options(ISONET, SHIFT_LEARNED=False)], "SHIFT_LEARNED", "is 'ReLU'"),
    ([resnet("BN", RESIDUAL_SCALE_SHAPE="channel")], "SHAPE", "RESIDUAL_SCALE is None"),
    ([resnet("BN", NORM_GROUPS=4)], "NORM_GROUPS", "NORM is 'BN'"),
    ([resnet("FrozenBN", ZERO_INIT_LAST_NORM=True)], "LAST_NORM", "NORM is 'FrozenBN'"),
    ([options(DECOUPLED, MAGNITUDE="Ball")], "MAGNITUDE", "CONV is 'Conv2d'"),
    ([decoupled("Tanh", "cosine", SIGMOID_K_LEARNED=True)], "K_LEARNED", "ANGULAR is 'cosine'"),
    ([decoupled("Linear", "cosine", RADIUS_SCALE="frozen")], "SCALE", "MAGNITUDE is 'Linear'"),
    ([decoupled("Tanh", "cosine", BETA=0.25)], "BETA", "MAGNITUDE is 'Tanh'"),
    (
        [decoupled("Tanh", "sigmoid", SIGMOID_K=0.1, SIGMOID_K_LEARNED=True)],
        "SIGMOID_K",
        "SIGMOID_K_LEARNED is True",
    ),
]


@pytest.mark.parametrize(("rows", "key", "reason"), WITHOUT_EFFECT, ids=ids(WITHOUT_EFFECT))
def test_a_key_that_changes_nothing_is_a_warning(rows, key, reason):
    (finding,) = keys_without_effect(config(*rows))
    assert finding.severity == "warning"
    assert f"{key} is " in finding.what and finding.remedy.endswith(reason)


def test_a_key_that_changes_the_network_is_none():
    assert keys_without_effect(config(resnet("GN", NORM_GROUPS=4))) == []
    seg = decoupled("Seg", "sigmoid", BETA=0.25, SIGMOID_K=0.5, RADIUS_SCALE="none")
    assert keys_without_effect(config(seg)) == []
    assert keys_without_effect(config(options(ISONET, SHIFT_LEARNED=False))) == []


def test_a_pyramid_of_a_network_for_small_images_is_refused():
    pyramid = {"MODEL.BACKBONE.NAME": "build_isonet_fpn_backbone"}
    with pytest.raises(ValueError, match="SMALL_IMAGES is True with .*build_isonet_fpn_backbone"):
        build_backbone(config(SMALL, pyramid), ShapeSpec(channels=3))


@pytest.mark.parametrize(
    ("row", "message"),
    [(SMALL, "SMALL_IMAGES is True"), (options(RESNETS, RES5_DILATION=2), "RES5_DILATION is 2")],
)
def test_a_res5_head_of_a_network_for_small_images_or_with_dilation_is_refused(row, message):
    head = {"MODEL.ROI_HEADS.NAME": "ISONetRes5ROIHeads"}
    with pytest.raises(ValueError, match=f"{message} with .*ISONetRes5ROIHeads.*Standard"):
        ISONetRes5ROIHeads._build_res5_block(config(row, head))
