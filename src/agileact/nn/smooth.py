"""Agile activations that are one expression everywhere: sigmoids, self-gated functions, and the sine."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from agileact.functional import Granularity
from agileact.nn.agile import Agile
from agileact.nn.module import Device


class AgileSigmoid(Agile):
    r"""The agile Sigmoid; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a / (1 + e^{-(x - b)})`. Equation (7); that a scales the output is a (reading).

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSigmoid(3)(x), torch.sigmoid(x))
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
            "sigmoid",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
        )


class AgileLogSigmoid(Agile):
    r"""The agile LogSigmoid; shapes, attributes and errors are those of :class:`Agile`.

    :math:`-a \log(1 + e^{-(x - b)})`.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileLogSigmoid(3)(x), F.logsigmoid(x))
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
            "log_sigmoid",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
        )


class AgileTanh(Agile):
    r"""The agile Tanh; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \tanh(x - b)`.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileTanh(3)(x), torch.tanh(x))
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
            "tanh",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
        )


class AgileTanhshrink(Agile):
    r"""The agile Tanhshrink; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a (z - \tanh z)` with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileTanhshrink(3)(x), F.tanhshrink(x))
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
            "tanhshrink",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
        )


class AgileSoftsign(Agile):
    r"""The agile Softsign; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z / (1 + |z|)` with :math:`z = x - b`.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSoftsign(3)(x), F.softsign(x))
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
            "softsign",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
        )


class AgileSiLU(Agile):
    r"""The agile SiLU; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z / (1 + e^{-z})` with :math:`z = x - b`.

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
        >>> torch.equal(ag.AgileSiLU(3)(x), F.silu(x))
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
            "silu",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
        )


class AgileMish(Agile):
    r"""The agile Mish; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z \tanh(\log(1 + e^z))` with :math:`z = x - b`.

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
        >>> torch.equal(ag.AgileMish(3)(x), F.mish(x))
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
            "mish",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            inplace=inplace,
        )


class AgileGELU(Agile):
    r"""The agile GELU; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z \Phi(z)` with :math:`z = x - b` and the normal distribution function :math:`\Phi`.

    Args:
        num_parameters: As for :class:`Agile`.
        approximate: "none" for the exact function, "tanh" for its approximation.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileGELU(3)(x), F.gelu(x))
        True
    """

    fixed_base: ClassVar[bool] = True

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        approximate: Literal["none", "tanh"] = "none",
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "gelu",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
            approximate=approximate,
        )


class AgileSine(Agile):
    r"""The agile Sine; shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \sin(x - b)`.

    Args:
        num_parameters: As for :class:`Agile`.
        granularity: As for :class:`Agile`.
        dim: As for :class:`Agile`.
        device: As for :class:`Agile`.
        dtype: As for :class:`Agile`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSine(3)(x), torch.sin(x))
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
            "sine",
            num_parameters,
            granularity=granularity,
            dim=dim,
            device=device,
            dtype=dtype,
        )
