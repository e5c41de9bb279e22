from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from guerdon import (
    GuerdonError,
    Scores,
    available,
    gate,
    harmonic,
    lexicographic,
    product,
    reduce,
    route,
    shaping,
    weigh,
)
from guerdon.core import Context, LevelMismatch, NameClash, Rollouts
from guerdon.rewards import text

# Worked numbers


def test_a_sum_is_weighted_and_flat(leaf, listed):
    a, b = leaf(1, 0.5, name="a"), leaf(2, -1, name="b")
    reward = 0.5 * a + 2 * (b - a) + 3
    assert reward.terms == (a, b, a)
    assert reward.weights == (0.5, 2.0, -2.0)
    assert listed(reward) == [0.5 + 4 - 2 + 3, 0.25 - 2 - 1 + 3]
    assert listed(1 - a) == [0.0, 0.5]
    assert listed(-a) == [-1.0, -0.5]
    assert listed(sum([a, b])) == [3.0, -0.5]
    assert listed(np.float64(2) * a) == [2.0, 1.0]


def test_products(leaf, listed):
    a, b, c = leaf(2, -3, name="a"), leaf(5, 0.5, name="b"), leaf(-1, 2, name="c")
    assert listed(product(a, b, c)) == [-10.0, -3.0]
    assert listed(a * b * c) == [-10.0, -3.0]
    assert listed(a * a) == [4.0, 9.0], "a leaf may be a factor of itself"


def test_harmonic_means(leaf, listed):
    a, b = leaf(1, 0.5, 0, name="a", range=(0, 1)), leaf(0.5, 0.5, 1, name="b", range=(0, 1))
    assert listed(harmonic(a, b)) == pytest.approx([2 / 3, 0.5, 0.0])
    assert listed(harmonic(a, b, weights=[3, 1])) == pytest.approx([4 / (3 + 2), 0.5, 0.0])
    with pytest.raises(ValueError, match="never negative"):
        harmonic(a, leaf(0, 0, 0, name="c", range=(-1, 1)))


def test_available_stands_in_for_what_is_missing(leaf, score):
    a, b = leaf(1, 1, None, None, name="a"), leaf(0.5, None, 0.5, None, name="b")
    scores = score(available(a, b, weights=[3, 1]))
    assert scores.to_columns()["score"] == [3.5, 4.0, 2.0, None]
    assert scores.reasons == {3: "a: no a"}


def test_a_gate_opens_above_its_threshold(leaf, listed):
    condition, then = leaf(0.5, 0.51, 1, name="c"), leaf(7, 8, 9, name="t")
    assert listed(gate(condition, then=then)) == [0.0, 8.0, 9.0]
    assert listed(gate(condition, then=then, above=0.9, otherwise=-1)) == [-1.0, -1.0, 9.0]
    for options in ({"above": math.nan}, {"otherwise": math.inf}, {"otherwise": math.nan}):
        with pytest.raises(ValueError, match="above is a threshold"):
            gate(condition, then=then, **options)


def test_lexicographic_order_within_each_group(leaf, listed):
    first = leaf(1, 1, 0, 1, 5, 4, name="first")
    second = leaf(3, 9, 99, 3, 0, 0, name="second")
    # Group 0: row 2 is worst whatever its second score; rows 0 and 3 tie; row 1 is best. Group 1: one rollout each.
    assert listed(lexicographic(first, second), groups=[0, 0, 0, 0, 1, 2]) == [0.5, 1.0, 0.0, 0.5, 0.0, 0.0]


def test_lexicographic_tolerance_makes_neighbours_tie(leaf, listed):
    first, second = leaf(0.0, 0.1, 0.2, 0.5, name="f"), leaf(3, 2, 1, 0, name="s")
    assert listed(lexicographic(first, second, tolerance=0.15), groups=[0] * 4) == pytest.approx([2 / 3, 1 / 3, 0, 1])
    with pytest.raises(ValueError, match="tolerance is a distance"):
        lexicographic(first, tolerance=-1)


