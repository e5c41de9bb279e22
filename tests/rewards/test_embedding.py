"""VLM-RM and VLM-RL: frames against goals in words, driving by them, and buffers scored many frames at a time."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon import Rollouts
from guerdon.algebra import spec
from guerdon.core.errors import GuerdonError
from guerdon.rewards import embedding
from guerdon.rewards.embedding import best_alpha, driving_reward, dual_encoder, label_distance, projected, relabel

GOOD, BAD = [1.0, 0.0], [0.0, 1.0]


def unit(rows):
    rows = np.asarray(rows, float)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def scored(part, frames, name="seen", **columns):
    return part.score(Rollouts(["?"] * len(frames), [""] * len(frames), {name: frames, **columns}))


vectors = st.integers(0, 2**32 - 1).map(lambda seed: unit(np.random.default_rng(seed).normal(size=(5, 6))))
alphas = st.floats(0, 1)


def test_vlm_rm_without_projection_is_the_cosine():
    rng = np.random.default_rng(0)
    states, goal = unit(rng.normal(size=(50, 16))), unit(rng.normal(size=16))
    found = projected(states, goal, np.zeros(16), alpha=0.0)
    np.testing.assert_allclose(found, states @ goal, atol=1e-6)
    part = embedding.goal(goal=[(3 * goal).tolist()], column="seen")
    np.testing.assert_allclose(scored(part, (7 * states).tolist()).read(0.0), states @ goal, atol=1e-12)


@settings(deadline=None)
@given(vectors, alphas)
def test_vlm_rm_is_the_matrix_of_the_paper(rows, alpha):
    """P = α ddᵀ/‖d‖² + (1 − α) I, written out."""
    states, goal, baseline = rows[:3], rows[3], rows[4]
    line = goal - baseline
    matrix = alpha * np.outer(line, line) / (line @ line) + (1 - alpha) * np.eye(6)
    expected = [1 - 0.5 * np.linalg.norm(matrix @ (state - goal)) ** 2 for state in states]
    found = projected(states, goal, baseline, alpha=alpha)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert ((found >= -1) & (found <= 1)).all()


@settings(deadline=None)
@given(vectors, alphas)
def test_vlm_rm_at_the_goal_is_1_and_at_the_baseline_the_same_for_every_alpha(rows, alpha):
    goal, baseline = rows[3], rows[4]
    found = projected(np.stack([goal, baseline]), goal, baseline, alpha=alpha)
    np.testing.assert_allclose(found, [1.0, 1 - np.linalg.norm(goal - baseline) ** 2 / 2], atol=1e-9)


@settings(deadline=None)
@given(vectors)
def test_vlm_rm_with_all_projection_sees_the_line_only(rows):
    goal, baseline = rows[3], rows[4]
    line = goal - baseline
    aside = rows[0] - (rows[0] @ line) / (line @ line) * line
    # What leaves the unit sphere is projected all the same, and the reward is the same.
    here, there = projected(np.stack([rows[1], rows[1] + aside]), goal, baseline, alpha=1.0)
    assert here == pytest.approx(there, abs=1e-9)


def test_vlm_rm_goals_are_means_that_keep_their_length():
    part = embedding.goal(goal=[GOOD, [0.0, 2.0]], column="seen")
    # g = (½, ½): 1 − ½ ‖(1, 0) − g‖² = 1 − ¼
    assert scored(part, [[1.0, 0.0], [1.0, 1.0]]).read(0.0) == pytest.approx([0.75, 1 - (math.sqrt(0.5) - 0.5) ** 2])


def test_vlm_rm_distance_of_rewards_and_labels():
    labels = np.random.default_rng(1).normal(size=40)
    assert label_distance(3 * labels + 2, labels) == pytest.approx(0, abs=1e-9)
    assert label_distance(-0.1 * labels + 5, labels) == pytest.approx(1)
    other = np.random.default_rng(2).normal(size=40)
    rho = np.corrcoef(other, labels)[0, 1]
    assert label_distance(other, labels) == pytest.approx(math.sqrt((1 - rho) / 2))
    assert label_distance(np.ones(3), np.arange(3.0)) is None
    with pytest.raises(ValueError, match="must be finite"):
        label_distance(np.array([math.nan, 1.0]), np.zeros(2))


def test_vlm_rm_alpha_is_chosen_by_labels():
    """Labels that are the place on the line: α = 1 sees nothing else, and is chosen."""
    rng = np.random.default_rng(3)
    goal, baseline = unit(rng.normal(size=8)), unit(rng.normal(size=8))
    along = rng.random(60)
    states = baseline + along[:, None] * (goal - baseline) + 0.8 * rng.normal(size=(60, 8))
    line = goal - baseline
    labels = -((1 - (states - baseline) @ line / (line @ line)) ** 2)
    alpha, distances = best_alpha(states, goal, baseline, labels)
    assert alpha == 1.0
    assert distances[0] > distances[5] > distances[10]
    with pytest.raises(ValueError, match="no alpha gives"):
        best_alpha(np.tile(goal, (3, 1)), goal, baseline, np.arange(3.0))


def test_vlm_rl_contrast_is_a_weighted_difference_of_cosines():
    rng = np.random.default_rng(0)
    frames, good, bad = rng.normal(size=(9, 5)), rng.normal(size=5), rng.normal(size=5)
    part = embedding.contrast(good=[good.tolist()], bad=[bad.tolist()], weights=(0.7, 0.2), column="seen")
    expected = unit(frames) @ (0.7 * unit(good)) - unit(frames) @ (0.2 * unit(bad))
    np.testing.assert_allclose(scored(part, frames.tolist()).read(0.0), expected, atol=1e-12)
    assert part.range == pytest.approx((-0.9, 0.9))


def test_what_is_no_picture_gets_the_lowest_contrast():
    ends = {"up": GOOD, "down": BAD}
    both = embedding.DualEncoder(
        lambda pictures: np.ones((len(pictures), 2)), lambda texts: np.array([ends[text] for text in texts])
    )
    part = embedding.contrast(good=["up"], bad=["down"], weights=(0.7, 0.2), encoder=both, column="seen")
    found = scored(part, [b"no picture", np.zeros((4, 4, 3), np.uint8)])
    assert found.read(math.nan).tolist() == pytest.approx([-0.9, 0.5 / math.sqrt(2)])
    assert "not a picture" in found.details["problem"][0]


def test_contrast_does_not_see_what_both_goals_share():
    """The known fault of one goal: whatever looks like the task is paid. What both descriptions share cancels."""
    shared = np.array([0.0, 0.0, 1.0])
    good, bad = unit([1.0, 0.0, 2.0]), unit([0.0, 1.0, 2.0])
    frames = [shared.tolist(), unit([0.2, 0.0, 1.0]).tolist()]
    one = scored(embedding.goal(goal=[good.tolist()], column="seen"), frames).read(0.0)
    two = scored(embedding.contrast(good=[good.tolist()], bad=[bad.tolist()], column="seen"), frames).read(0.0)
    assert one[0] > 0.85
    assert two[0] == pytest.approx(0, abs=1e-12)
    assert two[1] > 0.01


def driven(danger, speed, offset=0.0, angle=0.0, spread=0.0, **settings):
    return float(driving_reward(*(np.array([x], float) for x in (danger, speed, offset, angle, spread)), **settings)[0])


def test_vlm_rl_worked_example():
    for danger in (-0.5, 0.0):
        assert driven(danger, 25) == 1
        assert driven(danger, 0) == 0
    for danger in (0.03, 0.4):
        assert driven(danger, 0) == 1
        assert driven(danger, 25) == 0
    assert driven(0.015, 12.5) == pytest.approx(1)
    assert driven(0.015, 2.5) == pytest.approx(0.6)
    assert driven(0, 25, offset=-1.5, angle=45, spread=0.175) == pytest.approx(0.125)
    assert driven(0, 25, offset=3) == driven(0, 25, angle=-90) == driven(0, 25, spread=0.35) == 0
    assert driven(0.03, 80) == 0


def test_vlm_rl_the_base_reward_always_wins():
    part = embedding.driving(good=[GOOD], bad=[BAD])
    frames = [GOOD, GOOD, None, BAD, None]
    scores = scored(
        part, frames, "frame",
        speed=[25.0, 25.0, 25.0, 0.0, 0.0],
        offsets=[[0.0, 0.0]] * 3 + [[0.1, 0.4, -0.2], None],
        angle=[0] * 5,
        base=[0.0, -10.0, -10.0, 0.7, 0.0],
    )  # fmt: skip
    spread = math.sqrt(0.06)  # of 0.1, 0.4 and −0.2, around 0.1
    assert scores.read(math.nan)[:4] == pytest.approx([1.0, -10.0, -10.0, (1 - 0.2 / 3) * (1 - spread / 0.35)])
    assert scores.abstained.tolist() == [False] * 4 + [True]
    assert scores.details["meaning"][0] == 1
    assert scores.details["meaning"][3] == 0


def test_a_dangerous_view_does_not_pay_those_who_stand_for_good():
    """The known hack: park in front of a bad view. The simulator's own event overrules the pay."""
    part = embedding.driving(good=[GOOD], bad=[BAD])
    state = {"speed": [0.0] * 2, "offsets": [[0.0]] * 2, "angle": [0.0] * 2}
    assert scored(part, [BAD] * 2, "frame", **state, base=[0.0, -10.0]).read(0.0).tolist() == [1.0, -10.0]


