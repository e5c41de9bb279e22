"""`motion`: the shapes of Lucy-SKG, their combination, and a game of two against two from tracks to shared rewards."""

import math

import numpy as np
import pytest

from guerdon import Rollouts, reduce
from guerdon.algebra import geometric, spec
from guerdon.rewards import motion, recorded
from guerdon.shaping import gain, team_spirit

BALL, GOAL = np.array([4.0, 0.0]), np.array([10.0, 0.0])


def batch(**columns):
    n = len(next(iter(columns.values())))
    return Rollouts(["m"] * n, [""] * n, columns)


def test_nearness_is_its_formula():
    for d, scale, dispersion, density in ((0, 1, 1, 1), (3, 2, 0.5, 1), (3, 2, 1.5, 4), (9, 2300, 1, 0.5)):
        expected = math.exp(-0.5 * d / (scale * dispersion)) ** (1 / density)
        found = motion.nearness(np.array(d), scale=scale, dispersion=dispersion, density=density)
        assert found == pytest.approx(expected)
        middle = 2 * (math.exp(-0.5 * d / (scale * dispersion)) - 0.5)
        signed = motion.nearness(np.array(d), scale=scale, dispersion=dispersion, density=density, signed=True)
        assert signed == pytest.approx(math.copysign(abs(middle) ** (1 / density), middle))


def test_dispersion_widens_and_density_keeps_high():
    far = np.array([1.0, 5.0])
    assert (motion.nearness(far, dispersion=2) > motion.nearness(far)).all()
    assert (motion.nearness(far, density=2) > motion.nearness(far)).all()


def test_overlap_is_not_nearer_than_touching():
    tracks = batch(car=[[[0.0, 0.0], [2.0, 0.0], [3.5, 0.0]]], ball=[BALL.tolist()])
    found = motion.near(track="car", target="ball", radius=2.0).score(tracks).read(np.nan)[0]
    np.testing.assert_allclose(found, [math.exp(-1), 1, 1])


