"""GFlowNet objectives on graphs small enough to know every flow."""

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import gflownet
from guerdon.objectives.gflownet import (
    amortised_numerator,
    converted,
    edge_balance,
    exploring,
    log_reward,
    reached,
    step_logp,
    subtrajectory_balance,
    trajectory_balance,
)

# A tree: all strings of two letters out of three.
V, L = 3, 2
STRINGS = torch.tensor(list(itertools.product(range(V), repeat=L)))
HERE = torch.ones(V**L, L, dtype=torch.bool)


def tree_rewards(seed=0):
    return torch.rand(V**L, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def forward_of(logits):
    """log P_F of both steps of every string; logits: one row for the root, one for each first letter."""
    table = logits.log_softmax(-1)
    return torch.stack([table[0, STRINGS[:, 0]], table[1 + STRINGS[:, 0], STRINGS[:, 1]]], 1)


def exact_logits(rewards):
    """The flow policy: a step's chance is the reward below it over the reward below its state."""
    leaves = rewards.reshape(V, V)
    return torch.cat([leaves.sum(1)[None], leaves]).log()


def test_gflowvlm_exact_flow_has_a_constant_zeta_and_no_loss():
    rewards = tree_rewards()
    forward = forward_of(exact_logits(rewards))
    zeta = forward.sum(1) - rewards.log()
    assert float(zeta.max() - zeta.min()) < 1e-14
    assert float(zeta[0]) == pytest.approx(-math.log(float(rewards.sum())))
    loss, sums = trajectory_balance(forward, rewards.log(), HERE)
    assert float(loss) < 1e-28
    assert float(sums["log_z"] / sums["trajectories"]) == pytest.approx(math.log(float(rewards.sum())))
    assert float(trajectory_balance(forward, rewards.log(), HERE, log_z=rewards.sum().log())[0]) < 1e-28
    # any tilt of the policy, or of log Z
    logits = exact_logits(rewards)
    logits[2, 1] += 0.01
    assert float(trajectory_balance(forward_of(logits), rewards.log(), HERE)[0]) > 1e-7
    assert float(trajectory_balance(forward, rewards.log(), HERE, log_z=rewards.sum().log() + 0.1)[0]) == pytest.approx(
        0.01
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_variance_form_is_the_variance_within_each_start(rows):
    generator = torch.Generator().manual_seed(len(rows))
    forward, backward = -torch.rand(2, len(rows), 3, generator=generator, dtype=torch.float64)
    rewards = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    lengths, groups, counted = zip(*rows, strict=True)
    mask = torch.arange(3) < torch.tensor(lengths)[:, None]
    rewards[~torch.tensor(counted)] = float("nan")  # abstained: its number is not looked at
    expected = 0.0
    for g in set(groups):
        own = [i for i in range(len(rows)) if groups[i] == g and counted[i]]
        zeta = [float(((forward - backward)[i, : lengths[i]]).sum() - rewards[i]) for i in own]
        expected += sum((z - sum(zeta) / len(zeta)) ** 2 for z in zeta)
    loss, sums = trajectory_balance(
        forward,
        rewards,
        mask,
        groups=torch.tensor(groups),
        backward_logp=backward,
        rows=torch.tensor(counted),
    )
    assert float(loss) == pytest.approx(expected / max(sum(counted), 1))
    assert float(sums["trajectories"]) == sum(counted)


def sample(logits, n, generator, uniform):
    """Strings drawn from a policy with some exploration."""
    behaviour = exploring(logits.detach(), uniform=uniform).exp()
    first = torch.multinomial(behaviour[0], n, replacement=True, generator=generator)
    second = torch.multinomial(behaviour[1 + first], 1, generator=generator)[:, 0]
    return first * V + second


def test_gflowvlm_var_tb_samples_in_proportion_to_the_reward_and_reinforce_does_not():
    rewards = tree_rewards(1)
    target = rewards / rewards.sum()
    ends = {}
    for name in ("var-tb", "reinforce"):
        logits = torch.zeros(1 + V, V, dtype=torch.float64, requires_grad=True)
        optimiser, generator = torch.optim.Adam([logits], lr=0.05), torch.Generator().manual_seed(0)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.995)
        for _ in range(1000 if name == "var-tb" else 300):
            rows = sample(logits, 16, generator, uniform=0.1 if name == "var-tb" else 0.0)
            forward = forward_of(logits)[rows]
            if name == "var-tb":
                loss, _ = trajectory_balance(forward, rewards.log()[rows], HERE[rows])
            else:
                loss = -(forward.sum(1) * (rewards[rows] - rewards[rows].mean())).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        ends[name] = forward_of(logits.detach()).sum(1).exp()
    assert 0.5 * (ends["var-tb"] - target).abs().sum() < 1e-6
    assert ends["reinforce"].max() > 0.9
    assert int(ends["reinforce"].argmax()) == int(rewards.argmax())


# Every prefix may stop: 1 + 3 + 9 objects.
def stopping(rewards_by_depth):
    """Forward and stop log-probabilities of the exact flow along every string, and log R of its states."""
    empty, one, two = rewards_by_depth
    below_one = one + two.sum(1)
    total = empty + below_one.sum()
    forward, stop, states = [], [], []
    for a, b in STRINGS.tolist():
        forward.append([below_one[a] / total, two[a, b] / below_one[a]])
        stop.append([empty / total, one[a] / below_one[a], torch.tensor(1.0, dtype=torch.float64)])
        states.append([empty, one[a], two[a, b]])
    return tuple(torch.stack([torch.stack(row) for row in rows]).log() for rows in (forward, stop, states))


def depths(seed=2):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1 for shape in ((), (V,), (V, V)))


