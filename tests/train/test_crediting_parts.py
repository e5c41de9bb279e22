"""Advantages from several parts of a reward, against their equations written out row by row."""

import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from guerdon.algebra import reduce, reward, spec
from guerdon.core import Rollouts, Scores, Spans, Tokens
from guerdon.core.errors import RecipeError
from guerdon.credit import (
    budget_relative,
    fork_relative,
    grounded_rewards,
    group_relative,
    progress,
    redistribute,
    returns,
    smooth,
    spread,
    step_potential,
    tree_rewards,
    whiten,
)
from guerdon.train import chains, presets
from guerdon.train.method import KL, Sum
from guerdon.train.scoring import credited

NONE = {"baseline": "none", "scale": "none"}


def written(lengths, *, groups, ids=None):
    """Rollouts of so many tokens, all of them written by the policy."""
    width = max(lengths)
    there = np.arange(width) < np.asarray(lengths)[:, None]
    numbers = np.tile(np.arange(width) + 3, (len(lengths), 1)) if ids is None else np.asarray(ids)
    tokens = Tokens(np.where(there, numbers, 0), there, there)
    return Rollouts(["p"] * len(lengths), ["c"] * len(lengths), groups=np.asarray(groups), tokens=tokens)


def by_steps(rows, values, *, without=(), asked=None):
    """Scores of steps, token ranges and numbers given row by row; some rows abstain in their last step."""
    spans = Spans.of(rows)
    numbers, valid = np.zeros(spans.mask.shape), spans.mask.copy()
    for i, row in enumerate(values):
        numbers[i, : len(row)] = row
    for i in without:
        valid[i, len(rows[i]) - 1] = False
    mask = spans.mask if asked is None else spans.mask & np.asarray(asked)[:, None]
    reasons = dict.fromkeys(without, "no judge")
    return Scores(numbers, mask=mask, spans=spans, valid=valid & mask, reasons=reasons)


def by_tokens(values, **options):
    """Scores of single tokens."""
    return by_steps([[(t, t + 1) for t in range(len(row))] for row in values], values, **options)


def of(total=None, **parts):
    """The scores of a reward with these parts; the first that is of rollouts is the whole."""
    total = next(s for s in parts.values() if s.level == "rollout") if total is None else total
    return total.with_values(total.read(0.0), parts=parts)


def method_of(*chain):
    return replace(presets.grpo, credit=chain, kl=KL())


ROWS = [[0.3, -0.1, 0.2], [0.5, 0.4], [-0.2], [0.1, 0.1, 0.1], [0.7], [0.2, 0.9]]
SOLVED = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
GROUPS = [0, 0, 0, 0, 1, 1]
BATCH = written([3, 2, 1, 3, 1, 2], groups=GROUPS)


def prime_by_hand(rows, solved, groups):
    """PRIME: each source less the mean of the other rollouts, from each token on, summed and whitened."""
    largest = max(abs(sum(row[t:])) for row in rows for t in range(len(row))) + 1e-6
    rows = [[x / largest for x in row] for row in rows]
    means = [statistics.fmean(row) for row in rows]
    found = []
    for i, row in enumerate(rows):
        group = [j for j in range(len(rows)) if groups[j] == groups[i]]
        factor = len(group) / (len(group) - 1)
        centred = [factor * (x - statistics.fmean(means[j] for j in group)) for x in row]
        verified = solved[i] - statistics.fmean(solved[j] for j in group if j != i)
        found.append([sum(centred[t:]) + verified for t in range(len(row))])
    pooled = [x for row in found for x in row]
    mean, scale = statistics.fmean(pooled), math.sqrt(statistics.variance(pooled) + 1e-8)
    return [[(x - mean) / scale for x in row] for row in found]


def padded(rows, width):
    return [[*row, *[0.0] * (width - len(row))] for row in rows]


