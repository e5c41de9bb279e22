"""From rewards to advantages: the parts of a method's credit in turn, each given what its parameters name."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import AbstractArray, Bool, Float, Int
from torch import Tensor

from guerdon.algebra import Reward
from guerdon.core.arrays import pad, to_numpy
from guerdon.core.errors import MissingInput, RecipeError, nearest
from guerdon.core.parts import name_of
from guerdon.core.rollouts import Rollouts, Tokens
from guerdon.core.scores import Level, Scores
from guerdon.core.spans import Spans
from guerdon.credit import PrefixTree, prefix_tree, spread
from guerdon.train.method import Credit, Method, Part, Sum, function_of, in_turn, options, parts_of

Per: TypeAlias = Literal["rollout", "step", "token"]

# What the first parameter of a part may be, by the shape it is annotated with.
TAKES: dict[str, tuple[Per, ...]] = {
    "n": ("rollout",),
    "n s": ("step",),
    "n s+1": ("step",),
    "n b": ("step",),
    "n t": ("step", "token"),
    "n *s": ("rollout", "step", "token"),
    "*shape": ("rollout", "step", "token"),
}
# What the other parameters of a part may be called, and the level of those that a part of the reward can fill; None:
# that of the values.
READS = ("groups", "mask", "valid", "written", "ids", "spans", "lengths", "tree", "nodes", "values")
BESIDE: dict[str, Level | None] = {"n": "rollout", "n s": "step", "n t": "step", "n *s": None, "*shape": None}


@dataclass(frozen=True, eq=False)
class Flow:
    """What goes from part to part, and all that a part can read beside it, under the name of its parameter.

    Args:
        values: one per rollout, step or token: the rewards at first, the advantages in the end.
        per: which of the three.
        rollouts: the batch.
        valid: False where the reward of a rollout abstained, or none was asked for.
        spans: the tokens of each step, while there is one value per step.
        parts: the named parts of the reward that the credit reads.
    """

    values: Float[Tensor, "n"] | Float[Tensor, "n s"] | Float[Tensor, "n t"]
    per: Per
    rollouts: Rollouts
    valid: Bool[Tensor, "n"]
    spans: Spans | None = None
    parts: Mapping[str, Flow] = field(default_factory=dict)

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
    def expected(self) -> Float[Tensor, "n *s"] | None:
        """What the critic expected before the first token of each value; None without a critic."""
        if self._tokens.values is None:
            return None
        before = torch.as_tensor(self._tokens.values)
        if self.spans is None and self.per == "token":
            return before
        first = self.written.long().argmax(1)[:, None]
        begin = first if self.spans is None else torch.as_tensor(self.spans.begin).clamp(max=before.shape[1] - 1)
        found = before.gather(1, torch.where(self.mask.reshape(begin.shape), begin, 0))
        return found[:, 0] if self.spans is None else found

    @property
    def tree(self) -> PrefixTree:
        """The prefixes that the rollouts of a group share, and what each is worth."""
        return prefix_tree(self.ids, torch.as_tensor(self._tokens.attended), self.values, self.groups, valid=self.valid)

    @property
    def nodes(self) -> Int[Tensor, "n *s"]:
        """A number for each distinct prefix of a group that ends with a token or step; −1 where there is none.

        Steps that end one prefix and do not begin at one place are different steps.
        """
        attended = torch.as_tensor(self._tokens.attended)
        nodes = prefix_tree(self.ids, attended, torch.zeros(len(self.valid)), self.groups).nodes
        if self.spans is None:
            return torch.where(self.valid[:, None], nodes, -1)
        _, group = torch.unique(self.groups, return_inverse=True)
        nodes = torch.cat([-2 - group[:, None], nodes], 1)  # each group's prefix of no token, and then the others
        begin, end = (torch.where(self.mask, torch.as_tensor(x), 0) for x in (self.spans.begin, self.spans.end))
        ends = nodes.gather(1, torch.minimum(end, attended.sum(1, keepdim=True)))
        _, number = torch.unique(torch.stack([ends, begin], -1).flatten(0, 1), dim=0, return_inverse=True)
        return torch.where(self.mask, number.view(ends.shape), -1)

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
        beside = [name for name in signature.beside if name in self.parts]
        if signature.to_steps:
            flow = flow._in_the_steps_of(beside)
        # What flows is called `values` as well; a part's parameter of that name is the critic's.
        names = {name: "expected" if name == "values" else name for name in signature.reads}
        if "values" in names and not reads_values(part):
            del names["values"]
        given = {name: getattr(flow, own) for name, own in names.items()}
        given |= {name: flow._beside(name, signature.beside[name]) for name in beside}
        values = part(self.values, **given)
        if signature.to_tokens:
            return replace(flow, values=values, per="token", spans=None)
        return replace(flow, values=values)

    def on_tokens(self) -> Flow:
        """Values of rollouts and steps on all their tokens."""
        if self.per == "token":
            return self
        return replace(self, values=spread(self.values, self.written, self.spans, place="all"), per="token", spans=None)

    def summed(self, total: Sum) -> Flow:
        """What the chains of a sum make of the parts of the reward; per token, unless all are per rollout."""
        flows = []
        for name, chain in total.chains.items():
            flow = replace(self.parts[name], parts=self.parts)
            for part in in_turn(chain):
                assert not isinstance(part, Sum)
                flow = flow.through(part)
            flows.append(flow if flow.per == "rollout" else flow.on_tokens())
        if any(flow.per == "token" for flow in flows):
            flows = [flow.on_tokens() for flow in flows]
        first, *others = (torch.where(flow.mask, flow.values, 0.0) for flow in flows)
        return replace(self, values=sum(others, start=first), per=flows[0].per, spans=None)

    def _in_the_steps_of(self, names: Sequence[str]) -> Flow:
        """With the steps of the first of these parts that has them; without one, each token is a step."""
        spans = next((self.parts[name].spans for name in names if self.parts[name].spans is not None), None)
        return replace(self, per="token" if spans is None else "step", spans=spans)

    def _beside(self, name: str, beside: _Beside) -> Tensor:
        """The values of a part of the reward where these values are; right or wrong, where that is asked."""
        other = self.parts[name]
        if other.per == "step":
            other = other.on_tokens() if self.spans is None else replace(other, values=self._in_my_steps(name, other))
        return other.values > 0.5 if beside.flags else other.values

    def _in_my_steps(self, name: str, other: Flow) -> Tensor:
        assert self.spans is not None
        assert other.spans is not None
        width = max(self.spans.mask.shape[1], other.spans.mask.shape[1])
        rows = to_numpy(self.valid & other.valid)
        mine, theirs = (
            np.stack([pad(np.where(to_numpy(s.mask), to_numpy(x), -1), width, -1) for x in (s.begin, s.end)])
            for s in (self.spans, other.spans)
        )
        differ = np.flatnonzero((mine != theirs).any((0, 2)) & rows)
        if len(differ):
            raise RecipeError(
                f"credit: row {differ[0]} is cut into other steps by {name!r} than by what it stands beside"
            )
        values: Tensor = pad(other.values, width)
        return values[:, : self.spans.mask.shape[1]]

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


def reads_values(part: Part) -> bool:
    """Whether a part needs a critic's values: `credit.returns` does, of its kind "gae"."""
    return "values" in _signature(function_of(part)).reads and options(part).get("kind", "gae") == "gae"


