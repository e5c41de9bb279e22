"""A training method as data: which credit, which objective, which KL, how rollouts are sampled."""

from __future__ import annotations

import collections.abc
import inspect
import math
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
from guerdon.data import Filter, load_filter
from guerdon.rewards.probe import Cut

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


@dataclass(frozen=True)
class Begin:
    """Rollouts of a group that go on from one place: the end of a step, drawn by chance, of a rollout written before.

    What they begin with is part of their completions and is not learned from: the policy did not choose it there.

    Args:
        cut: where the steps end, as `probe.Cut` has it; turns of a chat are none of these.
        stops: so many of the group, the last, do not go on: `stop` is put behind the beginning, and the policy answers.
            Credit that compares within the group (`group_relative`) compares with these.
        stop: ends the reasoning.
        prior: for a cut at budgets, how likely each of them is the one, as weights; what is shorter is taken whole.
            None: the begin, and the end of every step but the last, by equal chance.
        share: of the prompts; the groups of the others are written from the prompt.

    Raises:
        ValueError: for a cut that cannot be, or a number out of range.
    """

    cut: Any = "markers"
    stops: int = 0
    stop: str = "</think>"
    prior: tuple[float, ...] | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        cut = Cut.of(self.cut)
        if cut.at == "turns" or self.stops < 0:
            raise ValueError(f"texts are cut, not at turns; stops is at least 0, got {self.cut} and {self.stops}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is of the prompts, above 0 and at most 1, got {self.share}")
        if self.prior is not None and (
            cut.at != "budgets" or len(self.prior) != len(cut.budgets) or min(self.prior) < 0 or not sum(self.prior) > 0
        ):
            raise ValueError(f"prior is one weight for each budget of the cut, at least 0, not all 0, got {self.prior}")

    def asks(self, number: int) -> bool:
        """Whether a prompt is one of those that begin, by its number in the run: they are spread evenly."""
        return math.floor((number + 1) * self.share) > math.floor(number * self.share)


@dataclass(frozen=True)
class Steps:
    """Rollouts that are written step by step: a group of candidates for each next step, one of which is taken.

    The candidates for a step go on from one place. They are scored, compared and learned from as a group, all of them;
    what they go on from, the steps taken before, is part of their completions and is not learned from there.

    Args:
        end: texts that end a step, and belong to it.
        most: steps of a prompt; the last of so many goes on to the end of the completion.
        temperature: the step that is taken is drawn from softmax(advantage / temperature); 0: the best is.

    Raises:
        ValueError: if there is nothing to end a step with, or a number is out of range.
    """

    end: tuple[str, ...] = ("\n\n",)
    most: int = 4
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if not self.end or "" in self.end:
            raise ValueError(f"end is the texts that end a step, none of them empty, got {self.end}")
        if self.most < 1 or not self.temperature >= 0:
            raise ValueError(f"most is at least 1, temperature at least 0, got {self.most} and {self.temperature}")


@dataclass(frozen=True)
class Guided:
    """Rollouts of a group that are written with guidance in the prompt: a plan, where to look, what went wrong before.

    They are scored and compared with the others of their group. What is learned is to write them without guidance,
    unless it is kept.

    Args:
        column: of the prompts, with guidance as a text. Prompts without (None, or empty) are answered as they are.
        rollouts: so many of those that the policy writes for a prompt, the last.
        template: of the prompt with guidance, `{prompt}` and `{guidance}` in their places; other fields are columns. Of
            chat messages, the user's last is the prompt.
        keep: learn them with the guidance in the prompt. Otherwise every probability that is learned from is that of
            the rollout behind the plain prompt, and the tokens are another's than the policy's: it would not often
            have written them there.

    Raises:
        ValueError: if rollouts is below 1, or the template leaves out the prompt or the guidance.
    """

    column: str
    rollouts: int = 4
    template: str = "{prompt}\n\n{guidance}"
    keep: bool = False

    def __post_init__(self) -> None:
        if self.rollouts < 1:
            raise ValueError(f"rollouts must be at least 1, got {self.rollouts}")
        if not all(field in self.template for field in ("{prompt}", "{guidance}")):
            raise ValueError(f"template has a {{prompt}} and a {{guidance}}, got {self.template!r}")


@dataclass(frozen=True)
class Sampling:
    """Which rollouts a batch is made of.

    Args:
        group: rollouts per prompt; TRL's default is 8.
        dynamic: leave out prompts that teach nothing, and draw others in their place.
        rounds: with `dynamic`, the batch is taken as it is after this many rounds of drawing.
        pace: with `dynamic`, a round draws as many prompts as it will take to fill the batch, by what was kept before,
            and at most this many: see `data.Pace`. None: each draws a batch.
        filter: which prompts are kept, or which of their rollouts, as `guerdon.data.load_filter` reads it. With
            `dynamic`, others are drawn in the place of prompts; without, what is left out is not learned from. None:
            all, with `dynamic` those of which a rollout has an advantage; a credit that centres over the whole batch
            gives every prompt one, and needs a filter.
        begin: rollouts of a group go on from one place; None: from the prompt.
        external: a column of the prompts with a completion that another has written, or a list of them: the last of
            each group's rollouts are those, scored like the others; the policy writes the rest. Of more than a group
            has rollouts, each step draws as many.
        steps: groups of candidates for each next step; None: groups of whole rollouts.
        guided: some of the rollouts are written with guidance in the prompt; None: none.

    Raises:
        ValueError: if a number is below 1, or some settings exclude each other.
    """

    group: int = 8
    dynamic: bool = False
    rounds: int = 10
    pace: int | None = None
    filter: Any = None
    begin: Begin | None = None
    external: str | None = None
    steps: Steps | None = None
    guided: Guided | None = None

    def __post_init__(self) -> None:
        if self.group < 1 or self.rounds < 1:
            raise ValueError(f"group and rounds must be at least 1, got {self.group} and {self.rounds}")
        if self.pace is not None and (not self.dynamic or self.pace < 1):
            raise ValueError("pace is the most prompts of a round of dynamic sampling, at least 1: set dynamic: true")
        if self.begin is not None and (self.begin.stops > self.group or self.external is not None):
            raise ValueError("begin: the policy writes the whole group: no external, and stops is at most group")
        if self.steps is not None and (self.dynamic or self.begin or self.external is not None or self.guided):
            raise ValueError(
                "steps: every group goes on from the steps taken before: no begin, external, guided or dynamic"
            )
        if self.guided is not None and (self.begin is not None or self.guided.rollouts > self.group):
            raise ValueError(
                f"guided: at most the {self.group} rollouts of a group, which begin at the prompt: leave out begin"
            )

    @property
    def mixed(self) -> bool:
        """Whether some tokens are not what the policy wrote at the prompt that they are learned from."""
        return self.external is not None or (self.guided is not None and not self.guided.keep)

    def load_filter(self, *, allow_import: bool = False) -> Filter | None:
        """The filter, if there is one.

        Raises:
            SpecError: for an unknown part or option, or a wrong type.
        """
        if self.filter is None:
            return None
        return load_filter(self.filter, where="method.sampling.filter", allow_import=allow_import)


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
    sampling: Sampling = Sampling()
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
