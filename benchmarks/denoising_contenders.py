"""The methods of `denoising_methods.py`: each a few lines over the parts of the house, yielding losses.

A method is given a `Lab` and draws, samples and scores as it likes; who asks it for the next loss has taken a step of
the optimiser down the last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from denoising_problem import BEST, BETA, DATA, LEVELS, ODE, STEPS, WIDTH, Lab
from torch import Tensor

from guerdon import Context, Rollouts
from guerdon.credit import branch_extremes, granular_relative, group_relative, progress, spread, turning_points
from guerdon.data import contrast_sets
from guerdon.models import adversarial_reward
from guerdon.objectives import group_margins, pair_loss, pathwise, policy_gradient, ranked_loss, unpaired_loss
from guerdon.objectives.denoising import (
    Chain,
    branch,
    calibrated,
    complete,
    directed,
    follow,
    gaussian_kl,
    interval,
    logp,
    renoised,
    replay,
    reward_difference,
    sample,
    singular,
    step_preference,
    uniform,
)
from guerdon.objectives.denoising_errors import (
    errors,
    guided_velocity,
    implicit_scores,
    invert,
    shared,
    weighted_regression,
)
from guerdon.objectives.pathwise.drifts import velocity_of
from guerdon.rewards.distribution import set_value

RATES = (3e-4, 1e-3, 3e-3)
GROUP, ROWS = 16, 64
GROUPS = torch.arange(ROWS) // GROUP
PAIRS = torch.arange(ROWS) // 2
Losses = Iterator[Tensor]
Method = Callable[[Lab], Losses]


def exploring(kind: str = "flow_sde", a: float = 0.7, first: int = 0, last: int = STEPS - 1) -> Chain:
    """Ten steps, some with noise; the last would leave it in the sample."""
    return Chain(LEVELS, kind, uniform(STEPS, a, first=first, last=last), reduce="sum")


def together(lab: Lab) -> Tensor:
    """Noise that a group shares."""
    return lab.noise(ROWS // GROUP).repeat_interleave(GROUP, 0)


# ---- policy gradient over steps


def gradient(lab: Lab, path: Any, chain: Chain, advantages: Tensor, *, kl: float = 0.04) -> Tensor:
    """The clipped loss, and the exact KL of each step to the data's own model."""
    now = replay(lab.policy, path, chain)
    with torch.no_grad():
        before = replay(lab.reference, path, chain)
    away = kl * gaussian_kl(now.mean, before.mean, now.std, reduce="sum")
    return policy_gradient(now.logp, path.logp, advantages, path.mask, kl=away)[0]


def flow_grpo(lab: Lab, kind: str = "flow_sde", a: float = 0.7) -> Losses:
    chain = exploring(kind, a)
    while True:
        path = sample(lab.policy, lab.noise(ROWS), chain, generator=lab.generator)
        yield gradient(lab, path, chain, group_relative(lab.reward(path.states[:, -1]), GROUPS))


def windows(lab: Lab, width: int = 3) -> Losses:
    while True:
        first = round(lab.progress * (STEPS - 1 - width))
        chain = exploring(first=first, last=first + width)
        path = sample(lab.policy, lab.noise(ROWS), chain, generator=lab.generator)
        yield gradient(lab, path, chain, group_relative(lab.reward(path.states[:, -1]), GROUPS))


def completed(lab: Lab, path: Any, chain: Chain) -> Tensor:
    """The reward of every state's completion, n × (t + 1)."""
    clean = complete(lab.policy, path, chain)
    return lab.reward(clean.flatten(0, 1)).reshape(clean.shape[:2])


def dense_grpo(lab: Lab) -> Losses:
    table = exploring().std / (1 / STEPS) ** 0.5
    while True:
        chain = Chain(LEVELS, "dance", torch.where(exploring().std > 0, table, 0.0), reduce="sum")
        path = sample(lab.policy, lab.noise(ROWS), chain, generator=lab.generator)
        gains = progress(completed(lab, path, chain), path.mask)
        table = calibrated(table, gains)
        yield gradient(lab, path, chain, group_relative(gains, GROUPS, mask=path.mask, pool="position"))


