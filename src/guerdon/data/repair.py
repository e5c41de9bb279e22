"""Failed rollouts mended at their first wrong step, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int

from guerdon.core.parsing import text_of
from guerdon.core.rollouts import Rollouts
from guerdon.core.spans import Spans
from guerdon.credit.first_error import leaks
from guerdon.data.prefixes import Complete, Verify, verified

Fix = Callable[[Rollouts], Sequence[str | None]]  # one step after each of the completions; None: it found none


@dataclass(frozen=True, eq=False)
class Mended:
    """What became of each rollout; None where nothing was tried.

    Args:
        prefix: the rollout's own text before its first wrong step.
        step: the one in its place.
        rest: what the policy wrote after that, in the first right completion.
        successes: Int["n"], how many completions were right.
        samples: Int["n"], of so many that could be verified.
        kept: Bool["n"], some completion was right.
        reasons: for each row with a first wrong step that is not kept, why.
    """

    prefix: Sequence[str | None]
    step: Sequence[str | None]
    rest: Sequence[str | None]
    successes: Int[np.ndarray[Any, Any], "n"]
    samples: Int[np.ndarray[Any, Any], "n"]
    kept: Bool[np.ndarray[Any, Any], "n"]
    reasons: Mapping[int, str]

    def imitation(self, rollouts: Rollouts) -> Rollouts:
        """What to imitate: of the rows kept, prefix and step; neither the wrong step nor what came after.

        Every token of these completions is learned from, so the mask of the loss is that of the completion.

        Source: InT (arXiv 2601.14209): with the suffix, half as many problems are solved afterwards.
        """
        rows = np.flatnonzero(self.kept).tolist()
        texts = [f"{self.prefix[row]}{self.step[row]}" for row in rows]
        return rollouts.select(np.array(rows, np.int64)).with_(completions=texts, tokens=None, tree=None)

    def swapped(self, rollouts: Rollouts) -> tuple[Rollouts, Spans]:
        """The batch with each row kept in place of the failure it was, and the characters that another hand wrote.

        Without a row kept, the batch as it was. Groups and their sizes stay. Rows whose text changed have other
        tokens, so tokens are dropped: the log-probabilities of the policy's own part are of another context too.

        Source: SCOPE (arXiv 2602.24110).
        """
        if not self.kept.any():
            return rollouts, Spans.of([[]] * len(rollouts), unit="character")
        texts = [text_of(cast(Any, rollouts.completions[row])) for row in range(len(rollouts))]
        foreign: list[list[tuple[int, int]]] = []
        for row in range(len(texts)):
            prefix, step = self.prefix[row], self.step[row]
            foreign.append([])
            if self.kept[row] and prefix is not None and step is not None:
                texts[row] = f"{prefix}{step}{self.rest[row]}"
                foreign[row].append((len(prefix), len(prefix) + len(step)))
        finished = rollouts.finished | self.kept
        changed = rollouts.with_(completions=texts, finished=finished, tokens=None, tree=None)
        return changed, Spans.of(foreign, unit="character")


def mend(
    rollouts: Rollouts,
    steps: Spans,
    first: Int[np.ndarray[Any, Any], "n"],
    fix: Fix,
    complete: Complete,
    verify: Verify,
    *,
    tries: int = 32,
    answer: str | None = "answer",
    above: float = 0.5,
) -> Mended:
    """Put another step in the place of the first wrong one, and see whether the policy gets it right from there.

    Args:
        rollouts: failures, as text, with the columns that `fix` and `verify` read.
        steps: their steps, in characters; of `core.spans.split`.
        first: the first wrong step, −1 for rows to leave alone: of `credit.locate` and `credit.repairable` with a
            process reward model, or as the model itself says when it is shown the reference.
        fix: writes the step. It is given the prefixes as completions, and the wrong step as the column 'wrong_step'.
        complete: continues prefix and step; of the policy.
        verify: scores whole rollouts, such as a reward's `score`. A completion it abstains from does not count.
        tries: completions of each. SCOPE has one; InT keeps what one of 32 gets right.
        answer: the column with the answer, which the step must not say: otherwise it is copied rather than reasoned.
            None: no such guard.
        above: a score above it is right.

    Raises:
        ValueError: if the shapes do not fit, spans are not in characters, a row has no such step, tries < 1, or a
            callable gives another number of results than it was asked for.

    Source: InT (arXiv 2601.14209) and SCOPE (2602.24110).
    """
    n, first, ranges = len(rollouts), np.asarray(first), steps.rows()
    if steps.unit != "character" or len(steps) != n or first.shape != (n,):
        raise ValueError(f"steps must be spans of characters and first one number, for each of {n} rollouts")
    if tries < 1:
        raise ValueError(f"tries must be at least 1, got {tries}")
    asked: list[int] = np.flatnonzero(first >= 0).tolist()
    for row in asked:
        if first[row] >= len(ranges[row]):
            raise ValueError(f"row {row} has {len(ranges[row])} steps, no step {first[row]}")
    prefix: list[str | None] = [None] * n
    wrong: list[str | None] = [None] * n
    step: list[str | None] = [None] * n
    rest: list[str | None] = [None] * n
    reasons: dict[int, str] = {}
    for row in asked:
        text = text_of(cast(Any, rollouts.completions[row]))
        begin, end = ranges[row][first[row]]
        prefix[row], wrong[row] = text[:begin], text[begin:end]
    begun = rollouts.select(np.array(asked, np.int64)).with_(
        completions=[prefix[row] for row in asked], tokens=None, tree=None
    )
    columns = {**begun.columns, "wrong_step": [wrong[row] for row in asked]}
    fixes = fix(begun.with_(columns=columns)) if asked else []
    if len(fixes) != len(asked):
        raise ValueError(f"fix gave {len(fixes)} steps for {len(asked)} rollouts")
    secrets = None if answer is None else rollouts.column(answer)
    for row, written in zip(asked, fixes, strict=True):
        step[row] = written
        if not written:
            reasons[row] = "no step was written"
        elif secrets is not None and not str(secrets[row]).strip():
            reasons[row] = f"column {answer!r} is empty: it cannot be seen whether the step gives the answer away"
        elif secrets is not None and leaks(written, str(secrets[row])):
            reasons[row] = "the step gives the answer away"
    going = [row for row in asked if row not in reasons]
    repeated = np.repeat(np.array(going, np.int64), tries)
    texts = [f"{prefix[row]}{step[row]}" for row in repeated.tolist()]
    on = rollouts.select(repeated).with_(completions=texts, tokens=None, tree=None)
    wrote = complete(on) if texts else []
    if len(wrote) != len(texts):
        raise ValueError(f"complete gave {len(wrote)} continuations of {len(texts)} prefixes")
    whole = on.with_(completions=[a + b for a, b in zip(texts, wrote, strict=True)])
    right, known = verified(whole, verify, above)
    successes, samples = (np.bincount(repeated[x], minlength=n) for x in (right, known))
    for place, row in reversed(list(enumerate(repeated.tolist()))):
        if right[place]:
            rest[row] = wrote[place]
    for row in going:
        if not samples[row]:
            reasons[row] = "no completion could be verified"
        elif not successes[row]:
            reasons[row] = f"none of {samples[row]} completions was right"
    return Mended(prefix, step, rest, successes, samples, successes > 0, reasons)
