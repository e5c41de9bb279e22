"""Scoring rows as they come, measured ahead of whoever reads the scores."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError
from guerdon.core.protocols import Reward
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores

if TYPE_CHECKING:
    from guerdon.engine.engine import Engine
    from guerdon.engine.measurement import Measurement

MAX_BATCH = 100_000
AHEAD = 2  # pieces on their way at a time: while one is waited for, the workers have the next
FIRST_PIECE = 8  # rows
LARGEST_PIECE = 8192
PIECE_SECONDS = 1.0
GROWTH = 4  # how much larger than the last piece the next may be

Numbers = Int[np.ndarray[Any, Any], "n"]


class SeenGroups:
    """The groups that have come so far and where each began, in 16 bytes per group.

    >>> seen = SeenGroups()
    >>> seen.note(np.array([7, 7, 3]))
    >>> seen.note(np.array([3, 5]))
    >>> seen.note(np.array([7]))
    Traceback (most recent call last):
    ...
    guerdon.core.errors.GuerdonError: rows 0 and 5 are of one group, and rows of others stand between them: ...
    """

    def __init__(self) -> None:
        self.rows = 0
        self._groups, self._began = np.zeros(0, np.int64), np.zeros(0, np.int64)  # ascending, and their first rows
        self._last = 0

    def note(self, groups: Numbers) -> None:
        """Note the groups of the next rows.

        Raises:
            GuerdonError: if a group comes again after others; names both rows, counted from 0.
        """
        if not len(groups):
            return
        begins = np.append(not self.rows or groups[0] != self._last, groups[1:] != groups[:-1])
        order = np.flatnonzero(begins)[np.argsort(groups[begins], kind="stable")]
        new, rows = groups[order], order + self.rows
        place = np.searchsorted(self._groups, new)
        before = np.append(self._groups, 0)[place] == new
        before &= place < len(self._groups)
        within = np.append(False, new[1:] == new[:-1])
        if (before | within).any():
            again = np.flatnonzero(before | within)
            again = again[np.argmin(rows[again])]
            first = self._began[place[again]] if before[again] else rows[again - 1]
            raise GuerdonError(
                f"rows {first:,} and {rows[again]:,} are of one group, and rows of others stand between them: "
                "rows that are compared with one another must come one after the other; sort them by group"
            )
        self._groups, self._began = np.insert(self._groups, place, new), np.insert(self._began, place, rows)
        self.rows += len(groups)
        self._last = int(groups[-1])

    @property
    def began(self) -> int:
        """In which row the last group began."""
        return int(self._began[np.searchsorted(self._groups, self._last)])


def stream(
    engine: Engine,
    reward: Reward,
    batches: Iterable[Rollouts],
    context: Context | None = None,
    *,
    max_batch: int = MAX_BATCH,
) -> Generator[Scores, None, None]:
    """What `Engine.stream` does."""
    from guerdon.engine.engine import require

    given = context or Context()
    size, least = FIRST_PIECE, _in_flight(engine, reward)
    cut = pieces(batches, reward, lambda: size, max_batch=max_batch)
    ahead: deque[tuple[Rollouts, Measurement]] = deque()
    ended: Exception | None = None

    def refill() -> None:
        nonlocal ended
        while ended is None and (len(ahead) < AHEAD or sum(len(piece) for piece, _ in ahead) < least):
            try:
                piece = next(cut)
                context = given.with_(rollouts=piece)
                require(reward, piece, context)
                ahead.append((piece, engine.begin(reward.demand(piece), piece, context)))
            except Exception as error:  # the end, or a fault further on: what comes before it is scored first
                ended = error

    try:
        refill()
        while ahead:
            piece, measurement = ahead.popleft()
            began = time.monotonic()
            scores = reward.combine(measurement.scores(), given.with_(rollouts=piece))
            pace = len(piece) / max(time.monotonic() - began, 1e-6)
            size = max(least, min(int(pace * PIECE_SECONDS), GROWTH * len(piece), LARGEST_PIECE))
            refill()
            yield scores
        if ended is not None and not isinstance(ended, StopIteration):
            raise ended
    finally:
        for _, measurement in ahead:
            measurement.cancel()


def pieces(
    batches: Iterable[Rollouts], reward: Reward, size: Callable[[], int], *, max_batch: int = MAX_BATCH
) -> Iterator[Rollouts]:
    """The same rows in the same order, cut so that nothing is split that must be scored together.

    Args:
        batches: the rows; group numbers mean the same in all of them.
        reward: what they are cut for.
        size: asked before each cut for the number of rows that are wanted.
        max_batch: the most rows that may have to be scored together.

    Raises:
        GuerdonError: if more must be, or a group comes again after others.
    """
    if reward.scope == "row":
        for batch in batches:
            yield from _cut(batch, np.arange(1, len(batch) + 1), size)
        return
    held: list[Rollouts] = []  # rows that may have to be scored together with rows to come
    seen = SeenGroups()
    for batch in batches:
        last = 0
        if reward.scope == "group" and len(batch):
            seen.note(batch.groups)
            last = int(np.flatnonzero(np.append(True, np.diff(batch.groups) != 0))[-1])
            goes_on = bool(held) and held[-1].groups[-1] == batch.groups[0]
            if last or not goes_on:
                whole = _joined([*held, batch.select(slice(0, last))])
                yield from _cut(whole, np.append(np.flatnonzero(np.diff(whole.groups)) + 1, len(whole)), size)
                held = []
        held += [batch.select(slice(last, None))] if len(batch) else []
        if sum(map(len, held)) > max_batch:
            what = "all rows" if reward.scope == "batch" else f"the rows of a group, the one of row {seen.began:,},"
            raise GuerdonError(
                f"{reward.name} compares {what} with one another, and there are more than {max_batch:,}: "
                "raise max_batch if they fit into memory, or score fewer together"
            )
    if held:
        yield _joined(held)


def _cut(rollouts: Rollouts, ends: Numbers, size: Callable[[], int]) -> Iterator[Rollouts]:
    """Pieces of at least the wanted size, each up to the first of `ends` that is far enough."""
    start, n = 0, len(rollouts)
    while start < n:
        end = int(ends[np.searchsorted(ends, min(n, start + size()))])
        yield rollouts if end - start == n else rollouts.select(slice(start, end))
        start = end


def _joined(batches: list[Rollouts]) -> Rollouts:
    present = [batch for batch in batches if len(batch)] or batches[:1]
    return present[0] if len(present) == 1 else Rollouts.concat(present, keep_groups=True)


def _in_flight(engine: Engine, reward: Reward) -> int:
    """So many rows that what is worked on at a time is busy."""
    waits = any(leaf.lane == "async" for leaf in reward.leaves())
    return max(FIRST_PIECE, 4 * (engine.concurrency if waits else engine.workers))
