"""A running vLLM server, on this machine or another, spoken to over HTTP.

Start it with its development endpoints, which reload weights and reset caches:

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --port 8000

New weights travel through a folder that both sides see. The server reads them into the model that it holds, without a
restart.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from torch import nn

from cs336_alignment.rollouts.drawing import request_seeds
from cs336_alignment.rollouts.interface import Rollout, RolloutEngine, SamplingParameters, check_prompts
from cs336_alignment.rollouts.weight_files import written_weights
from cs336_basics.command_line import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_MOST_STOP_STRINGS = 4
"""As the OpenAI API has it, which the server speaks."""


class VLLMServerEngine(RolloutEngine):
    """Samples with a vLLM server that serves the policy's base model.

    Args:
        url: where the server listens, such as "http://localhost:8000".
        tokenizer: the model's.
        exchange_folder: a folder that the server sees under the same path; None is the machine's temporary folder.
        concurrency: the most prompts under way at once; the server batches them.
        timeout: seconds to wait for one answer.

    Raises:
        UsageError: no vLLM server answers at the address.
    """

    def __init__(
        self,
        url: str,
        tokenizer: "PreTrainedTokenizerBase",
        exchange_folder: str | Path | None = None,
        concurrency: int = 256,
        timeout: float = 600.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.tokenizer = tokenizer
        self.exchange_folder = exchange_folder
        limits = httpx.Limits(max_connections=concurrency)
        try:
            self._client = httpx.Client(base_url=self.url, timeout=timeout, limits=limits)
            served = self._call("GET", "/v1/models")["data"][0]
        except httpx.UnsupportedProtocol as error:
            raise UsageError(f"server_url {url!r} is no address; allowed are such as http://localhost:8000") from error
        self._model = served["id"]
        self._context_length = served["max_model_len"]
        self._pool = ThreadPoolExecutor(concurrency)

    def generate(self, prompts: Sequence[str], parameters: SamplingParameters) -> list[list[Rollout]]:
        if len(parameters.stop) > _MOST_STOP_STRINGS:
            raise UsageError(
                f"stop has {len(parameters.stop)} strings; the engine vllm-server allows {_MOST_STOP_STRINGS} at most"
            )
        token_ids = check_prompts(prompts, self.tokenizer, self._context_length)
        seeds = request_seeds(prompts, parameters)
        return list(self._pool.map(lambda *one: self._complete(*one, parameters), prompts, token_ids, seeds))

    def load_weights(self, policy: nn.Module) -> None:
        with written_weights(policy, self.exchange_folder) as folder:
            request = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            self._call("POST", "/collective_rpc", json=request)
        self.reset_caches()

    def reset_caches(self) -> None:
        """Forget the keys and values of all prompts.

        Raises:
            RuntimeError: the server could not, so its next answers would mix old and new weights.
        """
        if not self._call("POST", "/reset_prefix_cache", params={"reset_running_requests": True})["success"]:
            raise RuntimeError("the vLLM server did not reset its prefix cache after the weights had changed")

    def close(self) -> None:
        self._pool.shutdown()
        self._client.close()

    def _complete(self, prompt: str, token_ids: list[int], seed: int, parameters: SamplingParameters) -> list[Rollout]:
        answer = self._call(
            "POST",
            "/v1/completions",
            json={
                "model": self._model,
                "prompt": token_ids,
                "n": parameters.num_samples,
                "max_tokens": min(parameters.max_tokens, self._context_length - len(token_ids)),
                "min_tokens": parameters.min_tokens,
                "temperature": parameters.temperature,
                "top_p": parameters.top_p,
                "stop": list(parameters.stop),
                "include_stop_str_in_output": parameters.include_stop,
                "seed": seed,
                "logprobs": 0 if parameters.log_probs else None,
                "return_token_ids": True,
            },
        )
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        return [_rollout(prompt, choice) for choice in choices]

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.ConnectError as error:
            raise UsageError(f"no vLLM server answers at {self.url}: {error}") from None
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise UsageError(f"{self.url} has no {path}; start vLLM's server with VLLM_SERVER_DEV_MODE=1")
        if answer.is_error:
            raise RuntimeError(f"{self.url}{path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else {}


def _rollout(prompt: str, choice: dict[str, Any]) -> Rollout:
    log_probs = choice["logprobs"]["token_logprobs"] if choice.get("logprobs") else None
    reason = "stop" if choice["finish_reason"] == "stop" else "length"
    return Rollout(prompt, choice["text"], choice["token_ids"], log_probs, reason)
