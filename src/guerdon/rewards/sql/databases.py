"""What a database is that queries may read, and do nothing else with; and what is fetched from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from guerdon.rewards.sql.columns import Result, Rows, sooner

T = TypeVar("T")
More = Callable[[int], Rows]  # the next so many rows of a result, or what is left

AT_ONCE = 1024  # rows that are fetched at a time
QUICK = 0.05  # seconds in which a query is done that is executed the quick way, or it is executed again; besides
SLOWER = 5  # times as long as the reference took


class QueryFailed(Exception):
    """A query gives no result: it is no query, writes, or takes too long."""


class Known(NamedTuple):
    """A query, and what is known of it."""

    query: str | None = None
    width: int = 0
    result: Result = []  # noqa: RUF012 - which nobody fills
    seconds: float = 0.0  # that it took
    bulky: bool = False  # whether one like it is sooner fetched as columns
    beside: bool = False  # whether an answer may be

    @property
    def quick(self) -> float:
        """Seconds in which one like it has come, if it comes the quick way."""
        return QUICK + SLOWER * self.seconds


class Database(Protocol):
    """A database that is open for reading."""

    last: Known

    def run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, More], T], bulk: int) -> T:
        """What `read` makes of a query's result: how many columns it has, its first rows, and those behind.

        Args:
            query: what is executed.
            seconds: it may take, and `read` with it.
            most: how many rows are the first.
            read: see above.
            bulk: how many may come as columns, if those behind are not asked for; else 0.

        Raises:
            QueryFailed: if it gives none, or none in time.
        """


def fetched(database: Database, query: str, seconds: float, most: int) -> Known:
    """The whole result of a query. The last is kept: a group has one reference, and the next may be like it.

    Raises:
        QueryFailed: if it gives none, or more than `most` rows.
    """
    known = database.last
    if known.query != query:
        bulk = most + 1 if known.bulky else 0
        if len(known.result) > AT_ONCE:  # else it stays: where as many lists come as go nobody looks for cycles
            database.last = known = Known(seconds=known.seconds)  # and what comes may stand where it has stood
        start = time.monotonic()
        width, result = database.run(query, seconds, most + 1, _whole, bulk)
        taken = time.monotonic() - start
        known = Known(query, width, result, taken, *(sooner(result) if taken < 2 * QUICK else ()))
    if len(known.result) > most:
        raise QueryFailed(f"gives more than {most} rows")
    database.last = known
    return known


def _whole(width: int, result: Result, more: More) -> tuple[int, Result]:
    return width, result


def pieces(first: Rows, more: More) -> Iterator[Rows]:
    """The rows of a result, some at a time, of which the first have been fetched."""
    rows = first
    while rows:
        yield rows
        if len(rows) < AT_ONCE:
            return
        rows = more(AT_ONCE)


def reads(query: str) -> bool:
    """Whether a query seems to read, as it begins."""
    return query[:6].upper().startswith(("SELECT", "WITH"))


def inserts(rows: Mapping[str, Any]) -> Iterator[tuple[str, list[Sequence[Any]]]]:
    """For each table of a database that stands in the row a statement that inserts a row, and the rows."""
    for table, content in rows.items():
        records = [list(row.values()) if isinstance(row, dict) else row for row in content]
        names = f" ({', '.join(map(quoted, content[0]))})" if content and isinstance(content[0], dict) else ""
        if records:
            yield f"INSERT INTO {quoted(table)}{names} VALUES ({', '.join('?' * len(records[0]))})", records


def quoted(name: str) -> str:
    """A name as it stands in a query."""
    return '"' + name.replace('"', '""') + '"'


def said(error: BaseException) -> str:
    """The first line of what an error says, cut to a length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
