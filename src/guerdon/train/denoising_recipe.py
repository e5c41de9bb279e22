"""A recipe for a denoising policy: what differs from one for a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from guerdon.core.coerce import coerce
from guerdon.core.errors import RecipeError, SpecError
from guerdon.core.parts import name_of
from guerdon.train import crediting, losses
from guerdon.train.denoiser import DenoiserConfig
from guerdon.train.digits import DenoisingTeach
from guerdon.train.method import Method, function_of, in_turn, options
from guerdon.train.prompts import PromptsConfig
from guerdon.train.recipe import Batch, Keeping, Optimizer, Shared

GIVEN = ("logp", "old_logp", "advantages", "mask", "kl", "denominator")  # what the loop has for an objective


@dataclass(frozen=True)
class DenoisingSampling:
    """How noise becomes a picture, and which steps explore.

    Args:
        steps: denoising steps of a trajectory.
        kind: of `objectives.denoising.step`; None: 'flow_sde' for a flow-matching scheduler, 'ddim' for DDIM and DDPM.
        a: how much noise a step adds; None: 0.7 for flows, 1 for ddim.
        guidance: of classifier-free guidance, while sampling and learning alike; 1: none.
        window: the first step that explores and the first that does so no more; None: all but the last, whose noise
            would stay in the picture.
        singular: the rollouts of a group begin with the same noise and explore at one step only, drawn for each group
            from the window: what tells them apart is due to that step (G2RPO, arXiv 2510.01982).
        reduce: a step's log-probability is the 'mean' or the 'sum' over the elements of a sample.

    Raises:
        ValueError: if a number is out of range, or the window is not within the steps.
    """

    steps: int = 10
    kind: Literal["flow_sde", "dance", "cps", "ddim"] | None = None
    a: float | None = None
    guidance: float = 1.0
    window: tuple[int, int] | None = None
    singular: bool = False
    reduce: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}: the last one does not explore")
        if not self.guidance >= 1 or (self.a is not None and not self.a > 0):
            raise ValueError(f"guidance is at least 1 and a above 0, got {self.guidance} and {self.a}")
        first, last = self.explored
        if not 0 <= first < last <= self.steps:
            raise ValueError(f"window: steps {first} to {last} are not in a trajectory of {self.steps}")

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


@dataclass(frozen=True)
class DenoisingRecipe(Shared):
    """A training run of a denoising policy.

    Args:
        name: the run's folder is `runs/NAME`.
        denoiser: the diffusion or flow model.
        reward: the reward expression; a completion is a picture, an array "h w" or "h w 3" of bytes.
        steps: how many times pictures are sampled and learned from.
        prompts: texts; None: the classes of the model, written as numbers.
        method: a preset's name, or `{preset: NAME, credit: {…}, objective: {…}, kl: {…}, sampling: {…}}`.
        sampling: denoising steps, noise, guidance.
        teach: learning from data before, if any.
        batch: as for language; `micro` counts denoising steps.
        optimizer, evaluation, keep: see there.
        max_abstain: training stops when more than this share of the last batches' rollouts have no score.
        seed: of everything.
        device: 'auto' takes a GPU where there is one.
        threads: CPU threads of torch; 0 leaves torch's choice.
    """

    name: str
    denoiser: DenoiserConfig
    reward: Any
    steps: int
    prompts: PromptsConfig | None = None
    method: Any = "flow_grpo"
    sampling: DenoisingSampling = field(default_factory=DenoisingSampling)
    teach: DenoisingTeach | None = None
    batch: Batch = field(default_factory=Batch)
    optimizer: Optimizer = field(default_factory=Optimizer)
    evaluation: DenoisingEvaluation = field(default_factory=DenoisingEvaluation)
    keep: Keeping = field(default_factory=Keeping)
    max_abstain: float = 0.2
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        self.check_common()
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
    crediting.check(method, reward, level="step" if reads_potentials(method) else None)
    _check(method)
    if method.sampling.group * recipe.batch.prompts % recipe.batch.minibatches:
        rollouts = method.sampling.group * recipe.batch.prompts
        raise RecipeError(f"batch.minibatches: {rollouts} rollouts do not divide into {recipe.batch.minibatches}")
    return recipe


def reads_potentials(method: Method) -> bool:
    """Whether credit begins with what each intermediate sample is worth: then those are completed and scored, too."""
    first = in_turn(method.credit)[0]
    return callable(first) and crediting.differs(first)


def _check(method: Method) -> None:
    """What of a method belongs to tokens of a vocabulary only.

    Raises:
        RecipeError: naming the setting.
    """
    strange = [name for name in losses.given(method) if name not in GIVEN]
    if strange:
        name = name_of(function_of(method.objective))
        raise RecipeError(
            f"objective: {name} reads {strange[0]!r}, which a denoising policy does not have; it has: "
            f"{', '.join(GIVEN)}"
        )
    if not {"logp", "old_logp", "advantages", "mask"} <= set(losses.given(method)):
        raise RecipeError(f"objective: {name_of(function_of(method.objective))} is no policy gradient")
    if method.kl.coefficient and method.kl.place != "loss":
        raise RecipeError("method.kl.place: the KL of a denoising step is known exactly and belongs in the loss")
    settings = {
        "kl.corrected": method.kl.corrected, "entropy": method.entropy, "constraint": method.constraint,
        "sampling.dynamic": method.sampling.dynamic, "sampling.external": method.sampling.external,
        "reads": method.reads,
    }  # fmt: skip
    for setting, value in settings.items():
        if value:
            raise RecipeError(f"method.{setting}: not for a denoising policy")
    if method.denominator != "batch":
        raise RecipeError("method.denominator: a denoising policy's losses are divided by that of the batch")
    if options(method.objective).get("aggregate") == "constant" and not options(method.objective).get("length"):
        raise RecipeError("objective.length: aggregate 'constant' needs the number of steps to divide by")
