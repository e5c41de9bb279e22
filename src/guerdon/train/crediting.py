"""From rewards to advantages: the parts of a method's credit in turn, each given what its parameters name."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.errors import MissingInput, RecipeError
from guerdon.core.parts import name_of
from guerdon.core.rollouts import Rollouts, Tokens
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.credit import PrefixTree, prefix_tree, spread
from guerdon.train.method import Credit, Part, function_of, in_turn

Per: TypeAlias = Literal["rollout", "step", "token"]

# What the first parameter of a part may be, by the shape it is annotated with.
TAKES: dict[str, tuple[Per, ...]] = {
    "n": ("rollout",),
    "n s": ("step",),
    "n s+1": ("step",),
    "n t": ("step", "token"),
    "n *s": ("rollout", "step", "token"),
    "*shape": ("rollout", "step", "token"),
}
# What the other parameters of a part may be called.
READS = ("groups", "mask", "valid", "written", "ids", "spans", "lengths", "tree")


@dataclass(frozen=True, eq=False)
class Flow:
    """What goes from part to part, and all that a part can read beside it, under the name of its parameter.

    Args:
        values: one per rollout, step or token: the rewards at first, the advantages in the end.
        per: which of the three.
        rollouts: the batch.
        valid: False where the reward of a rollout abstained, or none was asked for.
        spans: the tokens of each step, while there is one value per step.
    """

    values: Float[Tensor, "n"] | Float[Tensor, "n s"] | Float[Tensor, "n t"]
    per: Per
    rollouts: Rollouts
    valid: Bool[Tensor, "n"]
    spans: Spans | None = None

    @property
    def groups(self) -> Int[Tensor, "n"]:
        """The numbers of the groups."""
        return torch.as_tensor(self.rollouts.groups)

    @property
    def mask(self) -> Bool[Tensor, "n *s"]:
        """Where there is a value, in the shape of the values: in rollouts without a score, nowhere."""
        if self.spans is not None:
            return torch.as_tensor(self.spans.mask) & self.valid[:, None]
        return self.valid if self.per == "rollout" else self.written & self.valid[:, None]

    @property
    def written(self) -> Bool[Tensor, "n t"]:
        """The tokens that the policy chose."""
        return torch.as_tensor(self._tokens.written)

    @property
    def ids(self) -> Int[Tensor, "n t"]:
        """The tokens."""
        return torch.as_tensor(self._tokens.ids)

    @property
    def lengths(self) -> Int[Tensor, "n *s"]:
        """How many written tokens each value is about."""
        if self.spans is None:
            return self.written.sum(1) if self.per == "rollout" else self.written.long()
        before = torch.nn.functional.pad(self.written.long().cumsum(1), (1, 0))
        begin, end = (torch.where(self.mask, torch.as_tensor(x), 0) for x in (self.spans.begin, self.spans.end))
        return before.gather(1, end) - before.gather(1, begin)

    @property
    def tree(self) -> PrefixTree:
        """The prefixes that the rollouts of a group share, and what each is worth."""
        return prefix_tree(self.ids, torch.as_tensor(self._tokens.attended), self.values, self.groups, valid=self.valid)

    @property
    def _tokens(self) -> Tokens:
        if self.rollouts.tokens is None:
            raise MissingInput("credit by tokens needs 'tokens', which this batch does not have")
        return self.rollouts.tokens

    def through(self, part: Part) -> Flow:
        """What a part makes of the values."""
        signature = _signature(function_of(part))
        if signature.differs and not self.values.shape[1]:
            return self  # no rollout of the batch has a step
        flow = self._from_the_first_on() if signature.differs else self
        values = part(self.values, **{name: getattr(flow, name) for name in signature.reads})
        if signature.to_tokens:
            return replace(flow, values=values, per="token", spans=None)
        return replace(flow, values=values)

    def on_tokens(self) -> Flow:
        """The values of steps on all their tokens; those of rollouts and tokens as they are."""
        if self.spans is None:
            return self
        return replace(self, values=spread(self.values, self.written, self.spans, place="all"), per="token", spans=None)

    def _from_the_first_on(self) -> Flow:
        """The steps behind a first, empty one, whose value is the potential that the others began with."""
        assert self.spans is not None
        begin, end, mask = (to_numpy(x) for x in (self.spans.begin, self.spans.end, self.spans.mask))
        filled = np.flatnonzero((mask & (end > begin))[:, :1].any(1))
        if len(filled):
            raise RecipeError(
                f"credit: row {filled[0]} has no potential before its first step: a potential is read at every "
                "boundary, the first as the score of an empty step"
            )
        return replace(self, spans=Spans(begin[:, 1:], end[:, 1:], mask[:, 1:] & mask[:, :-1], self.spans.unit))


class _Signature(NamedTuple):
    takes: tuple[Per, ...]
    reads: tuple[str, ...]
    lacking: tuple[str, ...]  # required, and not among what can be read
    to_tokens: bool
    differs: bool  # from n + 1 potentials to n differences


@cache
def _signature(function: Part) -> _Signature:
    """What a part takes, reads and gives, by its parameters and their annotations; anything, where it has none.

    Raises:
        RecipeError: if it does not give one value for each that it takes, or one per token.
    """
    parameters = list(inspect.signature(function).parameters.values())
    hints = typing.get_type_hints(function)
    reads = tuple(x.name for x in parameters[1:] if x.name in READS)
    lacking = tuple(
        x.name
        for x in parameters[1:]
        if x.name not in READS and x.default is x.empty and x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)
    )
    if not parameters or parameters[0].name not in hints or "return" not in hints:
        return _Signature(TAKES["n *s"], reads, lacking, to_tokens=False, differs=False)
    taken, given = (_shape(hints[name]) for name in (parameters[0].name, "return"))
    differs, to_tokens = (taken, given) == ("n s+1", "n s"), given == "n t" != taken
    if taken not in TAKES or not (taken == given or differs or to_tokens):
        raise RecipeError(
            f"credit: {name_of(function)} is not a part of a method's credit: it does not go from one value per "
            "rollout, step or token to as many, or to one per token"
        )
    takes = tuple(per for per in TAKES[taken] if not (to_tokens and per == "token"))
    return _Signature(takes, reads, lacking, to_tokens, differs)


def _shape(annotation: Any) -> str | None:
    return annotation.dim_str if getattr(annotation, "dtype", None) is Float else None


def check(credit: Credit, per: Per) -> None:
    """Check, before any work, that a method's credit can be computed from rewards of a level.

    Raises:
        RecipeError: if a part reads what the loop does not have, takes values of another level than it is given, or
            does not make advantages.
    """
    for part in in_turn(credit):
        name, signature = name_of(function_of(part)), _signature(function_of(part))
        if signature.lacking:
            raise RecipeError(
                f"credit: {name} reads {signature.lacking[0]!r}, which the loop does not have; it has: "
                f"{', '.join(sorted(READS))}"
            )
        if per not in signature.takes:
            remedy = {
                "rollout": "put credit.spread before it, or give the reward by steps",
                "step": "put credit.spread before it, or reduce the reward to one per rollout",
                "token": "put it before the part that goes over to tokens",
            }[per]
            takes = " or ".join(signature.takes)
            raise RecipeError(f"credit: {name} takes one value per {takes} and is given one per {per}: {remedy}")
        per = "token" if signature.to_tokens else per


def advantages(
    credit: Credit, rewards: Float[Tensor, "n *s"], rollouts: Rollouts, scores: Scores
) -> Float[Tensor, "n"] | Float[Tensor, "n t"]:
    """Advantages of rollouts, or of tokens where the rewards are of steps or a part goes over to tokens.

    Each part is given what the part before it made (the first: the rewards) and, by the names of its other
    parameters, what it reads beside it:

        groups   rows that are compared                     mask     where there is a value, in its shape
        valid    rollouts with a score                      written  tokens that the policy chose
        ids      tokens                                     spans    the tokens of each step; None without steps
        lengths  written tokens that each value is about    tree     the prefixes that rollouts share

    What ends as one value per step holds for every token of the step. A part of potentials (`credit.progress`) reads
    one score more than there are steps: that of an empty step before the first.

    Args:
        credit: a part, or several in turn.
        rewards: one per rollout or step.
        rollouts: the batch.
        scores: those of the rewards: which rollouts have one, and where the steps are.

    Returns:
        Exactly 0 in rollouts without a score, and at tokens that the policy did not write.

    Raises:
        RecipeError: if steps have no place among the tokens, or potentials no beginning.
        MissingInput: if a part reads tokens and there are none.
    """
    valid = torch.as_tensor(to_numpy(scores.usable))
    flow = Flow(rewards, scores.level, rollouts, valid, token_spans(rollouts, scores))
    for part in in_turn(credit):
        flow = flow.through(part)
    flow = flow.on_tokens()
    return torch.where(flow.mask, flow.values, 0.0)


def token_spans(rollouts: Rollouts, scores: Scores) -> Spans | None:
    """The tokens of each step that was scored; None for one score per rollout.

    A token that has no character (the end of the sequence, a stop text that was cut off) belongs to the step before
    it: the policy chose it there, and would otherwise not learn when to end.

    Raises:
        RecipeError: if the scores do not say where their steps are.
        MissingInput: if steps are counted in characters, and the tokens do not know theirs.
    """
    if scores.level == "rollout":
        return None
    if scores.spans is None:
        raise RecipeError("reward: it gives one score per step and no spans: steps without a place have no tokens")
    spans = replace(scores.spans, mask=scores.mask)
    if spans.unit == "token":
        return spans
    tokens = rollouts.tokens
    if tokens is None or tokens.offsets is None:
        raise MissingInput("steps of a text need the tokens' offsets, which this batch does not have")
    spans = spans.to_tokens(tokens.offsets)
    n, t = tokens.ids.shape
    said = np.where(to_numpy(tokens.offsets)[:, :, 0] >= 0, np.arange(t), t)
    ahead = np.minimum.accumulate(np.concatenate([said, np.full((n, 1), t)], 1)[:, ::-1], 1)[:, ::-1]
    begin, end = (np.take_along_axis(ahead, to_numpy(x), 1) for x in (spans.begin, spans.end))
    return Spans(begin, end, spans.mask, "token")
