from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core import Scores, Spans

KINDS = pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["numpy", "torch"])
SPANS = Spans.of([[(0, 2), (2, 5)], [(0, 3)], []])


def steps(kind=np.array):
    """Rows of two, one and no steps; the first abstains at its second step."""
    return Scores(
        kind([[0.5, float("nan")], [0.25, 9.0], [9.0, 9.0]]),
        valid=kind([[True, False], [True, True], [True, True]]),
        spans=SPANS,
        reasons={0: "step 2 cannot be parsed"},
        details={"judge": ["a", "b", None]},
    )


# What a score can be


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@KINDS
def test_a_valid_score_is_finite(kind, wrong):
    with pytest.raises(ValueError, match=r"score \(1,\) is (nan|inf|-inf)"):
        Scores(kind([0.0, wrong]))
    with pytest.raises(ValueError, match=r"score \(0, 1\)"):
        Scores(kind([[0.0, wrong]]))


@KINDS
def test_an_abstention_has_a_reason(kind):
    for reasons in (None, {0: "another row"}, {1: ""}):
        with pytest.raises(ValueError, match="row 1 abstains without a reason"):
            Scores(kind([0.0, 0.0]), valid=kind([True, False]), reasons=reasons)
    with pytest.raises(ValueError, match="row 0 abstains without a reason"):
        Scores(kind([[0.0, 0.0]]), valid=kind([[True, False]]))


@KINDS
def test_a_row_that_is_not_asked_for_needs_neither_a_number_nor_a_reason(kind):
    scores = Scores(kind([1.0, float("nan")]), mask=kind([True, False]))
    assert scores.valid.tolist() == [True, False]
    assert scores.abstained.tolist() == [False, False]
    assert scores.to_columns()["score"] == [1.0, None]


def test_reasons_of_rows_that_do_not_abstain_are_dropped():
    scores = Scores(
        [1.0, 2.0, 3.0], valid=[True, False, True], mask=[True, True, False], reasons={0: "a", 1: "b", 2: "c"}
    )
    assert scores.reasons == {1: "b"}
    assert scores.to_columns()["reason"] == [None, "b", None]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one axis"):
        Scores(np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match="mask has shape"):
        Scores(np.zeros(2), mask=np.ones(3, bool))
    with pytest.raises(ValueError, match="valid has shape"):
        Scores(np.zeros((1, 2)), valid=np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="spans has shape"):
        Scores(np.zeros((3, 3)), mask=np.zeros((3, 3), bool), spans=SPANS)
    with pytest.raises(ValueError, match="detail 'x' has 1 entries for 2 rollouts"):
        Scores(np.zeros(2), details={"x": [1]})


def test_numbers_and_flags_of_other_types_mean_the_same():
    """Whole numbers do not round what they are filled with, and 0 and 1 are truth values, not bits."""
    for scores in (
        Scores([1, 2], valid=[1, 0], reasons={1: "no"}),
        Scores(torch.tensor([1, 2]), valid=torch.tensor([1, 0]), reasons={1: "no"}),
    ):
        assert scores.read(0.5).tolist() == [1.0, 0.5]
        assert scores.abstained.tolist() == [False, True]
    half = Scores(
        torch.tensor([1.5, float("nan")], dtype=torch.bfloat16), valid=torch.tensor([True, False]), reasons={1: "no"}
    )
    assert half.to_columns()["score"] == [1.5, None]
    assert "1.5" in repr(half)


# Reading


def test_read_is_the_only_way_to_the_numbers():
    """No public attribute or operator of a score is its array: whoever wants numbers says what stands for no number."""
    scores = Scores.of([0.25, 0.75])
    shown = {name: getattr(scores, name) for name in dir(scores) if not name.startswith("_")}
    for name, value in shown.items():
        array = np.asarray(value) if not callable(value) else np.zeros(0)
        assert array.dtype == bool or not (array.size and np.isin(0.25, array).any()), name
    for conversion in (np.asarray, lambda s: s + 1.0, float, list):
        with pytest.raises(Exception):  # noqa: B017, PT011
            np.testing.assert_allclose(conversion(scores), [0.25, 0.75])


@KINDS
def test_read_puts_the_fill_wherever_there_is_no_score(kind):
    assert steps(kind).read(-1.0).tolist() == [[0.5, -1.0], [0.25, -1.0], [-1.0, -1.0]]
    assert steps(kind).read(7.0).tolist() == [[0.5, 7.0], [0.25, 7.0], [7.0, 7.0]]


def test_read_and_with_values_keep_gradients():
    raw = torch.tensor([1.0, float("nan"), 3.0], requires_grad=True)
    scores = Scores(raw, valid=torch.tensor([True, False, True]), reasons={1: "no"})
    doubled = scores.with_values(2.0 * scores.read(0.0), parts={"raw": scores})
    doubled.select([2, 1]).read(0.0).sum().backward()
    assert raw.grad.tolist() == [0.0, 0.0, 2.0]


