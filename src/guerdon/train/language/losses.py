"""The loss of a micro-batch: a method's objective, given what its parameters name."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.arrays import to_numpy
from guerdon.core.errors import RecipeError, nearest
from guerdon.core.parts import name_of
from guerdon.objectives import denominator, importance_ratio, kl_penalty
from guerdon.train.chains import reads_values
from guerdon.train.crediting import scored
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import completion_logits, logprobs
from guerdon.train.method import Method, Part, function_of, options, parts_of

if TYPE_CHECKING:
    from guerdon.algebra import Reward
    from guerdon.core.protocols import Model
    from guerdon.core.rollouts import Rollouts
    from guerdon.core.scores import Scores
    from guerdon.train.language.critic import Critic

# What the parameters of an objective may be called: what every loop has, what the reward says, and what models say.
LOOP = (
    "logp", "old_logp", "advantages", "mask", "kl", "denominator", "groups", "rows", "ids", "logits", "sampler_logp",
    "external", "answer_logp", "answer_mask",
)  # fmt: skip
PARTS = ("labels", "preference", "rewards")
MODELS = {
    "teacher": "teacher", "teacher_logp": "teacher", "anchor": "anchor", "ref_logp": "reference",
    "reference": "reference", "values": "critic",
}  # fmt: skip


@dataclass(frozen=True)
class Experience:
    """Scored rollouts of all processes, in one order, ready to learn from; tensors on the CPU.

    Args:
        prompt_ids, prompt_mask: the prompts, padded on the left.
        ids, attended: the completions, padded on the right.
        mask: tokens that are learned from: the written ones of rows that have a score.
        advantages: one per rollout or per token.
        ref_logp: under the reference policy, where the method needs it.
        groups: rows with equal numbers answer the same prompt.
        labels, preference, rewards: see `read_from`.
        sampler_logp: log-probabilities as the sampler reported them.
        external: tokens that another than the policy wrote, or the policy under guidance that was taken away.
        values, targets, valued: what the critic expected before each token, what it should have, and where it is asked.
        context_ids, context_mask, answer_ids, answer_mask: a reference answer behind each completion: see `answers`.
    """

    prompt_ids: Int[Tensor, "n p"]
    prompt_mask: Bool[Tensor, "n p"]
    ids: Int[Tensor, "n t"]
    attended: Bool[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    advantages: Float[Tensor, "n"] | Float[Tensor, "n t"]
    ref_logp: Float[Tensor, "n t"] | None = None
    groups: Int[Tensor, "n"] | None = None
    labels: Bool[Tensor, "n"] | None = None
    preference: Float[Tensor, "n"] | None = None
    rewards: Float[Tensor, "n"] | None = None
    sampler_logp: Float[Tensor, "n t"] | None = None
    external: Bool[Tensor, "n t"] | None = None
    values: Float[Tensor, "n t"] | None = None
    targets: Float[Tensor, "n t"] | None = None
    valued: Bool[Tensor, "n t"] | None = None
    context_ids: Int[Tensor, "n c"] | None = None
    context_mask: Bool[Tensor, "n c"] | None = None
    answer_ids: Int[Tensor, "n a"] | None = None
    answer_mask: Bool[Tensor, "n a"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Int[Tensor, "m"] | slice, device: Any = None) -> Experience:
        """Some of the rows, on a device."""
        columns = {name: value[rows].to(device) for name, value in vars(self).items() if value is not None}
        return Experience(**columns)


class _Signature(NamedTuple):
    required: tuple[str, ...]
    optional: tuple[str, ...]


@cache
def _signature(function: Part) -> _Signature:
    """The parameters of an objective that are not options: those it cannot do without, and the others."""
    chosen = options(function)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in chosen]
    required = tuple(p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD)
    return _Signature(required, tuple(p.name for p in parameters if p.default is not p.empty))


def given(method: Method) -> tuple[str, ...]:
    """The parameters of a method's objective that the loop fills.

    All that are required; of the others those that the loop or the reward has, and those of models where the method
    `reads` them.
    """
    required, optional = _signature(function_of(method.objective))
    free = {*LOOP, *PARTS, *method.reads} - (set() if method.sampling.mixed else {"external"})
    return (*required, *(name for name in optional if name in free))


def models_of(method: Method) -> dict[str, str]:
    """The model that each parameter is read from, by the name of the parameter; the critic is one of them."""
    return {name: method.reads.get(name, MODELS[name]) for name in given(method) if name in MODELS}


def teaches_critic(method: Method) -> bool:
    """Whether the objective reads a critic's values: then the critic learns from its gradient, and has no targets."""
    return "values" in given(method)


