"""Work that one process does for all, and data that all bring to one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

SENT = 0.1  # seconds in which a thread should have let go of what it sent last


def is_main_process() -> bool:
    """Whether this is the process that prints and writes."""
    return bool(PartialState().is_main_process)


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do something on the main process and give its result, or its error, to all."""
    if accelerator.num_processes == 1:
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except Exception as error:
            failure = error
            outcome[1] = f"{type(error).__name__}: {error}"
    broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise GuerdonError(f"on the main process: {outcome[1]}")
    return outcome[0]  # type: ignore[no-any-return]


def leave() -> None:
    """Leave the group of processes, if this one is in any.

    A process that ends while it is in one may abort in a thread of the group's, and its run is then taken for failed.
    Where a model was wrapped for the group these threads even outlive it (of torch 2.13); what aborts is probably one
    that lets go of what it sent last when the interpreter is gone. So they are given some time first.
    """
    if dist.is_available() and dist.is_initialized():
        time.sleep(SENT)
        dist.destroy_process_group()


def gather(accelerator: Accelerator, mine: T) -> list[T]:
    """One object from each process, in the order of their ranks; on every process."""
    if accelerator.num_processes == 1:
        return [mine]
    everyone: list[Any] = [None] * accelerator.num_processes
    dist.all_gather_object(everyone, mine)
    return everyone


def share(accelerator: Accelerator, rows: Sequence[T]) -> Sequence[T]:
    """This process's contiguous part of some rows; the parts in rank order are the whole."""
    n, world, rank = len(rows), accelerator.num_processes, accelerator.process_index
    return rows[n * rank // world : n * (rank + 1) // world]


def add_gradients(accelerator: Accelerator, weights: Sequence[nn.Parameter]) -> None:
    """Make every gradient the sum over all processes; where none of them has one, there is none."""
    if accelerator.num_processes == 1:
        return
    there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8, device=accelerator.device)
    dist.all_reduce(there, dist.ReduceOp.MAX)
    for weight, known in zip(weights, there.tolist(), strict=True):
        if known:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            dist.all_reduce(weight.grad)


def as_on_main(accelerator: Accelerator, weights: Iterable[Tensor]) -> None:
    """Give every process the main one's weights, in place."""
    if accelerator.num_processes > 1:
        for weight in weights:
            dist.broadcast(weight.detach(), 0)
