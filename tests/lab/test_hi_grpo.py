"""Hi-GRPO, joined: meshes, their views and points, the rewards of the coarse and the fine stage, and both learned."""

from functools import partial

import numpy as np
import pytest
import torch

from guerdon.core import Context, Rollouts
from guerdon.credit import group_relative, returns
from guerdon.objectives import kl_penalty, policy_gradient
from guerdon.objectives.clip import ppo
from guerdon.rewards import recorded, views
from guerdon.rewards.geometry import rendered, surface_points

SHAPES = {"cube": (1.0, 1.0, 1.0), "tower": (0.4, 1.6, 0.4), "plate": (1.2, 0.2, 1.2), "broken": None}
COLORS = {"grey": (0.6, 0.6, 0.6), "red": (0.9, 0.1, 0.1), "blue": (0.1, 0.1, 0.9)}
ROOF = (False, True)
CORNERS = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)]) / 2
SIDES = [(0, 1, 3), (0, 3, 2), (4, 7, 5), (4, 6, 7), (0, 5, 1), (0, 4, 5), (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4),
         (1, 5, 7), (1, 7, 3)]  # fmt: skip
PROMPT = "a red tower with a roof"


def built(shape, color="grey", roof=False):
    """A box, and a pyramid on it if it has a roof; no triangles if it is broken."""
    if SHAPES[shape] is None:
        return np.zeros((1, 3)), np.zeros((0, 3), int)
    size = np.array(SHAPES[shape])
    points, faces = CORNERS * size, list(SIDES)
    if roof:
        points = np.concatenate([points, [[0, size[1], 0]]])
        faces += [(2, 3, 8), (3, 7, 8), (7, 6, 8), (6, 2, 8)]
    return points, np.array(faces), np.tile(COLORS[color], (len(points), 1))


def preference(pictures, prompts):
    """How much of an object's frame is tall: one number for each view."""
    found = []
    for picture in pictures:
        rows, columns = np.nonzero((picture < 1).any(-1))
        found.append(1 - np.ptp(columns) / max(np.ptp(rows), 1) if len(rows) else 0.0)
    return np.clip(found, 0, 1)


def redness(pictures, prompts):
    """Marks of 3 to 15 for the colour that was asked for."""
    return [3 + 12 * max(0.0, (p[..., 0] - p[..., 1:].mean(-1)).max()) for p in pictures]


def parts_of(mesh):
    """A judge of point clouds: does the mesh have walls, and a roof, and what share of its floor does each cover?"""
    try:
        points, faces = surface_points(mesh, number=400)
    except ValueError:
        return [(0, 0.0), (0, 0.0)]
    top = points[faces < 12].max(0)
    roof = points[points[:, 1] > top[1] + 1e-6]
    over = np.ptp(roof[:, [0, 2]], axis=0).prod() / np.ptp(points[:, [0, 2]], axis=0).prod() if len(roof) > 1 else 0.0
    return [(1, 1.0), (int(len(roof) > 0), float(over) if len(roof) else 0.0)]


def seen(mesh):
    return rendered(mesh, size=16)


HIGH = (
    views.pooled(column="coarse", render=seen, scorer=preference).named("preference")
    + recorded.value(column="category").named("category")
)  # fmt: skip
LOW = (
    views.pooled(column="fine", render=seen, scorer=redness, low=3.0, high=15.0).named("look") * (1 / 3)
    + views.components(column="parts") * 0.5
)


def test_hi_grpo_rewards_of_meshes():
    """By hand: a tower is .4 wide and 1.6 high, in a frame of its diagonal; the reddest pixel is lit at most fully."""
    wanted, plain, broken = built("tower", "red", True), built("cube"), built("broken")
    columns = {
        "coarse": [built("tower"), plain, broken],
        "category": [1.0, 0.0, 0.0],
        "fine": [wanted, plain, broken],
        "parts": [parts_of(mesh) for mesh in (wanted, plain, broken)],
    }
    high = HIGH([PROMPT] * 3, [""] * 3, **columns)
    assert high[0] > 1.6 > 0.5 > high[1]
    assert high[2] == 0.0  # nothing to be seen: the lowest there is
    low = LOW([PROMPT] * 3, [""] * 3, **columns)
    assert low[0] == pytest.approx((3 + 12 * 0.8) / 3 + 0.5 * (2 + 1 + 0.9) / 2, abs=0.1)
    assert low[1] == pytest.approx(1 + 0.5 * 1.0)
    assert low[2] == 1.0


def test_hi_grpo_learns_the_coarse_and_the_fine_stage_from_meshes():
    """A plan of one token and a refinement of two; advantages per stage, token-mean, KL .01, clip .2 and .28."""
    generator = torch.Generator().manual_seed(0)
    heads = [torch.zeros(k, requires_grad=True) for k in (len(SHAPES), len(COLORS), len(ROOF))]
    optimizer = torch.optim.Adam(heads, lr=0.2)
    n, groups = 16, torch.arange(16) // 8
    means = []
    for _ in range(22):
        logp = [head.log_softmax(0) for head in heads]
        choice = torch.stack(
            [torch.multinomial(p.detach().exp(), n, replacement=True, generator=generator) for p in logp], 1
        )
        made = [(list(SHAPES)[a], list(COLORS)[b], ROOF[c]) for a, b, c in choice.tolist()]
        fine = [built(*what) for what in made]
        columns = {
            "coarse": [built(shape) for shape, _, _ in made],
            "category": [float(shape == "tower") for shape, _, _ in made],
            "fine": fine,
            "parts": [parts_of(mesh) for mesh in fine],
        }
        batch = Rollouts([PROMPT] * n, [""] * n, columns, groups=groups.numpy())
        high, low = (torch.as_tensor(reward.score(batch, Context(batch)).read(0.0)).float() for reward in (HIGH, LOW))
        means.append((high + low).mean().item())
        staged = returns(torch.stack([high, low], 1), torch.ones(n, 2, dtype=torch.bool), gamma=1.0)
        advantages = group_relative(staged, groups, pool="position", ddof=0, eps=1e-4)
        taken = torch.stack([p[choice[:, k]] for k, p in enumerate(logp)], 1)
        base = torch.tensor([-np.log(len(head)) for head in heads], dtype=torch.float32).expand(n, -1)
        loss = torch.zeros(())
        for stage, tokens in enumerate(([0], [1, 2])):
            own = taken[:, tokens]
            loss = loss + policy_gradient(
                own, own.detach(), advantages[:, [stage]].expand(own.shape), torch.ones(own.shape, dtype=torch.bool),
                clip=partial(ppo, low=0.2, high=0.28),
                kl=0.01 * kl_penalty(own, base[:, tokens], kind="k3"),
            )[0]  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    likeliest = [head.softmax(0) for head in heads]
    assert likeliest[0][list(SHAPES).index("tower")] > 0.8
    assert likeliest[1][list(COLORS).index("red")] > 0.8
    assert likeliest[2][1] > 0.7
    assert np.mean(means[-5:]) > np.mean(means[:5]) + 1
