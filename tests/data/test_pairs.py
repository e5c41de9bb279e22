import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon.core import Rollouts, Scores
from guerdon.data import preference_pairs


def listed(pairs):
    return list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))


def test_flr_takes_the_best_and_the_worst_of_ten():
    scores = [0.3, -1.2, 0.9, 0.1, 2.5, -0.4, 0.0, 1.1, -2.0, 0.2]
    found = preference_pairs(Scores.of(scores), np.zeros(10, int))
    assert listed(found) == [(4, 8)]
    assert found.margin.tolist() == [4.5]


def test_cdr_pairs_become_what_preference_trainers_read():
    """log π_strong − log π_weak of three answers to one prompt, and of two to another that tie."""
    batch = Rollouts(["q", "q", "q", "r", "r"], ["a", "b", "c", "d", "e"])
    found = preference_pairs(Scores.of([0.5, -1.0, 2.0, 0.7, 0.7]), batch.groups)
    assert found.records(batch) == [{"prompt": "q", "chosen": "c", "rejected": "b", "margin": 3.0}]


def test_an_answer_whose_score_is_not_known_is_in_no_pair():
    scores = Scores.of([0.9, None, 0.1, None, 0.4], reasons={1: "judge HTTP 503", 3: "deadline"})
    found = preference_pairs(scores, np.array([0, 0, 0, 1, 1]))
    assert listed(found) == [(0, 2)]


def test_crm_keeps_pairs_that_are_clearly_concise_and_clearly_redundant():
    """Groups of a concise and a redundant solution: .9/.2 is clear, .6/.2 and .9/.5 are not."""
    scores, groups = Scores.of([0.9, 0.2, 0.6, 0.2, 0.9, 0.5]), np.array([0, 0, 1, 1, 2, 2])
    assert listed(preference_pairs(scores, groups, at_least=0.7, at_most=0.4)) == [(0, 1)]


def test_a_margin_must_be_passed_and_not_only_reached():
    scores, groups = Scores.of([1.0, 0.5]), np.zeros(2, int)
    assert listed(preference_pairs(scores, groups, margin=0.5)) == []
    assert listed(preference_pairs(scores, groups, margin=0.49)) == [(0, 1)]


def test_agent_rlvr_pairs_every_pass_with_every_failure_of_the_task():
    scores, groups = Scores.of([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 0, 1, 2])
    found = preference_pairs(scores, groups, which="all")
    assert listed(found) == [(0, 1), (0, 2), (3, 1), (3, 2)]
    assert listed(preference_pairs(scores, groups, which="all", most=3)) == [(0, 1), (0, 2), (3, 1)]


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(-3, 3)), st.integers(0, 3)), max_size=16),
    st.sampled_from([0.0, 1.0]),
    st.one_of(st.none(), st.integers(0, 3)),
)
def test_all_pairs_are_what_their_definition_says(rows, margin, most):
    values, groups = [v for v, _ in rows], np.array([g for _, g in rows], int)
    found = preference_pairs(Scores.of(values), groups, which="all", margin=margin, most=most)
    expected = []
    for group in sorted(set(groups.tolist())):
        there = [i for i in range(len(rows)) if groups[i] == group and values[i] is not None]
        pairs = [(i, j) for i in there for j in there if values[i] - values[j] > margin]
        expected += sorted(pairs, key=lambda p: (values[p[1]] - values[p[0]], p))[:most]
    assert listed(found) == expected
    assert np.isfinite(found.margin).all()


def test_records_refuse_a_preference_between_answers_to_two_prompts():
    batch = Rollouts(["q, with a hint", "q"], ["a", "b"], groups=np.array([0, 0]))
    found = preference_pairs(Scores.of([1.0, 0.0]), batch.groups)
    with pytest.raises(ValueError, match="rows 0 and 1 answer different prompts"):
        found.records(batch)
    assert found.records(batch, prompts=["q", "q"])[0]["prompt"] == "q"
    with pytest.raises(ValueError, match="1 prompts for 2 rollouts"):
        found.records(batch, prompts=["q"])


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (Scores(np.zeros((2, 3))), {}, "one score per rollout"),
        (Scores.of([1.0]), {}, r"groups \(1,\), got \(2,\)"),
        (Scores.of([1.0, 2.0]), {"which": "best"}, "which is 'extremes' or 'all'"),
        (Scores.of([1.0, 2.0]), {"margin": -1.0}, "must not be negative"),
        (Scores.of([1.0, 2.0]), {"most": -1}, "must not be negative"),
    ],
    ids=["steps", "groups", "which", "margin", "most"],
)
def test_bad_input_is_named(scores, options, message):
    with pytest.raises(ValueError, match=message):
        preference_pairs(scores, np.zeros(2, int), **options)
