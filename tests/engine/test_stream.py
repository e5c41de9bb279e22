import asyncio
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core import Context, GuerdonError, MissingInput, Rollouts, Scores
from guerdon.engine import Engine, stream
from guerdon.engine.stream import SeenGroups, pieces


class Whole:
    """A reward that is one leaf and must score some rows together."""

    def __init__(self, leaf, scope="row", requires=frozenset()):
        self.leaf, self.scope, self.requires, self.name = leaf, scope, requires, "whole"
        self.contexts = []

    def leaves(self):
        return (self.leaf,)

    def demand(self, rollouts):
        return {self.leaf: np.ones(len(rollouts), bool)}

    def combine(self, measured, context):
        self.contexts.append(context)
        return measured[self.leaf]


def numbered(values, groups=None):
    """Rollouts whose column 'number' is given."""
    values = list(values)
    return Rollouts(["?"] * len(values), ["!"] * len(values), {"number": values}, groups=groups)


def split(rollouts, cuts):
    """Rollouts as batches that end at these rows."""
    ends = [0, *sorted(cuts), len(rollouts)]
    return [rollouts.select(slice(a, b)) for a, b in itertools.pairwise(ends)]


@pytest.fixture
def given_rows(leaf):
    """A leaf of the batch lane that scores a row by its number, and the numbers it was given, call by call."""
    calls = []

    def measure(rollouts, context):
        calls.append(list(rollouts.column("number")))
        return Scores(np.array(rollouts.column("number"), float))

    return leaf(measure, lane="batch"), calls


def read(scores):
    return [x for piece in scores for x in piece.read(fill=-1).tolist()]


