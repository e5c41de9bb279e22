"""Files of rollouts: JSON lines, gzipped or not, and Parquet."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from guerdon.core import tables
from guerdon.core.errors import GuerdonError, MissingInput
from guerdon.core.rollouts import Rollouts, read_jsonl

Columns = dict[str, list[Any]]

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def kind_of(path: Path) -> Literal["jsonl", "parquet"]:
    """What a file is, by its name.

    Raises:
        GuerdonError: for any other ending.
    """
    if not path.name.endswith(ENDINGS):
        raise GuerdonError(f"{path} must be a file of rollouts, whose name ends in {', '.join(ENDINGS)}")
    return "parquet" if path.suffix == ".parquet" else "jsonl"


def read(path: Path) -> Columns:
    """The columns of a file; what a line does not have is None, as in Parquet.

    Raises:
        GuerdonError: if the file cannot be read, is not what its name says, or has no rows.
    """
    try:
        if kind_of(path) == "parquet":
            columns = tables.read_parquet(path)
        else:
            records = list(read_jsonl(path))
            names = dict.fromkeys(name for record in records for name in record)
            columns = {name: [record.get(name) for record in records] for name in names}
    except (OSError, pa.ArrowException) as error:
        raise GuerdonError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not columns or not next(iter(columns.values())):
        raise GuerdonError(f"{path} has no rows")
    return columns


def rollouts_of(columns: Columns, *, group: str | None, where: Path) -> Rollouts:
    """The rollouts in columns, those with equal values in the column `group` being compared with one another.

    Raises:
        MissingInput: if there is no prompt, completion or group column.
        GuerdonError: if the groups are no names or numbers.
    """
    for name, why in {"prompt": "", "completion": "", **({group: ": --group names it"} if group else {})}.items():
        if name not in columns:
            raise MissingInput(f"{where} has no column {name!r}{why}; it has: {', '.join(columns)}")
    try:
        return Rollouts.from_columns(columns | ({"group": columns[group]} if group else {}))
    except (TypeError, ValueError, OverflowError) as error:
        raise GuerdonError(f"{where}: {error}") from error


def write(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns to a file, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    if kind_of(path) == "parquet":
        tables.write_parquet(path, columns)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with (
            gzip.open(temporary, "wt", encoding="utf-8")
            if path.suffix == ".gz"
            else open(temporary, "w", encoding="utf-8") as lines
        ):
            for row in zip(*columns.values(), strict=True):
                lines.write(_line(dict(zip(columns, row, strict=True))))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _line(record: dict[str, Any]) -> str:
    line = json.dumps(record, ensure_ascii=False, default=str)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate; escaped, JSON can hold it
        line = json.dumps(record, default=str)
    return line + "\n"
