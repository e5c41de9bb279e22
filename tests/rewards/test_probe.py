"""Potentials of the prefixes of a reasoning, against models that answer as they are told."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon import Context, Rollouts, reward
from guerdon.algebra import spec
from guerdon.core import Tokens
from guerdon.core.errors import MissingInput, SpecError
from guerdon.core.protocols import TokenLogprobs
from guerdon.credit import progress, spread
from guerdon.rewards import probe
from guerdon.rewards.probe import Cut, cuts


def flat(prompt):
    if isinstance(prompt, str):
        return prompt
    return "|".join(f"{message['role']}:{message['content']}" for message in prompt)


class Answering:
    """A model that knows the reference with a probability, and says things, by what it has read.

    Args:
        knows: context → probability of each letter of any target.
        says: context, how many answers it has given there → the next one, and its mean entropy.
    """

    def __init__(self, knows=None, says=None):
        self.knows, self.says, self.read, self.asked = knows, says, [], []

    def logprobs(self, prompts, completions, *, temperature=1.0):
        self.read += list(zip(map(flat, prompts), completions, strict=True))
        width = max(map(len, completions), default=0)
        mask = np.array([[t < len(c) for t in range(width)] for c in completions], bool).reshape(-1, width)
        logp = np.array([[math.log(self.knows(flat(p)))] * width for p in prompts]).reshape(-1, width)
        return TokenLogprobs(logp, mask, logp, np.zeros(mask.shape, int), logp)

    def generate(self, prompts, *, max_tokens, temperature=1.0, top_p=1.0, stop=(), seed=0):
        given, said = {}, []
        for prompt in map(flat, prompts):
            given[prompt] = given.get(prompt, -1) + 1
            said.append(self.says(prompt, given[prompt]))
        self.asked += [flat(prompt) for prompt in prompts]
        self.options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        written = np.ones((len(said), 2), bool)
        tokens = Tokens(np.zeros(written.shape, int), written, written, entropy=np.array([[h, h] for _, h, *_ in said]))
        problems = [entry[2] if len(entry) > 2 else None for entry in said]
        return Rollouts(list(prompts), [text for text, *_ in said], {"problem": problems}, tokens=tokens)


@reward(range=(0, 1), lane="batch")
def is_right(completion, answer):
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completion]
    return [None if "?" in said else float(said.endswith(a)) for said, a in zip(texts, answer, strict=True)]


def score(leaf, completions, answer="y", prompts=None, step=0, tokens=None, **models):
    n = len(completions)
    rollouts = Rollouts(prompts or ["Q"] * n, completions, {"answer": [answer] * n}, tokens=tokens)
    return leaf.score(rollouts, Context(models=models, step=step))


# Cuts

MARKED = "First I add. Then I multiply. Wait, that is wrong. So it is 4. But attributes stay. Hmm.</think>4"


def test_vsrm_cuts_before_the_sentence_that_begins_with_a_marker():
    ends = cuts(MARKED, Cut(first=0, gap=0))
    assert [MARKED[a:b] for a, b in zip([0, *ends], ends, strict=False)] == [
        "First I add. Then I multiply.",
        " Wait, that is wrong.",
        " So it is 4.",
        " But attributes stay.",
        " Hmm.",
    ]


def test_vsrm_cuts_keep_their_distance():
    """At least `first` characters to the first marker and `gap` from a cut to the next; both count from the text."""
    line = "a" * 50 + ". Wait. "
    text = line * 40
    markers = [i for i in range(len(text)) if text.startswith("Wait", i)]
    expected, last = [], None
    for at in markers:
        if at >= (1000 if last is None else last + 400):
            last = at - 1
            expected.append(last)
    assert cuts(text, Cut()) == [*expected, len(text)]
    assert cuts("Wait. " * 10, Cut()) == [60]


def test_vsrm_markers_are_words_of_their_own_case():
    text = "x. The attribute. y. so what. z. But no."
    assert cuts(text, Cut(first=0, gap=0)) == [text.index(" But"), len(text)]
    inside = cuts(text, Cut(first=0, gap=0, whole_words=False))
    assert inside == [text.index(" The"), text.index(" But"), len(text)]


def test_spae_cuts_after_each_separator_inside_of_the_thinking():
    text = "one.\n\ntwo.\n\nthree</think>answer.\n\nmore"
    assert cuts(text, Cut(at="separator")) == [6, 12, 17]
    assert cuts(text, Cut(at="separator", until=None))[-1] == len(text)


def test_anytime_budgets_beyond_the_end_are_at_the_end():
    offsets = np.array([[0, 2], [2, 4], [4, 6], [-1, -1]])
    assert cuts("abcdef", Cut(at="budgets", budgets=(1, 2, 9)), offsets) == [2, 4, 6]
    assert cuts("ab cd", Cut(at="budgets", budgets=(0, 3), unit="characters")) == [0, 3]
    with pytest.raises(MissingInput, match="offsets"):
        cuts("abc", Cut(at="budgets", budgets=(1,)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"at": "budgets"}, "budgets is empty"),
        ({"at": "budgets", "budgets": [3, 2]}, "rising budgets"),
        ({"separator": "", "at": "separator"}, "separator is empty"),
        ({"markers": []}, "markers is empty"),
        ({"gap": -1}, "gap of 0 or more"),
        ("words", "'words' is not a choice"),
    ],
)
def test_a_cut_that_cannot_be_is_refused_when_the_part_is_made(data, message):
    with pytest.raises(SpecError, match=message):
        probe.likelihood(cut=data)


@given(
    st.text(alphabet="aW.\n! wiatBut,", max_size=60),
    st.sampled_from([
        Cut(first=0, gap=0), Cut(first=3, gap=2, markers=("a", "W")), Cut(at="separator"),
        Cut(at="separator", separator="a"), Cut(at="budgets", unit="words", budgets=(0, 1, 5)),
    ]),
)  # fmt: skip
def test_cuts_rise_and_end_where_the_reasoning_does(text, cut):
    ends = cuts(text, cut)
    assert ends == sorted(ends)
    if cut.at == "budgets":
        assert all(0 <= end <= len(text) for end in ends)
    else:
        assert ends[-1:] == ([len(text)] if text else [])
        assert len(set(ends)) == len(ends)


# Likelihood of the reference


def test_igpo_worked_number():
    """P after each turn is [.1, .3, .25, .6]: turn rewards [.2, −.05, .35], which add up to P_T − P_0."""
    told = {"": 0.1, "one": 0.3, "two": 0.25, "three": 0.6}
    model = Answering(knows=lambda context: next(p for t, p in reversed(told.items()) if t in context))
    turns = [
        {"role": "assistant", "content": "one"},
        {"role": "tool", "content": "seen"},
        {"role": "assistant", "content": "two"},
        {"role": "assistant", "content": "three"},
    ]
    scores = score(
        probe.likelihood(stop="<answer>"), [turns], answer="GT", prompts=[[{"role": "user", "content": "Q"}]], old=model
    )
    assert scores.read(math.nan)[0] == pytest.approx([0.1, 0.3, 0.25, 0.6])
    assert scores.spans.rows() == [[(0, 0), (0, 3), (3, 7), (7, 13)]]
    assert scores.spans.unit == "character"
    assert [context for context, _ in model.read] == [
        "user:Q|assistant:<answer>",
        "user:Q|assistant:one|tool:seen|assistant:<answer>",
        "user:Q|assistant:one|tool:seen|assistant:two<answer>",
        "user:Q|assistant:one|tool:seen|assistant:two|assistant:three<answer>",
    ]
    phi = torch.as_tensor(scores.read(0.0))
    gained = progress(phi, torch.ones(1, 3, dtype=torch.bool))
    assert gained[0].tolist() == pytest.approx([0.2, -0.05, 0.35], abs=1e-6)
    assert float(gained.sum()) == pytest.approx(0.5)


def test_likelihood_reads_a_text_by_its_prefixes():
    model = Answering(knows=lambda context: 0.5)
    leaf = probe.likelihood(cut={"at": "separator", "separator": "; "}, stop=" A:", how="sum")
    scores = score(leaf, ["a; b</think>c"], answer="yy", old=model)
    assert [context for context, _ in model.read] == ["Q A:", "Qa;  A:", "Qa; b A:"]
    assert scores.read(math.nan)[0] == pytest.approx([2 * math.log(0.5)] * 3)


def test_references_that_are_none_abstain_and_the_others_do_not():
    model = Answering(knows=lambda context: 0.5)
    rollouts = Rollouts(["Q"] * 2, ["a", "b"], {"answer": [None, 4]})
    scores = probe.likelihood(cut="turns").score(rollouts, Context(models={"old": model}))
    assert scores.usable.tolist() == [False, True]
    assert scores.reasons == {0: "reference is not a text: None"}
    assert model.read[-1][1] == "4"


# Accuracy of sampled answers


def solver(accuracies, samples=10):
    """It is right in the given share of its answers, by how many steps ('#') it has seen."""

    def says(context, number):
        share = accuracies[context.count("#") - 1]
        return ("y" if number < round(share * samples) else "n"), 0.0

    return Answering(says=says)


STEPS = {"at": "separator", "separator": "#"}


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.2, 0.2, 0.6, 0.6], [0.28, 0.40, 0.0]),
        ([0.0, 0.0, 0.0, 1.0], [0.49, 0.70, 1.0]),
        ([0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0]),
        ([1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]),
    ],
)
def test_vsrm_worked_examples(accuracies, expected):
    """Accuracies at the cuts and after the full thinking, then differences with a look-ahead."""
    leaf = probe.accuracy(grade=is_right(), samples=10, cut=STEPS)
    scores = score(leaf, ["a#b#c#d#</think>y"], old=solver(accuracies))
    assert scores.read(math.nan)[0] == pytest.approx(accuracies)
    assert scores.spans.rows() == [[(0, 2), (2, 4), (4, 6), (6, 8)]]
    rewards = progress(
        torch.as_tensor(scores.read(0.0)), torch.ones(1, 3, dtype=torch.bool), lookahead=4, tolerance=1e-5
    )
    assert rewards[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_mrt_worked_number():
    """J = .10, .25, .40, .35, .75: progress +.15, +.15, −.05, +.40, which adds up to .65."""
    values = [0.10, 0.25, 0.40, 0.35, 0.75]
    model = Answering(says=lambda context, i: ("y" if i < 20 * values[context.count("#")] else "n", 0.0))
    leaf = probe.accuracy(grade=is_right(), samples=20, cut=STEPS, start=True)
    scores = score(leaf, ["a#b#c#d#</think>"], old=model)
    assert scores.read(math.nan)[0] == pytest.approx(values)
    gained = progress(torch.as_tensor(scores.read(0.0)), torch.ones(1, 4, dtype=torch.bool))
    assert gained[0].tolist() == pytest.approx([0.15, 0.15, -0.05, 0.40], abs=1e-6)
    assert float(gained.sum()) == pytest.approx(0.65)


def test_mrt_a_useless_episode_makes_no_progress():
    model = Answering(says=lambda context, i: ("y" if "sense" in context else "n", 0.0))
    scores = score(probe.accuracy(grade=is_right(), samples=2, cut=STEPS, start=True), ["sense#mmm#"], old=model)
    gained = progress(torch.as_tensor(scores.read(0.0)), torch.ones(1, 2, dtype=torch.bool))
    assert gained.tolist() == [[1.0, 0.0]]


def test_anytime_budgets_probe_and_merge():
    """Budgets 2, 4, 6, 8 of a thinking of 5 tokens: the last two are at its end and share their answers."""
    text = "abcde</think>y"
    offsets = np.array([[[i, i + 1] for i in range(len(text))]])
    there = np.ones((1, len(text)), bool)
    tokens = Tokens(np.zeros((1, len(text)), int), there, there, offsets=offsets)
    model = Answering(says=lambda context, i: ("y" if context.endswith("abcde!") and i % 4 == 0 else "n", 0.0))
    cut = {"at": "budgets", "budgets": [2, 4, 6, 8]}
    leaf = probe.accuracy(grade=is_right(), samples=4, cut=cut, stop="!", max_tokens=118)
    scores = score(leaf, [text], tokens=tokens, old=model)
    assert scores.read(math.nan)[0] == pytest.approx([0.0, 0.0, 0.25, 0.25])
    assert scores.spans.rows() == [[(0, 2), (2, 4), (4, 5), (5, 5)]]
    assert sorted(model.asked) == ["Qab!"] * 4 + ["Qabcd!"] * 4 + ["Qabcde!"] * 8
    grades = scores.parts["probe.accuracy"].details["grades"][0]
    assert [len(some) for some in grades] == [4, 4, 8, 8]
    assert leaf.requires >= {"tokens", "model:old", "answer"}


def test_vsrm_puts_the_reward_on_the_token_of_the_cut():
    """Steps in characters, through the tokens' offsets, onto the last token of each."""
    text = "ab#cd#</think>"
    offsets = np.array([[[i, i + 2] for i in range(0, len(text), 2)]])
    there = np.ones((1, 7), bool)
    tokens = Tokens(np.zeros((1, 7), int), there, there, offsets=offsets)
    scores = score(probe.accuracy(grade=is_right(), cut=STEPS), [text], tokens=tokens, old=solver([0.0, 1.0], 5))
    placed = spread(torch.tensor([[7.0, 8.0]]), torch.as_tensor(there), scores.spans.to_tokens(offsets))
    assert placed.tolist() == [[0.0, 7.0, 8.0, 0.0, 0.0, 0.0, 0.0]]


