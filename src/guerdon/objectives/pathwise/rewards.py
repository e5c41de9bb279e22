"""What takes clean samples and says how good they are, with a gradient: the reward of a pathwise objective.

A reward here is a function of samples "n *d" to one number each (or to `Scores`, whose abstentions have no weight).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.core.context import Context
from guerdon.core.errors import NotDifferentiable
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.objectives.denoising.chains import Policy
from guerdon.objectives.denoising.steps import Kind, estimates
from guerdon.objectives.pathwise.chains import noised

SampleReward = Callable[[Tensor], Any]


def check_differentiable(reward: SampleReward, example: Float[Tensor, "n *d"]) -> None:
    """Refuse a reward that gives samples no gradient, before they are made.

    What a reward says of itself (`differentiable`, as every guerdon reward does) is believed. Any other is called once
    on the example, without the policy.

    Args:
        reward: samples to numbers.
        example: as the samples will be; noise will do.

    Raises:
        NotDifferentiable: if it says so, or its numbers do not depend on the example differentiably.
        TypeError: for an expression of guerdon, which takes rollouts: `of_rollouts` makes a function of samples of it.

    Source: ours.

    >>> check_differentiable(lambda x: x.detach().sum(1), torch.ones(1, 2))
    Traceback (most recent call last):
    guerdon.core.errors.NotDifferentiable: the reward <lambda> gives its samples no gradient: ...
    """
    name = getattr(reward, "name", None) or getattr(reward, "__name__", None) or type(reward).__name__
    remedy = (
        "use a policy gradient, or estimate its gradient with pathwise.spsa, which costs two rewards per direction and "
        "sample"
    )
    known = getattr(reward, "differentiable", None)
    if known is False:
        raise NotDifferentiable(f"the reward {name} says that it is not differentiable: {remedy}")
    if hasattr(reward, "combine") and hasattr(reward, "leaves"):
        raise TypeError(f"the reward {name} takes rollouts, not samples: pathwise.of_rollouts joins the two")
    if known is True:
        return
    with torch.enable_grad():
        probe = example.detach().clone().requires_grad_()
        try:
            values = values_of(reward(probe))[0]
        except RuntimeError as error:
            if "requires grad" in str(error):  # torch's words for .numpy() on what has a gradient
                raise NotDifferentiable(f"the reward {name} leaves torch ({error}): {remedy}") from error
            raise
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), probe, allow_unused=True)
    if gradient is None:
        raise NotDifferentiable(f"the reward {name} gives its samples no gradient: {remedy}")


def values_of(found: Any) -> tuple[Tensor, Tensor | None]:
    """The numbers of a reward, and where it has one (None: everywhere)."""
    if isinstance(found, Scores):
        there: Tensor | None = found.valid
        found = found.read(0.0)
        return values_of(found)[0], there
    if not isinstance(found, Tensor):
        raise NotDifferentiable(f"a differentiable reward gives a tensor or Scores, got {type(found).__name__}")
    if found.ndim != 1:
        raise ValueError(f"a reward gives one number per sample (n,), got {tuple(found.shape)}")
    return found, None


class of_rollouts:
    """An expression of guerdon as a function of samples: the rollouts' completions are replaced by them.

    Args:
        reward: differentiable; whatever else it is made of.
        rollouts: prompts and columns of the batch.
        context: progress, models.

    Raises:
        NotDifferentiable: if one of its leaves is not.

    Source: ours.
    """

    def __init__(self, reward: Any, rollouts: Rollouts, context: Context | None = None) -> None:
        if not reward.differentiable:
            leaves = ", ".join(leaf.name for leaf in reward.leaves() if not leaf.differentiable) or reward.name
            raise NotDifferentiable(f"the reward {reward.name} is not differentiable: {leaves} has no gradient")
        self.reward, self.rollouts, self.context = reward, rollouts, context
        self.name, self.differentiable = reward.name, True

    def __call__(self, x: Float[Tensor, "n *d"]) -> Scores:
        """The scores of the samples."""
        scores: Scores = self.reward.score(self.rollouts.with_(completions=list(x)), self.context)
        return scores


class balanced:
    r"""Several rewards as one, each of which pulls at a sample with a strength of its own choosing.

        ∂R/∂x = Σᵢ cᵢ gᵢ/(‖gᵢ‖ + ε)        gᵢ = ∂Rᵢ/∂x, ‖·‖ over the elements of one sample

    Summed as they are, the reward with the steepest scale is the only one that is heard; multiplied by 1000, a reward
    changes nothing here. The number that is reported is Σᵢ cᵢ Rᵢ.

    Args:
        rewards: samples to numbers. A sample for which one of them abstains abstains.
        weights: c, one each; None: all 1.
        eps: ε, where a gradient vanishes.

    Raises:
        ValueError: without rewards, or if the weights are not as many.

    Source: R0 (arXiv 2503.13070, gradient normalisation).

    >>> x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    >>> balanced(lambda x: 1000 * x[:, 0], lambda x: x[:, 1])(x).sum().backward()
    >>> x.grad
    tensor([[1., 1.]])
    """

    def __init__(self, *rewards: SampleReward, weights: Sequence[float] | None = None, eps: float = 1e-8) -> None:
        weights = [1.0] * len(rewards) if weights is None else list(weights)
        if not rewards or len(weights) != len(rewards):
            raise ValueError(f"one weight per reward, got {len(weights)} for {len(rewards)}")
        self.rewards, self.weights, self.eps = rewards, weights, eps
        self.name = f"balanced({', '.join(getattr(r, 'name', type(r).__name__) for r in rewards)})"

    @property
    def differentiable(self) -> bool | None:
        """What they say of themselves together; None if one does not say."""
        said = [getattr(reward, "differentiable", None) for reward in self.rewards]
        return False if False in said else None if None in said else True

    def __call__(self, x: Float[Tensor, "n *d"]) -> Float[Tensor, "n"] | Scores:
        """The sum of the rewards, with the balanced gradient."""
        value, pull = x.new_zeros(len(x)), torch.zeros_like(x)
        there = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for reward, weight in zip(self.rewards, self.weights, strict=True):
            given, scored, gradient = differentiated(reward, x)
            norm = gradient.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
            value = value + weight * given
            pull = pull + weight * gradient / (norm + self.eps)
            there = there if scored is None else there & scored
        joined = with_gradient(value, x, pull)
        if bool(there.all()):
            return joined
        rows = (~there).nonzero()[:, 0].tolist()
        return Scores(joined, valid=there, reasons=dict.fromkeys(rows, "one of the balanced rewards abstained"))


class guidance:
    r"""Classifier-free guidance as a reward: how much better the noise of a sample is told with its prompt.

        R = ½ (‖ê_∅ − e‖² − ‖ê_c − e‖²)        ∂R/∂x₀ = ê_∅ − ê_c

    at x₀ with noise e; the mean over its elements in both. The gradient is that of log p(c | x) up to a positive factor
    of the level, and is not passed through the policies.

    Args:
        conditional: the (frozen) model with the prompt.
        unconditional: without.
        level: at which the samples are noised, one number or one per row.
        kind: of `denoising.step`.
        generator: of the noise.

    Source: the implicit reward of R0 (arXiv 2503.13070); its value: the diffusion classifier (2303.16203).
    """

    differentiable = True
    name = "guidance"

    def __init__(
        self,
        conditional: Policy,
        unconditional: Policy,
        *,
        level: float | Float[Tensor, "n"],
        kind: Kind = "ode",
        generator: torch.Generator | None = None,
    ) -> None:
        self.policies, self.level, self.kind, self.generator = (conditional, unconditional), level, kind, generator

    def __call__(self, x: Float[Tensor, "n *d"]) -> Float[Tensor, "n"]:
        """The reward of each sample."""
        with torch.no_grad():
            noise = torch.randn(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)
            at = noised(x, noise, self.level, kind=self.kind)
            level = torch.as_tensor(self.level, dtype=x.dtype, device=x.device).expand(len(x))
            beside = level.reshape(-1, *[1] * (x.ndim - 1))
            told, blind = (estimates(at, policy(at, level), beside, self.kind)[1] for policy in self.policies)
            value = 0.5 * ((blind - noise) ** 2 - (told - noise) ** 2).flatten(1).mean(1)
            pull = (blind - told) / max(x[0].numel(), 1) if len(x) else x
        return with_gradient(value, x, pull)


class spsa:
    r"""A reward that has no gradient with an estimate of it, from how it changes along random directions.

        g = 1/m Σₖ (f(x + h uₖ) − f(x − h uₖ))/(2h) · uₖ        u ~ N(0, I)

    The estimate is that of f smoothed by noise of size h; its error falls with the directions, and grows with the
    number of elements of a sample.

    Args:
        reward: samples to numbers, any function.
        samples: m.
        scale: h, in the unit of the samples: it must be larger than what the reward does not see.
        generator: of the directions.

    Raises:
        ValueError: if m < 1 or h ≤ 0.

    Source: simultaneous perturbation (Spall 1992) as in Euphonium (arXiv 2602.04928; zerzerzerz/Euphonium).
    """

    differentiable = True

    def __init__(
        self,
        reward: SampleReward,
        *,
        samples: int = 16,
        scale: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        if samples < 1 or not scale > 0:
            raise ValueError(f"samples must be at least 1 and scale above 0, got {samples} and {scale}")
        self.reward, self.samples, self.scale, self.generator = reward, samples, scale, generator
        self.name = f"spsa({getattr(reward, 'name', getattr(reward, '__name__', type(reward).__name__))})"

    def __call__(self, x: Float[Tensor, "n *d"]) -> Float[Tensor, "n"] | Scores:
        """What the reward says, with the estimated gradient; a direction in which it abstains has no weight."""
        with torch.no_grad():
            value, there = _plain(self.reward(x), x)
            pull, counted = torch.zeros_like(x), x.new_zeros(len(x))
            for _ in range(self.samples):
                direction = torch.randn(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)
                up, known_up = _plain(self.reward(x + self.scale * direction), x)
                down, known_down = _plain(self.reward(x - self.scale * direction), x)
                known = known_up & known_down
                slope = torch.where(known, up - down, 0.0) / (2 * self.scale)
                pull = pull + slope.reshape(-1, *[1] * (x.ndim - 1)) * direction
                counted = counted + known
            pull = pull / counted.clamp(min=1).reshape(-1, *[1] * (x.ndim - 1))
        found = with_gradient(value, x, pull)
        if bool(there.all()):
            return found
        rows = (~there).nonzero()[:, 0].tolist()
        return Scores(found, valid=there, reasons=dict.fromkeys(rows, f"{self.name}: the reward abstained"))


class segmental:
    r"""A reward of images as one of videos: one frame out of each segment, and those in the middle count most.

        R = mean over segments of exp(−λ |f − ⌊F/2⌋|) r(frame f)        f drawn from its segment

    Neighbouring frames say the same, so a few stand for all; equal weights on all of them pull frames towards one
    picture, which stops the motion. The weights are not divided by their sum: the reward of a video lies in a smaller
    range than that of its frames.

    Args:
        reward: of frames, "m *d" to "m".
        segments: S, as equal as the number of frames allows.
        decay: λ ≥ 0, per frame; 0 is the plain mean.
        generator: of the draw.

    Raises:
        ValueError: if S < 1 or λ < 0; on the call, if a video has fewer frames than segments.

    Source: InstructVideo (arXiv 2312.12490; ali-vilab/VGen); segments: TSN (1608.00859).

    >>> videos = torch.ones(1, 5, 3)
    >>> segmental(lambda frames: frames.mean(1), segments=5, decay=0.0)(videos)
    tensor([1.])
    """

    def __init__(
        self,
        reward: SampleReward,
        *,
        segments: int = 4,
        decay: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if segments < 1 or not decay >= 0:
            raise ValueError(f"segments must be at least 1 and decay not negative, got {segments} and {decay}")
        self.reward, self.segments, self.decay, self.generator = reward, segments, decay, generator
        self.name = f"segmental({getattr(reward, 'name', getattr(reward, '__name__', type(reward).__name__))})"

    @property
    def differentiable(self) -> bool | None:
        """What the reward of frames says of itself."""
        said: bool | None = getattr(self.reward, "differentiable", None)
        return said

    def pick(self, n: int, frames: int) -> Int[Tensor, "n s"]:
        """One frame out of each segment, for each of n videos."""
        if frames < self.segments:
            raise ValueError(f"{self.segments} segments need as many frames, the videos have {frames}")
        borders = torch.arange(self.segments + 1) * frames // self.segments
        width = borders.diff()
        drawn = (torch.rand(n, self.segments, generator=self.generator, dtype=torch.float64) * width).long()
        return borders[:-1] + torch.minimum(drawn, width - 1)

    def pool(self, rewards: Float[Tensor, "n s"], picked: Int[Tensor, "n s"], frames: int) -> Float[Tensor, "n"]:
        """The reward of each video, from those of its frames."""
        if rewards.shape != picked.shape:
            raise ValueError(f"one reward per picked frame: {tuple(rewards.shape)} for {tuple(picked.shape)}")
        weights = torch.exp(-self.decay * (picked - frames // 2).abs().to(rewards))
        return (weights * rewards).mean(1)

    def __call__(self, videos: Float[Tensor, "n f *d"]) -> Float[Tensor, "n"] | Scores:
        """The reward of each video. A video with a frame for which the reward abstains abstains."""
        n, frames = videos.shape[:2]
        picked = self.pick(n, frames)
        rows = torch.arange(n)[:, None]
        chosen = videos[rows.to(videos.device), picked.to(videos.device)].flatten(0, 1)
        values, there = values_of(self.reward(chosen))
        pooled = self.pool(values.reshape(n, -1), picked, frames)
        if there is None or bool(there.all()):
            return pooled
        whole = there.reshape(n, -1).all(1)
        missing = (~whole).nonzero()[:, 0].tolist()
        return Scores(pooled, valid=whole, reasons=dict.fromkeys(missing, "a frame of it has no reward"))


def differentiated(reward: SampleReward, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """A reward's numbers, where it has them, and its gradient by the samples; nothing behind the samples is touched."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        values, there = values_of(reward(leaf))
        if not values.requires_grad:
            raise NotDifferentiable("the reward gives its samples no gradient")
        kept = values if there is None else torch.where(there, values, 0.0)
        (gradient,) = torch.autograd.grad(kept.sum(), leaf)
    return kept.detach(), there, gradient


def with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Numbers whose gradient by the samples is the one given; the value is exactly the value."""
    if not x.requires_grad:
        return value.detach()
    moved = ((x - x.detach()) * gradient.detach()).flatten(1).sum(1)
    return value.detach() + moved


def _plain(found: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of any reward on the samples' device, 0 where it has none, and where it has one."""
    if isinstance(found, Scores):
        value, there = found.read(0.0), found.valid
    else:
        value = torch.as_tensor(found)
        there = torch.isfinite(value)
        value = torch.where(there, value, 0.0)
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if value.shape != x.shape[:1]:
        raise ValueError(f"a reward gives one number per sample ({len(x)},), got {tuple(value.shape)}")
    return value, torch.as_tensor(there, device=x.device)
