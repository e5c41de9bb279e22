"""Trees of continuations: their shape, where their steps are, and what is taken."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core import Rollouts, Scores, Spans, Tokens
from guerdon.credit import branches
from guerdon.data import Candidates, cut_prefixes, drawn, effective_value, forked, grow, highest
from guerdon.models import allot


def prompts(n, text=""):
    return Rollouts([f"q{i}" for i in range(n)], [text] * n)


def characters(texts, logp=True):
    """Texts with a token for each character, its code point as id; padded, and with a log-probability if wanted."""
    width = max(map(len, texts), default=0) + 1
    ids, there = np.zeros((len(texts), width), np.int64), np.zeros((len(texts), width), bool)
    offsets = np.full((len(texts), width, 2), -1)
    for row, text in enumerate(texts):
        ids[row, : len(text)], there[row, : len(text)] = [ord(c) for c in text], True
        offsets[row, : len(text)] = [(i, i + 1) for i in range(len(text))]
    tokens = Tokens(ids, there, there, -0.01 * ids if logp else None, offsets=offsets)
    return Rollouts([""] * len(texts), texts, tokens=tokens)


def test_a_path_ends_where_it_says_and_is_cut_where_it_may_not_go_on():
    words = iter(["a", "b.", "c", "d."])
    forest = grow(prompts(1), lambda rows: [next(words) for _ in rows.prompts], steps=2, width=(2, 1),
                  ended=lambda rows: [text.endswith(".") for text in rows.completions])  # fmt: skip
    paths = forest.paths()
    assert paths.rollouts.completions == ["b.", "ac"]
    assert paths.rollouts.finished.tolist() == [True, False]
    assert paths.nodes.tolist() == [[1, -1], [0, 2]]
    assert forest.parents.tolist() == [-1, -1, 0]
    assert forest.leaves.tolist() == [False, True, True]


def test_only_what_is_taken_is_answered_and_answers_are_in_no_step():
    asked = []

    def respond(rows):
        asked.extend(rows.completions)
        return [f"<{text}>" for text in rows.column("step")]

    letters = iter("abcdefgh")
    forest = grow(
        prompts(2), lambda rows: [next(letters) for _ in rows.prompts], steps=2, width=2, respond=respond,
        choose=lambda c: np.array([text in "bcfh" for text in c.rollouts.column("step")]),
    )  # fmt: skip
    assert asked == ["b", "c"]
    paths = forest.paths()
    assert paths.rollouts.completions == ["b<b>f", "c<c>h"]
    assert paths.steps.rows() == [[(0, 1), (4, 5)], [(0, 1), (4, 5)]]
    assert forest.rollouts.completions == ["a", "b", "c", "d", "b<b>e", "b<b>f", "c<c>g", "c<c>h"]
    assert forest.rollouts.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert forest.steps.rows() == [[(0, 1)]] * 4 + [[(4, 5)]] * 4
    assert forest.replies == ["", "<b>", "<c>", "", "", "", "", ""]


def test_an_answer_is_forced_where_there_is_none():
    def force(rows):
        return [f"!{len(text)}" for text in rows.completions]

    letters = iter("ax.cd")
    forest = grow(prompts(2), lambda rows: [next(letters) for _ in rows.prompts], steps=2, force=force,
                  ended=lambda rows: [text.endswith(".") for text in rows.completions])  # fmt: skip
    assert forest.paths().rollouts.completions == ["a.", "xc!2"]
    assert forest.paths().rollouts.finished.all()
    assert forest.rollouts.groups.tolist() == [0, 1, 2, 3, 4]


def test_a_path_without_a_chosen_candidate_is_given_up():
    choose = lambda c: np.array([prompt == "q1" for prompt in c.rollouts.prompts])  # noqa: E731
    forest = grow(prompts(2), lambda rows: ["a"] * len(rows), steps=3, width=2, choose=choose)
    assert forest.paths().rollouts.prompts == ["q1"] * 8
    assert forest.paths().rollouts.groups.tolist() == [1] * 8
    assert forest.roots.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, *[1] * 8]
    none = grow(prompts(1), lambda rows: ["a"], steps=3, choose=lambda c: [False]).paths()
    assert len(none.rollouts) == 0
    assert none.nodes.shape == (0, 0)


def test_rebase_gives_each_path_its_share_of_a_budget():
    """Scores 0, 1, 2 at T = 1 and a budget of 10: softmax .09, .245, .665 → 1, 2, 7. A share of none gives it up."""
    asked = []

    def width(scores, roots):
        asked.append(scores.tolist())
        counts = np.zeros(len(scores), int)
        for root in np.unique(roots):
            counts[roots == root] = allot(torch.tensor(scores[roots == root]), 10, temperature=1.0).numpy()
        return counts

    value = lambda rows: Scores.of([min(float(text[-1]), 2.0) for text in rows.completions])  # noqa: E731
    forest = grow(
        prompts(2), lambda rows: [str(i % 10) for i in range(len(rows))], steps=2, width=width, judge=value,
        choose=lambda c: np.array([len(t) > 1 or t in "012" for t in c.rollouts.completions]),
    )  # fmt: skip
    assert asked == [[0.0, 0.0], [0.0, 1.0, 2.0] * 2]
    assert np.bincount(forest.parents[20:])[[0, 1, 2, 10, 11, 12]].tolist() == [1, 2, 7, 1, 2, 7]
    none = grow(prompts(2), lambda rows: ["a"] * len(rows), steps=2, width=lambda scores, roots: roots * 2)
    assert none.paths().rollouts.prompts == ["q1"] * 4
    lone = lambda scores, roots: np.full(len(roots), int(not scores.any()))  # noqa: E731
    tokens = grow(prompts(1), lambda rows: characters(["a"]), steps=3, width=lone, judge=lambda r: Scores.of([1.0]))
    assert len(tokens) == 1
    assert len(tokens.paths().rollouts) == 0


def test_no_starts_grow_nothing():
    forest = grow(prompts(0), lambda rows: [], steps=2, width=3)
    assert len(forest) == 0
    assert len(forest.paths().rollouts) == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans())
def test_paths_are_what_was_written_and_the_tree_says_the_same_as_the_nodes(seed, steps, width, tokens, begun):
    rng = np.random.default_rng(seed)

    def say(letters):
        texts = ["".join(rng.choice(list(letters), rng.integers(1, 4))) for _ in range(64)]
        return lambda rows: characters(texts[: len(rows)]) if tokens else texts[: len(rows)]

    observe = say("XY")
    starts = Rollouts(["q", "q", "r"], ["ab", "b", "bb"] if begun else [""] * 3)
    if tokens and begun:
        starts = starts.with_(tokens=characters(starts.completions).tokens)
    forest = grow(
        starts, lambda rows: say("abc.")(rows), steps=steps, width=width,
        ended=lambda rows: ["." in text for text in rows.column("step")],
        choose=partial(forked, paths=4, rng=rng), respond=lambda rows: observe(rows),
    )  # fmt: skip
    paths = forest.paths()
    kept = np.bincount(forest.roots[forest.leaves], minlength=3)
    assert (kept <= 4).all()
    if not any("." in text for text in forest.rollouts.column("step")):
        assert (kept == min(4, width**steps)).all()
    texts = forest.rollouts.column("step")
    for row, text in enumerate(paths.rollouts.completions):
        trail = [x for x in paths.nodes[row].tolist() if x >= 0]
        root = forest.roots[trail[0]]
        pieces = [texts[x] + forest.replies[x] for x in trail]
        assert text == starts.completions[root] + "".join(pieces)
        assert [forest.parents[x] for x in trail] == [-1, *trail[:-1]]
        assert [text[a:b] for a, b in paths.steps.rows()[row]] == [texts[x] for x in trail]
    assert len({tuple(row) for row in paths.nodes.tolist()}) == len(paths.nodes)
    for row, text in enumerate(forest.rollouts.completions):
        assert [text[a:b] for a, b in forest.steps.rows()[row]] == [texts[row]]
    assert (paths.rollouts.tokens is not None) == tokens
    if not tokens:
        return
    found = branches(paths.rollouts.tree, paths.steps).numpy()
    same = lambda x: x.reshape(-1, 1) == x.reshape(1, -1)  # noqa: E731
    assert (same(found) == same(paths.nodes)).all()
    known = paths.rollouts.tokens
    for row, text in enumerate(paths.rollouts.completions):
        there = known.attended[row]
        assert "".join(map(chr, known.ids[row][there])) == text
        assert known.offsets[row][there].tolist() == [[i, i + 1] for i in range(len(text))]
        written = "".join(map(chr, known.ids[row][known.written[row]]))
        assert written == "".join(c for c in text if c not in "XY")
        assert np.allclose(known.logp[row], -0.01 * known.ids[row] * known.written[row])


def test_what_the_environment_says_needs_no_log_probabilities():
    letters = iter("ab")
    forest = grow(
        prompts(1),
        lambda rows: characters([next(letters)]),
        steps=2,
        respond=lambda rows: characters(["XY"], logp=False),
    )
    tokens = forest.paths().rollouts.tokens
    assert tokens.logp.tolist() == [[-0.97, 0.0, 0.0, -0.98]]
    assert tokens.written.tolist() == [[True, False, False, True]]


def proposed(groups, roots, scores, paths):
    scores = Scores.of(scores, reasons={i: "no score" for i, x in enumerate(scores) if x is None})
    rollouts = Rollouts(["q"] * len(groups), ["c"] * len(groups), groups=groups)
    return Candidates(rollouts, np.array(roots), scores.read(0.0), scores.valid, np.array(paths))


def test_slate_draws_one_of_each_path_by_its_advantage():
    """Rewards 2, 1, 0, −1, 0 have P = .679, .194, .055, .016, .055."""
    n = 8000
    candidates = proposed(
        np.repeat(np.arange(n), 5), np.zeros(5 * n, int), [2.0, 1.0, 0.0, -1.0, 0.0] * n, np.zeros(1, int)
    )
    taken = drawn(candidates, rng=np.random.default_rng(0)).reshape(n, 5)
    assert (taken.sum(1) == 1).all()
    assert taken.mean(0) == pytest.approx([0.679, 0.194, 0.055, 0.016, 0.055], abs=0.015)
    cold = drawn(candidates, rng=np.random.default_rng(0), temperature=0.0).reshape(n, 5)
    assert cold[:, 0].all()


def test_slate_a_candidate_without_a_score_is_not_drawn():
    candidates = proposed([0, 0, 1, 1], [0, 0, 0, 0], [None, -1.0, None, None], [0])
    for seed in range(20):
        assert drawn(candidates, rng=np.random.default_rng(seed)).tolist() == [False, True, False, False]


def test_slate_draws_from_equally_many():
    with pytest.raises(ValueError, match="equally many"):
        drawn(proposed([0, 0, 1], [0, 0, 0], [0.0] * 3, [0]), rng=np.random.default_rng(0))


def test_portool_keeps_the_places_that_are_left_to_each_prompt():
    candidates = proposed([0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0, 1, 1], [0.0] * 8, [1, 3])
    assert forked(candidates, paths=4).tolist() == [True, True, False, True, False, False, True, False]
    rng = np.random.default_rng(0)
    found = np.array([forked(candidates, paths=4, rng=rng) for _ in range(300)])
    assert (found[:, :6].sum(1) == 3).all()
    assert (found[:, :3].any(1) & found[:, 3:6].any(1)).all()
    assert found[:, 6].mean() == pytest.approx(0.5, abs=0.1)
    assert not forked(candidates, paths=1)[:6].any()


def test_pav_beams_are_the_best_of_each_prompt_for_the_places_left():
    candidates = proposed([0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1], [0.2, 0.9, 0.9, None, 0.1, -3.0], [1, 0])
    assert highest(candidates, paths=2).tolist() == [False, True, False, False, True, True]
    assert highest(candidates, paths=3).tolist() == [False, True, True, False, True, True]


def test_pav_a_step_is_judged_by_its_value_and_the_prover_s_progress():
    value = lambda rows: Scores.of([text.count("a") / 10 for text in rows.completions])  # noqa: E731

    def prover(rows):
        scores = [None if text.endswith("?") else text.count("b") / 10 for text in rows.completions]
        return Scores.of(scores, reasons={i: "unread" for i, x in enumerate(scores) if x is None})

    rows = Rollouts(["q"] * 3, ["aab", "aabbb", "ab?"], {"step": ["b", "bbb", "?"]})
    found = effective_value(value, prover, alpha=2.0)(rows)
    assert found.read(0.0) == pytest.approx([0.2 + 2 * 0.1, 0.2 + 2 * 0.3, 0.0])
    assert found.valid.tolist() == [True, True, False]
    assert found.reasons == {2: "unread"}


def test_prefixes_are_cut_after_their_steps_and_equal_ones_are_a_group():
    rollouts = Rollouts(["q", "q", "r"], ["ab|cd|", "ab|x", ""], {"answer": [1, 1, 2]})
    steps = Spans.of([[(0, 3), (3, 6)], [(0, 3)], []], unit="character")
    cut = cut_prefixes(rollouts, steps, np.array([[0, 1, 2], [0, 1, 9], [0, 1, 1]]), stop="#")
    assert cut.completions == ["#", "ab|#", "ab|cd|#", "#", "ab|#", "ab|#", "#", "#", "#"]
    assert cut.groups.tolist() == [0, 1, 2, 0, 1, 1, 3, 3, 3]
    assert cut.column("answer") == [1] * 6 + [2] * 3
    with pytest.raises(ValueError, match=r"after must be \(3, p\)"):
        cut_prefixes(rollouts, steps, np.array([[0], [-1], [0]]))
    with pytest.raises(ValueError, match="spans of characters"):
        cut_prefixes(rollouts, Spans.of([[(0, 1)]] * 3), np.zeros((3, 1), int))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least 1, got 0"),
        ({"width": (2, 0)}, "at least 1"),
        ({"width": ()}, "at least 1"),
        ({"width": lambda scores, roots: [1]}, "width must give each of 2 paths"),
        ({"continue_": lambda rows: ["a"]}, "continue_ gave 1 continuations of 2"),
        ({"judge": lambda rows: Scores.of([1.0])}, "judge must give one score per candidate, 2"),
        ({"ended": lambda rows: [True]}, "ended must say yes or no of each of 2"),
        ({"choose": lambda c: [True] * 3}, "choose must say yes or no of each of 2"),
        ({"respond": lambda rows: []}, "respond gave 0 continuations of 2"),
        ({"respond": lambda rows: characters(["X"] * len(rows))}, "one has tokens and one has none"),
        ({"starts": Rollouts(["q"], [[{"role": "assistant", "content": "a"}]])}, "grown from texts, got list"),
        ({"starts": prompts(2, "ab"), "continue_": lambda rows: characters(["a"] * 2)}, "one has tokens"),
    ],
    ids=["steps", "width", "no width", "widths", "continue", "judge",
         "ended", "choose", "respond", "tokens", "chat", "start"],
)  # fmt: skip
def test_what_does_not_fit_is_named(options, message):
    given = {"starts": prompts(2), "continue_": lambda rows: ["a"] * len(rows), "steps": 2, **options}
    with pytest.raises(ValueError, match=message):
        grow(given.pop("starts"), given.pop("continue_"), **given)


def test_steps_of_which_some_have_tokens_are_refused():
    said = iter([["", ""], characters(["a", "b"])])
    with pytest.raises(ValueError, match="some steps have tokens"):
        grow(prompts(2), lambda rows: next(said), steps=2)