def test_prime_credit_of_a_batch_is_its_definition():
    found = credited(presets.prime, BATCH, of(outcome=Scores.of(SOLVED), process=by_tokens(ROWS)))
    np.testing.assert_allclose(found, padded(prime_by_hand(ROWS, SOLVED, GROUPS), 3), rtol=1e-5, atol=1e-8)


def test_prime_worked_example_without_an_implicit_reward():
    solved = Scores.of([1.0, 0.0, 0.0, 0.0])
    parts = of(outcome=solved, process=by_tokens([[0.0, 0.0]] * 4))
    [total, _] = presets.prime.credit
    found = credited(method_of(total), written([2] * 4, groups=[0] * 4), parts)
    np.testing.assert_allclose(found, [[1.0, 1.0], *[[-1 / 3, -1 / 3]] * 3])


def test_a_rollout_on_which_one_part_abstains_is_in_no_statistic_of_any():
    parts = of(outcome=Scores.of(SOLVED), process=by_tokens(ROWS, without=[1]))
    found = credited(presets.prime, BATCH, parts)
    keep = [0, 2, 3, 4, 5]
    rest = prime_by_hand([ROWS[i] for i in keep], [SOLVED[i] for i in keep], [GROUPS[i] for i in keep])
    np.testing.assert_array_equal(found[1], 0.0)
    np.testing.assert_allclose(found[keep], padded(rest, 3), rtol=1e-5, atol=1e-8)
    of_outcome = Scores.of([*SOLVED[:1], None, *SOLVED[2:]], reasons={1: "late"})
    other = of(Scores.of(SOLVED), outcome=of_outcome, process=by_tokens(ROWS))
    np.testing.assert_allclose(credited(presets.prime, BATCH, other), found, rtol=1e-12)


def test_a_part_that_is_not_asked_for_adds_nothing_and_is_in_no_statistic():
    asked = [True, True, False, True, False, False]
    scores = of(
        outcome=Scores.of(SOLVED), process=by_steps([[(0, 1)]] * 6, [[x] for x in (3, 1, 9, 5, 9, 9)], asked=asked)
    )
    total = Sum({"outcome": group_relative_none(), "process": partial_of(group_relative, scale="none")})
    found = credited(method_of(total), BATCH, scores)
    np.testing.assert_allclose(found[:, 0], [1.0 + 0.0, 0.0 - 2.0, 0.0, 1.0 + 2.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found[:, 1], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], atol=1e-12)


def test_a_part_adds_nothing_where_it_is_not_asked_for_also_if_its_chain_knows_no_mask():
    process = Scores(np.array([1.0, 9.0]), mask=np.array([True, False]))
    total = Sum({"outcome": group_relative_none(), "process": lambda rewards: rewards + 5})
    found = credited(
        method_of(total), written([1, 1], groups=[0, 0]), of(outcome=Scores.of([1.0, 0.0]), process=process)
    )
    np.testing.assert_array_equal(found, [7.0, 0.0])


def partial_of(function, **options):
    return presets.load("grpo", credit={"part": f"credit.{function.__name__}", **options}).credit


def group_relative_none():
    return partial_of(group_relative, **NONE)


def test_a_sum_of_rollouts_stays_one_value_per_rollout():
    parts = of(first=Scores.of([1.0, 0.0, 2.0]), second=Scores.of([0.5, 0.5, -1.0]))
    batch = written([1, 2, 3], groups=[0, 0, 0])
    total = Sum({"first": group_relative_none(), "second": group_relative_none()})
    np.testing.assert_array_equal(credited(method_of(total), batch, parts), [1.5, 0.5, 1.0])
    found = credited(method_of(total, spread), batch, parts)
    np.testing.assert_array_equal(found, [[1.5, 0, 0], [0, 0.5, 0], [0, 0, 1.0]])


