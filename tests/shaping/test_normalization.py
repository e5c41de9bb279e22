from __future__ import annotations

import json
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts, Scores
from guerdon.core import Spans
from guerdon.shaping import normalize, tilt


def batch(n, groups=None):
    return Context(Rollouts(["?"] * n, [""] * n, groups=groups))


def slow(kind, values, groups, ddof=0):
    """Group by group, from the definitions; None is an abstention."""
    rows = defaultdict(list)
    for row, (value, group) in enumerate(zip(values, groups, strict=True)):
        if value is not None:
            rows[group].append(row)
    result = [None] * len(values)
    for members in rows.values():
        sample = [values[row] for row in members]
        mean = sum(sample) / len(sample)
        std = math.sqrt(sum((x - mean) ** 2 for x in sample) / max(len(sample) - ddof, 1))
        for row in members:
            if kind == "band":
                result[row] = min(max(values[row], mean - std), mean + std)
            elif std <= 1e-6 * max(map(abs, sample)):
                result[row] = 0.0 if kind == "z-score" else 0.5
            elif kind == "z-score":
                result[row] = (values[row] - mean) / std
            else:
                result[row] = (values[row] - min(sample)) / (max(sample) - min(sample))
    return result


@given(
    st.sampled_from(["z-score", "range", "band"]),
    st.lists(
        st.tuples(st.none() | st.integers(-20, 20).map(lambda i: i / 4), st.integers(0, 2)), min_size=1, max_size=9
    ),
    st.integers(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_normalize_is_its_definition(kind, rows, ddof):
    values, groups = [v for v, _ in rows], [g for _, g in rows]
    scores = Scores.of(values, reasons={i: "no" for i, v in enumerate(values) if v is None})
    got = normalize(kind, over="group", ddof=ddof)(scores, batch(len(rows), groups)).to_columns()["score"]
    for have, want in zip(got, slow(kind, values, groups, ddof), strict=True):
        assert have == want if want is None else have == pytest.approx(want, abs=1e-9)


def test_gdpo_decoupled_normalisation_then_the_batch(recorded, scored):
    """A scale of 0.1 on one of two rewards changes nothing, where plain GRPO on the sum is decided by the other."""
    columns = {"a": [1.0, 0.0, 1.0, 0.0], "b": [0.0, 0.1, 0.1, 0.0]}
    each = [recorded(name) >> normalize(over="group", ddof=1) for name in columns]
    assert scored(each[0] + each[1], **columns) == pytest.approx([0, 0, 1.732, -1.732], abs=1e-3)
    plain = recorded("a") + recorded("b") >> normalize(over="group", ddof=1)
    assert scored(plain, **columns) == pytest.approx([0.775, -0.775, 0.948, -0.948], abs=1e-3)
    columns = {"a": [1.0, 0.0, 3.0, 7.0], "b": [0.0, 0.2, 0.1, 0.4]}
    got = scored(each[0] + each[1] >> normalize(over="batch"), **columns, groups=[0, 0, 1, 1])
    sums = [sum(slow("z-score", columns[name], [0, 0, 1, 1], 1)[row] for name in columns) for row in range(4)]
    assert got == pytest.approx(slow("z-score", sums, [0] * 4))


def test_gdpo_a_constant_reward_does_not_dilute_the_others(recorded, scored):
    a, constant = (recorded(name) >> normalize(over="group", ddof=1) for name in ("a", "c"))
    columns = {"a": [1.0, 0.0, 0.5], "c": [0.3, 0.3, 0.3]}
    assert scored(a + constant, **columns) == scored(a, a=columns["a"])


@pytest.mark.parametrize(("kind", "neutral"), [("z-score", 0.0), ("range", 0.5)])
def test_scores_that_do_not_differ_hold_no_signal(kind, neutral):
    for values in ([0.1 + 0.2, 0.3, 0.3], [7.0], [1e9, 1e9 + 1e-3]):
        got = normalize(kind)(Scores.of(values), batch(len(values))).read(9.0)
        assert got.tolist() == [neutral] * len(values)


def test_steps_are_samples_of_their_own():
    steps = Scores(np.array([[1.0, 3.0], [5.0, 99.0]]), spans=Spans.of([[(0, 1), (1, 2)], [(0, 1)]]))
    got = normalize()(steps, batch(2, [0, 1])).to_columns()["score"]
    std = math.sqrt(((1 - 3) ** 2 + 0 + (5 - 3) ** 2) / 3)
    assert got[0] == pytest.approx([-2 / std, 0.0])
    assert got[1] == pytest.approx([2 / std])


def test_statistics_are_constants():
    x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64, requires_grad=True)
    normalize()(Scores(x), batch(3)).read(0.0).sum().backward()
    assert x.grad.tolist() == pytest.approx([1 / np.std([1, 2, 6])] * 3)


def test_running_statistics_survive_a_checkpoint_bit_for_bit():
    rng = np.random.default_rng(0)
    one, other = normalize(over="running"), normalize(over="running")
    for _ in range(5):
        one.observe(Scores.of(rng.normal(3, 2, 7).tolist()), batch(7))
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    values = Scores.of(rng.normal(3, 2, 4).tolist())
    for shaper in (one, other):
        shaper.observe(values, batch(4))
    assert one.state_dict() == other.state_dict()
    assert (one(values, batch(4)).read(0.0) == other(values, batch(4)).read(0.0)).all()
    one.load_state_dict({})
    assert one.state_dict() == {}
    with pytest.raises(ValueError, match=r"keeps size, mean, squares, low, high, got \['mean'\]"):
        one.load_state_dict({"mean": 1.0})


def test_running_statistics_leave_abstentions_out_and_calling_is_pure():
    shaper = normalize(over="running")
    scores = Scores.of([1.0, None, 3.0], reasons={1: "no"})
    shaper(scores, batch(3))
    assert shaper.state_dict() == {}
    shaper.observe(scores, batch(3))
    assert shaper.state_dict() == {"size": 2.0, "mean": 2.0, "squares": 2.0, "low": 1.0, "high": 3.0}
    shaper.observe(Scores.abstain(2, "no"), batch(2))
    assert shaper.state_dict()["size"] == 2.0
    normalize(over="batch").observe(scores, batch(3))
    assert normalize(over="batch").state_dict() == {}


# R³'s mixture


def trigrams(text):
    """The share of a text's word trigrams that are unique; 1 for fewer than three words."""
    words = text.split()
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def r3(recorded, low=0.0, high=1.5):
    """Open-ended: r_x · words/100 · RP; closed: F(r_y) · RP, where F takes the running range of r_y to [low, high]."""
    from guerdon import product, route
    from guerdon.rewards import text

    unique = recorded("unique")
    to_open = low + (high - low) * (recorded("to_answer") >> normalize("range", over="running"))
    return route(
        "type",
        open=product(recorded("to_query"), 0.01 * text.length(unit="words"), unique),
        closed=product(to_open, unique),
    )


def test_r3_worked_example(recorded, scored):
    columns = {"type": ["open"], "to_query": [0.8], "unique": [0.9], "to_answer": [0.0]}
    assert scored(r3(recorded), **columns, lengths=[150]) == pytest.approx([1.08])
    assert trigrams("a a a a") == 0.5


def test_r3_neither_repeating_nor_copying_pays(recorded, scored):
    text = " ".join(f"w{i}" for i in range(50))
    once, fourfold = trigrams(text), trigrams(" ".join([text] * 4))
    columns = {
        "type": ["open"] * 3,
        "to_query": [0.8, 0.8, 1.0],
        "unique": [once, fourfold, 1.0],
        "to_answer": [0.0] * 3,
    }
    plain, repeated, copied = scored(r3(recorded), **columns, lengths=[50, 200, 10])
    assert repeated < 1.02 * plain
    assert copied == pytest.approx(0.1)


def test_r3_closed_questions_ignore_length(recorded, scored):
    columns = {"type": ["closed"] * 3, "to_query": [0.9] * 3, "unique": [1.0, 0.5, 1.0], "to_answer": [2.0, 6.0, 4.0]}
    for lengths in ([1, 1, 1], [900, 2, 30]):
        assert scored(r3(recorded), **columns, lengths=lengths) == pytest.approx([0.0, 0.75, 0.75])


# DRPO's weights


def drpo(recorded, temperature):
    """Lengths of the positives as weights: 1 − L/L_max, tilted by λ; the negatives stand below 0 and take no part."""
    from guerdon import gate
    from guerdon.shaping import target_length

    correct = recorded("correct")
    share = correct >> target_length(curve="linear", target=1000, weight=1, apply="alone", unit="words")
    return gate(correct, then=share, otherwise=-1.0) >> tilt(temperature=temperature, above=-0.5)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(0.1, [0.952, 0.047, 0.001]), (1.0, [0.447, 0.331, 0.222]), (math.inf, [1 / 3] * 3)],
)
def test_drpo_worked_example(recorded, scored, temperature, expected):
    lengths = [200, 500, 900, 50]
    got = scored(drpo(recorded, temperature), correct=[1.0, 1.0, 1.0, 0.0], lengths=lengths)
    assert got == pytest.approx([*expected, 0.0], abs=1e-3)


