"""Models of `transformers` as rewards see them, and a run that fills them in."""

import math

import numpy as np
import pytest
import torch
from stopping import stopped
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from guerdon import Context, Rollouts, Scores, reward
from guerdon.algebra import reduce, spec
from guerdon.core import Tokens
from guerdon.core.errors import GuerdonError, MissingInput, RecipeError
from guerdon.credit import spread
from guerdon.models import flow_deviation, flow_reward, implicit_reward
from guerdon.rewards import likelihood, probe
from guerdon.train.language.loop import train
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import ModelShape, PolicyConfig, build
from guerdon.train.recipe import Recipe
from guerdon.train.run import Run

SHAPE = ModelShape(
    layers=2, hidden=32, heads=2, mlp=64, context=48, alphabet="0123456789+-=;# abcu|:", tied_embeddings=False
)
CHAT = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}|{% endfor %}{% if add_generation_prompt %}a:{% endif %}"


def sharpened(seed):
    model, tokenizer = build(PolicyConfig(SHAPE, chat_template=CHAT), seed=seed)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
    return model, tokenizer


@pytest.fixture(scope="module")
def policy():
    return sharpened(0)


def naive(policy, before, after, temperature=1.0):
    """Token by token, one text at a time, no padding: (log-probability, entropy, rank, logit) of each."""
    model, _ = policy
    rows = []
    for t in range(len(after)):
        with torch.no_grad():
            logits = model(torch.tensor([before + after[:t]])).logits[0, -1].double()
        p = torch.softmax(logits / temperature, -1).tolist()
        entropy = -sum(x * math.log(x) for x in p if x > 0)
        chosen = logits[after[t]].item()
        rows.append((math.log(p[after[t]]), entropy, sum(x > chosen for x in logits.tolist()), chosen))
    return rows


def ids(policy, text):
    return policy[1](text, add_special_tokens=False).input_ids


# One scorer, exactly


PAIRS = [("1+1=", "2"), ("", "abc"), ("12+34=", "46;1"), ("7", ""), ("1+1=", "11")]


@pytest.mark.parametrize("micro_batch", [1, 2, 32])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probabilities_are_those_of_one_text_at_a_time(policy, micro_batch, temperature):
    model = LanguageModel(*policy, micro_batch=micro_batch)
    said = model.logprobs([p for p, _ in PAIRS], [c for _, c in PAIRS], temperature=temperature)
    assert said.mask.sum(1).tolist() == [len(c) for _, c in PAIRS]
    for row, (prompt, completion) in enumerate(PAIRS):
        expected = naive(policy, policy[1](prompt).input_ids, ids(policy, completion), temperature)
        for t, (logp, entropy, rank, logit) in enumerate(expected):
            assert said.logp[row, t].item() == pytest.approx(logp, abs=1e-4)
            assert said.entropy[row, t].item() == pytest.approx(entropy, abs=1e-4)
            assert said.rank[row, t].item() == rank
            assert said.logit[row, t].item() == pytest.approx(logit, abs=1e-4)
    assert (said.logp[~said.mask] == 0).all()


def test_prompts_and_completions_are_encoded_each_by_itself():
    """A tokenizer that would join 'a' and 'b' over the boundary: the target keeps its own tokens after any context."""
    core = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "<eos>": 3}, [("a", "b")]))
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8,
    )  # fmt: skip
    model = LanguageModel(LlamaForCausalLM(config).eval(), tokenizer)
    assert tokenizer("ab").input_ids == [2]
    said = model.logprobs(["a", "b", ""], ["b", "ab", "ab"])
    assert said.mask.tolist() == [[True], [True], [True]]
    pair = (model.model, tokenizer)
    assert said.logp[0, 0].item() == pytest.approx(naive(pair, [0], [1])[0][0], abs=1e-5)
    assert said.logp[1, 0].item() == pytest.approx(naive(pair, [1], [2])[0][0], abs=1e-5)
    # Without a bos a text begins behind the end of another.
    assert said.logp[2, 0].item() == pytest.approx(naive(pair, [3], [2])[0][0], abs=1e-5)


