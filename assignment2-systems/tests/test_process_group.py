"""Functions run in a group of processes."""

import pytest
import torch
import torch.distributed as dist

from cs336_systems.process_group import backend_for, run_in_processes


def _sum_of_ranks(factor):
    value = torch.tensor([float(dist.get_rank() * factor)])
    dist.all_reduce(value)
    return dist.get_rank(), value


def _rank_one_fails():
    if dist.get_rank() == 1:
        raise ArithmeticError("rank one cannot")
    dist.barrier()


@pytest.mark.slow
def test_results_come_back_by_rank():
    results = run_in_processes(_sum_of_ranks, 3, 10)
    assert results == [(rank, torch.tensor([30.0])) for rank in range(3)]


@pytest.mark.slow
def test_a_failing_rank_ends_all_and_is_told():
    with pytest.raises(Exception, match="rank one cannot"):
        run_in_processes(_rank_one_fails, 2)


def test_the_backend_follows_the_device():
    assert [backend_for(torch.device(name)) for name in ("cpu", "cuda", "mps")] == ["gloo", "nccl", "gloo"]
