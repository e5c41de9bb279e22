from __future__ import annotations

import numpy as np
import pytest

from guerdon import Context, Rollouts, reduce, route, shaping


def test_each_row_goes_to_its_own_reward(leaf, score):
    first, second = leaf(1, 2, 3, 4, name="f"), leaf(10, 20, 30, 40, name="s")
    scores = score(route("task", sum=first, essay=second), task=["sum", "essay", "poem", None])
    assert scores.to_columns()["score"] == [1.0, 20.0, None, None]
    assert scores.reasons[2] == "no route for task='poem' (there is: sum, essay)"
    assert scores.mask.all()
    assert scores.parts["f"].mask.tolist() == [True, False, False, False], "not asked is no abstention"
    assert scores.parts["f"].reasons == {}


def test_otherwise_takes_the_rest(leaf, listed):
    first, second = leaf(1, 2, 3, name="f"), leaf(10, 20, 30, name="s")
    assert listed(route("task", {"a": first}, otherwise=second), task=["a", "b", None]) == [1.0, 20.0, 30.0]


def test_values_are_compared_as_text(leaf, listed):
    levels = route("level", {1: leaf(5, 5, 5, name="f")}, otherwise=leaf(0, 0, 0, name="s"))
    assert listed(levels, level=[1, "1", 2]) == [5.0, 5.0, 0.0]
    with pytest.raises(ValueError, match="two branches of one name among 1, 1"):
        route("level", {1: leaf(1), "1": leaf(1)})


def test_abstentions_of_a_branch_are_said_with_its_name(leaf, score):
    scores = score(route("task", a=leaf(None, 1, name="f"), b=leaf(1, None, name="s")), task=["a", "b"])
    assert scores.reasons == {0: "f: no f", 1: "s: no s"}
    assert score(route("task", a=leaf(None, 1, name="f")) + 1, task=["a", "a"]).reasons == {0: "f: no f"}


def test_a_shaper_in_a_branch_sees_the_rows_of_the_branch_though_its_leaf_is_measured_at_more(leaf, score):
    shared = leaf(1, 3, 100, 300, name="model")
    routed = route("task", a=shared >> shaping.center("batch"), b=shared)
    scores = score(routed, task=["a", "a", "b", "b"])
    assert scores.to_columns()["score"] == [-1.0, 1.0, 100.0, 300.0]
    assert scores.parts["model"].to_columns()["score"] == [1.0, 3.0, 100.0, 300.0]
    both = score(shared + routed, task=["a", "a", "b", "b"])
    assert both.to_columns()["score"] == [0.0, 4.0, 200.0, 600.0]
    assert both.parts["model"].mask.all()
    assert score(routed + shared, task=["a", "a", "b", "b"]).parts["model"].mask.all()


def test_a_shaper_in_a_branch_observes_the_rows_of_the_branch(leaf, engine):
    class Note(shaping.Shaper):
        def __init__(self):
            self.seen = []

        def __call__(self, scores, context):
            return scores

        def observe(self, scores, context):
            self.seen.append(scores.to_columns()["score"])

    first, second, shared = Note(), Note(), leaf(1, 2, 3, name="m")
    reward = route("task", a=shared >> first, b=shared >> second)
    batch = Rollouts(["?"] * 3, ["0", "1", "2"], {"task": ["a", "b", "b"]})
    context = Context(batch)
    reward.observe(engine.measure(reward.demand(batch), batch, context), context)
    assert first.seen == [[1.0, None, None]]
    assert second.seen == [[None, 2.0, 3.0]]


def test_demand_is_of_the_rows_that_need_a_leaf(leaf):
    a, b, c = (leaf(*[0] * 4, name=name) for name in "abc")
    batch = Rollouts(["?"] * 4, ["0", "1", "2", "3"], {"task": ["x", "y", "y", "z"], "kind": ["p", "q", "p", "p"]})
    inner = route("kind", p=b, q=c)
    demand = {
        leaf.name: np.flatnonzero(rows).tolist() for leaf, rows in route("task", x=a, y=inner).demand(batch).items()
    }
    assert demand == {"a": [0], "b": [2], "c": [1]}
    demand = {
        leaf.name: np.flatnonzero(rows).tolist() for leaf, rows in (route("task", x=a, y=b) * a).demand(batch).items()
    }
    assert demand == {"a": [0, 1, 2, 3], "b": [1, 2]}


def test_a_branch_without_rows(leaf, listed):
    steps = leaf([1], [2], steps=True, name="s")
    reward = route("task", a=leaf(1, 2, name="f"), b=reduce(steps + steps, "min"))
    assert listed(reward, task=["a", "a"]) == [1.0, 2.0]


def test_branches_whose_steps_are_reduced(leaf, listed):
    other, steps = leaf([5], [6, 7], [8], steps=True, name="o"), leaf([1, 2], [3], [4, 5], steps=True, name="s")
    reward = route("task", a=reduce(steps, "sum"), b=reduce(other * 1 + other, "max"))
    assert listed(reward, task=["a", "b", "a"]) == [3.0, 14.0, 9.0]
