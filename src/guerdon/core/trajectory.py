"""Trajectories of agents, control and denoising: what a policy did, step by step."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from jaxtyping import Bool, Float

from guerdon.core.arrays import Array


@dataclass(frozen=True, eq=False)
class Trajectory:
    """`n` trajectories of at most `t` steps, padded on the right; a denoising chain is one.

    Args:
        mask: Bool["n t"], True where the step was taken.
        actions: Float["n t …"], what the policy did (for denoising, the next sample).
        states: Float["n t+1 …"], what it saw, the last state included.
        times: Float["n t"] or Float["t"], physical or diffusion time of each step.
        noise: Float["n t"] or Float["t"], the standard deviation of each stochastic step.
        logp: Float["n t"], log-probability of each action under the policy that took it.
        ref_logp: Float["n t"], the same under the reference policy.
        rewards: Float["n t"], the environment's own.
        terminated: Bool["n"], the task ended.
        truncated: Bool["n"], the time limit ended it.

    Raises:
        ValueError: if a field does not have one row per trajectory, or one entry per step.
    """

    mask: Bool[Array, "n t"]
    actions: Float[Array, "n t ..."] | None = None
    states: Float[Array, "n t1 ..."] | None = None
    times: Float[Array, "..."] | None = None
    noise: Float[Array, "..."] | None = None
    logp: Float[Array, "n t"] | None = None
    ref_logp: Float[Array, "n t"] | None = None
    rewards: Float[Array, "n t"] | None = None
    terminated: Bool[Array, "n"] | None = None
    truncated: Bool[Array, "n"] | None = None

    def __post_init__(self) -> None:
        n, t = self.mask.shape
        for name, value in self._rows():
            if value.shape[0] != n:
                raise ValueError(f"{name} has {value.shape[0]} rows, mask has {n}")
            steps = {"states": t + 1, "terminated": None, "truncated": None}.get(name, t)
            if steps is not None and value.shape[1:2] != (steps,):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {steps} steps on its second axis")
        for name in ("times", "noise"):
            value = getattr(self, name)
            if value is not None and value.ndim == 1 and value.shape[0] != t:
                raise ValueError(f"{name} has {value.shape[0]} steps, expected {t}")

    def _rows(self) -> list[tuple[str, Any]]:
        values = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [(name, v) for name, v in values if v is not None and not (name in ("times", "noise") and v.ndim == 1)]

    def __len__(self) -> int:
        return int(self.mask.shape[0])

    def __getitem__(self, row: int) -> Trajectory:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return self.select(slice(row, row + 1))

    def select(self, index: Any) -> Trajectory:
        """Some of the trajectories: a slice, row numbers or a Boolean mask."""
        return replace(self, **{name: value[index] for name, value in self._rows()})
