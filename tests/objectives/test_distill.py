import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import (
    adaptive_strength,
    clip,
    distillation,
    expected_log_ratio,
    extrapolated_advantages,
    policy_gradient,
    tilted,
    truncated_importance,
)

seeds = st.integers(0, 1000)


def logits(seed, *shape):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kl(p, q):
    return (p.exp() * (p - q)).sum(-1)


def exact(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.0, 0.5, 1.0, 1.25, 2.0]))
def test_g_opd_expected_advantage_is_minus_the_kl_to_the_tilted_policy(seed, strength):
    policy, teacher, ref = logits(seed, 3, 1, 6).log_softmax(-1)
    here = torch.ones(1, 6, dtype=torch.bool)
    advantages = extrapolated_advantages(policy, teacher, here, ref_logp=ref, strength=strength)
    mixture = (1 - strength) * ref + strength * teacher
    log_z = mixture.exp().sum(-1).log()
    best = mixture - log_z[:, None]
    exact((policy.exp() * advantages).sum(-1), -kl(policy, best) + log_z)
    # at the optimum the advantage is the same for every token: log Z
    flat = extrapolated_advantages(best, teacher, here, ref_logp=ref, strength=strength)
    exact(flat, log_z[:, None].expand(1, 6))
    exact(tilted(teacher, ref, strength=strength), best)


def test_g_opd_at_strength_one_is_the_distance_to_the_teacher_whatever_the_reference():
    old, teacher, ref = logits(0, 3, 2, 4)
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    found = extrapolated_advantages(old, teacher, mask, ref_logp=ref)
    exact(found, torch.where(mask, teacher - old, 0.0))
    exact(extrapolated_advantages(old, teacher, mask), found)
    assert not extrapolated_advantages(teacher, teacher, mask).any()
    with pytest.raises(ValueError, match="pass ref_logp, or strength 1"):
        extrapolated_advantages(old, teacher, mask, strength=1.25)


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.25])
def test_g_opd_policy_gradient_ends_at_the_tilted_policy(strength):
    teacher, ref = logits(7, 2, 5).log_softmax(-1)
    z = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser, one = torch.optim.Adam([z], lr=0.05), torch.ones(5, 1, dtype=torch.bool)
    for _ in range(800):
        logp = z.log_softmax(-1)[:, None]
        advantages = extrapolated_advantages(logp, teacher[:, None], one, ref_logp=ref[:, None], strength=strength)
        weight = logp.detach().exp()
        loss, _ = policy_gradient(logp, logp, advantages, one, clip=clip.ppo, weight=weight, denominator=1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    mixture = ((1 - strength) * ref + strength * teacher).softmax(-1)
    exact(z.detach().softmax(-1), mixture, 1e-3)
    if strength > 1:  # beyond the teacher, away from the reference
        v = int((teacher - ref).argmax())
        assert z.softmax(-1)[v] > teacher.exp()[v]


def test_g_opd_takes_each_rows_own_teacher_and_a_capped_weight_for_the_sampler():
    teachers, old = logits(1, 2, 3, 4), logits(2, 3, 4)
    domain, mask = torch.tensor([1, 0, 1]), torch.ones(3, 4, dtype=torch.bool)
    advantages = extrapolated_advantages(old, teachers[domain, torch.arange(3)], mask)
    exact(advantages[1], teachers[0, 1] - old[1])
    weight = truncated_importance(old, old - 3.0, mask, cap=5.0)
    loss, _ = policy_gradient(old, old, advantages, mask, off_policy=weight)
    assert float(loss) == pytest.approx(-5.0 * float(advantages.mean()))


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.05, 3.0), st.floats(0.05, 3.0))
def test_aligndistil_theorem_one(seed, beta, beta_rl):
    """RLHF with the DPO model's reward is distillation towards a mixture of the DPO model and the reference."""
    policy, dpo, ref = logits(seed, 3, 6).log_softmax(-1)
    w = beta / beta_rl
    reward = beta * (dpo - ref)
    lhs = (policy.exp() * reward).sum() - beta_rl * kl(policy, ref)
    rhs = -beta_rl * kl(policy, tilted(dpo, ref, strength=w))
    constant = beta_rl * (w * dpo + (1 - w) * ref).exp().sum().log()
    exact(lhs, rhs + constant, 1e-11)
    exact(expected_log_ratio(policy, dpo, ref, beta=beta), (policy.exp() * reward).sum(), 1e-12)


def test_aligndistil_contrast_is_the_mixture_with_the_reverse_model():
    dpo, reverse = logits(3, 2, 2, 5, 6)
    w = adaptive_strength(dpo, reverse)
    expected = (dpo + w[..., None] * (dpo - reverse)).log_softmax(-1)
    exact(tilted(dpo, reverse, strength=1 + w), expected, 1e-10)


