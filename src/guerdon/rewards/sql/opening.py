"""Databases are opened from a file or from the row, and stay open for other rows."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from threading import get_ident
from typing import Any, Literal

import numpy as np

from guerdon.core.errors import Abstain
from guerdon.core.parsing import read_json, shown
from guerdon.rewards.sql.databases import Database, QueryFailed, said

System = Literal["sqlite", "duckdb"]

KEPT = 32  # databases that stay open


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
    except (OSError, ValueError, TypeError, OverflowError, QueryFailed) as error:
        raise Abstain(f"database not usable: {said(error)}") from None


@lru_cache(maxsize=KEPT)
def _opened(system: System, where: str, what: str, thread: int, *state: int) -> Database:
    kind: Any
    if system == "sqlite":
        from guerdon.rewards.sql.sqlite import Sqlite as kind
    else:
        from guerdon.rewards.sql.duck import DuckDB as kind
    try:
        database: Database = kind.file(where) if what == "file" else kind.inline(*_content(where))
    except kind.error as error:
        raise QueryFailed(said(error)) from None
    return database


def _content(text: str) -> tuple[str, dict[str, Any]]:
    """The schema and the rows of a database that stands in the row."""
    match read_json(text, nan="accept"):
        case {"schema": str(schema), "rows": dict(rows), **others} if not others:
            return schema, rows
        case {"schema": str(schema), **others} if not others:
            return schema, {}
    raise ValueError(f"a path, or a schema and rows: {shown(text)}")


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"no plain data: {shown(value)}")
