"""A denoising chain that keeps its graph, as much of it as is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as checkpointed

from guerdon.objectives.denoising.steps import FLOW, Kind, check_amount, check_levels, estimates, step

Policy = Callable[[Tensor, Tensor], Tensor]  # samples "n *d" and their levels "n" to its output "n *d"


def chain(
    policy: Policy,
    x: Float[Tensor, "n *d"],
    levels: Float[Tensor, "t+1"],
    *,
    kind: Kind = "ode",
    a: float | Float[Tensor, "t"] = 0.7,
    graph_from: int = 0,
    checkpoint: bool = True,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n *d"]:
    r"""Denoise from the first level to the last; the steps from `graph_from` on keep the policy's graph.

        x ← step(x, policy(x, lᵢ), lᵢ, lᵢ₊₁)        i < graph_from: the policy's output is a constant

    The gradient through all steps is long, and costs the memory of all of them. Cut off, it is that of the last steps
    given the sample they began at; with one step left it is the gradient of the last step alone. What is linear in x
    stays: if the noise x asks for a gradient, it has one.

    Args:
        policy: samples and the level of each row to what it says of them (see `denoising.step`); guidance by a prompt
            and prompts are inside of it. Which of its parameters are trained, all or LoRA's, is the user's.
        x: where the chain begins, noise or a sample that was `noised`.
        levels: of each state, the first and the last included: falling flow times, or rising signal levels ᾱ.
        kind, a: of `denoising.step`; `a` may differ between steps. 'cps' with a = 2/π · arcsin(η) is the path of R0,
            σ' (√(1 − η²) ê + η z).
        graph_from: K, how many steps come before the first with a graph; from `truncation`.
        checkpoint: compute the policy again when the gradient passes, instead of keeping what it computed: a chain of
            twenty steps then needs the memory of one, at a third more time.
        generator: of the noise of stochastic steps.

    Returns:
        The samples at the last level. Without steps (one level), x.

    Raises:
        ValueError: before the policy is called, for levels or `a` where the step is not defined, a graph_from outside
            of the chain, or an x that is not finite.

    Source: AlignProp (arXiv 2310.03739), DRaFT (2309.17400); checkpoints: Chen et al. (1604.06174).

    >>> policy = lambda x, level: x
    >>> chain(policy, torch.tensor([[8.0]]), torch.tensor([1.0, 0.5, 0.0]))
    tensor([[2.]])
    """
    steps = _check_chain(x, levels, kind, a, graph_from)
    amounts = torch.as_tensor(a, dtype=torch.float32, device=x.device).expand(steps)
    for i in range(steps):
        level = levels[i].expand(len(x))
        if i < graph_from:
            with torch.no_grad():
                output = policy(x, level)
        elif checkpoint and torch.is_grad_enabled():
            output = checkpointed(policy, x, level, use_reentrant=False)
        else:
            output = policy(x, level)
        taken = step(x, output, level, levels[i + 1].expand(len(x)), kind=kind, a=amounts[i])
        if kind == "ode":
            x = taken.mean
        else:
            x = taken.draw(torch.randn(x.shape, generator=generator, device=x.device, dtype=taken.mean.dtype))
    return x


def truncation(
    steps: int,
    *,
    kind: Literal["gaussian", "uniform", "fixed"] = "gaussian",
    mean: float = 0.84,
    std: float = 0.1,
    generator: torch.Generator | None = None,
) -> int:
    r"""How many steps of a chain go without a graph: K, with 1 ≤ K < T, one for a whole batch.

        gaussian  ⌊N(mean · T, (std · T)²)⌋, drawn again until it fits
        uniform   each of 1 … T − 1
        fixed     T − 1: the last step alone has a graph

    A random K has a gradient of every length, most of them short; with the last step alone, fine texture is learnt and
    the layout, which the first steps decide, is not.

    Args:
        steps: T ≥ 2.
        kind: gaussian is the default of the source's code, uniform that of its paper.
        mean, std: of "gaussian", as shares of T: 42 and 5 of 50 steps.
        generator: of the draw.

    Raises:
        ValueError: for another kind, fewer than two steps, or a mean outside (0, 1) or a std below 0.

    Source: AlignProp (arXiv 2310.03739; mihirp1998/AlignProp).

    >>> truncation(50, kind="fixed")
    49
    """
    if kind not in ("gaussian", "uniform", "fixed"):
        raise ValueError(f"kind is 'gaussian', 'uniform' or 'fixed', got {kind!r}")
    if steps < 2 or not (0 < mean < 1 and std >= 0) or (kind == "gaussian" and not 1 <= mean * steps < steps):
        raise ValueError(f"no K with 1 ≤ K < T for T = {steps}, mean {mean} and std {std}")
    if kind == "fixed":
        return steps - 1
    if kind == "uniform":
        return int(torch.randint(1, steps, (), generator=generator))
    while True:
        drawn = int(steps * (mean + std * float(torch.randn((), generator=generator, dtype=torch.float64))))
        if 1 <= drawn < steps:
            return drawn


def last_part(levels: Float[Tensor, "t+1"], share: float) -> Float[Tensor, "p+1"]:
    """The levels of the last ⌊share · T⌋ steps: where an edit begins, and not a whole sample.

    Args:
        levels: of the whole chain.
        share: τ in [0, 1]; 1 is the whole chain, 0 the last level alone, from which no step is taken.

    Raises:
        ValueError: if the share is outside [0, 1].

    Source: InstructVideo (arXiv 2312.12490): reward fine-tuning as editing, τ = 0.6 of 20 steps.

    >>> last_part(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), 0.5)
    tensor([0.5000, 0.2500, 0.0000])
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    steps = len(levels) - 1
    # 0.6 · 20 may fall short of 12 by rounding.
    return levels[steps - int(share * steps + 1e-9) :]


