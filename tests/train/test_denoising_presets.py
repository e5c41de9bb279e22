"""What a preset for denoising policies samples, compares and pays, against the definition of its source."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from painting import brightness, job_of, tiny, weights
from stopping import metrics, stopped

from guerdon.algebra import reward
from guerdon.core import Scores
from guerdon.core.errors import RecipeError
from guerdon.objectives.denoising import logp, replay
from guerdon.train import presets
from guerdon.train.denoising import learning, loop
from guerdon.train.denoising.loop import train
from guerdon.train.denoising.recipe import DenoisingRecipe
from guerdon.train.denoising.sampling import normals
from guerdon.train.run import Run

pytest.importorskip("diffusers")


@pytest.fixture(autouse=True)
def bright(monkeypatch):
    """The reward is how bright a picture is."""
    monkeypatch.setattr(DenoisingRecipe, "load_reward", lambda self, allow_import=False: brightness())


def stepped(recipe, folder, monkeypatch, *, step=1):
    """A job after one of its steps, the batch that was sampled, what was scored and what was learned from."""
    seen = {}
    for name in ("sampled", "score", "learn"):
        own = getattr(loop, name)

        def watched(*given, own=own, name=name):
            seen[name] = given[2] if name == "learn" else own(*given)
            return own(*given) if name == "learn" else seen[name]

        monkeypatch.setattr(loop, name, watched)
    job, engine = job_of(recipe, folder)
    job.step = step - 1
    with engine:
        record = loop._step(job)
    return job, seen["sampled"], seen["score"], seen["learn"].advantages.numpy(), record


def z(values, ddof=1, eps=1e-4):
    values = np.asarray(values, np.float64)
    return (values - values.mean()) / (values.std(ddof=ddof) + eps)


def sign(x):
    return int(x > 0) - int(x < 0)


def test_dense_grpo_calibrates_the_noise_of_each_step_by_what_it_gained(tmp_path, monkeypatch):
    recipe = tiny(method={"preset": "dense_grpo"}, sampling={"calibration": {"balance": 0.2, "change": 0.05}})
    before, _ = job_of(recipe, tmp_path / "before")
    s = [1, 0.75, 0.5, 0.25]
    started = [0.7 * math.sqrt(s[k] / (1 - (s[k] if s[k] < 1 else s[1]))) for k in range(3)] + [0.0]
    np.testing.assert_allclose(before.noise, started, rtol=1e-5)
    job, batch, found, _, _ = stepped(recipe, tmp_path / "run", monkeypatch)
    np.testing.assert_allclose(batch.chain.std[:3], [a / 2 for a in started[:3]], rtol=1e-5)  # a √(1/4)
    table = found.views[0].read(0.0)
    for k in range(3):
        surplus = abs(sum(sign(row[k + 1] - row[k]) for row in table))
        moved = started[k] + 0.05 if surplus < 0.2 * 12 else max(started[k] - 0.05, 0.01)
        assert float(job.noise[k]) == pytest.approx(moved, rel=1e-5)
    assert float(job.noise[3]) == 0.0


def test_calibrated_noise_survives_a_kill_bit_for_bit(tmp_path, monkeypatch):
    recipe = tiny(method={"preset": "dense_grpo"}, sampling={"calibration": {}}, steps=3, keep={"checkpoint_every": 1})
    train(recipe, tmp_path / "whole")
    stopped(monkeypatch, train, recipe, tmp_path / "killed", after=2)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    first, second = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_turningpoint_grpo_pays_a_turn_with_all_that_it_led_to(tmp_path, monkeypatch):
    """The sheet's definition: signs of a gain, of the one before, of what follows and of the whole; balanced."""
    recipe = tiny(
        method={"preset": "turningpoint_grpo", "sampling": {"group": 8}}, sampling={"kind": "cps", "a": 0.7, "steps": 6}
    )
    _, _, found, advantages, record = stepped(recipe, tmp_path, monkeypatch)
    table = found.views[0].read(0.0)
    rewards, turns = np.diff(table, axis=1), []
    for i, k in itertools.product(range(24), range(6)):
        gain, left, whole = table[i, k + 1] - table[i, k], table[i, 6] - table[i, k + 1], table[i, 6] - table[i, 0]
        turned = k == 0 or sign(table[i, k] - table[i, k - 1]) == -sign(gain)
        if gain and sign(gain) == sign(left) == sign(whole) and turned:
            turns.append((table[i, 6] - table[i, k], i, k))
    up, down = (sorted((t for t in turns if sign(t[0]) == way), key=lambda t: -abs(t[0])) for way in (1, -1))
    assert up
    keep = min(len(up), len(down)) or len(turns)
    for paid, i, k in up[:keep] + down[:keep]:
        rewards[i, k] = paid
    expected = np.zeros((24, 6))
    for group, k in itertools.product(range(3), range(5)):  # the last step is without noise
        rows = slice(8 * group, 8 * group + 8)
        expected[rows, k] = z(rewards[rows, k])
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    assert record["grad_norm"] > 0


