"""Checkpoints: written whole, checked before they are trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guerdon.train.run import disk

MANIFEST = "manifest.json"
TENSORS = ("weights", "optimizer", "reward", "critic")


@dataclass
class Checkpoint:
    """All that a run goes on from.

    Args:
        step: training steps done.
        weights: what the policy has learned.
        optimizer: its state.
        reward: the state of the reward's shapers and learned leaves: tensors and plain data.
        state: everything else, as JSON can hold it.
        critic: its weights and optimiser, where there is one.
    """

    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    reward: dict[str, Any]
    state: dict[str, Any]
    critic: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint as `folder/step-N`, and remove all but the last `keep`.

    It appears under its name only when every byte is on disk; a manifest holds the size and SHA-256 of
    each file, so that one cut short later is recognised.
    """
    final = folder / f"step-{checkpoint.step:06d}"
    temporary = folder / f".step-{checkpoint.step:06d}.tmp"
    with disk(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name in TENSORS:
                torch.save(getattr(checkpoint, name), temporary / f"{name}.pt")
            (temporary / "state.json").write_text(json.dumps({"step": checkpoint.step, **checkpoint.state}))
            files = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
            (temporary / MANIFEST).write_text(json.dumps(files, indent=1))
            for path in temporary.iterdir():
                _sync(path)
            shutil.rmtree(final, ignore_errors=True)
            os.rename(temporary, final)
            _sync(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The last checkpoint that is whole, and a line for each later one that is not.

    Tensors are read as data (`weights_only`): a checkpoint runs no code.
    """
    broken = []
    for path in reversed(_complete(folder)):
        problem = _problem(path)
        if problem:
            broken.append(f"{path} is not whole ({problem}): going back to the one before")
            continue
        state = json.loads((path / "state.json").read_text())
        read = {name: torch.load(path / f"{name}.pt", map_location="cpu", weights_only=True) for name in TENSORS}
        return Checkpoint(int(state.pop("step")), **read, state=state), broken
    return None, broken


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that training changes: all of them, or the adapters under LoRA."""
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = model.state_dict()
    if all(parameter.requires_grad for parameter in model.parameters()):
        return dict(state)
    return {name: value for name, value in state.items() if name in learned}


def restore(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        ValueError: if they are of another model.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = set(missing) & set(trainable_state(model))
    if unexpected or lacking:
        raise ValueError(f"the checkpoint is of another model: {sorted([*unexpected, *lacking])[0]!r} does not fit")


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _problem(path: Path) -> str | None:
    try:
        files = json.loads((path / MANIFEST).read_text())
        for name, expected in files.items():
            if _fingerprint(path / name) != expected:
                return f"{name} has changed or is cut short"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _fingerprint(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
