r"""Finding the final answer in a reply.

In this order: what stands in the last `<answer>` tag, and in it the last `\boxed{…}`; a last line
`A: x`; `#### x`; 'the answer is x'; the number that the last sentence arrives at. Linear in the
length of the text.
"""

from __future__ import annotations

import re
from typing import Literal

from guerdon.core.parsing import boxes, last_tag
from guerdon.rewards.math.exact import LONGEST, quantity
from guerdon.rewards.math.notation import plain, prose, tidy

_ANSWER = re.compile(r"(?:nswer|NSWER)[sS]?\b")
_STATED = re.compile(
    r"""[*_\s]*+(?:(?:to|of|for)\b[^\n.?!:=]{0,80}?)?
    (?:\s*(?:\b(?:is|are|was|equals?|(?:must|should|would|will)\s+be)\b|[:=]))++ [\s*_:]*
    (?: \$\$(?P<dollars>[^$]{0,1000})\$\$ | \\\[(?P<brackets>.{0,1000}?)\\\] | (?P<line>[^\n]*) )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_SENTENCE_END = re.compile(r"[.!;](?=\s|$)|\n")
_CLAUSE_END = re.compile(r",(?![0-9])|[;(]")
_REASON = re.compile(r"[,\s]\(?(?:because|since|as|so that)\s", re.IGNORECASE)
_SECOND_THOUGHT = re.compile(r"\s*(?:or|alternatively|maybe|perhaps)\b", re.IGNORECASE)
_HEADING = re.compile(r"\s*[A-Za-z]{3,}")
_LEAD = re.compile(r"(?:[A-Za-z,']+\s+){0,12}?(?:is|are|equals?)\s*:?\s+")
_APPROXIMATELY = re.compile(r"\s*(?:\\approx(?![A-Za-z])|≈)")
_ONLY_A_NAME = re.compile(r"\s*(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?)?\s*")

_NUMBER = re.compile(r"(?<![\w.:/^])-?[$€£¥₹]?-?\.?[0-9][\w.,:/^]*")
_UNSURE = re.compile(
    r"\b(?:or|not|never|neither|nor|cannot|maybe|perhaps|might|may|could|unless|otherwise|wrong|incorrect|either)\b"
    r"|n't\b|\?\s*$",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"(?:\b(?:at least|at most|up to|under|over|above|below|between|step|(?:more|less|greater|fewer|larger|smaller"
    r"|higher|lower) than)|[<>≤≥≠]|\\(?:le|ge|ne|lt|gt)|[0-9)]\s*[-+*/^])\s*$",
    re.IGNORECASE,
)
_BREAK = re.compile(r"[=,;:]")
_JOINED = re.compile(r"[0-9].*\b(?:and|to)\b", re.IGNORECASE)
_TASK = re.compile(
    r"\s*(?:find|compute|calculate|determine|evaluate|simplify|solve|express|give|write|what|how|which|let|suppose|prove"
    r"|show|put)\b",
    re.IGNORECASE,
)
_CUT_OFF = re.compile(r"[-=+*/×÷(<^{]\s*$|\\\w*$")
_INLINE = re.compile(r"(?:\$([^$\n]+)\$|\\\(([^\n]+?)\\\))\s*$")
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # GSM8K's annotations


def extract(
    text: str,
    *,
    accept: Literal["bare", "marked", "boxed"] = "bare",
    several: Literal["last", "agree"] = "last",
) -> str | None:
    r"""The final answer of a reply, as it is written there, or None.

    Args:
        text: the reply. What is between `<think>` tags does not count, and while they are open nothing was
            answered.
        accept: 'bare' also reads the number that a last sentence without any mark arrives at, unless it is a
            question, a task, negated, hedged or cut off; 'marked' wants a mark, so that an unfinished chain of
            thought whose last number happens to be right earns nothing; 'boxed' wants `\boxed{…}`.
        several: which of several boxes counts: the 'last', however many there are; or only what all 'agree'
            on, so that boxing every candidate on the way earns nothing.

    >>> extract("First \\boxed{6}, no: \\boxed{7}."), extract("So 3 + 4 = 7.\n#### 7"), extract("The answer is 3 or 4.")
    ('7', '7', '3 or 4')
    >>> extract("Seven bags hold 84 candies."), extract("Seven bags hold 84 candies.", accept="marked")
    ('84 candies', None)

    Source: the marks of GSM8K ('####', 'A:'), MATH ('\boxed') and Minerva ('the answer is').
    """
    if "think>" in text:
        text = text.rpartition("</think>")[2]
        if "<think>" in text:
            return None
    tagged = last_tag(text, "answer") if "</answer>" in text else None
    if tagged is not None:
        text = tagged
    if "\\boxed" in text:
        found = boxes(text)
        last = next(found, None)
        if last is not None:
            return _declared(last) if several == "last" or all(other == last for other in found) else None
        text = text.replace("\\boxed{}", "")
        if "\\boxed" in text:
            return None
    if accept == "boxed":
        return None
    end = len(text.rstrip())
    last_line = text[text.rfind("\n", 0, end) + 1 : end]
    if last_line.startswith("A:"):
        return _declared(last_line[2:])
    hashes = text.rfind("####")
    if hashes >= 0 and not _HEADING.match(text, hashes + 4):
        return _declared(text[hashes + 4 :].partition("\n")[0])
    if (stated := _stated(text)) is not None:
        return _declared(stated)
    if tagged is not None:
        return _declared(text)
    return _concluded(last_line, only=False) if accept == "bare" else None


def _stated(text: str) -> str | None:
    """What the last 'answer is …' or 'answer: …' says, up to the end of the sentence."""
    if "nswer" not in text and "NSWER" not in text:
        return None
    for position in reversed([word.end() for word in _ANSWER.finditer(text)]):
        match = _STATED.match(text, position)
        if match is None:
            continue
        if match["line"] is None:
            return match["dollars"] or match["brackets"]
        line = match["line"].strip()
        stop = _SENTENCE_END.search(line)
        if stop and _SECOND_THOUGHT.match(line, stop.end()):
            return line
        line = line[: stop.start()] if stop else line
        reason = _REASON.search(line)
        return line[: reason.start()] if reason else line
    return None


def _declared(text: str) -> str | None:
    """A text that is said to be the answer, without the words around it."""
    text = text.strip()
    if not text or len(text) > LONGEST:
        return None
    text = tidy(text)
    if quantity(text):
        return text
    if (stated := _stated(text)) is not None:
        text = tidy(stated)
    if lead := _LEAD.match(text):
        text = tidy(text[lead.end() :])
    exact, *approximate = _APPROXIMATELY.split(text, maxsplit=1)
    if approximate and not _ONLY_A_NAME.fullmatch(exact):
        text = tidy(exact)
    if quantity(text) or not prose(plain(text)):
        return text or None
    return _concluded(text, only=True) or text


def _concluded(text: str, *, only: bool) -> str | None:
    """The number that the last sentence of a text arrives at, if it arrives at one.

    Args:
        text: the end of a reply.
        only: the number has to be the only one, unless an equation ends in it.
    """
    text = tidy(_CALCULATOR.sub("", text[-LONGEST:]))
    if quantity(text):
        return text
    ends = [end.end() for end in _SENTENCE_END.finditer(text)]
    sentence = text[ends[-1] :] if ends else text
    if _UNSURE.search(sentence.replace("’", "'")) or _TASK.match(sentence) or _CUT_OFF.search(sentence):
        return None
    if not only and (inline := _INLINE.search(sentence)):
        return tidy(inline[1] or inline[2])
    sentence = plain(sentence)
    _, equals, after = sentence.rpartition("=")
    for result in (after.strip(), " ".join(after.split()[:2])):
        if equals and quantity(result):
            return result
    starts = [number.start() for number in _NUMBER.finditer(sentence)]
    for start in starts[-2:]:  # the last two may be one number: 1 1/2, 10 000
        clause = _CLAUSE_END.split(sentence[start:], maxsplit=1)[0]
        if start + len(clause) > starts[-1] and quantity(clause) and not (only and start != starts[0]):
            before = sentence[:start]
            return None if _BOUND.search(before) or _JOINED.search(_BREAK.split(before)[-1]) else clause
    return None
