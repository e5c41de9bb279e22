"""Tables that were read off a chart, against the data it was drawn from."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, Passage, last_code_block, passage, read_json, shown, text_of

Table = list[list[str]]

CELLS = 2000  # of a table; pairs of cells are compared
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-*:?\s*)*\|?")
_NUMBER = re.compile(r"[$€£¥]?\s*([+-]?)[$€£¥]?\s*(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(?:[eE]([+-]?\d{1,3}))?\s*%?")


def read_table(value: Any) -> Table | None:
    """The rows of a table, the first of which are its columns' names; None if it is none.

    It reads lists of rows, lists of mappings, JSON of either, Markdown with pipes, and text with commas, semicolons or
    tabs; of a text, its last code block, or the lines with pipes.

    >>> read_table("| year | a |\\n|---|---|\\n| 2020 | 3 |"), read_table("year,a\\n2020,3")
    ([['year', 'a'], ['2020', '3']], [['year', 'a'], ['2020', '3']])
    """
    if isinstance(value, str):
        value = _of_text(value)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, Mapping):
        columns = list(value)
        if not all(isinstance(value[name], (list, tuple)) for name in columns):
            return None
        value = [columns, *zip(*(value[name] for name in columns), strict=False)]
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return None
    if all(isinstance(row, Mapping) for row in value):
        names = list(dict.fromkeys(name for row in value for name in row))
        value = [names, *([row.get(name, "") for name in names] for row in value)]
    rows = [list(row.tolist() if isinstance(row, np.ndarray) else row) for row in value if _is_row(row)]
    if len(rows) != len(value) or len(rows[0]) < 2:
        return None
    return [[_cell(cell) for cell in row] for row in rows]


def _of_text(text: str) -> Any:
    block = last_code_block(text)
    said = (text if block is None else block).strip()
    try:
        return read_json(said)
    except ValueError:
        pass
    lines = [line.strip() for line in said.splitlines() if "|" in line]
    if len(lines) >= 2:
        return [_split(line) for line in lines if not _RULE.fullmatch(line)]
    delimiter = max("\t;,", key=said.partition("\n")[0].count)
    if len(said) > 1 << 18 or delimiter not in said:
        return None
    try:
        return [row for row in csv.reader(io.StringIO(said), delimiter=delimiter, skipinitialspace=True) if row]
    except csv.Error:
        return None


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def _is_row(row: Any) -> bool:
    return isinstance(row, (list, tuple, np.ndarray)) and len(row) > 0


def _cell(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _options(tolerance: float, near: float, **options: Any) -> tuple[str, ...]:
    if not 0 <= tolerance < 1 or not 0 <= near <= 1:
        raise ValueError(f"table wants shares as tolerance and near, got {tolerance} and {near}")
    return needs("image.table", "scipy", "rapidfuzz", extra="image")()


@reward(range=(0, 1), requires=_options)
def table(
    completion: Completion,
    answer: Any,
    *,
    match: Literal["similar", "equal"] = "similar",
    tolerance: float = 0.1,
    near: float = 0.5,
    transposed: bool = True,
    within: Passage = "reply",
) -> tuple[float, dict[str, Any]]:
    """How far the table in the reply is the reference's: the F₁ of its cells, whatever the order of rows and columns.

    A cell is its two names and its value. Cells are matched one to one by their names, and a match is worth

        s(names) · max(0, 1 − |a − g|/|g|)        for numbers, 0 beyond the tolerance
        s(names) · s(values)                      for texts

    with s = 1 − d/max(|a|, |g|) of edits d, 0 where that is below `near`. Listing more cells than there are costs
    precision.

    Args:
        completion: the reply: text or chat messages, with a table as `image.read_table` reads it.
        answer: the reference: a list of rows, or a text likewise.
        match: 'equal' is 1 if both tables have the same cells, numbers within the tolerance, else 0.
        tolerance: of numbers, relative to the reference.
        near: similarity below which texts are different.
        transposed: whether rows for columns is the same table.
        within: see `text.exact`.

    Returns:
        In [0, 1], and as details precision and recall; 0 for a reply without a table, with the reason as `problem`.

    Raises:
        Abstain: if the reference is no table.
        MissingExtra: at once, without scipy or rapidfuzz.

    >>> from guerdon.rewards import image
    >>> image.table().evaluate("| year | b | a |\\n|-|-|-|\\n| 2020 | 4 | 3 |", [["year", "a", "b"], [2020, 3, 4]])[0]
    1.0

    Source: the relative mapping similarity of DePlot (arXiv 2212.10505).
    """
    expected = read_table(answer)
    wanted = [] if expected is None else _cells(expected)
    if not wanted or len(wanted) > CELLS:
        raise Abstain(f"reference is not a table of up to {CELLS} cells: {shown(answer)}")
    text = passage(text_of(completion), within)
    found = None if text is None else read_table(text)
    said = [] if found is None else _cells(found)
    if not said or len(said) > CELLS:
        return 0.0, {"problem": "no table" if not said else f"more than {CELLS} cells"}
    ways = [said, *([[(column, row, value) for row, column, value in said]] if transposed else [])]
    scored = [_compared(way, wanted, tolerance, near) for way in ways]
    total = max(worth.sum() for worth in scored)
    if match == "equal":
        same = len(said) == len(wanted) and any(bool((worth > 1 - tolerance - 1e-9).all()) for worth in scored)
        exact = same and any(_equal(way, wanted, tolerance) for way in ways)
        return float(exact), {"problem": None}
    precision, recall = float(total / len(said)), float(total / len(wanted))
    value = 2 * precision * recall / (precision + recall) if total > 0 else 0.0
    return min(1.0, value), {"precision": precision, "recall": recall, "problem": None}


Cell = tuple[str, str, str]


def _cells(rows: Table) -> list[Cell]:
    header, *body = rows
    return [
        (row[0].casefold(), name.casefold(), value.casefold())
        for row in body
        for name, value in zip(header[1:], row[1:], strict=False)
    ]


def _equal(said: Sequence[Cell], wanted: Sequence[Cell], tolerance: float) -> bool:
    """Whether each cell has its own in the other, cells of one name in any order of their values."""
    order = [sorted(some, key=lambda cell: (*cell[:2], _number(cell[2]) or 0.0, cell[2])) for some in (said, wanted)]
    return all(a[:2] == b[:2] and _value(a[2], b[2], tolerance, 1.0) > 0 for a, b in zip(*order, strict=True))


def _compared(
    said: Sequence[Cell], wanted: Sequence[Cell], tolerance: float, near: float
) -> Float[np.ndarray[Any, Any], "k"]:
    """What each matched pair of cells is worth."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist
    from scipy.optimize import linear_sum_assignment

    names = [[f"{row} {column}" for row, column, _ in some] for some in (said, wanted)]
    alike = cdist(*names, scorer=Levenshtein.normalized_similarity, score_cutoff=near)
    first, second = linear_sum_assignment(-alike)
    values = [_value(said[a][2], wanted[b][2], tolerance, near) for a, b in zip(first, second, strict=True)]
    return np.asarray(alike[first, second] * np.array(values))


def _value(said: str, wanted: str, tolerance: float, near: float) -> float:
    from rapidfuzz.distance import Levenshtein

    ours, right = _number(said), _number(wanted)
    if ours is not None and right is not None:
        away = abs(ours - right) / abs(right) if right else float(ours != right)
        return 1.0 - away if away <= tolerance else 0.0
    if right is not None or ours is not None:
        return 0.0
    return float(Levenshtein.normalized_similarity(said, wanted, score_cutoff=near)) if wanted or said else 1.0


def _number(text: str) -> float | None:
    found = _NUMBER.fullmatch(text.replace("−", "-"))
    if found is None or (found[2] is None and found[3] is None):
        return None
    value = float(f"{found[1]}{(found[2] or '0').replace(',', '')}{found[3] or ''}e{found[4] or 0}")
    return value if math.isfinite(value) else None
