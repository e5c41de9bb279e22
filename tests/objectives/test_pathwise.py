import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import guerdon
from guerdon.core.context import Context
from guerdon.core.errors import NotDifferentiable
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.objectives import pathwise
from guerdon.objectives.denoising import Chain, Step, gaussian_kl, sample, step
from guerdon.objectives.pathwise import (
    balanced,
    check_differentiable,
    condition_error,
    consistency_loss,
    denoise,
    directional,
    disagreement,
    guidance,
    last_part,
    noised,
    of_rollouts,
    one_step,
    parameter_drift,
    pathwise_gradient,
    recovered,
    reward_loss,
    segmental,
    self_correction,
    spsa,
    truncation,
)
from guerdon.objectives.pathwise.corrections import corrected_text


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def diffusion(steps, clean=0.9999):
    """ᾱ of a linear schedule, as levels that rise to nearly 1."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    chosen = bars[torch.arange(steps - 1, -1, -1) * (1000 // steps)]
    return torch.cat([chosen, torch.tensor([max(clean, float(chosen[-1]) + 1e-6)], dtype=torch.float64)])


class Net(torch.nn.Module):
    def __init__(self, width=3, hidden=16, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(width + 1, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, width)
        ).double()

    def forward(self, x, time):
        return self.layers(torch.cat([x, time[:, None].to(x)], 1))


# Chains


@pytest.mark.parametrize(("graph_from", "expected"), [(0, 2.71), (1, 1.9), (2, 1.0)])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_alignprop_worked_numbers_of_a_truncated_chain(graph_from, expected, checkpoint):
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def policy(x, time):  # x + Δs v = 0.9 x + θ with Δs = −1/3
        return -3 * (theta - 0.1 * x)

    chain = Chain(torch.tensor([1.0, 2 / 3, 1 / 3, 0.0], dtype=torch.float64), "ode")
    end = denoise(policy, torch.zeros(1, 1, dtype=torch.float64), chain, graph_from=graph_from, checkpoint=checkpoint)
    assert end.item() == pytest.approx(2.71)
    end.sum().backward()
    assert theta.grad.item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["ode", "cps", "flow_sde", "ddim"])
@pytest.mark.parametrize("graph_from", [0, 3])
def test_alignprop_checkpointed_and_plain_gradients_agree(kind, graph_from):
    levels = diffusion(6) if kind == "ddim" else torch.linspace(1, 0, 7, dtype=torch.float64)
    chain, noise, draws = Chain(levels, kind, 0.5), randn(4, 3), randn(4, 6, 3, seed=1)
    found = []
    for checkpoint in (True, False):
        net = Net()
        loss, _ = pathwise_gradient(
            net, noise, chain, lambda x: -(x**2).sum(1), graph_from=graph_from, checkpoint=checkpoint, draws=draws
        )
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["ode", "cps", "flow_sde", "dance", "ddim"])
def test_a_chain_with_a_graph_makes_the_samples_of_one_without(kind):
    levels = diffusion(5) if kind == "ddim" else torch.linspace(1, 0, 6, dtype=torch.float64)
    chain, net, noise = Chain(levels, kind, torch.linspace(0.2, 0.6, 5)), Net(), randn(4, 3)
    expected = sample(net, noise, chain, generator=generator(3)).states[:, -1]
    found = denoise(net, noise, chain, generator=generator(3), graph_from=2)
    torch.testing.assert_close(found.detach(), expected)


def test_a_chain_tells_the_policy_its_own_times_and_conditions():
    told = []

    def policy(x, time, prompt):
        told.append(time.tolist())
        return prompt[:, None].expand_as(x)

    chain = Chain(torch.tensor([1.0, 0.5, 0.0]), "ode", times=torch.tensor([999.0, 500.0, 0.0]))
    prompt = torch.tensor([1.0, 2.0])
    found = denoise(policy, torch.zeros(2, 1), chain, condition={"prompt": prompt})
    assert told == [[999.0, 999.0], [500.0, 500.0]]
    assert found[:, 0].tolist() == [-1.0, -2.0]


def test_noise_that_asks_for_a_gradient_has_one_along_what_is_linear():
    noise = torch.ones(1, 1, requires_grad=True)
    chain = Chain(torch.tensor([1.0, 0.5, 0.0]), "ode")
    denoise(lambda x, time: x, noise, chain, graph_from=2).sum().backward()
    assert noise.grad.item() == 1.0  # the policy's half of x + Δs v is constant


def test_alignprop_truncation_keeps_a_step_and_leaves_one_out():
    drawn = torch.tensor([truncation(50, generator=generator(i)) for i in range(400)], dtype=torch.float64)
    assert drawn.min() >= 1
    assert drawn.max() <= 49
    # ⌊N(42, 5²)⌋ below 50: its mean, by the sum over whole numbers
    cdf = torch.distributions.Normal(42.0, 5.0).cdf(torch.arange(51, dtype=torch.float64))
    weights = cdf[2:] - cdf[1:-1]
    mean = (weights * torch.arange(1, 50)).sum() / weights.sum()
    assert drawn.mean().item() == pytest.approx(mean.item(), abs=0.8)
    same = generator()
    even = [truncation(5, kind="uniform", generator=same) for _ in range(400)]
    assert set(even) == {1, 2, 3, 4}
    assert max(map(even.count, set(even))) < 140
    assert truncation(50, kind="fixed") == 49


@pytest.mark.parametrize(
    "options",
    [{"steps": 1}, {"steps": 10, "kind": "other"}, {"steps": 10, "mean": 1.0}, {"steps": 3, "mean": 0.1}],
    ids=["one step", "kind", "mean", "mean below one step"],
)
def test_a_truncation_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"kind|T = "):
        truncation(**options)


@pytest.mark.parametrize("kind", ["ode", "ddim"])
def test_a_known_noise_is_taken_off_again(kind):
    clean, noise, level = randn(3, 2), randn(3, 2, seed=1), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x = noised(clean, noise, level, kind=kind)
    torch.testing.assert_close(recovered(x, noise, level, kind=kind), clean)
    one = noised(torch.ones(1, 1), torch.zeros(1, 1), 0.25, kind=kind)
    assert one.item() == (0.75 if kind == "ode" else 0.5)


def test_what_cannot_be_noised_or_recovered_is_refused():
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="one shape"):
        noised(x, torch.zeros(1, 1), 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        noised(x, x, 1.5)
    with pytest.raises(ValueError, match="one per row"):
        noised(x, x, torch.tensor([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match="pure noise"):
        recovered(x, x, 1.0)


# What is refused before the policy is asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph_from": 3}, "graph_from"),
        ({"graph_from": -1}, "graph_from"),
        ({"noise": torch.tensor([[math.nan]])}, "not finite"),
        ({"draws": torch.zeros(1, 1, 1)}, "draws"),
        ({"condition": {"prompt": torch.zeros(3)}}, "prompt"),
        ({"estimate_at": 2}, "estimate_at"),
        ({"reward": lambda x: x.detach().sum(1)}, "no gradient"),
        ({"reward": lambda x: torch.tensor(x.numpy().sum(1))}, "leaves torch"),
        ({"reward": lambda x: torch.zeros(1, requires_grad=True)}, "no gradient"),
        ({"reward": lambda x: [1.0]}, "tensor or Scores"),
        ({"reward": lambda x: x}, "one number per sample"),
    ],
    ids=[
        "graph_from", "negative", "nan", "draws", "condition", "estimate_at", "detached", "numpy", "constant", "list",
        "shape",
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_the_policy_is_asked(changes, message):
    def policy(x, time, **condition):
        raise AssertionError("compute was spent")

    given = {"noise": torch.zeros(1, 1), "reward": lambda x: x.sum(1)} | changes
    noise, reward = given.pop("noise"), given.pop("reward")
    with pytest.raises((ValueError, NotDifferentiable), match=message):
        pathwise_gradient(policy, noise, Chain(torch.tensor([1.0, 0.5, 0.0]), "ode"), reward, **given)


@guerdon.reward(range=(-100, 0), lane="batch", differentiable=True)
def nearness(completion, target):
    return torch.stack([-(x - y).square().sum() for x, y in zip(completion, target, strict=True)])


@guerdon.reward(range=(0, 1))
def shortness(completion) -> float:
    return 1.0


def test_an_expression_of_guerdon_is_a_reward_of_samples():
    batch = Rollouts(["a", "b"], ["", ""], {"target": [1.0, 3.0]})
    reward = of_rollouts(2 * nearness() + 1, batch)
    x = torch.zeros(2, 2, requires_grad=True)
    scores = reward(x)
    assert scores.read(0.0).tolist() == [-3.0, -35.0]
    scores.read(0.0).sum().backward()
    assert x.grad.tolist() == [[4.0, 4.0], [12.0, 12.0]]
    with pytest.raises(NotDifferentiable, match="shortness"):
        of_rollouts(nearness() + shortness(), batch)
    with pytest.raises(TypeError, match="of_rollouts"):
        check_differentiable(nearness(), torch.zeros(1, 2))
    with pytest.raises(NotDifferentiable, match="says that it is not"):
        check_differentiable(shortness(), torch.zeros(1, 2))


def test_a_reward_is_asked_once_and_believed_if_it_says_so():
    asked = []

    def reward(x):
        asked.append(len(x))
        return x.sum(1)

    check_differentiable(reward, torch.zeros(2, 1))
    assert asked == [2]
    reward.differentiable = True
    check_differentiable(reward, torch.zeros(2, 1))
    assert asked == [2]


# The loss


def test_rewards_that_abstain_have_no_weight():
    values = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
    scores = Scores(values, valid=np.array([True, False, True]), reasons={1: "no face"})
    loss, sums = reward_loss(scores)
    assert loss.item() == -2.0
    assert {k: v.item() for k, v in sums.items()} == {"samples": 2.0, "reward": 4.0}
    loss.backward()
    assert values.grad.tolist() == [-0.5, 0.0, -0.5]


def test_alignprop_losses_of_its_rewards():
    aesthetic = torch.tensor([4.0, 12.0], requires_grad=True)
    assert reward_loss(aesthetic, scale=0.01)[0].item() == pytest.approx(-0.08)
    assert reward_loss(aesthetic, target=10.0, scale=0.01)[0].item() == pytest.approx(0.01 * (6 + 2) / 2)


def test_losses_of_parts_add_up_with_the_denominator_of_the_whole():
    values, weight = torch.tensor([1.0, 2.0, 4.0], requires_grad=True), torch.tensor([1.0, 0.5, 2.0])
    whole = reward_loss(values, weight=weight)[0]
    assert whole.item() == pytest.approx(-10 / 3)
    parts = [reward_loss(values[i], weight=weight[i], denominator=3)[0] for i in (slice(0, 1), slice(1, 3))]
    assert sum(parts).item() == pytest.approx(whole.item())


def test_a_reward_that_is_not_finite_or_has_no_gradient_is_no_loss():
    with pytest.raises(ValueError, match="sample 1 is nan"):
        reward_loss(torch.tensor([1.0, math.nan], requires_grad=True))
    with pytest.raises(NotDifferentiable, match="path"):
        reward_loss(torch.ones(2))
    with pytest.raises(ValueError, match="weight"):
        reward_loss(torch.ones(2, requires_grad=True), weight=torch.ones(3))
    none = Scores(torch.ones(1, requires_grad=True), valid=np.array([False]), reasons={0: "no"})
    assert reward_loss(none)[0].item() == 0.0


# R0


def test_r0_every_reward_pulls_alike_and_its_scale_changes_nothing():
    x, goal = randn(3, 4, 2).requires_grad_(), randn(3, 4, 2, seed=1)

    def first(z):
        return -(z - goal).square().flatten(1).sum(1)

    def second(z):
        return torch.sin(z).flatten(1).sum(1)

    pulls = []
    for reward in (first, second):
        (g,) = torch.autograd.grad(reward(x).sum(), x)
        pulls.append(g / g.flatten(1).norm(dim=1)[:, None, None])
    found = balanced(first, second, weights=[2.0, 0.5])(x)
    torch.testing.assert_close(found, 2 * first(x) + 0.5 * second(x))
    (pull,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(pull, 2 * pulls[0] + 0.5 * pulls[1])
    (louder,) = torch.autograd.grad(balanced(lambda z: 1000 * first(z), second, weights=[2.0, 0.5])(x).sum(), x)
    torch.testing.assert_close(louder, pull)


def test_r0_a_sample_for_which_one_reward_abstains_abstains():
    x = torch.ones(2, 1, requires_grad=True)

    def halting(z):
        return Scores(z[:, 0], valid=np.array([True, False]), reasons={1: "no face"})

    scores = balanced(halting, lambda z: z[:, 0])(x)
    assert scores.valid.tolist() == [True, False]
    reward_loss(scores)[0].backward()
    assert x.grad[:, 0].tolist() == [-2.0, 0.0]


def test_r0_the_estimate_at_the_noise_is_the_sample_of_one_step():
    found = []
    for at in (None, 0):
        net, chain = Net(), Chain(torch.tensor([1.0, 0.0], dtype=torch.float64), "cps", 0.4)
        pathwise_gradient(
            net, randn(4, 3), chain, lambda x: -(x**2).sum(1), estimate_at=at, draws=torch.zeros(4, 1, 3)
        )[0].backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    torch.testing.assert_close(*found)


def test_r0_plus_leaves_out_the_path_before_its_estimate():
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    chain = Chain(torch.linspace(1, 0, 4, dtype=torch.float64), "ode")

    def policy(x, time):
        return theta[round(3 * float(1 - time[0]))].expand_as(x)

    pathwise_gradient(policy, randn(2, 1), chain, lambda x: x[:, 0], estimate_at=1)[0].backward()
    # x̂₀ = x − s v at s = 2/3: the loss is −mean x̂₀
    assert theta.grad.tolist() == pytest.approx([0.0, 2 / 3, 0.0])


def test_r0_path_is_the_coefficient_preserving_step():
    x, v, z, eta = randn(2, 3), randn(2, 3, seed=1), randn(2, 3, seed=2), 0.6
    clean, noise = x - 0.7 * v, x + 0.3 * v
    expected = 0.6 * clean + 0.4 * (math.sqrt(1 - eta**2) * noise + eta * z)
    found = step(x, v, 0.7, 0.4, kind="cps", a=2 / math.pi * math.asin(eta)).draw(z)
    torch.testing.assert_close(found, expected)


def test_r0_weights_stay_near_their_origin():
    a, origin = torch.tensor([1.0, -2.0]), torch.tensor([0.3, 0.3])

    def trained(coefficient, steps=200):
        theta = origin.clone().requires_grad_()
        for _ in range(steps):
            loss = -(a * theta).sum() + coefficient * parameter_drift([theta], [origin])
            (gradient,) = torch.autograd.grad(loss, theta)
            with torch.no_grad():
                theta -= gradient * 0.4 / max(coefficient, 1)
        return theta.detach()

    torch.testing.assert_close(trained(2.0), origin + a / 4)
    torch.testing.assert_close(trained(1e6), origin, atol=1e-4, rtol=0)
    assert (trained(0.0, 200) - origin).norm() == pytest.approx(
        2 * (trained(0.0, 100) - origin).norm().item(), rel=1e-4
    )
    with pytest.raises(ValueError, match="do not fit"):
        parameter_drift([a], [])


def test_r0_guidance_pulls_from_the_unconditional_noise_to_the_conditional():
    x = randn(2, 3).requires_grad_()

    def told(z, time):
        return z * 0.5

    def blind(z, time):
        return z * 0.1 + 1

    reward = guidance(told, blind, level=0.4, generator=generator(5))
    found = reward(x)
    noise = torch.randn(2, 3, generator=generator(5), dtype=torch.float64)
    at = (0.6 * x + 0.4 * noise).detach()
    e_told, e_blind = at + 0.6 * told(at, 0), at + 0.6 * blind(at, 0)
    expected = 0.5 * ((e_blind - noise) ** 2 - (e_told - noise) ** 2).mean(1)
    torch.testing.assert_close(found.detach(), expected)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, (e_blind - e_told) / 3)


# ControlNet++ and Ctrl-U


def test_controlnet_worked_numbers_of_a_one_step_estimate():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    bars = torch.cumprod(1 - betas, 0)[torch.tensor([100, 200, 400, 999])]
    clean, noise = randn(4, 2), randn(4, 2, seed=1)
    x = noised(clean, noise, bars, kind="ddim")
    torch.testing.assert_close(one_step(lambda z, time: noise, x, bars, kind="ddim"), clean)
    wrong = one_step(lambda z, time: noise - 1, x, bars, kind="ddim") - clean
    assert wrong[:, 0].tolist() == pytest.approx([0.34, 0.57, 1.16, 14.6], rel=0.02)


def test_controlnet_only_samples_with_little_noise_count():
    errors = torch.tensor([[1.0, 3.0], [math.nan, 9.0], [4.0, 4.0]], requires_grad=True)
    loss, sums = consistency_loss(errors, torch.tensor([0, 201, 200]))
    assert loss.item() == 3.0
    assert {k: v.item() for k, v in sums.items()} == {"samples": 2.0, "error": 6.0, "uncertainty": 0.0}
    loss.backward()
    assert errors.grad.tolist() == [[0.25, 0.25], [0.0, 0.0], [0.25, 0.25]]
    assert consistency_loss(errors, torch.tensor([300, 400, 999]))[0].item() == 0.0


def test_controlnet_errors_of_conditions():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])  # one sample, two classes, two pixels
    errors, valid = condition_error(logits, torch.tensor([[0, 255]]), kind="classes")
    assert errors[0].tolist() == pytest.approx([math.log(1 + math.exp(-2)), 0.0])
    assert valid.tolist() == [[True, False]]
    assert consistency_loss(errors, torch.tensor([5]), valid=valid)[0].item() == pytest.approx(0.12693, abs=1e-5)
    depth, label = torch.tensor([[1.0, 4.0], [0.0, 0.0]]), torch.tensor([[10.0, 20.0], [1.0, 1.0]])
    errors, valid = condition_error(depth, label, kind="relative")
    assert errors.tolist() == [[0.0625, 0.0], [0.0, 0.0]]
    assert valid.tolist() == [[True, True], [False, False]]
    assert condition_error(torch.tensor([[1.0]]), torch.tensor([[3.0]]))[0].item() == 4.0
    with pytest.raises(ValueError, match="label"):
        condition_error(logits, torch.tensor([[0, 2]]), kind="classes")


@pytest.mark.parametrize(("u", "weight"), [(0.0, 1.0), (0.5, 0.6065), (2.0, 0.1353)])
def test_ctrlu_worked_weights(u, weight):
    one = torch.ones(1, 1)
    assert consistency_loss(one, torch.zeros(1), uncertainty=u * one, penalty=0.0)[0].item() == pytest.approx(
        weight, abs=5e-5
    )


def test_ctrlu_the_worst_uncertainty_is_not_the_best():
    u = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    errors, optimizer = torch.tensor([[1.0], [0.05]], dtype=torch.float64), torch.optim.Adam([u], lr=0.05)
    for _ in range(400):
        loss = consistency_loss(errors, torch.zeros(2), uncertainty=u, penalty=0.1)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            u.clamp_(min=0)
    assert u[0].item() == pytest.approx(2.3026, abs=1e-3)
    assert u[1].item() == 0.0
    first = consistency_loss(errors[:1], torch.zeros(1), uncertainty=u[:1], penalty=0.1)[0]
    assert first.item() == pytest.approx(0.3303, abs=1e-4)


def test_ctrlu_worked_mean_over_pixels():
    errors, u = torch.full((1, 100), 0.1), torch.zeros(1, 100)
    errors[0, 90:], u[0, 90:] = 5.0, 2.0
    assert consistency_loss(errors, torch.zeros(1))[0].item() == pytest.approx(0.59)
    found = consistency_loss(errors, torch.zeros(1), uncertainty=u, penalty=0.0)[0]
    assert found.item() == pytest.approx(0.1577, abs=1e-4)


def test_ctrlu_without_disagreement_is_controlnet():
    reading, label, times = randn(3, 5), randn(3, 5, seed=1), torch.tensor([10, 150, 300])
    errors, _ = condition_error(reading, label)
    plain = consistency_loss(errors, times, limit=400)[0]
    weighed = consistency_loss(errors, times, limit=400, uncertainty=disagreement(reading, reading))[0]
    assert plain.item() == weighed.item() == pytest.approx(((reading - label) ** 2).mean().item())


def test_ctrlu_disagreement_of_maps_and_classes():
    first, second = torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[math.log(3)], [0.0]]])
    found = disagreement(first, second, kind="classes")
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    gradient = torch.autograd.grad(disagreement(first.requires_grad_(), second, kind="classes").sum(), first)[0]
    assert gradient[0, :, 0].tolist() == pytest.approx([-0.25, 0.25])


def test_ctrlu_weight_is_that_of_shaping_trust():
    u = np.array([0.0, 0.5, 2.0])
    weights = guerdon.shaping.trust(kind="exponential")(Scores.of(list(u)), Context()).read(0.0)
    found = consistency_loss(
        torch.ones(3, 1, dtype=torch.float64), torch.zeros(3), uncertainty=torch.tensor(u)[:, None], penalty=0.0
    )[0]
    assert found.item() == pytest.approx(weights.mean())


def test_consistency_refuses_what_does_not_fit():
    one = torch.ones(2, 1)
    with pytest.raises(ValueError, match="times"):
        consistency_loss(one, torch.zeros(3))
    with pytest.raises(ValueError, match="uncertainty must"):
        consistency_loss(one, torch.zeros(2), uncertainty=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="never negative"):
        consistency_loss(one, torch.zeros(2), uncertainty=-one)
    with pytest.raises(ValueError, match="penalty"):
        consistency_loss(one, torch.zeros(2), penalty=-1)
    with pytest.raises(ValueError, match="one shape"):
        disagreement(one, one[:1])
    with pytest.raises(ValueError, match="kind"):
        condition_error(one, one, kind="other")


# InstructVideo


def test_instructvideo_one_frame_of_each_segment():
    reward = segmental(lambda frames: frames.flatten(1).mean(1), generator=generator())
    picked = reward.pick(200, 16)
    low = torch.tensor([0, 4, 8, 12])
    assert bool(((picked >= low) & (picked < low + 4)).all())
    assert all(len(set(column.tolist())) == 4 for column in picked.T)
    ragged = segmental(lambda frames: frames, segments=4, generator=generator()).pick(100, 6)
    assert [sorted(set(column.tolist())) for column in ragged.T] == [[0], [1, 2], [3], [4, 5]]
    with pytest.raises(ValueError, match="segments"):
        reward.pick(1, 3)


def test_instructvideo_worked_reward():
    picked, reward = torch.tensor([[1, 6, 9, 14]]), segmental(lambda frames: frames)
    weights = [reward.pool(torch.eye(4)[i : i + 1], picked, 16).item() * 4 for i in range(4)]
    assert weights == pytest.approx([0.0009, 0.1353, 0.3679, 0.0025], abs=5e-5)
    assert reward.pool(torch.ones(1, 4), picked, 16).item() == pytest.approx(0.12665, abs=5e-6)
    plain = segmental(lambda frames: frames, decay=0.0)
    assert plain.pool(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), picked, 16).item() == 3.0


def test_instructvideo_gradient_is_in_the_middle():
    videos = torch.ones(64, 16, 2, requires_grad=True)
    segmental(lambda frames: frames.sum(1), generator=generator())(videos).sum().backward()
    share = videos.grad.sum((0, 2)) / videos.grad.sum()
    assert share[[0, 1, 14, 15]].sum() < 0.01
    assert share[6:11].sum() > 0.8


def test_instructvideo_a_video_with_a_frame_without_reward_abstains():
    def halting(frames):
        return Scores(frames[:, 0], valid=(frames[:, 0] < 5).numpy(), reasons=dict.fromkeys(range(4), "no face"))

    videos = torch.ones(2, 2, 1)
    videos[1, 1] = 9.0
    scores = segmental(halting, segments=2)(videos)
    assert scores.valid.tolist() == [True, False]


def test_instructvideo_edits_the_last_twelve_of_twenty_steps():
    told = []

    def policy(x, time):
        told.append((int(time[0]), torch.is_grad_enabled()))
        return torch.zeros_like(x) + theta

    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    times = torch.cat([1 + 50 * torch.arange(19, -1, -1), torch.zeros(1, dtype=torch.long)])
    whole = Chain(diffusion(20), "ddim", 0.0, times=times)
    part = last_part(whole, 0.6)
    start = noised(randn(2, 4, 3), randn(2, 4, 3, seed=1), part.levels[0], kind="ddim")
    reward = segmental(lambda frames: frames.sum(1), generator=generator())
    loss, _ = pathwise_gradient(policy, start, part, reward, graph_from=len(part) - 1, checkpoint=False)
    loss.backward()
    assert [time for time, _ in told] == list(range(551, 0, -50))
    assert [graph for _, graph in told] == [False] * 11 + [True]
    assert theta.grad != 0
    nothing = last_part(whole, 0.0)
    clean = randn(2, 3)
    assert torch.equal(denoise(policy, clean, nothing), clean)
    exact = last_part(Chain(torch.tensor([1.0, 0.5, 0.0]), "ode"), 0.0)
    assert torch.equal(noised(clean, randn(2, 3, seed=1), exact.levels[0]), clean)


# D²-Align


@pytest.mark.parametrize(
    ("strength", "expected"), [(1.5, (0.7071, 1.4142)), (1.0, (0.7071, 0.7071)), (0.5, (0.7071, 0.0))]
)
def test_d2_align_worked_text(strength, expected):
    text, b = torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0])
    moved = corrected_text(text, b, strength=strength)[0]
    assert moved.tolist() == pytest.approx(expected, abs=5e-5)
    image = torch.tensor([[0.6, 0.8]])
    cosine = (0.6 * expected[0] + 0.8 * expected[1]) / math.hypot(*expected)
    assert directional(image, text, b, strength=strength).item() == pytest.approx(cosine, abs=1e-4)


def test_d2_align_without_a_direction_is_the_frozen_reward():
    image, text = randn(5, 4), torch.nn.functional.normalize(randn(5, 4, seed=1), dim=1)
    torch.testing.assert_close(
        directional(image, text, torch.zeros(4, dtype=torch.float64)), torch.cosine_similarity(image, text)
    )
    with pytest.raises(ValueError, match="do not fit"):
        directional(image, text, torch.zeros(3))


def test_d2_align_recovers_a_sharp_estimate_after_one_step():
    clean, noise = randn(3, 2), randn(3, 2, seed=1)
    x = noised(clean, noise, 0.75)
    true = step(x, noise - clean, 0.75, 0.7, kind="ode").mean
    torch.testing.assert_close(recovered(true, noise, 0.7), clean)
    # an error b of the velocity is one of Δs b / (1 − s') of the estimate: 1/6 here, where x̂₀ = x − s v has 3/4
    off = recovered(step(x, noise - clean + 1, 0.75, 0.7, kind="ode").mean, noise, 0.7) - clean
    torch.testing.assert_close(off, torch.full_like(off, -0.05 / 0.3))


# SOAR


def test_soar_a_perfect_step_leaves_flow_matching():
    clean, noise, level = randn(6, 3), randn(6, 3, seed=1), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    net = Net()
    loss, sums = self_correction(
        net,
        clean,
        noise,
        level,
        (level - 0.025).clamp(min=0),
        rollout=lambda x, time: noise - clean,
        points=4,
        generator=generator(),
    )
    draws = generator()
    total, one = 0.0, level - 0.025
    target = noise - clean

    def error(s):
        z = (1 - s[:, None]) * clean + s[:, None] * noise
        return (net(z, s) - target).square().mean(1).sum()

    base = error(level)
    for _ in range(4):
        total = total + error(one + torch.rand(6, generator=draws, dtype=torch.float64) * (1 - one))
    assert loss.item() == pytest.approx(((base + total) / 30).item())
    assert sums["off_states"].item() == 24
    assert sums["off_error"].item() == pytest.approx(total.item())


def test_soar_the_target_leads_back_from_wherever_a_step_went():
    clean, noise = randn(5, 2), randn(5, 2, seed=1)
    level, bias = torch.full((5,), 0.6, dtype=torch.float64), 3.0
    seen = []

    def policy(z, s):
        seen.append((z.detach(), s))
        return torch.zeros_like(z)

    _, sums = self_correction(
        policy,
        clean,
        noise,
        level,
        level - 0.2,
        rollout=lambda x, time: noise - clean + bias,
        points=3,
        generator=generator(),
    )
    expected = 0.0
    for z, s in seen[1:]:
        target = (z - clean) / s[:, None]
        torch.testing.assert_close(z - s[:, None] * target, clean)  # one Euler step to 0
        alpha = ((s - 0.4) / 0.6)[:, None]
        torch.testing.assert_close(target - (noise - clean), ((1 - alpha) * (-0.2) * bias / s[:, None]).expand(5, 2))
        expected += target.square().mean(1).sum().item()
    assert sums["off_error"].item() == pytest.approx(expected)


def test_soar_stochastic_paths_are_left_out_where_no_noise_is_left():
    clean, noise = randn(2, 3), randn(2, 3, seed=1)
    level, following = torch.tensor([0.02, 0.5]), torch.tensor([0.0, 0.475])
    _, sums = self_correction(Net(), clean, noise, level, following, kinds=("ode", "cps"), points=5)
    assert sums["off_states"].item() == 2 * 5 + 1 * 5
    none, plain = self_correction(Net(), clean, noise, level, following, points=0)
    assert none.item() == pytest.approx(plain["error"].item() / 2)


def test_soar_a_stochastic_path_starts_from_a_drawn_step():
    """ẑ of a coefficient-preserving step with a = ½, by its equation; s' is not below the smallest."""
    clean, noise, seen = randn(400, 2), randn(400, 2, seed=1), []

    def policy(z, s):
        seen.append((z.detach(), s))
        return torch.zeros_like(z)

    level, to = torch.full((400,), 0.5, dtype=torch.float64), 0.3
    options = {"rollout": lambda x, time: noise - clean, "kinds": ("cps",), "points": 1, "smallest": 0.4}
    self_correction(policy, clean, noise, level, level - 0.2, generator=generator(3), **options)
    drawn = torch.randn(400, 2, generator=generator(3), dtype=torch.float64)
    sd = to * math.sin(0.25 * math.pi)
    astray = (1 - to) * clean + math.sqrt(to**2 - sd**2) * noise + sd * drawn  # x̂₀ and ê of a perfect rollout
    z, there = seen[1]
    alpha = ((there - to) / (1 - to))[:, None]
    torch.testing.assert_close(z, (1 - alpha) * astray + alpha * noise)
    assert there.min() == 0.4
    assert there.max() > 0.95