def test_weigh(leaf, score):
    scores = score(weigh(leaf(1, 2, 3, 4, 5, None, name="a"), by="w"), w=[2, 0.5, -1, "hard", math.inf, 1])
    assert scores.to_columns()["score"] == [2.0, 1.0, None, None, None, None]
    assert scores.reasons[3] == "column 'w' is not a weight ≥ 0"
    assert scores.reasons[5] == "no a"


# Abstention


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        (lambda a, b: a + b, [None, None, None, 2.0]),
        (lambda a, b: 0 * a + b, [None, None, None, 1.0]),
        (lambda a, b: a * b, [None, None, None, 1.0]),
        (lambda a, b: product(b, a), [None, None, None, 1.0]),
        (lambda a, b: harmonic(a, b), [None, None, None, 1.0]),
        (lambda a, b: available(a, b), [None, 0.0, 2.0, 2.0]),
        (lambda a, b: gate(a, then=b), [None, None, None, 1.0]),
        (lambda a, b: gate(b, then=a), [None, 0.0, None, 1.0]),
    ],
)
def test_who_abstains(leaf, listed, combine, expected):
    a = leaf(None, None, 1, 1, name="a", range=(0, 1))
    b = leaf(None, 0, None, 1, name="b", range=(0, 1))
    assert listed(combine(a, b)) == expected


def test_lexicographic_needs_a_later_term_on_ties_only(leaf, listed):
    def places(first, second):
        return listed(lexicographic(leaf(*first, name="f"), leaf(*second, name="s")), groups=[0] * len(first))

    assert places([1, 2], [None, None]) == [0.0, 1.0], "no tie: the second is not needed"
    assert places([1, 1], [None, 5]) == [None, 0.0], "the tie is broken by leaving the group"
    assert places([1, 1, 2], [None, None, None]) == [None, None, 0.0]
    assert places([None, 1, 2], [9, None, None]) == [None, 0.0, 1.0]
    assert places([None], [9]) == [None], "the first is needed even where there is no one to compare with"


def test_a_reason_is_said_with_the_name_of_its_leaf_once(leaf, score):
    a, b = leaf(None, 1, name="a"), leaf(1, None, name="b")
    assert score(a).reasons == {0: "no a"}
    for reward in (a + b, 2 * (a * b), gate(a + b, then=a), (a >> shaping.clip()) + b, weigh(a, by="w") + b):
        assert score(reward, w=[1, 1]).reasons == {0: "a: no a", 1: "b: no b"}
    assert score(a.named("first") + (b.named("second") >> shaping.clip())).reasons == {
        0: "first: no a",
        1: "second: no b",
    }


# Steps


def test_reduce_by_hand(leaf, score):
    steps = leaf([0.5, 0.25, 1.0], [-2.0], [], [1.0, None], steps=True, name="s")
    for how, first in [
        ("sum", 1.75),
        ("mean", 1.75 / 3),
        ("min", 0.25),
        ("max", 1.0),
        ("product", 0.125),
        ("last", 1.0),
    ]:
        scores = score(reduce(steps, how))
        assert scores.to_columns()["score"] == [pytest.approx(first), -2.0, None, None]
        assert scores.reasons == {2: "the rollout has no steps", 3: "no s"}
    with pytest.raises(ValueError, match="how is"):
        reduce(steps, "median")
    with pytest.raises(ValueError, match="nothing to reduce"):
        reduce(leaf(1, name="a"), "min")


@pytest.mark.parametrize("how", ["sum", "mean", "min", "max", "product", "last"])
def test_reduce_of_rollouts_that_all_have_no_steps(leaf, listed, how):
    for tensor in (False, True):
        assert listed(reduce(leaf([], [], steps=True, tensor=tensor), how)) == [None, None]


@pytest.mark.parametrize(
    ("how", "inner", "expected"),
    [
        ("sum", (0, 1), (0, math.inf)),
        ("sum", (-2, -1), (-math.inf, -1)),
        ("product", (0.5, 1), (0, 1)),  # 0.5 · 0.5 · … leaves [0.5, 1] below
        ("product", (2, 3), (2, math.inf)),
        ("product", (-1, 0.5), (-1, 1)),
        ("product", (-2, 0.5), (-math.inf, math.inf)),
        ("min", (-2, 3), (-2, 3)),
    ],
)
def test_the_range_of_a_reduction(leaf, how, inner, expected):
    assert reduce(leaf([], steps=True, range=inner), how).range == expected


