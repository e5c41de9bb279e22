"""Numbers of a column as a reward."""

import numpy as np
import pytest

from guerdon import Rollouts
from guerdon.algebra import spec
from guerdon.rewards import recorded


def test_a_column_is_a_reward_and_what_is_missing_abstains():
    part = recorded.value(column="judge", high=10)
    batch = Rollouts(["?"] * 6, [""] * 6, {"judge": [7, np.float64(3.5), True, None, "8", float("nan")]})
    scores = part.score(batch)
    assert scores.read(-1.0).tolist() == [7.0, 3.5, 1.0, -1.0, -1.0, -1.0]
    assert scores.reasons[4] == "not a number: '8'"


def test_out_of_range_abstains_and_the_part_is_data():
    part = recorded.value(column="judge")
    assert part(["?"], [""], judge=[7]) == [None]
    assert part.requires == {"judge"}
    assert spec.load(spec.dump(part)) == part
    with pytest.raises(ValueError, match="low below high"):
        recorded.value(column="judge", low=1)


def test_a_column_of_lists_is_a_reward_of_steps_and_a_list_with_a_gap_abstains():
    part = recorded.steps(column="prm", low=-1)
    entries = [[0.5, -1, True], [0.25], np.array([1.0, 0.0]), [0.5, None], [2.0], [], None, "0.5", [float("nan")], 0.75]
    scores = part.score(Rollouts(["?"] * 10, [""] * 10, {"prm": entries}))
    assert scores.level == "step"
    read = [row[mask].tolist() for row, mask in zip(scores.read(0.0), scores.valid, strict=True)]
    assert read == [[0.5, -1.0, 1.0], [0.25], [1.0, 0.0], [], [], [], [], [], [], [0.75]]
    assert sorted(scores.reasons) == [3, 4, 5, 6, 7, 8]
    assert scores.reasons[4] == "no list of numbers in [-1, 1]: [2.0]"
    assert part.score(Rollouts([], [], {"prm": []})).read(0.0).shape == (0, 0)
    assert spec.load(spec.dump(part)) == part
    with pytest.raises(ValueError, match="low below high"):
        recorded.steps(column="prm", low=1)
