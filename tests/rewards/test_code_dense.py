"""VeRPO: rewards of tests by how few pass them, turn by turn and at the end."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Rollouts
from guerdon.algebra import reduce, spec
from guerdon.core import Scores, Tokens
from guerdon.core.errors import Abstain
from guerdon.credit import group_relative
from guerdon.objectives import policy_gradient
from guerdon.rewards import code
from guerdon.rewards.code import options
from guerdon.rewards.code.matrix import PassMatrix, outcome_of, rarity_weights, turns_of_outcomes
from guerdon.sandbox import SandboxUnavailable
from guerdon.train import crediting
from guerdon.train.method import Sum


def weights_by_hand(rates, alpha=2.0, sigma=0.1, delta=1e-6):
    """The definition, test by test."""
    found = []
    for mine in rates:
        density = sum(math.exp(-((mine - other) ** 2) / (2 * sigma**2)) for other in rates)
        found.append(math.exp(-alpha * mine) / (density + delta))
    return found


def dense(rows, **settings):
    """Local rewards of rollouts of one turn and one group."""
    part = code.reported(credit="each") >> code.rarity(**settings)
    return part(["?"] * len(rows), [""] * len(rows), outcomes=rows)


def test_verpo_worked_example():
    np.testing.assert_allclose(
        rarity_weights(np.array([0.9, 0.9, 0.9, 0.1])), [0.0551, 0.0551, 0.0551, 0.8187], atol=5e-5
    )


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 4), st.floats(0.01, 1))
def test_verpo_weights_are_those_of_the_definition(rates, alpha, sigma):
    found = rarity_weights(np.array(rates), alpha=alpha, sigma=sigma)
    np.testing.assert_allclose(found, weights_by_hand(rates, alpha, sigma), rtol=1e-9)
    assert ((found >= 0) & (found <= 1)).all()


def test_verpo_weights_of_padding_are_0_and_change_no_others():
    rates, exists = np.array([[0.2, 0.7, 0.5]]), np.array([[True, True, False]])
    np.testing.assert_allclose(rarity_weights(rates, exists)[0], [*weights_by_hand([0.2, 0.7]), 0.0], rtol=1e-12)
    rates[0, 2] = math.nan
    assert np.isfinite(rarity_weights(rates, exists)).all()


def test_verpo_copies_of_an_easy_test_share_its_weight():
    """A pass rate pays nearly all for the easy test once it is there ten times; its cluster's weight stays."""
    once, tenfold = (weights.tolist() for weights in map(rarity_weights, ([0.9, 0.1], [0.9] * 10 + [0.1])))
    assert sum(tenfold[:10]) == pytest.approx(once[0], rel=1e-5)
    assert tenfold[10] == pytest.approx(once[1], rel=1e-5)


def test_verpo_local_reward_is_the_weighted_sum_of_what_passes():
    rows = [[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]]
    weights = weights_by_hand([0.75, 0.5, 0.25])
    expected = [sum(w * p for w, p in zip(weights, row, strict=True)) for row in rows]
    assert dense(rows) == pytest.approx(expected)


def test_verpo_rates_are_of_the_group_and_of_all_its_turns():
    """Two rollouts of two turns and one: the shares are of the three turns together."""
    said = [[{"role": "assistant", "content": text} for text in texts] for texts in (["a", "bc"], ["d"])]
    outcomes = [[[1, 0], [1, 1]], [[1, 0]]]
    part = code.reported_turns() >> code.rarity()
    scores = part.score(Rollouts(["?"] * 2, said, {"outcomes": outcomes}))
    easy, hard = weights_by_hand([1.0, 1 / 3])
    np.testing.assert_allclose(scores.read(0.0), [[easy, easy + hard], [easy, 0.0]])
    assert scores.valid.tolist() == [[True, True], [True, False]]
    alone = part.score(Rollouts(["?", "!"], said, {"outcomes": outcomes}))
    np.testing.assert_allclose(alone.read(0.0)[1, 0], sum(weights_by_hand([1.0, 0.0])[:1]))


