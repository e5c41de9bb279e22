r"""Reading a reply: the model's words in a chat, the last box, tag or code block, JSON.

All of it is linear in the length of the text and raises on no string, however broken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from guerdon.core.errors import nearest

Completion = str | Sequence[Mapping[str, Any]]
Passage = Literal["completion", "reply", "answer_tag", "boxed", "code_block", "last_line"]

DEEPEST = 64  # levels of JSON; what is nested deeper would fell those who walk it

_BOX = re.compile(r"\\boxed\s*+(?:(\{)|(\w))?")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)


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


def last_code_block(text: str) -> str | None:
    """The content of the last closed code block between fences, or None.

    A fence is a line of three or more backticks or tildes; the closing one is of the same kind, at
    least as long, and says nothing else.

    >>> last_code_block("Here:\\n```json\\n{}\\n```\\nDone.")
    '{}'

    Source: CommonMark 0.31, fenced code blocks.
    """
    last = None
    for _, content, closed in _code_blocks(text):
        last = content if closed else last
    return last


def last_fenced(text: str, *languages: str) -> str | None:
    """The content of the last code block in one of some languages, or None.

    A block that is not closed goes on to the end of the text: a reply may have been cut, or stop with its code.
    Blank blocks do not count, nor do those in other languages: what a program prints often stands below it.

    Args:
        text: what to look in.
        languages: the first word after the opening fence, in lower case; '' for a block that names none.

    >>> last_fenced("```python\\nprint(42)\\n```\\nprints\\n```text\\n42\\n```", "", "python")
    'print(42)'

    Source: CommonMark 0.31, fenced code blocks.
    """
    last = None
    for info, content, _ in _code_blocks(text):
        language = info.split(maxsplit=1)[0].lower() if info.strip() else ""
        if language in languages and content.strip():
            last = content
    return last


def passage(text: str, which: Passage = "reply") -> str | None:
    r"""The part of a completion that is to be looked at, or None where there is no such part.

    Args:
        text: the completion.
        which: 'completion' is all of it, thinking included; 'reply' what comes after the last `</think>`, nothing
            while a `<think>` is open; 'answer_tag', 'boxed', 'code_block' the content of the last of these in the
            reply; 'last_line' the reply's last line that is not blank.

    Raises:
        ValueError: if `which` is none of these.

    >>> passage("<think>6 or 7</think>It is\n\\boxed{7}", "reply"), passage("It is \\boxed{7}", "boxed")
    ('It is\n\\boxed{7}', '7')
    >>> passage("It is\n7\n\n", "last_line"), passage("<think>6 or 7")
    ('7', None)
    """
    if which == "completion":
        return text
    reply = text.rpartition("</think>")[2]
    if "<think>" in reply:
        return None
    if which == "answer_tag":
        return last_tag(reply, "answer")
    if which == "boxed":
        return last_boxed(reply)
    if which == "code_block":
        return last_code_block(reply)
    if which == "last_line":
        return reply.rstrip().rpartition("\n")[2].strip() or None
    if which == "reply":
        return reply
    raise ValueError(f"there is no passage {which!r}: {nearest(which, get_args(Passage))}")


def read_json(
    text: str, *, duplicates: Literal["reject", "accept"] = "reject", nan: Literal["reject", "accept"] = "reject"
) -> Any:
    """The value of a JSON text.

    Args:
        text: JSON, with nothing around it but white space.
        duplicates: an object with a key twice means different things to different readers; 'accept' takes the
            last, as Python does.
        nan: `NaN`, `Infinity` and `-Infinity` are not JSON, though Python reads and writes them.

    Raises:
        ValueError: if it is no JSON, or is nested more than 64 levels deep; says where.

    >>> read_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> read_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the key 'a' stands twice in one object

    Source: RFC 8259.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique if duplicates == "reject" else None,
            parse_constant=_no_constant if nan == "reject" else None,
            parse_int=_integer,
        )
        deep = _deeper(value, DEEPEST)
    except RecursionError:
        deep = True
    if deep:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    return value


def shown(value: Any) -> str:
    """A value as a reason shows it: its repr, cut at 80 characters.

    >>> shown("x" * 100)[-3:]
    'xx…'
    """
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _code_blocks(text: str) -> Iterator[tuple[str, str, bool]]:
    """What is said beside the opening fence, the content, and whether the block is closed."""
    if "```" not in text and "~~~" not in text:  # as most replies: no need to look at each line
        return
    opening = None
    for fence in _FENCE.finditer(text):
        marks, info = fence.groups()
        if opening is None:
            opening = None if "`" in info and marks[0] == "`" else fence
        elif marks.startswith(opening[1]) and not info.strip():
            yield opening[2], _fenced(text, opening, max(opening.end() + 1, fence.start() - 1)), True
            opening = None
    if opening is not None:
        yield opening[2], _fenced(text, opening, len(text)), False


def _fenced(text: str, opening: re.Match[str], stop: int) -> str:
    """The lines below a fence, indented by as much less as the fence is."""
    content = text[opening.end() + 1 : stop]
    indent = opening.start(1) - opening.start()
    return re.sub(rf"^ {{1,{indent}}}", "", content, flags=re.MULTILINE) if indent else content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 4300 else float(digits)  # Python refuses to read longer ones


def _deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        containers = [entry.values() if isinstance(entry, dict) else entry for entry in level if _holds(entry)]
        level = [entry for container in containers for entry in container]
    return bool(containers)


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _closing(text: str, opening: int, stop: int) -> int | None:
    depth = 0
    for token in _BRACE_OR_ESCAPE.finditer(text, opening, stop):
        depth += (token[0] == "{") - (token[0] == "}")
        if depth == 0:
            return token.start()
    return None
