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
