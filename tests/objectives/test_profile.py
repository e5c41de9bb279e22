from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import clip, length_profile, policy_gradient
from guerdon.train import presets


def batch(lengths, *, seed=0, spread=0.0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths, default=0)) < torch.tensor(lengths, dtype=torch.long)[:, None]
    logp = -torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    old_logp = logp + spread * torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    return logp, old_logp, torch.ones(len(lengths), dtype=torch.float64), mask


@pytest.mark.parametrize(
    ("name", "pull"), [("grpo", [0.5, 0.125]), ("gspo", [0.5, 0.125]), ("luspo", [1.0, 1.0]), ("dr_grpo", [0.1, 0.1])]
)
def test_luspo_gradient_by_length_is_the_same_for_short_and_long(name, pull):
    # Lengths 2 and 8, A = 1, π = π_old; over the G = 2 rows.
    method = presets.load(name)
    chosen = {"length": 10} if name == "dr_grpo" else {}
    found = length_profile(*batch([2, 8]), edges=[5], objective=partial(method.objective, **chosen))
    assert found["pull"].tolist() == pytest.approx([x / 2 for x in pull])
    assert found["norm"].tolist() == pytest.approx([x / 2 * n**0.5 for x, n in zip(pull, (2, 8), strict=True)])
    assert found["rows"].tolist() == [1.0, 1.0]
    assert found["length"].tolist() == [2.0, 8.0]
    assert found["clipped"].tolist() == [0.0, 0.0]


def test_luspo_clip_share_by_length_counts_tokens_held_by_a_bound():
    ratios = torch.tensor([[1.5, 1.0, 1.0], [1.5, 1.5, 1.0], [0.5, 1.0, 1.5]], dtype=torch.float64)
    mask = torch.tensor([[True, False, False], [True, True, True], [True, True, True]])
    advantages = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    found = length_profile(ratios.log(), torch.zeros(3, 3, dtype=torch.float64), advantages, mask, edges=[2, 3, 9])
    # one of one; held above: two of three, held below: one of three
    assert found["clipped"].tolist() == pytest.approx([1.0, 0.0, 3 / 6, 0.0])
    assert found["rows"].tolist() == [1.0, 0.0, 2.0, 0.0]


def test_profile_is_its_definition_and_sees_rows_with_tokens_only():
    logp, old_logp, advantages, mask = batch([3, 0, 5, 1, 5], spread=0.5)
    objective = partial(presets.gspo.objective, clip=partial(clip.ppo, low=0.1, high=0.1))
    found = length_profile(logp, old_logp, advantages, mask, edges=[2, 4], objective=objective)
    leaf = logp.clone().requires_grad_()
    loss, _ = objective(leaf, old_logp, advantages, mask)
    (gradient,) = torch.autograd.grad(loss, leaf)
    for b, rows in enumerate(([3], [0], [2, 4])):
        tokens = sum(int(mask[i].sum()) for i in rows)
        assert float(found["rows"][b]) == len(rows)
        assert float(found["length"][b]) == pytest.approx(tokens / len(rows))
        norms = [sum(x * x for x in gradient[i].tolist()) ** 0.5 for i in rows]
        assert float(found["norm"][b]) == pytest.approx(sum(norms) / len(rows))
        pulls = [abs(x) for i in rows for x in gradient[i].tolist()]
        assert float(found["pull"][b]) == pytest.approx(sum(pulls) / tokens)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 100))
def test_profile_does_not_see_what_is_masked(lengths, seed):
    logp, old_logp, advantages, mask = batch([*lengths, 5], seed=seed, spread=0.5)
    objective = partial(
        policy_gradient, ratio="sequence", clip=partial(clip.ppo, low=0.1, high=0.1), aggregate="constant", length=7
    )
    expected = length_profile(logp, old_logp, advantages, mask, edges=[1, 4], objective=objective)
    assert all(value.isfinite().all() for value in expected.values())
    logp, old_logp, mask = (
        torch.nn.functional.pad(x, (0, 2)) for x in (*torch.where(mask, torch.stack([logp, old_logp]), torch.nan), mask)
    )
    found = length_profile(logp, old_logp, advantages, mask, edges=[1, 4], objective=objective)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_an_empty_batch_has_an_empty_profile():
    logp, mask = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool)
    with torch.no_grad():
        found = length_profile(logp, logp, torch.zeros(0), mask, edges=[1])
    assert all(value.tolist() == [0.0, 0.0] for value in found.values())
    with pytest.raises(ValueError, match="edges must rise"):
        length_profile(logp, logp, torch.zeros(0), mask, edges=[2, 2])
