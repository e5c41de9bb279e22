"""The data that flows through guerdon: rollouts in, scores out, and the contracts between the rooms.

Everything here is NumPy and the standard library; torch tensors are accepted where a score is
differentiable or learned, and never imported for.
"""

from guerdon.core.comparisons import Comparisons
from guerdon.core.context import Context
from guerdon.core.errors import (
    Abstain,
    CannotWrite,
    GuerdonError,
    LevelMismatch,
    MissingExtra,
    MissingInput,
    NameClash,
    NotDifferentiable,
    RecipeError,
    RunExists,
    SpecError,
    TooManyAbstentions,
)
from guerdon.core.rollouts import Rollouts, Tokens, Tree
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.core.trajectory import Trajectory

__all__ = [
    "Abstain",
    "CannotWrite",
    "Comparisons",
    "Context",
    "GuerdonError",
    "LevelMismatch",
    "MissingExtra",
    "MissingInput",
    "NameClash",
    "NotDifferentiable",
    "RecipeError",
    "Rollouts",
    "RunExists",
    "Scores",
    "Spans",
    "SpecError",
    "Tokens",
    "TooManyAbstentions",
    "Trajectory",
    "Tree",
]
