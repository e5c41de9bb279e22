"""The loop in processes of its own: killed and resumed, and two at a time."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from guerdon.train import checkpoint as checkpoints
from guerdon.train.run import Run

CLOCKS = ("seconds", "tokens_per_second")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def metrics(folder):
    return [{k: v for k, v in record.items() if k not in CLOCKS} for record in Run(folder).metrics()]


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
    recipe = tiny_file(steps=4, method={"preset": "dr_grpo", "kl": {"coefficient": 0.05}}, optimizer={"eps": 1.0})
    one = guerdon("train", recipe, "--folder", "one", cwd=tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "guerdon"]
    two = subprocess.run(
        [*torchrun, "train", str(recipe), "--folder", "two"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=55,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert one.wait(timeout=50) == 0
    assert Run(tmp_path / "two").summary["processes"] == 2
    assert Run(tmp_path / "one").summary["processes"] == 1
    for alone, together in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert alone.keys() == together.keys()
        for name in ("loss", "grad_norm", "reward", "length", "kl", "entropy"):
            assert together[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-6), name
    assert two.stdout.count("95 % interval") == 1
