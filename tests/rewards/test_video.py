"""Geometry of videos and the tracking of what they show, on synthetic scenes whose cameras are known."""

import math

import numpy as np
import pytest
import torch

from guerdon import Rollouts
from guerdon.credit import group_relative
from guerdon.data import preference_pairs
from guerdon.models import beam_search
from guerdon.objectives import policy_gradient
from guerdon.objectives.denoising_errors import Errors, implicit_scores
from guerdon.objectives.preference import pair_loss
from guerdon.objectives.stillness import stillness
from guerdon.rewards import geometry, video

WIDE, HIGH, FOCAL = 64, 48, 60.0
DIAGONAL = math.hypot(WIDE, HIGH)
CAMERA = [[FOCAL, 0, (WIDE - 1) / 2], [0, FOCAL, (HIGH - 1) / 2], [0, 0, 1]]


def turned(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def scene(frames=4, points=40, *, seed=0, step=0.15, turn=0.01):
    """A slanted plane before a camera that moves sideways and turns: depth by intersecting each pixel's ray."""
    rng = np.random.default_rng(seed)
    normal, offset = np.array([0.1, -0.2, 1.0]), 5.0  # n · X = 5
    poses, depth = [], []
    y, x = np.mgrid[:HIGH, :WIDE]
    for t in range(frames):
        rotation, center = turned(turn * t), np.array([step * t, 0.02 * t, 0.0])
        poses.append(np.c_[rotation, -rotation @ center])
        rays = np.stack([(x - CAMERA[0][2]) / FOCAL, (y - CAMERA[1][2]) / FOCAL, np.ones(x.shape)], -1) @ rotation
        depth.append((offset - normal @ center) / (rays @ normal))
    world = np.c_[rng.uniform(-0.6, 0.9, points), rng.uniform(-0.7, 0.7, points)]
    world = np.c_[world, offset - world @ normal[:2]]
    tracks = np.empty((points, frames, 2))
    for p in range(points):
        for t in range(frames):
            seen = poses[t][:, :3] @ world[p] + poses[t][:, 3]
            tracks[p, t] = FOCAL * seen[0] / seen[2] + CAMERA[0][2], FOCAL * seen[1] / seen[2] + CAMERA[1][2]
    return {
        "depth": np.array(depth), "intrinsics": CAMERA, "poses": np.array(poses),
        "tracks": tracks, "visible": np.ones((points, frames), bool),
    }  # fmt: skip


def scored(reward, *rows):
    batch = Rollouts(["?"] * len(rows), [""] * len(rows), {name: [row[name] for row in rows] for name in rows[0]})
    return reward.score(batch)


def value(reward, **row):
    return float(scored(reward, row).read(math.nan)[0])


# A plane is no linear function of the pixel in depth (1/d is), so bilinear depth between pixels is off by very little.
EXACT = 1e-4


def test_projection_and_back_projection_undo_one_another():
    rng = np.random.default_rng(3)
    pose = np.c_[turned(0.4), [0.3, -0.2, 0.5]]
    points = rng.uniform(-1, 1, (50, 3)) + np.array([0, 0, 6])
    pixels, depth = video.project(points, np.array(CAMERA), pose)
    np.testing.assert_allclose(video.back_project(pixels, depth, np.array(CAMERA), pose), points, atol=1e-12)
    one = np.array(CAMERA) @ (pose[:, :3] @ points[0] + pose[:, 3])
    np.testing.assert_allclose(pixels[0], one[:2] / one[2])


def test_vigor_a_rigid_scene_has_no_error():
    scores = scored(video.reprojection(), scene())
    assert -EXACT < scores.read(math.nan)[0] <= 0
    assert scores.details["pairs"] == [40 * 4 * 3]


def test_vigor_points_on_pixels_have_none_at_all():
    # Tracks that begin in the middle of pixels: depth is read, not interpolated.
    made = scene(frames=2)
    at = np.array([[20.0, 20], [30, 10], [40, 30]])
    near = made["depth"][0][at[:, 1].astype(int), at[:, 0].astype(int)]
    world = video.back_project(at, near, np.array(CAMERA), made["poses"][0])
    there = np.stack([at, video.project(world, np.array(CAMERA), made["poses"][1])[0]], 1)
    made |= {"tracks": there, "visible": np.ones((3, 2), bool)}
    errors = video.reprojection_error(made["depth"], np.array([CAMERA] * 2), made["poses"], there, made["visible"])
    assert errors[0, 1].max() < 1e-9
    assert np.isnan(errors[0, 0]).all()


def test_vigor_jitter_of_one_pixel_costs_what_rayleigh_says():
    # Exact in the first frame and jittered by N(0, 1) in both directions in the second: E‖e‖ = √(π/2).
    made = scene(frames=2, points=3000)
    rng = np.random.default_rng(1)
    made["tracks"][:, 1] += rng.normal(0, 1, (3000, 2))
    errors = video.reprojection_error(
        made["depth"], np.array([CAMERA] * 2), made["poses"], made["tracks"], made["visible"]
    )
    assert np.nanmean(errors[0, 1]) == pytest.approx(math.sqrt(math.pi / 2), abs=0.05)
    assert value(video.reprojection(), **made) == pytest.approx(-np.nanmean(errors) / DIAGONAL)


def test_vigor_a_point_that_moves_costs_and_brightness_does_not_exist():
    made = scene()
    moved = made["tracks"].copy()
    moved[7, :, 0] += np.arange(4) * 3.0
    assert value(video.reprojection(), **made | {"tracks": moved}) < value(video.reprojection(), **made) - 1e-3
    hidden = made["visible"].copy()
    hidden[7] = False
    assert value(video.reprojection(), **made | {"tracks": moved, "visible": hidden}) > -EXACT
    assert not {"frames", "video", "image"} & video.reprojection().requires


def test_vigor_hack_a_still_video_and_copied_frames_do_not_pay():
    made = scene(frames=4)
    noisy = made | {"tracks": made["tracks"] + np.random.default_rng(0).normal(0, 1.0, made["tracks"].shape)}
    still = {
        "depth": made["depth"][[0] * 4], "intrinsics": CAMERA, "poses": made["poses"][[0] * 4],
        "tracks": made["tracks"][:, [0] * 4], "visible": made["visible"],
    }  # fmt: skip
    copied = still | {
        "depth": made["depth"][[0, 0, 0, 3]], "poses": made["poses"][[0, 0, 0, 3]],
        "tracks": made["tracks"][:, [0, 0, 0, 3]],
    }  # fmt: skip
    scores = scored(video.reprojection(), made, noisy, still, copied)
    honest, worse, stands, copies = scores.read(math.nan)
    assert honest > worse > stands == copies == -1.0
    assert scores.details["problem"] == [None, None, "the video does not move", "the video does not move"]
    assert scores.details["moving"] == [1.0, 1.0, 0.0, pytest.approx(1 / 3)]
    assert value(video.reprojection(moves=0), **still) > -EXACT


def test_vigor_attention_chooses_which_points_count():
    made = scene()
    heat = np.zeros((6, 8))
    heat[:, :4] = 1.0  # the left half of the picture
    moved = made["tracks"].copy()
    right = made["tracks"][:, 0, 0] > WIDE / 2 + 4
    moved[right, :, 1] += np.arange(4) * 3.0
    broken = made | {"tracks": moved, "heat": heat}
    looked = value(video.reprojection(attention=True, patch=8, keep=0.5), **broken)
    assert looked > -EXACT > value(video.reprojection(), **made | {"tracks": moved})
    middles = video.attended(heat, size=(WIDE, HIGH), patch=8, keep=0.5)
    assert sorted(set(middles[:, 0])) == [3.5, 11.5, 19.5, 27.5]
    assert len(middles) == 24


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": "far"}, "'depth' is not an array"),
        ({"depth": np.ones((4, 48))}, "not that of two or more frames"),
        ({"depth": np.full((4, 48, 64), np.nan)}, "finite"),
        ({"poses": np.zeros((4, 3, 4))}, "rotations"),
        ({"poses": np.zeros((2, 3, 4))}, "poses"),
        ({"intrinsics": np.zeros((3, 3))}, "Singular"),
        ({"tracks": [[1, 2]]}, "tracks"),
        ({"visible": None}, "visible"),
    ],
)
def test_vigor_columns_that_cannot_be_used_abstain(change, reason):
    made = scene()
    scores = scored(video.reprojection(), made | change, made)
    assert scores.valid.tolist() == [False, True]
    assert reason in scores.reasons[0]


