"""One case of the benchmark: a model, a batch, and what to do with them, timed phase by phase."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.attention_choice import attention_function
from cs336_systems.profiling.annotate import RangeMaker, annotate_modules, no_range
from cs336_systems.profiling.timing import synchronize

Mode = Literal["inference", "forward", "forward_backward", "step"]


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        size: the shape's name in tables.
        config: the model's shape; a sequence fills its context length.
        batch_size: sequences per batch.
        mode: "inference" is the forward pass without autograd, "forward" with it, "forward_backward" adds the backward
            pass, "step" also AdamW. All end in the loss, except for what follows it.
        dtype: "float32", or "bfloat16": autocast with fp32 parameters.
        attention: a name in `attention_choice.ATTENTION_NAMES`.
        compiled: whether the model goes through torch.compile.
    """

    size: str
    config: TransformerConfig
    batch_size: int
    mode: Mode
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: str = "plain"
    compiled: bool = False

    @property
    def tokens(self) -> int:
        """Tokens per batch."""
        return self.batch_size * self.config.context_length

    @property
    def name(self) -> str:
        """A name for files."""
        parts = [self.size, f"ctx{self.config.context_length}", f"batch{self.batch_size}", self.mode]
        parts += [self.dtype, self.attention] + ["compiled"] * self.compiled
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the shape's too."""
        return asdict(self)


class Workload:
    """A freshly initialized model and a random batch on a device; `run` does once what the case asks for.

    Args:
        case: what to do.
        device: where.
        seed: of the weights and the batch.

    Attributes:
        model: the model itself, also if the case runs it compiled.
        inputs, targets: the batch, token ids (batch, context).
    """

    def __init__(self, case: Case, device: torch.device, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.case, self.device = case, device
        self.model = BasicsTransformerLM.from_config(
            case.config, attention_fn=attention_function(case.attention), device=device
        )
        self._forward = torch.compile(self.model, dynamic=False) if case.compiled else self.model
        self.optimizer = AdamW(self.model.parameters()) if case.mode == "step" else None
        shape = (case.batch_size, case.config.context_length + 1)
        tokens = torch.randint(case.config.vocab_size, shape).to(device)
        self.inputs, self.targets = tokens[:, :-1], tokens[:, 1:]
        self._make_range: RangeMaker = no_range

    @contextmanager
    def in_ranges(self, make_range: RangeMaker) -> Generator[None, None, None]:
        """Within the block, phases are ranges, and so are the model's parts unless it is compiled.

        With plain attention that includes the steps within attention.
        """
        self._make_range = make_range
        parts = no_range if self.case.compiled else make_range
        try:
            with annotate_modules(self.model, parts, split_attention=self.case.attention == "plain"):
                yield
        finally:
            self._make_range = no_range

    @contextmanager
    def _phase(self, name: str, seconds: dict[str, float]) -> Generator[None, None, None]:
        synchronize(self.device)
        start = time.perf_counter()
        with self._make_range(name):
            yield
            synchronize(self.device)
        seconds[name] = time.perf_counter() - start

    def run(self) -> dict[str, float]:
        """Do it once.

        Returns:
            Wall-clock seconds of each phase, the device's work included: "forward", "backward" and "optimizer", as far
            as the case has them.
        """
        seconds: dict[str, float] = {}
        self.model.zero_grad(set_to_none=True)
        with self._phase("forward", seconds), torch.set_grad_enabled(self.case.mode != "inference"):
            loss = self.loss()
        if self.case.mode in ("forward_backward", "step"):
            with self._phase("backward", seconds):
                loss.backward()
        if self.optimizer is not None:
            with self._phase("optimizer", seconds):
                self.optimizer.step()
        return seconds

    def loss(self) -> torch.Tensor:
        """The forward pass and the mean cross-entropy, in the case's type."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.case.dtype == "bfloat16"):
            logits = self._forward(self.inputs)
            with self._make_range("loss"):
                return cross_entropy(logits, self.targets)
