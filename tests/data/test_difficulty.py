"""Prompts by the rank of what their groups earn."""

import numpy as np
import pytest

from guerdon import Context, Rollouts, Scores
from guerdon.data import dump_filter, load_filter, ranked


def groups(values, size=2):
    n = len(values)
    batch = Context(Rollouts([f"q{i}" for i in range(n) for _ in range(size)], [""] * (n * size)))
    return Scores.of([v for v in values for _ in range(size)]), batch


def kept(values, **options):
    return np.flatnonzero(ranked(**options).keep(*groups(values))).tolist()


def test_ranked_places():
    values = [0.5, 0.1, 0.9, 0.3, 0.7]
    assert kept(values, count=2) == [1, 3]
    assert kept(values, count=2, place="highest") == [2, 4]
    assert kept(values, count=1, place="middle") == [0]
    assert kept(values, count=3, place="middle") == [0, 3, 4]
    assert kept(values, count=9) == [0, 1, 2, 3, 4]
    assert kept(values, count=0) == []
    assert len(kept(values, count=3, place="random")) == 3
    assert kept(values, count=3, place="random") == kept([-v for v in values], count=3, place="random")


def test_ranked_ties_go_to_the_lower_numbers_and_abstentions_never_stay():
    assert kept([0.5, 0.5, 0.5], count=2) == kept([0.5, 0.5, 0.5], count=2, place="highest") == [0, 1]
    assert kept([None, 0.9, 0.2], count=2) == [1, 2]
    assert kept([None, None], count=2, place="random") == []


def test_ranked_by_another_statistic_is_data():
    scores, batch = Scores.of([0.0, 1.0, 0.4, 0.5]), Context(Rollouts(["p", "p", "q", "q"], [""] * 4))
    assert ranked(count=1, statistic="min").keep(scores, batch).tolist() == [True, False]
    assert ranked(count=1, statistic="max").keep(scores, batch).tolist() == [False, True]
    assert load_filter(dump_filter(ranked(count=5, place="middle"))) == ranked(count=5, place="middle")


@pytest.mark.parametrize("options", [{"count": -1}, {"count": 1, "place": "top"}, {"count": 1, "statistic": "median"}])
def test_ranked_refuses(options):
    with pytest.raises(ValueError, match=r"count|place|statistic"):
        ranked(**options)
