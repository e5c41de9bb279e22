"""What becomes of a model that is trained again and again on those of its own samples that people preferred."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from guerdon.audit.theory.tilting import _distribution, divergence

Array = np.ndarray[Any, Any]


def curation_gain(p: Float[Array, "v"], r: Float[Array, "v"], *, choices: float) -> Float[Array, "v"]:
    r"""How much more likely each outcome is among what was picked than among what was made.

        H(x) = E_{x₂…x_K ~ p} [K e^{r(x)} / (e^{r(x)} + Σᵢ e^{r(xᵢ)})]
             = K ∫₀^∞ w_x e^{−u w_x} φ(u)^{K−1} du        w = e^r, φ(u) = E_p e^{−u w}

    of K samples one is picked with chances in proportion to e^r (Plackett-Luce; K = 2 is Bradley-Terry). The integral
    costs the same for any K, where the expectation has as many terms as there are draws. Σ p H = 1.

    Args:
        p: the chance of each outcome.
        r: the reward of each, finite.
        choices: K ≥ 1, of which one is picked; infinity for e^r / E e^r.

    Returns:
        In [0, K].

    Raises:
        ValueError: if p is no distribution, r is not finite, or K < 1.

    Source: "Self-Consuming Generative Models with Curated Data" (arXiv 2407.09499); the integral is ours.

    >>> curation_gain(np.array([0.5, 0.5]), np.log([1.0, 3.0]), choices=2).round(6)
    array([0.75, 1.25])
    """
    p, r = _distribution(p, r)
    if not choices >= 1:
        raise ValueError(f"choices must be at least 1, got {choices}")
    weight = np.exp(r - r.max())
    if math.isinf(choices):
        return np.asarray(weight / (p @ weight))
    # u = e^s turns it into an integral over all s of what is smooth and dies away at both ends: the trapezoidal rule
    # then has all digits. Below, φ is 1; above, e^{−u w_x} is 0.
    low, high = -40.0 - math.log(choices), math.log(800.0) - float(np.log(np.maximum(weight.min(), 1e-300)))
    s, width = np.linspace(low, high, num=int((high - low) / 0.1) + 2, retstep=True)
    u = np.exp(s)[:, None]
    log_phi = np.log1p(np.maximum(np.expm1(-u * weight) @ p, np.nextafter(-1.0, 0.0)))
    terms = np.exp(s[:, None] + np.log(np.maximum(weight, 1e-300)) - u * weight + (choices - 1) * log_phi[:, None])
    return np.asarray(choices * width * terms.sum(0))


@dataclass(frozen=True, eq=False)
class Curated:
    """A run of retraining on curated samples, at its start and after each round.

    Args:
        pmfs: Float["t+1 v"].
        gain: Float["t+1"], E e^r.
        spread: Float["t+1"], Var e^r.
        kl: Float["t+1"], from the distribution it began with, in nats.
        entropy: Float["t+1"], in nats.
        bound: Float["t"], what E e^r after each round is at least.
        kl_bound: what the KL never exceeds; infinite where nothing is known.
    """

    pmfs: Float[Array, "t+1 v"]
    gain: Float[Array, "t+1"]
    spread: Float[Array, "t+1"]
    kl: Float[Array, "t+1"]
    entropy: Float[Array, "t+1"]
    bound: Float[Array, "t"]
    kl_bound: float

    @property
    def holds(self) -> bool:
        """Whether every round is within both bounds, as it must be: a check of rewards and chances measured apart."""
        slack = 1e-9 * (1 + np.abs(self.bound))
        return bool((self.gain[1:] >= self.bound - slack).all() and (self.kl <= self.kl_bound + 1e-9).all())

    def collapses(self, *, least: float = 0.5) -> Bool[Array, "t+1"]:
        """Where the effective number of outcomes, e^entropy, has fallen below a share of what it began with."""
        if not 0 < least <= 1:
            raise ValueError(f"least is a share in (0, 1], got {least}")
        return np.asarray(np.exp(self.entropy - self.entropy[0]) < least - 1e-12)


def curated_retraining(
    p: Float[Array, "v"],
    r: Float[Array, "v"],
    *,
    choices: float,
    rounds: int,
    curated: float = math.inf,
) -> Curated:
    r"""Retrain a model, round after round, on the samples of it that were picked, and on real data beside them.

        p_{t+1} = p_t H_t                                       curated only: E e^r rises to its maximum, variety dies
        p_{t+1} = (p₀ + λ p_t H_t) / (1 + λ)                    with real data

    with H of `curation_gain`. The model is taken to fit what it is given. A preference need not be strong to win all,
    and what the samples were filtered by, said or not, is a reward.

        E_{t+1} e^r ≥ E_t e^r + (K−1)/K · Var_t e^r / max e^r                          curated only
        E_t e^r ≥ E₀ e^r + λ/(1+λ)³ · (K−1)/K · Var₀ e^r / max e^r                     with real data
        KL(p_t ‖ p₀) ≤ −log(1 − λ(K − 1))                                              if λ(K − 1) < 1

    As K → ∞, T rounds on curated samples alone are p₀ e^{T r}, normalised.

    Args:
        p: p₀, the chance of each outcome, or of each class.
        r: the reward of each.
        choices: K ≥ 1; 1 picks blindly and changes nothing.
        rounds: T.
        curated: λ ≥ 0, curated samples per real one; infinity for no real data.

    Raises:
        ValueError: if p is no distribution, r is not finite, or an option is out of range.

    Source: "Self-Consuming Generative Models with Curated Data Provably Optimize Human Preferences" (arXiv 2407.09499).

    >>> run = curated_retraining(np.array([0.5, 0.5]), np.log([1.0, 3.0]), choices=2, rounds=10)
    >>> run.pmfs[1].round(3).tolist(), run.pmfs[10].round(4).tolist(), run.holds
    ([0.375, 0.625], [0.0018, 0.9982], True)
    """
    p, r = _distribution(p, r)
    if rounds < 0 or not curated >= 0:
        raise ValueError(f"rounds and curated must not be negative, got {rounds} and {curated}")
    real = 0.0 if math.isinf(curated) else 1 / (1 + curated)
    path = [p]
    for _ in range(rounds):
        picked = path[-1] * curation_gain(path[-1], r, choices=choices)
        path.append(real * p + (1 - real) * picked / picked.sum())
    pmfs, worth = np.stack(path), np.exp(r)
    gain = pmfs @ worth
    spread = np.maximum(pmfs @ worth**2 - gain**2, 0.0)
    blind = 0.0 if math.isinf(choices) else 1 / choices
    top = float(worth[p > 0].max())
    bound = gain[:-1] + (1 - blind) * spread[:-1] / top
    kl_bound = math.inf
    if real:
        bound = np.full(rounds, gain[0] + curated / (1 + curated) ** 3 * (1 - blind) * spread[0] / top)
        excess = curated * (choices - 1) if curated else 0.0
        kl_bound = -math.log1p(-excess) if excess < 1 else math.inf
    kl = np.array([divergence(q, p) for q in pmfs])
    entropy = -np.sum(np.where(pmfs > 0, pmfs * np.log(np.where(pmfs > 0, pmfs, 1.0)), 0.0), 1)
    return Curated(pmfs, gain, spread, kl, entropy, bound, kl_bound)
