"""A critic that learns the values of prefixes, and answers that are searched for by it."""

from math import comb

import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

from guerdon.core import Rollouts, Scores, Tokens
from guerdon.core.errors import RecipeError
from guerdon.train import presets, recipe as recipes
from guerdon.train.language import evaluation, loop
from guerdon.train.language.critic import Critic, targets
from guerdon.train.language.generation import SamplingConfig, generate, uniforms
from guerdon.train.language.learning import learn
from guerdon.train.language.search import search
from guerdon.train.recipe import Search
from guerdon.train.run import Run

LIMIT, WANTED = 8, 4
RIGHT = {"part": "format.regex", "pattern": f"([1-5].*){{{WANTED}}}", "match": "search"}
ALPHABET = "0123456789+-=;# "
EOS = 2
CRITIC = {"targets": "prefix", "hidden": [], "learning_rate": 0.01, "clip": None}


@pytest.fixture
def recipe(tiny):
    """`recipe(critic={…})`: completions of eight characters, right if four of them are among 1 to 5."""

    def build(critic=None, search=None, evaluation=None, reward=RIGHT, **changes):
        by = {"step": 1, "candidates": 8, "keep": 2} | (search or {})
        measured = {"prompts": 12, "samples": 4, "accuracy": RIGHT, "search": by} | (evaluation or {})
        data = tiny(critic=CRITIC | (critic or {}), evaluation=measured, **changes).data()
        return recipes.from_data(data | {"reward": reward})

    return build


@pytest.fixture
def searched(monkeypatch):
    """The job and the answers of each search of a run."""
    seen = []

    def watched(job, *rest):
        found = search(job, *rest)
        seen.append((job, rest, found))
        return found

    monkeypatch.setattr(evaluation, "search", watched)
    return seen


def written(rollouts):
    tokens = rollouts.tokens
    return [row[there].tolist() for row, there in zip(tokens.ids, tokens.attended, strict=True)]


def test_tvm_worked_labels_are_the_critics_targets():
    """Paths abc (right), abd (wrong), aef (right): V is 2/3 behind a, 1/2 behind ab, 1 behind ae and abc."""
    a, b, c, d, e, f, end = range(7)
    ids = np.array([[a, b, c, end], [a, b, d, end], [a, e, f, end]])
    there = np.ones((3, 4), bool)
    rollouts = Rollouts(
        ["?"] * 3, ["abc", "abd", "aef"], groups=np.zeros(3, int),
        tokens=Tokens(ids, there, there, logp=np.zeros((3, 4)), values=np.full((3, 4), 9.0, np.float32)),
    )  # fmt: skip
    found = targets(presets.load("grpo"), rollouts, Scores.of([1.0, 0.0, 1.0]), by="prefix")
    torch.testing.assert_close(
        found["targets"], torch.tensor([[2 / 3, 2 / 3, 1 / 2, 1.0], [2 / 3, 2 / 3, 1 / 2, 0.0], [2 / 3, 2 / 3, 1, 1]])
    )
    assert found["valued"].all()
    without = targets(presets.load("grpo"), rollouts, Scores.of([1.0, None, 1.0]), by="prefix")
    assert without["valued"].any(1).tolist() == [True, False, True]
    assert without["targets"][0].tolist() == [1.0] * 4


