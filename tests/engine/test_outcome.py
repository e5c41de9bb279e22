import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from guerdon.core import Abstain, Scores, Spans
from guerdon.engine.outcome import explain, judge, judge_group, judge_scores, limits

UNIT = limits((0, 1))


@pytest.mark.parametrize(
    ("returned", "number"),
    [
        (0.25, 0.25),
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.int8(1), 1.0),
        (np.bool_(True), 1.0),
        (np.array(0.75), 0.75),
        (torch.tensor(0.5), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        (torch.tensor(True), 1.0),
        (Fraction(1, 4), 0.25),
        ((0.5, {"extracted": "4"}), 0.5),
    ],
)
def test_what_counts_as_a_number(returned, number):
    value, reason, _ = judge(returned, UNIT)
    assert (value, reason) == (number, None)
    assert type(value) is float


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (None, "no score was returned"),
        (math.nan, "the score was nan, not a finite number"),
        (-math.inf, "the score was -inf, not a finite number"),
        (10**400, "the score was inf, not a finite number"),
        (np.float32("nan"), "the score was nan, not a finite number"),
        (1.5, "score 1.5 outside the declared range (0, 1)"),
        (-1, "score -1.0 outside the declared range (0, 1)"),
        ("1", "returned str, expected a number"),
        ([1.0], "returned list, expected a number"),
        (np.array([1.0]), "returned ndarray, expected a number"),
        (np.array("1"), "returned ndarray, expected a number"),
        (1j, "returned complex, expected a number"),
        ((1.0, 2.0), "returned tuple, expected a number"),
        (Abstain("reference not parseable: 'n/a'"), "reference not parseable: 'n/a'"),
        (object(), "returned object, expected a number"),
    ],
)
def test_what_is_an_abstention_and_why(returned, reason):
    value, why, details = judge(returned, UNIT)
    assert math.isnan(value)
    assert (why, details) == (reason, None)


def test_infinity_is_no_number_even_where_the_range_is_unbounded():
    assert judge(math.inf, limits((-math.inf, math.inf)))[1] == "the score was inf, not a finite number"
    assert judge(1e300, limits((-math.inf, math.inf))) == (1e300, None, None)


@pytest.mark.parametrize(
    ("declared", "returned", "clipped"),
    [
        ((0, 1), 1 + 1e-7, 1.0),
        ((0, 1), -1e-7, 0.0),
        ((0, 1000), 1000.0009, 1000.0),
        ((0, math.inf), -1e-7, 0.0),
        ((-math.inf, -10), -9.99999, -10.0),
    ],
)
def test_rounding_beyond_an_end_of_the_range_is_that_end(declared, returned, clipped):
    assert judge(returned, limits(declared)) == (clipped, None, None)


@pytest.mark.parametrize(
    ("declared", "returned"),
    [((0, 1), 1 + 2e-6), ((0, 1000), 1000.002), ((0, 1e9), -2), ((0, 1e-3), 1.0001e-3), ((0, 1e-3), -1e-7)],
)
def test_the_slack_is_relative_to_the_end_of_the_range(declared, returned):
    assert "outside the declared range" in judge(returned, limits(declared))[1]


def test_evidence_is_kept_where_the_score_is_not():
    assert judge((None, {"verdict": "?"}), UNIT)[1:] == ("no score was returned", {"verdict": "?"})
    assert judge((7.0, {"verdict": "!"}), UNIT)[2] == {"verdict": "!"}


def test_a_group_returns_one_outcome_per_row():
    assert judge_group([1, None, (0.5, {"rank": 2})], 3, UNIT)[2] == (0.5, None, {"rank": 2})
    assert [value for value, _, _ in judge_group(np.array([0.0, 1.0]), 2, UNIT)] == [0.0, 1.0]
    assert [value for value, _, _ in judge_group(torch.tensor([0.0, 1.0]), 2, UNIT)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ([1, 1, 1], "returned 3 scores for 4 rows"),
        (None, "no score was returned"),
        (Abstain("no reference"), "no reference"),
        (1.0, "returned float, expected a list of 4 scores"),
        ({0: 1.0}, "returned dict, expected a list of 4 scores"),
        (np.array(1.0), "returned float, expected a list of 4 scores"),
    ],
)
def test_a_group_that_returns_something_else_abstains_as_a_whole(returned, reason):
    assert [why for _, why, _ in judge_group(returned, 4, UNIT)] == [reason] * 4


def test_an_exception_is_told_with_the_line_of_the_authors_own_code():
    import json

    def parse():
        json.loads("{")

    with pytest.raises(json.JSONDecodeError) as raised:
        parse()
    line = parse.__code__.co_firstlineno + 1
    assert explain(raised.value).endswith(f"(test_outcome.py:{line})")
    assert explain(raised.value).startswith("JSONDecodeError: Expecting property name")


def test_an_exception_that_cannot_describe_itself_is_still_named():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert explain(Mute()) == "Mute: (no message)"
    assert len(explain(ValueError("x" * 10_000))) < 350
    assert explain(ValueError("two\nlines")) == "ValueError: two lines"


def test_batch_scores_out_of_range_abstain_row_by_row(leaf):
    scores = judge_scores(Scores(np.array([0.5, 1.5, 1 + 1e-9, -3.0])), leaf(None, range=(0, 1)), 4)
    np.testing.assert_array_equal(scores.read(fill=-1), [0.5, -1, 1.0, -1])
    assert scores.reasons == {
        1: "score 1.5 outside the declared range (0, 1)",
        3: "score -3.0 outside the declared range (0, 1)",
    }


def test_batch_scores_keep_gradients_reasons_and_steps(leaf):
    values = torch.tensor([[0.5, 2.0], [0.25, 0.0]], requires_grad=True)
    spans = Spans.of([[(0, 1), (1, 2)], [(0, 3)]])
    given = Scores(values, spans=spans, reasons={1: "unread"}, valid=torch.tensor([[True, True], [False, False]]))
    scores = judge_scores(given, leaf(None, range=(0, 1), level="step"), 2)
    assert scores.reasons == {0: "step 1: score 2.0 outside the declared range (0, 1)", 1: "unread"}
    scores.read(fill=0.0).sum().backward()
    assert values.grad.tolist() == [[1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("returned", "level", "reason"),
    [
        ([1.0, 1.0], "rollout", "returned list, expected Scores"),
        (Scores(np.zeros(3)), "rollout", "returned 3 scores for 2 rows"),
        (Scores(np.zeros((2, 3))), "rollout", "returned one score per step, declares one per rollout"),
        (Scores(np.zeros(2)), "step", "returned one score per rollout, declares one per step"),
    ],
)
def test_batch_results_of_the_wrong_shape_abstain_as_a_whole(returned, level, reason, leaf):
    scores = judge_scores(returned, leaf(None, level=level), 2)
    assert scores.level == level
    assert scores.reasons == {0: reason, 1: reason}
    assert not scores.usable.any()


def test_a_rollout_left_out_of_a_batch_mask_is_an_abstention(leaf):
    scores = judge_scores(Scores(np.ones(2), mask=np.array([True, False])), leaf(None), 2)
    assert scores.abstained.tolist() == [False, True]
    assert scores.reasons == {1: "no score was returned"}


def test_batch_scores_in_bfloat16_are_scores(leaf):
    scores = judge_scores(Scores(torch.tensor([0.5, 2.0], dtype=torch.bfloat16)), leaf(None, range=(0, 1)), 2)
    assert scores.reasons == {1: "score 2.0 outside the declared range (0, 1)"}
    assert scores.read(fill=0.0).tolist() == [0.5, 0.0]