@settings(deadline=None)
@given(st.data())
def test_groups_and_padding_do_not_reach_one_another(data):
    """Each group by itself gives what all give together, though their suites have other sizes."""
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    groups = [
        data.draw(st.lists(st.lists(st.booleans(), min_size=j, max_size=j), min_size=1, max_size=4)) for j in sizes
    ]
    part = code.reported(credit="each") >> code.rarity()
    rows = [row for group in groups for row in group]
    prompts = [f"p{i}" for i, group in enumerate(groups) for _ in group]
    together = part.score(Rollouts(prompts, [""] * len(rows), {"outcomes": rows})).read(math.nan).tolist()
    assert together == pytest.approx([value for group in groups for value in dense(group)])
    assert all(math.isfinite(value) and value >= 0 for value in together)


def test_rows_that_cannot_be_used_abstain_and_count_in_no_share():
    rows = [[True, False], [True, True], None, "none", [], ["passed", "not run"], [[1, 0], [1]], [2, 1], [{}]]
    scores = (code.reported(credit="each") >> code.rarity()).score(
        Rollouts(["?"] * len(rows), [""] * len(rows), {"outcomes": rows})
    )
    assert scores.valid.tolist() == [True, True] + [False] * 7
    weights = weights_by_hand([1.0, 0.5])
    np.testing.assert_allclose(scores.read(0.0)[:2], [weights[0], sum(weights)])
    assert scores.reasons[5] == "not all of its tests ran"
    assert scores.reasons[6] == "turns with 1 and 2 outcomes"
    mixed = (code.reported(credit="each") >> code.rarity()).score(
        Rollouts(["?"] * 2, [""] * 2, {"outcomes": [[1], [1, 0]]})
    )
    assert mixed.reasons[0] == "a group has one suite, this one has suites of 1 and 2 tests"


def test_turns_and_outcomes_that_do_not_fit_abstain():
    scores = code.reported_turns().score(Rollouts(["?"], ["one turn"], {"outcomes": [[[1], [0]]]}))
    assert scores.reasons == {0: "outcomes of 2 turns, and 1 turns"}


def test_the_trajectory_reward_decays_with_turns():
    rows = [[1, 1], [[0, 1], [1, 1]], [[1, 1], [0, 1]], "[[false], [false], [true]]"]
    found = code.reported(decay=0.95)(["?"] * 4, [""] * 4, outcomes=rows)
    assert found == pytest.approx([0.95, 0.95**2, 0.0, 0.95**3])
    assert code.reported(credit="each")(["?"], [""], outcomes=[[1, 0, 0, 1]]) == [0.5]
    with pytest.raises(ValueError, match="decay is in"):
        code.reported(decay=0.0)


def test_verpo_learns_where_all_fail_and_grpo_does_not():
    """The turn's and the suite's advantages joined as the paper adds them, down to the gradient."""
    outcomes = [[[1, 0, 0], [1, 1, 0]], [[1, 0, 0]], [[0, 0, 1]]]
    said = [[{"role": "assistant", "content": text} for text in ["a"] * len(turns)] for turns in outcomes]
    ids = np.arange(3 * 3).reshape(3, 3)
    there = np.arange(3) < np.array([[3], [1], [1]])
    offsets = np.array([[[0, 1], [1, 2], [2, 3]], [[0, 1]] + [[-1, -1]] * 2, [[0, 1]] + [[-1, -1]] * 2])
    batch = Rollouts(["?"] * 3, said, {"outcomes": outcomes}, tokens=Tokens(ids, there, there, offsets=offsets))
    beta = 1.0
    turns = beta * (code.reported_turns() >> code.rarity())
    reward = code.reported(decay=0.95).named("suite") + 0.0 * reduce(turns.named("turns"), "mean")
    scores = reward.score(batch)
    none = partial(group_relative, scale="none")
    credit = Sum({"suite": none, "turns": partial(group_relative, scale="none", pool="all")})
    advantages = crediting.advantages(credit, batch, scores)

    weights = weights_by_hand([0.75, 0.25, 0.25])
    earned = [[weights[0], weights[0] + weights[1]], [weights[0]], [weights[2]]]
    mean = sum(sum(row) for row in earned) / 4
    of_turns = [[earned[0][0] - mean] + [earned[0][1] - mean] * 2, [earned[1][0] - mean], [earned[2][0] - mean]]
    for row, expected in enumerate(of_turns):
        np.testing.assert_allclose(advantages[row, : len(expected)], expected, atol=1e-6)
    assert sum(earned[i][t] - mean for i in range(3) for t in range(len(earned[i]))) == pytest.approx(0)

    logp = torch.zeros(3, 3, requires_grad=True)
    loss, _ = policy_gradient(logp, torch.zeros(3, 3), advantages, torch.as_tensor(there))
    loss.backward()
    assert logp.grad.abs().sum() > 0.01
    grpo = group_relative(torch.as_tensor(scores.parts["suite"].read(0.0)), torch.zeros(3, dtype=torch.int64))
    assert not grpo.any()


