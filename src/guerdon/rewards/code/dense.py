"""Tests that ran elsewhere as a reward, turn by turn or at the end; and what a pass is worth where few pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float

from guerdon.algebra import reward
from guerdon.core.arrays import to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion
from guerdon.core.protocols import Range, Scope
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.rewards.code.matrix import PassMatrix, check_rarity, outcome_of, rarity_weights, turns_of_outcomes
from guerdon.rewards.code.trial import Credit
from guerdon.rewards.turns import turns_of
from guerdon.shaping import Shaper

Row = list[list[bool | None]]


def _column(column: str, **options: Any) -> tuple[str, ...]:
    return (column,)


def _column_beside(column: str, **options: Any) -> tuple[str, ...]:
    return ("completion", column)


def _decays(decay: float, **options: Any) -> tuple[str, ...]:
    if not 0 < decay <= 1:
        raise ValueError(f"decay is in (0, 1], got {decay}")
    return ()


@reward(lane="batch", range=(0, 1), columns=_column, requires=_decays)
def reported(
    outcomes: Sequence[Any], *, column: str = "outcomes", credit: Credit = "all", decay: float = 1.0
) -> Scores:
    """Whether the tests of a rollout's last turn passed, as a column says, times γ for every turn.

        R = γᵀ · 1[all pass]        or, with credit='each', γᵀ · the share that pass

    Args:
        outcomes: for each rollout a list, True where a test passed; or what `code.unit_tests` says of each; or a list
            of such lists, one for each turn.
        column: their name.
        credit: 'all', or 'each' for the share of the tests that pass.
        decay: γ in (0, 1]: a solution found late is worth less. 1 for rollouts of one turn.

    Returns:
        One score per rollout, and as details the outcomes and the number of turns. Rows whose tests did not all run
        abstain, and so do those without any.

    Raises:
        ValueError: at once, for another decay.

    >>> from guerdon.rewards import code
    >>> code.reported(decay=0.5)(["?"] * 2, ["", ""], outcomes=[[True, True], [[False, True], [True, True]]])
    [0.5, 0.25]

    Source: the trajectory reward of VeRPO (arXiv 2601.03525).
    """
    rows, reasons = _read(outcomes)
    values = [0.0] * len(rows)
    for i, row in enumerate(rows):
        if row:
            last = row[-1]
            share = float(all(last)) if credit == "all" else last.count(True) / len(last)
            values[i] = decay ** len(row) * share
    details: dict[str, Sequence[Any]] = {
        "outcomes": [row[-1] if row else None for row in rows],
        "turns": [len(row) for row in rows],
    }
    return Scores.of(values, reasons=reasons, details=details)


@reward(lane="batch", level="step", range=(0, 1), columns=_column_beside)
def reported_turns(completion: Sequence[Completion], outcomes: Sequence[Any], *, column: str = "outcomes") -> Scores:
    """The share of the tests that each turn's program passes, as a column says.

    Args:
        completion: the turns: see `turns.turns_of`.
        outcomes: see `code.reported`: one list for each turn.
        column: its name.

    Returns:
        One score per turn, and as a detail the outcomes. Rows abstain whose tests did not all run, or that have
        another number of turns than of lists.

    >>> from guerdon.rewards import code
    >>> code.reported_turns().range
    (0.0, 1.0)

    Source: the turn reward of VeRPO (arXiv 2601.03525) before its weights, which `code.rarity` gives it.
    """
    rows, reasons = _read(outcomes)
    ends = [[0, *(turn.end for turn in turns_of(said))] for said in completion]
    for i, (row, places) in enumerate(zip(rows, ends, strict=True)):
        if row and len(row) != len(places) - 1:
            reasons[i] = f"outcomes of {len(row)} turns, and {len(places) - 1} turns"
            rows[i] = []
    spans = Spans.of([list(pairwise(places)) for places in ends], unit="character")
    values = np.zeros(spans.mask.shape)
    for i, row in enumerate(rows):
        values[i, : len(row)] = [turn.count(True) / len(turn) for turn in row]
    silent = np.array([i in reasons for i in range(len(rows))], bool)
    return Scores(
        values,
        spans=spans,
        valid=spans.mask & ~silent[:, None],
        reasons=reasons,
        details={"outcomes": [row or None for row in rows]},
    )


@dataclass(frozen=True)
class rarity(Shaper):
    """In place of the share of tests that pass, the sum of what each is worth by how few of the group pass it.

        ρⱼ = mean of pᵢₜⱼ over the group's rollouts i and turns t        Rᵢₜ = Σⱼ wⱼ pᵢₜⱼ

    with the weights of `code.rarity_weights`. It comes after a reward that says which tests pass, and that runs all of
    them: `code.unit_tests(credit="each")`, `code.reported`, or turn by turn `code.reported_turns`.

    The many easy tests of a suite decide its pass rate: a program that answers only them is paid nearly in full.
    Here tests that equally many pass share one weight, however many they are. A test that nobody passes pays nobody;
    one that a single rollout passes by chance or by knowing its answer pays that one most: outcomes must come from
    where the program cannot reach them.

    Args:
        alpha: see `code.rarity_weights`.
        sigma: see `code.rarity_weights`.
        delta: see `code.rarity_weights`.

    Raises:
        ValueError: if an option cannot be meant; on the call, if what comes before says nothing of tests.

    >>> from guerdon.rewards import code
    >>> part = code.reported(credit="each") >> code.rarity()
    >>> scores = part(["?"] * 2, ["", ""], outcomes=[[True, True, False], [True, True, True]])
    >>> [round(score, 4) for score in scores]  # the first two tests are worth as much as one
    [0.1353, 0.5032]

    Source: VeRPO (arXiv 2601.03525), the local reward.
    """

    alpha: float = 2.0
    sigma: float = 0.1
    delta: float = 1e-6

    scope: ClassVar[Scope] = "group"

    def __post_init__(self) -> None:
        check_rarity(self.alpha, self.sigma, self.delta)

    def range(self, inner: Range) -> Range:
        return 0.0, math.inf

    def __call__(self, scores: Scores, context: Context) -> Scores:
        if "outcomes" not in scores.details:
            raise ValueError(
                f"{self.name} reads what became of each test, and the scores before it do not say: put it right "
                "after a reward such as code.unit_tests(credit='each')"
            )
        said, steps = scores.details["outcomes"], scores.level == "step"
        usable = to_numpy(scores.usable)
        width = to_numpy(scores.mask).shape[1] if steps else 1
        _, groups = np.unique(context.require_rollouts().groups, return_inverse=True)
        rows, reasons = _outcomes(said, usable, groups, steps)
        matrix = PassMatrix.of([turn for row in rows for turn in (*row, *([[]] * (width - len(row))))])
        weighed = self._weighed(matrix, np.repeat(groups, width)).reshape(len(rows), width)
        silent = np.array([i in reasons for i in range(len(rows))], bool)
        valid = to_numpy(scores.valid) & ~(silent[:, None] if steps else silent)
        return scores.with_values(weighed if steps else weighed[:, 0], valid=valid, reasons=reasons)

    def _weighed(self, matrix: PassMatrix, groups: Any) -> Float[np.ndarray[Any, Any], "n"]:
        exists = np.zeros((int(groups.max(initial=-1)) + 1, matrix.ran.shape[1]), bool)
        np.logical_or.at(exists, groups, matrix.ran)
        weights = rarity_weights(matrix.rates(groups), exists, alpha=self.alpha, sigma=self.sigma, delta=self.delta)
        return np.asarray((matrix.passed * weights[groups]).sum(1))


def _outcomes(
    said: Sequence[Any], usable: Bool[np.ndarray[Any, Any], "n"], groups: Any, steps: bool
) -> tuple[list[Row], dict[int, str]]:
    """Of each row the outcomes of its turns, none where they cannot be used; and why."""
    rows: list[Row] = []
    reasons: dict[int, str] = {}
    sizes: dict[int, set[int]] = {}
    for i, entry in enumerate(said):
        turns = (
            []
            if entry is None or not usable[i]
            else [[outcome_of(o) for o in t] for t in (entry if steps else [entry])]
        )
        missing = sum(turn.count(None) for turn in turns)
        if missing:
            reasons[i] = (
                f"{missing} tests did not run: a test is worth what all that meet it make of it (credit='each')"
            )
            turns = []
        elif usable[i] and not turns:
            reasons[i] = "nothing is said of its tests"
        rows.append(turns)
        sizes.setdefault(int(groups[i]), set()).update(map(len, turns))
    for i, turns in enumerate(rows):
        if turns and len(found := sizes[int(groups[i])]) > 1:
            reasons[i] = f"a group has one suite, this one has suites of {' and '.join(map(str, sorted(found)))} tests"
            rows[i] = []
    return rows, reasons


def _read(outcomes: Sequence[Any]) -> tuple[list[Row], dict[int, str]]:
    rows: list[Row] = []
    reasons: dict[int, str] = {}
    for i, entry in enumerate(outcomes):
        try:
            row = turns_of_outcomes(entry)
            if any(outcome is None for turn in row for outcome in turn):
                raise Abstain("not all of its tests ran")
        except Abstain as reason:
            row, reasons[i] = [], str(reason)
        rows.append(row)
    return rows, reasons
