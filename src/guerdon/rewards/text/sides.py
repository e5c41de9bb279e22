"""The two sides of a comparison: what the reply says and what it should say, normalised alike."""

from __future__ import annotations

import re
import string
import unicodedata
from numbers import Real
from typing import Any, Literal

import numpy as np

from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, Passage, passage, shown, text_of

Ignore = Literal["squad"] | tuple[Literal["case", "punctuation", "articles", "whitespace"], ...]

_ARTICLE = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)


class _Unpunctuated(dict[int, str | None]):
    """A table for `str.translate` that is filled as characters are met."""

    def __missing__(self, point: int) -> str | None:
        character = chr(point)
        mark = character in string.punctuation or unicodedata.category(character).startswith("P")
        self[point] = None if mark else character
        return self[point]


_UNPUNCTUATED = _Unpunctuated()


def sides(completion: Completion, answer: Any, within: Passage, ignore: Ignore) -> tuple[str, list[str]]:
    """The passage of the completion that counts ('' if it has none), and the references that say something.

    Raises:
        Abstain: if there is no reference, one is not a text or a number, or nothing is left of any.
    """
    written = texts(answer)
    if not any(reference.strip() for reference in written):
        raise Abstain(f"reference empty: {shown(answer)}")
    telling = [left for reference in written if (left := normalize(reference, ignore)).strip()]
    if not telling:
        ignored = "what squad ignores" if ignore == "squad" else " and ".join(ignore)
        raise Abstain(f"reference has nothing but {ignored}: {shown(answer)}")
    return normalize(passage(text_of(completion), within) or "", ignore), telling


def asked(prompt: Completion) -> str:
    """The text of a prompt; of chat messages the last of the user, '' if there is none."""
    if isinstance(prompt, str):
        return prompt
    turns = [message for message in prompt if message.get("role") == "user"]
    return text_of([{**turns[-1], "role": "assistant"}]) if turns else ""


def texts(answer: Any) -> list[str]:
    """The references of a row as text.

    Raises:
        Abstain: if there is none, or one is neither a text nor a number.
    """
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    several = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    if answer is None or not several:
        raise Abstain("reference missing")
    for reference in several:
        if isinstance(reference, bool) or not isinstance(reference, (str, Real)) or reference != reference:
            raise Abstain(f"reference not a text or a number: {shown(reference)}")
    return [str(reference) for reference in several]


def normalize(text: str, ignore: Ignore) -> str:
    """A text without the differences that are ignored.

    Args:
        text: what to normalise.
        ignore: any of 'case', 'punctuation' (what ASCII and Unicode call so), 'articles' (a, an, the) and
            'whitespace' (its kind and amount; none at the ends); 'squad' is all four, in that order.

    >>> normalize(" The  cat's\\n pyjamas!", "squad")
    'cats pyjamas'

    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al., arXiv 1606.05250); its punctuation is ASCII only.
    """
    everything = ignore == "squad"
    if everything or "case" in ignore:
        text = text.casefold()
    if everything or "punctuation" in ignore:
        text = text.translate(_UNPUNCTUATED)
    if everything or "articles" in ignore:
        text = _ARTICLE.sub(" ", text)
    if everything or "whitespace" in ignore:
        text = " ".join(text.split())
    return text
