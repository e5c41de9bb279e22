"""Log-probabilities of chosen tokens from hidden states, without a table over tokens times vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# At most this many logits are held at once (16 MiB in float32), but never fewer than LEAST tokens' logits: below
# that, reading the weight for every chunk costs more than multiplying by it.
CHUNK = 1 << 22
LEAST = 256


def chosen_logp(
    hidden: Float[Tensor, "*n d"],
    weight: Float[Tensor, "v d"],
    ids: Int[Tensor, "*n"],
    *,
    bias: Float[Tensor, "v"] | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    r"""Log-probability of each chosen token, and the entropy of the distribution it was chosen from.

        z = (W h + b) / T        logp = z_y − log Σᵥ e^{zᵥ}        H = −Σᵥ pᵥ log pᵥ,  p = softmax(z)

    Logits are made for a chunk of tokens at a time and made again in the backward pass, so memory grows with the
    chunk and not with the tokens; the price is one more product with W. Only the tokens that are learned from need
    to be there: pass `hidden[mask]` and `ids[mask]`. Both results can be differentiated (once), by `hidden`,
    `weight` and `bias`; H times a coefficient is an entropy bonus.

    Args:
        hidden: last hidden states, at the positions that predict `ids`.
        weight: the matrix that projects them onto the vocabulary (`lm_head.weight`); taken in the dtype of `hidden`.
        ids: the chosen tokens.
        bias: of the projection, if it has one.
        temperature: T > 0, the one the tokens were sampled at.
        chunk: tokens whose logits are held at once; by default 16 MiB of them, and 256 tokens at the least. More is
            faster on a GPU and takes more memory.

    Returns:
        Log-probabilities and entropies, in nats, in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit, T ≤ 0, or chunk < 1.

    Source: chunked, recomputed cross-entropy as in Cut Your Losses (arXiv 2411.09009), here in plain torch.

    >>> logp, entropy = chosen_logp(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([0]))
    >>> logp, entropy
    (tensor([-0.3133]), tensor([0.5822]))
    """
    if hidden.shape[:-1] != ids.shape or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (hidden, weight, ids))
        raise ValueError(f"hidden (*n, d), weight (v, d) and ids (*n) do not fit: {shapes}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({len(weight)},), got {tuple(bias.shape)}")
    if not temperature > 0:
        raise ValueError(f"log-probabilities need a temperature above 0, got {temperature}")
    size = max(LEAST, CHUNK // len(weight)) if chunk is None else chunk
    if size < 1:
        raise ValueError(f"chunk must be at least 1 token, got {chunk}")
    flat = hidden.reshape(-1, hidden.shape[-1])
    logp, entropy = _ChosenLogp.apply(  # type: ignore[no-untyped-call]
        flat, weight, bias, ids.reshape(-1), temperature, size
    )
    return logp.reshape(ids.shape), entropy.reshape(ids.shape)


class _ChosenLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float, size: int
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logp, normaliser, entropy = (torch.empty(len(ids), dtype=wide, device=hidden.device) for _ in range(3))
        matrix = weight.to(hidden.dtype)
        for part in _chunks(len(ids), size):
            logits = _logits(hidden[part], matrix, bias, temperature)
            normaliser[part] = logits.logsumexp(1)
            logp[part] = logits.gather(1, ids[part, None])[:, 0] - normaliser[part]
            # H = log Z − Σ p z, without a second table for log p; a logit of −∞ has no weight.
            chances = (logits - normaliser[part, None]).exp_()
            entropy[part] = normaliser[part] - logits.nan_to_num_(neginf=0.0).mul_(chances).sum(1)
        ctx.save_for_backward(hidden, weight, bias, ids, normaliser, entropy)
        ctx.temperature, ctx.size = temperature, size
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logp: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, normaliser, entropy = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if grad_logp is None:
            grad_logp = torch.zeros_like(normaliser)
        to_hidden = torch.empty_like(hidden) if wanted[0] else None
        # Summed over chunks in float32: in bfloat16 the small contributions of later chunks would be lost.
        to_weight = torch.zeros_like(weight, dtype=normaliser.dtype) if wanted[1] else None
        to_bias = torch.zeros_like(bias, dtype=normaliser.dtype) if wanted[2] else None
        matrix = weight.to(hidden.dtype)
        for part in _chunks(len(ids), ctx.size):
            grad = _logits(hidden[part], matrix, bias, ctx.temperature).sub_(normaliser[part, None])
            if grad_entropy is None:
                grad = grad.exp_().mul_(-grad_logp[part, None])
            else:
                # ∂H/∂z = −p (log p + H)
                pull = grad.nan_to_num(neginf=0.0).add_(entropy[part, None]).mul_(grad_entropy[part, None])
                grad = grad.exp_().mul_(pull.add_(grad_logp[part, None])).neg_()
            grad.scatter_add_(1, ids[part, None], grad_logp[part, None])
            grad /= ctx.temperature
            if to_bias is not None:
                to_bias += grad.sum(0)
            grad = grad.to(hidden.dtype)
            if to_hidden is not None:
                to_hidden[part] = grad @ matrix
            if to_weight is not None:
                _add_product(to_weight, grad, hidden[part])
        cast = (None if x is None else x.to(weight.dtype) for x in (to_weight, to_bias))
        return to_hidden, *cast, None, None, None


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(begin, begin + size) for begin in range(0, n, size)]


def _logits(hidden: Tensor, matrix: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    # The backward pass runs outside autocast: both passes must make the same logits.
    with torch.autocast(hidden.device.type, enabled=False):
        logits = hidden @ matrix.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if bias is not None:
        logits += bias
    if temperature != 1.0:
        logits /= temperature
    return logits


def _add_product(total: Tensor, grad: Tensor, hidden: Tensor) -> None:
    if total.dtype == grad.dtype:
        total.addmm_(grad.T, hidden)
    else:
        total += grad.T @ hidden