def test_soar_weighs_what_is_off_the_path():
    clean, noise, level = randn(6, 3), randn(6, 3, seed=1), torch.full((6,), 0.5, dtype=torch.float64)
    for weight in (0.0, 1.0, 3.0):
        loss, sums = self_correction(Net(), clean, noise, level, level / 2, strength=weight, points=2)
        expected = (sums["error"] + weight * sums["off_error"]) / (6 + weight * 12)
        assert loss.item() == pytest.approx(expected.item())


def test_soar_refuses_levels_that_do_not_fall():
    x, half = torch.zeros(1, 1), torch.tensor([0.5])
    for level, following in ((half, half), (torch.ones(1), half), (half, torch.tensor([-0.1]))):
        with pytest.raises(ValueError, match="levels"):
            self_correction(lambda z, s: z, x, x, level, following)
    with pytest.raises(ValueError, match="kinds of a flow"):
        self_correction(lambda z, s: z, x, x, half, half / 2, kinds=("ddim",))


# Euphonium


def test_euphonium_worked_spsa():
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    reward = spsa(lambda z: -(z.numpy() ** 2).sum(1), samples=4000, generator=generator())
    found = reward(x)
    assert found.item() == -5.25
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient[0].tolist() == pytest.approx([-2.0, 4.0, -1.0], abs=0.25)


