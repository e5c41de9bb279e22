"""Grids of cells against their solution, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float


def block_match(
    answers: Any,
    solutions: Any,
    *,
    block: tuple[int, int] = (3, 3),
    tiers: int = 4,
    counted: Bool[np.ndarray[Any, Any], "*n h w"] | None = None,
) -> Float[np.ndarray[Any, Any], "*n"]:
    """The mean over blocks of the tier that a block's share of right cells reaches.

        tier(m) = ⌊K m⌋ / K

    Args:
        answers: any values, "*n h w".
        solutions: in the same shape.
        block: height and width of a block; blocks at the edges may be smaller.
        tiers: K; as many as cells of a block is the share itself.
        counted: cells that count; a block without any is left out.

    Returns:
        In [0, 1]; 0 where no cell counts.

    Raises:
        ValueError: if the shapes differ, or a block or the number of tiers is not positive.

    >>> answer, solution = np.array([[1, 2, 3, 4]]), np.array([[1, 2, 3, 5]])
    >>> block_match(answer, solution, block=(1, 4)), block_match(answer, solution, block=(1, 2))
    (array(0.75), array(0.75))
    >>> block_match(answer, solution, block=(1, 4), tiers=2)
    array(0.5)

    Source: Sweet Spot Learning (arXiv 2601.22491), the block-wise tiers of Sudoku, mazes and ARC.
    """
    answers, solutions = np.asarray(answers), np.asarray(solutions)
    if answers.shape != solutions.shape or answers.ndim < 2:
        raise ValueError(f"a grid of shape {answers.shape} is not one of shape {solutions.shape}")
    if min(block) < 1 or tiers < 1:
        raise ValueError(f"blocks and tiers are positive, got {block} and {tiers}")
    counts = np.ones(answers.shape, bool) if counted is None else np.broadcast_to(counted, answers.shape)
    right, cells = (_summed(x, block) for x in ((answers == solutions) & counts, counts))
    # ⌊K · m/n⌋ in whole numbers: 0.1 + 0.2 is not a tier.
    reached = (tiers * right) // np.maximum(cells, 1) / tiers
    there = cells > 0
    return np.asarray((reached * there).sum((-2, -1)) / np.maximum(there.sum((-2, -1)), 1))


def _summed(flags: Bool[np.ndarray[Any, Any], "*n h w"], block: tuple[int, int]) -> np.ndarray[Any, Any]:
    summed = flags.astype(np.int64)
    for axis, size in ((-2, block[0]), (-1, block[1])):
        summed = np.add.reduceat(summed, np.arange(0, summed.shape[axis], size), axis=axis)
    return summed
