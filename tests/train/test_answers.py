"""A reference answer behind each completion, learned beside it: the second term of a likelihood reward's gradient."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from stopping import Alone, equal, last, metrics, stopped

from guerdon.core import Context, Rollouts
from guerdon.core.errors import RecipeError
from guerdon.rewards import likelihood
from guerdon.train.language import learning, loop
from guerdon.train.language.answers import answers
from guerdon.train.language.learning import learn
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import build
from guerdon.train.method import Answer
from guerdon.train.prompts import PromptsConfig

SHAPE = {"layers": 1, "hidden": 16, "heads": 2, "mlp": 32, "context": 16, "alphabet": "abc=#"}
OBJECTIVE = "objectives.answer_policy_gradient"
BOUND = {"part": "objectives.answer_bound_policy_gradient"}


@pytest.fixture
def setting(tiny, tmp_path):
    """`setting("sum", "logprob", …)`: both terms of the gradient of an answer's likelihood, on prompts of a file."""

    def build(how="sum", kind="logprob", answer=None, objective=None, group=64, baseline="mean", **changes):
        answer = {"lead": "="} if answer is None else answer
        asked = [{"prompt": "a", "answer": "bc"}, {"prompt": "cb", "answer": "b"}]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, asked)))
        (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "bb", "answer": "c"}))
        placed = {key: value for key, value in answer.items() if key != "column"}
        of = tiny(
            **{
                "policy": {"from_config": SHAPE},
                "reward": [{"part": "likelihood.answer", "how": how, **placed}],
                "method": {
                    "preset": "rloo",
                    "kl": {"coefficient": 0.0},
                    "credit": {"part": "credit.group_relative", "baseline": baseline, "scale": "none"},
                    "objective": objective
                    if objective == BOUND
                    else {"part": OBJECTIVE, "kind": kind, **(objective or {})},
                    "sampling": {"group": group},
                    "answer": answer,
                },
                "sampling": {"max_tokens": 1},
                "batch": {"prompts": 2, "micro": 512},
                "optimizer": {"max_grad_norm": 0.0},
                "evaluation": {"prompts": 1, "accuracy": "text.length"},
                "steps": 1,
                **changes,
            }
        )
        return replace(
            of, prompts=PromptsConfig(file=str(tmp_path / "train.jsonl"), held_out_file=str(tmp_path / "test.jsonl"))
        )

    return build


def update(of, data, accelerator=None):
    """The gradient that a step follows, up to its sign, at the policy's first weights; and what it reports."""
    policy, _ = build(of.policy, seed=of.seed)
    before = [p.detach().clone() for p in policy.parameters()]
    model, optimizer = policy, torch.optim.SGD(policy.parameters(), lr=1.0)
    if accelerator is None:
        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(policy, optimizer)
    schedule = SimpleNamespace(step=lambda: None)
    report = learn(data, of, of.load_method(), model, optimizer, schedule, accelerator, step=1)
    return report, [new.detach() - old for old, new in zip(before, policy.parameters(), strict=True)]


def logp_of(policy, context, ids, temperature=1.0):
    """The log-probability of each token of `ids` behind a context: one sequence, no padding."""
    logits = policy(torch.tensor([[*context, *ids]])).logits[0, len(context) - 1 : -1] / temperature
    return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]


REWARDS = {
    "logprob": lambda logp: logp.sum(),
    "mean-logprob": lambda logp: logp.mean(),
    "prob": lambda logp: logp.sum().exp(),
    "mean-prob": lambda logp: logp.exp().mean(),
}


def behind(data):
    return ((data.context_ids, data.context_mask), (data.answer_ids, data.answer_mask))


@pytest.mark.parametrize(
    ("how", "kind", "temperature"),
    [
        ("sum", "logprob", 1.0),
        ("mean", "mean-logprob", 1.0),
        ("exp-sum", "prob", 1.0),
        ("mean-exp", "mean-prob", 1.0),
        ("sum", "logprob", 0.5),
    ],
)
def test_the_update_is_the_gradient_of_the_expected_reward(setting, learned, tmp_path, how, kind, temperature):
    """E over all completions of one token, written out and differentiated, for a prompt whose answer is two tokens."""
    of = setting(how, kind, sampling={"max_tokens": 1, "temperature": temperature})
    loop.train(of, tmp_path / "run")
    [data] = learned
    policy, tokenizer = build(of.policy, seed=of.seed)
    [prompt] = tokenizer(["a"]).input_ids
    mine = (data.prompt_ids[:, -len(prompt) :] == torch.tensor(prompt)).all(1) & (data.prompt_mask.sum(1) == 2)
    expected, found = 0.0, 0.0
    for token in range(policy.config.vocab_size):
        text = "" if token in tokenizer.all_special_ids else tokenizer.decode([token])
        context = tokenizer("a" + text + "=").input_ids
        said = logp_of(policy, context, tokenizer("bc", add_special_tokens=False).input_ids)
        chance = logp_of(policy, prompt, [token], temperature)[0].exp()
        expected = expected + chance * REWARDS[kind](said)
        [row, *_] = torch.nonzero(mine & (data.ids[:, 0] == token))[:, 0].tolist()  # every token has been written
        one = data.select(torch.tensor([row]))
        found = found + chance.detach() * torch.cat([x.flatten() for x in update(of, one)[1]])
    gradient = torch.cat([x.flatten() for x in torch.autograd.grad(expected, list(policy.parameters()))])
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=2e-6)


