import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.algebra import spec
from guerdon.core.errors import Abstain
from guerdon.rewards import choice
from guerdon.rewards.choice.picks import picks, plain, tidy

REPLIES = [json.loads(line) for line in (Path(__file__).parent / "hard_choices.jsonl").read_text("utf-8").splitlines()]
CITIES = ["London", "Paris", "Rome", "New York"]


def score(said, right, choices=None, **options):
    if choices is None:
        return choice.answer(**options).evaluate(said, right)[0]
    return choice.among(**options).evaluate(said, right, choices)[0]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply["why"])
def test_agrees_with_a_careful_reader(reply):
    assert score(reply["completion"], reply["answer"], reply.get("choices")) == reply["correct"]


def test_the_replies_are_many_and_different():
    assert len({json.dumps([r["completion"], r["answer"], r.get("choices")]) for r in REPLIES}) == len(REPLIES) >= 250
    assert 0.35 < sum(reply["correct"] for reply in REPLIES) / len(REPLIES) < 0.65


FORMS = [
    "{}", "({})", "**{}**", "The answer is {}.", "Answer: ({})", "\\boxed{{{}}}", "<answer>{}</answer>", "I choose {}.",
    "Option {} is correct.", "We add.\n\n{}", "The answer is {} because it is even.", "故选 {}。",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_every_letter_is_read_in_every_form(form):
    for picked in "ABCDEFGHIJ":
        for right in "ABCDEFGHIJ":
            assert score(form.format(picked), right) == (picked == right)
    assert score(form.format("K"), "A") == 0.0
    assert score(form.format("K"), "K", count=11) == 1.0


HEDGES = ["{} or {}", "{}/{}", "either {} or {}", "{}, or maybe {}", "{} or ({})", "{}, {}", "{} and {}", "{}\n{}"]


@pytest.mark.parametrize("hedge", HEDGES, ids=range(len(HEDGES)))
@pytest.mark.parametrize("form", ["{}", "The answer is {}.", "Answer: {}", "\\boxed{{{}}}", "<answer>{}</answer>"])
def test_naming_two_earns_neither(form, hedge):
    for first, second in ("AB", "BA", "CD", "DA"):
        if hedge == "{}\n{}" and form != "{}":
            continue
        said = form.format(hedge.format(first, second))
        assert score(said, first) == 0.0
        assert score(said, second) == 0.0


def test_naming_all_earns_nothing():
    for said in (
        "A, B, C, D",
        "ABCD",
        "A\nB\nC\nD",
        "A) 1\nB) 2\nC) 3\nD) 4",
        "A B C D",
        "(A)(B)(C)(D)",
        "A and B and C and D",
    ):
        for right in ("A", "B", "C", "D", "AC"):
            assert score(said, right) == 0.0
            assert score(said, right, credit="partial") == 0.0


def test_partial_credit_by_hand():
    right = ["A", "C", "D"]
    assert score("A", right, credit="partial") == pytest.approx(1 / 3)
    assert score("A and D", right, credit="partial") == pytest.approx(2 / 3)
    assert score("A, C, D", right, credit="partial") == 1.0
    assert score("A, B", right, credit="partial") == 0.0
    assert score("A, C, D", right) == 1.0
    assert score("A and D", right) == 0.0


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.sampled_from("ABCDEF")),
    st.sets(st.sampled_from("ABCDEF"), min_size=1),
    st.sampled_from([", ", " and ", ""]),
)
def test_sets_of_letters(picked, right, joint):
    said = joint.join(sorted(picked))
    exact, partial = score(said, sorted(right)), score(said, sorted(right), credit="partial")
    assert exact == (picked == right)
    assert partial == pytest.approx(len(picked & right) / len(right) if picked <= right else 0.0)


@pytest.mark.parametrize(
    ("reference", "places"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), ("**B**", "B"), (1, "B"), ("1", "B"), (1.0, "B"),
        (np.int64(1), "B"), (["B"], "B"), (np.array(["B"]), "B"), ("A, C", "AC"), ("AC", "AC"), ("A and C", "AC"),
        (["A", "C"], "AC"), ([0, 2], "AC"), ({"A", "C"}, "AC"), ("(A) (C)", "AC"),
    ],
    ids=range(18),
)  # fmt: skip
def test_references_as_datasets_have_them(reference, places):
    assert score(", ".join(places), reference) == 1.0
    assert score("D", reference) == 0.0


