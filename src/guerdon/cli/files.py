"""Files of rollouts, JSON lines (gzipped or not) and Parquet: read whole, or slice by slice."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from guerdon.core import tables
from guerdon.core.errors import GuerdonError, MissingInput
from guerdon.core.rollouts import Rollouts, read_jsonl
from guerdon.engine.stream import SeenGroups

Columns = dict[str, list[Any]]

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")

SLICE_ROWS = 4096
SLICE_BYTES = 16 << 20
FIRST_ROWS = 256  # where the size of rows is not known yet
READ_BYTES = 1 << 20  # of each column that are held compressed while a row group is read
GZIP = 8  # how many times as large a gzipped file of lines is taken to be
EXACT = 2**53  # whole numbers up to it are exact in float64


def kind_of(path: Path) -> Literal["jsonl", "parquet"]:
    """What a file is, by its name.

    Raises:
        GuerdonError: for any other ending.
    """
    if not path.name.endswith(ENDINGS):
        raise GuerdonError(f"{path} must be a file of rollouts, whose name ends in {', '.join(ENDINGS)}")
    return "parquet" if path.suffix == ".parquet" else "jsonl"


class Slice(Protocol):
    """Some rows of a file, one after the other."""

    def __len__(self) -> int:
        """How many."""

    def columns(self, names: Sequence[str]) -> Columns:
        """Some columns; None where a line lacks what others have."""

    def records(self) -> list[dict[str, Any]]:
        """The rows, each with what it has."""

    def table(self, schema: pa.Schema) -> pa.Table:
        """The rows as a table of the file's schema."""

    def cut(self, begin: int, end: int) -> Slice:
        """The rows from `begin` up to, not including, `end`."""


class Source(Protocol):
    """A file that is read slice by slice.

    Args:
        rows: how many it has.
        schema: its columns and, for a file of lines that is to become a table, what types they take.
    """

    path: Path
    rows: int
    schema: pa.Schema

    def slices(self, start: int = 0, names: Sequence[str] | None = None) -> Iterator[Slice]:
        """The rows from `start` on, with these columns or, by default, all of them."""


class TableSlice:
    """Rows of a Parquet file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def columns(self, names: Sequence[str]) -> Columns:
        return tables.from_arrow(self._batch.select(list(names)))

    def records(self) -> list[dict[str, Any]]:
        columns = tables.from_arrow(self._batch)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def table(self, schema: pa.Schema) -> pa.Table:
        return pa.Table.from_batches([self._batch], schema)

    def cut(self, begin: int, end: int) -> TableSlice:
        return TableSlice(self._batch.slice(begin, end - begin))


class LinesSlice:
    """Rows of a file of JSON lines."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def columns(self, names: Sequence[str]) -> Columns:
        return {name: [record.get(name) for record in self._records] for name in names}

    def records(self) -> list[dict[str, Any]]:
        return self._records

    def table(self, schema: pa.Schema) -> pa.Table:
        return tables.to_arrow(self.columns(schema.names), schema)

    def cut(self, begin: int, end: int) -> LinesSlice:
        return LinesSlice(self._records[begin:end])


