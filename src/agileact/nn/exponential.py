"""Agile activations that are a line on one side and exponential on the other."""

from __future__ import annotations

from typing import ClassVar

import torch

from agileact.functional import Granularity
from agileact.nn.agile import Agile
from agileact.nn.module import Device


class AgileELU(Agile):
    r"""The agile ELU; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z` where :math:`z > 0`, else :math:`a \alpha (e^z - 1)`, with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        alpha: The depth of the negative side.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.
        inplace: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileELU(3)(x), F.elu(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        alpha: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            "elu",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
            alpha=alpha,
        )


class AgileCELU(Agile):
    r"""The agile CELU; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a (\max(0, z) + \min(0, \alpha (e^{z / \alpha} - 1)))` with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        alpha: The depth of the negative side; not 0.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.
        inplace: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileCELU(3)(x), F.celu(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        alpha: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            "celu",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
            alpha=alpha,
        )


class AgileSELU(Agile):
    r"""The agile SELU; shapes, attributes and errors are those of :class:`Agile`.

    :math:`1.0507 a z` where :math:`z > 0`, else :math:`1.7581 a (e^z - 1)`, with :math:`z = x - b`.

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
        >>> torch.equal(ag.AgileSELU(3)(x), F.selu(x))
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
            "selu",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
        )


class AgileSoftplus(Agile):
    r"""The agile Softplus; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \log(1 + e^{\beta z}) / \beta` where :math:`\beta z \le \text{threshold}`, else :math:`a z`, with
    :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        beta: How sharp the bend is; greater than 0.
        threshold: From which beta x on f is x itself.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSoftplus(3)(x), F.softplus(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        beta: float = 1.0,
        threshold: float = 20.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "softplus",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            beta=beta,
            threshold=threshold,
        )
