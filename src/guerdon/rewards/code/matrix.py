"""Which programs pass which tests: one matrix under rewards by rarity and under the quality of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.errors import Abstain
from guerdon.core.parsing import read_json, shown


@dataclass(frozen=True, eq=False)
class PassMatrix:
    """What became of the tests of one suite, or of several: a row is a program, or a turn of one.

    Args:
        passed: True where the test passed; what stands where none ran does not matter.
        ran: True where there is a test, and it ran. Default: everywhere.

    Raises:
        ValueError: if it is no matrix, or the shapes differ.

    >>> matrix = PassMatrix.of([["passed", "gave 3"], [True, True], [True, None]])
    >>> matrix.rates().tolist(), matrix.killed.tolist()
    ([1.0, 0.5], [[False, True], [False, False], [False, False]])
    """

    passed: Bool[np.ndarray[Any, Any], "n j"]
    ran: Bool[np.ndarray[Any, Any], "n j"] = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        passed = np.asarray(self.passed, bool)
        ran = np.ones(passed.shape, bool) if self.ran is None else np.asarray(self.ran, bool)
        if passed.ndim != 2 or ran.shape != passed.shape:
            raise ValueError(f"passed and ran are matrices of programs × tests, got {passed.shape} and {ran.shape}")
        object.__setattr__(self, "passed", passed & ran)
        object.__setattr__(self, "ran", ran)

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> PassMatrix:
        """The matrix of rows of outcomes as `code.unit_tests` lists them, or of truth values; None: it did not run.

        Raises:
            Abstain: if an entry is neither.
        """
        said = [[outcome_of(entry) for entry in row] for row in rows]
        shape = len(said), max(map(len, said), default=0)
        passed, ran = np.zeros(shape, bool), np.zeros(shape, bool)
        for i, row in enumerate(said):
            passed[i, : len(row)] = [entry is True for entry in row]
            ran[i, : len(row)] = [entry is not None for entry in row]
        return cls(passed, ran)

    @property
    def killed(self) -> Bool[np.ndarray[Any, Any], "n j"]:
        """True where a test ran and the program failed it: the kill matrix, if the programs are wrong ones."""
        return np.asarray(self.ran & ~self.passed)

    def rates(self, groups: Int[np.ndarray[Any, Any], "n"] | None = None) -> Float[np.ndarray[Any, Any], "*g j"]:
        """The share of programs that pass each test, of those it ran on; 0 where it ran on none.

        Args:
            groups: numbers from 0, of programs that share a suite: a row of shares for each. Default: all share one.
        """
        if groups is None:
            return np.asarray(self.passed.sum(0) / np.maximum(self.ran.sum(0), 1))
        passes, runs = (np.zeros((int(groups.max(initial=-1)) + 1, self.passed.shape[1])) for _ in range(2))
        np.add.at(passes, groups, self.passed)
        np.add.at(runs, groups, self.ran)
        return np.asarray(passes / np.maximum(runs, 1))


def rarity_weights(
    rates: Float[np.ndarray[Any, Any], "*g j"],
    exists: Bool[np.ndarray[Any, Any], "*g j"] | None = None,
    *,
    alpha: float = 2.0,
    sigma: float = 0.1,
    delta: float = 1e-6,
) -> Float[np.ndarray[Any, Any], "*g j"]:
    """What passing each test is worth: the more the fewer pass it, shared with the tests that are as hard.

        Nⱼ = Σₖ exp(−(ρⱼ − ρₖ)²/2σ²)        wⱼ = exp(−α ρⱼ) / (Nⱼ + δ)

    Without N, the many easy tests of a suite decide: nine copies of a test pay nine times.

    Args:
        rates: ρ, the share of programs that pass each test; a suite to a row.
        exists: False for padding: weight 0, and no part in N.
        alpha: α ≥ 0, how much more a rare pass is worth; 0 for tests of equal worth.
        sigma: σ > 0, how near two shares are for their tests to be as hard.
        delta: δ ≥ 0.

    Returns:
        Weights in [0, 1].

    Raises:
        ValueError: if the shapes differ, or an option cannot be meant.

    >>> rarity_weights(np.array([0.9, 0.9, 0.9, 0.1])).round(4)
    array([0.0551, 0.0551, 0.0551, 0.8187])

    Source: VeRPO (arXiv 2601.03525), whose α, σ and δ are not stated.
    """
    check_rarity(alpha, sigma, delta)
    rates = np.asarray(rates, np.float64)
    exists = np.ones(rates.shape, bool) if exists is None else np.asarray(exists, bool)
    if exists.shape != rates.shape:
        raise ValueError(f"exists has shape {exists.shape}, rates have {rates.shape}")
    rates = np.where(exists, rates, 0.0)
    apart = rates[..., :, None] - rates[..., None, :]
    density = (np.exp(-((apart / sigma) ** 2) / 2) * exists[..., None, :]).sum(-1)
    return np.where(exists, np.exp(-alpha * rates) / np.maximum(density + delta, 1.0), 0.0)


def check_rarity(alpha: float, sigma: float, delta: float) -> None:
    """Refuse options of `rarity_weights` that cannot be meant.

    Raises:
        ValueError: naming the three.
    """
    if not (0 <= alpha < np.inf and 0 < sigma < np.inf and 0 <= delta < np.inf):
        raise ValueError(f"alpha ≥ 0, sigma > 0 and delta ≥ 0, got {alpha}, {sigma} and {delta}")


def outcome_of(entry: Any) -> bool | None:
    """Whether a test passed, of what says so; None if it did not run.

    Raises:
        Abstain: if it says neither.

    >>> [outcome_of(entry) for entry in ("passed", "gave 3", "not run", 1, False, None)]
    [True, False, None, True, False, None]
    """
    if entry is None or (isinstance(entry, str) and entry == "not run"):
        return None
    if isinstance(entry, str):
        return entry == "passed"
    if isinstance(entry, (Real, np.bool_)) and entry in (0, 1):
        return bool(entry)
    raise Abstain(f"an outcome is True, False or a text, got {shown(entry)}")


def turns_of_outcomes(entry: Any) -> list[list[bool | None]]:
    """What a column holds of a rollout's tests: of each turn, what became of each test.

    Args:
        entry: a list of outcomes, which is one turn; a list of those; or either as JSON text.

    Raises:
        Abstain: if it is neither, a turn has no tests, or turns have different numbers of them.

    >>> turns_of_outcomes([True, False]), turns_of_outcomes("[[0, 0], [0, 1]]")
    ([[True, False]], [[False, False], [False, True]])
    """
    if isinstance(entry, str):
        try:
            entry = read_json(entry)
        except ValueError as error:
            raise Abstain(f"outcomes not readable as JSON: {error}") from None
    listed = entry.tolist() if isinstance(entry, np.ndarray) else entry
    if not isinstance(listed, (list, tuple)) or not listed:
        raise Abstain(f"outcomes not a list of at least one: {shown(entry)}")
    turns = [turn.tolist() if isinstance(turn, np.ndarray) else turn for turn in listed]
    if not isinstance(turns[0], (list, tuple)):
        turns = [turns]
    said = []
    for turn in turns:
        if not isinstance(turn, (list, tuple)) or not turn or isinstance(turn, Mapping):
            raise Abstain(f"a turn without a list of outcomes: {shown(turn)}")
        said.append([outcome_of(outcome) for outcome in turn])
    if len({len(turn) for turn in said}) > 1:
        raise Abstain(f"turns with {' and '.join(map(str, sorted({len(turn) for turn in said})))} outcomes")
    return said
