"""The one teacher-forced scorer: what a model says of targets after contexts, and how that becomes a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import MissingInput
from guerdon.core.parsing import Completion, text_of
from guerdon.core.protocols import Model, Range, TokenLogprobs
from guerdon.core.scores import Scores

How = Literal["sum", "mean", "exp-sum", "mean-exp", "exp-mean"]

RANGES: dict[str, Range] = {
    "sum": (-math.inf, 0.0),
    "mean": (-math.inf, 0.0),
    "exp-sum": (0.0, 1.0),
    "mean-exp": (0.0, 1.0),
    "exp-mean": (0.0, 1.0),
}


def forced(model: Model, contexts: Sequence[Any], targets: Sequence[Any], *, temperature: float = 1.0) -> TokenLogprobs:
    """Log-probability, entropy, rank and logit of each token of each target after its context, without gradients.

    Equal pairs are read once: the debias context of a group costs one pass, not one per rollout.

    Args:
        model: who is asked.
        contexts: text or chat messages, one per target.
        targets: text, or a message of its own.
        temperature: of the softmax.

    Returns:
        NumPy arrays in float64, one row per pair.

    Raises:
        ValueError: if there is not one context per target.
    """
    if len(contexts) != len(targets):
        raise ValueError(f"{len(contexts)} contexts and {len(targets)} targets: there is one context per target")
    numbers: dict[str, int] = {}
    index = np.array(
        [numbers.setdefault(repr(pair), len(numbers)) for pair in zip(contexts, targets, strict=True)], int
    )
    first = [int(np.argmax(index == number)) for number in range(len(numbers))]
    with _no_gradients():
        said = model.logprobs([contexts[i] for i in first], [targets[i] for i in first], temperature=temperature)
    columns = {f.name: to_numpy(getattr(said, f.name))[index] for f in fields(said) if f.name != "problems"}
    columns |= {name: columns[name].astype(np.float64) for name in ("logp", "entropy", "logit")}
    problems = {row: said.problems[int(at)] for row, at in enumerate(index) if int(at) in said.problems}
    return TokenLogprobs(**columns, problems=problems)


def _no_gradients() -> AbstractContextManager[Any]:
    if find_spec("torch") is None:
        return nullcontext()
    import torch

    return torch.no_grad()


def reduce(
    logp: Float[np.ndarray[Any, Any], "n t"], mask: Bool[np.ndarray[Any, Any], "n t"], how: How
) -> Float[np.ndarray[Any, Any], "n"]:
    """One number per text from the log-probabilities of its tokens, lₖ.

        sum         Σ lₖ              log-probability of the text
        mean        (1/L) Σ lₖ        the same per token
        exp-sum     exp Σ lₖ          probability of the text
        mean-exp    (1/L) Σ exp lₖ    mean probability of a token
        exp-mean    exp (1/L) Σ lₖ    geometric mean of the tokens' probabilities, 1 / perplexity

    The product of 200 probabilities of 0.9 is 7·10⁻¹⁰, where nothing is left to learn from; their log is −21. A mean
    does not see the length.

    Args:
        logp: in nats.
        mask: True where there is a token.
        how: which of the five.

    Returns:
        Float["n"]. A text without tokens is certain: log-probability 0, probability 1.

    Raises:
        ValueError: if the shapes differ, or for another `how`.

    Source: "Likelihood-Based Reward Designs" (arXiv 2602.03979): LogProb, AvgLogProb, Prob (VeriFree, 2505.21493)
    and AvgProb (RLPR, 2506.18254); 'exp-mean': IGPO (2510.14967).

    >>> reduce(np.log([[0.5, 0.5], [0.25, 1.0]]), np.ones((2, 2), bool), "mean-exp")
    array([0.5  , 0.625])
    """
    if logp.shape != mask.shape or logp.ndim != 2:
        raise ValueError(f"logp and mask must have one shape (n, t), got {logp.shape} and {mask.shape}")
    if how not in get_args(How):
        raise ValueError(f"how is one of {', '.join(get_args(How))}, got {how!r}")
    logp = np.where(mask, logp, 0.0)
    count = mask.sum(1)
    if how == "mean-exp":
        total = np.where(mask, np.exp(logp), 0.0).sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), 1.0)
    total = logp.sum(1)
    if how in ("mean", "exp-mean"):
        total = total / np.maximum(count, 1)
    return np.asarray(np.exp(total) if how.startswith("exp") else total)


def model_of(context: Context, name: str) -> Model:
    """The model of a name.

    Raises:
        MissingInput: if the context does not have it.
    """
    if name not in context.models:
        raise MissingInput(f"model {name!r} is missing; the context has: {', '.join(context.models) or 'no models'}")
    return context.models[name]


def reads_model(model: str, **options: Any) -> set[str]:
    """The `requires` of a part that asks one model."""
    return {f"model:{model}"}


def extended(prompt: Completion, text: str) -> Completion:
    """A prompt with words of the assistant behind it."""
    return prompt + text if isinstance(prompt, str) else [*prompt, {"role": "assistant", "content": text}]


def without_query(prompt: Completion) -> Completion:
    """A prompt without its question: nothing, or the messages with what the user said left out of them."""
    if isinstance(prompt, str):
        return ""
    return [{**message, "content": ""} if message.get("role") == "user" else message for message in prompt]


def instructed(prompt: Completion, instruction: str) -> Completion:
    """A prompt with an instruction in front of it: a paragraph, or a system message."""
    if not instruction:
        return prompt
    if isinstance(prompt, str):
        return f"{instruction}\n\n{prompt}"
    return [{"role": "system", "content": instruction}, *prompt]


def said_by(completion: Completion) -> str | None:
    """The text of a completion of one message; None if there are several, which are not one text."""
    return text_of(completion) if isinstance(completion, str) or len(completion) == 1 else None


def scored(values: Float[np.ndarray[Any, Any], "n"], problems: Mapping[int, str], **details: Sequence[Any]) -> Scores:
    """Scores where there is a problem or no finite number being abstentions."""
    return Scores.of(values.tolist(), reasons=problems, details=details)
