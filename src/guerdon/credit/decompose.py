"""Returns decomposed by learning: a model of step rewards of which only sums are observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Factors = Callable[[Any, Any], Sequence[Any]]


def sum_loss(rewards: Float[Tensor, "n s"], totals: Float[Tensor, "n"], mask: Bool[Tensor, "n s"]) -> Float[Tensor, ""]:
    r"""The squared error of the sum of step rewards against the return: meanᵢ (Σₜ cᵢₜ − Rᵢ)².

    Args:
        rewards: c, predicted; the unit of the returns. Differentiable in them.
        totals: R, observed.
        mask: True where the step exists. Rollouts without steps are left out.

    Returns:
        A scalar, in the squared unit of the returns; 0 if there is nothing to fit.

    Raises:
        ValueError: if the shapes do not fit.

    Source: progress attribution of SPA-RL (arXiv 2505.20732).

    >>> sum_loss(torch.tensor([[0.25, 0.5]]), torch.tensor([1.0]), torch.ones(1, 2, dtype=torch.bool))
    tensor(0.0625)
    """
    _check(rewards, totals, mask)
    present = mask.any(1)
    error = torch.where(present, torch.where(mask, rewards, 0).sum(1) - torch.where(present, totals, 0), 0)
    return (error**2).sum() / present.sum().clamp(min=1)


def sampled_loss(
    rewards: Float[Tensor, "n k"],
    totals: Float[Tensor, "n"],
    lengths: Int[Tensor, "n"],
    mask: Bool[Tensor, "n k"],
    *,
    unbiased: bool = False,
) -> Float[Tensor, ""]:
    r"""The same fit from a few sampled steps of each rollout, for rollouts too long to go through whole.

        L = meanᵢ (Rᵢ / Tᵢ − mean_k rᵢₖ)²        unbiased: − (1 − K/Tᵢ) Var_k(rᵢₖ) / K

    The mean of a sample has a variance of its own, which the plain form takes for error and so draws all rewards of a
    rollout together. The correction makes it the loss of the whole rollout in expectation.

    Args:
        rewards: r, predicted at the steps that `sample_steps` drew. Differentiable in them.
        totals: R, observed.
        lengths: T, how many steps each rollout has.
        mask: True where a step was drawn. Rollouts without one are left out.
        unbiased: with the correction; sample variance with ddof 1. Rollouts of which a single step was drawn have no
            variance and stay uncorrected; of those with more draws than steps, drawn with replacement, K/T is 0.

    Returns:
        A scalar, in the squared unit of the rewards; the corrected form can be negative.

    Raises:
        ValueError: if the shapes do not fit, or a rollout with draws has no length.

    Source: LaRe (arXiv 2412.11120; thu-rllab/LaRe) after randomised return decomposition, RRD (2111.13485).

    >>> sampled_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([2.0]), torch.tensor([4]), torch.ones(1, 2) > 0)
    tensor(0.)
    """
    _check(rewards, totals, mask)
    if lengths.shape != totals.shape:
        raise ValueError(f"lengths must be {tuple(totals.shape)} like totals, got {tuple(lengths.shape)}")
    present = mask.any(1)
    if bool((present & (lengths < 1)).any()):
        raise ValueError(f"lengths: row {int((present & (lengths < 1)).nonzero()[0])} has draws and no steps")
    drawn = mask.sum(1)
    mean = torch.where(mask, rewards, 0).sum(1) / drawn.clamp(min=1)
    loss = torch.where(present, torch.where(present, totals, 0) / lengths.clamp(min=1) - mean, 0) ** 2
    if unbiased:
        deviation = torch.where(mask, rewards - mean[:, None], 0)
        variance = (deviation**2).sum(1) / (drawn - 1).clamp(min=1)
        unseen = torch.where(drawn > lengths, 1.0, 1 - drawn / lengths.clamp(min=1))
        loss = loss - torch.where(drawn > 1, unseen * variance / drawn.clamp(min=1), 0)
    return loss.sum() / present.sum().clamp(min=1)


@torch.no_grad()
def sample_steps(
    mask: Bool[Tensor, "n s"], count: int, *, generator: torch.Generator | None = None
) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """Steps of each rollout for `sampled_loss`: without replacement if it has enough of them, else with.

    Args:
        mask: True where the step exists.
        count: K ≥ 1, how many to draw.
        generator: where the randomness comes from; by default the global one.

    Returns:
        Their indices, and which were drawn: none of a rollout without steps.

    Raises:
        ValueError: if `mask` is not (n, s), or K < 1.

    Source: LaRe (arXiv 2412.11120): K = 64, and 10 for several agents.
    """
    if mask.ndim != 2 or count < 1:
        raise ValueError(f"mask must be (n, s) and count at least 1, got {tuple(mask.shape)} and {count}")
    n, s = mask.shape
    if not s:
        return mask.new_zeros(n, count, dtype=torch.long), mask.new_zeros(n, count)
    keys = torch.rand(n, max(s, count), generator=generator, device=mask.device)
    lengths = mask.sum(1, keepdim=True)
    shuffled = torch.where(mask, keys[:, :s], 2.0).argsort(1)  # the steps there are, in random order, then the others
    again = (keys[:, :count] * lengths).long().clamp(max=s - 1)
    place = torch.arange(count, device=mask.device).clamp(max=s - 1)
    chosen = torch.where(lengths >= count, place, again)
    return shuffled.gather(1, chosen), (lengths > 0).expand(n, count)


def latent_factors(
    phi: Factors, states: Float[Tensor, "n s d"], actions: Float[Tensor, "n s e"], mask: Bool[Tensor, "n s"]
) -> Float[Tensor, "n s f"]:
    """The factors that a function reads off states and actions, checked one by one.

    `phi` runs in this process: what a language model wrote goes through the sandbox first. The messages of the errors
    are what its author needs to mend it.

    Args:
        phi: from NumPy arrays (B, d) and (B, e) to a list of arrays (B, 1), one per factor.
        states: of each step.
        actions: of each step.
        mask: True where the step exists; the others are not shown to `phi`.

    Returns:
        The factors of each step, 0 where there is none.

    Raises:
        ValueError: if shapes differ, `phi` raises, or a factor is not a finite array (B, 1); says which.

    Source: the self-verification of LaRe (arXiv 2412.11120), where each factor of a dummy batch must be (2, 1).

    >>> inputs = torch.ones(1, 2, 3), torch.zeros(1, 2, 1)
    >>> latent_factors(lambda s, a: [s[:, :1], a], *inputs, torch.ones(1, 2, dtype=torch.bool))
    tensor([[[1., 0.],
             [1., 0.]]])
    """
    if states.ndim != 3 or actions.ndim != 3 or not states.shape[:2] == actions.shape[:2] == mask.shape:
        raise ValueError(
            f"states {tuple(states.shape)} and actions {tuple(actions.shape)} must be (n, s, …) "
            f"beside mask {tuple(mask.shape)}"
        )
    shown = states[mask].detach().cpu().numpy(), actions[mask].detach().cpu().numpy()
    batch = len(shown[0])
    try:
        found = phi(*shown)
    except Exception as error:
        raise ValueError(f"phi failed on {batch} steps: {type(error).__name__}: {error}") from error
    if not isinstance(found, (list, tuple)) or not found:
        raise ValueError(f"phi must return a list of arrays ({batch}, 1), got {type(found).__name__}")
    columns = []
    for number, factor in enumerate(found):
        try:
            column = torch.as_tensor(factor, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"factor {number} is not an array of numbers: {error}") from error
        if column.shape != (batch, 1):
            raise ValueError(f"factor {number} must be ({batch}, 1), got {tuple(column.shape)}")
        if not bool(column.isfinite().all()):
            raise ValueError(f"factor {number} is not finite at step {int((~column.isfinite()).nonzero()[0, 0])}")
        columns.append(column)
    factors = torch.zeros(*mask.shape, len(columns), device=states.device)
    factors[mask] = torch.cat(columns, 1).to(states.device)
    return factors


def fit_steps(
    features: Float[Tensor, "n s d"],
    totals: Float[Tensor, "n"],
    mask: Bool[Tensor, "n s"],
    *,
    hidden: Sequence[int] = (),
    samples: int | None = None,
    unbiased: bool = False,
    updates: int = 500,
    lr: float = 3e-4,
    seed: int = 0,
) -> nn.Module:
    """Learn step rewards from features of the steps and the returns of whole rollouts.

    Args:
        features: of each step: hidden states, latent factors; not read where masked.
        totals: the return of each rollout.
        mask: True where the step exists.
        hidden: widths of the layers between features and reward; none is a linear model.
        samples: fit on this many sampled steps of each rollout (`sampled_loss`) and not on all (`sum_loss`).
        unbiased: of `sampled_loss`.
        updates: of Adam, each on all rollouts.
        lr: its learning rate.
        seed: of the initial weights and the samples; the global generator is left as it was.

    Returns:
        A module from features (…, d) to rewards (…, 1).

    Raises:
        ValueError: if the shapes do not fit or an option is out of range.

    Source: SPA-RL (arXiv 2505.20732), a linear map fitted by the sum; LaRe (2412.11120), three layers of 256 fitted by
    64 sampled steps, Adam at 3e-4.
    """
    if features.ndim != 3 or features.shape[:2] != mask.shape:
        raise ValueError(f"features must be (n, s, d) beside mask {tuple(mask.shape)}, got {tuple(features.shape)}")
    _check(features[:, :, 0] if features.shape[2] else mask.float(), totals, mask)
    if updates < 0 or not lr > 0 or not features.shape[2]:
        raise ValueError(f"updates {updates} must not be negative, lr {lr} positive, and features at least one")
    known = torch.where(mask[:, :, None], features.detach(), 0).float()
    targets, lengths = totals.detach().float(), mask.sum(1)
    widths = [features.shape[2], *hidden]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(widths[-1], 1)).to(features.device)
    generator = torch.Generator(features.device).manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(updates):
        if samples is None:
            loss = sum_loss(model(known)[:, :, 0], targets, mask)
        else:
            steps, drawn = sample_steps(mask, samples, generator=generator)
            chosen = known.gather(1, steps[:, :, None].expand(-1, -1, known.shape[2]))
            loss = sampled_loss(model(chosen)[:, :, 0], targets, lengths, drawn, unbiased=unbiased)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


def _check(rewards: Tensor, totals: Tensor, mask: Tensor) -> None:
    if rewards.ndim != 2 or rewards.shape != mask.shape or totals.shape != mask.shape[:1]:
        raise ValueError(
            f"rewards {tuple(rewards.shape)} and mask {tuple(mask.shape)} need one shape (n, …), "
            f"totals {tuple(totals.shape)} one number per row"
        )
