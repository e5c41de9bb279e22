"""How much was written."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.rollouts import Rollouts


@reward(range=(0, math.inf), lane="batch", requires=lambda unit: {"tokens"} if unit == "tokens" else ())
def length(
    rollouts: Rollouts, *, unit: Literal["tokens", "characters", "words"] = "tokens"
) -> Float[np.ndarray[Any, Any], "n"]:
    """How long each completion is.

    A raw number, not a preference: shape it before adding it to anything, as in
    `text.length() >> shaping.bound("sigmoid")`.

    Args:
        rollouts: the batch.
        unit: 'tokens' counts those that the policy wrote, without padding and tool output; 'characters' and
            'words' (separated by white space) count the assistant's text.

    Returns:
        Float["n"], in that unit.

    Raises:
        MissingInput: if tokens are asked for and the batch has none.

    >>> from guerdon.rewards import text
    >>> text.length(unit="words")(prompts=["?", "?"], completions=["forty two", ""])
    [2.0, 0.0]

    Source: ours; the length that every length-aware reward begins with.
    """
    return rollouts.lengths(unit).astype(np.float64)
