"""Databases that queries may read, and do nothing else with: SQLite and DuckDB, from a file or from the row."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from threading import get_ident
from typing import Any, Literal, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

import numpy as np

from guerdon.core.errors import Abstain
from guerdon.core.parsing import read_json, shown
from guerdon.rewards.sql.alarm import Alarm
from guerdon.rewards.sql.columns import Columns, Result, Rows

System = Literal["sqlite", "duckdb"]
T = TypeVar("T")

LONGEST_CELL = 1 << 20  # bytes of a text or blob in SQLite, intermediate ones included
READ_ONLY = "BEGIN TRANSACTION READ ONLY"
MEMORY = "512MB"  # of DuckDB
STEPS = 10_000  # of SQLite's machine between two looks at the clock
AT_ONCE = 1024  # rows that are fetched at a time
MANY = 500  # rows that DuckDB hands over sooner as columns than as rows
QUICK = 0.05  # seconds in which columns have come, or rows are fetched in their place; besides
SLOWER = 5  # times as long as the reference took
KEPT = 32  # databases that stay open

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_OK, _DENY = sqlite3.SQLITE_OK, sqlite3.SQLITE_DENY
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,  # no files, no network, no ATTACH
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": MEMORY,
    "temp_directory": "",
    "threads": 1,
    "lock_configuration": True,
}
_READS = ("SELECT", "WITH")
_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_PLAIN = _WHOLE | {"BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR"}  # types whose cells are the same in arrays as in rows


class QueryFailed(Exception):
    """A query gives no result: it is no query, writes, or takes too long."""


class Known(NamedTuple):
    """A query, and what is known of it."""

    query: str | None = None
    width: int = 0
    result: Result = []  # noqa: RUF012 - which nobody fills
    seconds: float = 0.0  # that it took

    @property
    def bulky(self) -> bool:
        """Whether one like it is sooner fetched as columns."""
        return len(self.result) >= MANY and self.seconds < 2 * QUICK


class Database(Protocol):
    """A database that is open for reading."""

    last: Known

    def run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, Any], T], bulk: int) -> T:
        """What `read` makes of a query's result: how many columns it has, its first rows, and a cursor at those behind.

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
        database.last = known = Known(seconds=known.seconds)  # what comes may stand where it has stood
        start = time.monotonic()
        width, result = database.run(query, seconds, most + 1, _whole, bulk)
        known = Known(query, width, result, time.monotonic() - start)
    if len(known.result) > most:
        raise QueryFailed(f"gives more than {most} rows")
    database.last = known
    return known


def opened(database: Any, system: System, folder: str) -> Database:
    """The database of a row, open for reading; it is kept open for other rows.

    A SQLite file that has changed is opened again. A DuckDB file stays what it was when this process first opened it,
    whatever takes its place: so does DuckDB itself have it, which shares one database between all who open a path.

    Args:
        database: the path of a file, or `{"schema": "CREATE TABLE …", "rows": {"table": [[…], …]}}`, or that as JSON
            text.
        system: what reads it.
        folder: where relative paths begin.

    Raises:
        Abstain: if it cannot be opened.
    """
    try:
        if isinstance(database, str) and not (database[:1] in " \t\r\n{" and database.lstrip().startswith("{")):
            path = os.path.join(folder, database) if folder else database
            if system == "duckdb":
                return _opened(system, path, "file", get_ident())
            state = os.stat(path)
            return _opened(system, path, "file", get_ident(), state.st_mtime_ns, state.st_size)
        text = database if isinstance(database, str) else json.dumps(database, default=_plain)
        return _opened(system, text, "inline", get_ident())
    except (OSError, ValueError, TypeError, sqlite3.Error, QueryFailed) as error:
        raise Abstain(f"database not usable: {_said(error)}") from None


@lru_cache(maxsize=KEPT)
def _opened(system: System, where: str, what: str, thread: int, *state: int) -> Database:
    kind = Sqlite if system == "sqlite" else DuckDB
    return kind.file(where) if what == "file" else kind.inline(*_content(where))


def _content(text: str) -> tuple[str, dict[str, Any]]:
    """The schema and the rows of a database that stands in the row."""
    match read_json(text, nan="accept"):
        case {"schema": str(schema), "rows": dict(rows), **others} if not others:
            return schema, rows
        case {"schema": str(schema), **others} if not others:
            return schema, {}
    raise ValueError(f"a path, or a schema and rows: {shown(text)}")


def _inserts(rows: Mapping[str, Any]) -> Iterator[tuple[str, list[Sequence[Any]]]]:
    """For each table a statement that inserts a row, and the rows."""
    for table, content in rows.items():
        records = [list(row.values()) if isinstance(row, dict) else row for row in content]
        names = f" ({', '.join(map(_quoted, content[0]))})" if content and isinstance(content[0], dict) else ""
        if records:
            yield f"INSERT INTO {_quoted(table)}{names} VALUES ({', '.join('?' * len(records[0]))})", records


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"no plain data: {shown(value)}")


