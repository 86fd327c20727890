"""LoRA: training a low-rank change of the linear layers (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    y = x W^T + b + (alpha / r) * dropout(x) A^T B^T        W, b frozen; A [r, d_in], B [d_out, r] trained

B starts at zero, so training starts from the base model exactly. Adapters sit beside the weight they change, under the
weight's own name: a model with adapters has the base model's names and `lora_a`, `lora_b` beside them.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError

DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The attention and feed-forward matrices of Llama, Qwen and OLMo."""
_ADAPTERS = ("lora_a", "lora_b")


class LoRALinear(nn.Module):
    """A frozen linear layer and its trained low-rank change.

    Args:
        base: the layer; its weight and bias are taken over, not copied.
        rank: r, the inner dimension of the change.
        alpha: the change is scaled by alpha / r.
        dropout: rate at which the adapter's input (not the base's) is dropped in training.

    Attributes:
        weight, bias: the base's, frozen.
        lora_a, lora_b: the trained factors, in the weight's data type, or fp32 for half-precision weights.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self._base = (base,)  # in a tuple, its weight is not registered twice
        self.scale = alpha / rank
        self.dropout = dropout
        # Adam's small steps on a half-precision factor would be rounded away.
        kind = {"device": base.weight.device, "dtype": torch.promote_types(base.weight.dtype, torch.float32)}
        self.lora_a = nn.Parameter(torch.empty(rank, base.in_features, **kind))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, **kind))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # uniform within 1 / sqrt(d_in), as the authors' code

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """The base layer's output plus the adapter's."""
        dropped = nn.functional.dropout(x, self.dropout, self.training)
        change = dropped.to(self.lora_a.dtype) @ self.lora_a.T @ self.lora_b.T * self.scale
        output = nn.functional.linear(x, self.weight, self.bias)
        return output + change.to(output.dtype)

    @torch.no_grad()
    def merged_weight(self, weight: Float[Tensor, "d_out d_in"] | None = None) -> Float[Tensor, "d_out d_in"]:
        """W + (alpha / r) B A, in the weight's data type, rounded once.

        Args:
            weight: W, if this layer holds only a part of it; None takes the layer's.
        """
        weight = self.weight if weight is None else weight
        change = self.scale * (self.lora_b @ self.lora_a)
        return (weight.to(change.dtype) + change).to(weight.dtype)

    def merged_base(self) -> nn.Linear:
        """The base layer with the merged weight."""
        (base,) = self._base
        base.weight, base.bias = nn.Parameter(self.merged_weight()), self.bias
        return base.train(self.training)


def apply_lora(
    model: nn.Module,
    rank: int,
    alpha: float = 16.0,
    targets: Sequence[str] = DEFAULT_TARGETS,
    dropout: float = 0.0,
) -> int:
    """Freeze a model and give its target layers adapters, in place.

    Args:
        model: any model of `torch.nn.Linear` layers, such as those of transformers.
        rank, alpha, dropout: as for `LoRALinear`.
        targets: a linear layer gets an adapter if its name, or the end of it after a dot, is one of these.

    Returns:
        The number of layers with adapters.

    Raises:
        UsageError: the rank is not above 0, no layer fits, one shares its weight, or the model has adapters already.
    """
    if rank < 1:
        raise UsageError(f"lora_rank is {rank}; allowed is any whole number of at least 1")
    if has_lora(model):
        raise UsageError("the model has LoRA adapters already; merge them first")
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(name == end or name.endswith(f".{end}") for end in targets)
    ]
    if not found:
        linear = sorted(
            {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        )
        raise UsageError(f"lora_targets {', '.join(targets)} fits no layer; this model has {', '.join(linear)}")
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    if tied := [name for name, base in found if uses[id(base.weight)] > 1]:
        raise UsageError(f"lora_targets has {tied[0]}, whose weight is tied to another layer's; leave it out")
    model.requires_grad_(False)
    for name, base in found:
        _put(model, name, LoRALinear(base, rank, alpha, dropout).train(base.training))
    return len(found)


def has_lora(model: nn.Module) -> bool:
    """Whether any layer has an adapter."""
    return next(_adapted(model), None) is not None


def merge_lora(model: nn.Module) -> None:
    """Replace every adapted layer by a plain one with the merged weight, in place; all weights can be trained again."""
    for name, layer in list(_adapted(model)):
        _put(model, name, layer.merged_base())
    model.requires_grad_(True)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the base model with adapters merged in; the model itself stays as it is.

    Tensors without an adapter are the model's own, not copies. For a model without adapters it is its state dict.
    """
    state = {name: value for name, value in model.state_dict().items() if not name.endswith(_ADAPTERS)}
    for name, layer in _adapted(model):
        state[f"{name}.weight"] = layer.merged_weight()
    return state


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """A context in which a model with adapters computes what the base model does."""
    scales = [(layer, layer.scale) for _, layer in _adapted(model)]
    try:
        for layer, _ in scales:
            layer.scale = 0.0
        yield
    finally:
        for layer, scale in scales:
            layer.scale = scale


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' factors alone, by name."""
    return {name: value for name, value in model.state_dict().items() if name.endswith(_ADAPTERS)}


def save_lora(model: nn.Module, path: str | os.PathLike) -> None:
    """Write the adapters' factors to a safetensors file, whole or not at all."""
    with atomic_write(path) as file:
        state = {name: value.detach().cpu().contiguous() for name, value in lora_state_dict(model).items()}
        file.write(safetensors.torch.save(state, metadata={"format": "pt"}))


def load_lora(model: nn.Module, path: str | os.PathLike) -> None:
    """Take over adapters that `save_lora` wrote into a model that `apply_lora` prepared alike.

    Raises:
        UsageError: the file is damaged, or its adapters are of other layers or of another rank.
    """
    try:
        state = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UsageError(f"{path} is damaged or no safetensors file: {error}") from None
    own = lora_state_dict(model)
    if differences := sorted(set(own) ^ set(state)):
        raise UsageError(f"{path} has adapters of other layers than the model, such as {differences[0]}")
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise UsageError(f"{path} has {name} of shape {list(state[name].shape)}, the model {list(value.shape)}")
        value.copy_(state[name])


def _adapted(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear))


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
