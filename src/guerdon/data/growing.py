"""Trees of continuations: how each prefix goes on, in how many ways, which of them are taken, and when a path ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import concatenate, to_numpy
from guerdon.core.rollouts import Rollouts, Tokens, Tree
from guerdon.core.spans import Spans
from guerdon.data.choosing import Candidates, Choose, Judge

Continue = Callable[[Rollouts], Sequence[str] | Rollouts]  # what comes next after each of the completions
# How many candidates each path gets, from the scores of their last steps (0 at the starts) and the starts they are of.
Width = Callable[[Float[np.ndarray[Any, Any], "p"], Int[np.ndarray[Any, Any], "p"]], Int[np.ndarray[Any, Any], "p"]]
Ended = Callable[[Rollouts], Sequence[bool] | Bool[np.ndarray[Any, Any], "m"]]


@dataclass(frozen=True, eq=False)
class Paths:
    """Rollouts from the starts to the leaves of a forest.

    Args:
        rollouts: in the order and the groups of the starts; 'finished' are those that ended. With tokens, where the
            steps came with them, and then with the tree over the rows.
        steps: where the grown steps are, in the unit of the forest's.
        nodes: Int["n s"], which step of the forest each is, −1 where there is none: what `credit.tree_rewards` and
            `credit.fork_relative` read, and what `credit.branches` finds in the tree, but for the numbers.
    """

    rollouts: Rollouts
    steps: Spans
    nodes: Int[np.ndarray[Any, Any], "n s"]


@dataclass(frozen=True, eq=False)
class Forest:
    """All steps that were proposed, parents before children.

    Args:
        starts: what it grew from.
        rollouts: a row for each step, taken or not: all that came before it and the step as its completion, the step
            alone as column 'step'. Candidates of one path are a group.
        steps: where in its row each step is, the only one of the row: what came before was its own row. In tokens if
            the steps came with them, else in characters. Replies of the environment are in no step.
        parents: Int["m"], the step before; −1 for a first step.
        roots: Int["m"], the row of `starts`.
        replies: what the environment answered; empty where it was not asked.
        scores: Float["m"], the judge's; 0 where it abstained, or there is none.
        valid: Bool["m"], where it did not.
        taken: Bool["m"], the step was chosen.
        leaves: Bool["m"], it is the last of a path that was not given up.
    """

    starts: Rollouts
    rollouts: Rollouts
    steps: Spans
    parents: Int[np.ndarray[Any, Any], "m"]
    roots: Int[np.ndarray[Any, Any], "m"]
    replies: Sequence[str]
    scores: Float[np.ndarray[Any, Any], "m"]
    valid: Bool[np.ndarray[Any, Any], "m"]
    taken: Bool[np.ndarray[Any, Any], "m"]
    leaves: Bool[np.ndarray[Any, Any], "m"]

    def __len__(self) -> int:
        return len(self.parents)

    def paths(self) -> Paths:
        """The paths that were not given up."""
        ends = np.flatnonzero(self.leaves)
        ends = ends[np.argsort(self.roots[ends], kind="stable")]
        trails = []
        for node in ends.tolist():
            trail = [node]
            while self.parents[trail[-1]] >= 0:
                trail.append(int(self.parents[trail[-1]]))
            trails.append(trail[::-1])
        nodes = np.full((len(trails), max(map(len, trails), default=0)), -1)
        for row, trail in enumerate(trails):
            nodes[row, : len(trail)] = trail
        begin, end = (to_numpy(x)[:, 0] for x in (self.steps.begin, self.steps.end))
        steps = Spans.of([[(int(begin[x]), int(end[x])) for x in trail] for trail in trails], unit=self.steps.unit)
        roots = self.roots[ends]
        tree = None if self.rollouts.tokens is None else _branching(trails, roots.tolist(), begin)
        columns = {name: column for name, column in self.rollouts.columns.items() if name in self.starts.columns}
        whole = self.rollouts.with_(columns=columns).select(ends)
        return Paths(whole.with_(groups=self.starts.groups[roots], tree=tree), steps, nodes)


def grow(
    starts: Rollouts,
    continue_: Continue,
    *,
    steps: int,
    width: int | Sequence[int] | Width = 1,
    ended: Ended | None = None,
    judge: Judge | None = None,
    choose: Choose | None = None,
    respond: Continue | None = None,
    force: Continue | None = None,
) -> Forest:
    """Grow a tree from each prefix, all of them together, a level at a time.

    In each level every unfinished path proposes candidates for its next step; they are judged, some are chosen, and
    the environment answers those. A path none of whose candidates is chosen is given up.

    Args:
        starts: prompts, and as completions what is there already: nothing, or a prefix (of `cut_prefixes`).
        continue_: writes one step for each row, of the policy; asked once per level, a row for each candidate. The
            texts alone, or rollouts with tokens (`Model.generate` gives them): then all of them have tokens, and so
            must starts that are not empty.
        steps: the most steps of a path.
        width: candidates per path, in all levels or in each; the last number holds for the levels after it. Or a
            function of the paths' scores, such as one that shares a budget out by `models.allot`; a path that gets
            none is given up.
        ended: whether a path is over with its last step; by default it is after `steps` of them.
        judge: scores the candidates before any is executed.
        choose: which are taken; by default all.
        respond: what the environment answers to a step that was taken and did not end its path: an observation, which
            becomes part of the prefix and of no step. Tokens it comes with count as not written.
        force: writes a further step, one candidate, where a path has not ended by then: an answer, or it would have
            none.

    Raises:
        ValueError: if a number is below 1, a start is not text, a callable gives another number of results than it
            was asked for, or some steps have tokens and others do not.

    Source: its settings are the samplers of SLATE (arXiv 2602.23440: `width=5`, `drawn`), of PORTool (2510.26020:
    `forked`), PAV's beam search (2410.08146: `highest`, `effective_value`) and REBASE (2408.00724: `width` by
    `models.allot`); from cut prefixes, those of MRT (2503.07572) and AnytimeReasoner (2505.13438).

    >>> forest = grow(Rollouts(["q"], [""]), lambda rows: ["ab"[i % 2] for i in range(len(rows))], steps=2, width=2)
    >>> forest.paths().rollouts.completions
    ['aa', 'ab', 'ba', 'bb']
    >>> forest.paths().nodes
    array([[0, 2],
           [0, 3],
           [1, 4],
           [1, 5]])
    """
    widths = () if callable(width) else (width,) if isinstance(width, int) else tuple(width)
    if steps < 1 or min(widths, default=int(callable(width))) < 1:
        raise ValueError(f"steps and width must be at least 1, got {steps} and {width}")
    so_far = starts.with_(completions=_texts(starts), tree=None)
    growing, roots, worth = np.full(len(starts), -1), np.arange(len(starts)), np.zeros(len(starts))
    done = np.zeros(len(starts), np.int64)
    levels: list[_Level] = []
    families = 0
    last = steps if force is not None else steps - 1
    for level in range(last + 1):
        forced = level == steps
        if callable(width) and not forced:
            counts = np.asarray(width(worth, roots))
        else:
            counts = np.full(len(growing), 1 if forced else widths[min(level, len(widths) - 1)])
        if counts.shape != growing.shape or (counts < 0).any():
            raise ValueError(f"width must give each of {len(growing)} paths a number of at least 0, got {counts}")
        branch = np.repeat(np.arange(len(growing)), counts)
        if not len(branch) and levels:
            break
        before, root = so_far.select(branch), roots[branch]
        asked = force if forced and force is not None else continue_
        step = _said(asked, before, "force" if forced else "continue_")
        made = _behind(before, step)
        made = made.with_(groups=branch, columns={**made.columns, "step": step.texts})
        scores, valid = _judged(judge, made)
        over = np.full(len(branch), forced or (ended is None and level == last))
        if ended is not None and not forced:
            over = _flags("ended", ended(made), len(branch))
        taken = np.ones(len(branch), bool)
        if choose is not None and not forced:
            taken = _flags("choose", choose(Candidates(made, root, scores, valid, done.copy())), len(branch))
        over &= taken
        going = taken & ~over
        places = sum(len(earlier.root) for earlier in levels) + np.arange(len(branch))
        leaves = taken if level == last else over
        done += np.bincount(root[over], minlength=len(starts))
        replies = [""] * len(branch)
        gone_on = made.select(going)
        so_far = gone_on.with_(columns={name: gone_on.columns[name] for name in so_far.columns})
        if respond is not None and level < last and going.any():
            reply = _said(respond, gone_on, "respond", written=False)
            so_far = _behind(so_far, reply)
            for row, text in zip(np.flatnonzero(going).tolist(), reply.texts, strict=True):
                replies[row] = text
        made = made.with_(finished=over, groups=branch + families)
        families += len(growing)
        levels.append(
            _Level(made, _length(before), _length(made), growing[branch], root, replies, scores, valid, taken, leaves)
        )
        growing, roots, worth = places[going], root[going], scores[going]
    if len({x.made.tokens is None for x in levels}) > 1:
        raise ValueError("some steps have tokens and others have none")
    everything = Rollouts.concat([x.made for x in levels], keep_groups=True)
    begin, end = (np.concatenate([getattr(x, name) for x in levels])[:, None] for name in ("begin", "end"))
    return Forest(
        starts,
        everything,
        Spans(begin, end, np.ones_like(begin, bool), "character" if everything.tokens is None else "token"),
        np.concatenate([x.parent for x in levels]),
        np.concatenate([x.root for x in levels]),
        [text for x in levels for text in x.replies],
        np.concatenate([x.scores for x in levels]),
        np.concatenate([x.valid for x in levels]),
        np.concatenate([x.taken for x in levels]),
        np.concatenate([x.leaves for x in levels]),
    )


class _Said(NamedTuple):
    texts: list[str]
    tokens: Tokens | None


class _Level(NamedTuple):
    made: Rollouts
    begin: np.ndarray[Any, Any]
    end: np.ndarray[Any, Any]
    parent: np.ndarray[Any, Any]
    root: np.ndarray[Any, Any]
    replies: list[str]
    scores: np.ndarray[Any, Any]
    valid: np.ndarray[Any, Any]
    taken: np.ndarray[Any, Any]
    leaves: np.ndarray[Any, Any]


def _said(ask: Continue, rows: Rollouts, name: str, *, written: bool = True) -> _Said:
    said: Any = ask(rows) if len(rows) else []
    texts = _texts(said) if isinstance(said, Rollouts) else list(said)
    if len(texts) != len(rows):
        raise ValueError(f"{name} gave {len(texts)} continuations of {len(rows)} prefixes")
    tokens = said.tokens if isinstance(said, Rollouts) else None
    if tokens is not None and not written:
        # The environment has no log-probabilities: theirs are of no use, and zeros keep those of the steps.
        nothing = dict.fromkeys(("logp", "ref_logp", "entropy"), tokens.attended * 0.0)
        tokens = Tokens(tokens.ids, tokens.attended & False, tokens.attended, offsets=tokens.offsets, **nothing)
    return _Said(texts, tokens)


def _texts(rollouts: Rollouts) -> list[str]:
    texts: list[Any] = [rollouts.completions[row] for row in range(len(rollouts))]
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"row {row}: paths are grown from texts, got {type(text).__name__}")
    return texts


def _behind(rows: Rollouts, said: _Said) -> Rollouts:
    """Each completion with what was said behind it, in characters and, where both have them, in tokens."""
    texts = _texts(rows)
    whole = [a + b for a, b in zip(texts, said.texts, strict=True)]
    if any(texts if rows.tokens is None else said.texts) and (rows.tokens is None) != (said.tokens is None):
        raise ValueError("of a prefix and what comes next, one has tokens and one has none: give both, or neither")
    if said.tokens is None:
        return rows.with_(completions=whole)
    parts = []
    for row, text in enumerate(texts):
        pieces = [] if rows.tokens is None else [(0, rows.tokens.select([row]))]
        parts.append(_joined([*pieces, (len(text), said.tokens.select([row]))]))
    return rows.with_(completions=whole, tokens=Tokens.concat(parts) if parts else None)


def _joined(pieces: Sequence[tuple[int, Tokens]]) -> Tokens:
    """The tokens of pieces of one text without the padding between; fields that some lack are dropped."""
    columns: dict[str, Any] = {}
    for name in (one.name for one in fields(Tokens)):
        if any(getattr(part, name) is None for _, part in pieces):
            continue
        values = [(at, getattr(part, name)[0][part.attended[0]]) for at, part in pieces]
        shifted = [x + at * (x >= 0) if name == "offsets" else x for at, x in values]
        columns[name] = concatenate(shifted)[None]
    return Tokens(**columns)


def _length(rows: Rollouts) -> np.ndarray[Any, Any]:
    if rows.tokens is not None:
        return np.asarray(to_numpy(rows.tokens.attended.sum(1)), np.int64)
    return np.array([len(text) for text in _texts(rows)], np.int64)


def _judged(judge: Judge | None, rows: Rollouts) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if judge is None or not len(rows):
        return np.zeros(len(rows)), np.zeros(len(rows), bool)
    scores = judge(rows)
    if len(scores) != len(rows) or scores.level != "rollout":
        raise ValueError(f"judge must give one score per candidate, {len(rows)}, got {scores!r}")
    return to_numpy(scores.read(0.0)), to_numpy(scores.valid)


def _flags(name: str, values: Any, n: int) -> np.ndarray[Any, Any]:
    flags = np.array(values, bool)
    if flags.shape != (n,):
        raise ValueError(f"{name} must say yes or no of each of {n} candidates, got {flags.shape}")
    return flags


def _branching(trails: list[list[int]], roots: list[int], begin: np.ndarray[Any, Any]) -> Tree:
    """Each row branches off the first that goes through the last step it shares with any, or from the same start."""
    parent, shared = np.full(len(trails), -1), np.zeros(len(trails), np.int64)
    seen: dict[int, int] = {}
    for row, (trail, root) in enumerate(zip(trails, roots, strict=True)):
        through = [-1 - root, *trail]
        common = [node for node in through if node in seen]
        if common and begin[through[len(common)]]:
            parent[row], shared[row] = seen[common[-1]], begin[through[len(common)]]
        for node in through:
            seen.setdefault(node, row)
    return Tree(parent, shared)
