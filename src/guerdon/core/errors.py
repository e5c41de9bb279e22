"""Every error guerdon raises on purpose: what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GuerdonError(Exception):
    """The base of all guerdon errors; the command line prints its message without a traceback."""


class MissingInput(GuerdonError, KeyError):
    """A reward or shaper reads something that the batch does not have."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class LevelMismatch(GuerdonError, TypeError):
    """Scores of different levels (one per rollout, one per step) were combined without saying how."""


class NotDifferentiable(GuerdonError, TypeError):
    """A reward without a gradient was given to an objective that is nothing but the reward's gradient."""


class NameClash(GuerdonError, ValueError):
    """Two different parts of one reward have the same name."""


class SpecError(GuerdonError, ValueError):
    """A reward written as data does not describe a reward, or a reward cannot be written as data."""


class RecipeError(GuerdonError, ValueError):
    """A recipe cannot be run as written."""


class MissingExtra(GuerdonError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency: pip install 'guerdon[{extra}]'")


class RunExists(GuerdonError):
    """The run folder holds a run of another recipe."""


class CannotWrite(GuerdonError):
    """A file could not be written: the disk is full or read-only. What was written before is kept."""


class TooManyAbstentions(GuerdonError):
    """So many scores were abstentions that training on the rest would be training on a biased sample."""


class Abstain(GuerdonError):
    """Raised inside a reward function to say: no score, and this is why.

    It is an ordinary outcome, not a failure of the program: the row's score is an abstention with
    this reason.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """A parenthesis for an error message: the nearest valid name, or all of them when none is near.

    >>> nearest("temprature", ["temperature", "clip"])
    "did you mean 'temperature'?"
    >>> nearest("x", ["temperature", "clip"])
    'valid: clip, temperature'
    """
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(valid) or 'none'}"
