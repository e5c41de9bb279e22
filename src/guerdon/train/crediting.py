"""From rewards to advantages: the parts of a method's credit in turn, each given what its parameters name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.arrays import pad, to_numpy
from guerdon.core.errors import MissingInput, RecipeError
from guerdon.core.rollouts import Rollouts, Tokens
from guerdon.core.scores import Scores
from guerdon.core.spans import Spans
from guerdon.credit import PrefixTree, prefix_tree, spread
from guerdon.train.chains import Beside, Per, parts_read, reads_values, signature
from guerdon.train.method import Credit, Part, Sum, function_of, in_turn

STOPPED = "stopped"  # the column that says which rollouts did not go on from where their group began


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
        cost: is taken from each token as soon as there is one value per token; None: nothing, or nothing any more.
    """

    values: Float[Tensor, "n"] | Float[Tensor, "n s"] | Float[Tensor, "n t"]
    per: Per
    rollouts: Rollouts
    valid: Bool[Tensor, "n"]
    spans: Spans | None = None
    parts: Mapping[str, Flow] = field(default_factory=dict)
    cost: Float[Tensor, "n t"] | None = None

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
    def baseline_rows(self) -> Bool[Tensor, "n"] | None:
        """The rollouts that the others are compared with, where that is not all: those that stop where all began.

        In a group of which none stops, all.
        """
        stopped = self.rollouts.columns.get(STOPPED)
        if stopped is None:
            return None
        some, group = np.asarray(stopped, bool), self.rollouts.groups
        return torch.as_tensor(some | ~np.isin(group, group[some]))

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
        return before if self._on_tokens else before.gather(1, self._first).reshape(self.mask.shape)

    @property
    def _on_tokens(self) -> bool:
        return self.per == "token" and self.spans is None

    @property
    def _first(self) -> Int[Tensor, "n s"]:
        """The first token of each value; 0 where there is none."""
        if self.spans is None:
            return self.written.long().argmax(1)[:, None]
        begin = torch.as_tensor(self.spans.begin).clamp(max=self.written.shape[1] - 1)
        return torch.where(self.mask, begin, 0)

    def targets(self) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
        """What the critic should have expected before each token, and where that is known.

        These are the advantages that were made with its values, plus the values: at each token, or at the first of
        each step. A step without a token that the policy wrote first is no target.
        """
        assert self.expected is not None
        wanted = self.values + self.expected
        if self._on_tokens:
            return wanted, self.mask
        assert self.spans is not None
        there = self.mask & (torch.as_tensor(self.spans.end) > torch.as_tensor(self.spans.begin))
        there = there & self.written.gather(1, self._first)
        n, t = self.written.shape
        at = torch.where(there, self._first, t)  # beyond the last token, for what is no target
        found = wanted.new_zeros(n, t + 1).scatter(1, at, wanted)
        known = torch.zeros(n, t + 1, dtype=torch.bool).scatter(1, at, there)
        return found[:, :-1], known[:, :-1]

    @property
    def tree(self) -> PrefixTree:
        """The prefixes that the rollouts of a group share, and what each is worth."""
        return prefix_tree(self.ids, torch.as_tensor(self._tokens.attended), self.values, self.groups, valid=self.valid)

    @property
    def branches(self) -> Int[Tensor, "n"]:
        """The numbers of the rollouts that others branched off: equal where a prefix is shared."""
        if self.rollouts.tree is None:
            raise MissingInput("credit by branches needs rollouts that branch off one another: set sampling.interval")
        parent = torch.as_tensor(self.rollouts.tree.parent)
        return torch.where(parent < 0, torch.arange(len(parent)), parent)

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
        own = signature(function_of(part))
        if own.differs and not self.values.shape[1]:
            return self  # no rollout of the batch has a step
        flow = self._from_the_first_on() if own.differs else self
        beside = [name for name in own.beside if name in self.parts]
        if own.to_steps:
            flow = flow._in_the_steps_of(beside)
        # What flows is called `values` as well; a part's parameter of that name is the critic's.
        names = {name: "expected" if name == "values" else name for name in own.reads}
        if "values" in names and not reads_values(part):
            del names["values"]
        given = {name: getattr(flow, held) for name, held in names.items()}
        given |= {name: flow._beside(name, own.beside[name]) for name in beside}
        values = part(self.values, **given)
        if own.to_tokens:
            flow = replace(flow, per="token", spans=None)
        return replace(flow, values=values)._paid()

    def on_tokens(self) -> Flow:
        """Values of rollouts and steps on all their tokens."""
        if self.per == "token":
            return self
        return replace(self, values=spread(self.values, self.written, self.spans, place="all"), per="token", spans=None)

    def along(self, chain: Credit) -> Iterator[Flow]:
        """What each part of a chain makes in its turn."""
        flow = self
        for one in in_turn(chain):
            flow = flow.summed(one) if isinstance(one, Sum) else flow.through(one)
            yield flow

    def summed(self, total: Sum) -> Flow:
        """What the chains of a sum make of the parts of the reward; per token, unless all are per rollout."""
        per, values = self.addends(total)
        first, *others = (total.weights.get(name, 1.0) * value for name, value in values.items())
        return replace(self, values=sum(others, start=first), per=per, spans=None)._paid()

    def addends(self, total: Sum) -> tuple[Per, dict[str, Tensor]]:
        """What is added, by the names of the parts of the reward and before their weights; on one level."""
        flows: dict[str, Flow] = {}
        for name, chain in total.chains.items():
            *_, flow = self.part(name).along(chain)
            flows[name] = flow if flow.per == "rollout" else flow.on_tokens()
        if any(flow.per == "token" for flow in flows.values()):
            flows = {name: flow.on_tokens() for name, flow in flows.items()}
        values = {name: torch.where(flow.mask, flow.values, 0.0) for name, flow in flows.items()}
        return next(iter(flows.values())).per, values

    def part(self, name: str) -> Flow:
        """A named part of the reward, as a sum begins with it."""
        return replace(self.parts[name], parts=self.parts)

    def _paid(self) -> Flow:
        if self.cost is None or self.per != "token":
            return self
        return replace(self, values=self.values - self.cost, cost=None)

    def _in_the_steps_of(self, names: Sequence[str]) -> Flow:
        """With the steps of the first of these parts that has them; without one, each token is a step."""
        spans = next((self.parts[name].spans for name in names if self.parts[name].spans is not None), None)
        return replace(self, per="token" if spans is None else "step", spans=spans)

    def _beside(self, name: str, beside: Beside) -> Tensor:
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


