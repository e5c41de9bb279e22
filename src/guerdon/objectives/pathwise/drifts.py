"""A reward's gradient in the sampler: rollouts are steered to where it rises, and the policy learns to go there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.objectives.denoising.chain import Chain
from guerdon.objectives.denoising.steps import Step
from guerdon.objectives.pathwise.rewards import check_differentiable, differentiated

StateReward = Callable[[Tensor, Tensor], Any]  # samples "n *d" and times "n" to one number each, or Scores


class drift:
    r"""A guide for `denoising.sample`: the mean of each step is moved by k g, g the gradient of a reward of the state.

        shift = k · g · |Δs|        g = ∂r(x_s, s)/∂x, or of r(x̂₀), divided by ‖g‖ if normalised

    Log-probabilities stay those of the step without it, so that a policy gradient draws the policy to where it was
    led; `absorbing` is the regression that does it directly. k = 0 changes nothing.

    Args:
        reward: of states and times (a process reward), with a gradient; a row where it abstains is not moved. `spsa`
            gives one to a reward that has none.
        chain: what is sampled; of a flow.
        strength: k; η²/(2β) for a reward that is to be weighed by 1/β against a noise of η.
        normalized: by the norm over the elements of each sample.
        per_time: times |Δs|.
        first: the first step that is moved; before it a state says little of where it goes.
        clean: the reward is of the clean estimates x̂₀, which are read off the step, and g is by them.

    Raises:
        NotDifferentiable: on the first call, if the reward says that it has no gradient, or has none.
        ValueError: for a chain that is not of a flow with a drift ('ode', 'dance', 'flow_sde'), where clean, or a
            first step outside of the chain.

    Source: Euphonium (arXiv 2602.04928; zerzerzerz/Euphonium: η 0.25, β 3.125, from step 12 of 16, times |Δs|).
    """

    def __init__(
        self,
        reward: StateReward,
        chain: Chain,
        *,
        strength: float = 0.01,
        normalized: bool = False,
        per_time: bool = True,
        first: int = 0,
        clean: bool = False,
    ) -> None:
        if not 0 <= first <= len(chain):
            raise ValueError(f"first is one of the {len(chain)} steps of the chain, got {first}")
        if chain.kind not in ("ode", "dance", "flow_sde", *(() if clean else ("cps",))):
            raise ValueError(f"a drift needs a step whose mean has one in the velocity, not {chain.kind!r}")
        self.reward, self.chain, self.first, self.clean = reward, chain, first, clean
        self.strength, self.normalized, self.per_time = strength, normalized, per_time
        self._told = chain.levels if chain.times is None else chain.times
        if getattr(reward, "differentiable", None) is False:
            check_differentiable(reward, torch.zeros(0))  # type: ignore[arg-type]  # says so and raises

    def __call__(self, x: Float[Tensor, "n *d"], time: Float[Tensor, "n"], step: Step) -> Float[Tensor, "n *d"]:
        """The shift of the mean, without gradient."""
        if not len(x):
            return torch.zeros_like(x)
        i = int((self._told[:-1].to(x.device) - time[0]).abs().argmin())
        if i < self.first or self.strength == 0:
            return torch.zeros_like(x)
        level, following = (self.chain.levels[k].to(x).expand(len(x)) for k in (i, i + 1))
        at = x
        if self.clean:
            beside = level.reshape(-1, *[1] * (x.ndim - 1))
            at = x - beside * velocity_of(step, x, level, following)
        _, _, gradient = differentiated(lambda z: self.reward(z, time), at)
        if self.normalized:
            gradient = gradient / (gradient.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1)) + 1e-8)
        width = (level - following).abs().reshape(-1, *[1] * (x.ndim - 1)) if self.per_time else 1.0
        return self.strength * width * gradient


def absorbing(
    velocity: Float[Tensor, "n *d"],
    shift: Float[Tensor, "n *d"],
    level: float | Float[Tensor, "n"],
    following: float | Float[Tensor, "n"],
    *,
    std: float | Float[Tensor, "n"] = 0.0,
) -> Float[Tensor, "n *d"]:
    r"""The velocity whose own step has the mean that a guide moved there: a target for regression, without gradient.

        v* = v + shift / (∂mean/∂v)        ∂mean/∂v = Δs − std² (1 − s)/(2s)

    With std 0 it is v − (k/|Δs|) g for a shift of k g: the deterministic step absorbs the guide. With the std of the
    step, the stochastic one does. mean((v − v*)²) distils the guide into the policy, which then goes there unguided.

    Args:
        velocity: of the policy that was guided.
        shift: of the mean, from `drift`.
        level: s of the step, in (0, 1].
        following: s' < s.
        std: of the step.

    Raises:
        ValueError: if the shapes or levels do not fit.

    Source: the distillation of Euphonium (arXiv 2602.04928), which leaves its scale open.

    >>> absorbing(torch.tensor([[1.0]]), torch.tensor([[0.5]]), 0.5, 0.25)
    tensor([[-1.]])
    """
    if velocity.shape != shift.shape:
        raise ValueError(f"velocity {tuple(velocity.shape)} and shift {tuple(shift.shape)} must have one shape")
    wide = torch.promote_types(velocity.dtype, torch.float32)
    s, to, noise = (
        torch.as_tensor(y, dtype=wide, device=velocity.device).expand(len(velocity)) for y in (level, following, std)
    )
    if not bool(((s > 0) & (s <= 1) & (to >= 0) & (to < s) & (noise >= 0)).all()):
        raise ValueError("flow times fall within [0, 1], and std is not negative")
    pull = _sensitivity(noise, s, to).reshape(-1, *[1] * (velocity.ndim - 1))
    return velocity.detach().to(wide) + shift.detach().to(wide) / pull


def velocity_of(step: Step, x: Tensor, level: Tensor, following: Tensor) -> Tensor:
    """The velocity that a step of kind ode, dance or flow_sde was made of."""
    shape = (-1, *[1] * (x.ndim - 1))
    drawn = (step.std**2 / (2 * level)).reshape(shape)
    return (step.mean - x + drawn * x) / _sensitivity(step.std, level, following).reshape(shape)


def _sensitivity(std: Tensor, level: Tensor, following: Tensor) -> Tensor:
    """∂mean/∂v of a flow's step: Δs − std² (1 − s)/(2s), below 0."""
    return (following - level) - std**2 * (1 - level) / (2 * level)
