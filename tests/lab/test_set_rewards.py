"""Rewards of sets and of several metrics at the end of a denoising chain, with credit and objectives as they are."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from flows import Mixture

from guerdon import Context, Rollouts
from guerdon.credit import group_relative
from guerdon.data import contrast_sets
from guerdon.objectives import pair_loss, policy_gradient, unpaired_loss
from guerdon.objectives.denoising.steps import action_logp, gaussian_kl, step
from guerdon.objectives.denoising_errors import errors, implicit_scores
from guerdon.rewards import recorded
from guerdon.rewards.distribution import set_value
from guerdon.shaping import normalize


def flow(mean, variance=0.25):
    """The exact velocity of N(mean, variance), with the gradient to its mean."""
    spread, weight = torch.full((1,), variance, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return Mixture(mean[None], spread, weight).velocity


@pytest.mark.parametrize("paired", [True, False], ids=["dpo", "kto"])
def test_dragon_the_distance_of_the_whole_set_falls_over_five_rounds(paired):
    generator = torch.Generator().manual_seed(0)
    target = Mixture.gaussian(1.5, dimensions=2).draw(400, generator)
    value = set_value("frechet", target)
    mean = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([mean], lr=0.05)
    distances = []
    for _ in range(6):
        drawn = mean.detach() + 0.5 * torch.randn(2, 48, 2, generator=generator, dtype=torch.float64)
        distances.append(-value(drawn.flatten(0, 1)).item())
        better, worse = contrast_sets(drawn, value, generator=generator).split(drawn)
        reference = flow(mean.detach().clone())
        for _ in range(15):
            noise = torch.randn(48, 2, generator=generator, dtype=torch.float64).repeat(2, 1)
            level = (0.2 + 0.6 * torch.rand(48, generator=generator, dtype=torch.float64)).repeat(2)
            both = errors(flow(mean), reference, torch.cat([better, worse]), noise, level, reduce="sum")
            scores = implicit_scores(both, beta=2.0)
            if paired:
                loss, _ = pair_loss(scores[:48] - scores[48:])
            else:
                loss, _ = unpaired_loss(scores, torch.arange(96) < 48)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert distances[0] > distances[1] > distances[2] > distances[3]
    assert distances[-1] < 0.05 * distances[0]


def test_flowse_grpo_its_step_is_the_stochastic_flow_step():
    """t = 1 − s runs from noise to speech: x + [v + σ²/(2(1−t)) (−x + t v)] dt, σ = a √((1−t)/t)."""
    x, v = torch.randn(2, 5, 3, dtype=torch.float64)
    a, t, dt = 0.4, 0.3, 0.05
    growth = a * ((1 - t) / t) ** 0.5
    mean = x + (v + growth**2 / (2 * (1 - t)) * (-x + t * v)) * dt
    found = step(x, -v, 1 - t, 1 - t - dt, kind="flow_sde", a=a)
    assert torch.allclose(found.mean, mean)
    assert found.std.tolist() == pytest.approx([growth * dt**0.5] * 5)
    score = (t * v - x) / (1 - t)
    assert torch.allclose((mean - x) / dt - v, growth**2 / 2 * score)


def frame_logp(action, x, velocity, mask, level, following, a=0.4):
    """(n, frames): a frame is a row, so that padding is a mask like that of any token; its mean is the chain's."""
    n, frames, bins = x.shape
    taken = step(x.reshape(-1, bins), velocity.reshape(-1, bins), level, following, kind="flow_sde", a=a)
    each = action_logp(action.reshape(-1, bins), taken).reshape(n, frames)
    return torch.where(mask, each, 0).sum(1) / mask.sum(1)


