"""Telling that memory ran out from every other error."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or main memory, could not hold a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator has no exception of its own; oneDNN reports the same as a failed primitive.
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )
