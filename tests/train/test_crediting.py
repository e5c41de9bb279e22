"""Advantages of steps and tokens, against their equations written out row by row."""

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from stopping import metrics

from guerdon.algebra import Learned
from guerdon.core import Rollouts, Scores, Spans, Tokens
from guerdon.core.errors import MissingInput, RecipeError
from guerdon.credit import (
    fork_relative,
    group_relative,
    length_relative,
    progress,
    redistribute,
    returns,
    smooth,
    spread,
    tree_rewards,
    whiten,
    window_credit,
)
from guerdon.rewards import text
from guerdon.train import chains, checkpoint as checkpoints, presets
from guerdon.train.language import loop
from guerdon.train.language.policy import build
from guerdon.train.recipe import Recipe
from guerdon.train.run import Run
from guerdon.train.scoring import credited, informative


def by_characters(lengths, *, groups, ended=True):
    """Rollouts of one token per character, and an end-of-sequence token that has none."""
    width = max(lengths) + ended
    place = np.arange(width)
    there = place < np.asarray(lengths)[:, None] + ended
    character = place < np.asarray(lengths)[:, None]
    offsets = np.where(character[:, :, None], np.stack([place, place + 1], -1), -1)
    tokens = Tokens(np.where(there, place + 3, 0), there, there, offsets=offsets)
    return Rollouts(["p"] * len(lengths), ["x" * n for n in lengths], groups=np.asarray(groups), tokens=tokens)


def of_steps(rows, values, *, unit="character", without=()):
    """Scores of steps from one list of (begin, end) and one of numbers per row; some rows abstain in their last."""
    spans = Spans.of(rows, unit=unit)
    numbers = np.zeros(spans.mask.shape)
    valid = spans.mask.copy()
    for i, row in enumerate(values):
        numbers[i, : len(row)] = row
    for i in without:
        valid[i, len(rows[i]) - 1] = False
    return Scores(numbers, spans=spans, valid=valid, reasons=dict.fromkeys(without, "no judge"))


ROWS = [[(0, 2), (2, 5)], [(0, 3)], [(0, 1), (1, 2), (2, 4)], [(0, 4)], [(0, 2), (2, 3)]]
VALUES = [[0.9, -0.6], [0.4], [0.5, 0.5, -0.9], [0.2], [0.8, 0.3]]
BATCH = by_characters([5, 3, 4, 4, 3], groups=[0, 0, 0, 1, 1])


def pure_by_hand(rows, values, lengths, groups, left_out=()):
    """PURE: minimum-form rewards, less the others' reward per token, summed from the end; one list per row."""
    weighed, tokens = [], []
    for row, numbers, length in zip(rows, values, lengths, strict=True):
        weights = [math.exp(-r / 0.1) for r in numbers]
        weighed.append([w / sum(weights) * r for w, r in zip(weights, numbers, strict=True)])
        sizes = [end - begin for begin, end in row]
        sizes[-1] += 1  # the end of the sequence
        tokens.append(sizes)
        assert sum(sizes) == length + 1
    found = []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if groups[j] == groups[i] and j != i and j not in left_out]
        rate = sum(map(sum, (weighed[j] for j in others))) / sum(map(sum, (tokens[j] for j in others)))
        own = [r - rate * size for r, size in zip(weighed[i], tokens[i], strict=True)]
        found.append([sum(own[h:]) for h, size in enumerate(tokens[i]) for _ in range(size)])
    return found


@pytest.mark.parametrize("without", [(), (2,)])
def test_pure_is_its_equation_and_its_steps_reach_to_the_end_of_the_sequence(without):
    found = credited(presets.load("pure", kl={"coefficient": 0}), BATCH, of_steps(ROWS, VALUES, without=without))
    lengths, groups = [5, 3, 4, 4, 3], [0, 0, 0, 1, 1]
    expected = np.zeros((5, 6))
    for i, row in enumerate(pure_by_hand(ROWS, VALUES, lengths, groups, without)):
        expected[i, : len(row)] = 0.0 if i in without else row
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    assert (found[list(without)] == 0).all()


