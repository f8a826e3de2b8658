"""What a monitor warns of: each layer once for each cause, and with the remedy in the text."""

from __future__ import annotations

import warnings


class MonitorWarning(UserWarning):
    """A layer's activation is in a state in which it hardly learns any more; the text says what helps."""


class Alerts:
    """Warnings that have been given, so that each is given once."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.given: set[tuple[str, str]] = set()

    def _warn(self, cause: str, layer: str, text: str) -> None:
        if not self.enabled or (cause, layer) in self.given:
            return
        self.given.add((cause, layer))
        warnings.warn(text, MonitorWarning, stacklevel=5)

    def not_finite(self, layer: str, step: int, parameter: str) -> None:
        """Warn of NaN or infinity in a parameter."""
        self._warn(
            "not finite",
            layer,
            f"layer {layer!r}: {parameter} is not finite at step {step}. Go back to an earlier checkpoint; lower the "
            "learning rate, clip gradients (torch.nn.utils.clip_grad_norm_), or, in half precision, scale the loss "
            "(torch.amp.GradScaler)",
        )

    def inputs_not_finite(self, layer: str, step: int) -> None:
        """Warn of NaN or infinity in what arrives at a layer."""
        self._warn(
            "input not finite",
            layer,
            f"layer {layer!r}: its input is not finite at step {step}. Look at the layers before it and at the data; "
            "if the loss has diverged, go back to an earlier checkpoint and lower the learning rate",
        )

    def exploding(self, layer: str, step: int, largest: float, start: float) -> None:
        """Warn of a scale that has grown far beyond its start."""
        self._warn(
            "exploding",
            layer,
            f"layer {layer!r}: the largest |scale| is {largest:.3g} at step {step}, from {start:.3g} at the start. "
            "Give activations a lower rate (agileact.param_groups(activation_lr=...)) or a decay towards their start "
            "(activation_decay=... with agileact.decay_activations), or bound them: agileact.constrain_scale",
        )

    def dead(self, layer: str, step: int, share: float, base: str) -> None:
        """Warn of a layer most of whose units pass no gradient."""
        self._warn(
            "dead",
            layer,
            f"layer {layer!r}: {100 * share:.0f} % of its units were never active in the last measurements "
            f"(step {step}; {base}' = 0 wherever it was looked at), so no gradient passes them. Lower the learning "
            "rate; start at the units' operating point (agileact.calibrate(model, batches, when='always', "
            "location='mean')); or take a base whose slope is nowhere 0, such as 'leaky_relu'",
        )