def test_gflowvlm_subtb_and_db_are_zero_at_the_exact_flow():
    forward, stop, states = stopping(depths())
    for longest in (None, 1):
        assert float(subtrajectory_balance(forward, stop, states, HERE, longest=longest)[0]) < 1e-12
        tilted = stop + torch.tensor([0.1, 0.0, 0.0])
        assert float(subtrajectory_balance(forward, tilted, states, HERE, longest=longest)[0]) > 1e-3


@pytest.mark.parametrize("longest", [None, 1, 2])
def test_gflowvlm_subtb_is_its_definition(longest):
    generator = torch.Generator().manual_seed(3)
    forward, backward = -torch.rand(2, 2, 3, generator=generator, dtype=torch.float64)
    stop, states = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    lengths = [3, 2]
    mask = torch.arange(3) < torch.tensor(lengths)[:, None]
    expected, pairs = 0.0, 0
    for i, length in enumerate(lengths):
        total = weights = 0.0
        for a in range(length + 1):
            for b in range(a + 1, length + 1):
                if longest is not None and b - a > longest:
                    continue
                path = float(forward[i, a:b].sum() - backward[i, a:b].sum())
                left = float(states[i, a]) + path + float(stop[i, b])
                right = float(states[i, b]) + float(stop[i, a])
                total += 0.9 ** (b - a) * (left - right) ** 2
                weights += 0.9 ** (b - a)
                pairs += 1
        expected += total / weights / 2
    found, sums = subtrajectory_balance(forward, stop, states, mask, longest=longest, backward_logp=backward)
    assert float(found) == pytest.approx(expected)
    assert float(sums["pairs"]) == pairs


def test_gflowvlm_step_weighs_the_thought():
    action, thought = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-10.0, -30.0]])
    assert step_logp(action, thought, thought=0.0).tolist() == action.tolist()
    assert step_logp(action, thought, thought=1.0).tolist() == [[-11.0, -32.0]]
    assert step_logp(action, thought, thought=0.4)[0].tolist() == pytest.approx([-5.0, -14.0])
    lengths = torch.tensor([[5, 0]])
    assert step_logp(action, thought, thought=0.5, lengths=lengths)[0].tolist() == pytest.approx([-2.0, -17.0])
    with pytest.raises(ValueError, match=r"thought must be in \[0, 1\]"):
        step_logp(action, thought, thought=1.5)


