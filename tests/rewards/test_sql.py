"""Generated SQL: results as multisets, what a query may not do, and what its text is worth."""

import gc
import itertools
import json
import math
import os
import random
import re
import signal
import sqlite3
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon import algebra
from guerdon.algebra import spec
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown
from guerdon.core.rollouts import Rollouts
from guerdon.rewards import sql
from guerdon.rewards.sql import databases, duck, running
from guerdon.rewards.sql.alarm import Alarm
from guerdon.rewards.sql.columns import Columns, as_rows
from guerdon.rewards.sql.databases import Known, QueryFailed, fetched
from guerdon.rewards.sql.opening import opened
from guerdon.rewards.sql.reading import only_table, ordered, query_in
from guerdon.rewards.sql.results import difference, difference_of_pieces

SHOP = {
    "schema": "CREATE TABLE t (a INTEGER, b INTEGER); CREATE TABLE u (a INTEGER, name TEXT);",
    "rows": {"t": [[1, 1], [2, 2], [3, 3], [3, 4]], "u": [[1, "one"], [2, "two"], [3, None]]},
}
GOLD = "SELECT a FROM t WHERE b>1"
SYSTEMS = ["sqlite", "duckdb"]


def same(expected, result, *, ordered):
    return difference(expected, result, ordered=ordered) is None


def streamed(expected, *pieces, ordered=False, tolerance=0.0):
    return difference_of_pieces(expected, iter(pieces), ordered=ordered, tolerance=tolerance)


def score(query, gold=GOLD, database=SHOP, **options):
    return sql.execution(**options).evaluate(query, gold, database)


@pytest.fixture(params=SYSTEMS)
def shop_file(request, tmp_path):
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path) if request.param == "sqlite" else duckdb.connect(str(path))
    for statement in SHOP["schema"].split(";")[:2]:
        connection.execute(statement)
    connection.executemany("INSERT INTO t VALUES (?, ?)", SHOP["rows"]["t"])
    connection.commit()
    connection.close()
    return request.param, path


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t WHERE b > 1", 1.0),
        ("SELECT a FROM t WHERE b > 1 ORDER BY a DESC", 1.0),
        ("```sql\nSELECT t.a FROM t WHERE NOT b <= 1;\n```", 1.0),
        ("SELECT DISTINCT a FROM t WHERE b > 1", 0.0),  # as a set it would be right
        ("SELECT a FROM t WHERE b > 1 UNION ALL SELECT 3", 0.0),
        ("SELECT a FROM t WHERE b > 2", 0.0),
        ("SELECT a, b FROM t WHERE b > 1", 0.0),
        ("SELECT a FROM nothing", 0.0),
        ("no query at all", 0.0),
        ("", 0.0),
    ],
)
def test_a_query_is_right_if_it_gives_the_same_rows_as_often(system, query, expected):
    assert score(query, system=system)[0] == expected


@pytest.mark.parametrize("system", SYSTEMS)
def test_order_counts_where_it_is_asked_for(system):
    up, down = "SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"
    assert score(down, up, system=system)[0] == 1.0
    assert score(down, up, system=system, order="keep")[0] == 0.0
    alone = ("SELECT b FROM t ORDER BY b DESC", "SELECT b FROM t ORDER BY b")  # no two rows are the same
    assert [score(*alone, system=system, order=order)[0] for order in ("ignore", "keep")] == [1.0, 0.0]
    assert score(down, up, system=system, order="as_asked")[0] == 0.0
    assert score(down, "SELECT a FROM t", system=system, order="as_asked")[0] == 1.0


def test_an_order_inside_brackets_comments_and_texts_is_not_the_results():
    assert ordered("SELECT a FROM t\nORDER  BY a")
    assert not ordered("SELECT a FROM (SELECT a FROM t ORDER BY a) -- order by a")
    assert not ordered("SELECT 'order by', \"order by\" FROM t /* order by */")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "hostile",
    [
        "DELETE FROM t",
        "INSERT INTO t VALUES (9, 9)",
        "DROP TABLE t",
        "CREATE TEMP TABLE x AS SELECT 1",
        "UPDATE t SET a = 0",
        "ATTACH DATABASE '/tmp/guerdon_sql_attached.db' AS x",
        "SELECT a FROM t WHERE b>1; DROP TABLE t",
        "SELECT a FROM t WHERE b>1; SELECT a FROM t WHERE b>1",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "SELECT a FROM t WHERE b > 1 AND 0 = (SELECT 0 FROM pragma_hard_heap_limit)",  # of the whole process
        'SELECT * FROM "PRAGMA_hard_heap_limit"',
        "SELECT name FROM pragma_table_info('t')",
        "WITH old AS (SELECT 2) DELETE FROM t WHERE a IN old",
        "WITH new AS (SELECT 9, 9) INSERT INTO t SELECT * FROM new",
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY t TO '/tmp/guerdon_sql_copied.csv'",
        "SET threads = 4",
        "INSTALL httpfs",
        "EXPORT DATABASE '/tmp/guerdon_sql_exported'",
        "VACUUM INTO '/tmp/guerdon_sql_vacuumed.db'",
    ],
)
def test_a_query_that_does_more_than_read_gets_the_floor_and_changes_nothing(system, hostile):
    found, details = score(hostile, system=system)
    assert found == 0.0
    assert details["reason"]
    if system == "sqlite" and ("pragma" in hostile.lower() or "VACUUM" in hostile):
        assert re.search("not authorized|authorization denied", details["reason"])
    assert score(GOLD, system=system)[0] == 1.0
    assert not list(Path("/tmp").glob("guerdon_sql_*"))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("SELECT 1 -- done", 1.0),
        ("SELECT 1; -- done", 1.0),
        ("-- well\nSELECT 1; /* done */ ;", 1.0),
        ("VALUES (1)", 1.0),
        ("SELECT 1;;;SELECT 1", 0.0),
        ("SELECT 1; garbage", 0.0),
        ("SELECT 1; SELECT 1 WHERE 0", 0.0),
        ("-- SELECT 1", 0.0),
        ("EXPLAIN SELECT 1", 0.0),
        ("SELECT ?", 0.0),
        ("SELECT $a", 0.0),
        ("SELECT 1\0; DROP TABLE t", 0.0),
        ("SELECT '\udcff'", 0.0),
        ("SELECT x'ff'", 0.0),
        ("SELECT CAST(x'ff' AS TEXT)", 0.0),
        ("SELECT abs(-9223372036854775808)", 0.0),
    ],
)
def test_a_query_is_one_statement_with_comments_or_without(system, answer, expected):
    found, details = score(answer, "SELECT 1", system=system)
    assert found == expected
    assert expected or details["reason"]
    assert score("SELECT 1", "SELECT 1", system=system)[0] == 1.0


def test_settings_of_duckdb_are_locked():
    database = opened(SHOP, "duckdb", "")
    with pytest.raises(duckdb.Error, match="locked"):
        database._connections[0].cursor().execute("SET threads = 2")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("error", [ValueError, RuntimeError, MemoryError])
def test_what_fails_in_comparing_is_no_fault_of_the_query(system, error, monkeypatch):
    def failing(*results, **options):
        raise error("of ours")

    monkeypatch.setattr(running, "difference", failing)
    with pytest.raises(error, match="of ours"):
        score(GOLD, system=system)
    monkeypatch.undo()
    assert score(GOLD, system=system)[0] == 1.0


@pytest.mark.parametrize(
    ("system", "bad"),
    [
        ("sqlite", "abs(-9223372036854775807 - (a / 3900))"),
        ("duckdb", "(CASE a WHEN 3900 THEN 'x' ELSE '0' END)::INTEGER"),
    ],
)
def test_what_fails_after_its_first_rows_is_a_query_that_fails(system, bad):
    """One cell, far behind, of a result that is compared as it comes."""
    numbers = "WITH RECURSIVE r(a) AS (SELECT 0 UNION ALL SELECT a + 1 FROM r WHERE a < 4000) SELECT a FROM r"
    found, details = score(f"{numbers} WHERE a < 3900 OR {bad} IS NOT NULL", numbers, system=system)
    assert found == 0.0
    assert re.search("overflow|Conversion Error", details["reason"])


def test_a_view_is_no_way_to_a_pragma():
    """Its name stands in the database, not in the query."""
    shop = {**SHOP, "schema": SHOP["schema"] + " CREATE VIEW v AS SELECT name FROM pragma_table_info('t')"}
    found, details = score("SELECT * FROM v", database=shop, system="sqlite")
    assert (found, "not authorized" in details["reason"]) == (0.0, True)
    assert score(GOLD, database=shop, system="sqlite")[0] == 1.0


def test_threads_open_a_file_each_for_itself(shop_file):
    system, path = shop_file
    with ThreadPoolExecutor(3) as pool:
        gate = threading.Barrier(3)

        def judged(thread):
            gate.wait()
            asked = [f"SELECT a + {thread} + {k} FROM t" for k in range(60)]
            return [score(query, query, database=str(path), system=system)[0] for query in asked]

        assert list(pool.map(judged, range(3))) == [[1.0] * 60] * 3


