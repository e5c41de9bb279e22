"""Columns of Python values to Parquet and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from guerdon.core.errors import GuerdonError

JSON = b"guerdon.json"
LEVELS = 16  # of nesting that are left to Arrow's types
NUMBERS = {pa.int64(), pa.float64()}


def to_arrow(columns: Mapping[str, Sequence[Any]], schema: pa.Schema | None = None) -> pa.Table:
    """A table; a column whose values Arrow has no one type for is kept as JSON and marked so.

    Lone surrogates, which no file can hold as UTF-8, become U+FFFD, arrays lists, and what not even
    JSON can hold (an image in a message) its `repr`.

    Args:
        columns: the values, by name.
        schema: the types of these columns, so that tables of several batches fit together. Default:
            what the values call for.

    Raises:
        GuerdonError: if a column holds itself, mappings whose keys are not text, or values that are not
            of the type in the schema; names it.
    """
    fields, arrays = [], []
    for name, column in columns.items():
        array, field = _column(name, list(column)) if schema is None else _typed(schema.field(name), list(column))
        fields.append(field)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def from_arrow(table: pa.Table | pa.RecordBatch) -> dict[str, list[Any]]:
    """The columns of a table as lists of Python values; the inverse of `to_arrow`."""
    columns = {}
    for field in table.schema:
        values = table.column(field.name).to_pylist()
        if is_json(field):
            values = [None if v is None else json.loads(v) for v in values]
        columns[field.name] = values
    return columns


def json_field(name: str) -> pa.Field:
    """A column of any values, kept as JSON."""
    return pa.field(name, pa.string(), metadata={JSON: b"1"})


def is_json(field: pa.Field) -> bool:
    """Whether a column is kept as JSON."""
    return bool(field.metadata) and JSON in field.metadata


def common_field(first: pa.Field, second: pa.Field) -> pa.Field:
    """What can hold a column whose batches have these fields: JSON where no one type can.

    Nulls fit any type. Whole numbers and fractions together are float64, in which `to_arrow` does not
    keep whole numbers beyond 2⁵³: it is for the caller to see to it that there are none.

    >>> common_field(pa.field("a", pa.list_(pa.null())), pa.field("a", pa.list_(pa.string()))).type
    ListType(list<item: string>)
    >>> is_json(common_field(pa.field("a", pa.int64()), pa.field("a", pa.string())))
    True
    """
    if is_json(first) or is_json(second):
        return json_field(first.name)
    kind = pa.float64() if {first.type, second.type} == NUMBERS else _common_type(first.type, second.type)
    return json_field(first.name) if kind is None else pa.field(first.name, kind)


def write_parquet(path: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns to a Parquet file, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(to_arrow(columns), temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_parquet(path: str | Path) -> dict[str, list[Any]]:
    """The columns of a Parquet file.

    Raises:
        GuerdonError: if it is not one, or is cut short.
    """
    try:
        return from_arrow(pq.read_table(path))
    except pa.ArrowInvalid as error:
        raise GuerdonError(f"{path} is not a whole Parquet file: {error}") from error


def _column(name: str, values: list[Any]) -> tuple[pa.Array, pa.Field]:
    values = [value.tolist() if hasattr(value, "tolist") else value for value in values]
    texts = [_writable(value) if isinstance(value, str) else value for value in values]
    try:
        array = pa.array(texts) if _shallow(texts, LEVELS) else None
        if array is not None and _same(array.to_pylist(), texts) and not _holds_empty_record(array.type):
            return array, pa.field(name, array.type)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
        pass
    return _as_json(name, values), json_field(name)


def _typed(field: pa.Field, values: list[Any]) -> tuple[pa.Array, pa.Field]:
    values = [value.tolist() if hasattr(value, "tolist") else value for value in values]
    if is_json(field):
        return _as_json(field.name, values), field
    try:
        return pa.array([_writable(v) if isinstance(v, str) else v for v in values], field.type), field
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError) as error:
        raise GuerdonError(f"column {field.name!r} cannot be written as {field.type}: {error}") from error


def _as_json(name: str, values: list[Any]) -> pa.Array:
    try:
        texts = [None if value is None else json.dumps(value, default=_plain) for value in values]
    except (TypeError, ValueError, RecursionError) as error:
        raise GuerdonError(f"column {name!r} cannot be written: {error}") from error
    return pa.array(texts, pa.string())


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if pa.types.is_list(first) and pa.types.is_list(second):
        inner = _common_type(first.value_type, second.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        pairs = list(zip(first, second, strict=False))
        kinds = [_common_type(a.type, b.type) if a.name == b.name else None for a, b in pairs]
        if len(pairs) == first.num_fields == second.num_fields and None not in kinds:
            return pa.struct([(field.name, kind) for field, kind in zip(first, kinds, strict=True)])
    return None


def _shallow(value: Any, levels: int) -> bool:
    """Parquet does not read back what nests too deep, and a list that holds itself would end the process."""
    if isinstance(value, (list, tuple, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_shallow(v, levels - 1) for v in inner)
    return True


def _holds_empty_record(kind: pa.DataType) -> bool:
    """Whether a type has records without fields in it, which Parquet cannot hold."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_holds_empty_record(kind.field(i).type) for i in range(kind.num_fields))
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _holds_empty_record(kind.value_type)


def _writable(text: str) -> str:
    """A text that can be UTF-8: surrogates in pairs are joined, lone ones replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _same(read: Any, written: Any) -> bool:
    """Whether Arrow gave back what it was given: it makes text beside bytes bytes, and gives records more keys."""
    if read == written:
        return True
    if isinstance(read, list) and isinstance(written, (list, tuple)) and len(read) == len(written):
        return all(_same(a, b) for a, b in zip(read, written, strict=True))
    return bool(read != read and written != written)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else repr(value)