def test_a_condition_of_rollouts_gates_steps(leaf, listed):
    condition, steps = leaf(1, 0, None, name="c"), leaf([1, 2], [3], [4], steps=True, name="s")
    assert listed(gate(condition, then=steps, otherwise=-1)) == [[1.0, 2.0], [-1.0], [None]]


def test_steps_of_different_cuts_abstain_instead_of_being_mixed(leaf, score):
    first = leaf([1, 2], [1, 2], [3], steps=True, name="f")
    fewer = leaf([10], [10, 20], [30], steps=True, name="g")
    scores = score(first + fewer)
    assert scores.to_columns()["score"] == [[None, None], [11.0, 22.0], [33.0]]
    assert scores.reasons == {
        0: "g: its 1 steps are not the 2 steps of the reward beside it: combine rewards of one segmentation"
    }
    elsewhere = leaf([10, 20], [10, 20], [30], steps=True, name="h", cuts=(5,))
    assert score(first + elsewhere).abstained_rows == [0, 1, 2]


def test_a_reward_of_steps_that_fails_abstains_on_the_steps_of_the_others(leaf, score):
    """The engine gives a leaf that raises one abstention per row, whatever its steps would have been."""

    class Broken(type(leaf(0))):
        def measure(self, rollouts, context):
            raise ZeroDivisionError("judge is gone")

    steps, broken = leaf([1, 2], [3], steps=True, name="s"), Broken((), name="broken", steps=True)
    for reward in (steps + broken, broken + steps, gate(broken, then=steps)):
        scores = score(reward, 2)
        assert scores.to_columns()["score"] == [[None, None], [None]]
        assert scores.spans.rows() == [[(0, 1), (1, 2)], [(0, 1)]]
        assert scores.reasons[0].startswith("broken: ZeroDivisionError: judge is gone")
    assert score(available(steps, broken), 2).to_columns()["score"] == [[2.0, 4.0], [6.0]]


def test_levels_are_not_mixed_silently(leaf):
    rollout, steps = leaf(1, name="right"), leaf([1], steps=True, name="progress")
    for combine in (
        lambda: rollout + steps,
        lambda: steps * rollout,
        lambda: harmonic(leaf(1, name="right", range=(0, 1)), leaf([1], steps=True, name="progress", range=(0, 1))),
        lambda: available(rollout, steps),
        lambda: gate(steps, then=rollout),
        lambda: lexicographic(rollout, steps),
        lambda: route("task", a=rollout, b=steps),
    ):
        with pytest.raises(LevelMismatch, match="reduce") as caught:
            combine()
        assert "right" in str(caught.value)
        assert "progress" in str(caught.value)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, GuerdonError)
    with pytest.raises(LevelMismatch, match="one score per rollout"):
        steps >> shaping.brevity()
    with pytest.raises(ValueError, match="orders rollouts"):
        lexicographic(steps)
    with pytest.raises(ValueError, match="reduce"):
        route("task", a=steps)


# Names and parts


def test_names_are_unique(leaf):
    words, characters = text.length(unit="words"), text.length(unit="characters")
    with pytest.raises(NameClash, match=r"two different parts are called 'text.length'.*named"):
        words + characters
    with pytest.raises(NameClash):
        words * (characters + 1)
    with pytest.raises(NameClash):
        route("task", a=words, b=characters)
    with pytest.raises(NameClash):
        gate(words, then=characters)
    assert list((words.named("w") + characters).names()) == ["w", "text.length"]
    assert list((words + words).names()) == ["text.length"], "the same reward may go by its name twice"
    a = leaf(1, name="a")
    with pytest.raises(NameClash, match="already the name"):
        (a + 1).named("a")
    with pytest.raises(ValueError, match="must not be empty"):
        a.named(" ")


def test_parts_are_leaves_and_named_composites(leaf, score):
    a, b = leaf(1, None, name="a"), leaf(0.5, 0.5, name="b")
    scores = score(((a + b).named("both") >> shaping.clip(high=0)) * b)
    assert list(scores.parts) == ["a", "b", "both"]
    assert scores.parts["both"].to_columns()["score"] == [1.5, None], "raw: before the shaper"
    assert scores.parts["both"].parts == {}
    assert scores.parts["a"].reasons == {1: "no a"}
    assert list(score(a.named("right")).parts) == ["right"]


