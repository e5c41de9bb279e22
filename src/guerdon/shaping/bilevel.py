"""Rewards blended by weights that are learned for what the blend achieves: a bilevel objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Update = Callable[[Float[Tensor, "d"], Float[Tensor, "p"]], Float[Tensor, "d"]]


def implicit_gradient(
    update: Update,
    theta: Float[Tensor, "d"],
    phi: Float[Tensor, "p"],
    outer: Float[Tensor, "d"],
    *,
    solver: Literal["neumann", "cg"] = "neumann",
    terms: int = 5,
    rate: float = 1e-3,
    damping: float = 0.0,
) -> Float[Tensor, "p"]:
    r"""How an outer objective J changes with what shapes the inner one, at the inner fixed point.

    An inner algorithm ends where its update vanishes, Δ(θ(φ), φ) = 0; its end θ depends on φ, and so does J(θ(φ)):

        dJ/dφ = −(∂J/∂θ) H⁻¹ ∂Δ/∂φ        H = ∂Δ/∂θ

    With A = λI − Hᵀ, A⁻¹g is approximated by K terms of the Neumann series, η Σ_{k<K} (I − ηA)ᵏ g, or by K steps of
    conjugate gradients. Only products of vectors with Jacobians are taken, never a Jacobian.

    Args:
        update: Δ(θ, φ), the ascent direction of the inner algorithm, differentiable in both; `reinforce_update` makes
            one of rollouts.
        theta: θ at the inner fixed point, or near it after warm-started inner steps.
        phi: φ, the parameters of the reward, all in one vector.
        outer: ∂J/∂θ.
        solver: "neumann" converges for any H whose A has eigenvalues within (0, 2/η) in real part, as near a stable
            end of ascent; "cg" needs A symmetric and positive definite, as where Δ is a gradient.
        terms: K ≥ 1. Few terms underrate the flat directions of the inner problem.
        rate: η > 0 of the series, about 1/λ_max(A); the source takes the inner learning rate.
        damping: λ ≥ 0, which keeps A away from 0 where the inner problem is flat.

    Returns:
        dJ/dφ; a constant. Regularisers of φ are added by the caller.

    Raises:
        ValueError: if `outer` or Δ is not of θ's shape, terms < 1, rate ≤ 0, damping < 0, or for another solver.

    Source: BARFI (arXiv 2310.19007, §4); implicit differentiation by Neumann series: Lorraine et al. (1911.02590).

    >>> def newton(theta, phi): return 2 * phi - 4 * theta  # ends at θ = φ/2
    >>> implicit_gradient(newton, torch.tensor([1.5]), torch.tensor([3.0]), torch.tensor([1.0]), solver="cg")
    tensor([0.5000])
    """
    if solver not in ("neumann", "cg"):
        raise ValueError(f"solver is 'neumann' or 'cg', got {solver!r}")
    if terms < 1 or not rate > 0 or damping < 0:
        raise ValueError(f"terms and rate must be positive, damping not negative, got {terms}, {rate}, {damping}")
    theta, phi, outer = theta.detach(), phi.detach(), outer.detach()
    if theta.ndim != 1 or phi.ndim != 1 or outer.shape != theta.shape:
        raise ValueError(
            f"theta and phi are vectors and outer is of theta's shape, got {tuple(theta.shape)}, {tuple(phi.shape)} "
            f"and {tuple(outer.shape)}"
        )
    value, pull, *_ = torch.func.vjp(update, theta, phi)
    if value.shape != theta.shape:
        raise ValueError(f"update gives one number per parameter, {tuple(theta.shape)}, got {tuple(value.shape)}")

    def apply(v: Tensor) -> Tensor:
        product: Tensor = damping * v - pull(v)[0]
        return product

    solve = _neumann if solver == "neumann" else _conjugate_gradients
    gradient: Tensor = pull(solve(apply, outer, terms, rate))[1]
    return gradient.detach()


def _neumann(apply: Callable[[Tensor], Tensor], g: Tensor, terms: int, rate: float) -> Tensor:
    power, total = g, g
    for _ in range(terms - 1):
        power = power - rate * apply(power)
        total = total + power
    return rate * total


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], g: Tensor, terms: int, rate: float) -> Tensor:
    solution, residual = torch.zeros_like(g), g
    direction, size = g, g @ g
    start = size
    for _ in range(terms):
        if size <= start * torch.finfo(g.dtype).eps ** 2:
            break
        image = apply(direction)
        curvature = direction @ image
        if curvature <= 0:  # flat or not positive definite: no step is better than one of any length
            break
        step = size / curvature
        solution, residual = solution + step * direction, residual - step * image
        size, before = residual @ residual, size
        direction = residual + size / before * direction
    return solution


def blend(
    primary: Float[Tensor, "n t"],
    auxiliary: Float[Tensor, "n t"],
    *,
    own: Float[Tensor, "n t"] | float = 0.0,
    weights: tuple[Float[Tensor, "n t"] | float, Float[Tensor, "n t"] | float] = (1.0, 1.0),
) -> Float[Tensor, "n t"]:
    """A designer's auxiliary reward beside the primary one: r = φ₁ + φ₂ r_p + φ₃ r_aux, per step.

    Args:
        primary: r_p, what is really wanted.
        auxiliary: r_aux, of the same shape.
        own: φ₁(s, a), what is learned to be paid besides; starts at 0.
        weights: φ₂(s) and φ₃(s); start at 1.

    Raises:
        ValueError: if the shapes differ.

    Source: BARFI (arXiv 2310.19007, eq. 3).

    >>> blend(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), weights=(1.0, 0.0))
    tensor([[1., 0.]])
    """
    if primary.shape != auxiliary.shape:
        raise ValueError(
            f"primary and auxiliary rewards differ in shape: {tuple(primary.shape)}, {tuple(auxiliary.shape)}"
        )
    return own + weights[0] * primary + weights[1] * auxiliary


def reinforce_update(
    log_prob: Callable[[Float[Tensor, "d"]], Float[Tensor, "n t"]],
    rewards: Callable[[Float[Tensor, "p"]], tuple[Float[Tensor, "n t"], Float[Tensor, ""]]],
    mask: Bool[Tensor, "n t"],
    *,
    behavior: Float[Tensor, "n t"] | None = None,
) -> Update:
    r"""The expected update of REINFORCE as a function of policy and reward parameters.

        Δ(θ, φ) = (1/n) Σᵢ wᵢ(θ) Σₜ ∇log π_θ(aₜ|sₜ) Σ_{j≥t} γ^(j−t) r_φ(sⱼ, aⱼ)        wᵢ = Πₜ π_θ/β

    Its derivative with respect to θ has a second term, by which θ changes what is sampled; it comes from the
    importance weights, which are 1 at the θ that sampled but not constant there.

    Args:
        log_prob: log π_θ(aₜ|sₜ) of the sampled steps.
        rewards: the blended rewards of these steps and the discount γ ∈ [0, 1], both functions of φ.
        mask: True where a step exists; steps are padded on the right.
        behavior: log β(aₜ|sₜ) under the policy that sampled; by default π_θ itself.

    Raises:
        ValueError: when it is called, if the shapes differ.

    Source: BARFI (arXiv 2310.19007, eq. 4 and appendix on off-policy estimates).
    """

    def update(theta: Float[Tensor, "d"], phi: Float[Tensor, "p"]) -> Float[Tensor, "d"]:
        values, discount = rewards(phi)
        if values.shape != mask.shape:
            raise ValueError(f"rewards have shape {tuple(values.shape)}, the mask {tuple(mask.shape)}")
        returns = discounted(values, mask, discount)
        logp = torch.where(mask, log_prob(theta), 0.0)
        reference = logp.detach() if behavior is None else torch.where(mask, behavior, 0.0)
        weights = (logp - reference).sum(1).exp()

        def surrogate(inner: Tensor) -> Tensor:
            return (weights[:, None] * torch.where(mask, log_prob(inner), 0.0) * returns).sum(1).mean()

        gradient: Tensor = torch.func.grad(surrogate)(theta)
        return gradient

    return update


def discounted(
    rewards: Float[Tensor, "n t"], mask: Bool[Tensor, "n t"], discount: Float[Tensor, ""] | float
) -> Float[Tensor, "n t"]:
    """The discounted sum of the rewards from each step on, differentiable in the discount; 0 where masked.

    >>> discounted(torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=bool), 0.5)
    tensor([[3., 4., 4.]])
    """
    held = torch.where(mask, rewards, 0.0)
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    ahead = steps[None, :] - steps[:, None]
    gamma = torch.as_tensor(discount, dtype=rewards.dtype, device=rewards.device)
    powers = torch.where(ahead >= 0, gamma ** ahead.clamp(min=0), 0.0)
    return torch.where(mask, held @ powers.T, 0.0)
