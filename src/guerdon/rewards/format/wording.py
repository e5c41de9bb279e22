"""Replies that must match a pattern, or contain certain words and not others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage, passage, text_of

Match = Literal["words", "text", "patterns"]


def _compiles(pattern: str, **options: object) -> tuple[str, ...]:
    _compile(pattern)
    return ()


@reward(range=(0, 1), requires=_compiles)
def regex(
    completion: Completion,
    *,
    pattern: str,
    match: Literal["fullmatch", "search"] = "fullmatch",
    within: Passage = "completion",
) -> float:
    r"""1 if the completion matches a regular expression, else 0.

    A pattern that backtracks without end is stopped by the engine's deadline, and that is an abstention, which a
    policy could learn to cause: prefer possessive quantifiers (`.*+`) and atomic groups (`(?>…)`).

    Args:
        completion: the reply: text or chat messages.
        pattern: a Python regular expression. Flags stand in it, as in `(?is)`: without `s` a dot matches no newline.
        match: 'fullmatch' wants the pattern to match all of the text; 'search' anywhere in it.
        within: see `text.exact`. 'completion' is all of it, thinking included.

    Raises:
        ValueError: at once, if the pattern does not compile.

    >>> from guerdon.rewards import format
    >>> dates = format.regex(pattern=r"\d{4}-\d\d-\d\d")
    >>> dates.evaluate("2024-02-29"), dates.evaluate("on 2024-02-29")
    (1.0, 0.0)

    Source: ours.
    """
    text = passage(text_of(completion), within)
    if text is None:
        return 0.0
    compiled = _compile(pattern)
    return float((compiled.search(text) if match == "search" else compiled.fullmatch(text)) is not None)


def _conditions(
    required: tuple[str, ...] | str,
    forbidden: tuple[str, ...] | str,
    counts: Mapping[str, tuple[int, int]],
    match: Match,
    case: bool,
    **options: object,
) -> tuple[str, ...]:
    if isinstance(required, str) or isinstance(forbidden, str):
        raise ValueError("keywords wants lists of words: a single one is written ('word',)")
    if not (required or forbidden or counts):
        raise ValueError("keywords wants what is required, forbidden or counted; got nothing")
    for keyword in (*required, *forbidden, *counts):
        if not keyword.strip():
            raise ValueError(f"keywords wants words that are not blank; got {keyword!r}")
        _keyword(keyword, match, case)
    for keyword, (least, most) in counts.items():
        if not 0 <= least <= most:
            raise ValueError(f"keywords wants counts from least to most; {keyword!r} has [{least}, {most}]")
    return ()


@reward(range=(0, 1), requires=_conditions)
def keywords(
    completion: Completion,
    *,
    required: tuple[str, ...] = (),
    forbidden: tuple[str, ...] = (),
    counts: Mapping[str, tuple[int, int]] = {},  # an option, never changed
    match: Match = "words",
    case: bool = False,
    credit: Literal["all", "share"] = "all",
    within: Passage = "reply",
) -> float:
    """Whether the reply contains what it must, and nothing it must not.

    Each keyword is one condition: a required one stands there at least once, a forbidden one never, a counted one
    between least and most times. An empty reply contains nothing forbidden, and earns 0 nevertheless.

    Args:
        completion: the reply: text or chat messages.
        required: what must stand there.
        forbidden: what must not.
        counts: how often a keyword stands there, [least, most].
        match: 'words' wants whole words, so that 'art' is not found in 'start'; 'text' any place, for scripts without
            spaces; 'patterns' takes keywords as regular expressions.
        case: whether 'Paris' and 'paris' differ.
        credit: 'all' wants every condition; 'share' is the share of the conditions that hold.
        within: see `text.exact`.

    Raises:
        ValueError: at once, if there is no condition, a keyword is blank, a pattern does not compile or a count
            goes from more to less.

    >>> from guerdon.rewards import format
    >>> said = format.keywords(required=("because",), forbidden=("maybe", "perhaps"), credit="share")
    >>> said.evaluate("Maybe because it rains.")  # 'because' is there, 'perhaps' is not, 'maybe' is
    0.6666666666666666

    Source: IFEval (arXiv 2311.07911): keyword existence, frequency and forbidden words.
    """
    text = passage(text_of(completion), within)
    if text is None or not text.strip():
        return 0.0
    holds = [
        *(_keyword(keyword, match, case).search(text) is not None for keyword in required),
        *(_keyword(keyword, match, case).search(text) is None for keyword in forbidden),
        *(
            least <= _many(_keyword(keyword, match, case).finditer(text)) <= most
            for keyword, (least, most) in counts.items()
        ),
    ]
    return float(all(holds)) if credit == "all" else sum(holds) / len(holds)


def _many(found: Iterable[re.Match[str]]) -> int:
    return sum(1 for _ in found)


@lru_cache(maxsize=1 << 10)
def _keyword(keyword: str, match: Match, case: bool) -> re.Pattern[str]:
    written = keyword if match == "patterns" else re.escape(keyword.strip())
    if match == "words":
        written = rf"(?<!\w){written}(?!\w)"
    return _compile(written, 0 if case else re.IGNORECASE)


@lru_cache(maxsize=1 << 10)
def _compile(pattern: str, flags: int = 0) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except (re.error, RecursionError, OverflowError) as problem:
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {problem}") from None