# What carries through


def test_requires_scope_and_differentiable(leaf):
    a = leaf(1, name="a", extra=("answer",))
    g = leaf(1, name="g", scope="group", extra=("tests",))
    b = leaf(1, name="b", scope="batch")
    assert (a + g).requires == {"completion", "answer", "tests"}
    assert weigh(a, by="difficulty").requires == {"completion", "answer", "difficulty"}
    assert route("task", x=a, y=g).requires == {"completion", "answer", "tests", "task"}
    assert (leaf(1, range=(0, 1)) >> shaping.brevity(unit="tokens")).requires == {"completion", "tokens"}
    assert (a + 1).scope == "row"
    assert gate(a, then=g).scope == "group"
    assert (g * b).scope == "batch"
    assert (a >> shaping.center("group")).scope == "group"
    assert (a >> shaping.center(0.5)).scope == "row"
    assert lexicographic(a).scope == "group"
    smooth = leaf(1, name="s", differentiable=True)
    assert (2 * smooth + 1).differentiable
    assert (smooth >> shaping.clip()).differentiable
    assert not (smooth + a).differentiable
    assert not lexicographic(smooth).differentiable


def test_missing_inputs_are_an_error_before_any_work(engine, leaf):
    class Untouched(type(leaf(0))):
        def measure(self, rollouts, context):
            raise AssertionError("measured")

    reward = weigh(Untouched((1,), extra=("answer",)), by="difficulty") >> shaping.center("group")
    with pytest.raises(GuerdonError) as caught:
        engine.score(reward, Rollouts(["?"], ["!"], {"solution": ["1"]}))
    assert "column 'answer' is missing: given reads it; the batch has: prompt, completion, solution" in str(
        caught.value
    )
    assert "column 'difficulty' is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("combine", "inner", "expected"),
    [
        (lambda a, b: 2 * a - b + 1, ((0, 1), (-1, 3)), (-2.0, 4.0)),
        (lambda a, b: 0 * a + b, ((-math.inf, math.inf), (0, 1)), (0.0, 1.0)),
        (lambda a, b: a * b, ((-2, 1), (-3, 5)), (-10, 6)),
        (lambda a, b: a * b, ((0, math.inf), (0, 1)), (0, math.inf)),
        (lambda a, b: harmonic(a, b), ((0, 1), (0.5, 4)), (0, 4)),
        (lambda a, b: available(a, b, weights=[1, 3]), ((-1, 1), (0, 2)), (-4, 8)),
        (lambda a, b: gate(a, then=b, otherwise=-5), ((0, 1), (2, 3)), (-5, 3)),
        (lambda a, b: lexicographic(a, b), ((-9, 9), (0, 1)), (0, 1)),
        (lambda a, b: route("t", a=a, b=b), ((0, 1), (2, 3)), (0, 3)),
        (lambda a, b: weigh(a, by="w") + b, ((0, 1), (0, 1)), (0, math.inf)),
        (lambda a, b: (a + b).named("n"), ((0, 1), (0, 1)), (0, 2)),
    ],
)
def test_ranges(leaf, combine, inner, expected):
    assert combine(leaf(0, name="a", range=inner[0]), leaf(0, name="b", range=inner[1])).range == expected


# Arrays


def test_rewards_that_hold_arrays_and_tensors_combine(leaf, score):
    """A verifier beside a learned reward: the commonest sum there is."""
    plain, learned = (
        leaf(1, None, name="plain", range=(0, 1)),
        leaf(0.5, 0.5, name="learned", range=(0, 1), tensor=True),
    )
    for reward in (
        plain + learned,
        learned + plain,
        product(plain, learned),
        harmonic(plain, learned),
        gate(plain, then=learned),
        gate(learned, then=plain, above=0.1),
        lexicographic(plain, learned),
        route("task", {"0": plain}, otherwise=learned),
        route("task", {"0": learned}, otherwise=plain),
    ):
        scores = score(reward, task=[0, 1])
        assert scores.to_columns()["score"] == score(_plain(reward), task=[0, 1]).to_columns()["score"]


