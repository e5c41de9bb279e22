"""DLER end to end: truncation by difficulty, resampling, credit over the batch, update, and selective merging."""

from functools import partial

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts, Scores
from guerdon.core import Tokens
from guerdon.credit import reinforce_success
from guerdon.data import Shuffled, fill, merge_updates, varied
from guerdon.objectives import clip, policy_gradient
from guerdon.shaping import target_length
from guerdon.train.presets import dler

LENGTHS = np.array([6, 12, 18, 28, 38, 60])  # what the policy may think, in tokens
LIMIT = 40  # where generation is cut
NEEDED = {"easy": 6, "hard": 28}  # so much thought makes the answer right, nine times in ten


class Thinker(torch.nn.Module):
    """A logit for each length and kind of prompt; to begin with it thinks long about everything."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.5, 1.0]]).repeat(2, 1))

    def sample(self, rows, rng, group=16):
        kinds = np.repeat([list(NEEDED).index(row["kind"]) for row in rows], group)
        policy = torch.softmax(self.logits, 1).detach().double().numpy()
        choice = np.array([rng.choice(len(LENGTHS), p=policy[kind] / policy[kind].sum()) for kind in kinds])
        full = LENGTHS[choice]
        lengths = np.minimum(full, LIMIT)
        knows = (full >= np.array(list(NEEDED.values()))[kinds]) & (rng.random(len(kinds)) < 0.9)
        there = np.arange(LIMIT) < lengths[:, None]
        columns = {"choice": choice, "kind": kinds, "right": (knows & (full <= LIMIT)).astype(float)}
        rollouts = Rollouts(
            [row["prompt"] for row in rows for _ in range(group)],
            [""] * len(kinds),
            columns,
            groups=np.repeat(np.arange(len(rows)), group),
            finished=full <= LIMIT,
            tokens=Tokens(np.zeros(there.shape, int), there, there),
        )
        return rollouts

    def logp(self, rollouts):
        """Of the choice of a length, at its first token; the rest follows."""
        kind, choice = (torch.as_tensor(np.asarray(rollouts.column(name))) for name in ("kind", "choice"))
        first = torch.log_softmax(self.logits, 1)[kind, choice]
        return torch.nn.functional.pad(first[:, None], (0, LIMIT - 1))

    def course(self):
        """Mean length and accuracy on each kind, exactly."""
        policy = torch.softmax(self.logits, 1).detach().numpy()
        reached = (np.array(list(NEEDED.values()))[:, None] <= LENGTHS) & (LENGTHS <= LIMIT)
        return policy @ np.minimum(LENGTHS, LIMIT), 0.9 * (policy * reached).sum(1)


def prompts():
    return [{"prompt": f"{kind} {i}", "kind": kind} for i in range(8) for kind in NEEDED]


def train(steps, *, reward, shaped=None, success=0.0, seed=0):
    """DLER's own credit, objective and sampling, as the preset has them."""
    torch.manual_seed(seed)
    rng, policy = np.random.default_rng(seed), Thinker()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    curriculum, taken = Shuffled(prompts(), filter=varied(of=None), seed=seed), []

    def sample(rows):
        rollouts = policy.sample(rows, rng)
        return rollouts, reward(Scores.of(rollouts.column("right").tolist()), Context(rollouts))

    for step in range(steps):
        batch = fill(curriculum, 8, sample, Context(step=step, training=True), missing="leave")
        taken.append((batch.kept, batch.sampled, batch.rounds))
        rewards = torch.as_tensor(batch.scores.read(0.0))
        spread = np.ptp(rewards.reshape(-1, 16).numpy(), axis=1)
        assert (spread > 0).all(), "groups that are all right or all wrong are not learned from"
        written = torch.as_tensor(batch.rollouts.tokens.written)
        centred, everywhere, whitened = dler.credit
        found = whitened(everywhere(centred(rewards, torch.as_tensor(batch.rollouts.groups)), written), written)
        if success:
            found = reinforce_success(found, rewards, written, bonus=success)
        logp = policy.logp(batch.rollouts)
        loss, _ = dler.objective(logp, logp.detach(), found.to(logp), written)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy, taken