def goes_to_tokens(part: Part) -> bool:
    """Whether a part makes one value per token of what it is given."""
    return _signature(function_of(part)).to_tokens


def differs(part: Part) -> bool:
    """Whether a part makes n values of the n + 1 potentials around them, as `credit.progress` does."""
    return _signature(function_of(part)).differs


class _Beside(NamedTuple):
    """A parameter that the part of the reward of its name fills."""

    level: Level | None  # None: that of the values
    flags: bool
    required: bool


class _Signature(NamedTuple):
    takes: tuple[Per, ...]
    reads: tuple[str, ...]
    beside: Mapping[str, _Beside]
    lacking: tuple[str, ...]  # required, and not among what can be read
    to_steps: bool
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
    reads, beside, lacking = list[str](), dict[str, _Beside](), list[str]()
    for x in parameters[1:]:
        required = x.default is x.empty and x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)
        kind, shape = _array(hints.get(x.name))
        if x.name in READS:
            reads.append(x.name)
        elif kind in (Float, Bool) and shape in BESIDE:
            beside[x.name] = _Beside(BESIDE[shape], kind is Bool, required)
        elif required:
            lacking.append(x.name)
    known = tuple(reads), beside, tuple(lacking)
    if not parameters or parameters[0].name not in hints or "return" not in hints:
        return _Signature(TAKES["n *s"], *known, to_steps=False, to_tokens=False, differs=False)
    (_, taken), (kind, given) = (_array(hints[name]) for name in (parameters[0].name, "return"))
    differs, to_steps, to_tokens = (
        (taken, given) == ("n s+1", "n s"),
        (taken, given) == ("n", "n s"),
        given == "n t" != taken,
    )
    if kind is not Float or taken not in TAKES or not (taken == given or differs or to_steps or to_tokens):
        raise RecipeError(
            f"credit: {name_of(function)} is not a part of a method's credit: it does not go from one value per "
            "rollout, step or token to as many, or to one per step or token"
        )
    takes = tuple(per for per in TAKES[taken] if not (to_tokens and per == "token"))
    return _Signature(takes, *known, to_steps, to_tokens, differs)