def test_states_that_are_missing_abstain():
    part = embedding.driving(good=[GOOD], bad=[BAD])
    columns = {
        "speed": [None, 1.0, 1.0, math.inf],
        "offsets": [[0.0], [], [0.0, None], 0.5],
        "angle": [0.0] * 4,
        "base": [0.0] * 4,
    }
    scores = scored(part, [GOOD] * 4, "frame", **columns)
    assert not scores.valid.any()
    assert scores.reasons[0] == "speed not usable: None"
    assert scores.reasons[2] == "offsets not usable: [0.0, None]"


def test_batches_are_as_one_by_one():
    rng = np.random.default_rng(5)
    frames = rng.normal(size=(130, 4)).tolist()
    parts = [
        embedding.goal(goal=[[1, 2, 0, 0]], baseline=[[0, 1, 1, 0]], alpha=0.5, column="seen"),
        embedding.contrast(good=[[1, 0, 0, 0]], bad=[[0, 0, 1, 1]], column="seen"),
    ]
    for part in parts:
        together = scored(part, frames).read(0.0)
        np.testing.assert_allclose(together, [scored(part, [frame]).read(0.0)[0] for frame in frames], atol=1e-12)


def test_vlm_rl_a_buffer_is_relabelled_in_place_as_if_frame_by_frame():
    rng = np.random.default_rng(6)
    frames = rng.normal(size=(150, 3)).tolist()
    frames[7] = [0.0, 0.0, 0.0]
    part = embedding.contrast(good=[[1, 0, 0]], bad=[[0, 1, 0]], column="frame")
    buffer = np.full((200, 2), -7.0, np.float32)
    rows = rng.permutation(200)[:150]
    written = relabel(buffer, part, {"frame": frames}, rows=rows, batch=64)
    assert sorted(np.flatnonzero(written)) == sorted(set(rows.tolist()) - {rows[7]})
    for frame, row in zip(frames, rows, strict=True):
        expected = -7.0 if not any(frame) else 0.5 * (unit(frame)[0] - unit(frame)[1])
        assert buffer[row] == pytest.approx([expected] * 2, abs=1e-6)
    assert (buffer[~written] == -7).all()


