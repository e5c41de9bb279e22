"""`sql.execution` against executing and fetching both queries, on a connection that is open already.

    python benchmarks/sql_execution.py [--seconds 0.5] [--rounds 7]

Prints a line of JSON for each system and shape of result: microseconds of computing per row of the batch,
medians over rounds in which the two take turns, and their ratio. The reference is another in each row, so
that its result is never one that was kept. "ordered" has both results in the same order, "reversed" in opposite ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from guerdon.rewards import sql

MOST = 100_000
SCHEMA = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price DOUBLE)"
ROWS = [(k, f"name {k * 7919 % MOST}", k / 3) for k in range(MOST)]


def queries(number: int, rows: int, turned: bool) -> tuple[str, str]:
    order = "DESC" if turned else "ASC"
    return (
        f"SELECT id, name, price FROM t WHERE id < {rows} AND id > -{number + 1} ORDER BY id",
        f"SELECT id, name, price FROM t WHERE id < {rows} AND id > -{number + 2} ORDER BY id {order}",
    )


def ways(judge: Any, reading: Any, path: str, rows: int, turned: bool) -> tuple[Callable[[int], Any], ...]:
    def ours(number: int) -> None:
        gold, said = queries(number, rows, turned)
        assert judge(said, gold, path)[0] == 1.0

    def theirs(number: int) -> None:
        for query in queries(number, rows, turned):
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
            writing.execute(SCHEMA)
            if system == "sqlite":
                writing.executemany("INSERT INTO t VALUES (?, ?, ?)", ROWS)
                writing.commit()
            else:
                writing.execute(
                    f"INSERT INTO t SELECT range, 'name ' || (range * 7919 % {MOST}), range / 3 FROM range({MOST})"
                )
            writing.close()
            reading: Any = (
                sqlite3.connect(path)
                if system == "sqlite"
                else duckdb.connect(path, read_only=True, config=sql.databases._CLOSED)
            )
            judge = sql.execution(system=system, seconds=60.0).evaluate
            for rows, turned in ((10, True), (1000, True), (1000, False), (MOST, False), (10_000, True), (MOST, True)):
                ours, theirs = ways(judge, reading, path, rows, turned)
                ours(0)
                mine, direct = paired(ours, theirs, arguments.seconds, arguments.rounds)
                order = "reversed" if turned else "ordered"
                report = {"system": system, "rows": rows, "order": order, "reward_us": round(mine, 1)}
                print(
                    json.dumps({**report, "direct_us": round(direct, 1), "ratio": round(mine / direct, 3)}), flush=True
                )


if __name__ == "__main__":
    main()
