"""What a model says of a given text: against models whose every probability is written down."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts
from guerdon.algebra import spec
from guerdon.core.errors import MissingInput, SpecError
from guerdon.core.protocols import TokenLogprobs
from guerdon.rewards import likelihood, text
from guerdon.rewards.likelihood import (
    forced,
    inverse_bellman,
    log_mean_exp,
    propagated,
    reduce,
    reflect,
    teachable,
    token_weights,
)
from guerdon.shaping import clip


def flat(prompt):
    """A prompt as one text: messages as 'role: content' lines, the assistant's last one left open."""
    if isinstance(prompt, str):
        return prompt
    return "|".join(f"{message['role']}:{message['content']}" for message in prompt)


class Written:
    """A model over pieces of text whose logits are a function of all that stands before."""

    def __init__(self, logits, size=1):
        self.logits, self.size, self.read = logits, size, []

    def pieces(self, text):
        return [text[i : i + self.size] for i in range(0, len(text), self.size)]

    def logprobs(self, prompts, completions, *, temperature=1.0):
        rows, problems = [], {}
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            before = flat(prompt)
            if not isinstance(completion, str):
                before, completion = f"{before}|{completion[0]['role']}:", completion[0]["content"]
            self.read.append((before, completion))
            row = []
            for piece in self.pieces(completion):
                table = self.logits(before)
                if piece not in table:
                    problems[i] = f"{piece!r} is unknown"
                    row = []
                    break
                z = np.array(list(table.values())) / temperature
                norm = np.log(np.exp(z - z.max()).sum()) + z.max()
                p = np.exp(z - norm)
                entropy = -float((p[p > 0] * np.log(p[p > 0])).sum())
                rank = sum(other > table[piece] for other in table.values())
                row.append((table[piece] / temperature - norm, entropy, rank, table[piece]))
                before += piece
            rows.append(row)
        width = max(map(len, rows), default=0)
        table = np.array([row + [(math.nan,) * 4] * (width - len(row)) for row in rows]).reshape(len(rows), width, 4)
        mask = np.array([[t < len(row) for t in range(width)] for row in rows], bool).reshape(len(rows), width)
        logp, entropy, rank, logit = np.moveaxis(table, -1, 0)
        return TokenLogprobs(logp, mask, entropy, rank, logit, problems)


def steady(**probabilities):
    """The same distribution everywhere."""
    return Written(lambda before: {token: math.log(p) for token, p in probabilities.items()})


def after(table, otherwise):
    """The probability of the next letter by what stands before it: a rest for the other letters."""

    def logits(before):
        p = next((p for end, p in table.items() if before.endswith(end)), otherwise)
        rest = 1 - sum(p.values())
        return {token: math.log(q) for token, q in {**p, "~": rest}.items() if q > 0}

    return Written(logits)


def score(leaf, rollouts, **models):
    return leaf.score(rollouts, Context(models=models))


def one(leaf, prompt, completion, answer="", **models):
    scores = score(leaf, Rollouts([prompt], [completion], {"answer": [answer]}), **models)
    assert not scores.reasons, scores.reasons
    return float(scores.read(math.nan)[0])


def nested(draw, shape, low, high):
    size = math.prod(shape)
    return np.array(draw(st.lists(st.floats(low, high), min_size=size, max_size=size))).reshape(shape)


@st.composite
def tables(draw):
    """Log-probabilities with holes at the right, NaN in them, in groups that share their length."""
    n, t = draw(st.integers(1, 5)), draw(st.integers(0, 5))
    groups = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    lengths = np.array(draw(st.lists(st.integers(0, t), min_size=3, max_size=3)))[groups]
    mask = np.arange(t) < lengths[:, None]
    return np.where(mask, nested(draw, (n, t), -30, 0), np.nan), mask, groups


def wider(array, fill=np.nan):
    return np.concatenate([array, np.full((len(array), 2), fill)], 1)


# The scorer and its reductions


def test_logprob_reward_worked_number():
    """p = 0.9 per token over 200 tokens: the probability is gone, its log is not."""
    leaf = steady(a=0.9, b=0.1)
    assert one(likelihood.answer(how="exp-sum"), "?", "z", "a" * 200, policy=leaf) == pytest.approx(7.06e-10, rel=1e-3)
    assert one(likelihood.answer(how="sum"), "?", "z", "a" * 200, policy=leaf) == pytest.approx(-21.07, abs=5e-3)
    assert one(likelihood.answer(how="mean"), "?", "z", "a" * 200, policy=leaf) == pytest.approx(math.log(0.9))


@pytest.mark.parametrize(
    ("how", "expected"),
    [("sum", math.log(0.02)), ("mean", math.log(0.02) / 3), ("exp-sum", 0.02), ("mean-exp", 1 / 3),
     ("exp-mean", 0.02 ** (1 / 3))],
)  # fmt: skip
def test_logprob_reward_reductions(how, expected):
    logp, mask = np.log([[0.1, 0.4, 0.5, 1.0]]), np.array([[True, True, True, False]])
    assert reduce(logp, mask, how) == pytest.approx([expected])


