r"""Train a plain network with the steps that its agile form would take: the control that isolates step sizes.

**The two networks.** Let a layer of the agile network compute :math:`z = W x + c`, :math:`h = a f(z - b)`, and let the
next layer have the weights V. With :math:`c' = c - b` and :math:`V' = V \operatorname{diag}(a)` the plain network
:math:`f(W x + c')`, V' computes the same. So the agile network is the plain one in other coordinates, and the two
differ by the steps that an optimizer takes in these coordinates alone.

**The steps.** Let G be the gradient of the loss by V', and g that by c'; both come out of the plain network's backward
pass. By the chain rule the agile coordinates have the gradients

.. math::
    \frac{\partial L}{\partial V} = G \operatorname{diag}(a), \quad
    \frac{\partial L}{\partial a_j} = \sum_k G_{kj} V_{kj}, \quad
    \frac{\partial L}{\partial c} = g, \quad \frac{\partial L}{\partial b} = -g.

Gradient descent with the rates :math:`\eta` (weights) and :math:`\eta_a` (scale and location) then moves the plain
network, to first order in the rates, by

.. math::
    \Delta c' = -(\eta + \eta_a) \, g, \qquad
    \Delta V'_{kj} = -\eta \, a_j^2 \, G_{kj} - \frac{\eta_a}{a_j^2} \Big(\sum_i G_{ij} V'_{ij}\Big) V'_{kj}.

A bias learns faster; the weights that leave a unit get a step scaled by :math:`a_j^2`, and one along themselves, which
lengthens or shortens all of them together. At a = 1 that is what a network with fresh agile activations does.

Here V, c, a and b are kept as the optimizer's parameters, their gradients are formed as above, the optimizer takes
its step (whichever it is), and V' and c' are written back. So the plain network follows the agile one's path exactly,
up to rounding, as a test shows; not only to first order and not only for gradient descent. One
exception: where max pooling lies between f and V and a scale turns negative, a times the maximum is not the maximum
of a times f, and the two part.

With ``reset`` the coordinates are made anew after each step (V = V', c = c', a = 1, b = 0): what is left is the
step's shape at a = 1 without any memory of a.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError
from agileact.nn import Agile
from agileact.study.spec.activation_names import PlainActivation

_BETWEEN = (nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity)
"""What may stand between an activation and the layer that its scale is folded into: it works channel by channel."""

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Unit:
    """An activation between two layers: the bias ``before`` takes up the location, the weights ``after`` the scale."""

    name: str
    before: Layer
    activation: nn.Module
    channels: int
    after: Layer

    def spread(self, scale: Tensor) -> Tensor:
        """Return the scale of each input of ``after``, in a shape that broadcasts against its weights."""
        weight = self.after.weight
        return scale.repeat_interleave(weight.shape[1] // self.channels).view(1, -1, *[1] * (weight.ndim - 2))

    def gather(self, values: Tensor) -> Tensor:
        """Sum a tensor shaped as the weights of ``after`` into one number per channel; transpose of ``spread``."""
        return values.transpose(0, 1).reshape(self.channels, -1).sum(1)


def units(model: nn.Module) -> list[Unit]:
    """Return the activations of a sequential network with the layers around them, in order."""
    if not isinstance(model, nn.Sequential):
        raise ArgumentError(f"folded updates and starts need a sequential network, not a {type(model).__name__}")
    found: list[Unit] = []
    before: Layer | None = None
    pending: tuple[str, nn.Module] | None = None
    for name, module in model.named_children():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
                raise ArgumentError(f"layer {name!r} has groups or its own padding: a scale does not fold into it")
            if pending is not None:
                assert before is not None
                found.append(Unit(pending[0], before, pending[1], before.weight.shape[0], module))
            before, pending = module, None
        elif isinstance(module, (PlainActivation, Agile)):
            if before is None or before.bias is None or pending is not None:
                raise ArgumentError(f"activation {name!r} does not follow a layer with a bias: b does not fold into it")
            pending = (name, module)
        elif not isinstance(module, _BETWEEN):
            raise ArgumentError(f"{name!r}, a {type(module).__name__}, stands in the way of folding")
    if pending is not None:
        raise ArgumentError(f"no layer follows the activation {pending[0]!r}: its scale folds into nothing")
    return found


def fold_into(agile: nn.Module, plain: nn.Module) -> None:
    """Set the weights of a plain network so that it computes what the agile one does.

    Args:
        agile: A sequential network with agile activations.
        plain: The same network with the base functions in their place.

    Raises:
        ArgumentError: If the networks cannot be folded, or do not match; if a scale is negative before max pooling.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.models import build
        >>> from agileact.study.spec.tasks import task
        >>> model, shape = task("digits-mlp").spec.model, {"input_shape": (64,), "classes": 10, "seed": 0}
        >>> agile, plain = (build(model, arm(name).spec, **shape) for name in ("agile-tanh", "tanh"))
        >>> _ = torch.nn.init.constant_(agile.fc1_activation.scale, 2.0)
        >>> fold_into(agile, plain)
        >>> x = torch.ones(1, 64)
        >>> torch.allclose(plain(x), agile(x), atol=1e-6)
        True
    """
    plain.load_state_dict(agile.state_dict(), strict=False)
    for source, target in zip(units(agile), units(plain), strict=True):
        if not isinstance(source.activation, Agile) or not isinstance(target.activation, PlainActivation):
            raise ArgumentError(f"activation {source.name!r} must be agile in the one network and plain in the other")
        scale, location = source.activation.scale.detach(), source.activation.location.detach()
        if bool((scale < 0).any()) and any(isinstance(module, nn.MaxPool2d) for module in plain.modules()):
            raise ArgumentError(f"a scale of {source.name!r} is negative: it does not fold through max pooling")
        with torch.no_grad():
            assert target.before.bias is not None
            target.before.bias.sub_(location)
            target.after.weight.mul_(target.spread(scale))


class FoldedOptimizer:
    """An optimizer for a plain network that steps in the coordinates of its agile form; see the module's text.

    Args:
        model: A plain sequential network.
        build: Makes the optimizer from parameter groups.
        lr: Learning rate of weights and biases.
        scale_lr: Learning rate of the scales.
        location_lr: Learning rate of the locations.
        weight_decay: Weight decay of weights and biases.
        reset: Whether to start from a = 1 and b = 0 again after each step.

    Raises:
        ArgumentError: If an activation of the network is not plain, or the network cannot be folded.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.models import build
        >>> from agileact.study.spec.tasks import task
        >>> model, shape = task("digits-mlp").spec.model, {"input_shape": (64,), "classes": 10, "seed": 0}
        >>> agile, plain = (build(model, arm(name).spec, **shape) for name in ("agile-tanh", "tanh"))
        >>> optimizers = (
        ...     torch.optim.SGD(agile.parameters(), lr=0.1),
        ...     FoldedOptimizer(plain, torch.optim.SGD, lr=0.1, scale_lr=0.1, location_lr=0.1),
        ... )
        >>> x = torch.ones(1, 64)
        >>> for network, optimizer in zip((agile, plain), optimizers):
        ...     network(x).square().sum().backward()
        ...     optimizer.step()
        >>> torch.allclose(plain(x), agile(x), atol=1e-6)  # the plain network took the step of its agile form
        True
    """

    def __init__(
        self,
        model: nn.Module,
        build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        *,
        lr: float,
        scale_lr: float,
        location_lr: float,
        weight_decay: float = 0.0,
        reset: bool = False,
    ) -> None:
        self._units = units(model)
        if not all(isinstance(unit.activation, PlainActivation) for unit in self._units):
            raise ArgumentError("folded updates are for a network whose activations are all plain")
        self._reset = reset
        # The plain network's parameters, each with its agile coordinate of the same shape.
        self._pairs = [(p, p.detach().clone().requires_grad_()) for p in model.parameters()]
        self._of = {id(actual): virtual for actual, virtual in self._pairs}
        self._scales = [self._new(unit, 1.0) for unit in self._units]
        self._locations = [self._new(unit, 0.0) for unit in self._units]
        self.optimizer = build(
            [
                {"params": [virtual for _, virtual in self._pairs], "lr": lr, "weight_decay": weight_decay},
                {"params": self._scales, "lr": scale_lr, "weight_decay": 0.0},
                {"params": self._locations, "lr": location_lr, "weight_decay": 0.0},
            ]
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer that takes the steps."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the plain network."""
        for actual, _ in self._pairs:
            actual.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step from the gradients of the plain network."""
        for actual, virtual in self._pairs:
            virtual.grad = None if actual.grad is None else actual.grad.clone()
        for unit, scale, location in zip(self._units, self._scales, self._locations, strict=True):
            after, before = self._of[id(unit.after.weight)], self._of[id(unit.before.bias)]
            assert after.grad is not None
            assert before.grad is not None
            # The scale's gradient needs that of V' as it came: V's own is made of it right after.
            scale.grad = unit.gather(after.grad * after)
            after.grad.mul_(unit.spread(scale))
            location.grad = -before.grad
        self.optimizer.step()
        for actual, virtual in self._pairs:
            actual.copy_(virtual)
        for unit, scale, location in zip(self._units, self._scales, self._locations, strict=True):
            unit.after.weight.mul_(unit.spread(scale))
            assert unit.before.bias is not None
            unit.before.bias.sub_(location)
        if self._reset:
            for actual, virtual in self._pairs:
                virtual.copy_(actual)
            for scale, location in zip(self._scales, self._locations, strict=True):
                scale.fill_(1.0)
                location.zero_()

    @staticmethod
    def _new(unit: Unit, value: float) -> Tensor:
        weight = unit.before.weight
        return torch.full((unit.channels,), value, dtype=weight.dtype, device=weight.device, requires_grad=True)
