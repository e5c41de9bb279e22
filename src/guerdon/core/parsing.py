r"""Reading a reply: the model's words in a chat, the last box, the last tag.

All of it is linear in the length of the text and raises on no string, however broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]

_BOX = re.compile(r"\\boxed\s*+(?:(\{)|(\w))?")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)


def text_of(completion: Completion) -> str:
    """The words of the model in a completion.

    A string is itself. Of chat messages only those of the assistant count (a message without a role
    is taken for one): what a tool or a user said is not the model's answer. A message that only
    calls a tool has no words.

    Args:
        completion: a string, or chat messages whose content is a string, None, or a list of parts.

    Returns:
        The texts of the assistant's messages, one after the other, joined by newlines.

    Raises:
        TypeError: if it is neither a string nor messages.

    >>> text_of([{"role": "assistant", "content": "6 × 7 = "}, {"role": "tool", "content": "41"},
    ...          {"role": "assistant", "content": [{"type": "text", "text": "42"}]}])
    '6 × 7 = \\n42'
    """
    if isinstance(completion, str):
        return completion
    messages = [message for message in completion if isinstance(message, Mapping)]
    if len(messages) != len(completion):
        raise TypeError(f"a completion is a string or a list of chat messages, got {type(completion).__name__}")
    spoken = (_content(message) for message in messages if message.get("role", "assistant") == "assistant")
    return "\n".join(text for text in spoken if text)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    parts = (part.get("text") for part in content if isinstance(part, Mapping) and part.get("type", "text") == "text")
    return "".join(part for part in parts if isinstance(part, str))


def boxes(text: str) -> Iterator[str]:
    r"""The contents of the `\boxed{…}` in a text, last first.

    Braces are balanced and escaped ones (`\{`) do not count; `\boxed 5` boxes a single character. Left
    out are boxes that are empty, that never close, and that only wrap another box.

    >>> list(boxes(r"\boxed{1} and \boxed{\frac{1}{2}} but not \boxed{3"))
    ['\\frac{1}{2}', '1']
    """
    # A box that is open where a later box begins either wraps it or never closes. Looking no further
    # than the later box keeps this linear.
    start = stop = len(text)
    while (start := text.rfind("\\boxed", 0, start)) >= 0 and (opening := _BOX.match(text, start, stop)):
        brace, single = opening.groups()
        end = _closing(text, opening.start(1), stop) if brace else None
        content = single if end is None else text[opening.end() : end].strip()
        if content != "":
            stop = start
        if content:
            yield content


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` that is closed and not empty, or None.

    >>> last_boxed(r"\boxed{6}, no: \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    return next(boxes(text), None)


def last_tag(text: str, name: str) -> str | None:
    """The content of the last closed `<name>…</name>`, or None.

    >>> last_tag("<answer>3</answer> or rather <answer>4</answer>", "answer")
    '4'
    """
    end = text.rfind(f"</{name}>")
    start = text.rfind(f"<{name}>", 0, max(end, 0))
    return None if end < 0 or start < 0 else text[start + len(name) + 2 : end]


def _closing(text: str, opening: int, stop: int) -> int | None:
    depth = 0
    for token in _BRACE_OR_ESCAPE.finditer(text, opening, stop):
        depth += (token[0] == "{") - (token[0] == "}")
        if depth == 0:
            return token.start()
    return None
