"""`sql.execution` against executing and fetching both queries, on a connection that is open already.

    python benchmarks/sql_execution.py [--seconds 0.5] [--rounds 7]

Prints a line of JSON for each system and shape of result: microseconds of computing per row of the batch,
medians over rounds in which the two take turns, and their ratio. The reference is another in each row, so
that its result is never one that was kept. Each size has a table of its own, and one of the same rows
shuffled: "ordered" has both results in the same order, "shuffled" has the second from the shuffled table.
These queries do nothing but read; "grouped" counts 1 000 shuffled rows in as many groups as there are rows
in the result.
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
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from guerdon.rewards import sql

SIZES = (10, 1000, 10_000, 100_000)


def filled(connection: Any, kept: list[tuple[int, str, float]], shuffled: list[tuple[int, str, float]]) -> None:
    for table, rows in (("ordered", kept), ("shuffled", shuffled)):
        connection.execute(f"CREATE TABLE {table}_{len(rows)} (id INTEGER, name TEXT, price DOUBLE)")
        if isinstance(connection, sqlite3.Connection):
            connection.executemany(f"INSERT INTO {table}_{len(rows)} VALUES (?, ?, ?)", rows)
        else:
            columns = dict(zip(("id", "name", "price"), map(np.array, zip(*rows, strict=True)), strict=True))
            connection.register("columns", columns)
            connection.execute(f"INSERT INTO {table}_{len(rows)} SELECT * FROM columns")
    connection.commit()


def queries(number: int, rows: int, order: str) -> tuple[str, str]:
    if order == "grouped":
        one = f"SELECT id % {rows} AS kind, count(*), sum(price) FROM shuffled_1000 WHERE id > -{number} GROUP BY kind"
        return one, f"{one} ORDER BY count(*) DESC, kind DESC"
    return (
        f"SELECT id, name, price FROM ordered_{rows} WHERE id > -{number + 1}",
        f"SELECT id, name, price FROM {order}_{rows} WHERE id > -{number + 2}",
    )


def ways(judge: Any, reading: Any, path: str, rows: int, order: str) -> tuple[Callable[[int], Any], ...]:
    def ours(number: int) -> None:
        gold, said = queries(number, rows, order)
        assert judge(said, gold, path)[0] == 1.0

    def theirs(number: int) -> None:
        for query in queries(number, rows, order):
            reading.execute(query).fetchall()

    return ours, theirs


def paired(
    ours: Callable[[int], Any], theirs: Callable[[int], Any], seconds: float, rounds: int
) -> tuple[float, float]:
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
    return statistics.median(taken["ours"]), statistics.median(taken["theirs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for system in ("sqlite", "duckdb"):
            path = str(Path(folder, f"{system}.db"))
            writing: Any = sqlite3.connect(path) if system == "sqlite" else duckdb.connect(path)
            for size in SIZES:
                rows = [(k, f"name {k * 7919 % size}", k / 3) for k in range(size)]
                filled(writing, rows, random.Random(0).sample(rows, size))
            writing.close()
            reading: Any = (
                sqlite3.connect(path)
                if system == "sqlite"
                else duckdb.connect(path, read_only=True, config=sql.databases._CLOSED)
            )
            judge = sql.execution(system=system, seconds=60.0).evaluate
            for size, order in (*itertools.product(SIZES, ("ordered", "shuffled")), (10, "grouped"), (100, "grouped")):
                ours, theirs = ways(judge, reading, path, size, order)
                ours(0)
                mine, direct = paired(ours, theirs, arguments.seconds, arguments.rounds)
                report = {"system": system, "rows": size, "order": order, "reward_us": round(mine, 1)}
                print(
                    json.dumps({**report, "direct_us": round(direct, 1), "ratio": round(mine / direct, 3)}), flush=True
                )


if __name__ == "__main__":
    main()
