"""Prompts and what their rewards read: generated tasks, or a file."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from guerdon.core import tables
from guerdon.core.context import Context
from guerdon.core.errors import MissingExtra, MissingInput, RecipeError, nearest
from guerdon.core.rollouts import read_jsonl
from guerdon.core.scores import Scores
from guerdon.data.pool import Pool, Unsolved
from guerdon.data.stages import Staged, check_stages
from guerdon.train.language.tokenizer import Prompt

Row = dict[str, Any]  # 'prompt', and a column for each thing the reward may read

ROLLOUT = ("completion", "group", "finished")  # columns a rollout has of its own
FIELD = re.compile(r"([^\[\]{}.!:]+)((?:\[[^\[\]{}]+\])*)")

# Candidates that are tried for each held-out prompt before a source counts as exhausted.
PATIENCE = 100


@dataclass(frozen=True)
class Stages:
    """Prompts of one kind after the other, as training goes on: see `data.Staged`.

    Args:
        by: what says of which kind a prompt is: a column, or what lies inside one, `metadata[difficulty]`, as text.
        order: the kinds, from the first stage to the last.
        begins: the progress of training at which each stage but the first begins; None: each lasts in proportion to
            its number of prompts.

    Raises:
        RecipeError: if a kind stands in the order twice, or the stages do not begin one after another.
    """

    by: str
    order: tuple[Any, ...]
    begins: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        try:
            check_stages(self.order, self.begins)
        except ValueError as error:
            raise RecipeError(f"prompts.stages: {error}") from None


@dataclass(frozen=True)
class PromptsConfig:
    """Where prompts come from: exactly one of `dataset` and `file`.

    Args:
        dataset: the name of a reasoning-gym dataset; needs `guerdon[tasks]`. Its rows have `question`, `answer` and
            `metadata`.
        parameters: of the dataset, by the names reasoning-gym gives them.
        size: how many tasks of the dataset make an epoch.
        file: JSONL, JSONL.GZ or Parquet. Every column but the prompt's is there for the reward to read, save
            `completion`, `group` and `finished`, which are a rollout's own.
        prompt_column: the column, or the field of the dataset, that holds the prompt: text or chat messages.
        template: the prompt as a text with fields, `"{metadata[expression]}="`, in place of `prompt_column`. A field
            is a column's name, with keys in brackets for what lies inside it; `{{` is a brace.
        chat: give the prompt as a user's message rather than as plain text.
        system: a system message before it; implies `chat`.
        held_out: the share of all prompts kept for evaluation.
        held_out_file: evaluate on the prompts of this file instead of a share; training leaves those out.
        stages: prompts of one kind after the other; None: all of them, mixed.
        unsolved: only prompts that are not solved yet, until all are; None: all of them, again and again.
        seed: of the dataset, the split and the order; None: the run's.

    Raises:
        RecipeError: if the choice is not one, a number is out of range, or the template is not of the form above.
    """

    dataset: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    size: int = 100_000
    file: str | None = None
    prompt_column: str | None = None
    template: str | None = None
    chat: bool = False
    system: str | None = None
    held_out: float = 0.1
    held_out_file: str | None = None
    stages: Stages | None = None
    unsolved: Unsolved | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if (self.dataset is None) == (self.file is None):
            given = "neither" if self.file is None else "both"
            raise RecipeError(f"prompts come from a dataset or from a file: {given} given")
        if self.parameters and self.dataset is None:
            raise RecipeError("parameters are a dataset's; a file has none")
        if self.template is not None and self.prompt_column is not None:
            raise RecipeError("a prompt is either a column (prompt_column) or written by a template: both given")
        if self.stages is not None and self.unsolved is not None:
            raise RecipeError("the next prompts are those of a stage (stages) or not solved yet (unsolved): both given")
        if not 0 < self.held_out < 1:
            raise RecipeError(f"held_out is a share between 0 and 1, got {self.held_out}")
        if self.size < 1 or (self.seed or 0) < 0:
            raise RecipeError(f"size must be at least 1 and seed at least 0, got {self.size} and {self.seed}")
        if self.template is not None:
            _fields(self.template)


class Prompts:
    """Training prompts in a fixed order, and others that training never sees.

    A prompt is held out if a hash of it, with the seed, falls below the share to hold out. Equal prompts thus fall on
    the same side wherever they come from, so no evaluation prompt is ever trained on: not as a duplicate, not in
    another epoch, not in another process.

    Args:
        config: where they come from.
        seed: of the run; counts where the config has none.

    Raises:
        RecipeError: if the dataset, a parameter, the file or a column does not exist.
        MissingExtra: if reasoning-gym is needed and not installed.
    """

    def __init__(self, config: PromptsConfig, *, seed: int = 0) -> None:
        self.config = config
        self.seed = seed if config.seed is None else config.seed
        self._drawn = 0
        self._curriculum: Staged | Pool | None = None
        self._orders: dict[tuple[int, int], Int[np.ndarray[Any, Any], size]] = {}
        self._evaluation: list[Row] | None = None
        self._excluded: frozenset[str] = frozenset()
        if config.held_out_file is not None:
            self._evaluation = [self._row(raw) for raw in rows_of(config.held_out_file)]
            self._excluded = frozenset(_identity(row["prompt"]) for row in self._evaluation)
        if config.dataset is not None:
            self._training: Sequence[Mapping[str, Any]] = _tasks(config, self.seed, config.size)
            self._row(self._training[0])  # a wrong column or template is an error now rather than at the first step
            self._curriculum = self._chosen()
            return
        rows = rows_of(str(config.file))
        held_out = [self.is_held_out(self._row(raw)["prompt"]) for raw in rows]
        self._training = [raw for raw, held in zip(rows, held_out, strict=True) if not held]
        if self._evaluation is None:
            self._evaluation = [self._row(raw) for raw, held in zip(rows, held_out, strict=True) if held]
        if not self._training:
            raise RecipeError(f"{config.file}: all {len(rows)} prompts are held out, none is left to train on")
        self._curriculum = self._chosen()

    def __len__(self) -> int:
        """How many rows make an epoch."""
        return len(self._training)

    def is_held_out(self, prompt: Prompt) -> bool:
        """Whether a prompt is kept from training."""
        identity = _identity(prompt)
        if self.config.held_out_file is not None:
            return identity in self._excluded
        digest = hashlib.sha1(f"{self.seed} {identity}".encode("utf-8", "surrogatepass"), usedforsecurity=False)
        return int.from_bytes(digest.digest()[:8], "big") < self.config.held_out * 2**64

    def draw(self, step: int, n: int, *, stream: int = 0) -> list[Row]:
        """The `n` rows of one training step: the same for the same arguments, whatever was drawn before.

        Rows are drawn without replacement until the epoch is over, then in a new order. A dataset's task whose prompt
        is held out gives its place to one from half an epoch later.

        Args:
            step: the training step; its rows are numbers step · n and following of the order.
            n: rows per step; the same for every step of a run.
            stream: another order of the same rows: for supervised learning beforehand.

        Raises:
            RecipeError: if a dataset repeats itself so much that nearly all its prompts are held out.
        """
        return self._between(step * n, (step + 1) * n, stream)

    def following(self, n: int, context: Context) -> list[Row]:
        """The next `n` rows of training, of its stage or not solved yet; moves on, so that the next are others.

        Raises:
            RecipeError: if a dataset repeats itself so much that nearly all its prompts are held out.
        """
        if self._curriculum is not None:
            return [dict(row) for row in self._curriculum.draw(n, context)]
        self._drawn += n
        return self._between(self._drawn - n, self._drawn, 0)

    def observe(self, scores: Scores, context: Context) -> dict[str, int]:
        """What came of the rows that `following` gave for a step, told once; returns what there is to say of the rest.

        Args:
            scores: of one group of the context's rollouts for each row, in their order.
        """
        if self._curriculum is not None:
            self._curriculum.observe(scores, context)
        return {"unsolved": int(self._curriculum.left.sum())} if isinstance(self._curriculum, Pool) else {}

    def state_dict(self) -> dict[str, Any]:
        """How far `following` has come, as plain data."""
        return {"drawn": self._drawn} if self._curriculum is None else self._curriculum.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if self._curriculum is not None:
            self._curriculum.load_state_dict(state)
        else:
            self._drawn = int(state["drawn"])

    def _between(self, first: int, last: int, stream: int) -> list[Row]:
        rows = []
        for position in range(first, last):
            epoch, place = divmod(position, len(self))
            rows.append(self._trainable(self._order(stream, epoch), place))
        return rows

    def _chosen(self) -> Staged | Pool | None:
        stages, unsolved = self.config.stages, self.config.unsolved
        if stages is None and unsolved is None:
            return None
        rows = [row for row in map(self._row, self._training) if not self.is_held_out(row["prompt"])]
        if not rows:
            raise RecipeError(f"{self.config.dataset}: all of its {len(self)} tasks are held-out prompts")
        if stages is None:
            return Pool(rows, until=unsolved or Unsolved(), seed=self.seed)

        def kind(row: Mapping[str, Any]) -> Any:
            return row[stages.by] if stages.by in row else fill(f"{{{stages.by}}}", row)

        try:
            return Staged(rows, by=kind, order=stages.order, begins=stages.begins, seed=self.seed)
        except (ValueError, MissingInput) as error:
            raise RecipeError(f"prompts.stages: {error}") from error

    def check_external(self, column: str) -> None:
        """Check that rows have completions in a column: all of a file, or the first of a dataset.

        Raises:
            RecipeError: if there is no such column, or it holds something else.
        """
        for row in self.known():
            completions(row, column)

    def known(self) -> Iterator[Row]:
        """Rows of training that can be looked at before any work: all of a file, or the first of a dataset."""
        return map(self._row, self._training if self.config.dataset is None else [self._training[0]])

    def held_out(self, n: int) -> list[Row]:
        """The first `n` evaluation rows: distinct prompts, none of which `draw` ever gives.

        Raises:
            RecipeError: if there are not so many.
        """
        distinct: dict[str, Row] = {}
        for row in self._candidates(n):
            if len(distinct) == n:
                break
            distinct.setdefault(_identity(row["prompt"]), row)
        if len(distinct) < n:
            place = self.config.held_out_file or self.config.file or self.config.dataset
            raise RecipeError(
                f"{place} has {len(distinct)} distinct held-out prompts, {n} are to be evaluated: evaluate fewer or "
                f"hold out more than {self.config.held_out:g}"
            )
        return list(distinct.values())

    def _candidates(self, n: int) -> Iterator[Row]:
        if self._evaluation is not None:
            order = np.random.default_rng([self.seed, 1]).permutation(len(self._evaluation))
            yield from (self._evaluation[i] for i in order)
            return
        size = int(PATIENCE * n / self.config.held_out)
        tasks = _tasks(self.config, self.seed + (1 << 30), size)
        rows = (self._row(tasks[i]) for i in range(size))
        yield from (row for row in rows if self.is_held_out(row["prompt"]))

    def _order(self, stream: int, epoch: int) -> Int[np.ndarray[Any, Any], size]:
        if (stream, epoch) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key == (stream, epoch - 1)}
            generator = np.random.default_rng([self.seed, 0, stream, epoch])
            self._orders[stream, epoch] = generator.permutation(len(self))
        return self._orders[stream, epoch]

    def _trainable(self, order: Int[np.ndarray[Any, Any], size], place: int) -> Row:
        row = self._row(self._training[int(order[place])])
        if self.config.dataset is None:  # a file's held-out rows are known and left out from the start
            return row
        size = len(order)
        for other in range(place + size // 2, place + size // 2 + PATIENCE):
            if not self.is_held_out(row["prompt"]):
                return row
            row = self._row(self._training[int(order[other % size])])
        raise RecipeError(f"{self.config.dataset}: nearly all of its {size} tasks are held-out prompts")

    def _row(self, raw: Mapping[str, Any]) -> Row:
        config = self.config
        column = config.prompt_column or ("question" if config.dataset is not None else "prompt")
        if config.template is not None:
            prompt: Any = fill(config.template, raw)
            column = "prompt"
        elif column in raw:
            prompt = raw[column]
        else:
            raise RecipeError(f"prompts have no column {column!r}: {nearest(column, raw)}")
        columns = {name: value for name, value in raw.items() if name != column and name not in ROLLOUT}
        return {"prompt": _addressed(prompt, config), **columns}


def completions(row: Mapping[str, Any], column: str, *, setting: str = "method.sampling.external") -> list[str]:
    """The completions that a row brings with it, which another has written: one, several, or none.

    Args:
        row: of the prompts.
        column: where they stand.
        setting: that names the column, for the message.

    Raises:
        RecipeError: if there is no such column, or it holds something else.

    >>> completions({"prompt": "1+1=", "programs": ["2", "1+1"]}, "programs")
    ['2', '1+1']
    """
    if column not in row:
        raise RecipeError(f"{setting}: prompts have no {column!r}: {nearest(column, row)}")
    value = row[column]
    said = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in said):
        raise RecipeError(f"{setting}: {column!r} holds texts or lists of texts, got {value!r:.80}")
    return [text for text in said if text]


def fill(template: str, row: Mapping[str, Any]) -> str:
    """A template with the values of a row in its fields.

    A field is a column's name and keys in brackets, nothing else. Recipes come from elsewhere, and Python's own
    formatting would let them reach into objects (`{x.__class__}`) or fill the memory (`{x:>9999999999}`).

    Raises:
        RecipeError: if a field is of another form, or the row has no such value.

    >>> fill("{metadata[expression]}=", {"metadata": {"expression": "1 + 2"}})
    '1 + 2='
    """
    parts = []
    for literal, name, keys in _fields(template):
        parts.append(literal)
        if name is None:
            continue
        value: Any = row
        for key in (name, *keys):
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                has = nearest(key, map(str, value)) if isinstance(value, Mapping) else f"{value!r} holds no keys"
                raise RecipeError(f"template {template!r}: there is no {key!r}: {has}")
        if value is None:
            raise RecipeError(f"template {template!r}: {name!r} is empty (null) in {dict(row)!r}")
        parts.append(str(value))
    return "".join(parts)


def _fields(template: str) -> list[tuple[str, str | None, list[str]]]:
    """The pieces of a template: a text, then a field (None after the last text) as its column and keys."""
    pieces = []
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            form = None if name is None else FIELD.fullmatch(name)
            if name is not None and (form is None or spec or conversion):
                raise ValueError(f"{name!r} is not a column's name with [keys]")
            keys = [] if form is None else re.findall(r"\[(.*?)\]", form[2])
            pieces.append((literal, None if form is None else form[1], keys))
    except ValueError as error:
        raise RecipeError(f"template {template!r}: {error}") from None
    return pieces


def _addressed(prompt: Any, config: PromptsConfig) -> Prompt:
    """The prompt as text, or as messages with the system's before them."""
    if isinstance(prompt, str):
        if not config.chat and config.system is None:
            return prompt
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not all(isinstance(m, Mapping) and "role" in m for m in prompt):
        raise RecipeError(f"a prompt is text or a list of messages with roles, got {prompt!r}")
    if config.system is not None and prompt[:1] and prompt[0]["role"] != "system":
        return [{"role": "system", "content": config.system}, *prompt]
    return prompt


