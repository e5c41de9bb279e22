"""The family of length rewards: curves, targets, groups and histories, each against its source's formula."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts, Scores, gate
from guerdon.core import Tokens
from guerdon.credit import group_relative
from guerdon.shaping import (
    brevity,
    group_length,
    history_length,
    monitored_length,
    overlong,
    pool,
    target_length,
    top_groups,
)

FREE = {"floor": -math.inf, "wrong_floor": -math.inf}


def words(*lengths, groups=None, ids=None, finished=None, training=True, step=0, **columns):
    texts = ["w " * n for n in lengths]
    n = len(lengths)
    batch = Rollouts(["?"] * n, texts, columns, ids or ["?"] * n, groups or [0] * n, finished or [True] * n)
    return Context(batch, training=training, step=step)


def shaped(shaper, context, *values):
    reasons = {i: "no score" for i, v in enumerate(values) if v is None}
    return shaper(Scores.of(list(values), reasons=reasons), context).to_columns()["score"]


def sigma(x):
    return 1 / (1 + math.exp(-x))


# Curves


@pytest.mark.parametrize(
    ("curve", "tolerance", "b"),
    [
        ("step", 0, [1, 1, 1, 0, 0]),
        ("cut", 0, [0, 0, 0, -1, -1]),
        ("linear", 0, [1, 0.5, 0, -0.5, -3]),
        ("linear", 0.25, [1, 0.5, 0, -0.25, -2.75]),
        ("excess", 0.25, [0, 0, 0, -0.25, -2.75]),
        ("deviation", 0, [-1, -0.5, 0, -0.5, -3]),
        ("deviation", 0.2, [-1, -0.3 / 0.8, 0, -0.3 / 0.8, -3.5]),
        ("sigmoid", 0, [-sigma(-1), -sigma(-0.5), -0.5, -sigma(0.5), -sigma(3)]),
        ("tanh", 0, [1 - 2 * sigma(z) for z in (-1, -0.5, 0, 0.5, 3)]),
        ("cosine", 0, [math.cos(math.pi / 2 * min(u, 2)) for u in (0, 0.5, 1, 1.5, 4)]),
        ("inverse", 0, [1, 1, 0, 1 / 1.5 - 1, 1 / 4 - 1]),
        ("peak", 0, [0, 0.75, 1, 0.5, -17]),
    ],
)
def test_curves(curve, tolerance, b):
    shaper = target_length(
        curve=curve, target=20, weight=2.0, tolerance=tolerance, wrong="same", apply="alone", unit="words", **FREE
    )
    lengths = [int(20 * u) for u in (0, 0.5, 1, 1.5, 4)]
    assert shaped(shaper, words(*lengths), 1, 1, 0, 1, 0) == pytest.approx([2.0 * x for x in b])


def test_floors_hold_correct_and_wrong_apart():
    shaper = target_length(
        curve="linear", target=10, wrong="same", weight=1, floor=-0.3, wrong_floor=-0.8, unit="words"
    )
    assert shaped(shaper, words(100, 100, 12), 1.0, 0.0, 0.0) == pytest.approx([0.7, -0.8, -0.2])


@pytest.mark.parametrize(
    ("wrong", "short", "long"), [("none", 0, 0), ("same", 0.5, -0.5), ("penalty", 0, -0.5)]
)  # fmt: skip
def test_what_a_wrong_rollout_gets(wrong, short, long):
    shaper = target_length(curve="linear", target=10, weight=1, wrong=wrong, unit="words")
    assert shaped(shaper, words(5, 15, 5), 0.0, 0.5, 0.51) == pytest.approx([short, 0.5 + long, 0.51 + 0.5])


def test_apply():
    lengths = words(5, 15)
    for apply, expected in [("add", [2.4, 1.6]), ("multiply", [2 * 1.4, 2 * 0.6 * 1.0]), ("alone", [0.4, -0.4])]:
        shaper = target_length(curve="linear", target=10, weight=0.8, apply=apply, unit="words")
        assert shaped(shaper, lengths, 2.0, 2.0) == pytest.approx(expected)


def test_overlong_and_brevity_are_of_the_family():
    lengths, values = words(0, 3, 7, 8, 9, 30), [1.0, 0.0, 0.25, 1.0, 0.7, 1.0]
    soft = target_length(curve="excess", target=6, width=2, weight=1, wrong="same", unit="words")
    assert shaped(soft, lengths, *values) == pytest.approx(
        shaped(overlong(limit=8, buffer=2, unit="words"), lengths, *values)
    )
    scaled = target_length(curve="sigmoid", target=6, width=2, weight=0.3, wrong="same", apply="multiply", unit="words")
    assert shaped(scaled, lengths, *values) == pytest.approx(
        shaped(brevity(0.3, target=6, width=2, unit="words"), lengths, *values)
    )


def test_abstentions_are_neither_right_nor_wrong():
    shaper = group_length(statistic="mean", curve="deviation", wrong="same", apply="add", weight=1, unit="words")
    context = words(10, 1000, 20, groups=[0, 0, 0])
    assert shaped(shaper, context, 1.0, None, 0.0) == pytest.approx([1.0, None, -1.0])
    assert shaped(shaper, context, None, None, 0.0) == [None, None, 0.0], "nobody is known to be right"


# A target


def test_laser_worked_example():
    assert shaped(target_length(target=4096, unit="words"), words(3000), 1.0) == [1.5]
    assert shaped(target_length(target=2048, unit="words"), words(3000), 1.0) == [1.0]
    assert shaped(target_length(target=4096, unit="words"), words(9000), -0.5) == [-0.5]


def test_laser_penalty_and_hybrid():
    lengths = words(3, 7, 3)
    penalty = target_length(curve="cut", target=5, unit="words")
    assert shaped(penalty, lengths, 1.0, 1.0, -0.5) == [1.0, 0.5, -0.5]
    hybrid = target_length(target=5, unit="words")(Scores.of([1.0, 1.0, -0.5]), lengths)
    assert penalty(hybrid, lengths).read(0.0).tolist() == [1.5, 0.5, -0.5]


def test_what_was_cut_off_at_the_limit_is_not_brief():
    context = words(4, 4, finished=[True, False])
    assert shaped(target_length(target=4, unit="words"), context, 1.0, 1.0) == [1.5, 1.0]


def test_dler_truncation_pays_nothing():
    """correct · 1[finished within L_T]; the script's variant leaves a tenth."""
    context = words(3, 9, 5, 3, finished=[True, True, False, True])
    truncated = target_length(curve="cut", target=5, weight=1.0, apply="multiply", unit="words")
    assert shaped(truncated, context, 1.0, 1.0, 1.0, 0.0) == [1.0, 0.0, 0.0, 0.0]
    tenth = replace(truncated, weight=0.9)
    assert shaped(tenth, context, 1.0, 1.0, 1.0, 0.0) == pytest.approx([1.0, 0.1, 0.1, 0.0])


