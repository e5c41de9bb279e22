"""Turns of agents: their form, their actions, what came of them; and whole rewards made of these."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon import Abstain, Rollouts, gate, product, reduce, reward
from guerdon.algebra import broadcast
from guerdon.credit import group_relative, returns
from guerdon.objectives import clip, kl_penalty, policy_gradient
from guerdon.rewards import turns
from guerdon.rewards.turns import turns_of


def says(text, *results):
    """A turn, and what tools say to it."""
    return [{"role": "assistant", "content": text}, *({"role": "tool", "content": result} for result in results)]


def calls(name, *results, text=None, **arguments):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return [{"role": "assistant", "content": text, "tool_calls": [call]}, *says("", *results)[1:]]


def values(leaf, *completions, **columns):
    return leaf.score(Rollouts(["?"] * len(completions), list(completions), columns)).to_columns()["score"]


def test_turns_know_what_came_before_and_after():
    chat = [*says("a", "x", "y"), {"role": "user", "content": "u"}, *says("b")]
    first, second = turns_of(chat)
    assert (first.text, first.end, list(first.before)) == ("a", 1, [])
    assert [message["content"] for message in first.after] == ["x", "y", "u"]
    assert (second.text, second.end, len(second.before), len(second.after)) == ("b", 3, 4, 0)
    assert [turn.text for turn in turns_of("all of it")] == ["all of it"]
    assert turns_of([]) == []


def test_a_turn_is_data_by_its_first_object():
    chat = [
        *says('{"thought": "x"}'),
        *says("oops"),
        *says('so {"actions": []} {'),
        *says('{"other": 1}'),
        *says("{1} {}"),
    ]
    assert values(turns.data(), chat) == [[1.0, 0.0, 1.0, 0.0, 0.0]]
    assert values(turns.data(keys=()), chat) == [[1.0, 0.0, 1.0, 1.0, 0.0]]
    assert values(turns.data(), '{"thought": "x"}', "") == [[1.0], [0.0]]
    assert values(turns.data(), '{"a":' * 100_000) == [[0.0]]


def test_a_turn_acts_if_all_its_calls_are_readable_and_allowed():
    two = [{"role": "assistant", "tool_calls": [calls("edit")[0]["tool_calls"][0]] * 2}]
    chat = [*calls("edit"), *calls("rm"), *says("thinking"), *says('{"name": "edit"}'), *two, *says('{"actions": [7]}')]
    assert values(turns.acts(tools=("edit",)), chat) == [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    assert values(turns.acts(), chat) == [[1.0, 1.0, 0.0, 1.0, 0.0, 0.0]]
    assert values(turns.acts(most=2), chat) == [[1.0, 1.0, 0.0, 1.0, 1.0, 0.0]]
    broken = [{"role": "assistant", "tool_calls": [{"function": {"name": "edit", "arguments": "{"}}]}]
    assert values(turns.acts(), broken) == [[0.0]]


def test_an_action_succeeds_if_a_tool_answers_it_and_not_with_a_failure():
    chat = [
        *calls("edit", "done"),
        *calls("edit", "Error: no such file"),
        *calls("edit"),
        *calls("ls", "a"),
        *says("x", "y"),
    ]
    assert values(turns.succeeds(tools=("edit",)), chat) == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    assert values(turns.succeeds(failed="done"), chat) == [[0.0, 1.0, 0.0, 1.0, 0.0]]


def ends(answer):
    call = f'{{"name": "Terminate", "arguments": {{"ans": {answer}}}}}'
    return says(f'{{"thought": "so", "actions": [{call}]}}')


@pytest.mark.parametrize(
    ("completion", "reference", "score"),
    [
        (ends('"12.0"'), "12", 1.0),
        (ends('"12.0"'), 12, 1.0),
        (ends("13"), "12", 0.0),
        (ends('"a red car"'), "a red car", 1.0),
        (ends('"a blue car"'), "a red car", 0.0),
        (says("The answer is 12."), "12", 1.0),
        ([*ends('"12"'), *says("or rather 13")], "12", 0.0),
        ([], "12", 0.0),
    ],
    ids=["value", "number", "wrong", "words", "other words", "no end", "not the last", "nothing"],
)
def test_the_answer_an_agent_ends_with(completion, reference, score):
    assert turns.answer().evaluate(completion, reference)[0] == score


@pytest.mark.parametrize("reference", [None, True, "", " "])
def test_a_reference_that_is_none_abstains(reference):
    with pytest.raises(Abstain, match="neither text nor number"):
        turns.answer().evaluate("12", reference)


@given(st.lists(st.text(alphabet='{}[]":,namectios ', max_size=25), max_size=4))
def test_any_turns_have_scores(texts):
    chat = [message for text in texts for message in says(text, "ok")]
    for leaf in (turns.data(), turns.acts(), turns.succeeds()):
        scores = leaf.score(Rollouts(["?"], [chat]))
        assert scores.valid.sum() == len(texts)
        assert set(scores.read(0.0).ravel().tolist()) <= {0.0, 1.0}


# OpenThinkIMG


def test_openthinkimg_from_rounds_to_the_loss():
    """Format + accuracy, the z-score of a group of four, the loss at the reference; what tools said has no part.

    Rounds of the second: '{"thought":"x"}' and 'oops': format ½; 12.0 for 12: accuracy 1.
    """
    crop = '{"thought": "x", "actions": [{"name": "Crop", "arguments": {"box": [0, 0, 1, 1]}}]}'
    image = [{"role": "tool", "content": [{"type": "image", "image": "cropped.png"}]}]
    batch = Rollouts(
        ["How tall?"] * 4,
        [
            [*says(crop), *image, *ends('"12.0"')],
            [*says('{"thought": "x"}'), *says("oops")],
            [*says(crop), *image, *ends('"13"')],
            [*says("oops"), *says("7")],
        ],
        {"answer": ["12"] * 4},
    )
    form, accuracy = reduce(turns.data(), "mean"), turns.answer()
    scores = (accuracy + form).score(batch)
    assert reduce(turns.data(), "mean").score(batch).read(math.nan).tolist() == [1.0, 0.5, 1.0, 0.0]
    assert scores.read(math.nan).tolist() == [2.0, 0.5, 1.0, 0.0]

    totals = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    worked = group_relative(totals, torch.zeros(4, dtype=torch.long))
    assert worked.tolist() == pytest.approx([1.2246, 0.0, 0.0, -1.2246], abs=1e-4)

    advantages = group_relative(torch.as_tensor(scores.read(0.0)), torch.as_tensor(batch.groups))
    own = np.array([2.0, 0.5, 1.0, 0.0])
    expected = (own - own.mean()) / (own.std(ddof=1) + 1e-4)
    assert advantages.tolist() == pytest.approx(expected.tolist())

    # Six tokens a row: two of a turn, two that a tool said, two of the last turn; the last two rows have only five.
    written = torch.tensor([[1, 1, 0, 0, 1, 1]] * 2 + [[1, 1, 0, 0, 1, 0]] * 2, dtype=torch.bool)
    logp = torch.full((4, 6), -1.0, dtype=torch.float64)
    logp[:, 2:4] = math.nan  # nothing is known of what tools said
    logp.requires_grad_()
    kl = 0.04 * kl_penalty(logp, logp.detach(), mask=written)
    loss, _ = policy_gradient(logp, logp, advantages, written, kl=kl, clip=clip.none, aggregate="sequence-mean")
    loss.backward()
    count = written.sum(1, keepdim=True)
    slope = -advantages[:, None] / count / 4 * written
    torch.testing.assert_close(logp.grad, slope)
    assert float(loss.detach()) == pytest.approx(-float(np.mean(expected)), abs=1e-9)


# G-RA


@reward(range=(0, 1), lane="batch")
def patched(patch):
    """Whether the repository was changed."""
    return [float(bool(text.strip())) for text in patch]


@reward(range=(0, 1), lane="batch")
def resolved(passed):
    """Whether the tests passed on the patch; the user's sandbox says so."""
    return [float(x) for x in passed]


