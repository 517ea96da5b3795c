"""Every configuration key this project adds to detectron2's."""

from detectron2.config import CfgNode as CN


def add_isonet_config(cfg: CN) -> None:
    """Add the keys of d2_isonet to `cfg`, in place; the defaults are R-ISONet's.

    MODEL.RESNETS.* keep detectron2's meaning (DEPTH, NORM, RES5_DILATION, OUT_FEATURES, ...).
    """
    _add_model_config(cfg)
    _add_decoupled_config(cfg)
    _add_classifier_config(cfg)
    _add_solver_config(cfg)
    _add_step_config(cfg)
    _add_schedule_config(cfg)
    _add_data_config(cfg)
    _add_wandb_config(cfg)

    cfg.INPUT.CLASSIFICATION = CN()
    # Side of the square image a classifier sees, in pixels.
    cfg.INPUT.CLASSIFICATION.CROP_SIZE = 224
    # Evaluation resizes the shorter side to this many pixels before the centre crop.
    cfg.INPUT.CLASSIFICATION.RESIZE = 256
    # Least share of the image's area that a training crop covers.
    cfg.INPUT.CLASSIFICATION.MIN_AREA = 0.08
    # False: training crops are decoded and resized the fast way, 1 of 255 from torchvision's pixels
    # (up to 5 in the mean where a file is decoded at a half or less); True: exactly those.
    cfg.INPUT.CLASSIFICATION.EXACT_CROPS = False
    # > 0: training pads the image by so many zero pixels and crops CROP_SIZE (the CIFAR recipe)
    # instead of the random resized crop.
    cfg.INPUT.CLASSIFICATION.PADDING = 0
    # alpha of mixup (Zhang et al. 2018) in training; 0 is none, 0.7 Fixup++ (ISONet table 5).
    cfg.INPUT.CLASSIFICATION.MIXUP_ALPHA = 0.0
    # Images per process in one batch of classification evaluation.
    cfg.TEST.CLASSIFICATION_BATCH_SIZE = 64
    # The metric, as the log calls it ("bbox/AP", "classification/top1"), whose best evaluation is
    # kept as model_best.pth; "" for none. "max": more is better; "min": less.
    cfg.TEST.BEST_METRIC = ""
    cfg.TEST.BEST_METRIC_MODE = "max"
    # Iterations from one look at isometry to the next, written to TensorBoard: singular values,
    # shifts, residual scales, norms through depth (docs/isometry.md). 0 never.
    cfg.TEST.ISOMETRY_PERIOD = 0
    # So many evaluations in a row without a better BEST_METRIC end the training; 0 never.
    cfg.TEST.EARLY_STOPPING_PATIENCE = 0


def _add_data_config(cfg: CN) -> None:
    # Image files of each set that are looked at before a run, spread over the set: 0 for none, -1
    # for all, as tools/check_dataset.py does. What is found is kept until a file changes.
    cfg.DATASETS.CHECKED_IMAGES = 500
    # Share of the training images that may be unreadable: others are taken for them, each is named
    # once and counted (unreadable_images in metrics.json). 0: the first one ends the training.
    cfg.DATALOADER.MAX_UNREADABLE = 0.0
    # Images in tar shards: parts of a batch (of all processes) that come from different shards; 0
    # for one a process. Each takes the memory of a shard in every worker of its process. Give a
    # multiple of the processes, else several read each shard; the same number on 1 and on N
    # processes gives the same batches.
    cfg.DATALOADER.SHARD_STREAMS = 0


