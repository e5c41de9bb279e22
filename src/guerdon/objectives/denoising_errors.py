r"""What a denoiser's errors say: implicit rewards, regression on weighted samples, and latents that a model can tell.

A denoiser that sees a sample more clearly than its reference does has made it more likely: with E the squared error of
the predicted noise and λ = log ᾱ/(1 − ᾱ),

    log p_θ(x₀) / p_ref(x₀) = ½ ∫ E_e[E_ref − E_θ] dλ        for the exact denoisers of p_θ and p_ref

so −β (E_θ − E_ref) at a random level is an implicit reward, for which `pair_loss`, `unpaired_loss`, `ranked_loss` and
`group_margins` are the heads. Levels are those of `denoising.step`: s of a flow, ᾱ of a diffusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.ratio import safe_exp

Predict = Literal["velocity", "noise", "v", "clean"]
Policy = Callable[..., Tensor]  # (x: "n *d", time: "n", **condition) -> "n *d"


class Errors(NamedTuple):
    """Squared errors of a policy and its reference on the same noised samples.

    Args:
        policy: Float["n"], with gradients.
        reference: Float["n"], without.
    """

    policy: Float[Tensor, "n"]
    reference: Float[Tensor, "n"]


def noised(
    clean: Float[Tensor, "n *d"],
    noise: Float[Tensor, "n *d"],
    level: Float[Tensor, "n"],
    *,
    predict: Predict = "velocity",
) -> tuple[Float[Tensor, "n *d"], Float[Tensor, "n *d"]]:
    r"""A sample with noise, and what a denoiser should say of it.

        velocity   x = (1 − s) x₀ + s e           e − x₀          flow matching, level s ∈ (0, 1]
        noise      x = √ᾱ x₀ + √(1 − ᾱ) e         e               diffusion, level ᾱ ∈ (0, 1)
        v          the same                       √ᾱ e − √(1 − ᾱ) x₀
        clean      the same                       x₀

    Args:
        clean: x₀.
        noise: e.
        level: one per row.
        predict: what the denoiser says.

    Returns:
        x and the target, in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit, a sample is not finite, or a level is out of range: without noise there
            is none to predict.

    Source: flow matching (arXiv 2210.02747), DDPM (2006.11239); v: progressive distillation (2202.00512).

    >>> x, target = noised(torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([0.25]))
    >>> x, target
    (tensor([[1.5000]]), tensor([[2.]]))
    """
    if predict not in get_args(Predict):
        raise ValueError(f"predict is one of {', '.join(get_args(Predict))}, got {predict!r}")
    if clean.shape != noise.shape or level.shape != clean.shape[:1]:
        shapes = [tuple(x.shape) for x in (clean, noise, level)]
        raise ValueError(f"clean and noise must have one shape (n, …) and level (n,), got {shapes}")
    if not torch.isfinite(clean).all() or not torch.isfinite(noise).all():
        raise ValueError("clean and noise must be finite: a latent is NaN or infinite")
    end = level <= 1 if predict == "velocity" else level < 1
    if not ((level > 0) & end).all():
        raise ValueError(f"level must be in (0, 1{']' if predict == 'velocity' else ')'}: {level.tolist()}")
    wide = torch.promote_types(clean.dtype, torch.float32)
    clean, noise, at = clean.to(wide), noise.to(wide), _beside(level, clean).to(wide)
    if predict == "velocity":
        return (1 - at) * clean + at * noise, noise - clean
    x = at.sqrt() * clean + (1 - at).sqrt() * noise
    if predict == "noise":
        return x, noise
    return x, clean if predict == "clean" else at.sqrt() * noise - (1 - at).sqrt() * clean


def errors(
    policy: Policy,
    reference: Policy | None,
    clean: Float[Tensor, "n *d"],
    noise: Float[Tensor, "n *d"],
    level: Float[Tensor, "n"],
    *,
    predict: Predict = "velocity",
    reduce: Literal["mean", "sum"] = "mean",
    times: Tensor | None = None,
    condition: Mapping[str, Tensor] | None = None,
    ref_condition: Mapping[str, Tensor] | None = None,
) -> Errors:
    """Both models' squared errors at the same noise and level.

    The rows of a pair or group should share noise and level (`shared`), so that what they differ in is the sample.

    Args:
        policy: called as policy(x, time, **condition).
        reference: the same of the frozen model; None: its errors are 0.
        clean, noise, level, predict: see `noised`.
        reduce: the mean over the elements of a sample, which does not grow with its size, or the sum, which is the
            unit of log-likelihoods. A reward scale β belongs to one of them.
        times: what the models are told instead of the level: numbers of training steps, say.
        condition: tensors with one entry per row.
        ref_condition: those of the reference where they differ: a user that only the policy knows.

    Raises:
        ValueError: as `noised`, before a model is called; or if an output has another shape than its sample.

    Source: Diffusion-DPO (arXiv 2311.12908), mean of the noise; Flow-DPO (2501.13918), sum of the velocity.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce is 'mean' or 'sum', got {reduce!r}")
    x, target = noised(clean, noise, level, predict=predict)
    told, given = level if times is None else times, condition or {}
    error = _error(policy(x, told, **given), target, reduce)
    if reference is None:
        return Errors(error, torch.zeros_like(error))
    with torch.no_grad():
        other = _error(reference(x, told, **(given if ref_condition is None else ref_condition)), target, reduce)
    return Errors(error, other)