def advantages(
    credit: Credit,
    rollouts: Rollouts,
    scores: Scores,
    *,
    penalty: Float[Tensor, "n"] | Float[Tensor, "n t"] | None = None,
) -> Float[Tensor, "n"] | Float[Tensor, "n t"]:
    """Advantages of rollouts, or of tokens where the rewards are of steps or a part goes over to tokens.

    Each part is given what the part before it made (the first: the rewards) and, by the names of its other
    parameters, what it reads beside it:

        groups   rows that are compared                     mask     where there is a value, in its shape
        valid    rollouts with a score                      written  tokens that the policy chose
        ids      tokens                                     spans    the tokens of each step; None without steps
        lengths  written tokens that each value is about    tree     the prefixes that rollouts share
        nodes    which prefixes are the same                values   the critic's, before each value's tokens
        branches rollouts with a trunk in common
        baseline_rows  rows that the others are compared with, if some stop where all began

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
        penalty: one per rollout: taken from the reward; where a sum begins with parts, from the one that is of
            rollouts. One per token: taken from the values of tokens, where the credit first has any.

    Returns:
        Exactly 0 in rollouts without a score, and at tokens that the policy did not write.

    Raises:
        RecipeError: if steps have no place among the tokens, parts that are read together have other steps, or
            potentials no beginning.
        MissingInput: if a part reads tokens and there are none.
    """
    *_, flow = _beginning(credit, rollouts, scores, penalty).along(credit)
    flow = flow if flow.per == "rollout" else flow.on_tokens()
    return torch.where(flow.mask, flow.values, 0.0)


def by_part(total: Sum, rollouts: Rollouts, scores: Scores) -> dict[str, Float[Tensor, "n"] | Float[Tensor, "n t"]]:
    """The advantages that a sum adds, by the names of the parts of the reward: before weights and KL."""
    return _beginning(total, rollouts, scores, None).addends(total)[1]


def targets(
    credit: Credit,
    rollouts: Rollouts,
    scores: Scores,
    *,
    penalty: Float[Tensor, "n"] | Float[Tensor, "n t"] | None = None,
) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """What the critic should have expected before each token, and where that is known: see `Flow.targets`.

    They are those of the one part that reads its values, of which a sum over parts of the reward may have one, too:
    the critic then expects what that chain makes of its part.
    """
    flow = _beginning(credit, rollouts, scores, penalty)
    for one in in_turn(credit):
        chains = {flow.part(name): chain for name, chain in one.chains.items()} if isinstance(one, Sum) else {flow: one}
        for begin, chain in chains.items():
            for part, made in zip(in_turn(chain), begin.along(chain), strict=True):
                if not isinstance(part, Sum) and reads_values(part):
                    return made.targets()
        *_, flow = flow.along(one)
    raise ValueError("no part of the credit reads the values of a critic")


def prefix_targets(rollouts: Rollouts, scores: Scores) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """What the critic should have expected before each token, by the rollouts of its group, and where that is known.

        V(y_<t) = the mean reward of the rollouts that begin with y_<t

    Before the first token that is the mean of the group; once a rollout is alone, its own reward.

    Raises:
        MissingInput: if the rollouts have no tokens.

    Source: TVM (arXiv 2407.12863), whose value of the prefix that a token ends is that before the next.
    """
    flow = _flow(scores, rollouts, torch.as_tensor(to_numpy(scores.usable)))
    return flow.tree.before, flow.written & flow.valid[:, None]


def _beginning(
    credit: Credit, rollouts: Rollouts, scores: Scores, penalty: Float[Tensor, "n"] | Float[Tensor, "n t"] | None
) -> Flow:
    """The rewards, and beside them the parts that the credit reads by name."""
    valid = torch.as_tensor(scored(credit, scores))
    parts = {name: _flow(scores.parts[name], rollouts, valid) for name in parts_read(credit, scores.parts)}
    by_parts = isinstance(in_turn(credit)[0], Sum)
    flow = Flow(torch.zeros(len(rollouts)), "rollout", rollouts, valid) if by_parts else _flow(scores, rollouts, valid)
    if penalty is not None and penalty.ndim == 2:
        flow = replace(flow, cost=penalty)
    elif penalty is not None and by_parts:
        parts |= {x: replace(of, values=of.values - penalty) for x, of in parts.items() if of.per == "rollout"}
    elif penalty is not None:
        flow = replace(flow, values=flow.values - penalty)
    return replace(flow, parts=parts)


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
