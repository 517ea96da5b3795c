"""Every configuration key this project adds to detectron2's."""

from detectron2.config import CfgNode as CN


def add_isonet_config(cfg: CN) -> None:
    """Add the keys of d2_isonet to `cfg`, in place; the defaults are R-ISONet's.

    MODEL.RESNETS.* keep detectron2's meaning (DEPTH, NORM, RES5_DILATION, OUT_FEATURES, ...).
    """
    _add_model_config(cfg)
    _add_solver_config(cfg)

    cfg.INPUT.CLASSIFICATION = CN()
    # Side of the square image a classifier sees, in pixels.
    cfg.INPUT.CLASSIFICATION.CROP_SIZE = 224
    # Evaluation resizes the shorter side to this many pixels before the centre crop.
    cfg.INPUT.CLASSIFICATION.RESIZE = 256
    # Least share of the image's area that a training crop covers.
    cfg.INPUT.CLASSIFICATION.MIN_AREA = 0.08
    # Images per process in one batch of classification evaluation.
    cfg.TEST.CLASSIFICATION_BATCH_SIZE = 64


def _add_model_config(cfg: CN) -> None:
    cfg.MODEL.ISONET = CN()
    # "SReLU" (ISONet eq. 15) or "ReLU".
    cfg.MODEL.ISONET.ACTIVATION = "SReLU"
    # True: R-ISONet, ResNet. False: ISONet, Vanilla.
    cfg.MODEL.ISONET.SHORTCUT = True
    # First value of the learned scale s on a residual branch (section 2.4); null for no scale.
    cfg.MODEL.ISONET.RESIDUAL_SCALE = 0.0
    # "block": one s per block, as in the authors' code; "channel": one per channel.
    cfg.MODEL.ISONET.RESIDUAL_SCALE_SHAPE = "block"
    # "delta" (the paper's) or "msra" (He et al. 2015).
    cfg.MODEL.ISONET.INIT = "delta"

    cfg.MODEL.CLASSIFIER = CN()
    # Outputs of ImageClassifier; 0 takes the number of classes of the training set.
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 0
    # Probability of dropping a feature before the linear layer (0.4 R-ISONet, 0.1 ISONet).
    cfg.MODEL.CLASSIFIER.DROPOUT = 0.0


def _add_solver_config(cfg: CN) -> None:
    # Coefficient of the orthogonal penalty (gamma, eq. 14); 0 removes the regularizer.
    cfg.SOLVER.ORTHO_COEFF = 1e-4
    # "exact", "official" (the authors' code) or "flattened" (eq. 16).
    cfg.SOLVER.ORTHO_FORM = "exact"
    # Learning rate of residual scales relative to the rest (0.1 in the authors' code).
    cfg.SOLVER.RESIDUAL_SCALE_LR_FACTOR = 0.1
    # Weight decay of SReLU shifts (0 in the authors' code).
    cfg.SOLVER.WEIGHT_DECAY_SHIFT = 0.0
    # Where SOLVER.AMP.ENABLED: "float16" (with loss scaling) or "bfloat16".
    cfg.SOLVER.AMP.PRECISION = "float16"
    # A schedule in passes over the training set. MAX_EPOCHS > 0 replaces MAX_ITER, STEPS,
    # WARMUP_ITERS, TEST.EVAL_PERIOD and CHECKPOINT_PERIOD by the iterations these make.
    cfg.SOLVER.MAX_EPOCHS = 0
    cfg.SOLVER.EPOCH_STEPS = (30, 60, 90)
    cfg.SOLVER.WARMUP_EPOCHS = 5.0
    # How many checkpoints to keep, the newest; 0 keeps all.
    cfg.SOLVER.CHECKPOINT_MAX_TO_KEEP = 0
