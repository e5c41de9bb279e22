"""What a person sees of a run while it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

SHOWN = {
    "reward": "reward {:.3f}",
    "accuracy": "accuracy {:.3f}",
    "length": "length {:.1f}",
    "kl": "kl {:.4f}",
    "entropy": "entropy {:.3f}",
    "no_signal": "no signal {:.0%}",
    "abstained": "abstained {:.1%}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "vendi": "vendi {:.2f}",
    "steps_per_second": "{:,.0f} steps/s",
    "codes_loss": "loss of codes {:.3f}",
    "plan_loss": "loss of plans {:.3f}",
    "windows_per_second": "{:,.0f} windows/s",
}

OTHERS = {
    "mean_length": 1,
    "vendi": 2,
    "nearest": 3,
    "recognized": 3,
    "follows": 2,
}  # decimals of what stands beside the outcome, where it is measured


def line(record: Mapping[str, Any]) -> str:
    """One step's metrics as text.

    >>> line({"reward": 0.25, "length": 11.24, "no_signal": 0.5, "kl": None})
    'reward 0.250 · length 11.2 · no signal 50%'
    """
    return " · ".join(text.format(record[key]) for key, text in SHOWN.items() if record.get(key) is not None)


class Ticker:
    """A progress line on a terminal; elsewhere a line of text every few seconds."""

    def __init__(self, console: Console, what: str, total: int, done: int) -> None:
        self.console, self.what, self.total, self.done = console, what, total, done
        self.last = time.monotonic()
        self.bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=console)
            self.task = self.bar.add_task(what, total=total, completed=done, text="")
            self.bar.start()

    def step(self, text: str = "", *, by: int = 1) -> None:
        """So many more are done."""
        self.done += by
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, text=text)
        elif self.done == self.total or time.monotonic() - self.last > 10:
            self.last = time.monotonic()
            self.console.print(f"{self.what} {self.done}/{self.total}  {text}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the line as it stands."""
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def ticker(console: Console | None, what: str, total: int, done: int = 0) -> Iterator[Ticker | None]:
    """A ticker that is closed whatever happens; None without a console (other processes than the main one)."""
    if console is None or total <= done:
        yield None
        return
    shown = Ticker(console, what, total, done)
    try:
        yield shown
    finally:
        shown.close()


def outcome(summary: Mapping[str, Any]) -> Table:
    """Before and after, as a table."""
    before = summary["before"]
    measure = "accuracy" if "accuracy" in before else "reward"
    others = {name: f"{{:.{digits}f}}" for name, digits in OTHERS.items() if before.get(name) is not None}
    table = Table(title=str(summary["name"]), title_justify="left", caption_justify="left", min_width=72)
    for heading in ("", measure, "95 % interval", *(name.replace("_", " ") for name in others)):
        table.add_column(heading, justify="left" if not heading else "right")
    for when in ("before", "after"):
        measured = summary[when]
        low, high = measured["ci95"] or (math.nan, math.nan)
        value = "–" if measured[measure] is None else f"{measured[measure]:.3f}"
        rest = (text.format(measured[name]) for name, text in others.items())
        table.add_row(when, value, f"{low:.3f} … {high:.3f}", *rest)
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    abstained, memory = summary["abstained"], summary["peak_rss_mib"]
    table.caption = f"{minutes} min {seconds:02d} s · peak memory {memory:,.0f} MiB · abstained {abstained:.2%}"
    return table