def test_euphonium_spsa_leaves_out_directions_without_a_reward():
    x = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)

    def half(z):
        return [None if i else float(v) for i, v in enumerate(z[:, 0])]

    scores = spsa(lambda z: Scores.of(half(z), reasons={1: "no face"}), samples=2000, generator=generator())(x)
    assert scores.valid.tolist() == [True, False]
    (gradient,) = torch.autograd.grad(scores.read(0.0).sum(), x)
    assert gradient[0].item() == pytest.approx(1.0, abs=0.15)
    assert gradient[1].item() == 0.0


def test_euphonium_without_strength_is_the_unguided_step_bit_for_bit():
    chain, net, noise = Chain(torch.linspace(1, 0, 9, dtype=torch.float64)[:-1], "dance", 0.25), Net(), randn(4, 3)
    plain = sample(net, noise, chain, generator=generator(1))
    for options in ({"strength": 0.0}, {"strength": 5.0, "first": len(chain)}):
        guide = pathwise.drift(lambda x, time: x.sum(1), chain, **options)
        guided = sample(net, noise, chain, generator=generator(1), guide=guide)
        assert torch.equal(guided.states, plain.states)
        assert torch.equal(guided.logp, plain.logp)


def test_euphonium_shift_and_log_probability_of_the_unguided_mean():
    chain, net, noise = Chain(torch.tensor([0.8, 0.6, 0.4], dtype=torch.float64), "dance", 0.25), Net(), randn(4, 3)
    guide = pathwise.drift(lambda x, time: -0.5 * (x - 1).square().sum(1) * time, chain, strength=2.0, first=1)
    draws = randn(4, 2, 3, seed=2)
    path = sample(net, noise, chain, draws=draws, guide=guide)
    plain = step(
        path.states[:, 1], net(path.states[:, 1], torch.full((4,), 0.6)).detach(), 0.6, 0.4, kind="dance", a=0.25
    )
    shift = path.states[:, 2] - plain.draw(draws[:, 1])
    torch.testing.assert_close(shift, 2.0 * 0.2 * 0.6 * (1 - path.states[:, 1]))
    std = 0.25 * math.sqrt(0.2)
    assert path.noise[1].item() == pytest.approx(std)
    away = path.states[:, 2] - plain.mean
    expected = (-(away**2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)).mean(1)
    torch.testing.assert_close(path.logp[:, 1], expected)


