"""Episodes: what somebody did in an environment, step by step; recorded, read from a file, or played by a planner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from guerdon.core.errors import MissingExtra, RecipeError, nearest
from guerdon.core.rollouts import RESERVED, Rollouts
from guerdon.train.control.recipe import EnvironmentConfig, EpisodesConfig
from guerdon.train.prompts import rows_of

Vector: TypeAlias = Float[np.ndarray[Any, Any], "d"]
Vectors: TypeAlias = Float[np.ndarray[Any, Any], "t d"]
Actor: TypeAlias = Callable[[Sequence[int], Sequence["Episode"]], Vectors]

EVALUATION, RECORDING = 1, 6  # streams of randomness
TOGETHER = 64  # episodes that are played at a time


@dataclass
class Episode:
    """What was seen and done.

    Args:
        observations: one more than actions.
        actions: as vectors; a choice is one of zeros and a 1.
        rewards: what the environment itself paid for each.
        ended: the task did, and not the time for it.
    """

    observations: list[Vector]
    actions: list[Vector] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ended: bool = False


class World:
    """An environment of gymnasium in which what is seen and done are vectors.

    Args:
        config: which one.

    Raises:
        MissingExtra: without gymnasium.
        RecipeError: if there is no such environment, or its actions are neither numbers nor choices.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        try:
            import gymnasium
        except ImportError:
            raise MissingExtra("environment", "control") from None
        try:
            self._made = gymnasium.make(config.id, **config.options)
        except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
            raise RecipeError(f"environment: gymnasium cannot make {config.id!r}: {error}") from None
        self._flatten = gymnasium.spaces.flatten
        self._actions: Any = self._made.action_space
        self.discrete = isinstance(self._actions, gymnasium.spaces.Discrete)
        if not self.discrete and not isinstance(self._actions, gymnasium.spaces.Box):
            raise RecipeError(f"environment: actions of {config.id!r} are neither Box nor Discrete: {self._actions}")
        box: Any = self._actions
        self._limits: tuple[Vector, ...] = () if self.discrete else (box.low.ravel(), box.high.ravel())
        self.config = config
        self.state = self._width(gymnasium, self._made.observation_space)
        self.action = self._width(gymnasium, self._actions)

    def _width(self, gymnasium: Any, space: Any) -> int:
        try:
            return int(gymnasium.spaces.flatdim(space))
        except (NotImplementedError, ValueError):
            raise RecipeError(f"environment: {space} of {self.config.id!r} cannot be made a vector") from None

    def begin(self, seed: int) -> Vector:
        """The first observation of an episode."""
        seen, _ = self._made.reset(seed=seed)
        return self._vector(seen)

    def step(self, action: Vector) -> tuple[Vector, float, bool, bool]:
        """What is seen and paid next; whether the task has ended, and whether its time has."""
        seen, reward, ended, cut, _ = self._made.step(self._act(action))
        return self._vector(seen), float(reward), bool(ended), bool(cut)

    def draws(self, seed: int) -> None:
        """Begin anew with what `drawn` gives."""
        self._actions.seed(seed)

    def drawn(self) -> Vector:
        """Any action."""
        return np.asarray(self._flatten(self._actions, self._actions.sample()), np.float64)

    def within(self, action: Vector) -> Vector:
        """The action that is taken when one is asked for: the likeliest choice, or numbers held to their limits.

        >>> World(EnvironmentConfig("CartPole-v1")).within(np.array([0.2, 0.7]))
        array([0., 1.])
        """
        if self.discrete:
            return np.where(np.arange(self.action) == np.argmax(action), 1.0, 0.0)
        return np.clip(action, *self._limits)

    def squashed(self, action: Vector) -> Vector:
        """An action of any numbers: through tanh, to all that the limits leave, where there are any."""
        if self.discrete:
            return action
        bounded = np.isfinite(self._limits).all(0)
        low, high = np.where(bounded, self._limits, 0.0)
        return np.where(bounded, (low + high) / 2 + (high - low) / 2 * np.tanh(action), action)

    def read(self, actions: Any) -> Vectors:
        """Recorded actions as vectors.

        Raises:
            ValueError: if they are not this environment's.
        """
        found = np.asarray(actions, np.float64)
        if self.discrete and found.ndim == 1:
            places = found - self._actions.start
            if not np.isin(places, np.arange(self.action)).all():
                raise ValueError(f"actions are choices {self._actions.start} … {self._actions.start + self.action - 1}")
            return np.where(places[:, None] == np.arange(self.action), 1.0, 0.0)
        found = found.reshape(len(found), -1)
        if found.shape[1] != self.action or not np.isfinite(found).all():
            raise ValueError(f"an action is {self.action} finite numbers, not {found.shape[1]}")
        return found

    def close(self) -> None:
        """Let go of what it holds."""
        self._made.close()

    def _act(self, action: Vector) -> Any:
        action = self.within(action)
        if self.discrete:
            return int(np.argmax(action)) + int(self._actions.start)
        return action.reshape(self._actions.shape).astype(self._actions.dtype)

    def _vector(self, seen: Any) -> Vector:
        found = np.asarray(self._flatten(self._made.observation_space, seen), np.float64)
        if not np.isfinite(found).all():
            raise RecipeError(f"environment: {self.config.id!r} shows what is not finite: {found}")
        return found


