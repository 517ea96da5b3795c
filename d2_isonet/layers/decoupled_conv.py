"""Decoupled convolution: separate functions of a patch's length and of its angle."""

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from d2_isonet.config.options import check_name, check_range
from d2_isonet.utils.messages import UserError

from .convolution import convolution_dtype

EPS = 1e-4  # under both roots and on the radius, as in the authors' code (wy1iu/DCNets)
_DECAY = 0.999  # of the moving average of the patch norm, there too
_K_MARGIN, _K_INIT = 0.05, 0.7  # a learned k is |v| + 0.05 with v = 0.7 at first (wy1iu/SphereNet)
# asin has an infinite slope at 1, and rounding may push its argument above 1.
_LARGEST_COSINE = 1 - 1e-6
# h(n) / n: a cosine then costs no division, because a convolution computes n cos(theta).
MAGNITUDES = {
    "Sphere": lambda n, rho, alpha, beta: alpha / n,
    "Ball": lambda n, rho, alpha, beta: alpha / torch.maximum(n, rho),
    "Tanh": lambda n, rho, alpha, beta: alpha * torch.tanh(n / rho) / n,
    "Linear": lambda n, rho, alpha, beta: alpha,
    "Seg": lambda n, rho, alpha, beta: beta + (alpha - beta) * (rho / n).clamp(max=1),
    "Log": lambda n, rho, alpha, beta: alpha * torch.log1p(n) / n,
    "Mix": lambda n, rho, alpha, beta: alpha + beta * torch.log1p(n) / n,
}
WITH_RADIUS, WITH_BETA = ("Ball", "Tanh", "Seg"), ("Seg", "Mix")
# n g(theta) from u = n cos(theta)
ANGULARS = {
    "cosine": lambda u, n, k: u,
    "linear": lambda u, n, k: n * _elevation(u, n) * (2 / math.pi),
    "square_cosine": lambda u, n, k: u * u.abs() / n,
    "sigmoid": lambda u, n, k: n * torch.tanh(_elevation(u, n) / (2 * k)) / _tanh(math.pi / 4 / k),
}
RADIUS_SCALES = ("batch", "running", "frozen", "none")


@dataclasses.dataclass(frozen=True)
class DecoupledOptions:
    """The operator h(|x|) g(theta); the fields are the keys of MODEL.DECOUPLED.

    magnitude, the function h:
        "Sphere" alpha; "Ball" alpha min(|x|, rho) / rho; "Tanh" alpha tanh(|x| / rho);
        "Linear" alpha |x|; "Seg" alpha |x| up to rho and slope beta beyond;
        "Log" alpha log(1 + |x|); "Mix" alpha |x| + beta log(1 + |x|).
    angular, the function g:
        "cosine" cos(theta); "linear" 1 - 2 theta / pi; "square_cosine" cos(theta) |cos(theta)|;
        "sigmoid" tanh((pi/2 - theta) / 2k) / tanh(pi / 4k), the paper's with fewer exponentials.

    Args:
        alpha, beta: the factors of h above; 1 and 0.5 in the authors' code.
        radius: first value of the operator radius rho of "Ball", "Tanh" and "Seg". rho is
            (r^2 + 1e-4) times the layer's scale, with one r, the parameter `radius`, per filter.
        radius_learned: whether r is trained.
        radius_scale: the layer's scale. "batch" is the mean of |x| over the batch (with its
            gradient; in evaluation its moving average), as in the authors' code. "running" uses the
            moving average in training too. "frozen" uses that average as it was loaded (1 if it
            was not) and never updates it. "none" is 1, without a statistic. As with BatchNorm,
            each process has its own average, and a layer whose weight is frozen keeps it. The
            average is that of TensorFlow: decay 0.999, corrected for its start.
        sigmoid_k: k if it is fixed.
        sigmoid_k_learned: learn one k per filter; it starts at 0.75, as released.

    Raises:
        UserError: an unknown name, alpha, radius or sigmoid_k not above 0, or beta below 0.
    """

    magnitude: str = "Tanh"
    angular: str = "cosine"
    alpha: float = 1.0
    beta: float = 0.5
    radius: float = 1.0
    radius_learned: bool = True
    radius_scale: str = "batch"
    sigmoid_k: float = 0.3
    sigmoid_k_learned: bool = False

    def __post_init__(self):
        check_name("MODEL.DECOUPLED.MAGNITUDE", self.magnitude, MAGNITUDES)
        check_name("MODEL.DECOUPLED.ANGULAR", self.angular, ANGULARS)
        check_name("MODEL.DECOUPLED.RADIUS_SCALE", self.radius_scale, RADIUS_SCALES)
        check_range("MODEL.DECOUPLED.BETA", self.beta)
        for key in ("alpha", "radius", "sigmoid_k"):
            value = getattr(self, key)
            if not 0 < value < math.inf:
                what = f"MODEL.DECOUPLED.{key.upper()} is {value}"
                raise UserError(what, "it must be finite and above 0")


