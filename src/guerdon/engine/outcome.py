"""What a leaf returned or raised, as a number in its range or an abstention that says why."""

from __future__ import annotations

import math
import numbers
import os
import sysconfig
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.core.arrays import is_tensor, to_numpy, where
from guerdon.core.errors import Abstain
from guerdon.core.protocols import Leaf, Range
from guerdon.core.scores import Level, Scores

Outcome = tuple[float, str | None, dict[str, Any] | None]  # number, why there is none, evidence
Limits = tuple[float, float, float, float]  # lowest, highest, and the same with slack for rounding

SLACK = 1e-6
LONGEST_MESSAGE = 300

_ENGINE = os.path.dirname(__file__) + os.sep
_LIBRARIES = (*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")), "<frozen")


def limits(declared: Range) -> Limits:
    """A declared range, and how far beyond each end is rounding: 1e-6 of the end.

    At 0, where there is nothing to be relative to, it is 1e-6 of the width, and 1e-6 at most.

    >>> limits((0, 2))
    (0.0, 2.0, -1e-06, 2.000002)
    """
    low, high = float(declared[0]), float(declared[1])
    at_zero = min(1.0, high - low)
    return low, high, low - SLACK * (abs(low) or at_zero), high + SLACK * (abs(high) or at_zero)


def judge(returned: Any, within: Limits) -> Outcome:
    """The outcome of one row.

    A number is an int, float or bool, a NumPy scalar, or an array or tensor without axes. What lies
    beyond an end of the range by no more than rounding is that end; the rest, NaN and ±inf abstain.

    >>> judge((True, {"extracted": "4"}), limits((0, 1)))
    (1.0, None, {'extracted': '4'})
    >>> judge(1.5, limits((0, 1)))
    (nan, 'score 1.5 outside the declared range (0, 1)', None)
    >>> judge("good", limits((0, 1)))
    (nan, 'returned str, expected a number', None)
    """
    low, high, lowest, highest = within
    if type(returned) is float and low <= returned <= high and math.isfinite(returned):
        return returned, None, None
    details = None
    if type(returned) is tuple and len(returned) == 2 and isinstance(returned[1], dict):
        returned, details = returned
    if returned is None:
        return math.nan, "no score was returned", details
    if isinstance(returned, Abstain):
        return math.nan, _shorten(str(returned)) or "abstained without saying why", details
    value = _number(returned)
    if value is None:
        return math.nan, f"returned {type(returned).__name__}, expected a number", details
    if low <= value <= high and math.isfinite(value):
        return value, None, details
    if not math.isfinite(value):
        return math.nan, f"the score was {value}, not a finite number", details
    if lowest <= value <= highest:
        return min(max(value, low), high), None, details
    return math.nan, _outside(value, low, high), details


def judge_group(returned: Any, size: int, within: Limits) -> list[Outcome]:
    """The outcomes of a unit of several rows, which returns one outcome for each.

    >>> judge_group([1, 0, 1], 4, limits((0, 1)))[0]
    (nan, 'returned 3 scores for 4 rows', None)
    """
    if is_tensor(returned) or isinstance(returned, np.ndarray):
        returned = returned.tolist()
    if returned is None or isinstance(returned, Abstain):
        return [judge(returned, within)] * size
    if not isinstance(returned, list | tuple):
        return abstain(f"returned {type(returned).__name__}, expected a list of {size} scores", size)
    if len(returned) != size:
        return abstain(f"returned {len(returned)} scores for {size} rows", size)
    return [judge(outcome, within) for outcome in returned]


def judge_scores(returned: Any, leaf: Leaf, n: int) -> Scores:
    """The scores of `n` rows that a batch leaf measured; rows out of its range abstain."""
    if not isinstance(returned, Scores):
        return abstentions(leaf.level, n, f"returned {type(returned).__name__}, expected Scores")
    if len(returned) != n:
        return abstentions(leaf.level, n, f"returned {len(returned)} scores for {n} rows")
    if returned.level != leaf.level:
        return abstentions(leaf.level, n, f"returned one score per {returned.level}, declares one per {leaf.level}")
    return _within(_unmasked(returned), limits(leaf.range))


def abstain(reason: str, size: int = 1) -> list[Outcome]:
    """`size` abstentions for one reason."""
    return [(math.nan, reason, None)] * size


def abstentions(level: Level, n: int, reason: str) -> Scores:
    """`n` rows that abstain for one reason, as scores of the given level."""
    if level == "rollout":
        return Scores.abstain(n, reason)
    return Scores(np.zeros((n, 1)), valid=np.zeros((n, 1), bool), reasons=dict.fromkeys(range(n), reason))


def late(deadline: float) -> str:
    """Why a unit abstains that took longer than its deadline."""
    return f"deadline {float(deadline)} s"


def explain(error: BaseException) -> str:
    """Why a unit abstains that raised: what `Abstain` says, or 'ValueError: message (file.py:12)'.

    The place is the last line outside of the standard library and installed packages, which is where
    the author of a reward will look; where there is none, the line that raised.
    """
    try:
        message = _shorten(str(error))
    except Exception:  # an exception may fail to describe itself
        message = "(no message)"
    if isinstance(error, Abstain):
        return message or "abstained without saying why"
    lines = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    lines = [(file, number) for file, number in lines if not file.startswith(_ENGINE)]
    own = [(file, number) for file, number in lines if not file.startswith(_LIBRARIES)]
    place = "".join(f" ({os.path.basename(file)}:{number})" for file, number in (own or lines)[-1:])
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"


def _number(value: Any) -> float | None:
    if is_tensor(value) or isinstance(value, np.ndarray):
        if value.ndim:
            return None
        value = value.item()
    if not isinstance(value, numbers.Real | np.bool_):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _outside(value: float, low: float, high: float) -> str:
    return f"score {value!r} outside the declared range ({low:g}, {high:g})"


def _shorten(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"


def _unmasked(scores: Scores) -> Scores:
    """A rollout that was asked for and left out of the mask is an abstention, not padding."""
    mask = to_numpy(scores.mask)
    if scores.level == "step" or mask.all():
        return scores
    reasons = {int(row): "no score was returned" for row in np.flatnonzero(~mask)}
    return Scores(
        scores.read(fill=0.0),
        valid=scores.valid,
        spans=scores.spans,
        reasons={**scores.reasons, **reasons},
        details=scores.details,
        parts=scores.parts,
    )


def _within(scores: Scores, within: Limits) -> Scores:
    low, high, lowest, highest = within
    inside = next((end for end in (low, high) if math.isfinite(end)), 0.0)
    values = scores.read(fill=inside)
    plain = to_numpy(values)
    if ((plain >= low) & (plain <= high)).all():
        return scores
    wrong = (plain < lowest) | (plain > highest)
    clipped = where(plain < low, low, where(plain > high, high, values))
    return scores.with_values(clipped, valid=to_numpy(scores.valid) & ~wrong, reasons=_reasons(wrong, plain, low, high))


def _reasons(wrong: np.ndarray[Any, Any], plain: np.ndarray[Any, Any], low: float, high: float) -> dict[int, str]:
    reasons: dict[int, str] = {}
    places: Sequence[Sequence[int]] = np.argwhere(wrong).tolist()
    for row, *step in places:
        at = f"step {step[0]}: " if step else ""
        reasons.setdefault(row, at + _outside(float(plain[(row, *step)]), low, high))
    return reasons