def check(method: Method, reward: Reward, models: Collection[str], *, prefixes: bool = False) -> None:
    """Check, before any work, that a method's objective can be given what it reads.

    Args:
        method: its objective, constraint, KL and entropy.
        reward: whose parts can be read.
        models: the names of the models there are, with 'critic' if there is one.
        prefixes: whether the critic learns the values of prefixes, whoever reads them.

    Raises:
        RecipeError: naming what is lacking, and what there is; or if the critic has nothing to learn from, or two
            things.
    """
    function = function_of(method.objective)
    name, names = name_of(function), given(method)
    for parameter in names:
        if parameter not in (*LOOP, *PARTS, *MODELS):
            raise RecipeError(
                f"objective: {name} reads {parameter!r}, which the loop does not have; it has: "
                f"{', '.join(sorted((*LOOP, *PARTS, *MODELS)))}"
            )
    if "external" in names and not method.sampling.mixed:
        raise RecipeError(
            f"objective: {name} reads 'external', the tokens that another has written: name the column that has such "
            "completions in method.sampling.external, or have some written with guidance, method.sampling.guided"
        )
    if ("answer_logp" in names) != (method.answer is not None):
        raise RecipeError(
            f"method.answer: {name} reads no 'answer_logp': leave it out"
            if method.answer is not None
            else f"objective: {name} reads 'answer_logp', of a reference answer behind each completion: say where it "
            "stands with method.answer, e.g. answer: {column: answer}"
        )
    readable = {*PARTS, *MODELS} & {*names, *_signature(function).optional}
    for parameter in method.reads:
        if parameter not in readable:
            raise RecipeError(f"reads.{parameter}: not among what {name} reads: {nearest(parameter, sorted(readable))}")
    for parameter, model in models_of(method).items():
        if (parameter == "values") != (model == "critic"):
            raise RecipeError(f"reads.{parameter}: 'values' are read from 'critic', and nothing else is; got {model!r}")
        if model not in models:
            remedy = f"Add it to models, or name another in method.reads.{parameter}"
            raise RecipeError(
                f"objective: {name} reads {parameter!r} from a model {model!r}, which the recipe does not have; it "
                f"has: {', '.join(sorted(models))}. {'Add critic: {}' if model == 'critic' else remedy}"
            )
    if prefixes and teaches_critic(method):
        raise RecipeError(f"critic.targets: {name} reads the values and teaches them itself: leave it at credit")
    if prefixes and reward.level != "rollout":
        raise RecipeError(
            "critic.targets: values of prefixes are of one reward per rollout, and this one is by steps: reduce it"
        )
    read = any(reads_values(part) for part in parts_of(method.credit))
    if "critic" in models and not prefixes and teaches_critic(method) == read:
        needed = (
            "nothing reads its values: credit needs {part: credit.returns, kind: gae}, or reads {values: critic}; "
            "critic.targets: prefix teaches it all the same"
        )
        both = "credit and objective both read its values, and it learns from one of them"
        raise RecipeError(f"critic: {both if teaches_critic(method) else needed}")
    for parameter in [parameter for parameter in PARTS if parameter in names]:
        _check_part(reward, parameter, method.reads.get(parameter))
    if method.blend is not None and ("advantages" not in names or {"values", "answer_logp"} & {*names}):
        what = "takes no advantages" if "advantages" not in names else "learns more than advantages say"
        raise RecipeError(f"method.blend: {name} {what}: parts are weighed by their policy gradients; use another")
    for setting, asked in (("kl", method.kl.coefficient and method.kl.place == "loss"), ("entropy", method.entropy)):
        if asked and "kl" not in names:
            raise RecipeError(f"{setting}: {name} takes no penalty per token: set its coefficient to 0")
    if method.kl.corrected and "ratio" not in options(method.objective):
        raise RecipeError(f"kl.corrected: {name} has no importance ratio to correct with")
    if method.constraint is not None and not {"mean", "denominator", "old_logp"} <= set(
        inspect.signature(function_of(method.constraint)).parameters
    ):
        raise RecipeError(f"constraint: {name_of(function_of(method.constraint))} is no constraint: use kl_hinge")
    _try(method)


