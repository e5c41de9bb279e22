"""Rollouts that go on from where one of the policy's own was cut, and those that stop there."""

import re
import statistics
from itertools import pairwise

import numpy as np
import pytest
import torch
from stopping import equal, last, stopped

from guerdon.core.errors import RecipeError
from guerdon.train import presets
from guerdon.train.language import loop
from guerdon.train.language.generation import SamplingConfig, generate, uniforms
from guerdon.train.language.policy import build, logprobs
from guerdon.train.run import Run
from guerdon.train.sampling import Begin, Sampling

CUT = {"at": "separator", "separator": "1", "until": None}
OUTCOME = {"part": "format.regex", "pattern": "[3-5]", "match": "search", "name": "outcome"}
GRADE = {"part": "format.regex", "pattern": "#.*[0-4].*"}
PROBE = {
    "part": "probe.accuracy",
    "grade": GRADE,
    "samples": 2,
    "max_tokens": 2,
    "cut": CUT,
    "stop": "#",
    "start": True,
}
MRT = {
    "reward": [OUTCOME, {"of": {"reduce": {**PROBE, "name": "potentials"}, "how": "last"}, "weight": 0}],
    "method": {
        "preset": "mrt",
        "kl": {"coefficient": 0.0},
        "sampling": {"group": 4, "begin": {"cut": CUT, "stops": 2, "stop": "#"}},
    },
    "sampling": {"max_tokens": 16},
    "keep": {"checkpoint_every": 1, "rollouts_every": 1, "rollouts": 64},
}


def steps_of(text):
    """Where the steps of a completion end: behind each run of 1 that something stands before, and at the end."""
    return [piece.end() for piece in re.finditer("1*[^1]+1*|1+", text)]


def test_a_completion_goes_on_from_its_beginning_as_a_longer_prompt_does(tiny):
    """Read as part of the prompt, what follows is the same; it counts towards the limit, and is not written."""
    model, tokenizer = build(tiny().policy, seed=1)
    ids = {text: tokenizer(text, add_special_tokens=False).input_ids for text in ("1+2=", "34#", "5")}
    begun = [ids["34#"], [], ids["5"]]
    noise = uniforms(range(3), 9, seed=0, step=1)
    whole = generate(model, tokenizer, ["1+2="] * 3, uniforms=noise, config=SamplingConfig(max_tokens=9), begun=begun)
    for i, text in enumerate(("34#", "", "5")):
        limit = SamplingConfig(max_tokens=9 - len(text))
        alone = generate(model, tokenizer, ["1+2=" + text], uniforms=noise[i : i + 1], config=limit)
        own = alone.ids[0][alone.written[0]].tolist()
        assert whole.ids[i][whole.attended[i]].tolist() == begun[i] + own
        assert whole.ids[i][whole.written[i]].tolist() == own
        assert whole.texts[i] == text + alone.texts[0]
        assert bool(whole.finished[i]) == bool(alone.finished[0])
        torch.testing.assert_close(whole.logp[i][whole.written[i]], alone.logp[0][alone.written[0]])
        assert whole.offsets[i, : len(text)].tolist() == [[k, k + 1] for k in range(len(text))]
    assert (whole.logp[~whole.written] == 0).all()
    tokens = whole.tokens()
    assert tokens.attended.sum(1).tolist() == [len(b) + int(w.sum()) for b, w in zip(begun, whole.written, strict=True)]
    inputs = [torch.as_tensor(x) for x in (whole.prompt_ids, whole.prompt_mask, tokens.ids, tokens.attended)]
    logp, _ = logprobs(model, *inputs)
    there = torch.as_tensor(tokens.written)
    torch.testing.assert_close(logp[there].detach(), whole.logp[there], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="fewer than 3 tokens"):
        generate(model, tokenizer, ["1+2="], uniforms=noise, config=SamplingConfig(max_tokens=3), begun=[ids["34#"]])


