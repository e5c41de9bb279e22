"""Scoring a file: the reward a user wrote, what it reads, and its scores batch by batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jaxtyping import Float, Int

from guerdon.algebra import Reward
from guerdon.algebra.reward import Chain
from guerdon.algebra.spec import load
from guerdon.cli import terminal
from guerdon.core.errors import MissingInput, SpecError, TooManyAbstentions
from guerdon.core.protocols import Scope
from guerdon.core.rollouts import Rollouts
from guerdon.engine import Engine

if TYPE_CHECKING:
    from rich.progress import Progress

Rows = Int[np.ndarray[Any, Any], "m"]

FIRST_BATCH = 8
LARGEST_BATCH = 8192
BATCH_SECONDS = 1.0


def read_reward(spec: str, *, allow_import: bool = False) -> Reward:
    """The reward of a YAML file, or of YAML written on the command line; a part's name is the shortest.

    Of a recipe, the expression under `reward` is taken.

    Raises:
        SpecError: if there is no such file, it is not YAML, or it does not describe a reward.
    """
    file = spec.endswith((".yaml", ".yml"))
    try:
        text = Path(spec).read_text(encoding="utf-8") if file else spec
        data = yaml.safe_load(text)
        if isinstance(data, dict) and "reward" in data:
            data = data["reward"]
        return load(data, allow_import=allow_import)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--reward: {spec} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise SpecError(f"--reward: {spec} is not YAML: {at}{getattr(error, 'problem', None) or error}") from None
    except SpecError as error:
        raise SpecError(f"{spec}: {error}" if file else str(error)) from None


def readers(reward: Reward) -> dict[str, list[str]]:
    """What the reward reads, and the names of the parts that read it, in the order they are written."""
    found: dict[str, dict[str, None]] = {}
    for node in reward.nodes():
        if isinstance(node, Chain):
            name, own = node.shaper.name, node.shaper.requires
        else:
            name = type(node).__qualname__.lower() if node.children else node.name
            own = node.requires.difference(*(child.requires for child in node.children))
        for column in sorted(own):
            found.setdefault(column, {})[name] = None
    return {column: list(names) for column, names in found.items()}


def require(reward: Reward, rollouts: Rollouts, file: Path) -> None:
    """Check that a file has what the reward reads.

    Raises:
        MissingInput: naming all that is missing, who reads it, and what to do.
    """
    lines = []
    for what, by in readers(reward).items():
        if not rollouts.has(what):
            remedy = f"{file} has: prompt, completion, {', '.join(rollouts.columns)}"
            if what == "tokens":
                remedy = "a file has none: count in words or characters, where the part has a unit"
            elif what.startswith("model:"):
                remedy = "a model is there in training only"
            lines.append(f"{what!r} is missing: {' and '.join(by)} read{'s' * (len(by) == 1)} it; {remedy}")
    if lines:
        raise MissingInput("\n".join(lines))


def engine(workers: int | None, deadline: float | None) -> Engine:
    """An engine, with its own defaults where nothing is said."""
    return Engine(workers=workers) if deadline is None else Engine(workers=workers, deadline=deadline)


@dataclass(frozen=True)
class Scored:
    """The scores of some rows of a file.

    Args:
        rows: the numbers of the rows, ascending.
        columns: what `Scores.to_columns` says of them.
        seconds: how long scoring took.
        per_row: seconds per row once the workers had started, as far as that can be told.
        stopped: what ended it before the last row.
    """

    rows: Rows
    columns: dict[str, list[Any]]
    seconds: float
    per_row: float
    stopped: BaseException | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def abstained(self) -> int:
        """How many rows have no score."""
        return self.columns["valid"].count(False) if self.columns else 0

    def reasons(self) -> list[tuple[str, int]]:
        """Why rows have no score, and how often, most frequent first."""
        outcomes = zip(self.columns["valid"], self.columns["reason"], strict=True) if self.columns else ()
        counts = Counter(reason or "not asked for" for valid, reason in outcomes if not valid)
        return counts.most_common()

    def parts(self) -> dict[str, list[Any]]:
        """The columns of the parts, by the parts' names."""
        return {name.removeprefix("part."): column for name, column in self.columns.items() if name.startswith("part.")}