def test_gflowvlm_rewards_become_positive():
    r = torch.tensor([-1.0, 0.0, 2.0])
    assert log_reward(r, temperature=0.5).tolist() == [-2.0, 0.0, 4.0]
    assert log_reward(r, kind="floor", floor=0.1).exp().tolist() == pytest.approx([0.1, 0.1, 2.0])
    with pytest.raises(ValueError, match="above 0"):
        log_reward(r, floor=0.0)


# A graph that is no tree: choose two of three items in any order; three outcomes, each reached along two paths.
ITEMS = 3
STATES = [(), (0,), (1,), (2,)]
OUTCOMES = [(0, 1), (0, 2), (1, 2)]
PATHS = [(a, b) for a in range(ITEMS) for b in range(ITEMS) if a != b]
NEW_REWARDS = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)


def number(items):
    return (STATES + OUTCOMES).index(tuple(sorted(items)))


def exact_flows():
    """log F(s|y) and log P_F(item|s, y) by dynamic programming, with a uniform backward policy."""
    flow = torch.zeros(len(STATES), len(OUTCOMES), dtype=torch.float64)
    forward = torch.zeros(len(STATES), len(OUTCOMES), ITEMS, dtype=torch.float64)
    for y, outcome in enumerate(OUTCOMES):
        for item in outcome:
            flow[number((item,)), y] = 0.5  # F(x|y) · P_B(s|x): an outcome has two parents
            (other,) = set(outcome) - {item}
            forward[number((item,)), y, other] = 1.0
            forward[0, y, item] = 0.5
        flow[0, y] = 1.0
    return flow.log(), forward.log()


def policy_ends(policy):
    """Chances of the three outcomes under a policy, log P(item|s)."""
    ends = torch.zeros(len(OUTCOMES), dtype=policy.dtype)
    for a, b in PATHS:
        ends[OUTCOMES.index(tuple(sorted((a, b))))] += (policy[0, a] + policy[number((a,)), b]).exp()
    return ends


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_oc_gfn_converts_to_a_new_reward_without_training(scale):
    flow, forward = exact_flows()
    policy = converted(flow, forward, (scale * NEW_REWARDS).log())
    assert policy_ends(policy).tolist() == pytest.approx([0.125, 0.25, 0.625], abs=1e-15)
    torch.testing.assert_close(policy.exp().sum(-1), torch.ones(len(STATES), dtype=torch.float64))


def test_oc_gfn_exact_flows_reach_every_outcome_and_have_no_loss():
    flow, forward = exact_flows()
    for y in range(len(OUTCOMES)):
        ends = policy_ends(forward[:, y])
        assert ends.tolist() == [float(x == y) for x in range(len(OUTCOMES))]
    columns = trajectories(flow, forward)
    loss, _ = edge_balance(*columns, torch.zeros(len(PATHS)), torch.ones(len(PATHS), 2, dtype=torch.bool))
    assert float(loss) < 1e-28


def trajectories(flow, forward):
    """log F, log P_F and log P_B along every path, each conditioned on where it ends."""
    found = []
    for a, b in PATHS:
        y = OUTCOMES.index(tuple(sorted((a, b))))
        s = number((a,))
        found.append(([flow[0, y], flow[s, y]], [forward[0, y, a], forward[s, y, b]], [0.0, math.log(0.5)]))
    return tuple(
        torch.stack([torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in row[k]]) for row in found])
        for k in range(3)
    )


