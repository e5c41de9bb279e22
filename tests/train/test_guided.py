"""Rollouts that are written with guidance in the prompt, and learned from without it."""

import json

import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

from guerdon.core.errors import RecipeError
from guerdon.train import presets, recipe as recipes
from guerdon.train.language import loop
from guerdon.train.language.generation import SamplingConfig, generate, uniforms
from guerdon.train.language.guidance import with_guidance
from guerdon.train.language.learning import learn
from guerdon.train.language.losses import given
from guerdon.train.language.policy import ModelShape, PolicyConfig, build
from guerdon.train.language.teach import TeachConfig, teach
from guerdon.train.prompts import Prompts, PromptsConfig
from guerdon.train.run import Run
from guerdon.train.sampling import Guided, Sampling

HINTS = {"1+1=": "2", "2+3=": None, "4+4=": "7;8", "5+1=": ""}
TEMPLATE = "{guidance};{prompt}"
LIMIT, GROUP = 8, 4


@pytest.fixture
def attentive(tiny, tmp_path):
    """A policy for which it matters what the prompt is; as it is first built, it hardly does."""
    model, tokenizer = build(tiny().policy, seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6.0 if weight.ndim == 2 else 1.0)
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")


@pytest.fixture
def recipe(tiny, tmp_path, attentive):
    """`recipe(guided={...})`: the tiny recipe, two of four rollouts guided, on prompts of which half have a hint."""

    def build(guided=None, preset="dr_grpo", hints=HINTS, sampling=None, **changes):
        rows = [{"prompt": p, "hint": hint, "said": ["3"]} for p, hint in hints.items()]
        for name, lines in (("train", rows), ("test", [{"prompt": "9+9=", "hint": "18", "said": None}])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        chosen = {"column": "hint", "rollouts": 2, "template": TEMPLATE} | (guided or {})
        data = tiny(
            evaluation={"prompts": 1, "accuracy": "text.length"},
            batch={"prompts": len(hints)},
            seed=3,
            keep={"rollouts": 16},
            **changes,
        ).data()
        data["method"] = {"preset": preset, "sampling": {"group": GROUP, "guided": chosen} | (sampling or {})}
        file, test = str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")
        prompts = {"file": file, "held_out_file": test}
        return recipes.from_data(data | {"prompts": prompts, "policy": {"path": str(tmp_path / "policy")}})

    return build


@pytest.fixture
def watched(monkeypatch):
    """What a run collects and learns from, step by step."""
    seen, collect = [], loop.collect

    def collected(*rest):
        found = collect(*rest)
        seen.append([found[0]])
        return found

    def learned(data, *rest, **options):
        seen[-1].append(data)
        return learn(data, *rest, **options)

    monkeypatch.setattr(loop, "collect", collected)
    monkeypatch.setattr(loop, "learn", learned)
    return seen


def read(model, tokenizer, prompt, ids):
    """Log-probabilities of some tokens behind a prompt, row by row and without padding."""
    before = tokenizer(prompt).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([[*before, *ids]])).logits[0, len(before) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(ids)), ids].numpy()