def test_da_dler_tiers_by_group_correctness():
    """Accuracy above ½: 2000 tokens, else 4000, with 16 rollouts a group."""
    shaper = target_length(curve="cut", target=(4000, 2000), bands=(9 / 16,), weight=1, apply="multiply", unit="words")
    easy, hard = [1.0] * 9 + [0.0] * 7, [1.0] * 8 + [0.0] * 8
    context = words(*[3000] * 32, groups=[0] * 16 + [1] * 16)
    assert shaped(shaper, context, *easy, *hard) == [0.0] * 16 + hard
    assert shaper.scope == "group"


def test_the_accuracy_of_a_group_is_over_what_was_scored():
    shaper = target_length(target=(9, 1), bands=(0.9,), unit="words", apply="alone", weight=1)
    assert shaped(shaper, words(5, 5, 5), 1.0, None, None) == [0.0, None, None], "all that was scored is right: easy"
    assert shaped(shaper, words(5, 5, 5), 1.0, 0.0, None) == [1.0, 0.0, None]


def test_lengths_that_are_all_equal_have_no_spread():
    shaper = group_length(curve="tanh", weight=1, wrong="same", apply="alone", unit="words")
    assert shaped(shaper, words(5, 5, 80), 1.0, 1.0, 0.0) == [0.0, 0.0, 0.0]


