"""One step of a denoising chain: against its equation, against the sampler it is part of, and where it has none."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives.denoising import Step, action_logp, estimates, gaussian_kl, step

FLOW = ["flow_sde", "dance", "cps", "ode"]


def oracle(x, v, s, to, kind, a):
    """Mean and standard deviation of a flow's step as the sheets of the systems give them, number by number."""
    d = to - s
    if kind == "cps":
        std = to * math.sin(a * math.pi / 2)
        return (1 - to) * (x - s * v) + math.sqrt(to**2 - std**2) * (x + (1 - s) * v), std
    sd = {"flow_sde": a * math.sqrt(s / (1 - (to if s == 1 else s))), "dance": a, "ode": 0.0}[kind]
    mean = x * (1 + sd**2 * d / (2 * s)) + v * (1 + sd**2 * (1 - s) / (2 * s)) * d
    return mean, sd * math.sqrt(-d)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.floats(0.05, 1),
    st.floats(0, 0.95),
    st.sampled_from(FLOW),
    st.floats(0, 1),
)
def test_flow_steps_are_their_equations(x, v, s, share, kind, a):
    to = share * s
    found = step(*(torch.tensor([[y]], dtype=torch.float64) for y in (x, v)), s, to, kind=kind, a=a)
    mean, std = oracle(x, v, s, to, kind, a)
    assert float(found.mean) == pytest.approx(mean, abs=1e-9)
    assert float(found.std) == pytest.approx(std, abs=1e-9)


@pytest.mark.parametrize("kind", FLOW)
def test_without_noise_every_flow_step_is_the_ode(kind):
    x, v = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
    found = step(x, v, 0.8, 0.6, kind=kind, a=0.0)
    torch.testing.assert_close(found.mean, x - 0.2 * v)
    assert found.std.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["flow_sde", "dance"])
def test_drift_and_noise_of_an_sde_step_cancel_in_the_fokker_planck_equation(kind):
    """Where x_s ~ N(0, V), the ODE moves V by V' d; the SDE must do the same up to d², whatever its noise."""
    variance, s, d = 0.3, 0.6, -1e-5
    total = (1 - s) ** 2 * variance + s**2
    rate = -2 * (1 - s) * variance + 2 * s
    x = torch.ones(1, 1, dtype=torch.float64)
    v = (s - (1 - s) * variance) / total * x
    found = step(x, v, s, s + d, kind=kind, a=0.9)
    after = float(found.mean) ** 2 * total + float(found.std) ** 2
    assert (after - total) / d == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_steps_keep_the_marginals_of_a_diffusion_whose_noise_is_known(eta):
    """With e the noise that is in x, DDIM's next sample has signal √ᾱ' and variance 1 − ᾱ' (DDIM, lemma 1)."""
    clean, noise, here, there = 1.7, 0.6, 0.2, 0.5
    x = math.sqrt(here) * clean + math.sqrt(1 - here) * noise
    found = step(*(torch.tensor([[y]], dtype=torch.float64) for y in (x, noise)), here, there, kind="ddim", a=eta)
    std = float(found.std)
    carried = (float(found.mean) - math.sqrt(there) * clean) / noise
    assert carried**2 + std**2 == pytest.approx(1 - there)
    assert std == pytest.approx(eta * math.sqrt((1 - there) / (1 - here) * (1 - here / there)))


def test_ddim_with_eta_one_is_the_posterior_of_ddpm():
    """q(x_{t−1} | x_t, x₀) with β = 1 − ᾱ/ᾱ' (DDPM, eq. 7)."""
    clean, noise, here, there = -0.4, 1.1, 0.3, 0.36
    x = math.sqrt(here) * clean + math.sqrt(1 - here) * noise
    beta = 1 - here / there
    mean = math.sqrt(there) * beta / (1 - here) * clean + math.sqrt(here / there) * (1 - there) / (1 - here) * x
    found = step(*(torch.tensor([[y]], dtype=torch.float64) for y in (x, noise)), here, there, kind="ddim", a=1.0)
    assert float(found.mean) == pytest.approx(mean)
    assert float(found.std) ** 2 == pytest.approx((1 - there) / (1 - here) * beta)


def test_consistency_step_puts_the_clean_sample_at_the_next_level():
    found = step(torch.zeros(1, 2), torch.tensor([[1.0, -2.0]]), 0.1, 0.64, kind="consistency")
    torch.testing.assert_close(found.mean, torch.tensor([[0.8, -1.6]]))
    torch.testing.assert_close(found.std, torch.tensor([0.6]))


def test_estimates_are_the_parts_of_the_sample():
    clean, noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).unbind()
    for kind, x, output, level in (
        ("flow_sde", 0.7 * clean + 0.3 * noise, noise - clean, 0.3),
        ("ddim", 0.6 * clean + 0.8 * noise, noise, 0.36),
        ("consistency", 0.6 * clean + 0.8 * noise, clean, 0.36),
    ):
        found = estimates(x, output, level, kind)
        torch.testing.assert_close(found[0], clean)
        torch.testing.assert_close(found[1], noise)