def _array(annotation: Any) -> tuple[Any, str | None]:
    """What kind of array is annotated, and its shape; None where there is none."""
    for one in (annotation, *typing.get_args(annotation)):
        if isinstance(one, type) and issubclass(one, AbstractArray):
            return one.dtype, one.dim_str
    return None, None


def check(method: Method, reward: Reward, *, critic: bool = False, level: Level | None = None) -> None:
    """Check, before any work, that a method's credit can be computed from a reward.

    Args:
        method, reward: the two.
        critic: whether there is one.
        level: of the values that credit begins with, where that is not the reward's: the loop scores every step.

    Raises:
        RecipeError: if a part reads what neither the loop nor the reward has, takes values of another level than it is
            given, or does not make advantages; if shapers or a KL are to change what the credit does not read; or if
            there is a critic and nothing reads its values, or the other way round.
    """
    readers = [name_of(function_of(part)) for part in parts_of(method.credit) if reads_values(part)]
    if readers and not critic:
        raise RecipeError(
            f"credit: {readers[0]} reads the values of a critic, and the recipe has none: add critic: {{}}"
        )
    if critic and not readers:
        raise RecipeError("critic: nothing reads its values: credit needs {part: credit.returns, kind: gae}")
    levels = {name: node.level for name, node in reward.names().items()}
    first, *rest = in_turn(method.credit)
    if isinstance(first, Sum):
        if method.shaping:
            raise RecipeError(
                "method.shaping: a credit by parts does not read the whole reward: shape its parts instead"
            )
        ends = [_through(in_turn(chain), _level(name, levels), levels) for name, chain in first.chains.items()]
        per: Per = "rollout" if set(ends) == {"rollout"} else "token"
    else:
        per = _through([first], level or reward.level, levels)
    _through(rest, per, levels)
    if method.kl.coefficient and method.kl.place == "reward":
        _check_kl(method.credit, reward.level, levels)


def _through(chain: Iterable[Part | Sum], per: Per, levels: Mapping[str, Level]) -> Per:
    """The level that values of a level have behind some parts."""
    for part in chain:
        if isinstance(part, Sum):
            raise RecipeError("credit: a sum is of parts of the reward: it comes first, and holds no other sum")
        name, signature = name_of(function_of(part)), _signature(function_of(part))
        beside = {x: of for x, of in signature.beside.items() if of.required or x in levels}
        lacking = [*signature.lacking, *(x for x in beside if x not in levels)]
        if lacking:
            raise RecipeError(
                f"credit: {name} reads {lacking[0]!r}, which the loop does not have; it has: "
                f"{', '.join(sorted(READS))}; nor is it a part of the reward, whose parts are: {', '.join(levels)}"
            )
        if per not in signature.takes:
            remedy = {
                "rollout": "put credit.spread before it, or give the reward by steps",
                "step": "put credit.spread before it, or reduce the reward to one per rollout",
                "token": "put it before the part that goes over to tokens",
            }[per]
            takes = " or ".join(signature.takes)
            raise RecipeError(f"credit: {name} takes one value per {takes} and is given one per {per}: {remedy}")
        for x, of in beside.items():
            wanted = of.level or ("rollout" if per == "rollout" else "step")
            if levels[x] != wanted:
                raise RecipeError(
                    f"credit: {name} reads {x!r} as one value per {wanted}; the reward gives one per {levels[x]}"
                )
        if signature.to_steps:
            per = "step" if any(levels[x] == "step" for x in beside) else "token"
        per = "token" if signature.to_tokens else per
    return per


def _level(name: str, levels: Mapping[str, Level]) -> Level:
    if name not in levels:
        raise RecipeError(f"credit: the reward has no part {name!r} (give one that name): {nearest(name, levels)}")
    return levels[name]


