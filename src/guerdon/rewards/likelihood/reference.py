"""How likely a completion's reasoning makes the reference answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.algebra import reward
from guerdon.core.context import Context
from guerdon.core.parsing import Completion, shown, text_of
from guerdon.core.protocols import Range, TokenLogprobs
from guerdon.core.scores import Scores
from guerdon.rewards.likelihood.forced import (
    RANGES,
    How,
    extended,
    forced,
    model_of,
    reads_model,
    reduce,
    scored,
    without_query,
)
from guerdon.rewards.likelihood.reflecting import Weights, propagated, reflect, token_weights

Debias = Literal["none", "no_reasoning", "masked", "no_query", "prompt"]


def _range(how: How, debias: Debias, **options: Any) -> Range:
    low, high = RANGES[how]
    return (low, high) if debias == "none" else (low - high, high - low)


@reward(lane="batch", range=_range, requires=reads_model)
def answer(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    answer: Sequence[Any],
    context: Context,
    *,
    model: str = "policy",
    how: How = "sum",
    debias: Debias = "none",
    after: str | None = None,
    lead: str = "",
    masked: str = "…",
    least: float = -10.0,
) -> Scores:
    """How likely the reference answer is after the completion's reasoning: a reward where nothing can be verified.

        B = reduce over k of log p(y*ₖ | x, z, y*₍<ₖ₎)        debiased: B − A, A the same without z

    Without the debias context a question whose answer is easy to guess pays every reasoning. To leave what hurts
    at 0, as RLPR does, follow it with `shaping.clip(low=0, high=1)`.

    Args:
        prompt: text or chat messages.
        completion: the reasoning z, and perhaps an answer, which `after` cuts off.
        answer: the reference y*: a text or a number.
        context: holds the model.
        model: its name.
        how: see `reduce`. 'sum' keeps its signal for short and long answers alike; a probability ('exp-sum')
            vanishes with the length.
        debias: the context of A: 'no_reasoning' leaves out z, 'masked' puts `masked` in its place, 'no_query'
            leaves out the question and keeps z, 'prompt' is x alone, without `after` and `lead`.
        after: the answer stands after the last of these in the completion ('<answer>'): what follows is replaced
            by the reference. None: all of the completion is reasoning.
        lead: text between the reasoning and the reference, such as '\\n\\nThe answer is '.
        masked: what stands for the reasoning under debias='masked'.
        least: a completion without `after` has no place for an answer: its reference has probability 0, which in
            log-probability is this, per token.

    Returns:
        One score per rollout; details: 'tokens' of the reference, 'worst_rank' among them.

    Raises:
        ValueError: at once, for another `how`.

    Source: "Likelihood-Based Reward Designs for General LLM Reasoning" (arXiv 2602.03979); RLPR (2506.18254), whose
    reward is how='mean-exp', debias='no_reasoning', after='<answer>'; VeriFree (2505.21493). `least` is the value
    that SPAE's released probe (2601.03823) gives a missing token.
    """
    texts, problems = _references(answer)
    contexts, lost = _contexts(prompt, completion, after, lead)
    said = forced(model_of(context, model), contexts, texts)
    values = reduce(_lost(said, lost, least), said.mask, how)
    if how not in ("sum", "mean"):
        values = np.where(lost, 0.0, values)
    if debias != "none":
        without = _debiased(prompt, completion, debias, after, lead, masked)
        bias = forced(model_of(context, model), without, texts)
        values, problems = values - reduce(bias.logp, bias.mask, how), {**bias.problems, **problems}
    return scored(values, {**said.problems, **problems}, tokens=_counts(said), worst_rank=_worst(said))


def _bounded(marginal: bool, **options: Any) -> Range:
    return (-2 * math.log(2), math.inf) if marginal else (-math.inf, 0.0)


@reward(lane="batch", unit="group", range=_bounded, requires=reads_model)
def bound(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    answer: Sequence[Any],
    group: Int[np.ndarray[Any, Any], "n"],
    context: Context,
    *,
    model: str = "policy",
    marginal: bool = False,
    after: str | None = None,
    lead: str = "",
    least: float = -10.0,
) -> Scores:
    """The log of the mean probability that a group's reasonings give the reference: JEPO's bound on log p(y* | x).

        R = log (1/G) Σᵢ exp Sᵢ        Sᵢ = Σₖ log p(y*ₖ | x, zᵢ, y*₍<ₖ₎)
        marginal: Rᵢ = G (R − log (1/(G−1)) Σⱼ≠ᵢ exp Sⱼ)

    By Jensen's inequality at least the mean of the log-probabilities, and equal to it where they are all equal. All
    rollouts of a group have the same. What each adds to it has the same policy gradient, G times, so that the mean over
    rollouts is that over groups: what is taken away does not depend on zᵢ. Neither is to be compared within the group
    again: give credit with `baseline='none', scale='none'`. The gradient's second term is
    `objectives.answer_bound_policy_gradient`.

    Args:
        prompt, completion, answer, context, model, after, lead, least: see `answer`.
        group: whose reasonings are pooled. Rollouts that cannot be read are left out.
        marginal: what each rollout adds, and not the bound itself; one that is alone adds nothing that is known, and
            abstains.

    Returns:
        One score per rollout: the same within a group; or what it adds, at least G log (1 − 1/G) ≥ −2 log 2.

    Source: JEPO (arXiv 2503.19618), as a variant in "Likelihood-Based Reward Designs" (2602.03979); the bound without
    the rollout as its baseline is that of multi-sample objectives (VIMCO, 1602.06725).
    """
    texts, problems = _references(answer)
    contexts, lost = _contexts(prompt, completion, after, lead)
    said = forced(model_of(context, model), contexts, texts)
    problems = {**said.problems, **problems}
    read = np.array([row not in problems for row in range(len(texts))], bool)
    totals, group = reduce(_lost(said, lost, least), said.mask, "sum"), np.asarray(group)
    pooled = log_mean_exp(totals, group, read)
    if not marginal:
        return scored(pooled, problems)
    _, index = np.unique(group, return_inverse=True)
    count = np.bincount(index, read)[index]
    alone = {int(row): "alone in its group: what it adds is not known" for row in np.flatnonzero(count == 1)}
    with np.errstate(invalid="ignore"):
        added = count * (pooled - log_mean_exp(totals, group, read, without=True))
    return scored(added, alone | problems)


def log_mean_exp(
    values: Float[np.ndarray[Any, Any], "n"],
    groups: Int[np.ndarray[Any, Any], "n"],
    mask: Bool[np.ndarray[Any, Any], "n"],
    *,
    without: bool = False,
) -> Float[np.ndarray[Any, Any], "n"]:
    """log (1/G) Σ exp vᵢ over the rows of each group that are there, at each row; −∞ for a group without any.

    Args:
        values: v.
        groups: rows with equal numbers are a group.
        mask: the rows that are there.
        without: at each row that is there over the others alone; −∞ where there are none.

    Source: the multi-sample bound of JEPO (arXiv 2503.19618).

    >>> values, groups, there = np.log([0.2, 0.4, 0.9]), np.array([0, 0, 1]), np.ones(3, bool)
    >>> log_mean_exp(values, groups, there).round(4)
    array([-1.204 , -1.204 , -0.1054])
    >>> log_mean_exp(values, groups, there, without=True).round(4)
    array([-0.9163, -1.6094,    -inf])
    """
    _, index = np.unique(groups, return_inverse=True)
    values, count = np.where(mask, values, -np.inf), np.bincount(index, mask)[index]
    sums = _log_sum_exp(values, index)
    if without:
        order = np.lexsort((values, index))
        best = order[np.flatnonzero(np.diff(index[order], append=-1))]  # of each group; beside it differences are exact
        others, count = values.copy(), count - mask
        others[best] = -np.inf
        with np.errstate(invalid="ignore", divide="ignore"):
            left = np.where(np.isfinite(values), sums + np.log1p(-np.exp(values - sums)), sums)
        left[best] = _log_sum_exp(others, index)[best]
        sums = left
    return np.asarray(sums - np.log(np.maximum(count, 1)))


def _log_sum_exp(
    values: Float[np.ndarray[Any, Any], "n"], index: Int[np.ndarray[Any, Any], "n"]
) -> Float[np.ndarray[Any, Any], "n"]:
    """log Σ exp v over the rows of each group, numbered from 0, at each row."""
    top = np.full(index.max(initial=-1) + 1, -np.inf)
    np.maximum.at(top, index, values)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        sums = np.log(np.bincount(index, np.exp(values - top[index]), len(top))) + top
    return np.asarray(sums[index])


def _shares(model: str, top: float, worst: float, propagate: float | None, **options: Any) -> set[str]:
    if propagate is not None and not propagate > 0:
        raise ValueError(f"reflection: propagate is positive, got {propagate}")
    for name, share in (("top", top), ("worst", worst)):
        if not 0 < share <= 1:
            raise ValueError(f"reflection: {name} is a share in (0, 1], got {share}")
    return reads_model(model)


@reward(lane="batch", unit="group", range=(-math.inf, math.inf), floor=0.0, requires=_shares)
def reflection(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    answer: Sequence[Any],
    group: Int[np.ndarray[Any, Any], "n"],
    context: Context,
    *,
    model: str = "reference",
    weights: Weights = "spread",
    top: float = 0.2,
    debias: Debias = "masked",
    propagate: float | None = None,
    after: str | None = None,
    lead: str = "",
    masked: str = "…",
    worst: float = 0.1,
    least: float = -10.0,
) -> Scores:
    """How likely the reference is, counting the tokens of it that the group's reasonings make a difference to.

        Rᵢ = Σⱼ wⱼ (lᵢⱼ − mⱼ)        wⱼ = σⱼ / Σ σ        σⱼ = std over i of lᵢⱼ

    lᵢⱼ is the log-probability of token j of the reference after reasoning i, mⱼ the same after the debias context. Of
    a long answer most tokens are the same to every reasoning; in a plain mean they drown the few that are not.

    Args:
        prompt, completion, answer, context, after, lead, masked, least: see `answer`.
        group: whose reasonings are compared; of one reasoning nothing is known, and all tokens weigh the same.
        model: who judges: frozen by default, so that the policy cannot raise its reward by moving its judge.
        weights: 'spread' is σⱼ / Σσ; 'top' weighs the `top` share of the tokens with the largest σⱼ alike and
            leaves out the others. The source does not give w: any increasing function is in its sense.
        top: a share in (0, 1].
        debias: see `answer`; 'none' takes m as 0.
        propagate: γ of `propagated`: l keeps what the `top` share of the tokens lost, and m is 0. None: it does not.
        worst: the share of the reference's tokens that 'worst_rank' in the details is about.

    Returns:
        One score per rollout; details: 'worst_rank', the mean rank of the worst tokens (a prompt where that is high
        for every reasoning cannot be learned yet), and 'spread', max σⱼ (one where that is low teaches nothing).

    Raises:
        ValueError: at once, if a share is outside of (0, 1].

    Source: DRO (arXiv 2506.13351), the reasoning reflection reward R3.
    """
    texts, problems = _references(answer)
    contexts, lost = _contexts(prompt, completion, after, lead)
    judge = model_of(context, model)
    said = forced(judge, contexts, texts)
    logp, base = _lost(said, lost, least), np.zeros(said.logp.shape)
    if debias != "none" and propagate is None:
        bias = forced(judge, _debiased(prompt, completion, debias, after, lead, masked), texts)
        base, problems = bias.logp, {**bias.problems, **problems}
    problems = {**_unequal(texts, np.asarray(group)), **said.problems, **problems}
    mask = said.mask & np.array([row not in problems for row in range(len(texts))], bool)[:, None]
    weight, spread = token_weights(logp, mask, np.asarray(group), weights=weights, top=top)
    if propagate is not None:
        decided, _ = token_weights(logp, mask, np.asarray(group), weights="top", top=top)
        logp = propagated(logp, mask, (decided > 0) & (spread > 0)[:, None], gamma=propagate)
    values = reflect(logp, base, mask, weight)
    return scored(values, problems, worst_rank=_worst(said, worst), spread=spread.tolist())


def placed(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    answer: Sequence[Any],
    *,
    after: str | None = None,
    lead: str = "",
) -> tuple[list[Completion], list[str], dict[int, str]]:
    """The reference behind each completion, as `answer` reads it there.

    Args:
        prompt, completion, answer, after, lead: see `answer`.

    Returns:
        What stands before the reference, the reference, and why a row has none or no place for it.

    >>> placed(["1+1="], ["I add. #3"], [2], after="#")
    (['1+1=I add. #'], ['2'], {})
    """
    texts, problems = _references(answer)
    contexts, lost = _contexts(prompt, completion, after, lead)
    why = f"there is no {after!r} in the completion: the reference has no place"
    return contexts, texts, {**{int(row): why for row in np.flatnonzero(lost)}, **problems}


def _references(answers: Sequence[Any]) -> tuple[list[str], dict[int, str]]:
    """The references as text, and why some are none."""
    texts, problems = [], {}
    for row, reference in enumerate(answers):
        usable = isinstance(reference, str | int | float) and not isinstance(reference, bool)
        text = str(reference) if usable else ""
        if not text.strip():
            problems[row] = f"reference is not a text: {shown(reference)}"
        texts.append(text)
    return texts, problems


def _contexts(
    prompts: Sequence[Completion], completions: Sequence[Completion], after: str | None, lead: str
) -> tuple[list[Completion], Bool[np.ndarray[Any, Any], "n"]]:
    """What stands before the answer, and which completions have no place for one."""
    contexts: list[Completion] = []
    lost = np.zeros(len(prompts), bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        earlier: Sequence[Mapping[str, Any]] = ()
        text = completion if isinstance(completion, str) else text_of(completion[-1:])
        if not isinstance(completion, str) and len(completion) > 1:
            earlier = completion[:-1]
            prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            prompt = [*prompt, *earlier]
        end = len(text)
        if after is not None:
            place = text.rfind(after)
            lost[row] = place < 0
            end = place + len(after) if place >= 0 else end
        contexts.append(extended(prompt, text[:end] + lead))
    return contexts, lost


def _debiased(
    prompts: Sequence[Completion],
    completions: Sequence[Completion],
    debias: Debias,
    after: str | None,
    lead: str,
    masked: str,
) -> list[Completion]:
    if debias == "no_query":
        return _contexts([without_query(prompt) for prompt in prompts], completions, after, lead)[0]
    if debias == "prompt":
        return list(prompts)
    reasoning = masked if debias == "masked" else ""
    return [extended(prompt, reasoning + (after or "") + lead) for prompt in prompts]


def _lost(
    said: TokenLogprobs, lost: Bool[np.ndarray[Any, Any], "n"], least: float
) -> Float[np.ndarray[Any, Any], "n t"]:
    return np.where(lost[:, None], least, said.logp)


def _unequal(texts: Sequence[str], groups: Int[np.ndarray[Any, Any], "n"]) -> dict[int, str]:
    """Rows whose group has several references, whose tokens cannot be compared."""
    first: dict[int, str] = {}
    mixed = {int(g) for g, text in zip(groups, texts, strict=True) if first.setdefault(int(g), text) != text}
    why = "the rollouts of its group have different references: their tokens cannot be compared"
    return {row: why for row, g in enumerate(groups) if int(g) in mixed}


def _counts(said: TokenLogprobs) -> list[int]:
    return [int(count) for count in said.mask.sum(1)]


def _worst(said: TokenLogprobs, share: float = 0.1) -> list[float]:
    """The mean rank of the worst tokens of each row: a share of them, at least one; 0 without tokens."""
    ranks = np.sort(np.where(said.mask, said.rank, -1), axis=1)[:, ::-1]
    count = np.maximum(np.ceil(share * said.mask.sum(1) - 1e-9), 1)[:, None]
    chosen = (np.arange(ranks.shape[1]) < count) & (ranks >= 0)
    return [float(x) for x in np.where(chosen, ranks, 0).sum(1) / np.maximum(chosen.sum(1), 1)]
