"""DuckDB, of which results come as rows or as NumPy's columns."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import duckdb

from guerdon.rewards.sql.alarm import Alarm
from guerdon.rewards.sql.columns import Columns, Result
from guerdon.rewards.sql.databases import Known, More, QueryFailed, inserts, reads, said

T = TypeVar("T")

READ_ONLY = "BEGIN TRANSACTION READ ONLY"
MEMORY = "512MB"
CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,  # no files, no network, no ATTACH
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": MEMORY,
    "temp_directory": "",
    "threads": 1,
    "lock_configuration": True,
}

_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_EXACT = {f"DECIMAL({digits},{behind})" for digits in range(1, 16) for behind in range(digits + 1)}  # as a float, too
_PLAIN = _WHOLE | _EXACT | {"BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIMESTAMP"}  # types that come as columns
_FAILURES = (duckdb.Error, RuntimeError, ValueError, MemoryError)


class DuckDB:
    """A DuckDB database, without files, network and settings, in a transaction that only reads."""

    error = duckdb.Error

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.last = Known()
        self._connection = connection
        self._alarm = Alarm(connection.interrupt)
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
        """See `Database.run`.

        Columns are fetched whole, and nothing but time bounds them: those that are not quick are fetched as rows. So
        are those that fail, as dates of columns have no infinity.
        """
        quick = self.last.quick
        if bulk and quick < seconds:
            try:
                return self._run(query, quick, most, read, bulk)
            except QueryFailed:
                pass
        return self._run(query, seconds, most, read, 0)

    def _run(self, query: str, seconds: float, most: int, read: Callable[[int, Result, More], T], bulk: int) -> T:
        self._alarm.set(seconds)
        try:
            plain = ";" not in query and reads(query)  # else it is parsed twice, which takes a tenth of a small one
            result = self._connection.execute(query if plain else self._only(query))
            if bulk and (columns := self._columns(bulk)) is not None:
                return read(columns.width, columns, result.fetchmany)
            rows = result.fetchmany(most)
            return read(len(rows[0] if rows else result.description), rows, result.fetchmany)
        except _FAILURES as error:
            self._alarm.unset()  # or what follows may be stopped
            self._connection.execute("ROLLBACK")
            self._connection.execute(READ_ONLY)
            raise QueryFailed(f"takes more than {seconds:g} s" if self._alarm.late else said(error)) from None

    def _columns(self, most: int) -> Columns | None:
        """The first rows of the result as columns, if these are plain and each has a name of its own."""
        columns = self._connection.description
        kinds = [str(column[1]) for column in columns]
        if len({column[0].lower() for column in columns}) < len(columns) or not _PLAIN.issuperset(kinds):
            return None
        return Columns(list(self._connection.fetchnumpy().values()), kinds, most)

    def _only(self, query: str) -> Any:
        """The statement that a query is.

        Raises:
            QueryFailed: if it is several, or something else than one that reads.
        """
        statements = self._connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise QueryFailed("is not one query that reads")
        return statements[0]