@pytest.mark.parametrize("keep", [False, True])
def test_guided_rollouts_are_written_with_guidance_and_learned_from_behind_the_plain_prompt(
    recipe, watched, tmp_path, keep
):
    """Told from the definition: what each place says is sampled from the guided prompt, and read from the plain one."""
    of = recipe({"keep": keep}, preset="group_dpo", steps=1)
    loop.train(of, tmp_path / "run")
    [[rollouts, data]] = watched
    policy, tokenizer = build(of.policy, seed=of.seed)
    noise = uniforms(range(4 * GROUP), LIMIT, seed=of.seed, step=1)
    tokens, plain = rollouts.tokens, [row["prompt"] for row in Prompts(of.prompts, seed=of.seed).draw(0, 4)]
    guided = [bool(HINTS[plain[k // GROUP]]) and k % GROUP >= 2 for k in range(4 * GROUP)]
    assert list(rollouts.column("guided")) == guided
    assert rollouts.groups.tolist() == [k // GROUP for k in range(4 * GROUP)]
    for k in range(4 * GROUP):
        prompt = plain[k // GROUP]
        told = f"{HINTS[prompt]};{prompt}" if guided[k] else prompt
        config = SamplingConfig(max_tokens=LIMIT)
        [text] = generate(policy, tokenizer, [told], uniforms=noise[k : k + 1], config=config).texts
        assert rollouts.completions[k] == text
        learned = told if keep else prompt
        assert rollouts.prompts[k] == learned
        assert data.prompt_ids[k][data.prompt_mask[k]].tolist() == tokenizer(learned).input_ids
        there = tokens.attended[k]
        expected = read(policy, tokenizer, learned, tokens.ids[k][there].tolist())
        np.testing.assert_allclose(tokens.logp[k][there], expected, atol=1e-5)
        np.testing.assert_allclose(data.ref_logp[k][there], expected, atol=1e-5)  # the policy at its start
        if guided[k]:
            other = read(policy, tokenizer, prompt if keep else told, tokens.ids[k][there].tolist())
            assert np.abs(other - expected).max() > 1e-3  # the two prompts are not the same to it
    if keep:
        assert tokens.origin is None
    else:
        assert ((tokens.origin != 0) == tokens.written & np.array(guided)[:, None]).all()
    [record] = Run(tmp_path / "run").metrics()
    [(_, kept)] = Run(tmp_path / "run").rollouts()
    rewards, told = np.array(kept["score"]), np.array(kept["guided"])
    assert told.tolist() == guided
    assert record["reward_guided"] == pytest.approx(rewards[told].mean())
    assert record["reward_unguided"] == pytest.approx(rewards[~told].mean())


def test_what_the_policy_writes_beside_them_is_what_it_would_have_written_without(recipe, watched, tmp_path):
    loop.train(recipe(steps=1), tmp_path / "with")
    loop.train(recipe(steps=1, sampling={"guided": None}), tmp_path / "without")
    [mixed, _], [own, _] = watched
    assert own.tokens.origin is None
    assert not own.has("guided")
    same = [a == b for a, b in zip(mixed.completions, own.completions, strict=True)]
    assert all(one for one, told in zip(same, mixed.column("guided"), strict=True) if not told)
    assert not all(same)


def test_an_objective_that_corrects_for_tokens_of_others_is_told_of_them(recipe, watched, tmp_path):
    """RL-PLUS's mixture ratio, on what was written under guidance that was taken away."""
    of = recipe(preset="rl_plus", sampling={"external": None}, steps=1)
    loop.train(of, tmp_path / "run")
    [[rollouts, data]] = watched
    told = torch.tensor(list(rollouts.column("guided")))
    assert torch.equal(data.external, data.attended & told[:, None])
    assert "external" not in given(presets.load("grpo", sampling={"guided": {"column": "hint"}}))
    with pytest.raises(RecipeError, match=r"method\.sampling\.guided"):
        recipe({"keep": True}, preset="rl_plus", sampling={"external": None})


def test_completions_of_others_come_behind_the_guided(recipe, watched, tmp_path):
    loop.train(recipe(sampling={"external": "said"}, steps=1), tmp_path / "run")
    [[rollouts, _]] = watched
    for i in range(4):
        rows = range(i * GROUP, (i + 1) * GROUP)
        hint = HINTS[rollouts.prompts[rows[0]]]
        assert [rollouts.column("guided")[k] for k in rows] == ([False, True, True, False] if hint else [False] * 4)
        assert rollouts.completions[rows[-1]] == "3"
        assert rollouts.tokens.origin[rows].any(1).tolist() == (
            [False, True, True, True] if hint else [False] * 3 + [True]
        )


@pytest.mark.parametrize("preset", ["dr_grpo", "group_dpo"])
def test_a_guided_run_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch, preset):
    of = recipe(preset=preset, steps=4)
    loop.train(of, tmp_path / "whole")
    stopped(monkeypatch, loop.train, of, tmp_path / "stopped", after=2)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert equal(last(tmp_path / "stopped").weights, last(tmp_path / "whole").weights)


def test_the_guidance_of_messages_is_in_the_user_s_last():
    chat = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "1+1="},
        {"role": "assistant", "content": "2"},
    ]
    row = {"prompt": chat, "hint": "count", "kind": "sum"}
    guided = Guided("hint", template="{kind}: {guidance}; {prompt}")
    told = with_guidance(row, guided)
    assert told == [chat[0], {"role": "user", "content": "sum: count; 1+1="}, chat[2]]
    assert chat[1]["content"] == "1+1="  # the row is as it was
    assert with_guidance({"prompt": "1+1=", "hint": "a {prompt} {b}"}, Guided("hint")) == "1+1=\n\na {prompt} {b}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guided": {"column": "hnt"}}, r"method\.sampling\.guided: prompts have no 'hnt': did you mean 'hint'"),
        (
            {"guided": {"template": "{clue}{prompt}{guidance}"}},
            r"method\.sampling\.guided: template .*there is no 'clue'",
        ),
        ({"hints": {"1+1=": ["2"], "2+2=": "4"}}, r"method\.sampling\.guided: 'hint' holds texts, got \['2'\]"),
        ({"hints": {"1+1=": None, "2+2=": ""}}, r"method\.sampling\.guided: no prompt of .* has any 'hint'"),
        ({"hints": {"1+1=": "1" * 40, "2+2=": "4"}}, "a prompt of 46 tokens and max_tokens 8 do not fit"),
        ({"guided": {"rollouts": 0}}, "rollouts must be at least 1"),
        ({"guided": {"rollouts": 5}}, "at most the 4 rollouts of a group"),
        ({"guided": {"template": "{prompt}"}}, "template has a {prompt} and a {guidance}"),
        ({"sampling": {"begin": {"cut": {"at": "separator"}}}}, "leave out begin"),
    ],
)
def test_what_cannot_be_guided_is_said_before_any_work(recipe, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        loop.train(recipe(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_column_of_the_name_that_says_who_was_guided_is_refused(recipe, tmp_path):
    of = recipe()
    path = tmp_path / "train.jsonl"
    path.write_text(
        "".join(json.dumps({"guided": 1} | json.loads(line)) + "\n" for line in path.read_text().splitlines())
    )
    with pytest.raises(RecipeError, match="prompts have a column 'guided'"):
        loop.train(of, tmp_path / "run")


def test_guidance_is_data():
    method = presets.load("grpo", sampling={"group": 4, "guided": {"column": "hint", "rollouts": 2}})
    assert method.sampling == Sampling(group=4, guided=Guided("hint", rollouts=2))
    assert presets.load("grpo").override(**method.dump()) == method
    assert method.override(sampling={"guided": None}).sampling.guided is None


LETTERS, DIGITS = "abcd", "0123456789"
ANSWERS = dict(zip(LETTERS, DIGITS[5:], strict=False))


@pytest.fixture(scope="module")
def follower(tmp_path_factory):
    """A policy that says what it is told, and of itself no digit above 4."""
    folder = tmp_path_factory.mktemp("follower")
    told = [{"prompt": f"{digit}{letter}=", "said": digit} for letter in LETTERS for digit in DIGITS for _ in range(3)]
    alone = [{"prompt": f"{letter}=", "said": list(DIGITS[:5])} for letter in LETTERS for _ in range(20)]
    (folder / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told + alone))
    shape = ModelShape(
        layers=1, hidden=32, heads=2, mlp=64, context=16, tied_embeddings=False, alphabet=f"{LETTERS}{DIGITS}=|"
    )
    model, tokenizer = build(PolicyConfig(shape), seed=0)
    lessons = Prompts(PromptsConfig(file=str(folder / "lessons.jsonl"), held_out=0.01), seed=0)
    config = TeachConfig("column", {"column": "said"}, steps=130, batch=32, learning_rate=1e-2)
    teach(model, tokenizer, lessons, config, seed=0)
    model.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    return folder


def succeeds(folder):
    """How often a policy answers rightly without guidance: the mean of p(answer | prompt)."""
    model, tokenizer = build(PolicyConfig(path=str(folder)), seed=0)
    return np.mean([
        np.exp(read(model, tokenizer, f"{letter}=", tokenizer(answer, add_special_tokens=False).input_ids)[0])
        for letter, answer in ANSWERS.items()
    ])  # fmt: skip


@pytest.mark.parametrize("keep", [False, True])
def test_agent_rlvr_guidance_taken_away_lifts_success_without_it_and_kept_does_not(follower, tmp_path, keep):
    """DPO on passes and failures of each prompt, half of them guided; of itself the policy never passes."""
    rows = [{"prompt": f"{letter}=", "answer": answer, "plan": answer} for letter, answer in ANSWERS.items()]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "a|=", "answer": "1", "plan": None}))
    guided = {"column": "plan", "template": "{guidance}{prompt}", "keep": keep}
    of = recipes.from_data({
        "name": "plan", "policy": {"path": str(follower / "policy")}, "reward": "text.exact", "steps": 24,
        "prompts": {"file": str(tmp_path / "train.jsonl"), "held_out_file": str(tmp_path / "test.jsonl")},
        "method": {"preset": "group_dpo", "sampling": {"guided": guided}}, "sampling": {"max_tokens": 2},
        "batch": {"prompts": 4}, "optimizer": {"learning_rate": 3e-3}, "threads": 1, "device": "cpu",
        "evaluation": {"prompts": 1, "accuracy": "text.exact"}, "keep": {"checkpoint_every": 100},
    })  # fmt: skip
    loop.train(of, tmp_path / "run")
    first = Run(tmp_path / "run").metrics()[0]
    assert first["reward_guided"] > 0.5
    assert succeeds(follower / "policy") < 0.01
    after = succeeds(tmp_path / "run" / "policy")
    assert after < 0.02 if keep else after > 0.2
