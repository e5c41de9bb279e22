"""A training method as data: which credit, which objective, which KL, how rollouts are sampled."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, partial
from importlib import import_module
from typing import Any, Literal

from jaxtyping import AbstractArray

from guerdon.core.coerce import coerce
from guerdon.core.errors import RecipeError, SpecError, nearest
from guerdon.core.parts import name_of, public
from guerdon.train.sampling import Sampling

Part = Callable[..., Any]
Data = dict[str, Any]


@dataclass(frozen=True)
class Sum:
    """Credit of several parts of a reward: each by itself, on its own level; their advantages are added.

    Args:
        chains: for each part of the reward, by its name, a part of credit or several in turn.
        weights: what the advantages of a part are multiplied by before they are added; 1 where nothing is said.

    Raises:
        ValueError: if there is nothing to add, or a weight is that of no part.
    """

    chains: Mapping[str, Part | tuple[Part, ...]]
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.chains:
            raise ValueError("sum: it is empty; name at least one part of the reward")
        for name in self.weights:
            if name not in self.chains:
                raise ValueError(f"weights: {name!r} is no part of the sum: {nearest(name, self.chains)}")


Credit = Part | Sum | tuple[Part | Sum, ...]


@dataclass(frozen=True)
class KL:
    """The penalty for leaving the reference policy.

    Args:
        coefficient: β; at 0 no reference is needed.
        kind: the estimator, of `objectives.kl_penalty`.
        place: "loss": added per token, before aggregation; "reward": β times the sum over a rollout's tokens, under
            the policy that wrote them, is taken from its reward before credit; "token": β times each token's is taken
            from the token's value, where the credit first has one (behind `credit.spread`, or a sum), so that what
            follows, such as `credit.returns`, makes a token pay for those after it only.
        corrected: in the loss, times the importance ratio of the objective, so that the gradient of k3 is that of the
            KL (DeepSeek-V3.2, arXiv 2512.02556; TRL's default).

    Raises:
        ValueError: if the coefficient is negative.
    """

    coefficient: float = 0.0
    kind: Literal["k1", "k2", "k3"] = "k3"
    place: Literal["loss", "reward", "token"] = "loss"
    corrected: bool = False

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(f"coefficient must not be negative, got {self.coefficient}")


@dataclass(frozen=True)
class Blend:
    r"""The weights of a sum's parts are learned: a part weighs more, the more learning from it serves one of them.

    The prompts of each step are cut into two halves, a and b. Before the policy learns from them,

        wₖ ← max(floor, wₖ + η (sₖ − λ wₖ))        sₖ = ½ (⟨pᵃ, gₖᵇ⟩ + ⟨pᵇ, gₖᵃ⟩)

    gₖ is the policy gradient of part k alone and p that of the primary part: what learning from k on some prompts does
    for the primary part on others. On the same rollouts, noise that parts have in common would count for service.

    Args:
        primary: the part that is really wanted.
        learning_rate: η; with cosines the most that a step adds to a weight.
        decay: λ ≥ 0, which pulls weights to 0; with cosines none grows beyond 1/λ.
        floor: the least that a weight becomes; None: a part may come to count against what it pays for.
        scale: "cosine": ⟨x, y⟩ is divided by ‖x‖ ‖y‖, as the norms of gradients differ by orders of magnitude between
            models and over a run; "none": it is not.

    Raises:
        ValueError: if the rate is not positive, or decay is negative.

    Source: BARFI (arXiv 2310.19007): gradient of the primary return by the weights through the learned policy, of whose
    Neumann series (`shaping.implicit_gradient`) this is the first term.
    """

    primary: str
    learning_rate: float = 0.05
    decay: float = 0.01
    floor: float | None = 0.0
    scale: Literal["cosine", "none"] = "cosine"

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or self.decay < 0:
            raise ValueError(
                f"learning_rate is above 0 and decay at least 0, got {self.learning_rate} and {self.decay}"
            )


@dataclass(frozen=True)
class Answer:
    """A reference answer behind each completion, read by the policy that learns: for objectives that learn it too.

    It stands where `likelihood.answer` reads it, and in the same tokens; the two are to be given the same settings.

    Args:
        column: of the prompts, that holds it: a text or a number.
        after: the answer stands after the last of these in the completion; where there is none it has no place, and
            nothing is learned of it. None: all of the completion is reasoning.
        lead: text between the reasoning and the answer.
    """

    column: str = "answer"
    after: str | None = None
    lead: str = ""


@dataclass(frozen=True, eq=False)
class Method:
    """One method of policy optimisation; two are equal if they are the same data.

    Args:
        credit: a function of `guerdon.credit`, its options set by `functools.partial`: from rewards to advantages. Or
            several, each of which is given what the one before it made; the first may be a `Sum` over parts of the
            reward. See `train.crediting`.
        objective: a function of `guerdon.objectives`, its options set likewise: from advantages to a loss.
        kl: the penalty for leaving the reference policy.
        sampling: which rollouts a batch is made of.
        shaping: specs of the shapers that belong to the method, in the order in which the reward passes them.
        reads: where the objective's parameters come from, if not from where `train.losses` takes them: a named part of
            the reward (labels, preference, rewards) or a model (teacher, teacher_logp, anchor, ref_logp).
        constraint: holds the policy near the one that wrote the rollouts: `objectives.kl_hinge`, over a minibatch.
        entropy: the weight of an entropy bonus, per token.
        denominator: what a micro-batch's loss is divided by: that of the whole "batch", so that the update does not
            depend on how the batch is cut; or its own ("micro-batch"), the losses then being averaged.
        blend: the weights of a credit that is a `Sum` are learned; None: they stay as they are.
        answer: the reference answer behind each completion, for objectives that read its log-probabilities; None: there
            is none.
    """

    credit: Credit
    objective: Part
    kl: KL = KL()
    sampling: Sampling = field(default_factory=Sampling)
    shaping: tuple[Mapping[str, Any], ...] = ()
    reads: Mapping[str, str] = field(default_factory=dict)
    constraint: Part | None = None
    entropy: float = 0.0
    denominator: Literal["batch", "micro-batch"] = "batch"
    blend: Blend | None = None
    answer: Answer | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Method) and self.dump() == other.dump()

    def __hash__(self) -> int:
        return hash(repr(self.dump()))

    def dump(self) -> Data:
        """The method as plain data, defaults written out; overriding any method with it gives this one.

        Raises:
            RecipeError: if a part is not one of guerdon's functions, e.g. a lambda.
        """
        return {
            "credit": _dump_credit(self.credit),
            "objective": _dump(self.objective),
            "kl": asdict(self.kl),
            "sampling": asdict(self.sampling),
            "shaping": [dict(spec) for spec in self.shaping],
            "reads": dict(self.reads),
            "constraint": None if self.constraint is None else _dump(self.constraint),
            "entropy": self.entropy,
            "denominator": self.denominator,
            "blend": None if self.blend is None else asdict(self.blend),
            "answer": None if self.answer is None else asdict(self.answer),
        }

    def override(self, **changes: Any) -> Method:
        """The method with some of its data changed, as a recipe writes it.

        Args:
            changes: by field. A mapping changes the options it names; one that names a `part` begins anew, from
                that part's own defaults. `shaping` is replaced as a whole, and `credit` where it is several parts or
                a sum.

        Raises:
            RecipeError: if a name is unknown (the message has the nearest valid one) or a value has a wrong type.
        """
        names = [field.name for field in fields(self)]
        for name in changes:
            if name not in names:
                raise RecipeError(f"a method has no {name!r}: {nearest(name, names)}")
        try:
            return replace(self, **{name: _changed(name, getattr(self, name), to) for name, to in changes.items()})
        except SpecError as error:
            raise RecipeError(str(error)) from error


def options(part: Part) -> Data:
    """The options of a part and their values: its keyword-only parameters, without those that take arrays.

    >>> from guerdon.objectives import clip
    >>> options(partial(clip.ppo, high=0.28))
    {'low': 0.2, 'high': 0.28}
    """
    function, given = _split(part)
    parameters = inspect.signature(function).parameters
    return {name: given.get(name, parameters[name].default) for name in _hints(function)}


def in_turn(credit: Credit) -> tuple[Part | Sum, ...]:
    """The parts of a credit, of which there is mostly one."""
    return credit if isinstance(credit, tuple) else (credit,)


def parts_of(credit: Credit) -> Iterator[Part]:
    """Every part of a credit, those of a sum included."""
    for one in in_turn(credit):
        if isinstance(one, Sum):
            for chain in one.chains.values():
                yield from parts_of(chain)
        else:
            yield one


def function_of(part: Part) -> Part:
    """The function whose options a part sets."""
    return _split(part)[0]


def _split(part: Part) -> tuple[Part, Data]:
    return (part.func, dict(part.keywords)) if isinstance(part, partial) else (part, {})


@cache
def _hints(function: Part) -> Data:
    """Types of the options of a function; not to be changed, the next who asks is given the same."""
    hints = typing.get_type_hints(function)
    return {
        name: hints[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and not any(
            isinstance(x, type) and issubclass(x, AbstractArray) for x in (hints[name], *typing.get_args(hints[name]))
        )
    }


def _dump(part: Part) -> Data:
    function, _ = _split(part)
    if not function.__module__.startswith("guerdon.") or not function.__qualname__.isidentifier():
        raise RecipeError(f"{name_of(function)} cannot be written as data: it is not one of guerdon's functions")
    settings = {key: _dump(value) if callable(value) else value for key, value in options(part).items()}
    return {"part": name_of(function), **settings}


def _dump_credit(credit: Credit) -> Any:
    if isinstance(credit, tuple):
        return [_dump_credit(part) for part in credit]
    if isinstance(credit, Sum):
        weights = {"weights": dict(credit.weights)} if credit.weights else {}
        return {"sum": {name: _dump_credit(chain) for name, chain in credit.chains.items()}, **weights}
    return _dump(credit)


def _changed(name: str, current: Any, change: Any) -> Any:
    """A field of a method, `change` applied to what it was."""
    if name == "credit":
        return _changed_credit(current, change, "credit")
    if name == "objective":
        return _part(current, change, home="objectives", place=name)
    if name == "constraint":
        return None if change is None else _part(current, change, home="objectives", place=name)
    if name in ("kl", "sampling") or (name == "answer" and current is not None and change is not None):
        return coerce(asdict(current) | dict(change) if isinstance(change, Mapping) else change, type(current), name)
    plain = {"shaping": tuple[dict[str, Any], ...], "reads": dict[str, str]}
    return coerce(change, plain.get(name, typing.get_type_hints(Method)[name]), name)


def _changed_credit(current: Any, change: Any, place: str) -> Any:
    if not isinstance(change, list | tuple):
        return _link(None if isinstance(current, tuple) else current, change, place)
    if not change:
        raise RecipeError(f"{place}: the list is empty; name at least one part")
    return tuple(_link(None, one, f"{place}[{i}]") for i, one in enumerate(change))


def _link(current: Any, change: Any, place: str) -> Any:
    """A part of credit, or a sum of chains of them."""
    if isinstance(change, Sum):
        return change
    if not isinstance(change, Mapping) or "sum" not in change:
        return _part(None if isinstance(current, Sum) else current, change, home="credit", place=place)
    chains = coerce(change["sum"], dict[str, Any], f"{place}.sum")
    if not chains or set(change) - {"sum", "weights"}:
        raise RecipeError(
            f"{place}: a sum is {{sum: {{NAME: …}}}}, by the names of parts of the reward, and may have weights beside "
            f"it; got {change}"
        )
    weights = coerce(change.get("weights", {}), dict[str, float], f"{place}.weights")
    made = {name: _changed_credit(None, chain, f"{place}.sum.{name}") for name, chain in chains.items()}
    try:
        return Sum(made, weights)
    except ValueError as error:
        raise RecipeError(f"{place}.{error}") from error


def _part(current: Part | None, change: Any, *, home: str, place: str) -> Part:
    if callable(change):
        return typing.cast("Part", change)
    change = coerce({"part": change} if isinstance(change, str) else change, dict[str, Any], place)
    if "part" in change:
        function, given = _find(change.pop("part"), home, place), Data()
    elif current is not None:
        function, given = _split(current)
    else:
        raise RecipeError(f"{place}: of several parts, each is named: {{part: {home}.…}}; got {change}")
    hints = _hints(function)
    for name, value in change.items():
        if name not in hints:
            raise RecipeError(f"{place}: {name_of(function)} has no option {name!r}: {nearest(name, hints)}")
        origin: Any = typing.get_origin(hints[name])
        if origin is collections.abc.Callable:
            # A part within a part lives in the module named after the option: clip rules in objectives.clip, those
            # of external_clip as well.
            inner = options(partial(function, **given))[name]
            given[name] = _part(inner, value, home=f"{home}.{name.rpartition('_')[2]}", place=f"{place}.{name}")
        else:
            given[name] = coerce(value, hints[name], f"{place}.{name}")
    return partial(function, **given)


def _find(name: Any, home: str, place: str) -> Part:
    """The function that a module shows under this name; the front of the name may be left out (`clip.ppo`).

    One of a module within it has that module's name before its own: `objectives.denoising.step_preference`.
    """
    module = import_module(f"guerdon.{home}")
    within = public(module).get(str(name).removeprefix(f"{home}.").rpartition(".")[0])
    module = within if inspect.ismodule(within) else module
    shown = [x for x in public(module).values() if inspect.isfunction(x) and x.__module__.startswith(module.__name__)]
    parts = {name_of(function): function for function in shown}
    for full, function in parts.items():
        if f".{full}".endswith(f".{name}"):
            return function
    raise RecipeError(f"{place}: there is no part {name!r}: {nearest(str(name), parts)}")
