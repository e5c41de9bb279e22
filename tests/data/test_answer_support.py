"""Votes over final answers, and which rollout they choose."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon.data import answer_support, top_of_group

rows = st.lists(
    st.tuples(st.sampled_from(["4", "5", None]), st.integers(0, 1), st.floats(-9, 9), st.booleans()), max_size=7
)


@given(rows)
def test_support_is_the_sum_over_equal_answers_of_the_group(table):
    answers, groups, weights, mask = ([row[i] for row in table] for i in range(4))
    hidden = [weight if there else math.nan for weight, there in zip(weights, mask, strict=True)]
    found = answer_support(answers, np.array(groups, int), weights=np.array(hidden), mask=np.array(mask, bool))
    for i, (answer, group, _, there) in enumerate(table):
        voters = [w for a, g, w, m in table if m and a == answer is not None and g == group]
        assert found[i] == pytest.approx(sum(voters) if there and answer is not None else 0.0)


def test_implicit_prm_weighted_vote_is_neither_the_majority_nor_the_best():
    """Of five: 'a' thrice at .1, 'b' once at .4, 'c' twice at .35: majority a, best b, weighted c."""
    answers, groups = ["a", "a", "a", "b", "c", "c"], np.zeros(6, int)
    scores = np.array([0.1, 0.1, 0.1, 0.4, 0.35, 0.35])

    def chosen(values):
        return answers[int(np.flatnonzero(top_of_group(values, groups))[0])]

    assert chosen(answer_support(answers, groups)) == "a"
    assert chosen(scores) == "b"
    assert chosen(answer_support(answers, groups, weights=scores)) == "c"


def test_implicit_prm_negative_scores_need_the_sigmoid():
    """β log-ratios of −.2 and −.2 for the answer two agree on: added, they lose to a single −.3."""
    answers, groups, scores = ["a", "a", "b"], np.zeros(3, int), np.array([-0.2, -0.2, -0.3])
    assert answer_support(answers, groups, weights=scores) == pytest.approx([-0.4, -0.4, -0.3])
    voted = answer_support(answers, groups, weights=1 / (1 + np.exp(-scores)))
    assert top_of_group(voted, groups)[0]


def test_numbers_of_rows_must_agree():
    with pytest.raises(ValueError, match="answers has 1 entries for 2 rows"):
        answer_support(["a"], np.zeros(2, int))
    with pytest.raises(ValueError, match=r"weights\[0\] is nan"):
        answer_support(["a"], np.zeros(1, int), weights=np.array([math.nan]))
    assert answer_support([], np.zeros(0, int)).shape == (0,)
