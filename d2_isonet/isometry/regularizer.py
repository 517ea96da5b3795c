"""The hook that adds the gradient of the orthogonal penalty just before the optimizer's step."""

import contextlib
import functools
import logging
import math
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from detectron2.engine import HookBase, TrainerBase
from torch import nn

from d2_isonet.modeling.stages import default_convolutions, stage_of
from d2_isonet.utils.compat import inner_trainer
from d2_isonet.utils.messages import UserError

from .penalty import FORMS, minimum_orthogonal_penalty, orthogonal_penalty_and_gradient

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def products_as_exact_as_convolutions(device: torch.device) -> Iterator[None]:
    """Within: float32 products on a CUDA `device` in TF32 where cuDNN convolves in it.

    PyTorch lets convolutions use TF32 unless told otherwise, and products only when told to. On
    a CPU, and where TF32 is refused to convolutions too, nothing is changed.
    """
    matmul = torch.backends.cuda.matmul
    if device.type != "cuda" or _tf32(matmul) or not _tf32(torch.backends.cudnn):
        yield
        return
    before = getattr(matmul, "fp32_precision", None)  # unknown to torch 2.8 and older
    matmul.allow_tf32 = True  # the older switch: it keeps what both of them say alike
    try:
        yield
    finally:
        matmul.allow_tf32 = False
        if before is not None:
            matmul.fp32_precision = before


def _tf32(backend) -> bool:
    """Whether products (torch.backends.cuda.matmul) or convolutions (cudnn) may use it."""
    settings = getattr(backend, "conv", backend)
    if hasattr(settings, "fp32_precision"):
        return settings.fp32_precision == "tf32"
    return backend.allow_tf32


__all__ = ["OrthogonalRegularizer", "default_convolutions"]
PROFILER_LABEL = "orthogonal_penalty"  # what torch.profiler shows around it
# Entries of a weight; on a CPU 64 x 64 x 3 x 3 is below, 128 x 128 x 3 x 3 above.
_LARGEST_BATCHED = {"cpu": 1 << 16, "cuda": 1 << 19}
Convolution = nn.Conv2d | nn.ConvTranspose2d
Convolutions = Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]]
Scaling = Callable[[torch.Tensor], torch.Tensor]
Layer = tuple[tuple[int, ...], tuple[int, ...], int]  # stride, dilation, groups