@KINDS
def test_usable_rows_are_scored_whole(kind):
    assert steps(kind).usable.tolist() == [False, True, False]
    assert steps(kind).abstained_rows == [0]
    flat = Scores(kind([1.0, 2.0]), valid=kind([True, False]), reasons={1: "no"})
    assert flat.usable.tolist() == [True, False]


@KINDS
def test_mean_is_over_the_scores_there_are(kind):
    assert steps(kind).mean() == pytest.approx(0.375)
    assert Scores.abstain(3, "no").mean() is None
    assert Scores(kind([0.0, 2.0, 4.0]), valid=kind([False, True, True]), reasons={0: "no"}).mean() == 3.0


def test_tally_counts_rows_by_reason_most_frequent_first():
    scores = Scores.of([None, 1.0, None, None], reasons={0: "late", 2: "dead", 3: "dead"})
    assert list(scores.tally().items()) == [("dead", 2), ("late", 1)]
    assert steps().tally() == {"step 2 cannot be parsed": 1}


def test_to_columns():
    assert steps().to_columns() == {
        "score": [[0.5, None], [0.25], []],
        "valid": [False, True, False],
        "reason": ["step 2 cannot be parsed", None, None],
        "details": [{"judge": "a"}, {"judge": "b"}, {}],
    }


def test_to_columns_names_the_details_of_parts_where_there_are_several():
    a = Scores.of([1.0, None], reasons={1: "no"}, details={"box": ["1", None]})
    b = Scores.of([0.5, 0.5], details={"box": ["2", "3"]})
    both = Scores([1.5, 0.0], valid=[True, False], reasons={1: "a: no"}, parts={"a": a, "b": b}).to_columns()
    assert both["details"] == [{"a.box": "1", "b.box": "2"}, {"b.box": "3"}]
    assert both["part.a"] == [1.0, None]
    assert both["part.b"] == [0.5, 0.5]
    assert Scores([1.5], parts={"a": a.select([0])}).to_columns()["details"] == [{"box": "1"}]


# Making


def test_of_turns_what_is_no_number_into_abstentions_that_say_what_it_was():
    scores = Scores.of([1, None, float("nan"), float("-inf"), 2.0], reasons={4: "judge timed out"})
    assert scores.valid.tolist() == [True, False, False, False, False]
    assert scores.reasons == {
        1: "no score was returned",
        2: "the score was nan, not a finite number",
        3: "the score was -inf, not a finite number",
        4: "judge timed out",
    }
    masked = Scores.of([None, 1.0], mask=np.array([False, True]))
    assert masked.reasons == {}
    assert len(Scores.of([])) == 0


def test_abstain_gives_every_asked_row_its_reason():
    scores = Scores.abstain(3, "no worker", mask=np.array([True, False, True]))
    assert scores.reasons == {0: "no worker", 2: "no worker"}
    assert scores.read(5.0).tolist() == [5.0, 5.0, 5.0]


def test_with_values_keeps_what_is_not_given():
    changed = steps().with_values(np.ones((3, 2)), reasons={0: "late"}, details={"more": [1, 2, 3]})
    assert changed.valid.tolist() == steps().valid.tolist()
    assert changed.spans is SPANS
    assert changed.reasons == {0: "late"}
    assert changed.details == {"judge": ["a", "b", None], "more": [1, 2, 3]}
    assert changed.read(0.0).tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


# Slicing and joining


@pytest.mark.parametrize("index", [[2, 0, 0], np.array([2, 0, 0]), torch.tensor([2, 0, 0])])
@KINDS
def test_select_takes_rows_with_all_that_belongs_to_them(kind, index):
    some = steps(kind).with_values(steps(kind).read(0.0), parts={"raw": steps(kind)}).select(index)
    assert some.read(-1.0).tolist() == [[-1.0, -1.0], [0.5, -1.0], [0.5, -1.0]]
    assert some.reasons == {1: "step 2 cannot be parsed", 2: "step 2 cannot be parsed"}
    assert some.details["judge"] == [None, "a", "a"]
    assert some.spans.rows() == [[], [(0, 2), (2, 5)], [(0, 2), (2, 5)]]
    assert some.parts["raw"].reasons == some.reasons


@KINDS
def test_select_by_slice_mask_or_nothing(kind):
    scores = Scores(kind([1.0, 2.0, 3.0]), valid=kind([True, True, False]), reasons={2: "no"})
    assert scores.select(slice(1, None)).read(0.0).tolist() == [2.0, 0.0]
    assert scores.select([False, True, True]).reasons == {1: "no"}
    assert scores.select([-1]).reasons == {0: "no"}
    assert len(scores.select([])) == 0
    assert len(steps(kind).select(np.zeros(3, bool))) == 0