def test_vigor_what_is_never_seen_twice_is_the_floor():
    made = scene()
    once = np.zeros((40, 4), bool)
    once[:, 0] = True
    scores = scored(video.reprojection(most=0.5), made | {"visible": once}, made | {"depth": -made["depth"]})
    assert scores.read(math.nan).tolist() == [-0.5, -0.5]
    assert scores.details["problem"] == ["no point is seen twice at a positive depth"] * 2


def generated(noise, seed):
    """A video whose points wander by so many pixels."""
    made = scene(seed=seed)
    made["tracks"] += np.random.default_rng(seed).normal(0, 1, made["tracks"].shape) * noise
    return made


def test_vigor_preference_pairs_of_ten_videos_and_flow_dpo():
    noises = np.random.default_rng(5).permutation(np.linspace(0.1, 3.0, 10))
    videos = [generated(noise, 1) for noise in noises]
    pairs = preference_pairs(scored(video.reprojection(), *videos), np.zeros(10, int))
    assert (pairs.chosen.tolist(), pairs.rejected.tolist()) == ([noises.argmin()], [noises.argmax()])
    # The velocity field x ↦ W of noise level: preferring the best moves it to the target of the best.
    targets = torch.tensor(noises, dtype=torch.float32)[:, None]
    reference = torch.full((1, 1), 1.5)
    weight = reference.clone().requires_grad_()
    for _ in range(50):
        errors = Errors((weight - targets)[:, 0] ** 2, (reference - targets)[:, 0] ** 2)
        implicit = implicit_scores(errors, beta=0.5)
        loss, found = pair_loss(implicit[pairs.chosen] - implicit[pairs.rejected])
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = (weight - 0.2 * gradient).detach().requires_grad_()
    assert found["right"] == 1
    assert abs(weight.item() - noises.min()) < abs(reference.item() - noises.min())
    assert weight.item() < 1.5


