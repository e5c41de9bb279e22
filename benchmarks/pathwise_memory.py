"""Memory of pathwise training with and without checkpoints, and whether the gradient is the same; one line of JSON.

    python benchmarks/pathwise_memory.py [--steps 20] [--width 128] [--tokens 64] [--depth 2] [--rows 4] [--threads 1]

A transformer is the policy, an ODE chain is unrolled through all of its steps, and the reward of its end is sent back.
held    bytes that autograd holds for the backward pass when the loss is made, each storage counted once, without the
        weights themselves
peak    the resident set at its highest above what it was before, each in a process of its own (glibc told to give freed
        memory back, so that the highest is of what was in use)
Times are the least of three, in turn. The gradient's difference is relative, in the largest element, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from guerdon.objectives.denoising import Chain
from guerdon.objectives.pathwise import pathwise_gradient


class Transformer(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.time, self.body = nn.Linear(1, width), nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        found: Tensor = self.out(self.body(x + self.time(time[:, None, None].to(x))))
        return found


class Held:
    """Bytes that autograd saves, each storage once."""

    def __init__(self, policy: nn.Module) -> None:
        self.kept: dict[int, tuple[int, Tensor]] = {}
        self.weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor keeps its address its own
        return tensor

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.kept.values())


def job(options: argparse.Namespace) -> tuple[Transformer, Tensor, Chain]:
    torch.manual_seed(0)
    policy = Transformer(options.width, options.depth)
    noise = torch.randn(options.rows, options.tokens, options.width)
    return policy, noise, Chain(torch.linspace(1, 0, options.steps + 1), "ode")


def reward(x: Tensor) -> Tensor:
    return -x.square().flatten(1).mean(1)


reward.differentiable = True  # type: ignore[attr-defined]


def gradient(options: argparse.Namespace, checkpoint: bool) -> tuple[Tensor, float]:
    policy, noise, chain = job(options)
    began = time.perf_counter()
    pathwise_gradient(policy, noise, chain, reward, checkpoint=checkpoint)[0].backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]), time.perf_counter() - began


def held(options: argparse.Namespace, checkpoint: bool) -> int:
    """With checkpoints: what is held when the loss is made, and what one step holds as it is computed again."""
    policy, noise, chain = job(options)
    whole = Held(policy)
    with torch.autograd.graph.saved_tensors_hooks(whole.pack, lambda tensor: tensor):
        pathwise_gradient(policy, noise, chain, reward, checkpoint=checkpoint)
    if not checkpoint:
        return whole.bytes
    # The samples between steps are what checkpoints keep; autograd's hooks do not see them.
    between = len(chain) * noise.numel() * noise.element_size()
    again = Held(policy)
    with torch.autograd.graph.saved_tensors_hooks(again.pack, lambda tensor: tensor):
        policy(noise, torch.ones(len(noise)))
    return whole.bytes + between + again.bytes


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(options: argparse.Namespace, checkpoint: bool) -> int:
    """Run as a process of its own: how far the resident set rose."""
    policy, noise, chain = job(options)
    short = Chain(chain.levels[-2:], "ode")
    # What is loaded once is loaded before.
    pathwise_gradient(policy, noise[:1], short, reward, checkpoint=checkpoint)[0].backward()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    pathwise_gradient(policy, noise, chain, reward, checkpoint=checkpoint)[0].backward()
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 20), ("width", 128), ("tokens", 64), ("depth", 2), ("rows", 4), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peak", choices=["plain", "checkpointed"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(options, options.peak == "checkpointed"))
        return
    runs = [[gradient(options, checkpoint) for checkpoint in (False, True)] for _ in range(3)]
    (plain, _), (again, _) = runs[0]
    plain_s, again_s = (min(run[i][1] for run in runs) for i in range(2))
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    peaks = {
        name: int(
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--peak", name],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for name in ("plain", "checkpointed")
    }
    bytes_held = {"plain": held(options, False), "checkpointed": held(options, True)}
    line = {
        "steps": options.steps,
        "held_plain_mib": round(bytes_held["plain"] / 2**20, 1),
        "held_checkpointed_mib": round(bytes_held["checkpointed"] / 2**20, 1),
        "held_ratio": round(bytes_held["checkpointed"] / bytes_held["plain"], 3),
        "peak_plain_mib": round(peaks["plain"] / 2**20, 1),
        "peak_checkpointed_mib": round(peaks["checkpointed"] / 2**20, 1),
        "peak_ratio": round(peaks["checkpointed"] / peaks["plain"], 3),
        "gradient_difference": float((plain - again).abs().max() / plain.abs().max()),
        "plain_s": round(plain_s, 2),
        "checkpointed_s": round(again_s, 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