def implicit_scores(pair: Errors, *, beta: float | Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    r"""s = −β (E_θ − E_ref), how much more likely the policy has made a sample; 0 where it is its reference.

    Args:
        pair: the errors of both models.
        beta: β > 0, or one per row, a function of the level. It holds all that sources write apart: β T w(λ) of
            Diffusion-DPO; half of the β of Flow-DPO and of InPO.

    Raises:
        ValueError: if the shapes differ, or a β is negative.

    Source: Diffusion-DPO (arXiv 2311.12908), VideoAlign (2501.13918; a constant β is better there than β (1 − s)²),
    GDRO (2601.02036), DDIM-InPO (2503.18454).

    >>> implicit_scores(Errors(torch.tensor([0.48, 0.53]), torch.tensor([0.5, 0.5])), beta=50.0)
    tensor([ 1.0000, -1.5000])
    """
    error, reference = pair
    scale = torch.as_tensor(beta, dtype=error.dtype, device=error.device)
    if error.shape != reference.shape or scale.shape not in ((), error.shape):
        shapes = [tuple(x.shape) for x in (error, reference, scale)]
        raise ValueError(f"the errors must have one shape (n,) and beta be a number or (n,), got {shapes}")
    if not (scale >= 0).all():
        raise ValueError(f"beta must not be negative, got {beta}")
    return -scale * (error - reference.detach())


def shared(draws: Float[Tensor, "n *d"], groups: Int[Tensor, "n"]) -> Float[Tensor, "n *d"]:
    """Each row's draw replaced by that of the first row of its group: one noise, or one level, for all of a group.

    Source: the shared t and noise of Flow-DPO (arXiv 2501.13918) and DGPO (Luo-Yihong/DGPO).

    >>> shared(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([7, 5, 7]))
    tensor([1., 2., 1.])
    """
    if groups.shape != draws.shape[:1]:
        raise ValueError(f"groups must be {tuple(draws.shape[:1])}, got {tuple(groups.shape)}")
    _, index = torch.unique(groups, return_inverse=True)
    rows = torch.arange(len(groups), device=groups.device)
    first = torch.full_like(rows, len(rows)).scatter_reduce(0, index, rows, "amin")
    return draws[first[index]]


def weighted_regression(
    errors: Float[Tensor, "n"],
    rewards: Float[Tensor, "n"] | None = None,
    *,
    temperature: float = 1.0,
    groups: Int[Tensor, "n"] | None = None,
    weight: Float[Tensor, "n"] | None = None,
    mask: Bool[Tensor, "n"] | None = None,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Denoise what earned much more than what earned little: the mean of e^{r/τ} E.

    Its optimum is the data tilted by the reward, p(x) e^{r(x)/τ}.

    Args:
        errors: E of the policy; gradients pass.
        rewards: r, any real unit; a constant on all only scales the loss. None: all 0, plain denoising.
        temperature: τ > 0, in the unit of the rewards.
        groups: divide the weights by their mean over a prompt's rows, so that prompts whose rewards are high do not
            outweigh the others; default: as the source, not.
        weight: a further weight of each row: 1 for a group's best and 0 else (`data.rank_weights`) anchors it.
        mask: False where the reward abstained.
        denominator: the number of rows of the whole batch, where this is a part of it; by default those of `mask`.

    Returns:
        The loss, 0 without rows; and sums, detached: "rows", "weight" and "error".

    Raises:
        ValueError: if the shapes differ, or τ ≤ 0.

    Source: reward-weighted regression (Peters and Schaal, 2007); Flow-RWR in VideoAlign (arXiv 2501.13918).

    >>> round(weighted_regression(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]))[0].item(), 4)  # (1 + e)/2
    1.8591
    """
    rewards = torch.zeros_like(errors) if rewards is None else rewards
    here = torch.ones_like(errors, dtype=torch.bool) if mask is None else mask
    extra = torch.ones_like(errors) if weight is None else weight
    one = torch.zeros_like(here, dtype=torch.long) if groups is None else groups
    if not errors.shape == rewards.shape == here.shape == extra.shape == one.shape or errors.ndim != 1:
        shapes = [tuple(x.shape) for x in (errors, rewards, here, extra, one)]
        raise ValueError(f"errors, rewards, mask, weight and groups must have one shape (n,), got {shapes}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    wide = torch.promote_types(errors.dtype, torch.float32)
    errors = torch.where(here, errors.to(wide), 0.0)
    exponent = torch.where(here, rewards.detach().to(wide) / temperature, -torch.inf)
    if groups is None:
        weights = torch.where(here, safe_exp(torch.where(here, exponent, 0.0)), 0.0)
    else:
        _, index = torch.unique(one, return_inverse=True)
        low = torch.full((len(errors),), -torch.inf, dtype=wide, device=errors.device)
        peak = low.scatter_reduce(0, index, exponent, "amax")[index]
        weights = torch.where(here, (exponent - torch.where(here, peak, 0.0)).exp(), 0.0)
        total, size = (torch.zeros_like(low).index_add(0, index, x.to(wide))[index] for x in (weights, here))
        weights = weights * size / torch.where(total > 0, total, 1.0)
    weights = torch.where(here, weights * extra.detach().to(wide), 0.0)
    count = here.sum().to(wide)
    loss = (weights * errors).sum() / (count.clamp(min=1) if denominator is None else denominator)
    return loss, {"rows": count, "weight": weights.sum(), "error": errors.detach().sum()}


class Inverted(NamedTuple):
    """Latents that a model itself ties to clean samples.

    Args:
        latent: Float["n *d"], x_t.
        noise: Float["n *d"], the noise that makes it of the clean sample: `noised(clean, noise, ᾱ)` is the latent.
        mask: Bool["n"], False where nothing was inverted and the noise means nothing.
    """

    latent: Float[Tensor, "n *d"]
    noise: Float[Tensor, "n *d"]
    mask: Bool[Tensor, "n"]


@torch.no_grad()
def invert(
    policy: Policy,
    clean: Float[Tensor, "n *d"],
    times: Int[Tensor, "n"],
    alphas: Float[Tensor, "k"],
    *,
    every: int = 100,
    offset: int = 1,
    jitter: float = 0.1,
    ends: Literal["time", "grid"] = "time",
    condition: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Inverted:
    r"""Where a sample comes from: DDIM run backwards, from the clean sample to its own time t.

        x ← √ᾱ_τ x̂₀ + √(1 − ᾱ_τ) e_θ(x, τ)        τ = offset, offset + every, … below t, and then t
        e = (x_t − √ᾱ_t x₀) / √(1 − ᾱ_t)

    Random noise makes latents that other samples explain as well; the error on an inverted one is the model's own, and
    smaller. Latents change with the policy, so they are made again for each update. Takes at most one call of the
    policy, of all rows, for each τ up to the latest t.

    Args:
        policy: says the noise; called as policy(x, time, **condition) with one time per row.
        clean: x₀.
        times: t of each row, numbers of training steps; a pair shares one.
        alphas: ᾱ of each training step, falling.
        every: training steps between two τ: 100 of 1000 is a schedule of 10 steps.
        offset: the first τ.
        jitter: noise beside each step, in standard deviations of DDPM's step to the next τ; at 0 the inversion is
            deterministic.
        ends: at t ("time"), or at the last τ below it ("grid"), as the source, where a row with t ≤ offset
            has gone nowhere.
        condition: tensors with one entry per row.
        generator: of the jitter.

    Raises:
        ValueError: if a time is none of the training steps, the shapes do not fit, a sample is not finite, ᾱ is not
            falling within (0, 1), or an option is out of range; before the policy is called.

    Source: DDIM-InPO (arXiv 2503.18454; JaydenLyh/InPO), whose jitter reads beyond the last training step: there ours
    stays at the last; the step: DDIM (2010.02502).
    """
    _check_inversion(clean, times, alphas, every, offset, jitter, ends)
    wide = torch.promote_types(clean.dtype, torch.float32)
    alphas, start = alphas.to(clean.device, wide), clean.to(wide)
    x, level = start, torch.ones_like(times, dtype=wide)
    end, given = int(times.max()) if len(times) else -1, condition or {}
    for tau in [*range(offset, end, every), *([end] if ends == "time" and end >= 0 else [])]:
        # A row goes on to τ, or to its own time where that comes first, and then stays.
        at = torch.minimum(times.new_tensor(tau), times) if ends == "time" else times.new_full(times.shape, tau)
        to = alphas[at]
        going = to < level if ends == "time" else tau < times
        said = policy(x, at, **given)
        if said.shape != x.shape:
            raise ValueError(f"the policy's noise {tuple(said.shape)} must have the shape of its sample {x.shape}")
        here, there = _beside(level, x), _beside(to, x)
        guess = (x - (1 - here).sqrt() * said) / here.sqrt()
        moved = there.sqrt() * guess + (1 - there).sqrt() * said
        if jitter:
            beyond = alphas[(at + every).clamp(max=len(alphas) - 1)]
            spread = ((1 - to) / (1 - beyond) * (1 - beyond / to)).clamp(min=0).sqrt()
            fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            moved = moved + jitter * _beside(spread, x) * fresh
        x = torch.where(_beside(going, x), moved, x)
        level = torch.where(going, to, level)
    own = _beside(alphas[times], x)
    return Inverted(x, (x - own.sqrt() * start) / (1 - own).sqrt(), level < 1)


def guided_velocity(
    velocity: Float[Tensor, "n *d"],
    x: Float[Tensor, "n *d"],
    level: Float[Tensor, "n"],
    reward: Callable[[Tensor, Tensor], Tensor],
    *,
    weight: float | Float[Tensor, "k"] = 1.0,
) -> Float[Tensor, "n *d"]:
    r"""The velocity of the flow to the tilted data, by the gradient of a reward of noisy samples; nothing is trained.

        ṽ = v − w s/(1 − s) ∇ₓ r(x, s)        ṽ = v at s = 1

    Exact for w = 1 if r(x, s) = log E[e^{r(x₀)} | x_s = x]: the flow then ends in p(x₀) e^{r(x₀)}. A reward model
    trained on noisy latents stands for it.

    Args:
        velocity: v of the model at x; goes out in its dtype.
        x: the samples.
        level: s of each, in [0, 1].
        reward: (x, s) -> one reward per row, or "n k" in several dimensions; of one row it must read that row alone.
        weight: w, or one for each dimension, which may be chosen anew for every sample.

    Raises:
        ValueError: if the shapes do not fit, a level is out of range, or the reward has no gradient by x.

    Source: Flow-NRG of VideoAlign (arXiv 2501.13918).

    >>> x, v = torch.tensor([[1.0], [1.0]]), torch.zeros(2, 1)
    >>> guided_velocity(v, x, torch.tensor([0.5, 1.0]), lambda x, s: 3 * x[:, 0], weight=0.5)
    tensor([[-1.5000],
            [ 0.0000]])
    """
    if velocity.shape != x.shape or level.shape != x.shape[:1]:
        shapes = [tuple(y.shape) for y in (velocity, x, level)]
        raise ValueError(f"velocity and x must have one shape (n, …) and level (n,), got {shapes}")
    if not ((level >= 0) & (level <= 1)).all():
        raise ValueError(f"level must be in [0, 1]: {level.tolist()}")
    with torch.enable_grad():
        point = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
        rewards = reward(point, level)
        weights = torch.as_tensor(weight, dtype=rewards.dtype, device=rewards.device)
        if rewards.shape[:1] != x.shape[:1] or weights.shape not in ((), rewards.shape[1:]) or rewards.ndim > 2:
            shapes = [tuple(y.shape) for y in (rewards, weights)]
            raise ValueError(f"rewards must be (n,) or (n, k) and weight a number or (k,), got {shapes}")
        if not rewards.requires_grad:
            raise ValueError("reward has no gradient by x: guidance needs one that is differentiable")
        (slope,) = torch.autograd.grad((weights * rewards).sum(), point)
    last = level == 1
    factor = torch.where(last, 0.0, level / torch.where(last, 1.0, 1 - level))
    return velocity - (_beside(factor, x) * slope).to(velocity.dtype)


def _error(output: Tensor, target: Tensor, reduce: str) -> Tensor:
    if output.shape != target.shape:
        raise ValueError(f"the output {tuple(output.shape)} must have the shape of its sample {tuple(target.shape)}")
    squared = ((output.to(target.dtype) - target) ** 2).flatten(1)
    return squared.mean(1) if reduce == "mean" else squared.sum(1)


def _beside(row: Tensor, x: Tensor) -> Tensor:
    """One number per row, to be combined with samples of any shape."""
    return row.reshape(-1, *(1,) * (x.ndim - 1))


def _check_inversion(
    clean: Tensor, times: Tensor, alphas: Tensor, every: int, offset: int, jitter: float, ends: str
) -> None:
    if times.shape != clean.shape[:1] or alphas.ndim != 1 or times.is_floating_point():
        shapes = [tuple(x.shape) for x in (clean, times, alphas)]
        raise ValueError(f"clean must be (n, …), times whole numbers (n,) and alphas (k,), got {shapes}")
    if ((times < 0) | (times >= len(alphas))).any():
        raise ValueError(f"times must be training steps from 0 to {len(alphas) - 1}, got {times.tolist()}")
    if not ((alphas > 0) & (alphas < 1)).all() or not (alphas.diff() < 0).all():
        raise ValueError("alphas must fall within (0, 1): ᾱ of each training step, from clean to noise")
    if not torch.isfinite(clean).all():
        raise ValueError("clean must be finite: a latent is NaN or infinite")
    if every < 1 or offset < 0 or not jitter >= 0 or ends not in ("time", "grid"):
        raise ValueError(
            "every must be at least 1, offset and jitter not negative and ends 'time' or 'grid', got "
            f"{every}, {offset}, {jitter} and {ends!r}"
        )