def test_vigor_flow_dpo_by_hand():
    # Better: 1 → 0.25 off; worse: 1 → 4 off: margin = (4 − 1) − (0.25 − 1) = 3.75.
    better, worse = implicit_scores(Errors(torch.tensor([0.25, 4.0]), torch.ones(2)), beta=0.5 * 0.4)
    loss, _ = pair_loss((better - worse)[None])
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5 * 0.4 * 3.75)))
    backwards, _ = pair_loss((worse - better)[None])
    assert backwards.item() == pytest.approx(math.log1p(math.exp(0.5 * 0.4 * 3.75)))


def test_vigor_stillness_is_paid_for_and_learned_away():
    sample = torch.cumsum(torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0)), 1)
    gain = torch.tensor(0.2, requires_grad=True)
    loss = stillness(gain * sample, sample)
    assert loss.item() == pytest.approx(0.8)
    assert torch.autograd.grad(loss, gain)[0].item() == pytest.approx(-1.0)
    assert stillness(sample, torch.zeros_like(sample)).item() == 0.0


def searched(seed, *, paths, children, steps=3):
    """Beam search over a causal video that grows by a frame, whose tracks wander by what the sampler draws."""
    rng, made, score = np.random.default_rng(seed), scene(), video.reprojection()

    def expand(states, count):
        return [[(*state, rng.normal(0, 1.5, (40, 2))) for _ in range(count)] for state in states]

    def rows(states):
        for state in states:
            frames = len(state) + 1
            noise = np.stack([np.zeros((40, 2)), *state], 1)
            yield {
                "depth": made["depth"][:frames], "intrinsics": CAMERA, "poses": made["poses"][:frames],
                "tracks": made["tracks"][:, :frames] + noise * rng_scale(state), "visible": made["visible"][:, :frames],
            }  # fmt: skip

    def rng_scale(state):
        # How badly a path goes is drawn with its first frame.
        return abs(state[0][0, 0])

    def worth(states):
        return scored(score, *rows(states)).read(-1.0).tolist()

    return beam_search((), expand, worth, lambda s: len(s) == steps, candidates=paths * children, keep=paths)[0]


def test_vigor_search_with_one_path_and_one_child_is_sampling():
    state, _ = searched(0, paths=1, children=1)
    rng = np.random.default_rng(0)
    for drawn in state:
        np.testing.assert_array_equal(drawn, rng.normal(0, 1.5, (40, 2)))


def test_vigor_a_larger_search_finds_better_videos():
    plain, on_path, beam = (
        np.mean([searched(seed, paths=k, children=s)[1] for seed in range(12)]) for k, s in ((1, 1), (1, 4), (3, 3))
    )
    assert plain < on_path < beam <= 0
    # On start: whole videos at once, and the best of more of them is never worse in the mean.
    draws = scored(video.reprojection(), *[generated(abs(n), 2) for n in np.random.default_rng(7).normal(0, 2, 24)])
    values = draws.read(-1.0)
    best = [np.mean([values[i : i + s].max() for i in range(0, 24, s)]) for s in (1, 2, 4, 8)]
    assert best == sorted(best)


