"""Times on any device, and the least that moving memory takes there."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """From the call until the device has done what was asked of it."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def copy_bandwidth(device: torch.device | str = "cpu", *, size: int = 2**28, repeats: int = 7) -> float:
    """Bytes per second, read or written, of the fastest of several copies within the device's memory."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * size / min(seconds(lambda: target.copy_(source), device) for _ in range(repeats))


def name_of(device: torch.device | str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"