def _check_part(reward: Reward, parameter: str, part: str | None) -> None:
    read, where = reward, "the reward"
    if part is not None:
        parts = reward.names()
        if part not in parts:
            raise RecipeError(f"reads.{parameter}: the reward has no part {part!r}: {nearest(part, parts)}")
        read, where = parts[part], f"the reward's part {part!r}"
    if read.level != "rollout" and (part is not None or parameter != "preference"):
        raise RecipeError(f"objective: {parameter} are of rollouts and {where} is by steps: reduce it, or name another")


def _try(method: Method) -> None:
    """Call the objective on a batch of nothing, so that what does not fit is said before any work."""
    name = name_of(function_of(method.objective))
    here, zeros, group = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long)
    logits = torch.zeros(2, 2, 3)
    values: dict[str, Any] = {"mask": here, "rows": here[0], "external": ~here, "labels": torch.tensor([True, False])}
    values |= {"answer_mask": here, "ids": group[:, None] + group, "denominator": 1.0}
    values |= {"groups": group, "rewards": zeros[0], "preference": zeros[0], "advantages": zeros[0]}
    values |= dict.fromkeys(("logits", "teacher", "anchor", "reference"), logits)
    try:
        made = method.objective(**{parameter: values.get(parameter, zeros) for parameter in given(method)})
    except ValueError as error:
        raise RecipeError(f"objective: {name}: {error}") from error
    if not isinstance(made, tuple):
        raise RecipeError(f"objective: {name} is no loss")


def by_groups(method: Method) -> bool:
    """Whether the objective compares the rollouts of a group: then a group is never cut in two."""
    return "groups" in given(method)


def by_advantages(method: Method) -> bool:
    """Whether a row whose advantages are 0 has no gradient."""
    quiet = not (method.kl.coefficient and method.kl.place == "loss") and not method.entropy
    return quiet and method.constraint is None and method.answer is None and "advantages" in given(method)


def read_from(method: Method, rollouts: Rollouts, scores: Scores, *, limit: int) -> dict[str, Tensor]:
    """What an objective may read of scored rollouts, beside their tokens.

        groups      the numbers of the groups
        labels      rollouts whose reward is above 0.5
        rewards     the reward
        preference  1 − written tokens / limit
        external    tokens that another than the policy wrote, or the policy under guidance that was taken away

    The first three of one per rollout are of a named part of the reward where the method `reads` it.

    Args:
        method: which of them its objective reads.
        rollouts, scores: the batch.
        limit: the most tokens of a completion.
    """
    names, tokens = given(method), rollouts.tokens
    assert tokens is not None

    def part(parameter: str) -> Float[np.ndarray[Any, Any], "n"]:
        name = method.reads.get(parameter)
        return to_numpy((scores if name is None else scores.parts[name]).read(0.0))

    found: dict[str, Any] = {"groups": np.asarray(rollouts.groups)} if by_groups(method) else {}
    if "labels" in names:
        found["labels"] = part("labels") > 0.5
    if "rewards" in names:
        found["rewards"] = part("rewards").astype(np.float32)
    if "preference" in names:
        short = 1.0 - to_numpy(tokens.written).sum(1) / limit
        found["preference"] = (part("preference") if "preference" in method.reads else short).astype(np.float32)
    if "sampler_logp" in names:
        found["sampler_logp"] = to_numpy(tokens.logp)
    if "external" in names:
        found["external"] = to_numpy(tokens.origin) != 0
    return {name: torch.as_tensor(value) for name, value in found.items()}


def readable_rows(method: Method, rollouts: Rollouts, scores: Scores) -> Bool[Tensor, "n"]:
    """Rollouts that have a score, also in the parts of the reward that credit and objective read."""
    rows = scored(method.credit, scores)
    for parameter, name in method.reads.items():
        if parameter in PARTS:
            rows = rows & to_numpy(scores.parts[name].usable)
    return torch.as_tensor(rows)


@dataclass(frozen=True)
class Forward:
    """What the policy says of a micro-batch: log-probabilities and, where they are read, logits; with gradients."""

    logp: Float[Tensor, "n t"]
    logits: Float[Tensor, "n t v"] | None = None


def forward(model: Any, part: Experience, method: Method, *, temperature: float) -> Forward:
    """Pass a micro-batch through the policy."""
    if not (method.entropy or "logits" in given(method)):
        inputs = (part.prompt_ids, part.prompt_mask, part.ids, part.attended)
        return Forward(logprobs(model, *inputs, temperature=temperature)[0])
    logits = completion_logits(model, part.prompt_ids, part.prompt_mask, part.ids, part.attended)
    logits = logits.float() / temperature
    return Forward(_chosen(logits, part), logits)