def test_tempo_gives_the_worked_example_of_its_tree():
    a, b, x, y, z = 4, 5, 6, 7, 8
    ids = np.array([[a, x, 2], [a, y, 2], [b, x, 2], [b, z, 2]])
    written = np.array([[True, True, False]] * 4)
    batch = Rollouts(["p"] * 4, ["c"] * 4, groups=np.zeros(4, int), tokens=Tokens(ids, written, written))
    found = credited(presets.tempo, batch, Scores.of([1.0, 0.0, 0.0, 0.0]))
    expected = [[2.0, 2.5, 0.0], [0.0, -1.5, 0.0], [-1.0, -0.5, 0.0], [-1.0, -0.5, 0.0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_tempo_leaves_abstained_rollouts_out_of_what_prefixes_are_worth():
    ids = np.array([[4, 6], [4, 7], [4, 6], [5, 6]])
    written = np.ones((4, 2), bool)
    batch = Rollouts(["p"] * 4, ["c"] * 4, groups=np.zeros(4, int), tokens=Tokens(ids, written, written))
    found = credited(presets.tempo, batch, Scores.of([1.0, 0.0, None, 0.0], reasons={2: "late"}))
    alone = credited(presets.tempo, batch.select([0, 1, 3]), Scores.of([1.0, 0.0, 0.0]))
    assert (found[2] == 0).all()
    np.testing.assert_allclose(found[[0, 1, 3]], alone, rtol=1e-12)


def test_dler_has_one_scale_for_all_tokens_of_the_batch():
    scores = Scores.of([1.0, 0.0, 0.0, 1.0, None], reasons={4: "late"})
    found = credited(presets.dler, BATCH, scores)
    own = [2 / 3, -1 / 3, -1 / 3, 0.0]
    lengths = [6, 4, 5, 5]
    tokens = [x for x, length in zip(own, lengths, strict=True) for _ in range(length)]
    mean, scale = statistics.fmean(tokens), math.sqrt(statistics.variance(tokens) + 1e-8)
    for i, (x, length) in enumerate(zip(own, lengths, strict=True)):
        np.testing.assert_allclose(found[i, :length], (x - mean) / scale, rtol=1e-6)
        assert (found[i, length:] == 0).all()
    assert (found[4] == 0).all()


def test_steps_without_a_part_for_them_give_their_own_advantage_to_each_of_their_tokens():
    scores = of_steps([[(1, 3), (3, 5)], [(0, 2)]], [[1.0, 0.5], [0.0]], unit="token")
    batch = by_characters([5, 3], groups=[0, 0])
    found = credited(presets.load("reinforce"), batch, scores)
    np.testing.assert_array_equal(found, [[0, 1, 1, 0.5, 0.5, 0], [0, 0, 0, 0, 0, 0]])


def test_a_step_of_tokens_keeps_the_end_that_its_scorer_gave_it():
    batch = by_characters([4, 4], groups=[0, 0])
    reinforce = presets.load("reinforce")
    rows, values = [[(0, 2)], [(0, 4)]], [[1.0], [1.0]]
    by_text = credited(reinforce, batch, of_steps(rows, values))
    by_token = credited(reinforce, batch, of_steps(rows, values, unit="token"))
    np.testing.assert_array_equal(by_text, [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(by_token, [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])


def test_a_token_without_a_character_belongs_to_the_step_before_it():
    offsets = np.array([[[-1, -1], [0, 1], [1, 2], [-1, -1], [2, 3], [-1, -1], [-1, -1]]])
    there = np.array([[True] * 6 + [False]])
    batch = Rollouts(["p"], ["abc"], tokens=Tokens(np.full((1, 7), 3), there, there, offsets=offsets))
    scores = of_steps([[(0, 2), (2, 2), (2, 3), (3, 3)]], [[1.0, 9.0, 2.0, 9.0]])
    found = credited(presets.load("reinforce"), batch, scores)
    np.testing.assert_array_equal(found, [[0, 1, 1, 1, 2, 2, 0]])


def test_a_step_that_no_score_was_asked_for_is_in_no_statistic():
    spans = Spans.of([[(0, 1), (1, 2)], [(0, 1), (1, 2)]])
    asked = np.array([[True, False], [True, True]])
    scores = Scores(np.array([[1.0, 9.0], [0.0, 2.0]]), spans=spans, mask=asked)
    method = presets.load("dr_grpo", credit={"pool": "all"})
    found = credited(method, by_characters([2, 2], groups=[0, 0], ended=False), scores)
    np.testing.assert_allclose(found, [[0.0, 0.0], [-1.0, 1.0]], atol=1e-12)


def test_process_supervision_of_grpo_is_two_parts():
    """DeepSeekMath, §4.1.3: step rewards normalised over all steps of the group; a token has the sum of those after."""
    method = presets.load("grpo", credit=[{"part": "credit.group_relative", "pool": "all", "eps": 0}, "credit.returns"])
    batch = by_characters([3, 2], groups=[0, 0], ended=False)
    found = credited(method, batch, of_steps([[(0, 1), (1, 3)], [(0, 2)]], [[1.0, 3.0], [2.0]]))
    np.testing.assert_allclose(found, [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]], atol=1e-12)


def test_progress_reads_potentials_from_an_empty_step_on():
    method = presets.load("grpo", credit=["credit.progress"])
    batch = by_characters([4, 3], groups=[0, 0], ended=False)
    rows = [[(0, 0), (0, 1), (1, 4)], [(0, 0), (0, 3)]]
    found = credited(method, batch, of_steps(rows, [[0.2, 0.7, 0.4], [0.5, 0.75]]))
    np.testing.assert_allclose(found, [[0.5, -0.3, -0.3, -0.3], [0.25, 0.25, 0.25, 0.0]], atol=1e-12)
    with pytest.raises(RecipeError, match="row 0 has no potential before its first step"):
        credited(method, batch, of_steps([[(0, 1), (1, 4)], [(0, 0)]], [[0.7, 0.4], [0.5]]))


def test_progress_begins_anew_behind_a_potential_that_was_not_asked_for():
    spans = Spans.of([[(0, 0), (0, 1), (1, 2), (2, 3)]])
    scores = Scores(np.array([[0.2, 9.0, 0.4, 0.7]]), spans=spans, mask=np.array([[True, False, True, True]]))
    method = presets.load("grpo", credit=["credit.progress"])
    found = credited(method, by_characters([3], groups=[0], ended=False), scores)
    np.testing.assert_allclose(found, [[0.0, 0.0, 0.3]], atol=1e-12)


@pytest.mark.parametrize(
    "credit", [progress, presets.pure.credit, (spread, returns)], ids=["progress", "pure", "spread"]
)
def test_a_batch_without_a_step_teaches_nothing(credit):
    found = credited(replace(presets.grpo, credit=credit), by_characters([0, 0], groups=[0, 0]), of_steps([[], []], []))
    np.testing.assert_array_equal(found, [[0.0], [0.0]])


def test_a_part_is_given_what_its_parameters_name():
    seen = {}

    def spy(values, groups, lengths, ids, *, mask, valid):
        seen.update(groups=groups, lengths=lengths, ids=ids, mask=mask, valid=valid)
        return values

    method = replace(presets.grpo, credit=(spy,))
    credited(method, BATCH, of_steps(ROWS, VALUES, without=[4]))
    assert seen["groups"].tolist() == [0, 0, 0, 1, 1]
    assert seen["lengths"].tolist() == [[2, 4, 0], [4, 0, 0], [1, 1, 3], [5, 0, 0], [0, 0, 0]]
    assert seen["ids"].shape == (5, 6)
    assert seen["valid"].tolist() == [True, True, True, True, False]
    assert seen["mask"].sum(1).tolist() == [2, 1, 3, 1, 0]
    credited(method, BATCH, Scores.of([1.0] * 5))
    assert seen["lengths"].tolist() == [6, 4, 5, 5, 4]
    assert seen["mask"].shape == (5,)
    credited(replace(presets.grpo, credit=(spread, spy)), BATCH, Scores.of([1.0] * 5))
    assert seen["lengths"].sum(1).tolist() == [6, 4, 5, 5, 4]
    assert seen["mask"].shape == (5, 6)


def test_an_abstention_is_no_advantage_also_where_a_part_knows_no_mask():
    found = credited(replace(presets.grpo, credit=lambda rewards: rewards + 5), BATCH, Scores.of([1.0, *[None] * 4]))
    assert found.tolist() == [6.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("credit", "per", "message"),
    [
        (
            redistribute,
            "rollout",
            "credit.redistribute reads 'importance', which the loop does not have; it has: baseline_rows, branches,",
        ),
        (window_credit, "step", "credit.window_credit is not a part of a method's credit"),
        (returns, "rollout", "credit.returns takes one value per step or token and is given one per rollout: put"),
        (length_relative, "rollout", "takes one value per step and is given one per rollout"),
        (presets.tempo.credit, "step", "branch_relative takes one value per rollout and is given one per step: put"),
        ((spread, progress), "rollout", "credit.progress takes one value per step and is given one per token"),
        ((spread, spread), "rollout", "credit.spread takes one value per rollout or step and is given one per token"),
    ],
    ids=["importance", "windows", "returns", "lengths", "tree", "progress", "spread twice"],
)
def test_a_credit_that_cannot_be_computed_is_said_before_any_work(credit, per, message):
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        chains.check(replace(presets.grpo, credit=credit), text.length() if per == "rollout" else Halves())


def test_a_credit_that_can_be_computed_passes():
    for credit, per in [
        (group_relative, "step"),
        (presets.pure.credit, "step"),
        (presets.dler.credit, "rollout"),
        (presets.tempo.credit, "rollout"),
        ((progress, returns, spread, whiten), "step"),
        (fork_relative, "step"),
        ((tree_rewards, fork_relative), "rollout"),
        (smooth, "step"),
    ]:
        chains.check(replace(presets.grpo, credit=credit), text.length() if per == "rollout" else Halves())


def test_a_recipe_is_checked_against_the_level_of_its_reward(tiny):
    with pytest.raises(RecipeError, match=r"credit\.min_form takes one value per step and is given one per rollout"):
        tiny(method="pure")
    with pytest.raises(RecipeError, match=r"credit\[1\]: credit\.returns has no option 'gama': did you mean 'gamma'"):
        tiny(method={"credit": ["credit.min_form", {"part": "credit.returns", "gama": 1}]})


def test_steps_without_a_place_are_said_so():
    batch = by_characters([2], groups=[0])
    with pytest.raises(RecipeError, match="no spans"):
        credited(presets.grpo, batch, Scores(np.zeros((1, 2))))
    bare = replace(batch, tokens=replace(batch.tokens, offsets=None))
    with pytest.raises(MissingInput, match="offsets"):
        credited(presets.grpo, bare, of_steps([[(0, 2)]], [[1.0]]))


def test_a_group_teaches_if_any_token_of_it_has_an_advantage():
    advantages = np.zeros((3, 4))
    advantages[2, 3] = -0.1
    batch = Rollouts(["p"] * 3, ["c"] * 3, groups=np.array([4, 1, 4]))
    np.testing.assert_array_equal(informative(batch, advantages), [True, False, True])


class Halves(Learned):
    """Scores a completion in steps of two characters: the share of odd digits; the digit 9 is beyond it."""

    name, range, floor, level = "halves", (0.0, 1.0), 0.0, "step"

    def __init__(self, dies_at=None):
        self.dies_at = dies_at

    def measure(self, rollouts, context):
        rows = [[(at, min(at + 2, len(text))) for at in range(0, len(text), 2)] for text in rollouts.completions]
        values = [
            [sum(c in "1357" for c in text[b:e]) / (e - b) for b, e in row]
            for text, row in zip(rollouts.completions, rows, strict=True)
        ]
        return of_steps(rows, values, without=[i for i, text in enumerate(rollouts.completions) if "9" in text])

    def update(self, rollouts, scores, context):
        if context.step == self.dies_at:
            raise KeyboardInterrupt
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.fixture
def halves(monkeypatch):
    """`halves(leaf)`: recipes' reward is this leaf."""

    def use(leaf):
        monkeypatch.setattr(Recipe, "load_reward", lambda self, allow_import=False: leaf)

    return use


PURE = {"preset": "pure", "kl": {"coefficient": 0.0}, "sampling": {"group": 4}}
WHOLE = {"max_abstain": 1.0, "keep": {"checkpoint_every": 1, "checkpoints": 9, "rollouts": 64}}


def pure_of(data):
    """PURE's advantages of what the loop learns from, scored anew from its tokens: a dictionary of (row, token)."""
    groups = np.repeat(np.arange(4), 4)
    steps, sizes, where_ = [], [], []
    for i in range(16):
        text, at = "", []
        for t in torch.nonzero(data.attended[i]).flatten().tolist():
            number = int(data.ids[i, t])
            if number >= 3:  # 0 to 2 are special, and no character of the text
                text += "0123456789+-=;# "[number - 3]
            at.append((t, (len(text) - 1) // 2))  # −1 before the first step: what follows is all of them
        pieces = [text[k : k + 2] for k in range(0, len(text), 2)]
        scored = bool(pieces) and "9" not in text
        assert bool(data.mask[i].any()) == scored
        steps.append([sum(c in "1357" for c in piece) / len(piece) for piece in pieces] if scored else [])
        sizes.append([sum(k == step for _, k in at) for step in range(len(pieces))])
        where_.append(at)
    found = {}
    for i, own in enumerate(steps):
        others = [j for j in range(16) if groups[j] == groups[i] and j != i and steps[j]]
        if not own or not others:
            continue
        weighed = {
            j: [r * math.exp(-r / 0.1) / sum(math.exp(-q / 0.1) for q in steps[j]) for r in steps[j]]
            for j in [i, *others]
        }
        rate = sum(sum(weighed[j]) for j in others) / sum(sum(sizes[j]) for j in others)
        for t, k in where_[i]:
            found[i, t] = sum(weighed[i][max(k, 0) :]) - rate * sum(sizes[i][max(k, 0) :])
    return found


def test_a_run_by_steps_follows_the_gradient_of_its_equation(tiny, tmp_path, halves, learned):
    halves(Halves())
    optimizer = {"eps": 1.0, "learning_rate": 0.5, "max_grad_norm": 0.0}
    recipe = tiny(method=PURE, steps=1, optimizer=optimizer, batch={"micro": 3}, **WHOLE)
    loop.train(recipe, tmp_path / "run")
    [data] = learned
    expected = pure_of(data)
    assert sum(value != 0 for value in expected.values()) > 20
    table = torch.zeros(data.ids.shape)
    for (i, t), value in expected.items():
        table[i, t] = value
    assert data.advantages.dtype == torch.float32
    torch.testing.assert_close(data.advantages, table, rtol=1e-5, atol=1e-6)

    policy, _ = build(recipe.policy, seed=recipe.seed)
    loss, count = 0.0, int(data.mask.sum())
    for i in {row for row, _ in expected}:
        prompt, ids = data.prompt_ids[i][data.prompt_mask[i]], data.ids[i][data.attended[i]]
        logits = policy(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        loss = loss - (table[i, : len(ids)] * logp).sum() / count
    names, before = zip(*policy.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, before)
    after = checkpoints.latest(tmp_path / "run" / "checkpoints")[0].weights
    for name, old, gradient in zip(names, before, gradients, strict=True):
        # The first step of Adam: its moments are the gradient and its square.
        moved = old - 0.5 * gradient / (gradient.abs() + 1.0)
        torch.testing.assert_close(after[name], moved.detach(), rtol=1e-4, atol=1e-6)


def test_rollouts_are_kept_with_an_advantage_for_each_of_their_tokens(tiny, tmp_path, halves):
    halves(Halves())
    loop.train(tiny(method=PURE, steps=1, **WHOLE), tmp_path / "run")
    [(_, sample)] = Run(tmp_path / "run").rollouts()
    assert [len(row) for row in sample["advantage"]] == sample["length"]
    assert any(any(row) for row in sample["advantage"])
    assert any(not valid and not any(row) for valid, row in zip(sample["valid"], sample["advantage"], strict=True))
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_by_tokens_with_a_filter_goes_on_bit_for_bit(tiny, tmp_path, halves):
    chosen = {"part": "data.adaptive", "statistic": "mean", "share": 1.0, "decay": 0.5, "skip": 0, "wait": 1}
    sampling = {"group": 4, "dynamic": True, "rounds": 2, "filter": chosen}
    for name, dies_at in (("whole", None), ("stopped", 5), ("stopped", None)):
        halves(Halves(dies_at))
        recipe = tiny(steps=6, method=PURE | {"sampling": sampling}, max_abstain=1.0)
        if dies_at is None:
            loop.train(recipe, tmp_path / name)
        else:
            with pytest.raises(KeyboardInterrupt):
                loop.train(recipe, tmp_path / name)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    ends = [checkpoints.latest(tmp_path / name / "checkpoints")[0] for name in ("stopped", "whole")]
    assert all(torch.equal(value, ends[1].weights[name]) for name, value in ends[0].weights.items())
    assert ends[0].state["filter"] == ends[1].state["filter"] == {"seen": 6.0, "mean": ends[0].state["filter"]["mean"]}
    assert any(0 < record["kept"] < 1 for record in metrics(tmp_path / "whole"))


def test_tempo_learns_from_the_tokens_where_rollouts_part(tiny, tmp_path, learned):
    method = {"preset": "tempo", "sampling": {"group": 4}}
    loop.train(tiny(method=method, steps=1, keep={"rollouts": 64}), tmp_path / "run")
    [data] = learned
    [(_, sample)] = Run(tmp_path / "run").rollouts()
    rewards = sample["score"]
    rows = [tuple(data.ids[i][data.attended[i]].tolist()) for i in range(16)]
    for first in range(0, 16, 4):
        group = range(first, first + 4)
        mean, sigma = statistics.fmean(rewards[i] for i in group), statistics.stdev(rewards[i] for i in group)
        for i in group:
            before = mean
            for t in range(len(rows[i])):
                here = statistics.fmean(rewards[j] for j in group if rows[j][: t + 1] == rows[i][: t + 1])
                expected = (rewards[i] - mean + here - before) / (sigma + 1e-6) if sigma else 0.0
                assert float(data.advantages[i, t]) == pytest.approx(expected, abs=1e-5)
                before = here


@pytest.mark.parametrize(("low", "rounds"), [(0.0, 1), (2.0, 3)])
def test_a_filter_chooses_what_dynamic_sampling_keeps(tiny, tmp_path, low, rounds):
    chosen = {"part": "data.within", "low": low}
    changes = {"preset": "grpo", "sampling": {"group": 4, "dynamic": True, "rounds": 3, "filter": chosen}}
    loop.train(tiny(method=changes, steps=1), tmp_path / "run")
    [record] = metrics(tmp_path / "run")
    assert record["rounds"] == rounds
    assert record["kept"] == (1.0 if low == 0.0 else 0.0)


def test_what_a_filter_keeps_comes_first(tiny, tmp_path):
    loop.train(tiny(steps=1, keep={"rollouts": 64}), tmp_path / "plain")
    [(_, plain)] = Run(tmp_path / "plain").rollouts()
    means = np.asarray(plain["score"]).reshape(4, 4).mean(1)
    bar = float(np.sort(means)[1:3].mean())
    sampling = {"group": 4, "dynamic": True, "rounds": 1, "filter": {"part": "data.within", "low": bar}}
    loop.train(tiny(steps=1, method={"sampling": sampling}, keep={"rollouts": 64}), tmp_path / "filtered")
    [(_, sample)] = Run(tmp_path / "filtered").rollouts()
    order = [*np.flatnonzero(means >= bar), *np.flatnonzero(means < bar)]
    np.testing.assert_array_equal(sample["score"], np.asarray(plain["score"]).reshape(4, 4)[order].ravel())
    assert metrics(tmp_path / "filtered")[0]["kept"] == (means >= bar).mean() < 1.0


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"filter": {"part": "data.consistent", "count": 2, "process": "steps"}}, "the reward has no part 'steps'"),
        ({"pace": 8}, "pace is the most prompts of a round of dynamic sampling"),
        ({"dynamic": True, "filter": "data.varies"}, "method.sampling.filter: there is no part 'data.varies'"),
        ({"dynamic": True, "filter": {"part": "data.within", "hi": 1}}, r"method.sampling.filter.hi"),
    ],
    ids=["part", "pace", "unknown", "option"],
)
def test_a_filter_that_cannot_be_is_said_before_any_work(tiny, sampling, message):
    with pytest.raises(RecipeError, match=message):
        tiny(method={"sampling": sampling})


def test_the_kl_of_a_rollout_is_not_taken_from_the_rewards_of_steps(tiny, halves):
    halves(Halves())
    with pytest.raises(RecipeError, match=r"method\.kl\.place"):
        tiny(method=PURE | {"kl": {"coefficient": 0.1, "place": "reward"}})