def play(config: EnvironmentConfig, seeds: Sequence[int], act: Actor) -> Iterator[list[Episode]]:
    """Play episodes, some at a time, all of which take a step before any takes the next.

    Args:
        config: the environment.
        seeds: of the episodes.
        act: from the numbers of the episodes that go on, and these as they stand, to an action for each.

    Yields:
        Episodes in the order of their seeds.
    """
    worlds = [World(config) for _ in seeds[:TOGETHER]]
    try:
        for at in range(0, len(seeds), TOGETHER):
            numbers = range(at, min(at + TOGETHER, len(seeds)))
            there = dict(zip(numbers, worlds, strict=False))
            played = {number: Episode([there[number].begin(seeds[number])]) for number in numbers}
            going = list(numbers)
            while going:
                actions = act(going, [played[number] for number in going])
                going = [n for n, action in zip(going, actions, strict=True) if _on(there[n], played[n], action)]
            yield list(played.values())
    finally:
        for world in worlds:
            world.close()


def _on(world: World, episode: Episode, action: Vector) -> bool:
    """Take a step; whether the episode goes on."""
    seen, reward, episode.ended, cut = world.step(action)
    episode.observations.append(seen)
    episode.actions.append(world.within(action))
    episode.rewards.append(reward)
    return not (episode.ended or cut or len(episode.actions) >= world.config.limit)


def record(
    config: EpisodesConfig, environment: EnvironmentConfig, *, seed: int, done: Callable[[int], None]
) -> list[Episode]:
    """Episodes of a behaviour that knows nothing of the task; what is random is a function of the seed.

    Args:
        config: how many, and who acts.
        environment: where.
        seed: of everything.
        done: is told how many more there are.

    Source: of random linear controllers some are good, arXiv 1803.07055.
    """
    assert config.record is not None
    spaces = World(environment)
    behave = {"random": _random, "linear": _linear}[config.behaviour](spaces, config.hold, seed)
    found: list[Episode] = []
    for some in play(environment, [seeded(seed, RECORDING, i) for i in range(config.record)], behave):
        found += some
        done(len(some))
    spaces.close()
    return found


def _random(world: World, hold: int, seed: int) -> Actor:
    world.draws(seeded(seed, RECORDING))
    kept: dict[int, Vector] = {}

    def act(numbers: Sequence[int], episodes: Sequence[Episode]) -> Vectors:
        for number, episode in zip(numbers, episodes, strict=True):
            if len(episode.actions) % hold == 0:
                kept[number] = world.drawn()
        return np.stack([kept[number] for number in numbers])

    return act


def _linear(world: World, hold: int, seed: int) -> Actor:
    kept: dict[int, Vectors] = {}

    def act(numbers: Sequence[int], episodes: Sequence[Episode]) -> Vectors:
        found = []
        for number, episode in zip(numbers, episodes, strict=True):
            if number not in kept:
                kept[number] = np.random.default_rng([seed, RECORDING, number]).normal(size=(world.action, world.state))
            found.append(world.squashed(kept[number] @ episode.observations[-1]))
        return np.stack(found)

    return act


def seeded(*numbers: int) -> int:
    """A seed for gymnasium, a function of some numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def as_rollouts(episodes: Sequence[Episode], name: str) -> Rollouts:
    """Episodes as a reward reads them: one rollout each, with columns `observations`, `actions` and `rewards`."""
    columns: dict[str, Sequence[Any]] = {
        "observations": [np.stack(episode.observations).tolist() for episode in episodes],
        "actions": [np.stack(episode.actions).tolist() if episode.actions else [] for episode in episodes],
        "rewards": [list(episode.rewards) for episode in episodes],
    }
    finished = np.array([episode.ended for episode in episodes], bool)
    return Rollouts([name] * len(episodes), [""] * len(episodes), columns, finished=finished)


def read(path: str, world: World) -> Rollouts:
    """The episodes of a file, as a reward reads them.

    Raises:
        RecipeError: names the row and what is wrong with it.
    """
    rows = rows_of(path, "episodes")
    for name in ("observations", "actions"):
        if name not in rows[0]:
            raise RecipeError(f"{path}: episodes have no column {name!r}: {nearest(name, rows[0])}")
    for number, row in enumerate(rows):
        try:
            row["observations"], row["actions"] = _checked(row, world)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{path}, episode {number}: {error}") from None
    names = [name for name in rows[0] if name not in RESERVED]
    columns: dict[str, Sequence[Any]] = {name: [row[name] for row in rows] for name in names}
    return Rollouts([world.config.id] * len(rows), [""] * len(rows), columns)


def _checked(row: Mapping[str, Any], world: World) -> tuple[list[Any], list[Any]]:
    """Observations, one more than actions, and actions, as lists of vectors."""
    actions = world.read(row["actions"])
    seen = np.asarray(row["observations"], np.float64)
    seen = seen.reshape(len(seen), -1)
    if not len(actions) or len(seen) - len(actions) not in (0, 1):
        raise ValueError(f"{len(seen)} observations for {len(actions)} actions: one more is wanted, or as many")
    if seen.shape[1] != world.state or not np.isfinite(seen).all():
        raise ValueError(f"an observation is {world.state} finite numbers, not {seen.shape[1]}")
    if len(seen) == len(actions):
        seen = np.concatenate([seen, seen[-1:]])
    return seen.tolist(), actions.tolist()