def _chosen(logits: Tensor, part: Experience) -> Tensor:
    logp = logits.gather(-1, part.ids[..., None])[..., 0] - logits.logsumexp(-1)
    return torch.where(part.attended, logp, 0.0)


def told(
    part: Experience,
    method: Method,
    models: Mapping[str, Model],
    *,
    temperature: float,
    critic: Critic | None = None,
) -> dict[str, Tensor]:
    """What other models say of the tokens of a micro-batch, at the policy's temperature.

    Only what the critic expects has gradients: an objective that reads it teaches it.

    Args:
        models: those of `models_of`; the reference policy's log-probabilities are part of the experience.
    """
    read: dict[str, Tensor] = {}
    found = {}
    for parameter, name in models_of(method).items():
        if name == "critic":
            assert critic is not None
            found[parameter] = critic.expected(part)
            continue
        if parameter == "ref_logp" and name == "reference":
            assert part.ref_logp is not None
            found[parameter] = part.ref_logp
            continue
        if name not in read:
            inputs = (part.prompt_ids, part.prompt_mask, part.ids, part.attended)
            model = models[name]
            assert isinstance(model, LanguageModel)
            read[name] = model.logits(*inputs).float() / temperature
        found[parameter] = _chosen(read[name], part) if parameter.endswith("_logp") else read[name]
    return found


def loss(
    part: Experience,
    policy: Forward,
    old_logp: Float[Tensor, "n t"],
    method: Method,
    whole: Experience,
    said: Mapping[str, Tensor],
    *,
    length: int,
    drift: float | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The loss of a micro-batch, over the denominator of its minibatch.

    Args:
        part: the micro-batch.
        policy: what the policy says of it.
        old_logp: before the first update on it.
        method: whose objective it is.
        whole: the minibatch; its masks and groups.
        said: by other models, see `told`.
        length: the limit on generated tokens.
        drift: how far the policy is from the one that wrote the minibatch, for the constraint; None: not at all.

    Returns:
        The loss, and sums over the tokens, as of the objective.
    """
    chosen, names, logp = options(method.objective), given(method), policy.logp
    counted = part if method.denominator == "micro-batch" else whole
    if "aggregate" in chosen:
        length = chosen.get("length") or length
        counts = {"rows": int(counted.mask.any(1).sum()), "tokens": int(counted.mask.sum())}
        divisor: Any = denominator(part.mask, chosen["aggregate"], length=length, **counts)
    else:
        divisor = float(max(1, _count(counted, names)))
    divergence = _divergence(part, logp, old_logp, method)
    kl = None if divergence is None else method.kl.coefficient * divergence
    if method.entropy:
        assert policy.logits is not None
        bonus = -method.entropy * _entropy(policy.logits)
        kl = bonus if kl is None else kl + bonus
    known = {"old_logp": old_logp.detach(), "advantages": part.advantages.to(logp), "kl": kl, "denominator": divisor}
    known |= {"logp": logp, "logits": policy.logits, "rows": part.mask.any(1), **said}
    loss, sums = method.objective(**{name: known[name] if name in known else getattr(part, name) for name in names})
    if divergence is not None:
        sums["kl"] = torch.where(part.mask, divergence.detach(), 0.0).sum()
    if method.constraint is not None and drift is not None:
        tokens = max(1, int(counted.mask.sum()))
        loss = loss + method.constraint(logp, old_logp, part.mask, mean=drift, denominator=tokens)
    return loss, sums


def _divergence(part: Experience, logp: Tensor, old_logp: Tensor, method: Method) -> Tensor | None:
    """The KL of each token, where the loss has a penalty on it."""
    if not (method.kl.coefficient and method.kl.place == "loss"):
        return None
    assert part.ref_logp is not None
    ratio = None
    if method.kl.corrected:
        ratio = importance_ratio(logp, old_logp, part.mask, ratio=options(method.objective)["ratio"])
    return kl_penalty(logp, part.ref_logp, kind=method.kl.kind, mask=part.mask, ratio=ratio)


def _entropy(logits: Tensor) -> Tensor:
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def _count(experience: Experience, names: Collection[str]) -> int:
    """Over what an objective takes its mean, by what it reads: rollouts, groups or tokens that are learned from."""
    if "rows" in names:
        return int(experience.mask.any(1).sum())
    if "groups" not in names:
        return int(experience.mask.sum())
    assert experience.groups is not None
    return len(torch.unique(experience.groups[experience.mask.any(1)]))
