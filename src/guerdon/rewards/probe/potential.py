"""Potentials of the boundaries of a reasoning: what the model would answer if it stopped there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.algebra import Reward, reward, spec
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import MissingInput
from guerdon.core.parsing import Completion, shown, text_of
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.rewards.likelihood.forced import RANGES, How, extended, forced, model_of, reduce
from guerdon.rewards.probe.cut import Cut, prefixes


def _reads(model: str, cut: Mapping[str, Any] | str, **options: Any) -> set[str]:
    for name in ("samples", "max_tokens"):
        if options.get(name, 1) < 1:
            raise ValueError(f"a probe wants {name} of at least 1, got {options[name]}")
    more = _grader(options["grade"]).requires if "grade" in options else frozenset()
    return {f"model:{model}", *Cut.of(cut).requires, *more}


@reward(lane="batch", level="step", range=lambda how, **options: RANGES[how], requires=_reads)
def likelihood(
    rollouts: Rollouts,
    answer: Sequence[Any],
    context: Context,
    *,
    model: str = "old",
    how: How = "exp-mean",
    cut: Mapping[str, Any] | str = "turns",
    stop: str = "\nNow there's enough information to answer</think><answer>",
    start: bool = True,
) -> Scores:
    """How likely the reference answer is at each boundary, were the model to answer there.

        Φₖ = reduce over m of log p(y*ₘ | x, z₍≤ₖ₎, stop, y*₍<ₘ₎)

    Args:
        rollouts: the batch.
        answer: the reference: a text or a number.
        context: holds the model.
        model: its name; the policy that wrote the rollouts.
        how: see `likelihood.reduce`: 'exp-mean' is IGPO's, 'mean-exp' SPAE's.
        cut: see `Cut`.
        stop: what is put behind the cut, right before the answer.
        start: also the potential before the first step, as an empty step at 0: without it the first step has
            nothing to be compared with.

    Returns:
        One potential per boundary, as the score of the step that ends there.

    Raises:
        ValueError: at once, for a cut that cannot be.

    Source: IGPO (arXiv 2510.14967): P = exp(mean log p) after each turn; Acc of SPAE (2601.03823) with how='mean-exp',
    cut='separator', stop='**Final Answer**\\n\\boxed{'.
    """
    problems = {
        row: f"reference is not a text: {shown(reference)}"
        for row, reference in enumerate(answer)
        if isinstance(reference, bool) or not isinstance(reference, str | int | float) or not str(reference).strip()
    }
    probes = _probes(rollouts, Cut.of(cut), stop, start)
    rows = [row for row, _, _ in probes.asked]
    said = forced(model_of(context, model), [c for _, _, c in probes.asked], [str(answer[row]) for row in rows])
    values = reduce(said.logp, said.mask, how)
    return probes.scores(
        values.tolist(), {**said.problems, **{i: problems[r] for i, r in enumerate(rows) if r in problems}}
    )


@reward(lane="batch", level="step", range=(0, 1), requires=_reads)
def accuracy(
    rollouts: Rollouts,
    context: Context,
    *,
    model: str = "old",
    grade: Any = "math.answer",
    samples: int = 5,
    max_tokens: int = 768,
    temperature: float = 0.6,
    top_p: float = 0.95,
    cut: Mapping[str, Any] | str = "markers",
    stop: str = "</think>",
    start: bool = False,
) -> Scores:
    """How often answers that the model gives at each boundary are right.

        Jₖ = mean over the answers sampled after (x, z₍≤ₖ₎, stop) of their grade

    Boundaries of a rollout that are at the same place (budgets beyond its end) share their samples.

    Args:
        rollouts: the batch.
        context: holds the model; its step seeds the sampling.
        model: its name; the policy that wrote the rollouts.
        grade: the reward that grades an answer, as a spec or as an expression; it reads `stop` and the answer as
            the completion, and the columns of the rollout. One that abstains on an answer leaves it out.
        samples: answers per boundary.
        max_tokens: of an answer.
        temperature, top_p: of sampling.
        cut: see `Cut`.
        stop: what is put behind the cut to end the thinking.
        start: also the potential before the first step, as an empty step at 0.

    Returns:
        One potential per boundary, as the score of the step that ends there; details: 'grades', those of each
        boundary's answers.

    Raises:
        ValueError: at once, for a cut that cannot be, no samples, or a grade that is not one score per rollout.

    Source: VSRM (arXiv 2508.10293); MRT's J under the policy as its own prover (2503.07572), with start=True;
    AnytimeReasoner (2505.13438): cut={'at': 'budgets', 'budgets': [2000, 4000, 6000, 8000]}, samples=4,
    max_tokens=118, stop='...\\n\\n...\\n\\n</think>\\n\\n**Final Answer**\\n'.
    """
    probes = _probes(rollouts, Cut.of(cut), stop, start)
    options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    answers = _sampled(probes, context, model, samples, options)
    rows = [probes.asked[i][0] for i in answers.owner]
    said = [stop + text for text in answers.texts]
    graded = rollouts.select(np.asarray(rows, int)).with_(
        completions=[
            text if isinstance(rollouts.prompts[row], str) else [{"role": "assistant", "content": text}]
            for row, text in zip(rows, said, strict=True)
        ],
        finished=np.ones(len(rows), bool),
        tokens=None,
        tree=None,
    )
    scores = _grader(grade).score(graded, context) if rows else Scores(np.zeros(0))
    grades: list[list[float]] = [[] for _ in probes.asked]
    problems: dict[int, str] = {}
    values, usable = to_numpy(scores.read(0.0)), to_numpy(scores.valid)
    for k, (i, problem) in enumerate(zip(answers.owner, answers.problems, strict=True)):
        if problem is None and usable[k]:
            grades[i].append(float(values[k]))
        else:
            problems.setdefault(i, problem or scores.reasons.get(k, "no grade was given"))
    means = [sum(some) / len(some) if some else None for some in grades]
    return probes.scores(means, {i: problems[i] for i, mean in enumerate(means) if mean is None}, grades=grades)


@reward(lane="batch", level="step", range=(0, 1), requires=_reads)
def confidence(
    rollouts: Rollouts,
    context: Context,
    *,
    model: str = "old",
    samples: int = 5,
    max_tokens: int = 10,
    temperature: float = 0.6,
    top_p: float = 1.0,
    cut: Mapping[str, Any] | str = "separator",
    stop: str = "**Final Answer**\n\\boxed{",
    start: bool = False,
) -> Scores:
    """How sure the model is of the answers it would give at each boundary, right or wrong.

        Confₖ = mean over the sampled answers of exp(−(1/L) Σ H)        H: entropy of each token's distribution, nats

    Args:
        rollouts: the batch.
        context, model, samples, max_tokens, temperature, top_p, cut, start: see `accuracy`.
        stop: what is put behind the cut, right before the answer.

    Returns:
        One potential per boundary; 1 where the model has no doubt.

    Raises:
        ValueError: at once, for a cut that cannot be, or no samples.

    Source: SPAE (arXiv 2601.03823), Conf. Entropies are of the whole distribution at the sampling temperature; the
    released probe sees the 20 likeliest tokens.
    """
    probes = _probes(rollouts, Cut.of(cut), stop, start)
    options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    answers = _sampled(probes, context, model, samples, options)
    certain: list[list[float]] = [[] for _ in probes.asked]
    problems: dict[int, str] = {}
    for i, certainty, problem in zip(answers.owner, answers.certainty(), answers.problems, strict=True):
        if problem is None:
            certain[i].append(certainty)
        else:
            problems[i] = problem
    means = [sum(some) / len(some) if some else None for some in certain]
    return probes.scores(means, problems)


@dataclass
class _Probes:
    """What is asked at the boundaries of a batch: (row, how many boundaries share it, context), and where they are."""

    asked: list[tuple[int, int, Completion]] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)  # for each row and boundary, which question
    spans: list[list[tuple[int, int]]] = field(default_factory=list)

    def scores(self, values: Sequence[float | None], problems: Mapping[int, str], **details: list[Any]) -> Scores:
        """One answer per question as scores of steps."""
        spans = Spans.of(self.spans, unit="character")
        table, valid = np.zeros(spans.mask.shape), np.zeros(spans.mask.shape, bool)
        reasons: dict[int, str] = {}
        for row, questions in enumerate(self.steps):
            for step, i in enumerate(questions):
                value = values[i]
                valid[row, step] = i not in problems and value is not None and math.isfinite(value)
                if valid[row, step]:
                    table[row, step] = value
                else:
                    reasons.setdefault(row, problems.get(i, f"the potential of step {step} is {value}"))
        return Scores(
            table,
            valid=valid,
            spans=spans,
            reasons=reasons,
            details={name: [[column[i] for i in row] for row in self.steps] for name, column in details.items()},
        )


def _probes(rollouts: Rollouts, cut: Cut, stop: str, start: bool) -> _Probes:
    probes = _Probes()
    tokens = rollouts.tokens
    for row, (prompt, completion) in enumerate(zip(rollouts.prompts, rollouts.column("completion"), strict=True)):
        offsets = None if tokens is None or tokens.offsets is None else to_numpy(tokens.offsets)[row]
        ends, contexts = prefixes(prompt, completion, cut, stop, offsets)
        if start:
            ends, contexts = [0, *ends], [extended(prompt, stop), *contexts]
        probes.spans.append(list(zip([0, *ends], ends, strict=False)))
        known: dict[str, int] = {}
        questions = []
        for context in contexts:
            i = known.setdefault(repr(context), len(probes.asked))
            if i == len(probes.asked):
                probes.asked.append((row, 0, context))
            _, shared, _ = probes.asked[i]
            probes.asked[i] = (row, shared + 1, context)
            questions.append(i)
        probes.steps.append(questions)
    return probes


@dataclass
class _Answers:
    """Sampled answers, and which question each is to."""

    owner: list[int]
    rollouts: Rollouts

    @property
    def texts(self) -> list[str]:
        return [text_of(said) for said in self.rollouts.column("completion")]

    @property
    def problems(self) -> Sequence[str | None]:
        """Why a question could not be asked, answer by answer."""
        return self.rollouts.columns.get("problem") or [None] * len(self.owner)

    def certainty(self) -> list[float]:
        """exp(−mean entropy) of each answer."""
        tokens = self.rollouts.tokens
        if not self.owner:
            return []
        if tokens is None or tokens.entropy is None:
            raise MissingInput("confidence reads the entropy of sampled tokens, which this model does not give")
        written = to_numpy(tokens.written)
        entropy = np.where(written, to_numpy(tokens.entropy), 0.0).sum(1) / np.maximum(written.sum(1), 1)
        return [math.exp(-h) for h in entropy.tolist()]


def _sampled(probes: _Probes, context: Context, model: str, samples: int, options: Mapping[str, Any]) -> _Answers:
    owner = [i for i, (_, shared, _) in enumerate(probes.asked) for _ in range(samples * shared)]
    if not owner:
        return _Answers(owner, Rollouts([], []))
    prompts = [probes.asked[i][2] for i in owner]
    return _Answers(owner, model_of(context, model).generate(prompts, seed=context.step, **options))


def _grader(grade: Any) -> Reward:
    grader = grade if isinstance(grade, Reward) else spec.load(grade)
    if grader.level != "rollout":
        raise ValueError(f"a grade is one score per answer: {grader} gives one per step")
    return grader
