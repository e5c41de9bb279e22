"""Small heads on the states of any encoder or language model, and what they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from guerdon.core.protocols import Model
from guerdon.core.spans import Spans
from guerdon.models.implicit import at_steps


class LinearHead(nn.Module):
    """w · h + b: a reward, or the log-odds of one.

    Its log-odds are trained as a classifier by `implicit_loss(kind="ce")`, its rewards from pairs by `bradley_terry`.

    Args:
        width: of the states.

    Source: the classifier of trajectories of Agent-RLVR (arXiv 2506.11425), the detector of DECS (pixas/DECS), and
    reward models of RLHF.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """One number for each state."""
        found: Tensor = self.score(states)[..., 0]
        return found


class DisentangledHeads(nn.Module):
    r"""Two heads on one state: the quality of an answer, and what is left of its reward for being long.

    Preferences are fitted by the sum r_Q + r_L; `length_bias` makes r_L follow the length and r_Q forget it, and
    `overlap` keeps the two apart. Only r_Q is optimised afterwards: r_L is thrown away.

        loss = bradley_terry(r_Q + r_L of chosen and rejected) + λ_L length_bias(r_Q, r_L, L) + λ_O overlap()

    Args:
        width: of the states.

    Source: ODIN (arXiv 2402.07319).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.quality, self.verbosity = (nn.Linear(width, 1, bias=False) for _ in range(2))

    def forward(self, states: Float[Tensor, "*n d"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """r_Q and r_L."""
        return self.quality(states)[..., 0], self.verbosity(states)[..., 0]

    def overlap(self) -> Float[Tensor, ""]:
        """|cos(W_Q, W_L)|, in [0, 1].

        Of unit vectors, since the bare product |W_Q W_Lᵀ| also falls when either of them shrinks.
        """
        cosine: Tensor = torch.cosine_similarity(self.quality.weight, self.verbosity.weight).abs()
        return cosine.squeeze()


class QueryHead(nn.Module):
    r"""A reward for each dimension of quality, each read from a token of its own: r_k = w_k · h(last place of token k).

    A token that stands before the prompt in a causal model cannot see it: what is asked for does not colour how good
    the picture is found. Learned by `bradley_terry` of all dimensions at once.

    Args:
        width: of the states.
        tokens: the ids of the dimensions' tokens, in order; they are in each text.

    Source: VideoReward of VideoAlign (arXiv 2501.13918): visual and motion quality before the prompt, alignment after
    it.
    """

    queries: Tensor

    def __init__(self, width: int, tokens: Sequence[int]) -> None:
        super().__init__()
        if len(set(tokens)) != len(tokens) or not tokens:
            raise ValueError(f"tokens must be distinct ids, one for each dimension, got {list(tokens)}")
        self.register_buffer("queries", torch.tensor(list(tokens)))
        self.score = nn.Linear(width, len(tokens), bias=False)

    def forward(self, states: Float[Tensor, "n t d"], ids: Int[Tensor, "n t"]) -> Float[Tensor, "n k"]:
        """One number for each text and dimension.

        Raises:
            ValueError: if the shapes do not fit, or a text lacks a token.
        """
        if states.shape[:-1] != ids.shape or ids.ndim != 2:
            raise ValueError(f"states (n, t, d) and ids (n, t) do not fit: {tuple(states.shape)}, {tuple(ids.shape)}")
        found = ids[:, None] == self.queries[:, None]  # (n, k, t)
        if not found.any(2).all():
            row, k = (int(x) for x in (~found.any(2)).nonzero()[0])
            raise ValueError(f"row {row} does not have token {int(self.queries[k])}, which dimension {k} is read from")
        places = torch.arange(ids.shape[1], device=ids.device)
        last = torch.where(found, places, -1).amax(2)
        own = states.gather(1, last[..., None].expand(-1, -1, states.shape[-1]))
        rewards: Tensor = (own * self.score.weight).sum(2)
        return rewards


def states_of(
    model: Model, prompts: Sequence[Any], completions: Sequence[Any], *, layer: int | float = -1
) -> Float[Tensor, "n d"]:
    """The mean state of each completion's tokens, which a head reads; with gradients where they are enabled.

    Args:
        model: see `hidden` of the contract.
        prompts, completions: text or messages.
        layer: after how many blocks, or which share of them.

    Returns:
        One state per completion, all 0 for one without tokens.

    Source: ours.
    """
    states, mask = (torch.as_tensor(x) for x in model.hidden(prompts, completions, layer=layer))
    return torch.where(mask[..., None], states, 0.0).sum(1) / mask.sum(1).clamp(min=1)[:, None]


def step_states(states: Float[Tensor, "n t d"], mask: Bool[Tensor, "n t"], spans: Spans) -> Float[Tensor, "n s d"]:
    """The mean state of each step's tokens; all 0 for a step without any.

    Args:
        states: of each token.
        mask: True at the tokens that count.
        spans: the token range of each step.

    Raises:
        ValueError: if the shapes do not fit, or the spans count characters or reach beyond the tokens.

    Source: ours.

    >>> states = torch.tensor([[[1.0], [3.0], [8.0]]])
    >>> step_states(states, torch.ones(1, 3, dtype=torch.bool), Spans.of([[(0, 2), (2, 3)]]))[0].tolist()
    [[2.0], [8.0]]
    """
    if states.ndim != 3 or states.shape[:2] != mask.shape:
        raise ValueError(f"states (n, t, d) and mask (n, t) do not fit: {tuple(states.shape)}, {tuple(mask.shape)}")
    n, t, width = states.shape
    count = at_steps(mask.float(), mask, spans).clamp(min=1)
    rows = np.repeat(np.arange(n), width)
    flat = states.transpose(1, 2).reshape(n * width, t)
    sums = at_steps(flat, mask.repeat_interleave(width, 0), spans.select(rows))
    return sums.reshape(n, width, count.shape[1]).transpose(1, 2) / count[..., None]
