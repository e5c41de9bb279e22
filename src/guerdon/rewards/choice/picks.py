r"""Finding which options a reply picks.

In this order: what stands in the last `<answer>` tag, and in it the last `\boxed{…}`; a last line that is
nothing but letters; the last statement, such as 'the answer is (B)', 'I choose B' or 'B is correct'; a last
line that begins with a letter or is the text of an option; a first line that is nothing but letters. Linear in the
length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from guerdon.core.parsing import boxes, last_tag, passage

Picks = frozenset[int]

MOST = 64  # statements that are looked at, from the last

NOTHING: Picks = frozenset()  # what was said is no pick, and nothing said before it counts either

_MARKUP = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|boldsymbol|mbox|bf|rm)(?![A-Za-z])"
    r"|\\[ ,;:!()\[\]]|[{}$*_`\"“”«»]|(?<!\w)['’‘]|['’](?!\w)|^[ \t]*#+|^[ \t]*[-•>][ \t]",
    re.MULTILINE,
)
_ITEM = re.compile(r"[(\[]\s?([A-Za-z])\s?[)\]]|([A-Za-z])\)|([A-Z])(?![\w+#°]|['’-]\w)")
_NEXT = re.compile(rf"\s*(?:[,;&+]|(?i:and)\b)?\s*(?:(?i:and)\b\s*)?(?:(?i:option|choice)s?\s+)?(?:{_ITEM.pattern})")
_GOES_ON = re.compile(r"\s*(?:[,;&+]|\b(?:and|or)\b)?\s*[(\[]?[A-Z](?![\w+#°])|\s*(?:/|\bor\b)")
_SMALL = re.compile(r"([b-hj-z])[.!]?")
_TOGETHER = re.compile(r"([A-Z]{2,26})[.!]?")
_LEAD = re.compile(
    r"\A(?:\s*(?:most|likely|probably|definitely|clearly|certainly|therefore|thus|simply|both|the|options?|choices?"
    r"|letters?|answers?|statements?|alternatives?)\b[:\s]*)*\s*(?:not\s+[(\[]?[A-Z][)\]]?,?\s+but\s+(?:rather\s+)?)?",
    re.IGNORECASE,
)
_OR = re.compile(r"[\s.,;!]*(?:/|(?:or|alternatively|maybe|perhaps|possibly|versus|vs)\b)", re.IGNORECASE)
_LATER_OR = re.compile(r"\bor\s+(?:(?:maybe|perhaps|option|choice)\s+)*[(\[]?[A-Z][)\]]?\s*(?:[.,;!?]|$)")
_HEDGE = re.compile(r"(?:either|neither|between|any|all|none|maybe|perhaps|possibly|could|might)\b", re.IGNORECASE)
_REASON = re.compile(
    r"\s+(?:because|since|as|for|by|due|which|where|given|with|based|from|not|over|and|but)\b", re.IGNORECASE
)
_ENDS = re.compile(r"\s*(?:[.,;:!)(\]–—=。,、]|-\s|$)")
_SENTENCE_END = re.compile(r"[.!;](?=\s|$)|\n")

_STATED = re.compile(
    r"""(?:
      \b(?:(?:correct|right|best|final|appropriate|my)\s+(?:options?|choices?|letters?|statements?)|answers?|ans)\b\.?
        (?:\s+(?:to|of|for)\b[^\n.?!:=]{0,80}?)?
        (?:\s*(?:\b(?:is|are|was|(?:must|should|would|will)\s+be)\b|[:=]|\s-(?=\s)))+
      | ^[ \t]*ans(?:wers?)?\b\.?(?=[ \t]+[(\[]?[A-Z]\b)
      | \b(?:it|this|that)\s+(?:has\s+to|must|should|can\s+only)\s+be\b
      | (?:\b(?:so|hence|thus|therefore|it\s+is|based\s+on\b[^\n,.]{0,80})|\bit['’]s)\b,?
        (?=\s+[(\[]?[A-Z][)\]]?\s?[.!]?\s*$)
      | (?:\b(?:would|will|i)|['’]d)\s+answer\b
      | \b(?:choos(?:e|ing)|chose|pick(?:ed|ing)?|select(?:ed|ing)?|(?:go|going)\s+with|opt(?:ing)?\s+for|would\s+say
        |(?:which|this|that|it)\s+is\s+(?:option|choice|answer|letter)
        |(?:corresponds\s+to|matches)\s+(?:option|choice|answer|letter))\b
      | 答案\s*[是为為]?\s*[::]? | 故选\s*[::]? | 选择\s*[::]?
    )[\s:]*""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_NEGATED = re.compile(r"(?:\bnot\b|n['’]t\b|\bnever\b|\bcannot\b)[^.,;:!?\n]*$", re.IGNORECASE)
_JUDGED = re.compile(
    r"\b(?:is|are)\s+(?:(?:clearly|indeed|therefore|thus|both|the|only|most)\s+)*(?:correct|right|best|answers?)\b",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"(?:^|[.!?:;,\n][ \t]*|\b(?i:options?|choices?|answers?|letters?|statements?|that|so|hence|thus|therefore|think"
    r"|believe|conclude|both|either|but|then|because|since|clearly|only|indeed)\s+|(?=[(\[]))"
    r"((?:(?:[(\[][A-Za-z][)\]]|[A-Z]\)?)[ \t]*(?:[,&/]|(?:and|or)\b)?[ \t]*(?:(?i:option|choice)s?[ \t]+)?){1,10})$"
)
_ALONE = re.compile(r"\W*(?:(?:[A-Za-z]|and|or|options?|choices?|both)\b\W*)+", re.IGNORECASE)
_LISTED = re.compile(
    r"[ \t]*(?:[(\[]?([A-Z])[)\]]|([A-Z])(?:[.:]| -))(?=\s)|[ \t]*[(\[]?([A-Z])[)\]]?[.]?[ \t]*$", re.MULTILINE
)
_QUESTION = re.compile(r"\s*\?|[^\n]{0,200}\?\s*$")
_TEXT_ENDS = re.compile(r"\s*$|[.,;:!](?=\s|$)|\s+[(–—]|\s+-\s|\s+(?:because|since|as|which|not|and|or)\b")
_JOINT = re.compile(r"\s*(?:[,/&]|(?:and|or)\b)\s*(?:(?:and|or)\b\s*)?")


def picks(completion: str, count: int, texts: Sequence[str] = ()) -> Picks | None:
    r"""The options that a reply picks, by their place from 0; None or nothing if it picks none.

    Args:
        completion: the reply. What is thought does not count.
        count: how many options there are; later letters are none.
        texts: the options' texts, as `plain` gives them, where a reply may say them.

    >>> picks("The answer is (B), since A is odd.", 4), picks("B or C", 4), picks("A good question!", 4)
    (frozenset({1}), frozenset(), None)
    """
    text = passage(completion, "reply")
    if text is None:
        return None
    reader = _Reader(count, texts)
    tagged = last_tag(text, "answer")
    text = text if tagged is None else tagged
    if (box := next(boxes(text), None)) is not None:
        return reader.declared(tidy(box))
    text = tidy(text)
    if tagged is not None and (found := reader.declared(text)) is not None:
        return found
    return reader.concluded(text)


def tidy(text: str) -> str:
    r"""A text without markup: bold, quotation marks, headings, bullets, LaTeX's text commands.

    >>> tidy("**Answer:** \\textbf{(C)}\\ 12")
    'Answer: (C) 12'
    """
    return re.sub(r"[ \t]+", " ", _MARKUP.sub(" ", text)).strip()


def plain(text: str) -> str:
    """The text of an option, for comparison: without markup, case and the punctuation at its ends.

    >>> plain("  The  *Seine*.")
    'the seine'
    """
    return " ".join(tidy(text).split()).casefold().strip(" .,;:!?")


class _Reader:
    def __init__(self, count: int, texts: Sequence[str]) -> None:
        self.count = count
        self.texts = ["" if len(text) == 1 and text.isalpha() else text for text in texts]  # a letter names an option

    def concluded(self, text: str) -> Picks | None:
        """What a reply arrives at."""
        last = text.rpartition("\n")[2].strip()
        if (found := self.alone(last, text)) is not None:
            return found
        if (found := self.stated(text)) is not None:
            return found
        if (found := self.listed(last, text)) is not None:
            return found
        return self.alone(text.partition("\n")[0], text)

    def alone(self, line: str, text: str) -> Picks | None:
        """A line that is nothing but letters, unless it is one of many such lines."""
        line = re.sub(r"^A:\s*(?=\S)", "", line.strip())
        if not (_ALONE.fullmatch(line) or _TOGETHER.fullmatch(line)):
            return None
        found = self.declared(line)
        if not found or len(found) > 1:
            return found
        others = {self.place(*other.groups()) for other in _LISTED.finditer(text) if other[3]} - {None}
        return found if others <= found else NOTHING

    def stated(self, text: str) -> Picks | None:
        """What the last statement says that says anything."""
        statements = [*_STATED.finditer(text), *_JUDGED.finditer(text)]
        for statement in sorted(statements, key=lambda found: found.start(), reverse=True)[:MOST]:
            begin, end = statement.span()
            if statement.re is _STATED:
                said, before = text[end : end + 400], text[max(0, begin - 60) : begin]
            elif subject := _SUBJECT.search(text, max(0, begin - 60), begin):
                said, before = subject[1], text[max(0, begin - 60) : subject.start(1)]
            else:
                continue
            if not _NEGATED.search(before) and (found := self.declared(said)) is not None:
                return found
        return None

    def listed(self, last: str, text: str) -> Picks | None:
        """A last line that is an option's text or begins with its letter, unless the options are listed."""
        if (named := self.named(last, whole=True)) is not None:
            return named
        label = _LISTED.match(last)
        if label is None or last.startswith("A:"):
            return None
        own = self.place(*label.groups())
        lines = [self.place(*line.groups()) for line in _LISTED.finditer(text)][:-1]
        if own is None or (any(line not in (None, own) for line in lines) and own not in lines):
            return None
        return self.declared(last)

    def declared(self, text: str) -> Picks | None:
        """The options that a text begins with, if it is said to be the answer."""
        text = text.strip()
        if (named := self.named(text.partition("\n")[0], whole=True)) is not None:
            return named
        if (together := _TOGETHER.match(text)) and _ENDS.match(text, together.end()):
            letters = list(together[1])
            if letters == sorted(set(letters)):
                return self.known(letters)
        bare = _LEAD.sub("", text)
        if small := _SMALL.fullmatch(bare):
            return self.known([small[1].upper()])
        item = _ITEM.match(bare)
        if item is None:
            named = self.named(text, whole=False)
            return NOTHING if named is None and _HEDGE.match(bare) else named
        letters, end = self.items(bare, item)
        rest = bare[end:]
        if _OR.match(rest) or _LATER_OR.search(_SENTENCE_END.split(bare, maxsplit=1)[0], end):
            return NOTHING
        if _QUESTION.match(rest.partition("\n")[0]):
            return None
        article = len(letters) == 1 and letters[0] in "AI" and item[3] is not None
        if article and not (_ENDS.match(rest) or _REASON.match(rest)):
            return self.named(text, whole=False)
        found = self.known(letters)
        other = self.named(rest.lstrip(" .):,-–—"), whole=False)
        return found if found is None or other is None or other == found else NOTHING

    def items(self, text: str, item: re.Match[str]) -> tuple[list[str], int]:
        """The letters of a list that begins with `item`, and where it ends."""
        letters, end = [_letter(item)], item.end()
        while more := _NEXT.match(text, end):
            if not (_ENDS.match(text, more.end()) or _GOES_ON.match(text, more.end())):
                break
            letters.append(_letter(more))
            end = more.end()
        return letters, end

    def named(self, text: str, *, whole: bool) -> Picks | None:
        """The option whose text a text is, or begins with; nothing if it goes on with another's."""
        said = plain(text if whole else text[:400])
        if not said or not self.texts:
            return None
        if said in self.texts:
            return frozenset({self.texts.index(said)})
        if whole:
            return None
        found = self.begins(said)
        if found is None:
            return None
        joint = _JOINT.match(said, len(found))
        if joint and self.begins(said[joint.end() :]) is not None:
            return NOTHING
        return frozenset({self.texts.index(found)})

    def begins(self, said: str) -> str | None:
        """The longest text of an option that a text begins with."""
        found = [text for text in self.texts if text and said.startswith(text) and _TEXT_ENDS.match(said, len(text))]
        return max(found, key=len, default=None)

    def known(self, letters: Sequence[str]) -> Picks | None:
        """The places of letters, if all are of options."""
        places = [self.place(letter) for letter in letters]
        return None if None in places else frozenset(place for place in places if place is not None)

    def place(self, *letters: str | None) -> int | None:
        """The place of the letter that there is."""
        place = next(ord(letter.upper()) - ord("A") for letter in letters if letter)
        return place if place < self.count else None


def _letter(item: re.Match[str]) -> str:
    return next(letter for letter in item.groups() if letter).upper()
