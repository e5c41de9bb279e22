"""Answers that are named, read off, judged, thought about and measured; and the rewards that sources make of them."""

import asyncio
import math
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts
from guerdon.algebra import gate, harmonic, route, spec
from guerdon.core.errors import Abstain
from guerdon.credit import group_relative
from guerdon.data import ranked, within
from guerdon.rewards import agreement, choice, format, grounding, math as maths, recorded, relevance, text
from guerdon.rewards.text import length_cost
from guerdon.shaping import normalize, overlong

# What is contained, what is near


@pytest.mark.parametrize(
    ("said", "label", "strict", "source"),
    [
        ("Airbus_A320", "airbus a320", 1, 1),
        ("a320", "Airbus A320", 0, 1),
        ("airbus", "Airbus A320", 1, 1),
        ("an Airbus A320", "Airbus A320", 1, 1),
        ("a", "airbus a320", 0, 1),
        ("", "airbus a320", 0, 1),
        ("boeing 737", "airbus a320", 0, 0),
        ("airbus a320, boeing 737, cessna 172, embraer 190", "airbus a320", 0, 1),
        ("x", "X", 1, 1),
    ],
    ids=str,
)
def test_mrn_containment_is_hackable_without_least_and_share(said, label, strict, source):
    def paid(**options):
        return text.contained(within="reply", **options).evaluate(said, label)

    assert paid() == strict
    if said:
        assert paid(least=1, share=0.0) == source


def test_contained_takes_any_reference_and_needs_one():
    assert text.contained().evaluate("<answer>cat</answer>", ["dog", "Cat"]) == 1.0
    with pytest.raises(Abstain):
        text.contained().evaluate("<answer>cat</answer>", "")
    with pytest.raises(ValueError, match="share"):
        text.contained(share=1.5)


@pytest.mark.parametrize(
    ("said", "right", "paid"),
    [
        ("105", "100", 1),
        ("105.01", "100", 0),
        ("95", "100", 1),
        ("1,050", "1000", 1),
        ("12%", "12.3", 1),
        ("$5.1", "5", 1),
        ("-5", "5", 0),
        ("−.5", "-0.5", 1),
        ("0.01", "0", 0),
        ("0", "0", 1),
        ("2010", "2015", 0),
        ("2015", "2015", 1),
        ("Norway", "norway", 1),
        ("Norway", "100", 0),
        ("100", "Norway", 0),
        ("1e2", "100", 0),
        ("nan", "100", 0),
        ("9" * 400, "100", 0),
        ("", "100", 0),
    ],
    ids=lambda x: str(x)[:12],
)
def test_mixed_r1_relaxed_accuracy(said, right, paid):
    assert text.relaxed(within="reply").evaluate(said, right) == paid


def test_relaxed_years_may_be_near_and_a_reference_of_nothing_abstains():
    assert text.relaxed(within="reply", years="near").evaluate("2010", "2015") == 1.0
    with pytest.raises(Abstain):
        text.relaxed().evaluate("<answer>5</answer>", None)


# A judge, and what it is not asked


class Judge:
    def __init__(self, reply="yes."):
        self.reply, self.asked = reply, []

    def __call__(self, question):
        self.asked.append(question)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def judged(judge, completion, answer="pneumonia", **options):
    return asyncio.run(text.verdict(judge=judge, **options).evaluate("What is it?", completion, answer))


@pytest.mark.parametrize("said", ["A", "", "what?", "answer: pneumonia", "__", "...", "Is it pneumonia? Yes"])
def test_medix_judge_is_not_asked_about_what_says_nothing(said):
    judge = Judge()
    score, details = judged(judge, f"<answer>{said}</answer>")
    assert (score, judge.asked) == (0.0, [])
    assert details["problem"]
    assert text.specific().evaluate(f"<answer>{said}</answer>")[0] == 0.0


