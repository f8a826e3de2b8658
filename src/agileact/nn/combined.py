"""A sum of agile activations, as a module."""

from typing import Any

import torch
from torch import Tensor

from agileact import bases, ops
from agileact.functional import Granularity, evaluate_combined
from agileact.nn.module import AgileModule, Device


class CombinedAgile(AgileModule):
    r"""A sum of agile activations of one input: :math:`\sum_j a_j f(x - b_j)`.

    The "combined parametric activation function" of the same group as the agile one (2022, doi
    10.3745/KTSDE.2022.11.1.1 and 10.3745/KTSDE.2022.11.9.371). With one term it is :class:`Agile`.

    At the start the sum is exactly f: the first term has scale 1 and location 0, the others scale 0. Their
    locations are ``spread``, ``-spread``, ``2 spread``, ``-2 spread`` and so on; because they differ, so do the
    gradients of the scales, and training tells the terms apart from its first step.

    Args:
        base: The name of f, one of ``agileact.bases.names()``.
        num_parameters: As for :class:`Agile`; the number of pairs in each term.
        terms: The number of terms, at least 1.
        spread: The distance between the locations at the start; not 0.
        **options: The options of f. The other arguments are those of :class:`Agile`.

    Attributes:
        scale: All a, a 1-D parameter of ``terms * num_parameters`` elements, term after term.
        location: All b.

    Raises:
        ArgumentError: As for :class:`Agile`.
        ArgumentTypeError: As for :class:`Agile`.

    Example:
        >>> import torch, agileact as ag
        >>> activation = ag.CombinedAgile("relu", 64, terms=3)
        >>> activation
        CombinedAgile('relu', 64, terms=3)
        >>> x = torch.linspace(-3, 3, 128).view(2, 64)
        >>> torch.equal(activation(x), torch.relu(x))
        True
        >>> activation.scale_by_term[:, 0].tolist(), activation.location_by_term[:, 0].tolist()
        ([1.0, 0.0, 0.0], [0.0, 1.0, -1.0])
    """

    _call: ops.Call | None = None

    def __init__(
        self,
        base: str,
        num_parameters: int | tuple[int, ...] | None = None,
        terms: int = 2,
        *,
        spread: float = 1.0,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base, num_parameters, terms, spread, granularity, dim, device, dtype, options)
        self._call = ops.call_of(base, self.options) if granularity == "channel" else None

    @property
    def scale_by_term(self) -> Tensor:
        """``scale`` as a view of shape (terms, num_parameters)."""
        return self.scale.view(self.terms, -1)

    @property
    def location_by_term(self) -> Tensor:
        """``location`` as a view of shape (terms, num_parameters)."""
        return self.location.view(self.terms, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of a_j f(x - b_j)."""
        if self._call is not None:
            y = ops.agile_channels(x, self._parameters, self._call, self.dim, self.terms)
            if y is not None:
                return y
        traced: Tensor | None = self._traced(x)
        if traced is not None:
            return traced
        self._check_sample(x)
        place = bases.get(self.base), self.options, self.dim, self.granularity
        return evaluate_combined(x, self.scale_by_term, self.location_by_term, *place)

    def _own_arguments(self) -> tuple[list[str], list[str], list[str]]:
        first, own, last = super()._own_arguments()
        return first, own if self.terms > 1 else ["terms=1", *own], last
