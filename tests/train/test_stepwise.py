"""Groups of candidates for the next step, one of which is taken, all of which are learned from."""

import math
import re
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

from guerdon.core import Rollouts, Scores, Tokens
from guerdon.core.errors import RecipeError
from guerdon.train import presets, recipe as recipes
from guerdon.train.language import loop
from guerdon.train.language.beginnings import Going, steps_taken
from guerdon.train.language.generation import SamplingConfig, generate, uniforms
from guerdon.train.language.policy import build
from guerdon.train.run import Run
from guerdon.train.sampling import Sampling, Steps

TEMPERATURE = 0.7
# A step is right if it ends with an even digit, and an early one is worth more.
STEPWISE = {
    "reward": [
        {"part": "format.regex", "pattern": "(?s).*[02468][^1]{0,2}1?", "name": "right"},
        {
            "weigh": {"part": "format.regex", "pattern": "(?s).*[02468]1?", "name": "late", "weight": -0.1},
            "by": "depth",
        },
    ],
    "method": {
        "preset": "grpo",
        "kl": {"coefficient": 0.0},
        "sampling": {"group": 4, "steps": {"end": ["1"], "most": 3, "temperature": TEMPERATURE}},
    },
    "sampling": {"max_tokens": 24},
    "evaluation": {"prompts": 2},
    "keep": {"checkpoint_every": 1, "rollouts_every": 1, "rollouts": 128},
}


def drawn(advantages, u, temperature):
    """The candidate at which the distribution softmax(A / η) first exceeds u."""
    weights = [math.exp(a / temperature) for a in advantages]
    reached = 0.0
    for k, weight in enumerate(weights):
        reached += weight / sum(weights)
        if reached > u:
            return k
    raise AssertionError


def test_a_completion_that_pauses_goes_on_as_the_one_that_does_not(tiny):
    model, tokenizer = build(tiny().policy, seed=2)
    prompts, limit = [f"{i}+2=" for i in range(4)], 16
    noise = uniforms(range(4), limit, seed=0, step=1)
    config = SamplingConfig(max_tokens=limit)
    whole = generate(model, tokenizer, prompts, uniforms=noise, config=config)
    pauses = 0
    for i, prompt in enumerate(prompts):
        begun, finished = [], False
        while len(begun) < limit and not finished:
            rest = np.concatenate([noise[i : i + 1, len(begun) :], np.zeros((1, len(begun)))], 1)
            piece = generate(model, tokenizer, [prompt], uniforms=rest, config=config, begun=[begun], pause=("1", "2"))
            said = tokenizer.decode(piece.ids[0][piece.written[0]].tolist())
            paused = said[-1] in "12"
            assert not re.search("[12]", said[:-1])
            assert paused or bool(piece.finished[0]) or piece.ids.shape[1] == limit
            begun, finished = piece.ids[0][piece.attended[0]].tolist(), bool(piece.finished[0])
            assert not (paused and finished)
            pauses += paused
        assert begun == whole.ids[i][whole.attended[i]].tolist()
        assert piece.texts == [whole.texts[i]]
        assert finished == bool(whole.finished[i])
    assert pauses > 3