@pytest.mark.parametrize("kind", ["ode", "dance", "flow_sde"])
def test_euphonium_a_reward_of_clean_estimates_is_read_off_the_step(kind):
    chain = Chain(torch.tensor([0.8, 0.5], dtype=torch.float64), kind, 0.4)
    x, v = randn(3, 2), randn(3, 2, seed=1)
    seen = []

    def reward(clean, time):
        seen.append(clean.detach())
        return 3 * clean.sum(1)

    guide = pathwise.drift(reward, chain, normalized=True, strength=0.7, clean=True)
    shift = guide(x, torch.full((3,), 0.8, dtype=torch.float64), step(x, v, 0.8, 0.5, kind=kind, a=0.4))
    torch.testing.assert_close(seen[0], x - 0.8 * v)
    torch.testing.assert_close(shift, torch.full_like(x, 0.7 * 0.3 / math.sqrt(2)))


@pytest.mark.parametrize("kind", ["ode", "dance", "flow_sde"])
def test_euphonium_the_absorbing_velocity_has_the_guided_mean(kind):
    x, v, shift = randn(3, 2), randn(3, 2, seed=1), randn(3, 2, seed=2)
    plain = step(x, v, 0.7, 0.5, kind=kind, a=0.4)
    target = pathwise.absorbing(v, shift, 0.7, 0.5, std=plain.std)
    torch.testing.assert_close(step(x, target, 0.7, 0.5, kind=kind, a=0.4).mean, plain.mean + shift)
    torch.testing.assert_close(pathwise.absorbing(v, 0.3 * shift, 0.7, 0.5), v - 0.3 / 0.2 * shift)


