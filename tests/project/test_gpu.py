"""What only a CUDA device can show; `make gpu-test` runs these."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from d2_isonet import OrthogonalRegularizer, SReLU
from d2_isonet.config.loading import load_config
from d2_isonet.engine.train_loop import AccumulatingTrainer
from d2_isonet.isometry.penalty import orthogonal_penalty, orthogonal_penalty_and_gradient
from d2_isonet.layers import activation as layers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_srelu_on_the_gpu_is_srelu_on_the_cpu(dtype):
    x = torch.randn(2, 5, 7, 9).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        module, inputs = SReLU(5).to(device), x.to(device).requires_grad_()
        y = module(inputs)
        y.sum().backward()
        results.append([t.cpu() for t in (y.detach(), inputs.grad, module.shift.grad)])
    for cpu, gpu in zip(*results, strict=True):
        torch.testing.assert_close(gpu, cpu)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4, 70, 33, 41), (2, 64, 200, 336)])
def test_the_srelu_kernel_gives_the_numbers_of_the_eager_path(shape, layout, monkeypatch):
    x = torch.randn(shape, device="cuda").to(memory_format=layout)
    grad = torch.randn_like(x)
    assert layers._working_kernel(x.device) is not None
    results = []
    for kernel in (layers._fused_backward, lambda y: None):
        monkeypatch.setattr(layers, "_fused_backward", kernel)
        module, inputs = SReLU(shape[1]).cuda(), x.clone().requires_grad_()
        module(inputs).backward(grad)
        results.append((inputs.grad, module.shift.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("form", ["exact", "official", "flattened"])
@pytest.mark.parametrize(("shape", "stride"), [((16, 8, 3, 3), 2), ((8, 16, 1, 1), 1)])
def test_the_gradient_in_closed_form_is_autograds(form, shape, stride):
    weight = torch.randn(shape, device="cuda", dtype=torch.float64, requires_grad=True)
    orthogonal_penalty(weight, stride, form=form).backward()
    value, gradient = orthogonal_penalty_and_gradient(weight.detach(), stride, form=form)
    torch.testing.assert_close(gradient, weight.grad)


@pytest.mark.parametrize("tf32", [False, True])
def test_the_hooks_gradient_is_as_exact_as_convolutions(tf32, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    before = torch.backends.cuda.matmul.allow_tf32
    conv = torch.nn.Conv2d(128, 128, 3, device="cuda")
    torch.nn.init.normal_(conv.weight, std=(128 * 9) ** -0.5)
    _, expected = orthogonal_penalty_and_gradient(conv.weight.double())
    hook = OrthogonalRegularizer(1.0, convs={"res2.0": conv})
    hook._convs = hook._given
    hook._add_gradients(lambda gradient: gradient)
    error = (conv.weight.grad - expected).norm() / expected.norm()
    assert error < (2e-3 if tf32 else 1e-5)
    assert torch.backends.cuda.matmul.allow_tf32 == before


def detector(name: str):
    opts = ["MODEL.DEVICE", "cuda", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.NUM_CLASSES", "3",
            "MODEL.BACKBONE.FREEZE_AT", "0"]  # fmt: skip
    return build_model(load_config(f"configs/{name}.yaml", opts))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["risonet18_c4", "risonet50_dc5", "risonet18_fpn"])
def test_a_detector_takes_steps_in_half_precision_with_the_regularizer(name, precision, coco_batch):
    model = detector(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = AccumulatingTrainer(model, [coco_batch] * 4, optimizer, precision=precision)
    trainer.register_hooks([OrthogonalRegularizer(1e-4)])
    before = model.backbone.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    trainer.train(0, 3)
    after = model.backbone.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_a_detector_finds_on_the_gpu_what_it_finds_on_the_cpu(coco_batch):
    torch.manual_seed(0)
    model = detector("risonet18_dc5").eval()
    inputs = [{"image": x["image"], "height": 96, "width": 128} for x in coco_batch[:1]]
    with torch.no_grad(), EventStorage():
        gpu = model.backbone(model.preprocess_image(inputs).tensor)["res5"].cpu()
        model.to("cpu")
        cpu = model.backbone(model.preprocess_image(inputs).tensor)["res5"]
    torch.testing.assert_close(gpu, cpu, rtol=1e-2, atol=1e-2)
