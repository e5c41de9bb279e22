"""What a step is worth from here on: discounted sums, minima and generalised advantages, as scans from the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Kind = Literal["sum", "min", "softmin", "gae"]
Gaps = Literal["skip", "reset"]

CACHED = 2**19  # entries that a scan works on at once: few enough to stay in a cache, enough to share between cores


@torch.no_grad()
def returns(
    rewards: Float[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    kind: Kind = "sum",
    gamma: float = 1.0,
    lam: float = 1.0,
    values: Float[Tensor, "n t"] | None = None,
    bootstrap: Float[Tensor, "n"] | None = None,
    gaps: Gaps = "skip",
    ends: Bool[Tensor, "n t"] | None = None,
    temperature: float = 0.1,
) -> Float[Tensor, "n t"]:
    r"""What follows from each step, by a recursion from the last step to the first.

        sum        Gₜ = rₜ + γ Gₜ₊₁
        min        Gₜ = min(rₜ, Gₜ₊₁)
        softmin    the sum of the rewards re-weighted by `min_form`
        gae        Aₜ = δₜ + γλ Aₜ₊₁        δₜ = rₜ + γ Vₜ₊₁ − Vₜ

    t+1 is the next step that exists. At the end of a row (and where `ends` says so) Gₜ₊₁, Aₜ₊₁ and Vₜ₊₁ are 0; a
    minimum begins with its own reward. A constant: no gradient passes. Computed in float32 or wider, in
    O(log t) vector operations over the row; values under the mask are not read.

    Args:
        rewards: one per token or step; any real unit.
        mask: True where the step exists: padding and observations do not. For "min" and "softmin" it has to be the
            steps that were scored: the zeros on other tokens would cap every minimum at 0.
        kind: which recursion.
        gamma: γ in [0, 1]; "min" has no discount and takes only 1.
        lam: λ in [0, 1], for "gae": 1 is Monte Carlo less the value, 0 one-step.
        values: V of the state in which each step is taken; for "gae" only.
        bootstrap: the value of the state after each row's last step, of a rollout that was cut and did not end; for
            "sum" and "gae".
        gaps: what a step that does not exist does to the steps around it. "skip": they are neighbours, and no time
            passes (the usual treatment of tool output); "reset": nothing flows across, so that a turn is paid for its
            own rewards only.
        ends: True at the last step of an episode, where one row holds several.
        temperature: of `min_form`, in the unit of the rewards.

    Returns:
        One per step, 0 where none exists; the unit of the rewards.

    Raises:
        ValueError: if shapes differ, a number is out of range, or an argument is given that the kind does not use.

    Source: GAE, Schulman et al. (arXiv 1506.02438); "min" and "softmin": PURE (2504.15275); "reset": the released
    code of IGPO (GuoqingWang1/IGPO); a discount per turn and not per token, "skip": VL-DAC (2508.04280).

    >>> returns(torch.tensor([[1.0, 0.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool), gamma=0.5)
    tensor([[1.5000, 1.0000, 2.0000]])
    """
    _check(rewards, mask, kind, gamma, lam, values, bootstrap, gaps, ends)
    if kind == "softmin":
        rewards = min_form(rewards, mask, temperature=temperature)
    wide = torch.promote_types(rewards.dtype, torch.float32)
    result = torch.empty_like(rewards, dtype=rewards.dtype if rewards.is_floating_point() else wide)
    for rows in _parts(rewards):
        here = mask[rows]
        r = torch.where(here, rewards[rows], 0)
        v = None if values is None else torch.where(here, values[rows], 0)
        stops = None if ends is None else ends[rows] & here
        broken = _broken(here)
        packed = broken and gaps == "skip"
        exists = torch.arange(here.shape[1], device=mask.device) < here.sum(1, keepdim=True) if packed else here
        if packed:  # without the gaps, neighbours are neighbours
            r = _moved(r, here, exists)
            v, stops = (None if x is None else _moved(x, here, exists) for x in (v, stops))
        # Which steps have another behind them; None where rows are steps and then padding, whose zeros need no care.
        onward = None
        if stops is not None or (broken and not packed):
            onward = exists if stops is None else exists & ~stops
        terms = r.to(wide)
        if v is not None:
            terms = _differences(terms, v.to(wide), gamma, onward)
        if bootstrap is not None:
            terms = terms + _behind(bootstrap[rows].to(wide), gamma, exists, stops)
        if kind == "min":
            found = _least(terms, exists, onward)
        else:
            found = scan(terms, gamma * lam if onward is None else onward.to(wide) * (gamma * lam))
        result[rows] = _moved(found, exists, here) if packed else found
    return result


@torch.no_grad()
def min_form(
    step_rewards: Float[Tensor, "n s"],
    mask: Bool[Tensor, "n s"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, "n s"]:
    r"""Re-weight step rewards so that their sum is (softly) their minimum.

    A chain of reasoning is as good as its worst step. Summing step rewards lets a policy collect reward from many
    easy steps; taking the minimum does not:

        wᵢ = softmax(−rᵢ / T)        r'ᵢ = wᵢ rᵢ        Σᵢ r'ᵢ → minᵢ rᵢ as T → 0, and → the mean as T → ∞

    Args:
        step_rewards: one reward per step; any real unit.
        mask: True where the step exists.
        temperature: T > 0, in the unit of the rewards.

    Returns:
        The re-weighted rewards, 0 where masked.

    Raises:
        ValueError: if the shapes differ, or T ≤ 0.

    Source: PURE, "Stop Summation" (arXiv 2504.15275).

    >>> min_form(torch.tensor([[0.9, 0.1, 0.8]]), torch.ones(1, 3, dtype=bool), temperature=0.01).sum()
    tensor(0.1000)
    """
    if step_rewards.shape != mask.shape or step_rewards.ndim != 2:
        raise ValueError(f"step_rewards {tuple(step_rewards.shape)} and mask {tuple(mask.shape)} need one shape (n, s)")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    wide = torch.promote_types(step_rewards.dtype, torch.float32)
    rewards = torch.where(mask, step_rewards, 0).to(wide)
    # A row without steps has no softmax: it gets a finite one, which its zeros then wipe out.
    lowest = torch.where(mask, rewards, torch.inf).amin(1, keepdim=True) if mask.shape[1] else rewards
    above = torch.where(mask, (rewards - lowest) / temperature, torch.inf)
    weights = torch.where(mask.any(1, keepdim=True), above, 0.0).neg().softmax(1)
    return (weights * rewards).to(step_rewards.dtype if step_rewards.is_floating_point() else wide)


def scan(terms: Float[Tensor, "n t"], flow: float | Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """Gₜ = xₜ + fₜ Gₜ₊₁ with 0 behind the last; `terms` is overwritten.

    By doubling: after k rounds, Gₜ holds the first 2ᵏ of its terms. It ends early where what is left has decayed
    below the square of the resolution of the numbers.

    Source: the parallel prefix of Hillis and Steele, "Data Parallel Algorithms" (CACM 29, 1986).
    """
    width, step, least = terms.shape[1], 1, torch.finfo(terms.dtype).eps ** 2
    spare = torch.empty_like(terms)
    while step < width:
        near, far = slice(None, -step), slice(step, None)
        if isinstance(flow, Tensor):
            torch.addcmul(terms[:, near], flow[:, near], terms[:, far], out=spare[:, near])
            if 2 * step < width:
                flow = torch.cat([flow[:, near] * flow[:, far], flow[:, -step:]], 1)
        else:
            reach = flow**step
            if reach < least:
                break
            torch.add(terms[:, near], terms[:, far], alpha=reach, out=spare[:, near])
        spare[:, -step:] = terms[:, -step:]
        terms, spare = spare, terms
        step *= 2
    return terms


def _least(terms: Tensor, mask: Tensor, onward: Tensor | None) -> Tensor:
    """Gₜ = min(xₜ, Gₜ₊₁), across neither a gap nor an end; 0 where there is no step."""
    terms, passes, step = torch.where(mask, terms, torch.inf), mask if onward is None else onward, 1
    while step < terms.shape[1]:
        near, far = slice(None, -step), slice(step, None)
        ahead = torch.where(passes[:, near], terms[:, far], torch.inf)
        terms = torch.cat([torch.minimum(terms[:, near], ahead), terms[:, -step:]], 1)
        passes = torch.cat([passes[:, near] & passes[:, far], passes[:, -step:]], 1)
        step *= 2
    return torch.where(mask, terms, 0)


def _broken(mask: Tensor) -> bool:
    """Whether a row goes on behind a gap."""
    resumed = mask[:, 1:] > mask[:, :-1]
    return bool(resumed.numel() and resumed.view(torch.uint8).max())  # of bytes, `max` is vectorised and `any` is not


def _moved(array: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """The entries of each row at other places of the row, in the same order, with 0 elsewhere."""
    return torch.zeros_like(array).masked_scatter_(there, array.masked_select(here))


def _differences(rewards: Tensor, values: Tensor, gamma: float, onward: Tensor | None) -> Tensor:
    """δₜ = rₜ + γ Vₜ₊₁ − Vₜ at each step; both are 0 where there is none."""
    differences = rewards - values
    following = values[:, 1:] if onward is None else torch.where(onward[:, :-1], values[:, 1:], 0)
    differences[:, :-1].add_(following, alpha=gamma)
    return differences


def _behind(bootstrap: Tensor, gamma: float, mask: Tensor, ends: Tensor | None) -> Tensor:
    """γ times the value behind each row, at the row's last step unless an episode ends there."""
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return torch.where(last if ends is None else last & ~ends, gamma * bootstrap[:, None], 0.0)


def _parts(array: Tensor) -> Iterator[slice]:
    """Rows a few at a time, so that the rounds of a scan stay in the processor's cache; all at once elsewhere."""
    n, t = array.shape
    rows = max(1, n if array.device.type != "cpu" else CACHED // max(t, 1))
    return (slice(start, start + rows) for start in range(0, n, rows))


def _check(
    rewards: Tensor,
    mask: Tensor,
    kind: str,
    gamma: float,
    lam: float,
    values: Tensor | None,
    bootstrap: Tensor | None,
    gaps: str,
    ends: Tensor | None,
) -> None:
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be (n, t), got {tuple(rewards.shape)}")
    row = rewards.shape[:1]
    shapes = {"mask": mask, "values": values, "ends": ends, "bootstrap": bootstrap}
    for name, value in shapes.items():
        wanted = row if name == "bootstrap" else rewards.shape
        if value is not None and value.shape != wanted:
            raise ValueError(f"{name} must be {tuple(wanted)} like rewards, got {tuple(value.shape)}")
    if kind not in get_args(Kind) or gaps not in get_args(Gaps):
        raise ValueError(f"kind is one of {get_args(Kind)} and gaps of {get_args(Gaps)}, got {kind!r} and {gaps!r}")
    if not (0 <= gamma <= 1 and 0 <= lam <= 1):
        raise ValueError(f"gamma and lam lie in [0, 1], got {gamma} and {lam}")
    if (values is None) == (kind == "gae"):
        raise ValueError(f"values are for kind='gae', and it needs them; kind is {kind!r}")
    if lam != 1 and kind != "gae":
        raise ValueError(f"lam is for kind='gae', not {kind!r}")
    if kind == "min" and (gamma != 1 or bootstrap is not None):
        raise ValueError("a minimum is not discounted and has no bootstrap: leave gamma and bootstrap out")
    if kind == "softmin" and (ends is not None or gaps == "reset" or bootstrap is not None):
        raise ValueError("kind='softmin' weighs the steps of a whole row: it takes no ends, no reset and no bootstrap")
