"""SQLite, by APSW: it hands rows over in half the time of the standard library, and is one version everywhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

import apsw

from guerdon.rewards.sql.columns import Result, Rows
from guerdon.rewards.sql.databases import Known, More, QueryFailed, inserts, reads, said

T = TypeVar("T")

LONGEST_CELL = 1 << 20  # bytes of a text or blob, intermediate ones included
STEPS = 10_000  # of SQLite's machine between two looks at the clock
PATIENCE = 5000  # milliseconds for a file that somebody writes

_READING = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
_FAILURES = (apsw.Error, ValueError, MemoryError)


class Sqlite:
    """A SQLite database. What is not reading is refused when a query is prepared; the clock is looked at as it runs.

    Changes are refused by the connection, which may only read. The rest is, by its text, something else than a SELECT,
    or has the word 'pragma' in it or in a view that it reads: only then is each of a query's actions asked about, which
    takes as long as a small query.
    """

    error = apsw.Error

    def __init__(self, connection: apsw.Connection) -> None:
        self.last = Known()
        self._connection = connection
        self._until = 0.0
        self._width = 0  # columns of the query that runs; none before it has begun
        ((settings,),) = connection.execute("SELECT count(*) FROM sqlite_master WHERE sql LIKE '%pragma%'")
        self._wary, self._asking = settings > 0, True
        connection.execute("PRAGMA query_only = ON")
        for limit, most in (
            (apsw.SQLITE_LIMIT_LENGTH, LONGEST_CELL),
            (apsw.SQLITE_LIMIT_ATTACHED, 0),
            (apsw.SQLITE_LIMIT_WORKER_THREADS, 0),
            (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),  # matching takes their product with the text
        ):
            connection.limit(limit, most)
        connection.set_authorizer(_reading)
        connection.set_progress_handler(self._late, STEPS)
        connection.set_exec_trace(self._begins)

    @classmethod
    def file(cls, path: str) -> Sqlite:
        """A file; taken for one that nobody changes, unless its journal says otherwise."""
        immutable = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"file:{quote(path)}?mode=ro{immutable}", flags=flags, statementcachesize=0)
        connection.set_busy_timeout(PATIENCE)
        return cls(connection)

    @classmethod
    def inline(cls, schema: str, rows: Mapping[str, Any]) -> Sqlite:
        """A database in memory."""
        connection = apsw.Connection(":memory:", statementcachesize=0)
        connection.execute(schema).fetchall()
        with connection:
            for statement, records in inserts(rows):
                connection.executemany(statement, records)
        return cls(connection)

    def run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, More], T], bulk: int) -> T:
        """See `Database.run`; all results come as rows."""
        ask = self._wary or not reads(query) or "pragma" in query.lower()
        if ask != self._asking:
            self._connection.set_authorizer(_reading if ask else None)
            self._asking = ask
        self._width = 0
        self._until = time.monotonic() + seconds
        try:
            cursor = self._connection.execute(query)
            rows = list(islice(cursor, most))
        except _FAILURES as error:
            raise _failed(error, seconds) from None
        if not self._width:
            raise QueryFailed("gives no result")
        return read(self._width, rows, partial(_next, cursor, seconds))

    def _late(self) -> bool:
        return time.monotonic() > self._until

    def _begins(self, cursor: apsw.Cursor, statement: str, bindings: Any) -> bool:
        """A statement of the query is about to be executed; what is only a comment is none."""
        if cursor.has_vdbe:
            if self._width:
                raise QueryFailed("is more than one statement")
            self._width = len(cursor.get_description())
        return True


def _next(cursor: apsw.Cursor, seconds: float, count: int) -> Rows:
    """The next rows of the query that is executed, or what is left."""
    try:
        return list(islice(cursor, count))
    except _FAILURES as error:
        raise _failed(error, seconds) from None


def _failed(error: BaseException, seconds: float) -> QueryFailed:
    """What is to be said of a query that has failed."""
    return QueryFailed(f"takes more than {seconds:g} s" if isinstance(error, apsw.InterruptError) else said(error))


def _reading(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    return apsw.SQLITE_OK if action in _READING and second != "load_extension" else apsw.SQLITE_DENY
