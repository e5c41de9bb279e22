"""B-Coder on a tree of programs of three tokens out of two, where every Q is known."""

import itertools

import pytest
import torch

from guerdon.objectives import Critic, bellman_loss, conservative_targets, dueling, recovered_rewards

DEPTH, V = 3, 2
PROGRAMS = torch.tensor(list(itertools.product(range(V), repeat=DEPTH)))
ALL = torch.ones(len(PROGRAMS), DEPTH, dtype=torch.bool)


def state_numbers(programs):
    """The number of the state before each token, the empty prefix being 0."""
    numbers = torch.zeros_like(programs)
    for t in range(1, DEPTH):
        numbers[:, t] = numbers[:, t - 1] * V + programs[:, t - 1] + 1
    return numbers


STATES = state_numbers(PROGRAMS)
NUMBER = V**0 + V**1 + V**2


def tree(seed):
    """Frozen logits of each state, and rewards of every edge."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(NUMBER, V, generator=generator, dtype=torch.float64),
        torch.randn(NUMBER, V, generator=generator, dtype=torch.float64),
    )


def truth(logits, rewards, discount):
    """Q of the policy that always takes the frozen model's likeliest token, by recursion."""

    def q(state, action, depth):
        if depth == DEPTH - 1:
            return float(rewards[state, action])
        following = state * V + action + 1
        return float(rewards[state, action]) + discount * q(following, int(logits[following].argmax()), depth + 1)

    depths = [0] + [1] * V + [2] * V**2
    return torch.tensor([[q(s, a, depths[s]) for a in range(V)] for s in range(NUMBER)], dtype=torch.float64)


def sampled(table):
    return table[STATES].gather(-1, PROGRAMS[..., None])[..., 0]


def apply_operator(table, logits, rewards, discount):
    """One application to a whole table, by way of all programs."""
    greedy = logits[STATES].argmax(-1)
    greedy_q = table[STATES].gather(-1, greedy[..., None])[..., 0]
    targets = conservative_targets(sampled(rewards), greedy_q, ALL, discount=discount)
    found = torch.full_like(table, float("nan"))
    found[STATES, PROGRAMS] = targets
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_b_coder_operator_contracts_to_the_q_of_the_greedy_model(seed):
    logits, rewards = tree(seed)
    expected = truth(logits, rewards, 0.5)
    table = expected + 3 * torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    error = (table - expected).abs().max()
    for _ in range(DEPTH):
        table = apply_operator(table, logits, rewards, 0.5)
        assert (table - expected).abs().max() <= 0.5 * error + 1e-12
        error = (table - expected).abs().max()
    # a tree of depth 3 is exact after three
    torch.testing.assert_close(table, expected)


def test_b_coder_operator_does_not_maximise_over_what_is_learned():
    logits, rewards = tree(0)
    huge = torch.zeros(NUMBER, V, dtype=torch.float64)
    huge.scatter_(1, logits.argmin(1, keepdim=True), 1e6)
    assert apply_operator(huge, logits, rewards, 1.0).abs().max() < 100


@pytest.mark.parametrize("discount", [0.5, 1.0])
def test_b_coder_recovers_the_true_rewards_where_q_is_exact(discount):
    logits, rewards = tree(2)
    table = truth(logits, rewards, discount)
    greedy_q = table[STATES].gather(-1, logits[STATES].argmax(-1)[..., None])[..., 0]
    found = recovered_rewards(sampled(table), greedy_q, ALL, discount=discount)
    torch.testing.assert_close(found, sampled(rewards))


def test_b_coder_ranks_programs_by_what_their_tests_would_say():
    """CodeRL's scale: compile error −1, runtime error −0.6, a failed test −0.3, all pass 1."""
    logits, _ = tree(3)
    outcomes = torch.tensor([-1.0, -0.6, -0.3, 1.0, -0.3, 1.0, -1.0, -0.6], dtype=torch.float64)
    rewards = torch.zeros(NUMBER, V, dtype=torch.float64)
    rewards[STATES[:, -1], PROGRAMS[:, -1]] = outcomes
    table = truth(logits, rewards, 1.0)
    greedy_q = table[STATES].gather(-1, logits[STATES].argmax(-1)[..., None])[..., 0]
    scores = recovered_rewards(sampled(table), greedy_q, ALL).sum(1)
    torch.testing.assert_close(scores, outcomes)
    assert set(scores.argsort()[-2:].tolist()) == {3, 5}


