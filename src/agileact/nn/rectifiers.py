"""Agile activations that cut the input off at one point, and the identity, which does not."""

from __future__ import annotations

from typing import ClassVar

import torch

from agileact.functional import Granularity
from agileact.nn.agile import Agile
from agileact.nn.module import Device


class AgileReLU(Agile):
    r"""The agile ReLU; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \max(0, x - b)`. Equation (8); at x = b itself the gradient is that of PyTorch's ReLU, 0.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.
        inplace: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileReLU(3)(x), F.relu(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            "relu",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
        )


class AgileReLU6(Agile):
    r"""The agile ReLU6; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \min(\max(0, x - b), 6)`.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.
        inplace: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileReLU6(3)(x), F.relu6(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            "relu6",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
        )


class AgileLeakyReLU(Agile):
    r"""The agile LeakyReLU; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z` where :math:`z > 0`, else :math:`a \cdot \text{negative\_slope} \cdot z`, with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        negative_slope: The slope for negative input.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.
        inplace: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileLeakyReLU(3)(x), F.leaky_relu(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        negative_slope: float = 0.01,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            "leaky_relu",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
            negative_slope=negative_slope,
        )


class AgileThreshold(Agile):
    r"""The agile Threshold; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z` where :math:`z > \text{threshold}`, else :math:`a \cdot \text{value}`, with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        threshold: Where the input is cut off.
        value: What stands for what is cut off.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.
        inplace: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileThreshold(3)(x), F.threshold(x, 0.0, 0.0))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        threshold: float = 0.0,
        value: float = 0.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            "threshold",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
            threshold=threshold,
            value=value,
        )


class AgileIdentity(Agile):
    r"""The agile Identity; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a (x - b)`.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileIdentity(3)(x), x)
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "identity",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
        )