def test_relabelling_is_refused_where_it_cannot_be_meant():
    from guerdon import shaping

    part = embedding.goal(goal=[GOOD], column="frame")
    with pytest.raises(ValueError, match="rows are 2 places"):
        relabel(np.zeros(1), part, {"frame": [GOOD, BAD]})
    with pytest.raises(ValueError, match="columns of one length"):
        relabel(np.zeros(3), part, {"frame": [GOOD], "other": [1, 2]})
    with pytest.raises(ValueError, match="compares the rows of a batch"):
        relabel(np.zeros(3), part >> shaping.center(), {"frame": [GOOD]})


def test_vectors_that_are_missing_abstain_and_the_others_are_scored():
    part = embedding.goal(goal=[GOOD], column="seen")
    scores = scored(part, [GOOD, None, [0, 0], [math.nan, 1], [1, 2, 3], "x", [1e200, 1e200]])
    assert scores.valid.tolist() == [True] + [False] * 5 + [True]
    assert scores.read(0.0)[6] == pytest.approx(math.sqrt(0.5))
    assert scores.reasons[2] == "the vector is zero"
    assert scores.reasons[3] == "the vector is not finite"
    assert "no vector of 2 numbers" in scores.reasons[4]


def test_goals_that_cannot_be_used_abstain_everywhere():
    for part, reason in [
        (embedding.goal(goal=["a cat"], column="seen"), "needs an encoder of texts"),
        (embedding.goal(goal=[[0.0, 0.0]], column="seen"), "a goal is texts, or vectors"),
        (embedding.goal(goal=[GOOD], baseline=[GOOD], alpha=1.0, column="seen"), "are the same"),
        (embedding.contrast(good=[GOOD], bad=[[1.0]], column="seen"), "the goals have 2 and 1"),
        (embedding.goal(goal=[GOOD], encoder=lambda frames: np.zeros((1, 2)), column="seen"), "for 2 entries"),
        (embedding.goal(goal=[GOOD], encoder=lambda frames: np.ones((2, 3)), column="seen"), "3 numbers for a frame"),
    ]:
        scores = scored(part, [GOOD, BAD])
        assert not scores.valid.any()
        assert reason in scores.reasons[0]


