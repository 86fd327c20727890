"""Choosing a device."""

import pytest
import torch

from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device


def test_auto_takes_what_there_is():
    device = resolve_device("auto")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device == torch.device(best)
    assert torch.ones(2, device=device).sum().item() == 2


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", "", "tpu", "cpu:", "mps:", "cuda:", "cuda:²", "cuda:٣"])
def test_unknown_names_are_refused_by_name(name):
    with pytest.raises(UsageError, match=f"device '{name}' is unknown; allowed are auto"):
        resolve_device(name)


def test_a_device_this_machine_lacks_is_refused():
    with pytest.raises(UsageError, match="cuda:99"):
        resolve_device("cuda:99")
