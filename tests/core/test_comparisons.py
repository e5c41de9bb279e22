from __future__ import annotations

import numpy as np
import pytest
import torch

from guerdon.core import Comparisons


def test_a_valid_margin_is_finite_and_an_abstention_has_a_reason():
    with pytest.raises(ValueError, match="pair 1: margin is nan"):
        Comparisons(np.array([1.0, np.nan]), np.array([True, True]))
    with pytest.raises(ValueError, match="pair 0 abstains without a reason"):
        Comparisons(np.array([0.0, 1.0]), np.array([False, True]), {1: "other pair"})
    with pytest.raises(ValueError, match="without a reason"):
        Comparisons(np.array([0.0]), np.array([False]), {0: ""})
    with pytest.raises(ValueError, match="one shape"):
        Comparisons(np.zeros(2), np.ones(3, bool))


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_read_fills_and_swapped_exchanges_the_sides(kind):
    outcome = Comparisons(
        kind([2.0, np.nan, 0.0]), kind([True, False, True]), {1: "judge HTTP 503"}, {"why": [1, 2, 3]}
    )
    assert len(outcome) == 3
    assert outcome.read(9.0).tolist() == [2.0, 9.0, 0.0]
    swapped = outcome.swapped()
    assert swapped.read(9.0).tolist() == [-2.0, 9.0, 0.0]
    assert swapped.reasons == {1: "judge HTTP 503"}
    assert swapped.details["why"] == [1, 2, 3]


def test_margins_of_a_model_keep_their_gradients():
    margin = torch.tensor([1.0, 2.0], requires_grad=True)
    outcome = Comparisons(margin, torch.tensor([True, False]), {1: "tie broken by neither"})
    outcome.swapped().read(0.0).sum().backward()
    assert margin.grad.tolist() == [-1.0, 0.0]