def test_medix_judge_is_asked_only_where_texts_differ():
    judge = Judge("Yes.")
    assert judged(judge, "<answer> Pneumonia. </answer>")[0] == 1.0
    assert judge.asked == []
    assert judged(judge, "<answer>lung infection</answer>")[0] == 1.0
    assert "lung infection" in judge.asked[0]
    assert "pneumonia" in judge.asked[0]
    assert "What is it?" in judge.asked[0]
    assert judged(judge, "<answer>pneumonia</answer>", exact="ask")[0] == 1.0
    assert len(judge.asked) == 2
    assert judged(Judge("No"), "<answer>asthma</answer>")[0] == 0.0
    assert judged(Judge("x"), "<answer>{reference}</answer>")[1]["said"] == "x"


def test_verdict_reads_binary_and_ten_and_abstains_on_the_rest():
    assert judged(Judge("1"), "<answer>lung</answer>", reads="binary")[0] == 1.0
    assert judged(Judge("7 of 10"), "<answer>lung</answer>", reads="ten")[0] == 0.7
    assert judged(Judge("Score: 12"), "<answer>lung</answer>", reads="ten")[0] == 1.0
    for reply, reads in (("2", "binary"), ("1, surely", "binary"), ("good", "ten"), ("", "yes"), (None, "yes")):
        with pytest.raises(Abstain, match="cannot be read"):
            judged(Judge(reply), "<answer>lung</answer>", reads=reads)
    with pytest.raises(ValueError, match="template"):
        text.verdict(judge=Judge(), template="Is it right?")


def test_verdict_waits_for_async_judges_and_a_dead_one_is_an_abstention():
    async def slow(question):
        await asyncio.sleep(0)
        return "YES"

    assert judged(slow, "<answer>lung</answer>")[0] == 1.0
    scores = text.verdict(judge=Judge(ValueError("dead"))).score(
        Rollouts(["?"] * 2, ["<answer>lung</answer>", "<answer>A</answer>"], {"answer": ["x y"] * 2})
    )
    assert scores.read(-1.0).tolist() == [-1.0, 0.0]
    assert "dead" in scores.reasons[0]


