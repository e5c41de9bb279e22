"""A critic in the loop: what a rollout is expected to bring, before each of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.coerce import coerce
from guerdon.core.errors import RecipeError
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.objectives import Critic as Head, clipped_value_loss
from guerdon.train import crediting
from guerdon.train.language.losses import Experience, teaches_critic
from guerdon.train.language.policy import PolicyConfig, read
from guerdon.train.method import Method
from guerdon.train.scoring import penalty

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class CriticConfig:
    """A value head, on the policy's hidden states or on those of a model of its own.

    On the policy's, no gradient passes: the policy's representation is not moved by the critic's noise. What it learns
    is said by who reads it: credit gives its values targets, an objective that has a parameter `values` a gradient.

    Args:
        model: a model of its own, with the policy's tokenizer, which learns with the head: what `policy` takes. None:
            the policy's states.
        hidden: widths of the layers between the hidden states and the value, with ReLU; none for a linear head.
        start: of the last layer: "random", or "zero", so that every value is 0 at first.
        learning_rate: of the critic; otherwise its optimiser is that of the policy.
        warmup: training steps at the beginning in which only the critic learns.
        targets: what a value should have been: "credit": what the credit that reads it makes of it; "prefix": the mean
            reward of the group's rollouts that begin with the same tokens, whoever reads the values, if anyone.
        clip: towards targets, no more is won by moving a value further than this from what it was at sampling; None:
            no bound.
        micro: rollouts that pass through the critic at once when values are computed at sampling.

    Raises:
        RecipeError: if a number is out of range.

    Source: the defaults are VL-DAC's (arXiv 2508.04280), whose learning rate is 1e-6 for policy and critic; values of
    prefixes: TVM (2407.12863).
    """

    model: Any = None
    hidden: tuple[int, ...] = (2048,)
    start: Literal["random", "zero"] = "random"
    learning_rate: float = 1e-6
    warmup: int = 2
    targets: Literal["credit", "prefix"] = "credit"
    clip: float | None = 0.1
    micro: int = 64

    def load_model(self) -> PolicyConfig | None:
        """The settings of the model of its own.

        Raises:
            SpecError: for an unknown setting or type.
        """
        return None if self.model is None else coerce(self.model, PolicyConfig, "critic.model")

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or self.warmup < 0 or self.micro < 1 or min(self.hidden, default=1) < 1:
            raise RecipeError(
                "critic: learning_rate is above 0, warmup at least 0, micro and the widths of hidden at least 1; got "
                f"{self.learning_rate}, {self.warmup}, {self.micro} and {list(self.hidden)}"
            )
        if self.clip is not None and self.clip < 0:
            raise RecipeError(f"critic: clip must not be negative, got {self.clip}")


class Values(torch.nn.Module):
    """A head, and the model under it where it has one of its own."""

    def __init__(self, head: Head, trunk: torch.nn.Module | None) -> None:
        super().__init__()
        self.head, self.trunk = head, trunk

    def forward(self, *inputs: Tensor) -> Float[Tensor, "n t"]:
        """One value before each token, of the hidden states, or of what `states` reads."""
        [hidden] = inputs if self.trunk is None else [states(self.trunk, *inputs)]
        values: Tensor = self.head(hidden.float())
        return values


class Critic:
    """A critic that learns beside the policy; `module` is what accelerate made of it.

    Args:
        config: what it is.
        policy: whose hidden states it reads, without a model of its own.
        trunk: that model.
        settings: of the policy's optimiser, of which the critic's differs in its rate.
        accelerator: prepares model and optimiser.
        seed: of the head's weights.
    """

    def __init__(
        self,
        config: CriticConfig,
        policy: Any,
        trunk: Any,
        settings: dict[str, Any],
        accelerator: Accelerator,
        *,
        max_grad_norm: float,
        seed: int,
    ) -> None:
        self._config, self._policy, self._max_grad_norm = config, policy, max_grad_norm
        self._accelerator = accelerator
        own = trunk is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Head(
                (trunk if own else policy).config.hidden_size,
                hidden=config.hidden,
                features="shared" if own else "detached",
                start=config.start,
            )
        self._values = Values(head, trunk.float() if own else None).to(accelerator.device)
        optimizer = torch.optim.AdamW(self._values.parameters(), config.learning_rate, **settings)
        self.module, self._optimizer = accelerator.prepare(self._values, optimizer)

    def alone(self, step: int) -> bool:
        """Whether only the critic learns in a training step, counted from 1."""
        return step <= self._config.warmup

    @torch.no_grad()
    def values(
        self,
        prompt_ids: Int[Tensor, "n p"],
        prompt_mask: Bool[Tensor, "n p"],
        ids: Int[Tensor, "n t"],
        attended: Bool[Tensor, "n t"],
    ) -> Float[Tensor, "n t"]:
        """What it expects before each token; 0 where there is none."""
        size = self._config.micro
        parts = zip(*(torch.split(x, size) for x in (prompt_ids, prompt_mask, ids, attended)), strict=True)
        found = [self._read(self._values, *part) for part in parts]
        return torch.where(attended, torch.cat(found), 0.0) if found else torch.zeros(ids.shape)

    def expected(self, part: Experience) -> Float[Tensor, "n t"]:
        """What it expects before each token of a micro-batch, with gradients; 0 where there is none."""
        values = self._read(self.module, part.prompt_ids, part.prompt_mask, part.ids, part.attended)
        return torch.where(part.attended, values, 0.0)

    def backward(self, part: Experience, whole: Experience) -> tuple[float, float]:
        """The gradient of a micro-batch's value loss, over the values of its minibatch.

        Returns:
            The sum of squared errors of the values at sampling, and how many there are.
        """
        asked = whole.valued
        assert part.values is not None
        assert part.targets is not None
        assert part.valued is not None
        assert asked is not None
        count = max(1.0, float(asked.sum()))
        loss, sums = clipped_value_loss(
            self.expected(part), part.values, part.targets, part.valued, clip=self._config.clip, denominator=count
        )
        self._accelerator.backward(loss * self._accelerator.num_processes)
        return float(sums["error"]), float(sums["steps"])

    def update(self) -> None:
        """Take a step along the gradients of the micro-batches since the last."""
        if self._max_grad_norm:
            self._accelerator.clip_grad_norm_(self.module.parameters(), self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser."""
        return {"weights": dict(self._values.state_dict()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._values.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _read(self, module: torch.nn.Module, *inputs: Tensor) -> Tensor:
        if self._values.trunk is not None:
            values: Tensor = module(*inputs)
            return values
        training = self._policy.training
        self._policy.eval()
        try:
            with torch.no_grad():
                hidden = states(self._policy, *inputs)
        finally:
            self._policy.train(training)
        return module(hidden)  # type: ignore[no-any-return]


def states(
    model: Any,
    prompt_ids: Int[Tensor, "n p"],
    prompt_mask: Bool[Tensor, "n p"],
    ids: Int[Tensor, "n t"],
    attended: Bool[Tensor, "n t"],
) -> Float[Tensor, "n t d"]:
    """The last layer's hidden state before each token of each completion: first that of the prompt's last token."""
    passed = read(model, prompt_ids, prompt_mask, ids, attended, logits_to_keep=1, output_hidden_states=True)
    hidden: Tensor = passed.hidden_states[-1]
    return hidden[:, prompt_ids.shape[1] - 1 : -1]


def targets(
    method: Method, rollouts: Rollouts, scores: Scores, *, by: Literal["credit", "prefix"] = "credit"
) -> dict[str, Tensor]:
    """What the critic is to learn from scored rollouts.

    Args:
        method: whose credit or objective reads the values.
        rollouts, scores: the batch.
        by: see `CriticConfig.targets`.

    Returns:
        The values at sampling, what they should have been, and where that is known: at each token, or at the first
        token of each step where the values of steps were read; never in a rollout without a score. Nothing, where it
        learns from the objective.
    """
    if teaches_critic(method):
        return {}
    assert rollouts.tokens is not None
    if by == "prefix":
        wanted, known = crediting.prefix_targets(rollouts, scores)
    else:
        wanted, known = crediting.targets(method.credit, rollouts, scores, penalty=penalty(method, rollouts))
    return {"values": torch.as_tensor(rollouts.tokens.values).float(), "targets": wanted.float(), "valued": known}
