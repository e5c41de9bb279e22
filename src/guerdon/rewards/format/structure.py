"""The tags of a reply, and the templates of thinking and answering made of them."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown, text_of
from guerdon.rewards.text.length import size, thought

_LEADING = re.compile(r"\s*<([^<>/]{1,80})>")


@reward(range=(0, 1))
def tags(
    completion: Completion,
    *names: str,
    outside: Literal["reject", "accept", "before"] = "reject",
    credit: Literal["all", "each"] = "all",
) -> float:
    """1 if the completion consists of these tags in this order, each once, closed, not empty.

    Args:
        completion: the reply: text or chat messages.
        names: the tags, such as 'think', 'answer'.
        outside: whether text before, between or after the tags is 'reject'ed or 'accept'ed, or may stand 'before'
            the first one only; white space always may stand there.
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
    pieces = _pieces(text, marks, names)
    if pieces is None or not all(pieces[1::2]):
        return 0.0
    return float(outside == "accept" or not any(pieces[2 if outside == "before" else 0 :: 2]))


@reward(range=(0, 1))
def template(
    completion: Completion,
    *,
    answer: Literal["text", "tag"] = "text",
    opening: Literal["written", "prefilled", "either"] = "written",
) -> float:
    """1 if the completion is thinking between `<think>` tags and then an answer, neither of them empty.

    Args:
        completion: the reply: text or chat messages.
        answer: what follows the thinking: 'text', without further tags of thinking; or a 'tag', so that the whole
            is `<think>…</think><answer>…</answer>` with white space only around it.
        opening: who opens the thinking. Chat templates of reasoning models often end the prompt with `<think>`:
            then the completion does not have it, and 'written' would refuse every good reply, while with 'prefilled'
            a second one is refused. 'either' takes both.

    >>> from guerdon.rewards import format
    >>> format.template().evaluate("<think>6 · 7</think> It is 42.")
    1.0
    >>> format.template(opening="prefilled", answer="tag").evaluate("6 · 7</think><answer>42</answer>")
    1.0

    Source: DeepSeek-R1 (arXiv 2501.12948), its template and its format reward; the prefilled `<think>` of its
    distilled models' and Qwen3's chat templates.
    """
    text = text_of(completion).strip()
    written = text.startswith("<think>")
    if not written and opening != "written":
        text = "<think>" + text
    elif opening == "prefilled":
        return 0.0
    names = ("think", "answer") if answer == "tag" else ("think",)
    pieces = _pieces(text, list(_mark(names).finditer(text)), names)
    if pieces is None or not all(pieces[1::2]):
        return 0.0
    *outside, last = pieces[::2]
    return float(not any(outside) and bool(last) == (answer == "text"))


@reward(range=(0, 1))
def label(completion: Completion, label: Any) -> tuple[float, dict[str, Any]]:
    """1 if the completion begins with the tag that its row names, as `<CT_SCAN>`, else 0; case does not count.

    Args:
        completion: the reply: text or chat messages.
        label: the tag's name, with or without its brackets.

    Returns:
        The score, and as a detail the tag that was found: None if the completion begins with something else.

    Raises:
        Abstain: if there is no label.

    >>> from guerdon.rewards import format
    >>> format.label().evaluate("<ct_scan><think>…", "CT_SCAN")
    (1.0, {'found': 'ct_scan'})

    Source: the modality term of MediX-R1 (mbzuai-oryx/MediX-R1).
    """
    wanted = label.strip().removeprefix("<").removesuffix(">").strip() if isinstance(label, str) else ""
    if not wanted:
        raise Abstain(f"label missing: {shown(label)}")
    found = _LEADING.match(text_of(completion))
    said = found[1].strip() if found else None
    return float(said is not None and said.casefold() == wanted.casefold()), {"found": said}


def _window(low: int, high: float, **options: object) -> tuple[str, ...]:
    if not 0 <= low <= high:
        raise ValueError(f"thinking wants 0 ≤ low ≤ high, got {low} and {high}")
    return ()


@reward(range=(0, 1), requires=_window)
def thinking(
    completion: Completion,
    *,
    low: int = 1,
    high: float = math.inf,
    unit: Literal["characters", "words"] = "characters",
) -> tuple[float, dict[str, Any]]:
    """1 if the thinking is closed and its length lies in [low, high], else 0.

    Args:
        completion: the reply: text or chat messages.
        low: the least length; 0 also takes empty thinking, but never a missing one.
        high: the largest; 9 for tasks where thinking harms, such as naming what is seen.
        unit: what is counted.

    Returns:
        The score, and as a detail the length: None without thinking.

    Raises:
        ValueError: at once, unless 0 ≤ low ≤ high.

    >>> from guerdon.rewards import format
    >>> brief = format.thinking(low=0, high=9).evaluate
    >>> brief("<think>A cat.</think>Cat"), brief("Cat")
    ((1.0, {'length': 6}), (0.0, {'length': None}))

    Source: the think_punishment of ReFine-RFT (arXiv 2601.06993; jiezhu23/ReFine-RFT) and its window.
    """
    found = thought(text_of(completion))
    length = None if found is None else size(found, unit)
    return float(length is not None and low <= length <= high), {"length": length}


def _pieces(text: str, marks: list[re.Match[str]], names: tuple[str, ...]) -> list[str] | None:
    """What stands before, in, between and after these tags, if they stand there in this order, each once."""
    if [found[0] for found in marks] != [form for name in names for form in (f"<{name}>", f"</{name}>")]:
        return None
    edges = [0, *(edge for found in marks for edge in found.span()), len(text)]
    return [text[begin:end].strip() for begin, end in zip(edges[::2], edges[1::2], strict=True)]


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
