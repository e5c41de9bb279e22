"""A denoising chain that keeps its graph, as much of it as is asked for."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as checkpointed

from guerdon.objectives.denoising.chain import Chain
from guerdon.objectives.denoising.chains import Condition, Policy
from guerdon.objectives.denoising.steps import FLOW, Kind, estimates, step


def denoise(
    policy: Policy,
    noise: Float[Tensor, "n *d"],
    chain: Chain,
    *,
    graph_from: int = 0,
    checkpoint: bool = True,
    condition: Condition | None = None,
    generator: torch.Generator | None = None,
    draws: Float[Tensor, "n t *d"] | None = None,
) -> Float[Tensor, "n *d"]:
    r"""The sample at the end of a chain, as `denoising.sample` makes it, with the graph of its last steps.

        x ← step(x, policy(x, lᵢ), lᵢ, lᵢ₊₁)        i < graph_from: the policy's output is a constant

    The gradient through all steps is long, and costs the memory of all of them. Cut off, it is that of the last steps
    given the sample they began at; with one step left it is the gradient of the last step alone. What is linear in x
    stays: if the noise asks for a gradient, it has one.

    Args:
        policy: called as policy(x, time, **condition), as by `denoising.sample`; guidance by a prompt is inside of it.
            Which of its parameters are trained, all or LoRA's, is the user's.
        noise: where the chain begins; also any later sample (`noised`), with the part of a chain that begins there.
        chain: the levels, and how much noise.
        graph_from: K, how many steps come before the first with a graph; from `truncation`.
        checkpoint: compute the policy again when the gradient passes, instead of keeping what it computed: a chain of
            twenty steps then needs the memory of one, at the time of one more forward.
        condition: tensors with one entry per row.
        generator: of the noise of stochastic steps.
        draws: that noise itself, instead.

    Returns:
        The samples at the last level, in float32 or wider. Without steps (one level), the samples as they are.

    Raises:
        ValueError: before the policy is called, for a graph_from outside of the chain, samples that are not finite, or
            shapes that do not fit.

    Source: AlignProp (arXiv 2310.03739), DRaFT (2309.17400); checkpoints: Chen et al. (1604.06174).

    >>> denoise(lambda x, time: x, torch.tensor([[8.0]]), Chain(torch.tensor([1.0, 0.5, 0.0]), "ode"))
    tensor([[2.]])
    """
    n, steps = len(noise), len(chain)
    if not 0 <= graph_from <= steps:
        raise ValueError(f"graph_from must lie between 0 and the {steps} steps of the chain, got {graph_from}")
    if not bool(torch.isfinite(noise).all()):
        raise ValueError("the samples a chain begins at are not finite: they would carry NaN into every weight")
    if draws is not None and draws.shape != (n, steps, *noise.shape[1:]):
        raise ValueError(f"draws must be {(n, steps, *noise.shape[1:])}, one per step, got {tuple(draws.shape)}")
    if chain.amount.ndim == 2 and len(chain.amount) != n:
        raise ValueError(f"the chain's a has {len(chain.amount)} rows, there are {n} samples")
    given = dict(condition or {})
    asked = partial(policy, **given)
    for name, value in given.items():
        if len(value) != n:
            raise ValueError(f"condition {name!r} has {len(value)} rows, there are {n} samples")
    x = noise.to(torch.promote_types(noise.dtype, torch.float32))
    levels, amount = chain.levels.to(x), chain.amount.to(x)
    told = levels if chain.times is None else chain.times.to(x.device)
    for i in range(steps):
        if i < graph_from:
            with torch.no_grad():
                output = asked(x, told[i].expand(n)).detach()
        elif checkpoint and torch.is_grad_enabled():
            output = checkpointed(asked, x, told[i].expand(n), use_reentrant=False)
        else:
            output = asked(x, told[i].expand(n))
        taken = step(x, output, levels[i], levels[i + 1], kind=chain.kind, a=amount[..., i])
        if chain.kind == "ode":
            x = taken.mean
        elif draws is not None:
            x = taken.draw(draws[:, i].to(x))
        else:
            x = taken.draw(torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device))
    return x


def one_step(
    policy: Policy,
    x: Float[Tensor, "n *d"],
    level: float | Float[Tensor, "n"],
    *,
    kind: Kind = "ode",
    time: Float[Tensor, "n"] | None = None,
    condition: Condition | None = None,
) -> Float[Tensor, "n *d"]:
    r"""The clean sample that the policy sees from where a sample is: x̂₀ of `denoising.estimates`, with gradients.

    Its error grows with the level: an error of the noise is one of √((1 − ᾱ)/ᾱ) of the clean sample.

    Args:
        policy: as for `denoise`.
        x: samples.
        level: s or ᾱ of each.
        kind: of `denoising.step`.
        time: what the policy is told, where that is not the level.
        condition: tensors with one entry per row.

    Source: ControlNet++ (arXiv 2404.07987, eq. 8).

    >>> one_step(lambda x, time: x, torch.tensor([[8.0]]), 0.25)
    tensor([[6.]])
    """
    rows = torch.as_tensor(level, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device).expand(len(x))
    output = policy(x, rows if time is None else time, **dict(condition or {}))
    return estimates(x, output, rows.reshape(-1, *[1] * (x.ndim - 1)), kind)[0]


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


def last_part(chain: Chain, share: float) -> Chain:
    """The last ⌊share · T⌋ steps of a chain: where an edit begins, and not a whole sample.

    Args:
        chain: the whole of it.
        share: τ in [0, 1]; 1 is the whole chain, 0 its last level alone, from which no step is taken.

    Raises:
        ValueError: if the share is outside [0, 1].

    Source: InstructVideo (arXiv 2312.12490): reward fine-tuning as editing, τ = 0.6 of 20 steps.

    >>> last_part(Chain(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), "ode"), 0.5).levels
    tensor([0.5000, 0.2500, 0.0000])
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    # 0.6 · 20 may fall short of 12 by rounding.
    return chain[len(chain) - int(share * len(chain) + 1e-9) :]


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