def test_the_grader_reads_the_words_that_stop_and_the_answer():
    seen = []

    @reward(range=(0, 1), lane="batch")
    def remember(completion, answer):
        seen.extend(zip(completion, answer, strict=True))
        return [1.0] * len(completion)

    model = Answering(says=lambda context, i: ("42}", 0.0))
    prompts = [[{"role": "user", "content": "Q"}]]
    completion = [{"role": "assistant", "content": "a#"}]
    score(
        probe.accuracy(grade=remember(), samples=1, cut=STEPS, stop="\\boxed{"),
        [completion],
        "42",
        prompts,
        7,
        old=model,
    )
    assert seen == [([{"role": "assistant", "content": "\\boxed{42}"}], "42")]
    assert model.asked == ["user:Q|assistant:a#\\boxed{"]
    assert model.options == {"max_tokens": 768, "temperature": 0.6, "top_p": 0.95, "seed": 7}


def test_answers_without_a_grade_are_left_out_and_a_boundary_of_none_abstains():
    def says(context, i):
        return ("?" if context.endswith("##</think>") or i else "y"), 0.0

    scores = score(probe.accuracy(grade=is_right(), samples=3, cut=STEPS), ["a#", "b##c#"], old=Answering(says=says))
    assert scores.read(9.0).tolist() == [[1.0, 9.0], [9.0, 1.0]]
    assert scores.mask.tolist() == [[True, False], [True, True]]
    assert scores.reasons == {1: "no score was returned"}


