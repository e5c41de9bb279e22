"""Answers in many parts: the clicks of a trajectory, the cells of a grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, Passage, last_fenced, passage, read_json, shown, text_of
from guerdon.core.scores import Scores
from guerdon.rewards import geometry
from guerdon.rewards.grounding.reading import Rows, numbers, references


@reward(range=(0, 1), lane="batch")
def clicks(
    completion: Sequence[Completion],
    boxes: Sequence[Any],
    *,
    measure: Literal["gaussian", "inside"] = "gaussian",
    spread: float = 0.5,
) -> Scores:
    """How near the clicks of a trajectory are to their targets, step by step: the mean over the steps.

    Each of the assistant's messages is a step, or each line of a text; its click is the first bracket of two or four
    numbers. The sum is divided by the larger number of steps, taken and wanted, so that neither one lucky step nor
    many further ones pay.

    Args:
        completion: chat messages or text.
        boxes: the target of each step, [x1, y1, x2, y2].
        measure: see `gaussian` and `inside`.
        spread: see `gaussian`.

    Returns:
        In [0, 1]; steps without a click are worth 0.

    >>> from guerdon.rewards import grounding
    >>> target = [100, 100, 200, 140]
    >>> grounding.clicks()(["?"], ["click(150, 120)\\nwait"], boxes=[[target, target]])
    [0.5]

    Source: the proximity along a trajectory of Sweet Spot Learning (arXiv 2601.22491).
    """
    reasons: dict[int, str] = {}
    targets = references(boxes, 2, reasons)
    for row, found in enumerate(targets):
        if not found.boxes:
            reasons.setdefault(row, f"reference has no steps: {shown(boxes[row])}")
    steps = [_steps(spoken) for spoken in completion]
    places, wanted, rows = [], [], []
    for row, (taken, found) in enumerate(zip(steps, targets, strict=True)):
        for text, box in zip(taken, found.boxes, strict=False):
            read = numbers(text, 2, 4) or [np.nan] * 2
            whole = len(read) == 2 or bool(geometry.usable(np.array(read)))
            middle = read if len(read) == 2 else geometry.centers(np.array(read)).tolist()
            places.append(middle if whole else [np.nan] * 2)
            wanted.append(box)
            rows.append(row)
    points, targets_ = np.array(places).reshape(-1, 2), np.array(wanted, np.float64).reshape(-1, 4)
    near = (
        geometry.inside(points, targets_) if measure == "inside" else geometry.gaussian(points, targets_, spread=spread)
    )
    sums = np.bincount(np.array(rows, np.int64), weights=near, minlength=len(steps))
    longer = [max(len(taken), len(found.boxes), 1) for taken, found in zip(steps, targets, strict=True)]
    problems = [None if taken else "no steps" for taken in steps]
    return Rows(reasons, problems).scores(sums / np.array(longer), 0.0, steps=[len(taken) for taken in steps])


def _steps(completion: Completion) -> list[str]:
    if isinstance(completion, str):
        return [line for line in completion.splitlines() if line.strip()]
    spoken = [message for message in completion if isinstance(message, Mapping)]
    return [text_of([message]) for message in spoken if message.get("role", "assistant") == "assistant"]


def _columns(*, givens: str, **options: Any) -> tuple[str, ...]:
    return ("completion", "solution", *(("puzzle",) if givens == "leave" else ()))


def _valid(*, block: tuple[int, int], tiers: int, **options: Any) -> tuple[str, ...]:
    if min(block) < 1 or tiers < 1:
        raise ValueError(f"blocks and tiers are positive, got {block} and {tiers}")
    return ()


@reward(range=(0, 1), columns=_columns, requires=_valid)
def grid(
    completion: Completion,
    solution: Any,
    puzzle: Any = None,
    *,
    block: tuple[int, int] = (3, 3),
    tiers: int = 4,
    givens: Literal["count", "leave"] = "count",
    within: Passage = "reply",
) -> tuple[float, dict[str, Any]]:
    """How much of a grid is right: the mean over its blocks of the tier that the share of right cells reaches.

    The grid is JSON, a list of rows, or lines of characters with white space between them or none.

    Args:
        completion: the reply: text or chat messages; its last code block, if there is one.
        solution: the right grid, in either form.
        puzzle: the grid as it was asked; read if `givens` is 'leave'.
        block, tiers: see `geometry.block_match`.
        givens: 'leave' looks only at cells that differ between puzzle and solution: copying the puzzle is then worth
            0, and nothing else is lost.
        within: see `text.exact`.

    Returns:
        In [0, 1]. A grid of another shape gets 0, and the detail `problem` says so.

    Raises:
        Abstain: if the solution, or the puzzle, is not a grid.

    >>> from guerdon.rewards import grounding
    >>> grounding.grid(block=(2, 2)).evaluate("12\\n34", "12\\n43")[0]
    0.5

    Source: the tiers of Sweet Spot Learning (arXiv 2601.22491) for Sudoku, mazes and ARC; 'leave' is ours.
    """
    wanted = _grid(solution)
    if wanted is None:
        raise Abstain(f"reference is not a grid: {shown(solution)}")
    counted = None
    if givens == "leave":
        asked = _grid(puzzle)
        if asked is None or asked.shape != wanted.shape or (asked == wanted).all():
            raise Abstain(f"puzzle is not a grid to be completed to the solution: {shown(puzzle)}")
        counted = asked != wanted
    said = passage(text_of(completion), within) or ""
    found = _grid(last_fenced(said, "json", "", "text") or said)
    if found is None or found.shape != wanted.shape:
        what = "no grid" if found is None else f"a grid of {found.shape} cells"
        return 0.0, {"problem": f"{what} where one of {wanted.shape} is wanted"}
    return float(geometry.block_match(found, wanted, block=block, tiers=tiers, counted=counted)), {"problem": None}


def _grid(value: Any) -> np.ndarray[Any, Any] | None:
    """A grid of cells as text, or None."""
    if isinstance(value, str):
        value = _read(value.strip())
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, (list, tuple)) or not value:
        return None
    rows = [_cells(row) for row in value]
    width = len(rows[0] or ())
    if not width or any(row is None or len(row) != width for row in rows):
        return None
    return np.array(rows, object)


def _read(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return [line.strip() for line in text.splitlines() if line.strip()]


def _cells(row: Any) -> list[str] | None:
    if isinstance(row, str):
        return row.split() if len(row.split()) > 1 else list(row)
    row = row.tolist() if isinstance(row, np.ndarray) else row
    if not isinstance(row, (list, tuple)) or any(isinstance(cell, (list, tuple, Mapping)) for cell in row):
        return None
    return [cell if isinstance(cell, str) else json.dumps(cell) for cell in row]
