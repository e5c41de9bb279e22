"""VideoAlign's reward model: dimensions read from tokens of their own, learned from verdicts with ties."""

import math

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts
from guerdon.models import LinearHead, QueryHead, bradley_terry, fit, tie_accuracy
from guerdon.rewards import recorded


def test_videoalign_reward_loss_per_dimension_leaves_out_invalid_labels():
    """Labels 1, −1, 0 and 22 (invalid), θ = 5; the mean is over the valid entries only."""
    first, second = torch.tensor([[1.0, 0.0], [0.5, 2.0]]), torch.tensor([[0.0, 0.0], [1.5, math.nan]])
    verdicts = torch.tensor([[1, 0], [-1, 22]])
    loss = bradley_terry(
        first, second, labels=(verdicts == 1).float(), tied=verdicts == 0, theta=5.0, mask=verdicts != 22
    )
    better = math.log(1 + 5 * math.exp(-1.0))
    tie = 2 * math.log(6) - math.log(24)
    assert loss.item() == pytest.approx((better + tie + better) / 3)


def test_videoalign_margin_scaled_and_constant_margin_losses():
    """Of people's marks s: −log σ(D − Δs), −Δs log σ(D) and −log σ(D − 0.57), the mean over valid entries."""
    first, second = torch.tensor([[1.0, 0.0], [0.5, math.nan]]), torch.tensor([[0.0, 2.0], [0.2, 1.0]])
    apart, valid = torch.tensor([[3.0, 1.0], [2.0, math.nan]]), torch.tensor([[True, True], [True, False]])
    d, gap = [1.0, -2.0, 0.3], [3.0, 1.0, 2.0]

    def mean_of(terms):
        return pytest.approx(sum(terms) / 3, rel=1e-5)

    assert bradley_terry(first, second, offset=apart, mask=valid).item() == mean_of(
        [math.log1p(math.exp(m - x)) for x, m in zip(d, gap, strict=True)]
    )
    assert bradley_terry(first, second, weight=apart, mask=valid).item() == mean_of(
        [m * math.log1p(math.exp(-x)) for x, m in zip(d, gap, strict=True)]
    )
    assert bradley_terry(first, second, offset=0.57, mask=valid).item() == mean_of(
        [math.log1p(math.exp(0.57 - x)) for x in d]
    )


