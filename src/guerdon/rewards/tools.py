"""The verifier of tool calls: are they the right ones, with the right arguments, in the right order?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, read_json, shown, text_of

__all__ = ["calls"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"

# Thinking that the prompt opened, that the reply opened, and that was cut off; a reply may think between calls.
_THOUGHT = re.compile(r"\A(?:(?!<think>).)*?</think>|<think>.*?(?:</think>|\Z)", re.DOTALL)


class Call(NamedTuple):
    """A call of a tool."""

    name: str
    arguments: Mapping[str, Any]


def _valid(tolerance: float, **options: object) -> tuple[str, ...]:
    if not 0 <= tolerance < 1:
        raise ValueError(f"calls wants a tolerance from 0 up to 1, relative to the number expected; got {tolerance}")
    return ()


@reward(range=(0, 1), requires=_valid)
def calls(
    completion: Completion,
    tool_calls: Any,
    *,
    arguments: Literal["exact", "share", "ignore"] = "exact",
    order: Literal["strict", "any"] = "strict",
    credit: Literal["all", "share"] = "all",
    tolerance: float = 0.0,
) -> tuple[float, dict[str, Any]]:
    r"""1 if the completion makes exactly the calls that are expected, else 0; or how nearly it does.

        'share'    2 · Σ s(made, expected) / (|made| + |expected|)

    with the sum over the matching of calls that makes it largest, where no call is matched twice and, in 'strict'
    order, no two matches cross. A further call that matches nothing lowers it, so that spraying calls does not pay.
    The likeness s of two calls is 0 if their names differ, else by `arguments`

        'exact'    1 if all arguments are equal, else 0
        'share'    (1 + |equal arguments| / |arguments that either has|) / 2
        'ignore'   1

    Calls are read from the messages' `tool_calls` (OpenAI's form, arguments as JSON text or as a mapping), and from
    `<tool_call>{"name": …, "arguments": {…}}</tool_call>` in the text of messages without (Hermes' form); what
    is thought does not count. What cannot be read is no call, yet it was made: it matches nothing.

    Args:
        completion: the reply: text or chat messages.
        tool_calls: the calls expected, in either form: a list, or its JSON text, which is safer in Parquet: there a
            list of mappings gets every key that any of them has. An empty list wants no call.
        arguments: how arguments are compared. They are JSON: 1 equals 1.0, and true is no number.
        order: whether calls have to be made in the order expected.
        credit: 'all' wants everything right, 'share' pays for a part.
        tolerance: how far two numbers may differ, relative to the expected one.

    Returns:
        The score, and as details how many calls were made, matched (Σ s) and not readable.

    Raises:
        Abstain: if the expected calls are missing or not readable.
        ValueError: at once, if the tolerance is none.

    >>> from guerdon.rewards import tools
    >>> expected = [{"name": "weather", "arguments": {"city": "Paris", "days": 2}}]
    >>> reply = '<tool_call>{"name": "weather", "arguments": {"city": "Paris", "days": 2.0}}</tool_call>'
    >>> tools.calls().evaluate(reply, expected)[0]
    1.0
    >>> tools.calls(credit="share").evaluate(reply + "\n" + reply, expected)[0]  # 2 · 1 / (2 + 1)
    0.6666666666666666

    Source: BFCL's comparison of calls (Patil et al. 2025); ToolRL (arXiv 2504.13958) for names and arguments apart.
    """
    expected = _expected(tool_calls)
    made = _made(completion)
    likeness = np.array([[_likeness(a, b, arguments, tolerance) for b in expected] for a in made])
    likeness = likeness.reshape(len(made), len(expected))
    matched = _aligned(likeness) if order == "strict" else _assigned(likeness)
    total = len(made) + len(expected)
    share = 2 * matched / total if total else 1.0
    details = {"made": len(made), "matched": matched, "unreadable": made.count(None)}
    return (share if credit == "share" else float(len(made) == len(expected) == matched)), details


def _likeness(made: Call | None, expected: Call, arguments: str, tolerance: float) -> float:
    if made is None or made.name != expected.name:
        return 0.0
    if arguments == "ignore":
        return 1.0
    either = made.arguments.keys() | expected.arguments.keys()
    equal = sum(
        _equal(made.arguments[key], expected.arguments[key], tolerance)
        for key in made.arguments.keys() & expected.arguments.keys()
    )
    if arguments == "exact":
        return float(equal == len(either))
    return (1 + (equal / len(either) if either else 1)) / 2


def _equal(made: Any, expected: Any, tolerance: float) -> bool:
    """Whether two JSON values are equal; numbers to a relative tolerance."""
    if isinstance(made, bool) or isinstance(expected, bool):
        return made is expected
    if isinstance(made, (int, float)) and isinstance(expected, (int, float)):
        return made == expected or (tolerance > 0 and _near(made, expected, tolerance))
    if isinstance(made, Mapping) and isinstance(expected, Mapping):
        return made.keys() == expected.keys() and all(_equal(made[key], expected[key], tolerance) for key in made)
    if isinstance(made, list) and isinstance(expected, list):
        return len(made) == len(expected) and all(map(_equal, made, expected, [tolerance] * len(made)))
    return type(made) is type(expected) and bool(made == expected)


def _near(made: float, expected: float, tolerance: float) -> bool:
    try:
        return abs(made - expected) <= tolerance * abs(expected)
    except OverflowError:  # a whole number that no float can hold
        return False


def _aligned(likeness: Any) -> float:
    """The largest sum over a matching without crossings."""
    best = np.zeros(likeness.shape[1] + 1)
    for row in likeness:
        taken = best[:-1] + row
        best[1:] = np.maximum.accumulate(np.maximum(best[1:], taken))
    return float(best[-1])


def _assigned(likeness: Any) -> float:
    """The largest sum over any matching: the Hungarian algorithm, by shortest augmenting paths."""
    cost = -(likeness if likeness.shape[0] <= likeness.shape[1] else likeness.T)
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)  # of each column; the last column is where a new row starts
    for row in range(rows):
        owner[columns] = row
        column = columns
        slack, came_from = np.full(columns + 1, np.inf), np.full(columns + 1, -1)
        seen = np.zeros(columns + 1, bool)
        while owner[column] >= 0:
            seen[column] = True
            current = owner[column]
            reduced = cost[current] - row_price[current] - column_price[:-1]
            nearer = ~seen[:-1] & (reduced < slack[:-1])
            slack[:-1][nearer], came_from[:-1][nearer] = reduced[nearer], column
            following = int(np.argmin(np.where(seen[:-1], np.inf, slack[:-1])))
            step = slack[following]
            row_price[owner[seen]] += step
            column_price[seen] -= step
            slack[~seen] -= step
            column = following
        while column != columns:
            owner[column] = owner[came_from[column]]
            column = came_from[column]
    return float(-sum(cost[owner[column], column] for column in range(columns) if owner[column] >= 0))


def _made(completion: Completion) -> list[Call | None]:
    """The calls that a completion makes, None for one that cannot be read."""
    if isinstance(completion, str):
        return _written(completion)
    text_of(completion)  # raises if this is no completion
    made: list[Call | None] = []
    for message in completion:
        if message.get("role", "assistant") != "assistant":
            continue
        called = message.get("tool_calls")
        if isinstance(called, Sequence) and not isinstance(called, str) and len(called):
            made += [_call(call) for call in called]
        else:
            made += _written(text_of([message]))
    return made


def _written(text: str) -> list[Call | None]:
    """The calls in a text, between `<tool_call>` tags."""
    made: list[Call | None] = []
    _, *pieces = _THOUGHT.sub("", text).split(OPEN)
    for piece in pieces:
        content, closed, _ = piece.partition(CLOSE)
        made.append(_call(content) if closed else None)
    return made


def _call(written: Any) -> Call | None:
    """A call in OpenAI's or Hermes' form; None if it is neither."""
    call = _read(written)
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str) or not call["name"]:
        return None
    arguments = call.get("arguments")
    arguments = {} if arguments is None or arguments == "" else _read(arguments)
    return Call(call["name"], arguments) if isinstance(arguments, Mapping) else None


def _read(value: Any) -> Any:
    """The value of JSON text; what is no text stays what it is."""
    if not isinstance(value, str):
        return value
    try:
        return read_json(value)
    except ValueError:
        return None


def _expected(tool_calls: Any) -> list[Call]:
    listed = _read(tool_calls.tolist() if isinstance(tool_calls, np.ndarray) else tool_calls)
    if not isinstance(listed, (list, tuple)):
        raise Abstain(f"reference not a list of calls: {shown(tool_calls)}")
    expected = [_call(call) for call in listed]
    for call, written in zip(expected, listed, strict=True):
        if call is None:
            raise Abstain(f"reference holds what is no call: {shown(written)}")
    return [call for call in expected if call is not None]
