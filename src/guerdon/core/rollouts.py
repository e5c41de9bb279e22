"""Rollouts: a batch of prompts and what the policy made of them, column by column."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.core.arrays import Array, concatenate, is_tensor, pad, row_numbers, to_numpy
from guerdon.core.errors import GuerdonError, MissingInput
from guerdon.core.parsing import text_of
from guerdon.core.trajectory import Trajectory

_ABSENT: Any = None  # a field that __post_init__ fills in
RESERVED = ("id", "group", "prompt", "completion", "finished")


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of the completions, padded on the right.

    Args:
        ids: Int["n t"].
        written: Bool["n t"], True where the policy chose the token (not padding, not tool output).
        attended: Bool["n t"], True where there is a token (not padding).
        logp: Float["n t"], log-probability under the policy that wrote it.
        ref_logp: Float["n t"], under the reference policy.
        entropy: Float["n t"], of the distribution it was drawn from, in nats.
        offsets: Int["n t 2"], begin and end in the completion's text; −1 where there is none.
        origin: Int["n t"], which policy wrote it: 0 the one being trained, others as the sampler says.
        values: Float["n t"], what a critic expected of the rollout before the token was written.
    """

    ids: Int[Array, "n t"]
    written: Bool[Array, "n t"]
    attended: Bool[Array, "n t"]
    logp: Float[Array, "n t"] | None = None
    ref_logp: Float[Array, "n t"] | None = None
    entropy: Float[Array, "n t"] | None = None
    offsets: Int[Array, "n t 2"] | None = None
    origin: Int[Array, "n t"] | None = None
    values: Float[Array, "n t"] | None = None

    def __post_init__(self) -> None:
        for name, value in self._present():
            if tuple(value.shape[:2]) != tuple(self.ids.shape):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, ids have {tuple(self.ids.shape)}")

    def _present(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None]

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    def select(self, index: Any) -> Tokens:
        """The tokens of some rows."""
        return replace(self, **{name: value[index] for name, value in self._present()})

    @classmethod
    def concat(cls, batches: Sequence[Tokens]) -> Tokens:
        """Batches one after the other, padded to the longest; a field that some lack is dropped."""
        width = max(batch.ids.shape[1] for batch in batches)
        names = set.intersection(*({name for name, _ in batch._present()} for batch in batches))
        fill = {"offsets": -1}
        return cls(
            **{
                name: concatenate([pad(getattr(batch, name), width, fill.get(name, 0)) for batch in batches])
                for name in names
            }
        )


@dataclass(frozen=True, eq=False)
class Tree:
    """Rollouts that branch off one another.

    Args:
        parent: Int["n"], the row a rollout branched off from, −1 for a root.
        shared: Int["n"], how many leading tokens it shares with its parent, so that shared steps
            count once.
    """

    parent: Int[Array, "n"]
    shared: Int[Array, "n"]

    def __len__(self) -> int:
        return len(self.parent)

    def select(self, rows: Int[Array, "m"]) -> Tree:
        """The tree over some rows; a rollout whose parent is left out becomes a root."""
        place = np.full(len(self.parent) + 1, -1)
        place[rows] = np.arange(len(rows))
        parent = place[self.parent[rows]]
        return Tree(parent, np.where(parent < 0, 0, self.shared[rows]))

    @classmethod
    def concat(cls, trees: Sequence[Tree]) -> Tree:
        """The trees of batches that are put one after the other."""
        starts = np.cumsum([0, *map(len, trees)])
        parents = [np.where(t.parent < 0, -1, t.parent + at) for t, at in zip(trees, starts, strict=False)]
        return cls(np.concatenate(parents), np.concatenate([tree.shared for tree in trees]))