def _add_model_config(cfg: CN) -> None:
    cfg.MODEL.ISONET = CN()
    # "residual" (ResNet, ISONet and their relatives), "fixup" (Zhang et al. 2019) or "modified"
    # (the modified ResNet-18 of Decoupled Networks).
    cfg.MODEL.ISONET.BLOCK = "residual"
    # True: for images of about 32 pixels (He et al. 2016, section 4.2). 3x3 stem without pooling,
    # stages res2..res4 of n basic blocks, depth 6n + 2, widths RES2_OUT_CHANNELS x (1, 2, 4).
    cfg.MODEL.ISONET.SMALL_IMAGES = False
    # "Conv2d" or "Decoupled", see MODEL.DECOUPLED; projections of shortcuts are always Conv2d.
    cfg.MODEL.ISONET.CONV = "Conv2d"
    # "SReLU" (ISONet eq. 15), "ReLU", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "Swish" or
    # "Identity" (none), or a name given to register_activation (docs/extend.md).
    cfg.MODEL.ISONET.ACTIVATION = "SReLU"
    # First value of SReLU's shift b, and whether it is learned (ISONet table 3).
    cfg.MODEL.ISONET.SHIFT_INIT = -1.0
    cfg.MODEL.ISONET.SHIFT_LEARNED = True
    # Groups of MODEL.RESNETS.NORM "GN"; 32 is detectron2's, too many for narrow networks.
    cfg.MODEL.ISONET.NORM_GROUPS = 32
    # True: R-ISONet, ResNet. False: ISONet, Vanilla.
    cfg.MODEL.ISONET.SHORTCUT = True
    # First value of the learned scale s on a residual branch (section 2.4); null for no scale.
    cfg.MODEL.ISONET.RESIDUAL_SCALE = 0.0
    # "block": one s per block, as in the authors' code; "channel": one per channel.
    cfg.MODEL.ISONET.RESIDUAL_SCALE_SHAPE = "block"
    # "delta" (the paper's), "delta_orthogonal" (Xiao et al. 2018), "phase_shifted_delta" (exact
    # isometry also at stride 2), "msra" (He et al. 2015) or "fixup" (Zhang et al. 2019). BLOCK
    # "modified" has its own: leave it "msra", as its yaml has it.
    cfg.MODEL.ISONET.INIT = "delta"
    # True: the last norm of a residual branch starts with weight 0 (Goyal et al. 2017), as in the
    # authors' ResNet baselines; needs NORM and SHORTCUT.
    cfg.MODEL.ISONET.ZERO_INIT_LAST_NORM = False

    # How the backbone (and C4's res5) is run, not what it computes; see execution.py.
    # True: channels next to each other in memory, faster on tensor cores.
    cfg.MODEL.BACKBONE.CHANNELS_LAST = False
    # True: a block's activations are computed again in backward instead of kept.
    cfg.MODEL.BACKBONE.CHECKPOINTING = False
    # True: torch.compile.
    cfg.MODEL.BACKBONE.COMPILE = False


def _add_classifier_config(cfg: CN) -> None:
    cfg.MODEL.CLASSIFIER = CN()
    # Outputs of ImageClassifier; 0 takes the number of classes of the training set.
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 0
    # Probability of dropping a feature before the linear layer (0.4 R-ISONet, 0.1 ISONet).
    cfg.MODEL.CLASSIFIER.DROPOUT = 0.0
    # True: weight and bias of the linear layer start at zero (Fixup).
    cfg.MODEL.CLASSIFIER.ZERO_INIT = False
    # Share of the target that goes to all classes alike (0.01 in the Decoupled Networks code).
    cfg.MODEL.CLASSIFIER.LABEL_SMOOTHING = 0.0


def _add_decoupled_config(cfg: CN) -> None:
    """Decoupled convolution, f(w, x) = h(|x|) g(theta) (Liu et al., CVPR 2018)."""
    cfg.MODEL.DECOUPLED = CN()
    # h: "Sphere", "Ball", "Tanh", "Linear", "Seg", "Log" or "Mix".
    cfg.MODEL.DECOUPLED.MAGNITUDE = "Tanh"
    # g: "cosine", "linear", "square_cosine" or "sigmoid".
    cfg.MODEL.DECOUPLED.ANGULAR = "cosine"
    # alpha, and beta of Seg (slope beyond the radius) and Mix (weight of the logarithm).
    cfg.MODEL.DECOUPLED.ALPHA = 1.0
    cfg.MODEL.DECOUPLED.BETA = 0.5
    # First value of the operator radius rho, one per filter, and whether it is learned.
    cfg.MODEL.DECOUPLED.RADIUS = 1.0
    cfg.MODEL.DECOUPLED.RADIUS_LEARNED = True
    # What rho is multiplied by: "batch" (mean patch norm of the batch, as released), "running"
    # (its moving average in training too), "frozen" (that average, no longer updated) or "none".
    cfg.MODEL.DECOUPLED.RADIUS_SCALE = "batch"
    # k of the sigmoid, and whether it is learned (one per filter, from 0.75 as released).
    cfg.MODEL.DECOUPLED.SIGMOID_K = 0.3
    cfg.MODEL.DECOUPLED.SIGMOID_K_LEARNED = False
    # True: MODEL.WEIGHTS may be those of the same network with ordinary convolutions (the slides'
    # rows marked *); radii and k then start as above.
    cfg.MODEL.DECOUPLED.FROM_CONV2D = False


