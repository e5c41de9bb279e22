"""Two sets to prefer between, sorted out of pairs, where it is a whole set that has a reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Value = Callable[[Float[Tensor, "*n m d"]], Float[Tensor, "*n"]]


class Contrast(NamedTuple):
    """Which sample of each pair is in the better set.

    Args:
        second: Bool["m"], True where it is the second one; the other is in the worse set.
        value: of the better set.
        swaps: how many pairs were exchanged on the way.
    """

    second: Bool[Tensor, "m"]
    value: float
    swaps: int

    def split(self, pairs: Float[Tensor, "2 m *d"]) -> tuple[Float[Tensor, "m *d"], Float[Tensor, "m *d"]]:
        """The better and the worse of each pair, of anything that has one entry for each sample."""
        chosen = self.second.reshape(-1, *[1] * (pairs.ndim - 2))
        return torch.where(chosen, pairs[1], pairs[0]), torch.where(chosen, pairs[0], pairs[1])


@torch.no_grad()
def contrast_sets(
    vectors: Float[Tensor, "2 m d"], value: Value, *, passes: int = 1, generator: torch.Generator | None = None
) -> Contrast:
    """Sort pairs of samples into a better and a worse set, by a reward of sets.

    It begins with the better of the two sets as they were drawn and goes through the pairs in random order; a pair is
    exchanged where, and only where, that makes the better set better. A reward that is a mean of single rewards thus
    gets the better one of each pair, and no reward ever falls.

    Args:
        vectors: two samples of each of m prompts.
        value: the reward of sets, such as `distribution.set_value` makes: called m times per pass, each time on what
            the ones before have left.
        passes: over the pairs; the source makes one, and a second may still find something.
        generator: of the order.

    Returns:
        What is to be learned: `Contrast.split` of the samples gives chosen and rejected for any loss of preference.

    Raises:
        ValueError: if there are no pairs, a value is not finite, or passes is below 1.

    Source: DRAGON (arXiv 2504.15217).

    >>> pairs = torch.tensor([[[0.0], [3.0]], [[1.0], [2.0]]])
    >>> contrast_sets(pairs, lambda sets: sets.mean((-1, -2))).second.tolist()
    [True, False]
    """
    if vectors.ndim != 3 or len(vectors) != 2 or not vectors.shape[1] or passes < 1:
        raise ValueError(f"two samples of each of some prompts (2, m, d), passes ≥ 1: {tuple(vectors.shape)}, {passes}")
    m = vectors.shape[1]
    worth = value(vectors)
    second = torch.full((m,), bool(worth[1] > worth[0]), device=vectors.device)
    better, best, swaps = vectors[int(second[0])].clone(), float(worth.max()), 0
    for _ in range(passes):
        for i in torch.randperm(m, generator=generator).tolist():
            tried = better.clone()
            tried[i] = vectors[0 if second[i] else 1, i]
            found = float(value(tried[None])[0])
            if found > best:
                better, best, swaps = tried, found, swaps + 1
                second[i] = ~second[i]
    if not torch.isfinite(torch.tensor(best)):
        raise ValueError(f"the value of a set must be finite, got {best}")
    return Contrast(second, best, swaps)
