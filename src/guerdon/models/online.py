"""An implicit process reward model that learns beside the policy, from outcomes alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import GuerdonError, MissingInput
from guerdon.core.parsing import text_of
from guerdon.core.protocols import Range, TrainableModel
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Level, Scores
from guerdon.core.spans import Spans, split
from guerdon.models.implicit import Kind, at_steps, implicit_loss, log_ratio, total, written_runs
from guerdon.models.outcomes import LearnedFromOutcomes

Granularity = Literal["token", "turn", "step", "rollout"]


@dataclass(frozen=True)
class implicit_reward(LearnedFromOutcomes):
    """The log-ratio of a reward model that is trained on the outcomes of the rollouts it scores, and a reference.

        rₜ = β (log π_φ(yₜ) − log π_ref(yₜ))        φ learns from l(y), the outcome, by `implicit_loss` on Σ rₜ

    Begin with φ equal to the reference: the rewards are then 0 until something has been learned. In a recipe,
    `models: {prm: policy}` is such a φ. The loss is taken twice through the model, first without gradients: pairs
    need all scores at once, and memory only grows with the micro-batch of the model.

    Args:
        model: the name of φ, a model whose weights may change.
        reference: the name of π_ref: where φ began, or 'old', the policy that wrote the rollouts.
        outcome: the reward whose score is the label, as a spec or an expression; of [0, 1] for ce and kto. It is
            measured anew for each update. Rollouts on which it abstains teach nothing.
        beta: β.
        loss: see `implicit_loss`.
        granularity: one score per 'token', per 'turn' (stretch that the policy wrote), per 'step' (see
            `separator`), or for the whole 'rollout'.
        separator: what ends a step.
        mean: the loss sees the mean over turns or steps, and not their sum, so that a long rollout is no surer one.
        when: 'after': rewards are of the φ that the batch found; 'before': φ first learns from the batch it is to
            score, in training.
        learning_rate: of AdamW.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
        micro_batch: rollouts that are learned from at once; the update does not depend on it.

    Raises:
        ValueError: if a number is out of range.

    Source: PRIME (arXiv 2502.01456): ce, tokens, both values of `when`; iStar (2509.19199): loss='dpo',
    granularity='turn', mean=True, reference='old'. The rate is theirs; the bound on the gradient is ours.
    """

    model: str = "prm"
    reference: str = "reference"
    outcome: Any = "math.answer"
    beta: float = 0.05
    loss: Kind = "ce"
    granularity: Granularity = "token"
    separator: str = "\n\n"
    mean: bool = False
    when: Literal["after", "before"] = "after"
    learning_rate: float = 1e-6
    max_grad_norm: float = 1.0
    micro_batch: int = 16
    _state: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.beta > 0 and self.learning_rate > 0 and self.max_grad_norm >= 0 and self.micro_batch > 0):
            raise ValueError(
                "implicit_reward wants beta, learning_rate and micro_batch above 0 and max_grad_norm of at least 0, "
                f"got {self.beta}, {self.learning_rate}, {self.micro_batch} and {self.max_grad_norm}"
            )
        super().__post_init__()

    def __hash__(self) -> int:
        return hash((self.model, self.reference, self.loss, self.granularity, self.when, self.beta))

    @property
    def range(self) -> Range:
        return (-math.inf, math.inf)

    @property
    def requires(self) -> frozenset[str]:
        models = {f"model:{self.model}", f"model:{self.reference}"}
        return super().requires | models | {"tokens"}

    @property
    def level(self) -> Level:
        return "rollout" if self.granularity == "rollout" else "step"

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        """The log-ratios; with when='before', of the model that has learned from these rollouts."""
        if self.when == "before" and context.training:
            self._state["metrics"] = self._learn(rollouts, context)
        spans = self._spans(rollouts)
        with torch.no_grad():
            rewards, written, problems = self._rewards(np.arange(len(rollouts)), rollouts, context)
        read = np.array([row not in problems for row in range(len(rollouts))], bool)
        if spans is None:
            return Scores(to_numpy(total(rewards, written, how="sum")), valid=read, reasons=problems)
        steps = to_numpy(at_steps(rewards, written, spans))
        return Scores(steps, valid=spans.mask & read[:, None], spans=spans, reasons=problems)

    def update(self, rollouts: Rollouts, scores: Scores, context: Context) -> Mapping[str, float]:
        """One optimiser step on the outcomes of these rollouts, unless `measure` has taken it."""
        return self._learn(rollouts, context) if self.when == "after" else self._state.pop("metrics", {})

    def state_dict(self) -> dict[str, Any]:
        """The weights and the optimiser's state; nothing before the first update."""
        if "optimizer" not in self._state:
            return dict(self._state.get("pending", {}))
        return {
            "weights": self._state["trained"].state_dict(),
            "optimizer": copy.deepcopy(self._state["optimizer"].state_dict()),
            "updates": self._state["updates"],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, as soon as the model is there."""
        if state:
            self._state.update(pending=dict(state), updates=state["updates"])
            self._state.pop("optimizer", None)

    def _trained(self, context: Context) -> TrainableModel:
        model = cast(TrainableModel, context.models[self.model])
        pending = self._state.pop("pending", None)
        if pending is not None:
            model.load_state_dict(pending["weights"])
            self._optimizer(model).load_state_dict(pending["optimizer"])
        return model

    def _optimizer(self, model: TrainableModel) -> torch.optim.Optimizer:
        if self._state.get("trained") is not model or "optimizer" not in self._state:
            weights = list(model.parameters())
            if not weights:
                raise GuerdonError(f"model {self.model!r} has no weights to train: name one of your own")
            self._state.update(trained=model, optimizer=torch.optim.AdamW(weights, lr=self.learning_rate))
        return cast(torch.optim.Optimizer, self._state["optimizer"])

    def _rewards(
        self, rows: Int[np.ndarray[Any, Any], "m"], rollouts: Rollouts, context: Context
    ) -> tuple[Float[Tensor, "m t"], Bool[Tensor, "m t"], dict[int, str]]:
        """One reward per token of some rows, which of them were written, and why a row could not be read."""
        tokens = self._tokens(rollouts)
        ids, attended = to_numpy(tokens.ids), to_numpy(tokens.attended)
        prompts = [rollouts.prompts[i] for i in rows]
        texts = [ids[i][attended[i]].tolist() for i in rows]
        said = self._trained(context).logprobs(prompts, texts)
        with torch.no_grad():
            base = context.models[self.reference].logprobs(prompts, texts)
        written = torch.as_tensor(to_numpy(tokens.written)[rows], device=said.logp.device)
        wide = (0, written.shape[1] - said.logp.shape[1])
        logp, ref_logp = (torch.nn.functional.pad(x, wide) for x in (said.logp, base.logp.to(said.logp.device)))
        return log_ratio(logp, ref_logp, written, beta=self.beta), written, {**base.problems, **said.problems}

    def _totals(
        self, rows: Int[np.ndarray[Any, Any], "m"], rollouts: Rollouts, context: Context, spans: Spans | None
    ) -> tuple[Float[Tensor, "m"], Bool[Tensor, "m"]]:
        """The score of some rollouts that the loss is about, and which of them could be read."""
        rewards, written, problems = self._rewards(rows, rollouts, context)
        read = torch.tensor([i not in problems for i in range(len(rows))], device=rewards.device)
        if spans is None or not self.mean:
            return total(rewards, written, how="sum"), read
        chosen = spans.select(rows)
        steps = at_steps(rewards, written, chosen)
        return total(steps, torch.as_tensor(chosen.mask, device=steps.device), how="mean"), read

    def _learn(self, rollouts: Rollouts, context: Context) -> dict[str, float]:
        outcome = self._outcome.score(rollouts, context)
        model, spans = self._trained(context), self._spans(rollouts)
        optimizer = self._optimizer(model)
        chunks = np.array_split(np.arange(len(rollouts)), max(1, math.ceil(len(rollouts) / self.micro_batch)))
        with torch.no_grad():
            parts = [self._totals(rows, rollouts, context, spans) for rows in chunks]
        scores, read = (torch.cat(column) for column in zip(*parts, strict=True))
        with torch.enable_grad():
            scores.requires_grad_()
            loss, sums = implicit_loss(
                scores,
                torch.as_tensor(to_numpy(outcome.read(0.0)), device=scores.device),
                kind=self.loss,
                groups=torch.as_tensor(rollouts.groups, device=scores.device),
                mask=read & torch.as_tensor(to_numpy(outcome.valid), device=scores.device),
            )
            (slope,) = torch.autograd.grad(loss, scores)
            optimizer.zero_grad()
            for rows in chunks:
                if slope[rows].any():
                    (self._totals(rows, rollouts, context, spans)[0] * slope[rows]).sum().backward()  # type: ignore[no-untyped-call]
        if self.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(list(model.parameters()), self.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        self._state["updates"] = self._state.get("updates", 0) + 1
        terms = float(sums["terms"])
        return {"loss": float(loss.detach()), "right": float(sums["right"]) / terms if terms else math.nan}

    def _spans(self, rollouts: Rollouts) -> Spans | None:
        if self.granularity == "rollout":
            return None
        tokens = self._tokens(rollouts)
        written = to_numpy(tokens.written)
        if self.granularity == "token":
            place = np.tile(np.arange(written.shape[1]), (len(written), 1))
            return Spans(place, place + 1, written)
        if self.granularity == "turn":
            return written_runs(torch.as_tensor(written))
        if tokens.offsets is None:
            raise MissingInput("steps of a text need the tokens' offsets, which this batch does not have")
        texts = [text_of(completion) for completion in rollouts.column("completion")]
        return split(texts, self.separator).to_tokens(tokens.offsets)
