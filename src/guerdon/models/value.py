"""The value of a prefix: a head on a language model that learns it, and search by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.errors import MissingInput
from guerdon.core.protocols import TrainableModel
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores
from guerdon.credit.tree import prefix_tree
from guerdon.objectives.value import Critic

S = TypeVar("S")


class TokenValues:
    """A value at every token: a head on the hidden states of a language model.

    Args:
        model: whose last hidden states are read.
        head: on them; with `features="shared"` the language model learns too.

    Source: TVM (arXiv 2407.12863).
    """

    def __init__(self, model: TrainableModel, head: Critic) -> None:
        self.model, self.head = model, head

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any]
    ) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
        """The value of each prefix that ends with a token of a completion, and which tokens exist."""
        hidden, mask = self.model.hidden(prompts, completions)
        return self.head(hidden), mask

    @torch.no_grad()
    def last(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        """The value at the last token of each: for `beam_search`, or to pick the best of N.

        Raises:
            ValueError: if a completion has no token, or could not be read.
        """
        if not len(completions):
            return []
        values, mask = self(prompts, completions)
        if not bool(mask.any(1).all()):
            row = int((~mask.any(1)).nonzero()[0])
            raise ValueError(f"completion {row} has no token that was read, so no value")
        return cast("list[float]", values.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0].tolist())

    def parameters(self) -> Iterator[Tensor]:
        """The weights that learn: the head's, and the model's where features are shared."""
        yield from self.head.parameters()
        if self.head.features == "shared":
            yield from self.model.parameters()


def fit_values(
    values: TokenValues,
    rollouts: Rollouts,
    scores: Scores,
    *,
    epochs: int = 1,
    batch: int = 32,
    learning_rate: float = 1e-3,
    rng: np.random.Generator,
) -> list[float]:
    """Teach values what became of sampled paths: at each token, the share of those beginning so that ended well.

    Args:
        values: learn in place.
        rollouts: many paths of each prompt, with tokens; those of a group share a tree.
        scores: 0 or 1 of each. Those that abstained are not learned from.
        epochs: passes over the paths.
        batch: paths per update.
        learning_rate: of AdamW; the source's is not known.
        rng: of their order.

    Returns:
        The loss of each update, per path.

    Raises:
        MissingInput: if the rollouts have no tokens.
        ValueError: if there is not one score per rollout, or a number is below 1.

    Source: TVM (arXiv 2407.12863).
    """
    if rollouts.tokens is None:
        raise MissingInput("values of tokens are learned from 'tokens', which this batch does not have")
    if len(scores) != len(rollouts) or scores.level != "rollout":
        raise ValueError(f"scores must be one per rollout, {len(rollouts)}, got {scores!r}")
    if epochs < 1 or batch < 1:
        raise ValueError(f"epochs and batch must be at least 1, got {epochs} and {batch}")
    ids, mask = (torch.as_tensor(x) for x in (rollouts.tokens.ids, rollouts.tokens.attended))
    rewards, valid = (torch.as_tensor(x) for x in (scores.read(0.0), scores.valid))
    labels = prefix_tree(ids, mask, rewards, torch.as_tensor(rollouts.groups), valid=valid).value
    completions = [row[there].tolist() for row, there in zip(ids, mask, strict=True)]
    learned = np.flatnonzero(valid.numpy() & mask.any(1).numpy())
    parameters = list(values.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    losses = []
    for _ in range(epochs):
        order = rng.permutation(learned)
        for rows in (order[at : at + batch].tolist() for at in range(0, len(order), batch)):
            found, read = values([rollouts.prompts[row] for row in rows], [completions[row] for row in rows])
            targets = labels[rows, : found.shape[1]].to(found)
            loss = value_loss(found, targets, read)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def value_loss(
    values: Float[Tensor, "n t"], targets: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"]
) -> Float[Tensor, ""]:
    r"""The squared error of a value at every token, whose target is the chance of success from there.

        loss = (1/n) Σᵢ Σₜ (f(q, y₍≤ₜ₎) − V(y₍≤ₜ₎))²

    The targets are the values of `credit.prefix_tree` over many sampled answers, rewarded 0 or 1: the share of those
    beginning so that end well. A token after which an answer is alone gets its outcome.

    Args:
        values: f, from a head on every token such as `objectives.value.Critic(…, features="shared")`; gradients pass.
        targets: V, in [0, 1].
        mask: True where there is a token.

    Returns:
        The loss; 0 without tokens.

    Raises:
        ValueError: if the shapes differ.

    Source: TVM (arXiv 2407.12863). Whether a language-model loss is added is not stated; it is not.

    >>> value_loss(torch.tensor([[0.5, 9.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    tensor(0.2500)
    """
    if not values.shape == targets.shape == mask.shape or values.ndim != 2:
        shapes = [tuple(x.shape) for x in (values, targets, mask)]
        raise ValueError(f"values, targets and mask must have one shape (n, t), got {shapes}")
    wide = torch.promote_types(values.dtype, torch.float32)
    error = torch.where(mask, values.to(wide), 0.0) - torch.where(mask, targets.detach().to(wide), 0.0)
    return (error**2).sum() / max(len(values), 1)


def beam_search(
    start: S,
    expand: Callable[[Sequence[S], int], Sequence[Sequence[S]]],
    value: Callable[[Sequence[S]], Sequence[float]],
    finished: Callable[[S], bool],
    *,
    candidates: int = 40,
    keep: int = 10,
    steps: int = 32,
) -> list[tuple[S, float]]:
    """Step-by-step search: of all continuations by a step, go on with those of the highest value.

    Args:
        start: the prompt.
        expand: for each state, that many continuations by one step.
        value: the value of each state, at its last token.
        finished: whether a state is an answer; it stays as it is, with its value, and competes.
        candidates: continuations looked at in each step, shared equally by the states that are kept.
        keep: states kept in each step.
        steps: the most steps.

    Returns:
        The states kept at the end and their values, best first; the earlier of equals.

    Raises:
        ValueError: if a number is below 1, or fewer candidates than states are kept.

    Source: TVM (arXiv 2407.12863), step-by-step beam search; 40 and 10 are not stated with certainty.

    >>> grow = lambda states, n: [[s + c for c in "ab"[:n]] for s in states]
    >>> worth = lambda states: [s.count("b") for s in states]
    >>> beam_search("", grow, worth, lambda s: len(s) == 3, candidates=4, keep=2)
    [('bbb', 3), ('bba', 2)]
    """
    [found] = beam_searches(
        [start],
        lambda states, counts: expand(states, counts[0]),
        value,
        finished,
        candidates=candidates,
        keep=keep,
        steps=steps,
    )
    return found


def beam_searches(
    starts: Sequence[S],
    expand: Callable[[Sequence[S], Sequence[int]], Sequence[Sequence[S]]],
    value: Callable[[Sequence[S]], Sequence[float]],
    finished: Callable[[S], bool],
    *,
    candidates: int = 40,
    keep: int = 10,
    steps: int = 32,
    temperature: float | None = None,
) -> list[list[tuple[S, float]]]:
    """Several searches as `beam_search` has them, step by step together; what one finds does not depend on the others.

    Args:
        starts: the prompts.
        expand: for each state, as many continuations by one step as its count says.
        value: as there.
        finished: as there.
        candidates: of each search, in each step.
        keep: of each search.
        steps: the most.
        temperature: of a search, the kept states get their candidates by `allot`, at this temperature; None: equally.

    Returns:
        Of each search, as there.

    Raises:
        ValueError: as there, or if the temperature is not above 0.

    Source: TVM (arXiv 2407.12863); `temperature`: REBASE (2408.00724).
    """
    if min(candidates, keep, steps) < 1 or candidates < keep:
        raise ValueError(f"candidates ≥ keep ≥ 1 and steps ≥ 1 are wanted, got {candidates}, {keep} and {steps}")
    beams: list[list[tuple[S, float]]] = [[(start, float("-inf"))] for start in starts]
    for _ in range(steps):
        growing = [[b for b in beam if not finished(b[0])] for beam in beams]
        counts = [_shares([worth for _, worth in own], candidates, temperature) for own in growing]
        states = [state for own in growing for state, _ in own]
        if not states:
            break
        grown = [list(of) for of in expand(states, [count for own in counts for count in own])]
        every = [state for of in grown for state in of]
        worth = iter(value(every) if every else ())
        further = iter(grown)
        for i, own in enumerate(growing):
            new = [(state, next(worth)) for _ in own for state in next(further)]
            if own:
                done = [b for b in beams[i] if finished(b[0])]
                beams[i] = sorted([*done, *new], key=lambda item: -item[1])[:keep]
    return beams


def _shares(values: Sequence[float], candidates: int, temperature: float | None) -> list[int]:
    """How many candidates each state gets; a search begins with one state, whose value is not known."""
    if temperature is None or len(values) < 2:
        return [max(1, candidates // len(values)) for _ in values]
    return cast("list[int]", allot(torch.tensor(values), candidates, temperature=temperature).tolist())


def allot(values: Float[Tensor, "n"], budget: int, *, temperature: float = 0.1) -> Int[Tensor, "n"]:
    """How many continuations each state gets of a budget: in proportion to softmax(f / T), what is left by remainder.

    Args:
        values: f, at least one.
        budget: at least 0.
        temperature: T > 0.

    Returns:
        Whole numbers that add up to the budget.

    Raises:
        ValueError: if there is no state, the budget is negative, or T ≤ 0.

    Source: REBASE (arXiv 2408.00724), as used with TVM (2407.12863).

    >>> allot(torch.tensor([1.0, 1.0, -9.0]), 4)
    tensor([2, 2, 0])
    """
    if not len(values) or budget < 0 or not temperature > 0:
        raise ValueError(
            f"a budget is allotted to at least one state at T > 0, got {len(values)}, {budget} and T = {temperature}"
        )
    exact = torch.softmax(values.double() / temperature, 0) * budget
    counts = exact.floor().long()
    rest = (exact - counts).argsort(descending=True, stable=True)[: budget - int(counts.sum())]
    counts[rest] += 1
    return counts