@pytest.mark.parametrize(
    ("prompt", "completion", "before", "after"),
    [
        ([{"role": "user", "content": "1"}], "2", "u:1|a:", "2"),
        ([{"role": "user", "content": "1"}], [{"role": "assistant", "content": "2"}], "u:1|a:", "2"),
        ([{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}], "3", "u:1|a:2", "3"),
        ("1", [{"role": "user", "content": "2"}], "u:1|u:", "2"),
        (
            [{"role": "user", "content": "2"}, {"role": "assistant", "content": "1"}],
            [{"role": "user", "content": "2"}],
            "u:2|a:1|u:",
            "2",
        ),
    ],
    ids=["answer", "message", "prefilled", "turn", "turn after an answer"],
)
def test_chats_are_read_through_the_template(policy, prompt, completion, before, after):
    said = LanguageModel(*policy).logprobs([prompt], [completion])
    expected = naive(policy, ids(policy, before), ids(policy, after))
    assert said.problems == {}
    assert said.logp[0].tolist() == pytest.approx([row[0] for row in expected], abs=1e-4)


def test_token_ids_are_read_as_they_are(policy):
    model = LanguageModel(*policy)
    end = policy[1].eos_token_id
    said = model.logprobs(["1+1="], [[*ids(policy, "2"), end]])
    expected = naive(policy, policy[1]("1+1=").input_ids, [*ids(policy, "2"), end])
    assert said.logp[0].tolist() == pytest.approx([row[0] for row in expected], abs=1e-4)


def test_texts_that_cannot_be_read_are_problems_and_the_others_are_read(policy):
    model = LanguageModel(*policy)
    several = [{"role": "assistant", "content": "1"}, {"role": "tool", "content": "2"}]
    said = model.logprobs(["1", "1", "1", "1"], ["2" * 60, "Ω", several, "2"])
    assert sorted(said.problems) == [0, 1, 2]
    assert said.problems[0] == "62 tokens do not fit the model's context of 48"
    assert "'Ω' is not in the policy's alphabet" in said.problems[1]
    assert "got 2 messages" in said.problems[2]
    assert said.mask.sum(1).tolist() == [0, 0, 0, 1]
    assert model.logprobs(["1"], ["2" * 60]).mask.shape == (1, 0)
    assert model.logprobs([], []).mask.shape == (0, 0)
    with pytest.raises(ValueError, match="temperature above 0"):
        model.logprobs(["1"], ["2"], temperature=0.0)
    with pytest.raises(ValueError, match="1 prompts and 2 completions"):
        model.logprobs(["1"], ["2", "3"])


def test_chats_without_a_template_are_a_problem():
    said = LanguageModel(*build(PolicyConfig(SHAPE), seed=0)).logprobs([[{"role": "user", "content": "1"}]], ["2"])
    assert "no chat template" in said.problems[0]


def test_hidden_states_are_those_of_one_text_at_a_time(policy):
    model = LanguageModel(*policy, micro_batch=2)
    states, mask = model.hidden(["1+1=", "7", "12"], ["2", "46;1", ""], layer=1)
    assert mask.sum(1).tolist() == [1, 4, 0]
    for row, (prompt, completion) in enumerate([("1+1=", "2"), ("7", "46;1")]):
        whole = policy[1](prompt).input_ids + ids(policy, completion)
        with torch.no_grad():
            expected = policy[0](torch.tensor([whole]), output_hidden_states=True).hidden_states[1][0]
        assert torch.allclose(states[row, : len(completion)], expected[-len(completion) :], atol=1e-5)


