"""Rollouts with one wrong step: where it is, which are worth mending, and what stands in its place."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.spans import Spans


def locate(
    scores: Float[Tensor, "n s"],
    mask: Bool[Tensor, "n s"],
    *,
    below: float | None = None,
    above: float | None = None,
) -> Int[Tensor, "n"]:
    """The first step whose score is below (or above) a threshold: the first error, or the first sure answer.

    Args:
        scores: one per step.
        mask: True where the step exists.
        below: the first score < this; a process reward model's first error.
        above: the first score > this; the step from which on a rollout only checks.

    Returns:
        The index of the step, −1 where there is none.

    Raises:
        ValueError: if the shapes differ, or not exactly one threshold is given.

    Source: first errors: SCOPE (arXiv 2602.24110), threshold 0.5; saturation above 0.9: SPAE (2601.03823).

    >>> locate(torch.tensor([[0.9, 0.8, 0.3, 0.7]]), torch.ones(1, 4, dtype=torch.bool), below=0.5)
    tensor([2])
    """
    if scores.shape != mask.shape or scores.ndim != 2:
        raise ValueError(f"scores {tuple(scores.shape)} and mask {tuple(mask.shape)} need one shape (n, s)")
    if below is not None and above is None:
        hit = mask & (scores < below)
    elif above is not None and below is None:
        hit = mask & (scores > above)
    else:
        raise ValueError("give one threshold, below or above")
    if not hit.shape[1]:
        return torch.full((len(hit),), -1, device=hit.device)
    return torch.where(hit.any(1), hit.to(torch.uint8).argmax(1), -1)


@torch.no_grad()
def repairable(
    first: Int[Tensor, "n"],
    steps: Int[Tensor, "n"],
    outcomes: Float[Tensor, "n"],
    groups: Int[Tensor, "n"],
    *,
    share: float = 0.5,
    most: int = 1,
) -> Bool[Tensor, "n"]:
    r"""Which failures are worth a repair: those that were right for longest.

    A failure with first error h of H steps (from 0) was right for h / H of them. A failure without an error in it
    has nothing to repair.

    Args:
        first: index of the first wrong step, −1 where none was found; of `locate`.
        steps: H, how many steps each rollout has.
        outcomes: > 0 for a success, 0 for a failure; a row whose outcome abstained does not belong here.
        groups: rows with equal numbers were sampled for one prompt.
        share: at least this much must be right, in [0, 1].
        most: at most so many of each group, so that repairs do not swamp it: those right for longest, the earlier of
            equals.

    Raises:
        ValueError: if the shapes differ or an option is out of range.

    Source: SCOPE (arXiv 2602.24110), which states neither number: 0.5 and a cap are our reading.

    >>> none = torch.zeros(3)
    >>> repairable(torch.tensor([2, 0, 3]), torch.tensor([4, 4, 4]), none, torch.zeros(3, dtype=torch.long))
    tensor([False, False,  True])
    """
    if not (first.shape == steps.shape == outcomes.shape == groups.shape and first.ndim == 1):
        raise ValueError("first, steps, outcomes and groups need one shape (n,)")
    if not 0 <= share <= 1 or most < 0:
        raise ValueError(f"share lies in [0, 1] and most is at least 0, got {share} and {most}")
    right = first / steps.clamp(min=1)
    candidate = (first >= 0) & (outcomes <= 0) & (right >= share)
    # Sorted by group, and within a group the best candidates first.
    order = torch.where(candidate, right, -1.0).argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order].contiguous()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return candidate & (place < most)


@dataclass(frozen=True, eq=False)
class Spliced:
    """Token sequences put together from several hands.

    Args:
        ids: Int["n t"], padded on the right with 0.
        mask: Bool["n t"], True where there is a token.
        origin: Int["n t"], who wrote it: 0 the policy being trained, 1 whoever mended it; 0 in the padding.
    """

    ids: Int[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    origin: Int[Tensor, "n t"]


def splice(
    ids: Int[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    spans: Spans,
    first: Int[Tensor, "n"],
    step: Int[Tensor, "n u"],
    step_mask: Bool[Tensor, "n u"],
    *,
    rest: Int[Tensor, "n v"] | None = None,
    rest_mask: Bool[Tensor, "n v"] | None = None,
) -> Spliced:
    """Keep what stands before the first wrong step, put a mended step in its place, and what followed from that.

    The wrong step itself and all behind it are dropped; the tokens kept are the rollout's own, bit for bit. Without
    `rest`, the result is what to imitate: prefix and intervention, and no suffix.

    Args:
        ids: the rollout's tokens.
        mask: True where there is one.
        spans: the token range of each step.
        first: the step to replace; −1 leaves the row as it is, and takes neither step nor rest.
        step: the mended step's tokens.
        step_mask: True where there is one.
        rest: what the policy wrote after the mended step.
        rest_mask: True where there is one.

    Raises:
        ValueError: if the shapes do not fit, spans count characters, a row has no such step, or only one of `rest` and
            `rest_mask` is given.

    Source: SCOPE (arXiv 2602.24110), with the policy's own continuation; InT (2601.14209), without one.

    >>> one = torch.ones(1, 4, dtype=torch.bool)
    >>> fix = torch.tensor([[9]])
    >>> whole = splice(torch.tensor([[1, 2, 3, 4]]), one, Spans.of([[(0, 2), (2, 4)]]), torch.tensor([1]), fix, fix > 0)
    >>> whole.ids, whole.origin
    (tensor([[1, 2, 9]]), tensor([[0, 0, 1]]))
    """
    n = len(ids)
    if spans.unit != "token":
        raise ValueError("spans count characters: turn them into token spans first, with spans.to_tokens(offsets)")
    if (rest is None) != (rest_mask is None):
        raise ValueError("rest and rest_mask belong together")
    pieces = [(ids, mask, "ids"), (step, step_mask, "step")]
    if rest is not None and rest_mask is not None:
        pieces.append((rest, rest_mask, "rest"))
    for tokens, there, name in pieces:
        if tokens.ndim != 2 or tokens.shape != there.shape or len(tokens) != n:
            raise ValueError(f"{name} {tuple(tokens.shape)} and its mask {tuple(there.shape)} need one shape ({n}, …)")
    begin, exists = (torch.as_tensor(x, device=ids.device) for x in (spans.begin, spans.mask))
    if first.shape != (n,) or len(begin) != n:
        raise ValueError(f"first {tuple(first.shape)} and spans {tuple(begin.shape)} need {n} rows")
    mended = first >= 0
    # With one column more, a row that is left as it is has a place to look at.
    begin, exists = (torch.nn.functional.pad(x, (0, 1)) for x in (begin, exists))
    at = torch.where(mended, first, begin.shape[1] - 1).clamp(max=begin.shape[1] - 1)[:, None]
    absent = mended & ~exists.gather(1, at)[:, 0]
    if bool(absent.any()):
        row = int(absent.nonzero()[0])
        raise ValueError(f"row {row} has no step {int(first[row])}")
    cut = torch.where(mended[:, None], begin.gather(1, at), ids.shape[1])
    kept = mask & (torch.arange(ids.shape[1], device=ids.device) < cut)
    there = torch.cat([kept, *(x & mended[:, None] for _, x, _ in pieces[1:])], 1)
    tokens = torch.cat([x for x, _, _ in pieces], 1)
    wrote = torch.cat([torch.full_like(x, name == "step") for x, _, name in pieces], 1)
    lengths = there.sum(1, keepdim=True)
    front = torch.arange(int(lengths.max()) if n else 0, device=ids.device) < lengths
    moved = [torch.zeros_like(front, dtype=x.dtype).masked_scatter(front, x[there]) for x in (tokens, wrote)]
    return Spliced(moved[0], front, moved[1])


def leaks(text: str, answer: str) -> bool:
    """Whether a hint gives the answer away: the answer stands in it, as a whole, in any case and spacing.

    Source: the leak guard of InT (arXiv 2601.14209).

    >>> leaks("so x = 12, as was asked", "12"), leaks("so x = 120", "12")
    (True, False)

    Raises:
        ValueError: if the answer is empty: there is nothing to give away, and every hint would pass.
    """
    words = answer.split()
    if not words:
        raise ValueError("answer is empty: there is nothing that a hint could give away")
    pattern = r"\s+".join(map(re.escape, words))
    return re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE) is not None


@torch.no_grad()
def diversity(ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"], *, gram: int = 4) -> float | None:
    r"""How different sequences are: 1 − the mean Jaccard similarity of the sets of n-grams of all pairs.

    Args:
        ids: token sequences, each at the front of its row.
        mask: True where there is a token.
        gram: n, tokens in an n-gram; a sequence shorter than n has none and is left out.

    Returns:
        In [0, 1]; 0 if all are alike. None if there are not two sequences to compare.

    Raises:
        ValueError: if the shapes differ or n < 1.

    Source: SCOPE (arXiv 2602.24110) reports diversity without a formula; this one is ours.

    >>> diversity(torch.tensor([[1, 2, 3], [1, 2, 4]]), torch.ones(2, 3, dtype=torch.bool), gram=2)
    0.666666...
    """
    if ids.ndim != 2 or ids.shape != mask.shape or gram < 1:
        raise ValueError(f"ids {tuple(ids.shape)} and mask {tuple(mask.shape)} need one shape (n, t), and gram ≥ 1")
    if ids.shape[1] < gram:
        return None
    grams, there = ids.unfold(1, gram, 1), mask.unfold(1, gram, 1).all(2)
    distinct, number = torch.unique(grams[there], dim=0, return_inverse=True)
    holds = torch.zeros(len(ids), len(distinct), device=ids.device)
    holds[there.nonzero()[:, 0], number] = 1
    holds = holds[holds.any(1)]
    if len(holds) < 2:
        return None
    common, sizes = holds @ holds.T, holds.sum(1)
    alike = common / (sizes[:, None] + sizes - common)
    pairs = len(holds) * (len(holds) - 1)
    return 1.0 - float(alike.double().sum() - len(holds)) / pairs
