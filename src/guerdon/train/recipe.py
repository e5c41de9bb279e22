"""A recipe: one training run as data, checked before any work."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import yaml

from guerdon.algebra import Reward, spec
from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, RecipeError, SpecError, nearest
from guerdon.data.pool import Unsolved
from guerdon.train import chains, presets
from guerdon.train.language import losses
from guerdon.train.language.critic import CriticConfig
from guerdon.train.language.generation import SamplingConfig
from guerdon.train.language.policy import PolicyConfig
from guerdon.train.language.teach import TeachConfig
from guerdon.train.method import Method
from guerdon.train.prompts import PromptsConfig
from guerdon.train.updates import Optimizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from guerdon.train.control.recipe import ControlRecipe
    from guerdon.train.denoising.recipe import DenoisingRecipe

OWN_MODELS = ("policy", "old", "reference")  # what a run has without being told


@dataclass(frozen=True)
class Batch:
    """How much is sampled and learned from at once.

    Args:
        prompts: prompts per step, over all processes; each gets `method.sampling.group` rollouts.
        minibatches: optimiser steps per pass over the rollouts of a step.
        passes: passes over the rollouts of a step; beyond the first, and with several minibatches, the
            importance ratio leaves 1.
        micro: rollouts per forward and backward pass on one process; the gradient does not depend on it.
    """

    prompts: int = 32
    minibatches: int = 1
    passes: int = 1
    micro: int = 64

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Search:
    """Answers that are written step by step, the critic choosing among continuations: a beam search.

    Args:
        step: a text that ends a step, or how many tokens a step has. With a text that never comes, the best of so many
            candidates is taken, by what the critic expected before their last token.
        candidates: continuations of each prompt that are looked at in each step, equally many of each that was kept.
        keep: how many of them go on.
        allot: continuations are not shared equally, but in proportion to exp(value / T), with this T.

    Raises:
        ValueError: if a number is out of range, or the text is empty.

    Source: TVM (arXiv 2407.12863), whose 40 and 10 are not stated with certainty; `allot`: REBASE (2408.00724).
    """

    step: str | int = "\n"
    candidates: int = 40
    keep: int = 10
    allot: float | None = None

    def __post_init__(self) -> None:
        if self.step == "" or (isinstance(self.step, int) and self.step < 1):
            raise ValueError(f"step is a text that ends a step, or at least 1 token, got {self.step!r}")
        if not self.candidates >= self.keep >= 1:
            raise ValueError(f"candidates ≥ keep ≥ 1 are wanted, got {self.candidates} and {self.keep}")
        if self.allot is not None and not self.allot > 0:
            raise ValueError(f"allot is a temperature above 0, got {self.allot}")


@dataclass(frozen=True)
class Evaluation:
    """What is measured on prompts that training never sees.

    Args:
        prompts: how many; a 95 % interval on 1 024 of them is about ±3 points.
        accuracy: the reward that says right or wrong; an answer is right above 0.5.
        every: also evaluate after every so many steps; 0: before and after only.
        temperature: of the sampled answers; None: as in training.
        batch: answers sampled at once.
        samples: answers to each prompt; with several, pass@k is measured for k = 1, 2, 4, … up to their number.
        search: also answer each prompt once by a search along the critic's values, and measure its accuracy.
        frontier: also measure what the score of `accuracy` has cost in KL to the policy that training began with, what
            it need have cost, and what choosing among the `samples` is worth.
    """

    prompts: int = 1024
    accuracy: Any = "math.answer"
    every: int = 0
    temperature: float | None = None
    batch: int = 256
    samples: int = 1
    search: Search | None = None
    frontier: bool = False

    def __post_init__(self) -> None:
        if min(self.prompts, self.batch, self.samples) < 1 or self.every < 0:
            given = f"{self.prompts}, {self.batch}, {self.samples} and {self.every}"
            raise ValueError(f"prompts, batch and samples must be at least 1 and every at least 0, got {given}")


@dataclass(frozen=True)
class Keeping:
    """What a run writes.

    Args:
        checkpoint_every: steps between checkpoints; a killed run goes on from the last.
        checkpoints: how many are kept.
        rollouts_every: steps between samples of rollouts for the report.
        rollouts: how many rollouts a sample has, in whole groups.
        kl: measure the KL to the policy that training began with also where the method has no penalty on it;
            costs a forward pass of each step's rollouts.
        trackers: of accelerate, e.g. [tensorboard] or [wandb].
    """

    checkpoint_every: int = 50
    checkpoints: int = 2
    rollouts_every: int = 10
    rollouts: int = 64
    kl: bool = False
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.checkpoint_every, self.checkpoints, self.rollouts_every) < 1:
            raise ValueError("checkpoint_every, checkpoints and rollouts_every must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What every recipe has, whatever it trains.

    Args:
        name: the run's folder is `runs/NAME`.
        reward: the reward expression, as `guerdon.algebra.spec` reads it.
        steps: training steps.
        optimizer, keep: see there.
        max_abstain: training stops when more than this share of the last batches' rollouts have no score.
        seed: of everything.
        device: 'auto' takes a GPU where there is one.
        threads: CPU threads of torch; 0 leaves torch's choice.

    Raises:
        ValueError: for a name that is no folder's, or a number out of range.
    """

    name: str
    reward: Any
    steps: int
    optimizer: Optimizer = field(default_factory=Optimizer)
    keep: Keeping = field(default_factory=Keeping)
    max_abstain: float = 0.2
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if not self.name or self.name in (".", "..") or any(c in self.name for c in "/\\\0"):
            raise ValueError(f"name is a folder's name, got {self.name!r}")
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}")
        if not 0 <= self.max_abstain <= 1:
            raise ValueError(f"max_abstain is a share between 0 and 1, got {self.max_abstain}")

    def data(self) -> dict[str, Any]:
        """The recipe as plain data, defaults written out; `from_data` gives it back."""
        return json.loads(json.dumps(dataclasses.asdict(cast("DataclassInstance", self))))  # type: ignore[no-any-return]

    def digest(self) -> str:
        """What two recipes share if they ask for the same run."""
        return hashlib.sha256(json.dumps(self.data(), sort_keys=True).encode()).hexdigest()[:16]

    def load_reward(self, *, allow_import: bool = False) -> Reward:
        """The reward expression."""
        return spec.load(self.reward, allow_import=allow_import)


