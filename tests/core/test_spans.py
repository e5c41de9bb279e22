from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core import Spans
from guerdon.core.spans import split

ROWS = st.lists(
    st.lists(st.integers(0, 4), max_size=8).map(
        # Distances between successive borders: begin, end, begin, end, …
        lambda gaps: [
            (sum(gaps[: 2 * i + 1]), sum(gaps[: 2 * i + 2])) for i in range(len(gaps) // 2)
        ]
    ),
    max_size=5,
)  # fmt: skip


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_rows_is_the_inverse_of_of(rows):
    spans = Spans.of(rows, unit="character")
    assert spans.rows() == rows
    assert spans.unit == "character"
    assert len(spans) == len(rows)
    assert spans.counts.tolist() == [len(row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([[(0, 2)], [(3, 2)]], "row 1, step 0"),
        ([[(-1, 2)]], "row 0, step 0"),
        ([[(0, 3), (2, 5)]], "row 0, step 1"),
        ([[(4, 5), (0, 2)]], "row 0, step 1"),
    ],
)
def test_steps_that_overlap_or_run_backwards_are_an_error_that_names_the_place(rows, place):
    with pytest.raises(ValueError, match=place):
        Spans.of(rows)


def test_an_overlap_across_a_hole_in_the_mask_is_found():
    with pytest.raises(ValueError, match="row 0, step 2"):
        Spans(np.array([[0, 0, 2]]), np.array([[3, 0, 4]]), np.array([[True, False, True]]))


def test_what_is_masked_is_not_checked():
    Spans(np.array([[5, 0]]), np.array([[6, -3]]), np.array([[True, False]]))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        Spans(np.zeros((1, 2), int), np.zeros((1, 3), int), np.ones((1, 2), bool))


def test_select_and_concat_keep_rows_and_unit():
    spans = Spans.of([[(0, 1)], [(0, 2), (2, 4)], []], unit="character")
    assert spans.select([2, 1]).rows() == [[], [(0, 2), (2, 4)]]
    both = Spans.concat([spans.select([0]), spans.select([1])])
    assert both.rows() == [[(0, 1)], [(0, 2), (2, 4)]]
    assert both.unit == "character"
    with pytest.raises(ValueError, match="one unit"):
        Spans.concat([spans, Spans.of([[(0, 1)]])])


def test_a_token_belongs_to_the_step_of_its_first_character():
    # "one two\n\nthree" as tokens: <bos> "one" " two" "\n\nth" "ree" <eos> <pad>
    offsets = np.array([[[-1, -1], [0, 3], [3, 7], [7, 11], [11, 14], [-1, -1], [-1, -1]]])
    spans = Spans.of([[(0, 9), (9, 14)]], unit="character")
    assert spans.to_tokens(offsets).rows() == [[(1, 4), (4, 5)]]
    assert spans.to_tokens(offsets).unit == "token"


def test_a_step_without_a_token_stands_behind_the_token_before_it():
    # A tool's output (no offsets) between the two tokens; the middle step begins no token.
    offsets = np.array([[[-1, -1], [0, 5], [-1, -1], [5, 8]]])
    spans = Spans.of([[(0, 3), (3, 5), (5, 8)]], unit="character")
    assert spans.to_tokens(offsets).rows() == [[(1, 2), (2, 2), (3, 4)]]


def test_spans_of_tokens_stay_and_no_tokens_make_empty_steps():
    tokens = Spans.of([[(0, 3)]])
    assert tokens.to_tokens(np.zeros((1, 0, 2), int)) is tokens
    assert Spans.of([[(0, 3)]], unit="character").to_tokens(np.zeros((1, 0, 2), int)).rows() == [[(0, 0)]]


@given(st.lists(st.text("ab\n", max_size=20), max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_every_character_token_is_in_exactly_the_step_that_holds_it(texts, data):
    """One token per character: the token spans are the character spans, wherever special tokens stand."""
    front = data.draw(st.integers(0, 2))
    width = front + max(map(len, texts), default=0)
    offsets = np.full((len(texts), width, 2), -1)
    for i, text in enumerate(texts):
        for j in range(len(text)):
            offsets[i, front + j] = j, j + 1
    expected = [[(b + front, e + front) for b, e in row] for row in split(texts).rows()]
    assert split(texts).to_tokens(offsets).rows() == expected


def test_tensors_stay_tensors():
    spans = Spans(torch.tensor([[0]]), torch.tensor([[3]]), torch.tensor([[True]]), "character")
    tokens = spans.to_tokens(torch.tensor([[[0, 2], [2, 3]]]))
    assert isinstance(tokens.begin, torch.Tensor)
    assert tokens.rows() == [[(0, 2)]]


@given(st.text("a\n ", max_size=30), st.sampled_from(["\n\n", "\n", "a\n"]))
@settings(max_examples=100, deadline=None)
def test_split_covers_the_text_without_a_gap_and_no_step_is_empty(text, separator):
    (steps,) = split([text], separator).rows()
    assert "".join(text[b:e] for b, e in steps) == text
    assert [b for b, _ in steps[1:]] == [e for _, e in steps[:-1]]
    assert all(text[b:e].replace(separator, "") for b, e in steps[1:])


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        ("abc", ["abc"]),
        ("a\n\nb", ["a\n\n", "b"]),
        ("a\n\n\n\nb\n\n", ["a\n\n\n\n", "b\n\n"]),
        ("\n\na\n\nb", ["\n\na\n\n", "b"]),
        ("\n\n\n\n", ["\n\n\n\n"]),
    ],
)
def test_split(text, steps):
    (rows,) = split([text]).rows()
    assert [text[b:e] for b, e in rows] == steps


def test_an_empty_separator_is_an_error():
    with pytest.raises(ValueError, match="separator is empty"):
        split(["abc"], "")
