"""Sums with the proxy rewards of demonstrated answers: the prompts of `bounded_reward.yaml`.

python recipes/references.py runs/sums.jsonl [--prompts 4000] [--references 5] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import yaml

from guerdon.algebra import spec
from guerdon.core import Rollouts
from guerdon.train.language.demonstrations import scratchpad
from guerdon.train.prompts import Prompts, PromptsConfig

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    base = yaml.safe_load((HERE / "arithmetic.yaml").read_text())
    proxy = spec.load(yaml.safe_load((HERE / "bounded_reward.yaml").read_text())["arms"]["raw"]["reward"])
    # Of another seed than any run's, so that a run holds out its own share of them.
    rows = Prompts(PromptsConfig(**base["prompts"]), seed=options.seed + 1_000_000).draw(0, options.prompts)
    demonstrate, rng = scratchpad(**base["teach"]["options"]), np.random.default_rng(options.seed)
    repeated = [row for row in rows for _ in range(options.references)]
    rollouts = Rollouts(
        [row["prompt"] for row in repeated],
        [demonstrate(row, rng) for row in repeated],
        {"answer": [row["answer"] for row in repeated]},
    )
    references = proxy.score(rollouts).read(0.0).reshape(len(rows), -1).tolist()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", encoding="utf-8") as file:
        for row, scores in zip(rows, references, strict=True):
            kept = {name: row[name] for name in ("prompt", "answer", "metadata")}
            file.write(json.dumps(kept | {"references": scores}, default=str) + "\n")
    print(f"{len(rows)} prompts, mean reference {np.mean(references):.2f}: {options.output}")


if __name__ == "__main__":
    main()
