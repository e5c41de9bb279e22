"""What guerdon prints: results on stdout, progress and errors on stderr, and no text that can garble a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 120  # where there is no terminal to ask


def console(*, stderr: bool = False) -> Console:
    """A console for results, or for progress and errors."""
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDTH
    return made


def complain(message: str) -> None:
    """Print an error."""
    console(stderr=True).print(f"guerdon: {printable(message, newlines=True)}", soft_wrap=True)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table in the style of all others; numbers are set to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def facts(rows: Mapping[str, str]) -> Table:
    """Names and what they are, one a line."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows.items():
        made.add_row(name, Text(value))
    return made


def print_json(value: Any) -> None:
    """Print plain data for another program; ASCII only, and null where JSON has no number."""
    print(json.dumps(_finite(value), indent=2, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def printable(text: str, *, newlines: bool = False) -> str:
    r"""A text with everything escaped that a terminal would act on or cannot show.

    Completions are written by models: they may hold escape sequences, lone surrogates and characters
    that reverse the direction of what follows.

    >>> printable("a\x1b[2Jb\ud800\n")
    'a\\x1b[2Jb\\ud800\\n'
    """
    return "".join(
        c if c.isprintable() or (newlines and c == "\n") else c.encode("unicode_escape").decode() for c in text
    )


def shorten(value: Any, width: int = 300) -> str:
    """One line of at most `width` characters: the beginning and, since answers stand there, more of the end.

    Chat messages are written as `role: content`, and the end of a line as ↵.

    >>> shorten("a long story, and so the answer is 42", 21)
    'a long … answer is 42'
    """
    text = printable(" ↵ ".join(_text(value).splitlines()))
    if len(text) <= width:
        return text
    head = (width - 3) // 3
    return f"{text[:head].rstrip()} … {text[len(text) - (width - 3 - head) :].lstrip()}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and value and all(isinstance(message, Mapping) for message in value):
        return " ".join(f"{message.get('role', 'assistant')}: {_content(message)}" for message in value)
    return repr(value)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else repr({k: v for k, v in message.items() if k != "role" and v})


def number(value: float | None) -> str:
    """A score as people read it.

    >>> number(0.5), number(1 / 3), number(12345.678), number(float("-inf")), number(None)
    ('0.5', '0.3333', '12,345.68', '−∞', '–')
    """
    if value is None:
        return "–"
    if abs(value) == float("inf"):
        return "∞" if value > 0 else "−∞"
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time in the unit it is short in.

    >>> duration(0.0000042), duration(0.0421), duration(7.26), duration(4000)
    ('4.2 µs', '42 ms', '7.3 s', '1 h 6 min')
    """
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 100:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    value = seconds * scale
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def share(count: float, total: float) -> str:
    """A share in per cent; never 0 % of something, nor 100 % of less than all.

    >>> share(1, 30000), share(29999, 30000), share(0, 5)
    ('< 0.01 %', '> 99.99 %', '0 %')
    """
    percent = 100 * count / total if total else 0.0
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"
