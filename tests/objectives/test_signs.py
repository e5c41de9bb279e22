"""Weights by the sign of the advantage: PSR, NSR, W-REINFORCE, relative negatives, weighted outcomes."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Scores
from guerdon.credit import group_relative
from guerdon.objectives import clip, kl_penalty, policy_gradient
from guerdon.shaping import center
from guerdon.train import presets


def pull(advantages, **chosen):
    """What the loss pulls each row's only token with, at π = π_old: −∂loss/∂logp times the number of rows."""
    logp = torch.full((len(advantages), 1), -1.0, dtype=torch.float64, requires_grad=True)
    here = torch.ones_like(logp, dtype=torch.bool)
    loss, _ = policy_gradient(logp, logp, torch.as_tensor(advantages, dtype=torch.float64), here, **chosen)
    (gradient,) = torch.autograd.grad(loss, logp)
    return (-len(advantages) * gradient[:, 0]).tolist()


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [("psr", 1.0, 0.0), ("nsr", 0.0, -1.0), ("w_reinforce", 0.1, -1.0)]
)
def test_nsr_psr_and_w_reinforce_weigh_right_and_wrong_samples(name, right, wrong):
    method = presets.load(name)
    assert [spec["part"] for spec in method.shaping] == ["shaping.center"]
    shaped = center(method.shaping[0]["at"])(Scores.of([1.0, 0.0, 1.0]), Context()).read(0.0)
    advantages = method.credit(torch.as_tensor(shaped), torch.zeros(3, dtype=torch.long))
    found = pull(advantages, **method.objective.keywords)
    assert found == pytest.approx([right, wrong, right])


@pytest.mark.parametrize(("reward", "sign"), [(1.0, 1.0), (-1.0, -1.0)], ids=["PSR", "NSR"])
def test_nsr_moves_mass_to_others_in_proportion_to_their_chance(reward, sign):
    """dzᵥ = ±πᵥ(1 − πᵥ), dzᵤ = ∓πᵥπᵤ at a sampled token v, of the objective weighed by its probability."""
    logits = torch.tensor([0.5, -1.0, 0.2, 1.1], dtype=torch.float64, requires_grad=True)
    chances, v = logits.detach().softmax(0), 2
    chosen = {"positive": 1.0, "negative": 0.0} if reward > 0 else {"positive": 0.0, "negative": 1.0}
    logp = logits.log_softmax(0)[v].reshape(1, 1)
    loss, _ = policy_gradient(
        logp, logp, torch.tensor([reward]), logp < 0, weight=chances[[v]], denominator=1.0, **chosen
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = -sign * chances[v] * chances
    expected[v] = sign * chances[v] * (1 - chances[v])
    torch.testing.assert_close(-gradient, expected)
    assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-15)


def test_nsr_stops_when_no_wrong_sample_remains():
    assert pull([1.0, 1.0], positive=0.0) == [0.0, 0.0]


def test_w_reinforce_is_lambda_psr_plus_nsr():
    advantages, weighted = [1.0, -1.0, 1.0, -1.0], partial(pull, positive=0.1)
    psr, nsr = pull(advantages, negative=0.0), pull(advantages, positive=0.0)
    assert weighted(advantages) == pytest.approx([0.1 * a + b for a, b in zip(psr, nsr, strict=True)])
    assert pull(advantages) == pytest.approx([a + b for a, b in zip(psr, nsr, strict=True)])


@pytest.mark.parametrize("name", ["grpo_n", "gspo_n"])
def test_two_stage_keeps_relative_negatives_and_the_statistics_of_all(name):
    method = presets.load(name)
    rewards = torch.tensor([1.0, 0.5, 0.0, 0.0])
    advantages = method.credit(rewards, torch.zeros(4, dtype=torch.long))
    sigma = rewards.std()
    expected = [0.0, 0.0, *[float(-0.375 / (sigma + 1e-4))] * 2]
    assert float(advantages[1]) > 0
    assert pull(advantages, **method.objective.keywords) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [1.0, 2.0])