def test_tilt_leaves_out_what_is_not_above_its_threshold():
    assert tilt(above=1.0)(Scores.of([1.0, 2.0]), batch(2, [0, 0])).read(0.0).tolist() == [0.0, 1.0]


def test_drpo_a_group_without_positives_has_no_weights(recorded, scored):
    assert scored(drpo(recorded, 0.1), correct=[0.0, 0.0, None, 1.0], groups=[0, 0, 0, 1]) == [0.0, 0.0, None, 1.0]


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(1e-3, 10))
@settings(max_examples=80, deadline=None)
def test_tilt_is_a_distribution_over_what_is_there(values, temperature):
    reasons = {i: "no" for i, v in enumerate(values) if v is None}
    weights = tilt(temperature)(Scores.of(values, reasons=reasons), batch(len(values), [0] * len(values)))
    there = [v for v in values if v is not None]
    top = max(there, default=0.0)
    parts = [None if v is None else math.exp(max((v - top) / temperature, -800)) for v in values]
    total = sum(p for p in parts if p is not None)
    for got, part in zip(weights.to_columns()["score"], parts, strict=True):
        assert got == part if part is None else got == pytest.approx(part / total, abs=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: normalize("mad"), "kind is 'z-score', 'range', 'band' or 'unit', got 'mad'"),
        (lambda: normalize(over="row"), "over is 'group', 'batch' or 'running', got 'row'"),
        (lambda: normalize(width=-1), "width and ddof must not be negative"),
        (lambda: normalize(ddof=-1), "width and ddof must not be negative"),
        (lambda: tilt(0), "temperature must be positive, got 0"),
        (lambda: tilt(math.nan), "temperature must be positive"),
        (lambda: tilt(over="running"), "over is 'group' or 'batch', got 'running'"),
    ],
)
def test_options_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_scopes():
    assert normalize(over="group").scope == tilt().scope == "group"
    assert normalize().scope == normalize(over="running").scope == tilt(over="batch").scope == "batch"
