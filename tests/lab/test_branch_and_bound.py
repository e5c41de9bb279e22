"""Branch and bound whose variables are chosen by a network that reads revived trajectories, their return shared out."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from branch_and_bound import Episode, Knapsack, at_random, random_knapsack, relax, solve
from torch import nn

from guerdon.credit import redistribute

ITEMS, WIDTH = 8, 24


@pytest.mark.parametrize("seed", range(6))
def test_the_best_filling_is_found_whoever_branches(seed):
    rng = np.random.default_rng(seed)
    problem = random_knapsack(rng, 7)
    fillings = np.array([[(i >> j) & 1 for j in range(7)] for i in range(2**7)])
    fits = fillings @ problem.weights <= problem.capacity
    found = solve(problem, at_random(rng))
    assert found.best == pytest.approx((fillings @ problem.values)[fits].max())
    assert found.nodes == 2 * len(found) + 1


def test_the_relaxation_fills_by_worth_and_bounds_every_filling():
    problem = Knapsack(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 1.0]), 1.5)
    bound, x = relax(problem, np.full(3, -1))
    assert bound == 4.0
    assert x.tolist() == [1.0, 0.5, 0.0]
    assert relax(problem, np.array([1, 1, -1])) is None


def way(episode, row):
    """The branchings from the root to this one."""
    path = [row]
    while episode.parents[path[-1]] >= 0:
        path.append(episode.parents[path[-1]])
    return path[::-1]


def ways(episode):
    """All ways from the root to branchings below which there is none, padded with −1: the trajectories."""
    rows = [way(episode, row) for row in range(len(episode)) if row not in episode.parents]
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)


class Reviver(nn.Module):
    """Values of the free items at a node, from the graphs and choices on its way from the root.

    A graph of items and the one constraint is passed over once; a step is its mean item, the item chosen and its
    depth; the node attends to the steps above it and to itself.
    """

    def __init__(self):
        super().__init__()
        self.item, self.constraint = nn.Linear(6, WIDTH), nn.Linear(2, WIDTH)
        self.to_constraint, self.to_items = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.depth = nn.Embedding(ITEMS + 1, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 1, batch_first=True)
        self.value = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def graphs(self, episode):
        items, constraint, edges = (
            torch.tensor(np.stack(x), dtype=torch.float32)
            for x in (episode.variables, episode.constraint, episode.edges)
        )
        items, constraint = self.item(items).relu(), self.constraint(constraint).relu()
        constraint = constraint + self.to_constraint((edges[..., None] * items).sum(1)).relu()
        return items + self.to_items(edges[..., None] * constraint[:, None]).relu()

    def tokens(self, episode, items):
        """Each branching's state, and the same with its choice."""
        depths = []
        for parent in episode.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        states = items.mean(1) + self.depth(torch.tensor(depths))
        known = len(episode.actions)
        steps = states[:known] + items[torch.arange(known), torch.tensor(episode.actions, dtype=torch.long)]
        return states, steps

    def forward(self, episode, rows):
        """Q of every item at these branchings; −∞ where it is fixed."""
        items = self.graphs(episode)
        states, steps = self.tokens(episode, items)
        queries = states[rows][:, None]
        paths = [way(episode, row)[:-1] for row in rows]
        above = torch.zeros(len(rows), max(map(len, paths)), WIDTH)
        padding = torch.ones(above.shape[:2], dtype=torch.bool)
        for i, path in enumerate(paths):
            above[i, : len(path)], padding[i, : len(path)] = steps[path], False
        seen = torch.cat([above, queries], 1)
        padding = torch.cat([padding, torch.zeros(len(rows), 1, dtype=torch.bool)], 1)
        revived = queries + self.attention(queries, seen, seen, key_padding_mask=padding, need_weights=False)[0]
        values = self.value(torch.cat([items[rows], revived.expand(-1, ITEMS, -1)], 2))[..., 0]
        return values.masked_fill(~torch.tensor(np.stack([episode.free[row] for row in rows])), -torch.inf)

    @torch.no_grad()
    def importance(self, episode, paths):
        """The log of the attention that the last branching of each path pays to each of its branchings."""
        _, tokens = self.tokens(episode, self.graphs(episode))
        there = paths >= 0
        steps = tokens[paths.clamp(min=0)]
        last = steps[torch.arange(len(paths)), there.sum(1) - 1][:, None]
        _, weights = self.attention(last, steps, steps, key_padding_mask=~there)
        return weights[:, 0].clamp(min=1e-9).log()

    @torch.no_grad()
    def choose(self, episode):
        """The item of the highest value; of all that is on record only the way from the root is revived."""
        path = way(episode, len(episode.parents) - 1)
        revived = Episode(
            *([column[row] for row in path] for column in (episode.variables, episode.constraint, episode.edges)),
            free=[episode.free[row] for row in path],
            actions=[episode.actions[row] for row in path[:-1]],
            parents=list(range(-1, len(path) - 1)),
        )
        return int(self(revived, [len(path) - 1])[0].argmax())


