"""What a monitor warns of: each layer once for each cause, and with the remedy in the text."""

import warnings
from typing import Any


class MonitorWarning(UserWarning):
    """A layer's activation is in a state in which it hardly learns any more; the text says what helps."""


_TEXTS = {
    "not finite": "{parameter} is not finite at step {step}. Go back to an earlier checkpoint; lower the "
    "learning rate, clip gradients (torch.nn.utils.clip_grad_norm_), or, in half precision, scale the loss "
    "(torch.amp.GradScaler)",
    "input not finite": "its input is not finite at step {step}. Look at the layers before it and at the data; "
    "if the loss has diverged, go back to an earlier checkpoint and lower the learning rate",
    "exploding": "the largest |scale| is {largest:.3g} at step {step}, from {start:.3g} at the start. "
    "Give activations a lower rate (agileact.param_groups(activation_lr=...)) or a decay towards their start "
    "(activation_decay=... with agileact.decay_activations), or bound them: agileact.constrain_scale",
    "dead": "{percent:.0f} % of its units were never active in the last measurements "
    "(step {step}; {base}' = 0 wherever it was looked at), so no gradient passes them. Lower the learning "
    "rate; start at the units' operating point (agileact.calibrate(model, batches, when='always', "
    "location='mean')); or take a base whose slope is nowhere 0, such as 'leaky_relu'",
}


class Alerts:
    """Warnings that have been given, so that each is given once."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.given: set[tuple[str, str]] = set()

    def warn(self, cause: str, layer: str, **values: Any) -> None:
        """Warn of a layer for one of the causes above."""
        if self.enabled and (cause, layer) not in self.given:
            self.given.add((cause, layer))
            warnings.warn(f"layer {layer!r}: {_TEXTS[cause].format(**values)}", MonitorWarning, stacklevel=4)
