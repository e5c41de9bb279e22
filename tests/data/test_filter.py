import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon.core import Context, MissingInput, Rollouts, Scores, SpecError
from guerdon.data import adaptive, chain, dump_filter, load_filter, measured, mixed, upper, varied, within


def batch(groups):
    return Context(Rollouts([f"p{g}" for g in groups], [""] * len(groups), groups=np.array(groups)))


def kept(given, values, groups, **parts):
    return given.keep(scored(values, **parts), batch(groups)).tolist()


def scored(values, *, parts=None, details=None):
    plain = Scores.of(values)
    return plain.with_values(plain.read(0.0), parts=parts, details=details)


def test_prime_keeps_prompts_whose_accuracy_is_in_the_band():
    accuracy = {0: [0, 0, 0, 0, 0], 1: [1, 0, 0, 0, 0], 2: [1, 1, 1, 1, 0], 3: [1, 1, 1, 1, 1]}
    values, groups = [x for row in accuracy.values() for x in row], np.repeat(list(accuracy), 5)
    assert kept(within(low=0.2, high=0.8), values, groups) == [False, True, True, False]


@pytest.mark.parametrize("solved", [0, 1, 8, 15, 16])
def test_dler_discards_prompts_whose_16_rollouts_are_all_right_or_all_wrong(solved):
    values = [1.0] * solved + [0.0] * (16 - solved)
    assert kept(varied(), values, [0] * 16) == [0 < solved < 16]


def test_rewards_that_differ_by_rounding_do_not_vary():
    assert kept(varied(), [0.1 + 0.2, 0.3, 1e9, 1e9 + 1e-3], [0, 0, 1, 1]) == [False, False]
    assert kept(within(statistic="std", low=1e-300), [0.1 + 0.2, 0.3], [0, 0]) == [False]


def test_groups_are_answered_in_rising_order_of_their_numbers():
    values, groups = [1.0, 0.0, 1.0, 1.0, 0.0], [7, 3, 7, 3, 5]
    assert kept(varied(), values, groups) == [True, False, False]  # groups 3, 5, 7
    assert varied().rows(scored(values), batch(groups)).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    "given", [varied(), within(), upper(drop=0.0), adaptive(share=0.0), chain()], ids=lambda f: f.name
)
def test_a_group_of_which_nothing_was_scored_is_never_kept(given):
    scores = Scores.of([None, None, 1.0, 0.0], reasons={0: "dead", 1: "dead"})
    assert given.keep(scores, batch([0, 0, 1, 1])).tolist() == [False, True]


def test_an_abstention_is_no_evidence_of_difference():
    scores = Scores.of([1.0, None, 1.0, 0.0], reasons={1: "deadline"})
    assert varied().keep(scores, batch([0, 0, 1, 1])).tolist() == [False, True]


def test_a_filter_reads_the_part_it_names_and_not_the_shaped_reward():
    shaped = scored([0.3, 0.7, 0.2, 0.9], parts={"correct": Scores.of([1.0, 1.0, 0.0, 1.0])})
    assert varied().keep(shaped, batch([0, 0, 1, 1])).tolist() == [True, True]
    assert varied(of="correct").keep(shaped, batch([0, 0, 1, 1])).tolist() == [False, True]


def test_a_detail_is_read_by_its_name_or_with_its_part():
    one = Scores.of([0.0, 0.0], details={"spread": [1.0, None]})
    two = Scores.of([0.0, 0.0], details={"spread": [3.0, math.inf]})
    values, valid = measured(scored([0, 0], parts={"a": one}), "spread")
    assert values.tolist() == [1.0, 0.0]
    assert valid.tolist() == [True, False]
    both = scored([0, 0], parts={"a": one, "b": two})
    assert measured(both, "b.spread")[0].tolist() == [3.0, 0.0]
    with pytest.raises(MissingInput, match="several parts"):
        measured(both, "spread")
    with pytest.raises(MissingInput, match=r"'speed' is neither.*a\.spread"):
        measured(both, "speed")


