"""VideoAlign's reward model: dimensions read from tokens of their own, learned from verdicts with ties."""

import math

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts
from guerdon.models import QueryHead, bradley_terry, fit, tie_accuracy
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
        assert tie_accuracy(margins[:, k], verdicts[300:, k].long()).share > 0.85


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
