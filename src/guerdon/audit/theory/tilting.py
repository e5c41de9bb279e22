"""The best that can be had from a reward at a given KL, and how far a policy or best-of-n is from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Tilt:
    """A reference distribution tilted towards a reward.

    Args:
        strength: λ, per unit of the reward.
        pmf: φ.
        reward: E_φ[r].
        kl: KL(φ ‖ p), in nats.
    """

    strength: float
    pmf: Float[Array, "v"]
    reward: float
    kl: float


def divergence(q: Float[Array, "v"], p: Float[Array, "v"]) -> float:
    """KL(q ‖ p) in nats; infinite where q puts mass and p none.

    Source: Kullback and Leibler (1951).

    >>> round(divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75])), 4)
    0.1438
    """
    q, p = np.asarray(q, float), np.asarray(p, float)
    if q.shape != p.shape:
        raise ValueError(f"q and p must have one shape, got {q.shape} and {p.shape}")
    here = q > 0
    if (p[here] <= 0).any():
        return math.inf
    return float(np.sum(q[here] * (np.log(q[here]) - np.log(p[here]))))


def tilt(
    p: Float[Array, "v"],
    r: Float[Array, "v"],
    *,
    strength: float | None = None,
    kl: float | None = None,
    reward: float | None = None,
) -> Tilt:
    r"""The distribution of the highest expected reward at a KL from the reference: φ(y) = p(y) e^{λ r(y)} / Z(λ).

    It is the unique one; KL = λ E_φ r − log Z, and dE_φ r / dλ = Var_φ r ≥ 0, so λ, KL and reward rise together and any
    of them says which member is meant. For strings whose tokens are drawn alike and whose reward is a mean over
    tokens, φ is again a product, of the tilted token: what holds for a token at KL δ holds for n of them at n·δ.

    Args:
        p: the reference, a pmf.
        r: the reward of each outcome, finite.
        strength: λ ≥ 0.
        kl: KL(φ ‖ p) in nats, from 0 to less than −log p(best outcomes).
        reward: E_φ[r], from E_p[r] to less than the best reward with p > 0. Its KL is the rate at which a mean of many
            draws from p exceeds that reward: P ≈ e^{−n·KL}.

    Raises:
        ValueError: if p is no pmf, not exactly one of the three is given, or no λ ≥ 0 has it.

    Source: "Asymptotics of Language Model Alignment" (arXiv 2404.01730), theorem 1.

    >>> found = tilt(np.array([0.7, 0.3]), np.array([0.0, 1.0]), kl=0.1)
    >>> round(found.reward, 4)
    0.5146
    """
    p, r = _distribution(p, r)
    given = {
        name: value for name, value in (("strength", strength), ("kl", kl), ("reward", reward)) if value is not None
    }
    if len(given) != 1:
        raise ValueError(f"give exactly one of strength, kl and reward, not {sorted(given) or 'none'}")
    ((name, value),) = given.items()
    if name == "strength":
        if not 0 <= value < math.inf:
            raise ValueError(f"strength must be at least 0 and finite, got {value}")
        return _tilted(p, r, value)
    start, end = _tilted(p, r, 0.0), _limit(p, r)
    low, high = getattr(start, name), getattr(end, name)
    if abs(value - low) <= 1e-12 * (1.0 + abs(low)):
        return start
    if not low < value < high:
        raise ValueError(f"{name} must be at least {low:.6g} and below {high:.6g}, that of the best outcomes: {value}")
    below, above = 0.0, 1.0 / float(np.ptp(r[p > 0]))
    while getattr(_tilted(p, r, above), name) < value:
        below, above = above, 2 * above
    while (middle := 0.5 * (below + above)) not in (below, above):
        below, above = (middle, above) if getattr(_tilted(p, r, middle), name) < value else (below, middle)
    return _tilted(p, r, above)


def frontier(
    p: Float[Array, "v"], r: Float[Array, "v"], strengths: Float[Array, "k"]
) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
    """KL and expected reward of the tilted distributions: the curve that no policy is above.

    Args:
        p: the reference, a pmf.
        r: the reward of each outcome.
        strengths: λ ≥ 0 of each point.

    Raises:
        ValueError: as `tilt`.

    Source: "Asymptotics of Language Model Alignment" (arXiv 2404.01730).

    >>> kl, reward = frontier(np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    >>> reward.round(4).tolist()
    [0.5, 0.7311]
    """
    points = [tilt(p, r, strength=float(strength)) for strength in np.asarray(strengths, float)]
    return np.array([point.kl for point in points]), np.array([point.reward for point in points])


def regret(policy: Float[Array, "v"], p: Float[Array, "v"], r: Float[Array, "v"]) -> float:
    r"""The KL that a policy spends beyond what its reward costs at least.

        regret = KL(ω ‖ p) − KL(φ ‖ p) = KL(ω ‖ φ)        φ tilted to E_φ r = E_ω r

    A reward no better than the reference's costs nothing: then the regret is all of KL(ω ‖ p).

    Args:
        policy: ω, a pmf.
        p: the reference, a pmf.
        r: the reward of each outcome.

    Returns:
        Nats, at least 0; infinite where the policy leaves the support of the reference.

    Raises:
        ValueError: if they are not pmfs of one shape.

    Source: the Pythagorean identity of "Asymptotics of Language Model Alignment" (arXiv 2404.01730).

    >>> half = np.array([0.5, 0.5])
    >>> round(regret(np.array([0.2, 0.8]), half, np.array([0.0, 1.0])), 9)
    0.0
    """
    p, r = _distribution(p, r)
    policy, _ = _distribution(policy, r)
    spent = divergence(policy, p)
    if math.isinf(spent):
        return spent
    gained, best = float(policy @ r), _limit(p, r)
    if gained <= float(p @ r):
        return spent
    needed = best.kl if gained >= best.reward else tilt(p, r, reward=gained).kl
    return max(0.0, spent - needed)


def best_of_n(p: Float[Array, "v"], r: Float[Array, "v"], n: float) -> Float[Array, "v"]:
    r"""The distribution of the best of n draws: q(y) = F(r(y))ⁿ − F(r(y)⁻)ⁿ.

    F is the distribution function of the reward under p. Outcomes with equal rewards share theirs in proportion to p,
    as when the first of the best is taken.

    Args:
        p: the reference, a pmf.
        r: the reward of each outcome.
        n: at least 1; need not be whole.

    Raises:
        ValueError: if p is no pmf or n < 1.

    Source: "Asymptotics of Language Model Alignment" (arXiv 2404.01730); exact also for large n and small tails.

    >>> best_of_n(np.array([0.5, 0.5]), np.array([0.0, 1.0]), 2)
    array([0.25, 0.75])
    """
    p, r = _distribution(p, r)
    if not n >= 1:
        raise ValueError(f"n must be at least 1, got {n}")
    levels, level = np.unique(r, return_inverse=True)
    mass = np.bincount(level, weights=p, minlength=len(levels))
    below = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    above = np.concatenate([np.cumsum(mass[::-1])[::-1][1:], [0.0]])
    with np.errstate(divide="ignore", invalid="ignore"):
        # log F from the smaller of the two tails, and the difference of powers as Fⁿ (1 − (F⁻/F)ⁿ).
        log_f = np.where(above < 0.5, np.log1p(-np.minimum(above, 1.0)), np.log(below + mass))
        share = np.clip(mass / (below + mass), 0.0, 1.0)
        chance = np.exp(n * log_f) * -np.expm1(n * np.log1p(-share))
        chance = np.where(mass > 0, chance, 0.0)
        return np.where(p > 0, p / mass[level] * chance[level], 0.0)


def best_of_n_kl_bound(n: float) -> float:
    """log n − (n − 1)/n: no best-of-n is further from its reference, and without ties none is nearer.

    Source: Stiennon et al. (arXiv 2009.01325); that it is a bound: "Theoretical Guarantees on the Best-of-n Alignment
    Policy" (2401.01879).

    >>> round(best_of_n_kl_bound(2), 4)
    0.1931
    """
    if not n >= 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return math.log(n) - (n - 1) / n


def _distribution(p: Array, r: Array) -> tuple[Array, Array]:
    p, r = np.asarray(p, float), np.asarray(r, float)
    if p.ndim != 1 or r.shape != p.shape or not p.size:
        raise ValueError(f"p and r must be (v,) with v at least 1, got {p.shape} and {r.shape}")
    if not np.isfinite(r).all():
        raise ValueError("r must be finite")
    if not ((p >= 0).all() and abs(p.sum() - 1) < 1e-9):
        raise ValueError(f"p must be a pmf: its sum is {p.sum():.9g} and its least entry {p.min():.3g}")
    return p, r


def _tilted(p: Array, r: Array, strength: float) -> Tilt:
    # Relative to the best reward, so that no exponential overflows and log Z is taken of a number in [p(best), 1].
    best = float(r[p > 0].max())
    weight = np.where(p > 0, p * np.exp(strength * np.minimum(r - best, 0.0)), 0.0)
    pmf = weight / weight.sum()
    gap = float(pmf @ np.minimum(r - best, 0.0))
    return Tilt(strength, pmf, best + gap, max(0.0, strength * gap - math.log(weight.sum())))


def _limit(p: Array, r: Array) -> Tilt:
    best = float(r[p > 0].max())
    top = np.where((r == best) & (p > 0), p, 0.0)
    return Tilt(math.inf, top / top.sum(), best, -math.log(top.sum()))
