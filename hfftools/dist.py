"""Work as one of the processes that torchrun starts: which one this is, and what they compute together.

Without torchrun there is one process, and nothing here changes anything.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as torch_dist

from hfftools.log import UserError, log


@contextmanager
def join() -> Iterator[None]:
    """Work as one of torchrun's processes. Only the first one logs; if one fails, it alone reports why, and all end."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    store, number, count = next(torch_dist.rendezvous("env://"))
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch_dist.init_process_group(backends, store=store, rank=number, world_size=count)
    if not is_main():
        log.setLevel(logging.ERROR)
    try:
        yield
        total(0.0)  # wait for all: otherwise the failure of one at the very end would not reach the others
    except BaseException as error:
        if store.add("hff/failed", 1) > 1:
            sys.exit(1)  # the first to fail reports why; the others fail because it is gone, or for the same reason
        if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torchrun's report ends with what is in it
            report = {"message": str(error) or type(error).__name__, "extraInfo": {"timestamp": str(int(time.time()))}}
            Path(file).write_text(json.dumps({"message": report}))
        raise
    first = is_main()
    torch_dist.destroy_process_group()
    if not first:
        # Nothing is left to do here, and the interpreter's own exit may meet a thread of gloo that still ends: the process
        # then aborts ("terminate called without an active exception"), and torchrun reports a finished run as failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def rank() -> int:
    """Return the number of this process, from 0."""
    return torch_dist.get_rank() if torch_dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return torch_dist.get_world_size() if torch_dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this is the process that writes files."""
    return rank() == 0


def local_rank() -> int:
    """Return the number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def deal(items: Sequence) -> Sequence:
    """Return the share of this process: every n-th item, where n is the number of processes."""
    return items[rank() :: world()]


def collect(mine: list) -> list:
    """Return the results of all processes in the order of the items; `mine` has one for each item that `deal` gave."""
    if world() == 1:
        return mine
    shares: list[list] = [[] for _ in range(world())]
    _together(lambda: torch_dist.all_gather_object(shares, mine))
    return [share[n] for n in range(len(shares[0])) for share in shares if n < len(share)]


def total(*numbers: float) -> list[float]:
    """Return the sum of each number over all processes."""
    if world() == 1:
        return list(numbers)
    sums = torch.tensor(numbers, dtype=torch.float64)
    _together(lambda: torch_dist.all_reduce(sums))
    return sums.tolist()


def add_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes; skip a parameter that has none in any of them."""
    if world() == 1:
        return
    parameters = list(parameters)
    holders = total(*(float(p.grad is not None) for p in parameters))
    moved = [p for p, count in zip(parameters, holders, strict=True) if count]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in moved])
    _together(lambda: torch_dist.all_reduce(flat))
    for parameter, gradient in zip(moved, flat.split([p.numel() for p in moved]), strict=True):
        parameter.grad = gradient.view_as(parameter)


def _together(act: Callable[[], None]) -> None:
    """Run an operation of all processes; raise UserError if another process has ended."""
    try:
        act()
    except RuntimeError as error:
        raise UserError(
            f"lost another process of the {world()}, perhaps because memory ran out; run the same command again to resume "
            f"({str(error).splitlines()[0]})"
        ) from None
