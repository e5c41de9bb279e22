import pytest
from hypothesis import given, strategies as st

from guerdon.rewards import math
from guerdon.rewards.math.words import missing, same_words, words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Tuesday", "tuesday"),
        (r"\text{Tuesday}.", "tuesday"),
        ("**The  isosceles triangle**", "isosceles triangle"),
        ("(Even)", "even"),
        ("Yes", "yes"),
        ("no", "no"),
        ("Jean-Pierre's", "jean-pierre's"),
        ("Dienstag, über", None),
        ("no solution", "no solution"),
        ("one two three four five six seven eight", "one two three four five six seven eight"),
        ("one two three four five six seven eight nine", None),
        ("x", None),
        ("ab", None),
        ("sin x", None),
        ("18 eggs", None),
        ("x and y", None),
        ("", None),
        ("word " * 30, None),
    ],
)
def test_words(text, said):
    assert words(text) == said


@pytest.mark.parametrize(
    "text", ["n/a", "N/A", "None", "null", "nan", "see above", "I do not know", "not given", "TBD"]
)
def test_what_stands_for_a_missing_answer_is_no_reference(text):
    assert missing(text)
    assert math.answer()(prompts=[""], completions=[f"A: {text}"], answer=[text]) == [None]


@pytest.mark.parametrize("text", ["no", "none of these", "seesaw", "i", "5", "answerable"])
def test_what_is_not_missing(text):
    assert not missing(text)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("Even", r"\text{even}", True),
        ("evenly", "even", False),
        ("a triangle", "the triangle", True),
        ("Yes, it is", "yes", True),
        ("Yes", "no", False),
        ("no, yes", "no", False),
        ("true or false", "true", False),
        ("not even", "even", False),
        ("2", "even", False),
    ],
)
def test_same_words(answer, reference, same):
    assert same_words(answer, reference) is same


@given(st.text(max_size=60), st.sampled_from(["Tuesday", "yes", "even"]))
def test_no_text_raises(text, reference):
    assert words(text) is None or words(text).strip()
    assert same_words(text, reference) in (True, False)