def _plain(reward):
    """The same expression over leaves that hold arrays."""
    if hasattr(reward, "tensor"):
        return replace(reward, tensor=False)

    def changed(value):
        if isinstance(value, tuple):
            return tuple(changed(v) for v in value)
        return _plain(value) if hasattr(value, "combine") else value

    return replace(reward, **{f.name: changed(getattr(reward, f.name)) for f in fields(reward)})


def test_gradients_flow_through_every_smooth_combination(leaf, engine):
    x, y, s = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.5, 0.2], [0.3, 0.9], [[0.4, 0.6]] * 2)
    )

    class Smooth(type(leaf(0))):
        def measure(self, rollouts, context):
            return Scores({"x": x, "y": y, "s": s}[self.name][[int(row) for row in rollouts.completions]])

    a, b = (Smooth((), name=n, range=(0, 1), differentiable=True) for n in "xy")
    steps = Smooth((), name="s", range=(0, 1), steps=True, differentiable=True)
    cases = [
        (2 * a - b, 2 * x - y),
        (a * b, x * y),
        (harmonic(a, b), 2 / (1 / x + 1 / y)),
        (available(a, b), x + y),
        (gate(b, then=a, above=0.5), torch.where(y > 0.5, x, 0.0)),
        (weigh(a, by="w"), x * torch.tensor([2.0, 3.0], dtype=torch.float64)),
        (route("task", p=a, q=b), torch.stack([x[0], y[1]])),
        (a.named("n") >> shaping.bound("tanh"), torch.tanh(x)),
        (a >> shaping.center("batch"), x - x.mean()),
        (reduce(steps, "sum"), s.sum(-1)),
        (reduce(steps, "mean"), s.mean(-1)),
        (reduce(steps, "min"), s.min(-1).values),
        (reduce(steps, "max"), s.max(-1).values),
        (reduce(steps, "product"), s.prod(-1)),
        (reduce(steps, "last"), s[:, -1]),
    ]
    batch = Rollouts(["?", "?"], ["0", "1"], {"w": [2, 3], "task": ["p", "q"]})
    weights = torch.tensor([1.0, -0.5], dtype=torch.float64)
    for reward, expected in cases:
        values = engine.score(reward, batch).read(0.0)
        torch.testing.assert_close(values, expected)
        expected_gradients = torch.autograd.grad((expected * weights).sum(), [x, y, s], allow_unused=True)
        gradients = torch.autograd.grad((values * weights).sum(), [x, y, s], allow_unused=True)
        for got, wanted in zip(gradients, expected_gradients, strict=True):
            zero = torch.zeros(())
            torch.testing.assert_close(
                zero if got is None else got.sum(), zero if wanted is None else wanted.sum(), check_dtype=False
            )


def test_available_is_exact_on_tensors(leaf, score):
    """Weights are of the scores' precision, not of torch's default one."""
    a, b = leaf(1, name="a", tensor=True), leaf(1, name="b", tensor=True)
    assert score(available(a, b, weights=[0.1, 0.2])).read(0.0).tolist() == pytest.approx([0.3], rel=1e-15)


# Structure


def test_expressions_are_values(leaf):
    a, b = leaf(1, name="a"), leaf(2, name="b")
    assert 0.5 * a + b == 0.5 * a + b
    assert hash(0.5 * a + b) == hash(0.5 * a + b)
    assert 0.5 * a + b != 0.5 * a + 2 * b
    assert gate(a, then=b) != gate(a, then=b, above=0.1)
    assert product(a, b) != available(a, b)
    with pytest.raises(AttributeError):
        (a + b).bias = 1.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda a: a + "1", "cannot add str"),
        (lambda a: a * None, "a weight is a number"),
        (lambda a: True * a, "a weight is a number"),
        (lambda a: math.inf * a, "must be finite"),
        (lambda a: a + math.nan, "must be finite"),
        (lambda a: product(a, text.length), "product combines rewards, got <reward text.length>: call it first"),
        (lambda a: product(), "product of nothing"),
        (lambda a: harmonic(a, weights=[1, 2]), "2 weights for 1 rewards"),
        (lambda a: available(a, weights=[0]), "weights must be positive"),
        (lambda a: gate(len, then=a), "gate combines rewards"),
        (lambda a: gate(a, then=0.5), "gate combines rewards, got 0.5"),
        (lambda a: route("t", x=None), "route combines rewards"),
        (lambda a: route("t"), "at least one branch"),
        (lambda a: reduce(len, "min"), "combines rewards"),
        (lambda a: weigh(3, by="w"), "combines rewards"),
        (lambda a: a >> shaping.center, "the right side of >> is a shaper such as shaping.center()"),
        (lambda a: a >> len, "the right side of >> is a shaper"),
        (lambda a: (a - 1) >> shaping.brevity(), "brevity scales rewards that are never negative"),
    ],
)
def test_what_is_no_expression_is_refused_where_it_is_written(leaf, build, message):
    with pytest.raises((TypeError, ValueError), match="(?i)" + message.replace("(", r"\(").replace(")", r"\)")):
        build(leaf(1, name="a", range=(0, 1)))


