import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import prefix_error_rates, progress, smooth, window_credit


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@st.composite
def rows(draw):
    n, t = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    values = torch.tensor(
        draw(st.lists(st.lists(st.integers(-8, 8), min_size=t, max_size=t), min_size=n, max_size=n))
    ).double()
    lengths = torch.tensor(draw(st.lists(st.integers(0, t), min_size=n, max_size=n)))
    width = draw(st.integers(1, 6))
    return values, torch.arange(t) < lengths[:, None], width, draw(st.integers(1, width))


@settings(max_examples=150, deadline=None)
@given(rows())
def test_windows_are_their_definition_and_leave_no_step_out(data):
    values, mask, width, stride = data
    found, exists = window_credit(torch.where(mask, values, torch.nan), mask, width=width, stride=stride)
    for i in range(len(values)):
        steps = values[i][mask[i]].tolist()
        begins = [0] if steps else []
        while begins and begins[-1] + width < len(steps):
            begins.append(begins[-1] + stride)
        assert int(exists[i].sum()) == len(begins)
        for j, begin in enumerate(begins):
            inside = steps[begin : begin + width]
            assert exists[i, j]
            assert float(found[i, j]) == pytest.approx(sum(inside) / len(inside))
    assert (found[~exists] == 0).all()


def pcpg(rewards, losses, mask, baseline=0.0, **sizes):
    smooth, exists = window_credit(rewards, mask, **sizes)
    return ((smooth - baseline) * window_credit(losses, mask, **sizes)[0])[exists].sum()


@settings(max_examples=100, deadline=None)
@given(rows())
def test_pcpg_smooth_credit_is_the_share_of_each_step_in_its_windows(data):
    values, mask, width, stride = data
    found = smooth(torch.where(mask, values, torch.nan), mask, width=width, stride=stride)
    for i in range(len(values)):
        steps = values[i][mask[i]].tolist()
        expected = [0.0] * values.shape[1]
        for begin in range(0, len(steps), stride):
            inside = steps[begin : begin + width]
            for t in range(begin, begin + len(inside)):
                expected[t] += sum(inside) / len(inside) / len(inside)
            if begin + width >= len(steps):
                break
        assert found[i].tolist() == pytest.approx(expected)


def test_pcpg_smooth_credit_of_single_losses_is_the_loss_of_windows():
    generator = torch.Generator().manual_seed(1)
    rewards, losses = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    windows = pcpg(rewards - 0.3, losses, mask, width=3, stride=2)
    tokens = (smooth(rewards - 0.3, mask, width=3, stride=2) * losses).sum()
    torch.testing.assert_close(tokens, windows)


def test_pcpg_narrow_windows_are_reinforce_per_token_and_wide_ones_per_sequence():
    rewards, logp = torch.tensor([[1.0, 0.0, -1.0, 3.0]]), torch.tensor([[-0.5, -1.0, -0.2, -0.3]])
    narrow = pcpg(rewards, -logp, everywhere(1, 4), width=1, stride=1)
    assert float(narrow) == pytest.approx(1.0 * 0.5 + 0.0 - 0.2 + 3 * 0.3)
    wide = pcpg(rewards, -logp, everywhere(1, 4), width=7, stride=2)
    assert float(wide) == pytest.approx((3 / 4) * (2.0 / 4))


def test_pcpg_a_reward_that_is_its_baseline_has_no_gradient():
    logp = torch.tensor([[-0.5, -1.0, -0.2]], requires_grad=True)
    pcpg(torch.full((1, 3), 0.4), -logp, everywhere(1, 3), baseline=0.4, width=2, stride=1).backward()
    assert logp.grad.tolist() == [[0.0, 0.0, 0.0]]
    pcpg(torch.tensor([[1.0, 0.0, 0.0]]), -logp, everywhere(1, 3), width=2, stride=1).backward()
    # Windows (0, 1) and (1, 2) have mean rewards ½ and 0; each loss is half of two.
    assert logp.grad.tolist() == [[-0.25, -0.25, 0.0]]


def test_pcpg_a_window_of_five_cuts_the_variance_of_noise_five_fold():
    noise = torch.randn(2000, 41, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smooth, exists = window_credit(noise, everywhere(2000, 41), width=5, stride=2)
    assert exists.all()
    assert float(smooth.var()) == pytest.approx(1 / 5, rel=0.02)


def test_pcpg_loss_is_cross_entropy_and_smoothed_reinforce_with_a_greedy_baseline():
    here, sampled, reference = everywhere(1, 3), codes("abd"), codes("abc")
    logp = torch.tensor([[-0.1, -0.2, -0.6]])
    rewards = progress(-prefix_error_rates(*sampled, *reference), here)  # 0, 0, −1/3
    greedy = progress(-prefix_error_rates(*codes("aba"), *reference), here).mean()  # self-critical: −1/9
    teacher = torch.tensor([[-0.3, -0.3, -0.9]])
    policy = pcpg(rewards, -logp, here, baseline=float(greedy), width=2, stride=1)
    found = 0.5 * -teacher.mean() + 0.5 * policy
    expected = (0 + 1 / 9) * 0.15 + (-1 / 6 + 1 / 9) * 0.4
    assert float(found) == pytest.approx(0.5 * 0.5 + 0.5 * expected)


def levenshtein(a, b):
    table = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, table[0] = table[0], i
        for j, y in enumerate(b, 1):
            diagonal, table[j] = table[j], min(diagonal + (x != y), table[j] + 1, table[j - 1] + 1)
    return table[-1]


def codes(*texts):
    width = max(map(len, texts))
    ids = torch.tensor([[ord(c) for c in text] + [0] * (width - len(text)) for text in texts])
    return ids, torch.arange(width) < torch.tensor([[len(text)] for text in texts])


def test_pcpg_worked_example():
    rates = prefix_error_rates(*codes("kitten"), *codes("sitting"))
    assert float(rates[0, -1]) == pytest.approx(3 / 7)
    drops = progress(-rates, everywhere(1, 6))
    assert float(drops.sum()) == pytest.approx(-3 / 7)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text("ab", max_size=6), st.text("ab", max_size=6)), min_size=1, max_size=4))
def test_pcpg_prefix_error_rates_are_their_definition(pairs):
    said, meant = zip(*pairs, strict=True)
    found = prefix_error_rates(*codes(*said), *codes(*meant))
    for i, (y, ref) in enumerate(pairs):
        for t in range(found.shape[1]):
            k = min(t, len(y))
            against = ref if k == len(y) else ref[:k]
            rate = levenshtein(y[:k], against) / max(1, len(against)) if k else 0.0
            assert math.isclose(float(found[i, t]), rate, abs_tol=1e-6)


def test_bad_windows_are_named():
    with pytest.raises(ValueError, match="width must be at least stride"):
        window_credit(torch.zeros(1, 2), everywhere(1, 2), width=1, stride=2)
    with pytest.raises(ValueError, match="row 0 has a step behind a missing one"):
        window_credit(torch.zeros(1, 2), torch.tensor([[False, True]]))
    with pytest.raises(ValueError, match="ids have 1 rows, reference 2"):
        prefix_error_rates(*codes("a"), *codes("a", "b"))
    assert window_credit(torch.zeros(2, 0), everywhere(2, 0))[0].shape == (2, 0)
