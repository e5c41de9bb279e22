import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core.spans import Spans, split
from guerdon.credit import diversity, group_relative, leaks, locate, repairable, splice


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@st.composite
def broken(draw):
    """Rollouts in steps, where each goes wrong, and what takes the place of that."""
    n = draw(st.integers(1, 4))
    rows, steps, rests, first = [], [], [], []
    for _ in range(n):
        cuts = [0, *sorted(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)))]
        rows.append(list(itertools.pairwise(cuts)))
        first.append(draw(st.integers(-1, len(rows[-1]) - 1)))
        steps.append(draw(st.lists(st.integers(50, 59), max_size=3)))
        rests.append(draw(st.lists(st.integers(80, 89), max_size=3)))
    return rows, first, steps, rests


def padded(rows, width=None):
    width = max(map(len, rows)) if width is None else width
    ids = torch.tensor([row + [-9] * (width - len(row)) for row in rows], dtype=torch.long).reshape(len(rows), width)
    return ids, torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]


@settings(max_examples=100, deadline=None)
@given(broken(), st.booleans())
def test_splicing_is_its_definition(data, goes_on):
    rows, first, steps, rests = data
    tokens = [list(range(1, row[-1][1] + 1)) for row in rows]
    ids, mask = padded(tokens, 6)
    more = dict(zip(("rest", "rest_mask"), padded(rests), strict=True)) if goes_on else {}
    found = splice(ids, mask, Spans.of(rows), torch.tensor(first), *padded(steps), **more)
    for i, h in enumerate(first):
        kept = tokens[i] if h < 0 else tokens[i][: rows[i][h][0]]
        step = [] if h < 0 else steps[i]
        rest = [] if h < 0 or not goes_on else rests[i]
        assert found.ids[i][found.mask[i]].tolist() == kept + step + rest
        assert found.origin[i][found.mask[i]].tolist() == [0] * len(kept) + [1] * len(step) + [0] * len(rest)
        assert (found.ids[i][~found.mask[i]] == 0).all()
        assert (found.mask[i][1:] <= found.mask[i][:-1]).all()


def test_scope_worked_example():
    scores = torch.tensor([[0.9, 0.8, 0.3, 0.7]])
    first = locate(scores, everywhere(1, 4), below=0.5)
    assert first.tolist() == [2]  # the third step
    ids = torch.arange(10, 18)[None]
    spans = Spans.of([[(0, 2), (2, 5), (5, 6), (6, 8)]])
    fixed = splice(ids, everywhere(1, 8), spans, first, torch.tensor([[77]]), everywhere(1, 1))
    assert fixed.ids.tolist() == [[10, 11, 12, 13, 14, 77]]


def test_scope_one_accepted_repair_brings_a_hopeless_group_back():
    groups, failed = torch.zeros(8, dtype=torch.long), torch.zeros(8)
    assert (group_relative(failed, groups) == 0).all()
    accepted = torch.arange(8) == 3
    found = group_relative(torch.where(accepted, 1.0, failed), groups, eps=0.0)
    torch.testing.assert_close(found[3], torch.tensor(2.475), atol=5e-4, rtol=0)
    torch.testing.assert_close(found[0], torch.tensor(-0.354), atol=5e-4, rtol=0)
    assert torch.equal(torch.where(torch.zeros(8, dtype=torch.bool), 1.0, failed), failed)


def test_scope_mends_the_failures_that_were_right_for_longest():
    first, steps = torch.tensor([3, 1, 2, -1, 4, 3, 2]), torch.tensor([4, 4, 4, 4, 5, 4, 4])
    outcomes = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    groups = torch.tensor([7, 7, 7, 7, 7, 2, 2])
    # 3/4 and 2/4 of group 7 qualify, 1/4 is too little, one has no error found, one is a success.
    assert repairable(first, steps, outcomes, groups, most=9).nonzero().flatten().tolist() == [0, 2, 5, 6]
    assert repairable(first, steps, outcomes, groups, most=1).nonzero().flatten().tolist() == [0, 5]
    assert repairable(first, steps, outcomes, groups, most=0).sum() == 0
    assert repairable(first, steps, outcomes, groups, most=9, share=0.7).nonzero().flatten().tolist() == [0, 5]