@dataclass(frozen=True, eq=False)
class Rollouts:
    """A batch of rollouts; immutable, and cheap to slice.

    Args:
        prompts: text, chat messages, or media; one per rollout.
        completions: text, chat messages (tool calls and results included), media, or a `Trajectory`.
        columns: the dataset's columns: answer, tests, boxes, schema, …
        ids: identity of the prompt; state such as "shortest correct so far" is keyed by it.
            Default: a hash of the prompt.
        groups: Int["n"], rollouts that are compared with one another. Default: consecutive rollouts
            with equal prompts are a group.
        finished: Bool["n"], the completion ended by itself and was not cut at the length limit.
            Default: True.
        tokens: the tokens behind the completions, where they are known.
        tree: which rollouts branched off which.

    Raises:
        ValueError: if a column does not have one entry per rollout.

    >>> batch = Rollouts(["1+1=", "1+1=", "2+2="], ["2", "3", "4"], {"answer": ["2", "2", "4"]})
    >>> batch.groups
    array([0, 0, 1])
    >>> batch.select([2]).column("answer")
    ['4']
    """

    prompts: Sequence[Any]
    completions: Sequence[Any] | Trajectory
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ids: Sequence[str] = None  # type: ignore[assignment]  # filled in below
    groups: Int[np.ndarray[Any, Any], "n"] = None  # type: ignore[assignment]
    finished: Bool[np.ndarray[Any, Any], "n"] = None  # type: ignore[assignment]
    tokens: Tokens | None = None
    tree: Tree | None = None

    def __post_init__(self) -> None:
        n = len(self.prompts)
        identity: list[str] = []
        if self.ids is _ABSENT or self.groups is _ABSENT:
            known: dict[str, str] = {}
            for prompt in self.prompts:
                if isinstance(prompt, str):
                    identity.append(known[prompt] if prompt in known else known.setdefault(prompt, _identity(prompt)))
                else:
                    identity.append(_identity(prompt))
        if self.ids is _ABSENT:
            object.__setattr__(self, "ids", identity)
        if self.groups is _ABSENT:
            new = [i > 0 and identity[i] != identity[i - 1] for i in range(n)]
            object.__setattr__(self, "groups", np.cumsum(np.asarray(new, np.int64)))
        else:
            object.__setattr__(self, "groups", _numbered(self.groups))
        finished = np.ones(n, bool) if self.finished is _ABSENT else _flags(self.finished)
        object.__setattr__(self, "finished", finished)
        object.__setattr__(self, "columns", dict(self.columns))
        sized = {
            "completions": self.completions,
            "ids": self.ids,
            "groups": self.groups,
            "finished": finished,
            **self.columns,
        }
        if self.tokens is not None:
            sized["tokens"] = self.tokens.ids
        if self.tree is not None:
            sized["tree"] = self.tree.parent
        for name, column in sized.items():
            if len(column) != n:
                raise ValueError(f"{name!r} has {len(column)} entries for {n} prompts")
        for name in RESERVED:
            if name in self.columns:
                raise ValueError(f"column {name!r} has a field of its own: pass it as {name}s= or finished=")

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        tokens = ", tokens" if self.tokens else ""
        return f"Rollouts({len(self)} in {len(np.unique(self.groups))} groups, columns={list(self.columns)}{tokens})"

    def has(self, name: str) -> bool:
        """Whether `name` is something this batch can give: a field, a column, or 'tokens'."""
        return (
            name in RESERVED or name in self.columns or (name in ("tokens", "tree") and getattr(self, name) is not None)
        )

    def column(self, name: str) -> Sequence[Any]:
        """A field or column by the name a reward function reads it under.

        Raises:
            MissingInput: if the batch does not have it; names what it has.
        """
        fixed: dict[str, Any] = {
            "prompt": self.prompts,
            "completion": self.completions,
            "id": self.ids,
            "group": self.groups,
            "finished": self.finished,
        }
        if name in fixed:
            return cast(Sequence[Any], fixed[name])
        if name not in self.columns:
            has = ", ".join(["prompt", "completion", *self.columns])
            raise MissingInput(f"column {name!r} is missing; the batch has: {has}")
        return self.columns[name]

    def lengths(self, unit: Literal["tokens", "characters", "words"] = "tokens") -> Int[np.ndarray[Any, Any], "n"]:
        """How long each completion is; tokens are those the policy wrote.

        Raises:
            MissingInput: if tokens are asked for and not known.
        """
        if unit == "tokens":
            if self.tokens is None:
                raise MissingInput(
                    "lengths in tokens need 'tokens', which this batch does not have: use unit='characters' or 'words'"
                )
            return to_numpy(self.tokens.written.sum(-1))
        if unit not in ("characters", "words"):
            raise ValueError(f"unit is 'tokens', 'characters' or 'words', got {unit!r}")
        texts = (text_of(cast(Any, self.completions[i])) for i in range(len(self)))
        return np.fromiter(
            (len(text) if unit == "characters" else len(text.split()) for text in texts), np.int64, len(self)
        )

    def select(self, index: Any) -> Rollouts:
        """Some of the rollouts: a slice, row numbers or a Boolean mask."""
        rows = row_numbers(index, len(self))

        def pick(column: Any) -> Any:
            if isinstance(column, Trajectory):
                return column.select(rows)
            return column[rows] if isinstance(column, np.ndarray) else [column[i] for i in rows.tolist()]

        return Rollouts(
            pick(self.prompts),
            pick(self.completions),
            {name: pick(column) for name, column in self.columns.items()},
            pick(self.ids),
            self.groups[rows],
            self.finished[rows],
            None if self.tokens is None else self.tokens.select(rows),
            None if self.tree is None else self.tree.select(rows),
        )

    def with_(self, **changes: Any) -> Rollouts:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @classmethod
    def concat(cls, batches: Sequence[Rollouts], *, keep_groups: bool = False) -> Rollouts:
        """Batches one after the other; columns, tokens and trees that some lack are dropped.

        Args:
            keep_groups: group numbers mean the same in every batch. Otherwise they are numbered
                anew, so that rollouts of two batches are never compared by accident.
        """
        if not batches:
            raise ValueError("concat needs at least one batch")
        if any(isinstance(batch.completions, Trajectory) for batch in batches):
            raise ValueError("trajectories are not concatenated: their padding is the sampler's")
        names = [name for name in batches[0].columns if all(name in batch.columns for batch in batches)]
        groups, start = [], 0
        for batch in batches:
            _, local = np.unique(batch.groups, return_inverse=True)
            groups.append(batch.groups if keep_groups else local + start)
            start += int(local.max(initial=-1)) + 1
        tokens = [batch.tokens for batch in batches if batch.tokens is not None]
        trees = [batch.tree for batch in batches if batch.tree is not None]
        return cls(
            [prompt for batch in batches for prompt in batch.prompts],
            [batch.completions[i] for batch in batches for i in range(len(batch))],
            {name: [entry for batch in batches for entry in batch.columns[name]] for name in names},
            [identity for batch in batches for identity in batch.ids],
            np.concatenate(groups),
            np.concatenate([batch.finished for batch in batches]),
            Tokens.concat(tokens) if len(tokens) == len(batches) else None,
            Tree.concat(trees) if len(trees) == len(batches) else None,
        )

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]], *, where: str = "record") -> Rollouts:
        """A batch from dictionaries with 'prompt', 'completion', and any of 'group', 'id', 'finished' and columns.

        Raises:
            MissingInput: if a record lacks 'prompt' or 'completion', or a column others have.
        """
        rows = list(records)
        names = dict.fromkeys(name for row in rows for name in row)
        for name in ("prompt", "completion"):
            names.setdefault(name)
        for i, row in enumerate(rows):
            for name in names:
                if name not in row:
                    raise MissingInput(f"{where} {i} has no {name!r}; it has: {', '.join(row)}")
        columns = {name: [row[name] for row in rows] for name in names}
        return cls.from_columns(columns)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> Rollouts:
        """A batch from columns named as in `from_records`."""
        rest = {name: column for name, column in columns.items() if name not in RESERVED}
        for name in ("id", "group", "finished"):
            row = next((i for i, entry in enumerate(columns.get(name, ())) if entry is None), None)
            if row is not None:
                raise MissingInput(
                    f"row {row} has no {name!r}, which other rows have: give it one, or leave it out of all"
                )
        ids = columns.get("id")
        return cls(
            columns["prompt"],
            columns["completion"],
            rest,
            _ABSENT if ids is None else [str(i) for i in ids],
            columns.get("group", _ABSENT),
            columns.get("finished", _ABSENT),
        )

    def to_records(self) -> list[dict[str, Any]]:
        """One dictionary per rollout; the inverse of `from_records`."""
        columns = self.to_columns()
        return [{name: column[i] for name, column in columns.items()} for i in range(len(self))]

    def to_columns(self) -> dict[str, Sequence[Any]]:
        """The columns by name; the inverse of `from_columns`. Tokens and trees are not part of it."""
        return {
            "id": list(self.ids),
            "group": self.groups.tolist(),
            "prompt": self.prompts,
            "completion": self.completions,
            "finished": self.finished.tolist(),
            **self.columns,
        }

    @classmethod
    def from_jsonl(cls, path: str | Path) -> Rollouts:
        """A batch from a file of JSON lines, gzipped if its name ends in .gz."""
        return cls.from_records(read_jsonl(path), where=f"{path}: row")

    @classmethod
    def from_parquet(cls, path: str | Path) -> Rollouts:
        """A batch from a Parquet file."""
        from guerdon.core import tables

        columns = tables.read_parquet(path)
        missing = [name for name in ("prompt", "completion") if name not in columns]
        if missing:
            raise MissingInput(f"{path} has no column {missing[0]!r}; it has: {', '.join(columns)}")
        return cls.from_columns(columns)

    def to_parquet(self, path: str | Path) -> None:
        """Write the batch to a Parquet file, whole or not at all."""
        from guerdon.core import tables

        tables.write_parquet(path, self.to_columns())


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, gzipped if its name ends in .gz; an error names the line."""
    path = Path(path)
    number = 0
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _object(line, f"{path}, line {number}")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise GuerdonError(f"{path}, after line {number}: broken gzip ({error})") from None


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise GuerdonError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except UnicodeDecodeError as error:
        raise GuerdonError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise GuerdonError(f"{where}: not readable ({error})") from None
    if not isinstance(record, dict):
        raise GuerdonError(f"{where}: a {type(record).__name__}, expected an object")
    return record


def _identity(prompt: Any) -> str:
    if not isinstance(prompt, str):
        prompt = json.dumps(prompt, sort_keys=True, default=_digest, ensure_ascii=True)
    return hashlib.sha1(prompt.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:16]


def _digest(media: Any) -> str:
    """Media (images, arrays) by their size and bytes; anything else by its text."""
    if is_tensor(media):
        media = to_numpy(media)
    size = getattr(media, "shape", getattr(media, "size", None))
    content = media.tobytes() if hasattr(media, "tobytes") else repr(media).encode("utf-8", "surrogatepass")
    return hashlib.sha1(repr(size).encode() + content, usedforsecurity=False).hexdigest()


def _numbered(values: Any) -> Int[np.ndarray[Any, Any], "n"]:
    """Labels of groups as numbers: whole numbers as they are, others counted in order of appearance."""
    labels = to_numpy(values) if is_tensor(values) else values
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    if all(isinstance(label, (int, np.integer)) for label in labels):
        return np.asarray(labels, np.int64)
    numbers: dict[Any, int] = {}
    for row, label in enumerate(labels):
        try:
            numbers.setdefault(label, len(numbers))
        except TypeError:
            raise ValueError(f"row {row}: a group is a number or a text, got {label!r}") from None
    return np.asarray([numbers[label] for label in labels], np.int64)


def _flags(values: Any) -> Bool[np.ndarray[Any, Any], "n"]:
    """Truth values; a text such as 'false' is not one."""
    flags = to_numpy(values)
    wrong = [i for i, flag in enumerate(flags.tolist()) if flag not in (0, 1)]
    if wrong:
        raise ValueError(f"row {wrong[0]}: finished is true or false, got {flags[wrong[0]]!r}")
    return flags.astype(bool)
