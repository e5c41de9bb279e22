"""Which language a reply is written in, and whether it keeps to it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import nearest
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, Passage, passage, text_of

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LETTERS = 24  # of a piece of text whose language can be told; shorter ones are put together

# What is of no language: code, mathematics, addresses, tags, commands of LaTeX.
_NO_LANGUAGE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.{0,1000}?\$\$|\$[^$\n]*\$|\\\(.{0,1000}?\\\)|\\\[.{0,1000}?\\\]"
    r"|https?://\S+|</?\w{1,40}>|\\[A-Za-z]+",
    re.DOTALL,
)
_WITHOUT_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_WITHOUT_SPACES}]|[^\s{_WITHOUT_SPACES}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")

_extra = needs("format.language", "py3langid", extra="format")


def _known(languages: tuple[str, ...], among: tuple[str, ...], **options: object) -> tuple[str, ...]:
    nothing = _extra()
    if not languages:
        raise ValueError("language wants the languages that are right, as in language('en')")
    for code in (*languages, *among):
        if code not in (known := _identifier(()).labels):
            raise ValueError(f"there is no language {code!r} (ISO 639 codes are wanted): {nearest(code, known)}")
    if among and not set(languages) <= set(among):
        raise ValueError(f"the languages {languages} that are right have to be among {among}")
    return nothing


@reward(range=(0, 1), requires=_known)
def language(
    completion: Completion,
    *languages: str,
    credit: Literal["verdict", "probability", "share"] = "verdict",
    among: tuple[str, ...] = (),
    within: Passage = "completion",
) -> tuple[float, dict[str, Any]]:
    r"""Whether the completion is written in one of these languages.

    Code, mathematics, links and tags are left out first. What has no words then earns 0: it is in no language.

        'share'     words of the pieces that are in one of the languages / words

    A piece is a sentence, or the part of it in one script; a character of Chinese or Japanese is a word, single
    letters of other scripts are none. Pieces of fewer than 24 letters are told together with others of their script.

    Args:
        completion: the reply: text or chat messages.
        languages: ISO 639 codes of the languages that are right, such as 'en', 'zh'.
        credit: 'verdict' is 1 if the likeliest language of the whole is right; 'probability' is the sum of the
            probabilities of the right ones; 'share' is lower for every switch to another language, which the whole
            may hide: a page in English with a paragraph in Chinese is in English.
        among: the languages that it can be at all. Without, near relatives compete: 'zh' with 'wuu' and 'yue', 'no'
            with 'nn'; very short replies can be taken for anything.
        within: see `text.exact`. 'completion' is all of it, thinking included: where models switch most.

    Returns:
        The score, and the likeliest language of the whole as a detail.

    Raises:
        ValueError: at once, if no language is given, or one that the identifier does not know.
        MissingExtra: if py3langid is not installed.

    >>> from guerdon.rewards import format
    >>> mixed = "The answer follows from the first equation. 因此答案就是四"  # 7 words and 7
    >>> format.language("en").evaluate(mixed)[0], format.language("en", credit="share").evaluate(mixed)[0]
    (1.0, 0.5)

    Source: DeepSeek-R1 (arXiv 2501.12948), the language consistency reward: the share of words in the language
    asked for; py3langid (langid.py, Lui & Baldwin 2012).
    """
    text = _NO_LANGUAGE.sub(" ", passage(text_of(completion), within) or "")
    words = [word for word in _WORD.findall(text) if _script(word)]
    if not words:
        return 0.0, {"language": None}
    identifier = _identifier(tuple(among))
    ranked = identifier.rank(text)
    likeliest = {"language": ranked[0][0]}
    if credit == "verdict":
        return float(ranked[0][0] in languages), likeliest
    if credit == "probability":
        return min(1.0, sum(probability for code, probability in ranked if code in languages)), likeliest
    right = total = 0
    for piece, size in _pieces(text):
        total += size
        right += size * (identifier.classify(piece)[0] in languages)
    if not total:  # its words fall apart into single letters: 'A!A'
        return float(ranked[0][0] in languages), likeliest
    return right / total, likeliest


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Pieces of a text that are in one script and long enough to be told, and how many words each has."""
    short: dict[str, list[str]] = {}
    for sentence in _SENTENCE_END.split(text):
        own: dict[str, list[str]] = {}
        for word in _WORD.findall(sentence):
            if script := _script(word):
                own.setdefault(script, []).append(word)
        for script, words in own.items():
            if _letters(words) >= LETTERS:
                yield _joined(script, words), len(words)
            else:
                short.setdefault(script, []).extend(words)
    for script, words in short.items():
        yield _joined(script, words), len(words)


def _letters(words: list[str]) -> int:
    return sum(map(len, words))


def _joined(script: str, words: list[str]) -> str:
    return ("" if script == "CJK" else " ").join(words)


def _script(word: str) -> str:
    """The script of a word's first letter; '' if it is no word: without letters, or a single one of an alphabet."""
    letters = [character for character in word if character.isalpha()]
    script = _script_of(letters[0]) if letters else ""
    return script if len(letters) > 1 or script == "CJK" else ""


@lru_cache(maxsize=1 << 14)
def _script_of(letter: str) -> str:
    script = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else script


@lru_cache(maxsize=8)
def _identifier(among: tuple[str, ...]) -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(among) or None)
    return identifier
