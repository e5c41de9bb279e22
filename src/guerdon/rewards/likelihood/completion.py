"""How likely a completion is: with and without its prompt, under one model or two, and its logits as soft values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.context import Context
from guerdon.core.parsing import Completion
from guerdon.core.protocols import Range, TokenLogprobs
from guerdon.core.scores import Scores
from guerdon.rewards.likelihood.forced import (
    RANGES,
    How,
    forced,
    instructed,
    model_of,
    reads_model,
    reduce,
    said_by,
    scored,
    without_query,
)

Comparison = Literal["ratio", "difference", "log", "none"]


@reward(lane="batch", range=lambda how, **options: RANGES[how], requires=reads_model)
def completion(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    context: Context,
    *,
    model: str = "reference",
    how: How = "sum",
    query: bool = True,
    before: str | None = None,
    filler: float = 0.2,
    profile: bool = False,
) -> Scores:
    """How likely a model finds the completion: how ordinary it is, and, without the prompt, how little it says.

    Under a prior that does not see the question, a token costs its surprisal, −log Q(zₜ | z₍<ₜ₎): filler is almost
    free, a new fact is not. 'sum' is then minus the length of the text in nats under the prior.

    Args:
        prompt: text or chat messages.
        completion: text, or one message.
        context: holds the model.
        model: its name.
        how: see `reduce`.
        query: whether the model sees the question. Without, of chat messages only what the user said is left out.
        before: only the completion's text before the first of these counts ('</think>' for the reasoning). None,
            and where there is none: all of it.
        filler: tokens under this many nats are counted as filler.
        profile: also keep the surprisal of each token, which of long reasonings is much to log.

    Returns:
        One score per rollout; details: 'tokens', 'filler', their share under `filler` nats, and with `profile`
        'surprisal'.

    Source: CIB (arXiv 2603.08462), r_min under a frozen prior: how='sum', query=False.
    """
    texts, problems = _texts(completion, before)
    contexts = list(prompt) if query else [without_query(p) for p in prompt]
    said = forced(model_of(context, model), contexts, texts)
    count = said.mask.sum(1)
    cheap = (said.mask & (said.logp > -filler)).sum(1) / np.maximum(count, 1)
    values = reduce(said.logp, said.mask, how)
    details: dict[str, list[Any]] = {"tokens": count.tolist(), "filler": cheap.tolist()}
    if profile:
        details["surprisal"] = [(-row[there]).tolist() for row, there in zip(said.logp, said.mask, strict=True)]
    return scored(values, {**said.problems, **problems}, **details)


def _comparison_range(comparison: Comparison, least: float | None, **options: Any) -> Range:
    high = {"ratio": 1.0, "difference": math.inf, "log": math.inf, "none": 4.0}[comparison]
    low = -math.inf if least is None else least
    if not low < high:
        raise ValueError(f"self_aligned: least must be below {high:g}, the most a {comparison!r} can be; got {least}")
    return low, high


@reward(
    lane="batch",
    range=_comparison_range,
    requires=reads_model,
)
def self_aligned(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    context: Context,
    *,
    model: str = "old",
    comparison: Comparison = "ratio",
    least: float | None = -1.0,
) -> Scores:
    """How much of the completion is owed to the question: its perplexity without the question against that with it.

        ratio         (ppl(a) − ppl(a|q)) / (ppl(a) + 10⁻⁹)
        difference    ppl(a) − ppl(a|q)
        log           log ppl(a) − log ppl(a|q)
        none          5 − ppl(a|q)

    with ppl = exp(−mean log p). A generic text is as likely without the question, and gains nothing; one that speaks
    of it becomes a surprise.

    Args:
        prompt: text or chat messages.
        completion: text, or one message.
        context: holds the model.
        model: its name; the policy that wrote the completions, so that both terms are of one snapshot.
        comparison: which of the four.
        least: lower scores are raised to this; None: none are.

    Returns:
        One score per rollout; details: 'perplexity' with the question and 'alone' without.

    Raises:
        ValueError: at once, if `least` is not below the highest score.

    Source: Self-Aligned Reward (arXiv 2509.05489): 'ratio', least=−1, weighed 0.2 beside correctness at 1; the others
    are options of its released code.
    """
    texts, problems = _texts(completion, None)
    judge = model_of(context, model)
    asked = forced(judge, list(prompt), texts)
    alone = forced(judge, [without_query(p) for p in prompt], texts)
    nll = -reduce(asked.logp, asked.mask, "mean"), -reduce(alone.logp, alone.mask, "mean")
    problems = {**asked.problems, **alone.problems, **problems}
    with np.errstate(over="ignore"):
        perplexity, without = np.exp(nll[0]), np.exp(nll[1])
    if comparison == "log":
        values = nll[1] - nll[0]
    elif comparison == "none":
        values = 5.0 - perplexity
    elif comparison == "difference":
        values = without - perplexity
    else:  # in the log domain: a perplexity may be beyond all numbers
        values = -np.expm1(np.minimum(nll[0] - nll[1], 700.0)) / (1.0 + 1e-9 * np.exp(-nll[1]))
    values = values if least is None else np.maximum(values, least)
    return scored(values, problems, perplexity=perplexity.tolist(), alone=without.tolist())


def _two_models(strong: str, weak: str, **options: Any) -> set[str]:
    return {f"model:{strong}", f"model:{weak}"}


@reward(lane="batch", range=(-math.inf, math.inf), floor=0.0, requires=_two_models)
def density_ratio(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    context: Context,
    *,
    strong: str = "policy",
    weak: str = "reference",
    how: Literal["sum", "mean"] = "mean",
    instruction: str = "",
    instruct: Literal["strong", "both"] = "strong",
) -> Scores:
    """The log-ratio of two models on the completion: what alignment made of one of them.

        r(x, y) = log p_strong(y|x) − log p_weak(y|x)        mean: r / tokens of y, as the strong model counts them

    Each model reads the text in its own tokens, so the two may have different tokenizers. If the strong model is the
    weak one tilted by exp(r*/β), β r is r* up to a constant of the prompt, and ranks completions as r* does.

    Args:
        prompt: text or chat messages.
        completion: text, or one message.
        context: holds the models.
        strong: the better aligned model, after preference optimisation.
        weak: the same family before it. The wider the gap, the better.
        how: 'sum' is the log-ratio; 'mean' does not grow with the length.
        instruction: criteria and examples of what is preferred, in front of the prompt. For one per domain, use
            `route`.
        instruct: who is given the instruction. The source does not say; 'strong' keeps the weak side plain.

    Returns:
        One score per rollout; details: 'tokens', as the strong model counts them.

    Source: CDR (arXiv 2411.02481) and its released reward_hub, which scores with the mean.
    """
    texts, problems = _texts(completion, None)
    given = [instructed(p, instruction) for p in prompt]
    first = forced(model_of(context, strong), given, texts)
    second = forced(model_of(context, weak), given if instruct == "both" else list(prompt), texts)
    count = first.mask.sum(1)
    values = reduce(first.logp, first.mask, "sum") - reduce(second.logp, second.mask, "sum")
    values = values / np.maximum(count, 1) if how == "mean" else values
    return scored(values, {**first.problems, **second.problems, **problems}, tokens=count.tolist())


def _discount(model: str, gamma: float, alpha: float, **options: Any) -> set[str]:
    if not 0 <= gamma <= 1 or not alpha > 0:
        raise ValueError(f"endogenous wants gamma in [0, 1] and alpha above 0, got {gamma} and {alpha}")
    return reads_model(model)


@reward(lane="batch", range=(-math.inf, math.inf), floor=0.0, requires=_discount)
def endogenous(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    context: Context,
    *,
    model: str = "reference",
    alpha: float = 1.0,
    gamma: float = 1.0,
    normalize: Literal["none", "length"] = "none",
    instruction: str = "",
) -> Scores:
    """The reward that a language model was implicitly trained to maximise, read off its logits as soft values.

        R(x, y) = Σₕ rₕ        rₕ = f(sₕ, aₕ) − γ V(sₕ₊₁)        V(s) = α log Σ_a exp(f(s, a) / α),  0 at the end

    Args:
        prompt: text or chat messages.
        completion: text, or one message.
        context: holds the model.
        model: its name.
        alpha: the temperature of the soft values.
        gamma: the discount.
        normalize: 'length' divides by the number of tokens; each adds about V, which no model keeps near 0.
        instruction: what is to be judged, in front of the prompt.

    Returns:
        One score per rollout; details: 'tokens'.

    Raises:
        ValueError: at once, if gamma or alpha is out of range.

    Source: EndoRM, "Generalist Reward Models" (arXiv 2506.23235). Whether its experiments discount or normalise is
    not stated; the defaults do neither.
    """
    texts, problems = _texts(completion, None)
    contexts = [instructed(p, instruction) for p in prompt]
    said = forced(model_of(context, model), contexts, texts, temperature=alpha)
    values = inverse_bellman(said, alpha=alpha, gamma=gamma).sum(1)
    count = said.mask.sum(1)
    values = values / np.maximum(count, 1) if normalize == "length" else values
    return scored(values, {**said.problems, **problems}, tokens=count.tolist())


def inverse_bellman(
    said: TokenLogprobs, *, alpha: float = 1.0, gamma: float = 1.0
) -> Float[np.ndarray[Any, Any], "n t"]:
    """The reward of each token: its logit, less the soft value of where it leads.

        rₕ = f(sₕ, aₕ) − γ V(sₕ₊₁) = α log π(aₕ|sₕ) + V(sₕ) − γ V(sₕ₊₁)

    At γ = 1 this is α log π shaped by the potential −V, so Σ rₕ = α log π(y|x) + V(s₁) and the best policy is π
    itself. Logits must be raw: of log-probabilities V is 0 everywhere, and nothing is left but log π.

    Args:
        said: log-probabilities at temperature α, and the raw logits; texts without gaps, padded on the right.
        alpha: α > 0, the temperature of the softmax that `said` is of.
        gamma: γ in [0, 1].

    Returns:
        One reward per token, 0 where there is none; the unit of the logits.

    Source: EndoRM (arXiv 2506.23235): inverse soft Bellman operator.

    >>> row = np.zeros((1, 2))
    >>> logit, logp = np.array([[2.0, 1.0]]), np.array([[2 - 2.12693, 1 - 1.69315]])
    >>> inverse_bellman(TokenLogprobs(logp, row == 0, row, row, logit)).round(3)
    array([[0.307, 1.   ]])
    """
    logit, logp = (np.where(said.mask, x, 0.0) for x in (said.logit, said.logp))
    value = np.where(said.mask, logit - alpha * logp, 0.0)
    following = np.concatenate([value[:, 1:], np.zeros((len(value), 1))], 1)[:, : value.shape[1]]
    return np.where(said.mask, logit - gamma * following, 0.0)


def _texts(completions: Sequence[Completion], before: str | None) -> tuple[list[str], dict[int, str]]:
    """The text of each completion, up to a marker, and why some have none."""
    texts, problems = [], {}
    for row, spoken in enumerate(completions):
        text = said_by(spoken)
        if text is None:
            problems[row] = f"the completion has {len(spoken)} messages, which are not one text"
        elif not text:
            problems[row] = "the completion is empty: there is nothing to be likely"
        text = text or ""
        texts.append(text if before is None else text.partition(before)[0])
    return texts, problems