def test_g2rpo_compares_pictures_that_differ_by_one_step_at_two_granularities(tmp_path, monkeypatch):
    sampling = {"steps": 5, "window": [0, 3], "singular": True, "granularities": [1, 2]}
    recipe = tiny(method={"preset": "g2rpo", "sampling": {"group": 12}}, sampling=sampling)
    _, batch, found, advantages, record = stepped(recipe, tmp_path, monkeypatch)
    states, explored = batch.states.numpy(), np.arange(12) % 3
    assert (batch.trajectory.mask.reshape(3, 12, 5).numpy() == (explored[:, None] == np.arange(5))).all()
    grouped = states.reshape(3, 12, 6, -1)
    for group, row in itertools.product(range(3), range(12)):
        shared = explored[row] + 1  # states from noise to before the step's own
        np.testing.assert_allclose(grouped[group, row, :shared], grouped[group, 2, :shared], atol=1e-5)
    # Behind the step that explored: one step as it was, then two at a time, to the end.
    levels = [1, 0.8, 0.6, 0.4, 0.2, 0]
    fresh, engine = job_of(recipe, tmp_path / "fresh")
    coarse = []
    with engine, torch.no_grad():
        for i in range(36):
            at = explored[i % 12] + 1
            nodes = list(dict.fromkeys([at, *range(at + 1, 5, 2), 5]))
            x, label = batch.states[i : i + 1, at], torch.tensor([int(batch.rollouts.prompts[i])])
            for here, there in itertools.pairwise(nodes):
                v = fresh.denoiser.network(x, timestep=torch.tensor([levels[here] * 1000.0]), class_labels=label).sample
                x = x + (levels[there] - levels[here]) * v
            coarse.append(np.clip(np.round((x[0].numpy() + 1) * 127.5), 0, 255).mean() / 255)
    np.testing.assert_allclose(found.views[1].read(0.0), coarse, atol=2e-3)  # a byte more or less
    expected = np.zeros((36, 5))
    for group, k in itertools.product(range(3), range(3)):
        rows = 12 * group + np.flatnonzero(explored == k)
        expected[rows, k] = sum(z(view.read(0.0)[rows], eps=1e-8) for view in found.views)
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    assert record["grad_norm"] > 0


