"""Chains of denoising steps: what is sampled is what is learned from, and a step is a token."""

from functools import partial

import pytest
import torch
from torch import nn

from guerdon.credit import group_relative
from guerdon.objectives import clip, denoising, policy_gradient
from guerdon.objectives.denoising import (
    Chain,
    branch,
    calibrated,
    complete,
    interval,
    logp,
    replay,
    sample,
    singular,
    step as take,
)

FLOW = Chain(torch.linspace(1, 0, 6))
DDIM = Chain(torch.tensor([0.05, 0.2, 0.5, 0.8, 1.0]), "ddim", 1.0, times=torch.tensor([999.0, 700, 400, 100, 0]))
LCM = Chain(torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]), "consistency")
CHAINS = {
    "flow_sde": FLOW,
    "dance": Chain(torch.linspace(1, 0, 6), "dance", 0.5),
    "cps": Chain(torch.linspace(1, 0, 6), "cps", 0.8),
    "ddim": DDIM,
    "consistency": LCM,
}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


class Small(nn.Module):
    """A policy of samples (n, 2, 3) that reads the time and a prompt."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.3 * torch.randn(6, 6, generator=generator))
        self.bias = nn.Parameter(torch.randn(6, generator=generator))
        self.calls = []

    def forward(self, x, time, prompt=None):
        assert time.shape == (len(x),)
        self.calls.append(len(x))
        said = x.flatten(1) @ self.weight + self.bias * time[:, None].cos()
        return (said if prompt is None else said + prompt[:, None]).reshape(x.shape)


def noise(n, seed=0):
    return torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(seed))


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


@every_chain
def test_the_first_update_starts_where_sampling_ended(chain):
    """Ratios are 1: log-probabilities of the sampler are those of learning, to rounding."""
    policy = Small()
    trajectory = sample(policy, noise(4), chain, generator=drawn())
    assert trajectory.states.shape == (4, len(chain) + 1, 2, 3)
    assert torch.equal(trajectory.states[:, 1:], trajectory.actions)
    found = logp(policy, trajectory, chain)
    torch.testing.assert_close(found, trajectory.logp, rtol=1e-5, atol=1e-6)
    assert bool((found[~trajectory.mask] == 0).all())
    assert torch.equal(trajectory.mask, (chain.std > 0).expand(4, -1))


def test_a_trajectory_is_its_steps_one_after_another():
    policy, chain = Small(), FLOW
    draws = torch.randn(3, 5, 2, 3, generator=drawn(1))
    trajectory = sample(policy, noise(3), chain, draws=draws)
    x = noise(3)
    for k in range(5):
        s, to = chain.levels[k : k + 2].tolist()
        with torch.no_grad():
            taken = take(x, policy(x, torch.full((3,), s)), s, to, a=0.7)
        x = taken.mean + taken.std[:, None, None] * draws[:, k]
        torch.testing.assert_close(trajectory.states[:, k + 1], x, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(trajectory.noise[k], taken.std[0])
        expected = torch.distributions.Normal(taken.mean, taken.std[:, None, None]).log_prob(x).mean((1, 2))
        torch.testing.assert_close(trajectory.logp[:, k], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(trajectory.times, chain.levels[:-1])


def test_the_policy_is_told_the_times_and_its_own_prompts():
    heard = []

    def policy(x, time, prompt):
        heard.append((time.tolist(), prompt.tolist()))
        return x

    sample(policy, noise(3), DDIM, condition={"prompt": torch.tensor([1.0, 2.0, 3.0])}, chunk=2)
    assert heard[:3] == [([999.0, 999.0], [1.0, 2.0]), ([999.0], [3.0]), ([700.0, 700.0], [1.0, 2.0])]


@every_chain
def test_chunks_and_masks_change_nothing_but_memory(chain):
    policy, prompt = Small(), {"prompt": torch.randn(4, generator=drawn(2))}
    trajectory = sample(policy, noise(4), chain, condition=prompt, draws=torch.ones(4, len(chain), 2, 3))
    pieces = sample(policy, noise(4), chain, condition=prompt, draws=torch.ones(4, len(chain), 2, 3), chunk=3)
    torch.testing.assert_close(trajectory.states, pieces.states)
    whole = replay(policy, trajectory, chain, condition=prompt)
    policy.calls.clear()
    cut = replay(policy, trajectory, chain, condition=prompt, chunk=3)
    assert max(policy.calls) == 3
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other)
    part = trajectory.mask & (torch.rand(trajectory.mask.shape, generator=drawn(3)) < 0.5)
    policy.calls.clear()
    chosen = logp(policy, trajectory, chain, mask=part, condition=prompt)
    assert sum(policy.calls) == int(part.sum())
    torch.testing.assert_close(chosen, torch.where(part, whole.logp, 0.0))


def test_a_step_is_a_token_and_micro_batches_of_steps_add_up():
    """Credit and the loss of language, unchanged; the gradient of parts is that of the whole."""
    policy, other = Small(), Small(1)
    trajectory = sample(other, noise(6), FLOW, generator=drawn())
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    advantages = group_relative(trajectory.states[:, -1].sum((1, 2)), groups)
    total = int(trajectory.mask.sum())
    settings = {"denominator": float(total), "clip": partial(clip.ppo, low=1.0, high=50.0)}

    def gradient(*masks):
        policy.zero_grad()
        for mask in masks:
            now = replay(policy, trajectory, FLOW, mask=mask)
            with torch.no_grad():
                before = replay(other, trajectory, FLOW, mask=mask)
            penalty = 0.1 * denoising.gaussian_kl(now.mean, before.mean, now.std)
            loss, _ = policy_gradient(now.logp, trajectory.logp, advantages, mask, kl=penalty, **settings)
            loss.backward()
        return policy.weight.grad.clone(), policy.bias.grad.clone()

    early = torch.arange(5) < 2
    for one, parts in zip(
        gradient(trajectory.mask), gradient(trajectory.mask & early, trajectory.mask & ~early), strict=True
    ):
        assert float(one.abs().max()) > 1e-3
        torch.testing.assert_close(one, parts, rtol=1e-4, atol=1e-6)


def test_gradients_reach_the_policy_at_the_masked_steps_only():
    """d logp/d mean is (x' − mean)/std², averaged over elements; what a step does to later ones is not in it."""
    shift = torch.zeros(5, requires_grad=True)

    def policy(x, time):
        k = (5 * (1 - time)).round().long()
        return x + shift[k][:, None, None]

    trajectory = sample(policy, noise(3), FLOW, generator=drawn())
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[:, 2] = True
    (gradient,) = torch.autograd.grad(logp(policy, trajectory, FLOW, mask=mask).sum(), shift)
    s, to = 0.6, 0.4
    moved = (to - s) * (1 + (0.7**2 * s / (1 - s)) * (1 - s) / (2 * s))  # ∂mean/∂v
    now = replay(policy, trajectory, FLOW)
    away = (trajectory.actions - now.mean.detach())[:, 2] / now.std[0, 2] ** 2
    assert gradient[[0, 1, 3, 4]].tolist() == [0] * 4
    torch.testing.assert_close(gradient[2], (away * moved).mean((1, 2)).sum(), rtol=1e-4, atol=1e-4)


def test_a_table_says_which_steps_of_which_row_explore():
    policy = Small()
    chain = FLOW.exploring(singular(5, torch.tensor([0, 2, 4])))
    trajectory = sample(policy, noise(1).expand(3, 2, 3), chain, generator=drawn())
    assert trajectory.mask.tolist() == [[k == j for k in range(5)] for j in (0, 2, 4)]
    ode = sample(policy, noise(1), FLOW.deterministic()).states[0]
    for row, j in enumerate((0, 2, 4)):
        torch.testing.assert_close(trajectory.states[row, : j + 1], ode[: j + 1])
        assert float((trajectory.states[row, j + 1] - ode[j + 1]).abs().max()) > 0.01
    torch.testing.assert_close(logp(policy, trajectory, chain), trajectory.logp, rtol=1e-5, atol=1e-6)
    assert not sample(policy, noise(2), FLOW.deterministic()).mask.any()


def test_a_guide_moves_samples_and_not_log_probabilities():
    policy, draws = Small(), torch.zeros(2, 5, 2, 3)
    plain = sample(policy, noise(2), FLOW, draws=draws)
    still = sample(policy, noise(2), FLOW, draws=draws, guide=lambda x, time, taken: torch.zeros_like(x))
    assert torch.equal(plain.states, still.states)
    guided = sample(policy, noise(2), FLOW, draws=draws, guide=lambda x, time, taken: torch.full_like(x, 0.1))
    torch.testing.assert_close(guided.states[:, 1], plain.states[:, 1] + 0.1)
    torch.testing.assert_close(logp(policy, guided, FLOW), guided.logp, rtol=1e-5, atol=1e-5)
    assert bool((guided.logp[:, 0] < plain.logp[:, 0]).all())


@pytest.mark.parametrize("chain", [FLOW, CHAINS["cps"], DDIM], ids=["flow_sde", "cps", "ddim"])
def test_completions_are_the_ode_from_each_state(chain):
    policy, prompt = Small(), {"prompt": torch.tensor([0.1, -0.2, 0.3])}
    trajectory = sample(policy, noise(3), chain, condition=prompt, generator=drawn())
    policy.calls.clear()
    found = complete(policy, trajectory, chain, condition=prompt, chunk=4)
    assert max(policy.calls) <= 4
    assert sum(policy.calls) == 3 * len(chain) * (len(chain) + 1) / 2
    for k in range(len(chain) + 1):
        rest = sample(policy, trajectory.states[:, k], chain[k:].deterministic(), condition=prompt)
        torch.testing.assert_close(found[:, k], rest.states[:, -1], rtol=1e-4, atol=1e-5)


def test_a_consistency_model_completes_in_one_step():
    policy = Small()
    trajectory = sample(policy, noise(3), LCM, generator=drawn())
    policy.calls.clear()
    found = complete(policy, trajectory, LCM)
    assert policy.calls == [3 * 4]
    for k in range(4):
        with torch.no_grad():
            torch.testing.assert_close(
                found[:, k], policy(trajectory.states[:, k], LCM.levels[k].expand(3)), rtol=1e-4, atol=1e-5
            )
    with pytest.raises(ValueError, match="no deterministic form"):
        LCM.deterministic()


def test_branches_share_their_trunk_and_nothing_else():
    policy, prompt = Small(), {"prompt": torch.tensor([0.5, -0.5])}
    trunk = sample(policy, noise(2), FLOW[:2], condition=prompt, generator=drawn())
    found = branch(policy, trunk, FLOW, at=2, branches=3, condition=prompt, generator=drawn(1))
    assert found.states.shape == (6, 6, 2, 3)
    parents = torch.arange(2).repeat_interleave(3)
    assert torch.equal(found.states[:, :3], trunk.states[parents])
    assert not torch.equal(found.states[0, 3], found.states[1, 3])
    assert found.mask.tolist() == [[False, False, True, True, True]] * 6
    again = logp(policy, found, FLOW, condition={"prompt": prompt["prompt"][parents]})
    torch.testing.assert_close(again, found.logp, rtol=1e-5, atol=1e-6)
    for at, branches in ((3, 2), (-1, 2), (5, 2), (1, 0)):
        with pytest.raises(ValueError, match="begins behind a trunk"):
            branch(policy, trunk, FLOW, at=at, branches=branches)


def test_a_chain_is_cut_and_made_coarser_without_losing_its_end():
    chain = Chain(torch.linspace(1, 0, 17))
    for j in range(17):
        for stride in (1, 2, 3):
            rest = chain[j:].coarser(stride)
            expected = [j, *range(j + 1, 17, stride)]
            expected += [16] if expected[-1] != 16 else []
            assert rest.levels.tolist() == chain.levels[expected].tolist()
    table = Chain(torch.linspace(1, 0, 5), a=torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert table[1:3].a.tolist() == table.a[1:3].tolist()
    torch.testing.assert_close(table[1:3].std, table.std[1:3])
    with pytest.raises(ValueError, match="a table is of other steps"):
        table.coarser(2)
    with pytest.raises(ValueError, match="consecutive"):
        table[::2]
    assert sample(Small(), noise(2), chain[16:]).states.shape == (2, 1, 2, 3)


@pytest.mark.parametrize("width", [torch.float32, torch.bfloat16, torch.float64])
def test_statistics_are_float32_or_wider(width):
    trajectory = sample(lambda x, time: x.to(width), noise(2).to(width), FLOW, generator=drawn())
    expected = torch.float64 if width == torch.float64 else torch.float32
    assert {trajectory.states.dtype, trajectory.logp.dtype, trajectory.noise.dtype} == {expected}


def test_a_row_that_breaks_has_no_step_and_harms_no_other():
    def policy(x, time):
        return torch.where((torch.arange(len(x)) == 1)[:, None, None] & (time < 0.5)[:, None, None], torch.nan, x)

    trajectory = sample(policy, noise(3), FLOW, generator=drawn())
    assert trajectory.mask.any(1).tolist() == [True, False, True]
    assert torch.isfinite(trajectory.logp).all()
    shift = torch.zeros((), requires_grad=True)
    now = logp(lambda x, time: x + shift, trajectory, FLOW)
    loss, _ = policy_gradient(now, trajectory.logp, torch.tensor([1.0, 5.0, -1.0]), trajectory.mask)
    loss.backward()
    assert torch.isfinite(shift.grad)


def silent(x, time):
    raise AssertionError("the policy was asked")


def test_bad_input_is_named_before_the_policy_is_asked():
    broken = noise(2)
    broken[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="noise is not finite: row 1"):
        sample(silent, broken, FLOW)
    with pytest.raises(ValueError, match="floating point"):
        sample(silent, torch.zeros(2, 3, dtype=torch.long), FLOW)
    with pytest.raises(ValueError, match="condition 'prompt' has 3 rows, there are 2"):
        sample(silent, noise(2), FLOW, condition={"prompt": torch.zeros(3)})
    with pytest.raises(ValueError, match="draws"):
        sample(silent, noise(2), FLOW, draws=torch.zeros(2, 4, 2, 3))
    with pytest.raises(ValueError, match="a has 3 rows"):
        sample(silent, noise(2), FLOW.exploring(torch.ones(3, 5)))
    trajectory = sample(Small(), noise(2), FLOW, generator=drawn())
    with pytest.raises(ValueError, match="do not fit"):
        logp(silent, trajectory, FLOW[:4])
    with pytest.raises(ValueError, match="do not fit"):
        logp(silent, trajectory, FLOW, mask=torch.ones(2, 4, dtype=torch.bool))
    trajectory.states[1, 3] = torch.inf
    with pytest.raises(ValueError, match="a state in the mask is not finite"):
        logp(silent, trajectory, FLOW)
    logp(Small(), trajectory, FLOW, mask=trajectory.mask & torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match="the chain 4"):
        complete(silent, trajectory, FLOW[:4])
    with pytest.raises(ValueError, match="one shape is needed"):
        sample(lambda x, time: x[:, 0], noise(2), FLOW)


@pytest.mark.parametrize(
    ("levels", "options", "message"),
    [
        ([1.0, 0.5, 0.5, 0.0], {}, r"step 1 goes from 0.5 to 0.5"),
        ([1.0, 0.0, -0.1], {}, r"step 1 goes from 0 to -0.1: flow times fall"),
        ([999.0, 500.0, 0.0], {}, r"step 0 goes from 999"),
        ([0.0, 0.5, 1.0], {"kind": "ddim"}, r"step 0 goes from 0 to 0.5: signal levels"),
        ([1.0, 0.5, 0.0], {"a": torch.ones(3)}, r"t = 2 steps, got \(3,\)"),
        ([1.0, 0.5, 0.0], {"a": torch.tensor([0.5, -1.0])}, "a of flow_sde"),
        ([1.0, 0.5, 0.0], {"times": torch.ones(2)}, r"times \(2,\)"),
        ([], {}, "levels must be"),
    ],
)
def test_a_chain_that_is_none_is_named_when_it_is_made(levels, options, message):
    with pytest.raises(ValueError, match=message):
        Chain(torch.tensor(levels), **options)


def test_exploration_grows_where_noise_helps_as_often_as_it_harms():
    gains = torch.ones(100, 3)
    gains[:90, 0] = -1  # 90 % harm
    gains[::2, 1] = -1  # balanced
    table = torch.tensor([0.5, 0.5, 0.02])
    found = calibrated(table, gains)
    torch.testing.assert_close(found, torch.tensor([0.48, 0.52, 0.01]))
    mask = torch.zeros(100, 3, dtype=torch.bool)
    assert torch.equal(calibrated(table, torch.full_like(gains, torch.nan), mask=mask), table)


def test_schedules_outside_of_the_chain_are_named():
    assert [interval(i, 100) for i in (0, 50, 99)] == [14, 17, 20]
    with pytest.raises(ValueError, match="numbered from 0 to 4"):
        singular(5, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="stage 100 of 100"):
        interval(100, 100)
    with pytest.raises(ValueError, match="not in a chain of 4"):
        denoising.uniform(4, first=2, last=5)
    with pytest.raises(ValueError, match="balance"):
        calibrated(torch.ones(1), torch.ones(2, 1), floor=0.0)