class ParquetSource:
    """A Parquet file, of which some pages of one row group are in memory at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _readable(path), self._open() as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        self._ends = np.cumsum([0, *(group.num_rows for group in groups)])
        self._slice_rows = _slice_rows(sum(group.total_byte_size for group in groups), self.rows)
        twice = next((name for name in self.schema.names if self.schema.names.count(name) > 1), None)
        if twice is not None:
            raise GuerdonError(f"{path} has two columns {twice!r}: name them apart")

    def slices(self, start: int = 0, names: Sequence[str] | None = None) -> Iterator[TableSlice]:
        first = int(np.searchsorted(self._ends, start, side="right")) - 1  # the row group in which it stands
        groups, skip = list(range(first, len(self._ends) - 1)), start - int(self._ends[first])
        with _readable(self.path), self._open() as file:
            for batch in file.iter_batches(self._slice_rows, row_groups=groups, columns=names, use_threads=False):
                kept, skip = batch.slice(skip), max(0, skip - batch.num_rows)
                if kept.num_rows:
                    yield TableSlice(kept)

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, buffer_size=READ_BYTES, pre_buffer=False)


class LinesSource:
    """A file of JSON lines, which is read once to see that all of it can be read, and what is in it.

    Args:
        typed: find the types of its columns as well, such as fit all lines.
    """

    def __init__(self, path: Path, *, typed: bool) -> None:
        self.path = path
        self.rows, self._slice_rows = 0, FIRST_ROWS
        fields: dict[str, pa.Field] = {}
        inexact: set[str] = set()
        for part in self.slices():
            self.rows += len(part)
            names = dict.fromkeys(name for record in part.records() for name in record)
            for name, column in part.columns(list(names)).items():
                known = fields.setdefault(name, pa.field(name, pa.null()))
                if typed:
                    (field,) = tables.to_arrow({name: column}).schema
                    fields[name] = tables.common_field(known, field)
                    if field.type == pa.int64() and any(abs(n) > EXACT for n in column if n is not None):
                        inexact.add(name)
        for name in inexact:
            if fields[name].type == pa.float64():
                fields[name] = tables.json_field(name)
        self.schema = pa.schema(list(fields.values()))
        self._slice_rows = _slice_rows(path.stat().st_size * (GZIP if path.suffix == ".gz" else 1), self.rows)

    def slices(self, start: int = 0, names: Sequence[str] | None = None) -> Iterator[LinesSlice]:
        with _readable(self.path):
            records = islice(read_jsonl(self.path), start, None)
            while some := list(islice(records, self._slice_rows)):
                yield LinesSlice(some)


def source(path: Path, *, typed: bool = False) -> Source:
    """A file to be read slice by slice.

    Args:
        path: the file.
        typed: its rows are to become a table, whose types must be known before the first of them is written.

    Raises:
        GuerdonError: if the file cannot be read, is not what its name says, or has no rows.
    """
    found: Source = ParquetSource(path) if kind_of(path) == "parquet" else LinesSource(path, typed=typed)
    if not found.rows:
        raise GuerdonError(f"{path} has no rows")
    return found


def inspect(source: Source, *, group: str | None, together: bool) -> None:
    """Find, before any work, the rows that would stop it amid the file.

    Args:
        source: the file.
        group: the column of the groups; None where runs of equal prompts are groups.
        together: groups are compared, so the rows of each must come one after the other.

    Raises:
        MissingInput: if a row has no id, group or finished, and others have.
        GuerdonError: if a group is no name or number, finished not true or false, or a group comes again
            after others; names the rows, counted from 0.
    """
    names = [name for name in ("id", "finished", group) if name is not None and name in source.schema.names]
    seen, row = SeenGroups(), 0
    for part in source.slices(names=names) if names else ():
        for name, column in part.columns(names).items():
            for i, value in enumerate(column, row):
                if value is None:
                    raise MissingInput(
                        f"{source.path}: row {i:,} has no {name!r}, which other rows have: "
                        "give it one, or leave it out of all"
                    )
                if name == "finished" and value not in (0, 1):
                    raise GuerdonError(f"{source.path}: row {i:,}: finished is true or false, got {value!r}")
            if name == group:
                numbers = _numbered(column, row, source.path)
                if together:
                    with _located(source.path):
                        seen.note(numbers)
        row += len(part)


def rollouts(
    source: Source, names: Sequence[str], *, group: str | None, start: int = 0
) -> Iterator[tuple[Slice, Rollouts]]:
    """The rows from `start` on, as they are in the file and as rollouts, whose groups are those of the whole file.

    Args:
        source: the file.
        names: the columns that the rollouts are to have besides those of their own.
        group: as in `inspect`.
        start: the number of the first row.
    """
    own = [name for name in source.schema.names if name in ("prompt", "completion", "id", "finished", group)]
    row, began, last = start, start, None
    for part in source.slices(start):
        columns = part.columns(list(dict.fromkeys((*own, *names))))
        if group is not None:
            numbers = _numbered(columns[group], row, source.path)
        else:
            numbers = np.empty(len(part), np.int64)
            for i, prompt in enumerate(columns["prompt"]):
                if row + i == start or prompt != last:
                    began, last = row + i, prompt
                numbers[i] = began
        with _located(f"{source.path}, rows {row:,} to {row + len(part) - 1:,}"):
            made = Rollouts.from_columns({**columns, "group": numbers.tolist()})
        yield part, made
        row += len(part)


def digest(path: Path) -> str:
    """A hash of a file's content."""
    with _readable(path), open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read(path: Path) -> Columns:
    """The columns of a file; what a line does not have is None, as in Parquet.

    Raises:
        GuerdonError: if the file cannot be read, is not what its name says, or has no rows.
    """
    found = source(path)
    columns: Columns = {name: [] for name in found.schema.names}
    for part in found.slices():
        for name, column in part.columns(found.schema.names).items():
            columns[name] += column
    return columns


def rollouts_of(columns: Columns, *, group: str | None, where: Path) -> Rollouts:
    """The rollouts in columns, those with equal values in the column `group` being compared with one another.

    Raises:
        MissingInput: if there is no prompt, completion or group column.
        GuerdonError: if the groups are no names or numbers.
    """
    require(columns, group=group, where=where)
    with _located(where):
        return Rollouts.from_columns(columns | ({"group": columns[group]} if group else {}))


def require(names: Collection[str], *, group: str | None, where: Path) -> None:
    """Check that a file with these columns holds rollouts.

    Raises:
        MissingInput: if there is no prompt, completion or group column.
    """
    for name, why in {"prompt": "", "completion": "", **({group: ": --group names it"} if group else {})}.items():
        if name not in names:
            raise MissingInput(f"{where} has no column {name!r}{why}; it has: {', '.join(names)}")


def _numbered(labels: Sequence[Any], row: int, where: Path) -> Int[np.ndarray[Any, Any], "n"]:
    """Labels of groups as numbers that are the same wherever they stand; equal ones are one group.

    Whole numbers stand for themselves, others for 8 bytes of a hash: that two of a million are taken for
    one has a probability of 3·10⁻⁸.
    """
    known: dict[Any, int] = {}
    numbers = np.empty(len(labels), np.int64)
    for i, label in enumerate(labels):
        try:
            number = known.get(label)
        except TypeError:
            raise GuerdonError(f"{where}: row {row + i:,}: a group is a number or a text, got {label!r}") from None
        if number is None:
            number = known[label] = _number(label)
        numbers[i] = number
    return numbers


def _number(label: Any) -> int:
    if isinstance(label, (int, float)) and abs(label) <= EXACT and label == int(label):
        return int(label)
    text = repr(label).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _slice_rows(size: int, rows: int) -> int:
    """How many of so many rows, of so many bytes in all, are read at a time."""
    return max(1, min(SLICE_ROWS, SLICE_BYTES * rows // max(1, size)))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise GuerdonError(f"{path} is not a whole Parquet file: {error}") from error
    except (OSError, pa.ArrowException) as error:
        raise GuerdonError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _located(where: Path | str) -> Iterator[None]:
    try:
        yield
    except GuerdonError as error:
        raise type(error)(f"{where}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise GuerdonError(f"{where}: {error}") from error
