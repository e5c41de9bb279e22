from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from guerdon.core import Trajectory

MASK = np.array([[True, True, False], [True, True, True]])


def test_fields_must_fit_the_mask():
    Trajectory(MASK, actions=np.zeros((2, 3, 4)), states=np.zeros((2, 4, 5)), times=np.zeros(3), noise=np.zeros((2, 3)))
    for name, shape, message in [
        ("actions", (3, 3, 4), "actions has 3 rows, mask has 2"),
        ("logp", (2, 4), "logp has shape"),
        ("states", (2, 3, 5), "expected 4 steps"),
        ("terminated", (3,), "terminated has 3 rows"),
        ("times", (2, 4), "times has shape"),
        ("times", (2,), "times has 2 steps"),
        ("rewards", (2,), "rewards has shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            Trajectory(MASK, **{name: np.zeros(shape)})


def test_a_row_is_a_trajectory_of_one():
    whole = Trajectory(MASK, logp=np.arange(6.0).reshape(2, 3), times=np.array([3.0, 2.0, 1.0]))
    assert whole[-1].logp.tolist() == [[3.0, 4.0, 5.0]]
    assert whole[-1].mask.tolist() == [[True, True, True]]
    assert whole[0].times.tolist() == [3.0, 2.0, 1.0], "a schedule shared by all rows is not cut"
    assert [len(row) for row in whole] == [1, 1]
    with pytest.raises(IndexError):
        whole[2]


@pytest.mark.parametrize("index", [[1, 0, 1], np.array([1, 0, 1])])
def test_select_repeats_and_reorders_rows(index):
    whole = Trajectory(
        torch.tensor(MASK), rewards=torch.arange(6.0).reshape(2, 3), truncated=torch.tensor([True, False])
    )
    some = whole.select(index)
    assert some.rewards[:, 0].tolist() == [3.0, 0.0, 3.0]
    assert some.truncated.tolist() == [False, True, False]


def test_it_is_immutable():
    with pytest.raises(FrozenInstanceError):
        Trajectory(MASK).mask = MASK
