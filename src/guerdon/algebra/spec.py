"""A reward as data: what recipes and files hold, and back.

    part: math.answer                 # a leaf, its options beside it
    tolerance: 1e-6
    name: correct                     # optional: .named("correct")
    shape: [{part: shaping.center}]   # optional: >> shaping.center()
    weight: 0.8                       # optional: 0.8 * …

A list is a sum. A combination is written with its own key and the keys of its options:
`{product: […]}`, `{harmonic: […], weights: […]}`, `{geometric: […]}`, `{available: […]}`,
`{lexicographic: […]}`, `{tiers: […], above: 1}`,
`{sum: […], bias: 1}`, `{gate: …, then: …, above: 0.5}`, `{reduce: …, how: min}`,
`{broadcast: …, over: …, place: last}`, `{trusted: …, by: …}`, `{weigh: …, by: column}`,
`{route: column, to: {task: …}, otherwise: …}`; `{of: …}` wraps any of them where wrappers stand
in another order. A part without options may be written as its name.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.algebra import combine
from guerdon.algebra.expression import Chain, Named, Reward
from guerdon.algebra.function import SPEC_KEYS, Factory, FunctionLeaf
from guerdon.algebra.gate import Gate, gate
from guerdon.algebra.geometric import geometric
from guerdon.algebra.order import lexicographic
from guerdon.algebra.route import Route
from guerdon.algebra.steps import Broadcast, How, Place, Reduced, broadcast, reduce
from guerdon.algebra.tiers import tiers
from guerdon.algebra.trust import Trusted, trusted
from guerdon.algebra.weigh import Weighed, weigh
from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, SpecError, nearest
from guerdon.core.parts import name_of, resolve
from guerdon.core.protocols import Shaper

WRAPPERS = ("weight", "name", "shape")


def load(data: Any, *, allow_import: bool = False) -> Reward:
    """The reward that data describes.

    Args:
        data: a part's name, a mapping or a list, as the module's docstring says.
        allow_import: also import parts from outside guerdon, which runs code: only for specs you trust.

    Raises:
        SpecError: at once, for an unknown part or option (with the nearest valid one), a wrong type,
            or a combination that cannot be; says where in the spec.

    >>> load([{"part": "text.length", "unit": "words", "weight": "0.5"}])
    0.5 * text.length(unit='words')
    """
    return _Loader(allow_import).reward(data, "reward")


def chain(reward: Reward, shapers: Sequence[Any], *, where: str = "shape", allow_import: bool = False) -> Reward:
    """A reward followed by the shapers that data describes.

    Raises:
        SpecError: for an unknown shaper or option; says where.
    """
    loader = _Loader(allow_import)
    for i, shaper in enumerate(shapers):
        reward = reward >> loader.shaper(shaper, f"{where}[{i}]")
    return reward


def dump(reward: Reward) -> Any:
    """A reward as data, defaults written out, state left out: `load(dump(x)) == x`.

    Raises:
        SpecError: if it holds what data cannot, such as a lambda or an open client.
    """
    if isinstance(reward, combine.Sum) and reward.bias == 0:
        return [_weighted(term, weight) for term, weight in zip(reward.terms, reward.weights, strict=True)]
    return _dump(reward)


class _Loader:
    def __init__(self, allow_import: bool) -> None:
        self.allow_import = allow_import

    def reward(self, data: Any, where: str) -> Reward:
        """The reward that data describes."""
        try:
            if isinstance(data, str):
                return self._part({"part": data}, where)
            if isinstance(data, Mapping):
                return self._mapping(dict(data), where)
            if isinstance(data, Sequence):
                return self._sum(data, where)
        except SpecError:
            raise
        except (TypeError, ValueError, GuerdonError) as error:
            raise SpecError(f"{where}: {error}") from error
        raise SpecError(f"{where}: expected a part's name, a mapping or a list, got {data!r}")

    def _sum(self, data: Sequence[Any], where: str) -> Reward:
        return _sum(*(self.reward(term, f"{where}[{i}]") for i, term in enumerate(data)))

    def _mapping(self, data: dict[str, Any], where: str) -> Reward:
        wrappers = {key: data.pop(key) for key in WRAPPERS if key in data}
        kind = next((key for key in ("part", "of", *_COMBINATIONS) if key in data), None)
        if kind is None:
            has = ", ".join(map(str, data)) or "nothing"
            raise SpecError(f"{where}: a mapping has one of part, of, {', '.join(_COMBINATIONS)}; this one has {has}")
        if kind == "part":
            inner = self._part(data, where)
        elif kind == "of":
            inner = self.reward(data.pop("of"), f"{where}.of")
            _known(data, (), "of", where)
        else:
            inner = _COMBINATIONS[kind](self, data, where)
        for i, shaper in enumerate(_listed(wrappers.get("shape", []))):
            inner = inner >> self.shaper(shaper, f"{where}.shape[{i}]")
        if "name" in wrappers:
            inner = inner.named(coerce(wrappers["name"], str, f"{where}.name"))
        if "weight" in wrappers:
            inner = combine.scale(inner, coerce(wrappers["weight"], float, f"{where}.weight"))
        return inner

    def _part(self, data: dict[str, Any], where: str) -> Reward:
        name = data.pop("part")
        factory = self._resolve(name, where)
        if not isinstance(factory, Factory):
            if isinstance(factory, type) and issubclass(factory, Reward) and hasattr(factory, "__dataclass_fields__"):
                return factory(**self._options(factory, name, data, where))
            raise SpecError(f"{where}: {name!r} is not a reward")
        _known(data, factory.option_names, name, where)
        options = {
            key: self._option(value, factory.annotations[key], f"{where}: {name}.{key}") for key, value in data.items()
        }
        return factory(**options)

    def shaper(self, data: Any, where: str) -> Shaper:
        """The shaper that data describes."""
        data = {"part": data} if isinstance(data, str) else data
        if not isinstance(data, Mapping) or "part" not in data:
            raise SpecError(f"{where}: a shaper is written {{part: shaping.…}}, got {data!r}")
        data = dict(data)
        name = data.pop("part")
        kind = self._resolve(name, where)
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and hasattr(kind, "observe")):
            raise SpecError(f"{where}: {name!r} is not a shaper")
        options = self._options(kind, name, data, where)
        try:
            return typing.cast(Shaper, kind(**options))
        except (TypeError, ValueError) as error:
            raise SpecError(f"{where}: {error}") from error

    def _options(self, kind: type, name: str, data: dict[str, Any], where: str) -> dict[str, Any]:
        hints = typing.get_type_hints(kind)
        options = [f.name for f in dataclasses.fields(kind) if f.init]
        _known(data, options, name, where)
        return {key: self._option(value, hints[key], f"{where}: {name}.{key}") for key, value in data.items()}

    def _option(self, value: Any, annotation: Any, where: str) -> Any:
        """The value of an option; one that is a function, such as a judge, is named as parts are."""
        union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
        kinds = typing.get_args(annotation) if union else (annotation,)
        if isinstance(value, str) and str not in kinds and any(typing.get_origin(kind) is Callable for kind in kinds):
            return self._resolve(value, where)
        return coerce(value, annotation, where)

    def _resolve(self, name: Any, where: str) -> Any:
        try:
            return resolve(coerce(name, str, "part"), allow_import=self.allow_import)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from None


Reader = Callable[[_Loader, dict[str, Any], str], Reward]


def _several(kind: str, build: Callable[..., Reward], **options: Any) -> Reader:
    """A reader of combinations of a list of rewards."""

    def read(loader: _Loader, data: dict[str, Any], where: str) -> Reward:
        terms = data.pop(kind)
        if isinstance(terms, (str, Mapping)) or not isinstance(terms, Sequence):
            raise SpecError(f"{where}.{kind}: expected a list, got {terms!r}")
        _known(data, tuple(options), kind, where)
        settings = {key: coerce(value, options[key], f"{where}.{key}") for key, value in data.items()}
        return build(*(loader.reward(term, f"{where}.{kind}[{i}]") for i, term in enumerate(terms)), **settings)

    return read


def _sum(*terms: Reward, bias: float = 0.0) -> Reward:
    if not terms:
        raise ValueError("sum of nothing")
    total = combine.scale(terms[0], 1.0)
    for term in terms[1:]:
        total = combine.add(total, term)
    return combine.add(total, bias)


def _gate(loader: _Loader, data: dict[str, Any], where: str) -> Reward:
    condition = loader.reward(data.pop("gate"), f"{where}.gate")
    if "then" not in data:
        raise SpecError(f"{where}: a gate needs 'then'")
    then = loader.reward(data.pop("then"), f"{where}.then")
    _known(data, ("above", "otherwise", "inclusive"), "gate", where)
    options: dict[str, Any] = {}
    for key, value in data.items():
        if key == "otherwise" and (isinstance(value, Mapping) or _is_list(value)):
            options[key] = loader.reward(value, f"{where}.{key}")
        else:
            options[key] = coerce(value, bool if key == "inclusive" else float, f"{where}.{key}")
    return gate(condition, then=then, **options)


def _reduce(loader: _Loader, data: dict[str, Any], where: str) -> Reward:
    inner = loader.reward(data.pop("reduce"), f"{where}.reduce")
    how = coerce(data.pop("how", None), How, f"{where}.how")
    _known(data, ("how",), "reduce", where)
    return reduce(inner, how)


def _broadcast(loader: _Loader, data: dict[str, Any], where: str) -> Reward:
    inner = loader.reward(data.pop("broadcast"), f"{where}.broadcast")
    if "over" not in data:
        raise SpecError(f"{where}: broadcast needs 'over', the reward whose steps it takes")
    over = loader.reward(data.pop("over"), f"{where}.over")
    place = coerce(data.pop("place", "all"), Place, f"{where}.place")
    _known(data, ("over", "place"), "broadcast", where)
    return broadcast(inner, over=over, place=place)


def _trusted(loader: _Loader, data: dict[str, Any], where: str) -> Reward:
    inner = loader.reward(data.pop("trusted"), f"{where}.trusted")
    if "by" not in data:
        raise SpecError(f"{where}: trusted needs 'by', the reward that says which rollouts are right")
    by = loader.reward(data.pop("by"), f"{where}.by")
    _known(data, ("above",), "trusted", where)
    return trusted(inner, by=by, **{k: coerce(v, float, f"{where}.{k}") for k, v in data.items()})


def _weigh(loader: _Loader, data: dict[str, Any], where: str) -> Reward:
    inner = loader.reward(data.pop("weigh"), f"{where}.weigh")
    by = coerce(data.pop("by", None), str, f"{where}.by")
    _known(data, ("by",), "weigh", where)
    return weigh(inner, by=by)


def _route(loader: _Loader, data: dict[str, Any], where: str) -> Reward:
    by = coerce(data.pop("route"), str, f"{where}.route")
    to = data.pop("to", None)
    if not isinstance(to, Mapping):
        raise SpecError(f"{where}: a route needs 'to', a mapping from values of {by!r} to rewards")
    rest = data.pop("otherwise", None)
    _known(data, ("to", "otherwise"), "route", where)
    branches = tuple((str(key), loader.reward(value, f"{where}.to.{key}")) for key, value in to.items())
    return Route(by, branches, None if rest is None else loader.reward(rest, f"{where}.otherwise"))


_COMBINATIONS: dict[str, Reader] = {
    "gate": _gate,
    "route": _route,
    "reduce": _reduce,
    "broadcast": _broadcast,
    "trusted": _trusted,
    "weigh": _weigh,
    "sum": _several("sum", _sum, bias=float),
    "product": _several("product", combine.product),
    "harmonic": _several("harmonic", combine.harmonic, weights=tuple[float, ...]),
    "geometric": _several("geometric", geometric, weights=tuple[float, ...]),
    "available": _several("available", combine.available, weights=tuple[float, ...]),
    "lexicographic": _several("lexicographic", lexicographic, tolerance=float),
    "tiers": _several("tiers", tiers, weights=tuple[float, ...], above=float),
}


def _known(data: Mapping[str, Any], valid: Sequence[str], what: str, where: str) -> None:
    for key in data:
        if key not in valid:
            raise SpecError(f"{where}: {what} has no option {key!r}: {nearest(str(key), valid)}")


def _listed(value: Any) -> list[Any]:
    return list(value) if _is_list(value) else [value]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _dump(reward: Reward) -> dict[str, Any]:
    if isinstance(reward, FunctionLeaf):
        part = reward.factory
        _importable(part.function, part.name, part)
        return {
            "part": part.name,
            **{key: _plain(value, f"{part.name}.{key}") for key, value in reward.options.items()},
        }
    if isinstance(reward, Named):
        return _wrapped(reward.inner, "name", reward.alias)
    if isinstance(reward, Chain):
        return _wrapped(reward.inner, "shape", [_configured(reward.shaper)])
    if isinstance(reward, combine.Sum):
        terms = [_weighted(term, weight) for term, weight in zip(reward.terms, reward.weights, strict=True)]
        return {"sum": terms, "bias": reward.bias}
    if isinstance(reward, combine.Composite):
        key = reward.keyword
        options = {
            f.name: _plain(getattr(reward, f.name), key) for f in dataclasses.fields(reward) if f.name != "terms"
        }
        return {key: [_dump(term) for term in reward.terms], **options}
    if isinstance(reward, Gate):
        return {
            "gate": _dump(reward.condition),
            "then": _dump(reward.then),
            "above": reward.above,
            "otherwise": _dump(reward.otherwise) if isinstance(reward.otherwise, Reward) else reward.otherwise,
            "inclusive": reward.inclusive,
        }
    if isinstance(reward, Reduced):
        return {"reduce": _dump(reward.inner), "how": reward.how}
    if isinstance(reward, Broadcast):
        return {"broadcast": _dump(reward.inner), "over": _dump(reward.over), "place": reward.place}
    if isinstance(reward, Trusted):
        return {"trusted": _dump(reward.inner), "by": _dump(reward.by), "above": reward.above}
    if isinstance(reward, Weighed):
        return {"weigh": _dump(reward.inner), "by": reward.by}
    if isinstance(reward, Route):
        rest = {} if reward.otherwise is None else {"otherwise": _dump(reward.otherwise)}
        return {"route": reward.by, "to": {key: _dump(branch) for key, branch in reward.branches}, **rest}
    return _configured(reward)


def _wrapped(inner: Reward, key: str, value: Any) -> dict[str, Any]:
    """Wrappers are read in the order shape, name, weight; in any other, `of` keeps them apart."""
    data = _dump(inner)
    if key == "shape" and isinstance(inner, Chain) and "shape" in data:
        return {**data, "shape": [*data["shape"], *value]}
    if key in data or "weight" in data or "name" in data:
        data = {"of": data}
    return {**data, key: value}


def _weighted(term: Reward, weight: float) -> dict[str, Any]:
    data = _dump(term)
    return {**({"of": data} if "weight" in data else data), "weight": weight}


def _configured(part: Any) -> dict[str, Any]:
    """A dataclass part by its name and fields."""
    if not dataclasses.is_dataclass(part):
        raise SpecError(f"{part!r} cannot be written as data: it is not a dataclass of plain options")
    kind = type(part)
    name = name_of(kind)
    _importable(kind, name, kind)
    fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}
    taken = next((key for key in fields if key in SPEC_KEYS and isinstance(part, Reward)), None)
    if taken is not None:
        raise SpecError(f"{name} cannot be written as data: a spec uses {taken!r}, which is one of its options")
    return {"part": name, **{key: _plain(value, f"{name}.{key}") for key, value in fields.items()}}


def _importable(code: Any, name: str, part: Any) -> None:
    if code.__module__ == "__main__" or "<" in code.__qualname__:
        raise SpecError(
            f"{name} cannot be written as data: it is defined in {code.__module__!r}, where nothing can import it"
        )
    module = inspect.getmodule(code)
    if getattr(module, part.__qualname__, None) is not part:
        raise SpecError(
            f"{name} cannot be written as data: it is not what {code.__module__} shows as {part.__qualname__!r}"
        )


def _plain(value: Any, where: str) -> Any:
    """Options as YAML can hold them."""
    if inspect.isfunction(value):
        _importable(value, where, value)
        return name_of(value)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v, where) for v in value]
    if isinstance(value, Mapping):
        return {_plain(k, where): _plain(v, where) for k, v in value.items()}
    raise SpecError(f"{where} cannot be written as data: {value!r}")
