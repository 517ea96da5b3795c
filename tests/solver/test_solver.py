"""Parameter groups and schedules."""

import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.layers.convolution import ScalarBias
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.solver.build import build_optimizer
from d2_isonet.solver.schedule import epochs_to_iterations

OPTS = ["MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.NUM_CLASSES", "5"]


def config(name: str = "risonet50", *opts: str):
    return load_config(f"configs/imagenet/{name}.yaml", [*OPTS, *opts])


def groups_by_name(cfg):
    model = build_model(cfg)
    names = {id(p): n for n, p in model.named_parameters()}
    optimizer = build_optimizer(cfg, model)
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_shifts_do_not_decay_and_scales_learn_at_a_tenth():
    groups = groups_by_name(config())
    shifts = [g for n, g in groups.items() if n.endswith("shift")]
    scales = [g for n, g in groups.items() if n.endswith("residual_scale")]
    others = [g for n, g in groups.items() if not n.endswith(("shift", "residual_scale"))]
    assert (len(shifts), len(scales)) == (49, 16)
    assert set(shifts) == {(0.1, 0.0)}
    assert set(scales) == {(0.1 * 0.1, 1e-4)}
    assert set(others) == {(0.1, 1e-4)}


def test_every_parameter_is_optimized_once():
    cfg = config("risonet18")
    assert len(groups_by_name(cfg)) == len(list(build_model(cfg).parameters()))


def test_gradient_clipping_is_detectron2s():
    cfg = config("risonet18", "SOLVER.CLIP_GRADIENTS.ENABLED", "True")
    optimizer = build_optimizer(cfg, build_model(cfg))
    assert isinstance(optimizer, torch.optim.SGD)
    assert type(optimizer).__name__ == "SGDWithGradientClip"


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_the_fused_step_is_the_plain_one(name):
    cfg = config("risonet18", "SOLVER.OPTIMIZER", name, "SOLVER.CLIP_GRADIENTS.ENABLED", "True")
    after = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1)).double()
        optimizer = build_optimizer(cfg, model)
        assert all(group["fused"] for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            group["fused"] = fused
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(2, 3, 4, 4, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        after.append([p.detach() for p in model.parameters()])
    for ours, plain in zip(*after, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_loss_scaling_and_a_fused_step_exclude_each_other(precision):
    opts = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", precision]
    cfg = config("risonet18", *opts)
    groups = build_optimizer(cfg, build_model(cfg)).param_groups
    assert {group["fused"] for group in groups} == {precision == "bfloat16"}


class MixedModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoupled = DecoupledConv2d(
            3, 4, 3, norm=nn.BatchNorm2d(4), angular="sigmoid", sigmoid_k_learned=True
        )
        self.activation = nn.PReLU(4)
        self.bias = ScalarBias()
        self.projection = nn.Conv2d(4, 4, 1, bias=False)


def mixed_groups(*opts: str) -> dict[str, tuple[float, float]]:
    cfg, model = config("risonet18", *opts), MixedModel()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = build_optimizer(cfg, model).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_nothing_of_a_decoupled_convolution_decays(optimizer):
    groups = mixed_groups("SOLVER.OPTIMIZER", optimizer)
    names = ("decoupled.weight", "decoupled.radius", "decoupled.sigmoid_k", "activation.weight")
    assert {name: groups[name] for name in names} == dict.fromkeys(names, (0.1, 0.0))
    assert groups["projection.weight"] == (0.1, 1e-4)
    assert groups["decoupled.norm.weight"] == (0.1, config().SOLVER.WEIGHT_DECAY_NORM)


def test_scalar_biases_learn_at_their_own_rate():
    groups = mixed_groups("SOLVER.SCALAR_BIAS_LR_FACTOR", "0.3")
    assert groups["bias.scalar_bias"] == (pytest.approx(0.03), 1e-4)


def test_adam_steps_and_clips_as_detectron2_does():
    cfg = config("risonet18", "SOLVER.OPTIMIZER", "Adam", "SOLVER.CLIP_GRADIENTS.ENABLED", "True")
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.Adam)
    before = model.weight.clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    # Adam's first step is the learning rate, whatever the gradient
    torch.testing.assert_close(before - model.weight, torch.full((2, 2), 0.1))
    assert type(optimizer).__name__ == "AdamWithGradientClip"


def test_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="SOLVER.OPTIMIZER is 'AdamW'.*'SGD', 'Adam'"):
        build_optimizer(config("risonet18", "SOLVER.OPTIMIZER", "AdamW"), nn.Linear(2, 2))


def test_imagenets_epochs_become_the_iterations_of_the_paper():
    cfg = epochs_to_iterations(config(), num_images=1_281_167)
    assert cfg.TEST.EVAL_PERIOD == cfg.SOLVER.CHECKPOINT_PERIOD == 5005
    assert cfg.SOLVER.MAX_ITER == 500_500
    assert cfg.SOLVER.STEPS == (150_150, 300_300, 450_450)
    assert cfg.SOLVER.WARMUP_ITERS == 25_025


def test_a_short_training_drops_the_steps_it_does_not_reach():
    cfg = epochs_to_iterations(config("risonet18", "SOLVER.MAX_EPOCHS", "31"), num_images=256)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (31, (30,))


def test_epochs_of_nothing_are_refused():
    with pytest.raises(ValueError, match="MAX_EPOCHS is 100.*SOLVER.MAX_ITER"):
        epochs_to_iterations(config("risonet18"), num_images=0)


def test_without_epochs_the_schedule_stays():
    cfg = config("risonet18", "SOLVER.MAX_EPOCHS", "0", "SOLVER.MAX_ITER", "7")
    assert epochs_to_iterations(cfg, 100) is cfg


def test_fewer_processes_keep_images_per_process_and_passes_over_the_data():
    cfg = DefaultTrainer.auto_scale_workers(config(), 2)
    cfg = epochs_to_iterations(cfg, num_images=1_281_167)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR) == (64, 0.025)
    assert cfg.SOLVER.MAX_ITER == 100 * 20019


