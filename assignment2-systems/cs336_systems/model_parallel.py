"""One rank's part of a model that is trained by data, pipeline and tensor parallelism together."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM
from cs336_systems import tensor_parallel
from cs336_systems.data_parallel import OverlappedDDP
from cs336_systems.mesh import Mesh
from cs336_systems.pipeline_parallel import PipelineParallel
from cs336_systems.tensor_parallel.state import OptimizerState


class ModelParallel:
    """A model spread over a mesh, with the same few methods for every mesh. All ranks call each method together.

    Args:
        model: the whole model, with the same weights on every rank; forget it afterwards.
        mesh: how many ranks share the batch, the layers and the insides of each layer.
        schedule: of the pipeline, "1f1b" or "gpipe".
        num_microbatches: the parts in which a rank's share of a batch passes through the pipeline.
        sequence_parallel: tensor-parallel ranks divide the tokens between their regions; see `tensor_parallelize`.

    Attributes:
        module: this rank's parameters, under the names of the whole model.

    Raises:
        UsageError: the mesh does not divide the model, or microbatches are asked for without a pipeline.
    """

    def __init__(
        self,
        model: BasicsTransformerLM,
        mesh: Mesh,
        *,
        schedule: str = "1f1b",
        num_microbatches: int = 1,
        sequence_parallel: bool = False,
    ) -> None:
        self.mesh, self.num_microbatches = mesh, num_microbatches
        if mesh.shape["tensor"] > 1:
            tensor_parallel.tensor_parallelize(model, mesh.tensor_group, sequence_parallel=sequence_parallel)
        self.pipeline: PipelineParallel | None = None
        if mesh.shape["pipeline"] > 1:
            data_group = mesh.data_group if mesh.shape["data"] > 1 else None
            self.pipeline = PipelineParallel(model, mesh.pipeline_group, schedule, data_group=data_group)
            self.module: torch.nn.Module = self.pipeline
        else:
            if num_microbatches != 1:
                raise UsageError(f"num_microbatches is {num_microbatches}; without a pipeline allowed is 1")
            self.module = model
            self._loss_fn = tensor_parallel.language_model_loss(model)
            self._replica = OverlappedDDP(model, mesh.data_group)

    def _share(self, batch: Tensor) -> Tensor:
        """This data-parallel copy's part of the batch."""
        copies = self.mesh.shape["data"]
        if len(batch) % copies:
            raise UsageError(f"{copies} data-parallel copies cannot share {len(batch)} sequences; give a multiple")
        return batch.chunk(copies)[self.mesh.data_rank]

    def backward(self, inputs: Int[Tensor, "batch seq"], targets: Int[Tensor, "batch seq"]) -> Float[Tensor, ""]:
        """Set the gradients of the mean loss over the whole batch, and return that loss. Gradients must be unset."""
        inputs, targets = self._share(inputs), self._share(targets)
        if self.pipeline is not None:
            return self.pipeline.train_step(inputs, targets, self.num_microbatches)
        loss = self._loss_fn(self._replica(inputs), targets)
        loss.backward()
        self._replica.finish_gradient_synchronization()
        mean = loss.detach().clone()
        dist.all_reduce(mean, group=self.mesh.data_group)
        return mean / self.mesh.shape["data"]

    def clip_gradient(self, max_l2_norm: float) -> Float[Tensor, ""]:
        """Clip by the norm of the whole model's gradient; returns the norm before."""
        if self.pipeline is not None:
            return self.pipeline.clip_gradient(max_l2_norm)
        return tensor_parallel.clip_gradient(self.module, max_l2_norm, self.mesh.tensor_group)

    def gather_state_dict(self) -> dict[str, Tensor]:
        """The state dict of the whole model, on the CPU of every rank."""
        if self.pipeline is not None:
            return self.pipeline.gather_state_dict()
        return tensor_parallel.gather_state_dict(self.module, self.mesh.tensor_group)

    def load_full_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load this rank's part of a whole model's state dict."""
        if self.pipeline is not None:
            self.pipeline.load_full_state_dict(state)
        else:
            tensor_parallel.load_full_state_dict(self.module, state, self.mesh.tensor_group)

    def gather_optimizer_state(self, optimizer: torch.optim.Optimizer) -> OptimizerState:
        """The state of an optimizer over `module.parameters()` for the whole model, on the CPU of every rank."""
        if self.pipeline is not None:
            return self.pipeline.gather_optimizer_state(optimizer)
        return tensor_parallel.gather_optimizer_state(self.module, optimizer, self.mesh.tensor_group)

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
        """Load this rank's part of what `gather_optimizer_state` returned on any mesh."""
        if self.pipeline is not None:
            self.pipeline.load_optimizer_state(optimizer, state)
        else:
            tensor_parallel.load_optimizer_state(self.module, optimizer, state, self.mesh.tensor_group)