def test_sampling_is_a_function_of_the_seed_and_passes_over_what_has_no_room(policy):
    model = LanguageModel(*policy)
    prompts = ["1+1=", "2" * 45, "3-1=", [{"role": "user", "content": "4"}, {"role": "assistant", "content": "5"}]]
    said = [model.generate(prompts, max_tokens=6, temperature=0.9, seed=seed) for seed in (0, 0, 1)]
    assert said[0].completions == said[1].completions != said[2].completions
    assert said[0].columns["problem"] == [
        None,
        "a prompt of 46 tokens and 6 more do not fit the model's context of 48",
        None,
        None,
    ]
    assert said[0].completions[1] == ""
    assert said[0].tokens.written.any(1).tolist() == [True, False, True, True]
    assert not said[0].finished[1]
    again = model.generate([prompts[0], prompts[2], prompts[2]], max_tokens=6, temperature=0.9)
    assert [again.completions[i] for i in (0, 2)] == [said[0].completions[i] for i in (0, 2)]
    assert "problem" not in again.columns
    nowhere = model.generate(["2" * 48], max_tokens=6)
    assert nowhere.completions == [""]
    assert nowhere.tokens is None


def test_gradients_pass_where_they_are_enabled_and_training_mode_is_given_back(policy):
    model = LanguageModel(*policy)
    policy[0].train()
    said = model.logprobs(["1+1="], ["2"])
    assert policy[0].training
    policy[0].eval()
    (slope,) = torch.autograd.grad(said.logp.sum(), policy[0].lm_head.weight)
    assert slope.abs().sum() > 0
    with torch.no_grad():
        assert not model.logprobs(["1+1="], ["2"]).logp.requires_grad
    assert not said.entropy.requires_grad


def test_a_model_with_borrowed_weights_is_another_and_learns_nothing(policy):
    other = sharpened(1)
    lent = LanguageModel(*policy, weights=dict(other[0].named_parameters()))
    said = lent.logprobs(["1+1="], ["2;"]).logp
    assert torch.equal(said, LanguageModel(*other).logprobs(["1+1="], ["2;"]).logp.detach())
    assert not said.requires_grad
    assert list(lent.parameters()) == []
    assert not torch.equal(said, LanguageModel(*policy).logprobs(["1+1="], ["2;"]).logp)


# The parts, with a real model


def test_the_parts_read_a_real_model(policy):
    """Probabilities by the parts are those computed one text at a time; a debias context of a real template too."""
    model = LanguageModel(*policy)
    context = Context(models={"policy": model, "old": model, "reference": model})
    batch = Rollouts(["1+1="] * 2, ["11;3", "2;2"], {"answer": ["2", "2"]})
    values = likelihood.answer(how="exp-sum", after=";").score(batch, context).read(math.nan)
    for value, said in zip(values, ["11;", "2;"], strict=True):
        expected = naive(policy, policy[1]("1+1=" + said).input_ids, ids(policy, "2"))
        assert value == pytest.approx(math.exp(expected[0][0]), abs=1e-5)
    leaf = probe.likelihood(cut={"at": "separator", "separator": ";", "until": None}, stop="=", how="exp-sum")
    potentials = leaf.score(batch, context)
    last = naive(policy, policy[1]("1+1=11;3=").input_ids, ids(policy, "2"))[0][0]
    assert potentials.read(math.nan)[0, 2] == pytest.approx(math.exp(last), abs=1e-5)
    sure = probe.confidence(cut="turns", stop="=", samples=2, max_tokens=3).score(batch, context)
    assert ((sure.read(math.nan) > 0) & (sure.read(math.nan) <= 1)).all()
    turns = likelihood.follow_up(bank={"x": {"positive": ["1"], "negative": ["2"]}}).score(batch, context)
    text = "u:1+1=|a:11;3|u:"
    expected = [naive(policy, ids(policy, text), ids(policy, f))[0][0] for f in "12"]
    assert turns.read(math.nan)[0] == pytest.approx(expected[0] - expected[1], abs=1e-4)


# A reward that learns


@reward(range=(0, 1), lane="batch")
def even(completion):
    return [float(c.endswith("2")) for c in completion]


