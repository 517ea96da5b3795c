"""The Trainer for detection, and the base of the one for classification."""

import logging
import os
import weakref

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.checkpoint.files import checkpoint_to_resume
from d2_isonet.data.coco_json import malformed_keypoints_left_out
from d2_isonet.data.loader import build_detection_loader
from d2_isonet.data.unreadable_images import NamingDatasetMapper
from d2_isonet.distributed.lifetime import with_loaders_that_outlive_signals
from d2_isonet.engine.hooks.best_checkpoint import TrainingEnded
from d2_isonet.engine.hooks.build import ordered_hooks
from d2_isonet.evaluation.build import build_evaluator
from d2_isonet.evaluation.per_class import folder_of
from d2_isonet.solver.build import build_optimizer, name_of_optimizer
from d2_isonet.utils.compat import create_ddp_model
from d2_isonet.utils.messages import UserError

from .folder_lock import unlock_folder
from .resuming import catch_up, data_order, resume_message, resumed_seed, settle_seed, start_data
from .train_loop import build_step
from .wandb_writer import WandbWriter
from .writers import tolerant_writers

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """DefaultTrainer with the orthogonal regularizer, validated weights and exact resume.

    It trains every detectron2 model and evaluates detection with COCO's measures.
    """

    def __init__(self, cfg: CfgNode, trust_pickle: bool = False):
        TrainerBase.__init__(self)  # DefaultTrainer's cannot run several processes on CPUs
        cfg = settle_seed(self.auto_scale_workers(cfg, comm.get_world_size()))
        self.seed = cfg.SEED
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = create_ddp_model(model)
        self._trainer = build_step(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = build_checkpointer(
            cfg,
            model,
            (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST),
            trust_pickle=trust_pickle,
            trainer=weakref.proxy(self),
        )
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        return ordered_hooks(self, super().build_hooks(), self.hooks_after_evaluation())

    def hooks_after_evaluation(self) -> list[HookBase]:
        """Hooks of a subclass that use the evaluated and saved weights, for this process."""
        return []

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_detection_loader(cfg, NamingDatasetMapper(cfg, True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = NamingDatasetMapper(cfg, False)
        with malformed_keypoints_left_out():
            loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        return with_loaders_that_outlive_signals(loader)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str):
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:  # their predictions have the same file name
            folder = str(folder_of(folder, dataset_name))
        return build_evaluator(dataset_name, folder, cfg.TEST.DETECTIONS_PER_IMAGE)

    def build_writers(self) -> list[EventWriter]:
        writers = tolerant_writers(self.cfg.OUTPUT_DIR, self.max_iter)
        return [*writers, WandbWriter(self)] if self.cfg.WANDB.ENABLED else writers

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the newest good checkpoint of OUTPUT_DIR, or load MODEL.WEIGHTS.

        Raises UserError if there are checkpoints, but none is good.
        """
        path = checkpoint_to_resume(self.checkpointer.save_dir) if resume else ""
        if path:
            self.checkpointer.load(path)
            self.start_iter = self.iter + 1
        else:
            self.checkpointer.load(self.cfg.MODEL.WEIGHTS, [])
        if resume:
            logger.info(resume_message(path, self.start_iter, self.max_iter))

    def train(self):
        start_data(self)
        try:
            return super().train()
        except TrainingEnded:  # early stopping: checkpoint and evaluation are done
            return getattr(self, "_last_eval_results", None)
        finally:
            unlock_folder(self.cfg.OUTPUT_DIR)

    def before_train(self) -> None:
        super().before_train()
        if 0 < self.start_iter < self.max_iter:
            catch_up(self)

    def state_dict(self) -> dict:
        # v0.6 does not save the optimizer, which would lose its momentum
        state = {**super().state_dict(), "_trainer": self._trainer.state_dict()}
        # detectron2 increments it once more after the last iteration
        state["iteration"] = min(self.iter, self.max_iter - 1)
        return {**state, "data_order": data_order(self)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Raises UserError if the state belongs to another optimizer than SOLVER.OPTIMIZER."""
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
            raise UserError(
                f"SOLVER.OPTIMIZER is {asked!r}, but {self.checkpointer.path} was trained with "
                f"{found!r}",
                f"set it to {found!r}, or start a new training in another OUTPUT_DIR",
            )
