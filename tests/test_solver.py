"""Parameter groups and schedules."""

import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler

from d2_isonet.command_line import load_config
from d2_isonet.solver import build_optimizer, epochs_to_iterations

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
