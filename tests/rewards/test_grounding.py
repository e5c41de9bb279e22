"""Replies that say where something is, read and scored: forms, units, broken answers and broken references."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon import Rollouts
from guerdon.algebra import spec
from guerdon.core.errors import Abstain
from guerdon.rewards import grounding
from guerdon.rewards.grounding.reading import listing, numbers

BOX = [100, 100, 200, 140]
TWO = [{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [20, 0, 30, 10], "label": "dog"}]


def scored(leaf, completions, **columns):
    completions = [completions] if isinstance(completions, str) else completions
    full = {name: [column] * len(completions) for name, column in columns.items()}
    return leaf.score(Rollouts(["?"] * len(completions), list(completions), full))


def value(leaf, completion, **columns):
    return scored(leaf, [completion], **columns).read(math.nan)[0]


def problem(leaf, completion, **columns):
    scores = scored(leaf, [completion], **columns)
    (part,) = scores.parts.values()
    assert scores.valid.all()
    assert scores.read(math.nan)[0] == leaf.floor
    return part.details["problem"][0]


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "[100, 100, 200, 140]", "It is at [100,100,200,140].", '[{"bbox_2d": [100, 100, 200, 140], "label": "ok"}]',
        "<think>[0, 0, 1, 1]</think>[100, 100, 200, 140]", "(100, 100, 200, 140)", "[[100.0, 1e2, 2e2, 140]]",
        "first [1, 2], then [100, 100, 200, 140] or [0, 0, 5, 5]",
        [{"role": "assistant", "content": "[100, 100, 200, 140]"}, {"role": "tool", "content": "[0, 0, 1, 1]"}],
    ],
    ids=["bare", "sentence", "json", "thought", "round", "numbers", "first", "chat"],
)  # fmt: skip
def test_a_box_is_the_first_bracket_of_four(said):
    assert value(grounding.iou(), said, box=BOX) == 1.0


@pytest.mark.parametrize(
    "said",
    [
        "(150, 120)", "[150, 120]", "click(x=150, y=120)", "click(start_box='(150,120)')", '{"point_2d": [150, 120]}',
        '{"x": 150, "y": 120}', "[100, 100, 200, 140]", "tap(150.0,120.0) then (0, 0)",
    ],
)  # fmt: skip
def test_a_click_is_a_bracket_of_two_or_the_middle_of_four(said):
    assert value(grounding.inside(), said, box=BOX) == value(grounding.gaussian(), said, box=BOX) == 1.0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "no box"), ("none", "no box"), ("[1, 2, 3]", "no box"), ("[1, 2, 3, four]", "no box"),
        ("<think>[100, 100, 200, 140]", "no box"), ("<think>[100, 100, 200, 140]</think>there", "no box"),
        ("[200, 100, 100, 140]", "not a box"), ("[100, 140, 200, 100]", "not a box"), ("[5, 5, 5, 5]", "not a box"),
        ("[nan, 100, 200, 140]", "not a finite place"), ("[100, 100, inf, 140]", "not a finite place"),
        ("[-1e999, 0, 1, 1]", "not a finite place"), ("[0, 0, 1e200, 1]", "not a box"),
        ("[" * 5000, "no box"), ("[" + "1" * 9000 + "," * 3, "no box"),
    ],
)  # fmt: skip
def test_answers_that_are_no_box_get_the_floor_and_a_reason(said, why):
    columns = {"box": BOX}
    for leaf in (grounding.iou(), grounding.iou(generalized=True), grounding.coverage()):
        assert problem(leaf, said, **columns).startswith(why)
    assert problem(grounding.edges(), said, **columns, size=[1000, 500]).startswith(why)
    for leaf in (grounding.inside(), grounding.gaussian()):
        assert problem(leaf, said, **columns).startswith(why.replace("no box", "no point"))


@pytest.mark.parametrize(
    "reference",
    [
        None,
        [],
        [1, 2, 3],
        [200, 100, 100, 140],
        [1, 1, 1, 1],
        [0, 0, math.nan, 1],
        [0, 0, math.inf, 1],
        "x",
        7,
        {},
        [[]],
    ],
)
def test_a_reference_that_is_no_box_abstains(reference):
    for leaf in (grounding.iou(), grounding.inside(), grounding.gaussian(), grounding.coverage()):
        rows = Rollouts(["?"] * 2, ["[100, 100, 200, 140]"] * 2, {"box": [reference, BOX]})
        scores = leaf.score(rows)
        assert scores.abstained.tolist() == [True, False]
        assert "reference is not a usable box" in scores.reasons[0]


@pytest.mark.parametrize(
    "reference", [BOX, tuple(BOX), np.array(BOX), [BOX], "[100, 100, 200, 140]", {"bbox_2d": BOX}, [{"bbox": BOX}]]
)
def test_references_in_any_form(reference):
    assert value(grounding.iou(), str(BOX), box=reference) == 1.0
    assert value(grounding.iou(), str(BOX), box=reference) == 1.0


def test_units_of_the_answer():
    box, size = [100, 50, 200, 100], [1000, 500]
    for units, said, more in (
        ("unit", "[0.1, 0.1, 0.2, 0.2]", {}),
        ("thousand", "[100, 100, 200, 200]", {}),
        ("seen", "[10, 20, 20, 40]", {"seen": [100, 200]}),
    ):
        leaf = grounding.iou(units=units)
        assert value(leaf, said, box=box, size=size, **more) == pytest.approx(1.0)
        assert leaf.requires == {"completion", "box", "size", *more}
        for wrong in (None, [0, 5], [10], [math.nan, 1], "x"):
            scores = scored(leaf, said, box=box, size=wrong, **more)
            assert "column 'size'" in scores.reasons[0]
        assert value(grounding.inside(units=units), said, box=box, size=size, **more) == 1.0
        listed = grounding.detection(units=units)
        assert value(listed, f"[{said}]", boxes=[box], size=size, **more) == pytest.approx(1.0)
    assert "column 'seen'" in scored(grounding.iou(units="seen"), "[1,1,2,2]", box=box, size=size, seen=None).reasons[0]


def test_lists_of_boxes_in_any_form():
    both = [[0, 0, 10, 10], [20, 0, 30, 10]]
    for said in (
        json.dumps(TWO), json.dumps(both), json.dumps({"objects": TWO}), "```json\n" + json.dumps(TWO) + "\n```",
        str(TWO), "the cat [0, 0, 10, 10], the dog [20, 0, 30, 10]", json.dumps(TWO)[:-1],
        json.dumps([*TWO, {"bbox_2d": [1, 2]}])[:-12],
    ):  # fmt: skip
        assert listing(said).boxes[:2] == both
        assert value(grounding.detection(), said, boxes=TWO) >= 2 / 3
    assert listing(json.dumps([*TWO, TWO[0]])[:-20]).labels == ["cat", "dog"], "cut JSON keeps its whole entries"
    assert listing("[1, 2, 3, 4]").boxes == [[1, 2, 3, 4]]
    assert listing('{"bbox_2d": [1, 2, 3, 4]}').boxes == [[1, 2, 3, 4]]
    assert listing("[]").boxes == listing("None.").boxes == []
    assert listing("hello") is None
    assert listing("[1, 2, 3, 4] it is", form="json") is None
    assert listing(json.dumps(TWO), form="brackets").labels == [None, None]
    assert listing("box: [0, 0, 0, 1, 1, 1]", axes=3).boxes == [[0, 0, 0, 1, 1, 1]]
    assert numbers("a [1, 2] b [1, 2, 3, 4]", 4) == [1, 2, 3, 4]
    huge = listing("[[0, 0, 1" + "0" * 400 + ", 1]]")
    assert huge.boxes == [[0, 0, math.inf, 1]]


# --- lists of boxes ----------------------------------------------------------------------------------------------


def test_what_is_missed_and_what_is_made_up_costs():
    one, two, far = "[0, 0, 10, 10]", "[20, 0, 30, 10]", "[70, 70, 80, 80]"

    def detect(*boxes, **options):
        return value(grounding.detection(**options), f"[{', '.join(boxes)}]", boxes=TWO)

    assert detect(one, two) == 1.0
    assert [detect(one, per=per) for per in ("max", "pred", "gt", "matched")] == [0.5, 1.0, 0.5, 1.0]
    assert [detect(one, two, far, far, per=per) for per in ("max", "pred", "gt", "matched")] == [0.5, 0.5, 1.0, 1.0]
    assert detect(one, one) == 0.5
    assert detect(one, one, match="best") == 1.0, "the hack of taking the best target each"
    assert detect(one, one, two, duplicates="drop") == 1.0
    assert detect("[0, 0, 10, 6]", two, band=(0.5, 0.75)) == pytest.approx((0.6 + 1) / 2)
    assert detect("[0, 0, 10, 8]", two, band=(0.5, 0.75)) == 1.0
    assert detect("[0, 0, 10, 4]", two, band=(0.5, 0.75)) == 0.5
    assert detect("[0, 0, 10, 5]", two, credit="count", above=0.5) == 0.5
    assert detect("[0, 0, 10, 5]", two, credit="count", above=0.5, inclusive=True) == 1.0


def test_labels_count_before_matching_or_after():
    swapped = [{**TWO[0], "label": "dog"}, {**TWO[1], "label": " DOG "}]
    options = [
        value(grounding.detection(labels=x), json.dumps(swapped), boxes=TWO) for x in ("ignore", "before", "after")
    ]
    assert options == [1.0, 0.5, 0.5]
    # One target of two labels: matched by place, then worth nothing; matched by label, worth its smaller overlap.
    said = [{"box": [0, 0, 10, 10], "label": "dog"}, {"box": [0, 0, 10, 5], "label": "cat"}]
    assert value(grounding.detection(labels="after"), json.dumps(said), boxes=TWO[:1]) == 0.0
    assert value(grounding.detection(labels="before"), json.dumps(said), boxes=TWO[:1]) == 0.25
    assert value(grounding.detection(labels="before"), "[[0, 0, 10, 10]]", boxes=TWO) == 0.0


def test_saying_that_nothing_is_there():
    for leaf in (grounding.detection(), grounding.confidence(), grounding.average_precision()):
        assert value(leaf, "[]", boxes=[]) == value(leaf, "None", boxes="[]") == 1.0
        assert value(leaf, "[[0, 0, 1, 1]]", boxes=[]) == 0.0
        assert value(leaf, "[]", boxes=TWO) == 0.0
    generous = grounding.detection(generalized=True, above=-1)
    assert generous.range == (-1, 1)
    assert value(generous, "[]", boxes=TWO) == -1.0, "silence is no better than a far box"


def test_floods_are_cut_and_still_cost():
    flood = "[" + ", ".join(["[0, 0, 10, 10]", "[20, 0, 30, 10]"] * 5000) + "]"
    for match in ("hungarian", "greedy", "order"):
        assert value(grounding.detection(match=match), flood, boxes=TWO) == pytest.approx(2 / 10_000)
    assert value(grounding.average_precision(labels="ignore"), flood, boxes=TWO) == pytest.approx(2 / 10_000)
    scores = scored(grounding.detection(most=1), "[[0, 0, 10, 10], [20, 0, 30, 10]]", boxes=TWO)
    assert scores.read(0.0).tolist() == [0.5]
    assert scores.to_columns()["details"] == [{"predicted": 2, "matched": 1}]


@pytest.mark.parametrize(
    "said", ["", "no", "{}", "7", '"x"', "[1, 2", "null", "[[[[", "{" * 3000, "<think>[[0, 0, 1, 1]]"]
)
def test_lists_that_cannot_be_read_get_the_floor_and_a_reason(said):
    for leaf in (grounding.detection(form="json"), grounding.confidence(), grounding.average_precision(form="json")):
        assert problem(leaf, said, boxes=TWO) in ("no boxes that can be read", "none of 1 is a box")


def test_boxes_that_are_none_are_said_and_match_nothing():
    said = "[[0, 0, 10, 10], [30, 0, 20, 10], [NaN, 0, 1, 1], [1, 2], 7]"
    assert value(grounding.detection(), said, boxes=TWO) == pytest.approx(1 / 5)
    assert problem(grounding.detection(), "[[30, 0, 20, 10]]", boxes=TWO) == "none of 1 is a box"
    assert value(grounding.average_precision(labels="ignore"), said, boxes=TWO) == pytest.approx(51 / 101 * 2 / 5)


@pytest.mark.parametrize("reference", [None, 7, "x", [[1, 2]], [[1, 1, 0, 0]], [[0, 0, math.nan, 1]], {"a": 1}, [None]])
def test_references_that_are_no_boxes_abstain(reference):
    for leaf in (grounding.detection(), grounding.confidence(), grounding.average_precision(), grounding.clicks()):
        scores = scored(leaf, "[[0, 0, 1, 1]]", boxes=reference)
        assert "reference is not a list of boxes" in scores.reasons[0]


def test_repeated_boxes():
    assert value(grounding.repetition(), json.dumps(TWO)) == 0.0
    assert value(grounding.repetition(), json.dumps([*TWO, *TWO])) == -0.5
    assert value(grounding.repetition(), json.dumps([{**TWO[0], "label": x} for x in "abcd"])) == 0.0
    assert value(grounding.repetition(), "[[1], [1]]") == -0.5
    assert value(grounding.repetition(), "nothing") == 0.0


# --- time, frames, trails ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"start_time": "2.0", "end_time": "6.0"}', 1.0), ('{"end_time": 6, "start_time": 2}', 1.0), ("[2, 6]", 1.0),
        ("[4, 8]", 2 / 6), ("[6, 8]", 0.0), ("[0, 10]", 0.4), ("[6, 2]", 0.0), ("[2, 2]", 0.0), ("[2, nan]", 0.0),
        ("from 2 to 6", 0.0), ("", 0.0),
    ],
)  # fmt: skip
def test_stretches_of_time(said, expected):
    assert value(grounding.span(), said, span=[2, 6]) == pytest.approx(expected)
    assert value(grounding.span(reference="share"), said, span=[0.2, 0.6], duration=10) == pytest.approx(expected)


def test_stretches_of_time_that_are_none():
    assert problem(grounding.span(), "[6, 2]", span=[2, 6]).startswith("not a stretch of time")
    assert problem(grounding.span(), "", span=[2, 6]) == "no stretch of time"
    for wrong in (None, [2], [6, 2], [2, 2], "x", [0, math.nan]):
        assert "not a stretch of time" in scored(grounding.span(), "[2, 6]", span=wrong).reasons[0]
    for wrong in (None, 0, -1, math.nan, "x"):
        scores = scored(grounding.span(reference="share"), "[2, 6]", span=[0, 1], duration=wrong)
        assert "column 'duration'" in scores.reasons[0]


def key(frame, boxes):
    return f"<think>…</think><answer>{json.dumps({'keyframe_timestamp': frame, 'bbox_2d_list': boxes})}</answer>"


def test_frames_that_were_not_shown_and_references_that_are_none():
    columns = {"frames": [1, 2], "masks": [[[1, 0]], [[1, 1]]], "boxes": [[[0, 0, 1, 1]], [[0, 0, 2, 1]]]}
    leaves = (
        (grounding.key_frame(), ("frames", "masks")),
        (grounding.key_boxes(), ("frames", "boxes")),
        (grounding.segmentation(), ("frames", "masks", "boxes")),
    )
    for leaf, names in leaves:
        own = {name: columns[name] for name in names}
        assert problem(leaf, key(3, [[0, 0, 1, 1]]), **own) == "frame 3 was not shown"
        for said in ("", "<answer>{}</answer>", key("1", []), key(True, []), key(1.0, []), key(1, {}), key(None, [])):
            assert problem(leaf, said, **own) == "no key frame and boxes"
        for name in names:
            if name == "boxes" and leaf.name == "grounding.segmentation":
                continue
            for wrong in (None, 7, [], [None, None]):
                scores = scored(leaf, key(1, [[0, 0, 1, 1]]), **{**own, name: wrong})
                assert scores.abstained.all() or (name == "frames" and wrong == [None, None])
    nowhere = scored(grounding.key_frame(), key(1, []), frames=[1, 2], masks=[0, 0])
    assert "shows the object nowhere" in nowhere.reasons[0]


def test_a_segmenter_that_fails_is_no_score():
    def broken(video, boxes, frame):
        raise RuntimeError(f"no {video}")

    def crooked(video, boxes, frame):
        return np.zeros((1, 1, 1))

    columns = {"frames": [1, 2], "masks": [[[1, 0]], [[1, 1]]], "video": "a.mp4"}
    for propagate, why in ((broken, "RuntimeError: no a.mp4"), (crooked, "masks of shape (1, 1, 1)")):
        scores = scored(grounding.segmentation(propagate=propagate), key(1, [[0, 0, 1, 1]]), **columns)
        assert why in scores.reasons[0]


def test_clicks_of_a_trajectory():
    target, other = BOX, [300, 300, 340, 340]
    turns = [
        {"role": "user", "content": "(150, 120)"},
        {"role": "assistant", "content": "click(150, 120)"},
        {"role": "tool", "content": "(320, 320)"},
        {"role": "assistant", "content": "click(340, 320)"},
    ]
    leaf = grounding.clicks()
    assert value(leaf, turns, boxes=[target, other]) == pytest.approx((1 + math.exp(-0.5)) / 2)
    assert value(leaf, turns[:2], boxes=[target, other]) == 0.5
    assert value(leaf, turns, boxes=[target]) == 0.5, "a further step does not pay"
    assert value(leaf, "(150, 120)\n\n[320, 320, 300, 300]", boxes=[target, other]) == 0.5
    assert value(grounding.clicks(measure="inside"), turns, boxes=[target, other]) == 1.0
    assert problem(leaf, "", boxes=[target]) == "no steps"
    assert "no steps" in scored(leaf, "(1, 1)", boxes=[]).reasons[0]


def test_grids_in_any_form():
    solution = [[1, 2], [3, 4]]
    leaf = grounding.grid(block=(1, 2))
    for said in ("12\n34", "1 2\n3 4", "[[1, 2], [3, 4]]", "So:\n```\n12\n34\n```", '[["1", "2"], ["3", "4"]]'):
        for wanted in (solution, "12\n34", np.array(solution), json.dumps(solution)):
            assert leaf.evaluate(said, wanted) == (1.0, {"problem": None})
    for said in ("", "1", "12\n3", "12\n34\n56", "[[1, 2], 3]", "[[[1]]]", "7"):
        assert leaf.evaluate(said, solution)[0] == 0.0
        assert "is wanted" in leaf.evaluate(said, solution)[1]["problem"]
    for wrong in (None, [], "", 7, [[]], [[1], [2, 3]], [[{}]]):
        with pytest.raises(Abstain, match="not a grid"):
            leaf.evaluate("12\n34", wrong)
    with pytest.raises(ValueError, match="positive"):
        grounding.grid(tiers=0)


def test_a_copied_puzzle_is_worth_nothing_where_givens_are_left_out():
    solution, puzzle = "1234\n5678", "12..\n.678"
    count, leave = grounding.grid(block=(1, 4)), grounding.grid(block=(1, 4), givens="leave")
    assert count.evaluate(puzzle, solution)[0] == pytest.approx((0.5 + 0.75) / 2)
    assert leave.evaluate(puzzle, solution, puzzle)[0] == 0.0
    assert leave.evaluate("1234\n.678", solution, puzzle)[0] == 0.5
    assert leave.evaluate(solution, solution, puzzle)[0] == 1.0
    for wrong in (None, solution, "12"):
        with pytest.raises(Abstain, match="puzzle"):
            leave.evaluate(solution, solution, wrong)


def test_forms():
    def form(said, **options):
        return value(grounding.form(within="reply", **options), said)

    assert [form(x, kind="box") for x in ("[1, 2, 3, 4]", "at [1, 2, 3, 4]", "[[1, 2, 3, 4]]", "[1, 2]")] == [
        1,
        0,
        0,
        0,
    ]
    assert [form(x) for x in (json.dumps(TWO), "[[1, 2, 3, 4], [1]]", "[]", "[1, 2, 3, 4] ok", "{}")] == [1, 0, 0, 0, 0]
    assert form("[[1, 2, 3, 4], [1]]", credit="share") == 0.5
    good = '{"start_time": "2.5", "end_time": 6}'
    assert [form(x, kind="span") for x in (good, good + "!", "[2, 6]", '{"start_time": 2}', "{}")] == [1, 0, 0, 0, 0]
    assert value(grounding.form(kind="key_boxes", credit="share"), key(1, [[0, 0, 1, 1], [2]])) == 0.5
    reversed_ = grounding.form(within="reply", absent="reversed")
    assert [value(reversed_, x, boxes=[]) for x in ("[]", "[[1, 2, 3, 4]]")] == [1, 0]
    assert [value(reversed_, x, boxes=TWO) for x in ("[]", "[[1, 2, 3, 4]]")] == [0, 1]
    assert scored(reversed_, "[]", boxes=None).abstained.all()


# --- all of them -------------------------------------------------------------------------------------------------

COLUMNS = {
    "box": BOX, "boxes": TWO, "size": [1000, 500], "seen": [100, 50], "span": [2, 6], "duration": 10,
    "solution": "12\n34", "frames": [1, 2], "masks": [[[1, 0]], [[1, 1]]],
}  # fmt: skip
LEAVES = [
    grounding.iou(), grounding.iou(generalized=True, edges="pixels", units="seen"), grounding.inside(units="unit"),
    grounding.gaussian(), grounding.coverage(units="thousand"), grounding.edges(), grounding.detection(),
    grounding.detection(match="best", per="pred", form="brackets"), grounding.detection(cost="detr", per="matched"),
    grounding.detection(match="order", labels="after", band=(0.5, 0.75)), grounding.confidence(),
    grounding.confidence(misses="unpaid"), grounding.average_precision(), grounding.average_precision(labels="ignore"),
    grounding.repetition(), grounding.span(), grounding.clicks(), grounding.key_frame(within="reply"),
    grounding.segmentation(within="reply"), grounding.form(), grounding.form(kind="box"), grounding.form(kind="span"),
    grounding.form(kind="key_boxes"), grounding.reasoned(), grounding.grid(),
]  # fmt: skip
PIECES = st.sampled_from(
    ["[", "]", "{", "}", "(", ",", '"bbox_2d":', '"label": "cat"', '"keyframe_timestamp": 1', "<answer>", "</answer>",
     "</think>", "1", "-3.5", "NaN", "1e999", "null", " ", "\n", "```json\n", "\n```", "None", "[0, 0, 10, 10]", "'"]
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=12).map("".join))
def test_whatever_is_said_has_a_score_in_the_range(said):
    rows = Rollouts(["?"], [said], {name: [column] for name, column in COLUMNS.items()})
    for leaf in LEAVES:
        if leaf.lane == "process":  # what the worker would call; a process per example is too slow
            outcome = leaf.evaluate(*(rows.column(name)[0] for name in leaf.reads))
            number = outcome[0] if isinstance(outcome, tuple) else outcome
        else:
            scores = leaf.measure(rows, None)
            assert scores.valid.all()
            number = scores.read(math.nan)[0]
        assert leaf.range[0] <= number <= leaf.range[1]


def test_every_part_can_be_written_as_data():
    for leaf in LEAVES:
        assert spec.load(spec.dump(leaf)) == leaf


def test_options_are_checked_when_a_part_is_made():
    with pytest.raises(ValueError, match="above"):
        grounding.detection(above=2)
    with pytest.raises(ValueError, match="band"):
        grounding.detection(band=(0.9, 0.5))
    with pytest.raises(ValueError, match="match is one of"):
        grounding.detection(match="nearest")


def test_nothing_to_score_is_no_scores():
    for leaf in LEAVES:
        if leaf.lane == "batch":
            assert len(leaf.measure(Rollouts([], [], {name: [] for name in COLUMNS}), None)) == 0