def test_logprob_reward_of_one_token_prob_is_avg_prob():
    model = after({"good": {"y": 0.6}}, {"y": 0.1})
    for completion in ("good", "bad"):
        whole, mean = (
            one(likelihood.answer(how=how), "?", completion, "y", policy=model) for how in ("exp-sum", "mean-exp")
        )
        assert whole == pytest.approx(mean)
        assert whole == pytest.approx(0.6 if completion == "good" else 0.1)


def test_logprob_reward_group_bound_is_jensens():
    """log of the mean probability ≥ mean log-probability, equal where the reasonings are."""
    model = after({"good": {"y": 0.8}, "poor": {"y": 0.2}}, {"y": 0.1})
    batch = Rollouts(["?"] * 4, ["good", "poor", "good", "good"], {"answer": ["y"] * 4}, groups=[0, 0, 1, 1])
    bound = score(likelihood.bound(), batch, policy=model).read(math.nan)
    assert bound == pytest.approx([math.log(0.5)] * 2 + [math.log(0.8)] * 2)
    assert bound[0] > (math.log(0.8) + math.log(0.2)) / 2


def test_logprob_reward_what_a_rollout_adds_to_the_bound():
    """G times the bound less that of the others: 2 (log .5 − log .2), 2 (log .5 − log .8)."""
    model = after({"good": {"y": 0.8}, "poor": {"y": 0.2}}, {"y": 0.1})
    batch = Rollouts(["?"] * 4, ["good", "poor", "good", "poor"], {"answer": ["y", "y", "y", 3]}, groups=[0, 0, 1, 1])
    leaf = likelihood.bound(marginal=True)
    scores = score(leaf, batch, policy=model)
    assert scores.read(0.0) == pytest.approx([2 * math.log(2.5), 2 * math.log(0.625), 0.0, 0.0])
    assert scores.valid.tolist() == [True, True, False, False]
    assert scores.reasons[2] == "alone in its group: what it adds is not known"
    assert leaf.range == (-2 * math.log(2), math.inf)
    lost = Rollouts(["?"] * 2, ["good<a>", "poor"], {"answer": ["y"] * 2})
    least = score(likelihood.bound(marginal=True, after="<a>", least=-1e3), lost, policy=model).read(math.nan)
    assert least[1] == pytest.approx(leaf.range[0]), "as little as can be"


def test_equal_pairs_are_read_once():
    model = steady(a=0.5, b=0.5)
    said = forced(model, ["x", "y", "x"], ["ab", "a", "ab"])
    assert model.read == [("x", "ab"), ("y", "a")]
    assert said.mask.tolist() == [[True, True], [True, False], [True, True]]
    assert said.logp[0].tolist() == said.logp[2].tolist()
    with pytest.raises(ValueError, match="2 contexts and 1 targets"):
        forced(model, ["x", "y"], ["a"])


@given(tables(), st.sampled_from(["sum", "mean", "exp-sum", "mean-exp", "exp-mean"]))
def test_reductions_are_finite_whatever_stands_in_padding(table, how):
    logp, mask, _ = table
    values = reduce(logp, mask, how)
    assert np.isfinite(values).all()
    assert reduce(wider(logp), wider(mask, False), how) == pytest.approx(values)
    if how.startswith("exp") or how == "mean-exp":
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


def test_what_a_model_says_has_one_shape():
    with pytest.raises(ValueError, match=r"mask has shape \(1, 3\), logp has \(1, 2\)"):
        TokenLogprobs(*(np.zeros((1, t)) for t in (2, 3, 2, 2, 2)))


def test_reductions_refuse_what_they_cannot_read():
    with pytest.raises(ValueError, match="logp and mask must have one shape"):
        reduce(np.zeros((1, 2)), np.ones((1, 3), bool), "sum")
    with pytest.raises(ValueError, match="how is one of"):
        reduce(np.zeros((1, 2)), np.ones((1, 2), bool), "median")


# The reference after the reasoning

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]


@pytest.mark.parametrize(
    ("debias", "context"),
    [
        ("none", "Q<think>z</think><answer>L"),
        ("no_reasoning", "Q<answer>L"),
        ("masked", "Q…<answer>L"),
        ("no_query", "<think>z</think><answer>L"),
        ("prompt", "Q"),
    ],
)
def test_rlpr_contexts(debias, context):
    """The reference takes the place of the written answer; the debias context is what it says."""
    model = steady(a=0.5, b=0.5)
    leaf = likelihood.answer(debias=debias, after="<answer>", lead="L")
    one(leaf, "Q", "<think>z</think><answer>wrong</answer>", "ab", policy=model)
    assert model.read[-1] == (context, "ab")