def test_euphonium_kl_weight_is_that_of_the_shared_kl():
    x, v, ref, eta, s, d = randn(3, 2), randn(3, 2, seed=1), randn(3, 2, seed=2), 0.25, 0.7, -0.2
    one, other = (step(x, y, s, s + d, kind="dance", a=eta) for y in (v, ref))
    weight = abs(d) / (2 * eta**2) * (1 + eta**2 * (1 - s) / (2 * s)) ** 2
    expected = weight * (v - ref).square().sum(1)
    torch.testing.assert_close(gaussian_kl(one.mean, other.mean, one.std, reduce="sum"), expected)


def test_euphonium_refuses_before_sampling():
    chain = Chain(torch.tensor([0.8, 0.5]), "cps", 0.4)
    with pytest.raises(ValueError, match="cps"):
        pathwise.drift(lambda x, time: x.sum(1), chain, clean=True)
    with pytest.raises(ValueError, match="first"):
        pathwise.drift(lambda x, time: x.sum(1), chain, first=2)
    with pytest.raises(NotDifferentiable, match="shortness"):
        pathwise.drift(shortness(), chain)
    with pytest.raises(NotDifferentiable, match="no gradient"):
        pathwise.drift(lambda x, time: x.detach().sum(1), chain)(
            torch.ones(1, 1), torch.tensor([0.8]), Step(torch.ones(1, 1), torch.ones(1))
        )
    with pytest.raises(ValueError, match="flow times"):
        pathwise.absorbing(torch.ones(1, 1), torch.ones(1, 1), 0.5, 0.5)


# Finite in, finite out


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(0, 10_000),
    st.sampled_from(["squared", "relative"]),
)
def test_nothing_finite_becomes_nan(n, d, seed, kind):
    made = generator(seed)
    scale = 10 ** float(torch.randint(-3, 4, (), generator=made))
    first, second = (
        (scale * torch.randn(n, d, generator=made) * (torch.rand(n, d, generator=made) < 0.8)).requires_grad_()
        for _ in range(2)
    )
    times = torch.randint(0, 1000, (n,), generator=made)
    errors, valid = condition_error(first, second, kind=kind)
    loss, sums = consistency_loss(errors, times, limit=500, valid=valid, uncertainty=disagreement(first, second))
    loss = loss + disagreement(first, second, kind="classes").sum()
    if n:
        loss = loss + reward_loss(balanced(lambda x: x.sum(1), lambda x: (x**2).sum(1))(first))[0]
        loss = loss + directional(first, second, torch.zeros(d)).sum()
    gradient = torch.autograd.grad(loss, first, allow_unused=True)[0]
    assert torch.isfinite(loss)
    assert gradient is None or torch.isfinite(gradient).all()
    assert all(torch.isfinite(value) for value in sums.values())
