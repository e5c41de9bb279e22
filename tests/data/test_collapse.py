"""Length collapse and training collapse, on runs whose course is known."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon.data import collapses

STEPS = 60


def run(length_end, reward_end):
    """Steady for half of the run, then straight to an end."""
    lengths, rewards = np.full(STEPS, 1000.0), np.full(STEPS, 0.5)
    lengths[30:45], lengths[45:] = np.linspace(1000, length_end, 15), length_end
    rewards[30:45], rewards[45:] = np.linspace(0.5, reward_end, 15), reward_end
    return lengths, rewards


@pytest.mark.parametrize(
    ("length", "reward", "which"),
    [
        (100, 0.9, "length"),
        (100, 0.1, "training"),
        (900, 0.9, None),  # brevity that is learned slowly
        (900, 0.1, None),
        (2000, 0.9, None),
        (100, 0.5, None),
    ],
)
def test_crm_collapses_are_told_apart(length, reward, which):
    found = collapses(*run(length, reward))
    assert {name for name in ("length", "training") if getattr(found, name).any()} == ({which} if which else set())
    if which:
        at = np.flatnonzero(getattr(found, which))
        assert 31 <= at[0] < 45
        assert at[-1] < 45 + 20
        assert not getattr(found, which)[:19].any()


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(-2, 2)), max_size=12), st.integers(1, 4), st.floats(0, 0.9))
def test_collapses_are_their_definition(history, window, fall):
    lengths, rewards = (np.array([step[i] for step in history]) for i in range(2))
    found = collapses(lengths, rewards, window=window, fall=fall)
    for e in range(len(history)):
        if e + 1 < 2 * window:
            assert not found.length[e]
            assert not found.training[e]
            continue
        now, before = slice(e + 1 - window, e + 1), slice(e + 1 - 2 * window, e + 1 - window)
        drop = lengths[before].mean() - lengths[now].mean() - fall * lengths[before].mean()
        rise = rewards[now].mean() - rewards[before].mean()
        if abs(drop) > 1e-6 and abs(rise) > 1e-9:
            assert found.length[e] == (drop > 0 < rise)
            assert found.training[e] == (drop > 0 > rise)


@pytest.mark.parametrize(
    ("lengths", "rewards", "options", "message"),
    [
        ([1.0], [1.0, 2.0], {}, "need one shape"),
        ([np.nan], [1.0], {}, "must be finite"),
        ([-1.0], [1.0], {}, "lengths not negative"),
        ([1.0], [1.0], {"window": 0}, "window is at least 1"),
        ([1.0], [1.0], {"fall": 1.0}, "fall a share"),
    ],
)
def test_bad_input_is_named(lengths, rewards, options, message):
    with pytest.raises(ValueError, match=message):
        collapses(np.array(lengths), np.array(rewards), **options)
