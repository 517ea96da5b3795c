"""What argparse gives to the training scripts, for networks of a second."""

from argparse import Namespace

PRETRAIN = [
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
    "SOLVER.MAX_EPOCHS", "12", "SOLVER.IMS_PER_BATCH", "8", "SOLVER.REFERENCE_WORLD_SIZE", "0",
    "SOLVER.BASE_LR", "0.05", "MODEL.CLASSIFIER.DROPOUT", "0.0", "DATALOADER.NUM_WORKERS", "0",
    "INPUT.CLASSIFICATION.CROP_SIZE", "32", "INPUT.CLASSIFICATION.RESIZE", "36", "SEED", "1",
]  # fmt: skip


DETECT = [
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
    "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.REFERENCE_WORLD_SIZE", "0", "DATALOADER.NUM_WORKERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(60,)", "INPUT.MIN_SIZE_TEST", "60", "MODEL.BACKBONE.FREEZE_AT", "0",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "32",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "100",
]  # fmt: skip


def arguments(config_file: str, *opts: str, **given) -> Namespace:
    defaults = {
        "resume": False, "eval_only": False, "trust_pickle": False, "data_root": None,
        "num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto",
        "train_json": None, "train_images": None, "val_json": None, "val_images": None,
    }  # fmt: skip
    return Namespace(config_file=config_file, opts=list(opts), **{**defaults, **given})
