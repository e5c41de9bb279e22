import itertools
import math
import random
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core.comparisons import Comparisons
from guerdon.credit import rank

SCHEDULES = {
    "win_rate": rank.win_rate,
    "round_robin": rank.round_robin,
    "bradley_terry": rank.bradley_terry,
    "anchor": rank.anchor,
    "elimination": rank.elimination,
    "unseeded": partial(rank.elimination, seeded=False),
    "double": rank.double_elimination,
    "swiss": rank.swiss,
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def judge(quality, asked=None, noise=None, bias=0.0):
    """Margins are differences of quality, and every pair asked for is noted."""

    def compare(first, second):
        margin = np.asarray(quality)[first] - np.asarray(quality)[second] + bias
        if noise is not None:
            margin = margin + noise.logistic(size=len(first))
        if asked is not None:
            asked.extend(zip(first.tolist(), second.tolist(), strict=True))
        return Comparisons(margin.astype(float), np.ones(len(first), bool))

    return compare


def silent(first, second):
    return Comparisons(np.zeros(len(first)), np.zeros(len(first), bool), dict.fromkeys(range(len(first)), "no reply"))


def test_arenarl_worked_example():
    scores = rank.play(rank.elimination(4), judge([4.0, 3.0, 2.0, 1.0])).read(np.nan)
    assert scores.tolist() == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
    mean, sigma = 0.5, math.sqrt(sum((s - 0.5) ** 2 for s in scores) / 3)
    assert ((scores - mean) / (sigma + 1e-6)).tolist() == pytest.approx([1.162, 0.387, -0.387, -1.162], abs=1e-3)


def test_arenarl_bracket_of_eight():
    asked = []
    rank.play(rank.elimination(8, seeded=False), judge(range(8, 0, -1), asked))
    assert asked[:4] == [(0, 7), (3, 4), (1, 6), (2, 5)]
    assert asked[4:] == [(0, 3), (1, 2), (0, 1)]


@pytest.mark.parametrize(
    ("name", "games"), [("round_robin", 120), ("anchor", 15), ("elimination", 30), ("unseeded", 15), ("swiss", 32)]
)
def test_arenarl_number_of_comparisons(name, games):
    asked = []
    rank.play(SCHEDULES[name](16), judge(np.random.default_rng(0).normal(size=16), asked))
    assert len(asked) == games


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 12, 16])
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "unseeded"])
def test_a_perfect_judge_s_best_is_first(name, n):
    quality = np.random.default_rng(n).normal(size=n)
    scores = rank.play(SCHEDULES[name](n), judge(quality)).read(np.nan)
    assert scores.argmax() == quality.argmax()
    assert scores.min() >= 0.0
    assert scores.max() == 1.0 or name == "bradley_terry"
    if name in ("win_rate", "round_robin", "bradley_terry", "anchor"):
        assert (np.argsort(scores) == np.argsort(quality)).all()


def kendall(a, b):
    pairs = list(itertools.combinations(range(len(a)), 2))
    return sum(np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in pairs) / len(pairs)


def test_arenarl_more_comparisons_of_a_noisy_judge_rank_better():
    generator = np.random.default_rng(0)
    taus = {name: [] for name in ("round_robin", "elimination", "unseeded")}
    for _ in range(60):
        quality = generator.normal(size=16)
        for name, found in taus.items():
            scores = rank.play(SCHEDULES[name](16), judge(2 * quality, noise=generator)).read(np.nan)
            found.append(kendall(scores, quality))
    means = {name: float(np.mean(found)) for name, found in taus.items()}
    assert means["round_robin"] > means["elimination"] + 0.05 > means["unseeded"] + 0.1


@every_schedule
def test_arenarl_both_orders_undo_a_bias_for_the_first_place(schedule):
    quality = [0.3, 0.9, 0.1, 0.6, 0.5]
    fair = rank.play(schedule(5), judge(quality))
    biased = rank.play(rank.both_orders(schedule(5)), judge(quality, bias=100.0))
    assert biased.read(np.nan).tolist() == fair.read(np.nan).tolist()


