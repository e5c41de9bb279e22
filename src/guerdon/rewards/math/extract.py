r"""Finding the final answer in a reply.

In this order: what stands in the last `<answer>` tag, and in it the last `\boxed{…}`, or a 'final
answer is x' after it; a last line `A: x`; `#### x`; 'the answer is x'; the formula or the number that
the last sentence arrives at. Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from guerdon.core.parsing import boxes, last_tag
from guerdon.rewards.math.exact import LONGEST, quantity
from guerdon.rewards.math.notation import plain, prose, tidy
from guerdon.rewards.math.structure import MOST_ITEMS

FARTHEST = 80  # characters between boxes that are joined

_ANSWER = re.compile(r"(?:nswer|NSWER)[sS]?\b")
_STATED = re.compile(
    r"""[*_\s]*+(?:(?:to|of|for)\b[^\n.?!:=]{0,80}?)?
    (?:\s*(?:\b(?:is|are|was|equals?|(?:must|should|would|will)\s+be)\b|[:=]))++ [\s*_:]*
    (?: \$\$(?P<dollars>[^$]{0,1000})\$\$ | \\\[(?P<brackets>.{0,1000}?)\\\] | (?P<line>[^\n]*) )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_SENTENCE_END = re.compile(r"(?<!\.\.)[.!;](?=\s|$)|\n")
_CLAUSE_END = re.compile(r",(?![0-9])|[;(]")
_REASON = re.compile(r"[,\s]\(?(?:because|since|as|so that)\s", re.IGNORECASE)
_SECOND_THOUGHT = re.compile(r"\s*(?:or|alternatively|maybe|perhaps)\b", re.IGNORECASE)
_HEADING = re.compile(r"\s*[A-Za-z]{3,}")
_LEAD = re.compile(r"(?:[A-Za-z,']+\s+){0,12}?(?:is|are|equals?)\s*:?\s+")
_APPROXIMATELY = re.compile(r"\s*(?:\\approx(?![A-Za-z])|≈)")
_ONLY_A_NAME = re.compile(r"\s*(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?)?\s*")

_NUMBER = re.compile(r"(?<![\w.:/^])-?[$€£¥₹]?-?\.?[0-9][\w.,:/^]*")
_PAIR = re.compile(r"-?[0-9]+,[0-9]+(?![\w,]|\.[0-9])")
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
_FORMULA = re.compile(r"(?<![\\\w])\$(?P<dollars>[^$\n]+)(?<!\\)\$(?![0-9])|\\\((?P<brackets>[^\n]+?)\\\)")
_BOX = re.compile(r"\\boxed\s*\{?\s*$")
_FINAL = re.compile(r"final answer", re.IGNORECASE)
_NAME = r"(?:[A-Za-z](?:_\{?\w\}?)?\s*=)?"
_PUNCTUATION = r"(?:\$|\\[()\[\]]|\\q?quad|\\[,;: ]|~|\s)*"
_CONNECTIVE = r"(?:[,;]|(?:,\s*)?(?:\\text\{)?\s*(?:and|or)\b\s*\}?)"
_JOINT = re.compile(rf"{_PUNCTUATION}{_CONNECTIVE}{_PUNCTUATION}{_NAME}{_PUNCTUATION}")
_NEAR = re.compile(r".{0,10}|(?=.*(?:\b(?:and|or)\b|[,;])).{0,70}", re.DOTALL)
_BETWEEN = re.compile(r"\s*(?:,|;|(?:,\s*)?(?:and|or)\b)?\s*")
_DISPLAYS = (("$$", "$$"), ("\\[", "\\]"))
_FOREIGN = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_SIGNIFICANT = re.compile(r"[0-9\\]|[\])}]$|[A-Za-z]\s*[-+*/^=<>]\s*[A-Za-z]")
_TURN_END = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|end)\|>")
_COURTESY = re.compile(r"I hope (?:it|this) is correct\.?\s*$")
_NEGATED_NUMBER = re.compile(r"\b(?:not|isn't)\s+[$€£¥₹]?-?[0-9][0-9.,]*(?=,?\s+[A-Za-z])", re.IGNORECASE)
_POSSIBILITY = re.compile(r"\b(?:that|which|who)\s+(?:can|could|may|might)\s+(?!be\s+\W*[0-9])", re.IGNORECASE)
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # GSM8K's annotations