def test_views_of_one_scene_agree_and_a_false_one_is_not_selected():
    made = scene(frames=4, step=0.3)
    shares = video.view_agreement(made["depth"], np.array([CAMERA] * 4), made["poses"])
    assert np.nanmin(shares) > 0.99
    false = made["depth"].copy()
    false[2] *= 0.7
    scores = scored(
        video.consistency(),
        made,
        made | {"depth": false},
        made | {"depth": made["depth"][[0] * 4], "poses": made["poses"][[0] * 4]},
    )
    right, wrong, copied = scores.read(math.nan)
    assert right > 0.99 > 0.8 > wrong > copied == 0.0
    assert 2 not in geometry.top_views(np.array(scores.details["views"][1]), keep=3)


def test_views_of_which_one_hides_a_point_say_nothing_of_it():
    # A wall at 2 m, seen by the second view only, hides the plane at 5 m: farther points are left out, not wrong.
    made = scene(frames=2)
    hidden = made["depth"].copy()
    hidden[1][:, :32] = 2.0
    forward = video.view_agreement(hidden, np.array([CAMERA] * 2), made["poses"])[0, 1]
    assert forward > 0.99
    assert video.view_agreement(hidden, np.array([CAMERA] * 2), made["poses"])[1, 0] < 0.7


# --- DeVI --------------------------------------------------------------------------------------------------------

STEPS = 5


def followed(**change):
    rng = np.random.default_rng(4)
    points = np.array([[0.0, 0, 5], [0.3, 0.1, 5.2], [-0.2, 0.2, 4.8]])[None] + np.arange(STEPS)[:, None, None] * 0.02
    joints, hands = rng.normal(0, 0.5, (STEPS, 6, 3)), rng.normal(0, 0.1, (STEPS, 4, 3))
    rotations = rng.normal(size=(STEPS, 6, 4))
    pixels = np.array(
        [[[FOCAL * x / z + CAMERA[0][2], FOCAL * y / z + CAMERA[1][2]] for x, y, z in step] for step in points]
    )
    motion = {"joints": joints, "hands": hands, "rotations": rotations, "points": points, "contact": [1] * STEPS}
    seen = {
        "joints": joints, "hands": hands, "rotations": -3 * rotations, "pixels": pixels,
        "visible": np.ones((STEPS, 3)), "contact": [0, 0, 1, 1, 1],
        "intrinsics": CAMERA, "pose": np.eye(3, 4), "size": [WIDE, HIGH],
    }  # fmt: skip
    return {"motion": motion | change.get("motion", {}), "video": seen | change.get("video", {})}, points, pixels


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_devi_perfect_tracking_is_one(combine):
    assert value(video.tracking(combine=combine), **followed()[0]) == pytest.approx(1.0, abs=1e-9)


def test_devi_depth_is_not_claimed_and_sideways_is():
    _, points, pixels = followed()
    camera = np.array(CAMERA), np.eye(3, 4)
    far, sideways = points * 1.7, points + np.array([0.2, 0, 0])
    seen = np.ones((STEPS, 3), bool)
    for term, expected in ((far, 1.0), (sideways, None)):
        found = video.pixels_term(term, pixels, seen, *camera, size=(WIDE, HIGH))
        if expected is None:
            assert (found < 0.7).all()
        else:
            np.testing.assert_allclose(found, expected, atol=1e-9)
    # Sideways by 0.2 m at 5 m under a focal length of 60: 2.4 pixels.
    one = video.pixels_term(sideways[0, :1], pixels[0, :1], seen[0, :1], *camera, size=(WIDE, HIGH))
    assert one == pytest.approx(math.exp(-500 * 2.4**2 / (64**2 + 48**2)))


def test_devi_what_is_not_seen_has_no_effect():
    row, points, _ = followed()
    wild = points.copy()
    wild[:, 1] = [40, 40, -3]
    hidden = np.ones((STEPS, 3))
    hidden[:, 1] = 0
    row["motion"] |= {"points": wild}
    assert value(video.tracking(), **row) < 0.7
    row["video"] |= {"visible": hidden}
    assert value(video.tracking(), **row) == pytest.approx(1.0, abs=1e-9)