def test_dro_drops_by_rank_first_and_then_the_least_spread_of_what_is_left():
    """Four prompts of two reasonings. No reasoning brings prompt 1 under rank 10; of the others, 2 has least spread."""
    details = {"worst_rank": [50, 4, 90, 30, 2, 3, 9, 9], "spread": [0.9, 0.9, 0.01, 0.01, 0.2, 0.2, 0.8, 0.8]}
    scores = scored([0.0] * 8, parts={"r3": Scores.of([0.0] * 8, details=details)})
    by_rank = within(of="worst_rank", statistic="min", high=9)
    by_spread = upper(of="spread", drop=1 / 3)
    groups = batch([0, 0, 1, 1, 2, 2, 3, 3])
    assert chain((by_rank, by_spread)).keep(scores, groups).tolist() == [True, False, False, True]
    assert by_spread.keep(scores, groups).tolist() == [True, False, True, True]  # alone, it would drop prompt 1


def test_rlpr_filter_keeps_wide_groups_only_and_all_at_beta_0():
    rng = np.random.default_rng(0)
    narrow, wide = rng.normal(0, 0.01, (2, 8)), rng.normal(0, 1.0, (2, 8))
    values, groups = np.concatenate([narrow, wide]).ravel(), np.repeat(np.arange(4), 8)
    for share, expected in ((0.5, [False, False, True, True]), (0.0, [True] * 4)):
        given = adaptive(share=share)
        for _ in range(10):
            given.observe(scored(values), batch(groups))
        assert kept(given, values, groups) == expected


def test_rlpr_running_mean_is_collected_from_step_6_and_active_from_step_11():
    """σ̄ of step k is k; steps 1 to 5 are not seen, and the mean moves by 1 % of the difference each step."""
    given, expected = adaptive(share=1.0), None
    for step in range(1, 15):
        values = [step, -step]  # σ = step
        active = not given.keep(scored([1e-3, -1e-3]), batch([0, 0])).item()
        assert active == (step >= 11)
        given.observe(scored(values), batch([0, 0]))
        if step > 5:
            expected = step if expected is None else 0.99 * expected + 0.01 * step
            assert given.state["mean"] == pytest.approx(expected)
    assert kept(given, [expected, -expected], [0, 0]) == [True]
    assert kept(given, [0.99 * expected, -0.99 * expected], [0, 0]) == [False]


def decs(shares, solved, varied_):
    """Scores of a batch: solved groups whose first sufficient step is such a share of ten, and groups that vary."""
    rows = [[1.0, 1.0]] * solved + [[1.0, 0.0]] * varied_
    judged = np.zeros((2 * len(rows), 10))
    for row in range(len(judged)):
        if np.ravel(rows)[row]:
            judged[row, round(shares * 10) - 1 :] = 1.0
    parts = {"correct": Scores.of(np.ravel(rows).tolist()), "answered": Scores(judged)}
    return scored(np.ravel(rows).tolist(), parts=parts), batch(np.repeat(np.arange(len(rows)), 2))


def test_decs_mixes_in_solved_prompts_as_kappa_grows():
    """R 0.5 → 0.8 → 1.0 gives κ = 0.2·0.3 = 0.06, then 0.06 + 0.2·0.2 = 0.1: of 9 varied prompts ⌊0.1·9/0.9⌋ = 1."""
    given = mixed(of="correct", judged="answered")
    scores, context = decs(0.8, solved=3, varied_=9)
    assert given.keep(scores, context).tolist() == [False] * 3 + [True] * 9  # κ = 0: none
    given.observe(scores, context)
    assert given.state_dict() == pytest.approx({"kappa": 0.06, "share": 0.8})
    assert given.keep(scores, context)[:3].tolist() == [False, False, False]  # ⌊0.06·9/0.94⌋ = 0
    scores, context = decs(1.0, solved=3, varied_=9)
    given.observe(scores, context)
    assert given.keep(scores, context).tolist() == [True, False, False] + [True] * 9


