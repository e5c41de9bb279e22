r"""One step of a denoising chain as a Gaussian: what a policy's output makes of a sample, and how likely an action was.

Levels say how much of a sample is noise. For flow matching the level is the time s ∈ [0, 1], x_s = (1 − s) x₀ + s e,
1 is pure noise and the policy says the velocity v = e − x₀. For DDIM and consistency models it is the signal
ᾱ ∈ (0, 1], x = √ᾱ x₀ + √(1 − ᾱ) e, and the policy says the noise e, or the clean sample.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Kind = Literal["flow_sde", "dance", "cps", "ode", "ddim", "consistency"]
Density = Literal["gaussian", "square"]
Reduce = Literal["mean", "sum"]

FLOW = ("flow_sde", "dance", "cps", "ode")
_SMALLEST = 1e-12


class Step(NamedTuple):
    """The Gaussian that the next sample is drawn from.

    Args:
        mean: Float["n *d"], with the gradient of the policy's output.
        std: Float["n"], one per row; 0 for a deterministic step.
    """

    mean: Float[Tensor, "n *d"]
    std: Float[Tensor, "n"]

    def draw(self, noise: Float[Tensor, "n *d"]) -> Float[Tensor, "n *d"]:
        """mean + std · noise."""
        return self.mean + _beside(self.std, self.mean) * noise


def step(
    x: Float[Tensor, "n *d"],
    output: Float[Tensor, "n *d"],
    level: float | Float[Tensor, "n"],
    following: float | Float[Tensor, "n"],
    *,
    kind: Kind = "flow_sde",
    a: float | Float[Tensor, "n"] = 0.7,
) -> Step:
    r"""From level to level: mean and standard deviation of the next sample.

    Flow matching, from s to s' < s, with d = s' − s, x̂₀ = x − s v and ê = x + (1 − s) v:

        flow_sde   g = a √(s / (1 − s)), with s' in place of s under the root's 1 − s where s = 1
        dance      g = a
                   mean = x + d v + d g²/(2s) ê        std = g √(−d)
        cps        std = s' sin(a π/2)                 mean = (1 − s') x̂₀ + √(s'² − std²) ê
        ode        mean = x + d v                      std = 0

    flow_sde and dance keep the marginals of the ODE as the steps become small; a few steps widen them. cps puts a
    sample at s' with noise of exactly s', but its fresh noise replaces ê, which is smaller than noise wherever x tells
    something of it: the chain ends too narrow, with any number of steps.

    Diffusion, from ᾱ to ᾱ' > ᾱ, with x̂₀ = (x − √(1 − ᾱ) e) / √ᾱ:

        ddim         std = a √((1 − ᾱ')/(1 − ᾱ) · (1 − ᾱ/ᾱ'))    mean = √ᾱ' x̂₀ + √(1 − ᾱ' − std²) e
        consistency  std = √(1 − ᾱ')                             mean = √ᾱ' f

    a is DDIM's η: 1 is DDPM's ancestral step. f is the policy's clean sample; a does nothing there.

    Args:
        x: the samples; float32 is computed in at least.
        output: what the policy says of them: the velocity, the noise, or the clean sample. Gradients pass.
        level: s or ᾱ of x, one number or one per row.
        following: that of the next sample.
        kind: which of the six.
        a: how much noise, at least 0, one number or one per row; in [0, 1] for cps and ddim. A row with 0 takes the
            ODE's step, of whatever kind of flow or ddim the others are.

    Raises:
        ValueError: for levels that are not there, or where a formula is not defined: s = 0 or ᾱ = 1, where nothing is
            left to remove, and ᾱ = 0 for ddim, where e says nothing of x₀.

    Source: flow_sde: Flow-GRPO (arXiv 2505.05470; yifan123/flow_grpo); dance: DanceGRPO (2505.07818); cps:
    coefficients-preserving sampling (2509.05952); ddim: DDIM (2010.02502, eq. 12) as in DDPO (2305.13301);
    consistency: RLCM (2404.03673).

    >>> x, v = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    >>> step(x, v, 0.5, 0.25, kind="dance", a=1.0)
    Step(mean=tensor([[0.]]), std=tensor([0.5000]))
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind is one of {', '.join(get_args(Kind))}, got {kind!r}")
    if output.shape != x.shape:
        raise ValueError(f"the policy's output {tuple(output.shape)} must have the shape of x {tuple(x.shape)}")
    wide = torch.promote_types(x.dtype, torch.float32)
    here, there, amount = (_rows(value, x, wide) for value in (level, following, a))
    check_levels(here, there, kind)
    check_amount(amount, kind)
    return _step(x.to(wide), output.to(wide), here, there, amount, kind)


def _step(x: Tensor, output: Tensor, here: Tensor, there: Tensor, amount: Tensor, kind: Kind) -> Step:
    """`step` of checked arguments: no test here reads a number back from the device."""
    level, following = _beside(here, x), _beside(there, x)
    guess, noise = estimates(x, output, level, kind)
    std = step_std(here, there, amount, kind)
    wide_std = _beside(std, x)
    if kind == "consistency":
        return Step(following.sqrt() * guess, std)
    if kind == "ddim":
        rest = (1 - following - wide_std**2).clamp(min=0).sqrt()
        return Step(following.sqrt() * guess + rest * noise, std)
    if kind == "cps":
        mean = (1 - following) * guess + (following**2 - wide_std**2).clamp(min=0).sqrt() * noise
        return Step(mean, std)
    change = following - level
    # g² d = −std², so that the drift needs no division by the change.
    return Step(x + change * output - wide_std**2 / (2 * level) * noise, std)


def step_std(here: Tensor, there: Tensor, amount: Tensor, kind: Kind) -> Tensor:
    """The standard deviation alone, which does not depend on the policy."""
    if kind == "ode":
        return torch.zeros_like(here)
    if kind == "consistency":
        return (1 - there).clamp(min=0).sqrt()
    if kind == "ddim":
        return amount * ((1 - there) / (1 - here) * (1 - here / there)).clamp(min=0).sqrt()
    if kind == "cps":
        return there * torch.sin(amount * math.pi / 2)
    growth = amount
    if kind == "flow_sde":
        growth = amount * (here / (1 - torch.where(here == 1, there, here))).sqrt()
    return growth * (here - there).sqrt()


def estimates(
    x: Float[Tensor, "n *d"],
    output: Float[Tensor, "n *d"],
    level: float | Float[Tensor, "#n *#d"],
    kind: Kind = "flow_sde",
) -> tuple[Float[Tensor, "n *d"], Float[Tensor, "n *d"]]:
    r"""What the policy's output says of the clean sample and of the noise, from where it is: x̂₀ and ê.

        flow         x̂₀ = x − s v                       ê = x + (1 − s) v
        ddim         x̂₀ = (x − √(1 − ᾱ) e) / √ᾱ         ê = e
        consistency  x̂₀ = f                             ê = (x − √ᾱ f) / √(1 − ᾱ)

    Args:
        x: the samples.
        output: of the policy; gradients pass.
        level: s or ᾱ, one number or a tensor that broadcasts against x.
        kind: of `step`.

    Source: as for `step`; the score of a flow is −ê / s.

    >>> estimates(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 0.25)
    (tensor([[0.5000]]), tensor([[2.5000]]))
    """
    if kind in FLOW:
        return x - level * output, x + (1 - level) * output
    level = torch.as_tensor(level, dtype=x.dtype, device=x.device)
    if kind == "ddim":
        return (x - (1 - level).sqrt() * output) / level.sqrt(), output
    return output, (x - level.sqrt() * output) / (1 - level).sqrt()


def action_logp(
    action: Float[Tensor, "n *d"],
    taken: Step,
    *,
    density: Density = "gaussian",
    reduce: Reduce = "mean",
) -> Float[Tensor, "n"]:
    r"""How likely the next sample was.

        gaussian   −(x' − mean)² / (2 std²) − log std − ½ log 2π        square   −(x' − mean)²

    per element; then the mean or the sum over elements. The sum is the log-probability; the mean is what image
    policies clip by, so that a ratio does not depend on the number of pixels. square, which only ranks, is what CPS
    trains with: every step then pulls alike, however small its noise.

    Args:
        action: x', the sample that was drawn; no gradient passes through it.
        taken: mean and std of the step; gradients pass through the mean.
        density: gaussian or square.
        reduce: over the elements of a sample.

    Returns:
        One per row, in nats, in float32 or wider. A deterministic step (std 0) has no density: 0, without gradient.

    Raises:
        ValueError: if the shapes differ.

    Source: Flow-GRPO (arXiv 2505.05470), mean over elements; square: Flow-CPS (2509.05952); the sum: PRDP (2402.08714).

    >>> action_logp(torch.tensor([[1.0, 0.0]]), Step(torch.zeros(1, 2), torch.ones(1)), reduce="sum")
    tensor([-2.3379])
    """
    if action.shape != taken.mean.shape:
        raise ValueError(f"action {tuple(action.shape)} must have the shape of the mean {tuple(taken.mean.shape)}")
    if density not in get_args(Density) or reduce not in get_args(Reduce):
        raise ValueError(f"density is gaussian or square, reduce mean or sum, got {density!r} and {reduce!r}")
    drawn = taken.std > 0
    distance = (action.detach().to(taken.mean.dtype) - taken.mean) ** 2
    found = per_row(distance, reduce)
    if density == "square":
        return torch.where(drawn, -found, 0.0)
    std = torch.where(drawn, taken.std, 1.0)
    each = std.log() + 0.5 * math.log(2 * math.pi)
    elements = 1 if reduce == "mean" else math.prod(distance.shape[1:])
    return torch.where(drawn, -found / (2 * std**2) - elements * each, 0.0)


def gaussian_kl(
    mean: Float[Tensor, "n *td"],
    ref_mean: Float[Tensor, "n *td"],
    std: Float[Tensor, "n *t"],
    *,
    reduce: Reduce = "mean",
) -> Float[Tensor, "n *t"]:
    r"""KL between two steps with one noise, exactly: (mean − mean_ref)² / (2 std²), the mean or sum over elements.

    It is never negative and needs no estimate, since both policies add the same noise.

    Args:
        mean: of the policy's step; gradients pass.
        ref_mean: of the reference's, from the same sample; no gradient passes.
        std: of both, one per row, or per row and step of a `Replay`. Where it is 0 there is no KL: 0.
        reduce: over the elements of a sample.

    Raises:
        ValueError: if the shapes differ.

    Source: the KL term of Flow-GRPO (arXiv 2505.05470).

    >>> gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), torch.tensor([0.5]))
    tensor([1.])
    """
    if mean.shape != ref_mean.shape or std.shape != mean.shape[: std.ndim]:
        shapes = [tuple(x.shape) for x in (mean, ref_mean, std)]
        raise ValueError(f"mean and ref_mean must have one shape (n *d), std one number per row of it, got {shapes}")
    drawn = std > 0
    distance = ((mean - ref_mean.detach()) ** 2).reshape(*std.shape, math.prod(mean.shape[std.ndim :]))
    found = distance.mean(-1) if reduce == "mean" else distance.sum(-1)
    return torch.where(drawn, found / (2 * torch.where(drawn, std, 1.0) ** 2), 0.0)


def per_row(values: Float[Tensor, "n *d"], reduce: Reduce) -> Float[Tensor, "n"]:
    """The mean or sum over all axes behind the first."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    return flat.mean(1) if reduce == "mean" else flat.sum(1)


def check_levels(here: Tensor, there: Tensor, kind: Kind) -> None:
    """Levels between which a step of this kind is defined; the message names the one that is not."""
    if not bool((torch.isfinite(here) & torch.isfinite(there)).all()):
        raise ValueError("a level is not a finite number")
    if kind in FLOW:
        wrong = (here <= 0) | (here > 1) | (there < 0) | (there >= here)
        what = "flow times fall, from at most 1 to at least 0, and no step begins at 0, where no noise is left"
    elif kind == "ddim":
        wrong = (here <= 0) | (here >= 1) | (there > 1) | (there <= here)
        what = "signal levels ᾱ rise, from above 0, where the noise says nothing of the sample, to at most 1"
    else:
        wrong = (here < 0) | (here >= 1) | (there > 1) | (there <= here)
        what = "signal levels ᾱ rise, from at least 0 to at most 1, and no step begins at 1, where no noise is left"
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        raise ValueError(f"step {place} goes from {float(here[place]):g} to {float(there[place]):g}: {what}")


def check_amount(amount: Tensor, kind: Kind) -> None:
    """How much noise a step of this kind may have."""
    if kind in ("ode", "consistency"):
        return
    most = 1.0 if kind in ("cps", "ddim") else math.inf
    if bool((~(amount >= 0) | ~(amount <= most) | torch.isinf(amount)).any()):
        raise ValueError(f"a of {kind} must lie between 0 and {most:g}, got {amount.tolist()}")


def _rows(value: float | Tensor, x: Tensor, wide: torch.dtype) -> Tensor:
    found = torch.as_tensor(value, dtype=wide, device=x.device)
    if found.ndim > 1 or (found.ndim == 1 and len(found) != len(x)):
        raise ValueError(f"a level or amount is one number or one per row ({len(x)},), got {tuple(found.shape)}")
    return found.expand(len(x))


def _beside(per_row: Tensor, x: Tensor) -> Tensor:
    return per_row.reshape(-1, *[1] * (x.ndim - 1))
