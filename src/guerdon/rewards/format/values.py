"""Replies that end in a value, whichever it is: what can be asked for where no reference is known."""

from __future__ import annotations

from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, text_of


@reward(range=(0, 1))
def value(
    completion: Completion, *, accept: Literal["bare", "marked", "boxed"] = "boxed"
) -> tuple[float, dict[str, Any]]:
    r"""1 if a final answer can be found and read as a mathematical value, else 0.

    It says nothing of whether the answer is right: a surrogate for tasks without one, to be paid beside something
    else, or a condition of it.

    Args:
        completion: the reply: text or chat messages.
        accept: see `math.extract`.

    Returns:
        The score, and the extracted answer as a detail.

    >>> from guerdon.rewards import format
    >>> format.value().evaluate("So \\boxed{\\frac{1}{2}}."), format.value().evaluate("\\boxed{I do not know}")
    ((1.0, {'extracted': '\\frac{1}{2}'}), (0.0, {'extracted': 'I do not know'}))

    Source: the format term F₂ of "Surrogate Signals from Format and Length" (arXiv 2505.19439;
    insightLLM/rl-without-gt).
    """
    from guerdon.rewards.math.equivalence import meaningful
    from guerdon.rewards.math.extract import extract
    from guerdon.rewards.math.notation import unescaped
    from guerdon.rewards.math.words import words

    found = extract(unescaped(text_of(completion)), accept=accept)
    return float(found is not None and meaningful(found) and not words(found)), {"extracted": found}