def test_the_last_place_for_an_answer_is_taken():
    model = steady(a=0.5, b=0.5)
    one(likelihood.answer(after="A:"), "Q", "A: 1? No, A: 2", "b", policy=model)
    assert model.read == [("QA: 1? No, A:", "b")]


def test_contexts_of_chats_go_on_in_the_assistants_words():
    model = steady(a=0.5, b=0.5)
    leaf = likelihood.answer(debias="no_query", after=">")
    one(leaf, CHAT, [{"role": "assistant", "content": "z>no"}], "a", policy=model)
    assert model.read == [("system:S|user:Q|assistant:z>", "a"), ("system:S|user:|assistant:z>", "a")]
    model.read.clear()
    turns = [
        {"role": "assistant", "content": "look"},
        {"role": "tool", "content": "seen"},
        {"role": "assistant", "content": "z>no"},
    ]
    one(likelihood.answer(after=">"), "Q", turns, "a", policy=model)
    assert model.read == [("user:Q|assistant:look|tool:seen|assistant:z>", "a")]


def test_rlpr_worked_number():
    """Mean against product of token probabilities: .537 → .550 where the product grows fivefold."""

    def model(first):
        table = {"z": {"a": first}, "za": {"b": 0.7}, "zab": {"c": 0.9}}
        return after(dict(reversed(table.items())), {"a": 0.1})

    means, products = (
        [one(likelihood.answer(how=how), "x", "z", "abc", policy=model(p)) for p in (0.01, 0.05)]
        for how in ("mean-exp", "exp-sum")
    )
    assert means == pytest.approx([0.536667, 0.55], abs=1e-6)
    assert products == pytest.approx([0.0063, 0.0315])


def test_rlpr_reasoning_that_does_not_help_gets_nothing():
    model = after({"useful<answer>": {"y": 0.9}, "harmful<answer>": {"y": 0.1}, "<answer>": {"y": 0.4}}, {"y": 0.4})
    leaf = likelihood.answer(how="mean-exp", debias="no_reasoning", after="<answer>")
    batch = Rollouts(["?"] * 4, ["useful<answer>", "idle<answer>", "harmful<answer>", "lost"], {"answer": ["y"] * 4})
    raw = score(leaf, batch, policy=model)
    assert raw.read(math.nan) == pytest.approx([0.5, 0.0, -0.3, -0.4])
    shaped = score(leaf >> clip(low=0, high=1), batch, policy=model)
    assert shaped.read(math.nan) == pytest.approx([0.5, 0.0, 0.0, 0.0])
    assert leaf.range == (-1, 1)


def test_rlpr_total_is_an_expression():
    """0.9 r + 0.1 format, as a spec and back."""
    part = {"part": "likelihood.answer", "how": "mean-exp", "debias": "no_reasoning", "after": "<answer>"}
    shaped = {**part, "shape": [{"part": "shaping.clip", "low": 0, "high": 1}], "weight": 0.9}
    reward = spec.load([shaped, {"part": "format.tags", "names": ["think", "answer"], "weight": 0.1}])
    model = after({"good</think><answer>": {"y": 0.9}}, {"y": 0.4})
    batch = Rollouts(["?"], ["<think>good</think><answer>n</answer>"], {"answer": ["y"]})
    assert reward.score(batch, Context(models={"policy": model})).read(math.nan) == pytest.approx([0.55])


def test_a_completion_without_a_place_for_the_answer_gets_the_least():
    model = steady(y=0.5, n=0.5)
    assert one(likelihood.answer(after="<answer>", least=-7.0), "?", "lost", "yn", policy=model) == -14.0
    assert one(likelihood.answer(how="mean", after="<answer>"), "?", "lost", "yn", policy=model) == -10.0
    assert one(likelihood.answer(how="exp-sum", after="<answer>"), "?", "lost", "yn", policy=model) == 0.0


def test_references_that_are_none_and_texts_that_cannot_be_read_abstain():
    model = steady(y=0.5, n=0.5)
    batch = Rollouts(["?"] * 5, ["z"] * 5, {"answer": ["y", None, "", ["y"], "q"]})
    scores = score(likelihood.answer(), batch, policy=model)
    assert scores.abstained.tolist() == [False, True, True, True, True]
    assert scores.reasons[1] == "reference is not a text: None"
    assert scores.reasons[4] == "'q' is unknown"


def test_a_model_that_is_not_there_is_missed_before_any_work():
    with pytest.raises(MissingInput, match=r"model 'prior' is missing: likelihood\.completion reads it"):
        score(likelihood.completion(model="prior"), Rollouts(["?"], ["a"]), policy=steady(a=1.0))


