"""Which piece of a reasoning first states the answer: the pieces, who judges them, and a judge that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import shown, text_of
from guerdon.core.protocols import Model
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.models.heads import states_of
from guerdon.rewards.probe.cut import Cut, cuts

Question = Mapping[str, Any]
ChunkJudge = Callable[[Sequence[Question]], Sequence[float | None]]

CHUNKS = Cut(
    markers=("Wait", "But", "Alternatively", "Hmm", "Let", "Therefore"), first=0, gap=0, lines=2, sentence=False
)


def _reads(reference: str, cut: Mapping[str, Any] | Cut, **options: Any) -> set[str]:
    return {reference} | (cut if isinstance(cut, Cut) else Cut.of(cut)).requires


@reward(lane="batch", level="step", range=(0, 1), requires=_reads)
def answered(
    rollouts: Rollouts, *, judge: ChunkJudge, cut: Mapping[str, Any] | Cut = CHUNKS, reference: str = "answer"
) -> Scores:
    """Whether each piece of a reasoning states the right answer, as a judge says.

    The last step of each rollout is what follows the reasoning: its answer, which has the score 1 unasked. It is empty
    where the reasoning was cut short. So with `needed(answer=True)`, no piece of an answer is ever redundant.

    Args:
        rollouts: with the reference answers.
        judge: a function from questions to numbers in [0, 1], or None where it cannot say. A question is a mapping
            with 'prompt', 'before' (the text up to the piece), 'chunk' (its text) and 'answer' (the reference).
        cut: how the reasoning is cut, and what ends it. The default is the source's: at words that begin a turn of
            thought, a piece of one line being one with the next.
        reference: the column of reference answers.

    Returns:
        One score per piece and one for the answer, with spans in characters of the completion's text. A piece that
        was not judged abstains.

    Source: DECS (pixas/DECS), whose judge is a small detector; see `detector`.
    """
    how = cut if isinstance(cut, Cut) else Cut.of(cut)
    offsets = None if rollouts.tokens is None else rollouts.tokens.offsets
    asked: list[Question] = []
    steps: list[list[tuple[int, int]]] = []
    columns = (rollouts.column(name) for name in ("prompt", "completion", reference))
    for row, (prompt, completion, answer) in enumerate(zip(*columns, strict=True)):
        text = text_of(completion)
        ends = cuts(text, how, None if offsets is None else offsets[row])
        pieces = list(pairwise([0, *ends]))
        asked += [
            {"prompt": prompt, "before": text[:begin], "chunk": text[begin:end], "answer": answer}
            for begin, end in pieces
        ]
        steps.append([*pieces, (pieces[-1][1] if pieces else 0, len(text))])
    replies = list(judge(asked)) if asked else []
    if len(replies) != len(asked):
        raise Abstain(f"the judge gave {len(replies)} replies to {len(asked)} questions")
    spans = Spans.of(steps, unit="character")
    values, valid = np.ones(spans.mask.shape), np.array(spans.mask)
    reasons: dict[int, str] = {}
    places = ((row, step) for row, pieces in enumerate(steps) for step in range(len(pieces) - 1))
    for (row, step), reply in zip(places, replies, strict=True):
        if reply is None or not 0 <= float(reply) <= 1:
            valid[row, step] = False
            reasons.setdefault(row, f"piece {step}: the judge gave no number in [0, 1]: {shown(reply)}")
        else:
            values[row, step] = float(reply)
    return Scores(values, valid=valid, spans=spans, reasons=reasons)


def chunk_states(model: Model, questions: Sequence[Question], *, layer: int | float = -1) -> Float[Tensor, "n d"]:
    """What a detector reads of each question: the mean state of the piece's tokens, after the reference answer.

    Without gradients: the head is trained, not the model.

    Args:
        model: any encoder or language model with `hidden`.
        questions: of `answered`.
        layer: see `states_of`.

    Source: ours; DECS does not say what its detector reads.
    """
    contexts = [f"{q['answer']}\n" for q in questions]
    with torch.no_grad():
        return states_of(model, contexts, [q["chunk"] for q in questions], layer=layer)


def detector(model: Model, head: nn.Module, *, layer: int | float = -1) -> ChunkJudge:
    """A judge for `answered`: a small head on the states of a model, trained to tell pieces that state the answer.

    Args:
        model: who reads.
        head: from states to log-odds, such as `LinearHead`; trained as a classifier on labelled pieces:
            `fit(head.parameters(), lambda rows: implicit_loss(head(states[rows]), labels[rows])[0], …)` with
            `states = chunk_states(model, questions)`.
        layer: the one that the head was trained on.

    Source: the detector of the necessary prefix of DECS (pixas/DECS).
    """

    def judge(questions: Sequence[Question]) -> list[float | None]:
        with torch.no_grad():
            odds = head(chunk_states(model, questions, layer=layer))
        return [float(p) for p in torch.sigmoid(odds.double())]

    return judge
