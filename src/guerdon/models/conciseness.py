"""A model of how concise a solution is: what it learns from, how it is asked, and its score."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, shown, text_of
from guerdon.core.scores import Scores

LOW, HIGH = 0.1, 1.0

QUESTION = """Rate how concise the solution is, from 0.1 to 1.0: it does not repeat itself, every step matters to \
the problem, and no words are wasted. Whether it is right does not matter. Answer with the number alone.

Problem:
{problem}

Solution:
{solution}"""

_NUMBER = re.compile(r"(?<![\w./-])(?:0\.\d+|1(?:\.0+)?)(?!\w|/|\.\d)")


def discriminative(
    records: Iterable[Mapping[str, Any]], *, concise: float = 0.7, redundant: float = 0.4
) -> list[Mapping[str, Any]]:
    """The pairs of solutions on whose difference the annotator was clear.

    Args:
        records: each with 'concise_score' and 'redundant_score', of a concise and a redundant solution.
        concise: the least score of the concise one.
        redundant: the most of the redundant one. The source does not state either number.

    Raises:
        ValueError: if `redundant` is not below `concise`.

    Source: Efficient Reasoning via Reward Model (arXiv 2511.09158).

    >>> discriminative([{"concise_score": 0.9, "redundant_score": 0.2}, {"concise_score": 0.6, "redundant_score": 0.5}])
    [{'concise_score': 0.9, 'redundant_score': 0.2}]
    """
    if not redundant < concise:
        raise ValueError(f"redundant must be below concise, got {redundant} and {concise}")
    return [r for r in records if r["concise_score"] >= concise and r["redundant_score"] <= redundant]


def demonstrations(records: Iterable[Mapping[str, Any]], *, question: str = QUESTION) -> list[dict[str, Any]]:
    """What a generative scorer is taught: prompt and completion for each solution of each pair.

    Args:
        records: each with 'problem', 'concise', 'concise_score', 'redundant' and 'redundant_score'.
        question: with the places {problem} and {solution}; the one that `concise` then asks. The source does not give
            its wording.

    Raises:
        ValueError: if a score is outside of [0.1, 1].

    Source: Efficient Reasoning via Reward Model (arXiv 2511.09158): supervised fine-tuning of a generative scorer.
    """
    taught = []
    for record in records:
        for side in ("concise", "redundant"):
            score = float(record[f"{side}_score"])
            if not LOW <= score <= HIGH:
                raise ValueError(f"a conciseness is in [{LOW}, {HIGH}], got {score}")
            prompt = _filled(question, record["problem"], record[side])
            taught.append({"prompt": prompt, "completion": f"{score:.1f}"})
    return taught


def rated(reply: str) -> float:
    """The conciseness that a scorer's reply ends with.

    Raises:
        Abstain: if there is no number in [0.1, 1].

    Source: Efficient Reasoning via Reward Model (arXiv 2511.09158).

    >>> rated("It repeats itself once: 0.6")
    0.6
    """
    found = _NUMBER.findall(reply)
    if not found or not LOW <= float(found[-1]) <= HIGH:
        raise Abstain(f"the scorer gave no number in [{LOW}, {HIGH}]: {shown(reply)}")
    return float(found[-1])


@reward(lane="batch", range=(LOW, HIGH))
def concise(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    *,
    scorer: Callable[[list[str]], Sequence[Any]],
    question: str = QUESTION,
) -> Scores:
    """How concise a reply is, as a scorer says; meant as a factor on correctness, never as a term beside it.

    Args:
        prompt: the problem: text or chat messages.
        completion: the solution.
        scorer: a function from questions, filled in, to replies: texts, which `rated` reads, or numbers.
        question: the one that the scorer was taught; see `demonstrations`.

    Returns:
        One score per rollout, in [0.1, 1]; a reply that cannot be read abstains, and a failing scorer as well.

    Source: Efficient Reasoning via Reward Model (arXiv 2511.09158), the score c of its reward
    R · (1 + α c (s + d)).
    """
    questions = [_filled(question, _problem(p), text_of(c)) for p, c in zip(prompt, completion, strict=True)]
    values: list[float | None] = []
    reasons: dict[int, str] = {}
    replies = list(scorer(questions))
    if len(replies) != len(questions):
        raise Abstain(f"the scorer gave {len(replies)} replies to {len(questions)} questions")
    for row, reply in enumerate(replies):
        try:
            values.append(rated(reply) if isinstance(reply, str) else float(reply))
        except Abstain as error:
            values.append(None)
            reasons[row] = str(error)
    return Scores.of(values, reasons=reasons)


def _filled(question: str, problem: str, solution: str) -> str:
    """A question with both places filled at once, so that braces in a solution stay as they are."""
    places = {"{problem}": problem, "{solution}": solution}
    return re.sub(r"\{problem\}|\{solution\}", lambda found: places[found[0]], question)


def _problem(prompt: Completion) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(text_of([{**message, "role": "assistant"}]) for message in prompt if message.get("role") == "user")


class ConcisenessHead(nn.Module):
    """A scorer small enough to train beside anything: c = 0.1 + 0.9 σ(w · h + b) on features of a solution.

    Args:
        width: of the features, such as mean hidden states.

    Source: ours, in the place of the 3 B generative scorer of arXiv 2511.09158; trained by squared error.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """The conciseness of each solution, in (0.1, 1)."""
        raw: Tensor = self.score(features)[..., 0]
        return LOW + (HIGH - LOW) * torch.sigmoid(raw)
