"""Time of an objective and memory of log-probabilities; prints one line of JSON.

    python benchmarks/objectives.py [--tokens 2048] [--vocabulary 32000] [--hidden 512] [--repeats 5] [--threads 1]

time    `policy_gradient` (clip, KL, aggregation) with its gradient by the logits, against the forward and backward of
        `log_softmax().gather().sum()` on the same float32 logits: the least of the repeats, taken in turn.
memory  `chosen_logp` from hidden states against the whole table of logits, forward and backward: the resident set at
        its highest above what it was before, each in a process of its own (glibc told to give freed memory back, so
        that the highest is of what was in use); and the time of both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from guerdon.objectives import chosen_logp, kl_penalty, policy_gradient

ROWS = 8


def timed(*functions: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each, the least of several; in turn, so that a busy machine is busy for all."""
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def objective(tokens: int, vocabulary: int, repeats: int) -> dict[str, float]:
    """Seconds of the plain sum and of the objective, both with their gradient."""
    torch.manual_seed(0)
    logits = torch.randn(ROWS, tokens // ROWS, vocabulary).requires_grad_()
    ids = torch.randint(vocabulary, logits.shape[:2])
    mask = torch.arange(ids.shape[1]) < torch.linspace(ids.shape[1] // 2, ids.shape[1], ROWS)[:, None]
    old_logp, ref_logp = -10 - torch.rand(2, *ids.shape)
    advantages = torch.randn(ROWS)

    def logp() -> Tensor:
        return logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]

    def plain() -> None:
        logits.grad = None
        logp().sum().backward()

    def ours() -> None:
        logits.grad = None
        now = logp()
        kl = 0.04 * kl_penalty(now, ref_logp, mask=mask)
        policy_gradient(now, old_logp, advantages, mask, kl=kl)[0].backward()

    base, found = timed(plain, ours, repeats=repeats)
    return {"plain_s": base, "objective_s": found, "objective_ratio": found / base}


def resident(which: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at most so far (VmHWM), as Linux says."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])


def log_probabilities(way: str, tokens: int, vocabulary: int, hidden: int, repeats: int) -> dict[str, float]:
    """Peak bytes above the start and seconds, of one way; in a process of its own."""
    torch.manual_seed(0)
    states = torch.randn(tokens, hidden).requires_grad_()
    weight = (torch.randn(vocabulary, hidden) / hidden**0.5).requires_grad_()
    ids = torch.randint(vocabulary, (tokens,))

    def run(states: Tensor, ids: Tensor) -> None:
        if way == "chunked":
            logp = chosen_logp(states, weight, ids)[0]
        else:
            logp = (states @ weight.T).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        torch.autograd.grad(logp.sum(), (states, weight))

    run(states[:1], ids[:1])  # what the first call sets up is not the way's
    before = resident("VmRSS")
    run(states, ids)
    peak = resident("VmHWM") - before
    (seconds,) = timed(lambda: run(states, ids), repeats=repeats)
    return {"bytes": peak, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 2048), ("vocabulary", 32000), ("hidden", 512), ("repeats", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--way", choices=["chunked", "plain"], help="measure the memory of one way, here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    sizes = (chosen.tokens, chosen.vocabulary, chosen.hidden)
    if chosen.way:
        print(json.dumps(log_probabilities(chosen.way, *sizes, 1)))
        return
    found: dict[str, float] = {**vars(chosen)} | objective(chosen.tokens, chosen.vocabulary, chosen.repeats)
    del found["way"]
    for way in ("plain", "chunked"):
        line = subprocess.run(
            [sys.executable, __file__, "--way", way, *(f"--{k}={v}" for k, v in vars(chosen).items() if k != "way")],
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found |= {f"logp_{way}_{key}": value for key, value in json.loads(line).items()}
    found["logp_bytes_ratio"] = found["logp_chunked_bytes"] / found["logp_plain_bytes"]
    found["logp_seconds_ratio"] = found["logp_chunked_seconds"] / found["logp_plain_seconds"]
    print(json.dumps({key: round(value, 4) for key, value in found.items()}))


if __name__ == "__main__":
    main()