def test_files_are_open_for_reading_only(shop_file):
    system, path = shop_file
    before = path.read_bytes()
    for query in ("DELETE FROM t", "CREATE TABLE x (a INTEGER)", "PRAGMA user_version = 7"):
        assert score(query, database=str(path), system=system)[0] == 0.0
    assert score(GOLD, database="shop.db", folder=str(path.parent), system=system)[0] == 1.0
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["shop.db"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_query_that_never_ends_is_ended_and_the_next_one_is_not(system):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    start = time.monotonic()
    assert score(endless, system=system, seconds=0.2) == (0.0, {"query": endless, "reason": "takes more than 0.2 s"})
    assert time.monotonic() - start < 5
    assert score(GOLD, system=system, seconds=0.2)[0] == 1.0


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_query_with_less_time_than_those_before_is_ended_in_its_own(system):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    assert score(GOLD, system=system, seconds=60.0)[0] == 1.0
    start = time.monotonic()
    assert score(endless, system=system, seconds=0.2)[1]["reason"] == "takes more than 0.2 s"
    assert time.monotonic() - start < 5


def test_an_alarm_goes_off_once_a_query_is_late_and_only_then():
    stopped = threading.Event()
    alarm = Alarm(stopped.set)
    alarm.set(1.0)
    thread = alarm._thread
    alarm.unset()
    thread.join(5)
    assert (thread.is_alive(), stopped.is_set(), alarm.late) == (False, False, False)
    alarm.set(60.0)
    alarm.set(0.05)
    assert stopped.wait(5)
    assert alarm.late
    alarm.set(60.0)
    assert not alarm.late
    thread = alarm._thread
    alarm.end()
    assert not thread.is_alive()


def test_an_alarm_is_for_the_query_that_was_the_last_to_set_it():
    stopped = threading.Event()
    alarm = Alarm(stopped.set)
    alarm.set(0.3)
    alarm.set(60.0)  # the first one ended in time, which nobody says
    assert not stopped.wait(0.6)
    assert not alarm.late
    alarm.set(0.2)
    assert stopped.wait(5)
    alarm._thread and alarm._thread.join(5)  # there is no other query: it ends
    stopped.clear()
    alarm.set(0.2)
    assert stopped.wait(5)
    assert alarm.late


def test_an_alarm_goes_off_in_a_fork():
    alarm = Alarm(lambda: os._exit(7))
    alarm.set(60.0)
    child = os.fork()
    if child == 0:
        signal.alarm(8)
        alarm.set(60.0)
        alarm.set(0.1)
        time.sleep(10)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    alarm.end()


def test_a_pivot_only_reads():
    counted = "SELECT * FROM (PIVOT u ON name IN ('one', 'two') USING count(*) GROUP BY a) ORDER BY a"
    assert score(counted, "VALUES (1, 1, 0), (2, 0, 1), (3, 0, 0)", system="duckdb")[0] == 1.0


def test_duckdb_reads_on_after_a_query_that_failed_as_it_ran():
    for wrong in ("SELECT CAST(name AS INTEGER) FROM u", "SELECT error('no')"):
        assert score(wrong, system="duckdb")[1]["reason"]
        assert score(GOLD, system="duckdb")[0] == 1.0


def test_a_sequence_of_duckdb_does_not_move():
    database = {"schema": "CREATE SEQUENCE s; CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1);"}
    assert score("SELECT nextval('s')", "SELECT a FROM t", database, system="duckdb")[0] == 0.0
    assert score("SELECT 1", "SELECT a FROM t", database, system="duckdb")[0] == 1.0


def test_the_row_that_is_wrong_is_the_one_that_is_shown():
    rows = [(1,), (2,), (3,)]
    assert streamed(rows, [(2,)], [(1,), (2,)]) == "has a row too often: (2,)"
    assert streamed(rows, [(2,)], [(1,), (4,)]) == "has a row that is not expected: (4,)"
    assert streamed(rows, [(1,), (2,)], [(1,)]) == "has a row too often: (1,)"
    assert streamed(rows, [(1,)], [(4,), (3,)], ordered=True) == "differs in row 2"
    twice = [*rows, (3,)]
    assert streamed(twice, [(3,), (2,), (3,), (3,)]) == "has a row too often: (3,)"
    assert streamed(twice, [(3,), (2,), (4,), (3,)]) == "has a row that is not expected: (4,)"
    assert streamed(twice, [(3,), (3,)]) == streamed(twice, [(1,)], [(2,)]) == "has 2 rows, not 4"
    assert streamed(twice, twice, [(1,)]) == "has a row too often: (1,)"
    assert streamed(twice, [(3,)], twice) == "has more than 4 rows"


def test_no_more_is_fetched_than_it_takes_to_see_a_difference():
    endless = "WITH RECURSIVE n(i) AS (SELECT 7 UNION ALL SELECT 7 FROM n) SELECT i FROM n"
    assert score(endless, seconds=60.0)[1]["reason"] == "has more than 3 rows"
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i FROM n"
    assert score(endless, many, seconds=60.0)[1]["reason"] == "has more than 3000 rows"
    assert score(endless, f"{many} WHERE i <> 7", seconds=60.0)[1]["reason"] == "has a row that is not expected: (7,)"


def test_a_result_of_duckdb_is_not_made_before_it_is_asked_for():
    many = "SELECT 7 FROM range(1000000000000)"
    assert score(many, system="duckdb", seconds=60.0)[1]["reason"] == "has more than 3 rows"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("rows", [databases.AT_ONCE + more for more in (-2, -1, 0, 1)])
def test_a_row_more_or_less_is_seen_where_fetching_ends(system, rows):
    def numbers(count):
        return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n"

    for order in ("ignore", "keep"):
        said = [score(numbers(rows + k), numbers(rows), system=system, order=order)[0] for k in (-1, 0, 1)]
        assert said == [0.0, 1.0, 0.0]


def test_a_cell_as_large_as_memory_is_refused():
    for size in (2_000_000_000, 2_000_000):
        assert "too big" in score(f"SELECT zeroblob({size})")[1]["reason"]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("gold", "database", "reason"),
    [
        ("SELECT nothing FROM t", SHOP, "the reference fails"),
        ("DROP TABLE t", SHOP, "the reference"),
        ("SELECT a FROM t WHERE b > 99", SHOP, "gives no rows"),
        (None, SHOP, "query not text"),
        (GOLD, "/nowhere/at/all.db", "database not usable"),
        (GOLD, {"tables": []}, "database not usable"),
        (GOLD, {"schema": "CREATE TABEL t (a)"}, "database not usable"),
        (GOLD, {"schema": "CREATE TABLE t (a BIGINT)", "rows": {"t": [[2**70]]}}, "database not usable"),
        (GOLD, {"schema": "CREATE TABLE t (a BIGINT)", "rows": {"t": [[1, 2]]}}, "database not usable"),
        (GOLD, __file__, "database not usable"),
        (GOLD, 7, "database not usable"),
    ],
)
def test_what_is_wrong_with_the_row_is_an_abstention(system, gold, database, reason):
    with pytest.raises(Abstain, match=reason):
        score("SELECT a FROM t", gold, database, system=system)


def test_an_empty_reference_is_taken_if_it_is_asked_for():
    assert score("SELECT a FROM t WHERE b = -1", "SELECT a FROM t WHERE b > 99", empty="accept")[0] == 1.0


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_reference_that_is_no_query_is_equal_to_nothing(system):
    with pytest.raises(Abstain, match="the reference"):
        score("-- nothing", "-- nothing", system=system, empty="accept")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_schema_may_be_several_statements_some_of_which_give_rows(system):
    database = {"schema": "CREATE TABLE t (a INTEGER); SELECT 1; INSERT INTO t VALUES (1), (2); -- done"}
    assert score("SELECT 1 UNION ALL SELECT 2", "SELECT a FROM t", database, system=system)[0] == 1.0


def test_the_answers_of_a_group_have_their_reference_executed_once(shop_file, monkeypatch):
    system, path = shop_file
    path, asked = str(path), []
    base = opened(path, system, "")
    run = base.run
    monkeypatch.setattr(base, "run", lambda query, *others: asked.append(query) or run(query, *others))
    for answer in ("SELECT 1", "SELECT a FROM t", "SELECT b FROM t"):
        score(answer, "SELECT a + 0 FROM t", path, system=system)
    assert asked == ["SELECT a + 0 FROM t", "SELECT 1", "SELECT a FROM t", "SELECT b FROM t"]


@pytest.mark.parametrize("many", [False, True])
def test_a_long_reference_is_let_go_before_the_next_is_fetched(shop_file, many, monkeypatch):
    class Kept(list):
        """Rows that can be watched."""

    system, path = shop_file
    base = opened(str(path), system, "")
    rows = Kept([(1,)] * (databases.AT_ONCE + many))
    watched = weakref.ref(rows)
    base.last = Known("SELECT 1 AS before", 1, rows)
    del rows
    run, gone = base.run, []
    monkeypatch.setattr(base, "run", lambda *asked: gone.append(watched() is None) or run(*asked))
    assert as_rows(fetched(base, "SELECT 2", 5.0, 10).result) == [(2,)]
    assert gone == [many]
    assert watched() is None


def test_a_reference_that_gives_too_much_abstains():
    for _ in range(2):
        with pytest.raises(Abstain, match="more than 2 rows"):
            score("SELECT a FROM t", "SELECT a FROM t", rows=2)
        assert score("SELECT a FROM t", "SELECT a FROM t", rows=4)[0] == 1.0


def test_sums_may_differ_by_their_order():
    gold, other = "SELECT 0.1 + 0.2 + 0.3 UNION ALL SELECT 2", "SELECT 2 UNION ALL SELECT 0.3 + 0.2 + 0.1"
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert score(other, gold)[0] == 0.0
    assert score(other, gold, tolerance=1e-9)[0] == 1.0
    assert score("SELECT 2 UNION ALL SELECT 0.61", gold, tolerance=1e-9)[0] == 0.0
    assert score("SELECT 3 UNION ALL SELECT 0.6", gold, tolerance=0.1)[0] == 0.0


def test_numbers_near_0_may_differ_by_the_tolerance_itself():
    for value, expected in ((9e-7, None), (2e-6, "has (2e-06,) where (0.0,) is expected")):
        assert streamed([(0.0,)], [(value,)], tolerance=1e-6) == expected


def test_rows_that_are_nearly_the_same_are_told_apart_by_what_is_exact():
    rows, others = [(1.0, "b"), (1.0 + 1e-9, "a")], [(1.0, "a"), (1.0 + 1e-9, "b")]
    assert streamed(rows, others, tolerance=1e-6) is None
    assert "is expected" in streamed(rows, others, ordered=True, tolerance=1e-6)


def test_nearly_the_same_is_not_asked_of_a_result_that_never_ends():
    asked = []
    pieces = ([(1.0,)] for k in range(100) if asked.append(k) is None)
    assert streamed([(1.0 + 1e-9,)], *itertools.islice(pieces, 2), tolerance=1e-6) == "has more than 1 rows"
    reason = difference_of_pieces([(1.0 + 1e-9,)], pieces, ordered=False, tolerance=1e-6)
    assert (reason, len(asked)) == ("has more than 1 rows", 4)
    assert streamed([(1.0,), (2.0,)], [(1.0 + 1e-9,)], tolerance=1e-6) == "has 1 rows, not 2"


def test_a_database_may_be_json_and_its_rows_records():
    records = {"schema": "CREATE TABLE t (b, a)", "rows": {"t": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}}
    assert score("SELECT 3", "SELECT a FROM t WHERE b = 4", json.dumps(records))[0] == 1.0


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "t.db"
    for value in (1, 2):
        connection = sqlite3.connect(path)
        connection.executescript(f"DROP TABLE IF EXISTS t; CREATE TABLE t (a); INSERT INTO t VALUES ({value});")
        connection.close()
        assert score(f"SELECT {value}", "SELECT a FROM t", str(path))[0] == 1.0
        assert score(f"SELECT {3 - value}", "SELECT a FROM t", str(path))[0] == 0.0


def test_a_file_of_duckdb_stays_what_it_was_as_duckdb_has_it(tmp_path):
    path, other = tmp_path / "t.db", tmp_path / "other.db"
    for value, place in ((1, path), (2, other)):
        duckdb.connect(str(place)).execute(f"CREATE TABLE t AS SELECT {value} AS a").close()
    assert score("SELECT 1", "SELECT a FROM t", str(path), system="duckdb")[0] == 1.0
    other.replace(path)
    assert score("SELECT 1", "SELECT a FROM t", str(path), system="duckdb")[0] == 1.0
    with pytest.raises(Abstain, match="database not usable"):
        score("SELECT 1", "SELECT a FROM t", str(other), system="duckdb")


cells = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from(["", "x"]), st.sampled_from([0.5, 1.0]))
tables = st.lists(st.tuples(cells, cells), max_size=8)


@given(tables, tables, st.integers(1, 4))
def test_results_are_compared_as_multisets_however_they_come(expected, other, size):
    pieces = [other[k : k + size] for k in range(0, len(other), size)]
    assert (streamed(expected, *pieces) is None) == (Counter(expected) == Counter(other))
    assert (streamed(expected, *pieces, ordered=True) is None) == (expected == other)


@given(tables, tables)
def test_results_that_come_at_once_are_compared_as_multisets_too(expected, other):
    assert same(expected, other, ordered=False) == (Counter(expected) == Counter(other))


@given(tables, st.randoms(use_true_random=False))
def test_the_same_rows_in_another_order_are_the_same_at_once(rows, rng):
    assert same(rows, rng.sample(rows, len(rows)), ordered=False)


