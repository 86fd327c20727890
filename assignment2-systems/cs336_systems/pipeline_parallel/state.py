"""Putting together what the stages of a pipeline hold."""

from collections.abc import Hashable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


def merge_across_stages(own: dict[Key, Any], group: dist.ProcessGroup) -> dict[Key, Any]:
    """All stages' entries in one dictionary, on every rank of the pipeline.

    Tensors travel one by one, so no rank needs memory for more than the result and one tensor.

    Args:
        own: this stage's entries: tensors on the CPU, and plain values; the stages' keys differ.
        group: the pipeline's ranks.
    """
    uses_nccl = dist.get_backend(group) == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if uses_nccl else torch.device("cpu")
    merged: dict[Key, Any] = {}
    for stage in range(dist.get_world_size(group)):
        is_mine = dist.get_rank(group) == stage
        # A tensor on the meta device stands for its shape and type.
        headers = [{key: _without_data(value) for key, value in own.items()} if is_mine else None]
        dist.broadcast_object_list(headers, group=group, group_src=stage)
        for key, header in headers[0].items():
            if isinstance(header, Tensor):
                tensor = own[key].to(device) if is_mine else torch.empty_like(header, device=device)
                dist.broadcast(tensor, group=group, group_src=stage)
                merged[key] = tensor.cpu()
            else:
                merged[key] = header
    return merged


def _without_data(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value
