"""The ranking of ways to train a denoiser: its measures against closed forms, and a run of it."""

import json
import math
from itertools import islice

import denoising_methods
import pytest
import torch
from denoising_contenders import METHODS
from denoising_problem import BEST, DATA, LEVELS, SLOPE, TARGET, Lab, even_noise, measured
from flows import Mixture, coefficients, moments
from torch.utils.checkpoint import checkpoint

from guerdon.objectives.denoising import step


def test_the_measures_of_an_affine_flow_are_those_of_its_gaussian():
    """N(1, ¼) by the ODE in ten steps ends in a Gaussian whose moments are products of the steps'."""
    world = Mixture.gaussian(1.0, 0.25, 2)
    scalar = Mixture.gaussian(1.0, 0.25)
    ends = zip(LEVELS[:-1].tolist(), LEVELS[1:].tolist(), strict=True)
    mean, variance = moments([coefficients(step, *at, scalar.velocity, kind="ode") for at in ends])
    found = measured(world.velocity)
    assert found["reward"] == pytest.approx(2 * mean, abs=1e-3)
    assert found["entropy"] == pytest.approx(math.log(2 * math.pi * math.e * variance), abs=1e-3)
    assert found["lesser"] == pytest.approx(0.5 * math.erfc(mean / (2 * variance) ** 0.5), abs=1e-3)
    away = torch.linspace(-9, 11, 1001, dtype=torch.float64)
    x = torch.cartesian_prod(away, away)
    log_q = -((x - mean) ** 2).sum(1) / (2 * variance) - math.log(2 * math.pi * variance)
    cell = float(away[1] - away[0]) ** 2
    expected = (log_q.exp() * (log_q - DATA.log_density(x))).sum() * cell
    assert found["kl"] == pytest.approx(float(expected), abs=5e-3)


def test_the_distance_to_the_best_is_what_is_missed_of_reward_less_divergence():
    away = torch.linspace(-8, 8, 801, dtype=torch.float64)
    x = torch.cartesian_prod(away, away)
    cell = float(away[1] - away[0]) ** 2
    weights = DATA.log_density(x).exp() * (x @ SLOPE).exp()
    partition = float(weights.sum()) * cell
    assert float((weights * (x @ SLOPE)).sum() / weights.sum()) == pytest.approx(TARGET, abs=1e-4)
    found = measured(DATA.velocity)
    assert found["to_best"] == pytest.approx(math.log(partition) - found["reward"] + found["kl"], abs=1e-4)
    assert measured(BEST.velocity)["to_best"] < 0.05 < 0.6 < found["to_best"]


def test_even_noise_is_normal():
    noise = even_noise(4096)
    assert noise.mean(0).abs().max() < 1e-2
    torch.testing.assert_close(noise.T.cov(), torch.eye(2, dtype=torch.float64), atol=2e-2, rtol=0)


def test_what_a_model_computes_again_is_counted_again():
    lab = Lab(seed=0, rate=1e-3, budget=100)
    x, time = lab.noise(3), torch.full((3,), 0.5, dtype=torch.float64)
    lab.reference(x, time)
    assert (lab.spent.forwards, lab.spent.backwards) == (3, 0)
    lab.policy(x, time).sum().backward()
    assert (lab.spent.forwards, lab.spent.backwards) == (6, 3)
    checkpoint(lab.policy, x, time, use_reentrant=False).sum().backward()
    assert (lab.spent.forwards, lab.spent.backwards) == (12, 6)
    lab.reward(x)
    assert lab.spent.rewards == 3
    assert lab.progress == 0.18


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_loss_that_moves_the_policy_or_a_sampler(name):
    lab = Lab(seed=0, rate=1e-3, budget=10_000)
    before = [weight.detach().clone() for weight in lab.policy.parameters()]
    for loss in islice(METHODS[name](lab), 3):
        lab.optimizer.zero_grad()
        loss.backward()
        lab.optimizer.step()
    after = list(lab.policy.parameters())
    assert all(torch.isfinite(weight).all() for weight in after)
    moved = any((now != then).any() for now, then in zip(after, before, strict=True))
    assert moved == (lab.spent.backwards > 0) == (lab.sampler is lab.policy)


def test_a_quick_run_prints_a_line_for_each_method_and_ranks_them(capsys):
    lines = denoising_methods.main(["--quick", "--processes", "1", "--methods", "PRDP", "Flow-DPO"])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["method"] for line in printed] == ["PRDP", "Flow-DPO"]
    for line in printed:
        assert 2000 <= line["forwards"] + line["backwards"] < 3000
        assert line["per_sample"] == 10
    # PRDP's update: 64 chains of ten steps, nine of them under policy and reference, and back.
    assert (printed[0]["forwards"], printed[0]["backwards"]) == (64 * (10 + 9 + 9), 64 * 9)
    assert printed[1]["to_best"] < 0.6
    rows = denoising_methods.table(lines).splitlines()[2:]
    assert rows[0].startswith("| *the best* |")
    assert len(rows) == 4
