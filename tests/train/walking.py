"""A walk on a line to one of two goals, as an environment and as recorded episodes: what more is asked for is known."""

import json
from typing import Any

import gymnasium
import numpy as np
from merging import merged

from guerdon.train import recipe as recipes
from guerdon.train.control.recipe import ControlRecipe

ID = "guerdon/Line-v0"


class Line(gymnasium.Env):
    """Steps of −1 to 1; those to the right pay their length / 8, those to the left three tenths of it."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, start: float = -2.0) -> None:
        self.start, self.place = start, start

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.start + 0.1 * self.np_random.standard_normal()
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place += float(action[0])
        return np.array([self.place], np.float32), pays(float(action[0])), False, False, {}


def pays(action: float) -> float:
    return (action if action > 0 else -0.3 * action) / 8


gymnasium.register(ID, entry_point=Line, max_episode_steps=8)


def walked(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Walks from anywhere to either side, each at a speed of its own."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        speed = generator.choice([-1, 1]) * generator.uniform(0.3, 1.0)
        actions = np.clip(speed + 0.02 * generator.standard_normal(8), -1, 1)
        places = generator.uniform(-4, 4) + np.concatenate([[0.0], actions.cumsum()])
        found.append(
            {
                "observations": [[x] for x in places],
                "actions": [[a] for a in actions],
                "rewards": [pays(a) for a in actions],
            }
        )
    return found


TINY: dict[str, Any] = {
    "name": "tiny",
    "planner": {"length": 4, "scales": [1, 4], "codes": 8, "width": 8, "layers": 1, "heads": 2},
    "environment": {"id": ID},
    "episodes": {"record": 6, "behaviour": "random"},
    "steps": 4,
    "windows": 8,
    "evaluation": {"targets": [0.2, 0.8], "episodes": 3},
    "keep": {"checkpoint_every": 2},
    "threads": 1,
    "device": "cpu",
}


def tiny(**changes: Any) -> ControlRecipe:
    """The tiny recipe with changes."""
    recipe = recipes.from_data(merged(TINY, changes), allow_import=True)
    assert isinstance(recipe, ControlRecipe)
    return recipe


def written(path, rows) -> str:
    """Episodes as a file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
