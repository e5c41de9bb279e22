"""Time of an objective and memory of log-probabilities; prints one line of JSON.

    python benchmarks/objectives.py [--tokens 2048] [--vocabulary 32000] [--hidden 512] [--repeats 5] [--threads 1]
                                    [--device cuda]

time    `policy_gradient` (clip, KL, aggregation) with its gradient by the logits, against the forward and backward of
        `log_softmax().gather().sum()` on the same float32 logits: the least of the repeats, taken in turn.
memory  `chosen_logp` from hidden states against the whole table of logits, forward and backward: the resident set at
        its highest above what it was before, each in a process of its own (glibc told to give freed memory back, so
        that the highest is of what was in use; on a GPU, what torch allocated); and the time of both.
floor   what no way can be faster than, at the bandwidth of a copy measured in the same run: for the objective its
        logits read in either direction and their gradient written, for `chosen_logp` the same of states and weights
        (whose three products of matrices take far longer, so that there it is a bound and no aim).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bandwidth import copy_bandwidth, name_of, seconds
from torch import Tensor

from guerdon.objectives import chosen_logp, kl_penalty, policy_gradient

ROWS = 8


def timed(*functions: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Seconds of each, the least of several; in turn, so that a busy machine is busy for all."""
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            best[i] = min(best[i], seconds(function, device))
    return best


def objective(tokens: int, vocabulary: int, repeats: int, device: str) -> dict[str, float]:
    """Seconds of the plain sum and of the objective, both with their gradient."""
    torch.manual_seed(0)
    logits = torch.randn(ROWS, tokens // ROWS, vocabulary, device=device).requires_grad_()
    ids = torch.randint(vocabulary, logits.shape[:2], device=device)
    mask = torch.arange(ids.shape[1]) < torch.linspace(ids.shape[1] // 2, ids.shape[1], ROWS)[:, None]
    mask = mask.to(device)
    old_logp, ref_logp = -10 - torch.rand(2, *ids.shape, device=device)
    advantages = torch.randn(ROWS, device=device)

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

    base, found = timed(plain, ours, repeats=repeats, device=device)
    floor = 3 * logits.nbytes / copy_bandwidth(device)
    return {"plain_s": base, "objective_s": found, "objective_floor_s": floor, "objective_ratio": found / base}


def resident(which: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at most so far (VmHWM), as Linux says."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])


def log_probabilities(
    way: str, tokens: int, vocabulary: int, hidden: int, repeats: int, device: str
) -> dict[str, float]:
    """Peak bytes above the start and seconds, of one way; in a process of its own."""
    torch.manual_seed(0)
    states = torch.randn(tokens, hidden, device=device).requires_grad_()
    weight = (torch.randn(vocabulary, hidden, device=device) / hidden**0.5).requires_grad_()
    ids = torch.randint(vocabulary, (tokens,), device=device)

    def run(states: Tensor, ids: Tensor) -> None:
        if way == "chunked":
            logp = chosen_logp(states, weight, ids)[0]
        else:
            logp = (states @ weight.T).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        torch.autograd.grad(logp.sum(), (states, weight))

    run(states[:1], ids[:1])  # what the first call sets up is not the way's
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run(states, ids)
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        before = resident("VmRSS")
        run(states, ids)
        peak = resident("VmHWM") - before
    (took,) = timed(lambda: run(states, ids), repeats=repeats, device=device)
    return {"bytes": peak, "seconds": took, "floor_s": 3 * (states.nbytes + weight.nbytes) / copy_bandwidth(device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 2048), ("vocabulary", 32000), ("hidden", 512), ("repeats", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--way", choices=["chunked", "plain"], help="measure the memory of one way, here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    sizes = (chosen.tokens, chosen.vocabulary, chosen.hidden)
    if chosen.way:
        print(json.dumps(log_probabilities(chosen.way, *sizes, 1, chosen.device)))
        return
    found: dict[str, Any] = {**vars(chosen), "device": name_of(chosen.device)}
    found |= objective(chosen.tokens, chosen.vocabulary, chosen.repeats, chosen.device)
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
    found["logp_floor_s"] = found.pop("logp_plain_floor_s")
    del found["logp_chunked_floor_s"]
    found["logp_bytes_ratio"] = found["logp_chunked_bytes"] / found["logp_plain_bytes"]
    found["logp_seconds_ratio"] = found["logp_chunked_seconds"] / found["logp_plain_seconds"]
    print(json.dumps({key: round(value, 5) if isinstance(value, float) else value for key, value in found.items()}))


if __name__ == "__main__":
    main()
