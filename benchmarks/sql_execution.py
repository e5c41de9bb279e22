"""`sql.execution` against executing and fetching both queries, on a connection that is open already.

    python benchmarks/sql_execution.py [--seconds 0.2] [--rounds 25] [--group 8] [--system duckdb] [--rows 1000]

Prints a line of JSON for each system and shape of result: microseconds of computing per row of the batch and
their ratio, medians over rounds in which the two take turns. No query comes twice, so that neither a result nor a
prepared statement is one that was kept; but with `--group`, which is how training has them: so many answers in
turn have one reference. Each size has a table of its own, and one of the same rows shuffled: "ordered" has both
results in the same order, "shuffled" has the second from the shuffled table, and so have "repeating", of which no
column tells rows apart, though together they do, "twice", which has each row twice, "tenth", a tenth of whose rows
has come before, "sparse", with NULL in two columns, and "wrong", where one row is another. "sliced" is the first
rows of 100 000, and backwards; "apart" the first rows of two tables of 50 000 that differ only in their order. These
queries do nothing but read; "grouped" counts 1 000 shuffled rows in as many groups as there are rows in the result.

SQLite is executed directly by the standard library, as evaluations do it; with `--apsw` by APSW, as the reward does.
With `--tolerance` the prices of answers differ by their last digits; with `--answered` their types may be others, as
in `--system duckdb --columns "id, price" --answered "id::DOUBLE, price"`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import duckdb

from guerdon.rewards import sql
from guerdon.rewards.sql.duck import CLOSED

SYSTEMS = ("sqlite", "duckdb")
SIZES = (10, 100, 1000, 10_000, 100_000)
Row = tuple[int, str | None, float | None]
SHAPES: dict[str, Callable[[int, int], Row]] = {
    "repeating": lambda k, size: (k % 30, f"name {k % 31}", k % 32 / 3),
    "twice": lambda k, size: (k // 2, f"name {k // 2}", k // 2 / 3),
    "tenth": lambda k, size: (k % (size - size // 10), f"name {k % (size - size // 10)}", 1 / 3),
    "sparse": lambda k, size: (k, f"name {k}" if k % 3 else None, k / 3 if k % 5 else None),
    "wrong": lambda k, size: (k, f"name {k}", k / 3),
}
SHAPED = (("repeating", 1000), *itertools.product(("twice", "tenth", "sparse", "wrong"), (1000, 100_000)))
OTHERS = (*itertools.product(("sliced", "apart"), (100, 1000)), ("apart", 500), ("grouped", 10), ("grouped", 100))
LARGE = 50_000  # rows of the tables whose first ones are apart


def fill(connection: Any, name: str, rows: list[Row], first: int | None = None, wrong: bool = False) -> None:
    """A table of these rows, and one of which the first, or all, are shuffled, and one may be wrong."""
    moved = rows[:first]
    shuffled = random.Random(0).sample(moved, len(moved)) + rows[len(moved) :]
    if wrong:
        shuffled[len(rows) // 2] = (len(rows), "other", -1.0)
    for table, kept in ((name, rows), (f"shuffled_{name}", shuffled)):
        connection.execute(f"CREATE TABLE {table} (id INTEGER, name TEXT, price DOUBLE)")
        if isinstance(connection, sqlite3.Connection):
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", kept)
        else:
            columns = [list(column) for column in zip(*kept, strict=True)]
            connection.execute(f"INSERT INTO {table} SELECT unnest($1), unnest($2), unnest($3)", columns)
    connection.commit()


def queries(number: int, rows: int, order: str, group: int, columns: str, answered: str) -> tuple[str, str]:
    """The reference of an answer, and the answer."""
    first = number - number % group
    if order == "grouped":
        one, other = (
            f"SELECT id % {rows} AS kind, count(*), sum(price) FROM shuffled_rows_1000 WHERE id > -{k} GROUP BY kind"
            for k in (2 * first + 1, 2 * number + 2)
        )
        return one, f"{other} ORDER BY count(*) DESC, kind DESC"
    if order == "sliced":
        return (
            f"SELECT {columns} FROM rows_100000 WHERE id > -{2 * first + 1} AND id < {rows}",
            f"SELECT {answered} FROM rows_100000 WHERE id > -{2 * number + 2} AND id < {rows} ORDER BY id DESC",
        )
    table = f"{order if order in (*SHAPES, 'apart') else 'rows'}_{rows}"
    other = table if order == "ordered" else f"shuffled_{table}"
    which = f" AND id < {rows}" if order == "apart" else ""
    return (
        f"SELECT {columns} FROM {table} WHERE id > -{2 * first + 1}{which}",
        f"SELECT {answered} FROM {other} WHERE id > -{2 * number + 2}{which}",
    )


def ways(
    judge: Any, reading: Any, path: str, asked: Callable[[int], tuple[str, str]], expected: float
) -> tuple[Callable[[int], Any], ...]:
    def ours(number: int) -> None:
        gold, said = asked(number)
        assert judge(said, gold, path)[0] == expected

    def theirs(number: int) -> None:
        for query in asked(number):
            reading.execute(query).fetchall()

    return ours, theirs


def paired(
    ours: Callable[[int], Any], theirs: Callable[[int], Any], seconds: float, rounds: int
) -> tuple[float, float, float]:
    """Microseconds of each way, and their ratio, that of a round: a machine is slower at some times than at others."""
    numbers = itertools.count()
    start = time.process_time()
    theirs(next(numbers))
    count = max(1, int(seconds / (time.process_time() - start)))
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, way in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            for number in itertools.islice(numbers, count):
                way(number)
            taken[name].append((time.process_time() - start) / count * 1e6)
    ratios = [mine / direct for mine, direct in zip(taken["ours"], taken["theirs"], strict=True)]
    return statistics.median(taken["ours"]), statistics.median(taken["theirs"]), statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each turn")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--group", type=int, default=1, help="answers that have one reference")
    parser.add_argument("--system", choices=SYSTEMS, action="append", help="which systems; all, if none is named")
    parser.add_argument("--rows", type=int, choices=(*SIZES, 500), action="append", help="which sizes of results")
    parser.add_argument("--order", action="append", help="which shapes; all, if none is named")
    parser.add_argument("--apsw", action="store_true", help="the direct way of SQLite is by APSW")
    parser.add_argument("--columns", default="id, name, price", help="what is selected, but for groups")
    parser.add_argument("--answered", help="what answers select, if it is something else")
    parser.add_argument("--tolerance", type=float, default=0.0)
    arguments = parser.parse_args()
    moved = "price * (1 + 1e-13)" if arguments.tolerance else "price"
    with tempfile.TemporaryDirectory() as folder:
        for system in arguments.system or SYSTEMS:
            path = str(Path(folder, f"{system}.db"))
            writing: Any = sqlite3.connect(path) if system == "sqlite" else duckdb.connect(path)
            for size in SIZES:
                fill(writing, f"rows_{size}", [(k, f"name {k * 7919 % size}", k / 3) for k in range(size)])
            for shape, size in SHAPED:
                fill(writing, f"{shape}_{size}", [SHAPES[shape](k, size) for k in range(size)], wrong=shape == "wrong")
            for shape, size in OTHERS:
                if shape == "apart":
                    fill(writing, f"apart_{size}", [SHAPES["wrong"](k, size) for k in range(LARGE)], size)
            writing.close()
            reading: Any
            if system == "duckdb":
                reading = duckdb.connect(path, read_only=True, config=CLOSED)
            else:
                reading = apsw.Connection(path) if arguments.apsw else sqlite3.connect(path)
            judge = sql.execution(system=system, seconds=60.0, tolerance=arguments.tolerance).evaluate
            cases = [(order, size) for size in SIZES for order in ("ordered", "shuffled")]
            for order, size in (*cases, *SHAPED, *OTHERS):
                if size not in (arguments.rows or (size,)) or order not in (arguments.order or (order,)):
                    continue
                asked = partial(
                    queries,
                    rows=size,
                    order=order,
                    group=arguments.group,
                    columns=arguments.columns,
                    answered=(arguments.answered or arguments.columns).replace("price", moved),
                )
                ours, theirs = ways(judge, reading, path, asked, float(order != "wrong"))
                ours(0)
                mine, direct, ratio = paired(ours, theirs, arguments.seconds, arguments.rounds)
                case = {"system": system, "rows": size, "order": order, "group": arguments.group}
                times = {"reward_us": round(mine, 1), "direct_us": round(direct, 1), "ratio": round(ratio, 3)}
                print(json.dumps(case | times), flush=True)


if __name__ == "__main__":
    main()
