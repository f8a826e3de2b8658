"""Arms by name: every activation, and the controls that tell an effect of the activation from an effect of step sizes.

An arm's name is an activation, for all roles of the model, with modifiers behind ``+``: ``agile-relu``,
``combined-relu:terms=3``, ``agile-relu+calibrated``, ``relu+bias-lr=2``.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from agileact import baselines
from agileact._common.errors import ArgumentError
from agileact._common.names import hint
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.space import Space
from agileact.study.spec.trial import ArmSpec

_AGILE_ONLY = ("agile", "combined")


@dataclass(frozen=True)
class _Modifier:
    """What a word behind ``+`` changes, and which kinds of activations it is for."""

    changes: dict[str, Any]
    kinds: tuple[str, ...]
    meaning: str


_MODIFIERS: dict[str, _Modifier] = {
    "batchnorm": _Modifier({"normalisation": "batch"}, (), "with batch normalisation before each activation"),
    "calibrated": _Modifier({"start": "calibrated"}, _AGILE_ONLY, "a and b start from data"),
    "centred-start": _Modifier(
        {"weights": "centred-start"}, _AGILE_ONLY, "rows start at mean 0 and length 1, and keep length 1 alone"
    ),
    "cosine": _Modifier({"schedule": "cosine"}, (), "learning rates fall to 0 as a cosine"),
    "folded-start": _Modifier({"start": "folded"}, ("plain",), "plain, started from the folded calibrated network"),
    "folded-updates": _Modifier({"updates": "folded"}, ("plain",), "plain, with the steps of its agile form"),
    "folded-updates-reset": _Modifier(
        {"updates": "folded-reset"}, ("plain",), "plain, with the steps of a fresh agile form each time"
    ),
    "frozen": _Modifier({"freeze": ("location", "scale")}, _AGILE_ONLY, "a and b stay at their start"),
    "gain-frozen": _Modifier({"freeze": ("gain",)}, ("agile",), "a and b learn, the gain stays at 1"),
    "hidden-standardized": _Modifier(
        {"weights": "hidden-standardized"},
        _AGILE_ONLY,
        "the recipe: rows have length 1, behind an activation mean 0 too",
    ),
    "layernorm": _Modifier({"normalisation": "layer"}, (), "with layer normalisation before each activation"),
    "length-one": _Modifier({"weights": "length-one"}, _AGILE_ONLY, "standardised to length 1, not to mean 0"),
    "linear": _Modifier({"schedule": "linear"}, (), "learning rates fall to 0 on a line"),
    "location-only": _Modifier({"freeze": ("scale",)}, _AGILE_ONLY, "only b learns"),
    "nf": _Modifier(
        {"weights": "weight-standardized", "freeze": ("gain", "scale")},
        _AGILE_ONLY,
        "normaliser-free: weights standardised in the forward pass, a fixed at 1 / std f, only b learns",
    ),
    "one-cycle": _Modifier({"schedule": "one-cycle"}, (), "learning rates rise, and fall to nearly 0"),
    "positive": _Modifier({"scale_sign": "positive"}, _AGILE_ONLY, "a stays positive"),
    "scale-only": _Modifier({"freeze": ("location",)}, _AGILE_ONLY, "only a learns"),
    "size-one": _Modifier({"start": "one", "freeze": ("scale",)}, _AGILE_ONLY, "a stays 1"),
    "skip-init": _Modifier(
        {"start": "skip-init"}, ("agile",), "with standardised weights: a starts at 0 where a residual branch ends"
    ),
    "standardized": _Modifier(
        {"weights": "standardized"}, _AGILE_ONLY, "rows of all layers before activations have mean 0 and length 1"
    ),
    "start-one": _Modifier({"start": "one"}, _AGILE_ONLY, "a starts at 1 where weights are standardised"),
    "weight-norm": _Modifier({"weights": "weight-norm"}, (), "with torch's weight normalisation"),
    "weight-standardized": _Modifier(
        {"weights": "weight-standardized"}, _AGILE_ONLY, "weights standardised in the forward pass, free beneath"
    ),
    "widened": _Modifier({"width": "matched"}, ("plain",), "plain, widened to the agile form's number of parameters"),
}
_NUMBERS: dict[str, tuple[str, str]] = {
    "activation-decay": ("activation_decay", "a and b decay towards their start"),
    "bias-lr": ("bias_lr_multiplier", "biases learn so many times faster"),
    "clip-norm": ("clip_norm", "the gradient's norm is at most this"),
    "direction-turn": ("direction_turn", "a step turns a row of standardised weights by at most so many rates"),
    "label-smoothing": ("label_smoothing", "this share of each target is spread over all classes"),
    "warmup": ("warmup", "learning rates rise over this share of the iterations"),
    "weight-decay": ("weight_decay", "weights decay"),
}


@dataclass(frozen=True)
class Arm:
    """An arm with the name that tables call it by.

    Attributes:
        name: The name.
        spec: What it is.
        space: What tuning looks through for this arm beside, or instead of, what the protocol's space names.
    """

    name: str
    spec: ArmSpec
    space: Space = ()


def modifiers() -> dict[str, str]:
    """Return the modifiers behind ``+``, each with its meaning.

    Example:
        >>> modifiers()["scale-only"]
        'only a learns'
    """
    words = {word: modifier.meaning for word, modifier in _MODIFIERS.items()}
    return dict(sorted({**words, **{f"{word}=NUMBER": meaning for word, (_, meaning) in _NUMBERS.items()}}.items()))


def arm(name: str, **changes: Any) -> Arm:
    """Return the arm of this name; "original" leaves the activations of a network of the user's as they are.

    Args:
        name: An activation for all roles, with modifiers behind ``+``.
        **changes: Further fields of :class:`~agileact.study.spec.trial.ArmSpec`, such as ``optimizer="sgd"``.

    Raises:
        ArgumentError: If a part of the name is unknown or does not fit the activation.

    Example:
        >>> arm("agile-relu+frozen").spec.freeze
        ('location', 'scale')
        >>> arm("relu+bias-lr=2+weight-decay=0.01").spec.bias_lr_multiplier
        2.0
    """
    text, *words = name.split("+")
    if name == "original":
        return Arm(name, dataclasses.replace(ArmSpec(()), **changes))
    found = parse_activation(text)
    fields: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in _NUMBERS:
            try:
                fields[_NUMBERS[key][0]] = float(value)
            except ValueError:
                raise ArgumentError(f"arm {name!r}: {value!r} behind {key!r} is not a number") from None
            continue
        if word not in _MODIFIERS:
            known = modifiers()
            raise ArgumentError(f"arm {name!r}: unknown modifier {word!r}{hint(word, known)}")
        modifier = _MODIFIERS[word]
        if modifier.kinds and found.kind not in modifier.kinds:
            raise ArgumentError(
                f"arm {name!r}: {word!r} is for {' or '.join(modifier.kinds)} activations ({modifier.meaning})"
            )
        clash = [field for field in modifier.changes if field in fields]
        if clash:
            raise ArgumentError(f"arm {name!r}: two modifiers set {clash[0]}")
        fields.update(modifier.changes)
    return Arm(name, dataclasses.replace(ArmSpec((("*", text),)), **fields, **changes))


def has_trainable_activations(arm: ArmSpec) -> bool:
    """Return whether an activation learning rate means anything to the arm."""
    if arm.updates != "own":
        return True
    found = [parse_activation(str(name)) for _, name in arm.activations]
    return any(
        one.trainable and (one.kind not in _AGILE_ONLY or not {"scale", "location"} <= set(arm.freeze)) for one in found
    )


def has_agile_activations(arm: ArmSpec) -> bool:
    """Return whether the arm has scales and locations that learn, or folded updates that act as if it had."""
    kinds = {parse_activation(str(name)).kind for _, name in arm.activations}
    return arm.updates != "own" or (bool(kinds & {*_AGILE_ONLY}) and len(arm.freeze) < 2)


def controls(base: str) -> list[Arm]:
    """Return the controls of an agile activation: each takes away, or gives to the plain network, one thing.

    Example:
        >>> [control.name for control in controls("relu")][:3]
        ['agile-relu+frozen', 'agile-relu+scale-only', 'agile-relu+location-only']
    """
    agile = [f"agile-{base}+{word}" for word in ("frozen", "scale-only", "location-only")]
    words = ("folded-updates", "folded-updates-reset", "widened", "bias-lr=2", "folded-start", "batchnorm")
    return [arm(name) for name in (*agile, *(f"{base}+{word}" for word in words))]


def every_arm(base: str) -> list[Arm]:
    """Return all that is compared in a full study of one base: plain, agile, combined, controls, and the rivals.

    Example:
        >>> names = [arm.name for arm in every_arm("relu")]
        >>> names[:5], len(names)
        (['relu', 'agile-relu', 'agile-relu+calibrated', 'combined-relu:terms=2', 'combined-relu:terms=3'], 25)
    """
    names = [base, f"agile-{base}", f"agile-{base}+calibrated", *(f"combined-{base}:terms={k}" for k in (2, 3))]
    rivals = [*baselines.names(), *(name for name in ("leaky_relu", "gelu", "silu", "mish") if name != base)]
    return [*map(arm, names), *controls(base), *map(arm, rivals)]