@dataclass(frozen=True, kw_only=True)
class Sampled(Shared):
    """What recipes share whose policy learns from rollouts of its own.

    Args:
        name, reward, optimizer, keep, max_abstain, seed, device, threads: see `Shared`.
        steps: how many times rollouts are sampled and learned from.
        method: a preset's name, or `{preset: NAME, credit: {…}, objective: {…}, kl: {…}, sampling: {…}}`.
        batch: see there.
    """

    method: Any
    batch: Batch = field(default_factory=Batch)

    def load_method(self) -> Method:
        """The method, its changes to the preset applied.

        Raises:
            RecipeError: for an unknown preset, option or type.
        """
        if isinstance(self.method, str):
            return presets.load(self.method)
        if not isinstance(self.method, Mapping) or "preset" not in self.method:
            raise RecipeError(f"method: expected a preset's name or {{preset: NAME, …}}, got {self.method!r}")
        changes = dict(self.method)
        return presets.load(changes.pop("preset"), **changes)

    def load_reward(self, *, allow_import: bool = False) -> Reward:
        """The reward expression, followed by the shapers that belong to the method."""
        reward = super().load_reward(allow_import=allow_import)
        shapers = [dict(shaper) for shaper in self.load_method().shaping]
        return spec.chain(reward, shapers, where="method.shaping", allow_import=allow_import) if shapers else reward


@dataclass(frozen=True, kw_only=True)
class Recipe(Sampled):
    """A training run of a language model.

    Args:
        name, reward, steps, method, batch, optimizer, keep, max_abstain, seed, device, threads: see `Sampled`.
        policy: the language model.
        prompts: what it is asked.
        sampling: temperature, length limit, stop strings.
        teach: supervised learning before, if any.
        models: language models that rewards and objectives read beside 'policy', 'old' and 'reference': for each name
            what `policy` takes, or 'policy' for a copy of the policy as training finds it.
        critic: learns what to expect of a rollout, for methods that read it, such as `ppo`.
        evaluation: see there.
    """

    policy: PolicyConfig
    prompts: PromptsConfig
    method: Any = "grpo"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    teach: TeachConfig | None = None
    models: Mapping[str, Any] = field(default_factory=dict)
    critic: CriticConfig | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)

    def load_models(self) -> dict[str, PolicyConfig | Literal["policy"]]:
        """The settings of the models that rewards and objectives read by name.

        Raises:
            RecipeError: for a name that is taken.
            SpecError: for an unknown setting or type.
        """
        taken = next((name for name in self.models if name in (*OWN_MODELS, "critic")), None)
        if taken is not None:
            raise RecipeError(f"models.{taken}: the run has a model of that name itself; choose another")
        return {
            name: "policy" if config == "policy" else coerce(config, PolicyConfig, f"models.{name}")
            for name, config in self.models.items()
        }


AnyRecipe: TypeAlias = "Recipe | DenoisingRecipe | ControlRecipe"


def load(path: str | Path, changes: Sequence[str] = (), *, allow_import: bool = False) -> AnyRecipe:
    """Read a recipe and check all of it that can be checked without doing any work.

    Args:
        path: a YAML file.
        changes: settings to change, as `a.b=value` with a YAML value.
        allow_import: also take reward parts from outside guerdon.

    Raises:
        RecipeError: names the file, the setting and the nearest valid name.
    """
    data = read(path)
    for change in changes:
        key, value = setting(change)
        put(data, key, value)
    try:
        return from_data(data, allow_import=allow_import)
    except GuerdonError as error:
        raise RecipeError(f"{path}: {error}") from error