def test_scope_diversity_of_known_sequences():
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9], [5, 6, 0, 0], [8, 0, 0, 0]])
    mask = torch.arange(4) < torch.tensor([[4], [4], [2], [1]])
    # Bigrams {12, 23, 34}, {12, 23, 39}, {56}: similarities 2/4, 0, 0; the last sequence has none.
    assert diversity(ids, mask, gram=2) == pytest.approx(1 - 0.5 / 3)
    assert diversity(ids[:1].expand(3, 4), everywhere(3, 4)) == 0.0
    assert diversity(ids[:1], mask[:1]) is None
    assert diversity(ids, mask, gram=5) is None


def test_int_what_is_imitated_is_the_prefix_and_the_intervention_and_no_suffix():
    text = "first.\n\nsecond.\n\nwrong.\n\nlast."
    ids = torch.tensor([[ord(c) for c in text]])
    steps = split([text])
    spans = Spans(steps.begin, steps.end, steps.mask, "token")  # a character is a token here
    mended, mended_mask = padded([[ord(c) for c in "right."]])
    found = splice(ids, everywhere(*ids.shape), spans, torch.tensor([2]), mended, mended_mask)
    assert "".join(map(chr, found.ids[0].tolist())) == "first.\n\nsecond.\n\nright."
    assert int(found.mask.sum()) == len("first.\n\nsecond.\n\n") + len("right.")
    assert int(found.origin.sum()) == len("right.")


@pytest.mark.parametrize(
    ("text", "answer", "given_away"),
    [
        ("Therefore the sum is 42.", "42", True),
        ("Recall that 420 > 4.2", "42", False),
        ("so x is in  (0,\n1)", "(0, 1)", True),
        ("the ANSWER is Paris", "paris", True),
        ("divide by two first", "\\frac{1}{2}", False),
    ],
    ids=["number", "part of a number", "spacing", "case", "latex"],
)
def test_int_a_hint_that_gives_the_answer_away_is_refused(text, answer, given_away):
    assert leaks(text, answer) is given_away


def test_int_the_filter_keeps_what_one_of_32_continuations_solves():
    generator = torch.Generator().manual_seed(0)
    solved = torch.rand(20000, 32, generator=generator) < 0.05
    assert float(solved.any(1).float().mean()) == pytest.approx(1 - 0.95**32, abs=0.01)
    assert round(1 - 0.95**32, 3) == 0.806


def test_int_mending_the_first_error_lifts_the_success_of_the_prefix_fifty_fold():
    # Six choices, right with probability ½, but the third with 0.02: the prefix before it, and with it mended.
    before, after = 0.02 * 0.5**3, 0.5**3
    chain = torch.rand(200_000, 4, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.02, 0.5, 0.5, 0.5])
    assert float(chain.all(1).float().mean()) == pytest.approx(before, rel=0.3)
    assert float(chain[:, 1:].all(1).float().mean()) == pytest.approx(after, rel=0.02)
    assert after / before == pytest.approx(50)


def test_bad_repairs_are_named():
    ids, here = torch.tensor([[1, 2]]), everywhere(1, 2)
    spans, fix = Spans.of([[(0, 2)]]), torch.tensor([[5]])
    with pytest.raises(ValueError, match="row 0 has no step 1"):
        splice(ids, here, spans, torch.tensor([1]), fix, fix > 0)
    with pytest.raises(ValueError, match="rest and rest_mask belong together"):
        splice(ids, here, spans, torch.tensor([0]), fix, fix > 0, rest=fix)
    with pytest.raises(ValueError, match=r"step .* need one shape"):
        splice(ids, here, spans, torch.tensor([0]), fix, here)
    with pytest.raises(ValueError, match="share lies in"):
        repairable(*(torch.zeros(1),) * 4, share=2.0)
    with pytest.raises(ValueError, match="answer is empty"):
        leaks("x", " ")