def sampled(policy, prompts, **options):
    return LanguageModel(*policy).generate(prompts, max_tokens=4, **options)


def rollouts_of(policy, texts, groups=None):
    """Rollouts with their tokens, an end behind each."""
    rows = [[*ids(policy, text), policy[1].eos_token_id] for text in texts]
    width = max(map(len, rows))
    there = np.array([[t < len(row) for t in range(width)] for row in rows])
    table = np.array([row + [0] * (width - len(row)) for row in rows])
    offsets = np.array([[(t, t + 1) if t < len(row) - 1 else (-1, -1) for t in range(width)] for row in rows])
    tokens = Tokens(table, there, there, offsets=offsets)
    return Rollouts(["1+1="] * len(texts), texts, groups=groups, tokens=tokens)


def learner(**options):
    models = {"prm": LanguageModel(*sharpened(0)), "reference": LanguageModel(*sharpened(0))}
    return implicit_reward(outcome=even(), learning_rate=1e-3, **options), Context(models=models, training=True)


TEXTS = ["2", "11;2", "3", "a;3"]


def test_prime_begins_with_no_reward_and_a_loss_of_log_2(policy):
    leaf, context = learner()
    batch = rollouts_of(policy, TEXTS)
    scores = leaf.score(batch, context)
    assert scores.level == "step"
    assert scores.mask.tolist() == batch.tokens.written.tolist()
    assert (scores.read(0.0) == 0).all()
    metrics = leaf.update(batch, scores, context.with_(rollouts=batch))
    assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert leaf.version == "1"
    after = leaf.score(batch, context).read(0.0)
    assert np.abs(after).max() > 0
    assert leaf.range == (-math.inf, math.inf)


def test_prime_learns_which_endings_succeed(policy):
    leaf, context = learner(granularity="rollout")
    batch = rollouts_of(policy, TEXTS)
    losses = [leaf.update(batch, None, context)["loss"] for _ in range(30)]
    assert losses[-1] < losses[0] < 0.70
    scores = leaf.score(batch, context).read(math.nan)
    assert scores[:2].min() > scores[2:].max()


def test_prime_update_before_scores_with_what_it_has_learned(policy):
    """'before' of the first batch is 'after' of the second: one step ahead, once."""
    batch = rollouts_of(policy, TEXTS)
    late, context = learner()
    late.score(batch, context)
    late.update(batch, None, context)
    early, other = learner(when="before")
    now = early.score(batch, other).read(0.0)
    assert np.allclose(now, late.score(batch, context).read(0.0), atol=1e-7)
    assert early.update(batch, None, other)["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert early.version == "1"
    calm = early.score(batch, other.with_(training=False)).read(0.0)
    assert np.array_equal(now, calm)


@pytest.mark.parametrize("options", [{}, {"loss": "dpo", "granularity": "turn", "mean": True}, {"loss": "kto"}])
def test_the_update_is_the_gradient_of_the_loss_however_it_is_cut(policy, options):
    """Weights after a step with micro-batches of 1 and of 4."""
    batch = rollouts_of(policy, TEXTS, groups=[0, 0, 0, 1])
    found = []
    for size in (1, 4):
        leaf, context = learner(micro_batch=size, **options)
        leaf.update(batch, None, context)
        found.append(leaf.score(batch, context).read(0.0))
    assert np.allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0]).max() > 0