def test_decs_takes_no_more_solved_prompts_than_there_are_and_none_of_the_unsolved():
    given = mixed(judged="answered", rate=10.0)
    scores, context = decs(1.0, solved=2, varied_=1)
    given.observe(scores, context)  # κ = 5: all of them
    hopeless = scored([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    assert given.keep(hopeless, batch([0, 0, 1, 1, 2, 2])).tolist() == [False, True, True]


def test_decs_says_what_it_misses():
    scores, context = decs(0.5, solved=1, varied_=1)
    with pytest.raises(MissingInput, match="part 'chunks' is missing"):
        mixed(judged="chunks").observe(scores, context)
    with pytest.raises(ValueError, match="judged: part 'correct' has one score per rollout"):
        mixed(judged="correct").observe(scores, context)


def test_upper_drops_exactly_the_share_and_of_equal_ones_the_later():
    values = [0.5, 0.5, 0.5, 0.5, 0.9]
    assert kept(upper(drop=0.4, statistic="mean"), values, range(5)) == [True, True, False, False, True]
    assert sum(kept(upper(drop=0.3), list(np.arange(10.0)), range(10))) == 7  # 0.3 · 10 is a little less than 3


@pytest.mark.parametrize("statistic", ["mean", "std", "min", "max"])
def test_statistics_are_those_of_numpy_over_what_was_scored(statistic):
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=40), rng.integers(0, 6, 40)
    missing = rng.random(40) < 0.3
    scores = Scores.of([None if gone else x for x, gone in zip(values, missing, strict=True)])
    for group, expected in ((g, getattr(np, statistic)(values[(groups == g) & ~missing])) for g in range(6)):
        inside = within(statistic=statistic, low=expected - 1e-9, high=expected + 1e-9)
        assert inside.keep(scores, batch(groups))[group]


def test_state_goes_through_json_and_back():
    given = chain((varied(), adaptive(skip=0, wait=0, share=1.0)))
    given.observe(scored([1.0, 0.0]), batch([0, 0]))
    again = chain((varied(), adaptive(skip=0, wait=0, share=1.0)))
    again.load_state_dict(json.loads(json.dumps(given.state_dict())))
    assert kept(again, [0.4, 0.0], [0, 0]) == kept(given, [0.4, 0.0], [0, 0]) == [False]
    assert kept(chain((varied(), adaptive(skip=0, wait=0))), [0.4, 0.0], [0, 0]) == [True]
    with pytest.raises(ValueError, match="got state for number 5"):
        again.load_state_dict({"5": {}})
    with pytest.raises(ValueError, match=r"data\.varied has no state"):
        varied().load_state_dict({"mean": 1.0})


def test_a_chained_filter_observes_what_those_before_it_kept():
    given = chain((varied(of=None), adaptive(statistic="mean", skip=0, wait=0)))
    given.observe(scored([1.0, 0.0, 9.0, 9.0]), batch([0, 0, 1, 1]))
    assert given.filters[1].state["mean"] == 0.5


@pytest.mark.parametrize(
    "given",
    [
        varied(of="correct"),
        within(low=0.2, high=0.8),
        upper(of="spread", drop=0.1),
        adaptive(share=0.9),
        mixed(judged="answered", of="correct"),
        chain((varied(), chain((within(high=0.5),)))),
        chain(),
    ],
    ids=lambda f: f.name,
)
def test_filters_are_data_and_back(given):
    assert load_filter(json.loads(json.dumps(dump_filter(given), allow_nan=True))) == given


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"part": "data.varyed"}, "there is no part 'data.varyed'"),
        ({"part": "data.within", "lo": 0.2}, "did you mean 'low'"),
        ({"part": "data.within", "low": "much"}, "filter.low: expected a number"),
        ({"part": "data.within", "low": 1, "high": 0}, "low must not be above high"),
        (["data.varied", {"part": "shaping.center"}], r"filter\[1\]: 'shaping.center' is not a filter"),
        ({"low": 1}, "a filter is written"),
        (3, "a filter is written"),
        ("data.chain", "a chain is written as the list"),
    ],
)
def test_data_that_is_no_filter_is_refused_with_the_place(data, message):
    with pytest.raises(SpecError, match=message):
        load_filter(data)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: within(statistic="median"), "statistic is"),
        (lambda: upper(drop=1.5), "drop lies between"),
        (lambda: adaptive(decay=1.0), "decay lie in"),
        (lambda: mixed(judged="a", rate=-1.0), "rate must not be negative"),
    ],
    ids=["statistic", "drop", "decay", "rate"],
)
def test_options_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(-1e6, 1e6)), st.integers(0, 4)), max_size=30),
    st.sampled_from([varied(), within(low=-1), upper(drop=0.5), adaptive(skip=0, wait=0), chain((varied(), upper()))]),
)
def test_filters_answer_every_group_whatever_abstains_and_in_whatever_order(rows, given):
    values, groups = [v for v, _ in rows], [g for _, g in rows]
    given.observe(Scores.of(values), batch(groups))
    answer = given.keep(Scores.of(values), batch(groups))
    assert answer.shape == (len(set(groups)),)
    assert answer.dtype == bool
    backwards = given.keep(Scores.of(values[::-1]), batch(groups[::-1]))
    assert backwards.tolist() == answer.tolist()
    given.load_state_dict({})
