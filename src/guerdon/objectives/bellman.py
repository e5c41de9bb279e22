"""Token-level Q-learning from a language model: its logits are the advantages, a value head the rest."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.objectives.value import clipped_value_loss


def dueling(
    logits: Float[Tensor, "n t v"],
    values: Float[Tensor, "n t"],
    ids: Int[Tensor, "n t"],
    *,
    scale: float = 1.0,
) -> Float[Tensor, "n t"]:
    r"""Q of the chosen tokens: Q(s, a) = V(s) + α (l_a − max l).

    The advantage of the likeliest token is 0, and softmax(Q/α) is the language model itself: a pretrained model with
    V = 0 is a Q-function to start from.

    Args:
        logits: of the model, before each token.
        values: V, before each token.
        ids: the tokens whose Q is asked for.
        scale: α > 0, the temperature of the policy softmax(Q/α), in the unit of the values.

    Returns:
        Q, in the unit of the values, with gradients in logits and values.

    Raises:
        ValueError: if the shapes do not fit, or α ≤ 0.

    Source: B-Coder (arXiv 2310.03173, §4.1).

    >>> dueling(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[0.5]]), torch.tensor([[0]]))
    tensor([[-1.5000]])
    """
    _check_shapes(logits, values=values, ids=ids)
    return values + _advantages(logits, ids, scale)


def conservative_targets(
    rewards: Float[Tensor, "n t"],
    greedy_q: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    discount: float = 1.0,
) -> Float[Tensor, "n t"]:
    r"""The conservative Bellman operator on sampled tokens: r + γ Q(s', argmaxₐ q(a | s')).

    q is the frozen language model, so the maximum is never taken over what is being learned, which would pick its
    errors. A γ-contraction; its fixed point is the Q of the model's greedy policy.

    Args:
        rewards: r of each token; 0 but at the last, for a reward of the whole program.
        greedy_q: Q(s, argmaxₐ q(a | s)) at the state before each token: `dueling` with the frozen model's likeliest
            tokens as `ids`.
        mask: True at the written tokens; the next state is that before the next written one.
        discount: γ in [0, 1].

    Returns:
        Targets, without gradient; 0 where masked. After the last written token nothing follows.

    Raises:
        ValueError: if the shapes differ, or γ is outside [0, 1].

    Source: B-Coder (arXiv 2310.03173, §4.2); γ = 1 is our reading, it is not stated.

    >>> conservative_targets(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 0.5]]), torch.tensor([[True, True]]))
    tensor([[0.5000, 1.0000]])
    """
    if not rewards.shape == greedy_q.shape == mask.shape or mask.ndim != 2:
        shapes = [tuple(x.shape) for x in (rewards, greedy_q, mask)]
        raise ValueError(f"rewards, greedy_q and mask must be (n, t) alike, got {shapes}")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must be in [0, 1], got {discount}")
    wide = torch.promote_types(torch.promote_types(rewards.dtype, greedy_q.dtype), torch.float32)
    t = mask.shape[1]
    positions = torch.where(mask, torch.arange(t, device=mask.device), t)
    positions = torch.nn.functional.pad(positions, (0, 1), value=t)
    following = positions.flip(1).cummin(1).values.flip(1)[:, 1:]
    greedy_q = torch.nn.functional.pad(torch.where(mask, greedy_q.detach().to(wide), 0.0), (0, 1))
    return torch.where(mask, rewards.detach().to(wide) + discount * greedy_q.gather(1, following), 0.0)


def recovered_rewards(
    q: Float[Tensor, "n t"],
    greedy_q: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    discount: float = 1.0,
) -> Float[Tensor, "n t"]:
    r"""The reward that a Q-function implies: r̃ = Q(s, a) − γ Q(s', argmaxₐ q(a | s')), the operator inverted.

    Summed over a program's tokens it ranks candidates without running them. Exact where Q is.

    Args:
        q: Q of the written tokens, from `dueling`.
        greedy_q, mask, discount: as for `conservative_targets`.

    Returns:
        Rewards per token; 0 where masked.

    Raises:
        ValueError: as `conservative_targets`.

    Source: B-Coder (arXiv 2310.03173, §4.4).

    >>> recovered_rewards(torch.tensor([[0.5, 1.0]]), torch.tensor([[5.0, 0.5]]), torch.tensor([[True, True]]))
    tensor([[0., 1.]])
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    following = conservative_targets(torch.zeros_like(q), greedy_q, mask, discount=discount)
    return torch.where(mask, q.detach().to(wide) - following, 0.0)


