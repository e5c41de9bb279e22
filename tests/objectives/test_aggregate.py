import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import denominator, importance_ratio

LENGTHS = torch.tensor([2, 8])
MASK = torch.arange(10) < LENGTHS[:, None]


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("token-mean", 10.0), ("sequence-mean", [4.0, 16.0]), ("constant", 40.0), ("length-weighted", 2.0)],
)
def test_two_rows_of_two_and_eight_tokens(aggregate, expected):
    assert denominator(MASK, aggregate, length=20).tolist() == expected


@pytest.mark.parametrize("aggregate", ["token-mean", "sequence-mean", "constant", "length-weighted"])
def test_rows_without_tokens_and_padding_change_nothing(aggregate):
    wider = torch.zeros(5, 17, dtype=torch.bool)
    wider[[1, 4], :10] = MASK
    found = denominator(wider, aggregate, length=20)
    expected = denominator(MASK, aggregate, length=20)
    assert torch.equal(found[[1, 4]] if found.ndim else found, expected)


@pytest.mark.parametrize("aggregate", ["token-mean", "sequence-mean", "constant", "length-weighted"])
def test_no_tokens_at_all_do_not_divide_by_zero(aggregate):
    assert (denominator(torch.zeros(2, 3, dtype=torch.bool), aggregate, length=1) == 1).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=8), st.data())
def test_parts_with_the_counts_of_the_whole_have_its_denominator(lengths, data):
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    cut = data.draw(st.integers(1, len(lengths) - 1))
    first, second = mask[:cut], mask[cut:]
    counts = {
        "rows": first.any(1).sum() + second.any(1).sum(),
        "tokens": int(first.sum()) + int(second.sum()),
        "length": 6,
    }
    for aggregate in ("token-mean", "constant", "length-weighted"):
        assert denominator(second, aggregate, **counts) == denominator(mask, aggregate, length=6)
    parts = torch.cat([denominator(part, "sequence-mean", **counts) for part in (first, second)])
    assert torch.equal(parts, denominator(mask, "sequence-mean"))


def test_constant_needs_its_length():
    with pytest.raises(ValueError, match="pass length"):
        denominator(MASK, "constant")


def test_ratios_of_a_sequence():
    # token ratios 2, ½, 4: geometric mean ∛4, product 4; the last token is not the policy's
    ratios = torch.tensor([[2.0, 0.5, 4.0, torch.nan]])
    old_logp = torch.tensor([[-3.0, -2.0, -5.0, -1.0]])
    mask = torch.tensor([[True, True, True, False]])
    logp = ratios.log() + old_logp
    torch.testing.assert_close(importance_ratio(logp, old_logp, mask), torch.tensor([[2.0, 0.5, 4.0, 1.0]]))
    torch.testing.assert_close(importance_ratio(logp, old_logp, mask, ratio="sequence"), torch.tensor([[4 ** (1 / 3)]]))
    torch.testing.assert_close(importance_ratio(logp, old_logp, mask, ratio="product"), torch.tensor([[4.0]]))


def test_the_old_policy_is_a_constant_even_when_it_is_the_policy_itself():
    logp = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    for ratio, slope in (("token", 1.0), ("sequence", 0.5), ("product", 1.0)):
        mask = torch.ones(1, 2, dtype=torch.bool)
        (found,) = torch.autograd.grad(importance_ratio(logp, logp, mask, ratio=ratio).sum(), logp)
        assert found.tolist() == [[slope, slope]]
