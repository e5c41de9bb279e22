"""BARFI: gradients through the end of an inner algorithm, and what they learn to blend."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.shaping import blend, implicit_gradient, reinforce_update
from guerdon.shaping.bilevel import discounted


def quadratic(seed, size=4, width=3):
    """An inner problem whose end is known: Δ = B φ − A θ, symmetric positive definite A."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    a = root @ root.T + torch.eye(size, dtype=torch.float64)
    b = torch.randn(size, width, generator=generator, dtype=torch.float64)
    phi = torch.randn(width, generator=generator, dtype=torch.float64)
    goal = torch.randn(size, generator=generator, dtype=torch.float64)
    return a, b, phi, goal


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "cg", "terms": 4},
        {"solver": "neumann", "terms": 4000, "rate": 0.05},
    ],
    ids=["cg", "neumann"],
)
@pytest.mark.parametrize("seed", range(3))
def test_barfi_implicit_gradient_of_a_quadratic_is_that_of_finite_differences(seed, options):
    a, b, phi, goal = quadratic(seed)

    def outer(phi):
        theta = torch.linalg.solve(a, b @ phi)
        return -0.5 * ((theta - goal) ** 2).sum()

    theta = torch.linalg.solve(a, b @ phi)
    got = implicit_gradient(lambda t, p: b @ p - a @ t, theta, phi, goal - theta, **options)
    step = 1e-5
    for i in range(len(phi)):
        nudge = torch.zeros_like(phi)
        nudge[i] = step
        difference = (outer(phi + nudge) - outer(phi - nudge)) / (2 * step)
        assert got[i].item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-6)


def test_barfi_neumann_series_is_its_definition():
    """η Σ_{k<K} (I − η(λI − Hᵀ))ᵏ g, then times ∂Δ/∂φ; H need not be symmetric."""
    _, b, phi, g = quadratic(7)
    h = -torch.eye(4, dtype=torch.float64) + 0.3 * torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4])
    rate, damping, terms = 0.1, 0.2, 6
    system = damping * torch.eye(4, dtype=torch.float64) - h.T
    total = sum(
        torch.linalg.matrix_power(torch.eye(4, dtype=torch.float64) - rate * system, k) @ g for k in range(terms)
    )
    theta = torch.zeros(4, dtype=torch.float64)
    got = implicit_gradient(lambda t, p: h @ t + b @ p, theta, phi, g, terms=terms, rate=rate, damping=damping)
    torch.testing.assert_close(got, rate * total @ b)
    exact = torch.linalg.solve(system, g) @ b
    many = implicit_gradient(lambda t, p: h @ t + b @ p, theta, phi, g, terms=500, rate=rate, damping=damping)
    torch.testing.assert_close(many, exact)


def test_conjugate_gradients_stop_where_the_inner_problem_is_flat():
    flat = torch.diag(torch.tensor([2.0, 0.0]))
    got = implicit_gradient(lambda t, p: p - flat @ t, torch.zeros(2), torch.zeros(2), torch.tensor([1.0, 0.0]),
                            solver="cg", terms=10)  # fmt: skip
    assert got.tolist() == [0.5, 0.0]
    for outer in (torch.zeros(2), torch.tensor([0.0, 1.0])):
        got = implicit_gradient(lambda t, p: p - flat @ t, torch.zeros(2), torch.zeros(2), outer, solver="cg")
        assert got.tolist() == [0.0, 0.0]


@given(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=1, max_size=3), st.floats(0, 1),
       st.integers(0, 3), st.integers(0, 2))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_discounted_is_its_definition_whatever_the_padding(rows, gamma, length, padding):
    rewards = torch.tensor([[*row, *[math.nan] * padding] for row in rows], dtype=torch.float64)
    mask = (torch.arange(3 + padding) < length).expand(len(rows), -1)
    got = discounted(rewards, mask, gamma)
    for row, numbers in enumerate(rows):
        for t in range(3 + padding):
            expected = sum(gamma ** (j - t) * numbers[j] for j in range(t, length)) if t < length else 0.0
            assert got[row, t].item() == pytest.approx(expected, abs=1e-12)