SHAPES = {
    "told apart by a number": lambda k: (f"{k % 7}", k / 3),
    "each twice": lambda k: (k // 2, f"{k // 2}"),
    "few": lambda k: (f"{k % 5}", k % 5 / 3),
    "together apart": lambda k: (k % 50, f"{k % 51}"),
    "text twice": lambda k: (f"{k // 2}", "x"),
    "some NULL": lambda k: (k if k % 100 else None, "x"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_large_results_are_compared_as_multisets_in_whatever_way_is_quick(shape):
    rows = [SHAPES[shape](k) for k in range(2000)]
    for seed in range(3):
        other = random.Random(seed).sample(rows, len(rows))
        wrong = [*other[:-1], ("?", 0)]
        often = [*other[:-1], next(row for row in other if row != other[-1])]
        for answer, reason in (
            (other, None),
            (wrong, "has a row that is not expected: ('?', 0)"),
            (often, f"has a row too often: {often[-1]}"),
            (other[:-1], "has 1999 rows, not 2000"),
            ([*other, other[0]], "has more than 2000 rows"),
        ):
            assert streamed(rows, *[answer[k : k + 512] for k in range(0, len(answer), 512)]) == reason
            assert same(rows, answer, ordered=False) == (reason is None)


def test_a_result_is_not_gathered_that_has_more_rows_than_expected_or_longer_ones(monkeypatch):
    asked = []

    def pieces(piece):
        for k in range(100):
            asked.append(k)
            yield piece

    rows = [(k, "text") for k in range(300)]

    def told(pieces):
        asked.clear()
        return difference_of_pieces(rows, pieces, ordered=False), len(asked)

    assert told(pieces(rows[99::-1])) == ("has more than 300 rows", 4)
    assert told(pieces([(300, "text")])) == ("has a row that is not expected: (300, 'text')", 1)
    assert streamed(rows, rows[::-1], rows[:1]) == "has more than 300 rows"
    long = [(5, "text"), (6, "very" * 1000)]
    monkeypatch.setattr("guerdon.rewards.sql.results.MOST", 1000)
    assert told(pieces(long[::-1])) == (f"has a row that is not expected: {shown(long[1])}", 1)
    assert told(pieces(long)) == ("has longer rows than are expected", 1)
    assert told(pieces([(7, "text"), (6, b"very" * 1000)])) == ("has longer rows than are expected", 1)
    rows[6:] = [(6, "very" * 1000), *rows[7:]]
    assert told(iter([rows[:150][::-1], rows[150:][::-1]]))[0] is None
    assert told(pieces(rows[:150][::-1])) == ("has longer rows than are expected", 2)


NAN = [math.nan, float("nan"), -math.nan]


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
@pytest.mark.parametrize("ordered", [True, False])
def test_nan_equals_nan_and_nothing_else(ordered, tolerance):
    def apart(rows, *pieces):
        return streamed(rows, *pieces, ordered=ordered, tolerance=tolerance)

    rows = [(1, 0.5), (2, NAN[0]), (2, NAN[0]), (3, NAN[0])]
    assert apart(rows, [(1, 0.5), (2, NAN[1])], [(2, NAN[2]), (3, NAN[1])]) is None
    assert apart(rows, [(1, 0.5), (2, NAN[1])], [(2, NAN[2]), (3, None)])
    assert apart(rows, [(1, 0.5), (2, NAN[1])], [(2, NAN[2])])
    assert apart(rows, [(1, 0.5), (2, NAN[1])], [(2, "nan"), (3, NAN[1])])
    assert apart([(1, 0.5)], [(1, NAN[0])])
    assert apart([(1, 0.5), (2, NAN[0])], [(1, 0.5)], [(2, NAN[1])]) is None
    assert (apart(rows, [(3, NAN[1]), (2, NAN[1])], [(1, 0.5), (2, NAN[2])]) is None) != ordered


def test_duckdb_divides_by_zero_and_the_same_query_is_right():
    for gold in ("SELECT a, (a - a) / (b - b) FROM t", "SELECT (a - a) / (b - b) AS x FROM t", "SELECT [0 / 0]"):
        assert score(gold, gold, system="duckdb")[0] == 1.0
    assert "(nan,)" in score("SELECT 0 / 0", "SELECT 1", system="duckdb")[1]["reason"]
    assert "(1,)" in score("SELECT 1", "SELECT 0 / 0", system="duckdb")[1]["reason"]


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
@pytest.mark.parametrize("order", ["ignore", "keep"])
@pytest.mark.parametrize(
    "cell",
    [
        "[a, (a - a) / 0]",
        "{'x': a, 'y': [0 / 0]}",
        "MAP {a: a}",
        "array_value(0 / 0, a)",
        "DATE '2020-01-01' + a",
        "[a::HUGEINT]",
    ],
)
def test_cells_of_any_type_of_duckdb_equal_themselves(cell, order, tolerance):
    query = f"SELECT {cell} AS x FROM t"
    options = {"system": "duckdb", "order": order, "tolerance": tolerance}
    assert score(f"{query} ORDER BY a", f"{query} ORDER BY a", **options)[0] == 1.0
    assert score(f"{query} ORDER BY a DESC", f"{query} ORDER BY a", **options)[0] == (order == "ignore")
    assert score(f"{query} WHERE a < 3 UNION ALL {query} WHERE a < 2", query, **options)[0] == 0.0


CELLS = [
    "a",
    "b",
    "a % 3",
    "a / 3",
    "CASE WHEN a % 4 <> 0 THEN a END",
    "CASE WHEN a % 5 = 0 THEN 'nan'::DOUBLE ELSE a / 2 END",
    "[a % 2, a % 5]",
    "{'x': a % 3}",
    "{'x': CASE WHEN a % 5 = 0 THEN 'nan'::DOUBLE ELSE a / 2 END, 'y': b}",
    "CASE WHEN a % 4 <> 0 THEN {'x': [a % 2], 'y': b} END",
    "(a / 7)::DECIMAL(6, 2)",
    "DATE '2020-01-01' + a",
]


@pytest.mark.parametrize("rows", [5, 50, 800, 1500])
def test_duckdb_itself_says_the_same_of_two_results(rows, monkeypatch):
    monkeypatch.setattr(databases, "QUICK", 4.0)
    rng = random.Random(rows)
    verdicts, ways = Counter(), Counter()
    for kinds in (4, rows, 10 * rows):
        schema = (
            f"CREATE TABLE t AS SELECT (hash(range) % {kinds})::INTEGER AS a, 'text ' || hash(range) % 3 AS b "
            f"FROM range({rows}); CREATE TABLE s AS SELECT * FROM t ORDER BY hash(rowid + 7)"
        )
        connection = duckdb.connect()
        connection.execute(schema)
        for _ in range(12):
            cells = ", ".join(rng.sample(CELLS, rng.randint(1, 3)))
            gold, shuffled = f"SELECT {cells} FROM t", f"SELECT {cells} FROM s"
            less = f"{shuffled} WHERE rowid <> {rng.randrange(rows)}"
            for answer in (shuffled, less, f"{less} UNION ALL ({shuffled} LIMIT 1)", f"SELECT DISTINCT {cells} FROM s"):
                apart = [
                    connection.execute(f"SELECT count(*) FROM (({one}) EXCEPT ALL ({other}))").fetchone()[0]
                    for one, other in ((gold, answer), (answer, gold))
                ]
                said = score(answer, gold, {"schema": schema}, system="duckdb")[0]
                assert said == (apart == [0, 0])
                verdicts[said] += 1
                ways[type(opened({"schema": schema}, "duckdb", "").last.result)] += 1
    assert min(verdicts[0.0], verdicts[1.0]) > 20
    assert (ways[Columns] > 20) == (rows > 700)


@pytest.mark.parametrize("rows", [5, 100, 800, 1500])
@pytest.mark.parametrize("more", ["", ", [b]", ", {'x': b}", ", CASE WHEN b = 3 THEN 'nan'::DOUBLE END"])
def test_decimals_equal_floats_where_duckdb_itself_says_so(rows, more, monkeypatch):
    monkeypatch.setattr(databases, "QUICK", 4.0)
    connection = duckdb.connect()
    schema = f"CREATE TABLE t AS SELECT round((range * 37 % 101) / 7, 2) AS a, range % 7 AS b FROM range({rows})"
    connection.execute(schema)
    cells = ["a", "a::DECIMAL(9, 2)", "a::DECIMAL(38, 9)", "CASE WHEN b > 0 THEN a::DECIMAL(18, 3) END"]
    wrong = ["a + 0.0001", "CASE WHEN b > 0 THEN a END"]
    verdicts = Counter()
    for one, two in itertools.product(cells, cells + wrong):
        gold, answer = f"SELECT {one}{more} FROM t", f"SELECT {two}{more} FROM t ORDER BY hash(rowid)"
        apart = [
            connection.execute(f"SELECT count(*) FROM (({a}) EXCEPT ALL ({b}))").fetchone()[0]
            for a, b in ((gold, answer), (answer, gold))
        ]
        for tolerance in (0.0, 1e-12):
            said = score(answer, gold, {"schema": schema}, system="duckdb", tolerance=tolerance)[0]
            assert said == (apart == [0, 0])
            verdicts[said] += 1
        said = score(f"SELECT {two}{more} FROM t", gold, {"schema": schema}, system="duckdb", order="keep")[0]
        assert said == (apart == [0, 0])
    assert min(verdicts.values()) > 10


MANY = {"schema": "CREATE TABLE t AS SELECT range AS a, 'text ' || range % 50 AS b, range / 3 AS c FROM range(800)"}
ALL = "SELECT * FROM t"


@pytest.fixture
def bulk(monkeypatch):
    """For each query from here on whether columns were asked for; the reference `ALL` is known, as columns."""
    monkeypatch.setattr(databases, "QUICK", 4.0)
    base = opened(MANY, "duckdb", "")
    for gold in (f"{ALL} WHERE a >= 0", ALL):
        score("SELECT 1", gold, MANY, system="duckdb")
    assert isinstance(base.last.result, Columns)
    base.last = base.last._replace(seconds=0.0)
    asked, run = [], base._executed
    monkeypatch.setattr(base, "_executed", lambda *others: asked.append(others[4] > 0) or run(*others))
    return asked


@pytest.mark.parametrize(
    ("cells", "plain"),
    [
        ("a, b, c", True),
        ("(a % 99)::TINYINT, ((a % 200)::UBIGINT << 56), -a::BIGINT, (a / 7)::FLOAT, a % 2 = 0, -0.0::DOUBLE", True),
        ("CASE WHEN a % 3 > 0 THEN a END, CASE WHEN a % 3 > 1 THEN b END, CASE WHEN a % 5 > 0 THEN c END", True),
        ("CASE WHEN a % 3 > 0 THEN a > 5 END, NULL::VARCHAR, NULL::INTEGER, 'infinity'::DOUBLE", True),
        ("a AS x, b AS X, c AS x", True),
        ("sum(a) OVER ()", False),
        (
            "(a / 7)::DECIMAL(9, 2), -(a / 7)::DECIMAL(4, 0), CASE WHEN a % 2 = 0 THEN (a / 7)::DECIMAL(15, 12) END",
            True,
        ),
        ("DATE '2020-01-01' + a::INTEGER, CASE WHEN a % 3 > 0 THEN DATE '9999-12-31' - a::INTEGER END", True),
        ("TIMESTAMP '0001-01-01' + to_seconds(a / 7), CASE WHEN a % 3 > 0 THEN TIMESTAMP '2000-01-01' END", True),
        ("CASE WHEN a < 5 THEN DATE '2020-01-01' END, NULL::TIMESTAMP, NULL::DECIMAL(9, 2)", True),
        ("(a / 7)::DECIMAL(38, 6), CASE WHEN a % 3 > 0 THEN -999999999999.999::DECIMAL(18, 3) END", True),
        ("(a / 7)::DECIMAL(16, 7)", False),
        ("999999999999999::DECIMAL(16, 0)", True),
        ("CASE WHEN a = 7 THEN -1000000000000.000 ELSE a::DECIMAL(16, 3) END", "refused"),
        ("TIMESTAMPTZ '2000-01-01' + to_seconds(a), TIME '00:00:00' + to_seconds(a)", False),
        ("DATE '9999-12-31' + (a % 2)::INTEGER", "refused"),
        ("TIMESTAMP '0001-01-01' - to_microseconds(a % 2)", "refused"),
        ("TIMESTAMP 'infinity'", "refused"),
        ("CASE WHEN a = 7 THEN DATE '-infinity' ELSE DATE '2020-01-01' END", "refused"),
        ("[a], {'x': b}", False),
        ("{'x': b, 'y': a / 3, 'z': [a], 'd': DATE 'infinity', 'n': NULL}, {'m': MAP {b: a}, 's': {'x': a}}, a", True),
        ("CASE WHEN a % 3 > 0 THEN {'x': CASE WHEN a > 9 THEN -1 / 0 END, 'X y': (a / 7)::DECIMAL(4, 1)} END", True),
        ("MAP {'x': a}", False),
        ("b::BLOB", False),
    ],
)
def test_columns_are_what_rows_are(cells, plain, monkeypatch):
    monkeypatch.setattr(databases, "QUICK", 4.0)
    base = opened(MANY, "duckdb", "")
    query = f"SELECT {cells} FROM t"

    def result(most, bulk):
        return base.run(query, 5.0, most, lambda width, rows, more: (width, rows), bulk)

    width, rows = result(1000, 0)
    also, columns = result(1000, 1000)
    few = result(750, 750)[1]
    assert [isinstance(some, Columns) for some in (columns, few)] == [plain is True] * 2
    assert also == width == len(rows[0])
    columns, few = (some.rows if plain is True else some for some in (columns, few))
    assert columns == rows
    assert [tuple(map(type, row)) for row in columns] == [tuple(map(type, row)) for row in rows]
    assert few == rows[:750]


PLAIN = {
    np.dtype(np.int32): st.integers(-2, 2),
    np.dtype(np.int64): st.sampled_from([0, 1, 2**53, 2**53 + 1, 1 - 2**63]),
    np.dtype(np.uint64): st.sampled_from([0, 1, 2**63 + 1, 2**64 - 1]),
    np.dtype(np.float32): st.sampled_from([0.0, -0.0, 0.5, math.inf, math.nan]),
    np.dtype(np.float64): st.sampled_from([0.0, -0.0, 1.0, 2.0**53, -math.inf, math.nan, -math.nan]),
    np.dtype(bool): st.booleans(),
    np.dtype(object): st.sampled_from(["", "x", "y"]),
    np.dtype("M8[us]"): st.sampled_from([datetime.min, datetime(1970, 1, 1), datetime(2020, 1, 2, 3, 4, 5, 678901)]),
}


def columns(rows, types):
    """As DuckDB gives them: masked where there is NULL, which in a column of text also stands as None."""
    arrays = []
    for place, kind in enumerate(types):
        cells = [row[place] for row in rows]
        missing = np.array([cell is None for cell in cells], bool)
        hidden = (
            itertools.repeat(None) if kind == np.dtype(object) else itertools.cycle(np.array([0, 1, 1]).astype(kind))
        )
        array = np.array([next(hidden) if cell is None else cell for cell in cells], kind)
        arrays.append(np.ma.MaskedArray(array, missing) if missing.any() else array)
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    return Columns(arrays, [names.get(str(kind), str(kind)) for kind in types], len(rows))


@given(st.data(), st.lists(st.sampled_from(list(PLAIN)), min_size=1, max_size=3), st.integers(1, 60))
def test_columns_are_compared_as_multisets_of_rows(data, types, length):
    some = [st.one_of(PLAIN[kind], st.none()) if data.draw(st.booleans()) else PLAIN[kind] for kind in types]
    kinds = data.draw(st.lists(st.tuples(*some), min_size=1, max_size=8))
    rng = data.draw(st.randoms(use_true_random=False))
    rows = [rng.choice(kinds) for _ in range(length)]
    shuffled = rng.sample(rows, length)
    other = data.draw(st.sampled_from([shuffled, shuffled[:-1] + kinds[:1], rows]))
    ours, theirs = columns(rows, types), columns(other, types)
    assert settled(ours.rows) == settled([ours.row(place) for place in range(length)]) == settled(rows)
    other_zeros = [tuple(-cell if isinstance(cell, float) and cell == 0 else cell for cell in row) for row in shuffled]
    assert same(ours, columns(other_zeros, types), ordered=False)
    counts, counted = Counter(settled(rows)), Counter(settled(other))
    assert same(ours, theirs, ordered=False) == same(ours, other, ordered=False) == (counts == counted)
    assert same(ours, theirs, ordered=True) == same(rows, theirs, ordered=True) == (settled(rows) == settled(other))
    if (stray := ours.stray(theirs)) is not None:
        row = settled(other)[stray.place]
        assert counted[row] >= stray.times
        assert counted[row] > counts[row]
        assert stray.expected == (row in counts)
    unequal = [k for k, (one, two) in enumerate(zip(settled(rows), settled(other), strict=True)) if one != two]
    if unequal:
        assert ours.unequal(theirs) == unequal[0]
        assert difference(ours, theirs, ordered=True) == f"differs in row {unequal[0] + 1}"


NUMBERS = st.sampled_from([None, 0.0, -0.0, 1.0, math.nan, -math.nan])
STRUCTURES = [
    st.builds(lambda x, y: {"x": x, "y": y}, NUMBERS, st.sampled_from("xy")),
    st.builds(lambda x, y: {"x": x, "y": y}, st.sampled_from([None, date(2020, 1, 1), date(2020, 1, 2)]), NUMBERS),
    st.none() | st.builds(lambda x: {"x": x}, st.integers(0, 1)),
    st.builds(lambda x: {"x": x}, st.lists(NUMBERS, max_size=2) | st.none()),
    st.builds(lambda x: {"x": {"x": x}}, NUMBERS),
]


def told_apart(cell):
    """What is the same where cells are."""
    if isinstance(cell, dict):
        return frozenset((name, told_apart(part)) for name, part in cell.items())
    if isinstance(cell, list):
        return tuple(map(told_apart, cell))
    return "nan" if cell != cell else cell


@given(st.data(), st.sampled_from(STRUCTURES), st.integers(1, 40))
def test_structures_in_columns_are_told_apart_as_in_rows(data, structure, length):
    kinds = data.draw(st.lists(st.tuples(structure, st.integers(0, 2)), min_size=1))
    rng = data.draw(st.randoms(use_true_random=False))
    rows = [rng.choice(kinds) for _ in range(length)]
    other = rng.sample(rows, length) if rng.random() < 0.5 else [rng.choice(kinds) for _ in range(length)]

    def some(rows):
        cells = np.empty(len(rows), object)
        cells[:] = [row[0] for row in rows]
        numbers = np.array([row[1] for row in rows])
        masked = [np.ma.MaskedArray(cells, cells == None), cells][all(cell is not None for cell in cells)]  # noqa: E711
        return Columns([masked, numbers], ["STRUCT(x INTEGER)", "BIGINT"], length)

    ours, theirs = ([tuple(map(told_apart, row)) for row in those] for those in (rows, other))
    for keep, tolerance in itertools.product((True, False), (0.0, 1e-9)):
        told = difference(some(rows), some(other), ordered=keep, tolerance=tolerance)
        assert (told is None) == (ours == theirs if keep else Counter(ours) == Counter(theirs))
        also = difference(rows, other, ordered=keep, tolerance=tolerance)
        assert (told or "").partition(":")[0] == (also or "").partition(":")[0]


PART = st.sampled_from([0, 1, None])
NESTED = [
    st.lists(PART, max_size=2),
    st.lists(PART, min_size=1, max_size=1) | st.none(),
    st.lists(st.lists(PART, max_size=1), max_size=2),
    st.builds(lambda x, y: {"x": x, "y": y}, PART, st.sampled_from("xy")),
    st.builds(lambda x, y: {"x": x, "y": y}, PART, st.lists(PART, max_size=1)),
    st.dictionaries(st.sampled_from("xy"), PART, min_size=1),  # a map
    st.builds(lambda x: {"x": x}, PART) | st.none(),
    PART,
]


def otherwise(cell):
    """What equals a cell, of other types."""
    if isinstance(cell, dict):
        return {name: otherwise(part) for name, part in reversed(cell.items())}
    if isinstance(cell, list):
        return list(map(otherwise, cell))
    return float(cell) if isinstance(cell, int) else cell


@given(st.data(), st.sampled_from(NESTED), st.sampled_from(NESTED), st.integers(1, 40))
def test_nested_cells_of_other_types_are_told_apart(data, first, second, length):
    kinds = data.draw(st.lists(st.tuples(first, second), min_size=1))
    rng = data.draw(st.randoms(use_true_random=False))
    rows = [rng.choice(kinds) for _ in range(length)]
    other = rng.sample(rows, length) if rng.random() < 0.7 else [rng.choice(kinds) for _ in range(length)]
    other = [tuple(map(otherwise, row)) for row in other]
    ours, theirs = (Counter(tuple(map(told_apart, row)) for row in those) for those in (rows, other))
    told = difference(rows, other, ordered=False)
    assert (told is None) == (ours == theirs)
    if told is not None:
        expected = {False: "has a row that is not expected", True: "has a row too often"}
        more = {
            f"{expected[row in ours]}: {shown(cells)}"
            for cells in other
            if (row := tuple(map(told_apart, cells))) in theirs - ours
        }
        assert told in more


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ([{"x": 1.0, "y": "a"}, {"x": 2.0, "y": "b"}], "x DOUBLE, y VARCHAR"),
        ([{"y": "a", "x": 1}, {"y": "b", "x": 2}], "y VARCHAR, x INTEGER"),
        ([{"x": 1, "y": "a"}, {"x": 1, "y": "b"}], "x BIGINT, y VARCHAR"),
        ([{"x": 1, "z": "a"}, {"x": 2, "z": "b"}], "x INTEGER, z VARCHAR"),
        ([{"x": 1, "y": "a", "z": 0}, {"x": 2, "y": "b", "z": 0}], "x INTEGER, y VARCHAR, z INTEGER"),
        ([{"x": 1}, {"x": 2}], "x INTEGER"),
        ([None, {"x": 2, "y": "b"}], "x INTEGER, y VARCHAR"),
        ([{"x": 2, "y": "b"}, None], "x BIGINT, y VARCHAR"),
    ],
)
def test_structures_of_other_types_are_told_apart(other, names):
    rows = [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]

    def some(cells, kind):
        column = np.empty(len(cells), object)
        column[:] = cells
        return Columns([column, np.arange(len(cells)) * 0], [kind, "BIGINT"], len(cells))

    ours, theirs = some(rows, "STRUCT(x INTEGER, y VARCHAR)"), some(other[::-1], f"STRUCT({names})")
    for expected, result in ((ours, theirs), (theirs, ours)):
        assert same(expected, result, ordered=False) == (other in (rows, rows[::-1]))
    assert same(some([], "STRUCT(x INTEGER, y VARCHAR)"), some([], f"STRUCT({names})"), ordered=False)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_wrong_structure_in_columns_is_shown(hashed):
    more = "s" if hashed else ["s"]

    def some(*rows):
        cells = np.empty(len(rows), object)
        cells[:] = [{"x": x, "y": y, "z": more} for x, y in rows]
        return Columns([cells, np.arange(len(rows)) % 2], ["STRUCT(x INTEGER)", "BIGINT"], len(rows))

    expected = [(k // 2 % 3, k // 6) for k in range(40)]
    swapped = [expected[4], *expected[1:4], expected[0], *expected[5:]]
    assert same(some(*expected), some(*swapped), ordered=False)
    for wrong, said in (((0, 9), "that is not expected"), ((9, 0), "that is not expected"), ((1, 0), "too often")):
        shown_row = ({"x": wrong[0], "y": wrong[1], "z": more}, 0)
        told = difference(some(*expected), some(*expected[:38], wrong, expected[39]), ordered=False)
        assert told == f"has a row {said}: {shown(shown_row)}"


NEARLY = {
    np.dtype(np.int32): st.integers(0, 2),
    np.dtype(object): st.sampled_from(["", "x"]),
    np.dtype(np.float64): st.sampled_from([0.0, -3.0, 1e6, math.inf, -math.inf, math.nan]),
}


@given(st.data(), st.lists(st.sampled_from(list(NEARLY)), min_size=1, max_size=3), st.integers(1, 40))
def test_nearly_equal_rows_are_told_as_if_floats_were_rounded(data, types, length):
    """Floats differ by a tenth of the tolerance, or by a thousand times as much."""
    kinds = data.draw(st.lists(st.tuples(*[st.one_of(NEARLY[kind], st.none()) for kind in types]), min_size=1))
    rng = data.draw(st.randoms(use_true_random=False))
    rows = [rng.choice(kinds) for _ in range(length)]

    def moved(row, by):
        finite = [isinstance(cell, float) and math.isfinite(cell) for cell in row]
        return tuple(cell + by * max(1.0, abs(cell)) if yes else cell for cell, yes in zip(row, finite, strict=True))

    other = [moved(row, rng.choice((0.0, 1e-7, -1e-7))) for row in rng.sample(rows, length)]
    away = data.draw(st.sampled_from([0.0, 1e-3, -1e-3]))
    other[0] = moved(other[0], away)
    floats = [cell for cell in other[0] if isinstance(cell, float) and math.isfinite(cell)]
    expected = not away or not floats
    for order in (False, True):
        wanted = [other[0], *other[1:]] if order else rows
        if order:
            wanted = [moved(row, rng.choice((0.0, 1e-7))) for row in other]
            expected = True
        for some in (wanted, columns(wanted, types)):
            for others in (other, columns(other, types)):
                told = difference(some, others, ordered=order, tolerance=1e-6)
                assert (told is None) == expected
                assert told is None or "is expected" in told
    ordered = difference(columns(rows, types), columns(other, types), ordered=True, tolerance=1e-6)
    assert ordered == difference(rows, other, ordered=True, tolerance=1e-6)


def both_ways(expected, rows, *, kind="float64", **options):
    """What is said of rows, which is also said of columns."""
    types = [np.dtype(kind)] * len(rows[0])
    told = difference(expected, rows, **options)
    assert difference(columns(expected, types), columns(rows, types), **options) == told
    return told


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("expected", "found", "near"),
    [
        (1.0, 2.0, False),  # of the tolerance of 0.5 there is as much as is expected
        (2.0, 1.0, True),
        (0.0, None, False),
        (None, -0.4, False),
        (None, None, True),
        (math.inf, 5.0, False),
        (5.0, math.inf, False),
        (math.inf, -math.inf, False),
        (-math.inf, -math.inf, True),
        (math.nan, -math.nan, True),
        (math.nan, 0.0, False),
        (0.0, math.nan, False),
        (math.nan, None, False),
        (1e308, -1e308, False),
    ],
)
def test_a_float_is_near_to_what_is_expected(expected, found, near, ordered):
    options = {"ordered": ordered, "tolerance": 0.5}
    for others in ((), (7.0,), (7,)):
        rows = [(*others, cell) for cell in (expected, found)]
        told = difference(rows[:1], rows[1:], **options)
        assert (told is None) == near
        assert told is None or told == f"has {shown(rows[1])} where {shown(rows[0])} is expected".replace("-nan", "nan")
        if others != (7,):
            assert (both_ways(rows[:1], rows[1:], **options) is None) == near
    assert (difference([(expected,), ("text",)], [(found,), ("text",)], **options) is None) == near


def test_whole_numbers_are_not_nearly_equal():
    rows, others = [(10**9,), (0.5,)], [(10**9 + 1,), (0.5,)]
    assert difference(rows, others, ordered=True, tolerance=1e-6) == "has (1000000001,) where (1000000000,) is expected"
    assert difference(rows, [(1e9 + 1,), (0.5,)], ordered=True, tolerance=1e-6) is None


def test_null_and_nan_stand_in_places_of_their_own():
    for one, other in itertools.combinations((None, math.nan, -math.inf, 0.0), 2):
        rows = [(one, 1.0), (other, 1.0 + 1e-9), (7.0, 1.0)]
        others = [(other, 1.0), (7.0, 1.0), (one, 1.0 + 1e-9)]
        assert both_ways(rows, others, ordered=False, tolerance=1e-6) is None


def test_nan_is_the_same_whatever_its_bits_are():
    rows = [(math.nan, 1.0), (2.0, -math.nan)]
    for kind in ("float32", "float64"):
        for others in ([(-math.nan, 1.0), (2.0, math.nan)], [(2.0, math.nan), (-math.nan, 1.0)]):
            assert both_ways(rows, others, kind=kind, ordered=False) is None
        assert both_ways(rows, [(2.0, 1.0)] * 2, kind=kind, ordered=False)


def test_what_is_far_is_shown():
    rows, others = [(1.0, 5.0), (2.0, 6.0), (3.0, 7.0)], [(2.0, 6.5), (3.0, 7.0), (1.0, 5.0)]
    for kind in ("float32", "float64"):
        near = [(2.0, 6.0005), *others[1:]]
        assert both_ways(rows, near, kind=kind, ordered=False, tolerance=1e-3) is None
        said = both_ways(rows, others, kind=kind, ordered=False, tolerance=1e-3)
        assert said == "has (2.0, 6.5) where (2.0, 6.0) is expected"


def settled(rows):
    return [tuple("nan" if cell != cell else cell for cell in row) for row in rows]


@pytest.mark.parametrize(
    "cells",
    [
        lambda k: (k, "x", k % 3),
        lambda k: (k if k % 5 else None, f"{k % 99}" if k % 3 else None, k / 3 if k % 7 else None),
        lambda k: (k // 2, "x", k % 3),
        lambda k: (k % 7, k % 11, k % 13),
        lambda k: (k % 7, str(k % 30), k % 2),
        lambda k: (k % 7, str(k), k % 2),
        lambda k: (5 if k < 190 else k, str(k), k % 2),
    ],
)
def test_columns_in_another_order_are_the_same_whatever_tells_rows_apart(cells):
    rows = [cells(k) for k in range(200)]
    types = [np.dtype(np.int32), np.dtype(object), np.dtype(np.float64)]
    for seed in range(3):
        other = random.Random(seed).sample(rows, 200)
        swaps = [[cells[1], cells[0], *cells[2:]] for cells in zip(*other, strict=True)]
        for places in ((0, 1, 2), (1, 2), (0, 1), (0,), (1,), (2,)):

            def some(rows, places=places):
                return columns([tuple(row[k] for k in places) for row in rows], [types[k] for k in places])

            assert same(some(rows), some(other), ordered=False)
            for place in places:
                cell = (-1, "?", -1.0)[place]
                wrong = [*other[:-1], (*other[-1][:place], cell, *other[-1][place + 1 :])]
                assert not same(some(rows), some(wrong), ordered=False)
            for row in [row for row in other if any(row[k] != other[-1][k] for k in places)][:1]:
                assert not same(some(rows), some([*other[:-1], row]), ordered=False)
            for place in places:  # two rows swap a cell
                swapped = [
                    (*row[:place], cell, *row[place + 1 :]) for row, cell in zip(other, swaps[place], strict=True)
                ]
                told = [Counter(tuple(row[k] for k in places) for row in those) for those in (rows, swapped)]
                assert same(some(rows), some(swapped), ordered=False) == (told[0] == told[1])


def test_a_row_that_stands_elsewhere_too_is_expected():
    def some(texts):
        return columns(
            [*((1, text) for text in texts), *((k, "x") for k in range(10, 60))], [np.dtype(int), np.dtype(object)]
        )

    assert difference(some("aab"), some("abb"), ordered=False) == "has a row too often: (1, 'b')"
    assert difference(some("aab"), some("abc"), ordered=False) == "has a row that is not expected: (1, 'c')"


def test_rows_that_repeat_late_are_counted():
    """A look at some of them does not show that they do."""
    for width in (1, 2):
        rows = [(f"{k % 199}",) * width for k in range(200)]
        other = [*rows[:-1], ("99",) * width]
        types = [np.dtype(object)] * width
        for ours, theirs in ((rows, other), (columns(rows, types), columns(other, types))):
            assert same(ours, ours, ordered=False)
            assert not same(ours, theirs, ordered=False)
            assert not same(theirs, ours, ordered=False)


def test_null_is_not_what_is_hidden_under_it():
    types = [np.dtype(np.int32), np.dtype(object), np.dtype(bool)]
    rows = [(k, f"{k}", k > 5) for k in range(10)]
    for place, cell in enumerate((0, "0", False)):
        some = [(*rows[0][:place], cell, *rows[0][place + 1 :]), *rows[1:]]
        null = [(*rows[0][:place], None, *rows[0][place + 1 :]), *rows[1:]]
        for keep in (True, False):
            assert same(columns(null, types), columns(null, types), ordered=keep)
            assert not same(columns(null, types), columns(some, types), ordered=keep)
            both = [[*those, (*rows[1][:place], None, *rows[1][place + 1 :])] for those in (null, some)]
            assert not same(*(columns(those, types) for those in both), ordered=keep)


@pytest.mark.parametrize("kind", PLAIN)
def test_as_much_null_is_as_often_in_a_column_of_its_own(kind):
    cell = np.zeros(1, kind).tolist()[0] if kind != np.dtype(object) else ""
    more, less = [(None,), (cell,), (None,)], [(cell,), (None,), (cell,)]
    for ours, theirs in itertools.product((more, less), repeat=2):
        assert same(columns(ours, [kind]), columns(theirs[::-1], [kind]), ordered=False) == (ours is theirs)


@pytest.mark.parametrize("kind", PLAIN)
def test_more_null_is_not_as_often_in_a_column_of_its_own(kind):
    cell = np.zeros(1, kind).tolist()[0] if kind != np.dtype(object) else ""
    some = [[(None,)] * nulls + [(cell,)] * (5 - nulls) for nulls in range(1, 5)]
    for ours, theirs in itertools.product(some, repeat=2):
        assert same(columns(ours, [kind]), columns(theirs, [kind]), ordered=False) == (ours is theirs)


def test_a_column_of_truth_values_is_not_where_null_is_in_the_one_before():
    types = [np.dtype(np.int64), np.dtype(bool)]
    ours, theirs = columns([(None, False), (5, True)], types), columns([(0, True), (5, None)], types)
    for keep in (True, False):
        assert not same(ours, theirs, ordered=keep)


@pytest.mark.parametrize(("kind", "number"), [("BIGINT", -(2**63)), ("UBIGINT", 2**63)])
def test_a_number_that_stands_for_null_is_not_null(bulk, kind, number):
    def query(some, others):
        cell = f"CASE WHEN a > 9 THEN a WHEN a > 5 THEN {some} ELSE {others} END::{kind}"
        return f"SELECT {cell}, b FROM t"

    both, one, none = query(number, "NULL"), query(number, number), query("NULL", "NULL")
    for gold, answer in itertools.product((both, one, none, query("NULL", number)), repeat=2):
        score(ALL, f"{ALL} AS {'t' if gold == answer else 'u'}", MANY, system="duckdb")  # so that columns are asked for
        bulk.clear()
        assert score(f"{answer} ORDER BY b", gold, MANY, system="duckdb")[0] == (gold == answer)
        assert bulk == ([True, True] if gold == answer == none else [True, True, False])


@pytest.mark.parametrize(
    ("gold", "other", "expected"),
    [
        ("DATE '2020-01-01' + a::INTEGER", "TIMESTAMP '2020-01-01' + to_days(a::INTEGER)", 0.0),
        ("(a / 100)::DECIMAL(9, 2)", "a / 100", 1.0),
        ("(a / 100)::DECIMAL(9, 2)", "a / 100 + 1e-12", 0.0),
        ("round(a / 7, 2), a % 2 = 1", "(a / 7)::DECIMAL(18, 2), a % 2", 1.0),
        ("round(a / 7, 2)", "CASE WHEN a <> 700 THEN (a / 7)::DECIMAL(18, 2) END", 0.0),
        ("(a / 4)::DECIMAL(9, 2)", "a / 4", 1.0),
        ("(a / 4)::DECIMAL(9, 2)", "(a / 4)::DECIMAL(8, 3)", 1.0),
        ("(a / 7)::DECIMAL(9, 2)", "(a / 7)::DECIMAL(9, 2)::DECIMAL(38, 6)", 1.0),
        ("(a / 7)::DECIMAL(9, 2)", "(a / 7)::DECIMAL(9, 3)", 0.0),
        ("CASE WHEN a > 5 THEN a / 4 END", "CASE WHEN a > 5 THEN (a / 4)::DECIMAL(18, 6) END", 1.0),
        ("a::DECIMAL(38, 0)", "a::DOUBLE", 1.0),
        ("a + 9007199254740000", "(a + 9007199254740000)::DOUBLE", 1.0),
        ("a % 2 = 0", "1.0::DOUBLE - a % 2", 1.0),
        ("a % 2 = 0", "CASE WHEN a > 5 THEN 1.0::DOUBLE - a % 2 END", 0.0),
        ("a::UBIGINT + 18446744073709550000::UBIGINT", "a - 1616", 0.0),
        ("a::INTEGER", "a::BIGINT", 1.0),
        ("a::INTEGER", "a::FLOAT", 1.0),
        ("a > 5", "(a > 5)::TINYINT", 1.0),
        ("a", "a::VARCHAR", 0.0),
        ("a / 4", "(a / 4)::VARCHAR", 0.0),
        ("DATE '1970-01-01'", "0::DECIMAL(9, 2)", 0.0),
        ("TIMESTAMP '1970-01-01'", "0", 0.0),
    ],
)
def test_columns_of_other_types_are_compared_as_rows_are(bulk, gold, other, expected):
    for one, two in ((gold, other), (other, gold)):
        assert score(f"SELECT {two} FROM t ORDER BY b", f"SELECT {one} FROM t", MANY, system="duckdb")[0] == expected
        assert score(f"SELECT {one} FROM t ORDER BY b", f"SELECT {one} FROM t", MANY, system="duckdb")[0] == 1.0
    assert all(bulk)


@pytest.mark.parametrize("other", ["a // 4", "(a // 4)::HUGEINT", "(a // 4)::UBIGINT", "(a // 4)::DECIMAL(38, 7)"])
def test_where_neither_is_a_float_decimals_are_not_nearly_equal(bulk, other):
    for one, two in (("(a / 4)::DECIMAL(9, 2)", other), (other, "(a / 4)::DECIMAL(9, 2)")):
        gold, answer = f"SELECT {one} FROM t", f"SELECT {two} FROM t"
        assert score(answer, gold, MANY, system="duckdb", tolerance=0.9)[0] == 0.0
        assert score(answer, f"SELECT ({one})::DOUBLE FROM t", MANY, system="duckdb", tolerance=0.9)[0] == 1.0


def test_decimals_come_as_columns_beside_floats(monkeypatch):
    came = []
    monkeypatch.setattr(running, "difference", lambda expected, result, **others: came.append(type(result)))
    for rows in (69, 70):
        for cells in ("a / 4", "(a / 4)::DECIMAL(9, 2)", "b", "(a / 4)::DECIMAL(38, 7)"):
            gold = f"SELECT c FROM t WHERE a < {rows}"
            score(f"SELECT {cells} FROM t WHERE a < {rows}", gold, MANY, system="duckdb")
    assert came == [list] * 5 + [Columns] + [list] * 2


def test_integers_are_not_the_floats_next_to_them():
    gold, other = "SELECT a + 9007199254740993 FROM t", "SELECT (a + 9007199254740993)::DOUBLE FROM t"
    for _ in range(2):
        assert score(gold, gold, MANY, system="duckdb")[0] == 1.0
        assert score(other, gold, MANY, system="duckdb")[0] == 0.0
        gold, other = f"{gold} WHERE a >= 0", f"{other} WHERE a >= 0"
    assert score("SELECT a::DOUBLE FROM t", "SELECT a FROM t", MANY, system="duckdb")[0] == 1.0


def test_many_rows_of_plain_cells_come_as_columns(bulk):
    assert score(f"{ALL} ORDER BY c DESC", ALL, MANY, system="duckdb")[0] == 1.0
    assert bulk == [True]
    assert score(f"{ALL} ORDER BY c DESC", ALL, MANY, system="duckdb", order="keep")[1]["reason"] == "differs in row 1"
    assert score(f"{ALL} ORDER BY a", ALL, MANY, system="duckdb", order="keep")[0] == 1.0
    assert score(f"{ALL} UNION ALL {ALL}", ALL, MANY, system="duckdb")[1]["reason"] == "has more than 800 rows"
    assert score(f"{ALL} WHERE a <> 7", ALL, MANY, system="duckdb")[1]["reason"] == "has 799 rows, not 800"
    nearly = "SELECT a, b, c * (1 + 1e-12) FROM t ORDER BY c"
    assert [score(nearly, ALL, MANY, system="duckdb", tolerance=t)[0] for t in (0.0, 1e-9)] == [0.0, 1.0]
    assert all(bulk)
    seen = len(bulk)
    assert "Binder Error" in score("SELECT nothing FROM t", ALL, MANY, system="duckdb")[1]["reason"]
    assert bulk[seen:] == [True]  # and it is not executed again: it would fail again
    assert score("SELECT 1", "SELECT 1", MANY, system="duckdb")[0] == 1.0
    assert score("SELECT 2", "SELECT 2", MANY, system="duckdb")[0] == 1.0
    assert bulk[-4:] == [True, False, False, False]


def test_columns_have_time_as_their_reference_had(bulk, monkeypatch):
    base, given = opened(MANY, "duckdb", ""), []
    run = base._executed
    monkeypatch.setattr(base, "_executed", lambda *others: given.append(others[1]) or run(*others))
    base.last = base.last._replace(seconds=0.125)
    assert score(ALL, ALL, MANY, system="duckdb")[0] == 1.0
    base.last = base.last._replace(seconds=0.125)
    assert score(ALL, f"{ALL} AS t", MANY, system="duckdb")[0] == 1.0
    assert given[:2] == [4.0 + 5 * 0.125] * 2


def test_a_reference_that_gives_too_many_rows_as_columns_abstains(bulk):
    for gold in (ALL, f"{ALL} AS t"):
        with pytest.raises(Abstain, match="more than 799 rows"):
            score(ALL, gold, MANY, system="duckdb", rows=799)
    assert all(bulk)


@pytest.mark.parametrize(
    "endless",
    [
        "SELECT range AS x, -range AS y, range & 7 AS z FROM range(1000000000000)",
        "SELECT 1, repeat('x', 1000), 2 FROM t, t AS u, t AS v, t AS w, t AS x",
    ],
)
def test_columns_that_never_end_are_given_up_and_rows_are_fetched(bulk, endless, monkeypatch):
    monkeypatch.setattr(databases, "QUICK", 0.05)
    assert score(endless, ALL, MANY, system="duckdb", seconds=60.0)[1]["reason"] == "has more than 800 rows"
    assert bulk == [True, False]
    assert score(ALL, ALL, MANY, system="duckdb")[0] == 1.0


def test_a_query_that_takes_long_is_executed_again_and_may_be_right(bulk, monkeypatch):
    slow = f"{ALL} WHERE a >= -(SELECT count(*) FROM range(20000000) AS x WHERE hash(x.range) = 0)"
    monkeypatch.setattr(databases, "QUICK", 0.01)
    assert score(slow, ALL, MANY, system="duckdb")[0] == 1.0
    assert bulk == [True, False]
    never = "SELECT a, b, count(*) FROM t, range(1000000000000) GROUP BY a, b"
    assert score(never, ALL, MANY, system="duckdb", seconds=0.2)[1]["reason"] == "takes more than 0.2 s"
    assert score(never, ALL, MANY, system="duckdb", seconds=0.009)[1]["reason"] == "takes more than 0.009 s"
    assert bulk[2:] == [True, False, False]
    assert score(slow, slow, MANY, system="duckdb")[0] == 1.0
    bulk.clear()
    assert score(f"{slow} ", f"{slow} AND a >= 0", MANY, system="duckdb")[0] == 1.0
    assert bulk == [False, False]


@pytest.mark.parametrize(
    ("query", "table"),
    [
        ("SELECT a FROM t", "t"),
        ("select a\nfrom\tT1\nwhere a > 1", "t1"),
        ("SELECT a FROM t AS u WHERE u.a > 1", "t"),
        ("SELECT a FROM t u ORDER BY a DESC", "t"),
        ("SELECT a FROM t as u", "t"),
        ("SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > 1", "t"),
        ("SELECT a FROM t u HAVING 1", "t"),
        ("SELECT a FROM t, u", None),
        ("SELECT a FROM t u, v", None),
        ("SELECT a FROM t ,u WHERE a > 1", None),
        ("SELECT a FROM t as u, v", None),
        ("SELECT a FROM t CROSS JOIN u", None),
        ("SELECT a FROM t NATURAL\nJOIN u WHERE a > 1", None),
        ("SELECT a FROM (t)", None),
        ("SELECT a FROM s.t", None),
        ("SELECT a FROM 't'", None),
        ("SELECT a FROM range(10) WHERE a > 1", None),
        ("SELECT a FROM t TABLESAMPLE 10% WHERE a > 1", None),
        ("SELECT a FROM t UNION TABLE u", None),
        ("SELECT a FROM t WHERE a > (SELECT 1)", None),
        ("SELECT a FROM t WHERE a IS DISTINCT FROM 1", None),
        ("WITH u AS (SELECT a FROM t) FROM u", None),
        ("WITH u AS (SELECT 1) DELETE FROM t WHERE a IN u", None),
        ("SELECT a FROM t ORDER BY a LIMIT 1", None),
        ("SELECT a FROM t ORDER BY a OFFSET 1", None),
        ("SELECT a FROM t WHERE a > 1 FETCH FIRST 1 ROW ONLY", None),
        ("SELECT sum(a) OVER () FROM t", None),
        ("SELECT sum(a) over w FROM t WINDOW w AS ()", None),
        ("SELECT 1", None),
        ("SELECT 1 FROM", None),
        ('SELECT a FROM "T" WHERE a > 1', "t"),
        ("SELECT a FROM main.t u ORDER BY a", "t"),
        ('SELECT a FROM main."t"', "t"),
        ("SELECT a FROM other.t", None),
        ('SELECT a FROM "a t"', None),
        ("DELETE FROM t", None),
        ("", None),
        (f"SELECT a FROM t WHERE a IN ({', '.join(map(str, range(200)))})", None),
    ],
)
def test_a_simple_query_has_one_table(query, table):
    assert only_table(query) == table


TABLES = {
    "schema": "CREATE TABLE t AS SELECT range AS a, 'text ' || range AS b FROM range(100);"
    "CREATE TABLE few AS SELECT range AS a FROM range(10000); CREATE TABLE many AS SELECT range AS a FROM range(10001);"
    "CREATE VIEW v AS SELECT a FROM t; CREATE TABLE t2 AS SELECT a FROM t"
}


@pytest.fixture
def executed(monkeypatch):
    """For each query from here on the seconds that it had, and whether it was optimized; no table is known."""
    base = opened(TABLES, "duckdb", "")
    base.last, base._of, base._others = Known(), {}, set()
    asked, run = [], base._executed
    monkeypatch.setattr(
        base, "_executed", lambda *others: asked.append((others[1], others[5] is base._connections[0])) or run(*others)
    )
    return asked


def optimized(query):
    """Whether a query is, as DuckDB has it, which says so in one cell."""
    return opened(TABLES, "duckdb", "").run(query, 5.0, 1, lambda width, rows, more: rows[0][0], 0)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("t", [True, False, False]),
        ("T AS u WHERE a = 1", [True, False, False]),
        ("few WHERE a < 5", [True, False, False]),
        ("many WHERE a < 5", [True] * 3),
        ("v", [True] * 3),
        ("t JOIN few USING (a)", [True] * 3),
        ("range(10)", [True] * 3),
    ],
)
def test_a_simple_query_of_a_small_table_is_executed_as_it_is(executed, source, expected):
    query = f"SELECT current_setting('enable_optimizer') AS x FROM {source}"
    assert [optimized(query) for _ in range(3)] == expected
    assert optimized("SELECT current_setting('enable_optimizer')")
    other = opened(MANY, "duckdb", "")
    assert other.run("SELECT current_setting('enable_optimizer')", 5.0, 1, lambda width, rows, more: rows[0][0], 0)


def test_a_table_is_looked_at_once(executed, monkeypatch):
    base = opened(TABLES, "duckdb", "")
    seen, look = [], base._look_at
    monkeypatch.setattr(base, "_look_at", lambda table: seen.append(table) or look(table))
    for source in ("t", "t2", "v", "many", "t2", "v"):
        optimized(f"SELECT a FROM {source}")
    optimized("select a from Many where a < 3")
    with pytest.raises(QueryFailed, match="does not exist"):
        optimized("SELECT a FROM nothing")
    assert seen == ["t", "t2", "v", "many"]
    assert ({*base._of}, base._others) == ({"t", "t2"}, {"v", "many"})
    assert [direct for _, direct in executed] == [True, True, True, True, False, True, True, True]
    assert len(base._connections) == 2


SIMPLE = pytest.mark.parametrize(
    "query",
    [
        "SELECT DISTINCT a % 7 FROM t",
        "SELECT a % 7 AS g, count(*), sum(a), min(b), string_agg(b, ',') FROM t GROUP BY g HAVING sum(a) > 700",
        "SELECT a, b FROM t WHERE a BETWEEN 10 AND 50 AND b LIKE '%1%' OR a IN (1, 2, 3) ORDER BY b DESC",
        "SELECT count(*), count(DISTINCT a % 3), avg(a) FILTER (WHERE a > 50) FROM t",
        "SELECT a % 2, a % 3, count(*) FROM t GROUP BY ROLLUP (a % 2, a % 3)",
        "SELECT DISTINCT ON (a % 5) a, b FROM t ORDER BY a % 5, a DESC",
        "SELECT CASE WHEN a > 50 THEN NULL ELSE a / (a - 7) END FROM t",
        "SELECT unnest([a, a + 1]) FROM t WHERE a < 3",
        "SELECT a FROM t WHERE a = 5 AND false",
        "SELECT * FROM t WHERE NOT (a > 3 AND b <> 'text 2') AND regexp_matches(b, '[0-3]$')",
    ],
)


@SIMPLE
def test_a_query_gives_the_same_rows_as_it_is(executed, query):
    optimized("SELECT a FROM t")
    first, second = opened(TABLES, "duckdb", "")._connections
    assert only_table(query) == "t"
    rows, others = (connection.execute(query).fetchall() for connection in (first, second))
    assert difference(rows, others, ordered="ORDER" in query) is None


@pytest.fixture
def large(tmp_path):
    """A file with a table that is not small, a view of it, and one that is."""
    path = tmp_path / "large.db"
    with duckdb.connect(path) as writing:
        writing.execute("CREATE TABLE t AS SELECT range AS a, 'text ' || range AS b FROM range(10001)")
        writing.execute("CREATE VIEW v AS SELECT a FROM t; CREATE TABLE small AS SELECT a FROM t LIMIT 10000")
    return path


def without(source, database):
    """The optimizers that a query does without, as DuckDB has it, which says so in one cell."""
    query = f"SELECT current_setting('disabled_optimizers') AS x FROM {source}"
    base = opened(str(database), "duckdb", "")
    return {*base.run(query, 5.0, 1, lambda width, rows, more: rows[0][0], 0).split(",")} - {""}


def test_a_simple_query_of_a_table_of_a_file_has_the_optimizers_that_are_of_use(large, monkeypatch):
    known = {name for (name,) in duckdb.execute("SELECT name FROM duckdb_optimizers()").fetchall()}
    assert known > duck.USEFUL
    assert [without("t", large) for _ in range(3)] == [set(), known - duck.USEFUL, known - duck.USEFUL]
    assert without("T AS u WHERE a = 1", large) == known - duck.USEFUL
    monkeypatch.chdir(large.parent)
    relative = duck.DuckDB.file("large.db")
    monkeypatch.chdir("/")
    relative._look_at("t")
    assert relative._lightly is not None
    for source in ("v", "v", "small", "small", "t JOIN small USING (a)", "(SELECT * FROM t)"):
        assert without(source, large) == set()


@SIMPLE
def test_a_query_that_is_lightly_optimized_gives_the_same_rows(large, query):
    without("t", large)
    base = opened(str(large), "duckdb", "")
    assert base._of == {"t": base._lightly}
    rows, others = (connection.execute(query).fetchall() for connection in base._connections)
    assert difference(rows, others, ordered="ORDER" in query) is None
    names = "SELECT large.main.t.a, current_database(), current_schema() FROM large.main.t LIMIT 1"
    assert base._lightly.execute(names).fetchall() == [(0, "large", "main")]


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ("SELECT * FROM read_csv('/etc/passwd')", "Cannot access file"),
        ("ATTACH '/tmp/guerdon_sql_attached.db' AS x", "Cannot access file"),
        ("COPY t TO '/tmp/guerdon_sql_copied.csv'", "Cannot access file"),
        ("SET threads = 2", "locked"),
        ("SET disabled_optimizers = ''", "locked"),
        ("INSTALL httpfs", "disabled"),
        ("DELETE FROM t", "read-only"),
        ("CREATE TABLE memory.main.x (a INTEGER)", "read-only"),
    ],
)
def test_what_optimizes_lightly_is_as_closed(large, hostile, reason):
    without("t", large)
    with pytest.raises(duckdb.Error, match=reason):
        opened(str(large), "duckdb", "")._lightly.execute(hostile)


