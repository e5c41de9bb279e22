"""Masked diffusion of tokens with a gradient: each step draws by Gumbel-softmax what it reveals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Predictor = Callable[[Tensor, Tensor], Tensor]  # tokens "n l" (k: masked) and noise level "n" to logits "n l k"


def masked_chain(
    policy: Predictor,
    n: int,
    length: int,
    vocabulary: int,
    *,
    steps: int = 128,
    soft: int = 50,
    temperature: float = 1.0,
    reference: Predictor | None = None,
    kl: Literal["path", "rate"] = "path",
    last: float = 1e-5,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> tuple[Float[Tensor, "n l k"], Float[Tensor, "n"]]:
    r"""Sequences from a masked diffusion model, one-hot and with a gradient, and their KL to a reference.

    All sites begin masked. From noise level m to m' a masked site stays so with probability m'/m. The first steps draw
    plainly; the last `soft` are `soft_step`s, whose gradient reaches the policy. The model is asked about the likeliest
    token of each site, so that it never sees a mixture.

        loss = −mean(reward(sequences)) + α mean(kl)

    Args:
        policy: called as policy(tokens, m), tokens with `vocabulary` for a masked site; logits or log-probabilities of
            the tokens of each site. What it says of sites that are not masked is not used.
        n: sequences.
        length: sites.
        vocabulary: K, without the mask.
        steps: T, equal steps of m from 1 to `last`.
        soft: how many of the last have a gradient.
        temperature: τ of the soft steps.
        reference: what the KL is to; None: no KL, 0.
        kl: "path", the soft steps' KL, each at the rate at which sites are revealed: with all steps soft, the KL of the
            two models' paths; "rate" leaves out the width of a step and is 1/width times as large: the sum that the
            source's α of 0.001 belongs to.
        last: m at the end, in [0, 1).
        generator: of the draws.
        device: of the sequences.

    Returns:
        One-hot sequences whose gradient is that of the soft ones, and the KL of each, in nats.

    Raises:
        ValueError: if a size or `last` is out of range, or the policy says something of another shape.

    Source: DRAKES (arXiv 2410.13643; ChenyuWang-Monica/DRAKES), with masked sites in the KL as in its eq. 12, where its
    DNA script weighs by the sites that are not. T 128, S 50, τ 1, α 0.001 are of DNA; 50, 25, 0.5, 3e-4 of proteins.
    """
    if min(n, length, vocabulary) < 1 or steps < 1 or not 0 <= soft <= steps or not 0 <= last < 1:
        raise ValueError(
            "n, length, vocabulary and steps are at least 1, soft at most steps and last in [0, 1), got "
            f"{n}, {length}, {vocabulary}, {steps}, {soft}, {last}"
        )
    if kl not in ("path", "rate"):
        raise ValueError(f"kl is 'path' or 'rate', got {kl!r}")
    moves = torch.linspace(1.0, last, steps + 1, dtype=torch.float64).tolist()
    x = torch.zeros(n, length, vocabulary + 1, device=device)
    x[..., -1] = 1.0
    drift = torch.zeros(n, device=device)
    for i in range(steps):
        here, there = moves[i], moves[i + 1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and i >= steps - soft):
            tokens, level = x.detach().argmax(-1), torch.full((n,), here, device=x.device)
            logits = policy(tokens, level)
            if logits.shape != (n, length, vocabulary):
                raise ValueError(f"the policy said {tuple(logits.shape)}, expected {(n, length, vocabulary)}")
            logp = logits.float().log_softmax(-1)
            if reference is not None and i >= steps - soft:
                with torch.no_grad():
                    ref_logp = reference(tokens, level).float().log_softmax(-1)
                change = here - there if kl == "path" else 1.0
                drift = drift + rate_kl(logp, ref_logp, x[..., -1], here) * change
            warmth = temperature if i >= steps - soft else 0.0
            x = soft_step(x, logp, here, there, temperature=warmth, generator=generator)
    return straight_through(x), drift


def soft_step(
    x: Float[Tensor, "n l k+1"],
    logp: Float[Tensor, "n l k"],
    level: float,
    following: float,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n l k+1"]:
    r"""One step of revealing tokens, softly.

        q(k) = p(k) (m − m')        q(mask) = m'        y = softmax((log q + G)/τ), G standard Gumbel
        x' = c x + (1 − c) y        c = 1 − x[mask]

    As τ → 0, y is one-hot and drawn from q; what has been revealed stays.

    Args:
        x: the sites, one-hot or mixtures; the last channel is the mask.
        logp: of the policy for each site, in nats.
        level: m in (0, 1].
        following: m' in [0, m).
        temperature: τ ≥ 0; 0 draws plainly, without a gradient.
        generator: of the Gumbel noise.

    Raises:
        ValueError: if the shapes or levels do not fit, or τ < 0.

    Source: DRAKES (arXiv 2410.13643); Gumbel-softmax (1611.01144).
    """
    if x.shape[:-1] != logp.shape[:-1] or x.shape[-1] != logp.shape[-1] + 1:
        raise ValueError(f"x (n l k+1) {tuple(x.shape)} and logp (n l k) {tuple(logp.shape)} do not fit")
    if not 0 <= following < level <= 1 or not temperature >= 0:
        raise ValueError(f"levels fall within [0, 1] and τ ≥ 0, got {level}, {following} and {temperature}")
    stay = torch.full_like(logp[..., :1], following).log()
    logits = torch.cat([logp + torch.full((), level - following, device=logp.device).log(), stay], -1)
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    tiny = torch.finfo(logits.dtype).tiny
    noisy = logits - (-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
    y = one_hot(noisy.argmax(-1), x) if temperature == 0 else (noisy / temperature).softmax(-1)
    masked = x[..., -1:]
    return (1 - masked) * x + masked * y


def straight_through(x: Float[Tensor, "n l k+1"]) -> Float[Tensor, "n l k"]:
    """The likeliest token of each site, exactly one-hot, with the gradient of the soft site; the mask is left out.

    Source: DRAKES (arXiv 2410.13643); straight-through estimator (1308.3432). The likeliest of the tokens: a site that
    is still masked at the end would otherwise be no token at all.

    >>> straight_through(torch.tensor([[[0.2, 0.5, 0.3]]]))
    tensor([[[0., 1.]]])
    """
    soft = x[..., :-1]
    hard = one_hot(soft.argmax(-1), soft)
    # soft − soft.detach() is exactly 0, so that the value is exactly one-hot.
    return hard + (soft - soft.detach())


def rate_kl(
    logp: Float[Tensor, "n l k"],
    ref_logp: Float[Tensor, "n l k"],
    masked: Float[Tensor, "n l"],
    level: float,
) -> Float[Tensor, "n"]:
    r"""KL between the rates at which two models reveal tokens: per unit of m, 1/m Σ_masked Σₖ [q − p + p log(p/q)].

    Times the width of a step it is the KL of the step, to first order. Never negative; 0 where the models agree.

    Args:
        logp: log p, of the policy; gradients pass.
        ref_logp: log q, of the reference.
        masked: how much of each site is masked, 0 or 1 for a plain sequence.
        level: m > 0.

    Raises:
        ValueError: if the shapes do not fit or m ≤ 0.

    Source: DRAKES (arXiv 2410.13643, eq. 12).

    >>> p, q = torch.tensor([[[0.75, 0.25]]]).log(), torch.tensor([[[0.5, 0.5]]]).log()
    >>> rate_kl(p, q, torch.ones(1, 1), 0.5)
    tensor([0.2616])
    """
    if logp.shape != ref_logp.shape or masked.shape != logp.shape[:-1]:
        shapes = [tuple(x.shape) for x in (logp, ref_logp, masked)]
        raise ValueError(f"logp and ref_logp (n l k) and masked (n l) do not fit: {shapes}")
    if not level > 0:
        raise ValueError(f"level must be above 0, got {level}")
    p, q = logp.exp(), ref_logp.detach().exp()
    ratio = torch.where(p > 0, logp - ref_logp.detach(), 0.0)
    each = (q - p + p * ratio).sum(-1)
    return (masked * each).sum(-1) / level


def one_hot(index: Int[Tensor, "n l"], like: Float[Tensor, "n l k"]) -> Float[Tensor, "n l k"]:
    """1 at the index, in the kind of tensor that `like` is."""
    return torch.zeros_like(like, requires_grad=False).scatter(-1, index[..., None], 1.0)
