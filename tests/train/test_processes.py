"""Loops in processes of their own: killed and resumed, and two at a time."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from stopping import metrics

from guerdon.train import checkpoint as checkpoints
from guerdon.train.run import Run

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def guerdon(*arguments, cwd):
    command = [sys.executable, "-m", "guerdon", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.processes
def test_a_run_killed_with_sigkill_ends_bit_for_bit_where_an_uninterrupted_one_does(tiny_file, tmp_path):
    recipe = tiny_file(steps=24, keep={"checkpoint_every": 5}, method={"kl": {"coefficient": 0.05}})
    whole = guerdon("train", recipe, "--folder", "whole", cwd=tmp_path)
    killed = guerdon("train", recipe, "--folder", "killed", cwd=tmp_path)
    deadline = time.monotonic() + 50
    while len(Run(tmp_path / "killed").metrics()) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    lines = len(Run(tmp_path / "killed").metrics())
    assert 8 <= lines < 24
    assert Run(tmp_path / "killed").summary is None
    resumed = guerdon("train", recipe, "--folder", "killed", cwd=tmp_path)
    output, _ = resumed.communicate(timeout=50)
    assert resumed.returncode == 0, output
    last = lines - lines % 5  # or the one before, if the kill came while the last was being written
    assert any(f"going on after step {step}" in output for step in (last, last - 5))
    whole.communicate(timeout=50)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    ends = [checkpoints.latest(tmp_path / name / "checkpoints")[0] for name in ("killed", "whole")]
    assert all(torch.equal(value, ends[1].weights[name]) for name, value in ends[0].weights.items())
    first, second = (Run(tmp_path / name).summary for name in ("killed", "whole"))
    assert (first["before"], first["after"]) == (second["before"], second["after"])


@pytest.mark.processes
def test_two_processes_follow_the_run_of_one(tiny_file, tmp_path):
    """Of either kind of policy: both loops run in one start of two processes."""
    writing = tiny_file(
        steps=4, reward=WEIGHED, method=LEARNED, optimizer={"eps": 1.0},
        prompts={"size": 20, "unsolved": {"share": 1.0, "of": "low"}},
    )  # fmt: skip
    painting = tmp_path / "painting.yaml"
    painting.write_text(json.dumps(PAINTING))
    script = tmp_path / "both.py"
    script.write_text(BOTH)
    one = subprocess.Popen([sys.executable, str(script), "one", writing, painting], cwd=tmp_path, env=ENVIRONMENT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    two = subprocess.run(
        [*torchrun, str(script), "two", writing, painting],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=55,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert one.wait(timeout=50) == 0
    for kind in ("writing", "painting"):
        alone, together = (Run(tmp_path / f"{folder}-{kind}") for folder in ("one", "two"))
        assert (alone.summary["processes"], together.summary["processes"]) == (1, 2)
        for mine, ours in zip(metrics(alone.folder), metrics(together.folder), strict=True):
            assert mine.keys() == ours.keys()
            learned = {name for name in mine if name.startswith(("weight/", "service/"))}
            assert len(learned) == (4 if kind == "writing" else 0)
            same = {
                "loss",
                "grad_norm",
                "reward",
                "length",
                "kl",
                "entropy",
                "vendi",
                "no_signal",
                *learned,
                "unsolved",
            }
            for name in same & mine.keys():
                assert ours[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-6), (kind, name)
        ends = [checkpoints.latest(run.folder / "checkpoints")[0] for run in (alone, together)]
        for name, value in ends[0].weights.items():
            torch.testing.assert_close(ends[1].weights[name], value, rtol=1e-4, atol=1e-5)
        assert together.summary["after"]["ci95"] == pytest.approx(alone.summary["after"]["ci95"], abs=1e-3)
    assert two.stdout.count("95 % interval") == 2


# A sum of parts whose weights are learned.
WEIGHED = [
    {"part": "text.length", "unit": "tokens", "shape": [{"part": "shaping.bound", "scale": 8}], "name": "length"},
    {"part": "format.regex", "pattern": ".*[0-4].*", "name": "low"},
]
LEARNED = {
    "preset": "dr_grpo",
    "kl": {"coefficient": 0.05},
    "credit": {"sum": {"length": "credit.group_relative", "low": "credit.group_relative"}},
    "blend": {"primary": "low", "learning_rate": 0.5},
}

# Groups whose pictures differ, potentials of every step, branches and noise that follows them; several updates.
PAINTING = {
    "name": "painting",
    "denoiser": {"from_config": {"size": 4, "layers": 1, "width": 8, "heads": 2, "classes": 3}},
    "sampling": {"steps": 4, "calibration": {}, "branches": 2, "interval": [2, 4]},
    "reward": "image.compactness",
    "method": {"preset": "dense_grpo", "sampling": {"group": 4}},
    "batch": {"prompts": 4, "micro": 5, "passes": 2, "minibatches": 2},
    "optimizer": {"learning_rate": 1e-2, "eps": 1.0},
    "evaluation": {"prompts": 9},
    "steps": 3,
    "threads": 1,
    "device": "cpu",
}
BOTH = """
import sys
from guerdon.cli import app

folder, *recipes = sys.argv[1:]
for recipe, kind in zip(recipes, ("writing", "painting"), strict=True):
    app(["train", recipe, "--folder", f"{folder}-{kind}"], standalone_mode=False)
"""
