"""RL-WATERMARK: green lists, the detector that looks for them, and rewards that are anchored."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Rollouts
from guerdon.algebra import spec
from guerdon.credit import group_relative
from guerdon.objectives import policy_gradient
from guerdon.objectives.clip import none
from guerdon.rewards import watermark
from guerdon.rewards.watermark import biased, gate, green_lists, green_share, token_dimensions


def detected(ids, green, entropy=None, **settings):
    settings = {"threshold": None, **settings} if entropy is None else settings
    columns = {"ids": ids, "green": green} | ({} if entropy is None else {"entropy": entropy})
    return watermark.detect(**settings).score(Rollouts(["?"] * len(ids), [""] * len(ids), columns))


def paid(*, group=None, missing="abstain", **columns):
    n = len(columns["marked"])
    full = {"relevance": [0.5] * n, "quality": [0.5] * n, **columns}
    batch = Rollouts(["?"] * n, [""] * n, full, groups=None if group is None else np.array(group))
    return watermark.anchored(missing=missing).score(batch)


def by_hand(rows):
    """Four criteria, each from 0 to 1 over the group, added: written out."""
    criteria = [
        [row["marked"] - row["original"] for row in rows],
        [row["paraphrased"] - sum(row["spoofed"]) / len(row["spoofed"]) for row in rows],
        [row["relevance"] for row in rows],
        [row["quality"] for row in rows],
    ]
    return [sum((x[i] - min(x)) / (max(x) - min(x) + 1e-8) for x in criteria) for i in range(len(rows))]


scores = st.floats(0, 1)
rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "marked": scores, "original": scores, "paraphrased": scores, "relevance": scores, "quality": scores,
            "spoofed": st.lists(scores, min_size=3, max_size=3),
        }
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


@settings(deadline=None)
@given(rows_of)
def test_rl_watermark_rewards_are_those_of_the_definition(rows):
    found = paid(**columns_of(rows)).read(math.nan)
    np.testing.assert_allclose(found, by_hand(rows), atol=1e-6)
    assert ((found >= 0) & (found <= 4)).all()


def test_rl_watermark_worked_example():
    """G = 8 with d₁ from 0.1 to 0.8: the best has 1 of it; nothing else differs."""
    marked = [0.5 + 0.1 * i for i in range(1, 9)]
    found = paid(marked=marked, original=[0.5] * 8, paraphrased=[0.6] * 8, spoofed=[[0.4, 0.5, 0.6]] * 8)
    np.testing.assert_allclose(found.read(0.0), [i / 7 for i in range(8)], atol=1e-6)
    assert found.details["robustness"] == pytest.approx([0.1] * 8)


@settings(deadline=None)
@given(rows_of, st.floats(-0.5, 0.5))
def test_rl_watermark_a_constant_on_all_detection_scores_changes_nothing(rows, constant):
    raised = [
        {
            **row,
            **{name: row[name] + constant for name in ("marked", "original", "paraphrased")},
            "spoofed": [each + constant for each in row["spoofed"]],
        }
        for row in rows
    ]
    before, after = (paid(**columns_of(r)).details for r in (rows, raised))
    for name in ("detection", "robustness"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-12)


def test_rl_watermark_equal_values_are_0_and_teach_nothing():
    found = paid(marked=[0.7] * 8, original=[0.5] * 8, paraphrased=[0.6] * 8, spoofed=[[0.5] * 3] * 8)
    assert found.read(math.nan).tolist() == [0.0] * 8
    advantages = group_relative(torch.as_tensor(found.read(0.0)), torch.zeros(8, dtype=torch.int64), eps=1e-8)
    assert not advantages.any()


def test_the_list_of_all_tokens_earns_nothing():
    """The known hack: with every token green, every text has D = 1, and z sees that chance would do as well."""
    everything = list(range(50))
    texts = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    scores = detected(texts, [everything] * 3, vocabulary=50)
    assert scores.read(0.0).tolist() == [1.0] * 3
    assert scores.details["z"] == [0.0] * 3
    honest = {"marked": 0.7, "original": 0.5, "paraphrased": 0.65, "spoofed": [0.5] * 3}
    hacked = {"marked": 1.0, "original": 1.0, "paraphrased": 1.0, "spoofed": [1.0] * 3}
    rows = [hacked, honest, honest]
    found = paid(**columns_of(rows))
    assert found.details["detection"][0] == found.details["robustness"][0] == 0
    assert found.read(0.0)[0] == 0
    assert found.read(0.0)[1] == pytest.approx(2, abs=1e-6)
    assert watermark.balance().evaluate(everything, 50) == 0


def test_one_green_token_again_and_again_counts_once_if_it_is_to():
    """The known hack: a text of one green token. Counted where it is new only, it proves nothing."""
    loop, honest = [3] * 60, list(range(60))
    green = [[*range(0, 60, 2), 3]] * 2
    every, once = (detected([loop, honest], green, count=count) for count in ("all", "distinct"))
    assert every.details["z"][0] > 7
    assert once.details["positions"] == [1, 60]
    assert once.details["z"][0] == pytest.approx(1.0)
    assert once.details["z"][1] == every.details["z"][1]


def test_a_token_is_new_where_it_counts_for_the_first_time():
    """5 stands first where nothing else could: only its second place counts, beside that of 6."""
    entropy = [[0.0, 2.0, 2.0, 2.0]]
    found = detected([[5, 5, 6, 5]], [[5]], entropy, lead=0, threshold=1.0, count="distinct")
    assert (found.read(np.nan)[0], found.details["positions"]) == (0.5, [2])


def test_a_list_names_no_token_beyond_its_vocabulary():
    found = detected([[0, 3]] * 2, [[3], [4]], vocabulary=4)
    assert found.read(np.nan)[0] == 0.5
    assert found.reasons == {1: "green names token 4 of a vocabulary of 4"}


def test_missing_attack_scores_abstain_or_get_the_mean_of_the_group():
    columns = {
        "marked": [0.7, 0.8, 0.9],
        "original": [0.5] * 3,
        "paraphrased": [0.6, None, 0.8],
        "spoofed": [[0.5, 0.3], [0.5, 0.5], [None, 0.7]],
    }
    found = paid(**columns)
    assert found.abstained.tolist() == [False, True, True]
    assert found.reasons == {1: "paraphrased is no finite number", 2: "a spoof has no finite score"}
    filled = paid(**columns, missing="mean")
    rows = [
        {"marked": 0.7, "original": 0.5, "paraphrased": 0.6, "spoofed": [0.5, 0.3], "relevance": 0.5, "quality": 0.5},
        {"marked": 0.8, "original": 0.5, "paraphrased": 0.7, "spoofed": [0.5, 0.5], "relevance": 0.5, "quality": 0.5},
        {"marked": 0.9, "original": 0.5, "paraphrased": 0.8, "spoofed": [0.5, 0.7], "relevance": 0.5, "quality": 0.5},
    ]
    np.testing.assert_allclose(filled.read(math.nan), by_hand(rows), atol=1e-6)
    none = paid(marked=[0.5, 0.6], original=[0.5] * 2, paraphrased=[None] * 2, spoofed=[None] * 2, missing="mean")
    assert none.details["robustness"] == [0.0, 0.0]
    short = paid(**{**columns, "spoofed": [[0.5, 0.3], [0.5], [0.1, 0.7]]})
    assert short.reasons[1] == "1 spoofs, where others have 2"
    judged = paid(**{**columns, "quality": [None, 1.0, 1.0]}, missing="mean")
    assert judged.reasons == {0: "quality is no finite number"}


def test_ranges_are_of_each_group_and_without_those_that_abstain():
    columns = {
        "marked": [0.6, 0.7, math.nan, 0.9, 0.95],
        "original": [0.5] * 5,
        "paraphrased": [0.6] * 5,
        "spoofed": [[0.5]] * 5,
    }
    found = paid(**columns, group=[0, 0, 0, 1, 1])
    np.testing.assert_allclose(found.read(-1.0), [0, 1, -1, 0, 1], atol=1e-6)
    assert found.reasons == {2: "marked is no finite number"}
    odd = paid(**{**columns, "spoofed": [[0.5], [0.5, 0.5], "x", [0.5], [0.5]]})
    assert set(odd.reasons) == {0, 2, 3, 4}


def test_the_detector_is_the_z_test_of_its_source():
    rng = np.random.default_rng(0)
    green, counted = rng.random((6, 40)) < 0.6, rng.random((6, 40)) < 0.8
    found = green_share(green, counted, gamma=0.25)
    for row in range(6):
        hits, total = int((green & counted)[row].sum()), int(counted[row].sum())
        z = (hits - 0.25 * total) / math.sqrt(total * 0.25 * 0.75)
        assert (found.green[row], found.positions[row]) == (hits, total)
        assert found.share[row] == pytest.approx(hits / total)
        assert found.z[row] == pytest.approx(z)
        assert found.p[row] == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)))
    with pytest.raises(ValueError, match="gamma is in"):
        green_share(green, counted, gamma=1.5)


def test_p_values_of_unmarked_text_are_uniform():
    rng = np.random.default_rng(1)
    found = green_share(rng.random((4000, 400)) < 0.25, np.ones((4000, 400), bool), gamma=0.25)
    for level in (0.01, 0.05, 0.5):
        assert (found.p <= level).mean() == pytest.approx(level, abs=0.03)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=8), st.sets(st.integers(0, 12))), min_size=1, max_size=6)
)
def test_detection_is_the_share_of_tokens_on_the_list(rows):
    found = detected([ids for ids, _ in rows], [sorted(green) for _, green in rows])
    for value, distinct, (ids, green) in zip(
        found.read(math.nan),
        detected([ids for ids, _ in rows], [sorted(green) for _, green in rows], count="distinct").read(math.nan),
        rows,
        strict=True,
    ):
        assert value == pytest.approx(sum(i in green for i in ids) / max(len(ids), 1))
        assert distinct == pytest.approx(len(set(ids) & green) / max(len(set(ids)), 1))


def test_rl_watermark_looks_at_the_first_21_positions_and_where_entropy_is_high():
    entropy = np.zeros((1, 30))
    entropy[0, [3, 25, 28]] = [2.0, 1.01, 1.0]
    open_ = gate(entropy, np.ones((1, 30), bool))
    assert np.flatnonzero(open_[0]).tolist() == [*range(21), 25]
    ids = list(range(30))
    found = detected([ids], [[0, 25, 28]], [entropy[0].tolist()])
    assert found.read(0.0)[0] == pytest.approx(2 / 22)
    assert found.details["positions"] == [22]


def test_texts_and_lists_that_cannot_be_used():
    found = detected(
        [[1, 2], [], None, [1], [1, -1], [1, 2], [True]],
        [[1], [1], [1], None, [1], [1, 99], [1]],
        [[2.0, 2.0], [], [1.0], [1.0], [1.0, 1.0], [1.0], [1.0]],
        vocabulary=50,
    )
    assert found.valid.tolist() == [True, True] + [False] * 5
    assert found.read(math.nan)[:2].tolist() == [0.5, 0.0]
    assert found.details["problem"][1] == "no tokens that count"
    assert "ids no list" in found.reasons[2]
    assert "green no list" in found.reasons[3]
    assert "entropy not one finite number for each of 2" in found.reasons[5]
    for options, message in [
        ({"gamma": 1.0}, "gamma is"),
        ({"lead": -1}, "lead and"),
        ({"vocabulary": 0}, "vocabulary"),
    ]:
        with pytest.raises(ValueError, match=message):
            watermark.detect(**options)


def test_balance_is_1_for_half_of_the_vocabulary():
    part = watermark.balance()
    assert [part.evaluate(list(range(k)), 8) for k in (0, 2, 4, 6, 8)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert part.evaluate([1, 1, 1, 1], 8) == 0.25
    batch = Rollouts(["?"] * 3, [""] * 3, {"green": [[9], None, [0]], "vocabulary": [8, 8, 0]})
    assert part.score(batch).abstained.all()


def test_rl_watermark_lists_are_the_signs_and_gradients_go_straight_through():
    pooled = torch.tensor([[0.3, -2.0, 0.0], [-1e-20, 5e7, 0.1]], requires_grad=True)
    dimension = token_dimensions(12, 3, seed=7)
    assert dimension.bincount().tolist() == [4, 4, 4]
    assert torch.equal(dimension, token_dimensions(12, 3, seed=7))
    assert not torch.equal(dimension, token_dimensions(12, 3, seed=8))
    green = green_lists(pooled, dimension)
    signs = np.where(pooled.detach().numpy() >= 0, 1.0, 0.0)
    assert green.detach().numpy().tolist() == signs[:, dimension.numpy()].tolist()
    weights = torch.arange(24.0).reshape(2, 12)
    (green * weights).sum().backward()
    expected = [[float(weights[i][dimension == d].sum()) / 2 for d in range(3)] for i in range(2)]
    np.testing.assert_allclose(pooled.grad.numpy(), expected)
    with pytest.raises(ValueError, match="names places"):
        green_lists(pooled, torch.tensor([3]))


def test_rl_watermark_bias_scales_the_logits_of_green_tokens_where_the_gate_is_open():
    logits = torch.tensor([[2.0, -1.0, -math.inf], [2.0, -1.0, 3.0]])
    green = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    found = biased(logits, green)
    np.testing.assert_allclose(found, [[2.26, -1.13, -math.inf], [2.26, -1.0, 3.39]], rtol=1e-6)
    shut = biased(logits, green, open=torch.tensor([False, True]))
    np.testing.assert_allclose(shut[0], logits[0])
    np.testing.assert_allclose(biased(logits, green, how="add", delta=2.0)[1], [4.0, -1.0, 5.0])
    for options, message in [({"delta": -1.0}, "delta"), ({"how": "both"}, "how is")]:
        with pytest.raises(ValueError, match=message):
            biased(logits, green, **options)


def test_rl_watermark_a_token_that_cannot_come_has_no_slope_and_is_no_nan():
    green = torch.ones(1, 3, requires_grad=True)
    biased(torch.tensor([[2.0, -1.0, -math.inf]]), green, delta=0.5)[:, :2].sum().backward()
    np.testing.assert_allclose(green.grad, [[1.0, -0.5, 0.0]])


def test_rl_watermark_from_vectors_to_an_update():
    """The whole way on a bigram language: a policy's lists, marked and other text, detection, rewards, a gradient."""
    rng = torch.Generator().manual_seed(0)
    vocabulary, dims, length, group = 40, 8, 60, 8
    language = torch.randn(vocabulary, vocabulary, generator=rng) + 3.0
    dimension = token_dimensions(vocabulary, dims)
    mean = torch.zeros(dims, requires_grad=True)
    noise = torch.randn(group, dims, generator=rng)
    green = green_lists((mean + noise).detach(), dimension)

    def write(lists, delta):
        ids = torch.zeros(group, length, dtype=torch.int64)
        entropies = torch.zeros(group, length)
        last = torch.zeros(group, dtype=torch.int64)
        for t in range(length):
            logits = language[last]
            p = logits.softmax(-1)
            entropies[:, t] = -(p * p.log()).sum(-1)
            marked = biased(logits, lists, delta=delta, open=(entropies[:, t] > 1.0) | (t < 21))
            last = torch.multinomial(marked.softmax(-1), 1, generator=rng)[:, 0]
            ids[:, t] = last
        return ids.tolist(), entropies.tolist()

    lists = [np.flatnonzero(row).tolist() for row in green.numpy()]

    def score(delta):
        ids, entropy = write(green, delta)
        return detected(ids, lists, entropy, vocabulary=vocabulary)

    marked, plain, paraphrase = score(0.6), score(0.0), score(0.3)
    assert np.mean(marked.details["z"]) > np.mean(paraphrase.details["z"]) > np.mean(plain.details["z"])
    spoofs = np.stack([score(0.0).read(math.nan) for _ in range(3)], 1)
    rewards = paid(
        marked=marked.read(math.nan).tolist(),
        original=plain.read(math.nan).tolist(),
        paraphrased=paraphrase.read(math.nan).tolist(),
        spoofed=spoofs.tolist(),
    ).read(math.nan)
    advantages = group_relative(torch.as_tensor(rewards), torch.zeros(group, dtype=torch.int64), eps=1e-8)
    assert float(advantages.mean()) == pytest.approx(0, abs=1e-6)
    logp = -0.5 * ((mean + noise).detach() - mean).square().sum(1, keepdim=True)
    loss, _ = policy_gradient(
        logp, logp.detach(), advantages.float(), torch.ones(group, 1, dtype=torch.bool), clip=none
    )
    loss.backward()
    expected = -(advantages.float()[:, None] * noise).mean(0)
    np.testing.assert_allclose(mean.grad, expected, atol=1e-5)
    assert float(mean.grad.norm()) > 1e-3


