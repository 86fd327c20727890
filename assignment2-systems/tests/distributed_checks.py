"""Many checks in one group of processes, since starting the processes is what takes the time."""

import traceback
import warnings
from functools import cache

import torch
import torch.distributed as dist

from cs336_systems.process_group import run_in_processes


def _run_checks(checks):
    warnings.simplefilter("error")
    torch.use_deterministic_algorithms(True)
    failures = {}
    for check in checks:
        try:
            check()
        except Exception:
            failures[check.__name__] = traceback.format_exc()
        dist.barrier()
    return failures


@cache
def _failures(checks, world_size):
    return run_in_processes(_run_checks, world_size, checks)


def expect_success(check, checks, world_size):
    """Fail with the tracebacks of the ranks on which `check`, one of the tuple `checks`, failed."""
    failures = [of_rank[check.__name__] for of_rank in _failures(checks, world_size) if check.__name__ in of_rank]
    assert not failures, "\n".join(failures)


def names(checks):
    return [check.__name__.removeprefix("check_") for check in checks]


def part_of(batch, rank=None, world_size=None):
    """A rank's examples of a batch, a tuple of tensors."""
    rank = dist.get_rank() if rank is None else rank
    world_size = dist.get_world_size() if world_size is None else world_size
    return tuple(tensor.chunk(world_size)[rank] for tensor in batch)