def test_reinforce_update_and_its_derivative_are_those_of_the_expectation():
    """A bandit's arms, each sampled once by a uniform policy: with weights, the sample is the expectation.

    The update is then ∇E[r], and its derivative the Hessian of E[r], whose second term comes from the weights.
    """
    rewards = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    theta = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    uniform = torch.full((3, 1), -math.log(3), dtype=torch.float64)

    def value(t):
        return torch.softmax(t, 0) @ rewards

    update = reinforce_update(
        lambda t: torch.log_softmax(t, 0)[:, None],
        lambda phi: (phi[:, None], torch.tensor(1.0, dtype=torch.float64)),
        torch.ones(3, 1, dtype=torch.bool),
        behavior=uniform,
    )
    gradient = torch.autograd.functional.jacobian(value, theta)
    torch.testing.assert_close(update(theta, rewards), gradient)
    jacobian = torch.autograd.functional.jacobian(lambda t: update(t, rewards), theta)
    torch.testing.assert_close(jacobian, torch.autograd.functional.hessian(value, theta))


def test_reinforce_update_discounts_within_episodes():
    """Two padded episodes under a policy with one logit, against the sum written out."""
    logits = torch.tensor([0.4], dtype=torch.float64)
    actions = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, math.nan]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    rewards = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, math.nan]], dtype=torch.float64)

    def log_prob(theta):
        return torch.nn.functional.logsigmoid(theta * (2 * actions.nan_to_num() - 1))

    psi = torch.tensor([0.0], dtype=torch.float64)  # γ = σ(0) = ½
    update = reinforce_update(log_prob, lambda phi: (rewards, torch.sigmoid(phi[0])), mask)
    p = torch.sigmoid(logits)[0].item()
    slope = {1.0: 1 - p, 0.0: -p}
    expected = 0.0
    for row, steps in ((0, 3), (1, 2)):
        for t in range(steps):
            ahead = sum(0.5 ** (j - t) * rewards[row, j].item() for j in range(t, steps))
            expected += slope[actions[row, t].item()] * ahead / 2
    assert update(logits, psi).item() == pytest.approx(expected)
    # The discount is learned too: dΔ/dψ is that of finite differences.
    (slope_psi,) = torch.autograd.functional.jacobian(lambda x: update(logits, x), psi).flatten().tolist()
    step = torch.tensor([1e-6], dtype=torch.float64)
    difference = (update(logits, psi + step) - update(logits, psi - step)).item() / 2e-6
    assert slope_psi == pytest.approx(difference, rel=1e-5)


# A gridworld whose designer was wrong

SIZE, GOAL, DECOY = 5, 24, 4


