"""Where scored rows are kept until they are all there: `OUT.parts/`, which then becomes OUT."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from guerdon.cli.files import ENDINGS, Columns, Slice, kind_of
from guerdon.core import tables
from guerdon.core.errors import CannotWrite, GuerdonError
from guerdon.core.rollouts import read_jsonl

PART_ROWS = 1 << 16
PART_BYTES = 32 << 20
PART_SECONDS = 30.0  # of work that may have to be done again, if it is killed

MANIFEST, LOCK, TEMPORARY = "manifest.json", "lock", ".tmp-"
PART = re.compile(r"part-(\d+)-(\d+)\.")


class Format(Protocol):
    """How rows are written."""

    def rows(self, slices: Sequence[Slice], scores: Columns) -> Any:
        """Rows of the input and their scores, as they are to be written."""

    def size(self, rows: Any) -> int:
        """How many bytes they take in memory."""

    def write(self, path: Path, pieces: Sequence[Any]) -> None:
        """Write rows to a file."""

    def read(self, path: Path, names: Sequence[str]) -> Columns:
        """Some of the columns that were added."""

    def merge(self, path: Path, parts: Sequence[Path]) -> None:
        """Write the rows of several files to one, with few of them in memory."""


class TableFormat:
    """Parquet; all parts have one schema, and what comes from a Parquet file keeps its types.

    Args:
        schema: the columns of the input.
        scores: those that are added.
        prefix: stands before their names.
    """

    def __init__(self, schema: pa.Schema, scores: pa.Schema, prefix: str) -> None:
        self._input, self._scores, self._prefix = schema, scores, prefix
        named = [field.with_name(prefix + field.name) for field in scores]
        self._schema = pa.schema([*schema, *named], metadata=schema.metadata)

    def rows(self, slices: Sequence[Slice], scores: Columns) -> pa.Table:
        given = pa.concat_tables([part.table(self._input) for part in slices])
        added = tables.to_arrow(scores, self._scores)
        return pa.Table.from_arrays([*given.columns, *added.columns], schema=self._schema)

    def size(self, rows: pa.Table) -> int:
        return int(rows.nbytes)

    def write(self, path: Path, pieces: Sequence[pa.Table]) -> None:
        pq.write_table(pa.concat_tables(pieces), path, compression="zstd")

    def read(self, path: Path, names: Sequence[str]) -> Columns:
        found = tables.from_arrow(_table(path, [self._prefix + name for name in names]))
        return {name: found[self._prefix + name] for name in names}

    def merge(self, path: Path, parts: Sequence[Path]) -> None:
        with pq.ParquetWriter(path, self._schema, compression="zstd") as writer:
            held: list[pa.Table] = []
            for last, part in zip([*[False] * (len(parts) - 1), True], parts, strict=True):
                held.append(_table(part).cast(self._schema))
                large = sum(table.num_rows for table in held) >= PART_ROWS or sum(map(self.size, held)) >= PART_BYTES
                if large or last:
                    writer.write_table(pa.concat_tables(held))
                    held = []


class LinesFormat:
    """JSON lines; what comes from a file of lines keeps what it has, and in the same order.

    Args:
        prefix: stands before the names of the columns that are added.
        gzipped: whether they are.
    """

    def __init__(self, prefix: str, *, gzipped: bool) -> None:
        self._prefix, self._gzipped = prefix, gzipped

    def rows(self, slices: Sequence[Slice], scores: Columns) -> bytes:
        records = (record for part in slices for record in part.records())
        names = [self._prefix + name for name in scores]
        added = (dict(zip(names, row, strict=True)) for row in zip(*scores.values(), strict=True))
        return b"".join(_line({**record, **new}) for record, new in zip(records, added, strict=True))

    def size(self, rows: bytes) -> int:
        return len(rows)

    def write(self, path: Path, pieces: Sequence[bytes]) -> None:
        with open(path, "wb") as file, self._packed(file) as packed:
            packed.writelines(pieces)

    def read(self, path: Path, names: Sequence[str]) -> Columns:
        records = list(read_jsonl(path))
        return {name: [record[self._prefix + name] for record in records] for name in names}

    def merge(self, path: Path, parts: Sequence[Path]) -> None:
        with open(path, "wb") as whole:
            for part in parts:  # gzipped files one after the other are one gzipped file
                with open(part, "rb") as file:
                    shutil.copyfileobj(file, whole)

    def _packed(self, file: IO[bytes]) -> contextlib.AbstractContextManager[IO[bytes]]:
        if not self._gzipped:
            return contextlib.nullcontext(file)
        return cast(IO[bytes], gzip.GzipFile("", "wb", 6, file, mtime=0))


def format_of(out: Path, schema: pa.Schema, scores: pa.Schema, prefix: str) -> Format:
    """How the rows of a file are written, by its name; as in `TableFormat`."""
    if kind_of(out) == "parquet":
        return TableFormat(schema, scores, prefix)
    return LinesFormat(prefix, gzipped=out.suffix == ".gz")


class Output:
    """`OUT.parts/`: rows that are finished, part by part, until they are all there and become OUT.

    Each part is written whole or not at all, so that whenever it ends, even by a kill or a power cut,
    the same command goes on after the last part. Only one process can have it open.

        OUT.parts/
          manifest.json                                 what is being scored, and with what
          part-000000000000-000000016384.parquet, …     rows from, up to
          merged.parquet                                all of them, about to become OUT
          lock

    Args:
        out: the file that is to be.
        form: how its rows are written.
        run: what the rows depend on, as plain data; parts of another run are not gone on with.
        force: start again where there are parts of another run.

    Raises:
        GuerdonError: if another process has it open, or it holds parts of another run; says what differs.
        CannotWrite: if the disk is full or read-only.
    """

    def __init__(self, out: Path, form: Format, run: Mapping[str, Any], *, force: bool = False) -> None:
        self.out, self.folder = out, folder_of(out)
        self._form = form
        self._ending = max((e for e in ENDINGS if out.name.endswith(e)), key=len)
        self._read: deque[Slice] = deque()  # rows of the input whose scores have not come yet
        self._pieces: list[
            tuple[int, Any]
        ] = []  # rows that are not in a part yet, and the number of the row after them
        self._begun = time.monotonic()
        with self._disk():
            self._lock = _locked(self.folder)
            try:
                self._resume(run, force=force)
            except BaseException:
                self._lock.close()
                raise

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *error: object) -> None:
        """Let others have it; without a finished part it is not worth keeping."""
        with self._lock:
            if not self._parts and not self._removed:
                self._remove()

    @property
    def done(self) -> int:
        """How many rows are in finished parts, and will not be scored again."""
        return self._parts[-1][1] if self._parts else 0

    def scores(self, names: Sequence[str]) -> Iterator[Columns]:
        """These columns of the finished parts, one part at a time."""
        for first, last in self._parts:
            yield self._form.read(self._path(first, last), names)

    def expect(self, rows: Slice) -> None:
        """Take the next rows of the input; their scores are to come."""
        self._read.append(rows)

    def add(self, scores: Columns) -> None:
        """Take the scores of the next rows that were expected.

        Raises:
            CannotWrite: if the disk is full or read-only.
        """
        wanted = len(next(iter(scores.values())))
        end = (self._pieces[-1][0] if self._pieces else self.done) + wanted
        slices = []
        while wanted:
            rows = self._read.popleft()
            if len(rows) > wanted:
                self._read.appendleft(rows.cut(wanted, len(rows)))
                rows = rows.cut(0, wanted)
            slices.append(rows)
            wanted -= len(rows)
        self._pieces.append((end, self._form.rows(slices, scores)))
        large = end - self.done >= PART_ROWS or sum(self._form.size(rows) for _, rows in self._pieces) >= PART_BYTES
        if large or time.monotonic() - self._begun >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Finish a part of what there is; where an interruption cut that short, it can be done again.

        Raises:
            CannotWrite: as in `add`.
        """
        pieces = [(end, rows) for end, rows in self._pieces if end > self.done]
        if pieces:
            ends = self.done, pieces[-1][0]
            with self._disk():
                self._write(self._path(*ends), lambda path: self._form.write(path, [rows for _, rows in pieces]))
            self._parts.append(ends)
        self._pieces = []
        self._begun = time.monotonic()

    def finish(self) -> None:
        """Make OUT of the parts, and remove them.

        Whenever this ends, either it can be done again or OUT is whole, and the manifest says which.

        Raises:
            CannotWrite: as in `add`.
        """
        self.flush()
        paths = [self._path(*ends) for ends in self._parts]
        with self._disk():
            if not self.merged:
                self._write(self._merged, lambda path: self._form.merge(path, paths))
                self._save({**self._manifest, "merged": True})
            if self._merged.exists():
                os.replace(self._merged, self.out)
                _sync(self.out.parent)
            self._remove()

    @property
    def merged(self) -> bool:
        """Whether all rows are finished and in one file, which may be OUT already."""
        return bool(self._manifest["merged"]) and (self._merged.exists() or self.out.exists())

    def _resume(self, run: Mapping[str, Any], *, force: bool) -> None:
        path = self.folder / MANIFEST
        self._parts, self._removed = [], False
        found = {file.name for file in self.folder.iterdir()}
        if not path.exists():
            if any(name != LOCK and not name.startswith(TEMPORARY) for name in found):
                raise GuerdonError(f"{self.folder} is no beginning of a run that could be gone on with: move it away")
            self._save({"run": run, "merged": False})
            return
        self._manifest = json.loads(path.read_text(encoding="utf-8"))
        differs = _differences(self._manifest["run"], json.loads(json.dumps(run)))
        if differs and not force:
            raise GuerdonError(
                f"{self.folder} holds the beginning of another run (different: {', '.join(differs[:5])}): "
                "--force starts again, or write to another --out"
            )
        if differs:
            self._clear()
            self._save({"run": run, "merged": False})
            return
        for first, last in self._written():
            if first == self.done:
                self._parts.append((first, last))
            else:
                self._path(first, last).unlink()

    def _written(self) -> list[tuple[int, int]]:
        """The parts that there are, as the numbers of their first row and of the one after their last."""
        names = sorted(path.name for path in self.folder.iterdir())
        return [(int(found[1]), int(found[2])) for name in names if (found := PART.match(name))]

    def _path(self, first: int, last: int) -> Path:
        return self.folder / f"part-{first:012d}-{last:012d}{self._ending}"

    @property
    def _merged(self) -> Path:
        return self.folder / f"merged{self._ending}"

    def _save(self, manifest: dict[str, Any]) -> None:
        text = json.dumps(manifest, indent=2) + "\n"
        self._write(self.folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
        self._manifest = manifest

    def _write(self, path: Path, write: Callable[[Path], Any]) -> None:
        """Write a file whole or not at all, so that it outlives a power cut."""
        temporary = self.folder / f"{TEMPORARY}{path.name}"
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(self.folder)

    def _clear(self) -> None:
        """Remove what is written, the manifest last: while it is there, it says how far things are."""
        written = [self._path(*ends) for ends in self._written()]
        for path in [*written, *self.folder.glob(f"{TEMPORARY}*"), self._merged, self.folder / MANIFEST]:
            path.unlink(missing_ok=True)
        self._parts = []

    def _remove(self) -> None:
        self._clear()
        (self.folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: somebody else has put something there
            self.folder.rmdir()
        self._removed = True

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(self.out.parent).free >> 20
            raise CannotWrite(
                f"{self.folder} cannot be written: {error.strerror or error} ({free:,} MiB free). What is finished "
                "in it is kept; make room and run the same command again to go on"
            ) from error


def folder_of(out: Path) -> Path:
    """Where the parts of a file are kept."""
    return out.with_name(f"{out.name}.parts")


def is_merged(out: Path) -> bool:
    """Whether a file was put together and its parts are still there: the end of that was cut short."""
    try:
        return bool(json.loads((folder_of(out) / MANIFEST).read_text(encoding="utf-8"))["merged"])
    except FileNotFoundError:
        return False


def _table(path: Path, names: Sequence[str] | None = None) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(columns=names, use_threads=False)


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return f"{json.dumps(record, ensure_ascii=False, default=str)}\n".encode()
    except UnicodeEncodeError:  # a lone surrogate; escaped, JSON can hold it
        return f"{json.dumps(record, default=str)}\n".encode()


def _locked(folder: Path) -> IO[str]:
    """The lock of a folder, which is made for it; it is free again when the file is closed or the process ends.

    Raises:
        GuerdonError: if another process has it.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = open(folder / LOCK, "w")  # noqa: SIM115  # held by who asks
        except FileNotFoundError:  # whoever had it has just removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(lock.name) and os.path.samestat(os.stat(lock.name), os.fstat(lock.fileno())):
                return lock
        except BlockingIOError:
            lock.close()
            raise GuerdonError(
                f"{folder} is in use: another guerdon score writes to it. Wait for it, or write to another --out"
            ) from None
        lock.close()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Where two values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {f"{place}.{key}".lstrip("."): (old.get(key), new.get(key)) for key in {**old, **new}}
        return [d for name, (a, b) in pairs.items() for d in _differences(a, b, name)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i in range(len(old)) for d in _differences(old[i], new[i], f"{place}[{i}]")]
    return [] if old == new else [place]
