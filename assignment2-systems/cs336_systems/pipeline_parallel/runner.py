"""A pipeline-parallel model: this rank's stage, and a training step that all ranks take together."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.trainer.gradient_clipping import scale_gradients
from cs336_systems.pipeline_parallel.execution import Execution
from cs336_systems.pipeline_parallel.schedules import Schedule, find_schedule, forward_only
from cs336_systems.pipeline_parallel.stages import PipelineStage
from cs336_systems.pipeline_parallel.state import merge_across_stages
from cs336_systems.tensor_parallel import state as tensor_state
from cs336_systems.tensor_parallel.clipping import squared_gradient_norm
from cs336_systems.tensor_parallel.model import language_model_loss, tensor_group


class PipelineParallel(PipelineStage):
    """This rank's stage of a language model. Its parameters are the stage's, under the names of the whole model.

    Every rank calls every method, with the same arguments.

    Args:
        model: the whole model with the same weights on every rank, or this rank's shard from `tensor_parallelize`.
            Forget it afterwards, so that the layers of other stages are freed. It may be on the meta device.
        group: the pipeline's ranks in the order of their stages, such as `Mesh.pipeline_group`.
        schedule: "1f1b" or "gpipe".
        data_group: ranks that train copies of this stage on other data, such as `Mesh.data_group`: gradients and losses
            are averaged over them. None: there are no copies.
        loss_fn: f(logits, targets), a mean over tokens; None takes the cross-entropy that fits the model.
        autocast_dtype: the type of the forward pass's products, such as torch.bfloat16; None leaves them alone.

    Raises:
        UsageError: the schedule is unknown, or there are more stages than layers.
    """

    def __init__(
        self,
        model: BasicsTransformerLM,
        group: dist.ProcessGroup,
        schedule: str = "1f1b",
        *,
        data_group: dist.ProcessGroup | None = None,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, dist.get_rank(group), dist.get_world_size(group))
        self.group, self.data_group, self.tensor_group = group, data_group, tensor_group(model)
        self.schedule = find_schedule(schedule)
        self.loss_fn = loss_fn or language_model_loss(model)
        self.autocast_dtype = autocast_dtype
        self._names = frozenset(model.state_dict())
        self._is_connected = False

    def train_step(
        self, inputs: Int[Tensor, "batch seq"], targets: Int[Tensor, "batch seq"], num_microbatches: int = 1
    ) -> Float[Tensor, ""]:
        """Forward and backward passes of one batch, and all communication of their gradients.

        Gradients must be unset or zero before; afterwards they are those of the mean loss over the batch (and over the
        data-parallel copies), ready for `clip_gradient` and an optimizer.

        Args:
            inputs, targets: the batch of this data-parallel copy, the same on all its ranks.
            num_microbatches: how many equal parts the batch passes through the pipeline in.

        Returns:
            The mean loss, on every rank.

        Raises:
            UsageError: the parts would not be equal.
        """
        loss = self._run(self.schedule, inputs, targets, num_microbatches)
        self._sum_tied_gradients()
        self._average_over_copies()
        return loss

    @torch.no_grad()
    def evaluate(
        self, inputs: Int[Tensor, "batch seq"], targets: Int[Tensor, "batch seq"], num_microbatches: int = 1
    ) -> Float[Tensor, ""]:
        """The mean loss of a batch, on every rank, without gradients; arguments and errors as in `train_step`."""
        return self._run(forward_only, inputs, targets, num_microbatches)

    def _run(self, schedule: Schedule, inputs: Tensor, targets: Tensor, num_microbatches: int) -> Tensor:
        if num_microbatches < 1 or len(inputs) % num_microbatches:
            raise UsageError(
                f"{num_microbatches} microbatches cannot share {len(inputs)} sequences equally; allowed are the "
                "divisors of the batch size"
            )
        if inputs.shape[-1] > self.config.context_length:
            raise UsageError(f"{inputs.shape[-1]} tokens do not fit the context length of {self.config.context_length}")
        self._connect()
        execution = Execution(
            self, self.group, inputs.chunk(num_microbatches), targets.chunk(num_microbatches), self.loss_fn,
            self._autocast,
        )  # fmt: skip
        loss = execution.run(schedule(self.stage, self.num_stages, num_microbatches))
        dist.broadcast(loss, group=self.group, group_src=self.num_stages - 1)
        if self.data_group is not None:
            dist.all_reduce(loss, group=self.data_group)
            loss /= dist.get_world_size(self.data_group)
        return loss

    def _connect(self) -> None:
        """Let all ranks of the pipeline meet once: NCCL demands it before messages between some of them."""
        if not self._is_connected:
            dist.all_reduce(torch.zeros(1, device=next(self.parameters()).device), group=self.group)
            self._is_connected = True

    def _autocast(self) -> AbstractContextManager:
        device = next(self.parameters()).device.type
        return torch.autocast(device, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def _sum_tied_gradients(self) -> None:
        """Give both copies of a tied embedding the sum of their gradients, so that they stay equal."""
        if self.tied_name is None:
            return
        gradient = self.get_parameter(self.tied_name).grad
        if gradient is None:  # frozen, on both ranks
            return
        theirs = torch.empty_like(gradient)
        peer = self.num_stages - 1 if self.is_first else 0
        operations = [
            dist.P2POp(operation, tensor, group=self.group, group_peer=peer)
            for operation, tensor in ((dist.isend, gradient), (dist.irecv, theirs))
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        gradient += theirs

    def _average_over_copies(self) -> None:
        if self.data_group is None:
            return
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        for work in [dist.all_reduce(gradient, group=self.data_group, async_op=True) for gradient in gradients]:
            work.wait()
        torch._foreach_div_(gradients, dist.get_world_size(self.data_group))

    def gradient_norm(self) -> Float[Tensor, ""]:
        """The L2 norm of the whole model's gradient, each parameter counted once; the same on every rank."""
        elsewhere = [self.get_parameter(self.tied_name)] if self.is_last and self.tied_name is not None else []
        square = squared_gradient_norm(self, self.tensor_group, elsewhere)
        dist.all_reduce(square, group=self.group)
        return square.sqrt()

    def clip_gradient(self, max_l2_norm: float) -> Float[Tensor, ""]:
        """Scale the gradients on all ranks so that the whole model's L2 norm is at most `max_l2_norm`.

        Returns:
            The norm before clipping.

        Raises:
            ValueError: `max_l2_norm` is not above 0.
        """
        norm = self.gradient_norm()
        scale_gradients(self.parameters(), norm, max_l2_norm)
        return norm

    def gather_state_dict(self) -> dict[str, Tensor]:
        """The state dict of the whole model, on the CPU of every rank."""
        return merge_across_stages(tensor_state.gather_state_dict(self, self.tensor_group), self.group)

    def load_full_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load this stage's part of a whole model's state dict, in place; it may come from any layout of ranks.

        Raises:
            UsageError: a name is missing or unknown, or a shape is not that of this model.
        """
        if unknown := sorted(state.keys() - self._names):
            raise UsageError(
                f"the state dict has {', '.join(unknown)}, which this model has not; it is of another model"
            )
        own = {name: state[name] for name in self.state_dict() if name in state}
        tensor_state.load_full_state_dict(self, own, self.tensor_group)

    def gather_optimizer_state(self, optimizer: torch.optim.Optimizer) -> tensor_state.OptimizerState:
        """The optimizer's state for the whole model by parameter name, on the CPU of every rank.

        Args:
            optimizer: over this stage's parameters.
        """
        own = tensor_state.gather_optimizer_state(self, optimizer, self.tensor_group)
        if self.is_last and self.tied_name is not None:
            del own[self.tied_name]  # the first stage's is the same
        flat = {(name, key): value for name, values in own.items() for key, value in values.items()}
        state: tensor_state.OptimizerState = {}
        for (name, key), value in merge_across_stages(flat, self.group).items():
            state.setdefault(name, {})[key] = value
        return state

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: tensor_state.OptimizerState) -> None:
        """Load this stage's part of what `gather_optimizer_state` returned, whatever layout it came from.

        Args:
            optimizer: over this stage's parameters; its settings stay.
            state: by parameter name.

        Raises:
            UsageError: a parameter's name is missing.
        """
        if self.tied_name is not None and "token_embeddings.weight" in state:
            state = {**state, self.tied_name: state["token_embeddings.weight"]}
        tensor_state.load_optimizer_state(self, optimizer, state, self.tensor_group)
