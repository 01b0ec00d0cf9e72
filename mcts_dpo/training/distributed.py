"""Several processes that train one policy: who is there, sums over all of them, and one model in shards (FSDP2).

In: the environment that `torchrun` or `accelerate launch` sets. Out: a `World`. Alone, every sum is the number
itself and nothing is sent. Knows no data and no loss.
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
class World:
    """The processes of one training run: `rank` in [0, size) is this one; rank 0 alone writes files."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes: the same tensor, the same numbers in each of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        if self.size == 1:
            return here
        return bool(self.sum(torch.tensor(float(here), device=local_device())).item())

    def shares(self, items: list[Item], *, equal: bool) -> list[tuple[Item, bool]]:
        """This process's items, dealt round-robin, each with whether it counts.

        equal: every process gets as many (where a step is a collective operation); those that have fewer repeat an
        item that does not count.
        """
        mine = [(item, True) for item in items[self.rank :: self.size]]
        if equal:
            rounds = -(-len(items) // self.size)
            mine += [(items[0], False)] * (rounds - len(mine))
        return mine

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def local_device() -> torch.device:
    """This process's device: its own CUDA device under a launcher, the first one alone, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0)


def launched() -> bool:
    """Whether `torchrun` or `accelerate launch` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[World]:
    """The world of this process while the block runs: a process group that exists already, or that of the launcher."""
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if not launched():
        yield ALONE
        return
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(rendezvous("env://"))
    # `torchrun` may keep one store over its restarts: an attempt must not find the addresses that an earlier one left.
    attempt = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=size)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