def bellman_loss(
    logits: Float[Tensor, "n t v"],
    values: Float[Tensor, "n t"],
    ids: Int[Tensor, "n t"],
    rewards: Float[Tensor, "n"] | Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    reference: Float[Tensor, "n t v"],
    scale: float = 1.0,
    discount: float = 1.0,
    advantage: float = 1.0,
    likelihood: float = 1.0,
    denominator: float | Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Squared Bellman error of the tokens in the data, held near the language model by two more terms.

        loss = 1/D Σ [(Q − target)² + b₁ A² + b₂ (−log softmax(Q/α)[a])]        A = α (l_a − max l)

    Targets are the conservative operator's, of the Q that is learned. The second term keeps the tokens of the data near
    the maximum of the advantages, the third keeps the policy a model of the data, which anyone may have written.
    Losses of parts add up to the whole with `denominator` given.

    Args:
        logits, values, ids: as for `dueling`; gradients flow into logits and values.
        rewards: one per token, or one per row, which its last token gets.
        mask: True at the tokens of the data.
        reference: logits of the frozen language model, q of the operator.
        scale: α.
        discount: γ.
        advantage: b₁; the source does not state its weights, nor the exact form of this term.
        likelihood: b₂.
        denominator: the number of tokens of the whole batch, where this is a part of it.

    Returns:
        The loss, and sums, detached: "tokens", "bellman", "advantage" and "likelihood" (each without its weight).

    Raises:
        ValueError: if the shapes do not fit, α ≤ 0, or γ is outside [0, 1].

    Source: B-Coder (arXiv 2310.03173, §4.3).

    >>> logits, ids, here = torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=int), torch.tensor([[True]])
    >>> loss, _ = bellman_loss(logits, torch.tensor([[0.5]]), ids, torch.tensor([1.0]), here, reference=logits)
    >>> round(loss.item(), 4)
    0.9431
    """
    _check_shapes(logits, values=values, ids=ids, mask=mask)
    if reference.shape != logits.shape:
        raise ValueError(f"reference must be {tuple(logits.shape)} like logits, got {tuple(reference.shape)}")
    if rewards.shape not in (mask.shape, mask.shape[:1]):
        raise ValueError(f"rewards must be (n,) or (n, t) beside mask {tuple(mask.shape)}, got {tuple(rewards.shape)}")
    wide = torch.promote_types(logits.dtype, torch.float32)
    ids = torch.where(mask, ids, 0)
    logits = torch.where(mask[..., None], logits.to(wide), 0.0)
    values = torch.where(mask, values.to(wide), 0.0)
    with torch.no_grad():
        if rewards.ndim == 1:
            last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
            rewards = torch.where(last, rewards[:, None], 0.0)
        greedy_q = dueling(logits, values, reference.argmax(-1), scale=scale)
        targets = conservative_targets(rewards, greedy_q, mask, discount=discount)
    chosen = _advantages(logits, ids, scale)
    q = values + chosen
    count = mask.sum().to(wide)
    divisor = count.clamp(min=1) if denominator is None else denominator
    bellman, sums = clipped_value_loss(q, q, targets, mask, clip=None, denominator=divisor)
    # softmax(Q/α) = softmax(l): V and the maximum are constants over the vocabulary.
    nll = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    extra = torch.where(mask, advantage * chosen**2 + likelihood * nll, 0.0).sum() / divisor
    with torch.no_grad():
        terms = {"advantage": (chosen**2)[mask].sum(), "likelihood": nll[mask].sum()}
    return 2 * bellman + extra, {"tokens": count, "bellman": sums["error"]} | terms


def _advantages(logits: Tensor, ids: Tensor, scale: float) -> Tensor:
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    wide = torch.promote_types(logits.dtype, torch.float32)
    chosen: Tensor = logits.gather(-1, ids[..., None])[..., 0].to(wide) - logits.amax(-1).to(wide)
    return scale * chosen


def _check_shapes(logits: Tensor, **others: Tensor) -> None:
    if logits.ndim != 3:
        raise ValueError(f"logits must be (n, t, v), got {tuple(logits.shape)}")
    for name, value in others.items():
        if value.shape != logits.shape[:2]:
            wanted = tuple(logits.shape[:2])
            raise ValueError(f"{name} must be {wanted} beside logits {tuple(logits.shape)}, got {tuple(value.shape)}")
