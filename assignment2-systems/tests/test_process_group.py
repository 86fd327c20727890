"""Functions run in a group of processes."""

import atexit
import time

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from cs336_systems.process_group import backend_for, run_in_processes


def _sum_of_ranks(factor):
    value = torch.tensor([float(dist.get_rank() * factor)])
    dist.all_reduce(value)
    return dist.get_rank(), value


def _rank_one_fails():
    """The other rank fails only because this one does, but its process ends earlier."""
    if dist.get_rank() == 1:
        atexit.register(time.sleep, 10)
        raise ArithmeticError("rank one cannot")
    dist.barrier()


@pytest.mark.slow
def test_results_come_back_by_rank():
    results = run_in_processes(_sum_of_ranks, 3, 10)
    assert results == [(rank, torch.tensor([30.0])) for rank in range(3)]


@pytest.mark.slow
def test_a_failing_rank_ends_all_and_is_told():
    with pytest.raises(ProcessRaisedException, match="rank one cannot") as failed:
        run_in_processes(_rank_one_fails, 2)
    assert failed.value.error_index == 1


def test_the_backend_follows_the_device():
    assert [backend_for(torch.device(name)) for name in ("cpu", "cuda", "mps")] == ["gloo", "nccl", "gloo"]
