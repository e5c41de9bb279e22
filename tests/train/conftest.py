"""A recipe so small that a step takes a moment; that of a denoising policy is in `painting`, imported by name."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from guerdon.train import recipe as recipes
from guerdon.train.language import loop
from guerdon.train.language.learning import learn

sys.path.append(str(Path(__file__).parent))

from merging import merged

TINY: dict[str, Any] = {
    "name": "tiny",
    "policy": {
        "from_config": {"layers": 1, "hidden": 16, "heads": 2, "mlp": 32, "context": 48, "alphabet": "0123456789+-=;# "}
    },
    "prompts": {
        "dataset": "chain_sum",
        "parameters": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        "template": "{metadata[expression]}=",
        "held_out": 0.3,
        "size": 500,
    },
    "reward": {"part": "text.length", "unit": "tokens", "shape": [{"part": "shaping.bound", "scale": 8}]},
    "method": {"preset": "grpo", "kl": {"coefficient": 0.0}, "sampling": {"group": 4}},
    "sampling": {"max_tokens": 8},
    "batch": {"prompts": 4, "micro": 8},
    "optimizer": {"learning_rate": 1e-2},
    "evaluation": {"prompts": 16},
    "keep": {"checkpoint_every": 2, "rollouts_every": 2, "rollouts": 8},
    "steps": 2,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture
def tiny():
    """`tiny(steps=3, batch={...})`: the tiny recipe with changes."""

    def build(**changes: Any) -> recipes.Recipe:
        return recipes.from_data(merged(TINY, changes))

    return build


@pytest.fixture
def tiny_file(tmp_path):
    """The same as a file (JSON is YAML)."""

    def write(**changes: Any):
        path = tmp_path / "tiny.yaml"
        path.write_text(json.dumps(merged(TINY, changes)))
        return path

    return write


@pytest.fixture
def learned(monkeypatch):
    """What a run learns from, step by step."""
    seen = []

    def watched(data, *rest, **options):
        seen.append(data)
        return learn(data, *rest, **options)

    monkeypatch.setattr(loop, "learn", watched)
    return seen