def test_the_update_is_the_gradient_of_the_expected_bound(setting, learned, tmp_path):
    """E over all pairs of completions of one token, written out and differentiated: JEPO with two rollouts a group."""
    loop.train(setting(), tmp_path / "run")
    [data] = learned
    of = setting(objective=BOUND)
    policy, tokenizer = build(of.policy, seed=of.seed)
    [prompt] = tokenizer(["a"]).input_ids
    mine = (data.prompt_ids[:, -len(prompt) :] == torch.tensor(prompt)).all(1) & (data.prompt_mask.sum(1) == 2)
    tokens = range(policy.config.vocab_size)
    texts = ["" if token in tokenizer.all_special_ids else tokenizer.decode([token]) for token in tokens]
    wanted = tokenizer("bc", add_special_tokens=False).input_ids
    chances = torch.stack([logp_of(policy, prompt, [token])[0].exp() for token in tokens])
    likely = torch.stack([logp_of(policy, tokenizer("a" + text + "=").input_ids, wanted).sum().exp() for text in texts])
    bound = ((likely[:, None] + likely) / 2).log()
    expected = torch.autograd.grad((chances[:, None] * chances * bound).sum(), list(policy.parameters()))

    pairs = [(one, other) for one in tokens for other in tokens]
    rollouts = Rollouts(
        ["a"] * 2 * len(pairs),
        [texts[token] for pair in pairs for token in pair],
        {"answer": ["bc"] * 2 * len(pairs)},
        groups=np.repeat(np.arange(len(pairs)), 2),
    )
    models = {"policy": LanguageModel(policy, tokenizer)}
    added = likelihood.bound(marginal=True, lead="=").score(rollouts, Context(models=models)).read(np.nan)
    where = [int(torch.nonzero(mine & (data.ids[:, 0] == token))[0]) for token in tokens]
    found = [torch.zeros_like(weight) for weight in policy.parameters()]
    for number, (one, other) in enumerate(pairs):
        rows = data.select(torch.tensor([where[one], where[other]]))
        advantages = torch.as_tensor(added[2 * number : 2 * number + 2], dtype=torch.float32)
        _, moved = update(of, replace(rows, advantages=advantages, groups=torch.zeros(2, dtype=torch.long)))
        share = float((chances[one] * chances[other]).detach())
        found = [total + share * change for total, change in zip(found, moved, strict=True)]
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-3, atol=2e-6)


def test_the_reward_term_alone_is_not_that_gradient(setting, learned, tmp_path):
    """The second term is a large part of it: an oracle that both met would say nothing."""
    both = setting()
    loop.train(both, tmp_path / "run")
    [data] = learned
    first = setting(objective={"coefficient": 0.0})
    one, other = (torch.cat([x.flatten() for x in update(of, data)[1]]) for of in (both, first))
    assert (one - other).norm() > one.norm() / 2


def test_it_stands_where_the_reward_reads_it_and_nothing_is_learned_where_it_has_no_place(setting):
    of = setting()
    policy, tokenizer = build(of.policy, seed=0)
    completions = ["ab#c", "ab", "#a#b", "a#", "#" * 12, "a#"]
    rollouts = Rollouts(["a"] * 6, completions, {"wanted": ["b", "b", "cc", None, "b", 7]})
    found = answers(Answer("wanted", after="#", lead="="), rollouts, policy, tokenizer)
    shown = [
        (
            tokenizer.decode(found["context_ids"][i][found["context_mask"][i]], skip_special_tokens=True),
            tokenizer.decode(found["answer_ids"][i][found["answer_mask"][i]]),
        )
        for i in range(6)
    ]
    # No "#", no answer, too long for the context with its bos, and a character that the policy does not have.
    assert shown == [("aab#=", "b"), ("", ""), ("a#a#=", "cc"), ("", ""), ("a############=", "b"), ("", "")]
    longer = Rollouts(["a"], ["#" * 14], {"wanted": ["b"]})
    assert not answers(Answer("wanted", after="#"), longer, policy, tokenizer)["answer_mask"].any()