def test_a_prefix_that_leaves_no_room_abstains_with_its_reason():
    def says(context, i):
        return ("", 0.0, "too long") if "#" in context else ("y", 0.0)

    for leaf in (
        probe.accuracy(grade=is_right(), samples=2, cut=STEPS, start=True),
        probe.confidence(samples=2, cut=STEPS, start=True),
    ):
        scores = score(leaf, ["a#", ""], old=Answering(says=says))
        assert scores.usable.tolist() == [False, True]
        assert scores.reasons == {0: "too long"}
        assert scores.read(9.0).tolist() == [[1.0, 9.0], [1.0, 9.0]]


# Confidence


def test_spae_confidence_is_the_mean_of_exp_minus_entropy():
    model = Answering(says=lambda context, i: ("4}", [0.0, math.log(2)][i]))
    scores = score(probe.confidence(samples=2), ["a.\n\nb</think>"], old=model)
    assert scores.read(math.nan)[0] == pytest.approx([0.75, 0.75])
    assert model.options["max_tokens"] == 10


def test_spae_confidence_without_entropies_abstains():
    model = Answering(says=lambda context, i: ("4}", 0.0))
    given = model.generate
    model.generate = lambda *a, **k: given(*a, **k).with_(tokens=None)
    scores = score(probe.confidence(), ["a"], old=model)
    assert "reads the entropy" in scores.reasons[0]