def letters(texts):
    return np.array([[t.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], float)


def medix(judge, encoder=letters):
    near = gate(
        relevance.reference(encoder=encoder, within="answer_tag"), then=text.specific(), above=0.8, inclusive=True
    )
    return (
        0.1 * format.tags("thinking", "answer", outside="before")
        + 0.5175 * text.verdict(judge=judge).named("judge")
        + 0.3375 * near.named("near")
        + 0.045 * format.label()
    )


def test_medix_worked_numbers():
    reward = medix(Judge("no"))
    replies = [
        "<X_RAY><thinking>shadow</thinking><answer>pneumonia</answer>",
        "<x_ray> <answer>pneumonia</answer>",
        "<X_RAY><thinking>shadow</thinking><answer>fracture of the hip</answer>",
        "<X_RAY><thinking>shadow</thinking><answer>A</answer>",
        "<X_RAY><thinking>shadow</thinking><answer>diagnosis: pneumonia</answer>",
        "<CT><thinking>shadow</thinking><answer>Pneumonia</answer>",
    ]
    paid = reward(["?"] * 6, replies, answer=["pneumonia"] * 6, label=["X_RAY"] * 6)
    assert paid == pytest.approx([1.0, 0.9, 0.145, 0.145, 0.145, 0.955])
    assert reward.range == (0.0, 1.0)


def test_medix_a_failed_judge_abstains():
    row = {"answer": ["pneumonia"], "label": ["X_RAY"]}
    reply = ["<X_RAY><thinking>shadow</thinking><answer>an infection</answer>"]
    assert medix(Judge(ValueError("503")))(["?"], reply, **row) == [None]


def test_medix_advantages_follow_the_reward():
    rows = ["<X_RAY><thinking>s</thinking><answer>pneumonia</answer>", "<X_RAY><answer>hip</answer>"]
    scores = medix(Judge("no")).score(Rollouts(["?"] * 2, rows, {"answer": ["pneumonia"] * 2, "label": ["X_RAY"] * 2}))
    advantages = group_relative(torch.tensor(scores.read(0.0)), torch.zeros(2, dtype=torch.long))
    assert advantages[0] > 0 > advantages[1]


def test_label_reads_the_first_tag_only():
    assert format.label().evaluate("<mri> <thinking>", "<MRI>") == (1.0, {"found": "mri"})
    assert format.label().evaluate("It is <MRI>", "MRI") == (0.0, {"found": None})
    with pytest.raises(Abstain):
        format.label().evaluate("<MRI>", None)


def test_tags_may_have_text_before_them_only():
    form = format.tags("thinking", "answer", outside="before").evaluate
    assert form("<CT> text <thinking>a</thinking> <answer>b</answer>") == 1.0
    assert (
        form("<thinking>a</thinking>, so <answer>b</answer>")
        == form("<thinking>a</thinking><answer>b</answer>.")
        == 0.0
    )


# Lengths


def test_thinking_and_its_length():
    assert format.thinking(low=0, high=9).evaluate("<think>123456789</think>x") == (1.0, {"length": 9})
    assert format.thinking(low=0, high=9).evaluate("<think>1234567890</think>x")[0] == 0.0
    assert format.thinking(low=2, high=3, unit="words").evaluate("<think>a b c</think>x")[0] == 1.0
    assert format.thinking(low=0).evaluate("x") == (0.0, {"length": None})
    assert format.thinking().evaluate("<think></think>x")[0] == 0.0
    with pytest.raises(ValueError, match="low"):
        format.thinking(low=3, high=2)
    said = ["<think>a b</think>c d e", "a</think>b", "a b"]
    assert text.length(unit="words", within="thinking")(["?"] * 3, said) == [2.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="thinking"):
        text.length(within="thinking")


def test_mrn_soft_overlong_worked_numbers():
    """Of 35, 43 and 51 with a limit of 50 and a buffer of 15; as the length of the thinking, and of all of it."""
    thoughts = ["w " * n for n in (35, 43, 51)]
    long = (text.length(unit="words", within="thinking") * (-1 / 15)) + 35 / 15
    from guerdon.shaping import clip

    shaped = long >> clip(low=-1, high=0)
    assert shaped(["?"] * 3, [f"<think>{t}</think>x" for t in thoughts]) == pytest.approx([0.0, -8 / 15, -1.0])
    whole = 0 * text.length(unit="words") >> overlong(limit=50, buffer=15, unit="words")
    assert whole(["?"] * 3, thoughts) == pytest.approx([0.0, -8 / 15, -1.0])


def test_balcaprl_proportion_is_inclusive():
    ten, paid = "w " * 10, text.proportion().evaluate
    assert [paid("w " * n, ten)[0] for n in (4, 5, 20, 21)] == [0.0, 1.0, 1.0, 0.0]
    assert paid("w " * 100, "w " * 50)[0] == 1.0
    assert paid("w " * 201, "w " * 100) == (0.0, {"ratio": 2.01})
    assert paid("", ten) == (0.0, {"ratio": 0.0})
    assert paid("w " * 4, [ten, "w " * 5])[0] == 1.0


def test_mrn_length_cost_is_the_slope_of_accuracy():
    rng = np.random.default_rng(0)
    lengths = rng.uniform(0, 100, 4000)
    right = rng.random(4000) < 0.9 - 0.004 * lengths
    cost = length_cost(right, lengths, bins=4)
    slope, _ = np.polyfit(lengths, right.astype(float), 1)
    assert cost.slope == pytest.approx(slope)
    assert cost.slope == pytest.approx(-0.004, abs=5e-4)
    assert cost.size.tolist() == [1000] * 4
    assert (np.diff(cost.accuracy) < 0).all()
    assert length_cost(np.array([True]), np.array([3.0])).slope == 0.0
    with pytest.raises(ValueError, match="finite"):
        length_cost(np.array([True]), np.array([np.nan]))


# Format and length as surrogates

SURROGATE = r"""
- gate: format.value
  then:
    - {part: format.regex, pattern: '(?s)<think>(?!\s*</think>).*?</think>', match: search, weight: 0.5}
    - {part: format.value, weight: 0.5}
- {part: format.value, shape: [{part: shaping.target_length, target: 50, width: 50, unit: words,
    curve: peak, wrong: penalty, apply: alone, weight: 1}]}
"""


def test_format_length_worked_numbers():
    reward = spec.load(yaml.safe_load(SURROGATE))

    def written(words, valid=True, thought=True):
        end = "\\boxed{4}" if valid else "\\boxed{4"
        start = ["<think>x", "x</think>"] if thought else []
        return " ".join([*start, *["w"] * (words - 1 - len(start)), end])

    lengths = [25, 50, 75, 100, 140]
    paid = reward(["?"] * 5, [written(n) for n in lengths])
    assert paid == pytest.approx([1.75, 2.0, 1.5, 0.0, 0.0])
    malformed = reward(["?"] * 5, [written(n, valid=False) for n in lengths])
    assert malformed == pytest.approx([0.0, 0.0, 0.0, -1.0, -1.0])
    assert reward(["?"], [written(50, thought=False)]) == [1.5]
    empty = "<think> </think>" + written(49, thought=False)
    assert reward(["?"], [empty]) == pytest.approx([0.5 + 1 - (1 / 50) ** 2], abs=2e-3)
    assert reward.range[0] >= -1.0
    assert reward.range[1] <= 2.0


def test_format_length_slope_vanishes_at_the_turning_point_and_repetition_is_charged():
    from guerdon import Scores
    from guerdon.shaping import target_length

    shaper = target_length(target=5000, width=5000, unit="words", curve="peak", wrong="same", apply="alone", weight=1)
    lengths = [4999, 5000, 5001]
    batch = Context(Rollouts(["?"] * 3, ["w " * n for n in lengths]))
    below, peak, above = shaper(Scores.of([1.0] * 3), batch).read(0.0)
    assert peak == 1.0
    assert abs(peak - below) < 1e-6
    assert abs(above - peak) < 1e-6
    loop = 0.05 * format.repetition(size=40)
    once, again = "a " * 20, " ".join(f"w{i}" for i in range(40))
    assert loop(["?"] * 2, [once, " ".join([again] * 10)]) == pytest.approx([0.0, -0.05 * (361 - 40) / 361])


@pytest.mark.parametrize(
    ("reply", "paid"),
    [(r"\boxed{\frac12}", 1), (r"\boxed{x^2+1}", 1), (r"\boxed{(1, 2]}", 1), (r"\boxed{)(}", 0), (r"\boxed{}", 0),
     (r"\boxed{I do not know}", 0), ("4", 0), (r"<think>\boxed{4}</think>", 0), (r"<think>\boxed{4}", 0)],
    ids=str,
)  # fmt: skip
def test_format_value_wants_an_answer_that_can_be_read(reply, paid):
    assert format.value().evaluate(reply)[0] == paid


# BLEU


def tokens(words):
    return words.split()


def bleu_by_hand(said, references):
    """The `bleu` of `evaluate` with smooth=True, from its definition, on texts that tokenise at spaces."""
    said, references = tokens(said), [tokens(r) for r in references]
    if not said:
        return 0.0
    logs = 0.0
    for n in range(1, 5):

        def grams(words, n=n):
            return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

        most = Counter()
        for reference in references:
            most |= grams(reference)
        logs += math.log((sum((grams(said) & most).values()) + 1) / (sum(grams(said).values()) + 1)) / 4
    short = min(map(len, references))
    return (1.0 if len(said) > short else math.exp(1 - short / len(said))) * math.exp(logs)


BLEU = text.bleu(smooth="add-one", brevity="shortest", within="reply")
sentences = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat"]), max_size=9).map(" ".join)


@settings(max_examples=100)
@given(sentences, st.lists(sentences.filter(bool), min_size=1, max_size=4))
def test_bleuberi_bleu_is_its_definition(said, references):
    assert BLEU.evaluate(said, references) == pytest.approx(bleu_by_hand(said, references))


def test_bleuberi_worked_numbers():
    assert BLEU.evaluate("the cat sat", "the cat sat on the mat") == pytest.approx(0.3679, abs=5e-5)
    assert BLEU.evaluate("the cat sat on the mat", "the cat sat on the mat") == 1.0
    assert BLEU.evaluate("", "the cat sat") == 0.0


def test_bleu_shortest_reference_sets_the_brevity_of_the_standard_forms_too():
    references = ["a b c d e f g h", "a b c"]
    said = "a b c d e f"
    closest, shortest = (
        text.bleu(brevity=b, within="reply").evaluate(said, references) for b in ("closest", "shortest")
    )
    assert closest == pytest.approx(math.exp(1 - 8 / 6))
    assert shortest == 1.0


def test_bleuberi_hacks_do_not_pay():
    reference = "mix the flour with two eggs and bake it for an hour"
    good = BLEU.evaluate("mix the flour with eggs and bake it for one hour", reference)
    for hack in (
        "the",
        "the the the the the the the the the the the",
        "hour an for it bake and eggs two with flour the mix",
        reference[:10],
    ):
        assert BLEU.evaluate(hack, reference) < good / 2
    assert BLEU.evaluate(" ".join([reference] * 10), reference) < good


def test_bleuberi_reference_like_replies_win():
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(50)])
    first, second, choice_ = [], [], []
    for _ in range(100):
        reference = rng.choice(words, 20)
        like, random = reference.copy(), rng.choice(words, 20)
        like[rng.choice(20, 6, replace=False)] = rng.choice(words, 6)
        pair = [BLEU.evaluate(" ".join(x), " ".join(reference)) for x in (like, random)]
        swap = int(rng.integers(2))
        first.append(pair[swap]), second.append(pair[1 - swap]), choice_.append(swap)
    found = agreement.pair_agreement(np.array(first), np.array(second), np.array(choice_))
    assert found.share > 0.95


