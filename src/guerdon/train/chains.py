"""What the parts of a credit take, read and give, and whether a chain of them fits a reward."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

from jaxtyping import AbstractArray, Bool, Float

from guerdon.algebra import Reward
from guerdon.core.errors import RecipeError, nearest
from guerdon.core.parts import name_of
from guerdon.core.scores import Level
from guerdon.train.method import Credit, Method, Part, Sum, function_of, in_turn, options, parts_of

Per: TypeAlias = Literal["rollout", "step", "token"]

# What the first parameter of a part may be, by the shape it is annotated with.
TAKES: dict[str, tuple[Per, ...]] = {
    "n": ("rollout",),
    "n s": ("step",),
    "n s+1": ("step",),
    "n b": ("step",),
    "n t": ("step", "token"),
    "n *s": ("rollout", "step", "token"),
    "*shape": ("rollout", "step", "token"),
}
# What the other parameters of a part may be called, and the level of those that a part of the reward can fill; None:
# that of the values.
READS = (
    "groups", "mask", "valid", "written", "ids", "spans", "lengths", "tree", "nodes", "branches", "values",
    "baseline_rows",
)  # fmt: skip
BESIDE: dict[str, Level | None] = {"n": "rollout", "n s": "step", "n t": "step", "n *s": None, "*shape": None}


class Beside(NamedTuple):
    """A parameter that the part of the reward of its name fills."""

    level: Level | None  # None: that of the values
    flags: bool
    required: bool


class Signature(NamedTuple):
    """What a part takes, and reads beside it, and what it makes of that."""

    takes: tuple[Per, ...]
    reads: tuple[str, ...]
    beside: Mapping[str, Beside]
    lacking: tuple[str, ...]  # required, and not among what can be read
    to_steps: bool
    to_tokens: bool
    differs: bool  # from n + 1 potentials to n differences


@cache
def signature(function: Part) -> Signature:
    """What a part takes, reads and gives, by its parameters and their annotations; anything, where it has none.

    Raises:
        RecipeError: if it does not give one value for each that it takes, or one per token.
    """
    parameters = list(inspect.signature(function).parameters.values())
    hints = typing.get_type_hints(function)
    reads, beside, lacking = list[str](), dict[str, Beside](), list[str]()
    for x in parameters[1:]:
        required = x.default is x.empty and x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)
        kind, shape = _array(hints.get(x.name))
        if x.name in READS:
            reads.append(x.name)
        elif kind in (Float, Bool) and shape in BESIDE:
            beside[x.name] = Beside(BESIDE[shape], kind is Bool, required)
        elif required:
            lacking.append(x.name)
    known = tuple(reads), beside, tuple(lacking)
    if not parameters or parameters[0].name not in hints or "return" not in hints:
        return Signature(TAKES["n *s"], *known, to_steps=False, to_tokens=False, differs=False)
    (_, taken), (kind, given) = (_array(hints[name]) for name in (parameters[0].name, "return"))
    differs, to_steps, to_tokens = (
        (taken, given) == ("n s+1", "n s"),
        (taken, given) == ("n", "n s"),
        given == "n t" != taken,
    )
    if kind is not Float or taken not in TAKES or not (taken == given or differs or to_steps or to_tokens):
        raise RecipeError(
            f"credit: {name_of(function)} is not a part of a method's credit: it does not go from one value per "
            "rollout, step or token to as many, or to one per step or token"
        )
    takes = tuple(per for per in TAKES[taken] if not (to_tokens and per == "token"))
    return Signature(takes, *known, to_steps, to_tokens, differs)


def _array(annotation: Any) -> tuple[Any, str | None]:
    """What kind of array is annotated, and its shape; None where there is none."""
    for one in (annotation, *typing.get_args(annotation)):
        if isinstance(one, type) and issubclass(one, AbstractArray):
            return one.dtype, one.dim_str
    return None, None


def reads_values(part: Part) -> bool:
    """Whether a part needs a critic's values: `credit.returns` does, of its kind "gae"."""
    return "values" in signature(function_of(part)).reads and options(part).get("kind", "gae") == "gae"


def differs(part: Part) -> bool:
    """Whether a part makes n values of the n + 1 potentials around them, as `credit.progress` does."""
    return signature(function_of(part)).differs


