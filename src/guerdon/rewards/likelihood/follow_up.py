"""How likely a pleased user is to speak next, and how likely a displeased one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.algebra import reward
from guerdon.core.context import Context
from guerdon.core.errors import nearest
from guerdon.core.parsing import Completion
from guerdon.core.scores import Scores
from guerdon.rewards.likelihood.forced import forced, model_of, reads_model, scored

Bank = Mapping[str, Mapping[str, Sequence[str]]]

# What a user says next, by what it is about. Written for guerdon: the source names the dimensions and gives two
# examples, the last of 'understanding' and the first of 'correctness'.
BANK: Bank = {
    "understanding": {
        "positive": ("You understood exactly what I meant.", "That makes perfect sense!"),
        "negative": ("That is not what I asked.", "You misunderstood my question."),
    },
    "relevance": {
        "positive": ("That is just what I wanted to know.", "This is right on topic."),
        "negative": ("That has nothing to do with my question.", "Why are you telling me this?"),
    },
    "correctness": {
        "positive": ("Yes, that is right.", "I checked, and you are correct."),
        "negative": ("You didn't answer my question correctly.", "That is wrong."),
    },
    "engagingness": {
        "positive": ("Interesting, tell me more!", "I enjoy talking to you."),
        "negative": ("This is boring.", "I don't want to talk about this any more."),
    },
    "informativeness": {
        "positive": ("I learned a lot, thank you.", "That is very informative."),
        "negative": ("That tells me nothing new.", "Can you be more specific?"),
    },
    "instruction-following": {
        "positive": ("You did exactly what I asked for.", "You followed all of my instructions."),
        "negative": ("You ignored my instructions.", "I told you to do it differently."),
    },
}


def _bank(model: str, dimensions: tuple[str, ...], bank: Bank | None, **options: Any) -> set[str]:
    _chosen(dimensions, bank)
    return reads_model(model)


@reward(lane="batch", range=(-math.inf, math.inf), floor=0.0, requires=_bank)
def follow_up(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    context: Context,
    *,
    model: str = "reference",
    dimensions: tuple[str, ...] = (),
    bank: Mapping[str, Any] | None = None,
    raw_logit: bool = False,
    exchange: bool = False,
) -> Scores:
    """How much likelier the user's next turn is to be pleased than displeased.

        FLR = mean over dimensions of (mean over pleased f of s(f) − mean over displeased f of s(f))
        s(f) = (1/|f|) Σₖ log P(fₖ | dialogue, completion, f₍<ₖ₎)

    Args:
        prompt: the dialogue: text, taken for what the user said, or chat messages.
        completion: the reply.
        context: holds the model.
        model: its name; best one that has been trained to speak as the user.
        dimensions: of the bank; all where none is named. The source leaves open whether they are averaged or one
            is picked.
        bank: for each dimension, 'positive' and 'negative' texts; either may be empty (the displeased ones alone
            are a strong variant). None: guerdon's.
        raw_logit: s(f) is the mean of the unnormalised logits, as in the released code (there, one position off
            as well, which is not repeated).
        exchange: the model reads the dialogue with the roles of user and assistant exchanged, as one that was
            trained with `models.listening` has learned to; a chat model is used to speaking as the assistant.

    Returns:
        One score per rollout, about 0 for an indifferent user, in nats per token; details: 'dimensions', each one's.

    Raises:
        ValueError: at once, for an unknown dimension or a bank that says nothing.

    Source: FLR (arXiv 2409.13948).
    """
    chosen = _chosen(dimensions, bank)
    texts = [text for sides in chosen.values() for side in ("positive", "negative") for text in sides.get(side, ())]
    dialogues = [
        [*([{"role": "user", "content": p}] if isinstance(p, str) else p), *_reply(c)]
        for p, c in zip(prompt, completion, strict=True)
    ]
    contexts = [dialogue for dialogue in dialogues for _ in texts]
    turns = [[{"role": "user", "content": text}] for _ in dialogues for text in texts]
    if exchange:
        contexts, turns = [exchanged(c) for c in contexts], [exchanged(t) for t in turns]
    said = forced(model_of(context, model), contexts, turns)
    per_token = said.logit if raw_logit else said.logp
    means = np.where(said.mask, per_token, 0.0).sum(1) / np.maximum(said.mask.sum(1), 1)
    table = means.reshape(len(dialogues), len(texts))
    columns, at = {}, 0
    for name, sides in chosen.items():
        columns[name] = np.zeros(len(dialogues))
        for side, sign in (("positive", 1.0), ("negative", -1.0)):
            count = len(sides.get(side, ()))
            columns[name] += sign * table[:, at : at + count].mean(1) if count else 0.0
            at += count
    values = np.mean(list(columns.values()), axis=0)
    problems = {int(row) // len(texts): why for row, why in said.problems.items()}
    breakdown = [{name: float(column[i]) for name, column in columns.items()} for i in range(len(dialogues))]
    return scored(values, problems, dimensions=breakdown)


def exchanged(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A dialogue with the roles of user and assistant exchanged; others stay.

    >>> exchanged([{"role": "user", "content": "Hi"}])
    [{'role': 'assistant', 'content': 'Hi'}]
    """
    other = {"user": "assistant", "assistant": "user"}
    return [{**m, "role": other.get(m["role"], m["role"])} for m in messages]


def _reply(completion: Completion) -> list[Mapping[str, Any]]:
    return [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)


def _chosen(dimensions: tuple[str, ...], bank: Bank | None) -> Bank:
    known = BANK if bank is None else bank
    for name in dimensions:
        if name not in known:
            raise ValueError(f"follow_up: the bank has no dimension {name!r}: {nearest(name, known)}")
    chosen = {name: known[name] for name in dimensions or known}
    for name, sides in chosen.items():
        if not set(sides) <= {"positive", "negative"} or not any(map(len, sides.values())):
            raise ValueError(f"follow_up: {name!r} needs texts under 'positive' or 'negative', got {sides!r}")
    if not chosen:
        raise ValueError("follow_up: the bank is empty")
    return chosen
