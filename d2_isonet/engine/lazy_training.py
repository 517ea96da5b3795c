"""detectron2's training from a LazyConfig, with the orthogonal penalty and safe checkpoints."""

import argparse
import logging
import os
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_setup, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import nn

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
from d2_isonet.checkpoint.files import checkpoint_to_resume
from d2_isonet.data.categories import classes_of_data_sets, record_of_data_sets
from d2_isonet.distributed.lifetime import with_loaders_that_outlive_signals
from d2_isonet.engine.hooks.checkpointing import CheckpointHook
from d2_isonet.evaluation.per_class import evaluated_weights
from d2_isonet.modeling.execution import flush_denormals
from d2_isonet.utils.compat import create_ddp_model
from d2_isonet.utils.messages import MissingFileError, UserError

from .folder_lock import lock_folder
from .main import log_evaluation
from .train_loop import AccumulatingTrainer
from .writers import tolerant_writers, write_evaluation

logger = logging.getLogger(__name__)


def load_lazy_config(args: argparse.Namespace) -> Any:
    """Read args.config_file with its pairs, choose the device, and set up the logs."""
    flush_denormals()
    cfg = read_lazy_config(args.config_file, args.opts)
    falls_back = str(cfg.train.device).startswith("cuda") and not torch.cuda.is_available()
    if falls_back:
        cfg.train.device = "cpu"
    folder = cfg.train.output_dir
    lock_folder(folder)
    if args.eval_only and os.path.isfile(os.path.join(folder, "config.yaml")):
        log_evaluation(folder, args, args.opts)
    else:
        default_setup(cfg, args)
    if falls_back:
        logger.warning("there is no CUDA device: running on the CPU (train.device cpu)")
    return cfg


def read_lazy_config(file: str, opts: list[str]) -> Any:
    """The config of a file with KEY=VALUE pairs. The file is Python and is executed.

    Raises UserError if it is not a Python file or lacks a part of a training, and FileNotFoundError
    if there is no such file.
    """
    if not file.endswith(".py"):
        raise UserError(
            f"--config-file {file!r} is no LazyConfig (.py)", "yaml is for d2-isonet train"
        )
    if not os.path.isfile(file):
        raise MissingFileError(f"--config-file: there is no file {os.path.abspath(file)}")
    cfg = LazyConfig.load(file)
    needed = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
    missing = [name for name in needed if name not in cfg]
    if missing:
        raise UserError(f"{file} has no {', '.join(missing)}", "a training needs them")
    return LazyConfig.apply_overrides(cfg, opts)


def train(cfg: Any, resume: bool = False, trust_pickle: bool = False) -> dict:
    """Train like detectron2's tools/lazyconfig_train_net.py and return the last evaluation.

    `regularizer`, if the config has one, is instantiated as a hook. Raises WeightsError if
    train.init_checkpoint is no checkpoint, or belongs to another network.
    """
    options, folder = cfg.train, cfg.train.output_dir
    model = instantiate(cfg.model).to(options.device)
    cfg.optimizer.params.model = model
    optimizer, loader = instantiate(cfg.optimizer), instantiate(cfg.dataloader.train)
    model = create_ddp_model(model)
    precision = "float16" if options.amp.enabled else ""
    trainer = AccumulatingTrainer(model, loader, optimizer, precision=precision)
    trained = _data_sets(cfg, "train")
    saver = ISONetCheckpointer(
        model,
        folder,
        expected_meta=record_of_data_sets(trained),
        trust_pickle=trust_pickle,
        classes=lambda: classes_of_data_sets([*trained, *_data_sets(cfg, "test")]),
        trainer=trainer,
    )
    results: dict = {}

    def evaluation() -> dict:
        results.update(_measure(cfg, model))
        write_evaluation(trainer, results)
        return results

    trainer.register_hooks([
        *([instantiate(cfg.regularizer)] if "regularizer" in cfg else []),
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
        CheckpointHook(saver, options.checkpointer.period, options.checkpointer.max_to_keep),
        hooks.EvalHook(options.eval_period, evaluation),
    ])  # fmt: skip
    if comm.is_main_process():
        writers = tolerant_writers(folder, options.max_iter)
        trainer.register_hooks([hooks.PeriodicWriter(writers, period=options.log_period)])
    path = checkpoint_to_resume(folder) if resume else ""
    saver.load(path or options.init_checkpoint, None if path else [])
    trainer.train(trainer.iter + 1 if path else 0, options.max_iter)
    return results


def evaluate(cfg: Any, trust_pickle: bool = False) -> dict:
    """Evaluate train.init_checkpoint; raises UserError unless it fills the whole model."""
    model = instantiate(cfg.model).to(cfg.train.device)
    if not cfg.train.init_checkpoint:
        raise UserError(
            "--eval-only with train.init_checkpoint '' would evaluate random weights",
            "set train.init_checkpoint to the file of a trained model",
        )
    checkpointer = ISONetCheckpointer(
        model,
        strict=True,
        trust_pickle=trust_pickle,
        classes=lambda: classes_of_data_sets(_data_sets(cfg, "test")),
    )
    checkpointer.load(cfg.train.init_checkpoint, [])
    with evaluated_weights(os.path.abspath(cfg.train.init_checkpoint)):
        return _measure(cfg, model)


def _data_sets(cfg: Any, split: str) -> list[str]:
    """The names of the data sets of cfg.dataloader.train or .test; [] if it has none by name."""
    names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names") or []
    return [names] if isinstance(names, str) else list(names)


def _measure(cfg: Any, model: nn.Module) -> dict:
    loader = with_loaders_that_outlive_signals(instantiate(cfg.dataloader.test))
    evaluator = instantiate(cfg.dataloader.evaluator)
    results = inference_on_dataset(model, loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results
