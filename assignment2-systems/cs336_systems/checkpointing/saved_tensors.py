"""Count what autograd keeps for the backward pass: each piece of memory once, by the module that kept it.

`torch.autograd.graph.saved_tensors_hooks` sees every tensor when it is saved. What it returns is kept in the tensor's
place, so when that is collected, the tensor has been released: the count follows the memory through the backward pass.
"""

import weakref
from collections import defaultdict
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cs336_systems.profiling.annotate import annotate_modules


class _Kept:
    """Stands for a saved tensor in autograd's graph, and dies with it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # a function that saves its own result would otherwise never be collected


@dataclass
class _Storage:
    num_bytes: int
    module: str
    users: int = 0


class SavedTensors:
    """The tensors that are saved at this moment. Views of one storage count once, with all of the storage's bytes.

    Attributes:
        num_bytes: bytes saved now.
        peak_bytes: the most there ever were.
    """

    def __init__(self, excluded: set[int]) -> None:
        self.num_bytes = 0
        self.peak_bytes = 0
        self._excluded = excluded
        self._storages: dict[int, _Storage] = {}
        self._modules: list[str] = []

    @property
    def storages(self) -> dict[int, int]:
        """Address and bytes of each piece of memory saved now."""
        return {address: storage.num_bytes for address, storage in self._storages.items()}

    @property
    def by_module(self) -> dict[str, int]:
        """Bytes saved now, by the dotted name of the innermost module that saved them first ("" outside of all)."""
        total: dict[str, int] = defaultdict(int)
        for storage in self._storages.values():
            total[storage.module] += storage.num_bytes
        return dict(total)

    @contextmanager
    def in_module(self, name: str) -> Generator[None, None, None]:
        """What is saved within the block belongs to the module of that name."""
        self._modules.append(name)
        try:
            yield
        finally:
            self._modules.pop()

    def pack(self, tensor: Tensor) -> _Kept:
        """The hook for a tensor that is saved."""
        kept = _Kept(tensor)
        memory = tensor.untyped_storage()
        address = memory.data_ptr()
        if address in self._excluded or memory.nbytes() == 0:
            return kept
        if address not in self._storages:
            self._storages[address] = _Storage(memory.nbytes(), self._modules[-1] if self._modules else "")
            self.num_bytes += memory.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.num_bytes)
        self._storages[address].users += 1
        weakref.finalize(kept, self._release, address)
        return kept

    @staticmethod
    def unpack(kept: _Kept) -> Tensor:
        """The hook for a saved tensor that is needed."""
        return kept.tensor

    def _release(self, address: int) -> None:
        storage = self._storages[address]
        storage.users -= 1
        if storage.users == 0:
            self.num_bytes -= storage.num_bytes
            del self._storages[address]


@contextmanager
def count_saved_tensors(model: nn.Module | None = None) -> Generator[SavedTensors, None, None]:
    """Count what is saved within the block, and its release within and after it.

    Args:
        model: its parameters and buffers are not counted, and saved tensors are told apart by its modules. None counts
            everything, without modules.
    """
    state = [] if model is None else [*model.parameters(), *model.buffers()]
    saved = SavedTensors({x.untyped_storage().data_ptr() for x in state})
    modules: AbstractContextManager = annotate_modules(model or nn.Identity(), saved.in_module)
    with modules, torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
        yield saved