def test_ranks_of_the_worst_tokens_are_in_the_details():
    model = Written(lambda before: {"a": 3.0, "b": 2.0, "c": 1.0})
    scores = score(likelihood.answer(), Rollouts(["?"], ["z"], {"answer": ["abac"]}), policy=model)
    assert scores.parts["likelihood.answer"].details == {"tokens": [4], "worst_rank": [2.0]}


# Tokens that the reasonings make a difference to


def test_dro_worked_number():
    """Three tokens of which one differs: the mean's gap of .6 becomes 1.8."""
    logp = np.array([[-0.1, -2.0, -0.1], [-0.1, -0.2, -0.1]])
    mask, groups = np.ones((2, 3), bool), np.array([4, 4])
    assert reduce(logp, mask, "mean") == pytest.approx([-0.7333, -0.1333], abs=1e-4)
    weight, spread = token_weights(logp, mask, groups)
    assert weight == pytest.approx(np.array([[0, 1, 0]] * 2))
    assert spread == pytest.approx([0.9, 0.9])
    assert reflect(logp, np.zeros((2, 3)), mask, weight) == pytest.approx([-2.0, -0.2])


def test_dro_weights_are_proportional_to_the_spread():
    logp = np.array([[-1.0, -1.0, -5.0], [-3.0, -2.0, -5.0]])
    weight, _ = token_weights(logp, np.ones((2, 3), bool), np.zeros(2))
    assert weight[0] == pytest.approx([2 / 3, 1 / 3, 0])
    top, _ = token_weights(logp, np.ones((2, 3), bool), np.zeros(2), weights="top", top=0.6)
    assert top[1] == pytest.approx([0.5, 0.5, 0])


def test_dro_reward_is_weighed_and_debiased():
    """The leaf against the equation: token 'b' follows the reasoning, token 'a' does not."""
    model = after({"gooda": {"b": 0.8}, "poora": {"b": 0.2}, "…a": {"b": 0.4}}, {"a": 0.5})
    batch = Rollouts(["?"] * 2, ["good", "poor"], {"answer": ["ab"] * 2})
    scores = score(likelihood.reflection(), batch, reference=model)
    assert scores.read(math.nan) == pytest.approx([math.log(2), -math.log(2)])
    assert scores.parts["likelihood.reflection"].details["spread"] == pytest.approx([math.log(2)] * 2)
    plain = score(likelihood.reflection(debias="none"), batch, reference=model)
    assert plain.read(math.nan) == pytest.approx([math.log(0.8), math.log(0.2)])


@settings(deadline=None)
@given(st.lists(st.floats(-9, 0), min_size=2, max_size=2), st.floats(-9, 0))
def test_dro_tokens_that_are_the_same_to_all_never_change_the_ranking(varying, same):
    logp = np.array([[varying[0], same], [varying[1], same]])
    mask = np.ones((2, 2), bool)
    weight, _ = token_weights(logp, mask, np.zeros(2))
    with_it = reflect(logp, np.zeros((2, 2)), mask, weight)
    alone, _ = token_weights(logp[:, :1], mask[:, :1], np.zeros(2))
    without = reflect(logp[:, :1], np.zeros((2, 1)), mask[:, :1], alone)
    gap = without[0] - without[1]
    assert (with_it[0] - with_it[1]) == pytest.approx(gap if abs(gap) > 1e-7 else 0, abs=1e-6)


def test_dro_propagation_is_its_product():
    """Against the definition, factor by factor, at the leaf: the token that differs is not forgiven at once."""
    model = after({"gooda": {"b": 0.8}, "poora": {"b": 0.2}}, {"a": 0.5, "c": 0.3})
    batch = Rollouts(["?"] * 2, ["good", "poor"], {"answer": ["abc"] * 2})
    leaf = likelihood.reflection(propagate=0.7, weights="spread", top=0.3)
    values = score(leaf, batch, reference=model).read(math.nan)
    assert values == pytest.approx([math.log(0.8), math.log(0.2)])  # all weight is on 'b', nothing before it varies
    logp = np.log([[0.2, 0.5, 0.3]])
    mask, decided = np.array([[True] * 3]), np.array([[True, True, False]])
    found = np.exp(propagated(logp, mask, decided, gamma=0.7))[0]
    late, soon = 1 - math.exp(-1.4), 1 - math.exp(-0.7)
    assert found == pytest.approx([
        0.2, 0.5 * (0.2 + 0.8 * soon), 0.3 * (0.2 + 0.8 * late) * (0.5 + 0.5 * soon)
    ])  # fmt: skip
    with pytest.raises(ValueError, match="propagate is positive"):
        likelihood.reflection(propagate=0.0)