def turning(lab: Lab) -> Losses:
    chain = exploring("cps")
    while True:
        path = sample(lab.policy, together(lab), chain, generator=lab.generator)
        gains = turning_points(completed(lab, path, chain), mask=path.mask)
        yield gradient(lab, path, chain, group_relative(gains, GROUPS, mask=path.mask, pool="position"))


def g2rpo(lab: Lab, explored: int = 5) -> Losses:
    base = Chain(LEVELS, "flow_sde", 0.7, reduce="sum")
    tables = singular(STEPS, torch.arange(explored))
    while True:
        anchors = sample(lab.policy, lab.noise(ROWS // GROUP), base.deterministic())
        for at, table in enumerate(tables):
            chain = base.exploring(table)
            path = branch(lab.policy, anchors, chain, at=at, branches=GROUP, generator=lab.generator)
            rest = base[at + 1 :].deterministic().coarser(2)
            ends = [path.states[:, -1], sample(lab.policy, path.states[:, at + 1], rest).states[:, -1]]
            views = torch.stack([lab.reward(x) for x in ends])[..., None]
            yield gradient(lab, path, chain, granular_relative(views, GROUPS)[:, 0])


def b2_diffurl(lab: Lab, stages: int = 20, branches: int = 4) -> Losses:
    chain, history = exploring(), []
    forks = torch.arange(ROWS) // branches
    while True:
        at = STEPS - interval(int(lab.progress * stages), stages, shortest=7, longest=STEPS)
        start = lab.noise(ROWS // branches)
        trunk = sample(lab.policy, start, chain[:at], generator=lab.generator)
        path = branch(lab.policy, trunk, chain, at=at, branches=branches, generator=lab.generator)
        history = [*history[-8:], lab.reward(path.states[:, -1])]
        known = torch.cat(history)
        scores = group_relative(known, torch.zeros(len(known), dtype=torch.long), eps=1e-8)[-ROWS:]
        yield gradient(lab, path, chain, branch_extremes(scores, forks))


def euphonium(lab: Lab) -> Losses:
    chain = exploring("dance", 0.25)
    guide = pathwise.drift(lambda x, time: lab.reward(x), chain, strength=0.5, first=2)
    while True:
        path = sample(lab.policy, together(lab), chain, generator=lab.generator, guide=guide)
        outcome = group_relative(lab.reward(path.states[:, -1]), GROUPS)
        states = path.states[:, 1:]
        earned = lab.reward(states.flatten(0, 1)).reshape(states.shape[:2])
        process = group_relative(earned, GROUPS, pool="position")
        yield gradient(lab, path, chain, outcome) + gradient(lab, path, chain, process, kl=0.0)


def absorbed(lab: Lab) -> Losses:
    chain, seen = exploring("dance", 0.25), []
    guide = pathwise.drift(lambda x, time: lab.reward(x), chain, strength=0.5, first=2)

    def recording(x: Tensor, time: Tensor, taken: Any) -> Tensor:
        shift = guide(x, time, taken)
        k = int((LEVELS - time[0]).abs().argmin())
        level, following = (LEVELS[i].expand(len(x)) for i in (k, k + 1))
        v = velocity_of(taken, x, level, following)
        seen.append((x, time, pathwise.absorbing(v, shift, level, following, std=taken.std)))
        return shift

    while True:
        seen.clear()
        sample(lab.policy, lab.noise(ROWS), chain, generator=lab.generator, guide=recording)
        yield torch.stack([(lab.policy(x, s) - target).square().mean() for x, s, target in seen]).mean()


def adversarial(lab: Lab) -> Losses:
    lab.enough = math.inf
    chain, step = exploring(), 0
    learned = adversarial_reward(hidden=32, patches=0, normalize=False, learning_rate=1e-2, seed=lab.seed)
    while True:
        step += 1
        path = sample(lab.policy, lab.noise(ROWS), chain, generator=lab.generator)
        columns = {"reference": list(BEST.draw(ROWS, lab.generator).numpy())}
        batch = Rollouts([""] * ROWS, list(path.states[:, -1].numpy()), columns)
        scores = learned.measure(batch, Context(step=step))
        learned.update(batch, scores, Context(step=step))
        yield gradient(lab, path, chain, group_relative(torch.as_tensor(scores.read(0.0)), GROUPS))


# ---- log-ratios of whole trajectories


def d3po(lab: Lab) -> Losses:
    chain = exploring()
    while True:
        path = sample(lab.policy, lab.noise(ROWS), chain, generator=lab.generator)
        rewards = lab.reward(path.states[:, -1])
        for k in range(STEPS - 1):
            here = path.mask & (torch.arange(STEPS) == k)
            with torch.no_grad():
                before = logp(lab.reference, path, chain, mask=here)
            now = logp(lab.policy, path, chain, mask=here)
            yield step_preference(now, before, rewards, GROUPS, here)[0]


def prdp(lab: Lab, passes: int = 3) -> Losses:
    chain = exploring()
    while True:
        path = sample(lab.policy, together(lab), chain, generator=lab.generator)
        rewards = lab.reward(path.states[:, -1])
        with torch.no_grad():
            before = logp(lab.reference, path, chain)
        for _ in range(passes):
            now = logp(lab.policy, path, chain)
            yield reward_difference(now, before, rewards, GROUPS, path.mask, beta=BETA, old_logp=path.logp, clip=0.2)[0]


def rebel(lab: Lab, passes: int = 3) -> Losses:
    chain = exploring()
    while True:
        path = sample(lab.policy, lab.noise(ROWS), chain, generator=lab.generator)
        advantages = group_relative(lab.reward(path.states[:, -1]), GROUPS)
        for _ in range(passes):
            yield reward_difference(logp(lab.policy, path, chain), path.logp, advantages, GROUPS, path.mask)[0]


# ---- denoising errors: data that are scored once


def pool(lab: Lab, n: int = 2048) -> tuple[Tensor, Tensor]:
    clean = DATA.draw(n, lab.generator)
    return clean, lab.reward(clean)


def implicit(lab: Lab, clean: Tensor, groups: Tensor, *, beta: float | None = None) -> tuple[Tensor, Tensor]:
    """Scores, and the policy's own errors, at one noise and time for each group.

    Without a beta, errors are weighed so that the mean of a score over times is β log p_θ/p_ref.
    """
    s, noise = (shared(x, groups) for x in (lab.levels(len(clean)), lab.noise(len(clean))))
    both = errors(lab.policy, lab.reference, clean, noise, s, reduce="sum")
    return implicit_scores(both, beta=BETA * WIDTH * (1 - s) / s if beta is None else beta), both.policy


def some(lab: Lab, clean: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(clean), (ROWS,), generator=lab.generator)
    return clean[rows], rewards[rows]


def dpo(lab: Lab, soft: bool = False, beta: float | None = None) -> Losses:
    known = pool(lab)
    while True:
        clean, rewards = some(lab, *known)
        scores, _ = implicit(lab, clean, PAIRS, beta=beta)
        chance = torch.sigmoid(rewards[::2] - rewards[1::2])
        labels = chance if soft else torch.bernoulli(chance, generator=lab.generator)
        yield pair_loss(scores[::2] - scores[1::2], labels=labels)[0]


def kto(lab: Lab) -> Losses:
    known = pool(lab)
    while True:
        clean, rewards = some(lab, *known)
        scores, _ = implicit(lab, clean, torch.arange(ROWS))
        yield unpaired_loss(scores, rewards > known[1].median())[0]


def gdro(lab: Lab) -> Losses:
    known = pool(lab)
    while True:
        clean, rewards = some(lab, *known)
        scores, _ = implicit(lab, clean, GROUPS)
        yield ranked_loss(scores, rewards, GROUPS, temperature=BETA)[0]


def dgpo(lab: Lab) -> Losses:
    known = pool(lab)
    while True:
        clean, rewards = some(lab, *known)
        scores, _ = implicit(lab, clean, GROUPS)
        yield pair_loss(group_margins(scores, group_relative(rewards, GROUPS), GROUPS))[0]


def rwr(lab: Lab) -> Losses:
    known = pool(lab)
    while True:
        clean, rewards = some(lab, *known)
        _, own = implicit(lab, clean, torch.arange(ROWS))
        yield weighted_regression(own, rewards, temperature=BETA)[0]


def inpo(lab: Lab) -> Losses:
    known = pool(lab)
    alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)

    def told(velocity: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """The same model as one of a diffusion's noise, at training steps."""

        def noise(x: Tensor, t: Tensor) -> Tensor:
            signal, spread = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
            s = spread / (signal + spread)
            x = x / (signal + spread)[:, None]
            return x + (1 - s)[:, None] * velocity(x, s)

        return noise

    while True:
        clean, rewards = some(lab, *known)
        t = shared(torch.randint(50, 1000, (ROWS,), generator=lab.generator), PAIRS)
        found = invert(told(lab.policy), clean, t, alphas, generator=lab.generator)
        both = errors(
            told(lab.policy), told(lab.reference), clean, found.noise, alphas[t], predict="noise", times=t, reduce="sum"
        )
        scores = implicit_scores(both, beta=10.0)
        labels = torch.bernoulli(torch.sigmoid(rewards[::2] - rewards[1::2]), generator=lab.generator)
        yield pair_loss(scores[::2] - scores[1::2], labels=labels, mask=found.mask[::2])[0]


def tdm_r1(lab: Lab) -> Losses:
    surrogate, fake = lab.copy(learned=True), lab.copy(learned=True)
    before, update = lab.copy(), 0

    def clean(model: Callable[[Tensor, Tensor], Tensor], x: Tensor, s: Tensor) -> Tensor:
        return x - s[:, None] * model(x, s)

    while True:
        path = sample(lab.policy, lab.noise(ROWS), ODE)
        advantages = group_relative(lab.reward(path.states[:, -1]), GROUPS)
        k = int(torch.randint(1, STEPS + 1, (), generator=lab.generator))
        earned = spread(advantages, torch.ones(ROWS, STEPS, dtype=torch.bool), place="all")[:, k - 1]
        s = LEVELS[k].expand(ROWS)
        to, noise = s + (1 - s) * shared(lab.levels(ROWS), GROUPS), shared(lab.noise(ROWS), GROUPS)
        x, target = renoised(path.states[:, k], s, to, noise)
        now = (surrogate(x, to) - target).square().mean(1)
        with torch.no_grad():
            then = (before(x, to) - target).square().mean(1)
        preference, _ = pair_loss(group_margins(then - now, earned, GROUPS))
        made = clean(lab.policy, path.states[:, k - 1], LEVELS[k - 1].expand(ROWS))
        again, goal = renoised(made.detach(), 0.0, to, lab.noise(ROWS))
        score = (fake(again, to) - goal).square().mean()
        with torch.no_grad():
            towards = clean(surrogate, again, to) - clean(before, again, to)
            back = clean(lab.reference, again, to) - clean(fake, again, to)
        moving = 0.7 * directed(made, towards) + directed(made, back, normalize=False)
        yield preference + score + moving
        follow(before, surrogate, update)
        update += 1


# ---- the reward's own gradient


def align_prop(lab: Lab, kind: str | None = None, estimated: bool = False) -> Losses:
    reward = pathwise.spsa(lab.reward, samples=4, scale=0.1, generator=lab.generator) if estimated else lab.reward
    while True:
        k = 0 if kind is None else pathwise.truncation(STEPS, kind=kind, generator=lab.generator)
        yield pathwise.pathwise_gradient(lab.policy, lab.noise(ROWS), ODE, reward, graph_from=k)[0]


def instruct_video(lab: Lab, share: float = 0.6) -> Losses:
    known, chain = pool(lab), pathwise.last_part(ODE, share)
    while True:
        clean, _ = some(lab, *known)
        start = pathwise.noised(clean, lab.noise(ROWS), chain.levels[0])
        yield pathwise.pathwise_gradient(lab.policy, start, chain, lab.reward, graph_from=len(chain) - 1)[0]


def r0(lab: Lab) -> Losses:
    origin = [weight.detach().clone() for weight in lab.policy.parameters()]
    while True:
        eta = torch.rand(STEPS, generator=lab.generator, dtype=torch.float64)
        chain = Chain(LEVELS, "cps", 2 / math.pi * torch.asin(eta))
        at = int(torch.randint(STEPS, (), generator=lab.generator))
        found, _ = pathwise.pathwise_gradient(
            lab.policy, lab.noise(ROWS), chain, lab.reward, estimate_at=at, generator=lab.generator
        )
        yield found + 0.1 * pathwise.parameter_drift(lab.policy.parameters(), origin)


# ---- without training, and from examples instead of a reward


def nrg(lab: Lab) -> Losses:
    def guided(x: Tensor, s: Tensor) -> Tensor:
        def reward(point: Tensor, at: Tensor) -> Tensor:
            return lab.reward(point - at[:, None] * lab.reference(point, at)) / BETA

        return guided_velocity(lab.reference(x, s), x, s, reward)

    lab.sampler = guided
    yield from ()


def fine_tuning(lab: Lab) -> Losses:
    lab.enough = math.inf
    while True:
        found = errors(lab.policy, None, BEST.draw(ROWS, lab.generator), lab.noise(ROWS), lab.levels(ROWS))
        yield weighted_regression(found.policy)[0]


def soar(lab: Lab) -> Losses:
    lab.enough = math.inf
    while True:
        s = lab.levels(ROWS)
        clean, following = BEST.draw(ROWS, lab.generator), (s - 1 / STEPS).clamp(min=0)
        noise, dice = lab.noise(ROWS), lab.generator
        yield pathwise.self_correction(lab.policy, clean, noise, s, following, points=2, generator=dice)[0]


def dragon(lab: Lab, rounds: int = 15) -> Losses:
    lab.enough = math.inf
    value = set_value("frechet", BEST.draw(2000, lab.generator))
    while True:
        drawn = lab.made(lab.policy, ROWS).reshape(2, ROWS // 2, 2)
        both = torch.stack(contrast_sets(drawn, value, generator=lab.generator).split(drawn), 1).flatten(0, 1)
        lab.reference = lab.copy()
        for _ in range(rounds):
            scores, _ = implicit(lab, both, PAIRS)
            yield pair_loss(scores[::2] - scores[1::2])[0]


METHODS: dict[str, Method] = {
    "Flow-GRPO": flow_grpo,
    "DanceGRPO": partial(flow_grpo, kind="dance", a=0.5),
    "Flow-GRPO, CPS steps": partial(flow_grpo, kind="cps", a=0.7),
    "Flow-GRPO, moving window": windows,
    "DenseGRPO": dense_grpo,
    "TurningPoint-GRPO": turning,
    "G2RPO": g2rpo,
    "B2-DiffuRL": b2_diffurl,
    "Euphonium": euphonium,
    "Euphonium, distilled": absorbed,
    "D3PO": d3po,
    "PRDP": prdp,
    "REBEL (RLCM)": rebel,
    "Flow-DPO": dpo,
    "Flow-DPO, constant β": partial(dpo, beta=BETA),
    "Flow-DPO, soft labels (RPO)": partial(dpo, soft=True),
    "Diffusion-KTO": kto,
    "GDRO": gdro,
    "DGPO": dgpo,
    "DDIM-InPO": inpo,
    "Flow-RWR": rwr,
    "TDM-R1": tdm_r1,
    "AlignProp, whole chain": align_prop,
    "AlignProp, truncated": partial(align_prop, kind="gaussian"),
    "AlignProp, last step": partial(align_prop, kind="fixed"),
    "AlignProp, SPSA": partial(align_prop, estimated=True),
    "InstructVideo": instruct_video,
    "R0+": r0,
    "Flow-NRG": nrg,
    "Fine-tuning": fine_tuning,
    "SOAR": soar,
    "DRAGON, Fréchet": dragon,
    "Adv-GRPO": adversarial,
}