def test_pref_grpo_worked_example():
    wins = {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 0.0}

    def compare(first, second):
        pairs = zip(first.tolist(), second.tolist(), strict=True)
        return Comparisons(np.array([wins[pair] for pair in pairs]), np.ones(len(first), bool))

    scores = rank.play(rank.win_rate(3), compare).read(np.nan)
    assert scores.tolist() == [1.0, 0.25, 0.25]
    sigma = float(np.std(scores, ddof=1))
    assert ((scores - 0.5) / (sigma + 1e-8)).tolist() == pytest.approx([1.155, -0.577, -0.577], abs=1e-3)
    pointwise = np.array([0.701, 0.700, 0.699])
    illusory = (pointwise - pointwise.mean()) / (pointwise.std(ddof=1) + 1e-8)
    assert illusory.tolist() == pytest.approx([1.0, 0.0, -1.0], abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=9))
def test_pref_grpo_win_rates_sum_to_half_the_group(quality):
    assert rank.play(rank.win_rate(len(quality)), judge(quality)).read(np.nan).sum() == pytest.approx(len(quality) / 2)


@every_schedule
@pytest.mark.parametrize("n", [2, 3, 8])
def test_equal_items_have_scores_that_favour_nobody_where_all_meet_all(schedule, n):
    scores = rank.play(schedule(n), judge([1.0] * n)).read(np.nan)
    assert ((scores >= 0) & (scores <= 1)).all()
    if schedule in (rank.win_rate, rank.round_robin, rank.bradley_terry, rank.anchor):
        assert (scores == 0.5).all()


@every_schedule
def test_without_verdicts_all_abstain_with_the_judge_s_reason(schedule):
    scores = rank.play(schedule(5), silent)
    assert scores.abstained.all()
    assert set(scores.reasons.values()) == {"no verdict: no reply"}


@every_schedule
def test_who_is_alone_abstains(schedule):
    alone = rank.play(schedule(1), silent)
    assert alone.abstained.tolist() == [True]
    assert alone.reasons == {0: rank.ALONE}
    assert len(rank.play(schedule(0), silent)) == 0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(2, 9), st.integers(0, 10**6))
def test_any_verdicts_end_in_scores_or_reasons(name, n, seed):
    draw = random.Random(seed)

    def compare(first, second):
        assert all(a != b for a, b in zip(first.tolist(), second.tolist(), strict=True))
        valid = np.array([draw.random() < 0.6 for _ in first], bool)
        margin = np.array([draw.choice([-2.0, -1.0, 0.0, 1.0, 3.0]) for _ in first])
        return Comparisons(margin, valid, dict.fromkeys(np.flatnonzero(~valid).tolist(), "lost"))

    scores = rank.play(SCHEDULES[name](n), compare)
    numbers = scores.read(0.5)
    assert ((numbers >= 0) & (numbers <= 1)).all()
    assert all(reason == "no verdict: lost" for reason in scores.reasons.values())


def test_a_win_rate_counts_verdicts_only():
    def compare(first, second):
        valid = np.array([(a, b) != (0, 1) for a, b in zip(first, second, strict=True)])
        return Comparisons(np.ones(len(first)), valid, {0: "unreadable"})

    scores = rank.play(rank.win_rate(3), compare)
    assert scores.read(np.nan).tolist() == [1.0, 1.0, 0.0]
    assert list(scores.details["games"]) == [1, 1, 2]


def test_who_leaves_by_a_game_without_verdict_abstains():
    def compare(first, second):
        valid = np.array([{a, b} != {0, 3} for a, b in zip(first.tolist(), second.tolist(), strict=True)])
        margin = np.asarray(second - first, float)
        return Comparisons(margin, valid, {int(i): "timeout" for i in np.flatnonzero(~valid)})

    scores = rank.play(rank.elimination(4, seeded=False), compare)
    assert scores.abstained.tolist() == [False, False, False, True]
    assert scores.reasons == {3: "no verdict: timeout"}
    assert scores.read(np.nan)[:3].tolist() == pytest.approx([1.0, 2 / 3, 1 / 3])


def test_round_robin_ranks_as_the_source_does():
    # Wins 3, 1½, 1½, 0: ranks 1, 2, 2, 4 and (4 − rank) / 3.
    scores = rank.play(rank.round_robin(4), judge([3.0, 2.0, 2.0, 1.0])).read(np.nan)
    assert scores.tolist() == pytest.approx([1.0, 2 / 3, 2 / 3, 0.0])


