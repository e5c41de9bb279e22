"""Scoring a file: the reward a user wrote, what it reads, and what its scores are."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from jaxtyping import Int

from guerdon.algebra import Reward
from guerdon.algebra.expression import Chain
from guerdon.algebra.function import FunctionLeaf
from guerdon.algebra.spec import load
from guerdon.cli import terminal
from guerdon.cli.files import Columns
from guerdon.cli.tally import Tally
from guerdon.core import tables
from guerdon.core.errors import MissingInput, SpecError
from guerdon.core.rollouts import RESERVED, Rollouts
from guerdon.core.scores import Scores
from guerdon.engine import Engine
from guerdon.engine.engine import DEADLINE

Rows = Int[np.ndarray[Any, Any], "m"]

LINE_SECONDS = 30.0  # between two lines, where there is no terminal to draw a bar on


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


def require(reward: Reward, columns: Collection[str], file: Path) -> None:
    """Check that a file with these columns has what the reward reads.

    Raises:
        MissingInput: naming all that is missing, who reads it, and what to do.
    """
    lines = []
    for what, by in readers(reward).items():
        if what not in columns and what not in RESERVED:
            remedy = f"{file} has: {', '.join(columns)}"
            if what == "tokens":
                remedy = "a file has none: count in words or characters, where the part has a unit"
            elif what.startswith("model:"):
                remedy = "a model is there in training only"
            lines.append(f"{what!r} is missing: {' and '.join(by)} read{'s' * (len(by) == 1)} it; {remedy}")
    if lines:
        raise MissingInput("\n".join(lines))


def read_columns(reward: Reward, columns: Collection[str]) -> list[str]:
    """The columns, of those there are, that scoring may look at: all, if a part is given the rollouts."""
    opaque = any(
        "rollouts" in leaf.reads or (leaf.lane == "batch" and not isinstance(leaf, FunctionLeaf))
        for leaf in reward.leaves()
    )
    return [name for name in columns if opaque or name in reward.requires]


def engine(workers: int | None, deadline: float | None, *, cache: bool = False) -> Engine:
    """An engine, with its own defaults where nothing is said."""
    return Engine(workers=workers, deadline=DEADLINE if deadline is None else deadline, cache=cache)


def added(reward: Reward) -> pa.Schema:
    """The columns that a reward's scores are, and their types: the same for any rows."""
    kinds = {"rollout": pa.float64(), "step": pa.list_(pa.float64())}
    return pa.schema(
        [
            pa.field("score", kinds[reward.level]),
            pa.field("valid", pa.bool_()),
            pa.field("reason", pa.string()),
            tables.json_field("details"),
            *(pa.field(f"part.{name}", kinds[part.level]) for name, part in reward.names().items()),
        ]
    )


def columns(scores: Scores, names: Sequence[str]) -> Columns:
    """The columns of these names; a part that is not there, since no row was routed to it, has no scores."""
    found = scores.to_columns()
    found["details"] = [_text_keys(evidence) for evidence in found["details"]]
    return {name: found.get(name, [None] * len(scores)) for name in names}


@dataclass(frozen=True)
class Scored:
    """The scores of some rollouts.

    Args:
        rows: the numbers of the rows, ascending.
        columns: as `columns` gives them.
        seconds: how long scoring took.
        per_row: seconds per row once the workers had started, as far as that can be told.
        stopped: what ended it before the last row.
    """

    rows: Rows
    columns: Columns
    seconds: float
    per_row: float
    stopped: BaseException | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def tally(self) -> Tally:
        """What is to be said of them."""
        tally = Tally()
        tally.add(self.columns)
        return tally


def score(reward: Reward, rollouts: Rollouts, engine: Engine) -> Scored:
    """Score rollouts, with a progress bar on a terminal.

    Whatever stops it, an interruption included, what has been scored until then is kept.
    """
    n = len(rollouts)
    order = np.argsort(rollouts.groups, kind="stable") if reward.scope == "group" else np.arange(n)
    names = added(reward).names
    found: Columns = {name: [] for name in names}
    stopped: BaseException | None = None
    moments = [(0, time.monotonic())]
    try:
        with progress(n) as advance, closing(engine.stream(reward, [rollouts.select(order)], max_batch=n)) as pieces:
            for scores in pieces:
                for name, column in columns(scores, names).items():
                    found[name] += column
                moments.append((moments[-1][0] + len(scores), time.monotonic()))
                advance(len(scores))
    except (Exception, KeyboardInterrupt) as error:
        stopped = error
    known = order[: moments[-1][0]]
    ascending = np.argsort(known, kind="stable")
    return Scored(
        known[ascending],
        {name: [column[i] for i in ascending] for name, column in found.items()},
        moments[-1][1] - moments[0][1],
        _steady(moments),
        stopped,
    )


def _text_keys(value: Any) -> Any:
    """A leaf's evidence as files can hold it: what it uses as a key becomes text."""
    if isinstance(value, Mapping):
        return {str(key): _text_keys(entry) for key, entry in value.items()}
    return [_text_keys(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _steady(moments: Sequence[tuple[int, float]]) -> float:
    """Seconds per row after the first piece, which also pays for starting the workers."""
    (first, began), (done, ended) = moments[min(1, len(moments) - 1)], moments[-1]
    if done == first:
        first, began = moments[0]
    return (ended - began) / max(1, done - first)


@contextmanager
def progress(total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """How far it is, how fast and how long it will take: a bar on a terminal, elsewhere a line now and then.

    Args:
        total: how many rows there are.
        done: how many of them were scored before.

    Yields:
        What to call with how many more are done.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = terminal.console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task("scoring", total=total, completed=done, rate="")
    began = told = time.monotonic()
    scored = 0

    def advance(rows: int) -> None:
        nonlocal scored, told
        scored += rows
        now = time.monotonic()
        rate = scored / max(now - began, 1e-9)
        bar.update(task, advance=rows, rate=f"{rate:,.0f} rows/s")
        if not console.is_terminal and now - told >= LINE_SECONDS:
            told = now
            left = terminal.duration((total - done - scored) / rate)
            console.print(f"{done + scored:,} of {total:,} rows, {rate:,.0f} rows/s, {left} left", soft_wrap=True)

    with bar:
        yield advance