@KINDS
def test_concat_pads_steps_and_moves_reasons(kind):
    wide = Scores(kind([[1.0, 2.0, 3.0]]), spans=Spans.of([[(0, 1), (1, 2), (2, 9)]]), details={"note": ["n"]})
    both = Scores.concat([wide, steps(kind), wide])
    assert both.read(-1.0).tolist() == [
        [1.0, 2.0, 3.0], [0.5, -1.0, -1.0], [0.25, -1.0, -1.0], [-1.0, -1.0, -1.0], [1.0, 2.0, 3.0],
    ]  # fmt: skip
    assert both.reasons == {1: "step 2 cannot be parsed"}
    assert both.details == {"note": ["n", None, None, None, "n"], "judge": [None, "a", "b", None, None]}
    assert both.spans.rows()[1:3] == [[(0, 2), (2, 5)], [(0, 3)]]
    assert isinstance(both.read(0.0), torch.Tensor) == (kind is torch.tensor)


def test_concat_of_a_leaf_that_was_not_asked_for_and_one_that_was():
    """What the engine gives for a step leaf without rows has no steps and no spans."""
    unasked = Scores(np.zeros((2, 0)), mask=np.zeros((2, 0), bool))
    both = Scores.concat([unasked, steps()])
    assert both.spans.rows() == [[], [], *SPANS.rows()]
    # Steps whose place is unknown leave none known.
    assert Scores.concat([Scores(np.ones((1, 2))), steps()]).spans is None


def test_concat_of_numpy_and_torch_is_torch():
    joined = Scores.concat([Scores(np.array([1.0])), Scores(torch.tensor([2.0], requires_grad=True))])
    assert joined.read(0.0).requires_grad
    assert joined.read(0.0).tolist() == [1.0, 2.0]


def test_concat_refuses_what_does_not_belong_together():
    flat = Scores.of([1.0])
    with pytest.raises(ValueError, match="one level"):
        Scores.concat([flat, steps()])
    with pytest.raises(ValueError, match="at least one"):
        Scores.concat([])
    with pytest.raises(ValueError, match="same parts"):
        Scores.concat([flat, flat.with_values(flat.read(0.0), parts={"a": flat})])


ANY = st.lists(st.none() | st.floats(-1e6, 1e6), max_size=12)


@given(ANY, st.data())
@settings(max_examples=50, deadline=None)
def test_select_and_concat_agree_with_lists(values, data):
    scores = Scores.of(
        values, reasons={i: f"row {i}" for i, v in enumerate(values) if v is None}, details={"v": values}
    )
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12) if values else st.just([]))
    some = Scores.concat([scores, scores.select(rows)])
    expected = values + [values[i] for i in rows]
    assert some.to_columns()["score"] == expected
    assert some.to_columns()["reason"] == [None if v is not None else f"row {i}" for i, v in enumerate(values)] + [
        f"row {i}" if values[i] is None else None for i in rows
    ]
    assert some.details["v"] == expected


@KINDS
def test_restrict_and_union_take_a_measure_apart_and_together(kind):
    whole = Scores(kind([1.0, 2.0, 0.0]), valid=kind([True, True, False]), reasons={2: "no"}, details={"d": [1, 2, 3]})
    front, back = np.array([True, False, False]), np.array([False, True, True])
    assert whole.restrict(front).to_columns()["score"] == [1.0, None, None]
    assert whole.restrict(front).reasons == {}
    assert whole.restrict(front).restrict(front) is not whole
    assert whole.restrict(np.ones(3, bool)) is whole
    again = whole.restrict(back).union(whole.restrict(front))
    assert again.read(9.0).tolist() == [1.0, 2.0, 9.0]
    assert again.mask.all()
    assert again.reasons == {2: "no"}
    assert again.details["d"] == [1, 2, 3]


@KINDS
def test_restrict_and_union_of_steps(kind):
    first = np.array([True, False, False])
    assert steps(kind).restrict(first).read(-1.0).tolist() == [[0.5, -1.0], [-1.0, -1.0], [-1.0, -1.0]]
    again = steps(kind).restrict(~first).union(steps(kind).restrict(first))
    assert again.read(-1.0).tolist() == steps(kind).read(-1.0).tolist()
    assert again.reasons == steps(kind).reasons


def test_scores_travel_between_processes():
    there = pickle.loads(pickle.dumps(steps()))
    assert there.to_columns() == steps().to_columns()
    assert copy.deepcopy(steps()).spans.rows() == SPANS.rows()
