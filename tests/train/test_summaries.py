"""Thoughts that are paid at budgets, and answers to thoughts that were cut there, learned in one batch."""

import math
import re
import statistics

import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

from guerdon.core import Rollouts, Scores, Spans, Tokens
from guerdon.core.errors import RecipeError
from guerdon.train import presets
from guerdon.train.crediting import STOPPED
from guerdon.train.language import loop
from guerdon.train.language.generation import SamplingConfig, generate, uniforms
from guerdon.train.language.losses import Experience, Forward, loss
from guerdon.train.language.policy import build
from guerdon.train.run import Run
from guerdon.train.sampling import Begin
from guerdon.train.scoring import credited

BUDGETS, PRIOR = (2, 4, 8), (0.2, 0.3, 0.5)
CUT = {"at": "budgets", "budgets": list(BUDGETS), "until": None}
RIGHT = {"part": "format.regex", "pattern": "(?s).*#[0-4][^#]*"}
THOUGHT = {"part": "probe.accuracy", "grade": RIGHT, "samples": 2, "max_tokens": 2, "cut": CUT, "stop": "#"}
ANYTIME = {
    "reward": [
        {
            "route": "stopped",
            "to": {"True": {**RIGHT, "name": "summary"}},
            "otherwise": {"reduce": {**THOUGHT, "name": "thought"}, "how": "last"},
        }
    ],
    "method": {
        "preset": "grpo",
        "kl": {"coefficient": 0.0},
        "credit": {
            "sum": {
                "thought": {"part": "credit.budget_relative", "prior": list(PRIOR)},
                "summary": {"part": "credit.group_relative", "scale": "none"},
            }
        },
        "sampling": {
            "group": 4, "begin": {"cut": CUT, "prior": list(PRIOR), "stops": 4, "stop": "#", "share": 0.5},
        },
    },
    "sampling": {"max_tokens": 16},
    "evaluation": {"prompts": 2},
    "keep": {"checkpoint_every": 1, "rollouts_every": 1, "rollouts": 64},
}  # fmt: skip


def brpo(r, prior):
    """A[g, s] of a group's scores r[g][s], as the paper defines it."""
    S = len(prior)
    earned = [[sum(prior[j] * row[j] for j in range(s, S)) for s in range(S)] for row in r]
    found = []
    for row, own in zip(r, earned, strict=True):
        found.append([])
        for s in range(S):
            recent = sum(2**j * row[j] for j in range(s)) / sum(2**j for j in range(s)) if s else 0.0
            v1 = recent * sum(prior[s:])
            v2 = statistics.fmean(e[s] for e in earned)
            found[-1].append(own[s] - (s * v1 + (S - s) * v2) / S)
    return found