@pytest.mark.parametrize(
    "reference",
    [
        None,
        "",
        [],
        "K",
        10,
        -1,
        True,
        0.5,
        float("nan"),
        "see above",
        "Bad",
        "bad",
        "CA",
        "B or",
        "Paris",
        ["A", None],
        {"A": 1},
        b"A",
    ],
    ids=repr,
)
def test_a_reference_that_is_no_option_is_an_abstention(reference):
    with pytest.raises(Abstain, match="reference"):
        score("A", reference)


def test_indices_count_from_where_it_is_said():
    assert score("A", 0) == score("A", 1, first=1) == score("A", "1", first=1) == 1.0
    assert score("B", 1, CITIES) == score("B", 2, CITIES, first=1) == 1.0
    with pytest.raises(Abstain):
        score("A", 0, first=1)
    with pytest.raises(Abstain):
        score("A", 4, CITIES)


@pytest.mark.parametrize(
    "choices", [None, [], "Paris", ["Paris", " paris."], ["Paris", ""], [str(i) for i in range(27)]], ids=range(6)
)
def test_options_that_cannot_be_told_apart_are_an_abstention(choices):
    with pytest.raises(Abstain, match="choices"):
        choice.among().evaluate("A", "A", choices)


def test_a_text_that_is_an_option_is_that_option():
    assert score("C", "1", ["4", "0", "1", "2"]) == 1.0
    assert score("B", "1", ["4", "0", "3", "2"]) == 1.0
    assert score("B", "a", ["b", "a"]) == 1.0
    assert score("Paris", np.array(["Paris"]), np.array(CITIES)) == 1.0


@pytest.mark.parametrize(
    "form", ["{}", "{}.", "The answer is {}.", "\\boxed{{\\text{{{}}}}}", "<answer>{}</answer>", "So it is:\n{}"]
)
def test_texts_of_options_are_read(form):
    for picked in CITIES:
        for right in CITIES:
            assert score(form.format(picked), right, CITIES) == (picked == right)
            letter, other = "ABCD"[CITIES.index(picked)], "ABCD"[CITIES.index(right)]
            assert score(form.format(f"{letter}) {picked}"), right, CITIES) == (picked == right)
            if letter != other:
                assert score(form.format(f"{letter}) {right}"), right, CITIES) == 0.0


def test_text_without_markup():
    assert tidy("### **Answer**: $\\text{(B)}$") == "Answer : (B)"
    assert tidy("it isn't 'so'") == "it isn't so"
    assert plain(" *The*  Seine! ") == "the seine"


def test_the_letters_picked_are_told():
    assert choice.answer().evaluate("C, A", "B") == (0.0, {"picked": "AC"})
    assert choice.answer().evaluate("No idea.", "B") == (0.0, {"picked": ""})


def test_called_as_trl_calls_a_reward_function():
    completions = [[{"role": "assistant", "content": "(B)"}], [{"role": "tool", "content": "B"}], "C", "B"]
    assert choice.answer()(prompts=["?"] * 4, completions=completions, answer=["B", "B", "B", None]) == [
        1.0,
        0.0,
        0.0,
        None,
    ]
    found = choice.among()(prompts=["?"] * 2, completions=["Paris", "B"], answer=["B"] * 2, choices=[CITIES, None])
    assert found == [1.0, None]


def test_specs_hold_them():
    for leaf in (choice.answer(count=4, first=1), choice.among(credit="partial")):
        assert spec.load(spec.dump(leaf)) == leaf


PIECES = [
    "A", "B", "(C)", "a", " or ", " and ", ", ", "/", "answer is ", "Answer: ", "not ", "correct", " is ", "\\boxed{",
    "}", "<answer>", "</answer>", "<think>", "</think>", "\n", ". ", "**", "I choose ", "Paris", "option ", "答案",
    "\ud800", "'",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(codec=None), max_size=20).map("".join), st.booleans())
def test_any_text_scores_zero_or_one(said, with_texts):
    assert score(said, "A", CITIES if with_texts else None) in (0.0, 1.0)
    assert score(said, ["A", "B"], CITIES if with_texts else None, credit="partial") in (0.0, 0.5, 1.0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_reply_is_right_for_two_references(said):
    assert sum(score(said, right) for right in "ABCDEFGHIJ") <= 1


LONG = [
    pre + piece * (50_000 // len(piece))
    for piece in [*PIECES, " ", "B, ", "A)\n", "answer to ", "so ", "it is ", "based on "]
    for pre in ("", "The answer is ")
]


@pytest.mark.parametrize("said", LONG, ids=range(len(LONG)))
def test_fifty_kilobytes_of_anything_are_read(said):
    found = picks(said, 10, ["paris", "a"])
    assert found is None or all(0 <= place < 10 for place in found)
