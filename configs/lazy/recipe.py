"""What the lazy configs share: COCO, "1x", at the paper's learning rate (ISONet section 3.4)."""

from detectron2.config import LazyCall as L

from d2_isonet.evaluation.build import coco_evaluator
from d2_isonet.isometry.regularizer import OrthogonalRegularizer
from d2_isonet.utils.compat import zoo_config

# Pixels of the pretraining: RGB, of range 0-255.
pixels = dict(
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)

dataloader = zoo_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "RGB"
dataloader.evaluator = L(coco_evaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${train.output_dir}/inference",
    detections_per_image=100,  # roi_heads.box_predictor.test_topk_per_image of the model
)

train = zoo_config("common/train.py").train
train.init_checkpoint = "output/imagenet/risonet50/backbone.pth"

lr_multiplier = zoo_config("common/coco_schedule.py").lr_multiplier_1x

# No decay on shifts, a tenth of the rate on residual scales, as in the authors' code.
optimizer = zoo_config("common/optim.py").SGD
optimizer.lr = 0.01
optimizer.params.base_lr = "${..lr}"
optimizer.params.overrides = dict(shift=dict(weight_decay=0.0), residual_scale=dict(lr=0.001))

regularizer = L(OrthogonalRegularizer)(coeff=1e-4)