def bound_gains(network, episode, paths):
    """The log of the product by which the bound fell on both sides, in standard units."""
    gains = torch.tensor(episode.gains).log()
    return ((gains - gains.mean()) / (gains.std() + 1e-6))[paths.clamp(min=0)]


def spared(episode):
    """The share of the full tree's depth that was not needed: log₂ of the nodes, from 1 (the root alone) to 0."""
    return 1 - np.log2(episode.nodes) / (ITEMS + 1)


def learn(network, episodes, importance, outcome, rng):
    """Double Q-learning: a replayed episode is its trajectories, each with the return shared out among its steps."""
    target = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for update in range(40):
        episode = episodes[rng.integers(len(episodes))]
        paths, rows = ways(episode), list(range(len(episode)))
        there = paths >= 0
        total = torch.full((len(paths),), float(outcome(episode)))
        rewards = redistribute(total, importance(network, episode, paths).float(), there)
        assert torch.allclose(rewards.sum(1), total, atol=1e-5)
        assert not rewards[~there].any()
        values = network(episode, rows)
        with torch.no_grad():
            best = values.argmax(1, keepdim=True)
            worth = target(episode, rows).gather(1, best)[:, 0]
        following = nn.functional.pad(paths[:, 1:], (0, 1), value=-1)
        wanted = rewards + torch.where(following >= 0, worth[following.clamp(min=0)], 0)
        taken = values[torch.arange(len(episode)), torch.tensor(episode.actions)][paths.clamp(min=0)]
        loss = nn.functional.smooth_l1_loss(taken[there], wanted[there])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % 10 == 9:
            target.load_state_dict(network.state_dict())


@pytest.mark.parametrize("score", ["attention", "bound gain"])
def test_revibranch_a_brancher_learned_from_revived_trajectories_visits_fewer_nodes_than_chance(score):
    """On held-out problems, in geometric means; the attention shares out a loss, the gains of the bound a win."""
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Reviver()
    episodes = [solve(random_knapsack(rng, ITEMS), at_random(rng)) for _ in range(20)]
    episodes = [episode for episode in episodes if len(episode) > 1]
    if score == "attention":
        learn(network, episodes, Reviver.importance, lambda episode: spared(episode) - 1, rng)
    else:
        learn(network, episodes, bound_gains, spared, rng)
    problems = [random_knapsack(rng, ITEMS) for _ in range(10)]
    chance, learned = ([solve(p, choose).nodes for p in problems] for choose in (at_random(rng), network.choose))
    assert np.mean(np.log(learned)) < np.mean(np.log(chance)) - np.log(1.5)


def test_revibranch_a_revived_trajectory_is_the_way_from_the_root():
    episode = solve(random_knapsack(np.random.default_rng(1), ITEMS), at_random(np.random.default_rng(2)))
    for path in ways(episode).tolist():
        path = [row for row in path if row >= 0]
        assert [episode.parents[row] for row in path] == [-1, *path[:-1]]
        for above, below in pairwise(path):
            decided = ~episode.free[above]
            decided[episode.actions[above]] = True
            assert (~episode.free[below] == decided).all()


def test_revibranch_a_node_s_values_depend_on_its_way_and_on_nothing_beside_it():
    """Reviving one row of an episode, or all, or after further branchings elsewhere, gives the same values."""
    torch.manual_seed(0)
    network = Reviver()
    episode = solve(random_knapsack(np.random.default_rng(1), ITEMS), at_random(np.random.default_rng(2)))
    row = max(range(len(episode)), key=lambda r: len(way(episode, r)))
    with torch.no_grad():
        whole, alone = network(episode, list(range(len(episode))))[row], network(episode, [row])[0]
        assert torch.allclose(whole, alone, atol=1e-5)
        earlier = copy.deepcopy(episode)
        beside = next(r for r in range(len(episode)) if r not in way(episode, row))
        earlier.actions[beside] = int(np.flatnonzero(episode.free[beside])[0])
        assert torch.equal(network(earlier, [row])[0], alone)
        above = way(episode, row)[0]
        earlier.actions[above] = (episode.actions[above] + 1) % ITEMS
        assert not torch.allclose(network(earlier, [row])[0], alone, atol=1e-6)