def test_oc_gfn_contrastive_pretraining_learns_to_reach_what_it_is_told():
    """An explorer's paths relabelled as their own targets, and the conditioned policy's attempts at the same ones."""
    generator = torch.Generator().manual_seed(0)
    possible = torch.zeros(len(STATES), ITEMS, dtype=torch.float64)
    for a in range(ITEMS):
        possible[number((a,)), a] = -torch.inf
    flow = torch.zeros(len(STATES), len(OUTCOMES), dtype=torch.float64, requires_grad=True)
    logits = torch.zeros(len(STATES), len(OUTCOMES), ITEMS, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([flow, logits], lr=0.05)
    here, backward = torch.ones(16, 2, dtype=torch.bool), torch.tensor([1.0, 0.5]).log().expand(16, 2)

    def walk(policies):
        """Where eight policies, each P(item | state), end."""
        first = torch.multinomial(policies[:, 0], 1, generator=generator)
        second = torch.multinomial(policies[torch.arange(8), first[:, 0] + 1], 1, generator=generator)
        path = torch.cat([first, second], 1)
        return path, torch.tensor([OUTCOMES.index(tuple(sorted(p))) for p in path.tolist()])

    for _ in range(1000):
        found, target = walk(exploring(possible, uniform=1.0).exp().expand(8, -1, -1))
        table = (logits + possible[:, None]).log_softmax(-1)
        tried, end = walk(table.detach().exp().transpose(0, 1)[target])
        path, y = torch.cat([found, tried]), target.repeat(2)
        state = torch.stack([torch.zeros(16, dtype=torch.long), path[:, 0] + 1], 1)
        loss, _ = edge_balance(
            flow[state, y[:, None]],
            table[state, y[:, None], path],
            backward,
            torch.zeros(16),
            here,
            log_outcome=reached(torch.cat([target, end]), y),
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    table = (logits + possible[:, None]).log_softmax(-1).detach()
    success = [float(policy_ends(table[:, y])[y]) for y in range(len(OUTCOMES))]
    assert min(success) > 0.99
    policy = converted(flow.detach(), table, NEW_REWARDS.log())
    assert policy_ends(policy).tolist() == pytest.approx([0.125, 0.25, 0.625], abs=0.02)


def test_oc_gfn_amortised_numerator_at_zero_loss_is_the_exact_sum():
    flow, forward = exact_flows()
    rewards = NEW_REWARDS.log()
    terms = rewards[:, None] + flow[0, :, None] + forward[0]  # (outcome, item) at the root
    numerator = torch.zeros(ITEMS, dtype=torch.float64, requires_grad=True)
    sampler = torch.zeros(len(OUTCOMES), ITEMS, dtype=torch.float64, requires_grad=True)
    possible = terms > -torch.inf
    optimiser = torch.optim.Adam([numerator, sampler], lr=0.1)
    for _ in range(600):
        logp = torch.where(possible, sampler, -torch.inf).log_softmax(0)
        shape = logp[possible].shape
        loss = amortised_numerator(
            numerator.expand_as(logp)[possible],
            logp[possible],
            rewards[:, None].expand_as(logp)[possible],
            flow[0, :, None].expand_as(logp)[possible],
            forward[0][possible],
        )
        assert loss.shape == shape
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    torch.testing.assert_close(numerator.detach(), terms.logsumexp(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        numerator.detach().log_softmax(0), converted(flow, forward, rewards)[0], atol=1e-4, rtol=0
    )


def test_edges_balance_a_plain_gflownet_too():
    """Detailed balance on the tree: F of a state is the reward below it."""
    rewards = tree_rewards(4)
    below = rewards.reshape(V, V).sum(1)
    forward = forward_of(exact_logits(rewards))
    flow = torch.stack([rewards.sum().expand(V**L), below[STRINGS[:, 0]]], 1).log()
    zero = torch.zeros_like(forward)
    assert float(edge_balance(flow, forward, zero, rewards.log(), HERE)[0]) < 1e-28
    # rows that end early take log_end where they end
    short = torch.tensor([[True, False]])
    loss, sums = edge_balance(torch.tensor([[1.0, 9.0]]), *[torch.zeros(1, 2)] * 2, torch.tensor([0.5]), short)
    assert (float(loss), float(sums["steps"])) == (0.25, 1.0)


@pytest.mark.parametrize("place", ["end", "edges"])
def test_flows_of_rollouts_balance_over_the_tokens_that_the_policy_wrote(place):
    """Against the definition: one row begins with what it was given, one has that in its midst, one has no score."""
    torch.manual_seed(0)
    written = [[1, 2, 3], [0, 3], [0, 1, 2, 3], [0], []]
    mask = torch.tensor([[t in row for t in range(4)] for row in written])
    logp, ref, values = (torch.randn(5, 4, dtype=torch.float64) for _ in range(3))
    rewards = torch.tensor([1.0, 0.5, 0.0, 0.0, 7.0], dtype=torch.float64)
    log_r = [0.0, math.log(0.5), math.log(0.1), math.log(0.1)]
    edges, parts = [], []
    for i, row in enumerate(written[:4]):
        flow = [*values[i, row].tolist(), log_r[i] if place == "end" else 0.0]
        step = [float(logp[i, t] - ref[i, t]) - (log_r[i] if place == "edges" else 0.0) for t in row]
        edges += [(flow[k] + step[k] - flow[k + 1]) ** 2 for k in range(len(row))]
        pairs = [(j, k) for j in range(len(row) + 1) for k in range(j + 1, min(j + 2, len(row)) + 1)]
        terms = [0.5 ** (k - j) * (flow[j] + sum(step[j:k]) - flow[k]) ** 2 for j, k in pairs]
        parts.append(sum(terms) / sum(0.5 ** (k - j) for j, k in pairs))
    chosen = {"values": values, "ref_logp": ref, "place": place, "kind": "floor", "floor": 0.1}
    loss, sums = gflownet.reward_edge_balance(logp, rewards, mask, **chosen)
    assert float(loss) == pytest.approx(sum(edges) / len(edges), rel=1e-9)
    start = sum(float(values[i, row[0]]) for i, row in enumerate(written[:4]))
    found = {name: float(value) for name, value in sums.items()}
    assert found == pytest.approx({"tokens": 10, "edge_error": sum(edges), "trajectories": 4, "log_z": start})
    rows = mask.any(1)
    loss, sums = gflownet.reward_subtrajectory_balance(logp, rewards, mask, rows=rows, decay=0.5, longest=2, **chosen)
    assert float(loss) == pytest.approx(sum(parts) / 4, rel=1e-9)
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(
        {"tokens": 10, "trajectories": 4, "log_z": start}
    )


def test_converting_where_nothing_can_be_reached_gives_no_action_a_chance():
    flow = torch.full((1, 2), -torch.inf)
    found = converted(flow, torch.zeros(1, 2, 3), torch.zeros(2))
    assert (found == -torch.inf).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=5), st.floats(0.1, 10), st.floats(0, 1))
def test_exploring_mixes_a_tempered_policy_with_a_uniform_one(logits, temperature, uniform):
    z = torch.tensor([*logits, -torch.inf], dtype=torch.float64)
    found = exploring(z, temperature=temperature, uniform=uniform).exp()
    weights = [math.exp((x - max(logits)) / temperature) for x in logits]
    expected = [(1 - uniform) * w / sum(weights) + uniform / len(logits) for w in weights]
    assert found.tolist() == pytest.approx([*expected, 0.0], abs=1e-12)


def test_what_does_not_fit_is_named():
    flat, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"log_reward must be \(2,\) beside mask \(2, 3\), got \(3,\)"):
        trajectory_balance(flat, torch.zeros(3), mask)
    with pytest.raises(ValueError, match="log_z must be a scalar"):
        trajectory_balance(flat, torch.zeros(2), mask, log_z=torch.zeros(3))
    with pytest.raises(ValueError, match=r"stop_logp must be \(2, 4\), one per state, got \(2, 3\)"):
        subtrajectory_balance(flat, flat, flat, mask)
    states = torch.zeros(2, 4)
    run = partial(subtrajectory_balance, flat, states, states)
    with pytest.raises(ValueError, match="decay must be"):
        run(mask, decay=0.0)
    hole = torch.tensor([[True, False, True], [True, True, True]])
    with pytest.raises(ValueError, match="mask has a hole"):
        run(hole)
    with pytest.raises(ValueError, match="mask has a hole"):
        edge_balance(flat, flat, flat, torch.zeros(2), hole)
    with pytest.raises(ValueError, match="do not fit"):
        converted(torch.zeros(2), torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="one shape"):
        amortised_numerator(*[torch.zeros(2)] * 4, torch.zeros(3))
    with pytest.raises(ValueError, match="floor must be above 0"):
        reached(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), floor=0.0)
    with pytest.raises(ValueError, match=r"uniform in \[0, 1\]"):
        gflownet.exploring(torch.zeros(2), uniform=2.0)
