"""A recipe for a denoising policy: what differs from one for a language model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from guerdon.core.coerce import coerce
from guerdon.core.errors import RecipeError, SpecError
from guerdon.core.parts import name_of
from guerdon.core.scores import Level
from guerdon.train import chains
from guerdon.train.denoising.denoiser import DenoiserConfig
from guerdon.train.denoising.digits import DenoisingTeach
from guerdon.train.method import Method, Part, function_of, in_turn, options
from guerdon.train.prompts import PromptsConfig
from guerdon.train.recipe import Sampled

# What the loop has for an objective.
GIVEN = (
    "logp", "old_logp", "advantages", "mask", "kl", "denominator", "ref_logp", "rewards", "groups", "valid",
)  # fmt: skip


@dataclass(frozen=True)
class Calibration:
    """How the noise of the steps follows what it does: `objectives.denoising.calibrated`, after each training step.

    Args:
        balance: a step whose gains and losses differ in number by less than this share of the rollouts gets more.
        change: by so much, in the unit of `a`; the others get so much less.
        floor: the least, above 0.

    Raises:
        ValueError: if a number is out of range.
    """

    balance: float = 0.1
    change: float = 0.02
    floor: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= 1 or not self.change > 0 or not self.floor > 0:
            given = f"{self.balance}, {self.change} and {self.floor}"
            raise ValueError(f"balance lies in [0, 1], change and floor are above 0, got {given}")


@dataclass(frozen=True)
class DenoisingSampling:
    """How noise becomes a picture, and which steps explore.

    Args:
        steps: denoising steps of a trajectory.
        kind: of `objectives.denoising.step`; None: 'flow_sde' for a flow-matching scheduler, 'ddim' for DDIM and DDPM,
            'consistency' for LCM, all of whose steps but the last explore.
        a: how much noise a step adds; None: 0.7 for flows, 1 for ddim.
        guidance: while sampling and learning alike; 1: none. Classifier-free, or what the network is told, where it
            reads a guidance.
        window: the first step that explores and the first that does so no more; None: all but the last, whose noise
            would stay in the picture.
        singular: the rollouts of a group begin with the same noise and explore at one step each, those of the window in
            turn: what tells rollouts with one step apart is due to its noise (G²RPO, arXiv 2510.01982).
        granularities: with `singular`, at which strides the steps behind the one that explored are taken; the pictures
            of each are scored, and credit compares each with its like and adds what it finds. The first is 1.
        branches: with `interval`, so many rollouts of a group, one behind the other, share all that comes before it.
        interval: how many of the last steps are learned from, at the first training step and at the last; those before
            explore, too, and teach nothing (B²-DiffuRL, arXiv 2503.11240).
        calibration: the noise of each step follows what it does (DenseGRPO, arXiv 2601.20218); it begins as that of
            'flow_sde', and needs credit that begins with potentials. None: it does not.
        reduce: a step's log-probability is the 'mean' or the 'sum' over the elements of a sample.

    Raises:
        ValueError: if a number is out of range, the window is not within the steps, or settings do not go together.
    """

    steps: int = 10
    kind: Literal["flow_sde", "dance", "cps", "ddim", "consistency"] | None = None
    a: float | None = None
    guidance: float = 1.0
    window: tuple[int, int] | None = None
    singular: bool = False
    granularities: tuple[int, ...] = (1,)
    branches: int = 1
    interval: tuple[int, int] | None = None
    calibration: Calibration | None = None
    reduce: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}: the last one does not explore")
        if not self.guidance >= 1 or (self.a is not None and not self.a > 0):
            raise ValueError(f"guidance is at least 1 and a above 0, got {self.guidance} and {self.a}")
        first, last = self.explored
        if not 0 <= first < last <= self.steps:
            raise ValueError(f"window: steps {first} to {last} are not in a trajectory of {self.steps}")
        if self.granularities[:1] != (1,) or len(set(self.granularities)) < len(self.granularities):
            raise ValueError(f"granularities are different strides, 1 before others, got {list(self.granularities)}")
        if len(self.granularities) > 1 and not self.singular:
            raise ValueError("granularities are views of one step: set singular: true")
        if self.branches < 1 or (self.branches > 1 and self.interval is None):
            raise ValueError("branches are at least 1, and part where the interval begins: set interval")
        if self.interval is not None:
            shortest, longest = self.interval
            if not 1 <= shortest <= longest <= self.steps or last <= self.steps - shortest:
                raise ValueError(
                    f"interval: from the last {shortest} to the last {longest} of {self.steps} steps, of which those "
                    f"before step {last} explore: they grow, and explore"
                )
        if self.singular and (self.interval is not None or self.calibration is not None):
            raise ValueError("singular: a single step explores: neither interval nor calibration goes with it")
        if self.calibration is not None and self.kind not in (None, "flow_sde"):
            raise ValueError(f"calibration begins with the noise of flow_sde, got kind {self.kind!r}")

    @property
    def explored(self) -> tuple[int, int]:
        """The first step that explores, and the first behind it that does not."""
        return (0, self.steps - 1) if self.window is None else self.window


@dataclass(frozen=True)
class DenoisingEvaluation:
    """What is measured on pictures that are made without noise in the steps, from the same noise each time.

    Args:
        prompts: how many pictures; the prompts of a file are held-out ones, and classes take turns.
        every: also evaluate after every so many steps; 0: before and after only.
        steps: denoising steps; None: as in training.
        batch: pictures made at once.
    """

    prompts: int = 200
    every: int = 0
    steps: int | None = None
    batch: int = 256

    def __post_init__(self) -> None:
        if min(self.prompts, self.batch, self.steps or 1) < 1 or self.every < 0:
            given = f"{self.prompts}, {self.batch}, {self.steps} and {self.every}"
            raise ValueError(f"prompts, batch and steps must be at least 1 and every at least 0, got {given}")


@dataclass(frozen=True, kw_only=True)
class DenoisingRecipe(Sampled):
    """A training run of a denoising policy.

    For the reward a completion is a picture, an array "h w" or "h w 3" of bytes; `batch.micro` counts denoising steps.

    Args:
        name, reward, steps, batch, optimizer, keep, max_abstain, seed, device, threads: see `Sampled`.
        denoiser: the diffusion or flow model.
        prompts: texts; None: the classes of the model, written as numbers.
        method: a preset's name, or `{preset: NAME, credit: {…}, objective: {…}, kl: {…}, sampling: {…}}`.
        sampling: denoising steps, noise, guidance.
        teach: learning from data before, if any.
        evaluation: see there.
    """

    denoiser: DenoiserConfig
    prompts: PromptsConfig | None = None
    method: Any = "flow_grpo"
    sampling: DenoisingSampling = field(default_factory=DenoisingSampling)
    teach: DenoisingTeach | None = None
    evaluation: DenoisingEvaluation = field(default_factory=DenoisingEvaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teach is not None and self.denoiser.from_config is None:
            raise ValueError("teach: digits are taught to a model built on the spot: use denoiser.from_config")


def from_data(data: Mapping[str, Any], *, allow_import: bool = False) -> DenoisingRecipe:
    """A recipe from plain data, checked.

    Raises:
        RecipeError: names the setting and the nearest valid name.
    """
    try:
        recipe: DenoisingRecipe = coerce(data, DenoisingRecipe, "")
        reward = recipe.load_reward(allow_import=allow_import)
        method = recipe.load_method()
    except SpecError as error:
        raise RecipeError(str(error)) from error
    level: Level | None = "step" if reads_potentials(method) else None
    chains.check(method, reward, branches=recipe.sampling.interval is not None, level=level)
    _check(method)
    for name in ("stages", "unsolved"):
        if getattr(recipe.prompts, name, None) is not None:
            raise RecipeError(f"prompts.{name}: not for a denoising policy")
    _check_groups(recipe, method)
    return recipe


def reads_potentials(method: Method) -> bool:
    """Whether credit begins with what each intermediate sample is worth: then those are completed and scored, too."""
    first = in_turn(method.credit)[0]
    return callable(first) and chains.differs(first)


def given(method: Method) -> tuple[str, ...]:
    """What the loop gives a method's objective: all that is no option of it, but what the loop does not have."""
    return _given(function_of(method.objective))


