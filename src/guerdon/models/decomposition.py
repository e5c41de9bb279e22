"""A reward of steps that learns beside the policy how the outcome of a rollout came about."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown
from guerdon.core.protocols import Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Level, Scores
from guerdon.credit import sample_steps, sampled_loss
from guerdon.models.outcomes import LearnedFromOutcomes
from guerdon.models.steps import Question, cut_of, transitions
from guerdon.objectives import Critic

StepFactors = Callable[[Sequence[Question]], Sequence[Sequence[float]]]


@dataclass(frozen=True)
class decomposed_return(LearnedFromOutcomes):
    """A reward for each step, learned so that those of a rollout add up to its outcome.

        rₜ = r_ψ(zₜ),  zₜ = φ(step t)        ψ learns from the outcome R by `credit.sampled_loss`: mean rₜ ≈ R / T

    Only the outcome of a whole rollout is seen. What tells its steps apart are a few numbers that a function reads off
    each of them: of these it is found out which go with success. All rewards are 0 until something has been learned.

    Args:
        factors: φ, a function from steps, as `transitions` has them, to a list of numbers for each, always as many.
        outcome: the reward that is taken apart, as a spec or an expression. It is measured anew for each update;
            rollouts on which it abstains teach nothing.
        cut: how a completion is cut into steps, as `probe.Cut` has it; 'turns' are an agent's.
        hidden: widths of the layers between factors and reward, with ReLU; none for a linear model.
        samples: of each rollout so many steps are learned from, drawn by chance, with replacement if it has fewer;
            None: all of them.
        unbiased: see `sampled_loss`. Without it, the rewards of a rollout are drawn together.
        updates: of ψ in each training step, on the rollouts of that step.
        learning_rate: of Adam.
        seed: of the weights and, with the training step, of the draw.

    Raises:
        ValueError: if a number is out of range, or the outcome gives one score per step.

    Source: LaRe (arXiv 2412.11120; thu-rllab/LaRe): three layers of 256, 64 samples, Adam at 3e-4. A last layer that
    begins at 0 is ours.
    """

    factors: StepFactors
    outcome: Any = "math.answer"
    cut: Any = "turns"
    hidden: tuple[int, ...] = (256, 256, 256)
    samples: int | None = 64
    unbiased: bool = True
    updates: int = 1
    learning_rate: float = 3e-4
    seed: int = 0
    _state: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        least = min(self.updates, 1 if self.samples is None else self.samples, *self.hidden, 1)
        if least < 1 or not 0 < self.learning_rate < math.inf:
            raise ValueError(
                "decomposed_return wants updates, samples and the widths of hidden of at least 1 and a learning_rate "
                f"above 0, got {self.updates}, {self.samples}, {list(self.hidden)} and {self.learning_rate}"
            )
        cut_of(self.cut)
        super().__post_init__()

    def __hash__(self) -> int:
        return hash((self.factors, self.hidden, self.samples, self.learning_rate, self.seed))

    @property
    def range(self) -> Range:
        return (-math.inf, math.inf)

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | cut_of(self.cut).requires

    @property
    def level(self) -> Level:
        return "step"

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        """One score per step; details: 'factors', those of each step.

        A step abstains whose factors are not finite numbers. All do if there are not as many for each step.
        """
        episodes, spans = transitions(rollouts, self.cut)
        vectors = self._vectors([step for steps in episodes for step in steps])
        known = np.array([vector is not None for vector in vectors], bool)
        valid = np.array(spans.mask)
        valid[spans.mask] = known
        values = np.zeros(valid.shape)
        if known.any():
            read = torch.tensor([vector for vector in vectors if vector is not None], dtype=torch.float32)
            with torch.no_grad():
                values[valid] = self._decoder(read.shape[1])(read).double().numpy()
        behind = iter(vectors)
        details = {"factors": [[next(behind) for _ in steps] for steps in episodes]}
        reasons = {
            int(row): f"step {int(step)}: its factors are not finite numbers"
            for row, step in np.argwhere(spans.mask & ~valid)[::-1]
        }
        return Scores(values, valid=valid, spans=spans, reasons=reasons, details=details)

    def update(self, rollouts: Rollouts, scores: Scores, context: Context) -> Mapping[str, float]:
        """Fit the outcomes of these rollouts, whose factors are the details of their scores; nothing if none is known.

        Returns:
            The loss before the last of the updates, in the squared unit of the outcome per step.
        """
        outcome = self._outcome.score(rollouts, context)
        rows = np.flatnonzero(to_numpy(scores.usable) & to_numpy(outcome.valid))
        if not len(rows):
            return {}
        factors, mask = _padded([scores.details["factors"][int(row)] for row in rows])
        totals = torch.as_tensor(to_numpy(outcome.read(0.0))[rows], dtype=torch.float32)
        decoder, optimizer = self._decoder(factors.shape[2]), self._optimizer()
        generator = torch.Generator()
        seeds = np.random.SeedSequence([self.seed, context.step])
        generator.manual_seed(int(seeds.generate_state(1)[0]))
        loss = totals.new_zeros(())
        for _ in range(self.updates):
            chosen, drawn = factors, mask
            if self.samples is not None:
                steps, drawn = sample_steps(mask, self.samples, generator=generator)
                chosen = factors.gather(1, steps[:, :, None].expand(-1, -1, factors.shape[2]))
            with torch.enable_grad():
                loss = sampled_loss(decoder(chosen), totals, mask.sum(1), drawn, unbiased=self.unbiased)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self._state["updates"] = self._state.get("updates", 0) + 1
        return {"loss": float(loss.detach())}

    def state_dict(self) -> dict[str, Any]:
        """The weights and the optimiser's state; nothing before the first update."""
        if "optimizer" not in self._state:
            return {}
        weights = self._state["decoder"].state_dict()
        return {
            "weights": {name: value.clone() for name, value in weights.items()},
            "optimizer": copy.deepcopy(self._state["optimizer"].state_dict()),
            "updates": self._state["updates"],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            self._state.clear()
            self._decoder(state["weights"]["layers.0.weight"].shape[1]).load_state_dict(state["weights"])
            self._optimizer().load_state_dict(copy.deepcopy(state["optimizer"]))
            self._state["updates"] = state["updates"]

    def _vectors(self, steps: Sequence[Question]) -> list[list[float] | None]:
        """The factors of each step; None where they are not finite numbers."""
        found = list(self.factors(steps)) if steps else []
        if len(found) != len(steps):
            raise Abstain(f"factors gave {len(found)} lists of numbers for {len(steps)} steps")
        vectors = [_vector(entry) for entry in found]
        known = self._state.get("width")
        for entry, vector in zip(found, vectors, strict=True):
            known = len(vector) if known is None and vector is not None else known
            if vector is not None and (not vector or len(vector) != known):
                raise Abstain(f"factors are as many numbers for each step, {known} and then {shown(entry)}")
        return vectors

    def _decoder(self, width: int) -> Critic:
        if "decoder" not in self._state:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.seed)
                self._state.update(width=width, decoder=Critic(width, hidden=self.hidden, start="zero"))
        return cast(Critic, self._state["decoder"])

    def _optimizer(self) -> torch.optim.Optimizer:
        if "optimizer" not in self._state:
            self._state["optimizer"] = torch.optim.Adam(self._state["decoder"].parameters(), lr=self.learning_rate)
        return cast(torch.optim.Optimizer, self._state["optimizer"])


def _vector(entry: Any) -> list[float] | None:
    try:
        vector = np.asarray(entry, np.float64)
    except (TypeError, ValueError):
        return None
    return vector.tolist() if vector.ndim == 1 and np.isfinite(vector).all() else None


def _padded(episodes: Sequence[Sequence[Sequence[float]]]) -> tuple[Float[Tensor, "n s d"], Bool[Tensor, "n s"]]:
    """The factors of the steps of some rollouts, 0 where there is no step, and where there is one."""
    mask = torch.zeros(len(episodes), max(map(len, episodes)), dtype=torch.bool)
    for row, steps in enumerate(episodes):
        mask[row, : len(steps)] = True
    flat = torch.tensor([vector for steps in episodes for vector in steps], dtype=torch.float32)
    factors = torch.zeros(*mask.shape, flat.shape[1])
    factors[mask] = flat
    return factors, mask