def test_bands_are_at_or_above_their_bounds():
    shaper = target_length(target=(3, 2, 1), bands=(1 / 3, 2 / 3), unit="words", apply="alone", weight=1)
    groups = [0] * 3 + [1] * 3 + [2] * 3
    values = [1, 0, 0, 1, 1, 0, 0, 0, 0]
    for length, expected in [(1, values), (2, [1, 0, 0] + [0] * 6), (3, [0] * 9)]:
        assert shaped(shaper, words(*[length] * 9, groups=groups), *values) == expected


def test_dro_length_term_against_the_reference_answer():
    """r_len = 1 − b · ||y| − |ŷ|| / |y|."""
    shaper = target_length(curve="deviation", target="reference_length", weight=0.5, wrong="same", apply="alone",
                           unit="words", **FREE)  # fmt: skip
    context = words(8, 10, 25, 4, 4, 4, reference_length=[10, 10, 10, None, 0, "12"])
    got = shaper(Scores.of([0.0] * 6), context)
    expected = [1 - 0.5 * abs(10 - n) / 10 for n in (8, 10, 25)]
    assert [1 + b if b is not None else None for b in got.to_columns()["score"]] == pytest.approx(
        [*expected] + [None] * 3
    )
    assert got.reasons[3] == "column 'reference_length' is not a positive length"
    assert shaper.requires == {"reference_length"}


def test_cib_uniform_prior_is_linear_in_length():
    """The worked trace: 7 tokens at log V = log 50 000, β = 0.01, cost 0.757."""
    cost = 0.01 * math.log(50_000)
    shaper = target_length(curve="excess", target=0, width=1, weight=cost, wrong="same", unit="words", **FREE)
    got = shaped(shaper, words(7, 14), 1.0, 0.0)
    assert got == pytest.approx([1 - 0.757, -1.515], abs=1e-3)


def test_cib_laplace_prior_is_a_target_length():
    """β · −|L − L*|/b."""
    shaper = target_length(curve="deviation", target=30, width=8, weight=0.1, wrong="same", unit="words", **FREE)
    expected = [1 - 0.1 * abs(n - 30) / 8 for n in (10, 30, 90)]
    assert shaped(shaper, words(10, 30, 90), 1, 1, 1) == pytest.approx(expected)


def test_format_length_worked_example(recorded, scored):
    """f(0) = 0, f(¼) = ¾, f(½) = 1, f(¾) = ½, f(1) = −1; a malformed answer never gains from its length."""
    peak = target_length(curve="peak", target=1536, weight=1.0, wrong="penalty", apply="alone", unit="words")
    lengths = [0, 768, 1536, 2304, 3072]
    assert shaped(peak, words(*lengths), *[1.0] * 5) == pytest.approx([0, 0.75, 1, 0.5, -1])
    assert shaped(peak, words(*lengths), *[0.0] * 5) == pytest.approx([0, 0, 0, 0, -1])
    think, parses = recorded("think"), recorded("parses")
    reward = gate(parses, then=0.5 * think + 0.5 * parses) + (parses >> peak)
    columns = {"think": [1.0, 1.0, 1.0], "parses": [1.0, 0.0, 0.0]}
    assert scored(reward, **columns, lengths=[1536, 1536, 3072]) == pytest.approx([2.0, 0.0, -1.0])


# Targets that are monitored


def laser_d(**options):
    return monitored_length(grid=(1024, 16384, 1024), unit="words", **options)


def test_laser_d_target_is_the_shortest_length_that_covers_enough():
    """A monitored easy band with a tenth within 1024 and a quarter within 2048 gets 2048: ⌊0.25 · 5⌋ ≥ 1."""
    shaper = laser_d()
    lengths = [1000, 1000, *[2000] * 3, *[9000] * 15]
    assert shaper.targets(9000) == [4096.0] * 3, "before anything was monitored"
    shaper.observe(Scores.of([1.0] * 20), words(*lengths))
    assert shaper.targets(9001) == [9001, 9001, 2048], "bands nobody is in take the longest at hand"
    assert shaper.targets(2048) == [2048, 2048, 2048], "a target lies below the longest completion at hand"
    assert shaped(shaper, words(2000, 2048, 2049, 16000), 1.0, 1.0, 1.0, 1.0) == [1.5, 1.5, 1.0, 1.0]