def test_what_optimizes_lightly_has_the_same_settings(large):
    without("t", large)
    ours, theirs = (
        connection.execute("SELECT " + ", ".join(f"current_setting('{key}')" for key in duck.CLOSED)).fetchall()
        for connection in opened(str(large), "duckdb", "")._connections
    )
    assert ours == theirs


def test_a_query_that_is_lightly_optimized_fails_and_is_late_like_others(large):
    def answer(query, seconds=5.0):
        return score(query, "SELECT a FROM t WHERE a >= 0", str(large), system="duckdb", seconds=seconds)

    assert [answer("SELECT a FROM t ORDER BY b")[0] for _ in range(3)] == [1.0] * 3
    assert "Conversion Error" in answer("SELECT b::INTEGER FROM t")[1]["reason"]
    assert "Binder Error" in answer("SELECT nothing FROM t")[1]["reason"]
    slow = "SELECT a FROM t WHERE a >= list_sum(list_transform(range(3000000), lambda x: x % 2 + a)) - 3000000"
    assert answer(slow, seconds=0.2)[1]["reason"] == "takes more than 0.2 s"
    assert answer("SELECT a FROM t WHERE a < 10001")[0] == 1.0


def test_a_file_that_was_another_at_first_is_not_opened_again(large, tmp_path):
    base = opened(str(large), "duckdb", "")
    with duckdb.connect(tmp_path / "other.db") as writing:
        writing.execute("CREATE TABLE t AS SELECT 7 AS a FROM range(20000); CREATE TABLE t2 AS SELECT 8 AS a FROM t")
    (tmp_path / "other.db").rename(large)
    assert [without("t WHERE a = 1", large) for _ in range(2)] == [set(), set()]
    assert (base._lightly, base._others, len(base._connections)) == (None, {"t"}, 1)
    again = duck.DuckDB.file(str(large))  # has what is open already
    again._look_at("t")
    assert (again._lightly, again._others) == (None, {"t"})