@pytest.mark.parametrize("kind", ["bt", "btt", "margin", "constant_margin", "scaled", "regression"])
def test_videoalign_every_loss_learns_whom_people_prefer(kind):
    """Marks of 1 to 5 of two dimensions, some missing; a head that has seen 200 pairs knows the other 100."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(300, 2, 3, generator=generator)  # a pair of videos
    wanted = torch.tensor([[1.0, -0.5, 0.2], [0.0, 1.0, 0.8]])
    marks = (3 + states @ wanted.T).clamp(1, 5).round()
    verdicts = (marks[:, 0] - marks[:, 1]).sign()
    judged = torch.rand(300, 2, generator=generator) < 0.9
    heads = torch.nn.ModuleList([LinearHead(3), LinearHead(3)])

    def rewards():
        return torch.stack([head(states) for head in heads], 2)

    def loss(rows):
        r, v, here = rewards()[rows], verdicts[rows], judged[rows]
        first, second, apart = r[:, 0], r[:, 1], marks[rows, 0] - marks[rows, 1]
        strict, labels = here & (v != 0), (v > 0).float()
        if kind == "regression":
            both = here[:, None].expand(-1, 2, -1)
            return torch.nn.functional.mse_loss(r[both], marks[rows][both] - 3)
        if kind == "btt":
            return bradley_terry(first, second, labels=labels, tied=v == 0, theta=5.0, mask=here)
        options = {
            "bt": {},
            "margin": {"offset": apart},
            "constant_margin": {"offset": 0.57 * v},
            "scaled": {"weight": apart.abs()},
        }[kind]
        return bradley_terry(first, second, labels=labels, mask=strict, **options)

    fit(heads.parameters(), loss, 200, learning_rate=0.05, epochs=15, batch=50)
    with torch.no_grad():
        r = rewards()
    for k in range(2):
        margins, said = (r[200:, 0, k] - r[200:, 1, k]), verdicts[200:, k].long()
        assert tie_accuracy(margins[said != 0], said[said != 0]).share > 0.9
    if kind == "regression":
        assert (r[200:] - (marks[200:] - 3)).abs().mean() < 0.35


def test_videoalign_accuracy_without_ties_is_that_of_strict_pairs():
    margins, verdicts = torch.tensor([0.4, -0.1, 0.2, 3.0]), torch.tensor([1, 1, 0, -1])
    assert tie_accuracy(margins[verdicts != 0], verdicts[verdicts != 0]) == (pytest.approx(1 / 3), -1.0)


def test_videoalign_accuracy_with_ties():
    assert tie_accuracy(torch.tensor([1.0, 0.9, 0.1]), torch.tensor([1, 1, 0])) == (1.0, pytest.approx(0.1))
    # All strict and right: calling no pair a tie is the best.
    assert tie_accuracy(torch.tensor([1.0, -0.5, 0.2]), torch.tensor([1, -1, 1])) == (1.0, -1.0)
    # Equal margins stand or fall together: two ties among five of one size are .4, whatever their order.
    assert tie_accuracy(torch.full((5,), 0.3), torch.tensor([0, -1, 0, -1, -1])).share == pytest.approx(0.4)


def test_videoalign_accuracy_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(20):
        margins, verdicts = rng.integers(-3, 4, 9) / 2, rng.integers(-1, 2, 9)
        best = 0.0
        for threshold in (-1.0, *np.abs(margins)):
            called = np.where(np.abs(margins) <= threshold, 0, np.sign(margins))
            # A margin of 0 that is not called a tie is no verdict.
            right = (called == verdicts) & ~((called == 0) & (np.abs(margins) > threshold))
            best = max(best, right.mean())
        assert tie_accuracy(torch.tensor(margins), torch.tensor(verdicts)).share == pytest.approx(best)


def tiny():
    from transformers import Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    return Qwen2Model(config).eval()


def test_videoalign_quality_does_not_see_the_prompt_and_alignment_does():
    """Video tokens, then VQ and MQ, then the prompt, then TA, in a causal model with random weights."""
    model, head = tiny(), QueryHead(16, [37, 38, 39])
    video = [1, 2, 3, 37, 38]
    texts = torch.tensor([[*video, 10, 11, 39], [*video, 20, 21, 39]])
    states = model(input_ids=texts).last_hidden_state
    one, other = head(states, texts)
    by_hand = [states[0, place] @ head.score.weight[k] for k, place in enumerate((3, 4, 7))]
    assert one.tolist() == pytest.approx([x.item() for x in by_hand], abs=1e-6)
    assert one[:2].tolist() == pytest.approx(other[:2].tolist(), abs=1e-6)
    assert abs(one[2] - other[2]) > 1e-4
    with pytest.raises(ValueError, match="row 1 does not have token 38"):
        head(states, torch.tensor([[*video, 10, 11, 39], [1, 2, 3, 37, 4, 20, 21, 39]]))


def test_videoalign_a_token_that_occurs_again_is_read_where_it_is_last():
    head, states = QueryHead(2, [5]), torch.tensor([[[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [8.0, 0.0]]])
    with torch.no_grad():
        head.score.weight.fill_(1.0)
    assert head(states, torch.tensor([[5, 1, 5, 1]])).tolist() == [[4.0]]


def test_videoalign_learns_dimensions_from_verdicts_with_ties():
    """Quality is what the video shows, alignment whether the prompt names it; held-out pairs, ties included."""
    generator = torch.Generator().manual_seed(0)
    shown, asked = (torch.randint(1, 5, (120,), generator=generator) for _ in range(2))
    query = torch.full((120,), 38)
    texts = torch.stack([shown, query, asked, query + 1], 1)
    truth = torch.stack([shown.float(), 3 * (shown == asked).float()], 1)
    model, head = tiny(), QueryHead(16, [38, 39])
    first, second = (torch.randint(0, 120, (400,), generator=generator) for _ in range(2))
    verdicts = (truth[first] - truth[second]).sign()

    def rewards():
        return head(model(input_ids=texts).last_hidden_state, texts)

    def loss(rows):
        rows = torch.tensor(rows)
        r = rewards()
        v = verdicts[rows]
        return bradley_terry(r[first[rows]], r[second[rows]], labels=(v > 0).float(), tied=v == 0, theta=5.0)

    fit([*model.parameters(), *head.parameters()], loss, 300, learning_rate=3e-3, epochs=12, batch=100)
    with torch.no_grad():
        margins = (rewards()[first] - rewards()[second])[300:]
    for k in range(2):
        assert tie_accuracy(margins[:, k], verdicts[300:, k].long()).share > 0.75  # the commonest verdict alone: 0.63


def test_videoalign_overall_is_the_sum_of_standardised_dimensions():
    """(r − μ)/sd of each dimension as an expression of the reward."""
    statistics = {"vq": (3.67, 2.24), "mq": (1.17, 1.32), "ta": (2.8, 2.5)}
    overall = sum(
        (recorded.value(column=name, low=-9, high=9).named(name) - mean) * (1 / sd)
        for name, (mean, sd) in statistics.items()
    )
    rollouts = Rollouts.from_records([{"prompt": "a cat", "completion": "", "vq": 5.0, "mq": 0.0, "ta": 2.8}])
    scores = overall.score(rollouts, Context())
    assert scores.read(0.0)[0] == pytest.approx((5 - 3.67) / 2.24 - 1.17 / 1.32)