def extract(
    text: str,
    *,
    accept: Literal["bare", "marked", "boxed"] = "bare",
    several: Literal["last", "near", "agree"] = "last",
) -> str | None:
    r"""The final answer of a reply, as it is written there, or None.

    Args:
        text: the reply. What is between `<think>` tags does not count, and while they are open nothing was
            answered.
        accept: 'bare' also reads the formula or number that a last sentence without any mark arrives at, unless it
            is a question, a task, negated, hedged or cut off; 'marked' wants a mark, so that an unfinished chain of
            thought whose last number happens to be right earns nothing; 'boxed' wants `\boxed{…}`.
        several: which of several boxes counts: the 'last', however many there are, with those that only a comma,
            'and' or 'or' joins to it, so that `\boxed{3}` or `\boxed{4}` is two answers and not the second; 'near' also
            joins boxes with a few words between them ("x apples and y pears"); or only what all 'agree' on, so that
            boxing every candidate on the way earns nothing.

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
    if "<|" in text and (end_of_turn := _TURN_END.search(text, 1)):
        text = text[: end_of_turn.start()]
    if "I hope" in text:
        text = _COURTESY.sub("", text)
    if "\\boxed" in text:
        found = boxes(text)
        last = next(found, None)
        if last is not None:
            if several == "agree":
                return _declared(last) if all(other == last for other in found) else None
            final = _final(text[text.rfind("\\boxed") :]) if accept != "boxed" else None
            if not final and text.count("\\boxed") > 1:
                last = _joined(text, last, found, _NEAR if several == "near" else _JOINT)
            return final or _declared(last)
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
    if accept != "bare":
        return None
    display = _display(text[:end])
    return _concluded(last_line, only=False) if display is None else _declared(display)


def _joined(text: str, last: str, others: Iterator[str], joint: re.Pattern[str]) -> str:
    """The contents of the last box and of those that are joined to it, as a list."""
    contents, (start, _) = [last], _place(text, last, len(text))
    for content in others:
        before, end = _place(text, content, start)
        between = text[end:start].lstrip().removeprefix("}")
        if len(between) > FARTHEST or not joint.fullmatch(between) or len(contents) == MOST_ITEMS:
            break
        if content not in contents:
            contents.append(content)
        start = before
    return ", ".join(reversed(contents))


def _place(text: str, content: str, stop: int) -> tuple[int, int]:
    """Where the last box with this content begins, and where the content ends."""
    at = text.rfind(content, 0, stop)
    while at > 0 and not (box := _BOX.search(text, max(0, at - FARTHEST), at)):
        at = text.rfind(content, 0, at + len(content) - 1)
    return (box.start() if at > 0 and box else 0), max(at, 0) + len(content)


def _final(text: str) -> str | None:
    """What is said to be the final answer after the last box; nothing if that is only words about the box."""
    finals = [final.start() for final in _FINAL.finditer(text)]
    stated = _stated(text[finals[-1] :]) if finals else None
    return _declared(stated) if stated and (quantity(tidy(stated)) or not prose(plain(stated))) else None


def _display(text: str) -> str | None:
    r"""The formula that closes a reply in `$$…$$` or `\[…\]`, perhaps over several lines; empty if it is the task's."""
    text = text.rstrip(" \n.")
    for opening, closing in _DISPLAYS:
        start = text.rfind(opening, 0, -2) if text.endswith(closing) else -1
        if start >= 0 and len(text) - start <= LONGEST:
            lead = text[max(0, start - LONGEST) : start].rstrip()
            lead = lead[max((end.end() for end in _SENTENCE_END.finditer(lead)), default=0) :]
            return "" if _UNSURE.search(lead) or _TASK.match(lead) else text[start + 2 : -2]
    return None


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
    text = _CALCULATOR.sub("", text[-LONGEST:]).strip()
    shown = not only and _shown(text.rstrip("."))
    text = tidy(text)
    if shown:
        return _declared(text)
    if quantity(text):
        return text
    ends = [end.end() for end in _SENTENCE_END.finditer(text)]
    sentence = text[ends[-1] :] if ends else text
    if _TASK.match(sentence) or _CUT_OFF.search(sentence):
        return None
    sentence = _POSSIBILITY.sub("", sentence.replace("’", "'"))
    negated = [number.end() for number in _NEGATED_NUMBER.finditer(sentence)]
    if negated and _NUMBER.search(sentence, negated[-1]):
        sentence = sentence[negated[-1] :]
    if _UNSURE.search(sentence):
        return None
    if not only and (formula := _last_formula(sentence)):
        return formula
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
    if only:
        return None
    pair = _PAIR.match(sentence, starts[-1]) if starts else None
    if pair and not _BOUND.search(sentence[: pair.start()]):
        return pair[0]
    return sentence if _SIGNIFICANT.search(sentence) and not _FOREIGN.search(sentence) else None


def _shown(text: str) -> bool:
    """Whether a text is nothing but formulas between dollar signs, joined by commas, 'and' or 'or'."""
    end = 0
    for formula in _FORMULA.finditer(text):
        if not _BETWEEN.fullmatch(text, end, formula.start()):
            return False
        end = formula.end()
    return 0 < end == len(text)


def _last_formula(sentence: str) -> str | None:
    """The last formula of a sentence, with those it is joined to, unless a number follows or a bound is set."""
    formulas = list(_FORMULA.finditer(sentence))
    if not formulas or _NUMBER.search(sentence, formulas[-1].end()):
        return None
    start = formulas[-1].start()
    for formula in reversed(formulas[:-1]):
        between = sentence[formula.end() : start]
        if not between.strip() or not _BETWEEN.fullmatch(between):
            break
        start = formula.start()
    if _BOUND.search(sentence[:start]):
        return None
    with_unit = tidy(sentence[start:])
    return with_unit if quantity(with_unit) else tidy(sentence[start : formulas[-1].end()])