def test_a_file_of_a_name_that_is_taken_is_not_opened_again(large):
    taken = large.rename(large.parent / "memory.db")
    assert [without("t", taken) for _ in range(2)] == [set(), set()]
    assert opened(str(taken), "duckdb", "")._others == {"t"}


def test_what_fails_as_it_is_executed_is_executed_again_as_ever(executed):
    def answer(query, gold="SELECT a FROM t"):
        executed.clear()
        return *score(query, gold, TABLES, system="duckdb"), [direct for _, direct in executed]

    answer("SELECT a FROM t")
    assert answer("SELECT a FROM t WHERE a >= 0 ORDER BY b")[::2] == (1.0, [False])
    failures = (("Binder", "nothing"), ("Catalog", "nothing(a)"), ("Parser", "a +"), ("Conversion", "b::INTEGER"))
    for kind, cell in failures:
        found, details, asked = answer(f"SELECT {cell} FROM t")
        assert (found, asked) == (0.0, [False] + [True] * (kind == "Conversion"))
        assert f"{kind} Error" in details["reason"]
    assert answer("SELECT a FROM t WHERE a >= 0")[::2] == (1.0, [False])
    with pytest.raises(Abstain, match="Conversion Error"):
        answer("SELECT a FROM t", "SELECT b::INTEGER FROM t")
    assert answer("SELECT a FROM t", "SELECT a FROM t u")[::2] == (1.0, [False, False])


