"""The agile form of each activation of ``torch.nn``, and of the sine, by the names that torch.nn gives them."""

from typing import Any, ClassVar, Literal

import torch

from agileact.functional import Granularity
from agileact.nn.agile import Agile
from agileact.nn.module import Device


class _Named(Agile):
    """Agile with the base function that the class is named after, ``f``."""

    fixed_base: ClassVar[bool] = True
    _f: ClassVar[str]

    def __init_subclass__(cls, f: str | None = None) -> None:
        super().__init_subclass__()
        if f is not None:
            cls._f = f

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None,
        granularity: Granularity,
        dim: int,
        device: Device,
        dtype: torch.dtype | None,
        gain: bool,
        inplace: bool = False,
        **options: Any,
    ) -> None:
        layout: dict[str, Any] = {"granularity": granularity, "dim": dim, "device": device, "dtype": dtype}
        super().__init__(self._f, num_parameters, **layout, inplace=inplace, gain=gain, **options)


class _Plain(_Named):
    """For a base function without options."""

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain)


class _PlainInplace(_Named):
    """For a base function without options that torch.nn has with ``inplace``."""

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, inplace)


class AgileReLU(_PlainInplace, f="relu"):
    r"""The agile ReLU; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \max(0, x - b)`. Equation (8); at x = b itself the gradient is that of PyTorch's ReLU, 0.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileReLU(3)(x), F.relu(x))
        True
    """


class AgileReLU6(_PlainInplace, f="relu6"):
    r"""The agile ReLU6; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \min(\max(0, x - b), 6)`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileReLU6(3)(x), F.relu6(x))
        True
    """


class AgileLeakyReLU(_Named, f="leaky_relu"):
    r"""The agile LeakyReLU; all else is as for :class:`Agile`.

    :math:`a z` where :math:`z > 0`, else :math:`a \cdot \text{negative\_slope} \cdot z`, with :math:`z = x - b`.

    Args:
        negative_slope: The slope for negative input.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileLeakyReLU(3)(x), F.leaky_relu(x))
        True
    """

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
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, inplace, negative_slope=negative_slope)


class AgileThreshold(_Named, f="threshold"):
    r"""The agile Threshold; all else is as for :class:`Agile`.

    :math:`a z` where :math:`z > \text{threshold}`, else :math:`a \cdot \text{value}`, with :math:`z = x - b`.

    Args:
        threshold: Where the input is cut off.
        value: What stands for what is cut off.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileThreshold(3)(x), F.threshold(x, 0.0, 0.0))
        True
    """

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
        gain: bool = False,
    ) -> None:
        super().__init__(
            num_parameters, granularity, dim, device, dtype, gain, inplace, threshold=threshold, value=value
        )


class AgileIdentity(_Plain, f="identity"):
    r"""The agile Identity; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a (x - b)`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileIdentity(3)(x), x)
        True
    """


class AgileHardtanh(_Named, f="hardtanh"):
    r"""The agile Hardtanh; all else is as for :class:`Agile`.

    :math:`a \min(\max(\text{min\_val}, x - b), \text{max\_val})`.

    Args:
        min_val: The lower end.
        max_val: The upper end.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileHardtanh(3)(x), F.hardtanh(x))
        True
    """

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
        gain: bool = False,
    ) -> None:
        super().__init__(
            num_parameters, granularity, dim, device, dtype, gain, inplace, min_val=min_val, max_val=max_val
        )


class AgileHardsigmoid(_PlainInplace, f="hardsigmoid"):
    r"""The agile Hardsigmoid; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \min(\max(0, x - b + 3), 6) / 6`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileHardsigmoid(3)(x), F.hardsigmoid(x))
        True
    """


class AgileHardswish(_PlainInplace, f="hardswish"):
    r"""The agile Hardswish; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z \min(\max(0, z + 3), 6) / 6` with :math:`z = x - b`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileHardswish(3)(x), F.hardswish(x))
        True
    """


class AgileSoftshrink(_Named, f="softshrink"):
    r"""The agile Softshrink; all else is as for :class:`Agile`.

    :math:`a \operatorname{sign}(z) \max(0, |z| - \lambda)` with :math:`z = x - b`.

    Args:
        lambd: How far the input is drawn towards 0; at least 0.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSoftshrink(3)(x), F.softshrink(x))
        True
    """

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        lambd: float = 0.5,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, lambd=lambd)


