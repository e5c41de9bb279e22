"""Columns of Python values to Parquet and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

JSON = b"guerdon.json"


def to_arrow(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table; a column whose values Arrow has no one type for is kept as JSON and marked so.

    Lone surrogates, which no file can hold as UTF-8, become U+FFFD.
    """
    fields, arrays = [], []
    for name, column in columns.items():
        array, field = _column(name, list(column))
        fields.append(field)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def from_arrow(table: pa.Table) -> dict[str, list[Any]]:
    """The columns of a table as lists of Python values; the inverse of `to_arrow`."""
    columns = {}
    for field in table.schema:
        values = table.column(field.name).to_pylist()
        if field.metadata and JSON in field.metadata:
            values = [None if v is None else json.loads(v) for v in values]
        columns[field.name] = values
    return columns


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
    """The columns of a Parquet file."""
    return from_arrow(pq.read_table(path))


def _column(name: str, values: list[Any]) -> tuple[pa.Array, pa.Field]:
    try:
        array = pa.array(values)
        if array.to_pylist() == values or not _holds_mappings(array.type):
            return array, pa.field(name, array.type)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
        pass
    texts = [None if v is None else v if isinstance(v, str) else json.dumps(v, default=_plain) for v in values]
    texts = [None if t is None else t.encode("utf-8", "replace").decode("utf-8") for t in texts]
    if all(v is None or isinstance(v, str) for v in values):
        return pa.array(texts, pa.string()), pa.field(name, pa.string())
    texts = [None if v is None else json.dumps(v, default=_plain) for v in values]
    return pa.array(texts, pa.string()), pa.field(name, pa.string(), metadata={JSON: b"1"})


def _holds_mappings(kind: pa.DataType) -> bool:
    """Arrow gives every struct of a column every key; records with different keys are kept as JSON instead."""
    if pa.types.is_struct(kind):
        return True
    return bool(pa.types.is_list(kind)) and _holds_mappings(kind.value_type)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return repr(value)
