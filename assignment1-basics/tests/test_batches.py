"""Sampling of training windows and the fixed windows of validation."""

import numpy as np
import pytest
import torch

from cs336_basics.command_line import UsageError
from cs336_basics.data import get_batch
from cs336_basics.trainer.data_loading import evenly_spaced_batches


def test_targets_are_the_inputs_moved_by_one():
    dataset = np.arange(1000) * 3
    inputs, targets = get_batch(dataset, 16, 7)
    assert inputs.shape == targets.shape == (16, 7)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 3)
    assert (inputs[:, 1:] == targets[:, :-1]).all()


def test_every_start_is_equally_likely():
    length, context = 30, 7
    inputs, _ = get_batch(np.arange(length), 46_000, context, generator=np.random.default_rng(0))
    counts = torch.bincount(inputs[:, 0], minlength=length)
    num_starts = length - context
    assert (counts[num_starts:] == 0).all()
    expected = 46_000 / num_starts
    chi_squared = ((counts[:num_starts] - expected) ** 2 / expected).sum().item()
    assert chi_squared < 48.3  # the 99.9 % quantile for 22 degrees of freedom


def test_the_shortest_data_set_has_one_window():
    inputs, targets = get_batch(np.arange(5), 3, 4)
    assert inputs.tolist() == [[0, 1, 2, 3]] * 3
    assert targets.tolist() == [[1, 2, 3, 4]] * 3


@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_data_set_too_short_is_named(length):
    with pytest.raises(UsageError, match=f"{length} tokens; a context of 4 needs at least 5"):
        get_batch(np.arange(length), 1, 4)


def test_data_that_are_no_flat_integers_are_refused():
    with pytest.raises(UsageError, match="float64"):
        get_batch(np.zeros(100), 1, 4)
    with pytest.raises(UsageError, match=r"\(10, 10\)"):
        get_batch(np.zeros((10, 10), dtype=np.int64), 1, 4)


@pytest.mark.parametrize(("dtype", "top"), [("uint16", 2**16 - 1), ("uint32", 2**32 - 1)])
def test_memory_maps_keep_large_ids(tmp_path, dtype, top):
    path = tmp_path / "ids.dat"
    np.full(50, top, dtype=dtype).tofile(path)
    inputs, targets = get_batch(np.memmap(path, dtype=dtype, mode="r"), 4, 8)
    assert inputs.unique().tolist() == targets.unique().tolist() == [top]


def test_both_sources_of_randomness_can_be_seeded():
    dataset = np.arange(10_000)
    first = get_batch(dataset, 8, 4, generator=np.random.default_rng(3))[0]
    assert torch.equal(first, get_batch(dataset, 8, 4, generator=np.random.default_rng(3))[0])
    torch.manual_seed(3)
    first = get_batch(dataset, 8, 4)[0]
    torch.manual_seed(3)
    assert torch.equal(first, get_batch(dataset, 8, 4)[0])


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_an_unusable_device_is_refused(device):
    with pytest.raises((RuntimeError, AssertionError)):
        get_batch(np.arange(100), 2, 4, device)


def test_validation_windows_cover_a_small_set_once():
    dataset = np.arange(101)
    batches = list(evenly_spaced_batches(dataset, batch_size=4, context_length=10, num_batches=50))
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 2]
    targets = torch.cat([targets for _, targets in batches]).flatten()
    assert targets.tolist() == list(range(1, 101))


def test_validation_windows_spread_over_a_large_set_and_repeat():
    dataset = np.arange(100_000)
    first = torch.cat([inputs for inputs, _ in evenly_spaced_batches(dataset, 5, 10, 4)])
    again = torch.cat([inputs for inputs, _ in evenly_spaced_batches(dataset, 5, 10, 4)])
    assert torch.equal(first, again)
    assert first.shape == (20, 10)
    gaps = first[1:, 0] - first[:-1, 0]
    assert gaps.min() >= 4990
    assert gaps.max() <= 5010


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_arrive_on_cuda():
    inputs, targets = get_batch(np.arange(100), 4, 8, "cuda")
    assert inputs.device.type == "cuda"
    assert torch.equal(targets, inputs + 1)


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs MPS")
def test_batches_arrive_on_mps():
    inputs, targets = get_batch(np.arange(100), 4, 8, "mps")
    assert inputs.device.type == "mps"
    assert torch.equal(targets, inputs + 1)