def _check_kl(credit: Credit, level: Level, levels: Mapping[str, Level]) -> None:
    by_parts = isinstance(in_turn(credit)[0], Sum)
    outcomes = [name for name in parts_read(credit, levels) if levels[name] == "rollout"]
    if not by_parts and level == "step":
        raise RecipeError(
            "method.kl.place: a rollout's KL is not taken from the rewards of its steps; put it in the loss"
        )
    if by_parts and len(outcomes) != 1:
        raise RecipeError(
            "method.kl.place: a rollout's KL is taken from the one part of the reward that is of rollouts, and the "
            f"credit reads {', '.join(outcomes) or 'none'}; put it in the loss"
        )


def parts_read(credit: Credit, levels: Mapping[str, Any]) -> list[str]:
    """The parts of the reward that a credit reads by name."""
    summed = [name for one in in_turn(credit) if isinstance(one, Sum) for name in one.chains]
    beside = [x for part in parts_of(credit) for x in _signature(function_of(part)).beside if x in levels]
    return list(dict.fromkeys([*summed, *beside]))


def advantages(
    credit: Credit, rollouts: Rollouts, scores: Scores, *, penalty: Float[Tensor, "n"] | None = None
) -> Float[Tensor, "n"] | Float[Tensor, "n t"]:
    """Advantages of rollouts, or of tokens where the rewards are of steps or a part goes over to tokens.

    Each part is given what the part before it made (the first: the rewards) and, by the names of its other
    parameters, what it reads beside it:

        groups   rows that are compared                     mask     where there is a value, in its shape
        valid    rollouts with a score                      written  tokens that the policy chose
        ids      tokens                                     spans    the tokens of each step; None without steps
        lengths  written tokens that each value is about    tree     the prefixes that rollouts share
        nodes    which prefixes are the same                values   the critic's, before each value's tokens

    Any other is the part of the reward of that name: `credit.redistribute` shares a reward out by the part
    'importance', in whose steps it then is. A `Sum` begins with parts of the reward in place of the whole.

    What ends as one value per step holds for every token of the step. A part of potentials (`credit.progress`) reads
    one score more than there are steps: that of an empty step before the first.

    A rollout on which the reward abstains, or any part that is read by name, has no advantage and is in no statistic.
    A part that is not asked for at a rollout, or finds no step in it, adds nothing there.

    Args:
        credit: a part, or several in turn.
        rollouts: the batch.
        scores: the rewards, with their parts.
        penalty: is taken from the reward, one per rollout; where a sum begins with parts, from the one that is of
            rollouts.

    Returns:
        Exactly 0 in rollouts without a score, and at tokens that the policy did not write.

    Raises:
        RecipeError: if steps have no place among the tokens, parts that are read together have other steps, or
            potentials no beginning.
        MissingInput: if a part reads tokens and there are none.
    """
    first, *rest = in_turn(credit)
    named = {name: scores.parts[name] for name in parts_read(credit, scores.parts)}
    valid = torch.as_tensor(scored(credit, scores))
    parts = {name: _flow(part, rollouts, valid) for name, part in named.items()}
    if isinstance(first, Sum):
        if penalty is not None:
            parts |= {x: replace(of, values=of.values - penalty) for x, of in parts.items() if of.per == "rollout"}
        flow = Flow(torch.zeros(len(rollouts)), "rollout", rollouts, valid, parts=parts).summed(first)
    else:
        flow = replace(_flow(scores, rollouts, valid), parts=parts)
        if penalty is not None:
            flow = replace(flow, values=flow.values - penalty)
        flow = flow.through(first)
    for one in rest:
        assert not isinstance(one, Sum)
        flow = flow.through(one)
    flow = flow if flow.per == "rollout" else flow.on_tokens()
    return torch.where(flow.mask, flow.values, 0.0)


def scored(credit: Credit, scores: Scores) -> Bool[np.ndarray[Any, Any], "n"]:
    """Rollouts that have a score, and on which no part abstains that the credit reads by name."""
    valid = to_numpy(scores.usable)
    for name in parts_read(credit, scores.parts):
        abstained = to_numpy(scores.parts[name].abstained)
        valid = valid & ~(abstained if abstained.ndim == 1 else abstained.any(1))
    return valid


def _flow(scores: Scores, rollouts: Rollouts, valid: Bool[Tensor, "n"]) -> Flow:
    asked = to_numpy(scores.mask)
    rows = valid & torch.as_tensor(asked if asked.ndim == 1 else asked.any(1))
    values = torch.as_tensor(to_numpy(scores.read(0.0)))
    return Flow(values, scores.level, rollouts, rows, token_spans(rollouts, scores))


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
