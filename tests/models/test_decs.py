"""DECS from text to update: pieces, their judge, token rewards, the batch that κ composes, and credit by position."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Engine, Rollouts, Scores, reward
from guerdon.algebra import gate
from guerdon.core import Tokens
from guerdon.core.errors import MissingInput, SpecError
from guerdon.credit import group_relative, spread
from guerdon.data import Shuffled, fill, mixed
from guerdon.models import LinearHead, answered, chunk_states, detector, fit, implicit_loss
from guerdon.objectives import policy_gradient
from guerdon.shaping import needed
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import ModelShape, PolicyConfig, build

LIMIT = 200


def stated(questions):
    return [float(f"= {q['answer']}\n" in q["chunk"]) for q in questions]


@reward(range=(0, 1), lane="batch")
def right(completion, answer):
    return [float(text.endswith(f"</think>{a}")) for text, a in zip(completion, answer, strict=True)]


def pieces(text, **options):
    batch = Rollouts(["Q"], [text], {"answer": ["7"]})
    scores = answered(judge=stated, **options).score(batch)
    return [text[a:b] for a, b in scores.spans.rows()[0]], scores.read(math.nan)[0].tolist()


# The pieces


def test_decs_cuts_before_words_that_turn_and_ends_with_the_answer():
    text = "Try 3.\n3 + 3\nWait, 3 + 4\n= 7\nHmm, again\n= 7\n</think>7"
    assert pieces(text) == (
        ["Try 3.\n3 + 3\n", "Wait, 3 + 4\n= 7\n", "Hmm, again\n= 7\n", "</think>7"],
        [0.0, 1.0, 1.0, 1.0],
    )


def test_decs_a_piece_of_one_line_is_one_with_the_next():
    assert pieces("Hmm.\nWait, no.\nBut 3 + 4\n= 7\n</think>7")[0] == [
        "Hmm.\nWait, no.\n",
        "But 3 + 4\n= 7\n",
        "</think>7",
    ]
    assert pieces("Hmm.\n\n \nWait, no.\nBut\n</think>7")[0] == ["Hmm.\n\n \nWait, no.\n", "But\n", "</think>7"]


@pytest.mark.parametrize("text", ["a\nb\nWaiting\nButter\n", ""])
def test_decs_a_thought_that_does_not_end_has_an_empty_answer_and_words_are_whole(text):
    found, scores = pieces(text)
    assert found == ([text, ""] if text else [""])
    assert scores == ([0.0, 1.0] if text else [1.0])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["Wait", "But ", "\n", "a", " ", "</think>", "= 7\n"]), max_size=12).map("".join))
def test_decs_pieces_and_answer_are_the_text_without_a_gap(text):
    found, scores = pieces(text)
    assert "".join(found) == text
    assert found[-1] == text[len(text.partition("</think>")[0]) :]
    assert scores[-1] == 1.0
    assert all(len([line for line in piece.splitlines() if line.strip()]) >= 2 for piece in found[:-2])


def test_decs_a_judge_that_cannot_say_abstains_at_the_piece_and_one_that_is_short_everywhere():
    batch = Rollouts(["Q"], ["a\nb\nWait\n= 7\n</think>7"], {"answer": ["7"]})
    scores = answered(judge=lambda questions: [None, 1.0]).score(batch)
    assert scores.valid.tolist() == [[False, True, True]]
    assert "piece 0: the judge gave no number" in scores.reasons[0]
    assert "gave 0 replies to 2 questions" in answered(judge=lambda questions: []).score(batch).reasons[0]
    odd = answered(judge=lambda questions: [math.nan, 2.0]).score(batch)
    assert odd.valid.tolist() == [[False, False, True]]


def test_decs_what_is_missing_or_cannot_be_cut_is_said_before_any_work():
    with pytest.raises(MissingInput, match="solution"):
        answered(judge=stated, reference="solution").score(Rollouts(["Q"], ["a"], {"answer": ["7"]}))
    with pytest.raises((SpecError, ValueError), match="gap"):
        answered(judge=stated, cut={"gap": -1})


# What is redundant


def shaped(answered_, **options):
    batch = Context(Rollouts(["p"] * len(answered_), ["w " * 60] * len(answered_)))
    values = np.array([[math.nan if x is None else x for x in row] for row in answered_])
    shaper = needed(limit=100, unit="words", answer=True, **options)
    valid = np.isfinite(values)
    return shaper, batch, Scores(values, valid=valid, reasons={int(i): "?" for i in np.flatnonzero(~valid.all(1))})


def test_decs_worked_example_with_an_answer():
    """L = 60 of 100: up to the first sufficient piece 1.1, then 1.04 to the end of the thought; the answer 1.1."""
    shaper, batch, scores = shaped([[0, 1, 0, 1, 1], [0, 0, 0, 0, 1]])
    assert shaper(scores, batch).read(0.0).tolist() == [pytest.approx([1.1, 1.1, 1.04, 1.04, 1.1]), [1.1] * 5]


def test_decs_the_answer_is_known_whatever_the_thought_was_and_no_part_of_the_share():
    shaper, batch, scores = shaped([[0, None, 0, 1]])
    got = shaper(scores, batch)
    assert got.valid.tolist() == [[True, False, False, True]]
    assert got.read(0.0)[0, 3] == 1.1
    shaper, batch, scores = shaped([[0, 1, 0, 0, 1]])
    shaper.observe(scores, batch)
    assert shaper.state_dict() == pytest.approx({"kappa": 0.0, "share": 0.5})  # 2 of the thought's 4
    only_answer, batch, scores = shaped([[1]])
    only_answer.observe(scores, batch)
    assert only_answer.state_dict() == {}


# Credit by position


def test_decs_a_rollout_that_has_ended_is_held_at_its_last_value():
    """By the definition, in a loop: at each position the rows are compared with what those before it ended with."""
    rewards = torch.tensor([[1.1, 1.1, 1.04, 1.04], [1.1, 1.1, 9.0, 9.0], [0.0, 0.0, 0.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    found = group_relative(rewards, torch.zeros(3), mask=mask, pool="position", ended="held", eps=1e-6, ddof=0)
    held = [[1.1, 1.1, 1.04, 1.04], [1.1, 1.1, 1.1, 1.1], [0.0, 0.0, 0.0, 0.0]]
    for t in range(4):
        column = np.array([row[t] for row in held])
        expected = (column - column.mean()) / (column.std() + 1e-6) * mask[:, t].numpy()
        assert found[:, t].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    alone = group_relative(rewards, torch.zeros(3), mask=mask, pool="position", eps=1e-6)
    assert alone[0, 3] == 0, "without it, the longest rollout is compared with nobody"
    assert found[0, 3] != 0
    with pytest.raises(ValueError, match="needs pool='position'"):
        group_relative(rewards, torch.zeros(3), mask=mask, ended="held")
    with pytest.raises(ValueError, match="'absent' or 'held'"):
        group_relative(rewards, torch.zeros(3), mask=mask, pool="position", ended="gone")


# All of it


class Thinker:
    """Thinks in pieces, each of which finds the answer with chance p, and goes on with a chance of its own.

    Two logits are the policy: of going on before the answer is found, and after. The tokens are characters; the one
    that begins 'Wait' or '</think>' is the choice.
    """

    def __init__(self):
        self.logits = torch.tensor([0.5, 1.0], requires_grad=True)
        self.rng = np.random.default_rng(0)

    def sample(self, rows, group=8):
        records = [self.write(row) for row in rows for _ in range(group)]
        width = max(len(r["completion"]) for r in records)
        place = np.arange(width)
        there = np.array([place < len(r["completion"]) for r in records])
        offsets = np.where(there[..., None], np.stack([place, place + 1], -1), -1)
        tokens = Tokens(np.zeros(there.shape, int), there, there, offsets=offsets)
        columns = {name: [r[name] for r in records] for name in ("answer", "choices")}
        groups = np.repeat(np.arange(len(rows)), group)
        return Rollouts(
            [r["prompt"] for r in records], [r["completion"] for r in records], columns, groups=groups, tokens=tokens
        )

    def write(self, row):
        go_on = torch.sigmoid(self.logits).tolist()
        text, choices, found = "Let me see\n", [], False
        while True:
            hit = self.rng.random() < row["chance"]
            text += f"= {row['answer']}\n" if hit or found else "= ?\n"
            found = found or hit
            on = self.rng.random() < go_on[found] and len(choices) < 8
            choices.append((len(text), int(found), on))
            if not on:
                break
            text += "Wait, again\n"
        return {**row, "completion": text + f"</think>{row['answer'] if found else '?'}", "choices": choices}

    def logp(self, rollouts):
        both = torch.nn.functional.logsigmoid(torch.stack([-self.logits, self.logits]))
        steps = [(i, *c) for i, row in enumerate(rollouts.column("choices")) for c in row]
        rows, at, state, on = torch.tensor(steps).T
        n, t = rollouts.tokens.written.shape
        return torch.zeros(n, t).index_put((rows, at), both[on, state])


def test_decs_unlearns_what_is_redundant_and_keeps_what_is_needed():
    """Text → pieces → judge → token rewards → batch by κ → credit by position → update, for 25 updates.

    Going on after the answer is found falls from 73 %; going on before it, without which half of the answers are
    wrong, does not. Prompts that are always solved come in only as κ rises.
    """
    policy = Thinker()
    easy = [{"prompt": f"easy {i}", "answer": "7", "chance": 1.0} for i in range(18)]
    hard = [{"prompt": f"hard {i}", "answer": "3", "chance": 0.35} for i in range(18)]
    curriculum = Shuffled(easy + hard, filter=mixed(of=right().name, judged="models.answered", answer=True))
    whole = gate(right(), then=answered(judge=stated) >> needed(limit=LIMIT, answer=True))
    optimizer = torch.optim.Adam([policy.logits], lr=0.15)
    solved = []
    before = torch.sigmoid(policy.logits).tolist()
    with Engine() as engine:

        def sample(rows):
            rollouts = policy.sample(rows)
            return rollouts, whole.score(rollouts, engine=engine)

        for step in range(25):
            batch = fill(curriculum, 36, sample, Context(step=step, training=True), rounds=1, missing="leave")
            solved.append(sum("easy" in prompt for prompt in batch.rollouts.prompts))
            if not len(batch.rollouts):
                continue
            written = torch.as_tensor(batch.rollouts.tokens.written)
            values = torch.as_tensor(batch.scores.read(0.0))
            values = spread(values, written, batch.scores.spans.to_tokens(batch.rollouts.tokens.offsets), place="all")
            advantages = group_relative(
                values, torch.as_tensor(batch.rollouts.groups), mask=written, pool="position", ended="held", eps=1e-6
            )
            logp = policy.logp(batch.rollouts)
            loss, _ = policy_gradient(logp, logp.detach(), advantages, written)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = torch.sigmoid(policy.logits).tolist()
    assert after[1] < 0.5 * before[1]
    assert after[0] > before[0]
    kappa = curriculum.filter.curriculum.state_dict()["kappa"]
    assert solved[0] == 0, "κ is 0 to begin with"
    assert kappa > 0
    assert 0 < sum(solved[1:]) < 8 * 18


def test_decs_detector_is_trained_on_labelled_pieces_and_judges_as_they_were_labelled():
    shape = ModelShape(layers=1, hidden=32, heads=2, mlp=64, context=96, alphabet="0123456789 =?\nWait,gnLem")
    model = LanguageModel(*build(PolicyConfig(shape), seed=0))
    rng = np.random.default_rng(1)

    def questions(n):
        said = rng.integers(0, 10, (n, 2))
        chunks = [
            f"Wait, {'again ' * int(rng.integers(0, 3))}\n= {7 if i % 2 else a}\n" for i, (a, _) in enumerate(said)
        ]
        return [{"prompt": "Q", "before": "", "chunk": chunk, "answer": "7"} for chunk in chunks]

    train = questions(160)
    states, labels = chunk_states(model, train), torch.tensor(stated(train))
    head = LinearHead(states.shape[1])
    losses = fit(
        head.parameters(),
        lambda rows: implicit_loss(head(states[rows]), labels[rows])[0],
        len(train),
        learning_rate=0.05,
        epochs=60,
    )
    assert losses[-1] < 0.2 < 0.6 < losses[0]
    held_out = questions(60)
    judged = np.array(detector(model, head)(held_out)) > 0.5
    assert (judged == np.array(stated(held_out))).mean() >= 0.95
    batch = Rollouts(
        ["Q"], ["Let me\n= 3\nWait, again\n= 7\nWait,\n= 7\n</think>7".replace("</think>", "")], {"answer": ["7"]}
    )
    scores = answered(judge=detector(model, head)).score(batch)
    assert (scores.read(0.0) > 0.5).tolist() == [[False, True, True, True]]
