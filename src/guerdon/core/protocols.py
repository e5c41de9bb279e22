"""The contracts between the rooms: all that the engine knows of a reward, and a reward of a shaper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import Array

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from guerdon.core.comparisons import Comparisons
    from guerdon.core.context import Context
    from guerdon.core.rollouts import Rollouts
    from guerdon.core.scores import Level, Scores

Scope = Literal["row", "group", "batch"]
Lane = Literal["process", "batch", "async"]
Range = tuple[float, float]

SCOPES: tuple[Scope, ...] = ("row", "group", "batch")


class Reward(Protocol):
    """An immutable expression that scores rollouts."""

    @property
    def name(self) -> str:
        """What its scores are called in logs and reports."""

    @property
    def range(self) -> Range:
        """The lowest and highest score it can give."""

    @property
    def requires(self) -> frozenset[str]:
        """What it reads: columns, 'tokens', 'model:policy'."""

    @property
    def scope(self) -> Scope:
        """What must be scored together; the engine never splits it."""

    @property
    def level(self) -> Level:
        """One score per rollout, or one per step."""

    @property
    def differentiable(self) -> bool:
        """True if its scores carry gradients to the completions; its leaves then run in this process."""

    def leaves(self) -> tuple[Leaf, ...]:
        """The distinct leaves, each measured once."""

    def demand(self, rollouts: Rollouts) -> Mapping[Leaf, Bool[np.ndarray[Any, Any], "n"]]:
        """Which rows each leaf is asked for; a router asks each leaf for its own rows only."""

    def combine(self, measured: Measured, context: Context) -> Scores:
        """The scores of the expression from those of its leaves; pure."""

    def observe(self, measured: Measured, context: Context) -> None:
        """Once per training step: every stateful part sees the scores that reached it."""


class Leaf(Protocol):
    """The part of a reward that does work: the only place with effects.

    Its lane says where it runs and what the engine calls:

    - 'process': plain Python on untrusted input, which may hang. `evaluate` is called in a worker
      process, once per unit, each under the deadline.
    - 'async': waits for something else. `evaluate` is a coroutine function, called once per unit,
      each under the deadline.
    - 'batch': vectorised. `measure` is called in this process, once, with all rows it is asked for.

    A unit is a row, a group (`unit='group'`, or any column whose equal values belong together): for
    those, `evaluate` gets a list per column and gives a list of outcomes.
    """

    @property
    def name(self) -> str:
        """What its scores are called."""

    @property
    def lane(self) -> Lane:
        """Where it runs."""

    @property
    def range(self) -> Range:
        """The lowest and highest score it can give; anything else it returns is an abstention."""

    @property
    def floor(self) -> float:
        """What an unusable answer gets: the lowest score, unless it says otherwise."""

    @property
    def scope(self) -> Scope:
        """What must be scored together."""

    @property
    def level(self) -> Level:
        """One score per rollout, or one per step."""

    @property
    def requires(self) -> frozenset[str]:
        """What it reads."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns `evaluate` takes, in order; 'context' is the context without rollouts and models."""

    @property
    def unit(self) -> str:
        """What one call of `evaluate` is about: 'row', 'group', or a column."""

    @property
    def deadline(self) -> float | None:
        """Seconds one unit may take from when its work starts; None: the engine's default."""

    @property
    def rate(self) -> float | None:
        """Async lane: how many attempts may begin per second; None: as many as there is room for."""

    @property
    def retries(self) -> int:
        """Async lane: how often a unit that failed is tried again, all under its one deadline."""

    @property
    def retry_on(self) -> tuple[type[BaseException], ...] | None:
        """Async lane: which exceptions are worth another attempt; None: those that say so of themselves."""

    @property
    def differentiable(self) -> bool:
        """True if its scores carry gradients."""

    def identity(self) -> str | None:
        """All that its scores depend on besides the columns it reads, for the cache; None: they are not cached."""

    def check(self) -> None:
        """Raise where it cannot work at all on this machine; called before any work."""

    def evaluate(self, *columns: Any) -> Any:
        """One unit's outcome: a number, None to abstain, `(number, details)`, or a list of those for a group."""

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        """The scores of these rollouts, in this process."""