def test_dro_filter_keeps_what_is_in_reach_and_differs():
    """Prompt 0: no reasoning brings the rank below 10. Of the other four, the half of least spread is dropped."""
    groups = np.repeat(np.arange(5), 2)
    rank = np.array([50, 60, 5, 90, 3, 3, 9, 20, 1, 1.0])
    spread = np.repeat([9.0, 0.4, 0.1, 0.3, 0.2], 2)
    kept = teachable(rank, spread, groups, rank=10, drop=0.5)
    assert kept.tolist() == np.repeat([False, True, False, True, False], 2).tolist()
    assert teachable(rank, spread, groups, rank=100, drop=0.0).all()
    with pytest.raises(ValueError, match="drop is a share"):
        teachable(rank, spread, groups, drop=1.0)


def test_dro_groups_with_several_references_abstain():
    batch = Rollouts(["?"] * 3, ["z"] * 3, {"answer": ["a", "b", "b"]}, groups=[0, 0, 1])
    scores = score(likelihood.reflection(), batch, reference=steady(a=0.5, b=0.5))
    assert scores.abstained.tolist() == [True, True, False]
    assert "different references" in scores.reasons[0]


@given(tables(), st.sampled_from(["spread", "top"]))
def test_token_weights_are_shares_whatever_stands_in_padding(table, weights):
    logp, mask, groups = table
    weight, spread = token_weights(logp, mask, groups, weights=weights)
    assert weight.sum(1) == pytest.approx(mask.any(1).astype(float))
    assert np.isfinite(spread).all()
    assert (weight[~mask] == 0).all()
    again, _ = token_weights(wider(logp), wider(mask, False), groups, weights=weights)
    assert again[:, : mask.shape[1]] == pytest.approx(weight)
    assert np.isfinite(reflect(logp, np.where(mask, -1.0, np.nan), mask, weight)).all()
    kept = propagated(logp, mask, weight > 0, gamma=0.5)
    assert np.isfinite(kept).all()
    assert (kept <= np.where(mask, logp, 0.0) + 1e-12).all()
    assert (teachable(np.zeros(len(mask)), spread, groups, drop=0.0)).all()


@given(tables())
def test_the_pooled_log_is_that_of_the_mean(table):
    logp, _, groups = table
    values = np.nan_to_num(logp).sum(1)
    mask = np.arange(len(values)) != 0
    pooled = log_mean_exp(np.where(mask, values, np.nan), groups, mask)
    for i, group in enumerate(groups):
        members = [math.exp(v) for v, g, ok in zip(values, groups, mask, strict=True) if g == group and ok]
        expected = math.log(sum(members) / len(members)) if members else -math.inf
        assert pooled[i] == pytest.approx(expected)


@given(tables(), st.sampled_from([1.0, 30.0]))
def test_the_pooled_log_without_a_row_is_that_of_the_others(table, scale):
    """Also where one row is all of it: far from it differences are lost in rounding."""
    logp, _, groups = table
    values = scale * np.nan_to_num(logp).sum(1)
    mask = np.arange(len(values)) != 1
    found = log_mean_exp(np.where(mask, values, np.nan), groups, mask, without=True)
    for i in np.flatnonzero(mask):
        others = np.array([values[j] for j in np.flatnonzero(mask & (groups == groups[i])) if j != i])
        expected = log_mean_exp(others, np.zeros(len(others), int), others < 1)[0] if len(others) else -math.inf
        assert found[i] == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"top": 0.0}, {"worst": 1.5}])
def test_shares_are_checked_at_once(options):
    with pytest.raises(ValueError, match="is a share in"):
        likelihood.reflection(**options)


# The completion by itself


def test_cib_worked_number():
    """Five tokens of filler (.1 nat) and two of sense (3 nats) cost .065 of a right answer at β = .01."""
    filler, sense = math.exp(-0.1), math.exp(-3)
    prior = steady(f=filler, s=sense, x=1 - filler - sense)
    part = likelihood.completion(model="prior", query=False, before="</think>", profile=True)
    batch = Rollouts(["Q?"], ["fffffss</think>y"])
    scores = (1 + 0.01 * part).score(batch, Context(models={"prior": prior}))
    assert prior.read == [("", "fffffss")]
    assert scores.read(math.nan) == pytest.approx([0.935])
    details = scores.parts["likelihood.completion"].details
    assert details["filler"] == pytest.approx([5 / 7])
    assert details["surprisal"][0] == pytest.approx([0.1] * 5 + [3.0] * 2)
    uniform = np.full((1, 7), -math.log(50_000))
    assert -0.01 * reduce(uniform, np.ones((1, 7), bool), "sum")[0] == pytest.approx(0.757, abs=5e-4)


def test_cib_uniform_prior_is_a_length_penalty():
    """−|z| log V: the ranking is that of the lengths, whatever is said."""
    uniform = Written(lambda before: dict.fromkeys("abcdefgh", 0.0))
    batch = Rollouts(["?"] * 3, ["abcd", "hh", "aaaaaaa"])
    values = score(likelihood.completion(model="prior", query=False), batch, prior=uniform).read(math.nan)
    assert values == pytest.approx([-n * math.log(8) for n in (4, 2, 7)])


