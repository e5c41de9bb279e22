"""A flow field that learns beside the policy from the rollouts that succeed."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import MissingInput
from guerdon.core.protocols import Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Level, Scores
from guerdon.core.spans import Spans
from guerdon.credit.normalize import Form, rescale
from guerdon.models.flow_field import FlowField, flow_deviation, flow_loss
from guerdon.models.outcomes import LearnedFromOutcomes


@dataclass(frozen=True)
class flow_reward(LearnedFromOutcomes):
    """How far each token's hidden states stray from where those of successful rollouts go, as a score of tokens.

        score = rescale(flow_deviation(field, hidden states))        field learns by flow_loss on rollouts that succeed

    A penalty: weigh it by a small negative number. The field is built when the first hidden states are seen; one that
    has been taught before, by `flow_loss` on expert data, is put in with `load_state_dict`.

    Args:
        model: whose hidden states are read; frozen ones keep their meaning while the policy learns.
        depths: of the layers that are read, as shares of the model's depth.
        outcome: the reward that says which rollouts the field learns from, as a spec or an expression.
        imitate: the least outcome to learn from with weight 1.
        others: the weight of the other rollouts.
        entropy: the field learns only from this share of the tokens, those of the highest entropy in the batch.
        times: see `flow_deviation`.
        form, bilateral, power, threshold, top: see `credit.rescale`. The source's thresholds are 0.01 to 0.8.
        blocks, hidden: of the field.
        learning_rate: of AdamW.
        seed: of the field's weights and of the noise, with the training step.

    Raises:
        ValueError: if a number is out of range.

    Source: RLFR (Jinghaoleven/RLFR).
    """

    model: str = "reference"
    depths: tuple[float, ...] = (0.25, 0.5, 0.75)
    outcome: Any = "math.answer"
    imitate: float = 1.0
    others: float = 0.0
    entropy: float = 1.0
    times: tuple[float, ...] = (0.8,)
    form: Form = "min-max"
    bilateral: bool = False
    power: float = 1.0
    threshold: float = 0.0
    top: int | None = None
    blocks: int = 4
    hidden: int = 1024
    learning_rate: float = 1e-6
    seed: int = 0
    _state: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
            raise ValueError(f"depths are shares in [0, 1], at least one, got {self.depths}")
        if not (0 < self.entropy <= 1 and 0 <= self.others <= 1 and self.learning_rate > 0):
            raise ValueError(
                "flow_reward wants entropy in (0, 1], others in [0, 1] and a learning_rate above 0, got "
                f"{self.entropy}, {self.others} and {self.learning_rate}"
            )
        super().__post_init__()

    def __hash__(self) -> int:
        return hash((self.model, self.depths, self.times, self.seed))

    @property
    def range(self) -> Range:
        return (-1.0 if self.bilateral else -math.inf if self.form != "min-max" else 0.0, 1.0)

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | {f"model:{self.model}", "tokens"}

    @property
    def level(self) -> Level:
        return "step"

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        """One score per written token."""
        latents, mask, read = self._latents(rollouts, context)
        written = to_numpy(self._tokens(rollouts).written)
        scores = flow_deviation(
            self._field(latents), latents, mask, self.depths, times=self.times, generator=self._noise(context, latents)
        )
        values = rescale(
            scores, mask & torch.as_tensor(written, device=mask.device), form=self.form, bilateral=self.bilateral,
            power=self.power, threshold=self.threshold, top=self.top,
        )  # fmt: skip
        place = np.tile(np.arange(written.shape[1]), (len(written), 1))
        reasons = {int(row): "the model could not read the rollout" for row in np.flatnonzero(~read)}
        spans = Spans(place, place + 1, written)
        return Scores(to_numpy(values), valid=written & read[:, None], spans=spans, reasons=reasons)

    def update(self, rollouts: Rollouts, scores: Scores, context: Context) -> Mapping[str, float]:
        """One optimiser step of the field on the rollouts that succeed."""
        outcome = self._outcome.score(rollouts, context)
        latents, mask, _ = self._latents(rollouts, context)
        field_, optimizer = self._field(latents), self._optimizer(latents)
        won = to_numpy(outcome.read(-math.inf)) >= self.imitate
        weights = np.where(won, 1.0, self.others) * to_numpy(outcome.valid)
        counted = mask & torch.as_tensor(self._uncertain(rollouts), device=mask.device)
        with torch.enable_grad():
            loss = flow_loss(
                field_, latents, counted, self.depths, weights=torch.as_tensor(weights, device=mask.device),
                generator=self._noise(context, latents),
            )  # fmt: skip
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self._state["updates"] = self._state.get("updates", 0) + 1
        return {"loss": float(loss.detach())}

    def state_dict(self) -> dict[str, Any]:
        """The field's weights and the optimiser's state; nothing before hidden states were seen."""
        if "field" not in self._state:
            return dict(self._state.get("pending", {}))
        optimizer = self._state.get("optimizer")
        weights = self._state["field"].state_dict()
        return {
            "weights": {name: value.detach().cpu().clone() for name, value in weights.items()},
            "optimizer": None if optimizer is None else copy.deepcopy(optimizer.state_dict()),
            "updates": self._state.get("updates", 0),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; of a field taught elsewhere, its 'weights' are enough."""
        if state:
            self._state.clear()
            self._state.update(pending=dict(state), updates=state.get("updates", 0))

    def _latents(
        self, rollouts: Rollouts, context: Context
    ) -> tuple[Float[Tensor, "l n t d"], Bool[Tensor, "n t"], Bool[np.ndarray[Any, Any], "n"]]:
        """The hidden states of all tokens at each depth, which tokens there are, and which rollouts were read."""
        tokens = self._tokens(rollouts)
        ids, attended = to_numpy(tokens.ids), to_numpy(tokens.attended)
        texts = [row[there].tolist() for row, there in zip(ids, attended, strict=True)]
        with torch.no_grad():
            layers = [context.models[self.model].hidden(rollouts.prompts, texts, layer=float(d)) for d in self.depths]
        mask = layers[0][1]
        read = to_numpy(mask.sum(1)) == attended.sum(1)
        room = attended.shape[1] - mask.shape[1]
        latents = torch.stack([torch.nn.functional.pad(states, (0, 0, 0, room)) for states, _ in layers])
        return latents, torch.nn.functional.pad(mask, (0, room)), read

    def _uncertain(self, rollouts: Rollouts) -> Bool[np.ndarray[Any, Any], "n t"]:
        """The tokens to learn from: the written ones of high entropy."""
        tokens = self._tokens(rollouts)
        written = to_numpy(tokens.written)
        if self.entropy == 1:
            return written
        if tokens.entropy is None:
            raise MissingInput("flow_reward chooses tokens by their entropy, which this batch does not have")
        entropy = np.where(written, to_numpy(tokens.entropy), -np.inf)
        least = np.quantile(entropy[written], 1 - self.entropy) if written.any() else 0.0
        return np.asarray(entropy >= least)

    def _field(self, latents: Tensor) -> FlowField:
        if "field" not in self._state:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                made = FlowField(latents.shape[-1], depth=self.blocks, hidden=self.hidden).to(latents.device)
            self._state["field"] = made
            pending = self._state.pop("pending", None)
            if pending is not None:
                made.load_state_dict(pending["weights"])
                if pending.get("optimizer") is not None:
                    self._optimizer(latents).load_state_dict(pending["optimizer"])
        return cast(FlowField, self._state["field"])

    def _optimizer(self, latents: Tensor) -> torch.optim.Optimizer:
        if "optimizer" not in self._state:
            weights = self._field(latents).parameters()
            self._state["optimizer"] = torch.optim.AdamW(weights, lr=self.learning_rate)
        return cast(torch.optim.Optimizer, self._state["optimizer"])

    def _noise(self, context: Context, latents: Tensor) -> torch.Generator:
        seed = int(np.random.SeedSequence([self.seed, context.step]).generate_state(1)[0])
        return torch.Generator(latents.device).manual_seed(seed)
