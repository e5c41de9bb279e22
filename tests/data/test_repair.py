import numpy as np
import pytest
import torch

from guerdon.core import Rollouts, Scores
from guerdon.core.spans import split
from guerdon.credit import group_relative, locate, repairable
from guerdon.data import mend

HARD, STEPS = 3, 6


class Chain:
    """Six choices, each right with probability ½, but one with .02; text is a digit for each, 1 for right."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def __call__(self, rollouts):
        texts = []
        for text in rollouts.completions:
            done = text.count("\n\n")
            right = np.where(np.arange(done, STEPS) == HARD, 0.02, 0.5)
            texts.append("".join(f"{int(x)}\n\n" for x in self.rng.random(STEPS - done) < right))
        return texts


def solved(rollouts):
    return Scores.of([float(text == "1\n\n" * STEPS) for text in rollouts.completions])


def failures(*texts, **columns):
    texts = ["".join(f"{digit}\n\n" for digit in text) for text in texts]
    batch = Rollouts(["x"] * len(texts), texts, {"answer": ["42"] * len(texts), **columns})
    return batch, split(texts)


def right_step(rollouts):
    return ["1\n\n"] * len(rollouts)


def test_int_mending_the_first_error_lifts_success_fiftyfold():
    """From before the hard step .02 · ½² = .005, from behind the mended one .25; counted over 10 000 completions."""
    batch, steps = failures("111011")
    found = mend(batch, steps, np.array([HARD]), right_step, Chain(), solved, tries=10_000)
    assert found.successes[0] / found.samples[0] == pytest.approx(0.25, abs=0.015)
    before = Rollouts(["x"] * 10_000, ["1\n\n" * HARD] * 10_000)
    rest = Chain()(before)
    unmended = solved(before.with_(completions=[a + b for a, b in zip(before.completions, rest, strict=True)])).mean()
    assert unmended == pytest.approx(0.005, abs=0.003)


def test_int_imitates_prefix_and_intervention_and_no_suffix():
    batch, steps = failures("1110", "0111")

    def finishes(rollouts):
        return ["1\n\n" * (STEPS - text.count("\n\n")) for text in rollouts.completions]

    found = mend(batch, steps, np.array([3, 0]), right_step, finishes, solved)
    taught = found.imitation(batch)
    assert found.kept.tolist() == [True, True]
    assert taught.completions == ["1\n\n1\n\n1\n\n1\n\n", "1\n\n"]
    assert found.rest == ["1\n\n" * 2, "1\n\n" * 5]  # what is not imitated
    assert taught.column("answer") == ["42", "42"]


def test_int_filter_keeps_what_one_of_32_continuations_gets_right():
    """At a success of .05 the filter keeps 1 − .95³² = .806 of the interventions."""
    rng, n = np.random.default_rng(0), 1500
    batch, steps = failures(*["0"] * n)

    def continues(rollouts):
        return ["right" if x else "wrong" for x in rng.random(len(rollouts)) < 0.05]

    def verify(rollouts):
        return Scores.of([float(text.endswith("right")) for text in rollouts.completions])

    found = mend(batch, steps, np.zeros(n, int), right_step, continues, verify)
    assert found.samples.tolist() == [32] * n
    assert found.kept.mean() == pytest.approx(1 - 0.95**32, abs=4 * np.sqrt(0.8 * 0.2 / n))


def test_int_rejects_a_step_that_gives_the_answer_away():
    batch, steps = failures("0", "0", "0")
    wrote = ["So the answer is 42.\n\n", "So there are 420.\n\n", None]
    found = mend(
        batch, steps, np.zeros(3, int), lambda r: wrote, lambda r: [""] * len(r), lambda r: Scores.of([1.0] * len(r))
    )
    assert found.kept.tolist() == [False, True, False]
    assert found.reasons == {0: "the step gives the answer away", 2: "no step was written"}
    assert found.samples.tolist() == [0, 32, 0]
    free = mend(
        batch,
        steps,
        np.zeros(3, int),
        lambda r: wrote,
        lambda r: [""] * len(r),
        lambda r: Scores.of([1.0] * len(r)),
        answer=None,
    )
    assert free.kept.tolist() == [True, True, False]


def test_a_reference_that_is_empty_cannot_be_guarded_and_is_not_used():
    batch, steps = failures("0", answer=[" "])
    found = mend(batch, steps, np.zeros(1, int), right_step, Chain(), solved)
    assert not found.kept.any()
    assert "column 'answer' is empty" in found.reasons[0]


def test_the_fixer_sees_prefix_wrong_step_and_columns():
    batch, steps = failures("1101", "1111", hint=["a", "b"])
    seen = []

    def fix(rollouts):
        seen.append((rollouts.completions, rollouts.column("wrong_step"), rollouts.column("hint"), rollouts.prompts))
        return ["1\n\n"] * len(rollouts)

    mend(batch, steps, np.array([2, -1]), fix, Chain(), solved)
    assert seen == [(["1\n\n1\n\n"], ["0\n\n"], ["a"], ["x"])]


def test_scope_worked_example():
    """Scores .9 .8 .3 .7: the third step is wrong; two are kept bit for bit; the group of 8 failures gets +2.475."""
    texts = ["1101"] + ["0000"] * 7
    batch, steps = failures(*texts)
    judged = torch.tensor([[0.9, 0.8, 0.3, 0.7]] + [[0.1, 0.9, 0.9, 0.9]] * 7)
    first = locate(judged, torch.ones(8, 4, dtype=torch.bool), below=0.5)
    worth = repairable(first, torch.full((8,), 4), torch.zeros(8), torch.zeros(8, dtype=torch.long))
    assert worth.tolist() == [True] + [False] * 7

    def finishes(rollouts):
        return ["1\n\n"] * len(rollouts)

    def verify(rollouts):
        return Scores.of([float(text == "1\n\n" * 4) for text in rollouts.completions])

    assert group_relative(torch.tensor(verify(batch).read(0.0)), torch.zeros(8, dtype=torch.long)).tolist() == [0.0] * 8
    at = torch.where(worth, first, -1).numpy()
    found = mend(batch, steps, at, right_step, finishes, verify, tries=1)
    mended, foreign = found.swapped(batch)
    assert mended.completions[0].startswith(batch.completions[0][: 2 * 3])
    assert mended.completions[1:] == batch.completions[1:]
    assert foreign.rows() == [[(6, 9)], *[[]] * 7]
    rewards = torch.tensor(verify(mended).read(0.0))
    assert rewards.tolist() == [1.0] + [0.0] * 7
    advantages = group_relative(rewards, torch.zeros(8, dtype=torch.long), ddof=1, eps=0.0)
    assert advantages.tolist() == pytest.approx([2.475] + [-0.354] * 7, abs=1e-3)


def test_scope_without_an_accepted_repair_leaves_the_batch_as_it_was():
    batch, steps = failures("1101", "0000")
    found = mend(batch, steps, np.array([2, -1]), right_step, lambda r: ["0"] * len(r), solved, tries=1)
    assert found.reasons == {0: "none of 1 completions was right"}
    mended, foreign = found.swapped(batch)
    assert mended is batch
    assert not foreign.mask.any()


def test_what_cannot_be_verified_is_not_kept_and_says_so():
    batch, steps = failures("0")
    dead = Scores.abstain(32, "deadline 2.0 s")
    found = mend(batch, steps, np.zeros(1, int), right_step, Chain(), lambda r: dead)
    assert found.reasons == {0: "no completion could be verified"}
    assert found.samples.tolist() == [0]


def test_what_follows_a_mended_step_is_the_first_right_completion():
    batch, steps = failures("0")
    wrote = iter(["wrong", "right, at last", "right again"])

    def verify(rollouts):
        return Scores.of([float("right" in text) for text in rollouts.completions])

    found = mend(
        batch, steps, np.zeros(1, int), right_step, lambda r: [next(wrote) for _ in r.prompts], verify, tries=3
    )
    assert found.rest == ["right, at last"]
    assert found.successes.tolist() == [2]


def test_an_empty_batch_and_one_with_nothing_to_mend_ask_nobody():
    for batch, steps in (failures(), failures("11", "11")):
        found = mend(batch, steps, np.full(len(batch), -1), None, None, None)
        assert not found.kept.any()
        assert len(found.imitation(batch)) == 0


@pytest.mark.parametrize(
    ("first", "options", "fix", "message"),
    [
        ([4], {}, right_step, "row 0 has 4 steps, no step 4"),
        ([0, 0], {}, right_step, "first one number"),
        ([0], {"tries": 0}, right_step, "tries must be at least 1"),
        ([0], {}, lambda r: [], "fix gave 0 steps for 1 rollouts"),
    ],
    ids=["step", "shape", "tries", "fix"],
)
def test_bad_input_is_named(first, options, fix, message):
    batch, steps = failures("1101")
    with pytest.raises(ValueError, match=message):
        mend(batch, steps, np.array(first), fix, Chain(), solved, **options)
