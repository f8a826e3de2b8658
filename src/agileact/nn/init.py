"""Where training starts: scale 1 and location 0, which is exactly f (reading)."""

from __future__ import annotations


def identity_start(terms: int = 1, spread: float = 1.0) -> tuple[list[float], list[float]]:
    """Return the scale and the location of each term of a sum that is exactly f.

    The first term has scale 1 and location 0. The others have scale 0, so that they add nothing yet, and
    locations ``spread``, ``-spread``, ``2 spread``, ``-2 spread`` and so on. These are distinct, so the
    gradient of each scale, the sum of g f(x - b_j), is another one, and the first step already tells the terms
    apart; their locations move from the second step on.

    Example:
        >>> identity_start(4, spread=0.5)
        ([1.0, 0.0, 0.0, 0.0], [0.0, 0.5, -0.5, 1.0])
    """
    scale = [1.0] + [0.0] * (terms - 1)
    location = [0.0] + [spread * ((term + 1) // 2) * (1 if term % 2 else -1) for term in range(1, terms)]
    return scale, location