def test_an_expression_reads_like_its_source(leaf):
    a, b = leaf(1, name="a"), text.length(unit="words")
    assert repr(0.5 * b + b.named("n") - 1) == (
        "(0.5 * text.length(unit='words') + text.length(unit='words').named('n') + -1)"
    )
    assert repr(gate(b, then=b >> shaping.clip(low=0))).startswith("gate(text.length(unit='words'), then=(")
    assert repr(reduce(leaf([1], steps=True), "min")).startswith("reduce(")
    assert ((a + 1).__name__, (a + 1).named("n").__name__) == ("guerdon", "n"), "what TRL logs it under"


def test_an_empty_batch_and_one_in_which_everything_abstains(leaf, engine, score):
    a, b = leaf(name="a", range=(0, 1)), leaf(name="b", range=(0, 1))
    for reward in (
        a + b,
        harmonic(a, b),
        gate(a, then=b),
        lexicographic(a, b),
        available(a, b),
        a >> shaping.center("group"),
    ):
        assert len(engine.score(reward, Rollouts([], []))) == 0
    nothing = leaf(None, None, None, name="n", range=(0, 1))
    for reward in (nothing + 1, lexicographic(nothing), available(nothing), nothing >> shaping.center("group")):
        scores = score(reward)
        assert scores.mean() is None
        assert sum(scores.tally().values()) == 3


# Observing


def test_each_shaper_observes_what_reached_it_once(leaf, engine):
    class Mean(shaping.Shaper):
        """Subtract the mean of the last observed scores."""

        def __init__(self):
            self.mean, self.seen = 0.0, []

        def __call__(self, scores, context):
            return scores.with_values(scores.read(0.0) - self.mean)

        def observe(self, scores, context):
            self.seen.append(scores.read(0.0).tolist())
            self.mean = scores.mean()

        def state_dict(self):
            return {"mean": self.mean}

        def load_state_dict(self, state):
            self.mean = state["mean"]

    inner, outer = Mean(), Mean()
    a = leaf(1, 3, name="a")
    chain = a >> inner
    reward = (chain >> outer) + chain  # `chain` is written twice
    batch = Rollouts(["?"] * 2, ["0", "1"])
    context = Context(batch)
    measured = engine.measure(reward.demand(batch), batch, context)
    reward.observe(measured, context)
    assert inner.seen == [[1.0, 3.0]]
    assert outer.seen == [[1.0, 3.0]], "as they reached it: before the inner shaper changed"
    reward.observe(measured, context)
    assert inner.seen[1:] == [[1.0, 3.0]]
    assert outer.seen[1:] == [[-1.0, 1.0]]
    state = reward.state_dict()
    assert sorted(s["mean"] for s in state.values()) == [0.0, 2.0]
    inner.mean = outer.mean = -9.0
    reward.load_state_dict(state)
    assert (inner.mean, outer.mean) == (2.0, 0.0)
    with pytest.raises(ValueError, match="saved from another expression"):
        (a + 1).load_state_dict(state)
    # Purity: scoring neither observes nor depends on how often it is done.
    assert engine.score(reward, batch).read(0.0).tolist() == engine.score(reward, batch).read(0.0).tolist()
    assert len(inner.seen) == 2
