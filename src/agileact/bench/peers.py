"""What an agile activation is compared with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

PLAIN: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


class Eager(nn.Module):
    """The formula in three plain lines."""

    def __init__(self, function: nn.Module, channels: int, dim: int, ndim: int) -> None:
        super().__init__()
        self.function = function
        shape = [1] * ndim
        shape[dim] = channels
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(shape))
        self.location = nn.Parameter(0.1 * torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return scale * f(x - location)."""
        y: Tensor = self.scale * self.function(x - self.location)
        return y


class LastAxisPReLU(nn.PReLU):
    """PReLU whose channels are the last axis; PReLU itself knows axis 1 and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x where it is positive, else the channel's slope times x."""
        return torch.nn.functional.prelu(x.flatten(0, -2), self.weight).view_as(x)


class Rational(nn.Module):
    """The safe Padé activation unit of order 5/4: P(x) / (1 + |b_1 x| + ... + |b_4 x^4|).

    "Padé Activation Units: End-to-end Learning of Flexible Activation Functions in Deep Networks" (ICLR 2020), equation
    (2) and its "safe" form (3); written from the formula, with Horner's scheme for the numerator. The coefficients
    are near those of a leaky ReLU; they do not matter for the time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numerator = nn.Parameter(torch.tensor([0.02979, 0.61837, 2.32335, 3.05202, 1.48548, 0.25103]))
        self.denominator = nn.Parameter(torch.tensor([1.14201, 4.39322, 0.87154, 0.34720]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the quotient."""
        a, b = self.numerator.unbind(), self.denominator.unbind()
        top = a[5]
        for coefficient in reversed(a[:5]):
            top = top * x + coefficient
        bottom, power = torch.ones_like(x), x
        for coefficient in b:
            bottom = bottom + (coefficient * power).abs()
            power = power * x
        return top / bottom