def test_prime_the_update_descends_the_equation(policy, monkeypatch):
    """The gradient that reaches the optimiser, against autograd of the written-out cross-entropy."""
    leaf, context = learner(max_grad_norm=0.0)
    batch, model = rollouts_of(policy, TEXTS), context.models["prm"]
    seen = []
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: seen.append([w.grad.clone() for g in self.param_groups for w in g["params"]]),
    )
    leaf.update(batch, None, context)
    rows = [[*ids(policy, text), policy[1].eos_token_id] for text in TEXTS]
    logp = model.logprobs(batch.prompts, rows).logp
    with torch.no_grad():
        base = context.models["reference"].logprobs(batch.prompts, rows).logp
    q = 0.05 * (logp - base).sum(1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(q, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for one, other in zip(seen[0], expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_istar_rewards_of_turns_pass_over_what_tools_said(policy):
    """One score per stretch the policy wrote; `credit.spread` puts it on the last token of it."""
    batch = rollouts_of(policy, ["12;34", "2"])
    tokens = batch.tokens
    written = tokens.written.copy()
    written[0, 2:4] = False
    batch = batch.with_(tokens=Tokens(tokens.ids, written, tokens.attended, offsets=tokens.offsets))
    leaf, context = learner(granularity="turn", loss="dpo", mean=True)
    leaf.update(batch, None, context)
    scores, before = leaf.score(batch, context), leaf.state_dict()
    assert scores.spans.rows() == [[(0, 2), (4, 6)], [(0, 2)]]
    won, lost = scores.read(0.0)[1, 0], scores.read(0.0)[0].mean()
    assert abs(lost) > 1e-4
    assert leaf.update(batch, None, context)["loss"] == pytest.approx(math.log1p(math.exp(lost - won)), abs=1e-6)
    by_token, _ = learner(granularity="token")
    by_token.load_state_dict(before)
    each = by_token.score(batch, context).read(0.0)
    assert scores.read(0.0)[0] == pytest.approx([each[0, :2].sum(), each[0, 4:6].sum()], abs=1e-6)
    placed = spread(torch.as_tensor(scores.read(0.0)), torch.as_tensor(written), scores.spans)
    assert placed[0].nonzero()[:, 0].tolist() == [1, 5]


def test_implicit_prm_steps_of_a_text_reduce_to_its_least(policy):
    leaf, context = learner(granularity="step", separator=";")
    leaf.update(rollouts_of(policy, TEXTS), None, context)
    batch = rollouts_of(policy, ["1;2;3", "2"])
    steps = leaf.score(batch, context)
    assert steps.spans.rows() == [[(0, 2), (2, 4), (4, 5)], [(0, 1)]]
    least = reduce(leaf, "min").score(batch, context).read(math.nan)
    assert least[0] == pytest.approx(steps.read(0.0)[0].min())


def test_rollouts_that_cannot_be_read_or_graded_teach_nothing(policy):
    @reward(range=(0, 1), lane="batch")
    def sometimes(completion):
        return [None if c == "3" else float(c.endswith("2")) for c in completion]

    batch = rollouts_of(policy, ["2", "3", "2" * 46, "4"])
    leaf, context = learner(granularity="rollout")
    scores = leaf.score(batch, context)
    assert scores.abstained.tolist() == [False, False, True, False]
    assert "do not fit the model's context" in scores.reasons[2]
    some, other = learner(granularity="rollout")
    object.__setattr__(some, "outcome", sometimes())
    assert some.update(batch, None, other)["loss"] == pytest.approx(math.log(2), abs=1e-6)
    few, third = learner(granularity="rollout")
    few.update(rollouts_of(policy, ["2", "4"]), None, third)
    again = few.update(rollouts_of(policy, ["2", "4"]), None, third)["loss"]
    assert again < math.log(2) - 1e-4
    assert some.update(batch, None, other)["loss"] == pytest.approx(again, abs=1e-6)


def test_the_state_of_a_learner_goes_on_bit_for_bit(policy):
    batch = rollouts_of(policy, TEXTS)
    whole, context = learner()
    for _ in range(2):
        whole.update(batch, None, context)
    state = whole.state_dict()
    whole.update(batch, None, context)
    fresh, other = learner()
    assert fresh.state_dict() == {}
    fresh.load_state_dict(state)
    assert fresh.version == "2"
    fresh.update(batch, None, other)
    assert np.array_equal(fresh.score(batch, other).read(0.0), whole.score(batch, context).read(0.0))


def test_a_learner_that_cannot_be_is_refused(policy):
    with pytest.raises(ValueError, match="above 0"):
        implicit_reward(beta=0.0)
    with pytest.raises(ValueError, match="an outcome is one score per rollout"):
        implicit_reward(outcome=probe.confidence())
    leaf, context = learner()
    lent = LanguageModel(*sharpened(0), weights=dict(sharpened(0)[0].named_parameters()))
    with pytest.raises(GuerdonError, match="no weights to train"):
        leaf.update(rollouts_of(policy, TEXTS), None, context.with_(models={**context.models, "prm": lent}))
    with pytest.raises(MissingInput, match="'tokens'"):
        leaf.score(Rollouts(["1"], ["2"]), context)


# A field that learns


def strayer(**options):
    model = LanguageModel(*sharpened(0))
    leaf = flow_reward(outcome=even(), blocks=1, hidden=32, learning_rate=3e-3, depths=(0.5, 1.0), **options)
    return leaf, Context(models={"reference": model}, training=True, step=1)


def test_rlfr_field_learns_from_the_rollouts_that_succeed(policy):
    """After some updates the failed rollouts stray further; before any, none does more than chance."""
    leaf, context = strayer()
    batch = rollouts_of(policy, ["2222222", "22222", "ababab", "c;c;c;c"])
    scores = leaf.score(batch, context)
    assert scores.mask.tolist() == batch.tokens.written.tolist()
    assert ((scores.read(0.0) >= 0) & (scores.read(0.0) <= 1)).all()
    assert (scores.read(9.0)[:, 0] == 0).all()
    losses = [leaf.update(batch, None, context.with_(step=i))["loss"] for i in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    latents, mask, _ = leaf._latents(batch, context)
    raw = flow_deviation(leaf._state["field"], latents, mask, leaf.depths, generator=torch.Generator().manual_seed(0))
    means = (raw.sum(1) / (mask.sum(1) - 1)).tolist()
    assert max(means[:2]) < min(means[2:])


def test_rlfr_state_goes_on_bit_for_bit_and_weights_alone_are_enough(policy):
    batch = rollouts_of(policy, TEXTS)
    whole, context = strayer()
    assert whole.state_dict() == {}
    whole.update(batch, None, context)
    state = whole.state_dict()
    whole.update(batch, None, context)
    fresh, other = strayer()
    fresh.load_state_dict(state)
    fresh.update(batch, None, other)
    assert np.array_equal(fresh.score(batch, other).read(0.0), whole.score(batch, context).read(0.0))
    taught, third = strayer()
    taught.load_state_dict({"weights": state["weights"]})
    assert taught.version == "0"
    taught.score(batch, third)
    assert torch.equal(taught.state_dict()["weights"]["leave.bias"], state["weights"]["leave.bias"])


def test_rlfr_only_uncertain_tokens_are_learned_from(policy):
    leaf, _ = strayer(entropy=0.5)
    batch = rollouts_of(policy, ["12", "3"])
    with pytest.raises(MissingInput, match="by their entropy"):
        leaf._uncertain(batch)
    entropy = np.array([[0.1, 0.9, 0.5], [0.7, 0.2, 9.0]])
    tokens = Tokens(batch.tokens.ids, batch.tokens.written, batch.tokens.attended, entropy=entropy)
    assert leaf._uncertain(batch.with_(tokens=tokens)).tolist() == [[False, True, True], [True, False, False]]


@pytest.mark.parametrize("options", [{"depths": ()}, {"entropy": 0.0}, {"others": 2.0}])
def test_rlfr_options_are_checked_at_once(options):
    with pytest.raises(ValueError, match=r"depths|wants"):
        flow_reward(**options)


@pytest.mark.parametrize("leaf", [implicit_reward(loss="dpo", granularity="turn"), flow_reward(times=(0.7, 0.8))])
def test_learners_are_data_and_back(leaf):
    assert spec.load(spec.dump(leaf)) == leaf


# In training


PART = {"part": "likelihood.completion", "how": "mean"}
LEARNED = {
    "reduce": {
        "part": "models.implicit_reward", "loss": "dpo", "learning_rate": 1e-3, "outcome": "text.length"
    },
    "how": "sum",
}  # fmt: skip
SMALL = {
    "from_config": {"layers": 1, "hidden": 16, "heads": 2, "mlp": 32, "context": 48, "alphabet": "0123456789+-=;# "}
}


def lines(folder):
    drop = ("seconds", "tokens_per_second")
    return [{k: v for k, v in record.items() if k not in drop} for record in Run(folder).metrics()]


def test_context_models_are_filled_in_training(tiny, tmp_path):
    """Policy, old, reference (without any KL) and a model of the recipe's own, all read by one reward."""
    parts = [{**PART, "model": name, "name": name} for name in ("policy", "old", "reference", "prior")]
    recipe = tiny(reward=parts, models={"prior": SMALL, "copy": "policy"}, steps=2)
    train(recipe, tmp_path / "run")
    first, second = lines(tmp_path / "run")
    assert first["parts"]["policy"] == first["parts"]["old"] == pytest.approx(first["parts"]["reference"], abs=1e-5)
    assert first["parts"]["prior"] == pytest.approx(first["parts"]["policy"], abs=1e-5)  # the same shape and seed
    assert second["parts"]["policy"] != pytest.approx(second["parts"]["reference"], abs=1e-4)
    assert second["parts"]["reference"] == pytest.approx(second["parts"]["prior"], abs=1e-5)


def test_a_policys_completions_are_as_likely_as_when_they_were_sampled(tiny, tmp_path, monkeypatch):
    """The model 'policy' during a step is the one that wrote the rollouts: the mean over written text agrees."""
    seen = {}

    @reward(range=(-math.inf, 0), lane="batch", requires={"model:policy", "tokens"})
    def remember(rollouts, context):
        ids = [row[there].tolist() for row, there in zip(rollouts.tokens.ids, rollouts.tokens.attended, strict=True)]
        with torch.no_grad():
            said = context.models["policy"].logprobs(rollouts.prompts, ids)
        seen.setdefault("gap", []).append(float((said.logp - torch.as_tensor(rollouts.tokens.logp)).abs().max()))
        return Scores(said.logp.sum(1).numpy().astype(float))

    monkeypatch.setattr(Recipe, "load_reward", lambda self, allow_import=False: remember())
    train(tiny(steps=2), tmp_path / "run")
    assert max(seen["gap"]) < 1e-4


def test_prime_learns_in_a_run_and_a_stopped_run_goes_on(tiny, tmp_path, monkeypatch):
    """A φ that begins as the policy: no reward in the first step, some in the next; resumed bit for bit."""
    start = {**PART, "model": "start", "name": "start", "weight": 0.01}
    recipe = tiny(reward=[LEARNED, start], models={"prm": "policy", "start": "policy"}, steps=4)
    train(recipe, tmp_path / "whole")
    whole = lines(tmp_path / "whole")
    learned = [record["parts"]["models.implicit_reward"] for record in whole]
    assert learned[0] == pytest.approx(0.0, abs=1e-6)
    assert abs(learned[-1]) > 1e-5
    assert whole[0]["models.implicit_reward/loss"] == pytest.approx(math.log(2), abs=1e-4)
    stopped(monkeypatch, train, recipe, tmp_path / "stopped", after=2)
    assert lines(tmp_path / "stopped") == whole


def test_models_of_a_recipe_are_checked_before_any_work(tiny, tmp_path):
    with pytest.raises(RecipeError, match=r"models\.old: the run has a model of that name"):
        tiny(models={"old": SMALL})
    with pytest.raises(RecipeError, match=r"models\.prior.*did you mean 'path'"):
        tiny(models={"prior": {"pth": "x"}})
    recipe = tiny(reward=[{**PART, "model": "nobody"}])
    with pytest.raises(MissingInput, match="the context has: policy, old, reference"):
        train(recipe, tmp_path / "run")