def test_flowse_grpo_padding_does_not_change_the_log_probability():
    x, velocity, action = torch.randn(3, 2, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    found = frame_logp(action, x, velocity, mask, 0.6, 0.5)
    other = x.clone()
    other[0, 2:] = 100.0
    assert torch.equal(frame_logp(action, other, velocity, mask, 0.6, 0.5), found)
    alone = action_logp(
        action[:1, :2].flatten(1), step(x[:1, :2].flatten(1), velocity[:1, :2].flatten(1), 0.6, 0.5, a=0.4)
    )
    assert found[0].item() == pytest.approx(alone.item())


def metrics(x):
    """Of two directions: how clean (b), and a trade of one metric for the other (a)."""
    a, b = x[:, 0], x[:, 1]
    quality = -((b - 1) ** 2)
    return {"mos": quality + a - 0.5 * a**2, "speaker": 10 * (quality - a - 0.5 * a**2)}


def reward_of(weights):
    terms = [
        weight * (recorded.value(column=name, low=-1e6, high=1e6).named(name) >> normalize(kind="unit"))
        for name, weight in weights.items()
    ]
    return sum(terms[1:], terms[0])


def test_flowse_grpo_the_scale_of_a_metric_does_not_matter():
    rng = np.random.default_rng(0)
    columns = {"mos": rng.normal(size=8), "speaker": rng.normal(size=8)}
    scaled = {**columns, "mos": 10 * columns["mos"]}
    groups = torch.arange(8) // 4
    advantages = []
    for given in (columns, scaled):
        batch = Rollouts(["p"] * 4 + ["q"] * 4, [""] * 8, given)
        scores = reward_of({"mos": 1.0, "speaker": 1.0}).score(batch, Context(batch))
        advantages.append(group_relative(torch.as_tensor(scores.read(0.0)), groups))
    assert torch.allclose(*advantages)
    expected = columns["mos"] / columns["mos"].std() + columns["speaker"] / columns["speaker"].std()
    assert scores.read(0.0) == pytest.approx(expected)
    flat = Rollouts(["p"] * 3, [""] * 3, {"mos": [2.0] * 3, "speaker": [1.0, 2.0, 3.0]})
    sd = np.std([1.0, 2.0, 3.0])
    assert reward_of({"mos": 1.0, "speaker": 1.0})(["p"] * 3, [""] * 3, **flat.columns) == pytest.approx(
        [1 / sd, 2 / sd, 3 / sd]
    )


def enhanced(weights, rounds=60, n=64):
    """Flow-GRPO with a KL on a chain of three steps whose velocity is that of a Gaussian about a learned mean."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    base, optimizer = flow(torch.zeros(2, dtype=torch.float64), 0.04), torch.optim.Adam([mean], lr=0.1)
    times, groups = [0.9, 0.6, 0.3, 0.0], torch.arange(n) // 8
    for _ in range(rounds):
        x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        policy, logps, kls = flow(mean, 0.04), [], []
        for here, there in pairwise(times):
            taken = step(x, policy(x, here), here, there, a=0.4)
            kls.append(gaussian_kl(taken.mean, step(x, base(x, here), here, there, a=0.4).mean, taken.std))
            x = taken.draw(torch.randn(n, 2, generator=generator, dtype=torch.float64)).detach()
            logps.append(action_logp(x, taken, reduce="sum"))
        logp = torch.stack(logps, 1)
        columns = {name: value.tolist() for name, value in metrics(x).items()}
        batch = Rollouts([str(g) for g in groups.tolist()], [""] * n, columns)
        scores = reward_of(weights).score(batch, Context(batch))
        advantages = group_relative(torch.as_tensor(scores.read(0.0)), groups)
        loss, _ = policy_gradient(
            logp, logp.detach(), advantages, torch.ones(n, 3, dtype=torch.bool), kl=0.001 * torch.stack(kls, 1)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.item() for name, value in metrics(mean.detach()[None]).items()}


def test_flowse_grpo_several_metrics_hold_what_one_gives_away():
    start = {"mos": -1.0, "speaker": -10.0}
    both, one = enhanced({"mos": 1.0, "speaker": 1.0}), enhanced({"mos": 1.0})
    assert all(both[name] > start[name] + 0.3 for name in start)
    assert one["mos"] > start["mos"]
    assert one["speaker"] < start["speaker"]
