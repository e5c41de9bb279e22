"""The laws of the algebra, on random expressions over random scores with abstentions.

Every expression is drawn together with its meaning: a plain Python function, written from the
definitions, that gives each row's score (None where it abstains) from the data and the rows it is about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st

from guerdon import (
    Leaf,
    Reward,
    Rollouts,
    Scores,
    available,
    gate,
    harmonic,
    lexicographic,
    product,
    reduce,
    route,
    weigh,
)
from guerdon.algebra import spec
from guerdon.core import Context, Spans
from guerdon.engine import Engine
from guerdon.shaping import bound, center, clip

N = 6
CALLS: list[tuple[Leaf, list[int]]] = []


@dataclass(frozen=True)
class Column(Leaf):
    """Scores as the data say: a number or None per row, or a list of those for a reward of steps."""

    at: str
    steps: bool = False
    tensor: bool = False

    @property
    def name(self) -> str:
        return self.at

    @property
    def range(self) -> tuple[float, float]:
        return (0.0, 2.0) if self.at.startswith("+") else (-2.0, 2.0)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.at,)

    @property
    def level(self) -> str:
        return "step" if self.steps else "rollout"

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        CALLS.append((self, list(rollouts.column("row"))))
        rows = rollouts.column(self.at)
        width = max(map(len, rows), default=0) if self.steps else None
        table = [[*row, *[math.nan] * (width - len(row))] for row in rows] if self.steps else rows
        values = np.array(table, np.float64).reshape((len(rows),) if width is None else (len(rows), width))
        spans = Spans.of([[(i, i + 1) for i in range(len(row))] for row in rows]) if self.steps else None
        asked = np.ones(len(rows), bool) if spans is None else spans.mask
        return Scores(
            torch.tensor(values) if self.tensor else values,
            mask=asked,
            valid=asked & np.isfinite(values),
            spans=spans,
            reasons=dict.fromkeys(range(len(rows)), f"no {self.at}"),
        )


Row = Any  # a float, None for an abstention, or a list of those, one per step
Data = dict[str, list[Any]]
Meaning = Callable[[Data, list[int]], dict[int, Row]]


class Drawn(NamedTuple):
    reward: Reward
    meaning: Meaning


def elementwise(combine: Callable[..., float | None], *terms: Meaning) -> Meaning:
    """A combination of rows one by one, or of their steps; a score per rollout counts for each step."""

    def meaning(data: Data, rows: list[int]) -> dict[int, Row]:
        scores = [term(data, rows) for term in terms]

        def one(row: int) -> Row:
            entries = [score[row] for score in scores]
            steps = next((len(entry) for entry in entries if isinstance(entry, list)), None)
            if steps is None:
                return combine(*entries)
            return [combine(*(e[i] if isinstance(e, list) else e for e in entries)) for i in range(steps)]

        return {row: one(row) for row in rows}

    return meaning


def strict(function: Callable[..., float]) -> Callable[..., float | None]:
    return lambda *xs: None if any(x is None for x in xs) else function(*xs)


NUMBER = st.sampled_from([-1.5, -1.0, -0.25, 0.0, 0.5, 1.0, 2.0])
WEIGHT = st.sampled_from([0.25, 1.0, 3.0])
ASKED: dict[str, set[int]] = {}


@st.composite
def leaves(draw, steps=False, positive=False) -> Drawn:
    at = ("+" if positive else "") + draw(st.sampled_from("abc")) + ("s" if steps else "")

    def meaning(data: Data, rows: list[int]) -> dict[int, Row]:
        ASKED.setdefault(at, set()).update(rows)
        return {row: data[at][row] for row in rows}

    # One leaf per column: whether it holds a tensor follows from its name.
    return Drawn(Column(at, steps=steps, tensor=at in ("b", "bs", "+c")), meaning)


@st.composite
def sums(draw, inner) -> Drawn:
    terms = draw(st.lists(inner, min_size=1, max_size=3))
    weights = [draw(NUMBER) for _ in terms]
    bias = draw(NUMBER)
    total: Any = bias
    for weight, term in zip(weights, terms, strict=True):
        total = total + weight * term.reward
    meaning = strict(lambda *xs: bias + sum(w * x for w, x in zip(weights, xs, strict=True)))
    return Drawn(total, elementwise(meaning, *(t.meaning for t in terms)))


@st.composite
def products(draw, inner) -> Drawn:
    terms = draw(st.lists(inner, min_size=2, max_size=3))
    return Drawn(
        product(*(t.reward for t in terms)), elementwise(strict(lambda *xs: math.prod(xs)), *(t.meaning for t in terms))
    )


@st.composite
def availables(draw, inner) -> Drawn:
    terms = draw(st.lists(inner, min_size=1, max_size=3))
    weights = [draw(WEIGHT) for _ in terms]

    def there(*xs):
        pairs = [(w, x) for w, x in zip(weights, xs, strict=True) if x is not None]
        return sum(weights) * sum(w * x for w, x in pairs) / sum(w for w, _ in pairs) if pairs else None

    return Drawn(
        available(*(t.reward for t in terms), weights=weights), elementwise(there, *(t.meaning for t in terms))
    )


@st.composite
def harmonics(draw, steps=False) -> Drawn:
    terms = draw(st.lists(leaves(steps=steps, positive=True), min_size=1, max_size=3))
    weights = [draw(WEIGHT) for _ in terms]

    def mean(*xs):
        return 0.0 if 0 in xs else sum(weights) / sum(w / x for w, x in zip(weights, xs, strict=True))

    return Drawn(
        harmonic(*(t.reward for t in terms), weights=weights), elementwise(strict(mean), *(t.meaning for t in terms))
    )


@st.composite
def gates(draw, conditions, inner) -> Drawn:
    condition, then = draw(conditions), draw(inner)
    above, otherwise = draw(NUMBER), draw(NUMBER)

    def choose(c, t):
        return None if c is None else t if c > above else otherwise

    reward = gate(condition.reward, then=then.reward, above=above, otherwise=otherwise)
    return Drawn(reward, elementwise(choose, condition.meaning, then.meaning))


@st.composite
def weighed(draw, inner) -> Drawn:
    term = draw(inner)

    def meaning(data: Data, rows: list[int]) -> dict[int, Row]:
        def times(weight, x):
            return None if x is None or not isinstance(weight, float) else weight * x

        weights = {row: data["w"][row] for row in rows}
        return elementwise(times, lambda *_: weights, term.meaning)(data, rows)

    return Drawn(weigh(term.reward, by="w"), meaning)


@st.composite
def shaped(draw, inner) -> Drawn:
    term = draw(inner)
    low = draw(NUMBER)
    at = draw(st.sampled_from(["group", "batch"]))
    shaper, function = draw(
        st.sampled_from([
            (clip(low=low, high=low + 1), lambda x: min(max(x, low), low + 1)),
            (bound("sigmoid", 2.0), lambda x: 1 / (1 + math.exp(-x / 2))),
            (bound("tanh"), math.tanh),
            (center(low), lambda x: x - low),
            (center(at), None),
        ])
    )  # fmt: skip
    if function is not None:
        return Drawn(term.reward >> shaper, elementwise(strict(function), term.meaning))

    def centred(data: Data, rows: list[int]) -> dict[int, Row]:
        scores = term.meaning(data, rows)

        def mean(row):
            others = [other for other in rows if at == "batch" or data["group"][other] == data["group"][row]]
            listed = [scores[o] if isinstance(scores[o], list) else [scores[o]] for o in others]
            there = [x for entry in listed for x in entry if x is not None]
            return sum(there) / len(there) if there else 0.0

        return elementwise(strict(lambda m, x: x - m), lambda *_: {row: mean(row) for row in rows}, lambda *_: scores)(
            data, rows
        )

    return Drawn(term.reward >> shaper, centred)


@st.composite
def routes(draw, inner) -> Drawn:
    branches = {key: draw(inner) for key in draw(st.sampled_from([["x"], ["x", "y"]]))}
    rest = draw(st.none() | inner)

    def meaning(data: Data, rows: list[int]) -> dict[int, Row]:
        tasks = [str(task) for task in data["task"]]
        found = {}
        for key, branch in branches.items():
            found |= branch.meaning(data, [row for row in rows if tasks[row] == key])
        others = [row for row in rows if tasks[row] not in branches]
        return found | (dict.fromkeys(others) if rest is None else rest.meaning(data, others))

    reward = route("task", {k: b.reward for k, b in branches.items()}, otherwise=rest and rest.reward)
    return Drawn(reward, meaning)


@st.composite
def orders(draw, inner) -> Drawn:
    terms = draw(st.lists(inner, min_size=1, max_size=3))
    tolerance = draw(st.sampled_from([0.0, 0.6]))

    def classes(rows: list[int], scores: list[dict[int, Row]], first: bool) -> list[list[int]]:
        """Rows from worst to best, equal ones together; a row whose score is needed and missing is left out."""
        if not scores or (len(rows) == 1 and not first):
            return [rows]
        there = sorted((row for row in rows if scores[0][row] is not None), key=lambda row: scores[0][row])
        tied: list[list[int]] = []
        for before, row in zip([None, *there], there, strict=False):
            if before is None or scores[0][row] - scores[0][before] > tolerance:
                tied.append([])
            tied[-1].append(row)
        return [group for ties in tied for group in classes(ties, scores[1:], False)]

    def meaning(data: Data, rows: list[int]) -> dict[int, Row]:
        scores = [term.meaning(data, rows) for term in terms]
        found: dict[int, Row] = dict.fromkeys(rows)
        for number in {data["group"][row] for row in rows}:
            order = classes([row for row in rows if data["group"][row] == number], scores, True)
            for place, ties in enumerate(order):
                found |= dict.fromkeys(ties, place / max(1, len(order) - 1))
        return found

    return Drawn(lexicographic(*(t.reward for t in terms), tolerance=tolerance), meaning)


@st.composite
def reduced(draw, inner) -> Drawn:
    term = draw(inner)
    how = draw(st.sampled_from(["sum", "mean", "min", "max", "product", "last"]))
    functions = {
        "sum": sum, "mean": lambda xs: sum(xs) / len(xs), "min": min, "max": max, "product": math.prod,
        "last": lambda xs: xs[-1],
    }  # fmt: skip

    def meaning(data: Data, rows: list[int]) -> dict[int, Row]:
        scores = term.meaning(data, rows)
        return {row: functions[how](x) if x and None not in x else None for row, x in scores.items()}

    return Drawn(reduce(term.reward, how), meaning)


@st.composite
def named(draw, inner) -> Drawn:
    term = draw(inner)
    return Drawn(term.reward.named(f"n{hash(repr(term.reward))}"), term.meaning)


def arithmetic(inner) -> st.SearchStrategy[Drawn]:
    return st.one_of(sums(inner), products(inner), availables(inner), weighed(inner), shaped(inner), named(inner))


def extend(inner) -> st.SearchStrategy[Drawn]:
    return st.one_of(arithmetic(inner), gates(inner, inner), routes(inner), orders(inner))


STEPS = st.recursive(
    leaves(steps=True),
    lambda inner: st.one_of(arithmetic(inner), harmonics(steps=True), gates(inner, inner), gates(leaves(), inner)),
    max_leaves=3,
)
EXPRESSIONS = st.recursive(st.one_of(leaves(), leaves(), reduced(STEPS)), extend, max_leaves=6) | harmonics()


@st.composite
def tables(draw) -> Data:
    """Columns of `N` rows; the leaves of steps agree on how many steps each row has."""

    def entry(positive: bool) -> float | None:
        if draw(st.integers(0, 4)) == 0:
            return None
        return draw(st.sampled_from([0.0, 0.5, 0.5, 1.0, 2.0] if positive else [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]))

    counts = [draw(st.integers(0, 3)) for _ in range(N)]
    data: Data = {
        "row": list(range(N)),
        "w": draw(st.lists(st.sampled_from([0.0, 0.5, 3.0, -1, "?", None]), min_size=N, max_size=N)),
    }
    for letter in "abc":
        for sign in ("", "+"):
            data[sign + letter] = [entry(sign == "+") for _ in range(N)]
            data[sign + letter + "s"] = [[entry(sign == "+") for _ in range(k)] for k in counts]
    data["task"] = draw(st.lists(st.sampled_from(["x", "y", "z", None]), min_size=N, max_size=N))
    data["group"] = draw(st.lists(st.integers(0, 2), min_size=N, max_size=N))
    return data


def rollouts_of(data: Data) -> Rollouts:
    columns = {name: column for name, column in data.items() if name != "group"}
    return Rollouts(["?"] * N, ["!"] * N, columns, groups=data["group"])


@pytest.fixture(scope="module")
def engine():
    with Engine(workers=1) as engine:
        yield engine


def close(x: float | None, y: float | None) -> bool:
    return (x is None) == (y is None) and (x is None or math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-9))


@given(EXPRESSIONS, tables())
@settings(max_examples=200, deadline=None)
def test_the_value_is_what_the_definitions_say_row_by_row(engine, drawn, data):
    scores = engine.score(drawn.reward, rollouts_of(data))
    ASKED.clear()
    expected = drawn.meaning(data, list(range(N)))
    columns = scores.to_columns()
    for row in range(N):
        assert close(columns["score"][row], expected[row]), (drawn.reward, row, columns["score"][row], expected[row])
        assert (columns["reason"][row] is None) == (expected[row] is not None)


@given(EXPRESSIONS, tables())
@settings(max_examples=80, deadline=None)
def test_every_score_is_in_the_declared_range(engine, drawn, data):
    low, high = drawn.reward.range
    for score in engine.score(drawn.reward, rollouts_of(data)).to_columns()["score"]:
        slack = 1e-9 * (1 + abs(score or 0.0))
        assert score is None or low - slack <= score <= high + slack, (drawn.reward, score, (low, high))


@given(EXPRESSIONS, tables())
@settings(max_examples=60, deadline=None)
def test_a_leaf_is_measured_once_and_where_it_is_needed_only(engine, drawn, data):
    CALLS.clear()
    engine.score(drawn.reward, rollouts_of(data))
    calls = {leaf.name: rows for leaf, rows in CALLS}
    assert len(calls) == len(CALLS), "an equal leaf that is written again is not measured again"
    ASKED.clear()
    drawn.meaning(data, list(range(N)))
    assert {name: sorted(rows) for name, rows in calls.items()} == {k: sorted(v) for k, v in ASKED.items() if v}


@given(EXPRESSIONS, EXPRESSIONS, tables())
@settings(max_examples=30, deadline=None)
def test_addition_commutes(engine, first, second, data):
    rollouts = rollouts_of(data)
    one = engine.score(first.reward + second.reward, rollouts).to_columns()["score"]
    other = engine.score(second.reward + first.reward, rollouts).to_columns()["score"]
    assert all(map(close, one, other))


@given(EXPRESSIONS, tables())
@settings(max_examples=30, deadline=None)
def test_parts_are_the_raw_scores_of_the_leaves(engine, drawn, data):
    scores = engine.score(drawn.reward, rollouts_of(data))
    ASKED.clear()
    drawn.meaning(data, list(range(N)))
    names = drawn.reward.names()
    assert scores.parts.keys() == names.keys()
    for name, leaf in names.items():
        if isinstance(leaf, Column):
            nothing = [] if leaf.steps else None
            raw = [x if row in ASKED[leaf.at] else nothing for row, x in enumerate(data[leaf.at])]
            assert scores.parts[name].to_columns()["score"] == raw


@given(EXPRESSIONS)
@settings(max_examples=100, deadline=None)
def test_a_reward_and_its_spec_are_the_same(drawn):
    data = spec.dump(drawn.reward)
    assert spec.load(data, allow_import=True) == drawn.reward
    text = yaml.safe_dump(data, allow_unicode=True)
    assert spec.load(yaml.safe_load(text), allow_import=True) == drawn.reward
    assert spec.dump(spec.load(data, allow_import=True)) == data


@dataclass(frozen=True)
class Remember:
    """A shaper that notes what it observes and changes nothing."""

    name: str = "remember"
    scope: str = "row"
    requires: frozenset[str] = frozenset()
    seen: list[list[float | None]] = field(default_factory=list, compare=False)

    def range(self, inner):
        return inner

    def __call__(self, scores, context):
        return scores

    def observe(self, scores, context):
        self.seen.append(scores.to_columns()["score"])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@given(EXPRESSIONS, tables())
@settings(max_examples=30, deadline=None)
def test_a_shaper_observes_what_its_expression_scores(engine, drawn, data):
    remember = Remember()
    reward = (drawn.reward >> remember) + 1.0
    context = Context(rollouts_of(data))
    measured = engine.measure(reward.demand(context.rollouts), context.rollouts, context)
    reward.observe(measured, context)
    (seen,) = remember.seen
    ASKED.clear()
    expected = drawn.meaning(data, list(range(N)))
    assert all(close(seen[row], expected[row]) for row in range(N))