def test_aligndistil_adaptive_strength_is_k_times_the_variation_plus_a_thousandth():
    first, second = logits(5, 2, 3, 4)
    p, q = first.softmax(-1), second.softmax(-1)
    expected = [
        15 * sum(abs(float(a - b)) for a, b in zip(x, y, strict=True)) + 1e-3 for x, y in zip(p, q, strict=True)
    ]
    assert adaptive_strength(first, second).tolist() == pytest.approx(expected)
    far = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    assert float(adaptive_strength(far[0], far[1])) == pytest.approx(30.001)
    # models that agree: w = 1e-3, and the teacher is the DPO model
    alike = adaptive_strength(first, first)
    assert alike.tolist() == pytest.approx([1e-3] * 3)
    exact(tilted(first, first, strength=1 + alike), first.log_softmax(-1))


def aligndistil(student, dpo, reverse, mask, *, beta=0.1, temperature=1.0):
    """The method as a combination: contrast, adaptive strength, β/w per token, mean over tokens, then rows."""
    w = adaptive_strength(dpo, reverse)
    return distillation(student, tilted(dpo, reverse, strength=1 + w), mask, weight=beta / w, temperature=temperature)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_aligndistil_loss_is_its_definition(temperature):
    student, dpo, reverse = logits(8, 3, 2, 3, 6)
    student.requires_grad_()
    mask = torch.tensor([[True, True, True], [True, False, False]])
    expected = torch.zeros((), dtype=torch.float64)
    for i, steps in enumerate(([0, 1, 2], [0])):
        for t in steps:
            p = student[i, t].log_softmax(-1)
            w = 15 * (dpo[i, t].softmax(-1) - reverse[i, t].softmax(-1)).abs().sum() + 1e-3
            star = dpo[i, t] + w * (dpo[i, t] - reverse[i, t])
            expected = expected + 0.1 / w * kl(p, (star / temperature).log_softmax(-1)) / len(steps) / 2
    found, sums = aligndistil(student, dpo, reverse, mask, temperature=temperature)
    exact(found, expected, 1e-10)
    exact(torch.autograd.grad(found, student)[0], torch.autograd.grad(expected, student)[0], 1e-10)
    assert float(sums["tokens"]) == 4


def test_aligndistil_is_zero_at_the_teacher_and_blind_to_constants():
    dpo, reverse = logits(9, 2, 1, 2, 5)
    here = torch.ones(1, 2, dtype=torch.bool)
    star = tilted(dpo, reverse, strength=1 + adaptive_strength(dpo, reverse))
    assert float(aligndistil(star, dpo, reverse, here)[0]) == pytest.approx(0.0, abs=1e-10)
    student = logits(10, 1, 2, 5)
    moved = aligndistil(student + 3, dpo - 7, reverse + 11, here)[0]
    exact(moved, aligndistil(student, dpo, reverse, here)[0], 1e-9)


def test_aligndistil_modes_are_combinations():
    student, dpo, ref = logits(11, 3, 1, 2, 5)
    here = torch.ones(1, 2, dtype=torch.bool)

    def mean_kl(teacher):
        return kl(student.log_softmax(-1), teacher.log_softmax(-1)).mean()

    exact(distillation(student, tilted(dpo, ref, strength=4.0), here)[0], mean_kl(4 * dpo - 3 * ref), 1e-10)
    exact(distillation(student, dpo, here)[0], mean_kl(dpo))  # gkd: to the DPO model only


def test_forward_and_reverse_are_the_two_directions():
    student, teacher = logits(12, 2, 1, 3, 4)
    here = torch.ones(1, 3, dtype=torch.bool)
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    exact(distillation(student, teacher, here, direction="reverse")[0], kl(p, q).mean())
    exact(distillation(student, teacher, here, direction="forward")[0], kl(q, p).mean())
    z = student.clone().requires_grad_()
    distillation(z, teacher, here, direction="forward", aggregate="length-weighted")[0].backward()
    exact(z.grad, p.exp() - q.exp())  # cross-entropy's


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.floats(-3, 30))
def test_tilts_of_finite_logits_are_finite(seed, dtype, strength):
    student, target, anchor = (300 * logits(seed, 3, 2, 4)).to(dtype)
    for found in (
        tilted(target, anchor, strength=strength),
        adaptive_strength(target, anchor),
        expected_log_ratio(student, target, anchor),
    ):
        assert found.isfinite().all()
        assert found.dtype == torch.promote_types(dtype, torch.float32)


def test_what_does_not_fit_is_named():
    x, mask = torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"target and anchor must have one shape, got \(1, 2, 3\) and \(2, 3\)"):
        tilted(x, x[0])
    with pytest.raises(ValueError, match=r"strength must be a number or \(1, 2\)"):
        tilted(x, x, strength=torch.zeros(2))
    with pytest.raises(ValueError, match="floor must be above 0"):
        adaptive_strength(x, x, floor=0.0)
    with pytest.raises(ValueError, match=r"weight must be \(1, 2\)"):
        distillation(x, x, mask, weight=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        distillation(x, x, mask, temperature=0.0)
    with pytest.raises(ValueError, match="one shape"):
        extrapolated_advantages(x[0], x[0], mask)
