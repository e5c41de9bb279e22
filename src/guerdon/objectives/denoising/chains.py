"""Along a chain: trajectories sampled, replayed with gradients, completed without noise, and forked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.trajectory import Trajectory
from guerdon.objectives.denoising.chain import Chain
from guerdon.objectives.denoising.steps import FLOW, Step, _step, action_logp

Policy = Callable[..., Tensor]  # (x: "n *d", time: "n", **condition) -> "n *d"
Condition = Mapping[str, Tensor]


class Replay(NamedTuple):
    """The steps of a trajectory under a policy, with gradients; 0 where they were not asked for.

    Args:
        logp: Float["n t"], log-probability of each action.
        mean: Float["n t *d"], of each step.
        std: Float["n t"].
    """

    logp: Float[Tensor, "n t"]
    mean: Float[Tensor, "n t *d"]
    std: Float[Tensor, "n t"]


@torch.no_grad()
def sample(
    policy: Policy,
    noise: Float[Tensor, "n *d"],
    chain: Chain,
    *,
    condition: Condition | None = None,
    generator: torch.Generator | None = None,
    draws: Float[Tensor, "n t *d"] | None = None,
    guide: Callable[[Tensor, Tensor, Step], Tensor] | None = None,
    chunk: int | None = None,
) -> Trajectory:
    """Denoise: one trajectory per row, with the log-probability of each step.

    Args:
        policy: called as policy(x, time, **condition) with one time per row; says velocity, noise or clean sample.
        noise: where the chains begin; also any later sample, with the part of a chain that begins there.
        chain: the levels and how much noise.
        condition: tensors with one entry per row (embeddings of prompts), of which the policy gets those of its rows.
        generator: of the noise of the steps.
        draws: that noise itself, instead; also where rows are to share it.
        guide: (x, time, step) -> a shift of the mean that only sampling sees: log-probabilities stay those of the
            unguided step, so that learning draws the policy to where it was guided.
        chunk: at most so many rows in one call of the policy.

    Returns:
        A `Trajectory`: states "n t+1 *d" in float32 or wider, actions (states without the first), times, noise (the
        standard deviations), logp, and a mask that is True at the stochastic steps: a deterministic one has no
        density and nothing to learn from. A row in which the policy said something that is not finite has no step in
        the mask.

    Raises:
        ValueError: if noise is not finite, or the shapes do not fit; before the policy is called.

    Source: Flow-GRPO (arXiv 2505.05470); DDPO (2305.13301); guide: Euphonium (2602.04928).
    """
    n, t = len(noise), len(chain)
    _check_samples("noise", noise)
    _check_rows(n, chain, condition)
    if draws is not None and draws.shape != (n, t, *noise.shape[1:]):
        raise ValueError(f"draws must be {(n, t, *noise.shape[1:])}, one per step, got {tuple(draws.shape)}")
    condition = condition or {}
    x = noise.to(torch.promote_types(noise.dtype, torch.float32))
    levels, told, amount = (y.to(x.device) for y in (chain.levels, chain.told, chain.amount))
    states, logp = [x], x.new_zeros(n, t)
    for k in range(t):
        time = told[k].expand(n)
        here, there = (levels[i].to(x.dtype).expand(n) for i in (k, k + 1))
        output = _said(policy, x, time, condition, chunk)
        taken = _step(x, output, here, there, amount[..., k].to(x.dtype).expand(n), chain.kind)
        fresh = (
            draws[:, k].to(x)
            if draws is not None
            else torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        )
        following = taken.draw(fresh)
        if guide is not None:
            following = following + guide(x, time, taken).to(x)
        logp[:, k] = action_logp(following, taken, density=chain.own_density, reduce=chain.reduce)
        states.append(following)
        x = following
    path = torch.stack(states, 1)
    sound = torch.isfinite(path.flatten(1)).all(1)
    std = chain.std.to(x)
    return Trajectory(
        mask=(std > 0).expand(n, t) & sound[:, None],
        actions=path[:, 1:],
        states=path,
        times=told[:-1],
        noise=std,
        logp=torch.where(sound[:, None], logp, 0.0),
    )


def replay(
    policy: Policy,
    trajectory: Trajectory,
    chain: Chain,
    *,
    mask: Bool[Tensor, "n t"] | None = None,
    condition: Condition | None = None,
    chunk: int | None = None,
) -> Replay:
    """The steps of a trajectory once more, with gradients: log-probabilities, means and standard deviations.

    Only the steps of the mask are computed, all of them side by side. What no micro-batch holds in memory is learned
    from in parts: masks that divide the trajectory's, each with the `denominator` of the whole in `policy_gradient`.

    Args:
        policy: as for `sample`.
        trajectory: of `sample` with the same chain.
        chain: the levels and how much noise.
        mask: the steps; default: the trajectory's, which are all stochastic ones.
        condition: as for `sample`.
        chunk: at most so many steps in one call of the policy.

    Raises:
        ValueError: if the trajectory is not of this chain, or a state in the mask is not finite; before the policy is
            called.

    Source: Flow-GRPO (arXiv 2505.05470).
    """
    if trajectory.states is None:
        raise ValueError("the trajectory has no states to compute its steps from")
    states = torch.as_tensor(trajectory.states)
    n, t = trajectory.mask.shape
    wanted = torch.as_tensor(trajectory.mask if mask is None else mask, device=states.device)
    if t != len(chain) or wanted.shape != (n, t):
        raise ValueError(
            f"trajectory {(n, t)}, mask {tuple(wanted.shape)} and a chain of {len(chain)} steps do not fit"
        )
    _check_rows(n, chain, condition)
    rows, steps = wanted.nonzero(as_tuple=True)
    x, action = states[rows, steps], states[rows, steps + 1]
    _check_samples("a state in the mask", torch.stack([x, action], 1) if len(x) else x)
    levels, told, amount = (y.to(x.device) for y in (chain.levels, chain.told, chain.amount.expand(n, t)))
    chosen = {name: value[rows] for name, value in (condition or {}).items()}
    taken = _step(
        x,
        _said(policy, x, told[steps], chosen, chunk),
        levels[steps].to(x.dtype),
        levels[steps + 1].to(x.dtype),
        amount[rows, steps].to(x.dtype),
        chain.kind,
    )
    found = action_logp(action, taken, density=chain.own_density, reduce=chain.reduce)
    return Replay(*(_placed(part, (n, t), rows, steps) for part in (found, taken.mean, taken.std)))


def logp(
    policy: Policy,
    trajectory: Trajectory,
    chain: Chain,
    *,
    mask: Bool[Tensor, "n t"] | None = None,
    condition: Condition | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "n t"]:
    """`replay`'s log-probabilities alone: what `policy_gradient` takes, a denoising step being a token.

    Args:
        policy, trajectory, chain, mask, condition, chunk: as for `replay`.

    Returns:
        One per step, 0 where the mask is False; the mean or sum over elements, as the chain says.

    Source: Flow-GRPO (arXiv 2505.05470), DDPO (2305.13301).
    """
    return replay(policy, trajectory, chain, mask=mask, condition=condition, chunk=chunk).logp


@torch.no_grad()
def complete(
    policy: Policy,
    trajectory: Trajectory,
    chain: Chain,
    *,
    condition: Condition | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "n t1 *d"]:
    """The clean sample that each state of a trajectory leads to without further noise.

    Its reward is what a state is worth: the table that `credit.progress` and `credit.turning_points` read. States
    that wait for one another share the calls of the policy: t calls, the k-th with n · k rows, t (t + 1)/2 forwards
    per trajectory. A consistency model needs one call for all.

    Args:
        policy, chain, condition: as for `sample`.
        trajectory: with states; of this chain.
        chunk: at most so many states in one call of the policy.

    Returns:
        One per state; the last state is its own completion.

    Raises:
        ValueError: if the trajectory is not of this chain, or a condition does not have its rows.

    Source: DenseGRPO (arXiv 2601.20218), with n = t; TurningPoint-GRPO (2602.06422).
    """
    if trajectory.states is None:
        raise ValueError("the trajectory has no states to complete")
    states = torch.as_tensor(trajectory.states)
    n, nodes = states.shape[:2]
    if nodes != len(chain) + 1:
        raise ValueError(f"the trajectory has {nodes - 1} steps, the chain {len(chain)}")
    _check_rows(n, chain, condition)
    condition = condition or {}
    levels, told = (y.to(states.device) for y in (chain.levels, chain.told))
    here, kind = levels.to(states.dtype), chain.kind
    size = states.shape[2:]
    if kind == "consistency":
        x = states[:, :-1].flatten(0, 1)
        repeated = {name: value.repeat_interleave(len(chain), 0) for name, value in condition.items()}
        clean = _said(policy, x, told[:-1].repeat(n), repeated, chunk).to(states)
        return torch.cat([clean.reshape(n, len(chain), *size), states[:, -1:]], 1)
    waiting = states[:, :0]
    for k in range(len(chain)):
        waiting = torch.cat([waiting, states[:, k : k + 1]], 1)
        x = waiting.flatten(0, 1)
        repeated = {name: value.repeat_interleave(k + 1, 0) for name, value in condition.items()}
        output = _said(policy, x, told[k].expand(len(x)), repeated, chunk)
        before, after = (here[i].expand(len(x)) for i in (k, k + 1))
        without = _step(x, output, before, after, x.new_zeros(len(x)), "ode" if kind in FLOW else kind)
        waiting = without.mean.reshape(n, k + 1, *size)
    return torch.cat([waiting, states[:, -1:]], 1)


@torch.no_grad()
def branch(
    policy: Policy,
    trunk: Trajectory,
    chain: Chain,
    *,
    at: int,
    branches: int,
    condition: Condition | None = None,
    generator: torch.Generator | None = None,
    draws: Float[Tensor, "nb t *d"] | None = None,
    chunk: int | None = None,
) -> Trajectory:
    """Trajectories that share their first `at` steps with a trunk and part there, each with noise of its own.

    The rows that a trunk's row becomes stand behind one another, so `torch.arange(n).repeat_interleave(branches)`
    are their groups. What they share cannot tell them apart: the mask is False there.

    Args:
        policy: as for `sample`.
        trunk: with states, of at least `at` steps of this chain: a trajectory, or its beginning.
        chain: the levels and how much noise; a table per row is one of the branches.
        at: the first step that the branches take by themselves.
        branches: of each row.
        condition: one entry per row of the trunk.
        generator, draws, chunk: as for `sample`, of the steps that the branches take by themselves.

    Returns:
        A `Trajectory` of n · branches rows. Where the trunk is not finite, neither are they, and have no step in the
        mask.

    Raises:
        ValueError: if there is no such step, or no branch.

    Source: B²-DiffuRL (arXiv 2503.11240); from the states of an ODE: the anchors of G2RPO (2510.01982).
    """
    if trunk.states is None or trunk.states.shape[1] <= at or not 0 <= at < len(chain) or branches < 1:
        known = 0 if trunk.states is None else trunk.states.shape[1] - 1
        raise ValueError(f"step {at} of {len(chain)} begins behind a trunk of {known}, branches {branches} is not 0")
    before = torch.as_tensor(trunk.states)[:, : at + 1].repeat_interleave(branches, 0)
    fork = before[:, -1]
    own = sample(
        policy,
        fork.nan_to_num(0.0, 0.0, 0.0),
        chain[at:],
        condition={name: value.repeat_interleave(branches, 0) for name, value in (condition or {}).items()},
        generator=generator,
        draws=draws,
        chunk=chunk,
    )
    assert own.states is not None
    assert own.logp is not None
    sound = torch.isfinite(fork.flatten(1)).all(1)
    shared = own.mask.new_zeros(len(before), at)
    after = torch.where(sound.reshape(-1, *[1] * fork.ndim), own.states, torch.nan)
    path = torch.cat([before[:, :-1], after], 1)
    std = chain.std.to(path).expand(len(path), len(chain)) if chain.std.ndim == 2 else chain.std.to(path)
    return Trajectory(
        mask=torch.cat([shared, own.mask & sound[:, None]], 1),
        actions=path[:, 1:],
        states=path,
        times=chain.told[:-1].to(path.device),
        noise=std,
        logp=torch.cat([shared.to(own.logp), own.logp], 1),
    )


def _parts(total: int, chunk: int | None) -> Iterator[slice]:
    size = max(total, 1) if chunk is None else chunk
    if size < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    return (slice(begin, begin + size) for begin in range(0, max(total, 1), size))


def _said(policy: Policy, x: Tensor, time: Tensor, condition: Condition, chunk: int | None) -> Tensor:
    """The policy's output for these rows, a chunk at a time, in the width that steps are computed in."""
    found = [
        policy(x[part], time[part], **{name: value[part] for name, value in condition.items()})
        for part in _parts(len(x), chunk)
    ]
    output = found[0] if len(found) == 1 else torch.cat(found)
    if output.shape != x.shape:
        raise ValueError(f"the policy said {tuple(output.shape)} of samples {tuple(x.shape)}: one shape is needed")
    return output.to(x.dtype)


def _placed(values: Tensor, shape: tuple[int, int], rows: Tensor, steps: Tensor) -> Tensor:
    """A table over rows and steps, 0 where there is no value; gradients pass."""
    empty = values.new_zeros(*shape, *values.shape[1:])
    return empty.index_put((rows, steps), values)


def _check_rows(n: int, chain: Chain, condition: Condition | None) -> None:
    if chain.amount.ndim == 2 and len(chain.amount) != n:
        raise ValueError(f"a has {len(chain.amount)} rows, there are {n} samples")
    for name, value in (condition or {}).items():
        if len(value) != n:
            raise ValueError(f"condition {name!r} has {len(value)} rows, there are {n} samples")


def _check_samples(name: str, samples: Tensor) -> None:
    if not samples.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {samples.dtype}")
    sound = torch.isfinite(samples.reshape(len(samples), -1)).all(1) if len(samples) else samples.new_ones(0).bool()
    if not bool(sound.all()):
        raise ValueError(f"{name} is not finite: row {int((~sound).nonzero()[0])} has NaN or infinity")