def test_direction_and_approach_by_hand():
    assert motion.direction(np.array([1.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx(math.sqrt(0.5))
    assert motion.approach(np.zeros(3), np.array([0.0, 0.0, -9.0]), np.array([0.0, 0.0, 1.0]), top=3.0) == -1
    assert motion.approach(np.zeros(2), np.ones(2), np.zeros(2), top=1.0) == 0  # there is no way to go


def test_tracks_of_several_lengths_and_dimensions_in_one_batch():
    plane, space = [[0.0, 0.0], [4.0, 0.0]], [[0.0, 0.0, 1.0]]
    scores = motion.near(track="car", target="ball").score(
        batch(car=[plane, space], ball=[[4.0, 0.0], [0.0, 0.0, 3.0]])
    )
    assert scores.mask.tolist() == [[True, True], [True, False]]
    np.testing.assert_allclose(scores.read(0.0), [[math.exp(-2), 1], [math.exp(-1), 0]])


def test_a_recording_at_fault_abstains_and_the_others_are_scored():
    good = [[0.0, 0.0]]
    wrong = [[[math.nan, 0.0]], None, "north", [], [[0.0]], [[0.0, 0.0]] * 3, [[[0.0]]], [[0.0], [0.0, 1.0]], {}]
    still = [[[4.0, 0.0]] * 2] * (len(wrong) + 1)
    scores = motion.near(track="car", target="ball").score(batch(car=[good * 2, *wrong], ball=still))
    assert scores.usable.tolist() == [True] + [False] * len(wrong)
    assert scores.reasons[1] == "track 'car' is no list of points: [[nan, 0.0]]"
    assert "do not fit together" in scores.reasons[6]


def test_options_that_cannot_be_meant():
    for wrong in ({"scale": 0.0}, {"dispersion": -1.0}, {"density": math.inf}):
        with pytest.raises(ValueError, match="positive"):
            motion.near(track="a", target="b", **wrong)
    with pytest.raises(ValueError, match="positive"):
        motion.towards(track="a", velocity="v", target="b", top=0.0)


def offensive_potential():
    """Behind the ball, going to it, near it."""
    return geometric(
        motion.aligned(track="car", via="ball", goal="goal"),
        motion.towards(track="car", velocity="velocity", target="ball", top=2.0),
        motion.near(track="car", target="ball", scale=4.0),
    )


def test_offensive_potential_is_the_cube_root_with_the_sign_of_all():
    car, velocity = [[0.0, 0.0], [8.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
    found = offensive_potential().score(
        batch(car=[car], velocity=[velocity], ball=[BALL.tolist()], goal=[GOAL.tolist()])
    )
    size = (1 * 0.5 * math.exp(-0.5)) ** (1 / 3)
    # Behind it and going; between ball and goal, and going away; behind it, and going away.
    np.testing.assert_allclose(found.read(np.nan)[0], [size, -size, -size])


def play(rng, eager, steps=13):
    """Two against two on a field: who is eager runs behind the ball and pushes it, the others wander."""
    goals = {"red": np.array([10.0, 0.0]), "blue": np.array([-10.0, 0.0])}
    teams = ["red", "red", "blue", "blue"]
    cars = np.array([[-6.0, -2.0], [-6.0, 2.0], [6.0, -2.0], [6.0, 2.0]])
    ball = np.zeros(2)
    log = {"car": [[] for _ in teams], "velocity": [[] for _ in teams], "ball": []}
    for _ in range(steps):
        for i, team in enumerate(teams):
            out = (ball - goals[team]) / np.linalg.norm(ball - goals[team])
            way = ball + 0.5 * out - cars[i] if team == eager else rng.normal(size=2)
            speed = way / max(np.linalg.norm(way), 1.0)
            cars[i] = cars[i] + speed
            log["car"][i].append(cars[i].tolist())
            log["velocity"][i].append(speed.tolist())
            if np.linalg.norm(cars[i] - ball) < 1.0:
                push = ball - cars[i]
                ball = ball + 0.5 * push / max(np.linalg.norm(push), 1e-9)
        log["ball"].append(ball.tolist())
    return {
        "car": log["car"], "velocity": log["velocity"], "ball": [log["ball"]] * 4,
        "goal": [goals[team].tolist() for team in teams],
        "own": [(-goals[team]).tolist() for team in teams], "team": teams,
    }  # fmt: skip


def total():
    """R' = (events + F) shared, F the differences of Φ = potential + distance to their goal − distance to ours."""
    theirs = motion.near(track="ball", target="goal", scale=10.0).named("offence")
    ours = motion.near(track="ball", target="own", scale=10.0).named("defence")
    return reduce((offensive_potential() + theirs - ours) >> gain(gamma=0.99) >> team_spirit(), "sum")


def test_two_against_two_from_tracks_to_shared_rewards():
    match = batch(**play(np.random.default_rng(0), eager="red"))
    scores = total().score(match)
    red, blue = scores.read(np.nan)[:2], scores.read(np.nan)[2:]
    assert scores.usable.all()
    assert red.min() > 0 > blue.max()
    assert scores.read(np.nan).sum() == pytest.approx(0, abs=1e-9)
    mirrored = total().score(batch(**play(np.random.default_rng(0), eager="blue"))).read(np.nan)
    assert mirrored[2:].min() > 0 > mirrored[:2].max()


def test_circling_at_the_ball_is_worth_no_more_than_standing_there():
    """As a wage, nearness pays for ever; as a potential, a circle pays nothing."""
    turns = np.linspace(0, 20 * np.pi, 201)
    circle = (BALL + np.stack([1 + np.cos(turns), np.sin(turns)], -1)).tolist()
    match = batch(car=[circle, [circle[0]] * 201], ball=[BALL.tolist()] * 2)
    near = motion.near(track="car", target="ball")
    wage = reduce(near, "sum").score(match).read(np.nan)
    paid = reduce(near >> gain(gamma=1.0), "sum").score(match).read(np.nan)
    assert wage[0] > wage[1]
    np.testing.assert_allclose(paid, 0, atol=1e-9)


def test_the_whole_is_data_and_back():
    reward = total() + 0.5 * recorded.value(column="goals", low=-1)
    assert spec.load(spec.dump(reward)) == reward


def test_landscape_shows_each_value_where_it_is():
    pytest.importorskip("matplotlib")

    def values(places):
        return motion.nearness(np.linalg.norm(places - BALL, axis=-1), scale=2.0, signed=True)

    figure = motion.landscape(values, x=(-10, 10), y=(-5, 5), points=41, marks=[("ball", (4, 0))], title="near")
    axes, mesh = figure.axes[0], figure.axes[0].collections[0]
    drawn = np.asarray(mesh.get_array()).reshape(41, 41)
    row, place = np.unravel_index(drawn.argmax(), drawn.shape)
    assert (np.linspace(-5, 5, 41)[row], np.linspace(-10, 10, 41)[place]) == (0, 4)
    assert drawn[0, 0] == pytest.approx(values(np.array([[-10.0, -5.0]]))[0])
    assert mesh.norm.vmin == -mesh.norm.vmax  # a sign has a colour
    assert axes.get_title() == "near"
    with pytest.raises(ValueError, match="one finite number"):
        motion.landscape(lambda places: places, x=(0, 1), y=(0, 1), points=3)