def test_rows_without_an_answer_or_a_score_add_nothing(setting, learned, tmp_path):
    of = setting(sampling={"max_tokens": 4}, group=4)
    loop.train(of, tmp_path / "run")
    [data] = learned
    data = data.select(torch.arange(8))
    still = replace(data, advantages=torch.zeros(8))
    empty = replace(still, answer_mask=torch.zeros_like(data.answer_mask))
    unscored = replace(still, mask=torch.zeros_like(data.mask))
    for nothing in (empty, unscored):
        report, moved = update(of, nothing)
        assert not any(change.any() for change in moved)
        assert report["answer_logp"] == 0.0
    mask, answer_mask = data.mask.clone(), data.answer_mask.clone()
    mask[5], answer_mask[2] = False, False
    with_both = replace(still, mask=mask, answer_mask=answer_mask)
    report, found = update(of, with_both)
    policy, _ = build(of.policy, seed=of.seed)
    terms = []
    for i in (0, 1, 3, 4, 6, 7):
        context, ids = (x[i][m[i]].tolist() for x, m in behind(data))
        terms.append(logp_of(policy, context, ids).sum())
    total = sum(terms) / 7
    assert report["answer_logp"] == pytest.approx(float(sum(terms).detach()) / 6, rel=1e-4)
    for change, gradient in zip(found, torch.autograd.grad(total, list(policy.parameters())), strict=True):
        torch.testing.assert_close(change, gradient, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("objective", [{}, BOUND], ids=["rows", "groups"])
def test_how_rows_are_cut_and_divided_does_not_change_the_update(setting, learned, tmp_path, monkeypatch, objective):
    of = setting(sampling={"max_tokens": 4}, objective=objective)
    loop.train(of, tmp_path / "run")
    [data] = learned
    data = data.select(torch.arange(0, 128, 13))
    report, whole = update(of, data)
    small = replace(of, batch=replace(of.batch, micro=3))
    cut, pieces = update(small, data)
    assert cut["answer_logp"] == pytest.approx(report["answer_logp"], rel=1e-5)
    monkeypatch.setattr(learning, "gather", lambda accelerator, mine: [mine])
    (_, first), (_, second) = (update(small, data, Alone(index)) for index in (0, 1))
    for one, other, piece, both in zip(first, second, pieces, whole, strict=True):
        torch.testing.assert_close(piece, both, rtol=1e-4, atol=2e-6)
        torch.testing.assert_close((one + other) / 2, both, rtol=1e-4, atol=2e-6)


def test_both_terms_learn_what_the_first_alone_does_not(setting, tmp_path):
    """Two prompts with answers that no thought makes likely at first."""
    ends = {}
    for coefficient in (1.0, 0.0):
        of = setting(
            objective={"coefficient": coefficient}, group=8, baseline="loo", steps=25, sampling={"max_tokens": 3},
            keep={"checkpoint_every": 100},
        )  # fmt: skip
        folder = tmp_path / str(coefficient)
        loop.train(of, folder)
        ends[coefficient] = np.mean([record["answer_logp"] for record in metrics(folder)[-3:]])
    assert ends[1.0] > -0.5
    assert ends[1.0] > ends[0.0] + 1.0


def test_the_bound_is_learned_by_the_recipe_of_the_page(setting, tmp_path):
    """Reward, credit and objective of JEPO together: of a group, the thoughts count that make the answer likely."""
    of = setting(
        objective=BOUND, group=8, steps=25, sampling={"max_tokens": 3}, keep={"checkpoint_every": 100}, baseline="none",
        reward=[{"part": "likelihood.bound", "marginal": True, "lead": "="}],
    )  # fmt: skip
    loop.train(of, tmp_path / "run")
    said = [record["answer_logp"] for record in metrics(tmp_path / "run")]
    assert np.mean(said[-3:]) > -0.5 > -2.0 > said[0]


def test_a_run_goes_on_bit_for_bit(setting, tmp_path, monkeypatch):
    of = setting(
        sampling={"max_tokens": 4}, steps=3, batch={"prompts": 2, "passes": 2, "micro": 50},
        keep={"checkpoint_every": 1},
    )  # fmt: skip
    loop.train(of, tmp_path / "whole")
    stopped(monkeypatch, loop.train, of, tmp_path / "stopped", after=1)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert equal(*(last(tmp_path / name).weights for name in ("stopped", "whole")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None}, "reads 'answer_logp', of a reference answer.*answer: {column: answer}"),
        ({"objective": "objectives.policy_gradient"}, "method.answer: objectives.policy_gradient reads no"),
        ({"answer": {"colum": "x"}}, "colum"),
        ({"objective": {"coefficient": -1}}, "coefficient must not be negative"),
        ({"objective": {"kind": "group-bound"}}, "kind"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_any_work(tiny, changes, message):
    method = {"preset": "rloo", "kl": {"coefficient": 0.0}, "objective": OBJECTIVE, "answer": {}} | changes
    if isinstance(method["objective"], dict):
        method["objective"] = {"part": OBJECTIVE} | method["objective"]
    with pytest.raises(RecipeError, match=message):
        tiny(method=method)


def test_a_column_that_is_not_there_is_named(setting, tmp_path):
    with pytest.raises(RecipeError, match=r"method\.answer\.column: prompts have no column 'wanted'"):
        loop.train(setting(answer={"column": "wanted"}), tmp_path / "run")
