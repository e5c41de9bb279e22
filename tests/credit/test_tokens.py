import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core.spans import Spans
from guerdon.credit import spread

PLACES = st.sampled_from(["last", "all", "share"])


@st.composite
def steps_on_tokens(draw):
    """Rows of consecutive steps (some empty, some missing), and tokens the policy did not write."""
    t, n = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    rows = []
    for _ in range(n):
        cuts = sorted(draw(st.lists(st.integers(0, t), min_size=1, max_size=4)))
        rows.append(list(itertools.pairwise(cuts)))
    written = torch.tensor(draw(st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=n, max_size=n)))
    spans = Spans.of(rows)
    values = torch.tensor(draw(st.lists(st.integers(-9, 9), min_size=spans.mask.size, max_size=spans.mask.size)))
    return values.double().reshape(spans.mask.shape), written, spans, rows


@settings(max_examples=100, deadline=None)
@given(steps_on_tokens(), PLACES)
def test_each_place_is_its_definition(data, place):
    values, written, spans, rows = data
    expected = torch.zeros(written.shape, dtype=torch.float64)
    for i, steps in enumerate(rows):
        for k, (begin, end) in enumerate(steps):
            own = [t for t in range(begin, end) if written[i, t]]
            for t in own[-1:] if place == "last" else own:
                expected[i, t] += float(values[i, k]) / (len(own) if place == "share" else 1)
    missing = torch.where(torch.as_tensor(spans.mask), values, torch.nan)
    torch.testing.assert_close(spread(missing, written, spans, place=place), expected)


@settings(max_examples=50, deadline=None)
@given(steps_on_tokens())
def test_last_and_share_keep_the_sum_of_steps_with_a_token(data):
    values, written, spans, rows = data
    kept = [
        sum(float(values[i, k]) for k, (b, e) in enumerate(steps) if written[i, b:e].any())
        for i, steps in enumerate(rows)
    ]
    for place in ("last", "share"):
        found = spread(values, written, spans, place=place).sum(1)
        torch.testing.assert_close(found, torch.tensor(kept, dtype=torch.float64))


def test_one_value_per_rollout():
    written = torch.tensor([[True, False, True, False], [False, False, False, False]])
    values = torch.tensor([4.0, torch.nan])
    assert spread(values, written, place="last")[0].tolist() == [0.0, 0.0, 4.0, 0.0]
    assert spread(values, written, place="all")[0].tolist() == [4.0, 0.0, 4.0, 0.0]
    assert spread(values, written, place="share")[0].tolist() == [2.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize("place", ["last", "all", "share"])
def test_a_rollout_without_written_tokens_gets_nothing(place):
    assert spread(torch.tensor([3.0]), torch.zeros(1, 4, dtype=torch.bool), place=place).tolist() == [[0.0] * 4]


def test_gradients_pass_to_the_values():
    values = torch.tensor([[1.0, 2.0]], requires_grad=True)
    spread(values, torch.ones(1, 5, dtype=torch.bool), Spans.of([[(0, 2), (2, 5)]]), place="all").sum().backward()
    assert values.grad.tolist() == [[2.0, 3.0]]


def test_bfloat16_values_stay_bfloat16():
    assert spread(torch.ones(1).bfloat16(), torch.ones(1, 3, dtype=torch.bool)).dtype == torch.bfloat16


def test_spans_that_do_not_fit_are_named():
    written = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="row 1: a step ends at token 4, but there are only 3"):
        spread(torch.ones(2, 1), written, Spans.of([[(0, 3)], [(0, 4)]]))
    with pytest.raises(ValueError, match="spans count characters"):
        spread(torch.ones(2, 1), written, Spans.of([[(0, 3)], [(0, 3)]], unit="character"))
    with pytest.raises(ValueError, match="do not fit"):
        spread(torch.ones(2, 2), written, Spans.of([[(0, 3)], [(0, 3)]]))
    with pytest.raises(ValueError, match="without spans"):
        spread(torch.ones(2, 2), written)