class Sqlite:
    """A SQLite database. What is not reading is refused when a query is prepared; the clock is looked at as it runs.

    Changes are refused by the connection, which may only read. The rest is, by its text, something else than a SELECT,
    or has the word 'pragma' in it or in a view that it reads: only then is each of a query's actions asked about, which
    takes as long as a small query.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.last = Known()
        self._connection = connection
        self._until = 0.0
        (settings,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE sql LIKE '%pragma%'").fetchone()
        self._wary, self._asking = settings > 0, True
        connection.execute("PRAGMA query_only = ON").close()
        for limit, most in (
            (sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_CELL),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
            (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
            (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),  # matching takes their product with the text
        ):
            connection.setlimit(limit, most)
        connection.set_authorizer(_reading)
        connection.set_progress_handler(self._late, STEPS)

    @classmethod
    def file(cls, path: str) -> Sqlite:
        """A file; taken for one that nobody changes, unless its journal says otherwise."""
        immutable = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
        where = f"file:{quote(path)}?mode=ro{immutable}"
        return cls(sqlite3.connect(where, uri=True, isolation_level=None, cached_statements=0))

    @classmethod
    def inline(cls, schema: str, rows: Mapping[str, Any]) -> Sqlite:
        connection = sqlite3.connect(":memory:")
        connection.executescript(schema)
        for statement, records in _inserts(rows):
            connection.executemany(statement, records)
        connection.commit()
        return cls(connection)

    def run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, Any], T], bulk: int) -> T:
        """See `Database.run`; all results come as rows."""
        ask = self._wary or not query[:6].upper().startswith(_READS) or "pragma" in query.lower()
        if ask != self._asking:
            self._connection.set_authorizer(_reading if ask else None)
            self._asking = ask
        self._until = time.monotonic() + seconds
        try:
            cursor = self._connection.execute(query)
            if cursor.description is None:
                raise QueryFailed("gives no result")
            rows = cursor.fetchmany(most)
            return read(len(cursor.description), rows, cursor)
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
            late = "interrupted" in str(error)
            raise QueryFailed(f"takes more than {seconds:g} s" if late else _said(error)) from None

    def _late(self) -> bool:
        return time.monotonic() > self._until


def _reading(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    return _OK if action in _READING and second != "load_extension" else _DENY


class DuckDB:
    """A DuckDB database, without files, network and settings, in a transaction that only reads."""

    def __init__(self, connection: Any) -> None:
        import duckdb

        self.last = Known()
        self._connection = connection
        self._failures = (duckdb.Error, RuntimeError, ValueError, MemoryError)
        self._alarm = Alarm(connection.interrupt)
        weakref.finalize(self, self._alarm.end)  # also at the end of the process
        connection.execute(READ_ONLY)

    @classmethod
    def file(cls, path: str) -> DuckDB:
        import duckdb

        with _explained():
            return cls(duckdb.connect(path, read_only=True, config=_CLOSED))

    @classmethod
    def inline(cls, schema: str, rows: Mapping[str, Any]) -> DuckDB:
        import duckdb

        with _explained():
            connection = duckdb.connect(":memory:", config=_CLOSED)
            connection.execute(schema)
            for statement, records in _inserts(rows):
                connection.executemany(statement, records)
            return cls(connection)

    def run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, Any], T], bulk: int) -> T:
        """See `Database.run`.

        Columns are fetched whole, and nothing but time bounds them: those that are not quick are fetched as rows.
        """
        quick = QUICK + SLOWER * self.last.seconds
        if bulk and quick < seconds:
            try:
                return self._run(query, quick, most, read, bulk)
            except QueryFailed:
                if not self._alarm.late:
                    raise
        return self._run(query, seconds, most, read, 0)

    def _run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, Any], T], bulk: int) -> T:
        self._alarm.set(seconds)
        try:
            # By its text it is one that reads, or it is parsed to see whether it is: that takes a tenth of a small one.
            plain = ";" not in query and query[:6].upper().startswith(_READS)
            result = self._connection.execute(query if plain else self._only(query))
            if bulk and (columns := self._columns(bulk)) is not None:
                return read(columns.width, columns, result)
            rows = result.fetchmany(most)
            return read(len(rows[0] if rows else result.description), rows, result)
        except self._failures as error:
            self._alarm.unset()  # or what follows may be stopped
            self._connection.execute("ROLLBACK")
            self._connection.execute(READ_ONLY)
            raise QueryFailed(f"takes more than {seconds:g} s" if self._alarm.late else _said(error)) from None

    def _columns(self, most: int) -> Columns | None:
        """The first rows of the result as columns, if these are plain and each has a name of its own."""
        columns = self._connection.description
        names, kinds = {column[0].lower() for column in columns}, {str(column[1]) for column in columns}
        if len(names) < len(columns) or not kinds <= _PLAIN:
            return None
        return Columns(list(self._connection.fetchnumpy().values()), most)

    def _only(self, query: str) -> Any:
        """The statement that a query is.

        Raises:
            QueryFailed: if it is several, or something else than one that reads.
        """
        import duckdb

        statements = self._connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise QueryFailed("is not one query that reads")
        return statements[0]


def _whole(width: int, result: Result, cursor: Any) -> tuple[int, Result]:
    return width, result


def pieces(first: Result, cursor: Any) -> Iterator[Rows]:
    """The rows of a result, some at a time, of which the first have been fetched."""
    if isinstance(first, Columns):
        yield from first.pieces(AT_ONCE)
        return
    rows = first
    while rows:
        yield rows
        if len(rows) < AT_ONCE:
            return
        rows = cursor.fetchmany(AT_ONCE)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise QueryFailed(_said(error)) from None


def _said(error: BaseException) -> str:
    """The first line of what an error says, cut to a length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