@pytest.mark.parametrize(("accuracy", "m"), [(1.0, int(8 * 2 / 3)), (0.5, int(8 / 3)), (0.0, 1)])
def test_laser_d_coverage_leaves_a_correct_answer_of_eight(accuracy, m):
    """The source's rule, ⌊cov(l) · m⌋ ≥ 1 with m = 5, 2, 1, at every count of short responses."""
    band = {1.0: 2, 0.5: 1, 0.0: 0}[accuracy]
    for short in range(1, 21):
        shaper = laser_d()
        values = [1.0] * round(20 * accuracy) + [0.0] * (20 - round(20 * accuracy))
        shaper.observe(Scores.of(values), words(*[1000] * short, *[5000] * (20 - short)))
        expected = 1024 if int(short / 20 * m + 1e-12) >= 1 else 5120
        assert shaper.targets(9000)[band] == expected, short


def test_coverage_is_met_where_it_is_met_exactly():
    shaper = laser_d(coverage=(1.0, 0.5, 0.07))
    shaper.observe(Scores.of([1.0] * 100), words(*[1000] * 7, *[5000] * 93))
    assert shaper.targets(9000)[2] == 1024


def test_laser_d_targets_fall_as_the_policy_shortens():
    shaper, seen = laser_d(), []
    for scale in (12, 9, 6, 3, 1):
        shaper.observe(Scores.of([1.0] * 10), words(*[scale * 1000 + 10 * i for i in range(10)]))
        seen.append(shaper.targets(16000)[2])
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > seen[-1] == 1024


def test_laser_de_worked_example(recorded, scored):
    """Wrong and longer than its target: D −0.5, DE 0, unless it repeats itself."""
    correct, fresh = recorded("correct"), recorded("fresh")
    d, de = target_length(target=4096, unit="words"), target_length(target=4096, unit="words", wrong="explore")
    reward = gate(fresh, then=correct >> de, otherwise=correct >> d)
    columns = {"correct": [-0.5, -0.5, -0.5, 1.0], "fresh": [1.0, 0.0, 1.0, 0.0]}
    assert scored(reward, **columns, lengths=[9000, 9000, 3000, 3000]) == [0.0, -0.5, -0.5, 1.5]


def test_a_monitor_listens_to_the_batches_it_is_told_to():
    values, short = Scores.of([1.0] * 4), words(*[1000] * 4)
    held_out = laser_d(monitor="held-out")
    held_out.observe(values, short)
    assert held_out.state_dict() == {}
    held_out.observe(values, words(*[1000] * 4, training=False))
    assert held_out.targets(9000)[2] == 1024
    seldom = laser_d(every=10)
    seldom.observe(values, words(*[1000] * 4, step=9))
    assert seldom.state_dict() == {}
    seldom.observe(values, words(*[1000] * 4, step=20))
    assert seldom.targets(9000)[2] == 1024
    training = laser_d()
    training.observe(values, words(*[1000] * 4, training=False))
    assert training.state_dict() == {}


# The rest of the group


def test_grpo_lambda_worked_example():
    shaper = group_length(unit="words")
    assert shaped(shaper, words(100, 200, 300), 1, 1, 1) == pytest.approx([0.864, 0.7, 0.536], abs=5e-4)
    # One correct rollout: σ(0). Wrong ones get nothing whatever their length, and do not enter the statistics.
    assert shaped(shaper, words(5, 200, 999), 0, 1, 0) == pytest.approx([0.0, 0.7, 0.0])


def grpo_lambda(correct, share):
    return gate(correct >> top_groups(share=share), then=correct >> group_length(unit="words"), otherwise=correct)