PLAIN = target_length(curve="cut", weight=1.0, apply="multiply", target=float(LIMIT))
# More than half of a group must be right for the easier tier; a bound itself belongs to it.
TIERS = target_length(
    curve="cut", weight=1.0, apply="multiply", target=(float(LIMIT), 20.0), bands=(float(np.nextafter(0.5, 1)),)
)


def test_dler_the_preset_is_the_sheets():
    assert dler.objective.func is policy_gradient
    assert dler.objective.keywords["clip"].func is clip.dual
    assert dler.objective.keywords["clip"].keywords == {"low": 0.2, "high": 0.28, "delta": 10.0}
    assert (dler.sampling.group, dler.kl.coefficient) == (16, 5e-4)


def test_dler_truncation_alone_does_not_shorten_what_fits_and_tiers_by_difficulty_do():
    """Cut at 40, the policy stops overrunning; with a tier of 20 for what is mostly solved, it thinks briefly there.

    Hard prompts are thought about as long as they need. Batches are filled by resampling until every group varies.
    """
    start_length, start_right = Thinker().course()
    plain, taken = train(60, reward=PLAIN)
    length, right = plain.course()
    assert (right > start_right + 0.1).all()
    assert max(rounds for _, _, rounds in taken) > 1, "some batches needed more than one draw"
    assert all(kept <= 8 for kept, _, _ in taken)
    tiered, _ = train(60, reward=TIERS)
    brief, accuracy = tiered.course()
    assert brief[0] < 0.6 * length[0]
    assert brief[1] > 25
    assert (accuracy > start_right).all()
    assert brief.mean() < start_length.mean()


def test_dler_truncated_rewards_may_keep_a_tenth_as_in_its_script():
    rollouts = Rollouts(
        ["p"] * 2, ["", ""], finished=[True, False], tokens=Tokens(*(np.ones((2, 3), t) for t in (int, bool, bool)))
    )
    scores = Scores.of([1.0, 1.0])
    some = target_length(curve="cut", weight=0.9, apply="multiply", target=3.0)
    assert some(scores, Context(rollouts)).read(0.0).tolist() == pytest.approx([1.0, 0.1])


def test_dler_success_is_reinforced_after_whitening_on_the_tokens_of_successes_only():
    written = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    rewards = torch.tensor([1.0, float("nan"), 0.1])
    given = torch.tensor([[0.5, 0.5, 9.0], [-1.0, 9.0, 9.0], [0.0, 0.0, 0.0]])
    found = reinforce_success(given, rewards, written)
    assert found.tolist() == [pytest.approx([0.6, 0.6, 0.0]), [-1.0, 0.0, 0.0], [0.0] * 3]
    with pytest.raises(ValueError, match="do not fit"):
        reinforce_success(given, rewards[:2], written)
    plain, _ = train(20, reward=TIERS)
    helped, _ = train(20, reward=TIERS, success=0.1)
    assert not torch.equal(plain.logits, helped.logits)


def test_dler_selective_merging_keeps_brevity_where_it_was_learned_most():
    """The largest updates, scaled, on the base: between the two in length, and no less accurate than the base."""
    base, (tuned, _) = Thinker(), train(60, reward=TIERS)
    merge = partial(merge_updates, base.state_dict(), tuned.state_dict())
    merged, ends = Thinker(), {}
    for name, options in (("tuned", {"share": 1.0, "scale": 1.0}), ("base", {"share": 0.0}), ("half", {"share": 0.5})):
        merged.load_state_dict(merge(**options))
        ends[name] = merged.course()
        if name == "half":
            moved = (merged.logits != base.logits).sum().item()
            assert moved == 6
    assert np.array_equal(ends["tuned"][0], tuned.course()[0])
    assert np.array_equal(ends["base"][0], base.course()[0])
    assert ends["tuned"][0][0] < ends["half"][0][0] < ends["base"][0][0]
    assert (ends["half"][1] >= ends["base"][1] - 1e-6).all()
