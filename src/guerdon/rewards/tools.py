"""The verifier of tool calls: are they the right ones, with the right arguments, in the right order?

And what can be said of calls without knowing the right ones: how many there are, whether each turn is well formed,
whether the last one went well.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, read_json, shown, text_of

__all__ = ["calls", "count", "layout", "parameters", "settled"]

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
    `<tool_call>{"name": …, "arguments": {…}}</tool_call>` in the text of messages without (Hermes' form; a tag may hold
    several, one a line); what is thought does not count. What cannot be read is no call, yet it was made: it matches
    nothing.

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


@reward(range=(-1, 1))
def parameters(
    completion: Completion,
    tool_calls: Any,
    *,
    none: Literal["neutral", "refuse"] = "neutral",
    surplus: Literal["charged", "names"] = "charged",
    tolerance: float = 0.0,
) -> tuple[float, dict[str, Any]]:
    r"""How right the calls are, by their names, the names of their parameters and each value: from −1 to 1.

        2 S/S_max − 1        S = J(names) + Σ_g max (J(keys) + |equal values|)        S_max = 1 + Σ_g (1 + |keys of g|)

    with J the Jaccard index of multisets, Σ min / Σ max, and each expected call g matched with at most one that was
    made, of the same name, such that S is largest. S_max is that of the calls made, if they are more.

    Of the reward `calls`, it is the finest grain: every key and every value has its share. Scaled and scheduled
    with `>> shaping.anneal(start=2, end=3, until=…)`, the floor moves with the top.

    Args:
        completion: the reply: text or chat messages; see `calls`.
        tool_calls: the calls expected; see `calls`.
        none: where no call is expected, any reply earns 0 (the source's 'neutral': whether it calls is left to the
            format), or a call is 'refuse'd with −1 and none earns 1.
        surplus: whether calls and parameters beyond those expected are 'charged' in S_max, or lower J alone. By the
            latter, the source's, making every call there is earns more than one wrong value costs.
        tolerance: see `calls`.

    Returns:
        The score, and as details S, S_max, how many calls were made and not readable. A reply with a call that cannot
        be read, or without any where one is expected, earns −1.

    Raises:
        Abstain: if the expected calls are missing or not readable.

    >>> from guerdon.rewards import tools
    >>> right = [{"name": "f", "arguments": {"a": 1, "b": 2}}]
    >>> made = '<tool_call>{"name": "f", "arguments": {"a": 1, "b": 3}}</tool_call>'
    >>> tools.parameters().evaluate(made, right)[0]  # S = 1 + 1 + 1 of 4
    0.5

    Source: the correctness reward of ToolRL (qiancheng0/ToolRL; arXiv 2504.13958), there times 3; it matches greedily.
    """
    expected, made = _expected(tool_calls), _made(completion)
    readable = [call for call in made if call is not None]
    details = {"made": len(made), "unreadable": len(made) - len(readable), "matched": 0.0, "most": 0.0}
    if not expected:
        score = 0.0 if none == "neutral" else -1.0 if made else 1.0
        return (-1.0 if details["unreadable"] else score), details
    most = _most(expected) if surplus == "names" else max(_most(expected), _most(readable))
    details["most"] = most
    if not readable or len(readable) < len(made):
        return -1.0, details
    shared = [[_shared(a, b, tolerance) for b in expected] for a in readable]
    named = _jaccard((call.name for call in readable), (call.name for call in expected))
    details["matched"] = named + _assigned(np.array(shared))
    return 2 * details["matched"] / most - 1, details


def _most(calls: Sequence[Call]) -> float:
    return 1.0 + sum(1 + len(call.arguments) for call in calls)


def _shared(made: Call, expected: Call, tolerance: float) -> float:
    if made.name != expected.name:
        return 0.0
    both = made.arguments.keys() & expected.arguments.keys()
    equal = sum(_equal(made.arguments[key], expected.arguments[key], tolerance) for key in both)
    return _jaccard(made.arguments.keys(), expected.arguments.keys()) + equal


def _jaccard(first: Iterable[str], second: Iterable[str]) -> float:
    one, other = Counter(first), Counter(second)
    either = (one | other).total()
    return (one & other).total() / either if either else 1.0


@reward(range=(0, math.inf))
def count(completion: Completion, *, names: tuple[str, ...] = ()) -> tuple[float, dict[str, Any]]:
    """How many calls the completion makes: a raw number, to be shaped.

    `tools.count() >> shaping.clip(high=1)` says whether there is any. A call that cannot be read counts only where
    any name does.

    Args:
        completion: the reply: text or chat messages; see `calls`.
        names: the tools whose calls count; none for all.

    Returns:
        The number, and as a detail how often each tool is called.

    >>> from guerdon.rewards import tools
    >>> reply = '<tool_call>{"name": "zoom"}</tool_call><tool_call>{"name": "search"}</tool_call>'
    >>> tools.count().evaluate(reply)[0], tools.count(names=("zoom",)).evaluate(reply)[0]
    (2.0, 1.0)

    Source: the number of visual operations in Pixel Reasoner (arXiv 2505.15966).
    """
    made = _made(completion)
    called = Counter(call.name for call in made if call is not None)
    total = sum(called[name] for name in set(names)) if names else len(made)
    return float(total), {"called": dict(called)}


@reward(range=(0, 1))
def layout(completion: Completion, *, most: int | None = None) -> tuple[float, dict[str, Any]]:
    """1 if every turn of the assistant is well formed, else 0: calls first, an answer at the end.

    Each turn thinks once, in `<think>…</think>`. Then every turn but the last makes one call, in tags or in the
    message's `tool_calls`, and answers nothing; the last one answers once, in `<answer>…</answer>`, and calls nothing.
    A reply in one turn that answers directly is well formed. One that calls and answers in the same turn is not: it
    would be paid for whichever was right.

    Args:
        completion: the reply: text or chat messages.
        most: so many calls at most; None for any number.

    Returns:
        The score, and as a detail what is wrong first: None if nothing.

    >>> from guerdon.rewards import tools
    >>> tools.layout().evaluate("<think>A cat.</think><answer>cat</answer>")
    (1.0, {'problem': None})

    Source: the format reward of VisionThink (dvlab-research/VisionThink).
    """
    problem = _misformed(completion, most)
    return float(problem is None), {"problem": problem}


def _misformed(completion: Completion, most: int | None) -> str | None:
    text_of(completion)  # raises if this is no completion
    messages = [{"content": completion}] if isinstance(completion, str) else completion
    turns = [message for message in messages if message.get("role", "assistant") == "assistant"]
    if not turns:
        return "no turn of the assistant"
    if most is not None and len(turns) - 1 > most:
        return f"{len(turns) - 1} calls, {most} at most"
    for place, message in enumerate(turns, 1):
        text = text_of([message])
        thoughts, answers, written = (_pairs(text, name) for name in ("think", "answer", "tool_call"))
        structured = message.get("tool_calls")
        listed = len(structured) if isinstance(structured, Sequence) and not isinstance(structured, str) else 0
        if thoughts != 1:
            return f"turn {place}: does not think once"
        if written is None or answers is None:
            return f"turn {place}: tags are not closed"
        last = place == len(turns)
        if written + listed != (0 if last else 1):
            return f"turn {place}: {written + listed} calls"
        if answers != (1 if last else 0):
            return f"turn {place}: {answers} answers"
    return None


def _pairs(text: str, name: str) -> int | None:
    """How many times a tag is opened and closed with something in it; None if these do not alternate."""
    marks = list(re.finditer(f"</?{name}>", text))
    opened, closed = marks[::2], marks[1::2]
    if len(opened) != len(closed) or any(mark[0] != f"<{name}>" for mark in opened):
        return None
    if any(mark[0] != f"</{name}>" for mark in closed):
        return None
    filled = all(text[a.end() : b.start()].strip() for a, b in zip(opened, closed, strict=True))
    return len(opened) if filled else None


def _errors(error: str, **options: object) -> tuple[str, ...]:
    try:
        re.compile(error)
    except re.error as problem:
        raise ValueError(f"settled: the pattern {error!r} is no regular expression: {problem}") from None
    return ()


@reward(range=(0, 1), requires=_errors)
def settled(completion: Completion, *, error: str = r"(?i)\A\s*(?:error|execution failed|traceback)") -> float:
    """1 unless the last result of a tool is an error: what follows one that was never repaired rests on nothing.

    As a condition, `gate(tools.settled(), then=correct)`, it takes the reward from answers that were guessed after a
    call had failed. Each rollout is judged by its own results.

    Args:
        completion: chat messages, of which those of role 'tool' are results; a text has none, and is settled.
        error: a regular expression that is searched in the last result.

    Raises:
        ValueError: at once, if the pattern does not compile.

    >>> from guerdon.rewards import tools
    >>> failed = [{"role": "tool", "content": "Error: no such frame"}, {"role": "assistant", "content": "A cat."}]
    >>> tools.settled().evaluate(failed), tools.settled().evaluate("A cat.")
    (0.0, 1.0)

    Source: the unrepaired calls of Pixel Reasoner (TIGER-AI-Lab/Pixel-Reasoner; arXiv 2505.15966).
    """
    text_of(completion)  # raises if this is no completion
    if isinstance(completion, str):
        return 1.0
    results = [message for message in completion if message.get("role") == "tool"]
    said = text_of([{**results[-1], "role": "assistant"}]) if results else ""
    return float(re.search(error, said) is None)


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
        made += [_call(line) for line in _lines(content)] if closed else [None]
    return made


def _lines(content: str) -> list[str]:
    """What stands in one tag: a call, or several of one line each; broken lines behind a good one are calls as well."""
    lines = [line for line in content.splitlines() if line.strip()]
    several = len(lines) > 1 and _read(content) is None and _read(lines[0]) is not None
    return lines if several else [content]


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