def test_cib_filler_is_cheap_under_a_prior_that_knows_it():
    prior = Written(lambda before: {"f": math.log(0.9), "r": math.log(2e-5), "~": math.log(0.1 - 2e-5)})
    batch = Rollouts(["?"] * 3, ["f", "ffffff", "fr"])
    base, filler, random = score(likelihood.completion(model="prior", query=False), batch, prior=prior).read(math.nan)
    assert base - filler == pytest.approx(5 * -math.log(0.9))
    assert base - random == pytest.approx(10.8, abs=0.05)


def perplexed(asked, alone):
    """A model to which a text of a's has one perplexity after the question 'q', and another without it."""

    def logits(before):
        p = 1 / (asked if before.startswith("q") else alone)
        return {"a": math.log(p), "~": math.log(1 - p)}

    return Written(logits)


@pytest.mark.parametrize(
    ("alone", "asked", "options", "expected"),
    [
        (8, 4, {}, 0.5),
        (3, 9, {}, -1.0),
        (3, 9, {"least": None}, -2.0),
        (5, 5, {}, 0.0),
        (8, 4, {"comparison": "difference"}, 4.0),
        (8, 4, {"comparison": "log"}, math.log(2)),
        (8, 4, {"comparison": "none"}, 1.0),
        (3, 9, {"comparison": "none", "least": None}, -4.0),
    ],
)
def test_sar_worked_number(alone, asked, options, expected):
    model = perplexed(asked, alone)
    leaf = likelihood.self_aligned(**options)
    assert one(leaf, "q", "aaa", old=model) == pytest.approx(expected, abs=1e-8)


def test_sar_answers_that_speak_of_the_question_gain_and_filler_loses():
    """A model that expects the question's letters again, and 'u' at any time."""

    def logits(before):
        seen = set(before) & set("xyz")
        p = {"u": 0.4, **dict.fromkeys("xyz", 0.1)}
        p |= {letter: 0.1 + 0.3 / len(seen) for letter in seen} if seen else {"~": 0.3}
        return {token: math.log(q) for token, q in p.items()}

    model = Written(logits)
    batch = Rollouts(["x"] * 3, ["x", "u", "xuuuu"])
    copied, generic, padded = score(likelihood.self_aligned(), batch, old=model).read(math.nan)
    assert copied > padded > generic == pytest.approx(0.0)


def test_sar_chats_keep_all_but_the_question():
    model = steady(a=0.5, b=0.5)
    one(likelihood.self_aligned(), CHAT, [{"role": "assistant", "content": "a"}], old=model)
    assert model.read == [("system:S|user:Q", "a"), ("system:S|user:", "a")]


def test_sar_total_weighs_it_beside_correctness():
    model = perplexed(4, 8)
    reward = text.exact() + 0.2 * likelihood.self_aligned()
    batch = Rollouts(["q"], ["aaa"], {"answer": ["aaa"]})
    assert reward.score(batch, Context(models={"old": model})).read(math.nan) == pytest.approx([1.1])


def test_sar_least_above_the_most_is_refused():
    with pytest.raises(ValueError, match="least must be below"):
        likelihood.self_aligned(least=1.0)


# Two models


def test_cdr_of_equal_models_is_zero():
    model = steady(a=0.7, b=0.3)
    batch = Rollouts(["?"] * 3, ["a", "abba", "bb"])
    assert score(likelihood.density_ratio(), batch, policy=model, reference=model).read(math.nan).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_cdr_of_a_tilted_model_ranks_as_the_reward(seed):
    """p_strong ∝ p_weak exp(r*/β): β · CDR = r* − const, exactly, over all answers of two letters."""
    rng, beta = np.random.default_rng(seed), 0.3
    answers = ["".join(pair) for pair in product("ab", repeat=2)]
    weak_p = dict(zip(answers, rng.dirichlet(np.ones(4)), strict=True))
    wanted = dict(zip(answers, rng.normal(size=4), strict=True))
    tilted = {y: weak_p[y] * math.exp(wanted[y] / beta) for y in answers}
    strong_p = {y: p / sum(tilted.values()) for y, p in tilted.items()}

    def chain(joint):
        def logits(before):
            begun = before.removeprefix("?")
            mass = {c: sum(p for y, p in joint.items() if y.startswith(begun + c)) for c in "ab"}
            return {c: math.log(p / sum(mass.values())) for c, p in mass.items()}

        return Written(logits)

    leaf = likelihood.density_ratio(strong="strong", weak="weak", how="sum")
    models = {"strong": chain(strong_p), "weak": chain(weak_p)}
    values = beta * score(leaf, Rollouts(["?"] * 4, answers), **models).read(math.nan)
    constant = values - np.array([wanted[y] for y in answers])
    assert constant == pytest.approx(np.full(4, constant[0]))
    assert np.argsort(values).tolist() == np.argsort([wanted[y] for y in answers]).tolist()