def _identity(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)


def _tasks(config: PromptsConfig, seed: int, size: int) -> Sequence[Mapping[str, Any]]:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise MissingExtra(f"prompts.dataset ({config.dataset})", "tasks") from None
    if config.dataset not in DATASETS:
        raise RecipeError(f"reasoning-gym has no dataset {config.dataset!r}: {nearest(str(config.dataset), DATASETS)}")
    try:
        tasks: Sequence[Mapping[str, Any]] = reasoning_gym.create_dataset(
            config.dataset, **{**config.parameters, "seed": seed, "size": size}
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise RecipeError(
            f"prompts.parameters: {config.dataset} does not take {dict(config.parameters)}: {error}"
        ) from None
    return tasks


def rows_of(path: str, what: str = "prompts") -> list[Row]:
    """The rows of a file, each with every column; what a row lacks is None.

    Args:
        path: JSONL, JSONL.GZ or Parquet.
        what: stands in it, for the message.

    Raises:
        RecipeError: if there is no such file, or it is of another kind or has no rows.
    """
    if not Path(path).is_file():
        raise RecipeError(f"there is no file {path!r} to take {what} from")
    if path.endswith(".parquet"):
        columns = tables.read_parquet(path)
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    elif path.endswith((".jsonl", ".jsonl.gz")):
        rows = list(read_jsonl(path))
    else:
        raise RecipeError(f"{path}: {what} are read from .jsonl, .jsonl.gz and .parquet")
    if not rows:
        raise RecipeError(f"{path} has no rows")
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]