@cache
def _given(objective: Part) -> tuple[str, ...]:
    chosen = options(objective)
    free = [x for x in inspect.signature(objective).parameters.values() if x.name not in chosen]
    return tuple(x.name for x in free if x.kind is not x.VAR_KEYWORD and (x.name in GIVEN or x.default is x.empty))


def by_groups(method: Method) -> bool:
    """Whether the objective compares the rollouts of a group: then a group is never cut in two."""
    return "groups" in given(method)


def _check(method: Method) -> None:
    """What of a method belongs to tokens of a vocabulary only.

    Raises:
        RecipeError: naming the setting.
    """
    reads, name = given(method), name_of(function_of(method.objective))
    strange = [one for one in reads if one not in GIVEN]
    if strange:
        raise RecipeError(
            f"objective: {name} reads {strange[0]!r}, which a denoising policy does not have; it has: "
            f"{', '.join(GIVEN)}"
        )
    if not {"logp", "mask", "denominator"} <= set(reads) or not {"advantages", "rewards"} & set(reads):
        raise RecipeError(f"objective: {name} does not learn from log-probabilities of steps and what they earned")
    if method.kl.coefficient and "kl" not in reads:
        raise RecipeError(f"kl: {name} takes no penalty per step: set its coefficient to 0")
    if method.kl.coefficient and method.kl.place != "loss":
        raise RecipeError("method.kl.place: the KL of a denoising step is known exactly and belongs in the loss")
    settings = {
        "kl.corrected": method.kl.corrected, "entropy": method.entropy, "constraint": method.constraint,
        "sampling.dynamic": method.sampling.dynamic, "sampling.external": method.sampling.external,
        "sampling.filter": method.sampling.filter, "sampling.begin": method.sampling.begin,
        "sampling.guided": method.sampling.guided, "sampling.steps": method.sampling.steps, "reads": method.reads,
        "blend": method.blend, "answer": method.answer,
    }  # fmt: skip
    for setting, value in settings.items():
        if value:
            raise RecipeError(f"method.{setting}: not for a denoising policy")
    if method.denominator != "batch":
        raise RecipeError("method.denominator: a denoising policy's losses are divided by that of the batch")
    if options(method.objective).get("aggregate") == "constant" and not options(method.objective).get("length"):
        raise RecipeError("objective.length: aggregate 'constant' needs the number of steps to divide by")


def _check_groups(recipe: DenoisingRecipe, method: Method) -> None:
    """How many pictures a prompt has, against how they are to be sampled and divided.

    Raises:
        RecipeError: naming the setting.
    """
    group, sampling = method.sampling.group, recipe.sampling
    first, last = sampling.explored
    if sampling.singular and group % (last - first):
        raise RecipeError(
            f"sampling.singular: {group} pictures of a prompt do not divide over the {last - first} steps of the window"
        )
    if group % sampling.branches:
        raise RecipeError(f"sampling.branches: {group} pictures of a prompt do not divide into {sampling.branches}")
    if sampling.calibration is not None and not reads_potentials(method):
        raise RecipeError(
            "sampling.calibration: it reads what each step gained: use credit of potentials, as dense_grpo has"
        )
    if len(sampling.granularities) > 1 and reads_potentials(method):
        raise RecipeError("sampling.granularities: credit of potentials has its own views of a step: leave them out")
    units, what = (recipe.batch.prompts, "groups") if by_groups(method) else (group * recipe.batch.prompts, "rollouts")
    if units % recipe.batch.minibatches:
        raise RecipeError(f"batch.minibatches: {units} {what} do not divide into {recipe.batch.minibatches}")