def test_bleuberi_mixtures_and_hard_examples():
    """Harmonic mean with ROUGE-L, z-scores with a reward model's, and the prompts that are kept as hard."""
    prompts = ["p"] * 2 + ["q"] * 2 + ["r"] * 2
    answers = ["a b c d e"] * 2 + ["f g h i j"] * 2 + ["k l m n o"] * 2
    replies = ["a b c d e", "a b c d x", "z z z z z", "y", "k l m z z", "k l m n z"]
    batch = Rollouts(prompts, replies, {"answer": answers, "model": [0.1, 0.5, 0.2, 0.4, 0.9, 0.3]})
    bleu = np.array([bleu_by_hand(s, [r]) for s, r in zip(replies, answers, strict=True)])
    both = harmonic(BLEU, text.rouge(within="reply")).score(batch).read(0.0)
    assert both[0] == 1.0
    assert both[2] == 0.0
    mixture = 0.5 * (BLEU >> normalize(over="batch")) + 0.5 * (
        recorded.value(column="rm").named("rm") >> normalize(over="batch")
    )
    columns = {"answer": answers, "rm": batch.columns["model"]}
    z = lambda x: (x - x.mean()) / x.std()  # noqa: E731
    paid = mixture(prompts, replies, **columns)
    assert paid == pytest.approx(0.5 * z(bleu) + 0.5 * z(np.array(columns["rm"])))
    scores = BLEU.score(batch)
    hard = ranked(count=1).keep(scores, Context(batch))
    assert hard.tolist() == [False, True, False]
    assert ranked(count=1, place="highest").keep(scores, Context(batch)).tolist() == [True, False, False]
    assert ranked(count=1, place="middle").keep(scores, Context(batch)).tolist() == [False, False, True]