SCAFFOLD = ("ls", "edit", "submit")


def software_engineering(threshold=0.0):
    """Outcomes −1, −½, 0, 1 and three checks of each turn, which count from a patch that is not empty on."""
    submits = reduce(turns.acts(tools=("submit",)).named("submits"), "max").named("completion")
    changes, passes = product(submits, patched()).named("modification"), resolved()
    solves = product(changes, passes).named("resolution")
    outcome = 0.5 * submits + 0.5 * changes + solves - 1
    form, choice = turns.acts().named("format"), turns.acts(tools=SCAFFOLD).named("choice")
    checks = 1 / 3 * (form + choice + turns.succeeds(tools=("edit",)))
    return outcome, checks, outcome + gate(outcome, then=reduce(checks, "mean"), above=threshold, inclusive=True)


EPISODES = {
    "never submits": ([*calls("ls", "a.py"), *calls("edit", "ok"), *says("done")], "", False),
    "empty patch": ([*calls("ls", "a.py"), *calls("submit", "ok")], " ", False),
    "fails tests": ([*calls("edit", "Error: no match"), *calls("edit", "ok"), *calls("submit", "ok")], "+1", False),
    "passes": ([*calls("rm", "ok"), *calls("edit", "ok"), *calls("submit", "ok"), *says("bye")], "+1", True),
}


