"""Meshes: points by area, pictures against rays, and what is no mesh."""

import math

import numpy as np
import pytest

from guerdon.rewards import views
from guerdon.rewards.geometry import rendered, surface_points

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]])


def ball(rings=24, around=48):
    """A sphere of radius 3 about (1, 2, −1), of triangles."""
    polar, azimuth = np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, around, endpoint=False)
    p, a = np.meshgrid(polar, azimuth, indexing="ij")
    points = np.stack([np.sin(p) * np.cos(a), np.cos(p), np.sin(p) * np.sin(a)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings), np.arange(around), indexing="ij")
    here, right = i * around + j, i * around + (j + 1) % around
    quads = np.stack([here, right, right + around, here + around], -1).reshape(-1, 4)
    return 3 * points + [1, 2, -1], np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


# Points


def test_points_fall_on_triangles_by_their_area_and_evenly_within():
    vertices = np.array([[0.0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, 5], [1, 0, 5], [0, 2, 5], [9, 9, 9]])
    faces = np.array([[0, 1, 2], [3, 4, 5], [6, 6, 0]])  # areas 3 and 1, and none
    n = 40_000
    points, of = surface_points((vertices, faces), number=n, seed=1)
    assert (of == 0).mean() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / n))
    assert set(of) == {0, 1}
    assert (points[of == 0][:, 2] == 0).all()
    assert points[of == 1][:, 2] == pytest.approx(5)
    weight = points[of == 0][:, 0] / 3, points[of == 0][:, 1] / 2
    assert all((w >= 0).all() for w in weight)
    assert (weight[0] + weight[1]).max() <= 1 + 1e-12
    for w in weight:  # uniform on a triangle: E w = 1/3, E w² = 1/6, E w₁w₂ = 1/12
        assert w.mean() == pytest.approx(1 / 3, abs=0.006)
        assert (w**2).mean() == pytest.approx(1 / 6, abs=0.006)
    assert (weight[0] * weight[1]).mean() == pytest.approx(1 / 12, abs=0.003)
    assert np.array_equal(
        surface_points((vertices, faces), number=5).points, surface_points((vertices, faces), number=5)[0]
    )


def test_points_do_not_follow_the_triangles():
    """One half of a square cut into 200 slivers still has half of the points."""
    cuts = np.linspace(0, 1, 201)
    vertices = np.concatenate([[[0.0, 0, 0]], np.stack([np.ones(201), cuts, 0 * cuts], 1), [[0, 1, 0]]])
    faces = [[0, k, k + 1] for k in range(1, 201)] + [[0, 201, 202]]
    points, of = surface_points((vertices, faces), number=10_000)
    assert (of == 200).mean() == pytest.approx(0.5, abs=0.02)
    assert points.mean(0) == pytest.approx([0.5, 0.5, 0], abs=0.02)


# Pictures


def by_rays(mesh, k, count, size, elevation):
    """Each pixel's ray against every triangle (Möller and Trumbore), shaded by |n · d|."""
    vertices, faces, colors = mesh
    a, e = 2 * math.pi * k / count, math.radians(elevation)
    d = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    right = np.array([math.cos(a), 0, -math.sin(a)])
    up = np.cross(d, right)
    used = vertices[np.unique(faces)]
    middle = (used.min(0) + used.max(0)) / 2
    reach = np.linalg.norm(used - middle, axis=1).max()
    picture = np.ones((size, size, 3))
    for row in range(size):
        for column in range(size):
            u, v = (column + 0.5) / size * 2 - 1, 1 - (row + 0.5) / size * 2
            start = middle + reach * (u * right + v * up + 10 * d)
            best = math.inf
            for face in faces:
                p, q, r = vertices[face]
                h = np.cross(-d, r - p)
                det = (q - p) @ h
                if abs(det) < 1e-12:
                    continue
                s = start - p
                b = s @ h / det
                c = -d @ np.cross(s, q - p) / det
                t = (r - p) @ np.cross(s, q - p) / det
                if min(b, c, 1 - b - c) >= 0 and t < best:
                    best = t
                    normal = np.cross(q - p, r - p)
                    shade = abs(normal @ d) / np.linalg.norm(normal)
                    picture[row, column] = shade * (np.array([1 - b - c, b, c]) @ colors[face])
    return picture


@pytest.mark.parametrize(("k", "elevation"), [(0, 0.0), (1, 35.0), (4, -80.0)])
def test_a_picture_is_what_rays_see(k, elevation):
    rng = np.random.default_rng(k)
    mesh = rng.normal(size=(12, 3)), rng.permuted(np.tile(np.arange(12), (8, 1)), axis=1)[:, :3], rng.random((12, 3))
    found = rendered(mesh, views=6, size=16, elevation=elevation)[k]
    assert np.allclose(found, by_rays(mesh, k, 6, 16, elevation), atol=1e-9)
    assert 0.03 < (found < 1).any(-1).mean() < 0.9


