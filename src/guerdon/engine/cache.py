"""The score cache: what costly leaves gave before, on disk, so that no unit is measured twice.

Numbers are kept with their details, abstentions never: a judge that was down is asked again. An entry
stands under a digest of the leaf's `identity` and of the exact columns of the unit, in an SQLite file that
threads and processes may share. The digest's first half is the number of the entry's row, by which SQLite finds
it fastest; the second half is in its seal. Values are JSON; what JSON would not give back equal is not kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import struct
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

from guerdon.engine.canonical import canonical

COSTLY = 1e-3  # seconds per unit from which keeping a score pays: a hit costs a hundredth of that
FORMAT = 0x67640002  # SQLite's application_id of a score cache
KEY = struct.Struct("<qq")
PATIENCE = 10.0  # seconds to wait for another process that writes

SCHEMA = (
    "CREATE TABLE score (key INTEGER PRIMARY KEY, seal INTEGER, outcomes BLOB)",
    "CREATE TABLE cost (leaf BLOB PRIMARY KEY, name TEXT, units INTEGER, seconds REAL)",
)
LOOK_UP = "SELECT seal, outcomes FROM json_each(?) AS asked LEFT JOIN score ON score.key = asked.value"

T = TypeVar("T")


def default_path() -> Path:
    """The cache of this user: `guerdon/scores.sqlite` in `XDG_CACHE_HOME`, or in `~/.cache`."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return Path(folder if os.path.isabs(folder) else Path.home() / ".cache") / "guerdon" / "scores.sqlite"


def packed(outcomes: Sequence[tuple[float, Mapping[str, Any] | None]]) -> bytes | None:
    """The outcomes of a unit as the entries of a JSON list; None if JSON would not give them back equal.

    >>> packed([(1.0, {"extracted": "4"}), (0.5, None)]), packed([(1.0, {"span": (0, 4)})])
    (b'1.0,{"extracted":"4"},0.5,null', None)
    """
    entries = list(chain.from_iterable(outcomes))
    try:
        text = json.dumps(entries, separators=(",", ":"))
        return text[1:-1].encode() if canonical(json.loads(text)) == canonical(entries) else None
    except (TypeError, ValueError, RecursionError):
        return None


@dataclass
class Cost:
    """What the units of a leaf have cost so far, here and as written in the file."""

    units: int = 0
    seconds: float = 0.0
    units_written: int = 0
    seconds_written: float = 0.0

    @property
    def high(self) -> bool:
        """Whether keeping and looking up units pays; so it is taken to do until something is known."""
        return self.seconds >= COSTLY * self.units


class Cache:
    """Outcomes of units by their keys, and what the units of a leaf cost, in an SQLite file.

    It may fail, and scoring may not: a file that cannot be read or written, is damaged or is no score
    cache is reported once, left as it is, and not used again.

    Args:
        path: the file; made, with its folders, when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._usable = True
        self._connection: sqlite3.Connection | None = None
        self._costs: dict[bytes, Cost] = {}

    def pays(self, leaf: bytes) -> bool:
        """Whether the units of a leaf cost so much that keeping them and looking them up pays."""
        return self._use(lambda connection: self._cost(leaf, connection).high, otherwise=False)

    def learn(self, leaf: bytes, name: str, units: int, seconds: float) -> None:
        """Note what some more units cost; the first time in the file, so that the next process knows at once."""

        def add(connection: sqlite3.Connection) -> None:
            cost = self._cost(leaf, connection)
            cost.units, cost.seconds = cost.units + units, cost.seconds + seconds
            if not cost.units_written:
                with connection:
                    self._write_cost(leaf, name, connection)

        self._use(add, otherwise=None)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What is kept under some keys, of `KEY.size` bytes each, where it is undamaged."""

        def look_up(connection: sqlite3.Connection) -> dict[bytes, bytes]:
            halves = list(KEY.iter_unpack(b"".join(keys)))
            # One row for each, in this order: in another, no seal would fit.
            rows = connection.execute(LOOK_UP, (str([first for first, _ in halves]),))
            return {
                key: text
                for key, (_, second), (seal, text) in zip(keys, halves, rows, strict=True)
                if type(text) is bytes and seal == second ^ crc32(text)
            }

        return self._use(look_up, otherwise={})

    def put(self, leaf: bytes, name: str, outcomes: Mapping[bytes, bytes]) -> None:
        """Keep some outcomes, and what the units of their leaf have cost."""

        def write(connection: sqlite3.Connection) -> None:
            halves = KEY.iter_unpack(b"".join(outcomes))
            rows = [
                (first, second ^ crc32(text), text)
                for (first, second), text in zip(halves, outcomes.values(), strict=True)
            ]
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO score VALUES (?, ?, ?)", rows)
                self._write_cost(leaf, name, connection)

        self._use(write, otherwise=None)

    def close(self) -> None:
        """Let go of the file; nothing is found or kept after this."""
        with self._lock:
            self._let_go()

    def _use(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        with self._lock:
            if not self._usable:
                return otherwise
            try:
                if self._connection is None:
                    self._connection = _patiently_open(self.path)
                return work(self._connection)
            except (sqlite3.Error, OSError) as problem:
                self._let_go()
                error = problem
        warnings.warn(
            f"the score cache {self.path} cannot be used, and scoring goes on without it: {error}. "
            "Name another file, or delete this one if it is damaged",
            RuntimeWarning,
            stacklevel=2,
        )
        return otherwise

    def _let_go(self) -> None:
        self._usable = False
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _cost(self, leaf: bytes, connection: sqlite3.Connection) -> Cost:
        if leaf not in self._costs:
            row = connection.execute("SELECT units, seconds FROM cost WHERE leaf = ?", (leaf,)).fetchone()
            self._costs[leaf] = Cost() if row is None else Cost(*row, *row)
        return self._costs[leaf]

    def _write_cost(self, leaf: bytes, name: str, connection: sqlite3.Connection) -> None:
        cost = self._cost(leaf, connection)
        more = cost.units - cost.units_written, cost.seconds - cost.seconds_written
        connection.execute(
            "INSERT INTO cost VALUES (?, ?, ?, ?) ON CONFLICT (leaf) DO UPDATE SET "
            "units = units + excluded.units, seconds = seconds + excluded.seconds",
            (leaf, name, *more),
        )
        cost.units_written, cost.seconds_written = cost.units, cost.seconds


def _patiently_open(path: Path) -> sqlite3.Connection:
    """As `_open`, again and again while others are at the file: to change its mode, SQLite itself does not wait."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return _open(path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a score cache, which is made if there is no file or an empty one.

    Raises:
        sqlite3.Error, OSError: if that cannot be, or the file is something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        with connection:
            connection.execute("BEGIN")
            _is_new(connection)  # or somebody else's, in which nothing may be changed
        connection.execute("PRAGMA journal_mode = WAL")  # readers and a writer do not wait for each other
        connection.execute("PRAGMA synchronous = NORMAL")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if _is_new(connection):
                connection.execute(f"PRAGMA application_id = {FORMAT}")
                for statement in SCHEMA:
                    connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether there is nothing in a database yet; an error if there is something that is no score cache."""
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found != FORMAT and (found or tables):
        raise sqlite3.DatabaseError("it is another database, or a score cache of another version")
    return not tables