def episodes(*names):
    chosen = [EPISODES[name] for name in names]
    columns = {"patch": [patch for _, patch, _ in chosen], "passed": [passed for *_, passed in chosen]}
    return Rollouts(["Fix the issue."] * len(chosen), [chat for chat, *_ in chosen], columns)


def test_g_ra_software_engineering_has_four_ordered_outcomes_and_its_rates():
    batch = episodes(*EPISODES)
    outcome, checks, total = software_engineering()
    assert outcome.score(batch).read(math.nan).tolist() == [-1.0, -0.5, 0.0, 1.0]
    # By hand: format, choice and edit of each turn, over three, over the turns.
    low = [(2 + 3 + 0) / 3 / 3, (2 + 2) / 3 / 2, (2 + 3 + 2) / 3 / 3, (1 + 3 + 2 + 0) / 3 / 4]
    assert reduce(checks, "mean").score(batch).read(math.nan) == pytest.approx(low)
    scores = total.score(batch)
    assert scores.read(math.nan) == pytest.approx([-1.0, -0.5, low[2], 1 + low[3]])
    rates = {name: scores.parts[name].mean() for name in ("completion", "modification", "resolution")}
    assert rates == {"completion": 0.75, "modification": 0.5, "resolution": 0.25}


def test_g_ra_ungated_steps_pay_for_never_submitting_and_gated_ones_do_not():
    """The worked number, Σ of ten step rewards of .1 and outcome −1: D-RA 0, G-RA −1; with outcome 0 both are 1."""
    farm = [message for _ in range(10) for message in calls("ls", "a.py")]
    honest = [message for _ in range(9) for message in calls("edit", "ok")] + calls("submit", "ok")
    batch = Rollouts(["?"] * 2, [farm, honest], {"patch": ["", "+1"], "passed": [False, False]})
    outcome, _, _ = software_engineering()
    steps = reduce(0.1 * turns.acts(tools=SCAFFOLD), "sum")
    ungated = outcome + steps
    gated = outcome + gate(outcome, then=steps, above=0.0, inclusive=True)
    assert ungated.score(batch).read(math.nan) == pytest.approx([0.0, 1.0])
    assert gated.score(batch).read(math.nan) == pytest.approx([-1.0, 1.0])


def test_g_ra_from_episodes_to_advantages_of_tokens():
    """Gated step rewards where they were earned, the outcome at the end, as returns on the tokens of each turn."""
    batch = episodes("never submits", "fails tests", "passes")
    outcome, checks, _ = software_engineering()
    share = 1 / 3 * checks
    scores = (
        broadcast(outcome, over=checks, place="last") + gate(outcome, then=share, above=0.0, inclusive=True)
    ).score(batch)
    assert scores.to_columns()["score"] == [
        pytest.approx([0.0, 0.0, -1.0]),
        pytest.approx([2 / 9, 3 / 9, 2 / 9 + 0.0]),
        pytest.approx([1 / 9, 3 / 9, 2 / 9, 1.0]),
    ]
    rewards, there = torch.as_tensor(scores.read(0.0)), torch.as_tensor(scores.mask)
    onward = returns(rewards, there)
    assert onward[0].tolist() == [-1.0, -1.0, -1.0, 0.0]
    assert onward[2].tolist() == pytest.approx([15 / 9, 14 / 9, 11 / 9, 1.0])
    assert group_relative(onward[:, 0], torch.zeros(3, dtype=torch.long)).argmax() == 2
