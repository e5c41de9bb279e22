"""Learning from a fixed set of rows: the one loop, and the loss of a language model that is shown what to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.protocols import TrainableModel


def fit(
    weights: Iterable[Tensor],
    loss: Callable[[list[int]], Float[Tensor, ""]],
    rows: int,
    *,
    learning_rate: float,
    epochs: int = 1,
    batch: int = 64,
    groups: Sequence[int] | None = None,
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> list[float]:
    """Train weights, in place, on a fixed set of rows, in a new random order each epoch.

    What is learned is the loss: supervised with `language_loss`, an implicit reward model or DPO with `implicit_loss`
    of `implicit_rewards`, a head with `bradley_terry` or any loss of torch.

    Args:
        weights: of AdamW; those of a model are `model.parameters()`.
        loss: of the rows of these numbers, a mean over them. Where it carries no gradient (no pair in the batch) no
            step is taken.
        rows: how many there are.
        learning_rate: constant.
        epochs: passes over the rows.
        batch: rows per step.
        groups: one number per row; rows of equal ones stay in one batch, as pairs need it. A batch is then full when
            it has at least `batch` rows.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
        weight_decay: of AdamW.
        seed: of the orders, which depend on nothing else.

    Returns:
        The loss of each step.

    Raises:
        ValueError: if there are no weights or rows, a number is out of range, or there is not one group per row.
        GuerdonError: if a loss is not finite.

    Source: ours; one epoch of batches of 64 is the training of Implicit PRM (arXiv 2412.01981), whose rate is 5e-7.

    >>> w = torch.zeros(1, requires_grad=True)
    >>> target = torch.tensor([1.0, 3.0])
    >>> losses = fit([w], lambda chosen: ((w - target[chosen]) ** 2).mean(), 2, learning_rate=0.1, epochs=300)
    >>> round(w.item(), 2)
    2.0
    """
    learned = [weight for weight in weights if weight.requires_grad]
    if not learned:
        raise ValueError("weights are empty, or none of them has a gradient: there is nothing to learn")
    if min(rows, epochs, batch) < 1 or not learning_rate > 0 or max_grad_norm < 0:
        raise ValueError(
            "rows, epochs, batch and learning_rate must be positive and max_grad_norm not negative, got "
            f"{rows}, {epochs}, {batch}, {learning_rate} and {max_grad_norm}"
        )
    members = _members(rows, groups)
    optimizer = torch.optim.AdamW(learned, lr=learning_rate, weight_decay=weight_decay)
    losses: list[float] = []
    for epoch in range(epochs):
        for chosen in _batches(members, batch, np.random.default_rng([seed, epoch])):
            value = loss(chosen)
            losses.append(value.item())
            if not math.isfinite(losses[-1]):
                raise GuerdonError(f"fit, step {len(losses) - 1}: the loss is {losses[-1]}: lower learning_rate")
            if not value.requires_grad:
                continue
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            if max_grad_norm:
                torch.nn.utils.clip_grad_norm_(learned, max_grad_norm)
            optimizer.step()
    return losses


def language_loss(model: TrainableModel, records: Sequence[Mapping[str, Any]]) -> Float[Tensor, ""]:
    """−log p of what a model is to say, the mean over the tokens of all completions; prompts are only read.

    Args:
        model: with gradients.
        records: each with 'prompt' and 'completion', as `demonstrations` and `listening` write them.

    Raises:
        ValueError: if the model cannot read a record, saying why, or there is nothing to say.

    Source: supervised fine-tuning; of the scorer of CRM (arXiv 2511.09158) and the listener of FLR (2409.13948).
    """
    said = model.logprobs([r["prompt"] for r in records], [r["completion"] for r in records])
    for row, why in said.problems.items():
        raise ValueError(f"records[{row}] cannot be learned: {why}")
    mask = torch.as_tensor(said.mask)
    if not mask.any():
        raise ValueError("records have completions of no tokens: there is nothing to say")
    logp: Tensor = torch.where(mask, torch.as_tensor(said.logp), 0.0)
    return -logp.sum() / mask.sum()


def _members(rows: int, groups: Sequence[int] | None) -> list[list[int]]:
    """The rows of each group, in their order; each row by itself without groups."""
    if groups is None:
        return [[row] for row in range(rows)]
    if len(groups) != rows:
        raise ValueError(f"groups has {len(groups)} entries for {rows} rows")
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    return [np.flatnonzero(index == group).tolist() for group in range(int(index.max()) + 1)]


def _batches(members: list[list[int]], batch: int, rng: np.random.Generator) -> Iterable[list[int]]:
    gathered: list[int] = []
    for place in rng.permutation(len(members)).tolist():
        gathered += members[place]
        if len(gathered) >= batch:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