def test_mrt_rollouts_go_on_or_stop_where_one_of_the_policy_s_own_was_cut(tiny, tmp_path, learned):
    """A = outcome − mean outcome of those that stop, plus what each later step adds to the accuracy from there on."""
    recipe = tiny(**MRT, steps=1, seed=3)
    loop.train(recipe, tmp_path / "run")
    [data], [(_, sample)] = learned, Run(tmp_path / "run").rollouts()
    policy, tokenizer = build(recipe.policy, seed=recipe.seed)
    prompts = sample["prompt"][::4]
    noise = uniforms(range(4), 16, seed=recipe.seed, step=1, stream=3)
    seeds = generate(policy, tokenizer, prompts, uniforms=noise, config=SamplingConfig(max_tokens=16)).texts
    begun = 0
    for group in range(4):
        rows = range(group * 4, group * 4 + 4)
        on, stopped = [sample["completion"][i] for i in rows[:2]], [sample["completion"][i] for i in rows[2:]]
        lengths = {int((data.attended[i] & ~data.mask[i]).sum()) for i in rows[:2]}
        [length] = lengths
        first = data.ids[rows[0]][:length]
        prefix = on[0][: int((first >= 3).sum())]  # 0 to 2 are special, and no character of the text
        assert prefix in {seeds[group][:end] for end in [0, *steps_of(seeds[group])[:-1]]}
        assert on[1].startswith(prefix)
        assert all(text.startswith(prefix + "#") for text in stopped)
        assert {int((data.attended[i] & ~data.mask[i]).sum()) for i in rows[2:]} == {length + 1}
        assert [sample["stopped"][i] for i in rows] == [False, False, True, True]
        begun += length > 0
    assert begun
    for i, (text, potentials) in enumerate(zip(sample["completion"], sample["part.potentials"], strict=True)):
        rest = [sample["part.outcome"][j] for j in range(i // 4 * 4 + 2, i // 4 * 4 + 4)]
        own = sample["part.outcome"][i] - statistics.fmean(rest)
        gains = [after - before for before, after in pairwise(potentials)]
        ends, expected, said = steps_of(text), [0.0] * data.ids.shape[1], 0
        for t in torch.nonzero(data.attended[i]).flatten().tolist():
            said += int(data.ids[i, t]) >= 3
            at = next((k for k, end in enumerate(ends) if 0 < said <= end), None)
            expected[t] = own + (0.0 if at is None else sum(gains[at:])) if data.mask[i, t] else 0.0
        np.testing.assert_allclose(data.advantages[i], expected, atol=1e-6)


def test_mrt_a_stopped_run_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    recipe = tiny(**MRT, steps=2)
    loop.train(recipe, tmp_path / "whole")
    stopped(monkeypatch, loop.train, recipe, tmp_path / "stopped", after=1)
    assert equal(*(last(tmp_path / name).weights for name in ("stopped", "whole")))


@pytest.mark.parametrize(
    ("begin", "changes", "message"),
    [
        ({"cut": "turns"}, {}, "texts are cut, not at turns"),
        ({"cut": {"at": "seperator"}}, {}, "'seperator' is not a choice"),
        ({"stops": 5}, {}, "stops is at most group"),
        ({"stops": -1}, {}, "stops is at least 0"),
        ({}, {"external": "answer"}, "no external"),
        ({"stop": "#" * 9, "stops": 1}, {}, "is 9 tokens, of a completion's 8"),
        ({"stop": "", "stops": 1}, {}, "is 0 tokens"),
    ],
)
def test_beginnings_that_cannot_be_are_said_before_any_work(tiny, tmp_path, begin, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        loop.train(tiny(method={"preset": "grpo", "sampling": {"begin": begin, **changes}}), tmp_path / "run")
    assert not Run(tmp_path / "run").metrics()


def test_beginnings_are_data():
    begin = Begin(cut={"at": "separator"}, stops=1)
    method = presets.load("grpo", sampling={"group": 4, "begin": {"cut": {"at": "separator"}, "stops": 1}})
    assert method.sampling == Sampling(group=4, begin=begin)
    assert presets.load("grpo", **method.dump()) == method