def test_bleuberi_uses_the_answer_tag_where_there_is_one():
    tagged = text.bleu(smooth="add-one", brevity="shortest", within="answer_tag").named("tagged")
    reward = gate(format.tags("answer", outside="accept"), then=tagged, otherwise=BLEU)
    replies = ["<think>hm</think><answer>the cat sat</answer>", "the cat sat", "<answer> </answer>"]
    assert reward(["?"] * 3, replies, answer=["the cat sat"] * 3)[:2] == [1.0, 1.0]


# Bidirectional max-average similarity


def one_hot(said):
    return np.eye(8)[[int(c) for c in said]]


def test_mixed_r1_bmas_worked_numbers():
    def bmas(reply, reference, **options):
        return relevance.bmas(encoder=one_hot, **options)(["?"], [reply], answer=[reference])[0]

    assert bmas("0123", "0123") == bmas("3210", "0123") == 1.0
    assert bmas("01", "0123") == pytest.approx(0.75)
    assert bmas("0123", "4567") == 0.0
    assert bmas("0145", "0123") == bmas("0123", "0145") == pytest.approx(0.5)
    assert bmas("01" * 5, "0123") == pytest.approx(0.75)  # repeating changes nothing
    assert bmas("01234567", "0123") == pytest.approx(0.75)  # padding loses precision
    assert bmas("01", "0123", mean="harmonic") == pytest.approx(2 * 0.5 / 1.5)
    assert bmas("", "0123") == -1.0


