"""The activations themselves: piecewise linear (PReLU, APL), gated (Swish, ACON-C, AGLU), Snake, and Padé's."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter

from agileact._common import checks
from agileact._common.broadcasting import WIDE
from agileact._common.errors import ArgumentError
from agileact.functional import Granularity, channel_axis, check_input, check_placement
from agileact.nn.module import Device, number_of_pairs

_LEAST_LAMBDA = 1e-4
"""The authors' code of AGLU keeps lambda above this."""

Start = Literal["leaky_relu", "relu"]

# Minimax fits on [-3, 3] by reweighted least squares from 2,401 points (SciPy's least_squares; the weights grow with
# the error until it is equal at all its peaks), rounded to six digits. The largest errors stand in the docstring, and
# a test holds them.
_STARTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "leaky_relu": (
        (0.0131282, 0.505, 2.70287, 4.40758, 2.43357, 0.441785),
        (3.12791e-06, 8.72787, 1.41372e-06, 0.874822),
    ),
    "relu": (
        (0.0132523, 0.5, 2.73128, 4.36679, 2.46012, 0.437803),
        (2.99477e-06, 8.73357, 1.20221e-06, 0.875606),
    ),
}


class ParametricActivation(nn.Module):
    """Base of the activations whose shape is learned, with parameters laid out as those of agile modules are.

    Every coefficient of the formula has one value per channel, per layer or per element. All values of a
    parameter are one vector: coefficient after coefficient, and within one channel after channel. As vectors they
    are left alone by libraries that decay only matrices.

    Attributes:
        granularity: What one set of coefficients belongs to: "channel", "layer" or "element".
        dim: The channel axis.
        num_parameters: The number of sets of coefficients.
    """

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None,
        starts: Mapping[str, Sequence[float]],
        granularity: Granularity,
        dim: int,
        device: Device,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_placement(granularity, dim, dtype)
        self.granularity: Granularity = granularity
        self.dim = dim
        self.sample_shape = num_parameters if isinstance(num_parameters, tuple) else None
        size = number_of_pairs(num_parameters, granularity)
        if size is None:
            raise ArgumentError(f"num_parameters must be given with granularity {granularity!r}: how many channels?")
        self.num_parameters = size
        for name, value in ((name, value) for name, values in starts.items() for value in values):
            if not math.isfinite(checks.number(name, value)):
                raise ArgumentError(f"{name} must be finite, not {value}")
        self._starts = {name: tuple(map(float, values)) for name, values in starts.items()}
        for name, values in self._starts.items():
            empty = torch.empty(len(values) * self.num_parameters, device=device, dtype=dtype)
            self.register_parameter(name, Parameter(empty))
        self.reset_parameters()

    def initial_values(self) -> dict[str, Tensor]:
        """Return the values at which each parameter starts, as new tensors."""
        return {
            name: torch.tensor(values, device=parameter.device, dtype=parameter.dtype).repeat_interleave(
                self.num_parameters
            )
            for (name, values), parameter in zip(self._starts.items(), self.parameters(recurse=False), strict=True)
        }

    def reset_parameters(self) -> None:
        """Set all parameters to their start."""
        with torch.no_grad():
            for name, values in self.initial_values().items():
                self.get_parameter(name).copy_(values)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of ``x``: same shape and dtype, computed in float32 or wider."""
        shape = self._laid_out(x)
        wide = WIDE[x.dtype]
        coefficients = {name: getattr(self, name).to(wide).view(-1, *shape) for name in self._starts}
        return self.formula(x.to(wide), **coefficients).to(x.dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return the activation in the dtype of its arguments.

        Args:
            x: The input.
            **coefficients: Each parameter by its name, with the coefficients along a leading axis and the rest
                shaped so that it broadcasts against ``x``.
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the arguments that say how the parameters are laid out."""
        parts = [] if self.granularity == "layer" else [repr(self.sample_shape or self.num_parameters)]
        if self.granularity != "channel":
            parts.append(f"granularity={self.granularity!r}")
        elif self.dim != 1:
            parts.append(f"dim={self.dim}")
        return ", ".join(parts)

    def _laid_out(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape in which one coefficient broadcasts against ``x``; raise if the two do not fit."""
        check_input(x)
        if self.granularity == "layer":
            return (1,) * x.ndim
        if self.granularity == "channel":
            axis = channel_axis(x, self.dim)
            if x.shape[axis] != self.num_parameters:
                raise ArgumentError(
                    f"the activation has {self.num_parameters} channels, but x of shape {tuple(x.shape)} has "
                    f"{x.shape[axis]} along axis {axis}"
                )
            return tuple(self.num_parameters if i == axis else 1 for i in range(x.ndim))
        start = min(1, x.ndim - 1)
        sample = tuple(x.shape[start:]) if x.ndim else ()
        if x.ndim == 0 or math.prod(sample) != self.num_parameters or self.sample_shape not in (None, sample):
            raise ArgumentError(
                f"the activation is made for samples of {self.sample_shape or self.num_parameters} elements, "
                f"but a sample of x, of shape {tuple(x.shape)}, has shape {sample}"
            )
        return (1,) * start + sample


class PReLU(ParametricActivation):
    r"""A rectifier with a learned negative slope: :math:`f(x) = \max(0, x) + w \min(0, x)`.

    Source: K. He, X. Zhang, S. Ren, J. Sun, *Delving Deep into Rectifiers*, arXiv 1502.01852. It is
    :class:`torch.nn.PReLU`, whose kernel it calls, with a channel axis of choice.

    Shapes:
        The input has any shape, such as (N, C), (N, C, H, W), (N, L, C) with ``dim=-1``, or (C,); float64, float32,
        bfloat16 or float16. The output has the same shape and dtype.

    Args:
        num_parameters: The number of channels; for granularity "element" that of elements, or a sample's shape.
        weight: The slope at the start (paper: 0.25).
        granularity: One slope per "channel", per "layer" or per "element".
        dim: The channel axis.
        device: Where the parameters are.
        dtype: Their floating-point dtype.

    Attributes:
        weight: The negative slopes w.

    Raises:
        ArgumentError: If a value does not fit; in the forward pass, if the input does not.
        ArgumentTypeError: If a type does not fit.

    Example:
        >>> import torch
        >>> PReLU(3, weight=0.5, dim=-1)(torch.tensor([[[-2.0, 0.0, 2.0]]]))
        tensor([[[-1.,  0.,  2.]]], grad_fn=<TransposeBackward0>)
    """

    weight: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        weight: float = 0.25,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"weight": (weight,)}, granularity, dim, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return max(0, x) + w min(0, x)."""
        self._laid_out(x)
        wide = x.to(WIDE[x.dtype])
        weight = self.weight.to(wide.dtype)
        if self.granularity == "layer":
            y = torch.prelu(wide, weight)
        elif x.ndim == 1:
            y = torch.prelu(wide.unsqueeze(0), weight).squeeze(0)
        elif self.granularity == "element":
            y = torch.prelu(wide.flatten(1), weight).view(x.shape)
        else:
            # torch's kernel has its channels at axis 1.
            axis = channel_axis(x, self.dim)
            y = torch.prelu(wide.transpose(axis, 1), weight).transpose(axis, 1)
        return y.to(x.dtype)


class APL(ParametricActivation):
    r"""A rectifier with learned hinges.

    .. math:: f(x) = \max(0, x) + \sum_{s=1}^{S} a_s \max(0, -x + b_s)

    Source: F. Agostinelli, M. Hoffman, P. Sadowski, P. Baldi, *Learning Activation Functions to Improve Deep Neural
    Networks*, arXiv 1412.6830, equation (1): adaptive piecewise linear units. Here a = 0 at the start, so that the
    function is exactly ReLU, and the hinges b are spread evenly from -1 to 1 (0 for a single one), so that training
    tells them apart; these start values are our choice.

    Shapes, errors and the other arguments are those of :class:`PReLU`.

    Args:
        hinges: S, at least 1.
        granularity: As for :class:`PReLU`; the paper learns one function per node ("element", or "channel" after a
            dense layer).

    Attributes:
        slope: All a, hinge after hinge.
        hinge: All b.

    Example:
        >>> import torch
        >>> x = torch.tensor([[-1.0, 2.0]])
        >>> torch.equal(APL(2, hinges=3)(x), torch.relu(x))
        True
    """

    slope: Tensor
    hinge: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        hinges: int = 2,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        checks.integer("hinges", hinges, least=1)
        spread = [2 * s / (hinges - 1) - 1 for s in range(hinges)] if hinges > 1 else [0.0]
        super().__init__(num_parameters, {"slope": [0.0] * hinges, "hinge": spread}, granularity, dim, device, dtype)
        self.hinges = hinges

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return max(0, x) + sum of a max(0, b - x)."""
        y = torch.relu(x)
        for a, b in zip(coefficients["slope"], coefficients["hinge"], strict=True):
            y = y + a * torch.relu(b - x)
        return y

    def extra_repr(self) -> str:
        """Return the arguments."""
        return ", ".join(filter(None, [super().extra_repr(), f"hinges={self.hinges}"]))


class Swish(ParametricActivation):
    r"""The identity behind a sigmoid gate of learned steepness: :math:`f(x) = x \, \sigma(\beta x)`.

    Source: P. Ramachandran, B. Zoph, Q. V. Le, *Searching for Activation Functions*, arXiv 1710.05941. With
    :math:`\beta = 1`, the start here, it is :func:`torch.nn.functional.silu`.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        beta: The steepness at the start.

    Attributes:
        beta: The steepness of the gate.

    Example:
        >>> import torch
        >>> Swish(2, beta=0.0)(torch.tensor([[-2.0, 2.0]])).tolist()
        [[-1.0, 1.0]]
    """

    beta: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        beta: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"beta": (beta,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return x sigmoid(beta x)."""
        return x * torch.sigmoid(coefficients["beta"][0] * x)


class ACONC(ParametricActivation):
    r"""A smooth maximum of two learned lines: :math:`f(x) = (p_1 - p_2) x \, \sigma(\beta (p_1 - p_2) x) + p_2 x`.

    Source: N. Ma, X. Zhang, M. Liu, J. Sun, *Activate or Not: Learning Customized Activation*, arXiv 2009.04759,
    ACON-C. For growing beta it becomes max(p1 x, p2 x). The authors' code draws p1 and p2 from a standard normal
    distribution; here they start at 1 and 0 with beta = 1, which is Swish, so that no start depends on chance.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        p1: Slope of the first line at the start.
        p2: Slope of the second line at the start.
        beta: Sharpness of the maximum at the start.

    Attributes:
        p1: Slopes of the first line.
        p2: Slopes of the second line.
        beta: Sharpness of the maximum.

    Example:
        >>> import torch
        >>> ACONC(2, p1=1.0, p2=0.5, beta=1000.0)(torch.tensor([[-2.0, 2.0]])).tolist()
        [[-1.0, 2.0]]
    """

    p1: Tensor
    p2: Tensor
    beta: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        p1: float = 1.0,
        p2: float = 0.0,
        beta: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"p1": (p1,), "p2": (p2,), "beta": (beta,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x."""
        p1, p2, beta = (coefficients[name][0] for name in ("p1", "p2", "beta"))
        difference = (p1 - p2) * x
        return difference * torch.sigmoid(beta * difference) + p2 * x


class AGLU(ParametricActivation):
    r"""The identity behind a gate of learned shape: :math:`f(x) = x \, (\lambda e^{-\kappa x} + 1)^{-1 / \lambda}`.

    Source: K. P. Alexandridis, J. Deng, A. Nguyen, S. Luo, *Adaptive Parametric Activation*, arXiv 2407.08567: the
    adaptive generalised linear unit. The gate is a sigmoid for :math:`\lambda = 1` and tends to Gumbel's
    distribution function for :math:`\lambda \to 0`. As in the authors' code lambda is kept above 0.0001.
    They draw lambda and kappa uniformly from 0 to 1; here both start at 1, which is Swish with beta = 1, so that
    no start depends on chance.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        lam: Lambda, the asymmetry of the gate, at the start.
        kappa: The steepness of the gate at the start.
        granularity: As for :class:`~agileact.baselines.PReLU`; the authors have one pair per layer.

    Attributes:
        lam: Lambda.
        kappa: Kappa.

    Example:
        >>> import torch
        >>> x = torch.linspace(-3, 3, 7)
        >>> torch.allclose(AGLU(7)(x), torch.nn.functional.silu(x))
        True
    """

    lam: Tensor
    kappa: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        lam: float = 1.0,
        kappa: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"lam": (lam,), "kappa": (kappa,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return x (lambda exp(-kappa x) + 1)^(-1/lambda)."""
        lam, kappa = coefficients["lam"][0].clamp(min=_LEAST_LAMBDA), coefficients["kappa"][0]
        # log(1 + lambda exp(-kappa x)) as a softplus: the exponential alone overflows for large -kappa x.
        return x * torch.exp(-torch.nn.functional.softplus(torch.log(lam) - kappa * x) / lam)


class Snake(ParametricActivation):
    r"""The identity with a periodic part of learned frequency: :math:`f(x) = x + \frac{1}{a} \sin^2(a x)`.

    Source: L. Ziyin, T. Hartwig, M. Ueda, *Neural Networks Fail to Learn Periodic Functions and How to Fix It*,
    arXiv 2006.08195. Frequency 1 at the start is the x + sin²(x) of its abstract. At frequency 0 the function is its
    limit, the identity.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        frequency: a at the start.

    Attributes:
        frequency: a.

    Example:
        >>> import torch
        >>> y = Snake(1, frequency=0.5)(torch.tensor([[torch.pi]]))
        >>> print(f"{y.item():.4f}")
        5.1416
    """

    frequency: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        frequency: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"frequency": (frequency,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return x + sin²(a x) / a."""
        a = coefficients["frequency"][0]
        # sin(a x) = a x sinc(a x / pi) never divides by a frequency of 0.
        root = x * torch.sinc(a * x / math.pi)
        return x + a * root * root


class Rational(ParametricActivation):
    r"""A Padé activation unit of degrees 5 and 4, in its safe version.

    .. math:: f(x) = \frac{\sum_{j=0}^{5} p_j x^j}{1 + \left| \sum_{k=1}^{4} q_k x^k \right|}

    Source: A. Molina, P. Schramowski, K. Kersting, *Padé Activation Units: End-to-end Learning of Flexible Activation
    Functions in Deep Networks*, arXiv 1907.06732. The denominator is never below 1, so there are no poles. The start
    approximates a rectifier by a fit of our own: on [-3, 3] it is off by at most 0.01313 from LeakyReLU with slope
    0.01, and by at most 0.01326 from ReLU. Outside it leaves them: at x = -10 the start of ``"leaky_relu"`` is -2.5,
    at 10 it is 7.6.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        start: The function that is approximated at the start, "leaky_relu" or "relu".
        granularity: As for :class:`~agileact.baselines.PReLU`; the paper learns one function per "layer".

    Attributes:
        numerator: All p, coefficient after coefficient.
        denominator: All q.

    Example:
        >>> import torch
        >>> x = torch.linspace(-3, 3, 601)[:, None]
        >>> error = (Rational(1, start="relu")(x) - torch.relu(x)).abs().max()
        >>> print(f"{error.item():.4f}")
        0.0133
    """

    numerator: Tensor
    denominator: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        start: Start = "leaky_relu",
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if start not in _STARTS:
            raise ArgumentError(f"start must be {' or '.join(map(repr, get_args(Start)))}, not {start!r}")
        numerator, denominator = _STARTS[start]
        super().__init__(
            num_parameters, {"numerator": numerator, "denominator": denominator}, granularity, dim, device, dtype
        )

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return the quotient, both polynomials by Horner's rule."""
        p, q = coefficients["numerator"], coefficients["denominator"]
        above, below = p[5], q[3]
        for j in (4, 3, 2, 1, 0):
            above = above * x + p[j]
        for k in (2, 1, 0):
            below = below * x + q[k]
        return above / (1 + (below * x).abs())
