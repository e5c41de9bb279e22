"""DuckDB, of which results come as rows or as NumPy's columns."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import duckdb

from guerdon.rewards.sql.alarm import Alarm
from guerdon.rewards.sql.columns import STRUCTURE, Columns, NoColumns, Result, Rows, sooner_of
from guerdon.rewards.sql.databases import Known, More, QueryFailed, inserts, quoted, reads, said
from guerdon.rewards.sql.reading import only_table

T = TypeVar("T")

READ_ONLY = "BEGIN TRANSACTION READ ONLY"
AS_IT_IS = "SET SESSION enable_optimizer = false"
FIRST_ROWS = 'SELECT count(*) FROM (SELECT rowid FROM "{}" LIMIT {})'  # of a table; views have no rowid
MEMORY = "512MB"
CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,  # no files, no network, no ATTACH
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": MEMORY,
    "temp_directory": "",
    "threads": 1,
    "lock_configuration": True,
    "allowed_configs": ["enable_optimizer"],
}
USEFUL = {  # optimizers, to a query of one table; the others look for joins, subqueries, windows and limits
    "aggregate_function_rewriter", "column_lifetime", "common_aggregate", "common_subexpressions",
    "compressed_materialization", "distinct_aggregate_rewrite", "expression_rewriter", "filter_pushdown",
    "grouping_sets", "in_clause", "regex_range", "reorder_filter", "statistics_propagation", "unused_columns",
}  # fmt: skip
FEW = 10_000  # rows of a table that is small
TABLES = 1000  # that are looked at
LONG = 7  # digits behind the point, with which a decimal that may have more than 15 often has as many

_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_DECIMALS = {f"DECIMAL({digits},{behind})" for digits in range(1, 39) for behind in range(digits + 1)}
_DECIMALS -= {f"DECIMAL({digits},{behind})" for digits in range(16, 39) for behind in range(LONG, digits + 1)}
_PLAIN = _WHOLE | _DECIMALS | {"BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIMESTAMP"}  # which come as columns
_LATER = {"enable_external_access", "lock_configuration"}  # than a file is attached
_FAILURES = (duckdb.Error, RuntimeError, ValueError, MemoryError)
_NO_QUERY = (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException)  # however it is executed


class DuckDB:
    """A DuckDB database, without files, network and settings, in transactions that only read.

    To optimize a simple query takes as long as to execute it. One of a small table is executed as it is, by a second
    connection; one of another table of a file by a third, which has only the optimizers that are of use to it.
    """

    error = duckdb.Error

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: str | None = None) -> None:
        self.last = Known()
        self._path = path  # of the file, until it is opened again
        self._connections = [connection]
        self._as_they_are: duckdb.DuckDBPyConnection | None = None  # executes queries
        self._lightly: duckdb.DuckDBPyConnection | None = None  # optimizes them
        self._of: dict[str | None, duckdb.DuckDBPyConnection] = {}  # a table, what executes its simple queries
        self._others: set[str] = set()  # tables that have nothing of their own, and what is none
        self._alarm = Alarm(partial(_interrupt, self._connections))
        weakref.finalize(self, self._alarm.end)  # also at the end of the process
        connection.execute(READ_ONLY)

    @classmethod
    def file(cls, path: str) -> DuckDB:
        """A file, which stays what it was when this process first opened it."""
        path = os.path.realpath(path)
        state = _state(path)
        connection = duckdb.connect(path, read_only=True, config=CLOSED)
        _states.setdefault(path, state)
        return cls(connection, path)

    @classmethod
    def inline(cls, schema: str, rows: Mapping[str, Any]) -> DuckDB:
        """A database in memory."""
        connection = duckdb.connect(":memory:", config=CLOSED)
        connection.execute(schema)
        for statement, records in inserts(rows):
            connection.executemany(statement, records)
        return cls(connection)

    def run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, More], T], bulk: int) -> T:
        """See `Database.run`."""
        table = only_table(query, self._others)
        given = self._run(query, seconds, most, read, bulk, self._of.get(table, self._connections[0]))
        if table and table not in self._of and len(self._of) + len(self._others) < TABLES:
            self._look_at(table)  # the query has not failed: it is there
        return given

    def _run(
        self,
        query: str,
        seconds: float,
        most: int,
        read: Callable[[int, Result, More], T],
        bulk: int,
        connection: duckdb.DuckDBPyConnection,
    ) -> T:
        """The same, as they come or as it is, if that is quick.

        Columns are fetched whole, and nothing but time bounds them; and nobody knows how long a query takes that is
        not optimized. What is not quick is executed again, optimized and by rows. So is what fails: dates of columns
        have no infinity.
        """
        as_it_is = connection is self._as_they_are
        if (bulk or as_it_is) and (quick := self.last.quick) < seconds:
            try:
                return self._executed(query, quick, most, read, bulk, connection)
            except NoColumns:
                pass
            except QueryFailed as error:
                if isinstance(error.__cause__, _NO_QUERY):
                    raise
        return self._executed(query, seconds, most, read, 0, self._connections[0] if as_it_is else connection)

    def _executed(
        self,
        query: str,
        seconds: float,
        most: int,
        read: Callable[[int, Result, More], T],
        bulk: int,
        connection: duckdb.DuckDBPyConnection,
    ) -> T:
        self._alarm.set(seconds)
        try:
            plain = ";" not in query and reads(query)  # else it is parsed twice, which takes a tenth of a small one
            connection.execute(query if plain else _only(connection, query))
            columns = _columns(connection, bulk) if bulk else None
            rows = connection.fetchmany(most) if columns is None else []
            width = len(rows[0] if rows else connection.description)
        except _FAILURES as error:
            raise self._failed(connection, seconds, error) from error
        return read(width, rows if columns is None else columns, partial(self._next, connection, seconds))

    def _next(self, connection: duckdb.DuckDBPyConnection, seconds: float, count: int) -> Rows:
        """The next rows of the query that is executed, or what is left."""
        try:
            rows: Rows = connection.fetchmany(count)
        except _FAILURES as error:
            raise self._failed(connection, seconds, error) from error
        return rows

    def _failed(self, connection: duckdb.DuckDBPyConnection, seconds: float, error: BaseException) -> QueryFailed:
        """What is to be said of a query that has failed; the connection is ready for the next."""
        self._alarm.unset()  # or what follows may be stopped
        _begin_anew(connection)
        return QueryFailed(f"takes more than {seconds:g} s" if self._alarm.late else said(error))

    def _look_at(self, table: str) -> None:
        """Decide what executes simple queries of a table, if it is one."""
        first = self._connections[0]
        own = None
        try:
            ((rows,),) = first.execute(FIRST_ROWS.format(table, FEW + 1)).fetchall()
            if rows <= FEW:
                own = self._as_they_are = self._as_they_are or self._begun(first.cursor(), AS_IT_IS)
            else:
                own = self._open_lightly()
        except (duckdb.Error, OSError):
            _begin_anew(first)
        if own is None:
            self._others.add(table)
        else:
            self._of[table] = own

    def _open_lightly(self) -> duckdb.DuckDBPyConnection | None:
        """What optimizes lightly, if there is a file. To open it is tried once."""
        path, self._path = self._path, None
        if path:
            self._lightly = self._begun(_opened_again(self._connections[0], path))
        return self._lightly

    def _begun(self, connection: duckdb.DuckDBPyConnection, *settings: str) -> duckdb.DuckDBPyConnection:
        """A connection with settings, which can only read, and is stopped with the others."""
        for statement in (*settings, READ_ONLY):
            connection.execute(statement)
        self._connections.append(connection)
        return connection


_states: dict[str, tuple[int, ...]] = {}  # of files, when this process first opened them


def _state(path: str) -> tuple[int, ...]:
    state = os.stat(path)
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size


def _opened_again(first: duckdb.DuckDBPyConnection, path: str) -> duckdb.DuckDBPyConnection:
    """The same file, apart from what this process has open of it, which all has the same optimizers.

    Raises:
        duckdb.Error: if it cannot be opened, or its name is 'memory'.
        OSError: if it is another file than at first.
    """
    (name,) = first.execute("SELECT current_database()").fetchall()[0]
    connection = duckdb.connect(":memory:", config={key: CLOSED[key] for key in CLOSED.keys() - _LATER})
    connection.execute(f"ATTACH {_text(path)} AS {quoted(name)} (READ_ONLY)")
    if _state(path) != _states[path]:
        raise OSError(f"{path} has changed")
    connection.execute(f"USE {quoted(name)}.main")
    optimizers = {optimizer for (optimizer,) in connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()}
    connection.execute(f"SET disabled_optimizers = {_text(','.join(optimizers - USEFUL))}")
    for key in sorted(_LATER):
        connection.execute(f"SET {key} = {CLOSED[key]}")
    return connection


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _begin_anew(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ROLLBACK")
    connection.execute(READ_ONLY)


def _interrupt(connections: list[duckdb.DuckDBPyConnection]) -> None:
    for connection in connections:
        connection.interrupt()


def _columns(result: duckdb.DuckDBPyConnection, most: int) -> Columns | None:
    """The first rows of a result as columns, if these are plain and that is sooner."""
    kinds = [str(column[1]) for column in result.description]
    for kind in kinds:
        if kind not in _PLAIN and not kind.startswith(STRUCTURE):
            return None
    if not sooner_of(kinds, most - 1):
        return None
    return Columns(list(result.fetchnumpy().values()), kinds, most)


def _only(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    """The statement that a query is.

    Raises:
        QueryFailed: if it is several, or something else than one that reads.
    """
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryFailed("is not one query that reads")
    return statements[0]
