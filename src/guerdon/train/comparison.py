"""Several ways to train, compared: arms that differ from one recipe in some settings, over the same seeds.

    base: arithmetic.yaml               a recipe, found beside this file
    seeds: [0, 1, 2]
    set: {steps: 100}                   settings that differ from it in every arm, written as for --set
    arms:
      grpo: {}
      nsr: {method: nsr, optimizer.learning_rate: 1.0e-4}
    reach: 0.7                          optional: also count the rollouts it takes to this accuracy

Each arm and seed is a run of its own, in a process of its own, in `FOLDER/ARM/seed-N`; what is finished is not run
again. Arms that teach alike start from the same taught policy, one a seed, in `starts` beside FOLDER, where other
comparisons find it too.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, RecipeError
from guerdon.train import recipe as recipes
from guerdon.train.run import Run, disk, write_text

Data = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Args:
        name: the folder is `runs/NAME`.
        base: the recipe's file.
        arms: for each arm the settings in which it differs; the first is the one that the others are compared with.
        seeds: of the runs of every arm.
        set: settings in which all arms differ from the base.
        reach: an accuracy; what is counted is the rollouts up to the first evaluation that has it.
    """

    name: str
    base: str
    arms: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)
    set: Mapping[str, Any] = field(default_factory=dict)
    reach: float | None = None

    def __post_init__(self) -> None:
        if not self.arms or not self.seeds:
            raise ValueError("a comparison has at least one arm and one seed")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are repeated: {list(self.seeds)}")
        for name in self.arms:
            if not name or name in (".", "..") or any(c in name for c in "/\\\0"):
                raise ValueError(f"an arm's name is a folder's name, got {name!r}")


class Planned(NamedTuple):
    """A run to be made."""

    arm: str
    seed: int
    recipe: Data
    folder: Path
    start: Path | None  # the run that teaches the policy it begins with

    @property
    def title(self) -> str:
        """As it is shown."""
        return f"{self.arm}, seed {self.seed}"


def load(path: str | Path, changes: Sequence[str] = (), *, allow_import: bool = False) -> Comparison:
    """Read a comparison and check every recipe in it, before any work.

    Raises:
        RecipeError: names the arm, the setting and the nearest valid name.
    """
    path = Path(path)
    data = recipes.read(path)
    for change in changes:
        key, value = recipes.setting(change)
        data["set"] = {**(data.get("set") or {}), key: value}
    try:
        comparison: Comparison = coerce(data, Comparison, "")
    except GuerdonError as error:
        raise RecipeError(f"{path}: {error}") from error
    comparison = coerce({**data, "base": str(path.parent / comparison.base)}, Comparison, "")
    for arm in comparison.arms:
        try:
            recipe = recipes.from_data(_recipe(comparison, arm, comparison.seeds[0]), allow_import=allow_import)
            if not isinstance(recipe, recipes.Recipe):
                raise RecipeError("comparisons are of language models: train a denoiser or a planner by itself")
        except GuerdonError as error:
            raise RecipeError(f"{path}: arms.{arm}: {error}") from error
    return comparison


