import json
from collections import Counter

import numpy as np
import pytest

from guerdon.core import Context, Rollouts, Scores
from guerdon.data import Shuffled, adaptive, carry_over, fill, varied

PROMPTS = [{"prompt": f"p{i}", "rate": i / 9} for i in range(10)]


def sampler(group=4):
    """Rollouts of which the first `rate · group` are right."""
    calls = []

    def sample(rows):
        calls.append([row["prompt"] for row in rows])
        prompts = [row["prompt"] for row in rows for _ in range(group)]
        groups = np.repeat(np.arange(len(rows)), group)
        scores = [float(j < round(row["rate"] * group)) for row in rows for j in range(group)]
        return Rollouts(prompts, [""] * len(prompts), groups=groups), Scores.of(scores)

    sample.calls = calls
    return sample


def test_an_epoch_has_every_prompt_once_and_the_next_another_order():
    drawn = Shuffled(PROMPTS, seed=3)
    epochs = [[row["prompt"] for row in drawn.draw(10, Context())] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(row["prompt"] for row in PROMPTS)
    assert epochs[0] != epochs[1]


def test_what_is_drawn_does_not_depend_on_how_many_at_a_time_nor_on_a_restart():
    whole = Shuffled(PROMPTS, seed=1).draw(25, Context())
    piecewise = Shuffled(PROMPTS, seed=1)
    pieces = [*piecewise.draw(3, Context()), *piecewise.draw(9, Context())]
    resumed = Shuffled(PROMPTS, seed=1)
    resumed.load_state_dict(json.loads(json.dumps(piecewise.state_dict())))
    assert pieces + resumed.draw(13, Context()) == whole


def test_one_shot_fills_the_batch_with_128_copies_that_are_groups_of_their_own():
    batch = fill(Shuffled([{"prompt": "pi1", "rate": 0.5}]), 128, sampler(8), Context())
    assert set(batch.rollouts.prompts) == {"pi1"}
    assert len(np.unique(batch.rollouts.groups)) == 128
    assert Counter(batch.rollouts.groups.tolist()) == dict.fromkeys(range(128), 8)


def test_wgrpo_pair_fills_the_batch_in_equal_shares():
    pair = Shuffled([{"prompt": "hard"}, {"prompt": "easy"}])
    assert Counter(row["prompt"] for row in pair.draw(64, Context())) == {"hard": 32, "easy": 32}


def test_dler_resamples_until_the_batch_is_full_of_groups_that_vary():
    sample = sampler()
    batch = fill(Shuffled(PROMPTS, varied(), seed=0), 9, sample, Context())
    assert batch.kept == 9 == len(np.unique(batch.rollouts.groups))
    assert batch.rounds == len(sample.calls) == 2
    assert batch.sampled == 18
    for group in np.unique(batch.rollouts.groups):
        assert 0 < batch.scores.select(batch.rollouts.groups == group).mean() < 1


def test_rows_and_scores_of_a_batch_belong_together():
    batch = fill(Shuffled(PROMPTS, varied(), seed=0), 6, sampler(), Context())
    rate = {row["prompt"]: round(row["rate"] * 4) / 4 for row in PROMPTS}
    for group in np.unique(batch.rollouts.groups):
        rows = batch.rollouts.groups == group
        (prompt,) = set(batch.rollouts.select(rows).prompts)
        assert batch.scores.select(rows).mean() == rate[prompt]


@pytest.mark.parametrize(("missing", "groups"), [("fill", 3), ("leave", 0)])
def test_resampling_ends(missing, groups):
    """No prompt is kept, ever: after three rounds the batch is as it is."""
    sample = sampler()
    solved = Shuffled([{"prompt": "easy", "rate": 1.0}], varied())
    batch = fill(solved, 3, sample, Context(), rounds=3, missing=missing)
    assert (batch.rounds, batch.sampled, batch.kept) == (3, 9, 0)
    assert len(sample.calls) == 3
    assert len(np.unique(batch.rollouts.groups)) == groups
    assert len(batch.scores) == len(batch.rollouts) == 4 * groups


def test_the_curriculum_observes_once_all_that_was_sampled():
    wide = adaptive(skip=0, wait=5)
    fill(Shuffled([{"prompt": "half", "rate": 0.5}], wide), 2, sampler(), Context())
    assert wide.state == {"seen": 1, "mean": 0.5}
    seen = []

    class Watching(Shuffled):
        def observe(self, scores, context):
            seen.append((len(scores), len(context.rollouts)))

    fill(Watching([{"prompt": "easy", "rate": 1.0}], varied()), 2, sampler(), Context(), rounds=4)
    assert seen == [(32, 32)]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rounds": 0}, "rounds must be at least 1"), ({"missing": "drop"}, "missing is 'fill' or 'leave'")],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fill(Shuffled(PROMPTS), 2, sampler(), Context(), **options)
    with pytest.raises(ValueError, match="prompts are empty"):
        Shuffled([])


def test_dro_carries_over_a_tenth_of_the_old_set():
    old, new = [f"o{i}" for i in range(40)], ["o3", "n1", "n2"]
    kept = carry_over(new, old, share=0.1, rng=np.random.default_rng(0))
    assert kept[:3] == new
    assert len(kept) == 3 + 4 == len(set(kept))
    assert set(kept[3:]) < set(old)
    draws = {tuple(carry_over(new, old, rng=np.random.default_rng(seed))) for seed in range(20)}
    assert len(draws) > 10
    assert carry_over(["a"], ["a"], share=1.0, rng=np.random.default_rng(0)) == ["a"]
    with pytest.raises(ValueError, match="share lies between"):
        carry_over(["a"], ["b"], share=2.0, rng=np.random.default_rng(0))