def test_cdr_tokens_that_both_expect_alike_leave_the_sum_and_shrink_the_mean():
    strong, weak = steady(a=0.6, b=0.3, u=0.1), steady(a=0.3, b=0.6, u=0.1)
    models = {"policy": strong, "reference": weak}
    short, long = (one(likelihood.density_ratio(how="sum"), "?", c, **models) for c in ("aa", "aauu"))
    assert short == pytest.approx(long) == pytest.approx(2 * math.log(2))
    short, long = (one(likelihood.density_ratio(), "?", c, **models) for c in ("aa", "aauu"))
    assert (short, long) == pytest.approx((math.log(2), math.log(2) / 2))


def test_cdr_each_model_reads_its_own_tokens_and_the_strong_one_counts():
    letters = steady(a=0.5, b=0.5)
    pairs = Written(lambda before: {"aa": math.log(0.2), "ab": math.log(0.8)}, size=2)
    models = {"policy": pairs, "reference": letters}
    assert one(likelihood.density_ratio(), "?", "aaab", **models) == pytest.approx(
        (math.log(0.2 * 0.8) - 4 * math.log(0.5)) / 2
    )


@pytest.mark.parametrize(("instruct", "weak"), [("strong", "Q"), ("both", "be kind\n\nQ")])
def test_cdr_instruction_is_given_to_the_strong_model(instruct, weak):
    models = {"policy": steady(a=0.5, b=0.5), "reference": steady(a=0.5, b=0.5)}
    one(likelihood.density_ratio(instruction="be kind", instruct=instruct), "Q", "a", **models)
    assert models["policy"].read == [("be kind\n\nQ", "a")]
    assert models["reference"].read == [(weak, "a")]


# Logits as soft values


def table_of(logits, actions):
    """Logits of the states that a text passes through, as the scorer gives them, and their normalisers."""
    z = np.array([[row[a] for row, a in zip(logits, actions, strict=True)]])
    v = np.log(np.exp(np.array(logits)).sum(1))
    said = TokenLogprobs(z - v, np.ones(z.shape, bool), np.zeros(z.shape), np.zeros(z.shape, int), z)
    return said, v


def test_endorm_worked_number():
    said, values = table_of([[2.0, 0.0], [1.0, 1.0]], [0, 0])
    assert values == pytest.approx([2.127, 1.693], abs=5e-4)
    assert inverse_bellman(said)[0, 0] == pytest.approx(0.307, abs=5e-4)


@given(st.data(), st.floats(0.2, 3))
def test_endorm_rewards_add_up_to_the_log_probability_and_the_first_value(data, alpha):
    steps = data.draw(st.integers(1, 5))
    logits = nested(data.draw, (steps, 3), -4, 4)
    actions = data.draw(st.lists(st.integers(0, 2), min_size=steps, max_size=steps))
    order = "abc"
    text_ = "".join(order[a] for a in actions)
    model = Written(lambda before: dict(zip(order, logits[len(before) - 1], strict=True)))
    value = one(likelihood.endogenous(alpha=alpha), "?", text_, reference=model)
    norm = [alpha * math.log(sum(math.exp(z / alpha) for z in row)) for row in logits]
    logp = sum(row[a] / alpha - v / alpha for row, a, v in zip(logits, actions, norm, strict=True))
    assert value == pytest.approx(alpha * logp + norm[0], abs=1e-6)


def test_endorm_soft_value_iteration_on_its_rewards_gives_the_model_back():
    """A tree of depth 3: the best soft policy for r is softmax(f)."""
    rng = np.random.default_rng(0)
    f = {"?" + "".join(p): rng.normal(size=2) for depth in range(3) for p in product("ab", repeat=depth)}
    model = Written(lambda before: dict(zip("ab", f[before], strict=True)))
    rewards = {}
    for path in product("ab", repeat=3):
        word = "".join(path)
        said = model.logprobs(["?"], [word])
        for depth, r in enumerate(inverse_bellman(said)[0]):
            rewards["?" + word[: depth + 1]] = r

    def soft(state):
        if len(state) == 4:
            return 0.0
        q = [rewards[state + a] + soft(state + a) for a in "ab"]
        assert q == pytest.approx(f[state].tolist())
        return math.log(sum(math.exp(x) for x in q))

    soft("?")


def test_endorm_discount_and_length():
    model = Written(lambda before: {"a": 1.0, "b": 0.0})
    v = math.log(math.e + 1)
    assert one(likelihood.endogenous(gamma=0.5), "?", "aab", reference=model) == pytest.approx(2 - v)
    assert one(likelihood.endogenous(normalize="length"), "?", "aab", reference=model) == pytest.approx((2 - 2 * v) / 3)
    with pytest.raises(ValueError, match="gamma in"):
        likelihood.endogenous(gamma=1.5)


