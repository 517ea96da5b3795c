"""The hook that adds the gradient of the orthogonal penalty before the optimizer's step."""

import contextlib
import functools
import logging
import math
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import nn

from d2_isonet.config.options import check_name
from d2_isonet.modeling.stages import default_convolutions, stage_of
from d2_isonet.utils.compat import inner_trainer
from d2_isonet.utils.messages import UserError

from .criterion import FORMS, Convolution, Layer, layer_of
from .penalty import minimum_orthogonal_penalty, orthogonal_penalty_and_gradient

logger = logging.getLogger(__name__)
PROFILER_LABEL = "orthogonal_penalty"  # the name in torch.profiler's tables
# Entries of a weight; on a CPU 64 x 64 x 3 x 3 is below, 128 x 128 x 3 x 3 above.
_LARGEST_BATCHED = {"cpu": 1 << 16, "cuda": 1 << 19}
Convolutions = Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]]
Closure = Callable[[], Any]  # what optimizer.step may get: it computes the loss and its gradients
Scaling = Callable[[torch.Tensor], torch.Tensor]  # multiplies a gradient as the loss is multiplied


class OrthogonalRegularizer(HookBase):
    """Trains loss + coeff * sum of `orthogonal_penalty` over convolutions, in any trainer.

    ISONet (Qi et al. 2020, arXiv 2006.16992), section 2.2, eq. 13 and 14. The closed-form gradient
    is added to `.grad` when `trainer.optimizer.step` is called: once per step, before detectron2's
    gradient clipping, and after GradScaler has unscaled (a skipped step adds nothing). Processes do
    not communicate: each adds the same gradient to gradients that are already averaged (with
    fully_shard, each gathers the weights and adds to its shard). If the step gets a closure, the
    penalty is part of the loss and the gradients of each of its calls. In a
    trainer with `on_gradients` (those of this project) it is added right after backward instead,
    scaled like the gradients. The step is the same, but the GPU gets the work before it becomes
    idle in the check of the gradients. Frozen weights do not change. The total loss that detectron2
    prints does not contain the penalty. On a GPU its products are as exact as the convolutions:
    TF32, unless that is disabled.

    Logged at each step: `loss_ortho`, the sum of (penalty - its minimum for the shape), without the
    coefficient; 0 means as orthogonal as these shapes can be. `ortho/res2`, ...: the part of each
    stage.

    Args:
        coeff: gamma of eq. 13; 1e-4 in the paper (3e-4 for ISONet-101, section 3.1). 0 only logs.
        form: "exact", "official" or "flattened", see `orthogonal_penalty`.
        convs: name -> nn.Conv2d or nn.ConvTranspose2d, or (name, convolution) pairs. A weight that
            several of them share counts once. Default: `default_convolutions(trainer.model)`.

    Raises:
        UserError: coeff is negative or not finite, form is unknown, or convs has no convolution or
            one whose weight is not a parameter.
    """

    label = "ortho"  # in the names of the logged scalars

    def __init__(self, coeff: float, form: str = "exact", convs: Convolutions | None = None):
        if not 0 <= coeff < math.inf:
            what = "the coefficient of the orthogonal penalty must be >= 0"
            raise UserError(what, f"got {coeff}")
        check_name("The form of the orthogonal penalty", form, FORMS)
        self.coeff = coeff
        self.form = form
        self._given = None if convs is None else _checked(convs)
        self._convs: list[tuple[str, Convolution]] = []  # chosen in before_train
        self._added: list[tuple[dict[str, Convolution], torch.Tensor]] | None = None
        self._attached = contextlib.ExitStack()

    def before_train(self) -> None:
        self._convs = self._given or _checked(self._default_convolutions())
        frozen = sum(not conv.weight.requires_grad for _, conv in self._convs)
        logger.info(
            f"Orthogonal penalty ({self.form}, coefficient {self.coeff:g}) on {len(self._convs)} "
            f"convolutions, {frozen} of them are frozen and do not change"
        )
        self._added = None
        self._attached.enter_context(_before_each_step(self.trainer.optimizer, self._regularize))
        after_backward = getattr(inner_trainer(self.trainer), "on_gradients", None)
        if after_backward is not None:
            after_backward.append(self._add_gradients)
            self._attached.callback(after_backward.remove, self._add_gradients)

    def _default_convolutions(self) -> Mapping[str, nn.Conv2d]:
        return default_convolutions(self.trainer.model)

    def after_train(self) -> None:
        self._attached.close()  # this method runs too if before_train of any hook has raised

    def _regularize(self, optimizer: torch.optim.Optimizer, closure: Closure | None) -> Any:
        """Add the gradients, unless that is done, and log; with a closure, return one that adds."""
        if closure is not None:
            return functools.partial(self._regularized_loss, closure, [])
        if self._added is None:
            # A fused optimizer unscales in its kernel: the gradients are still multiplied here.
            scale = getattr(optimizer, "grad_scale", None)
            self._add_gradients((lambda gradient: gradient) if scale is None else scale.mul)
        self._log()
        return None

    def _regularized_loss(self, closure: Closure, calls: list) -> Any:
        """closure() + coeff * penalty with its gradient; logs in the first call of a step."""
        loss = closure()
        self._add_gradients(lambda gradient: gradient)
        penalty = sum(value.item() for _, value in self._added or ())
        if not calls:
            self._log()
        calls.append(penalty)
        self._added = None
        return loss if loss is None else loss + self.coeff * penalty

    @torch.no_grad()
    @torch.profiler.record_function(PROFILER_LABEL)
    def _add_gradients(self, scaled: Scaling) -> None:
        """Add coeff * gradient to each `.grad`, multiplied as these are."""
        batches = _batches([pair for pair in self._convs if pair[1].weight.requires_grad])
        with products_as_exact_as_convolutions(self._convs[0][1].weight.device):
            self._added = [(batch, self._add(list(batch.values()), scaled)) for batch in batches]

    def _add(self, convs: list[Convolution], scaled: Scaling) -> torch.Tensor:
        """Add the gradients of one batch; returns the sum of (penalty - minimum)."""
        value, gradient = self._value_and_gradient(convs)
        if self.coeff:
            gradients = [_gradient_of(conv.weight) for conv in convs]
            whole = scaled(gradient).to(gradients[0].dtype).chunk(len(convs))
            parts = [_sharded_like(x, part) for x, part in zip(gradients, whole, strict=True)]
            torch._foreach_add_(gradients, parts, alpha=self.coeff)
        return value

    def _value_and_gradient(self, convs: list[Convolution]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of one batch: the sum of (penalty - minimum), and the concatenated gradients."""
        weight, layer = concatenate_weights(convs)
        value, gradient = orthogonal_penalty_and_gradient(weight, *layer, form=self.form)
        return value - minimum_orthogonal_penalty(weight.shape, *layer, form=self.form), gradient

    def _log(self) -> None:
        added, self._added = self._added, None
        if not added:
            return
        values = torch.stack([value for _, value in added]).tolist()  # the only synchronization
        stages: dict[str, float] = defaultdict(float)
        for (batch, _), value in zip(added, values, strict=True):
            if not math.isfinite(value):  # detectron2 has checked the losses, but not this one
                raise FloatingPointError(
                    f"the orthogonal penalty of {_first_diverged(batch)} became {value} at "
                    f"iteration {self.trainer.iter}: its weights diverged; lower SOLVER.BASE_LR, "
                    "lengthen the warm-up or clip gradients (SOLVER.CLIP_GRADIENTS)"
                )
            stages[stage_of(next(iter(batch)))] += value
        # "loss" in one name only: detectron2's console line shows every name that has it.
        scalars = {f"{self.label}/{stage}": value for stage, value in stages.items()}
        self.trainer.storage.put_scalars(**{f"loss_{self.label}": sum(stages.values())}, **scalars)


def _checked(convs: Convolutions) -> list[tuple[str, Convolution]]:
    """(name, convolution) of each weight once, in order; raises the constructor's errors."""
    chosen: dict[int, tuple[str, Convolution]] = {}
    for name, conv in convs.items() if isinstance(convs, Mapping) else convs:
        if not isinstance(conv, Convolution):
            raise UserError(f"{name} is a {type(conv).__name__}, not a 2D convolution")
        if not isinstance(conv.weight, nn.Parameter):
            what = f"the weight of {name} is computed from other parameters (a parametrization)"
            raise UserError(what, "the orthogonal penalty needs a weight that is itself trained")
        if conv.weight.dim() != 4:
            what = (
                f"the weight of {name} has the shape {tuple(conv.weight.shape)}, as FSDP leaves it"
            )
            raise UserError(what, "use fully_shard (FSDP2) or DistributedDataParallel")
        chosen.setdefault(id(conv.weight), (name, conv))
    if not chosen:
        raise UserError(
            "no convolution for the orthogonal penalty",
            "pass convs={name: nn.Conv2d, ...}, or set the coefficient (SOLVER.ORTHO_COEFF) to 0",
        )
    return list(chosen.values())


def _batches(convs: list[tuple[str, Convolution]]) -> list[dict[str, Convolution]]:
    """Convolutions of one stage and shape together: the time of small ones is that of their calls.

    Large ones stay alone, because a batch would save no time and copy their weights. A weight that
    is large for a CPU is small for a GPU, which starts its kernels one by one.
    """
    batches: dict[tuple, dict[str, Convolution]] = defaultdict(dict)
    for name, conv in convs:
        weight = conv.weight
        alone = name if weight.numel() > _LARGEST_BATCHED.get(weight.device.type, 0) else ""
        kind = (weight.shape, weight.dtype, weight.device, layer_of(conv))
        batches[stage_of(name), kind, alone][name] = conv
    return list(batches.values())


def concatenate_weights(convs: list[Convolution]) -> tuple[torch.Tensor, Layer]:
    """The weight and (stride, dilation, groups) of one convolution with `convs` as its groups.

    Each of `convs` has a weight (M, C / groups, kh, kw) of the same shape, and the same stride,
    dilation and groups. The result is (len(convs) * M, C / groups, kh, kw).
    """
    stride, dilation, groups = layer_of(convs[0])
    weights = [_whole(conv.weight) for conv in convs]
    weight = weights[0] if len(convs) == 1 else torch.cat(weights)
    return weight, (stride, dilation, groups * len(convs))


def _whole(tensor: Any) -> torch.Tensor:
    """A weight that fully_shard (FSDP2) has shared out, gathered; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _sharded_like(gradient: Any, part: torch.Tensor) -> torch.Tensor:
    """`part`, the same on all processes, shared out as `gradient` is."""
    if not hasattr(gradient, "full_tensor"):
        return part
    from torch.distributed.tensor import distribute_tensor  # takes a second

    return distribute_tensor(part.contiguous(), gradient.device_mesh, gradient.placements)


def _gradient_of(weight: torch.Tensor) -> torch.Tensor:
    """Its `.grad`, or zeros if the loss does not use the weight."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def _first_diverged(batch: dict[str, Convolution]) -> str:
    """The first with a weight that is not finite; otherwise that with the largest entry."""

    def size(name: str) -> float:
        largest = _whole(batch[name].weight).abs().max().item()
        return largest if math.isfinite(largest) else math.inf

    return max(batch, key=size)


@contextlib.contextmanager
def _before_each_step(
    optimizer: torch.optim.Optimizer, action: Callable[[torch.optim.Optimizer, Any], Any]
) -> Iterator[None]:
    """Inside, optimizer.step(closure) runs closure = action(optimizer, closure) first.

    register_step_pre_hook is not enough. torch fires pre-hooks from a wrapper around the `step` of
    each class that was ever instantiated. With clipping by a subclass they fire before it and again
    in super().step(), or, if detectron2 has set the class of an existing optimizer, only there,
    after the clipping; and learning rate schedulers have kept the unwrapped `step` by then. The
    trainer always calls the attribute of this instance.
    """
    step = optimizer.step
    own = vars(optimizer).get("step")
    active = True

    # Schedulers look for names and marks on the function, not on the bound method.
    @functools.wraps(getattr(step, "__func__", step))
    def step_after_action(self: torch.optim.Optimizer, closure=None, *args, **kwargs):
        if active:
            closure = action(self, closure)
        return step(*(() if closure is None else (closure,)), *args, **kwargs)

    optimizer.step = types.MethodType(step_after_action, optimizer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        active = False  # a scheduler made meanwhile may keep calling step_after_action
        if getattr(vars(optimizer).get("step"), "__func__", None) is step_after_action:
            if own is None:
                del optimizer.step
            else:
                optimizer.step = own  # type: ignore[method-assign]


@contextlib.contextmanager
def products_as_exact_as_convolutions(device: torch.device) -> Iterator[None]:
    """Inside, float32 products on a CUDA `device` use TF32 if cuDNN's convolutions use it.

    By default PyTorch lets convolutions use TF32 and products not. Nothing changes on a CPU, or if
    convolutions may not use TF32 either.
    """
    matmul = torch.backends.cuda.matmul
    if device.type != "cuda" or _uses_tf32(matmul) or not _uses_tf32(torch.backends.cudnn):
        yield
        return
    before = getattr(matmul, "fp32_precision", None)  # torch 2.8 and older have none
    matmul.allow_tf32 = True  # the older switch: it keeps both names of the setting consistent
    try:
        yield
    finally:
        matmul.allow_tf32 = False
        if before is not None:
            matmul.fp32_precision = before


def _uses_tf32(backend) -> bool:
    """Whether products (torch.backends.cuda.matmul) or convolutions (cudnn) may use TF32."""
    settings = getattr(backend, "conv", backend)
    if hasattr(settings, "fp32_precision"):
        return settings.fp32_precision == "tf32"
    return backend.allow_tf32