def test_devi_terms_by_hand_and_without_scale_are_one():
    row, _, _ = followed()
    row["motion"] |= {"joints": np.array(row["video"]["joints"]) + np.array([0.1, 0, 0]), "contact": [0] * STEPS}
    scores = scored(video.tracking(), row)
    body, contact = math.exp(-100 * 0.01), 2 / 5
    assert scores.read(math.nan)[0] == pytest.approx(0.5 * body + 0.4 + 0.1 * contact)
    assert scores.details["body"][0] == pytest.approx(body)
    assert value(video.tracking(combine="product"), **row) == pytest.approx(body * contact)
    loose = video.tracking(joints=0, rotations=0, object=0)
    assert value(loose, **row) == pytest.approx(0.9 + 0.1 * contact)
    half = np.array([[[math.cos(0.25), math.sin(0.25), 0, 0]]])  # by 0.5 rad about x
    assert video.rotations_term(half, np.array([[[1.0, 0, 0, 0]]]))[0] == pytest.approx(math.exp(-2 * 0.25))


def test_devi_an_episode_ends_where_the_body_or_the_object_is_lost():
    row, points, _ = followed()
    away = np.array(row["video"]["joints"])
    away[3:] += [0.6, 0, 0]
    row["motion"] |= {"joints": away}
    scores = scored(video.tracking(), row)
    assert scores.details["ended"] == [3]
    assert scores.read(math.nan)[0] == pytest.approx(3 / 5, abs=1e-6)
    gone = points.copy()
    gone[2:] += [9, 0, 0]
    row, _, _ = followed(motion={"points": gone})
    assert scored(video.tracking(), row).details["ended"] == [2]


def test_devi_a_simulation_that_explodes_is_the_floor_and_a_video_without_camera_abstains():
    broken = [followed(motion={"joints": np.full((STEPS, 6, 3), np.nan)})[0], followed(motion={"points": None})[0]]
    blind = followed(video={"intrinsics": None})[0]
    nothing = {"motion": broken[0]["motion"], "video": "a.mp4"}
    scores = scored(video.tracking(), *broken, blind, nothing)
    assert scores.valid.tolist() == [True, True, False, False]
    assert scores.read(math.nan)[:2].tolist() == [0.0, 0.0]
    assert "not finite" in scores.details["problem"][0]
    assert "'intrinsics'" in scores.reasons[2]


def test_devi_a_policy_in_a_simulation_learns_to_follow_the_video():
    """A body of one joint carries an object under PD control; the policy learns the targets of the controller."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    steps, samples = 6, 48
    path = np.stack([np.linspace(0, 0.4, steps), np.zeros(steps), np.full(steps, 4.0)], -1)
    pixels = np.stack([FOCAL * path[:, 0] / 4 + CAMERA[0][2], np.full(steps, CAMERA[1][2])], -1)[:, None]
    seen = {
        "joints": path[:, None], "pixels": pixels, "visible": np.ones((steps, 1)), "contact": [1] * steps,
        "intrinsics": CAMERA, "pose": np.eye(3, 4), "size": [WIDE, HIGH],
    }  # fmt: skip

    def simulated(aims):
        place, speed, found = path[0].copy(), np.zeros(3), []
        for aim in aims:
            speed += 0.25 * (4 * (np.array([aim, 0, 4.0]) - place) - 3 * speed)
            place = place + 0.25 * speed
            found.append(place)
        joints = np.array(found)[:, None]
        return {"joints": joints, "points": joints, "contact": [1] * steps}

    mean = torch.zeros(steps, requires_grad=True)
    optimizer, curve = torch.optim.Adam([mean], lr=0.06), []
    reward = video.tracking(joints=20.0, object=200.0)
    for _ in range(40):
        aims = mean.detach() + 0.15 * torch.tensor(rng.normal(size=(samples, steps)), dtype=torch.float32)
        rows = [{"motion": simulated(some), "video": seen} for some in aims.tolist()]
        rewards = torch.tensor(scored(reward, *rows).read(0.0), dtype=torch.float32)
        advantages = group_relative(rewards, torch.zeros(samples, dtype=torch.long))
        logp = -((aims - mean) ** 2) / (2 * 0.15**2)
        loss, _ = policy_gradient(logp, logp.detach(), advantages, torch.ones_like(logp, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(rewards.mean().item())
    final = value(reward, motion=simulated(mean.detach().tolist()), video=seen)
    assert curve[0] < 0.7
    assert final > 0.95
