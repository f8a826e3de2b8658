"""Points of a search space: Sobol's sequence, or what a sampler of Optuna asks for next."""

import functools
from collections.abc import Iterator
from typing import Any

from agileact._common.errors import ArgumentError
from agileact._common.names import suggestion
from agileact._common.optional import require
from agileact.study.spec.protocol import OPTUNA
from agileact.study.spec.reading import scalar
from agileact.study.spec.space import Space

_DIMENSIONS = 32

Values = tuple[Any, ...]
"""A value for each dimension of a space, in its order."""


@functools.lru_cache(maxsize=1024)
def quasi_random(space: Space, count: int, number: int) -> tuple[Values, ...]:
    """Return the first points of Sobol's sequence in a space, scrambled by a number; no point twice.

    Two spaces that begin with the same free dimensions have the same values in these.

    Example:
        >>> from agileact.study.spec.space import search_space
        >>> quasi_random(search_space({"lr": "1e-4..0.1", "warmup": "0..0.2"}), 2, 0) != quasi_random(
        ...     search_space({"lr": "1e-4..0.1", "warmup": "0..0.2"}), 2, 1)
        True
    """
    numpy, qmc = require("numpy", "study"), require("scipy.stats.qmc", "study")
    free = [one for one in space if one.free]
    if not free:
        return (_values(space, iter(())),)
    # As many dimensions whatever the space, since scrambling draws for all of them in one go.
    sequence = qmc.Sobol(max(_DIMENSIONS, len(free)), scramble=True, seed=numpy.random.default_rng(number))
    # A power of two, or the sequence is not balanced; the first points do not depend on how many there are.
    points = sequence.random_base2(max(1, (count - 1).bit_length()))
    return tuple(dict.fromkeys(_values(space, iter(row)) for row in points[:count].tolist()))


@functools.lru_cache(maxsize=8192)
def asked(space: Space, sampler: str, number: int, scores: tuple[float, ...]) -> Values:
    """Return the point that a sampler of Optuna asks for, having heard the scores of those before it.

    It follows from its arguments alone: the sampler begins at ``number`` and is told every score again.

    Args:
        space: The search space.
        sampler: As ``optuna:TPESampler``, with options behind colons: ``optuna:TPESampler:n_startup_trials=4``.
        number: Where its random numbers begin.
        scores: Of the points before, in the order in which it asked for them; infinite where a trial diverged.

    Raises:
        ArgumentError: If there is no such sampler, or it does not take its options.
        MissingExtraError: If Optuna is not installed.
    """
    optuna = require("optuna", "optuna")
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        free = [one for one in space if one.free]
        # Choices as such, which a sampler may treat by themselves; numbers by their place in the range.
        kinds = {
            one.name: optuna.distributions.CategoricalDistribution(list(range(len(one.choices))))
            if one.choices
            else optuna.distributions.FloatDistribution(0.0, 1.0)
            for one in free
        }
        study = optuna.create_study(sampler=_sampler(optuna, sampler, number))
        trial = study.ask(kinds)
        for score in scores:
            study.tell(trial, score)
            trial = study.ask(kinds)
    finally:
        optuna.logging.set_verbosity(said)
    places = (
        (trial.params[one.name] + 0.5) / len(one.choices) if one.choices else trial.params[one.name] for one in free
    )
    return _values(space, places)


def _values(space: Space, places: Iterator[float]) -> Values:
    return tuple(one.at(next(places) if one.free else 0.0) for one in space)


def _sampler(optuna: Any, text: str, number: int) -> Any:
    name, *parts = text.removeprefix(OPTUNA).split(":")
    kind = getattr(optuna.samplers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, optuna.samplers.BaseSampler):
        known = [one for one in optuna.samplers.__all__ if one.endswith("Sampler") and one != "BaseSampler"]
        near = suggestion(name, known)
        raise ArgumentError(
            f"sampler {text!r}: Optuna has no sampler {name!r}{near}{'' if near else '; known: ' + ', '.join(known)}"
        )
    options = {key: scalar(value) for key, _, value in (part.partition("=") for part in parts)}
    try:
        return kind(**options, seed=number)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"sampler {text!r}: {name} does not take these options and a seed: {error}") from None
