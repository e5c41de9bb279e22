"""Corrections: of a frozen reward, along one direction of its embeddings; of a chain that has left the data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.objectives.denoising.chains import Condition, Policy
from guerdon.objectives.denoising.steps import FLOW, Kind, step


def directional(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "n d"],
    direction: Float[Tensor, "d"],
    *,
    strength: float = 1.5,
) -> Float[Tensor, "n"]:
    r"""Cosine of image and text embeddings, the text moved along the direction in which the reward is biased.

        e± = norm(t ± b)        ẽ = e₋ + w (e₊ − e₋)        R = cos(image, ẽ)

    What a frozen reward likes in every picture, whatever the prompt, a policy learns first: all samples become one. b
    is learnt against the frozen model's samples, by −R; held fixed, R gives the policy's samples for it what they had
    already. b = 0, and w = 1/2 with unit b ⟂ t, leave the direction of the text.

    Args:
        image: embeddings; gradients pass.
        text: embeddings of the prompts, of length 1.
        direction: b, one for all prompts; a parameter in the first stage, fixed in the second.
        strength: w; 1 is e₊, beyond it extrapolates.

    Raises:
        ValueError: if the shapes do not fit.

    Source: D²-Align (arXiv 2512.24146, eqs. 5 to 7).

    >>> text, b = torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0])
    >>> directional(torch.tensor([[0.0, 1.0]]), text, b)
    tensor([0.8944])
    """
    if image.ndim != 2 or image.shape != text.shape or direction.shape != image.shape[1:]:
        shapes = [tuple(x.shape) for x in (image, text, direction)]
        raise ValueError(f"image and text (n, d) and direction (d,) do not fit: {shapes}")
    moved = corrected_text(text, direction, strength=strength)
    wide = torch.promote_types(image.dtype, torch.float32)
    return torch.nn.functional.cosine_similarity(image.to(wide), moved, dim=1)


def corrected_text(
    text: Float[Tensor, "n d"], direction: Float[Tensor, "d"], *, strength: float = 1.5
) -> Float[Tensor, "n d"]:
    """ẽ of `directional`, not normalised.

    Source: D²-Align (arXiv 2512.24146, eqs. 5 and 6).

    >>> corrected_text(torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0]))
    tensor([[0.7071, 1.4142]])
    """
    wide = torch.promote_types(torch.promote_types(text.dtype, direction.dtype), torch.float32)
    text, direction = text.to(wide), direction.to(wide)
    ahead, behind = (torch.nn.functional.normalize(text + sign * direction, dim=1) for sign in (1, -1))
    return behind + strength * (ahead - behind)


def self_correction(
    policy: Policy,
    clean: Float[Tensor, "n *d"],
    noise: Float[Tensor, "n *d"],
    level: Float[Tensor, "n"],
    following: Float[Tensor, "n"],
    *,
    rollout: Policy | None = None,
    kinds: Sequence[Kind] = ("ode",),
    a: float = 0.5,
    points: int = 6,
    strength: float = 1.0,
    smallest: float = 1e-3,
    condition: Condition | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Flow matching that also learns the way back from where the policy itself goes astray; no reward.

        at the data's own states    z = (1 − s) x₀ + s e          target e − x₀
        rolled out                  ẑ = one step of the policy from z to s₁, without gradient
        off the path                z' = (1 − α) ẑ + α e          target (z' − x₀)/s'

        s' ~ U[s₁, 1], α = (s' − s₁)/(1 − s₁): the same noise e        loss = (Σ base + λ Σ off)/(n + λ · off states)

    The error is the mean over the elements of a state. A step along the target from z' ends in x₀ exactly, wherever the
    rollout went, so that what a step did wrong the next ones undo.

    Args:
        policy: says the velocity.
        clean: x₀, data.
        noise: e.
        level: s in (0, 1), one per row: logit-normal in the source.
        following: s₁ in [0, s), one per row: 1/40 of the chain's time further, but not below 0.
        rollout: what makes the step, with guidance, say; None: the policy.
        kinds: of the rollouts' steps, one path each: 'ode', and stochastic ones for more ('cps', 'flow_sde', 'dance'),
            which a row without noise left (s₁ = 0) does not take.
        a: noise of the stochastic ones.
        points: N off-path states on each path.
        strength: λ.
        smallest: s' is not below it: the target divides by it.
        condition: tensors with one entry per row.
        generator: of s' and of the noise of stochastic rollouts.

    Returns:
        The loss, and sums, detached: "states" and "error" of the data's own, "off_states" and "off_error".

    Raises:
        ValueError: if shapes or levels do not fit, before the policy is called.

    Source: SOAR (arXiv 2604.12617; Tencent-Hunyuan/HY-SOAR): N = 6 as its script (its paper may mean 1), λ = 1, CFG 4.5
    in the rollout, and s' at most 1, as its code uses.
    """
    if clean.shape != noise.shape or level.shape != clean.shape[:1] or following.shape != level.shape:
        shapes = [tuple(x.shape) for x in (clean, noise, level, following)]
        raise ValueError(f"clean and noise (n *d), level and following (n,) do not fit: {shapes}")
    if not bool(((level > 0) & (level < 1) & (following >= 0) & (following < level)).all()):
        raise ValueError("levels lie in (0, 1), and those that follow in [0, level)")
    unknown = [kind for kind in kinds if kind not in FLOW]
    if unknown or points < 0 or not strength >= 0 or not 0 < smallest < 1:
        raise ValueError(f"kinds of a flow, points and strength ≥ 0, got {list(kinds)}, {points} and {strength}")
    if not bool(torch.isfinite(clean).all() & torch.isfinite(noise).all()):
        raise ValueError("clean and noise must be finite")
    given = dict(condition or {})
    wide = torch.promote_types(clean.dtype, torch.float32)
    clean, noise, level, following = (x.to(wide) for x in (clean, noise, level, following))
    beside = (-1, *[1] * (clean.ndim - 1))

    def error(z: Tensor, s: Tensor, target: Tensor) -> Tensor:
        return (policy(z, s, **given).to(wide) - target).square().reshape(len(z), -1).mean(1)

    s = level.reshape(beside)
    z = (1 - s) * clean + s * noise
    base = error(z, level, noise - clean)
    off, count = torch.zeros_like(base), torch.zeros_like(base)
    if points and kinds:
        with torch.no_grad():
            said = (policy if rollout is None else rollout)(z, level, **given).to(wide)
        for kind in kinds:
            taken = step(z, said, level, following, kind=kind, a=a)
            counted = torch.ones_like(level, dtype=torch.bool)
            astray = taken.mean
            if kind != "ode":
                drawn = torch.randn(z.shape, generator=generator, dtype=wide, device=z.device)
                counted, astray = following > 0, taken.draw(drawn)
            for _ in range(points):
                share = torch.rand(level.shape, generator=generator, dtype=wide, device=z.device)
                there = (following + share * (1 - following)).clamp(min=smallest)
                alpha = ((there - following) / (1 - following)).reshape(beside)
                moved = ((1 - alpha) * astray + alpha * noise).detach()
                found = error(moved, there, (moved - clean) / there.reshape(beside))
                off = off + torch.where(counted, found, 0.0)
                count = count + counted
    total = len(clean) + strength * count.sum()
    loss = (base.sum() + strength * off.sum()) / total.clamp(min=1)
    return loss, {
        "states": torch.full_like(count.sum(), len(clean)),
        "error": base.detach().sum(),
        "off_states": count.sum(),
        "off_error": off.detach().sum(),
    }