def test_what_takes_long_as_it_is_is_executed_again_as_ever(executed, monkeypatch):
    optimized("SELECT a FROM t")
    slow = "SELECT a FROM t WHERE a >= list_sum(list_transform(range(3000000), lambda x: x % 2)) - 3000000"
    monkeypatch.setattr(databases, "QUICK", 0.01)
    executed.clear()
    assert score(f"{slow} AND a < 100", slow, TABLES, system="duckdb", seconds=7.0)[0] == 1.0
    assert executed[:2] == [(0.01, False), (7.0, True)]
    executed.clear()
    assert score(slow, "SELECT a FROM t WHERE a >= 0", TABLES, system="duckdb", seconds=0.01)[1]["reason"] == (
        "takes more than 0.01 s"
    )
    assert executed[-1] == (0.01, True)


def test_tables_are_looked_at_up_to_a_number_of_them(executed, monkeypatch):
    monkeypatch.setattr(duck, "TABLES", 2)
    for source in ("t", "many", "t2", "t", "t2"):
        optimized(f"SELECT a FROM {source}")
    assert [direct for _, direct in executed] == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("cells", "columns"),
    [
        ("(a / 7)::DECIMAL(9, 2)", True),
        ("b, (a / 7)::DECIMAL(9, 2)", True),
        ("b, CASE WHEN a > 0 THEN (a / 7)::DECIMAL(9, 2) END", False),
        ("a, b", False),
    ],
)
def test_a_few_decimals_come_as_columns_too(cells, columns):
    base = opened(TABLES, "duckdb", "")
    for rows, expected in ((69, False), (70, columns), (100, columns)):
        for k in range(3):
            gold = f"SELECT {cells} FROM t WHERE a < {rows} AND a >= -{k}"
            assert score(f"{gold} ORDER BY b DESC", gold, TABLES, system="duckdb")[0] == 1.0
        assert isinstance(base.last.result, Columns) == expected
        assert base.last.bulky == expected


