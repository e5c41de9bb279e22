"""Answers that are words: a day, a name, yes or no, odd or even."""

from __future__ import annotations

import re
from functools import lru_cache

from guerdon.rewards.math.notation import plain, prose, tidy

MOST_WORDS = 8
LONGEST = 100  # characters

_PHRASE = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*(?: [^\W\d_]+(?:['-][^\W\d_]+)*)*")
_ARTICLE = re.compile(r"\b(?:the|an?) ")
# What stands where an answer is missing.
_NO_ANSWER = re.compile(
    r"(?:see|refer) .*|i (?:do|am|can|could|don't|cannot|can't)\b.*|tbd|todo|n/a|nan|null|none|unknown|pending|answer"
    r"|no answer.*|not (?:available|given|provided|known|applicable|sure).*",
    re.IGNORECASE,
)
_VERDICTS = {"yes", "no", "true", "false"}


@lru_cache(maxsize=1 << 12)
def words(text: str) -> str | None:
    r"""The words that a text is, in small letters and without articles, or None if it is anything else.

    Mathematics is not, nor is a long text, nor one that only says that an answer is missing.

    >>> words(r"\text{The Tuesday}"), words("odd"), words("Yes."), words("2 apples"), words("sin x"), words("see above")
    ('tuesday', 'odd', 'yes', None, None, None)
    """
    if len(text) > LONGEST:
        return None
    text = " ".join(plain(tidy(text)).strip("()").split())
    if not _PHRASE.fullmatch(text) or not (prose(text) or text.lower() in _VERDICTS) or missing(text):
        return None
    phrase = _ARTICLE.sub("", text.lower())
    return phrase if len(phrase.split()) <= MOST_WORDS else None


def missing(text: str) -> bool:
    """Whether a text only stands where an answer is missing.

    >>> missing("N/A"), missing("see above"), missing("no solution")
    (True, True, False)
    """
    return bool(_NO_ANSWER.fullmatch(text.strip()))


def same_words(answer: str, reference: str) -> bool:
    """Whether an answer says the words of a reference; a 'yes' or 'no' may be followed by what it says yes to.

    >>> same_words("Even", "even"), same_words("Yes, it is.", "yes"), same_words("Yes or no", "yes")
    (True, True, False)
    """
    expected = words(reference)
    if expected in _VERDICTS:
        said = re.findall(r"[a-z]+", plain(tidy(answer)).lower())
        return said[:1] == [expected] and not (_VERDICTS & set(said)) - {expected}
    return expected is not None and words(answer) == expected
