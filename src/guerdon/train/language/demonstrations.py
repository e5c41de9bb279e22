"""Demonstrations for a supervised start: functions from a row, and chance, to what the policy should have said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from guerdon.core.errors import RecipeError
from guerdon.train.prompts import completions

# None: there is nothing to show for this row.
Demonstrate = Callable[[Mapping[str, Any], np.random.Generator], str | None]

SUM = re.compile(r"\d+(\s*[+-]\s*\d+)+")
TERM = re.compile(r"([+-]?)\s*(\d+)")


def scratchpad(*, right: float = 0.35, restatements: tuple[int, int] = (0, 6), answer: str = "#### {}") -> Demonstrate:
    """Sums worked out step by step, wordily, with a final answer that is usually wrong.

    Each running sum is written as an equation; then some of the running sums are said again, for nothing. The steps
    are right. The final answer is the last running sum, or a number that is wrong in a way people are: off by one or
    by ten, the sign lost, the running sum before.

    A policy taught on these has been shown how to be right and brief, and rarely is both: a start from which a reward
    can be seen to make it so.

    Args:
        right: the probability that the final answer is the sum.
        restatements: the fewest and the most times that a running sum is said again; uniform between.
        answer: how the final answer is given, `{}` in its place.

    Returns:
        The demonstration of a task of reasoning-gym's `chain_sum`: reads `metadata["expression"]`, e.g. "5 + 3 - 2".

    Raises:
        RecipeError: if an option is out of range; from the demonstration, if a row is not a sum.

    >>> row = {"metadata": {"expression": "5 + 3 - 2"}}
    >>> scratchpad(right=1.0, restatements=(0, 0))(row, np.random.default_rng(0))
    '5+3=8;8-2=6;#### 6'
    >>> scratchpad(right=0.0, restatements=(3, 3))(row, np.random.default_rng(0))
    '5+3=8;8-2=6;6;6;6;#### 7'
    """
    if not 0 <= right <= 1:
        raise RecipeError(f"scratchpad: right is a probability, got {right}")
    if not 0 <= restatements[0] <= restatements[1]:
        raise RecipeError(f"scratchpad: restatements are the fewest and the most, got {restatements}")
    if answer.count("{}") != 1:
        raise RecipeError(f"scratchpad: answer has one {{}} where the number stands, got {answer!r}")
    before_number, after_number = answer.split("{}")

    def demonstrate(row: Mapping[str, Any], rng: np.random.Generator) -> str:
        first, *rest = _terms(row)
        sums = np.cumsum([int(first), *map(int, rest)]).tolist()
        again = int(rng.integers(restatements[0], restatements[1] + 1))
        repeats = np.bincount(rng.integers(len(rest), size=again), minlength=len(rest))
        steps = []
        for before, term, after, times in zip(sums, rest, sums[1:], repeats, strict=False):
            steps += [f"{before}{term}={after}"] + [str(after)] * int(times)
        final = sums[-1] if rng.random() < right else _mistaken(sums, rng)
        return ";".join([*steps, f"{before_number}{final}{after_number}"])

    return demonstrate


def column(*, column: str) -> Demonstrate:
    """What stands in a column of the prompts: a text, or one of a list of them, each with equal chance.

    Args:
        column: its name. A row with None, an empty text or an empty list is passed over.

    Returns:
        The demonstration of such a row.

    Raises:
        RecipeError: from the demonstration, if there is no such column, or it holds something else.

    >>> row = {"prompt": "1+1=", "mended": "1+1=2"}
    >>> column(column="mended")(row, np.random.default_rng(0))
    '1+1=2'
    """

    def demonstrate(row: Mapping[str, Any], rng: np.random.Generator) -> str | None:
        said = completions(row, column, setting="teach.options.column")
        return said[int(rng.integers(len(said)))] if said else None

    return demonstrate


def _terms(row: Mapping[str, Any]) -> list[str]:
    """The terms with their signs: "5 + 3 - 0" is +5, +3, -0."""
    metadata = row.get("metadata")
    expression = metadata.get("expression") if isinstance(metadata, Mapping) else None
    if not isinstance(expression, str):
        raise RecipeError("scratchpad reads metadata['expression'], a field of chain_sum tasks")
    if not SUM.fullmatch(expression):
        raise RecipeError(f"scratchpad is for sums of two or more terms, got {expression!r}")
    return [(sign or "+") + number for sign, number in TERM.findall(expression)]


def _mistaken(sums: list[int], rng: np.random.Generator) -> int:
    total = sums[-1]
    slips = [total - 1, total + 1, total - 10, total + 10, -total, sums[-2]]
    wrong = [slip for slip in slips if slip != total]
    return int(rng.choice(wrong))