def test_fewer_structures_than_other_rows_come_as_columns():
    base = opened(MANY, "duckdb", "")
    for rows, expected in ((299, False), (300, True), (400, True)):
        for cells in ("{'x': a, 'y': b}, a % 2", "{'x': CASE WHEN a > 9 THEN a END}"):
            for k in range(3):
                gold = f"SELECT {cells} FROM t WHERE a < {rows} AND a >= -{k}"
                assert score(f"{gold} ORDER BY b DESC", gold, MANY, system="duckdb")[0] == 1.0
            assert isinstance(base.last.result, Columns) == base.last.bulky == expected


@pytest.mark.parametrize("system", ["sqlite", "duckdb"])
def test_cycles_are_not_looked_for_while_rows_are_fetched_and_compared(system, monkeypatch):
    seen = []
    monkeypatch.setattr(running, "difference", lambda *others, **options: seen.append(gc.isenabled()))
    monkeypatch.setattr(running, "fetched", lambda *others: seen.append(gc.isenabled()) or fetched(*others))
    for before in (True, False):
        (gc.enable if before else gc.disable)()
        try:
            assert score("SELECT 1", "SELECT 1", {"schema": ""}, system=system)[0] == 1.0
            assert gc.isenabled() == before
            assert score("nonsense", "SELECT 1", {"schema": ""}, system=system)[0] == 0.0
            assert gc.isenabled() == before
            with pytest.raises(Abstain):
                score("SELECT 1", "nonsense", {"schema": ""}, system=system)
            assert gc.isenabled() == before
        finally:
            gc.enable()
    assert seen == [False] * 8


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([1, "x"], [2, "x"]),
        ([1], [1, 1]),
        ({"x": 1, "y": None}, {"x": 1, "z": None}),
        ({"x": 1, "y": None}, {"x": None, "y": 1}),
        ([datetime(2020, 1, 1)], [datetime(2020, 1, 2)]),
        ([[b"1"]], [["1"]]),
        ([1.5, math.inf], [1.5, -math.inf]),
    ],
)
def test_nested_cells_are_the_same_in_another_order_and_as_often(ours, theirs):
    rows = [(ours, 1), (theirs, 1), (ours, 2)] * 30
    assert same(rows, rows[::-1], ordered=False)
    assert not same(rows, rows[::-1], ordered=True)
    assert not same(rows, [*rows[:0:-1], (theirs, 1)], ordered=False)
    assert not same([(ours,)], [(theirs,)], ordered=False)
    assert streamed(rows, [*rows[:0:-1], (theirs, 1)])


def test_nested_cells_are_equal_as_in_python():
    expected = [([1, 2], {"x": 1, "y": [NAN[0]]}), ([1, 2], None)]
    answer = [([1.0, 2.0], None), ([1, 2], {"y": [NAN[1]], "x": 1.0})]
    assert streamed(expected, answer) is None
    assert streamed(expected, [answer[0], ([2, 1], answer[1][1])])
    assert streamed(expected, [answer[0], ([1, 2], {"x": 1, "z": [NAN[0]]})])


def test_a_nested_row_that_comes_too_often_is_expected():
    for cell, look in (([1], "[1]"), (float("nan"), "nan")):
        rows, others = [(cell, 1), (cell, 2), (cell, 3)], [(cell, 1), (cell, 2), (cell, 1)]
        assert difference(rows, others, ordered=False) == f"has a row too often: ({look}, 1)"
        assert (
            difference(rows, [*others[:2], (cell, 4)], ordered=False) == f"has a row that is not expected: ({look}, 4)"
        )


