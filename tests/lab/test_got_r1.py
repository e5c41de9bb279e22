"""GoT-R1, joined: chains with boxes and the pictures made of them, judged at every stage, and both learned."""

import numpy as np
import torch

from guerdon import Context, Rollouts, product
from guerdon.credit import group_relative
from guerdon.objectives import kl_penalty, policy_gradient
from guerdon.rewards import layout

PROMPT = "a cat left of a dog"
LEFT, RIGHT = "(0,200),(400,800)", "(600,200),(1000,800)"
CHAINS = (
    f"a cat {LEFT}, a dog {RIGHT}",
    f"a cat {RIGHT}, a dog {LEFT}",
    "a cat and a dog, side by side",
    f"a cat {LEFT}",
)
RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)


def painted(chain, kind):
    """What a painter makes of a chain: as planned, the other way round, or without the dog."""
    picture, plan = np.ones((40, 40, 3)), layout.read_plan(chain)
    for name, box in zip(plan.names, plan.boxes, strict=True):
        if kind == "without" and name.endswith("dog"):
            continue
        left, top, right, bottom = (40 * box).round().astype(int)
        columns = slice(40 - right, 40 - left) if kind == "mirrored" else slice(left, right)
        picture[top:bottom, columns] = RED if name.endswith("cat") else BLUE
    return picture


PAINTERS = ("as planned", "mirrored", "without")


def place(picture, colour):
    """Where pixels of a colour are, as a box of shares; None where there are none."""
    rows, columns = np.nonzero((np.abs(picture - colour) < 0.05).all(-1))
    if not len(rows):
        return None
    return [columns.min() / 40, rows.min() / 40, (columns.max() + 1) / 40, (rows.max() + 1) / 40]


def of_picture(prompt, picture):
    cat, dog = place(picture, RED), place(picture, BLUE)
    if cat is None or dog is None:
        return 3 if cat or dog else 0
    return 10 if cat[0] < dog[0] else 5


def of_chain(prompt, chain):
    """Complete, faithful, consistent, clear: what the prompt names, and where it is."""
    there = 5 * ("cat" in chain) + 5 * ("dog" in chain)
    return [there, there, 10 if "(" in chain else 4, 10]


def of_drawing(prompt, drawing):
    """Reads pixels alone: the first box is outlined in red and the second in green."""
    red, green = ((drawing.argmax(-1) == k) & (np.ptp(drawing, axis=-1) > 100) for k in (0, 1))
    if not red.any() or not green.any():
        return 2
    return 10 if np.nonzero(red)[1].mean() < np.nonzero(green)[1].mean() else 0


def found(picture, names):
    return [place(picture, RED if name.endswith("cat") else BLUE) for name in names]


REWARD = product(
    layout.judged(judge=of_picture, column="image").named("picture"),
    layout.judged(judge=of_chain).named("meaning") + layout.planned(judge=of_drawing, side=64).named("places"),
    layout.grounded(detector=found).named("kept"),
)


def test_got_r1_learns_to_plan_and_to_paint_what_it_planned():
    """One token for the chain and one for the picture, a group's advantages for both, KL .01; R is 2 at most."""
    generator = torch.Generator().manual_seed(0)
    heads = [torch.zeros(len(CHAINS), requires_grad=True), torch.zeros(len(PAINTERS), requires_grad=True)]
    optimizer = torch.optim.Adam(heads, lr=0.2)
    n, groups = 32, torch.arange(32) // 16
    base = torch.tensor([-np.log(len(head)) for head in heads], dtype=torch.float32).expand(n, -1)
    means = []
    for _ in range(20):
        logp = [head.log_softmax(0) for head in heads]
        choice = torch.stack(
            [torch.multinomial(p.detach().exp(), n, replacement=True, generator=generator) for p in logp], 1
        )
        chains = [CHAINS[a] for a, _ in choice.tolist()]
        pictures = [painted(CHAINS[a], PAINTERS[b]) for a, b in choice.tolist()]
        batch = Rollouts([PROMPT] * n, chains, {"image": pictures}, groups=groups.numpy())
        scores = REWARD.score(batch, Context(batch))
        assert scores.valid.all()
        rewards = torch.as_tensor(scores.read(0.0)).float()
        means.append(rewards.mean().item())
        taken = torch.stack([p[choice[:, k]] for k, p in enumerate(logp)], 1)
        loss, _ = policy_gradient(
            taken, taken.detach(), group_relative(rewards, groups), torch.ones(n, 2, dtype=torch.bool),
            kl=0.01 * kl_penalty(taken, base),
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(head.softmax(0)[0].item() for head in heads) > 0.85
    assert means[-1] > 1.6 > 0.6 > means[0]


def test_got_r1_every_stage_is_seen_by_its_own_judge():
    """By hand, per rollout: the picture's mark, those of chain and drawing, and how much of the plan was kept."""
    rows = [(CHAINS[0], "as planned"), (CHAINS[1], "mirrored"), (CHAINS[0], "without"), (CHAINS[2], "as planned")]
    batch = Rollouts([PROMPT] * 4, [chain for chain, _ in rows], {"image": [painted(*row) for row in rows]})
    scores = REWARD.score(batch, Context(batch))
    named = {name: scores.parts[name].read(0.0).round(6).tolist() for name in ("picture", "meaning", "places", "kept")}
    assert named == {
        "picture": [1.0, 1.0, 0.3, 0.0],
        "meaning": [1.0, 1.0, 1.0, 0.85],
        "places": [1.0, 0.0, 1.0, 0.0],
        "kept": [1.0, 0.0, 0.5, 0.0],
    }
    assert scores.read(0.0).round(6).tolist() == [2.0, 0.0, 0.3, 0.0]
