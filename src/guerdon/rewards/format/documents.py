"""Replies that are data: JSON, and JSON of a given shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from json import dumps
from typing import TYPE_CHECKING, Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, passage, read_json, shown, text_of

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

Where = Literal["reply", "code_block", "either"]
Choice = Literal["reject", "accept"]


_jsonschema = needs("format.json with a schema", "jsonschema", extra="format")


def _valid(schema: Mapping[str, Any] | None, **options: object) -> tuple[str, ...]:
    if schema is None:
        return ()
    nothing = _jsonschema()
    try:
        _validator(_written(schema))
    except Abstain as reason:
        raise ValueError(str(reason)) from None
    return nothing


@reward(range=(0, 1), requires=_valid)
def json(
    completion: Completion,
    *,
    schema: Mapping[str, Any] | None = None,
    within: Where = "either",
    top: Literal["any", "object", "array"] = "any",
    duplicates: Choice = "reject",
    nan: Choice = "reject",
) -> tuple[float, dict[str, Any]]:
    """1 if the reply is valid JSON, else 0.

    Args:
        completion: the reply: text or chat messages; thinking does not count.
        schema: a JSON Schema that every reply has to fit; where rows have their own, see `schema`.
        within: where the JSON stands: the whole 'reply', the last 'code_block', or 'either': the last code block
            if there is one, else the whole reply.
        top: what it is at the top; 'any' accepts the reply `42`, which is valid JSON.
        duplicates: an object with a key twice means different things to different readers; 'accept' takes the last.
        nan: `NaN` and `Infinity` are not JSON, though many programs write them.

    Returns:
        The score, and as a detail what is wrong: None if nothing.

    Raises:
        ValueError: at once, if the schema is not a valid one.
        MissingExtra: if there is a schema and jsonschema is not installed.

    >>> from guerdon.rewards import format
    >>> format.json().evaluate('{"a": [1, 2]}'), format.json().evaluate("{'a': 1}")[0]
    ((1.0, {'problem': None}), 0.0)

    Source: RFC 8259.
    """
    try:
        value = _document(completion, within, duplicates, nan)
    except ValueError as error:
        return 0.0, {"problem": str(error)}
    wanted = {"any": object, "object": dict, "array": list}[top]
    if not isinstance(value, wanted):
        return 0.0, {"problem": f"no {top}"}
    problem = None if schema is None else _misfit(value, schema)
    return float(problem is None), {"problem": problem}


@reward(range=(0, 1), requires=needs("format.schema", "jsonschema", extra="format"))
def schema(
    completion: Completion,
    schema: Any,
    *,
    within: Where = "either",
    duplicates: Choice = "reject",
    nan: Choice = "reject",
) -> tuple[float, dict[str, Any]]:
    """1 if the reply is valid JSON and what the row's JSON Schema asks for, else 0.

    Nothing is fetched: a `$ref` leads to a place in the schema. `format` is an annotation, as the standard has
    it, and checks nothing. A `pattern` is a Python regular expression; one that backtracks without end is stopped by
    the engine's deadline, which is an abstention.

    Args:
        completion: the reply: text or chat messages; thinking does not count.
        schema: the JSON Schema: a mapping, or its JSON text, which is safer in Parquet: there a mapping gets every
            key that any row has. Of the draft that its `$schema` says, else 2020-12.
        within: see `json`.
        duplicates: see `json`.
        nan: see `json`.

    Returns:
        The score, and as a detail what is wrong first, and where: None if nothing.

    Raises:
        Abstain: if there is no schema, it is not a valid one, or it refers to what is not there.
        MissingExtra: if jsonschema is not installed.

    >>> from guerdon.rewards import format
    >>> wanted = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    >>> format.schema().evaluate('{"name": "Ada"}', wanted)
    (1.0, {'problem': None})
    >>> format.schema().evaluate('{"name": 7}', wanted)
    (0.0, {'problem': "$.name: 7 is not of type 'string'"})

    Source: JSON Schema 2020-12; jsonschema.
    """
    _validator(_written(schema))
    try:
        value = _document(completion, within, duplicates, nan)
    except ValueError as error:
        return 0.0, {"problem": str(error)}
    problem = _misfit(value, schema)
    return float(problem is None), {"problem": problem}


def _misfit(value: Any, schema: Any) -> str | None:
    """Where a value does not fit a schema first, and why."""
    from referencing.exceptions import Unresolvable

    try:
        error = next(_validator(_written(schema)).iter_errors(value), None)
    except Unresolvable as problem:
        raise Abstain(f"schema refers to what is not there: {problem}") from None
    except RecursionError:
        raise Abstain("schema refers to itself without end") from None
    except re.error as problem:
        raise Abstain(f"schema has a pattern that is no regular expression: {problem}") from None
    return None if error is None else f"{error.json_path}: {error.message[:200]}"


def _document(completion: Completion, within: Where, duplicates: Choice, nan: Choice) -> Any:
    text = text_of(completion)
    found = passage(text, "code_block") if within != "reply" else None
    if found is None and within != "code_block":
        found = passage(text, "reply")
    if found is None:
        raise ValueError("no code block" if within == "code_block" else "no reply")
    return read_json(found, duplicates=duplicates, nan=nan)


def _written(schema: Any) -> str:
    """The schema as JSON text, by which it is remembered."""
    if isinstance(schema, str) and schema.strip():
        return schema
    if not isinstance(schema, (Mapping, bool)):
        raise Abstain(f"schema missing: {shown(schema)}")
    try:
        return dumps(schema)
    except (TypeError, ValueError, RecursionError) as problem:
        raise Abstain(f"schema not JSON: {problem}") from None


@lru_cache(maxsize=1 << 10)
def _validator(written: str) -> Validator:
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    try:
        schema = read_json(written)
    except ValueError as problem:
        raise Abstain(f"schema not JSON: {problem}") from None
    if not isinstance(schema, (dict, bool)):
        raise Abstain(f"schema not a mapping: {shown(schema)}")
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as problem:
        raise Abstain(f"schema not valid: {problem.json_path}: {problem.message[:200]}") from None
    return kind(schema, registry=EMPTY_REGISTRY)
