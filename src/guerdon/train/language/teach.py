"""Supervised learning before reinforcement: a policy that can already answer, now and then."""

from __future__ import annotations

import inspect
import itertools
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, RecipeError, nearest
from guerdon.train.language import demonstrations
from guerdon.train.language.demonstrations import Demonstrate
from guerdon.train.language.policy import logprobs
from guerdon.train.language.tokenizer import encode_prompts, encode_text, pad
from guerdon.train.prompts import Prompts, Row
from guerdon.train.updates import Optimizer, adamw

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STREAM = 1  # of `Prompts.draw`: supervised learning goes through the prompts in an order of its own


@dataclass(frozen=True)
class TeachConfig:
    """Supervised learning on demonstrations.

    Args:
        demonstrations: a function of `train.demonstrations`.
        options: its options.
        ends: a demonstration is a whole completion, and ends with the end-of-sequence token. False: it is the beginning
            of one, and how that goes on is not taught.
        steps: optimiser steps.
        batch: demonstrations per step.
        micro_batch: demonstrations that pass through the model at once. They are sorted by length first, so that
            smaller ones carry less padding; the update is the same.
        learning_rate: of AdamW, at its peak.
        warmup: share of the steps in which the rate rises from 0.
        schedule: the rate after that: falling to 0 along a cosine, or constant.
        weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm.

    Raises:
        RecipeError: if a number is out of range, or there is no such demonstration or option.
    """

    demonstrations: str = "scratchpad"
    options: Mapping[str, Any] = field(default_factory=dict)
    ends: bool = True
    steps: int = 500
    batch: int = 192
    micro_batch: int = 64
    learning_rate: float = 3e-3
    warmup: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if (
            min(self.steps, self.batch, self.micro_batch) < 1
            or not self.learning_rate > 0
            or not self.max_grad_norm > 0
        ):
            raise RecipeError(
                "teach: steps, batch, micro_batch, learning_rate and max_grad_norm must be positive, got "
                f"{self.steps}, {self.batch}, {self.micro_batch}, {self.learning_rate} and {self.max_grad_norm}"
            )
        if not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise RecipeError(
                f"teach: warmup is a share in [0, 1) and weight_decay not negative, got {self.warmup} and "
                f"{self.weight_decay}"
            )
        self.demonstrate()

    def demonstrate(self) -> Demonstrate:
        """The function that writes demonstrations, its options set."""
        known = {
            name: function
            for name, function in vars(demonstrations).items()
            if inspect.isfunction(function)
            and function.__module__ == demonstrations.__name__
            and not name.startswith("_")
        }
        if self.demonstrations not in known:
            raise RecipeError(
                f"there are no demonstrations {self.demonstrations!r}: {nearest(self.demonstrations, known)}"
            )
        function = known[self.demonstrations]
        hints = typing.get_type_hints(function)
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        names = [p.name for p in parameters]
        for name in self.options:
            if name not in names:
                raise RecipeError(f"{self.demonstrations} has no option {name!r}: {nearest(name, names)}")
        for p in parameters:
            if p.default is p.empty and p.name not in self.options:
                raise RecipeError(f"{self.demonstrations} has no {p.name}: set it in teach.options")
        options = {name: coerce(value, hints[name], f"options.{name}") for name, value in self.options.items()}
        demonstrate: Demonstrate = function(**options)
        return demonstrate


def check(prompts: Prompts, config: TeachConfig) -> None:
    """Check, before any work, that there is something to show.

    Raises:
        RecipeError: if a row does not fit the demonstrations, or there are none in all of a file.
    """
    demonstrate = config.demonstrate()
    shown = [demonstrate(row, np.random.default_rng(0)) is not None for row in prompts.known()]
    if prompts.config.dataset is None and not any(shown):
        raise _nothing(prompts, config)


