r"""The maths verifier: does the reply's final answer equal the reference?

`answer` is the reward; `extract` and `equivalent` are its two halves, to be used by themselves. `steps` scores the
equations on the way.
"""

from __future__ import annotations

import re
from functools import lru_cache
from numbers import Real
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, text_of
from guerdon.rewards.math.equivalence import equivalent, meaningful
from guerdon.rewards.math.exact import LONGEST
from guerdon.rewards.math.extract import extract
from guerdon.rewards.math.notation import tidy, unescaped
from guerdon.rewards.math.working import steps

_OPEN_BOX = re.compile(r"\\boxed\s*\{([^\n]*)$")  # a reference that lost its last brace; a reply does not get the doubt

__all__ = ["answer", "equivalent", "extract", "steps"]


@reward(range=(0, 1))
def answer(
    completion: Completion,
    answer: Any,
    *,
    accept: Literal["bare", "marked", "boxed"] = "bare",
    several: Literal["last", "near", "agree"] = "last",
    tolerance: float = 1e-6,
    percent: Literal["either", "value"] = "either",
    units: Literal["compare", "ignore"] = "compare",
    unfinished: Literal["reject", "accept"] = "reject",
    comma: Literal["separates", "either"] = "separates",
    variables: Literal["named", "renamed"] = "named",
    relations: Literal["sets", "apart"] = "sets",
) -> tuple[float, dict[str, Any]]:
    r"""1 if the final answer of the completion equals the reference, else 0.

    The answer is found by `extract`, compared by `equivalent`. A completion without an answer, or
    with one that cannot be read, earns 0; a reference that cannot be read is an abstention.

    Plain numbers take microseconds and neither SymPy nor torch. Expressions go to math-verify,
    without a time limit of its own: this reward belongs under the engine's deadline.

    Args:
        completion: the reply: text or chat messages.
        answer: the reference: a number, LaTeX or plain text, or a whole solution that ends in `#### x` or
            holds a `\boxed{x}`.
        accept: see `extract`.
        several: see `extract`.
        tolerance: see `equivalent`.
        percent: see `equivalent`.
        units: see `equivalent`.
        unfinished: see `equivalent`.
        comma: see `equivalent`.
        variables: see `equivalent`.
        relations: see `equivalent`.

    Returns:
        The score, and the extracted answer as a detail.

    Raises:
        Abstain: if the reference is not parseable, or too large to be compared with.

    >>> from guerdon.rewards import math
    >>> completions = ["It is \\boxed{42}.", "A: 41", "A: 42"]
    >>> math.answer()(prompts=["6 · 7?"] * 3, completions=completions, answer=["42", 42, "see page 3"])
    [1.0, 0.0, None]

    Source: GSM8K's and MATH's graders; math-verify (Hugging Face) for what is not a number.
    """
    expected = _reference(answer, "near" if several == "near" else "last")
    found = extract(unescaped(text_of(completion)), accept=accept, several=several)
    correct = found is not None and equivalent(
        found, expected, tolerance=tolerance, percent=percent, units=units, unfinished=unfinished, comma=comma,
        variables=variables, relations=relations,
    )  # fmt: skip
    return float(correct), {"extracted": found}


def _reference(answer: Any, several: Literal["last", "near"]) -> str:
    readable = type(answer) is not bool and isinstance(answer, (str, Real))
    found = _value_in(unescaped(str(answer)), several) if readable else None
    if found is None:
        shown = repr(answer)
        raise Abstain(f"reference not parseable: {shown if len(shown) <= 80 else shown[:77] + '…'}")
    return found


@lru_cache(maxsize=1 << 14)
def _value_in(reference: str, several: Literal["last", "near"]) -> str | None:
    value = extract(reference, accept="marked", several=several)
    if value is None and len(reference) <= LONGEST:
        cut_off = _OPEN_BOX.search(reference)
        value = tidy(cut_off[1] if cut_off else reference)
    return value if value is not None and meaningful(value) else None
