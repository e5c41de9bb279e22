"""Captions by their assertions: how much of what is said is true, and how much of what there is is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, Passage, passage, shown, text_of
from guerdon.rewards.text.verdict import ask

__all__ = ["precision", "recall"]


@reward(range=(0, 1), retries=2)
async def precision(
    prompt: Completion, completion: Completion, *, judge: Any, within: Passage = "reply"
) -> tuple[float, dict[str, Any]]:
    """The share of a caption's assertions that hold: of each, all that the judge says of it.

    An assertion that nothing in the image could show (a mood, a word about the picture itself) is true and not
    pointable, and does not count as right: vague praise is no way to precision. A caption that asserts nothing earns 0.

    Args:
        prompt: what was asked, with the image; handed on to the judge.
        completion: the caption: text or chat messages.
        judge: a function, `async` or not, from the caption and the prompt to its assertions: for each a truth value,
            or a mapping of them such as {'true': …, 'visible': …}, which all have to hold.
        within: see `text.exact`.

    Returns:
        The score, and as details how many assertions there are and hold.

    Raises:
        Abstain: if the judge says anything else.

    >>> from guerdon.rewards import caption
    >>> judge = lambda said, asked: [{"true": True, "visible": "mood" not in part} for part in said.split(",")]
    >>> caption.precision(judge=judge)(["?"], ["a red boat, a calm mood"])
    [0.5]

    Source: the precision of BalCapRL (arXiv 2605.07394).
    """
    said = (passage(text_of(completion), within) or "").strip()
    if not said:
        return 0.0, {"assertions": 0, "held": 0}
    held = _held(await ask(judge, said, prompt))
    return (sum(held) / len(held) if held else 0.0), {"assertions": len(held), "held": sum(held)}


@reward(range=(0, 1), retries=2)
async def recall(
    completion: Completion, units: Any, *, judge: Any, within: Passage = "reply"
) -> tuple[float, dict[str, Any]]:
    """The share of the reference's units of content that the caption covers.

    Args:
        completion: the caption: text or chat messages.
        units: what there is to be said: a list of texts.
        judge: a function, `async` or not, from the caption and the units to a truth value for each unit.
        within: see `text.exact`.

    Returns:
        The score, and as a detail the units that are missing.

    Raises:
        Abstain: if there are no units, or the judge does not answer for each.

    >>> from guerdon.rewards import caption
    >>> said = lambda text, units: [unit in text for unit in units]
    >>> caption.recall(judge=said)(["?"], ["a red boat"], units=[["boat", "pier"]])
    [0.5]

    Source: the recall of BalCapRL (arXiv 2605.07394).
    """
    listed = units.tolist() if isinstance(units, np.ndarray) else units
    if not isinstance(listed, (list, tuple)) or not listed:
        raise Abstain(f"units missing: {shown(units)}")
    said = (passage(text_of(completion), within) or "").strip()
    if not said:
        return 0.0, {"missing": list(listed)}
    covered = _held(await ask(judge, said, list(listed)))
    if len(covered) != len(listed):
        raise Abstain(f"judge answered for {len(covered)} of {len(listed)} units")
    return sum(covered) / len(listed), {"missing": [u for u, held in zip(listed, covered, strict=True) if not held]}


def _held(verdicts: Any) -> list[bool]:
    if isinstance(verdicts, (str, Mapping)) or not isinstance(verdicts, Sequence):
        raise Abstain(f"judge gave no list of verdicts: {shown(verdicts)}")
    held = []
    for verdict in verdicts:
        claims = list(verdict.values()) if isinstance(verdict, Mapping) else [verdict]
        if not claims or not all(isinstance(claim, (bool, np.bool_)) for claim in claims):
            raise Abstain(f"judge's verdict is no truth value: {shown(verdict)}")
        held.append(all(claims))
    return held
