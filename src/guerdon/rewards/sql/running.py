"""`sql.execution`: a query is executed beside the reference, and gives the same rows or does not."""

from __future__ import annotations

import gc
import math
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion
from guerdon.rewards.sql.columns import Columns, Result, as_rows
from guerdon.rewards.sql.databases import AT_ONCE, Database, More, QueryFailed, fetched, pieces
from guerdon.rewards.sql.opening import System, opened
from guerdon.rewards.sql.reading import LONGEST, ordered, query_in, reference
from guerdon.rewards.sql.results import difference, difference_of_pieces

Order = Literal["ignore", "keep", "as_asked"]

START = 30.0  # seconds, besides those of the queries, after which an engine gives a row up


def valid(*, seconds: float, rows: int, tolerance: float, system: System, **others: Any) -> tuple[str, ...]:
    """Nothing that is required, and a check of the options.

    Raises:
        ValueError: if one of them cannot be meant.
        MissingExtra: if what the system needs is not installed.
    """
    if not 0 < seconds < math.inf or rows < 1:
        raise ValueError(f"seconds and rows are positive, got {seconds} and {rows}")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"a tolerance is 0 or more, got {tolerance}")
    library = "duckdb" if system == "duckdb" else "apsw"
    return needs(f"a query of {system}", library, extra="sql")()


def longest(*, seconds: float, **others: Any) -> float:
    """The engine's deadline for a row: a worker that is at it for longer is stuck."""
    return 2 * seconds + START


@reward(range=(0, 1), requires=valid, deadline=longest)
def execution(
    completion: Completion,
    query: Any,
    database: Any,
    *,
    system: System = "sqlite",
    order: Order = "ignore",
    empty: Literal["abstain", "accept"] = "abstain",
    tolerance: float = 0.0,
    seconds: float = 5.0,
    rows: int = 100_000,
    folder: str = "",
) -> tuple[float, dict[str, Any]]:
    """1 if a query gives the rows that the reference gives, each as often, else 0.

    The database is open for reading. A query that writes, attaches or sets something, several statements, and one
    that is not done in time get the floor. In SQLite that is decided as it is prepared and while it runs; DuckDB
    has in addition no files and no network. Cells are equal as in Python, 1 = 1.0 and NULL = NULL; NaN equals NaN, and
    a decimal of DuckDB beside floats the nearest of them.

    Args:
        completion: the reply: text or chat messages.
        query: the reference.
        database: the path of a file; or `{"schema": "CREATE TABLE …", "rows": {"table": [[…], …]}}`, or its JSON text.
            One of DuckDB stays what it was when it was first opened, also when another file takes its place.
        system: what executes them.
        order: 'ignore' compares multisets; a set, as some benchmarks have it, would let `SELECT DISTINCT` pass for a
            query without. 'keep' compares lists, 'as_asked' if the reference's outermost query has an ORDER BY; where
            that leaves ties, both deny right answers.
        empty: what becomes of a reference without rows: any query that finds nothing equals it, so by default it is
            an abstention.
        tolerance: how far two numbers may differ, |a − b| ≤ tolerance · max(1, |b|), where one of them is a float: sums
            depend on the order of their terms.
        seconds: each query may take.
        rows: the reference may give; if it gives more, the row abstains. Of the answer no more are fetched than it
            takes to see a difference.
        folder: where relative paths begin.

    Returns:
        The score, and as details the query, and why the score is not 1.

    Raises:
        Abstain: if the database cannot be opened, or the reference gives no result.
        MissingExtra: at once, if what the system needs is not installed.
        ValueError: at once, if a limit is not positive.

    >>> from guerdon.rewards import sql
    >>> shop = {"schema": "CREATE TABLE t (a, b)", "rows": {"t": [[1, 1], [2, 2], [3, 2]]}}
    >>> judge = sql.execution().evaluate
    >>> judge("```sql\\nSELECT a FROM t WHERE b > 1 ORDER BY a DESC\\n```", "SELECT a FROM t WHERE b = 2", shop)[0]
    1.0
    >>> judge("DELETE FROM t", "SELECT a FROM t WHERE b = 2", shop)
    (0.0, {'query': 'DELETE FROM t', 'reason': 'not authorized'})

    Source: execution accuracy of Spider and BIRD (arXiv 2305.03111), with multisets in place of sets; the execution
    reward of Reasoning-SQL (arXiv 2503.23157).
    """
    said = query_in(completion)
    wrong, _ = compared(
        said, reference(query), database, system=system, order=order, empty=empty, tolerance=tolerance,
        seconds=seconds, rows=rows, folder=folder,
    )  # fmt: skip
    return float(wrong is None), {"query": said, **({"reason": wrong} if wrong else {})}


def compared(
    said: str,
    wanted: str,
    database: Any,
    *,
    system: System,
    order: Order,
    empty: Literal["abstain", "accept"],
    tolerance: float,
    seconds: float,
    rows: int,
    folder: str,
) -> tuple[str | None, bool]:
    """Why the results of two queries differ, None if they do not; and whether the first gives a result at all.

    Raises:
        Abstain: if the database cannot be opened, or the second query gives no result.
    """
    base = opened(database, system, folder)
    collecting = gc.isenabled()
    gc.disable()  # no row is part of a cycle, and to look for cycles takes a quarter of the time of fetching lists
    try:
        return _compared(base, said, wanted, order, empty, tolerance, seconds, rows)
    finally:
        if collecting:
            gc.enable()


def _compared(
    base: Database,
    said: str,
    wanted: str,
    order: Order,
    empty: Literal["abstain", "accept"],
    tolerance: float,
    seconds: float,
    rows: int,
) -> tuple[str | None, bool]:
    """The same in a database that is open."""
    try:
        known = fetched(base, wanted, seconds, rows)
    except QueryFailed as error:
        raise Abstain(f"the reference {error}" if _verb(error) else f"the reference fails: {error}") from None
    expected = known.result
    if not len(expected) and empty == "abstain":
        raise Abstain("the reference gives no rows, as many wrong queries do; empty='accept' takes it")
    if not said or len(said) > LONGEST:
        return ("no query" if not said else f"more than {LONGEST} characters"), False
    keep = order == "keep" or (order == "as_asked" and ordered(wanted))

    def unlike(columns: int, first: Result, more: More) -> str | None:
        if columns != known.width:
            return f"gives {columns} columns, not {known.width}"
        if isinstance(first, Columns) or len(first) < AT_ONCE:
            return difference(expected, first, ordered=keep, tolerance=tolerance)
        return difference_of_pieces(as_rows(expected), pieces(first, more), ordered=keep, tolerance=tolerance)

    try:
        most = len(expected) + 1  # more than are expected are wrong, however many
        bulk = most if known.beside else 0
        return base.run(said, seconds, min(most, AT_ONCE), unlike, bulk), True
    except QueryFailed as error:
        return str(error), False


def _verb(error: QueryFailed) -> bool:
    return str(error).split()[0] in ("gives", "takes", "is")