@pytest.mark.parametrize("when", ["before", "after", "mean_only"])
def test_wgrpo_worked_example(when, weight):
    """One success of eight, and seven of eight; 'before' the normalisation λ cancels, whatever it is."""
    objective = {"negative": weight} if when == "after" else {}
    for successes in (1, 7):
        outcomes = torch.tensor([1.0] * successes + [0.0] * (8 - successes), dtype=torch.float64)
        if when != "after":
            outcomes = (1 + weight) * outcomes - weight  # +1 and −λ
        credit = partial(group_relative, scale="none" if when == "mean_only" else "std", ddof=0, eps=0.0)
        found = pull(credit(outcomes, torch.zeros(8, dtype=torch.long)), **objective)
        p = successes / 8
        right, wrong = ((1 - p) / p) ** 0.5, -((p / (1 - p)) ** 0.5)
        if when == "after":
            wrong *= weight
        elif when == "mean_only":
            right, wrong = (1 + weight) * (1 - p), -(1 + weight) * p
        assert found == pytest.approx([right] * successes + [wrong] * (8 - successes))
    if when == "before":
        assert found[0] == pytest.approx(0.3780, abs=1e-4)
        assert found[-1] == pytest.approx(-2.6458, abs=1e-4)


def test_wgrpo_preset_weighs_failures_after_normalisation():
    method = presets.load("wgrpo")
    advantages = method.credit(torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long))
    assert pull(advantages, **method.objective.keywords) == pytest.approx([1.0, -2.0], rel=1e-3)
    # λ = 1 is GRPO: the advantages of a group then sum to 0
    assert sum(pull(advantages)) == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0, 3), st.floats(0, 3))
def test_signs_are_weighed_one_by_one(advantages, positive, negative):
    expected = [a * (positive if a > 0 else negative) for a in advantages]
    for rule in (clip.ppo, clip.none, clip.reinforce, clip.cispo, clip.guarded):
        assert pull(advantages, positive=positive, negative=negative, clip=rule) == pytest.approx(expected, abs=1e-9)


def test_openthinkimg_loss_and_advantages():
    """exp(lp − sg lp)·A − β(e^d − d − 1), a mean over tokens, then over rows; tool outputs masked."""
    totals = torch.tensor([2.0, 1.0, 1.0, 0.0])
    advantages = group_relative(totals, torch.zeros(4, dtype=torch.long))
    assert advantages.tolist() == pytest.approx([1.2246, 0.0, 0.0, -1.2246], abs=1e-4)

    generator = torch.Generator().manual_seed(0)
    logp, ref_logp = -torch.rand(2, 4, 3, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, False, True], [True, False, False], [True, True, False]])
    logp.requires_grad_()
    kl = 0.04 * kl_penalty(logp, ref_logp, mask=mask)
    loss, _ = policy_gradient(logp, logp, advantages, mask, kl=kl, clip=clip.none, aggregate="sequence-mean")
    (gradient,) = torch.autograd.grad(loss, logp)

    terms = []
    for i in range(4):
        own = [t for t in range(3) if mask[i, t]]
        d = [ref_logp[i, t] - logp[i, t] for t in own]
        per_token = [
            (logp[i, t] - logp[i, t].detach()).exp() * advantages[i] - 0.04 * (x.exp() - x - 1)
            for t, x in zip(own, d, strict=True)
        ]
        terms.append(-sum(per_token) / len(own))
    expected = sum(terms) / 4
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logp)[0])


def test_openthinkimg_gradient_at_the_reference_is_the_advantage_times_that_of_logp():
    logp = torch.full((1, 2), -1.0, requires_grad=True)
    here = torch.ones(1, 2, dtype=torch.bool)
    kl = 0.04 * kl_penalty(logp, logp.detach(), mask=here)
    loss, _ = policy_gradient(logp, logp, torch.tensor([1.5]), here, kl=kl, clip=clip.none, aggregate="sequence-mean")
    loss.backward()
    torch.testing.assert_close(logp.grad, torch.full((1, 2), -1.5 / 2))