@given(tables())
def test_endorm_rewards_are_finite_whatever_stands_in_padding(table):
    logp, mask, _ = table
    said = TokenLogprobs(logp, mask, logp, logp, logp * 0.5)
    rewards = inverse_bellman(said)
    assert np.isfinite(rewards).all()
    more = [wider(x) for x in (logp, logp, logp, logp * 0.5)]
    again = inverse_bellman(TokenLogprobs(more[0], wider(mask, False).astype(bool), *more[1:]))
    assert again[:, : mask.shape[1]] == pytest.approx(rewards)


# What a user says next

BANK = {"kindness": {"positive": ("yy", "y"), "negative": ("nnn",)}}


def listener():
    """A user who says y with 0.8 after a good reply, and 0.4 after others."""

    def logits(before):
        p = 0.8 if "good" in before else 0.4
        return {"y": math.log(p), "n": math.log(1 - p)}

    return Written(logits)


def test_flr_rises_with_quality_and_is_the_mean_difference():
    batch = Rollouts([CHAT, "Q"], [[{"role": "assistant", "content": "good"}], "bad"])
    model = listener()
    scores = score(likelihood.follow_up(bank=BANK), batch, reference=model)
    expected = [math.log(0.8) - math.log(0.2), math.log(0.4) - math.log(0.6)]
    assert scores.read(math.nan) == pytest.approx(expected)
    assert scores.parts["likelihood.follow_up"].details["dimensions"][0] == {"kindness": pytest.approx(expected[0])}
    assert model.read[0] == ("system:S|user:Q|assistant:good|user:", "yy")
    assert model.read[-1] == ("user:Q|assistant:bad|user:", "nnn")


def test_flr_worked_example_swapping_the_banks_flips_the_sign():
    swapped = {"kindness": {"positive": BANK["kindness"]["negative"], "negative": BANK["kindness"]["positive"]}}
    batch = Rollouts(["Q", "Q"], ["good", "bad"])
    plain, turned = (
        score(likelihood.follow_up(bank=bank), batch, reference=listener()).read(math.nan) for bank in (BANK, swapped)
    )
    assert plain == pytest.approx(-turned)


def test_flr_a_constant_added_to_every_follow_up_changes_nothing():
    def shifted(by):
        model = listener()
        plain = model.logprobs

        def logprobs(prompts, completions, *, temperature=1.0):
            said = plain(prompts, completions)
            return TokenLogprobs(said.logp + by, said.mask, said.entropy, said.rank, said.logit + by)

        model.logprobs = logprobs
        return model

    for options in ({}, {"raw_logit": True}):
        values = [
            one(likelihood.follow_up(bank=BANK, **options), "Q", "good", reference=shifted(by)) for by in (0.0, -3.0)
        ]
        assert values[0] == pytest.approx(values[1])


def test_flr_dimensions_are_averaged_or_chosen():
    bank = {**BANK, "rudeness": {"negative": ("y",)}}
    both = one(likelihood.follow_up(bank=bank), "Q", "good", reference=listener())
    alone = one(likelihood.follow_up(bank=bank, dimensions=("rudeness",)), "Q", "good", reference=listener())
    assert alone == pytest.approx(-math.log(0.8))
    assert both == pytest.approx((math.log(4) - math.log(0.8)) / 2)
    with pytest.raises(ValueError, match="did you mean 'rudeness'"):
        likelihood.follow_up(bank=bank, dimensions=("rudness",))
    with pytest.raises(ValueError, match="needs texts under"):
        likelihood.follow_up(bank={"x": {"neutral": ("y",)}})


# As data


@pytest.mark.parametrize(
    "leaf",
    [
        likelihood.answer(how="mean-exp", debias="masked", after="<answer>"),
        likelihood.bound(lead=" "),
        likelihood.bound(marginal=True),
        likelihood.reflection(weights="top", top=0.5),
        likelihood.completion(query=False, before="</think>"),
        likelihood.self_aligned(comparison="log", least=None),
        likelihood.density_ratio(instruction="be kind", instruct="both"),
        likelihood.endogenous(alpha=0.5, normalize="length"),
        likelihood.follow_up(dimensions=("relevance",), bank=BANK | {"relevance": {"positive": ["y"]}}),
        likelihood.follow_up(),
    ],
    ids=lambda leaf: leaf.name,
)
def test_parts_are_data_and_back(leaf):
    assert spec.load(spec.dump(leaf)) == leaf


def test_a_wrong_choice_is_refused_in_a_spec():
    with pytest.raises(SpecError, match="did you mean 'mean-exp'"):
        spec.load({"part": "likelihood.answer", "how": "mean_exp"})