def test_slate_candidates_go_on_from_the_one_that_was_drawn_by_its_advantage(tiny, tmp_path, learned):
    recipe = tiny(**STEPWISE, batch={"prompts": 8}, steps=1, seed=4)
    loop.train(recipe, tmp_path / "run")
    [data], [(_, sample)] = learned, Run(tmp_path / "run").rollouts()
    assert len(data) == len(sample["depth"])
    rewards, text, depth = sample["score"], sample["completion"], sample["depth"]
    going = [(prompt, "") for prompt in sample["prompt"][:32:4]]
    policy, tokenizer = build(recipe.policy, seed=recipe.seed)
    at, taken_later = 0, []
    for level in range(3):
        beyond = []
        for prompt, prefix in going:
            rows = range(at, at + 4)
            assert {(sample["prompt"][i], depth[i]) for i in rows} == {(prompt, level)}
            mean, sigma = (f([rewards[i] for i in rows]) for f in (statistics.fmean, statistics.stdev))
            own = [0.0 if sigma < 1e-6 else (rewards[i] - mean) / (sigma + 1e-4) for i in rows]
            for i, advantage in zip(rows, own, strict=True):
                written = data.mask[i]
                begun = int((data.attended[i] & ~written).sum())
                assert torch.equal(data.ids[i, :begun], data.ids[at, :begun])
                assert not written[:begun].any()
                assert torch.equal(written[begun:], data.attended[i, begun:])
                assert float(data.advantages[i]) == pytest.approx(advantage, abs=1e-5)
                assert text[i] == prefix + sample["step"][i]
                whole = sample["finished"][i] or int(data.attended[i].sum()) == 24
                assert whole or (level < 2 and sample["step"][i].endswith("1"))
                assert level == 2 or "1" not in sample["step"][i][:-1]
            u = uniforms([at // 4], 1, seed=recipe.seed, step=1, stream=4)[0, 0]
            chosen = at + drawn(own, u, TEMPERATURE)
            taken_later.append(chosen - at)
            if not sample["finished"][chosen] and int(data.attended[chosen].sum()) < 24:
                beyond.append((prompt, text[chosen]))
            at += 4
        going = beyond
    # Every candidate has randomness of its own: the last group, written again by its number in the batch.
    begun = data.ids[at - 1][data.attended[at - 1] & ~data.mask[at - 1]].tolist()
    noise = uniforms(range(at - 4, at), 24, seed=recipe.seed, step=1)
    config = SamplingConfig(max_tokens=24)
    prompts = sample["prompt"][at - 4 :]
    again = generate(policy, tokenizer, prompts, uniforms=noise, config=config, begun=[begun] * 4)
    assert again.texts == text[at - 4 :]
    assert at == len(data)
    assert max(depth) == 2
    assert len(set(taken_later)) > 2


def test_slate_a_stopped_run_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    """With as many updates of each batch as there are to be, though its size differs from step to step."""
    recipe = tiny(**STEPWISE, batch={"minibatches": 16}, steps=3)
    loop.train(recipe, tmp_path / "whole")
    stopped(monkeypatch, loop.train, recipe, tmp_path / "stopped", after=1)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert {int(state["step"]) for state in last(tmp_path / "whole").optimizer["state"].values()} == {3 * 16}
    assert equal(*(last(tmp_path / name).weights for name in ("stopped", "whole")))


def candidates(rewards, *, lengths, begun, without=(), finished=()):
    """Groups of three candidates, of so many tokens each, behind so many that were taken before."""
    n, width = len(rewards), max(lengths)
    place = np.arange(width)
    attended = place < np.array(lengths)[:, None]
    written = attended & (place >= np.repeat(begun, 3)[:, None])
    ids = np.where(attended, 3 + place + 100 * np.arange(n)[:, None], 0)
    ended = np.isin(np.arange(n), finished)
    groups = np.repeat(np.arange(n // 3), 3)
    rollouts = Rollouts(["p"] * n, ["c"] * n, groups=groups, finished=ended, tokens=Tokens(ids, written, attended))
    scored = ~np.isin(np.arange(n), without)
    return rollouts, Scores(
        np.array(rewards), valid=scored, mask=np.ones(n, bool), reasons=dict.fromkeys(without, "no")
    )


@pytest.mark.parametrize("credit", ["credit.group_relative", ["credit.group_relative", "credit.spread"]])
def test_the_best_is_taken_and_what_ends_or_has_no_score_does_not_go_on(credit):
    """At temperature 0; with credit on tokens, by what a candidate's tokens have in the mean."""
    if isinstance(credit, list):
        credit = [credit[0], {"part": credit[1], "place": "all"}]
    method = presets.load("grpo", credit=credit, sampling={"group": 3, "steps": {"temperature": 0}})
    job = SimpleNamespace(method=method, recipe=SimpleNamespace(seed=0, sampling=SimpleNamespace(max_tokens=6)))
    rollouts, scores = candidates(
        [0, 2, 1, 5, 1, 0, 2, 1, 0, 2, 0, 0, 1, 2, 3],
        lengths=[3, 4, 5, 3, 4, 5, 2, 2, 2, 6, 1, 1, 3, 3, 3],
        begun=[1, 2, 1, 0, 2],
        without=(3, 12, 13, 14),
        finished=(6,),
    )
    going = [Going({"prompt": str(i)}, []) for i in range(5)]
    found = steps_taken(job, going, rollouts, scores, range(5), step=1)
    # The second prompt's best has no score; the others end by themselves, at the limit, or for want of a score.
    assert [(one.row["prompt"], one.taken) for one in found] == [
        ("0", [103, 104, 105, 106]),
        ("1", [403, 404, 405, 406]),
    ]


def test_slate_the_draw_follows_the_softmax_of_the_advantages():
    """The worked example: r = (2, 1, 0, −1, 0), A = (1.403, …), P = (0.679, 0.194, 0.055, 0.016, 0.055)."""
    n = 4000
    method = presets.load("grpo", credit={"eps": 1e-6}, sampling={"group": 5, "steps": {}})
    job = SimpleNamespace(method=method, recipe=SimpleNamespace(seed=0, sampling=SimpleNamespace(max_tokens=9)))
    ids, there = np.tile(np.arange(5), n)[:, None], np.ones((5 * n, 1), bool)
    rollouts = Rollouts(
        ["p"] * 5 * n, ["c"] * 5 * n, groups=np.repeat(np.arange(n), 5), finished=~there[:, 0],
        tokens=Tokens(ids, there, there),
    )  # fmt: skip
    scores = Scores.of([2.0, 1.0, 0.0, -1.0, 0.0] * n)
    found = steps_taken(job, [Going({}, [])] * n, rollouts, scores, range(n), step=1)
    shares = np.bincount([one.taken[0] for one in found], minlength=5) / n
    np.testing.assert_allclose(shares, [0.679, 0.194, 0.055, 0.016, 0.055], atol=0.02)


def test_slate_learns_what_is_paid_in_each_step(tiny, tmp_path):
    recipe = tiny(
        reward=[{"part": "format.regex", "pattern": "(?s)(.*1)?[^1]{0,2}1"}],
        method={"sampling": {"group": 8, "steps": {"end": ["1"], "most": 3}}},
        sampling={"max_tokens": 24}, batch={"prompts": 4, "micro": 64}, steps=12,
        optimizer={"learning_rate": 2e-2}, evaluation={"prompts": 2},
        keep={"checkpoint_every": 50, "rollouts_every": 50},
    )  # fmt: skip
    loop.train(recipe, tmp_path / "run")
    paid = [record["reward"] for record in Run(tmp_path / "run").metrics()]
    assert statistics.fmean(paid[-3:]) > statistics.fmean(paid[:3]) + 0.3


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"steps": {"end": []}}, "end is the texts that end a step"),
        ({"steps": {"end": [""]}}, "end is the texts that end a step"),
        ({"steps": {"most": 0}}, "most is at least 1"),
        ({"steps": {"temperature": -1}}, "temperature at least 0, got"),
        ({"steps": {"ends": ["1"]}}, "ends"),
        ({"steps": {}, "dynamic": True}, "no begin, external, guided or dynamic"),
        ({"steps": {}, "external": "answer"}, "no begin, external, guided or dynamic"),
        ({"steps": {}, "begin": {}}, "no begin, external, guided or dynamic"),
    ],
)
def test_steps_that_cannot_be_are_said_before_any_work(tiny, tmp_path, sampling, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        loop.train(tiny(method={"sampling": sampling}), tmp_path / "run")


@pytest.mark.parametrize("name", ["step", "depth"])
def test_a_column_that_says_of_steps_is_not_the_prompts(tiny, tmp_path, name):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "{i}+1=", "answer": "1", "{name}": "x"}}\n' for i in range(10)))
    data = tiny(method={"sampling": {"steps": {"end": ["1"]}}}, evaluation={"prompts": 2}).data()
    data["prompts"] = {"file": str(path), "held_out": 0.5}
    with pytest.raises(RecipeError, match=re.escape(f"method.sampling.steps: prompts have a column {name!r}")):
        loop.train(recipes.from_data(data), tmp_path / "run")


def test_steps_are_data():
    method = presets.load("grpo", sampling={"group": 4, "steps": {"end": [";"], "most": 2}})
    assert method.sampling == Sampling(group=4, steps=Steps(end=(";",), most=2))
    assert presets.load("grpo", **method.dump()) == method