def test_a_ball_is_a_disc_that_is_brightest_in_the_middle():
    for picture in rendered(ball(), views=2, size=64, elevation=30.0):
        y, x = (np.mgrid[:64, :64] + 0.5) / 32 - 1
        radius = np.hypot(x, y)
        inside = radius < 0.9
        assert picture[radius > 1.01].min() == 1
        assert picture[inside] == pytest.approx(0.8 * np.sqrt(1 - radius[inside] ** 2)[:, None].repeat(3, 1), abs=0.08)


def test_a_turn_of_the_object_is_a_turn_of_the_cameras():
    rng = np.random.default_rng(0)
    vertices, faces = rng.normal(size=(9, 3)), rng.permuted(np.tile(np.arange(9), (6, 1)), axis=1)[:, :3]
    vertices = np.concatenate([vertices, -vertices])  # so that its middle stays where it is
    turn = 2 * math.pi / 4
    about = np.array([[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]])
    faces = np.concatenate([faces, faces + 9])
    before, after = (rendered((v, faces), views=4, size=32) for v in (vertices, vertices @ about.T))
    assert (np.abs(np.roll(before, 1, axis=0) - after).max(-1) < 1e-9).mean() > 0.995
    far = rendered((7 * vertices + 100, faces), views=4, size=32)
    assert (np.abs(far - before).max(-1) < 1e-9).mean() > 0.995


def test_many_triangles_in_pieces_are_the_same_picture(monkeypatch):
    whole = rendered(ball(), views=1, size=48)
    monkeypatch.setattr("guerdon.rewards.geometry.meshes.PIXELS", 50)
    assert np.array_equal(rendered(ball(), views=1, size=48), whole)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (None, "a mesh is"),
        (([[0, 0, 0]], []), "a mesh is"),
        (([[0, 0]], [[0, 0, 0]]), "a mesh is"),
        (([[0, 0, 0]], [[0, 0, 1]]), "rows of the 1 vertices"),
        (([[0, 0, 0]], [[0, 0, -1]]), "rows of the 1 vertices"),
        (([[0, 0, 0]], [[0.0, 0.0, 0.0]]), "whole numbers"),
        (([[0, 0, math.nan]], [[0, 0, 0]]), "finite"),
        ((*SQUARE, [[2.0, 0, 0]] * 4), "colours"),
    ],
    ids=["nothing", "bare", "flat", "beyond", "negative", "fractions", "nan", "colours"],
)
def test_what_is_no_mesh_is_named(mesh, message):
    with pytest.raises(ValueError, match=message):
        rendered(mesh)
    if message != "colours":
        with pytest.raises(ValueError, match=message):
            surface_points(mesh)


def test_what_has_no_area_has_no_points_and_is_not_seen():
    line = [[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]]
    with pytest.raises(ValueError, match="no area"):
        surface_points(line)
    assert (rendered(line, size=8) == 1).all()
    for options in ({"views": 0}, {"size": 0}, {"elevation": 91.0}):
        with pytest.raises(ValueError, match="must be positive"):
            rendered(SQUARE, **options)
    with pytest.raises(ValueError, match="number must be positive"):
        surface_points(SQUARE, number=0)


# Rewards of what is rendered


def test_an_object_that_cannot_be_rendered_gets_the_lowest_score():
    part = views.pooled(
        render=lambda mesh: rendered(mesh, size=16, elevation=0),
        scorer=lambda pictures, _: [(picture < 1).any(-1).mean() for picture in pictures],
        column="mesh",
        low=-1.0,
    )
    scores = part(["?"] * 2, [""] * 2, mesh=[SQUARE, (SQUARE[0], [[0, 1, 9]])])
    assert scores == [pytest.approx(0.5, abs=0.1), -1.0]
    with pytest.raises(ValueError, match="for a scorer"):
        views.pooled(render=rendered)


def test_mme_3dr_classes_are_measured_by_themselves():
    rng = np.random.default_rng(0)
    names = list(views.MME_3DR)
    assert sum(views.MME_3DR.values()) == pytest.approx(1.0)
    classes = rng.permutation(np.repeat(names, 4))
    scores, other = rng.normal(size=(2, 20))
    found = views.by_class(lambda x, y: (x - y).max(), classes, scores, other)
    by_hand = {name: max(x - y for x, y, c in zip(scores, other, classes, strict=True) if c == name) for name in names}
    shares = (0.161, 0.215, 0.213, 0.154, 0.257)
    assert {name: found[name] for name in names} == pytest.approx(by_hand)
    assert found["all"] == pytest.approx(sum(w * by_hand[name] for w, name in zip(shares, names, strict=True)))
    for wrong in (["spatial"], [*names, "chairs"]):
        with pytest.raises(ValueError, match="these are not"):
            views.by_class(np.mean, wrong, np.zeros(len(wrong)))
    with pytest.raises(ValueError, match="5 classes for"):
        views.by_class(np.mean, names, np.zeros(4))
