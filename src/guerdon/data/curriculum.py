"""Which prompts come next, which of them count, and when to stop drawing others in their place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool

from guerdon.core.context import Context
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.data.filter import Filter, chain

Row = Mapping[str, Any]  # 'prompt', and a column for each thing the reward may read

EVERYTHING = chain()


class Curriculum(Protocol):
    """What the training loop asks: which prompts to sample, which groups to learn from, and to be told what came."""

    def draw(self, n: int, context: Context) -> list[Row]:
        """The next `n` prompts; moves on, so that drawing again gives others."""

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        """Which of the context's groups count, in rising order of their numbers; pure."""

    def observe(self, scores: Scores, context: Context) -> None:
        """Once per training step: all that was sampled for it."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, as plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""


@dataclass(eq=False)
class Shuffled:
    """Prompts in a new random order each epoch, and a filter of what became of them.

    A curriculum of one prompt fills the batch with copies of it, of two in equal shares: training on one example, or
    on a pair. Copies are groups of their own.

    Args:
        prompts: rows with 'prompt' and what the reward reads.
        filter: which groups count; by default all that were scored.
        seed: of the orders; which prompt comes when depends on nothing else.

    Raises:
        ValueError: if there are no prompts.

    >>> one = Shuffled([{"prompt": "1+1="}])
    >>> [row["prompt"] for row in one.draw(3, Context())]
    ['1+1=', '1+1=', '1+1=']

    Source: ours; copies of one prompt: "RL for Reasoning with One Training Example" (arXiv 2504.20571), of a pair:
    "Beyond Variance" (2602.03452).
    """

    prompts: Sequence[Row]
    filter: Filter = EVERYTHING
    seed: int = 0
    drawn: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not len(self.prompts):
            raise ValueError("prompts are empty: there is nothing to draw")

    def draw(self, n: int, context: Context) -> list[Row]:
        size = len(self.prompts)
        places = range(self.drawn, self.drawn + n)
        orders = {
            epoch: np.random.default_rng([self.seed, epoch]).permutation(size)
            for epoch in dict.fromkeys(place // size for place in places)
        }
        self.drawn += n
        return [self.prompts[int(orders[place // size][place % size])] for place in places]

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        return self.filter.keep(scores, context)

    def observe(self, scores: Scores, context: Context) -> None:
        self.filter.observe(scores, context)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "filter": self.filter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = int(state["drawn"])
        self.filter.load_state_dict(state["filter"])


class Batch(NamedTuple):
    """What `fill` gathered.

    Args:
        rollouts: of the groups taken.
        scores: theirs.
        kept: how many of these groups the curriculum keeps.
        sampled: how many groups were sampled for it.
        rounds: in so many rounds of drawing.
    """

    rollouts: Rollouts
    scores: Scores
    kept: int
    sampled: int
    rounds: int


@dataclass
class Pace:
    """How many prompts a round draws, learned from how many were kept: fewer rounds, as each has to be waited for.

        draw ⌈missing / min(s, s′)⌉        s′ ← min(s′, kept / sampled) after a round
        s ← min(s, all kept / all sampled), s′ ← 1 once the batch is full

    Both shares begin at 1 and only fall, so that a batch is rarely short; what is kept beyond it is not used.

    Args:
        most: prompts in a round, also where none has been kept yet and the formula has no value.
        share: s, over whole batches.
        within: s′, within this one.

    Raises:
        ValueError: if `most` is below 1, or a share is outside [0, 1].

    >>> pace = Pace(most=512)
    >>> first = pace.ask(128)
    >>> pace.saw(kept=32, sampled=128)
    >>> first, pace.ask(96)
    (128, 384)

    Source: the adaptive DAPO of CodeV-R1 (arXiv 2505.24183), which divides by 0 where none was kept.
    """

    most: int
    share: float = 1.0
    within: float = 1.0

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 <= self.share <= 1 or not 0 <= self.within <= 1:
            raise ValueError(f"most is 1 or more, and shares are in [0, 1]: {self}")

    def ask(self, missing: int) -> int:
        """How many prompts to draw where so many groups are missing."""
        share = min(self.share, self.within)
        return self.most if missing >= share * self.most else math.ceil(missing / share - 1e-9)

    def saw(self, *, kept: int, sampled: int) -> None:
        """A round is over."""
        self.within = min(self.within, kept / sampled)

    def filled(self, *, kept: int, sampled: int) -> None:
        """The batch is full, after all its rounds."""
        self.share, self.within = min(self.share, kept / sampled), 1.0

    def state_dict(self) -> dict[str, Any]:
        """What it has learned, as plain data."""
        return {"share": self.share, "within": self.within}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.share, self.within = float(state["share"]), float(state["within"])


def fill(
    curriculum: Curriculum,
    wanted: int,
    sample: Callable[[list[Row]], tuple[Rollouts, Scores]],
    context: Context,
    *,
    rounds: int = 10,
    missing: Literal["fill", "leave"] = "fill",
    pace: Pace | None = None,
) -> Batch:
    """Draw, sample and filter until the batch is full, for at most so many rounds.

    Each round draws `wanted` prompts, or as many as the pace says, and is judged by itself. The curriculum then
    observes all that was sampled, once.

    Args:
        curriculum: draws and judges.
        wanted: groups in the batch.
        sample: rollouts of some prompts, one group for each, and their scores.
        context: of the training step; `rollouts` are filled in here.
        rounds: the end of it. Late in training hardly any prompt is kept, and drawing on would never end.
        missing: what is then short is made up of groups that were not kept ("fill": batches of one size), or left out
            ("leave": nothing that was dropped is learned from).
        pace: how many prompts each round draws, learned from round to round; keep it from batch to batch.

    Raises:
        ValueError: if `wanted` or `rounds` is below 1, or `missing` is something else.

    Source: dynamic sampling of DAPO (arXiv 2503.14476) and DLER (2510.15110); ten rounds are verl's
    `max_num_gen_batches` for it.
    """
    if wanted < 1 or rounds < 1:
        raise ValueError(f"wanted and rounds must be at least 1, got {wanted} and {rounds}")
    if missing not in ("fill", "leave"):
        raise ValueError(f"missing is 'fill' or 'leave', got {missing!r}")
    sampled: list[tuple[Rollouts, Scores]] = []
    keeps: list[Bool[np.ndarray[Any, Any], g]] = []
    full = 0
    for _ in range(rounds):
        rollouts, scores = sample(curriculum.draw(wanted if pace is None else pace.ask(wanted - full), context))
        sampled.append((rollouts, scores))
        keeps.append(curriculum.keep(scores, context.with_(rollouts=rollouts)))
        full += int(keeps[-1].sum())
        if pace is not None:
            pace.saw(kept=int(keeps[-1].sum()), sampled=len(keeps[-1]))
        if full >= wanted:
            if pace is not None:
                pace.filled(kept=full, sampled=sum(map(len, keeps)))
            break
    everything = Rollouts.concat([r for r, _ in sampled])
    scores = Scores.concat([s for _, s in sampled])
    curriculum.observe(scores, context.with_(rollouts=everything))
    keep = np.concatenate(keeps)
    order = np.flatnonzero(keep)[:wanted]
    kept = len(order)
    if missing == "fill":
        order = np.concatenate([order, np.flatnonzero(~keep)])[:wanted]
    # `concat` numbers groups from 0, batch by batch, in the order `keep` has.
    rows = np.flatnonzero(np.isin(everything.groups, order))
    return Batch(everything.select(rows), scores.select(rows), kept, len(keep), len(sampled))


def carry_over(
    chosen: Sequence[str], before: Sequence[str], *, share: float = 0.1, rng: np.random.Generator
) -> list[str]:
    """The prompts chosen now, and a random share of those trained on before, so that they are not unlearned.

    Args:
        chosen: ids of the new prompts.
        before: ids of the old ones.
        share: ⌊share · |before|⌋ of the old ones that are not chosen anyway stay, in their old order.
        rng: chooses them.

    Raises:
        ValueError: if the share is outside [0, 1].

    Source: DRO (arXiv 2506.13351) carries over 10 % from one round of filtering to the next.

    >>> carry_over(["a"], ["b"] * 1, share=1.0, rng=np.random.default_rng(0))
    ['a', 'b']
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share lies between 0 and 1, got {share}")
    known = set(chosen)
    old = [identity for identity in dict.fromkeys(before) if identity not in known]
    count = min(math.floor(share * len(before) + 1e-9), len(old))
    stay = sorted(rng.choice(len(old), count, replace=False).tolist()) if count else []
    return [*chosen, *(old[i] for i in stay)]
