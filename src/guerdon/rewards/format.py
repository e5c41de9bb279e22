"""Rewards for the form of a reply, whatever it says."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, text_of

__all__ = ["tags"]


@reward(range=(0, 1))
def tags(
    completion: Completion,
    *names: str,
    outside: Literal["reject", "accept"] = "reject",
    credit: Literal["all", "each"] = "all",
) -> float:
    """1 if the completion consists of these tags in this order, each once, closed, not empty.

    Args:
        completion: the reply: text or chat messages.
        names: the tags, such as 'think', 'answer'.
        outside: whether text before, between or after the tags is 'reject'ed or 'accept'ed; white space always
            may stand there.
        credit: 'all' wants everything right; 'each' gives every tag its share if it stands once, closed and not
            empty, whatever its place and whatever is around it: a slope to climb at the start of training.

    Raises:
        ValueError: if no names are given, one twice, or one that is no name of a tag.

    >>> from guerdon.rewards import format
    >>> form = format.tags("think", "answer").evaluate
    >>> form("<think>6 · 7</think> <answer>42</answer>"), form("<think></think><answer>42</answer>"), form("42")
    (1.0, 0.0, 0.0)
    >>> format.tags("think", "answer", credit="each").evaluate("<answer>42</answer>")
    0.5

    Source: DeepSeek-R1 (arXiv 2501.12948), the format reward; `credit="each"` as in TinyZero and Open-R1's tag count.
    """
    mark = _mark(names)
    text = text_of(completion)
    marks = list(mark.finditer(text))
    if credit == "each":
        return sum(_stands_once(text, marks, name) for name in names) / len(names)
    expected = [form for name in names for form in (f"<{name}>", f"</{name}>")]
    if [found[0] for found in marks] != expected:
        return 0.0
    edges = [0, *(edge for found in marks for edge in found.span()), len(text)]
    pieces = [text[begin:end].strip() for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    filled = all(pieces[1::2])
    return float(filled and (outside == "accept" or not any(pieces[::2])))


def _stands_once(text: str, marks: list[re.Match[str]], name: str) -> bool:
    own = [(place, found) for place, found in enumerate(marks) if found[0] in (f"<{name}>", f"</{name}>")]
    if [found[0] for _, found in own] != [f"<{name}>", f"</{name}>"] or own[1][0] != own[0][0] + 1:
        return False
    return bool(text[own[0][1].end() : own[1][1].start()].strip())


@lru_cache
def _mark(names: tuple[str, ...]) -> re.Pattern[str]:
    if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[A-Za-z_][\w.-]*", name) for name in names):
        raise ValueError(f"tags wants the names of different tags, as in tags('think', 'answer'); got {names}")
    return re.compile("|".join(f"</?{re.escape(name)}>" for name in names))
