"""Trainer and main loop that both tasks share; pretraining and detection add to it."""

import argparse
import functools
import logging
import os
import weakref

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils import comm

from .accumulation import AccumulatingTrainer
from .amp import AMPTrainer
from .backbone_builder import architecture
from .best_checkpoint import TrainingEnded
from .categories import categories_record
from .checkpoint import ISONetCheckpointer
from .checkpoint_hook import CheckpointHook
from .command_line import readable_errors
from .compat import create_ddp_model
from .decoupled_training import FilterOrthogonalRegularizer, WeightProjection
from .elastic import remember_run
from .evaluators import build_evaluator
from .forgiving_writer import ForgivingWriter
from .regularizer import OrthogonalRegularizer
from .resumed_training import catch_up, data_order, resumed_seed, start_data, what_is_resumed
from .resuming import checkpoint_to_resume
from .seeding import StepSeed, settle_seed
from .solver import build_optimizer, name_of_optimizer
from .training_hooks import add_training_hooks
from .training_loader import build_detection_loader
from .unreadable_images import NamingDatasetMapper
from .wandb_writer import WandbWriter

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """DefaultTrainer with the orthogonal regularizer, checked weights and a resumable optimizer.

    It trains every detectron2 model; detection is evaluated by COCO's measures.
    """

    def __init__(self, cfg: CfgNode, trust_pickle: bool = False):
        TrainerBase.__init__(self)  # DefaultTrainer's own cannot run on several CPUs
        cfg = settle_seed(self.auto_scale_workers(cfg, comm.get_world_size()))
        self.seed = cfg.SEED
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = create_ddp_model(model)
        self._trainer = _build_step(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = build_checkpointer(
            cfg, model, trust_pickle=trust_pickle, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list:
        hooks = [x for x in super().build_hooks() if not isinstance(x, PeriodicCheckpointer)]
        evaluation = next(i for i, x in enumerate(hooks) if isinstance(x, EvalHook))
        hooks.insert(evaluation, build_checkpoint_hook(self.cfg, self.checkpointer))
        if self.cfg.SOLVER.ORTHO_COEFF != 0:  # a negative one is refused by name
            hooks.insert(
                0, OrthogonalRegularizer(self.cfg.SOLVER.ORTHO_COEFF, self.cfg.SOLVER.ORTHO_FORM)
            )
        if self.cfg.SOLVER.ORTHO_COEFF > 0 and self.cfg.MODEL.ISONET.CONV == "Decoupled":
            logger.warning(
                f"SOLVER.ORTHO_COEFF is {self.cfg.SOLVER.ORTHO_COEFF} with MODEL.ISONET.CONV "
                "'Decoupled': that penalty acts on filters whose length does not count; "
                "SOLVER.FILTER_ORTHO_COEFF is theirs"
            )
        hooks = [StepSeed(), *decoupled_hooks(self.cfg), *hooks]
        return add_training_hooks(self, hooks, functools.partial(build_checkpointer, self.cfg))

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_detection_loader(cfg, NamingDatasetMapper(cfg, True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = NamingDatasetMapper(cfg, False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str):
        return build_evaluator(dataset_name, os.path.join(cfg.OUTPUT_DIR, "inference"))

    def build_writers(self) -> list:
        writers = [ForgivingWriter(writer) for writer in super().build_writers()]
        return [*writers, WandbWriter(self)] if self.cfg.WANDB.ENABLED else writers

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the newest good checkpoint of OUTPUT_DIR, or load MODEL.WEIGHTS.

        Raises:
            ValueError: there are checkpoints, and none is good.
        """
        path = checkpoint_to_resume(self.checkpointer.save_dir) if resume else ""
        if path:
            self.checkpointer.load(path)
            self.start_iter = self.iter + 1
        else:
            self.checkpointer.load(self.cfg.MODEL.WEIGHTS, [])
        if resume:
            logger.info(what_is_resumed(path, self.start_iter, self.max_iter))

    def train(self):
        start_data(self)
        try:
            return super().train()
        except TrainingEnded:  # early, and well: checkpoint and evaluation are done
            return getattr(self, "_last_eval_results", None)

    def before_train(self) -> None:
        super().before_train()
        if 0 < self.start_iter < self.max_iter:
            catch_up(self)

    def state_dict(self) -> dict:
        # v0.6 leaves the optimizer out: its momentum would be lost
        state = {**super().state_dict(), "_trainer": self._trainer.state_dict()}
        # after the last iteration detectron2 counts one further
        state["iteration"] = min(self.iter, self.max_iter - 1)
        return {**state, "data_order": data_order(self)}

    def load_state_dict(self, state_dict: dict) -> None:
        """
        Raises:
            ValueError: the state is that of another optimizer than SOLVER.OPTIMIZER.
        """
        if "_trainer" in state_dict:
            self._check_optimizer(state_dict["_trainer"]["optimizer"]["param_groups"])
        TrainerBase.load_state_dict(self, state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])
        else:
            logger.warning("The checkpoint has no optimizer state: momentum starts from zero")
        self.seed = resumed_seed(self, state_dict.get("data_order"))

    def _check_optimizer(self, saved_groups: list[dict]) -> None:
        asked = name_of_optimizer(self._trainer.optimizer.param_groups)
        found = name_of_optimizer(saved_groups)
        if found != asked:
            raise ValueError(
                f"SOLVER.OPTIMIZER is {asked!r}, but {self.checkpointer.path} is a training with "
                f"{found!r}: set it to that, or start anew with another OUTPUT_DIR"
            )


def decoupled_hooks(cfg: CfgNode) -> list[HookBase]:
    """What SOLVER asks for decoupled filters: their penalty, their projection, or nothing."""
    hooks: list[HookBase] = []
    if cfg.SOLVER.FILTER_ORTHO_COEFF != 0:
        hooks.append(FilterOrthogonalRegularizer(cfg.SOLVER.FILTER_ORTHO_COEFF))
    if cfg.SOLVER.WEIGHT_PROJECTION_PERIOD != 0:
        hooks.append(WeightProjection(cfg.SOLVER.WEIGHT_PROJECTION_PERIOD))
    return hooks


def _build_step(cfg: CfgNode, model, data_loader, optimizer) -> AccumulatingTrainer:
    precision, device_type = cfg.SOLVER.AMP.PRECISION, torch.device(cfg.MODEL.DEVICE).type
    steps = {"accumulate_steps": cfg.SOLVER.ACCUMULATE_STEPS}
    if cfg.SOLVER.AMP.ENABLED and (precision, device_type) != ("float16", "cpu"):
        options = {"precision": precision, "device_type": device_type, **steps}
        return AMPTrainer(model, data_loader, optimizer, **options)
    if cfg.SOLVER.AMP.ENABLED:
        logger.warning(
            "SOLVER.AMP.PRECISION 'float16' needs a GPU: training in float32; a CPU has 'bfloat16'"
        )
    return AccumulatingTrainer(model, data_loader, optimizer, **steps)


def build_checkpointer(cfg: CfgNode, model, **options) -> ISONetCheckpointer:
    """The checkpointer of cfg.OUTPUT_DIR, which knows what network and pixels cfg asks for.

    Its files also record the classes of the training set.
    """
    meta = {**describe(cfg), **categories_record(cfg)}
    from_conv2d = cfg.MODEL.DECOUPLED.FROM_CONV2D
    return ISONetCheckpointer(
        model, cfg.OUTPUT_DIR, expected_meta=meta, from_conv2d=from_conv2d, **options
    )


def build_checkpoint_hook(cfg: CfgNode, checkpointer: ISONetCheckpointer) -> CheckpointHook:
    solver = cfg.SOLVER
    return CheckpointHook(
        checkpointer,
        solver.CHECKPOINT_PERIOD,
        max_to_keep=solver.CHECKPOINT_MAX_TO_KEEP,
        max_failures=solver.CHECKPOINT_MAX_FAILURES,
    )


def describe(cfg: CfgNode) -> dict:
    """The part of backbone.pth's meta record that cfg decides."""
    pixels = {
        "format": cfg.INPUT.FORMAT,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
    }
    return {"architecture": architecture(cfg), "input": pixels}


def evaluate_or_train(cfg: CfgNode, args: argparse.Namespace, trainer_class: type[Trainer]):
    """What follows the set-up in every script; returns the results of the evaluation."""
    if args.eval_only:
        with readable_errors():
            model = _load_for_evaluation(cfg, args, trainer_class)
        with readable_errors(of_this_process=True):
            return trainer_class.test(cfg, model)
    with readable_errors():
        trainer = trainer_class(cfg, trust_pickle=args.trust_pickle)
        if not cfg.MODEL.WEIGHTS and cfg.MODEL.BACKBONE.FREEZE_AT > 0:
            logger.warning(
                f"MODEL.WEIGHTS is '' and MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT}:"
                " the frozen stages keep their initialization; set MODEL.BACKBONE.FREEZE_AT 0"
            )
        trainer.resume_or_load(resume=args.resume)
    if comm.is_main_process():
        remember_run(cfg.OUTPUT_DIR)
    with readable_errors(of_this_process=True):
        return trainer.train()


def _load_for_evaluation(cfg: CfgNode, args: argparse.Namespace, trainer_class: type[Trainer]):
    model = trainer_class.build_model(cfg)
    checkpointer = build_checkpointer(cfg, model, strict=True, trust_pickle=args.trust_pickle)
    path = (args.resume and checkpoint_to_resume(cfg.OUTPUT_DIR)) or cfg.MODEL.WEIGHTS
    if not path:
        raise nothing_to_evaluate(cfg)
    checkpointer.load(path, [])
    return model


def nothing_to_evaluate(cfg: CfgNode) -> ValueError:
    """The error that --eval-only has no weights."""
    return ValueError(
        "--eval-only with MODEL.WEIGHTS '' would evaluate random weights: name a file, or add "
        f"--resume to take the last checkpoint of {cfg.OUTPUT_DIR}"
    )
