"""The model that answers, or judges: chosen by flags, and loaded only when there is something to ask it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from transformers import AutoConfig, PreTrainedTokenizerBase

from cs336_alignment.policy import load_tokenizer, resolve_model, weight_files
from cs336_alignment.rollouts.factory import EngineName, make_engine
from cs336_alignment.rollouts.interface import RolloutEngine
from cs336_alignment.rollouts.vllm_engine import VLLMOptions


@dataclass(frozen=True)
class EngineChoice:
    """Which model is to answer, and by which engine.

    Attributes:
        model: a folder, a name on the Hugging Face hub, or "default".
        engine: what runs it.
        device: where: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: of the weights: "float32", "bfloat16" or "float16".
        max_batch_size: the most responses that the Hugging Face engine draws at once.
        server_url: of the running vLLM server, for "vllm-server".
        tensor_parallel: GPUs that vLLM spreads the model over.
        max_model_len: the most tokens of prompt and response together under vLLM; None for the model's context.
        gpu_memory_utilization: as for `VLLMOptions`.
    """

    model: str
    engine: EngineName = "hf"
    device: str = "auto"
    dtype: str = "float32"
    max_batch_size: int = 64
    server_url: str = ""
    tensor_parallel: int = 1
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return load_tokenizer(self.model)

    @cached_property
    def context_length(self) -> int | None:
        """The most tokens of prompt and response together, None if the model does not say."""
        if self.engine != "hf" and self.max_model_len is not None:
            return self.max_model_len
        return getattr(AutoConfig.from_pretrained(resolve_model(self.model)), "max_position_embeddings", None)

    def fits(self, prompt: str) -> bool:
        """Whether the prompt leaves room for at least one token of an answer."""
        return self.context_length is None or len(self.tokenizer(prompt, verbose=False).input_ids) < self.context_length

    def fingerprint(self) -> dict[str, Any]:
        """What tells a model from another of that name, as JSON values."""
        files = [list(file) for file in weight_files(self.model)]
        return {"model": str(self.model), "dtype": self.dtype, "weights": files}

    def open(self) -> RolloutEngine:
        """Load the model.

        Raises:
            UsageError: the model, the device, the engine or the server is not there.
        """
        return make_engine(
            self.engine,
            model=self.model,
            tokenizer=self.tokenizer,
            device=self.device,
            dtype=self.dtype,
            max_batch_size=self.max_batch_size,
            vllm=VLLMOptions(
                device=self.device,
                dtype=self.dtype,
                max_model_len=self.max_model_len,
                tensor_parallel=self.tensor_parallel,
                gpu_memory_utilization=self.gpu_memory_utilization,
            ),
            server_url=self.server_url,
        )


class EngineOnDemand:
    """Opens the engine at the first question, so that a run with nothing left to ask loads no model.

    A context manager that closes the engine if it was opened.
    """

    def __init__(self, open_engine: Callable[[], RolloutEngine]) -> None:
        self._open = open_engine
        self._engine: RolloutEngine | None = None

    def opened(self) -> RolloutEngine:
        """The engine, opened now if it was not before."""
        if self._engine is None:
            self._engine = self._open()
        return self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._engine.close()
