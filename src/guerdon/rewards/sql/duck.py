"""DuckDB, of which results come as rows or as NumPy's columns."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import duckdb

from guerdon.rewards.sql.alarm import Alarm
from guerdon.rewards.sql.columns import STRUCTURE, Columns, Result, sooner_of
from guerdon.rewards.sql.databases import Known, More, QueryFailed, inserts, reads, said
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
FEW = 10_000  # rows of a table that is small
TABLES = 1000  # that are looked at
LONG = 7  # digits behind the point, with which a decimal that may have more than 15 often has as many

_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_DECIMALS = {f"DECIMAL({digits},{behind})" for digits in range(1, 39) for behind in range(digits + 1)}
_DECIMALS -= {f"DECIMAL({digits},{behind})" for digits in range(16, 39) for behind in range(LONG, digits + 1)}
_PLAIN = _WHOLE | _DECIMALS | {"BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIMESTAMP"}  # which come as columns
_FAILURES = (duckdb.Error, RuntimeError, ValueError, MemoryError)
_NO_QUERY = (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException)  # however it is executed


class DuckDB:
    """A DuckDB database, without files, network and settings, in transactions that only read.

    To optimize a simple query of a small table takes as long as to execute it. A second connection executes those as
    they are.
    """

    error = duckdb.Error

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.last = Known()
        self._connections = [connection]
        self._small: set[str] = set()  # tables that have been looked at and have few rows
        self._others: set[str] = set()  # and have many, or are none
        self._alarm = Alarm(partial(_interrupt, self._connections))
        weakref.finalize(self, self._alarm.end)  # also at the end of the process
        connection.execute(READ_ONLY)

    @classmethod
    def file(cls, path: str) -> DuckDB:
        """A file, which stays what it was when this process first opened it."""
        return cls(duckdb.connect(path, read_only=True, config=CLOSED))

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
        given = self._run(query, seconds, most, read, bulk, table in self._small)
        if table and table not in self._small and len(self._small) + len(self._others) < TABLES:
            (self._small if self._has_few(table) else self._others).add(table)  # the query has not failed: it is there
        return given

    def _run(
        self, query: str, seconds: float, most: int, read: Callable[[int, Result, More], T], bulk: int, direct: bool
    ) -> T:
        """The same, as they come or as it is, if that is quick.

        Columns are fetched whole, and nothing but time bounds them; and nobody knows how long a query takes that is
        not optimized. What is not quick is executed again, optimized and by rows. So is what fails: dates of columns
        have no infinity.
        """
        if (bulk or direct) and (quick := self.last.quick) < seconds:
            try:
                return self._executed(query, quick, most, read, bulk, self._connections[direct])
            except QueryFailed as error:
                if isinstance(error.__cause__, _NO_QUERY):
                    raise
        return self._executed(query, seconds, most, read, 0, self._connections[0])

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
            result = connection.execute(query if plain else _only(connection, query))
            if bulk and (columns := _columns(result, bulk)) is not None:
                return read(columns.width, columns, result.fetchmany)
            rows = result.fetchmany(most)
            return read(len(rows[0] if rows else result.description), rows, result.fetchmany)
        except _FAILURES as error:
            self._alarm.unset()  # or what follows may be stopped
            _begin_anew(connection)
            raise QueryFailed(f"takes more than {seconds:g} s" if self._alarm.late else said(error)) from error

    def _has_few(self, table: str) -> bool:
        """Whether it is a table, and has few rows; if so there is the second connection."""
        first = self._connections[0]
        try:
            (rows,) = first.execute(FIRST_ROWS.format(table, FEW + 1)).fetchall()[0]
        except duckdb.Error:
            _begin_anew(first)
            return False
        small = bool(rows <= FEW)
        if small and len(self._connections) == 1:
            second = first.cursor()
            second.execute(AS_IT_IS)
            second.execute(READ_ONLY)
            self._connections.append(second)
        return small


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