vectors = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(seed % 5 + 1, 4)))


@settings(max_examples=40)
@given(vectors, vectors)
def test_mixed_r1_bmas_is_its_definition_and_symmetric(first, second):
    tables = {"r": first, "g": second}
    unit = {key: [row / np.linalg.norm(row) for row in table] for key, table in tables.items()}
    p = np.mean([max(float(a @ b) for b in unit["g"]) for a in unit["r"]])
    r = np.mean([max(float(a @ b) for a in unit["r"]) for b in unit["g"]])
    part = relevance.bmas(encoder=tables.__getitem__)
    both = part(["?"] * 2, ["r", "g"], answer=["g", "r"])
    assert both == pytest.approx([(p + r) / 2] * 2)


def test_bmas_rarity_makes_common_words_count_less():
    part = relevance.bmas(encoder=relevance.rare(one_hot, ["01", "02"]))
    paid = part(["?"] * 3, ["0", "1", "07"], answer=["01"] * 3)
    common, rare, unseen = (math.log(3 / n) + 1 for n in (3, 2, 1))
    assert paid[0] == pytest.approx((1 + common / (common + rare)) / 2)
    assert paid[1] == pytest.approx((1 + rare / (common + rare)) / 2)
    assert paid[2] == pytest.approx((common / (common + unseen) + common / (common + rare)) / 2)
    broken = relevance.bmas(encoder=lambda said: (one_hot(said), [0.0] * len(said)))
    assert broken(["?"], ["0"], answer=["0"]) == [None]


def test_bmas_abstains_without_reference_or_with_a_broken_encoder():
    scores = relevance.bmas(encoder=one_hot).score(Rollouts(["?"] * 2, ["0", "0"], {"answer": [None, "0"]}))
    assert scores.read(-9.0).tolist() == [-9.0, 1.0]
    broken = relevance.bmas(encoder=lambda text: np.full((2, 2), np.nan))
    assert broken(["?"], ["0"], answer=["0"]) == [None]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A GPT-2 of random weights that knows five words: its folder, and its table of input embeddings."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "the", "cat", "sat", "dog"])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    config = transformers.GPT2Config(vocab_size=5, n_positions=8, n_embd=6, n_layer=1, n_head=1)
    torch.manual_seed(0)
    model = transformers.GPT2Model(config)
    model.save_pretrained(folder)
    return str(folder), model.get_input_embeddings().weight.detach().double().numpy()


def test_bmas_reads_the_embedding_table_of_a_real_model(tiny_model):
    folder, table = tiny_model
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    near = unit[[1, 2]] @ unit[[1, 4, 3]].T
    paid = relevance.bmas(encoder=folder)(["?"] * 2, ["the cat", "sat dog the"], answer=["the dog sat"] * 2)
    assert paid == pytest.approx([(near.max(1).mean() + near.max(0).mean()) / 2, 1.0])


def test_mixed_r1_routes_every_task_and_adds_the_form():
    task = route(
        "task",
        choice=choice.answer(),
        yes_no=text.exact(within="answer_tag", ignore="squad"),
        chart=text.relaxed(),
        box=grounding.iou(within="answer_tag"),
        open=relevance.bmas(encoder=one_hot, within="answer_tag"),
    )
    total = task + 0.5 * format.template(answer="tag")

    def tagged(said):
        return f"<think>hm</think><answer>{said}</answer>"

    replies = [tagged("B"), tagged("Yes."), tagged("104"), tagged("[0, 0, 2, 1]"), tagged("01"), "B"]
    rows = {
        "task": ["choice", "yes_no", "chart", "box", "open", "choice"],
        "answer": ["B", "yes", "100", "", "0123", "B"],
        "box": [None, None, None, [0, 0, 1, 1], None, None],
    }
    assert total(["?"] * 6, replies, **rows) == pytest.approx([1.5, 1.5, 1.5, 1.0, 1.25, 1.0])