def test_b_coder_starts_as_the_language_model():
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 3, 4)
    values = Critic(4, hidden=(8,), start="zero")(hidden).double()
    for scale in (0.1, 1.0, 3.0):
        q = torch.stack([dueling(logits, values, torch.full((2, 3), v), scale=scale) for v in range(5)], -1)
        torch.testing.assert_close((q / scale).softmax(-1), logits.softmax(-1), rtol=1e-6, atol=1e-6)
        assert q.amax(-1).abs().max() == 0
    offset = dueling(logits, values + 2, torch.zeros(2, 3, dtype=torch.long)) - dueling(
        logits, values, torch.zeros(2, 3, dtype=torch.long)
    )
    assert (offset == 2).all()


@pytest.mark.parametrize("per_token", [False, True])
def test_b_coder_loss_is_its_three_terms(per_token):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    ids = torch.randint(4, (2, 3), generator=generator)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = torch.tensor([0.5, -0.6], dtype=torch.float64)
    given = torch.tensor([[0.0, 0.0, 0.5], [-0.6, 9.0, 9.0]], dtype=torch.float64) if per_token else rewards
    loss, sums = bellman_loss(
        logits, values, ids, given, mask, reference=reference, scale=0.5, discount=0.9, advantage=0.3, likelihood=0.7
    )
    td = advantage = nll = 0.0
    for i, t in [(0, 0), (0, 1), (0, 2), (1, 0)]:
        row = logits[i, t]
        a = 0.5 * (row[ids[i, t]] - row.max())
        target = rewards[i]
        if (i, t) in [(0, 0), (0, 1)]:
            following, likeliest = logits[i, t + 1].detach(), int(reference[i, t + 1].argmax())
            target = 0.9 * (values[i, t + 1].detach() + 0.5 * (following[likeliest] - following.max()))
        td = td + (values[i, t] + a - target) ** 2
        advantage = advantage + a**2
        nll = nll - (row[ids[i, t]] - row.exp().sum().log())
    expected = (td + 0.3 * advantage + 0.7 * nll) / 4
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(
        torch.autograd.grad(loss, (logits, values)), torch.autograd.grad(expected, (logits, values)), strict=True
    ):
        torch.testing.assert_close(found, wanted)
    assert [float(sums[k]) for k in ("tokens", "bellman", "advantage", "likelihood")] == pytest.approx(
        [4.0, td.item(), advantage.item(), nll.item()]
    )


def test_b_coder_learns_the_q_of_the_greedy_model_from_its_data():
    """Tabular: first the value head alone, then everything; the Bellman error goes to 0 and Q to the truth."""
    frozen, rewards = tree(5)
    expected = truth(frozen, rewards, 1.0)
    logits, values = frozen.clone().requires_grad_(), torch.zeros(NUMBER, dtype=torch.float64, requires_grad=True)
    errors = []
    for parameters, steps in (([values], 100), ([logits, values], 600)):
        optimiser = torch.optim.Adam(parameters, lr=0.05)
        for _ in range(steps):
            loss, sums = bellman_loss(
                logits[STATES], values[STATES], PROGRAMS, sampled(rewards), ALL, reference=frozen[STATES],
                advantage=0.0, likelihood=0.0,
            )  # fmt: skip
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        errors.append(float(sums["bellman"]))
    assert errors[1] < 1e-6 < errors[0]
    found = dueling(logits[STATES], values[STATES], PROGRAMS)
    torch.testing.assert_close(found.detach(), sampled(expected), atol=1e-3, rtol=0)


def test_the_next_state_is_that_before_the_next_written_token():
    rewards = torch.zeros(2, 4)
    greedy_q = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    mask = torch.tensor([[True, False, True, False], [False, True, True, True]])
    found = conservative_targets(rewards, greedy_q, mask, discount=0.5)
    assert found.tolist() == [[1.5, 0.0, 0.0, 0.0], [0.0, 3.5, 4.0, 0.0]]
    assert conservative_targets(rewards[:, :0], greedy_q[:, :0], mask[:, :0]).shape == (2, 0)


def test_what_does_not_fit_is_named():
    logits, flat, mask = torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    ids = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"values must be \(1, 2\) beside logits \(1, 2, 3\), got \(1, 1\)"):
        dueling(logits, flat[:, :1], ids)
    with pytest.raises(ValueError, match="scale must be above 0"):
        dueling(logits, flat, ids, scale=0.0)
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\]"):
        conservative_targets(flat, flat, mask, discount=1.5)
    with pytest.raises(ValueError, match=r"rewards must be \(n,\) or \(n, t\) beside mask \(1, 2\), got \(1, 1\)"):
        bellman_loss(logits, flat, ids, flat[:, :1], mask, reference=logits)
    with pytest.raises(ValueError, match=r"reference must be \(1, 2, 3\) like logits, got \(1, 2\)"):
        bellman_loss(logits, flat, ids, flat, mask, reference=flat)