def test_verpo_group_advantages_sum_to_0():
    rng = np.random.default_rng(0)
    rows = (rng.random((10, 7)) < rng.random(7)).tolist()
    local = torch.tensor(dense(rows))
    advantages = group_relative(local, torch.zeros(10, dtype=torch.int64), scale="none")
    assert float(advantages.sum()) == pytest.approx(0, abs=1e-6)


def test_the_known_hack_of_pass_rates_does_not_pay():
    """A program that answers only the many trivial tests is near the top by pass rate, and below one that does more."""
    trivial, real = [1] * 18 + [0, 0], [0] * 9 + [1] * 11
    group = [trivial] * 6 + [real]
    rates = code.reported(credit="each")(["?"] * 7, [""] * 7, outcomes=group)
    assert rates[0] > rates[6] + 0.3
    paid = dense(group)
    assert paid[6] > 1.5 * paid[0]


def test_rarity_wants_to_be_told_of_tests():
    with pytest.raises(ValueError, match="reads what became of each test"):
        code.rarity()(Scores.of([1.0]), _context())
    stopped = Scores.of([0.0], details={"outcomes": [["passed", "gave 3", "not run"]]})
    assert "1 tests did not run" in code.rarity()(stopped, _context()).reasons[0]


def _context():
    from guerdon import Context

    return Context(Rollouts(["?"], [""]))


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"sigma": 0.0}, {"delta": math.nan}])
def test_options_that_cannot_be_meant(bad):
    with pytest.raises(ValueError, match="alpha ≥ 0"):
        code.rarity(**bad)


def test_rarity_is_data():
    part = code.reported_turns(column="passed") >> code.rarity(alpha=1.0)
    assert spec.load(spec.dump(part)) == part
    assert part.range == (0.0, math.inf)
    assert part.requires == {"completion", "passed"}


def test_outcomes_are_read_as_they_are_written():
    assert [outcome_of(entry) for entry in (np.bool_(True), np.int64(0), 1.0)] == [True, False, True]
    with pytest.raises(Abstain, match="an outcome is"):
        outcome_of(0.5)
    assert turns_of_outcomes(np.array([[True, False]])) == [[True, False]]
    matrix = PassMatrix.of([["passed", None], ["gave 1"]])
    assert matrix.rates().tolist() == [0.5, 0.0]
    assert matrix.killed.tolist() == [[False, False], [True, False]]
    with pytest.raises(ValueError, match="programs × tests"):
        PassMatrix(np.ones(3, bool))


def test_verpo_from_programs_to_rewards():
    """Programs run in the sandbox, each test is weighed by its group, and the rare pass pays most."""
    try:
        options.check(packages=())
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    tests = ["assert f(0) == 0", "assert f(1) == 1", "assert f(-2) == 2"]
    programs = ["def f(x): return x", "def f(x): return 0", "def f(x): return -x", "def f(x"]
    part = code.unit_tests(credit="each", seconds=2.0) >> code.rarity()
    weights = weights_by_hand([0.75, 0.25, 0.25])
    found = part(["?"] * 4, programs, tests=[tests] * 4)
    assert found == pytest.approx([weights[0] + weights[1], weights[0], weights[0] + weights[2], 0.0])


def test_verpo_scores_a_file(tmp_path):
    from typer.testing import CliRunner

    from guerdon.cli import app

    rows = [{"prompt": "p", "completion": "x", "outcomes": row} for row in ([True, False], [True, True], None)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = "{part: code.reported, credit: each, shape: [{part: code.rarity}]}"
    arguments = ["score", tmp_path / "in.jsonl", "-r", reward, "-o", tmp_path / "out.jsonl"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    weights = weights_by_hand([1.0, 0.5])
    assert [row["score"] for row in scored[:2]] == pytest.approx([weights[0], sum(weights)])
    assert (scored[2]["score"], scored[2]["reason"]) == (None, "outcomes not a list of at least one: None")
