"""The steps of rollouts, as those see them who judge or describe one step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from guerdon.core.parsing import text_of
from guerdon.core.rollouts import Rollouts
from guerdon.core.spans import Spans
from guerdon.rewards.probe.cut import Cut, cuts
from guerdon.rewards.turns import turns_of

How = Mapping[str, Any] | Cut | str
Question = Mapping[str, Any]


def cut_of(how: How) -> Cut:
    """A cut from plain data, or the one it is already.

    Raises:
        SpecError: for an unknown setting.
        ValueError: for a cut that cannot be.
    """
    return how if isinstance(how, Cut) else Cut.of(how)


def transitions(rollouts: Rollouts, cut: How = "turns") -> tuple[list[list[Question]], Spans]:
    """Every step of some rollouts by itself, with what was there before and what came of it.

    `achieved` takes them.

    Args:
        rollouts: chats or texts.
        cut: how a completion is cut into steps; 'turns': each message of the assistant, and a text is one.

    Returns:
        For each rollout its steps, as mappings with 'prompt', 'before' (the text up to the step; of turns, the
        messages), 'step' (its text) and 'after' (what tools and others answered to a turn; of a text, nothing); and
        where they are, in characters of the completion's text.

    Raises:
        SpecError, ValueError: for a cut that cannot be.
        MissingInput: if budgets are in tokens and the rollouts do not have their offsets.

    Source: the transitions of CALM (arXiv 2409.12798), shown as text.

    >>> [[first, second]], spans = transitions(Rollouts(["2+2"], ["so 4;#4"]), {"at": "separator", "separator": ";"})
    >>> first["step"], second["before"], second["step"], spans.rows()
    ('so 4;', 'so 4;', '#4', [[(0, 5), (5, 7)]])
    """
    how = cut_of(cut)
    offsets = None if rollouts.tokens is None else rollouts.tokens.offsets
    episodes: list[list[Question]] = []
    places: list[list[tuple[int, int]]] = []
    steps: list[Question]
    for row, (prompt, completion) in enumerate(zip(rollouts.prompts, rollouts.column("completion"), strict=True)):
        if how.at == "turns":
            turns = turns_of(completion)
            ends = [turn.end for turn in turns]
            steps = [{"before": turn.before, "step": turn.text, "after": turn.after} for turn in turns]
        else:
            text = text_of(completion)
            ends = cuts(text, how, None if offsets is None else offsets[row])
            pieces = pairwise([0, *ends])
            steps = [{"before": text[:begin], "step": text[begin:end], "after": ()} for begin, end in pieces]
        episodes.append([{"prompt": prompt, **step} for step in steps])
        places.append(list(pairwise([0, *ends])))
    return episodes, Spans.of(places, unit="character")