def test_bradley_terry_strengths_are_where_expected_wins_are_the_wins():
    verdicts = {(0, 1): 1.0, (0, 2): -1.0, (1, 2): 0.0, (1, 3): 1.0, (2, 3): 1.0}  # 0 and 3 have no verdict

    def compare(first, second):
        pairs = list(zip(first.tolist(), second.tolist(), strict=True))
        valid = np.array([pair in verdicts for pair in pairs])
        margin = np.array([verdicts.get(pair, 0.0) for pair in pairs])
        return Comparisons(margin, valid, dict.fromkeys(np.flatnonzero(~valid).tolist(), "lost"))

    scores = rank.play(rank.bradley_terry(4, prior=0.25), compare).read(np.nan)
    strength = scores / (1 - scores)
    for i, wins in enumerate([1.0, 1.5, 2.5, 0.0]):
        rivals = [sum(pair) - i for pair in verdicts if i in pair]
        expected = sum(strength[i] / (strength[i] + strength[j]) for j in rivals)
        assert wins + 0.25 == pytest.approx(expected + 0.5 * scores[i])


def test_bradley_terry_says_whom_an_item_beat_where_win_rates_are_equal():
    # 0 beats 1, 1 beats 2, 3 beats nobody but was compared with the best only; 2 and 3 both lost once.
    verdicts = {(0, 1): 1.0, (1, 2): 1.0, (0, 3): 1.0}

    def compare(first, second):
        pairs = list(zip(first.tolist(), second.tolist(), strict=True))
        valid = np.array([pair in verdicts for pair in pairs])
        return Comparisons(np.ones(len(pairs)), valid, dict.fromkeys(np.flatnonzero(~valid).tolist(), "lost"))

    strengths, rates = (rank.play(s(4), compare).read(np.nan) for s in (rank.bradley_terry, rank.win_rate))
    assert rates[2] == rates[3] == 0.0
    assert strengths[3] > strengths[2]


def test_the_anchor_stands_at_zero():
    scores = rank.play(rank.anchor(4, at=2), judge([5.0, 1.0, 3.0, 4.0])).read(np.nan)
    assert scores.tolist() == pytest.approx([1.0, 0.0, 1 / 3, 2 / 3])


@pytest.mark.parametrize("n", [4, 5, 8, 9, 13])
def test_swiss_pairs_do_not_meet_twice_and_nobody_sits_out_twice(n):
    asked = []
    generator = np.random.default_rng(n)
    rank.play(rank.swiss(n), judge(generator.normal(size=n), asked, noise=generator))
    met = [frozenset(pair) for pair in asked]
    assert len(met) == len(set(met))
    rounds = math.ceil(math.log2(n))
    assert len(asked) == rounds * (n // 2)
    played = [sum(i in pair for pair in met) for i in range(n)]
    assert min(played) >= rounds - 1


def test_double_elimination_takes_two_defeats_to_leave():
    asked, quality = [], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    scores = rank.play(rank.double_elimination(6, seeded=False), judge(quality, asked))
    defeats = [sum(i in pair and quality[i] < quality[sum(pair) - i] for pair in asked) for i in range(6)]
    assert defeats == [0, 2, 2, 2, 2, 2]
    assert scores.read(np.nan)[:2].tolist() == pytest.approx([1.0, 0.8])


def test_groups_are_played_in_step_and_kept_apart():
    groups = np.array([4, 1, 4, 1, 4, 9])
    quality, rounds = np.array([1.0, 5.0, 3.0, 4.0, 2.0, 0.0]), []

    def compare(first, second):
        assert (groups[first] == groups[second]).all()
        rounds.append(len(first))
        return judge(quality)(first, second)

    scores = rank.play(rank.by_group(groups, rank.elimination), compare)
    assert scores.read(np.nan)[:5].tolist() == pytest.approx([0.0, 1.0, 1.0, 0.0, 0.5])
    assert scores.reasons == {5: rank.ALONE}
    assert rounds == [3, 2, 1]  # anchors of both groups; the pair's final and the bye's neighbour; the last final
    assert len(rank.play(rank.by_group(np.array([], int), rank.win_rate), compare)) == 0


def test_bad_schedules_are_named():
    with pytest.raises(ValueError, match="the anchor is one of 3 items, got 3"):
        rank.play(rank.anchor(3, at=3), silent)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        rank.play(rank.swiss(3, rounds=0), silent)
    with pytest.raises(ValueError, match="3 pairs were to be compared, there are 1"):
        rank.play(rank.win_rate(3), lambda first, second: judge([0.0, 1.0])(first[:1], second[:1]))
    with pytest.raises(ValueError, match="prior must be positive"):
        rank.play(rank.bradley_terry(3, prior=0.0), silent)
    with pytest.raises(ValueError, match="n must not be negative"):
        rank.play(rank.win_rate(-1), silent)