def teach(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    config: TeachConfig,
    *,
    seed: int,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train the policy, in place, to say what the demonstrations say.

    The loss is the mean over the completions' tokens, with `ends` the end-of-sequence token included, of
    −log π(yₜ | x, y₍<t₎); prompts are read and not learned. Prompts are those of training only, and those without a
    demonstration are passed over. Everything drawn at random is a function of the seed and the step.

    Args:
        model: a causal language model of `transformers`; left in evaluation mode.
        tokenizer: its tokenizer.
        prompts: the training prompts.
        config: what is shown, and how it is learned.
        seed: of the demonstrations.
        report: called after each step with how many are done and the loss.

    Returns:
        The loss of each step, in nats per token.

    Raises:
        RecipeError: if a row does not fit the demonstrations, or a text the alphabet, or no row has any.
        GuerdonError: if the loss is not finite.
    """
    settings = Optimizer(
        config.learning_rate, config.schedule, round(config.warmup * config.steps), weight_decay=config.weight_decay
    )
    optimizer, schedule = adamw(model, settings, config.steps)
    weights = [p for p in model.parameters() if p.requires_grad]
    losses: list[float] = []
    shown = _shown(prompts, config, seed)
    model.train()
    with torch.random.fork_rng(devices=[]):
        for step in range(config.steps):
            torch.manual_seed(seed * 1_000_003 + step)  # dropout, where the policy has any
            rows, said = zip(*itertools.islice(shown, config.batch), strict=True)
            optimizer.zero_grad()
            losses.append(0.0)
            for loss in _losses(model, tokenizer, rows, said, config):
                loss.backward()  # type: ignore[no-untyped-call]
                losses[-1] += loss.item()
            if not math.isfinite(losses[-1]):
                raise GuerdonError(f"teach, step {step}: the loss is {losses[-1]}: lower learning_rate")
            torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
            optimizer.step()
            schedule.step()
            if report is not None:
                report(step + 1, losses[-1])
    model.eval()
    return losses


def _shown(prompts: Prompts, config: TeachConfig, seed: int) -> Iterator[tuple[Row, str]]:
    """The rows in their order, without end, each with its demonstration; those that have none are left out."""
    demonstrate = config.demonstrate()
    found = passed = 0
    for place in itertools.count():
        [row] = prompts.draw(place, 1, stream=STREAM)
        said = demonstrate(row, np.random.default_rng([seed, *divmod(found, config.batch)]))
        if said is not None:
            found, passed = found + 1, 0
            yield row, said
        elif (passed := passed + 1) >= 2 * len(prompts):  # a whole epoch, wherever it began
            raise _nothing(prompts, config)


def _nothing(prompts: Prompts, config: TeachConfig) -> RecipeError:
    place, options = prompts.config.file or prompts.config.dataset, dict(config.options)
    return RecipeError(f"teach: {config.demonstrations} {options}: no prompt of {place} has anything to show")


def _losses(
    model: Any, tokenizer: Any, rows: Sequence[Row], said: Sequence[str], config: TeachConfig
) -> Iterator[torch.Tensor]:
    """The losses of micro-batches, whose sum is that of the batch; the shortest completions come first."""
    device = next(model.parameters()).device
    prompts = encode_prompts(tokenizer, [row["prompt"] for row in rows])
    end = [tokenizer.eos_token_id] if config.ends else []
    completions = [encode_text(tokenizer, text) + end for text in said]
    longest = max(len(prompt) + len(text) for prompt, text in zip(prompts, completions, strict=True))
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise RecipeError(f"teach: a prompt and its demonstration are {longest} tokens, of the policy's {context}")
    tokens = sum(map(len, completions))
    order = sorted(range(len(rows)), key=lambda i: len(completions[i]))
    for a in range(0, len(order), config.micro_batch):
        part = order[a : a + config.micro_batch]
        before = pad([prompts[i] for i in part], tokenizer.pad_token_id, side="left")
        after = pad([completions[i] for i in part], tokenizer.pad_token_id, side="right")
        logp, _ = logprobs(model, *(x.to(device) for x in (*before, *after)))
        yield -logp.sum() / tokens
