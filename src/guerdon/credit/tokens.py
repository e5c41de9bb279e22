"""From one value per rollout or step to one per token."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.spans import Spans

Place = Literal["last", "all", "share"]


def spread(
    values: Float[Tensor, "n *s"],
    written: Bool[Tensor, "n t"],
    spans: Spans | None = None,
    *,
    place: Place = "last",
) -> Float[Tensor, "n t"]:
    r"""Put each rollout's or step's value on its tokens.

    A value lands only on tokens that the policy wrote: the observations within a step (tool results, say) are
    passed over. A step without a written token has no place, and its value goes nowhere. Differentiable.

    Args:
        values: one per rollout, or one per step when `spans` says where the steps are; any unit.
        written: True at the tokens written by the policy.
        spans: the token range of each step; values of steps that do not exist are not read.
        place: "last": all of it on the last written token, as a reward is paid when its step ends; "all": on
            every written token, as an advantage holds for each of them; "share": in equal parts, value / number
            of written tokens, so that the sum over tokens is the value.

    Returns:
        One value per token, 0 where nothing was put; the unit of `values`, per token with "share".

    Raises:
        ValueError: if the shapes do not fit, or the spans count characters or reach beyond the tokens.

    Source: process supervision as in DeepSeekMath (arXiv 2402.03300, §4.1.3), which pays at the end of a step.

    >>> written = torch.tensor([[True, True, False, True, True]])
    >>> spread(torch.tensor([[6.0, 1.0]]), written, Spans.of([[(0, 4), (4, 5)]]), place="share")
    tensor([[2., 2., 0., 2., 1.]])
    >>> spread(torch.tensor([3.0]), written)
    tensor([[0., 0., 0., 0., 3.]])
    """
    begin, end, exists = _ranges(values, written, spans)
    values = values.reshape(exists.shape)
    n, t = written.shape
    # How many tokens were written before each position, so that a step's count is one subtraction.
    before = torch.nn.functional.pad(written.long().cumsum(1), (1, 0))
    lengths = before.gather(1, end) - before.gather(1, begin)
    if place == "last":
        positions = torch.arange(1, t + 1, device=written.device)
        latest = torch.nn.functional.pad((written * positions).cummax(1).values, (1, 0)).gather(1, end) - 1
        placed = torch.where(lengths > 0, values, 0.0)
        return values.new_zeros(n, t).scatter_add(1, latest.clamp(min=0), placed) if t else values.new_zeros(n, t)
    if place == "share":
        values = values / lengths.clamp(min=1)
    # One entry for every (step, token) pair, rows after one another: no table over steps times tokens is made.
    sizes = torch.where(exists, end - begin, 0).flatten()
    starts = torch.repeat_interleave(begin.flatten() - (sizes.cumsum(0) - sizes), sizes)
    rows = torch.repeat_interleave(torch.arange(n, device=written.device).repeat_interleave(exists.shape[1]), sizes)
    tokens = rows * t + starts + torch.arange(len(rows), device=written.device)
    spread_out = values.new_zeros(n * t).index_add(0, tokens, values.flatten().repeat_interleave(sizes))
    return torch.where(written, spread_out.reshape(n, t), 0.0)


@torch.no_grad()
def reinforce_success(
    advantages: Float[Tensor, "n t"],
    rewards: Float[Tensor, "n"],
    written: Bool[Tensor, "n t"],
    *,
    bonus: float = 0.1,
    at_least: float = 1.0,
) -> Float[Tensor, "n t"]:
    """Add a little to the advantages of rollouts that succeeded, after all normalisation.

    What a normalised advantage cannot say is that a success is good by itself: in a batch that mostly succeeds,
    successes hardly count.

    Args:
        advantages: one per token.
        rewards: of the rollouts; NaN where there is none, which is no success.
        written: True at the tokens of the policy.
        bonus: in the unit of the advantages.
        at_least: a reward of this or more is a success.

    Returns:
        Advantages, 0 where the policy did not write.

    Raises:
        ValueError: if the shapes do not fit.

    Source: the training script of DLER (NVlabs/DLER), not its paper.

    >>> there = torch.ones(2, 1, dtype=torch.bool)
    >>> reinforce_success(torch.tensor([[0.5], [-0.5]]), torch.tensor([1.0, 0.0]), there)
    tensor([[ 0.6000],
            [-0.5000]])
    """
    if advantages.shape != written.shape or advantages.ndim != 2 or rewards.shape != written.shape[:1]:
        shapes = [tuple(x.shape) for x in (advantages, rewards, written)]
        raise ValueError(f"advantages and written (n, t) and rewards (n,) do not fit: {shapes}")
    return torch.where(written, advantages + bonus * (rewards >= at_least)[:, None], 0.0)


def _ranges(values: Tensor, written: Tensor, spans: Spans | None) -> tuple[Tensor, Tensor, Tensor]:
    """Begin, end and existence of each value's tokens; a rollout's own value has all of its row."""
    if written.ndim != 2:
        raise ValueError(f"written must be (n, t), got {tuple(written.shape)}")
    n, t = written.shape
    if spans is None:
        if values.shape != (n,):
            raise ValueError(f"without spans, values must be ({n},), one per row of written, got {tuple(values.shape)}")
        begin = torch.zeros(n, 1, dtype=torch.long, device=written.device)
        return begin, begin + t, torch.ones_like(begin, dtype=torch.bool)
    if spans.unit != "token":
        raise ValueError("spans count characters: turn them into token spans first, with spans.to_tokens(offsets)")
    begin, end, exists = (torch.as_tensor(x, device=written.device) for x in (spans.begin, spans.end, spans.mask))
    if values.shape != exists.shape or len(values) != n:
        raise ValueError(f"values {tuple(values.shape)}, spans {tuple(exists.shape)} and written {(n, t)} do not fit")
    begin, end = (torch.where(exists, x.long(), 0) for x in (begin, end))
    if end.numel() and int(end.max()) > t:
        row = int(end.amax(1).argmax())
        raise ValueError(f"row {row}: a step ends at token {int(end[row].max())}, but there are only {t}")
    return begin, end, exists
