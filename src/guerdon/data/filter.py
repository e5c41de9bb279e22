"""What every filter is, filters in turn, and filters as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Bool

from guerdon.core.arrays import to_numpy
from guerdon.core.coerce import coerce
from guerdon.core.context import Context
from guerdon.core.errors import SpecError
from guerdon.core.parts import name_of, resolve
from guerdon.core.scores import Scores


class Filter:
    """Which groups of a batch are worth learning from, or which rollouts. Subclasses are frozen dataclasses of options.

    `keep` is pure: the same scores and context give the same answer. A filter that needs memory keeps it in `state`,
    changes it in `observe` only, which the training loop calls once per step with all that was sampled for it, and
    gives it by `state_dict`.

    A group of which nothing was scored is never kept: an abstention is no evidence.
    """

    __part__: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.__part__ = "filter"

    @property
    def name(self) -> str:
        """The part's name."""
        return name_of(type(self))

    @property
    def needs(self) -> tuple[str, ...]:
        """The named parts of the reward that it cannot do without."""
        return ()

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        """One answer per group of the context's rollouts, in rising order of the groups' numbers."""
        raise NotImplementedError

    def rows(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "n"]:
        """The same answer for each rollout; a filter of rollouts leaves some of a group out."""
        _, index = np.unique(context.require_rollouts().groups, return_inverse=True)
        return np.asarray(self.keep(scores, context)[index], bool)

    def observe(self, scores: Scores, context: Context) -> None:
        """Update state from one training step's scores, as they reached this filter. Most have none."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, as plain data; empty for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            raise ValueError(f"{self.name} has no state, got {sorted(state)}")


@dataclass(frozen=True)
class chain(Filter):
    """Filters in turn: each sees only the groups that those before it kept, so that shares are of what is left.

    Without filters, every group that was scored is kept.

    Source: ours; DRO (arXiv 2506.13351) drops by rank first and by spread of what remains.

    >>> from guerdon.core import Context, Rollouts, Scores
    >>> from guerdon.data import upper, within
    >>> batch = Context(Rollouts(["p", "q", "r"], [""] * 3))
    >>> chain((within(high=0.8), upper(drop=0.5, statistic="mean"))).keep(Scores.of([0.9, 0.5, 0.1]), batch)
    array([False,  True, False])
    """

    filters: tuple[Filter, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(name for one in self.filters for name in one.needs)

    def keep(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
        return groups_of(self.rows(scores, context), context)

    def rows(self, scores: Scores, context: Context) -> Bool[np.ndarray[Any, Any], "n"]:
        _, index = np.unique(context.require_rollouts().groups, return_inverse=True)
        kept = groups_of(_scored(scores), context)[index]
        for one in self.filters:
            kept = kept & one.rows(scores.restrict(kept), context)
        return kept

    def observe(self, scores: Scores, context: Context) -> None:
        for one in self.filters:
            kept = one.rows(scores, context)
            one.observe(scores, context)
            scores = scores.restrict(kept)

    def state_dict(self) -> dict[str, Any]:
        states = {str(i): one.state_dict() for i, one in enumerate(self.filters)}
        return {place: state for place, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        unknown = set(state) - {str(i) for i in range(len(self.filters))}
        if unknown:
            raise ValueError(f"{self.name} has {len(self.filters)} filters, got state for number {min(unknown)}")
        for i, one in enumerate(self.filters):
            one.load_state_dict(state.get(str(i), {}))


def load_filter(data: Any, *, where: str = "filter", allow_import: bool = False) -> Filter:
    """The filter that data describes: a part's name, a mapping with `part` and its options, or a list, in turn.

    Args:
        data: as a recipe holds it.
        where: what error messages call the place.
        allow_import: also import filters from outside guerdon, which runs code: only for recipes you trust.

    Raises:
        SpecError: for an unknown part or option (with the nearest valid one) or a wrong type; says where.

    >>> load_filter(["data.varied", {"part": "data.within", "low": "0.2", "high": 0.8}])
    chain(filters=(varied(of=None), within(of=None, statistic='mean', low=0.2, high=0.8)))

    Source: ours; as specs of rewards.
    """
    if isinstance(data, Sequence) and not isinstance(data, str):
        filters = (load_filter(x, where=f"{where}[{i}]", allow_import=allow_import) for i, x in enumerate(data))
        return chain(tuple(filters))
    options = {"part": data} if isinstance(data, str) else dict(data) if isinstance(data, Mapping) else {}
    if "part" not in options:
        raise SpecError(f"{where}: a filter is written {{part: data.…}}, got {data!r}")
    name = options.pop("part")
    try:
        kind: Any = resolve(coerce(name, str, "part"), allow_import=allow_import)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None
    if kind is chain:
        raise SpecError(f"{where}: a chain is written as the list of its filters")
    if not (isinstance(kind, type) and issubclass(kind, Filter)):
        raise SpecError(f"{where}: {name!r} is not a filter")
    return cast(Filter, coerce(options, kind, where))


def dump_filter(given: Filter) -> Any:
    """A filter as data, defaults written out, state left out: `load_filter(dump_filter(x)) == x`.

    >>> from guerdon.data import within
    >>> dump_filter(within(low=0.2))
    {'part': 'data.within', 'of': None, 'statistic': 'mean', 'low': 0.2, 'high': inf}

    Raises:
        SpecError: if it is not a dataclass of plain options.

    Source: ours; as specs of rewards.
    """
    if isinstance(given, chain):
        return [dump_filter(one) for one in given.filters]
    part: Any = given
    if not dataclasses.is_dataclass(part):
        raise SpecError(f"{given!r} cannot be written as data: it is not a dataclass of plain options")
    options = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}
    for name, value in options.items():
        if not (value is None or type(value) in (bool, int, float, str)):
            raise SpecError(f"{given.name}.{name} cannot be written as data: {value!r}")
    return {"part": given.name, **options}


def groups_of(rows: Bool[np.ndarray[Any, Any], "n"], context: Context) -> Bool[np.ndarray[Any, Any], "g"]:
    """The groups of which any of these rollouts is, in rising order of their numbers."""
    _, index = np.unique(context.require_rollouts().groups, return_inverse=True)
    found = np.zeros(int(index.max(initial=-1)) + 1, bool)
    found[index[rows]] = True
    return found


def _scored(scores: Scores) -> Bool[np.ndarray[Any, Any], "n"]:
    valid = to_numpy(scores.valid)
    return valid if scores.level == "rollout" else np.asarray(valid.any(1), bool)
