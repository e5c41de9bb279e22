"""A chain of denoising steps: its levels, and how much noise each step adds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.objectives.denoising.steps import Density, Kind, Reduce, check_amount, check_levels, step_std


@dataclass(frozen=True, eq=False)
class Chain:
    r"""Between which levels a sample is denoised, and with how much noise: all that sampling and learning must share.

    A chain of `t` steps has t + 1 levels. `a` may be a table: one entry per step, or per row and step; where it is 0
    the step is the ODE's, so which steps explore is data (`uniform`, `singular`, `calibrated`).

    Args:
        levels: Float["t+1"], s falling from 1 or ᾱ rising to 1, as `step` takes them; at least one.
        kind: of `step`.
        a: how much noise: a number, Float["t"] or Float["n t"].
        times: Float["t+1"], what the policy is told at each level, where that is not the level itself: numbers of
            training steps, say.
        density: of `action_logp`; None: square for cps, as its authors train, else gaussian.
        reduce: of `action_logp`: the mean or the sum over the elements of a sample.

    Raises:
        ValueError: if the sizes do not fit, or a step is not defined (see `step`), saying which one.

    Source: the sampler of Flow-GRPO (arXiv 2505.05470); a table in place of a constant: DenseGRPO (2601.20218).

    >>> chain = Chain(torch.linspace(1, 0, 5), "cps", 0.5)
    >>> len(chain), len(chain[1:3]), chain.std
    (4, 2, tensor([0.5303, 0.3536, 0.1768, 0.0000]))
    """

    levels: Float[Tensor, "t1"]
    kind: Kind = "flow_sde"
    a: float | Float[Tensor, "t"] | Float[Tensor, "n t"] = 0.7
    times: Float[Tensor, "t1"] | None = None
    density: Density | None = None
    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        levels = torch.as_tensor(self.levels)
        if levels.ndim != 1 or not len(levels):
            raise ValueError(f"levels must be (t+1,), one before the first step and one after each: {levels.shape}")
        levels = levels.to(torch.promote_types(levels.dtype, torch.float32))
        object.__setattr__(self, "levels", levels)
        if self.times is not None and self.times.shape != levels.shape:
            raise ValueError(f"times {tuple(self.times.shape)} must be like levels {tuple(levels.shape)}")
        check_levels(levels[:-1], levels[1:], self.kind)
        if isinstance(self.a, Tensor) and self.a.ndim:
            if self.a.ndim > 2 or self.a.shape[-1] != len(self):
                raise ValueError(
                    f"a must be a number, (t,) or (n, t) with t = {len(self)} steps, got {tuple(self.a.shape)}"
                )
            object.__setattr__(self, "a", self.a.to(levels))
        check_amount(self.amount.flatten(), self.kind)

    def __len__(self) -> int:
        return len(self.levels) - 1

    def __getitem__(self, steps: slice) -> Chain:
        """Some consecutive steps, as a chain of their own."""
        first, last, stride = steps.indices(len(self))
        if stride != 1 or last < first:
            raise ValueError(f"a part of a chain is consecutive steps, got {steps} of {len(self)}")
        nodes = slice(first, last + 1)
        return replace(
            self,
            levels=self.levels[nodes],
            times=None if self.times is None else self.times[nodes],
            a=self.a[..., first:last] if isinstance(self.a, Tensor) and self.a.ndim else self.a,
        )

    @property
    def amount(self) -> Tensor:
        """`a` as a table, Float["t"] or Float["n t"]."""
        amount = torch.as_tensor(self.a, dtype=self.levels.dtype, device=self.levels.device)
        return amount if amount.ndim else amount.expand(len(self))

    @property
    def std(self) -> Tensor:
        """The standard deviation of each step, Float["t"] or Float["n t"]."""
        here, there = (x.expand(self.amount.shape) for x in (self.levels[:-1], self.levels[1:]))
        return step_std(here, there, self.amount, self.kind)

    def exploring(self, a: float | Float[Tensor, "t"] | Float[Tensor, "n t"]) -> Chain:
        """The same chain with other noise."""
        return replace(self, a=a)

    def deterministic(self) -> Chain:
        """The same chain without noise: the ODE of a flow, DDIM with η = 0.

        Raises:
            ValueError: for a consistency chain, whose policy goes to the end in one step instead.
        """
        if self.kind == "consistency":
            raise ValueError("a consistency chain has no deterministic form: its policy ends in one step (`complete`)")
        return replace(self, a=0.0)

    def coarser(self, stride: int) -> Chain:
        """The first step, then only every stride-th level; the last level always stays.

        Source: granularities of G2RPO (arXiv 2510.01982), whose slices could lose the last level.

        >>> Chain(torch.linspace(1, 0, 6), "ode").coarser(2).levels
        tensor([1.0000, 0.8000, 0.4000, 0.0000])
        """
        if stride < 1 or (isinstance(self.a, Tensor) and self.a.ndim):
            raise ValueError(f"stride is at least 1, got {stride}, and a is one number: a table is of other steps")
        end = len(self)
        nodes = list(dict.fromkeys([0, *range(1, end, stride), end]))
        return replace(self, levels=self.levels[nodes], times=None if self.times is None else self.times[nodes])

    @property
    def told(self) -> Tensor:
        """What the policy is told at each level, Float["t+1"]."""
        return self.levels if self.times is None else self.times

    @property
    def own_density(self) -> Density:
        """`density`, or that of the kind."""
        return self.density or ("square" if self.kind == "cps" else "gaussian")
