"""Every configuration key this project adds to detectron2's."""

from detectron2.config import CfgNode as CN

# MODEL.RESNETS.* keep detectron2's meaning (DEPTH, NORM, RES5_DILATION, OUT_FEATURES, ...).
_DEFAULTS = {
    # "residual" (ResNet, ISONet and their relatives), "fixup" (Zhang et al. 2019) or "modified"
    # (the modified ResNet-18 of Decoupled Networks).
    "MODEL.ISONET.BLOCK": "residual",
    # True: for images of about 32 pixels (He et al. 2016, section 4.2): 3x3 stem without pooling,
    # stages res2..res4 of n basic blocks, depth 6n + 2, widths RES2_OUT_CHANNELS x (1, 2, 4).
    "MODEL.ISONET.SMALL_IMAGES": False,
    # "Conv2d" or "Decoupled", see MODEL.DECOUPLED; projections of shortcuts are always Conv2d.
    "MODEL.ISONET.CONV": "Conv2d",
    # "SReLU" (ISONet eq. 15), "ReLU", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "Swish",
    # "Identity" (none), or a name passed to register_activation (docs/extend.md).
    "MODEL.ISONET.ACTIVATION": "SReLU",
    # Initial value of SReLU's shift b, and whether it is learned (ISONet table 3).
    "MODEL.ISONET.SHIFT_INIT": -1.0,
    "MODEL.ISONET.SHIFT_LEARNED": True,
    # Groups of MODEL.RESNETS.NORM "GN"; 32 is detectron2's, too many for narrow networks.
    "MODEL.ISONET.NORM_GROUPS": 32,
    # True: R-ISONet, ResNet. False: ISONet, Vanilla.
    "MODEL.ISONET.SHORTCUT": True,
    # Initial value of the learned scale s on a residual branch (section 2.4); null for no scale.
    "MODEL.ISONET.RESIDUAL_SCALE": 0.0,
    # "block": one s per block, as in the authors' code; "channel": one per channel.
    "MODEL.ISONET.RESIDUAL_SCALE_SHAPE": "block",
    # "delta" (the paper's), "delta_orthogonal" (Xiao et al. 2018), "phase_shifted_delta" (exact
    # isometry at stride 2, too), "msra" (He et al. 2015) or "fixup" (Zhang et al. 2019). BLOCK
    # "modified" has its own initialization: leave "msra", as in its yaml.
    "MODEL.ISONET.INIT": "delta",
    # True: the last norm of a residual branch starts with weight 0 (Goyal et al. 2017), as in the
    # authors' ResNet baselines; needs NORM and SHORTCUT.
    "MODEL.ISONET.ZERO_INIT_LAST_NORM": False,
    # How the backbone (and C4's res5) is executed, not what it computes; see execution.py. True:
    # channels last in memory, which is faster on tensor cores.
    "MODEL.BACKBONE.CHANNELS_LAST": False,
    # True: recompute a block's activations in backward instead of storing them.
    "MODEL.BACKBONE.CHECKPOINTING": False,
    # True: torch.compile.
    "MODEL.BACKBONE.COMPILE": False,
    # Decoupled convolution, f(w, x) = h(|x|) g(theta) (Liu et al., CVPR 2018), with h: "Sphere",
    # "Ball", "Tanh", "Linear", "Seg", "Log" or "Mix".
    "MODEL.DECOUPLED.MAGNITUDE": "Tanh",
    # g: "cosine", "linear", "square_cosine" or "sigmoid".
    "MODEL.DECOUPLED.ANGULAR": "cosine",
    # alpha, and beta of Seg (slope beyond the radius) and Mix (weight of the logarithm).
    "MODEL.DECOUPLED.ALPHA": 1.0,
    "MODEL.DECOUPLED.BETA": 0.5,
    # Initial value of the operator radius rho, one per filter, and whether it is learned.
    "MODEL.DECOUPLED.RADIUS": 1.0,
    "MODEL.DECOUPLED.RADIUS_LEARNED": True,
    # Factor of rho: "batch" (mean patch norm of the batch, as released), "running" (its moving
    # average, in training too), "frozen" (that average, no longer updated) or "none".
    "MODEL.DECOUPLED.RADIUS_SCALE": "batch",
    # k of the sigmoid, and whether it is learned (one per filter, from 0.75 as released).
    "MODEL.DECOUPLED.SIGMOID_K": 0.3,
    "MODEL.DECOUPLED.SIGMOID_K_LEARNED": False,
    # True: MODEL.WEIGHTS may come from the same network with ordinary convolutions (the slides'
    # rows marked *); radii and k then start with the values above.
    "MODEL.DECOUPLED.FROM_CONV2D": False,
    # Number of outputs of ImageClassifier; 0 for the number of classes of the training set.
    "MODEL.CLASSIFIER.NUM_CLASSES": 0,
    # Probability of dropping a feature before the linear layer (0.4 R-ISONet, 0.1 ISONet).
    "MODEL.CLASSIFIER.DROPOUT": 0.0,
    # True: weight and bias of the linear layer start at zero (Fixup).
    "MODEL.CLASSIFIER.ZERO_INIT": False,
    # Share of the target that all classes get equally (0.01 in the Decoupled Networks code).
    "MODEL.CLASSIFIER.LABEL_SMOOTHING": 0.0,
    # "SGD" or "Adam" (the Decoupled Networks CIFAR recipe).
    "SOLVER.OPTIMIZER": "SGD",
    # Coefficient of the orthogonal penalty (gamma, eq. 14); 0 removes the regularizer.
    "SOLVER.ORTHO_COEFF": 1e-4,
    # "exact", "official" (the authors' code) or "flattened" (eq. 16).
    "SOLVER.ORTHO_FORM": "exact",
    # Learning rate of residual scales relative to the rest (0.1 in the authors' code).
    "SOLVER.RESIDUAL_SCALE_LR_FACTOR": 0.1,
    # Learning rate of Fixup's scalar biases relative to the rest.
    "SOLVER.SCALAR_BIAS_LR_FACTOR": 0.1,
    # Learning rate of the backbone, and of C4's roi_heads.res5, relative to the rest. In an FPN
    # only the pretrained bottom_up counts as backbone. Multiplies the factors above and
    # BIAS_LR_FACTOR.
    "SOLVER.BACKBONE_LR_FACTOR": 1.0,
    # Iterations after which decoupled filters are divided by their norm (100 in the released
    # code); 0: never.
    "SOLVER.WEIGHT_PROJECTION_PERIOD": 0,
    # Coefficient of the orthogonality penalty on normalized decoupled filters (1e-5 as released).
    "SOLVER.FILTER_ORTHO_COEFF": 0.0,
    # Adversarial training: "" (none), "FGSM" or "BIM"; size and step in pixel values of 0-255.
    "SOLVER.ADVERSARIAL.ATTACK": "",
    "SOLVER.ADVERSARIAL.EPS": 8.0,
    "SOLVER.ADVERSARIAL.STEP": 2.0,
    "SOLVER.ADVERSARIAL.ITERATIONS": 10,
    # Weight decay of SReLU shifts (0 in the authors' code).
    "SOLVER.WEIGHT_DECAY_SHIFT": 0.0,
    # Number of parts in which a step processes its IMS_PER_BATCH images, one after the other, in
    # the memory of one part; processes x ACCUMULATE_STEPS must divide IMS_PER_BATCH. Exact if the
    # loss is a mean over images and no layer mixes them (no BN; mixup and the sampling of regions
    # see one part).
    "SOLVER.ACCUMULATE_STEPS": 1,
    # Decay per step of the exponential moving average of the weights, e.g. 0.9998; 0 for none.
    # Evaluation then uses the average instead of the weights, and the training ends by writing it
    # beside them as model_final_ema.pth (pretraining also writes backbone_ema.pth). It takes the
    # memory of a second model. The statistics of BN are the model's.
    "SOLVER.EMA_DECAY": 0.0,
    # If a loss or gradient is not finite: "stop", "skip" the step, or "rollback" weights and
    # optimizer to the last checkpoint, while iterations and images continue from where they are.
    "SOLVER.NON_FINITE.ACTION": "stop",
    # Number of such steps tolerated since the last checkpoint; one more stops the training.
    "SOLVER.NON_FINITE.LIMIT": 5,
    # If SOLVER.AMP.ENABLED: "float16" (GPUs, with loss scaling) or "bfloat16" (CPUs too).
    "SOLVER.AMP.PRECISION": "float16",
    # A schedule in passes over the training set. MAX_EPOCHS > 0 replaces MAX_ITER, STEPS,
    # WARMUP_ITERS, TEST.EVAL_PERIOD and CHECKPOINT_PERIOD by the iterations of these epochs.
    "SOLVER.MAX_EPOCHS": 0,
    "SOLVER.EPOCH_STEPS": (30, 60, 90),
    "SOLVER.WARMUP_EPOCHS": 5.0,
    # Number of newest checkpoints to keep; 0 keeps all.
    "SOLVER.CHECKPOINT_MAX_TO_KEEP": 0,
    # Number of failed saves in a row (a full disk) that end the training. Until then it continues
    # and tries to save again every tenth of CHECKPOINT_PERIOD.
    "SOLVER.CHECKPOINT_MAX_FAILURES": 20,
    # Your own COCO-format data: (annotation file, image folder), () for none. The flags
    # --train-annotations and --train-images (--val-...) fill these in, as absolute paths; a
    # relative path here starts at the current folder, like OUTPUT_DIR. The sets are registered as
    # own_train and own_val, which DATASETS.TRAIN and DATASETS.TEST can name.
    "DATASETS.OWN_TRAIN": (),
    "DATASETS.OWN_VAL": (),
    # Number of image files of each set that are checked before a run, spread over the set: 0 for
    # none, -1 for all, as d2-isonet check-data does. The result is cached until a file changes.
    "DATASETS.CHECKED_IMAGES": 500,
    # Share of the training images that may be unreadable: other images replace them, and each is
    # logged once and counted (unreadable_images in metrics.json). 0: the first one is an error.
    "DATALOADER.MAX_UNREADABLE": 0.0,
    # Number of pixels above which an image is not decoded but an error (by default Pillow's limit):
    # it would take the memory of the loading processes. Tiles are the way to larger images.
    "INPUT.MAX_IMAGE_PIXELS": 178_956_970,
    # Tar shards: number of shards that one batch (of all processes) is read from; 0 for one per
    # process. Each takes the memory of a shard in every worker of its process. Use a multiple of
    # the number of processes, otherwise several processes read each shard; the same value on 1 and
    # on N processes gives the same batches.
    "DATALOADER.SHARD_STREAMS": 0,
    # Side of the square image a classifier sees, in pixels.
    "INPUT.CLASSIFICATION.CROP_SIZE": 224,
    # Evaluation resizes the shorter side to this many pixels before the centre crop.
    "INPUT.CLASSIFICATION.RESIZE": 256,
    # Least share of the image's area that a training crop covers.
    "INPUT.CLASSIFICATION.MIN_AREA": 0.08,
    # False: decode and resize training crops the fast way, within 1 of 255 of torchvision's pixels
    # (up to 5 in the mean if a file is decoded at half its size or less). True: exactly those.
    "INPUT.CLASSIFICATION.EXACT_CROPS": False,
    # > 0: training pads the image by this many zero pixels and crops CROP_SIZE (the CIFAR recipe)
    # instead of taking a random resized crop.
    "INPUT.CLASSIFICATION.PADDING": 0,
    # alpha of mixup (Zhang et al. 2018) in training; 0 for none, 0.7 in Fixup++ (ISONet table 5).
    "INPUT.CLASSIFICATION.MIXUP_ALPHA": 0.0,
    # Images per process in one batch of classification evaluation.
    "TEST.CLASSIFICATION_BATCH_SIZE": 64,
    # Save the best evaluation by this metric ("bbox/AP", "classification/top1", as in the log) as
    # model_best.pth (with SOLVER.EMA_DECAY the average, which is evaluated); "" for none. Mode
    # "max": more is better; "min": less is better.
    "TEST.BEST_METRIC": "",
    "TEST.BEST_METRIC_MODE": "max",
    # Iterations between two measurements of isometry, written to TensorBoard: singular values,
    # shifts, residual scales, norms through depth (docs/isometry.md). 0: never.
    "TEST.ISOMETRY_PERIOD": 0,
    # Stop after this many evaluations in a row without a better BEST_METRIC; 0: never.
    "TEST.EARLY_STOPPING_PATIENCE": 0,
    # True: also log to Weights & Biases (pip install wandb).
    "WANDB.ENABLED": False,
    "WANDB.PROJECT": "d2_isonet",
    # "" for your default entity, and for OUTPUT_DIR as the name.
    "WANDB.ENTITY": "",
    "WANDB.NAME": "",
}


def add_isonet_config(cfg: CN) -> None:
    """Add the keys of d2_isonet to `cfg`, in place; the defaults are R-ISONet's."""
    for key, value in _DEFAULTS.items():
        section = cfg
        *path, name = key.split(".")
        for part in path:
            section = section.setdefault(part, CN())
        setattr(section, name, value)