def _add_solver_config(cfg: CN) -> None:
    # "SGD" or "Adam" (the Decoupled Networks CIFAR recipe).
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Coefficient of the orthogonal penalty (gamma, eq. 14); 0 removes the regularizer.
    cfg.SOLVER.ORTHO_COEFF = 1e-4
    # "exact", "official" (the authors' code) or "flattened" (eq. 16).
    cfg.SOLVER.ORTHO_FORM = "exact"
    # Learning rate of residual scales relative to the rest (0.1 in the authors' code).
    cfg.SOLVER.RESIDUAL_SCALE_LR_FACTOR = 0.1
    # Learning rate of Fixup's scalar biases relative to the rest.
    cfg.SOLVER.SCALAR_BIAS_LR_FACTOR = 0.1
    # Learning rate of the backbone, and of C4's roi_heads.res5, relative to the rest; of an FPN
    # only bottom_up counts as backbone, what is pretrained. Multiplies the factors above and
    # BIAS_LR_FACTOR.
    cfg.SOLVER.BACKBONE_LR_FACTOR = 1.0
    # Decoupled filters are divided by their norm every so many iterations (100 in the released
    # code); 0 never.
    cfg.SOLVER.WEIGHT_PROJECTION_PERIOD = 0
    # Coefficient of the orthogonality penalty on normalized decoupled filters (1e-5 as released).
    cfg.SOLVER.FILTER_ORTHO_COEFF = 0.0
    # Adversarial training: "" (none), "FGSM" or "BIM"; size and step in pixel values of 0-255.
    cfg.SOLVER.ADVERSARIAL = CN()
    cfg.SOLVER.ADVERSARIAL.ATTACK = ""
    cfg.SOLVER.ADVERSARIAL.EPS = 8.0
    cfg.SOLVER.ADVERSARIAL.STEP = 2.0
    cfg.SOLVER.ADVERSARIAL.ITERATIONS = 10
    # Weight decay of SReLU shifts (0 in the authors' code).
    cfg.SOLVER.WEIGHT_DECAY_SHIFT = 0.0


def _add_step_config(cfg: CN) -> None:
    # A step takes its IMS_PER_BATCH images in so many parts, one after the other, for the memory
    # of one; processes x ACCUMULATE_STEPS must divide it. Exact where the loss is a mean over
    # images and no layer mixes them (no BN; mixup and the sampling of regions see one part).
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    # Decay per step of the exponential moving average of the weights, e.g. 0.9998; 0 for none. The
    # average is then what is evaluated, instead of the weights, and is written at the end, beside
    # them, as model_final_ema.pth (and backbone_ema.pth by pretraining). It takes the memory of a
    # second model. Statistics of BN are the model's.
    cfg.SOLVER.EMA_DECAY = 0.0
    # At a loss or gradient that is not finite: "stop", "skip" the step, or "rollback" weights and
    # optimizer to the last checkpoint, iterations and images going on from where they are.
    cfg.SOLVER.NON_FINITE = CN()
    cfg.SOLVER.NON_FINITE.ACTION = "stop"
    # So many such steps after the last checkpoint are gone past; the next one stops.
    cfg.SOLVER.NON_FINITE.LIMIT = 5
    # Where SOLVER.AMP.ENABLED: "float16" (GPUs, with loss scaling) or "bfloat16" (CPUs too).
    cfg.SOLVER.AMP.PRECISION = "float16"


def _add_schedule_config(cfg: CN) -> None:
    # A schedule in passes over the training set. MAX_EPOCHS > 0 replaces MAX_ITER, STEPS,
    # WARMUP_ITERS, TEST.EVAL_PERIOD and CHECKPOINT_PERIOD by the iterations these make.
    cfg.SOLVER.MAX_EPOCHS = 0
    cfg.SOLVER.EPOCH_STEPS = (30, 60, 90)
    cfg.SOLVER.WARMUP_EPOCHS = 5.0
    # How many checkpoints to keep, the newest; 0 keeps all.
    cfg.SOLVER.CHECKPOINT_MAX_TO_KEEP = 0
    # So many saves in a row that fail (a full disk) end the training; until then it goes on and
    # tries again every tenth of CHECKPOINT_PERIOD.
    cfg.SOLVER.CHECKPOINT_MAX_FAILURES = 20


def _add_wandb_config(cfg: CN) -> None:
    cfg.WANDB = CN()
    # True: the log goes to Weights & Biases too (pip install wandb).
    cfg.WANDB.ENABLED = False
    cfg.WANDB.PROJECT = "d2_isonet"
    # "" for your default; "" for OUTPUT_DIR.
    cfg.WANDB.ENTITY = ""
    cfg.WANDB.NAME = ""