def test_options_that_cannot_be_meant():
    for options, message in [
        ({"goal": []}, "goal is a list"),
        ({"goal": "a cat"}, "a single one is written"),
        ({"goal": [GOOD], "alpha": 0.5}, "name a baseline"),
        ({"goal": [GOOD], "baseline": [BAD], "alpha": 1.5}, "alpha is in"),
    ]:
        with pytest.raises(ValueError, match=message):
            embedding.goal(**options)
    with pytest.raises(ValueError, match="weights must not be negative"):
        embedding.contrast(good=[GOOD], bad=[BAD], weights=(-1.0, 0.5))
    with pytest.raises(ValueError, match="lane is positive"):
        embedding.driving(lane=0.0)


def test_goals_in_words_and_frames_by_any_encoder():
    """An encoder of frames that are texts here, and of texts: counted letters."""

    def letters(texts):
        return np.array([[text.count(c) for c in "abc"] for text in texts], float)

    part = embedding.goal(goal=["aa", "b"], encoder=letters, texts=letters, column="seen")
    found = scored(part, ["a", "ab", "c"]).read(0.0)
    goal = np.array([0.5, 0.5, 0.0])
    expected = [1 - 0.5 * np.sum((unit(v) - goal) ** 2) for v in ([1, 0, 0], [1, 1, 0], [0, 0, 1])]
    np.testing.assert_allclose(found, expected)