class DecoupledConv2d(nn.Conv2d):
    """y = h(|x|) g(theta), theta the angle between filter and patch x (Liu et al., CVPR 2018).

    A drop-in for detectron2's Conv2d: norm and activation follow, but there is no bias. The length
    of a filter has no effect. |w| and |x| have 1e-4 under the root, zeros of the padding belong to
    the patch, and each group has its own patches. It computes in float32 or wider, also under
    autocast, and returns the dtype of an ordinary convolution.

    Args:
        options: keyword arguments of `DecoupledOptions`, such as magnitude="Ball".

    Raises:
        UserError: bias=True, or an impossible option.
    """

    running_norm: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: nn.Module | None = None,
        **options,
    ):
        if bias:
            raise UserError("a decoupled convolution has no bias", "got bias=True")
        self.options = DecoupledOptions(**options)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False
        )
        self.norm, self.activation = norm, activation
        if self.options.magnitude in WITH_RADIUS:
            self._add_radius()
        self.sigmoid_k: float | nn.Parameter = self.options.sigmoid_k
        if self.options.angular == "sigmoid" and self.options.sigmoid_k_learned:
            self.sigmoid_k = nn.Parameter(torch.full((out_channels,), _K_INIT))

    def _add_radius(self) -> None:
        first = torch.full((self.out_channels,), math.sqrt(self.options.radius))
        self.radius = nn.Parameter(first, self.options.radius_learned)
        if self.options.radius_scale != "none":
            self.register_buffer("running_norm", torch.ones(()))
            self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # squares overflow in float16
        with torch.autocast(x.device.type, enabled=False):
            y = self._decoupled(x.to(wide), self.weight.to(wide))
        y = y.to(convolution_dtype(x))
        y = y if self.norm is None else self.norm(y)
        return y if self.activation is None else self.activation(y)

    def _decoupled(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        geometry: tuple[Any, ...] = (self.stride, self.padding, self.dilation, self.groups)
        u = F.conv2d(x, weight / filter_lengths(weight), None, *geometry)
        n = self._patch_norm(x, geometry)
        rho = self._operator_radius(n)
        if self.groups > 1:
            n = n.repeat_interleave(self.out_channels // self.groups, dim=-3)
        gain = MAGNITUDES[self.options.magnitude](n, rho, self.options.alpha, self.options.beta)
        return gain * ANGULARS[self.options.angular](u, n, self._sigmoid_width())

    def _patch_norm(self, x: torch.Tensor, geometry: tuple) -> torch.Tensor:
        """([N,] groups, H', W'), by a box filter of the sum over channels."""
        channels = (self.groups, self.in_channels // self.groups)
        energy = x.square().unflatten(-3, channels).sum(-3)
        box = energy.new_ones(self.groups, 1, *self.kernel_size)
        energy = F.conv2d(energy, box, None, *geometry)
        # a fast convolution may round an empty patch beside a bright one to a negative number
        return (energy.clamp(min=0) + EPS).sqrt()

    def _operator_radius(self, n: torch.Tensor) -> torch.Tensor | None:
        if self.options.magnitude not in WITH_RADIUS:
            return None
        rho = (self.radius.square() + EPS).view(-1, 1, 1)
        return rho if self.options.radius_scale == "none" else rho * self._layer_scale(n)

    def _layer_scale(self, n: torch.Tensor) -> torch.Tensor:
        scale = self.options.radius_scale
        updates = self.training and self.weight.requires_grad and scale != "frozen"
        if not updates or n.numel() == 0:  # without proposals there is no mean
            return self.running_norm.to(n.dtype)
        mean = n.mean()
        with torch.no_grad():
            self.num_batches_tracked += 1
            count = self.num_batches_tracked.to(n.dtype)
            share = (1 - _DECAY) / -torch.expm1(count * math.log(_DECAY))
            self.running_norm.lerp_(mean.to(self.running_norm), share.to(self.running_norm))
        # a copy: the next batch would change what backward needs
        return mean if scale == "batch" else self.running_norm.to(n.dtype, copy=True)

    def _sigmoid_width(self) -> float | torch.Tensor:
        if isinstance(self.sigmoid_k, float | int):
            return self.sigmoid_k
        return (self.sigmoid_k.abs() + _K_MARGIN).view(-1, 1, 1)

    def extra_repr(self) -> str:
        with_radius = self.options.magnitude in WITH_RADIUS
        radius = f", radius_scale={self.options.radius_scale}" if with_radius else ""
        operator = f"{self.options.magnitude} x {self.options.angular}"
        return f"{super().extra_repr()}, {operator}{radius}"


def filter_lengths(weight: torch.Tensor) -> torch.Tensor:
    """sqrt(|w|^2 + 1e-4) of each filter of (M, C / groups, kh, kw), as (M, 1, 1, 1)."""
    return (weight.square().sum((1, 2, 3), keepdim=True) + EPS).sqrt()


def _elevation(u: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """pi/2 - theta, with a finite gradient everywhere."""
    return torch.asin((u / n).clamp(-_LARGEST_COSINE, _LARGEST_COSINE))


def _tanh(x: float | torch.Tensor) -> float | torch.Tensor:
    return torch.tanh(x) if isinstance(x, torch.Tensor) else math.tanh(x)
