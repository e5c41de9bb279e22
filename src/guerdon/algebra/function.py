"""`@reward`: an ordinary function as a leaf."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import PathFinder
from typing import Any

import cloudpickle
import numpy as np

from guerdon.algebra.leaf import Leaf
from guerdon.core.arrays import is_tensor, to_numpy
from guerdon.core.context import Context
from guerdon.core.errors import nearest
from guerdon.core.parts import name_of
from guerdon.core.protocols import Lane, Range
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Level, Scores

Requires = Iterable[str] | Callable[..., Iterable[str]]
Deadline = float | Callable[..., float] | None

SPEC_KEYS = ("part", "weight", "name", "shape", "of")  # a spec writes these beside a part's options


class FunctionLeaf(Leaf):
    """A leaf made of a function and its options; made by calling what `@reward` returns."""

    def __init__(self, factory: Factory, options: Mapping[str, Any]) -> None:
        self.factory = factory
        self.options = dict(options)
        self.lane = factory.lane
        self.unit = factory.unit
        self.deadline = factory.deadline(**self.options) if callable(factory.deadline) else factory.deadline
        self._reads = factory.reads if factory.columns is None else factory.columns(**self.options)
        self.rate, self.retries, self.retry_on = factory.rate, factory.retries, factory.retry_on
        low, high = factory.range(**self.options) if callable(factory.range) else factory.range
        self._range = (float(low), float(high))
        more = factory.requires(**self.options) if callable(factory.requires) else factory.requires
        self._requires = super().requires | frozenset(more)
        self.floor = self._range[0] if factory.floor is None else float(factory.floor)
        if not low <= high or not low <= self.floor <= high:
            raise ValueError(f"{factory.name}: a range goes from low to high with the floor in it, got {self._range}")
        self._call = functools.partial(factory.function, **self.options) if not factory.variadic else self._variadic()
        self._key = (factory.name, tuple((k, _freeze(v)) for k, v in self.options.items()))

    def _variadic(self) -> Callable[..., Any]:
        keywords = {k: v for k, v in self.options.items() if k != self.factory.variadic}
        many = self.options[typing.cast(str, self.factory.variadic)]
        function = self.factory.function
        return lambda *columns: function(*columns, *many, **keywords)

    @property
    def name(self) -> str:
        return self.factory.name

    @property
    def range(self) -> Range:
        return self._range

    @property
    def reads(self) -> tuple[str, ...]:
        return self._reads

    @property
    def requires(self) -> frozenset[str]:
        return self._requires

    @property
    def level(self) -> Level:
        return self.factory.level

    @property
    def differentiable(self) -> bool:
        return self.factory.differentiable

    def check(self) -> None:
        if self.factory.check is not None:
            self.factory.check(**self.options)

    def evaluate(self, *columns: Any) -> Any:
        return self._call(*columns)

    def measure(self, rollouts: Rollouts, context: Context) -> Scores:
        """Call a batch function with whole columns; it returns `Scores`, or a list or array of numbers."""
        result = self._call(
            *(
                context if name == "context" else rollouts if name == "rollouts" else rollouts.column(name)
                for name in self.reads
            )
        )
        if isinstance(result, Scores):
            return result
        if is_tensor(result):
            return _of_tensor(result)
        if not isinstance(result, (list, tuple, np.ndarray)):
            raise TypeError(f"returned {type(result).__name__}, expected Scores, or a list or array of numbers")
        return Scores.of(list(result))

    def __repr__(self) -> str:
        defaults = self.factory.defaults
        changed = {k: v for k, v in self.options.items() if k not in defaults or defaults[k] != v}
        many = changed.pop(self.factory.variadic, ()) if self.factory.variadic else ()
        return f"{self.name}({', '.join([*map(repr, many), *(f'{k}={v!r}' for k, v in changed.items())])})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionLeaf) and self.factory is other.factory and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        return (FunctionLeaf, (self.factory, self.options))


class Factory:
    """What `@reward` makes of a function: call it with options to get a leaf.

    Its positional parameters are the columns it reads, its keyword-only ones the options.
    """

    __part__ = "reward"
    __qualname__: str

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        range: Range | Callable[..., Range],
        lane: Lane | None = None,
        unit: str = "row",
        deadline: Deadline = None,
        floor: float | None = None,
        level: Level = "rollout",
        requires: Requires = frozenset(),
        columns: Callable[..., tuple[str, ...]] | None = None,
        check: Callable[..., None] | None = None,
        differentiable: bool = False,
        rate: float | None = None,
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.range, self.unit, self.deadline, self.floor = range, unit, deadline, floor
        self.level, self.differentiable = level, differentiable
        self.columns, self.check = columns, check
        self.rate, self.retries, self.retry_on = rate, retries, retry_on
        self.requires = requires if callable(requires) else frozenset(requires)
        waits = inspect.iscoroutinefunction(function)
        self.lane: Lane = lane or ("async" if waits else "process")
        if waits != (self.lane == "async"):
            raise TypeError(f"{self.__qualname__}: the async lane is for coroutine functions, and they for it")
        if (level == "step" or differentiable) and self.lane != "batch":
            raise TypeError(f"{self.__qualname__}: scores of steps and differentiable ones come from the batch lane")
        if self.lane != "async" and (rate is not None or retries or retry_on is not None):
            raise TypeError(f"{self.__qualname__}: rate, retries and retry_on are for the async lane")
        if retry_on is not None and not (isinstance(retry_on, tuple) and all(map(_is_exception, retry_on))):
            raise TypeError(f"{self.__qualname__}: retry_on is a tuple of exceptions, got {retry_on!r}")
        if (rate is not None and not 0 < rate < math.inf) or retries < 0:
            raise ValueError(f"{self.__qualname__}: a rate is positive and retries are 0 or more: {rate}, {retries}")
        self.settings: dict[str, Any] = {
            "range": range, "lane": lane, "unit": unit, "deadline": deadline, "floor": floor, "level": level,
            "requires": self.requires, "columns": columns, "check": check, "differentiable": differentiable,
            "rate": rate, "retries": retries, "retry_on": retry_on,
        }  # fmt: skip
        parameters = inspect.signature(function).parameters.values()
        kinds = inspect.Parameter
        self.reads = tuple(p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD))
        if "rollouts" in self.reads and self.lane != "batch":
            raise TypeError(f"{self.__qualname__}: only the batch lane is given the rollouts; name the columns to read")
        self.variadic = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), None)
        self.option_names = tuple(p.name for p in parameters if p.kind in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL))
        self.defaults = {
            p.name: p.default for p in parameters if p.kind is kinds.KEYWORD_ONLY and p.default is not kinds.empty
        }
        if any(p.kind is kinds.VAR_KEYWORD for p in parameters):
            raise TypeError(
                f"{self.__qualname__}: options are named, not **collected: what is misspelt would be ignored"
            )
        for name in self.option_names:
            if name in SPEC_KEYS:
                raise TypeError(f"{self.__qualname__}: {name!r} cannot be an option, a spec uses it")

    @functools.cached_property
    def name(self) -> str:
        """The part's name: where it is imported from."""
        return self.__qualname__ if self.__module__ == "__main__" else name_of(self)

    @functools.cached_property
    def annotations(self) -> dict[str, Any]:
        """The types of its options; `*names: str` is a tuple of text."""
        written = self.function.__annotations__
        # Columns may be annotated with types that are imported for type checkers only: options are what is read.
        options = types.SimpleNamespace(__annotations__={k: written[k] for k in self.option_names if k in written})
        hints = typing.get_type_hints(options, self.function.__globals__)
        found: dict[str, Any] = {name: hints.get(name, Any) for name in self.option_names}
        if self.variadic:
            one: Any = found[self.variadic]
            found[self.variadic] = tuple[one, ...]
        return found

    def __call__(self, *many: Any, **options: Any) -> FunctionLeaf:
        if many and not self.variadic:
            raise TypeError(f"{self.name} takes its options by name: {', '.join(self.option_names) or 'it has none'}")
        for name in options:
            if name not in self.option_names:
                raise TypeError(f"{self.name} has no option {name!r}: {nearest(name, self.option_names)}")
        values = {**self.defaults, **options}
        if self.variadic and many and self.variadic in options:
            raise TypeError(f"{self.name} got {self.variadic!r} twice, by place and by name")
        if self.variadic:
            values[self.variadic] = tuple(many or options.get(self.variadic, ()))
        missing = [name for name in self.option_names if name not in values]
        if missing:
            raise TypeError(f"{self.name} needs the option {missing[0]!r}")
        annotations: dict[str, Any] = {}
        with contextlib.suppress(NameError):  # a type that is imported for type checkers only
            annotations = self.annotations
        for name, value in options.items():
            choices = annotations.get(name)
            if typing.get_origin(choices) is typing.Literal and value not in typing.get_args(choices):
                valid = ", ".join(map(repr, typing.get_args(choices)))
                raise ValueError(f"{self.name}: {name} is one of {valid}, got {value!r}")
        return FunctionLeaf(self, {name: values[name] for name in self.option_names})

    def __repr__(self) -> str:
        return f"<reward {self.name}>"

    def __reduce__(self) -> Any:
        """By import path; by value where a worker could not import it (a script, a notebook, a closure, a test)."""
        module = sys.modules.get(self.__module__)
        importable = self.__module__ != "__main__" and _importable(self.__module__)
        if importable and getattr(module, self.__qualname__, None) is self:
            return self.__qualname__
        if module is not None and not importable and self.__module__ != "__main__":
            cloudpickle.register_pickle_by_value(module)
        return functools.partial(Factory, **self.settings), (self.function,)


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