def test_parts_are_data():
    for part in (watermark.detect(gamma=0.25), watermark.anchored(missing="mean"), watermark.balance()):
        assert spec.load(spec.dump(part)) == part
    assert watermark.detect().requires == {"ids", "green", "entropy"}
    assert watermark.anchored().scope == "group"


def test_rl_watermark_scores_a_file(tmp_path):
    from typer.testing import CliRunner

    from guerdon.cli import app

    rows = [
        {
            "prompt": "p", "completion": "t", "ids": [1, 2, 3], "green": green, "marked": d, "original": 0.5,
            "paraphrased": 0.5, "spoofed": [0.5], "relevance": 4, "quality": 4,
        }
        for green, d in [([1, 2], 0.6), ([9], 0.8), (None, 0.7)]
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for reward, expected in [
        ("{part: watermark.detect, threshold: null}", [2 / 3, 0.0, None]),
        ("watermark.anchored", [0.0, 1.0, 0.5]),
    ]:
        out = tmp_path / f"{len(reward)}.jsonl"
        result = CliRunner().invoke(app, ["score", str(tmp_path / "in.jsonl"), "-r", reward, "-o", str(out)])
        assert result.exit_code == 0, result.output
        found = [json.loads(line)["score"] for line in out.read_text().splitlines()]
        assert found == pytest.approx(expected, abs=1e-6)