def gridworld():
    """Next state of each (state, action); the goal and nothing else pays, the decoy only seems to."""
    moves = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
    cells = torch.stack([torch.arange(SIZE**2) // SIZE, torch.arange(SIZE**2) % SIZE], 1)
    after = (cells[:, None] + moves).clamp(0, SIZE - 1)
    return after[..., 0] * SIZE + after[..., 1]


def value(theta, reward, gamma=0.9):
    """The exact value of the start under a softmax policy; the goal ends the episode."""
    policy = torch.softmax(theta.view(SIZE**2, 4), 1)
    alive = (torch.arange(SIZE**2) != GOAL).to(theta.dtype)
    transition = torch.zeros(SIZE**2, SIZE**2, dtype=theta.dtype)
    for action in range(4):
        step = torch.nn.functional.one_hot(gridworld()[:, action], SIZE**2).to(theta.dtype)
        transition = transition + policy[:, action, None] * step
    expected = (policy * reward).sum(1) * alive
    return torch.linalg.solve(torch.eye(SIZE**2, dtype=theta.dtype) - gamma * alive[:, None] * transition, expected)[0]


def learned_blend(auxiliary, start, *, outer_steps, learn=True):
    """Warm-started ascent on r_p + φ₃ r_aux, each time followed by a step on φ; returns φ₃ and J_p."""
    primary = (gridworld() == GOAL).double()
    phi = torch.tensor(start, dtype=torch.float64)
    theta = torch.zeros(SIZE**2 * 4, dtype=torch.float64)

    def inner(t, p):
        blended = blend(primary, auxiliary, weights=(p[0], p[1]))
        return torch.func.grad(lambda x: value(x, blended) - 0.002 * (x**2).sum())(t)

    for _ in range(outer_steps):
        for _ in range(25):
            theta = theta + 2.0 * inner(theta, phi)
        if learn:
            outer = torch.func.grad(lambda x: value(x, primary))(theta)
            slope = implicit_gradient(inner, theta, phi, outer, solver="cg", terms=10, damping=0.01)
            slope = slope - 1e-3 * phi  # the regulariser λ‖φ‖²/2
            phi = phi + 0.4 * slope / slope.norm()
            phi = torch.stack([phi[0].clamp(0, 2), phi[1].clamp(-0.5, 2)])
    return phi[1].item(), value(theta, primary).item()


BEST = 0.9**7  # eight moves from corner to corner


def test_barfi_unlearns_a_misleading_auxiliary_reward():
    """A decoy that pays at every visit: with the plain sum the policy stays there; the learned blend lets go of it."""
    misleading = (gridworld() == DECOY).double()
    weight, learned = learned_blend(misleading, [1.0, 1.0], outer_steps=25)
    _, naive = learned_blend(misleading, [1.0, 1.0], outer_steps=25, learn=False)
    assert naive < 0.05 * BEST
    assert learned > 0.8 * BEST
    assert weight < 0.15


def test_barfi_a_helpful_auxiliary_reward_is_faster_than_none():
    """Steps towards the goal are paid: J_p is sooner high than with the primary reward alone."""
    cells = torch.arange(SIZE**2)
    far = (2 * (SIZE - 1) - cells // SIZE - cells % SIZE).double()
    helpful = 0.1 * (far[:, None] - far[gridworld()])
    _, blended = learned_blend(helpful, [1.0, 1.0], outer_steps=1)
    _, alone = learned_blend(torch.zeros_like(helpful), [1.0, 0.0], outer_steps=1)
    assert blended > 1.5 * alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lu"}, "solver is 'neumann' or 'cg', got 'lu'"),
        ({"terms": 0}, "terms and rate must be positive, damping not negative, got 0"),
        ({"rate": 0.0}, "terms and rate must be positive"),
        ({"damping": -1.0}, "damping not negative"),
        ({"outer": torch.zeros(3)}, "outer is of theta's shape"),
        ({"update": lambda t, p: t[:1]}, "update gives one number per parameter"),
    ],
    ids=["solver", "terms", "rate", "damping", "outer", "update"],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    arguments = {"update": lambda t, p: p - t, "theta": torch.zeros(2), "phi": torch.zeros(2), "outer": torch.ones(2)}
    with pytest.raises(ValueError, match=message):
        implicit_gradient(**{**arguments, **options})


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        blend(torch.zeros(1, 2), torch.zeros(2, 1))
    update = reinforce_update(
        lambda t: t[None], lambda p: (p[None, :1], torch.tensor(1.0)), torch.ones(1, 2, dtype=bool)
    )
    with pytest.raises(ValueError, match="rewards have shape"):
        update(torch.zeros(2), torch.zeros(2))


def test_blend_is_its_definition():
    a, b, own, w = (
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[3.0, 5.0]]),
        torch.tensor([[0.5, 0.0]]),
        torch.tensor([[2.0, 1.0]]),
    )
    assert blend(a, b).tolist() == [[4.0, 7.0]]
    assert blend(a, b, own=own, weights=(w, 0.1)).tolist() == [[pytest.approx(2.8), pytest.approx(2.5)]]