@pytest.mark.parametrize("scope", ["row", "group", "batch"])
@pytest.mark.parametrize("lane", ["process", "async", "batch"])
def test_each_row_is_scored_once_and_in_order(lane, scope, leaf, engine):
    async def awaited(number):
        return number

    function = {
        "process": lambda number: number,
        "async": awaited,
        "batch": lambda rollouts, context: Scores(np.array(rollouts.column("number"), float)),
    }[lane]
    batches = split(numbered(range(100), groups=np.arange(100) // 7), [0, 1, 30, 31, 90])
    assert read(engine.stream(Whole(leaf(function, lane=lane), scope), batches)) == list(range(100))


@pytest.mark.parametrize("scope", ["row", "group", "batch"])
@pytest.mark.parametrize("batches", [[], [numbered([]), numbered([])]], ids=["none", "empty"])
def test_nothing_to_score_gives_nothing(scope, batches, given_rows, engine):
    part, calls = given_rows
    assert list(engine.stream(Whole(part, scope), batches)) == []
    assert calls == []


@st.composite
def streams(draw):
    """Groups whose rows are side by side, where to cut them into batches, and how many rows are wanted at a time."""
    sizes = draw(st.lists(st.integers(1, 6), max_size=12))
    names = draw(st.permutations(range(len(sizes))))
    groups = [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
    cuts = draw(st.lists(st.integers(0, len(groups)), max_size=6))
    return groups, cuts, draw(st.integers(1, 9))


@given(streams(), st.sampled_from(["row", "group", "batch"]))
@settings(max_examples=150, deadline=None)
def test_pieces_are_the_rows_in_order_and_split_nothing_that_belongs_together(case, scope):
    groups, cuts, wanted = case
    batches = split(numbered(range(len(groups)), np.array(groups, int)), cuts)
    cut = list(pieces(batches, Whole(None, scope), lambda: wanted))
    assert [n for piece in cut for n in piece.column("number")] == list(range(len(groups)))
    assert [g for piece in cut for g in piece.groups.tolist()] == groups
    if scope == "row":
        assert all(len(piece) <= wanted for piece in cut)
    elif scope == "group":
        homes = [set(piece.groups.tolist()) for piece in cut]
        assert sum(map(len, homes)) == len(set(groups)), "a group is in one piece"
        for piece in cut:
            assert (piece.groups != piece.groups[-1]).sum() < wanted, "no larger than it takes"
    else:
        assert len(cut) == bool(groups)


def test_a_group_may_go_on_over_many_batches(given_rows, engine):
    part, calls = given_rows
    batches = split(numbered(range(9), groups=[5, 5, 5, 5, 5, 2, 2, 7, 7]), [1, 2, 4, 6, 8])
    assert read(engine.stream(Whole(part, "group"), batches)) == list(range(9))
    assert calls == [[0, 1, 2, 3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("groups", "cuts", "rows"),
    [
        ([0, 1, 0, 1], [], "rows 0 and 2 "),
        ([0, 0, 1, 1, 2, 1], [4], "rows 2 and 5 "),
        ([9, 9, 4, 4, 9], [2, 4], "rows 0 and 4 "),
        ([3, 1, 2, 3, 1], [1, 2, 3], "rows 0 and 3 "),
        ([1, 2, 1, 1, 2, 1], [], "rows 0 and 2 "),
        ([5, -1, 0, -1], [2], "rows 1 and 3 "),
    ],
)
def test_a_group_seen_again_is_an_error_that_names_both_rows(groups, cuts, rows, given_rows, engine):
    batches = split(numbered(range(len(groups)), groups=groups), cuts)
    part, _ = given_rows
    with pytest.raises(GuerdonError, match=rows):
        list(engine.stream(Whole(part, "group"), batches))
    assert read(engine.stream(Whole(part, "row"), batches)) == list(range(len(groups)))


@given(st.lists(st.integers(-3, 6), max_size=25), st.lists(st.integers(0, 25), max_size=4))
def test_groups_are_seen_again_when_a_plain_loop_says_so(groups, cuts):
    began, again = {}, None
    for row, group in enumerate(groups):
        if group in began and groups[row - 1] != group and again is None:
            again = began[group], row
        began.setdefault(group, row)
    batches = split(numbered(range(len(groups)), np.array(groups, int)), [min(c, len(groups)) for c in cuts])
    seen = SeenGroups()

    def note_all():
        for batch in batches:
            seen.note(batch.groups)

    if again is None:
        note_all()
        assert seen.rows == len(groups)
    else:
        with pytest.raises(GuerdonError, match=f"^rows {again[0]} and {again[1]} are of one group"):
            note_all()


@pytest.mark.parametrize(
    ("scope", "what"), [("batch", "compares all rows"), ("group", "the rows of a group, the one of row 2,")]
)
def test_more_than_max_batch_rows_are_not_taken_together(scope, what, given_rows, engine):
    part, calls = given_rows
    rows = numbered(range(8), groups=[0, 0, 1, 1, 1, 1, 1, 2])
    limits = {"batch": (7, 8), "group": (4, 5)}[scope]
    with pytest.raises(GuerdonError, match=f"{what}.* more than {limits[0]}: raise max_batch"):
        list(engine.stream(Whole(part, scope), split(rows, range(1, 8)), max_batch=limits[0]))
    assert [2, 3, 4, 5, 6] not in calls
    assert read(engine.stream(Whole(part, scope), split(rows, range(1, 8)), max_batch=limits[1])) == list(range(8))


def test_batches_are_asked_for_as_they_are_needed(given_rows, engine, monkeypatch):
    monkeypatch.setattr(stream, "_in_flight", lambda engine, reward: 1)
    part, _ = given_rows
    asked = []

    def batches():
        for i in range(100):
            asked.append(i)
            yield numbered([i])

    scores = engine.stream(Whole(part), batches())
    for i in range(50):
        assert next(scores).read(fill=-1).tolist() == [i]
        assert len(asked) == i + 1 + stream.AHEAD, "the ones on their way"
    scores.close()


def test_the_next_piece_is_measured_while_one_is_read(leaf, engine, tmp_path):
    def leave_a_trace(number):
        (tmp_path / str(number)).touch()
        return number

    scores = engine.stream(Whole(leaf(leave_a_trace)), [numbered([i]) for i in range(100)])
    assert next(scores).read(fill=-1).tolist() == [0]
    patience = time.monotonic() + 20
    while not (tmp_path / "1").exists() and time.monotonic() < patience:
        time.sleep(0.01)
    assert (tmp_path / "1").exists(), "nobody has asked for it yet"
    assert not (tmp_path / "99").exists()
    scores.close()


def test_a_leaf_of_this_process_is_not_asked_for_two_pieces_at_a_time(leaf, engine):
    within = []

    def measure(rollouts, context):
        within.append(1)
        time.sleep(0.05)
        assert len(within) == 1
        within.pop()
        return Scores(np.ones(len(rollouts)))

    part = leaf(measure, lane="batch", deadline=5.0)
    scores = list(engine.stream(Whole(part), [numbered([i]) for i in range(4)]))
    assert [piece.valid.tolist() for piece in scores] == [[True]] * 4


def test_what_comes_before_a_fault_is_scored_before_it_is_raised(given_rows, engine):
    def batches():
        yield numbered(range(3))
        yield numbered(range(3, 5))
        raise GuerdonError("row 5 is no row")

    part, _ = given_rows
    scores = engine.stream(Whole(part), batches())
    assert read(itertools.islice(scores, 2)) == [0, 1, 2, 3, 4]
    with pytest.raises(GuerdonError, match="row 5 is no row"):
        next(scores)


def test_what_is_missing_is_an_error_before_any_work(given_rows, engine):
    part, calls = given_rows
    whole = Whole(part, requires=frozenset({"answer"}))
    with pytest.raises(MissingInput, match="column 'answer' is missing"):
        next(engine.stream(whole, [numbered(range(3))]))
    assert calls == []


def test_the_context_is_that_of_the_piece(given_rows, engine):
    part, _ = given_rows
    whole = Whole(part)
    list(engine.stream(whole, split(numbered(range(20)), [10]), Context(step=7)))
    assert {context.step for context in whole.contexts} == {7}
    assert [n for c in whole.contexts for n in c.rollouts.column("number")] == list(range(20))


def test_pieces_are_small_at_first_and_grow(given_rows, engine):
    part, calls = given_rows
    list(engine.stream(Whole(part), [numbered(range(5000))]))
    assert [len(call) for call in calls][:6] == [8, 8, 32, 32, 128, 128]


def test_pieces_of_slow_rows_keep_enough_in_flight(leaf, monkeypatch):
    calls = []

    def measure(rollouts, context):
        calls.append(len(rollouts))
        return Scores(np.ones(len(rollouts)))

    moments = itertools.count(0.0, 100.0)
    monkeypatch.setattr("guerdon.engine.stream.time.monotonic", lambda: next(moments))
    with Engine(workers=5) as engine:
        list(engine.stream(Whole(leaf(measure, lane="batch")), [numbered(range(100))]))
    assert calls == [8, 8, 8, 20, 20, 20, 16]


def test_small_batches_are_begun_until_enough_are_in_flight(leaf):
    together = asyncio.Barrier(16)

    async def wait(number):
        await together.wait()
        return number

    with Engine(concurrency=16) as engine:
        batches = [numbered([i]) for i in range(16)]
        assert read(engine.stream(Whole(leaf(wait, lane="async", deadline=20.0)), batches)) == list(range(16))


def test_who_stops_reading_leaves_no_work_behind(leaf):
    part = leaf(lambda number: number or time.sleep(60) or 1.0, deadline=90.0)
    quick = leaf(lambda number: 1.0, name="quick")
    with Engine(workers=1) as engine:
        scores = engine.stream(Whole(part), [numbered([5]), numbered([0]), numbered([0])])
        assert next(scores).read(fill=-1).tolist() == [5]
        scores.close()
        assert engine.measure({quick: np.ones(2, bool)}, numbered([0, 1]))[quick].mean() == 1.0, "the worker is free"