def test_grpo_lambda_gates_the_batch(recorded, scored):
    """Of five groups the best one is pressed for brevity; the group with one correct of eight keeps its 1."""
    accuracy = [8, 4, 5, 1, 6]
    correct = [1.0 if i < k else 0.0 for k in accuracy for i in range(8)]
    groups = [g for g in range(5) for _ in range(8)]
    lengths = [100 + 10 * i for _ in range(5) for i in range(8)]
    outcome = recorded("correct", range=(0, 1))
    reward = grpo_lambda(outcome, 0.2)
    got = scored(reward, correct=correct, groups=groups, lengths=lengths)
    z = (np.array(lengths[:8]) - np.mean(lengths[:8])) / np.std(lengths[:8])
    assert got[:8] == pytest.approx([1 - 0.6 * sigma(x) for x in z])
    assert got[8:] == correct[8:]
    assert scored(grpo_lambda(outcome, 0.0), correct=correct, groups=groups, lengths=lengths) == correct
    always = scored(grpo_lambda(outcome, 1.0), correct=correct, groups=groups, lengths=lengths)
    assert max(always) < 1.0
    assert [a > 0 for a in always] == [c > 0 for c in correct]


def test_the_best_groups_are_counted_up_and_ties_are_in_order(recorded, scored):
    values = [1.0, 0.5, 1.0, None, 0.5]
    for share, expected in [(0.2, [1, 0, 0, None, 0]), (0.25, [1, 0, 0, None, 0]), (0.26, [1, 0, 1, None, 0]),
                            (0.75, [1, 1, 1, None, 0]), (1, [1, 1, 1, None, 1])]:  # fmt: skip
        got = scored(recorded("c") >> top_groups(share=share), c=values, groups=[3, 5, 7, 8, 9])
        assert got == expected
    many = scored(recorded("c") >> top_groups(share=0.07), c=[1.0] * 100, groups=list(range(100)))
    assert sum(many) == 7, "0.07 · 100 is a little more than 7 in floating point"
    assert scored(recorded("c") >> top_groups(share=1), c=[None, -1.0], groups=[0, 1]) == [None, 1]


def test_harmo_worked_limits(recorded, scored):
    correct = recorded("correct")
    length = group_length(statistic="mean", curve="deviation", weight=0.5, tolerance=0.2, wrong="same", apply="alone",
                          unit="words")  # fmt: skip
    got = scored(correct >> length, correct=[1, 1, 1, 0, 0, 0], lengths=[100, 100, 100, 180, 20, 5000])
    assert got == pytest.approx([0, 0, 0, -0.375, -0.375, -0.5]), "symmetric, and −P_max far away"
    assert scored(correct >> length, correct=[0, 0], lengths=[1, 9]) == [0.0, 0.0], "no correct sample: 0 for all"


def test_harmo_total_is_routed_by_task(recorded, scored):
    """R = R_hybrid + R_len + R_fmt: a rule where the task can be verified, a model or a surrogate where it cannot."""
    from guerdon import route

    rule, model, fmt = recorded("rule"), recorded("cosine"), recorded("format")
    hybrid = route("task", verifiable=rule, open=model)
    length = group_length(statistic="mean", curve="deviation", weight=0.5, tolerance=0.2, wrong="same", apply="alone",
                          unit="words")  # fmt: skip
    reward = hybrid + (hybrid >> length) + 0.5 * fmt
    got = scored(reward, task=["verifiable", "verifiable", "open"], rule=[1.0, 0.0, 0.0], cosine=[0.0, 0.0, 0.9],
                 format=[1.0, 1.0, 0.0], lengths=[100, 140, 100])  # fmt: skip
    assert got == pytest.approx([1.5, 0.5 - 0.5 * 0.2 / 0.8, 0.9])


def test_harmo_advantage_keeps_the_scale_of_the_reward():
    """A = R − mean(R), without the standard deviation: rewards times c are advantages times c."""
    rewards, groups = torch.tensor([1.5, 0.375, 0.5, 0.0]), torch.tensor([0, 0, 1, 1])
    advantages = group_relative(rewards, groups, scale="none")
    assert advantages.tolist() == pytest.approx([0.5625, -0.5625, 0.25, -0.25])
    assert group_relative(4 * rewards, groups, scale="none").tolist() == pytest.approx([2.25, -2.25, 1.0, -1.0])


