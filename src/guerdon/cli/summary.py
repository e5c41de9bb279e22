"""Tables that `score` and `check` both show: the parts of a reward, and why rows abstained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guerdon.cli import terminal

if TYPE_CHECKING:
    from rich.console import Console

REASONS = 10


def show_parts(parts: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """The spread of each part, if there are several.

    Args:
        parts: `findings.spread` of each part, by its name.
    """
    if len(parts) < 2:
        return
    numbers = ("mean", "lowest", "median", "highest", "scored")
    table = terminal.table("part", *numbers, right=numbers)
    for name, spread in parts.items():
        low, _, median, _, high = spread["quantiles"] or [None] * 5
        cells = map(terminal.number, (spread["mean"], low, median, high))
        table.add_row(terminal.printable(name), *cells, f"{spread['scored']:,}")
    console.print()
    console.print(table)


def show_reasons(reasons: Sequence[Mapping[str, Any]], rows: int, console: Console) -> None:
    """Why rows abstained, the most frequent reasons first.

    Args:
        reasons: each with 'reason' and 'rows'.
        rows: of how many rows.
    """
    if not reasons:
        return
    table = terminal.table("abstained", "share", "because", right=("abstained", "share"))
    for entry in reasons[:REASONS]:
        table.add_row(f"{entry['rows']:,}", terminal.share(entry["rows"], rows), terminal.shorten(entry["reason"], 200))
    if len(reasons) > REASONS:
        rest = sum(entry["rows"] for entry in reasons[REASONS:])
        table.add_row(f"{rest:,}", terminal.share(rest, rows), f"{len(reasons) - REASONS:,} other reasons")
    console.print()
    console.print(table)