class AgileHardshrink(_Named, f="hardshrink"):
    r"""The agile Hardshrink; all else is as for :class:`Agile`.

    :math:`a z` where :math:`|z| > \lambda`, else 0, with :math:`z = x - b`.

    Args:
        lambd: Up to which size the input is cut to 0; at least 0.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileHardshrink(3)(x), F.hardshrink(x))
        True
    """

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        lambd: float = 0.5,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, lambd=lambd)


class AgileELU(_Named, f="elu"):
    r"""The agile ELU; all else is as for :class:`Agile`.

    :math:`a z` where :math:`z > 0`, else :math:`a \alpha (e^z - 1)`, with :math:`z = x - b`.

    Args:
        alpha: The depth of the negative side.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileELU(3)(x), F.elu(x))
        True
    """

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
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, inplace, alpha=alpha)


class AgileCELU(_Named, f="celu"):
    r"""The agile CELU; all else is as for :class:`Agile`.

    :math:`a (\max(0, z) + \min(0, \alpha (e^{z / \alpha} - 1)))` with :math:`z = x - b`.

    Args:
        alpha: The depth of the negative side; not 0.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileCELU(3)(x), F.celu(x))
        True
    """

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
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, inplace, alpha=alpha)


class AgileSELU(_PlainInplace, f="selu"):
    r"""The agile SELU; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`1.0507 a z` where :math:`z > 0`, else :math:`1.7581 a (e^z - 1)`, with :math:`z = x - b`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSELU(3)(x), F.selu(x))
        True
    """


class AgileSoftplus(_Named, f="softplus"):
    r"""The agile Softplus; all else is as for :class:`Agile`.

    :math:`a \log(1 + e^{\beta z}) / \beta` where :math:`\beta z \le \text{threshold}`, else :math:`a z`, with
    :math:`z = x - b`.

    Args:
        beta: How sharp the bend is; greater than 0.
        threshold: From which beta x on f is x itself.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSoftplus(3)(x), F.softplus(x))
        True
    """

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
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, beta=beta, threshold=threshold)


class AgileSigmoid(_Plain, f="sigmoid"):
    r"""The agile Sigmoid; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a / (1 + e^{-(x - b)})`. Equation (7); that a scales the output is a (reading).

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSigmoid(3)(x), torch.sigmoid(x))
        True
    """


class AgileLogSigmoid(_Plain, f="log_sigmoid"):
    r"""The agile LogSigmoid; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`-a \log(1 + e^{-(x - b)})`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileLogSigmoid(3)(x), F.logsigmoid(x))
        True
    """


class AgileTanh(_Plain, f="tanh"):
    r"""The agile Tanh; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \tanh(x - b)`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileTanh(3)(x), torch.tanh(x))
        True
    """


class AgileTanhshrink(_Plain, f="tanhshrink"):
    r"""The agile Tanhshrink; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a (z - \tanh z)` with :math:`z = x - b`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileTanhshrink(3)(x), F.tanhshrink(x))
        True
    """


class AgileSoftsign(_Plain, f="softsign"):
    r"""The agile Softsign; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z / (1 + |z|)` with :math:`z = x - b`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSoftsign(3)(x), F.softsign(x))
        True
    """


class AgileSiLU(_PlainInplace, f="silu"):
    r"""The agile SiLU; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z / (1 + e^{-z})` with :math:`z = x - b`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSiLU(3)(x), F.silu(x))
        True
    """


class AgileMish(_PlainInplace, f="mish"):
    r"""The agile Mish; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a z \tanh(\log(1 + e^z))` with :math:`z = x - b`.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileMish(3)(x), F.mish(x))
        True
    """


class AgileGELU(_Named, f="gelu"):
    r"""The agile GELU; all else is as for :class:`Agile`.

    :math:`a z \Phi(z)` with :math:`z = x - b` and the normal distribution function :math:`\Phi`.

    Args:
        approximate: "none" for the exact function, "tanh" for its approximation.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileGELU(3)(x), F.gelu(x))
        True
    """

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        approximate: Literal["none", "tanh"] = "none",
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        gain: bool = False,
    ) -> None:
        super().__init__(num_parameters, granularity, dim, device, dtype, gain, approximate=approximate)


class AgileSine(_Plain, f="sine"):
    r"""The agile Sine; arguments, shapes, attributes and errors are those of :class:`Agile`.

    :math:`a \sin(x - b)`.

    Example:
        >>> import torch, agileact as ag
        >>> x = torch.linspace(-4, 4, 6).view(2, 3)
        >>> torch.equal(ag.AgileSine(3)(x), torch.sin(x))
        True
    """