@pytest.mark.parametrize(("step", "learned"), [(1, 2), (3, 3), (6, 4)])
def test_b2_diffurl_keeps_the_best_and_the_worst_of_the_branches_of_a_trunk(tmp_path, monkeypatch, step, learned):
    """n = 2 + ⌊3 (step − 1)/6⌋ of four steps are learned from; those before are noisy, shared, and teach nothing."""
    sampling = {"branches": 3, "interval": [2, 4]}
    recipe = tiny(method={"preset": "b2_diffurl", "sampling": {"group": 9}}, sampling=sampling, steps=6)
    _, batch, found, advantages, record = stepped(recipe, tmp_path, monkeypatch, step=step)
    at = 4 - learned
    trunks = batch.states.reshape(9, 3, 5, -1)
    assert torch.equal(trunks[:, :, : at + 1], trunks[:, :1, : at + 1].expand_as(trunks[:, :, : at + 1]))
    assert not torch.equal(trunks[:, 0, at + 1], trunks[:, 1, at + 1])
    fresh, _ = job_of(
        recipe, tmp_path / "fresh"
    )  # every step before the last has noise, that of a trunk its first row's
    noise = normals(range(27), (5, 1, 4, 4), seed=0, step=step)
    everywhere = (torch.arange(4) < 3).expand(27, 4)
    means = replay(fresh.denoiser, batch.trajectory, batch.chain, mask=everywhere, condition=batch.condition).mean
    drawn = (batch.states[:, 1:] - means.detach()) / batch.chain.std[:, None, None, None].clamp(min=1e-9)
    for row, k in itertools.product(range(27), range(3)):
        source = row if k >= at else row - row % 3
        torch.testing.assert_close(drawn[row, k], noise[source, k + 1], rtol=1e-3, atol=1e-3)
    assert (batch.trajectory.mask.numpy() == ((np.arange(4) >= at) & (np.arange(4) < 3))).all()
    scores = found.scores.read(0.0)
    expected = np.zeros(27)
    for group in range(3):
        score = z(scores[9 * group : 9 * group + 9], ddof=0, eps=1e-8)
        for trunk in range(0, 9, 3):
            branches = score[trunk : trunk + 3]
            best, worst = int(branches.argmax()), int(branches.argmin())
            if branches[best] >= 0.5:
                expected[9 * group + trunk + best] = branches[best]
            if branches[worst] < -0.5:
                expected[9 * group + trunk + worst] = branches[worst]
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    assert 0 < np.count_nonzero(expected) < 27
    assert record["grad_norm"] > 0


def test_branches_of_a_trunk_that_is_not_finite_abstain(tmp_path, monkeypatch):
    sampling = {"branches": 2, "interval": [2, 2]}
    recipe = tiny(method={"preset": "b2_diffurl", "sampling": {"group": 4}}, sampling=sampling)
    job, engine = job_of(recipe, tmp_path)
    predict = job.denoiser.predict

    def broken(x, time, **condition):
        said = predict(x, time, **condition)
        wrong = (condition["class_labels"] == 1) & (time > 600)  # in the trunk alone
        return torch.where(wrong.reshape(-1, 1, 1, 1), torch.nan, said)

    monkeypatch.setattr(job.denoiser, "predict", broken)
    with engine:
        batch = loop.sampled(job, 1)
        scores = loop.score(job, batch, loop.Context(step=1)).scores
    wrong = [i for i, prompt in enumerate(batch.rollouts.prompts) if prompt == "1"]
    assert sorted(scores.reasons) == wrong
    assert not batch.trajectory.mask[wrong].any()
    assert batch.trajectory.mask.any()


def pairs(scores, size):
    """Rows of each pair of a group, the better first."""
    found = []
    for begin in range(0, len(scores), size):
        for i, j in itertools.combinations(range(begin, begin + size), 2):
            if scores[i] != scores[j]:
                found.append((i, j) if scores[i] > scores[j] else (j, i))
    return found