def test_istar_adds_the_episode_and_its_steps():
    """Worked by hand: episodes ±1; steps less the pooled mean 0.3, times 3 over the others' count."""
    rows = [[(0, 2), (2, 3)], [(0, 2)]]
    parts = of(outcome=Scores.of([1.0, 0.0]), process=by_steps(rows, [[0.2, 0.4], [0.3]]))
    found = credited(presets.istar, written([3, 2], groups=[0, 0]), parts)
    np.testing.assert_allclose(found, [[0.7, 0.7, 1.3], [-1.0, -1.0, 0.0]], atol=1e-6)


def test_igpo_normalises_gains_of_turns_and_outcomes_together():
    """Potentials from the prompt on; the last turn has the outcome in place of its gain."""
    rows = [[(0, 0), (0, 2), (2, 3), (3, 4)], [(0, 0), (0, 1), (1, 3)]]
    parts = of(outcome=Scores.of([1.0, 0.0]), potentials=by_steps(rows, [[0.1, 0.3, 0.25, 0.6], [0.1, 0.2, 0.9]]))
    found = credited(presets.igpo, written([4, 3], groups=[0, 0]), parts)
    pooled = [0.2, -0.05, 1.0, 0.1, 0.0]
    a = [(x - statistics.fmean(pooled)) / statistics.stdev(pooled) for x in pooled]
    first, second = [sum(a[:3]), sum(a[1:3]), a[2]], [a[3] + a[4], a[4]]
    expected = [[first[0], first[0], first[1], first[2]], [second[0], second[1], second[1], 0.0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_igpo_a_group_of_failures_still_teaches():
    rows = [[(0, 0), (0, 1), (1, 2)]] * 2
    parts = of(outcome=Scores.of([0.0, 0.0]), potentials=by_steps(rows, [[0.1, 0.5, 0.5], [0.1, 0.2, 0.2]]))
    found = credited(presets.igpo, written([2, 2], groups=[0, 0]), parts)
    assert found[0, 0] > 0 > found[1, 0]


def test_spae_damps_the_groups_advantage_behind_the_answer_and_pays_progress():
    rows = [[(0, 1), (1, 3), (3, 4)], [(0, 2)]]
    potentials = by_steps(rows, [[0.2, 0.95, 1.0], [0.1]])
    found = credited(
        presets.spae, written([4, 2], groups=[0, 0]), of(outcome=Scores.of([1.0, 0.0]), potentials=potentials)
    )
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    second, third = a * 0.5 + 0.5 * 0.75, a * 0.5 + 0.5 * 0.05
    np.testing.assert_allclose(found, [[a, second, second, third], [-a, -a, 0.0, 0.0]], rtol=1e-5)


def test_spae_potential_of_two_parts_is_its_worked_example():
    rows = [[(0, 1), (1, 2), (2, 3)]]
    parts = of(
        Scores.of([1.0]), accuracy=by_steps(rows, [[1.0, 0.0, 0.5]]), confidence=by_steps(rows, [[1.0, 1.0, 0.5]])
    )
    found = credited(method_of(Sum({"accuracy": step_potential})), written([3], groups=[0]), parts)
    np.testing.assert_allclose(found, [[1.0, -1.0, 0.125]])


def test_revibranch_a_reward_is_shared_out_by_another_part():
    rows = [[(0, 1), (1, 3)], [(0, 2), (2, 3)]]
    parts = of(outcome=Scores.of([6.0, -4.0]), importance=by_steps(rows, [[0.0, 0.0], [math.log(3.0), 0.0]]))
    batch = written([3, 3], groups=[0, 0])
    for chain in [(redistribute,), (Sum({"outcome": redistribute}),)]:  # the whole is the outcome here
        found = credited(method_of(*chain), batch, parts)
        np.testing.assert_allclose(found, [[3.0, 3.0, 3.0], [-3.0, -3.0, -1.0]])
    found = credited(method_of(redistribute, partial_of(spread, place="last"), returns), batch, parts)
    np.testing.assert_allclose(found, [[6.0, 3.0, 3.0], [-4.0, -4.0, -1.0]])


def test_spa_reads_flags_from_scores_above_a_half():
    rows = [[(0, 1), (1, 2), (2, 3)]]
    parts = of(
        Scores.of([0.0]), progress=by_steps(rows, [[0.25, 0.75, 0.1]]), executed=by_steps(rows, [[0.4, 0.6, 0.0]])
    )
    found = credited(method_of(Sum({"progress": grounded_rewards})), written([3], groups=[0]), parts)
    np.testing.assert_allclose(found, [[0.25, 1.25, 0.6]])  # the last action counts as carried out


A, B, X, Y = 4, 5, 6, 7
FORKS = [[A, X], [A, Y], [B, X], [B, Y]]


def test_portool_forks_are_compared_with_their_siblings_by_the_prefixes_of_tokens():
    """Root forks a, b; below a rewards 1 and 0, below b none: ±0.707 at the root and below a, 0 below b."""
    batch, scores = written([2] * 4, groups=[0] * 4, ids=FORKS), Scores.of([1.0, 0.0, 0.0, 0.0])
    found = credited(method_of(partial_of(tree_rewards, gamma=1.0), fork_relative), batch, scores)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found, [[half, half], [half, -half], [-half, 0.0], [-half, 0.0]], atol=1e-5)


def test_portool_trajectory_and_fork_advantages_of_steps_add_up():
    """Steps of two tokens and of one; the second group has the same tokens and is another tree."""
    ids = [[A, A, X], [A, A, Y], [B, A, X], [B, A, X]] * 2
    rows = [[(0, 2), (2, 3)]] * 8
    formats = by_steps(rows, [[0.0, 0.0]] * 7 + [[0.0, 0.5]])
    outcome = Scores.of([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    chain = Sum(
        {"again": partial_of(group_relative, eps=0.0), "outcome": (partial_of(tree_rewards, gamma=1.0), fork_relative)}
    )
    scores = of(outcome, outcome=outcome, again=outcome, formats=formats)
    found = credited(method_of(chain), written([3] * 8, groups=[0] * 4 + [1] * 4, ids=ids), scores)
    half = math.sqrt(0.5)
    forks = np.array([[half, half, half], [half, half, -half], [-half, -half, 0.0], [-half, -half, 0.0]])
    np.testing.assert_allclose(found[:4], np.array([[1.5], [-0.5], [-0.5], [-0.5]]) + forks, atol=1e-5)
    np.testing.assert_allclose(found[4:, :2], 0.0, atol=1e-5)


def test_steps_that_share_a_prefix_but_not_their_bounds_are_different():
    seen = []

    def spy(values, nodes):
        seen.append(nodes.tolist())
        return values

    rows = [[(0, 1), (1, 2)], [(0, 2)], [(0, 1), (1, 2)], [(0, 0), (0, 1)]]
    batch = written([2, 2, 2, 1], groups=[0, 0, 0, 0], ids=[[A, X], [A, X], [A, Y], [A, 0]])
    credited(method_of(spy), batch, by_steps(rows, [[0.0, 0.0], [0.0], [0.0, 0.0], [0.0, 0.0]]))
    [[(a, ax), (whole, none), (a_too, ay), (empty, a_as_well)]] = seen
    assert a == a_too == a_as_well
    assert len({a, ax, whole, ay, empty}) == 5
    assert none == -1


def test_steps_of_two_groups_are_never_the_same():
    seen = []

    def spy(values, nodes):
        seen.extend(nodes.flatten().tolist())
        return values

    rows = [[(0, 0), (0, 1), (1, 1)]] * 2
    credited(method_of(spy), written([1, 1], groups=[0, 1], ids=[[A], [A]]), by_steps(rows, [[0.0] * 3] * 2))
    assert len(set(seen)) == 6


def test_a_step_that_reaches_over_the_padding_ends_where_its_rollout_does():
    seen = []

    def spy(values, nodes):
        seen.extend(nodes.flatten().tolist())
        return values

    batch = written([1, 1, 1, 3], groups=[0] * 4, ids=[[A, 0, 0], [B, 0, 0], [A, 0, 0], [A, X, Y]])
    credited(method_of(spy), batch, by_steps([[(0, 3)]] * 4, [[0.0]] * 4))
    assert seen[0] == seen[2]
    assert len(set(seen)) == 3


def test_a_batch_without_a_step_has_the_outcome_alone():
    nothing = by_steps([[], []], [[], []])
    scores = of(outcome=Scores.of([1.0, 0.0]), potentials=nothing, formats=nothing)
    chains = {"outcome": group_relative_none(), "potentials": (progress, returns, fork_relative)}
    found = credited(method_of(Sum(chains)), written([2, 1], groups=[0, 0]), scores)
    np.testing.assert_array_equal(found, [[1.0, 1.0], [0.0, 0.0]])
    found = credited(method_of(tree_rewards), written([2, 1], groups=[0, 0]), scores)
    np.testing.assert_array_equal(found, [[0.0, 0.0], [0.0, 0.0]])


def test_nodes_leave_out_rollouts_without_a_score():
    batch, scores = written([2] * 3, groups=[0] * 3, ids=[[A, X], [A, B], [A, Y]]), Scores.of([1.0, None, 0.0])
    found = credited(method_of(partial_of(tree_rewards, gamma=1.0), fork_relative), batch, scores)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found, [[0.0, half], [0.0, 0.0], [0.0, -half]], atol=1e-5)


def test_brpo_budgets_are_steps_and_the_prior_an_option():
    """r = (0, 0, 1, 1) and (0, 1, 1, 1): the worked example; then all on the last budget, as GRPO has it."""
    rows = [[(0, 1), (1, 2), (2, 3), (3, 4)], [(0, 1), (1, 2), (2, 2), (2, 2)]]
    batch = written([4, 2], groups=[0, 0])
    scores = by_steps(rows, [[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    found = credited(method_of(budget_relative), batch, scores)
    np.testing.assert_allclose(found, [[-0.125, 0.031, 0.25, 0.080], [0.125, 0.281, 0.0, 0.0]], atol=6e-4)
    last = partial_of(budget_relative, prior=[0, 0, 0, 1], baseline="group")
    wrong = by_steps(rows, [[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    np.testing.assert_allclose(credited(method_of(last), batch, wrong), [[0.5] * 4, [-0.5, -0.5, 0.0, 0.0]])


def test_pcpg_windows_of_tokens_come_back_to_tokens():
    found = credited(
        method_of(partial_of(smooth, width=3, stride=2)), written([4], groups=[0]), by_tokens([[1.0, 2.0, 3.0, 4.0]])
    )
    np.testing.assert_allclose(found, [[2 / 3, 2 / 3, 2 / 3 + 3.5 / 2, 3.5 / 2]])


def test_the_kl_of_a_rollout_is_taken_from_its_outcome_alone():
    batch = written([2, 2], groups=[0, 1])
    logp = np.array([[-1.0, -2.0], [-0.5, -0.5]])
    batch = replace(batch, tokens=replace(batch.tokens, logp=logp, ref_logp=logp - [[0.5, 0.25], [1.0, 0.0]]))
    method = replace(
        method_of(Sum({"outcome": group_relative_none(), "process": group_relative_none()})),
        kl=KL(0.1, kind="k1", place="reward"),
    )
    parts = of(outcome=Scores.of([1.0, 0.0]), process=by_steps([[(0, 1)], [(1, 2)]], [[3.0], [5.0]]))
    found = credited(method, batch, parts)
    np.testing.assert_allclose(found, [[3.925, 0.925], [-0.1, 4.9]])


def test_parts_that_are_read_together_are_cut_into_the_same_steps():
    rows, other = [[(0, 1), (1, 2)], [(0, 2)]], [[(0, 1), (1, 2)], [(0, 1)]]
    batch = written([2, 2], groups=[0, 0])
    parts = of(
        Scores.of([1.0, 1.0]),
        accuracy=by_steps(rows, [[1.0, 1.0], [1.0]]),
        confidence=by_steps(other, [[1.0, 1.0], [1.0]]),
    )
    with pytest.raises(RecipeError, match="row 1 is cut into other steps by 'confidence'"):
        credited(method_of(Sum({"accuracy": step_potential})), batch, parts)
    wider = by_steps([*rows[:1], [(0, 2)], [(0, 1), (1, 2), (2, 3)]], [[1.0, 1.0], [1.0], [1.0] * 3], without=[2])
    narrow = by_steps([*rows, []], [[1.0, 1.0], [1.0], []])
    three = written([2, 2, 3], groups=[0, 0, 0])
    found = credited(
        method_of(Sum({"accuracy": step_potential})), three, of(Scores.of([1.0] * 3), accuracy=narrow, confidence=wider)
    )
    np.testing.assert_allclose(found, [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0] * 3])


def test_a_part_beside_tokens_has_its_value_on_each_token_of_a_step():
    parts = of(outcome=Scores.of([1.0]), executed=by_steps([[(0, 2), (2, 3)]], [[1.0, 0.0]]))
    found = credited(method_of(Sum({"outcome": (spread, grounded_rewards)})), written([4], groups=[0]), parts)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.0, 1.5]])  # the last token counts as carried out


@reward(lane="batch", level="step", range=(0, 1))
def steps(rollouts):
    return by_steps([], [])


@reward(lane="batch", range=(0, 1))
def whole(rollouts):
    return Scores(np.zeros(len(rollouts)))


REWARD = whole().named("outcome") + 0.0 * reduce(steps().named("process"), "sum")
SUM = Sum({"outcome": group_relative, "process": (group_relative, returns)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"credit": Sum({"outcom": group_relative})}, "the reward has no part 'outcom'.*did you mean 'outcome'"),
        ({"credit": (group_relative, SUM)}, "a sum is of parts of the reward: it comes first"),
        ({"credit": Sum({"outcome": (SUM,)})}, "it comes first, and holds no other sum"),
        (
            {"credit": Sum({"outcome": returns})},
            "credit.returns takes one value per step or token and is given one per",
        ),
        ({"credit": (Sum({"outcome": group_relative}), whiten)}, "credit.whiten takes .* is given one per rollout"),
        (
            {"credit": redistribute},
            "reads 'importance'.*nor is it a part of the reward, whose parts are: outcome, process",
        ),
        ({"credit": Sum({"process": grounded_rewards})}, "credit.grounded_rewards reads 'executed'"),
        ({"credit": SUM, "shaping": ({"part": "shaping.center"},)}, "method.shaping: a credit by parts does not read"),
    ],
    ids=["unknown", "second", "nested", "level", "rollouts", "beside", "flags", "shaping"],
)
def test_a_credit_by_parts_that_cannot_be_computed_is_said_before_any_work(changes, message):
    with pytest.raises(RecipeError, match=message):
        chains.check(replace(presets.grpo, **{"kl": KL(), **changes}), REWARD)


def test_a_part_beside_is_checked_against_its_level():
    wrong = whole().named("importance") + whole().named("outcome")
    with pytest.raises(RecipeError, match="reads 'importance' as one value per step; the reward gives one per rollout"):
        chains.check(replace(presets.grpo, credit=Sum({"outcome": redistribute})), wrong)
    right = whole().named("outcome") + reduce(steps().named("importance"), "sum")
    for rest in [(), (partial_of(spread, place="last"), returns)]:
        chains.check(replace(presets.grpo, credit=(Sum({"outcome": redistribute}), *rest[1:])), right)
        chains.check(replace(presets.grpo, credit=(redistribute, *rest)), right)


def test_a_kl_in_the_reward_needs_one_part_of_rollouts():
    in_reward = KL(0.1, place="reward")
    chains.check(replace(presets.grpo, credit=SUM, kl=in_reward), REWARD)
    with pytest.raises(RecipeError, match=r"method\.kl\.place: .* credit reads none; put it in the loss"):
        chains.check(replace(presets.grpo, credit=Sum({"process": returns}), kl=in_reward), REWARD)
    two = whole().named("outcome") + whole().named("form")
    both = Sum({"outcome": group_relative, "form": group_relative})
    with pytest.raises(RecipeError, match="credit reads outcome, form; put it in the loss"):
        chains.check(replace(presets.grpo, credit=both, kl=in_reward), two)


def test_presets_by_parts_fit_the_rewards_they_are_for():
    steps_named = {"prime": "process", "istar": "process", "igpo": "potentials", "spae": "potentials"}
    for name, part in steps_named.items():
        chains.check(presets.load(name), whole().named("outcome") + 0.0 * reduce(steps().named(part), "sum"))
        with pytest.raises(RecipeError, match="credit"):
            chains.check(presets.load(name), whole().named("outcome"))


def test_a_sum_is_written_by_the_names_of_parts():
    data = {
        "sum": {
            "outcome": {"part": "credit.group_relative", "scale": "none"},
            "potentials": ["credit.progress", {"part": "credit.returns", "gamma": "0.5"}],
        }
    }
    method = presets.load("grpo", credit=[data, "credit.whiten"])
    found = method.dump()["credit"]
    assert found[0]["sum"]["outcome"]["scale"] == "none"
    assert [part["part"] for part in found[0]["sum"]["potentials"]] == ["credit.progress", "credit.returns"]
    assert found[0]["sum"]["potentials"][1]["gamma"] == 0.5
    assert presets.load("prime", **yaml.safe_load(yaml.safe_dump(method.dump()))) == method
    assert presets.load("grpo", credit=data).credit.chains.keys() == {"outcome", "potentials"}
    assert presets.load("prime", credit="credit.group_relative").dump()["credit"]["part"] == "credit.group_relative"


@pytest.mark.parametrize(
    ("credit", "message"),
    [
        ({"sum": {}}, "credit: a sum is {sum: {NAME: …}}"),
        ({"sum": {"a": "credit.returns"}, "scale": "none"}, "credit: a sum is {sum: {NAME: …}}"),
        ([{"sum": ["credit.returns"]}], "credit[0].sum: expected a mapping"),
        ({"sum": {"a": []}}, "credit.sum.a: the list is empty"),
        ({"sum": {"a": ["credit.return"]}}, "credit.sum.a[0]: there is no part 'credit.return'"),
        ({"sum": {"a": {"part": "credit.returns", "gama": 1}}}, "credit.sum.a: credit.returns has no option 'gama'"),
        ([["credit.returns"]], "credit[0]: expected a mapping"),
    ],
    ids=["empty", "beside", "list", "no part", "unknown", "option", "nested"],
)
def test_a_sum_that_is_written_wrongly_is_said_with_its_place(credit, message):
    with pytest.raises(RecipeError) as error:
        presets.load("grpo", credit=credit)
    assert message in str(error.value)


def test_prime_as_the_docs_write_it_is_the_preset():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
    [shown] = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "implicit_reward" in text]
    recipe = yaml.safe_load(shown)
    assert (
        presets.load(**{("name" if k == "preset" else k): v for k, v in recipe["method"].items()}).override(
            kl={"coefficient": 0.0}, objective={"aggregate": "token-mean"}
        )
        == presets.prime
    )
    chains.check(presets.prime, spec.load(recipe["reward"]))


def test_a_sum_of_nothing_is_no_credit():
    with pytest.raises(ValueError, match="it is empty"):
        Sum({})