def test_the_rate_warms_up_linearly_and_falls_tenfold_three_times():
    cfg = epochs_to_iterations(config("risonet18"), num_images=2560)  # 10 iterations an epoch
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[25] == pytest.approx(0.05, rel=0.01)
    assert [rates[i] for i in (50, 299, 300, 600, 900, 999)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.001, 1e-4, 1e-4]
    )


def rates(*opts: str, config_file: str = "configs/imagenet/risonet18.yaml") -> dict[str, float]:
    cfg = load_config(config_file, [*OPTS, "SOLVER.BASE_LR", "0.1", *opts])
    return {name: rate for name, (rate, _) in groups_by_name(cfg).items()}


def test_the_backbones_rate_is_multiplied_whatever_else_multiplies_it():
    opts = ("SOLVER.BIAS_LR_FACTOR", "2.0", "SOLVER.WEIGHT_DECAY_BIAS", "0.0")
    before, after = rates(*opts), rates(*opts, "SOLVER.BACKBONE_LR_FACTOR", "0.5")
    for name, rate in before.items():
        factor = 0.5 if name.startswith("backbone.") else 1
        assert after[name] == pytest.approx(rate * factor), name
    assert before["linear.bias"] == after["linear.bias"] == 0.2
    assert after["backbone.res2.0.residual_scale"] == pytest.approx(0.1 * 0.1 * 0.5)


@pytest.mark.parametrize(
    ("network", "pretrained"),
    [
        ("risonet50_c4", ("backbone.", "roi_heads.res5.")),
        ("risonet18_fpn", ("backbone.bottom_up.",)),
    ],
)
def test_a_detectors_pretrained_part_has_the_backbones_rate(network, pretrained):
    opts = ("SOLVER.BACKBONE_LR_FACTOR", "0.1", "MODEL.WEIGHTS", "")
    before = rates("MODEL.WEIGHTS", "", config_file=f"configs/{network}.yaml")
    after = rates(*opts, config_file=f"configs/{network}.yaml")
    slower = {name for name in after if after[name] == pytest.approx(0.1 * before[name])}
    assert slower == {name for name in after if name.startswith(pretrained)}


def test_weight_decay_is_untouched_by_the_backbones_rate():
    decays = [
        {name: decay for name, (_, decay) in groups_by_name(config("risonet18", *opts)).items()}
        for opts in ((), ("SOLVER.BACKBONE_LR_FACTOR", "0.1"))
    ]
    assert decays[0] == decays[1]
