"""Agile activations made of straight pieces that imitate smooth ones, and the shrinking functions."""

from __future__ import annotations

from typing import ClassVar

import torch

from agileact.functional import Granularity
from agileact.nn.agile import Agile
from agileact.nn.module import Device


class AgileHardtanh(Agile):
    r"""The agile Hardtanh; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \min(\max(\text{min\_val}, x - b), \text{max\_val})`.

    Args:
        num_parameters: As for :class:`Agile`.
        min_val: The lower end.
        max_val: The upper end.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.
        inplace: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileHardtanh(3)(x), F.hardtanh(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        min_val: float = -1.0,
        max_val: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            "hardtanh",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
            min_val=min_val,
            max_val=max_val,
        )


class AgileHardsigmoid(Agile):
    r"""The agile Hardsigmoid; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \min(\max(0, x - b + 3), 6) / 6`.

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
        >>> torch.equal(ag.AgileHardsigmoid(3)(x), F.hardsigmoid(x))
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
            "hardsigmoid",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
        )


class AgileHardswish(Agile):
    r"""The agile Hardswish; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z \min(\max(0, z + 3), 6) / 6` with :math:`z = x - b`.

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
        >>> torch.equal(ag.AgileHardswish(3)(x), F.hardswish(x))
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
            "hardswish",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
        )


class AgileSoftshrink(Agile):
    r"""The agile Softshrink; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \operatorname{sign}(z) \max(0, |z| - \lambda)` with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        lambd: How far the input is drawn towards 0; at least 0.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSoftshrink(3)(x), F.softshrink(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        lambd: float = 0.5,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "softshrink",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            lambd=lambd,
        )


class AgileHardshrink(Agile):
    r"""The agile Hardshrink; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z` where :math:`|z| > \lambda`, else 0, with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        lambd: Up to which size the input is cut to 0; at least 0.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileHardshrink(3)(x), F.hardshrink(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        lambd: float = 0.5,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "hardshrink",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            lambd=lambd,
        )