@pytest.mark.parametrize("micro", [4, 64])
def test_d3po_prefers_every_step_of_the_better_picture(tmp_path, monkeypatch, micro):
    """At the reference: log 2, and −β/2 (∇ log π_w − ∇ log π_l), the mean over pairs and steps."""
    recipe = tiny(method={"preset": "d3po", "sampling": {"group": 3}}, batch={"micro": micro})
    fresh, engine = job_of(recipe, tmp_path / "fresh")
    with engine:
        batch = loop.sampled(fresh, 1)
        scores = loop.score(fresh, batch, loop.Context(step=1)).scores.read(0.0)
    now = logp(fresh.denoiser, batch.trajectory, batch.chain, condition=batch.condition)
    better, worse = (torch.tensor(x) for x in zip(*pairs(scores, 3), strict=True))
    (-0.05 * (now[better, :3] - now[worse, :3]).mean()).backward()
    expected = {name: p.grad for name, p in fresh.denoiser.network.named_parameters() if p.grad is not None}
    found = {}
    add = learning.add_gradients

    def watched(accelerator, learned):
        found.update(
            {name: p.grad.clone() for name, p in job.denoiser.network.named_parameters() if p.grad is not None}
        )
        add(accelerator, learned)

    monkeypatch.setattr(learning, "add_gradients", watched)
    job, engine = job_of(recipe, tmp_path / "run")
    with engine:
        record = loop._step(job)
    assert record["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-7)


def test_prdp_regresses_differences_of_log_ratios_on_those_of_rewards(tmp_path, monkeypatch):
    """At the reference every log-ratio is 0: the loss is the mean of (Δr / β)² over all pairs, equals included."""
    method = {"preset": "prdp", "sampling": {"group": 4}, "objective": {"beta": 0.5}}
    recipe = tiny(method=method, sampling={"reduce": "sum"}, batch={"micro": 16})
    _, _, found, _, record = stepped(recipe, tmp_path, monkeypatch)
    scores = found.scores.read(0.0).reshape(3, 4)
    terms = [((a - b) / 0.5) ** 2 for group in scores for a, b in itertools.combinations(group, 2)]
    assert record["loss"] == pytest.approx(np.mean(terms), rel=1e-4)
    assert record["grad_norm"] > 0


@pytest.mark.parametrize("preset", ["d3po", "prdp"])
def test_pairs_learn_in_minibatches_and_without_those_that_abstain(tmp_path, monkeypatch, preset):
    @reward(range=(0, 1), lane="batch")
    def some(completion) -> Scores:
        return Scores.of([None if i % 5 == 0 else np.asarray(p).mean() / 255 for i, p in enumerate(completion)])

    monkeypatch.setattr(DenoisingRecipe, "load_reward", lambda self, allow_import=False: some())
    batch = {"prompts": 4, "minibatches": 2, "passes": 2}
    recipe = tiny(method={"preset": preset, "sampling": {"group": 3}}, batch=batch, max_abstain=0.5)
    train(recipe, tmp_path / "run")
    first, last = metrics(tmp_path / "run")
    assert first["abstained"] == last["abstained"] == 0.25
    assert all(math.isfinite(record["loss"]) and record["grad_norm"] > 0 for record in (first, last))
    assert 0 <= last["held"] <= 1


NAMES = ["flow_grpo", "dense_grpo", "turningpoint_grpo", "g2rpo", "b2_diffurl", "rlcm", "d3po", "prdp"]


@pytest.mark.parametrize("name", NAMES)
def test_a_dumped_method_gives_the_method_back(name):
    method = presets.load(name)
    assert presets.load("grpo", **method.dump()) == method


@pytest.mark.parametrize(
    ("method", "sampling", "message"),
    [
        ("g2rpo", {"singular": True, "window": [0, 3]}, None),
        ({"preset": "g2rpo", "sampling": {"group": 4}}, {"singular": True}, "4 pictures .* over the 3 steps"),
        ("g2rpo", {"granularities": [1, 2]}, "set singular: true"),
        ("g2rpo", {"singular": True, "granularities": [2]}, "1 before others"),
        ("dense_grpo", {"singular": True, "granularities": [1, 2]}, "its own views of a step"),
        ("flow_grpo", {"calibration": {}}, "it reads what each step gained"),
        ("dense_grpo", {"calibration": {}, "kind": "cps"}, "begins with the noise of flow_sde"),
        ("dense_grpo", {"calibration": {"floor": 0}}, "change and floor are above 0"),
        ("dense_grpo", {"calibration": {}, "singular": True}, "neither interval nor calibration"),
        ("b2_diffurl", {"branches": 5}, "set interval"),
        ("b2_diffurl", {"branches": 3, "interval": [2, 4]}, "20 pictures .* do not divide into 3"),
        ("b2_diffurl", {"branches": 5, "interval": [1, 4]}, "they grow, and explore"),
        ("b2_diffurl", {}, "and there are none: a denoising policy has them with sampling.interval"),
        ({"preset": "d3po", "kl": {"coefficient": 0.1}}, {}, "takes no penalty per step"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_settings_that_do_not_go_together_are_named(method, sampling, message):
    given = method if isinstance(method, dict) else {"preset": method}
    group = {"group": presets.load(given["preset"]).sampling.group}
    make = partial(tiny, sampling=sampling, method={"sampling": group} | given)
    if message is None:
        assert make().sampling.singular
        return
    with pytest.raises(RecipeError, match=message):
        make()


def test_a_run_of_branches_is_kept_and_shown(tmp_path):
    sampling = {"branches": 2, "interval": [2, 4]}
    train(tiny(method={"preset": "b2_diffurl", "sampling": {"group": 4}}, sampling=sampling), tmp_path / "run")
    assert [step for step, _ in Run(tmp_path / "run").rollouts()] == [1, 2]
