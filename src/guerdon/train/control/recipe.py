"""A recipe for a planner: what differs from one for a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from guerdon.core.coerce import coerce
from guerdon.core.errors import RecipeError, SpecError
from guerdon.train.recipe import Shared
from guerdon.train.updates import Optimizer


@dataclass(frozen=True)
class PlannerConfig:
    """The size of a `models.MultiScalePlanner`, and how its time to learn is divided.

    Args:
        length: steps of the trajectories that it writes.
        scales: of how many codes each scale is; they rise, and each divides the length, the last one being it.
        codes: size of the codebook.
        width: of all layers.
        layers, heads: of the transformer over scales.
        coding: the share of the training steps in which codes are learned; in the others, to plan with them.

    Raises:
        ValueError: if the share is out of range.
    """

    length: int = 8
    scales: tuple[int, ...] = (1, 2, 4, 8)
    codes: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4
    coding: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.coding < 1:
            raise ValueError(f"coding is a share of the steps between 0 and 1, got {self.coding}")


@dataclass(frozen=True)
class EnvironmentConfig:
    """Where the planner acts: one of gymnasium's environments; needs `guerdon[control]`.

    What is seen may be anything that gymnasium can flatten; actions are numbers (Box) or choices (Discrete).

    Args:
        id: its name, as `CartPole-v1`; one with a module's name before it, `module:Name-v0`, runs that module's code.
        options: what else `gymnasium.make` takes.
        limit: steps after which an episode is cut, whatever the environment says.

    Raises:
        ValueError: if the limit is not positive.
    """

    id: str
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: int = 1000

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")


@dataclass(frozen=True)
class EpisodesConfig:
    """What is learned from: exactly one of `file` and `record`.

    Args:
        file: JSONL, JSONL.GZ or Parquet, a row per episode, with `observations` (one more than actions: the last is
            where it ended; or as many, where that is not known) and `actions`; every other column is there for the
            reward to read. Names are those of Minari's datasets.
        record: how many episodes are recorded before training, with what the environment itself pays as `rewards`.
        behaviour: who acts in these: 'random' draws every action anew; 'linear' draws a linear controller for each
            episode, most of which are bad and some good.
        hold: steps for which a random action is kept.

    Raises:
        ValueError: if the choice is not one, or a number is out of range.
    """

    file: str | None = None
    record: int | None = None
    behaviour: Literal["random", "linear"] = "linear"
    hold: int = 1

    def __post_init__(self) -> None:
        if (self.file is None) == (self.record is None):
            given = "neither" if self.file is None else "both"
            raise ValueError(f"episodes are read from a file or recorded: {given} given")
        if (self.record is not None and self.record < 1) or self.hold < 1:
            raise ValueError(f"record and hold must be at least 1, got {self.record} and {self.hold}")


@dataclass(frozen=True)
class ControlEvaluation:
    """What the planner earns in the environment when so much is asked for, in the same episodes each time.

    Args:
        targets: returns that are asked for, rising; None: five, evenly from one that nine tenths of the recorded
            episodes reach to the best of them.
        episodes: of each target.
        every: also evaluate after every so many steps; 0: before and after only.
        drawn: each code is drawn from its distribution, and not the likeliest.
        lower: what has been earned is taken from what is asked for, at every step; a reward of whole episodes has
            earned nothing before their end. How the source does it is not stated.

    Raises:
        ValueError: if a number is out of range, or the targets do not rise.
    """

    targets: tuple[float, ...] | None = None
    episodes: int = 20
    every: int = 0
    drawn: bool = False
    lower: bool = True

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.every < 0:
            raise ValueError(f"episodes must be at least 1 and every at least 0, got {self.episodes} and {self.every}")
        if self.targets is not None and (not self.targets or list(self.targets) != sorted(set(self.targets))):
            raise ValueError(f"targets are returns that rise, got {list(self.targets)}")


@dataclass(frozen=True, kw_only=True)
class ControlRecipe(Shared):
    """A training run of a planner on recorded episodes.

    For the reward an episode is a rollout: its columns are `observations`, `actions` and what else was recorded, and it
    is scored step by step or as a whole. What is then still to be earned at each step is what the planner learns to
    plan for.

    Args:
        name, reward, steps, optimizer, keep, max_abstain, seed, device, threads: see `Shared`.
        planner: what is trained.
        environment: where it acts.
        episodes: what it learns from.
        windows: stretches of episodes that a training step learns from, over all processes.
        evaluation: see there.

    Raises:
        ValueError: if a number is out of range, or a setting is for other policies.
    """

    planner: PlannerConfig
    environment: EnvironmentConfig
    episodes: EpisodesConfig
    reward: Any = field(default_factory=lambda: {"part": "recorded.steps", "column": "rewards"})
    windows: int = 64
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=1e-3))
    evaluation: ControlEvaluation = field(default_factory=ControlEvaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.windows < 1:
            raise ValueError(f"windows must be at least 1, got {self.windows}")
        if self.keep.kl:
            raise ValueError("keep.kl: a planner has no reference policy")


def from_data(data: Mapping[str, Any], *, allow_import: bool = False) -> ControlRecipe:
    """A recipe from plain data, checked.

    Raises:
        RecipeError: names the setting and the nearest valid name.
    """
    try:
        recipe: ControlRecipe = coerce(data, ControlRecipe, "")
        recipe.load_reward(allow_import=allow_import)
    except SpecError as error:
        raise RecipeError(str(error)) from error
    if ":" in recipe.environment.id and not allow_import:
        raise RecipeError(
            f"environment.id: {recipe.environment.id!r} imports a module, which runs its code: allow it with "
            "--allow-import if you trust it"
        )
    return recipe