def hand_made(stops):
    """Two thoughts of four stretches, and two answers to one thought of three tokens."""
    lengths, begun = [8, 4, 5, 6], [0, 0, 3, 3]
    place = np.arange(8)
    attended = place < np.array(lengths)[:, None]
    written = attended & (place >= np.array(begun)[:, None])
    tokens = Tokens(np.where(attended, place + 3, 0), written, attended)
    columns = {STOPPED: stops}
    rollouts = Rollouts(["p", "p", "q", "q"], ["c"] * 4, columns, groups=np.array([0, 0, 1, 1]), tokens=tokens)
    spans = Spans.of([[(0, 2), (2, 4), (4, 6), (6, 8)], [(0, 1), (1, 2), (2, 3), (3, 4)], [], []])
    r = np.array([[0.0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    thought = Scores(r, mask=spans.mask, spans=spans, valid=spans.mask)
    told = np.array([False, False, True, True])
    summary = Scores(np.array([0.0, 0, 1, 0]), mask=told, valid=told)
    whole = Scores(np.array([1.0, 1, 1, 0]), parts={"thought": thought, "summary": summary})
    return rollouts, whole


@pytest.mark.parametrize("stops", [[False, False, True, True], [False] * 4], ids=["stopped", "none"])
def test_brpo_thoughts_and_summaries_are_two_losses_of_one_batch(stops):
    """The worked example: each stretch by its return from there on, each summary against those of its own thought."""
    credit = {
        "sum": {"thought": "credit.budget_relative", "summary": {"part": "credit.group_relative", "scale": "none"}}
    }
    method = presets.load("grpo", credit=credit, kl={"coefficient": 0.0}, objective={"aggregate": "token-mean"})
    rollouts, scores = hand_made(stops)
    found = torch.as_tensor(credited(method, rollouts, scores)).float()
    thoughts = [[-0.125, 0.03125, 0.25, 7 / 88], [0.125, 0.28125, 1 / 12, 3 / 112]]
    thoughts = brpo([[0, 0, 1, 1], [0, 1, 1, 1]], [0.25] * 4)
    np.testing.assert_allclose(thoughts, [[-0.125, 0.031, 0.25, 0.080], [0.125, 0.281, 0.083, 0.027]], atol=5e-4)
    expected = torch.zeros(4, 8)
    expected[0] = torch.tensor(thoughts[0]).repeat_interleave(2)
    expected[1, :4] = torch.tensor(thoughts[1])
    expected[2, 3:5], expected[3, 3:6] = 0.5, -0.5
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    generator = torch.Generator().manual_seed(0)
    logp, old = (-torch.rand(4, 8, generator=generator) * 2 for _ in range(2))
    ids, attended, written = (
        torch.as_tensor(x) for x in (rollouts.tokens.ids, rollouts.tokens.attended, rollouts.tokens.written)
    )
    part = Experience(ids[:, :1], attended[:, :1], ids, attended, written, found)
    value, _ = loss(part, Forward(logp), old, method, part, {}, length=8)
    surrogate = {"thought": 0.0, "summary": 0.0}
    for i in range(4):
        for t in range(8):
            if written[i, t]:
                ratio, a = math.exp(logp[i, t] - old[i, t]), float(expected[i, t])
                kept = min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
                surrogate["thought" if i < 2 else "summary"] += kept
    tokens = {"thought": 12, "summary": 5}
    each = {kind: -surrogate[kind] / tokens[kind] for kind in tokens}
    assert float(value) == pytest.approx(sum(each[kind] * tokens[kind] / 17 for kind in tokens), abs=1e-6)


def test_a_group_of_which_none_stops_is_compared_with_itself():
    place = np.ones((8, 1), bool)
    columns = {STOPPED: [False] * 4 + [False, False, True, True]}
    tokens = Tokens(place.astype(int), place, place)
    rollouts = Rollouts(["p"] * 8, ["c"] * 8, columns, groups=np.repeat([0, 1], 4), tokens=tokens)
    method = presets.load("grpo", credit={"scale": "none"}, kl={"coefficient": 0.0})
    found = credited(method, rollouts, Scores.of([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0]))
    np.testing.assert_allclose(found, [0.75, -0.25, -0.25, -0.25, 0.75, -0.25, 0.25, -0.25], atol=1e-6)


def test_anytime_half_of_the_prompts_answer_a_thought_that_was_cut_at_a_drawn_budget(tiny, tmp_path, learned):
    recipe = tiny(**ANYTIME, steps=1, seed=1)
    loop.train(recipe, tmp_path / "run")
    [data], [(_, sample)] = learned, Run(tmp_path / "run").rollouts()
    assert [sample["stopped"][i] for i in range(0, 16, 4)] == [False, True] * 2
    policy, tokenizer = build(recipe.policy, seed=recipe.seed)
    noise = uniforms(range(4), 17, seed=recipe.seed, step=1, stream=3)
    config = SamplingConfig(max_tokens=16)
    seeds = generate(policy, tokenizer, sample["prompt"][::4], uniforms=noise, config=config).texts
    [stop] = tokenizer("#", add_special_tokens=False).input_ids
    lengths = set()
    for group in range(4):
        rows = range(group * 4, group * 4 + 4)
        outcomes = [sample["part.summary"][i] for i in rows]
        if group % 2 == 0:
            assert not any(sample["stopped"][i] for i in rows)
            assert (data.mask[rows] == data.attended[rows]).all()
            r = [sample["part.thought"][i] for i in rows]
            expected = brpo(r, PRIOR)
            for i, own in zip(rows, expected, strict=True):
                said = 0
                for t in torch.nonzero(data.attended[i]).flatten().tolist():
                    said += int(data.ids[i, t]) >= 3  # 0 to 2 are special, and no character of the text
                    stretch = next((s for s, budget in enumerate(BUDGETS) if 0 < said <= budget), None)
                    wanted = 0.0 if stretch is None else own[stretch]
                    assert float(data.advantages[i, t]) == pytest.approx(wanted, abs=1e-5), (i, t)
            continue
        number = sum(noise[group, -1] >= edge for edge in (0.2, 0.5))
        prefix = seeds[group][: BUDGETS[number]]
        lengths.add(len(prefix))
        mean = statistics.fmean(outcomes)
        for i, outcome in zip(rows, outcomes, strict=True):
            assert sample["stopped"][i]
            assert sample["completion"][i].startswith(prefix + "#")
            written = data.mask[i]
            begun = int((data.attended[i] & ~written).sum())
            assert int((data.ids[i, : begun - 1] >= 3).sum()) == len(prefix)
            assert int(data.ids[i, begun - 1]) == stop
            assert not written[:begun].any()
            assert torch.equal(written[begun:], data.attended[i, begun:])
            assert torch.allclose(data.advantages[i][written], torch.tensor(outcome - mean), atol=1e-6)
            assert (data.advantages[i][~written] == 0).all()
    assert len(lengths) > 1
    assert (data.advantages[[i for i in range(16) if i // 4 % 2 == 0]] != 0).any()
    assert (data.advantages[[i for i in range(16) if i // 4 % 2 == 1]] != 0).any()


def test_anytime_a_stopped_run_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    """With less than a prompt per step that begins: one of eight, the last of the second step."""
    sampling = {"group": 4, "begin": ANYTIME["method"]["sampling"]["begin"] | {"share": 0.125}}
    recipe = tiny(**ANYTIME | {"method": ANYTIME["method"] | {"sampling": sampling}}, steps=2)
    loop.train(recipe, tmp_path / "whole")
    stopped(monkeypatch, loop.train, recipe, tmp_path / "stopped", after=1)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert equal(*(last(tmp_path / name).weights for name in ("stopped", "whole")))
    kept = [sample["stopped"] for _, sample in Run(tmp_path / "whole").rollouts()]
    assert kept == [[False] * 16, [False] * 12 + [True] * 4]


def test_a_share_of_the_prompts_begins_spread_evenly():
    for share in (0.25, 0.3, 0.5, 1.0):
        begin = Begin(cut=CUT, share=share)
        asked = [begin.asks(number) for number in range(1000)]
        counts = np.cumsum(asked)
        assert all(abs(count - share * (k + 1)) < 1 + 1e-9 for k, count in enumerate(counts))


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        ({"share": 0.0}, "share is of the prompts"),
        ({"prior": [1.0]}, "prior is one weight for each budget"),
        ({"prior": [1.0, -1.0, 1.0]}, "prior is one weight for each budget"),
        ({"prior": [0.0, 0.0, 0.0]}, "prior is one weight for each budget"),
        ({"cut": {"at": "separator", "separator": ";"}, "prior": [1.0]}, "prior is one weight for each budget"),
        ({"cut": {"at": "budgets", "budgets": [4, 8], "until": None}, "prior": [1, 1]}, "a budget of 8 tokens"),
        ({"cut": {"at": "budgets", "budgets": [4, 7], "until": None}, "prior": [1, 1]}, "a budget of 7 tokens"),
    ],
)
def test_budgets_that_cannot_be_are_said_before_any_work(tiny, tmp_path, begin, message):
    settings = {"cut": CUT, "stops": 4, "stop": "#"} | begin
    with pytest.raises(RecipeError, match=re.escape(message)):
        loop.train(tiny(method={"sampling": {"begin": settings}}), tmp_path / "run")
    assert not Run(tmp_path / "run").metrics()