Measured = Mapping[Leaf, "Scores"]  # what the engine hands to `combine` and `observe`


class Shaper(Protocol):
    """Scores to scores. Calling it is pure; `observe` updates its state."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def requires(self) -> frozenset[str]:
        """What it reads from the context's rollouts."""

    @property
    def scope(self) -> Scope:
        """What must be shaped together."""

    def range(self, inner: Range) -> Range:
        """The range of its output, given the range of its input."""

    def __call__(self, scores: Scores, context: Context) -> Scores:
        """The shaped scores."""

    def observe(self, scores: Scores, context: Context) -> None:
        """Update state from one training step's scores, as they reached this shaper."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, as plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class Comparator(Protocol):
    """Says which of two rollouts is better."""

    async def compare(self, first: Rollouts, second: Rollouts, context: Context) -> Comparisons:
        """Compare row by row; the second side may be an outside reference."""


@dataclass(frozen=True, eq=False)
class TokenLogprobs:
    """What a model says of given texts, one column per token, padded on the right; NumPy arrays or torch tensors.

    Args:
        logp: log p of each token after all before it, in nats: log softmax(z / T).
        mask: True where there is a token. What stands elsewhere does not matter.
        entropy: of the distribution that the token stands in, −Σᵥ pᵥ log pᵥ, in nats.
        rank: how many tokens are likelier; 0 for the one a greedy reader would have chosen.
        logit: z of the token, before temperature and normalisation; the normaliser T·log Σᵥ exp(zᵥ/T) is
            logit − T·logp.
        problems: for each row that the model could not read (longer than its context, outside of its alphabet),
            why; such a row has no tokens, and whoever reads it abstains.

    Raises:
        ValueError: if the shapes differ.
    """

    logp: Float[Array, "n t"]
    mask: Bool[Array, "n t"]
    entropy: Float[Array, "n t"]
    rank: Int[Array, "n t"]
    logit: Float[Array, "n t"]
    problems: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("mask", "entropy", "rank", "logit"):
            if getattr(self, name).shape != self.logp.shape:
                raise ValueError(
                    f"{name} has shape {tuple(getattr(self, name).shape)}, logp has {tuple(self.logp.shape)}"
                )


class Model(Protocol):
    """A language model, as far as rewards and samplers need one.

    A prompt is text or chat messages. A completion that is text goes on where the prompt ends (of messages: a new
    message of the assistant, or the last one if it is the assistant's); messages of one entry are a turn of
    their own, by whomever; token ids are taken as they are.

    Prompt and completion are turned into tokens each by itself and joined, as sampling does. A completion then has
    the same tokens after every prompt, so that its tokens can be compared between prompts one by one.
    """

    def logprobs(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, temperature: float = 1.0
    ) -> TokenLogprobs:
        """What the model says of each completion after its prompt; with gradients where they are enabled."""

    def generate(
        self,
        prompts: Sequence[Any],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: tuple[str, ...] = (),
        seed: int = 0,
    ) -> Rollouts:
        """Sample one completion per prompt, with tokens; a function of its arguments and the weights.

        Where a prompt cannot be gone on with, the completion says nothing and the column 'problem' says why.
        """

    def hidden(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, layer: int | float = -1
    ) -> tuple[Float[Tensor, "n t d"], Bool[Tensor, "n t"]]:
        """Hidden states of each token of each completion, and which tokens exist.

        A whole `layer` counts blocks, 0 being the embedding and −1 the last; one with a point is a share of the depth.
        """


class TrainableModel(Model, Protocol):
    """A model that a learned reward can train."""

    def parameters(self) -> Iterable[Tensor]:
        """The weights that learn."""

    def state_dict(self) -> dict[str, Tensor]:
        """Their values."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
