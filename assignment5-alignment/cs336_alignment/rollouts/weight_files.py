"""Handing a policy's weights to other processes as files."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from cs336_alignment.rollouts.weight_sync import named_weights

_BYTES_PER_FILE = 2**31


@contextmanager
def written_weights(policy: nn.Module, parent: str | Path | None = None) -> Iterator[Path]:
    """A folder with the policy's weights, removed at the end.

    Args:
        policy: as for `RolloutEngine.load_weights`.
        parent: where the folder is made; None is the machine's temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="weights-", dir=parent) as folder:
        write_weights(policy, Path(folder))
        yield Path(folder)


def write_weights(policy: nn.Module, folder: Path, bytes_per_file: int = _BYTES_PER_FILE) -> None:
    """Write a policy's weights as safetensors files; no more than one file's worth is gathered in memory at once.

    Args:
        policy: as for `RolloutEngine.load_weights`.
        folder: takes `weights-N.safetensors`.
        bytes_per_file: a file is closed once it holds that much.
    """
    pending: dict[str, Tensor] = {}
    files = 0

    def write() -> None:
        nonlocal files
        save_file(pending, folder / f"weights-{files:05d}.safetensors")
        pending.clear()
        files += 1

    for name, value in named_weights(policy):
        # A copy also where a tied weight is the same memory: safetensors refuses to write shared memory.
        pending[name] = value.cpu().clone() if value.device.type == "cpu" else value.cpu()
        if sum(tensor.nbytes for tensor in pending.values()) >= bytes_per_file:
            write()
    if pending:
        write()