def test_a_decimal_beside_floats_is_the_nearest_of_them():
    floats, decimals = [(0.14, 1), (None, 2), (2.0, 3)], [(Decimal("0.140"), 1), (None, 2), (Decimal(2), 3)]
    for one, two in ((floats, decimals), (decimals, floats)):
        for other in (two, two[::-1], two[1:] + two[:1]):
            assert streamed(one, other[:1], other[1:]) is None
            assert (streamed(one, other, ordered=True) is None) == (other == two)
        assert streamed(one, [*two[1:], two[1]]) == "has a row too often: (None, 2)"
    wrong = [(Decimal("0.1400000001"), 1), *decimals[1:]]
    assert streamed(floats, wrong, tolerance=1e-8) is None
    assert streamed(floats, wrong, tolerance=1e-11) == "has (0.1400000001, 1) where (0.14, 1) is expected"
    assert streamed(floats, wrong) == "has a row that is not expected: (0.1400000001, 1)"
    assert streamed(decimals, wrong) == f"has a row that is not expected: {shown(wrong[0])}"
    assert streamed(decimals, wrong, tolerance=1e-8)  # neither is a float


def test_what_is_nested_in_columns_of_many_types_is_told_apart():
    rows = [({"x": 1},), ({"x": 1, "y": 1},)]  # maps
    assert same(rows, [({"x": 1.0, "y": 1},), ({"x": 1},)], ordered=False)
    assert not same(rows, [({"x": 1.0},), ({"x": 1, "y": 2},)], ordered=False)
    rows = [(["a"], 1), (["b"], 1)]  # unions
    assert same(rows, [(["b"], 1.0), (["a"], 1.0)], ordered=False)
    assert not same(rows, [(["a"], 1.0), ("b", 1.0)], ordered=False)


def test_what_has_no_hash_and_is_no_list_is_what_it_looks_like():
    rows = [(bytearray(b"nan"),), (bytearray(b"1"),)]
    assert difference(rows, rows[::-1], ordered=False) is None
    assert "not expected" in difference(rows, [rows[0], (bytearray(b"nan "),)], ordered=False)


def test_rows_with_lists_are_not_expected_where_there_are_none():
    assert streamed([([1], 2), ([2], 1)], [([2], 1), ([1], 2)]) is None
    for rows in ([(1,), (2,)], [(1,), (1,)]):
        reason = streamed(rows, [([1],), (1,)])
        assert reason == "has a row that is not expected: ([1],)"


def test_rows_that_are_alike_in_some_cells_are_not_the_same():
    rows = [(1, "a"), (2, "b")]
    assert not same(rows, [(2, "b"), (1, "b")], ordered=False)
    assert not same(rows, [(2, "b"), (2, "b")], ordered=False)
    assert not same(rows, [(2, "b")], ordered=False)
    repeating, late = [(k % 3, k % 5) for k in range(15)], [(k % 199, k) for k in range(200)]
    assert same(repeating, repeating[::-1], ordered=False)
    assert same(late, late[::-1], ordered=False)
    assert not same(repeating, [*repeating[:0:-1], (2, 4)], ordered=False)


def test_rows_whose_cells_cannot_be_hashed_are_the_same_at_once():
    rows = [([1], "1", None), ([2], "2", {"x": math.nan}), ([1], "1", None), (["1"], "1", None)]
    for other in itertools.permutations(rows):
        assert same(rows, list(other), ordered=False)
        assert same(rows, list(other), ordered=True) == (list(other) == rows)
    for wrong in (["1"], "1", None), ([1], 1, None), ([2], "2", {"x": math.nan}):
        assert not same(rows, [*rows[1:], wrong], ordered=False)
    assert same([(1, [1]), (2, [2])], [(2, [2]), (1, [1])], ordered=False)
    assert not same([(1,), (2,)], [([1],), (1,)], ordered=False)


@given(tables, st.randoms(use_true_random=False), st.sampled_from([0.0, 1e-9]))
def test_any_order_of_the_same_rows_is_the_same_multiset(rows, rng, tolerance):
    other = rng.sample(rows, len(rows))
    assert streamed(rows, other, tolerance=tolerance) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 9)), max_size=8), st.randoms(use_true_random=False))
def test_rows_that_are_nearly_the_same_find_one_another(rows, rng):
    other = [(a, b * (1 + 1e-12)) for a, b in rng.sample(rows, len(rows))]
    assert streamed(rows, other, tolerance=1e-6) is None


@pytest.mark.parametrize(
    ("completion", "query"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("<think>```sql\nSELECT 0\n```</think>\n```sql\nSELECT 1\n```", "SELECT 1"),
        ("<think>x</think><answer> SELECT 1 ; </answer>", "SELECT 1"),
        ("```python\nprint()\n```\n<answer>SELECT 1</answer>", "SELECT 1"),
        ("<think>never done: SELECT 1", ""),
        ([{"role": "assistant", "content": "SELECT 1"}, {"role": "tool", "content": "SELECT 2"}], "SELECT 1"),
    ],
)
def test_the_query_of_a_reply(completion, query):
    assert query_in(completion) == query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (GOLD, 1.0),
        ("SELECT x.A FROM T AS x WHERE x.B>5", 1.0),  # table t, columns a and b, whatever they are called here
        ("SELECT a FROM t", 2 / 3),
        ("SELECT a AS a FROM t", 2 / 3),  # named as what it stands for
        ("SELECT a, name FROM t JOIN u USING (a) WHERE b>1", 3 / 5),
        ("WITH w AS (SELECT a FROM t WHERE b>1) SELECT a FROM w", 1.0),
        ("SELECT count(a) AS n FROM t WHERE b>1 ORDER BY n", 1.0),
        ("SELECT c FROM v", 0.0),
        ("SELEC a FROM", 0.0),
        ("DROP TABLE t", 0.0),
    ],
)
def test_linking_is_the_overlap_of_the_names_of_tables_and_columns(query, expected):
    assert sql.linking().evaluate(query, GOLD)[0] == pytest.approx(expected)


def test_linking_of_two_queries_that_refer_to_nothing_is_whole():
    assert sql.linking().evaluate("SELECT 1", "SELECT 2")[0] == 1.0
    with pytest.raises(Abstain, match="the reference fails"):
        sql.linking().evaluate("SELECT 1", "SELECT FROM WHERE")


def test_naming_every_table_and_column_does_not_pay():
    everything = "SELECT a, b, name FROM t, u"
    assert sql.linking().evaluate(everything, GOLD)[0] < sql.linking().evaluate("SELECT a, b FROM t", GOLD)[0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("SELECT a FROM t WHERE b>2", 4 / 6), (GOLD.lower(), 1.0), ("SELECT", 0.0), ("SELECT a " * 50, 1 / 6)],
)
def test_ngrams_are_the_overlap_of_sets_of_pairs_of_words(query, expected):
    assert sql.ngrams().evaluate(query, GOLD) == pytest.approx(expected)
    assert sql.ngrams(n=9).evaluate(query, GOLD) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t WHERE b IN (SELECT 1)", 1.0),
        ("WITH x AS (SELECT 1) SELECT * FROM x UNION SELECT 2", 1.0),
        ("-- all\nSELECT *\nFROM t", 1.0),
        ("SELECT a FROM t WHERE", 0.0),
        ("SELECT FROM t", 0.0),
        ("SELECT (a FROM t", 0.0),
        ("SELECT 1; SELECT 2", 0.0),
        ("DELETE FROM t", 0.0),
        ("The answer is 42.", 0.0),
        ("SELECT " + "(" * 5000, 0.0),
    ],
)
def test_syntax_is_one_query_that_parses(query, expected):
    assert sql.syntax().evaluate(query)[0] == expected


def think(query):
    return f"<think>hm</think><answer>{query}</answer>"


def test_reasoning_sql_worked_numbers():
    grade = sql.graded(judge="opinion").evaluate
    assert grade(think(GOLD), GOLD, SHOP, 0.5)[0] == 7.0  # a right query gets no judge's points
    wrong, details = grade(think("SELECT a FROM t WHERE b>2"), GOLD, SHOP, 0.5)
    assert wrong == pytest.approx(0 + 2 * 0.5 + 1 + 1 + 4 / 6 + 1)
    assert details["parts"]["overlaps"] == pytest.approx(4 / 6)
    broken, details = grade(think("SELECT a FROM t WHERE WHERE b>1"), GOLD, SHOP, 0.0)
    assert details["parts"] == {
        "executes": 0.0, "judged": 0.0, "runs": 0.0, "links": 0.0, "overlaps": pytest.approx(5 / 6), "formed": 1.0,
    }  # fmt: skip
    assert broken == pytest.approx(5 / 6 + 1)
    assert sql.graded().range == (0.0, 7.0)


def test_reasoning_sql_asks_its_judge_only_where_the_query_is_wrong():
    asked = []

    def judge(prompt, wanted, said):
        asked.append((prompt, wanted, said))
        return 0.25

    grade = sql.graded(judge=judge).evaluate
    assert grade(think(GOLD), GOLD, SHOP, "which?")[1]["parts"]["judged"] == 0.0
    assert asked == []
    assert grade(think("SELECT b FROM t"), GOLD, SHOP, "which?")[1]["parts"]["judged"] == 0.25
    assert asked == [("which?", GOLD, "SELECT b FROM t")]
    assert sql.graded(judge=judge).reads == ("completion", "query", "database", "prompt")


@pytest.mark.parametrize("opinion", [None, "good", 2.0, float("nan")])
def test_a_judge_without_an_opinion_is_an_abstention(opinion):
    with pytest.raises(Abstain, match="opinion"):
        sql.graded(judge="opinion").evaluate(think("SELECT b FROM t"), GOLD, SHOP, opinion)


def test_reasoning_sql_a_right_query_in_other_words_is_below_a_wrong_look_alike_unless_they_are_ordered():
    right = "SELECT a FROM (SELECT * FROM t) AS x WHERE NOT (b<2)"
    alike = "SELECT a FROM t WHERE b>2"
    rows = Rollouts(
        ["?"] * 2,
        [think(right).replace("<think>hm</think>", ""), think(alike)],
        {"query": [GOLD] * 2, "database": [json.dumps(SHOP)] * 2, "opinion": [0.0, 1.0]},
    )
    graded = sql.graded(judge="opinion")
    first, second = graded.score(rows).read(-1)
    assert first < second
    first, second = algebra.lexicographic(sql.execution(), graded).score(rows).read(-1)
    assert first > second


def test_reasoning_sql_in_an_engine_grades_a_batch():
    queries = [GOLD, "SELECT a FROM t WHERE b>2", "DROP TABLE t", "WHERE"]
    rows = Rollouts(
        ["?"] * 5,
        [*map(think, queries), think(GOLD)],
        {"query": [GOLD] * 4 + ["SELECT x"], "database": [json.dumps(SHOP)] * 5},
    )
    scores = sql.graded().score(rows)
    assert scores.read(-1).tolist() == pytest.approx([7.0, 3 + 4 / 6, 1.0, 1.0, -1])
    assert scores.valid.tolist() == [True] * 4 + [False]
    assert "the reference fails" in scores.reasons[4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "positive"),
        ({"rows": 0}, "positive"),
        ({"tolerance": -1}, "tolerance"),
        ({"order": "x"}, "one of"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sql.execution(**options)


def test_options_of_the_sum_that_cannot_be_meant_are_refused():
    for options in ({"runs": -1.0}, {"tags": "think"}, {"judge": 7}, {"tags": ("no name",)}):
        with pytest.raises(ValueError):  # noqa: PT011
            sql.graded(**options)


def test_a_reward_of_sql_is_data_and_back():
    for leaf in (
        sql.execution(system="duckdb", order="keep"),
        sql.graded(judge="opinion", tags=("a", "b")),
        sql.syntax(),
    ):
        assert spec.load(spec.dump(leaf)) == leaf


def test_rubbish_never_raises():
    rng = random.Random(0)
    signs = [
        "SELECT",
        "FROM",
        "t",
        "a",
        "(",
        ")",
        "'",
        '"',
        ";",
        "--",
        "/*",
        "*",
        ",",
        "WHERE",
        "\x00",
        "é",
        "1e999",
        "\\",
    ]
    judge = sql.graded()
    for _ in range(200):
        text = " ".join(rng.choices(signs, k=rng.randint(0, 12)))
        found, _ = judge.evaluate(text, GOLD, SHOP)
        assert 0 <= found <= 7
