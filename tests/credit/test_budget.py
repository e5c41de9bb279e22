import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.credit import budget_relative, group_relative, spread, stretches

TWO = torch.zeros(2, dtype=torch.long)


@st.composite
def answers(draw):
    n, b = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    numbers = st.lists(st.integers(0, 4), min_size=b, max_size=b)
    scores = torch.tensor(draw(st.lists(numbers, min_size=n, max_size=n))).double() / 4
    prior = tuple(x / 8 for x in draw(st.lists(st.integers(0, 4), min_size=b, max_size=b)))
    groups = torch.tensor(draw(st.lists(st.sampled_from([3, -1]), min_size=n, max_size=n)))
    return scores, prior, groups, torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))


@settings(max_examples=100, deadline=None)
@given(answers(), st.sampled_from(["both", "recent", "group", "none"]))
def test_brpo_is_its_definition(data, baseline):
    scores, prior, groups, valid = data
    n, count = scores.shape
    earned = [[sum(prior[j] * float(scores[i, j]) for j in range(s, count)) for s in range(count)] for i in range(n)]
    expected = torch.zeros(n, count, dtype=torch.float64)
    for i in range(n):
        for s in range(count):
            peers = [earned[k][s] for k in range(n) if valid[k] and groups[k] == groups[i]]
            if not valid[i]:
                continue
            second = sum(peers) / len(peers)
            weights = [2.0**j for j in range(s)]
            before = sum(w * float(scores[i, j]) for j, w in enumerate(weights))
            first = before / sum(weights) * sum(prior[s:]) if s else 0.0
            share = {"both": s / count, "recent": 1.0, "group": 0.0, "none": 0.0}[baseline]
            reference = 0.0 if baseline == "none" else share * first + (1 - share) * second
            expected[i, s] = earned[i][s] - reference
    known = torch.where(valid[:, None], scores, torch.nan)
    found = budget_relative(known, groups, valid=valid, prior=prior, baseline=baseline)
    torch.testing.assert_close(found, expected)


def test_brpo_worked_example():
    scores = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    earned = budget_relative(scores, TWO, prior=(0.25, 0.25, 0.25, 0.25), baseline="none")
    torch.testing.assert_close(earned, torch.tensor([[0.5, 0.5, 0.5, 0.25], [0.75, 0.75, 0.5, 0.25]]))
    found = budget_relative(scores, TWO)
    expected = torch.tensor([[-0.125, 0.031, 0.25, 0.080], [0.125, 0.281, 0.083, 0.027]])
    torch.testing.assert_close(found, expected, atol=6e-4, rtol=0)


def test_brpo_with_one_budget_is_grpo_without_deviation():
    scores = torch.tensor([[1.0], [0.0], [0.5]])
    groups = torch.zeros(3, dtype=torch.long)
    found = budget_relative(scores, groups)
    torch.testing.assert_close(found[:, 0], group_relative(scores[:, 0], groups, scale="none"))


def test_brpo_summaries_are_compared_with_those_of_their_own_thought_and_budget():
    scores = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]])
    cell = torch.arange(4).view(2, 2, 1).expand(2, 2, 2)
    found = group_relative(scores.flatten(), cell.flatten(), scale="none").view(2, 2, 2)
    torch.testing.assert_close(found, scores - scores.mean(2, keepdim=True))


def test_brpo_advantages_lie_on_the_tokens_before_each_budget():
    spans = stretches(torch.tensor([5, 3, 0]), torch.tensor([2, 4, 8]))
    assert spans.rows() == [[(0, 2), (2, 4), (4, 5)], [(0, 2), (2, 3)], []]
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    found = spread(values, torch.arange(5) < torch.tensor([[5], [3], [0]]), spans, place="all")
    assert found.tolist() == [[1.0, 1.0, 2.0, 2.0, 3.0], [4.0, 4.0, 5.0, 0.0, 0.0], [0.0] * 5]


def test_brpo_varies_less_than_the_group_baseline_when_solutions_persist():
    # The budget by which a thought is solved is geometric, and a solved thought stays solved.
    generator = torch.Generator().manual_seed(0)
    solved = torch.rand(8000, 4, generator=generator, dtype=torch.float64) < 0.3
    scores = (solved.cumsum(1) > 0).double()
    groups = torch.arange(1000).repeat_interleave(8)
    both, group = (float((budget_relative(scores, groups, baseline=b) ** 2).mean()) for b in ("both", "group"))
    assert both < 0.95 * group


def test_many_budgets_do_not_overflow():
    found = budget_relative(torch.ones(2, 3000), TWO)
    assert found.isfinite().all()


def test_bad_budgets_are_named():
    with pytest.raises(ValueError, match="prior have b entries"):
        budget_relative(torch.zeros(2, 3), TWO, prior=(0.0, 0.0))
    with pytest.raises(ValueError, match="prior must not be negative"):
        budget_relative(torch.zeros(2, 1), TWO, prior=(-1.0,))
    with pytest.raises(ValueError, match="one per row of scores"):
        budget_relative(torch.zeros(3, 1), TWO)
    with pytest.raises(ValueError, match="budgets must rise"):
        stretches(torch.tensor([1]), torch.tensor([4, 4]))
