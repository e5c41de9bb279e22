"""The run store: a folder that a run writes, a report reads and a killed run goes on from.

    runs/NAME/
      config.yaml          the recipe, defaults written out
      metrics.jsonl        one line per step
      evaluations.jsonl    one line per evaluation
      rollouts/            step-000010.parquet, …: samples with scores, parts, details and reasons
      pictures/            step-000010.png, …: what a denoising policy makes of the same noise, at each evaluation
      episodes.parquet     what a planner learns from, with what is still to be earned at each step
      checkpoints/         step-000050/, …
      policy/              the trained policy, by save_pretrained
      summary.json         before and after; written last
      report.html

Files are written whole or not at all; lines are appended, and readers ignore a torn last one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from guerdon.core import tables
from guerdon.core.errors import CannotWrite, GuerdonError, RunExists
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores


class Run:
    """One run's folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def open(cls, folder: str | Path, config: Mapping[str, Any], *, fresh: bool = False) -> Run:
        """Start a run in a folder, or go on with the one that is there if its recipe is the same.

        A shorter run of a recipe that is otherwise the same, such as a dry run of one step, is moved aside; one
        that ended before it had computed anything, because of a mistake in its recipe, is forgotten.

        Args:
            fresh: move what is there aside (to NAME.1, NAME.2, …) and start anew.

        Raises:
            RunExists: if the folder holds a run of another recipe; names the settings that differ.
        """
        run = cls(folder)
        differs = _differences(run.config, config) if run.exists else []
        shorter = differs == ["steps"] and run.config["steps"] < config["steps"]
        if differs and run._never_began():
            write_text(run.folder / "config.yaml", _yaml(config))
        elif run.exists and (fresh or shorter):
            run._move_aside()
        elif differs:
            raise RunExists(
                f"{run.folder} holds a run of another recipe (different: {', '.join(differs[:5])}): "
                "use --fresh to move it aside, or another name"
            )
        if not run.exists:
            if run.folder.exists() and any(run.folder.iterdir()):
                raise RunExists(f"{run.folder} is not empty and holds no run: choose another name")
            with disk(run.folder):
                (run.folder / "rollouts").mkdir(parents=True, exist_ok=True)
                write_text(run.folder / "config.yaml", _yaml(config))
        return run

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return (self.folder / "config.yaml").exists()

    @property
    def config(self) -> dict[str, Any]:
        """The recipe the run was started with."""
        return dict(yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8")))

    @property
    def summary(self) -> dict[str, Any] | None:
        """Before and after; None until the run has ended."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def metrics(self) -> list[dict[str, Any]]:
        """One record per step."""
        return read_lines(self.folder / "metrics.jsonl")

    def evaluations(self) -> list[dict[str, Any]]:
        """One record per evaluation."""
        return read_lines(self.folder / "evaluations.jsonl")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a step's metrics."""
        self._append("metrics.jsonl", record)

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """Append an evaluation."""
        self._append("evaluations.jsonl", record)

    def save_rollouts(self, step: int, rollouts: Rollouts, scores: Scores, **columns: Sequence[Any]) -> None:
        """Write a sample of rollouts with all that is known of their scores."""
        table = {**rollouts.to_columns(), **scores.to_columns(), **columns}
        path = self.folder / "rollouts" / f"step-{step:06d}.parquet"
        with disk(path):
            path.parent.mkdir(exist_ok=True)
            tables.write_parquet(path, table)

    def rollouts(self) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        """The samples of rollouts, by step."""
        for path in sorted((self.folder / "rollouts").glob("step-*.parquet")):
            yield int(path.stem.removeprefix("step-")), tables.read_parquet(path)

    def save_pictures(self, step: int, png: bytes) -> None:
        """Write a sheet of pictures, whole or not at all."""
        path = self.folder / "pictures" / f"step-{step:06d}.png"
        with disk(path):
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(png)
            os.replace(temporary, path)

    def pictures(self) -> Iterator[tuple[int, bytes]]:
        """The sheets of pictures, by step."""
        for path in sorted((self.folder / "pictures").glob("step-*.png")):
            yield int(path.stem.removeprefix("step-")), path.read_bytes()

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the outcome; with it the run has ended."""
        with disk(self.folder):
            write_text(self.folder / "summary.json", json.dumps(summary, indent=2) + "\n")

    def rewind(self, step: int) -> None:
        """Forget what was written after a step, so that the run goes on from there."""
        for name in ("metrics.jsonl", "evaluations.jsonl"):
            path = self.folder / name
            if path.exists():
                kept = [record for record in read_lines(path) if record["step"] <= step]
                write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        for path in (
            *(self.folder / "rollouts").glob("step-*.parquet"),
            *(self.folder / "pictures").glob("step-*.png"),
        ):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        path = self.folder / name
        with disk(path), path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record, allow_nan=False) + "\n")

    def _never_began(self) -> bool:
        """Whether there is nothing in the folder but what `open` makes."""
        return sorted(path.name for path in self.folder.iterdir()) == ["config.yaml", "rollouts"]

    def _move_aside(self) -> None:
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        self.folder.rename(aside)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a torn last line is ignored."""
    if not path.exists():
        return []
    records = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise GuerdonError(f"{path}, line {number}: not JSON, and not the last line") from None
    return records


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Say what a full or read-only disk means for the run."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free // 2**20
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error} ({free} MiB free). What was written before is kept; "
            "make room and run the same command again to go on from the last checkpoint"
        ) from error


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _differences(old: Any, new: Any, place: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{place}.{key}".lstrip("."))]
    return [] if old == new else [place]