def test_kimi_length_reward():
    """0.4 · (½ − (L − min)/(max − min)) over the whole group, for wrong answers at most 0."""
    shaper = group_length(statistic="range", of="all", curve="linear", weight=0.4, wrong="penalty", apply="add",
                          unit="words")  # fmt: skip
    lengths = [10, 20, 30, 50]
    b = [0.5 - (n - 10) / 40 for n in lengths]
    expected = [1 + 0.4 * b[0], -0.5 + 0.4 * min(0, b[1]), 1 + 0.4 * b[2], -0.5 + 0.4 * min(0, b[3])]
    assert shaped(shaper, words(*lengths), 1.0, -0.5, 1.0, -0.5) == pytest.approx(expected)
    assert shaped(shaper, words(7, 7), 1.0, -0.5) == [1.0, -0.5]


def test_sar_baselines_o1_pruner_and_efficiency():
    lengths = [10, 20, 60]
    mean = np.mean(lengths)
    pruner = group_length(
        statistic="mean", of="all", curve="inverse", weight=1, wrong="same", apply="alone", unit="words"
    )
    expected = [-np.clip((n - mean) / n, -1, 1) for n in lengths]
    assert shaped(pruner, words(*lengths), 1, 0, 1) == pytest.approx(expected)
    efficient = group_length(curve="tanh", weight=1, apply="alone", unit="words")
    z = (np.array([10, 60]) - 35) / 25
    expected = [-(sigma(z[0]) - 0.5) * 2, 0.0, -(sigma(z[1]) - 0.5) * 2]
    assert shaped(efficient, words(*lengths), 1, 0, 1) == pytest.approx(expected)
    assert shaped(efficient, words(*lengths), 0, 0, 1) == [0.0, 0.0, 0.0], "one correct is compared with nothing"


def test_crf_worked_example(recorded, scored):
    """R_o · [1 + α c (s + d)] with s from 1 to 0 over training and d the group's pass rate."""
    from guerdon import product
    from guerdon.shaping import anneal

    outcome, concise = recorded("outcome", range=(0, 1)), recorded("concise", range=(0.1, 1))
    pressure = (concise >> anneal(start=1.0, end=0.0)) + product(concise, outcome >> pool())
    reward = product(outcome, 1 + 0.2 * pressure)
    columns = {"outcome": [1.0, 0.0, 1.0, 0.0], "concise": [0.8, 0.1, 0.3, 0.9]}
    assert scored(reward, **columns, progress=0.0) == pytest.approx([1.24, 0, 1 + 0.2 * 0.3 * 1.5, 0])
    assert scored(reward, **columns, progress=1.0) == pytest.approx([1 + 0.2 * 0.8 * 0.5, 0, 1 + 0.2 * 0.3 * 0.5, 0])
    assert reward.range == pytest.approx((0.0, 1 + 0.2 * 2))


def test_sar_total_reward_and_its_schedules(recorded, scored):
    """R = R_base + 0.2 · R_SA; the extra factor constant or linear in progress; validation uses the base only."""
    from guerdon.shaping import anneal, clip

    base, gain = recorded("base"), recorded("relative_gain")
    gains = [(8 - 4) / 8, (3 - 9) / 3, 0.0]
    columns = {"base": [1.0, 0.0, 1.0], "relative_gain": gains}
    total = base + 0.2 * (gain >> clip(low=-1.0))
    assert scored(total, **columns) == pytest.approx([1.1, -0.2, 1.0])
    linear = base + 0.2 * (gain >> clip(low=-1.0) >> anneal())
    assert scored(linear, **columns, progress=0.5) == pytest.approx([1.05, -0.1, 1.0])


# The history of the prompt