class OrthogonalRegularizer(HookBase):
    """Trains loss + coeff * sum of `orthogonal_penalty` over convolutions, in any trainer.

    ISONet paper (arXiv 2006.16992), eq. 13 and 14. The closed-form gradient is added to `.grad`
    when `trainer.optimizer.step` is called: once per step, before detectron2's gradient clipping,
    after GradScaler has unscaled (a step that it skips adds nothing), and, because every process
    adds the same to gradients already averaged, without communication. This project's trainers
    let it be added right behind backward, scaled like the gradients there: the same step, but a
    GPU gets the work before the gradients are checked, while it is busy, and nobody waits for it.
    Frozen weights are left alone. The total loss that detectron2 prints does not contain the
    penalty. On a GPU its products are as exact as the convolutions: TF32, unless that is off.

    Logged at each step: `loss_ortho`, the sum of penalty minus its minimum for the shape, not
    multiplied by coeff; 0 means as orthogonal as these shapes can be. `ortho/res2`, ... is the
    share of each stage.
    """

    label = "ortho"  # in the names of what is logged

    def __init__(self, coeff: float, form: str = "exact", convs: Convolutions | None = None):
        """
        Args:
            coeff: the paper's gamma; 1e-4 there (3e-4 for ISONet-101). With 0 it only logs.
            form: "exact", "official" or "flattened", see `orthogonal_penalty`.
            convs: name -> nn.Conv2d or nn.ConvTranspose2d, or (name, convolution) pairs; a weight
                shared by several is taken once. Default: `default_convolutions(trainer.model)`.

        Raises:
            UserError: negative or infinite coeff, unknown form, no or unusable convolutions.
        """
        if not (math.isfinite(coeff) and coeff >= 0):
            raise UserError(
                "the coefficient of the orthogonal penalty must be >= 0",
                f"got {coeff}",
            )
        if form not in FORMS:
            raise UserError(
                f"unknown form of the orthogonal penalty {form!r}",
                f"choose from {FORMS}",
            )
        self.coeff = coeff
        self.form = form
        self._given = None if convs is None else _checked(convs)
        self._convs: list[tuple[str, Convolution]] = []
        self._added: list[tuple[dict[str, Convolution], torch.Tensor]] | None = None
        self._undo: Callable[[], None] = _nothing

    def before_train(self) -> None:
        given = self._given
        self._convs = _checked(self._default_convolutions()) if given is None else given
        frozen = sum(not conv.weight.requires_grad for _, conv in self._convs)
        logger.info(
            f"Orthogonal penalty ({self.form}, coefficient {self.coeff:g}) on {len(self._convs)} "
            f"convolutions, {frozen} of them frozen and left alone"
        )
        self._added = None
        undo = contextlib.ExitStack()
        undo.callback(_run_before_step(self.trainer.optimizer, self._regularize))
        undo.callback(_run_behind_backward(self.trainer, self._add_gradients))
        self._undo = undo.close

    def _default_convolutions(self) -> Mapping[str, nn.Conv2d]:
        return default_convolutions(self.trainer.model)

    def after_train(self) -> None:
        # Also called when before_train, of this or of another hook, has raised.
        self._undo()
        self._undo = _nothing

    def _regularize(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradients, unless that is done, and log."""
        if self._added is None:
            # A fused optimizer unscales inside its kernel: it meets gradients still multiplied.
            scale = getattr(optimizer, "grad_scale", None)
            self._add_gradients(_same if scale is None else scale.mul)
        self._log()

    @torch.no_grad()
    @torch.profiler.record_function(PROFILER_LABEL)
    def _add_gradients(self, scaled: Scaling) -> None:
        """To gradients multiplied as `scaled` does it."""
        batches = _batches([pair for pair in self._convs if pair[1].weight.requires_grad])
        with products_as_exact_as_convolutions(self._convs[0][1].weight.device):
            self._added = [(batch, self._add(list(batch.values()), scaled)) for batch in batches]

    def _add(self, convs: list[Convolution], scaled: Scaling) -> torch.Tensor:
        """The gradients of convolutions alike; returns the sum of what is logged."""
        value, gradient = self._value_and_gradient(convs)
        if self.coeff:
            gradients = [_gradient_of(conv.weight) for conv in convs]
            parts = scaled(gradient).to(gradients[0].dtype).chunk(len(convs))
            torch._foreach_add_(gradients, list(parts), alpha=self.coeff)
        return value

    def _value_and_gradient(self, convs: list[Convolution]) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of penalties minus their minimum; the gradients, one below the other."""
        weight, (stride, dilation, groups) = side_by_side(convs)
        layer = (stride, dilation, groups, self.form)
        value, gradient = orthogonal_penalty_and_gradient(weight, *layer)
        return value - minimum_orthogonal_penalty(weight.shape, *layer), gradient

    def _log(self) -> None:
        # detectron2 has checked the losses before the step; this one is nobody else's to check.
        added, self._added = self._added, None
        if not added:
            return
        values = torch.stack([value for _, value in added]).tolist()  # the only wait for the device
        stages: dict[str, float] = defaultdict(float)
        for (batch, _), value in zip(added, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the orthogonal penalty of {_first_diverged(batch)} became {value} at "
                    f"iteration {self.trainer.iter}: its weights diverged; lower SOLVER.BASE_LR, "
                    "lengthen the warm-up or clip gradients (SOLVER.CLIP_GRADIENTS)"
                )
            stages[stage_of(next(iter(batch)))] += value
        storage = self.trainer.storage
        storage.put_scalar(f"loss_{self.label}", sum(stages.values()))
        for stage, value in stages.items():
            # Without "loss" in the name: detectron2's console line shows every name that has it.
            storage.put_scalar(f"{self.label}/{stage}", value)


def _batches(convs: list[tuple[str, Convolution]]) -> list[dict[str, Convolution]]:
    """Convolutions of one stage and shape together, as groups of one: small ones cost their calls.

    Large ones stay alone: there is nothing to gain, and the copy would take memory. What is large
    for a CPU is small for a GPU, whose kernels are started one by one.
    """
    batches: dict[tuple, dict[str, Convolution]] = defaultdict(dict)
    for name, conv in convs:
        weight = conv.weight
        limit = _LARGEST_BATCHED.get(weight.device.type, 0)
        alone = name if weight.numel() > limit else ""
        layer = (conv.stride, conv.dilation, conv.groups)
        batches[stage_of(name), weight.shape, weight.dtype, weight.device, layer, alone][name] = (
            conv
        )
    return list(batches.values())


def _gradient_of(weight: torch.Tensor) -> torch.Tensor:
    """Its `.grad`, zeros where the loss does not use it."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def side_by_side(convs: list[Convolution]) -> tuple[torch.Tensor, Layer]:
    """The weight and (stride, dilation, groups) of one convolution with theirs as its groups."""
    first = convs[0]
    weight = first.weight if len(convs) == 1 else torch.cat([conv.weight for conv in convs])
    return weight, (first.stride, first.dilation, first.groups * len(convs))


def _first_diverged(batch: dict[str, Convolution]) -> str:
    """The first whose weight is not finite; else that of the largest entry."""
    largest = {name: conv.weight.abs().max().item() for name, conv in batch.items()}
    return next(
        (n for n, x in largest.items() if not math.isfinite(x)),
        max(largest, key=largest.__getitem__),
    )


def _checked(convs: Convolutions) -> list[tuple[str, Convolution]]:
    """The convolutions with a weight of their own, in order."""
    chosen: dict[int, tuple[str, Convolution]] = {}
    for name, conv in convs.items() if isinstance(convs, Mapping) else convs:
        if not isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
            raise UserError(f"{name} is a {type(conv).__name__}, not a 2D convolution")
        if not isinstance(conv.weight, nn.Parameter):
            raise UserError(
                f"the weight of {name} is computed from other parameters (a parametrization)",
                "the orthogonal penalty needs a weight that is itself trained",
            )
        chosen.setdefault(id(conv.weight), (name, conv))
    if not chosen:
        raise UserError(
            "no convolution for the orthogonal penalty: pass convs={name: nn.Conv2d, ...}, or set "
            "the coefficient (SOLVER.ORTHO_COEFF) to 0"
        )
    return list(chosen.values())


def _run_before_step(
    optimizer: torch.optim.Optimizer, action: Callable[[torch.optim.Optimizer], None]
) -> Callable[[], None]:
    """Let optimizer.step() run action(optimizer) before all else; return what undoes that.

    register_step_pre_hook is not enough. torch fires pre-hooks from a wrapper around the `step` of
    each class that was ever instantiated: with clipping by a subclass they fire before it, again
    in super().step(), or, when detectron2 has set the class of an existing optimizer, only there,
    after the clipping. Learning rate schedulers have kept that unwrapped `step` by then. What the
    trainer calls is this instance's attribute, whatever stands behind it.
    """
    step = optimizer.step
    inside = "step" in vars(optimizer)
    active = True

    # The names and marks that schedulers look for lie on the function, not on the bound method.
    @functools.wraps(getattr(step, "__func__", step))
    def step_after_action(self: torch.optim.Optimizer, *args, **kwargs):
        if active:
            action(self)
        return step(*args, **kwargs)

    def undo() -> None:
        nonlocal active
        active = False  # a scheduler created meanwhile may keep calling the function above
        if getattr(vars(optimizer).get("step"), "__func__", None) is step_after_action:
            if inside:
                optimizer.step = step  # type: ignore[method-assign]
            else:
                del optimizer.step

    optimizer.step = types.MethodType(step_after_action, optimizer)  # type: ignore[method-assign]
    return undo


def _run_behind_backward(
    trainer: TrainerBase, action: Callable[[Scaling], None]
) -> Callable[[], None]:
    """Let an AccumulatingTrainer, alone or in a DefaultTrainer, run action; return what undoes it.

    Any other trainer is left as it is.
    """
    actions = getattr(inner_trainer(trainer), "on_gradients", None)
    if actions is None:
        return _nothing
    actions.append(action)
    return functools.partial(actions.remove, action)


def _same(gradient: torch.Tensor) -> torch.Tensor:
    return gradient


def _nothing() -> None:
    """What there is to undo before training."""