def numbers(column: Sequence[Any]) -> Float[np.ndarray[Any, Any], "m"]:
    """The scores of a column that are there; those of all steps where there is one score per step."""
    entries = (x for entry in column for x in (entry if isinstance(entry, list) else [entry]))
    return np.array([x for x in entries if x is not None], np.float64)


def score(reward: Reward, rollouts: Rollouts, engine: Engine, *, max_abstain: float = 1.0) -> Scored:
    """Score rollouts batch by batch, with a progress bar on a terminal.

    Groups are never split, and a reward that compares the whole batch gets it in one piece. Whatever
    stops it, an interruption included, what has been scored until then is kept.

    Args:
        max_abstain: the share of all rows that may abstain. Once more of them have, it stops.
    """
    rows: list[Rows] = []
    columns: dict[str, list[Any]] = {}
    done, abstained, stopped = 0, 0, None
    started = time.monotonic()
    moments = [(0, started)]
    with _progress() as progress:
        bar = progress.add_task("scoring", total=len(rollouts))
        try:
            for batch in batches(rollouts, reward.scope, least=_in_flight(reward, engine)):
                scores = reward.score(rollouts.select(batch), engine=engine).to_columns()
                scores["details"] = [_text_keys(evidence) for evidence in scores["details"]]
                for name in dict.fromkeys((*columns, *scores)):
                    columns.setdefault(name, [None] * done).extend(scores.get(name, [None] * len(batch)))
                rows.append(batch)
                done += len(batch)
                abstained += scores["valid"].count(False)
                moments.append((done, time.monotonic()))
                progress.advance(bar, len(batch))
                if abstained > max_abstain * len(rollouts):
                    raise TooManyAbstentions(
                        f"{abstained:,} of {done:,} rows scored so far abstained, and at most "
                        f"{terminal.share(max_abstain, 1)} of {len(rollouts):,} may (--max-abstain)"
                    )
        except (Exception, KeyboardInterrupt) as error:
            stopped = error
    known = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    order = np.argsort(known, kind="stable")
    return Scored(
        known[order],
        {name: [column[i] for i in order] for name, column in columns.items()},
        moments[-1][1] - started,
        _steady(moments),
        stopped,
    )


def batches(rollouts: Rollouts, scope: Scope, *, least: int = FIRST_BATCH) -> Iterator[Rows]:
    """The numbers of the rows to score together, each row once; as many as take about a second.

    Args:
        least: how many rows to take at least, after the first batch.
    """
    n, start, size = len(rollouts), 0, FIRST_BATCH
    if scope == "batch":
        yield np.arange(n)
        return
    order = np.argsort(rollouts.groups, kind="stable") if scope == "group" else np.arange(n)
    new = np.diff(rollouts.groups[order]) != 0 if scope == "group" else np.ones(max(0, n - 1), bool)
    ends = np.append(np.flatnonzero(new) + 1, n)
    while start < n:
        end = int(ends[np.searchsorted(ends, min(n, start + size))])
        began = time.monotonic()
        yield order[start:end]
        pace = (end - start) / max(time.monotonic() - began, 1e-6)
        size = max(least, min(int(pace * BATCH_SECONDS), 4 * size, LARGEST_BATCH))
        start = end


def _text_keys(value: Any) -> Any:
    """A leaf's evidence as files can hold it: what it uses as a key becomes text."""
    if isinstance(value, Mapping):
        return {str(key): _text_keys(entry) for key, entry in value.items()}
    return [_text_keys(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _in_flight(reward: Reward, engine: Engine) -> int:
    """So many rows that what is worked on at a time is busy, though a batch waits for its last row."""
    waits = any(leaf.lane == "async" for leaf in reward.leaves())
    return max(FIRST_BATCH, 4 * (engine.concurrency if waits else engine.workers))


def _steady(moments: Sequence[tuple[int, float]]) -> float:
    """Seconds per row after the first batch, which also pays for starting the workers."""
    (first, began), (done, ended) = moments[min(1, len(moments) - 1)], moments[-1]
    if done == first:
        first, began = moments[0]
    return (ended - began) / max(1, done - first)


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")

    console = terminal.console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