@pytest.mark.parametrize(
    ("knows", "entropy", "potential"),
    [(1.0, 0.0, 1.0), (1e-12, 0.0, -1.0), (1e-12, 99.0, 0.0), (1.0, 99.0, 0.5), (0.5, math.log(2), 0.125)],
)
def test_spae_worked_numbers(knows, entropy, potential):
    """Φ = 1.5 Acc·Conf + .5 Acc − Conf, as an expression of the two probes."""
    cut, stop = {"at": "separator"}, "**Final Answer**\n\\boxed{"
    accuracy = probe.likelihood(how="mean-exp", cut=cut, stop=stop, start=False)
    confidence = probe.confidence(cut=cut, stop=stop)
    phi = 1.5 * accuracy * confidence + 0.5 * accuracy - confidence
    model = Answering(knows=lambda context: knows, says=lambda context, i: ("4}", entropy))
    scores = score(phi, ["a.\n\nb</think>"], answer="42", old=model)
    assert scores.read(math.nan)[0] == pytest.approx([potential] * 2, abs=1e-6)


# As data and at the edges


@pytest.mark.parametrize(
    "leaf",
    [
        probe.likelihood(cut={"at": "separator", "separator": "#"}),
        probe.accuracy(cut={"at": "budgets", "budgets": [2, 4]}, samples=4),
        probe.confidence(cut="turns", start=True),
    ],
    ids=lambda leaf: leaf.name,
)
def test_parts_are_data_and_back(leaf):
    assert spec.load(spec.dump(leaf)) == leaf


def test_a_grade_of_steps_and_no_samples_are_refused():
    with pytest.raises(ValueError, match="a grade is one score per answer"):
        probe.accuracy(grade=probe.confidence())
    with pytest.raises(ValueError, match="samples of at least 1"):
        probe.confidence(samples=0)


def test_rollouts_without_steps_have_no_potentials():
    model = Answering(says=lambda context, i: ("y", 0.0))
    scores = score(probe.accuracy(grade=is_right(), cut=STEPS), ["", "</think>y"], old=model)
    assert scores.mask.shape == (2, 0)
    assert score(probe.confidence(cut=STEPS), [""], old=model).mask.shape == (1, 0)
    assert model.asked == []
