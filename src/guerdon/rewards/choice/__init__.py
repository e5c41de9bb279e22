"""The verifier of multiple choice: does the reply pick the right options?"""

from __future__ import annotations

import re
from collections.abc import Set
from numbers import Real
from typing import Any, Literal

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown, text_of
from guerdon.rewards.choice.picks import Picks, picks, plain

__all__ = ["among", "answer"]


@reward(range=(0, 1))
def answer(
    completion: Completion,
    answer: Any,
    *,
    count: int = 10,
    first: Literal[0, 1] = 0,
    credit: Literal["all", "partial"] = "all",
) -> tuple[float, dict[str, Any]]:
    r"""1 if the letters that the reply picks are the right ones, else 0.

        'partial'   |picked| / |right| if all that is picked is right, else 0

    A reply is read as `picks` says: a box, a tag, a letter alone on the last line, 'the answer is (B)', 'B is
    correct'. A hedge ('A or B', 'either', 'all of the above') picks nothing, and the article in 'A good question' is no
    letter. A list of letters picks all of them, and so earns nothing where one of them is wrong.

    Args:
        completion: the reply: text or chat messages.
        answer: what is right: a letter ('B', '(b)'), an index (a number, or digits), several letters ('A, C',
            'AC'), or a list of any of those.
        count: how many options there can be; a later letter picks nothing, as reference it is an abstention.
        first: the index of the first option. Datasets count from 0 or from 1, and with the wrong one every reward
            is wrong.
        credit: 'all' wants exactly what is right; 'partial' pays for a part of it, as long as nothing is wrong.

    Returns:
        The score, and the letters picked as a detail.

    Raises:
        Abstain: if the reference is missing or names no option.

    >>> from guerdon.rewards import choice
    >>> completions = ["So the answer is (B).", "A or B", "B) 12", "B"]
    >>> choice.answer()(prompts=["?"] * 4, completions=completions, answer=["B", "B", 1, "see page 3"])
    [1.0, 0.0, 1.0, None]
    >>> choice.answer(credit="partial").evaluate("A", ["A", "C"])
    (0.5, {'picked': 'A'})

    Source: the graders of MMLU (arXiv 2009.03300) and its like; partial credit as in JEE Advanced's marking.
    """
    right = _right(answer, count, (), first)
    return _score(picks(text_of(completion), count), right, credit)


@reward(range=(0, 1))
def among(
    completion: Completion,
    answer: Any,
    choices: Any,
    *,
    first: Literal[0, 1] = 0,
    credit: Literal["all", "partial"] = "all",
) -> tuple[float, dict[str, Any]]:
    """As `answer`, where the options' texts are known: the reply and the reference may also give the text.

    A reply that gives an option's text counts as picking it: alone, in a tag or box, on the last line or in 'the
    answer is Paris'. One that gives the letter of one option and the text of another picks nothing.

    Args:
        completion: the reply: text or chat messages.
        answer: see `answer`, or the text of an option. A text that is an option's text is that option, whatever it
            may be as a letter or an index.
        choices: the texts of the options, in order.
        first: see `answer`.
        credit: see `answer`.

    Returns:
        The score, and the letters picked as a detail.

    Raises:
        Abstain: if the options are missing, two of them are the same, or the reference is none of them.

    >>> from guerdon.rewards import choice
    >>> cities = ["London", "Paris", "Rome"]
    >>> choice.among().evaluate("The answer is Paris.", "B", cities)
    (1.0, {'picked': 'B'})
    >>> choice.among().evaluate("The answer is C. Paris", "B", cities)
    (0.0, {'picked': ''})

    Source: as `answer`; ARC (arXiv 1803.05457) and HellaSwag (arXiv 1905.07830) for references by label and index.
    """
    texts = _texts(choices)
    right = _right(answer, len(texts), texts, first)
    return _score(picks(text_of(completion), len(texts), texts), right, credit)


def _score(picked: Picks | None, right: Picks, credit: str) -> tuple[float, dict[str, Any]]:
    details = {"picked": "".join(chr(ord("A") + place) for place in sorted(picked or ()))}
    if not picked or not picked <= right:
        return 0.0, details
    return (float(picked == right) if credit == "all" else len(picked) / len(right)), details


def _texts(choices: Any) -> tuple[str, ...]:
    if isinstance(choices, np.ndarray):
        choices = choices.tolist()
    if not isinstance(choices, (list, tuple)) or not choices:
        raise Abstain(f"choices missing: {shown(choices)}")
    if len(choices) > 26:
        raise Abstain(f"choices have {len(choices)} options, and letters end at 26")
    texts = tuple(plain(str(choice)) for choice in choices)
    if len(set(texts)) < len(texts) or not all(texts):
        raise Abstain(f"choices blank or the same: {shown(choices)}")
    return texts


def _right(answer: Any, count: int, texts: tuple[str, ...], first: int) -> Picks:
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    several = list(answer) if isinstance(answer, (list, tuple, Set)) else [answer]
    right: Picks = frozenset().union(*(_option(one, count, texts, first) for one in several))
    if not right:
        raise Abstain(f"reference missing: {shown(answer)}")
    return right


def _option(answer: Any, count: int, texts: tuple[str, ...], first: int) -> Picks:
    """The options that one entry of a reference names."""
    places: Picks | None = None
    if isinstance(answer, str):
        text = plain(answer)
        if text in texts:
            return frozenset({texts.index(text)})
        if text.isdecimal() and len(text) <= 2:
            places = frozenset({int(text) - first})
        elif letters := _letters(answer):
            places = frozenset(ord(letter) - ord("A") for letter in letters)
    elif not isinstance(answer, bool) and isinstance(answer, Real) and float(answer).is_integer():
        places = frozenset({int(float(answer)) - first})
    if places is None or not all(0 <= place < count for place in places):
        raise Abstain(f"reference names none of {count} options: {shown(answer)}")
    return places


def _letters(text: str) -> list[str]:
    """The letters of 'B', '(b)', 'A, C', 'A and C' or 'AC'; none if it is anything else."""
    words = re.findall(r"\w+", text)
    if len(words) == 1 and words[0].isupper() and sorted(set(words[0])) == list(words[0]):
        words = list(words[0])
    letters = [word.upper() for word in words if word.lower() != "and"]
    return letters if all(len(letter) == 1 and "A" <= letter <= "Z" for letter in letters) else []
