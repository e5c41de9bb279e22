import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives.pathwise import masked_chain, rate_kl, soft_step, straight_through


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_drakes_a_cold_step_draws_from_its_distribution():
    p, n = torch.tensor([0.5, 0.3, 0.2]), 20_000
    x = torch.zeros(n, 2, 4)
    x[:, 0, 3] = x[:, 1, 1] = 1.0  # one masked site, one that shows token 1
    logp = p.log().expand(n, 2, 3)
    for temperature in (0.0, 1e-6):
        found = soft_step(x, logp, 0.8, 0.2, temperature=temperature, generator=generator())
        assert torch.equal(found[:, 1], x[:, 1])
        torch.testing.assert_close(found[:, 0].max(1).values, torch.ones(n))
        expected = n * torch.cat([p * (0.8 - 0.2), torch.tensor([0.2])]) / 0.8
        chi = ((found[:, 0].sum(0) - expected) ** 2 / expected).sum()
        assert chi < 16.3  # 99.9 % at three degrees of freedom


def test_drakes_a_soft_step_by_its_equation():
    x = torch.tensor([[[0.1, 0.3, 0.6]]])
    logp = torch.tensor([[[0.25, 0.75]]]).log()
    uniform = torch.rand(1, 1, 3, generator=generator(4))
    q = torch.tensor([0.25 * 0.5, 0.75 * 0.5, 0.3])
    y = ((q.log() - (-uniform.log()).log()) / 0.5).exp()
    y = y / y.sum()
    found = soft_step(x, logp, 0.8, 0.3, temperature=0.5, generator=generator(4))
    torch.testing.assert_close(found, 0.4 * x + 0.6 * y)


def test_drakes_straight_through_is_one_hot_with_the_soft_gradient():
    x = torch.tensor([[[0.2, 0.5, 0.3], [0.05, 0.04, 0.91]]], requires_grad=True)
    hard = straight_through(x)
    assert hard.tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
    (hard * torch.tensor([[2.0, 3.0]])).sum().backward()
    assert x.grad.tolist() == [[[2.0, 3.0, 0.0], [2.0, 3.0, 0.0]]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.01, 1.0))
def test_drakes_kl_is_never_negative_and_nothing_between_equals(seed, level):
    p, q = torch.randn(2, 3, 4, 5, generator=generator(seed), dtype=torch.float64).log_softmax(-1)
    masked = torch.rand(3, 4, generator=generator(seed + 1), dtype=torch.float64)
    assert (rate_kl(p, q, masked, level) >= 0).all()
    assert rate_kl(p, p, masked, level).tolist() == [0.0, 0.0, 0.0]


def test_drakes_kl_by_its_equation_and_its_gradient():
    logits = torch.tensor([[[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([[[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]]], dtype=torch.float64)
    found = rate_kl(logits.log_softmax(-1), q.log(), torch.tensor([[1.0, 0.0]], dtype=torch.float64), 0.25)
    p = [math.exp(v) / sum(math.exp(u) for u in (1.0, 0.0, -1.0)) for v in (1.0, 0.0, -1.0)]
    kl = sum(a * math.log(a / b) for a, b in zip(p, (0.2, 0.3, 0.5), strict=True))
    assert found.item() == pytest.approx(kl / 0.25)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient[0, 0].tolist() == pytest.approx(
        [a * (math.log(a / b) - kl) / 0.25 for a, b in zip(p, (0.2, 0.3, 0.5), strict=True)]
    )
    assert gradient[0, 1].tolist() == [0.0, 0.0, 0.0]


def test_drakes_path_kl_of_a_chain_is_that_of_what_it_draws():
    """One token each, revealed once, with a constant predictor: the KL of the paths is that of the tokens."""
    theta = torch.tensor([1.0, 0.0, -0.5], requires_grad=True)
    base = torch.zeros(3)
    _, kl = masked_chain(
        lambda tokens, level: theta.expand(*tokens.shape, 3),
        4000,
        1,
        3,
        steps=16,
        soft=16,
        temperature=1e-3,
        last=0.0,
        reference=lambda tokens, level: base.expand(*tokens.shape, 3),
        generator=generator(),
    )
    p = theta.detach().softmax(0)
    assert kl.mean().item() == pytest.approx((p * (p * 3).log()).sum().item(), rel=0.05)


def test_drakes_the_first_steps_have_no_gradient():
    asked = []

    def policy(tokens, level):
        asked.append((round(float(level[0]), 2), torch.is_grad_enabled(), int(tokens.max())))
        return theta.expand(*tokens.shape, 3)

    theta = torch.zeros(3, requires_grad=True)
    sequences, kl = masked_chain(policy, 8, 4, 3, steps=4, soft=1, last=0.0, generator=generator())
    assert [(level, graph) for level, graph, _ in asked] == [(1.0, False), (0.75, False), (0.5, False), (0.25, True)]
    assert asked[0][2] == 3  # all sites are masked
    assert set(sequences.detach().flatten().tolist()) == {0.0, 1.0}
    assert sequences.sum(-1).eq(1).all()
    assert kl.tolist() == [0.0] * 8
    sequences[..., 0].sum().backward()
    assert theta.grad[0] > 0


def optimum(alpha, **options):
    """The policy of one small sequence, trained: r = [token 0 at site 0] + ½ [token 2 at site 1], KL weighed by α."""
    base = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.4, 0.1]]).log()
    worth = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    theta = base.clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.05)
    made = generator()
    for _ in range(150):
        x, kl = masked_chain(
            lambda tokens, level: theta.expand(*tokens.shape, 3),
            512,
            2,
            3,
            reference=lambda tokens, level: base.expand(*tokens.shape, 3),
            generator=made,
            **options,
        )
        loss = -(x * worth).sum((1, 2)).mean() + alpha * kl.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    p = base.exp() * torch.exp(worth / alpha)
    return theta.detach().softmax(-1), p / p.sum(-1, keepdim=True), base.exp()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 100.0])
def test_drakes_reaches_the_tilted_optimum_of_a_small_sequence(alpha):
    found, expected, base = optimum(alpha, steps=3, soft=3, temperature=0.1, last=0.0)
    if alpha == 100.0:
        torch.testing.assert_close(found, base, atol=0.02, rtol=0)
    else:
        assert found[0, 0] > base[0, 0] + 0.1
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"soft": 9}, "soft"),
        ({"length": 0}, "length"),
        ({"last": 1.0}, "last"),
        ({"kl": "other"}, "kl"),
        ({"vocabulary": 4}, "policy said"),
    ],
    ids=["soft", "length", "last", "kl", "vocabulary"],
)
def test_a_chain_that_cannot_be_is_refused(changes, message):
    options = {"n": 2, "length": 2, "vocabulary": 3, "steps": 4, "soft": 4} | changes
    with pytest.raises(ValueError, match=message):
        masked_chain(lambda tokens, level: torch.zeros(*tokens.shape, 3), **options)


def test_steps_that_do_not_fit_are_refused():
    x, logp = torch.zeros(1, 1, 4), torch.zeros(1, 1, 3)
    with pytest.raises(ValueError, match="do not fit"):
        soft_step(x, torch.zeros(1, 1, 4), 0.5, 0.2)
    with pytest.raises(ValueError, match="levels"):
        soft_step(x, logp, 0.2, 0.5)
    with pytest.raises(ValueError, match="do not fit"):
        rate_kl(logp, logp, torch.ones(2, 1), 0.5)
    with pytest.raises(ValueError, match="above 0"):
        rate_kl(logp, logp, torch.ones(1, 1), 0.0)