def test_parts_are_data():
    part = embedding.goal(goal=["a"], baseline=["b"], alpha=0.5, encoder="some/clip", column="image")
    assert spec.load(spec.dump(part)) == part
    assert part.requires == {"image"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of the real class with random weights, in a folder as one is published."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **size, "vocab_size": len(words), "max_position_embeddings": 16, "eos_token_id": len(words) - 1,
            "bos_token_id": len(words) - 2, "pad_token_id": len(words) - 1,
        },
        vision_config={**size, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return str(folder)


def test_vlm_rm_by_a_clip_of_the_real_class(clip):
    """The cosine of the model's own features, for pictures of several forms, unpadded as padded."""
    import torch
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 30 + i, 3), np.uint8) for i in range(5)]
    part = embedding.goal(goal=["a red cat", "dog"], encoder=clip, column="seen")
    found = scored(part, [frames[0], Image.fromarray(frames[1]), *frames[2:]])

    model, processor = AutoModel.from_pretrained(clip).eval(), AutoProcessor.from_pretrained(clip)
    with torch.no_grad():
        seen = [model.get_image_features(**processor(images=f, return_tensors="pt")).pooler_output for f in frames]
        said = [
            model.get_text_features(**processor(text=t, return_tensors="pt")).pooler_output
            for t in ("a red cat", "dog")
        ]
    seen, said = (unit(torch.cat(rows).double().numpy()) for rows in (seen, said))
    goal = said.mean(0)
    np.testing.assert_allclose(found.read(0.0), 1 - 0.5 * ((seen - goal) ** 2).sum(1), atol=1e-5)
    encoder = dual_encoder(clip, batch=2)
    np.testing.assert_allclose(encoder.frames(frames), dual_encoder(clip).frames(frames), atol=1e-6)


def test_vlm_rl_from_pictures_to_a_relabelled_buffer(clip):
    """The whole way: frames wait in a buffer, a CLIP reads them in batches, driving is paid, rewards overwritten."""
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(6)]
    part = embedding.driving(encoder=clip, column="frame")
    state = {"speed": [25.0] * 6, "offsets": [[0.0]] * 6, "angle": [0.0] * 6, "base": [0.0] * 5 + [-10.0]}
    buffer = np.zeros((6, 1))
    assert relabel(buffer, part, {"frame": frames, **state}, batch=4).all()
    encoder = dual_encoder(clip)
    bad, good = unit(encoder.texts([part.options["bad"][0], part.options["good"][0]]))
    danger = unit(encoder.frames(frames)) @ (bad - good)
    wanted = 25 * (1 - np.clip(danger, 0, 0.03) / 0.03)
    np.testing.assert_allclose(buffer[:5, 0], 1 - np.abs(25 - wanted[:5]) / 25, atol=1e-5)
    assert buffer[5, 0] == -10


def test_what_is_no_picture_gets_the_floor_and_no_frame_abstains(clip, tmp_path):
    secret = tmp_path / "picture.png"
    from PIL import Image

    Image.new("RGB", (4, 4)).save(secret)
    part = embedding.goal(goal=["a"], encoder=clip, column="seen")
    scores = scored(part, [b"GIF89a", str(secret), None, np.zeros((0, 0, 3))])
    assert scores.read(math.nan)[[0, 3]].tolist() == [-1.0, -1.0]
    assert "not a picture" in scores.details["problem"][0]
    assert scores.abstained.tolist() == [False, False, True, False]
    assert scores.details["problem"][1] is None  # a column's text names a file, a completion's never does
    said = embedding.goal(goal=["a"], encoder=clip).score(Rollouts(["?"], [str(secret)]))
    assert said.read(math.nan).tolist() == [-1.0]


def test_an_encoder_that_cannot_be_loaded(tmp_path):
    with pytest.raises(GuerdonError, match="cannot be loaded"):
        dual_encoder(str(tmp_path))


def test_vlm_rm_and_vlm_rl_score_a_file(tmp_path):
    from typer.testing import CliRunner

    from guerdon.cli import app

    state = {"speed": 25, "offsets": [0.0], "angle": 0, "base": 0}
    rows = [{"prompt": "p", "completion": "", "frame": frame, **state} for frame in ([1.0, 0.0], [0.0, 1.0], None)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for reward, expected in [
        ("{part: embedding.goal, goal: [[1, 0]], baseline: [[0, 1]], alpha: 0.5, column: frame}", [1.0, 0.0, None]),
        ("{part: embedding.driving, good: [[1, 0]], bad: [[0, 1]]}", [1.0, 0.0, None]),
    ]:
        out = tmp_path / f"{len(reward)}.jsonl"
        result = CliRunner().invoke(app, ["score", str(tmp_path / "in.jsonl"), "-r", reward, "-o", str(out)])
        assert result.exit_code == 0, result.output
        assert [json.loads(line)["score"] for line in out.read_text().splitlines()] == pytest.approx(expected)