def test_log_probability_is_that_of_a_normal_distribution():
    generator = torch.Generator().manual_seed(0)
    mean, action = torch.randn(2, 5, 2, 3, generator=generator, dtype=torch.float64).unbind()
    std = torch.rand(5, generator=generator, dtype=torch.float64) + 0.1
    each = torch.distributions.Normal(mean, std[:, None, None]).log_prob(action).flatten(1)
    torch.testing.assert_close(action_logp(action, Step(mean, std)), each.mean(1))
    torch.testing.assert_close(action_logp(action, Step(mean, std), reduce="sum"), each.sum(1))
    square = -((action - mean) ** 2).flatten(1)
    torch.testing.assert_close(action_logp(action, Step(mean, std), density="square"), square.mean(1))


def test_kl_is_that_of_two_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64).unbind()
    std = torch.rand(4, generator=generator, dtype=torch.float64) + 0.1
    normal = (torch.distributions.Normal(m, std[:, None]) for m in (mean, other))
    each = torch.distributions.kl_divergence(*normal)
    torch.testing.assert_close(gaussian_kl(mean, other, std), each.mean(1))
    torch.testing.assert_close(gaussian_kl(mean, other, std, reduce="sum"), each.sum(1))
    assert gaussian_kl(mean, mean, std).tolist() == [0] * 4


def test_a_deterministic_step_has_no_density_and_no_gradient():
    mean = torch.zeros(2, 3, requires_grad=True)
    taken = Step(mean, torch.tensor([0.0, 1.0]))
    found = action_logp(torch.ones(2, 3), taken) - gaussian_kl(mean, torch.ones(2, 3), taken.std)
    (gradient,) = torch.autograd.grad(found.sum(), mean)
    assert float(found[0].detach()) == 0
    assert gradient[0].tolist() == [0, 0, 0]
    assert (gradient[1] != 0).all()


def test_half_precision_is_computed_in_float32():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = step(x, x, 0.5, 0.4)
    assert found.mean.dtype == found.std.dtype == torch.float32
    torch.testing.assert_close(found.mean, step(x.float(), x.float(), 0.5, 0.4).mean)


@pytest.mark.parametrize(
    ("kind", "level", "following"),
    [
        ("flow_sde", 0.0, 0.0),
        ("ode", 0.5, 0.5),
        ("cps", 0.5, 0.6),
        ("dance", 1.1, 0.5),
        ("flow_sde", math.nan, 0.5),
        ("ddim", 0.0, 0.5),
        ("ddim", 1.0, 1.0),
        ("ddim", 0.5, 0.4),
        ("consistency", 1.0, 1.0),
        ("consistency", 0.2, 1.2),
    ],
)
def test_levels_that_are_not_there_are_named(kind, level, following):
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"step 0 goes from|not a finite number"):
        step(x, x, level, following, kind=kind, a=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "euler"}, "kind is one of flow_sde"),
        ({"a": -0.1}, "a of flow_sde must lie between 0 and inf"),
        ({"a": math.nan}, "a of flow_sde"),
        ({"a": 1.5, "kind": "cps"}, "a of cps must lie between 0 and 1"),
        ({"a": 1.5, "kind": "ddim"}, "a of ddim must lie between 0 and 1"),
        ({"a": torch.ones(3)}, "one number or one per row"),
    ],
)
def test_options_that_are_not_there_are_named(options, message):
    kind = options.get("kind", "flow_sde")
    ends = (0.4, 0.5) if kind == "ddim" else (0.5, 0.4)
    with pytest.raises(ValueError, match=message):
        step(torch.zeros(1, 2), torch.zeros(1, 2), *ends, **options)


def test_shapes_that_do_not_fit_are_named():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="output"):
        step(x, torch.zeros(1, 3), 0.5, 0.4)
    with pytest.raises(ValueError, match="action"):
        action_logp(torch.zeros(1, 3), Step(x, torch.ones(1)))
    with pytest.raises(ValueError, match="density"):
        action_logp(x, Step(x, torch.ones(1)), density="laplace")
    with pytest.raises(ValueError, match="ref_mean"):
        gaussian_kl(x, torch.zeros(1, 3), torch.ones(1))


def test_no_sample_at_all_keeps_the_graph_and_the_shape():
    mean = torch.zeros(0, 2, 3, requires_grad=True)
    for reduce in ("mean", "sum"):
        found = action_logp(mean.detach(), Step(mean, torch.zeros(0)), reduce=reduce)
        assert found.shape == gaussian_kl(mean, mean, torch.zeros(0), reduce=reduce).shape == (0,)
        found.sum().backward()
