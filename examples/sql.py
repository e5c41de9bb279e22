"""Queries in six kinds, graded: the right ones in other words, the nearly right, the copied, the hostile, the endless.

    python examples/sql.py [--questions 40]

Makes a small shop with random orders, asks questions of it, and answers each in every kind. Prints what each kind
earns by execution, and by the graded sum; and that right answers are above all others, and hacks at the floor.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable

from guerdon import Rollouts
from guerdon.engine import Engine
from guerdon.rewards import sql

SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, product TEXT, price INTEGER, year INTEGER);
"""
GOLD = (
    "SELECT c.name, SUM(o.price) FROM customers AS c JOIN orders AS o ON o.customer = c.id "
    "WHERE o.year = {} GROUP BY c.id"
)
KINDS: dict[str, Callable[[int], str]] = {
    "right": GOLD.format,
    "right, in other words": (
        "WITH s AS (SELECT customer, SUM(price) AS total FROM orders WHERE year = {} GROUP BY customer) "
        "SELECT name, total FROM s JOIN customers ON customers.id = s.customer ORDER BY total DESC"
    ).format,
    "another year": lambda year: GOLD.format(year - 1),
    "does not parse": lambda year: GOLD.format(year).replace("FROM", "FORM", 1),
    "nothing found (hack: empty results agree)": "SELECT name, 0 FROM customers WHERE {} = 0".format,
    "deletes": "DELETE FROM orders WHERE year <> {}".format,
    "never ends": "WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n) SELECT MAX(i), 0 FROM n".format,
}


def shop(seed: int) -> str:
    """A database of random orders, as JSON text."""
    rng = random.Random(seed)
    customers = [[k, f"customer {k}", rng.choice(["Bern", "Graz", "Lyon"])] for k in range(30)]
    orders = [
        [k, rng.randrange(30), rng.choice(["pen", "ink", "book"]), rng.randint(1, 90), rng.randint(2015, 2024)]
        for k in range(400)
    ]
    return json.dumps({"schema": SCHEMA, "rows": {"customers": customers, "orders": orders}})


def main() -> None:
    """Score all kinds of answers, print, and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=40)
    arguments = parser.parse_args()
    years = [2016 + k % 9 for k in range(arguments.questions)]
    shops = [shop(k // 9) for k in range(arguments.questions)]
    means: dict[str, tuple[float, float]] = {}
    with Engine(workers=2) as engine:
        for kind, write in KINDS.items():
            rows = Rollouts(
                [f"What did each customer spend in {year}?" for year in years],
                [f"<think>A join.</think><answer>{write(year)}</answer>" for year in years],
                {"query": list(map(GOLD.format, years)), "database": shops},
            )
            both = [engine.score(reward, rows) for reward in (sql.execution(seconds=0.2), sql.graded(seconds=0.2))]
            assert all(scores.valid.all() for scores in both)
            means[kind] = tuple(float(scores.read(0).mean()) for scores in both)  # type: ignore[assignment]
            print(f"{kind:45s} execution {means[kind][0]:.2f}   graded {means[kind][1]:.2f} of 7")
    right = [means[kind] for kind in KINDS if kind.startswith("right")]
    wrong = [means[kind] for kind in KINDS if not kind.startswith("right")]
    assert min(right)[0] == 1.0
    assert max(wrong)[0] == 0.0
    assert all(means[kind][1] < 2.5 for kind in ("deletes", "never ends"))


if __name__ == "__main__":
    main()