def check(
    method: Method, reward: Reward, *, critic: bool = False, branches: bool = False, level: Level | None = None
) -> None:
    """Check, before any work, that a method's credit can be computed from a reward.

    Args:
        method, reward: the two.
        critic: whether there is one.
        branches: whether rollouts are forked off trunks.
        level: of the values that credit begins with, where that is not the reward's: the loop scores every step.

    Raises:
        RecipeError: if a part reads what neither the loop nor the reward has, takes values of another level than it is
            given, or does not make advantages; if shapers or a KL are to change what the credit does not read; if the
            values of a critic are read and there is none, or are read twice; or if weights are to be learned of what is
            no sum.
    """
    for part in parts_of(method.credit):
        if not branches and "branches" in signature(function_of(part)).reads:
            raise RecipeError(
                f"credit: {name_of(function_of(part))} compares the branches of a trunk, and there are none: a "
                "denoising policy has them with sampling.interval"
            )
    readers = [name_of(function_of(part)) for part in parts_of(method.credit) if reads_values(part)]
    if readers and not critic:
        raise RecipeError(
            f"credit: {readers[0]} reads the values of a critic, and the recipe has none: add critic: {{}}"
        )
    if len(readers) > 1:
        raise RecipeError(
            f"critic: {len(readers)} parts of the credit read its values, and it learns what one of them makes of them"
        )
    levels = {name: node.level for name, node in reward.names().items()}
    first, *rest = in_turn(method.credit)
    if isinstance(first, Sum):
        if method.shaping:
            raise RecipeError(
                "method.shaping: a credit by parts does not read the whole reward: shape its parts instead"
            )
        ends = [_through(in_turn(chain), _level(name, levels), levels) for name, chain in first.chains.items()]
        per: Per = "rollout" if set(ends) == {"rollout"} else "token"
    else:
        per = _through([first], level or reward.level, levels)
    end = _through(rest, per, levels)
    if method.blend is not None:
        _check_blend(method, method.blend.primary, method.blend.floor)
    if method.kl.coefficient and method.kl.place == "reward":
        _check_kl(method.credit, reward.level, levels)
    if method.kl.coefficient and method.kl.place == "token" and end != "token":
        raise RecipeError(
            "method.kl.place: the KL of a token is taken from the token's value, and the credit has one per "
            f"{end}: put credit.spread into it, or take the KL from the reward or put it in the loss"
        )


def _through(chain: Iterable[Part | Sum], per: Per, levels: Mapping[str, Level]) -> Per:
    """The level that values of a level have behind some parts."""
    for part in chain:
        if isinstance(part, Sum):
            raise RecipeError("credit: a sum is of parts of the reward: it comes first, and holds no other sum")
        name, own = name_of(function_of(part)), signature(function_of(part))
        beside = {x: of for x, of in own.beside.items() if of.required or x in levels}
        lacking = [*own.lacking, *(x for x in beside if x not in levels)]
        if lacking:
            raise RecipeError(
                f"credit: {name} reads {lacking[0]!r}, which the loop does not have; it has: "
                f"{', '.join(sorted(READS))}; nor is it a part of the reward, whose parts are: {', '.join(levels)}"
            )
        if per not in own.takes:
            remedy = {
                "rollout": "put credit.spread before it, or give the reward by steps",
                "step": "put credit.spread before it, or reduce the reward to one per rollout",
                "token": "put it before the part that goes over to tokens",
            }[per]
            takes = " or ".join(own.takes)
            raise RecipeError(f"credit: {name} takes one value per {takes} and is given one per {per}: {remedy}")
        for x, of in beside.items():
            wanted = of.level or ("rollout" if per == "rollout" else "step")
            if levels[x] != wanted:
                raise RecipeError(
                    f"credit: {name} reads {x!r} as one value per {wanted}; the reward gives one per {levels[x]}"
                )
        if own.to_steps:
            per = "step" if any(levels[x] == "step" for x in beside) else "token"
        per = "token" if own.to_tokens else per
    return per


def _level(name: str, levels: Mapping[str, Level]) -> Level:
    if name not in levels:
        raise RecipeError(f"credit: the reward has no part {name!r} (give one that name): {nearest(name, levels)}")
    return levels[name]


def _check_blend(method: Method, primary: str, floor: float | None) -> None:
    first, *rest = in_turn(method.credit)
    if not isinstance(first, Sum) or rest:
        raise RecipeError(
            "method.blend: it learns what the parts of a sum weigh, and the credit is not a sum alone: make it "
            "{sum: {NAME: …}}, and put what follows into the chains of its parts"
        )
    if primary not in first.chains:
        raise RecipeError(
            f"method.blend.primary: the credit's sum has no part {primary!r}: {nearest(primary, first.chains)}"
        )
    if len(first.chains) == 1:
        raise RecipeError("method.blend: the credit's sum has one part, and nothing to weigh it against: name others")
    low = [name for name, weight in first.weights.items() if floor is not None and weight < floor]
    if low:
        raise RecipeError(
            f"credit.weights.{low[0]}: it begins below method.blend.floor, {floor:g}: lower that, or null"
        )
    if method.kl.coefficient and method.kl.place == "reward":
        raise RecipeError(
            "method.kl.place: a KL in the reward would be weighed with the part it is taken from: put it in the loss, "
            "or on tokens"
        )


def _check_kl(credit: Credit, level: Level, levels: Mapping[str, Level]) -> None:
    by_parts = isinstance(in_turn(credit)[0], Sum)
    outcomes = [name for name in parts_read(credit, levels) if levels[name] == "rollout"]
    if not by_parts and level == "step":
        raise RecipeError(
            "method.kl.place: a rollout's KL is not taken from the rewards of its steps; put it in the loss"
        )
    if by_parts and len(outcomes) != 1:
        raise RecipeError(
            "method.kl.place: a rollout's KL is taken from the one part of the reward that is of rollouts, and the "
            f"credit reads {', '.join(outcomes) or 'none'}; put it in the loss"
        )


def parts_read(credit: Credit, levels: Mapping[str, Any]) -> list[str]:
    """The parts of the reward that a credit reads by name."""
    summed = [name for one in in_turn(credit) if isinstance(one, Sum) for name in one.chains]
    beside = [x for part in parts_of(credit) for x in signature(function_of(part)).beside if x in levels]
    return list(dict.fromkeys([*summed, *beside]))