def compare(
    comparison: Comparison,
    folder: Path | None = None,
    *,
    jobs: int | None = None,
    allow_import: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> Data:
    """Make every run that is not there yet, and say how the arms compare.

    Args:
        comparison: what to do.
        folder: where the runs are; default `runs/NAME`.
        jobs: runs at a time, each with its share of the cores; default: as many as there are cores.
        allow_import: also take reward parts from outside guerdon.
        report: is told of every run that ends.

    Returns:
        What `comparison.json` holds: for each arm the list over seeds of `{seed, accuracy, best, mean_length, seconds}`
        and, where they were measured, `pass_at` and `rollouts` to the accuracy that was to be reached.

    Raises:
        GuerdonError: if runs failed: which, and the end of what they said. The others are finished first.
    """
    folder = folder or Path("runs") / comparison.name
    jobs = jobs or os.cpu_count() or 1
    planned = [plan(comparison, arm, seed, folder) for seed in comparison.seeds for arm in comparison.arms]
    starts = {run.start: run for run in planned if run.start}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failures: list[str] = []

    def make(run: Planned) -> None:
        problem = None if _finished(run) else _train(run, threads, allow_import)
        if problem is not None:
            failures.append(f"{run.title}: {problem}")
        report(f"{run.title}: {problem or _said(run)}")

    with ThreadPoolExecutor(jobs) as pool:
        for some in ([_teaching(run) for run in starts.values()], planned):
            for ended in [pool.submit(make, run) for run in some]:
                ended.result()
            if failures:
                raise GuerdonError("some runs failed:\n" + "\n".join(failures))
    result: Data = {"name": comparison.name, "arms": {arm: [] for arm in comparison.arms}}
    for run in planned:
        result["arms"][run.arm].append(measured(run, comparison.reach))
    with disk(folder):
        write_text(folder / "comparison.json", json.dumps(result, indent=2) + "\n")
    return result


def plan(comparison: Comparison, arm: str, seed: int, folder: Path) -> Planned:
    """The run of an arm with a seed: from the policy it shares with others, where there is something to teach."""
    data = _recipe(comparison, arm, seed)
    start = None
    if data.get("teach") and not data["policy"].get("lora"):
        digest = hashlib.sha256(json.dumps(_lesson(data), sort_keys=True).encode()).hexdigest()[:12]
        start = folder.parent / "starts" / digest
    return Planned(arm, seed, data, folder / arm / f"seed-{seed}", start)


def measured(run: Planned, reach: float | None = None) -> Data:
    """What came of a run that has ended."""
    made = Run(run.folder)
    summary, evaluations = made.summary, made.evaluations()
    assert summary is not None
    after = summary["after"]
    known = [e["accuracy"] for e in evaluations if e["accuracy"] is not None]
    result = {
        "seed": run.seed,
        "before": summary["before"]["accuracy"],
        "accuracy": after["accuracy"],
        "best": max(known, default=None),
        "mean_length": after["mean_length"],
        "seconds": summary["seconds"],
    }
    if "pass_at" in after:
        result |= {"pass_at": after["pass_at"], "pass_at_before": summary["before"]["pass_at"]}
    if reach is not None:
        config = recipes.from_data(made.config, allow_import=True)
        assert isinstance(config, recipes.Recipe)
        per_round = config.batch.prompts * config.load_method().sampling.group
        rounds = {record["step"]: record.get("rounds", 1) for record in made.metrics()}
        first = next((e["step"] for e in evaluations if (e["accuracy"] or 0.0) >= reach), None)
        result["rollouts"] = (
            None if first is None else per_round * sum(n for step, n in rounds.items() if step <= first)
        )
    return result


def _recipe(comparison: Comparison, arm: str, seed: int) -> Data:
    data = recipes.read(comparison.base)
    for changes in (comparison.set, comparison.arms[arm]):
        for key, value in changes.items():
            recipes.put(data, key, json.loads(json.dumps(value)))
    return data | {"name": f"{comparison.name}-{arm}-{seed}", "seed": seed}


def _teaching(run: Planned) -> Planned:
    """The run that only teaches the policy that others begin with."""
    assert run.start is not None
    return Planned("taught", run.seed, _lesson(run.recipe) | {"name": run.start.name}, run.start, None)


def _lesson(data: Data) -> Data:
    """What of a recipe matters to the policy that it teaches, as a recipe of no steps."""
    accuracy = (data.get("evaluation") or {}).get("accuracy", "math.answer")
    taught = {key: data[key] for key in ("policy", "prompts", "teach", "seed", "device") if key in data}
    little = {"steps": 0, "sampling": {"max_tokens": 1}, "evaluation": {"prompts": 1, "accuracy": accuracy}}
    return taught | little | {"reward": accuracy}


def _begun(run: Planned) -> Data:
    """The recipe of a run, with the policy that it begins with."""
    if run.start is None:
        return run.recipe
    policy = run.recipe["policy"] | {"from_config": None, "path": str(run.start / "policy")}
    return run.recipe | {"policy": policy, "teach": None}


def _finished(run: Planned) -> bool:
    """Whether this very run has ended; of one with another recipe in its place `guerdon train` says so."""
    made = Run(run.folder)
    return made.summary is not None and made.config == recipes.from_data(_begun(run), allow_import=True).data()


def _train(run: Planned, threads: int, allow_import: bool) -> str | None:
    """Make a run, in a process of its own; what went wrong, if something did."""
    with disk(run.folder):
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        file, log = (run.folder.with_name(run.folder.name + ending) for ending in (".yaml", ".log"))
        write_text(file, yaml.safe_dump(_begun(run), sort_keys=False))
    command = [sys.executable, "-m", "guerdon", "train", str(file), "--folder", str(run.folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    with log.open("w", encoding="utf-8") as said:
        ended = subprocess.run(
            [*command, *(["--allow-import"] if allow_import else [])], env=environment, stdout=said, stderr=said
        )
    if ended.returncode == 0:
        return None
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    return f"failed with exit code {ended.returncode}; the end of {log}:\n  " + "\n  ".join(last)


def _said(run: Planned) -> str:
    if run.arm == "taught" and run.start is None:
        return "done"
    came = measured(run)
    return f"accuracy {came['before']:.3f} → {came['accuracy']:.3f}, length {came['mean_length']:.1f}"
