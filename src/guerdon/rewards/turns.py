"""An agent's turns, one score each: is it well formed, does it act, did the action go through?

A turn is what the assistant says at a time; a completion that is text is one turn. Its actions are the message's
`tool_calls` (OpenAI's form), or else those of the first JSON object in its text: {"actions": [{"name": …, "arguments":
{…}}]}, or {"name": …, "arguments": …} itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, read_json, shown, text_of
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.rewards import math as maths

__all__ = ["acts", "answer", "data", "succeeds", "turns_of"]


class Turn(NamedTuple):
    """One message of the assistant.

    Args:
        text: what it says.
        end: where it ends in the text of the whole completion, in characters.
        before: the completion's messages before it.
        message: itself.
        after: what tools and others said before the assistant's next turn.
    """

    text: str
    end: int
    before: Sequence[Mapping[str, Any]]
    message: Mapping[str, Any]
    after: Sequence[Mapping[str, Any]]


def turns_of(completion: Completion) -> list[Turn]:
    """The turns of a completion.

    Source: turns as PPR (arXiv 2509.25598) and OpenThinkIMG (2505.08617) score them.

    >>> chat = [{"role": "assistant", "content": "look"}, {"role": "tool", "content": "a cat"}]
    >>> [(turn.text, len(turn.after)) for turn in turns_of([*chat, {"role": "assistant", "content": "cat"}])]
    [('look', 1), ('cat', 0)]
    """
    if isinstance(completion, str):
        return [Turn(completion, len(completion), (), {"role": "assistant", "content": completion}, ())]
    text_of(completion)  # raises if this is no completion
    places = [i for i, message in enumerate(completion) if message.get("role", "assistant") == "assistant"]
    return [
        Turn(
            text_of(completion[i : i + 1]),
            len(text_of(completion[: i + 1])),
            completion[:i],
            completion[i],
            completion[i + 1 : following],
        )
        for i, following in pairwise([*places, len(completion)])
    ]


@reward(lane="batch", level="step", range=(0, 1))
def data(completion: Sequence[Completion], *, keys: tuple[str, ...] = ("thought", "thoughts", "actions")) -> Scores:
    """1 for each turn whose first JSON object has one of these keys, else 0.

    `reduce(turns.data(), "mean")` is the share of the rounds that are well formed.

    Args:
        completion: the agent's turns.
        keys: at least one of them must be there; none: any object will do.

    Source: the format reward of OpenThinkIMG (arXiv 2505.08617; zhaochen0110/OpenThinkIMG).
    """

    def formed(turn: Turn) -> bool:
        found = _object(turn.text)
        return found is not None and (not keys or any(key in found for key in keys))

    return _scored(completion, formed)


@reward(lane="batch", level="step", range=(0, 1))
def acts(completion: Sequence[Completion], *, tools: tuple[str, ...] = (), most: int = 1) -> Scores:
    """1 for each turn that calls tools, all of them readable and among these, else 0.

    `reduce(turns.acts(tools=("submit",)), "max")` says whether a rollout ever submitted.

    Args:
        completion: the agent's turns.
        tools: names of tools; none: any will do.
        most: how many calls a turn may make: a scaffold that runs one action at a time ignores the others.

    Source: the checks of action format and tool choice of G-RA (arXiv 2508.10548).
    """

    def right(turn: Turn) -> bool:
        made = _actions(turn)
        return 0 < len(made) <= most and all(a is not None and (not tools or a[0] in tools) for a in made)

    return _scored(completion, right)


@reward(lane="batch", level="step", range=(0, 1))
def succeeds(
    completion: Sequence[Completion], *, tools: tuple[str, ...] = (), failed: str = r"(?i)\A\s*(?:error|traceback)\b"
) -> Scores:
    """1 for each turn that calls one of these tools and is answered by no failure, else 0.

    Args:
        completion: the agent's turns.
        tools: names of tools, such as those that edit files; none: any will do.
        failed: a regular expression that finds something in what the tool says of an action that failed. An action
            without an answer did not go through either.

    Source: the check of file edits of G-RA (arXiv 2508.10548).
    """
    failure = re.compile(failed)

    def went(turn: Turn) -> bool:
        called = any(action is not None and (not tools or action[0] in tools) for action in _actions(turn))
        said = [text_of([{**message, "role": "assistant"}]) for message in turn.after if message.get("role") == "tool"]
        return called and bool(said) and not any(failure.search(text) for text in said)

    return _scored(completion, went)


@reward(range=(0, 1))
def answer(
    completion: Completion, answer: Any, *, tool: str = "Terminate", argument: str = "ans"
) -> tuple[float, dict[str, Any]]:
    """1 if the answer that an agent ends with is the reference, as it is written or as a value, else 0.

    Args:
        completion: the agent's turns. The last one's call of `tool` holds the answer; without such a call, its
            text is read as `math.answer` reads it.
        answer: the reference: a text or a number.
        tool: the name of the action that ends an episode.
        argument: the argument of it that is the answer.

    Returns:
        The score, and the answer as a detail.

    Raises:
        Abstain: if the reference is no text and no number.

    >>> from guerdon.rewards import turns
    >>> turns.answer().evaluate('{"actions": [{"name": "Terminate", "arguments": {"ans": "12.0"}}]}', "12")[0]
    1.0

    Source: the accuracy of OpenThinkIMG (arXiv 2505.08617; zhaochen0110/OpenThinkIMG), which gives an exception 0.
    """
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise Abstain(f"reference is neither text nor number: {shown(answer)}")
    expected, turns = str(answer).strip(), turns_of(completion)
    ending = [a for a in (_actions(turns[-1]) if turns else []) if a is not None and a[0] == tool and argument in a[1]]
    said = str(ending[-1][1][argument]).strip() if ending else turns[-1].text if turns else ""
    if said == expected:
        return 1.0, {"extracted": said}
    try:
        score, details = maths.answer.function(said, answer)
    except Abstain:  # the reference is words: it is equal as it is written, or not at all
        return 0.0, {"extracted": said}
    return float(score), {"extracted": details["extracted"]}


def _scored(completions: Sequence[Completion], holds: Callable[[Turn], bool]) -> Scores:
    """1 where something holds of a turn, with the turns as spans of characters."""
    rows = [turns_of(completion) for completion in completions]
    ends = [[0, *(turn.end for turn in row)] for row in rows]
    spans = Spans.of([list(pairwise(row)) for row in ends], unit="character")
    values = np.zeros(spans.mask.shape)
    for i, row in enumerate(rows):
        values[i, : len(row)] = [holds(turn) for turn in row]
    return Scores(values, spans=spans)


def _actions(turn: Turn) -> list[tuple[str, Mapping[str, Any]] | None]:
    """Name and arguments of each action of a turn; None for one that cannot be read."""
    called: Any = turn.message.get("tool_calls")
    if not called:
        written = _object(turn.text) or {}
        called = written.get("actions", [written] if "name" in written else [])
    return (
        [_action(call) for call in called] if isinstance(called, Sequence) and not isinstance(called, str) else [None]
    )


def _action(call: Any) -> tuple[str, Mapping[str, Any]] | None:
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments)
        except ValueError:
            return None
    return (call["name"], arguments) if isinstance(arguments, Mapping) else None


def _object(text: str) -> Mapping[str, Any] | None:
    """The first JSON object in a text; None if what its first brace opens is none."""
    begin = text.find("{")
    if begin < 0:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin)
        found = read_json(text[begin:end])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, Mapping) else None