def test_in_the_loop_a_value_is_the_share_of_right_rollouts_that_begin_so(recipe, tmp_path, monkeypatch):
    """And the policy stays as it is, if only the critic ever learns."""
    seen = []

    def watched(data, of, method, model, *rest, **options):
        seen.append((data, {name: p.detach().clone() for name, p in model.named_parameters()}))
        return learn(data, of, method, model, *rest, **options)

    monkeypatch.setattr(loop, "learn", watched)
    loop.train(
        recipe(steps=2, critic={"warmup": 2}, evaluation={"search": None}, method={"sampling": {"group": 32}}),
        tmp_path / "run",
    )
    shared = 0
    for data, _ in seen:
        rows = [row[there].tolist() for row, there in zip(data.ids, data.attended, strict=True)]
        texts = ["".join(ALPHABET[x - 3] for x in row if x >= 3) for row in rows]
        right = [sum(character in "12345" for character in text) >= WANTED for text in texts]
        assert any(right)
        for i, row in enumerate(rows):
            group = range(i // 32 * 32, i // 32 * 32 + 32)
            for t in range(len(row)):
                same = [right[j] for j in group if rows[j][:t] == row[:t] and len(rows[j]) >= t]
                shared += len(same) > 1
                assert float(data.targets[i, t]) == pytest.approx(np.mean(same))
        assert torch.equal(data.valued, data.attended)
    assert shared > 400
    assert equal(seen[0][1], seen[1][1])
    assert equal(
        seen[0][1], {name: value for name, value in last(tmp_path / "run").weights.items() if name in seen[0][1]}
    )


def chance(self, prompt_ids, prompt_mask, ids, attended):
    """In place of a critic: before each token the chance of a right answer, if all tokens were alike to the policy."""
    table = torch.zeros(ids.shape)
    for i, row in enumerate(ids.tolist()):
        good = 0
        for t, token in enumerate(row):
            left, need = LIMIT - t, max(0, WANTED - good)
            table[i, t] = sum(comb(left, k) * (5 / 19) ** k * (14 / 19) ** (left - k) for k in range(need, left + 1))
            good += 3 < token < 9  # 1 to 5
    return table


def test_tvm_search_by_the_true_values_finds_what_sampling_mostly_does_not(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Critic, "values", chance)
    summary = loop.train(recipe(steps=0, search={"candidates": 16, "keep": 4}), tmp_path / "run")
    assert summary["after"]["accuracy"] < 0.25
    assert summary["after"]["search"]["accuracy"] == 1.0  # a good token is among 16 in 99 of 100 steps, of which 4 do


def test_tvm_end_to_end_search_by_what_was_learned_beats_samples(recipe, tmp_path, shape):
    """Bounds stated beforehand: fewer than a quarter of the samples are right, more than three quarters by search."""
    own = {"from_config": shape | {"hidden": 32}}
    of = recipe(
        steps=6, critic={"warmup": 6, "start": "zero", "model": own}, method={"sampling": {"group": 32}},
        batch={"prompts": 8, "micro": 256, "passes": 7}, keep={"checkpoint_every": 100}, evaluation={"prompts": 24},
    )  # fmt: skip
    summary = loop.train(of, tmp_path / "run")
    before, after = summary["before"], summary["after"]
    assert before["accuracy"] == after["accuracy"] < 0.25
    assert before["search"]["accuracy"] < 0.35  # all values are 0: a sample
    assert after["search"]["accuracy"] > 0.75
    assert after["search"]["ci95"][0] > after["ci95"][1]
    assert Run(tmp_path / "run").evaluations()[-1]["search"] == after["search"]
    said = f"Answers that were searched for are right in {after['search']['accuracy']:.0%}".replace("%", "\u00a0%")
    assert said in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.fixture
def shape(tiny):
    return tiny().data()["policy"]["from_config"]


def slow_search(job, prompt, number, by, limit):
    """The definition, for one prompt and row by row: its tokens, and how many were sampled."""

    def worth(ids):
        asked = list(ids) if ids[-1] == EOS or len(ids) == limit else [*ids, EOS]
        encoded = job.tokenizer(prompt).input_ids
        there = [torch.ones(1, len(x), dtype=torch.bool) for x in (encoded, asked)]
        values = job.critic.values(torch.tensor([encoded]), there[0], torch.tensor([asked]), there[1])
        return float(values[0, len(asked) - 1])

    def text(ids):
        return "".join(ALPHABET[x - 3] for x in ids if x >= 3)

    beam, sampled = [((), -np.inf)], 0
    for depth in range(1, limit + 1):
        done = [b for b in beam if b[0] and (b[0][-1] == EOS or len(b[0]) == limit)]
        open_ones = [b for b in beam if b not in done]
        if not open_ones:
            break
        slot, grown, counts = number * by.candidates, [], [by.candidates // len(open_ones)] * len(open_ones)
        if by.allot is not None and len(open_ones) == 2:  # in proportion to exp(value / T), rounded
            odds = np.exp((open_ones[1][1] - open_ones[0][1]) / by.allot)
            second = round(by.candidates * odds / (1 + odds))
            counts = [by.candidates - second, second]
        for (ids, _), count in zip(open_ones, counts, strict=True):
            for _ in range(count):
                noise = uniforms([slot], limit, seed=job.recipe.seed, step=depth, stream=5)
                slot += 1
                config = SamplingConfig(max_tokens=limit)
                made = generate(job.policy, job.tokenizer, [prompt], uniforms=noise, config=config, begun=[ids])
                new = made.ids[0][made.written[0]].tolist()
                if isinstance(by.step, int):
                    new = new[: by.step]
                else:
                    ends = [k for k in range(1, len(new) + 1) if text(new[:k]).endswith(by.step)]
                    new = new[: ends[0]] if ends else new
                sampled += len(new)
                grown.append((*ids, *new))
        beam = sorted([*done, *((ids, worth(ids)) for ids in grown)], key=lambda b: -b[1])[: by.keep]
    return list(beam[0][0]), sampled


@pytest.mark.parametrize(("step", "allot"), [(1, None), (1, 0.2), (3, None), ("1", None), ("never", None)], ids=repr)
def test_a_search_is_its_definition_however_prompts_are_divided(recipe, tmp_path, searched, step, allot):
    """With a text that never comes, it is the best of the candidates."""
    measured = {"batch": 11, "prompts": 6, "samples": 1}
    loop.train(
        recipe(steps=0, search={"step": step, "allot": allot, "candidates": 5}, evaluation=measured), tmp_path / "run"
    )
    job, (_, _, config, by), _ = searched[0]
    assert [list(rest[1]) for _, rest, _ in searched[:3]] == [[0, 1], [2, 3], [4, 5]]
    found = [ids for _, _, (rollouts, _) in searched[:3] for ids in written(rollouts)]
    slow = [slow_search(job, row["prompt"], i, by, LIMIT) for i, row in enumerate(job.held_out)]
    assert found == [ids for ids, _ in slow]
    again, sampled = search(job, job.held_out, range(6), config, by)
    assert written(again) == found
    assert sampled == sum(count for _, count in slow)
    assert again.groups.tolist() == list(range(6))
    assert again.finished.tolist() == [ids[-1] == EOS for ids in found]
    assert list(again.completions) == ["".join(ALPHABET[x - 3] for x in ids if x >= 3) for ids in found]
    assert job.run.evaluations()[0]["search"]["tokens"] == sampled / 6
    assert len(set(map(tuple, found))) > 3


def test_an_answer_that_is_stopped_goes_on_no_more(recipe, tmp_path, searched):
    of = recipe(
        steps=0, search={"step": 2}, evaluation={"prompts": 8}, sampling={"stop": ["4", "5"], "keep_stop": True}
    )
    loop.train(of, tmp_path / "run")
    answers = [text for _, _, (rollouts, _) in searched for text in rollouts.completions]
    assert any(text[-1:] in ("4", "5") for text in answers)
    assert not any("4" in text[:-1] or "5" in text[:-1] for text in answers)
    for _, _, (rollouts, _) in searched:
        said = zip(written(rollouts), rollouts.completions, strict=True)
        assert rollouts.finished.tolist() == [row[-1] == EOS or text[-1:] in ("4", "5") for row, text in said]


def test_a_run_with_values_of_prefixes_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch):
    of = recipe(steps=4, critic={"warmup": 1}, evaluation={"prompts": 4, "every": 2})
    loop.train(of, tmp_path / "whole")
    stopped(monkeypatch, loop.train, of, tmp_path / "stopped", after=2)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert Run(tmp_path / "stopped").evaluations() == Run(tmp_path / "whole").evaluations()
    ends = [last(tmp_path / name) for name in ("stopped", "whole")]
    assert equal(*(end.weights for end in ends))
    assert equal(*(end.critic["weights"] for end in ends))


STEPS = {"part": "math.steps", "separator": ";"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": {"targets": "credit"}}, r"nothing reads its values.*critic\.targets: prefix"),
        ({"reward": STEPS}, r"critic\.targets: values of prefixes are of one reward per rollout.*reduce it"),
        ({"method": {"preset": "b_coder"}}, r"critic\.targets: .*teaches them itself"),
        ({"search": {"step": ""}}, "step is a text that ends a step"),
        ({"search": {"step": 0}}, "at least 1 token"),
        ({"search": {"keep": 9}}, "candidates ≥ keep ≥ 1"),
        ({"search": {"allot": 0}}, "allot is a temperature above 0"),
        ({"evaluation": {"temperature": 0}}, r"evaluation\.search: at temperature 0 all candidates are the same"),
    ],
)
def test_what_cannot_be_searched_for_is_said_before_any_work(recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        recipe(**changes)


def test_a_search_without_a_critic_is_refused(tiny):
    with pytest.raises(RecipeError, match=r"evaluation\.search: .* critic, and the recipe has none: add critic"):
        tiny(evaluation={"search": {}})
    assert tiny(critic={"targets": "prefix"}, evaluation={"search": {}}).evaluation.search == Search()