def test_hapo_worked_example():
    shaper = history_length(unit="words")
    shaper.observe(Scores.of([1.0]), words(100, ids=["a"]))
    lengths = words(50, 100, 150, 300, ids=["a"] * 4)
    assert shaped(shaper, lengths, 1, 1, 1, 1) == pytest.approx([1.707, 1.0, 0.3, 0.3], abs=5e-4)
    assert shaped(shaper, lengths, 0, 0, 0, 0) == pytest.approx([0, 0, -0.707, -1], abs=5e-4)
    assert shaped(shaper, words(50, 999, ids=["b"] * 2), 1, 0) == [1.0, 0.0], "never solved: no length reward"
    assert shaped(history_length(curve="sigmoid", unit="words"), words(50, ids=["b"]), 1) == [1.0]


def hapo_linear(u, correct, tolerance):
    """The two branches of the source's linear form."""
    if correct:
        return 1 - u if u < 1 else 0.0 if u < 1 + tolerance else max(-0.7, -(u - 1 - tolerance))
    return 0.0 if u < 1 + tolerance else max(-1.0, -(u - 1 - tolerance))


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 120), st.booleans()), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_hapo_linear_form(h, rows):
    shaper = history_length(curve="linear", tolerance=0.1, apply="alone", unit="words")
    shaper.observe(Scores.of([1.0]), words(h, ids=["a"]))
    got = shaped(shaper, words(*[n for n, _ in rows], ids=["a"] * len(rows)), *[float(c) for _, c in rows])
    assert got == pytest.approx([hapo_linear(n / h, c, 0.1) for n, c in rows], abs=1e-9)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_hapo_any_correct_total_beats_any_wrong_one(lengths):
    shaper = history_length(unit="words")
    shaper.observe(Scores.of([1.0]), words(37, ids=["a"]))
    context = words(*lengths, ids=["a"] * len(lengths))
    right, wrong = shaped(shaper, context, *[1.0] * len(lengths)), shaped(shaper, context, *[0.0] * len(lengths))
    assert min(right) >= 0.3 - 1e-12 > 0 >= max(wrong)


def test_hapo_history_is_the_shortest_correct_answer_by_prompt():
    shaper, seen = history_length(unit="words"), []
    for length, correct in [(200, 1.0), (50, 0.0), (120, 1.0), (150, 1.0)]:
        shaper.observe(Scores.of([correct, 1.0]), words(length, 7, ids=["a", "b"]))
        seen.append(shaper.history("a"))
    assert seen == [200, 200, 120, 120]
    assert (shaper.history("b"), shaper.history("c")) == (7, None)
    mean = history_length(unit="words", statistic="mean")
    mean.load_state_dict(shaper.state_dict())
    assert mean.history("a") == pytest.approx((200 + 120 + 150) / 3)


def test_hapo_history_is_updated_after_the_whole_group():
    shaper = history_length(unit="words")
    context = words(100, 10, ids=["a", "a"])
    assert shaped(shaper, context, 1.0, 1.0) == [1.0, 1.0]
    shaper.observe(Scores.of([1.0, 1.0]), context)
    assert shaped(shaper, context, 1.0, 1.0) == pytest.approx([0.3, 1.0])


# State, options, limits


