"""Where a reasoning is cut: at marker words, separators, budgets or turns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from guerdon.core.coerce import coerce
from guerdon.core.errors import MissingInput
from guerdon.core.parsing import Completion, text_of
from guerdon.core.spans import split
from guerdon.rewards.likelihood.forced import extended

MARKERS = (
    "Wait", "wait", "But", "but", "However", "however", "Alternatively", "alternatively", "Hmm", "hmm",
    "Let me double-check", "let me double-check", "So",
)  # fmt: skip

_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")


@dataclass(frozen=True)
class Cut:
    r"""How a completion is cut into steps.

    Args:
        at: 'markers': before the sentence in which the reasoning turns; 'separator': after each of them; 'budgets':
            where so much has been written; 'turns': after each message of the assistant in a chat, and what tools
            answered to it.
        until: only the text before the first of these is cut, so that the answer is no step; None: all of it. A text
            without it is all reasoning (it was cut short).
        markers: texts that begin a turn of thought; case counts, since a 'So' that begins a sentence is one and a
            'so' within it is not.
        whole_words: a marker does not count inside of a word ('but' in 'attribute').
        first: characters from the beginning to the first marker that counts.
        gap: characters from a cut to the next marker that counts.
        lines: a piece of fewer lines than this that hold text is one with the next: a step, not an interjection.
        sentence: move the cut back to the end of the sentence before the marker.
        separator: what ends a step.
        budgets: rising; what is beyond the end of the text is at its end, an empty step of the same worth.
        unit: what budgets count; 'tokens' are those of the rollouts, with their offsets.

    Raises:
        ValueError: if a length is negative, budgets do not rise, or there is nothing to cut at.

    Source: VSRM (arXiv 2508.10293): markers, 1000 and 400 characters; its code finds them inside of words as well.
    MRT (2503.07572): 'Wait' and 'Alternatively'. SPAE (2601.03823): separator '.\n\n'. AnytimeReasoner (2505.13438):
    budgets in tokens. IGPO (2510.14967): turns.
    """

    at: Literal["markers", "separator", "budgets", "turns"] = "markers"
    until: str | None = "</think>"
    markers: tuple[str, ...] = MARKERS
    whole_words: bool = True
    first: int = 1000
    gap: int = 400
    lines: int = 0
    sentence: bool = True
    separator: str = ".\n\n"
    budgets: tuple[int, ...] = ()
    unit: Literal["tokens", "words", "characters"] = "tokens"

    def __post_init__(self) -> None:
        least = min(self.first, self.gap, self.lines, *self.budgets, 0)
        if least < 0 or list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(
                f"a cut wants lines, first and gap of 0 or more and rising budgets, got {self.lines}, {self.first}, "
                f"{self.gap} and {self.budgets}"
            )
        empty = {"markers": not all(self.markers), "separator": not self.separator, "budgets": not self.budgets}
        if empty.get(self.at) or (self.at == "markers" and not self.markers):
            raise ValueError(f"cut at {self.at}: {self.at} is empty")

    @classmethod
    def of(cls, data: Mapping[str, Any] | str) -> Cut:
        """A cut from plain data; a text is its `at`."""
        cut: Cut = coerce({"at": data} if isinstance(data, str) else data, cls, "cut")
        return cut

    @property
    def requires(self) -> set[str]:
        """What it reads of the rollouts."""
        return {"tokens"} if self.at == "budgets" and self.unit == "tokens" else set()


def cuts(text: str, cut: Cut, offsets: Int[np.ndarray[Any, Any], "t 2"] | None = None) -> list[int]:
    """Where the steps of a text end, in characters; the last is the end of what is cut. A text of nothing has none.

    Args:
        text: the completion's.
        cut: how.
        offsets: of its tokens, for budgets in tokens.

    Raises:
        MissingInput: if budgets are in tokens and there are no offsets.

    Source: the sources of `Cut`.

    >>> cuts("One. Two. Wait, no.", Cut(first=0, gap=0))
    [9, 19]
    >>> cuts("a b c</think>d", Cut(at="budgets", unit="words", budgets=(1, 2, 9)))
    [1, 3, 5]
    """
    end = len(text) if cut.until is None else (text + cut.until).index(cut.until)
    if not end:
        return []
    if cut.at == "budgets":
        return _at_budgets(text[:end], cut, offsets)
    if cut.at == "separator":
        return [last for _, last in split([text[:end]], cut.separator).rows()[0]]
    return [*_at_markers(text[:end], cut), end]


def _at_markers(text: str, cut: Cut) -> list[int]:
    longest_first = sorted(cut.markers, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    found: list[int] = []
    last = 0
    for marker in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)" if cut.whole_words else pattern, text):
        at = marker.start()
        if at < (last + cut.gap if found else cut.first):
            continue
        if cut.sentence:
            at = max((end.end() for end in _SENTENCE_END.finditer(text, last, at)), default=last)
        if at > last and sum(map(bool, map(str.strip, text[last:at].splitlines()))) >= cut.lines:
            found.append(at)
            last = at
    return found


def _at_budgets(text: str, cut: Cut, offsets: Int[np.ndarray[Any, Any], "t 2"] | None) -> list[int]:
    if cut.unit == "characters":
        ends: list[int] = list(range(1, len(text) + 1))
    elif cut.unit == "words":
        ends = [word.end() for word in re.finditer(r"\S+", text)]
    elif offsets is None:
        raise MissingInput("budgets in tokens need the tokens' offsets, which this batch does not have")
    else:
        ends = [int(end) for begin, end in offsets if begin >= 0]
    return [
        0 if budget == 0 else min(ends[budget - 1], len(text)) if budget <= len(ends) else len(text)
        for budget in cut.budgets
    ]


def prefixes(
    prompt: Completion, completion: Completion, cut: Cut, stop: str, offsets: Int[np.ndarray[Any, Any], "t 2"] | None
) -> tuple[list[int], list[Completion]]:
    """Where the steps of a completion end in its text, and what the model reads there: all so far, and `stop`."""
    if cut.at == "turns" and not isinstance(completion, str):
        return _turns(prompt, completion, stop)
    text = text_of(completion)
    ends = [len(text)] if cut.at == "turns" else cuts(text, cut, offsets)
    return ends, [extended(prompt, text[:end] + stop) for end in ends]


def _turns(prompt: Completion, messages: Sequence[Mapping[str, Any]], stop: str) -> tuple[list[int], list[Completion]]:
    before: list[Mapping[str, Any]] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    spoken = [i for i, message in enumerate(messages) if message.get("role", "assistant") == "assistant"]
    ends: list[int] = []
    contexts: list[Completion] = []
    for i, following in zip(spoken, [*spoken[1:], len(messages)], strict=True):
        ends.append(len(text_of(messages[: i + 1])))
        seen = [*before, *messages[:following]]
        if following > i + 1:  # what tools answered stands between the turn and the words that stop it
            contexts.append([*seen, {"role": "assistant", "content": stop}])
        else:
            contexts.append([*seen[:-1], {"role": "assistant", "content": text_of(messages[i : i + 1]) + stop}])
    return ends, contexts