def noised(
    clean: Float[Tensor, "n *d"],
    noise: Float[Tensor, "n *d"],
    level: float | Float[Tensor, "n"],
    *,
    kind: Kind = "ode",
) -> Float[Tensor, "n *d"]:
    r"""A clean sample with noise: (1 − s) x₀ + s e for a flow, √ᾱ x₀ + √(1 − ᾱ) e otherwise. Gradients pass.

    Args:
        clean: x₀.
        noise: e.
        level: s or ᾱ in [0, 1], one number or one per row.
        kind: of `denoising.step`; it says which.

    Raises:
        ValueError: if the shapes differ or a level is outside [0, 1].

    Source: flow matching (arXiv 2210.02747), DDPM (2006.11239).

    >>> noised(torch.tensor([[1.0]]), torch.tensor([[3.0]]), 0.25)
    tensor([[1.5000]])
    """
    signal, amount = _shares(clean, noise, level, kind)
    return signal * clean + amount * noise


def recovered(
    x: Float[Tensor, "n *d"],
    noise: Float[Tensor, "n *d"],
    level: float | Float[Tensor, "n"],
    *,
    kind: Kind = "ode",
) -> Float[Tensor, "n *d"]:
    r"""The clean sample from a sample whose noise is known: (x − s e)/(1 − s), the inverse of `noised`.

    After one step from a sample that was noised on purpose, this is a clean estimate that is sharp at any level, since
    only the step was the policy's.

    Args:
        x: after the step.
        noise: e, what the sample was noised with.
        level: that of x, below pure noise.
        kind: of `denoising.step`.

    Raises:
        ValueError: if the shapes differ, or at pure noise, where nothing of the sample is left.

    Source: the single-step recovery of D²-Align (arXiv 2512.24146, §4), as Direct-Align (2509.06942).

    >>> recovered(torch.tensor([[1.5]]), torch.tensor([[3.0]]), 0.25)
    tensor([[1.]])
    """
    signal, amount = _shares(x, noise, level, kind)
    if not bool((signal > 0).all()):
        raise ValueError("at pure noise (s = 1, ᾱ = 0) nothing of the clean sample is left to recover")
    return (x - amount * noise) / signal


def one_step(policy: Policy, x: Tensor, level: float | Tensor, kind: Kind) -> Tensor:
    """The policy's clean estimate of each row, from where the row is."""
    rows = torch.as_tensor(level, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device).expand(len(x))
    beside = rows.reshape(-1, *[1] * (x.ndim - 1))
    return estimates(x, policy(x, rows), beside, kind)[0]


def _shares(x: Tensor, noise: Tensor, level: float | Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    if x.shape != noise.shape:
        raise ValueError(f"the sample {tuple(x.shape)} and its noise {tuple(noise.shape)} must have one shape")
    rows = torch.as_tensor(level, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    if rows.ndim > 1 or (rows.ndim == 1 and len(rows) != len(x)):
        raise ValueError(f"level is one number or one per row ({len(x)},), got {tuple(rows.shape)}")
    if not bool(((rows >= 0) & (rows <= 1)).all()):
        raise ValueError(f"a level lies between 0 and 1, got {rows.tolist()}")
    rows = rows.expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
    return (1 - rows, rows) if kind in FLOW else (rows.sqrt(), (1 - rows).sqrt())


def _check_chain(x: Tensor, levels: Tensor, kind: Kind, a: float | Tensor, graph_from: int) -> int:
    """The number of steps, if the chain can be run as it is asked for."""
    if levels.ndim != 1 or len(levels) < 1:
        raise ValueError(f"levels must be (t + 1,), one per state, got {tuple(levels.shape)}")
    steps = len(levels) - 1
    wide = levels.to(torch.promote_types(levels.dtype, torch.float32))
    if steps:
        check_levels(wide[:-1], wide[1:], kind)
    amount = torch.as_tensor(a, dtype=torch.float32)
    if amount.shape not in ((), (steps,)):
        raise ValueError(f"a is one number or one per step ({steps},), got {tuple(amount.shape)}")
    check_amount(amount.reshape(-1), kind)
    if not 0 <= graph_from <= steps:
        raise ValueError(f"graph_from must lie between 0 and the {steps} steps of the chain, got {graph_from}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x is not finite: the chain would carry NaN into every weight")
    return steps
