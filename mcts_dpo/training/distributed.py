"""The processes that train one policy together: their ranks, sums over all of them, and how work is assigned to them.

Reads the environment that `torchrun` or `accelerate launch` sets. In a single process, every sum is the number itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """The processes of one training. This one has `rank` in [0, size). Only rank 0 writes files."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` over all processes, in place. Every process gets the same numbers."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, here: bool) -> bool:
        """Whether `here` is true in any process."""
        if self.size == 1:
            return here
        return bool(self.sum(torch.tensor(float(here), device=local_device())).item())

    def assign(self, items: list[Item], *, equal: bool) -> list[tuple[Item, bool]]:
        """The items of this process, assigned round-robin, each with whether it counts.

        equal: all processes get the same number of items, as collective operations need. A process with fewer items
        repeats one that does not count.
        """
        mine = [(item, True) for item in items[self.rank :: self.size]]
        if equal:
            rounds = -(-len(items) // self.size)
            mine += [(items[0], False)] * (rounds - len(mine))
        return mine

    def wait(self) -> None:
        """Wait until every process calls this."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS = DistributedContext()


def local_device() -> torch.device:
    """The device of this process: its own CUDA device under a launcher, otherwise the first one, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0)


def launched() -> bool:
    """Whether `torchrun` or `accelerate launch` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[DistributedContext]:
    """This process's context while the block runs. It joins the launcher's processes unless a process group exists."""
    if dist.is_available() and dist.is_initialized():
        yield DistributedContext(dist.get_rank(), dist.get_world_size())
        return
    if not launched():
        yield SINGLE_PROCESS
        return
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(rendezvous("env://"))
    # torchrun may keep one store over its restarts. An attempt must not find the addresses of an earlier one.
    attempt = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=size)
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
