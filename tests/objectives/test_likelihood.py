import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import answer_bound_policy_gradient, answer_weights, clip, perplexity, policy_gradient

KINDS = ["logprob", "mean-logprob", "prob", "mean-prob", "group-bound"]


def reward(logp, mask, kind, groups):
    """R of each row, written out; the bound is that of the row's group."""
    totals = [sum(logp[i, t] for t in range(logp.shape[1]) if mask[i, t]) for i in range(len(logp))]
    if kind == "group-bound":
        found = []
        for g in groups.tolist():
            own = [totals[i] for i in range(len(logp)) if groups[i] == g]
            found.append((sum(x.exp() for x in own) / len(own)).log())
        return torch.stack(found)
    rows = []
    for i, total in enumerate(totals):
        own = [logp[i, t] for t in range(logp.shape[1]) if mask[i, t]]
        rows.append(
            {
                "logprob": lambda total=total: total,
                "mean-logprob": lambda total=total, own=own: total / len(own),
                "prob": lambda total=total: total.exp(),
                "mean-prob": lambda own=own: sum(x.exp() for x in own) / len(own),
            }[kind]()
        )
    return torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 100))
def test_logprob_reward_weights_are_the_gradient_of_the_reward(kind, lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    logp = -torch.rand(len(lengths), 4, generator=generator, dtype=torch.float64).requires_grad_()
    groups = torch.randint(2, (len(lengths),), generator=generator)
    logp = logp.detach().requires_grad_()
    (expected,) = torch.autograd.grad(reward(logp, mask, kind, groups).sum(), logp)
    torch.testing.assert_close(answer_weights(logp, mask, kind=kind, groups=groups), expected)


@pytest.mark.parametrize("kind", ["logprob", "mean-logprob", "prob", "mean-prob"])
def test_logprob_reward_two_terms_are_the_gradient_of_the_expected_reward(kind):
    """A bandit over four thoughts, and an answer of two tokens after each: both places where θ enters E[R]."""
    generator = torch.Generator().manual_seed(0)
    thoughts = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    answers = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    here = torch.ones(4, 2, dtype=torch.bool)
    logp_z, logp_a = thoughts.log_softmax(0), answers.log_softmax(-1)[..., 1]
    chances, rewards = logp_z.exp(), reward(logp_a, here, kind, torch.zeros(4))
    expected = torch.autograd.grad((chances * rewards).sum(), (thoughts, answers), retain_graph=True)

    # each thought once, weighed by its probability, and any baseline
    weight, baseline = chances.detach(), 0.7
    first, _ = policy_gradient(
        logp_z[:, None], logp_z[:, None], rewards - baseline, here[:, :1], weight=weight, denominator=1.0
    )
    second, _ = policy_gradient(
        logp_a,
        logp_a,
        answer_weights(logp_a, here, kind=kind),
        here,
        clip=clip.reinforce,
        weight=weight,
        denominator=1.0,
    )
    found = torch.autograd.grad(first + second, (thoughts, answers))
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(-ours, truth)


def test_logprob_reward_stays_alive_where_the_probability_vanishes():
    logp, mask = torch.full((1, 200), 0.9).log(), torch.ones(1, 200, dtype=torch.bool)
    assert answer_weights(logp, mask, kind="prob")[0, 0].item() == pytest.approx(7e-10, rel=0.02)
    assert answer_weights(logp, mask).tolist() == [[1.0] * 200]
    assert float(logp.sum()) == pytest.approx(-21.1, abs=0.05)


def test_logprob_reward_prob_and_mean_prob_agree_on_one_token():
    logp, mask = torch.tensor([[-0.3], [-2.0]]), torch.ones(2, 1, dtype=torch.bool)
    torch.testing.assert_close(answer_weights(logp, mask, kind="prob"), answer_weights(logp, mask, kind="mean-prob"))


def test_logprob_reward_bound_shares_a_groups_weight_by_likelihood():
    logp, mask = torch.tensor([[0.2], [0.6], [0.5]]).log(), torch.ones(3, 1, dtype=torch.bool)
    groups = torch.tensor([5, 5, 1])
    found = answer_weights(logp, mask, kind="group-bound", groups=groups)
    assert found[:, 0].tolist() == pytest.approx([0.5, 1.5, 1.0])
    counted = answer_weights(logp, mask & (logp != logp[0]), kind="group-bound", groups=groups, rows=mask[:, 0])
    assert counted[:, 0].tolist() == pytest.approx([0.0, 2.0, 1.0]), "the mean is over both rows of the group"
    with pytest.raises(ValueError, match="pass groups"):
        answer_weights(logp, mask, kind="group-bound")
    with pytest.raises(ValueError, match="do not fit"):
        answer_weights(logp, mask, kind="group-bound", groups=groups, rows=mask[:2, 0])
    with pytest.raises(ValueError, match="do not fit"):
        answer_weights(logp, mask[:2])


def test_logprob_reward_bound_is_over_all_rows_of_a_group_that_have_a_score():
    """−∇ = ∂ log ⅓ (p₀ + p₁ + 0), the mean over three rows being that over one group; the fourth has no score."""
    written, answer = torch.zeros(4, 1), torch.tensor([[0.2], [0.6], [0.5], [0.9]]).log().requires_grad_()
    there, rows = torch.tensor([[True], [True], [False], [True]]), torch.tensor([True, True, True, False])
    loss, sums = answer_bound_policy_gradient(
        written, written, torch.zeros(4), rows[:, None], answer, there, rows=rows, groups=torch.tensor([3, 3, 3, 3])
    )
    (found,) = torch.autograd.grad(loss, answer)
    assert (-found[:, 0]).tolist() == pytest.approx([0.25, 0.75, 0.0, 0.0])
    assert sums["answers"] == 2


def test_perplexity_is_e_to_the_mean_surprise():
    logp = torch.tensor([[0.5, 0.125, 0.9], [0.2, 0.9, 0.9]]).log()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert perplexity(logp, mask).tolist() == pytest.approx([4.0, 5.0])