@pytest.mark.parametrize("shaper", [history_length(unit="words"), laser_d()], ids=["history", "monitored"])
def test_state_survives_a_checkpoint_bit_for_bit(shaper):
    other = replace(shaper)
    assert other == shaper
    assert other.state is not shaper.state
    rng = np.random.default_rng(1)
    for _ in range(3):
        lengths = rng.integers(1, 3000, 6).tolist()
        shaper.observe(Scores.of([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]), words(*lengths, ids=list("aabbcc")))
    other.load_state_dict(json.loads(json.dumps(shaper.state_dict())))
    lengths, values = words(*[300] * 6, ids=list("aabbcc")), [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    assert shaped(other, lengths, *values) == shaped(shaper, lengths, *values)
    for one in (shaper, other):
        one.observe(Scores.of(values), lengths)
    assert other.state_dict() == shaper.state_dict()
    other.load_state_dict({})
    assert other.state_dict() == {}


def test_a_state_of_something_else_is_refused():
    with pytest.raises(ValueError, match="not of 3 bands on the grid"):
        laser_d().load_state_dict({"count": [1], "covered": [[1]]})
    with pytest.raises(ValueError, match="keeps count, total and least length of 'a'"):
        history_length().load_state_dict({"a": [1.0]})


def test_units():
    tokens = Tokens(
        np.zeros((1, 4), int), written=np.array([[True, True, False, False]]), attended=np.ones((1, 4), bool)
    )
    context = Context(Rollouts(["?"], ["ab cd e"], tokens=tokens))
    for unit, length in [("tokens", 2), ("characters", 7), ("words", 3)]:
        shaper = target_length(curve="excess", target=0, width=1, weight=1, unit=unit, **FREE)
        assert shaped(shaper, context, 1.0) == [1.0 - length]
        assert shaper.requires == ({"tokens"} if unit == "tokens" else frozenset())


def test_an_empty_batch():
    for shaper in (
        target_length(),
        target_length(target=(2, 1), bands=(0.5,)),
        laser_d(),
        group_length(),
        history_length(),
    ):
        assert len(replace(shaper, unit="words")(Scores.of([]), words())) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: target_length(curve="square"), "curve is one of 'step', .* 'peak', got 'square'"),
        (lambda: target_length(wrong="all"), "wrong is one of 'none', 'same', 'penalty', 'explore', got 'all'"),
        (lambda: target_length(apply="divide"), "apply is one of 'add', 'multiply', 'alone', got 'divide'"),
        (lambda: target_length(unit="letters"), "unit is 'tokens'"),
        (lambda: target_length(weight=-1), "weight and tolerance must not be negative, got -1"),
        (lambda: target_length(above=math.nan), "above is a threshold, got nan"),
        (lambda: target_length(floor=0.1), "floors are at most 0, got 0.1"),
        (lambda: target_length(curve="deviation", tolerance=1.0), "below 1 width, got 1.0"),
        (lambda: target_length(curve="linear", wrong="explore"), "'explore' pays where the step curve does not"),
        (lambda: target_length(curve="cut", weight=1.1, apply="multiply"), "would turn a reward negative"),
        (lambda: target_length(target=0), "a target is a positive length, or 0 with a width given, got 0"),
        (lambda: target_length(target=-1, width=1), "a target is a positive length"),
        (lambda: target_length(target=math.inf), "a target is a positive length"),
        (lambda: target_length(width=0), "width must be positive and finite, got 0"),
        (lambda: target_length(target=(1, 2)), "0 bounds part 1 bands, got 2 targets"),
        (lambda: target_length(target=(1, 2, 3), bands=(0.5, 0.5)), "the bounds between bands must rise"),
        (lambda: monitored_length(target=0), "target must be positive"),
        (lambda: monitored_length(coverage=(1.0, 0.5)), "2 bounds part 3 bands, got 2 targets"),
        (lambda: monitored_length(coverage=(1.0, 0.5, 0.0)), "coverage is a share above 0"),
        (lambda: monitored_length(grid=(0, 5, 1)), "grid is a first and last length and a step"),
        (lambda: monitored_length(monitor="all"), "monitor is 'training' or 'held-out', got 'all'"),
        (lambda: monitored_length(every=0), "every must be at least 1"),
        (lambda: group_length(statistic="median"), "statistic is 'std', 'mean' or 'range', got 'median'"),
        (lambda: group_length(of="wrong"), "of is 'correct' or 'all', got 'wrong'"),
        (lambda: group_length(curve="inverse"), "statistic='mean', not 'std'"),
        (lambda: history_length(statistic="max"), "statistic is 'min' or 'mean', got 'max'"),
        (lambda: top_groups(share=1.1), "share lies between 0 and 1, got 1.1"),
        (lambda: pool(over="row"), "over is 'group' or 'batch', got 'row'"),
        (lambda: shaped(group_length(unit="words"), words(1), -1.0), "a penalty times such a one pays for length"),
        (lambda: group_length().range((-1, 1)), "this one reaches -1: add instead"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