@functools.lru_cache
def _importable(name: str) -> bool:
    """Whether another process with this one's `sys.path` can import a module: being loaded here is not enough."""
    path = None
    segments = name.split(".")
    for depth in range(1, len(segments) + 1):
        spec = PathFinder.find_spec(".".join(segments[:depth]), path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def reward(
    *,
    range: Range | Callable[..., Range],
    lane: Lane | None = None,
    unit: str = "row",
    deadline: Deadline = None,
    floor: float | None = None,
    level: Level = "rollout",
    requires: Requires = frozenset(),
    columns: Callable[..., tuple[str, ...]] | None = None,
    check: Callable[..., None] | None = None,
    differentiable: bool = False,
    rate: float | None = None,
    retries: int = 0,
    retry_on: tuple[type[BaseException], ...] | None = None,
) -> Callable[[Callable[..., Any]], Factory]:
    """Make an ordinary function a reward.

    The function's positional parameters are the columns it reads (`prompt`, `completion`, `answer`, …;
    `context` is the context without rollouts and models), its keyword-only parameters are options,
    and what it returns is one outcome: a number, None to abstain, or `(number, details)`. It may
    raise `Abstain("why")`; any other exception is an abstention as well, never a score.

    Args:
        range: the lowest and highest score, or a function of the options that gives them.
        lane: 'process' (default; called row by row in a worker process, under a deadline), 'batch'
            (called once, in this process, with whole columns) or 'async' (default for `async def`).
        unit: 'row', 'group' (called with a list per column, returns a list), or a column whose equal
            values belong together.
        deadline: seconds per unit, from when its work starts, or a function of the options that gives them.
            Default: the engine's.
        floor: what an unusable answer gets. Default: the low end of the range.
        level: 'step' if it returns `Scores` with one score per step.
        requires: what it reads besides its parameters ('tokens', 'model:policy'), or a function of the
            options that says so.
        columns: a function of the options that gives the columns to read, in the order of the positional
            parameters; the last of these may be left out where they have a default.
        check: a function of the options, called before anything is scored, that raises where the leaf cannot
            work on this machine at all: see `Leaf.check`.
        differentiable: its scores are tensors with gradients.
        rate: of an `async def`, how many calls may begin per second, evenly spaced, over all rows and all
            leaves made of it: what a server that counts requests allows. Waiting for it is queueing, and
            does not count towards the deadline before the first call.
        retries: of an `async def`, how often a call that failed is tried again, after a back-off that
            doubles and is never shorter than the server asks (Retry-After). All of a unit's calls are
            under its one deadline, so that a dead judge costs no more than a slow one.
        retry_on: the exceptions that are worth it. Default: lost connections, timeouts and other
            `OSError`s, HTTP 429 and 5xx, and what says how long to wait; what an error was raised `from`
            counts.

    Raises:
        TypeError: if the signature cannot be one of a reward, or a setting is for another lane.
        ValueError: if the rate is not positive, or retries are negative.

    >>> from guerdon import reward
    >>> @reward(range=(0, 1))
    ... def exact(completion, answer, *, case=True):
    ...     return completion == answer if case else completion.lower() == answer.lower()
    >>> exact(case=False)(prompts=["?", "?"], completions=["A", "b"], answer=["a", "a"])
    [1.0, 0.0]

    Source: inspect_ai's `@scorer`, TRL's reward functions; the abstention is ours.
    """
    if lane not in (None, "process", "batch", "async"):
        raise TypeError(f"lane is 'process', 'batch' or 'async', got {lane!r}")

    def decorate(function: Callable[..., Any]) -> Factory:
        return Factory(
            function, range=range, lane=lane, unit=unit, deadline=deadline, floor=floor, level=level,
            requires=requires, columns=columns, check=check, differentiable=differentiable,
            rate=rate, retries=retries, retry_on=retry_on,
        )  # fmt: skip

    return decorate


def _of_tensor(values: Any) -> Scores:
    """The scores a tensor holds, gradients kept; where it is not finite there is none."""
    plain = to_numpy(values)
    finite = np.isfinite(plain)
    reasons = {
        int(place[0]): f"the score was {plain[tuple(place)]}, not a finite number" for place in np.argwhere(~finite)
    }
    return Scores(values, valid=finite, reasons=reasons)


def _freeze(value: Any) -> Any:
    """Something hashable that is equal where the value is."""
    if isinstance(value, Mapping):
        return frozenset((k, _freeze(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(v) for v in value)
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