def read(path: str | Path) -> dict[str, Any]:
    """The data of a recipe's file, named after it.

    Raises:
        RecipeError: if it cannot be read, or is no mapping in YAML.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping, this is {type(data).__name__}")
    return {"name": path.stem} | data


def from_data(data: Mapping[str, Any], *, allow_import: bool = False) -> AnyRecipe:
    """A recipe from plain data, checked: of a denoising policy if it has a `denoiser`, of a planner if it has a
    `planner`, else of a language model.

    Raises:
        RecipeError: names the setting and the nearest valid name.
    """
    if "denoiser" in data:
        from guerdon.train.denoising import recipe as denoising_recipe

        return denoising_recipe.from_data(data, allow_import=allow_import)
    if "planner" in data:
        from guerdon.train.control import recipe as control_recipe

        return control_recipe.from_data(data, allow_import=allow_import)
    try:
        recipe: Recipe = coerce(data, Recipe, "")
        reward = recipe.load_reward(allow_import=allow_import)
        spec.load(recipe.evaluation.accuracy, allow_import=allow_import)
        method = recipe.load_method()
        chosen = method.sampling.load_filter(allow_import=allow_import)
        recipe.load_models()
        if recipe.critic is not None:
            recipe.critic.load_model()
    except SpecError as error:
        raise RecipeError(str(error)) from error
    for part in chosen.needs if chosen is not None else ():
        if part not in reward.names():
            raise RecipeError(
                f"method.sampling.filter: the reward has no part {part!r}: {nearest(part, reward.names())}"
            )
    if recipe.prompts.unsolved is not None:
        _check_unsolved(recipe.prompts.unsolved, reward)
        if method.sampling.steps is not None:
            raise RecipeError("prompts.unsolved: a prompt is solved by whole rollouts: not with method.sampling.steps")
    chains.check(method, reward, critic=recipe.critic is not None)
    losses.check(
        method, reward, ["reference", *recipe.models, *(["critic"] if recipe.critic else [])],
        prefixes=recipe.critic is not None and recipe.critic.targets == "prefix",
    )  # fmt: skip
    _check_evaluation(recipe)
    if method.blend is not None and recipe.batch.prompts < 2:
        raise RecipeError("method.blend: what a part does for other prompts is asked: batch.prompts is at least 2")
    if losses.by_groups(method) and recipe.batch.prompts % recipe.batch.minibatches:
        raise RecipeError(
            f"batch.minibatches: the objective compares whole groups, and {recipe.batch.prompts} of them do not divide "
            f"into {recipe.batch.minibatches}"
        )
    if method.sampling.group * recipe.batch.prompts % recipe.batch.minibatches:
        rollouts = method.sampling.group * recipe.batch.prompts
        raise RecipeError(f"batch.minibatches: {rollouts} rollouts do not divide into {recipe.batch.minibatches}")
    return recipe


def _check_unsolved(unsolved: Unsolved, reward: Reward) -> None:
    """Check that there is something by which a rollout is right."""
    names = reward.names()
    if unsolved.of is not None and unsolved.of not in names:
        raise RecipeError(f"prompts.unsolved.of: the reward has no part {unsolved.of!r}: {nearest(unsolved.of, names)}")
    if (reward if unsolved.of is None else names[unsolved.of]).level == "step":
        raise RecipeError(
            f"prompts.unsolved.of: {unsolved.of or 'the reward'} is one of steps: name a part that is of rollouts"
        )


def _check_evaluation(recipe: Recipe) -> None:
    evaluation, sampling = recipe.evaluation, recipe.sampling
    temperature = sampling.temperature if evaluation.temperature is None else evaluation.temperature
    if evaluation.search is not None and recipe.critic is None:
        raise RecipeError(
            "evaluation.search: answers are ranked by the values of a critic, and the recipe has none: add "
            "critic: {targets: prefix}"
        )
    if evaluation.search is not None and temperature == 0:
        raise RecipeError("evaluation.search: at temperature 0 all candidates are the same: set evaluation.temperature")
    if evaluation.frontier and evaluation.samples < 2:
        raise RecipeError(
            "evaluation.frontier: what a policy can reach is seen from several answers to each prompt: set "
            "evaluation.samples to 2 or more"
        )
    if evaluation.frontier and (temperature == 0 or sampling.top_p < 1):
        raise RecipeError(
            "evaluation.frontier: a KL is measured on answers drawn from the whole policy: set evaluation.temperature "
            "above 0 and sampling.top_p to 1"
        )


def setting(change: str) -> tuple[str, Any]:
    """A change as it is typed, `a.b=value`: the place, and the value, which is YAML.

    Raises:
        RecipeError: if it is written otherwise.
    """
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {change!r}: write it as setting=value")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"--set {change!r}: the value is not YAML") from None


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Change the setting at a place, `a.b`, of a recipe's data.

    Raises:
        RecipeError: if there can be no setting at the place.
    """
    *path, last = key.split(".")
    here: Any = data
    for depth, name in enumerate(path):
        if here.get(name) is None:
            here[name] = {}
        elif name == "method" and isinstance(here[name], str):
            here[name] = {"preset": here[name]}
        here = here[name]
        if not isinstance(here, dict):
            raise RecipeError(f"cannot set {key!r}: {'.'.join(path[: depth + 1])} has no settings inside it")
    here[last] = value