def test_mixed_r1_keeps_prompts_that_are_neither_all_right_nor_all_wrong():
    batch = Rollouts(
        ["p"] * 2 + ["q"] * 2 + ["r"] * 2,
        ["<answer>B</answer>", "<answer>C</answer>"] + ["<answer>B</answer>"] * 4,
        {"answer": ["B"] * 4 + ["C"] * 2},
    )
    scores = choice.answer().score(batch)
    assert within(low=0.01, high=0.99).keep(scores, Context(batch)).tolist() == [True, False, False]


# Each reward by itself, then the sum


def test_mrn_every_reward_has_its_say_whatever_its_scale():
    def advantage(scale):
        first, second = (recorded.value(column=c, low=-9, high=9).named(c) for c in ("a", "b"))
        z = normalize(over="group", ddof=1)
        total = (first >> z) + (scale * second >> z)
        return total.score(Rollouts(["q"] * 4, [""] * 4, {"a": [1, 0, 1, 0], "b": [0, 1, 1, 0]})).read(0.0)

    assert advantage(1.0) == pytest.approx([0.0, 0.0, math.sqrt(3), -math.sqrt(3)])
    assert advantage(0.1) == pytest.approx(advantage(1.0))
    total = torch.tensor([1.0, 0.1, 1.1, 0.0])
    assert group_relative(total, torch.zeros(4, dtype=torch.long), eps=0.0).tolist() == pytest.approx(
        [0.775, -0.775, 0.948, -0.948], abs=2e-3
    )


def test_mrn_one_reward_is_grpo_and_a_constant_one_says_nothing():
    values = [0.2, 0.9, 0.4, 0.4]
    part = recorded.value(column="a").named("a") >> normalize(over="group", ddof=1)
    flat = recorded.value(column="b").named("b") >> normalize(over="group", ddof=1)
    batch = Rollouts(["q"] * 4, [""] * 4, {"a": values, "b": [0.3] * 4})
    grpo = group_relative(torch.tensor(values, dtype=torch.double), torch.zeros(4, dtype=torch.long), eps=1e-4)
    assert part.score(batch).read(9.0) == pytest.approx(grpo.numpy(), abs=1e-3)
    assert flat.score(batch).read(9.0).tolist() == [0.0] * 4
    assert (part + flat).score(batch).read(9.0) == pytest.approx(part.score(batch).read(9.0))


def mrn():
    z = normalize(over="group", ddof=1)
    right = route("kind", number=maths.answer(accept="marked"), label=text.contained())
    return (
        (format.template(answer="tag") >> z)
        + (right >> z)
        + (format.thinking(low=0, high=9) >> z)
        + 0.1 * (text.verdict(judge=lambda question: "8", reads="ten") >> z)
        + 0.1 * (relevance.reference(encoder=letters, within="answer_tag") >> z)
    )


def test_mrn_ensemble_joined_to_the_gradient():
    from guerdon.objectives import clip, policy_gradient

    label = "Airbus A320"
    said = [
        "<think>A plane.</think><answer>airbus a320</answer>",
        "<think>It has two engines.</think><answer>airbus a320</answer>",
        "<think>Hm.</think><answer>a</answer>",
        "<answer>boeing</answer>",
    ]
    scores = mrn().score(Rollouts(["What?"] * 4, said, {"answer": [label] * 4, "kind": ["label"] * 4}))
    paid = scores.read(float("nan"))
    assert paid.argmax() == 0
    assert paid[2] < paid[1]
    assert paid[3] == paid.min()
    logp = torch.zeros(4, 2, requires_grad=True)
    mask = torch.ones(4, 2, dtype=torch.bool)
    loss, _ = policy_gradient(
        logp, logp.detach(), torch.tensor(paid), mask, clip=clip.reinforce, aggregate="sequence-mean"
    )
    loss.backward()
    assert torch.allclose(logp.grad, -torch.tensor(paid, dtype=torch.float32)[:, None].expand(4, 2) / 8)
