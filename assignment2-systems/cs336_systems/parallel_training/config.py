"""The settings of parallel training: those of assignment 1's trainer, and how the work is spread."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cs336_basics.command_line import UsageError
from cs336_basics.training_config import TrainConfig, setting
from cs336_systems.attention_choice import ATTENTION_NAMES
from cs336_systems.mesh import AXES, check_mesh
from cs336_systems.pipeline_parallel.schedules import SCHEDULES

DATA_STRATEGIES = ("ddp-naive", "ddp-flat", "ddp", "ddp-bucketed", "zero1", "fsdp")
STRATEGIES = ("none", *DATA_STRATEGIES, "tp", "pp")
LAYOUT_SETTINGS = ("parallel", "processes", *AXES, "microbatches")


@dataclass(frozen=True)
class Layout:
    """How processes share the work.

    Attributes:
        sizes: processes along each axis of the mesh.
        data_strategy: what the copies along the data axis do; one of `DATA_STRATEGIES`.
    """

    sizes: Mapping[str, int]
    data_strategy: str


@dataclass(frozen=True)
class ParallelTrainConfig(TrainConfig):
    """All settings of a parallel run; the fields beyond `TrainConfig`'s do not change what is learned.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    parallel: str = setting("none", "strategy; of what the axes below leave open, it takes all", choices=STRATEGIES)
    processes: int | None = setting(
        None, "processes to start on this machine; torchrun and Slurm say it themselves", type=int,
        shown="1 without parallel, else what the axes need, or one per GPU, or 2",
    )  # fmt: skip
    data: int | None = setting(None, "copies of the model that share a batch", type=int, shown="what is left, or 1")
    pipeline: int | None = setting(None, "stages the layers are divided into", type=int, shown="what is left, or 1")
    tensor: int | None = setting(None, "parts every layer is divided into", type=int, shown="what is left, or 1")
    schedule: str = setting("1f1b", "order of a pipeline's passes", choices=tuple(SCHEDULES))
    microbatches: int | None = setting(
        None, "parts a batch passes a pipeline in", type=int, shown="gradient_accumulation_steps"
    )
    bucket_size_mb: float = setting(25.0, "size of ddp-bucketed's messages, in MB")
    attention: str | None = setting(
        None, "attention function", type=str, choices=ATTENTION_NAMES, shown="tiled on a CPU, plain elsewhere"
    )
    checkpoint_blocks: int | None = setting(
        None, "layers whose activations are recomputed together in the backward pass", type=int, shown="keep them all"
    )
    fused: bool = setting(False, "fused loss, norms and AdamW: less memory, and on a GPU Triton kernels")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("processes", *AXES, "microbatches", "checkpoint_blocks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; allowed is any whole number of at least 1")
        if self.checkpoint_blocks is not None and self.checkpoint_blocks > self.num_layers:
            raise UsageError(f"checkpoint_blocks is {self.checkpoint_blocks}; allowed are 1 to {self.num_layers}")
        if self.microbatches is not None and self._size("pipeline") == 1 and self.parallel != "pp":
            raise UsageError(f"microbatches is {self.microbatches}, but there is no pipeline; leave it out")

    @classmethod
    def inherited(cls, stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """As `TrainConfig.inherited`; a layout of which any part is given anew is given as a whole."""
        kept = super().inherited(stored, given)
        if any(name in given for name in LAYOUT_SETTINGS):
            return {name: value for name, value in kept.items() if name not in LAYOUT_SETTINGS}
        return kept

    @property
    def _open_axis(self) -> str:
        return {"tp": "tensor", "pp": "pipeline"}.get(self.parallel, "data")

    def _size(self, axis: str) -> int:
        return getattr(self, axis) or 1

    def local_processes(self, device: torch.device) -> int:
        """How many processes to start on this machine."""
        if self.processes is not None:
            return self.processes
        given = math.prod(self._size(axis) for axis in AXES)
        if self.parallel == "none" or getattr(self, self._open_axis) is not None:
            return given
        return max(given, torch.cuda.device_count()) if device.type == "cuda" else 2 * given

    def layout(self, world_size: int) -> Layout:
        """How `world_size` processes share the work.

        Raises:
            UsageError: they cannot, or the strategy does not go with other settings.
        """
        if self.parallel == "none" and world_size > 1:
            raise UsageError(f"{world_size} processes need a strategy: give --parallel {', '.join(STRATEGIES[1:])}")
        sizes = {axis: self._size(axis) for axis in AXES}
        if getattr(self, self._open_axis) is None:
            taken = math.prod(sizes.values())
            if world_size % taken:
                raise UsageError(
                    f"{world_size} processes cannot be divided by the sizes given, {taken} together; "
                    "allowed is a multiple of that"
                )
            sizes[self._open_axis] = world_size // taken
        check_mesh(sizes, world_size)
        layout = Layout(sizes, self.parallel if self.parallel in DATA_STRATEGIES else "ddp")
        self._check_layout(layout)
        return layout

    def _check_layout(self, layout: Layout) -> None:
        data, pipeline, tensor = (layout.sizes[axis] for axis in AXES)
        if self.batch_size % (data * self.gradient_accumulation_steps):
            raise UsageError(
                f"batch_size {self.batch_size} cannot be shared by {data} data-parallel copies in "
                f"{self.gradient_accumulation_steps} equal parts; allowed is a multiple of "
                f"{data * self.gradient_accumulation_steps}"
            )
        if pipeline > 1 and (self.batch_size // data) % self.num_microbatches:
            raise UsageError(
                f"microbatches is {self.num_microbatches}; allowed are the divisors of a copy's "
                f"{self.batch_size // data} sequences"
            )
        if layout.data_strategy == "fsdp" and (tensor > 1 or pipeline > 1):
            raise UsageError("fsdp shards whole layers; allowed beside tensor or pipeline are ddp and zero1")
        if pipeline > 1 and layout.data_strategy not in ("ddp", "zero1"):
            raise UsageError(f"a pipeline averages gradients itself; allowed are ddp and zero1, not {self.parallel}")
        if pipeline > 1 and self.checkpoint_blocks is not None:
            raise UsageError("checkpoint_blocks does not go with a pipeline; use more microbatches to save memory")
        if self.fused and (tensor > 1 or pipeline > 1 or layout.data_strategy == "fsdp"):
            raise UsageError("fused goes with none, ddp-naive, ddp-flat, ddp, ddp-bucketed and zero1 only")
        if self.fused and self.compile:
            raise UsageError("fused does not go with compile, which fuses in its own way; give one of them")
        if self.compile and (tensor > 1 or pipeline > 1 or layout.data_strategy == "fsdp"):
            raise UsageError("compile goes with none, ddp-naive, ddp-flat, ddp, ddp-bucketed and zero1 only")

    @property
    def num_microbatches(self) -> int:
        """The parts in which a copy's share of a batch passes through a pipeline."""
        return self.microbatches or self.gradient_accumulation_steps
